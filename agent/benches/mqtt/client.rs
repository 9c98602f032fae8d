//! The real program as a client of the broker, with a log on this machine's disk.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{Receiver, gateway::Gateway, mosquitto::CLIENT_ID, process::eventually};

const LOOK_AGAIN: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Client {
    gateway: Gateway,
    began: Instant,
}

impl Client {
    pub(crate) fn start(broker: u16, version: &str) -> Self {
        let gateway = Gateway::start(&format!(
            r#"
            [sources.plant]
            type = "mqtt"
            broker = "mqtt://127.0.0.1:{broker}"
            version = "{version}"
            client-id = "{CLIENT_ID}"
            topics = ["plant/#"]
            stream = "telemetry"
            "#
        ));
        eventually("the gateway is connected", || count(&gateway, "/sources/plant/connections") == Some(1));
        // What a broker holds comes at once; what is published, later.
        Self { gateway, began: Instant::now() }
    }
}

fn count(gateway: &Gateway, pointer: &str) -> Option<u64> {
    gateway.status().pointer(pointer)?.as_u64()
}

impl Receiver for Client {
    fn pid(&self) -> u32 {
        self.gateway.pid()
    }

    fn wait_for(&self, messages: u64) -> Duration {
        loop {
            let stored = count(&self.gateway, "/sources/plant/records").expect("it is told");
            if stored >= messages {
                return self.began.elapsed();
            }
            assert!(self.began.elapsed() < PATIENCE, "{stored} of {messages} are stored");
            thread::park_timeout(LOOK_AGAIN);
        }
    }
}
