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
//! Removing a key or extending its deadline leaves a bound that is too low, which costs one visit of the block later. When the table moves
//! its entries (it grew, shrank or was tidied), every bound becomes the segment's soonest deadline: too low, never too high.

use crate::entry::{Entry, is_expired};
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
        self.deadlines.settle();
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
