//! Conditions of the endpoint: it answers as it is told, and keeps what it took.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use rcgen::ExtendedKeyUsagePurpose::ServerAuth;
use tempfile::TempDir;

use super::trial::{Passes, Scene, Sent, Tells, Trial, both_ways};
use crate::support::certificates::Authority;
use crate::support::counterpart::program;
use crate::support::forebay::Home;
use crate::support::kpl::records_of;
use crate::support::tls_front::TlsFront;
use crate::support::upstream::{Accepted, PutRecords, hash_key};
use crate::support::{Forebay, Reply, Upstream};

/// An endpoint that something happens to for a while.
pub(super) struct Scripted<B> {
    pub(super) upstream: Upstream,
    pub(super) begin: Option<B>,
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

/// One with four shards.
pub(super) fn upstream() -> Upstream {
    Upstream::start_divided(4)
}

fn taken(upstream: &Upstream) -> Vec<(String, Vec<u8>)> {
    upstream.accepted().iter().flat_map(Accepted::consumed).collect()
}

/// Its answers follow a rule.
#[track_caller]
fn answering(sent: Sent, rule: impl FnMut(&PutRecords) -> Reply + Send + 'static, tells: Tells, passes: Passes) {
    let begin = |upstream: &Upstream| upstream.otherwise(rule);
    Trial::new(sent, tells, passes).run(&mut Scripted { upstream: upstream(), begin: Some(begin) });
}

/// Every request is answered so.
#[track_caller]
fn always(sent: Sent, reply: Reply, kind: &'static str) {
    answering(sent, move |_| reply.clone(), Tells::Kind(kind), Passes::Nothing);
}

fn connections_refused_delay_records(sent: Sent) {
    let begin = Some(Upstream::link_down);
    let trial = Trial::new(sent, Tells::Kind("refused"), Passes::Nothing);
    trial.run(&mut Scripted { upstream: upstream(), begin });
}

fn bursts_of_5xx_cost_nothing(sent: Sent) {
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
    answering(sent, burst, Tells::Kind("endpoint-failed"), Passes::Some);
}

fn a_captive_portal_that_shows_its_page_delays_records_and_takes_none(sent: Sent) {
    always(sent, Reply::Html { status: 200 }, "endpoint-failed");
}

fn a_captive_portal_that_redirects_delays_records_and_takes_none(sent: Sent) {
    always(sent, Reply::Html { status: 302 }, "endpoint-failed");
}

fn expired_credentials_delay_records(sent: Sent) {
    always(sent, Reply::Error { status: 400, code: "ExpiredTokenException" }, "credentials-expired");
}

fn wrong_credentials_delay_records(sent: Sent) {
    let mut number = 0;
    let wrong = move |_: &PutRecords| {
        number += 1;
        match number % 3 {
            0 => Reply::unauthorised(),
            1 => Reply::Error { status: 400, code: "InvalidSignatureException" },
            _ => Reply::Error { status: 403, code: "AccessDeniedException" },
        }
    };
    answering(sent, wrong, Tells::Kind("credentials-refused"), Passes::Nothing);
}

fn a_stream_that_is_not_there_delays_records(sent: Sent) {
    always(sent, Reply::no_such_stream(), "misconfigured");
}

fn a_throttled_stream_delays_records(sent: Sent) {
    always(sent, Reply::throttle_all(), "throttled");
}

fn an_endpoint_that_finds_fault_with_everything_delays_records_and_buries_none(sent: Sent) {
    always(sent, Reply::validation(), "request-invalid");
}

fn answers_that_get_lost_repeat_records_and_keep_their_order(sent: Sent) {
    let mut random = Rng::with_seed(5);
    let lost = move |_: &PutRecords| match random.u8(0..6) {
        0 => Reply::AcceptThenHang,
        1..4 => Reply::AcceptThenReset,
        _ => Reply::Accept,
    };
    answering(sent, lost, Tells::Kind("disconnected"), Passes::Some);
}

/// It answers, and takes nothing.
fn an_endpoint_that_says_of_every_record_that_it_failed_is_down(sent: Sent) {
    let failing = |request: &PutRecords| Reply::Fail(all(request).collect());
    answering(sent, failing, Tells::Failed, Passes::Nothing);
}

/// Answered requests in which these records are refused; in turn because there were too many, and for no reason at all.
#[track_caller]
fn refusing(sent: Sent, mut refused: impl FnMut(&PutRecords) -> Vec<usize> + Send + 'static, passes: Passes) {
    let mut number = 0;
    let rule = move |request: &PutRecords| {
        number += 1;
        let places = refused(request);
        if number % 2 == 0 { Reply::Throttle(places) } else { Reply::Fail(places) }
    };
    answering(sent, rule, Tells::Failed, passes);
}

fn all(request: &PutRecords) -> std::ops::Range<usize> {
    0..request.records.len()
}

fn random_records_refused(sent: Sent) {
    let mut random = Rng::with_seed(7);
    refusing(sent, move |request| all(request).filter(|_| random.bool()).collect(), Passes::Some);
}

fn all_records_but_one_refused(sent: Sent) {
    let mut random = Rng::with_seed(8);
    let but_one = move |request: &PutRecords| {
        let taken = random.usize(all(request));
        all(request).filter(|place| *place != taken).collect()
    };
    refusing(sent, but_one, Passes::Some);
}

/// A request of one record is taken: else the oldest record could wait for ever.
fn the_first_record_refused(sent: Sent) {
    refusing(sent, |request| if request.records.len() > 1 { vec![0] } else { vec![] }, Passes::ALL);
}

fn the_last_record_refused(sent: Sent) {
    refusing(
        sent,
        |request| if request.records.len() > 1 { vec![request.records.len() - 1] } else { vec![] },
        Passes::ALL,
    );
}

fn every_other_record_refused(sent: Sent) {
    let mut first = 0;
    let alternating = move |request: &PutRecords| {
        first = 1 - first;
        all(request).filter(|place| place % 2 == first).collect()
    };
    refusing(sent, alternating, Passes::ALL);
}

/// One after the other, every way in which the first four parcels of a request can be taken and refused.
fn every_pattern_of_refusals(sent: Sent) {
    let mut pattern = 0;
    let next = move |request: &PutRecords| {
        pattern = (pattern + 1) % 16;
        all(request).filter(|place| *place < 4 && pattern >> place & 1 == 1).collect()
    };
    refusing(sent, next, Passes::ALL);
}

/// Each record meets its own fate, whatever request it comes in: it is refused twice, and taken the third time.
fn every_record_refused_twice(sent: Sent) {
    let mut seen = std::collections::HashMap::<Vec<u8>, u32>::new();
    let twice = move |request: &PutRecords| {
        let mut again = |data: &Vec<u8>| {
            let times = seen.entry(data.clone()).or_default();
            *times += 1;
            *times <= 2
        };
        let mut refused = |place: &usize| {
            let data = &request.records[*place].data;
            let inner = records_of(data).map(|records| records.into_iter().map(|record| record.data).collect());
            let mut inner: Vec<_> = inner.unwrap_or_else(|| vec![data.clone()]);
            // Every record of an aggregate is counted, whatever is known of it by then.
            inner.retain(|data| again(data));
            !inner.is_empty()
        };
        all(request).filter(|place| refused(place)).collect()
    };
    refusing(sent, twice, Passes::ALL);
}

/// Each of the four shards is a quarter of the hash keys.
fn shard(key: &str) -> u32 {
    (hash_key(key) >> 126) as u32
}

fn of_shards(request: &PutRecords, shards: std::ops::Range<u32>) -> Vec<usize> {
    all(request).filter(|place| shards.contains(&shard(&request.records[*place].partition_key))).collect()
}

fn keys_that_are_refused_hold_up_no_others(sent: Sent) {
    refusing(sent, |request| of_shards(request, 1..2), Passes::Keys(|key| shard(key) != 1));
}

fn a_throttled_shard_holds_up_no_others(sent: Sent) {
    let throttled = |request: &PutRecords| Reply::Throttle(of_shards(request, 0..2));
    answering(sent, throttled, Tells::Throttled, Passes::Keys(|key| shard(key) >= 2));
}

/// An endpoint that takes no signature of another time than its own, as AWS does not; it tells its time in every answer.
struct WrongClock {
    upstream: Upstream,
    offset: &'static str,
    home: TempDir,
}

impl WrongClock {
    fn by(offset: &'static str) -> Self {
        let upstream = upstream();
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

fn a_clock_an_hour_behind_is_told_and_corrected(sent: Sent) {
    Trial::new(sent, Tells::Kind("clock"), Passes::ALL).run(&mut WrongClock::by("-1h"));
}

fn a_clock_an_hour_ahead_is_told_and_corrected(sent: Sent) {
    Trial::new(sent, Tells::Kind("clock"), Passes::ALL).run(&mut WrongClock::by("+1h"));
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
        let upstream = upstream();
        let front = TlsFront::start(upstream.port(), dir, "right");
        Self { upstream, front, certificates, certificate }
    }

    #[track_caller]
    fn told_as(mut self, sent: Sent, kind: &'static str) {
        let trust = format!("ca-file = \"{}\"", self.dir().join("authority.crt").display());
        Trial::new(sent, Tells::Kind(kind), Passes::Nothing).with(trust).run(&mut self);
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

fn tls_from_the_wrong_host_gets_nothing(sent: Sent) {
    Impostor::with("of-another-host").told_as(sent, "tls-wrong-host");
}

fn tls_that_nobody_vouches_for_gets_nothing(sent: Sent) {
    Impostor::with("of-a-stranger").told_as(sent, "tls-unknown-authority");
}

/// Answers so late that the agent has given them up.
fn answers_that_come_too_late_repeat_records_and_keep_their_order(sent: Sent) {
    let mut random = Rng::with_seed(9);
    let late = move |_: &PutRecords| match random.u8(0..3) {
        0 => Reply::Accept,
        _ => Reply::After(Duration::from_millis(2500), Box::new(Reply::Accept)),
    };
    answering(sent, late, Tells::Kind("timed-out"), Passes::Some);
}

both_ways! {
    connections_refused_delay_records
    bursts_of_5xx_cost_nothing
    a_captive_portal_that_shows_its_page_delays_records_and_takes_none
    a_captive_portal_that_redirects_delays_records_and_takes_none
    expired_credentials_delay_records
    wrong_credentials_delay_records
    a_stream_that_is_not_there_delays_records
    a_throttled_stream_delays_records
    an_endpoint_that_finds_fault_with_everything_delays_records_and_buries_none
    answers_that_get_lost_repeat_records_and_keep_their_order
    an_endpoint_that_says_of_every_record_that_it_failed_is_down
    random_records_refused
    all_records_but_one_refused
    the_first_record_refused
    the_last_record_refused
    every_other_record_refused
    every_pattern_of_refusals
    every_record_refused_twice
    keys_that_are_refused_hold_up_no_others
    a_throttled_shard_holds_up_no_others
    a_clock_an_hour_behind_is_told_and_corrected
    a_clock_an_hour_ahead_is_told_and_corrected
    tls_from_the_wrong_host_gets_nothing
    tls_that_nobody_vouches_for_gets_nothing
    answers_that_come_too_late_repeat_records_and_keep_their_order
}
