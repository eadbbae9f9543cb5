//! L2, L3, L5 to L8: the lock record: owners, tokens, modes, and what operators see.

use std::collections::BTreeSet;
use std::time::Duration;

use acteon_state_core::clock::BootInstant;
use acteon_state_core::{
    Condition, ErrorKind, ExtendOutcome, LockGrant, LockMode, LockOutcome, LockRequest, OwnerId, Put, ReleaseOutcome,
    Scan, Scope, StateKey, StateStore, TTL_MAX,
};

use crate::case::{Case, Need, case};
use crate::lab::{CLOCK_GRAIN, LONG, Lab, PAST_SHORT, SHORT};
use crate::verdict::{Verdict, absent, busy, equal, granted, holds, present, refused};

pub(crate) async fn take(store: &dyn StateStore, request: &LockRequest) -> Verdict<LockGrant> {
    granted(&request.key, "request for a free lock", store.lock_acquire(request).await?)
}

pub(crate) fn exclusive(key: &StateKey, lease: Duration) -> LockRequest {
    LockRequest::new(key.clone(), lease)
}

fn mode(key: &StateKey, mode: LockMode) -> LockRequest {
    LockRequest { mode, ..exclusive(key, LONG) }
}

/// A held lock is busy on every handle, and says until when and by which token.
async fn l1_held_lock_is_busy_for_others(lab: Lab) -> Verdict {
    let key = lab.key("busy");
    let mine = take(&*lab.a, &exclusive(&key, LONG)).await?;
    for store in [&lab.a, &lab.b] {
        let refusal = busy(&key, "request for a held lock", store.lock_acquire(&exclusive(&key, LONG)).await?)?;
        equal(&key, "token of the holder", &refusal.token, &Some(mine.token))?;
        let wait = refusal.retry_after;
        holds(&key, "time until its lease ends", wait <= LONG + CLOCK_GRAIN && wait > LONG / 2, wait)?;
    }
    take(&*lab.b, &exclusive(&lab.key("other"), LONG)).await.map(|_| ())
}

/// A lease ends by itself, and not before its time.
async fn l1_lease_ends_by_itself(lab: Lab) -> Verdict {
    let (key, lease) = (lab.key("ends"), 2 * SHORT);
    let before = lab.elapsed();
    take(&*lab.a, &exclusive(&key, lease)).await?;
    while let LockOutcome::Busy(_) = lab.b.lock_acquire(&exclusive(&key, LONG)).await? {
        lab.advance(Duration::from_millis(3)).await;
        holds(&key, "the lease ends at all", lab.elapsed() < before + LONG, lab.elapsed())?;
    }
    let lasted = lab.elapsed() - before;
    holds(&key, "the lease does not end early", lasted + CLOCK_GRAIN >= lease, lasted)
}

/// Only the owner extends and releases.
async fn l2_only_the_owner_extends_and_releases(lab: Lab) -> Verdict {
    let key = lab.key("owner");
    let mine = exclusive(&key, LONG);
    take(&*lab.a, &mine).await?;
    let stranger = OwnerId::draw();
    equal(&key, "extension by a stranger", &lab.a.lock_extend(&key, stranger, LONG).await?, &ExtendOutcome::Lost)?;
    let released = lab.a.lock_release(&key, stranger).await?;
    equal(&key, "release by a stranger", &released, &ReleaseOutcome::AlreadyLost)?;
    busy(&key, "lock after a stranger's release", lab.b.lock_acquire(&exclusive(&key, LONG)).await?)?;
    // The owner is who presents its id, through whichever handle.
    equal(&key, "extension by the owner", &lab.b.lock_extend(&key, mine.owner, LONG).await?, &ExtendOutcome::Extended)?;
    equal(&key, "release by the owner", &lab.b.lock_release(&key, mine.owner).await?, &ReleaseOutcome::Released)?;
    take(&*lab.b, &exclusive(&key, LONG)).await.map(|_| ())
}

/// Releasing or extending what is gone says so: never held, expired, taken over, released by force.
async fn l2_release_of_a_lost_lock_reports_already_lost(lab: Lab) -> Verdict {
    let never = lab.key("never");
    let owner = OwnerId::draw();
    equal(
        &never,
        "release of a lock that never was",
        &lab.a.lock_release(&never, owner).await?,
        &ReleaseOutcome::AlreadyLost,
    )?;
    equal(&never, "extension of it", &lab.a.lock_extend(&never, owner, LONG).await?, &ExtendOutcome::Lost)?;

    for end in ["expired", "taken-over", "forced"] {
        let key = lab.key(end);
        let mine = exclusive(&key, SHORT);
        take(&*lab.a, &mine).await?;
        if end == "forced" {
            lab.b.lock_force_release(&key, "conformance").await?;
        } else {
            lab.advance(PAST_SHORT).await;
        }
        if end == "taken-over" {
            take(&*lab.b, &exclusive(&key, LONG)).await?;
        }
        equal(&key, "extension", &lab.a.lock_extend(&key, mine.owner, LONG).await?, &ExtendOutcome::Lost)?;
        equal(&key, "release", &lab.a.lock_release(&key, mine.owner).await?, &ReleaseOutcome::AlreadyLost)?;
    }
    busy("taken-over", "the new holder's lock", lab.a.lock_acquire(&exclusive(&lab.key("taken-over"), LONG)).await?)?;
    Ok(())
}

/// An extension counts from now, longer or shorter, and never brings an ended lease back.
async fn l2_extension_counts_from_now(lab: Lab) -> Verdict {
    let key = lab.key("extend");
    let mine = exclusive(&key, SHORT);
    take(&*lab.a, &mine).await?;
    lab.a.lock_extend(&key, mine.owner, LONG).await?;
    let left = busy(&key, "an extended lock", lab.b.lock_acquire(&exclusive(&key, LONG)).await?)?.retry_after;
    holds(&key, "lease after an extension", left <= LONG + CLOCK_GRAIN && left > LONG / 2, left)?;
    lab.a.lock_extend(&key, mine.owner, SHORT).await?;
    lab.advance(PAST_SHORT).await;
    equal(
        &key,
        "extension of an ended lease",
        &lab.a.lock_extend(&key, mine.owner, LONG).await?,
        &ExtendOutcome::Lost,
    )?;
    take(&*lab.b, &exclusive(&key, LONG)).await.map(|_| ())
}

/// A grant's deadline is counted from before the request was sent.
async fn l2_deadline_is_counted_from_before_the_request(lab: Lab) -> Verdict {
    let key = lab.key("deadline");
    let before = BootInstant::now();
    let mine = take(&*lab.a, &exclusive(&key, LONG)).await?;
    let left = mine.deadline.remaining();
    holds(&key, "the deadline is not after the lease's end", left <= LONG, left)?;
    holds(&key, "the deadline is not before the lease counted from the call", mine.deadline >= before + LONG, left)
}

/// Tokens rise over release, expiry, takeover and force.
async fn l3_tokens_rise_across_every_end_of_a_lease(lab: Lab) -> Verdict {
    let key = lab.key("tokens");
    let mut last = 0;
    for round in 0..3 {
        for end in ["release", "expiry", "force"] {
            let request = exclusive(&key, SHORT);
            let grant = take(lab.handle(round).as_ref(), &request).await?;
            holds(&key, &format!("token after {end}"), grant.token.get() > last, (last, grant.token))?;
            last = grant.token.get();
            match end {
                "release" => lab.b.lock_release(&key, request.owner).await.map(|_| ())?,
                "force" => lab.b.lock_force_release(&key, "conformance").await.map(|_| ())?,
                _ => lab.advance(PAST_SHORT).await,
            }
        }
    }
    Ok(())
}

/// Tokens of concurrent grants are all different, and rise in the order of the grants.
async fn l3_tokens_of_concurrent_grants_are_unique_and_rise(lab: Lab) -> Verdict {
    let key = lab.key("concurrent");
    let name = key.clone();
    let tokens = lab
        .together(32, move |_, store| {
            let key = name.clone();
            async move {
                let mut tokens = Vec::new();
                for _ in 0..10 {
                    let request = exclusive(&key, LONG);
                    if let LockOutcome::Granted(grant) = store.lock_acquire(&request).await? {
                        tokens.push(grant.token.get());
                        store.lock_release(&key, request.owner).await?;
                    }
                }
                Ok(tokens)
            }
        })
        .await?;
    for own in &tokens {
        holds(&key, "the tokens that one task got rise", own.is_sorted_by(|left, right| left < right), own)?;
    }
    let all = tokens.concat();
    let unique: BTreeSet<u64> = all.iter().copied().collect();
    equal(&key, "different tokens", &unique.len(), &all.len())
}

/// A fenced write with an old token is refused once a newer holder has written: the use of it all.
async fn l3_token_of_a_newer_holder_fences_the_older_one(lab: Lab) -> Verdict {
    let (key, resource) = (lab.key("lock"), lab.key("resource"));
    let old = take(&*lab.a, &exclusive(&key, SHORT)).await?;
    lab.advance(PAST_SHORT).await;
    let new = take(&*lab.b, &exclusive(&key, LONG)).await?;
    lab.b.put(&resource, &Put::new("new").fenced_by(new.token)).await?;
    let late = lab.a.put(&resource, &Put::new("old").fenced_by(old.token)).await?;
    equal(&resource, "write by the paused holder is applied", &late.is_applied(), &false)
}

/// The same request again finds its own grant, with the same token.
async fn l5_repeated_acquire_finds_its_own_grant(lab: Lab) -> Verdict {
    let key = lab.key("again");
    let request = exclusive(&key, LONG);
    let first = take(&*lab.a, &request).await?;
    let second = granted(&key, "the same request again", lab.b.lock_acquire(&request).await?)?;
    equal(&key, "token of the repetition", &second.token, &first.token)?;
    holds(&key, "a repetition's deadline counts from itself", second.deadline >= first.deadline, second)?;
    let state = present(&key, "state", lab.a.lock_inspect(&key).await?)?;
    equal(&key, "holders after a repetition", &state.holders.len(), &1)
}

/// A request that arrives after its own release, delayed on a broken connection, does not leave the lock held by nobody.
async fn l5_late_acquire_after_release_is_refused(lab: Lab) -> Verdict {
    let key = lab.key("late");
    let request = exclusive(&key, LONG);
    take(&*lab.a, &request).await?;
    equal(&key, "release", &lab.a.lock_release(&key, request.owner).await?, &ReleaseOutcome::Released)?;
    busy(&key, "the released request again", lab.b.lock_acquire(&request).await?)?;
    take(&*lab.b, &exclusive(&key, LONG)).await.map(|_| ())
}

/// A repeated release of the last holder reports success again; so its retry is safe.
async fn l5_repeated_release_is_recognised(lab: Lab) -> Verdict {
    let key = lab.key("release");
    let request = exclusive(&key, LONG);
    take(&*lab.a, &request).await?;
    for attempt in ["first", "repeated"] {
        let released = lab.a.lock_release(&key, request.owner).await?;
        equal(&key, &format!("{attempt} release"), &released, &ReleaseOutcome::Released)?;
    }
    Ok(())
}

/// Operators see who holds a lock, since when, for how long, and what it said of itself.
async fn l6_inspect_shows_the_holder(lab: Lab) -> Verdict {
    let key = lab.key("inspect");
    absent(&key, "state of a lock that was never granted", lab.a.lock_inspect(&key).await?)?;
    let meta = "node 7, job \"a b\" ünï 🙂: x=1; \\ {}".to_owned();
    let request = LockRequest { meta: meta.clone(), ..exclusive(&key, LONG) };
    let grant = take(&*lab.a, &request).await?;
    lab.advance(SHORT).await;
    let state = present(&key, "state", lab.b.lock_inspect(&key).await?)?;
    equal(&key, "key and last token", &(&state.key, state.last_token), &(&key, grant.token))?;
    equal(&key, "holders", &state.holders.len(), &1)?;
    let holder = &state.holders[0];
    let expected = (request.owner, LockMode::Exclusive, grant.token, &meta);
    equal(&key, "holder", &(holder.owner, holder.mode, holder.token, &holder.meta), &expected)?;
    holds(&key, "remaining lease", holder.expires_in <= LONG && holder.expires_in > LONG / 2, holder.expires_in)?;
    holds(
        &key,
        "time it was held",
        holder.held_for + CLOCK_GRAIN >= SHORT && holder.held_for < LONG / 2,
        holder.held_for,
    )
}

/// A free lock shows no holder and keeps its last token.
async fn l6_inspect_of_a_free_lock_shows_the_last_token(lab: Lab) -> Verdict {
    for end in ["released", "expired"] {
        let key = lab.key(end);
        let request = exclusive(&key, SHORT);
        let grant = take(&*lab.a, &request).await?;
        if end == "released" {
            lab.a.lock_release(&key, request.owner).await?;
        } else {
            lab.advance(PAST_SHORT).await;
        }
        let state = present(&key, "state of a free lock", lab.b.lock_inspect(&key).await?)?;
        equal(&key, "holders", &state.holders.len(), &0)?;
        equal(&key, "last token", &state.last_token, &grant.token)?;
    }
    Ok(())
}

/// `force_release` ends all leases and says how many.
async fn l6_force_release_frees_the_lock(lab: Lab) -> Verdict {
    let key = lab.key("force");
    equal(&key, "force_release of a lock that never was", &lab.a.lock_force_release(&key, "conformance").await?, &0)?;
    take(&*lab.a, &exclusive(&key, LONG)).await?;
    equal(&key, "force_release", &lab.b.lock_force_release(&key, "conformance").await?, &1)?;
    equal(&key, "second force_release", &lab.b.lock_force_release(&key, "conformance").await?, &0)?;
    take(&*lab.b, &exclusive(&key, LONG)).await.map(|_| ())
}

/// Locks can be listed, by scope and id prefix, with their holders; values of the same names are not among them.
async fn l6_locks_can_be_listed(lab: Lab) -> Verdict {
    let mut expected = BTreeSet::new();
    for at in 0..25 {
        let key = lab.key(&format!("lock-{at:02}"));
        take(&*lab.a, &exclusive(&key, LONG)).await?;
        expected.insert(key.id());
    }
    lab.write(&lab.key("lock-value"), "x").await?;
    take(&*lab.a, &exclusive(&lab.key("other"), LONG)).await?;
    take(&*lab.a, &exclusive(&Scope::new("conformance", "tenant2", "kind")?.key("lock-00")?, LONG)).await?;
    let (mut found, mut scan) = (BTreeSet::new(), Scan::new(lab.scope()).id_prefix("lock-").page_size(7));
    loop {
        let page = lab.b.lock_list(&scan).await?;
        for state in page.items {
            equal(&state.key, "holders", &state.holders.len(), &1)?;
            equal(&state.key, "scope", &state.key.scope(), &lab.scope())?;
            found.insert(state.key.id());
        }
        match page.next {
            Some(cursor) => scan = scan.from_cursor(Some(cursor)),
            None => break,
        }
    }
    equal("listing", "ids of the locks", &found, &expected)
}

/// Shared holders get along with each other, not with an exclusive one, either way round.
async fn l7_shared_and_exclusive_exclude_each_other(lab: Lab) -> Verdict {
    let key = lab.key("shared");
    let readers: Vec<_> = (0..10).map(|_| mode(&key, LockMode::Shared)).collect();
    for (at, reader) in readers.iter().enumerate() {
        granted(&key, "another shared request", lab.handle(at).lock_acquire(reader).await?)?;
    }
    busy(&key, "an exclusive request among shared ones", lab.b.lock_acquire(&mode(&key, LockMode::Exclusive)).await?)?;
    for (at, reader) in readers.iter().enumerate() {
        busy(&key, "an exclusive request before the last is gone", lab.a.lock_acquire(&exclusive(&key, LONG)).await?)?;
        lab.handle(at).lock_release(&key, reader.owner).await?;
    }
    take(&*lab.a, &exclusive(&key, LONG)).await?;
    busy(&key, "a shared request under an exclusive one", lab.b.lock_acquire(&mode(&key, LockMode::Shared)).await?)?;
    Ok(())
}

/// Shared grants have tokens of their own, and their leases end one by one.
async fn l7_shared_leases_end_one_by_one(lab: Lab) -> Verdict {
    let key = lab.key("one-by-one");
    let short = LockRequest { lease: SHORT, ..mode(&key, LockMode::Shared) };
    let long = mode(&key, LockMode::Shared);
    let first = take(&*lab.a, &short).await?;
    let second = granted(&key, "a second shared request", lab.b.lock_acquire(&long).await?)?;
    holds(&key, "the second token is higher", second.token > first.token, (first.token, second.token))?;
    lab.advance(PAST_SHORT).await;
    let state = present(&key, "state", lab.a.lock_inspect(&key).await?)?;
    let owners: Vec<OwnerId> = state.holders.iter().map(|holder| holder.owner).collect();
    equal(&key, "holders after the first lease ended", &owners, &vec![long.owner])?;
    let released = lab.a.lock_release(&key, short.owner).await?;
    equal(&key, "release of the ended one", &released, &ReleaseOutcome::AlreadyLost)?;
    busy(&key, "an exclusive request", lab.a.lock_acquire(&exclusive(&key, LONG)).await?)?;
    equal(&key, "leases ended by force", &lab.b.lock_force_release(&key, "conformance").await?, &1)
}

/// A semaphore grants as many permits as it has.
async fn l7_semaphore_grants_its_permits(lab: Lab) -> Verdict {
    let key = lab.key("permits");
    let permit = || mode(&key, LockMode::Permit { of: 3 });
    let held = [permit(), permit(), permit()];
    for request in &held {
        granted(&key, "a permit out of three", lab.a.lock_acquire(request).await?)?;
    }
    busy(&key, "a fourth permit out of three", lab.b.lock_acquire(&permit()).await?)?;
    busy(&key, "an exclusive request among permits", lab.b.lock_acquire(&exclusive(&key, LONG)).await?)?;
    lab.b.lock_release(&key, held[1].owner).await?;
    granted(&key, "a permit after one was released", lab.b.lock_acquire(&permit()).await?)?;
    busy(&key, "again a fourth permit", lab.a.lock_acquire(&permit()).await?)?;
    Ok(())
}

/// Permits end one by one, each with its own lease, and who crashed gives its permit back by that.
async fn l7_permits_expire_one_by_one(lab: Lab) -> Verdict {
    let key = lab.key("permits");
    let permit = |lease| LockRequest { lease, ..mode(&key, LockMode::Permit { of: 2 }) };
    let (short, long) = (permit(SHORT), permit(LONG));
    granted(&key, "the first permit", lab.a.lock_acquire(&short).await?)?;
    let second = granted(&key, "the second permit", lab.b.lock_acquire(&long).await?)?;
    lab.advance(PAST_SHORT).await;
    let third = granted(&key, "a permit after one expired", lab.b.lock_acquire(&permit(LONG)).await?)?;
    holds(&key, "the token is above the last one's", third.token > second.token, (second.token, third.token))?;
    busy(&key, "a third permit out of two", lab.a.lock_acquire(&permit(LONG)).await?)?;
    let late = lab.a.lock_extend(&key, short.owner, LONG).await?;
    equal(&key, "extension of the expired permit", &late, &ExtendOutcome::Lost)?;
    equal(&key, "leases ended by force", &lab.a.lock_force_release(&key, "conformance").await?, &2)
}

/// Concurrent requests never get more permits than there are.
async fn l7_semaphore_holds_under_concurrency(lab: Lab) -> Verdict {
    let key = lab.key("permits");
    let name = key.clone();
    let outcomes = lab
        .together(64, move |_, store| {
            let key = name.clone();
            async move { Ok(store.lock_acquire(&mode(&key, LockMode::Permit { of: 5 })).await?) }
        })
        .await?;
    let grants = outcomes.iter().filter(|outcome| matches!(outcome, LockOutcome::Granted(_))).count();
    equal(&key, "permits granted to 64 concurrent requests for 5", &grants, &5)
}

/// Of N concurrent requests one is granted, round after round.
async fn l1_one_of_n_concurrent_requests_is_granted(lab: Lab) -> Verdict {
    for round in 0..8 {
        let key = lab.key(&format!("round-{round}"));
        let name = key.clone();
        let outcomes = lab
            .together(64, move |_, store| {
                let key = name.clone();
                async move { Ok(store.lock_acquire(&exclusive(&key, LONG)).await?) }
            })
            .await?;
        let grants: Vec<_> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                LockOutcome::Granted(grant) => Some(grant.token),
                LockOutcome::Busy(_) => None,
            })
            .collect();
        equal(&key, "grants", &grants.len(), &1)?;
        let named = outcomes.iter().all(|outcome| match outcome {
            LockOutcome::Granted(_) => true,
            LockOutcome::Busy(busy) => busy.token == Some(grants[0]),
        });
        holds(&key, "every loser is told the winner's token", named, &outcomes)?;
    }
    Ok(())
}

/// Requests out of range are refused.
async fn l1_nonsense_is_invalid(lab: Lab) -> Verdict {
    let key = lab.key("nonsense");
    let request = exclusive(&key, LONG);
    for request in [
        LockRequest { lease: Duration::ZERO, ..request.clone() },
        LockRequest { lease: TTL_MAX * 2, ..request.clone() },
        LockRequest { wait: Duration::MAX, ..request.clone() },
        LockRequest { meta: "x".repeat(257), ..request.clone() },
        LockRequest { meta: "line\nbreak".to_owned(), ..request.clone() },
    ] {
        refused(&key, &format!("{request:?}"), lab.a.lock_acquire(&request).await, ErrorKind::Invalid)?;
    }
    if lab.capabilities().semaphores {
        for of in [0, 1_001] {
            let request = mode(&key, LockMode::Permit { of });
            refused(&key, &format!("{of} permits"), lab.a.lock_acquire(&request).await, ErrorKind::Invalid)?;
        }
    }
    take(&*lab.a, &request).await?;
    let extended = lab.a.lock_extend(&key, request.owner, Duration::ZERO).await;
    refused(&key, "extension by zero", extended, ErrorKind::Invalid).map(|_| ())
}

/// A delete of the value of a lock's name leaves the lock and its tokens alone.
async fn l3_deleting_a_value_leaves_the_lock(lab: Lab) -> Verdict {
    let key = lab.key("same-name");
    lab.write(&key, "x").await?;
    let grant = take(&*lab.a, &exclusive(&key, LONG)).await?;
    lab.a.delete(&key, Condition::Always).await?;
    let state = present(&key, "state", lab.b.lock_inspect(&key).await?)?;
    equal(&key, "last token", &state.last_token, &grant.token)?;
    busy(&key, "request for the held lock", lab.b.lock_acquire(&exclusive(&key, LONG)).await?)?;
    Ok(())
}

/// The guarantees are told in words for the topology that is connected.
async fn l8_semantics_are_told(lab: Lab) -> Verdict {
    let semantics = lab.a.lock_semantics();
    for (what, text) in [
        ("topology", &semantics.topology),
        ("tokens_rise_across", &semantics.tokens_rise_across),
        ("fit_for", &semantics.fit_for),
    ] {
        holds(
            "lock_semantics",
            &format!("{what} is told in one line"),
            !text.is_empty() && !text.contains(['\n', '|']),
            text,
        )?;
    }
    equal("lock_semantics", "both handles tell the same", &lab.b.lock_semantics(), &semantics)
}

pub(crate) const CASES: &[Case] = &[
    case!("L1", l1_held_lock_is_busy_for_others, [Need::Has("locks")]),
    case!("L1", l1_lease_ends_by_itself, [Need::Has("locks")]),
    case!("L1", l1_one_of_n_concurrent_requests_is_granted, [Need::Has("locks")]),
    case!("L1", l1_nonsense_is_invalid, [Need::Has("locks")]),
    case!("L2", l2_only_the_owner_extends_and_releases, [Need::Has("locks")]),
    case!("L2", l2_release_of_a_lost_lock_reports_already_lost, [Need::Has("locks")]),
    case!("L2", l2_extension_counts_from_now, [Need::Has("locks")]),
    case!("L2", l2_deadline_is_counted_from_before_the_request, [Need::Has("locks")]),
    case!("L3", l3_tokens_rise_across_every_end_of_a_lease, [Need::Has("locks")]),
    case!("L3", l3_tokens_of_concurrent_grants_are_unique_and_rise, [Need::Has("locks")]),
    case!("L3", l3_token_of_a_newer_holder_fences_the_older_one, [Need::Has("locks"), Need::Has("fencing")]),
    case!("L3", l3_deleting_a_value_leaves_the_lock, [Need::Has("locks")]),
    case!("L5", l5_repeated_acquire_finds_its_own_grant, [Need::Has("locks")]),
    case!("L5", l5_late_acquire_after_release_is_refused, [Need::Has("locks")]),
    case!("L5", l5_repeated_release_is_recognised, [Need::Has("locks")]),
    case!("L6", l6_inspect_shows_the_holder, [Need::Has("locks")]),
    case!("L6", l6_inspect_of_a_free_lock_shows_the_last_token, [Need::Has("locks")]),
    case!("L6", l6_force_release_frees_the_lock, [Need::Has("locks")]),
    case!("L6", l6_locks_can_be_listed, [Need::Has("locks"), Need::Has("scan")]),
    case!("L7", l7_shared_and_exclusive_exclude_each_other, [Need::Has("locks"), Need::Has("shared_locks")]),
    case!("L7", l7_shared_leases_end_one_by_one, [Need::Has("locks"), Need::Has("shared_locks")]),
    case!("L7", l7_semaphore_grants_its_permits, [Need::Has("locks"), Need::Has("semaphores")]),
    case!("L7", l7_permits_expire_one_by_one, [Need::Has("locks"), Need::Has("semaphores")]),
    case!("L7", l7_semaphore_holds_under_concurrency, [Need::Has("semaphores")]),
    case!("L8", l8_semantics_are_told, [Need::Has("locks"), Need::OneDriver]),
];
