//! Partition-key templates: how a source makes a record's partition key out of what it knows about it.
//!
//! `{source}`, `{topic}`, `{topic[N]}` (N-th level, from 0), `{json:/pointer}` (RFC 6901, into the record's data), names that the
//! type of source knows, such as `{client-id}` or `{port}`, and constants, in any combination; `{{` and `}}` stand for braces.
//! Pure. Every key it makes is one that the log takes.
//! It does not decide what becomes of a record that cannot fill its template: see `SourceContext::key_for`.

use std::fmt::Write as _;

use forebay_log_store::{HashKey, PARTITION_KEY_CHARS_MAX};

use super::json_pointer::JsonPointer;

/// What remains of a key that is too long: with the dash and 32 hexadecimal digits, exactly the longest key.
const SHORTENED_CHARS: usize = PARTITION_KEY_CHARS_MAX - 33;

/// Told whenever a placeholder is not understood.
const KNOWN: &str =
    "{source}, {topic}, {topic[N]}, {json:/pointer} and what the type of source knows; {{ and }} stand for braces";

/// What only some types of sources know of a record; each type says which.
pub const PLACEHOLDERS: [&str; 10] =
    ["client-id", "device", "file", "host", "path", "port", "sensor", "topic", "unit", "user"];

/// What a source knows about a record.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fields<'a> {
    /// Name of the source.
    pub source: &'a str,
    /// What this type of source knows, by the names of [`PLACEHOLDERS`].
    pub named: &'a [(&'static str, &'a str)],
    /// The record's data.
    pub payload: &'a [u8],
    /// Where in its file the record begins, if it is from one.
    pub byte: Option<u64>,
}

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.named.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionKeyTemplate {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Constant(String),
    Source,
    Named(&'static str),
    TopicLevel(usize),
    Json(JsonPointer),
}

/// What is wrong with a template, or why a record could not fill it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(pub String);

/// How a key came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rendered {
    /// As the template says.
    Whole,
    /// Over 256 characters, so shortened.
    Shortened,
}

impl PartitionKeyTemplate {
    /// Parses a template.
    ///
    /// # Errors
    /// Unknown placeholder, unbalanced braces, nothing at all.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut constant = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            constant.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                constant.push_str(brace);
                rest = after;
            } else if brace == "}" {
                return Err(TemplateError(format!("`}}` without `{{` in `{text}`; known are {KNOWN}")));
            } else {
                let Some((name, after)) = rest.split_once('}') else {
                    return Err(TemplateError(format!("`{{{rest}` has no closing brace; known are {KNOWN}")));
                };
                if !constant.is_empty() {
                    parts.push(Part::Constant(std::mem::take(&mut constant)));
                }
                parts.push(Part::parse(name)?);
                rest = after;
            }
        }
        constant.push_str(rest);
        if !constant.is_empty() {
            parts.push(Part::Constant(constant));
        }
        if parts.is_empty() {
            return Err(TemplateError("a partition key cannot be empty".into()));
        }
        Ok(Self { parts })
    }

    /// The first placeholder that a source which knows only `known` can never fill.
    #[must_use]
    pub fn unknown_among(&self, known: &[&str]) -> Option<&'static str> {
        self.parts.iter().find_map(|part| {
            let name = match part {
                Part::Named(name) => *name,
                Part::TopicLevel(_) => "topic",
                Part::Constant(_) | Part::Source | Part::Json(_) => return None,
            };
            (!known.contains(&name)).then_some(name)
        })
    }

    /// Writes the record's key to `out` (cleared first): 1 to 256 characters.
    ///
    /// A key over 256 characters is shortened to its first 223 characters, a dash and the MD5 of the whole in hex, so that
    /// equal keys stay equal and different ones different; `Ok(Rendered::Shortened)` says so, for the source to count.
    ///
    /// # Errors
    /// A placeholder that this record cannot fill (not JSON, no such member, too few topic levels), or a key that came
    /// out empty.
    pub fn render(&self, fields: &Fields<'_>, out: &mut String) -> Result<Rendered, TemplateError> {
        out.clear();
        for part in &self.parts {
            part.render(fields, out)?;
        }
        if out.is_empty() {
            return Err(TemplateError("the partition key came out empty".into()));
        }
        Ok(shorten(out))
    }
}

/// Makes a key that is too long fit, so that equal keys stay equal and different ones different.
pub(crate) fn shorten(key: &mut String) -> Rendered {
    // Bytes are no fewer than characters, so nearly every key is done here.
    if key.len() <= PARTITION_KEY_CHARS_MAX || key.chars().count() <= PARTITION_KEY_CHARS_MAX {
        return Rendered::Whole;
    }
    let whole = HashKey::of(key).0;
    let (cut, _) = key.char_indices().nth(SHORTENED_CHARS).expect("it has more than 256 characters");
    key.truncate(cut);
    write!(key, "-{whole:032x}").expect("a String takes any text");
    Rendered::Shortened
}

impl Part {
    fn parse(name: &str) -> Result<Self, TemplateError> {
        let unknown = |why: &str| TemplateError(format!("`{{{name}}}` {why}; known are {KNOWN}"));
        if let Some(pointer) = name.strip_prefix("json:") {
            return JsonPointer::parse(pointer).map(Self::Json).map_err(|why| unknown(&why));
        }
        if let Some(level) = name.strip_prefix("topic[") {
            let level = level.strip_suffix(']').and_then(|level| level.parse().ok());
            return level.map(Self::TopicLevel).ok_or_else(|| unknown("needs a level number from 0 in its brackets"));
        }
        if name == "source" {
            return Ok(Self::Source);
        }
        let named = PLACEHOLDERS.iter().find(|known| **known == name);
        named.map(|name| Self::Named(name)).ok_or_else(|| unknown("is not a placeholder"))
    }

    fn render(&self, fields: &Fields<'_>, out: &mut String) -> Result<(), TemplateError> {
        let named = |name| fields.get(name).ok_or_else(|| TemplateError(format!("the record has no {name}")));
        match self {
            Self::Constant(text) => out.push_str(text),
            Self::Source => out.push_str(fields.source),
            Self::Named(name) => out.push_str(named(name)?),
            Self::TopicLevel(level) => {
                let topic = named("topic")?;
                let level = topic.split('/').nth(*level);
                out.push_str(level.ok_or_else(|| TemplateError(format!("topic `{topic}` has no level for `{self}`")))?);
            }
            Self::Json(pointer) => pointer
                .write_scalar(fields.payload, out)
                .map_err(|why| TemplateError(format!("the payload cannot fill `{self}`: {why}")))?,
        }
        Ok(())
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Constant(text) => f.write_str(text),
            Self::Source => f.write_str("{source}"),
            Self::Named(name) => write!(f, "{{{name}}}"),
            Self::TopicLevel(level) => write!(f, "{{topic[{level}]}}"),
            Self::Json(pointer) => write!(f, "{{json:{pointer}}}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn render(template: &str, topic: &str, payload: &str) -> Result<String, String> {
        let template = PartitionKeyTemplate::parse(template).map_err(|error| error.0)?;
        let fields = Fields {
            source: "plant",
            named: &[("topic", topic), ("client-id", "gateway-7")],
            payload: payload.as_bytes(),
            byte: None,
        };
        let mut out = "left over".to_owned();
        template.render(&fields, &mut out).map_err(|error| error.0)?;
        Ok(out)
    }

    #[test]
    fn placeholders_and_constants_are_filled_in_order() {
        for (template, key) in [
            ("{topic}", "plant/7/temp"),
            ("{topic[0]}", "plant"),
            ("{topic[2]}-{topic[1]}", "temp-7"),
            ("{client-id}", "gateway-7"),
            ("{source}", "plant"),
            ("constant", "constant"),
            ("a{{{topic[1]}}}b", "a{7}b"),
            ("{{}}", "{}"),
            ("{json:/device/id}", "dev-1"),
            ("{json:/n}/{json:/on}", "1.50/true"),
            ("gw {client-id} ä {topic}", "gw gateway-7 ä plant/7/temp"),
        ] {
            let payload = r#"{"device":{"id":"dev-1"},"n":1.50,"on":true}"#;
            assert_eq!(render(template, "plant/7/temp", payload).as_deref(), Ok(key), "{template}");
        }
    }

    #[test]
    fn a_mistaken_template_names_what_is_wrong_and_what_is_known() {
        for (template, told) in [
            ("{topik}", "`{topik}` is not a placeholder"),
            ("a{}", "`{}` is not a placeholder"),
            ("{topic[x]}", "`{topic[x]}` needs a level number"),
            ("{topic[1}", "`{topic[1}` needs a level number"),
            ("{topic[-1]}", "needs a level number"),
            ("{json:device}", "`{json:device}` needs a JSON pointer"),
            ("{json:/a~2}", "`{json:/a~2}`"),
            ("{topic", "`{topic` has no closing brace"),
            ("topic}", "`}` without `{`"),
        ] {
            let error = PartitionKeyTemplate::parse(template).expect_err(template).0;
            assert!(error.contains(told), "{template}: {error}");
            assert!(error.contains(KNOWN), "{template}: {error}");
        }
        assert!(PartitionKeyTemplate::parse("").is_err());
    }

    #[test]
    fn a_record_that_cannot_fill_a_placeholder_is_refused() {
        for (template, payload, told) in [
            ("{topic[3]}", "", "has no level for `{topic[3]}`"),
            ("{json:/a}", "no json", "the payload cannot fill `{json:/a}`"),
            ("{json:/b}", r#"{"a":1}"#, "nothing there"),
            ("{json:/a}", r#"{"a":null}"#, "null"),
            ("{json:/a}", r#"{"a":{}}"#, "an object"),
            ("{json:/a}", r#"{"a":[1]}"#, "an array"),
            ("{json:/a}", r#"{"a":""}"#, "came out empty"),
        ] {
            let error = render(template, "plant/7/temp", payload).expect_err(template);
            assert!(error.contains(told), "{template}: {error}");
        }
        let template = PartitionKeyTemplate::parse("{topic}").expect("known");
        template.render(&Fields::default(), &mut String::new()).expect_err("no topic");
    }

    #[test]
    fn what_a_source_does_not_know_is_found_beforehand() {
        let unknown = |template: &str, known: &[&str]| {
            PartitionKeyTemplate::parse(template).expect(template).unknown_among(known)
        };
        assert_eq!(unknown("{source}-{json:/a}", &[]), None);
        assert_eq!(unknown("{topic[1]}", &["port"]), Some("topic"));
        assert_eq!(unknown("{port}{host}", &["port"]), Some("host"));
        assert_eq!(unknown("{port}", &["port"]), None);
    }

    #[test]
    fn a_key_over_256_characters_keeps_its_beginning_and_gets_its_md5() {
        let at_most = "ä".repeat(256);
        assert_eq!(render("{topic}", &at_most, "").as_deref(), Ok(&*at_most));
        let key = render("{topic}", &"ä".repeat(257), "").expect("shortened");
        assert_eq!(key.chars().count(), 256);
        // By md5sum, of 257 times ä in UTF-8.
        assert_eq!(key, format!("{}-9ed17ab0234139775e58954fb254e1fd", "ä".repeat(223)));
        assert_ne!(render("{topic}", &"ä".repeat(258), ""), Ok(key));
    }

    proptest! {
        #[test]
        fn every_key_is_one_the_log_takes(
            template in "([a-zäß€]{0,300}|\\{topic\\}|\\{topic\\[[0-3]\\]\\}|\\{client-id\\}|\\{json:/[ab]\\}){0,4}",
            topic in "[a-z/ä𝄞]{0,300}",
            payload in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..50),
                "\\{\"a\":(\"[a-zß]{0,300}\"|[0-9]{1,9}|true|null)\\}".prop_map(String::into_bytes),
            ],
        ) {
            let Ok(template) = PartitionKeyTemplate::parse(&template) else { return Ok(()) };
            let fields = Fields {
                source: "plant",
                named: &[("topic", &topic), ("client-id", "gateway-7")],
                payload: &payload,
                byte: None,
            };
            let (mut key, mut again) = (String::new(), "else".to_owned());
            let rendered = template.render(&fields, &mut key);
            prop_assert_eq!(&rendered, &template.render(&fields, &mut again));
            if rendered.is_ok() {
                prop_assert_eq!(&key, &again);
                prop_assert!((1..=256).contains(&key.chars().count()), "{} characters", key.chars().count());
            }
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "[{}a-z\\[\\]:/~0-9]{0,30}") {
            let _ = PartitionKeyTemplate::parse(&text);
        }

        #[test]
        fn escaped_braces_come_out_as_they_were_meant(text in "[{}a-z]{1,50}") {
            let escaped = text.replace('{', "{{").replace('}', "}}");
            prop_assert_eq!(render(&escaped, "", ""), Ok(text));
        }

        #[test]
        fn long_keys_are_equal_only_if_they_were(a in "[ab]{250,270}", b in "[ab]{250,270}") {
            let (mut short_a, mut short_b) = (a.clone(), b.clone());
            shorten(&mut short_a);
            shorten(&mut short_b);
            prop_assert_eq!(a == b, short_a == short_b);
        }
    }
}
