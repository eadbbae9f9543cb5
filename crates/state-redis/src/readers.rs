//! Connections to replicas, for reads that one of them may answer.
//!
//! They are opened when the first such read comes, and in the background: until one is up, and whenever none is, the primary
//! answers. What a replica says may be old; see [`Get::stale_ok`](acteon_state_core::Get).
//!
//! Nothing else comes here: locks, writes and all other reads go to primaries.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::seq::IteratorRandom;

use crate::cluster::{Cluster, slot};
use crate::config::{RedisConfig, Safety};
use crate::connect::{Common, Connector, Finder};
use crate::link::Links;
use crate::sentinel::Sentinels;
use crate::server::{Mode, Role};
use crate::stats::Counters;
use crate::topology::Endpoint;
use crate::wire::Cmd;

/// Who knows where the replicas are.
pub(crate) enum Source {
    Sentinels(Arc<Sentinels>),
    Cluster(Arc<Cluster>),
}

/// Replicas, as of one moment.
pub(crate) struct Candidates {
    /// Those that have the key in question.
    pub(crate) of_key: Arc<Vec<Endpoint>>,
    pub(crate) all: Arc<Vec<Endpoint>>,
}

/// See the module.
pub(crate) struct Readers {
    source: Source,
    config: RedisConfig,
    common: Arc<Common>,
    counters: Arc<Counters>,
    // Locked for look-ups only, never across an await.
    known: Mutex<Known>,
}

/// Replicas that were heard of.
#[derive(Default)]
struct Known {
    links: HashMap<Endpoint, Arc<Links>>,
    /// The list that `links` was last compared with.
    listed: Arc<Vec<Endpoint>>,
    is_closed: bool,
}

impl Readers {
    pub(crate) fn new(source: Source, config: &RedisConfig, common: Arc<Common>, counters: Arc<Counters>) -> Self {
        // Nothing is granted here, and one connection carries more than a replica can answer.
        let config = RedisConfig { safety: Safety::Warn, connections: 1, ..config.clone() };
        Self { source, config, common, counters, known: Mutex::default() }
    }

    /// A replica that has the command's key, if the connection to one is up. To the others connections are opened, for the next
    /// read.
    pub(crate) fn pick(&self, cmd: &Cmd) -> Option<Arc<Links>> {
        let Candidates { of_key, all } = self.candidates(cmd)?;
        let mut known = self.known.lock();
        if known.is_closed {
            return None;
        }
        let gone = known.leave_all_but(all);
        for endpoint in &*of_key {
            if !known.links.contains_key(endpoint) {
                known.links.insert(endpoint.clone(), Arc::new(self.open(endpoint)));
            }
        }
        let links = of_key.iter().filter_map(|endpoint| known.links.get(endpoint));
        let picked = links.filter(|links| links.first().is_up()).choose(&mut rand::rng()).cloned();
        drop(known);
        // Ends connections, for which nobody needs to wait.
        drop(gone);
        picked
    }

    /// Ends all connections; there will be no others.
    pub(crate) async fn close(&self) {
        let links = {
            let mut known = self.known.lock();
            known.is_closed = true;
            std::mem::take(&mut known.links)
        };
        for links in links.into_values() {
            links.close().await;
        }
    }

    fn candidates(&self, cmd: &Cmd) -> Option<Candidates> {
        match &self.source {
            Source::Sentinels(sentinels) => {
                let all = sentinels.replicas();
                Some(Candidates { of_key: all.clone(), all })
            }
            Source::Cluster(cluster) => cluster.replicas(slot::of_command(cmd)?),
        }
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

impl Known {
    /// Gives back the links to servers that are no replicas any more. Looks only when the list is another one.
    fn leave_all_but(&mut self, listed: Arc<Vec<Endpoint>>) -> Vec<Arc<Links>> {
        if Arc::ptr_eq(&self.listed, &listed) {
            return Vec::new();
        }
        self.listed = listed;
        let gone = self.links.extract_if(|endpoint, _| !self.listed.contains(endpoint));
        gone.map(|(_, links)| links).collect()
    }
}
