//! The `gps` source: a truck's drive through gpsd, over a serial cable, TCP and UDP, and what receivers and cables do otherwise.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::serial_source::{configuration, status, stored, wait_connected, wait_records, wait_refused};
use crate::support::counterpart::program;
use crate::support::daemon::{Daemon, PATIENCE, command};
use crate::support::forebay::Home;
use crate::support::truck::{DEPOT, SPEED, epoch, epoch_without_fix, latitude_after, sentence};
use crate::support::{Cable, Forebay, eventually, eventually_some, free_port};

/// 2026-11-25T12:00:00Z
const NOON: u64 = 1_795_608_000_000;

/// What is stored under a key, as JSON.
fn records(agent: &Forebay, key: &str) -> Vec<Value> {
    let data = stored(agent).remove(key).unwrap_or_default();
    data.iter().map(|data| serde_json::from_slice(data).expect("records are JSON")).collect()
}

fn events<'a>(records: &'a [Value], event: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["event"] == event).collect()
}

/// A drive of so many seconds.
fn drive(seconds: u32) -> String {
    (0..seconds).map(|second| epoch(NOON + u64::from(second) * 1000, f64::from(second))).collect()
}

/// gpsd, to which gpsfake plays the track in `truck.nmea` again and again.
fn play(dir: &Path, port: u16) -> Daemon {
    let mut start = command(program("gpsfake"));
    start.args(["-q", "-c", "0.05", "-P", &port.to_string()]).arg(dir.join("truck.nmea")).env("TMPDIR", dir);
    Daemon::spawn("gpsfake", start, &dir.join("gpsfake.log"))
}

#[test]
fn a_drive_that_gpsd_reports_is_stored_also_after_gpsd_was_killed() {
    let port = free_port();
    let dir = tempfile::TempDir::new().expect("a temporary directory can be made");
    fs::write(dir.path().join("truck.nmea"), drive(20)).expect("written");
    let source = format!(
        "type = \"gps\"\nreceiver = \"gpsd://127.0.0.1:{port}\"\npartition-key = \"truck-7\"\n\
         [[sources.truck.geofences]]\nname = \"depot\"\nlatitude = {}\nlongitude = {}\nradius = 150",
        DEPOT.0, DEPOT.1
    );
    let mut gpsd = play(dir.path(), port);
    let agent = Forebay::start(&configuration(&[("truck", source)]));
    wait_records(&agent, "truck", 25);
    let found = records(&agent, "truck-7");
    let mut positions = events(&found, "position");
    // gpsd does not know the date before the first whole RMC, and says the first position without a time if that takes long.
    if positions[0]["time"].is_null() {
        positions.remove(0);
    }
    for position in &positions {
        let field = |name: &str| position[name].as_f64().unwrap_or_else(|| panic!("{name} in {position}"));
        let time = position["time"].as_str().expect("a time");
        let second = time.strip_prefix("2026-11-25T12:00:").and_then(|rest| rest.strip_suffix(".000Z"));
        let second: f64 = second.unwrap_or_else(|| panic!("{time}")).parse().expect("a number");
        assert!((field("latitude") - latitude_after(second)).abs() < 1e-6, "{position}");
        assert!((field("longitude") - DEPOT.1).abs() < 1e-6 && (field("speed") - SPEED).abs() < 0.1, "{position}");
        assert_eq!((&position["fix"], &position["mode"]), (&true.into(), &"3d".into()), "{position}");
    }
    // gpsd reports an epoch several times at first: it is one record.
    let times: Vec<_> = positions.iter().map(|position| &position["time"]).collect();
    assert!(times.windows(2).all(|pair| pair[0] != pair[1]), "{times:?}");
    assert!(positions.iter().any(|position| position["satellites"] == 8), "{positions:?}");
    // Each round begins in the depot and leaves it after 170 m.
    let leave = events(&found, "geofence-leave");
    assert_eq!(leave[0]["geofence"], "depot");
    assert!(leave[0]["latitude"].as_f64() > Some(latitude_after(8.0)), "{leave:?}");

    gpsd.kill9();
    wait_connected(&agent, "truck", 0);
    eventually(PATIENCE, "that the fix is lost is stored", || {
        records(&agent, "truck-7").last().is_some_and(|record| record["event"] == "fix-lost" && record["fix"] == false)
    });
    let before = status(&agent, "truck")["records"].as_u64().expect("a number");
    let _gpsd = play(dir.path(), port);
    wait_records(&agent, "truck", before + 5);
    wait_refused(&agent, "truck", "no-connection", 1);
}

#[test]
fn a_drive_is_the_same_over_a_cable_tcp_and_udp() {
    let cable = Cable::new();
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let udp = free_port();
    let gps =
        |receiver: &str, more: &str| format!("type = \"gps\"\nreceiver = \"{receiver}\"\ntimeout = \"1m\"\n{more}");
    let agent = Forebay::start(&configuration(&[
        ("cable", gps(&cable.agent_end().display().to_string(), "baud = 4800")),
        ("tcp", gps(&format!("tcp://{}", server.local_addr().expect("one")), "format = \"geojson\"")),
        ("udp", gps(&format!("udp://127.0.0.1:{udp}"), "min-distance = 50.0\npartition-key = \"{host}\"")),
    ]));
    ["cable", "tcp", "udp"].iter().for_each(|source| wait_connected(&agent, source, 1));
    let drive = drive(10) + &epoch_without_fix(NOON + 10_000) + &epoch_without_fix(NOON + 11_000);
    // In pieces that respect no line.
    drive.as_bytes().chunks(17).for_each(|piece| cable.say(piece));
    let (mut stream, _) = server.accept().expect("it connects");
    stream.write_all(drive.as_bytes()).expect("it reads");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    for line in drive.lines() {
        socket.send_to(line.as_bytes(), ("127.0.0.1", udp)).expect("sent");
    }

    wait_records(&agent, "cable", 11);
    wait_records(&agent, "tcp", 11);
    wait_records(&agent, "udp", 5);
    let cable = records(&agent, "cable");
    assert_eq!(cable.len(), 11);
    for (second, position) in cable[..10].iter().enumerate() {
        assert_eq!(position["time"], format!("2026-11-25T12:00:0{second}.000Z"));
        assert_eq!(
            (&position["satellites"], &position["hdop"], &position["altitude"]),
            (&8.into(), &0.9.into(), &34.5.into())
        );
    }
    let lost =
        serde_json::json!({"event": "fix-lost", "fix": false, "time": "2026-11-25T12:00:10.000Z", "satellites": 2});
    assert_eq!(cable[10], lost);
    let features = records(&agent, "tcp");
    for (feature, flat) in features.iter().zip(&cable) {
        assert_eq!((&feature["type"], &feature["properties"]["time"]), (&"Feature".into(), &flat["time"]));
        assert_eq!(feature["geometry"]["coordinates"][1], flat["latitude"], "{feature}");
    }
    // 20 m/s: every third second is 60 m on.
    let seldom = records(&agent, "127.0.0.1");
    let times: Vec<_> =
        seldom.iter().map(|record| record["time"].as_str().expect("a time")[17..19].to_owned()).collect();
    assert_eq!(times, ["00", "03", "06", "09", "10"]);
    for source in ["cable", "tcp", "udp"] {
        assert_eq!(status(&agent, source)["refused"], serde_json::json!({}), "{source}");
    }
}

#[test]
fn noise_silence_and_a_pulled_cable_are_told_counted_and_survived() {
    let mut cable = Cable::new();
    let source = format!("type = \"gps\"\nreceiver = \"{}\"\ntimeout = \"8s\"", cable.agent_end().display());
    // Root may open anything unless its capabilities are taken away.
    let powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--"];
    let home = Home::new(&configuration(&[("truck", source)]));
    let home = if rustix::process::geteuid().is_root() { home.through(&powerless) } else { home };
    fs::set_permissions(cable.agent_end(), Permissions::from_mode(0o000)).expect("it is ours");
    let agent = Forebay::start_in(home, &[]);
    wait_refused(&agent, "truck", "no-connection", 1);
    let error = status(&agent, "truck")["last_error"].to_string();
    assert!(error.contains("permission") && error.contains("agent"), "{error}");
    fs::set_permissions(cable.agent_end(), Permissions::from_mode(0o600)).expect("it is ours");
    wait_connected(&agent, "truck", 1);

    // Half a sentence before a whole one, a bit that fell over, a wrong speed, a line without end.
    let whole = sentence("GNRMC,120000.00,A,5231.20000,N,01324.30000,E,38.877,0.00,251126,,,A");
    cable.say(format!("01324.3,E,1,08*11\r\n$GNGGA,1200{whole}").as_bytes());
    wait_records(&agent, "truck", 1);
    cable.say(whole.replace("5231", "5230").as_bytes());
    cable.say(sentence("GNRMC,what,is,this").as_bytes());
    let noise: Vec<u8> = (0..20_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    noise.chunks(512).for_each(|piece| cable.say(piece));
    for reason in ["noise", "checksum", "malformed"] {
        wait_refused(&agent, "truck", reason, 1);
    }
    let speak = |cable: &Cable, from: u64| {
        let before = status(&agent, "truck")["records"].as_u64().expect("a number");
        let mut second = from;
        eventually_some(PATIENCE, "positions are stored again", || {
            second += 1;
            cable.say(epoch(NOON + second * 1000, 0.0).as_bytes());
            (status(&agent, "truck")["records"].as_u64() > Some(before + 2)).then_some(second)
        })
    };
    let second = speak(&cable, 0);
    cable.unplug();
    wait_connected(&agent, "truck", 0);
    cable.plug_in();
    speak(&cable, second);
    // Last, since the cable ends when the agent lets it go.
    let silent = "nothing understandable came for 8s; does it speak at 9600 8N1?";
    eventually(PATIENCE, silent, || agent.log().contains(silent));
    assert!(!agent.log().contains("panicked"));
}

#[test]
fn a_server_that_comes_and_goes_is_connected_to_again() {
    let port = free_port();
    let source = format!("type = \"gps\"\nreceiver = \"tcp://127.0.0.1:{port}\"\ntimeout = \"1s\"");
    let mut agent = Forebay::start(&configuration(&[("truck", source)]));
    wait_refused(&agent, "truck", "no-connection", 2);
    let server = TcpListener::bind(("127.0.0.1", port)).expect("it is free");
    let say = |mut stream: &TcpStream, second: u64| stream.write_all(epoch(NOON + second * 1000, 0.0).as_bytes());
    let (stream, _) = server.accept().expect("it connects");
    say(&stream, 0).expect("it reads");
    wait_records(&agent, "truck", 1);
    // It closes, and then says nothing: both are the end of the fix.
    drop(stream);
    wait_records(&agent, "truck", 2);
    let (stream, _) = server.accept().expect("it connects again");
    say(&stream, 1).expect("it reads");
    wait_records(&agent, "truck", 4);
    let (_silent, _) = server.accept().expect("and again, since nothing came for a second");
    let kinds: Vec<_> =
        records(&agent, "truck").iter().map(|record| record["event"].as_str().expect("one").to_owned()).collect();
    assert_eq!(kinds, ["position", "fix-lost", "position", "fix-lost"]);
    assert!(agent.terminate().success());
}

#[test]
fn an_address_that_is_taken_is_asked_for_again() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let receiver = format!("udp://{}", taken.local_addr().expect("one"));
    let agent = Forebay::start(&configuration(&[("truck", format!("type = \"gps\"\nreceiver = \"{receiver}\""))]));
    wait_refused(&agent, "truck", "no-connection", 1);
    let error = status(&agent, "truck")["last_error"].to_string();
    assert!(error.contains(&format!("listen on {receiver}")) && error.contains("in use"), "{error}");
    drop(taken);
    wait_connected(&agent, "truck", 1);
}

#[test]
fn a_flood_and_ten_megabytes_without_an_end_cost_no_memory_and_not_the_next_position() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let receiver = server.local_addr().expect("it listens");
    let agent =
        Forebay::start(&configuration(&[("truck", format!("type = \"gps\"\nreceiver = \"tcp://{receiver}\""))]));
    let (mut stream, _) = server.accept().expect("it connects");
    stream.write_all(&vec![b'x'; 10_000_000]).expect("it reads");
    // Faster than any receiver: what cannot be stored yet is held back.
    stream.write_all(format!("\r\n{}", drive(3000)).as_bytes()).expect("it reads");
    // The last one waits for what follows it.
    wait_records(&agent, "truck", 2999);
    let positions = records(&agent, "truck");
    let times: Vec<_> = positions.iter().map(|position| position["time"].as_str().expect("a time")).collect();
    assert!(times.is_sorted() && times[0] == "2026-11-25T12:00:00.000Z", "{} from {}", times.len(), times[0]);
    wait_refused(&agent, "truck", "noise", 1);
    assert!(agent.resident_bytes_peak() < 100 << 20, "{} bytes", agent.resident_bytes_peak());
}
