//! Bodies: read up to a limit, within a time, and unpacked up to the same limit, so that a small body cannot become a large one.

use std::{io::Read, time::Duration};

use http_body_util::BodyExt as _;
use hyper::{
    HeaderMap, Response, StatusCode,
    body::{Body, Bytes, Incoming},
    header::{CONNECTION, CONTENT_ENCODING, EXPECT, HeaderValue},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::answer::Refusal;

/// A body up to this size is simply read; so much may lie in memory for every connection.
pub(super) const SMALL: usize = 64 * 1024;

/// What is read and thrown away of a body that is refused.
const PASSED_OVER_MAX: usize = 32 * 1024 * 1024;

/// And for how long.
const PASS_OVER_PATIENCE: Duration = Duration::from_secs(2);

/// How far zstd may look back: what RFC 8878 (section 3.1.1.1.2) asks every decoder for, and the memory that it takes.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Gzip,
    /// As HTTP has it: in the format of zlib (RFC 9110, section 8.4.1.2).
    Deflate,
    Zstd,
}

impl Packing {
    /// What the headers say.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut given = headers.get_all(CONTENT_ENCODING).iter();
        let (first, more) = (given.next(), given.next());
        let text = first.map_or(Some("identity"), |value| value.to_str().ok()).unwrap_or_default();
        match (&*text.trim().to_ascii_lowercase(), more) {
            ("identity" | "", None) => Ok(Self::None),
            ("gzip" | "x-gzip", None) => Ok(Self::Gzip),
            ("deflate", None) => Ok(Self::Deflate),
            ("zstd", None) => Ok(Self::Zstd),
            _ => {
                let message = format!(
                    "the content encoding `{text}` is not understood; gzip, deflate and zstd are, one at a time"
                );
                Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", message))
            }
        }
    }

    /// Unpacks a body.
    pub(super) fn unpack(self, packed: Bytes, limit: usize) -> Result<Bytes, Refusal> {
        let unpacked = match self {
            Self::None => return Ok(packed),
            Self::Gzip => read(flate2::read::MultiGzDecoder::new(&*packed), limit),
            Self::Deflate => read(flate2::read::ZlibDecoder::new(&*packed), limit),
            Self::Zstd => zstd::stream::read::Decoder::with_buffer(&*packed).and_then(|mut decoder| {
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                read(decoder, limit)
            }),
        };
        let unpacked = unpacked.map_err(|error| {
            Refusal::new(StatusCode::BAD_REQUEST, "malformed", format!("the body cannot be unpacked: {error}"))
        })?;
        if unpacked.len() > limit { Err(too_large(limit)) } else { Ok(unpacked.into()) }
    }
}

/// Reads one byte more than the limit at most.
fn read(from: impl Read, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut into = Vec::new();
    from.take(limit as u64 + 1).read_to_end(&mut into)?;
    Ok(into)
}

/// A body that has come. A large one holds a permit, as long as it is in memory.
pub(super) struct Whole<'a> {
    pub(super) bytes: Bytes,
    pub(super) permit: Option<SemaphorePermit<'a>>,
}

/// A body on its way.
pub(super) struct Coming {
    body: Incoming,
    /// Whether the client waits for leave to send it, which it gets when the reading begins.
    is_held_back: bool,
}

impl Coming {
    pub(super) fn new(headers: &HeaderMap, body: Incoming) -> Self {
        let expects = |expected: &HeaderValue| expected.as_bytes().eq_ignore_ascii_case(b"100-continue");
        Self { body, is_held_back: headers.get(EXPECT).is_some_and(expects) }
    }

    /// Reads it; for a large one, waits for its turn.
    pub(super) async fn collect<'a>(&mut self, limit: usize, turns: &'a Semaphore) -> Result<Whole<'a>, Refusal> {
        if self.body.size_hint().lower() > limit as u64 {
            return Err(too_large(limit));
        }
        self.is_held_back = false;
        let mut bytes = Vec::new();
        let mut permit = None;
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| {
                Refusal::new(StatusCode::BAD_REQUEST, "half-frame", format!("the body broke off: {error}"))
            })?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                return Err(too_large(limit));
            }
            if bytes.len() + data.len() > SMALL && permit.is_none() {
                permit = Some(turns.acquire().await.expect("the semaphore is never closed"));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Whole { bytes: bytes.into(), permit })
    }

    /// Reads what is left of it when its request is refused: many clients look at an answer only once they have sent all, and
    /// would see no more than a broken connection. One that goes on for too long is cut off.
    pub(super) async fn pass_over<T>(mut self, mut answer: Response<T>) -> Response<T> {
        let all = async {
            let mut bytes = 0;
            while let Some(Ok(frame)) = self.body.frame().await {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                if bytes > PASSED_OVER_MAX {
                    return;
                }
            }
        };
        // Who waits for leave to send does not need it any more.
        if !self.is_held_back {
            let _ = timeout(PASS_OVER_PATIENCE, all).await;
        }
        if !self.body.is_end_stream() {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

fn too_large(limit: usize) -> Refusal {
    let message = format!("the body is larger than {limit} bytes, which max-body allows, also when it is unpacked");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "oversize", message)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn headers(encodings: &[&str]) -> HeaderMap {
        encodings.iter().map(|encoding| (CONTENT_ENCODING, encoding.parse().expect("a header"))).collect()
    }

    fn gzip(bytes: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory").into()
    }

    fn zlib(bytes: &[u8]) -> Bytes {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory").into()
    }

    fn zstd(bytes: &[u8]) -> Bytes {
        zstd::encode_all(bytes, 3).expect("memory").into()
    }

    #[test]
    fn one_packing_is_understood() {
        for (encodings, packing) in [
            (&[][..], Packing::None),
            (&["identity"], Packing::None),
            (&["gzip"], Packing::Gzip),
            (&["GZIP"], Packing::Gzip),
            (&["deflate"], Packing::Deflate),
            (&["zstd"], Packing::Zstd),
        ] {
            assert_eq!(Packing::of(&headers(encodings)).ok(), Some(packing), "{encodings:?}");
        }
        for encodings in [&["br"][..], &["gzip, zstd"], &["gzip", "gzip"]] {
            let refusal = Packing::of(&headers(encodings)).expect_err("not understood");
            assert_eq!(refusal.code, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
    }

    #[test]
    fn what_was_packed_comes_out_up_to_the_limit() {
        let body = vec![b'x'; 1000];
        let pack = [(Packing::Gzip, gzip as fn(&[u8]) -> Bytes), (Packing::Deflate, zlib), (Packing::Zstd, zstd)];
        for (packing, pack) in pack {
            assert_eq!(packing.unpack(pack(&body), 1000).expect("it fits"), body, "{packing:?}");
            assert_eq!(packing.unpack(pack(&body), 999).expect_err("too large").code, StatusCode::PAYLOAD_TOO_LARGE);
            // A bomb: 100 MB of nothing in some 100 kB or less.
            let bomb = pack(&vec![0; 100_000_000]);
            assert!(bomb.len() < 200_000, "{packing:?}: {}", bomb.len());
            assert_eq!(packing.unpack(bomb, 1 << 20).expect_err("a bomb").code, StatusCode::PAYLOAD_TOO_LARGE);
            let cut = pack(&body);
            let cut = cut.slice(..cut.len() - 5);
            assert_eq!(packing.unpack(cut, 1000).expect_err("cut").code, StatusCode::BAD_REQUEST, "{packing:?}");
            let garbage = Bytes::from_static(b"garbage, not packed");
            assert_eq!(packing.unpack(garbage, 1000).expect_err("garbage").code, StatusCode::BAD_REQUEST);
        }
    }
}
