//! What an answer says of each record, read where it lies: the counterpart of `body`.
//!
//! The SDK would make strings of what each entry names, only for us to look whether they are there. All that is no success stays
//! the SDK's, which knows JSON alone.

use std::{
    borrow::Cow,
    ops::Deref,
    sync::{Arc, OnceLock},
    time::Duration,
};

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{
            Intercept,
            context::{BeforeDeserializationInterceptorContextMut, Error, Output},
            dyn_dispatch_hint,
        },
        orchestrator::{HttpResponse, OrchestratorError},
        runtime_components::RuntimeComponents,
        ser_de::{DeserializeResponse, SharedResponseDeserializer},
    },
};
use aws_smithy_types::{config_bag::ConfigBag, error::ErrorMetadata};
use serde::Deserialize;

use super::{Encoding, answer::no_answer};
use crate::destination::{Failure, FailureKind, failure::retry_after};

/// The answer to one request, once it is there.
#[derive(Debug, Clone, Default)]
pub(in crate::destination) struct Entries(Arc<OnceLock<Success>>);

#[derive(Debug)]
struct Success {
    status: u16,
    retry_after: Option<Duration>,
    encoding: Encoding,
    body: Vec<u8>,
}

impl Entries {
    /// Takes the answer to what was `asked` when it comes, if it is a success; the SDK's caller gets `instead`. A refusal that the SDK cannot read becomes
    /// the error that it would have made of it.
    pub(in crate::destination) fn taker(
        &self,
        asked: Encoding,
        instead: fn() -> Output,
        refused: fn(ErrorMetadata) -> Error,
    ) -> impl Intercept + 'static {
        Taker { entries: self.clone(), asked, instead, refused }
    }

    /// What came.
    ///
    /// # Errors
    /// It is no answer of the service, or none has come.
    pub(in crate::destination) fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Failure> {
        let success = self.0.get();
        let read = success.and_then(|success| match success.encoding {
            Encoding::Json => serde_json::from_slice(&success.body).ok(),
            Encoding::Cbor => cbor(&success.body),
        });
        read.ok_or_else(|| Failure {
            kind: FailureKind::EndpointFailed,
            message: no_answer(success.map(|success| success.status), success.map_or(&[], |success| &success.body)),
            retry_after: success.and_then(|success| success.retry_after),
        })
    }
}

#[derive(Debug, Clone)]
struct Taker {
    entries: Entries,
    asked: Encoding,
    instead: fn() -> Output,
    refused: fn(ErrorMetadata) -> Error,
}

#[dyn_dispatch_hint]
impl Intercept for Taker {
    fn name(&self) -> &'static str {
        "Taker"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        settings: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        if response.status().is_success() || self.encoding_of(response) == Encoding::Cbor {
            settings.interceptor_state().store_put(SharedResponseDeserializer::new(self.clone()));
        }
        Ok(())
    }
}

impl DeserializeResponse for Taker {
    fn deserialize_nonstreaming_with_config(
        &self,
        response: &HttpResponse,
        _: &ConfigBag,
    ) -> Result<Output, OrchestratorError<Error>> {
        let body = response.body().bytes().unwrap_or_default();
        if !response.status().is_success() {
            let code = response.headers().get("x-amzn-errortype");
            return Err(OrchestratorError::operation((self.refused)(refusal(code, body))));
        }
        let body = body.to_vec();
        let (status, headers) = (response.status().as_u16(), response.headers());
        let retry_after = retry_after(headers.get("retry-after"));
        // There is one answer to a request: the SDK does not ask twice.
        let _ = self.entries.0.set(Success { status, retry_after, encoding: self.encoding_of(response), body });
        Ok((self.instead)())
    }
}

impl Taker {
    fn encoding_of(&self, response: &HttpResponse) -> Encoding {
        self.asked.of_answer(response.headers().get("content-type"))
    }
}

/// What a body says that is one value, and nothing behind it.
fn cbor<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    let mut reader = minicbor_serde::Deserializer::new(body);
    let value = T::deserialize(&mut reader).ok()?;
    (reader.decoder().position() == body.len()).then_some(value)
}

/// What a refusal in CBOR says, as the SDK finds it in one in JSON: the code is in a header or the body, and may have a namespace
/// in front and an address behind it.
fn refusal(header: Option<&str>, body: &[u8]) -> ErrorMetadata {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Words<'a> {
        #[serde(borrow, rename = "__type")]
        kind: Option<Text<'a>>,
        #[serde(borrow)]
        code: Option<Text<'a>>,
        #[serde(borrow)]
        message: Option<Text<'a>>,
        #[serde(borrow, rename = "Message")]
        capital_message: Option<Text<'a>>,
    }
    let words: Words<'_> = cbor(body).unwrap_or_default();
    let mut refusal = ErrorMetadata::builder();
    if let Some(code) = header.or(words.kind.as_deref()).or(words.code.as_deref()) {
        let code = code.split_once(':').map_or(code, |(code, _)| code);
        refusal = refusal.code(code.rsplit_once('#').map_or(code, |(_, code)| code));
    }
    if let Some(message) = words.message.as_deref().or(words.capital_message.as_deref()) {
        refusal = refusal.message(message);
    }
    refusal.build()
}

/// A text of the answer; copied only if it has escapes.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(in crate::destination) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}
