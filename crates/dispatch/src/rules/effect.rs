//! What a rule does to an action that it matches.
//!
//! | written | kind | meaning |
//! |---|---|---|
//! | `allow` | terminal | execute it (within the limits noted so far) |
//! | `deny` | terminal | refuse it |
//! | `suppress` | terminal | drop it silently |
//! | `schedule: { delay: 5m }` | terminal | execute it that much later |
//! | `deduplicate: { key: [FIELD, ..], ttl: 5m }` | limiting | once per key and ttl; `key` is `[dedup_key]` unless given |
//! | `throttle: { key: [FIELD, ..], limit: 50, window: 1s, algorithm: gcra }` | limiting | at most so many per key and window |
//! | `reroute: { provider: NAME }` | modifying | give it to another provider |
//! | `modify: { payload: PATCH }` | modifying | apply a JSON merge patch (RFC 7396) to the payload |
//!
//! Algorithms: `fixed_window`, `sliding_window` (unless given), `gcra`. Durations carry units: `250ms`, `5m`, `1h 30m`.
//!
//! A `deduplicate` whose key lacks a field does not apply: otherwise all actions without the field would count as
//! one, and be lost. A `throttle` applies all the same, and the actions without the field share one limit: otherwise
//! the limit could be escaped by leaving the field out. Limits are kept per namespace, tenant and rule, whatever the
//! key is; renaming a rule starts its limits afresh.

use std::time::Duration;

use acteon_state_core::{RateAlgorithm, RateLimit};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::rules::key::KeyFields;

/// Longest `ttl`, `window` and `delay`: 366 days, so that a mistyped unit is noticed.
pub const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Shortest `ttl` and `window`: the resolution of the stores.
pub const DURATION_MIN: Duration = Duration::from_millis(1);
/// What a rule does, checked.
#[derive(Debug, Clone)]
pub enum Effect {
    /// `allow`
    Allow,
    /// `deny`
    Deny,
    /// `suppress`
    Suppress,
    /// `schedule`
    Schedule {
        /// How much later to execute.
        delay: Duration,
    },
    /// `deduplicate`
    Deduplicate {
        /// What makes two actions the same.
        key: KeyFields,
        /// How long the first one is remembered.
        ttl: Duration,
    },
    /// `throttle`
    Throttle {
        /// What is counted together.
        key: KeyFields,
        /// How many per window, at least 1.
        limit: u64,
        /// The length of the window.
        window: Duration,
        /// How it is counted.
        algorithm: Algorithm,
    },
    /// `reroute`
    Reroute {
        /// The provider to give the action to.
        provider: String,
    },
    /// `modify`
    Modify {
        /// A JSON merge patch for the payload.
        payload: Value,
    },
}

/// How a throttle counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// A counter per window that starts with the first action; up to twice the limit around its edge.
    FixedWindow,
    /// The limit holds for every span of the window's length.
    #[default]
    SlidingWindow,
    /// Evenly spread, with a burst of the limit: the generic cell rate algorithm.
    Gcra,
}

impl Algorithm {
    /// One action against a limit that is counted this way. GCRA admits the whole limit at once after a pause.
    #[must_use]
    pub fn request(self, limit: u64, window: Duration) -> RateLimit {
        let algorithm = match self {
            Self::FixedWindow => RateAlgorithm::FixedWindow,
            Self::SlidingWindow => RateAlgorithm::SlidingWindow,
            Self::Gcra => RateAlgorithm::Gcra { burst: limit },
        };
        RateLimit::new(algorithm, limit, window)
    }
}

impl Effect {
    /// The word that the rule file uses for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
            Effect::Suppress => "suppress",
            Effect::Schedule { .. } => "schedule",
            Effect::Deduplicate { .. } => "deduplicate",
            Effect::Throttle { .. } => "throttle",
            Effect::Reroute { .. } => "reroute",
            Effect::Modify { .. } => "modify",
        }
    }
}
