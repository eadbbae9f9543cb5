//! Leader election: one lock, held and renewed by whoever leads.
//!
//! # Guarantees
//! There is at most one leader by the lock service's clock; see [`crate::lock`] for what that does not give. Each term has a
//! token that is greater than those of all terms before it: what a leader writes, it should fence by it.
//!
//! # Failure
//! A leader that crashes is followed when its lease has ended; one that steps down, at once. A store that does not answer is
//! waited for by candidates, and reported by a watch, which cannot know meanwhile who leads.
//!
//! # How it works
//! Candidates wait for the lock, in whatever order its backend serves waiters. A watch asks for the holder once in a period: no
//! task runs for it and nothing is kept in the backend, so dropping it ends it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use futures_util::stream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::entry::FencingToken;
use crate::error::Result;
use crate::key::StateKey;
use crate::lock::guard::{LockAttempt, LockGuard, LockOptions, jittered};
use crate::lock::request::{LockHolder, LockMode, WAIT_MAX};
use crate::store::StateStore;

/// How long to wait after a failed attempt to become the leader.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);
/// The shortest period of a watch: below, it would be a loop that keeps the backend busy.
pub const WATCH_PERIOD_MIN: Duration = Duration::from_millis(10);

/// A candidate in an election. Clones are the same candidate.
///
/// ```
/// # use std::{sync::Arc, time::Duration};
/// # use acteon_state_core::{LockOptions, Put, Result, State, StateKey};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// # let state = State::new(Arc::new(acteon_state_memory::MemoryStore::default()));
/// let key = StateKey::new("shop", "acme", "leader", "reports")?;
/// let candidate = state.elect(&key, &LockOptions::new(Duration::from_secs(10)).meta("node 3"));
/// let mut watch = state.watch_leader(&key, Duration::from_secs(1));
/// assert_eq!(watch.changed().await?, None, "nobody leads yet");
///
/// let written = candidate.lead(async |token| {
///     // Refused once a later leader has written.
///     state.put(&key, &Put::new("by node 3").fenced_by(token)).await
/// });
/// assert!(written.await?.expect("nobody stepped down")?.is_applied());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Election {
    store: Arc<dyn StateStore>,
    key: StateKey,
    options: Arc<LockOptions>,
    stepped_down: CancellationToken,
    /// Calls of `lead` under way: stepping down waits for them.
    leading: TaskTracker,
}

impl Election {
    /// A candidate that does not stand yet. Of the options, the wait and the mode are the election's own, and it always renews.
    #[must_use]
    pub fn new(store: Arc<dyn StateStore>, key: StateKey, options: &LockOptions) -> Self {
        let options = LockOptions { wait: WAIT_MAX, mode: LockMode::Exclusive, renew: true, ..options.clone() };
        Self {
            store,
            key,
            options: Arc::new(options),
            stepped_down: CancellationToken::new(),
            leading: TaskTracker::new(),
        }
    }

    /// Stands until elected; `None` once this candidate has stepped down.
    ///
    /// The guard is renewed until it is dropped, released or lost. Releasing it hands the lead over at once. Dropping the future
    /// leaves nothing held.
    ///
    /// # Errors
    /// As [`LockGuard::acquire`], except that transient ones are waited out.
    pub async fn campaign(&self) -> Result<Option<LockGuard>> {
        while !self.stepped_down.is_cancelled() {
            let attempt = LockGuard::acquire(self.store.clone(), &self.key, &self.options);
            match self.stepped_down.run_until_cancelled(attempt).await {
                None => break,
                Some(Ok(LockAttempt::Acquired(guard))) => return Ok(Some(guard)),
                Some(Ok(LockAttempt::Busy(_))) => {}
                Some(Err(error)) if error.kind().is_transient() => {
                    tracing::warn!(key = %self.key, %error, "no election at the moment; trying again");
                    let pause = tokio::time::sleep(PAUSE_AFTER_ERROR.mul_f64(rand::random_range(0.5..=1.0)));
                    self.stepped_down.run_until_cancelled(pause).await;
                }
                Some(Err(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Leads again and again: stands until elected, runs `term`, and when the lead is lost drops it and stands again.
    ///
    /// Returns what `term` returns once it ends by itself, after handing the lead over; what it did counts also where that fails,
    /// and the lease then ends by itself. Returns `None` once this candidate has [stepped down](Self::step_down). `term` gets the
    /// guard's token through its argument. It is dropped, at one of its awaits, when the lead is lost and when stepping down.
    /// Dropping the future drops the term and hands the lead over in the background.
    ///
    /// # Errors
    /// As [`campaign`](Self::campaign).
    pub async fn lead<T, F>(&self, mut term: impl FnMut(FencingToken) -> F) -> Result<Option<T>>
    where
        F: Future<Output = T>,
    {
        let _leading = self.leading.token();
        while let Some(guard) = self.campaign().await? {
            tokio::select! {
                done = term(guard.token()) => {
                    self.hand_over(guard).await;
                    return Ok(Some(done));
                }
                () = guard.lost() => tracing::warn!(key = %self.key, "the lead was lost"),
                () = self.stepped_down.cancelled() => self.hand_over(guard).await,
            }
        }
        Ok(None)
    }

    /// Hands the lead over now, if it is ours, and never stands again: for a node that is drained or upgraded.
    ///
    /// Completes when each call of [`lead`](Self::lead) under way has dropped its term and released the lock, so others can lead
    /// by then. A guard that [`campaign`](Self::campaign) has given away is its owner's to release. What was begun goes on when the
    /// future is dropped.
    pub async fn step_down(&self) {
        self.stepped_down.cancel();
        self.leading.close();
        self.leading.wait().await;
    }

    /// Whether this candidate has stepped down, or is about to.
    #[must_use]
    pub fn has_stepped_down(&self) -> bool {
        self.stepped_down.is_cancelled()
    }

    /// Who leads now, whether a candidate of this process or another; `None` while nobody does.
    ///
    /// # Errors
    /// As [`StateStore::lock_inspect`].
    pub async fn leader(&self) -> Result<Option<LockHolder>> {
        leader(&*self.store, &self.key).await
    }

    /// Watches who leads; see [`LeaderWatch`].
    #[must_use]
    pub fn watch(&self, period: Duration) -> LeaderWatch {
        LeaderWatch::new(self.store.clone(), self.key.clone(), period)
    }

    async fn hand_over(&self, guard: LockGuard) {
        if let Err(error) = guard.release().await {
            tracing::warn!(key = %self.key, %error, "the lead was not handed over at once");
        }
    }
}

/// Tells who leads, each time that it changes. Watching needs no candidate, and costs one inspection of the lock in a period.
///
/// What it tells is old by up to a period: good for sending requests to the leader, not for acting as one. A leader that came and
/// went between two inspections is not seen; the token of the next one is greater than both.
#[derive(Debug)]
pub struct LeaderWatch {
    store: Arc<dyn StateStore>,
    key: StateKey,
    period: Duration,
    /// When to ask again; at once in the beginning.
    next_look: Option<Instant>,
    /// The term that was told last, if any was: none in it while nobody led.
    told: Option<Option<FencingToken>>,
}

impl LeaderWatch {
    /// A watch that asks once in each `period`, of at least [`WATCH_PERIOD_MIN`].
    #[must_use]
    pub fn new(store: Arc<dyn StateStore>, key: StateKey, period: Duration) -> Self {
        Self { store, key, period: period.max(WATCH_PERIOD_MIN), next_look: None, told: None }
    }

    /// The first call tells who leads now, each further one waits until that has changed. `None` while nobody does.
    ///
    /// Dropping the future loses no change.
    ///
    /// # Errors
    /// As [`StateStore::lock_inspect`]: who leads is not known then. The watch goes on with the next call, after a period.
    pub async fn changed(&mut self) -> Result<Option<LockHolder>> {
        loop {
            if let Some(at) = self.next_look {
                tokio::time::sleep_until(at).await;
            }
            // With jitter, so that the watches of a fleet that was started at one moment do not ask at one moment for ever.
            self.next_look = Some(Instant::now() + jittered(self.period));
            let leader = leader(&*self.store, &self.key).await?;
            let term = leader.as_ref().map(|leader| leader.token);
            if self.told.replace(term) != Some(term) {
                return Ok(leader);
            }
        }
    }

    /// The same as a stream. It never ends by itself, not even after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Option<LockHolder>>> + Send {
        stream::unfold(self, |mut watch| async move { Some((watch.changed().await, watch)) })
    }
}

/// Who leads: the exclusive holder. Whoever shares the lock of this name leads nobody.
async fn leader(store: &dyn StateStore, key: &StateKey) -> Result<Option<LockHolder>> {
    let holders = store.lock_inspect(key).await?.map(|state| state.holders).unwrap_or_default();
    Ok(holders.into_iter().find(|holder| holder.mode == LockMode::Exclusive))
}
