//! Moto: a second Kinesis server, written by other people than kinesalite. It does not do as AWS does when a shard is split: the
//! list has the new shards and the split one as closed, and the closed one goes on taking all that belonged to it, for ever.

use std::net::SocketAddr;

use tempfile::TempDir;

use super::counterpart::program;
use super::daemon::{Daemon, command};
use super::http;
use super::kinesis::Kinesis;
use super::port::free_port;

/// Its Kinesis says of itself that it is not safe for concurrency: two requests at once may give two records one number, and
/// then one takes the other's place. So it gets them one after the other; all else is as its own program has it.
const ONE_AT_A_TIME: &str = r"
import sys, threading
import moto.server

class OneAtATime(moto.server.DomainDispatcherApplication):
    turn = threading.Lock()

    def __call__(self, environ, start_response):
        with self.turn:
            return super().__call__(environ, start_response)

moto.server.DomainDispatcherApplication = OneAtATime
moto.server.main(sys.argv[1:])
";

/// A running server; it forgets everything when it stops.
pub(crate) struct Moto {
    port: u16,
    daemon: Daemon,
    _dir: TempDir,
}

impl Moto {
    /// Starts one without streams.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let dir = TempDir::new().expect("a temporary directory can be made");
        let port = free_port();
        let mut start = command(program("python"));
        start.args(["-c", ONE_AT_A_TIME, "-H", "127.0.0.1", "-p", &port.to_string()]);
        let mut daemon = Daemon::spawn("moto", start, &dir.path().join("log"));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        daemon.wait_until("answers", || http::get(address, "/moto-api/").is_ok());
        Self { port, daemon, _dir: dir }
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
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
