//! What an instance counts: commands with their durations, errors, look-ups, and how much happens in a second.
//!
//! # Guarantees
//! Counts are exact: a command that was answered is in them. `CONFIG RESETSTAT` sets them to zero; what ends at that moment may count or not.
//!
//! # How it works
//! Each thread counts into one of several shards, which it has to itself unless there are many threads; who asks adds the shards up. Commands that
//! came together are counted together (`measure.rs`): locking a shard costs more than all that is added there for one of them. A shard has
//! a histogram of durations for a command once it was used there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::histogram::Histogram;
use crate::command;

/// More than the threads that carry out commands at a time on usual machines, and still little memory.
const SHARDS: usize = 16;

thread_local! {
    /// The shard that the thread counts into.
    static SHARD: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS
    };
}

/// Different codes of errors that are counted: scripts can make up any number of them.
const ERROR_CODES_MAX: usize = 128;

/// Samples that a rate is the average of, as Redis has.
const RATE_SAMPLES: usize = 16;
/// Time between samples.
const RATE_PERIOD_US: u64 = 100_000;

/// The counts of an instance.
pub(crate) struct Stats {
    /// When the instance came into use, by the engine's clock; 0: not yet.
    started_us: AtomicU64,
    shards: Box<[Shard]>,
    errors: Mutex<BTreeMap<String, u64>>,
    rates: Mutex<Rates>,
    /// Expired keys of which nothing is said any more.
    expired_before: AtomicU64,
    /// The same of evicted keys.
    evicted_before: AtomicU64,
    /// The most memory that was in use, as far as anybody has looked.
    peak_bytes: AtomicU64,
}

/// Aligned so that two shards share no cache line. The lock is there for those who ask, and for threads beyond the number of shards.
#[repr(align(128))]
struct Shard(Mutex<Counts>);

struct Counts {
    hits: u64,
    misses: u64,
    changes: u64,
    errors: u64,
    commands: Box<[CommandCounts]>,
}

#[derive(Default)]
struct CommandCounts {
    calls: u64,
    duration_ns: u64,
    rejected: u64,
    failed: u64,
    durations: Option<Box<Histogram>>,
}

/// What came of a command, or of some that were alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) command: usize,
    /// How often it was carried out.
    pub(crate) calls: u64,
    /// Of each call.
    pub(crate) duration_ns: u64,
    /// Each call has.
    pub(crate) has_failed: bool,
    /// Whether the duration goes into the histogram.
    pub(crate) is_tracked: bool,
    /// Of all calls together, as the misses.
    pub(crate) hits: u64,
    pub(crate) misses: u64,
}

impl Outcome {
    /// Takes in the outcome of a command with the same duration, if it differs in nothing but what is added up. Returns whether it did.
    #[inline]
    pub(super) fn absorb(&mut self, other: &Self) -> bool {
        let is_alike =
            (self.command, self.has_failed, self.is_tracked) == (other.command, other.has_failed, other.is_tracked);
        if is_alike {
            self.calls += other.calls;
            self.hits += other.hits;
            self.misses += other.misses;
        }
        is_alike
    }

    /// Becomes that of the last call alone. Returns that of all others, if there are some; look-ups are counted there.
    pub(super) fn split_last(&mut self) -> Option<Self> {
        let others = Self { calls: self.calls - 1, ..*self };
        if others.calls == 0 {
            return None;
        }
        (self.calls, self.hits, self.misses) = (1, 0, 0);
        Some(others)
    }
}

/// The counts of one command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CommandTotals {
    pub(crate) calls: u64,
    pub(crate) duration_us: u64,
    pub(crate) rejected: u64,
    pub(crate) failed: u64,
}

/// The counts of no command in particular.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) commands: u64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) changes: u64,
    pub(crate) errors: u64,
}

/// What happened in a second of late.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PerSecond {
    pub(crate) commands: u64,
    pub(crate) input_bytes: f64,
    pub(crate) output_bytes: f64,
}

#[derive(Default)]
struct Rates {
    last_us: u64,
    last: [u64; 3],
    samples: [[f64; RATE_SAMPLES]; 3],
    next: usize,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            started_us: AtomicU64::new(0),
            shards: (0..SHARDS).map(|_| Shard::new()).collect(),
            errors: Mutex::default(),
            rates: Mutex::default(),
            expired_before: AtomicU64::new(0),
            evicted_before: AtomicU64::new(0),
            peak_bytes: AtomicU64::new(0),
        }
    }
}

impl Shard {
    fn new() -> Self {
        let commands = (0..command::count()).map(|_| CommandCounts::default()).collect();
        Self(Mutex::new(Counts { hits: 0, misses: 0, changes: 0, errors: 0, commands }))
    }
}

impl Counts {
    #[inline]
    fn add(&mut self, outcome: &Outcome) {
        let Some(counts) = self.commands.get_mut(outcome.command) else { return };
        counts.calls += outcome.calls;
        counts.duration_ns += outcome.calls * outcome.duration_ns;
        counts.failed += u64::from(outcome.has_failed) * outcome.calls;
        if outcome.is_tracked {
            counts.durations.get_or_insert_default().add(outcome.duration_ns, outcome.calls);
        }
        self.hits += outcome.hits;
        self.misses += outcome.misses;
    }

    /// Changes since the last save are no statistics, and stay.
    fn reset(&mut self) {
        (self.hits, self.misses, self.errors) = (0, 0, 0);
        self.commands.fill_with(CommandCounts::default);
    }
}

impl Stats {
    /// A command is over.
    pub(crate) fn add(&self, outcome: Outcome) {
        self.own().add(&outcome);
    }

    /// Counts commands that are over, and what they have changed.
    pub(crate) fn add_all(&self, outcomes: &[Outcome], changes: u64) {
        let mut counts = self.own();
        outcomes.iter().for_each(|outcome| counts.add(outcome));
        counts.changes += changes;
    }

    /// A command has changed something.
    pub(crate) fn add_changes(&self, changes: u64) {
        if changes > 0 {
            self.own().changes += changes;
        }
    }

    /// A command was refused before it ran.
    pub(crate) fn add_rejected(&self, command: usize) {
        if let Some(counts) = self.own().commands.get_mut(command) {
            counts.rejected += 1;
        }
    }

    /// An error reply begins with its code.
    pub(crate) fn add_error(&self, text: &[u8]) {
        self.own().errors += 1;
        let code = text.split(|byte| *byte == b' ').next().unwrap_or_default();
        let code = &*String::from_utf8_lossy(code);
        let mut errors = self.errors.lock();
        if let Some(count) = errors.get_mut(code) {
            *count += 1;
        } else if errors.len() < ERROR_CODES_MAX {
            errors.insert(code.to_owned(), 1);
        }
    }

    pub(crate) fn command(&self, number: usize) -> CommandTotals {
        let (mut totals, mut duration_ns) = (CommandTotals::default(), 0);
        for shard in &self.shards {
            let shard = shard.0.lock();
            let Some(counts) = shard.commands.get(number) else { continue };
            totals.calls += counts.calls;
            totals.rejected += counts.rejected;
            totals.failed += counts.failed;
            duration_ns += counts.duration_ns;
        }
        CommandTotals { duration_us: duration_ns / 1_000, ..totals }
    }

    /// How long a command took; empty if that was never counted.
    pub(crate) fn durations(&self, number: usize) -> Histogram {
        let mut sum = Histogram::default();
        for shard in &self.shards {
            let shard = shard.0.lock();
            if let Some(histogram) = shard.commands.get(number).and_then(|counts| counts.durations.as_deref()) {
                sum.merge(histogram);
            }
        }
        sum
    }

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for shard in &self.shards {
            let shard = shard.0.lock();
            totals.commands += shard.commands.iter().map(|counts| counts.calls).sum::<u64>();
            totals.hits += shard.hits;
            totals.misses += shard.misses;
            totals.changes += shard.changes;
            totals.errors += shard.errors;
        }
        totals
    }

    /// Error replies by code, in the order of the codes.
    pub(crate) fn errors(&self) -> BTreeMap<String, u64> {
        self.errors.lock().clone()
    }

    /// The instance is in use.
    pub(crate) fn note_start(&self, now_us: u64) {
        if self.started_us.load(Ordering::Relaxed) == 0 {
            let _ = self.started_us.compare_exchange(0, now_us, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    pub(crate) fn started_us(&self) -> u64 {
        get(&self.started_us)
    }

    /// Notes what was counted by now, at most once in a while: for rates.
    pub(crate) fn sample(&self, now_us: u64, input_bytes: u64, output_bytes: u64) {
        let mut rates = self.rates.lock();
        let elapsed_us = now_us.saturating_sub(rates.last_us);
        if elapsed_us < RATE_PERIOD_US {
            return;
        }
        let now = [self.totals().commands, input_bytes, output_bytes];
        if rates.last_us > 0 {
            let next = rates.next;
            for (at, now) in now.into_iter().enumerate() {
                let grown = now.saturating_sub(rates.last[at]) as f64;
                rates.samples[at][next] = grown * 1e6 / elapsed_us as f64;
            }
            rates.next = (next + 1) % RATE_SAMPLES;
        }
        (rates.last, rates.last_us) = (now, now_us);
    }

    pub(crate) fn per_second(&self) -> PerSecond {
        let rates = self.rates.lock();
        let [commands, input_bytes, output_bytes] =
            rates.samples.map(|samples| samples.iter().sum::<f64>() / RATE_SAMPLES as f64);
        PerSecond { commands: commands as u64, input_bytes, output_bytes }
    }

    /// Expired keys since the last reset, of `total`.
    pub(crate) fn expired(&self, total: u64) -> u64 {
        total.saturating_sub(get(&self.expired_before))
    }

    /// Evicted keys since the last reset, of `total`.
    pub(crate) fn evicted(&self, total: u64) -> u64 {
        total.saturating_sub(get(&self.evicted_before))
    }

    /// The most bytes in use, of which `bytes` are so now.
    pub(crate) fn peak_bytes(&self, bytes: u64) -> u64 {
        self.peak_bytes.fetch_max(bytes, Ordering::Relaxed).max(bytes)
    }

    /// Sets all counts to zero. So many keys have expired and been evicted until now.
    pub(crate) fn reset(&self, expired_total: u64, evicted_total: u64) {
        self.shards.iter().for_each(|shard| shard.0.lock().reset());
        self.errors.lock().clear();
        *self.rates.lock() = Rates::default();
        self.expired_before.store(expired_total, Ordering::Relaxed);
        self.evicted_before.store(evicted_total, Ordering::Relaxed);
        self.peak_bytes.store(0, Ordering::Relaxed);
    }

    /// The counts of this thread.
    fn own(&self) -> MutexGuard<'_, Counts> {
        self.shards[SHARD.with(|shard| *shard)].0.lock()
    }
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::{CommandTotals, Outcome, Stats};

    fn outcome(command: usize, duration_ns: u64, has_failed: bool) -> Outcome {
        Outcome { command, calls: 1, duration_ns, has_failed, is_tracked: true, hits: 1, misses: 0 }
    }

    #[test]
    fn counts_of_all_threads_are_added_up() {
        let stats = Stats::default();
        thread::scope(|scope| {
            for number in 0..20 {
                let stats = &stats;
                scope.spawn(move || {
                    stats.add(outcome(3, 2_000, number % 2 == 0));
                    stats.add_rejected(3);
                });
            }
        });
        stats.add(outcome(usize::MAX, 1, false));
        assert_eq!(stats.command(3), CommandTotals { calls: 20, duration_us: 40, rejected: 20, failed: 10 });
        assert_eq!((stats.totals().commands, stats.totals().hits), (20, 20));
        assert_eq!(stats.durations(3).count(), 20);
        stats.add_all(&[outcome(3, 1_000, false); 2], 5);
        stats.reset(0, 0);
        assert_eq!(stats.command(3), CommandTotals::default());
        assert_eq!(stats.durations(3).count(), 0);
        assert_eq!(stats.totals().changes, 5, "what has changed since the last save is no statistics");
    }

    #[test]
    fn errors_are_counted_by_code_and_bounded() {
        let stats = Stats::default();
        stats.add_error(b"ERR one");
        stats.add_error(b"ERR two");
        for number in 0..1_000 {
            stats.add_error(format!("E{number} x").as_bytes());
        }
        let errors = stats.errors();
        assert_eq!((errors.get("ERR"), errors.len()), (Some(&2), 128));
        assert_eq!(stats.totals().errors, 1_002);
    }

    #[test]
    fn rate_is_that_of_the_last_samples() {
        let stats = Stats::default();
        for tick in 1..=40_u64 {
            for _ in 0..10 {
                stats.add(outcome(0, 1, false));
            }
            stats.sample(tick * 100_000, tick * 1_000, 0);
        }
        let rates = stats.per_second();
        assert_eq!((rates.commands, rates.input_bytes), (100, 10_000.0));
    }
}
