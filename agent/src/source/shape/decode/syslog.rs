//! Syslog messages as JSON: RFC 5424, and RFC 3164 as loosely as it is written, by syslog_loose.
//!
//! The names are those of Amazon Kinesis Agent (`timestamp`, `hostname`, `program`, `processid`, `message`), and
//! `facility`, `severity`, `msgid` and `structured-data` beside them; what a message does not say is left out. A time of
//! RFC 3164 has neither year nor zone: it is taken for UTC, in the year that puts it nearest to the message's arrival.

use chrono::{DateTime, Datelike as _, SecondsFormat, TimeZone as _, Utc};
use syslog_loose::{Message, ProcId, Variant};

use super::super::{Arrived, project::push_string};

/// The error is a sentence fragment.
pub(super) fn decode(payload: &[u8], now: Arrived) -> Result<String, String> {
    let text = std::str::from_utf8(payload).map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to()))?;
    // Senders over TCP end a message so, and files end a line.
    let text = text.trim_end_matches(['\n', '\r', '\0']);
    let year = |date: (u32, u32, u32, u32, u32)| nearest_year(date, now);
    let message = syslog_loose::parse_message_with_year_exact_tz(text, year, Some(Utc), Variant::Either)?;
    if message.severity.is_none() && message.timestamp.is_none() {
        return Err("neither a priority nor a time at its beginning".into());
    }
    Ok(json(&message))
}

fn json(message: &Message<&str>) -> String {
    let mut out = String::from("{");
    let mut push = |name: &str, value: &str| {
        if out.len() > 1 {
            out.push(',');
        }
        push_string(name, &mut out);
        out.push(':');
        push_string(value, &mut out);
    };
    if let Some(time) = message.timestamp {
        push("timestamp", &time.to_utc().to_rfc3339_opts(SecondsFormat::AutoSi, true));
    }
    if let Some(facility) = message.facility {
        push("facility", facility.as_str());
    }
    if let Some(severity) = message.severity {
        push("severity", severity.as_str());
    }
    for (name, value) in [("hostname", message.hostname), ("program", message.appname)] {
        if let Some(value) = value {
            push(name, value);
        }
    }
    match &message.procid {
        Some(ProcId::PID(id)) => push("processid", &id.to_string()),
        Some(ProcId::Name(name)) => push("processid", name),
        None => {}
    }
    if let Some(id) = message.msgid {
        push("msgid", id);
    }
    push("message", message.msg);
    if !message.structured_data.is_empty() {
        out.push_str(",\"structured-data\":{");
        for (index, element) in message.structured_data.iter().enumerate() {
            out.push_str(if index > 0 { "," } else { "" });
            push_string(element.id, &mut out);
            out.push_str(":{");
            for (index, (name, value)) in element.params().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                push_string(name, &mut out);
                out.push(':');
                push_string(&value, &mut out);
            }
            out.push('}');
        }
        out.push('}');
    }
    out.push('}');
    out
}

/// A message of December that arrives in January is of last year.
fn nearest_year((month, day, hour, minute, second): (u32, u32, u32, u32, u32), now: Arrived) -> i32 {
    let now = i64::try_from(now.at.0).ok().and_then(DateTime::from_timestamp_millis).unwrap_or(DateTime::UNIX_EPOCH);
    let distance = |year: &i32| {
        let time = Utc.with_ymd_and_hms(*year, month, day, hour, minute, second).earliest();
        time.map_or(i64::MAX, |time| (time - now).num_seconds().abs())
    };
    (now.year() - 1..=now.year() + 1).min_by_key(distance).unwrap_or(now.year())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use forebay_log_store::Timestamp;

    use super::*;

    fn told(message: &str, arrived_ms: u64) -> Result<String, String> {
        decode(message.as_bytes(), Arrived { at: Timestamp(arrived_ms), trusted: true, since_boot: Duration::ZERO })
    }

    /// 2026-01-01 00:00:10 UTC.
    const NEW_YEAR_MS: u64 = 1_767_225_610_000;

    #[test]
    fn messages_of_both_rfcs_become_json() {
        for (message, expected) in [
            (
                r#"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut="3" eventSource="App\"lication"] An application event"#,
                r#"{"timestamp":"2003-10-11T22:14:15.003Z","facility":"local4","severity":"notice","hostname":"mymachine.example.com","program":"evntslog","msgid":"ID47","message":"An application event","structured-data":{"exampleSDID@32473":{"iut":"3","eventSource":"App\"lication"}}}"#,
            ),
            (
                "<34>Oct 11 22:14:15 mymachine su[230]: 'su root' failed\n",
                r#"{"timestamp":"2025-10-11T22:14:15Z","facility":"auth","severity":"crit","hostname":"mymachine","program":"su","processid":"230","message":"'su root' failed"}"#,
            ),
            (
                "Oct 11 22:14:15 mymachine kernel: up",
                r#"{"timestamp":"2025-10-11T22:14:15Z","hostname":"mymachine","program":"kernel","message":"up"}"#,
            ),
        ] {
            assert_eq!(told(message, NEW_YEAR_MS).as_deref(), Ok(expected), "{message}");
        }
    }

    #[test]
    fn the_year_is_the_nearest() {
        for (date, year) in [
            ("Dec 31 23:59:59", 2025),
            ("Jan  1 00:00:20", 2026),
            ("Jun 30 00:00:00", 2025 + 1),
            ("Feb 28 10:00:00", 2026),
        ] {
            let told = told(&format!("<13>{date} host app: x"), NEW_YEAR_MS).expect("syslog");
            assert!(told.starts_with(&format!("{{\"timestamp\":\"{year}-")), "{date}: {told}");
        }
        told("<13>Jan  1 00:00:20 host app: x", u64::MAX).expect("a clock that is wrong is no trouble");
        told("<13>Feb 29 00:00:20 host app: x", 0).expect_err("a day that is in no year near");
    }

    #[test]
    fn what_is_no_syslog_is_refused() {
        for message in ["", "hello world", "{\"a\":1}", "<999999>1 x"] {
            assert!(told(message, 0).is_err(), "{message}: {:?}", told(message, 0));
        }
        assert!(decode(b"<13>\xff", Arrived { at: Timestamp(0), trusted: false, since_boot: Duration::ZERO }).is_err());
    }
}
