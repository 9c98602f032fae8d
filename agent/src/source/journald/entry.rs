//! One entry of the journal, as `journalctl --output=json` writes it in a line. Pure.
//!
//! <https://systemd.io/JOURNAL_EXPORT_FORMATS/#journal-json-format>: a field is a string, null where it is too large, an array of
//! numbers where it is no text, or an array of these where it occurs more than once.

use std::borrow::Cow;

use memchr::memmem;
use serde::{Deserialize, Deserializer, de::IgnoredAny};

/// What a record needs of an entry.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Entry<'a> {
    #[serde(rename = "__CURSOR", borrow)]
    pub(super) cursor: Cow<'a, str>,
    #[serde(rename = "_SYSTEMD_UNIT", borrow, default, deserialize_with = "text")]
    systemd_unit: Option<Cow<'a, str>>,
    #[serde(rename = "SYSLOG_IDENTIFIER", borrow, default, deserialize_with = "text")]
    identifier: Option<Cow<'a, str>>,
    #[serde(rename = "_HOSTNAME", borrow, default, deserialize_with = "text")]
    pub(super) host: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Field<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Other(IgnoredAny),
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'de, str>>, D::Error> {
    Ok(match Field::deserialize(deserializer)? {
        Field::Text(text) => Some(text),
        Field::Other(_) => None,
    })
}

impl<'a> Entry<'a> {
    /// Reads a line.
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }

    /// The unit, or whatever else is known of who wrote it.
    pub(super) fn unit(&self) -> Option<&str> {
        self.systemd_unit.as_deref().or(self.identifier.as_deref())
    }
}

/// The cursor of a line of which only the beginning is there.
pub(super) fn cursor_of_beginning(line: &[u8]) -> Option<&str> {
    let behind = |text: &'static [u8], bytes: &'_ [u8]| memmem::find(bytes, text).map(|at| at + text.len());
    let at = behind(b"\"__CURSOR\"", line)?;
    let rest = &line[at..];
    let value = &rest[behind(b"\"", rest)?..];
    std::str::from_utf8(&value[..memchr::memchr(b'"', value)?]).ok()
}

/// For fuzzing: a line, whole or its beginning.
#[cfg(any(test, fuzzing))]
pub fn fuzz(bytes: &[u8]) {
    let _ = cursor_of_beginning(bytes);
    if let Ok(entry) = Entry::parse(bytes) {
        let _ = entry.unit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_tells_who_wrote_it() {
        let line =
            br#"{"__CURSOR":"s=1;i=2","_HOSTNAME":"gw","_SYSTEMD_UNIT":"ssh.service","MESSAGE":[255,1],"X":null}"#;
        let entry = Entry::parse(line).expect("JSON");
        assert_eq!((&*entry.cursor, entry.unit(), entry.host.as_deref()), ("s=1;i=2", Some("ssh.service"), Some("gw")));
        let entry = br#"{"SYSLOG_IDENTIFIER":"a\"b","_SYSTEMD_UNIT":["a","b"],"_HOSTNAME":null,"__CURSOR":"c"}"#;
        let entry = Entry::parse(entry).expect("JSON");
        assert_eq!((&*entry.cursor, entry.unit(), entry.host.as_deref()), ("c", Some("a\"b"), None));
        assert!(Entry::parse(br#"{"MESSAGE":"without a cursor"}"#).is_err());
        assert!(Entry::parse(b"-- No entries --").is_err());
    }

    #[test]
    fn a_line_that_is_cut_off_may_still_have_its_cursor() {
        assert_eq!(cursor_of_beginning(br#"{"MESSAGE":"x","__CURSOR" : "s=1;i=2","A":"ba"#), Some("s=1;i=2"));
        assert_eq!(cursor_of_beginning(br#"{"__CURSOR":"s=1;i"#), None);
        assert_eq!(cursor_of_beginning(b"garbage"), None);
    }
}
