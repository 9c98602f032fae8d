//! `forebay log verify`: reads every block of every stream and says what is damaged.

use anyhow::Context as _;
use forebay_log_store::inspect::{self, Depth, FINDINGS_MAX, Finding, Report, StreamReport};
use serde_json::{Value, json};

use super::{Unsound, count_of, counted, pair};
use crate::{
    cli::{ConfigFile, output::Output, stream_name},
    config::size,
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Only this stream
    #[arg(value_parser = stream_name)]
    stream: Option<String>,
    /// Also decompress every block and decode its records
    #[arg(long)]
    deep: bool,
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl Args {
    /// Fails if something is damaged, so that a script can ask.
    pub(super) fn run(self) -> anyhow::Result<()> {
        let dir = self.config.whereabouts()?.store.dir;
        let depth = if self.deep { Depth::Records } else { Depth::Checksums };
        let report = inspect::verify(&dir, self.stream.as_deref(), depth)
            .with_context(|| format!("verify {}", dir.display()))?;
        let mut output = Output::new();
        if self.json {
            output.line(&as_json(&report).to_string())?;
        } else {
            for stream in &report.streams {
                output.text(&for_people(stream))?;
            }
            for leftover in &report.leftovers {
                output.line(&format!("set aside earlier: {}", leftover.display()))?;
            }
            output.line(&closing(&report))?;
        }
        output.flush()?;
        if report.is_sound() { Ok(()) } else { Err(Unsound.into()) }
    }
}

/// What it comes to, in one line.
fn closing(report: &Report) -> String {
    let records = report.streams.iter().map(|stream| stream.records).sum();
    let of = format!("{} of {}", counted(records, "record"), counted(report.streams.len() as u64, "stream"));
    if report.is_sound() {
        return format!("sound: {of}");
    }
    let losses = || report.streams.iter().flat_map(|stream| &stream.findings).filter(|finding| finding.kind.is_loss());
    let omitted: u64 = report.streams.iter().map(|stream| stream.findings_omitted).sum();
    let (at_least, places) = (if omitted > 0 { "at least " } else { "" }, counted(losses().count() as u64, "place"));
    let lost: u64 = losses().filter_map(|finding| finding.records.as_ref()).map(count_of).sum();
    format!(
        "damaged: {at_least}{places}, {} lost; {of} can be read. `forebay log repair` mends it while the agent is stopped",
        counted(lost, "record")
    )
}

fn for_people(stream: &StreamReport) -> String {
    let StreamReport { name, records, .. } = stream;
    let range = match (stream.first, stream.last) {
        (Some(first), Some(last)) => format!("records {first} to {last} ({records})"),
        _ => "no records".to_owned(),
    };
    let bytes = size::show(stream.bytes);
    let (blocks, segments) = (counted(stream.blocks, "block"), counted(stream.segments, "segment"));
    let mut text = format!("{name}: {range} in {blocks} of records, {segments}, {bytes}\n");
    for (consumer, done) in &stream.checkpoints {
        text.push_str(&format!("  {consumer} was done up to {done}\n"));
    }
    if stream.lost_before > 0 {
        text.push_str(&format!("  {} lost to damage before a repair\n", counted(stream.lost_before, "record")));
    }
    for finding in &stream.findings {
        text.push_str(&format!("  {finding}\n"));
    }
    if stream.findings_omitted > 0 {
        text.push_str(&format!("  and {} more, behind the first {FINDINGS_MAX}\n", stream.findings_omitted));
    }
    for leftover in &stream.leftovers {
        text.push_str(&format!("  set aside earlier: {}\n", leftover.display()));
    }
    text
}

fn as_json(report: &Report) -> Value {
    let streams: Vec<_> = report
        .streams
        .iter()
        .map(|stream| {
            json!({
                "name": stream.name,
                "sound": stream.is_sound(),
                "format": stream.format,
                "segments": stream.segments,
                "blocks": stream.blocks,
                "records": stream.records,
                "payload_bytes": stream.payload_bytes,
                "bytes": stream.bytes,
                "first": stream.first.map(|number| number.0),
                "lost_before": stream.lost_before,
                "last": stream.last.map(|number| number.0),
                "checkpoints": stream.checkpoints,
                "findings": stream.findings.iter().map(finding).collect::<Vec<_>>(),
                "findings_omitted": stream.findings_omitted,
                "leftovers": stream.leftovers,
            })
        })
        .collect();
    json!({ "sound": report.is_sound(), "streams": streams, "leftovers": report.leftovers })
}

/// One finding as JSON.
pub(super) fn finding(finding: &Finding) -> Value {
    json!({
        "kind": finding.kind.to_string(),
        "file": finding.file,
        "offset": finding.offset,
        "what": finding.what,
        "records": finding.records.as_ref().map(pair),
    })
}
