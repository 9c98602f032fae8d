//! Who may send: whoever shows a token, or a user's password. Where neither is asked for, whoever can reach the listener, but for web
//! pages, which can make a browser send to it.

use std::{fmt, path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, HOST, ORIGIN},
};
use tokio::sync::Semaphore;

use super::answer::Refusal;
use crate::source::mqtt_broker::Credentials;

/// Decides who may send.
#[derive(Clone)]
pub(super) struct Access {
    tokens: Vec<Vec<u8>>,
    credentials: Arc<Credentials>,
    /// Hashes of passwords are meant to take time: one after the other is enough for everybody but who guesses them.
    turn: Arc<Semaphore>,
    /// Whether only loopback can be asked for, when nobody has to show anything.
    loopback: bool,
}

/// Who sends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sender {
    pub(super) user: Option<String>,
}

impl Access {
    pub(super) fn new(tokens: Vec<Vec<u8>>, credentials: Credentials, loopback: bool) -> Self {
        Self { tokens, credentials: Arc::new(credentials), turn: Arc::new(Semaphore::new(1)), loopback }
    }

    fn asks_for_nothing(&self) -> bool {
        self.tokens.is_empty() && self.credentials.is_empty()
    }

    /// What a stranger is told to show.
    pub(super) fn schemes(&self) -> Vec<&'static str> {
        let bearer = (!self.tokens.is_empty()).then_some("Bearer");
        let basic = (!self.credentials.is_empty()).then_some("Basic realm=\"forebay\", charset=\"UTF-8\"");
        bearer.into_iter().chain(basic).collect()
    }

    /// Lets a request in, or says why not.
    pub(super) async fn decide(&self, headers: &HeaderMap) -> Result<Sender, Refusal> {
        if self.asks_for_nothing() {
            return self.decide_for_anybody(headers);
        }
        let Some(given) = headers.get(AUTHORIZATION) else {
            return Err(unauthorized("a token or a password is needed"));
        };
        let (scheme, shown) = given.to_str().ok().and_then(|given| given.trim().split_once(' ')).unwrap_or_default();
        let shown = shown.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            // All of them, so that the time does not tell which it was.
            let known = self.tokens.iter().fold(false, |known, token| known | same(shown.as_bytes(), token));
            return if known { Ok(Sender::default()) } else { Err(unauthorized("the token is none of those")) };
        }
        if scheme.eq_ignore_ascii_case("basic") && !self.credentials.is_empty() {
            let user = self.user(shown).await;
            return user
                .map(|user| Sender { user: Some(user) })
                .ok_or_else(|| unauthorized("the user or the password is wrong"));
        }
        Err(unauthorized("what is shown is not understood"))
    }

    /// The user, if the password is right.
    async fn user(&self, shown: &str) -> Option<String> {
        let text = String::from_utf8(STANDARD.decode(shown).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        let (user, password) = (user.to_owned(), password.to_owned());
        let _turn = self.turn.acquire().await.ok()?;
        let credentials = Arc::clone(&self.credentials);
        let check = move || credentials.hold(&user, password.as_bytes()).then_some(user);
        tokio::task::spawn_blocking(check).await.ok()?
    }

    fn decide_for_anybody(&self, headers: &HeaderMap) -> Result<Sender, Refusal> {
        let refused = |why: &str| Err(Refusal::new(StatusCode::FORBIDDEN, "unauthorized", why));
        if headers.contains_key(ORIGIN) {
            return refused("web pages may only send here with a token or a password");
        }
        let host = headers.get(HOST).map(|host| host.to_str().unwrap_or_default());
        if self.loopback && !host.is_none_or(crate::api::is_loopback) {
            return refused(
                "without a token-file or password-file, only requests to localhost or a loopback address are taken",
            );
        }
        Ok(Sender::default())
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens, {:?}", self.tokens.len(), self.credentials)
    }
}

fn unauthorized(why: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", why)
}

/// Reads a file of tokens, one per line; empty lines and lines that begin with `#` are passed over.
///
/// # Errors
/// A sentence fragment with the file; never a token.
pub(super) fn tokens(file: &Path) -> Result<Vec<Vec<u8>>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let mut tokens = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        if !line.bytes().all(|byte| byte.is_ascii_graphic()) {
            let file = file.display();
            return Err(format!("{file}: line {number}: a token has no blanks and no letters outside ASCII"));
        }
        tokens.push(line.as_bytes().to_vec());
    }
    if tokens.is_empty() {
        return Err(format!("{} holds no token", file.display()));
    }
    Ok(tokens)
}

/// Equality in a time that depends on the lengths alone.
fn same(given: &[u8], expected: &[u8]) -> bool {
    let difference = given.iter().zip(expected).fold(0, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0 && given.len() == expected.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(given: &[(hyper::header::HeaderName, &str)]) -> HeaderMap {
        given.iter().map(|(name, value)| (name.clone(), value.parse().expect("a header"))).collect()
    }

    async fn outcome(access: &Access, given: &[(hyper::header::HeaderName, &str)]) -> Result<Option<String>, u16> {
        let outcome = access.decide(&headers(given)).await;
        outcome.map(|sender| sender.user).map_err(|refusal| refusal.code.as_u16())
    }

    #[tokio::test]
    async fn a_token_or_a_password_lets_in() {
        let dir = tempfile::tempdir().expect("a directory");
        let users = dir.path().join("users");
        std::fs::write(&users, "anna:a:b\n").expect("written");
        let credentials = Credentials::from_file(&users).expect("a user");
        let access = Access::new(vec![b"one".to_vec(), b"two".to_vec()], credentials, false);
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(outcome(&access, &[(AUTHORIZATION, "Bearer one")]).await, Ok(None));
        assert_eq!(outcome(&access, &[(AUTHORIZATION, "bearer  two")]).await, Ok(None));
        assert_eq!(
            outcome(&access, &[(AUTHORIZATION, &basic("anna:a:b")), (ORIGIN, "x")]).await,
            Ok(Some("anna".into()))
        );
        let wrong =
            ["Bearer", "Bearer ", "Bearer on", "Bearer onee", "one", "Basic one", &basic("anna:x"), &basic("bob:a:b")];
        for wrong in wrong {
            assert_eq!(outcome(&access, &[(AUTHORIZATION, wrong)]).await, Err(401), "{wrong}");
        }
        assert_eq!(outcome(&access, &[]).await, Err(401));
        assert_eq!(access.schemes().len(), 2);
        assert_eq!(format!("{access:?}"), "2 tokens, *** (1 users)");
    }

    #[tokio::test]
    async fn without_either_pages_are_kept_out() {
        let access = Access::new(Vec::new(), Credentials::default(), true);
        assert_eq!(outcome(&access, &[(HOST, "localhost:8088")]).await, Ok(None));
        assert_eq!(outcome(&access, &[(HOST, "localhost"), (ORIGIN, "http://evil.example")]).await, Err(403));
        assert_eq!(outcome(&access, &[(HOST, "evil.example")]).await, Err(403));
        let open = Access::new(Vec::new(), Credentials::default(), false);
        assert_eq!(outcome(&open, &[(HOST, "gateway.example")]).await, Ok(None));
        assert_eq!(outcome(&open, &[(HOST, "gateway.example"), (ORIGIN, "http://evil.example")]).await, Err(403));
    }

    #[test]
    fn a_token_file_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("tokens");
        for (text, expected) in
            [("# of the app\nabc\n\ndef\n", Ok(2)), ("\n# none\n", Err("holds no token")), ("a b", Err("line 1"))]
        {
            std::fs::write(&file, text).expect("written");
            match (tokens(&file), expected) {
                (Ok(found), Ok(count)) => assert_eq!(found.len(), count),
                (Err(message), Err(part)) => assert!(message.contains(part) && !message.contains("a b"), "{message}"),
                (found, _) => panic!("{text:?}: {found:?}"),
            }
        }
        assert!(tokens(Path::new("/nowhere/tokens")).expect_err("none").contains("/nowhere/tokens"));
    }
}
