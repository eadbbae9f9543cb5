//! A large sorted set: a table from members to scores, and a list in order. Both share one allocation per member.
//!
//! # How it works
//! The table keeps its members densely: a position is a member, which makes sampling O(1) and a scan stateless. A scan walks the
//! positions from the last to the first. A removal moves the last member into the hole, so to a place that the scan has yet to
//! reach, or from one that it has left behind: it may show a member twice and never misses one that stays. An
//! added member lands at the end.

use std::ops::Range;
use std::sync::Arc;

use foldhash::quality::RandomState;
use indexmap::IndexMap;

use super::Inserted;
use super::ranks::{Entry, Ranks};
use crate::entry::allocation_cost_bytes;
use crate::segment::capacity_if_sparse;

/// What a member costs in the list: 24 bytes in chunks that are three quarters full.
const RANK_COST_BYTES: usize = 32;
/// What a place in the table costs: 32 bytes for the member, its hash and its score, and 9 in an index of which seven places in
/// eight may be used.
const PLACE_COST_BYTES: usize = 43;
/// The two counts of a shared allocation.
const SHARED_HEADER_BYTES: usize = 16;

/// The hash seed is the table's own; it shows in nothing that a caller sees.
#[derive(Clone, Default)]
pub(super) struct Large {
    scores: IndexMap<Arc<[u8]>, f64, RandomState>,
    ranks: Ranks,
    shared_bytes: u64,
}

impl Large {
    pub(super) fn len(&self) -> usize {
        self.scores.len()
    }

    pub(super) fn cost_bytes(&self) -> u64 {
        (self.scores.capacity() * PLACE_COST_BYTES + self.len() * RANK_COST_BYTES) as u64 + self.shared_bytes
    }

    pub(super) fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    pub(super) fn score(&self, member: &[u8]) -> Option<f64> {
        self.scores.get(member).copied()
    }

    pub(super) fn rank(&self, member: &[u8]) -> Option<usize> {
        let score = self.score(member)?;
        Some(self.ranks.rank_of(self.ranks.find(member, score)))
    }

    /// The member at a position in the table.
    pub(super) fn at(&self, position: usize) -> Option<(&[u8], f64)> {
        self.scores.get_index(position).map(|(member, score)| (&**member, *score))
    }

    pub(super) fn insert(&mut self, member: &[u8], score: f64) -> Inserted {
        if let Some(stored) = self.scores.get_mut(member) {
            let old = *stored;
            if old == score {
                return Inserted::Same;
            }
            *stored = score;
            self.ranks.change_score(member, old, score);
            return Inserted::Updated(old);
        }
        let shared: Arc<[u8]> = member.into();
        self.ranks.insert(Entry { score, member: Arc::clone(&shared) });
        self.scores.insert(shared, score);
        self.shared_bytes += shared_cost_bytes(member);
        Inserted::Added
    }

    pub(super) fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = self.scores.swap_remove(member)?;
        self.ranks.remove(member, score);
        self.shared_bytes -= shared_cost_bytes(member);
        self.shrink_if_sparse();
        Some(score)
    }

    /// Removes the members with these ranks, which are below `len`.
    pub(super) fn remove_range(&mut self, range: Range<usize>) {
        let Self { scores, ranks, shared_bytes } = self;
        ranks.remove_range(range, |entry| {
            scores.swap_remove(&entry.member);
            *shared_bytes -= shared_cost_bytes(&entry.member);
        });
        self.shrink_if_sparse();
    }

    /// See [`super::Zset::scan`]. The cursor is the number of positions left.
    pub(super) fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], f64)) -> u64 {
        let len = self.len();
        // Members may have gone since the cursor was handed out, all of them perhaps.
        let end = if cursor == 0 { len } else { usize::try_from(cursor).map_or(len, |cursor| cursor.min(len)) };
        let start = end.saturating_sub(count.max(1));
        if let Some(visited) = self.scores.get_range(start..end) {
            visited.iter().rev().for_each(|(member, score)| visit(member, *score));
        }
        start as u64
    }

    fn shrink_if_sparse(&mut self) {
        if let Some(capacity) = capacity_if_sparse(self.scores.len(), self.scores.capacity()) {
            self.scores.shrink_to(capacity);
        }
    }
}

fn shared_cost_bytes(member: &[u8]) -> u64 {
    allocation_cost_bytes(SHARED_HEADER_BYTES + member.len())
}
