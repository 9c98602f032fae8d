//! `forebay stream`: streams of the running agent listed, shown, made, set, deleted, and their shards changed.

use anyhow::{Context as _, bail};
use axum::http::Method;
use clap::Subcommand;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{ConfigFile, block_on, client::ApiAddress, output::Output, stream_name};
use crate::{
    api::wire::{ChangeShards, Done, StreamNames, StreamShown},
    streams::Refusal,
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
    /// Print the names of all streams
    List,
    /// Show a stream's settings and shards
    Show {
        #[arg(value_name = "STREAM", value_parser = stream_name)]
        stream: String,
    },
    /// Make a stream, which is there again after a restart
    Create {
        #[arg(value_name = "STREAM", value_parser = stream_name)]
        stream: String,
        /// Settings as in the configuration file, such as shards=2 retention=48h quota=1GiB
        #[arg(value_name = "KEY=VALUE", value_parser = setting)]
        settings: Vec<(String, Value)>,
    },
    /// Change settings of a stream that was made at run time; a longer retention brings nothing back
    Set {
        #[arg(value_name = "STREAM", value_parser = stream_name)]
        stream: String,
        /// Settings as in the configuration file, such as retention=72h
        #[arg(value_name = "KEY=VALUE", value_parser = setting, required = true)]
        settings: Vec<(String, Value)>,
    },
    /// Delete a stream that was made at run time, with all its records
    Delete {
        #[arg(value_name = "STREAM", value_parser = stream_name)]
        stream: String,
        /// Really
        #[arg(long)]
        yes: bool,
    },
    /// Split a shard in two
    Split {
        #[arg(value_name = "STREAM", value_parser = stream_name)]
        stream: String,
        /// Such as shardId-000000000003, or 3
        shard: String,
        /// First hash key of the upper child [default: the middle]
        #[arg(long, value_name = "HASH KEY")]
        at: Option<String>,
    },
    /// Merge two neighbouring shards
    Merge {
        #[arg(value_name = "STREAM", value_parser = stream_name)]
        stream: String,
        /// Such as shardId-000000000003, or 3
        #[arg(value_name = "SHARD")]
        one: String,
        /// Its neighbour
        #[arg(value_name = "SHARD")]
        other: String,
    },
    /// Split and merge until there are so many shards of equal width
    Scale {
        #[arg(value_name = "STREAM", value_parser = stream_name)]
        stream: String,
        /// Number of shards
        shards: u32,
    },
}

/// `quota=1GiB`: what is no number, boolean or table of TOML is a string.
fn setting(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("a setting is KEY=VALUE, such as retention=48h")?;
    let parsed = format!("value = {value}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
    Ok((key.to_owned(), parsed.unwrap_or_else(|| value.into())))
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        block_on(self.ask())
    }

    async fn ask(self) -> anyhow::Result<()> {
        let client = self.api.client(&self.config)?;
        let path = |stream: &str| format!("/streams/{stream}");
        let table = |settings: Vec<(String, Value)>| Table::from_iter(settings);
        let (method, path, body) = match self.command {
            Command::List => {
                let names: StreamNames = client.get("/streams").await?;
                return print(self.json, &names, |names| {
                    names.streams.iter().map(|name| format!("{name}\n")).collect()
                });
            }
            Command::Delete { stream, yes: false } => {
                let shown: StreamShown = client.get(&path(&stream)).await?;
                if shown.settings.is_none() {
                    bail!("delete stream {stream}: {}", Refusal::Configured(stream.clone()));
                }
                let records = shown.records;
                bail!("delete stream {stream}: {records} records would go with it; say --yes if they may");
            }
            Command::Delete { stream, yes: true } => {
                let done: Done = client.send(Method::DELETE, &path(&stream), &Done {}).await?;
                return print(self.json, &done, |_| format!("deleted {stream}\n"));
            }
            Command::Show { stream } => {
                let shown: StreamShown = client.get(&path(&stream)).await?;
                return print(self.json, &shown, describe);
            }
            Command::Create { stream, settings } => {
                (Method::PUT, path(&stream), serde_json::to_value(table(settings))?)
            }
            Command::Set { stream, settings } => (Method::PATCH, path(&stream), serde_json::to_value(table(settings))?),
            Command::Split { stream, shard, at } => change(&stream, &ChangeShards::Split { shard, at })?,
            Command::Merge { stream, one, other } => change(&stream, &ChangeShards::Merge { shards: [one, other] })?,
            Command::Scale { stream, shards } => change(&stream, &ChangeShards::Count { shards })?,
        };
        let shown: StreamShown = client.send(method, &path, &body).await?;
        print(self.json, &shown, describe)
    }
}

fn change(stream: &str, change: &ChangeShards) -> anyhow::Result<(Method, String, serde_json::Value)> {
    Ok((Method::POST, format!("/streams/{stream}/shards"), serde_json::to_value(change)?))
}

fn print<T: serde::Serialize + DeserializeOwned>(
    json: bool,
    answer: &T,
    text: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    let mut output = Output::new();
    if json {
        output.line(&serde_json::to_string(answer).context("write JSON")?)?;
    } else {
        output.text(&text(answer))?;
    }
    output.flush()
}

fn describe(stream: &StreamShown) -> String {
    let kept = match &stream.settings {
        None => "as the configuration file says".to_owned(),
        Some(serde_json::Value::Object(settings)) if settings.is_empty() => "made at run time, all defaults".to_owned(),
        Some(serde_json::Value::Object(settings)) => {
            let settings: Vec<_> = settings.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            format!("made at run time, {}", settings.join(", "))
        }
        Some(other) => other.to_string(),
    };
    let records = match stream.next - stream.oldest {
        0 => "no records".to_owned(),
        _ => format!("records {} to {}", stream.oldest, stream.next - 1),
    };
    let mut text = format!("stream {}: {kept}; {records}\n", stream.name);
    for shard in &stream.shards {
        let state = match shard.ends {
            None => "open".to_owned(),
            Some(ends) if ends < shard.starts => "closed, never had a record".to_owned(),
            Some(ends) => format!("closed, ends with record {ends}"),
        };
        let parents = match shard.parents.as_slice() {
            [] => String::new(),
            parents => format!(", from {}", parents.join(" and ")),
        };
        text += &format!("  {} {}..={} {state}{parents}\n", shard.shard, shard.first_hash_key, shard.last_hash_key);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_what_the_file_would_have() {
        let value = |text| setting(text).expect("a setting").1;
        assert_eq!(value("retention=48h"), Value::from("48h"));
        assert_eq!(value("retention=\"48h\""), Value::from("48h"));
        assert_eq!(value("shards=3"), Value::from(3));
        assert_eq!(value("hold-undelivered=false"), Value::from(false));
        assert!(value("rate-limit={ records-per-second = 5 }").is_table());
        assert!(setting("retention").is_err());
    }
}
