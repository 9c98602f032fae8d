//! What a destination's open letters are, all together. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::letter::Letter;
use crate::printable::printable;

/// So many kinds of reasons are told apart; an endpoint may give every record one of its own.
const REASONS_MAX: usize = 20;
/// Where all others are counted.
const OTHERS: &str = "others";

/// The open letters of one destination.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Whose they are.
    pub destination: String,
    /// How many there are.
    pub letters: u64,
    /// Their keys and data.
    pub bytes: u64,
    /// When the first of them was given up, in milliseconds since 1970 (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_ms: Option<u64>,
    /// And the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_ms: Option<u64>,
    /// How many by reason; numbers within a reason are shown as `#`, so that equal ones are counted together.
    pub reasons: BTreeMap<String, u64>,
    /// Delivered once more, since the stream was made.
    pub replayed: u64,
    /// Dropped by a person.
    pub dropped: u64,
}

impl Summary {
    pub(super) fn add(&mut self, letter: &Letter) {
        self.letters += 1;
        self.bytes += letter.bytes;
        self.oldest_ms = Some(self.oldest_ms.map_or(letter.buried_ms, |oldest| oldest.min(letter.buried_ms)));
        self.newest_ms = Some(self.newest_ms.map_or(letter.buried_ms, |newest| newest.max(letter.buried_ms)));
        let reason = without_numbers(&letter.reason);
        let known = self.reasons.contains_key(&reason) || self.reasons.len() < REASONS_MAX;
        *self.reasons.entry(if known { reason } else { OTHERS.to_owned() }).or_default() += 1;
    }
}

/// Whether a reason contains a text, whatever the case of letters. The text may also be as a list shows it: with `#` for
/// any number, with what is not printable escaped, and cut off with `…`. A number in it stands for itself alone.
pub(super) fn is_told(reason: &str, text: &str) -> bool {
    let (reason, text) = (reason.to_lowercase(), text.to_lowercase());
    let shown = printable(&reason);
    let contains = |text: &str| [&shown, &reason].into_iter().any(|reason| has(reason, text));
    contains(&text) || text.strip_suffix('…').is_some_and(|beginning| !beginning.is_empty() && contains(beginning))
}

/// Whether a text contains a pattern in which `#` is a number, or itself.
fn has(text: &str, pattern: &str) -> bool {
    text.contains(pattern)
        || pattern.contains('#')
            && text.char_indices().any(|(at, _)| begins(&text[at..], pattern))
            && !pattern.chars().all(|c| c == '#')
}

fn begins(text: &str, pattern: &str) -> bool {
    let (plain, rest) = pattern.split_once('#').map_or((pattern, None), |(plain, rest)| (plain, Some(rest)));
    let Some(text) = text.strip_prefix(plain) else { return false };
    let Some(rest) = rest else { return true };
    let number = text.trim_start_matches(|c: char| c.is_ascii_digit());
    number.len() < text.len() && begins(number, rest)
}

/// A text with `#` for each number.
fn without_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_ascii_digit() {
            out.push(c);
        } else if !out.ends_with('#') {
            out.push('#');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_by_what_a_list_shows_of_it() {
        let reason = "ValidationException: 2 of 10 bytes\n at 0x1F";
        for text in [
            "",
            "2 of 10 bytes",
            "validationexception",
            "VALIDATIONEXCEPTION: # OF # BYTES",
            "2 of # bytes",
            "bytes\n at",
            "bytes\\n at #x#f",
            "ValidationException: # of # by…",
        ] {
            assert!(is_told(reason, text), "{text}");
        }
        for text in ["3 of 10 bytes", "99", "# of # records", "# of 99", "3 of # bytes", "#", "…", "# by… "] {
            assert!(!is_told(reason, text), "{text}");
        }
        assert!(is_told("it said #5 and …", "#5") && is_told("it said #5 and …", "and …"));

        let mut summary = Summary::default();
        summary.add(&Letter { reason: reason.to_owned(), ..Letter::default() });
        let shown = summary.reasons.keys().next().expect("one");
        assert!(is_told(reason, shown) && is_told(reason, &printable(shown)), "{shown}");
    }

    #[test]
    fn equal_reasons_are_counted_together_and_their_number_is_bounded() {
        let mut summary = Summary::default();
        let letter = |reason: String, buried_ms| Letter { reason, buried_ms, bytes: 10, ..Letter::default() };
        for n in 0..5 {
            summary.add(&letter(format!("the record has {n}{n} bytes; 1024 are taken"), 100 - n));
        }
        assert_eq!(summary.reasons, BTreeMap::from([("the record has # bytes; # are taken".to_owned(), 5)]));
        assert_eq!(
            (summary.letters, summary.bytes, summary.oldest_ms, summary.newest_ms),
            (5, 50, Some(96), Some(100))
        );
        for c in ('a'..='z').chain('A'..='Z') {
            summary.add(&letter(format!("reason {c}"), 1));
        }
        assert_eq!(summary.reasons.len(), REASONS_MAX + 1);
        assert_eq!(summary.reasons.values().sum::<u64>(), summary.letters);
    }
}
