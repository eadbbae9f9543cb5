//! The nodes of a Cluster that we are connected to.
//!
//! # Bounds
//! All primaries of the map, and for a while the nodes that a redirection named and the map does not: at most [`STRAYS_MAX`],
//! the longest unused ones go first. A primary that is none any more is left at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::Result;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::map::SlotMap;
use crate::error::Access;
use crate::link::{Granting, Links, Replicas};
use crate::reply;
use crate::store::settled;
use crate::topology::Endpoint;
use crate::wire::{Cmd, Pipeline, Value};

/// How long connections to a node stay that no map names: a node that takes over its first slot is asked for every key of it that
/// has come, and owns nothing until the last one has.
const STRAY_KEPT: Duration = Duration::from_secs(5);
/// How many of them there are at most, whatever the answers of a server name.
const STRAYS_MAX: usize = 16;

/// A node and the connections to it.
pub(crate) struct Node {
    pub(crate) endpoint: Endpoint,
    pub(crate) links: Links,
}

/// Something to send.
pub(super) struct Parcel<'a> {
    pub(super) cmd: &'a Cmd,
    pub(super) access: Access,
    /// For a grant that needs replicas.
    pub(super) replicas: Option<&'a Replicas>,
}

/// See the module.
pub(super) struct Nodes<N = Node> {
    // Locked for look-ups only, never across an await.
    known: Mutex<HashMap<Endpoint, Known<N>>>,
}

/// Nodes that are not wanted any more, by their addresses.
pub(super) type Gone<N> = Vec<(Endpoint, Arc<N>)>;

struct Known<N> {
    node: Arc<N>,
    /// When somebody last asked for it by its address.
    asked_at: Instant,
    is_primary: bool,
}

impl<N> Nodes<N> {
    pub(super) fn new() -> Self {
        Self { known: Mutex::default() }
    }

    /// The node at this address, opened if there is none.
    pub(super) fn at(&self, endpoint: &Endpoint, open: impl FnOnce() -> N) -> Arc<N> {
        let mut surplus = None;
        let mut known = self.known.lock();
        if let Some(found) = known.get_mut(endpoint) {
            found.asked_at = Instant::now();
            return found.node.clone();
        }
        let strays = known.iter().filter(|(_, known)| !known.is_primary);
        if strays.clone().count() >= STRAYS_MAX {
            let oldest = strays.min_by_key(|(_, known)| known.asked_at).map(|(endpoint, _)| endpoint.clone());
            surplus = oldest.and_then(|endpoint| known.remove(&endpoint));
        }
        let node = Arc::new(open());
        known.insert(endpoint.clone(), Known { node: node.clone(), asked_at: Instant::now(), is_primary: false });
        drop(known);
        // Ends connections, for which nobody needs to wait.
        drop(surplus);
        node
    }

    /// Takes in a primary that was opened already.
    pub(super) fn insert(&self, endpoint: &Endpoint, node: Arc<N>) {
        let entry = Known { node, asked_at: Instant::now(), is_primary: true };
        self.known.lock().insert(endpoint.clone(), entry);
    }

    /// The primaries of a map in their order, opened where there are none, and the nodes that are not wanted any more.
    pub(super) fn settle(&self, map: &SlotMap, open: impl Fn(&Endpoint) -> N) -> (Arc<[Arc<N>]>, Gone<N>) {
        let now = Instant::now();
        let mut known = self.known.lock();
        let gone = known.extract_if(|endpoint, known| {
            let was_primary = known.is_primary;
            known.is_primary = map.shards().iter().any(|shard| shard.primary == *endpoint);
            !known.is_primary && (was_primary || now - known.asked_at > STRAY_KEPT)
        });
        let gone = gone.map(|(endpoint, known)| (endpoint, known.node)).collect();
        let mut primaries = Vec::with_capacity(map.shards().len());
        for shard in map.shards() {
            let entry = known.entry(shard.primary.clone()).or_insert_with(|| {
                let node = Arc::new(open(&shard.primary));
                Known { node, asked_at: now, is_primary: true }
            });
            primaries.push(entry.node.clone());
        }
        (primaries.into(), gone)
    }

    /// The node at this address if there is one.
    pub(super) fn get(&self, endpoint: &Endpoint) -> Option<Arc<N>> {
        self.known.lock().get(endpoint).map(|known| known.node.clone())
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<N>> {
        self.known.lock().values().map(|known| known.node.clone()).collect()
    }
}

impl Node {
    /// Sends something, `asking` for a slot that it is taking over.
    pub(super) async fn send(&self, deadline: Instant, parcel: &Parcel<'_>, asking: bool) -> Result<Granting> {
        if let Some(replicas) = parcel.replicas {
            return self.links.grant(deadline, parcel.cmd, replicas, asking).await;
        }
        let reply = if asking {
            let replies = self.links.send_all(deadline, &after_asking(parcel.cmd), parcel.access).await?;
            replies.into_iter().next_back().unwrap_or(Value::Nil)
        } else {
            self.links.send(deadline, parcel.cmd, parcel.access).await?
        };
        Ok(Granting::Answered { reply, acknowledged: Value::Nil })
    }

    /// Sends some of the commands in one go.
    pub(super) async fn send_some(
        &self,
        deadline: Instant,
        commands: &[Cmd],
        some: &[usize],
        access: Access,
    ) -> Result<Vec<Value>> {
        let pipeline: Pipeline = some.iter().map(|index| &commands[*index]).collect();
        self.links.send_all(deadline, &pipeline, access).await
    }

    /// What it says about its slots.
    pub(super) async fn ask_nodes(&self, deadline: Instant) -> Result<String> {
        let mut cmd = Cmd::new("CLUSTER");
        cmd.arg("NODES");
        reply::text(settled(self.links.send(deadline, &cmd, Access::Read).await?)?)
    }

    pub(super) async fn ping(&self, deadline: Instant) -> Result<()> {
        settled(self.links.send(deadline, &Cmd::new("PING"), Access::Read).await?).map(|_| ())
    }
}

/// The command, for a node that is taking over its slot. Sent in one go, so nothing comes between the two.
fn after_asking(cmd: &Cmd) -> Pipeline {
    [&Cmd::new("ASKING"), cmd].into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Nodes, STRAY_KEPT, STRAYS_MAX};
    use crate::cluster::map::tests::map_of;
    use crate::topology::Endpoint;

    fn tcp(port: u16) -> Endpoint {
        Endpoint::Tcp { host: "h".to_owned(), port }
    }

    /// Takes the ports of a map's primaries for the nodes themselves.
    fn settle(nodes: &Nodes<u16>, ports: &[u16]) -> (Vec<u16>, Vec<u16>) {
        let open = |endpoint: &Endpoint| match endpoint {
            Endpoint::Tcp { port, .. } => *port,
            Endpoint::Unix(_) => 0,
        };
        let (primaries, gone) = nodes.settle(&map_of(ports), open);
        (primaries.iter().map(|node| **node).collect(), gone.iter().map(|(_, node)| **node).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn all_primaries_stay_and_strays_are_bounded() {
        let nodes = Nodes::new();
        let ports: Vec<u16> = (1..100).collect();
        assert_eq!(settle(&nodes, &ports), (ports.clone(), vec![]));
        for port in 1_000..2_000 {
            assert_eq!(*nodes.at(&tcp(port), || port), port);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(nodes.all().len(), ports.len() + STRAYS_MAX);
        assert!(ports.iter().all(|port| nodes.get(&tcp(*port)).is_some()));
        assert!(nodes.get(&tcp(1_999)).is_some() && nodes.get(&tcp(1_000)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_primary_goes_at_once_and_who_may_become_one_stays_for_a_while() {
        let nodes = Nodes::new();
        settle(&nodes, &[1, 2]);
        nodes.at(&tcp(3), || 3);
        assert_eq!(settle(&nodes, &[2, 4]), (vec![2, 4], vec![1]));
        tokio::time::advance(STRAY_KEPT).await;
        nodes.at(&tcp(3), || 0);
        tokio::time::advance(STRAY_KEPT).await;
        assert_eq!(settle(&nodes, &[2, 4]), (vec![2, 4], vec![]));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(settle(&nodes, &[2, 4]), (vec![2, 4], vec![3]));
    }
}
