//! Ports on 127.0.0.1 that nobody listens on.

use std::net::TcpListener;
use std::process;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range from which the kernel takes the ports of outgoing connections (32768 and up): a port of ours stays
/// free between asking for it and listening on it, and while a server is down for a test.
const FIRST: u16 = 15_000;
const COUNT: u32 = 17_000;

/// A port that is free now and is handed out only once by this process.
pub(crate) fn free_port() -> u16 {
    // Processes start at different places, so that two test runs on one machine seldom meet.
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(process::id().wrapping_mul(61) % COUNT));
    for _ in 0..COUNT {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + u16::try_from(offset).expect("the range lies below 65536");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} on among {COUNT}");
}
