//! The contract as the simplest program that keeps it: maps, one thread, a clock that is an argument.
//!
//! It is the measure for random sequences of operations: whatever it answers, a driver must answer. So it is written to be
//! read against the contract, not to be fast, and shares no arithmetic with the contract's crate that a driver may use.
//!
//! | file | holds |
//! |---|---|
//! | here | values, counters, conditions, transactions, listings |
//! | `rates.rs` | rate limits |
//! | `due.rs` | the due index |
//! | `locks.rs` | locks |

pub(crate) mod due;
pub(crate) mod locks;
pub(crate) mod rates;

use std::collections::BTreeMap;
use std::time::Duration;

use acteon_state_core::{
    AtBound, Condition, Counter, Counting, DeleteOutcome, Entry, ErrorKind, FencingToken, Increment, IncrementOutcome,
    Put, PutOutcome, StateKey, TransactOp, TransactOutcome, Ttl, Version,
};
use bytes::Bytes;

/// What the model answers: errors by their kind.
pub(crate) type Answer<T> = Result<T, ErrorKind>;

/// All of a store's state.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Since an arbitrary start.
    pub(crate) now: Duration,
    entries: BTreeMap<StateKey, Stored>,
    pub(crate) rates: rates::Rates,
    pub(crate) queues: due::Queues,
    pub(crate) locks: locks::Locks,
}

#[derive(Clone, Debug)]
struct Stored {
    content: Content,
    expires_at: Option<Duration>,
}

#[derive(Clone, Debug)]
enum Content {
    Value { value: Bytes, version: Version, fence: Option<FencingToken> },
    Counter(i64),
}

impl Stored {
    fn entry(&self, now: Duration) -> Entry {
        let ttl = self.expires_at.map(|at| at - now);
        match &self.content {
            Content::Value { value, version, fence } => {
                Entry { value: value.clone(), version: Some(*version), fence: *fence, ttl }
            }
            Content::Counter(number) => Entry { value: number.to_string().into(), version: None, fence: None, ttl },
        }
    }

    /// Whether a version or fence condition holds. `WrongType` on a counter.
    fn admits(&self, condition: Condition) -> Answer<bool> {
        match (condition, &self.content) {
            (Condition::Always | Condition::Present, _) => Ok(true),
            (Condition::Absent, _) => Ok(false),
            (Condition::Version(_) | Condition::Fence(_), Content::Counter(_)) => Err(ErrorKind::WrongType),
            (Condition::Version(wanted), Content::Value { version, .. }) => Ok(wanted == *version),
            (Condition::Fence(token), Content::Value { fence, .. }) => Ok(fence.is_none_or(|fence| fence <= token)),
        }
    }
}

impl Model {
    /// Nothing, at this time.
    pub(crate) fn starting_at(now: Duration) -> Self {
        Self { now, ..Self::default() }
    }

    fn live(&self, key: &StateKey) -> Option<&Stored> {
        self.entries.get(key).filter(|stored| stored.expires_at.is_none_or(|at| at > self.now))
    }

    /// The entry of a key, with its remaining ttl.
    pub(crate) fn get(&self, key: &StateKey) -> Option<Entry> {
        self.live(key).map(|stored| stored.entry(self.now))
    }

    fn admits(&self, key: &StateKey, condition: Condition) -> Answer<bool> {
        match self.live(key) {
            Some(stored) => stored.admits(condition),
            None => Ok(matches!(condition, Condition::Always | Condition::Absent | Condition::Fence(_))),
        }
    }

    pub(crate) fn put(&mut self, key: &StateKey, put: &Put) -> Answer<PutOutcome> {
        if !self.admits(key, put.condition)? {
            return Ok(PutOutcome::NotMet(self.get(key)));
        }
        let before = self.live(key).cloned();
        let kept_fence = before.as_ref().and_then(|stored| match stored.content {
            Content::Value { fence, .. } => fence,
            Content::Counter(_) => None,
        });
        let fence = if let Condition::Fence(token) = put.condition { Some(token) } else { kept_fence };
        let expires_at = self.expiry(put.ttl, before.and_then(|stored| stored.expires_at));
        let content = Content::Value { value: put.value.clone(), version: put.version, fence };
        self.entries.insert(key.clone(), Stored { content, expires_at });
        Ok(PutOutcome::Applied(put.version))
    }

    fn expiry(&self, ttl: Ttl, before: Option<Duration>) -> Option<Duration> {
        match ttl {
            Ttl::Clear => None,
            Ttl::Keep => before,
            Ttl::After(ttl) => Some(self.now + ttl),
        }
    }

    pub(crate) fn delete(&mut self, key: &StateKey, condition: Condition) -> Answer<DeleteOutcome> {
        if condition == Condition::Absent {
            return Err(ErrorKind::Invalid);
        }
        let Some(stored) = self.live(key) else {
            return Ok(DeleteOutcome::Absent);
        };
        if !stored.admits(condition)? {
            return Ok(DeleteOutcome::NotMet(stored.entry(self.now)));
        }
        self.entries.remove(key);
        Ok(DeleteOutcome::Deleted)
    }

    pub(crate) fn take(&mut self, key: &StateKey) -> Option<Entry> {
        let entry = self.get(key);
        self.entries.remove(key);
        entry
    }

    pub(crate) fn touch(&mut self, key: &StateKey, ttl: Ttl) -> bool {
        let Some(before) = self.live(key).map(|stored| stored.expires_at) else {
            return false;
        };
        let expires_at = self.expiry(ttl, before);
        if let Some(stored) = self.entries.get_mut(key) {
            stored.expires_at = expires_at;
        }
        true
    }

    pub(crate) fn increment(&mut self, key: &StateKey, increment: &Increment) -> Answer<IncrementOutcome> {
        let (before, expires_at) = match self.live(key) {
            Some(Stored { content: Content::Value { .. }, .. }) => return Err(ErrorKind::WrongType),
            Some(Stored { content: Content::Counter(number), expires_at }) => (Some(*number), *expires_at),
            None => (None, None),
        };
        let current = before.unwrap_or(0);
        let sum = i128::from(current) + i128::from(increment.delta);
        let above = increment.delta > 0 && increment.max.is_some_and(|max| sum > i128::from(max));
        let below = increment.delta < 0 && increment.min.is_some_and(|min| sum < i128::from(min));
        if (above || below) && increment.at_bound == AtBound::Refuse {
            return Ok(IncrementOutcome::Refused(self.counter(current, expires_at)));
        }
        let after = match (above, below) {
            (true, _) => increment.max.unwrap_or(i64::MAX).max(current),
            (_, true) => increment.min.unwrap_or(i64::MIN).min(current),
            _ => i64::try_from(sum).map_err(|_| ErrorKind::Overflow)?,
        };
        let expires_at = match increment.window {
            Counting::Refresh(window) => Some(self.now + window),
            Counting::OnCreate(window) if before.is_none() => Some(self.now + window),
            Counting::OnCreate(_) | Counting::Unlimited => expires_at,
        };
        self.entries.insert(key.clone(), Stored { content: Content::Counter(after), expires_at });
        let counter = self.counter(after, expires_at);
        Ok(if above || below { IncrementOutcome::Clamped(counter) } else { IncrementOutcome::Applied(counter) })
    }

    fn counter(&self, value: i64, expires_at: Option<Duration>) -> Counter {
        Counter { value, resets_after: expires_at.map(|at| at - self.now) }
    }

    /// Tries all operations, and keeps what they did only if each of them succeeded.
    pub(crate) fn transact(&mut self, ops: &[TransactOp]) -> Answer<TransactOutcome> {
        let before = self.entries.clone();
        for (index, op) in ops.iter().enumerate() {
            let current = self.get(op.key());
            match self.apply(op) {
                Ok(true) => {}
                Ok(false) => {
                    self.entries = before;
                    return Ok(TransactOutcome::Refused { index, current });
                }
                Err(kind) => {
                    self.entries = before;
                    return Err(kind);
                }
            }
        }
        Ok(TransactOutcome::Committed)
    }

    /// Whether the operation could be carried out.
    fn apply(&mut self, op: &TransactOp) -> Answer<bool> {
        match op {
            TransactOp::Check(key, condition) => self.admits(key, *condition),
            TransactOp::Put(key, put) => Ok(self.put(key, put)?.is_applied()),
            TransactOp::Delete(key, condition) => {
                let holds = self.admits(key, *condition)?;
                if holds {
                    self.entries.remove(key);
                }
                Ok(holds)
            }
            TransactOp::Increment(key, increment) => Ok(self.increment(key, increment)?.is_applied()),
        }
    }

    /// All live entries whose key's text begins with this, in their order.
    pub(crate) fn scan(&self, beginning: &str) -> Vec<(StateKey, Entry)> {
        let all = self.entries.keys().filter(|key| key.text().starts_with(beginning));
        all.filter_map(|key| self.get(key).map(|entry| (key.clone(), entry))).collect()
    }
}
