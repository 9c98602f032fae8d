//! Secrets: they come from a file or the environment, never from the configuration itself, and are never printed.

use std::{fmt, fs, path::Path};

use super::Problems;

/// A password or token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret of this text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that has to send or compare it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads what `KEY-file` or `KEY-env` under `path` name; nothing if neither is given.
    ///
    /// A file's last line end is not part of the secret. Problems are noted, and give nothing.
    #[must_use]
    pub fn read(
        path: &str,
        key: &str,
        file: Option<&Path>,
        variable: Option<&str>,
        problems: &mut Problems,
    ) -> Option<Self> {
        match (file, variable) {
            (None, None) => None,
            (Some(_), Some(_)) => {
                problems.add(format!("{path}.{key}-env"), format!("give either this or `{key}-file`, not both"));
                None
            }
            (Some(file), None) => match Self::from_file(file) {
                Ok(secret) => Some(secret),
                Err(message) => {
                    problems.add(format!("{path}.{key}-file"), message);
                    None
                }
            },
            (None, Some(variable)) => match std::env::var(variable) {
                Ok(text) if !text.is_empty() => Some(Self(text)),
                _ => {
                    problems.add(
                        format!("{path}.{key}-env"),
                        format!("the environment variable `{variable}` is not set, or empty"),
                    );
                    None
                }
            },
        }
    }

    /// Reads a file's text without its last line end. The error is a sentence fragment that names the file.
    ///
    /// # Errors
    /// Not readable, not UTF-8, empty.
    pub fn from_file(file: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(format!("{} is empty", file.display()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
    }

    #[test]
    fn a_file_loses_one_line_end() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("token");
        for (text, secret) in [("abc", "abc"), ("abc\n", "abc"), ("abc\r\n", "abc"), ("abc\n\n", "abc\n")] {
            fs::write(&file, text).expect("write");
            assert_eq!(Secret::from_file(&file).expect("secret").expose(), secret);
        }
        fs::write(&file, "\n").expect("write");
        assert_eq!(Secret::from_file(&file), Err(format!("{} is empty", file.display())));
    }

    #[test]
    fn missing_files_variables_and_both_at_once_are_problems() {
        let mut problems = Problems::default();
        let missing = Path::new("/nowhere/token");
        assert_eq!(Secret::read("api", "token", None, None, &mut problems), None);
        assert_eq!(Secret::read("api", "token", Some(missing), None, &mut problems), None);
        assert_eq!(Secret::read("api", "token", None, Some("FOREBAY_TEST_NOT_SET"), &mut problems), None);
        assert_eq!(Secret::read("api", "token", Some(missing), Some("X"), &mut problems), None);
        let found: Vec<_> = problems.list().iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "api.token-file: cannot read /nowhere/token: No such file or directory (os error 2)",
                "api.token-env: the environment variable `FOREBAY_TEST_NOT_SET` is not set, or empty",
                "api.token-env: give either this or `token-file`, not both",
            ]
        );
    }
}
