//! The configuration that most tests run: devices publish to a listener, the stream `telemetry` keeps it, `cloud` delivers it.

use super::port::free_port;

/// The stream at the endpoint.
pub(crate) const CLOUD_STREAM: &str = "plant-telemetry";

/// A gateway to be; what a test wants otherwise it adds in TOML to the table in question.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    /// Port of the listener that devices publish to.
    pub(crate) mqtt: u16,
    /// Port of status and control.
    pub(crate) api: u16,
    pub(crate) endpoint: String,
    pub(crate) data_dir: String,
    /// Added to `[log]`.
    pub(crate) log: String,
    /// Added to `[streams.telemetry]`, which has two shards and no rate limit.
    pub(crate) stream: String,
    /// Added to `[sources.devices]`.
    pub(crate) source: String,
    /// Added to `[destinations.cloud]`.
    pub(crate) destination: String,
    /// More tables.
    pub(crate) more: String,
}

impl Gateway {
    /// A gateway that delivers to this endpoint, on ports of its own.
    pub(crate) fn to(endpoint: &str) -> Self {
        Self {
            mqtt: free_port(),
            api: free_port(),
            endpoint: endpoint.to_owned(),
            data_dir: "data".to_owned(),
            log: String::new(),
            stream: String::new(),
            source: String::new(),
            destination: String::new(),
            more: String::new(),
        }
    }

    pub(crate) fn configuration(&self) -> String {
        let Self { mqtt, api, endpoint, data_dir, log, stream, source, destination, more } = self;
        format!(
            r#"
            data-dir = "{data_dir}"
            [api]
            listen = "127.0.0.1:{api}"
            [log]
            {log}
            [streams.telemetry]
            shards = 2
            rate-limit = "off"
            {stream}
            [sources.devices]
            type = "mqtt-broker"
            listen = "127.0.0.1:{mqtt}"
            stream = "telemetry"
            {source}
            [destinations.cloud]
            type = "kinesis"
            from = "telemetry"
            stream = "{CLOUD_STREAM}"
            region = "eu-west-1"
            endpoint = "{endpoint}"
            {destination}
            {more}
            "#
        )
    }
}
