//! Redis Cluster: three primaries with a replica each. In strict safety no grant of a lock is lost in a failover.

use std::io;
use std::time::Duration;

use acteon_test_support::RedisCluster;
use async_trait::async_trait;

use crate::private_server::sentinels::{LAG_MAX, LEASE_MAX, wait_for_grant};
use crate::row::{self, Backend, Fault, Harm, Traits};

const KILLED: Fault = Fault::new("kill -9 of a primary", Harm::Failover);
const FROZEN: Fault = Fault::new("a primary frozen until its replica took over", Harm::Failover);
const ASKED: Fault = Fault::new("a failover that was asked for", Harm::Failover);

/// Locks that are asked for before it begins: with so many, each of three shards has one in all but one of a million cases.
const PROBES: u32 = 36;

struct Cluster {
    cluster: RedisCluster,
    is_strict: bool,
    /// Which primary is next.
    turn: usize,
}

#[async_trait]
impl Backend for Cluster {
    fn name(&self) -> &'static str {
        if self.is_strict { "redis cluster, strict" } else { "redis cluster" }
    }

    fn config(&self) -> String {
        let config = format!("[state]\nbackend = \"redis\"\nurl = \"{}\"\n", self.cluster.url());
        if !self.is_strict {
            return config;
        }
        format!("{config}[state.redis]\nsafety = \"strict\"\nlock_lease_max = \"{}s\"\n", LEASE_MAX.as_secs())
    }

    fn faults(&self) -> Vec<Fault> {
        vec![KILLED, FROZEN, ASKED]
    }

    fn traits(&self) -> Traits {
        Traits { refuses_free_locks: self.is_strict, ..Traits::default() }
    }

    /// In strict safety, until each shard gives grants again.
    async fn prepare(&mut self) -> io::Result<()> {
        if !self.is_strict {
            return Ok(());
        }
        wait_for_grant(&self.config(), PROBES).await
    }

    async fn strike(&mut self, fault: &Fault, _: Duration) -> io::Result<()> {
        self.turn += 1;
        let primaries = self.cluster.primaries_as_seen_by(self.turn % self.cluster.nodes.len())?;
        let old = *primaries.get(self.turn % primaries.len().max(1)).ok_or_else(|| io::Error::other("no primary"))?;
        match *fault {
            KILLED => {
                self.cluster.nodes[old].kill9()?;
                self.cluster.wait_until_whole(&[old])?;
                self.cluster.nodes[old].restart().map_err(io::Error::other)?;
            }
            FROZEN => {
                self.cluster.nodes[old].pause()?;
                self.cluster.wait_until_whole(&[old])?;
                self.cluster.nodes[old].resume()?;
            }
            _ => {
                // A primary and its replica are three places apart, whichever is which at the moment.
                let half = self.cluster.nodes.len() / 2;
                self.cluster.fail_over_to((old + half) % (2 * half))?;
            }
        }
        self.cluster.wait_until_whole(&[])
    }
}

fn start(is_strict: bool) -> Cluster {
    let lag = format!("min-replicas-max-lag {}", LAG_MAX.as_secs());
    let settings: &[&str] =
        if is_strict { &["min-replicas-to-write 1", &lag, "appendonly yes", "appendfsync always"] } else { &[] };
    let cluster = RedisCluster::start(None, settings).unwrap_or_else(|error| panic!("{error}"));
    Cluster { cluster, is_strict, turn: 0 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_cluster_keeps_what_it_declares() {
    row::run(&mut start(false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_cluster_in_strict_safety_keeps_what_it_declares() {
    row::run(&mut start(true)).await;
}
