//! Where letters are kept: with the running agent, or in the log of one that does not run.

use std::sync::Arc;

use anyhow::Context as _;

use super::super::{
    ConfigFile,
    client::{ApiAddress, Client},
    reach::{ClosedLog, Reach},
};
use crate::{
    api::wire::{DeadLetters, SettleLetters},
    delivery::dead_letter::{Letter, Letters, LettersError, Page, Selection, Settlement, Verb},
};

/// Whoever is asked.
pub(super) enum Office {
    Agent(Box<Client>),
    Log(Box<ClosedLog>),
}

impl Office {
    pub(super) fn open(api: &ApiAddress, config: &ConfigFile) -> anyhow::Result<Self> {
        if api.api.is_some() {
            return Ok(Self::Agent(Box::new(api.client(config)?)));
        }
        Ok(match Reach::of(config)? {
            Reach::Agent(client) => Self::Agent(client),
            Reach::Log(log) => Self::Log(log),
        })
    }

    pub(super) async fn summaries(&self) -> anyhow::Result<DeadLetters> {
        match self {
            Self::Agent(client) => client.get("/dead-letters").await,
            Self::Log(log) => {
                let summaries = log.letters(None)?.into_iter().map(|letters| letters.summary());
                Ok(DeadLetters { destinations: summaries.collect::<Result<_, _>>().context("read letters")? })
            }
        }
    }

    pub(super) async fn page(&self, destination: &str, from: u64, limit: usize) -> anyhow::Result<Page> {
        match self {
            Self::Agent(client) => client.get(&format!("/dead-letters/{destination}?from={from}&limit={limit}")).await,
            Self::Log(log) => one(log, destination)?.page(from, limit).context("read letters"),
        }
    }

    pub(super) async fn letter(&self, destination: &str, number: u64) -> anyhow::Result<Letter> {
        match self {
            Self::Agent(client) => client.get(&format!("/dead-letters/{destination}/letters/{number}")).await,
            Self::Log(log) => one(log, destination)?.letter(number).context("show a letter"),
        }
    }

    pub(super) async fn settle(&self, destination: &str, which: Selection, verb: Verb) -> anyhow::Result<Settlement> {
        match self {
            Self::Agent(client) => {
                client.post(&format!("/dead-letters/{destination}/settle"), &SettleLetters { verb, which }).await
            }
            Self::Log(log) => {
                let letters = Arc::new(one(log, destination)?);
                let settled = tokio::task::spawn_blocking(move || letters.settle(&which, verb));
                let settled: Result<_, LettersError> = settled.await.context("settle letters")?;
                settled.context("settle letters")
            }
        }
    }
}

fn one(log: &ClosedLog, destination: &str) -> anyhow::Result<Letters> {
    log.letters(Some(destination))?.pop().context("open letters")
}
