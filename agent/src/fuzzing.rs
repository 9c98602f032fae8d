//! What a fuzzer calls: one function for each reader of what comes from outside. Any bytes may come, and none may make a
//! reader panic or keep what it does not need.
//!
//! `fuzz/` has the programs for long runs; the tests run each function briefly on what proptest makes up.

pub use crate::{
    destination::{
        firehose::fuzz as firehose_answer,
        http::fuzz as http_reply,
        kinesis::{fuzz_list_shards as shard_list, fuzz_put_records as kinesis_answer},
    },
    framing::fuzz as framing,
    source::{
        gps::hear_anything as gps,
        http::fuzz as http_body,
        journald::fuzz as journal_entry,
        mqtt::fuzz as mqtt_client,
        mqtt_broker::fuzz as mqtt_listener,
        shape::fuzz as decode,
        tail::{fuzz_lines as tail_lines, fuzz_mark as tail_mark},
    },
};

/// Reads any bytes without trouble.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its program and of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("decode", decode),
    ("firehose_answer", firehose_answer),
    ("framing", framing),
    ("gps", gps),
    ("http_body", http_body),
    ("http_reply", http_reply),
    ("journal_entry", journal_entry),
    ("kinesis_answer", kinesis_answer),
    ("mqtt_client", mqtt_client),
    ("mqtt_listener", mqtt_listener),
    ("shard_list", shard_list),
    ("tail_lines", tail_lines),
    ("tail_mark", tail_mark),
];

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, sync::LazyLock};

    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    fn fuzz_dir() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("fuzz")
    }

    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let entries = fs::read_dir(fuzz_dir().join("corpus").join(target)).expect("a corpus");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("listed").path()).collect();
        files.sort();
        files.iter().map(|path| fs::read(path).expect("read")).collect()
    }

    /// How many inputs each target gets.
    fn runs() -> u32 {
        std::env::var("FOREBAY_FUZZ_RUNS").map_or(2000, |runs| runs.parse().expect("FOREBAY_FUZZ_RUNS is a number"))
    }

    #[test]
    fn every_target_has_a_program_and_a_corpus() {
        let manifest = fs::read_to_string(fuzz_dir().join("Cargo.toml")).expect("read");
        for (name, target) in TARGETS {
            let program = fs::read_to_string(fuzz_dir().join(format!("fuzz_targets/{name}.rs"))).expect("a program");
            assert!(program.contains(&format!("forebay::fuzzing::{name}(bytes)")), "{program}");
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            let corpus = corpus(name);
            assert!(corpus.len() > 1, "{name}");
            corpus.iter().for_each(|bytes| target(bytes));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(runs()))]

        #[test]
        fn no_bytes_trouble_a_reader(
            from in any::<Index>(),
            changes in vec((any::<Index>(), any::<u8>(), 0..3u8), 0..6),
            tail in vec(any::<u8>(), 0..40),
        ) {
            static CORPORA: LazyLock<Vec<Vec<Vec<u8>>>> =
                LazyLock::new(|| TARGETS.iter().map(|(name, _)| corpus(name)).collect());
            for ((_, target), corpus) in TARGETS.iter().zip(&*CORPORA) {
                let mut bytes = from.get(corpus).clone();
                for (at, byte, change) in &changes {
                    let at = at.index(bytes.len() + 1);
                    match change {
                        0 => bytes.truncate(at),
                        1 => bytes.insert(at, *byte),
                        _ => bytes.iter_mut().skip(at).take(1).for_each(|old| *old ^= byte),
                    }
                }
                bytes.extend_from_slice(&tail);
                target(&bytes);
            }
        }
    }
}
