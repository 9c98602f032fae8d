//! Users and passwords of a listener: read from a file of `user:password` lines, compared in constant time, never printed.
//!
//! A password stands there as `mosquitto_passwd` writes it: `$7$ITERATIONS$SALT$HASH`, which is PBKDF2 with HMAC-SHA-512, salt and
//! hash in base64; or, of older versions of it, `$6$SALT$HASH`, the SHA-512 of password and salt. `forebay mqtt-password` makes the
//! former. A line with the password itself is taken, too.

use std::{collections::HashMap, fmt, hint::black_box, num::NonZeroU32, path::Path};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ring::{
    digest, pbkdf2,
    rand::{SecureRandom as _, SystemRandom},
};

/// A hash that takes some 30 ms on a Raspberry Pi 4: a hundred times what `mosquitto_passwd` asks for, and a thousand
/// devices that come back after a power cut are still let in within half a minute.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(10_000).expect("not zero");

/// Half a minute on a slow machine; a larger number is a slip.
const ITERATIONS_MAX: u32 = 10_000_000;

/// What mosquitto 2.0 writes and wants.
const SALT_BYTES: usize = 12;

/// A whole SHA-512.
const HASH_BYTES: usize = digest::SHA512_OUTPUT_LEN;

/// Who may connect.
#[derive(Clone, Default)]
pub struct Credentials(HashMap<String, Password>);

/// A password, or what is known of it.
#[derive(Clone)]
enum Password {
    Plain(String),
    Pbkdf2 { iterations: NonZeroU32, salt: Vec<u8>, hash: Vec<u8> },
    Sha512 { salt: Vec<u8>, hash: Vec<u8> },
}

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
            let password = Password::parse(password).map_err(|message| format!("line {number} {message}"))?;
            if users.insert(user.to_owned(), password).is_some() {
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

    /// Number of users whose password can be read in the file.
    #[must_use]
    pub fn readable(&self) -> usize {
        self.0.values().filter(|password| matches!(password, Password::Plain(_))).count()
    }

    /// Whether this is the password of this user. Takes as long whether or not it is, and whether or not there is one.
    /// Blocks for as long as the file's hashes ask for.
    pub(in crate::source) fn hold(&self, user: &str, password: &[u8]) -> bool {
        let known = self.0.get(user);
        // For somebody who is not there, another one's password is compared: that takes as long.
        let expected = known.or_else(|| self.0.values().next());
        expected.is_some_and(|expected| expected.is(password)) & known.is_some()
    }
}

impl Password {
    /// # Errors
    /// A sentence fragment to follow "line 3".
    fn parse(text: &str) -> Result<Self, &'static str> {
        const BROKEN: &str = "has a password hash that is none; `forebay mqtt-password` makes one";
        let bytes = |text: &str| BASE64_STANDARD.decode(text).map_err(|_| BROKEN);
        let fields: Vec<_> = text.split('$').collect();
        let (password, hash_bytes) = match fields[..] {
            ["", "7", iterations, salt, hash] => {
                let iterations = iterations.parse::<NonZeroU32>().map_err(|_| BROKEN)?;
                if iterations.get() > ITERATIONS_MAX {
                    return Err("has a password hash of over 10,000,000 iterations, for which nobody would wait");
                }
                let hash = bytes(hash)?;
                let length = hash.len();
                (Self::Pbkdf2 { iterations, salt: bytes(salt)?, hash }, length)
            }
            ["", "6", salt, hash] => {
                let hash = bytes(hash)?;
                let length = hash.len();
                (Self::Sha512 { salt: bytes(salt)?, hash }, length)
            }
            ["", "6" | "7", ..] => return Err(BROKEN),
            _ if text.starts_with("$argon2") => {
                return Err("has an argon2 hash, which is not known here; `forebay mqtt-password` makes one that is");
            }
            _ => return Ok(Self::Plain(text.to_owned())),
        };
        if hash_bytes == HASH_BYTES { Ok(password) } else { Err(BROKEN) }
    }

    fn is(&self, gave: &[u8]) -> bool {
        match self {
            Self::Plain(password) => equal(gave, password.as_bytes()),
            Self::Pbkdf2 { iterations, salt, hash } => {
                pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA512, *iterations, salt, gave, hash).is_ok()
            }
            Self::Sha512 { salt, hash } => {
                let mut context = digest::Context::new(&digest::SHA512);
                context.update(gave);
                context.update(salt);
                equal(context.finish().as_ref(), hash)
            }
        }
    }
}

/// Makes the line of a password file.
///
/// # Errors
/// A sentence fragment: the user's name cannot stand in a line, or the system has no random numbers.
pub fn password_line(user: &str, password: &[u8], iterations: NonZeroU32) -> Result<String, String> {
    if user.is_empty() || user.starts_with('#') || user.contains([':', '\n', '\r', '\0']) {
        return Err(format!("`{user}` cannot be a user: no colon, no line end, no # in front"));
    }
    if password.is_empty() {
        return Err("the password is empty".to_owned());
    }
    let mut salt = [0; SALT_BYTES];
    SystemRandom::new().fill(&mut salt).map_err(|_| "the system gives no random numbers".to_owned())?;
    let mut hash = [0; HASH_BYTES];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, iterations, &salt, password, &mut hash);
    Ok(format!("{user}:$7${iterations}${}${}", BASE64_STANDARD.encode(salt), BASE64_STANDARD.encode(hash)))
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
        assert_eq!(credentials.readable(), 2);
    }

    #[test]
    fn hashes_are_compared() {
        let line = password_line("anna", b"secret", NonZeroU32::new(3).expect("not zero")).expect("a line");
        assert!(line.starts_with("anna:$7$3$"), "{line}");
        // Of `mosquitto_passwd -b -c` of mosquitto 2.0.11, and the SHA-512 of "secret" and the salt "salt".
        let older = {
            let hash = digest::digest(&digest::SHA512, b"secretsalt");
            format!("carl:$6${}${}", BASE64_STANDARD.encode("salt"), BASE64_STANDARD.encode(hash))
        };
        let credentials = Credentials::parse(&format!("{line}\n{older}\n")).expect("two users");
        for user in ["anna", "carl"] {
            assert!(credentials.hold(user, b"secret"), "{user}");
            for password in ["", "Secret", "secret2", "secretsalt"] {
                assert!(!credentials.hold(user, password.as_bytes()), "{user}: {password}");
            }
        }
        assert!(!credentials.hold("bob", b"secret"), "another one's password");
        assert_eq!(credentials.readable(), 0);
    }

    #[test]
    fn no_line_is_made_that_would_be_read_otherwise() {
        for user in ["", "a:b", "#a", "a\nb"] {
            assert!(password_line(user, b"x", ITERATIONS).is_err(), "{user:?}");
        }
        assert!(password_line("a", b"", ITERATIONS).is_err());
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
        for broken in
            ["$7$101$c2FsdA==$aGFzaA==", "$7$0$c2FsdA==$aGFzaA==", "$7$x", "$6$a", "$7$9999999999$a$b", "$argon2id$x"]
        {
            let message = Credentials::parse(&format!("a:{broken}")).expect_err(broken);
            assert!(message.starts_with("line 1 has a") && !message.contains(broken), "{message}");
        }
        assert!(Credentials::from_file(Path::new("/nowhere/users")).expect_err("none").contains("/nowhere/users"));
    }

    #[test]
    fn passwords_are_not_printed() {
        assert_eq!(format!("{:?}", Credentials::parse("a:hunter2").expect("one user")), "*** (1 users)");
    }
}
