//! What an answer says of each record, read where it lies: the counterpart of `body`.
//!
//! The SDK would make strings of what each entry names, only for us to look whether they are there. All that is no success stays
//! the SDK's, which knows JSON alone.

use std::{
    borrow::Cow,
    ops::Deref,
    sync::{Arc, OnceLock},
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
use aws_smithy_types::{body::SdkBody, config_bag::ConfigBag};
use serde::{Deserialize, Serialize};

use super::{Encoding, answer::no_answer};
use crate::destination::{Failure, FailureKind};

/// The answer to one request, once it is there.
#[derive(Debug, Clone, Default)]
pub(in crate::destination) struct Entries(Arc<OnceLock<Success>>);

#[derive(Debug)]
struct Success {
    status: u16,
    encoding: Encoding,
    body: Vec<u8>,
}

impl Entries {
    /// Takes the answer when it comes, if it is a success; the SDK's caller gets `instead`.
    pub(in crate::destination) fn taker(&self, instead: fn() -> Output) -> impl Intercept + 'static {
        Taker { entries: self.clone(), instead }
    }

    /// What came.
    ///
    /// # Errors
    /// It is no answer of the service, or none has come.
    pub(in crate::destination) fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Failure> {
        let success = self.0.get();
        let read = success.and_then(|success| match success.encoding {
            Encoding::Json => serde_json::from_slice(&success.body).ok(),
            Encoding::Cbor => minicbor_serde::from_slice(&success.body).ok(),
        });
        read.ok_or_else(|| Failure {
            kind: FailureKind::EndpointFailed,
            message: no_answer(success.map(|success| success.status), success.map_or(&[], |success| &success.body)),
            retry_after: None,
        })
    }
}

#[derive(Debug, Clone)]
struct Taker {
    entries: Entries,
    instead: fn() -> Output,
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
        let response = context.response_mut();
        if response.status().is_success() {
            settings.interceptor_state().store_put(SharedResponseDeserializer::new(self.clone()));
        } else if let Some(json) = refusal_as_json(response) {
            *response.body_mut() = SdkBody::from(json);
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
        let body = response.body().bytes().unwrap_or_default().to_vec();
        let success = Success { status: response.status().as_u16(), encoding: encoding_of(response), body };
        // There is one answer to a request: the SDK does not ask twice.
        let _ = self.entries.0.set(success);
        Ok((self.instead)())
    }
}

fn encoding_of(response: &HttpResponse) -> Encoding {
    Encoding::of(response.headers().get("content-type"))
}

/// A refusal in CBOR as the SDK reads one; none if it is in JSON already, or no refusal of the service at all.
fn refusal_as_json(response: &HttpResponse) -> Option<Vec<u8>> {
    #[derive(Deserialize, Serialize)]
    struct Refusal<'a> {
        #[serde(borrow, rename = "__type", skip_serializing_if = "Option::is_none")]
        code: Option<Text<'a>>,
        #[serde(borrow, alias = "Message")]
        message: Option<Text<'a>>,
    }
    if encoding_of(response) != Encoding::Cbor {
        return None;
    }
    let refusal: Refusal<'_> = minicbor_serde::from_slice(response.body().bytes()?).ok()?;
    serde_json::to_vec(&refusal).ok()
}

/// A text of the answer; copied only if it has escapes.
#[derive(Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub(in crate::destination) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}
