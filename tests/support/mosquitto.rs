//! Mosquitto: a real broker, and the real clients that publish as devices do.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::counterpart::program;
use super::daemon::{Daemon, PATIENCE, command};
use super::port::free_port;

/// A broker on 127.0.0.1 that keeps its sessions over a restart.
pub(crate) struct Mosquitto {
    port: u16,
    daemon: Daemon,
    dir: TempDir,
}

impl Mosquitto {
    /// Starts one that lets everybody in, unless the lines added to its configuration speak of `allow_anonymous`.
    pub(crate) fn start(configuration: &str) -> Self {
        let dir = TempDir::new().expect("a temporary directory can be made");
        let port = free_port();
        let anonymous = if configuration.contains("allow_anonymous") { "" } else { "allow_anonymous true" };
        // As root it would become a user that cannot write the directory, or that does not exist.
        let text = format!(
            "listener {port} 127.0.0.1\n{anonymous}\nuser root\npersistence true\npersistence_location {}/\n\
             max_queued_messages 0\nlog_dest stderr\n{configuration}\n",
            dir.path().display(),
        );
        fs::write(dir.path().join("mosquitto.conf"), text).expect("a temporary directory takes a file");
        let daemon = Self::spawn(&dir, port);
        Self { port, daemon, dir }
    }

    /// The port of its plain listener.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `mqtt://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// A directory of its own, for certificates and password files.
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Publishes through it; `arguments` as for `mosquitto_pub`, without host and port.
    #[track_caller]
    pub(crate) fn publish(&self, arguments: &[&str]) {
        mosquitto_pub(self.port, arguments);
    }

    /// Stops it in good order: it saves its sessions.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.daemon.terminate(PATIENCE);
    }

    /// Ends it without notice.
    pub(crate) fn kill9(&mut self) {
        self.daemon.kill9();
    }

    /// Stops its processor time: connections stay open and nothing answers.
    pub(crate) fn pause(&self) {
        self.daemon.signal(Signal::STOP);
    }

    /// Ends [`Mosquitto::pause`].
    pub(crate) fn resume(&self) {
        self.daemon.signal(Signal::CONT);
    }

    /// Starts it again where it was.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.daemon.kill9();
        self.daemon = Self::spawn(&self.dir, self.port);
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        self.daemon.log()
    }

    #[track_caller]
    fn spawn(dir: &TempDir, port: u16) -> Daemon {
        let mut start = command(program("mosquitto"));
        start.arg("-c").arg(dir.path().join("mosquitto.conf"));
        let mut daemon = Daemon::spawn("mosquitto", start, &dir.path().join("log"));
        daemon.wait_until("answers CONNECT", || answers_connect(SocketAddr::from(([127, 0, 0, 1], port))));
        daemon
    }
}

/// Publishes as a device would, to a broker or to forebay's own listener; returns once `mosquitto_pub` has done all that
/// its quality of service asks, panics when it fails.
#[track_caller]
pub(crate) fn mosquitto_pub(port: u16, arguments: &[&str]) {
    let output = try_mosquitto_pub(port, arguments);
    assert_success(&output, "mosquitto_pub", arguments);
}

/// As [`mosquitto_pub`], for tests in which it is refused.
pub(crate) fn try_mosquitto_pub(port: u16, arguments: &[&str]) -> Output {
    client("mosquitto_pub", port, arguments).stdin(Stdio::null()).output().expect("mosquitto_pub can be started")
}

/// Publishes every line as a message over one connection.
#[track_caller]
pub(crate) fn mosquitto_pub_lines(port: u16, arguments: &[&str], lines: &str) {
    let mut publisher = client("mosquitto_pub", port, arguments)
        .arg("-l")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mosquitto_pub can be started");
    let mut input = publisher.stdin.take().expect("its input is a pipe");
    // A publisher that was refused closes the pipe; its exit status then tells the story.
    let _ = input.write_all(lines.as_bytes());
    drop(input);
    let output = publisher.wait_with_output().expect("mosquitto_pub can be waited for");
    assert_success(&output, "mosquitto_pub", arguments);
}

/// Runs `mosquitto_sub` to its end (`-C COUNT`, `-W SECONDS`); returns the lines that it printed.
#[track_caller]
pub(crate) fn mosquitto_sub(port: u16, arguments: &[&str]) -> Vec<String> {
    let output = try_mosquitto_sub(port, arguments);
    assert_success(&output, "mosquitto_sub", arguments);
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// As [`mosquitto_sub`], for tests in which it is refused.
pub(crate) fn try_mosquitto_sub(port: u16, arguments: &[&str]) -> Output {
    client("mosquitto_sub", port, arguments).stdin(Stdio::null()).output().expect("mosquitto_sub can be started")
}

/// Whether somebody there speaks MQTT: any answer to a CONNECT will do, a refusal too.
pub(crate) fn answers_connect(address: SocketAddr) -> bool {
    // MQTT 3.1.1, clean session, keep-alive 10 s, empty client id.
    const CONNECT: [u8; 14] = [0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 10, 0, 0];
    const CONNACK: u8 = 0x20;
    const DISCONNECT: [u8; 2] = [0xe0, 0];
    let ask = || -> std::io::Result<u8> {
        let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        connection.set_read_timeout(Some(Duration::from_secs(1)))?;
        connection.write_all(&CONNECT)?;
        let mut answer = [0; 4];
        connection.read_exact(&mut answer)?;
        connection.write_all(&DISCONNECT)?;
        Ok(answer[0])
    };
    ask().is_ok_and(|kind| kind == CONNACK)
}

fn client(name: &str, port: u16, arguments: &[&str]) -> Command {
    let mut client = command(program(name));
    client.args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(arguments);
    client
}

#[track_caller]
fn assert_success(output: &Output, name: &str, arguments: &[&str]) {
    assert!(
        output.status.success(),
        "{name} {arguments:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr),
    );
}
