//! What is done without an answer, by kind of key.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::key::StateKey;

/// The label of the kinds that are not named.
const OTHERS: &str = "default";

/// What to do without an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Degradation {
    /// The operation fails.
    #[default]
    Closed,
    /// The operation fails here; the application goes on as if the backend had not objected.
    Open,
    /// Reads get the value that this process saw last, if it is not too old. Writes fail.
    Stale,
    /// A store in this process, empty at first, stands in until the backend is back.
    Local,
}

impl Degradation {
    /// Every word for one.
    pub const WORDS: [&'static str; 4] = ["closed", "open", "stale", "local"];

    /// `closed`, `open`, `stale` or `local`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::WORDS[self as usize]
    }

    /// The decision of this name.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Closed, Self::Open, Self::Stale, Self::Local].into_iter().find(|decision| decision.as_str() == word)
    }
}

impl fmt::Display for Degradation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A decision for each kind of key.
#[derive(Clone, Debug)]
pub struct Policies {
    default: Degradation,
    kinds: BTreeMap<Arc<str>, Degradation>,
    others: Arc<str>,
}

impl Policies {
    /// `default` for all kinds but these.
    pub fn new<'a>(default: Degradation, kinds: impl IntoIterator<Item = (&'a str, Degradation)>) -> Self {
        let kinds = kinds.into_iter().map(|(kind, decision)| (kind.into(), decision)).collect();
        Self { default, kinds, others: OTHERS.into() }
    }

    /// Whether some kind is treated so.
    #[must_use]
    pub fn has(&self, decision: Degradation) -> bool {
        self.default == decision || self.kinds.values().any(|other| *other == decision)
    }

    /// The decision about this key, and the name of its kind for metrics: only kinds that were named are told apart, since there
    /// is no end of the others.
    pub(super) fn of(&self, key: &StateKey) -> (Degradation, &Arc<str>) {
        let [_, _, kind, _] = key.parts();
        self.of_kind(&kind)
    }

    pub(super) fn of_kind(&self, kind: &str) -> (Degradation, &Arc<str>) {
        match self.kinds.get_key_value(kind) {
            Some((kind, decision)) => (*decision, kind),
            None => (self.default, &self.others),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Degradation, Policies};

    #[test]
    fn every_word_is_read_back_as_what_it_was_written_for() {
        for word in Degradation::WORDS {
            assert_eq!(Degradation::from_word(word).unwrap().as_str(), word);
        }
        assert_eq!(Degradation::from_word("opne"), None);
    }

    #[test]
    fn kinds_that_are_not_named_share_the_default_and_a_label() {
        let policies = Policies::new(Degradation::Open, [("session", Degradation::Stale)]);
        let found = |kind| {
            let (decision, label) = policies.of_kind(kind);
            (decision, label.to_string())
        };
        assert_eq!(found("session"), (Degradation::Stale, "session".to_owned()));
        assert_eq!(found("order"), (Degradation::Open, "default".to_owned()));
        assert!(policies.has(Degradation::Stale) && !policies.has(Degradation::Local));
    }
}
