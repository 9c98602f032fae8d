//! Standard output: data for programs and people, until whoever reads it closes it.

use std::io::{self, BufWriter, StdoutLock, Write};

/// Nobody reads standard output any more, as after `forebay tail … | head`.
#[derive(Debug, thiserror::Error)]
#[error("write to standard output: nobody reads it")]
pub(super) struct Closed;

/// Standard output.
pub(super) struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    pub(super) fn new() -> Self {
        Self(BufWriter::new(io::stdout().lock()))
    }

    /// Writes text as it is.
    pub(super) fn text(&mut self, text: &str) -> anyhow::Result<()> {
        outcome(self.0.write_all(text.as_bytes()))
    }

    /// Writes text and ends the line.
    pub(super) fn line(&mut self, text: &str) -> anyhow::Result<()> {
        outcome(writeln!(self.0, "{text}"))
    }

    /// Hands on what was written.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        outcome(self.0.flush())
    }
}

fn outcome(written: io::Result<()>) -> anyhow::Result<()> {
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => anyhow::Error::new(Closed),
        _ => anyhow::Error::new(error).context("write to standard output"),
    })
}
