//! The options of the memory backend.

use std::time::Duration;

use acteon_engine::{EngineConfig, EvictionConfig, EvictionPolicy};
use acteon_state_core::entry::duration_ms;
use acteon_state_core::lock::record::RETENTION_DEFAULT;
use acteon_state_core::{Error, Keyspace, Result, Scope};
use serde::Deserialize;

use crate::evict::never_evict;
use crate::keep::{KeepConfig, KeepFsync};

/// The largest value unless configured.
const VALUE_BYTES_DEFAULT: u64 = 64 << 20;
/// The largest value that can be configured: what Redis allows for a string, so that data can move there.
const VALUE_BYTES_CAP: u64 = 512 << 20;

/// Kinds that the dispatch server relies on: deduplication, limits, stored actions and their outcomes.
const NEVER_EVICT_KINDS_DEFAULT: [&str; 4] = ["dedup", "throttle", "action", "dead"];

/// More cost time and choose hardly better: ten are already close to an exact order.
const EVICTION_SAMPLES_MAX: u32 = 64;

/// Above this no count grows any more.
const LFU_LOG_FACTOR_MAX: u32 = 1_000;

/// Minutes are counted in 16 bits.
const LFU_DECAY_MINUTES_MAX: u64 = 65_535;

const SECONDS_PER_MINUTE: u64 = 60;

/// What goes when the memory is used up, by Redis's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Eviction {
    /// Nothing: writes are refused.
    #[default]
    #[serde(rename = "noeviction")]
    None,
    /// What was not used for longest.
    #[serde(rename = "allkeys-lru")]
    AllKeysLru,
    /// What was used least often of late.
    #[serde(rename = "allkeys-lfu")]
    AllKeysLfu,
    /// Anything.
    #[serde(rename = "allkeys-random")]
    AllKeysRandom,
    /// Of what has a time to live, what was not used for longest.
    #[serde(rename = "volatile-lru")]
    VolatileLru,
    /// Of what has a time to live, what was used least often of late.
    #[serde(rename = "volatile-lfu")]
    VolatileLfu,
    /// Anything that has a time to live.
    #[serde(rename = "volatile-random")]
    VolatileRandom,
    /// What has the least time to live.
    #[serde(rename = "volatile-ttl")]
    VolatileTtl,
}

impl Eviction {
    /// As the engine has it.
    #[must_use]
    pub const fn policy(self) -> EvictionPolicy {
        match self {
            Self::None => EvictionPolicy::NoEviction,
            Self::AllKeysLru => EvictionPolicy::AllKeysLru,
            Self::AllKeysLfu => EvictionPolicy::AllKeysLfu,
            Self::AllKeysRandom => EvictionPolicy::AllKeysRandom,
            Self::VolatileLru => EvictionPolicy::VolatileLru,
            Self::VolatileLfu => EvictionPolicy::VolatileLfu,
            Self::VolatileRandom => EvictionPolicy::VolatileRandom,
            Self::VolatileTtl => EvictionPolicy::VolatileTtl,
        }
    }
}

/// How to open a [`MemoryStore`](crate::MemoryStore).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryConfig {
    /// What all keys begin with: 1 to 64 characters out of `A-Z a-z 0-9 _ . -`. Default `acteon`.
    pub prefix: String,
    /// Writes that would take the engine above this are refused with `OutOfMemory`, unless something may go. Default: no bound.
    pub memory_bytes_max: Option<u64>,
    /// What goes when that is reached. Locks, rate limits, queues, counters and fenced values stay in any case. Default: nothing goes.
    pub eviction: Eviction,
    /// Keys that are looked at to find one that goes, 1 to 64. Default 5.
    pub eviction_samples: u32,
    /// How slowly the counts of the LFU policies grow, at most 1,000. Default 10.
    pub lfu_log_factor: u32,
    /// After which time they fall by one: whole minutes up to 65,535, or none, so that they never do. Default 1 minute.
    pub lfu_decay_time: Duration,
    /// Kinds of keys whose values stay as well. Default: those of the dispatch server.
    pub never_evict_kinds: Vec<String>,
    /// Patterns of keys that stay, as `KEYS` understands them: for those that Redis clients of the engine have. Default: none.
    pub never_evict: Vec<String>,
    /// The largest value: 1 byte to 512 MiB. Default 64 MiB.
    pub value_bytes_max: u64,
    /// How long the record of a lock is kept after its last lease: 1 ms to 100 years. Default 10 minutes.
    pub lock_retention: Duration,
    /// Where the data are kept. Default: in memory only, so that they end with the process.
    #[serde(skip)]
    pub keep: Option<KeepConfig>,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            prefix: "acteon".to_owned(),
            memory_bytes_max: None,
            eviction: Eviction::None,
            eviction_samples: EvictionConfig::DEFAULT.samples,
            lfu_log_factor: EvictionConfig::DEFAULT.lfu_log_factor,
            lfu_decay_time: Duration::from_secs(u64::from(EvictionConfig::DEFAULT.lfu_decay_min) * SECONDS_PER_MINUTE),
            never_evict_kinds: NEVER_EVICT_KINDS_DEFAULT.map(str::to_owned).to_vec(),
            never_evict: Vec::new(),
            value_bytes_max: VALUE_BYTES_DEFAULT,
            lock_retention: RETENTION_DEFAULT,
            keep: None,
        }
    }
}

/// What a configuration means, once it is found to be allowed.
pub(crate) struct Checked {
    pub(crate) keyspace: Keyspace,
    pub(crate) value_bytes_max: u64,
    pub(crate) lock_retention_ms: u64,
    /// When what is written is on a disk, if it ever is.
    pub(crate) fsync: Option<KeepFsync>,
}

impl MemoryConfig {
    pub(crate) fn check(&self) -> Result<Checked> {
        if self.value_bytes_max == 0 || self.value_bytes_max > VALUE_BYTES_CAP {
            return Err(Error::config(format!(
                "value_bytes_max {} is out of range: allowed are 1 to {VALUE_BYTES_CAP}",
                self.value_bytes_max
            )));
        }
        if self.memory_bytes_max == Some(0) {
            return Err(Error::config(
                "memory_bytes_max 0 leaves room for nothing: raise it, or leave it out for no bound",
            ));
        }
        self.check_eviction()?;
        let lock_retention_ms = duration_ms("lock_retention", self.lock_retention)
            .map_err(|error| Error::config(error.message().to_owned()))?;
        if let Some(keep) = &self.keep {
            keep.check()?;
        }
        Ok(Checked {
            keyspace: Keyspace::new(&self.prefix)?,
            value_bytes_max: self.value_bytes_max,
            lock_retention_ms,
            fsync: self.keep.as_ref().map(|keep| keep.fsync),
        })
    }

    fn check_eviction(&self) -> Result<()> {
        for (name, number, max) in [
            ("eviction_samples", self.eviction_samples, EVICTION_SAMPLES_MAX),
            ("lfu_log_factor", self.lfu_log_factor, LFU_LOG_FACTOR_MAX),
        ] {
            let min = u32::from(name == "eviction_samples");
            if !(min..=max).contains(&number) {
                return Err(Error::config(format!("{name} {number} is out of range: allowed are {min} to {max}")));
            }
        }
        if self.lfu_decay_min().is_none() {
            return Err(Error::config(format!(
                "lfu_decay_time {:?} is not allowed: use whole minutes, at most {LFU_DECAY_MINUTES_MAX}, or 0 for no decay",
                self.lfu_decay_time
            )));
        }
        for kind in &self.never_evict_kinds {
            Scope::new("n", "t", kind)
                .map_err(|error| Error::config(format!("never_evict_kinds {kind:?}: {}", error.message())))?;
        }
        Ok(())
    }

    /// `None`: it is none of whole minutes that can be counted.
    fn lfu_decay_min(&self) -> Option<u32> {
        let is_whole = self.lfu_decay_time.subsec_nanos() == 0;
        let seconds =
            Some(self.lfu_decay_time.as_secs()).filter(|seconds| is_whole && seconds % SECONDS_PER_MINUTE == 0)?;
        u32::try_from(seconds / SECONDS_PER_MINUTE).ok().filter(|minutes| u64::from(*minutes) <= LFU_DECAY_MINUTES_MAX)
    }

    /// What [`MemoryStore::open`](crate::MemoryStore::open) makes its engine of, with what never goes: for applications that make the engine by
    /// themselves, and give it to [`MemoryStore::over`](crate::MemoryStore::over).
    #[must_use]
    pub fn engine_config(&self) -> EngineConfig {
        let eviction = EvictionConfig {
            policy: self.eviction.policy(),
            samples: self.eviction_samples,
            lfu_log_factor: self.lfu_log_factor,
            // It was checked before, and anything else means the default.
            lfu_decay_min: self.lfu_decay_min().unwrap_or(EvictionConfig::DEFAULT.lfu_decay_min),
            never: never_evict(&self.never_evict_kinds, &self.never_evict),
        };
        EngineConfig { memory_bytes_max: self.memory_bytes_max, eviction, ..EngineConfig::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use acteon_state_core::ErrorKind;

    use super::MemoryConfig;

    #[test]
    fn options_out_of_range_are_named() {
        let default = MemoryConfig::default();
        assert!(default.check().is_ok());
        for (config, name) in [
            (MemoryConfig { prefix: "a:b".to_owned(), ..default.clone() }, "prefix"),
            (MemoryConfig { value_bytes_max: 0, ..default.clone() }, "value_bytes_max"),
            (MemoryConfig { value_bytes_max: (512 << 20) + 1, ..default.clone() }, "value_bytes_max"),
            (MemoryConfig { memory_bytes_max: Some(0), ..default.clone() }, "memory_bytes_max"),
            (MemoryConfig { eviction_samples: 0, ..default.clone() }, "eviction_samples"),
            (MemoryConfig { lfu_log_factor: 1_001, ..default.clone() }, "lfu_log_factor"),
            (MemoryConfig { lfu_decay_time: Duration::from_secs(90), ..default.clone() }, "lfu_decay_time"),
            (MemoryConfig { never_evict_kinds: vec![String::new()], ..default.clone() }, "never_evict_kinds"),
            (MemoryConfig { lock_retention: Duration::ZERO, ..default }, "lock_retention"),
        ] {
            let error = config.check().err().expect(name);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().contains(name), "{error}");
        }
    }
}
