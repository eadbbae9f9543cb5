//! A primary behind Sentinels fails in each way that it can, while a load of all kinds of operations goes on.
//!
//! What is checked after each fault is in [`load`](super::load): traffic resumes by itself, nothing is applied that was
//! told not to be, nothing twice, and nothing is lost but what the driver's own words on its locks and durability allow.

use std::time::{Duration, Instant};

use acteon_state_core::{StateStore, Survival};
use acteon_state_redis::{RedisConfig, RedisStore};
use acteon_test_support::{RedisSentinels, RedisServer, SentinelOptions};

use super::load::{Load, Options, Report};
use super::until;

/// By when traffic must be back, in the worst case on a busy machine. Sentinels here take a server for dead after a second of
/// silence; the usual time is measured in the documentation.
const WINDOW_MAX: Duration = Duration::from_secs(20);

const DEMOTED_WITHIN: Duration = Duration::from_secs(60);

/// Servers, and two stores like those of two processes.
async fn start() -> (RedisSentinels, Vec<RedisStore>) {
    let group = RedisSentinels::start(SentinelOptions::default()).unwrap();
    let mut stores = Vec::new();
    for _ in 0..2 {
        stores.push(RedisStore::connect(RedisConfig::from_url(&group.url()).unwrap()).await.unwrap());
    }
    assert!(connections_to(&group.nodes[0]) > 0);
    (group, stores)
}

/// What a store says of itself decides what the load may find lost.
pub(super) fn promises_of(store: &RedisStore) -> Options {
    let may_lose = if store.capabilities().durable { Vec::new() } else { vec![0] };
    let strict_locks = store.lock_semantics().survives_failover == Survival::Yes;
    Options { may_lose, strict_locks, ..Options::default() }
}

async fn load_on(stores: &[RedisStore]) -> Load {
    let load = Load::start(stores.to_vec(), promises_of(&stores[0]));
    load.warm_up().await;
    load
}

fn assert_resumed(report: &Report) {
    assert!(report.window() < WINDOW_MAX, "{report}");
}

/// Connections of the driver to a server: those that are neither of Sentinels, nor of servers, nor the one that asks.
fn connections_to(server: &RedisServer) -> usize {
    let clients = server.query(&["CLIENT", "LIST"]).unwrap().unwrap_or_default();
    let is_ours = |client: &&str| {
        let others = ["name=sentinel", "flags=S", "flags=M", "cmd=client|list"];
        !others.iter().any(|other| client.contains(other))
    };
    clients.lines().filter(is_ours).count()
}

/// How many scripts a server has run, once it has dealt with all that was sent before.
async fn scripts_run(server: &RedisServer) -> String {
    let count = || server.info("cmdstat_evalsha").unwrap().unwrap_or_default();
    let mut before = count();
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = count();
        if now == before {
            return now;
        }
        before = now;
    }
}

/// Waits until Sentinels have told a former primary that it is a replica, for which they take ten to twenty seconds.
async fn until_replica(server: &RedisServer) {
    let started = Instant::now();
    while server.info("role").unwrap().as_deref() != Some("slave") {
        assert!(started.elapsed() < DEMOTED_WITHIN, "the old primary does not follow the new one");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_resumes_after_kill9_of_the_primary() {
    let (mut group, stores) = start().await;
    let mut load = load_on(&stores).await;
    load.fault();
    group.nodes[0].kill9().unwrap();
    group.wait_for_primary_other_than(0).unwrap();
    load.resumed().await;
    assert_resumed(&load.finish("Sentinel, kill -9 of the primary").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_wakes_up_after_its_failover_gets_no_writes() {
    let (group, stores) = start().await;
    let mut load = load_on(&stores).await;
    load.fault();
    group.nodes[0].pause().unwrap();
    group.wait_for_primary_other_than(0).unwrap();
    load.resumed().await;
    // It still takes itself for the primary, until the Sentinels tell it otherwise.
    group.nodes[0].resume().unwrap();
    let before = scripts_run(&group.nodes[0]).await;
    until_replica(&group.nodes[0]).await;
    let report = load.finish("Sentinel, SIGSTOP and SIGCONT of the primary").await;
    assert_resumed(&report);
    assert_eq!(scripts_run(&group.nodes[0]).await, before, "somebody went on with the old primary");
    assert_eq!(connections_to(&group.nodes[0]), 0, "somebody stays with the old primary");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_moves_to_the_new_primary_of_a_failover_that_was_asked_for() {
    let (group, stores) = start().await;
    let mut load = load_on(&stores).await;
    load.fault();
    group.fail_over(0).unwrap();
    // The Sentinels leave it in office for ten seconds more. Nobody waits for that.
    until("the old primary is left", async || connections_to(&group.nodes[0]) == 0).await;
    assert_eq!(group.nodes[0].info("role").unwrap().as_deref(), Some("master"));
    load.resumed().await;
    assert_resumed(&load.finish("Sentinel, SENTINEL FAILOVER").await);
    assert_eq!(connections_to(&group.nodes[0]), 0, "somebody went back to the old primary");
}

/// What the documentation advises: while writes are held up, all of them reach the replicas, and nothing is lost at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_during_a_pause_of_writes_loses_nothing() {
    let (group, stores) = start().await;
    let mut load = Load::start(stores.clone(), Options { may_lose: Vec::new(), ..promises_of(&stores[0]) });
    load.warm_up().await;
    load.fault();
    group.nodes[0].query(&["CLIENT", "PAUSE", "120000", "WRITE"]).unwrap();
    until("the replicas have it all", async || {
        let written = group.nodes[0].info("master_repl_offset").unwrap();
        group.nodes[1..].iter().all(|replica| replica.info("slave_repl_offset").unwrap() == written)
    })
    .await;
    group.fail_over(0).unwrap();
    load.resumed().await;
    let report = load.finish("Sentinel, SENTINEL FAILOVER while writes are paused").await;
    assert_resumed(&report);
    assert_eq!(report.lost, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_followed_while_a_sentinel_is_dead_and_another_stale() {
    let (mut group, stores) = start().await;
    let mut load = load_on(&stores).await;
    // Two of three decide, and one of three is enough to tell.
    group.sentinels[0].pause().unwrap();
    load.fault();
    group.nodes[0].kill9().unwrap();
    group.wait_for_primary_other_than(0).unwrap();
    group.sentinels[1].kill9().unwrap();
    group.sentinels[0].resume().unwrap();
    load.resumed().await;
    assert_resumed(&load.finish("Sentinel, kill -9 of the primary, with one stale Sentinel and one dead").await);
}
