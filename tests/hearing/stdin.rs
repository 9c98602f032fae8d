//! `forebay run` in a pipe.

use std::fs;
use std::fs::File;
use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

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
    let mut agent = start(&home, Stdio::piped());
    let mut input = agent.stdin.take().expect("a pipe");
    input.write_all(b"first\nsecond\n").expect("it reads");
    let records = || status(&home)["records"].as_u64();
    // Stored while the pipe is still open, and the end of the pipe ends the source alone.
    eventually(SOON, "both are stored", || records() == Some(2));
    drop(input);
    eventually(SOON, "its end is told", || log(&home).contains("standard input has ended"));
    assert_eq!(records(), Some(2));
    end(agent);
}

/// What status says of the source; nothing while it does not answer.
fn status(home: &Home) -> Value {
    let table: toml::Table = fs::read_to_string(home.configuration_file()).expect("there").parse().expect("TOML");
    let api = table["api"]["listen"].as_str().expect("an address").parse().expect("an address");
    let answer = http::get(api, "/status").ok().and_then(|answer| serde_json::from_str::<Value>(&answer.body).ok());
    answer.map(|status| status["sources"]["ear"].clone()).unwrap_or_default()
}

fn log(home: &Home) -> String {
    fs::read_to_string(home.path().join("forebay.log")).expect("readable")
}

#[test]
fn garbage_ten_megabytes_without_a_line_and_a_flood_cost_no_memory_and_not_the_next_line() {
    const LINES: usize = 100_000;
    let home = Home::new(&configuration("type = \"stdin\"\nmax-frame = \"64KiB\""));
    let mut agent = start(&home, Stdio::piped());
    let mut input = agent.stdin.take().expect("a pipe");
    for _ in 0..10 {
        input.write_all(&[b'x'; 1_000_000]).expect("it reads");
    }
    input.write_all(b"\n\xff\x00\xfe\n").expect("it reads");
    for number in 0..LINES {
        input.write_all(format!("line-{number}\n").as_bytes()).expect("it reads");
    }
    let records = |wanted: usize| status(&home)["records"].as_u64() == Some(wanted as u64);
    eventually(SOON, "all lines are stored", || records(LINES + 1));
    assert_eq!(status(&home)["refused"], json!({ "oversize": 1 }));
    assert!(log(&home).contains("a frame is longer than max-frame; from ear"), "{}", log(&home));
    let memory = fs::read_to_string(format!("/proc/{}/status", agent.id())).expect("it runs");
    let peak = memory.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    assert!(peak < Some(100_000), "{peak:?} kB");
    let stored = lines(&home);
    assert!(stored[0].contains('\u{fffd}') || !stored[0].starts_with("line"), "{}", stored[0]);
    assert!(stored[1..].iter().enumerate().all(|(number, line)| *line == format!("line-{number}")));
    // The last line needs no end, as in every file.
    input.write_all(b"the last one").expect("it reads");
    drop(input);
    eventually(SOON, "it is stored", || records(LINES + 2));
    end(agent);
}

#[test]
fn half_a_frame_at_the_end_is_counted_and_told() {
    let home = Home::new(&configuration("type = \"stdin\"\nframing = \"cobs\""));
    let mut agent = start(&home, Stdio::piped());
    agent.stdin.take().expect("a pipe").write_all(b"\x04one\0\x09no\0\x04tw").expect("it reads");
    let wanted = json!({ "half-frame": 1, "malformed": 1 });
    eventually(SOON, "both are counted", || status(&home)["refused"] == wanted);
    assert!(log(&home).contains("the stream broke off within a frame; from ear"), "{}", log(&home));
    eventually(SOON, "its end is told", || log(&home).contains("standard input has ended"));
    assert_eq!(lines(&home), ["one"]);
    end(agent);
}

#[test]
fn what_cannot_be_read_is_told_and_the_agent_goes_on() {
    let home = Home::new(&configuration("type = \"stdin\""));
    let agent = start(&home, File::open(home.path()).expect("a folder"));
    let told = "standard input cannot be read further: Is a directory";
    eventually(SOON, "it is told", || log(&home).contains(told));
    eventually(SOON, "status says it", || status(&home)["last_error"].to_string().contains(told));
    end(agent);
}

fn end(mut agent: Child) {
    assert!(agent.try_wait().expect("ours").is_none(), "it ended by itself");
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
