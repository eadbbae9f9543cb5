//! Values: get, put, delete, take and touch.
//!
//! What is done to one key is written down once, for a [`Slot`]; `many.rs` uses the same steps.

use std::time::Duration;

use acteon_engine::{Expiry, Ref, Slot};
use acteon_state_core::record::{Record, ValueHeader};
use acteon_state_core::{
    Condition, DeleteOutcome, Entry, Error, FencingToken, Get, Put, PutOutcome, Result, StateKey, Ttl, Version,
};
use bytes::Bytes;

use crate::error::{classify, foreign};
use crate::store::{Handle, Now};
use crate::text::value_text;

impl Handle {
    pub(crate) fn get(&self, key: &StateKey, get: Get, now: Now) -> Result<Option<Entry>> {
        let text = value_text(&self.keyspace, key);
        self.shared.engine.read(&text, now.ms(), |stored| {
            stored.map(|stored| entry(key, stored, get.with_ttl.then_some(now))).transpose()
        })
    }

    pub(crate) fn put(&self, key: &StateKey, put: &Put, now: Now) -> Result<PutOutcome> {
        put.check(&self.capabilities)?;
        let text = value_text(&self.keyspace, key);
        self.shared.engine.update(&text, now.ms(), |slot| {
            let current = Current::read(key, slot)?;
            if matches!(current, Current::Value { version, .. } if version == put.version) {
                // The same request, repeated: it was applied the first time.
                return Ok(PutOutcome::Applied(put.version));
            }
            if !current.meets(key, put.condition)? {
                return Ok(PutOutcome::NotMet(live_entry(key, slot)?));
            }
            write(key, slot, put, current, now)?;
            Ok(PutOutcome::Applied(put.version))
        })
    }

    pub(crate) fn delete(&self, key: &StateKey, condition: Condition, now: Now) -> Result<DeleteOutcome> {
        check_delete(condition)?;
        condition.check(&self.capabilities)?;
        let text = value_text(&self.keyspace, key);
        self.shared.engine.update(&text, now.ms(), |slot| {
            // Without a look at what is stored, so that what does not parse can be got rid of.
            let is_blind = matches!(condition, Condition::Always | Condition::Present);
            if is_blind || Current::read(key, slot)?.meets(key, condition)? {
                let was_there = slot.remove();
                return Ok(if was_there { DeleteOutcome::Deleted } else { DeleteOutcome::Absent });
            }
            Ok(live_entry(key, slot)?.map_or(DeleteOutcome::Absent, DeleteOutcome::NotMet))
        })
    }

    pub(crate) fn take(&self, key: &StateKey, now: Now) -> Result<Option<Entry>> {
        let text = value_text(&self.keyspace, key);
        self.shared.engine.update(&text, now.ms(), |slot| {
            let entry = live_entry(key, slot)?;
            slot.remove();
            Ok(entry)
        })
    }

    pub(crate) fn touch(&self, key: &StateKey, ttl: Ttl, now: Now) -> Result<bool> {
        let expiry = expiry(ttl, now)?;
        let text = value_text(&self.keyspace, key);
        Ok(self.shared.engine.update(&text, now.ms(), |slot| slot.set_expiry(expiry)))
    }
}

/// What decides about a write, copied out so that the slot is free to be written.
#[derive(Clone, Copy)]
pub(crate) enum Current {
    Absent,
    Value { version: Version, fence: Option<FencingToken> },
    Counter(i64),
}

impl Current {
    pub(crate) fn read(key: &StateKey, slot: &Slot<'_>) -> Result<Self> {
        let Some(stored) = slot.get() else {
            return Ok(Self::Absent);
        };
        Ok(match record(key, stored)? {
            Record::Value { version, fence, .. } => Self::Value { version, fence },
            Record::Counter(number) => Self::Counter(number),
        })
    }

    pub(crate) fn meets(self, key: &StateKey, condition: Condition) -> Result<bool> {
        Ok(match (condition, self) {
            (Condition::Always, _) => true,
            (Condition::Absent, current) => matches!(current, Self::Absent),
            (Condition::Present, current) => !matches!(current, Self::Absent),
            (Condition::Version(_), Self::Absent) => false,
            (Condition::Version(wanted), Self::Value { version, .. }) => version == wanted,
            (Condition::Fence(_), Self::Absent) => true,
            (Condition::Fence(token), Self::Value { fence, .. }) => fence.is_none_or(|stored| stored <= token),
            (Condition::Version(_) | Condition::Fence(_), Self::Counter(_)) => {
                return Err(Error::wrong_type(key, "the key holds a counter, which has neither version nor fence"));
            }
        })
    }
}

/// Writes a value whose condition holds.
fn write(key: &StateKey, slot: &mut Slot<'_>, put: &Put, current: Current, now: Now) -> Result<()> {
    let header = header(put, current);
    slot.set_str(&[header.as_bytes(), &put.value], expiry(put.ttl, now)?).map_err(|error| classify(key, error))
}

/// What precedes a value whose condition holds. The fence of the value before it survives.
pub(crate) fn header(put: &Put, current: Current) -> ValueHeader {
    let fence = match (put.condition, current) {
        (Condition::Fence(token), _) => Some(token),
        (_, Current::Value { fence, .. }) => fence,
        (_, Current::Absent | Current::Counter(_)) => None,
    };
    ValueHeader::new(put.version, fence)
}

/// `Absent` as the condition of a delete contradicts itself.
pub(crate) fn check_delete(condition: Condition) -> Result<()> {
    if condition == Condition::Absent {
        return Err(Error::invalid("a delete cannot require that the key is absent; use another condition"));
    }
    Ok(())
}

/// What is stored, for a caller; without its time to live.
pub(crate) fn live_entry(key: &StateKey, slot: &Slot<'_>) -> Result<Option<Entry>> {
    slot.get().map(|stored| entry(key, stored, None)).transpose()
}

/// What is stored, for a caller; with the time to live it has left at `ttl_at`.
pub(crate) fn entry(key: &StateKey, stored: Ref<'_>, ttl_at: Option<Now>) -> Result<Entry> {
    let ttl = ttl_at.and_then(|now| remaining(stored, now));
    Ok(match record(key, stored)? {
        Record::Value { version, fence, value } => {
            Entry { value: Bytes::copy_from_slice(value), version: Some(version), fence, ttl }
        }
        Record::Counter(number) => {
            let mut text = itoa::Buffer::new();
            let value = Bytes::copy_from_slice(text.format(number).as_bytes());
            Entry { value, version: None, fence: None, ttl }
        }
    })
}

fn record<'a>(key: &StateKey, stored: Ref<'a>) -> Result<Record<'a>> {
    stored.as_str().and_then(Record::parse).ok_or_else(|| foreign(key))
}

/// How long what is stored still lasts. The engine keeps a key throughout the millisecond of its deadline, hence never zero.
pub(crate) fn remaining(stored: Ref<'_>, now: Now) -> Option<Duration> {
    let left_ms = stored.expires_at_ms()?.saturating_sub(now.ms());
    Some(Duration::from_millis(left_ms.max(1)))
}

/// What the engine is told about a time to live.
pub(crate) fn expiry(ttl: Ttl, now: Now) -> Result<Expiry> {
    Ok(match (ttl, ttl.after_ms()?) {
        (_, Some(after_ms)) => Expiry::At(now.ms().saturating_add(after_ms)),
        (Ttl::Keep, None) => Expiry::Keep,
        (Ttl::Clear | Ttl::After(_), None) => Expiry::Clear,
    })
}
