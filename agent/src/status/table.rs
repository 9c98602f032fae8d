//! The status as a person reads it on a terminal: who gives what, where it lies, who gets it, and what is wrong. Pure.

use std::fmt::Write as _;

use super::{DestinationStatus, Dropped, ErrorStatus, Flow, LinkStatus, SourceStatus, Status, StreamStatus};
use crate::{config::size, printable::printable};

/// Writes a status for a person; `now_ms` is the time now, for the age of errors.
#[must_use]
pub fn render(status: &Status, now_ms: u64) -> String {
    let mut out = String::new();
    let health = if status.healthy { "healthy" } else { "NOT HEALTHY" };
    let up = duration(status.uptime_seconds);
    let _ = writeln!(out, "forebay {}, {health}, up {up}, data in {}", status.version, status.data_dir.display());
    for reason in &status.reasons {
        let _ = writeln!(out, "  ! {reason}");
    }
    if let Some(warning) = &status.clock.warning {
        let _ = writeln!(out, "  ! {warning}");
    }

    let mut table = Table::new(["SOURCE", "TYPE", "STREAM", "CONNECTIONS", "RECORDS", "BYTES", "RATE"]);
    for (name, source) in &status.sources {
        source_rows(&mut table, name, source, now_ms);
    }
    table.write(&mut out);

    let mut table = Table::new(["STREAM", "SHARD", "RECORDS", "BYTES", "RATE", "ON DISK", "WRITTEN PER BYTE"]);
    for (name, stream) in &status.streams {
        stream_rows(&mut table, name, stream);
    }
    table.write(&mut out);

    let mut table = Table::new(["LINK", "LIMITS", "SPENT TODAY", "BUDGET"]);
    for (name, LinkStatus { metered, budget_bytes, spent_bytes }) in &status.links {
        let limits = if *metered { "hold" } else { "do not hold now" };
        let spent = budget_bytes.map_or_else(|| "-".to_owned(), |_| size::show(*spent_bytes));
        table.row([name.clone(), limits.to_owned(), spent, budget_bytes.map_or_else(|| "-".to_owned(), size::show)]);
    }
    table.write(&mut out);

    let mut table =
        Table::new(["DESTINATION", "TYPE", "FROM", "RECORDS", "BYTES", "RATE", "BACKLOG", "LAG", "SENT PER BYTE"]);
    for (name, destination) in &status.destinations {
        destination_rows(&mut table, name, destination, now_ms);
    }
    table.write(&mut out);
    out
}

fn source_rows(table: &mut Table<7>, name: &str, source: &SourceStatus, now_ms: u64) {
    let [records, bytes, rate] = flow(&source.stored);
    let (kind, stream) = (source.r#type.clone(), source.stream.clone());
    table.row([name.to_owned(), kind, stream, grouped(source.connections), records, bytes, rate]);
    if !source.refused.is_empty() {
        let reasons: Vec<_> = source.refused.iter().map(|(reason, n)| format!("{reason} {}", grouped(*n))).collect();
        table.note(format!("not taken, or not as it came: {}", reasons.join(", ")));
    }
    last_error(table, source.last_error.as_ref(), now_ms);
}

fn stream_rows(table: &mut Table<7>, name: &str, stream: &StreamStatus) {
    let [records, bytes, rate] = flow(&stream.committed);
    let disk = format!("{} of {}", size::show(stream.disk_bytes), size::show(stream.quota_bytes));
    let mut wear = stream.written_per_payload_byte.map_or_else(|| "-".to_owned(), |factor| format!("{factor:.2}"));
    if let Some(bytes) = stream.written_bytes_per_day {
        let _ = write!(wear, ", {} a day", size::show(bytes));
    }
    table.row([name.to_owned(), "all".to_owned(), records, bytes, rate, disk, wear]);
    // With one shard, there is no more to tell.
    if stream.shards.len() > 1 {
        for (shard, status) in &stream.shards {
            let [records, bytes, rate] = flow(&status.committed);
            let number = shard.strip_prefix("shardId-").map_or(shard.as_str(), |digits| digits.trim_start_matches('0'));
            let number = if number.is_empty() { "0" } else { number };
            table.row([String::new(), number.to_owned(), records, bytes, rate, String::new(), String::new()]);
        }
    }
    for (shard, status) in stream.shards.iter().filter(|(_, status)| status.throttled > 0) {
        table.note(format!("{shard}: writers waited {} times for the rate limit", grouped(status.throttled)));
    }
    if stream.untrusted_records > 0 {
        table.note(format!("stored while no clock was trusted: {}", grouped(stream.untrusted_records)));
    }
    if let Some(reason) = &stream.stopped {
        table.note(format!("takes no records: {reason}"));
    }
    for (what, counts) in [("dropped", stream.dropped), ("LOST before delivery", stream.lost)] {
        let Dropped { retention, quota, damage } = counts;
        for (reason, count) in [("retention", retention), ("quota", quota), ("damage", damage)] {
            if count > 0 {
                table.note(format!("{what} by {reason}: {}", grouped(count)));
            }
        }
    }
}

fn destination_rows(table: &mut Table<9>, name: &str, destination: &DestinationStatus, now_ms: u64) {
    let [records, bytes, rate] = flow(&destination.delivered);
    let backlog = match destination.backlog_records {
        0 => "0".to_owned(),
        records => format!("{} ({})", grouped(records), size::show(destination.backlog_bytes)),
    };
    let lag = duration(destination.lag_seconds.round() as u64);
    let (kind, from) = (destination.r#type.clone(), destination.from.clone());
    let sent = destination.sent_per_payload_byte.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    table.row([name.to_owned(), kind, from, records, bytes, rate, backlog, lag, sent]);
    if let Some(down) = &destination.down {
        let (kind, since, attempts) = (&down.kind, duration(down.seconds), grouped(down.attempts));
        table.note(format!("{kind}; down for {since}, {attempts} attempts"));
    }
    if let Some(held) = &destination.held {
        let link = destination.link.as_deref().unwrap_or_default();
        table.note(format!("held back by link {link}: {held}"));
    }
    let catch_up = &destination.catch_up;
    if catch_up.gaps > 0 {
        let age = |seconds: f64| duration(seconds.round() as u64);
        let gaps = if catch_up.gaps == 1 { "1 gap".to_owned() } else { format!("{} gaps", catch_up.gaps) };
        let live = match catch_up.live_records {
            0 => "no live records".to_owned(),
            records => format!("{} live records, the oldest {} old", grouped(records), age(catch_up.live_lag_seconds)),
        };
        let leapt_over = match catch_up.gap_records {
            0 => format!("none left in {gaps} that it leapt over"),
            records => {
                let oldest = age(catch_up.gap_lag_seconds);
                format!("{} in {gaps} that it leapt over, the oldest {oldest} old", grouped(records))
            }
        };
        table.note(format!("catching up: {live}; {leapt_over}"));
    }
    if destination.limited_by_key_order && destination.down.is_none() && destination.held.is_none() {
        table.note("limited by the order per partition key: one round trip for each record of a key".to_owned());
    }
    if let Some(wire) = destination.wire.as_ref().filter(|wire| wire.aggregated && wire.records > 0) {
        table.note(format!(
            "{} aggregates of {:.1} records each, {:.2} bytes per payload byte, {} payload units taken",
            grouped(wire.records),
            wire.records_each,
            wire.bytes_per_payload_byte,
            grouped(wire.payload_units),
        ));
    }
    if destination.reading_stopped {
        table.note("no more is read: what waits behind records that go on failing fills the window".to_owned());
    }
    for (count, what) in [
        (destination.failing_records, "failing whenever they are sent, alone, while others are taken; tried again"),
        (destination.astray_records, "sent again because the destination's shards had changed"),
        (destination.dead_letters, "never to be taken, now in the dead-letter stream"),
        (destination.dead_letters_open, "dead letters that wait to be looked at (`forebay dead-letter list`)"),
        (destination.expired, "older than max-age and not sent any more"),
        (destination.out_of_order, "behind later ones of their key"),
        (destination.throttled_records, "sent back as too many at once, and tried again"),
        (destination.failed_records, "sent back for a passing reason, and tried again"),
    ] {
        if count > 0 {
            table.note(format!("{what}: {}", grouped(count)));
        }
    }
    for certificate in &destination.client_certificates {
        if let Some(trouble) = &certificate.trouble {
            table.note(format!("certificate {}: {trouble}", certificate.file.display()));
        }
    }
    last_error(table, destination.last_error.as_ref(), now_ms);
}

fn last_error<const N: usize>(table: &mut Table<N>, error: Option<&ErrorStatus>, now_ms: u64) {
    if let Some(error) = error {
        let ago = duration(now_ms.saturating_sub(error.at_ms) / 1000);
        table.note(format!("last error, {ago} ago: {}", printable(&error.message)));
    }
}

fn flow(flow: &Flow) -> [String; 3] {
    let rate = if flow.records_per_second == 0.0 {
        "-".to_owned()
    } else {
        format!("{:.0}/s, {}/s", flow.records_per_second, size::show(flow.bytes_per_second as u64))
    };
    [grouped(flow.records), size::show(flow.bytes), rate]
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Seconds in at most two units.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes, rest) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m {rest}s"),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// Rows in columns that line up, with notes between them.
struct Table<const N: usize> {
    lines: Vec<Line<N>>,
}

enum Line<const N: usize> {
    Row([String; N]),
    Note(String),
}

impl<const N: usize> Table<N> {
    fn new(head: [&str; N]) -> Self {
        Self { lines: vec![Line::Row(head.map(str::to_owned))] }
    }

    fn row(&mut self, cells: [String; N]) {
        self.lines.push(Line::Row(cells));
    }

    /// A remark on the row above.
    fn note(&mut self, text: String) {
        self.lines.push(Line::Note(text));
    }

    /// Nothing if there is nothing but the head.
    fn write(&self, out: &mut String) {
        if self.lines.len() == 1 {
            return;
        }
        let mut widths = [0; N];
        for line in &self.lines {
            if let Line::Row(cells) = line {
                for (width, cell) in widths.iter_mut().zip(cells) {
                    *width = (*width).max(cell.chars().count());
                }
            }
        }
        out.push('\n');
        for line in &self.lines {
            match line {
                Line::Row(cells) => {
                    let padded: Vec<_> =
                        cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
                    let _ = writeln!(out, "{}", padded.join("  ").trim_end());
                }
                Line::Note(text) => {
                    let _ = writeln!(out, "  ! {text}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::samples, *};

    #[test]
    fn a_busy_agent_in_trouble() {
        let text = render(&samples::busy(), 1_790_000_065_000);
        let expected = "\
forebay 0.1.0, NOT HEALTHY, up 1d 1h, data in /var/lib/forebay
  ! stream `telemetry` takes no records: quota of 1.0 GiB is used up
  ! the machine's clock was not trusted since its start

SOURCE   TYPE         STREAM     CONNECTIONS  RECORDS  BYTES    RATE
devices  mqtt-broker  telemetry  3            1,200    1.2 MiB  12/s, 12.3 KiB/s
  ! not taken, or not as it came: malformed 1, oversize 2
  ! last error, 1m 5s ago: 127.0.0.1:50122: malformed packet

STREAM             SHARD  RECORDS  BYTES      RATE              ON DISK             WRITTEN PER BYTE
dead-letter.cloud  all    0        0 B        -                 0 B of 64.0 MiB     -
telemetry          all    1,200    1.2 MiB    12/s, 12.3 KiB/s  1.2 MiB of 1.0 GiB  1.10, 1.2 MiB a day
                   0      700      700.0 KiB  12/s, 12.3 KiB/s
                   1      500      500.0 KiB  12/s, 12.3 KiB/s
  ! shardId-000000000001: writers waited 4 times for the rate limit
  ! stored while no clock was trusted: 3
  ! takes no records: quota of 1.0 GiB is used up
  ! dropped by quota: 5
  ! LOST before delivery by quota: 5

LINK  LIMITS  SPENT TODAY  BUDGET
lte   hold    11.4 MiB     47.7 MiB

DESTINATION  TYPE     FROM       RECORDS  BYTES       RATE              BACKLOG          LAG  SENT PER BYTE
cloud        kinesis  telemetry  1,000    1000.0 KiB  12/s, 12.3 KiB/s  200 (211.9 KiB)  43s  1.20
  ! dns; down for 40s, 7 attempts
  ! catching up: 10 live records, the oldest 2s old; 190 in 2 gaps that it leapt over, the oldest 43s old
  ! 25 aggregates of 40.0 records each, 1.04 bytes per payload byte, 50 payload units taken
  ! no more is read: what waits behind records that go on failing fills the window
  ! failing whenever they are sent, alone, while others are taken; tried again: 1
  ! sent again because the destination's shards had changed: 12
  ! never to be taken, now in the dead-letter stream: 1
  ! dead letters that wait to be looked at (`forebay dead-letter list`): 3
  ! older than max-age and not sent any more: 6
  ! sent back as too many at once, and tried again: 8
  ! certificate device.crt: expires in 3 days
  ! last error, 1m 5s ago: connection refused
";
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn the_order_limits_only_what_can_be_reached() {
        let told = |status: &Status| render(status, 0).contains("limited by the order per partition key");
        let mut status = samples::busy();
        assert!(!told(&status), "it is the link that limits");
        status.destinations.get_mut("cloud").expect("in the sample").down = None;
        assert!(told(&status));
    }

    #[test]
    fn where_no_record_waits_none_is_old() {
        let mut status = samples::busy();
        let catch_up = &mut status.destinations.get_mut("cloud").expect("in the sample").catch_up;
        (catch_up.live_records, catch_up.live_lag_seconds) = (0, 0.0);
        let text = render(&status, 0);
        let expected = "catching up: no live records; 190 in 2 gaps that it leapt over, the oldest 43s old\n";
        assert!(text.contains(expected), "\n{text}");
        let catch_up = &mut status.destinations.get_mut("cloud").expect("in the sample").catch_up;
        (catch_up.gaps, catch_up.gap_records, catch_up.gap_lag_seconds) = (1, 0, 0.0);
        let text = render(&status, 0);
        assert!(text.contains("catching up: no live records; none left in 1 gap that it leapt over\n"), "\n{text}");
    }

    #[test]
    fn an_agent_with_nothing_to_do() {
        let status = Status { version: "0.1.0".into(), healthy: true, data_dir: "data".into(), ..Status::default() };
        assert_eq!(render(&status, 0), "forebay 0.1.0, healthy, up 0s, data in data\n");
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (61, "1m 1s"), (3660, "1h 1m"), (90_000, "1d 1h")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
