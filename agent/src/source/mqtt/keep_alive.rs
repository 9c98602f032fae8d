//! Whether the broker is still there. Pure.
//!
//! What we send within the interval proves us alive to the broker; what it sends within twice the interval proves it
//! alive to us, since an idle broker answers our pings. While we do not read, for want of room, its silence says nothing.

use std::time::{Duration, Instant};

/// When something was last heard and sent.
#[derive(Debug)]
pub(super) struct KeepAlive {
    interval: Duration,
    heard: Instant,
    sent: Instant,
    /// When we last asked whether it is there.
    asked: Instant,
    listening: bool,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Wait(Instant),
    Ping,
    /// It is gone; nothing moved for this long.
    GiveUp(Duration),
}

impl KeepAlive {
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, heard: now, sent: now, asked: now, listening: true }
    }

    /// Bytes came.
    pub(super) fn on_heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Bytes went.
    pub(super) fn on_sent(&mut self, now: Instant) {
        self.sent = now;
    }

    /// Whether we read at all from now on.
    pub(super) fn listen(&mut self, listening: bool, now: Instant) {
        if listening && !self.listening {
            self.heard = now;
        }
        self.listening = listening;
    }

    /// `unsent` says that there are bytes that the connection has not taken yet, a ping among them if it was time for one.
    pub(super) fn step(&mut self, unsent: bool, now: Instant) -> Step {
        let give_up = 2 * self.interval;
        let heard_ago = now.saturating_duration_since(self.heard);
        let sent_ago = now.saturating_duration_since(self.sent);
        if self.listening && heard_ago >= give_up {
            return Step::GiveUp(heard_ago);
        }
        if unsent && sent_ago >= give_up {
            return Step::GiveUp(sent_ago);
        }
        // Acknowledgements are sent and never answered: a broker that has nothing else to say has to be asked as well.
        let ask = self.listening && self.asked <= self.heard;
        if !unsent && (sent_ago >= self.interval || ask && heard_ago >= self.interval) {
            self.asked = now;
            return Step::Ping;
        }
        let stuck = self.sent + if unsent { give_up } else { self.interval };
        let silent = self.heard + if ask && !unsent { self.interval } else { give_up };
        Step::Wait(if self.listening { stuck.min(silent) } else { stuck })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn keep_alive() -> (KeepAlive, Instant) {
        let now = Instant::now();
        (KeepAlive::new(10 * SECOND, now), now)
    }

    #[test]
    fn a_broker_that_only_gets_acknowledgements_is_asked_too() {
        let (mut alive, start) = keep_alive();
        let mut asked = 0;
        for second in 1..100 {
            let now = start + second * SECOND;
            alive.on_sent(now);
            match alive.step(false, now) {
                Step::Ping => {
                    asked += 1;
                    alive.on_heard(now);
                }
                Step::Wait(until) => assert!(until > now),
                Step::GiveUp(_) => panic!("given up after {second} s"),
            }
        }
        assert_eq!(asked, 9);
    }

    #[test]
    fn an_idle_connection_is_kept_alive_by_pings() {
        let (mut alive, start) = keep_alive();
        assert_eq!(alive.step(false, start), Step::Wait(start + 10 * SECOND));
        for round in 1..50 {
            let now = start + round * 10 * SECOND;
            assert_eq!(alive.step(false, now), Step::Ping);
            alive.on_sent(now);
            alive.on_heard(now + SECOND);
        }
    }

    #[test]
    fn a_silent_broker_is_given_up() {
        let (mut alive, start) = keep_alive();
        assert_eq!(alive.step(false, start + 10 * SECOND), Step::Ping);
        alive.on_sent(start + 10 * SECOND);
        assert_eq!(alive.step(false, start + 19 * SECOND), Step::Wait(start + 20 * SECOND));
        assert_eq!(alive.step(false, start + 20 * SECOND), Step::GiveUp(20 * SECOND));
    }

    #[test]
    fn silence_says_nothing_while_we_do_not_read_but_pings_go_on() {
        let (mut alive, start) = keep_alive();
        alive.listen(false, start);
        let later = start + 3600 * SECOND;
        assert_eq!(alive.step(false, later), Step::Ping);
        alive.on_sent(later);
        assert_eq!(alive.step(false, later), Step::Wait(later + 10 * SECOND));
        alive.listen(true, later);
        assert_eq!(alive.step(false, later), Step::Wait(later + 10 * SECOND));
        assert_eq!(alive.step(true, later + 20 * SECOND), Step::GiveUp(20 * SECOND));
    }

    #[test]
    fn a_connection_that_takes_nothing_is_given_up() {
        let (mut alive, start) = keep_alive();
        alive.listen(false, start);
        assert_eq!(alive.step(true, start + 10 * SECOND), Step::Wait(start + 20 * SECOND));
        assert_eq!(alive.step(true, start + 20 * SECOND), Step::GiveUp(20 * SECOND));
    }
}
