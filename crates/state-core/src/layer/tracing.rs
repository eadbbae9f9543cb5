//! Makes each call a span, and each failure an event in it.
//!
//! In an outage thousands of calls fail for one reason. At most one warning per second is written, with the number of those
//! that were passed over since the one before; each failure is still an event at debug level.
//!
//! Spans are at debug level and carry operation, backend and outcome, never the value. The key is recorded too: traces are
//! looked at one by one, unlike metrics, whose labels must stay few. Right order: outermost. Inside of retry, each
//! attempt would be a span of its own, and the call that the application made would be none.

use std::future::Future;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::error::{Error, Result};
use crate::layer::Around;
use crate::operation::{Call, Keys, Reply};

/// The shortest time between two warnings.
const WARNING_PAUSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct Tracing {
    backend: String,
    warnings: Warnings,
}

/// Lets one warning per pause through and counts the others.
#[derive(Debug, Default)]
struct Warnings(
    /// When the last one was written, and how many were passed over since. Taken only when a call has failed, for an instant.
    Mutex<(Option<Instant>, u64)>,
);

impl Tracing {
    /// Names the backend in each span.
    #[must_use]
    pub fn new(backend: &str) -> Self {
        Self { backend: backend.to_owned(), warnings: Warnings::default() }
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
            Keys::None | Keys::Batch(_) | Keys::Transact(_) => {}
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
        match self.warnings.admit() {
            Some(0) => tracing::warn!(%error, "state call failed"),
            Some(passed_over) => tracing::warn!(%error, passed_over, "state calls fail"),
            None => tracing::debug!(%error, "state call failed"),
        }
    }
}

impl Warnings {
    /// How many were passed over since the last warning, if another one may be written now.
    fn admit(&self) -> Option<u64> {
        let mut state = self.0.lock();
        let now = Instant::now();
        if state.0.is_some_and(|last| now.duration_since(last) < WARNING_PAUSE) {
            state.1 += 1;
            return None;
        }
        let passed_over = state.1;
        *state = (Some(now), 0);
        Some(passed_over)
    }
}

#[cfg(test)]
mod tests {
    use super::{WARNING_PAUSE, Warnings};

    #[tokio::test(start_paused = true)]
    async fn one_warning_per_pause_counts_those_that_were_passed_over() {
        let warnings = Warnings::default();
        assert_eq!([warnings.admit(), warnings.admit(), warnings.admit()], [Some(0), None, None]);
        tokio::time::advance(WARNING_PAUSE).await;
        assert_eq!([warnings.admit(), warnings.admit()], [Some(2), None]);
    }
}
