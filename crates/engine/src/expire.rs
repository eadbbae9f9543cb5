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
//! A step visits only blocks whose bound has passed, removes what expired and makes the bound exact. So one key that expires costs at
//! most 16 visits however large the segment is, and keys that expire together cost one visit each: a million keys of
//! one second are a million visits, and the lock is never held for more than a step.
//!
//! On its way a cycle looks at the deadlines of some keys, a block in one segment and a block in the next, for the average that INFO shows:
//! commands have nothing to do with it.
//!
//! Removing a key or extending its deadline leaves a bound that is too low, which costs one visit of the block later. When the table moves
//! its entries (it grew, shrank or was tidied), every bound becomes the segment's soonest deadline: too low, never too high.

use crate::entry::{Entry, allocation_cost_bytes, is_expired};
use crate::segment::{Context, Segment};

/// Buckets that share one bound. Fewer cost more memory, more cost more visits for a lone key that expires.
pub(crate) const BLOCK_BUCKETS: usize = 16;

/// No deadline. A real deadline of this value never passes either.
const NEVER_MS: u64 = u64::MAX;

/// Lower bounds of the deadlines of one segment.
pub(crate) struct Deadlines {
    soonest_ms: u64,
    /// One bound per block of the table; empty until a first deadline is noted.
    blocks: Box<[u64]>,
    /// Where the next step goes on.
    next_block: usize,
}

impl Deadlines {
    pub(crate) fn new() -> Self {
        Self { soonest_ms: NEVER_MS, blocks: Box::default(), next_block: 0 }
    }

    /// Whether some entry may have expired.
    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        is_expired(Some(self.soonest_ms), now_ms)
    }

    /// The entry in `bucket` of a table with `buckets` now has this deadline.
    pub(crate) fn note(&mut self, bucket: usize, buckets: usize, at_ms: u64) {
        if self.blocks.is_empty() {
            self.blocks = bounds(buckets, NEVER_MS);
        }
        debug_assert_eq!(self.blocks.len(), buckets.div_ceil(BLOCK_BUCKETS), "bounds follow the table");
        let bound_ms = &mut self.blocks[bucket / BLOCK_BUCKETS];
        *bound_ms = at_ms.min(*bound_ms);
        self.soonest_ms = at_ms.min(self.soonest_ms);
    }

    /// The table has moved its entries and has `buckets` now.
    pub(crate) fn entries_moved(&mut self, buckets: usize) {
        self.next_block = 0;
        self.blocks = if self.soonest_ms == NEVER_MS { Box::default() } else { bounds(buckets, self.soonest_ms) };
    }

    /// Whether no entry of a block has a deadline.
    pub(crate) fn has_none_in(&self, block: usize) -> bool {
        self.blocks.get(block).is_none_or(|bound_ms| *bound_ms == NEVER_MS)
    }

    /// The memory of the bounds.
    pub(crate) fn cost_bytes(&self) -> u64 {
        allocation_cost_bytes(size_of_val(&*self.blocks))
    }

    /// All blocks are exact up to now: so is the segment.
    fn settle(&mut self) {
        self.soonest_ms = self.blocks.iter().copied().min().unwrap_or(NEVER_MS);
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
        removed: &mut Vec<Entry>,
    ) -> ExpireStep {
        assert!(visits_max as usize >= BLOCK_BUCKETS, "a step can visit one block");
        let blocks = self.deadlines.blocks.len();
        let mut visited = 0;
        for _ in 0..blocks {
            let block = self.deadlines.next_block;
            if is_expired(Some(self.deadlines.blocks[block]), now_ms) {
                if visited + BLOCK_BUCKETS as u32 > visits_max {
                    return ExpireStep { visited, is_done: false };
                }
                visited += self.expire_block(context, block, now_ms, removed);
            }
            self.deadlines.next_block = (block + 1) % blocks;
        }
        let bytes_before = self.deadlines.cost_bytes();
        self.deadlines.settle();
        self.settle_account(context, bytes_before, self.deadlines.cost_bytes());
        self.shrink_if_sparse(context);
        ExpireStep { visited, is_done: true }
    }

    /// Visits all entries of a block and makes its bound exact. Returns how many there were.
    fn expire_block(&mut self, context: &Context, block: usize, now_ms: u64, removed: &mut Vec<Entry>) -> u32 {
        let mut visited = 0;
        let mut bound_ms = NEVER_MS;
        for bucket in block * BLOCK_BUCKETS..(block + 1) * BLOCK_BUCKETS {
            let Some(entry) = self.get(bucket) else {
                continue;
            };
            visited += 1;
            let expires_at_ms = entry.expires_at_ms();
            if is_expired(expires_at_ms, now_ms) {
                removed.push(self.remove_expired(context, bucket));
            } else if let Some(at_ms) = expires_at_ms {
                bound_ms = at_ms.min(bound_ms);
            }
        }
        self.deadlines.blocks[block] = bound_ms;
        visited
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
        self.keys_with_ttl += segment.keys_with_ttl;
        let bounds_ms = &segment.deadlines.blocks;
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
            let expires_at_ms = segment.get(bucket).and_then(Entry::expires_at_ms);
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
    fn moved_entries_are_covered_by_the_soonest_deadline() {
        let mut deadlines = Deadlines::new();
        deadlines.note(0, BLOCK_BUCKETS, 100);
        deadlines.entries_moved(4 * BLOCK_BUCKETS);
        assert_eq!(*deadlines.blocks, [100; 4]);
    }

    #[test]
    fn segment_without_deadlines_holds_no_bounds() {
        let mut deadlines = Deadlines::new();
        deadlines.entries_moved(1_024);
        assert!(deadlines.blocks.is_empty());
    }
}
