//! What the engine may give up when memory is short: plain values, and nothing that others rely on being there.
//!
//! # Guarantees
//! Locks, rate limits, queues, counters and values that a lock has fenced are never evicted, whatever the policy, and neither are values of
//! kinds that the configuration names. Each handle of an engine is protected alike, whatever its prefix.
//!
//! # How it works
//! The engine asks about a key when it is about to choose it. What it is shows in its text, `prefix:namespace:tenant:kind:id` for values
//! and counters and `{..}:suffix` for what else a key names, and in what is stored. Keys of other forms belong to Redis clients that
//! share the engine; there, the configured patterns say what stays.

use acteon_engine::{NeverEvict, Ref};
use acteon_state_core::Scope;
use acteon_state_core::key::Companion;
use acteon_state_core::record::Record;

const COMPANIONS: [Companion; 6] = [
    Companion::Lock,
    Companion::FixedWindow,
    Companion::SlidingWindow,
    Companion::Gcra,
    Companion::Due,
    Companion::Items,
];

/// What stays, with the kinds and the patterns of the configuration.
pub(crate) fn never_evict(kinds: &[String], patterns: &[String]) -> NeverEvict {
    // As they are written in the texts of keys. One that no key can have protects nothing.
    let kinds: Vec<String> = kinds.iter().filter_map(|kind| escaped(kind)).collect();
    let by_pattern = NeverEvict::matching(patterns.iter().map(String::as_bytes));
    NeverEvict::when(move |text, value| is_needed(&kinds, text, value) || by_pattern.has(text, value))
}

fn escaped(kind: &str) -> Option<String> {
    let scope = Scope::new("n", "t", kind).ok()?;
    Some(scope.text().strip_prefix("n:t:")?.strip_suffix(':')?.to_owned())
}

fn is_needed(kinds: &[String], text: &[u8], value: Ref<'_>) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    if text.starts_with('{') && COMPANIONS.iter().any(|companion| text.ends_with(companion.suffix())) {
        return true;
    }
    let mut parts = text.split(':');
    let (Some(kind), Some(_), None) = (parts.nth(3), parts.next(), parts.next()) else { return false };
    match value.as_str().and_then(Record::parse) {
        Some(Record::Value { fence: None, .. }) => kinds.iter().any(|needed| needed == kind),
        Some(Record::Value { fence: Some(_), .. } | Record::Counter(_)) => true,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use acteon_engine::{Engine, EngineConfig, Expiry};
    use acteon_state_core::record::ValueHeader;
    use acteon_state_core::{FencingToken, Keyspace, StateKey, Version};

    use super::{COMPANIONS, escaped, is_needed};

    fn stays(text: &str, value: &[u8]) -> bool {
        let engine = Engine::new(EngineConfig { segments: 1, ..EngineConfig::default() });
        engine.update(text.as_bytes(), 0, |slot| slot.set_str(&[value], Expiry::Clear)).expect("no bound");
        let kinds = [escaped("dedup").expect("a kind"), escaped("a:b").expect("a kind")];
        engine.read(text.as_bytes(), 0, |stored| is_needed(&kinds, text.as_bytes(), stored.expect("it was set")))
    }

    #[test]
    fn only_plain_values_of_other_kinds_may_go() {
        let plain = ValueHeader::new(Version::draw(), None);
        let fenced = ValueHeader::new(Version::draw(), FencingToken::new(7).ok());
        for prefix in ["acteon", "other"] {
            let keyspace = Keyspace::new(prefix).expect("a prefix");
            let key = |kind: &str| StateKey::new("shop", "acme", kind, "ada").expect("a key");
            let text = |kind: &str| keyspace.text(&key(kind));
            assert!(!stays(&text("cache"), plain.as_bytes()));
            assert!(stays(&text("cache"), fenced.as_bytes()));
            assert!(stays(&text("cache"), b"17"), "a counter");
            assert!(stays(&text("dedup"), plain.as_bytes()));
            assert!(stays(&text("a:b"), plain.as_bytes()));
            for companion in COMPANIONS {
                assert!(stays(&keyspace.companion(&key("cache"), companion), b"anything"));
            }
        }
        for (text, value) in [("page:17", "html"), ("hits", "17"), ("a:b:c:d:e", "no record"), ("a:b:c:d:e:f", "17")] {
            assert!(!stays(text, value.as_bytes()), "{text} is of somebody else");
        }
    }
}
