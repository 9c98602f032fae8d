//! Kinesalite: a Kinesis server in memory, whose answers were once compared with AWS's own.

use std::net::SocketAddr;

use tempfile::TempDir;

use super::counterpart::program;
use super::daemon::{Daemon, command};
use super::http;
use super::kinesis::Kinesis;
use super::port::free_port;

/// A running server; it forgets everything when it stops.
pub(crate) struct Kinesalite {
    port: u16,
    daemon: Daemon,
    _dir: TempDir,
}

impl Kinesalite {
    /// Starts one without streams.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let dir = TempDir::new().expect("a temporary directory can be made");
        let port = free_port();
        let mut start = command(program("kinesalite"));
        start.args(["--port", &port.to_string(), "--shardLimit", "100"]);
        start.args(["--createStreamMs", "0", "--deleteStreamMs", "0"]);
        let mut daemon = Daemon::spawn("kinesalite", start, &dir.path().join("log"));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        daemon.wait_until("answers", || http::get(address, "/").is_ok());
        Self { port, daemon, _dir: dir }
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its streams, through boto3.
    pub(crate) fn kinesis(&self) -> Kinesis {
        Kinesis::at(&self.endpoint())
    }

    /// Ends it without notice.
    pub(crate) fn kill9(&mut self) {
        self.daemon.kill9();
    }
}
