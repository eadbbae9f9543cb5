//! Actions: their JSON, what the rules say about them, and a whole dispatch over the memory driver.

use std::cell::RefCell;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;

use acteon_dispatch::providers::Registry;
use acteon_dispatch::providers::config::ProviderConfig;
use acteon_dispatch::rules::{LoadOptions, RuleSet, Rules, Verdict, load_text};
use acteon_dispatch::{Action, DispatchMetrics, DispatchOptions, Dispatcher, Outcome as ActionOutcome};
use acteon_state_core::State;

use crate::meter::{TURNS, must, repeat, repeat_async, runtime};
use crate::store::store;
use crate::{Outcome, Path};

pub(crate) const PATHS: &[Path] = &[
    Path { name: "action-parse", run: parse },
    Path { name: "rules-evaluate", run: evaluate },
    Path { name: "dispatch-deduplicated-action", run: dispatch },
];

/// Rules of each kind, most of which look at an email and let it pass; the last one remembers it.
const RULES: &str = include_str!("dispatch/rules.yaml");

fn parse() -> Outcome {
    let json = json(0);
    repeat(|_| {
        let action = must(Action::parse(black_box(json.as_bytes())));
        assert_eq!(black_box(&action).tenant, "acme");
    });
    Ok(())
}

fn evaluate() -> Outcome {
    let rules = rules()?;
    let mut actions = actions()?;
    // Verdicts are kept, so that freeing them is not counted: it takes as long as to evaluate.
    let mut verdicts = Vec::with_capacity(actions.len());
    repeat(|_| {
        let action = actions.pop().expect("there is an action for each turn");
        verdicts.push(rules.evaluate(action));
    });
    let is_remembered = |verdict: &Verdict| verdict.dedup.is_some();
    if !verdicts.iter().all(is_remembered) {
        return Err("the rules are to deduplicate each action".into());
    }
    Ok(())
}

/// Deduplication, the action's lock, the provider `log`, and the outcome that is kept.
fn dispatch() -> Outcome {
    let provider: ProviderConfig = serde_json::from_str(r#"{"name": "log", "kind": "log"}"#)?;
    let dispatcher = Dispatcher::new(
        State::new(store()?),
        Arc::new(Rules::fixed(rules()?)),
        Arc::new(Registry::from_config(&[provider])?),
        DispatchOptions::default(),
        DispatchMetrics::register(&mut prometheus_client::registry::Registry::default()),
    );
    let actions = RefCell::new(actions()?);
    repeat_async(&runtime()?, async |_| {
        let action = actions.borrow_mut().pop().expect("there is an action for each turn");
        let outcome = must(dispatcher.dispatch(action).await);
        assert!(matches!(outcome, ActionOutcome::Executed { .. }), "{outcome:?}");
    });
    Ok(())
}

fn rules() -> Outcome<RuleSet> {
    Ok(load_text(vec![(PathBuf::from("rules.yaml"), RULES.to_owned())], LoadOptions::default())?)
}

fn actions() -> Outcome<Vec<Action>> {
    Ok((0..TURNS).map(|turn| Action::parse(json(turn).as_bytes())).collect::<Result<_, _>>()?)
}

/// An email as an application sends it.
fn json(turn: u32) -> String {
    format!(
        r#"{{"id":"order-{turn:06}","namespace":"shop","tenant":"acme","provider":"log","action_type":"send_email",
            "created_at":"2026-11-20T10:00:00Z","dedup_key":"confirmation-{turn:06}",
            "payload":{{"to":"ada@example.com","subject":"Your order","template":"confirmation",
                "order":{{"number":{turn},"total":"49.90","items":["book","pen","map"]}}}},
            "metadata":{{"source":"checkout","region":"eu-central-1"}}}}"#
    )
}
