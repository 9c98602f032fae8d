//! The real program with a stream `telemetry` and a directory of its own, which is removed afterwards.

use std::{fs, net::SocketAddr, process::Command};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    http,
    port::free_port,
    process::{Process, eventually},
};

pub(crate) struct Gateway {
    // Ends before its directory is removed: fields are dropped in this order.
    process: Process,
    _home: TempDir,
    api: SocketAddr,
}

impl Gateway {
    /// Starts one with these tables of sources and destinations; returns once it is ready.
    pub(crate) fn start(tables: &str) -> Self {
        let home = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory can be written");
        let api = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let configuration = home.path().join("forebay.toml");
        fs::write(&configuration, settings(api) + tables).expect("a new directory takes a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.args(["run", "--config"]).arg(&configuration).current_dir(home.path());
        // Its log is of interest only if it says more than that it runs.
        command
            .env("NO_COLOR", "1")
            .envs(of_the_unit())
            .stdout(fs::File::create(home.path().join("out")).expect("a file"));
        command.stderr(fs::File::create(home.path().join("log")).expect("a file"));
        let gateway = Self { process: Process::start(command), _home: home, api };
        eventually("the gateway is ready", || http::get(api, "/healthz").is_ok_and(|answer| answer.status == 200));
        gateway
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it tells about itself.
    pub(crate) fn status(&self) -> Value {
        let answer = http::get(self.api, "/status").expect("a running agent answers");
        serde_json::from_str(&answer.body).expect("its status is JSON")
    }
}

/// The table of a source that devices publish to, on this port.
pub(crate) fn devices(port: u16) -> String {
    format!(
        r#"
        [sources.devices]
        type = "mqtt-broker"
        listen = "127.0.0.1:{port}"
        stream = "telemetry"
        partition-key = "{{topic}}"
        "#
    )
}

/// The table of a destination that delivers to this endpoint in this way.
pub(crate) fn kinesis(name: &str, endpoint: &str, how: &str) -> String {
    format!(
        r#"
        [destinations.{name}]
        type = "kinesis"
        from = "telemetry"
        stream = "plant-telemetry"
        region = "eu-west-1"
        endpoint = "{endpoint}"
        {how}
        "#
    )
}

/// What systemd gives it.
fn of_the_unit() -> impl Iterator<Item = (&'static str, &'static str)> {
    include_str!("../../../systemd/forebay.service")
        .lines()
        .filter_map(|line| line.strip_prefix("Environment=")?.split_once('='))
}

fn settings(api: SocketAddr) -> String {
    format!(
        r#"
        data-dir = "data"
        [api]
        listen = "{api}"
        [streams.telemetry]
        shards = 4
        rate-limit = "off"
        quota = "4GiB"
        "#
    )
}
