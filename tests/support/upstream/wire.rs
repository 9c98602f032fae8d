//! PutRecords and ListShards in Kinesis JSON 1.1 and CBOR 1.1: what a request says, what makes it invalid, what an answer looks like.
//!
//! Without I/O and without memory.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ciborium::Value as Cbor;
use hyper::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::shards::Shard;

pub(super) const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
pub(super) const CBOR: &str = "application/x-amz-cbor-1.1";
const TARGET: &str = "Kinesis_20131202.PutRecords";
const TARGET_LIST: &str = "Kinesis_20131202.ListShards";

/// Shards on a page. AWS has 1,000 of them at the most, and promises no number.
const PAGE_SHARDS: usize = 3;

// The limits are those of the service's model.
const RECORDS_MAX: usize = 500;
const REQUEST_BYTES_MAX: usize = 10 * 1024 * 1024;
/// The default of a stream; the model allows a stream to be given more.
const RECORD_BYTES_MAX: usize = 1024 * 1024;
const PARTITION_KEY_CHARACTERS_MAX: usize = 256;

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct PutRecords {
    pub(crate) stream: String,
    pub(crate) records: Vec<SentRecord>,
    /// The id of the key that it was signed with.
    pub(crate) access_key: String,
    /// When it was signed, by the sender's clock: `20260131T235959Z`.
    pub(crate) signed_at: String,
}

/// A record of a request.
#[derive(Debug, Clone)]
pub(crate) struct SentRecord {
    pub(crate) partition_key: String,
    pub(crate) explicit_hash_key: Option<String>,
    pub(crate) data: Vec<u8>,
}

impl PutRecords {
    /// Data and partition keys, as Kinesis counts them.
    pub(crate) fn bytes(&self) -> usize {
        self.records.iter().map(SentRecord::bytes).sum()
    }
}

impl SentRecord {
    fn bytes(&self) -> usize {
        self.data.len() + self.partition_key.len()
    }
}

/// Why a request is refused before any script is asked.
#[derive(Debug)]
pub(super) struct Invalid {
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// What became of a record.
pub(super) enum Outcome {
    Taken { sequence_number: u64, shard_id: Arc<str> },
    Refused { code: &'static str },
}

/// `Credential=KEY/DATE/REGION/...`
fn access_key(authorization: &str) -> String {
    let credential = authorization.split_once("Credential=").map_or("", |(_, credential)| credential);
    credential.split('/').next().unwrap_or_default().to_owned()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

pub(super) fn asks_for_shards(headers: &HeaderMap) -> bool {
    header(headers, "x-amz-target") == TARGET_LIST
}

/// A question for shards: where it begins in their list.
pub(super) struct ListShards {
    from: usize,
}

pub(super) fn parse_list(body: &[u8]) -> Result<ListShards, Invalid> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase", deny_unknown_fields)]
    struct Request {
        stream_name: Option<String>,
        next_token: Option<String>,
    }
    let request: Request = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return invalid("SerializationException", error.to_string()),
    };
    match (request.stream_name, request.next_token.map(|token| token.parse())) {
        (Some(_), None) => Ok(ListShards { from: 0 }),
        (None, Some(Ok(from))) => Ok(ListShards { from }),
        _ => invalid("InvalidArgumentException", "either a stream or a token of a page before".to_owned()),
    }
}

/// A page of the list of these shards.
pub(super) fn page(shards: &[Shard], list: &ListShards) -> Vec<u8> {
    let shard = |shard: &Shard| {
        let mut listed = json!({
            "ShardId": *shard.id,
            "HashKeyRange": {
                "StartingHashKey": shard.first.to_string(),
                "EndingHashKey": shard.last.to_string(),
            },
            "SequenceNumberRange": { "StartingSequenceNumber": format!("49{:054}", 0) },
        });
        for (field, parent) in ["ParentShardId", "AdjacentParentShardId"].into_iter().zip(&shard.parents) {
            if let Some(parent) = parent {
                listed[field] = (**parent).into();
            }
        }
        if !shard.is_open {
            listed["SequenceNumberRange"]["EndingSequenceNumber"] = format!("49{:054}", 1).into();
        }
        listed
    };
    let mut rest = shards.iter().skip(list.from);
    let mut page = json!({ "Shards": rest.by_ref().take(PAGE_SHARDS).map(shard).collect::<Vec<_>>() });
    if rest.next().is_some() {
        page["NextToken"] = (list.from + PAGE_SHARDS).to_string().into();
    }
    serde_json::to_vec(&page).expect("strings are always JSON")
}

/// Reads a request and holds it against the limits of the service.
pub(super) fn parse(headers: &HeaderMap, body: &[u8]) -> Result<PutRecords, Invalid> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase", deny_unknown_fields)]
    struct Request {
        stream_name: Option<String>,
        #[serde(rename = "StreamARN")]
        stream_arn: Option<String>,
        records: Vec<Record>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase", deny_unknown_fields)]
    struct Record {
        data: String,
        partition_key: String,
        explicit_hash_key: Option<String>,
    }

    let header = |name: &str| header(headers, name);
    if header("x-amz-target") != TARGET {
        return invalid("UnknownOperationException", format!("target {:?}", header("x-amz-target")));
    }
    if ![CONTENT_TYPE, CBOR].contains(&header("content-type")) {
        return invalid("SerializationException", format!("content type {:?}", header("content-type")));
    }
    if !header("authorization").starts_with("AWS4-HMAC-SHA256 ") {
        return invalid("MissingAuthenticationTokenException", "no signature".to_owned());
    }
    let request: Request = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return invalid("SerializationException", error.to_string()),
    };
    let Some(stream) = request.stream_name.or(request.stream_arn) else {
        return invalid("ValidationException", "no stream".to_owned());
    };
    let mut records = Vec::with_capacity(request.records.len());
    for record in request.records {
        let Ok(data) = BASE64_STANDARD.decode(record.data) else {
            return invalid("SerializationException", "data is not base64".to_owned());
        };
        records.push(SentRecord {
            partition_key: record.partition_key,
            explicit_hash_key: record.explicit_hash_key,
            data,
        });
    }
    let access_key = access_key(header("authorization"));
    let request = PutRecords { stream, records, access_key, signed_at: header("x-amz-date").to_owned() };
    match broken_limit(&request) {
        Some(message) => invalid("ValidationException", message),
        None => Ok(request),
    }
}

/// Whether a request is in CBOR, and so its answer.
pub(super) fn is_cbor(headers: &HeaderMap) -> bool {
    header(headers, "content-type") == CBOR
}

/// A request in CBOR, whose data has to be bytes, as one in JSON.
pub(super) fn json_of_cbor(body: &[u8]) -> Result<Vec<u8>, Invalid> {
    fn json_of(value: Cbor, key: &str) -> Result<Value, String> {
        match value {
            Cbor::Bytes(data) if key == "Data" => Ok(BASE64_STANDARD.encode(data).into()),
            Cbor::Text(text) if key != "Data" => Ok(text.into()),
            Cbor::Array(list) => list.into_iter().map(|value| json_of(value, "")).collect(),
            Cbor::Map(fields) => {
                let field = |(name, value): (Cbor, Cbor)| {
                    let name = name.into_text().map_err(|name| format!("{name:?} is no name"))?;
                    let value = json_of(value, &name)?;
                    Ok((name, value))
                };
                fields.into_iter().map(field).collect::<Result<_, _>>().map(Value::Object)
            }
            other => Err(format!("{other:?} for {key:?}")),
        }
    }
    let mut rest = body;
    let read = ciborium::from_reader(&mut rest).map_err(|error| error.to_string());
    match read.and_then(|request| json_of(request, "")) {
        Ok(_) if !rest.is_empty() => invalid("SerializationException", "there is more behind it".to_owned()),
        Ok(request) => Ok(serde_json::to_vec(&request).expect("strings are always JSON")),
        Err(error) => invalid("SerializationException", error),
    }
}

/// An answer in JSON as one in CBOR.
pub(super) fn cbor_of_json(body: &[u8]) -> Vec<u8> {
    let answer: Value = serde_json::from_slice(body).expect("it is ours");
    let mut written = Vec::new();
    ciborium::into_writer(&answer, &mut written).expect("memory takes every value");
    written
}

fn broken_limit(request: &PutRecords) -> Option<String> {
    let records = request.records.len();
    if !(1..=RECORDS_MAX).contains(&records) {
        return Some(format!("{records} records"));
    }
    let bytes = request.bytes();
    if bytes > REQUEST_BYTES_MAX {
        return Some(format!("{bytes} bytes in the request"));
    }
    request.records.iter().enumerate().find_map(|(index, record)| {
        let characters = record.partition_key.chars().count();
        if !(1..=PARTITION_KEY_CHARACTERS_MAX).contains(&characters) {
            Some(format!("record {index}: partition key of {characters} characters"))
        } else if record.bytes() > RECORD_BYTES_MAX {
            Some(format!("record {index}: {} bytes", record.bytes()))
        } else if record.explicit_hash_key.as_ref().is_some_and(|key| key.parse::<u128>().is_err()) {
            Some(format!("record {index}: {:?} is no hash key", record.explicit_hash_key))
        } else {
            None
        }
    })
}

fn invalid<T>(code: &'static str, message: String) -> Result<T, Invalid> {
    Err(Invalid { code, message })
}

/// The body of an answer to a request of which at least a part was taken.
pub(super) fn answer(outcomes: &[Outcome]) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer<'a> {
        failed_record_count: usize,
        encryption_type: &'static str,
        records: Vec<Entry<'a>>,
    }
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Entry<'a> {
        #[serde(rename_all = "PascalCase")]
        Taken { sequence_number: String, shard_id: &'a str },
        #[serde(rename_all = "PascalCase")]
        Refused { error_code: &'static str, error_message: &'static str },
    }
    let records: Vec<Entry<'_>> = outcomes
        .iter()
        .map(|outcome| match outcome {
            // 56 digits that begin with 49, as AWS's have been for years.
            Outcome::Taken { sequence_number, shard_id } => {
                Entry::Taken { sequence_number: format!("49{sequence_number:054}"), shard_id }
            }
            Outcome::Refused { code } => Entry::Refused { error_code: code, error_message: "as the test asked for" },
        })
        .collect();
    let refused = |outcome: &&Outcome| matches!(outcome, Outcome::Refused { .. });
    let answer =
        Answer { failed_record_count: outcomes.iter().filter(refused).count(), encryption_type: "NONE", records };
    serde_json::to_vec(&answer).expect("strings and numbers are always JSON")
}

/// The body of an error of the service.
pub(super) fn error(code: &str, message: &str) -> Vec<u8> {
    let body = serde_json::json!({ "__type": code, "message": message });
    serde_json::to_vec(&body).expect("strings are always JSON")
}
