//! The main job with real programs only: mosquitto's clients publish, to mosquitto and to forebay's own listener, and boto3
//! reads back from kinesalite, from moto and from kinesis-local what arrived.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::support::daemon::PATIENCE;
use crate::support::gateway::CLOUD_STREAM;
use crate::support::{
    Forebay, Gateway, Kinesalite, Kinesis, KinesisLocal, Mosquitto, Moto, eventually, mosquitto_pub,
    mosquitto_pub_lines,
};

const VERSIONS: [&str; 2] = ["mqttv311", "mqttv5"];
const QUALITIES: [&str; 3] = ["0", "1", "2"];

/// Messages of one device.
const MESSAGES: u32 = 100;

const SHARDS: u16 = 3;

/// For everything to be read back, through Python and a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// What was published, by topic; all of it has to arrive.
type Owed = BTreeMap<String, Vec<Vec<u8>>>;

#[test]
fn what_devices_publish_arrives_in_kinesalite() {
    let server = Kinesalite::start();
    devices_to(Gateway::to(&server.endpoint()), &server.kinesis());
}

#[test]
fn what_devices_publish_arrives_in_moto() {
    let server = Moto::start();
    // Two requests at once may get the same sequence number from moto, and then one record takes the other's place.
    let one_by_one = "in-flight = 1".to_owned();
    devices_to(Gateway { destination: one_by_one, ..Gateway::to(&server.endpoint()) }, &server.kinesis());
}

#[test]
fn what_devices_publish_arrives_in_kinesis_local_in_cbor() {
    let server = KinesisLocal::start();
    let cbor = "encoding = \"cbor\"".to_owned();
    devices_to(Gateway { destination: cbor, ..Gateway::to(&server.endpoint()) }, &server.kinesis());
}

#[track_caller]
fn devices_to(gateway: Gateway, kinesis: &Kinesis) {
    kinesis.create_stream(CLOUD_STREAM, SHARDS);
    let broker = Mosquitto::start("");
    let plant = format!(
        r#"
        [sources.plant]
        type = "mqtt"
        broker = "{}"
        client-id = "gateway-7"
        topics = ["broker/#"]
        qos = 2
        stream = "telemetry"
        "#,
        broker.url(),
    );
    let gateway = Gateway { more: plant, ..gateway };
    let agent = Forebay::start(&gateway.configuration());
    eventually(PATIENCE, "the gateway has subscribed", || agent.status()["sources"]["plant"]["connections"] == 1);

    let mut owed = Owed::new();
    for (entry, port) in [("broker", broker.port()), ("listener", gateway.mqtt)] {
        publish_numbers(entry, port, &mut owed);
        publish_odd_ones(entry, port, &agent, &mut owed);
    }

    let count = owed.values().map(Vec::len).sum();
    let mut arrived = Owed::new();
    for record in kinesis.read(CLOUD_STREAM, count, LONG) {
        arrived.entry(record.partition_key).or_default().push(record.data);
    }
    assert_eq!(arrived.keys().collect::<Vec<_>>(), owed.keys().collect::<Vec<_>>());
    for (topic, data) in &owed {
        assert!(
            arrived[topic] == *data,
            "{topic} is not as it was published: {} of {}",
            arrived[topic].len(),
            data.len()
        );
    }
    let delivered = &agent.status()["destinations"]["cloud"];
    assert_eq!((&delivered["records"], &delivered["dead_letters"]), (&count.into(), &0.into()), "{delivered}");
}

/// A device for every version and quality of service, each with its own topic. Nothing goes wrong on the way here, so that
/// quality of service 0 is as good as the others.
#[track_caller]
fn publish_numbers(entry: &str, port: u16, owed: &mut Owed) {
    let numbers: Vec<String> = (1..=MESSAGES).map(|number| format!("message {number}")).collect();
    for version in VERSIONS {
        for qos in QUALITIES {
            let topic = format!("{entry}/{version}/{qos}");
            mosquitto_pub_lines(port, &["-V", version, "-q", qos, "-t", &topic], &numbers.join("\n"));
            owed.insert(topic, numbers.iter().map(|text| text.clone().into_bytes()).collect());
        }
    }
}

/// Payloads and topics that only survive where nothing takes them for text, or for ASCII.
#[track_caller]
fn publish_odd_ones(entry: &str, port: u16, agent: &Forebay, owed: &mut Owed) {
    let every_byte: Vec<u8> = (0..=255).cycle().take(1024).collect();
    let mut random = fastrand::Rng::with_seed(7);
    let large: Vec<u8> = (0..1_000_000).map(|_| random.u8(..)).collect();
    let file = agent.home().path().join("payload");
    let path = file.to_str().expect("a path of ours is UTF-8");

    for (version, qos) in [("mqttv311", "1"), ("mqttv5", "2")] {
        let topic = format!("{entry}/binary/{version}");
        for payload in [&every_byte, &large] {
            fs::write(&file, payload).expect("a temporary directory takes a file");
            mosquitto_pub(port, &["-V", version, "-q", qos, "-t", &topic, "-f", path]);
            owed.entry(topic.clone()).or_default().push(payload.clone());
        }
        mosquitto_pub(port, &["-V", version, "-q", qos, "-t", &topic, "-n"]);
        mosquitto_pub(port, &["-V", version, "-q", qos, "-t", &topic, "-m", "behind the empty one"]);
        owed.entry(topic).or_default().extend([b"".to_vec(), b"behind the empty one".to_vec()]);

        for name in ["Öfen/温度/℃", "with blanks and \"quotes\"", "{braces}/\\/'", "🚚/1", "/", "e\u{301}"] {
            let topic = format!("{entry}/{version}/{name}");
            mosquitto_pub(port, &["-V", version, "-q", qos, "-t", &topic, "-m", name]);
            owed.entry(topic).or_default().push(name.as_bytes().to_vec());
        }
    }
}
