//! Finds the rules that can be about an action by its names, so that an evaluation does not look at the others.
//!
//! # What it promises
//! Left out are only rules that are switched off, and rules whose condition cannot hold for the names of the action. Those that are left
//! come in the order of evaluation. So visiting them gives the verdict that visiting all rules would give.
//!
//! # How it works
//! A condition may demand that a name has one of a few values: `{ field: action_type, eq: refund }`, `in`, and what `all` and `any`
//! make of such leaves. A rule that does is kept under these values, for the one name for which they are fewest; any other rule is kept in a list for
//! all actions. An evaluation merges that list with the list of each of the action's names.
//!
//! Rules change an action while it is evaluated, but of its names only the provider. When that happens, the rules of the old provider that were
//! not visited yet make way for those of the new one.

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::RandomState;
use serde_json::Value;

use crate::action::Action;
use crate::rules::condition::{Condition, Test};
use crate::rules::field::Name;
use crate::rules::set::Rule;

/// Rules by the names that they demand. Rules are numbers: their places in the order of evaluation.
#[derive(Debug)]
pub(super) struct RuleIndex {
    /// Rules for all actions.
    always: Vec<usize>,
    /// For each of [`Name::ALL`], the rules of each value.
    by_name: [ByValue; Name::ALL.len()],
}

// Keys come from rule files, so nobody can choose them to collide; callers only look them up.
type ByValue = HashMap<Box<str>, Vec<usize>, RandomState>;

impl RuleIndex {
    pub(super) fn new(rules: &[Rule]) -> Self {
        let mut index = Self { always: Vec::new(), by_name: Default::default() };
        for (number, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.enabled) {
            match rule.condition.as_ref().and_then(fewest_demanded) {
                None => index.always.push(number),
                Some((name, values)) => {
                    for value in values {
                        index.by_name[name as usize].entry(value.into()).or_default().push(number);
                    }
                }
            }
        }
        index
    }

    /// The rules to visit for `action`.
    pub(super) fn candidates(&self, action: &Action) -> Candidates<'_> {
        let of_name = |name: Name| self.of_value(name, name.look_up(action));
        Candidates { index: self, always: &self.always, by_name: Name::ALL.map(of_name), visited: 0 }
    }

    fn of_value(&self, name: Name, value: &str) -> &[usize] {
        let by_value = &self.by_name[name as usize];
        // Most sets of rules use one or two of the names.
        if by_value.is_empty() { &[] } else { by_value.get(value).map_or(&[], Vec::as_slice) }
    }
}

/// Rules that are still to be visited, in their order.
#[derive(Debug)]
pub(super) struct Candidates<'i> {
    index: &'i RuleIndex,
    always: &'i [usize],
    by_name: [&'i [usize]; Name::ALL.len()],
    /// How many rules lie behind: all numbers below were visited or left out.
    visited: usize,
}

impl Candidates<'_> {
    /// Goes on with the rules of another provider.
    pub(super) fn reroute(&mut self, provider: &str) {
        let rules = self.index.of_value(Name::Provider, provider);
        let behind = rules.partition_point(|rule| *rule < self.visited);
        self.by_name[Name::Provider as usize] = &rules[behind..];
    }
}

impl Iterator for Candidates<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        // No rule is in two of the lists.
        let mut first = &mut self.always;
        for list in &mut self.by_name {
            let is_before = match (list.first(), first.first()) {
                (Some(rule), Some(other)) => rule < other,
                (rule, _) => rule.is_some(),
            };
            if is_before {
                first = list;
            }
        }
        let (rule, rest) = first.split_first()?;
        *first = rest;
        self.visited = rule + 1;
        Some(*rule)
    }
}

/// The name for which a condition demands the fewest values, and these; `None` when it demands none.
fn fewest_demanded(condition: &Condition) -> Option<(Name, BTreeSet<&str>)> {
    let demands = Name::ALL.into_iter().filter_map(|name| Some((name, demanded(condition, name)?)));
    demands.min_by_key(|(_, values)| values.len())
}

/// The values of which `name` must have one for the condition to hold; `None` when it may hold whatever the name is.
fn demanded(condition: &Condition, name: Name) -> Option<BTreeSet<&str>> {
    match condition {
        Condition::All(parts) => {
            parts.iter().filter_map(|part| demanded(part, name)).reduce(|left, right| &left & &right)
        }
        Condition::Any(parts) => parts.iter().try_fold(BTreeSet::new(), |mut values, part| {
            values.append(&mut demanded(part, name)?);
            Some(values)
        }),
        Condition::Not(_) => None,
        Condition::Leaf(leaf) if leaf.field.as_name() != Some(name) => None,
        // A name is text, and equals nothing else.
        Condition::Leaf(leaf) => match &leaf.test {
            Test::Eq(value) => Some(value.as_str().into_iter().collect()),
            Test::In(values) => Some(values.iter().filter_map(Value::as_str).collect()),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use serde_json::{Value, json};

    use crate::action::Action;
    use crate::rules::load::{LoadOptions, load_text};
    use crate::rules::set::RuleSet;

    fn set(rules: &Value) -> RuleSet {
        // JSON is YAML, so the rules go through the real loader.
        let text = json!({ "rules": rules }).to_string();
        load_text(vec![("test.yaml".into(), text)], LoadOptions::default()).expect("valid rules")
    }

    fn action(namespace: &str, tenant: &str, provider: &str, action_type: &str) -> Action {
        Action::new(namespace, tenant, provider, action_type, json!({}))
    }

    /// The names of the rules that are visited for an action, in their order.
    fn visited(rules: &RuleSet, action: &Action) -> Vec<String> {
        rules.candidates(action).map(|rule| rules.rules()[rule].name.to_string()).collect()
    }

    #[test]
    fn rules_of_other_names_are_not_visited() {
        let rules = set(&json!([
            {"name": "always", "action": "allow"},
            {"name": "off", "enabled": false, "action": "allow"},
            {"name": "refund", "condition": {"field": "action_type", "eq": "refund"}, "action": "allow"},
            {"name": "either", "condition": {"field": "action_type", "in": ["refund", "mail", 7]}, "action": "allow"},
            {"name": "sms", "condition": {"all": [{"field": "provider", "eq": "sms"}, {"field": "payload.x", "exists": true}]}, "action": "allow"},
            {"name": "acme", "condition": {"any": [{"field": "tenant", "eq": "acme"}, {"field": "tenant", "eq": "other"}]}, "action": "allow"},
            {"name": "open", "condition": {"any": [{"field": "tenant", "eq": "acme"}, {"field": "provider", "eq": "sms"}]}, "action": "allow"},
            {"name": "denied", "condition": {"not": {"field": "action_type", "eq": "mail"}}, "action": "allow"},
            {"name": "shop", "condition": {"field": "namespace", "eq": "shop"}, "action": "allow"},
            {"name": "never", "condition": {"all": [{"field": "tenant", "eq": "a"}, {"field": "tenant", "eq": "b"}]}, "action": "allow"},
            {"name": "number", "condition": {"field": "tenant", "eq": 7}, "action": "allow"},
        ]));
        assert_eq!(
            visited(&rules, &action("shop", "acme", "sms", "refund")),
            ["always", "refund", "either", "sms", "acme", "open", "denied", "shop"]
        );
        assert_eq!(visited(&rules, &action("n", "t", "log", "mail")), ["always", "either", "open", "denied"]);
    }

    #[test]
    fn a_reroute_brings_the_rules_of_the_new_provider_that_come_after_it() {
        let of = |name: &str, provider: &str| json!({"name": name, "condition": {"field": "provider", "eq": provider}, "action": {"throttle": {"key": ["tenant"], "limit": 1, "window": "1s"}}});
        let rules = set(&json!([
            of("new-before", "new"),
            of("old-before", "old"),
            {"name": "move", "condition": {"field": "provider", "eq": "old"}, "action": {"reroute": {"provider": "new"}}},
            of("old-after", "old"),
            of("new-after", "new"),
        ]));
        let verdict = rules.evaluate(action("n", "t", "old", "mail"));
        let throttles: Vec<&str> = verdict.throttles.iter().map(|throttle| &*throttle.rule).collect();
        assert_eq!(throttles, ["old-before", "new-after"]);
    }

    const VALUES: [&str; 3] = ["a", "b", "c"];

    fn value() -> impl Strategy<Value = &'static str> {
        proptest::sample::select(&VALUES[..])
    }

    fn condition() -> impl Strategy<Value = Value> {
        let field = proptest::sample::select(
            &["action_type", "provider", "tenant", "namespace", "id", "payload.x", "payload", "dedup_key"][..],
        );
        let test = prop_oneof![
            4 => value().prop_map(|value| ("eq", json!(value))),
            1 => Just(("eq", json!(1))),
            2 => proptest::collection::vec(value(), 1..3).prop_map(|values| ("in", json!(values))),
            1 => value().prop_map(|value| ("ne", json!(value))),
            1 => value().prop_map(|value| ("gte", json!(value))),
            1 => value().prop_map(|value| ("starts_with", json!(value))),
            1 => any::<bool>().prop_map(|exists| ("exists", json!(exists))),
        ];
        let leaf = (field, test).prop_map(|(field, (operator, value))| json!({"field": field, operator: value}));
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                2 => proptest::collection::vec(inner.clone(), 1..4).prop_map(|parts| json!({"all": parts})),
                2 => proptest::collection::vec(inner.clone(), 1..4).prop_map(|parts| json!({"any": parts})),
                1 => inner.prop_map(|part| json!({"not": part})),
            ]
        })
    }

    fn rules() -> impl Strategy<Value = Value> {
        let effect = prop_oneof![
            1 => Just(json!("allow")),
            1 => Just(json!("deny")),
            1 => Just(json!("suppress")),
            1 => Just(json!({"schedule": {"delay": "1m"}})),
            3 => value().prop_map(|provider| json!({"reroute": {"provider": provider}})),
            2 => value().prop_map(|x| json!({"modify": {"payload": {"x": x}}})),
            2 => Just(json!({"deduplicate": {"key": ["provider", "payload.x"], "ttl": "1m"}})),
            3 => Just(json!({"throttle": {"key": ["provider", "payload"], "limit": 3, "window": "1s"}})),
        ];
        let rule = (proptest::option::weighted(0.8, condition()), effect, -2..3, proptest::bool::weighted(0.9));
        proptest::collection::vec(rule, 0..16).prop_map(|rules| {
            let rules = rules.into_iter().enumerate().map(|(number, (condition, action, priority, enabled))| {
                let mut rule =
                    json!({"name": format!("r{number}"), "action": action, "priority": priority, "enabled": enabled});
                if let Some(condition) = condition {
                    rule["condition"] = condition;
                }
                rule
            });
            rules.collect()
        })
    }

    proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(1_000))]

        #[test]
        fn rules_found_by_name_and_all_rules_give_the_same_verdict(
            rules in rules(),
            names in [value(), value(), value(), value()],
            x in proptest::option::of(value()),
            dedup_key in proptest::option::of(value()),
        ) {
            let rules = set(&rules);
            let [namespace, tenant, provider, action_type] = names;
            let mut action = action(namespace, tenant, provider, action_type);
            action.dedup_key = dedup_key.map(str::to_owned);
            if let Some(x) = x {
                action.payload = json!({ "x": x });
            }
            let (plain, trace) = rules.evaluate_traced(action.clone());
            prop_assert_eq!(trace.len(), rules.rules().len());
            prop_assert_eq!(rules.evaluate(action.clone()), plain);
            let visited: Vec<usize> = rules.candidates(&action).collect();
            prop_assert!(visited.is_sorted_by(|one, next| one < next), "{visited:?}");
        }
    }
}
