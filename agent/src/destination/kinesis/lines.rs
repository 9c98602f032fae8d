//! Records of one key as the lines of one record of the wire, compressed if the settings say so. Every line ends with a
//! newline, the last one too, so that what is put one after the other downstream are lines again.

use std::{io::Write as _, sync::Arc};

use flate2::{Compression, write::GzEncoder};
use forebay_log_store::Record;

/// The least that gzip does for repeated JSON is most of what it can do, and costs a gateway a third of the time.
const LEVEL: Compression = Compression::fast();

/// What a record adds at the most.
pub(super) fn bytes_max(record: &Record) -> u64 {
    record.data.len() as u64 + 1
}

/// What gzip may make of data that it cannot compress: a header, and five bytes for every block of it.
pub(super) fn gzip_bytes_max(bytes: u64) -> u64 {
    bytes + 5 * (bytes / 16_383 + 1) + 18
}

pub(super) fn encode(records: &[Arc<Record>], gzip: bool) -> Vec<u8> {
    let bytes = records.iter().map(|record| bytes_max(record)).sum::<u64>();
    let mut lines = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
    for record in records {
        lines.extend_from_slice(&record.data);
        if !record.data.ends_with(b"\n") {
            lines.push(b'\n');
        }
    }
    if gzip { compress(&lines) } else { lines }
}

fn compress(lines: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(lines.len() / 3), LEVEL);
    encoder.write_all(lines).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;
    use crate::sample::plain;

    fn record(data: &[u8]) -> Arc<Record> {
        Arc::new(plain("k", data.to_vec()))
    }

    #[test]
    fn every_line_ends_with_one_newline() {
        let lines = encode(&[record(b"one"), record(b"two\n"), record(b""), record(b"four")], false);
        assert_eq!(lines, b"one\ntwo\n\nfour\n");
    }

    proptest! {
        #[test]
        fn lines_are_the_records_and_no_larger_than_reckoned(
            datas in prop::collection::vec(prop::collection::vec(0x20..=0xff_u8, 0..3000), 1..40),
            gzip: bool,
        ) {
            let records: Vec<_> = datas.iter().map(|data| record(data)).collect();
            let wire = encode(&records, gzip);
            let reckoned = records.iter().map(|record| bytes_max(record)).sum::<u64>();
            let most = if gzip { gzip_bytes_max(reckoned) } else { reckoned };
            prop_assert!(wire.len() as u64 <= most, "{} bytes, {most} reckoned", wire.len());
            let lines = match gzip {
                false => wire,
                true => {
                    let mut lines = Vec::new();
                    flate2::read::GzDecoder::new(&wire[..]).read_to_end(&mut lines).expect("gzip");
                    lines
                }
            };
            let read: Vec<_> = lines.strip_suffix(b"\n").expect("a newline").split(|byte| *byte == b'\n').collect();
            prop_assert_eq!(read, datas.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
    }
}
