//! What this machine makes of a program that was measured elsewhere, too: rumqttc, which receives, acknowledges and forgets.
//!
//! Seconds of a processor mean little on another machine, or on the same one beside other work; this tells how much. The aims are judged
//! as they are.

use crate::{
    mosquitto::Mosquitto,
    process::Usage,
    rumqttc_alone::Alone,
    traffic::{Payload, TOPICS_PER_CONNECTION, Traffic},
};

/// CPU seconds per million messages of 100 bytes, on the machine of the aims.
const THERE: f64 = 2.2;

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
        self.cpu_per_million / THERE
    }
}
