//! What is left of an acquisition that was dropped, or whose answer was lost: nothing.

use std::time::Duration;

use acteon_state_core::{Effect, LockMode, LockOutcome, LockRequest, StateStore};
use acteon_state_dynamodb::{DynamoConfig, DynamoStore};
use acteon_test_support::{Fault, FaultProxy};

use super::{LEASE, config, connect, granted, inspect, key, request, start, until, waiting};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acquisitions_dropped_at_any_moment_leave_nothing_held() {
    let server = start();
    let (store, other) = (connect(&server).await, connect(&server).await);
    let mut dropped = Vec::new();
    for round in 0..200_u64 {
        let key = key(&format!("dropped-{round}"));
        let mine = request(&key, LEASE);
        let asking = tokio::spawn({
            let store = store.clone();
            async move { store.lock_acquire(&mine).await }
        });
        tokio::time::sleep(Duration::from_micros(round * 25)).await;
        asking.abort();
        // One that was faster than its end is a holder like any other.
        if asking.await.is_err() {
            dropped.push(key);
        }
    }
    // Closing waits for what is still under way.
    store.close().await.unwrap();
    let mut reached_the_table = 0;
    for key in &dropped {
        if let Some(state) = other.lock_inspect(key).await.unwrap() {
            assert!(state.holders.is_empty(), "{state:?}");
            reached_the_table += 1;
        }
    }
    assert!(reached_the_table > 0, "none of {} was dropped while it was being granted", dropped.len());
}

#[tokio::test]
async fn an_owner_that_asks_again_after_it_was_dropped_keeps_its_new_grant() {
    let server = start();
    let store = connect(&server).await;
    for round in 0..100_u64 {
        let key = key(&format!("again-{round}"));
        let mine = request(&key, LEASE);
        let first = tokio::time::timeout(Duration::from_micros(round * 40), store.lock_acquire(&mine)).await;
        drop(first);
        granted(&store, &mine).await;
        // Whatever was to be withdrawn was so before.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let holders = inspect(&store, &key).await.holders;
        assert!(holders.len() == 1 && holders[0].owner == mine.owner, "round {round}: {holders:?}");
    }
}

#[tokio::test]
async fn an_acquisition_of_unknown_outcome_is_withdrawn_once_the_service_can_be_reached() {
    let server = start();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let behind = DynamoConfig {
        url: Some(format!("http://{}", proxy.address())),
        connect_timeout: Duration::from_millis(200),
        attempt_timeout: Duration::from_millis(200),
        ..config(&server)
    };
    let store = DynamoStore::connect(behind).await.unwrap();
    let other = connect(&server).await;
    for mode in [LockMode::Exclusive, LockMode::Permit { of: 2 }] {
        let key = key(&format!("{mode:?}"));
        let mine = LockRequest { mode, ..request(&key, LEASE) };
        proxy.set(Fault::LoseReplies { after_bytes: 0 });
        let error = store.lock_acquire(&mine).await.unwrap_err();
        assert_eq!(error.effect(), Effect::Unknown, "{error}");
        until("the grant that nobody heard of", || async { other.lock_inspect(&key).await.unwrap().is_some() }).await;
        assert_eq!(inspect(&other, &key).await.holders.len(), 1);

        proxy.set(Fault::None);
        proxy.cut();
        until("the withdrawal", || async { inspect(&other, &key).await.holders.is_empty() }).await;
        granted(&other, &waiting(&key)).await;
    }
}

#[tokio::test]
async fn an_owner_that_repeats_a_question_of_unknown_outcome_gets_one_grant() {
    let server = start();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let behind = DynamoConfig {
        url: Some(format!("http://{}", proxy.address())),
        connect_timeout: Duration::from_millis(200),
        attempt_timeout: Duration::from_millis(200),
        ..config(&server)
    };
    let store = DynamoStore::connect(behind).await.unwrap();
    let key = key("repeated");
    let mine = request(&key, LEASE);
    proxy.set(Fault::LoseReplies { after_bytes: 0 });
    store.lock_acquire(&mine).await.unwrap_err();
    proxy.set(Fault::None);
    proxy.cut();
    let grant = granted(&store, &mine).await;
    let outcome = store.lock_acquire(&mine).await.unwrap();
    assert!(matches!(outcome, LockOutcome::Granted(again) if again.token == grant.token), "{outcome:?}");
    let holders = inspect(&store, &key).await.holders;
    assert!(holders.len() == 1 && holders[0].token == grant.token, "{holders:?}");
}
