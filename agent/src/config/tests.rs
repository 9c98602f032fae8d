//! Whole configurations: one that works as written, and what is said about those that do not.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use forebay_log_store::{Codec, OnFull};

use super::{Config, Error, agent, log, reader::keys_of, stream};
use crate::{api, delivery, destination, source};

/// The smallest that does the main job.
const WORKS: &str = r#"
    data-dir = "data"

    [api]
    listen = "127.0.0.1:4567"          # status and control now, the Kinesis API later

    [streams.telemetry]
    shards = 2
    retention = "24h"
    quota = "1GiB"
    on-full = "reject"                 # or "drop-oldest"
    compression = "lz4"
    rate-limit = "off"                 # default "kinesis"; or { records-per-second = 1000, bytes-per-second = "1MB" } per shard

    [sources.devices]
    type = "mqtt-broker"
    listen = "127.0.0.1:1883"
    stream = "telemetry"
    partition-key = "{topic}"

    [destinations.cloud]
    type = "kinesis"
    from = "telemetry"
    stream = "plant-telemetry"
    region = "eu-west-1"
    endpoint = "http://127.0.0.1:4568"
"#;

/// What is said about `text`, one line per problem.
fn problems_of(text: &str) -> Vec<String> {
    match Config::parse(text) {
        Err(Error::Problems { problems, .. }) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("expected problems, not {other:?}"),
    }
}

#[test]
fn a_configuration_that_does_the_main_job() {
    let config = Config::parse(WORKS).expect("it works as written");
    assert_eq!(config.store.dir, Path::new("data"));
    assert_eq!(config.api.listen.to_string(), "127.0.0.1:4567");
    assert_eq!(config.agent.grace_period, Duration::from_secs(10));
    let telemetry = &config.streams["telemetry"];
    assert_eq!(telemetry.shards.get(), 2);
    assert_eq!(telemetry.quota, 1 << 30);
    assert_eq!(telemetry.on_full, OnFull::Reject);
    assert_eq!(telemetry.compression, Codec::Lz4);
    assert_eq!(telemetry.rate_limit, None);
    assert_eq!(telemetry.consumers, ["cloud"]);
    assert_eq!(config.sources["devices"].stream, "telemetry");
    assert_eq!(config.sources["devices"].kind, "mqtt-broker");
    assert_eq!(config.destinations["cloud"].from, "telemetry");
}

#[test]
fn every_destination_has_a_stream_for_its_dead_letters() {
    let config = Config::parse(WORKS).expect("it works as written");
    assert_eq!(config.streams["dead-letter.cloud"].on_full, OnFull::DropOldest);
    let with_table = format!("{WORKS}\n[streams.\"dead-letter.cloud\"]\nquota = \"8MiB\"\n");
    let config = Config::parse(&with_table).expect("dead letters may have a table");
    assert_eq!(config.streams["dead-letter.cloud"].quota, 8 << 20);
}

#[test]
fn dead_letters_have_room_for_the_largest_one() {
    let with = |quota: &str, max_record: &str| {
        let text = WORKS.replace("type = \"kinesis\"", &format!("type = \"kinesis\"\nmax-record = \"{max_record}\""));
        assert_ne!(text, WORKS);
        Config::parse(&format!("{text}\n[streams.\"dead-letter.cloud\"]\nquota = \"{quota}\"\n"))
    };
    for (quota, max_record) in [("4352KiB", "1MiB"), ("1MiB", "1KiB"), ("41MiB", "10MiB")] {
        with(quota, max_record).unwrap_or_else(|error| panic!("{quota} for {max_record}: {error}"));
    }
    for (quota, max_record) in [("4351KiB", "1MiB"), ("40MiB", "10MiB")] {
        let told = with(quota, max_record).expect_err("too small").to_string();
        let least = if max_record == "1MiB" { "must be 4352KiB" } else { "must be 41216KiB" };
        assert!(told.contains("streams.\"dead-letter.cloud\".quota") && told.contains(least), "{told}");
    }
}

#[test]
fn five_mistakes_are_five_problems() {
    let text = WORKS
        .replace("shards = 2", "shards = 0")
        .replace("retention = \"24h\"", "retension = \"24h\"")
        .replace("\"1GiB\"", "\"lots\"")
        .replace("partition-key = \"{topic}\"", "partition-key = \"{topc}\"")
        .replace("from = \"telemetry\"", "from = \"telemetri\"");
    let error = Config::parse(&text).expect_err("five mistakes");
    assert_eq!(
        error.to_string(),
        "5 problems:\n  \
         streams.telemetry.quota: must be a size such as \"64KiB\" or \"1GiB\", not string \"lots\"\n  \
         streams.telemetry.retension: unknown key, did you mean `retention`?\n  \
         streams.telemetry.shards: must be 1 to 1000, not 0\n  \
         sources.devices.partition-key: `{topc}` is not a placeholder; known are {source}, {topic}, {topic[N]}, \
         {json:/pointer} and what the type of source knows; {{ and }} stand for braces\n  \
         destinations.cloud.from: there is no stream `telemetri`, did you mean `telemetry`?"
    );
}

#[test]
fn an_empty_file_lacks_a_data_directory() {
    assert_eq!(problems_of(""), ["data-dir: missing; say where the log is kept, such as \"/var/lib/forebay\""]);
}

#[test]
fn unknown_keys_and_sections_are_refused_with_the_nearest_known_one() {
    let found = problems_of("data_dir = 'x'\ndata-dir = 'x'\nquota = 3\n[stream.a]\n[api]\nlisten-on = 'x'");
    assert_eq!(
        found,
        [
            "data_dir: unknown key, did you mean `data-dir`?",
            "quota: unknown key; there are `agent`, `api`, `clock`, `data-dir`, `destinations`, `links`, `log`, `sources` and `streams`",
            "stream: unknown key, did you mean `streams`?",
            "api.listen-on: unknown key; there are `listen` and `token-file`",
        ]
    );
}

#[test]
fn what_sources_and_destinations_must_say_is_asked_for() {
    let found = problems_of("data-dir = 'x'\n[sources.a]\n[destinations.b]\ntype = 'kinesiss'\n[sources.c]\ntype = 3");
    let types = crate::config::there_are(source::TYPES.iter().map(|kind| kind.name));
    assert_eq!(
        found,
        [
            "sources.a.stream: missing; name the stream that its records go to",
            &*format!("sources.a.type: missing; {types}"),
            "sources.c.type: must be a string, not 3",
            "sources.c.stream: missing; name the stream that its records go to",
            "destinations.b.from: missing; name the stream whose records it gets",
            "destinations.b.type: there is no type `kinesiss`, did you mean `kinesis`?",
        ]
    );
}

#[test]
fn requests_are_no_larger_than_their_endpoint_takes() {
    let problems = |kind: &str, keys: &str| {
        let text = WORKS.replace("type = \"kinesis\"", &format!("{kind}\nwindow-bytes = \"100MiB\"\n{keys}"));
        match Config::parse(&text) {
            Ok(_) => Vec::new(),
            Err(Error::Problems { problems, .. }) => problems.iter().map(ToString::to_string).collect(),
            Err(other) => panic!("{other}"),
        }
    };
    for (kind, most, limit) in [
        ("firehose", "4MiB", "4.0 MiB or less, not 5.0 MiB: PutRecordBatch takes no more"),
        ("kinesis", "10MiB", "10.0 MiB or less, not 11.0 MiB: PutRecords takes no more"),
    ] {
        let kind = format!("type = \"{kind}\"");
        assert_eq!(problems(&kind, &format!("batch-bytes = \"{most}\"")), [""; 0]);
        let more = if most == "4MiB" { "5MiB" } else { "11MiB" };
        let told = problems(&kind, &format!("batch-bytes = \"{more}\""));
        assert_eq!(told, [format!("destinations.cloud.batch-bytes: must be {limit}")]);
    }
    // Also where it is more than the window, which is told only where that is the smaller limit.
    let text = WORKS.replace("type = \"kinesis\"", "type = \"firehose\"\nbatch-bytes = \"9MiB\"");
    let told = "destinations.cloud.batch-bytes: must be 4.0 MiB or less, not 9.0 MiB: PutRecordBatch takes no more";
    assert_eq!(problems_of(&text), [told]);
    // What is around the records has to fit, too.
    let http = |bytes: u64| {
        let text = format!(
            "{}[destinations.web]\ntype = \"http\"\nfrom = \"telemetry\"\nurl = \"http://127.0.0.1:1\"\nwindow-bytes = \"100MiB\"\nbatch-bytes = \"{bytes}\"\n",
            WORKS.split_once("[destinations").map_or(WORKS, |(before, _)| before)
        );
        match Config::parse(&text) {
            Ok(_) => Vec::new(),
            Err(Error::Problems { problems, .. }) => problems.iter().map(ToString::to_string).collect(),
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(http((64 << 20) - (1 << 10)), [""; 0]);
    let told = http(64 << 20);
    assert!(told.len() == 1 && told[0].starts_with("destinations.web.batch-bytes: must be"), "{told:?}");
}

#[test]
fn names_that_cannot_be_are_told() {
    let found = problems_of("data-dir = 'x'\n[streams.\"a b\"]\n[streams.\".a\"]\n[streams]\nc = 3");
    let rule = "a stream's name has 1 to 128 characters of a-z A-Z 0-9 _ . - and does not begin with a dot";
    assert_eq!(
        found,
        [
            format!("streams.\".a\": {rule}"),
            format!("streams.\"a b\": {rule}"),
            "streams.c: must be a table, not 3".into()
        ]
    );
    let text = WORKS.replace("sources.devices", "sources.\"my devices\"");
    assert_eq!(problems_of(&text), ["sources.\"my devices\": a name has 1 to 64 characters of a-z A-Z 0-9 _ -"]);
}

#[test]
fn streams_that_do_not_exist_are_told_with_those_that_do() {
    let text = WORKS.replace("stream = \"telemetry\"", "stream = \"positions\"");
    assert_eq!(
        problems_of(&text),
        ["sources.devices.stream: there is no stream `positions`; there is only `telemetry`"]
    );
    let text = WORKS.replace("from = \"telemetry\"", "from = \"dead-letter.cloud\"");
    assert_eq!(
        problems_of(&text),
        ["destinations.cloud.from: a destination cannot take its own dead letters: it would refuse them again and \
             again"]
    );
    let text = format!("{WORKS}\n[streams.\"dead-letter.old\"]");
    assert_eq!(
        problems_of(&text),
        ["streams.\"dead-letter.old\": names like this are for dead letters, and there is no destination `old`"]
    );
}

#[test]
fn two_listeners_cannot_share_an_address() {
    let text = WORKS.replace("listen = \"127.0.0.1:1883\"", "listen = \"127.0.0.1:4567\"");
    assert_eq!(problems_of(&text), ["sources.devices.listen: 127.0.0.1:4567 is already what `api.listen` listens on"]);
}

#[test]
fn what_is_not_toml_is_told_with_line_and_column() {
    let Err(Error::Syntax(message)) = Config::parse("data-dir = \"data\"\n[api\nlisten = 3") else {
        panic!("expected a syntax error");
    };
    assert!(message.contains("line 2, column 5"), "{message}");
    assert!(message.contains("[api"), "{message}");
}

/// Every example does what its comments say, as far as reading it can tell.
#[test]
fn examples_are_configurations() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let etc = tempfile::tempdir().expect("a directory");
    files_that_examples_name(etc.path());
    let (mut examples, mut types) = (BTreeMap::new(), BTreeSet::new());
    for entry in dir.read_dir().expect("the folder of examples") {
        let file = entry.expect("an entry").path();
        if file.extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(&file).expect("an example");
            let text = text.replace("/etc/forebay", &etc.path().display().to_string());
            types.extend(types_of_sources(&text));
            examples.insert(file, Config::parse(&text));
        }
    }
    assert!(!examples.is_empty());
    for (file, outcome) in examples {
        let config = outcome.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let vain: Vec<_> = config.warnings().into_iter().filter(|w| w.path.starts_with("destinations.")).collect();
        assert_eq!(vain, [], "{}", file.display());
    }
    // Whoever adds a type shows it there.
    let all: BTreeSet<_> = source::TYPES.iter().map(|kind| kind.name.to_owned()).collect();
    assert_eq!(types, all);
}

/// The types of the sources of a configuration.
fn types_of_sources(text: &str) -> Vec<String> {
    let table: toml::Table = text.parse().expect("TOML");
    let sources = table.get("sources").and_then(toml::Value::as_table).into_iter().flatten();
    sources.map(|(_, source)| source["type"].as_str().expect("a type").to_owned()).collect()
}

/// What the examples name below `/etc/forebay`.
fn files_that_examples_name(etc: &Path) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["gateway".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    for (name, text) in [
        ("gateway.pem", &*certificate),
        ("gateway.key", &*key.serialize_pem()),
        ("devices-ca.pem", &*certificate),
        ("devices", "anna:secret\n"),
        ("tokens", "f00d\n"),
        ("ca.pem", &*certificate),
        ("proxy.password", "secret\n"),
    ] {
        std::fs::write(etc.join(name), text).expect("written");
    }
}

/// Whoever adds a key shows it there too.
#[test]
fn the_complete_example_shows_every_key() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/complete.toml");
    let text = std::fs::read_to_string(file).expect("the example");
    let section_of = |header: &str| {
        let (_, rest) = text.split_once(&format!("\n[{header}]\n")).expect("the section");
        rest.split_once("\n[").map_or(rest, |(section, _)| section)
    };
    for (header, keys) in [
        ("agent", keys_of::<agent::Config>()),
        ("api", keys_of::<api::Config>()),
        ("log", keys_of::<log::Config>()),
        ("streams.telemetry", keys_of::<stream::Config>()),
        ("sources.devices", keys_of::<source::mqtt_broker::Config>()),
        ("sources.plant", keys_of::<source::mqtt::Config>()),
        ("sources.plant", keys_of::<source::SharedConfig>()),
        ("sources.plant", keys_of::<source::shape::Config>()),
        ("links.lte", keys_of::<crate::links::Config>()),
        ("destinations.cloud", keys_of::<destination::kinesis::Config>()),
        ("destinations.cloud", keys_of::<destination::aws::Config>()),
        ("destinations.cloud", keys_of::<crate::outgoing::Config>()),
        ("destinations.cloud", keys_of::<delivery::Config>()),
    ] {
        assert!(!keys.is_empty(), "{header}");
        for key in keys {
            let shown = |line: &str| line.trim_start_matches("# ").starts_with(&format!("{key} = "));
            assert!(section_of(header).lines().any(shown), "[{header}] does not show `{key}`");
        }
    }
}

#[test]
fn the_readme_shows_a_configuration_that_works() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).expect("README.md");
    let blocks: Vec<_> = readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        Config::parse(block).unwrap_or_else(|error| panic!("{error}\n{block}"));
    }
}

#[test]
fn so_do_the_pages_about_letters_and_credentials() {
    let etc = tempfile::tempdir().expect("a directory");
    files_that_examples_name(etc.path());
    for page in [include_str!("../../../docs/dead-letters.md"), include_str!("../../../docs/credentials.md")] {
        let page = page.replace("/etc/forebay", &etc.path().display().to_string());
        let block = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
        Config::parse(block).unwrap_or_else(|error| panic!("{error}\n{block}"));
    }
}
