//! Makes each call a span, and each failure an event in it.
//!
//! In an outage thousands of calls fail for one reason. At most one warning per kind of error and five seconds is written, with
//! the number of those that were passed over since the one before (see [`FaultLog`]); each failure is still an event at debug
//! level.
//!
//! Spans are at debug level and carry operation, backend and outcome, never the value. The key is recorded too: traces are
//! looked at one by one, unlike metrics, whose labels must stay few. Right order: outermost. Inside of retry, each
//! attempt would be a span of its own, and the call that the application made would be none.

use std::future::Future;

use futures_util::future::BoxFuture;
use tracing::Instrument as _;

use crate::error::{Error, Result};
use crate::fault_log::FaultLog;
use crate::layer::Around;
use crate::operation::{Call, Keys, Reply};

/// See the module.
#[derive(Debug)]
pub struct Tracing {
    backend: String,
    faults: FaultLog,
}

impl Tracing {
    /// Names the backend in each span.
    #[must_use]
    pub fn new(backend: &str) -> Self {
        Self { backend: backend.to_owned(), faults: FaultLog::new() }
    }
}

impl Around for Tracing {
    fn around<'a, T: Reply + 'a>(
        &'a self,
        call: &'a Call<'a>,
        attempt: impl Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    ) -> impl Future<Output = Result<T>> + Send + 'a {
        let span = tracing::debug_span!(
            "state",
            operation = call.operation.as_str(),
            backend = self.backend,
            key = tracing::field::Empty,
            outcome = tracing::field::Empty,
        );
        match call.keys {
            Keys::One(key) => _ = span.record("key", key.text()),
            Keys::Scope(scope) => _ = span.record("key", scope.text()),
            Keys::None | Keys::Batch(_) | Keys::Transact(_) | Keys::Gates(_) => {}
        }
        let recorded = span.clone();
        async move {
            let result = attempt().await;
            match &result {
                Ok(reply) => _ = recorded.record("outcome", reply.outcome()),
                Err(error) => {
                    recorded.record("outcome", error.kind().as_str());
                    self.log_failure(error);
                }
            }
            result
        }
        .instrument(span)
    }
}

impl Tracing {
    /// What the operator can do something about is a warning; what the caller did wrong is its own business.
    fn log_failure(&self, error: &Error) {
        use crate::error::ErrorKind::{Closed, Invalid, Overflow, TooLarge, Unsupported, WrongType};
        if matches!(error.kind(), Invalid | TooLarge | Unsupported | WrongType | Overflow | Closed) {
            tracing::debug!(%error, "state call refused");
            return;
        }
        match self.faults.admit(error.kind().as_str()) {
            Some(0) => tracing::warn!(%error, "state call failed"),
            Some(passed_over) => tracing::warn!(%error, passed_over, "state calls fail"),
            None => tracing::debug!(%error, "state call failed"),
        }
    }
}
