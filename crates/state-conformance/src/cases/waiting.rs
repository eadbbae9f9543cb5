//! L4: waiting for a lock ends with its release, needs no polling by the caller, and leaves nothing behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use acteon_state_core::{Get, LockMode, LockOutcome, LockRequest, Put, StateKey, StateStore};
use tokio::task::JoinHandle;

use crate::case::{Case, Need, case};
use crate::cases::locks::{exclusive, take};
use crate::lab::{CLOCK_GRAIN, LONG, Lab, PAST_SHORT, PATIENCE, SHORT, in_time};
use crate::verdict::{Failure, Verdict, busy, equal, granted, holds, present};

/// How long a task that was just started is given to reach its wait. When it takes longer, the case still holds: the lock
/// is free then when it asks.
const SETTLE: Duration = Duration::from_millis(50);

fn waiting(key: &StateKey, wait: Duration) -> LockRequest {
    LockRequest { wait, ..exclusive(key, LONG) }
}

fn spawn_wait(store: &Arc<dyn StateStore>, request: LockRequest) -> JoinHandle<acteon_state_core::Result<LockOutcome>> {
    let store = store.clone();
    tokio::spawn(async move { store.lock_acquire(&request).await })
}

async fn outcome_of(
    waiter: JoinHandle<acteon_state_core::Result<LockOutcome>>,
    what: &'static str,
) -> Verdict<LockOutcome> {
    let joined = in_time(what, waiter).await?;
    Ok(joined.map_err(|error| Failure::new(format!("the waiting task panicked: {error}")))??)
}

/// A release wakes a waiter long before the lease would have ended, on its own handle and on the other one.
async fn l4_release_wakes_a_waiter(lab: Lab) -> Verdict {
    for (round, waits_on) in [&lab.a, &lab.b].into_iter().enumerate() {
        let key = lab.key(&format!("wake-{round}"));
        let holder = exclusive(&key, LONG);
        let held = take(&*lab.a, &holder).await?;
        let waiter = spawn_wait(waits_on, waiting(&key, LONG));
        tokio::time::sleep(SETTLE).await;
        lab.a.lock_release(&key, holder.owner).await?;
        let grant =
            granted(&key, "waiter after the release", outcome_of(waiter, "a waiter is woken by a release").await?)?;
        holds(&key, "the waiter's token is higher", grant.token > held.token, (held.token, grant.token))?;
    }
    Ok(())
}

/// A force release wakes a waiter as well.
async fn l4_force_release_wakes_a_waiter(lab: Lab) -> Verdict {
    let key = lab.key("forced");
    take(&*lab.a, &exclusive(&key, LONG)).await?;
    let waiter = spawn_wait(&lab.b, waiting(&key, LONG));
    tokio::time::sleep(SETTLE).await;
    lab.a.lock_force_release(&key, "conformance").await?;
    granted(&key, "waiter", outcome_of(waiter, "a waiter is woken by a force release").await?)?;
    Ok(())
}

/// The end of a lease lets a waiter in, though nobody releases.
async fn l4_expiry_lets_a_waiter_in(lab: Lab) -> Verdict {
    let key = lab.key("expiry");
    take(&*lab.a, &exclusive(&key, SHORT)).await?;
    let waiter = spawn_wait(&lab.b, waiting(&key, LONG));
    lab.pass(PAST_SHORT).await;
    granted(&key, "waiter", outcome_of(waiter, "a waiter gets the lock after the lease ended").await?)?;
    Ok(())
}

/// The grant after a wait has its full lease: the time spent waiting does not count.
async fn l4_lease_after_a_wait_is_whole(lab: Lab) -> Verdict {
    let key = lab.key("whole");
    let holder = exclusive(&key, LONG);
    take(&*lab.a, &holder).await?;
    let waiter = spawn_wait(&lab.b, waiting(&key, LONG));
    tokio::time::sleep(SETTLE).await;
    let before = Instant::now();
    lab.a.lock_release(&key, holder.owner).await?;
    let grant = granted(&key, "waiter", outcome_of(waiter, "a waiter is woken").await?)?;
    let state = present(&key, "state", lab.a.lock_inspect(&key).await?)?;
    let left = state.holders.first().map_or(Duration::ZERO, |holder| holder.expires_in);
    holds(&key, "remaining lease", left + PATIENCE > LONG && left <= LONG, left)?;
    // Counted from the request that was granted, which was sent after the holder let go, not from the call.
    let deadline = grant.deadline.remaining();
    let whole = deadline + before.elapsed() + CLOCK_GRAIN >= LONG;
    holds(&key, "the deadline counts the lease from after the release, not from the call", whole, deadline)?;
    holds(&key, "the deadline is not after the lease's end", deadline <= left, (deadline, left))
}

/// When the wait is over, the answer is `Busy`, not an error, and not before its time.
async fn l4_wait_ends_with_busy(lab: Lab) -> Verdict {
    let key = lab.key("over");
    let held = take(&*lab.a, &exclusive(&key, LONG)).await?;
    let before = Instant::now();
    let waiter = spawn_wait(&lab.b, waiting(&key, 3 * SHORT));
    let refusal = busy(&key, "waiter", outcome_of(waiter, "a wait ends").await?)?;
    let waited = before.elapsed();
    holds(&key, "the wait is not cut short", waited >= 3 * SHORT - SHORT, waited)?;
    equal(&key, "token of the holder", &refusal.token, &Some(held.token))
}

/// Dropping the future of a waiter leaves nothing held, and does not swallow the wake-up of the next one.
async fn l4_dropped_waiter_leaves_nothing_held(lab: Lab) -> Verdict {
    for (round, store) in [&lab.a, &lab.b].into_iter().enumerate() {
        let key = lab.key(&format!("dropped-{round}"));
        let holder = exclusive(&key, LONG);
        take(&*lab.a, &holder).await?;
        let dropped = spawn_wait(store, waiting(&key, LONG));
        tokio::time::sleep(SETTLE).await;
        let next = spawn_wait(store, waiting(&key, LONG));
        tokio::time::sleep(SETTLE).await;
        dropped.abort();
        let aborted = dropped.await;
        holds(&key, "the waiter was dropped while it waited", aborted.is_err(), aborted)?;
        lab.a.lock_release(&key, holder.owner).await?;
        granted(&key, "next waiter", outcome_of(next, "a waiter behind a dropped one is woken").await?)?;
        let state = present(&key, "state", lab.a.lock_inspect(&key).await?)?;
        equal(&key, "holders", &state.holders.len(), &1)?;
    }
    Ok(())
}

/// Waiters dropped at any moment, also while they are being granted, leave nothing held.
async fn l4_waiters_dropped_at_any_moment_leave_nothing_held(lab: Lab) -> Verdict {
    for round in 0..20 {
        let key = lab.key(&format!("moment-{round}"));
        let holder = exclusive(&key, LONG);
        take(&*lab.a, &holder).await?;
        let dropped = spawn_wait(&lab.b, waiting(&key, LONG));
        tokio::time::sleep(Duration::from_millis(5)).await;
        let (released, ()) = tokio::join!(lab.a.lock_release(&key, holder.owner), async {
            tokio::time::sleep(Duration::from_micros(100 * round)).await;
            dropped.abort();
        });
        released?;
        if let Ok(outcome) = dropped.await {
            // It was faster than its end: then it is a holder like any other.
            granted(&key, "the waiter that was not dropped in time", outcome?)?;
            continue;
        }
        let last = spawn_wait(&lab.a, waiting(&key, LONG));
        granted(
            &key,
            "request after a dropped waiter",
            outcome_of(last, "a dropped waiter leaves nothing held").await?,
        )?;
    }
    Ok(())
}

/// Many waiters all get their turn, one at a time.
async fn l4_all_waiters_get_their_turn(lab: Lab) -> Verdict {
    let key = lab.key("turns");
    let inside = Arc::new(AtomicUsize::new(0));
    let name = key.clone();
    let together = lab.together(32, move |_, store| {
        let (key, inside) = (name.clone(), inside.clone());
        async move {
            for _ in 0..3 {
                let request = waiting(&key, LONG);
                granted(&key, "waiter", store.lock_acquire(&request).await?)?;
                let others = inside.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
                equal(&key, "others inside of the section", &others, &0)?;
                store.lock_release(&key, request.owner).await?;
            }
            Ok(())
        }
    });
    // Each hand-over may take a moment on a busy machine; a lost wake-up would take the whole lease.
    tokio::time::timeout(LONG / 5, together).await.map_err(|_| Failure::new("waiters were forgotten"))??;
    Ok(())
}

/// The section that a lock protects loses no update, with a read and a plain write in two calls.
async fn l4_read_and_write_under_the_lock_lose_nothing(lab: Lab) -> Verdict {
    const TASKS: usize = 16;
    const EACH: usize = 5;
    let (lock, sum) = (lab.key("lock"), lab.key("sum"));
    lab.write(&sum, "0").await?;
    let names = (lock.clone(), sum.clone());
    lab.together(TASKS, move |_, store| {
        let (lock, sum) = names.clone();
        async move {
            for _ in 0..EACH {
                let request = waiting(&lock, LONG);
                granted(&lock, "waiter", store.lock_acquire(&request).await?)?;
                let entry = present(&sum, "sum", store.get(&sum, Get::default()).await?)?;
                let value: usize =
                    std::str::from_utf8(&entry.value).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
                store.put(&sum, &Put::new((value + 1).to_string())).await?;
                store.lock_release(&lock, request.owner).await?;
            }
            Ok(())
        }
    })
    .await?;
    let entry = present(&sum, "sum", lab.read(&sum).await?)?;
    equal(&sum, "sum of all changes under the lock", &entry.value, &(TASKS * EACH).to_string().into())
}

/// Shared waiters all get in once the exclusive holder is gone.
async fn l4_shared_waiters_get_in_together(lab: Lab) -> Verdict {
    let key = lab.key("shared");
    let holder = exclusive(&key, LONG);
    take(&*lab.a, &holder).await?;
    let waiters: Vec<_> = (0..8)
        .map(|at| spawn_wait(lab.handle(at), LockRequest { mode: LockMode::Shared, ..waiting(&key, LONG) }))
        .collect();
    tokio::time::sleep(SETTLE).await;
    lab.a.lock_release(&key, holder.owner).await?;
    for waiter in waiters {
        granted(&key, "shared waiter", outcome_of(waiter, "all shared waiters are woken").await?)?;
    }
    Ok(())
}

/// A waiter that gives up lets those behind it pass: they need not wait for its time.
async fn l4_waiter_that_gives_up_does_not_block_others(lab: Lab) -> Verdict {
    let key = lab.key("gives-up");
    let reader = LockRequest { mode: LockMode::Shared, ..exclusive(&key, LONG) };
    take(&*lab.a, &reader).await?;
    let writer = spawn_wait(&lab.a, waiting(&key, SHORT));
    busy(&key, "exclusive waiter", outcome_of(writer, "an exclusive waiter gives up").await?)?;
    let waiter = spawn_wait(&lab.b, LockRequest { mode: LockMode::Shared, ..waiting(&key, LONG) });
    granted(&key, "shared request", outcome_of(waiter, "a shared request gets in beside a shared holder").await?)?;
    Ok(())
}

pub(crate) const CASES: &[Case] = &[
    case!("L4", l4_release_wakes_a_waiter, [Need::Has("locks")]),
    case!("L4", l4_force_release_wakes_a_waiter, [Need::Has("locks")]),
    case!("L4", l4_expiry_lets_a_waiter_in, [Need::Has("locks")]),
    case!("L4", l4_lease_after_a_wait_is_whole, [Need::Has("locks")]),
    case!("L4", l4_wait_ends_with_busy, [Need::Has("locks")]),
    case!("L4", l4_dropped_waiter_leaves_nothing_held, [Need::Has("locks")]),
    case!("L4", l4_waiters_dropped_at_any_moment_leave_nothing_held, [Need::Has("locks")]),
    case!("L4", l4_all_waiters_get_their_turn, [Need::Has("locks")]),
    case!("L4", l4_read_and_write_under_the_lock_lose_nothing, [Need::Has("locks")]),
    case!("L4", l4_shared_waiters_get_in_together, [Need::Has("locks"), Need::Has("shared_locks")]),
    case!("L4", l4_waiter_that_gives_up_does_not_block_others, [Need::Has("locks"), Need::Has("shared_locks")]),
];
