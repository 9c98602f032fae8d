//! How a condition is tried, and what has to hold in each.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::PATIENCE;
use crate::support::device::VERSIONS;
use crate::support::forebay::Home;
use crate::support::judge::{self, Judge};
use crate::support::publisher::{Memory, Progress, Published, Publishing, publish_numbered};
use crate::support::{Device, Forebay, Gateway, eventually};

/// Messages before the condition, meanwhile, and after it.
const MESSAGES: [u64; 3] = [100, 600, 100];

/// Requests under way at the same time.
const IN_FLIGHT: u64 = 4;

/// For what has gathered to be delivered over what the link is again.
const LONG: Duration = Duration::from_secs(90);

/// How records are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// Each as a record of the wire.
    Alone,
    /// Those of a shard as aggregates, in CBOR where the endpoint knows it.
    Aggregated,
}

impl Sent {
    /// The destination's settings for it. Small aggregates, so that there are many.
    pub(super) fn settings(self) -> &'static str {
        match self {
            Self::Alone => "",
            Self::Aggregated => "aggregation = \"kpl\"\naggregate-bytes = \"4KiB\"\n",
        }
    }
}

/// Makes two tests of each condition, one for each way of sending: `NAME::alone` and `NAME::aggregated`.
macro_rules! both_ways {
    ($($condition:ident)*) => {$(
        mod $condition {
            use crate::hostile::trial::Sent;

            #[test]
            fn alone() {
                super::$condition(Sent::Alone);
            }

            #[test]
            fn aggregated() {
                super::$condition(Sent::Aggregated);
            }
        }
    )*};
}
pub(super) use both_ways;

/// What the agent says while the condition lasts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tells {
    /// Nothing is wrong, it is only slow.
    Nothing,
    /// Requests fail, of this kind.
    Kind(&'static str),
    /// Requests are answered, and say that records were too many.
    Throttled,
    /// Requests are answered, and say that records failed.
    Failed,
    /// Aggregates went to other shards than they were made for.
    Astray,
}

/// What passes meanwhile.
#[derive(Debug, Clone, Copy)]
pub(super) enum Passes {
    Nothing,
    Some,
    /// Every record whose key is one of these.
    Keys(fn(&str) -> bool),
}

impl Passes {
    pub(super) const ALL: Self = Self::Keys(|_| true);
}

/// An endpoint and the way to it, and what becomes of them.
pub(super) trait Scene {
    /// What the agent is told to deliver to.
    fn endpoint(&self) -> String;

    /// Where the agent keeps its log.
    fn data_dir(&self) -> String {
        "data".to_owned()
    }

    /// Where and how the agent runs.
    fn home(&self, configuration: &str) -> Home {
        Home::new(configuration)
    }

    /// Whether the endpoint knows CBOR.
    fn knows_cbor(&self) -> bool {
        true
    }

    fn environment(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// The condition begins.
    fn begin(&mut self, agent: &Forebay);

    /// It is over.
    fn end(&mut self, agent: &Forebay);

    /// All records that a consumer gets of what the endpoint has: partition key and data, those of a key in their order.
    fn taken(&self) -> Vec<(String, Vec<u8>)>;
}

/// A condition to be tried.
pub(super) struct Trial {
    sent: Sent,
    tells: Tells,
    passes: Passes,
    /// How long the agent waits for an answer.
    request_timeout: &'static str,
    /// Added to the destination's settings.
    destination: String,
}

impl Trial {
    pub(super) fn new(sent: Sent, tells: Tells, passes: Passes) -> Self {
        Self { sent, tells, passes, request_timeout: "2s", destination: String::new() }
    }

    /// For links on which answers take longer.
    pub(super) fn with_patience(self) -> Self {
        Self { request_timeout: "20s", ..self }
    }

    pub(super) fn with(self, destination: impl Into<String>) -> Self {
        Self { destination: destination.into(), ..self }
    }

    /// Tries it.
    #[track_caller]
    pub(super) fn run(self, scene: &mut impl Scene) {
        let cbor = self.sent == Sent::Aggregated && scene.knows_cbor();
        let destination = format!(
            "max-backoff = \"500ms\"\nin-flight = {IN_FLIGHT}\nconnect-timeout = \"1s\"\nrequest-timeout = \"{}\"\n{}{}{}",
            self.request_timeout,
            if cbor { "encoding = \"cbor\"\n" } else { "" },
            self.sent.settings(),
            self.destination
        );
        let gateway = Gateway { destination, data_dir: scene.data_dir(), ..Gateway::to(&scene.endpoint()) };
        let environment = scene.environment();
        let environment: Vec<_> = environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut agent = Forebay::start_in(scene.home(&gateway.configuration()), &environment);
        let mut books = vec![publish(&gateway, 0)];
        eventually(PATIENCE, "everything passes before", || cloud(&agent)["backlog_records"] == 0);

        scene.begin(&agent);
        let before = cloud(&agent)["records"].as_u64();
        books.push(publish(&gateway, 1));
        self.wait_for_what_it_tells(&agent);
        self.wait_for_what_passes(scene, &agent, before, &books[1]);
        assert_eq!(agent.status()["healthy"], true, "what happens far away is no illness of the agent's");

        scene.end(&agent);
        let failed = failed_requests(&cloud(&agent));
        Device::connect(gateway.mqtt, VERSIONS[0], "fresh").publish("fresh", b"fresh");
        books.push(publish(&gateway, 2));
        eventually(LONG, "all that has gathered is delivered", || cloud(&agent)["backlog_records"] == 0);
        let status = cloud(&agent);
        // Those under way when it ended, and what was left of connections.
        let more = failed_requests(&status) - failed;
        assert!(more <= 2 * IN_FLIGHT, "{more} requests failed after the end: {status}");
        assert!(status["down"].is_null(), "the trouble is over: {status}");
        assert_eq!((&status["dead_letters"], &status["out_of_order"]), (&0.into(), &0.into()), "{status}");
        let lost = &agent.status()["streams"]["telemetry"]["lost"];
        assert!(lost.as_object().is_some_and(|lost| lost.values().all(|count| count == 0)), "{lost}");
        let each = status["wire"]["records_each"].as_f64();
        let expected = if self.sent == Sent::Aggregated { each > Some(1.0) } else { each == Some(1.0) };
        assert!(expected, "{each:?} records in a record of the wire, sent {:?}: {status}", self.sent);
        self.judge(scene, &books);
        if let (Tells::Failed, Passes::Nothing) = (self.tells, self.passes) {
            let told = agent.log().matches("destination does not take records").count();
            assert_eq!(told, 1, "one outage is told once: {}", agent.log());
            let over = || agent.log().matches("destination takes records again").count() == 1;
            eventually(PATIENCE, "it is told that it is over", over);
        }
        assert!(agent.terminate().success());
    }

    #[track_caller]
    fn wait_for_what_passes(&self, scene: &impl Scene, agent: &Forebay, before: Option<u64>, book: &Published) {
        let records = || cloud(agent)["records"].as_u64();
        match self.passes {
            Passes::Nothing => {
                let asked = || cloud(agent)["requests"].as_u64();
                let tried = asked();
                eventually(PATIENCE, "it is tried again", || asked() > tried);
                assert_eq!(records(), before, "nothing can have passed: {}", cloud(agent));
            }
            Passes::Some => eventually(PATIENCE, "some of it passes meanwhile", || records() > before),
            Passes::Keys(pass) => {
                let owed = topics(book).filter(|topic| pass(topic)).count();
                let counts = |key: &str| pass(key) && key.starts_with("device-1/");
                let passed = || scene.taken().into_iter().filter(|(key, _)| counts(key)).collect::<HashSet<_>>().len();
                eventually(LONG, "what can pass does meanwhile", || passed() >= owed);
            }
        }
    }

    #[track_caller]
    fn judge(&self, scene: &impl Scene, books: &[Published]) {
        let mut judge = Judge::new(books);
        for (key, data) in scene.taken() {
            judge.judge(&key, &data);
        }
        assert_eq!((judge.missing, judge.owed), (0, MESSAGES.iter().sum()), "acknowledged, and not at the endpoint");
        assert!(judge.fresh >= 1, "the fresh record is not at the endpoint");
        if let Tells::Throttled | Tells::Failed = self.tells {
            assert_eq!(judge.duplicates, 0, "what was accepted is not sent again because other records were refused");
        }
    }

    /// Status names the trouble, over the API and on the command line.
    #[track_caller]
    fn wait_for_what_it_tells(&self, agent: &Forebay) {
        let told = |cloud: &Value| match self.tells {
            Tells::Nothing => true,
            Tells::Kind(kind) => {
                cloud["failed_requests"][kind].as_u64() >= Some(1) && cloud["last_error"]["message"].is_string()
            }
            Tells::Throttled => cloud["throttled_records"].as_u64() >= Some(1),
            Tells::Failed => cloud["failed_records"].as_u64() >= Some(1),
            Tells::Astray => cloud["astray_records"].as_u64() >= Some(1),
        };
        eventually(PATIENCE, &format!("status tells {:?}", self.tells), || told(&cloud(agent)));
        let down = match self.tells {
            Tells::Kind(kind) => Some(kind),
            Tells::Failed => Some("endpoint-failed"),
            Tells::Nothing | Tells::Throttled | Tells::Astray => None,
        };
        if let (Some(kind), Passes::Nothing) = (down, self.passes) {
            let what = format!("status says that it is down: {kind}");
            eventually(PATIENCE, &what, || cloud(agent)["down"]["kind"] == kind);
        }
        let file = agent.home().configuration_file().display().to_string();
        let output = agent.home().forebay(&["status", "--json", "--config", &file]);
        let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert!(told(&said["destinations"]["cloud"]), "`forebay status` tells {:?}: {said}", self.tells);
    }
}

pub(super) fn cloud(agent: &Forebay) -> Value {
    agent.status()["destinations"]["cloud"].clone()
}

fn failed_requests(cloud: &Value) -> u64 {
    let kinds = cloud["failed_requests"].as_object().expect("by kind");
    kinds.values().filter_map(Value::as_u64).sum()
}

/// One device publishes all of its messages, and is acknowledged each.
#[track_caller]
fn publish(gateway: &Gateway, device: u64) -> Published {
    let how = Publishing {
        port: gateway.mqtt,
        version: VERSIONS[device as usize % 2],
        client_id: format!("device-{device}"),
        window: 50,
        memory: Memory::Keeps,
    };
    let progress = Arc::new(Progress::default());
    let book = publish_numbered(&how, MESSAGES[device as usize], &progress, |n, out| judge::message(device, n, out));
    assert_eq!(book.breaks, 0, "a device was turned away");
    book
}

/// The topics of what device 1 published.
fn topics(book: &Published) -> impl Iterator<Item = String> {
    (0..book.end).map(|number| judge::message(1, number, &mut Vec::new()))
}
