//! How the agent starts and stops: what the service manager hears, and one clear sentence when it cannot start.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::support::daemon::{Daemon, PATIENCE, command};
use crate::support::device::{Device, VERSIONS};
use crate::support::forebay::Home;
use crate::support::{Forebay, free_port, head};

fn configuration(data_dir: &str) -> String {
    head().replace("\"data\"", &format!("\"{data_dir}\""))
}

/// Runs an agent that cannot start. It must say why in one sentence, which is returned, and end with 1.
#[track_caller]
fn cannot_start(home: &Home) -> String {
    cannot_start_as(home, home.command(&["run", "--config", "forebay.toml"]))
}

#[track_caller]
fn cannot_start_as(home: &Home, command: Command) -> String {
    // A log goes on where the last one ended; this one is to hold the words of one start alone.
    let log = home.path().join("cannot-start.log");
    let _ = fs::remove_file(&log);
    let mut agent = Daemon::spawn("forebay", command, &log);
    let status = agent.wait_for_exit(PATIENCE);
    let said = agent.log();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked") && !said.contains("backtrace"), "{said}");
    let mut failed = said.lines().filter(|line| line.starts_with("failed to "));
    let sentence = failed.next().unwrap_or_else(|| panic!("no reason was given: {said}")).to_owned();
    assert_eq!(failed.next(), None, "{said}");
    sentence
}

#[test]
fn a_stopped_agent_has_stored_everything_and_starts_again() {
    let mut agent = Forebay::start(&configuration("data"));
    for round in 1..=3 {
        let put = agent.home().forebay(&["put", "telemetry", "--key", "k", "--data", "x", "--config", "forebay.toml"]);
        let expected = format!("stored 1 record, sequence number {round}\n");
        assert_eq!(String::from_utf8_lossy(&put.stdout), expected, "{}", String::from_utf8_lossy(&put.stderr));
        agent.restart();
    }
    assert!(agent.log().contains("stopping") && agent.log().contains("stopped"), "{}", agent.log());
    let mut events = agent.status()["log_events"].clone();
    // The machine's clock may be a good one.
    events.as_object_mut().expect("an object").remove("clock-trusted");
    assert_eq!(events, serde_json::json!({}), "nothing had to be mended: {}", agent.log());
}

#[test]
fn a_stop_does_not_wait_for_devices_that_are_held_back() {
    let mqtt = free_port();
    let configuration = configuration("data").replace(
        "rate-limit = \"off\"\n",
        &format!(
            "rate-limit = {{ records-per-second = 1, bytes-per-second = \"1MB\" }}\n\
             [sources.devices]\ntype = \"mqtt-broker\"\nlisten = \"127.0.0.1:{mqtt}\"\nstream = \"telemetry\"\n"
        ),
    );
    let mut agent = Forebay::start(&configuration);
    let mut devices = VERSIONS.map(|version| Device::connect(mqtt, version, &format!("{version:?}")));
    for device in &mut devices {
        for _ in 0..20 {
            device.send_publish("plant/a", b"21.5");
        }
    }
    // One record is admitted each second, so most of these wait when the stop comes.
    assert!(devices[0].hears_within(PATIENCE), "the first one is acknowledged");
    let status = agent.terminate();
    assert!(status.success(), "{status}: {}", agent.log());
    let told = agent.log();
    assert!(told.contains("of its messages were not stored yet"), "{told}");
}

#[test]
fn a_data_directory_in_use_is_left_alone() {
    let agent = Forebay::start(&configuration("data"));
    let other = Home::new(&configuration(agent.home().path().join("data").to_str().expect("a path of letters")));
    let said = cannot_start(&other);
    assert!(said.ends_with("is in use by another process"), "{said}");
    assert_eq!(agent.status()["healthy"], true);
}

#[test]
fn a_data_directory_that_cannot_be_made_is_named() {
    // Root may write everywhere, but not below a file.
    let home = Home::new(&configuration("file/data"));
    fs::write(home.path().join("file"), "").expect("a temporary directory takes a file");
    let said = cannot_start(&home);
    assert!(said.contains("file/data") && said.contains("Not a directory"), "{said}");
}

#[test]
fn a_newer_format_is_not_touched() {
    let mut agent = Forebay::start(&configuration("data"));
    agent.home().forebay(&["put", "telemetry", "--key", "k", "--data", "x", "--config", "forebay.toml"]);
    assert!(agent.terminate().success());
    let dir = agent.home().path().join("data/streams/telemetry");
    let segment = fs::read_dir(&dir).expect("a directory").next().expect("a segment").expect("an entry").path();
    raise_format_version(&segment);
    let before = fs::read(&segment).expect("a file");
    let said = cannot_start(agent.home());
    assert!(said.contains("use a newer forebay"), "{said}");
    assert!(fs::read(&segment).expect("still there") == before);
}

/// docs/format.md: four bytes of magic, then the version in two; the checksum at 52 is that of all before it and of the
/// definition at 56, whose length is at 8.
fn raise_format_version(segment: &Path) {
    let mut bytes = fs::read(segment).expect("a file");
    bytes[5] += 1;
    let definition_len = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes")) as usize;
    let crc = crc32fast::hash(&[&bytes[..52], &bytes[56..56 + definition_len]].concat());
    bytes[52..56].copy_from_slice(&crc.to_le_bytes());
    fs::write(segment, bytes).expect("a file that can be written");
}

#[test]
fn a_full_disk_at_the_start_is_told() {
    let home = Home::new(&configuration("data"));
    // No file may grow beyond nothing: as a full disk, but without needing one.
    let mut shell = command("sh");
    shell.args(["-c", "trap '' XFSZ; (ulimit -f 0; exec \"$0\" run --config forebay.toml 2>&1) | cat; exit 1"]);
    shell.arg(env!("CARGO_BIN_EXE_forebay")).current_dir(home.path());
    let said = cannot_start_as(&home, shell);
    assert!(said.contains("data"), "{said}");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    let home = Home::new(&format!("data-dir = \"data\"\n[api]\nlisten = \"{address}\"\n"));
    let said = cannot_start(&home);
    assert_eq!(said, format!("failed to listen for the API on {address}: Address already in use (os error 98)"));
    let api = free_port();
    home.configure(&format!(
        "data-dir = \"data\"\n[api]\nlisten = \"127.0.0.1:{api}\"\n[streams.s]\n\
         [sources.devices]\ntype = \"mqtt-broker\"\nlisten = \"{address}\"\nstream = \"s\"\n"
    ));
    let said = cannot_start(&home);
    assert!(said.starts_with("failed to start source devices: listen for MQTT on "), "{said}");
}

#[test]
fn the_service_manager_hears_ready_alive_and_stopping() {
    let home = Home::new(&configuration("data"));
    let path = home.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let path = path.to_str().expect("a path of letters");
    // Read at once, as a service manager does: only ten messages wait in such a socket, and what finds no room is lost.
    let (tell, told) = mpsc::channel();
    let listener = thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok(length) = socket.recv(&mut buffer) {
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let is_last = message == "STOPPING=1\n";
            if tell.send(message).is_err() || is_last {
                return;
            }
        }
    });
    let mut agent = Forebay::start_in(home, &[("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "100000")]);
    let next = || told.recv_timeout(Duration::from_secs(30)).expect("a message in time");
    // How many beats come before it is ready depends on the machine.
    let mut heard = String::new();
    while !(heard.contains("READY=1\n") && heard.contains("WATCHDOG=1\n")) {
        assert!(heard.len() < 100_000, "{heard}");
        heard.push_str(&next());
    }
    assert!(agent.terminate().success());
    // Between the beats of the watchdog, stopping comes.
    while next() != "STOPPING=1\n" {}
    listener.join().expect("it has heard the last message");
}
