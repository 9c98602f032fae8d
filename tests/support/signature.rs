//! AWS's signature, version 4, as a server checks it. Knows the placeholder key that stand-ins on loopback are given.

use hyper::HeaderMap;
use ring::{digest, hmac};

const SECRET: &str = "placeholder";

/// Whether a `POST /` is signed for this service.
///
/// # Errors
/// Why not.
pub(crate) fn check(headers: &HeaderMap, body: &[u8], service: &str) -> Result<(), String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    let said = text("authorization").strip_prefix("AWS4-HMAC-SHA256 ").ok_or("no signature")?;
    let part = |name: &str| {
        let found = said.split(", ").find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        found.ok_or(format!("{said:?} has no {name}"))
    };
    let (credential, signed, signature) = (part("Credential")?, part("SignedHeaders")?, part("Signature")?);
    let (_, scope) = credential.split_once('/').ok_or("a credential without a scope")?;
    let [date, region, of, "aws4_request"] = scope.split('/').collect::<Vec<_>>()[..] else {
        return Err(format!("the scope {scope:?}"));
    };
    if of != service || !text("x-amz-date").starts_with(date) {
        return Err(format!("signed for {of} on {date}"));
    }
    for needed in ["host", "x-amz-date", "x-amz-target"] {
        if !signed.split(';').any(|name| name == needed) {
            return Err(format!("{needed} is not signed"));
        }
    }
    let lines: String = signed.split(';').map(|name| format!("{name}:{}\n", text(name))).collect();
    let canonical = format!("POST\n/\n\n{lines}\n{signed}\n{}", hex(digest::digest(&digest::SHA256, body).as_ref()));
    let hashed = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let to_sign = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{hashed}", text("x-amz-date"));
    let mut key = format!("AWS4{SECRET}").into_bytes();
    for step in [date, region, service, "aws4_request", &to_sign] {
        key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), step.as_bytes()).as_ref().to_vec();
    }
    if hex(&key) == signature { Ok(()) } else { Err("the signature does not match".to_owned()) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
