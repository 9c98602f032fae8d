//! Cuts what a receiver says into lines. Pure; memory is bounded by the longest line and one piece.
//!
//! A line ends with CR, LF or both, since receivers write all three. Empty lines are passed over.

/// A line that was longer than allowed; it is passed over up to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// What was said and is not cut yet.
#[derive(Debug)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    at: usize,
    longest: usize,
    /// The line that is too long has not ended yet.
    skipping: bool,
}

impl Lines {
    /// Lines of at most so many bytes.
    pub(super) fn new(longest: usize) -> Self {
        Self { buffer: Vec::new(), at: 0, longest, skipping: false }
    }

    /// Takes a piece. [`Lines::next`] has to be asked until it has no more, or memory grows.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// What was pushed last is complete, such as a datagram: its last line has ended.
    pub(super) fn end(&mut self) {
        self.buffer.push(b'\n');
    }

    /// The next whole line, without its end.
    pub(super) fn next(&mut self) -> Option<Result<&[u8], TooLong>> {
        loop {
            let rest = &self.buffer[self.at..];
            let Some(length) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
                let is_too_long = rest.len() > self.longest;
                self.buffer.drain(..self.at);
                self.at = 0;
                if self.skipping || is_too_long {
                    self.buffer.clear();
                    let is_news = !self.skipping;
                    self.skipping = true;
                    if is_news {
                        return Some(Err(TooLong));
                    }
                }
                return None;
            };
            let start = self.at;
            self.at += length + 1;
            if std::mem::take(&mut self.skipping) || length == 0 {
                continue;
            }
            if length > self.longest {
                return Some(Err(TooLong));
            }
            return Some(Ok(&self.buffer[start..start + length]));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(pieces: &[&[u8]], longest: usize) -> Vec<Result<Vec<u8>, TooLong>> {
        let mut lines = Lines::new(longest);
        let mut found = Vec::new();
        for piece in pieces {
            lines.push(piece);
            while let Some(line) = lines.next() {
                found.push(line.map(<[u8]>::to_vec));
            }
            assert!(lines.buffer.len() <= longest);
        }
        found
    }

    #[test]
    fn every_ending_ends_a_line() {
        let whole = |text: &str| Ok(text.as_bytes().to_vec());
        assert_eq!(cut(&[b"a\r", b"\nb\n\nc\rd"], 10), [whole("a"), whole("b"), whole("c")]);
    }

    #[test]
    fn a_line_that_is_too_long_is_told_once_and_costs_no_other() {
        let whole = |text: &str| Ok(text.as_bytes().to_vec());
        assert_eq!(
            cut(&[b"12345", b"678", b"9\nab\n", b"123456\nc\n"], 4),
            [Err(TooLong), whole("ab"), Err(TooLong), whole("c")]
        );
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_the_pieces(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200), size in 1..20_usize) {
            let whole: Vec<_> = cut(&[&bytes], 20).into_iter().flatten().collect();
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            let cut: Vec<_> = cut(&pieces, 20).into_iter().flatten().collect();
            prop_assert_eq!(whole, cut);
        }
    }
}
