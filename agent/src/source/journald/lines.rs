//! Lines of a program, of bounded length.

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

/// Reads lines; what is longer than a line may be is left out of it, but not what follows.
pub(super) struct Lines<R> {
    reader: R,
    max: usize,
    line: Vec<u8>,
    /// Of the line, also what is left out.
    bytes: usize,
    /// Whether the line was given, so that the next one begins.
    given: bool,
}

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Whole(&'a [u8]),
    /// So many bytes, of which only the beginning is here.
    TooLong(&'a [u8], usize),
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R, max: usize) -> Self {
        Self { reader, max, line: Vec::new(), bytes: 0, given: false }
    }

    /// Waits until the next line is there to be taken with [`Lines::line`]. False at the end; a line that does not end is none.
    ///
    /// # Cancel safety
    /// Nothing is lost if it is dropped.
    pub(super) async fn advance(&mut self) -> std::io::Result<bool> {
        if std::mem::take(&mut self.given) {
            self.line.clear();
            self.bytes = 0;
        }
        loop {
            let available = self.reader.fill_buf().await?;
            if available.is_empty() {
                return Ok(false);
            }
            let end = memchr::memchr(b'\n', available);
            let part = &available[..end.unwrap_or(available.len())];
            let room = self.max.saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            self.bytes += part.len();
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                self.given = true;
                return Ok(true);
            }
        }
    }

    /// The line that is there.
    pub(super) fn line(&self) -> Line<'_> {
        if self.bytes > self.line.len() { Line::TooLong(&self.line, self.bytes) } else { Line::Whole(&self.line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_that_is_too_long_does_not_take_its_neighbours_along() {
        let text = format!("one\n{}\n\nthree\nhalf", "x".repeat(100_000));
        let mut lines = Lines::new(text.as_bytes(), 10);
        let mut found = Vec::new();
        while lines.advance().await.expect("memory") {
            found.push(match lines.line() {
                Line::Whole(line) => String::from_utf8_lossy(line).into_owned(),
                Line::TooLong(beginning, bytes) => format!("{} of {bytes}", beginning.len()),
            });
        }
        assert_eq!(found, ["one", "10 of 100000", "", "three"]);
    }
}
