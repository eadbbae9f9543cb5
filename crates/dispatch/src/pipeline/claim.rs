//! The claim on a deduplication key: held while the action is executed, then settled.
//!
//! # Guarantees
//! What is stored under the key belongs to the claim exactly when its text is that of the claim, which names the claim by a
//! random id. So an answer that was lost, or a renewal that was cut off, cannot make the holder take its own record for
//! somebody else's, and nobody else's record is ever overwritten or deleted.
//!
//! # Failure
//! A store that does not answer when a claim is settled is asked again in the background, for [`SETTLE_PATIENCE`]: an
//! action that was executed must not be executed again because the store was away for a moment.
//!
//! # How it works
//! Each write names the version that it expects. When that version is not there, the record that is there says whether it
//! is ours in another version, or nothing is left of it, and the write is repeated upon that.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::fault_log::FaultLog;
use acteon_state_core::{Condition, DeleteOutcome, Entry, Put, PutOutcome, Result, State, StateKey, Ttl, Version};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

/// How long what could not be settled is tried again: longer than a restart or a failover of a store.
pub(super) const SETTLE_PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two such attempts.
pub(super) const SETTLE_PAUSE: Duration = Duration::from_millis(500);
/// How often one write looks again at what is there. The second look is right unless a renewal comes in between.
const LOOKS_MAX: usize = 4;

/// The right to execute the action of a key, renewed while [`Claim::keep`] is polled, until it is settled.
#[derive(Debug)]
pub(super) struct Claim {
    held: Held,
    ttl: Duration,
}

/// What is known of a claim that may be held.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) state: State,
    pub(super) key: StateKey,
    /// The record of the claim; no other claim has the same.
    pub(super) in_flight: Bytes,
    pub(super) lease: Duration,
    /// The version that was last seen of our record. Never held across an await.
    pub(super) version: Mutex<Version>,
    /// In an outage, there may be as many of these as actions.
    pub(super) faults: Arc<FaultLog>,
}

/// What becomes of a claim.
#[derive(Debug)]
pub(super) enum Settlement {
    /// Duplicates get this record.
    Done(Bytes),
    /// The next one runs.
    GiveBack,
}

impl Claim {
    /// Holds a claim that was made.
    pub(super) fn new(held: Held, ttl: Duration) -> Self {
        Self { held, ttl }
    }

    /// Renews the claim at a third of its lease for as long as the future is polled. In the task of the work itself: a task of
    /// its own for each action would cost more than all else that a claim costs in memory.
    ///
    /// Never completes: a claim that was lost is not taken from the work that was begun under it.
    pub(super) async fn keep(&self) {
        let held = &self.held;
        loop {
            tokio::time::sleep(held.lease / 3).await;
            match held.write(&held.in_flight, held.lease).await {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!(key = %held.key, "a deduplication claim was lost while its action is being executed");
                    return pending().await;
                }
                Err(error) => tracing::debug!(key = %held.key, %error, "a deduplication claim was not renewed yet"),
            }
        }
    }

    /// Whether the claim is settled: it is, or it cannot be.
    pub(super) async fn settle_once(&self, settlement: &Settlement) -> bool {
        self.held.settle_once(settlement, self.ttl).await
    }

    /// Settles the claim as soon as the store answers.
    pub(super) fn settle_in_background(self, settlement: Settlement, tasks: &TaskTracker) {
        settle_in_background(self.held, settlement, self.ttl, tasks);
    }
}

/// Settles a claim that may be held until the store answers, or for [`SETTLE_PATIENCE`].
pub(super) fn settle_in_background(held: Held, settlement: Settlement, ttl: Duration, tasks: &TaskTracker) {
    tasks.spawn(async move {
        let settling = async {
            while !held.settle_once(&settlement, ttl).await {
                tokio::time::sleep(SETTLE_PAUSE).await;
            }
        };
        if tokio::time::timeout(SETTLE_PATIENCE, settling).await.is_err()
            && let Some(passed_over) = held.faults.admit("not_settled")
        {
            tracing::warn!(key = %held.key, passed_over, "a deduplication claim was not settled; it ends with its lease");
        }
    });
}

impl Held {
    /// Whether the claim is settled: it is, or it cannot be.
    async fn settle_once(&self, settlement: &Settlement, ttl: Duration) -> bool {
        let settled = match settlement {
            Settlement::Done(record) => self.write(record, ttl).await,
            Settlement::GiveBack => self.give_back().await.map(|()| true),
        };
        let key = &self.key;
        match settled {
            Ok(true) => true,
            Ok(false) => {
                tracing::warn!(%key, "a deduplication claim was lost before its action was finished");
                true
            }
            Err(error) => {
                match self.faults.admit("settle") {
                    Some(passed_over) => {
                        tracing::warn!(%key, %error, passed_over, "a deduplication claim is not settled yet");
                    }
                    None => tracing::debug!(%key, %error, "a deduplication claim is not settled yet"),
                }
                !error.kind().is_transient()
            }
        }
    }

    /// Replaces our record; `false` when another one is there. One that expired is made anew.
    async fn write(&self, record: &Bytes, ttl: Duration) -> Result<bool> {
        let mut condition = Condition::Version(*self.version.lock());
        for _ in 0..LOOKS_MAX {
            let put = Put::new(record.clone()).when(condition).ttl(Ttl::After(ttl));
            let found = match self.state.put(&self.key, &put).await? {
                PutOutcome::Applied(version) => {
                    *self.version.lock() = version;
                    return Ok(true);
                }
                PutOutcome::NotMet(found) => found,
            };
            condition = match found {
                None => Condition::Absent,
                Some(Entry { value, version: Some(version), .. }) if value == self.in_flight => {
                    Condition::Version(version)
                }
                // Written by an earlier attempt whose answer was lost.
                Some(entry) => return Ok(entry.value == *record),
            };
        }
        Ok(false)
    }

    /// Deletes our record, if it is still there.
    async fn give_back(&self) -> Result<()> {
        let mut version = *self.version.lock();
        for _ in 0..LOOKS_MAX {
            match self.state.delete(&self.key, Condition::Version(version)).await? {
                DeleteOutcome::NotMet(Entry { value, version: Some(found), .. }) if value == self.in_flight => {
                    version = found;
                }
                _ => return Ok(()),
            }
        }
        Ok(())
    }
}
