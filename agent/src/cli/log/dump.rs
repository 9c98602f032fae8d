//! `forebay log dump`: prints blocks and records as they lie in the files.

use std::ops::{ControlFlow, RangeInclusive};

use anyhow::Context as _;
use forebay_log_store::{
    SequenceNumber,
    inspect::{self, Dumped, DumpedBoot, DumpedControl},
};
use serde_json::{Value, json};

use super::{pair, verify::finding};
use crate::{
    api::wire::ReadRecord,
    cli::{ConfigFile, output::Output, stream_name, tail::shortened},
};

/// Of longer data the text form shows the beginning and the length; `--json` has all of it.
const SHOWN_BYTES_MAX: usize = 240;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Name of the stream
    #[arg(value_parser = stream_name)]
    stream: String,
    /// Only from this sequence number on
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    from: u64,
    /// End after so many records
    #[arg(long, short = 'n', value_name = "N")]
    count: Option<u64>,
    /// Print JSON, for scripts: a line for each segment, block, record and finding
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let dir = self.config.whereabouts()?.store.dir;
        let mut output = Output::new();
        let mut printed = Ok(());
        let dumped = inspect::dump(&dir, &self.stream, SequenceNumber(self.from), self.count, |shown| {
            let line = if self.json { Ok(as_json(&shown).to_string()) } else { as_text(&shown) };
            printed = line.and_then(|line| output.line(&line));
            if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        printed?;
        dumped.with_context(|| format!("dump {}", dir.display()))?;
        output.flush()
    }
}

fn as_text(shown: &Dumped) -> anyhow::Result<String> {
    Ok(match shown {
        Dumped::Segment { path, bytes, .. } => format!("{} ({bytes} bytes)", path.display()),
        Dumped::Block { offset, bytes, first, control: Some(control), .. } => {
            let said = control_lines(control).join("\n    ");
            format!("  byte {offset}: control block of {bytes} bytes before record {first}\n    {said}")
        }
        Dumped::Block { offset, bytes, first, records, .. } => {
            format!("  byte {offset}: block of {bytes} bytes, {records} records from {first}")
        }
        Dumped::Record(record) => format!("    {}", shortened(&ReadRecord::from(&**record), SHOWN_BYTES_MAX)?),
        Dumped::Gap { offset, first, last } => {
            format!("  byte {offset}: records {first} to {last} were lost to damage before a repair")
        }
        Dumped::Unwritten { offset, first, last } => {
            format!("  byte {offset}: records {first} to {last} were delivered from memory, or never given")
        }
        Dumped::Mark { name, value } if value.is_empty() => format!("    mark {name} is removed"),
        Dumped::Mark { name, value } => format!("    mark {name} = {}", value.escape_ascii()),
        Dumped::Finding(finding) => format!("  {finding}"),
        // What later versions may show.
        other => format!("  {other:?}"),
    })
}

fn as_json(shown: &Dumped) -> Value {
    match shown {
        Dumped::Segment { path, bytes, first, created } => json!({ "segment": {
            "file": path, "bytes": bytes, "first": first.0, "created_ms": created.map(|time| time.0),
        }}),
        Dumped::Block { offset, bytes, first, records, arrival, boot, control } => json!({ "block": {
            "offset": offset, "bytes": bytes, "first": first.0, "records": records,
            "arrival_ms": arrival.0, "boot": boot,
            "checkpoints": control.as_ref().map(|control| &control.checkpoints),
            "control": control.as_ref().map(|control| control_json(control)),
        }}),
        Dumped::Gap { offset, first, last } => json!({ "gap": { "offset": offset, "records": [first.0, last.0] } }),
        Dumped::Unwritten { offset, first, last } => {
            json!({ "unwritten": { "offset": offset, "records": [first.0, last.0] } })
        }
        Dumped::Record(record) => json!({ "record": ReadRecord::from(&**record) }),
        Dumped::Mark { name, value } => json!({ "mark": { "name": name, "value": value.escape_ascii().to_string() } }),
        Dumped::Finding(found) => json!({ "finding": finding(found) }),
        other => json!({ "other": format!("{other:?}") }),
    }
}

fn control_lines(control: &DumpedControl) -> Vec<String> {
    let DumpedControl { checkpoints, oldest, dropped, lost, gaps, reserved, unwritten, boots } = control;
    let mut lines: Vec<_> =
        checkpoints.iter().map(|(consumer, done)| format!("{consumer} was done up to {done}")).collect();
    lines.push(format!(
        "dropped before record {oldest}: {} by retention, {} by quota, {} by damage; of them undelivered {}, {}, {}",
        dropped.retention, dropped.quota, dropped.damage, lost.retention, lost.quota, lost.damage
    ));
    lines.extend(gaps.iter().map(|gap| format!("records {} to {} were told as damaged", gap.start(), gap.end())));
    if *reserved > SequenceNumber::ZERO {
        lines.push(format!("numbers before {reserved} may have been given to records that were never written"));
    }
    let of_no_record =
        |range: &RangeInclusive<_>| format!("numbers {} to {} stand for no record", range.start(), range.end());
    lines.extend(unwritten.iter().map(of_no_record));
    lines.extend(boots.iter().map(|DumpedBoot { id, number, lasted, began }| {
        let began = began.map_or("an unknown time".to_owned(), |began| format!("{} ms", began.0));
        format!("boot {id:08x}, number {number}, began at {began} and lasted {} s at least", lasted.as_secs())
    }));
    lines
}

fn control_json(control: &DumpedControl) -> Value {
    let boots = control.boots.iter().map(|DumpedBoot { id, number, lasted, began }| {
        json!({
            "id": id, "number": number, "lasted_ms": u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
            "began_ms": began.map(|began| began.0),
        })
    });
    json!({
        "oldest": control.oldest.0,
        "dropped": control.dropped,
        "lost": control.lost,
        "gaps": control.gaps.iter().map(pair).collect::<Vec<_>>(),
        "reserved": control.reserved.0,
        "unwritten": control.unwritten.iter().map(pair).collect::<Vec<_>>(),
        "boots": boots.collect::<Vec<_>>(),
    })
}
