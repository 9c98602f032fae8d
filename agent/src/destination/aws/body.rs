//! The body of a request with many records: `{"<stream's key>":"…","Records":[{"Data":"<base64>", …}, …]}`.
//!
//! Written at once into one buffer. The SDK would build a value of each record, its base64, and the base64 with escapes, before
//! it wrote them; that took most of the time and of the memory of a delivery. All else of a request stays the SDK's.

use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use base64_simd::STANDARD;
use bytes::Bytes;

/// What stands around a record's data in base64 and its key: names, quotes, braces, and a few escapes.
const AROUND_RECORD: usize = 48;

/// See the module.
#[derive(Debug)]
pub(in crate::destination) struct Body(Vec<u8>);

impl Body {
    /// The body of a request to a stream, with room for so many records of so many bytes in all, keys included.
    pub(in crate::destination) fn new(stream_key: &str, stream: &str, records: usize, bytes: u64) -> Self {
        let bytes = usize::try_from(bytes).unwrap_or(0);
        let room = bytes.div_ceil(3) * 4 + (records + 2) * AROUND_RECORD + stream_key.len() + stream.len();
        let mut body = Self(Vec::with_capacity(room));
        body.0.push(b'{');
        body.string(stream_key);
        body.0.push(b':');
        body.string(stream);
        body.0.extend_from_slice(br#","Records":["#);
        body
    }

    /// Adds a record of this data, and what else there is to say of it.
    pub(in crate::destination) fn push<'a>(
        &mut self,
        data: &[u8],
        more: impl IntoIterator<Item = (&'static str, &'a str)>,
    ) {
        if self.0.last() != Some(&b'[') {
            self.0.push(b',');
        }
        self.0.extend_from_slice(br#"{"Data":""#);
        STANDARD.encode_append(data, &mut self.0);
        self.0.push(b'"');
        for (key, value) in more {
            self.0.push(b',');
            self.string(key);
            self.0.push(b':');
            self.string(value);
        }
        self.0.push(b'}');
    }

    /// Puts the body in place of the one that a request has. Before the request is signed.
    pub(in crate::destination) fn into_request(mut self) -> impl Fn(&mut HttpRequest) + Send + Sync + 'static {
        self.0.extend_from_slice(b"]}");
        let (length, body) = (self.0.len().to_string(), Bytes::from(self.0));
        move |request| {
            request.headers_mut().insert("content-length", length.clone());
            *request.body_mut() = SdkBody::from(body.clone());
        }
    }

    fn string(&mut self, text: &str) {
        serde_json::to_writer(&mut self.0, text).expect("memory takes every text");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sent(body: Body) -> Value {
        let mut request = HttpRequest::new(SdkBody::empty());
        body.into_request()(&mut request);
        let bytes = request.body().bytes().expect("in memory");
        assert_eq!(request.headers().get("content-length"), Some(&*bytes.len().to_string()));
        serde_json::from_slice(bytes).expect("JSON")
    }

    #[test]
    fn texts_are_escaped_and_data_is_base64() {
        let mut body = Body::new("StreamName", "a\"b", 2, 10);
        body.push(&[0xfb, 0xff], [("PartitionKey", "\u{1}\\ö\n"), ("ExplicitHashKey", "7")]);
        body.push(b"", [("PartitionKey", "k")]);
        let expected = json!({"StreamName": "a\"b", "Records": [
            {"Data": "+/8=", "PartitionKey": "\u{1}\\ö\n", "ExplicitHashKey": "7"},
            {"Data": "", "PartitionKey": "k"},
        ]});
        assert_eq!(sent(body), expected);
    }

    #[test]
    fn no_record_is_an_empty_list() {
        assert_eq!(sent(Body::new("S", "s", 0, 0)), json!({"S": "s", "Records": []}));
    }
}
