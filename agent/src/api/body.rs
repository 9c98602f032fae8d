//! Bodies of requests: JSON, and nothing else.

use axum::http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// Browsers send some content types to any host for any page, but not this one.
pub(super) fn is_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        format!("the content type must be application/json, not `{given}`"),
    ))
}

/// What a body says.
pub(super) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| ApiError::bad(error.path().to_string(), error.inner().to_string()))?;
    json.end().map_err(|error| ApiError::bad(".", error.to_string()))?;
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_taken() {
        let headers = |text: &str| HeaderMap::from_iter([(CONTENT_TYPE, text.parse().expect("a header"))]);
        for right in ["application/json", "Application/JSON; charset=utf-8"] {
            assert!(is_json(&headers(right)).is_ok(), "{right}");
        }
        for wrong in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
            assert!(is_json(&headers(wrong)).is_err(), "{wrong}");
        }
        assert!(is_json(&HeaderMap::new()).is_err());
    }
}
