//! `forebay tail`: prints a stream's records, one line each.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use forebay_log_store::{Cursor, ReadLimit, SequenceNumber, ShardIndex, Start, Stream};

use super::{
    ConfigFile, block_on,
    client::{ApiAddress, Client},
    output::Output,
    reach::{ClosedLog, Reach},
    stream_name,
};
use crate::{
    api::wire::{Read, ReadRecord, WAIT_SECONDS_MAX},
    printable::printable,
};

/// What is read at a time.
const LIMIT: ReadLimit = ReadLimit { records: 1000, payload_bytes: 1 << 20 };

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the stream
    #[arg(value_parser = stream_name)]
    stream: String,
    /// Where to begin: oldest, latest or a sequence number [default: oldest; with --follow: latest]
    #[arg(long, value_name = "WHERE", value_parser = from)]
    from: Option<From>,
    /// Go on when new records come, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// End after so many records
    #[arg(long, short = 'n', value_name = "N")]
    count: Option<u64>,
    /// Only records of this shard
    #[arg(long, value_name = "N")]
    shard: Option<u32>,
    /// Print each record as JSON, with its data in base64
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    api: ApiAddress,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum From {
    Oldest,
    Latest,
    At(u64),
}

fn from(text: &str) -> Result<From, String> {
    match text {
        "oldest" => Ok(From::Oldest),
        "latest" => Ok(From::Latest),
        number => number.parse().map(From::At).map_err(|_| "oldest, latest or a sequence number is needed".to_owned()),
    }
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let reach = match self.api.api {
            Some(_) => Reach::Agent(Box::new(self.api.client(&self.config)?)),
            None => Reach::of(&self.config)?,
        };
        let from = self.from.unwrap_or(if self.follow { From::Latest } else { From::Oldest });
        match reach {
            Reach::Agent(client) => block_on(self.through_agent(&client, from)),
            Reach::Log(_) if self.follow => {
                bail!("follow stream `{}`: no agent runs, so that nothing new can come", self.stream)
            }
            Reach::Log(log) => self.in_log(&log, from),
        }
    }

    async fn through_agent(&self, client: &Client, from: From) -> anyhow::Result<()> {
        let mut printer = Printer::new(self);
        let shard = self.shard.map(|shard| format!("&shard={shard}")).unwrap_or_default();
        // At first without waiting, so that whoever asks for what is not there yet is told so.
        let mut wait = 0;
        let wanted = from;
        let mut from = match from {
            From::Oldest => "oldest".to_owned(),
            From::Latest => "latest".to_owned(),
            From::At(number) => number.to_string(),
        };
        // Without --follow, what was there at the beginning is printed, and not what comes meanwhile.
        let mut end = None;
        while !printer.is_done() {
            let path =
                format!("/streams/{}/records?from={from}{shard}&limit={}&wait={wait}", self.stream, LIMIT.records);
            let read: Read = client.get(&path).await?;
            if end.is_none() {
                self.tell_if_behind(wanted, read.end);
            }
            let end = *end.get_or_insert(if self.follow { u64::MAX } else { read.end });
            printer.print(read.records.iter().take_while(|record| record.sequence_number < end))?;
            if read.next >= end || (read.records.is_empty() && !self.follow) {
                break;
            }
            from = read.next.to_string();
            wait = if self.follow { WAIT_SECONDS_MAX } else { 0 };
        }
        Ok(())
    }

    /// Says why nothing comes, if it was asked for what does not exist yet.
    fn tell_if_behind(&self, from: From, end: u64) {
        if let From::At(from) = from
            && from >= end
        {
            let (stream, waits) = (&self.stream, if self.follow { "; waiting for it" } else { "" });
            eprintln!("stream {stream} has no record {from} yet, the next one gets number {end}{waits}");
        }
    }

    fn in_log(&self, log: &ClosedLog, from: From) -> anyhow::Result<()> {
        let mut printer = Printer::new(self);
        let stream = log.to_read(&self.stream)?;
        self.tell_if_behind(from, stream.stats().next.0);
        let mut cursor = self.cursor(&stream, from)?;
        while !printer.is_done() {
            let records = cursor.read(LIMIT).with_context(|| format!("read stream `{}`", self.stream))?;
            if records.is_empty() {
                break;
            }
            let records: Vec<_> = records.iter().map(|record| ReadRecord::from(&**record)).collect();
            printer.print(&records)?;
        }
        Ok(())
    }

    fn cursor(&self, stream: &Stream, from: From) -> anyhow::Result<Cursor> {
        let start = match from {
            From::Oldest => Start::Oldest,
            From::Latest => Start::Latest,
            From::At(number) => Start::At(SequenceNumber(number)),
        };
        let Some(shard) = self.shard.map(ShardIndex) else { return Ok(stream.cursor(start)) };
        if !stream.shards().shards().iter().any(|known| known.index == shard) {
            bail!("read stream `{}`: it has no shard {}", self.stream, shard.0);
        }
        Ok(stream.shard_cursor(shard, start))
    }
}

/// Prints records until there were enough.
struct Printer {
    output: Output,
    json: bool,
    left: u64,
}

impl Printer {
    fn new(args: &Args) -> Self {
        Self { output: Output::new(), json: args.json, left: args.count.unwrap_or(u64::MAX) }
    }

    fn is_done(&self) -> bool {
        self.left == 0
    }

    fn print<'a>(&mut self, records: impl IntoIterator<Item = &'a ReadRecord>) -> anyhow::Result<()> {
        for record in records {
            if self.left == 0 {
                break;
            }
            self.left -= 1;
            let line = if self.json { serde_json::to_string(record)? } else { for_people(record)? };
            self.output.line(&line)?;
        }
        self.output.flush()
    }
}

/// Sequence number, time, partition key, data, and what else is known.
pub(super) fn for_people(record: &ReadRecord) -> anyhow::Result<String> {
    shortened(record, usize::MAX)
}

/// As [`for_people`], with at most about `bytes_max` bytes of the data, and then its length.
pub(super) fn shortened(record: &ReadRecord, bytes_max: usize) -> anyhow::Result<String> {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(record.arrival_ms)).unwrap_or(UNIX_EPOCH);
    // As in `date -u`, but that the clock's word is not certain.
    let doubt = if record.arrival_untrusted { "?" } else { "" };
    let time = humantime::format_rfc3339_millis(time);
    let key = printable(&record.partition_key);
    let bytes = record.bytes()?;
    let data = match str::from_utf8(&bytes) {
        Ok(text) if text.len() <= bytes_max => printable(text),
        Ok(text) => {
            let end = (0..=bytes_max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            format!("{}… ({} bytes in all)", printable(&text[..end]), text.len())
        }
        Err(_) if bytes.len() <= bytes_max => format!("base64:{}", record.data),
        // Every four characters stand for three bytes.
        Err(_) => format!("base64:{}… ({} bytes in all)", &record.data[..bytes_max.div_ceil(3) * 4], bytes.len()),
    };
    let mut line = format!("{}  {time}{doubt}  {key}  {data}", record.sequence_number);
    for (name, value) in &record.tags {
        line.push_str(&format!("  {}={}", printable(name), printable(value)));
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(data: &[u8]) -> ReadRecord {
        let data = crate::api::wire::PutRecord::new("", data).data.expect("data");
        ReadRecord {
            sequence_number: 17,
            shard: "shardId-000000000000".into(),
            arrival_ms: 1_790_000_000_123,
            arrival_untrusted: false,
            partition_key: "plant/1".into(),
            tags: Vec::new(),
            data,
        }
    }

    #[test]
    fn a_record_is_a_line() {
        assert_eq!(
            for_people(&record(b"{\"t\":20}")).expect("a line"),
            "17  2026-09-21T14:13:20.123Z  plant/1  {\"t\":20}"
        );
        let line = for_people(&ReadRecord { arrival_untrusted: true, ..record(b"x") }).expect("a line");
        assert!(line.contains("T14:13:20.123Z?  plant/1"), "{line}");
        let tags = vec![("reason".to_owned(), "too\nlarge".to_owned())];
        let line = for_people(&ReadRecord { tags, ..record(b"x") }).expect("a line");
        assert!(line.ends_with("  x  reason=too\\nlarge"), "{line}");
    }

    #[test]
    fn no_data_reaches_the_terminal_as_anything_but_text() {
        let line = for_people(&record("a\x1b[2J\r\nß".as_bytes())).expect("a line");
        assert!(line.ends_with("plant/1  a\\u{1b}[2J\\r\\nß"), "{line}");
        let line = for_people(&record(&[0xff, 0])).expect("a line");
        assert!(line.ends_with("plant/1  base64:/wA="), "{line}");
    }

    #[test]
    fn long_data_is_shortened_and_its_length_told() {
        let text = "aß".repeat(1000);
        let line = shortened(&record(text.as_bytes()), 5).expect("a line");
        assert!(line.ends_with("plant/1  aßa… (3000 bytes in all)"), "{line}");
        let line = shortened(&record(&[0xff; 1000]), 5).expect("a line");
        assert!(line.ends_with("plant/1  base64:////////… (1000 bytes in all)"), "{line}");
        let line = shortened(&record(b"12345"), 5).expect("a line");
        assert!(line.ends_with("plant/1  12345"), "{line}");
    }

    #[test]
    fn places_to_begin() {
        assert_eq!(from("oldest"), Ok(From::Oldest));
        assert_eq!(from("17"), Ok(From::At(17)));
        assert!(from("yesterday").is_err());
    }
}
