//! Requests that are sent again: those that recognise themselves, and those that must not be sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use acteon_state_core::layer::Layered;
use acteon_state_core::layer::retry::{Policy, Retry};
use acteon_state_core::{
    Effect, FencingToken, Get, Increment, Put, PutOutcome, RateLimit, StateStore, TransactOp, TransactOutcome,
};
use acteon_test_support::DynamoFault;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};

use crate::{Bed, INTERNAL, LATE, THROTTLED, UNAVAILABLE, key, once};

const HOUR: Duration = Duration::from_secs(3_600);

/// Puts that recognise themselves when they are repeated, each with a key that is prepared for it.
async fn conditional_puts(bed: &Bed, name: &str) -> Vec<(acteon_state_core::StateKey, Put)> {
    let old = Put::new("old");
    let expected = old.version;
    let fence = FencingToken::new(7).unwrap();
    let puts = [
        ("absent", Put::new("new").if_absent()),
        ("version", Put::new("new").if_version(expected)),
        ("fence", Put::new("new").fenced_by(fence)),
        ("always", Put::new("new")),
    ];
    let mut prepared = Vec::new();
    for (condition, put) in puts {
        let key = key(&format!("{name} {condition}"));
        if condition == "version" {
            bed.direct.put(&key, &old).await.unwrap();
        }
        prepared.push((key, put));
    }
    prepared
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_whose_answer_was_lost_recognises_its_own_version_when_it_is_repeated() {
    let bed = Bed::start().await;
    for (key, put) in conditional_puts(&bed, "lost").await {
        bed.proxy.rule(once(DynamoFault::LoseReply));
        let error = bed.store.put(&key, &put).await.unwrap_err();
        assert_eq!(error.effect(), Effect::Unknown, "{key}: {error}");
        assert_eq!(bed.store.put(&key, &put).await.unwrap(), PutOutcome::Applied(put.version), "{key}");
        let entry = bed.direct.get(&key, Get::default()).await.unwrap().unwrap();
        assert_eq!((entry.version, &*entry.value), (Some(put.version), &b"new"[..]), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conditional_put_that_arrives_late_does_not_undo_what_came_after_it() {
    let bed = Bed::start().await;
    for (key, put) in conditional_puts(&bed, "late").await.into_iter().take(2) {
        bed.proxy.rule(once(DynamoFault::DelayRequest(LATE)));
        let error = bed.store.put(&key, &put).await.unwrap_err();
        assert_eq!(error.effect(), Effect::Unknown, "{key}: {error}");
        // It is repeated, and somebody builds on it, before the first of the two arrives.
        assert_eq!(bed.store.put(&key, &put).await.unwrap(), PutOutcome::Applied(put.version), "{key}");
        let next = Put::new("next").if_version(put.version);
        assert!(bed.direct.put(&key, &next).await.unwrap().is_applied(), "{key}");
        bed.until_settled().await;
        assert_eq!(bed.direct.get(&key, Get::default()).await.unwrap().unwrap().value, "next", "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_answer_is_lost_once_is_known_to_be_committed_once() {
    let bed = Bed::start().await;
    for fault in [DynamoFault::LoseReply, DynamoFault::LoseRequest, DynamoFault::ApplyThenFail(INTERNAL)] {
        let (counter, value) = (key(&format!("{fault:?} counter")), key(&format!("{fault:?} value")));
        let ops = [
            TransactOp::Increment(counter.clone(), Increment::by(1)),
            TransactOp::Put(value.clone(), Put::new("v").if_absent()),
        ];
        bed.proxy.rule(once(fault));
        assert_eq!(bed.store.transact(&ops).await.unwrap(), TransactOutcome::Committed, "{fault:?}");
        assert_eq!(bed.count(&counter).await, Some(1), "{fault:?}");
        assert_eq!(bed.direct.get(&value, Get::default()).await.unwrap().unwrap().value, "v", "{fault:?}");
        // The same again, as by a caller that never heard of it: it recognises the version of its put.
        assert_eq!(bed.store.transact(&ops).await.unwrap(), TransactOutcome::Committed, "{fault:?}");
        assert_eq!(bed.count(&counter).await, Some(1), "{fault:?}");
    }
}

/// Half of the writes pass; the others meet a fault each, in a fixed order.
fn unsteady() -> impl Fn(&str) -> DynamoFault {
    const FAULTS: [DynamoFault; 7] = [
        DynamoFault::LoseReply,
        DynamoFault::Refuse(THROTTLED),
        DynamoFault::LoseRequest,
        DynamoFault::ApplyThenFail(INTERNAL),
        DynamoFault::Refuse(INTERNAL),
        DynamoFault::ApplyThenFail(UNAVAILABLE),
        DynamoFault::DelayRequest(Duration::from_millis(20)),
    ];
    let count = AtomicU64::new(0);
    move |operation| {
        if !crate::is_write(operation) {
            return DynamoFault::None;
        }
        let number = usize::try_from(count.fetch_add(1, Ordering::Relaxed)).unwrap();
        // 3 and 7 have no common factor: every fault meets first attempts and repetitions alike.
        if number.is_multiple_of(2) { DynamoFault::None } else { FAULTS[number / 2 * 3 % FAULTS.len()] }
    }
}

fn with_retries(bed: &Bed) -> Arc<dyn StateStore> {
    let policy = Policy { attempts_max: 4, backoff: Duration::from_millis(1), budget: 10_000, ..Policy::default() };
    Layered::wrap(Arc::new(bed.store.clone()), Retry::new(policy))
}

/// What callers were told, and what is true.
#[derive(Debug, Default)]
struct Told {
    applied: u64,
    not_applied: u64,
    unknown: u64,
}

impl Told {
    fn count<T>(&mut self, outcome: &acteon_state_core::Result<T>) {
        match outcome {
            Ok(_) => self.applied += 1,
            Err(error) if error.effect() == Effect::Unknown => self.unknown += 1,
            Err(_) => self.not_applied += 1,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_increment_is_never_applied_twice_by_the_retry_layer() {
    const CALLS: usize = 400;
    let bed = Bed::start().await;
    let store = with_retries(&bed);
    let shared = key("shared");
    bed.proxy.rule(unsteady());
    // Each call adds to a counter of its own, in which a second application shows, and to the one of all.
    let outcomes: Vec<_> = stream::iter(0..CALLS)
        .map(|number| {
            let (store, shared) = (&store, &shared);
            async move {
                let own = key(&format!("own {number}"));
                let outcomes = tokio::join!(
                    store.increment(&own, Increment::by(1)),
                    store.increment(shared, Increment::by(1).at_most(i64::MAX))
                );
                (own, outcomes)
            }
        })
        .buffer_unordered(16)
        .collect()
        .await;
    bed.proxy.heal();
    bed.until_settled().await;
    let (mut own_told, mut shared_told) = (Told::default(), Told::default());
    for (key, (own, shared)) in &outcomes {
        own_told.count(own);
        shared_told.count(shared);
        let count = bed.count(key).await.unwrap_or(0);
        match own {
            Ok(outcome) => assert!(outcome.is_applied() && count == 1, "{key}: {count}"),
            Err(error) if error.effect() == Effect::Unknown => assert!(count <= 1, "{key}: {count}"),
            Err(error) => assert_eq!(count, 0, "{key}: {error}"),
        }
    }
    for told in [&own_told, &shared_told] {
        assert!(told.applied > 0 && told.unknown > 0, "the faults were not met: {told:?}");
    }
    let count = bed.count(&shared).await.unwrap();
    let Told { applied, unknown, .. } = shared_told;
    assert!((applied..=applied + unknown).contains(&count), "{count} is not within what was told: {shared_told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn conditional_puts_through_the_retry_layer_are_right_about_having_won() {
    const KEYS: usize = 100;
    const RIVALS: usize = 4;
    let bed = Bed::start().await;
    let store = with_retries(&bed);
    bed.proxy.rule(unsteady());
    let races = (0..KEYS).map(|number| {
        let store = &store;
        async move {
            let key = key(&format!("raced {number}"));
            let puts: Vec<_> = (0..RIVALS).map(|rival| Put::new(format!("{rival}")).if_absent()).collect();
            let outcomes = join_all(puts.iter().map(|put| store.put(&key, put))).await;
            (key, puts, outcomes)
        }
    });
    let races: Vec<_> = stream::iter(races).buffer_unordered(8).collect().await;
    bed.proxy.heal();
    bed.until_settled().await;
    for (key, puts, outcomes) in races {
        let stored = bed.direct.get(&key, Get::default()).await.unwrap().and_then(|entry| entry.version);
        for (put, outcome) in puts.iter().zip(outcomes) {
            let has_won = stored == Some(put.version);
            match outcome {
                Ok(outcome) => assert_eq!(outcome.is_applied(), has_won, "{key}: {outcome:?}"),
                Err(error) => assert!(error.effect() == Effect::Unknown || !has_won, "{key}: {error}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_never_grants_more_than_its_limit_under_faults() {
    const CALLS: usize = 60;
    const LIMIT: u64 = 20;
    let bed = Bed::start().await;
    let store = with_retries(&bed);
    bed.proxy.rule(unsteady());
    for limit in [
        RateLimit::fixed_window(LIMIT, HOUR),
        RateLimit::sliding_window(LIMIT, HOUR),
        RateLimit::gcra(LIMIT, HOUR, LIMIT),
    ] {
        let key = key(&format!("{:?}", limit.algorithm));
        let ask = |_| async {
            // Each is an operation of its own; its repetitions are not.
            let request = RateLimit { operation: acteon_state_core::OperationId::draw(), ..limit };
            store.rate_limit(&key, &request).await
        };
        let decisions: Vec<_> = stream::iter(0..CALLS).map(ask).buffer_unordered(8).collect().await;
        let allowed = decisions.iter().flatten().filter(|decision| decision.allowed).count() as u64;
        let unknown = decisions.iter().filter(|decision| decision.is_err()).count() as u64;
        assert!(allowed <= LIMIT, "{:?}: {allowed}", limit.algorithm);
        assert!(allowed + unknown >= LIMIT, "{:?}: {allowed} and {unknown}", limit.algorithm);
        assert!(allowed > 0, "{:?}", limit.algorithm);
    }
}
