//! One rule file: from YAML text to checked rules, or to all that is wrong with them.
//!
//! # How it works
//! `shape` reads the text; the first thing that does not fit ends the file, since nothing after it can be trusted. Then
//! every rule is checked, and each problem is noted with the line and column that it stands at. Compilation returns
//! `None` where a problem was noted, so that the next rule is checked all the same.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use serde_saphyr::{Location, Spanned};

use crate::action::{NAME_BYTES_MAX, deeper_than};
use crate::rules::condition::{Condition, DEPTH_MAX, IN_VALUES_MAX, Leaf, NODES_MAX, Order, Test, compile_regex};
use crate::rules::effect::{DURATION_MAX, DURATION_MIN, Effect};
use crate::rules::field::Field;
use crate::rules::key::KeyFields;
use crate::rules::problem::Problem;
use crate::rules::set::Rule;
use crate::rules::shape::{self, ConditionShape, EffectShape, RuleShape};

/// Longest rule name, in bytes.
pub(crate) const RULE_NAME_BYTES_MAX: usize = 64;
/// Largest merge patch, in bytes as compact JSON: by so much can one rule enlarge a payload.
const PATCH_BYTES_MAX: usize = 16 * 1024;
/// Deepest merge patch, so that a patched payload stays within the depth of an unpatched one.
const PATCH_DEPTH_MAX: usize = crate::action::PAYLOAD_DEPTH_MAX;

const OPERATORS: &str = "eq, ne, gt, gte, lt, lte, in, contains, starts_with, ends_with, matches, exists";

/// Reads and checks the text of one file. Needs a stack of several MiB for the deepest ones.
pub(crate) fn parse(file: &Path, text: &str) -> Result<Vec<Rule>, Vec<Problem>> {
    let shape = shape::read(file, text).map_err(|problem| vec![problem])?;
    let mut check = Check { file, problems: Vec::new() };
    let rules: Vec<Rule> = shape.rules.into_iter().filter_map(|rule| check.rule(rule)).collect();
    if check.problems.is_empty() { Ok(rules) } else { Err(check.problems) }
}

struct Check<'a> {
    file: &'a Path,
    problems: Vec<Problem>,
}

impl Check<'_> {
    /// Notes a problem; `None` so that a caller can end with it.
    fn fail<T>(&mut self, at: Location, reason: impl Into<String>) -> Option<T> {
        self.problems.push(shape::problem_at(self.file, at, reason));
        None
    }

    fn accept<T>(&mut self, at: Location, result: Result<T, String>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(reason) => self.fail(at, reason),
        }
    }

    fn rule(&mut self, shape: Spanned<RuleShape>) -> Option<Rule> {
        let line = shape.referenced.line();
        let shape = shape.value;
        // All three are checked before one of them ends the rule, so that one load shows every problem.
        let name = self.rule_name(&shape.name);
        let condition = match shape.condition {
            None => Some(None),
            Some(condition) => self.condition(condition, DEPTH_MAX, &mut 0).map(Some),
        };
        let effect = self.effect(shape.action);
        Some(Rule {
            name: name?.into(),
            description: shape.description,
            priority: shape.priority,
            enabled: shape.enabled,
            condition: condition?,
            effect: effect?,
            file: self.file.to_owned(),
            line,
        })
    }

    fn rule_name(&mut self, name: &Spanned<String>) -> Option<String> {
        let text = &name.value;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > RULE_NAME_BYTES_MAX || !text.bytes().all(allowed) {
            let reason = format!(
                "`{text}` is no rule name; allowed: 1 to {RULE_NAME_BYTES_MAX} letters, digits, `.`, `_` and `-`"
            );
            return self.fail(name.referenced, reason);
        }
        Some(text.clone())
    }

    fn condition(&mut self, shape: Spanned<ConditionShape>, depth_left: usize, nodes: &mut usize) -> Option<Condition> {
        let at = shape.referenced;
        *nodes += 1;
        if *nodes > NODES_MAX {
            return self.fail(at, format!("the condition has more than {NODES_MAX} parts"));
        }
        let Some(depth_left) = depth_left.checked_sub(1) else {
            return self.fail(at, format!("the condition is nested deeper than {DEPTH_MAX}"));
        };
        let shape = shape.value;
        match &shape {
            ConditionShape { all: None, any: None, not: None, field: Some(_), .. } => self.leaf(at, shape),
            shape if shape.has_operator() => {
                self.fail(at, "an operator stands beside `field: NAME`, in a mapping of its own")
            }
            ConditionShape { all: Some(_), any: None, not: None, field: None, .. } => {
                self.parts(at, "all", shape.all.unwrap_or_default(), depth_left, nodes).map(Condition::All)
            }
            ConditionShape { all: None, any: Some(_), not: None, field: None, .. } => {
                self.parts(at, "any", shape.any.unwrap_or_default(), depth_left, nodes).map(Condition::Any)
            }
            ConditionShape { all: None, any: None, not: Some(_), field: None, .. } => {
                let part = self.condition(*shape.not?, depth_left, nodes)?;
                Some(Condition::Not(Box::new(part)))
            }
            _ => self.fail(at, "a condition is exactly one of `all`, `any`, `not`, or `field` with an operator"),
        }
    }

    fn parts(
        &mut self,
        at: Location,
        word: &str,
        parts: Vec<Spanned<ConditionShape>>,
        depth_left: usize,
        nodes: &mut usize,
    ) -> Option<Vec<Condition>> {
        if parts.is_empty() {
            return self.fail(at, format!("`{word}` is empty; leave the condition out to match every action"));
        }
        let wanted = parts.len();
        let parts: Vec<Condition> =
            parts.into_iter().filter_map(|part| self.condition(part, depth_left, nodes)).collect();
        (parts.len() == wanted).then_some(parts)
    }

    fn leaf(&mut self, at: Location, shape: ConditionShape) -> Option<Condition> {
        let written = shape.field.as_ref()?;
        let field = self.accept(written.referenced, Field::parse(&written.value));
        let mut tests = self.tests(at, shape)?;
        if tests.len() != 1 {
            let reason = format!("`field` needs exactly one operator, not {}; allowed: {OPERATORS}", tests.len());
            return self.fail(at, reason);
        }
        Some(Condition::Leaf(Leaf { field: field?, test: tests.remove(0) }))
    }

    /// Every operator that is written, compiled.
    fn tests(&mut self, at: Location, shape: ConditionShape) -> Option<Vec<Test>> {
        let mut tests = Vec::new();
        tests.extend(shape.eq.map(Test::Eq));
        tests.extend(shape.ne.map(Test::Ne));
        tests.extend(shape.contains.map(Test::Contains));
        tests.extend(shape.starts_with.map(Test::StartsWith));
        tests.extend(shape.ends_with.map(Test::EndsWith));
        tests.extend(shape.exists.map(Test::Exists));
        let orders = [(Order::Gt, shape.gt), (Order::Gte, shape.gte), (Order::Lt, shape.lt), (Order::Lte, shape.lte)];
        for (order, value) in orders {
            let Some(value) = value else { continue };
            if !value.is_number() && !value.is_string() {
                return self.fail(at, format!("only numbers and strings are ordered, not {value}"));
            }
            tests.push(Test::Order(order, value));
        }
        if let Some(values) = shape.r#in {
            if values.is_empty() || values.len() > IN_VALUES_MAX {
                return self.fail(at, format!("`in` has {} values; allowed: 1 to {IN_VALUES_MAX}", values.len()));
            }
            tests.push(Test::In(values));
        }
        if let Some(pattern) = shape.matches {
            tests.push(Test::Matches(self.accept(pattern.referenced, compile_regex(&pattern.value))?));
        }
        Some(tests)
    }

    fn effect(&mut self, shape: Spanned<EffectShape>) -> Option<Effect> {
        Some(match shape.value {
            EffectShape::Allow => Effect::Allow,
            EffectShape::Deny => Effect::Deny,
            EffectShape::Suppress => Effect::Suppress,
            EffectShape::Schedule { delay } => Effect::Schedule { delay: self.duration("delay", &delay)? },
            EffectShape::Deduplicate { key, ttl } => {
                let key = match key {
                    Some(key) => self.key(key),
                    None => self.accept(shape.referenced, dedup_key()),
                };
                let ttl = self.duration("ttl", &ttl);
                Effect::Deduplicate { key: key?, ttl: ttl? }
            }
            EffectShape::Throttle { key, limit, window, algorithm } => {
                let key = self.key(key);
                let window = self.duration("window", &window)?;
                // What the store would refuse with each action is refused here, once.
                if let Err(error) = algorithm.request(limit.value, window).check() {
                    return self.fail(limit.referenced, error.message().to_owned());
                }
                Effect::Throttle { key: key?, limit: limit.value, window, algorithm }
            }
            EffectShape::Reroute { provider } => Effect::Reroute { provider: self.provider(provider)? },
            EffectShape::Modify { payload } => Effect::Modify { payload: self.patch(payload)? },
        })
    }

    fn key(&mut self, written: Spanned<Vec<Spanned<String>>>) -> Option<KeyFields> {
        let at = written.referenced;
        let count = written.value.len();
        let fields: Vec<Field> = written
            .value
            .into_iter()
            .filter_map(|field| self.accept(field.referenced, Field::parse(&field.value)))
            .collect();
        if fields.len() < count {
            return None;
        }
        self.accept(at, KeyFields::new(fields))
    }

    fn duration(&mut self, what: &str, written: &Spanned<String>) -> Option<Duration> {
        let text = &written.value;
        let Ok(duration) = humantime::parse_duration(text) else {
            return self.fail(
                written.referenced,
                format!("{what} `{text}` is no duration; write it like 250ms, 5m or 1h 30m"),
            );
        };
        if !(DURATION_MIN..=DURATION_MAX).contains(&duration) {
            return self.fail(written.referenced, format!("{what} is {text}; allowed: 1ms to 366days"));
        }
        Some(duration)
    }

    fn provider(&mut self, name: Spanned<String>) -> Option<String> {
        let text = name.value;
        if text.is_empty() || text.len() > NAME_BYTES_MAX || text.contains('\0') {
            return self.fail(
                name.referenced,
                format!("provider is no name; allowed: 1 to {NAME_BYTES_MAX} bytes without NUL"),
            );
        }
        Some(text)
    }

    fn patch(&mut self, patch: Spanned<Value>) -> Option<Value> {
        if deeper_than(&patch.value, PATCH_DEPTH_MAX) || patch.value.to_string().len() > PATCH_BYTES_MAX {
            let reason = format!("the patch is too large; allowed: {PATCH_BYTES_MAX} bytes, depth {PATCH_DEPTH_MAX}");
            return self.fail(patch.referenced, reason);
        }
        Some(patch.value)
    }
}

fn dedup_key() -> Result<KeyFields, String> {
    KeyFields::new(vec![Field::parse("dedup_key")?])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::parse;
    use crate::rules::problem::Problem;

    fn problems(yaml: &str) -> Vec<Problem> {
        parse(Path::new("test.yaml"), yaml).expect_err("has problems")
    }

    fn only_problem(yaml: &str) -> String {
        let problems = problems(yaml);
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].to_string()
    }

    #[test]
    fn misspelt_keys_are_located_and_the_right_one_is_suggested() {
        let text = only_problem("rules:\n  - name: a\n    conditon: { field: tenant, eq: x }\n    action: deny\n");
        assert!(text.starts_with("test.yaml:3:5: unknown key `conditon` (did you mean `condition`?)"), "{text}");
        let text =
            only_problem("rules:\n  - name: a\n    action: { throttle: { key: [tenant], limt: 3, window: 1s } }\n");
        assert!(text.contains(":3:") && text.contains("did you mean `limit`?"), "{text}");
    }

    #[test]
    fn unknown_actions_and_algorithms_list_the_allowed_ones() {
        let text = only_problem("rules: [{ name: a, action: denny }]");
        assert!(text.contains("did you mean `deny`?") && text.contains("suppress"), "{text}");
        let text = only_problem(
            "rules: [{ name: a, action: { throttle: { key: [tenant], limit: 1, window: 1s, algorithm: leaky } } }]",
        );
        assert!(text.contains("fixed_window, sliding_window, gcra"), "{text}");
    }

    #[test]
    fn every_rule_is_checked_and_every_problem_is_reported() {
        let yaml = r#"
rules:
  - name: "bad name"
    action: deny
  - name: b
    condition: { all: [{ field: tennant, eq: 1 }, { field: tenant, matches: "(" }] }
    action: { deduplicate: { key: [], ttl: 5 parsecs } }
"#;
        let problems = problems(yaml);
        let lines: Vec<Option<u64>> = problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [Some(3), Some(6), Some(6), Some(7), Some(7)], "{problems:?}");
        assert!(problems[1].reason.contains("did you mean `tenant`?"));
    }

    #[test]
    fn conditions_of_unclear_meaning_are_refused() {
        for (condition, part) in [
            ("{ all: [] }", "is empty"),
            ("{}", "exactly one of"),
            ("{ field: tenant }", "exactly one operator, not 0"),
            ("{ field: tenant, eq: 1, ne: 2 }", "exactly one operator, not 2"),
            ("{ eq: 1 }", "beside `field"),
            ("{ any: [{ field: tenant, eq: 1 }], not: { field: tenant, eq: 1 } }", "exactly one of"),
            ("{ all: [{ field: tenant, eq: 1 }], eq: 1 }", "beside `field"),
            ("{ field: payload.n, gt: true }", "only numbers and strings"),
            ("{ field: tenant, in: [] }", "allowed: 1 to"),
        ] {
            let text = only_problem(&format!("rules: [{{ name: a, condition: {condition}, action: deny }}]"));
            assert!(text.contains(part), "{condition}: {text}");
        }
    }

    #[test]
    fn numbers_without_units_are_no_durations() {
        let text = only_problem("rules: [{ name: a, action: { schedule: { delay: 5 } } }]");
        assert!(text.contains("250ms"), "{text}");
        let text = only_problem("rules: [{ name: a, action: { deduplicate: { ttl: 0s } } }]");
        assert!(text.contains("allowed: 1ms"), "{text}");
    }

    #[test]
    fn limits_of_throttles_are_bounded() {
        for (throttle, allowed) in [
            ("limit: 0, window: 1s", "limit 0 is out of range: allowed are 1 to 100000"),
            ("limit: 100001, window: 1s", "allowed are 1 to 100000"),
            ("limit: 5000000, window: 1s, algorithm: gcra", "more than one per microsecond"),
        ] {
            let rule = format!("rules: [{{ name: a, action: {{ throttle: {{ key: [tenant], {throttle} }} }} }}]");
            let text = only_problem(&rule);
            assert!(text.contains(allowed), "{text}");
        }
    }

    #[test]
    fn what_has_another_shape_is_told_in_the_words_of_rule_files() {
        let bomb = "rules: [{ name: a, action: { modify: { payload: { a: &a [x,x,x,x,x,x,x,x,x,x], \
            b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a], c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b], \
            d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c], e: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d] } } } }]";
        for (yaml, part) in [
            ("", "without rules it would read `rules: []`"),
            ("- name: a", "expected keys with values"),
            ("rules: {}", "expected a list"),
            ("rules: [{ name: a, action: { throttle: { key: tenant, limit: 1, window: 1s } } }]", "expected a list"),
            (
                "rules: [{ name: a, action: { throttle: { key: [tenant], limit: -1, window: 1s } } }]",
                "whole number from 0",
            ),
            ("rules: [{ name: a, priority: high, action: deny }]", "is no whole number from -2147483648"),
            ("rules: [{ name: a, enabled: yes, action: deny }]", "neither true nor false"),
            ("rules: [{ name: a, action: [deny] }]", "an action is a word, such as `deny`"),
            ("rules: [{ name: a, action: { schedule: { delay: 1s }, deny: } }]", "a rule has one action"),
            ("rules: [{ name: a, name: b, action: deny }]", "the key `name` is given twice"),
            ("rules: []\n---\nrules: []\n", "a file has one"),
            (bomb, "more than 100000 values, aliases expanded"),
        ] {
            let text = only_problem(yaml);
            assert!(text.contains(part) && text.starts_with("test.yaml:"), "{yaml}: {text}");
        }
    }

    #[test]
    fn text_that_is_no_yaml_is_located() {
        let problems = problems("rules:\n  - name: [unclosed\n");
        assert!(problems[0].line.is_some(), "{problems:?}");
        assert!(parse(Path::new("t"), "").is_err());
        assert!(parse(Path::new("t"), "rules: []\n---\nrules: []\n").is_err());
        assert!(parse(Path::new("t"), "rules: []\nrules: []\n").is_err(), "duplicate key");
    }

    #[test]
    fn no_and_null_in_conditions_mean_what_they_look_like() {
        let yaml = "rules: [{ name: a, condition: { any: [{ field: payload.country, eq: no }, { field: payload.x, eq: null }] }, action: deny }]";
        let rules = parse(Path::new("t"), yaml).expect("valid");
        let explained = format!("{:?}", rules[0].condition);
        assert!(explained.contains(r#"Eq(String("no"))"#) && explained.contains("Eq(Null)"), "{explained}");
    }
}
