//! The steps together: their order, what they count, and every example of docs/shaping.md.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use forebay_log_store::{Tag, Timestamp};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::config::{Problems, reader};

/// A source with these steps.
struct Plant {
    shape: Shape,
    stats: Arc<SourceStats>,
}

type Records = Vec<(String, Vec<(String, String)>)>;

impl Plant {
    fn new(toml: &str) -> Self {
        let mut problems = Problems::default();
        let config: Option<Config> = reader::read(toml.parse().expect(toml), "s", &[], &mut problems);
        let shape = config.and_then(|config| config.validate("s", &mut problems));
        assert_eq!(problems.list(), [], "{toml}");
        let stats = Arc::new(SourceStats::default());
        let shape = shape.expect("right").for_source("truck-7", "plant", 100).counted_by(Arc::clone(&stats));
        Self { shape, stats }
    }

    fn apply(&self, payload: &[u8], tags: &[Tag], ms: u64) -> (Records, Vec<Undecodable>) {
        let fields = Fields { source: "plant", named: &[("topic", "plant/1")], payload, byte: None };
        // 2026-11-25 12:00:00 UTC.
        let at = Timestamp(1_795_608_000_000 + ms);
        let now = Arrived { at, trusted: true, since_boot: Duration::from_millis(ms) };
        let (mut records, mut refused) = (Records::new(), Vec::new());
        self.shape.apply(&Raw { payload, tags, fields, now }, &mut |outcome| match outcome {
            Ok(Shaped { data, tags, decoded, .. }) => {
                assert!(!decoded.is_empty() || payload.is_empty());
                let tags = tags.iter().map(|tag| (tag.name.clone(), tag.value.clone())).collect();
                records.push((String::from_utf8_lossy(data).into_owned(), tags));
            }
            Err(undecodable) => refused.push(undecodable),
        });
        (records, refused)
    }

    /// Data alone, of payloads that arrive one by one at the same time.
    fn data(&self, payloads: &[&str]) -> Vec<String> {
        payloads.iter().flat_map(|payload| self.apply(payload.as_bytes(), &[], 0).0).map(|(data, _)| data).collect()
    }

    fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.stats.refusals()
    }
}

fn tag(name: &str, value: &str) -> Tag {
    Tag { name: name.into(), value: value.into() }
}

#[test]
fn without_steps_a_record_is_stored_as_it_came() {
    let shaped = Plant::new("");
    let (records, refused) = shaped.apply(b"\xff{", &[tag("a", "b")], 0);
    assert_eq!((records.len(), refused), (1, vec![]));
    assert_eq!(records[0].1, [("a".into(), "b".into())]);
}

/// Each step sees what those before it left, and nothing of what those behind it do.
#[test]
fn the_steps_follow_each_other_in_their_order() {
    let shaped = Plant::new(
        "decode = 'ndjson'\ntimestamp = { field = 'ts', format = 'unix' }\nfilter = { field = 't', above = 0 }\n\
         sample = { every = 2 }\ndeduplicate = { window = '1s', by = '{json:/id}' }\nselect = ['t']\nrename = { t = 'temp' }\n\
         tags = { site = 'a' }\nenvelope = true",
    );
    // Filtered before it is sampled; sampled before it is deduplicated; all of them before `id` and `ts` are gone.
    let lines = [
        r#"{"ts":1,"t":-1,"id":1}"#,
        r#"{"ts":1,"t":1,"id":1}"#,
        r#"{"ts":1,"t":-2,"id":2}"#,
        r#"{"ts":1,"t":2,"id":2}"#,
        r#"{"ts":1,"t":3,"id":1}"#,
        r#"{"ts":1,"t":4,"id":3}"#,
        r#"{"ts":1,"t":5,"id":2}"#,
    ];
    let (records, refused) = shaped.apply(lines.join("\n").as_bytes(), &[tag("site", "device's"), tag("x", "y")], 0);
    assert_eq!(refused, []);
    let head = r#"{"gateway":"truck-7","source":"plant","sequence":"#;
    let rest = r#","arrived":"2026-11-25T12:00:00.000Z","clock-trusted":true,"timestamp":"1970-01-01T00:00:01.000Z","tags":{"x":"y","site":"a","timestamp":"1970-01-01T00:00:01.000Z"},"data":{"temp":"#;
    let tags: Vec<(String, String)> = [("x", "y"), ("site", "a"), ("timestamp", "1970-01-01T00:00:01.000Z")]
        .map(|(a, b)| (a.into(), b.into()))
        .into();
    let expected: Records =
        [(100, 1), (101, 5)].map(|(number, temp)| (format!("{head}{number}{rest}{temp}}}}}"), tags.clone())).into();
    assert_eq!(records, expected);
    assert_eq!(shaped.counts(), [("filtered", 2), ("sampled-out", 2), ("duplicate", 1)].into());
}

#[test]
fn what_cannot_be_read_is_kept_and_counted() {
    let shaped = Plant::new("select = ['a']\nfilter = { field = 'a', exists = true }\ndeduplicate = { window = '1s' }");
    let (records, refused) = shaped.apply(b"a,b", &[], 0);
    assert_eq!(refused, []);
    assert_eq!(records, [("a,b".to_owned(), vec![("undecodable".to_owned(), "json".to_owned())])]);
    assert_eq!(shaped.apply(b"a,b", &[], 1).0.len(), 0);
    assert_eq!(shaped.counts(), [("undecodable", 2), ("duplicate", 1)].into());
}

#[test]
fn what_cannot_be_read_can_be_dropped() {
    let shaped = Plant::new("decode = 'ndjson'\non-undecodable = 'drop'");
    let (records, refused) = shaped.apply(b"{\n1\n}\n2\n[", &[], 0);
    assert_eq!(records.iter().map(|(data, _)| &**data).collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(refused.iter().map(|refused| refused.number).collect::<Vec<_>>(), [Some(1), Some(3), Some(5)]);
    assert!(refused[0].to_string().starts_with("it is not ndjson: "), "{}", refused[0]);
    // They are the caller's to count.
    assert_eq!(shaped.counts(), [].into());
}

#[test]
fn a_partition_key_is_made_of_the_whole_record() {
    let shaped = Plant::new("decode = 'cbor'\nselect = ['t']\nenvelope = true");
    let payload = b"\xa2\x62id\x07\x61t\x01";
    let fields = Fields { source: "plant", named: &[], payload, byte: None };
    let now = Arrived { at: Timestamp(0), trusted: false, since_boot: Duration::ZERO };
    let mut decoded = Vec::new();
    let raw = Raw { payload, tags: &[], fields, now };
    shaped.shape.apply(&raw, &mut |out| decoded.extend_from_slice(out.expect("taken").decoded));
    assert_eq!(decoded, br#"{"id":7,"t":1}"#);
}

#[test]
fn what_a_step_cannot_do_is_counted_and_the_record_is_kept() {
    let shaped = Plant::new(
        "timestamp = { field = 'ts' }\nrename = { a = 'b' }\nsample = { every = 2, per = '{json:/id}' }\n\
         deduplicate = { window = '1s', by = '{json:/n}' }",
    );
    assert_eq!(shaped.data(&[r#"{"a":1,"b":2,"id":1}"#, "[1]", "7"]), [r#"{"a":1,"b":2,"id":1}"#, "[1]"]);
    let expected =
        [("no-timestamp", 3), ("rename-conflict", 1), ("not-an-object", 1), ("no-key", 4), ("sampled-out", 1)];
    assert_eq!(shaped.counts(), expected.into());
}

#[test]
fn windows_go_by_monotonic_time_and_can_be_forgotten() {
    let shaped = Plant::new("sample = { interval = '1s', per = '{topic}' }\ndeduplicate = { window = '10s' }");
    let taken = |payload: &str, ms| shaped.apply(payload.as_bytes(), &[], ms).0.len();
    assert_eq!([taken("a", 0), taken("b", 500), taken("a", 1000), taken("b", 2000)], [1, 0, 0, 1]);
    assert_eq!(shaped.counts(), [("sampled-out", 1), ("duplicate", 1)].into());
    shaped.shape.forget();
    assert_eq!(taken("b", 2001), 1);
    let small = Plant::new("deduplicate = { window = '10s', max-entries = 1 }");
    assert_eq!(small.data(&["a", "b", "a", "a"]), ["a", "b", "a"]);
    assert_eq!(small.counts(), [("window-full", 2), ("duplicate", 1)].into());
}

#[test]
fn envelopes_of_clones_never_share_a_number() {
    let shaped = Plant::new("envelope = true");
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (shape, stats) = (shaped.shape.clone(), Arc::clone(&shaped.stats));
            std::thread::spawn(move || {
                let shaped = Plant { shape, stats };
                shaped.data(&["1"; 250])
            })
        })
        .collect();
    let mut numbers: Vec<u64> = threads
        .into_iter()
        .flat_map(|thread| thread.join().expect("no panic"))
        .map(|text| serde_json::from_str::<Value>(&text).expect("JSON")["sequence"].as_u64().expect("a number"))
        .collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(100..1100));
}

/// In docs/shaping.md every block of TOML is followed by blocks of text: `in` lines, each a payload, and what comes out.
#[test]
fn every_example_of_the_documentation_is_true() {
    let page = include_str!("../../../../docs/shaping.md");
    let mut blocks = page.split("\n```").skip(1).step_by(2);
    let mut examples = 0;
    let mut shaped = None;
    let mut payloads = Vec::new();
    while let Some((kind, text)) = blocks.next().map(|block| block.split_once('\n').expect("a kind")) {
        match kind {
            "toml" => shaped = Some(Plant::new(text)),
            "in" => payloads = text.lines().map(unhex).collect(),
            "payload" => payloads = vec![text.as_bytes().to_vec()],
            "out" => {
                let shaped = shaped.as_ref().expect("steps before records");
                let mut out = Vec::new();
                for (payload, ms) in payloads.iter().zip((0..).step_by(100)) {
                    for (data, tags) in shaped.apply(payload, &[], ms).0 {
                        out.push(data);
                        out.extend(tags.into_iter().map(|(name, value)| format!("  {name} = {value}")));
                    }
                }
                assert_eq!(out, text.lines().collect::<Vec<_>>(), "after {payloads:?}");
                examples += 1;
            }
            other => panic!("a block of `{other}`"),
        }
    }
    assert!(examples >= 15, "only {examples} examples");
    for key in reader::keys_of::<Config>() {
        assert!(page.contains(&format!("\n| `{key}` |")), "`{key}` has no row");
    }
}

/// A payload of the page: bytes in hex, or else the text itself.
fn unhex(line: &str) -> Vec<u8> {
    let Some(hex) = line.strip_prefix("0x") else { return line.as_bytes().to_vec() };
    let hex: String = hex.split_whitespace().collect();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

proptest! {
    #[test]
    fn any_payload_goes_through_all_steps(
        payload in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..80),
            "\\{\"(a|b|ts)\": ?(1|\"x\"|null|\\{\"a\": ?\\[\\]\\})(, ?\"(a|b|ts)\": ?(2|\"[\"y]\"|true))?\\}".prop_map(String::into_bytes),
        ],
        decode in prop_oneof![Just(""), Just("json"), Just("cbor"), Just("msgpack"), Just("csv"), Just("ndjson"), Just("syslog")],
        envelope: bool,
    ) {
        let decode = if decode.is_empty() { String::new() } else { format!("decode = '{decode}'\n") };
        let toml = format!(
            "{decode}timestamp = {{ field = 'ts' }}\nfilter = {{ not = {{ field = '/a/a', equals = 1 }} }}\n\
             sample = {{ every = 2, per = '{{json:/a}}' }}\ndeduplicate = {{ window = '1s' }}\nselect = ['a', '/b/a']\n\
             rename = {{ a = 'b' }}\nenvelope = {envelope}",
        );
        let shaped = Plant::new(&toml);
        let (records, refused) = shaped.apply(&payload, &[], 0);
        prop_assert_eq!(refused, []);
        if envelope {
            for (data, _) in records {
                prop_assert!(serde_json::from_str::<Value>(&data).is_ok(), "{}", data);
            }
        }
    }
}
