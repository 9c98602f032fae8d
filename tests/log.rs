//! `forebay log`: what is in the files, beside a running agent and after damage, and what a repair makes of it.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;

use crate::support::forebay::Home;
use crate::support::{Forebay, head};

fn configuration() -> String {
    head()
}

/// Runs `forebay log …`, which must end with this exit code, and gives what it printed.
#[track_caller]
fn log(home: &Home, arguments: &[&str], code: i32) -> String {
    let Output { status, stdout, stderr } =
        home.forebay(&[&["log"], arguments, &["--config", "forebay.toml"]].concat());
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status.code(), Some(code), "{arguments:?}: {stdout}{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    format!("{stdout}{stderr}")
}

#[track_caller]
fn json(home: &Home, arguments: &[&str], code: i32) -> Value {
    let printed = log(home, &[arguments, &["--json"]].concat(), code);
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

/// An agent that has ten records in ten blocks.
fn agent() -> Forebay {
    let agent = Forebay::start(&configuration());
    for number in 1..=10 {
        let data = format!("this is record {number} of ten");
        let put =
            agent.home().forebay(&["put", "telemetry", "--key", "k", "--data", &data, "--config", "forebay.toml"]);
        assert!(put.status.success(), "{put:?}");
    }
    agent
}

fn segment(home: &Home) -> PathBuf {
    home.path().join("data/streams/telemetry/00000000000000000001.seg")
}

/// Flips a bit in the data of a record.
fn damage(home: &Home, data: &str) {
    let mut bytes = fs::read(segment(home)).expect("a segment");
    let at = bytes.windows(data.len()).position(|window| window == data.as_bytes()).expect("it is there");
    bytes[at] ^= 0x04;
    fs::write(segment(home), bytes).expect("a file that can be written");
}

#[test]
fn a_sound_log_is_said_to_be_sound_beside_a_running_agent() {
    let agent = agent();
    let said = log(agent.home(), &["verify"], 0);
    assert!(said.ends_with("\nsound: 10 records of 1 stream\n"), "{said}");
    let found = json(agent.home(), &["verify", "telemetry"], 0);
    assert_eq!((&found["sound"], &found["streams"][0]["payload_bytes"]), (&true.into(), &Value::Null));
    let deep = json(agent.home(), &["verify", "telemetry", "--deep"], 0);
    assert_eq!((&deep["sound"], &deep["streams"][0]["payload_bytes"]), (&true.into(), &(9 * 24 + 25).into()));
    let counts = json(agent.home(), &["stats"], 0);
    let counts = &counts["streams"][0];
    assert_eq!((&counts["records"], &counts["segments"], &counts["findings"]), (&10.into(), &1.into(), &0.into()));
    assert_eq!(counts["numbers"], serde_json::json!([1, 10]));
    assert!(counts["bytes_per_payload_byte"].as_f64().is_some_and(|ratio| ratio > 1.0), "{counts}");
    let said = log(agent.home(), &["stats", "telemetry"], 0);
    assert!(said.starts_with("telemetry: 10 records in ") && said.contains("\n  shard "), "{said}");
    let said = log(agent.home(), &["repair"], 1);
    assert!(said.starts_with("failed to repair ") && said.contains("in use by another process"), "{said}");
}

#[test]
fn what_is_damaged_is_found_mended_and_told_once() {
    let mut agent = agent();
    assert!(agent.terminate().success());
    let home = agent.home();
    damage(home, "record 5 of ten");
    let damaged = fs::read(segment(home)).expect("a segment");

    let said = log(home, &["verify"], 3);
    assert!(said.contains("damage: ") && said.contains("(records 5 to 5)"), "{said}");
    let closing = said.lines().last().expect("a line");
    assert!(closing.starts_with("damaged: 1 place, 1 record lost; 9 records of 1 stream can be read."), "{said}");

    let said = log(home, &["repair", "--dry-run"], 0);
    assert!(said.ends_with("1 file would be mended; 1 record lost to the damage\n"), "{said}");
    assert!(fs::read(segment(home)).expect("a segment") == damaged, "nothing was changed");
    let report = json(home, &["repair"], 0);
    let mended = &report["mended"][0];
    assert_eq!((&report["left"], &mended["lost"]), (&serde_json::json!([]), &serde_json::json!([[5, 5]])));
    let kept = home.path().join(mended["kept"].as_str().expect("a path"));
    assert!(fs::read(kept).expect("it was kept") == damaged);
    let mended = fs::read(segment(home)).expect("a segment");
    assert_eq!(log(home, &["repair"], 0), "nothing to mend\n");
    assert!(fs::read(segment(home)).expect("a segment") == mended);

    let said = log(home, &["verify"], 0);
    assert!(said.contains("1 record lost to damage before a repair"), "{said}");
    let said = log(home, &["dump", "telemetry"], 0);
    assert!(said.contains("records 5 to 5 were lost to damage before a repair"), "{said}");
    assert!(said.contains("record 4 of ten") && said.contains("record 6 of ten"), "{said}");

    for _ in 0..2 {
        agent.start_again();
        let tailed = agent.home().forebay(&["tail", "telemetry", "--from", "oldest", "--config", "forebay.toml"]);
        assert_eq!(String::from_utf8_lossy(&tailed.stdout).lines().count(), 9);
        assert_eq!(agent.status()["streams"]["telemetry"]["dropped"]["damage"], 1, "{}", agent.status());
        assert!(agent.terminate().success());
    }
    let log = agent.log();
    assert_eq!(
        log.lines().filter(|line| line.contains("damaged") && line.contains("first=5 last=5")).count(),
        1,
        "{log}"
    );
}

#[test]
fn what_is_not_there_is_named() {
    let home = Home::new(&configuration());
    for command in [&["verify"][..], &["stats"], &["repair"], &["dump", "telemetry"]] {
        let said = log(&home, command, 1);
        assert!(said.contains("data: it does not exist: no log was ever opened there"), "{said}");
    }
    assert!(!home.path().join("data").exists(), "looking makes nothing");
    let agent = agent();
    for command in ["verify", "stats", "dump", "repair"] {
        let said = log(agent.home(), &[command, "telemetri"], 1);
        assert!(said.contains("telemetri") && said.contains("there is no such stream"), "{said}");
    }
}

#[test]
fn a_long_record_is_shortened_for_people_and_whole_in_json() {
    let agent = Forebay::start(&configuration());
    fs::write(agent.home().path().join("blob"), vec![0xff; 300_000]).expect("written");
    let put = agent.home().forebay(&["put", "telemetry", "--key", "k", "--file", "blob", "--config", "forebay.toml"]);
    assert!(put.status.success(), "{put:?}");
    let said = log(agent.home(), &["dump", "telemetry"], 0);
    assert!(said.len() < 2000 && said.contains("… (300000 bytes in all)"), "{}", &said[..said.len().min(2000)]);
    assert!(log(agent.home(), &["dump", "telemetry", "--json"], 0).len() > 400_000);
}
