//! Bounds the time of a whole call, repetitions included.
//!
//! The bound is the layer's default, or what is left of the deadline that [`until`] set for the task, whichever ends first:
//! a request handler sets one deadline, and every call under it keeps to it. A call under a deadline that has passed fails
//! at once with `Timeout`, `NotApplied`. Right order: outside of retry and of everything that waits.

use std::future::Future;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::layer::Around;
use crate::layer::attempt_timeout::within;
use crate::operation::{Call, Reply};

tokio::task_local! {
    /// `None` in work that its caller's deadline is not for.
    static DEADLINE: Option<Instant>;
    /// When the layer's own bound ends the call that is under way.
    static GIVES_UP_AT: Instant;
}

/// Runs `future` with a deadline for every state call that it makes itself; tasks that it spawns have none. An enclosing
/// earlier deadline stays in force.
///
/// ```
/// # use std::{sync::Arc, time::Duration};
/// # use acteon_state_core::{StateStore, layer::{Layered, deadline}};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> acteon_state_core::Result<()> {
/// # let driver = Arc::new(acteon_state_memory::MemoryStore::default());
/// let store = Layered::wrap(driver, deadline::Deadline::new(Duration::from_secs(5)));
/// let request_ends = tokio::time::Instant::now() + Duration::from_millis(200);
/// deadline::until(request_ends, store.ping()).await?;
/// # Ok(()) }
/// ```
pub async fn until<F: Future>(deadline: Instant, future: F) -> F::Output {
    let deadline = of_caller().map_or(deadline, |outer| deadline.min(outer));
    DEADLINE.scope(Some(deadline), future).await
}

/// Takes a step of work that is finished whatever becomes of its caller: no deadline of the caller's is in force in it. A task that
/// is spawned has none anyway; this is for a step of such work that is taken in the caller's task.
pub fn without<T>(step: impl FnOnce() -> T) -> T {
    DEADLINE.sync_scope(None, step)
}

fn of_caller() -> Option<Instant> {
    DEADLINE.try_with(|deadline| *deadline).ok().flatten()
}

/// When the layer's own bound ends the call that is under way; `None` where there is no layer, or a caller's deadline comes
/// first. A backend that did not answer until then had all the time there is; a caller may leave it none.
pub(super) fn gives_up_at() -> Option<Instant> {
    GIVES_UP_AT.try_with(|at| *at).ok()
}

/// Whether the deadline that the caller set has passed: a call under it may have failed for that alone.
pub(super) fn has_passed() -> bool {
    of_caller().is_some_and(|deadline| Instant::now() >= deadline)
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
        let left = of_caller().map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            let error = Error::new(ErrorKind::Timeout, "the caller's deadline has passed; nothing was sent");
            return Err(error.in_operation(call.operation.as_str()));
        }
        match left {
            // The caller's deadline also ends a wait for a lock; the default does not.
            Some(left) if left < self.default.saturating_add(call.wait) => {
                within(left, &Call { wait: Duration::ZERO, ..*call }, attempt()).await
            }
            _ => {
                let bound = self.default.saturating_add(call.wait);
                match Instant::now().checked_add(bound) {
                    Some(at) => within(self.default, call, GIVES_UP_AT.scope(at, attempt())).await,
                    None => attempt().await,
                }
            }
        }
    }
}
