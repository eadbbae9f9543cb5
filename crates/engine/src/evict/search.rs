//! Looking for keys that may go, and removing the best of them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::pool::{Candidate, Pool};
use super::{Eviction, EvictionPolicy};
use crate::entry::{EntryRef, Ref, Removed, is_expired};
use crate::expire::BLOCK_BUCKETS;
use crate::keyspace::Keyspace;
use crate::memory::Memory;
use crate::observe::EventClass;
use crate::segment::{Context, Segment};
use crate::sync::MutexGuard;

/// Rounds of samples before all keys are walked through: with so many failures, keys that may go are rare.
const ROUNDS_MAX: u32 = 4;

/// Segments that are tried for one round of samples: more than enough where keys are spread, little where there are none.
const PROBES_MAX: usize = 16;

/// What one walk may cost at most, about 100 µs: looking into a segment costs one, into a key eight.
const WALK_COST_MAX: usize = 4_096;
const KEY_COST: usize = 8;

/// What came of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There is room.
    IsBelow,
    /// There is not, but more could go, or somebody holds what could.
    RanOut,
    NothingToEvict,
}

/// A search, which has the pool to itself.
pub(super) struct Search<'m> {
    memory: &'m Memory,
    pool: MutexGuard<'m, Pool>,
    databases: Vec<(usize, Arc<Keyspace>)>,
    policy: EvictionPolicy,
    now_ms: u64,
    /// Somebody held a segment that was to be looked into.
    met_held: bool,
    evicted: u64,
    removed: Vec<Removed>,
}

/// What became of a candidate.
enum Fate {
    Removed,
    /// It stays, or is there no more.
    Stays,
    Held,
}

impl<'m> Search<'m> {
    pub(super) fn new(
        memory: &'m Memory,
        mut pool: MutexGuard<'m, Pool>,
        databases: Vec<(usize, Arc<Keyspace>)>,
        now_ms: u64,
    ) -> Self {
        let policy = memory.eviction.policy();
        pool.begin(policy);
        Self { memory, pool, databases, policy, now_ms, met_held: false, evicted: 0, removed: Vec::new() }
    }

    /// Evicts until there is room, at most `keys_max` keys.
    pub(super) fn run(&mut self, keys_max: u64) -> Outcome {
        while self.memory.is_used_up() {
            if self.removed.len() as u64 >= keys_max {
                return Outcome::RanOut;
            }
            if !self.remove_one() {
                return if self.met_held { Outcome::RanOut } else { Outcome::NothingToEvict };
            }
        }
        Outcome::IsBelow
    }

    /// How many keys were evicted, and what they held, together with what had expired.
    pub(super) fn end(self) -> (u64, Vec<Removed>) {
        (self.evicted, self.removed)
    }

    /// Whether at least one key was removed.
    fn remove_one(&mut self) -> bool {
        let removed_before = self.removed.len();
        for _ in 0..ROUNDS_MAX {
            self.sample();
            if self.removed.len() > removed_before || self.evict_best() {
                return true;
            }
        }
        self.walk();
        self.removed.len() > removed_before || self.evict_best()
    }

    /// Looks at some keys: at one for a policy that goes by chance, else at some of each database.
    fn sample(&mut self) {
        let samples = self.memory.eviction.samples() as usize;
        self.pool.turn = self.pool.turn.wrapping_add(1);
        for position in 0..self.databases.len() {
            let (number, keyspace) = &self.databases[self.pool.turn.wrapping_add(position) % self.databases.len()];
            let (number, keyspace) = (*number, keyspace.clone());
            if !self.policy.is_random() {
                self.sample_database(number, &keyspace, samples);
            } else if self.pool.is_empty() {
                self.sample_database(number, &keyspace, 1);
            }
        }
    }

    fn sample_database(&mut self, number: usize, keyspace: &Keyspace, mut wanted: usize) {
        let count = keyspace.segments.len();
        let first = self.pool.random.index(count);
        for step in 0..count.min(PROBES_MAX) {
            if wanted == 0 {
                return;
            }
            let Some(mut segment) = keyspace.segments[(first + step) % count].0.try_lock() else {
                self.met_held = true;
                continue;
            };
            if self.has_nothing_in(&segment) {
                continue;
            }
            let buckets = segment.store.buckets();
            let start = self.pool.random.index(buckets);
            let mut look = Look::new(self, &keyspace.context, number);
            look.over(&segment, start..buckets, wanted);
            look.over(&segment, 0..start, wanted);
            let Look { seen, mut expired, .. } = look;
            wanted -= seen.min(wanted);
            self.remove_expired(&keyspace.context, &mut segment, &mut expired);
        }
    }

    /// Walks on through all keys until one is found that may go.
    fn walk(&mut self) {
        let (mut database, mut number, mut bucket) = self.pool.place;
        let mut cost = 0;
        let segments: usize = self.databases.iter().map(|(_, keyspace)| keyspace.segments.len()).sum();
        // One more than there are: the first one may be entered in its middle.
        for _ in 0..=segments {
            if database >= self.databases.len() {
                (database, number, bucket) = (0, 0, 0);
            }
            let (name, keyspace) = (self.databases[database].0, self.databases[database].1.clone());
            let removed_before = self.removed.len();
            cost += 1;
            let mut next_bucket = usize::MAX;
            match keyspace.segments[number].0.try_lock() {
                None => self.met_held = true,
                Some(segment) if self.has_nothing_in(&segment) => {}
                Some(mut segment) => {
                    let buckets = segment.store.buckets();
                    let mut look = Look::new(self, &keyspace.context, name);
                    let wanted = (WALK_COST_MAX.saturating_sub(cost) / KEY_COST).max(1);
                    next_bucket = look.over(&segment, bucket.min(buckets)..buckets, wanted);
                    if next_bucket >= buckets {
                        next_bucket = usize::MAX;
                    }
                    let Look { seen, mut expired, .. } = look;
                    cost += seen * KEY_COST;
                    self.remove_expired(&keyspace.context, &mut segment, &mut expired);
                }
            }
            bucket = next_bucket;
            if bucket == usize::MAX {
                (number, bucket) = (number + 1, 0);
            }
            if number == keyspace.segments.len() {
                (database, number) = (database + 1, 0);
            }
            if cost >= WALK_COST_MAX || !self.pool.is_empty() || self.removed.len() > removed_before {
                break;
            }
        }
        self.pool.place = (database, number, bucket);
    }

    fn has_nothing_in(&self, segment: &Segment) -> bool {
        segment.store.is_empty() || self.policy.needs_ttl() && segment.keys_with_ttl == 0
    }

    fn remove_expired(&mut self, context: &Context, segment: &mut Segment, buckets: &mut [usize]) {
        // From the last one on: a removal moves entries behind it into other buckets.
        buckets.sort_unstable_by(|one, other| other.cmp(one));
        self.removed.extend(buckets.iter().map(|bucket| segment.remove_expired(context, *bucket)));
        if !buckets.is_empty() {
            segment.shrink_if_sparse(context);
        }
    }

    /// Evicts the best candidate that may still go. Returns whether there was one.
    fn evict_best(&mut self) -> bool {
        while let Some(candidate) = self.pool.take_best() {
            match self.evict(&candidate) {
                Fate::Removed => return true,
                Fate::Stays => {}
                Fate::Held => self.met_held = true,
            }
        }
        false
    }

    fn evict(&mut self, candidate: &Candidate) -> Fate {
        let Candidate { score, database, hash, key } = candidate;
        let Some((_, keyspace)) = self.databases.iter().find(|(number, _)| number == database) else {
            return Fate::Stays;
        };
        let context = &keyspace.context;
        let Some(mut segment) = keyspace.segments[keyspace.segment_of(*hash)].0.try_lock() else { return Fate::Held };
        let Some((bucket, entry)) = segment.store.find_entry(*hash, key) else { return Fate::Stays };
        if is_expired(entry.expires_at_ms(), self.now_ms) {
            let entry = segment.remove_expired(context, bucket);
            self.removed.push(entry);
            return Fate::Removed;
        }
        // Used since it was found, if it would go less well now. Threads may read their clocks a little apart.
        let (eviction, slack) = (&self.memory.eviction, u64::from(self.policy.is_lru()));
        let was_used = eviction.score(self.policy, entry, self.now_ms).saturating_add(slack) < *score;
        if was_used || !eviction.may_go(self.policy, key, entry) {
            return Fate::Stays;
        }
        let entry = segment.remove(context, bucket);
        segment.shrink_if_sparse(context);
        // Nobody is told before the removal is handed over.
        context.outlet.commit(&mut segment);
        context.signals.event(context.database, EventClass::EVICTED, "evicted", key);
        segment.changed(context, key, false);
        drop(segment);
        eviction.evicted[self.policy as usize].fetch_add(1, Ordering::Relaxed);
        self.evicted += 1;
        self.removed.push(entry);
        Fate::Removed
    }
}

/// A look into one segment.
struct Look<'l> {
    pool: &'l mut Pool,
    eviction: &'l Eviction,
    policy: EvictionPolicy,
    now_ms: u64,
    context: &'l Context,
    database: usize,
    seen: usize,
    /// Buckets of keys whose time has come.
    expired: SmallVec<[usize; 4]>,
}

impl<'l> Look<'l> {
    fn new(search: &'l mut Search<'_>, context: &'l Context, database: usize) -> Self {
        let (eviction, policy, now_ms) = (&search.memory.eviction, search.policy, search.now_ms);
        Self { pool: &mut search.pool, eviction, policy, now_ms, context, database, seen: 0, expired: SmallVec::new() }
    }

    /// Looks at keys in these buckets until it has seen `wanted`. Returns where it has ended.
    fn over(&mut self, segment: &Segment, buckets: Range<usize>, wanted: usize) -> usize {
        let mut bucket = buckets.start;
        while bucket < buckets.end && self.seen < wanted {
            let begins_block = bucket.is_multiple_of(BLOCK_BUCKETS);
            if self.policy.needs_ttl() && begins_block && segment.deadlines.has_none_in(bucket / BLOCK_BUCKETS) {
                bucket += BLOCK_BUCKETS;
                continue;
            }
            if let Some(entry) = segment.get(bucket)
                && (!self.policy.needs_ttl() || entry.expires_at_ms().is_some())
            {
                self.at(bucket, entry);
            }
            bucket += 1;
        }
        bucket.min(buckets.end)
    }

    fn at(&mut self, bucket: usize, entry: EntryRef<'_>) {
        self.seen += 1;
        if is_expired(entry.expires_at_ms(), self.now_ms) {
            self.expired.push(bucket);
            return;
        }
        let score = self.eviction.score(self.policy, entry, self.now_ms);
        let key = entry.key();
        if self.pool.wants(score) && self.eviction.may_go(self.policy, key, entry) {
            let hash = self.context.hash(key);
            self.pool.add(Candidate { score, database: self.database, hash, key: key.into() });
        }
    }
}

impl Eviction {
    /// How well a key would go.
    fn score(&self, policy: EvictionPolicy, entry: EntryRef<'_>, now_ms: u64) -> u64 {
        match policy {
            EvictionPolicy::AllKeysLru | EvictionPolicy::VolatileLru => u64::from(entry.usage().idle_s(now_ms)),
            EvictionPolicy::AllKeysLfu | EvictionPolicy::VolatileLfu => {
                u64::from(u8::MAX - self.count(entry.usage(), now_ms))
            }
            EvictionPolicy::VolatileTtl => u64::MAX - entry.expires_at_ms().unwrap_or(u64::MAX),
            EvictionPolicy::NoEviction | EvictionPolicy::AllKeysRandom | EvictionPolicy::VolatileRandom => 0,
        }
    }

    fn may_go(&self, policy: EvictionPolicy, key: &[u8], entry: EntryRef<'_>) -> bool {
        let has_ttl = entry.expires_at_ms().is_some();
        (has_ttl || !policy.needs_ttl()) && !self.never.has(key, Ref::new(entry, key.len()))
    }
}
