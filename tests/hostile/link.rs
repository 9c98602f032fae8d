//! Conditions of the link: a real Kinesis server behind a proxy, and the gateway in a network of its own.

use std::time::Duration;

use super::trial::{Passes, Scene, Sent, Tells, Trial, both_ways};
use crate::support::forebay::Home;
use crate::support::gateway::CLOUD_STREAM;
use crate::support::kpl::consumed;
use crate::support::weather::Trouble;
use crate::support::{Forebay, Kinesalite, Kinesis, Network, Proxy, Weather};

/// What the gateway calls the endpoint.
const NAME: &str = "kinesis.example";

/// The way from a gateway to its endpoint.
struct Link {
    network: Network,
    proxy: Proxy,
    kinesalite: Kinesalite,
}

/// What becomes of it for a while.
struct Condition<'a, B, E> {
    link: &'a Link,
    begin: B,
    end: E,
}

impl Link {
    #[track_caller]
    fn new() -> Self {
        let network = Network::new();
        network.name(NAME);
        let kinesalite = Kinesalite::start();
        kinesalite.kinesis().create_stream(CLOUD_STREAM, 2);
        let proxy = Proxy::start(network.outside(), kinesalite.port());
        Self { network, proxy, kinesalite }
    }

    /// Tries what `begin` makes of it until `end` mends it.
    #[track_caller]
    fn tried(&self, trial: Trial, begin: impl Fn(&Self) + Send, end: impl Fn(&Self) + Send) {
        let mut scene = Condition { link: self, begin, end };
        self.network.inside(|| trial.run(&mut scene));
    }
}

impl<B: Fn(&Link), E: Fn(&Link)> Scene for Condition<'_, B, E> {
    fn endpoint(&self) -> String {
        format!("http://{NAME}:{}", self.link.proxy.address().port())
    }

    fn data_dir(&self) -> String {
        self.link.network.dir().join("data").display().to_string()
    }

    fn home(&self, configuration: &str) -> Home {
        Home::new(configuration).through(&self.link.network.enter())
    }

    fn begin(&mut self, _: &Forebay) {
        (self.begin)(self.link);
    }

    fn end(&mut self, _: &Forebay) {
        (self.end)(self.link);
    }

    /// Kinesalite takes it, but what it has then cannot be read in JSON.
    fn knows_cbor(&self) -> bool {
        false
    }

    /// Asked past the proxy.
    fn taken(&self) -> Vec<(String, Vec<u8>)> {
        let address = (self.link.network.outside(), self.link.kinesalite.port());
        let read = Kinesis::at(&format!("http://{}:{}", address.0, address.1)).read(CLOUD_STREAM, 0, Duration::ZERO);
        read.into_iter().flat_map(|record| consumed(record.partition_key, record.data, &record.range)).collect()
    }
}

#[track_caller]
fn in_weather(trial: Trial, weather: &Weather) {
    Link::new().tried(trial, |link| link.proxy.set(weather.clone()), |link| link.proxy.set(Weather::fine()));
}

#[track_caller]
fn in_trouble(sent: Sent, trouble: Trouble, kind: &'static str) {
    in_weather(Trial::new(sent, Tells::Kind(kind), Passes::Nothing), &Weather::with(trouble));
}

#[test]
fn two_seconds_of_latency() {
    let weather = Weather { delay: Duration::from_secs(1), ..Weather::fine() };
    in_weather(Trial::new(Sent::Alone, Tells::Nothing, Passes::Some).with_patience(), &weather);
}

#[test]
fn a_fifth_of_all_packets_lost() {
    let weather = Weather { loss: 0.2, ..Weather::fine() };
    in_weather(Trial::new(Sent::Alone, Tells::Nothing, Passes::Some).with_patience(), &weather);
}

fn twenty_kilobits_a_second(sent: Sent) {
    let weather = Weather { bits_per_second: Some(20_000), ..Weather::fine() };
    in_weather(Trial::new(sent, Tells::Nothing, Passes::Some).with_patience(), &weather);
}

/// As before, by the kernel, on the gateway's own interface: what it sends piles up in its own queue.
#[test]
fn twenty_kilobits_a_second_on_the_interface() {
    let begin = |link: &Link| link.network.shape("tbf rate 20kbit burst 2kb latency 10s");
    let trial = Trial::new(Sent::Alone, Tells::Nothing, Passes::Some).with_patience();
    Link::new().tried(trial, begin, |link| link.network.unshape());
}

/// All of it together, so that requests time out.
fn a_thin_slow_and_lossy_link(sent: Sent) {
    let weather =
        Weather { delay: Duration::from_millis(500), bits_per_second: Some(50_000), loss: 0.2, trouble: None };
    in_weather(Trial::new(sent, Tells::Nothing, Passes::Some), &weather);
}

#[test]
fn connections_reset() {
    in_trouble(Sent::Alone, Trouble::Resets, "disconnected");
}

fn resets_in_the_middle_of_answers(sent: Sent) {
    in_trouble(sent, Trouble::ResetsInAnswers(80), "disconnected");
}

#[test]
fn answers_that_end_after_their_head() {
    in_trouble(Sent::Alone, Trouble::HangsAfterHead, "timed-out");
}

#[test]
fn connections_that_the_server_has_half_closed() {
    in_trouble(Sent::Alone, Trouble::HalfCloses, "disconnected");
}

#[test]
fn connections_on_which_nothing_is_heard() {
    in_trouble(Sent::Alone, Trouble::Swallows, "timed-out");
}

#[test]
fn no_route() {
    let trial = Trial::new(Sent::Alone, Tells::Kind("no-route"), Passes::Nothing);
    Link::new().tried(trial, |link| link.network.interface_down(), |link| link.network.interface_up());
}

#[test]
fn a_cable_that_is_pulled() {
    let trial = Trial::new(Sent::Alone, Tells::Kind("timed-out"), Passes::Nothing);
    Link::new().tried(trial, |link| link.network.unplug(), |link| link.network.plug());
}

#[test]
fn names_that_nobody_knows() {
    let forget = |link: &Link| {
        link.network.forget_names();
        link.proxy.cut();
    };
    let trial = Trial::new(Sent::Alone, Tells::Kind("dns"), Passes::Nothing);
    Link::new().tried(trial, forget, |link| link.network.name(NAME));
}

// Those in which the bytes of a record matter. Each takes long, and in the others a request is a request.
both_ways! {
    twenty_kilobits_a_second
    a_thin_slow_and_lossy_link
    resets_in_the_middle_of_answers
}
