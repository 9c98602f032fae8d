//! The keys that every source's table may have, as they are written.

use std::collections::BTreeMap;

use forebay_log_store::Tag;
use serde::Deserialize;

use super::{Shape, Steps, decode, field::Field, filter, project::Projection, thin, timestamp};
use crate::{
    config::{Problems, key_path},
    record_tags::RESERVED,
};

/// The keys that every source's table may have.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// What payloads are: they become JSON.
    pub decode: Option<decode::Config>,
    /// What becomes of a payload that is not what `decode`, or a step that looks into it, says it is.
    pub on_undecodable: Option<OnUndecodable>,
    /// Where a record has its own time.
    pub timestamp: Option<timestamp::Config>,
    /// Which records are wanted.
    pub filter: Option<filter::Config>,
    /// Which of many are taken.
    pub sample: Option<thin::SampleConfig>,
    /// Which were there already.
    pub deduplicate: Option<thin::DeduplicateConfig>,
    /// The fields that stay: names of members, or JSON pointers.
    pub select: Option<Vec<String>>,
    /// New names of fields, by their name or JSON pointer.
    pub rename: BTreeMap<String, String>,
    /// Tags that each record gets.
    pub tags: BTreeMap<String, String>,
    /// Whether the data is put into an object that says where it comes from.
    pub envelope: bool,
}

/// What becomes of a payload that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnUndecodable {
    /// It is stored as it came, with the tag `undecodable`.
    Keep,
    /// It is counted, told and dropped.
    Drop,
}

impl Config {
    /// Notes everything that is wrong; what comes back is to be used only if nothing was.
    #[must_use]
    pub fn validate(&self, path: &str, problems: &mut Problems) -> Option<Shape> {
        let before = problems.list().len();
        let at = |key: &str| format!("{path}.{key}");
        let mut steps = Steps {
            decode: self.decode.as_ref().and_then(|decode| decode.validate(&at("decode"), problems)),
            keep_undecodable: self.on_undecodable != Some(OnUndecodable::Drop),
            timestamp: self.timestamp.as_ref().and_then(|time| time.validate(&at("timestamp"), problems)),
            filter: self.filter.as_ref().and_then(|filter| filter.validate(&at("filter"), problems)),
            sample: self.sample.as_ref().and_then(|sample| sample.validate(&at("sample"), problems)),
            deduplicate: self.deduplicate.as_ref().and_then(|rule| rule.validate(&at("deduplicate"), problems)),
            project: self.projection(path, problems),
            tags: self.tags.iter().map(|(name, value)| Tag { name: name.clone(), value: value.clone() }).collect(),
            envelope: self.envelope,
        };
        if self.tags.contains_key("") {
            problems.add(key_path(&at("tags"), ""), "a tag needs a name");
        }
        for name in self.tags.keys().filter(|name| name.starts_with(RESERVED)) {
            problems
                .add(key_path(&at("tags"), name), format!("names that begin with `{RESERVED}` are for forebay itself"));
        }
        if self.decode.is_none() && steps.look_inside() {
            steps.decode = Some(decode::Config::json());
        } else if self.decode.is_none() && self.on_undecodable.is_some() {
            problems.add(at("on-undecodable"), "is of no use without `decode`, or a step that looks into records");
        }
        let nothing = steps.is_nothing();
        (problems.list().len() == before).then(|| Shape::of((!nothing).then_some(steps)))
    }

    fn projection(&self, path: &str, problems: &mut Problems) -> Option<Projection> {
        if self.select.is_none() && self.rename.is_empty() {
            return None;
        }
        let mut projection = Projection::new(self.select.is_some());
        if self.select.as_ref().is_some_and(Vec::is_empty) {
            problems.add(format!("{path}.select"), "must not be empty: nothing would be left of a record");
        }
        for (index, text) in self.select.iter().flatten().enumerate() {
            match Field::parse(text) {
                Ok(field) => projection.select(&field),
                Err(why) => problems.add(format!("{path}.select[{index}]"), why),
            }
        }
        let mut wrong = |text: &str, why: String| problems.add(key_path(&format!("{path}.rename"), text), why);
        for (text, name) in &self.rename {
            match Field::parse(text) {
                Ok(field) if !projection.keeps(&field) => wrong(text, "is not among what `select` leaves".into()),
                Ok(field) => {
                    if let Err(why) = projection.rename(&field, name) {
                        wrong(text, why);
                    }
                }
                Err(why) => wrong(text, why),
            }
        }
        Some(projection)
    }
}

impl Steps {
    fn is_nothing(&self) -> bool {
        let Self { decode, keep_undecodable: _, timestamp, filter, sample, deduplicate, project, tags, envelope } =
            self;
        let none = decode.is_none() && timestamp.is_none() && filter.is_none() && project.is_none();
        none && sample.is_none() && deduplicate.is_none() && tags.is_empty() && !envelope
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reader;

    fn read(toml: &str) -> (Option<Shape>, Vec<String>) {
        let mut problems = Problems::default();
        let config: Option<Config> = reader::read(toml.parse().expect(toml), "s", &["type"], &mut problems);
        let shape = config.and_then(|config| config.validate("s", &mut problems));
        (shape, problems.list().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn without_keys_there_is_nothing_to_do() {
        let (shape, problems) = read("");
        assert!(problems.is_empty() && shape.is_some_and(|shape| shape.is_nothing()));
        for toml in ["envelope = true", "tags = { a = 'b' }", "decode = 'json'", "sample = { every = 2 }"] {
            let (shape, problems) = read(toml);
            assert!(problems.is_empty() && shape.is_some_and(|shape| !shape.is_nothing()), "{toml}");
        }
    }

    #[test]
    fn every_mistake_is_told_with_its_key() {
        let (shape, told) = read(
            "decode = 'xml'\nselect = ['', '/~', 'temp']\nrename = { humidity = 'h', temp = 't', '/temp' = 'x', '' = 'y' }\n\
             tags = { '' = 'x' }\nenvelope = 'yes'\nfilter = { field = 'a' }\nsample = {}\n\
             deduplicate = {}\ntimestamp = { format = 'x' }\non-undecodable = 'ignore'\nfilters = 1",
        );
        assert!(shape.is_none());
        for key in [
            "decode: must be one of",
            "select[0]: must not be empty",
            "select[1]: `/~`",
            "rename.humidity: is not among",
            "rename.\"\": must not be empty",
            "tags.\"\": a tag",
            "envelope: must be",
            "filter: says nothing about",
            "sample: needs either",
            "deduplicate.window: missing",
            "timestamp.field: missing",
            "timestamp.format: must be",
            "on-undecodable: must be `keep` or `drop`",
            "filters: unknown key, did you mean `filter`?",
        ] {
            assert_eq!(
                told.iter().filter(|told| told.starts_with(&format!("s.{key}"))).count(),
                1,
                "{key} in {told:#?}"
            );
        }
        assert_eq!(told.len(), 14, "{told:#?}");
        assert_eq!(read("rename = { a = 'x', b = 'x' }").1.len(), 1);
        assert_eq!(read("select = []").1.len(), 1);
        assert_eq!(read("on-undecodable = 'drop'").1.len(), 1);
        assert_eq!(read("on-undecodable = 'drop'\nselect = ['a']").1.len(), 0);
    }
}
