//! Errors of the API: a status code for programs, and a JSON body that says what is wrong and where.

use axum::{
    Json,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use forebay_log_store::Error;

use super::wire::Refusal;
use crate::streams;

/// Why a request is not answered.
#[derive(Debug)]
pub(super) struct ApiError {
    code: StatusCode,
    refusal: Refusal,
}

impl ApiError {
    pub(super) fn new(code: StatusCode, error: impl Into<String>) -> Self {
        Self { code, refusal: Refusal { error: error.into(), field: None } }
    }

    /// The request is wrong at `field`.
    pub(super) fn bad(field: impl Into<String>, error: impl Into<String>) -> Self {
        let refusal = Refusal { error: error.into(), field: Some(field.into()) };
        Self { code: StatusCode::BAD_REQUEST, refusal }
    }

    pub(super) fn not_found(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    pub(super) fn of_refusal(refusal: &streams::Refusal) -> Self {
        match refusal {
            streams::Refusal::Unknown(_) => Self::not_found(refusal.to_string()),
            streams::Refusal::Exists(_) | streams::Refusal::Configured(_) => {
                Self::new(StatusCode::CONFLICT, refusal.to_string())
            }
            streams::Refusal::Settings(problems) => {
                let (first, rest) = problems.split_first().expect("settings are refused for a reason");
                let rest: String = rest.iter().map(|problem| format!("; {problem}")).collect();
                Self::bad(&first.path, format!("{}{rest}", first.message))
            }
            streams::Refusal::Log(error) => Self::of_log(error),
        }
    }

    /// The same with other words.
    pub(super) fn saying(mut self, error: String) -> Self {
        self.refusal.error = error;
        self
    }

    /// What the log says, in HTTP's words.
    pub(super) fn of_log(error: &Error) -> Self {
        let code = match error {
            Error::Full { .. } => StatusCode::INSUFFICIENT_STORAGE,
            Error::Poisoned { .. } | Error::Closed => StatusCode::SERVICE_UNAVAILABLE,
            Error::BadPartitionKey { .. } | Error::RecordTooLarge { .. } | Error::Shards { .. } => {
                StatusCode::BAD_REQUEST
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(code, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.code, Json(self.refusal)).into_response()
    }
}

pub(super) async fn nothing_here(uri: Uri) -> ApiError {
    let path = uri.path();
    ApiError::not_found(format!(
        "there is nothing at {path}; there are /healthz, /status, /metrics, /streams, /streams/NAME, /streams/NAME/shards, \
         /streams/NAME/records, /dead-letters and /dead-letters/DESTINATION"
    ))
}

pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}
