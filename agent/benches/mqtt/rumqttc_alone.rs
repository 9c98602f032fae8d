//! rumqttc in a process of its own: receives, acknowledges by hand, forgets.

use std::{
    cell::RefCell,
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, QoS};

use crate::mosquitto::CLIENT_ID;

const BROKER: &str = "FOREBAY_BENCH_BROKER";
/// Acknowledgements that may wait for the connection.
const REQUESTS_MAX: usize = 100_000;

pub(crate) struct Alone {
    child: Child,
    output: RefCell<BufReader<ChildStdout>>,
    began: Instant,
}

/// Whether this process is to be rumqttc.
pub(crate) fn is_asked_for() -> bool {
    std::env::var_os(BROKER).is_some()
}

/// Receives until it is ended; prints how many it has after each thousand.
pub(crate) fn receive() {
    let port = std::env::var(BROKER).ok().and_then(|port| port.parse().ok()).expect("a port");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut options = MqttOptions::new(CLIENT_ID, "127.0.0.1", port);
        options.set_clean_session(false).set_manual_acks(true);
        let (client, mut events) = AsyncClient::new(options, REQUESTS_MAX);
        let mut received = 0_u64;
        loop {
            match events.poll().await.expect("a connection") {
                Event::Incoming(Incoming::ConnAck(_)) => {
                    client.subscribe("plant/#", QoS::AtLeastOnce).await.expect("it runs");
                }
                Event::Incoming(Incoming::SubAck(_)) => println!("subscribed"),
                Event::Incoming(Incoming::Publish(publish)) => {
                    client.try_ack(&publish).expect("room for acknowledgements");
                    received += 1;
                    if received.is_multiple_of(1000) {
                        println!("{received}");
                    }
                }
                _ => {}
            }
        }
    });
}

impl Alone {
    pub(crate) fn start(broker: u16) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        let mut child = command
            .env(BROKER, broker.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started");
        let mut output = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        let mut line = String::new();
        output.read_line(&mut line).expect("it runs");
        Self { child, output: RefCell::new(output), began: Instant::now() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has received this many; how long that took since it was ready.
    pub(crate) fn wait_for(&self, messages: u64) -> Duration {
        let mut output = self.output.borrow_mut();
        let mut received = 0;
        while received < messages {
            let mut line = String::new();
            assert!(output.read_line(&mut line).expect("it runs") > 0, "it ended after {received} messages");
            received = line.trim().parse().unwrap_or(received);
        }
        self.began.elapsed()
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // It may have ended by itself, which was told on its standard error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
