//! A Cluster whose slots move and whose nodes fail: where requests go, what is lost, and for how long nothing works.

mod failover;
mod listings;
mod locks;
mod redirections;
mod resharding;

use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::StateKey;
use acteon_state_redis::{RedisConfig, RedisStore};
use acteon_test_support::{RedisCluster, RedisServer};

use super::load::ShardOf;
use super::{key, text};

const SLOTS: u16 = 16_384;
/// How many slots each of the first three nodes begins with, but for the last one.
const SHARE: u16 = SLOTS.div_ceil(3);
/// Shorter than what operators choose, so that tests are short as well; the windows in the documentation name it.
const NODE_TIMEOUT: &str = "cluster-node-timeout 1000";

fn cluster() -> RedisCluster {
    cluster_with(&[])
}

fn cluster_with(settings: &[&str]) -> RedisCluster {
    let settings: Vec<&str> = [NODE_TIMEOUT].iter().chain(settings).copied().collect();
    RedisCluster::start(Some("data1"), &settings).unwrap_or_else(|error| panic!("{error}"))
}

fn config(cluster: &RedisCluster) -> RedisConfig {
    RedisConfig::from_url(&cluster.url()).unwrap()
}

async fn connect(cluster: &RedisCluster) -> RedisStore {
    RedisStore::connect(config(cluster)).await.unwrap()
}

/// A store whose calls wait for slots for as long as a test may take.
async fn connect_patiently(cluster: &RedisCluster) -> RedisStore {
    let wait = Duration::from_secs(20);
    let config = RedisConfig { connect_wait: wait, operation_timeout: wait, ..config(cluster) };
    RedisStore::connect(config).await.unwrap()
}

/// Two stores, as two processes would have them.
async fn two_stores(cluster: &RedisCluster) -> Vec<RedisStore> {
    vec![connect(cluster).await, connect(cluster).await]
}

/// The slot of a key, by the specification's own words: bit by bit, other than the driver does it.
fn slot_of(key: &StateKey) -> u16 {
    let crc = text(key).bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 })
    });
    crc % SLOTS
}

/// By who had the slot in the beginning: 0, 1 or 2.
fn shard_of() -> ShardOf {
    Arc::new(|key| usize::from(slot_of(key) / SHARE))
}

/// A key that no other test uses, of one of the first three nodes.
fn key_of(shard: usize) -> StateKey {
    loop {
        let key = key("of a shard");
        if shard_of()(&key) == shard {
            return key;
        }
    }
}

/// How often a node has answered with this error.
fn errors(node: &RedisServer, code: &str) -> u64 {
    count(node, &format!("errorstat_{code}"), "count=")
}

/// How often a node was asked this.
fn calls(node: &RedisServer, command: &str) -> u64 {
    count(node, &format!("cmdstat_{command}"), "calls=")
}

/// How many clients a node has, other nodes and whoever asks apart.
fn clients(node: &RedisServer) -> usize {
    let clients = node.query(&["CLIENT", "LIST", "TYPE", "normal"]).unwrap().unwrap_or_default();
    clients.lines().filter(|client| !client.contains("cmd=client|list")).count()
}

fn count(node: &RedisServer, field: &str, name: &str) -> u64 {
    let stats = node.info(field).unwrap().unwrap_or_default();
    let count = stats.split(',').find_map(|field| field.strip_prefix(name));
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}
