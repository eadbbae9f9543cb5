//! Nodes of a Cluster fail in each way that they can, while a load of all kinds of operations goes on.
//!
//! What is checked after each fault is in [`load`](super::super::load). Only what the failed node had may be lost; the other
//! shards lose nothing and never stop.

use std::time::Duration;

use acteon_state_core::StateStore;
use acteon_state_redis::{RedisConfig, RedisStore};
use acteon_test_support::RedisCluster;

use super::super::load::{Load, Options, Report};
use super::super::until;
use super::{clients, cluster, shard_of, two_stores};

/// By when traffic must be back, in the worst case on a busy machine. Nodes here take another one for dead after a second of
/// silence; the usual time is measured in the documentation.
const WINDOW_MAX: Duration = Duration::from_secs(20);

async fn load_on(stores: Vec<RedisStore>, may_lose: &[usize]) -> Load {
    let options = Options { shard_of: shard_of(), may_lose: may_lose.to_vec(), ..Options::default() };
    let load = Load::start(stores, options);
    load.warm_up().await;
    load
}

fn assert_resumed(report: &Report) {
    assert!(report.window() < WINDOW_MAX, "{report}");
}

async fn until_replica(cluster: &RedisCluster, place: usize) {
    until("the old primary follows the new one", async || {
        cluster.nodes[place].info("role").is_ok_and(|role| role.as_deref() == Some("slave"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_resumes_after_kill9_of_a_primary() {
    let mut cluster = cluster();
    let mut load = load_on(two_stores(&cluster).await, &[0]).await;
    load.fault();
    cluster.nodes[0].kill9().unwrap();
    cluster.wait_until_whole(&[0]).unwrap();
    load.resumed().await;
    assert_resumed(&load.finish("Cluster, kill -9 of a primary").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_wakes_up_after_its_failover_is_left_by_all() {
    let cluster = cluster();
    let stores = two_stores(&cluster).await;
    let mut load = load_on(stores.clone(), &[0]).await;
    load.fault();
    cluster.nodes[0].pause().unwrap();
    cluster.wait_until_whole(&[0]).unwrap();
    load.resumed().await;
    cluster.nodes[0].resume().unwrap();
    until_replica(&cluster, 0).await;
    let report = load.finish("Cluster, SIGSTOP and SIGCONT of a primary").await;
    assert_resumed(&report);
    until("the old primary is left", async || clients(&cluster.nodes[0]) == 0).await;
    for store in &stores {
        assert_eq!(store.connection_stats().connections, 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_was_asked_for_loses_nothing() {
    let cluster = cluster();
    let mut load = load_on(two_stores(&cluster).await, &[]).await;
    load.fault();
    cluster.fail_over_to(3).unwrap();
    until_replica(&cluster, 0).await;
    cluster.wait_until_whole(&[]).unwrap();
    load.resumed().await;
    let report = load.finish("Cluster, CLUSTER FAILOVER").await;
    assert_resumed(&report);
    assert_eq!(report.lost, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_resumes_when_the_only_seed_dies() {
    let mut cluster = cluster();
    let seed = format!("redis+cluster://:data1@127.0.0.1:{}", cluster.nodes[0].port());
    let store = RedisStore::connect(RedisConfig::from_url(&seed).unwrap()).await.unwrap();
    let mut load = load_on(vec![store], &[0]).await;
    load.fault();
    cluster.nodes[0].kill9().unwrap();
    cluster.wait_until_whole(&[0]).unwrap();
    load.resumed().await;
    assert_resumed(&load.finish("Cluster, kill -9 of the only seed").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_resumes_after_a_time_in_which_the_cluster_was_down() {
    let cluster = cluster();
    let stores = two_stores(&cluster).await;
    let mut load = load_on(stores.clone(), &[0]).await;
    load.fault();
    // A primary together with its replica: nobody can take over, and the others refuse everything.
    cluster.nodes[0].pause().unwrap();
    cluster.nodes[3].pause().unwrap();
    until("the Cluster is down", async || {
        let info = cluster.nodes[1].query(&["CLUSTER", "INFO"]).unwrap().unwrap_or_default();
        info.contains("cluster_state:fail") && stores[0].ping().await.is_err()
    })
    .await;
    cluster.nodes[0].resume().unwrap();
    cluster.nodes[3].resume().unwrap();
    cluster.wait_until_whole(&[]).unwrap();
    load.resumed().await;
    assert_resumed(&load.finish("Cluster, down for want of a shard").await);
}
