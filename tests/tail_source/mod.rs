//! The `tail` source: files as programs write them and logrotate rotates them, and everything else that is found where files
//! should be. What is stored is read through the running agent.

mod kills;
mod odd_files;
mod rotation;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;

use crate::support::counterpart::program;
use crate::support::daemon::PATIENCE;
use crate::support::{Forebay, eventually, head};

/// A folder with logs, on the project's own disk.
pub(crate) struct Logs(tempfile::TempDir);

impl Logs {
    pub(crate) fn new() -> Self {
        Self(tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory can be written"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn append(&self, name: &str, text: impl AsRef<[u8]>) {
        let file = OpenOptions::new().append(true).create(true).open(self.path(name));
        file.and_then(|mut file| file.write_all(text.as_ref())).expect("a temporary directory takes a file");
    }

    /// A source that reads the files that this pattern matches.
    pub(crate) fn configuration(&self, pattern: &str, source: &str) -> String {
        format!(
            r#"
            {}
            [sources.logs]
            type = "tail"
            paths = ["{}"]
            stream = "telemetry"
            poll-interval = "1s"
            {source}
            "#,
            head(),
            self.path(pattern).display(),
        )
    }

    /// Runs logrotate on a log, with these directives. `state` is kept beside the logs.
    pub(crate) fn rotate(&self, name: &str, directives: &str) {
        let configuration = self.path("logrotate.conf");
        let text = format!("{} {{\nrotate 100\nmissingok\nsu root root\n{directives}\n}}\n", self.path(name).display());
        let text = if rustix::process::geteuid().is_root() { text } else { text.replace("su root root\n", "") };
        fs::write(&configuration, text).expect("a temporary directory takes a file");
        let mut logrotate = Command::new(program("logrotate"));
        let output = logrotate.arg("-f").arg("-s").arg(self.path("logrotate.state")).arg(&configuration).output();
        let output = output.expect("logrotate can be started");
        assert!(output.status.success(), "logrotate: {}", String::from_utf8_lossy(&output.stderr));
    }
}

pub(crate) fn source_status(agent: &Forebay) -> Value {
    agent.status()["sources"]["logs"].clone()
}

pub(crate) fn refused(agent: &Forebay, reason: &str) -> u64 {
    source_status(agent)["refused"][reason].as_u64().unwrap_or(0)
}

#[track_caller]
pub(crate) fn wait_refused(agent: &Forebay, reason: &str) {
    eventually(PATIENCE, &format!("{reason} is counted"), || refused(agent, reason) > 0);
}

/// How many records the stream has.
pub(crate) fn stored_count(agent: &Forebay) -> u64 {
    agent.status()["streams"]["telemetry"]["next"].as_u64().expect("a sequence number") - 1
}

#[track_caller]
pub(crate) fn wait_stored(agent: &Forebay, count: u64) {
    eventually(2 * PATIENCE, &format!("{count} records are stored"), || stored_count(agent) >= count);
}

/// Keys and data of all that is stored, in order.
pub(crate) fn stored(agent: &Forebay) -> Vec<(String, Vec<u8>)> {
    let output = agent.home().forebay(&["tail", "telemetry", "--json", "--config", "forebay.toml"]);
    assert!(output.status.success(), "tail: {}", String::from_utf8_lossy(&output.stderr));
    let record = |line: &str| {
        let record: Value = serde_json::from_str(line).expect("every line is JSON");
        let data = BASE64_STANDARD.decode(record["data"].as_str().expect("base64")).expect("base64");
        (record["partition_key"].as_str().expect("a key").to_owned(), data)
    };
    String::from_utf8(output.stdout).expect("JSON is text").lines().map(record).collect()
}

/// Of what is stored, the texts.
pub(crate) fn texts(agent: &Forebay) -> Vec<String> {
    stored(agent).into_iter().map(|(_, data)| String::from_utf8_lossy(&data).into_owned()).collect()
}

/// A numbered line, as long as lines of logs are.
pub(crate) fn line(number: u64) -> String {
    format!("{number:08} {}\n", "the quick brown fox jumps over the lazy dog ".repeat(3))
}

/// The numbers of numbered lines.
pub(crate) fn numbers(agent: &Forebay) -> Vec<u64> {
    texts(agent)
        .iter()
        .map(|text| text[..8].parse().unwrap_or_else(|_| panic!("a numbered line, not {text}")))
        .collect()
}

/// That each line is stored once, and in order.
#[track_caller]
pub(crate) fn assert_all_in_order(numbers: &[u64], written: u64) {
    let wrong = numbers.iter().zip(0..).find(|(found, expected)| **found != *expected);
    assert!(
        wrong.is_none() && numbers.len() as u64 == written,
        "{} of {written}, the first wrong one {wrong:?}",
        numbers.len()
    );
}

#[track_caller]
pub(crate) fn wait_following(agent: &Forebay, path: &Path) {
    // The first line is stored, so that the file is one that is known.
    eventually(PATIENCE, &format!("{} is followed", path.display()), || stored_count(agent) > 0);
}
