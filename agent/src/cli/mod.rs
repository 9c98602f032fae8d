//! The command line: one file per command, with its arguments and what it does.
//!
//! Data goes to standard output, everything else to standard error. An error is printed once, as `failed to …`.

mod check;
pub(crate) mod client;
mod dead_letter;
mod demo;
mod log;
mod mqtt_password;
mod output;
mod put;
mod reach;
mod run;
mod status;
mod stream;
mod tail;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config, Whereabouts, stream::is_stream_name};

/// A person has to change the configuration: starting again would not help (EX_CONFIG of sysexits.h).
const EXIT_CONFIGURATION: u8 = 78;

/// Takes what devices send, keeps it on this machine's disk with Kinesis semantics, and forwards it whenever there is a
/// connection.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent in the foreground, until SIGTERM or Ctrl-C
    Run(run::Args),
    /// Check a configuration, and show what it says or everything that is wrong with it
    Check(check::Args),
    /// Show the whole way from devices through an outage and a crash, with nothing else installed
    Demo(demo::Args),
    /// Show what the running agent does: counts, rates, backlog, errors, losses
    Status(status::Args),
    /// Print a stream's records
    Tail(tail::Args),
    /// Put records into a stream
    Put(put::Args),
    /// Make, change and delete streams of the running agent, and split and merge their shards
    Stream(stream::Args),
    /// Look at the records that a destination would not take, deliver them once more, or drop them
    DeadLetter(dead_letter::Args),
    /// Make a line of the password file of an mqtt-broker source; the password is read from standard input
    MqttPassword(mqtt_password::Args),
    /// Look into the files of a log, and mend them
    #[command(subcommand)]
    Log(log::Command),
}

/// Where the configuration is.
#[derive(Debug, Args)]
struct ConfigFile {
    /// Configuration file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "FOREBAY_CONFIG",
        default_value = "/etc/forebay/forebay.toml"
    )]
    config: PathBuf,
}

impl ConfigFile {
    fn load(&self) -> anyhow::Result<Config> {
        Config::load(&self.config).with_context(|| self.what())
    }

    /// For commands that ask the agent or look at its files, and may lack what only the agent is given, such as secrets.
    fn whereabouts(&self) -> anyhow::Result<Whereabouts> {
        Whereabouts::load(&self.config).with_context(|| self.what())
    }

    fn what(&self) -> String {
        format!("read configuration {}", self.config.display())
    }
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => args.run(),
        Command::Check(args) => args.run(),
        Command::Demo(args) => args.run(),
        Command::Status(args) => args.run(),
        Command::Tail(args) => args.run(),
        Command::Put(args) => args.run(),
        Command::Stream(args) => args.run(),
        Command::DeadLetter(args) => args.run(),
        Command::MqttPassword(args) => args.run(),
        Command::Log(command) => command.run(),
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    if error.downcast_ref::<output::Closed>().is_some() {
        // Whoever read our output has had enough of it.
        return ExitCode::SUCCESS;
    }
    if error.downcast_ref::<log::Unsound>().is_some() {
        return ExitCode::from(log::Unsound::EXIT);
    }
    eprintln!("failed to {}", sentence(&error));
    if error.downcast_ref::<config::Error>().is_some() {
        return ExitCode::from(EXIT_CONFIGURATION);
    }
    ExitCode::FAILURE
}

/// An error with its causes; a cause that the message before it has quoted is not said again.
fn sentence(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !said.ends_with(&cause) {
            said = if said.is_empty() { cause } else { format!("{said}: {cause}") };
        }
    }
    said
}

/// For an argument that names a stream; so it needs no quoting anywhere.
fn stream_name(text: &str) -> Result<String, String> {
    if is_stream_name(text) {
        Ok(text.to_owned())
    } else {
        Err("a stream's name has 1 to 128 characters of a-z A-Z 0-9 _ . - and does not begin with a dot".to_owned())
    }
}

/// A runtime for a command that asks something of the agent and ends.
fn block_on<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?.block_on(task)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_cause_is_said_twice() {
        let cause = std::io::Error::other("no room");
        let quoting = anyhow::Error::new(cause).context("write segment 7: no room").context("open the log");
        assert_eq!(sentence(&quoting), "open the log: write segment 7: no room");
    }
}
