//! The real program as a client of the broker, with a log on this machine's disk.

use std::{
    cell::Cell,
    fs,
    net::SocketAddr,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Receiver, http,
    mosquitto::CLIENT_ID,
    port::free_port,
    process::{Process, eventually},
};

const LOOK_AGAIN: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Gateway {
    process: Process,
    _home: TempDir,
    api: SocketAddr,
    began: Cell<Option<Instant>>,
}

impl Gateway {
    pub(crate) fn start(broker: u16, version: &str) -> Self {
        let home = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory can be written");
        let api = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let configuration = home.path().join("forebay.toml");
        let text = format!(
            r#"
            data-dir = "data"
            [api]
            listen = "{api}"
            [streams.telemetry]
            shards = 4
            rate-limit = "off"
            quota = "4GiB"
            [sources.plant]
            type = "mqtt"
            broker = "mqtt://127.0.0.1:{broker}"
            version = "{version}"
            client-id = "{CLIENT_ID}"
            topics = ["plant/#"]
            stream = "telemetry"
            "#
        );
        fs::write(&configuration, text).expect("a new directory takes a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.args(["run", "--config"]).arg(&configuration).current_dir(home.path());
        command.env("NO_COLOR", "1").stdout(fs::File::create(home.path().join("out")).expect("a file"));
        command.stderr(fs::File::create(home.path().join("log")).expect("a file"));
        let gateway = Self { process: Process::start(command), _home: home, api, began: Cell::new(None) };
        eventually("the gateway is connected", || gateway.count("/sources/plant/connections") == Some(1));
        // What a broker holds comes at once; what is published, later.
        gateway.began.set(Some(Instant::now()));
        gateway
    }

    fn count(&self, pointer: &str) -> Option<u64> {
        let answer = http::get(self.api, "/status").ok()?;
        serde_json::from_str::<Value>(&answer.body).ok()?.pointer(pointer)?.as_u64()
    }
}

impl Receiver for Gateway {
    fn pid(&self) -> u32 {
        self.process.pid()
    }

    fn wait_for(&self, messages: u64) -> Duration {
        let began = self.began.get().expect("it is connected");
        loop {
            let stored = self.count("/sources/plant/records").expect("a running agent answers");
            if stored >= messages {
                return began.elapsed();
            }
            assert!(began.elapsed() < PATIENCE, "{stored} of {messages} are stored");
            thread::park_timeout(LOOK_AGAIN);
        }
    }
}
