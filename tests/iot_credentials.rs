//! Credentials by certificate, from a provider that demands mutual TLS: got, renewed in time, refused, by clocks that are wrong,
//! with certificates that end; and that no secret is told to anybody.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use serde_json::Value;

use crate::support::certificates::Authority;
use crate::support::counterpart::program;
use crate::support::daemon::PATIENCE;
use crate::support::device::Version;
use crate::support::forebay::Home;
use crate::support::iot::{IotProvider, now, secrets};
use crate::support::upstream::PutRecords;
use crate::support::{Device, Forebay, Gateway, Reply, Upstream, eventually, http};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

type Period = (SystemTime, SystemTime);

/// A provider, an upstream that notes by which keys requests were signed, and the files of a gateway.
struct Cloud {
    provider: IotProvider,
    upstream: Upstream,
    keys: Arc<Mutex<Vec<String>>>,
    gateway: Gateway,
    home: Home,
}

/// From so long ago until in so long.
fn period(ago: Duration, ahead: Duration) -> Period {
    (now() - ago, now() + ahead)
}

impl Cloud {
    fn new(lifetime: Duration) -> Self {
        Self::with(lifetime, period(DAY, YEAR), period(DAY, YEAR), "devices")
    }

    /// `signed_by`: whose certificate the gateway has; the provider takes those of `devices`.
    fn with(lifetime: Duration, server: Period, device: Period, signed_by: &str) -> Self {
        let upstream = Upstream::start();
        let keys = Arc::<Mutex<Vec<String>>>::default();
        upstream.otherwise({
            let keys = Arc::clone(&keys);
            move |request: &PutRecords| {
                keys.lock().expect("no panic").push(request.access_key.clone());
                Reply::Accept
            }
        });
        let mut gateway = Gateway::to(&upstream.endpoint());
        // The directory is the agent's own, in which its files lie.
        let home = Home::new("");
        let dir = home.path();
        let (aws, devices, others) =
            (Authority::new("aws", dir), Authority::new("devices", dir), Authority::new("others", dir));
        aws.issue_for(Some(server), "server", "localhost", ServerAuth, dir);
        let authority = if signed_by == "devices" { devices } else { others };
        authority.issue_for(Some(device), "device", "truck-7", ClientAuth, dir);
        let provider = IotProvider::start(dir, lifetime);
        gateway.destination = format!(
            "credentials = {{ iot = {{ endpoint = \"{}\", role-alias = \"gateways\", thing-name = \"truck-7\", \
             client-cert-file = \"device.crt\", client-key-file = \"device.key\", ca-file = \"aws.crt\" }} }}\n\
             max-backoff = \"1s\"",
            provider.endpoint()
        );
        gateway.more = "[clock]\ntrust = \"never\"".to_owned();
        home.configure(&gateway.configuration());
        Self { provider, upstream, keys, gateway, home }
    }

    fn start(self) -> Running {
        self.start_at("+0")
    }

    /// With the wall clock off by so much, such as `-40y`.
    fn start_at(self, offset: &str) -> Running {
        let Self { provider, upstream, keys, gateway, home } = self;
        let agent = if offset == "+0" {
            Forebay::start_in(home, &[])
        } else {
            let home = home.through(&[program("faketime").display().to_string()]);
            fs::write(home.path().join("clock"), offset).expect("written");
            let clock = home.path().join("clock").display().to_string();
            let environment = [("FAKETIME_TIMESTAMP_FILE", clock.as_str()), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
            Forebay::start_in(home, &environment)
        };
        Running { provider, upstream, keys, gateway, agent }
    }
}

struct Running {
    provider: IotProvider,
    upstream: Upstream,
    keys: Arc<Mutex<Vec<String>>>,
    gateway: Gateway,
    agent: Forebay,
}

impl Running {
    #[track_caller]
    fn publish(&self) {
        Device::connect(self.gateway.mqtt, Version::V5, "device").publish("plant/a", b"one");
    }

    /// The keys that signed requests, each once, in order.
    fn keys(&self) -> Vec<String> {
        let mut keys = self.keys.lock().expect("no panic").clone();
        keys.dedup();
        keys
    }

    fn cloud(&self) -> Value {
        self.agent.status()["destinations"]["cloud"].clone()
    }

    /// The reason why nothing is delivered.
    #[track_caller]
    fn trouble(&self) -> String {
        eventually(PATIENCE, "it is told why", || self.cloud()["last_error"].is_object());
        assert_eq!(self.upstream.accepted_count(), 0);
        self.agent.log()
    }
}

#[test]
fn credentials_are_got_by_certificate_and_renewed_before_they_expire() {
    let running = Cloud::new(Duration::from_secs(12)).start();
    running.publish();
    running.upstream.wait_for(1, PATIENCE);
    let first = running.provider.requests()[0].clone();
    assert_eq!(first.path, "/role-aliases/gateways/credentials");
    assert_eq!(first.thing.as_deref(), Some("truck-7"));
    eventually(PATIENCE, "the third are used", || {
        running.publish();
        running.keys().len() >= 3
    });
    let [one, two, three] = [1, 2, 3].map(|number| secrets(number)[0].clone());
    assert_eq!(running.keys(), [one, two, three]);
    assert_eq!(running.cloud()["failed_requests"], serde_json::json!({}), "no request waited in vain");
}

#[test]
fn a_refusal_is_told_with_what_to_look_at_and_ends_by_itself() {
    let cloud = Cloud::new(HOUR);
    cloud.provider.refuse(Some((403, r#"{"message":"Access Denied"}"#)));
    let running = cloud.start();
    running.publish();
    let log = running.trouble();
    for part in ["403: Access Denied", "role alias `gateways`", "thing `truck-7`", "iot:AssumeRoleWithCertificate"] {
        assert!(log.contains(part), "{part} is not in {log}");
    }
    let down = running.cloud()["down"]["kind"].clone();
    assert!(down.as_str().is_some_and(|kind| kind.starts_with("credentials")), "{down}");
    running.provider.refuse(None);
    running.upstream.wait_for(1, PATIENCE);
}

#[test]
fn a_certificate_that_the_provider_does_not_take_is_told() {
    let running = Cloud::with(HOUR, period(DAY, YEAR), period(DAY, YEAR), "others").start();
    running.publish();
    let log = running.trouble();
    assert!(log.contains("it does not take our certificate"), "{log}");
    assert!(running.provider.requests().is_empty() && running.provider.turned_away() > 0);
}

/// What the wall clock says, the provider's answers do not go by it: an hour ahead, everything granted would have expired.
#[test]
fn a_clock_that_is_off_by_an_hour_does_no_harm() {
    for offset in ["+1h", "-1h"] {
        let running = Cloud::new(HOUR / 2).start_at(offset);
        for count in 1..=5 {
            running.publish();
            running.upstream.wait_for(count, PATIENCE);
        }
        assert_eq!(running.provider.requests().len(), 1, "{offset}: they hold");
    }
}

#[test]
fn a_clock_that_is_off_by_years_does_no_harm_either() {
    for offset in ["-40y", "+20y"] {
        let running = Cloud::with(HOUR, period(DAY, 10 * DAY), period(2 * DAY, YEAR), "devices").start_at(offset);
        running.publish();
        running.upstream.wait_for(1, PATIENCE);
        assert_eq!(running.keys(), [secrets(1)[0].clone()], "{offset}");
    }
}

/// A wrong clock is no way to get an old certificate believed: the answer's own time decides.
#[test]
fn a_providers_certificate_that_has_expired_is_refused_by_a_right_clock_and_by_a_wrong_one() {
    for offset in ["+0", "-40y"] {
        let (server, device) = ((now() - 2 * YEAR, now() - YEAR), period(3 * YEAR, YEAR));
        let running = Cloud::with(HOUR, server, device, "devices").start_at(offset);
        running.publish();
        let log = running.trouble();
        assert!(log.contains("expired"), "{offset}: {log}");
        assert_eq!(running.keys(), [""; 0], "{offset}");
    }
}

#[test]
fn the_end_of_our_own_certificate_is_told_thirty_days_ahead_and_after() {
    let ends = now() + 10 * DAY + HOUR;
    let running = Cloud::with(HOUR, period(DAY, YEAR), (now() - DAY, ends), "devices").start();
    let date = humantime::format_rfc3339_seconds(ends).to_string();
    let told = format!("expires in 10 days, on {date}: renew it");
    let certificate = running.cloud()["client_certificates"][0].clone();
    assert_eq!(certificate["trouble"], told.as_str(), "{certificate}");
    assert!(running.agent.log().contains(&told), "{}", running.agent.log());
    let metrics = http::get(running.agent.api(), "/metrics").expect("metrics").body;
    let seconds = ends.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    assert!(metrics.contains("forebay_destination_client_certificate_expires_timestamp_seconds{"), "{metrics}");
    assert!(metrics.contains(&format!("}} {seconds}")), "{metrics}");
    let status = running.agent.home().forebay(&["status", "--config", "forebay.toml"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains(&told), "{status:?}");
    let checked = running.agent.home().forebay(&["check", "--config", "forebay.toml"]);
    assert!(checked.status.success() && String::from_utf8_lossy(&checked.stderr).contains(&told), "{checked:?}");
    running.publish();
    running.upstream.wait_for(1, PATIENCE);

    let running = Cloud::with(HOUR, period(DAY, YEAR), (now() - YEAR, now() - DAY), "devices").start();
    running.publish();
    let log = running.trouble();
    assert!(log.contains("it says that our certificate has expired") && log.contains("has expired on "), "{log}");
}

/// Everything that a person or a program can read of a running agent, at its most talkative.
#[test]
fn no_output_has_a_secret_in_it() {
    let mut cloud = Cloud::new(HOUR);
    cloud.gateway.more += "\n[agent]\nlog-level = \"trace\"";
    cloud.home.configure(&cloud.gateway.configuration());
    let key = fs::read_to_string(cloud.home.path().join("device.key")).expect("PEM");
    let running = cloud.start();
    running.publish();
    running.upstream.wait_for(1, PATIENCE);
    running.upstream.otherwise(|_| Reply::unauthorised());
    running.publish();
    eventually(PATIENCE, "it was refused, and others were asked for", || running.provider.requests().len() >= 2);
    let [_, secret, token] = secrets(1);
    let [_, second_secret, second_token] = secrets(2);
    let key_line = key.lines().nth(1).expect("base64").to_owned();
    let get = |path: &str| http::get(running.agent.api(), path).expect("it answers").body;
    let run = |arguments: &[&str]| {
        let output = running.agent.home().forebay(&[arguments, &["--config", "forebay.toml"]].concat());
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let outputs = [
        ("the log", running.agent.log()),
        ("/status", get("/status")),
        ("/metrics", get("/metrics")),
        ("/healthz", get("/healthz")),
        ("/streams/telemetry", get("/streams/telemetry")),
        ("/dead-letters", get("/dead-letters")),
        ("status", run(&["status"])),
        ("status --json", run(&["status", "--json"])),
        ("check", run(&["check"])),
        ("dead-letter list", run(&["dead-letter", "list"])),
    ];
    for (what, text) in outputs {
        for hidden in [&secret, &token, &second_secret, &second_token, &key_line] {
            assert!(!text.contains(hidden.as_str()), "{what} has {hidden} in it");
        }
    }
    assert!(running.agent.log().contains("got credentials"), "{}", running.agent.log());
}

/// The file of a person's own keys, rotated while the agent runs, and after a refusal.
#[test]
fn a_rotated_key_file_is_used_without_a_restart() {
    let (upstream, keys) = (Upstream::start(), Arc::<Mutex<Vec<String>>>::default());
    upstream.otherwise({
        let keys = Arc::clone(&keys);
        move |request: &PutRecords| {
            keys.lock().expect("no panic").push(request.access_key.clone());
            if request.access_key == "AKIATWO" { Reply::unauthorised() } else { Reply::Accept }
        }
    });
    let home = Home::new("");
    let write = |dir: &Path, key: &str| {
        let text = format!("[gateway]\naws_access_key_id = {key}\naws_secret_access_key = secret-of-{key}\n");
        fs::write(dir.join("keys.new"), text).and_then(|()| fs::rename(dir.join("keys.new"), dir.join("keys")))
    };
    write(home.path(), "AKIAONE").expect("written");
    let gateway = Gateway {
        destination: "credentials = { file = { path = \"keys\", profile = \"gateway\" } }\nmax-backoff = \"1s\""
            .to_owned(),
        ..Gateway::to(&upstream.endpoint())
    };
    home.configure(&gateway.configuration());
    let agent = Forebay::start_in(home, &[]);
    let publish = || Device::connect(gateway.mqtt, Version::V5, "device").publish("plant/a", b"one");
    publish();
    upstream.wait_for(1, PATIENCE);
    write(agent.home().path(), "AKIATWO").expect("written");
    eventually(PATIENCE, "the second key is used", || {
        publish();
        keys.lock().expect("no panic").contains(&"AKIATWO".to_owned())
    });
    write(agent.home().path(), "AKIATHREE").expect("written");
    eventually(PATIENCE, "the third key is used", || keys.lock().expect("no panic").contains(&"AKIATHREE".to_owned()));
    eventually(PATIENCE, "nothing is left", || agent.status()["destinations"]["cloud"]["backlog_records"] == 0);
    assert!(!agent.log().contains("secret-of-"), "{}", agent.log());
}
