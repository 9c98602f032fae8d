//! `forebay log repair`: takes out of a closed log what is damaged.

use anyhow::Context as _;
use forebay_log_store::inspect::{self, Mended, RepairReport};
use serde_json::{Value, json};

use super::{Unsound, count_of, counted, pair, verify};
use crate::cli::{ConfigFile, output::Output, stream_name};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Only this stream
    #[arg(value_parser = stream_name)]
    stream: Option<String>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl Args {
    /// Fails if something is left that cannot be mended, so that a script can ask.
    pub(super) fn run(self) -> anyhow::Result<()> {
        let dir = self.config.whereabouts()?.store.dir;
        let report = inspect::repair(&dir, self.stream.as_deref(), self.dry_run)
            .with_context(|| format!("repair {}", dir.display()))?;
        let mut output = Output::new();
        match self.json {
            true => output.line(&as_json(&report, self.dry_run).to_string())?,
            false => output.text(&for_people(&report, self.dry_run))?,
        }
        output.flush()?;
        if report.left.is_empty() { Ok(()) } else { Err(Unsound.into()) }
    }
}

fn for_people(report: &RepairReport, dry_run: bool) -> String {
    let mut text = String::new();
    for Mended { file, what, lost, kept } in &report.mended {
        text.push_str(&format!("{}: {what}", file.display()));
        for range in lost {
            text.push_str(&format!("; records {} to {} are lost", range.start(), range.end()));
        }
        if let Some(kept) = kept {
            text.push_str(&format!("; what it was is {}", kept.display()));
        }
        text.push('\n');
    }
    for finding in &report.left {
        text.push_str(&format!("cannot be mended: {finding}\n"));
    }
    let lost: u64 = report.mended.iter().flat_map(|mended| &mended.lost).map(count_of).sum();
    let files = counted(report.mended.len() as u64, "file");
    let would_be = if dry_run { "would be " } else { "" };
    text.push_str(&match (report.mended.len(), lost) {
        (0, _) if report.left.is_empty() => "nothing to mend\n".to_owned(),
        (0, _) => "nothing that can be mended\n".to_owned(),
        (_, 0) => format!("{files} {would_be}mended; no record is lost\n"),
        (_, lost) => format!("{files} {would_be}mended; {} lost to the damage\n", counted(lost, "record")),
    });
    text
}

fn as_json(report: &RepairReport, dry_run: bool) -> Value {
    let mended = report.mended.iter().map(|Mended { file, what, lost, kept }| {
        json!({ "file": file, "what": what, "lost": lost.iter().map(pair).collect::<Vec<_>>(), "kept": kept })
    });
    json!({
        "dry_run": dry_run,
        "mended": mended.collect::<Vec<_>>(),
        "left": report.left.iter().map(verify::finding).collect::<Vec<_>>(),
    })
}
