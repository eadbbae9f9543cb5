//! Reads from replicas: only when the caller asks for it, and never where no replica can answer. The replicas' own statistics tell.

use std::time::{Duration, Instant};

use acteon_state_core::{BatchOp, Get, LockOutcome, LockRequest, Put, Scan, Scope, StateStore};
use acteon_state_redis::{RedisConfig, RedisStore};
use acteon_test_support::{RedisCluster, RedisSentinels, RedisServer, SentinelOptions};

use super::{connect, key, server, until};

/// What the driver reads with. Replication brings none of them to a replica.
const READING: [&str; 6] = ["get", "mget", "scan", "eval", "evalsha", "exists"];

/// How many commands of this name a server has carried out.
fn calls(server: &RedisServer, command: &str) -> u64 {
    let stats = server.info(&format!("cmdstat_{command}")).unwrap().unwrap_or_default();
    let calls = stats.split(',').find_map(|field| field.strip_prefix("calls="));
    calls.and_then(|calls| calls.parse().ok()).unwrap_or(0)
}

fn calls_of_all(servers: &[RedisServer], command: &str) -> u64 {
    servers.iter().map(|server| calls(server, command)).sum()
}

fn reads_of_all(servers: &[RedisServer]) -> u64 {
    READING.iter().map(|command| calls_of_all(servers, command)).sum()
}

/// Reads of this store reach replicas with `stale_ok`, and then only them.
async fn reads_reach(replicas: &[RedisServer], primaries: &[RedisServer], store: &RedisStore) {
    const READS: u64 = 50;
    let key = key("read");
    let put = Put::new("1");
    store.put(&key, &put).await.unwrap();
    assert_eq!(store.get(&key, Get::stale_ok()).await.unwrap().unwrap().value, "1", "the primary answers at first");
    until("a replica has the value and answers", async || {
        let before = calls_of_all(primaries, "get");
        store.get(&key, Get::stale_ok()).await.unwrap().is_some() && calls_of_all(primaries, "get") == before
    })
    .await;
    let (at_replicas, at_primaries) = (calls_of_all(replicas, "get"), calls_of_all(primaries, "get"));
    for _ in 0..READS {
        assert_eq!(store.get(&key, Get::stale_ok()).await.unwrap().unwrap().version, Some(put.version));
    }
    assert_eq!(calls_of_all(replicas, "get"), at_replicas + READS);
    assert_eq!(calls_of_all(primaries, "get"), at_primaries);
    let with_ttl = Get { with_ttl: true, stale_ok: true };
    let scripts = calls_of_all(replicas, "evalsha");
    until("a replica answers with the time to live", async || {
        assert!(store.get(&key, with_ttl).await.unwrap().is_some());
        calls_of_all(replicas, "evalsha") > scripts
    })
    .await;
}

/// Whatever else is read, and locks above all, never reaches a replica, although connections to them are open.
async fn nothing_else_reaches(replicas: &[RedisServer], store: &RedisStore) {
    let key = key("locked");
    let before = reads_of_all(replicas);
    assert!(before > 0, "the replicas are connected");
    let scope = Scope::new(&key.namespace(), &key.tenant(), &key.kind()).unwrap();
    for _ in 0..10 {
        store.put(&key, &Put::new("v")).await.unwrap();
        assert!(store.get(&key, Get::default()).await.unwrap().is_some());
        assert!(store.get(&key, Get::with_ttl()).await.unwrap().is_some());
        assert!(store.batch(&[BatchOp::Get(key.clone(), Get::stale_ok())]).await.unwrap()[0].is_ok());
        store.scan(&Scan::new(scope.clone())).await.unwrap();
        let request = LockRequest::new(key.clone(), Duration::from_secs(60));
        let granted = store.lock_acquire(&request).await.unwrap();
        assert!(matches!(granted, LockOutcome::Granted(_)), "{granted:?}");
        assert_eq!(store.lock_inspect(&key).await.unwrap().unwrap().holders.len(), 1);
        assert!(store.lock_list(&Scan::new(scope.clone())).await.unwrap().items.iter().any(|lock| lock.key == key));
        store.lock_extend(&key, request.owner, request.lease).await.unwrap();
        store.lock_release(&key, request.owner).await.unwrap();
    }
    assert_eq!(reads_of_all(replicas), before, "nobody asked for old answers");
}

#[tokio::test]
async fn replicas_of_a_primary_answer_those_who_allow_it_and_nobody_else() {
    let mut group = RedisSentinels::start(SentinelOptions::default()).unwrap();
    let store = RedisStore::connect(RedisConfig::from_url(&group.url()).unwrap()).await.unwrap();
    assert_eq!(reads_of_all(&group.nodes[1..]), 0);
    reads_reach(&group.nodes[1..], &group.nodes[..1], &store).await;
    nothing_else_reaches(&group.nodes[1..], &store).await;
    // Without replicas the primary answers.
    group.nodes[1].kill9().unwrap();
    group.nodes[2].kill9().unwrap();
    let key = key("alone");
    store.put(&key, &Put::new("1")).await.unwrap();
    for _ in 0..20 {
        assert!(store.get(&key, Get::stale_ok()).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn replicas_of_a_cluster_answer_those_who_allow_it_and_nobody_else() {
    let cluster = RedisCluster::start(None, &[]).unwrap();
    let store = RedisStore::connect(RedisConfig::from_url(&cluster.url()).unwrap()).await.unwrap();
    let (primaries, replicas) = cluster.nodes.split_at(3);
    assert_eq!(reads_of_all(replicas), 0);
    reads_reach(replicas, primaries, &store).await;
    nothing_else_reaches(replicas, &store).await;
}

#[tokio::test]
async fn a_replica_that_is_frozen_costs_a_part_of_the_time_and_the_primary_answers_in_the_rest() {
    let group = RedisSentinels::start(SentinelOptions::default()).unwrap();
    let operation_timeout = Duration::from_secs(3);
    let config = RedisConfig { operation_timeout, ..RedisConfig::from_url(&group.url()).unwrap() };
    let store = RedisStore::connect(config).await.unwrap();
    let key = key("frozen");
    store.put(&key, &Put::new("1")).await.unwrap();
    until("both replicas are connected", async || {
        store.get(&key, Get::stale_ok()).await.unwrap();
        store.connection_stats().connections == 3
    })
    .await;
    group.nodes[1].pause().unwrap();
    group.nodes[2].pause().unwrap();
    assert!(store.get(&key, Get::stale_ok()).await.unwrap().is_some());
    group.nodes[0].pause().unwrap();
    let started = Instant::now();
    store.get(&key, Get::stale_ok()).await.unwrap_err();
    // Not that time for the primary and a third of it besides.
    assert!(started.elapsed() < operation_timeout * 7 / 6, "{:?}", started.elapsed());
    group.nodes.iter().for_each(|node| node.resume().unwrap());
}

#[tokio::test]
async fn after_a_failover_the_old_primary_answers_as_a_replica_and_the_new_one_is_left() {
    let group = RedisSentinels::start(SentinelOptions::default()).unwrap();
    let store = RedisStore::connect(RedisConfig::from_url(&group.url()).unwrap()).await.unwrap();
    let key = key("failover");
    let all_are_connected = async || {
        // An error is fine while the primary changes.
        let _ = store.get(&key, Get::stale_ok()).await;
        store.connection_stats().connections == 3
    };
    until("both replicas are connected", all_are_connected).await;
    let primary = group.fail_over(0).unwrap();
    group.wait_until_settled().unwrap();
    let before = calls(&group.nodes[0], "get");
    until("the old primary answers, as a replica", async || {
        let _ = store.get(&key, Get::stale_ok()).await;
        calls(&group.nodes[0], "get") > before
    })
    .await;
    until("one connection to each server is left", all_are_connected).await;
    // Not before: what the old primary took in its last moments is lost.
    store.put(&key, &Put::new("1")).await.unwrap();
    until("replicas have the value", async || store.get(&key, Get::stale_ok()).await.unwrap().is_some()).await;
    let at_primary = calls(&group.nodes[primary], "get");
    for _ in 0..20 {
        store.get(&key, Get::stale_ok()).await.unwrap();
    }
    assert_eq!(calls(&group.nodes[primary], "get"), at_primary);
}

#[tokio::test]
async fn a_server_alone_answers_itself() {
    let server = server();
    let store = connect(&server).await;
    let key = key("standalone");
    store.put(&key, &Put::new("1")).await.unwrap();
    assert_eq!(store.get(&key, Get::stale_ok()).await.unwrap().unwrap().value, "1");
    assert_eq!(store.connection_stats().connected_total, 1);
}
