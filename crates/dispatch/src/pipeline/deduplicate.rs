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

use std::time::Duration;

use acteon_state_core::{
    Condition, Effect, Entry, Error, Gate, OperationId, Put, PutOutcome, State, StateKey, Ttl, Version,
};
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::keys;
use crate::outcome::Outcome;
use crate::pipeline::Dispatcher;
use crate::pipeline::ahead::Ahead;
use crate::pipeline::claim::{self, Claim, Held, Settlement};
use crate::pipeline::error::DispatchError;
use crate::pipeline::options::OnStateError;
use crate::rules::{Dedup, Verdict};

/// How often a delivery looks for the record that says `scheduled`, which may be written a moment after the action is due.
const RESOLVE_LOOKS_MAX: usize = 5;
/// The pause between two looks.
const RESOLVE_PAUSE: Duration = Duration::from_millis(50);

/// What is stored under a deduplication key.
#[derive(Debug, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum DedupRecord {
    /// Somebody is at it.
    InFlight { action_id: String },
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

/// A claim that is to be made.
#[derive(Debug)]
pub(super) struct Claiming {
    key: StateKey,
    put: Put,
}

impl Claiming {
    /// The claim as a gate.
    pub(super) fn gate(&self) -> Gate {
        Gate::Put(self.key.clone(), self.put.clone())
    }
}

impl Dispatcher {
    /// The claim that the action needs, if a rule deduplicates it.
    pub(super) fn claiming(&self, verdict: &Verdict) -> Result<Option<Claiming>, DispatchError> {
        let Some(dedup) = &verdict.dedup else { return Ok(None) };
        let key = keys::dedup(&verdict.action, dedup).map_err(DispatchError::state("deduplicate"))?;
        let in_flight = in_flight_record(&verdict.action.id);
        let put = Put::new(in_flight).if_absent().expires_after(self.0.options.claim_lease);
        Ok(Some(Claiming { key, put }))
    }

    pub(super) async fn deduplicate(
        &self,
        verdict: &Verdict,
        claiming: Option<&Claiming>,
        ahead: &mut Ahead,
    ) -> Result<Deduplicated, DispatchError> {
        let (Some(dedup), Some(claiming)) = (&verdict.dedup, claiming) else {
            return Ok(Deduplicated::First(None));
        };
        match self.claim(verdict, dedup, claiming, ahead.claim()).await {
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

    /// Makes the claim, unless the store has answered already.
    async fn claim(
        &self,
        verdict: &Verdict,
        dedup: &Dedup,
        claiming: &Claiming,
        answer: Option<acteon_state_core::Result<PutOutcome>>,
    ) -> Result<Deduplicated, DispatchError> {
        let failed = DispatchError::state("deduplicate");
        let Claiming { key, put } = claiming;
        let answer = match answer {
            Some(answer) => answer,
            None => self.0.state.put(key, put).await,
        };
        match answer {
            Ok(PutOutcome::Applied(version)) => {
                Ok(Deduplicated::First(Some(Claim::new(self.held(claiming, version), dedup.ttl))))
            }
            Ok(PutOutcome::NotMet(current)) => {
                let value = current.map(|entry| entry.value).unwrap_or_default();
                let record: DedupRecord = serde_json::from_slice(&value).map_err(|error| {
                    let message = "what is stored for this deduplication key is no record of a dispatcher";
                    failed(acteon_state_core::Error::corrupt(key, message).with_source(error))
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
                    let held = self.held(claiming, put.version);
                    claim::settle_in_background(held, Settlement::GiveBack, dedup.ttl, &self.0.tasks);
                }
                Err(failed(error))
            }
        }
    }

    fn held(&self, claiming: &Claiming, version: Version) -> Held {
        let (state, faults) = (self.0.state.clone(), self.0.faults.clone());
        let (key, in_flight) = (claiming.key.clone(), claiming.put.value.clone());
        Held { state, key, in_flight, lease: self.0.options.claim_lease, version: Mutex::new(version), faults }
    }

    /// Settles a claim, if there is one: stores the outcome for duplicates to come, or gives the claim back when a retry
    /// shall run.
    pub(super) async fn settle_claim(&self, claim: &mut Option<Claim>, result: &Result<Outcome, DispatchError>) {
        let Some(open) = claim else { return };
        let settlement = settlement(result);
        if !open.settle_once(&settlement).await
            && let Some(open) = claim.take()
        {
            open.settle_in_background(settlement, &self.0.tasks);
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

/// Room for a record of an id and names of usual length.
const RECORD_BYTES_USUAL: usize = 256;

fn settlement(result: &Result<Outcome, DispatchError>) -> Settlement {
    match result {
        Ok(outcome) if !retry_shall_run(outcome) => Settlement::Done(done_record(outcome)),
        Ok(_) | Err(_) => Settlement::GiveBack,
    }
}

fn retry_shall_run(outcome: &Outcome) -> bool {
    outcome.is_failed() || matches!(outcome, Outcome::Throttled { .. })
}

/// [`DedupRecord::InFlight`], with a name of the claim: it tells apart the claims of one action that is sent again, by the bytes of their
/// records, and is never read.
fn in_flight_record(action_id: &str) -> Bytes {
    let claim = OperationId::draw().to_text();
    record(&[br#"{"state":"in_flight","claim":""#, &claim, br#"","action_id":"#], action_id)
}

/// [`DedupRecord::Done`].
fn done_record(outcome: &Outcome) -> Bytes {
    record(&[br#"{"state":"done","outcome":"#], outcome)
}

/// The JSON of a record, of which all is known but what stands last.
fn record(known: &[&[u8]], last: &(impl Serialize + ?Sized)) -> Bytes {
    let mut json = Vec::with_capacity(RECORD_BYTES_USUAL);
    known.iter().for_each(|part| json.extend_from_slice(part));
    serde_json::to_writer(&mut json, last)
        .expect("texts and outcomes have string keys only and can be written as JSON");
    json.push(b'}');
    Bytes::from(json)
}

#[cfg(test)]
mod tests {
    use super::{DedupRecord, done_record, in_flight_record};
    use crate::outcome::Outcome;

    #[test]
    fn records_read_back_and_no_two_claims_have_the_same_bytes() {
        for id in ["a-1", r#"quoted "id" \\"#] {
            let (one, other) = (in_flight_record(id), in_flight_record(id));
            assert_ne!(one, other);
            let read: DedupRecord = serde_json::from_slice(&one).expect("own output");
            assert!(matches!(read, DedupRecord::InFlight { action_id } if action_id == id));
            let outcome = Outcome::Suppressed { action_id: id.to_owned(), rule: "r".to_owned() };
            let read: DedupRecord = serde_json::from_slice(&done_record(&outcome)).expect("own output");
            assert!(matches!(read, DedupRecord::Done { outcome: read } if read == outcome));
        }
    }

    #[test]
    fn a_record_of_an_earlier_version_is_read() {
        let earlier = br#"{"state":"in_flight","action_id":"a","claim":"0b61a5cc-1f0c-4d2c-9d0e-7d8f9a3c2b11"}"#;
        let read: DedupRecord = serde_json::from_slice(earlier).expect("a record");
        assert!(matches!(read, DedupRecord::InFlight { action_id } if action_id == "a"));
    }
}
