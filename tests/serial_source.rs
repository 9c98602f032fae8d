//! The `serial` source at real (pseudo-)terminals: every framing, and all that happens to cables and devices. What is
//! stored is read through the running agent.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;

use crate::support::daemon::PATIENCE;
use crate::support::forebay::Home;
use crate::support::{Cable, Forebay, eventually, head, uart};

/// A configuration with sources by name, each with its own keys.
pub(crate) fn configuration(sources: &[(&str, String)]) -> String {
    let tables: String = sources
        .iter()
        .map(|(name, keys)| format!("[sources.{name}]\nstream = \"telemetry\"\nmax-backoff = \"200ms\"\n{keys}\n"))
        .collect();
    head() + "shards = 2\n" + &tables
}

fn serial(cable: &Cable, keys: &str) -> String {
    format!("type = \"serial\"\ndevice = \"{}\"\n{keys}", cable.agent_end().display())
}

/// Data of the records that are stored, by partition key.
pub(crate) fn stored(agent: &Forebay) -> HashMap<String, Vec<Vec<u8>>> {
    let output = agent.home().forebay(&["tail", "telemetry", "--json", "--config", "forebay.toml"]);
    assert!(output.status.success(), "tail: {}", String::from_utf8_lossy(&output.stderr));
    let mut stored: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
    for line in String::from_utf8(output.stdout).expect("JSON is text").lines() {
        let record: Value = serde_json::from_str(line).expect("every line is JSON");
        let data = BASE64_STANDARD.decode(record["data"].as_str().expect("base64")).expect("base64");
        stored.entry(record["partition_key"].as_str().expect("a key").to_owned()).or_default().push(data);
    }
    stored
}

pub(crate) fn status(agent: &Forebay, source: &str) -> Value {
    agent.status()["sources"][source].clone()
}

#[track_caller]
pub(crate) fn wait_connected(agent: &Forebay, source: &str, connections: u64) {
    eventually(PATIENCE, "connections", || status(agent, source)["connections"] == connections);
}

#[track_caller]
pub(crate) fn wait_records(agent: &Forebay, source: &str, records: u64) {
    let what = format!("{source} has stored {records} records");
    eventually(PATIENCE, &what, || status(agent, source)["records"].as_u64() >= Some(records));
}

#[track_caller]
pub(crate) fn wait_refused(agent: &Forebay, source: &str, reason: &str, count: u64) {
    let what = format!("{source} has counted {count} times {reason}");
    eventually(PATIENCE, &what, || status(agent, source)["refused"][reason].as_u64() >= Some(count));
}

pub(crate) fn crc16_modbus(data: &[u8]) -> [u8; 2] {
    let crc = data.iter().fold(0xffff_u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 })
    });
    crc.to_le_bytes()
}

/// A name, the configuration's lines, what is sent, and the records that come of it.
type Kind = (&'static str, &'static str, Vec<u8>, Vec<Vec<u8>>);

#[test]
fn frames_of_every_kind_are_stored() {
    let whole = |text: &str| [text.as_bytes(), &crc16_modbus(text.as_bytes())].concat();
    let kinds: [Kind; 9] = [
        ("line", "", b"one\r\ntwo\n".into(), vec![b"one".into(), b"two".into()]),
        (
            "delimiter",
            r#"framing = { type = "delimiter", delimiter = { hex = "03 fe" } }"#,
            b"one\x03\xfetwo\x03\xfe".into(),
            vec![b"one".into(), b"two".into()],
        ),
        ("fixed", r#"framing = { type = "fixed", length = 3 }"#, b"onetwo".into(), vec![b"one".into(), b"two".into()]),
        (
            "prefix",
            r#"framing = { type = "length-prefix", bytes = 2, endian = "little" }"#,
            b"\x03\0one\x03\0two".into(),
            vec![b"one".into(), b"two".into()],
        ),
        ("cobs", r#"framing = "cobs""#, b"\x02a\x02b\0\x04two\0".into(), vec![b"a\0b".into(), b"two".into()]),
        ("slip", r#"framing = "slip""#, b"\xc0o\xdb\xdce\xc0two\xc0".into(), vec![b"o\xc0e".into(), b"two".into()]),
        ("gap", r#"framing = { type = "gap", gap = "100ms" }"#, b"one two".into(), vec![b"one two".into()]),
        (
            "nmea",
            "checksum = \"nmea\"",
            b"$GPGLL,1*5B\r\n$GPGLL,5300.97914,N,00259.98174,E,125926,A*28\r\n".into(),
            vec![b"$GPGLL,5300.97914,N,00259.98174,E,125926,A*28".into()],
        ),
        (
            "crc",
            "framing = \"cobs\"\nchecksum = { type = \"crc16-modbus\", strip = true }",
            [&[2], &b"!"[..], &[0], &[6], &*whole("two"), &[0]].concat(),
            vec![b"two".into()],
        ),
    ];
    let cables: Vec<Cable> = kinds.iter().map(|_| Cable::new()).collect();
    let sources: Vec<_> =
        kinds.iter().zip(&cables).map(|((name, keys, ..), cable)| (*name, serial(cable, keys))).collect();
    let mut agent = Forebay::start(&configuration(&sources));
    for ((name, _, said, frames), cable) in kinds.iter().zip(&cables) {
        wait_connected(&agent, name, 1);
        cable.say(said);
        wait_records(&agent, name, frames.len() as u64);
    }
    let stored = stored(&agent);
    for (name, _, _, frames) in &kinds {
        assert_eq!(stored[*name], *frames, "{name}");
    }
    for name in ["nmea", "crc"] {
        assert_eq!(status(&agent, name)["refused"], serde_json::json!({ "bad-checksum": 1 }), "{name}");
    }
    assert!(agent.terminate().success());
}

#[test]
fn a_device_that_is_unplugged_and_plugged_in_again_recovers_and_is_told_of_once() {
    let mut cable = Cable::new();
    let agent = Forebay::start(&configuration(&[("scale", serial(&cable, ""))]));
    for round in 1..=3 {
        wait_connected(&agent, "scale", 1);
        cable.say(format!("whole {round}\nhal").as_bytes());
        wait_records(&agent, "scale", round);
        cable.unplug();
        wait_connected(&agent, "scale", 0);
        wait_refused(&agent, "scale", "half-frame", round);
        let error = || status(&agent, "scale")["last_error"]["message"].as_str().unwrap_or_default().to_owned();
        eventually(PATIENCE, "it is told that there is no port", || error().contains("No such file"));
        cable.plug_in();
    }
    wait_connected(&agent, "scale", 1);
    let frames: Vec<Vec<u8>> = (1..=3).map(|round| format!("whole {round}").into_bytes()).collect();
    assert_eq!(stored(&agent)["scale"], frames);
    // Each time: that it is gone, and then that it is not there; not each attempt.
    let log = agent.log();
    let told = log.lines().filter(|line| line.contains("no device")).count();
    assert!((3..=6).contains(&told), "{told} times: {log}");
}

#[test]
fn without_permission_it_is_said_what_is_missing_and_a_grant_is_enough() {
    let cable = Cable::new();
    fs::set_permissions(cable.agent_end(), Permissions::from_mode(0o000)).expect("it is ours");
    let configuration = configuration(&[("scale", serial(&cable, "exclusive = false"))]);
    // Root may open anything unless its capabilities are taken away.
    let powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--"];
    let home = Home::new(&configuration);
    let home = if rustix::process::geteuid().is_root() { home.through(&powerless) } else { home };
    let agent = Forebay::start_in(home, &[]);
    let error = || status(&agent, "scale")["last_error"]["message"].as_str().unwrap_or_default().to_owned();
    eventually(PATIENCE, "it is told", || error().contains("no permission") && error().contains("dialout"));
    fs::set_permissions(cable.agent_end(), Permissions::from_mode(0o600)).expect("it is ours");
    wait_connected(&agent, "scale", 1);
    cable.say(b"one\n");
    wait_records(&agent, "scale", 1);
}

#[test]
fn ten_megabytes_without_a_delimiter_and_noise_cost_no_memory_and_not_the_next_line() {
    let cable = Cable::new();
    let keys = "checksum = \"nmea\"\nmax-frame = \"4KiB\"";
    let agent = Forebay::start(&configuration(&[("wind", serial(&cable, keys))]));
    wait_connected(&agent, "wind", 1);
    let before = agent.resident_bytes();
    let megabyte = vec![b'x'; 1_000_000];
    (0..10).for_each(|_| cable.say(&megabyte));
    cable.say(b"\n$GPGLL,5300.97914,N,00259.98174,E,125926,A*28\r\n");
    wait_records(&agent, "wind", 1);
    assert_eq!(status(&agent, "wind")["refused"], serde_json::json!({ "oversize": 1 }));
    let grown = agent.resident_bytes().saturating_sub(before);
    assert!(grown < 4_000_000, "{grown} bytes more");
    // As at a wrong speed: any bytes at all.
    let mut random = fastrand::Rng::with_seed(7);
    let noise: Vec<u8> = (0..100_000).map(|_| random.u8(..)).collect();
    cable.say(&noise);
    cable.say(b"\n$GPGLL,5300.97914,N,00259.98174,E,125926,A*28\r\n");
    wait_records(&agent, "wind", 2);
    wait_refused(&agent, "wind", "bad-checksum", 100);
    let log = agent.log();
    let told = log.lines().filter(|line| line.contains("bad-checksum")).count();
    assert_eq!(told, 1, "{log}");
}

#[test]
fn a_device_at_another_speed_is_told_of_and_heard_once_the_speed_is_right() {
    let sentence = b"$GPGLL,5300.97914,N,00259.98174,E,125926,A*28\r\n";
    let packet = [&[24][..], b"a packet of a counter", &crc16_modbus(b"a packet of a counter"), &[0]].concat();
    let kinds = [
        ("wind", "checksum = \"nmea\"\nmax-frame = \"256B\"", &sentence[..], &sentence[..sentence.len() - 2]),
        ("meter", "framing = \"cobs\"\nchecksum = \"crc16-modbus\"", &packet, &packet[1..packet.len() - 1]),
    ];
    let cables = [Cable::new(), Cable::new()];
    let sources: Vec<_> =
        kinds.iter().zip(&cables).map(|((name, keys, ..), cable)| (*name, serial(cable, keys))).collect();
    let agent = Forebay::start(&configuration(&sources));
    for ((name, _, said, wanted), cable) in kinds.iter().zip(&cables) {
        wait_connected(&agent, name, 1);
        let refused = || status(&agent, name)["refused"].as_object().expect("reasons").clone();
        for speed in [4800, 19200, 115_200, 10_500] {
            cable.say(&uart::heard(&said.repeat(200), speed, 9600));
        }
        eventually(PATIENCE, &format!("{name} counts the noise"), || !refused().is_empty());
        // Each kind of noise is told once, and what to look at.
        let port = cable.agent_end().display().to_string();
        for reason in refused().keys() {
            let log = agent.log();
            let told = log.lines().filter(|line| line.contains(&port) && line.contains(&format!("\"{reason}\"")));
            let told: Vec<_> = told.collect();
            assert!(told.len() == 1 && told[0].contains("which is read at 9600 8N1"), "{reason}: {told:?} of {log}");
        }
        // The first may end what the noise began.
        cable.say(&said.repeat(3));
        wait_records(&agent, name, 2);
        let stored = &stored(&agent)[*name];
        assert!(stored.iter().all(|record| record == wanted), "{stored:?}");
    }
}

#[test]
fn a_flood_is_held_back_and_stored_in_order() {
    const LINES: u64 = 100_000;
    let cable = Cable::new();
    let agent = Forebay::start(&configuration(&[("flood", serial(&cable, ""))]));
    wait_connected(&agent, "flood", 1);
    for first in (0..LINES).step_by(1000) {
        let lines: String = (first..first + 1000).map(|number| format!("{number} {}\n", "x".repeat(50))).collect();
        cable.say(lines.as_bytes());
    }
    wait_records(&agent, "flood", LINES);
    let stored = stored(&agent);
    let numbers = stored["flood"].iter().map(|line| {
        let text = std::str::from_utf8(line).expect("text");
        text.split(' ').next().and_then(|number| number.parse::<u64>().ok()).expect("a number")
    });
    assert!(numbers.eq(0..LINES));
}

#[test]
fn a_device_that_has_to_be_asked_is_asked() {
    let cable = Cable::new();
    let keys = "write-on-open = { hex = \"1b 50\" }\npoll = { command = \"W\\r\", interval = \"50ms\" }\nframing = { type = \"delimiter\", delimiter = \"\\r\" }";
    let agent = Forebay::start(&configuration(&[("scale", serial(&cable, keys))]));
    assert_eq!(cable.hear(2), b"\x1bP");
    for weight in 1..=5 {
        assert_eq!(cable.hear(2), b"W\r");
        cable.say(format!("{weight} kg\r").as_bytes());
    }
    wait_records(&agent, "scale", 5);
    let weights: Vec<Vec<u8>> = (1..=5).map(|weight| format!("{weight} kg").into_bytes()).collect();
    assert_eq!(stored(&agent)["scale"], weights);
}

#[test]
fn a_port_is_found_by_the_usb_device_behind_it() {
    let cable = Cable::new();
    let home = Home::new("");
    // As the kernel shows an adapter, except that the port is the cable's.
    let usb = home.path().join("sys/devices/usb1/1-1");
    let tty = usb.join("1-1:1.0/ttyUSB0/tty/ttyUSB0");
    fs::create_dir_all(&tty).expect("made");
    fs::create_dir_all(home.path().join("sys/class/tty")).expect("made");
    let name = fs::read_link(cable.agent_end()).expect("a link");
    let name = name.strip_prefix("/dev").expect("a terminal").display().to_string();
    for (file, text) in [
        (usb.join("idVendor"), "0403\n".to_owned()),
        (usb.join("idProduct"), "6001\n".to_owned()),
        (usb.join("serial"), "A1\n".to_owned()),
        (tty.join("uevent"), format!("DEVNAME={name}\n")),
    ] {
        fs::write(file, text).expect("written");
    }
    symlink(usb.join("1-1:1.0/ttyUSB0"), tty.join("device")).expect("linked");
    let sysfs = home.path().join("sys").display().to_string();
    let keys = format!(
        "type = \"serial\"\npartition-key = \"{{port}}\"\nsysfs = \"{sysfs}\"\n\
         usb = {{ vendor = \"0403\", product = \"6001\", serial-number = \"A1\" }}"
    );
    home.configure(&configuration(&[("scale", keys)]));
    let agent = Forebay::start_in(home, &[]);
    let error = || status(&agent, "scale")["last_error"]["message"].as_str().unwrap_or_default().to_owned();
    eventually(PATIENCE, "it is told", || error().contains("no port is usb:0403:6001:A1"));
    symlink(&tty, agent.home().path().join("sys/class/tty/ttyUSB0")).expect("linked");
    wait_connected(&agent, "scale", 1);
    cable.say(b"one\n");
    wait_records(&agent, "scale", 1);
    assert_eq!(stored(&agent)["usb:0403:6001:A1"], [b"one"]);
}
