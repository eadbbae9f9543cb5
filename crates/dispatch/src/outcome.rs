//! The outcome: what became of an action, as a tagged JSON object.
//!
//! # What it promises
//! `"status"` tells the variants apart, and every outcome names the action it is about. An outcome read back from its
//! JSON equals the one written: it is stored as the record of a deduplicated action and replayed to its duplicates.
//! Unknown fields are ignored when reading, so that an older server can replay what a newer one stored.
//!
//! # Failure
//! A provider that fails is an outcome as well ([`Outcome::Failed`]), not an error of the dispatcher. Its
//! [`Effect`] says whether the provider may have done the work all the same.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What became of an action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Outcome {
    /// The provider did it.
    Executed {
        /// The action that was executed.
        action_id: String,
        /// The provider that executed it.
        provider: String,
        /// How many times the provider tried, at least 1.
        attempts: u32,
        /// What the provider answered, in its own words.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        detail: Value,
    },
    /// The same action came before, and nothing was done for this one.
    Deduplicated {
        /// This action; the first one's id is in `original`.
        action_id: String,
        /// The rule that recognised it.
        rule: String,
        /// What became of the first one; absent while it is still being executed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        original: Option<Box<Outcome>>,
    },
    /// A rule says to drop it silently.
    Suppressed {
        /// The action that was dropped.
        action_id: String,
        /// The rule that dropped it.
        rule: String,
    },
    /// A rule, or the configured default, forbids it.
    Denied {
        /// The action that was refused.
        action_id: String,
        /// The rule that refused it; absent when it was the default for actions that no rule decides.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<String>,
    },
    /// There were too many of its kind.
    Throttled {
        /// The action that was refused.
        action_id: String,
        /// The rule whose limit is used up.
        rule: String,
        /// How many the rule admits per window.
        limit: u64,
        /// The length of the window.
        window_ms: u64,
        /// How many are left at this moment.
        remaining: u64,
        /// When another attempt can succeed, counted from now.
        retry_after_ms: u64,
    },
    /// A rule sent it to another provider than the one it asked for.
    Rerouted {
        /// The action that was sent elsewhere.
        action_id: String,
        /// The rule that chose the provider.
        rule: String,
        /// The provider that the action asked for.
        from: String,
        /// The provider that it was given to.
        to: String,
        /// What became of it there.
        result: Box<Outcome>,
    },
    /// It will be executed later.
    Scheduled {
        /// The action that was put aside.
        action_id: String,
        /// Names the stored schedule.
        schedule_id: String,
        /// When it will be executed.
        deliver_at: Timestamp,
    },
    /// The provider did not do it, or cannot tell.
    Failed {
        /// The action that failed.
        action_id: String,
        /// The provider that failed.
        provider: String,
        /// Why.
        error: Failure,
        /// How many times the provider tried; 0 when it was not reached at all.
        attempts: u32,
    },
}

/// Why a provider failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A stable word for programs, such as `timeout` or `http_status`.
    pub code: String,
    /// A sentence for people, free of secrets.
    pub message: String,
    /// Whether the same action may succeed when sent again.
    pub retryable: bool,
    /// Whether the provider may have done it.
    pub effect: Effect,
}

/// Whether a failed execution may have had its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// The provider never got it, or said no.
    NotApplied,
    /// The request was sent, and no answer settles what became of it.
    Unknown,
}

impl Outcome {
    /// The action that the outcome is about.
    #[must_use]
    pub fn action_id(&self) -> &str {
        match self {
            Outcome::Executed { action_id, .. }
            | Outcome::Deduplicated { action_id, .. }
            | Outcome::Suppressed { action_id, .. }
            | Outcome::Denied { action_id, .. }
            | Outcome::Throttled { action_id, .. }
            | Outcome::Rerouted { action_id, .. }
            | Outcome::Scheduled { action_id, .. }
            | Outcome::Failed { action_id, .. } => action_id,
        }
    }

    /// The word in `"status"`, for logs and metric labels.
    #[must_use]
    pub fn status(&self) -> &'static str {
        match self {
            Outcome::Executed { .. } => "executed",
            Outcome::Deduplicated { .. } => "deduplicated",
            Outcome::Suppressed { .. } => "suppressed",
            Outcome::Denied { .. } => "denied",
            Outcome::Throttled { .. } => "throttled",
            Outcome::Rerouted { .. } => "rerouted",
            Outcome::Scheduled { .. } => "scheduled",
            Outcome::Failed { .. } => "failed",
        }
    }

    /// Whether the action, or what a reroute made of it, failed at its provider: the case in which a
    /// deduplication claim is given back so that a retry runs.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        match self {
            Outcome::Failed { .. } => true,
            Outcome::Rerouted { result, .. } => result.is_failed(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Effect, Failure, Outcome};

    fn executed() -> Outcome {
        Outcome::Executed {
            action_id: "a".into(),
            provider: "log".into(),
            attempts: 2,
            detail: json!({"http_status": 200}),
        }
    }

    fn failed() -> Outcome {
        let error = Failure {
            code: "timeout".into(),
            message: "no answer within 5s".into(),
            retryable: true,
            effect: Effect::Unknown,
        };
        Outcome::Failed { action_id: "a".into(), provider: "hook".into(), error, attempts: 3 }
    }

    fn rerouted(result: Outcome) -> Outcome {
        Outcome::Rerouted {
            action_id: "a".into(),
            rule: "r".into(),
            from: "sms".into(),
            to: "log".into(),
            result: Box::new(result),
        }
    }

    fn every_variant() -> Vec<Outcome> {
        vec![
            executed(),
            Outcome::Deduplicated { action_id: "b".into(), rule: "r".into(), original: Some(Box::new(executed())) },
            Outcome::Deduplicated { action_id: "b".into(), rule: "r".into(), original: None },
            Outcome::Suppressed { action_id: "a".into(), rule: "r".into() },
            Outcome::Denied { action_id: "a".into(), rule: None },
            Outcome::Throttled {
                action_id: "a".into(),
                rule: "r".into(),
                limit: 50,
                window_ms: 1_000,
                remaining: 0,
                retry_after_ms: 120,
            },
            rerouted(executed()),
            Outcome::Scheduled {
                action_id: "a".into(),
                schedule_id: "s".into(),
                deliver_at: "2026-11-20T10:00:00Z".parse().expect("timestamp"),
            },
            failed(),
        ]
    }

    #[test]
    fn every_outcome_reads_back_as_written() {
        for outcome in every_variant() {
            let json = serde_json::to_string(&outcome).expect("serialisable");
            let back: Outcome = serde_json::from_str(&json).expect("own output");
            assert_eq!(back, outcome, "{json}");
        }
    }

    #[test]
    fn status_word_is_the_tag_in_the_json() {
        for outcome in every_variant() {
            let json = serde_json::to_value(&outcome).expect("serialisable");
            assert_eq!(json["status"], outcome.status());
            assert_eq!(json["action_id"], outcome.action_id());
        }
    }

    #[test]
    fn fields_of_a_newer_version_do_not_stop_a_replay() {
        let json = json!({"status": "suppressed", "action_id": "a", "rule": "r", "since": 2});
        let outcome: Outcome = serde_json::from_value(json).expect("tolerant");
        assert_eq!(outcome.status(), "suppressed");
    }

    #[test]
    fn a_rerouted_failure_counts_as_failed() {
        assert!(rerouted(failed()).is_failed());
        assert!(!rerouted(executed()).is_failed());
    }
}
