//! Users and passwords of a listener: read from a file of `user:password` lines, compared in constant time, never printed.

use std::{collections::HashMap, fmt, hint::black_box, path::Path};

/// Who may connect.
#[derive(Clone, Default)]
pub struct Credentials(HashMap<String, String>);

impl Credentials {
    /// Reads a file of `user:password` lines; empty lines and lines that begin with `#` are passed over.
    ///
    /// # Errors
    /// A sentence fragment with the file, and the line if it is one's fault; never a password.
    pub fn from_file(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        Self::parse(&text).map_err(|message| format!("{}: {message}", file.display()))
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let number = number + 1;
            let (user, password) = line.split_once(':').ok_or(format!("line {number} is not `user:password`"))?;
            if user.is_empty() || password.is_empty() {
                return Err(format!("line {number} has an empty user or password"));
            }
            if users.insert(user.to_owned(), password.to_owned()).is_some() {
                return Err(format!("line {number} names user `{user}` again"));
            }
        }
        if users.is_empty() {
            return Err("it names no user".to_owned());
        }
        Ok(Self(users))
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is the password of this user. Takes as long whether or not it is, and whether or not there is one.
    pub(in crate::source) fn hold(&self, user: &str, password: &[u8]) -> bool {
        let known = self.0.get(user);
        let expected = known.map_or(&b""[..], |password| password.as_bytes());
        equal(password, expected) & known.is_some()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "*** ({} users)", self.0.len())
    }
}

/// Equality in a time that depends on the length of what the client `gave` and on nothing else.
fn equal(gave: &[u8], expected: &[u8]) -> bool {
    let mut difference = u8::from(gave.len() != expected.len());
    for (i, byte) in gave.iter().enumerate() {
        difference |= byte ^ black_box(expected.get(i).copied().unwrap_or(0));
    }
    black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_file_is_read() {
        let credentials = Credentials::parse("# gateway 7\nanna:a:b \n\nbob:x\r\n").expect("two users");
        assert!(credentials.hold("anna", b"a:b "), "a password may hold colons and blanks");
        assert!(credentials.hold("bob", b"x"), "a line end of either kind is no part of it");
        for (user, password) in [("anna", "a:b"), ("anna", ""), ("bob", "xx"), ("bob", "y"), ("carl", ""), ("", "")] {
            assert!(!credentials.hold(user, password.as_bytes()), "{user}:{password}");
        }
    }

    #[test]
    fn mistakes_are_told_with_their_line_and_without_the_password() {
        for (text, message) in [
            ("", "it names no user"),
            ("a:b\nhunter2", "line 2 is not `user:password`"),
            ("a:", "line 1 has an empty user or password"),
            (":b", "line 1 has an empty user or password"),
            ("a:b\na:c", "line 2 names user `a` again"),
        ] {
            assert_eq!(Credentials::parse(text).expect_err("a mistake"), message);
        }
        assert!(Credentials::from_file(Path::new("/nowhere/users")).expect_err("none").contains("/nowhere/users"));
    }

    #[test]
    fn passwords_are_not_printed() {
        assert_eq!(format!("{:?}", Credentials::parse("a:hunter2").expect("one user")), "*** (1 users)");
    }
}
