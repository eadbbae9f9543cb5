//! Redis behind Sentinels and Redis Cluster, where clients reach each node through a way of its own that goes bad: nodes announce the ports of
//! proxies. Replicas reach their primary by them as well, and so do Sentinels. Nodes of a Cluster hear of each other directly.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use acteon_test_support::{RedisCluster, RedisSentinels, RedisServer, SentinelOptions};
use async_trait::async_trait;
use tokio::task::JoinSet;

use crate::network::{self, Way};
use crate::row::{self, Backend, Fault, Harm};

enum Servers {
    Sentinels(RedisSentinels),
    Cluster(RedisCluster),
}

struct Announced {
    servers: Servers,
    /// To each node.
    ways: Vec<Arc<Way>>,
    /// Which node is next; every other time it is all of them.
    turn: usize,
    has_failed_over: bool,
}

impl Announced {
    async fn sentinels() -> io::Result<Self> {
        let options = SentinelOptions { append_only: true, ..SentinelOptions::default() };
        let mut group = RedisSentinels::start(options).map_err(io::Error::other)?;
        let ways = ways(&group.nodes).await?;
        group.announce(&ports(&ways))?;
        Ok(Self { servers: Servers::Sentinels(group), ways, turn: 0, has_failed_over: false })
    }

    async fn cluster() -> io::Result<Self> {
        let mut cluster = RedisCluster::start(None, &[]).map_err(io::Error::other)?;
        let ways = ways(&cluster.nodes).await?;
        cluster.announce(&ports(&ways))?;
        Ok(Self { servers: Servers::Cluster(cluster), ways, turn: 0, has_failed_over: false })
    }

    /// The places of the nodes that take writes, in order.
    fn primaries(&self) -> io::Result<Vec<usize>> {
        let mut primaries = match &self.servers {
            Servers::Sentinels(group) => group.primary().into_iter().collect(),
            Servers::Cluster(cluster) => cluster.primaries_as_seen_by(0)?,
        };
        primaries.sort_unstable();
        if primaries.is_empty() { Err(io::Error::other("there is no primary")) } else { Ok(primaries) }
    }

    fn wait_until_settled(&self) -> io::Result<()> {
        match &self.servers {
            Servers::Sentinels(group) => group.wait_until_settled(),
            Servers::Cluster(cluster) => cluster.wait_until_whole(&[]),
        }
    }
}

async fn ways(nodes: &[RedisServer]) -> io::Result<Vec<Arc<Way>>> {
    let mut ways = Vec::new();
    for node in nodes {
        ways.push(Arc::new(Way::to(node.address()).await?));
    }
    Ok(ways)
}

fn ports(ways: &[Arc<Way>]) -> Vec<u16> {
    ways.iter().map(|way| way.port()).collect()
}

#[async_trait]
impl Backend for Announced {
    fn name(&self) -> &'static str {
        match self.servers {
            Servers::Sentinels(_) => "redis behind Sentinels, over proxies",
            Servers::Cluster(_) => "redis cluster, over proxies",
        }
    }

    fn config(&self) -> String {
        let url = match &self.servers {
            Servers::Sentinels(group) => group.url(),
            Servers::Cluster(cluster) => cluster.url(),
        };
        format!("[state]\nbackend = \"redis\"\nurl = \"{url}\"\n")
    }

    fn faults(&self) -> Vec<Fault> {
        network::FAULTS.into()
    }

    async fn prepare(&mut self) -> io::Result<()> {
        self.has_failed_over = false;
        self.wait_until_settled()
    }

    async fn strike(&mut self, fault: &Fault, lasting: Duration) -> io::Result<()> {
        self.turn += 1;
        let primaries = self.primaries()?;
        let bad = if self.turn.is_multiple_of(2) {
            self.ways.clone()
        } else {
            vec![self.ways[primaries[self.turn / 2 % primaries.len()]].clone()]
        };
        let mut going_bad = JoinSet::new();
        for way in bad {
            let fault = *fault;
            going_bad.spawn(async move { way.strike(&fault, lasting).await });
        }
        let are_known = going_bad.join_all().await;
        assert!(are_known.into_iter().all(|is_known| is_known), "{} is not known here", fault.name);
        self.wait_until_settled()?;
        self.has_failed_over = self.primaries()? != primaries;
        Ok(())
    }

    fn came_to(&self) -> Option<Harm> {
        // Sentinels that heard nothing for a second may act on it only after everything is well again.
        let may_fail_over = matches!(self.servers, Servers::Sentinels(_)) || self.has_failed_over;
        may_fail_over.then_some(Harm::Failover)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_behind_sentinels_over_proxies_keeps_what_it_declares() {
    row::run(&mut Announced::sentinels().await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_cluster_over_proxies_keeps_what_it_declares() {
    row::run(&mut Announced::cluster().await.unwrap()).await;
}
