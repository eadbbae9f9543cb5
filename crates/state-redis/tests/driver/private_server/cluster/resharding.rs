//! Slots move while a load goes on: nothing is lost, nothing is done twice, and traffic hardly notices.

use std::time::Duration;

use acteon_state_core::StateKey;
use acteon_state_redis::RedisStore;
use acteon_test_support::RedisCluster;

use super::super::load::{Load, Options, Report};
use super::{SHARE, SLOTS, cluster, errors, shard_of, slot_of, two_stores};

/// The longest time for which any kind of operation may be without success, on a busy machine.
const WINDOW_MAX: Duration = Duration::from_secs(3);
/// How long each step of a slow move takes: long enough that requests meet it.
const STEP: Duration = Duration::from_millis(20);
/// Slots that are moved as fast as possible.
const MANY: u16 = 300;

async fn start() -> (RedisCluster, Vec<RedisStore>, Load) {
    let cluster = cluster();
    let stores = two_stores(&cluster).await;
    let options = Options { shard_of: shard_of(), ..Options::default() };
    let load = Load::start(stores.clone(), options);
    load.warm_up().await;
    (cluster, stores, load)
}

/// Moves a slot so slowly that its keys are on both nodes for a while.
async fn move_slowly(cluster: &RedisCluster, slot: u16, to: usize) {
    let from = cluster.owner_of(slot).unwrap();
    cluster.begin_move(slot, from, to).unwrap();
    tokio::time::sleep(STEP).await;
    let keys = cluster.nodes[from].query_list(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "1"]).unwrap();
    cluster.move_keys(from, to, &keys.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    tokio::time::sleep(STEP).await;
    cluster.end_move(slot, from, to).unwrap();
}

fn assert_hardly_noticed(report: &Report) {
    assert!(report.window() < WINDOW_MAX, "{report}");
    assert_eq!(report.lost, 0, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resharding_under_load_loses_nothing() {
    let (cluster, _stores, mut load) = start().await;
    load.fault();
    // Each slot goes to the next node, and to the one after that.
    for round in 1..=2 {
        for to in 0..3 {
            let comes_here = |key: &&StateKey| (shard_of()(key) + round) % 3 == to;
            for key in load.shared_keys().iter().filter(comes_here) {
                move_slowly(&cluster, slot_of(key), to).await;
            }
            cluster.wait_until_agreed().unwrap();
        }
    }
    for to in 0..3 {
        let comes_here = |slot: &u16| (usize::from(slot / SHARE) + 1) % 3 == to;
        cluster.move_slots((0..SLOTS).step_by(usize::from(SLOTS / MANY)).filter(comes_here), to).unwrap();
    }
    load.resumed().await;
    assert_hardly_noticed(&load.finish("Cluster, resharding of 300 slots").await);
    for code in ["MOVED", "ASK", "TRYAGAIN"] {
        let count: u64 = cluster.nodes.iter().map(|node| errors(node, code)).sum();
        assert!(count > 0, "the load met no {code}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_added_takes_over_slots_under_load() {
    let (mut cluster, stores, mut load) = start().await;
    load.fault();
    let new = cluster.add_node().unwrap();
    for key in load.shared_keys() {
        move_slowly(&cluster, slot_of(&key), new).await;
    }
    load.resumed().await;
    assert_hardly_noticed(&load.finish("Cluster, a node added").await);
    // Asked for every key of a slot that it did not own yet, it was not connected to anew each time.
    let opened: u64 = stores.iter().map(|store| store.connection_stats().connected_total).sum();
    assert!(opened <= 2 * (3 + 2), "{opened} connections were opened");
}
