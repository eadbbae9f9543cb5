//! Running a checker: a property holds everywhere, or a counterexample is wanted.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// Tries everything. These properties hold in all states, and these states are reached: a proof about a model in which nothing
/// happens would be none.
///
/// # Panics
/// With the counterexample, or the name of what was never reached.
pub fn holds<M>(model: M, properties: &[&'static str], reached: &[&'static str])
where
    M: Model + Debug + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let text = format!("{model:?}");
    known(&model, properties, Expectation::Always);
    known(&model, reached, Expectation::Sometimes);
    let checker = model.checker().spawn_bfs().join();
    println!("{} states, {} of them different, for {text}", checker.state_count(), checker.unique_state_count());
    for property in properties {
        if let Some(path) = checker.discovery(property) {
            panic!("not always {property:?}, with {text}:\n{}", steps(&path.into_actions()));
        }
    }
    for state in reached {
        assert!(checker.discovery(state).is_some(), "never {state:?}, with {text}");
    }
}

/// Looks for the shortest way to a state in which this property does not hold. Returns its steps.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn counterexample<M>(model: M, property: &'static str) -> Vec<M::Action>
where
    M: Model + Debug + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let text = format!("{model:?}");
    known(&model, &[property], Expectation::Always);
    let checker = model.checker().finish_when(HasDiscoveries::AnyOf(BTreeSet::from([property]))).spawn_bfs().join();
    let path = checker.discovery(property);
    let actions = path.unwrap_or_else(|| panic!("always {property:?}, with {text}: a counterexample was expected"));
    let actions = actions.into_actions();
    println!("not {property:?}, with {text}:\n{}", steps(&actions));
    actions
}

/// Names of properties are texts: a mistyped one must not pass as proved.
fn known<M: Model>(model: &M, names: &[&'static str], expectation: Expectation) {
    for name in names {
        assert_eq!(model.property(name).expectation, expectation, "{name}");
    }
}

fn steps<A: Debug>(actions: &[A]) -> String {
    actions.iter().enumerate().map(|(at, action)| format!("  {:2}. {action:?}\n", at + 1)).collect()
}
