//! Devices that send what they must not to the embedded listener.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::PATIENCE;
use crate::support::device::{
    CONNACK, DISCONNECT, Packet, SUBACK, VERSIONS, Version, connect, packet, publish, string,
};
use crate::support::gateway::CLOUD_STREAM;
use crate::support::mosquitto::{mosquitto_pub, try_mosquitto_pub, try_mosquitto_sub};
use crate::support::{Device, Forebay, Gateway, Upstream, eventually};

/// Reason codes of version 5.
const MALFORMED: u8 = 0x81;
const PROTOCOL_ERROR: u8 = 0x82;
const NOT_AUTHORISED: u8 = 0x87;
const TOPIC_NAME_INVALID: u8 = 0x90;
const PACKET_TOO_LARGE: u8 = 0x95;

/// A gateway with a well-behaved device, which has to be served whatever the others do.
struct Scene {
    agent: Forebay,
    upstream: Upstream,
    mqtt: u16,
    good: Device,
    /// Data that the upstream has to get, in this order.
    owed: Vec<String>,
}

impl Scene {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Gateway)) -> Self {
        let upstream = Upstream::start();
        let mut gateway = Gateway::to(&upstream.endpoint());
        change(&mut gateway);
        let agent = Forebay::start(&gateway.configuration());
        let good = Device::connect(gateway.mqtt, Version::V311, "good");
        Self { agent, upstream, mqtt: gateway.mqtt, good, owed: Vec::new() }
    }

    /// A bad device publishes something good before, which is acknowledged and so owed.
    #[track_caller]
    fn publish(&mut self, device: &mut Device, text: &str) {
        device.publish("plant/a", text.as_bytes());
        self.owed.push(text.to_owned());
    }

    /// The well-behaved device still has its connection, and everything that was acknowledged arrives, and nothing else.
    #[track_caller]
    fn goes_on(&mut self) {
        let text = format!("good {}", self.owed.len());
        self.good.publish("plant/a", text.as_bytes());
        self.owed.push(text);
        self.upstream.wait_for(self.owed.len() as u64, PATIENCE);
        let arrived: Vec<_> = self
            .upstream
            .accepted()
            .into_iter()
            .map(|record| String::from_utf8(record.data).expect("these tests publish text"))
            .collect();
        assert_eq!(arrived, self.owed);
    }

    fn source(&self) -> Value {
        self.agent.status()["sources"]["devices"].clone()
    }

    fn refused(&self, kind: &str) -> u64 {
        self.source()["refused"][kind].as_u64().unwrap_or(0)
    }
}

#[test]
fn malformed_packets_end_their_own_connection_only() {
    // What follows CONNECT, and what it is counted as.
    type Bytes = fn(Version) -> Vec<u8>;
    let cases: &[(&str, Bytes, &str, u8)] = &[
        ("a packet type that does not exist", |_| vec![0x00, 0], "malformed", MALFORMED),
        ("a length of five bytes", |_| vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x01], "malformed", MALFORMED),
        ("the largest length", |_| vec![0x30, 0xff, 0xff, 0xff, 0x7f], "packet-too-large", PACKET_TOO_LARGE),
        ("a topic longer than its packet", |_| vec![0x30, 3, 0, 200, b'x'], "malformed", MALFORMED),
        ("a PUBLISH of nothing", |_| vec![0x30, 0], "malformed", MALFORMED),
        ("a quality of service of 3", |version| publish(version, 3, 7, b"t", b"x"), "malformed", MALFORMED),
        ("a packet id of 0", |version| publish(version, 1, 0, b"t", b"x"), "malformed", MALFORMED),
        ("a second CONNECT", |version| connect(version, "again", None), "", PROTOCOL_ERROR),
        ("a packet that only servers send", |_| vec![0xd0, 0], "protocol-error", PROTOCOL_ERROR),
        ("a wildcard", |version| publish(version, 0, 0, b"plant/#", b"x"), "bad-topic", TOPIC_NAME_INVALID),
        ("an empty topic", |version| publish(version, 1, 7, b"", b"x"), "bad-topic", TOPIC_NAME_INVALID),
        ("a topic in Latin-1", |version| publish(version, 1, 7, b"Werk/\xd6fen", b"x"), "not-utf8", MALFORMED),
        ("half a character", |version| publish(version, 1, 7, b"plant/\xe6\xb8", b"x"), "not-utf8", MALFORMED),
        ("a surrogate", |version| publish(version, 1, 7, b"t/\xed\xa0\x80", b"x"), "not-utf8", MALFORMED),
    ];
    let mut scene = Scene::new();
    for &(what, bytes, kind, reason) in cases {
        for version in VERSIONS {
            let client = format!("{what}, {version:?}");
            let before = scene.refused(kind);
            let mut bad = Device::connect(scene.mqtt, version, &client);
            scene.publish(&mut bad, &client);
            bad.send(&bytes(version)).unwrap();
            let said = bad.receive_until_end();
            match version {
                // It knows no packet for this.
                Version::V311 => assert_eq!(said, [], "{client}"),
                Version::V5 => {
                    assert!(said.len() == 1 && said[0].kind == DISCONNECT, "{client}: {said:?}");
                    // Which code fits is in some cases a matter of opinion, so only those that are not are compared.
                    if kind != "malformed" && !kind.is_empty() {
                        assert_eq!(said[0].body[0], reason, "{client}: {said:?}");
                    }
                }
            }
            if !kind.is_empty() {
                assert_eq!(scene.refused(kind), before + 1, "{client}: {}", scene.source());
            }
        }
    }
    scene.goes_on();
    let log = scene.agent.log();
    for kind in ["malformed", "not-utf8", "bad-topic", "packet-too-large"] {
        assert!(log.contains(&format!("kind=\"{kind}\"")), "{kind} is told: {log}");
    }
    assert!(log.contains("the largest length, V311"), "the client is named: {log}");
}

#[test]
fn whoever_does_not_begin_with_connect_is_turned_away() {
    let truncated = &connect(Version::V311, "truncated", None)[..9];
    let mut future = connect(Version::V311, "future", None);
    future[8] = 9;
    let mut misnamed = connect(Version::V311, "misnamed", None);
    misnamed[4..8].copy_from_slice(b"mqtt");
    let http: &[u8] = b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n";
    let tls: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let unknown_version: &[Packet] = &[Packet { kind: CONNACK, body: vec![0, 1] }];

    let mut scene = Scene::new();
    for (what, bytes, kind, answer) in [
        ("another program's request", http, "malformed", &[][..]),
        ("TLS", tls, "malformed", &[]),
        ("zeros", &[0; 64], "malformed", &[]),
        ("a PUBLISH", &publish(Version::V311, 1, 1, b"plant/a", b"x"), "malformed", &[]),
        ("a version of the future", &future, "unknown-protocol", unknown_version),
        ("another protocol's name", &misnamed, "unknown-protocol", unknown_version),
    ] {
        let before = scene.refused("malformed") + scene.refused("unknown-protocol");
        let mut bad = Device::silent(scene.mqtt, Version::V311).unwrap();
        bad.send(bytes).unwrap();
        let said = bad.receive_until_end();
        if kind == "unknown-protocol" {
            assert_eq!(said, answer, "{what}");
        }
        let refused = scene.refused("malformed") + scene.refused("unknown-protocol");
        assert_eq!(refused, before + 1, "{what}: {}", scene.source());
    }
    // What never becomes whole is nobody's mistake as long as it may still come.
    let mut slow = Device::silent(scene.mqtt, Version::V311).unwrap();
    slow.send(truncated).unwrap();
    assert!(!slow.hears_within(Duration::from_millis(300)));
    drop(slow);
    scene.goes_on();
    assert_eq!(scene.source()["connections"], 1);
}

#[test]
fn random_bytes_never_disturb_the_others() {
    let seed = 20_260_101;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut scene = Scene::new();
    for round in 0..300 {
        let mut bytes: Vec<u8> = (0..random.usize(1..400)).map(|_| random.u8(..)).collect();
        let version = VERSIONS[round % 2];
        if random.bool() {
            // Nearly right is worse than wrong: some bytes of real packets are changed.
            let publish = publish(version, 1, 5, b"other/b", &bytes);
            bytes = [connect(version, "garbler", None), publish].concat();
            for _ in 0..random.usize(1..4) {
                let place = random.usize(..bytes.len());
                bytes[place] = random.u8(..);
            }
        }
        let mut bad = Device::silent(scene.mqtt, version).unwrap();
        // It may have been thrown out in the middle.
        let _ = bad.send(&bytes);
    }
    scene.good.publish("plant/a", b"still here");
    eventually(PATIENCE, "the record of the good device arrives", || {
        scene.upstream.accepted().iter().any(|record| record.data == b"still here")
    });
    eventually(PATIENCE, "the others are gone", || scene.source()["connections"] == 1);
    assert_eq!(scene.refused("panic"), 0, "seed {seed}: {}", scene.agent.log());
}

#[test]
fn subscribing_is_refused_and_publishing_goes_on() {
    let mut scene = Scene::new();
    for version in VERSIONS {
        let mut device = Device::connect(scene.mqtt, version, &format!("{version:?}"));
        let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        let filters = [string(b"plant/#"), vec![1], string(b"a/+"), vec![0]].concat();
        device.send(&packet(0x82, &[&[0, 9], properties, &filters].concat())).unwrap();
        let answer = device.receive().unwrap().unwrap();
        let refused = if version == Version::V5 { NOT_AUTHORISED } else { 0x80 };
        assert!(answer.kind == SUBACK && answer.body.starts_with(&[0, 9]), "{answer:?}");
        assert!(answer.body.ends_with(&[refused, refused]), "{answer:?}");
        scene.publish(&mut device, &format!("after SUBSCRIBE, {version:?}"));

        let name = if version == Version::V5 { "5" } else { "311" };
        let output = try_mosquitto_sub(scene.mqtt, &["-V", name, "-t", "plant/#", "-W", "20"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("denied"), "mosquitto_sub, {version:?}: {:?} {said}", output.status);
    }
    assert_eq!(scene.refused("subscribe"), 4);
    scene.goes_on();
}

#[test]
fn a_20_mb_message_is_refused_by_its_header() {
    let mut scene = Scene::new();
    let large = vec![b'x'; 20_000_000];
    let file = scene.agent.home().path().join("large");
    fs::write(&file, &large).unwrap();
    let before = scene.agent.resident_bytes_peak();
    for version in VERSIONS {
        let mut bad = Device::connect(scene.mqtt, version, &format!("large, {version:?}"));
        scene.publish(&mut bad, &format!("before the large one, {version:?}"));
        // It is thrown out before all of it was sent.
        let _ = bad.send(&publish(version, 1, 9, b"plant/large", &large));
        let said = bad.receive_until_end();
        if version == Version::V5 {
            assert!(said[0].kind == DISCONNECT && said[0].body[0] == PACKET_TOO_LARGE, "{said:?}");
        }
    }
    let path = file.to_str().unwrap();
    let output = try_mosquitto_pub(scene.mqtt, &["-V", "311", "-q", "1", "-t", "plant/large", "-f", path]);
    assert!(!output.status.success(), "mosquitto_pub must not believe that it arrived");
    // In version 5 the client is told the limit in advance, and mosquitto's does not even try.
    try_mosquitto_pub(scene.mqtt, &["-V", "5", "-q", "1", "-t", "plant/large", "-f", path]);
    assert_eq!(scene.refused("packet-too-large"), 3, "{}", scene.source());
    let log = scene.agent.log();
    assert!(log.contains("plant/large") && log.contains("20000"), "topic and size are named: {log}");
    scene.goes_on();
    let grown = scene.agent.resident_bytes_peak().saturating_sub(before);
    assert!(grown < 10 << 20, "no memory is taken for what is not taken: {grown} bytes");
}

#[test]
fn a_topic_of_over_256_characters_is_shortened_as_a_key_and_counted() {
    let mut scene = Scene::new();
    // 256 characters are a key as they are, however many bytes they take.
    let fits = "ü".repeat(256);
    let ascii = format!("plant/{}", "x".repeat(400));
    let longest = format!("{}1", "x".repeat(65_534));
    let sibling = format!("{}2", "x".repeat(65_534));
    let wide = "温".repeat(300);
    for (number, topic) in [&fits, &ascii, &longest, &sibling, &wide].into_iter().enumerate() {
        mosquitto_pub(
            scene.mqtt,
            &["-V", VERSION_NAMES[number % 2], "-q", "1", "-t", topic, "-m", &number.to_string()],
        );
    }
    scene.upstream.wait_for(5, PATIENCE);
    let mut accepted = scene.upstream.accepted();
    accepted.sort_by(|a, b| a.data.cmp(&b.data));
    let data: Vec<_> = accepted.iter().map(|record| record.data.as_slice()).collect();
    assert_eq!(data, [b"0", b"1", b"2", b"3", b"4"]);
    let keys: Vec<_> = accepted.iter().map(|record| record.partition_key.as_str()).collect();
    assert_eq!(keys[0], fits);
    assert!(keys.iter().all(|key| key.chars().count() <= 256));
    assert!(keys[1].starts_with("plant/xxxx") && keys[4].starts_with("温温温温"));
    assert_ne!(keys[2], keys[3], "two long topics stay two keys");
    assert_eq!(scene.refused("key-shortened"), 4);
    let log = scene.agent.log();
    assert!(log.contains("key-shortened") && log.contains("256 characters"), "{log}");
    assert!(accepted.iter().all(|record| record.stream == CLOUD_STREAM));
    scene.owed = vec!["0".into(), "1".into(), "2".into(), "3".into(), "4".into()];
}

/// As mosquitto's programs call them.
const VERSION_NAMES: [&str; 2] = ["311", "5"];

#[test]
fn wrong_credentials_are_refused_and_never_written_down() {
    let passwords = tempfile::NamedTempFile::new().unwrap();
    fs::write(passwords.path(), "anna:right horse\n").unwrap();
    let upstream = Upstream::start();
    let source = format!("password-file = '{}'", passwords.path().display());
    let gateway = Gateway { source, ..Gateway::to(&upstream.endpoint()) };
    let agent = Forebay::start(&gateway.configuration());

    let answer = |version, user| {
        let mut device = Device::silent(gateway.mqtt, version).unwrap();
        device.send(&connect(version, "device", user)).unwrap();
        let answer = device.receive().unwrap().expect("a CONNACK");
        assert_eq!(answer.kind, CONNACK);
        answer.body[1]
    };
    for (version, bad_password, not_authorised) in [(Version::V311, 4, 5), (Version::V5, 0x86, 0x87)] {
        assert_eq!(answer(version, Some(("anna", "wrong horse"))), bad_password);
        assert_eq!(answer(version, Some(("bert", "right horse"))), bad_password);
        assert_eq!(answer(version, None), not_authorised);
        assert_eq!(answer(version, Some(("anna", "right horse"))), 0);
    }
    let output =
        try_mosquitto_pub(gateway.mqtt, &["-u", "anna", "-P", "wrong horse", "-q", "1", "-t", "t", "-m", "out"]);
    assert!(!output.status.success());
    mosquitto_pub(gateway.mqtt, &["-u", "anna", "-P", "right horse", "-q", "1", "-t", "t", "-m", "in"]);

    upstream.wait_for(1, PATIENCE);
    let data: Vec<_> = upstream.accepted().into_iter().map(|record| record.data).collect();
    assert_eq!(data, [b"in"]);
    let status = agent.status();
    assert_eq!(status["sources"]["devices"]["refused"]["credentials"], 7, "{status}");
    let told = agent.log() + &status.to_string();
    assert!(!told.contains("horse"), "a password is written down: {told}");
    assert!(told.contains("user or password is wrong"), "{told}");
}
