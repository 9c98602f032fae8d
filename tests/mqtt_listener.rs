//! The `mqtt-broker` source with real clients: who is let in by TLS, certificate, password and WebSocket, and to which topics.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use rcgen::ExtendedKeyUsagePurpose;
use serde_json::Value;

use crate::support::certificates::Authority;
use crate::support::counterpart::program;
use crate::support::daemon::{PATIENCE, command};
use crate::support::forebay::Home;
use crate::support::mosquitto::{mosquitto_pub, try_mosquitto_pub};
use crate::support::{Device, Forebay, eventually, free_port, head_with_devices};

/// A configuration with a source `devices` on two ports.
struct Listener {
    mqtt: u16,
    websocket: u16,
}

impl Listener {
    fn new() -> Self {
        Self { mqtt: free_port(), websocket: free_port() }
    }

    fn configuration(&self, source: &str) -> String {
        format!(
            r#"
            {}
            websocket-listen = "127.0.0.1:{}"
            {source}
            "#,
            head_with_devices(self.mqtt),
            self.websocket,
        )
    }

    fn start(&self, source: &str) -> Forebay {
        Forebay::start(&self.configuration(source))
    }
}

/// Names and values.
type Tags = Vec<(String, String)>;

/// What is stored: key, data and tags, as they come.
fn stored(agent: &Forebay) -> Vec<(String, String, Tags)> {
    let output = agent.home().forebay(&["tail", "telemetry", "--json", "--config", "forebay.toml"]);
    assert!(output.status.success(), "tail: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("JSON is text");
    let record = |line: &str| {
        let record: Value = serde_json::from_str(line).expect("every line is JSON");
        let data = BASE64_STANDARD.decode(record["data"].as_str().expect("base64")).expect("base64");
        let tags = serde_json::from_value(record["tags"].clone()).unwrap_or_default();
        let key = record["partition_key"].as_str().expect("a key").to_owned();
        (key, String::from_utf8(data).expect("these tests publish text"), tags)
    };
    lines.lines().map(record).collect()
}

fn data(agent: &Forebay) -> Vec<String> {
    stored(agent).into_iter().map(|(_, data, _)| data).collect()
}

fn refused(agent: &Forebay, kind: &str) -> u64 {
    agent.status()["sources"]["devices"]["refused"][kind].as_u64().unwrap_or(0)
}

#[track_caller]
fn is_refused(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(!output.status.success() && said.contains(why), "{}: {said}", output.status);
}

/// An authority with a certificate for the gateway and one for a device, and another authority with one, too.
fn certificates(dir: &Path) -> impl Fn(&str) -> String {
    let (ours, other) = (Authority::new("ours", dir), Authority::new("other", dir));
    ours.issue("gateway", "127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth, dir);
    ours.issue("device", "pump-3", ExtendedKeyUsagePurpose::ClientAuth, dir);
    other.issue("stranger", "pump-3", ExtendedKeyUsagePurpose::ClientAuth, dir);
    let dir = dir.to_owned();
    move |name| dir.join(name).display().to_string()
}

#[test]
fn devices_are_known_by_their_certificates() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = certificates(dir.path());
    let listener = Listener::new();
    let agent = listener.start(&format!(
        "partition-key = '{{user}}'\ncert-file = '{}'\nkey-file = '{}'\nclient-ca-file = '{}'\nuser-from-certificate = true\n\
         rules = [{{ users = ['pump-*'], publish = ['plant/{{user}}/#'] }}]",
        file("gateway.crt"),
        file("gateway.key"),
        file("ours.crt"),
    ));
    let (authority, topic) = (file("ours.crt"), "plant/pump-3/t");
    let publish = |who: &str, topic: &str, text: &str| {
        let (certificate, key) = (file(&format!("{who}.crt")), file(&format!("{who}.key")));
        let certificate = ["--cert", &certificate, "--key", &key];
        let certificate = if who.is_empty() { &[][..] } else { &certificate };
        let message = ["--cafile", &authority, "-q", "1", "-t", topic, "-m", text];
        try_mosquitto_pub(listener.mqtt, &[certificate, &message].concat())
    };
    for version in ["mine", "mine again"] {
        let output = publish("device", topic, version);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    // Acknowledged, as version 3.1.1 has nothing else, and counted.
    assert!(publish("device", "plant/pump-4/t", "not mine").status.success());
    assert!(!publish("", topic, "nobody's").status.success());
    assert!(!publish("stranger", topic, "a stranger's").status.success());
    assert!(!try_mosquitto_pub(listener.mqtt, &["-t", topic, "-m", "in the clear"]).status.success());
    let expected = ["mine", "mine again"].map(|text| ("pump-3".to_owned(), text.to_owned(), Vec::new()));
    assert_eq!(stored(&agent), expected);
    assert_eq!(refused(&agent, "not-allowed"), 1);
    eventually(PATIENCE, "three without a right certificate are counted", || refused(&agent, "tls") == 3);
    assert!(agent.log().contains("plant/pump-4/t"), "{}", agent.log());

    // A renewed certificate is used without a restart; here, of another authority.
    let other = Authority::new("next", dir.path());
    other.issue("gateway", "127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth, dir.path());
    is_refused(&publish("device", topic, "to a stranger"), "tls error");
    let next = file("next.crt");
    let (certificate, key) = (file("device.crt"), file("device.key"));
    let renewed = ["--cafile", &next, "--cert", &certificate, "--key", &key, "-q", "1", "-t", topic, "-m", "renewed"];
    mosquitto_pub(listener.mqtt, &renewed);
    assert_eq!(data(&agent).last().expect("a record"), "renewed");
}

#[test]
fn passwords_of_either_program_are_taken_and_wrong_ones_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = dir.path().join("devices");
    run(Command::new(program("mosquitto_passwd")).args(["-b", "-c"]).arg(&file).args(["anna", "secret"]));
    let listener = Listener::new();
    let home = Home::new(&listener.configuration(&format!("password-file = '{}'", file.display())));
    let agent = Forebay::start_in(home, &[]);
    let publish = |user: &str, password: &str, version: &str| {
        let arguments = ["-V", version, "-u", user, "-P", password, "-q", "1", "-t", "t", "-m", user];
        try_mosquitto_pub(listener.mqtt, &arguments)
    };
    assert!(publish("anna", "secret", "311").status.success());
    assert!(publish("anna", "secret", "5").status.success());
    is_refused(&publish("anna", "Secret", "311"), "bad user name or password");
    is_refused(&publish("anna", "Secret", "5"), "bad user name or password");
    is_refused(&publish("bob", "secret", "311"), "bad user name or password");

    let line = mqtt_password(&agent, "bob", "hunter2");
    assert!(line.starts_with("bob:$7$") && !line.contains("hunter2"), "{line}");
    let mut lines = fs::read_to_string(&file).expect("the file is there");
    lines.push_str(&line);
    fs::write(&file, &lines).expect("a temporary directory takes a file");
    assert!(publish("bob", "hunter2", "311").status.success(), "the file was read again");
    is_refused(&publish("bob", "secret", "311"), "bad user name or password");
    assert_eq!(data(&agent), ["anna", "anna", "bob"]);
    assert_eq!(refused(&agent, "credentials"), 4);
    let log = agent.log();
    assert!(!log.contains("Secret") && !log.contains("hunter2"), "{log}");

    // And mosquitto takes the lines that we make.
    let broker = crate::support::Mosquitto::start(&format!("allow_anonymous false\npassword_file {}", file.display()));
    broker.publish(&["-u", "bob", "-P", "hunter2", "-t", "t", "-m", "x"]);
}

#[test]
fn browsers_and_their_like_publish_over_websocket() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = certificates(dir.path());
    for (secure, version) in [(false, 3), (false, 5), (true, 5)] {
        let listener = Listener::new();
        let tls = format!("cert-file = '{}'\nkey-file = '{}'", file("gateway.crt"), file("gateway.key"));
        let source = format!("websocket-path = '/mqtt'\n{}", if secure { &*tls } else { "" });
        let agent = listener.start(&source);
        let authority = if secure { file("ours.crt") } else { String::new() };
        let publish = |path: &str| {
            let (port, version) = (listener.websocket.to_string(), version.to_string());
            let mut run = command(program("paho-python"));
            run.args(["-c", PAHO, &port, path, &version, &authority]).stdin(Stdio::null());
            run.output().expect("python can be started")
        };
        let output = publish("/mqtt");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let stored = stored(&agent);
        let data: Vec<_> = stored.iter().map(|(_, data, _)| data.parse::<u32>().expect("a number")).collect();
        assert_eq!(data, (0..300).collect::<Vec<_>>());
        let tags = if version == 5 { vec![("unit".to_owned(), "C".to_owned())] } else { Vec::new() };
        assert!(stored.iter().all(|(key, _, found)| key == "web/a" && *found == tags), "{:?}", stored[0]);
        assert!(!publish("/elsewhere").status.success());
        assert_eq!(refused(&agent, "websocket"), 1);
        assert_eq!(agent.status()["sources"]["devices"]["connections"], 0);
    }
}

/// Publishes 300 messages of all qualities of service through the gateway's WebSocket listener, and waits for their
/// acknowledgements.
const PAHO: &str = r#"
import sys
import paho.mqtt.client as mqtt
from paho.mqtt.properties import Properties
from paho.mqtt.packettypes import PacketTypes
port, path, version, authority = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
protocol = mqtt.MQTTv5 if version == 5 else mqtt.MQTTv311
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="web", protocol=protocol, transport="websockets")
client.ws_set_options(path=path)
if authority:
    client.tls_set(ca_certs=authority)
said = None
if version == 5:
    said = Properties(PacketTypes.PUBLISH)
    said.UserProperty = ("unit", "C")
client.connect("127.0.0.1", port)
client.loop_start()
published = [client.publish("web/a", str(n), qos=n % 2 + 1, properties=said) for n in range(300)]
for message in published:
    message.wait_for_publish(30)
    assert message.is_published()
client.disconnect()
client.loop_stop()
"#;

#[test]
fn other_things_than_mqtt_on_a_tls_port_harm_nobody() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = certificates(dir.path());
    let listener = Listener::new();
    let agent = listener.start(&format!("cert-file = '{}'\nkey-file = '{}'", file("gateway.crt"), file("gateway.key")));
    for (nth, bytes) in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 100], b"\x16\x03\x01\xff\xff\x01"].into_iter().enumerate()
    {
        for port in [listener.mqtt, listener.websocket] {
            let mut device = Device::silent(port, crate::support::device::Version::V311).expect("it listens");
            device.send(bytes).expect("it is open");
            if nth < 2 {
                device.receive_all();
            }
        }
    }
    let authority = file("ours.crt");
    mosquitto_pub(listener.mqtt, &["--cafile", &authority, "-q", "1", "-t", "t", "-m", "fine"]);
    assert_eq!(data(&agent), ["fine"]);
    eventually(PATIENCE, "all are counted", || refused(&agent, "tls") == 6);
}

/// The line that `forebay mqtt-password` makes.
fn mqtt_password(agent: &Forebay, user: &str, password: &str) -> String {
    let mut make = command(env!("CARGO_BIN_EXE_forebay"));
    make.args(["mqtt-password", user]).current_dir(agent.home().path());
    let mut making = make.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("our own program can be started");
    let mut input = making.stdin.take().expect("its input is a pipe");
    writeln!(input, "{password}").expect("it reads");
    drop(input);
    let output = making.wait_with_output().expect("it can be waited for");
    assert!(output.status.success(), "{}", output.status);
    String::from_utf8(output.stdout).expect("a line is text")
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().expect("it can be started");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
