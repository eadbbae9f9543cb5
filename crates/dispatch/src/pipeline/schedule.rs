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

/// When a deferred action is to be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// As the caller is told.
    deliver_at: Timestamp,
    /// As the store is told: a delay runs by its clock, so that ours may differ.
    due_at: DueAt,
}

/// When to execute an action that arrives now: `None` for at once. The later of the rule's delay and the caller's time. The clock is read
/// for those actions only that have either.
pub(super) fn due(action: &Action, delay: Duration, now: impl FnOnce() -> Timestamp) -> Option<Due> {
    if delay.is_zero() && action.deliver_at.is_none() {
        return None;
    }
    let now = now();
    let asked = action.deliver_at.filter(|deliver_at| *deliver_at > now);
    let delayed = (!delay.is_zero()).then(|| now.saturating_add(delay).unwrap_or(Timestamp::MAX));
    if let Some(deliver_at) = delayed.filter(|delayed| asked.is_none_or(|asked| asked <= *delayed)) {
        return Some(Due { deliver_at, due_at: DueAt::After(delay) });
    }
    asked.map(|deliver_at| Due { deliver_at, due_at: DueAt::UnixMs(ceil_unix_ms(deliver_at)) })
}

/// Rounded up: an action must not be executed before its time, not even by a fraction of a millisecond.
fn ceil_unix_ms(at: Timestamp) -> u64 {
    let floor = at.as_millisecond();
    let beyond = at.as_nanosecond() > i128::from(floor) * 1_000_000;
    u64::try_from(floor + i64::from(beyond)).unwrap_or(0)
}

impl Dispatcher {
    pub(super) async fn schedule(&self, verdict: &Verdict, due: Due) -> Result<Outcome, DispatchError> {
        let failed = DispatchError::state("schedule");
        let dedup = verdict.dedup.as_ref();
        let deferred = Deferred {
            action: verdict.action.clone(),
            dedup: dedup.map(|dedup| DeferredDedup { rule: dedup.rule.to_string(), key: dedup.key.clone() }),
        };
        let payload = serde_json::to_vec(&deferred);
        let payload = payload.map_err(|error| DispatchError::Unstorable { message: error.to_string() })?;
        let id = keys::schedule_id(&verdict.action);
        let Due { deliver_at, due_at } = due;
        let schedule = Schedule { id: id.clone(), due_at, payload: Bytes::from(payload) };
        self.0.state.schedule(&keys::queue().map_err(&failed)?, &schedule).await.map_err(failed)?;
        self.0.scheduled.notify_one();
        Ok(Outcome::Scheduled { action_id: verdict.action.id.clone(), schedule_id: id, deliver_at })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use acteon_state_core::DueAt;
    use jiff::Timestamp;
    use serde_json::json;

    use super::{Due, due};
    use crate::action::Action;

    fn due_of(deliver_at: Option<&str>, delay_s: u64) -> Option<Due> {
        let action = Action::new("demo", "acme", "log", "greet", json!({}));
        let deliver_at = deliver_at.map(|at| at.parse().expect("a timestamp"));
        let now: Timestamp = "2026-11-20T10:00:00Z".parse().expect("a timestamp");
        due(&Action { deliver_at, ..action }, Duration::from_secs(delay_s), || now)
    }

    #[test]
    fn the_later_of_delay_and_asked_time_counts() {
        assert_eq!(due_of(None, 0), None);
        assert_eq!(due_of(Some("2026-11-20T09:00:00Z"), 0), None, "in the past means now");
        let at = |time: &str| time.parse::<Timestamp>().expect("a timestamp");
        let after = |s| DueAt::After(Duration::from_secs(s));
        let (ten_later, hour_later) = ("2026-11-20T10:00:10Z", "2026-11-20T11:00:00Z");
        let unix_ms = |time: &str| DueAt::UnixMs(u64::try_from(at(time).as_millisecond()).expect("after 1970"));
        assert_eq!(due_of(None, 10), Some(Due { deliver_at: at(ten_later), due_at: after(10) }));
        assert_eq!(due_of(Some(ten_later), 3_600), Some(Due { deliver_at: at(hour_later), due_at: after(3_600) }));
        assert_eq!(due_of(Some(hour_later), 10), Some(Due { deliver_at: at(hour_later), due_at: unix_ms(hour_later) }));
    }

    #[test]
    fn a_fraction_of_a_millisecond_is_not_cut_off() {
        let Some(Due { due_at: DueAt::UnixMs(due_ms), .. }) = due_of(Some("2026-11-20T10:00:01.0000001Z"), 0) else {
            panic!("an absolute time");
        };
        assert_eq!(due_ms % 1_000, 1);
    }
}
