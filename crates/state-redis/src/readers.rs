//! Connections to replicas, for reads that one of them may answer.
//!
//! They are opened when the first such read comes, and in the background: until one is up, and whenever none is, the primary
//! answers. What a replica says may be old; see [`Get::stale_ok`](acteon_state_core::Get).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::seq::IteratorRandom;
use redis::Cmd;

use crate::cluster::{Cluster, slot};
use crate::config::{RedisConfig, Safety};
use crate::connect::{Common, Connector, Finder};
use crate::link::Links;
use crate::sentinel::Sentinels;
use crate::server::{Mode, Role};
use crate::stats::Counters;
use crate::topology::Endpoint;

/// Who knows where the replicas are.
pub(crate) enum Source {
    Sentinels(Arc<Sentinels>),
    Cluster(Arc<Cluster>),
}

/// See the module.
pub(crate) struct Readers {
    source: Source,
    config: RedisConfig,
    common: Arc<Common>,
    counters: Arc<Counters>,
    // Locked for look-ups only, never across an await.
    links: Mutex<HashMap<Endpoint, Arc<Links>>>,
}

impl Readers {
    pub(crate) fn new(source: Source, config: &RedisConfig, common: Arc<Common>, counters: Arc<Counters>) -> Self {
        // Nothing is granted here, and one connection carries more than a replica can answer.
        let config = RedisConfig { safety: Safety::Warn, connections: 1, ..config.clone() };
        Self { source, config, common, counters, links: Mutex::default() }
    }

    /// A replica that has the command's key, if the connection to one is up. To the others connections are opened, for the next
    /// read.
    pub(crate) fn pick(&self, cmd: &Cmd) -> Option<Arc<Links>> {
        let (replicas, all) = match &self.source {
            Source::Sentinels(sentinels) => {
                let all = sentinels.replicas();
                (all.clone(), all)
            }
            Source::Cluster(cluster) => cluster.replicas(slot::of_command(cmd)?)?,
        };
        let mut gone = Vec::new();
        let mut links = self.links.lock();
        links.retain(|endpoint, links| {
            let stays = all.contains(endpoint);
            if !stays {
                gone.push(links.clone());
            }
            stays
        });
        for endpoint in &*replicas {
            links.entry(endpoint.clone()).or_insert_with(|| Arc::new(self.open(endpoint)));
        }
        let up = replicas.iter().filter_map(|endpoint| links.get(endpoint)).filter(|links| links.first().is_up());
        up.choose(&mut rand::rng()).cloned()
    }

    /// All connections.
    pub(crate) fn all(&self) -> Vec<Arc<Links>> {
        self.links.lock().values().cloned().collect()
    }

    fn mode(&self) -> Mode {
        match self.source {
            Source::Sentinels(_) => Mode::Standalone,
            Source::Cluster(_) => Mode::Cluster,
        }
    }

    fn open(&self, endpoint: &Endpoint) -> Links {
        let finder = Finder::Fixed(endpoint.clone());
        let connector = Arc::new(Connector::new(finder, Role::Replica(self.mode()), self.common.clone()));
        // What a replica says of itself decides nothing.
        Links::start(&self.config, connector, Arc::new(|_, _| {}), &self.counters, None)
    }
}
