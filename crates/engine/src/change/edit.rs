//! A collection that a command changes, and what of it is recorded.
//!
//! # Guarantees
//! Every way to change the collection is a method here that records what it did, and records nothing if it did nothing. What it costs is
//! accounted for when the edit ends.

use std::ops::{Deref, Range};
use std::sync::Arc;

use super::{Op, Recording};
use crate::memory::Account;
use crate::typed::Typed;
use crate::value::{Fields, Inserted, LexRange, Limits, List, Place, ScoreRange, Set, Zset};

/// A collection that is being changed; reads go through to it.
pub(crate) struct Edit<'a, T: Typed> {
    value: &'a mut T,
    cost_before: u64,
    account: Account<'a>,
    recording: Recording<'a>,
}

impl<'a, T: Typed> Edit<'a, T> {
    pub(crate) fn new(value: &'a mut T, account: Account<'a>, recording: Recording<'a>) -> Self {
        Self { cost_before: value.cost(), value, account, recording }
    }
}

impl<T: Typed> Deref for Edit<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
    }
}

impl<T: Typed> Drop for Edit<'_, T> {
    fn drop(&mut self) {
        let cost_after = self.value.cost();
        // Commands are refused before they run when memory is full, never in between.
        self.account.settle(self.cost_before, cost_after);
    }
}

impl Edit<'_, List> {
    pub(crate) fn push_front(&mut self, element: &[u8], limits: &Limits) {
        self.value.push_front(element, limits);
        self.recording.record(&Op::PushFront(element));
    }

    pub(crate) fn push_back(&mut self, element: &[u8], limits: &Limits) {
        self.value.push_back(element, limits);
        self.recording.record(&Op::PushBack(element));
    }

    /// Shows the element at the head to `read`, then removes it.
    pub(crate) fn pop_front_with<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let result = self.value.pop_front_with(read)?;
        self.recording.record(&Op::PopFront(1));
        Some(result)
    }

    /// Shows the element at the tail to `read`, then removes it.
    pub(crate) fn pop_back_with<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let result = self.value.pop_back_with(read)?;
        self.recording.record(&Op::PopBack(1));
        Some(result)
    }

    /// See [`List::set`].
    pub(crate) fn set(&mut self, index: i64, element: &[u8], limits: &Limits) -> bool {
        let is_there = self.value.set(index, element, limits);
        if is_there {
            self.recording.record(&Op::SetAt { index, element });
        }
        is_there
    }

    /// See [`List::insert`].
    pub(crate) fn insert(&mut self, place: Place, pivot: &[u8], element: &[u8], limits: &Limits) -> bool {
        let has_pivot = self.value.insert(place, pivot, element, limits);
        if has_pivot {
            self.recording.record(&match place {
                Place::Before => Op::InsertBefore { pivot, element },
                Place::After => Op::InsertAfter { pivot, element },
            });
        }
        has_pivot
    }

    /// See [`List::remove`].
    pub(crate) fn remove(&mut self, count: i64, element: &[u8]) -> usize {
        let removed = self.value.remove(count, element);
        if removed > 0 {
            self.recording.record(&Op::RemoveEqual { count, element });
        }
        removed
    }

    /// Keeps the elements with these indexes, which must exist, and removes all others.
    pub(crate) fn trim(&mut self, keep: Range<usize>) {
        if keep.len() < self.value.len() {
            let (start, len) = (keep.start as u64, keep.len() as u64);
            self.value.trim(keep);
            self.recording.record(&Op::Trim { start, len });
        }
    }
}

impl Edit<'_, Fields> {
    /// Sets `field` to `value`. Returns whether the field is new.
    pub(crate) fn insert(&mut self, field: &[u8], value: &[u8], limits: &Limits) -> bool {
        let is_new = self.value.insert(field, value, limits);
        self.recording.record(&Op::SetField { field, value });
        is_new
    }

    /// Removes `field`. Returns whether it was there.
    pub(crate) fn remove(&mut self, field: &[u8]) -> bool {
        let was_there = self.value.remove(field);
        if was_there {
            self.recording.record(&Op::RemoveField(field));
        }
        was_there
    }
}

impl Edit<'_, Set> {
    /// Adds `member`. Returns whether it is new.
    pub(crate) fn insert(&mut self, member: &[u8], limits: &Limits) -> bool {
        let is_new = self.value.insert(member, limits);
        if is_new {
            self.recording.record(&Op::AddMember(member));
        }
        is_new
    }

    /// Removes `member`. Returns whether it was there.
    pub(crate) fn remove(&mut self, member: &[u8]) -> bool {
        let was_there = self.value.remove(member);
        if was_there {
            self.recording.record(&Op::RemoveMember(member));
        }
        was_there
    }

    /// Removes a random member and returns it.
    pub(crate) fn pop(&mut self, random: u64) -> Option<Box<[u8]>> {
        let member = self.value.pop(random)?;
        self.recording.record(&Op::RemoveMember(&member));
        Some(member)
    }

    /// See [`Set::pop_many`].
    pub(crate) fn pop_many(
        &mut self,
        count: usize,
        limits: &Limits,
        random: &mut impl FnMut() -> u64,
    ) -> Vec<Box<[u8]>> {
        let members = self.value.pop_many(count, limits, random);
        members.iter().for_each(|member| self.recording.record(&Op::RemoveMember(member)));
        members
    }
}

impl Edit<'_, Zset> {
    /// See [`Zset::insert`].
    pub(crate) fn insert(&mut self, member: &[u8], score: f64, limits: &Limits) -> Inserted {
        let inserted = self.value.insert(member, score, limits);
        if inserted != Inserted::Same {
            self.recording.record(&Op::SetScore { member, score });
        }
        inserted
    }

    /// Removes `member` and returns its score.
    pub(crate) fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = self.value.remove(member)?;
        self.recording.record(&Op::RemoveScored(member));
        Some(score)
    }

    /// Removes the member with the lowest score and returns it.
    pub(crate) fn pop_min(&mut self) -> Option<(Arc<[u8]>, f64)> {
        let popped = self.value.pop_min()?;
        self.recording.record(&Op::RemoveRanks { start: 0, len: 1 });
        Some(popped)
    }

    /// Removes the member with the highest score and returns it.
    pub(crate) fn pop_max(&mut self) -> Option<(Arc<[u8]>, f64)> {
        let popped = self.value.pop_max()?;
        self.recording.record(&Op::RemoveRanks { start: self.value.len() as u64, len: 1 });
        Some(popped)
    }

    /// Removes the members with these ranks and returns how many there were.
    pub(crate) fn remove_range(&mut self, ranks: Range<usize>) -> usize {
        let start = ranks.start as u64;
        let removed = self.value.remove_range(ranks);
        if removed > 0 {
            self.recording.record(&Op::RemoveRanks { start, len: removed as u64 });
        }
        removed
    }

    /// Removes the members with a score within `scores` and returns how many there were.
    pub(crate) fn remove_range_by_score(&mut self, scores: &ScoreRange) -> usize {
        self.remove_range(self.value.ranks_by_score(scores))
    }

    /// Removes the members within `names` and returns how many there were; see [`Zset::ranks_by_lex`].
    pub(crate) fn remove_range_by_lex(&mut self, names: &LexRange<'_>) -> usize {
        self.remove_range(self.value.ranks_by_lex(names))
    }

    /// Takes another form in memory, which is no change of what it holds.
    pub(crate) fn become_large(&mut self) {
        self.value.become_large();
    }
}
