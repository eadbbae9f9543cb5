//! A rule, and the immutable set of rules that evaluations run against.

use std::cmp::Reverse;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::rules::condition::Condition;
use crate::rules::effect::Effect;
use crate::rules::index::{Candidates, RuleIndex};

/// One rule, checked.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Unique over all files; 1 to 64 of letters, digits, `.`, `_` and `-`.
    pub name: Arc<str>,
    /// For people.
    pub description: Option<String>,
    /// Higher comes first.
    pub priority: i32,
    /// Whether it is applied at all.
    pub enabled: bool,
    /// Which actions it is about; every action when absent.
    pub condition: Option<Condition>,
    /// What it does.
    pub effect: Effect,
    /// Where it is written.
    pub file: PathBuf,
    /// The line in that file, from 1.
    pub line: u64,
}

/// What happens to an action that no terminal rule decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultDecision {
    /// It is executed.
    #[default]
    Allow,
    /// It is denied.
    Deny,
}

/// All rules of one load, in the order in which they are visited.
#[derive(Debug)]
pub struct RuleSet {
    rules: Vec<Rule>,
    index: RuleIndex,
    default: DefaultDecision,
    generation: u64,
    loaded_at: Timestamp,
}

/// A rule in short, for listings.
#[derive(Debug, Clone, Serialize)]
pub struct RuleSummary {
    /// Its name.
    pub name: Arc<str>,
    /// Its description, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its priority.
    pub priority: i32,
    /// Whether it is applied.
    pub enabled: bool,
    /// The word for what it does, such as `throttle`.
    pub action: &'static str,
    /// Where it is written.
    pub file: PathBuf,
    /// The line in that file.
    pub line: u64,
}

impl RuleSet {
    /// Sorts `rules` by priority, highest first; equal ones stay in the given order.
    pub(crate) fn new(mut rules: Vec<Rule>, default: DefaultDecision) -> Self {
        rules.sort_by_key(|rule| Reverse(rule.priority));
        let index = RuleIndex::new(&rules);
        Self { rules, index, default, generation: 1, loaded_at: Timestamp::now() }
    }

    /// The same set as the successor of generation `previous`.
    pub(crate) fn after(mut self, previous: u64) -> Self {
        self.generation = previous + 1;
        self
    }

    /// The rules in the order in which they are visited, disabled ones included.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The positions among [`rules`](Self::rules) of those that can be about `action`, in their order.
    pub(super) fn candidates(&self, action: &Action) -> Candidates<'_> {
        self.index.candidates(action)
    }

    /// What happens when no terminal rule matches.
    #[must_use]
    pub fn default_decision(&self) -> DefaultDecision {
        self.default
    }

    /// 1 for the first set of a [`Rules`](crate::rules::Rules) handle, one more with each successful reload.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// When the set was read.
    #[must_use]
    pub fn loaded_at(&self) -> Timestamp {
        self.loaded_at
    }

    /// The rules in short, in the order in which they are visited.
    #[must_use]
    pub fn summaries(&self) -> Vec<RuleSummary> {
        self.rules.iter().map(Rule::summary).collect()
    }
}

impl Rule {
    fn summary(&self) -> RuleSummary {
        RuleSummary {
            name: Arc::clone(&self.name),
            description: self.description.clone(),
            priority: self.priority,
            enabled: self.enabled,
            action: self.effect.word(),
            file: self.file.clone(),
            line: self.line,
        }
    }
}
