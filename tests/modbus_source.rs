//! The `modbus-rtu` and `modbus-tcp` sources with pymodbus for a device, over TCP and at the end of a cable.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use serde_json::{Value, json};

use crate::serial_source::{configuration, crc16_modbus, status, stored, wait_connected, wait_records, wait_refused};
use crate::support::daemon::PATIENCE;
use crate::support::{Cable, Forebay, ModbusServer, eventually, uart};

/// What units 1 and 2 hold, and a register that is not there.
const REGISTERS: &str = r#"
    units = [1, 2]
    interval = "50ms"
    timeout = "1s"
    registers = [
      { name = "f32", address = 0, type = "f32" },
      { name = "i32", address = 2, type = "i32", word-order = "little" },
      { name = "scaled", address = 4, scale = 0.1 },
      { name = "i16", address = 5, type = "i16" },
      { name = "u64", address = 6, type = "u64" },
      { name = "f64", address = 10, type = "f64" },
      { name = "input", address = 2, table = "input" },
      { name = "absent", address = 100, table = "input" },
      { name = "coil", address = 2, table = "coil" },
      { name = "discrete", address = 1, table = "discrete", unit = 1 },
    ]
"#;

fn record(unit: u64) -> Value {
    let mut record = json!({
        "unit": unit, "f32": 230.1, "i32": -100_000 - i64::try_from(unit).expect("small"), "scaled": 230.1,
        "i16": -i64::try_from(unit).expect("small"), "u64": (1_u64 << 63) + unit, "f64": 1.5, "input": 9,
        "absent": null, "coil": true, "errors": { "absent": "Illegal data address" },
    });
    if unit == 1 {
        record["discrete"] = json!(false);
    }
    record
}

/// A device that falls silent within a poll has given what it gave until then, and everything else is whole.
#[track_caller]
fn check_records(agent: &Forebay, source: &str) {
    let stored = stored(agent);
    for unit in [1, 2] {
        let records: Vec<Value> = stored[&format!("{source}/{unit}")]
            .iter()
            .map(|bytes| serde_json::from_slice(bytes).expect("JSON"))
            .collect();
        let partial: Vec<_> = records.iter().filter(|found| **found != record(unit)).collect();
        assert!(records.len() >= 13 && partial.len() <= 3, "of {}: {partial:?}", records.len());
        for (name, value) in partial.iter().flat_map(|partial| partial.as_object().expect("an object")) {
            assert!(name == "errors" || value.is_null() || *value == record(unit)[name], "{name}: {value}");
        }
    }
}

fn tcp(port: u16, keys: &str) -> String {
    format!("type = \"modbus-tcp\"\nserver = \"127.0.0.1:{port}\"\n{keys}")
}

#[test]
fn registers_over_tcp_are_stored_also_after_the_server_was_killed() {
    let mut server = ModbusServer::tcp();
    let agent = Forebay::start(&configuration(&[("meter", tcp(server.port(), REGISTERS))]));
    wait_records(&agent, "meter", 10);
    for _ in 0..3 {
        server.kill9();
        wait_connected(&agent, "meter", 0);
        let error = || status(&agent, "meter")["last_error"]["message"].as_str().unwrap_or_default().to_owned();
        eventually(PATIENCE, "it is told", || error().contains("connect to 127.0.0.1"));
        let before = status(&agent, "meter")["records"].as_u64().expect("a count");
        server.start_again();
        wait_records(&agent, "meter", before + 10);
    }
    check_records(&agent, "meter");
    let log = agent.log();
    let told = log.lines().filter(|line| line.contains("no device")).count();
    assert!((3..=9).contains(&told), "{told} times: {log}");
    let told = log.lines().filter(|line| line.contains("\"exception\"")).count();
    assert!(told <= 1, "{log}");
}

#[test]
fn registers_on_a_serial_line_are_stored_also_after_it_was_unplugged() {
    let mut cable = Cable::new();
    let mut server = ModbusServer::rtu(&cable.device_end());
    let keys =
        format!("type = \"modbus-rtu\"\ndevice = \"{}\"\nbaud = 19200\n{REGISTERS}", cable.agent_end().display(),);
    let agent = Forebay::start(&configuration(&[("panel", keys)]));
    wait_records(&agent, "panel", 10);
    cable.unplug();
    server.kill9();
    wait_connected(&agent, "panel", 0);
    let before = status(&agent, "panel")["records"].as_u64().expect("a count");
    cable.plug_in();
    server.start_again();
    wait_records(&agent, "panel", before + 10);
    // Only the device is gone, and the line is there.
    server.kill9();
    wait_refused(&agent, "panel", "no-answer", 1);
    let before = status(&agent, "panel")["records"].as_u64().expect("a count");
    server.start_again();
    wait_records(&agent, "panel", before + 10);
    check_records(&agent, "panel");
}

#[test]
fn a_device_at_another_speed_is_told_of_and_read_once_the_speed_is_right() {
    const NOISY: usize = 20;
    let cable = Cable::new();
    let keys = format!(
        "type = \"modbus-rtu\"\ndevice = \"{}\"\nbaud = 19200\ninterval = \"20ms\"\ntimeout = \"100ms\"\n\
         registers = [{{ name = \"speed\", address = 7 }}]",
        cable.agent_end().display()
    );
    let agent = Forebay::start(&configuration(&[("panel", keys)]));
    let answer = [&[1, 3, 2, 0x12, 0x34][..], &crc16_modbus(&[1, 3, 2, 0x12, 0x34])].concat();
    for round in 0..NOISY + 3 {
        assert_eq!(cable.hear(8)[..6], [1, 3, 0, 7, 0, 1]);
        let speed = [9600, 38_400, 4800, 115_200][round % 4];
        cable.say(&if round < NOISY { uart::heard(&answer, speed, 19200) } else { answer.clone() });
    }
    wait_records(&agent, "panel", 2);
    for (_, records) in stored(&agent) {
        assert!(records.iter().all(|record| record == br#"{"unit":1,"speed":4660}"#), "{records:?}");
    }
    let counted = status(&agent, "panel")["refused"].clone();
    let sum: u64 = ["garbled", "no-answer"].iter().filter_map(|reason| counted[reason].as_u64()).sum();
    assert!(sum >= NOISY as u64 - 1, "{counted}");
    let log = agent.log();
    let told = log.lines().filter(|line| line.contains("registers cannot be read")).count();
    assert!((1..=2).contains(&told) && log.contains("unit 1"), "{told} times: {log}");
}

#[test]
fn half_an_answer_is_told_as_such_and_the_next_one_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let agent = Forebay::start(&configuration(&[(
        "meter",
        tcp(port, "interval = \"50ms\"\nregisters = [{ name = \"speed\", address = 7 }]"),
    )]));
    let mut request = [0; 12];
    let (mut stream, _) = listener.accept().expect("it connects");
    stream.read_exact(&mut request).expect("it asks");
    stream.write_all(&[&request[..4], &[0, 5, request[6], 3, 2]].concat()).expect("it reads");
    drop(stream);
    let (mut stream, _) = listener.accept().expect("it connects again");
    let half = "unit 1: holding 7 to 7: the connection ended within an answer";
    assert!(agent.log().contains(half), "{}", agent.log());
    stream.read_exact(&mut request).expect("it asks");
    stream.write_all(&[&request[..4], &[0, 5, request[6], 3, 2, 0x12, 0x34]].concat()).expect("it reads");
    wait_records(&agent, "meter", 1);
    assert_eq!(stored(&agent)["meter/1"], [br#"{"unit":1,"speed":4660}"#]);
}

#[test]
fn servers_that_talk_nonsense_or_nothing_are_counted_and_told() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = |listener: &TcpListener| listener.local_addr().expect("an address").port();
    let keys = "interval = \"50ms\"\ntimeout = \"100ms\"\nregisters = [{ name = \"a\", address = 0, type = \"u32\" }]";
    let agent = Forebay::start(&configuration(&[
        ("nonsense", tcp(port(&listener), keys)),
        ("silent", tcp(port(&silent), keys)),
    ]));
    let talker = thread::spawn(move || {
        let mut random = fastrand::Rng::with_seed(7);
        // Random bytes, a wrong protocol, too few registers, a function that nobody asked for.
        let answers: [&[u8]; 4] = [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\0\0\0\0\0\0\0\0",
            b"\0\0\0\0\0\x05\xff\x03\x02\0\0",
            b"\0\0\0\0\0\x03\xff\x84\x02",
        ];
        // And one that does not stop.
        let flood = vec![b'x'; 10_000_000];
        for round in 0..12 {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut request = [0; 12];
            if stream.read_exact(&mut request).is_err() {
                continue;
            }
            let mut answer = match answers.get(round) {
                Some(answer) => answer.to_vec(),
                None if round == 6 => flood.clone(),
                None => (0..random.usize(1..500)).map(|_| random.u8(..)).collect(),
            };
            // Most get past the number of the request.
            if round % 4 != 0 {
                let bytes = answer.len().min(2);
                answer[..bytes].copy_from_slice(&request[..bytes]);
            }
            let _ = stream.write_all(&answer);
        }
    });
    talker.join().expect("it was asked as often");
    wait_refused(&agent, "silent", "no-answer", 3);
    let counted = status(&agent, "nonsense")["refused"].clone();
    let sum: u64 = ["garbled", "no-answer"].iter().filter_map(|reason| counted[reason].as_u64()).sum();
    assert!(sum >= 8, "{counted}");
    assert_eq!(status(&agent, "nonsense")["records"], 0);
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
    assert!(agent.resident_bytes_peak() < 100 << 20, "{} bytes", agent.resident_bytes_peak());
    let told = agent.log().lines().filter(|line| line.contains("no-answer") && line.contains("silent")).count();
    assert_eq!(told, 1, "{}", agent.log());
}
