//! A request by the specification for HTTP endpoints of Firehose. Pure.

use std::{fmt::Write as _, io::Write as _};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use flate2::{Compression as Level, write::GzEncoder};
use md5::{Digest as _, Md5};

use crate::destination::Parcel;

/// The id of a request: the same for the same records of the same stream of the same gateway, also after a restart, so that
/// a receiver recognises what it has had already. Another set of records is another request.
pub(super) fn id(origin: &str, parcels: &[Parcel]) -> String {
    let mut hash = Md5::new();
    hash.update(origin.as_bytes());
    for record in parcels.iter().flat_map(|parcel| &parcel.records) {
        hash.update(record.sequence_number.0.to_le_bytes());
    }
    let mut digest: [u8; 16] = hash.finalize().into();
    // By RFC 9562: a UUID of version 8, whose content is its maker's affair.
    digest[6] = (digest[6] & 0x0f) | 0x80;
    digest[8] = (digest[8] & 0x3f) | 0x80;
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    let [a, b, c, d, e] = [&digest[..4], &digest[4..6], &digest[6..8], &digest[8..10], &digest[10..]].map(hex);
    format!("{a}-{b}-{c}-{d}-{e}")
}

/// What a record takes in a body: its data in Base64, and what is around it.
pub(super) fn bytes_of(data: usize) -> u64 {
    (data.div_ceil(3) * 4 + RECORD_AROUND) as u64
}

const BEFORE: &str = "{\"data\":\"";
const BEHIND: &str = "\"},";
const RECORD_AROUND: usize = BEFORE.len() + BEHIND.len();

/// The body of a request.
pub(super) fn body(id: &str, timestamp_ms: u64, parcels: &[Parcel], gzip: bool) -> std::io::Result<Vec<u8>> {
    let records = || parcels.iter().flat_map(|parcel| &parcel.records);
    let size: u64 = records().map(|record| bytes_of(record.data.len())).sum();
    let mut text = String::with_capacity(usize::try_from(size).unwrap_or_default() + 128);
    let _ = write!(text, "{{\"requestId\":\"{id}\",\"timestamp\":{timestamp_ms},\"records\":[");
    for (place, record) in records().enumerate() {
        if place > 0 {
            text.push(',');
        }
        text.push_str(BEFORE);
        BASE64_STANDARD.encode_string(&record.data, &mut text);
        text.push_str(BEHIND.trim_end_matches(','));
    }
    text.push_str("]}");
    if !gzip {
        return Ok(text.into_bytes());
    }
    let mut packed = GzEncoder::new(Vec::with_capacity(text.len() / 3), Level::default());
    packed.write_all(text.as_bytes())?;
    packed.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use forebay_log_store::{Record, SequenceNumber};
    use serde_json::{Value, json};

    use super::*;
    use crate::sample::plain;

    fn parcel(number: u64, data: &'static [u8]) -> Parcel {
        let record = Record { sequence_number: SequenceNumber(number), ..plain("key", data) };
        Parcel { records: vec![Arc::new(record)].into() }
    }

    #[test]
    fn the_same_records_are_the_same_request() {
        let [one, two, three] = [1, 2, 3].map(|number| parcel(number, b""));
        let all = id("gateway\0stream", &[one.clone(), two.clone(), three.clone()]);
        assert_eq!(all, id("gateway\0stream", &[one.clone(), two, three.clone()]));
        // Of the same ends, but another one between.
        assert_ne!(all, id("gateway\0stream", &[one.clone(), three.clone()]));
        assert_ne!(all, id("gateway\0other", &[one, parcel(2, b""), three]));
        let form: Vec<usize> = all.split('-').map(str::len).collect();
        assert!(form == [8, 4, 4, 4, 12] && &all[14..15] == "8", "{all}");
    }

    #[test]
    fn a_body_is_what_the_specification_shows_and_as_large_as_was_said() {
        let parcels = [parcel(1, b"\x00\xff one"), parcel(2, b"")];
        let plain = body("id", 1578090901599, &parcels, false).expect("written");
        let read: Value = serde_json::from_slice(&plain).expect("JSON");
        assert_eq!(
            read,
            json!({ "requestId": "id", "timestamp": 1578090901599_u64, "records": [{ "data": "AP8gb25l" }, { "data": "" }] })
        );
        let said = bytes_of(6) + bytes_of(0);
        let empty = body("id", 1578090901599, &[], false).expect("written").len() as u64;
        assert!((said - 1..=said).contains(&(plain.len() as u64 - empty)), "{said}");
        let mut unpacked = Vec::new();
        let packed = body("id", 1578090901599, &parcels, true).expect("written");
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*packed), &mut unpacked).expect("gzip");
        assert_eq!(unpacked, plain);
    }
}
