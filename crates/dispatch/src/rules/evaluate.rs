//! Applies a rule set to an action. The order and the kinds of rules are described in [`crate::rules`].
//!
//! # What it promises
//! No I/O, no failure, no panic, and time linear in the number of rules that the [index](crate::rules::index) finds for the action. The same
//! set and action always give the same verdict, whether it is traced or not. A trace tells of all rules, so it visits them all; it costs
//! nothing when it is not asked for.

use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::action::Action;
use crate::rules::effect::Effect;
use crate::rules::index::Candidates;
use crate::rules::key::KeyFields;
use crate::rules::merge_patch;
use crate::rules::set::{DefaultDecision, Rule, RuleSet};
use crate::rules::verdict::{Decision, Dedup, Reroute, RuleTrace, Throttle, TraceStep, Verdict};

impl RuleSet {
    /// What the rules say about `action`.
    #[must_use]
    pub fn evaluate(&self, action: Action) -> Verdict {
        let candidates = self.candidates(&action);
        self.run(action, candidates, |_, _| ())
    }

    /// The same, with one entry per rule that tells what it did.
    #[must_use]
    pub fn evaluate_traced(&self, action: Action) -> (Verdict, Vec<RuleTrace>) {
        let mut trace = Vec::with_capacity(self.rules().len());
        let verdict = self.run(action, 0..self.rules().len(), |rule, step| {
            let step = step();
            trace.push(RuleTrace {
                rule: Arc::clone(&rule.name),
                priority: rule.priority,
                action: rule.effect.word(),
                step,
            });
        });
        for rule in &self.rules()[trace.len()..] {
            let step = TraceStep::NotReached;
            trace.push(RuleTrace {
                rule: Arc::clone(&rule.name),
                priority: rule.priority,
                action: rule.effect.word(),
                step,
            });
        }
        (verdict, trace)
    }

    /// Visits the rules of `way`. `note` hears of each; it asks for the details only when it wants them.
    fn run(&self, action: Action, mut way: impl Way, mut note: impl FnMut(&Rule, &dyn Fn() -> TraceStep)) -> Verdict {
        let mut verdict = Verdict::undecided(action, self.default_decision());
        let mut asked_for = None;
        while let Some(rule) = way.next() {
            let rule = &self.rules()[rule];
            if !rule.enabled {
                note(rule, &|| TraceStep::Disabled);
                continue;
            }
            let condition = rule.condition.as_ref();
            if condition.is_some_and(|condition| !condition.holds(&verdict.action)) {
                note(rule, &|| TraceStep::NotMatched {
                    reason: condition.and_then(|condition| condition.explain(&verdict.action)).unwrap_or_default(),
                });
                continue;
            }
            match verdict.apply(rule, &mut asked_for) {
                Applied::Decided => {
                    note(rule, &|| TraceStep::Matched);
                    break;
                }
                Applied::Noted => note(rule, &|| TraceStep::Matched),
                Applied::PassedOver(why) => note(rule, &|| TraceStep::PassedOver { reason: verdict.explain(&why) }),
            }
            if matches!(rule.effect, Effect::Reroute { .. }) {
                way.reroute(&verdict.action.provider);
            }
        }
        verdict.drop_limits_of_refused();
        verdict
    }
}

/// Which rules are visited, in their order.
trait Way: Iterator<Item = usize> {
    /// The action goes to this provider from here on.
    fn reroute(&mut self, provider: &str);
}

/// All of them.
impl Way for Range<usize> {
    fn reroute(&mut self, _: &str) {}
}

/// Those that can be about the action.
impl Way for Candidates<'_> {
    fn reroute(&mut self, provider: &str) {
        Candidates::reroute(self, provider);
    }
}

enum Applied<'a> {
    Decided,
    Noted,
    PassedOver(Why<'a>),
}

enum Why<'a> {
    KeyIncomplete(&'a KeyFields),
    AlreadyDeduplicated,
}

impl Verdict {
    fn undecided(action: Action, default: DefaultDecision) -> Self {
        let decision = match default {
            DefaultDecision::Allow => Decision::Allow { rule: None },
            DefaultDecision::Deny => Decision::Deny { rule: None },
        };
        Self { action, modified_by: Vec::new(), reroute: None, dedup: None, throttles: Vec::new(), decision }
    }

    /// `asked_for` is the provider that the caller named, once a rule has named another one.
    fn apply<'a>(&mut self, rule: &'a Rule, asked_for: &mut Option<String>) -> Applied<'a> {
        let name = || Arc::clone(&rule.name);
        self.decision = match &rule.effect {
            Effect::Allow => Decision::Allow { rule: Some(name()) },
            Effect::Deny => Decision::Deny { rule: Some(name()) },
            Effect::Suppress => Decision::Suppress { rule: name() },
            Effect::Schedule { delay } => Decision::Schedule { rule: name(), delay: *delay },
            Effect::Deduplicate { key, ttl } => return self.note_dedup(rule, key, *ttl),
            Effect::Throttle { key, limit, window, algorithm } => {
                let key = key.key_of(&self.action).text;
                let (limit, window, algorithm) = (*limit, *window, *algorithm);
                self.throttles.push(Throttle { rule: name(), key, limit, window, algorithm });
                return Applied::Noted;
            }
            Effect::Reroute { provider } => {
                let before = mem::replace(&mut self.action.provider, provider.clone());
                let (from, to) = (asked_for.get_or_insert(before).clone(), provider.clone());
                self.reroute = (from != to).then(|| Reroute { rule: name(), from, to });
                return Applied::Noted;
            }
            Effect::Modify { payload } => {
                merge_patch::apply(&mut self.action.payload, payload);
                self.modified_by.push(name());
                return Applied::Noted;
            }
        };
        Applied::Decided
    }

    fn note_dedup<'a>(&mut self, rule: &Rule, fields: &'a KeyFields, ttl: Duration) -> Applied<'a> {
        if self.dedup.is_some() {
            return Applied::PassedOver(Why::AlreadyDeduplicated);
        }
        let key = fields.key_of(&self.action);
        if !key.complete {
            return Applied::PassedOver(Why::KeyIncomplete(fields));
        }
        self.dedup = Some(Dedup { rule: Arc::clone(&rule.name), key: key.text, ttl });
        Applied::Noted
    }

    fn explain(&self, why: &Why<'_>) -> String {
        match (why, &self.dedup) {
            (Why::KeyIncomplete(fields), _) => {
                format!("the action has no {} for the key", fields.missing_in(&self.action).join(", "))
            }
            (Why::AlreadyDeduplicated, Some(dedup)) => format!("`{}` already deduplicates the action", dedup.rule),
            (Why::AlreadyDeduplicated, None) => String::new(),
        }
    }

    fn drop_limits_of_refused(&mut self) {
        if matches!(self.decision, Decision::Deny { .. } | Decision::Suppress { .. }) {
            self.dedup = None;
            self.throttles.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
    use serde_json::{Value, json};

    use super::{Decision, TraceStep, Verdict};
    use crate::action::Action;
    use crate::rules::load::{LoadOptions, load_text};
    use crate::rules::set::{DefaultDecision, RuleSet};

    fn set(yaml: &str) -> RuleSet {
        set_with(yaml, LoadOptions::default())
    }

    fn set_with(yaml: &str, options: LoadOptions) -> RuleSet {
        load_text(vec![(PathBuf::from("test.yaml"), yaml.to_owned())], options).expect("valid rules")
    }

    fn action(payload: Value) -> Action {
        Action::new("demo", "acme", "log", "greet", payload)
    }

    fn decided_by(verdict: &Verdict) -> Option<&str> {
        match &verdict.decision {
            Decision::Allow { rule } | Decision::Deny { rule } => rule.as_deref(),
            Decision::Suppress { rule } | Decision::Schedule { rule, .. } => Some(rule),
        }
    }

    #[test]
    fn higher_priority_decides_first_and_equal_ones_in_file_order() {
        let rules = set("
rules:
  - { name: low, priority: -1, action: deny }
  - { name: first, priority: 5, action: allow }
  - { name: second, priority: 5, action: suppress }
");
        assert_eq!(decided_by(&rules.evaluate(action(json!({})))), Some("first"));
    }

    #[test]
    fn no_match_falls_to_the_configured_default() {
        let yaml = "rules: [{ name: never, condition: { field: tenant, eq: other }, action: suppress }]";
        assert_eq!(set(yaml).evaluate(action(json!({}))).decision, Decision::Allow { rule: None });
        let deny = set_with(yaml, LoadOptions { default: DefaultDecision::Deny });
        assert_eq!(deny.evaluate(action(json!({}))).decision, Decision::Deny { rule: None });
    }

    #[test]
    fn later_rules_see_what_earlier_ones_changed() {
        let rules = set("
rules:
  - { name: mark, priority: 3, action: { modify: { payload: { risk: high, secret: null } } } }
  - { name: send, priority: 2, condition: { field: payload.risk, eq: high }, action: { reroute: { provider: review } } }
  - { name: slow, priority: 1, condition: { field: provider, eq: review }, action: { throttle: { key: [provider, payload.risk], limit: 2, window: 1s } } }
");
        let verdict = rules.evaluate(action(json!({"secret": 1})));
        assert_eq!(verdict.action.payload, json!({"risk": "high"}));
        assert_eq!(verdict.modified_by.len(), 1);
        let reroute = verdict.reroute.expect("rerouted");
        assert_eq!((reroute.from.as_str(), reroute.to.as_str()), ("log", "review"));
        assert_eq!(verdict.action.provider, "review");
        assert_eq!(verdict.throttles[0].state_id(), r#"slow/["review","high"]"#);
    }

    #[test]
    fn rerouting_back_is_no_reroute() {
        let rules = set("
rules:
  - { name: away, action: { reroute: { provider: other } } }
  - { name: back, action: { reroute: { provider: log } } }
");
        assert_eq!(rules.evaluate(action(json!({}))).reroute, None);
    }

    #[test]
    fn limits_combine_and_the_first_deduplicate_counts() {
        let rules = set("
rules:
  - { name: t1, action: { throttle: { key: [tenant], limit: 1, window: 1s } } }
  - { name: no-key, action: { deduplicate: { key: [payload.absent], ttl: 1m } } }
  - { name: d1, action: { deduplicate: { key: [payload.id], ttl: 1m } } }
  - { name: d2, action: { deduplicate: { key: [tenant], ttl: 1m } } }
  - { name: t2, action: { throttle: { key: [payload.absent], limit: 1, window: 1s, algorithm: gcra } } }
  - { name: go, action: allow }
  - { name: t3, action: { throttle: { key: [tenant], limit: 1, window: 1s } } }
");
        let (verdict, trace) = rules.evaluate_traced(action(json!({"id": 7})));
        assert_eq!(verdict.dedup.as_ref().map(super::Dedup::state_id).as_deref(), Some("d1/[7]"));
        let throttles: Vec<&str> = verdict.throttles.iter().map(|throttle| &*throttle.rule).collect();
        assert_eq!(throttles, ["t1", "t2"]);
        let steps: Vec<&TraceStep> = trace.iter().map(|entry| &entry.step).collect();
        assert_eq!(steps[1], &TraceStep::PassedOver { reason: "the action has no payload.absent for the key".into() });
        assert_eq!(steps[3], &TraceStep::PassedOver { reason: "`d1` already deduplicates the action".into() });
        assert_eq!(steps[6], &TraceStep::NotReached);
    }

    #[test]
    fn a_refused_action_uses_up_no_limit() {
        for refusal in ["deny", "suppress"] {
            let rules = set(&format!(
                "
rules:
  - {{ name: once, action: {{ deduplicate: {{ key: [tenant], ttl: 1m }} }} }}
  - {{ name: slow, action: {{ throttle: {{ key: [tenant], limit: 1, window: 1s }} }} }}
  - {{ name: no, action: {refusal} }}
"
            ));
            let verdict = rules.evaluate(action(json!({})));
            assert!(verdict.dedup.is_none() && verdict.throttles.is_empty());
        }
    }

    #[test]
    fn disabled_rules_are_traced_but_not_applied() {
        let rules = set("rules: [{ name: off, enabled: false, action: deny }]");
        let (verdict, trace) = rules.evaluate_traced(action(json!({})));
        assert_eq!(verdict.decision, Decision::Allow { rule: None });
        assert_eq!(trace[0].step, TraceStep::Disabled);
    }

    #[test]
    fn trace_names_the_first_leaf_that_failed() {
        let rules = set("
rules:
  - name: r
    condition: { all: [{ field: tenant, eq: acme }, { field: payload.n, gt: 3 }, { field: payload.x, exists: true }] }
    action: deny
");
        let (_, trace) = rules.evaluate_traced(action(json!({"n": 1})));
        let json = serde_json::to_value(&trace[0]).expect("serialisable");
        assert_eq!(json["result"], "not_matched");
        assert_eq!(json["reason"], "`payload.n gt 3` fails: the field is 1");
    }

    /// JSON with texts like `text`; YAML refuses control characters that JSON may hold.
    fn any_json(text: &'static str) -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-c0-1]", inner, 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    const PRINTABLE: &str = "[ -~é]{0,8}";

    fn any_rules() -> impl Strategy<Value = Vec<Value>> {
        let field =
            prop_oneof![Just("payload"), Just("payload.a"), Just("payload.a.0.b"), Just("dedup_key"), Just("provider")];
        let scalar = prop_oneof![any::<i32>().prop_map(Value::from), "[a-z]{0,3}".prop_map(Value::from)];
        let test = prop_oneof![
            any_json(PRINTABLE).prop_map(|value| ("eq", value)),
            any_json(PRINTABLE).prop_map(|value| ("ne", value)),
            any_json(PRINTABLE).prop_map(|value| ("contains", value)),
            any_json(PRINTABLE).prop_map(|value| ("in", json!([value]))),
            scalar.clone().prop_map(|value| ("gte", value)),
            scalar.prop_map(|value| ("lt", value)),
            "[a-z]{0,3}".prop_map(|value| ("starts_with", json!(value))),
            any::<bool>().prop_map(|value| ("exists", json!(value))),
        ];
        let leaf = (field, test).prop_map(|(field, (operator, value))| json!({"field": field, operator: value}));
        let condition = leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 1..3).prop_map(|parts| json!({"all": parts})),
                proptest::collection::vec(inner.clone(), 1..3).prop_map(|parts| json!({"any": parts})),
                inner.prop_map(|part| json!({"not": part})),
            ]
        });
        let effect = prop_oneof![
            Just(json!("allow")),
            Just(json!("deny")),
            Just(json!({"reroute": {"provider": "other"}})),
            Just(json!({"deduplicate": {"key": ["payload.a"], "ttl": "1m"}})),
            Just(json!({"throttle": {"key": ["payload", "dedup_key"], "limit": 3, "window": "1s"}})),
            any_json(PRINTABLE).prop_map(|patch| json!({"modify": {"payload": patch}})),
        ];
        let rule = (condition, effect, any::<i32>()).prop_map(
            |(condition, action, priority)| json!({"condition": condition, "action": action, "priority": priority}),
        );
        proptest::collection::vec(rule, 0..6).prop_map(|mut rules| {
            for (number, rule) in rules.iter_mut().enumerate() {
                rule["name"] = json!(format!("r{number}"));
            }
            rules
        })
    }

    proptest! {
        #[test]
        fn evaluation_never_panics_and_the_trace_changes_nothing(rules in any_rules(), payload in any_json(".{0,8}")) {
            // JSON is YAML, so the generated rules go through the real loader.
            let text = serde_json::to_string(&json!({ "rules": rules })).expect("serialisable");
            let rules = set(&text);
            let (traced, trace) = rules.evaluate_traced(action(payload.clone()));
            prop_assert_eq!(trace.len(), rules.rules().len());
            let mut plain = rules.evaluate(action(payload));
            (plain.action.id, plain.action.created_at) = (traced.action.id.clone(), traced.action.created_at);
            prop_assert_eq!(plain, traced);
        }
    }
}
