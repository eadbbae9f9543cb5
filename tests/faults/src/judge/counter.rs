//! What is wrong with a counter.

use acteon_state_conformance::history::Call;
use acteon_state_conformance::linearizability::{Budget, Judgement, check_within};
use acteon_state_conformance::objects::{BoundedCounter, Count, CounterOperation, CounterReply};

use crate::anomaly::Anomaly;
use crate::judge::{Case, Judge, known_until};

type CounterCall = Call<CounterOperation, CounterReply>;

/// A search for a name need not succeed.
const BUDGET: Budget = Budget { configurations: 100_000 };

impl Judge for BoundedCounter {
    fn is_read(&self, call: &CounterCall) -> bool {
        call.operation == CounterOperation::Get || matches!(call.reply, Some(CounterReply::Refused(_)))
    }

    fn names(&self, call: &CounterCall, other: &CounterCall) -> bool {
        id(call).is_some() && id(call) == id(other)
    }

    /// Every step shows in all replies after it.
    fn mentions(&self, _: &CounterCall, other: &CounterCall) -> bool {
        id(other).is_some()
    }

    /// Anything that its steps add up to, in any selection.
    fn after(&self, calls: &[CounterCall]) -> Option<Self> {
        let (mut least, mut most) = (0, 0);
        for call in calls {
            match call.operation {
                CounterOperation::Add { step: step @ 1.., .. } => most += step,
                CounterOperation::Add { step, .. } => least += step,
                CounterOperation::Get => {}
            }
        }
        // After a window it begins anew, and when that was cannot be said.
        let is_known = self.window_ns.is_none() && self.repeated.is_empty() && most - least < STARTS_MAX;
        is_known.then(|| Self { starts: (least..=most).collect(), ..self.clone() })
    }

    fn anomalies(&self, case: &Case<'_, Self>) -> Vec<Anomaly> {
        vec![name(self, case)]
    }

    fn label(&self, call: &CounterCall) -> String {
        let asked = match call.operation {
            CounterOperation::Get => "get".to_owned(),
            CounterOperation::Add { step, id } => format!("#{id} add {step}"),
        };
        let told = match call.reply {
            None => "?".to_owned(),
            Some(CounterReply::Found(value)) => value.map_or("nothing".to_owned(), |value| value.to_string()),
            Some(CounterReply::Applied(after)) => after.to_string(),
            Some(CounterReply::Refused(value)) => format!("refused at {value}"),
        };
        format!("{asked} → {told}")
    }

    fn belief(&self, state: &Vec<Count>) -> String {
        let one = |count: &Count| count.value.map_or("nothing".to_owned(), |value| value.to_string());
        format!("is {}", state.iter().map(one).collect::<Vec<_>>().join(" or "))
    }
}

fn name(counter: &BoundedCounter, case: &Case<'_, BoundedCounter>) -> Anomaly {
    if let Some(CounterReply::Applied(after)) = case.last.reply {
        let is_rising = matches!(case.last.operation, CounterOperation::Add { step: 1.., .. });
        let bound = if is_rising { counter.max.map(|max| after > max) } else { counter.min.map(|min| after < min) };
        if bound == Some(true) {
            return Anomaly::BoundCrossed;
        }
    }
    if are_explained_without_reads(counter, case.all) {
        return Anomaly::StaleRead;
    }
    if would_be_explained_by_repetitions(counter, case) {
        return Anomaly::DoubleIncrement;
    }
    if would_be_explained_by_a_loss(counter, case) {
        return Anomaly::LostIncrement;
    }
    Anomaly::NotLinearizable
}

/// Whether only reads are wrong.
fn are_explained_without_reads(counter: &BoundedCounter, all: &[CounterCall]) -> bool {
    let steps: Vec<CounterCall> = all.iter().filter(|call| id(call).is_some()).cloned().collect();
    check_within(counter, &steps, BUDGET) == Judgement::Linearizable
}

/// Whether what was seen until the contradiction is explained if any of the last steps was made once more, at any time after it began.
fn would_be_explained_by_repetitions(counter: &BoundedCounter, case: &Case<'_, BoundedCounter>) -> bool {
    let mut calls = seen_until(case);
    let fresh_id = calls.iter().filter_map(id).max().unwrap_or(0) + 1;
    for (at, fresh_id) in last_steps(&calls).into_iter().zip(fresh_id..) {
        if let CounterOperation::Add { step, .. } = calls[at].operation {
            calls.push(Call::maybe(calls[at].began, CounterOperation::Add { step, id: fresh_id }));
        }
    }
    calls.sort_by_key(|call| call.began);
    check_within(counter, &calls, BUDGET) == Judgement::Linearizable
}

/// Whether it is explained if one of the last steps was not made, whatever was answered.
fn would_be_explained_by_a_loss(counter: &BoundedCounter, case: &Case<'_, BoundedCounter>) -> bool {
    let calls = seen_until(case);
    last_steps(&calls).into_iter().any(|at| {
        let mut without = calls.clone();
        without.remove(at);
        check_within(counter, &without, BUDGET) == Judgement::Linearizable
    })
}

fn seen_until(case: &Case<'_, BoundedCounter>) -> Vec<CounterCall> {
    known_until(case.all, case.last.ended)
}

/// The places of the last steps, of which one or several may have gone wrong.
fn last_steps(calls: &[CounterCall]) -> Vec<usize> {
    (0..calls.len()).rev().filter(|at| id(&calls[*at]).is_some()).take(FAULTS_TRIED_MAX).collect()
}

/// The most values that a counter is tried to begin with: every one of them is part of every state of a search.
const STARTS_MAX: i64 = 200;

/// How many steps are tried to be the one that went wrong: those that were under way when it showed, and a few more.
const FAULTS_TRIED_MAX: usize = 64;

fn id(call: &CounterCall) -> Option<u32> {
    match call.operation {
        CounterOperation::Add { id, .. } => Some(id),
        CounterOperation::Get => None,
    }
}
