//! The worker: delivers scheduled actions when their time has come.
//!
//! # Guarantees
//! At least once, never lost: an action is claimed, executed, then acknowledged. When a server dies in between, the claim
//! ends and another worker delivers it again, under the same action id. A failure that may pass is tried again with growing
//! pauses; what fails for good, or too often, is kept under the kind `dead` before it leaves the queue, and gives its
//! deduplication key back. So does one that was begun too often and never ended, such as one that takes its server down.
//!
//! # How it works
//! One loop claims as many as there are free places. It sleeps until the store says that the next action is due, until one is
//! scheduled here, or for the poll interval. Each delivery extends its claim while it works. A lock that is busy, or a store
//! that does not answer, is waited out under the claim: it says nothing about the action, and costs no attempt.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::{ClaimDue, ClaimOutcome, Claimed, DueItem, Put, StateKey};
use futures_util::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::action::Action;
use crate::keys;
use crate::outcome::Outcome;
use crate::pipeline::Dispatcher;
use crate::pipeline::claim::{SETTLE_PATIENCE, SETTLE_PAUSE};
use crate::pipeline::deduplicate;
use crate::pipeline::error::DispatchError;
use crate::pipeline::schedule::Deferred;

/// The most actions of one claim: they are loaded whole.
const CLAIM_MAX: usize = 64;
/// The shortest sleep, so that clocks that differ by a little do not make the loop spin.
const SLEEP_MIN: Duration = Duration::from_millis(5);

/// What is to become of a claimed item after an attempt.
enum Verdict {
    /// It is dealt with.
    Done(Outcome),
    /// It may succeed later.
    Retry(String),
    /// It will not succeed.
    GiveUp(String),
}

impl Dispatcher {
    /// Starts to deliver scheduled actions, until `cancel`. What was claimed until then is delivered, and
    /// [`drain`](Self::drain) waits for it: cancel first, then drain.
    pub fn spawn_worker(&self, cancel: CancellationToken) -> JoinHandle<()> {
        let dispatcher = self.clone();
        self.0.tasks.spawn(async move { dispatcher.deliver_until(cancel).await })
    }

    async fn deliver_until(&self, cancel: CancellationToken) {
        let options = &self.0.options.worker;
        let places = Arc::new(Semaphore::new(options.concurrency.max(1)));
        // Cancelled between its steps only: a claim that was sent is worked on, since nobody else sees its items for as long
        // as they are claimed.
        while let Some(permits) = cancel.run_until_cancelled(free_places(&places)).await {
            let sleep = match self.deliver_due(permits).await {
                Ok(next_due_in) => next_due_in.unwrap_or(options.poll).min(options.poll),
                Err(error) => {
                    if let Some(passed_over) = self.0.faults.admit("queue") {
                        tracing::warn!(%error, passed_over, "the queue of scheduled actions did not answer; trying again");
                    }
                    options.poll.mul_f64(rand::random_range(0.5..=1.5))
                }
            };
            tokio::select! {
                () = tokio::time::sleep(sleep.max(SLEEP_MIN)) => {}
                () = self.0.scheduled.notified() => {}
                () = cancel.cancelled() => return,
            }
        }
    }

    /// Claims what is due, one item for each place, and starts to deliver it.
    async fn deliver_due(&self, permits: Vec<OwnedSemaphorePermit>) -> acteon_state_core::Result<Option<Duration>> {
        let queue = keys::queue()?;
        let limit = u32::try_from(permits.len()).unwrap_or(1);
        let claim = ClaimDue { limit, visibility: self.0.options.worker.visibility };
        let Claimed { items, next_due_in } = self.0.state.claim_due(&queue, claim).await?;
        for (item, permit) in items.into_iter().zip(permits) {
            let dispatcher = self.clone();
            let queue = queue.clone();
            self.0.tasks.spawn(async move { dispatcher.deliver(queue, item, permit).await });
        }
        Ok(next_due_in)
    }

    async fn deliver(&self, queue: StateKey, item: DueItem, _place: OwnedSemaphorePermit) {
        let verdict = tokio::select! {
            biased;
            verdict = self.attempt(&item) => verdict,
            () = self.keep(&queue, &item) => return,
        };
        let word = match &verdict {
            Verdict::Done(outcome) => outcome.status(),
            Verdict::Retry(_) => "retried",
            Verdict::GiveUp(_) => "given_up",
        };
        self.0.metrics.record_delivery(word);
        if tokio::time::timeout(SETTLE_PATIENCE, self.settle_patiently(&queue, &item, &verdict)).await.is_err() {
            tracing::warn!(item = item.id, "a delivered action was not settled; it will be delivered again");
        }
    }

    /// Settles as soon as the store answers: what was executed must not come back because the store was away for a moment.
    async fn settle_patiently(&self, queue: &StateKey, item: &DueItem, verdict: &Verdict) {
        while let Err(error) = self.settle(queue, item, verdict).await {
            if let Some(passed_over) = self.0.faults.admit("delivery") {
                tracing::warn!(item = item.id, %error, passed_over, "a delivered action is not settled yet");
            }
            if !error.is_retryable() {
                return;
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
    }

    async fn attempt(&self, item: &DueItem) -> Verdict {
        let deferred: Deferred = match serde_json::from_slice(&item.payload) {
            Ok(deferred) => deferred,
            Err(error) => return Verdict::GiveUp(format!("it is no action of this version: {error}")),
        };
        let attempts_max = self.0.options.worker.attempts_max;
        if item.attempt > attempts_max {
            return Verdict::GiveUp(format!("it was begun {attempts_max} times, and the last time never ended"));
        }
        // A provider that panics has failed; it must not leave the item to come back without end.
        let outcome = match AssertUnwindSafe(self.execute_patiently(item, &deferred.action)).catch_unwind().await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => return Verdict::GiveUp(error.to_string()),
            Err(_) => return self.retry_or_give_up(item, true, "the provider panicked".to_owned()),
        };
        if let Outcome::Failed { error, .. } = &outcome {
            return self.retry_or_give_up(item, error.retryable, error.message.clone());
        }
        self.tell_duplicates(&deferred, Some(&outcome)).await;
        Verdict::Done(outcome)
    }

    /// Executes the action as soon as its lock can be had. Ends without, when that will never be.
    async fn execute_patiently(&self, item: &DueItem, action: &Action) -> Result<Outcome, DispatchError> {
        loop {
            match self.execute_locked(action, None).await {
                Ok((outcome, guard)) => {
                    self.release(Some(guard)).await;
                    return Ok(outcome);
                }
                Err(error) if error.is_retryable() => {
                    if let Some(passed_over) = self.0.faults.admit("waits") {
                        tracing::warn!(item = item.id, %error, passed_over, "a scheduled action waits");
                    }
                    tokio::time::sleep(self.pause_after(1)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Lets the duplicates of a deferred action know what became of it; `None` lets the next one run.
    async fn tell_duplicates(&self, deferred: &Deferred, outcome: Option<&Outcome>) {
        let Deferred { action, dedup } = deferred;
        if let Some(key) = dedup.as_ref().and_then(|dedup| dedup.state_key(action).ok())
            && let Err(error) = deduplicate::resolve(&self.0.state, &key, &action.id, outcome).await
        {
            tracing::warn!(%key, %error, "duplicates will see this action as scheduled");
        }
    }

    fn retry_or_give_up(&self, item: &DueItem, retryable: bool, reason: String) -> Verdict {
        if retryable && item.attempt < self.0.options.worker.attempts_max {
            Verdict::Retry(reason)
        } else {
            Verdict::GiveUp(reason)
        }
    }

    /// Extends the claim for as long as the item is being worked on. Returns when it was lost.
    async fn keep(&self, queue: &StateKey, item: &DueItem) {
        let visibility = self.0.options.worker.visibility;
        loop {
            tokio::time::sleep(visibility / 3).await;
            match self.0.state.extend_claim(queue, item, visibility).await {
                Ok(ClaimOutcome::Done) => {}
                Ok(ClaimOutcome::Lost) => {
                    tracing::warn!(
                        item = item.id,
                        "a scheduled action was cancelled, replaced or taken over meanwhile"
                    );
                    return;
                }
                Err(error) => tracing::debug!(item = item.id, %error, "a claim was not extended yet"),
            }
        }
    }

    async fn settle(&self, queue: &StateKey, item: &DueItem, verdict: &Verdict) -> Result<(), DispatchError> {
        let failed = DispatchError::state("settle");
        let state = &self.0.state;
        match verdict {
            Verdict::Done(outcome) => {
                tracing::debug!(item = item.id, status = outcome.status(), "a scheduled action was delivered");
                state.ack(queue, item).await.map_err(failed)?;
            }
            Verdict::Retry(reason) => {
                let pause = self.pause_after(item.attempt);
                tracing::warn!(item = item.id, attempt = item.attempt, ?pause, reason, "a scheduled action failed");
                state.extend_claim(queue, item, pause).await.map_err(failed)?;
            }
            Verdict::GiveUp(reason) => {
                tracing::error!(item = item.id, attempt = item.attempt, reason, "a scheduled action is given up");
                self.put_aside(item, reason).await?;
                state.ack(queue, item).await.map_err(failed)?;
            }
        }
        Ok(())
    }

    async fn put_aside(&self, item: &DueItem, reason: &str) -> Result<(), DispatchError> {
        let failed = DispatchError::state("settle");
        let deferred = serde_json::from_slice::<Deferred>(&item.payload).ok();
        let key = match &deferred {
            Some(deferred) => keys::dead(&deferred.action),
            None => keys::dead_item(&item.id),
        };
        let key = key.map_err(&failed)?;
        let payload = String::from_utf8_lossy(&item.payload);
        let record =
            serde_json::json!({ "reason": reason, "attempts": item.attempt, "item": item.id, "payload": payload });
        let put = Put::new(record.to_string()).expires_after(self.0.options.worker.dead_ttl);
        // After an error the item stays in the queue and comes back here.
        self.0.state.put(&key, &put).await.map_err(failed)?;
        if let Some(deferred) = &deferred {
            self.tell_duplicates(deferred, None).await;
        }
        Ok(())
    }

    fn pause_after(&self, attempt: u32) -> Duration {
        let options = &self.0.options.worker;
        let doublings = attempt.saturating_sub(1).min(31);
        options.backoff.saturating_mul(1 << doublings).min(options.backoff_max).mul_f64(rand::random_range(0.8..=1.0))
    }
}

/// As many places as are free, at least one and at most [`CLAIM_MAX`]. Waits here, not in the deliveries: what is claimed must
/// be worked on.
async fn free_places(places: &Arc<Semaphore>) -> Vec<OwnedSemaphorePermit> {
    let first = places.clone().acquire_owned().await.expect("the semaphore is never closed");
    let mut permits = vec![first];
    while permits.len() < CLAIM_MAX
        && let Ok(permit) = places.clone().try_acquire_owned()
    {
        permits.push(permit);
    }
    permits
}
