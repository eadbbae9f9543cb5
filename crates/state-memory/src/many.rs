//! Batches and transactions.
//!
//! # How a transaction is all or nothing
//! All keys are locked, then every condition is checked, then everything is written. Only the memory bound can refuse a write
//! by then. So what grows is written first, keeping a copy of what it replaces: undoing it shrinks and cannot fail. Deletes
//! and what shrinks come last and cannot fail either.

use acteon_engine::{EngineError, Expiry, Slot, Slots};
use acteon_state_core::counter::Step;
use acteon_state_core::many::{check_batch, check_transact};
use acteon_state_core::{
    BatchOp, BatchReply, Entry, Increment, Operation, Result, StateKey, TransactOp, TransactOutcome,
};

use smallvec::SmallVec;

use crate::counter;
use crate::error::classify;
use crate::store::{Handle, Now};
use crate::text::{KeyText, value_text};
use crate::value::{self, Current, check_delete, live_entry};

impl Handle {
    pub(crate) fn batch(&self, ops: &[BatchOp], now: Now) -> Result<Vec<Result<BatchReply>>> {
        check_batch(ops)?;
        Ok(ops.iter().map(|op| self.batch_op(op, now)).collect())
    }

    fn batch_op(&self, op: &BatchOp, now: Now) -> Result<BatchReply> {
        let reply = match op {
            BatchOp::Get(key, get) => self.get(key, *get, now).map(BatchReply::Got),
            BatchOp::Put(key, put) => self.put(key, put, now).map(BatchReply::Put),
            BatchOp::Delete(key, condition) => self.delete(key, *condition, now).map(BatchReply::Deleted),
            BatchOp::Take(key) => self.take(key, now).map(BatchReply::Taken),
            BatchOp::Increment(key, increment) => self.increment(key, *increment, now).map(BatchReply::Incremented),
        };
        reply.map_err(|error| Self::locate(error, Operation::Batch))
    }

    pub(crate) fn transact(&self, ops: &[TransactOp], now: Now) -> Result<TransactOutcome> {
        check_transact(ops, &self.capabilities)?;
        for op in ops {
            if let TransactOp::Delete(_, condition) = op {
                check_delete(*condition)?;
            }
        }
        let texts: Vec<KeyText> = ops.iter().map(|op| value_text(&self.keyspace, op.key())).collect();
        let keys: Vec<&[u8]> = texts.iter().map(|text| &**text).collect();
        self.shared.engine.update_many(&keys, now.ms(), |slots| {
            if was_committed(ops, slots)? {
                return Ok(TransactOutcome::Committed);
            }
            let mut plans = Vec::with_capacity(ops.len());
            for (index, op) in ops.iter().enumerate() {
                match plan(op, &slots.slot(index), now)? {
                    Planned::Holds(plan) => plans.push(plan),
                    Planned::Refused(current) => return Ok(TransactOutcome::Refused { index, current }),
                }
            }
            apply(ops, &plans, slots)?;
            Ok(TransactOutcome::Committed)
        })
    }
}

/// Whether the same transaction, sent before, is found by the version of one of its puts: versions never repeat.
fn was_committed(ops: &[TransactOp], slots: &mut Slots<'_>) -> Result<bool> {
    for (index, op) in ops.iter().enumerate() {
        if let TransactOp::Put(key, put) = op
            && matches!(Current::read(key, &slots.slot(index))?, Current::Value { version, .. } if version == put.version)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is to be done to one key.
enum Plan {
    Nothing,
    Remove,
    /// Write the head and, of a put, its value.
    Write {
        head: Head,
        expiry: Expiry,
    },
}

/// The header of a value, or the text of a counter.
type Head = SmallVec<[u8; 64]>;

enum Planned {
    Holds(Plan),
    Refused(Option<Entry>),
}

fn plan(op: &TransactOp, slot: &Slot<'_>, now: Now) -> Result<Planned> {
    let key = op.key();
    let current = Current::read(key, slot)?;
    let plan = match op {
        TransactOp::Check(_, condition) => current.meets(key, *condition)?.then_some(Plan::Nothing),
        TransactOp::Delete(_, condition) => current.meets(key, *condition)?.then_some(Plan::Remove),
        TransactOp::Put(_, put) if current.meets(key, put.condition)? => {
            let head = Head::from_slice(value::header(put, current).as_bytes());
            Some(Plan::Write { head, expiry: value::expiry(put.ttl, now)? })
        }
        TransactOp::Put(..) => None,
        TransactOp::Increment(_, increment) => count(key, current, increment, now)?,
    };
    Ok(match plan {
        Some(plan) => Planned::Holds(plan),
        None => Planned::Refused(live_entry(key, slot)?),
    })
}

fn count(key: &StateKey, current: Current, increment: &Increment, now: Now) -> Result<Option<Plan>> {
    let window_ms = increment.check()?;
    let is_new = matches!(current, Current::Absent);
    Ok(match counter::step(key, current, increment)? {
        Step::Applied(value) | Step::Clamped(value) => {
            let head = Head::from_slice(itoa::Buffer::new().format(value).as_bytes());
            Some(Plan::Write { head, expiry: counter::expiry(increment, window_ms, is_new, now) })
        }
        Step::Refused | Step::Overflow => None,
    })
}

fn apply(ops: &[TransactOp], plans: &[Plan], slots: &mut Slots<'_>) -> Result<()> {
    let mut undo: Vec<Before> = Vec::new();
    let mut is_written = vec![false; ops.len()];
    for (index, (op, plan)) in ops.iter().zip(plans).enumerate() {
        let Plan::Write { head, expiry } = plan else { continue };
        let parts = [&**head, value_of(op)];
        if !grows(&slots.slot(index), parts) {
            continue;
        }
        undo.push(Before::of(index, &slots.slot(index)));
        let done = write(&mut slots.slot(index), parts, *expiry);
        if let Err(error) = done {
            for before in undo.into_iter().rev() {
                before.put_back(slots);
            }
            return Err(classify(op.key(), error));
        }
        is_written[index] = true;
    }
    for (index, (op, plan)) in ops.iter().zip(plans).enumerate() {
        match plan {
            Plan::Nothing => {}
            Plan::Remove => _ = slots.slot(index).remove(),
            Plan::Write { .. } if is_written[index] => {}
            Plan::Write { head, expiry } => {
                let done = write(&mut slots.slot(index), [&**head, value_of(op)], *expiry);
                assert!(done.is_ok(), "a write that is not longer than what it replaces is never refused: {done:?}");
            }
        }
    }
    Ok(())
}

/// Whether the engine may have to find memory for this text.
fn grows(slot: &Slot<'_>, parts: [&[u8]; 2]) -> bool {
    let before = slot.get().and_then(|stored| stored.as_str());
    before.is_none_or(|before| before.len() < parts[0].len() + parts[1].len())
}

/// A deadline takes memory as well, but setting one is never refused. Set first, it leaves the text to be judged alone.
fn write(slot: &mut Slot<'_>, parts: [&[u8]; 2], expiry: Expiry) -> Result<(), EngineError> {
    if slot.set_expiry(expiry) { slot.set_str(&parts, Expiry::Keep) } else { slot.set_str(&parts, expiry) }
}

fn value_of(op: &TransactOp) -> &[u8] {
    match op {
        TransactOp::Put(_, put) => &put.value,
        TransactOp::Check(..) | TransactOp::Delete(..) | TransactOp::Increment(..) => &[],
    }
}

/// What a key held before it was written.
struct Before {
    index: usize,
    bytes: Option<Vec<u8>>,
    expiry: Expiry,
}

impl Before {
    fn of(index: usize, slot: &Slot<'_>) -> Self {
        let stored = slot.get();
        let expires_at_ms = stored.and_then(|stored| stored.expires_at_ms());
        Self {
            index,
            bytes: stored.and_then(|stored| stored.as_str()).map(<[u8]>::to_vec),
            expiry: expires_at_ms.map_or(Expiry::Clear, Expiry::At),
        }
    }

    fn put_back(self, slots: &mut Slots<'_>) {
        let mut slot = slots.slot(self.index);
        let Some(bytes) = self.bytes else {
            slot.remove();
            return;
        };
        let done = write(&mut slot, [&bytes, &[]], self.expiry);
        assert!(done.is_ok(), "what was replaced is not longer than its successor, so it fits again: {done:?}");
    }
}
