//! `POST /streams/NAME/records`: records put into a stream by hand or by a script. Answered once they are durable.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest as _, Path, Request, State},
    http::StatusCode,
};
use forebay_log_store::{Appended, Batch, NewRecord, SequenceNumber, ShardIndex, WhenFull};

use super::{
    Api, body,
    error::ApiError,
    wire::{PUT_RECORDS_MAX, Place, Put, PutDone},
};
use crate::ingest::Ingest;

/// For the body to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// For the shard's rate limit and for room in the queue: longer than any burst that the limits smooth.
const ROOM_PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn put(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<PutDone>, ApiError> {
    let stream = api.stream(&name)?;
    body::is_json(request.headers())?;
    let _permit = api.puts.acquire().await.expect("the semaphore is never closed");
    let bytes = tokio::time::timeout(BODY_PATIENCE, Bytes::from_request(request, &()))
        .await
        .map_err(|_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive"))?
        .map_err(|rejection| ApiError::new(rejection.status(), rejection.body_text()))?;
    let put = parse(&bytes)?;
    drop(bytes);
    let (batch, shards) = into_batch(&stream.ingest, put)?;
    let pending = tokio::time::timeout(ROOM_PATIENCE, stream.ingest.offer(batch, WhenFull::Refuse))
        .await
        .map_err(|_| ApiError::new(StatusCode::TOO_MANY_REQUESTS, "the shard's rate limit leaves no room for this"))?;
    let appended = pending.durable().await.map_err(|error| ApiError::of_log(&error))?;
    Ok(Json(PutDone { records: places(&appended, &shards) }))
}

fn parse(bytes: &[u8]) -> Result<Put, ApiError> {
    let put: Put = body::json(bytes)?;
    match put.records.len() {
        0 => Err(ApiError::bad("records", "there is none")),
        1..=PUT_RECORDS_MAX => Ok(put),
        many => Err(ApiError::bad("records", format!("at most {PUT_RECORDS_MAX} at a time, not {many}"))),
    }
}

/// A batch, and the shard of each record.
fn into_batch(ingest: &Ingest, put: Put) -> Result<(Batch, Vec<ShardIndex>), ApiError> {
    let mut batch = ingest.batch();
    let mut shards = Vec::with_capacity(put.records.len());
    for (i, record) in put.records.into_iter().enumerate() {
        let at = |(field, message): (&str, String)| ApiError::bad(format!("records[{i}].{field}"), message);
        let data = record.bytes().map_err(at)?;
        let explicit_hash_key = record.hash_key().map_err(at)?;
        let new = NewRecord { explicit_hash_key, ..NewRecord::new(&record.partition_key, &data) };
        let shard = batch.push(&new).map_err(|error| ApiError::bad(format!("records[{i}]"), error.to_string()))?;
        shards.push(shard);
    }
    Ok((batch, shards))
}

fn places(appended: &Appended, shards: &[ShardIndex]) -> Vec<Place> {
    let place =
        |(shard, number): (ShardIndex, SequenceNumber)| Place { shard: shard.to_string(), sequence_number: number.0 };
    appended.places(shards).into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use forebay_log_store::AppendedRun;

    use super::*;

    #[test]
    fn places_are_told_in_the_order_of_the_records() {
        let run = |shard, first, records| {
            let shard = ShardIndex(shard);
            AppendedRun { of: shard, shard, first: SequenceNumber(first), records }
        };
        let appended = Appended { runs: vec![run(1, 40, 2), run(0, 42, 1)] };
        let places = places(&appended, &[ShardIndex(1), ShardIndex(0), ShardIndex(1)]);
        let found: Vec<_> = places.iter().map(|place| (place.shard.as_str(), place.sequence_number)).collect();
        assert_eq!(found, [("shardId-000000000001", 40), ("shardId-000000000000", 42), ("shardId-000000000001", 41)]);
    }

    #[test]
    fn a_bad_body_is_told_with_its_field() {
        for (body, expected) in [
            ("", "."),
            ("{}", "records"),
            ("{\"records\":[]}", "records"),
            ("{\"records\":[{\"partition_key\":3}]}", "records[0].partition_key"),
            ("{\"records\":[{\"partition_key\":\"k\",\"dta\":\"\"}]}", "records[0].dta"),
        ] {
            let error = format!("{:?}", parse(body.as_bytes()).expect_err("it is bad"));
            // A field that is missing is named in the message, of the object that should have it.
            let named = [format!("{expected:?}"), format!("missing field `{expected}`")];
            assert!(named.iter().any(|named| error.contains(named)), "{body}: {error}");
        }
    }
}
