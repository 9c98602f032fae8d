//! What an answer says of each record, read where it lies: the counterpart of `body`.
//!
//! The SDK would make strings of what each entry names, only for us to look whether they are there. All that is no success stays
//! the SDK's.

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
use aws_smithy_types::config_bag::ConfigBag;
use serde::Deserialize;

use super::answer::no_answer;
use crate::destination::{Failure, FailureKind, failure::retry_after};

/// The answer to one request, once it is there.
#[derive(Debug, Clone, Default)]
pub(in crate::destination) struct Entries(Arc<OnceLock<Came>>);

/// Status, `Retry-After` and body.
type Came = (u16, Option<Duration>, Vec<u8>);

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
        let came = self.0.get();
        let (status, retry_after, body) =
            came.map_or((None, None, &[][..]), |(status, retry_after, body)| (Some(*status), *retry_after, body));
        serde_json::from_slice(body).map_err(|_| Failure {
            kind: FailureKind::EndpointFailed,
            message: no_answer(status, body),
            retry_after,
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
        if context.response().status().is_success() {
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
        let body = response.body().bytes().unwrap_or_default().to_vec();
        // There is one answer to a request: the SDK does not ask twice.
        let _ =
            self.entries.0.set((response.status().as_u16(), retry_after(response.headers().get("retry-after")), body));
        Ok((self.instead)())
    }
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
