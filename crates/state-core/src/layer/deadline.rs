//! Bounds the time of a whole call, repetitions included.
//!
//! The bound is the layer's default, or what is left of the deadline that [`until`] set for the task, whichever ends first:
//! a request handler sets one deadline, and every call under it keeps to it. A call under a deadline that has passed fails
//! at once with `Timeout`, `NotApplied`. Right order: outside of retry and of everything that waits.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::layer::Around;
use crate::layer::attempt_timeout::within;
use crate::operation::{Call, Reply};

tokio::task_local! {
    static DEADLINE: Instant;
}

/// Runs `future` with a deadline for every state call that it makes. An enclosing earlier deadline stays in force.
pub async fn until<F: Future>(deadline: Instant, future: F) -> F::Output {
    let deadline = DEADLINE.try_with(|outer| deadline.min(*outer)).unwrap_or(deadline);
    DEADLINE.scope(deadline, future).await
}

/// See the module.
#[derive(Debug)]
pub struct Deadline {
    default: Duration,
}

impl Deadline {
    /// Bounds calls by `default` where the task has no earlier deadline.
    #[must_use]
    pub const fn new(default: Duration) -> Self {
        Self { default }
    }
}

impl Around for Deadline {
    async fn around<'a, T: Reply + 'a>(
        &'a self,
        call: &'a Call<'a>,
        attempt: impl Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    ) -> Result<T> {
        let left = DEADLINE.try_with(|deadline| deadline.saturating_duration_since(Instant::now())).ok();
        if left == Some(Duration::ZERO) {
            let error = Error::new(ErrorKind::Timeout, "the caller's deadline has passed; nothing was sent");
            return Err(error.in_operation(call.operation.as_str()));
        }
        match left {
            // The caller's deadline also ends a wait for a lock; the default does not.
            Some(left) if left < self.default.saturating_add(call.wait) => {
                within(left, &Call { wait: Duration::ZERO, ..*call }, attempt()).await
            }
            _ => within(self.default, call, attempt()).await,
        }
    }
}
