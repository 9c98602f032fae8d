//! HTTP CONNECT: a tunnel through an HTTP proxy.
//!
//! hyper-util has this too, but keeps the proxy's status to itself: whether it forbids us or cannot reach the endpoint is
//! what a person needs to know.

use std::io;

use hyper::http::{HeaderValue, Uri, header::PROXY_AUTHORIZATION};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{error::ProxyTrouble, stream::Counted};

/// A proxy that says more before it connects us is none.
const HEAD_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;

/// Has the proxy at the other end of `socket` connect us with `destination`, whose port is written out.
pub(super) async fn through(
    mut socket: Counted,
    destination: &Uri,
    authorization: Option<&HeaderValue>,
) -> Result<Counted, ProxyTrouble> {
    let to = destination.authority().map(ToString::to_string).unwrap_or_default();
    let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n").into_bytes();
    if let Some(authorization) = authorization {
        let name = PROXY_AUTHORIZATION;
        request.extend_from_slice(format!("{name}: ").as_bytes());
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");

    socket.write_all(&request).await.map_err(|error| broken(&error))?;
    let mut head = Vec::new();
    loop {
        // The other end does not speak before we do: nothing behind the head is lost.
        if socket.read_buf(&mut head).await.map_err(|error| broken(&error))? == 0 {
            return Err(ProxyTrouble::Nonsense("it closed the connection".to_owned()));
        }
        match answer(&head)? {
            Some(Answer::Connected) => return Ok(socket),
            Some(Answer::WantsCredentials) if authorization.is_some() => return Err(ProxyTrouble::RefusesCredentials),
            Some(Answer::WantsCredentials) => return Err(ProxyTrouble::WantsCredentials),
            Some(Answer::Refused(status)) => return Err(ProxyTrouble::Refused(status)),
            None if head.len() > HEAD_MAX => return Err(ProxyTrouble::Nonsense("its answer has no end".to_owned())),
            None => {}
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Connected,
    WantsCredentials,
    Refused(String),
}

/// What a proxy said, as soon as it has said all of it.
fn answer(head: &[u8]) -> Result<Option<Answer>, ProxyTrouble> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let complete = response.parse(head).map_err(|error| ProxyTrouble::Nonsense(error.to_string()))?.is_complete();
    let (true, Some(status)) = (complete, response.code) else { return Ok(None) };
    Ok(Some(match status {
        200..=299 => Answer::Connected,
        407 => Answer::WantsCredentials,
        _ => Answer::Refused(format!("{status} {}", response.reason.unwrap_or_default()).trim_end().to_owned()),
    }))
}

fn broken(error: &io::Error) -> ProxyTrouble {
    ProxyTrouble::Nonsense(error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let said = |text: &str| answer(text.as_bytes()).expect("an answer");
        assert_eq!(said("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n"), Some(Answer::Connected));
        assert_eq!(said("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"), Some(Answer::WantsCredentials));
        let forbidden = Answer::Refused("403 Forbidden".to_owned());
        assert_eq!(said("HTTP/1.0 403 Forbidden\r\nContent-Type: text/html\r\n\r\n<html>"), Some(forbidden));
        assert_eq!(said("HTTP/1.1 200 Connection esta"), None);
        answer(b"SSH-2.0-OpenSSH_9.2\r\n").expect_err("no HTTP");
    }

    proptest! {
        #[test]
        fn nothing_that_comes_is_fatal(bytes: Vec<u8>) {
            let _ = answer(&bytes);
        }
    }
}
