//! Scheduling: the action is put into the due index, for a worker of any server to deliver.
//!
//! # Guarantees
//! Once the outcome says `scheduled`, the action is stored and will be delivered at least once after its time. Scheduling
//! the same action id again replaces the earlier schedule.

use std::time::Duration;

use acteon_state_core::{DueAt, Schedule};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::keys;
use crate::outcome::Outcome;
use crate::pipeline::Dispatcher;
use crate::pipeline::error::DispatchError;
use crate::rules::{Dedup, Verdict};

/// What the due index holds: an action whose rules were applied already.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Deferred {
    /// The action as the rules left it.
    pub(crate) action: Action,
    /// The rule and key that remember its outcome, if any: told when it was delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dedup: Option<DeferredDedup>,
}

/// Which deduplication key remembers a deferred action.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DeferredDedup {
    rule: String,
    key: String,
}

impl DeferredDedup {
    /// The state key of the record.
    pub(crate) fn state_key(&self, action: &Action) -> acteon_state_core::Result<acteon_state_core::StateKey> {
        let dedup = Dedup { rule: self.rule.as_str().into(), key: self.key.clone(), ttl: Duration::ZERO };
        keys::dedup(action, &dedup)
    }
}

/// When to execute an action that arrives now: `None` for at once.
pub(super) fn due_at(action: &Action, delay: Duration) -> Option<Timestamp> {
    let now = Timestamp::now();
    let delayed = (!delay.is_zero()).then(|| now.saturating_add(delay).unwrap_or(Timestamp::MAX));
    let asked = action.deliver_at.filter(|deliver_at| *deliver_at > now);
    delayed.max(asked)
}

impl Dispatcher {
    pub(super) async fn schedule(&self, verdict: &Verdict, deliver_at: Timestamp) -> Result<Outcome, DispatchError> {
        let failed = DispatchError::state("schedule");
        let dedup = verdict.dedup.as_ref();
        let deferred = Deferred {
            action: verdict.action.clone(),
            dedup: dedup.map(|dedup| DeferredDedup { rule: dedup.rule.to_string(), key: dedup.key.clone() }),
        };
        let payload = serde_json::to_vec(&deferred);
        let payload = payload.map_err(|error| DispatchError::Unstorable { message: error.to_string() })?;
        let id = keys::schedule_id(&verdict.action);
        let due_at = DueAt::UnixMs(u64::try_from(deliver_at.as_millisecond()).unwrap_or(0));
        let schedule = Schedule { id: id.clone(), due_at, payload: Bytes::from(payload) };
        self.0.state.schedule(&keys::queue().map_err(&failed)?, &schedule).await.map_err(failed)?;
        self.0.scheduled.notify_one();
        Ok(Outcome::Scheduled { action_id: verdict.action.id.clone(), schedule_id: id, deliver_at })
    }
}
