//! Deduplication: the first action of a key claims it, later ones get its outcome.
//!
//! # Guarantees
//! Of any number of actions with one key, one holds the claim at a time. Its outcome is stored for the rule's ttl when it is
//! settled, and replayed to duplicates. A claim whose action failed, was throttled or not answered is given back at once; one
//! whose server died ends with its lease.
//!
//! # How it works
//! The claim is a put-if-absent of an in-flight record, so a duplicate learns the first one's outcome in the same round trip.
//! The file `claim` renews it for as long as the work takes, and settles it.

use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::{Condition, Effect, Entry, Error, Put, PutOutcome, State, StateKey, Ttl, Version};
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::keys;
use crate::outcome::Outcome;
use crate::pipeline::Dispatcher;
use crate::pipeline::claim::{self, Claim, Held, Settlement};
use crate::pipeline::error::DispatchError;
use crate::pipeline::options::OnStateError;
use crate::rules::{Dedup, Verdict};

/// How often a delivery looks for the record that says `scheduled`, which may be written a moment after the action is due.
const RESOLVE_LOOKS_MAX: usize = 5;
/// The pause between two looks.
const RESOLVE_PAUSE: Duration = Duration::from_millis(50);

/// What is stored under a deduplication key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum DedupRecord {
    /// Somebody is at it.
    InFlight {
        action_id: String,
        /// Tells apart the claims of one action that is sent again.
        #[serde(default)]
        claim: String,
    },
    /// This is what became of the first one.
    Done { outcome: Outcome },
}

/// What the stage found.
pub(super) enum Deduplicated {
    /// No other action came first; the claim is `None` when nothing deduplicates it.
    First(Option<Claim>),
    /// Another action came first.
    Duplicate(Outcome),
}

impl Dispatcher {
    pub(super) async fn deduplicate(&self, verdict: &Verdict) -> Result<Deduplicated, DispatchError> {
        let Some(dedup) = &verdict.dedup else {
            return Ok(Deduplicated::First(None));
        };
        match self.claim(verdict, dedup).await {
            Err(DispatchError::State { stage, source }) if source.kind().is_transient() => {
                match self.without_store(verdict, dedup, &source).await {
                    Some(found) => Ok(found),
                    None => Err(DispatchError::State { stage, source }),
                }
            }
            result => result,
        }
    }

    /// What to make of an action of which the store does not say whether it is a duplicate; `None`: it is refused.
    async fn without_store(&self, verdict: &Verdict, dedup: &Dedup, error: &Error) -> Option<Deduplicated> {
        match self.0.options.on_state_error_dedup {
            OnStateError::Closed => None,
            OnStateError::Open => {
                if let Some(passed_over) = self.0.faults.admit("deduplicate") {
                    tracing::warn!(rule = %dedup.rule, %error, passed_over, "deduplication fails open");
                }
                self.0.metrics.failed_open("deduplicate");
                Some(Deduplicated::First(None))
            }
            OnStateError::Stale => {
                let key = keys::dedup(&verdict.action, dedup).ok()?;
                let entry = self.0.state.get(&key).await.ok()??;
                // That somebody is at it may have been over long ago. An outcome stays what it is.
                let DedupRecord::Done { outcome } = serde_json::from_slice(&entry.value).ok()? else { return None };
                Some(Deduplicated::Duplicate(duplicate(verdict, dedup, Some(outcome))))
            }
        }
    }

    async fn claim(&self, verdict: &Verdict, dedup: &Dedup) -> Result<Deduplicated, DispatchError> {
        let failed = DispatchError::state("deduplicate");
        let key = keys::dedup(&verdict.action, dedup).map_err(&failed)?;
        let in_flight = in_flight_record(&verdict.action.id);
        let lease = self.0.options.claim_lease;
        let put = Put::new(in_flight.clone()).if_absent().expires_after(lease);
        match self.0.state.put(&key, &put).await {
            Ok(PutOutcome::Applied(version)) => {
                Ok(Deduplicated::First(Some(Claim::new(self.held(key, in_flight, version), dedup.ttl))))
            }
            Ok(PutOutcome::NotMet(current)) => {
                let value = current.map(|entry| entry.value).unwrap_or_default();
                let record: DedupRecord = serde_json::from_slice(&value).map_err(|error| {
                    let message = "what is stored for this deduplication key is no record of a dispatcher";
                    failed(acteon_state_core::Error::corrupt(&key, message).with_source(error))
                })?;
                let original = match record {
                    DedupRecord::InFlight { .. } => None,
                    DedupRecord::Done { outcome } => Some(outcome),
                };
                Ok(Deduplicated::Duplicate(duplicate(verdict, dedup, original)))
            }
            Err(error) => {
                if error.effect() == Effect::Unknown {
                    // Otherwise a claim that was made all the same would stop the caller's retry for a whole lease.
                    let held = self.held(key, in_flight, put.version);
                    claim::settle_in_background(Arc::new(held), Settlement::GiveBack, dedup.ttl, &self.0.tasks);
                }
                Err(failed(error))
            }
        }
    }

    fn held(&self, key: StateKey, in_flight: Bytes, version: Version) -> Held {
        let (state, faults) = (self.0.state.clone(), self.0.faults.clone());
        Held { state, key, in_flight, lease: self.0.options.claim_lease, version: Mutex::new(version), faults }
    }

    /// Settles a claim, if there is one: stores the outcome for duplicates to come, or gives the claim back when a retry
    /// shall run.
    pub(super) async fn settle_claim(&self, claim: Option<Claim>, result: &Result<Outcome, DispatchError>) {
        if let Some(claim) = claim {
            claim.settle(settlement(result), &self.0.tasks).await;
        }
    }
}

/// Tells the record of a scheduled action what became of it: its outcome, or `None` when it was given up, so that the next
/// one runs. A record that is another action's by now stays as it is.
pub(crate) async fn resolve(
    state: &State,
    key: &StateKey,
    action_id: &str,
    outcome: Option<&Outcome>,
) -> acteon_state_core::Result<()> {
    for _ in 0..RESOLVE_LOOKS_MAX {
        let Some(Entry { value, version: Some(version), .. }) = state.get(key).await? else {
            return Ok(());
        };
        match serde_json::from_slice(&value) {
            Ok(DedupRecord::Done { outcome: Outcome::Scheduled { action_id: id, .. } }) if id == action_id => {}
            Ok(DedupRecord::InFlight { action_id: id, .. }) if id == action_id => {
                tokio::time::sleep(RESOLVE_PAUSE).await;
                continue;
            }
            _ => return Ok(()),
        }
        let applied = match outcome {
            None => state.delete(key, Condition::Version(version)).await?.is_deleted(),
            Some(outcome) => {
                let put = Put::new(done_record(outcome)).if_version(version).ttl(Ttl::Keep);
                state.put(key, &put).await?.is_applied()
            }
        };
        if applied {
            return Ok(());
        }
    }
    Ok(())
}

fn duplicate(verdict: &Verdict, dedup: &Dedup, original: Option<Outcome>) -> Outcome {
    let (action_id, rule) = (verdict.action.id.clone(), dedup.rule.to_string());
    Outcome::Deduplicated { action_id, rule, original: original.map(Box::new) }
}

/// `DedupRecord::Done` without owning the outcome.
#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum DedupRecordRef<'a> {
    Done { outcome: &'a Outcome },
}

fn settlement(result: &Result<Outcome, DispatchError>) -> Settlement {
    match result {
        Ok(outcome) if !retry_shall_run(outcome) => Settlement::Done(done_record(outcome)),
        Ok(_) | Err(_) => Settlement::GiveBack,
    }
}

fn retry_shall_run(outcome: &Outcome) -> bool {
    outcome.is_failed() || matches!(outcome, Outcome::Throttled { .. })
}

fn in_flight_record(action_id: &str) -> Bytes {
    let claim = Uuid::new_v4().to_string();
    let json = serde_json::to_vec(&DedupRecord::InFlight { action_id: action_id.to_owned(), claim });
    Bytes::from(json.expect("a record of two strings can be written as JSON"))
}

fn done_record(outcome: &Outcome) -> Bytes {
    let json = serde_json::to_vec(&DedupRecordRef::Done { outcome });
    Bytes::from(json.expect("an outcome has string keys only and can be written as JSON"))
}
