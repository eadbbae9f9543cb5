//! Concurrent histories over both handles, checked for linearizability.

use acteon_state_core::{
    Condition, DeleteOutcome, Entry, Error, Get, Increment, IncrementOutcome, LockOutcome, LockRequest, OwnerId, Put,
    PutOutcome, ReleaseOutcome, Result, StateKey, StateStore, Version,
};

use crate::case::{Case, Need, case};
use crate::history::Recorder;
use crate::lab::{LONG, Lab};
use crate::linearizability::check;
use crate::objects::{
    BoundedCounter, CounterReply, Lock, LockOperation, LockReply, Register, RegisterOperation, RegisterReply,
};
use crate::verdict::{Failure, Verdict};

/// Tasks of a history: enough to overlap, few enough to check.
const TASKS: usize = 6;
/// Calls of each.
const CALLS: u32 = 12;
/// Histories of each object.
const ROUNDS: usize = 8;

/// The value and the version of a write are the same number, so that a read tells which write it saw.
fn version(number: u32) -> Version {
    Version::from_u128(u128::from(number) + 1)
}

fn number(entry: Option<&Entry>) -> Option<u32> {
    entry.map(|entry| std::str::from_utf8(&entry.value).ok().and_then(|text| text.parse().ok()).unwrap_or(u32::MAX))
}

async fn ask_register(store: &dyn StateStore, key: &StateKey, operation: RegisterOperation) -> Result<RegisterReply> {
    let put = |value: u32, condition| {
        let put = Put { version: version(value), ..Put::new(value.to_string()) }.when(condition);
        async move {
            Ok(match store.put(key, &put).await? {
                PutOutcome::Applied(_) => RegisterReply::Written,
                PutOutcome::NotMet(current) => RegisterReply::Refused(number(current.as_ref())),
            })
        }
    };
    match operation {
        RegisterOperation::Get => Ok(RegisterReply::Found(number(store.get(key, Get::default()).await?.as_ref()))),
        RegisterOperation::Take => Ok(RegisterReply::Found(number(store.take(key).await?.as_ref()))),
        RegisterOperation::Set(value) => put(value, Condition::Always).await,
        RegisterOperation::SetAbsent(value) => put(value, Condition::Absent).await,
        RegisterOperation::Swap(old, new) => put(new, Condition::Version(version(old))).await,
        RegisterOperation::Delete => {
            Ok(RegisterReply::Deleted(store.delete(key, Condition::Always).await? == DeleteOutcome::Deleted))
        }
    }
}

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
                        3 => RegisterOperation::Set(fresh),
                        4 | 5 => RegisterOperation::SetAbsent(fresh),
                        6 | 7 if cas => RegisterOperation::Swap(recent, fresh),
                        8 => RegisterOperation::Delete,
                        _ => RegisterOperation::Take,
                    };
                    recorder.record(operation, ask_register(&*store, &key, operation)).await?;
                }
                Ok(())
            }
        })
        .await?;
        check(&Register, &recorder.finish()).map_err(|failure| Failure::new(format!("{key}: {failure}")))?;
    }
    Ok(())
}

/// Steps up and down of a bounded counter.
async fn c3_history_of_a_bounded_counter_is_linearizable(lab: Lab) -> Verdict {
    const MAX: i64 = 6;
    for round in 0..ROUNDS {
        let (key, recorder) = (lab.key(&format!("counter-{round}")), Recorder::default());
        let (name, record) = (key.clone(), recorder.clone());
        lab.together(TASKS, move |_, store| {
            let (key, recorder) = (name.clone(), record.clone());
            async move {
                for _ in 0..CALLS {
                    let step = [-1, 1, 1, 2][rand::random_range(0..4)];
                    let call = async {
                        Ok::<_, Error>(match store.increment(&key, Increment::by(step).at_most(MAX)).await? {
                            IncrementOutcome::Refused(counter) => CounterReply::Refused(counter.value),
                            outcome => CounterReply::Applied(outcome.counter().value),
                        })
                    };
                    recorder.record(step, call).await?;
                }
                Ok(())
            }
        })
        .await?;
        let specification = BoundedCounter { max: MAX };
        check(&specification, &recorder.finish()).map_err(|failure| Failure::new(format!("{key}: {failure}")))?;
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
                    let owner = OwnerId::draw();
                    let acquire = LockOperation::Acquire(number);
                    recorder.record(acquire, ask_lock(&*store, &key, owner, acquire)).await?;
                    tokio::task::yield_now().await;
                    let release = LockOperation::Release(number);
                    recorder.record(release, ask_lock(&*store, &key, owner, release)).await?;
                }
                Ok(())
            }
        })
        .await?;
        check(&Lock, &recorder.finish()).map_err(|failure| Failure::new(format!("{key}: {failure}")))?;
    }
    Ok(())
}

async fn ask_lock(
    store: &dyn StateStore,
    key: &StateKey,
    owner: OwnerId,
    operation: LockOperation,
) -> Result<LockReply> {
    match operation {
        LockOperation::Acquire(_) => {
            let request = LockRequest { owner, ..LockRequest::new(key.clone(), LONG) };
            Ok(match store.lock_acquire(&request).await? {
                LockOutcome::Granted(grant) => LockReply::Granted(grant.token.get()),
                LockOutcome::Busy(_) => LockReply::Busy,
            })
        }
        LockOperation::Release(_) => Ok(match store.lock_release(key, owner).await? {
            ReleaseOutcome::Released => LockReply::Released,
            ReleaseOutcome::AlreadyLost => LockReply::Lost,
        }),
    }
}

pub(crate) const CASES: &[Case] = &[
    case!("W4", w4_history_of_a_register_is_linearizable),
    case!("C3", c3_history_of_a_bounded_counter_is_linearizable, [Need::Has("counters")]),
    case!("L3", l3_history_of_a_lock_is_linearizable, [Need::Has("locks")]),
];
