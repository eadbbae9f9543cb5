//! Actions, rules, providers and the dispatch pipeline over a State
pub mod action;
pub mod outcome;
pub mod rules;
pub use action::{Action, ActionError};
pub use outcome::{Effect, Failure, Outcome};
