//! The real program with a directory of its own, which is removed afterwards.

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
    pub(crate) mqtt: u16,
    api: SocketAddr,
}

impl Gateway {
    /// Starts one that delivers to this endpoint in this way, if any; returns once it is ready.
    pub(crate) fn start(destination: Option<(String, &str)>) -> Self {
        let home = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory can be written");
        let (mqtt, api) = (free_port(), SocketAddr::from(([127, 0, 0, 1], free_port())));
        let configuration = home.path().join("forebay.toml");
        fs::write(&configuration, settings(mqtt, api, destination)).expect("a new directory takes a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.args(["run", "--config"]).arg(&configuration).current_dir(home.path());
        // Its log is of interest only if it says more than that it runs.
        command
            .env("NO_COLOR", "1")
            .envs(of_the_unit())
            .stdout(fs::File::create(home.path().join("out")).expect("a file"));
        command.stderr(fs::File::create(home.path().join("log")).expect("a file"));
        let gateway = Self { process: Process::start(command), _home: home, mqtt, api };
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

/// What systemd gives it.
fn of_the_unit() -> impl Iterator<Item = (&'static str, &'static str)> {
    include_str!("../../../systemd/forebay.service")
        .lines()
        .filter_map(|line| line.strip_prefix("Environment=")?.split_once('='))
}

fn settings(mqtt: u16, api: SocketAddr, destination: Option<(String, &str)>) -> String {
    let destination = destination.map(|(endpoint, how)| {
        format!(
            r#"
            [destinations.cloud]
            type = "kinesis"
            from = "telemetry"
            stream = "plant-telemetry"
            region = "eu-west-1"
            endpoint = "{endpoint}"
            {how}
            "#
        )
    });
    format!(
        r#"
        data-dir = "data"
        [api]
        listen = "{api}"
        [streams.telemetry]
        shards = 4
        rate-limit = "off"
        quota = "4GiB"
        [sources.devices]
        type = "mqtt-broker"
        listen = "127.0.0.1:{mqtt}"
        stream = "telemetry"
        partition-key = "{{topic}}"
        {}
        "#,
        destination.unwrap_or_default()
    )
}
