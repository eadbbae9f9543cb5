//! The due index: items by id, each with the time at which it can be handed out next.
//!
//! Items of one time may be handed out in any order, so a claim is checked rather than predicted: the model looks at what the
//! driver handed out, says whether that was allowed, and goes on from there.

use std::collections::BTreeMap;
use std::time::Duration;

use acteon_state_core::{ClaimOutcome, ClaimToken, Claimed, DueAt, DueItem, Schedule, Scheduled, StateKey};
use bytes::Bytes;

/// All queues.
#[derive(Debug, Default)]
pub(crate) struct Queues(BTreeMap<StateKey, BTreeMap<String, Item>>);

#[derive(Debug)]
struct Item {
    payload: Bytes,
    available_at: Duration,
    attempt: u32,
    claim: Option<ClaimToken>,
}

impl Queues {
    pub(crate) fn schedule(&mut self, queue: &StateKey, schedule: &Schedule, now: Duration) -> Scheduled {
        let available_at = match schedule.due_at {
            // The model's clock starts long after 1970, so these are in the past, in their order.
            DueAt::UnixMs(at_ms) => Duration::from_millis(at_ms),
            DueAt::After(delay) => now + delay,
        };
        let item = Item { payload: schedule.payload.clone(), available_at, attempt: 0, claim: None };
        match self.0.entry(queue.clone()).or_default().insert(schedule.id.clone(), item) {
            None => Scheduled::Created,
            Some(_) => Scheduled::Replaced,
        }
    }

    pub(crate) fn cancel(&mut self, queue: &StateKey, id: &str) -> bool {
        self.0.get_mut(queue).is_some_and(|items| items.remove(id).is_some())
    }

    pub(crate) fn ack(&mut self, queue: &StateKey, id: &str, token: ClaimToken) -> ClaimOutcome {
        match self.claimed(queue, id, token) {
            Some(_) => {
                self.cancel(queue, id);
                ClaimOutcome::Done
            }
            None => ClaimOutcome::Lost,
        }
    }

    pub(crate) fn extend(&mut self, queue: &StateKey, id: &str, token: ClaimToken, until: Duration) -> ClaimOutcome {
        match self.claimed(queue, id, token) {
            Some(item) => {
                item.available_at = until;
                ClaimOutcome::Done
            }
            None => ClaimOutcome::Lost,
        }
    }

    fn claimed(&mut self, queue: &StateKey, id: &str, token: ClaimToken) -> Option<&mut Item> {
        self.0.get_mut(queue)?.get_mut(id).filter(|item| item.claim == Some(token))
    }

    /// Follows a claim. Returns how long it is until the next item can be handed out; or, when the driver is wrong, what
    /// was expected.
    pub(crate) fn claim(
        &mut self,
        queue: &StateKey,
        limit: u32,
        visibility: Duration,
        now: Duration,
        got: &Claimed,
    ) -> Result<Option<Duration>, String> {
        let items = self.0.entry(queue.clone()).or_default();
        let mut available: Vec<Duration> =
            items.values().map(|item| item.available_at).filter(|at| *at <= now).collect();
        available.sort_unstable();
        available.truncate(limit as usize);
        let handed_out: Vec<Option<Duration>> =
            got.items.iter().map(|item| items.get(&item.id).map(|item| item.available_at)).collect();
        let expected: Vec<Option<Duration>> = available.into_iter().map(Some).collect();
        if handed_out != expected {
            return Err(format!("items of these times, in this order: {expected:?}, not {handed_out:?}"));
        }
        for got in &got.items {
            hand_out(items, got, now + visibility)?;
        }
        Ok(items.values().map(|item| item.available_at).min().map(|at| at.saturating_sub(now)))
    }
}

fn hand_out(items: &mut BTreeMap<String, Item>, got: &DueItem, until: Duration) -> Result<(), String> {
    let item = items.get_mut(&got.id).ok_or_else(|| format!("item {:?} once", got.id))?;
    item.attempt += 1;
    if (item.attempt, &item.payload) != (got.attempt, &got.payload) {
        return Err(format!("item {:?}, attempt {}, with payload {:?}", got.id, item.attempt, item.payload));
    }
    item.claim = Some(got.token);
    item.available_at = until;
    Ok(())
}
