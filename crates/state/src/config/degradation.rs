//! What an application does when the backend does not answer, by kind of key.
//!
//! ```toml
//! [state.layers.degradation]
//! default = "closed"      # the action fails
//! dedup = "open"          # an action may run twice rather than not at all
//! session = "stale"       # reads get what this process saw last
//! throttle = "local"      # this process counts by itself until the backend is back
//! ```
//! The layer [`degrade`] applies `stale` and `local`. `open` is data: only the application knows what it means for a kind, so
//! it looks the kind up ([`DegradationPolicy::for_kind`]) where it handles the error. Locks, and writes fenced by their tokens,
//! always fail closed: a lock that is granted because nobody could be asked is not a lock.

use std::collections::BTreeMap;
use std::fmt;

use acteon_state_core::layer::degrade::{self, Policies};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

pub use acteon_state_core::layer::degrade::Degradation;

use crate::config::units::{ByteSize, HumanDuration};

/// The kinds of keys under which locks go in the configuration.
pub(super) const LOCK_KINDS: [&str; 2] = ["lock", "locks"];
/// The key that stands for all kinds that are not named.
const DEFAULT: &str = "default";

/// The section `[state.layers.fallback]`: the bounds of what `stale` and `local` serve from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FallbackConfig {
    /// How old a value may be that is served stale.
    pub stale_age_max: HumanDuration,
    /// The most values that are kept to be served stale.
    pub stale_entries_max: usize,
    /// The most memory that they take.
    pub stale_bytes_max: ByteSize,
    /// The most memory that the store takes which stands in for `local` kinds.
    pub local_bytes_max: ByteSize,
}

impl Default for FallbackConfig {
    fn default() -> Self {
        let bounds = degrade::Bounds::default();
        Self {
            stale_age_max: HumanDuration(bounds.age_max),
            stale_entries_max: bounds.entries_max,
            stale_bytes_max: ByteSize(bounds.bytes_max as u64),
            // Half a million claims or limits: more than one process makes while an outage lasts.
            local_bytes_max: ByteSize(64 << 20),
        }
    }
}

impl FallbackConfig {
    /// Whether nothing was configured.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The bounds of what is served stale.
    #[must_use]
    pub fn bounds(&self) -> degrade::Bounds {
        degrade::Bounds {
            age_max: self.stale_age_max.0,
            entries_max: self.stale_entries_max,
            bytes_max: usize::try_from(self.stale_bytes_max.0).unwrap_or(usize::MAX),
        }
    }

    pub(super) fn fault(&self) -> Option<(&'static str, String)> {
        let nothing = "must be above zero; to serve nothing, write \"closed\" in place of";
        [
            ("fallback.stale_age_max", self.stale_age_max.0.is_zero(), "stale"),
            ("fallback.stale_entries_max", self.stale_entries_max == 0, "stale"),
            ("fallback.stale_bytes_max", self.stale_bytes_max.0 == 0, "stale"),
            ("fallback.local_bytes_max", self.local_bytes_max.0 == 0, "local"),
        ]
        .into_iter()
        .find(|(_, is_zero, _)| *is_zero)
        .map(|(key, _, word)| (key, format!("{nothing} \"{word}\"")))
    }
}

/// What to do for each kind of key.
///
/// ```
/// use acteon_state::config::{Degradation, DegradationPolicy};
/// let policy = DegradationPolicy::new(Degradation::Closed).with("dedup", Degradation::Open);
/// assert_eq!(policy.for_kind("dedup"), Degradation::Open);
/// assert_eq!(policy.for_kind("throttle"), Degradation::Closed);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DegradationPolicy {
    default: Degradation,
    kinds: BTreeMap<String, Degradation>,
}

impl DegradationPolicy {
    /// One decision for all kinds, locks excepted.
    #[must_use]
    pub fn new(default: Degradation) -> Self {
        Self { default, kinds: BTreeMap::new() }
    }

    /// Another decision for one kind.
    #[must_use]
    pub fn with(mut self, kind: impl Into<String>, degradation: Degradation) -> Self {
        self.kinds.insert(kind.into(), degradation);
        self
    }

    /// The decision for keys of this kind. For `lock` it is `Closed`, whatever was configured.
    #[must_use]
    pub fn for_kind(&self, kind: &str) -> Degradation {
        if LOCK_KINDS.contains(&kind) {
            return Degradation::Closed;
        }
        self.kinds.get(kind).copied().unwrap_or(self.default)
    }

    /// The kind that decides so, or `default`, if there is one.
    #[must_use]
    pub fn first_with(&self, degradation: Degradation) -> Option<&str> {
        let named = self.kinds.iter().find(|(_, decision)| **decision == degradation).map(|(kind, _)| kind.as_str());
        named.or_else(|| (self.default == degradation).then_some(DEFAULT))
    }

    /// Where the decision for this kind was made: under its own name or `default`.
    #[must_use]
    pub fn place_of(&self, kind: &str) -> &str {
        self.kinds.get_key_value(kind).map_or(DEFAULT, |(kind, _)| kind)
    }

    /// The policies of the layer that applies them.
    #[must_use]
    pub fn policies(&self) -> Policies {
        Policies::new(self.default, self.kinds.iter().map(|(kind, decision)| (kind.as_str(), *decision)))
    }

    /// The kinds that have a decision of their own.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().map(String::as_str)
    }

    /// Whether nothing was configured.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Serialize for DegradationPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.kinds.len() + 1))?;
        map.serialize_entry(DEFAULT, self.default.as_str())?;
        self.kinds.iter().try_for_each(|(kind, degradation)| map.serialize_entry(kind, degradation.as_str()))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for DegradationPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PolicyVisitor)
    }
}

struct PolicyVisitor;

impl<'de> Visitor<'de> for PolicyVisitor {
    type Value = DegradationPolicy;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of kinds, such as dedup = \"open\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DegradationPolicy, A::Error> {
        let mut policy = DegradationPolicy::default();
        while let Some(kind) = map.next_key::<String>()? {
            // Checked while the value is read, so that the error is about this key.
            let degradation = map.next_value_seed(Decision { kind: &kind })?;
            if kind == DEFAULT {
                policy.default = degradation;
            } else {
                policy.kinds.insert(kind, degradation);
            }
        }
        Ok(policy)
    }
}

/// Reads the decision for one kind.
struct Decision<'a> {
    kind: &'a str,
}

impl<'de> DeserializeSeed<'de> for Decision<'_> {
    type Value = Degradation;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Degradation, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Decision<'_> {
    type Value = Degradation;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"closed\", \"open\", \"stale\" or \"local\"")
    }

    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Degradation, E> {
        match Degradation::from_word(word) {
            Some(Degradation::Closed) => Ok(Degradation::Closed),
            Some(_) if LOCK_KINDS.contains(&self.kind) => Err(E::custom("locks only fail closed; remove this key")),
            Some(degradation) => Ok(degradation),
            None => Err(E::unknown_variant(word, &Degradation::WORDS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Degradation, DegradationPolicy};

    #[test]
    fn locks_fail_closed_whatever_the_default() {
        let policy: DegradationPolicy = toml::from_str("default = 'open'\nthrottle = 'closed'").unwrap();
        assert_eq!(policy.for_kind("dedup"), Degradation::Open);
        assert_eq!(policy.for_kind("throttle"), Degradation::Closed);
        assert_eq!(policy.for_kind("lock"), Degradation::Closed);
    }

    #[test]
    fn the_policy_reads_back_as_written() {
        let policy = DegradationPolicy::new(Degradation::Open)
            .with("dedup", Degradation::Closed)
            .with("session", Degradation::Stale)
            .with("throttle", Degradation::Local);
        let text = toml::to_string(&policy).unwrap();
        assert_eq!(toml::from_str::<DegradationPolicy>(&text).unwrap(), policy);
    }
}
