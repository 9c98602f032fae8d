//! The broker between publishers and whoever is measured.

use std::{fs, io::Read as _, io::Write as _, net::TcpStream, path::PathBuf, process::Command};

use tempfile::TempDir;

use crate::{
    port::free_port,
    process::{Process, eventually},
};

/// The session that receives.
pub(crate) const CLIENT_ID: &str = "gateway-7";

pub(crate) struct Mosquitto {
    _process: Process,
    _dir: TempDir,
    pub(crate) port: u16,
}

impl Mosquitto {
    pub(crate) fn start() -> Self {
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory can be written");
        let port = free_port();
        let configuration = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nmax_queued_messages 0\nmax_inflight_messages 0\n\
             set_tcp_nodelay true\nlog_type none\n"
        );
        let file = dir.path().join("mosquitto.conf");
        fs::write(&file, configuration).expect("a new directory takes a file");
        // Where tests/counterparts/install puts it.
        let program = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.counterparts/bin/mosquitto"));
        let mut command = Command::new(program);
        command.arg("-c").arg(file);
        let process = Process::start(command);
        eventually("mosquitto listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { _process: process, _dir: dir, port }
    }

    /// Subscribes once, so that messages are held for the session from now on.
    pub(crate) fn hold_for_session(&self) {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).expect("mosquitto listens");
        let mut packet = vec![0x10, 12 + CLIENT_ID.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 60];
        packet.extend([0, CLIENT_ID.len() as u8]);
        packet.extend(CLIENT_ID.as_bytes());
        // SUBSCRIBE of `plant/#` at QoS 1.
        packet.extend([0x82, 12, 0, 1, 0, 7]);
        packet.extend(b"plant/#\x01");
        connection.write_all(&packet).expect("an open connection");
        // CONNACK and SUBACK.
        let mut answers = [0; 9];
        connection.read_exact(&mut answers).expect("answers");
        assert_eq!(answers[..4], [0x20, 2, 0, 0]);
        assert_eq!(answers[4..], [0x90, 3, 0, 1, 1]);
        connection.write_all(&[0xe0, 0]).expect("an open connection");
    }
}
