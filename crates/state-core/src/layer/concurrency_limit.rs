//! Bounds how many calls are under way at once, and how many may queue for their turn.
//!
//! A call that finds the queue full fails at once with `Throttled`, `NotApplied`.
//!
//! Some calls neither count nor queue. Waiting for a lock: a place held by a waiter would block the very release that it waits
//! for. Extending and releasing a lock: under overload, locks would be lost and kept by nobody, and every holder sends but
//! one. `ping` and `close`: a backend that is busy is not down, and a shutdown must not queue.
//!
//! Right order: inside of the deadline, which also bounds the queueing; outside of retry, so that a repetition keeps its
//! place. Inside of retry, each repetition would queue again behind calls that came later.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use crate::error::{Error, ErrorKind, Result};
use crate::layer::Around;
use crate::operation::{Call, Operation, Reply};

/// The bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls under way. At least 1.
    pub in_flight_max: usize,
    /// Calls that queue for a place.
    pub queue_max: usize,
}

/// See the module.
#[derive(Debug)]
pub struct ConcurrencyLimit {
    limits: Limits,
    places: Semaphore,
    queued: AtomicUsize,
}

impl ConcurrencyLimit {
    /// Bounds calls by these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let places = Semaphore::new(limits.in_flight_max.clamp(1, Semaphore::MAX_PERMITS));
        Self { limits, places, queued: AtomicUsize::new(0) }
    }

    async fn queue(&self) -> Result<tokio::sync::SemaphorePermit<'_>> {
        let closed = |_| Error::new(ErrorKind::Closed, "the concurrency limit was closed");
        let _leave = Leave(&self.queued);
        if self.queued.fetch_add(1, Ordering::Relaxed) >= self.limits.queue_max {
            let Limits { in_flight_max, queue_max } = self.limits;
            let message = format!("{in_flight_max} calls are under way and {queue_max} are queueing; try again later");
            return Err(Error::new(ErrorKind::Throttled, message));
        }
        self.places.acquire().await.map_err(closed)
    }
}

/// Takes one off the queue's length, also when the queueing future is dropped.
struct Leave<'a>(&'a AtomicUsize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a call neither counts nor queues; see the module.
fn goes_past(call: &Call<'_>) -> bool {
    match call.operation {
        Operation::LockAcquire => !call.wait.is_zero(),
        Operation::LockExtend | Operation::LockRelease | Operation::Ping | Operation::Close => true,
        _ => false,
    }
}

impl Around for ConcurrencyLimit {
    async fn around<'a, T: Reply + 'a>(
        &'a self,
        call: &'a Call<'a>,
        attempt: impl Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    ) -> Result<T> {
        if goes_past(call) {
            return attempt().await;
        }
        let _place = match self.places.try_acquire() {
            Ok(place) => place,
            Err(_) => self.queue().await.map_err(|error| error.in_operation(call.operation.as_str()))?,
        };
        attempt().await
    }
}
