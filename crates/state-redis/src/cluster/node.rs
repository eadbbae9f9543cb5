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
use redis::{Cmd, Pipeline, Value};
use tokio::time::Instant;

use super::map::SlotMap;
use crate::error::Access;
use crate::link::{Granting, Links, Replicas};
use crate::reply;
use crate::store::settled;
use crate::topology::Endpoint;

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
#[derive(Default)]
pub(super) struct Nodes {
    // Locked for look-ups only, never across an await.
    known: Mutex<HashMap<Endpoint, Known>>,
}

struct Known {
    node: Arc<Node>,
    /// When somebody last asked for it by its address.
    asked_at: Instant,
    is_primary: bool,
}

impl Nodes {
    /// The node at this address, opened if there is none.
    pub(super) fn at(&self, endpoint: &Endpoint, open: impl FnOnce() -> Node) -> Arc<Node> {
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
        let entry = Known { node: node.clone(), asked_at: Instant::now(), is_primary: false };
        known.insert(endpoint.clone(), entry);
        drop(known);
        drop(surplus);
        node
    }

    /// Takes in a node that was opened already.
    pub(super) fn insert(&self, node: Arc<Node>) {
        let entry = Known { node: node.clone(), asked_at: Instant::now(), is_primary: true };
        self.known.lock().insert(node.endpoint.clone(), entry);
    }

    /// The primaries of a map are those. Gives back the nodes that are not wanted any more.
    pub(super) fn settle(&self, map: &SlotMap) -> Vec<Arc<Node>> {
        let now = Instant::now();
        let gone = |endpoint: &Endpoint, known: &mut Known| {
            let was_primary = known.is_primary;
            known.is_primary = map.shards().iter().any(|shard| shard.primary == *endpoint);
            !known.is_primary && (was_primary || now - known.asked_at > STRAY_KEPT)
        };
        let gone: Vec<_> = self.known.lock().extract_if(gone).collect();
        gone.into_iter().map(|(_, known)| known.node).collect()
    }

    /// The node at this address if a connection to it is open.
    pub(super) fn up_at(&self, endpoint: &Endpoint) -> Option<Arc<Node>> {
        let known = self.known.lock();
        known.get(endpoint).map(|known| &known.node).filter(|node| node.links.first().is_up()).cloned()
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<Node>> {
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
        let mut pipeline = Pipeline::with_capacity(some.len());
        for index in some {
            pipeline.add_command(commands[*index].clone());
        }
        self.links.send_all(deadline, &pipeline, access).await
    }

    /// What it says about its slots.
    pub(super) async fn ask_nodes(&self, deadline: Instant) -> Result<String> {
        let mut cmd = redis::cmd("CLUSTER");
        cmd.arg("NODES");
        reply::text(settled(self.links.send(deadline, &cmd, Access::Read).await?)?)
    }

    pub(super) async fn ping(&self, deadline: Instant) -> Result<()> {
        settled(self.links.send(deadline, &redis::cmd("PING"), Access::Read).await?).map(|_| ())
    }
}

/// The command, for a node that is taking over its slot. Sent in one go, so nothing comes between the two.
fn after_asking(cmd: &Cmd) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline.cmd("ASKING").add_command(cmd.clone());
    pipeline
}
