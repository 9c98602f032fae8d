//! Proxies that other people wrote: ways out that a gateway may be given.

use std::net::SocketAddr;

use tempfile::TempDir;

use super::counterpart::program;
use super::daemon::{Daemon, command, listens};
use super::port::free_port;

/// A running proxy, which wants to know who comes.
pub(crate) struct OutgoingProxy {
    address: SocketAddr,
    scheme: &'static str,
    daemon: Daemon,
    _dir: TempDir,
}

impl OutgoingProxy {
    /// proxy.py: HTTP, with CONNECT.
    #[track_caller]
    pub(crate) fn http(user: &str, password: &str) -> Self {
        Self::start("http", |start, port, dir| {
            start.args(["--hostname", "127.0.0.1", "--port", port, "--num-workers", "1", "--num-acceptors", "1"]);
            start.args(["--data-dir", dir, "--basic-auth", &format!("{user}:{password}")]);
        })
    }

    /// microsocks: SOCKS 5.
    #[track_caller]
    pub(crate) fn socks(user: &str, password: &str) -> Self {
        Self::start("socks5", |start, port, _| {
            start.args(["-i", "127.0.0.1", "-p", port, "-u", user, "-P", password]);
        })
    }

    #[track_caller]
    fn start(scheme: &'static str, arguments: impl FnOnce(&mut std::process::Command, &str, &str)) -> Self {
        let dir = TempDir::new().expect("a temporary directory can be made");
        let port = free_port();
        let name = if scheme == "http" { "http-proxy" } else { "microsocks" };
        let mut start = command(program(name));
        arguments(&mut start, &port.to_string(), &dir.path().display().to_string());
        let mut daemon = Daemon::spawn(name, start, &dir.path().join("log"));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        daemon.wait_until("listens", || listens(address));
        Self { address, scheme, daemon, _dir: dir }
    }

    /// As a destination's `proxy` wants it.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// As the environment's variables want it.
    pub(crate) fn url_with(&self, user: &str, password: &str) -> String {
        format!("{}://{user}:{password}@{}", self.scheme, self.address)
    }

    /// Ends it without notice.
    pub(crate) fn kill9(&mut self) {
        self.daemon.kill9();
    }
}
