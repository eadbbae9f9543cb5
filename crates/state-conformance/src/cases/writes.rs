//! W: conditional writes in one atomic step; a condition that does not hold is an answer, not an error.

use std::sync::Arc;

use acteon_state_core::{
    Condition, DeleteOutcome, Entry, FencingToken, Get, Increment, Put, PutOutcome, StateKey, StateStore, Ttl, Version,
};

use crate::case::{Case, Need, case};
use crate::lab::{LONG, Lab, PAST_SHORT, SHORT};
use crate::verdict::{Failure, Verdict, absent, applied, equal, holds, not_met, present};

/// Contenders in the cases of N concurrent callers.
const CONTENDERS: usize = 64;
/// How often they meet.
const ROUNDS: usize = 8;

fn token(number: u64) -> Verdict<FencingToken> {
    FencingToken::new(number).map_err(Failure::from)
}

/// `Absent` writes to a free key only, and says what is there otherwise.
async fn w1_absent_writes_only_where_nothing_is(lab: Lab) -> Verdict {
    let key = lab.key("absent");
    let first = Put::new("1").if_absent().expires_after(LONG);
    applied(&key, "put-if-absent on a free key", lab.a.put(&key, &first).await?)?;
    let second = lab.b.put(&key, &Put::new("2").if_absent()).await?;
    let current = present(&key, "the entry in the way", not_met(&key, "put-if-absent on a taken key", second)?)?;
    equal(&key, "version of the entry in the way", &current.version, &Some(first.version))?;
    equal(&key, "value of the entry in the way", &current.value, &first.value)?;
    let entry = present(&key, "entry", lab.read_ttl(&key).await?)?;
    holds(&key, "a refused write leaves the ttl alone", entry.ttl.is_some(), entry.ttl)
}

/// `Present` writes over something only.
async fn w1_present_writes_only_where_something_is(lab: Lab) -> Verdict {
    let key = lab.key("present");
    let put = lab.a.put(&key, &Put::new("1").when(Condition::Present)).await?;
    equal(&key, "put-if-present on a free key", &put, &PutOutcome::NotMet(None))?;
    absent(&key, "an entry after a refused write", lab.read(&key).await?)?;
    lab.write(&key, "1").await?;
    applied(&key, "put-if-present on a taken key", lab.a.put(&key, &Put::new("2").when(Condition::Present)).await?)?;
    let entry = present(&key, "entry", lab.read(&key).await?)?;
    equal(&key, "value", &entry.value, &"2".into())
}

/// Compare-and-swap needs exactly the current version.
async fn w1_version_writes_only_over_that_version(lab: Lab) -> Verdict {
    let key = lab.key("swap");
    let first = lab.write(&key, "1").await?;
    let second = Put::new("2").if_version(first.version);
    applied(&key, "compare-and-swap on the current version", lab.b.put(&key, &second).await?)?;
    for stale in [first.version, Version::draw()] {
        let swap = lab.a.put(&key, &Put::new("3").if_version(stale)).await?;
        let current = present(&key, "current entry", not_met(&key, "compare-and-swap on another version", swap)?)?;
        let expected = (second.value.clone(), Some(second.version));
        equal(&key, "the entry that comes back", &(current.value, current.version), &expected)?;
    }
    Ok(())
}

/// Compare-and-swap on an absent key is refused with nothing in the way, and creates nothing.
async fn w1_version_never_matches_an_absent_key(lab: Lab) -> Verdict {
    let key = lab.key("nothing");
    let swap = lab.a.put(&key, &Put::new("1").if_version(Version::draw())).await?;
    equal(&key, "compare-and-swap on an absent key", &swap, &PutOutcome::NotMet(None))?;
    absent(&key, "an entry after a refused write", lab.read(&key).await?)
}

/// What happens to the ttl is the write's choice under every condition.
async fn w1_ttl_choice_holds_under_every_condition(lab: Lab) -> Verdict {
    let mut conditions = vec![Condition::Always, Condition::Present];
    if lab.capabilities().cas {
        conditions.push(Condition::Version(Version::draw()));
    }
    if lab.capabilities().fencing {
        conditions.push(Condition::Fence(token(1)?));
    }
    for (at, condition) in conditions.into_iter().enumerate() {
        for (ttl, expires) in [(Ttl::Keep, true), (Ttl::Clear, false), (Ttl::After(LONG), true)] {
            let key = lab.key(&format!("{at}-{ttl:?}"));
            let first = Put::new("1").expires_after(LONG);
            lab.a.put(&key, &first).await?;
            let condition = match condition {
                Condition::Version(_) => Condition::Version(first.version),
                other => other,
            };
            applied(&key, "conditional write", lab.a.put(&key, &Put::new("2").when(condition).ttl(ttl)).await?)?;
            let entry = present(&key, "entry", lab.read_ttl(&key).await?)?;
            let what = format!("after put({condition:?}, {ttl:?}) over a ttl the entry expires: {expires}");
            holds(&key, &what, entry.ttl.is_some() == expires, entry.ttl)?;
        }
    }
    Ok(())
}

/// The same put sent twice is one operation: the second finds its own version and reports success.
async fn w1_repeated_put_recognises_its_own_version(lab: Lab) -> Verdict {
    let key = lab.key("repeated");
    let create = Put::new("1").if_absent();
    for attempt in ["first", "repeated"] {
        let version = applied(&key, &format!("{attempt} put-if-absent"), lab.a.put(&key, &create).await?)?;
        equal(&key, "its version", &version, &create.version)?;
    }
    if lab.capabilities().cas {
        let swap = Put::new("2").if_version(create.version);
        for attempt in ["first", "repeated"] {
            applied(&key, &format!("{attempt} compare-and-swap"), lab.b.put(&key, &swap).await?)?;
        }
        let entry = present(&key, "entry", lab.read(&key).await?)?;
        equal(&key, "value", &entry.value, &"2".into())?;
    }
    Ok(())
}

/// A write stores its token, and one with a lower token is refused.
async fn w2_lower_token_is_refused(lab: Lab) -> Verdict {
    let key = lab.key("fenced");
    let first = Put::new("1").fenced_by(token(10)?);
    applied(&key, "fenced write on a free key", lab.a.put(&key, &first).await?)?;
    let late = lab.b.put(&key, &Put::new("late").fenced_by(token(9)?)).await?;
    let current = present(&key, "entry", not_met(&key, "write with a lower token", late)?)?;
    let expected = Entry { value: "1".into(), version: Some(first.version), fence: Some(token(10)?), ttl: None };
    equal(&key, "the entry that comes back", &Entry { ttl: None, ..current }, &expected)?;
    applied(&key, "write with the same token", lab.b.put(&key, &Put::new("2").fenced_by(token(10)?)).await?)?;
    applied(&key, "write with a higher token", lab.b.put(&key, &Put::new("3").fenced_by(token(11)?)).await?)?;
    let entry = present(&key, "entry", lab.read(&key).await?)?;
    equal(&key, "stored token", &entry.fence, &Some(token(11)?))
}

/// Tokens are compared as numbers, at both ends of their range.
async fn w2_tokens_compare_as_numbers(lab: Lab) -> Verdict {
    let key = lab.key("numbers");
    for number in [1, 2, 9, 10, 99, 1 << 32, (1 << 53) - 2, (1 << 53) - 1] {
        let put = lab.a.put(&key, &Put::new("x").fenced_by(token(number)?)).await?;
        applied(&key, &format!("write with the rising token {number}"), put)?;
        let entry = present(&key, "entry", lab.read(&key).await?)?;
        equal(&key, "stored token", &entry.fence, &Some(token(number)?))?;
    }
    not_met(&key, "write one below", lab.a.put(&key, &Put::new("x").fenced_by(token((1 << 53) - 2)?)).await?)?;
    Ok(())
}

/// Writes under other conditions neither check nor forget the fence.
async fn w2_fence_survives_unfenced_writes(lab: Lab) -> Verdict {
    let key = lab.key("survives");
    lab.a.put(&key, &Put::new("1").fenced_by(token(10)?)).await?;
    for put in [Put::new("2"), Put::new("3").when(Condition::Present), Put::new("4").expires_after(LONG)] {
        applied(&key, "unfenced write over a fence", lab.a.put(&key, &put).await?)?;
        let entry = present(&key, "entry", lab.read(&key).await?)?;
        equal(&key, "token after an unfenced write", &entry.fence, &Some(token(10)?))?;
    }
    not_met(&key, "write with a lower token", lab.b.put(&key, &Put::new("late").fenced_by(token(9)?)).await?)?;
    Ok(())
}

/// A delete, a take and expiry forget the fence.
async fn w2_fence_is_forgotten_with_its_entry(lab: Lab) -> Verdict {
    for end in ["delete", "take", "expiry"] {
        let key = lab.key(end);
        lab.a.put(&key, &Put::new("1").fenced_by(token(10)?).expires_after(SHORT)).await?;
        match end {
            "delete" => lab.a.delete(&key, Condition::Always).await.map(|_| ())?,
            "take" => lab.a.take(&key).await.map(|_| ())?,
            _ => lab.advance(PAST_SHORT).await,
        }
        applied(
            &key,
            "write with a lower token on a new entry",
            lab.a.put(&key, &Put::new("2").fenced_by(token(1)?)).await?,
        )?;
        let entry = present(&key, "entry", lab.read(&key).await?)?;
        equal(&key, "token of the new entry", &entry.fence, &Some(token(1)?))?;
    }
    Ok(())
}

/// A lower token does not delete either.
async fn w2_fence_guards_deletes(lab: Lab) -> Verdict {
    let key = lab.key("deletes");
    lab.a.put(&key, &Put::new("1").fenced_by(token(10)?)).await?;
    let late = lab.b.delete(&key, Condition::Fence(token(9)?)).await?;
    holds(&key, "a delete with a lower token is refused", matches!(late, DeleteOutcome::NotMet(_)), &late)?;
    let deleted = lab.b.delete(&key, Condition::Fence(token(10)?)).await?;
    equal(&key, "delete with the same token", &deleted, &DeleteOutcome::Deleted)
}

/// Of two holders that write by turns, the one with the lower token never gets through again.
async fn w2_highest_token_wins_under_concurrency(lab: Lab) -> Verdict {
    let key = lab.key("race");
    let name = key.clone();
    let outcomes = lab
        .together(CONTENDERS, move |task, store| {
            let key = name.clone();
            async move {
                let token = token(task as u64 + 1)?;
                Ok(store.put(&key, &Put::new(token.to_string()).fenced_by(token)).await?.is_applied())
            }
        })
        .await?;
    equal(&key, "the highest token is applied", &outcomes.last(), &Some(&true))?;
    let entry = present(&key, "entry", lab.read(&key).await?)?;
    equal(&key, "the value in the end", &entry.value, &CONTENDERS.to_string().into())
}

/// A delete reports whether something was deleted, and its condition.
async fn w3_delete_reports_what_it_did(lab: Lab) -> Verdict {
    let key = lab.key("deleted");
    equal(&key, "delete of an absent key", &lab.a.delete(&key, Condition::Always).await?, &DeleteOutcome::Absent)?;
    lab.write(&key, "1").await?;
    equal(&key, "delete", &lab.a.delete(&key, Condition::Present).await?, &DeleteOutcome::Deleted)?;
    absent(&key, "an entry after its delete", lab.read(&key).await?)?;
    equal(&key, "second delete", &lab.a.delete(&key, Condition::Always).await?, &DeleteOutcome::Absent)
}

/// Compare-and-delete deletes the named version only.
async fn w3_delete_by_version_spares_other_versions(lab: Lab) -> Verdict {
    let key = lab.key("compared");
    let first = lab.write(&key, "1").await?;
    let second = lab.write(&key, "2").await?;
    let stale = lab.a.delete(&key, Condition::Version(first.version)).await?;
    let DeleteOutcome::NotMet(current) = stale else {
        return Err(Failure::new(format!(
            "{key}: delete of an old version\n  expected: NotMet\n       got: {stale:?}"
        )));
    };
    equal(&key, "version of the entry that stayed", &current.version, &Some(second.version))?;
    let deleted = lab.b.delete(&key, Condition::Version(second.version)).await?;
    equal(&key, "delete of the current version", &deleted, &DeleteOutcome::Deleted)?;
    let again = lab.b.delete(&key, Condition::Version(second.version)).await?;
    equal(&key, "delete of a version that is gone", &again, &DeleteOutcome::Absent)
}

/// Of N concurrent puts-if-absent one wins, and the others see it.
async fn w4_one_of_n_concurrent_puts_if_absent_wins(lab: Lab) -> Verdict {
    for round in 0..ROUNDS {
        let key = lab.key(&format!("round-{round}"));
        let name = key.clone();
        let outcomes = lab
            .together(CONTENDERS, move |task, store| {
                let key = name.clone();
                async move { Ok(store.put(&key, &Put::new(task.to_string()).if_absent()).await?) }
            })
            .await?;
        one_winner(&lab, &key, outcomes).await?;
    }
    Ok(())
}

/// The same when the entry of an earlier generation is expiring at that very moment.
async fn w4_one_put_if_absent_wins_while_the_old_entry_expires(lab: Lab) -> Verdict {
    for round in 0..ROUNDS {
        let key = lab.key(&format!("expiring-{round}"));
        let old = Put::new("old").expires_after(SHORT);
        lab.a.put(&key, &old).await?;
        let clock = lab.clone();
        let moving = tokio::spawn(async move { clock.advance(PAST_SHORT).await });
        let (name, old_version) = (key.clone(), old.version);
        let outcomes = lab
            .together(CONTENDERS, move |task, store| {
                let key = name.clone();
                async move { claim_next_generation(&*store, &key, task, old_version).await }
            })
            .await?;
        moving.await.map_err(|error| Failure::new(format!("the clock's task panicked: {error}")))?;
        one_winner(&lab, &key, outcomes).await?;
    }
    Ok(())
}

/// Tries until the old generation is over; the outcome belongs to the next one.
async fn claim_next_generation(
    store: &dyn StateStore,
    key: &StateKey,
    task: usize,
    old: Version,
) -> Verdict<PutOutcome> {
    loop {
        // A new put each time: the same one again would be a repetition.
        let outcome = store.put(key, &Put::new(task.to_string()).if_absent().expires_after(LONG)).await?;
        match &outcome {
            PutOutcome::NotMet(Some(entry)) if entry.version == Some(old) => tokio::task::yield_now().await,
            _ => return Ok(outcome),
        }
    }
}

/// Of N concurrent compare-and-swaps on one version one wins.
async fn w4_one_of_n_concurrent_swaps_wins(lab: Lab) -> Verdict {
    let key = lab.key("swapped");
    let mut version = lab.write(&key, "start").await?.version;
    for _ in 0..ROUNDS {
        let name = key.clone();
        let outcomes = lab
            .together(CONTENDERS, move |task, store| {
                let key = name.clone();
                async move { Ok(store.put(&key, &Put::new(task.to_string()).if_version(version)).await?) }
            })
            .await?;
        version = one_winner(&lab, &key, outcomes).await?;
    }
    Ok(())
}

/// Exactly one was applied, it is what is stored, and everybody else was told so.
async fn one_winner(lab: &Lab, key: &StateKey, outcomes: Vec<PutOutcome>) -> Verdict<Version> {
    let mut winners = Vec::new();
    let mut seen_by_losers = Vec::new();
    for outcome in outcomes {
        match outcome {
            PutOutcome::Applied(version) => winners.push(version),
            PutOutcome::NotMet(current) => seen_by_losers.push(current.and_then(|entry| entry.version)),
        }
    }
    equal(key, "winners", &winners.len(), &1)?;
    let entry = present(key, "entry", lab.read(key).await?)?;
    equal(key, "version that is stored in the end", &entry.version, &Some(winners[0]))?;
    let agree = seen_by_losers.iter().all(|seen| *seen == Some(winners[0]));
    holds(key, "every loser is shown the winner's entry", agree, seen_by_losers)?;
    Ok(winners[0])
}

/// N tasks that each change a value by a compare-and-swap loop lose no change.
async fn w4_swap_loops_lose_no_update(lab: Lab) -> Verdict {
    const TASKS: usize = 16;
    const EACH: usize = 10;
    let key = lab.key("sum");
    lab.write(&key, "0").await?;
    let name = key.clone();
    lab.together(TASKS, move |_, store| {
        let key = name.clone();
        async move {
            for _ in 0..EACH {
                add_one(&store, &key).await?;
            }
            Ok(())
        }
    })
    .await?;
    let entry = present(&key, "entry", lab.read(&key).await?)?;
    equal(&key, "sum of all changes", &entry.value, &(TASKS * EACH).to_string().into())
}

async fn add_one(store: &Arc<dyn StateStore>, key: &StateKey) -> Verdict {
    loop {
        let entry = present(key, "entry", store.get(key, Get::default()).await?)?;
        let sum: usize = std::str::from_utf8(&entry.value).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        let version = present(key, "version", entry.version)?;
        if store.put(key, &Put::new((sum + 1).to_string()).if_version(version)).await?.is_applied() {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}

/// `take` returns the entry and leaves nothing.
async fn w5_take_reads_and_deletes(lab: Lab) -> Verdict {
    let key = lab.key("taken");
    absent(&key, "take of an absent key", lab.a.take(&key).await?)?;
    let put = lab.write(&key, "x").await?;
    let entry = present(&key, "taken entry", lab.b.take(&key).await?)?;
    equal(&key, "value and version", &(entry.value, entry.version), &("x".into(), Some(put.version)))?;
    absent(&key, "an entry after it was taken", lab.a.get(&key, Get::default()).await?)
}

/// Of N concurrent takes one gets the entry.
async fn w5_one_of_n_concurrent_takes_gets_the_entry(lab: Lab) -> Verdict {
    for round in 0..ROUNDS {
        let key = lab.key(&format!("take-{round}"));
        lab.write(&key, "x").await?;
        let name = key.clone();
        let taken = lab
            .together(CONTENDERS, move |_, store| {
                let key = name.clone();
                async move { Ok(store.take(&key).await?.is_some()) }
            })
            .await?;
        equal(&key, "takes that got the entry", &taken.iter().filter(|got| **got).count(), &1)?;
    }
    Ok(())
}

/// A counter can be taken as well.
async fn w5_take_returns_a_counter_as_text(lab: Lab) -> Verdict {
    let key = lab.key("counter");
    lab.a.increment(&key, Increment::by(-5)).await?;
    let entry = present(&key, "taken counter", lab.b.take(&key).await?)?;
    equal(&key, "value and version", &(entry.value, entry.version), &("-5".into(), None))?;
    let outcome = lab.a.increment(&key, Increment::by(1)).await?;
    equal(&key, "a counter after it was taken begins at 0", &outcome.counter().value, &1)
}

pub(crate) const CASES: &[Case] = &[
    case!("W1", w1_absent_writes_only_where_nothing_is),
    case!("W1", w1_present_writes_only_where_something_is),
    case!("W1", w1_version_writes_only_over_that_version, [Need::Has("cas")]),
    case!("W1", w1_version_never_matches_an_absent_key, [Need::Has("cas")]),
    case!("W1", w1_ttl_choice_holds_under_every_condition),
    case!("W1", w1_repeated_put_recognises_its_own_version),
    case!("W2", w2_lower_token_is_refused, [Need::Has("fencing")]),
    case!("W2", w2_tokens_compare_as_numbers, [Need::Has("fencing")]),
    case!("W2", w2_fence_survives_unfenced_writes, [Need::Has("fencing")]),
    case!("W2", w2_fence_is_forgotten_with_its_entry, [Need::Has("fencing")]),
    case!("W2", w2_fence_guards_deletes, [Need::Has("fencing")]),
    case!("W2", w2_highest_token_wins_under_concurrency, [Need::Has("fencing")]),
    case!("W3", w3_delete_reports_what_it_did),
    case!("W3", w3_delete_by_version_spares_other_versions, [Need::Has("cas")]),
    case!("W4", w4_one_of_n_concurrent_puts_if_absent_wins),
    case!("W4", w4_one_put_if_absent_wins_while_the_old_entry_expires),
    case!("W4", w4_one_of_n_concurrent_swaps_wins, [Need::Has("cas")]),
    case!("W4", w4_swap_loops_lose_no_update, [Need::Has("cas")]),
    case!("W5", w5_take_reads_and_deletes),
    case!("W5", w5_one_of_n_concurrent_takes_gets_the_entry),
    case!("W5", w5_take_returns_a_counter_as_text, [Need::Has("counters")]),
];
