//! A link to a server that can be cut: socat between the agent and it.

use std::net::SocketAddr;

use tempfile::TempDir;

use super::counterpart::program;
use super::daemon::{Daemon, command, listens};
use super::port::free_port;

/// A link to a port of this machine, on a port of its own. Cut, it refuses connections, and those there were are reset.
pub(crate) struct Link {
    port: u16,
    to: u16,
    socat: Option<Daemon>,
    dir: TempDir,
}

impl Link {
    /// One that is up.
    #[track_caller]
    pub(crate) fn to(server: u16) -> Self {
        let dir = TempDir::new().expect("a temporary directory can be made");
        let mut link = Self { port: free_port(), to: server, socat: None, dir };
        link.up();
        link
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Cuts it.
    pub(crate) fn down(&mut self) {
        // The processes that hold the connections are of the same group.
        self.socat = None;
    }

    /// Mends it.
    #[track_caller]
    pub(crate) fn up(&mut self) {
        let mut start = command(program("socat"));
        start.arg(format!("TCP-LISTEN:{},bind=127.0.0.1,reuseaddr,fork,backlog=64", self.port));
        start.arg(format!("TCP:127.0.0.1:{}", self.to));
        let mut socat = Daemon::spawn("socat", start, &self.dir.path().join("log"));
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        socat.wait_until("listens", || listens(address));
        self.socat = Some(socat);
    }
}
