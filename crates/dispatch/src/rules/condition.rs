//! Conditions: which actions a rule is about.
//!
//! # The written form
//! A condition is one of `all: [..]`, `any: [..]`, `not: {..}` and a leaf: `{ field: FIELD, OPERATOR: VALUE }` with
//! exactly one operator.
//!
//! | operator | holds when the field is there and |
//! |---|---|
//! | `eq: V` | equals V |
//! | `in: [V, ..]` | equals one of them |
//! | `gt`, `gte`, `lt`, `lte`: V | both are numbers, or both are strings, and they compare so |
//! | `contains: V` | is a string with the substring V, or an array with an element equal to V |
//! | `starts_with`, `ends_with`: S | is a string that does |
//! | `matches: R` | is a string in which the regular expression R matches somewhere; anchor it with `^` and `$` |
//! | `exists: true` | (nothing more) |
//!
//! `ne: V` is the opposite of `eq` and `exists: false` the opposite of `exists: true`: both hold for an absent field.
//!
//! # Comparing
//! Values of different JSON types are never equal and never ordered: `"1"` is not `1`, and `null` equals only `null`.
//! Numbers compare by value (`1` equals `1.0`); integers exactly, an integer with a fraction as `f64`. Strings
//! compare byte by byte, which is the order of their code points, and with respect to case. Arrays and objects are
//! equal when their elements are; they are not ordered. There is no conversion of any kind.
//!
//! # Bounds
//! [`DEPTH_MAX`], [`NODES_MAX`], [`IN_VALUES_MAX`], [`PATTERN_BYTES_MAX`] and [`REGEX_BYTES_MAX`], all checked when a
//! file is loaded. The regex engine takes time linear in its input, so no pattern can hang an evaluation.

use std::cmp::Ordering;

use regex::{Regex, RegexBuilder};
use serde_json::{Number, Value};

use crate::action::Action;
use crate::rules::field::{Field, Seen};

/// Deepest nesting of `all`, `any` and `not`.
pub const DEPTH_MAX: usize = 16;
/// Most nodes in the condition of one rule.
pub const NODES_MAX: usize = 1_000;
/// Most values in one `in`. They are compared one by one.
pub const IN_VALUES_MAX: usize = 1_000;
/// Longest regular expression as written, in bytes.
pub const PATTERN_BYTES_MAX: usize = 1_024;
/// Largest compiled regular expression, in bytes; also the bound of its lazily built automaton.
pub const REGEX_BYTES_MAX: usize = 1024 * 1024;

/// A condition, checked and compiled.
#[derive(Debug, Clone)]
pub enum Condition {
    /// Holds when each one holds.
    All(Vec<Condition>),
    /// Holds when at least one holds.
    Any(Vec<Condition>),
    /// Holds when the other does not.
    Not(Box<Condition>),
    /// A test of one field.
    Leaf(Leaf),
}

/// A test of one field.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// What is tested.
    pub field: Field,
    /// How.
    pub test: Test,
}

/// The operators; see the table above.
#[derive(Debug, Clone)]
pub enum Test {
    /// `eq`
    Eq(Value),
    /// `ne`
    Ne(Value),
    /// `gt`, `gte`, `lt`, `lte`
    Order(Order, Value),
    /// `in`
    In(Vec<Value>),
    /// `contains`
    Contains(Value),
    /// `starts_with`
    StartsWith(String),
    /// `ends_with`
    EndsWith(String),
    /// `matches`
    Matches(Regex),
    /// `exists`
    Exists(bool),
}

/// The four ways to be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
}

impl Condition {
    /// Whether the condition holds for `action`.
    #[must_use]
    pub fn holds(&self, action: &Action) -> bool {
        match self {
            Condition::All(parts) => parts.iter().all(|part| part.holds(action)),
            Condition::Any(parts) => parts.iter().any(|part| part.holds(action)),
            Condition::Not(part) => !part.holds(action),
            Condition::Leaf(leaf) => leaf.holds(action),
        }
    }

    /// Why the condition does not hold: the first leaf that failed, in words. `None` when it holds.
    #[must_use]
    pub fn explain(&self, action: &Action) -> Option<String> {
        match self {
            Condition::All(parts) => parts.iter().find_map(|part| part.explain(action)),
            Condition::Any(parts) => {
                let reasons = parts.iter().map(|part| part.explain(action)).collect::<Option<Vec<_>>>()?;
                reasons.into_iter().next().map(|first| format!("none of `any` holds; first: {first}"))
            }
            Condition::Not(part) => part.holds(action).then(|| format!("`not` fails, since {} holds", part.summary())),
            Condition::Leaf(leaf) => (!leaf.holds(action)).then(|| leaf.describe_failure(action)),
        }
    }

    fn summary(&self) -> String {
        match self {
            Condition::All(parts) => format!("`all` of {} conditions", parts.len()),
            Condition::Any(parts) => format!("`any` of {} conditions", parts.len()),
            Condition::Not(_) => "the inner `not`".into(),
            Condition::Leaf(leaf) => format!("`{} {}`", leaf.field, leaf.test.describe()),
        }
    }
}

impl Leaf {
    fn holds(&self, action: &Action) -> bool {
        self.test.holds(self.field.look_up(action))
    }

    fn describe_failure(&self, action: &Action) -> String {
        let found = match self.field.look_up(action) {
            None => "absent".to_owned(),
            Some(Seen::Text(text)) => shortened(&Value::from(text)),
            Some(Seen::Json(value)) => shortened(value),
        };
        format!("`{} {}` fails: the field is {found}", self.field, self.test.describe())
    }
}

impl Test {
    fn holds(&self, seen: Option<Seen<'_>>) -> bool {
        let Some(seen) = seen else {
            return matches!(self, Test::Ne(_) | Test::Exists(false));
        };
        match self {
            Test::Eq(value) => equal(seen, value),
            Test::Ne(value) => !equal(seen, value),
            Test::Order(order, value) => compare(seen, value).is_some_and(|found| order.admits(found)),
            Test::In(values) => values.iter().any(|value| equal(seen, value)),
            Test::Contains(value) => contains(seen, value),
            Test::StartsWith(start) => matches!(seen, Seen::Text(text) if text.starts_with(start)),
            Test::EndsWith(end) => matches!(seen, Seen::Text(text) if text.ends_with(end)),
            Test::Matches(regex) => matches!(seen, Seen::Text(text) if regex.is_match(text)),
            Test::Exists(wanted) => *wanted,
        }
    }

    fn describe(&self) -> String {
        match self {
            Test::Eq(value) => format!("eq {}", shortened(value)),
            Test::Ne(value) => format!("ne {}", shortened(value)),
            Test::Order(order, value) => format!("{} {}", order.word(), shortened(value)),
            Test::In(values) => format!("in {}", shortened(&Value::from(values.clone()))),
            Test::Contains(value) => format!("contains {}", shortened(value)),
            Test::StartsWith(start) => format!("starts_with {}", shortened(&Value::from(start.as_str()))),
            Test::EndsWith(end) => format!("ends_with {}", shortened(&Value::from(end.as_str()))),
            Test::Matches(regex) => format!("matches {}", shortened(&Value::from(regex.as_str()))),
            Test::Exists(wanted) => format!("exists {wanted}"),
        }
    }
}

impl Order {
    fn admits(self, found: Ordering) -> bool {
        match self {
            Order::Gt => found.is_gt(),
            Order::Gte => found.is_ge(),
            Order::Lt => found.is_lt(),
            Order::Lte => found.is_le(),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Order::Gt => "gt",
            Order::Gte => "gte",
            Order::Lt => "lt",
            Order::Lte => "lte",
        }
    }
}

/// Compiles the pattern of `matches` within the bounds above.
///
/// # Errors
/// A sentence with what the regex parser found.
pub fn compile_regex(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!("regular expression is {} bytes long; at most {PATTERN_BYTES_MAX}", pattern.len()));
    }
    RegexBuilder::new(pattern)
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|error| format!("regular expression is not valid: {}", last_line(&error)))
}

/// The parser draws a picture over several lines; what is wrong stands in the last one.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

fn equal(seen: Seen<'_>, value: &Value) -> bool {
    match seen {
        Seen::Text(text) => value.as_str() == Some(text),
        Seen::Json(json) => json_equal(json, value),
    }
}

/// Like `==`, with numbers compared by value. Recursion goes as deep as the shallower of the two.
fn json_equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => compare_numbers(left, right) == Some(Ordering::Equal),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| json_equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            let same = |(key, value): (&String, &Value)| right.get(key).is_some_and(|other| json_equal(value, other));
            left.len() == right.len() && left.iter().all(same)
        }
        _ => left == right,
    }
}

fn compare(seen: Seen<'_>, value: &Value) -> Option<Ordering> {
    match (seen, value) {
        (Seen::Text(text), Value::String(other)) => Some(text.cmp(other.as_str())),
        (Seen::Json(Value::Number(number)), Value::Number(other)) => compare_numbers(number, other),
        _ => None,
    }
}

fn compare_numbers(left: &Number, right: &Number) -> Option<Ordering> {
    let integer = |number: &Number| number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    match (integer(left), integer(right)) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}

fn contains(seen: Seen<'_>, value: &Value) -> bool {
    match (seen, value) {
        (Seen::Text(text), Value::String(part)) => text.contains(part.as_str()),
        (Seen::Json(Value::Array(items)), _) => items.iter().any(|item| json_equal(item, value)),
        _ => false,
    }
}

/// JSON of at most about a hundred bytes, so that a trace stays readable whatever the payload holds.
fn shortened(value: &Value) -> String {
    const SHOWN_BYTES_MAX: usize = 100;
    let mut text = value.to_string();
    if text.len() > SHOWN_BYTES_MAX {
        text.truncate(text.floor_char_boundary(SHOWN_BYTES_MAX));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Condition, Leaf, Order, Test, compile_regex};
    use crate::action::Action;
    use crate::rules::field::Field;

    fn leaf(test: Test) -> Condition {
        Condition::Leaf(Leaf { field: Field::parse("payload.x").expect("field"), test })
    }

    fn holds(x: Value, test: Test) -> bool {
        leaf(test).holds(&action(x))
    }

    fn action(x: Value) -> Action {
        Action::new("demo", "acme", "log", "greet", json!({ "x": x }))
    }

    #[test]
    fn values_of_different_types_are_never_equal() {
        for (left, right) in [
            (json!(1), json!("1")),
            (json!(true), json!("true")),
            (json!(1), json!(true)),
            (json!(null), json!("")),
            (json!(0), json!(null)),
            (json!([1]), json!(1)),
        ] {
            assert!(!holds(left.clone(), Test::Eq(right.clone())), "{left} eq {right}");
            assert!(holds(left.clone(), Test::Ne(right.clone())), "{left} ne {right}");
        }
    }

    #[test]
    fn numbers_are_equal_by_value_at_any_depth() {
        assert!(holds(json!(1), Test::Eq(json!(1.0))));
        assert!(holds(json!({"a": [1.0]}), Test::Eq(json!({"a": [1]}))));
        assert!(!holds(json!(u64::MAX), Test::Eq(json!(u64::MAX - 1))), "integers compare exactly");
    }

    #[test]
    fn ordering_needs_two_numbers_or_two_strings() {
        assert!(holds(json!(2), Test::Order(Order::Gt, json!(1.5))));
        assert!(holds(json!(-1), Test::Order(Order::Lt, json!(u64::MAX))));
        assert!(holds(json!("b"), Test::Order(Order::Gte, json!("b"))));
        for (left, right) in [(json!("2"), json!(1)), (json!(true), json!(false)), (json!(null), json!(0))] {
            for order in [Order::Gt, Order::Gte, Order::Lt, Order::Lte] {
                assert!(!holds(left.clone(), Test::Order(order, right.clone())), "{left} {order:?} {right}");
            }
        }
    }

    #[test]
    fn an_absent_field_satisfies_only_ne_and_exists_false() {
        let absent = Action::new("demo", "acme", "log", "greet", json!({}));
        for test in [Test::Ne(json!(null)), Test::Exists(false)] {
            assert!(leaf(test.clone()).holds(&absent), "{test:?}");
        }
        let regex = compile_regex("").expect("regex");
        for test in [
            Test::Eq(json!(null)),
            Test::In(vec![json!(null)]),
            Test::Contains(json!("")),
            Test::StartsWith(String::new()),
            Test::EndsWith(String::new()),
            Test::Matches(regex),
            Test::Exists(true),
            Test::Order(Order::Lte, json!(0)),
        ] {
            assert!(!leaf(test.clone()).holds(&absent), "{test:?}");
        }
    }

    #[test]
    fn text_operators_look_at_strings_only() {
        assert!(holds(json!("hello"), Test::Contains(json!("ell"))));
        assert!(holds(json!(["a", 2]), Test::Contains(json!(2))));
        assert!(!holds(json!({"a": 1}), Test::Contains(json!("a"))));
        assert!(holds(json!("hello"), Test::StartsWith("he".into())));
        assert!(holds(json!("hello"), Test::EndsWith("lo".into())));
        assert!(holds(json!("order-17"), Test::Matches(compile_regex(r"^order-\d+$").expect("regex"))));
        assert!(!holds(json!(17), Test::Matches(compile_regex(r"\d+").expect("regex"))));
    }

    #[test]
    fn explanation_is_there_exactly_when_the_condition_fails() {
        let one = || leaf(Test::Eq(json!(1)));
        let two = || leaf(Test::Eq(json!(2)));
        let cases = [
            Condition::All(vec![one(), two()]),
            Condition::Any(vec![two(), one()]),
            Condition::Any(vec![two(), two()]),
            Condition::Not(Box::new(one())),
            Condition::Not(Box::new(Condition::Any(vec![two()]))),
        ];
        for condition in cases {
            let explanation = condition.explain(&action(json!(1)));
            assert_eq!(explanation.is_none(), condition.holds(&action(json!(1))), "{condition:?}: {explanation:?}");
        }
        let text = two().explain(&action(json!("é".repeat(200)))).expect("fails");
        assert!(text.contains("`payload.x eq 2` fails") && text.len() < 200, "{text}");
    }

    #[test]
    fn regular_expressions_are_bounded() {
        assert!(compile_regex(&"a".repeat(1_025)).expect_err("too long").contains("at most"));
        assert!(compile_regex(r"(\w{500}){500}").is_err(), "compiles to more than the limit");
        assert!(compile_regex("(").expect_err("unclosed").ends_with("not valid: unclosed group"));
    }
}
