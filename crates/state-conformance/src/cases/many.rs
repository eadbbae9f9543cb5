//! M1 and M2: several keys in one call, independently or all or nothing.

use acteon_state_core::{
    AtBound, BatchOp, BatchReply, Condition, DeleteOutcome, ErrorKind, Get, Increment, Put, PutOutcome, StateKey,
    TransactOp, TransactOutcome, TransactScope, Version,
};

use crate::case::{Case, Need, case};
use crate::lab::{LONG, Lab, PAST_SHORT, SHORT};
use crate::verdict::{Failure, Verdict, absent, equal, holds, present, refused};

/// Each operation is answered in its place, and does what its method does.
async fn m1_replies_are_in_the_order_of_the_operations(lab: Lab) -> Verdict {
    let [value, taken, deleted, fresh] = ["value", "taken", "deleted", "fresh"].map(|id| lab.key(id));
    let stored = lab.write(&value, "1").await?;
    lab.write(&taken, "2").await?;
    lab.write(&deleted, "3").await?;
    let put = Put::new("4").if_absent();
    let replies = lab
        .a
        .batch(&[
            BatchOp::Get(value.clone(), Get::default()),
            BatchOp::Take(taken.clone()),
            BatchOp::Delete(deleted.clone(), Condition::Always),
            BatchOp::Put(fresh.clone(), put.clone()),
            BatchOp::Get(lab.key("nothing"), Get::default()),
            BatchOp::Delete(lab.key("nothing"), Condition::Always),
        ])
        .await?;
    let replies = replies.into_iter().collect::<Result<Vec<_>, _>>()?;
    equal(&value, "number of replies", &replies.len(), &6)?;
    let got = matches!(&replies[0], BatchReply::Got(Some(entry)) if entry.version == Some(stored.version));
    holds(&value, "reply 0 is the entry that was read", got, &replies[0])?;
    let got = matches!(&replies[1], BatchReply::Taken(Some(entry)) if &entry.value[..] == b"2");
    holds(&taken, "reply 1 is the entry that was taken", got, &replies[1])?;
    equal(&deleted, "reply 2", &replies[2], &BatchReply::Deleted(DeleteOutcome::Deleted))?;
    equal(&fresh, "reply 3", &replies[3], &BatchReply::Put(PutOutcome::Applied(put.version)))?;
    equal(lab.key("nothing"), "reply 4", &replies[4], &BatchReply::Got(None))?;
    equal(lab.key("nothing"), "reply 5", &replies[5], &BatchReply::Deleted(DeleteOutcome::Absent))?;
    for gone in [&taken, &deleted] {
        absent(gone, "an entry after the batch", lab.read(gone).await?)?;
    }
    present(&fresh, "the entry that the batch wrote", lab.read(&fresh).await?).map(|_| ())
}

/// Conditions and times to live mean the same as in single calls.
async fn m1_items_mean_what_single_calls_mean(lab: Lab) -> Verdict {
    let [taken, free, expired, timed] = ["taken", "free", "expired", "timed"].map(|id| lab.key(id));
    lab.write(&taken, "1").await?;
    lab.a.put(&expired, &Put::new("1").expires_after(SHORT)).await?;
    lab.a.put(&timed, &Put::new("1").expires_after(LONG)).await?;
    lab.advance(PAST_SHORT).await;
    let replies = lab
        .a
        .batch(&[
            BatchOp::Put(taken.clone(), Put::new("2").if_absent()),
            BatchOp::Put(free.clone(), Put::new("2").when(Condition::Present)),
            BatchOp::Get(expired.clone(), Get::default()),
            BatchOp::Get(timed.clone(), Get::with_ttl()),
        ])
        .await?;
    let replies = replies.into_iter().collect::<Result<Vec<_>, _>>()?;
    let got = matches!(&replies[0], BatchReply::Put(PutOutcome::NotMet(Some(entry))) if &entry.value[..] == b"1");
    holds(&taken, "put-if-absent on a taken key", got, &replies[0])?;
    equal(&free, "put-if-present on a free key", &replies[1], &BatchReply::Put(PutOutcome::NotMet(None)))?;
    equal(&expired, "get of an expired key", &replies[2], &BatchReply::Got(None))?;
    let got = matches!(&replies[3], BatchReply::Got(Some(entry)) if entry.ttl.is_some_and(|ttl| ttl <= LONG));
    holds(&timed, "get with ttl", got, &replies[3])
}

/// An item that fails has its own error, and the others are carried out.
async fn m1_failing_item_does_not_stop_the_others(lab: Lab) -> Verdict {
    let value = lab.key("value");
    lab.write(&value, "text").await?;
    let nonsense = Put::new("x").expires_after(std::time::Duration::ZERO);
    let replies = lab
        .a
        .batch(&[
            BatchOp::Increment(value.clone(), Increment::by(1)),
            BatchOp::Increment(lab.key("first"), Increment::by(1)),
            BatchOp::Put(lab.key("nonsense"), nonsense),
            BatchOp::Delete(lab.key("nonsense"), Condition::Absent),
            BatchOp::Increment(lab.key("last"), Increment::by(2)),
        ])
        .await?;
    equal(&value, "number of replies", &replies.len(), &5)?;
    let mut replies = replies.into_iter();
    let mut next = || replies.next().unwrap_or(Ok(BatchReply::Got(None)));
    refused(&value, "reply 0, increment on a value", next(), ErrorKind::WrongType)?;
    let first = next()?;
    let got = matches!(&first, BatchReply::Incremented(outcome) if outcome.counter().value == 1);
    holds(lab.key("first"), "reply 1, increment", got, &first)?;
    refused(lab.key("nonsense"), "reply 2, put with ttl zero", next(), ErrorKind::Invalid)?;
    refused(lab.key("nonsense"), "reply 3, delete if absent", next(), ErrorKind::Invalid)?;
    let last = next()?;
    let got = matches!(&last, BatchReply::Incremented(outcome) if outcome.counter().value == 2);
    holds(lab.key("last"), "reply 4, increment", got, &last)?;
    absent(lab.key("nonsense"), "an entry under the refused item", lab.read(&lab.key("nonsense")).await?)
}

/// More items than any backend takes at once: none is dropped, and the order stays.
async fn m1_large_batches_drop_nothing(lab: Lab) -> Verdict {
    for count in [101, 1_000] {
        let keys: Vec<StateKey> = (0..count).map(|at| lab.key(&format!("{count}-{at}"))).collect();
        let puts: Vec<_> = keys.iter().map(|key| BatchOp::Put(key.clone(), Put::new(key.text().to_owned()))).collect();
        let written = lab.a.batch(&puts).await?;
        let applied =
            written.iter().filter(|reply| matches!(reply, Ok(BatchReply::Put(PutOutcome::Applied(_))))).count();
        equal("listing", "items written by one batch", &applied, &count)?;
        let gets: Vec<_> = keys.iter().map(|key| BatchOp::Get(key.clone(), Get::default())).collect();
        let replies = lab.b.batch(&gets).await?;
        equal("listing", "replies to one batch", &replies.len(), &count)?;
        for (key, reply) in keys.iter().zip(replies) {
            let reply = reply?;
            let own = matches!(&reply, BatchReply::Got(Some(entry)) if &entry.value[..] == key.text().as_bytes());
            holds(key, "the reply in its place", own, &reply)?;
        }
    }
    Ok(())
}

/// No items is an answer of no replies; more than 1,000 are refused as a whole.
async fn m1_batch_size_is_bounded(lab: Lab) -> Verdict {
    let replies = lab.a.batch(&[]).await?;
    equal("listing", "replies to an empty batch", &replies.len(), &0)?;
    let key = lab.key("many");
    let ops = vec![BatchOp::Put(key.clone(), Put::new("x")); 1_001];
    refused(&key, "a batch of 1,001", lab.a.batch(&ops).await, ErrorKind::TooLarge)?;
    absent(&key, "an entry after a refused batch", lab.read(&key).await?)
}

/// How many keys a transaction of this store may name, up to what the cases use.
fn several(lab: &Lab) -> bool {
    let limits = lab.capabilities().transact;
    limits.is_some_and(|limits| limits.scope == TransactScope::AnyKeys && limits.ops_max >= 4)
}

async fn committed(lab: &Lab, about: &str, ops: &[TransactOp]) -> Verdict {
    equal(about, "outcome of the transaction", &lab.a.transact(ops).await?, &TransactOutcome::Committed)
}

/// All operations of a transaction are applied.
async fn m2_transaction_applies_everything(lab: Lab) -> Verdict {
    let [value, gone] = ["value", "gone"].map(|id| lab.key(id));
    if !several(&lab) {
        return committed(&lab, "one key", &[TransactOp::Put(value, Put::new("x"))]).await;
    }
    lab.write(&gone, "x").await?;
    let put = Put::new("new").if_absent().expires_after(LONG);
    committed(
        &lab,
        "four keys",
        &[
            TransactOp::Check(lab.key("guard"), Condition::Absent),
            TransactOp::Put(value.clone(), put.clone()),
            TransactOp::Delete(gone.clone(), Condition::Present),
            TransactOp::Increment(lab.key("counter"), Increment::by(3)),
        ],
    )
    .await?;
    let entry = present(&value, "value", lab.read_ttl(&value).await?)?;
    equal(&value, "version", &entry.version, &Some(put.version))?;
    holds(&value, "its ttl was set", entry.ttl.is_some(), entry.ttl)?;
    absent(&gone, "an entry that the transaction deleted", lab.read(&gone).await?)?;
    let counter = present(lab.key("counter"), "counter", lab.read(&lab.key("counter")).await?)?;
    equal(lab.key("counter"), "counter", &counter.value, &"3".into())
}

/// One condition that does not hold, and nothing is applied; its place and the entry in the way come back.
async fn m2_refused_transaction_changes_nothing(lab: Lab) -> Verdict {
    let [first, blocked, last] = ["first", "blocked", "last"].map(|id| lab.key(id));
    let way = lab.write(&blocked, "in the way").await?;
    let mut refusing = vec![
        TransactOp::Check(blocked.clone(), Condition::Absent),
        TransactOp::Put(blocked.clone(), Put::new("x").if_absent()),
    ];
    if lab.capabilities().cas {
        refusing.push(TransactOp::Delete(blocked.clone(), Condition::Version(Version::draw())));
        refusing.push(TransactOp::Put(blocked.clone(), Put::new("x").if_version(Version::draw())));
    }
    for refusing in refusing {
        let (ops, expected_index) = if several(&lab) {
            let write = |key: &StateKey| TransactOp::Put(key.clone(), Put::new("x"));
            (vec![write(&first), refusing.clone(), write(&last)], 1)
        } else {
            (vec![refusing.clone()], 0)
        };
        let outcome = lab.a.transact(&ops).await?;
        let TransactOutcome::Refused { index, current } = outcome else {
            return Err(Failure::new(format!("{refusing:?}\n  expected: Refused\n       got: {outcome:?}")));
        };
        equal(&blocked, "index of the operation that was refused", &index, &expected_index)?;
        let current = present(&blocked, "the entry in the way", current)?;
        equal(&blocked, "version of the entry in the way", &current.version, &Some(way.version))?;
        for key in [&first, &last] {
            absent(key, "an entry after a refused transaction", lab.read(key).await?)?;
        }
        let entry = present(&blocked, "the entry in the way", lab.read(&blocked).await?)?;
        equal(&blocked, "its version", &entry.version, &Some(way.version))?;
    }
    Ok(())
}

/// A bound refuses a transaction like a condition does.
async fn m2_bounds_refuse_a_transaction(lab: Lab) -> Verdict {
    let [stock, order] = ["stock", "order"].map(|id| lab.key(id));
    lab.a.increment(&stock, Increment::by(2)).await?;
    let mut ops = vec![TransactOp::Increment(stock.clone(), Increment::by(-3).at_least(0))];
    if several(&lab) {
        ops.insert(0, TransactOp::Put(order.clone(), Put::new("three")));
    }
    let outcome = lab.a.transact(&ops).await?;
    let refused = matches!(&outcome, TransactOutcome::Refused { index, current: Some(entry) }
        if *index == ops.len() - 1 && &entry.value[..] == b"2");
    holds(&stock, "a draw below the bound is refused, with the counter", refused, &outcome)?;
    absent(&order, "an order after a refused draw", lab.read(&order).await?)?;
    let counter = present(&stock, "counter", lab.read(&stock).await?)?;
    equal(&stock, "counter", &counter.value, &"2".into())
}

/// A wrong type or an overflow fails the transaction, and nothing is applied.
async fn m2_failing_operation_applies_nothing(lab: Lab) -> Verdict {
    let [value, counter, other] = ["value", "counter", "other"].map(|id| lab.key(id));
    lab.write(&value, "text").await?;
    lab.a.increment(&counter, Increment::by(i64::MAX)).await?;
    let write = TransactOp::Put(other.clone(), Put::new("x"));
    for (failing, kind) in [
        (TransactOp::Increment(value.clone(), Increment::by(1)), ErrorKind::WrongType),
        (TransactOp::Increment(counter.clone(), Increment::by(1)), ErrorKind::Overflow),
    ] {
        let ops = if several(&lab) { vec![write.clone(), failing] } else { vec![failing] };
        refused(ops[ops.len() - 1].key(), "a failing operation in a transaction", lab.a.transact(&ops).await, kind)?;
        absent(&other, "an entry after a failed transaction", lab.read(&other).await?)?;
    }
    Ok(())
}

/// A transaction that is sent again, since its answer was lost, finds its own version: it is committed, once.
async fn m2_repeated_transaction_is_applied_once(lab: Lab) -> Verdict {
    let [value, counter] = ["value", "counter"].map(|id| lab.key(id));
    let mut ops = vec![TransactOp::Put(value.clone(), Put::new("x").if_absent())];
    if several(&lab) {
        ops.insert(0, TransactOp::Check(lab.key("guard"), Condition::Absent));
        ops.insert(0, TransactOp::Increment(counter.clone(), Increment::by(2).at_most(2)));
    }
    committed(&lab, "the first time", &ops).await?;
    if several(&lab) {
        // What held the first time need not hold any more.
        lab.write(&lab.key("guard"), "x").await?;
    }
    let again = lab.b.transact(&ops).await?;
    equal("the second time", "outcome of the transaction", &again, &TransactOutcome::Committed)?;
    if several(&lab) {
        let stored = present(&counter, "counter", lab.read(&counter).await?)?;
        equal(&counter, "counter", &stored.value, &"2".into())?;
    }
    present(&value, "value", lab.read(&value).await?).map(|_| ())
}

/// Requests that mean nothing are refused before anything happens.
async fn m2_nonsense_is_refused(lab: Lab) -> Verdict {
    let key = lab.key("nonsense");
    refused("no operations", "transaction", lab.a.transact(&[]).await, ErrorKind::Invalid)?;
    let twice = [TransactOp::Put(key.clone(), Put::new("1")), TransactOp::Delete(key.clone(), Condition::Always)];
    refused(&key, "two operations on one key", lab.a.transact(&twice).await, ErrorKind::Invalid)?;
    let clamped = Increment { at_bound: AtBound::Clamp, ..Increment::by(1).at_most(0) };
    let clamped = lab.a.transact(&[TransactOp::Increment(key.clone(), clamped)]).await;
    refused(&key, "a clamped increment", clamped, ErrorKind::Invalid)?;
    if let Some(limits) = lab.capabilities().transact.filter(|limits| limits.ops_max < 10_000) {
        let ops: Vec<_> =
            (0..=limits.ops_max).map(|at| TransactOp::Put(lab.key(&at.to_string()), Put::new("x"))).collect();
        refused(&key, "more operations than declared", lab.a.transact(&ops).await, ErrorKind::TooLarge)?;
        if limits.scope == TransactScope::OneKey && limits.ops_max > 1 {
            refused(&key, "more keys than declared", lab.a.transact(&ops[..2]).await, ErrorKind::Unsupported)?;
        }
    }
    absent(&key, "an entry after refused transactions", lab.read(&key).await?)
}

/// As many operations as declared are carried out.
async fn m2_largest_transaction_commits(lab: Lab) -> Verdict {
    if !several(&lab) {
        return Ok(());
    }
    let count = lab.capabilities().transact.map_or(1, |limits| limits.ops_max.min(1_000));
    let ops: Vec<_> = (0..count).map(|at| TransactOp::Put(lab.key(&at.to_string()), Put::new("x"))).collect();
    committed(&lab, "as many operations as declared", &ops).await?;
    let last = lab.key(&(count - 1).to_string());
    present(&last, "the last entry of a large transaction", lab.read(&last).await?).map(|_| ())
}

/// Money moved between accounts by concurrent transactions is neither made nor lost, and no reader sees half a transfer.
async fn m2_concurrent_transfers_keep_the_sum(lab: Lab) -> Verdict {
    const ACCOUNTS: usize = 4;
    const START: i64 = 100;
    if !several(&lab) {
        return Ok(());
    }
    let accounts: Vec<StateKey> = (0..ACCOUNTS).map(|at| lab.key(&format!("account-{at}"))).collect();
    for account in &accounts {
        lab.a.increment(account, Increment::by(START)).await?;
    }
    let names = accounts.clone();
    lab.together(32, move |task, store| {
        let names = names.clone();
        async move {
            for round in 0..20 {
                let (from, to) = (task % ACCOUNTS, (task + 1 + round % (ACCOUNTS - 1)) % ACCOUNTS);
                let draw = Increment::by(-7).at_least(0);
                let ops = [
                    TransactOp::Increment(names[from].clone(), draw),
                    TransactOp::Increment(names[to].clone(), Increment::by(7)),
                ];
                store.transact(&ops).await?;
            }
            Ok(())
        }
    })
    .await?;
    let mut sum = 0;
    for account in &accounts {
        let balance = lab.a.increment(account, Increment::by(0)).await?.counter().value;
        holds(account, "a balance with a bound at zero", balance >= 0, balance)?;
        sum += balance;
    }
    equal("listing", "sum of all accounts", &sum, &(START * ACCOUNTS as i64))
}

pub(crate) const CASES: &[Case] = &[
    case!("M1", m1_replies_are_in_the_order_of_the_operations),
    case!("M1", m1_items_mean_what_single_calls_mean),
    case!("M1", m1_failing_item_does_not_stop_the_others, [Need::Has("counters")]),
    case!("M1", m1_large_batches_drop_nothing),
    case!("M1", m1_batch_size_is_bounded),
    case!("M2", m2_transaction_applies_everything, [Need::Has("transact"), Need::Has("counters")]),
    case!("M2", m2_refused_transaction_changes_nothing, [Need::Has("transact")]),
    case!("M2", m2_bounds_refuse_a_transaction, [Need::Has("transact"), Need::Has("counters")]),
    case!("M2", m2_failing_operation_applies_nothing, [Need::Has("transact"), Need::Has("counters")]),
    case!("M2", m2_repeated_transaction_is_applied_once, [Need::Has("transact"), Need::Has("counters")]),
    case!("M2", m2_nonsense_is_refused, [Need::Has("transact")]),
    case!("M2", m2_largest_transaction_commits, [Need::Has("transact")]),
    case!("M2", m2_concurrent_transfers_keep_the_sum, [Need::Has("transact"), Need::Has("counters")]),
];
