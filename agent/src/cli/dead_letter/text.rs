//! Letters as a person reads them. Pure.

use std::{
    fmt::Write as _,
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::Form;
use crate::{
    api::wire::DeadLetters,
    config::size,
    delivery::dead_letter::{Letter, Page, Settlement},
    printable::printable,
};

/// Of a reason in a list, so many characters are shown.
const REASON_CHARS: usize = 100;

pub(super) fn summaries(all: &DeadLetters) -> String {
    let mut out = String::new();
    for summary in &all.destinations {
        let _ = match (summary.letters, summary.oldest_ms, summary.newest_ms) {
            (0, ..) | (_, None, _) | (_, _, None) => write!(out, "{}: no letters", summary.destination),
            (count, Some(oldest), Some(newest)) => write!(
                out,
                "{}: {count} letter{} of {} together, the oldest of {}, the newest of {}",
                summary.destination,
                plural(count),
                size::show(summary.bytes),
                time(oldest, false),
                time(newest, false),
            ),
        };
        for (count, what) in [(summary.replayed, "replayed"), (summary.dropped, "dropped")] {
            if count > 0 {
                let _ = write!(out, "; {count} {what} before");
            }
        }
        out.push('\n');
        for (reason, count) in &summary.reasons {
            let _ = writeln!(out, "  {count} × {}", shortened(reason));
        }
    }
    out
}

pub(super) fn page(destination: &str, page: &Page) -> String {
    let mut out = String::new();
    for letter in &page.letters {
        let (at, key) = (time(letter.buried_ms, letter.times_untrusted), printable(&letter.partition_key));
        let (number, bytes) = (letter.number, size::show(letter.bytes));
        let _ = writeln!(out, "{number}  {at}  {key}  {bytes}  {}", shortened(&letter.reason));
    }
    match page.next {
        Some(next) => {
            let _ = writeln!(out, "and more: forebay dead-letter list {destination} --from {next}");
        }
        None if page.letters.is_empty() => out.push_str("no letters\n"),
        None => {}
    }
    out
}

/// Everything that is known of one.
pub(super) fn letter(letter: &Letter, form: Option<Form>) -> anyhow::Result<String> {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:>16}  {value}");
    };
    line("letter", &letter.number.to_string());
    line("reason", &printable(&letter.reason));
    line("stream", &letter.stream);
    line("sequence number", &letter.sequence_number.to_string());
    line("partition key", &printable(&letter.partition_key));
    if let Some(key) = &letter.explicit_hash_key {
        line("hash key", key);
    }
    for (name, value) in &letter.tags {
        line("tag", &format!("{}={}", printable(name), printable(value)));
    }
    line("arrived", &time(letter.arrival_ms, letter.arrival_untrusted));
    line("attempts", &letter.attempts.to_string());
    for (name, at) in [("first attempt", letter.first_attempt_ms), ("last attempt", letter.last_attempt_ms)] {
        if let Some(at) = at {
            line(name, &time(at, letter.times_untrusted));
        }
    }
    line("given up", &time(letter.buried_ms, letter.times_untrusted));
    if letter.replays > 0 {
        line("replays", &letter.replays.to_string());
    }
    let data = letter.bytes_of_data()?.unwrap_or_default();
    line("data", &format!("{} bytes", data.len()));
    out.push('\n');
    let is_text = str::from_utf8(&data).is_ok_and(|text| text.chars().all(|c| !c.is_control() || c.is_whitespace()));
    match form.unwrap_or(if is_text { Form::Text } else { Form::Hex }) {
        Form::Text => {
            for part in String::from_utf8_lossy(&data).lines() {
                out.push_str(&printable(part));
                out.push('\n');
            }
        }
        Form::Hex => hex(&data, &mut out),
        Form::Base64 => {
            STANDARD.encode_string(&data, &mut out);
            out.push('\n');
        }
    }
    Ok(out)
}

/// Sixteen bytes a line, with what is printable of them.
fn hex(data: &[u8], out: &mut String) {
    for (index, line) in data.chunks(16).enumerate() {
        let _ = write!(out, "{:08x} ", index * 16);
        for at in 0..16 {
            let _ = match line.get(at) {
                Some(byte) => write!(out, " {byte:02x}"),
                None => write!(out, "   "),
            };
        }
        let shown = line.iter().map(|byte| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '.' });
        let _ = writeln!(out, "  {}", shown.collect::<String>());
    }
}

pub(super) fn settled(what: &str, done: Settlement) -> String {
    format!("{what} {}\n", letters(done))
}

pub(super) fn letters(count: Settlement) -> String {
    format!("{} letter{} of {} together", count.letters, plural(count.letters), size::show(count.bytes))
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn shortened(reason: &str) -> String {
    let mut shown: String = reason.chars().take(REASON_CHARS).collect();
    if shown.len() < reason.len() {
        shown.push('…');
    }
    printable(&shown)
}

/// A time, with a question mark if no clock was trusted that could have told it.
fn time(ms: u64, untrusted: bool) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(ms.min(253_402_300_799_999))).unwrap_or(UNIX_EPOCH);
    format!("{}{}", humantime::format_rfc3339_seconds(at), if untrusted { "?" } else { "" })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::delivery::dead_letter::Summary;

    fn one(data: &[u8]) -> Letter {
        Letter {
            number: 3,
            reason: "ValidationException: no\nsuch thing".into(),
            stream: "plant".into(),
            sequence_number: 17,
            arrival_ms: 1_790_000_000_000,
            buried_ms: 1_790_000_060_000,
            first_attempt_ms: Some(1_790_000_000_100),
            times_untrusted: true,
            attempts: 4,
            partition_key: "truck\u{1b}7".into(),
            bytes: 12,
            data: Some(STANDARD.encode(data)),
            ..Letter::default()
        }
    }

    #[test]
    fn all_that_is_known_is_shown_and_nothing_reaches_the_terminal() {
        let text = letter(&one(b"{\"t\":20}"), None).expect("text");
        for line in [
            "          reason  ValidationException: no\\nsuch thing",
            "   partition key  truck\\u{1b}7",
            "         arrived  2026-09-21T14:13:20Z",
            "   first attempt  2026-09-21T14:13:20Z?",
            "{\"t\":20}",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        let text = letter(&one(&[0, 65, 255]), None).expect("text");
        assert!(text.ends_with(&format!("\n00000000  00 41 ff{}  .A.\n", " ".repeat(39))), "{text}");
        let text = letter(&one(&[0, 65, 255]), Some(Form::Base64)).expect("text");
        assert!(text.ends_with("\nAEH/\n"), "{text}");
    }

    #[test]
    fn a_list_is_summed_up_and_paged() {
        let summary = Summary {
            destination: "cloud".into(),
            letters: 2,
            bytes: 2048,
            oldest_ms: Some(1_790_000_000_000),
            newest_ms: Some(1_790_000_060_000),
            reasons: BTreeMap::from([("too large".into(), 2)]),
            replayed: 5,
            dropped: 0,
        };
        let none = Summary { destination: "spare".into(), ..Summary::default() };
        assert_eq!(
            summaries(&DeadLetters { destinations: vec![summary, none] }),
            "cloud: 2 letters of 2.0 KiB together, the oldest of 2026-09-21T14:13:20Z, the newest of 2026-09-21T14:14:20Z; \
             5 replayed before\n  2 × too large\nspare: no letters\n"
        );
        let text = page("cloud", &Page { letters: vec![one(b"x")], next: Some(4) });
        assert_eq!(
            text,
            "3  2026-09-21T14:14:20Z?  truck\\u{1b}7  12 B  ValidationException: no\\nsuch thing\n\
             and more: forebay dead-letter list cloud --from 4\n"
        );
        assert_eq!(page("cloud", &Page::default()), "no letters\n");
    }
}
