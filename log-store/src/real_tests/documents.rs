//! The documents name tests: every one of them is there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn sources(dir: &Path, found: &mut String) {
    for entry in fs::read_dir(dir).expect("listed") {
        let path = entry.expect("listed").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push_str(&fs::read_to_string(&path).expect("UTF-8"));
        }
    }
}

/// The names of all functions that are tests.
fn tests() -> BTreeSet<String> {
    let mut text = String::new();
    for dir in ["log-store/src", "agent/src", "tests"] {
        sources(&repository().join(dir), &mut text);
    }
    let mut names = BTreeSet::new();
    let (mut is_test, mut is_listed) = (false, false);
    for line in text.lines().map(str::trim) {
        // Conditions that are tried in two ways, by name: tests/hostile/trial.rs.
        if line == "both_ways! {" {
            is_listed = true;
        } else if is_listed && line == "}" {
            is_listed = false;
        } else if is_listed {
            names.extend(line.split_whitespace().map(ToOwned::to_owned));
        } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, name)) = line.split_once("fn ").filter(|_| is_test) {
            names.insert(name.split('(').next().expect("a first part").to_owned());
            is_test = false;
        }
    }
    names
}

#[test]
fn every_test_that_the_field_lessons_name_is_there() {
    let text = fs::read_to_string(repository().join("docs/field-lessons.md")).expect("a document");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| |")).collect();
    let tests = tests();
    for (row, number) in rows.iter().zip(1..) {
        assert!(row.starts_with(&format!("| {number} | ")), "row {number}: {row}");
        let here = row.split(" | ").nth(3).expect("four columns");
        let is_test_name = |quoted: &&str| quoted.contains('_');
        let named: Vec<_> = here.split('`').skip(1).step_by(2).filter(is_test_name).collect();
        assert!(!named.is_empty(), "row {number} names no test");
        for name in named {
            assert!(tests.contains(name), "row {number} names `{name}`, which is no test");
        }
    }
    assert_eq!(rows.len(), 46);
}
