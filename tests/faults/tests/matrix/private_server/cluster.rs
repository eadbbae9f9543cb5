//! Redis Cluster: three primaries with a replica each.

use std::io;
use std::time::Duration;

use acteon_test_support::RedisCluster;
use async_trait::async_trait;

use crate::row::{self, Backend, Fault, Harm};

const KILLED: Fault = Fault::new("kill -9 of a primary", Harm::Failover);
const FROZEN: Fault = Fault::new("a primary frozen until its replica took over", Harm::Failover);
const ASKED: Fault = Fault::new("a failover that was asked for", Harm::Failover);

struct Cluster {
    cluster: RedisCluster,
    /// Which primary is next.
    turn: usize,
}

#[async_trait]
impl Backend for Cluster {
    fn name(&self) -> &'static str {
        "redis cluster"
    }

    fn config(&self) -> String {
        format!("[state]\nbackend = \"redis\"\nurl = \"{}\"\n", self.cluster.url())
    }

    fn faults(&self) -> Vec<Fault> {
        vec![KILLED, FROZEN, ASKED]
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_cluster_keeps_what_it_declares() {
    let cluster = RedisCluster::start(None, &[]).unwrap_or_else(|error| panic!("{error}"));
    row::run(&mut Cluster { cluster, turn: 0 }).await;
}
