//! What may be evicted, and by which rule.

use std::fmt;
use std::sync::Arc;

use crate::algorithm::glob::{Case, matches};
use crate::entry::Ref;

/// What goes when a write needs memory and the bound is reached, by Redis's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum EvictionPolicy {
    /// Nothing: writes are refused.
    #[default]
    NoEviction,
    /// Keys that were not used for longest.
    AllKeysLru,
    /// Keys that were used least often, of late.
    AllKeysLfu,
    /// Any keys.
    AllKeysRandom,
    /// Keys with a time to live that were not used for longest.
    VolatileLru,
    /// Keys with a time to live that were used least often, of late.
    VolatileLfu,
    /// Any keys with a time to live.
    VolatileRandom,
    /// Keys with the least time to live.
    VolatileTtl,
}

impl EvictionPolicy {
    /// All of them, each at its position.
    pub const ALL: [Self; 8] = [
        Self::NoEviction,
        Self::AllKeysLru,
        Self::AllKeysLfu,
        Self::AllKeysRandom,
        Self::VolatileLru,
        Self::VolatileLfu,
        Self::VolatileRandom,
        Self::VolatileTtl,
    ];

    /// The policy of this name; case does not matter.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name().eq_ignore_ascii_case(name))
    }

    /// What Redis calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoEviction => "noeviction",
            Self::AllKeysLru => "allkeys-lru",
            Self::AllKeysLfu => "allkeys-lfu",
            Self::AllKeysRandom => "allkeys-random",
            Self::VolatileLru => "volatile-lru",
            Self::VolatileLfu => "volatile-lfu",
            Self::VolatileRandom => "volatile-random",
            Self::VolatileTtl => "volatile-ttl",
        }
    }

    pub(crate) const fn is_lfu(self) -> bool {
        matches!(self, Self::AllKeysLfu | Self::VolatileLfu)
    }

    pub(crate) const fn is_lru(self) -> bool {
        matches!(self, Self::AllKeysLru | Self::VolatileLru)
    }

    pub(crate) const fn is_random(self) -> bool {
        matches!(self, Self::AllKeysRandom | Self::VolatileRandom)
    }

    pub(crate) const fn needs_usage(self) -> bool {
        self.is_lfu() || self.is_lru()
    }

    /// Whether only keys with a time to live may go.
    pub(crate) const fn needs_ttl(self) -> bool {
        matches!(self, Self::VolatileLru | Self::VolatileLfu | Self::VolatileRandom | Self::VolatileTtl)
    }
}

impl fmt::Display for EvictionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How an [`Engine`](crate::Engine) evicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvictionConfig {
    /// What goes. Default [`EvictionPolicy::NoEviction`].
    pub policy: EvictionPolicy,
    /// Keys that are looked at in each step, at least 1: more make the choice better and slower. Default 5.
    pub samples: u32,
    /// How slowly the counts of the LFU policies grow. Default 10.
    pub lfu_log_factor: u32,
    /// Minutes after which they fall by one; 0: never. Default 1.
    pub lfu_decay_min: u32,
    /// What stays in any case. Default: nothing does.
    pub never: NeverEvict,
}

impl EvictionConfig {
    /// Nothing is evicted.
    pub const DEFAULT: Self = Self {
        policy: EvictionPolicy::NoEviction,
        samples: 5,
        lfu_log_factor: 10,
        lfu_decay_min: 1,
        never: NeverEvict::NONE,
    };
}

impl Default for EvictionConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Keys that are never evicted, whatever the policy. Asked only about keys that are about to be chosen, while their segment is held: the
/// answer must be quick, and must not call the engine.
///
/// ```
/// use acteon_engine::NeverEvict;
///
/// let by_name = NeverEvict::matching(["lock:*", "queue:*"]);
/// let by_value = NeverEvict::when(|_, value| value.as_str().is_none());
/// assert_ne!(by_name, by_value);
/// ```
#[derive(Clone, Default)]
pub struct NeverEvict(Option<Arc<IsKept>>);

type IsKept = dyn Fn(&[u8], Ref<'_>) -> bool + Send + Sync;

impl NeverEvict {
    /// No key.
    pub const NONE: Self = Self(None);

    /// Keys for which `is_kept` says so, by their names and values.
    #[must_use]
    pub fn when(is_kept: impl Fn(&[u8], Ref<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(is_kept)))
    }

    /// Keys whose names match one of `patterns`, as those of `KEYS` do.
    #[must_use]
    pub fn matching<P: Into<Vec<u8>>>(patterns: impl IntoIterator<Item = P>) -> Self {
        let patterns: Vec<Vec<u8>> = patterns.into_iter().map(Into::into).collect();
        Self::when(move |key, _| patterns.iter().any(|pattern| matches(pattern, key, Case::Sensitive)))
    }

    /// Whether this key stays.
    #[inline]
    #[must_use]
    pub fn has(&self, key: &[u8], value: Ref<'_>) -> bool {
        self.0.as_ref().is_some_and(|is_kept| is_kept(key, value))
    }
}

impl fmt::Debug for NeverEvict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "NeverEvict(..)" } else { "NeverEvict::NONE" })
    }
}

/// Two are equal if they are the same.
impl PartialEq for NeverEvict {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for NeverEvict {}

#[cfg(test)]
mod tests {
    use super::EvictionPolicy;

    #[test]
    fn policies_are_found_by_their_names_and_stand_at_their_positions() {
        for (position, policy) in EvictionPolicy::ALL.into_iter().enumerate() {
            assert_eq!(policy as usize, position);
            assert_eq!(EvictionPolicy::from_name(&policy.name().to_uppercase()), Some(policy));
        }
        assert_eq!(EvictionPolicy::from_name("lru"), None);
    }
}
