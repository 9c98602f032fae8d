//! `/healthz`, `/status` and `/metrics`.

use std::{sync::Arc, time::Instant};

use axum::{
    Extension, Json,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{Api, access::Stranger, error::ApiError};
use crate::status::{Status, render_metrics};

#[derive(Serialize)]
struct Health {
    healthy: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<Vec<String>>,
}

/// 200 while the log takes records and every source runs; 503 with the reasons otherwise.
pub(super) async fn healthz(State(api): State<Arc<Api>>, stranger: Option<Extension<Stranger>>) -> Response {
    let reasons = api.observer.reasons();
    let code = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let healthy = reasons.is_empty();
    (code, Json(Health { healthy, reasons: stranger.is_none().then_some(reasons) })).into_response()
}

pub(super) async fn status(State(api): State<Arc<Api>>) -> Result<Json<Status>, ApiError> {
    observe(&api).await.map(Json)
}

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let text = render_metrics(&observe(&api).await?);
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

async fn observe(api: &Api) -> Result<Status, ApiError> {
    let observer = Arc::clone(&api.observer);
    tokio::task::spawn_blocking(move || observer.status(Instant::now()))
        .await
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("no status: {error}")))
}
