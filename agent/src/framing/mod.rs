//! Framing: cuts a stream of bytes into frames, of which each becomes a record.
//!
//! Pure: bytes go in as they come, in pieces of any size, and the same frames come out whatever the pieces were. Used by
//! every source that hears a stream: serial lines, sockets, programs, NMEA.
//!
//! | `type` | a frame is | when the stream ends in good order, what is left is |
//! |---|---|---|
//! | `line` | what stands before an LF, without a CR at its end | a frame |
//! | `delimiter` | what stands before the delimiter | a frame |
//! | `fixed` | so many bytes | half a frame |
//! | `length-prefix` | as many bytes as a number in front of it says | half a frame |
//! | `cobs` | what stands before a zero byte, decoded (Cheshire and Baker, "Consistent Overhead Byte Stuffing", 1999) | half a frame |
//! | `slip` | what stands before an END byte, decoded (RFC 1055) | half a frame |
//! | `gap` | what came until nothing came for a while | a frame |
//! | `syslog` | a message as in RFC 6587: counted, or ended by LF or a zero byte | a frame, unless it is counted |
//!
//! Empty frames carry nothing and are passed over.
//!
//! A frame may end in a checksum, which is verified on request. What is over `max-frame` is thrown away up to the next
//! boundary and counted once, so that a [`Framer`] holds at most `max-frame`, a prefix and what was last pushed.
//! Everything that is not handed out as it should be is told as a [`BadFrame`].
//!
//! Where frames are found by counting bytes (`fixed`, `length-prefix`), one byte too few shifts all that follow. Two
//! things mend that: a silence (`gap`), after which a new frame begins; and a checksum with `on-bad = "drop"`, with which
//! the next frame is looked for byte by byte.

mod checksum;
mod config;
mod framer;
mod slip;
mod syslog;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

pub use checksum::{Algorithm, Checksum};
pub use config::Config;
pub use framer::Framer;

/// How a stream is cut: settings that were found right. Made by [`Config::validate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Framing {
    shape: Shape,
    checksum: Option<Checksum>,
    max_frame: usize,
}

impl Framing {
    /// Begins to cut a stream.
    #[must_use]
    pub fn framer(&self) -> Framer {
        Framer::new(self.clone())
    }

    /// Lines of at most `max_frame` bytes, without a checksum.
    #[must_use]
    pub fn lines(max_frame: usize) -> Self {
        Self { shape: Shape::Line, checksum: None, max_frame }
    }

    /// The most that a frame has in bytes, as it comes: before COBS or SLIP are decoded or a checksum is stripped.
    #[must_use]
    pub fn max_frame(&self) -> usize {
        self.max_frame
    }
}

/// Where a frame ends.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    Line,
    /// At least one byte.
    Delimiter(Arc<[u8]>),
    Fixed {
        /// At least 1.
        length: usize,
        gap: Option<Duration>,
    },
    LengthPrefix(LengthPrefix),
    Cobs,
    Slip,
    Gap(Duration),
    Syslog,
}

/// A header of `offset` bytes, a length of `bytes` bytes, then what the frame is about, then `trailer` bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LengthPrefix {
    offset: usize,
    /// 1, 2, 4 or 8.
    bytes: usize,
    little_endian: bool,
    /// Whether the length counts the header and itself.
    includes_prefix: bool,
    /// Bytes at the end that the length does not count.
    trailer: usize,
    /// Whether header and length are handed out too.
    keep_prefix: bool,
    gap: Option<Duration>,
}

/// Something that was not handed out as a frame (or, with `on-bad = "keep"`, was, but is not right).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BadFrame {
    /// Longer than `max-frame`; dropped. Told as soon as that is known, once per frame.
    Oversize,
    /// The stream ended or fell silent within it; dropped.
    Half,
    /// Not decodable, or its length is impossible; dropped.
    Malformed,
    /// The checksum is missing or another one. Dropped or kept, as the configuration says.
    Checksum,
}

impl BadFrame {
    /// The reason to count it by.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Oversize => "oversize",
            Self::Half => "half-frame",
            Self::Malformed => "malformed",
            Self::Checksum => "bad-checksum",
        }
    }
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Oversize => "a frame is longer than max-frame",
            Self::Half => "the stream broke off within a frame",
            Self::Malformed => "a frame cannot be decoded",
            Self::Checksum => "the checksum of a frame is wrong",
        })
    }
}

/// For fuzzing: the first bytes choose the framing, the rest is a stream, in two pieces.
#[cfg(any(test, fuzzing))]
pub fn fuzz(bytes: &[u8]) {
    let Some((&[shape, option, at, max_frame], stream)) = bytes.split_first_chunk::<4>() else { return };
    let max_frame = usize::from(max_frame) + 1;
    let bit = |bit: u8| option & (1 << bit) != 0;
    let gap = Some(Duration::from_millis(20));
    let shape = match shape % 8 {
        0 => Shape::Line,
        1 => Shape::Delimiter(stream.get(..1 + usize::from(option % 3)).unwrap_or(b"\r").into()),
        2 => Shape::Fixed { length: 1 + usize::from(option) % max_frame, gap },
        3 => Shape::LengthPrefix(LengthPrefix {
            offset: usize::from(option & 3),
            bytes: 1 << (option >> 2 & 3),
            little_endian: bit(4),
            includes_prefix: bit(5),
            trailer: usize::from(option & 1),
            keep_prefix: bit(6),
            gap,
        }),
        4 => Shape::Cobs,
        5 => Shape::Slip,
        6 => Shape::Gap(Duration::from_millis(20)),
        _ => Shape::Syslog,
    };
    let checksum = match at % 4 {
        0 => Some(Algorithm::Nmea),
        1 => Some(Algorithm::Crc16Modbus),
        _ => None,
    };
    let checksum = checksum.map(|algorithm| Checksum { algorithm, keep_bad: bit(7), strip: bit(6) });
    let framing = Framing { shape, checksum, max_frame };
    let frames = |pieces: &[&[u8]]| {
        let (mut frames, mut bad) = (Vec::new(), Vec::new());
        let mut framer = framing.framer();
        for (nth, piece) in pieces.iter().enumerate() {
            framer.push(piece);
            if nth + 1 == pieces.len() {
                framer.on_end();
            }
            while let Some(frame) = framer.next(|frame| bad.push(frame)) {
                frames.push(frame.to_vec());
            }
            assert!(framer.buffered() <= max_frame + 16, "{} bytes are kept", framer.buffered());
        }
        (frames, bad)
    };
    let (one, two) = stream.split_at(usize::from(at).min(stream.len()));
    assert_eq!(frames(&[stream]), frames(&[one, two]));
}
