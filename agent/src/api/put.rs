//! `POST /streams/NAME/records`: records put into a stream by hand or by a script. Answered once they are durable.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest as _, Path, Request, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
};
use forebay_log_store::{Appended, Batch, NewRecord, SequenceNumber, ShardIndex, WhenFull};

use super::{
    Api,
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
    check_content_type(request.headers())?;
    let _permit = api.puts.acquire().await.expect("the semaphore is never closed");
    let body = tokio::time::timeout(BODY_PATIENCE, Bytes::from_request(request, &()))
        .await
        .map_err(|_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive"))?
        .map_err(|rejection| ApiError::new(rejection.status(), rejection.body_text()))?;
    let put = parse(&body)?;
    drop(body);
    let (batch, shards) = into_batch(&stream.ingest, put)?;
    let pending = tokio::time::timeout(ROOM_PATIENCE, stream.ingest.offer(batch, WhenFull::Refuse))
        .await
        .map_err(|_| ApiError::new(StatusCode::TOO_MANY_REQUESTS, "the shard's rate limit leaves no room for this"))?;
    let appended = pending.durable().await.map_err(|error| ApiError::of_log(&error))?;
    Ok(Json(PutDone { records: places(&appended, &shards) }))
}

/// Browsers send some content types to any host for any page, but not this one.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        format!("the content type must be application/json, not `{given}`"),
    ))
}

fn parse(body: &[u8]) -> Result<Put, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let put: Put = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| ApiError::bad(error.path().to_string(), error.inner().to_string()))?;
    json.end().map_err(|error| ApiError::bad(".", error.to_string()))?;
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
    fn only_json_is_taken() {
        let headers = |text: &str| HeaderMap::from_iter([(CONTENT_TYPE, text.parse().expect("a header"))]);
        for right in ["application/json", "Application/JSON; charset=utf-8"] {
            assert!(check_content_type(&headers(right)).is_ok(), "{right}");
        }
        for wrong in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
            assert!(check_content_type(&headers(wrong)).is_err(), "{wrong}");
        }
        assert!(check_content_type(&HeaderMap::new()).is_err());
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
