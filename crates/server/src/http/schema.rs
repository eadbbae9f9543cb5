//! The shapes of requests and answers, for the OpenAPI document.
//!
//! They mirror types of this crate and of `acteon-dispatch`, which knows nothing of OpenAPI. Nothing is built from them at run
//! time; the tests below read real actions, outcomes and errors into them, and fail when a field is missing on either side.

#![allow(dead_code, reason = "described, not used")]

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

/// One request to have something done by a provider.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// Identifies the action to the provider and in outcomes; a random UUID unless given. Visible ASCII.
    #[schema(max_length = 256, example = "7f0b1f0e-5a0e-4b43-9b0f-0a3f2a5b1c9d")]
    id: Option<String>,
    /// The application or environment that the action belongs to.
    #[schema(min_length = 1, max_length = 64, example = "demo")]
    namespace: String,
    /// The customer on whose behalf it is done.
    #[schema(min_length = 1, max_length = 64, example = "acme")]
    tenant: String,
    /// The name of the provider that shall execute it.
    #[schema(min_length = 1, max_length = 64, example = "log")]
    provider: String,
    /// What is to be done, in the words of the application.
    #[schema(min_length = 1, max_length = 64, example = "send_email")]
    action_type: String,
    /// What the provider needs to know: any JSON of at most 256 KiB and depth 32.
    #[schema(value_type = Value)]
    payload: Value,
    /// When the action was made, as RFC 3339; now unless given.
    #[schema(format = DateTime)]
    created_at: Option<String>,
    /// Actions with the same key are one action to a deduplicating rule.
    #[schema(max_length = 256, example = "order-17")]
    dedup_key: Option<String>,
    /// Labels for rules and providers: at most 64 entries and 16 KiB.
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    /// Not to be executed before this time, as RFC 3339.
    #[schema(format = DateTime)]
    deliver_at: Option<String>,
}

/// What became of an action.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "status", rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// The provider did it.
    Executed {
        /// The action that was executed.
        action_id: String,
        /// The provider that executed it.
        provider: String,
        /// How many times the provider tried.
        attempts: u32,
        /// What the provider answered.
        #[schema(value_type = Option<Value>)]
        detail: Option<Value>,
    },
    /// The same action came before, and nothing was done for this one.
    Deduplicated {
        /// This action; the first one's id is in `original`.
        action_id: String,
        /// The rule that recognised it.
        rule: String,
        /// What became of the first one; absent while it is still being executed.
        #[schema(no_recursion)]
        original: Option<Box<Outcome>>,
    },
    /// A rule dropped it silently.
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
        /// The rule that refused it; absent when it was the default.
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
        /// How many are left.
        remaining: u64,
        /// When another attempt can succeed, counted from now.
        retry_after_ms: u64,
    },
    /// A rule sent it to another provider.
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
        #[schema(no_recursion)]
        result: Box<Outcome>,
    },
    /// It will be executed later.
    Scheduled {
        /// The action that was put aside.
        action_id: String,
        /// Names the stored schedule.
        schedule_id: String,
        /// When it will be executed, as RFC 3339.
        #[schema(format = DateTime)]
        deliver_at: String,
    },
    /// The provider did not do it, or cannot tell.
    Failed {
        /// The action that failed.
        action_id: String,
        /// The provider that failed.
        provider: String,
        /// Why.
        error: Failure,
        /// How many times the provider tried; 0 when it was not reached.
        attempts: u32,
    },
}

/// Why a provider failed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// `unknown_provider`, `busy`, `circuit_open`, `connect`, `timeout`, `protocol`, `http_status`, `cancelled` or `unsendable`.
    code: String,
    /// A sentence for people.
    message: String,
    /// Whether the same action may succeed when sent again.
    retryable: bool,
    /// Whether the provider may have done it.
    effect: Effect,
}

/// Whether something failed before it had its effect.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It certainly did not happen.
    NotApplied,
    /// It may have happened.
    Unknown,
}

/// An error.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Errors {
    /// What went wrong.
    error: ErrorBody,
}

/// What went wrong.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorBody {
    /// A stable word; the description of the document lists all of them.
    #[schema(example = "invalid_action")]
    code: String,
    /// A sentence for people.
    message: String,
    /// The field of the action at fault.
    field: Option<String>,
    /// Whether the action may have been executed all the same; absent means that it was not.
    effect: Option<Effect>,
    /// What is wrong with the rule files.
    #[serde(default)]
    problems: Vec<Problem>,
}

/// One thing that is wrong with a rule file.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// The file.
    file: String,
    /// The line, from 1; null when the file as a whole is meant.
    line: Option<u64>,
    /// The column, from 1.
    column: Option<u64>,
    /// What is wrong and what is allowed.
    reason: String,
}

/// One result per action, in their order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchResults {
    /// The results.
    results: Vec<BatchResult>,
}

/// What became of one action of a batch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchResult {
    /// It has an outcome.
    Outcome(Outcome),
    /// It has none, and this is why.
    Error(ErrorBody),
}

/// The rules in force.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RulesInForce {
    /// 1 at the start, one more with each successful reload.
    generation: u64,
    /// When they were read, as RFC 3339.
    #[schema(format = DateTime)]
    loaded_at: String,
    /// Where they were read from.
    directory: Option<String>,
    /// What happens to an action that no terminal rule decides: `allow` or `deny`.
    default: String,
    /// In the order in which they are visited.
    rules: Vec<RuleSummary>,
    /// The last reload, if it failed.
    last_failure: Option<ReloadFailure>,
}

/// A rule in short.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleSummary {
    /// Its name.
    name: String,
    /// For people.
    description: Option<String>,
    /// Higher comes first.
    priority: i32,
    /// Whether it is applied.
    enabled: bool,
    /// What it does, such as `throttle`.
    action: String,
    /// Where it is written.
    file: String,
    /// The line in that file.
    line: u64,
}

/// A reload that failed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReloadFailure {
    /// When, as RFC 3339.
    #[schema(format = DateTime)]
    at: String,
    /// What was wrong.
    error: Problems,
}

/// What was wrong with the rule files.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Problems {
    /// At least one.
    problems: Vec<Problem>,
}

/// What the rules say about an action that is not executed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Of the rules that were asked.
    generation: u64,
    /// What they say, all together.
    verdict: Verdict,
    /// What each of them did.
    trace: Vec<RuleTrace>,
}

/// What the rules say about an action.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// As the modifying rules left it.
    action: Action,
    /// The `modify` rules that matched.
    modified_by: Vec<String>,
    /// Set when it goes to another provider.
    reroute: Option<Reroute>,
    /// Set when it is executed once per key.
    dedup: Option<Dedup>,
    /// The limits that must all admit it.
    throttles: Vec<Throttle>,
    /// Whether to execute it.
    decision: Decision,
}

/// The action goes to another provider.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reroute {
    /// The rule that says so.
    rule: String,
    /// The provider that was asked for.
    from: String,
    /// The provider that it goes to.
    to: String,
}

/// The action is executed once per key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Dedup {
    /// The rule that says so.
    rule: String,
    /// The values of the rule's fields.
    key: String,
    /// How long the first one is remembered.
    ttl_ms: u64,
}

/// A limit that the action falls under.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// The rule that says so.
    rule: String,
    /// The values of the rule's fields.
    key: String,
    /// How many per window.
    limit: u64,
    /// The length of the window.
    window_ms: u64,
    /// `fixed_window`, `sliding_window` or `gcra`.
    algorithm: String,
}

/// Whether to execute the action.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "decision", rename_all = "snake_case", deny_unknown_fields)]
pub enum Decision {
    /// Execute it.
    Allow {
        /// The rule that says so; null when it is the default.
        rule: Option<String>,
    },
    /// Refuse it.
    Deny {
        /// The rule that says so; null when it is the default.
        rule: Option<String>,
    },
    /// Drop it silently.
    Suppress {
        /// The rule that says so.
        rule: String,
    },
    /// Execute it later.
    Schedule {
        /// The rule that says so.
        rule: String,
        /// How much later.
        delay_ms: u64,
    },
}

/// What one rule did.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleTrace {
    /// The rule.
    rule: String,
    /// Its priority.
    priority: i32,
    /// What it does, such as `throttle`.
    action: String,
    /// `matched`, `not_matched`, `passed_over`, `disabled` or `not_reached`.
    result: String,
    /// Why it did not match, or was passed over.
    reason: Option<String>,
}

/// The process answers.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Always `ok`.
    status: String,
    /// Of the binary.
    version: String,
    /// Since the start.
    uptime_s: u64,
}

/// Whether the server is of use.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// `ready`, `degraded`, `not_ready` or `draining`.
    status: String,
    /// The backend of the data.
    state: Dependency,
    /// What is done for `dedup` and `throttle` while that backend does not answer: `closed`, `open`, `stale` or `local`.
    degradation: BTreeMap<String, String>,
    /// What the locks guarantee.
    locks: Locks,
    /// The rules in force.
    rules: RulesState,
    /// The configured providers.
    providers: Vec<Provider>,
}

/// A backend.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    /// Its name.
    backend: String,
    /// Whether it answered.
    up: bool,
    /// How long that took.
    latency_ms: f64,
    /// Whether the server goes on without it.
    optional: bool,
    /// Why it did not answer.
    error: Option<ProbeError>,
    /// What it can do.
    capabilities: Vec<String>,
}

/// Why a backend did not answer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeError {
    /// A word, such as `unavailable` or `timeout`.
    kind: String,
    /// A sentence.
    message: String,
}

/// What the locks guarantee.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Locks {
    /// Their backend, when it is another one than that of the data.
    own_backend: Option<Dependency>,
    /// Backend and topology.
    topology: String,
    /// What to use them for.
    fit_for: String,
    /// Whether a grant survives a crash of the backend.
    survives_server_crash: String,
    /// How a waiter learns that a lock is free.
    waiting: String,
}

/// The rules in force, in short.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RulesState {
    /// 1 at the start, one more with each successful reload.
    generation: u64,
    /// How many there are.
    count: usize,
    /// Whether the last reload failed.
    last_reload_failed: bool,
}

/// A provider.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// What actions ask for.
    name: String,
    /// `log` or `webhook`.
    kind: String,
    /// `closed`, `open` or `half_open`.
    breaker: String,
}

/// One page of locks.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LockPage {
    /// What was found.
    locks: Vec<Lock>,
    /// Where the next page begins; absent after the last one.
    next_cursor: Option<String>,
}

/// One lock.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Its name: `namespace:tenant:kind:id`, in which special characters are escaped.
    #[schema(example = "demo:acme:action:order-17")]
    key: String,
    /// The first part of the name, as the application gave it.
    namespace: String,
    /// The second one.
    tenant: String,
    /// The third one.
    kind: String,
    /// The last one.
    id: String,
    /// The newest token that was granted.
    last_token: u64,
    /// Who holds it now; nobody when it is free.
    holders: Vec<LockHolder>,
}

/// One holder of a lock.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LockHolder {
    /// Names the acquisition.
    owner: String,
    /// `exclusive`, `shared` or `permit`.
    mode: String,
    /// The number of permits that there are, of a semaphore.
    permits: Option<u32>,
    /// The fencing token.
    token: u64,
    /// How long it has held the lock.
    held_for_ms: u64,
    /// How long its lease lasts, unless it is extended.
    expires_in_ms: u64,
    /// What it said of itself.
    meta: String,
}

/// Why a lock is released by force.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// For whoever asks later.
    #[schema(min_length = 1, max_length = 256, example = "node 3 is gone")]
    reason: String,
}

/// What a release by force has ended.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Released {
    /// The lock.
    key: String,
    /// Why.
    reason: String,
    /// How many leases were ended.
    released: usize,
    /// Who held it just before.
    holders: Vec<LockHolder>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use acteon_dispatch::rules::{LoadOptions, load_text};
    use acteon_dispatch::{Effect, Failure, Outcome};
    use acteon_state::{Cursor, FencingToken, LockHolder, LockMode, LockState, OwnerId, Page, StateKey};
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use crate::http::error::ApiError;
    use crate::locks::view::{LockPage, LockView, Released};

    /// Reads what really is written into its description, and looks for described fields that are never written.
    fn describes<Schema: DeserializeOwned>(written: Value) {
        if let Err(error) = serde_json::from_value::<Schema>(written.clone()) {
            panic!("{error}: {written}");
        }
    }

    fn full_action() -> Value {
        json!({
            "id": "a", "namespace": "n", "tenant": "t", "provider": "p", "action_type": "x", "payload": {"to": 1},
            "created_at": "2026-11-20T10:00:00Z", "dedup_key": "d", "metadata": {"k": "v"},
            "deliver_at": "2026-11-20T10:00:00Z",
        })
    }

    #[test]
    fn actions_are_described_as_they_are_written() {
        let action = acteon_dispatch::Action::from_value(full_action()).expect("action");
        describes::<super::Action>(serde_json::to_value(&action).expect("serialisable"));
        // And the other way round: what is described is accepted.
        assert_eq!(serde_json::to_value(&action).expect("serialisable").as_object().map(|it| it.len()), Some(10));
    }

    #[test]
    fn outcomes_are_described_as_they_are_written() {
        let (action_id, rule) = ("a".to_owned(), "r".to_owned());
        let failure = Failure { code: "timeout".into(), message: "m".into(), retryable: true, effect: Effect::Unknown };
        let failed =
            Outcome::Failed { action_id: action_id.clone(), provider: "p".into(), error: failure, attempts: 1 };
        let executed = Outcome::Executed {
            action_id: action_id.clone(),
            provider: "p".into(),
            attempts: 1,
            detail: json!({"http_status": 200}),
        };
        let rerouted = Outcome::Rerouted {
            action_id: action_id.clone(),
            rule: rule.clone(),
            from: "p".into(),
            to: "q".into(),
            result: Box::new(failed),
        };
        let deduplicated = Outcome::Deduplicated {
            action_id: action_id.clone(),
            rule: rule.clone(),
            original: Some(Box::new(executed)),
        };
        let throttled = Outcome::Throttled {
            action_id: action_id.clone(),
            rule: rule.clone(),
            limit: 1,
            window_ms: 1,
            remaining: 0,
            retry_after_ms: 1,
        };
        let scheduled = Outcome::Scheduled {
            action_id: action_id.clone(),
            schedule_id: "s".into(),
            deliver_at: "2026-11-20T10:00:00Z".parse().expect("timestamp"),
        };
        let suppressed = Outcome::Suppressed { action_id: action_id.clone(), rule: rule.clone() };
        let denied = Outcome::Denied { action_id, rule: Some(rule) };
        for outcome in [rerouted, deduplicated, throttled, scheduled, suppressed, denied] {
            describes::<super::Outcome>(serde_json::to_value(outcome).expect("serialisable"));
        }
    }

    #[test]
    fn errors_are_described_as_they_are_written() {
        let bad = load_text(vec![("a.yaml".into(), "rules: 1".into())], LoadOptions::default()).expect_err("bad");
        for error in [ApiError::from(bad), ApiError::internal().with_unknown_effect()] {
            let written = json!({"error": error.into_body()});
            describes::<super::Errors>(written);
        }
    }

    #[test]
    fn locks_are_described_as_they_are_written() {
        let token = FencingToken::new(7).expect("valid");
        let holder = |mode| LockHolder {
            owner: OwnerId::draw(),
            mode,
            token,
            expires_in: Duration::from_secs(1),
            held_for: Duration::from_secs(2),
            meta: "m".to_owned(),
        };
        let lock = LockState {
            key: StateKey::new("n", "t", "k", "i").expect("valid"),
            last_token: token,
            holders: vec![holder(LockMode::Exclusive), holder(LockMode::Permit { of: 2 })],
        };
        let page = Page { items: vec![lock.clone()], next: Some(Cursor::new("c").expect("valid")) };
        describes::<super::LockPage>(serde_json::to_value(LockPage::new(page, false)).expect("serialisable"));
        let released = Released::new(LockView::new(&lock), "r", 2);
        describes::<super::Released>(serde_json::to_value(released).expect("serialisable"));
    }
}
