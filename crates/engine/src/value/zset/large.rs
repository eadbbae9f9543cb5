//! A large sorted set: a table that finds a member, and a list in order. Both share one allocation per member.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use super::Inserted;
use super::ranks::{Entry, Ranks};
use crate::value::table::{Row, Table};

/// What a member costs in the list: an entry of 24 bytes, in a chunk that is full where members arrive in order, and three quarters full
/// elsewhere.
const RANK_COST_BYTES: u64 = 28;
/// The two counts of a shared allocation.
const SHARED_HEADER_BYTES: usize = 16;

#[derive(Clone)]
pub(super) struct Large {
    table: Table<Entry>,
    ranks: Ranks,
}

impl Default for Large {
    fn default() -> Self {
        Self { table: Table::with_capacity(0), ranks: Ranks::default() }
    }
}

impl Large {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn cost_bytes(&self) -> u64 {
        self.table.cost_bytes() + self.len() as u64 * RANK_COST_BYTES
    }

    pub(super) fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    pub(super) fn score(&self, member: &[u8]) -> Option<f64> {
        self.table.get(member).map(|entry| entry.score)
    }

    pub(super) fn rank(&self, member: &[u8]) -> Option<usize> {
        let score = self.score(member)?;
        Some(self.ranks.rank_of(self.ranks.find(member, score)))
    }

    /// The member at a position in the table.
    pub(super) fn at(&self, position: usize) -> Option<(&[u8], f64)> {
        self.table.get_index(position).map(Entry::as_pair)
    }

    pub(super) fn insert(&mut self, member: &[u8], score: f64) -> Inserted {
        let (entry, inserted) = match self.table.get(member) {
            Some(entry) if entry.score == score => return Inserted::Same,
            Some(entry) => {
                let old = entry.score;
                self.ranks.change_score(member, old, score);
                (Entry { score, member: Arc::clone(&entry.member) }, Inserted::Updated(old))
            }
            None => {
                let entry = Entry { score, member: member.into() };
                self.ranks.insert(entry.clone());
                (entry, Inserted::Added)
            }
        };
        self.table.insert(entry);
        inserted
    }

    pub(super) fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let entry = self.table.remove(member)?;
        self.ranks.remove(member, entry.score);
        Some(entry.score)
    }

    /// Removes the members with these ranks, which are below `len`.
    pub(super) fn remove_range(&mut self, range: Range<usize>) {
        let Self { table, ranks } = self;
        ranks.remove_range(range, |entry| drop(table.remove(&entry.member)));
    }

    pub(super) fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], f64)) -> u64 {
        self.table.scan(cursor, count, |entry| visit(&entry.member, entry.score))
    }
}

impl Row for Entry {
    fn heap_bytes(&self) -> usize {
        SHARED_HEADER_BYTES + self.member.len()
    }
}

impl Borrow<[u8]> for Entry {
    fn borrow(&self) -> &[u8] {
        &self.member
    }
}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.member.hash(state);
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.member == other.member
    }
}

impl Eq for Entry {}
