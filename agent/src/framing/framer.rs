//! The machine that cuts: bytes and silences go in, frames come out.

use std::{mem, ops::Range, time::Duration};

use memchr::{memchr, memmem};

use super::{BadFrame, Framing, LengthPrefix, Shape, slip, syslog};

/// The longest frame that is looked for byte by byte once the count was lost: each byte costs a checksum over as much.
const SOUGHT_BYTES_MAX: usize = 1024;

/// Cuts one stream. After every call of another method, call [`Framer::next`] until there is nothing more.
#[derive(Debug)]
pub struct Framer {
    framing: Framing,
    /// What came and was not handed out, from `start` on.
    buffer: Vec<u8>,
    start: usize,
    /// How much from `start` on is known to hold no delimiter.
    searched: usize,
    state: State,
    closing: Option<Closing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A frame begins at `start`.
    Aligned,
    /// Everything up to the next boundary belongs to a frame that was given up.
    Discarding,
    /// So many bytes belong to a frame that was given up.
    Skipping(u64),
    /// A frame may begin at any byte; its checksum decides.
    Seeking,
}

/// What happened at the end of what came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    Silence,
    End,
    Break,
}

/// One step.
enum Cut {
    /// It needs more bytes.
    Starved,
    /// It went on.
    Onward,
    Bad(BadFrame),
    /// A frame and where it begins with all that stands in front of it.
    Frame {
        begin: usize,
        frame: Range<usize>,
    },
}

impl Framer {
    pub(super) fn new(framing: Framing) -> Self {
        Self { framing, buffer: Vec::new(), start: 0, searched: 0, state: State::Aligned, closing: None }
    }

    /// Takes what came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            // Little is left as a rule: part of a frame.
            self.buffer.drain(..mem::take(&mut self.start));
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame. `bad` is called for each frame that is not right, whether it is handed out or not.
    pub fn next(&mut self, mut bad: impl FnMut(BadFrame)) -> Option<&[u8]> {
        let found = loop {
            match self.cut() {
                Cut::Starved => match self.closing.take() {
                    None => break None,
                    Some(closing) => {
                        if let Some(frame) = self.close(closing, &mut bad) {
                            break Some(frame);
                        }
                    }
                },
                Cut::Onward => {}
                Cut::Bad(frame) => bad(frame),
                Cut::Frame { begin, frame } => {
                    if let Some(frame) = self.verify(begin, frame, &mut bad) {
                        break Some(frame);
                    }
                }
            }
        };
        found.map(|frame| &self.buffer[frame])
    }

    /// How long nothing has to come, from now on, until [`Framer::on_silence`] is to be called; `None` if a silence means
    /// nothing at present.
    #[must_use]
    pub fn gap(&self) -> Option<Duration> {
        let gap = match &self.framing.shape {
            Shape::Gap(gap) => Some(*gap),
            Shape::Fixed { gap, .. } | Shape::LengthPrefix(LengthPrefix { gap, .. }) => *gap,
            _ => None,
        };
        gap.filter(|_| self.buffered() > 0 || self.state != State::Aligned)
    }

    /// Nothing came for as long as [`Framer::gap`] said.
    pub fn on_silence(&mut self) {
        if self.gap().is_some() {
            self.closing = Some(Closing::Silence);
        }
    }

    /// The stream ended in good order: what is left of a line is a line. What is pushed later is another stream.
    pub fn on_end(&mut self) {
        self.closing = Some(Closing::End);
    }

    /// The stream broke off, so that what is left is half a frame at best. What is pushed later is another stream.
    pub fn on_break(&mut self) {
        self.closing = Some(Closing::Break);
    }

    /// Bytes that wait for the rest of their frame.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.start
    }

    fn cut(&mut self) -> Cut {
        match &self.framing.shape {
            Shape::Line => self.cut_line(|bytes| memchr(b'\n', bytes)),
            Shape::Delimiter(delimiter) => {
                let delimiter = delimiter.clone();
                self.cut_delimited(delimiter.len(), delimiter.len() - 1, |bytes| memmem::find(bytes, &delimiter))
            }
            Shape::Cobs => {
                let cut = self.cut_delimited(1, 0, |bytes| memchr(0, bytes));
                self.decoded(cut, |frame| cobs::decode_in_place(frame).ok())
            }
            Shape::Slip => {
                let cut = self.cut_delimited(1, 0, |bytes| memchr(slip::END, bytes));
                self.decoded(cut, slip::decode_in_place)
            }
            Shape::Gap(_) => self.cut_silent(),
            Shape::Syslog => self.cut_syslog(),
            Shape::Fixed { length, .. } => {
                let (begin, end) = (self.start, self.start + length);
                if end > self.buffer.len() {
                    return Cut::Starved;
                }
                self.start = end;
                Cut::Frame { begin, frame: begin..end }
            }
            Shape::LengthPrefix(prefix) => {
                let prefix = prefix.clone();
                self.cut_prefixed(&prefix)
            }
        }
    }

    fn cut_line(&mut self, find: impl Fn(&[u8]) -> Option<usize>) -> Cut {
        let cut = self.cut_delimited(1, 1, find);
        let Cut::Frame { begin, mut frame } = cut else { return cut };
        if self.buffer[frame.clone()].last() == Some(&b'\r') {
            frame.end -= 1;
        }
        self.sized(begin, frame)
    }

    /// Frames that a delimiter ends. `slack` is how much more than a whole frame may wait for its delimiter.
    fn cut_delimited(&mut self, delimiter: usize, slack: usize, find: impl Fn(&[u8]) -> Option<usize>) -> Cut {
        let overlap = delimiter - 1;
        let from = self.start + self.searched.saturating_sub(overlap);
        if let Some(at) = find(&self.buffer[from..]) {
            let (begin, end) = (self.start, from + at);
            self.start = end + delimiter;
            self.searched = 0;
            return match mem::replace(&mut self.state, State::Aligned) {
                State::Aligned => {
                    // A line's CR is still to be taken off.
                    let spare = usize::from(matches!(self.framing.shape, Shape::Line | Shape::Syslog));
                    if end - begin > self.framing.max_frame + spare {
                        Cut::Bad(BadFrame::Oversize)
                    } else if begin == end {
                        Cut::Onward
                    } else {
                        Cut::Frame { begin, frame: begin..end }
                    }
                }
                _ => Cut::Onward,
            };
        }
        self.searched = self.buffered();
        let given_up = self.state == State::Aligned && self.searched > self.framing.max_frame + slack;
        if given_up || self.state == State::Discarding {
            // What may be the beginning of the delimiter has to stay.
            self.searched = self.searched.min(overlap);
            self.start = self.buffer.len() - self.searched;
        }
        if given_up {
            self.state = State::Discarding;
            return Cut::Bad(BadFrame::Oversize);
        }
        Cut::Starved
    }

    /// Decodes what a delimiter ended, where it lies.
    fn decoded(&mut self, cut: Cut, decode: impl Fn(&mut [u8]) -> Option<usize>) -> Cut {
        let Cut::Frame { begin, frame } = cut else { return cut };
        match decode(&mut self.buffer[frame.clone()]) {
            None => Cut::Bad(BadFrame::Malformed),
            Some(0) => Cut::Onward,
            Some(length) => Cut::Frame { begin, frame: frame.start..frame.start + length },
        }
    }

    /// Frames that a silence ends: there is nothing to find, only too much to refuse.
    fn cut_silent(&mut self) -> Cut {
        let too_much = self.buffered() > self.framing.max_frame;
        let given_up = self.state == State::Aligned && too_much;
        if given_up || self.state == State::Discarding {
            self.start = self.buffer.len();
        }
        if given_up {
            self.state = State::Discarding;
            return Cut::Bad(BadFrame::Oversize);
        }
        Cut::Starved
    }

    fn cut_prefixed(&mut self, prefix: &LengthPrefix) -> Cut {
        if let State::Skipping(rest) = self.state {
            return self.skip(rest);
        }
        let (begin, header) = (self.start, prefix.offset + prefix.bytes);
        let Some(length) = self.buffer[begin..].get(prefix.offset..header) else { return Cut::Starved };
        let number = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        let length =
            if prefix.little_endian { length.iter().rev().fold(0, number) } else { length.iter().fold(0, number) };
        let counted = if prefix.includes_prefix { length.checked_sub(header as u64) } else { Some(length) };
        let content = counted.map(|counted| counted.saturating_add(prefix.trailer as u64));
        let bad = match content {
            None => BadFrame::Malformed,
            Some(content) if content > self.framing.max_frame as u64 => BadFrame::Oversize,
            Some(content) if self.state == State::Seeking && content > SOUGHT_BYTES_MAX as u64 => BadFrame::Oversize,
            Some(content) => {
                let content = usize::try_from(content).unwrap_or(usize::MAX);
                let end = begin + header + content;
                if end > self.buffer.len() {
                    return Cut::Starved;
                }
                self.start = end;
                let frame = if prefix.keep_prefix { begin..end } else { begin + header..end };
                return if content == 0 { self.nothing(begin) } else { Cut::Frame { begin, frame } };
            }
        };
        if self.seeks() {
            self.start = begin + 1;
            return match mem::replace(&mut self.state, State::Seeking) {
                State::Seeking => Cut::Onward,
                _ => Cut::Bad(bad),
            };
        }
        self.state = match bad {
            BadFrame::Oversize => State::Skipping(content.unwrap_or(0).saturating_add(header as u64)),
            _ => {
                self.start = begin + header;
                State::Aligned
            }
        };
        Cut::Bad(bad)
    }

    /// Throws away what is left of a frame whose length is known.
    fn skip(&mut self, rest: u64) -> Cut {
        let skipped = usize::try_from(rest).unwrap_or(usize::MAX).min(self.buffered());
        self.start += skipped;
        let rest = rest - skipped as u64;
        self.state = if rest == 0 { State::Aligned } else { State::Skipping(rest) };
        if rest == 0 { Cut::Onward } else { Cut::Starved }
    }

    fn cut_syslog(&mut self) -> Cut {
        if let State::Skipping(rest) = self.state {
            return self.skip(rest);
        }
        // What is behind the front of a line is not looked at again while the rest of it comes.
        let start = match self.state {
            State::Aligned if self.searched == 0 => syslog::start(&self.buffer[self.start..]),
            _ => syslog::Start::Line,
        };
        match start {
            syslog::Start::Starved => Cut::Starved,
            syslog::Start::Counted { prefix, length } if length > self.framing.max_frame => {
                self.start += prefix;
                self.state = State::Skipping(length as u64);
                Cut::Bad(BadFrame::Oversize)
            }
            syslog::Start::Counted { prefix, length } => {
                let (begin, end) = (self.start, self.start + prefix + length);
                if end > self.buffer.len() {
                    return Cut::Starved;
                }
                self.start = end;
                // A trailer that comes all the same, as of some senders, is then an empty line.
                Cut::Frame { begin, frame: begin + prefix..end }
            }
            syslog::Start::Line => self.cut_line(syslog::trailer),
        }
    }

    /// A frame without content: passed over, unless what is sought is a frame that proves itself.
    fn nothing(&mut self, begin: usize) -> Cut {
        if self.state == State::Seeking {
            self.start = begin + 1;
        }
        Cut::Onward
    }

    /// Whether frames are looked for by their checksums once the count was lost.
    fn seeks(&self) -> bool {
        matches!(self.framing.shape, Shape::Fixed { .. } | Shape::LengthPrefix(_))
            && self.framing.checksum.is_some_and(|checksum| !checksum.keep_bad)
    }

    /// A frame whose boundaries are known, unless it turns out too long or empty.
    fn sized(&self, begin: usize, frame: Range<usize>) -> Cut {
        if frame.len() > self.framing.max_frame {
            Cut::Bad(BadFrame::Oversize)
        } else if frame.is_empty() {
            Cut::Onward
        } else {
            Cut::Frame { begin, frame }
        }
    }

    fn verify(&mut self, begin: usize, frame: Range<usize>, bad: &mut impl FnMut(BadFrame)) -> Option<Range<usize>> {
        let Some(checksum) = self.framing.checksum else { return Some(frame) };
        if let Some(within) = checksum.verify(&self.buffer[frame.clone()]) {
            self.state = State::Aligned;
            let frame = frame.start + within.start..frame.start + within.end;
            return (!frame.is_empty()).then_some(frame);
        }
        if self.state != State::Seeking {
            bad(BadFrame::Checksum);
        }
        if checksum.keep_bad {
            return Some(frame);
        }
        if self.seeks() && self.start - begin <= SOUGHT_BYTES_MAX {
            self.state = State::Seeking;
            self.start = begin + 1;
        }
        None
    }

    /// What is left, as it is to be taken after what happened.
    fn close(&mut self, closing: Closing, bad: &mut impl FnMut(BadFrame)) -> Option<Range<usize>> {
        let begin = mem::replace(&mut self.start, self.buffer.len());
        self.searched = 0;
        // A frame that was given up was told of already.
        if mem::replace(&mut self.state, State::Aligned) != State::Aligned || begin == self.buffer.len() {
            return None;
        }
        let mut frame = begin..self.buffer.len();
        let whole = match self.framing.shape {
            Shape::Gap(_) => closing != Closing::Break,
            Shape::Line | Shape::Delimiter(_) => closing == Closing::End,
            Shape::Syslog => closing == Closing::End && syslog::start(&self.buffer[begin..]) == syslog::Start::Line,
            _ => false,
        };
        if !whole {
            bad(BadFrame::Half);
            return None;
        }
        if matches!(self.framing.shape, Shape::Line | Shape::Syslog) && self.buffer.last() == Some(&b'\r') {
            frame.end -= 1;
        }
        match self.sized(begin, frame) {
            Cut::Bad(told) => {
                bad(told);
                None
            }
            Cut::Frame { begin, frame } => self.verify(begin, frame, bad),
            Cut::Starved | Cut::Onward => None,
        }
    }
}
