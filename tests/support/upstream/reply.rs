//! How the upstream may answer a request.

use std::time::Duration;

use super::shards::Shard;

/// One answer, or the lack of one.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Every record is taken; the shards are listed.
    Accept,
    /// These are listed as the shards.
    Listed(Vec<Shard>),
    /// The records at these places in the request are throttled, the others taken.
    Throttle(Vec<usize>),
    /// The records at these places fail inside the service, the others are taken.
    Fail(Vec<usize>),
    /// The whole request is refused with an error of the service; nothing is taken.
    Error { status: u16, code: &'static str },
    /// The same, with words that matter.
    Saying { code: &'static str, message: &'static str },
    /// A page such as a proxy or a captive portal would send, or with a status of 3xx the way to it; nothing is taken.
    Html { status: u16 },
    /// Success without a body; nothing is taken.
    Empty,
    /// The connection is closed in good order without an answer; nothing is taken.
    Close,
    /// The connection is reset; nothing is taken.
    Reset,
    /// Every record is taken, but the connection is reset before the answer.
    AcceptThenReset,
    /// Nothing is taken and nothing is ever answered.
    Hang,
    /// Every record is taken, but nothing is ever answered.
    AcceptThenHang,
    /// A reply that comes late.
    After(Duration, Box<Reply>),
}

impl Reply {
    /// The service itself fails.
    pub(crate) fn server_error() -> Self {
        Self::Error { status: 500, code: "InternalFailure" }
    }

    /// The whole request is throttled.
    pub(crate) fn throttle_all() -> Self {
        Self::Error { status: 400, code: "ProvisionedThroughputExceededException" }
    }

    /// The service finds the request invalid.
    pub(crate) fn validation() -> Self {
        Self::Error { status: 400, code: "ValidationException" }
    }

    /// The credentials are not valid.
    pub(crate) fn unauthorised() -> Self {
        Self::Error { status: 400, code: "UnrecognizedClientException" }
    }

    /// There is no such stream.
    pub(crate) fn no_such_stream() -> Self {
        Self::Error { status: 400, code: "ResourceNotFoundException" }
    }
}
