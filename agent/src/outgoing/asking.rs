//! Requests, and what becomes of a connection on which one was given up: no other request goes over it.
//!
//! With HTTP/1 it is closed, as the answer might still come. With HTTP/2, a request that nobody waits for any more ends
//! nothing but itself, and all others would go on to wait on a connection that hangs.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::{
    Request, Response,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
};
use hyper_util::client::legacy::{
    Client, Error,
    connect::{CaptureConnection, capture_connection},
};

use super::Connector;

/// Sends a request once.
///
/// # Cancel safety
/// Dropped before there is an answer, or with an answer whose body was not read to its end, it takes its connection out of
/// use. Requests that are under way on it go on.
///
/// # Errors
/// There is no answer.
pub async fn ask<B>(client: &Client<Connector, B>, mut request: Request<B>) -> Result<Response<Answer>, Error>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let mut waiting = Waiting(Some(capture_connection(&mut request)));
    let answered = client.request(request).await;
    if answered.is_err() {
        waiting.is_over();
    }
    Ok(answered?.map(|body| Answer::new(body, waiting)))
}

/// The body of an answer.
#[derive(Debug)]
pub struct Answer {
    body: Incoming,
    waiting: Waiting,
}

impl Answer {
    fn new(body: Incoming, mut waiting: Waiting) -> Self {
        if body.is_end_stream() {
            waiting.is_over();
        }
        Self { body, waiting }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) || self.body.is_end_stream() {
            self.waiting.is_over();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Somebody waits for what comes over a connection.
#[derive(Debug)]
struct Waiting(Option<CaptureConnection>);

impl Waiting {
    fn is_over(&mut self) {
        self.0 = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(connection) = &self.0
            && let Some(connection) = &*connection.connection_metadata()
        {
            connection.poison();
        }
    }
}
