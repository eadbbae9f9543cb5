//! L1, L2 and L7 as an application meets them: guards, renewal, the lost signal, elections.
//!
//! A guard counts its own deadline on a real clock, whatever the store's clock is; so these cases take real time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use acteon_state_core::{
    Election, ExtendOutcome, FencingToken, LeaderWatch, LockAttempt, LockGuard, LockHolder, LockOptions,
    ReleaseOutcome, State, StateKey,
};

use crate::case::{Case, Need, case};
use crate::cases::locks::{exclusive, take};
use crate::lab::{LONG, Lab, PATIENCE, in_time};
use crate::verdict::{Failure, Verdict, busy, equal, holds, present};

/// A lease that ends soon enough to wait for, and late enough that a busy machine keeps up with renewals.
const LEASE: Duration = Duration::from_millis(1_500);

async fn acquire(lab: &Lab, key: &StateKey, options: &LockOptions) -> Verdict<LockGuard> {
    let attempt = State::new(lab.a.clone()).lock(key, options).await?;
    present(key, "a guard for a free lock", attempt.acquired())
}

/// Waits until the lock is free: what a guard gave up is released in the background.
async fn freed(lab: &Lab, key: &StateKey, what: &'static str) -> Verdict {
    let (state, options) = (State::new(lab.b.clone()), LockOptions::new(LONG).wait(LONG));
    let guard = in_time(what, state.lock(key, &options)).await??.acquired();
    present(key, "a guard for a freed lock", guard)?.release().await?;
    Ok(())
}

/// A guard knows its token and how long it is valid, and releases what it holds.
async fn l1_guard_tells_what_it_holds(lab: Lab) -> Verdict {
    let key = lab.key("guard");
    let guard = acquire(&lab, &key, &LockOptions::new(LONG).meta("conformance")).await?;
    holds(&key, "a fresh guard is held", guard.is_held(), guard.valid_for())?;
    holds(&key, "it is valid for at most its lease", guard.valid_for() <= LONG, guard.valid_for())?;
    let state = present(&key, "state", lab.b.lock_inspect(&key).await?)?;
    let holder = present(&key, "holder", state.holders.first())?;
    let expected = (guard.owner(), guard.token(), "conformance");
    equal(&key, "holder", &(holder.owner, holder.token, holder.meta.as_str()), &expected)?;
    let attempt = State::new(lab.b.clone()).try_lock(&key, LONG).await?;
    holds(&key, "another attempt is busy", matches!(attempt, LockAttempt::Busy(_)), attempt)?;
    equal(&key, "extension", &guard.extend(2 * LONG).await?, &ExtendOutcome::Extended)?;
    holds(&key, "an extended guard is valid longer", guard.valid_for() > LONG, guard.valid_for())?;
    let lost = guard.lost();
    equal(&key, "release", &guard.release().await?, &ReleaseOutcome::Released)?;
    in_time("lost() completes some time after a release", lost).await?;
    freed(&lab, &key, "a released lock is free").await
}

/// A guard that is dropped, by an early return say, lets go at once and without blocking.
async fn l1_dropped_guard_lets_go(lab: Lab) -> Verdict {
    let key = lab.key("dropped");
    drop(acquire(&lab, &key, &LockOptions::new(LONG)).await?);
    freed(&lab, &key, "a dropped guard lets go").await?;
    drop(acquire(&lab, &key, &LockOptions::new(LONG).renew()).await?);
    freed(&lab, &key, "a dropped guard with renewal lets go").await
}

/// An acquisition dropped while it waits lets go.
async fn l4_dropped_acquisition_lets_go(lab: Lab) -> Verdict {
    let key = lab.key("acquisition");
    let guard = acquire(&lab, &key, &LockOptions::new(LONG)).await?;
    let options = LockOptions::new(LONG).wait(LONG);
    let waiting = LockGuard::acquire(lab.b.clone(), &key, &options);
    let dropped = tokio::time::timeout(Duration::from_millis(50), waiting).await;
    holds(&key, "the acquisition was dropped while it waited", dropped.is_err(), dropped)?;
    guard.release().await?;
    freed(&lab, &key, "a dropped acquisition lets go").await
}

/// Without renewal, `lost()` fires before the lease ends: there is time left to stop in.
async fn l1_lost_fires_before_the_deadline(lab: Lab) -> Verdict {
    let key = lab.key("lost");
    // A timer and not a clock tells when the lease ends: a machine that gives us no time for a while makes both of them late.
    let (before, end) = (Instant::now(), tokio::time::sleep(LEASE));
    let guard = acquire(&lab, &key, &LockOptions::new(LEASE)).await?;
    let is_in_time = tokio::select! {
        biased;
        () = guard.lost() => true,
        () = end => false,
    };
    let after = before.elapsed();
    holds(&key, "lost() fires before the lease's end", is_in_time, after)?;
    holds(&key, "lost() does not fire before the last tenth", after >= LEASE - LEASE / 5, after)?;
    holds(&key, "a lost guard is not held", !guard.is_held(), guard.valid_for())
}

/// With renewal a lock is held for much longer than its lease, and nobody else gets it meanwhile.
async fn l1_renewal_keeps_the_lock(lab: Lab) -> Verdict {
    let key = lab.key("renewed");
    let guard = acquire(&lab, &key, &LockOptions::new(LEASE).renew()).await?;
    for _ in 0..40 {
        lab.pass(LEASE / 20).await;
        busy(&key, "another request", lab.b.lock_acquire(&exclusive(&key, LONG)).await?)?;
        holds(&key, "a renewed guard is held", guard.is_held(), guard.valid_for())?;
    }
    equal(&key, "release", &guard.release().await?, &ReleaseOutcome::Released)?;
    take(&*lab.b, &exclusive(&key, LONG)).await.map(|_| ())
}

/// Renewal ends with the guard: a released lock is not taken back by a renewal under way.
async fn l1_renewal_does_not_outlive_the_guard(lab: Lab) -> Verdict {
    let key = lab.key("outlive");
    for _ in 0..20 {
        let guard = acquire(&lab, &key, &LockOptions::new(Duration::from_millis(30)).renew()).await?;
        lab.pass(Duration::from_millis(9)).await;
        guard.release().await?;
        let state = present(&key, "state", lab.b.lock_inspect(&key).await?)?;
        equal(&key, "holders after the release of a renewed guard", &state.holders.len(), &0)?;
    }
    lab.pass(Duration::from_millis(30)).await;
    let state = present(&key, "state", lab.b.lock_inspect(&key).await?)?;
    equal(&key, "holders some time later", &state.holders.len(), &0)
}

/// A holder whose lock was taken by force learns it from its renewal, and cannot resurrect it.
async fn l2_renewal_notices_a_lost_lock(lab: Lab) -> Verdict {
    let key = lab.key("forced");
    let guard = acquire(&lab, &key, &LockOptions::new(LEASE).renew()).await?;
    lab.b.lock_force_release(&key, "conformance").await?;
    let other = exclusive(&key, LONG);
    take(&*lab.b, &other).await?;
    in_time("lost() fires after a force release", guard.lost()).await?;
    holds(&key, "the guard is not held", !guard.is_held(), guard.valid_for())?;
    equal(&key, "release of the lost guard", &guard.release().await?, &ReleaseOutcome::AlreadyLost)?;
    let state = present(&key, "state", lab.b.lock_inspect(&key).await?)?;
    let owners: Vec<_> = state.holders.iter().map(|holder| holder.owner).collect();
    equal(&key, "holders", &owners, &vec![other.owner])
}

/// The bound on the total time held ends the renewal, however long the lease.
async fn l1_hold_is_bounded(lab: Lab) -> Verdict {
    let key = lab.key("bounded");
    let hold_max = Duration::from_millis(300);
    let before = Instant::now();
    let guard = acquire(&lab, &key, &LockOptions::new(LONG).renew().hold_max(hold_max)).await?;
    in_time("lost() fires at the bound on the hold", guard.lost()).await?;
    let after = before.elapsed();
    holds(&key, "it does not fire before the bound", after >= hold_max, after)?;
    holds(&key, "the guard is not held", !guard.is_held(), guard.valid_for())
}

/// A stuck holder, whose heartbeat is missing, loses the lock; one that beats keeps it.
async fn l1_missing_heartbeat_ends_the_hold(lab: Lab) -> Verdict {
    let key = lab.key("heartbeat");
    let heartbeat = Duration::from_millis(600);
    let guard = acquire(&lab, &key, &LockOptions::new(LEASE).renew().heartbeat(heartbeat)).await?;
    for _ in 0..30 {
        guard.beat();
        lab.pass(LEASE / 20).await;
    }
    holds(&key, "a guard that beats is held beyond its lease", guard.is_held(), guard.valid_for())?;
    in_time("lost() fires when the heartbeat is missing", guard.lost()).await
}

/// Of several candidates one leads at a time, and each gets its turn when the leader steps down.
async fn l7_one_candidate_leads_at_a_time(lab: Lab) -> Verdict {
    let key = lab.key("leader");
    let leaders = Arc::new(AtomicUsize::new(0));
    let name = key.clone();
    let elections = lab.together(8, move |_, store| {
        let (key, leaders) = (name.clone(), leaders.clone());
        async move {
            let term = |token: FencingToken| {
                let leaders = leaders.clone();
                async move {
                    let others = leaders.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    leaders.fetch_sub(1, Ordering::SeqCst);
                    (token.get(), others)
                }
            };
            let led = Election::new(store, key.clone(), &LockOptions::new(LONG)).lead(term).await?;
            present(&key, "the result of a term", led)
        }
    });
    let terms =
        tokio::time::timeout(3 * PATIENCE, elections).await.map_err(|_| Failure::new("an election hangs"))??;
    for (_, others) in &terms {
        equal(&key, "other leaders during a term", others, &0)?;
    }
    let mut tokens: Vec<u64> = terms.iter().map(|(token, _)| *token).collect();
    tokens.sort_unstable();
    tokens.dedup();
    equal(&key, "terms with a token of their own", &tokens.len(), &8)
}

/// The next change that a watch tells; the one without a leader counts as well.
async fn told(watch: &mut LeaderWatch) -> Verdict<Option<LockHolder>> {
    Ok(in_time("a watch tells the change", watch.changed()).await??)
}

/// Watchers on both handles see each leader come and go, whatever ends a term, and tokens rise from term to term.
async fn l7_watches_tell_each_leader(lab: Lab) -> Verdict {
    let key = lab.key("watched");
    let period = Duration::from_millis(20);
    let mut watches = [&lab.a, &lab.b].map(|store| LeaderWatch::new(store.clone(), key.clone(), period));
    for watch in &mut watches {
        equal(&key, "the leader before the first", &told(watch).await?, &None)?;
    }
    let mut last = 0;
    for (term, end) in ["release", "drop", "force", "release"].into_iter().enumerate() {
        let meta = format!("node {term}");
        let candidate = Election::new(lab.handle(term).clone(), key.clone(), &LockOptions::new(LONG).meta(&meta));
        let guard = in_time("an election is won", candidate.campaign()).await??;
        let guard = present(&key, "a guard", guard)?;
        holds(&key, "the token of a term is above the last one's", guard.token().get() > last, (last, guard.token()))?;
        last = guard.token().get();
        for watch in &mut watches {
            let leader = present(&key, "leader", told(watch).await?)?;
            equal(&key, "leader", &(leader.token, leader.meta.as_str()), &(guard.token(), meta.as_str()))?;
        }
        match end {
            "release" => equal(&key, "release", &guard.release().await?, &ReleaseOutcome::Released)?,
            "force" => equal(&key, "leases", &lab.b.lock_force_release(&key, "conformance").await?, &1)?,
            _ => drop(guard),
        }
        for watch in &mut watches {
            equal(&key, &format!("the leader after {end}"), &told(watch).await?, &None)?;
        }
    }
    Ok(())
}

/// Who steps down is followed at once, however long its lease, and never leads again.
async fn l7_step_down_hands_over_at_once(lab: Lab) -> Verdict {
    let key = lab.key("stepping-down");
    let options = LockOptions::new(LONG);
    let (first, second) = (
        Election::new(lab.a.clone(), key.clone(), &options.clone().meta("first")),
        Election::new(lab.b.clone(), key.clone(), &options.meta("second")),
    );
    let (elected, is_elected) = tokio::sync::oneshot::channel();
    let mut elected = Some(elected);
    let clone = first.clone();
    let leading = tokio::spawn(async move {
        let term = |token: FencingToken| {
            // Who waits for it may be gone; then the case has failed already.
            elected.take().map(|elected| elected.send(token));
            std::future::pending::<()>()
        };
        clone.lead(term).await
    });
    let before = in_time("the first is elected", is_elected).await?;
    let before = before.map_err(|_| Failure::new("leading ended before it began"))?;
    let clone = second.clone();
    let following = tokio::spawn(async move { clone.campaign().await });
    equal(&key, "leader", &second.leader().await?.map(|leader| leader.token), &Some(before))?;
    in_time("stepping down completes", first.step_down()).await?;
    let joined = |error| Failure::new(format!("a task of the case panicked: {error}"));
    equal(&key, "what leading returns", &in_time("leading ends", leading).await?.map_err(joined)??, &None)?;
    let guard = in_time("the second follows", following).await?.map_err(joined)??;
    let guard = present(&key, "a guard", guard)?;
    holds(&key, "the token rises", guard.token() > before, (before, guard.token()))?;
    guard.release().await?;
    let again = in_time("who has stepped down does not stand", first.campaign()).await??;
    holds(&key, "who has stepped down is not elected again", again.is_none(), again)
}

pub(crate) const CASES: &[Case] = &[
    case!("L1", l1_guard_tells_what_it_holds, [Need::Has("locks")]),
    case!("L1", l1_dropped_guard_lets_go, [Need::Has("locks")]),
    case!("L4", l4_dropped_acquisition_lets_go, [Need::Has("locks")]),
    case!("L1", l1_lost_fires_before_the_deadline, [Need::Has("locks")]),
    case!("L1", l1_renewal_keeps_the_lock, [Need::Has("locks")]),
    case!("L1", l1_renewal_does_not_outlive_the_guard, [Need::Has("locks")]),
    case!("L2", l2_renewal_notices_a_lost_lock, [Need::Has("locks")]),
    case!("L1", l1_hold_is_bounded, [Need::Has("locks")]),
    case!("L1", l1_missing_heartbeat_ends_the_hold, [Need::Has("locks")]),
    case!("L7", l7_one_candidate_leads_at_a_time, [Need::Has("locks")]),
    case!("L7", l7_watches_tell_each_leader, [Need::Has("locks")]),
    case!("L7", l7_step_down_hands_over_at_once, [Need::Has("locks")]),
];
