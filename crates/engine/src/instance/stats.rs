//! What an instance counts: commands with their durations, errors, look-ups, and how much happens in a second.
//!
//! # Guarantees
//! Counts are exact: a command that was answered is in them. `CONFIG RESETSTAT` sets them to zero; what ends at that moment may count or not.
//!
//! # How it works
//! Each connection counts into one of several shards, so that threads rarely meet at a number; who asks adds the shards up. A shard has
//! a histogram of durations for a command once it was used there.
//!
//! The clock here is the machine's: it measures how long a thread is kept busy, which is no time that a replayed run could see.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::histogram::Histogram;
use crate::command;

/// More than the threads that carry out commands at a time on usual machines, and still little memory.
const SHARDS: usize = 8;

/// Different codes of errors that are counted: scripts can make up any number of them.
const ERROR_CODES_MAX: usize = 128;

/// Samples that a rate is the average of, as Redis has.
const RATE_SAMPLES: usize = 16;
/// Time between samples.
const RATE_PERIOD_US: u64 = 100_000;

/// The counts of an instance.
pub(crate) struct Stats {
    origin: Instant,
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

/// Aligned so that two shards share no cache line.
#[repr(align(128))]
struct Shard {
    hits: AtomicU64,
    misses: AtomicU64,
    changes: AtomicU64,
    errors: AtomicU64,
    commands: Box<[CommandCounts]>,
}

#[derive(Default)]
struct CommandCounts {
    calls: AtomicU64,
    duration_ns: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    durations: OnceLock<Box<Histogram>>,
}

/// What came of one command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) command: usize,
    pub(crate) duration_ns: u64,
    pub(crate) has_failed: bool,
    /// Whether the duration goes into the histogram.
    pub(crate) is_tracked: bool,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
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
    #[allow(clippy::disallowed_methods, reason = "how long a thread is kept busy, not a time that commands see")]
    fn default() -> Self {
        Self {
            origin: Instant::now(),
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
        let zero = || AtomicU64::new(0);
        let commands = (0..command::count()).map(|_| CommandCounts::default()).collect();
        Self { hits: zero(), misses: zero(), changes: zero(), errors: zero(), commands }
    }
}

impl Stats {
    /// Nanoseconds since the instance was made.
    #[inline]
    pub(crate) fn now_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// A command of connection `id` is over.
    #[inline]
    pub(crate) fn add(&self, id: u64, outcome: Outcome) {
        let shard = self.shard(id);
        let Some(counts) = shard.commands.get(outcome.command) else { return };
        add(&counts.calls, 1);
        add(&counts.duration_ns, outcome.duration_ns);
        if outcome.is_tracked {
            counts.durations.get_or_init(Box::default).add(outcome.duration_ns);
        }
        if outcome.hits > 0 {
            add(&shard.hits, outcome.hits);
        }
        if outcome.misses > 0 {
            add(&shard.misses, outcome.misses);
        }
        if outcome.has_failed {
            add(&counts.failed, 1);
        }
    }

    /// A command has changed something.
    #[inline]
    pub(crate) fn add_changes(&self, id: u64, changes: u64) {
        if changes > 0 {
            add(&self.shard(id).changes, changes);
        }
    }

    /// A command was refused before it ran.
    pub(crate) fn add_rejected(&self, id: u64, command: usize) {
        if let Some(counts) = self.shard(id).commands.get(command) {
            add(&counts.rejected, 1);
        }
    }

    /// An error reply begins with its code.
    pub(crate) fn add_error(&self, id: u64, text: &[u8]) {
        add(&self.shard(id).errors, 1);
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
        let counts = || self.shards.iter().filter_map(|shard| shard.commands.get(number));
        CommandTotals {
            calls: counts().map(|counts| get(&counts.calls)).sum(),
            duration_us: counts().map(|counts| get(&counts.duration_ns)).sum::<u64>() / 1_000,
            rejected: counts().map(|counts| get(&counts.rejected)).sum(),
            failed: counts().map(|counts| get(&counts.failed)).sum(),
        }
    }

    /// How long a command took; empty if that was never counted.
    pub(crate) fn durations(&self, number: usize) -> Histogram {
        let sum = Histogram::default();
        for counts in self.shards.iter().filter_map(|shard| shard.commands.get(number)) {
            if let Some(histogram) = counts.durations.get() {
                sum.merge(histogram);
            }
        }
        sum
    }

    pub(crate) fn totals(&self) -> Totals {
        let sum = |counter: fn(&Shard) -> &AtomicU64| self.shards.iter().map(|shard| get(counter(shard))).sum();
        let commands = self.shards.iter().flat_map(|shard| &shard.commands).map(|counts| get(&counts.calls)).sum();
        Totals {
            commands,
            hits: sum(|shard| &shard.hits),
            misses: sum(|shard| &shard.misses),
            changes: sum(|shard| &shard.changes),
            errors: sum(|shard| &shard.errors),
        }
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
        for shard in &self.shards {
            // Changes since the last save are no statistics.
            for counter in [&shard.hits, &shard.misses, &shard.errors] {
                counter.store(0, Ordering::Relaxed);
            }
            for counts in &shard.commands {
                for counter in [&counts.calls, &counts.duration_ns, &counts.rejected, &counts.failed] {
                    counter.store(0, Ordering::Relaxed);
                }
                if let Some(histogram) = counts.durations.get() {
                    histogram.reset();
                }
            }
        }
        self.errors.lock().clear();
        *self.rates.lock() = Rates::default();
        self.expired_before.store(expired_total, Ordering::Relaxed);
        self.evicted_before.store(evicted_total, Ordering::Relaxed);
        self.peak_bytes.store(0, Ordering::Relaxed);
    }

    fn shard(&self, id: u64) -> &Shard {
        &self.shards[id as usize % SHARDS]
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::{CommandTotals, Outcome, Stats};

    fn outcome(command: usize, duration_ns: u64, has_failed: bool) -> Outcome {
        Outcome { command, duration_ns, has_failed, is_tracked: true, hits: 1, misses: 0 }
    }

    #[test]
    fn counts_of_all_connections_are_added_up() {
        let stats = Stats::default();
        for id in 0..20 {
            stats.add(id, outcome(3, 2_000, id % 2 == 0));
            stats.add_rejected(id, 3);
        }
        stats.add(0, outcome(usize::MAX, 1, false));
        assert_eq!(stats.command(3), CommandTotals { calls: 20, duration_us: 40, rejected: 20, failed: 10 });
        assert_eq!((stats.totals().commands, stats.totals().hits), (20, 20));
        assert_eq!(stats.durations(3).count(), 20);
        stats.reset(0, 0);
        assert_eq!(stats.command(3), CommandTotals::default());
        assert_eq!(stats.durations(3).count(), 0);
    }

    #[test]
    fn errors_are_counted_by_code_and_bounded() {
        let stats = Stats::default();
        stats.add_error(1, b"ERR one");
        stats.add_error(2, b"ERR two");
        for number in 0..1_000 {
            stats.add_error(1, format!("E{number} x").as_bytes());
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
                stats.add(1, outcome(0, 1, false));
            }
            stats.sample(tick * 100_000, tick * 1_000, 0);
        }
        let rates = stats.per_second();
        assert_eq!((rates.commands, rates.input_bytes), (100, 10_000.0));
    }
}
