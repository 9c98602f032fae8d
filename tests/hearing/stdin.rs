//! `forebay run` in a pipe.

use std::fs;
use std::fs::File;
use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::{SOON, configuration};
use crate::support::forebay::Home;
use crate::support::{eventually, eventually_some, http};

fn start(home: &Home, stdin: impl Into<Stdio>) -> Child {
    let log = File::create(home.path().join("forebay.log")).expect("a file");
    let also = log.try_clone().expect("a file handle can be doubled");
    let mut command = home.command(&["run", "--config", "forebay.toml"]);
    command.stdin(stdin).stdout(log).stderr(also).spawn().expect("forebay can be started")
}

fn lines(home: &Home) -> Vec<String> {
    let tail = home.forebay(&["tail", "telemetry", "--config", "forebay.toml"]);
    let text = String::from_utf8(tail.stdout).expect("UTF-8");
    text.lines().map(|line| line.rsplit("  ").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_pipe_is_read_to_its_end_and_then_the_agent_ends() {
    let home = Home::new(&configuration("type = \"stdin\"\nstop-at-end = true"));
    let mut agent = start(&home, Stdio::piped());
    let wanted: Vec<String> = (0..30_000).map(|number| format!("line-{number}")).collect();
    let mut input = agent.stdin.take().expect("a pipe");
    input.write_all(wanted.join("\n").as_bytes()).expect("it reads");
    drop(input);
    let status = eventually_some(SOON, "the agent ends", || agent.try_wait().expect("ours"));
    let log = fs::read_to_string(home.path().join("forebay.log")).expect("readable");
    assert!(status.success(), "{status}: {log}");
    assert!(log.contains("standard input has ended") && log.contains("stopped"), "{log}");
    assert_eq!(lines(&home), wanted);

    // A file will do as well, and more is added to the same log.
    fs::write(home.path().join("input"), "one\ntwo\n").expect("written");
    let mut agent = start(&home, File::open(home.path().join("input")).expect("a file"));
    assert!(eventually_some(SOON, "the agent ends", || agent.try_wait().expect("ours")).success());
    assert_eq!(lines(&home)[30_000..], ["one", "two"]);
}

#[test]
fn without_stop_at_end_the_agent_goes_on() {
    let home = Home::new(&configuration("type = \"stdin\""));
    let table: toml::Table = fs::read_to_string(home.configuration_file()).expect("there").parse().expect("TOML");
    let api = table["api"]["listen"].as_str().expect("an address").parse().expect("an address");
    let mut agent = start(&home, Stdio::piped());
    let mut input = agent.stdin.take().expect("a pipe");
    input.write_all(b"first\nsecond\n").expect("it reads");
    let records = || {
        let answer = http::get(api, "/status").ok()?;
        let status: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
        status["sources"]["ear"]["records"].as_u64()
    };
    // Stored while the pipe is still open, and the end of the pipe ends the source alone.
    eventually(SOON, "both are stored", || records() == Some(2));
    drop(input);
    eventually(SOON, "its end is told", || {
        fs::read_to_string(home.path().join("forebay.log")).expect("readable").contains("standard input has ended")
    });
    assert_eq!(records(), Some(2));
    assert!(agent.try_wait().expect("ours").is_none());
    rustix::process::kill_process(rustix::process::Pid::from_child(&agent), rustix::process::Signal::TERM)
        .expect("ours");
    assert!(eventually_some(SOON, "the agent ends", || agent.try_wait().expect("ours")).success());
}

#[test]
fn a_stop_does_not_wait_for_input() {
    let home = Home::new(&configuration("type = \"stdin\""));
    let mut agent = start(&home, Stdio::piped());
    eventually(SOON, "it is ready", || {
        fs::read_to_string(home.path().join("forebay.log")).expect("readable").contains("ready")
    });
    rustix::process::kill_process(rustix::process::Pid::from_child(&agent), rustix::process::Signal::TERM)
        .expect("ours");
    let status = eventually_some(Duration::from_secs(5), "the agent ends", || agent.try_wait().expect("ours"));
    assert!(status.success(), "{status}");
}
