//! What the configurations of many tests begin with.

use super::port::free_port;

/// A data directory, an API on a port of its own, and the stream `telemetry` without a rate limit. Its table is still open: more
/// of its keys may follow.
pub(crate) fn head() -> String {
    let api = free_port();
    format!("data-dir = \"data\"\n[api]\nlisten = \"127.0.0.1:{api}\"\n[streams.telemetry]\nrate-limit = \"off\"\n")
}

/// The same and the source `devices`, a listener on this port. Its table is still open.
pub(crate) fn head_with_devices(mqtt: u16) -> String {
    let head = head();
    format!("{head}[sources.devices]\ntype = \"mqtt-broker\"\nlisten = \"127.0.0.1:{mqtt}\"\nstream = \"telemetry\"\n")
}
