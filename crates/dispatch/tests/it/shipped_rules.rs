//! The rule files in `rules/` of the repository, loaded as the server loads them.

use std::path::Path;
use std::time::Duration;

use acteon_dispatch::Action;
use acteon_dispatch::rules::{Decision, LoadOptions, RuleSet, Verdict, load_directory};
use serde_json::{Value, json};

fn rules() -> RuleSet {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rules");
    load_directory(&directory, LoadOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn verdict(action: Value) -> Verdict {
    rules().evaluate(Action::from_value(action).expect("valid action"))
}

fn action(tenant: &str, action_type: &str, payload: Value) -> Value {
    json!({"namespace": "demo", "tenant": tenant, "provider": "log", "action_type": action_type, "payload": payload})
}

#[test]
fn the_first_action_of_the_readme_is_executed_once_per_dedup_key() {
    let readme = r#"{"namespace":"demo","tenant":"acme","provider":"log","action_type":"send_email","payload":{"to":"ada@example.com","subject":"Hello"},"dedup_key":"welcome-ada"}"#;
    let verdict = rules().evaluate(Action::parse(readme.as_bytes()).expect("valid action"));
    assert_eq!(verdict.decision, Decision::Allow { rule: None });
    assert_eq!((verdict.reroute, verdict.throttles), (None, vec![]));
    let dedup = verdict.dedup.expect("deduplicated");
    assert_eq!(dedup.state_id(), r#"emails-once/["welcome-ada"]"#);
    assert_eq!(dedup.ttl, Duration::from_secs(300));
}

#[test]
fn emails_without_a_dedup_key_are_all_sent() {
    let verdict = verdict(action("acme", "send_email", json!({"to": "ada@example.com"})));
    assert_eq!(verdict.decision, Decision::Allow { rule: None });
    assert_eq!(verdict.dedup, None);
}

#[test]
fn pages_are_limited_per_tenant_and_user() {
    let key = |tenant, user| verdict(action(tenant, "page", json!({"user": user}))).throttles[0].state_id();
    assert_eq!(key("acme", "ada"), r#"pages-per-user/["acme","ada"]"#);
    assert_ne!(key("acme", "ada"), key("acme", "bob"));
    assert_ne!(key("acme", "ada"), key("other", "ada"));
}

#[test]
fn notifications_of_a_tenant_are_limited_to_fifty_per_second() {
    let throttles = verdict(action("acme", "notify", json!({}))).throttles;
    assert_eq!((throttles[0].limit, throttles[0].window), (50, Duration::from_secs(1)));
}

#[test]
fn test_tenants_reach_nobody() {
    let verdict = verdict(action("test-42", "page", json!({"user": "ada"})));
    assert!(matches!(verdict.decision, Decision::Suppress { rule } if &*rule == "test-tenants-reach-nobody"));
    assert!(verdict.throttles.is_empty());
}

#[test]
fn risky_actions_need_an_approval() {
    let mut refund = action("acme", "refund", json!({"amount": 120}));
    assert!(matches!(verdict(refund.clone()).decision, Decision::Deny { .. }));
    refund["metadata"] = json!({"approved_by": "grace"});
    assert_eq!(verdict(refund).decision, Decision::Allow { rule: None });
    assert_eq!(verdict(action("acme", "refund", json!({"amount": 5}))).decision, Decision::Allow { rule: None });
    let unknown = verdict(action("acme", "refund", json!({"amount": "5"})));
    assert!(matches!(unknown.decision, Decision::Deny { .. }), "an amount that is no number is no small amount");
}

#[test]
fn text_messages_go_to_the_log_and_are_marked() {
    let mut sms = action("acme", "send_sms", json!({"to": "+1555"}));
    sms["provider"] = json!("sms");
    let verdict = verdict(sms);
    assert_eq!(verdict.action.provider, "log");
    let reroute = verdict.reroute.expect("rerouted");
    assert_eq!((reroute.from.as_str(), reroute.to.as_str()), ("sms", "log"));
    assert_eq!(verdict.action.payload, json!({"to": "+1555", "channel": "log"}));
}

#[test]
fn newsletters_wait_a_minute() {
    let verdict = verdict(action("acme", "send_newsletter", json!({})));
    assert!(matches!(verdict.decision, Decision::Schedule { delay, .. } if delay == Duration::from_secs(60)));
}
