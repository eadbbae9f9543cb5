//! What the owner of an engine decides when creating it.

use crate::evict::EvictionConfig;

/// Number of segments unless configured: at 5 million keys each holds about 5,000, few enough to be resized whole, and with
/// 64 threads inside the engine at every moment 6 of 100 accesses find their segment taken.
pub const SEGMENTS_DEFAULT: usize = 1_024;

/// Most segments that an engine is split into. Above this the empty tables cost more than any lock contention.
pub const SEGMENTS_MAX: usize = 1 << 16;

/// Settings of an [`Engine`](crate::Engine).
///
/// ```
/// use acteon_engine::{Engine, EngineConfig};
///
/// let engine = Engine::new(EngineConfig { memory_bytes_max: Some(64 << 20), ..EngineConfig::default() });
/// assert!(engine.is_empty());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Number of independently locked segments. Rounded up to a power of two, at least 1 and at most [`SEGMENTS_MAX`].
    pub segments: usize,
    /// Refuse growth above this many bytes, by the engine's own estimate. `None`: no bound.
    pub memory_bytes_max: Option<u64>,
    /// What goes when that is reached, instead of refusing growth. Default: nothing does.
    pub eviction: EvictionConfig,
    /// Seed of the key hash. `None` takes one from the process, which keeps clients from aiming many keys at one segment;
    /// a fixed seed makes a run repeatable and is for tests.
    pub hash_seed: Option<u64>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { segments: SEGMENTS_DEFAULT, memory_bytes_max: None, eviction: EvictionConfig::DEFAULT, hash_seed: None }
    }
}

impl EngineConfig {
    /// The number of segments that is really used.
    pub(crate) fn segment_count(&self) -> usize {
        self.segments.clamp(1, SEGMENTS_MAX).next_power_of_two()
    }
}

#[cfg(test)]
mod tests {
    use super::{EngineConfig, SEGMENTS_MAX};

    #[test]
    fn segment_count_is_a_power_of_two_within_bounds() {
        let count = |segments| EngineConfig { segments, ..EngineConfig::default() }.segment_count();
        assert_eq!(count(0), 1);
        assert_eq!(count(1), 1);
        assert_eq!(count(5), 8);
        assert_eq!(count(usize::MAX), SEGMENTS_MAX);
    }
}
