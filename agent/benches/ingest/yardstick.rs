//! What this machine makes of programs that were measured elsewhere, too: rumqttc, which receives, acknowledges and forgets, and
//! [`kinesalite`], which computes.
//!
//! Seconds of a processor mean little on another machine, or on the same one beside other work; this tells how much. On a machine that is slower
//! than the one that the aims come from, as kinesalite tells it, the aims are judged in seconds of that one
//! (docs/decisions/0016-seconds-of-another-machine.md): of all that was measured there, that differs least from here.

use crate::{
    kinesalite,
    mosquitto::Mosquitto,
    process::Usage,
    rumqttc_alone::Alone,
    traffic::{Payload, TOPICS_PER_CONNECTION, Traffic},
};

/// What rumqttc needs on the machine of the aims: CPU seconds per million messages of 100 bytes.
const RUMQTTC_THERE: f64 = 2.2;

/// What kinesalite takes there, in records per second: between 10,800 and 12,200.
const KINESALITE_THERE: f64 = 11_500.0;

/// How many seconds of a processor here are one second there, as far as it computes.
pub(crate) fn seconds_here() -> f64 {
    let here = kinesalite::records_per_second();
    let seconds = KINESALITE_THERE / here;
    println!(
        "\nkinesalite takes {here:.0} records/s here, and {KINESALITE_THERE:.0} where the aims come from: {seconds:.2} s here are one there"
    );
    seconds
}

/// How many seconds here count as one. On a machine where JavaScript runs faster they count as they are: what forebay spends most on need
/// not be as much faster there.
pub(crate) fn allowed(seconds_here: f64) -> f64 {
    seconds_here.max(1.0)
}

/// What rumqttc needs here.
pub(crate) struct Yardstick {
    pub(crate) messages_per_second: f64,
    pub(crate) cpu_per_million: f64,
}

impl Yardstick {
    /// Measures.
    pub(crate) fn take(messages: u64) -> Self {
        let traffic = Traffic::new(Payload::Random(100), TOPICS_PER_CONNECTION, messages);
        let broker = Mosquitto::start();
        // All at once, so that it never has to wait for the broker and wake up again: at its cheapest.
        broker.hold_for_session();
        traffic.publish(broker.port);
        let alone = Alone::start(broker.port);
        let before = Usage::of(alone.pid());
        let took = alone.wait_for(messages);
        let cpu = Usage::of(alone.pid()).since(&before).cpu;
        let messages = messages as f64;
        Self { messages_per_second: messages / took.as_secs_f64(), cpu_per_million: cpu.as_secs_f64() / messages * 1e6 }
    }

    /// What it needs here, in units of what it needed there.
    pub(crate) fn to_there(&self) -> f64 {
        self.cpu_per_million / RUMQTTC_THERE
    }
}
