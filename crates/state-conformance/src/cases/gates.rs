//! M4: what must let a piece of work pass before it begins, asked in as few round trips as the backend allows.
//!
//! A store may answer fewer gates than it was asked, so the cases ask for the others again, as a caller would.

use std::time::Duration;

use acteon_state_core::clock::BootInstant;
use acteon_state_core::gate::GATES_MAX;
use acteon_state_core::{
    Error, ErrorKind, Gate, GateReply, LockMode, LockOptions, LockOutcome, LockRequest, Put, PutOutcome, RateLimit,
    ReleaseOutcome, Result, State, StateKey, StateStore, Ttl,
};

use crate::case::{Case, Need, case};
use crate::cases::locks::{exclusive, take};
use crate::lab::{LONG, Lab, in_time};
use crate::verdict::{Failure, Verdict, absent, busy, equal, granted, holds, not_met, present, refused};

/// Asks until one gate does not let pass, or all have; by single calls where the handle has nothing better.
pub(crate) async fn ask(store: &dyn StateStore, gates: &[Gate]) -> Vec<Result<GateReply>> {
    let mut replies: Vec<Result<GateReply>> = Vec::new();
    while replies.len() < gates.len() && replies.last().is_none_or(|last| last.as_ref().is_ok_and(GateReply::passes)) {
        let rest = &gates[replies.len()..];
        match if store.capabilities().gates { store.admit(rest).await } else { ask_one(store, &rest[0]).await } {
            Ok(some) if some.is_empty() => replies.push(Err(Error::new(ErrorKind::Internal, "no gate was answered"))),
            Ok(some) => replies.extend(some),
            Err(error) => replies.push(Err(error)),
        }
    }
    replies
}

async fn ask_one(store: &dyn StateStore, gate: &Gate) -> Result<Vec<Result<GateReply>>> {
    Ok(vec![match gate {
        Gate::Put(key, put) => store.put(key, put).await.map(GateReply::Put),
        Gate::RateLimit(key, request) => store.rate_limit(key, request).await.map(GateReply::RateLimit),
        Gate::Lock(request) => {
            let request = LockRequest { wait: Duration::ZERO, ..request.clone() };
            store.lock_acquire(&request).await.map(GateReply::Lock)
        }
    }])
}

/// Asks, and expects that nothing fails.
async fn told(store: &dyn StateStore, gates: &[Gate]) -> Verdict<Vec<GateReply>> {
    Ok(ask(store, gates).await.into_iter().collect::<Result<_>>()?)
}

fn claim(key: &StateKey) -> Gate {
    Gate::Put(key.clone(), Put::new("claimed").if_absent().expires_after(LONG))
}

fn limit(key: &StateKey, limit: u64) -> Gate {
    Gate::RateLimit(key.clone(), RateLimit::sliding_window(limit, LONG))
}

fn lock(key: &StateKey) -> Gate {
    Gate::Lock(exclusive(key, LONG))
}

/// How many more requests the limit of this key would allow.
async fn left(lab: &Lab, key: &StateKey, of: u64) -> Verdict<u64> {
    for used in 0..=of {
        if !lab.b.rate_limit(key, &RateLimit::sliding_window(of, LONG)).await?.allowed {
            return Ok(used);
        }
    }
    Err(Failure::new(format!("{key}: a limit\n  expected: that {of} requests use it up\n       got: one more")))
}

async fn is_held(lab: &Lab, key: &StateKey) -> Verdict<bool> {
    Ok(lab.b.lock_inspect(key).await?.is_some_and(|state| !state.holders.is_empty()))
}

/// Gates that all let pass do what their methods do.
async fn m4_all_gates_let_pass(lab: Lab) -> Verdict {
    let [work, rate, cells, window, held] = ["work", "rate", "cells", "window", "held"].map(|id| lab.key(id));
    let request = exclusive(&held, LONG);
    let gates = [
        claim(&work),
        limit(&rate, 2),
        Gate::RateLimit(cells.clone(), RateLimit::gcra(5, LONG, 5)),
        Gate::RateLimit(window.clone(), RateLimit::fixed_window(5, LONG)),
        Gate::Lock(request.clone()),
    ];
    let before = BootInstant::now();
    let replies = told(&*lab.a, &gates).await?;
    equal(&work, "number of replies", &replies.len(), &gates.len())?;
    let Gate::Put(_, put) = &gates[0] else { return Err(Failure::new("the first gate is a put")) };
    equal(&work, "the claim", &replies[0], &GateReply::Put(PutOutcome::Applied(put.version)))?;
    let remaining = |reply: &GateReply| match reply {
        GateReply::RateLimit(decision) => Some((decision.allowed, decision.limit, decision.remaining)),
        GateReply::Put(_) | GateReply::Lock(_) => None,
    };
    equal(&rate, "the sliding window", &remaining(&replies[1]), &Some((true, 2, 1)))?;
    equal(&cells, "the cells", &remaining(&replies[2]), &Some((true, 5, 4)))?;
    equal(&window, "the fixed window", &remaining(&replies[3]), &Some((true, 5, 4)))?;
    let GateReply::Lock(outcome) = replies[4].clone() else {
        return Err(Failure::new(format!("{held}\n  expected: the reply of a lock\n       got: {:?}", replies[4])));
    };
    let grant = granted(&held, "the lock", outcome)?;
    let (earliest, left) = ((before + LONG).remaining(), grant.deadline.remaining());
    holds(&held, "the grant counts from before it was asked for", left >= earliest && left <= LONG, left)?;

    let entry = present(&work, "the claim", lab.read_ttl(&work).await?)?;
    equal(&work, "its version", &entry.version, &Some(put.version))?;
    holds(&work, "its time to live", entry.ttl.is_some_and(|ttl| ttl <= LONG), entry.ttl)?;
    let state = present(&held, "the lock", lab.b.lock_inspect(&held).await?)?;
    equal(&held, "the token", &state.last_token, &grant.token)?;
    let released = lab.b.lock_release(&held, request.owner).await?;
    equal(&held, "release by the owner", &released, &ReleaseOutcome::Released)?;
    let next = take(&*lab.b, &exclusive(&held, LONG)).await?;
    holds(&held, "tokens rise across the two ways to ask", next.token > grant.token, next.token)
}

/// A refusal is the last reply, and nothing after it was done: a duplicate uses up no limit, and takes no lock.
async fn m4_refused_claim_uses_up_no_limit_and_takes_no_lock(lab: Lab) -> Verdict {
    let [work, rate, held] = ["work", "rate", "held"].map(|id| lab.key(id));
    let first = lab.write(&work, "taken").await?;
    let replies = told(&*lab.a, &[claim(&work), limit(&rate, 3), lock(&held)]).await?;
    equal(&work, "number of replies", &replies.len(), &1)?;
    let GateReply::Put(outcome) = replies[0].clone() else {
        return Err(Failure::new(format!("{work}\n  expected: the reply of a put\n       got: {:?}", replies[0])));
    };
    let current = present(&work, "the entry in the way", not_met(&work, "the claim", outcome)?)?;
    equal(&work, "version of the entry in the way", &current.version, &Some(first.version))?;
    equal(&rate, "requests that are left", &left(&lab, &rate, 3).await?, &3)?;
    equal(&held, "whether the lock is held", &is_held(&lab, &held).await?, &false)
}

/// What let pass before a refusal stays as it is, and is not undone: a limit that refuses leaves the claim, and takes no lock.
async fn m4_refusing_limit_leaves_the_claim_and_takes_no_lock(lab: Lab) -> Verdict {
    let [work, rate, other, held] = ["work", "rate", "other", "held"].map(|id| lab.key(id));
    lab.a.rate_limit(&rate, &RateLimit::sliding_window(1, LONG)).await?;
    let gates = [claim(&work), limit(&other, 2), limit(&rate, 1), limit(&other, 2), lock(&held)];
    let replies = told(&*lab.a, &gates).await?;
    equal(&rate, "number of replies", &replies.len(), &3)?;
    let is_refused =
        matches!(&replies[2], GateReply::RateLimit(decision) if !decision.allowed && decision.retry_after.is_some());
    holds(&rate, "the limit refuses, and says for how long", is_refused, &replies[2])?;
    present(&work, "the claim", lab.read(&work).await?)?;
    equal(&other, "requests that are left of the limit before", &left(&lab, &other, 2).await?, &1)?;
    equal(&held, "whether the lock is held", &is_held(&lab, &held).await?, &false)
}

/// A lock that others hold is not waited for, whatever the request says, and leaves what let pass before.
async fn m4_busy_lock_is_not_waited_for(lab: Lab) -> Verdict {
    let [work, rate, held] = ["work", "rate", "held"].map(|id| lab.key(id));
    let holder = take(&*lab.b, &exclusive(&held, LONG)).await?;
    let request = LockRequest { wait: LONG, ..exclusive(&held, LONG) };
    let gates = [claim(&work), limit(&rate, 2), Gate::Lock(request)];
    let replies = in_time("gates before a busy lock", told(&*lab.a, &gates)).await??;
    let Some(GateReply::Lock(outcome)) = replies.get(2).cloned() else {
        return Err(Failure::new(format!("{held}\n  expected: the reply of a lock\n       got: {replies:?}")));
    };
    equal(&held, "token of the holder", &busy(&held, "a held lock", outcome)?.token, &Some(holder.token))?;
    present(&work, "the claim", lab.read(&work).await?)?;
    equal(&rate, "requests that are left", &left(&lab, &rate, 2).await?, &1)
}

/// Of many who ask for the same at once, one passes, and one request is counted.
async fn m4_one_of_n_passes_and_is_counted_once(lab: Lab) -> Verdict {
    const TASKS: usize = 24;
    let [work, rate, held] = ["work", "rate", "held"].map(|id| lab.key(id));
    let gates = |_: usize| [claim(&work), limit(&rate, TASKS as u64), lock(&held)];
    let passed = lab
        .together(TASKS, |task, store| {
            let gates = gates(task);
            async move { Ok(told(&*store, &gates).await?.len() == gates.len()) }
        })
        .await?;
    let passed = passed.into_iter().filter(|passed| *passed).count();
    equal(&work, "those who passed", &passed, &1)?;
    let left = left(&lab, &rate, TASKS as u64).await?;
    equal(&rate, "requests that are left", &left, &(TASKS as u64 - 1))
}

/// Sent again, gates recognise their own traces where their methods do: the version of a put, the owner of a lock.
async fn m4_repeated_gates_find_what_they_did(lab: Lab) -> Verdict {
    let [work, rate, held] = ["work", "rate", "held"].map(|id| lab.key(id));
    let gates = [claim(&work), limit(&rate, 2), lock(&held)];
    let first = told(&*lab.a, &gates).await?;
    let again = told(&*lab.b, &gates).await?;
    equal(&work, "the claim, sent again", &again[0], &first[0])?;
    let token = |replies: &[GateReply]| match replies.get(2) {
        Some(GateReply::Lock(LockOutcome::Granted(grant))) => Some(grant.token),
        _ => None,
    };
    holds(&held, "the lock is granted", token(&first).is_some(), &first)?;
    equal(&held, "the token, asked for again", &token(&again), &token(&first))?;
    equal(&rate, "requests that are left", &left(&lab, &rate, 2).await?, &1)
}

/// A gate that is wrong fails in its turn: those before it are passed, those after it are not asked.
async fn m4_wrong_gate_fails_in_its_turn(lab: Lab) -> Verdict {
    let [work, wrong, held] = ["work", "wrong", "held"].map(|id| lab.key(id));
    let nothing = Gate::Put(wrong.clone(), Put::new("x").ttl(Ttl::After(Duration::ZERO)));
    let nobody = Gate::Lock(LockRequest { mode: LockMode::Permit { of: 0 }, ..exclusive(&wrong, LONG) });
    let endless = Gate::RateLimit(wrong.clone(), RateLimit::fixed_window(0, LONG));
    for (turn, gates) in [
        (0, vec![nothing.clone(), claim(&work), lock(&held)]),
        (1, vec![claim(&lab.key("first")), nothing, lock(&held)]),
        (1, vec![claim(&lab.key("second")), endless, lock(&held)]),
        (1, vec![claim(&lab.key("third")), nobody]),
    ] {
        let mut replies = ask(&*lab.a, &gates).await;
        equal(&wrong, "number of replies", &replies.len(), &(turn + 1))?;
        let Some(last) = replies.pop() else { return Err(Failure::new("there is a reply")) };
        let kind = if matches!(gates[turn], Gate::Lock(_)) && !lab.capabilities().semaphores {
            ErrorKind::Unsupported
        } else {
            ErrorKind::Invalid
        };
        refused(&wrong, "the wrong gate", last, kind)?;
        let before = gates[..turn].iter().map(Gate::key);
        for key in before {
            present(key, "the claim of the gate before", lab.read(key).await?)?;
        }
    }
    absent(&work, "the claim of a gate after the wrong one", lab.read(&work).await?)?;
    equal(&held, "whether the lock is held", &is_held(&lab, &held).await?, &false)
}

/// No gates, too many of them, or a lock that is not the last are refused as a whole.
async fn m4_shape_of_the_gates_is_checked(lab: Lab) -> Verdict {
    let [work, held] = ["work", "held"].map(|id| lab.key(id));
    refused(&work, "no gates", lab.a.admit(&[]).await, ErrorKind::Invalid)?;
    let many: Vec<Gate> = (0..=GATES_MAX).map(|at| claim(&lab.key(&format!("many-{at}")))).collect();
    refused(&work, "one gate too many", lab.a.admit(&many).await, ErrorKind::TooLarge)?;
    absent(&work, "a claim of too many", lab.read(&lab.key("many-0")).await?)?;
    refused(&held, "a lock first", lab.a.admit(&[lock(&held), claim(&work)]).await, ErrorKind::Invalid)?;
    absent(&work, "a claim after a lock", lab.read(&work).await?)?;
    equal(&held, "whether the lock is held", &is_held(&lab, &held).await?, &false)?;
    let most: Vec<Gate> = many.into_iter().take(GATES_MAX).collect();
    equal(&work, "replies to as many as allowed", &told(&*lab.a, &most).await?.len(), &GATES_MAX)
}

/// A handle whose gates were passed holds a lock that it can release; who is refused holds nothing.
async fn m4_handle_holds_the_lock_that_was_granted(lab: Lab) -> Verdict {
    let [work, held] = ["work", "held"].map(|id| lab.key(id));
    let (state, options) = (State::new(lab.a.clone()), LockOptions::new(LONG).meta("conformance"));
    let admission = state.admit(vec![claim(&work)], Some((&held, &options))).await?;
    equal(&work, "number of replies", &admission.replies.len(), &1)?;
    let lock = present(&held, "the answer for the lock", admission.lock)??;
    let guard = present(&held, "a guard for a free lock", lock.acquired())?;
    holds(&held, "the guard is held", guard.is_held(), guard.valid_for())?;
    let holders = lab.b.lock_inspect(&held).await?.map(|state| state.holders).unwrap_or_default();
    let owners: Vec<_> = holders.iter().map(|holder| (holder.owner, holder.meta.as_str())).collect();
    equal(&held, "the holder", &owners, &vec![(guard.owner(), "conformance")])?;

    let duplicate = State::new(lab.b.clone()).admit(vec![claim(&work)], Some((&held, &options))).await?;
    holds(&work, "a duplicate is told of no lock", duplicate.lock.is_none(), &duplicate.lock)?;
    equal(&held, "release", &guard.release().await?, &ReleaseOutcome::Released)
}

/// What the cases need besides.
const NEEDS: &[Need] = &[Need::Has("gates"), Need::Has("rate_limits"), Need::Has("locks")];

pub(crate) const CASES: &[Case] = &[
    Case { needs: NEEDS, ..case!("M4", m4_all_gates_let_pass) },
    Case { needs: NEEDS, ..case!("M4", m4_refused_claim_uses_up_no_limit_and_takes_no_lock) },
    Case { needs: NEEDS, ..case!("M4", m4_refusing_limit_leaves_the_claim_and_takes_no_lock) },
    Case { needs: NEEDS, ..case!("M4", m4_busy_lock_is_not_waited_for) },
    Case { needs: NEEDS, ..case!("M4", m4_one_of_n_passes_and_is_counted_once) },
    Case { needs: NEEDS, ..case!("M4", m4_repeated_gates_find_what_they_did) },
    Case { needs: NEEDS, ..case!("M4", m4_wrong_gate_fails_in_its_turn) },
    Case { needs: NEEDS, ..case!("M4", m4_shape_of_the_gates_is_checked) },
    Case {
        needs: &[Need::Has("gates"), Need::Has("locks"), Need::OneDriver],
        ..case!("M4", m4_handle_holds_the_lock_that_was_granted)
    },
];
