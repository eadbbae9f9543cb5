//! A small sorted set in one buffer.
//!
//! # How it works
//! ```text
//! | slot 0 | slot 1 | .. | slot n-1 | member 0 | member 1 | .. | member n-1 |
//! slot: score, 8 bytes | where the member ends, counted from the first member's start, 4 bytes
//! ```
//! Slots have one size and lie in order, so a rank is an index and a bound is a binary search; only a member is looked for one by
//! one, which for a hundred of them in adjacent memory is quicker than hashing. A change moves what lies behind it.

use std::ops::Range;

use super::{Inserted, compare};
use crate::entry::allocation_cost_bytes;
use crate::value::limits::Limits;

const SCORE_BYTES: usize = 8;
const SLOT_BYTES: usize = SCORE_BYTES + 4;
/// Beyond this a set becomes large whatever the limits say, as in Redis: a slot counts in 32 bits, and each change moves bytes.
const PACKED_BYTES_MAX: usize = 1 << 30;
/// An allocation grows by at least this part of itself: a little unused memory for far fewer moves.
const GROWTH_DIVISOR: usize = 8;
/// A buffer this much larger than its content is given back.
const SPARSENESS: usize = 2;
/// Too small to be worth giving back.
const SHRINK_BYTES_MIN: usize = 256;

#[derive(Clone)]
pub(super) struct Packed {
    bytes: Vec<u8>,
    len: usize,
}

impl Packed {
    pub(super) const fn new() -> Self {
        Self { bytes: Vec::new(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn cost_bytes(&self) -> u64 {
        allocation_cost_bytes(self.bytes.capacity())
    }

    /// Whether one more member may be added to a set that stays packed.
    pub(super) fn can_take(&self, member: &[u8], limits: &Limits) -> bool {
        self.len < limits.zset_max_listpack_entries
            && member.len() <= limits.zset_max_listpack_value
            && self.bytes.len() + SLOT_BYTES + member.len() <= PACKED_BYTES_MAX
    }

    /// The member at a rank below `len`.
    pub(super) fn get(&self, rank: usize) -> (&[u8], f64) {
        let members = &self.bytes[self.len * SLOT_BYTES..];
        (&members[self.member_start(rank)..self.member_start(rank + 1)], self.score_at(rank))
    }

    /// The rank of `member`.
    pub(super) fn find(&self, member: &[u8]) -> Option<usize> {
        let (slots, members) = self.bytes.split_at(self.len * SLOT_BYTES);
        let mut start = 0;
        slots.chunks_exact(SLOT_BYTES).position(|slot| {
            let end = read_end(slot);
            let is_found = &members[start..end] == member;
            start = end;
            is_found
        })
    }

    /// The rank of the first member that is not `before`.
    pub(super) fn partition_point(&self, before: impl Fn(&[u8], f64) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low.midpoint(high);
            let (member, score) = self.get(middle);
            if before(member, score) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Gives the member at `rank` another score and place.
    pub(super) fn set_score(&mut self, rank: usize, member: &[u8], score: f64) -> Inserted {
        let old = self.score_at(rank);
        if old == score {
            return Inserted::Same;
        }
        self.remove_range(rank..rank + 1);
        self.insert(member, score);
        Inserted::Updated(old)
    }

    /// Adds a member that is absent.
    pub(super) fn insert(&mut self, member: &[u8], score: f64) {
        // Redis packs whole numbers as integers, so -0.0 loses its sign here and keeps it in a large set.
        let score = score + 0.0;
        let rank = self.partition_point(|other, other_score| compare((other, other_score), (member, score)).is_lt());
        let slots_end = self.len * SLOT_BYTES;
        let start = self.member_start(rank);
        self.make_room(SLOT_BYTES + member.len());
        let old_len = self.bytes.len();
        self.bytes.resize(old_len + SLOT_BYTES + member.len(), 0);
        // Back to front, so that nothing is overwritten before it has moved.
        self.bytes.copy_within(slots_end + start..old_len, slots_end + start + SLOT_BYTES + member.len());
        self.bytes.copy_within(rank * SLOT_BYTES..slots_end + start, (rank + 1) * SLOT_BYTES);
        self.len += 1;
        let member_at = self.len * SLOT_BYTES + start;
        self.bytes[member_at..member_at + member.len()].copy_from_slice(member);
        let slot = &mut self.bytes[rank * SLOT_BYTES..(rank + 1) * SLOT_BYTES];
        slot[..SCORE_BYTES].copy_from_slice(&score.to_le_bytes());
        write_end(slot, start + member.len());
        self.change_ends(rank + 1, |end| end + member.len());
    }

    /// Removes the members with these ranks, which are below `len`.
    pub(super) fn remove_range(&mut self, ranks: Range<usize>) {
        let slots_end = self.len * SLOT_BYTES;
        let (start, end) = (self.member_start(ranks.start), self.member_start(ranks.end));
        self.bytes.drain(slots_end + start..slots_end + end);
        self.bytes.drain(ranks.start * SLOT_BYTES..ranks.end * SLOT_BYTES);
        self.len -= ranks.len();
        self.change_ends(ranks.start, |member_end| member_end - (end - start));
        if self.bytes.capacity() > SHRINK_BYTES_MIN.max(self.bytes.len() * SPARSENESS) {
            self.bytes.shrink_to_fit();
        }
    }

    fn score_at(&self, rank: usize) -> f64 {
        let mut score = [0; SCORE_BYTES];
        score.copy_from_slice(&self.bytes[rank * SLOT_BYTES..][..SCORE_BYTES]);
        f64::from_le_bytes(score)
    }

    /// Where the member at `rank` starts, counted from the first one; for a rank of `len`, where the last one ends.
    fn member_start(&self, rank: usize) -> usize {
        rank.checked_sub(1).map_or(0, |previous| read_end(&self.bytes[previous * SLOT_BYTES..][..SLOT_BYTES]))
    }

    fn change_ends(&mut self, first_rank: usize, change: impl Fn(usize) -> usize) {
        for slot in self.bytes[..self.len * SLOT_BYTES].chunks_exact_mut(SLOT_BYTES).skip(first_rank) {
            write_end(slot, change(read_end(slot)));
        }
    }

    fn make_room(&mut self, needed: usize) {
        if self.bytes.capacity() - self.bytes.len() < needed {
            self.bytes.reserve_exact(needed.max(self.bytes.len() / GROWTH_DIVISOR));
        }
    }
}

fn read_end(slot: &[u8]) -> usize {
    let mut end = [0; SLOT_BYTES - SCORE_BYTES];
    end.copy_from_slice(&slot[SCORE_BYTES..]);
    u32::from_le_bytes(end) as usize
}

fn write_end(slot: &mut [u8], end: usize) {
    // No end is beyond `PACKED_BYTES_MAX`.
    slot[SCORE_BYTES..].copy_from_slice(&(end as u32).to_le_bytes());
}
