//! Lines of web servers' logs as JSON: the Common Log Format, and the Combined one of Apache httpd and nginx.
//!
//! Names and values as Amazon Kinesis Agent's LOGTOJSON has them: texts, null for a dash, what follows is left out.
//! <https://httpd.apache.org/docs/current/logs.html#accesslog>

use super::super::project::push_string;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Format {
    Common,
    Combined,
}

impl Format {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Common => "common-log",
            Self::Combined => "combined-log",
        }
    }

    /// The error is a sentence fragment.
    pub(super) fn decode(self, line: &[u8]) -> Result<String, String> {
        let line = std::str::from_utf8(line).map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to()))?;
        let mut rest = Rest(line);
        let mut out = String::from("{");
        for name in ["host", "ident", "authuser"] {
            push(name, rest.word(name)?, &mut out);
        }
        push("datetime", rest.enclosed("datetime", '[', ']')?, &mut out);
        push("request", rest.enclosed("request", '"', '"')?, &mut out);
        for name in ["response", "bytes"] {
            let word = rest.word(name)?;
            if word != "-" && !word.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(format!("`{name}` is no number"));
            }
            push(name, word, &mut out);
        }
        if self == Self::Combined {
            for name in ["referer", "agent"] {
                push(name, rest.enclosed(name, '"', '"')?, &mut out);
            }
        }
        out.push('}');
        Ok(out)
    }
}

fn push(name: &str, value: &str, out: &mut String) {
    if out.len() > 1 {
        out.push(',');
    }
    push_string(name, out);
    out.push(':');
    if value == "-" { out.push_str("null") } else { push_string(value, out) }
}

/// What is left of a line.
struct Rest<'l>(&'l str);

impl<'l> Rest<'l> {
    fn word(&mut self, name: &str) -> Result<&'l str, String> {
        let (word, rest) = self.0.split_once(' ').unwrap_or((self.0, ""));
        if word.is_empty() {
            return Err(format!("there is no `{name}`"));
        }
        self.0 = rest;
        Ok(word)
    }

    /// What stands between two characters; a backslash before the second one takes its meaning away.
    fn enclosed(&mut self, name: &str, open: char, close: char) -> Result<&'l str, String> {
        let none = || format!("there is no `{name}` between {open} and {close}");
        let inner = self.0.strip_prefix(open).ok_or_else(none)?;
        let mut escaped = false;
        let end = inner.find(|c| {
            let ends = c == close && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let end = end.ok_or_else(none)?;
        let rest = &inner[end + 1..];
        self.0 = rest.strip_prefix(' ').unwrap_or(rest);
        Ok(&inner[..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the documentation of Apache httpd.
    const COMBINED: &str = r#"127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /apache_pb.gif HTTP/1.0" 200 2326 "http://www.example.com/start.html" "Mozilla/4.08 [en] (Win98; I ;Nav)""#;

    #[test]
    fn lines_become_what_kinesis_agent_makes_of_them() {
        let common = r#"{"host":"127.0.0.1","ident":null,"authuser":"frank","datetime":"10/Oct/2000:13:55:36 -0700","request":"GET /apache_pb.gif HTTP/1.0","response":"200","bytes":"2326""#;
        assert_eq!(Format::Common.decode(COMBINED.as_bytes()), Ok(format!("{common}}}")));
        let combined = r#","referer":"http://www.example.com/start.html","agent":"Mozilla/4.08 [en] (Win98; I ;Nav)"}"#;
        assert_eq!(Format::Combined.decode(COMBINED.as_bytes()), Ok(format!("{common}{combined}")));
    }

    #[test]
    fn dashes_and_escaped_quotes_are_understood() {
        let line = r#"::1 - - [10/Oct/2000:13:55:36 -0700] "GET /\"x\" \\" 304 - "-" "-""#;
        let told = r#"{"host":"::1","ident":null,"authuser":null,"datetime":"10/Oct/2000:13:55:36 -0700","request":"GET /\\\"x\\\" \\\\","response":"304","bytes":null,"referer":null,"agent":null}"#;
        assert_eq!(Format::Combined.decode(line.as_bytes()).as_deref(), Ok(told));
    }

    #[test]
    fn another_line_is_refused() {
        for line in [
            "",
            "hello",
            "a b c d e f g",
            r#"h - - [t] "r" x 1"#,
            r#"h - - [t "r" 200 1"#,
            r#"h - - [t] "r\" 200 1"#,
            r#"h - - [t] "r" 200"#,
        ] {
            assert!(Format::Common.decode(line.as_bytes()).is_err(), "{line}");
        }
        assert!(Format::Combined.decode(br#"h - - [t] "r" 200 1"#).is_err());
    }
}
