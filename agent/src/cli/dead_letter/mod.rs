//! `forebay dead-letter`: what destinations would not take is listed, shown, delivered once more and dropped.

mod office;
mod text;

use std::collections::BTreeSet;

use anyhow::bail;
use clap::{ArgGroup, Subcommand, ValueEnum};

use self::office::Office;
use super::{ConfigFile, block_on, client::ApiAddress, output::Output};
use crate::{
    delivery::dead_letter::{Selection, Settlement, Verb},
    printable::printable,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    api: ApiAddress,
    /// Print JSON, for scripts
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Count the letters of each destination, or list those of one
    List {
        /// Whose letters; without it, all destinations are summed up
        #[arg(value_parser = destination_name)]
        destination: Option<String>,
        /// Begin at this number
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        from: u64,
        /// At most so many
        #[arg(long, short = 'n', value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Show one letter: why, when, where from, and its data
    Show {
        /// Whose letter
        #[arg(value_parser = destination_name)]
        destination: String,
        /// Its number, as `list` tells it
        number: u64,
        /// How its data is printed [default: text if it is text, else hex]
        #[arg(long = "as", value_name = "FORM")]
        form: Option<Form>,
    },
    /// Deliver letters once more, to their destination alone
    // Left to itself, the choice comes first, although numbers go behind the name.
    #[command(override_usage = "forebay dead-letter replay [OPTIONS] <DESTINATION> <NUMBER...|--reason <TEXT>|--all>")]
    Replay {
        #[command(flatten)]
        which: Which,
    },
    /// Give letters up for good
    #[command(
        override_usage = "forebay dead-letter drop [OPTIONS] [--yes] <DESTINATION> <NUMBER...|--reason <TEXT>|--all>"
    )]
    Drop {
        #[command(flatten)]
        which: Which,
        /// Really
        #[arg(long)]
        yes: bool,
    },
}

/// How bytes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// As text; what is not printable is escaped
    Text,
    /// Sixteen bytes a line
    Hex,
    /// In one line
    Base64,
}

#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(group = ArgGroup::new("choice").required(true).args(["numbers", "reason", "all"]))]
struct Which {
    /// Whose letters
    #[arg(value_parser = destination_name)]
    destination: String,
    /// Their numbers, as `list` tells them
    #[arg(value_name = "NUMBER")]
    numbers: Vec<u64>,
    /// All of them
    #[arg(long)]
    all: bool,
    /// Those whose reason contains this text, in small letters or large; `#` in it stands for any number, as in `list`
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: Option<String>,
}

/// An empty one, of a variable that is not set perhaps, would be in every reason.
fn reason(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("it is empty; --all is for all".to_owned()) } else { Ok(text.to_owned()) }
}

/// For an argument that names a destination; so it needs no quoting anywhere.
fn destination_name(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !text.is_empty() && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("a destination's name has characters of a-z A-Z 0-9 _ -".to_owned())
    }
}

impl Which {
    fn selection(&self) -> Selection {
        match &self.reason {
            Some(text) => Selection::Reason(text.clone()),
            None if self.all => Selection::All,
            None => Selection::Numbers(self.numbers.iter().copied().collect::<BTreeSet<_>>()),
        }
    }

    /// Does it with those letters. That there is none of a reason is as wrong as that there is none of a number.
    async fn settle(&self, office: &Office, verb: Verb) -> anyhow::Result<Settlement> {
        let done = office.settle(&self.destination, self.selection(), verb).await?;
        match &self.reason {
            Some(text) if done.letters == 0 => {
                bail!(
                    "settle letters: no open letter of `{}` has a reason with `{}`",
                    self.destination,
                    printable(text)
                )
            }
            _ => Ok(done),
        }
    }
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let office = Office::open(&self.api, &self.config)?;
        block_on(self.ask(&office))
    }

    async fn ask(&self, office: &Office) -> anyhow::Result<()> {
        let mut output = Output::new();
        match &self.command {
            Command::List { destination: None, .. } => {
                let summaries = office.summaries().await?;
                match self.json {
                    true => output.line(&serde_json::to_string(&summaries)?)?,
                    false => output.text(&text::summaries(&summaries))?,
                }
            }
            Command::List { destination: Some(destination), from, limit } => {
                let page = office.page(destination, *from, *limit).await?;
                match self.json {
                    true => output.line(&serde_json::to_string(&page)?)?,
                    false => output.text(&text::page(destination, &page))?,
                }
            }
            Command::Show { destination, number, form } => {
                let letter = office.letter(destination, *number).await?;
                match self.json {
                    true => output.line(&serde_json::to_string(&letter)?)?,
                    false => output.text(&text::letter(&letter, *form)?)?,
                }
            }
            Command::Replay { which } => {
                let done = which.settle(office, Verb::Replay).await?;
                match self.json {
                    true => output.line(&serde_json::to_string(&done)?)?,
                    false => output.text(&text::settled("replayed", done))?,
                }
            }
            Command::Drop { which, yes: false } => {
                let count = which.settle(office, Verb::Count).await?;
                bail!("drop letters: {} would be gone for good; say --yes if they may", text::letters(count));
            }
            Command::Drop { which, yes: true } => {
                let done = which.settle(office, Verb::Drop).await?;
                match self.json {
                    true => output.line(&serde_json::to_string(&done)?)?,
                    false => output.text(&text::settled("dropped", done))?,
                }
            }
        }
        output.flush()
    }
}
