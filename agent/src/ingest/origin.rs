//! Where a record came from, in words for a person who has to find it.

use std::fmt;

use super::Fields;

/// Of a name or a topic, so many characters are told.
const VALUE_CHARS_MAX: usize = 200;

/// What is known of where a record came from: `topic "plant/7", client-id "press"`, or `file "/var/log/app.log", byte 4711`.
///
/// Values come from outside, and so are written with their control characters escaped, and not beyond 200 characters. Where nothing
/// is known but the source, it is the source's name.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    source: &'a str,
    named: &'a [(&'static str, &'a str)],
    byte: Option<u64>,
}

impl<'a> Origin<'a> {
    /// Of what a source of this name knows.
    #[must_use]
    pub fn new(source: &'a str, named: &'a [(&'static str, &'a str)]) -> Self {
        Self { source, named, byte: None }
    }

    /// The same, that far behind the beginning of its file.
    #[must_use]
    pub fn at_byte(self, byte: Option<u64>) -> Self {
        Self { byte, ..self }
    }
}

impl Fields<'_> {
    /// Where the record came from.
    #[must_use]
    pub fn origin(&self) -> Origin<'_> {
        Origin::new(self.source, self.named).at_byte(self.byte)
    }
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, value) in self.named.iter().filter(|(_, value)| !value.is_empty()) {
            let end = value.char_indices().nth(VALUE_CHARS_MAX).map(|(end, _)| end);
            write!(f, "{separator}{name} {:?}", &value[..end.unwrap_or(value.len())])?;
            if end.is_some() {
                f.write_str("...")?;
            }
            separator = ", ";
        }
        match self.byte {
            Some(byte) => write!(f, "{separator}byte {byte}"),
            None if separator.is_empty() => f.write_str(self.source),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_is_known_and_no_more_than_a_line_has_room_for() {
        let told = |named: &[(&'static str, &str)], byte| Origin::new("plant", named).at_byte(byte).to_string();
        assert_eq!(
            told(&[("topic", "plant/7"), ("client-id", "press")], None),
            r#"topic "plant/7", client-id "press""#
        );
        assert_eq!(told(&[("file", "/var/log/a b.log")], Some(4711)), r#"file "/var/log/a b.log", byte 4711"#);
        assert_eq!(told(&[("host", "")], None), "plant");
        assert_eq!(told(&[("topic", "a\n\u{1b}[31mb")], None), r#"topic "a\n\u{1b}[31mb""#);
        let long = told(&[("topic", &"ä".repeat(60_000))], None);
        assert_eq!(long, format!("topic \"{}\"...", "ä".repeat(200)));
    }
}
