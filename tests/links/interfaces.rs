//! An interface comes up, in a network of the test's own (which takes root): whoever waits is tried at once.

use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::PATIENCE;
use crate::support::device::Version;
use crate::support::forebay::Home;
use crate::support::{Device, Forebay, Gateway, Network, Reply, Upstream, eventually};

/// Longer than this the next attempt is to be away, and sooner it is to come.
const AWAY: Duration = Duration::from_secs(8);
const SOON: Duration = Duration::from_secs(4);

#[test]
fn an_interface_that_comes_up_ends_a_long_wait() {
    let network = Network::new();
    network.inside(|| {
        let upstream = Upstream::start();
        upstream.otherwise(|_| Reply::no_such_stream());
        let gateway = Gateway {
            destination: "max-backoff = \"1h\"".to_owned(),
            data_dir: network.dir().join("data").display().to_string(),
            ..Gateway::to(&upstream.endpoint())
        };
        let home = Home::new(&gateway.configuration()).through(&network.enter());
        let agent = Forebay::start_in(home, &[]);
        Device::connect(gateway.mqtt, Version::V311, "device").publish("plant/a", b"patience");
        let down = || -> Value { agent.status()["destinations"]["cloud"]["down"].clone() };
        eventually(Duration::from_secs(300), "the next attempt is far away", || {
            down()["next_attempt_seconds"].as_f64() > Some(AWAY.as_secs_f64())
        });
        assert_eq!(down()["kind"], "misconfigured");
        let asked = upstream.arrived().len();
        network.interface_down();
        network.interface_up();
        eventually(SOON, "it is tried again", || upstream.arrived().len() > asked);
        upstream.behave();
        network.interface_down();
        network.interface_up();
        upstream.wait_for(1, PATIENCE);
    });
}
