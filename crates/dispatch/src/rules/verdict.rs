//! What the rules say about an action, and the trace of how they came to it.

use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::action::Action;
use crate::rules::effect::Algorithm;

/// What the rules say about one action.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// The action as the modifying rules left it; its `provider` is the one to use. A patch may take the payload past
    /// the bound for callers by at most the size of the patches.
    pub action: Action,
    /// The `modify` rules that matched, in order.
    pub modified_by: Vec<Arc<str>>,
    /// Set when the action goes to another provider than it asked for.
    pub reroute: Option<Reroute>,
    /// Set when the action is to be executed once per key.
    pub dedup: Option<Dedup>,
    /// The limits that must all admit the action, in the order of their rules.
    pub throttles: Vec<Throttle>,
    /// Whether to execute it.
    pub decision: Decision,
}

/// What is to become of the action, limits aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// Execute it.
    Allow {
        /// The rule that says so; absent when it is the default.
        rule: Option<Arc<str>>,
    },
    /// Refuse it.
    Deny {
        /// The rule that says so; absent when it is the default.
        rule: Option<Arc<str>>,
    },
    /// Drop it silently.
    Suppress {
        /// The rule that says so.
        rule: Arc<str>,
    },
    /// Execute it later.
    Schedule {
        /// The rule that says so.
        rule: Arc<str>,
        /// How much later.
        #[serde(rename = "delay_ms", serialize_with = "as_ms")]
        delay: Duration,
    },
}

/// The action goes to another provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reroute {
    /// The last `reroute` rule that matched.
    pub rule: Arc<str>,
    /// The provider that the caller asked for.
    pub from: String,
    /// The provider that it goes to.
    pub to: String,
}

/// The action is to be executed once per key and ttl.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dedup {
    /// The rule that says so.
    pub rule: Arc<str>,
    /// The key: at most 256 bytes, injective over the rule's fields.
    pub key: String,
    /// How long the first one is remembered.
    #[serde(rename = "ttl_ms", serialize_with = "as_ms")]
    pub ttl: Duration,
}

/// A limit that the action falls under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Throttle {
    /// The rule that says so.
    pub rule: Arc<str>,
    /// The key: at most 256 bytes, injective over the rule's fields.
    pub key: String,
    /// How many per window.
    pub limit: u64,
    /// The length of the window.
    #[serde(rename = "window_ms", serialize_with = "as_ms")]
    pub window: Duration,
    /// How it is counted.
    pub algorithm: Algorithm,
}

/// What one rule did, for a dry run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleTrace {
    /// The rule.
    pub rule: Arc<str>,
    /// Its priority.
    pub priority: i32,
    /// The word for what it does, such as `throttle`.
    pub action: &'static str,
    /// How it went.
    #[serde(flatten)]
    pub step: TraceStep,
}

/// How it went with one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum TraceStep {
    /// It matched and was applied.
    Matched,
    /// It did not match.
    NotMatched {
        /// The first leaf of its condition that failed.
        reason: String,
    },
    /// It matched, but could not be applied.
    PassedOver {
        /// Why.
        reason: String,
    },
    /// It is switched off.
    Disabled,
    /// A terminal rule decided before it.
    NotReached,
}

impl Dedup {
    /// The rule and the key in one text of at most 321 bytes, injective over both: a rule's name holds no `/`.
    #[must_use]
    pub fn state_id(&self) -> String {
        [&self.rule, "/", &self.key].concat()
    }
}

impl Throttle {
    /// The rule and the key in one text of at most 321 bytes, injective over both: a rule's name holds no `/`.
    #[must_use]
    pub fn state_id(&self) -> String {
        [&self.rule, "/", &self.key].concat()
    }
}

/// Serializes a duration as whole milliseconds; rule files cannot hold more than 366 days.
fn as_ms<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
