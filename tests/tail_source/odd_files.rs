//! What else is found where files should be, and what else happens to them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use super::{Logs, refused, source_status, stored, stored_count, texts, wait_following, wait_refused, wait_stored};
use crate::support::daemon::PATIENCE;
use crate::support::forebay::Home;
use crate::support::{Forebay, eventually};

#[test]
fn lines_are_bytes_and_have_their_file_for_a_key() {
    let logs = Logs::new();
    let agent = Forebay::start(&logs.configuration("*.log", "exclude = [\"**/left-out.log\"]"));
    logs.append("a.log", b"one\r\n\n\xff\xfe\x00garbage\nha".as_slice());
    logs.append("left-out.log", "not this\n");
    wait_stored(&agent, 2);
    logs.append("a.log", "lf\n");
    logs.append("later.log", "appears later\n");
    wait_stored(&agent, 4);
    let (a, later) = (logs.path("a.log").display().to_string(), logs.path("later.log").display().to_string());
    let mut stored = stored(&agent);
    stored.sort();
    let expected = [(&a, b"half".as_slice()), (&a, b"one"), (&a, b"\xff\xfe\x00garbage"), (&later, b"appears later")];
    assert_eq!(stored, expected.map(|(key, data)| (key.clone(), data.to_owned())));
}

#[test]
fn ten_megabytes_without_a_line_are_counted_and_the_next_line_passes() {
    let logs = Logs::new();
    let agent = Forebay::start(&logs.configuration("a.log", ""));
    let before = agent.resident_bytes();
    logs.append("a.log", "first\n");
    wait_stored(&agent, 1);
    logs.append("a.log", vec![b'x'; 10_000_000]);
    wait_refused(&agent, "oversize");
    logs.append("a.log", "\nnext\n");
    wait_stored(&agent, 2);
    assert_eq!((texts(&agent), refused(&agent, "oversize")), (vec!["first".to_owned(), "next".to_owned()], 1));
    let from = format!("from=file {:?}, byte 6", logs.path("a.log").display().to_string());
    assert!(agent.log().contains(&from), "{from} in {}", agent.log());
    let grown = agent.resident_bytes_peak().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes of memory for a line that is not stored");
}

#[test]
fn a_line_that_cannot_be_decoded_is_told_with_its_file_and_place() {
    let logs = Logs::new();
    let agent = Forebay::start(&logs.configuration("a.log", "decode = \"json\"\non-undecodable = \"drop\""));
    logs.append("a.log", "{\"a\":1}\nwhat is this\n{\"a\":2}\n");
    wait_stored(&agent, 2);
    assert_eq!(refused(&agent, "undecodable"), 1);
    let from = format!("from=file {:?}, byte 8", logs.path("a.log").display().to_string());
    let told = agent.log().lines().any(|line| line.contains(&from) && line.contains("it is not json"));
    assert!(told, "{from} in {}", agent.log());
    let error = source_status(&agent)["last_error"]["message"].to_string();
    assert!(error.contains("byte 8"), "{error}");
}

#[test]
fn records_of_several_lines_end_where_the_next_begins_or_after_a_while() {
    let logs = Logs::new();
    let source = "multiline = { start = '^\\d{4}-', timeout = \"300ms\" }\npartial-line-timeout = \"500ms\"";
    let agent = Forebay::start(&logs.configuration("a.log", source));
    logs.append("a.log", "2026-01-01 error\n  at a\n  at b\n2026-01-02 fine\n2026-01-03 last\n  of all\n");
    wait_stored(&agent, 3);
    logs.append("a.log", "2026-01-04 no end");
    wait_stored(&agent, 4);
    let expected =
        ["2026-01-01 error\n  at a\n  at b", "2026-01-02 fine", "2026-01-03 last\n  of all", "2026-01-04 no end"];
    assert_eq!(texts(&agent), expected);
}

#[test]
fn what_is_no_file_and_what_may_not_be_read_is_told_and_recovers() {
    let logs = Logs::new();
    fs::create_dir(logs.path("folder")).expect("it is ours");
    let made = std::process::Command::new("mkfifo").arg(logs.path("pipe")).status();
    assert!(made.expect("mkfifo can be started").success());
    logs.append("secret.log", "secret\n");
    logs.append("open.log", "open\n");
    fs::set_permissions(logs.path("secret.log"), Permissions::from_mode(0o000)).expect("it is ours");
    let configuration = logs.configuration("*.log", "").replace(
        "paths = [",
        &format!("paths = [\"{}\", \"{}\", ", logs.path("folder").display(), logs.path("pipe").display()),
    );
    let home = Home::new(&configuration);
    // Root may read anything unless its capabilities are taken away.
    let powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--"];
    let home = if rustix::process::geteuid().is_root() { home.through(&powerless) } else { home };
    let agent = Forebay::start_in(home, &[]);
    wait_stored(&agent, 1);
    wait_refused(&agent, "unreadable");
    let log = agent.log();
    for told in [
        "folder is a directory, not a file",
        "pipe is a pipe, socket or device",
        "secret.log cannot be read: Permission denied",
    ] {
        assert!(log.contains(told), "{told} in {log}");
    }
    assert_eq!((refused(&agent, "not-a-file"), texts(&agent)), (2, vec!["open".to_owned()]));
    fs::set_permissions(logs.path("secret.log"), Permissions::from_mode(0o600)).expect("it is ours");
    wait_stored(&agent, 2);
    assert_eq!(refused(&agent, "unreadable"), 1);
    assert!(agent.log().contains("secret.log can be read now"));
}

#[test]
fn files_and_folders_that_vanish_come_back() {
    let logs = Logs::new();
    fs::create_dir(logs.path("app")).expect("it is ours");
    let agent = Forebay::start(&logs.configuration("app/*.log", ""));
    for round in 1..=3 {
        logs.append("app/a.log", format!("round {round}\nwithout end"));
        // A deleted file has no more to come: its last line is one.
        wait_stored(&agent, 2 * round - 1);
        fs::remove_dir_all(logs.path("app")).expect("it is ours");
        wait_stored(&agent, 2 * round);
        fs::create_dir(logs.path("app")).expect("it is ours");
    }
    let expected: Vec<_> = (1..=3).flat_map(|round| [format!("round {round}"), "without end".to_owned()]).collect();
    assert_eq!(texts(&agent), expected);
    assert_eq!(source_status(&agent)["refused"].as_object().map(serde_json::Map::len), Some(0));
}

#[test]
fn links_are_followed_to_other_files_as_kubernetes_makes_them() {
    let logs = Logs::new();
    for folder in ["containers", "pods"] {
        fs::create_dir(logs.path(folder)).expect("it is ours");
    }
    logs.append("pods/0.log", "of the first\n");
    symlink(logs.path("pods/0.log"), logs.path("containers/web.log")).expect("it is ours");
    let agent = Forebay::start(&logs.configuration("containers/*.log", ""));
    wait_stored(&agent, 1);
    logs.append("pods/0.log", "of the first, too\n");
    wait_stored(&agent, 2);
    logs.append("pods/1.log", "of the second\n");
    fs::remove_file(logs.path("containers/web.log")).expect("it is ours");
    symlink(logs.path("pods/1.log"), logs.path("containers/web.log")).expect("it is ours");
    wait_stored(&agent, 3);
    assert_eq!(texts(&agent), ["of the first", "of the first, too", "of the second"]);
    assert!(stored(&agent).iter().all(|(key, _)| *key == logs.path("containers/web.log").display().to_string()));
}

#[test]
fn a_source_may_begin_at_the_end_of_what_is_there() {
    let logs = Logs::new();
    logs.append("a.log", "old\nunfin");
    let mut agent = Forebay::start(&logs.configuration("*.log", "start = \"end\""));
    // What it has open it has found: from now on a file is a new one.
    let open = PathBuf::from(format!("/proc/{}/fd", agent.pid()));
    eventually(PATIENCE, "a.log is open", || {
        let files = fs::read_dir(&open).expect("it runs").flatten().map(|file| fs::read_link(file.path()));
        files.flatten().any(|file| file == logs.path("a.log"))
    });
    logs.append("b.log", "of a new file\n");
    wait_following(&agent, &logs.path("b.log"));
    logs.append("a.log", "ished\n");
    wait_stored(&agent, 2);
    assert!(agent.terminate().success());
    logs.append("c.log", "of a file that came while it was away\n");
    agent.start_again();
    wait_stored(&agent, 3);
    assert_eq!(texts(&agent), ["of a new file", "unfinished", "of a file that came while it was away"]);
}

#[test]
fn a_card_that_was_copied_to_another_is_known_again() {
    let logs = Logs::new();
    let mut agent = Forebay::start(&logs.configuration("*.log", ""));
    logs.append("a.log", "one\n");
    wait_stored(&agent, 1);
    assert!(agent.terminate().success());
    fs::copy(logs.path("a.log"), logs.path("copy")).expect("it is ours");
    fs::rename(logs.path("copy"), logs.path("a.log")).expect("it is ours");
    logs.append("a.log", "two\n");
    agent.start_again();
    wait_stored(&agent, 2);
    assert_eq!(texts(&agent), ["one", "two"]);
}

#[test]
fn thousands_of_files_are_followed() {
    const FILES: u64 = 2500;
    let logs = Logs::new();
    for file in 0..FILES {
        logs.append(&format!("{file}.log"), format!("first of {file}\n"));
    }
    let mut agent = Forebay::start(&logs.configuration("*.log", ""));
    wait_stored(&agent, FILES);
    for file in 0..FILES {
        logs.append(&format!("{file}.log"), format!("second of {file}\n"));
    }
    wait_stored(&agent, 2 * FILES);
    agent.kill9();
    logs.append("17.log", "third of 17\n");
    agent.start_again();
    wait_stored(&agent, 2 * FILES + 1);
    let mut texts = texts(&agent);
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len() as u64, 2 * FILES + 1);
    assert_eq!(stored_count(&agent), 2 * FILES + 1);
    assert!(agent.resident_bytes_peak() < 100 << 20, "{} bytes", agent.resident_bytes_peak());
    // All positions are forgotten with their files.
    for file in 0..FILES {
        fs::remove_file(logs.path(&format!("{file}.log"))).expect("it is ours");
    }
    logs.append("new.log", "after all\n");
    eventually(PATIENCE, "the new file is read", || stored_count(&agent) == 2 * FILES + 2);
}
