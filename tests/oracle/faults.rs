//! An endpoint that misbehaves in every way it knows, and a link that comes and goes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;

use crate::support::upstream::PutRecords;
use crate::support::{Reply, Upstream};

/// Requests answered by name of the answer.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<BTreeMap<String, u32>>>);

/// What goes wrong.
pub(super) struct Faults {
    counts: Counts,
}

impl Faults {
    /// From now on about a third of all requests fail, in whole or in part.
    pub(super) fn begin(upstream: &Upstream, mut random: Rng) -> Self {
        let counts = Counts::default();
        let answers = counts.clone();
        upstream.otherwise(move |request| {
            let reply = choose(request, &mut random);
            answers.count(name(&reply));
            reply
        });
        Self { counts }
    }

    /// Takes the link down or up, or leaves it as it is.
    pub(super) fn change_link(&self, upstream: &Upstream, random: &mut Rng) {
        match random.u8(0..4) {
            0 => {
                self.counts.count("link down".to_owned());
                upstream.link_down();
            }
            _ => upstream.link_up(),
        }
    }

    /// Everything works again.
    pub(super) fn end(&self, upstream: &Upstream) {
        upstream.behave();
        upstream.link_up();
    }

    /// How often what happened.
    pub(super) fn told(&self) -> String {
        format!("{:?}", self.counts.0.lock().expect("counting does not panic"))
    }
}

impl Counts {
    fn count(&self, what: String) {
        *self.0.lock().expect("counting does not panic").entry(what).or_default() += 1;
    }
}

fn choose(request: &PutRecords, random: &mut Rng) -> Reply {
    let some = |random: &mut Rng| {
        let share = random.f64();
        (0..request.records.len()).filter(|_| random.f64() < share).collect::<Vec<_>>()
    };
    match random.u8(0..100) {
        0..7 => Reply::Throttle(some(random)),
        7..14 => Reply::Fail(some(random)),
        14..17 => Reply::server_error(),
        17..20 => Reply::throttle_all(),
        20..22 => Reply::Html { status: 502 },
        22..23 => Reply::Html { status: 200 },
        23..24 => Reply::Empty,
        24..26 => Reply::Close,
        26..28 => Reply::Reset,
        28..32 => Reply::AcceptThenReset,
        32 => Reply::Hang,
        33 => Reply::AcceptThenHang,
        34..40 => Reply::After(Duration::from_millis(random.u64(1..60)), Box::new(Reply::Accept)),
        _ => Reply::Accept,
    }
}

fn name(reply: &Reply) -> String {
    let shown = format!("{reply:?}");
    let end = shown.find(|c: char| !c.is_alphanumeric()).unwrap_or(shown.len());
    shown[..end].to_owned()
}
