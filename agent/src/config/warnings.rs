//! Warnings: what can be done, but is hardly meant. None of it keeps a gateway from coming up.

use std::fmt;

use forebay_log_store::Durability;

use super::{Config, Destination, Problem, Problems, duration, key_path};
use crate::{
    delivery::{self, CatchUp},
    links::WhenSpent,
};

impl Config {
    /// What can be done, but is hardly meant: keys without effect, or with none that anybody wants.
    #[must_use]
    pub fn warnings(&self) -> Vec<Problem> {
        self.warnings_beside(&Problems::default())
    }

    /// The same of a configuration with problems. What rests on a table in which something could not be read is left out: it
    /// would be said of a default.
    pub(super) fn warnings_beside(&self, problems: &Problems) -> Vec<Problem> {
        let is_read = |section: &str, name: &str| !problems.holds_unread(&key_path(section, name));
        let mut warnings = Vec::new();
        // Which destinations there are is known only if there is nothing wrong with any.
        if !problems.list().iter().any(|problem| problem.path.starts_with("destinations")) {
            warnings.extend(self.of_streams().filter(|(name, _)| is_read("streams", name)).map(|(_, warning)| warning));
            warnings.extend(self.of_unused_links());
            warnings.extend(self.of_same_places());
            warnings
                .extend(self.of_priorities().filter(|(name, _)| is_read("links", name)).map(|(_, warning)| warning));
        }
        for (name, source) in self.sources.iter().filter(|(name, _)| is_read("sources", name)) {
            let path = key_path("sources", name);
            warnings.extend(source.settings.warnings().into_iter().map(|warning| at(&path, warning)));
        }
        for (name, link) in self.links.iter().filter(|(name, _)| is_read("links", name)) {
            let path = key_path("links", name);
            warnings.extend(link.warnings().into_iter().map(|warning| at(&path, warning)));
        }
        for name in self.destinations.keys().filter(|name| is_read("destinations", name)) {
            warnings.extend(self.of_destination(name, is_read("streams", &self.destinations[name].from)));
        }
        warnings
    }

    fn of_streams(&self) -> impl Iterator<Item = (&str, Problem)> {
        self.streams.iter().filter_map(|(name, stream)| match stream.durability {
            Durability::MemoryFirst { spill_after, .. } if stream.consumers.is_empty() => Some((
                name.as_str(),
                Problem {
                    path: format!("{}.durability", key_path("streams", name)),
                    message: format!(
                        "\"memory-first\" without a destination that takes from the stream only delays: every record waits \
                         for {} and is then written all the same",
                        duration::show(spill_after)
                    ),
                },
            )),
            _ => None,
        })
    }

    /// Destinations that take a stream to where another one takes it already.
    fn of_same_places(&self) -> impl Iterator<Item = Problem> {
        self.destinations.iter().enumerate().filter_map(|(place, (name, destination))| {
            let is_same = |other: &Destination| {
                other.from == destination.from && other.settings.is_same_place(&destination.settings)
            };
            let (other, _) = self.destinations.iter().take(place).find(|(_, other)| is_same(other))?;
            let message = format!(
                "takes stream `{}` to the same place as destination `{other}`: each record arrives there twice",
                destination.from
            );
            Some(Problem { path: key_path("destinations", name), message })
        })
    }

    fn of_unused_links(&self) -> impl Iterator<Item = Problem> {
        self.links.keys().filter(|name| self.priority_over(name).is_none()).map(|name| Problem {
            path: key_path("links", name),
            message: format!("no destination says `link = \"{name}\"`: it limits nothing"),
        })
    }

    /// Links whose budget, once spent, lets none go on although some are to.
    fn of_priorities(&self) -> impl Iterator<Item = (&str, Problem)> {
        self.links.iter().filter_map(|(name, link)| {
            let WhenSpent::OnlyPriority(least) = link.when_spent else { return None };
            let highest = self.priority_over(name).filter(|highest| *highest < least)?;
            let why = format!(
                "no destination over it has such a priority, the highest is {highest}: then all wait, as with \"wait\""
            );
            Some((name.as_str(), Problem { path: format!("{}.when-spent", key_path("links", name)), message: why }))
        })
    }

    /// The highest priority over a link, if there is a destination.
    fn priority_over(&self, link: &str) -> Option<u8> {
        let over_it = self.destinations.values().filter(|to| to.delivery.link.as_deref() == Some(link));
        over_it.map(|to| to.delivery.priority).max()
    }

    fn of_destination(&self, name: &str, stream_is_read: bool) -> Vec<Problem> {
        let destination = &self.destinations[name];
        let delivery = &destination.delivery;
        let mut warnings = [destination.settings.warnings(), delivery.warnings()].concat();
        let (most, why) = destination.settings.request_records();
        // A leap to what is new goes by it, too.
        let only_of_requests = delivery.catch_up == CatchUp::OldestFirst;
        let is_default = delivery.batch_records == delivery::Config::default().batch_records;
        if delivery.batch_records > most && only_of_requests && !is_default {
            warnings.push(("batch-records", format!("without effect above {most}: {why}")));
        }
        // A stream that holds what is undelivered lets it get older than its retention.
        if let Some(age) = delivery.max_age
            && let Some(stream) = self.streams.get(&destination.from).filter(|_| stream_is_read)
            && age > stream.retention
            && !stream.hold_undelivered
        {
            let (retention, from) = (duration::show(stream.retention), &destination.from);
            let why = format!(
                "longer than stream `{from}` keeps what is undelivered (retention {retention}, hold-undelivered = false): \
                 only what is in memory by then gets as old"
            );
            warnings.push(("max-age", why));
        }
        let path = key_path("destinations", name);
        warnings.into_iter().map(|warning| at(&path, warning)).collect()
    }
}

fn at(path: &str, (key, message): (impl fmt::Display, String)) -> Problem {
    Problem { path: format!("{path}.{key}"), message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Error;

    /// A gateway with one destination, and these keys in its stream and its destination.
    fn warnings(stream: &str, destination: &str) -> Vec<String> {
        let text = format!(
            "data-dir = \"data\"\n[streams.telemetry]\n{stream}\n[destinations.cloud]\nfrom = \"telemetry\"\n{destination}"
        );
        let config = Config::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        config.warnings().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_without_effect_is_told_by_its_key() {
        const KINESIS: &str = "type = \"kinesis\"\nstream = \"s\"\nregion = \"eu-west-1\"\n";
        const FIREHOSE: &str = "type = \"firehose\"\nstream = \"s\"\nregion = \"eu-west-1\"\n";
        const HTTP: &str = "type = \"http\"\nurl = \"http://127.0.0.1:1/\"\n";
        const CARELESS: &str = "hold-undelivered = false";
        let no_aggregates = "without effect: aggregation = \"none\" makes no aggregates";
        let no_shards = "without effect: shards are asked for only with aggregation = \"kpl\"";
        let too_old = "longer than stream `telemetry` keeps what is undelivered (retention 24h, hold-undelivered = false): \
                       only what is in memory by then gets as old";
        for (stream, kind, keys, expected) in [
            ("", KINESIS, "", vec![]),
            ("", HTTP, "", vec![]),
            (
                "",
                KINESIS,
                "batch-records = 501",
                vec![("batch-records", "without effect above 500: PutRecords takes no more")],
            ),
            ("", KINESIS, "batch-records = 500", vec![]),
            (
                "",
                KINESIS,
                "window-bytes = 8388608\nbatch-bytes = 500",
                vec![(
                    "batch-bytes",
                    "requests of 500 B are headers for the most part, as they are below 4.0 KiB: without a unit, a size is bytes",
                )],
            ),
            (
                "",
                FIREHOSE,
                "batch-records = 1000",
                vec![("batch-records", "without effect above 500: PutRecordBatch takes no more")],
            ),
            (
                "",
                HTTP,
                "batch-records = 9",
                vec![(
                    "batch-records",
                    "without effect above 8: all records of one of the `lanes` count as one; `batch-bytes` makes requests \
                     smaller",
                )],
            ),
            ("", HTTP, "batch-records = 9\nlanes = 9", vec![]),
            ("", HTTP, "batch-records = 9\ncatch-up = \"split\"", vec![]),
            (
                "",
                KINESIS,
                "aggregate-bytes = \"250kB\"\nshard-refresh = \"10m\"",
                vec![("aggregate-bytes", no_aggregates), ("shard-refresh", no_shards)],
            ),
            (
                "",
                KINESIS,
                "aggregation = \"lines\"\naggregate-bytes = \"9kB\"\nshard-refresh = \"10m\"",
                vec![("shard-refresh", no_shards)],
            ),
            ("", KINESIS, "aggregation = \"kpl\"\naggregate-bytes = \"9kB\"\nshard-refresh = \"10m\"", vec![]),
            (
                "",
                FIREHOSE,
                "aggregate-bytes = \"9kB\"\naggregate-lanes = 4",
                vec![("aggregate-bytes", no_aggregates), ("aggregate-lanes", no_aggregates)],
            ),
            ("", FIREHOSE, "aggregation = \"lines\"\naggregate-bytes = \"9kB\"\naggregate-lanes = 4", vec![]),
            (CARELESS, KINESIS, "max-age = \"25h\"", vec![("max-age", too_old)]),
            (CARELESS, KINESIS, "max-age = \"24h\"", vec![]),
            ("", KINESIS, "max-age = \"25h\"", vec![]),
        ] {
            let expected: Vec<_> =
                expected.into_iter().map(|(key, why)| format!("destinations.cloud.{key}: {why}")).collect();
            assert_eq!(warnings(stream, &format!("{kind}{keys}")), expected, "{keys}");
        }
    }

    const WHOLE: &str = "data-dir = 'data'\n[streams.a]\n[links.lte]\nwhen-spent = { only-priority = 5 }\n\
        daily-budget = '50MB'\n[destinations.cloud]\ntype = 'kinesis'\nfrom = 'a'\nstream = 's'\nregion = 'eu-west-1'\nlink = 'lte'\n";

    #[test]
    fn a_priority_that_nobody_over_the_link_has_is_told() {
        let of = |text: &str| {
            let config = Config::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            config.warnings().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let told = "links.lte.when-spent: no destination over it has such a priority, the highest is 4: then all wait, as with \
                    \"wait\"";
        assert_eq!(of(&format!("{WHOLE}priority = 4")), [told]);
        assert_eq!(of(&format!("{WHOLE}priority = 5")), [""; 0]);
        let nobody = "links.lte: no destination says `link = \"lte\"`: it limits nothing";
        assert_eq!(of(&WHOLE.replace("link = 'lte'\n", "")), [nobody]);
    }

    #[test]
    fn two_destinations_that_do_the_same_are_told() {
        const KINESIS: &str = "type = 'kinesis'\nstream = 's'\nregion = 'eu-west-1'\n";
        const HTTP: &str = "type = 'http'\nurl = 'http://127.0.0.1:1/'\n";
        let told = |one: &str, other: &str| {
            let other = format!("{one}\n[destinations.other]\nfrom = 'telemetry'\n{other}");
            warnings("", &other)
        };
        let same = "destinations.other: takes stream `telemetry` to the same place as destination `cloud`: each record arrives \
                    there twice";
        assert_eq!(told(KINESIS, &format!("{KINESIS}ordering = 'relaxed'")), [same]);
        assert_eq!(told(HTTP, &format!("{HTTP}lanes = 2")), [same]);
        let firehose = KINESIS.replace("kinesis", "firehose");
        assert_eq!(told(&firehose, &firehose), [same]);
        for (one, other) in [
            (KINESIS, &*firehose),
            (KINESIS, &*KINESIS.replace("'s'", "'t'")),
            (KINESIS, &*KINESIS.replace("eu-west-1", "eu-west-2")),
            // Another account may have a stream of that name.
            (KINESIS, &*format!("{KINESIS}credentials = 'placeholder'")),
            (HTTP, &*HTTP.replace("/'", "/b'")),
            (HTTP, &*format!("{HTTP}common-attributes = {{ site = 'b' }}")),
        ] {
            assert_eq!(told(one, other), [""; 0], "{other}");
        }
        let of_letters = format!("{KINESIS}[destinations.letters]\nfrom = 'dead-letter.cloud'\n{KINESIS}");
        assert_eq!(warnings("", &of_letters), [""; 0]);
    }

    /// All that is told of a configuration that cannot be: problems, and then warnings.
    fn told(text: &str) -> Vec<String> {
        let Err(Error::Problems { problems, warnings }) = Config::parse(text) else { panic!("it has none: {text}") };
        let path = |told: &Problem| told.path.clone();
        problems.iter().chain(&warnings).map(path).collect()
    }

    #[test]
    fn warnings_are_told_beside_problems() {
        let text = format!("{WHOLE}aggregate-bytes = '9kB'\nbatch-records = 501\nin-flight = 0");
        assert_eq!(
            told(&text),
            ["destinations.cloud.in-flight", "destinations.cloud.aggregate-bytes", "destinations.cloud.batch-records"]
        );
        let text = format!("{WHOLE}batch-records = 501\n[streams.b]\nshards = 0");
        assert_eq!(told(&text), ["streams.b.shards", "links.lte.when-spent", "destinations.cloud.batch-records"]);
    }

    #[test]
    fn nothing_is_said_of_the_default_of_what_could_not_be_read() {
        // It would have aggregates, and perhaps another link or priority.
        let text = format!("{WHOLE}aggregate-bytes = '9kB'\naggregation = 'klp'\nbatch-records = 501");
        assert_eq!(told(&text), ["destinations.cloud.aggregation"]);
        let text = format!("{WHOLE}priority = 'high'\n[destinations.more]\ntype = 'http'");
        let found = told(&text);
        assert!(!found.iter().any(|path| path.starts_with("links")), "{found:?}");
        let text = format!("{WHOLE}priority = 5\nmax-age = '25h'")
            .replace("[streams.a]\n", "[streams.a]\nhold-undelivred = false\n");
        assert_eq!(told(&text), ["streams.a.hold-undelivred"]);
    }
}
