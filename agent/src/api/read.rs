//! `GET /streams/NAME/records?from=&shard=&limit=&wait=`: records read from a stream, with a way to wait for new ones.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    http::{StatusCode, Uri},
};
use forebay_log_store::{Cursor, ReadLimit, Record, SequenceNumber, ShardIndex, Start};
use tokio::{sync::watch, time::Instant};

use super::{
    Api,
    error::ApiError,
    wire::{Read, ReadRecord, WAIT_SECONDS_MAX},
};
use crate::{config::there_are, streams::OpenStream};

/// Most records of one answer, and what is given without being asked.
const LIMIT_MAX: usize = 10_000;
const LIMIT_DEFAULT: usize = 1000;
/// Keys and data of one answer; a single record may be larger.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What was asked for.
#[derive(Debug, PartialEq)]
struct Query {
    from: Start,
    shard: Option<ShardIndex>,
    limit: usize,
    wait: Duration,
}

pub(super) async fn read(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Json<Read>, ApiError> {
    let stream = api.stream(&name)?;
    let query = Query::parse(uri.query().unwrap_or_default())?;
    let mut cursor = open(&stream, &query)?;
    let mut commits = stream.commits.clone();
    let until = Instant::now() + query.wait;
    loop {
        // Marked as seen before reading, so that a commit in between is not missed.
        commits.borrow_and_update();
        let (records, back) = read_once(&api, cursor, query.limit).await?;
        cursor = back;
        if !records.is_empty() || !commit_before(until, &mut commits, &api).await {
            let records = records.iter().map(|record| ReadRecord::from(&**record)).collect();
            let end = stream.stream().stats().next.0;
            return Ok(Json(Read { records, next: cursor.position().0, end }));
        }
    }
}

fn open(stream: &OpenStream, query: &Query) -> Result<Cursor, ApiError> {
    let stream = stream.stream();
    let Some(shard) = query.shard else { return Ok(stream.cursor(query.from)) };
    let shards = stream.shards();
    if shards.shards().iter().any(|known| known.index == shard) {
        return Ok(stream.shard_cursor(shard, query.from));
    }
    let known: Vec<_> = shards.shards().iter().map(|known| known.index.0.to_string()).collect();
    let known = there_are(known.iter().map(String::as_str));
    Err(ApiError::bad("shard", format!("stream `{}` has no shard {}; {known}", stream.name(), shard.0)))
}

/// One read from the log, on a thread that may block. Gives the cursor back.
async fn read_once(api: &Api, mut cursor: Cursor, records: usize) -> Result<(Vec<Arc<Record>>, Cursor), ApiError> {
    let _permit = api.reads.acquire().await.expect("the semaphore is never closed");
    let limit = ReadLimit { records, payload_bytes: ANSWER_BYTES_MAX };
    let (outcome, cursor) = tokio::task::spawn_blocking(move || (cursor.read(limit), cursor))
        .await
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot read: {error}")))?;
    Ok((outcome.map_err(|error| ApiError::of_log(&error))?, cursor))
}

/// Waits for a commit; `false` when time is up or the agent stops.
async fn commit_before(until: Instant, commits: &mut watch::Receiver<()>, api: &Api) -> bool {
    tokio::select! {
        committed = commits.changed() => committed.is_ok(),
        () = tokio::time::sleep_until(until) => false,
        () = api.stop.cancelled() => false,
    }
}

impl Query {
    fn parse(text: &str) -> Result<Self, ApiError> {
        let mut query = Self { from: Start::Oldest, shard: None, limit: LIMIT_DEFAULT, wait: Duration::ZERO };
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let not = |what: &str| ApiError::bad(key, format!("must be {what}, not `{value}`"));
            match key {
                "from" => {
                    query.from = match value {
                        "oldest" => Start::Oldest,
                        "latest" => Start::Latest,
                        number => Start::At(SequenceNumber(
                            number.parse().map_err(|_| not("`oldest`, `latest` or a sequence number"))?,
                        )),
                    }
                }
                "shard" => query.shard = Some(ShardIndex(value.parse().map_err(|_| not("a shard's number"))?)),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                    query.limit = limit.ok_or_else(|| not(&format!("1 to {LIMIT_MAX}")))?;
                }
                "wait" => {
                    let seconds = value.parse().ok().filter(|seconds| *seconds <= WAIT_SECONDS_MAX);
                    let seconds = seconds.ok_or_else(|| not(&format!("0 to {WAIT_SECONDS_MAX} seconds")))?;
                    query.wait = Duration::from_secs(seconds);
                }
                _ => return Err(ApiError::bad(key, "unknown; there are `from`, `limit`, `shard` and `wait`")),
            }
        }
        Ok(query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_where_how_much_and_how_long() {
        let query = Query::parse("from=17&shard=2&limit=5&wait=30").expect("a query");
        let expected = Query {
            from: Start::At(SequenceNumber(17)),
            shard: Some(ShardIndex(2)),
            limit: 5,
            wait: Duration::from_secs(30),
        };
        assert_eq!(query, expected);
        assert_eq!(Query::parse("from=latest").expect("a query").from, Start::Latest);
        assert_eq!(Query::parse("").expect("nothing is a query too").from, Start::Oldest);
    }

    #[test]
    fn what_is_wrong_is_told_by_name() {
        for (text, field) in [
            ("from=now", "from"),
            ("shard=-1", "shard"),
            ("limit=0", "limit"),
            ("limit=10001", "limit"),
            ("wait=61", "wait"),
            ("follow", "follow"),
        ] {
            let error = format!("{:?}", Query::parse(text).expect_err("it is wrong"));
            assert!(error.contains(&format!("Some({field:?})")), "{text}: {error}");
        }
    }
}
