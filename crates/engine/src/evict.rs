//! Evicts keys when the memory is used up, by the eight policies of Redis.
//!
//! # Guarantees
//! A write that may grow finds what is used below the bound when it begins, or is refused as a whole before it changes anything. What is used
//! exceeds the bound by what is being written at that moment, and for the time after a very large write or a lowered bound, which
//! writers and housekeeping make up for in steps. Keys of the never-evict class stay, whatever the policy; `volatile` policies leave
//! keys without a time to live alone. An evicted key is recorded as a removal, and its watchers learn of it.
//!
//! # Failure
//! Where nothing may go, writes are refused with [`EngineError::OutOfMemory`](crate::EngineError::OutOfMemory), and have changed nothing. The
//! search ends in bounded time: where keys that may go are very few among very many that may not, a write can be refused although
//! there is one; each attempt looks further, so that it is found.
//!
//! # How it works
//! Redis's approach (<https://redis.io/docs/latest/develop/reference/eviction/>): instead of an order of all keys, some keys are looked at in
//! each step, at random, and the best candidates of all steps are remembered in a small pool; the best of them goes. When a key was used
//! is three bytes of it: the second of its last use, or for the LFU policies a count of its uses that grows ever more slowly and decays
//! (`evict/frequency.rs`). These are written by reads only while a policy needs them, under the lock that the read has anyway.
//!
//! A key is looked at and removed under the lock of its segment alone, which is never waited for, so that eviction waits for nobody who
//! holds keys. Before a candidate goes it is looked at again: one that was used since it was found stays. What is found to have
//! expired on the way is removed as such.
//!
//! Writers evict before they take anything; nobody evicts while holding a segment.
//!
//! | file | holds |
//! |---|---|
//! | `evict/policy.rs` | policies, and what is never evicted |
//! | `evict/frequency.rs` | counts of uses |
//! | `evict/pool.rs` | the best candidates |
//! | `evict/search.rs` | looking for candidates, and removing the best |

mod frequency;
mod policy;
mod pool;
mod search;
#[cfg(all(test, not(shuttle)))]
mod tests;

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::entry::{Removed, Usage};
use crate::keyspace::Engine;
use crate::memory::{Demand, Room};
use crate::rdb::Touched;
use crate::sync::{Mutex, MutexGuard};
use frequency::Frequency;
pub(crate) use frequency::Luck;
pub use policy::{EvictionConfig, EvictionPolicy, NeverEvict};
use pool::Pool;
use search::{Outcome, Search};

/// Most keys that go for one write. With more to be evicted, as after a very large write or under a lowered bound, the rest is left to the
/// next writes and to cycles: some hundred microseconds for each of them instead of seconds for one.
const EVICTED_PER_WRITE_MAX: u64 = 1_000;

/// Keys that a cycle evicts before it lets writers look for theirs.
const EVICTED_PER_TURN_MAX: u64 = 64;

/// Values larger than this are freed by cycles: a large collection takes its time.
const FREED_AT_ONCE_BYTES: u64 = 64 << 10;

/// Large values that wait to be freed; more are freed on the spot, for where no cycle runs.
const GARBAGE_MAX: usize = 256;

/// What is evicted, and how that is decided; shared by all databases.
pub(crate) struct Eviction {
    /// An [`EvictionPolicy`], as its position.
    policy: AtomicU8,
    samples: AtomicU32,
    lfu_log_factor: AtomicU32,
    lfu_decay_min: AtomicU32,
    never: NeverEvict,
    /// The time at which keys are loaded.
    loaded_ms: AtomicU64,
    /// Keys that each policy has evicted.
    evicted: [AtomicU64; EvictionPolicy::ALL.len()],
    /// Held while somebody looks for keys to evict. Segments are taken while it is held, but not waited for, and never the other way round.
    pool: Mutex<Pool>,
    /// Large values that were evicted.
    garbage: Mutex<Vec<Removed>>,
}

/// What [`Engine::evict_cycle`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvictReport {
    /// Keys that were evicted.
    pub evicted: u64,
    /// The budget ended before what is used was below the bound: run another cycle soon.
    pub ran_out: bool,
}

impl Engine {
    /// Asks for room for a write. Nothing may be held.
    #[inline]
    pub(crate) fn make_room(&self, now_ms: u64) -> Room {
        self.room_at_once().unwrap_or_else(|| self.make_room_slowly(now_ms))
    }

    /// The same as far as it takes no time. None: [`make_room_slowly`](Self::make_room_slowly) is to be asked.
    #[inline]
    pub(crate) fn room_at_once(&self) -> Option<Room> {
        let memory = &*self.keyspace().context.memory;
        match memory.demand() {
            Demand::Nothing | Demand::Bound => Some(Room::Left),
            Demand::Eviction if !memory.is_used_up() => Some(Room::Made),
            Demand::Counting | Demand::Eviction => None,
        }
    }

    /// Evicts, or counts what is used.
    #[cold]
    pub(crate) fn make_room_slowly(&self, now_ms: u64) -> Room {
        let memory = &*self.keyspace().context.memory;
        if memory.demand() == Demand::Counting {
            self.count_memory();
            return Room::Left;
        }
        let (outcome, _) = self.evict(now_ms, EVICTED_PER_WRITE_MAX);
        match outcome {
            Outcome::IsBelow | Outcome::RanOut => Room::Made,
            Outcome::NothingToEvict => Room::None,
        }
    }

    /// Evicts what a lowered bound or a very large write has left to be evicted, at most `budget` keys, and frees large values that were
    /// evicted by writers. Costs a comparison where there is nothing to do. Call it as often as [`expire_cycle`](Self::expire_cycle).
    pub fn evict_cycle(&self, now_ms: u64, budget: u32) -> EvictReport {
        let memory = &*self.keyspace().context.memory;
        memory.eviction.free_garbage();
        let mut report = EvictReport::default();
        match memory.demand() {
            Demand::Nothing | Demand::Bound => return report,
            Demand::Counting => self.count_memory(),
            Demand::Eviction => {}
        }
        while memory.demand() == Demand::Eviction && memory.is_used_up() {
            let left = u64::from(budget).saturating_sub(report.evicted);
            let (outcome, evicted) = self.evict(now_ms, left.min(EVICTED_PER_TURN_MAX));
            report.evicted += evicted;
            report.ran_out = outcome == Outcome::RanOut && report.evicted >= u64::from(budget);
            // Without progress, others hold what could go: next time.
            if outcome != Outcome::RanOut || report.ran_out || evicted == 0 {
                break;
            }
        }
        report
    }

    /// Keys that were evicted since the engine was created, by the policy that chose them.
    #[must_use]
    pub fn evictions(&self) -> [(EvictionPolicy, u64); EvictionPolicy::ALL.len()] {
        let eviction = &self.keyspace().context.memory.eviction;
        EvictionPolicy::ALL.map(|policy| (policy, eviction.evicted[policy as usize].load(Ordering::Relaxed)))
    }

    fn evict(&self, now_ms: u64, keys_max: u64) -> (Outcome, u64) {
        let memory = &*self.keyspace().context.memory;
        let mut search = Search::new(memory, memory.eviction.pool(), self.family().all(), now_ms);
        let outcome = search.run(keys_max);
        let (evicted, removed) = search.end();
        // Nothing is held any more.
        memory.eviction.discard(removed);
        (outcome, evicted)
    }

    /// Lets all segments join the shared counter. Those that somebody holds do so at the next attempt.
    pub(crate) fn count_memory(&self) {
        let databases = self.family().all();
        let segments =
            databases.iter().flat_map(|(_, keyspace)| keyspace.segments.iter().map(move |one| (keyspace, one)));
        let mut is_complete = true;
        for (keyspace, segment) in segments {
            match segment.0.try_lock() {
                Some(mut segment) => segment.join_counter(&keyspace.context),
                None => is_complete = false,
            }
        }
        // Databases that were created meanwhile count from their beginning.
        if is_complete {
            self.keyspace().context.memory.all_segments_count();
        }
    }
}

impl Eviction {
    pub(crate) fn new(config: EvictionConfig, seed: u64) -> Self {
        let EvictionConfig { policy, samples, lfu_log_factor, lfu_decay_min, never } = config;
        Self {
            policy: AtomicU8::new(policy as u8),
            samples: AtomicU32::new(samples.max(1)),
            lfu_log_factor: AtomicU32::new(lfu_log_factor),
            lfu_decay_min: AtomicU32::new(lfu_decay_min),
            never,
            loaded_ms: AtomicU64::new(0),
            evicted: Default::default(),
            pool: Mutex::new(Pool::new(seed)),
            garbage: Mutex::new(Vec::new()),
        }
    }

    #[inline]
    pub(crate) fn policy(&self) -> EvictionPolicy {
        EvictionPolicy::ALL[usize::from(self.policy.load(Ordering::Relaxed)) % EvictionPolicy::ALL.len()]
    }

    /// To be called by the account, which depends on it.
    pub(crate) fn set_policy(&self, policy: EvictionPolicy) {
        self.policy.store(policy as u8, Ordering::Relaxed);
    }

    pub(crate) fn samples(&self) -> u32 {
        self.samples.load(Ordering::Relaxed)
    }

    pub(crate) fn set_samples(&self, samples: u32) {
        self.samples.store(samples.max(1), Ordering::Relaxed);
    }

    pub(crate) fn lfu_log_factor(&self) -> u32 {
        self.lfu_log_factor.load(Ordering::Relaxed)
    }

    pub(crate) fn set_lfu_log_factor(&self, factor: u32) {
        self.lfu_log_factor.store(factor, Ordering::Relaxed);
    }

    pub(crate) fn lfu_decay_min(&self) -> u32 {
        self.lfu_decay_min.load(Ordering::Relaxed)
    }

    pub(crate) fn set_lfu_decay_min(&self, minutes: u32) {
        self.lfu_decay_min.store(minutes, Ordering::Relaxed);
    }

    /// Whether a policy goes by when keys were used, so that everybody who uses one has to note it.
    #[inline]
    pub(crate) fn needs_usage(&self) -> bool {
        self.policy().needs_usage()
    }

    /// The usage of a key that is used now.
    #[inline]
    pub(crate) fn used(&self, usage: Usage, now_ms: u64, luck: &mut Luck) -> Usage {
        if self.policy().is_lfu() { self.frequency().used(usage, now_ms, luck) } else { usage.at(now_ms) }
    }

    /// The usage of a key that is new.
    #[inline]
    pub(crate) fn new_usage(&self, now_ms: u64) -> Usage {
        if self.policy().is_lfu() { Frequency::new_usage(now_ms) } else { Usage::default().at(now_ms) }
    }

    /// The usage of a key that comes from outside, of which that is known which was tracked there.
    pub(crate) fn restored_usage(&self, now_ms: u64, touched: Option<Touched>) -> Usage {
        match (self.policy().is_lfu(), touched) {
            (true, Some(Touched::Frequency(count))) => Frequency::usage_of(count, now_ms),
            (false, Some(Touched::IdleS(idle_s))) => {
                let idle_s = idle_s.min(u64::from(Usage::IDLE_MAX_S));
                Usage::default().at(now_ms.saturating_sub(idle_s * 1_000))
            }
            _ => self.new_usage(now_ms),
        }
    }

    /// What there is to be said of the uses of a key, for who restores it: only where a policy goes by it, as Redis does.
    pub(crate) fn touched(&self, usage: Usage, now_ms: u64) -> Option<Touched> {
        match self.policy() {
            policy if policy.is_lfu() => Some(Touched::Frequency(self.count(usage, now_ms))),
            policy if policy.is_lru() => Some(Touched::IdleS(u64::from(usage.idle_s(now_ms)))),
            _ => None,
        }
    }

    pub(crate) fn set_loaded_ms(&self, now_ms: u64) {
        self.loaded_ms.store(now_ms, Ordering::Relaxed);
    }

    /// The usage of a key that is loaded.
    pub(crate) fn loaded_usage(&self, touched: Option<Touched>) -> Usage {
        self.restored_usage(self.loaded_ms.load(Ordering::Relaxed), touched)
    }

    /// The usage of a key that was loaded and is then changed by what is applied.
    pub(crate) fn applied(&self, usage: Usage, luck: &mut Luck) -> Usage {
        self.used(usage, self.loaded_ms.load(Ordering::Relaxed), luck)
    }

    /// How often a key was used of late, on a logarithmic scale.
    pub(crate) fn count(&self, usage: Usage, now_ms: u64) -> u8 {
        self.frequency().count(usage, now_ms)
    }

    /// Keys that were evicted, by whatever policy.
    pub(crate) fn evicted_total(&self) -> u64 {
        self.evicted.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn frequency(&self) -> Frequency {
        Frequency { log_factor: self.lfu_log_factor(), decay_min: self.lfu_decay_min() }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock()
    }

    /// Frees small values now and large ones later.
    fn discard(&self, removed: Vec<Removed>) {
        let large = removed.into_iter().filter(|entry| entry.cost_bytes() > FREED_AT_ONCE_BYTES);
        let large: Vec<Removed> = large.collect();
        if large.is_empty() {
            return;
        }
        let mut garbage = self.garbage.lock();
        if garbage.len() < GARBAGE_MAX {
            garbage.extend(large);
        }
    }

    fn free_garbage(&self) {
        let garbage = std::mem::take(&mut *self.garbage.lock());
        drop(garbage);
    }
}

impl std::fmt::Debug for Eviction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Eviction").field("policy", &self.policy()).finish_non_exhaustive()
    }
}
