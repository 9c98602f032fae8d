//! The command line: what each command prints, where, and with which exit code.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::support::forebay::Home;
use crate::support::{Forebay, head};

/// A stream, and nothing that fills it: what commands need.
fn configuration() -> String {
    head() + "shards = 2\n"
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command that must succeed, and gives what it printed.
#[track_caller]
fn prints(home: &Home, arguments: &[&str]) -> String {
    let output = home.forebay(&with_config(arguments));
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

/// Runs a command that must fail, and gives its exit code and what it said.
#[track_caller]
fn fails(home: &Home, arguments: &[&str]) -> (i32, String) {
    let output = home.forebay(&with_config(arguments));
    assert_eq!(stdout(&output), "", "{arguments:?}: data was printed all the same");
    let said = stderr(&output);
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code().expect("it ended by itself"), said)
}

fn with_config<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--config", "forebay.toml"]].concat()
}

/// Starts an agent there that serves commands; its data directory is that of `Home::path()`.
fn agent() -> Forebay {
    Forebay::start(&configuration())
}

#[test]
fn check_shows_what_a_configuration_says() {
    let home = Home::new(&configuration());
    let shown = prints(&home, &["check"]);
    assert!(shown.contains("stream telemetry: 2 shards, kept for 24h"), "{shown}");
    assert!(shown.ends_with("forebay.toml is valid\n"), "{shown}");
    assert!(!home.path().join("data").exists(), "checking changes nothing");
}

#[test]
fn what_is_hardly_meant_is_a_warning() {
    let home = Home::new(&format!("{}durability = \"memory-first\"\n", configuration()));
    let output = home.forebay(&with_config(&["check"]));
    assert!(output.status.success(), "{output:?}");
    let expected = "warning: streams.telemetry.durability: \"memory-first\" without a destination that takes from the stream \
                    only delays: every record waits for 5s and is then written all the same\n";
    assert_eq!(stderr(&output), expected);
}

#[test]
fn folders_and_programs_that_are_not_there_are_warned_of() {
    let source = |name: &str, keys: &str| format!("[sources.{name}]\nstream = \"telemetry\"\n{keys}\n");
    let sources = [
        source("a", "type = \"exec\"\ncommand = [\"true\"]\nworking-dir = \"/nowhere/a\""),
        source("b", "type = \"exec\"\ncommand = [\"no-such-program\"]"),
        source("c", "type = \"sensor\"\nroot = \"/nowhere/c\""),
        source("d", "type = \"tail\"\npaths = [\"/nowhere/d/*.log\", \"/etc/*.conf\"]"),
        // As the system finds it: within the working directory, in PATH, or by its path.
        source("e", "type = \"exec\"\ncommand = [\"./true\"]\nworking-dir = \"/bin\""),
        source("f", "type = \"exec\"\ncommand = [\"/bin/true\"]"),
    ];
    let home = Home::new(&(configuration() + &sources.concat()));
    let output = home.forebay(&with_config(&["check"]));
    assert!(output.status.success(), "{output:?}");
    let expected = "warning: sources.a.working-dir: there is no folder /nowhere/a\n\
                    warning: sources.b.command: there is no program `no-such-program`\n\
                    warning: sources.c.root: there is no folder /nowhere/c\n\
                    warning: sources.d.paths: there is no folder /nowhere/d\n";
    assert_eq!(stderr(&output), expected);
}

#[test]
fn limits_beyond_the_disk_are_refused_by_check_and_run_only_warns() {
    let home = Home::new(&format!("{}quota = \"4PiB\"\n[streams.history]\nquota = \"1PiB\"\n", configuration()));
    let (code, said) = fails(&home, &["check"]);
    assert_eq!(code, 78, "{said}");
    let quotas = "streams: the quotas add up to 5.0 PiB (telemetry 4.0 PiB, history 1.0 PiB) and log.min-free keeps ";
    assert!(said.starts_with("failed to accept forebay.toml: 1 problem:\n  ") && said.contains(quotas), "{said}");
    assert!(said.contains(&format!("but the disk of {} has only ", home.path().join("data").display())), "{said}");
    assert!(!home.path().join("data").exists(), "checking changes nothing");
    // A gateway that ran yesterday has to run tomorrow.
    let mut agent = Forebay::start_in(home, &[]);
    assert!(agent.log().contains("the quotas add up to 5.0 PiB"), "{}", agent.log());
    assert!(agent.terminate().success(), "{}", agent.log());
}

#[test]
fn five_mistakes_are_all_told_and_exit_with_78() {
    let home = Home::new(
        r#"
        data-dir = "data"
        [api]
        listen = "4567"
        [streams.telemetry]
        shards = 0
        retension = "24h"
        [sources.devices]
        type = "mqtt-broker"
        listen = "127.0.0.1:1883"
        stream = "telemetri"
        [destinations.cloud]
        type = "kinesys"
        from = "telemetry"
        "#,
    );
    let expected = "\
failed to read configuration forebay.toml: 5 problems:
  api.listen: must be an address and a port such as \"127.0.0.1:4567\", not \"4567\"
  streams.telemetry.retension: unknown key, did you mean `retention`?
  streams.telemetry.shards: must be 1 to 1000, not 0
  destinations.cloud.type: there is no type `kinesys`, did you mean `kinesis`?
  sources.devices.stream: there is no stream `telemetri`, did you mean `telemetry`?
";
    for command in ["check", "run"] {
        assert_eq!(fails(&home, &[command]), (78, expected.to_owned()), "{command}");
    }
}

#[test]
fn what_is_hardly_meant_is_told_beside_mistakes() {
    let link = "[links.lte]\ndaily-budget = \"50\"\n";
    let home = Home::new(&format!("{}retention = \"1h\"\n{link}", configuration()));
    let (code, said) = fails(&home, &["check"]);
    assert_eq!(code, 78, "{said}");
    let expected = "\
warning: links.lte: no destination says `link = \"lte\"`: it limits nothing
warning: links.lte.daily-budget: 50 B a day is less than one request takes (4.0 KiB): without a unit, a size is bytes
failed to read configuration forebay.toml: 1 problem:
  streams.telemetry.retention: must be 24h to 8760h (a year), not 1h
";
    assert_eq!(said, expected);
}

#[test]
fn what_is_not_toml_is_told_with_its_line() {
    let home = Home::new("data-dir = \"data\"\n[api\n");
    let (code, said) = fails(&home, &["check"]);
    assert_eq!(code, 78);
    assert!(said.starts_with("failed to read configuration forebay.toml: ") && said.contains("line 2"), "{said}");
    home.configure("");
    std::fs::remove_file(home.configuration_file()).expect("it was there");
    let (code, said) = fails(&home, &["run"]);
    assert_eq!(code, 78);
    assert!(said.contains("No such file"), "{said}");
}

#[test]
fn what_cannot_be_understood_exits_with_2() {
    let home = Home::new(&configuration());
    for arguments in [&["rum"][..], &["put", "telemetry"], &["tail", "a/b"], &["tail", "telemetry", "--from", "now"]] {
        let (code, said) = fails(&home, arguments);
        assert_eq!(code, 2, "{arguments:?}: {said}");
    }
}

#[test]
fn records_are_put_and_tailed_through_the_agent() {
    let agent = agent();
    puts_and_tails(agent.home());
}

#[test]
fn records_are_put_and_tailed_in_the_closed_log() {
    let mut agent = agent();
    assert!(agent.terminate().success());
    puts_and_tails(agent.home());
    // And the agent finds them.
    agent.start_again();
    assert_eq!(prints(agent.home(), &["tail", "telemetry"]).lines().count(), 5);
}

#[track_caller]
fn puts_and_tails(home: &Home) {
    let put = prints(home, &["put", "telemetry", "--key", "plant/1", "--data", "{\"t\":20}"]);
    assert_eq!(put, "stored 1 record, sequence number 1\n");
    std::fs::write(home.path().join("blob"), [0xff, 0x00, b'\n']).expect("a temporary directory takes a file");
    let put = prints(home, &["put", "telemetry", "--key", "plant/2", "--file", "blob"]);
    assert_eq!(put, "stored 1 record, sequence number 2\n");
    let output =
        home.forebay_with_input(&with_config(&["put", "telemetry", "--key", "plant/1"]), b"one\n\x1b[2J\nthree\n");
    assert_eq!(stdout(&output), "stored 3 records, the last with sequence number 5\n", "{}", stderr(&output));

    let lines: Vec<_> = prints(home, &["tail", "telemetry"]).lines().map(without_time).collect();
    assert_eq!(
        lines,
        [
            "1  plant/1  {\"t\":20}",
            "2  plant/2  base64:/wAK",
            "3  plant/1  one",
            "4  plant/1  \\u{1b}[2J",
            "5  plant/1  three",
        ]
    );
    let json = prints(home, &["tail", "telemetry", "--from", "2", "--count", "1", "--json"]);
    let record: Value = serde_json::from_str(&json).expect("one line of JSON");
    assert_eq!(record["sequence_number"], 2);
    assert_eq!(record["partition_key"], "plant/2");
    assert_eq!(record["data"], "/wAK");

    // Every record is in one shard, and all of a key in the same.
    let by_shard = ["0", "1"].map(|shard| prints(home, &["tail", "telemetry", "--shard", shard]));
    assert_eq!(by_shard.iter().map(|text| text.lines().count()).sum::<usize>(), 5);
    assert!(by_shard.iter().any(|text| text.matches("plant/1").count() == 4), "{by_shard:?}");
    assert_eq!(prints(home, &["tail", "telemetry", "--from", "latest"]), "");

    let behind = home.forebay(&with_config(&["tail", "telemetry", "--from", "17"]));
    assert!(behind.status.success() && stdout(&behind).is_empty(), "{behind:?}");
    assert_eq!(stderr(&behind), "stream telemetry has no record 17 yet, the next one gets number 6\n");

    let (code, said) = fails(home, &["tail", "telemetri"]);
    assert_eq!(code, 1);
    assert!(said.contains("stream `telemetri`") && said.contains("`telemetry`"), "{said}");
    let (code, said) = fails(home, &["tail", "telemetry", "--shard", "7"]);
    assert!(code == 1 && said.contains("no shard 7"), "{said}");
    let (code, said) = fails(home, &["put", "telemetri", "--key", "k", "--data", "x"]);
    assert!(code == 1 && said.contains("`telemetri`"), "{said}");
    let long = "k".repeat(257);
    let (code, said) = fails(home, &["put", "telemetry", "--key", &long, "--data", "x"]);
    assert!(code == 1 && said.contains("1 to 256 characters, not 257"), "{said}");
}

/// `17  2026-01-01T00:00:00.000Z  key  data` as `17  key  data`, also with the `?` of a machine whose clock is not trusted.
fn without_time(line: &str) -> String {
    let parts: Vec<_> = line.splitn(3, "  ").collect();
    assert!(parts[1].trim_end_matches('?').ends_with('Z') && parts[1].contains('T'), "{line}");
    format!("{}  {}", parts[0], parts[2])
}

#[test]
fn a_followed_stream_prints_what_comes() {
    let agent = agent();
    prints(agent.home(), &["put", "telemetry", "--key", "k", "--data", "before"]);
    let mut tail = agent
        .home()
        .command(&with_config(&["tail", "telemetry", "--follow", "--from", "oldest", "--count", "2"]))
        .stdout(Stdio::piped())
        .spawn()
        .expect("forebay can be started");
    let mut lines = BufReader::new(tail.stdout.take().expect("its output is a pipe")).lines();
    let mut next = || without_time(&lines.next().expect("a line").expect("text"));
    assert_eq!(next(), "1  k  before");
    prints(agent.home(), &["put", "telemetry", "--key", "k", "--data", "after"]);
    assert_eq!(next(), "2  k  after");
    assert!(tail.wait().expect("it ends").success(), "it ends after --count records");
}

#[test]
fn a_closed_log_is_not_followed() {
    let mut agent = agent();
    agent.terminate();
    let (code, said) = fails(agent.home(), &["tail", "telemetry", "--follow"]);
    assert_eq!(code, 1);
    assert!(said.contains("no agent runs"), "{said}");
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let agent = agent();
    // Far more than a pipe holds.
    let lines = "0123456789abcdef\n".repeat(20_000);
    let output = agent.home().forebay_with_input(&with_config(&["put", "telemetry", "--key", "k"]), lines.as_bytes());
    assert_eq!(stdout(&output), "stored 20000 records, the last with sequence number 20000\n", "{}", stderr(&output));
    let mut tail = agent
        .home()
        .command(&with_config(&["tail", "telemetry"]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("forebay can be started");
    let mut first = String::new();
    BufReader::new(tail.stdout.take().expect("its output is a pipe")).read_line(&mut first).expect("a line");
    assert!(first.starts_with("1  "), "{first}");
    let mut said = String::new();
    tail.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert!(tail.wait().expect("it ends").success(), "{said}");
    assert_eq!(said, "");
}

#[test]
fn status_is_a_table_for_people_and_json_for_scripts() {
    let agent = agent();
    prints(agent.home(), &["put", "telemetry", "--key", "k", "--data", "x"]);
    let table = prints(agent.home(), &["status"]);
    assert!(table.starts_with("forebay ") && table.contains(", healthy, up "), "{table}");
    assert!(table.lines().any(|line| line.starts_with("telemetry  all    1 ")), "{table}");
    let json = prints(agent.home(), &["status", "--json"]);
    let status: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(status["streams"]["telemetry"]["records"], 1);
    assert_eq!(status["streams"]["telemetry"]["bytes"], 2);
    assert_eq!(status["streams"]["telemetry"]["next"], 2);
    let address = agent.api().to_string();
    let output = agent.home().forebay(&["status", "--api", &address, "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
}

/// A unit gives its agent what nobody else has.
#[test]
fn commands_ask_the_agent_without_the_secrets_of_its_destinations() {
    let destination = "[destinations.hub]\ntype = \"http\"\nfrom = \"telemetry\"\nurl = \"http://127.0.0.1:1/\"\n\
                       access-key-env = \"FOREBAY_TEST_HUB_KEY\"\n";
    let home = Home::new(&(configuration() + destination));
    let mut agent = Forebay::start_in(home, &[("FOREBAY_TEST_HUB_KEY", "f00d")]);
    let put = prints(agent.home(), &["put", "telemetry", "--key", "k", "--data", "x"]);
    assert_eq!(put, "stored 1 record, sequence number 1\n");
    for arguments in [&["status"][..], &["stream", "list"], &["dead-letter", "list"], &["tail", "telemetry"]] {
        assert_ne!(prints(agent.home(), arguments), "", "{arguments:?}");
    }
    // Whoever opens the log needs to know all about it.
    assert!(agent.terminate().success());
    let (code, said) = fails(agent.home(), &["tail", "telemetry"]);
    assert!(code == 78 && said.contains("destinations.hub.access-key-env"), "{said}");
    let (code, said) = fails(agent.home(), &["check"]);
    assert!(code == 78 && said.contains("destinations.hub.access-key-env"), "{said}");
}

#[test]
fn without_an_agent_that_is_what_is_said() {
    let home = Home::new(&configuration());
    let (code, said) = fails(&home, &["status"]);
    assert_eq!(code, 1);
    assert!(said.starts_with("failed to ask the agent on 127.0.0.1:") && said.contains("is it running?"), "{said}");
    let (code, said) = fails(&home, &["tail", "telemetry"]);
    assert!(code == 1 && said.contains("data directory data"), "{said}");
}
