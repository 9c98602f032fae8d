//! Mosquitto and its clients.

use std::thread;

use crate::support::mosquitto::{mosquitto_sub, try_mosquitto_pub};
use crate::support::{Mosquitto, mosquitto_pub_lines};

#[test]
fn a_subscriber_gets_what_was_published_at_every_quality_of_service() {
    let broker = Mosquitto::start("");
    for (version, qos) in [("311", "0"), ("311", "1"), ("311", "2"), ("5", "0"), ("5", "1"), ("5", "2")] {
        let topic = format!("plant/{version}/{qos}");
        // Retained, so that it makes no difference who is first.
        broker.publish(&["-V", version, "-q", qos, "-t", &topic, "-m", "21.5", "-r"]);
        let lines = mosquitto_sub(broker.port(), &["-t", &topic, "-C", "1", "-W", "10", "-v"]);
        assert_eq!(lines, [format!("{topic} 21.5")]);
    }
}

#[test]
fn a_session_and_its_messages_outlast_a_restart_of_the_broker() {
    let mut broker = Mosquitto::start("");
    let session = ["-i", "gateway", "-c", "-q", "1", "-t", "plant/#"];
    mosquitto_sub(broker.port(), &[&session[..], &["-E"]].concat());

    mosquitto_pub_lines(broker.port(), &["-q", "1", "-t", "plant/a"], "one\ntwo\nthree\n");
    broker.stop();
    broker.start_again();

    let lines = mosquitto_sub(broker.port(), &[&session[..], &["-C", "3", "-W", "10"]].concat());
    assert_eq!(lines, ["one", "two", "three"]);
}

#[test]
fn a_broker_that_wants_a_password_refuses_without() {
    let broker = Mosquitto::start("allow_anonymous false");
    let refused = try_mosquitto_pub(broker.port(), &["-t", "a", "-m", "b"]);
    assert!(!refused.status.success());
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("not authorised"), "{told}");
}

#[test]
fn several_brokers_run_side_by_side() {
    let one_broker = |number: usize| {
        let broker = Mosquitto::start("");
        let message = number.to_string();
        broker.publish(&["-q", "1", "-r", "-t", "number", "-m", &message]);
        assert_eq!(mosquitto_sub(broker.port(), &["-t", "number", "-C", "1", "-W", "10"]), [message]);
    };
    thread::scope(|scope| {
        for number in 0..4 {
            scope.spawn(move || one_broker(number));
        }
    });
}
