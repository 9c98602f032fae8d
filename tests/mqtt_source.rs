//! The `mqtt` source with a real broker: what devices publish to it is stored, whatever happens in between. What is stored
//! is read through the running agent; that it reaches an upstream is shown elsewhere.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::process::Command;
use std::thread;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use rcgen::ExtendedKeyUsagePurpose;
use serde_json::Value;

use crate::support::certificates::Authority;
use crate::support::counterpart::program;
use crate::support::daemon::PATIENCE;
use crate::support::forebay::Home;
use crate::support::{Forebay, Mosquitto, Upstream, eventually, free_port, head, mosquitto_pub_lines};

/// A configuration with a source `plant` for `broker`.
fn configuration(broker: &str, source: &str) -> String {
    format!(
        r#"
        {}
        shards = 2
        [sources.plant]
        type = "mqtt"
        broker = "{broker}"
        client-id = "gateway-7"
        topics = ["plant/#"]
        stream = "telemetry"
        max-backoff = "200ms"
        {source}
        "#,
        head(),
    )
}

fn source_status(agent: &Forebay) -> Value {
    agent.status()["sources"]["plant"].clone()
}

#[track_caller]
fn wait_connected(agent: &Forebay) {
    eventually(PATIENCE, "the source is connected", || source_status(agent)["connections"] == 1);
}

#[track_caller]
fn wait_for_error(agent: &Forebay, part: &str) {
    let error = || source_status(agent)["last_error"]["message"].as_str().unwrap_or_default().to_owned();
    eventually(PATIENCE, &format!("the source tells: {part}"), || error().contains(part));
}

/// How many records the stream has.
fn stored_count(agent: &Forebay) -> u64 {
    agent.status()["streams"]["telemetry"]["next"].as_u64().expect("a sequence number") - 1
}

#[track_caller]
fn wait_stored(agent: &Forebay, count: u64) {
    eventually(PATIENCE, &format!("{count} records are stored"), || stored_count(agent) >= count);
}

/// Data of the records that are stored, by partition key, each only where it came first: a record may be stored twice.
fn stored(agent: &Forebay) -> HashMap<String, Vec<String>> {
    let output = agent.home().forebay(&["tail", "telemetry", "--json", "--config", "forebay.toml"]);
    assert!(output.status.success(), "tail: {}", String::from_utf8_lossy(&output.stderr));
    let mut stored: HashMap<String, Vec<String>> = HashMap::new();
    let mut seen = HashSet::new();
    for line in String::from_utf8(output.stdout).expect("JSON is text").lines() {
        let record: Value = serde_json::from_str(line).expect("every line is JSON");
        let data = BASE64_STANDARD.decode(record["data"].as_str().expect("base64")).expect("base64");
        let data = String::from_utf8(data).expect("these tests publish text");
        let key = record["partition_key"].as_str().expect("a key").to_owned();
        if seen.insert((key.clone(), data.clone())) {
            stored.entry(key).or_default().push(data);
        }
    }
    stored
}

fn numbers(range: std::ops::RangeInclusive<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn lines(range: std::ops::RangeInclusive<u32>) -> String {
    range.map(|number| format!("{number}\n")).collect()
}

#[test]
fn messages_of_every_version_and_quality_of_service_arrive_in_order() {
    let broker = Mosquitto::start("");
    let agent = Forebay::start(&configuration(&broker.url(), "qos = 2"));
    wait_connected(&agent);
    for version in ["311", "5"] {
        for qos in ["0", "1", "2"] {
            let topic = format!("plant/{version}/{qos}");
            mosquitto_pub_lines(broker.port(), &["-V", version, "-q", qos, "-t", &topic], &lines(1..=100));
        }
    }
    wait_stored(&agent, 600);
    let stored = stored(&agent);
    assert_eq!(stored.len(), 6);
    for (topic, data) in stored {
        assert_eq!(data, numbers(1..=100), "{topic}");
    }
    assert_eq!(source_status(&agent)["records"], 600);
}

#[test]
fn what_is_published_while_the_agent_or_the_broker_is_away_arrives() {
    for version in ["'3.1.1'", "5"] {
        arrives_though_both_were_away(version);
    }
}

fn arrives_though_both_were_away(version: &str) {
    let mut broker = Mosquitto::start("");
    let mut agent = Forebay::start(&configuration(&broker.url(), &format!("version = {version}")));
    wait_connected(&agent);
    let publish = |broker: &Mosquitto, range| {
        mosquitto_pub_lines(broker.port(), &["-q", "1", "-t", "plant/a"], &lines(range));
    };
    publish(&broker, 1..=100);
    assert!(agent.terminate().success());
    publish(&broker, 101..=200);
    broker.stop();
    agent.start_again();
    wait_for_error(&agent, "Connection refused");
    broker.start_again();
    wait_connected(&agent);
    publish(&broker, 201..=300);
    wait_stored(&agent, 300);
    assert_eq!(stored(&agent)["plant/a"], numbers(1..=300));
}

#[test]
fn what_a_version_5_publisher_says_about_a_message_is_kept_as_tags() {
    let broker = Mosquitto::start("");
    let agent = Forebay::start(&configuration(&broker.url(), "version = 5"));
    wait_connected(&agent);
    let said = [
        ["user-property", "unit", "C"].as_slice(),
        &["user-property", "unit", "F"],
        &["content-type", "text/plain"],
        &["response-topic", "plant/answers"],
        &["correlation-data", "request-7"],
    ];
    let mut arguments = vec!["-V", "5", "-q", "1", "-t", "plant/a", "-m", "21.5"];
    for property in said {
        arguments.extend(["-D", "publish"].iter().chain(property));
    }
    broker.publish(&arguments);
    broker.publish(&["-V", "311", "-q", "1", "-t", "plant/a", "-m", "22.5"]);
    wait_stored(&agent, 2);
    let output = agent.home().forebay(&["tail", "telemetry", "--json", "--config", "forebay.toml"]);
    let lines = String::from_utf8(output.stdout).expect("JSON is text");
    let mut records = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("every line is JSON"));
    let with = records.next().expect("the first record");
    let mut tags: Vec<(String, String)> = serde_json::from_value(with["tags"].clone()).expect("pairs");
    tags.sort();
    let expected = [
        ("content-type", "text/plain"),
        ("correlation-data", "request-7"),
        ("response-topic", "plant/answers"),
        ("unit", "C"),
        ("unit", "F"),
    ];
    assert_eq!(tags, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let without = records.next().expect("the second record");
    assert!(without["tags"].as_array().is_none_or(Vec::is_empty), "{without}");
}

#[test]
fn clients_of_a_group_share_what_is_published() {
    for version in ["'3.1.1'", "5"] {
        let broker = Mosquitto::start("max_inflight_messages 0");
        let one = configuration(&broker.url(), &format!("version = {version}"))
            .replace("topics = [\"plant/#\"]", "topics = [\"$share/gateways/plant/#\"]");
        let [one, other] = [one.clone(), one.replace("gateway-7", "gateway-8")].map(|configuration| {
            // Each has an API of its own.
            let (before, rest) = configuration.split_once("listen = \"127.0.0.1:").expect("an API");
            let (_, rest) = rest.split_once('"').expect("a port");
            let agent = Forebay::start(&format!("{before}listen = \"127.0.0.1:{}\"{rest}", free_port()));
            wait_connected(&agent);
            agent
        });
        // Connected is not yet subscribed: a message that comes out shows that both are.
        let probe = |agent: &Forebay| {
            eventually(PATIENCE, "it is subscribed", || {
                broker.publish(&["-q", "1", "-t", "plant/probe", "-m", "?"]);
                stored_count(agent) > 0
            });
        };
        probe(&one);
        probe(&other);
        mosquitto_pub_lines(broker.port(), &["-q", "1", "-t", "plant/a"], &lines(1..=1000));
        let shares = || [&one, &other].map(|agent| stored(agent).remove("plant/a").unwrap_or_default());
        eventually(PATIENCE, "everything is stored", || shares().iter().map(Vec::len).sum::<usize>() >= 1000);
        let [mut all, other] = shares();
        assert!(!all.is_empty() && !other.is_empty(), "{} and {}", all.len(), other.len());
        all.extend(other);
        all.sort_unstable_by_key(|number| number.parse::<u32>().expect("a number"));
        assert!(all == numbers(1..=1000), "each message is stored once, by one of them");
    }
}

#[test]
fn another_broker_takes_over_and_the_first_is_come_back_to() {
    let [mut first, mut second] = [Mosquitto::start(""), Mosquitto::start("")];
    let both = format!("brokers = [\"{}\", \"{}\"]\nversion = 5", first.url(), second.url());
    let configuration = configuration("-", &both).replace("broker = \"-\"", "");
    let agent = Forebay::start(&configuration);
    wait_connected(&agent);
    let publish = |broker: &Mosquitto, number: u32| {
        // Until it is known that we are subscribed there, nobody keeps it for us.
        eventually(PATIENCE, "the message is stored", || {
            broker.publish(&["-q", "1", "-t", "plant/a", "-m", &number.to_string()]);
            stored(&agent).get("plant/a").is_some_and(|stored| stored.contains(&number.to_string()))
        });
    };
    publish(&first, 1);
    first.kill9();
    publish(&second, 2);
    first.start_again();
    publish(&second, 3);
    second.kill9();
    publish(&first, 4);
    assert_eq!(stored(&agent)["plant/a"], numbers(1..=4));
    let log = agent.log();
    assert!(log.contains(&first.url()) && log.contains(&second.url()), "{log}");
}

#[test]
fn an_agent_killed_at_random_moments_loses_nothing_and_keeps_order() {
    const EACH: u32 = 20_000;
    const KILLS: u32 = 20;
    for (qos, version) in [("1", "'3.1.1'"), ("2", "'3.1.1'"), ("1", "5"), ("2", "5")] {
        let broker = Mosquitto::start("");
        let mut agent = Forebay::start(&configuration(&broker.url(), &format!("qos = {qos}\nversion = {version}")));
        wait_connected(&agent);
        let port = broker.port();
        thread::scope(|scope| {
            for device in ["a", "b"] {
                let topic = format!("plant/{device}");
                scope.spawn(move || mosquitto_pub_lines(port, &["-q", qos, "-t", &topic], &lines(1..=EACH)));
            }
            for _ in 0..KILLS {
                let more = (stored_count(&agent) + fastrand::u64(1..4000)).min(u64::from(EACH));
                wait_stored(&agent, more);
                agent.kill9();
                agent.start_again();
            }
        });
        // A release that the broker repeats for ever, because it was never answered, would stop everything behind it.
        mosquitto_pub_lines(port, &["-q", qos, "-t", "plant/fresh"], "1\n");
        wait_stored(&agent, u64::from(2 * EACH) + 1);
        eventually(PATIENCE, "the last message is stored", || stored(&agent).contains_key("plant/fresh"));
        let stored = stored(&agent);
        for key in ["plant/a", "plant/b"] {
            assert!(
                stored[key] == numbers(1..=EACH),
                "{key} is not complete, or not in order, at QoS {qos} of {version}"
            );
        }
    }
}

#[test]
fn a_20_mb_message_is_counted_and_the_next_one_passes() {
    let broker = Mosquitto::start("");
    let agent = Forebay::start(&configuration(&broker.url(), ""));
    wait_connected(&agent);
    let large = broker.dir().join("large");
    fs::write(&large, vec![b'x'; 20_000_000]).expect("a temporary directory takes a file");
    broker.publish(&["-q", "1", "-t", "plant/a", "-f", large.to_str().expect("a path of ours")]);
    broker.publish(&["-q", "1", "-t", "plant/a", "-m", "small"]);
    wait_stored(&agent, 1);
    assert_eq!(stored(&agent)["plant/a"], ["small"]);
    assert_eq!(source_status(&agent)["refused"]["oversize"], 1);
    let log = agent.log();
    assert!(log.contains("plant/a") && log.contains("20000000"), "{log}");
}

#[test]
fn a_record_that_cannot_fill_the_template_keeps_its_topic_for_a_key() {
    let broker = Mosquitto::start("");
    let agent = Forebay::start(&configuration(&broker.url(), r#"partition-key = "{json:/device}""#));
    wait_connected(&agent);
    let long_topic = format!("plant/{}", "x".repeat(300));
    broker.publish(&["-q", "1", "-t", "plant/a", "-m", r#"{"device":"d-1"}"#]);
    broker.publish(&["-q", "1", "-t", "plant/a", "-m", "21.5"]);
    broker.publish(&["-q", "1", "-t", &long_topic, "-m", "22.5"]);
    wait_stored(&agent, 3);
    let stored = stored(&agent);
    assert_eq!(stored["d-1"], [r#"{"device":"d-1"}"#]);
    assert_eq!(stored["plant/a"], ["21.5"]);
    let shortened = stored.keys().find(|key| key.len() == 256).expect("a shortened key");
    assert!(long_topic.starts_with(&shortened[..223]), "{shortened}");
    let refused = &source_status(&agent)["refused"];
    assert_eq!((&refused["key-fallback"], &refused["key-shortened"]), (&Value::from(2), &Value::from(1)));
}

#[test]
fn wrong_credentials_are_told_and_right_ones_let_in() {
    let passwords = tempfile::tempdir().expect("a temporary directory can be made");
    let file = passwords.path().join("passwords");
    run(Command::new(program("mosquitto_passwd")).args(["-b", "-c"]).arg(&file).args(["gateway", "right"]));
    let broker = Mosquitto::start(&format!("allow_anonymous false\npassword_file {}", file.display()));
    let source = "user = \"gateway\"\npassword-env = \"PLANT_PASSWORD\"";
    let home = Home::new(&configuration(&broker.url(), source));

    let mut agent = Forebay::start_in(home, &[("PLANT_PASSWORD", "wrong")]);
    wait_for_error(&agent, "not authorized");
    assert_eq!(source_status(&agent)["connections"], 0);
    assert!(!agent.log().contains("wrong"), "the password is in the log");
    agent.terminate();

    let agent = Forebay::start_with(&configuration(&broker.url(), source), &[("PLANT_PASSWORD", "right")]);
    wait_connected(&agent);
    broker.publish(&["-u", "gateway", "-P", "right", "-q", "1", "-t", "plant/a", "-m", "in"]);
    wait_stored(&agent, 1);
}

#[test]
fn tls_is_spoken_with_who_is_trusted_and_with_nobody_else() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let ours = Authority::new("plant authority", dir.path());
    Authority::new("some other authority", dir.path());
    ours.issue("broker", "127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth, dir.path());
    ours.issue("gateway", "gateway-7", ExtendedKeyUsagePurpose::ClientAuth, dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let port = free_port();
    let broker = Mosquitto::start(&format!(
        "listener {port} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true",
        file("plant authority.crt"),
        file("broker.crt"),
        file("broker.key"),
    ));
    let url = format!("mqtts://127.0.0.1:{port}");
    let source = |ca: &str, with_certificate: bool| {
        let own = if with_certificate {
            format!("client-cert-file = '{}'\nclient-key-file = '{}'", file("gateway.crt"), file("gateway.key"))
        } else {
            String::new()
        };
        configuration(&url, &format!("ca-file = '{}'\n{own}", file(ca)))
    };

    let agent = Forebay::start(&source("some other authority.crt", true));
    wait_for_error(&agent, "UnknownIssuer");
    drop(agent);
    let agent = Forebay::start(&source("plant authority.crt", false));
    wait_for_error(&agent, "CertificateRequired");
    drop(agent);
    let agent = Forebay::start(&source("plant authority.crt", true));
    wait_connected(&agent);
    mosquitto_pub_lines(broker.port(), &["-q", "1", "-t", "plant/a"], &lines(1..=1000));
    wait_stored(&agent, 1000);
    assert_eq!(stored(&agent)["plant/a"], numbers(1..=1000));
}

#[test]
fn a_broker_that_falls_silent_is_left_and_found_again() {
    let broker = Mosquitto::start("");
    let agent = Forebay::start(&configuration(&broker.url(), "keep-alive = \"1s\""));
    wait_connected(&agent);
    broker.pause();
    wait_for_error(&agent, "nothing moved on the connection");
    broker.resume();
    wait_connected(&agent);
    broker.publish(&["-q", "1", "-t", "plant/a", "-m", "after"]);
    wait_stored(&agent, 1);
}

#[test]
fn a_full_stream_holds_the_broker_back_without_losing_the_connection() {
    let (broker, upstream) = (Mosquitto::start("max_inflight_messages 0"), Upstream::start());
    upstream.link_down();
    let configuration = configuration(&broker.url(), "keep-alive = \"2s\"")
        .replace("rate-limit = \"off\"", "rate-limit = \"off\"\nquota = \"1MiB\"\ncompression = \"none\"");
    let destination = format!(
        "[destinations.cloud]\ntype = \"kinesis\"\nfrom = \"telemetry\"\nstream = \"plant-telemetry\"\n\
         region = \"eu-west-1\"\nendpoint = \"{}\"\n",
        upstream.endpoint(),
    );
    let agent = Forebay::start(&(configuration + &destination));
    wait_connected(&agent);
    let connections = || agent.log().matches("connected to broker").count();
    let rest = "x".repeat(1000);
    // More than the quota. They have one key, so each one takes a round trip later.
    let messages: String = (1..=2000).map(|number| format!("{number:05} {rest}\n")).collect();
    mosquitto_pub_lines(broker.port(), &["-q", "1", "-t", "plant/a"], &messages);
    eventually(PATIENCE, "the stream is full", || !agent.status()["streams"]["telemetry"]["stopped"].is_null());
    // Several times the connection's keep-alive.
    let uptime = || agent.status()["uptime_seconds"].as_u64().expect("a number");
    let later = uptime() + 9;
    eventually(PATIENCE, "nine seconds pass", || uptime() >= later);
    assert_eq!((connections(), &source_status(&agent)["connections"]), (1, &Value::from(1)));

    upstream.link_up();
    upstream.wait_for(2000, 2 * PATIENCE);
    let mut arrived: Vec<_> =
        upstream.accepted().iter().map(|record| String::from_utf8_lossy(&record.data[..5]).into_owned()).collect();
    arrived.dedup();
    assert!(arrived == (1..=2000).map(|number| format!("{number:05}")).collect::<Vec<_>>(), "{arrived:?}");
    assert_eq!(connections(), 1);
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().expect("it can be started");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
