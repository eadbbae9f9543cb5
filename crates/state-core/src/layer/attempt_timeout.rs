//! Bounds the time of one attempt.
//!
//! A call that waits on purpose (for a lock) has its wait on top. An attempt that is cut off is `Timeout`, of unknown
//! effect unless it was a read. Right order: inside of retry, which then tries again. Outside of it, the first attempt
//! would eat the time of all.

use std::future::Future;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::error::{Effect, Error, ErrorKind, Result};
use crate::layer::Around;
use crate::operation::{Call, Reply};

/// See the module.
#[derive(Debug)]
pub struct AttemptTimeout {
    timeout: Duration,
}

impl AttemptTimeout {
    /// Cuts attempts off after `timeout`.
    #[must_use]
    pub const fn new(timeout: Duration) -> Self {
        Self { timeout }
    }
}

impl Around for AttemptTimeout {
    async fn around<'a, T: Reply + 'a>(
        &'a self,
        call: &'a Call<'a>,
        attempt: impl Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    ) -> Result<T> {
        within(self.timeout, call, attempt()).await
    }
}

/// Waits for `future` at most `timeout`, and the wait that the call asked for.
pub(super) async fn within<T>(
    timeout: Duration,
    call: &Call<'_>,
    future: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(timeout.saturating_add(call.wait), future).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(ErrorKind::Timeout, format!("no answer within {timeout:?}"))
            .with_effect(if call.operation.is_read() { Effect::NotApplied } else { Effect::Unknown })
            .in_operation(call.operation.as_str())),
    }
}
