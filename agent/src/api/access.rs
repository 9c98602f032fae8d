//! Who may ask: those with the token, and, without one, protection from web pages that make a browser on the gateway ask for them.
//!
//! A page can make a browser send a request to loopback without being allowed to read the answer (so a put must carry a
//! content type that browsers do not send unasked), and can give its own name the address of loopback (so the host that is
//! asked for must be a loopback address or `localhost`).

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{
        StatusCode,
        header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::error::ApiError;
use crate::config::Secret;

/// Decides who may ask.
#[derive(Debug)]
pub struct Access {
    token: Option<Secret>,
}

impl Access {
    /// With a token, only those who show it; without, only those who ask for loopback.
    #[must_use]
    pub fn new(token: Option<Secret>) -> Self {
        Self { token }
    }

    fn decide_on(&self, request: &Request) -> Result<(), ApiError> {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        // HTTP/2 has no Host header; its authority is part of the URI.
        let host = request.uri().authority().map(|authority| authority.as_str()).or_else(|| header(HOST));
        self.decide(header(AUTHORIZATION), host)
    }

    fn decide(&self, authorization: Option<&str>, host: Option<&str>) -> Result<(), ApiError> {
        match (&self.token, authorization) {
            (None, _) if host.is_none_or(is_loopback) => Ok(()),
            (None, _) => Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "without a token-file, only requests to localhost or a loopback address are answered",
            )),
            (Some(_), None) => {
                Err(ApiError::new(StatusCode::UNAUTHORIZED, "a token is needed, as `Authorization: Bearer TOKEN`"))
            }
            (Some(token), Some(given)) => {
                let given = given.strip_prefix("Bearer ").unwrap_or_default();
                if same(given.trim().as_bytes(), token.expose().as_bytes()) {
                    Ok(())
                } else {
                    Err(ApiError::new(StatusCode::UNAUTHORIZED, "the token is not the right one"))
                }
            }
        }
    }
}

/// Somebody without the token, who is told no more than whether the agent is healthy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stranger;

pub(super) async fn check(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    match access.decide_on(&request) {
        Ok(()) => next.run(request).await,
        // Whatever watches over this machine's services has no token.
        Err(_) if request.uri().path() == "/healthz" => {
            request.extensions_mut().insert(Stranger);
            next.run(request).await
        }
        Err(error) => {
            let mut response = error.into_response();
            if response.status() == StatusCode::UNAUTHORIZED {
                let scheme = axum::http::HeaderValue::from_static("Bearer");
                response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            }
            response
        }
    }
}

/// Whether a `Host` header asks for loopback. Nobody can give these names to another machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Equality in a time that depends on the lengths alone.
fn same(given: &[u8], expected: &[u8]) -> bool {
    let difference = given.iter().zip(expected).fold(0, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0 && given.len() == expected.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_a_token_only_the_token_counts() {
        let access = Access::new(Some(Secret::new("s3cret")));
        assert!(access.decide(Some("Bearer s3cret"), Some("gateway.example:4567")).is_ok());
        for wrong in [None, Some(""), Some("Bearer "), Some("Bearer s3cre"), Some("Bearer s3cret2"), Some("s3cret")] {
            let error = access.decide(wrong, Some("localhost")).expect_err("it is wrong");
            assert_eq!(error.into_response().status(), StatusCode::UNAUTHORIZED, "{wrong:?}");
        }
    }

    #[test]
    fn without_a_token_only_loopback_is_asked_for() {
        let access = Access::new(None);
        for host in ["localhost", "LOCALHOST:4567", "127.0.0.1:4567", "127.9.9.9", "[::1]:4567"] {
            assert!(access.decide(None, Some(host)).is_ok(), "{host}");
        }
        assert!(access.decide(None, None).is_ok(), "HTTP/1.0 has no Host");
        for host in ["evil.example", "localhost.evil.example:4567", "10.0.0.1", "127.0.0.1.evil.example", "[::2]", ""] {
            assert!(access.decide(None, Some(host)).is_err(), "{host}");
        }
    }
}
