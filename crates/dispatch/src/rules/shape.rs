//! The shape of a rule file: YAML to structs, nothing checked but keys and types.
//!
//! # Failure
//! One problem: reading ends at the first thing that does not fit. It is told in the words of rule files, not of the parser.
//!
//! # How it works
//! Serde reads it within a budget of nodes and depth, aliases expanded, so that no small file grows into a large one.

use std::path::Path;

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{Error, Location, Spanned};

use crate::rules::effect::Algorithm;
use crate::rules::problem::Problem;
use crate::rules::suggest::suggestion;

/// Deepest YAML: 16 conditions at two levels each, a patch of 32, and the rules around them.
const YAML_DEPTH_MAX: usize = 48;
/// Most YAML nodes in one file, aliases expanded.
const YAML_NODES_MAX: usize = 100_000;

/// Reads the text of one file.
pub(super) fn read(file: &Path, text: &str) -> Result<FileShape, Problem> {
    serde_saphyr::from_str_with_options(text, yaml_options()).map_err(|error| problem(file, &error))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileShape {
    pub(super) rules: Vec<Spanned<RuleShape>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleShape {
    pub(super) name: Spanned<String>,
    pub(super) description: Option<String>,
    #[serde(default)]
    pub(super) priority: i32,
    #[serde(default = "yes")]
    pub(super) enabled: bool,
    pub(super) condition: Option<Spanned<ConditionShape>>,
    pub(super) action: Spanned<EffectShape>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConditionShape {
    pub(super) all: Option<Vec<Spanned<ConditionShape>>>,
    pub(super) any: Option<Vec<Spanned<ConditionShape>>>,
    pub(super) not: Option<Box<Spanned<ConditionShape>>>,
    pub(super) field: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) eq: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub(super) ne: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub(super) gt: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub(super) gte: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub(super) lt: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub(super) lte: Option<Value>,
    pub(super) r#in: Option<Vec<Value>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) contains: Option<Value>,
    pub(super) starts_with: Option<String>,
    pub(super) ends_with: Option<String>,
    pub(super) matches: Option<Spanned<String>>,
    pub(super) exists: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum EffectShape {
    Allow,
    Deny,
    Suppress,
    Schedule {
        delay: Spanned<String>,
    },
    Deduplicate {
        key: Option<Spanned<Vec<Spanned<String>>>>,
        ttl: Spanned<String>,
    },
    Throttle {
        key: Spanned<Vec<Spanned<String>>>,
        limit: Spanned<u64>,
        window: Spanned<String>,
        #[serde(default)]
        algorithm: Algorithm,
    },
    Reroute {
        provider: Spanned<String>,
    },
    Modify {
        payload: Spanned<Value>,
    },
}

fn yes() -> bool {
    true
}

/// Keeps `eq: null` apart from no `eq` at all.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: YAML_DEPTH_MAX,
            max_nodes: YAML_NODES_MAX,
            max_documents: 1,
        },
        // In a condition, `eq: no` is the string that it looks like to whoever writes a country code.
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

fn problem(file: &Path, error: &Error) -> Problem {
    let error = error.without_snippet();
    let reason = reason(error);
    match error.location() {
        Some(location) => {
            // The parser writes the place at the end, where it would stand a second time.
            let place = format!(" at line {}, column {}", location.line(), location.column());
            problem_at(file, location, reason.strip_suffix(&place).unwrap_or(&reason))
        }
        None => Problem::of_file(file, reason),
    }
}

fn reason(error: &Error) -> String {
    match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            format!("unknown key `{field}`{}; allowed: {}", suggestion(field, expected), expected.join(", "))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            format!("unknown value `{variant}`{}; allowed: {}", suggestion(variant, expected), expected.join(", "))
        }
        Error::SerdeMissingField { field, .. } => format!("the key `{field}` is missing"),
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key `{key}` is given twice"),
        Error::InvalidScalar { ty, .. } => format!("the value is no {}", type_in_words(ty)),
        Error::InvalidBooleanStrict { .. } => "the value is neither true nor false".into(),
        Error::Eof { .. } => "the file ends here; without rules it would read `rules: []`".into(),
        Error::Unexpected { expected, .. } => format!("expected {}", token_in_words(expected)),
        Error::ExternallyTaggedEnumExpectedScalarOrMapping { .. } => {
            "an action is a word, such as `deny`, or one word with its options: `schedule: { delay: 5m }`".into()
        }
        Error::ExpectedMappingEndAfterEnumVariantValue { .. } => "a rule has one action; write a rule for each".into(),
        Error::MultipleDocuments { .. } | Error::Budget { breach: BudgetBreach::Documents { .. }, .. } => {
            "a second document begins here; a file has one".into()
        }
        Error::Budget { breach: BudgetBreach::Nodes { .. }, .. } => {
            format!("the file has more than {YAML_NODES_MAX} values, aliases expanded")
        }
        Error::AliasError { error, .. } => reason(error),
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => {
            format!("the file is nested deeper than {YAML_DEPTH_MAX}")
        }
        other => other.to_string(),
    }
}

fn type_in_words(ty: &str) -> String {
    match ty {
        "u64" => "whole number from 0".into(),
        "i32" => format!("whole number from {} to {}", i32::MIN, i32::MAX),
        other => other.into(),
    }
}

fn token_in_words(token: &str) -> &str {
    match token {
        "sequence start" => "a list: [..], or lines that begin with `- `",
        "mapping start" => "keys with values: { key: value }, or lines `key: value`",
        other => other,
    }
}

pub(super) fn problem_at(file: &Path, location: Location, reason: impl Into<String>) -> Problem {
    let known = location != Location::UNKNOWN;
    Problem {
        file: file.to_owned(),
        line: known.then(|| location.line()),
        column: known.then(|| location.column()),
        reason: reason.into(),
    }
}

impl ConditionShape {
    pub(super) fn has_operator(&self) -> bool {
        let values = [&self.eq, &self.ne, &self.gt, &self.gte, &self.lt, &self.lte, &self.contains];
        values.iter().any(|value| value.is_some())
            || self.r#in.is_some()
            || self.starts_with.is_some()
            || self.ends_with.is_some()
            || self.matches.is_some()
            || self.exists.is_some()
    }
}
