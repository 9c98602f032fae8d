//! `/streams` and `/streams/NAME`: streams listed, shown, made, set, deleted, and their shards changed.

use std::{num::NonZeroU32, sync::Arc};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use forebay_log_store::{HashKey, ShardChange, ShardIndex, ShardMap};
use serde::de::DeserializeOwned;
use toml::Table;

use super::{
    Api, body,
    error::ApiError,
    wire::{ChangeShards, Done, ShardShown, StreamNames, StreamShown},
};
use crate::streams::{OpenStream, Refusal, Streams};

pub(super) async fn list(State(api): State<Arc<Api>>) -> Json<StreamNames> {
    Json(StreamNames { streams: api.streams.all().into_keys().collect() })
}

pub(super) async fn show(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Json<StreamShown>, ApiError> {
    Ok(Json(shown(&name, &api.stream(&name)?)))
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<StreamShown>, ApiError> {
    configure(&api, name, &headers, &bytes, Streams::create).await
}

pub(super) async fn set(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<StreamShown>, ApiError> {
    configure(&api, name, &headers, &bytes, Streams::set).await
}

/// Does something to a stream with the settings of the request.
async fn configure(
    api: &Api,
    name: String,
    headers: &HeaderMap,
    bytes: &[u8],
    act: fn(&Streams, &str, Table) -> Result<OpenStream, Refusal>,
) -> Result<Json<StreamShown>, ApiError> {
    let settings = parse::<Table>(headers, bytes)?;
    change(api, move |streams| act(streams, &name, settings).map(|opened| Json(shown(&name, &opened)))).await
}

pub(super) async fn delete(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Json<Done>, ApiError> {
    change(&api, move |streams| streams.delete(&name)).await?;
    Ok(Json(Done {}))
}

pub(super) async fn change_shards(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<StreamShown>, ApiError> {
    let asked = parse::<ChangeShards>(&headers, &bytes)?;
    let stream = api.stream(&name)?;
    let wanted = shard_change(&asked, &stream.stream().shards())?;
    change(&api, {
        let name = name.clone();
        move |streams| streams.change_shards(&name, wanted)
    })
    .await?;
    Ok(Json(shown(&name, &api.stream(&name)?)))
}

/// Runs a change on a thread that may block.
async fn change<T: Send + 'static>(
    api: &Api,
    act: impl FnOnce(&Streams) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, ApiError> {
    let streams = Arc::clone(&api.streams);
    let outcome = tokio::task::spawn_blocking(move || act(&streams)).await;
    let outcome = outcome
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot change it: {error}")))?;
    outcome.map_err(|refusal| ApiError::of_refusal(&refusal))
}

fn parse<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T, ApiError> {
    body::is_json(headers)?;
    body::json(bytes)
}

/// What was asked for, in the log's terms. A shard that is split without a hash key is split in the middle.
fn shard_change(asked: &ChangeShards, shards: &ShardMap) -> Result<ShardChange, ApiError> {
    match asked {
        ChangeShards::Split { shard, at } => {
            let shard = shard_index("split.shard", shard)?;
            let at = match (at, shards.get(shard)) {
                (Some(at), _) => at.parse().map(HashKey).map_err(|_| {
                    ApiError::bad("split.at", format!("a hash key is a decimal number of up to 128 bits, not `{at}`"))
                })?,
                // Of a shard of one key there is no middle; the log says so.
                (None, Some(shard)) => HashKey((shard.first.0 + (shard.last.0 - shard.first.0) / 2).saturating_add(1)),
                // The log says that there is none.
                (None, None) => HashKey::MAX,
            };
            Ok(ShardChange::Split { shard, at })
        }
        ChangeShards::Merge { shards: [one, other] } => {
            let shards = [shard_index("merge.shards[0]", one)?, shard_index("merge.shards[1]", other)?];
            Ok(ShardChange::Merge { shards })
        }
        ChangeShards::Count { shards } => NonZeroU32::new(*shards)
            .map(ShardChange::Count)
            .ok_or_else(|| ApiError::bad("count.shards", "a stream has at least one shard")),
    }
}

/// `shardId-000000000007`, or just `7`.
fn shard_index(field: &str, text: &str) -> Result<ShardIndex, ApiError> {
    let digits = text.strip_prefix("shardId-").unwrap_or(text);
    let index = digits.parse().map(ShardIndex);
    index.map_err(|_| ApiError::bad(field, format!("a shard is `shardId-` and a number, or the number, not `{text}`")))
}

fn shown(name: &str, open: &OpenStream) -> StreamShown {
    let stats = open.stream().stats();
    let shard = |shard: &forebay_log_store::Shard| ShardShown {
        shard: shard.index.to_string(),
        open: shard.is_open(),
        first_hash_key: shard.first.to_string(),
        last_hash_key: shard.last.to_string(),
        parents: shard.parents.iter().map(ToString::to_string).collect(),
        starts: shard.starts.0,
        ends: shard.ends.map(|ends| ends.0),
    };
    StreamShown {
        name: name.to_owned(),
        settings: open.settings.as_ref().and_then(|settings| serde_json::to_value(settings).ok()),
        oldest: stats.oldest.0,
        next: stats.next.0,
        records: open.stream().records_between(stats.oldest, stats.next),
        shards: open.stream().shards().shards().iter().map(shard).collect(),
    }
}

#[cfg(test)]
mod tests {
    use forebay_log_store::SequenceNumber;

    use super::*;

    #[test]
    fn a_shard_is_split_in_the_middle_unless_told_otherwise() {
        let shards = ShardMap::uniform(NonZeroU32::MIN);
        let split = |at: Option<&str>| {
            let asked = ChangeShards::Split { shard: "shardId-000000000000".into(), at: at.map(str::to_owned) };
            shard_change(&asked, &shards).expect("sound")
        };
        assert_eq!(split(None), ShardChange::Split { shard: ShardIndex(0), at: HashKey(1 << 127) });
        assert_eq!(split(Some("5")), ShardChange::Split { shard: ShardIndex(0), at: HashKey(5) });
    }

    #[test]
    fn a_shard_of_the_last_hash_key_alone_has_no_middle() {
        let at = HashKey::MAX;
        let whole = ShardMap::uniform(NonZeroU32::MIN);
        let shards = whole.changed(ShardChange::Split { shard: ShardIndex(0), at }, SequenceNumber(1));
        let asked = ChangeShards::Split { shard: "2".into(), at: None };
        let change = shard_change(&asked, &shards.expect("inside")).expect("an answer");
        assert_eq!(change, ShardChange::Split { shard: ShardIndex(2), at });
    }

    #[test]
    fn what_is_no_shard_is_told_with_its_field() {
        let shards = ShardMap::uniform(NonZeroU32::MIN);
        for (asked, field) in [
            (ChangeShards::Split { shard: "first".into(), at: None }, "split.shard"),
            (ChangeShards::Split { shard: "0".into(), at: Some("-1".into()) }, "split.at"),
            (ChangeShards::Merge { shards: ["0".into(), "shardId-".into()] }, "merge.shards[1]"),
            (ChangeShards::Count { shards: 0 }, "count.shards"),
        ] {
            let error = format!("{:?}", shard_change(&asked, &shards).expect_err("refused"));
            assert!(error.contains(field), "{error}");
        }
    }
}
