//! Deduplication: the first action of a key claims it, later ones get its outcome.
//!
//! # Guarantees
//! Of any number of actions with one key, one holds the claim at a time. Its outcome is stored for the rule's ttl when it is
//! settled, and replayed to duplicates. A claim whose action failed, was throttled or not answered is given back at once; one
//! whose server died ends with its lease.
//!
//! # How it works
//! The claim is a put-if-absent of an in-flight record, so a duplicate learns the first one's outcome in the same round trip.
//! It is renewed by compare-and-swap for as long as the work takes, and completed by one: a claim that was lost meanwhile
//! is never overwritten.

use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::{Condition, Effect, Put, PutOutcome, State, StateKey, Version};
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;

use crate::keys;
use crate::outcome::Outcome;
use crate::pipeline::Dispatcher;
use crate::pipeline::error::DispatchError;
use crate::pipeline::options::OnStateError;
use crate::rules::{Dedup, Verdict};

/// What is stored under a deduplication key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum DedupRecord {
    /// Somebody is at it.
    InFlight { action_id: String },
    /// This is what became of the first one.
    Done { outcome: Outcome },
}

/// What the stage found.
pub(crate) enum Deduplicated {
    /// No other action came first; the claim is `None` when nothing deduplicates it.
    First(Option<Claim>),
    /// Another action came first.
    Duplicate(Outcome),
}

/// The right to execute the action of a key, renewed until it is settled.
#[derive(Debug)]
pub(crate) struct Claim {
    shared: Arc<Shared>,
    ttl: Duration,
    renewal: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    state: State,
    key: StateKey,
    in_flight: Bytes,
    lease: Duration,
    /// The version of our record; replaced with each renewal. Never held across an await.
    version: Mutex<Version>,
}

impl Dispatcher {
    pub(super) async fn deduplicate(&self, verdict: &Verdict) -> Result<Deduplicated, DispatchError> {
        let Some(dedup) = &verdict.dedup else {
            return Ok(Deduplicated::First(None));
        };
        match self.claim(verdict, dedup).await {
            Err(DispatchError::State { source, .. })
                if source.kind().is_transient() && self.0.options.on_state_error_dedup == OnStateError::Open =>
            {
                tracing::warn!(rule = %dedup.rule, error = %source, "deduplication fails open");
                self.0.metrics.failed_open("deduplicate");
                Ok(Deduplicated::First(None))
            }
            result => result,
        }
    }

    async fn claim(&self, verdict: &Verdict, dedup: &Dedup) -> Result<Deduplicated, DispatchError> {
        let failed = DispatchError::state("deduplicate");
        let action_id = verdict.action.id.clone();
        let key = keys::dedup(&verdict.action, dedup).map_err(&failed)?;
        let in_flight = to_bytes(&DedupRecord::InFlight { action_id: action_id.clone() })?;
        let lease = self.0.options.claim_lease;
        let put = Put::new(in_flight.clone()).if_absent().expires_after(lease);
        match self.0.state.put(&key, &put).await {
            Ok(PutOutcome::Applied(version)) => {
                let version = Mutex::new(version);
                let shared = Shared { state: self.0.state.clone(), key, in_flight, lease, version };
                Ok(Deduplicated::First(Some(Claim::new(Arc::new(shared), dedup.ttl))))
            }
            Ok(PutOutcome::NotMet(current)) => {
                let value = current.map(|entry| entry.value).unwrap_or_default();
                let record: DedupRecord = serde_json::from_slice(&value).map_err(|error| {
                    let message = "what is stored for this deduplication key is no record of a dispatcher";
                    failed(acteon_state_core::Error::corrupt(&key, message).with_source(error))
                })?;
                let original = match record {
                    DedupRecord::InFlight { .. } => None,
                    DedupRecord::Done { outcome } => Some(Box::new(outcome)),
                };
                Ok(Deduplicated::Duplicate(Outcome::Deduplicated { action_id, rule: dedup.rule.to_string(), original }))
            }
            Err(error) => {
                if error.effect() == Effect::Unknown {
                    // Otherwise a claim that was made all the same would stop the caller's retry for a whole lease.
                    give_back_in_background(&self.0.state, key, put.version);
                }
                Err(failed(error))
            }
        }
    }
}

/// Settles a claim, if there is one.
pub(super) async fn settle(claim: Option<Claim>, result: &Result<Outcome, DispatchError>) {
    if let Some(claim) = claim {
        claim.settle(result).await;
    }
}

impl Claim {
    fn new(shared: Arc<Shared>, ttl: Duration) -> Self {
        let renewal = tokio::spawn(renew(shared.clone())).abort_handle();
        Self { shared, ttl, renewal }
    }

    /// Stores the outcome for duplicates to come, or gives the claim back when a retry shall run.
    async fn settle(self, result: &Result<Outcome, DispatchError>) {
        self.renewal.abort();
        let version = *self.shared.version.lock();
        let Shared { state, key, .. } = &*self.shared;
        let settled = match result {
            Ok(outcome) if !retry_shall_run(outcome) => complete(state, key, version, outcome, self.ttl).await,
            Ok(_) | Err(_) => state.delete(key, Condition::Version(version)).await.map(|done| done.is_deleted()),
        };
        match settled {
            Ok(true) => {}
            Ok(false) => tracing::warn!(%key, "a deduplication claim was lost before its action was finished"),
            Err(error) => tracing::warn!(%key, %error, "a deduplication claim was not settled; it ends with its lease"),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// Replaces the outcome that is stored for duplicates, if one still is: a scheduled action was executed.
pub(crate) async fn replace(state: &State, key: &StateKey, outcome: &Outcome) -> acteon_state_core::Result<()> {
    let Ok(record) = serde_json::to_vec(&DedupRecordRef::Done { outcome }) else {
        return Ok(());
    };
    let put = Put::new(record).when(Condition::Present).ttl(acteon_state_core::Ttl::Keep);
    state.put(key, &put).await.map(|_| ())
}

/// `DedupRecord::Done` without owning the outcome.
#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum DedupRecordRef<'a> {
    Done { outcome: &'a Outcome },
}

fn retry_shall_run(outcome: &Outcome) -> bool {
    outcome.is_failed() || matches!(outcome, Outcome::Throttled { .. })
}

async fn complete(
    state: &State,
    key: &StateKey,
    version: Version,
    outcome: &Outcome,
    ttl: Duration,
) -> acteon_state_core::Result<bool> {
    let record = serde_json::to_vec(&DedupRecordRef::Done { outcome });
    let record = record.map_err(|error| {
        acteon_state_core::Error::invalid("the outcome cannot be written as JSON").with_key(key).with_source(error)
    })?;
    let put = Put::new(record).if_version(version).expires_after(ttl);
    state.put(key, &put).await.map(|outcome| outcome.is_applied())
}

/// Renews a claim at a third of its lease, until it is aborted or the claim is lost.
async fn renew(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(shared.lease / 3).await;
        let version = *shared.version.lock();
        let put = Put::new(shared.in_flight.clone()).if_version(version).expires_after(shared.lease);
        match shared.state.put(&shared.key, &put).await {
            Ok(PutOutcome::Applied(version)) => *shared.version.lock() = version,
            Ok(PutOutcome::NotMet(_)) => {
                tracing::warn!(key = %shared.key, "a deduplication claim was lost while its action is being executed");
                return;
            }
            Err(error) if error.effect() == Effect::Unknown => {
                // It may hold the new version or the old one: find out before the next step relies on either.
                adopt_own(&shared, put.version).await;
            }
            Err(error) => tracing::debug!(key = %shared.key, %error, "a deduplication claim was not renewed yet"),
        }
    }
}

async fn adopt_own(shared: &Shared, version: Version) {
    if let Ok(Some(entry)) = shared.state.get(&shared.key).await
        && entry.version == Some(version)
    {
        *shared.version.lock() = version;
    }
}

fn give_back_in_background(state: &State, key: StateKey, version: Version) {
    let state = state.clone();
    tokio::spawn(async move {
        if let Err(error) = state.delete(&key, Condition::Version(version)).await {
            tracing::debug!(%key, %error, "a deduplication claim of unknown effect was not given back");
        }
    });
}

fn to_bytes(record: &DedupRecord) -> Result<Bytes, DispatchError> {
    let json = serde_json::to_vec(record);
    json.map(Bytes::from).map_err(|error| DispatchError::Unstorable { message: error.to_string() })
}
