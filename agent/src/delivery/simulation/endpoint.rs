//! The endpoints: what passes to and from them, and what becomes of a request there.

use std::time::Duration;

use super::{
    line::Line,
    world::{Event, World},
};
use crate::{
    delivery::window::{Batch, RECORD_OVERHEAD},
    destination::{Failure, FailureKind, Outcome, RecordOutcome},
};

/// Why requests fail for a while through no fault of their records.
pub(super) const PASSING: [FailureKind; 6] = [
    FailureKind::CredentialsRefused,
    FailureKind::Throttled,
    FailureKind::EndpointFailed,
    FailureKind::Misconfigured,
    FailureKind::TlsWrongHost,
    FailureKind::Clock,
];

/// For so long after everything else is healthy the endpoint breaks at some records.
const BREAKS: Duration = Duration::from_secs(60);

/// How the endpoint behaves for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mood {
    Healthy,
    /// There is no connection, and that is noticed at once.
    Refused,
    /// Requests get no answer; half of them are taken all the same, perhaps much later.
    Silent,
    /// Answers are lost.
    Reset,
    Fails(FailureKind),
    /// Answers with the wrong number of entries.
    Garbage,
    /// Takes each parcel with this probability.
    Partial(f64),
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    None,
    /// Every request with it is refused.
    Refused,
    /// The endpoint says of it alone that it will never take it.
    Rejected,
    /// The destination knows without asking.
    NotAccepted,
    /// The endpoint fails upon every request with it, until it has been healthy for a while.
    Breaks,
}

impl Line {
    pub(super) fn mood(&self, now: Duration) -> Mood {
        self.moods.iter().find(|(end, _)| *end > now).map_or(Mood::Healthy, |(_, mood)| *mood)
    }

    /// What a request with these records really takes.
    fn wire_of(&self, batch: &Batch) -> u64 {
        let records = batch.records().map(|record| record.payload_bytes() * 4 / 3 + RECORD_OVERHEAD);
        (records.sum::<u64>() as f64 * self.factor) as u64 + 500
    }
}

impl World {
    /// Bytes pass a delivery's sockets.
    pub(super) fn passes(&mut self, line: usize, sent: u64, received: u64) {
        let of = &self.lines[line];
        of.wire.count_sent(usize::try_from(sent).expect("not as much"));
        of.wire.count_received(usize::try_from(received).expect("not as much"));
        self.judge_passing(line, sent + received);
    }

    /// A request is given to its connection.
    pub(super) fn leaves(&mut self, line: usize, batch: &Batch) {
        let of = &self.lines[line];
        let bytes = match of.mood(self.now) {
            Mood::Refused => 0,
            // Nobody takes it, beyond what the connection's buffers hold.
            Mood::Silent => of.wire_of(batch).min(self.rng.u64(..5000)),
            _ => of.wire_of(batch),
        };
        // A connection has to be made after one was lost.
        let handshake = if bytes > 0 && self.rng.u8(..50) == 0 { self.rng.u64(1000..=4000) } else { 0 };
        self.passes(line, bytes + handshake, 0);
    }

    /// A request is at the endpoint.
    pub(super) fn reaches(&mut self, life: u32, line: usize, id: u64, parcels: &[Vec<usize>], answer_lost: bool) {
        let fail = |kind: FailureKind| Outcome::Failed(Failure { kind, message: kind.to_string(), retry_after: None });
        let of = &self.lines[line];
        let any = |flaw| parcels.iter().flatten().any(|index| of.log[*index].1 == flaw);
        let breaks = any(Flaw::Breaks) && self.now < of.healthy_since + BREAKS;
        let outcome = match of.mood(self.now) {
            _ if answer_lost => return self.take_all(line, parcels),
            Mood::Refused => {
                self.totals.never_left += 1;
                fail(FailureKind::Refused)
            }
            Mood::Silent => {
                let timeout = of.limits.request_timeout;
                if self.rng.bool() {
                    let parcels = parcels.to_vec();
                    let late = timeout.as_millis() as u64 * 2;
                    self.after(late, Event::Reaches { life, line, id, parcels, answer_lost: true });
                }
                let outcome = fail(FailureKind::TimedOut);
                return self.at(self.now + timeout, Event::Told { life, line, id, outcome });
            }
            Mood::Fails(kind) => {
                if kind == FailureKind::EndpointFailed && self.rng.bool() {
                    self.take_all(line, parcels);
                }
                // It may ask to be left alone.
                let asks = matches!(kind, FailureKind::Throttled | FailureKind::EndpointFailed) && self.rng.bool();
                let retry_after = asks.then(|| Duration::from_secs(self.rng.u64(1..=300)));
                let latency = Duration::from_secs(2);
                let of = &mut self.lines[line];
                of.asked = of.asked.max(self.now + latency + retry_after.unwrap_or_default());
                Outcome::Failed(Failure { kind, message: kind.to_string(), retry_after })
            }
            _ if any(Flaw::Refused) => fail(FailureKind::RequestInvalid),
            _ if breaks => fail(FailureKind::EndpointFailed),
            Mood::Garbage => {
                self.take_all(line, parcels);
                Outcome::Answered(vec![RecordOutcome::Accepted; parcels.len() + 1])
            }
            Mood::Reset => {
                self.take_all(line, parcels);
                fail(FailureKind::Disconnected)
            }
            Mood::Healthy => self.answer(line, parcels, 1.0),
            Mood::Partial(share) => self.answer(line, parcels, share),
        };
        let answered = match outcome {
            Outcome::Failed(Failure { kind: FailureKind::Refused | FailureKind::Disconnected, .. }) => 0,
            _ => 300 + parcels.len() as u64 * 40,
        };
        if life == self.life && self.runs {
            self.passes(line, 0, answered);
        }
        self.after(self.lines[line].latency_ms, Event::Told { life, line, id, outcome });
    }

    fn answer(&mut self, line: usize, parcels: &[Vec<usize>], share: f64) -> Outcome {
        let mut outcomes = Vec::new();
        for parcel in parcels {
            outcomes.push(match () {
                () if parcel.iter().any(|index| self.lines[line].log[*index].1 == Flaw::Rejected) => {
                    RecordOutcome::Rejected("never".to_owned())
                }
                () if self.rng.f64() < share => {
                    self.take(line, parcel);
                    RecordOutcome::Accepted
                }
                () if self.rng.bool() => RecordOutcome::Throttled("slower".to_owned()),
                () => RecordOutcome::Failed("something".to_owned()),
            });
        }
        Outcome::Answered(outcomes)
    }

    fn take_all(&mut self, line: usize, parcels: &[Vec<usize>]) {
        parcels.iter().for_each(|parcel| self.take(line, parcel));
    }

    /// The endpoint has these records now.
    fn take(&mut self, line: usize, records: &[usize]) {
        for index in records {
            if !matches!(self.lines[line].log[*index].1, Flaw::Refused | Flaw::Rejected) {
                self.judge_order(line, *index);
                self.lines[line].fates[*index].accepted += 1;
            }
        }
    }
}
