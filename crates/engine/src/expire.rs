//! Removes keys whose time has come, in background cycles of bounded work.
//!
//! # Guarantees
//! Whether a key is seen never depends on a cycle: every access compares the deadline itself (`segment.rs`). A cycle only gives
//! memory back. One step visits at most `visits_max` entries under the segment lock, and at least one block when one is due,
//! so that repeated steps always come to an end.
//!
//! # How it works
//! A deadline lies inside its entry and nowhere else: a heap or a tree of deadlines costs 16 bytes and more per key, work on each SET,
//! and stale entries for every ttl that is renewed. Instead the table's buckets are divided into blocks of 16, and each block
//! remembers a lower bound of its deadlines: half a byte per bucket, only in segments that hold deadlines at all, and one
//! comparison per write.
//! ```text
//!  buckets  | . k k . . k . .  k . . k . . k . | k . . k k . . .  . k . . . . k . | ...
//!  blocks   |           1_700_000              |            never                 | ...   soonest_ms = 1_700_000
//! ```
//! A step visits only blocks whose bound has passed, removes what expired and makes the bound exact. So one key that expires costs the
//! visits of a block, or of a few that have its bound from a neighbour, however large the segment is, and keys that expire together cost one
//! visit each: a million keys of one second are a million visits, and the lock is never held for more than a step.
//!
//! On its way a cycle looks at the deadlines of some keys, a block in one segment and a block in the next, for the average that INFO shows:
//! commands have nothing to do with it.
//!
//! Removing a key or extending its deadline leaves a bound that is too low, which costs one visit of the block later. When entries move to other
//! buckets, their new blocks take the bounds of the old ones, if these are lower: a bound may be too low, and is never too high.

use std::ops::Range;

use crate::entry::{EntryRef, Removed, is_expired};
use crate::segment::{Context, Segment};

/// Buckets that share one bound. Fewer cost more memory, more cost more visits for a lone key that expires.
pub(crate) const BLOCK_BUCKETS: usize = 16;

/// No deadline. A real deadline of this value never passes either.
const NEVER_MS: u64 = u64::MAX;

/// Lower bounds of the deadlines of one segment.
pub(crate) struct Deadlines {
    soonest_ms: u64,
    /// `None` until a first deadline is noted: most segments of most databases have none.
    blocks: Option<Box<Blocks>>,
}

struct Blocks {
    /// One for each block of the table.
    bounds_ms: Box<[u64]>,
    /// Where the next step goes on.
    next: usize,
}

impl Deadlines {
    pub(crate) fn new() -> Self {
        Self { soonest_ms: NEVER_MS, blocks: None }
    }

    /// Whether some entry may have expired.
    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        is_expired(Some(self.soonest_ms), now_ms)
    }

    /// The entry in `bucket` of a table with `buckets` now has this deadline.
    pub(crate) fn note(&mut self, bucket: usize, buckets: usize, at_ms: u64) {
        let blocks =
            self.blocks.get_or_insert_with(|| Box::new(Blocks { bounds_ms: bounds(buckets, NEVER_MS), next: 0 }));
        debug_assert_eq!(blocks.bounds_ms.len(), buckets.div_ceil(BLOCK_BUCKETS), "bounds follow the table");
        let bound_ms = &mut blocks.bounds_ms[bucket / BLOCK_BUCKETS];
        *bound_ms = at_ms.min(*bound_ms);
        self.soonest_ms = at_ms.min(self.soonest_ms);
    }

    /// The entries in these buckets have moved one bucket up. Where one comes into another block, that may have its deadline now.
    #[inline]
    pub(crate) fn moved_up(&mut self, buckets: Range<usize>) {
        if let Some(blocks) = &mut self.blocks {
            // From above, so that no bound goes further than the entry that it may be of.
            let first_of_blocks = (buckets.start + 1).next_multiple_of(BLOCK_BUCKETS)..=buckets.end;
            for bucket in first_of_blocks.rev().filter(|bucket| bucket.is_multiple_of(BLOCK_BUCKETS)) {
                let block = bucket / BLOCK_BUCKETS;
                let bound_ms = blocks.bounds_ms[block - 1];
                blocks.bounds_ms[block] = bound_ms.min(blocks.bounds_ms[block]);
            }
        }
    }

    /// The same for entries that have moved one bucket down.
    #[inline]
    pub(crate) fn moved_down(&mut self, buckets: Range<usize>) {
        if let Some(blocks) = &mut self.blocks {
            for bucket in buckets.filter(|bucket| bucket.is_multiple_of(BLOCK_BUCKETS)) {
                let block = bucket / BLOCK_BUCKETS;
                let bound_ms = blocks.bounds_ms[block];
                blocks.bounds_ms[block - 1] = bound_ms.min(blocks.bounds_ms[block - 1]);
            }
        }
    }

    /// The table has `buckets` now, and its entries have gone from their buckets to others, as `moves` says.
    pub(crate) fn table_resized(&mut self, buckets: usize, moves: impl Iterator<Item = (usize, usize)>) {
        let Some(blocks) = &mut self.blocks else { return };
        let mut bounds_ms = bounds(buckets, NEVER_MS);
        for (from, to) in moves {
            let bound_ms = &mut bounds_ms[to / BLOCK_BUCKETS];
            *bound_ms = blocks.bounds_ms[from / BLOCK_BUCKETS].min(*bound_ms);
        }
        **blocks = Blocks { bounds_ms, next: 0 };
    }

    /// Whether no entry of a block has a deadline.
    pub(crate) fn has_none_in(&self, block: usize) -> bool {
        self.bounds_ms().get(block).is_none_or(|bound_ms| *bound_ms == NEVER_MS)
    }

    /// By how much the memory of the bounds may grow when the table has `buckets`, and one more deadline is noted if there `is_one`.
    pub(crate) fn growth_bytes_max(&self, buckets: usize, is_one: bool) -> u64 {
        let bounds_bytes = buckets.div_ceil(BLOCK_BUCKETS) * size_of::<u64>();
        match &self.blocks {
            Some(blocks) => bounds_bytes.saturating_sub(size_of_val(&*blocks.bounds_ms)) as u64,
            None if is_one => (size_of::<Blocks>() + bounds_bytes) as u64,
            None => 0,
        }
    }

    /// The memory of the bounds.
    #[inline]
    pub(crate) fn cost_bytes(&self) -> u64 {
        match &self.blocks {
            Some(blocks) => (size_of::<Blocks>() + size_of_val(&*blocks.bounds_ms)) as u64,
            None => 0,
        }
    }

    fn bounds_ms(&self) -> &[u64] {
        self.blocks.as_ref().map_or(&[], |blocks| &blocks.bounds_ms)
    }

    /// The next block whose bound has passed, if there is one; the step after this goes on behind it.
    fn next_due(&mut self, now_ms: u64) -> Option<usize> {
        let blocks = self.blocks.as_mut()?;
        let count = blocks.bounds_ms.len();
        let due = (0..count).map(|step| (blocks.next + step) % count);
        let due = due.into_iter().find(|block| is_expired(Some(blocks.bounds_ms[*block]), now_ms))?;
        blocks.next = due;
        Some(due)
    }

    /// The bound of a block is exact.
    fn settle_block(&mut self, block: usize, bound_ms: u64) {
        if let Some(blocks) = &mut self.blocks {
            blocks.bounds_ms[block] = bound_ms;
        }
    }

    /// All blocks are exact up to now: so is the segment.
    fn settle(&mut self) {
        self.soonest_ms = self.bounds_ms().iter().copied().min().unwrap_or(NEVER_MS);
        if self.soonest_ms == NEVER_MS {
            *self = Self::new();
        }
    }
}

fn bounds(buckets: usize, bound_ms: u64) -> Box<[u64]> {
    vec![bound_ms; buckets.div_ceil(BLOCK_BUCKETS)].into_boxed_slice()
}

/// What one step did.
pub(crate) struct ExpireStep {
    pub(crate) visited: u32,
    /// Nothing in this segment is left that has expired.
    pub(crate) is_done: bool,
}

impl Segment {
    /// Removes expired entries into `removed`, which the caller drops after the lock.
    ///
    /// `visits_max` is at least [`BLOCK_BUCKETS`].
    pub(crate) fn expire_step(
        &mut self,
        context: &Context,
        now_ms: u64,
        visits_max: u32,
        removed: &mut Vec<Removed>,
    ) -> ExpireStep {
        assert!(visits_max as usize >= BLOCK_BUCKETS, "a step can visit one block");
        let mut step = ExpireStep { visited: 0, is_done: true };
        while let Some(block) = self.deadlines.next_due(now_ms) {
            if step.visited + BLOCK_BUCKETS as u32 > visits_max {
                step.is_done = false;
                return step;
            }
            self.expire_block(context, block, now_ms, &mut step, removed);
        }
        let bytes_before = self.deadlines.cost_bytes();
        self.deadlines.settle();
        self.settle_account(context, bytes_before, self.deadlines.cost_bytes());
        self.shrink_if_sparse(context);
        step
    }

    /// Visits entries of a block, as many as it has buckets at most, and makes its bound exact if these are all: where many expire,
    /// others come into their buckets.
    fn expire_block(
        &mut self,
        context: &Context,
        block: usize,
        now_ms: u64,
        step: &mut ExpireStep,
        removed: &mut Vec<Removed>,
    ) {
        let mut bound_ms = NEVER_MS;
        let mut bucket = block * BLOCK_BUCKETS;
        for _ in 0..BLOCK_BUCKETS {
            let Some(entry) = self.get(bucket) else {
                bucket += 1;
                continue;
            };
            step.visited += 1;
            let expires_at_ms = entry.expires_at_ms();
            if is_expired(expires_at_ms, now_ms) {
                removed.push(self.remove_expired(context, bucket));
                continue;
            }
            bound_ms = expires_at_ms.unwrap_or(NEVER_MS).min(bound_ms);
            bucket += 1;
        }
        if bucket == (block + 1) * BLOCK_BUCKETS {
            self.deadlines.settle_block(block, bound_ms);
        }
    }
}

/// Keys whose time is added up in one cycle, about: as Redis has.
const SAMPLED_KEYS: u64 = 20;

/// Blocks that are looked at for them: where few keys have a deadline, bounds that are too low lead to blocks without one.
const SAMPLED_BLOCKS_MAX: u32 = 16;

/// The time that some keys have left, as one cycle finds it.
pub(crate) struct TtlSample {
    now_ms: u64,
    /// Chooses the block where a segment is looked at first.
    turn: usize,
    blocks_left: u32,
    keys: u64,
    sum_ms: u128,
    /// Keys with a deadline in all segments that were met.
    pub(crate) keys_with_ttl: u64,
}

impl TtlSample {
    pub(crate) fn new(now_ms: u64, turn: usize) -> Self {
        Self { now_ms, turn, blocks_left: SAMPLED_BLOCKS_MAX, keys: 0, sum_ms: 0, keys_with_ttl: 0 }
    }

    /// Nothing more is wanted.
    fn is_complete(&self) -> bool {
        self.keys >= SAMPLED_KEYS || self.blocks_left == 0
    }

    /// Adds the keys of one block of a segment, the next one that has any. Returns whether it found some.
    pub(crate) fn add(&mut self, segment: &Segment) -> bool {
        self.keys_with_ttl += u64::from(segment.keys_with_ttl);
        let bounds_ms = segment.deadlines.bounds_ms();
        if segment.keys_with_ttl == 0 || bounds_ms.is_empty() {
            return false;
        }
        let keys_before = self.keys;
        for step in 0..bounds_ms.len() {
            let block = self.turn.wrapping_add(step) % bounds_ms.len();
            if self.is_complete() || self.keys > keys_before {
                break;
            }
            if bounds_ms[block] != NEVER_MS {
                self.add_block(segment, block);
            }
        }
        self.keys > keys_before
    }

    fn add_block(&mut self, segment: &Segment, block: usize) {
        self.blocks_left -= 1;
        for bucket in block * BLOCK_BUCKETS..(block + 1) * BLOCK_BUCKETS {
            let expires_at_ms = segment.get(bucket).and_then(EntryRef::expires_at_ms);
            if let Some(left_ms) = expires_at_ms.and_then(|at_ms| at_ms.checked_sub(self.now_ms)) {
                self.keys += 1;
                self.sum_ms += u128::from(left_ms);
            }
        }
    }

    /// The average after this sample, given the one before it; 0: unknown. A sample counts for a fiftieth, as in Redis.
    pub(crate) fn average_ms(&self, before_ms: u64) -> u64 {
        const WEIGHT: u128 = 50;
        if self.keys == 0 {
            return before_ms;
        }
        let sample_ms = self.sum_ms / u128::from(self.keys);
        let average_ms = match before_ms {
            0 => sample_ms,
            before_ms => (u128::from(before_ms) * (WEIGHT - 1) + sample_ms) / WEIGHT,
        };
        // Fits: both are averages of numbers that do.
        average_ms as u64
    }
}

/// What [`Engine::expire_cycle`](crate::Engine::expire_cycle) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpireReport {
    /// Keys that were removed.
    pub expired: u64,
    /// Keys that were looked at, including the removed ones.
    pub visited: u64,
    /// The budget ended before the expired keys did: run another cycle soon.
    pub ran_out: bool,
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_BUCKETS, Deadlines};

    #[test]
    fn soonest_deadline_is_due_one_millisecond_after_it() {
        let mut deadlines = Deadlines::new();
        assert!(!deadlines.is_due(u64::MAX));
        deadlines.note(3, 64, 500);
        deadlines.note(20, 64, 400);
        deadlines.note(21, 64, 600);
        assert!(!deadlines.is_due(400));
        assert!(deadlines.is_due(401));
    }

    #[test]
    fn block_that_an_entry_moves_into_takes_the_bound_of_the_one_it_comes_from() {
        let noted = || {
            let mut deadlines = Deadlines::new();
            deadlines.note(0, 3 * BLOCK_BUCKETS, 100);
            deadlines.note(20, 3 * BLOCK_BUCKETS, 300);
            deadlines.note(40, 3 * BLOCK_BUCKETS, 200);
            deadlines
        };
        let mut up = noted();
        up.moved_up(3..15);
        assert_eq!(*up.bounds_ms(), [100, 300, 200], "none has left its block");
        up.moved_up(3..40);
        assert_eq!(*up.bounds_ms(), [100, 100, 200], "each bound goes one block far at most");
        let mut down = noted();
        down.moved_down(17..32);
        assert_eq!(*down.bounds_ms(), [100, 300, 200]);
        down.moved_down(1..33);
        assert_eq!(*down.bounds_ms(), [100, 200, 200]);
        let mut resized = noted();
        resized.table_resized(5 * BLOCK_BUCKETS, [(0, 15), (20, 16), (21, 50), (40, 70)].into_iter());
        assert_eq!(*resized.bounds_ms(), [100, 300, u64::MAX, 300, 200]);
    }

    #[test]
    fn segment_without_deadlines_holds_no_bounds() {
        let mut deadlines = Deadlines::new();
        deadlines.moved_up(0..50);
        deadlines.table_resized(1_024, [(1, 2)].into_iter());
        assert_eq!((deadlines.bounds_ms().len(), deadlines.cost_bytes()), (0, 0));
    }
}
