//! Pymodbus: real Modbus devices, over TCP or at the end of a cable.

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;

use super::counterpart::program;
use super::daemon::{Daemon, command, listens};
use super::port::free_port;

/// A server with units 1 and 2; modbus_server.py says what they hold.
pub(crate) struct ModbusServer {
    place: Vec<String>,
    daemon: Daemon,
    dir: TempDir,
}

impl ModbusServer {
    /// Over TCP, on a free port.
    #[track_caller]
    pub(crate) fn tcp() -> Self {
        let port = free_port();
        Self::start(vec!["tcp".into(), port.to_string()])
    }

    /// On a serial line.
    #[track_caller]
    pub(crate) fn rtu(line: &Path) -> Self {
        Self::start(vec!["rtu".into(), line.display().to_string()])
    }

    /// Its port, if it has one.
    pub(crate) fn port(&self) -> u16 {
        self.place[1].parse().expect("a server over TCP")
    }

    /// Ends it without notice.
    pub(crate) fn kill9(&mut self) {
        self.daemon.kill9();
    }

    /// Starts it again where it was.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.daemon = Self::spawn(&self.place, &self.dir);
    }

    #[track_caller]
    fn start(place: Vec<String>) -> Self {
        let dir = TempDir::new().expect("a temporary directory can be made");
        let daemon = Self::spawn(&place, &dir);
        Self { place, daemon, dir }
    }

    #[track_caller]
    fn spawn(place: &[String], dir: &TempDir) -> Daemon {
        let mut start = command(program("modbus-python"));
        start.args(["-c", include_str!("modbus_server.py")]).args(place);
        let mut daemon = Daemon::spawn("pymodbus", start, &dir.path().join("log"));
        if place[0] == "tcp" {
            let address = SocketAddr::from(([127, 0, 0, 1], place[1].parse().expect("a port")));
            daemon.wait_until("listens", || listens(address));
        }
        daemon
    }
}
