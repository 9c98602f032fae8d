//! Syslog over a stream (RFC 6587): each message says how long it is, or ends in a line feed or a zero byte. A sender may do
//! either, and some change between the two, so each frame is looked at by itself.
//!
//! A count is only believed if a message stands behind it, which begins with `<`: a text line that begins with a number is a line.

use memchr::memchr2;

/// Digits of a count (RFC 6587 names no limit): more than any frame that is taken has.
const DIGITS_MAX: usize = 9;

/// What stands at the beginning of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// That cannot be said yet.
    Starved,
    /// A count of so many bytes, with the blank behind it, and what it says (RFC 6587, section 3.4.1, octet counting).
    Counted { prefix: usize, length: usize },
    /// A message that ends where a trailer stands (section 3.4.2, non-transparent framing).
    Line,
}

pub(super) fn start(bytes: &[u8]) -> Start {
    let digits = bytes.iter().take(DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_digit()).count();
    match (digits, bytes.get(digits), bytes.get(digits + 1)) {
        (0, None, _) | (1..=DIGITS_MAX, None, _) | (1..=DIGITS_MAX, Some(b' '), None)
            if bytes.first() != Some(&b'0') =>
        {
            Start::Starved
        }
        (1..=DIGITS_MAX, Some(b' '), Some(b'<')) if bytes[0] != b'0' => {
            let length = bytes[..digits].iter().fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
            Start::Counted { prefix: digits + 1, length }
        }
        _ => Start::Line,
    }
}

/// Where a message that was not counted ends: at the line feed that is usual, or the zero byte that some libraries send.
pub(super) fn trailer(bytes: &[u8]) -> Option<usize> {
    memchr2(b'\n', 0, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_believed_where_a_message_follows() {
        for (text, expected) in [
            ("", Start::Starved),
            ("1", Start::Starved),
            ("12", Start::Starved),
            ("12 ", Start::Starved),
            ("12 <13>", Start::Counted { prefix: 3, length: 12 }),
            ("999999999 <", Start::Counted { prefix: 10, length: 999_999_999 }),
            ("9999999999 <", Start::Line),
            ("012 <13>", Start::Line),
            ("0", Start::Line),
            ("<13>1 - ", Start::Line),
            ("2026 was warm", Start::Line),
            ("12<13>", Start::Line),
            ("12\n", Start::Line),
            ("\n", Start::Line),
            ("hello", Start::Line),
        ] {
            assert_eq!(start(text.as_bytes()), expected, "{text:?}");
        }
    }
}
