//! Any bytes, as a client's.

use std::num::NonZeroU16;

use bytes::BytesMut;

use super::*;
use crate::source::mqtt_broker::{codec::Limits, session::Unreleased};

pub(super) const LIMITS: Limits =
    Limits { packet_bytes_max: 64 * 1024, receive_max: NonZeroU16::new(500).expect("not zero"), topic_alias_max: 4 };

/// For fuzzing: the first byte says in which pieces the stream comes that follows.
pub fn fuzz(bytes: &[u8]) {
    let Some((piece, stream)) = bytes.split_first() else { return };
    swallow(Codec::new(), stream, usize::from(*piece) + 1);
}

/// Takes anything.
pub(super) struct Anything;

impl Sink for Anything {
    fn store(&mut self, topic: &str, _payload: &[u8], _tags: &[Tag]) -> Result<(), Violation> {
        assert!(!topic.is_empty());
        Ok(())
    }

    fn allows(&mut self, _topic: &str) -> bool {
        true
    }

    fn subscription_refused(&mut self) {}
}

/// Reads a stream that comes in pieces, from the CONNECT on unless the codec has a version, to its end or first mistake.
pub(super) fn swallow(mut codec: Codec, bytes: &[u8], piece: usize) {
    let (mut buffer, mut out) = (BytesMut::new(), BytesMut::new());
    let mut pieces = bytes.chunks(piece);
    // The greeting.
    let mut greeted = codec.version().is_some();
    while !greeted {
        match codec.decode(&mut buffer) {
            Err(_) => return,
            Ok(Some(_)) => greeted = true,
            Ok(None) => match pieces.next() {
                None => return,
                Some(piece) => buffer.extend_from_slice(piece),
            },
        }
    }
    let version = codec.version().expect("it was greeted");
    codec.limit(LIMITS.packet_bytes_max, None);
    let mut protocol = Protocol::new(codec, Session::new(version, LIMITS, Unreleased::new()));
    loop {
        if protocol.advance(&mut buffer, &mut out, &mut Anything).is_err() {
            return;
        }
        assert!(buffer.len() <= LIMITS.packet_bytes_max as usize);
        protocol.session.seal();
        protocol.session.on_durable(&mut out);
        match pieces.next() {
            None => return,
            Some(piece) => buffer.extend_from_slice(piece),
        }
    }
}
