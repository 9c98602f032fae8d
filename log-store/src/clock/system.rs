//! The machine's clocks. The only module that reads the real ones.

#![expect(clippy::disallowed_methods, reason = "this is where the real clocks, and what /proc tells of them, are read")]

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};

use super::{Clock, Now, Timestamp, Trust};

/// Goes on while the machine is suspended, which `CLOCK_MONOTONIC` and `Instant` do not: a record gets older then, too.
#[cfg(target_os = "linux")]
const SINCE_BOOT: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const SINCE_BOOT: ClockId = ClockId::Monotonic;

/// By what the wall clock is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrustRule {
    /// While the kernel says that something synchronises it, such as NTP (`adjtimex(2)`). A container sees the host's word.
    /// On 32-bit machines, while systemd-timesyncd says so.
    #[default]
    Kernel,
    /// From the start: for machines whose clock has a battery, and for containers in which the kernel may not be asked.
    Always,
    /// Never. Retention then goes by monotonic time alone.
    Never,
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    rule: TrustRule,
    /// Tells boots apart where the system does not.
    started: Duration,
}

impl SystemClock {
    /// The machine's clocks, whose wall clock is trusted while the kernel says that it is synchronised.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::trusted_by(TrustRule::default())
    }

    /// The machine's clocks, whose wall clock is trusted by this rule.
    #[must_use]
    pub fn trusted_by(rule: TrustRule) -> Arc<Self> {
        Arc::new(Self { rule, started: since_boot() })
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { wall: Timestamp(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)), since_boot: since_boot() }
    }

    fn boot(&self) -> u32 {
        // Without the id (not Linux) every process counts as a boot: ages then are underestimated at the most.
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        crc32fast::hash(id.unwrap_or_else(|_| format!("{} {:?}", std::process::id(), self.started)).as_bytes())
    }

    fn trust(&self) -> Trust {
        match self.rule {
            TrustRule::Kernel if is_synchronised() => Trust::Synchronised,
            TrustRule::Always => Trust::Vouched,
            TrustRule::Kernel | TrustRule::Never => Trust::Unknown,
        }
    }
}

fn since_boot() -> Duration {
    let time = clock_gettime(SINCE_BOOT);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

/// Whether the kernel takes its clock for synchronised. What may not be asked is not so.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn is_synchronised() -> bool {
    /// What `adjtimex(2)` returns while `STA_UNSYNC` is set.
    const TIME_ERROR: i32 = 5;
    // Nothing is set in it, so that it only reads.
    let mut asked = rtime_clock::adjtime::Timex::new();
    rtime_clock::adjtime::adjtimex(&mut asked).is_ok_and(|state| state != TIME_ERROR)
}

/// Whether systemd-timesyncd has synchronised the clock lately: it touches a file at every answer of an NTP server.
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
fn is_synchronised() -> bool {
    let touched = std::fs::metadata("/run/systemd/timesync/synchronized").and_then(|file| file.modified());
    touched.is_ok_and(|touched| is_recent(touched, SystemTime::now()))
}

/// Whether an answer of this time still tells something of the clock: it asks at least every 2,048 s, and a clock that was
/// set by hand since shows another time than soon after.
#[cfg(any(test, not(all(target_os = "linux", target_pointer_width = "64"))))]
fn is_recent(answer: SystemTime, now: SystemTime) -> bool {
    now.duration_since(answer).is_ok_and(|since| since <= Duration::from_secs(2 * 2048))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_boot_for_all_processes_and_its_time_goes_on() {
        let (first, second) = (SystemClock::new(), SystemClock::new());
        assert_eq!(first.boot(), second.boot());
        let (before, after) = (first.now(), second.now());
        assert!(Duration::ZERO < before.since_boot && before.since_boot <= after.since_boot);
    }

    #[test]
    fn an_answer_tells_nothing_of_a_clock_that_was_set_since() {
        let answer = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let (hour, year) = (Duration::from_secs(3600), Duration::from_secs(31_557_600));
        assert!(is_recent(answer, answer) && is_recent(answer, answer + hour));
        assert!(!is_recent(answer, answer + year) && !is_recent(answer, answer - year));
    }

    #[test]
    fn a_person_may_overrule_the_kernel() {
        assert_eq!(SystemClock::trusted_by(TrustRule::Always).trust(), Trust::Vouched);
        assert_eq!(SystemClock::trusted_by(TrustRule::Never).trust(), Trust::Unknown);
        assert_ne!(SystemClock::new().trust(), Trust::Vouched);
    }
}
