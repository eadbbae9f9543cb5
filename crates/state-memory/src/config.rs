//! The options of the memory backend.

use std::time::Duration;

use acteon_engine::EngineConfig;
use acteon_state_core::entry::duration_ms;
use acteon_state_core::lock::record::RETENTION_DEFAULT;
use acteon_state_core::{Error, Keyspace, Result};
use serde::Deserialize;

/// The largest value unless configured.
const VALUE_BYTES_DEFAULT: u64 = 64 << 20;
/// The largest value that can be configured: what Redis allows for a string, so that data can move there.
const VALUE_BYTES_CAP: u64 = 512 << 20;

/// How to open a [`MemoryStore`](crate::MemoryStore).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryConfig {
    /// What all keys begin with: 1 to 64 characters out of `A-Z a-z 0-9 _ . -`. Default `acteon`.
    pub prefix: String,
    /// Writes that would take the engine above this are refused with `OutOfMemory`. Default: no bound.
    pub memory_bytes_max: Option<u64>,
    /// The largest value: 1 byte to 512 MiB. Default 64 MiB.
    pub value_bytes_max: u64,
    /// How long the record of a lock is kept after its last lease: 1 ms to 100 years. Default 10 minutes.
    pub lock_retention: Duration,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            prefix: "acteon".to_owned(),
            memory_bytes_max: None,
            value_bytes_max: VALUE_BYTES_DEFAULT,
            lock_retention: RETENTION_DEFAULT,
        }
    }
}

/// What a configuration means, once it is found to be allowed.
pub(crate) struct Checked {
    pub(crate) keyspace: Keyspace,
    pub(crate) value_bytes_max: u64,
    pub(crate) lock_retention_ms: u64,
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
        let lock_retention_ms = duration_ms("lock_retention", self.lock_retention)
            .map_err(|error| Error::config(error.message().to_owned()))?;
        Ok(Checked { keyspace: Keyspace::new(&self.prefix)?, value_bytes_max: self.value_bytes_max, lock_retention_ms })
    }

    pub(crate) fn engine_config(&self) -> EngineConfig {
        EngineConfig { memory_bytes_max: self.memory_bytes_max, ..EngineConfig::default() }
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
            (MemoryConfig { lock_retention: Duration::ZERO, ..default }, "lock_retention"),
        ] {
            let error = config.check().err().expect(name);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().contains(name), "{error}");
        }
    }
}
