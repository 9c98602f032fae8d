//! kinesis-local: a third Kinesis server, and the one of them that keeps what it is sent in CBOR as it was.

use std::net::SocketAddr;

use tempfile::TempDir;

use super::counterpart::program;
use super::daemon::{Daemon, command};
use super::http;
use super::kinesis::Kinesis;
use super::port::free_port;

/// A running server; it forgets everything when it stops.
pub(crate) struct KinesisLocal {
    port: u16,
    _daemon: Daemon,
    _dir: TempDir,
}

impl KinesisLocal {
    /// Starts one without streams.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let dir = TempDir::new().expect("a temporary directory can be made");
        let (port, tls) = (free_port(), free_port());
        let mut start = command(program("kinesis-local"));
        // Its certificate lies beside it.
        let installed = program("kinesis-local");
        let counterparts = installed.ancestors().nth(2).expect("it is in .counterparts/bin");
        start.current_dir(counterparts.join("kinesis-local/node_modules/kinesis-local"));
        start.env("KINESIS_MOCK_PLAIN_PORT", port.to_string()).env("KINESIS_MOCK_TLS_PORT", tls.to_string());
        start.env("SHARD_LIMIT", "100");
        let mut daemon = Daemon::spawn("kinesis-local", start, &dir.path().join("log"));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        daemon.wait_until("answers", || http::get(address, "/healthcheck").is_ok());
        Self { port, _daemon: daemon, _dir: dir }
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its streams, through boto3.
    pub(crate) fn kinesis(&self) -> Kinesis {
        Kinesis::at(&self.endpoint())
    }
}
