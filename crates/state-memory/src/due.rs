//! The due index: a sorted set of ids by the time at which they are handed out next, and a hash of the items.
//!
//! Both keys change in one atomic step, and vanish with their last item.

use std::time::Duration;

use acteon_engine::{HashMut, Slots, Zset};
use acteon_state_core::due::{DUE_AT_MS_MAX, check_item_id};
use acteon_state_core::entry::duration_ms;
use acteon_state_core::key::Companion;
use acteon_state_core::record::ItemRecord;
use acteon_state_core::{
    ClaimDue, ClaimOutcome, ClaimToken, Claimed, DueAt, DueItem, Error, Result, Schedule, Scheduled, StateKey,
};
use bytes::Bytes;

use crate::error::{classify, foreign};
use crate::store::{Handle, Now};
use crate::text::companion_text;

/// Positions in the update of a queue.
const DUE: usize = 0;
const ITEMS: usize = 1;

impl Handle {
    pub(crate) fn schedule(&self, queue: &StateKey, schedule: &Schedule, now: Now) -> Result<Scheduled> {
        schedule.check(&self.capabilities)?;
        // Zero is due now; everything else is never early: the current millisecond counts as over.
        let now_ms = if schedule.due_at == DueAt::After(Duration::ZERO) { now.ms() } else { now.ceil_ms() };
        let due_at_ms = schedule.due_at_ms(now_ms).min(DUE_AT_MS_MAX);
        let item = ItemRecord { claim: None, attempt: 0, due_at_ms, payload: &schedule.payload };
        self.in_queue(queue, now, |queue| {
            let is_new = queue.store(schedule.id.as_bytes(), &item, due_at_ms)?;
            Ok(if is_new { Scheduled::Created } else { Scheduled::Replaced })
        })
    }

    pub(crate) fn cancel(&self, queue: &StateKey, id: &str, now: Now) -> Result<bool> {
        check_item_id(id)?;
        self.in_queue(queue, now, |queue| queue.remove(id.as_bytes()))
    }

    pub(crate) fn claim_due(&self, queue: &StateKey, claim: ClaimDue, now: Now) -> Result<Claimed> {
        let visibility_ms = claim.check(&self.capabilities)?;
        let visible_at_ms = visible_at_ms(now, visibility_ms);
        self.in_queue(queue, now, |queue| {
            let ids = queue.due_ids(claim.limit, now)?;
            let (items, next_due_at_ms) = queue.claim(ids, visible_at_ms)?;
            Ok(Claimed { items, next_due_in: next_due_at_ms.map(|at_ms| now.until_ms(at_ms)) })
        })
    }

    pub(crate) fn ack(&self, queue: &StateKey, id: &str, token: ClaimToken, now: Now) -> Result<ClaimOutcome> {
        check_item_id(id)?;
        self.in_queue(queue, now, |queue| {
            if !queue.is_claimed_by(id.as_bytes(), token)? {
                return Ok(ClaimOutcome::Lost);
            }
            queue.remove(id.as_bytes())?;
            Ok(ClaimOutcome::Done)
        })
    }

    pub(crate) fn extend_claim(
        &self,
        queue: &StateKey,
        id: &str,
        token: ClaimToken,
        visibility: Duration,
        now: Now,
    ) -> Result<ClaimOutcome> {
        check_item_id(id)?;
        let visible_at_ms = visible_at_ms(now, duration_ms("visibility", visibility)?);
        self.in_queue(queue, now, |queue| {
            if !queue.is_claimed_by(id.as_bytes(), token)? {
                return Ok(ClaimOutcome::Lost);
            }
            queue.set_due(id.as_bytes(), visible_at_ms)?;
            Ok(ClaimOutcome::Done)
        })
    }

    fn in_queue<R>(&self, key: &StateKey, now: Now, change: impl FnOnce(&mut Queue<'_, '_>) -> Result<R>) -> Result<R> {
        let due = companion_text(&self.keyspace, key, Companion::Due);
        let items = companion_text(&self.keyspace, key, Companion::Items);
        self.shared.engine.update_many(&[&due, &items], now.ms(), |slots| change(&mut Queue { key, slots }))
    }
}

/// Never early: the current millisecond counts as over.
fn visible_at_ms(now: Now, visibility_ms: u64) -> u64 {
    now.ceil_ms().saturating_add(visibility_ms).min(DUE_AT_MS_MAX)
}

/// One queue, locked.
struct Queue<'q, 'e> {
    key: &'q StateKey,
    slots: &'q mut Slots<'e>,
}

impl Queue<'_, '_> {
    /// Stores an item and when it is handed out. Returns whether its id is new. When it fails nothing has changed.
    fn store(&mut self, id: &[u8], item: &ItemRecord<'_>, due_at_ms: u64) -> Result<bool> {
        let before_ms = self.set_due(id, due_at_ms)?;
        let mut bytes = Vec::new();
        item.write(&mut bytes);
        let stored = self.slots.slot(ITEMS).hash_mut().and_then(|mut items| items.insert(id, &bytes));
        if let Err(error) = stored {
            match before_ms {
                Some(before_ms) => _ = self.set_due(id, before_ms)?,
                None => self.remove_due(id)?,
            }
            return Err(classify(self.key, error));
        }
        Ok(before_ms.is_none())
    }

    fn remove(&mut self, id: &[u8]) -> Result<bool> {
        self.remove_due(id)?;
        let mut slot = self.slots.slot(ITEMS);
        let mut items = slot.hash_mut().map_err(|error| classify(self.key, error))?;
        Ok(items.remove(id).is_some())
    }

    /// Hands out the items of these ids, and says when the next one of the queue is due.
    fn claim(&mut self, ids: Vec<Vec<u8>>, visible_at_ms: u64) -> Result<(Vec<DueItem>, Option<u64>)> {
        if ids.is_empty() {
            return Ok((Vec::new(), self.next_due_at_ms()?));
        }
        let items = self.claim_items(ids)?;
        let mut slot = self.slots.slot(DUE);
        let mut due = slot.sorted_set_mut().map_err(|error| classify(self.key, error))?;
        for item in &items {
            // Never refused: the id has a time already.
            due.insert(item.id.as_bytes(), visible_at_ms as f64).map_err(|error| classify(self.key, error))?;
        }
        Ok((items, first_due_at_ms(&due)))
    }

    /// Writes new claims. What was claimed before an item that does not parse is ours; the rest is still there, and tells the next claim
    /// what is wrong.
    fn claim_items(&mut self, ids: Vec<Vec<u8>>) -> Result<Vec<DueItem>> {
        let mut slot = self.slots.slot(ITEMS);
        let mut stored = slot.hash_mut().map_err(|error| classify(self.key, error))?;
        let mut items = Vec::with_capacity(ids.len());
        let mut record = Vec::new();
        for id in ids {
            match claim_item(&mut stored, id, &mut record) {
                Some(item) => items.push(item),
                None if items.is_empty() => return Err(corrupt_item(self.key)),
                None => break,
            }
        }
        Ok(items)
    }

    fn is_claimed_by(&mut self, id: &[u8], token: ClaimToken) -> Result<bool> {
        let slot = self.slots.slot(ITEMS);
        let Some(stored) = slot.get() else {
            return Ok(false);
        };
        let Some(item) = stored.hash().ok_or_else(|| foreign(self.key))?.get(id) else {
            return Ok(false);
        };
        let item = ItemRecord::parse(item).ok_or_else(|| corrupt_item(self.key))?;
        Ok(item.claim == Some(token))
    }

    fn due_ids(&mut self, limit: u32, now: Now) -> Result<Vec<Vec<u8>>> {
        let slot = self.slots.slot(DUE);
        let Some(stored) = slot.get() else {
            return Ok(Vec::new());
        };
        let due = stored.sorted_set().ok_or_else(|| foreign(self.key))?;
        let ids = due.range(due.ranks_by_score(&(f64::NEG_INFINITY..=now.ms() as f64).into())).take(limit as usize);
        Ok(ids.map(|(id, _)| id.to_vec()).collect())
    }

    fn next_due_at_ms(&mut self) -> Result<Option<u64>> {
        let slot = self.slots.slot(DUE);
        let Some(stored) = slot.get() else {
            return Ok(None);
        };
        let due = stored.sorted_set().ok_or_else(|| foreign(self.key))?;
        Ok(first_due_at_ms(due))
    }

    /// Returns the time that the item had before.
    fn set_due(&mut self, id: &[u8], due_at_ms: u64) -> Result<Option<u64>> {
        let mut slot = self.slots.slot(DUE);
        let mut due = slot.sorted_set_mut().map_err(|error| classify(self.key, error))?;
        let before_ms = due.score(id).map(|at_ms| at_ms as u64);
        due.insert(id, due_at_ms as f64).map_err(|error| classify(self.key, error))?;
        Ok(before_ms)
    }

    fn remove_due(&mut self, id: &[u8]) -> Result<()> {
        let mut slot = self.slots.slot(DUE);
        let mut due = slot.sorted_set_mut().map_err(|error| classify(self.key, error))?;
        due.remove(id);
        Ok(())
    }
}

fn first_due_at_ms(due: &Zset) -> Option<u64> {
    due.by_rank(0).map(|(_, at_ms)| at_ms as u64)
}

/// Claims one item in its record; `None` when there is none that parses. `record` is a buffer.
fn claim_item(stored: &mut HashMut<'_>, id: Vec<u8>, record: &mut Vec<u8>) -> Option<DueItem> {
    let item = stored.get(&id).and_then(ItemRecord::parse)?;
    let token = ClaimToken::draw();
    let claimed = ItemRecord { claim: Some(token), attempt: item.attempt.saturating_add(1), ..item };
    claimed.write(record);
    let handed_out = DueItem {
        id: String::from_utf8(id).ok()?,
        payload: Bytes::copy_from_slice(claimed.payload),
        due_at_ms: claimed.due_at_ms,
        attempt: claimed.attempt,
        token,
    };
    // Never refused: a full store gets its memory back by working its queues off, and a claim adds some 20 bytes.
    stored.insert_always(handed_out.id.as_bytes(), record);
    Some(handed_out)
}

fn corrupt_item(queue: &StateKey) -> Error {
    Error::corrupt(queue, "an item of the queue does not parse, or its time is there without it")
}
