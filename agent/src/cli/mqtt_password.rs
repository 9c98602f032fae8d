//! `forebay mqtt-password`: makes a line of the password file of an `mqtt-broker` source.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Read as _},
    num::NonZeroU32,
};

use anyhow::{Context as _, anyhow, ensure};

use super::output::Output;
use crate::source::mqtt_broker::{ITERATIONS, password_line};

/// MQTT writes the length of a password in 16 bits.
const PASSWORD_BYTES_MAX: u64 = 65_535;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the user
    user: String,
    /// How much work it is to compare a password; more makes guessing slower, and connecting too
    #[arg(long, value_name = "NUMBER", default_value_t = ITERATIONS)]
    iterations: NonZeroU32,
}

impl Args {
    /// Reads the password from the first line of standard input: an argument would be seen in the list of processes.
    pub(super) fn run(self) -> anyhow::Result<()> {
        let input = io::stdin().lock();
        if input.is_terminal() {
            eprintln!("password of {}, which will be seen here, and return:", self.user);
        }
        let mut password = Vec::new();
        input
            .take(PASSWORD_BYTES_MAX + 2)
            .read_until(b'\n', &mut password)
            .context("read the password from standard input")?;
        if password.ends_with(b"\n") {
            password.pop();
        }
        if password.ends_with(b"\r") {
            password.pop();
        }
        ensure!(password.len() as u64 <= PASSWORD_BYTES_MAX, "make a line: a password has at most 65535 bytes");
        let line = password_line(&self.user, &password, self.iterations)
            .map_err(|message| anyhow!(message).context("make a line"))?;
        let mut output = Output::new();
        output.line(&line)?;
        output.flush()
    }
}
