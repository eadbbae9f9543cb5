//! What an application does when the backend does not answer, by kind of key.
//!
//! ```toml
//! [state.layers.degradation]
//! default = "closed"      # the action fails
//! dedup = "open"          # an action may run twice rather than not at all
//! ```
//! The policy is data: only the application knows what "open" means for a kind, so it looks the kind up
//! ([`DegradationPolicy::for_kind`]) where it handles the error. Locks, and writes fenced by their tokens, always fail
//! closed: a lock that is granted because nobody could be asked is not a lock.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// The kinds of keys under which locks go in the configuration.
pub(super) const LOCK_KINDS: [&str; 2] = ["lock", "locks"];
/// The key that stands for all kinds that are not named.
const DEFAULT: &str = "default";

/// What to do without an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Degradation {
    /// The operation fails.
    #[default]
    Closed,
    /// The operation goes on as if the backend had not objected.
    Open,
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

impl Degradation {
    /// `closed` or `open`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
        }
    }
}

impl fmt::Display for Degradation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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
        f.write_str("\"closed\" or \"open\"")
    }

    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Degradation, E> {
        match word {
            "closed" => Ok(Degradation::Closed),
            _ if LOCK_KINDS.contains(&self.kind) => Err(E::custom("locks only fail closed; remove this key")),
            "open" => Ok(Degradation::Open),
            "stale" | "local" => {
                Err(E::custom(format!("`{word}` is not supported by this version; choose `closed` or `open`")))
            }
            _ => Err(E::unknown_variant(word, &["closed", "open"])),
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
        let policy = DegradationPolicy::new(Degradation::Open).with("dedup", Degradation::Closed);
        let text = toml::to_string(&policy).unwrap();
        assert_eq!(toml::from_str::<DegradationPolicy>(&text).unwrap(), policy);
    }
}
