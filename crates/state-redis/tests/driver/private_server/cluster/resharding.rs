//! Slots move while a load goes on: nothing is lost, nothing is done twice, and traffic hardly notices.

use std::sync::Arc;
use std::time::Duration;

use acteon_test_support::RedisCluster;

use super::super::workload::{Options, Report, Workload};
use super::{SHARE, SLOTS, cluster, errors, shard_of, slot_of, two_stores};

/// The longest time for which any kind of operation may be without success, on a busy machine.
const WINDOW_MAX: Duration = Duration::from_secs(3);
/// How long each step of a slow move takes: long enough that requests meet it.
const STEP: Duration = Duration::from_millis(20);
/// Slots that are moved as fast as possible.
const MANY: u16 = 300;

async fn start() -> (RedisCluster, Workload) {
    let cluster = cluster();
    let options = Options { shard_of: shard_of(), ..Options::default() };
    let load = Workload::start(two_stores(&cluster).await, options);
    load.warm_up().await;
    (cluster, load)
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
    let (cluster, load) = start().await;
    load.fault();
    for round in 1..=2 {
        for key in load.shared_keys() {
            let to = (shard_of()(&key) + round) % 3;
            move_slowly(&cluster, slot_of(&key), to).await;
        }
    }
    for slot in (0..SLOTS).step_by(usize::from(SLOTS / MANY)) {
        cluster.move_slot(slot, (usize::from(slot / SHARE) + 1) % 3).unwrap();
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
    let (mut cluster, load) = start().await;
    load.fault();
    let new = cluster.add_node().unwrap();
    for key in load.shared_keys() {
        move_slowly(&cluster, slot_of(&key), new).await;
    }
    load.resumed().await;
    assert_hardly_noticed(&load.finish("Cluster, a node added").await);
    let connections = cluster.nodes[new].info("total_connections_received").unwrap().unwrap();
    let connections: u64 = connections.parse().unwrap();
    // Each question of the test is one; what the driver would add by connecting anew for each request is far more.
    let asked = Arc::new(load_questions(&cluster));
    assert!(connections < *asked + 60, "{connections} connections to the new node");
}

/// About how many connections the steps of a test opened to a node.
fn load_questions(cluster: &RedisCluster) -> u64 {
    // Each step asks each node for its slots, and the node for its id and the state of its slots.
    20 * u64::try_from(cluster.nodes.len()).unwrap() * 3
}
