//! `backend = "memory"`: an engine in this process, which needs nothing and forgets everything at exit.

use std::sync::Arc;

use acteon_state_core::{Result, StateStore};
use acteon_state_memory::{MemoryConfig, MemoryStore};
use serde::Deserialize;

use crate::config::{ByteSize, HumanDuration};
use crate::registry::DriverConfig;

/// The section `[state.memory]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Section {
    /// Writes that would take the engine above this are refused.
    memory_bytes_max: Option<ByteSize>,
    /// The largest value.
    value_bytes_max: Option<ByteSize>,
    /// How long the record of an unused lock is kept.
    lock_retention: Option<HumanDuration>,
}

pub(super) async fn open(driver: DriverConfig) -> Result<Arc<dyn StateStore>> {
    driver.refuse(&["url", "region", "table_name"])?;
    let Section { memory_bytes_max, value_bytes_max, lock_retention } = driver.read_section()?;
    let default = MemoryConfig::default();
    let config = MemoryConfig {
        prefix: driver.prefix.clone().unwrap_or(default.prefix),
        memory_bytes_max: memory_bytes_max.map(|size| size.0),
        value_bytes_max: value_bytes_max.map_or(default.value_bytes_max, |size| size.0),
        lock_retention: lock_retention.map_or(default.lock_retention, |time| time.0),
    };
    Ok(Arc::new(MemoryStore::open(&config)?))
}
