//! The body of a request with many records: `{"<stream's key>": "…", "Records": [{"Data": …, …}, …]}`, as JSON or as CBOR.
//!
//! Written at once into one buffer. The SDK would build a value of each record, its base64, and the base64 with escapes, before
//! it wrote them; that took most of the time and of the memory of a delivery. All else of a request stays the SDK's.

use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use base64_simd::STANDARD;

use super::{Encoding, buffers};

/// What stands around a record's data and its key: names, quotes, braces, and a few escapes.
const AROUND_RECORD: usize = 48;

/// See the module.
#[derive(Debug)]
pub(in crate::destination) struct Body {
    encoding: Encoding,
    written: Vec<u8>,
}

impl Body {
    /// The body of a request to a stream, for exactly so many records, with room for so many bytes in all, keys included.
    pub(in crate::destination) fn new(
        encoding: Encoding,
        (stream_key, stream): (&str, &str),
        records: usize,
        bytes: u64,
    ) -> Self {
        let bytes = usize::try_from(bytes).unwrap_or(0);
        let bytes = match encoding {
            Encoding::Json => bytes.div_ceil(3) * 4,
            Encoding::Cbor => bytes,
        };
        let room = bytes + (records + 2) * AROUND_RECORD + stream_key.len() + stream.len();
        let mut body = Self { encoding, written: buffers::take(room) };
        match encoding {
            Encoding::Json => {
                body.written.push(b'{');
                body.text(stream_key);
                body.written.push(b':');
                body.text(stream);
                body.written.extend_from_slice(br#","Records":["#);
            }
            Encoding::Cbor => {
                body.cbor(|to| to.map(2)?.str(stream_key)?.str(stream)?.str("Records")?.array(records as u64)?.ok());
            }
        }
        body
    }

    /// Adds a record of this data, and what else there is to say of it.
    pub(in crate::destination) fn push(&mut self, data: &[u8], more: &[(&str, &str)]) {
        match self.encoding {
            Encoding::Json => {
                if self.written.last() != Some(&b'[') {
                    self.written.push(b',');
                }
                self.written.extend_from_slice(br#"{"Data":""#);
                STANDARD.encode_append(data, &mut self.written);
                self.written.push(b'"');
                for (key, value) in more {
                    self.written.push(b',');
                    self.text(key);
                    self.written.push(b':');
                    self.text(value);
                }
                self.written.push(b'}');
            }
            Encoding::Cbor => self.cbor(|to| {
                to.map(1 + more.len() as u64)?.str("Data")?.bytes(data)?;
                more.iter().try_for_each(|(key, value)| to.str(key)?.str(value)?.ok())
            }),
        }
    }

    /// Puts the body in place of the one that a request has. Before the request is signed.
    pub(in crate::destination) fn into_request(mut self) -> impl Fn(&mut HttpRequest) + Send + Sync + 'static {
        if self.encoding == Encoding::Json {
            self.written.extend_from_slice(b"]}");
        }
        let content_type = self.encoding.content_type();
        let (length, body) = (self.written.len().to_string(), buffers::share(self.written));
        move |request| {
            request.headers_mut().insert("content-type", content_type);
            request.headers_mut().insert("content-length", length.clone());
            *request.body_mut() = SdkBody::from(body.clone());
        }
    }

    fn text(&mut self, text: &str) {
        serde_json::to_writer(&mut self.written, text).expect("memory takes every text");
    }

    fn cbor(&mut self, write: impl FnOnce(&mut Cbor<'_>) -> Result<(), CborError>) {
        write(&mut minicbor::Encoder::new(&mut self.written)).expect("memory takes every value");
    }
}

type Cbor<'a> = minicbor::Encoder<&'a mut Vec<u8>>;
type CborError = minicbor::encode::Error<std::convert::Infallible>;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sent(body: Body) -> (String, Vec<u8>) {
        let mut request = HttpRequest::new(SdkBody::empty());
        body.into_request()(&mut request);
        let bytes = request.body().bytes().expect("in memory");
        assert_eq!(request.headers().get("content-length"), Some(&*bytes.len().to_string()));
        (request.headers().get("content-type").expect("a type").to_owned(), bytes.to_vec())
    }

    fn two_records(encoding: Encoding) -> (String, Vec<u8>) {
        let mut body = Body::new(encoding, ("StreamName", "a\"b"), 2, 10);
        body.push(&[0xfb, 0xff], &[("PartitionKey", "\u{1}\\ö\n"), ("ExplicitHashKey", "7")]);
        body.push(b"", &[("PartitionKey", "k")]);
        sent(body)
    }

    #[test]
    fn in_json_texts_are_escaped_and_data_is_base64() {
        let (content_type, bytes) = two_records(Encoding::Json);
        assert_eq!(content_type, "application/x-amz-json-1.1");
        let expected = json!({"StreamName": "a\"b", "Records": [
            {"Data": "+/8=", "PartitionKey": "\u{1}\\ö\n", "ExplicitHashKey": "7"},
            {"Data": "", "PartitionKey": "k"},
        ]});
        assert_eq!(serde_json::from_slice::<Value>(&bytes).expect("JSON"), expected);
    }

    #[test]
    fn in_cbor_texts_and_data_are_as_they_are() {
        let (content_type, bytes) = two_records(Encoding::Cbor);
        assert_eq!(content_type, "application/x-amz-cbor-1.1");
        let text = |text: &str| ciborium::Value::Text(text.to_owned());
        let record = |data: &[u8], more: &[(&str, &str)]| {
            let data = (text("Data"), ciborium::Value::Bytes(data.to_vec()));
            ciborium::Value::Map(
                [data].into_iter().chain(more.iter().map(|(key, value)| (text(key), text(value)))).collect(),
            )
        };
        let records = vec![
            record(&[0xfb, 0xff], &[("PartitionKey", "\u{1}\\ö\n"), ("ExplicitHashKey", "7")]),
            record(b"", &[("PartitionKey", "k")]),
        ];
        let expected = ciborium::Value::Map(vec![
            (text("StreamName"), text("a\"b")),
            (text("Records"), ciborium::Value::Array(records)),
        ]);
        let mut rest = &bytes[..];
        assert_eq!(ciborium::from_reader::<ciborium::Value, _>(&mut rest).expect("CBOR"), expected);
        assert!(rest.is_empty());
    }

    #[test]
    fn no_record_is_an_empty_list() {
        let (_, bytes) = sent(Body::new(Encoding::Json, ("S", "s"), 0, 0));
        assert_eq!(serde_json::from_slice::<Value>(&bytes).expect("JSON"), json!({"S": "s", "Records": []}));
        assert_eq!(sent(Body::new(Encoding::Cbor, ("S", "s"), 0, 0)).1, b"\xa2\x61S\x61s\x67Records\x80");
    }
}
