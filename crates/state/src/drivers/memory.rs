//! `backend = "memory"`: an engine in this process, which needs nothing, and forgets everything at exit unless it is given a directory.

use std::sync::Arc;

use acteon_state_core::clock::{Clock, SeededClock};
use acteon_state_core::{Result, StateStore};
use acteon_state_memory::{Eviction, KeepConfig, MemoryConfig, MemoryStore};
use serde::Deserialize;

use crate::config::{ByteSize, HumanDuration};
use crate::registry::DriverConfig;

/// The section `[state.memory]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Section {
    /// Writes that would take the engine above this are refused.
    memory_bytes_max: Option<ByteSize>,
    /// What goes then instead.
    eviction: Eviction,
    /// Keys that are looked at to find one that goes.
    eviction_samples: Option<u32>,
    /// How slowly counts of uses grow.
    lfu_log_factor: Option<u32>,
    /// How soon they fall.
    lfu_decay_time: Option<HumanDuration>,
    /// Kinds of which nothing goes.
    never_evict_kinds: Option<Vec<String>>,
    /// Patterns of keys that do not go.
    never_evict: Vec<String>,
    /// The largest value.
    value_bytes_max: Option<ByteSize>,
    /// How long the record of an unused lock is kept.
    lock_retention: Option<HumanDuration>,
}

pub(super) async fn open(driver: DriverConfig) -> Result<Arc<dyn StateStore>> {
    Ok(Arc::new(open_memory(&driver, Arc::new(SeededClock::new()))?))
}

/// Opens what `backend = "memory"` opens, on a clock of the caller's: for applications that also publish the engine
/// ([`MemoryStore::engine`]), whose other users must take the time from the same clock.
///
/// # Errors
/// `Config`, naming the option that is wrong.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> acteon_state::Result<()> {
/// use std::sync::{Arc, OnceLock};
/// use acteon_state::core::clock::{Clock, SeededClock};
/// use acteon_state::memory::MemoryStore;
/// use acteon_state::{OpenOptions, Registry, StateConfig, open_memory, open_with};
///
/// let clock: Arc<dyn Clock> = Arc::new(SeededClock::new());
/// let opened: Arc<OnceLock<MemoryStore>> = Arc::default();
/// let (driver_clock, keep) = (clock.clone(), opened.clone());
/// let registry = Registry::new().with("memory", move |driver| {
///     let store = open_memory(&driver, driver_clock.clone());
///     if let Ok(store) = &store {
///         // The store of the data is opened first; a second one may hold the locks.
///         let _ = keep.set(store.clone());
///     }
///     async move { Ok(Arc::new(store?) as Arc<dyn acteon_state::StateStore>) }
/// });
/// let state = open_with(&StateConfig::new("memory"), OpenOptions { registry, ..OpenOptions::default() }).await?;
/// assert!(opened.get().expect("opened").engine().is_empty());
/// # state.close().await?;
/// # Ok(()) }
/// ```
pub fn open_memory(driver: &DriverConfig, clock: Arc<dyn Clock>) -> Result<MemoryStore> {
    open_memory_kept(driver, clock, None)
}

/// [`open_memory`] with a directory where the data are kept, from which they are loaded first: this takes as long as reading it.
///
/// # Errors
/// As [`open_memory`], and `Config` or `Corrupt` for a directory that cannot be used.
pub fn open_memory_kept(driver: &DriverConfig, clock: Arc<dyn Clock>, keep: Option<KeepConfig>) -> Result<MemoryStore> {
    driver.refuse(&["url", "region", "table_name"])?;
    let section: Section = driver.read_section()?;
    let default = MemoryConfig::default();
    let config = MemoryConfig {
        prefix: driver.prefix.clone().unwrap_or(default.prefix),
        memory_bytes_max: section.memory_bytes_max.map(|size| size.0),
        eviction: section.eviction,
        eviction_samples: section.eviction_samples.unwrap_or(default.eviction_samples),
        lfu_log_factor: section.lfu_log_factor.unwrap_or(default.lfu_log_factor),
        lfu_decay_time: section.lfu_decay_time.map_or(default.lfu_decay_time, |time| time.0),
        never_evict_kinds: section.never_evict_kinds.unwrap_or(default.never_evict_kinds),
        never_evict: section.never_evict,
        value_bytes_max: section.value_bytes_max.map_or(default.value_bytes_max, |size| size.0),
        lock_retention: section.lock_retention.map_or(default.lock_retention, |time| time.0),
        keep,
    };
    if driver.inspect {
        // A running server may have the directory.
        return MemoryStore::open_to_inspect(&config, clock);
    }
    MemoryStore::open_with_clock(&config, clock)
}
