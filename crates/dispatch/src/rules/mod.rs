//! Rules: what may be done, to whom it goes, and how often. Read from YAML, replaced while running.
//!
//! # A rule file
//! ```yaml
//! rules:
//!   - name: welcome-once                # letters, digits, `.`, `_`, `-`; unique over all files
//!     description: One welcome per day. # optional
//!     priority: 10                      # optional, 0 otherwise; higher comes first
//!     enabled: true                     # optional; false: checked but never applied
//!     condition:                        # optional; without it the rule matches every action
//!       all:
//!         - { field: action_type, eq: send_email }
//!         - not: { field: payload.to, ends_with: "@example.com" }
//!     action:
//!       deduplicate: { key: [payload.to, dedup_key], ttl: 1d }
//! ```
//! Conditions and fields are described in [`condition`] and [`field`], actions in [`effect`], keys in [`key`].
//!
//! # What evaluation promises
//! Enabled rules are visited from the highest priority to the lowest; equal priorities in the order of file names,
//! then from top to bottom. A rule that matches has one of three kinds of action:
//!
//! - **Modifying** (`modify`, `reroute`) changes the action at once and goes on. Later conditions, later keys and the
//!   provider see the changed action.
//! - **Limiting** (`deduplicate`, `throttle`) is noted in the [`Verdict`] and goes on. Its key is computed from the
//!   action as it is at that moment. Every matching throttle counts. Only the first `deduplicate` that applies counts;
//!   later ones are passed over, since an action has one original.
//! - **Terminal** (`allow`, `deny`, `suppress`, `schedule`) decides, and no later rule is visited.
//!
//! When no terminal rule matches, the default of [`LoadOptions`] decides: allow, unless it is configured otherwise.
//! An action that is denied or suppressed uses up no limit: [`Verdict`] then carries none.
//!
//! # Failure
//! Evaluation cannot fail and does no I/O. Loading either takes all files or none: see [`load`] and [`Rules`].
//!
//! # How it works
//! `shape` and `file` turn one YAML text into rules, `load` a directory into a [`RuleSet`], `handle` holds the set in force and
//! swaps it, `watch` notices changes. `index` finds the rules for an action by its names: one that demands another action type, provider,
//! tenant or namespace by `eq` or `in` is not even looked at. A set is immutable, so that an evaluation keeps the one that it began with.

pub mod condition;
pub mod effect;
mod evaluate;
pub mod field;
mod file;
mod handle;
mod index;
pub mod key;
pub mod load;
pub mod merge_patch;
mod problem;
mod set;
mod shape;
mod suggest;
mod verdict;
pub mod watch;

pub use handle::{ReloadFailure, Rules};
pub use load::{LoadOptions, load_directory, load_text};
pub use problem::{LoadError, Problem};
pub use set::{DefaultDecision, Rule, RuleSet, RuleSummary};
pub use verdict::{Decision, Dedup, Reroute, RuleTrace, Throttle, TraceStep, Verdict};
