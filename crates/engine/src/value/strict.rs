//! Collections for an embedding application, whose writes are refused one by one when memory is full.
//!
//! # Guarantees
//! A refused write has changed nothing. Removing always works.
//!
//! # How it works
//! What a write costs is known when it is done: it is done, paid for, and undone if that is refused. Commands of the protocol are refused
//! as a whole before they run, and do not come here.

use std::ops::Deref;

use crate::change::{Op, Recording};
use crate::error::EngineError;
use crate::memory::Account;
use crate::value::{Fields, Inserted, Limits, ScoreRange, Zset};

/// A hash that is being changed; reads go through to [`Fields`].
pub struct HashMut<'a> {
    fields: &'a mut Fields,
    account: Account<'a>,
    recording: Recording<'a>,
    limits: Limits,
}

impl<'a> HashMut<'a> {
    pub(crate) fn new(fields: &'a mut Fields, account: Account<'a>, recording: Recording<'a>) -> Self {
        Self { fields, account, recording, limits: Limits::default() }
    }

    /// Gives `field` this value. Returns whether the field is new.
    ///
    /// # Errors
    /// [`EngineError::OutOfMemory`]; the hash is as it was.
    pub fn insert(&mut self, field: &[u8], value: &[u8]) -> Result<bool, EngineError> {
        let before = if self.account.is_bounded() { self.fields.get(field).map(<[u8]>::to_vec) } else { None };
        let cost_before = self.fields.cost_bytes();
        let is_new = self.fields.insert(field, value, &self.limits);
        if let Err(error) = self.account.resize(cost_before, self.fields.cost_bytes()) {
            match before {
                Some(before) => _ = self.fields.insert(field, &before, &self.limits),
                None => _ = self.fields.remove(field),
            }
            self.account.settle(cost_before, self.fields.cost_bytes());
            return Err(error);
        }
        self.recording.record(&Op::SetField { field, value });
        Ok(is_new)
    }

    /// The same, above the bound as well: for bookkeeping that must not fail.
    pub fn insert_always(&mut self, field: &[u8], value: &[u8]) -> bool {
        let cost_before = self.fields.cost_bytes();
        let is_new = self.fields.insert(field, value, &self.limits);
        self.account.settle(cost_before, self.fields.cost_bytes());
        self.recording.record(&Op::SetField { field, value });
        is_new
    }

    /// Removes `field` and returns its value.
    pub fn remove(&mut self, field: &[u8]) -> Option<Box<[u8]>> {
        let cost_before = self.fields.cost_bytes();
        let value = self.fields.take(field);
        self.account.settle(cost_before, self.fields.cost_bytes());
        if value.is_some() {
            self.recording.record(&Op::RemoveField(field));
        }
        value
    }
}

impl Deref for HashMut<'_> {
    type Target = Fields;

    fn deref(&self) -> &Fields {
        self.fields
    }
}

/// A sorted set that is being changed; reads go through to [`Zset`].
pub struct SortedSetMut<'a> {
    set: &'a mut Zset,
    account: Account<'a>,
    recording: Recording<'a>,
    limits: Limits,
}

impl<'a> SortedSetMut<'a> {
    pub(crate) fn new(set: &'a mut Zset, account: Account<'a>, recording: Recording<'a>) -> Self {
        Self { set, account, recording, limits: Limits::default() }
    }

    /// Gives `member` this score. Returns whether the member is new.
    ///
    /// # Errors
    /// [`EngineError::ScoreNotANumber`] for NaN, [`EngineError::OutOfMemory`] for a new member; the set is as it was.
    pub fn insert(&mut self, member: &[u8], score: f64) -> Result<bool, EngineError> {
        if score.is_nan() {
            return Err(EngineError::ScoreNotANumber);
        }
        let cost_before = self.set.cost_bytes();
        let inserted = self.set.insert(member, score, &self.limits);
        if inserted != Inserted::Added {
            self.account.settle(cost_before, self.set.cost_bytes());
            if inserted != Inserted::Same {
                self.recording.record(&Op::SetScore { member, score });
            }
            return Ok(false);
        }
        if let Err(error) = self.account.resize(cost_before, self.set.cost_bytes()) {
            self.set.remove(member);
            self.account.settle(cost_before, self.set.cost_bytes());
            return Err(error);
        }
        self.recording.record(&Op::SetScore { member, score });
        Ok(true)
    }

    /// Removes `member` and returns its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let cost_before = self.set.cost_bytes();
        let score = self.set.remove(member);
        self.account.settle(cost_before, self.set.cost_bytes());
        if score.is_some() {
            self.recording.record(&Op::RemoveScored(member));
        }
        score
    }

    /// Removes all members with a score within `scores` and returns how many there were.
    pub fn remove_range(&mut self, scores: impl Into<ScoreRange>) -> usize {
        let cost_before = self.set.cost_bytes();
        let ranks = self.set.ranks_by_score(&scores.into());
        let start = ranks.start as u64;
        let removed = self.set.remove_range(ranks);
        self.account.settle(cost_before, self.set.cost_bytes());
        if removed > 0 {
            self.recording.record(&Op::RemoveRanks { start, len: removed as u64 });
        }
        removed
    }
}

impl Deref for SortedSetMut<'_> {
    type Target = Zset;

    fn deref(&self) -> &Zset {
        self.set
    }
}

#[cfg(test)]
mod tests {
    use crate::{Engine, EngineConfig, EngineError};

    #[test]
    fn refused_insert_leaves_the_collection_as_it_was() {
        let engine = Engine::new(EngineConfig { memory_bytes_max: Some(600), ..EngineConfig::default() });
        engine.update(b"k", 0, |slot| {
            let mut hash = slot.hash_mut().expect("absent");
            assert_eq!(hash.insert(b"f", b"old"), Ok(true));
            assert_eq!(hash.insert(b"f", &[0; 600]), Err(EngineError::OutOfMemory));
            assert_eq!(hash.insert(b"g", &[0; 600]), Err(EngineError::OutOfMemory));
            assert_eq!((hash.get(b"f"), hash.len()), (Some(&b"old"[..]), 1));
            assert_eq!(hash.remove(b"f").as_deref(), Some(&b"old"[..]));
        });
        engine.update(b"z", 0, |slot| {
            let mut set = slot.sorted_set_mut().expect("absent");
            assert_eq!(set.insert(&[0; 600], 1.0), Err(EngineError::OutOfMemory));
            assert_eq!(set.insert(b"m", f64::NAN), Err(EngineError::ScoreNotANumber));
            assert!(set.is_empty());
        });
        assert!(engine.is_empty());
        assert_eq!(engine.stats().bytes, engine.stats().table_bytes);
    }

    #[test]
    fn sorted_set_loses_what_lies_within_a_range() {
        let engine = Engine::new(EngineConfig::default());
        engine.update(b"z", 0, |slot| {
            let mut set = slot.sorted_set_mut().expect("absent");
            for score in 0..10 {
                set.insert(&[score], f64::from(score)).expect("no bound is configured");
            }
            assert_eq!(set.remove_range(2.0..=4.0), 3);
            assert_eq!(set.remove(&[9]), Some(9.0));
            assert_eq!((set.len(), set.score(&[3])), (6, None));
        });
    }
}
