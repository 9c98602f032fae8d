//! Metrics: a status in Prometheus' text format. Pure.
//!
//! Names begin with `forebay_`, carry their unit, and end in `_total` when they only grow.

use std::fmt::Write as _;

use super::{Dropped, Status};

/// Writes a status as metrics.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut out = Page(String::new());
    out.family("forebay_info", "gauge", "The running version.");
    out.sample("forebay_info", &[("version", &status.version)], 1.0);
    out.family("forebay_healthy", "gauge", "1 when the log takes records and every source runs.");
    out.sample("forebay_healthy", &[], f64::from(u8::from(status.healthy)));
    out.family("forebay_uptime_seconds", "gauge", "Time since the agent's start.");
    out.sample("forebay_uptime_seconds", &[], status.uptime_seconds as f64);
    out.family("forebay_clock_trusted", "gauge", "1 when the time is known; else arrival times are uncertain.");
    out.sample("forebay_clock_trusted", &[], f64::from(u8::from(status.clock.trusted_since_ms.is_some())));
    out.family("forebay_log_events_total", "counter", "What the log told that a person should hear.");
    for (event, count) in &status.log_events {
        out.sample("forebay_log_events_total", &[("event", event)], *count as f64);
    }
    sources(status, &mut out);
    streams(status, &mut out);
    links(status, &mut out);
    destinations(status, &mut out);
    out.0
}

fn sources(status: &Status, out: &mut Page) {
    let sources = &status.sources;
    out.each("forebay_source_records_total", "counter", "Records that are durable.", "source", sources, |s| {
        s.stored.records as f64
    });
    out.each("forebay_source_bytes_total", "counter", "Their keys and data.", "source", sources, |s| {
        s.stored.bytes as f64
    });
    out.each("forebay_source_connections", "gauge", "Connections open now.", "source", sources, |s| {
        s.connections as f64
    });
    let name = "forebay_source_refused_total";
    out.family(name, "counter", "What was not taken, or not as it came.");
    for (source, status) in sources {
        for (reason, count) in &status.refused {
            out.sample(name, &[("source", source), ("reason", reason)], *count as f64);
        }
    }
}

fn streams(status: &Status, out: &mut Page) {
    for (name, help, value) in [
        (
            "forebay_shard_records_total",
            "Records committed.",
            (|s| s.committed.records) as fn(&super::ShardStatus) -> u64,
        ),
        ("forebay_shard_bytes_total", "Keys and data committed.", |s| s.committed.bytes),
        ("forebay_shard_throttled_total", "How often a writer was told to wait.", |s| s.throttled),
    ] {
        out.family(name, "counter", help);
        for (stream, status) in &status.streams {
            for (shard, status) in &status.shards {
                out.sample(name, &[("stream", stream), ("shard", shard)], value(status) as f64);
            }
        }
    }
    let streams = &status.streams;
    out.each("forebay_stream_oldest_sequence_number", "gauge", "The oldest record.", "stream", streams, |s| {
        s.oldest as f64
    });
    out.each("forebay_stream_next_sequence_number", "gauge", "The next record.", "stream", streams, |s| s.next as f64);
    out.each("forebay_stream_disk_bytes", "gauge", "Bytes on disk.", "stream", streams, |s| s.disk_bytes as f64);
    out.each("forebay_stream_quota_bytes", "gauge", "The most of them.", "stream", streams, |s| s.quota_bytes as f64);
    out.each("forebay_stream_untrusted_records", "gauge", "Records of uncertain time.", "stream", streams, |s| {
        s.untrusted_records as f64
    });
    out.each("forebay_stream_segments", "gauge", "Files.", "stream", streams, |s| s.segments as f64);
    out.each("forebay_stream_held_bytes", "gauge", "Bytes that wait in memory.", "stream", streams, |s| {
        s.held_bytes as f64
    });
    out.each("forebay_stream_unwritten_total", "counter", "Records delivered from memory.", "stream", streams, |s| {
        s.unwritten as f64
    });
    let name = "forebay_stream_written_bytes_total";
    out.family(name, "counter", "Bytes written to files, and given to the catalogue.");
    for (stream, status) in streams {
        let (framing, catalogue) = (status.framing_bytes, status.catalogue_bytes);
        let records = status.written_bytes.saturating_sub(framing + catalogue);
        for (kind, bytes) in [("records", records), ("framing", framing), ("catalogue", catalogue)] {
            out.sample(name, &[("stream", stream), ("kind", kind)], bytes as f64);
        }
    }
    out.each("forebay_stream_commits_total", "counter", "Writes, each with one sync.", "stream", streams, |s| {
        s.commits as f64
    });
    out.each("forebay_stream_stopped", "gauge", "1 when it takes no records.", "stream", streams, |s| {
        f64::from(u8::from(s.stopped.is_some()))
    });
    for (name, help, counts) in [
        (
            "forebay_stream_dropped_total",
            "Records that left by a limit or by damage, since the stream was made.",
            (|s| s.dropped) as fn(&super::StreamStatus) -> Dropped,
        ),
        ("forebay_stream_lost_total", "Those of them that a destination had not got.", |s| s.lost),
    ] {
        out.family(name, "counter", help);
        for (stream, status) in streams {
            let Dropped { retention, quota, damage } = counts(status);
            for (reason, count) in [("retention", retention), ("quota", quota), ("damage", damage)] {
                out.sample(name, &[("stream", stream), ("reason", reason)], count as f64);
            }
        }
    }
}

fn links(status: &Status, out: &mut Page) {
    let links = &status.links;
    out.each("forebay_link_metered", "gauge", "1 when its limits hold.", "link", links, |l| {
        f64::from(u8::from(l.metered))
    });
    out.each("forebay_link_spent_bytes", "gauge", "Bytes of the day's budget that have passed.", "link", links, |l| {
        l.spent_bytes as f64
    });
    let limited = links.iter().filter(|(_, link)| link.budget_bytes.is_some());
    out.each("forebay_link_budget_bytes", "gauge", "Bytes that may pass in a day.", "link", limited, |l| {
        l.budget_bytes.unwrap_or_default() as f64
    });
}

fn destinations(status: &Status, out: &mut Page) {
    let destinations = &status.destinations;
    for (name, kind, help, value) in [
        (
            "forebay_destination_records_total",
            "counter",
            "Records that it took.",
            (|d| d.delivered.records as f64) as fn(&super::DestinationStatus) -> f64,
        ),
        ("forebay_destination_bytes_total", "counter", "Their keys and data.", |d| d.delivered.bytes as f64),
        ("forebay_destination_requests_total", "counter", "Requests sent.", |d| d.requests as f64),
        ("forebay_destination_wire_sent_bytes_total", "counter", "Bytes sent, all layers above TCP included.", |d| {
            d.wire_sent_bytes as f64
        }),
        ("forebay_destination_wire_received_bytes_total", "counter", "Bytes received.", |d| {
            d.wire_received_bytes as f64
        }),
        ("forebay_destination_throttled_records_total", "counter", "Records sent back as too many.", |d| {
            d.throttled_records as f64
        }),
        ("forebay_destination_failed_records_total", "counter", "Records sent back for a passing reason.", |d| {
            d.failed_records as f64
        }),
        ("forebay_destination_dead_letters_total", "counter", "Records that it will never take.", |d| {
            d.dead_letters as f64
        }),
        ("forebay_destination_dead_letters_open", "gauge", "Letters neither replayed nor dropped.", |d| {
            d.dead_letters_open as f64
        }),
        ("forebay_destination_dead_letters_replayed_total", "counter", "Letters replayed.", |d| {
            d.dead_letters_replayed as f64
        }),
        ("forebay_destination_dead_letters_dropped_total", "counter", "Letters that a person dropped.", |d| {
            d.dead_letters_dropped as f64
        }),
        ("forebay_destination_out_of_order_total", "counter", "Records behind later ones of their key.", |d| {
            d.out_of_order as f64
        }),
        ("forebay_destination_expired_total", "counter", "Records that were too old to be sent.", |d| d.expired as f64),
        ("forebay_destination_gaps", "gauge", "Gaps that it leapt over and has not filled.", |d| {
            d.catch_up.gaps as f64
        }),
        ("forebay_destination_gap_records", "gauge", "Records that are left in them.", |d| {
            d.catch_up.gap_records as f64
        }),
        ("forebay_destination_gap_lag_seconds", "gauge", "Age of the oldest of these.", |d| d.catch_up.gap_lag_seconds),
        ("forebay_destination_live_records", "gauge", "Records that are live and not finished.", |d| {
            d.catch_up.live_records as f64
        }),
        ("forebay_destination_live_lag_seconds", "gauge", "Age of the oldest of these.", |d| {
            d.catch_up.live_lag_seconds
        }),
        ("forebay_destination_astray_total", "counter", "Records sent again because shards had changed.", |d| {
            d.astray_records as f64
        }),
        ("forebay_destination_wire_records_total", "counter", "Records as the destination sees them, taken.", |d| {
            d.wire.as_ref().map_or(0.0, |wire| wire.records as f64)
        }),
        ("forebay_destination_wire_record_bytes_total", "counter", "Their keys and data.", |d| {
            d.wire.as_ref().map_or(0.0, |wire| wire.bytes as f64)
        }),
        (
            "forebay_destination_payload_units_total",
            "counter",
            "Units that the service charges: 25 KB at Kinesis, 5 KB at Firehose.",
            |d| d.wire.as_ref().map_or(0.0, |wire| wire.payload_units as f64),
        ),
        ("forebay_destination_backlog_records", "gauge", "Records that it has not finished.", |d| {
            d.backlog_records as f64
        }),
        (
            "forebay_destination_backlog_bytes",
            "gauge",
            "Their share of the stream's bytes on disk, as if all records had one size.",
            |d| d.backlog_bytes as f64,
        ),
        ("forebay_destination_lag_seconds", "gauge", "Age of the oldest record behind the checkpoint.", |d| {
            d.lag_seconds
        }),
        ("forebay_destination_in_flight_requests", "gauge", "Requests under way.", |d| d.in_flight as f64),
        ("forebay_destination_window_bytes", "gauge", "Keys and data held in memory.", |d| d.window_bytes as f64),
        ("forebay_destination_limited_by_key_order", "gauge", "1 when the order per key limits the rate.", |d| {
            f64::from(u8::from(d.limited_by_key_order))
        }),
        (
            "forebay_destination_failing_records",
            "gauge",
            "Records that wait because every request with one of them fails, while others are taken.",
            |d| d.failing_records as f64,
        ),
        (
            "forebay_destination_reading_stopped",
            "gauge",
            "1 when no more is read, because what waits behind these fills the window.",
            |d| f64::from(u8::from(d.reading_stopped)),
        ),
        ("forebay_destination_held", "gauge", "1 when its link's limits hold it back.", |d| {
            f64::from(u8::from(d.held.is_some()))
        }),
        ("forebay_destination_up", "gauge", "0 when it cannot be delivered to.", |d| {
            f64::from(u8::from(d.down.is_none()))
        }),
    ] {
        out.each(name, kind, help, "destination", destinations, value);
    }
    let name = "forebay_destination_client_certificate_expires_timestamp_seconds";
    out.family(name, "gauge", "Until when a certificate of our own holds, in seconds since 1970.");
    for (destination, status) in destinations {
        for certificate in &status.client_certificates {
            let (file, expires) = (certificate.file.display().to_string(), certificate.expires_ms);
            if let Some(expires) = expires {
                out.sample(name, &[("destination", destination), ("file", &file)], (expires / 1000) as f64);
            }
        }
    }
    let name = "forebay_destination_failed_requests_total";
    out.family(name, "counter", "Requests that failed as a whole.");
    for (destination, status) in destinations {
        for (kind, count) in &status.failed_requests {
            out.sample(name, &[("destination", destination), ("kind", kind)], *count as f64);
        }
    }
}

/// The text being written.
struct Page(String);

impl Page {
    /// What comes before the samples of one name.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if i == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// One sample for each of `things`.
    fn each<'a, T: 'a>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        label: &str,
        things: impl IntoIterator<Item = (&'a String, &'a T)>,
        value: impl Fn(&T) -> f64,
    ) {
        self.family(name, kind, help);
        for (thing, status) in things {
            self.sample(name, &[(label, thing)], value(status));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{super::samples, *};

    #[test]
    fn every_line_is_a_comment_or_a_sample_of_the_family_above_it() {
        let text = render(&samples::busy());
        let mut family = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().expect("a name");
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().expect("a name");
                assert_eq!(name, family, "{line}");
                let value = line.rsplit(' ').next().expect("a value");
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert_eq!(name.ends_with("_total"), text.contains(&format!("# TYPE {name} counter")), "{line}");
            }
        }
        assert!(text.lines().all(|line| line.starts_with("forebay_") || line.starts_with("# ")));
    }

    #[test]
    fn no_family_comes_twice() {
        let text = render(&samples::busy());
        let mut seen = BTreeMap::<_, usize>::new();
        for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
            *seen.entry(line).or_default() += 1;
        }
        assert!(seen.values().all(|count| *count == 1), "{seen:?}");
    }

    #[test]
    fn samples_carry_their_labels() {
        let text = render(&samples::busy());
        for line in [
            "forebay_healthy 0",
            "forebay_source_records_total{source=\"devices\"} 1200",
            "forebay_source_refused_total{source=\"devices\",reason=\"oversize\"} 2",
            "forebay_shard_records_total{stream=\"telemetry\",shard=\"shardId-000000000000\"} 700",
            "forebay_stream_lost_total{stream=\"telemetry\",reason=\"quota\"} 5",
            "forebay_link_spent_bytes{link=\"lte\"} 12000000",
            "forebay_destination_backlog_records{destination=\"cloud\"} 200",
            "forebay_destination_lag_seconds{destination=\"cloud\"} 42.5",
            "forebay_destination_expired_total{destination=\"cloud\"} 6",
            "forebay_destination_gaps{destination=\"cloud\"} 2",
            "forebay_destination_failing_records{destination=\"cloud\"} 1",
            "forebay_destination_reading_stopped{destination=\"cloud\"} 1",
            "forebay_destination_gap_records{destination=\"cloud\"} 190",
            "forebay_destination_live_lag_seconds{destination=\"cloud\"} 1.5",
            "forebay_destination_failed_requests_total{destination=\"cloud\",kind=\"dns\"} 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn labels_are_escaped() {
        let mut page = Page(String::new());
        page.sample("x", &[("a", "q\"b\\c\nd")], 1.5);
        assert_eq!(page.0, "x{a=\"q\\\"b\\\\c\\nd\"} 1.5\n");
    }
}
