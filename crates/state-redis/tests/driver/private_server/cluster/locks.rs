//! Locks on a Cluster: what the driver says of them, and that it is true through a failover.

use std::time::{Duration, Instant};

use acteon_state_core::{ErrorKind, LockOutcome, LockRequest, StateStore, Survival};
use acteon_state_redis::{RedisConfig, RedisStore, Safety};
use acteon_test_support::RedisCluster;

use super::super::load::{Load, Options};
use super::super::until;
use super::{clients, cluster, cluster_with, config, connect, key_of, shard_of, slot_of};

/// The settings that strict safety asks for.
const SAFE: [&str; 4] = ["appendonly yes", "appendfsync always", "min-replicas-to-write 1", "min-replicas-max-lag 2"];
/// Long enough to notice, short enough to wait for.
const LEASE_MAX: Duration = Duration::from_secs(3);

fn strict(cluster: &RedisCluster) -> RedisConfig {
    RedisConfig { safety: Safety::Strict, lock_lease_max: LEASE_MAX, ..config(cluster) }
}

async fn connect_strictly(cluster: &RedisCluster) -> RedisStore {
    RedisStore::connect(strict(cluster)).await.unwrap()
}

/// Returns once locks of this shard are granted.
async fn until_granted(store: &RedisStore, shard: usize) {
    until("locks are granted", async || {
        let outcome = store.lock_acquire(&LockRequest::new(key_of(shard), LEASE_MAX)).await;
        matches!(outcome, Ok(LockOutcome::Granted(_)))
    })
    .await;
}

#[tokio::test]
async fn strict_safety_refuses_a_cluster_that_may_lose_grants() {
    let cluster = cluster();
    let error = RedisStore::connect(strict(&cluster)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    for setting in ["appendonly", "min-replicas-to-write"] {
        assert!(error.message().contains(setting), "{error}");
    }
    let store = connect(&cluster).await;
    assert!(matches!(store.lock_semantics().survives_failover, Survival::MayBeLost { .. }));
    assert!(!store.capabilities().durable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_grant_is_kept_through_a_failover_and_nobody_is_granted_another_one_for_the_longest_lease() {
    let mut cluster = cluster_with(&SAFE);
    let store = connect_strictly(&cluster).await;
    assert_eq!(store.lock_semantics().survives_failover, Survival::Yes);
    for shard in 0..3 {
        until_granted(&store, shard).await;
    }
    let held = LockRequest::new(key_of(0), LEASE_MAX);
    let LockOutcome::Granted(grant) = store.lock_acquire(&held).await.unwrap() else { panic!("the lock is free") };
    cluster.nodes[0].kill9().unwrap();
    cluster.wait_until_whole(&[0]).unwrap();
    assert_eq!(cluster.owner_of(slot_of(&held.key)).unwrap(), 3);
    // The new primary needs a replica as well.
    cluster.nodes[0].restart().unwrap();
    let other = connect_strictly_after_failover(&cluster).await;
    let connected = Instant::now();
    let next = LockRequest::new(held.key.clone(), LEASE_MAX);
    until("the lock is granted again", async || {
        let outcome = other.lock_acquire(&next).await;
        let Ok(LockOutcome::Granted(later)) = outcome else { return false };
        assert!(grant.deadline.remaining().is_zero(), "granted although somebody holds it");
        assert!(later.token > grant.token);
        true
    })
    .await;
    assert!(connected.elapsed() > LEASE_MAX / 2, "the new primary granted after {:?}", connected.elapsed());
    // The other shards were granted all the time.
    until_granted(&other, 1).await;
}

/// The new primary is refused until it has a replica.
async fn connect_strictly_after_failover(cluster: &RedisCluster) -> RedisStore {
    let begin = Instant::now();
    loop {
        match RedisStore::connect(strict(cluster)).await {
            Ok(store) => return store,
            Err(error) => assert!(begin.elapsed() < Duration::from_secs(30), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_gets_its_part_back_grants_nothing_on_the_strength_of_its_first_time() {
    let cluster = cluster_with(&SAFE);
    let store = connect_strictly(&cluster).await;
    until_granted(&store, 0).await;
    for (new, old) in [(3, 0), (0, 3)] {
        cluster.fail_over_to(new).unwrap();
        // Nobody asks for anything of this shard: the map is looked at anyway, more often than the longest lease.
        until("the old primary is left", async || clients(&cluster.nodes[old]) == 0).await;
        until("the new primary is connected to", async || clients(&cluster.nodes[new]) > 0).await;
    }
    // The connection of its first time could grant at once.
    let outcome = store.lock_acquire(&LockRequest::new(key_of(0), LEASE_MAX)).await;
    assert!(!matches!(outcome, Ok(LockOutcome::Granted(_))), "{outcome:?}");
    until_granted(&store, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_locks_never_overlap_while_a_primary_dies_under_load() {
    let mut cluster = cluster_with(&SAFE);
    let stores = vec![connect_strictly(&cluster).await, connect_strictly(&cluster).await];
    let options = Options {
        shard_of: shard_of(),
        may_lose: vec![0],
        strict_locks: true,
        lease: LEASE_MAX - Duration::from_secs(1),
    };
    let mut load = Load::start(stores, options);
    load.warm_up().await;
    load.fault();
    cluster.nodes[0].kill9().unwrap();
    cluster.wait_until_whole(&[0]).unwrap();
    cluster.nodes[0].restart().unwrap();
    load.resumed().await;
    let report = load.finish("Cluster, strict, kill -9 of a primary").await;
    assert!(report.grants > 0, "{report}");
}
