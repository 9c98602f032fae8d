//! `forebay log stats`: what the files hold, in figures.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use forebay_log_store::{
    Timestamp,
    inspect::{self, StreamCounts},
};
use serde_json::{Value, json};

use super::{counted, pair};
use crate::{
    cli::{ConfigFile, output::Output, stream_name},
    config::size,
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Only this stream
    #[arg(value_parser = stream_name)]
    stream: Option<String>,
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let dir = self.config.whereabouts()?.store.dir;
        let streams = inspect::stats(&dir, self.stream.as_deref())
            .with_context(|| format!("count what is in {}", dir.display()))?;
        let mut output = Output::new();
        if self.json {
            let streams: Vec<_> = streams.iter().map(as_json).collect();
            output.line(&json!({ "streams": streams }).to_string())?;
        } else {
            for stream in &streams {
                output.text(&for_people(stream))?;
            }
        }
        output.flush()
    }
}

/// How many of one there are for each of the other; nothing without the other.
fn ratio(of: u64, to: u64) -> Option<f64> {
    (to > 0).then(|| of as f64 / to as f64)
}

fn for_people(stream: &StreamCounts) -> String {
    let mut text = format!("{}: {} in {}", stream.name, counted(stream.records, "record"), size::show(stream.bytes));
    text.push_str(&format!(
        ", {}, {} of records, {}\n",
        counted(stream.segments, "segment"),
        counted(stream.blocks, "block"),
        counted(stream.control_blocks, "control block")
    ));
    if let (Some(range), Some(arrivals)) = (&stream.range, &stream.arrivals) {
        let [from, to] = [arrivals.start(), arrivals.end()].map(time);
        text.push_str(&format!("  numbers {} to {}, arrived {from} to {to}\n", range.start(), range.end()));
    }
    if let Some(ratio) = ratio(stream.bytes, stream.payload_bytes) {
        let payload = size::show(stream.payload_bytes);
        text.push_str(&format!("  payload {payload}, {ratio:.3} bytes on disk for each of its bytes\n"));
    }
    for (codec, stats) in &stream.codecs {
        let (stored, raw) = (size::show(stats.stored_bytes), size::show(stats.raw_bytes));
        let ratio = ratio(stats.stored_bytes, stats.raw_bytes).unwrap_or(1.0);
        let blocks = counted(stats.blocks, "block");
        text.push_str(&format!("  codec {codec}: {blocks}, {stored} for {raw} ({ratio:.3})\n"));
    }
    for (bytes, blocks) in &stream.block_sizes {
        text.push_str(&format!("  blocks of up to {}: {blocks}\n", size::show(*bytes)));
    }
    for (shard, counts) in &stream.shards {
        let records = counted(counts.records, "record");
        text.push_str(&format!("  shard {shard}: {records}, {} encoded\n", size::show(counts.encoded_bytes)));
    }
    if stream.lost_before > 0 {
        let records = counted(stream.lost_before, "record");
        text.push_str(&format!("  {records} lost to damage before a repair\n"));
    }
    if stream.findings > 0 {
        let places = counted(stream.findings, "place");
        text.push_str(&format!("  {places} where something is not as it should be: see `forebay log verify`\n"));
    }
    text
}

fn time(time: &Timestamp) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(time.0)).unwrap_or(UNIX_EPOCH);
    humantime::format_rfc3339_seconds(time).to_string()
}

fn as_json(stream: &StreamCounts) -> Value {
    let codecs = stream.codecs.iter().map(|(codec, stats)| {
        let stats = json!({
            "blocks": stats.blocks, "stored_bytes": stats.stored_bytes, "raw_bytes": stats.raw_bytes,
            "ratio": ratio(stats.stored_bytes, stats.raw_bytes),
        });
        ((*codec).to_owned(), stats)
    });
    let shards = stream.shards.iter().map(|(shard, counts)| {
        (shard.to_string(), json!({ "records": counts.records, "encoded_bytes": counts.encoded_bytes }))
    });
    let block_sizes = stream.block_sizes.iter().map(|(bytes, blocks)| json!({ "up_to": bytes, "blocks": blocks }));
    json!({
        "name": stream.name,
        "segments": stream.segments,
        "bytes": stream.bytes,
        "blocks": stream.blocks,
        "control_blocks": stream.control_blocks,
        "records": stream.records,
        "payload_bytes": stream.payload_bytes,
        "bytes_per_payload_byte": ratio(stream.bytes, stream.payload_bytes),
        "numbers": stream.range.as_ref().map(pair),
        "arrivals_ms": stream.arrivals.as_ref().map(|range| [range.start().0, range.end().0]),
        "codecs": codecs.collect::<serde_json::Map<_, _>>(),
        "block_sizes": block_sizes.collect::<Vec<_>>(),
        "shards": shards.collect::<serde_json::Map<_, _>>(),
        "lost_before": stream.lost_before,
        "findings": stream.findings,
    })
}
