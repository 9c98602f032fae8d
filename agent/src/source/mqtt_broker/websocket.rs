//! WebSocket as a stream of bytes (MQTT 5, section 6): tungstenite's frames, and what MQTT says about them.
//!
//! Only binary frames, whose borders mean nothing. A message is held until it is whole, so its size is limited.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use futures_util::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{
        Error, Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::{HeaderValue, StatusCode},
        protocol::WebSocketConfig,
    },
};

use super::wire::Wrapped;

/// What clients ask for.
const SUBPROTOCOL: &str = "mqtt";

/// Frames that the client has not taken yet; the connection itself stops reading long before.
const WRITE_BYTES_MAX: usize = 1024 * 1024;

/// Which requests are let through.
#[derive(Debug, Clone, Default)]
pub(super) struct Terms {
    /// Any, if there is none.
    pub(super) path: Option<String>,
    /// Any web page, if there is none. What is no browser says nothing of it.
    pub(super) origins: Option<Vec<String>>,
    /// Largest message.
    pub(super) message_bytes_max: usize,
}

/// Answers a client's request.
///
/// # Errors
/// A sentence fragment: it was no request for WebSocket, or none that is let through.
pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    terms: &Terms,
) -> Result<Box<dyn Wrapped>, String> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(terms.message_bytes_max))
        .max_frame_size(Some(terms.message_bytes_max))
        .read_buffer_size(4096)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BYTES_MAX);
    let mut refusal = None;
    #[expect(clippy::result_large_err, reason = "tungstenite wants it so")]
    let answer = |request: &Request, mut response: Response| match terms.refusal(request) {
        None => {
            response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
            Ok(response)
        }
        Some((status, message)) => {
            let mut answer = ErrorResponse::new(Some(message.clone()));
            *answer.status_mut() = status;
            refusal = Some(message);
            Err(answer)
        }
    };
    match accept_hdr_async_with_config(stream, answer, Some(config)).await {
        Ok(socket) => Ok(Box::new(Socket { socket, rest: Bytes::new() })),
        Err(error) => Err(refusal.unwrap_or_else(|| format!("no WebSocket: {error}"))),
    }
}

impl Terms {
    fn refusal(&self, request: &Request) -> Option<(StatusCode, String)> {
        let path = request.uri().path();
        if self.path.as_deref().is_some_and(|wanted| wanted != path) {
            return Some((StatusCode::NOT_FOUND, format!("nothing is at `{path}`")));
        }
        let origin = request.headers().get("origin");
        if let (Some(allowed), Some(origin)) = (&self.origins, origin)
            && !allowed.iter().any(|allowed| origin == allowed.as_str())
        {
            return Some((StatusCode::FORBIDDEN, format!("web pages of {origin:?} are not let in")));
        }
        let offered =
            request.headers().get_all("sec-websocket-protocol").iter().filter_map(|value| value.to_str().ok());
        if !offered.flat_map(|value| value.split(',')).any(|offered| offered.trim() == SUBPROTOCOL) {
            return Some((StatusCode::BAD_REQUEST, format!("it does not offer the subprotocol `{SUBPROTOCOL}`")));
        }
        None
    }
}

struct Socket<S> {
    socket: WebSocketStream<S>,
    /// Of the message that was read last.
    rest: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                // Answered by tungstenite.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    let message = "it sent a WebSocket text frame, where MQTT has binary ones";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, message)));
                }
                None | Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(in_words(error))),
            }
        }
        let bytes = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..bytes]);
        self.rest.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(in_words)?;
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(&mut self.socket).start_send(message).map_err(in_words)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(in_words)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(in_words)
    }
}

/// The socket's own errors as they are; what the client did wrong as invalid data.
fn in_words(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        // It just went away.
        Error::Protocol(tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            io::ErrorKind::ConnectionReset.into()
        }
        error => io::Error::new(io::ErrorKind::InvalidData, format!("broken WebSocket: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(terms: &Terms, path: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        terms.refusal(&request.body(()).expect("a request")).map(|(status, _)| status.as_u16())
    }

    #[test]
    fn requests_have_to_ask_for_mqtt() {
        let terms = Terms::default();
        let protocol = "sec-websocket-protocol";
        assert_eq!(refused(&terms, "/", &[(protocol, "mqtt")]), None);
        assert_eq!(refused(&terms, "/any", &[(protocol, "mqttv3.1, mqtt"), ("origin", "http://x")]), None);
        assert_eq!(refused(&terms, "/", &[(protocol, "chat")]), Some(400));
        assert_eq!(refused(&terms, "/", &[]), Some(400));
    }

    #[test]
    fn paths_and_web_pages_may_be_named() {
        let terms = Terms {
            path: Some("/mqtt".into()),
            origins: Some(vec!["https://plant.example".into()]),
            ..Terms::default()
        };
        let protocol = ("sec-websocket-protocol", "mqtt");
        assert_eq!(refused(&terms, "/mqtt", &[protocol]), None, "no browser");
        assert_eq!(refused(&terms, "/mqtt?x=1", &[protocol, ("origin", "https://plant.example")]), None);
        assert_eq!(refused(&terms, "/mqtt", &[protocol, ("origin", "https://elsewhere.example")]), Some(403));
        assert_eq!(refused(&terms, "/", &[protocol]), Some(404));
    }
}
