//! Strict safety behind Sentinels: a lock that was granted is in the replicas, and a failover grants nothing for so long that no
//! two holders ever overlap.

use std::time::{Duration, Instant};

use acteon_state_core::{Effect, ErrorKind, Get, LockOutcome, LockRequest, StateKey, StateStore, Survival};
use acteon_state_redis::{RedisConfig, RedisStore, Safety};
use acteon_test_support::{RedisSentinels, RedisServer, SentinelOptions};

use super::load::{Load, Options};
use super::sentinel_faults::promises_of;
use super::{key, until};

/// The longest lease, and the lag that replicas may have: with them, nothing is granted for 3 s after a failover.
const LEASE_MAX: Duration = Duration::from_secs(2);
const LAG_MAX: Duration = Duration::from_secs(1);

/// How much later than the driver this test may notice that there is a new primary.
const NOTICED_AFTER: Duration = Duration::from_millis(500);

fn group() -> RedisSentinels {
    let settings = vec!["min-replicas-to-write 1".to_owned(), format!("min-replicas-max-lag {}", LAG_MAX.as_secs())];
    RedisSentinels::start(SentinelOptions { append_only: true, settings, ..SentinelOptions::default() }).unwrap()
}

fn config(group: &RedisSentinels) -> RedisConfig {
    let config = RedisConfig::from_url(&group.url()).unwrap();
    RedisConfig { safety: Safety::Strict, lock_lease_max: LEASE_MAX, ..config }
}

/// A store in strict safety, after the time in which even the first primary of all grants nothing.
async fn connect(group: &RedisSentinels, lock_replicas: usize) -> RedisStore {
    let store = RedisStore::connect(RedisConfig { lock_replicas, ..config(group) }).await.unwrap();
    let probe = LockRequest { wait: LEASE_MAX + LAG_MAX * 5, ..LockRequest::new(key("probe"), LEASE_MAX) };
    granted(&store, &probe).await;
    store
}

/// Waits for a grant; returns its token.
async fn granted(store: &RedisStore, request: &LockRequest) -> u64 {
    match store.lock_acquire(request).await.unwrap() {
        LockOutcome::Granted(grant) => grant.token.get(),
        LockOutcome::Busy(busy) => panic!("{}: busy for {:?}", request.key, busy.retry_after),
    }
}

/// Acquires until it is granted, whatever fails meanwhile; returns the token.
async fn granted_in_the_end(store: &RedisStore, lock: &StateKey) -> u64 {
    let started = Instant::now();
    loop {
        let request = LockRequest::new(lock.clone(), LEASE_MAX);
        if let Ok(LockOutcome::Granted(grant)) = store.lock_acquire(&request).await {
            return grant.token.get();
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{lock} is never granted again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn replicas_with(group: &RedisSentinels, lock: &StateKey) -> usize {
    let record = format!("{{acteon:{}}}", lock.text());
    let has_it = |node: &&RedisServer| {
        let keys = node.query(&["EVAL", "return #redis.call('KEYS', ARGV[1] .. '*')", "0", &record]).unwrap();
        keys.as_deref() != Some("0")
    };
    group.nodes[1..].iter().filter(has_it).count()
}

/// Whether the primary's record of the lock names a holder, be its lease over or not.
fn is_held(group: &RedisSentinels, lock: &StateKey) -> bool {
    let record = format!("{{acteon:{}}}*", lock.text());
    let lines = "local key = redis.call('KEYS', ARGV[1])[1]; return key and select(2, string.gsub(redis.call('GET', key), '\\n', '')) or 0";
    let lines = group.nodes[0].query(&["EVAL", lines, "0", &record]).unwrap();
    // The first line is of the lock itself.
    lines.is_some_and(|lines| !matches!(lines.as_str(), "0" | "1"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_counts_once_the_replicas_have_it() {
    let group = group();
    let store = connect(&group, 2).await;
    assert_eq!(store.lock_semantics().survives_failover, Survival::Yes);
    for number in 0..20 {
        let lock = key(&format!("counted {number}"));
        granted(&store, &LockRequest::new(lock.clone(), LEASE_MAX)).await;
        assert_eq!(replicas_with(&group, &lock), 2);
    }
    // With one of them frozen it is one too few: an error, and nobody holds the lock.
    group.nodes[2].pause().unwrap();
    let lock = key("too few");
    let error = store.lock_acquire(&LockRequest::new(lock.clone(), LEASE_MAX)).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::NotDurable, Effect::NotApplied), "{error}");
    assert!(store.lock_inspect(&lock).await.unwrap().is_none_or(|state| state.holders.is_empty()));
    group.nodes[2].resume().unwrap();
    granted_in_the_end(&store, &lock).await;
}

/// Grants travel on connections of their own, so the withdrawal of a dropped one could overtake it: it found nothing to withdraw, and the grant that
/// came later stayed for its whole lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acquisition_that_is_dropped_at_any_moment_leaves_nothing_held() {
    let group = group();
    let store = connect(&group, 1).await;
    let mut dropped = Vec::new();
    for number in 0..300 {
        let lock = key(&format!("dropped {number}"));
        let request = LockRequest::new(lock.clone(), LEASE_MAX);
        // From before it is sent until about when it is answered.
        let moments = async {
            for _ in 0..number % 60 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            answer = store.lock_acquire(&request) => drop(answer.unwrap()),
            () = moments => dropped.push(lock),
        }
    }
    assert!(dropped.len() > 100, "{} were dropped", dropped.len());
    // Closing waits for withdrawals.
    store.close().await.unwrap();
    let held: Vec<_> = dropped.iter().filter(|lock| is_held(&group, lock)).map(StateKey::text).collect();
    assert!(held.is_empty(), "held by nobody: {held:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_replicas_nothing_is_granted() {
    let mut group = group();
    let store = connect(&group, 1).await;
    group.nodes[1].kill9().unwrap();
    group.nodes[2].kill9().unwrap();
    let lock = key("alone");
    until("the primary has noticed", async || {
        match store.lock_acquire(&LockRequest::new(lock.clone(), LEASE_MAX)).await {
            Ok(LockOutcome::Granted(grant)) => panic!("{grant:?} although no replica is there"),
            Ok(LockOutcome::Busy(_)) => false,
            // At first no replica has the grant, and soon the primary takes no writes at all.
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotDurable, "{error}");
                error.message().contains("NOREPLICAS")
            }
        }
    })
    .await;
    // Reads go on, also over connections that are new.
    store.get(&lock, Get::default()).await.unwrap();
    let late = RedisStore::connect_lazy(config(&group)).unwrap();
    until("another store reads", async || late.get(&lock, Get::default()).await.is_ok()).await;
}

/// The worst moment: the primary dies right after it granted a lock, and the holder knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_dies_after_a_grant_leaves_no_second_holder() {
    let mut group = group();
    let (holder, other) = (connect(&group, 1).await, connect(&group, 1).await);
    let lock = key("worst moment");
    let request = LockRequest::new(lock.clone(), LEASE_MAX);
    let LockOutcome::Granted(first) = holder.lock_acquire(&request).await.unwrap() else { panic!("the lock is free") };
    group.nodes[0].kill9().unwrap();
    let killed_at = Instant::now();
    let next = tokio::spawn({
        let lock = lock.clone();
        async move { (granted_in_the_end(&other, &lock).await, Instant::now()) }
    });
    group.wait_for_primary_other_than(0).unwrap();
    let promoted_at = Instant::now();
    let (token, granted_at) = next.await.unwrap();
    assert!(token > first.token.get());
    assert!(first.deadline.remaining().is_zero(), "two holders");
    let quarantine = granted_at.saturating_duration_since(promoted_at);
    assert!(quarantine > LEASE_MAX + LAG_MAX - NOTICED_AFTER, "the new primary granted after {quarantine:?}");
    println!("Sentinel, strict: {:.1} s from kill -9 to the first grant", (granted_at - killed_at).as_secs_f64());
}

async fn load_on(group: &RedisSentinels) -> Load {
    let stores = vec![connect(group, 1).await, connect(group, 1).await];
    let options = Options { lease: LEASE_MAX, ..promises_of(&stores[0]) };
    assert!(options.strict_locks);
    let mut load = Load::start(stores, options);
    load.warm_up().await;
    load.fault();
    load
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_grants_overlap_when_the_primary_is_killed_under_load() {
    let mut group = group();
    let mut load = load_on(&group).await;
    group.nodes[0].kill9().unwrap();
    group.wait_for_primary_other_than(0).unwrap();
    load.resumed().await;
    load.finish("Sentinel, strict, kill -9 of the primary").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_grants_overlap_when_the_primary_sleeps_and_wakes_up_under_load() {
    let group = group();
    let mut load = load_on(&group).await;
    group.nodes[0].pause().unwrap();
    group.wait_for_primary_other_than(0).unwrap();
    // Before anything is granted by the new one.
    group.nodes[0].resume().unwrap();
    load.resumed().await;
    load.finish("Sentinel, strict, SIGSTOP and SIGCONT of the primary").await;
}
