//! Concurrent histories over both handles, checked for linearizability.

use std::time::Duration;

use crate::ask::{ask_counter, ask_lock, ask_register};
use crate::case::{Case, Need, case};
use crate::history::Recorder;
use crate::lab::Lab;
use crate::linearizability::check;
use crate::objects::{BoundedCounter, CounterOperation, If, Lock, LockOperation, Register, RegisterOperation};
use crate::verdict::{Failure, Verdict};

/// Tasks of a history: enough to overlap, few enough to check.
const TASKS: usize = 6;
/// Calls of each.
const CALLS: u32 = 12;
/// Histories of each object.
const ROUNDS: usize = 8;

/// Reads, writes, compare-and-swaps, deletes and takes of one key by several tasks on both handles.
async fn w4_history_of_a_register_is_linearizable(lab: Lab) -> Verdict {
    let cas = lab.capabilities().cas;
    for round in 0..ROUNDS {
        let (key, recorder) = (lab.key(&format!("register-{round}")), Recorder::default());
        let (name, record) = (key.clone(), recorder.clone());
        lab.together(TASKS, move |task, store| {
            let (key, recorder) = (name.clone(), record.clone());
            async move {
                for call in 0..CALLS {
                    let fresh = task as u32 * CALLS + call;
                    // Most swaps should have a chance: they name a value that was written not long ago.
                    let recent = rand::random_range(0..TASKS as u32) * CALLS + call.saturating_sub(1);
                    let operation = match rand::random_range(0..10) {
                        0..=2 => RegisterOperation::Get,
                        3 => RegisterOperation::set(fresh),
                        4 | 5 => RegisterOperation::set_absent(fresh),
                        6 | 7 if cas => RegisterOperation::swap(recent, fresh),
                        8 => RegisterOperation::Delete(If::Always),
                        _ => RegisterOperation::Take,
                    };
                    recorder.record(operation, ask_register(&*store, &key, operation)).await?;
                }
                Ok(())
            }
        })
        .await?;
        check(&Register::default(), &recorder.finish()).map_err(|failure| Failure::new(format!("{key}: {failure}")))?;
    }
    Ok(())
}

/// Steps up and down of a bounded counter.
async fn c3_history_of_a_bounded_counter_is_linearizable(lab: Lab) -> Verdict {
    let specification = || BoundedCounter::at_most(6);
    for round in 0..ROUNDS {
        let (key, recorder) = (lab.key(&format!("counter-{round}")), Recorder::default());
        let (name, record) = (key.clone(), recorder.clone());
        lab.together(TASKS, move |task, store| {
            let (key, recorder) = (name.clone(), record.clone());
            async move {
                for call in 0..CALLS {
                    let step = [-1, 1, 1, 2][rand::random_range(0..4)];
                    let operation = CounterOperation::Add { step, id: task as u32 * CALLS + call };
                    recorder.record(operation, ask_counter(&*store, &key, &specification(), operation)).await?;
                }
                Ok(())
            }
        })
        .await?;
        check(&specification(), &recorder.finish()).map_err(|failure| Failure::new(format!("{key}: {failure}")))?;
    }
    Ok(())
}

/// Grants and releases of one lock: mutual exclusion, owners and rising tokens in one check.
async fn l3_history_of_a_lock_is_linearizable(lab: Lab) -> Verdict {
    for round in 0..ROUNDS {
        let (key, recorder) = (lab.key(&format!("lock-{round}")), Recorder::default());
        let (name, record) = (key.clone(), recorder.clone());
        lab.together(TASKS, move |task, store| {
            let (key, recorder) = (name.clone(), record.clone());
            async move {
                for call in 0..CALLS {
                    let number = task as u32 * CALLS + call;
                    let acquire = LockOperation::acquire(number);
                    recorder.record(acquire, ask_lock(&*store, &key, acquire, Duration::ZERO)).await?;
                    tokio::task::yield_now().await;
                    let release = LockOperation::Release(number);
                    recorder.record(release, ask_lock(&*store, &key, release, Duration::ZERO)).await?;
                }
                Ok(())
            }
        })
        .await?;
        check(&Lock::default(), &recorder.finish()).map_err(|failure| Failure::new(format!("{key}: {failure}")))?;
    }
    Ok(())
}

pub(crate) const CASES: &[Case] = &[
    case!("W4", w4_history_of_a_register_is_linearizable),
    case!("C3", c3_history_of_a_bounded_counter_is_linearizable, [Need::Has("counters")]),
    case!("L3", l3_history_of_a_lock_is_linearizable, [Need::Has("locks")]),
];
