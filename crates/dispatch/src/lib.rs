//! Acts on requests: what an action is, what the rules say about it, and how a provider executes it.
//!
//! An [`Action`] asks that a provider do something on behalf of a tenant. The [`rules`] decide whether it may,
//! whether it is a repetition, how often it may be done, whether it goes elsewhere or later. A [provider](providers)
//! does it, or fails in a way that says whether it may have been done all the same. What became of it is an
//! [`Outcome`].
//!
//! ```
//! use acteon_dispatch::Action;
//! use acteon_dispatch::rules::{Decision, LoadOptions, load_text};
//!
//! let yaml = "
//! rules:
//!   - name: keep-test-tenants-quiet
//!     condition: { field: tenant, starts_with: test- }
//!     action: suppress
//! ";
//! let rules = load_text(vec![("rules.yaml".into(), yaml.into())], LoadOptions::default())?;
//! let action = Action::new("demo", "test-1", "log", "send_email", serde_json::json!({"to": "ada@example.com"}));
//! let verdict = rules.evaluate(action);
//! assert!(matches!(verdict.decision, Decision::Suppress { rule } if &*rule == "keep-test-tenants-quiet"));
//! # Ok::<(), acteon_dispatch::rules::LoadError>(())
//! ```
//!
//! # Where is what
//!
//! | File | What it holds |
//! |---|---|
//! | `action` | the request, its bounds, its parser |
//! | `outcome` | what became of it, as tagged JSON |
//! | `rules/mod` | **the manual of rule files** and of their evaluation |
//! | `rules/condition`, `field`, `effect`, `key` | what a rule can test, name, do and count by |
//! | `rules/shape`, `file`, `load`, `problem`, `suggest` | from YAML to checked rules, and the report of what is wrong |
//! | `rules/set`, `index`, `evaluate`, `verdict`, `merge_patch` | the immutable rule set, finding rules by an action's names, and applying them |
//! | `rules/handle`, `watch` | the set in force, and its replacement while running |
//! | `providers/mod` | the trait to implement, and its errors |
//! | `providers/config` | the `[[providers]]` section |
//! | `providers/registry`, `breaker` | lookup by name, concurrency limit, circuit breaker |
//! | `providers/log`, `webhook`, `retry`, `signature` | the providers of this crate |
//! | `pipeline/mod` | **the stages of a dispatch, in their order** |
//! | `pipeline/ahead` | claim, limits and lock in one round trip |
//! | `pipeline/deduplicate`, `claim`, `throttle`, `execute`, `schedule`, `worker` | one file per stage, and the worker of scheduled actions |
//! | `pipeline/run_to_end`, `keep_while` | finishing work whose caller went away; renewing what it holds while it waits |
//! | `pipeline/options`, `error`, `metrics` | times and bounds, why there is no outcome, what is counted |
//! | `keys` | every state key in one place |
//!
//! # What it promises
//! Whatever callers, rule files and receivers send is bounded by a named constant before it is used, and refused with
//! the place and what is allowed. Nothing here panics on input. No message shows a secret.

pub mod action;
mod keys;
pub mod outcome;
pub mod pipeline;
pub mod providers;
pub mod rules;

pub use action::{Action, ActionError};
pub use outcome::{Effect, Failure, Outcome};
pub use pipeline::Dispatcher;
pub use pipeline::error::DispatchError;
pub use pipeline::metrics::DispatchMetrics;
pub use pipeline::options::{DispatchOptions, OnStateError, WorkerOptions};
