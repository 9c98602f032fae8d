//! The simulated devices: real MQTT clients, each with a connection of its own, that remember what was acknowledged.

use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{SharedLedger, lock};

const VEHICLES: usize = 6;
const SENSORS: usize = 10;
/// Between two messages of one device.
const VEHICLE_PERIOD: Duration = Duration::from_millis(10);
const SENSOR_PERIOD: Duration = Duration::from_millis(20);
/// A device that gets no acknowledgement in this time connects again and repeats the message.
const PATIENCE: Duration = Duration::from_secs(5);
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

/// All devices.
pub(super) struct Fleet(JoinSet<()>);

impl Fleet {
    /// Starts them; each stops after the message it is at once `stop` is cancelled.
    pub(super) fn start(port: u16, ledger: &SharedLedger, stop: &CancellationToken) -> Self {
        let mut tasks = JoinSet::new();
        let vehicles = (0..VEHICLES).map(|i| (format!("fleet/truck-{i}/position"), VEHICLE_PERIOD));
        let sensors = (0..SENSORS).map(|i| (format!("greenhouse/sensor-{i}/climate"), SENSOR_PERIOD));
        for (topic, period) in vehicles.chain(sensors) {
            let device = Device { topic, period, port, ledger: ledger.clone() };
            tasks.spawn(device.run(stop.clone()));
        }
        Self(tasks)
    }

    /// Waits until all have stopped.
    pub(super) async fn finish(mut self) {
        while self.0.join_next().await.is_some() {}
    }
}

struct Device {
    topic: String,
    period: Duration,
    port: u16,
    ledger: SharedLedger,
}

impl Device {
    async fn run(self, stop: CancellationToken) {
        let mut number = 0;
        while !stop.is_cancelled() {
            // A new session each time: what was not acknowledged is this loop's to repeat, not the client's.
            let (client, events) = self.connect();
            self.publish_from(&mut number, client, events, &stop).await;
            if !stop.is_cancelled() {
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
        }
    }

    fn connect(&self) -> (AsyncClient, EventLoop) {
        let mut options = MqttOptions::new(self.topic.replace('/', "-"), "127.0.0.1", self.port);
        options.set_keep_alive(Duration::from_secs(5)).set_clean_session(true);
        AsyncClient::new(options, 4)
    }

    /// Publishes one message after the other until the connection fails or the demo stops.
    async fn publish_from(
        &self,
        number: &mut u64,
        client: AsyncClient,
        mut events: EventLoop,
        stop: &CancellationToken,
    ) {
        let mut next = tokio::time::interval(self.period);
        next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = next.tick() => {}
                polled = events.poll() => match polled {
                    Ok(_) => continue,
                    Err(_) => return,
                },
            }
            let sent = client.try_publish(&self.topic, QoS::AtLeastOnce, false, self.payload(*number));
            if sent.is_err() {
                return;
            }
            lock(&self.ledger).published(&self.topic, *number);
            match tokio::time::timeout(PATIENCE, acknowledgement(&mut events)).await {
                Ok(Ok(())) => lock(&self.ledger).acknowledged(&self.topic, *number),
                _ => return,
            }
            *number += 1;
        }
    }

    fn payload(&self, number: u64) -> Vec<u8> {
        let wave = (number as f64 / 50.0).sin();
        let reading = serde_json::json!({
            "device": self.topic,
            "n": number,
            "temperature": 21.5 + 4.0 * wave,
            "latitude": 48.137 + wave / 100.0,
            "longitude": 11.575 - wave / 100.0,
        });
        reading.to_string().into_bytes()
    }
}

/// Waits for the one acknowledgement that is due.
async fn acknowledgement(events: &mut EventLoop) -> Result<(), rumqttc::ConnectionError> {
    loop {
        if let Event::Incoming(Packet::PubAck(_)) = events.poll().await? {
            return Ok(());
        }
    }
}
