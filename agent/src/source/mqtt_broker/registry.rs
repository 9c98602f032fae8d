//! Who is connected, by client id, and what clients that will be back left behind. Pure but for its lock.
//!
//! One connection per client id: a newer one asks the older to go, and begins only when that has said what it left. Of a
//! session that outlives its connection we remember the QoS 2 packet ids that were stored and not released, in memory: a
//! bounded number of sessions and ids, the oldest forgotten first, and none after a restart of the agent.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::session::Unreleased;

/// Sessions remembered: ten times the default number of connections, at some 200 bytes each.
const SESSIONS_MAX: usize = 10_000;

/// QoS 2 packet ids remembered over all sessions: some MB at most. A device has a handful between PUBLISH and PUBREL.
const UNRELEASED_MAX: usize = 100_000;

/// The sessions of one listener.
#[derive(Default)]
pub(super) struct Registry(Mutex<Sessions>);

#[derive(Default)]
struct Sessions {
    live: HashMap<Arc<str>, Live>,
    remembered: HashMap<Arc<str>, Remembered>,
    /// Of `remembered`, oldest first.
    ages: BTreeMap<u64, Arc<str>>,
    /// Packet ids in `remembered`.
    unreleased: usize,
    next_age: u64,
}

/// A client that is connected, or that has not yet said what it leaves.
struct Live {
    taken_over: CancellationToken,
    released: CancellationToken,
}

struct Remembered {
    unreleased: Unreleased,
    /// Never, if there is none.
    expires: Option<Instant>,
    age: u64,
}

/// The right to a client id, until it is released.
pub(super) struct Lease {
    registry: Arc<Registry>,
    client_id: Arc<str>,
    /// Cancelled when the client connects again.
    pub(super) taken_over: CancellationToken,
    released: CancellationToken,
}

/// A client id that another connection still has. It was asked to go.
pub(super) struct Taken {
    /// Cancelled when the client id may be claimed again.
    pub(super) released: CancellationToken,
}

impl Registry {
    /// Claims a client id. Gives what an earlier connection left, if there was one and the client does not ask to forget it.
    pub(super) fn claim(
        self: &Arc<Self>,
        client_id: &Arc<str>,
        clean: bool,
        now: Instant,
    ) -> Result<(Lease, Option<Unreleased>), Taken> {
        let mut sessions = self.lock();
        if let Some(live) = sessions.live.get(client_id) {
            live.taken_over.cancel();
            return Err(Taken { released: live.released.clone() });
        }
        let left = sessions.forget(client_id).filter(|left| !clean && left.expires.is_none_or(|at| now < at));
        let lease = Lease {
            registry: Arc::clone(self),
            client_id: Arc::clone(client_id),
            taken_over: CancellationToken::new(),
            released: CancellationToken::new(),
        };
        let live = Live { taken_over: lease.taken_over.clone(), released: lease.released.clone() };
        sessions.live.insert(Arc::clone(client_id), live);
        Ok((lease, left.map(|left| left.unreleased)))
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        // No panic leaves it half changed in a way that matters more than going on.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Gives the client id back and remembers what the session leaves for `expiry_secs`; 0: not at all, `u32::MAX`: for ever.
    ///
    /// Gives how many QoS 2 packet ids of other sessions had to be forgotten for it.
    pub(super) fn release(self, unreleased: Unreleased, expiry_secs: u32, now: Instant) -> usize {
        if expiry_secs == 0 {
            return 0;
        }
        let expires = (expiry_secs < u32::MAX).then(|| now + Duration::from_secs(expiry_secs.into()));
        self.registry.lock().remember(&self.client_id, unreleased, expires)
        // Dropped here, after the session is remembered: a claim that waits finds it.
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.registry.lock().live.remove(&self.client_id);
        self.released.cancel();
    }
}

impl Sessions {
    fn remember(&mut self, client_id: &Arc<str>, unreleased: Unreleased, expires: Option<Instant>) -> usize {
        let age = self.next_age;
        self.next_age += 1;
        self.unreleased += unreleased.len();
        self.ages.insert(age, Arc::clone(client_id));
        self.remembered.insert(Arc::clone(client_id), Remembered { unreleased, expires, age });
        let mut forgotten = 0;
        while self.remembered.len() > SESSIONS_MAX || (self.unreleased > UNRELEASED_MAX && self.remembered.len() > 1) {
            let Some((_, oldest)) = self.ages.first_key_value() else { break };
            let oldest = Arc::clone(oldest);
            forgotten += self.forget(&oldest).map_or(0, |left| left.unreleased.len());
        }
        forgotten
    }

    fn forget(&mut self, client_id: &Arc<str>) -> Option<Remembered> {
        let left = self.remembered.remove(client_id)?;
        self.ages.remove(&left.age);
        self.unreleased -= left.unreleased.len();
        Some(left)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    fn ids(ids: impl IntoIterator<Item = u16>) -> Unreleased {
        ids.into_iter().map(|id| NonZeroU16::new(id).expect("not zero")).collect()
    }

    fn claim(registry: &Arc<Registry>, client_id: &str, now: Instant) -> (Lease, Option<Unreleased>) {
        registry.claim(&client_id.into(), false, now).ok().expect("nobody has it")
    }

    #[test]
    fn what_a_session_leaves_comes_back_once() {
        let (registry, now) = (Arc::new(Registry::default()), Instant::now());
        let (lease, left) = claim(&registry, "a", now);
        assert_eq!(left, None);
        lease.release(ids([1, 2]), u32::MAX, now);
        let (lease, left) = claim(&registry, "a", now);
        assert_eq!(left, Some(ids([1, 2])));
        drop(lease);
        assert_eq!(claim(&registry, "a", now).1, None);
    }

    #[test]
    fn a_clean_session_and_an_expired_one_begin_anew() {
        let (registry, now) = (Arc::new(Registry::default()), Instant::now());
        claim(&registry, "a", now).0.release(ids([1]), 60, now);
        assert_eq!(claim(&registry, "a", now + Duration::from_secs(60)).1, None);
        claim(&registry, "a", now).0.release(ids([1]), 60, now);
        assert_eq!(registry.claim(&"a".into(), true, now).ok().expect("free").1, None);
        claim(&registry, "a", now).0.release(ids([1]), 0, now);
        assert_eq!(claim(&registry, "a", now).1, None);
    }

    #[test]
    fn the_older_connection_is_asked_to_go_and_waited_for() {
        let (registry, now) = (Arc::new(Registry::default()), Instant::now());
        let (lease, _) = claim(&registry, "a", now);
        let Err(taken) = registry.claim(&"a".into(), false, now) else { panic!("it is taken") };
        assert!(lease.taken_over.is_cancelled() && !taken.released.is_cancelled());
        lease.release(ids([7]), 10, now);
        assert!(taken.released.is_cancelled());
        assert_eq!(claim(&registry, "a", now).1, Some(ids([7])));
    }

    #[test]
    fn a_connection_that_panics_gives_its_client_id_back() {
        let (registry, now) = (Arc::new(Registry::default()), Instant::now());
        let lease = claim(&registry, "a", now).0;
        let panicked = std::thread::spawn(move || {
            let _lease = lease;
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        panicked.join().expect_err("it panicked");
        claim(&registry, "a", now);
    }

    #[test]
    fn the_oldest_sessions_are_forgotten_first() {
        let (registry, now) = (Arc::new(Registry::default()), Instant::now());
        for n in 0..=SESSIONS_MAX {
            claim(&registry, &n.to_string(), now).0.release(ids([]), u32::MAX, now);
        }
        assert_eq!(claim(&registry, "0", now).1, None);
        assert_eq!(claim(&registry, "1", now).1, Some(ids([])));
    }

    #[test]
    fn packet_ids_are_bounded_over_all_sessions() {
        let (registry, now) = (Arc::new(Registry::default()), Instant::now());
        assert_eq!(claim(&registry, "a", now).0.release(ids(1..=u16::MAX), u32::MAX, now), 0);
        assert_eq!(claim(&registry, "b", now).0.release(ids(1..=u16::MAX), u32::MAX, now), 65535);
        assert_eq!(claim(&registry, "a", now).1, None);
        assert_eq!(claim(&registry, "b", now).1, Some(ids(1..=u16::MAX)));
    }
}
