//! Endpoints that answer anything but what Kinesis answers, or not at all: delivery waits, says why, and goes on by itself.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::PATIENCE;
use crate::support::device::Version;
use crate::support::{Device, Forebay, Gateway, Reply, Upstream, eventually};

fn cloud(agent: &Forebay) -> Value {
    agent.status()["destinations"]["cloud"].clone()
}

/// The delivery says that it cannot deliver, of which kind the trouble is, and in which words.
#[track_caller]
fn wait_for_trouble(agent: &Forebay, kind: &str, words: &str) {
    eventually(PATIENCE, &format!("delivery tells: {kind}, {words}"), || {
        let cloud = cloud(agent);
        let error = cloud["last_error"]["message"].as_str().unwrap_or_default().to_lowercase();
        cloud["failed_requests"][kind].as_u64() >= Some(1) && error.contains(&words.to_lowercase())
    });
}

fn gateway(endpoint: &str) -> Gateway {
    Gateway { destination: "max-backoff = \"200ms\"".to_owned(), ..Gateway::to(endpoint) }
}

#[test]
fn answers_that_are_none_delay_records_and_lose_none() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream.endpoint());
    let agent = Forebay::start(&gateway.configuration());
    let mut device = Device::connect(gateway.mqtt, Version::V311, "device");
    let mut owed = Vec::new();
    for (reply, kind, words) in [
        (Reply::Html { status: 200 }, "endpoint-failed", "200"),
        (Reply::Html { status: 502 }, "endpoint-failed", "502"),
        (Reply::Html { status: 403 }, "endpoint-failed", "403"),
        (Reply::Empty, "endpoint-failed", ""),
        (Reply::Close, "disconnected", ""),
        (Reply::Reset, "disconnected", ""),
        (Reply::server_error(), "endpoint-failed", "InternalFailure"),
        (Reply::throttle_all(), "throttled", "ProvisionedThroughputExceeded"),
        (Reply::unauthorised(), "credentials-refused", "UnrecognizedClient"),
        (Reply::no_such_stream(), "misconfigured", "ResourceNotFound"),
    ] {
        let asked = upstream.arrived().len();
        upstream.otherwise(move |_| reply.clone());
        for topic in ["plant/a", "plant/b"] {
            let text = format!("{} {kind} {words}", owed.len());
            device.publish(topic, text.as_bytes());
            owed.push(text);
        }
        eventually(PATIENCE, "the endpoint was asked more than once", || upstream.arrived().len() >= asked + 2);
        wait_for_trouble(&agent, kind, words);
        assert_eq!(agent.status()["healthy"], true, "what happens far away is no illness of the agent's");
        upstream.behave();
        upstream.wait_for(owed.len() as u64, PATIENCE);
    }
    let mut arrived: Vec<_> = upstream.accepted().into_iter().map(|record| record.data).collect();
    arrived.sort();
    owed.sort();
    assert!(arrived.iter().map(Vec::as_slice).eq(owed.iter().map(String::as_bytes)), "{arrived:?}");
    eventually(PATIENCE, "the trouble is over", || cloud(&agent)["down"].is_null());
    assert_eq!(cloud(&agent)["dead_letters"], 0);
}

#[test]
fn an_endpoint_that_falls_silent_is_asked_again() {
    let upstream = Upstream::start();
    upstream.script([Reply::Hang]);
    let gateway = Gateway {
        destination: "max-backoff = \"200ms\"\nrequest-timeout = \"1s\"".to_owned(),
        ..Gateway::to(&upstream.endpoint())
    };
    let agent = Forebay::start(&gateway.configuration());
    Device::connect(gateway.mqtt, Version::V311, "device").publish("plant/a", b"patience");
    upstream.wait_for(1, PATIENCE);
    wait_for_trouble(&agent, "timed-out", "no answer in time");
}

#[test]
fn what_is_no_web_server_at_all_or_nowhere_to_be_found_is_told() {
    let garbage = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = garbage.local_addr().expect("its address");
    thread::spawn(move || {
        for connection in garbage.incoming().map_while(Result::ok) {
            answer_with_garbage(connection);
        }
    });
    for (endpoint, kind, words) in [
        (format!("http://{address}"), "endpoint-failed", ""),
        (format!("https://{address}"), "tls", ""),
        ("http://127.0.0.1:1".to_owned(), "refused", "refused"),
        ("http://gateway.invalid:4568".to_owned(), "dns", "does not resolve"),
    ] {
        let upstream = Upstream::start();
        let gateway = gateway(&endpoint);
        let mut agent = Forebay::start(&gateway.configuration());
        Device::connect(gateway.mqtt, Version::V5, "device").publish("plant/a", endpoint.as_bytes());
        wait_for_trouble(&agent, kind, words);
        // What might be over in a moment is told a second later.
        eventually(PATIENCE, "the log tells of it", || agent.log().contains("destination does not take records"));
        assert!(agent.terminate().success());
        // With the right endpoint, what waited arrives.
        let right = Gateway { endpoint: upstream.endpoint(), ..gateway };
        agent.home().configure(&right.configuration());
        agent.start_again();
        upstream.wait_for(1, PATIENCE);
        assert_eq!(upstream.accepted()[0].data, endpoint.as_bytes());
    }
}

fn answer_with_garbage(mut connection: TcpStream) {
    // Whatever becomes of it, the next one gets the same.
    let _ = connection.set_read_timeout(Some(Duration::from_secs(1)));
    let _ = connection.read(&mut [0; 1024]);
    let _ = connection.write_all(b"\x00\x01\x02 220 mail.example ESMTP\r\n");
}
