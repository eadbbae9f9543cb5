//! Reads from replicas: only when the caller asks for it, and never where no replica can answer.

use std::time::Duration;

use acteon_state_core::{Get, LockRequest, Put, StateStore};
use acteon_state_redis::{RedisConfig, RedisStore};
use acteon_test_support::{RedisCluster, RedisSentinels, RedisServer, SentinelOptions};

use super::{key, until};

/// How many commands of this name a server has carried out.
fn calls(server: &RedisServer, command: &str) -> u64 {
    let stats = server.info(&format!("cmdstat_{command}")).unwrap().unwrap_or_default();
    let calls = stats.split(',').find_map(|field| field.strip_prefix("calls="));
    calls.and_then(|calls| calls.parse().ok()).unwrap_or(0)
}

fn calls_of_all(servers: &[RedisServer], command: &str) -> u64 {
    servers.iter().map(|server| calls(server, command)).sum()
}

/// Reads of this store reach the replicas with `stale_ok`, and only then.
async fn reads_reach(replicas: &[RedisServer], store: &RedisStore) {
    let key = key("read");
    store.put(&key, &Put::new("1")).await.unwrap();
    for _ in 0..10 {
        assert!(store.get(&key, Get::default()).await.unwrap().is_some());
        store.lock_inspect(&key).await.unwrap();
    }
    let request = LockRequest::new(key.clone(), Duration::from_secs(9));
    store.lock_acquire(&request).await.unwrap();
    assert_eq!(calls_of_all(replicas, "get") + calls_of_all(replicas, "evalsha"), 0, "nobody asked for old answers");
    until("a replica answers", async || {
        let entry = store.get(&key, Get::stale_ok()).await.unwrap();
        entry.is_some() && calls_of_all(replicas, "get") > 0
    })
    .await;
    let with_ttl = Get { with_ttl: true, stale_ok: true };
    until("a replica answers with the time to live", async || {
        store.get(&key, with_ttl).await.unwrap();
        calls_of_all(replicas, "evalsha") > 0
    })
    .await;
}

#[tokio::test]
async fn replicas_of_a_primary_answer_those_who_allow_it() {
    let mut group = RedisSentinels::start(SentinelOptions::default()).unwrap();
    let store = RedisStore::connect(RedisConfig::from_url(&group.url()).unwrap()).await.unwrap();
    reads_reach(&group.nodes[1..], &store).await;
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
async fn replicas_of_a_cluster_answer_those_who_allow_it() {
    let cluster = RedisCluster::start(None, &[]).unwrap();
    let store = RedisStore::connect(RedisConfig::from_url(&cluster.url()).unwrap()).await.unwrap();
    reads_reach(&cluster.nodes[3..], &store).await;
}
