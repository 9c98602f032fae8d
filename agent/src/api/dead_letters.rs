//! `/dead-letters` and what is below: letters listed, shown, replayed and dropped.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
};

use super::{
    Api, body,
    error::ApiError,
    wire::{DeadLetters, SettleLetters},
};
use crate::{
    config::there_are,
    delivery::dead_letter::{Letter, Letters, LettersError, Page, Settlement},
};

/// Letters of one page, and what is given without being asked.
const LIMIT_MAX: usize = 1000;
const LIMIT_DEFAULT: usize = 100;

/// All destinations, with or without letters.
pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<DeadLetters>, ApiError> {
    let _permit = api.reads.acquire().await.expect("the semaphore is never closed");
    let all: Vec<_> = api.letters.values().cloned().collect();
    let destinations = blocking(move || all.iter().map(|letters| letters.summary()).collect()).await?;
    Ok(Json(DeadLetters { destinations }))
}

pub(super) async fn page(
    State(api): State<Arc<Api>>,
    Path(destination): Path<String>,
    uri: Uri,
) -> Result<Json<Page>, ApiError> {
    let letters = letters(&api, &destination)?;
    let (from, limit) = parse(uri.query().unwrap_or_default())?;
    let _permit = api.reads.acquire().await.expect("the semaphore is never closed");
    blocking(move || letters.page(from, limit)).await.map(Json)
}

pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Path((destination, number)): Path<(String, u64)>,
) -> Result<Json<Letter>, ApiError> {
    let letters = letters(&api, &destination)?;
    let _permit = api.reads.acquire().await.expect("the semaphore is never closed");
    blocking(move || letters.letter(number)).await.map(Json)
}

pub(super) async fn settle(
    State(api): State<Arc<Api>>,
    Path(destination): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<Settlement>, ApiError> {
    let letters = letters(&api, &destination)?;
    body::is_json(&headers)?;
    let SettleLetters { verb, which } = body::json(&bytes)?;
    // On a thread of its own it goes on to its end, also when whoever asked goes away.
    blocking(move || letters.settle(&which, verb)).await.map(Json)
}

fn letters(api: &Api, destination: &str) -> Result<Arc<Letters>, ApiError> {
    api.letters.get(destination).cloned().ok_or_else(|| {
        let known = there_are(api.letters.keys().map(String::as_str));
        ApiError::not_found(format!("there is no destination `{destination}`; {known}"))
    })
}

fn parse(query: &str) -> Result<(u64, usize), ApiError> {
    let (mut from, mut limit) = (0, LIMIT_DEFAULT);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let not = |what: &str| ApiError::bad(key, format!("must be {what}, not `{value}`"));
        match key {
            "from" => from = value.parse().map_err(|_| not("a letter's number"))?,
            "limit" => {
                let parsed = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                limit = parsed.ok_or_else(|| not(&format!("1 to {LIMIT_MAX}")))?;
            }
            _ => return Err(ApiError::bad(key, "unknown; there are `from` and `limit`")),
        }
    }
    Ok((from, limit))
}

/// Does what blocks where it may.
async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, LettersError> + Send + 'static,
) -> Result<T, ApiError> {
    let outcome = tokio::task::spawn_blocking(act).await;
    let outcome = outcome
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot do that: {error}")))?;
    outcome.map_err(|error| match &error {
        LettersError::Unknown(_) => ApiError::not_found(error.to_string()),
        LettersError::Log { source, .. } => ApiError::of_log(source).saying(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_begins_somewhere_and_has_an_end() {
        assert_eq!(parse("").expect("nothing is a query too"), (0, LIMIT_DEFAULT));
        assert_eq!(parse("from=17&limit=5").expect("a query"), (17, 5));
        for (query, field) in [("from=x", "from"), ("limit=0", "limit"), ("limit=1001", "limit"), ("wait=1", "wait")] {
            let error = format!("{:?}", parse(query).expect_err("it is wrong"));
            assert!(error.contains(&format!("Some({field:?})")), "{query}: {error}");
        }
    }
}
