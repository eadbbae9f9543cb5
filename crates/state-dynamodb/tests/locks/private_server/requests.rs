//! What operations send, and what they leave in the table.

use std::time::Duration;

use acteon_state_core::{ExtendOutcome, LockMode, LockRequest, Operation, ReleaseOutcome, StateStore};
use acteon_state_dynamodb::{Consumed, DynamoStore};
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::AttributeValue;

use super::{LEASE, busy, config, connect, granted, inspect, key, request, start};

/// What an operation has cost since.
fn cost_since(store: &DynamoStore, before: (Consumed, u64), operation: Operation) -> (u64, f64, f64) {
    let (now, sent) = costs(store, operation);
    let requests = now.requests - before.0.requests;
    assert_eq!(sent - before.1, requests, "requests that were not counted under {operation:?}");
    (requests, now.read_units - before.0.read_units, now.write_units - before.0.write_units)
}

fn costs(store: &DynamoStore, operation: Operation) -> (Consumed, u64) {
    (store.capacity().of(operation), store.capacity().sent())
}

#[tokio::test]
async fn acquire_extend_and_release_of_a_lock_that_is_not_shared_are_one_write_each() {
    let server = start();
    let store = connect(&server).await;
    let key = key("one");
    let requests: Vec<LockRequest> = (0..3).map(|_| request(&key, LEASE)).collect();
    for (round, mine) in requests.iter().enumerate() {
        let before = costs(&store, Operation::LockAcquire);
        granted(&store, mine).await;
        let (sent, _, write_units) = cost_since(&store, before, Operation::LockAcquire);
        // The first grant also enters the lock into the index.
        assert_eq!((sent, write_units), (1, if round == 0 { 2.0 } else { 1.0 }), "acquire {round}");

        let before = costs(&store, Operation::LockExtend);
        assert_eq!(store.lock_extend(&key, mine.owner, LEASE).await.unwrap(), ExtendOutcome::Extended);
        assert_eq!(cost_since(&store, before, Operation::LockExtend), (1, 0.0, 1.0));

        let before = costs(&store, Operation::LockRelease);
        assert_eq!(store.lock_release(&key, mine.owner).await.unwrap(), ReleaseOutcome::Released);
        assert_eq!(cost_since(&store, before, Operation::LockRelease), (1, 0.0, 1.0));
    }
}

#[tokio::test]
async fn a_refusal_is_one_write_and_what_shares_a_lock_takes_two() {
    let server = start();
    let store = connect(&server).await;
    let key = key("two");
    let shared = || LockRequest { mode: LockMode::Shared, ..request(&key, LEASE) };
    let (first, second, third) = (shared(), shared(), shared());
    granted(&store, &first).await;

    let before = costs(&store, Operation::LockAcquire);
    busy(&store, &request(&key, LEASE)).await;
    assert_eq!(cost_since(&store, before, Operation::LockAcquire).0, 1);

    for mine in [&second, &third] {
        let before = costs(&store, Operation::LockAcquire);
        granted(&store, mine).await;
        assert_eq!(cost_since(&store, before, Operation::LockAcquire).0, 2);
    }
    let before = costs(&store, Operation::LockExtend);
    assert_eq!(store.lock_extend(&key, second.owner, LEASE).await.unwrap(), ExtendOutcome::Extended);
    assert_eq!(cost_since(&store, before, Operation::LockExtend).0, 2);

    // The last one that remains is alone again.
    for (mine, requests) in [(&first, 2), (&second, 2), (&third, 1)] {
        let before = costs(&store, Operation::LockRelease);
        assert_eq!(store.lock_release(&key, mine.owner).await.unwrap(), ReleaseOutcome::Released);
        assert_eq!(cost_since(&store, before, Operation::LockRelease).0, requests);
    }
    assert!(inspect(&store, &key).await.holders.is_empty());
}

#[tokio::test]
async fn a_waiter_looks_without_writing() {
    let server = start();
    let store = connect(&server).await;
    let key = key("looks");
    granted(&store, &request(&key, LEASE)).await;
    let before = costs(&store, Operation::LockAcquire);
    busy(&store, &LockRequest { wait: Duration::from_secs(2), ..request(&key, LEASE) }).await;
    let (requests, read_units, write_units) = cost_since(&store, before, Operation::LockAcquire);
    // With the shortest pause throughout there would be 200 looks.
    assert!((3..50).contains(&requests) && read_units > 0.0, "{requests} requests, {read_units} read units");
    assert_eq!(write_units, 0.0);
}

#[tokio::test]
async fn no_attribute_of_a_lock_is_one_that_the_table_expires_by() {
    let server = start();
    let store = connect(&server).await;
    let (free, held, shared) = (key("free"), key("held"), key("shared"));
    let released = request(&free, LEASE);
    granted(&store, &released).await;
    store.lock_release(&free, released.owner).await.unwrap();
    granted(&store, &request(&held, LEASE)).await;
    for _ in 0..2 {
        granted(&store, &LockRequest { mode: LockMode::Shared, ..request(&shared, LEASE) }).await;
    }

    let config = config(&server);
    let raw = aws_sdk_dynamodb::Client::from_conf(
        aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .endpoint_url(server.url())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("acteon", "acteon", None, None, "test"))
            .build(),
    );
    let ttl = raw.describe_time_to_live().table_name(&config.table_name).send().await.unwrap();
    let attribute = ttl.time_to_live_description().unwrap().attribute_name().unwrap().to_owned();
    let items = raw.scan().table_name(&config.table_name).send().await.unwrap().items.unwrap();
    let is_lock =
        |item: &&std::collections::HashMap<String, AttributeValue>| item["pk"].as_s().unwrap().ends_with("}:lock");
    let locks: Vec<_> = items.iter().filter(is_lock).collect();
    assert_eq!(locks.len(), 3);
    for lock in locks {
        assert!(!lock.contains_key(&attribute), "{lock:?}");
    }
}
