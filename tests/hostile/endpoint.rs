//! Conditions of the endpoint: it answers as it is told, and keeps what it took.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use rcgen::ExtendedKeyUsagePurpose::ServerAuth;
use tempfile::TempDir;

use super::trial::{Passes, Scene, Tells, Trial};
use crate::support::certificates::Authority;
use crate::support::counterpart::program;
use crate::support::forebay::Home;
use crate::support::tls_front::TlsFront;
use crate::support::upstream::PutRecords;
use crate::support::{Forebay, Reply, Upstream};

/// An endpoint that something happens to for a while.
struct Scripted<B> {
    upstream: Upstream,
    begin: Option<B>,
}

impl<B: FnOnce(&Upstream)> Scene for Scripted<B> {
    fn endpoint(&self) -> String {
        self.upstream.endpoint()
    }

    fn begin(&mut self, _: &Forebay) {
        self.begin.take().expect("it begins once")(&self.upstream);
    }

    fn end(&mut self, _: &Forebay) {
        self.upstream.behave();
        self.upstream.link_up();
    }

    fn taken(&self) -> Vec<(String, Vec<u8>)> {
        taken(&self.upstream)
    }
}

fn taken(upstream: &Upstream) -> Vec<(String, Vec<u8>)> {
    upstream.accepted().into_iter().map(|record| (record.partition_key, record.data)).collect()
}

/// Its answers follow a rule.
#[track_caller]
fn answering(rule: impl FnMut(&PutRecords) -> Reply + Send + 'static, tells: Tells, passes: Passes) {
    let begin = |upstream: &Upstream| upstream.otherwise(rule);
    Trial::new(tells, passes).run(&mut Scripted { upstream: Upstream::start(), begin: Some(begin) });
}

/// Every request is answered so.
#[track_caller]
fn always(reply: Reply, kind: &'static str) {
    answering(move |_| reply.clone(), Tells::Kind(kind), Passes::Nothing);
}

#[test]
fn connections_refused_delay_records() {
    let begin = Some(Upstream::link_down);
    let trial = Trial::new(Tells::Kind("refused"), Passes::Nothing);
    trial.run(&mut Scripted { upstream: Upstream::start(), begin });
}

#[test]
fn bursts_of_5xx_cost_nothing() {
    let mut number = 0;
    let burst = move |_: &PutRecords| {
        number += 1;
        match number % 6 {
            0 => Reply::Accept,
            1 => Reply::Html { status: 502 },
            2 => Reply::Error { status: 503, code: "ServiceUnavailableException" },
            _ => Reply::server_error(),
        }
    };
    answering(burst, Tells::Kind("endpoint-failed"), Passes::Some);
}

#[test]
fn a_captive_portal_that_shows_its_page_delays_records_and_takes_none() {
    always(Reply::Html { status: 200 }, "endpoint-failed");
}

#[test]
fn a_captive_portal_that_redirects_delays_records_and_takes_none() {
    always(Reply::Html { status: 302 }, "endpoint-failed");
}

#[test]
fn expired_credentials_delay_records() {
    always(Reply::Error { status: 400, code: "ExpiredTokenException" }, "credentials-expired");
}

#[test]
fn wrong_credentials_delay_records() {
    let mut number = 0;
    let wrong = move |_: &PutRecords| {
        number += 1;
        match number % 3 {
            0 => Reply::unauthorised(),
            1 => Reply::Error { status: 400, code: "InvalidSignatureException" },
            _ => Reply::Error { status: 403, code: "AccessDeniedException" },
        }
    };
    answering(wrong, Tells::Kind("credentials-refused"), Passes::Nothing);
}

#[test]
fn a_stream_that_is_not_there_delays_records() {
    always(Reply::no_such_stream(), "misconfigured");
}

#[test]
fn a_throttled_stream_delays_records() {
    always(Reply::throttle_all(), "throttled");
}

#[test]
fn an_endpoint_that_finds_fault_with_everything_delays_records_and_buries_none() {
    always(Reply::validation(), "request-invalid");
}

#[test]
fn answers_that_get_lost_repeat_records_and_keep_their_order() {
    let mut random = Rng::with_seed(5);
    let lost = move |_: &PutRecords| match random.u8(0..6) {
        0 => Reply::AcceptThenHang,
        1..4 => Reply::AcceptThenReset,
        _ => Reply::Accept,
    };
    answering(lost, Tells::Kind("disconnected"), Passes::Some);
}

/// Answered requests in which these records are refused; in turn because there were too many, and for no reason at all.
#[track_caller]
fn refusing(mut refused: impl FnMut(&PutRecords) -> Vec<usize> + Send + 'static, passes: Passes) {
    let mut number = 0;
    let rule = move |request: &PutRecords| {
        number += 1;
        let places = refused(request);
        if number % 2 == 0 { Reply::Throttle(places) } else { Reply::Fail(places) }
    };
    answering(rule, Tells::Failed, passes);
}

fn all(request: &PutRecords) -> std::ops::Range<usize> {
    0..request.records.len()
}

#[test]
fn random_records_refused() {
    let mut random = Rng::with_seed(7);
    refusing(move |request| all(request).filter(|_| random.bool()).collect(), Passes::Some);
}

#[test]
fn all_records_but_one_refused() {
    let mut random = Rng::with_seed(8);
    let but_one = move |request: &PutRecords| {
        let taken = random.usize(all(request));
        all(request).filter(|place| *place != taken).collect()
    };
    refusing(but_one, Passes::Some);
}

/// A request of one record is taken: else the oldest record could wait for ever.
#[test]
fn the_first_record_refused() {
    refusing(|request| if request.records.len() > 1 { vec![0] } else { vec![] }, Passes::ALL);
}

#[test]
fn the_last_record_refused() {
    refusing(|request| if request.records.len() > 1 { vec![request.records.len() - 1] } else { vec![] }, Passes::ALL);
}

#[test]
fn every_other_record_refused() {
    let mut first = 0;
    let alternating = move |request: &PutRecords| {
        first = 1 - first;
        all(request).filter(|place| place % 2 == first).collect()
    };
    refusing(alternating, Passes::ALL);
}

/// Each record meets its own fate, whatever request it comes in: it is refused twice, and taken the third time.
#[test]
fn every_record_refused_twice() {
    let mut seen = std::collections::HashMap::<Vec<u8>, u32>::new();
    let twice = move |request: &PutRecords| {
        let mut again = |place: &usize| {
            let times = seen.entry(request.records[*place].data.clone()).or_default();
            *times += 1;
            *times <= 2
        };
        all(request).filter(|place| again(place)).collect()
    };
    refusing(twice, Passes::ALL);
}

/// Stands for the shard of a key: any division does for an endpoint that has none.
fn shard(key: &str) -> u32 {
    key.bytes().fold(0, |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % 4
}

fn of_shards(request: &PutRecords, shards: std::ops::Range<u32>) -> Vec<usize> {
    all(request).filter(|place| shards.contains(&shard(&request.records[*place].partition_key))).collect()
}

#[test]
fn keys_that_are_refused_hold_up_no_others() {
    refusing(|request| of_shards(request, 1..2), Passes::Keys(|key| shard(key) != 1));
}

#[test]
fn a_throttled_shard_holds_up_no_others() {
    let throttled = |request: &PutRecords| Reply::Throttle(of_shards(request, 0..2));
    answering(throttled, Tells::Throttled, Passes::Keys(|key| shard(key) >= 2));
}

/// An endpoint that takes no signature of another time than its own, as AWS does not; it tells its time in every answer.
struct WrongClock {
    upstream: Upstream,
    offset: &'static str,
    home: TempDir,
}

impl WrongClock {
    fn by(offset: &'static str) -> Self {
        let upstream = Upstream::start();
        upstream.otherwise(|request| match skew_minutes(&request.signed_at) {
            -5..=5 => Reply::Accept,
            ..-5 => Reply::Saying {
                code: "InvalidSignatureException",
                message: "Signature expired: 20200101T000000Z is now earlier than 20200101T005500Z",
            },
            6.. => Reply::Saying {
                code: "InvalidSignatureException",
                message: "Signature not yet current: 20200101T010000Z is still later than 20200101T000500Z",
            },
        });
        let wrong = Self { upstream, offset, home: TempDir::new().expect("a temporary directory can be made") };
        wrong.set("+0");
        wrong
    }

    fn file(&self) -> String {
        self.home.path().join("clock").display().to_string()
    }

    fn set(&self, offset: &str) {
        // Replaced in one step: it is read while it is written.
        let new = self.home.path().join("clock.new");
        fs::write(&new, offset).and_then(|()| fs::rename(&new, self.file())).expect("written");
    }
}

impl Scene for WrongClock {
    fn endpoint(&self) -> String {
        self.upstream.endpoint()
    }

    fn home(&self, configuration: &str) -> Home {
        Home::new(configuration).through(&[program("faketime").display().to_string()])
    }

    fn environment(&self) -> Vec<(String, String)> {
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![
            set("FAKETIME_TIMESTAMP_FILE", &self.file()),
            set("FAKETIME_NO_CACHE", "1"),
            set("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    }

    fn begin(&mut self, _: &Forebay) {
        self.set(self.offset);
    }

    fn end(&mut self, _: &Forebay) {
        self.set("+0");
    }

    fn taken(&self) -> Vec<(String, Vec<u8>)> {
        taken(&self.upstream)
    }
}

/// How far a time of SigV4 is ahead of the true one, within a day.
#[expect(clippy::disallowed_methods, reason = "the machine's clock is the endpoint's")]
fn skew_minutes(signed_at: &str) -> i64 {
    const DAY: i64 = 24 * 60;
    let digits = |place: std::ops::Range<usize>| signed_at[place].parse::<i64>().expect("20260131T235959Z");
    let signed = digits(9..11) * 60 + digits(11..13);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64 / 60;
    (signed - now + DAY / 2).rem_euclid(DAY) - DAY / 2
}

#[test]
fn a_clock_an_hour_behind_is_told_and_corrected() {
    Trial::new(Tells::Kind("clock"), Passes::ALL).run(&mut WrongClock::by("-1h"));
}

#[test]
fn a_clock_an_hour_ahead_is_told_and_corrected() {
    Trial::new(Tells::Kind("clock"), Passes::ALL).run(&mut WrongClock::by("+1h"));
}

/// Somebody else answers in the endpoint's place, over TLS.
struct Impostor {
    upstream: Upstream,
    front: TlsFront,
    certificates: TempDir,
    certificate: &'static str,
}

impl Impostor {
    /// One that shows this certificate.
    fn with(certificate: &'static str) -> Self {
        let certificates = TempDir::new().expect("a temporary directory can be made");
        let dir = certificates.path();
        let authority = Authority::new("authority", dir);
        authority.issue("right", "localhost", ServerAuth, dir);
        authority.issue("of-another-host", "login.hotel.example", ServerAuth, dir);
        Authority::new("hotel", dir).issue("of-a-stranger", "localhost", ServerAuth, dir);
        let upstream = Upstream::start();
        let front = TlsFront::start(upstream.port(), dir, "right");
        Self { upstream, front, certificates, certificate }
    }

    #[track_caller]
    fn told_as(mut self, kind: &'static str) {
        let trust = format!("ca-file = \"{}\"", self.dir().join("authority.crt").display());
        Trial::new(Tells::Kind(kind), Passes::Nothing).with(trust).run(&mut self);
    }

    fn dir(&self) -> &Path {
        self.certificates.path()
    }
}

impl Scene for Impostor {
    fn endpoint(&self) -> String {
        format!("https://localhost:{}", self.front.port())
    }

    fn begin(&mut self, _: &Forebay) {
        self.front.present(self.dir(), self.certificate);
        // Connections that know the right one would go on.
        self.upstream.link_down();
        self.upstream.link_up();
    }

    fn end(&mut self, _: &Forebay) {
        self.front.present(self.dir(), "right");
    }

    fn taken(&self) -> Vec<(String, Vec<u8>)> {
        taken(&self.upstream)
    }
}

#[test]
fn tls_from_the_wrong_host_gets_nothing() {
    Impostor::with("of-another-host").told_as("tls-wrong-host");
}

#[test]
fn tls_that_nobody_vouches_for_gets_nothing() {
    Impostor::with("of-a-stranger").told_as("tls-unknown-authority");
}

/// Answers so late that the agent has given them up.
#[test]
fn answers_that_come_too_late_repeat_records_and_keep_their_order() {
    let mut random = Rng::with_seed(9);
    let late = move |_: &PutRecords| match random.u8(0..3) {
        0 => Reply::Accept,
        _ => Reply::After(Duration::from_millis(2500), Box::new(Reply::Accept)),
    };
    answering(late, Tells::Kind("timed-out"), Passes::Some);
}
