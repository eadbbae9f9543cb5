//! The slot map: which node owns which slot, as a node of the Cluster tells it.

use acteon_state_core::{Error, ErrorKind, Result};
use redis::Value;

use super::slot::SLOTS;
use crate::error::BACKEND;
use crate::reply;
use crate::topology::Endpoint;

/// No node.
const NOBODY: u16 = u16::MAX;

/// Which node owns which slot.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SlotMap {
    shards: Vec<Shard>,
    /// By slot: a place in `shards`.
    owners: Box<[u16]>,
    /// Rises with each change of the Cluster that a majority agreed on.
    pub(crate) epoch: u64,
}

/// A primary and its replicas.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shard {
    /// The primary's node id.
    pub(crate) id: String,
    pub(crate) primary: Endpoint,
    pub(crate) replicas: Vec<Endpoint>,
}

impl SlotMap {
    /// Reads the answers to CLUSTER SLOTS and CLUSTER INFO of the node at `asked`.
    ///
    /// # Errors
    /// What the node answered instead.
    pub(crate) fn read(slots: Value, info: Value, asked: &Endpoint) -> Result<Self> {
        let mut map = Self { shards: Vec::new(), owners: vec![NOBODY; SLOTS].into(), epoch: epoch(info)? };
        for entry in reply::array(slots)? {
            let mut fields = reply::array(entry)?;
            let (first, last) = (slot(reply::next(&mut fields)?)?, slot(reply::next(&mut fields)?)?);
            let (primary, id) = node(reply::next(&mut fields)?, asked)?;
            let replicas = fields.map(|replica| Ok(node(replica, asked)?.0)).collect::<Result<Vec<_>>>()?;
            let place = match map.shards.iter().position(|shard| shard.id == id) {
                Some(place) => place,
                None => {
                    map.shards.push(Shard { id, primary, replicas });
                    map.shards.len() - 1
                }
            };
            if let (Some(owners), Ok(place)) = (map.owners.get_mut(first..=last), u16::try_from(place)) {
                owners.fill(place);
            }
        }
        if map.shards.is_empty() {
            let message = format!("node {asked} of the Cluster knows no node that owns slots");
            return Err(Error::new(ErrorKind::Failover, message).on_backend(BACKEND));
        }
        Ok(map)
    }

    /// Who owns a slot.
    pub(crate) fn owner(&self, slot: u16) -> Option<&Shard> {
        self.shards.get(usize::from(self.owners[usize::from(slot) % SLOTS]))
    }

    /// All primaries that own slots.
    pub(crate) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Whether somebody owns each slot.
    pub(crate) fn is_complete(&self) -> bool {
        self.owners.iter().all(|owner| *owner != NOBODY)
    }

    /// Puts a slot into the hands of another primary, as a node that was asked for it said.
    pub(crate) fn move_slot(&mut self, slot: u16, to: &Endpoint) -> bool {
        let Some(place) = self.shards.iter().position(|shard| shard.primary == *to) else { return false };
        match (self.owners.get_mut(usize::from(slot)), u16::try_from(place)) {
            (Some(owner), Ok(place)) => {
                *owner = place;
                true
            }
            _ => false,
        }
    }
}

fn epoch(info: Value) -> Result<u64> {
    let info = reply::text(crate::store::settled(info)?)?;
    let field =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok());
    Ok(field("cluster_current_epoch").unwrap_or(0))
}

fn slot(reply: Value) -> Result<usize> {
    let number = reply::unsigned(reply)?;
    usize::try_from(number).ok().filter(|slot| *slot < SLOTS).ok_or_else(|| crate::error::unexpected(&Value::Nil))
}

/// The address and id of a node: `host, port, id, …`. Without a host it is the one that was asked.
fn node(reply: Value, asked: &Endpoint) -> Result<(Endpoint, String)> {
    let mut fields = reply::array(reply)?;
    let host = reply::bytes_or_nil(reply::next(&mut fields)?)?.and_then(|host| String::from_utf8(host).ok());
    let port = reply::unsigned(reply::next(&mut fields)?)?;
    let port = u16::try_from(port).map_err(|_| crate::error::unexpected(&Value::Nil))?;
    let id = fields.next().map_or(Ok(String::new()), reply::text)?;
    let endpoint = at_host(host.unwrap_or_default(), port, asked);
    // Before 4.0 nodes had no ids there; the address does as well.
    let id = if id.is_empty() { endpoint.to_string() } else { id };
    Ok((endpoint, id))
}

/// The endpoint at this host, or at that of the node that said so when it is empty or unknown (`?`).
pub(super) fn at_host(host: String, port: u16, asked: &Endpoint) -> Endpoint {
    let host = match (host.as_str(), asked) {
        ("" | "?", Endpoint::Tcp { host, .. }) => host.clone(),
        _ => host,
    };
    Endpoint::Tcp { host, port }
}
