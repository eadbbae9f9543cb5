//! The slot map: which node owns which slot, as a node of the Cluster tells it.
//!
//! # Failure
//! An answer of another shape than a server gives is an error as a whole: half a map would send requests astray.

use std::collections::HashMap;
use std::sync::Arc;

use acteon_state_core::{Error, ErrorKind, Result};

use super::slot::SLOTS;
use crate::error::{BACKEND, unexpected};
use crate::reply;
use crate::topology::Endpoint;
use crate::wire::Value;

/// No node. No place either: there are at most as many shards as slots.
const NOBODY: u16 = u16::MAX;

/// Which node owns which slot.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SlotMap {
    shards: Arc<[Shard]>,
    /// By slot: a place in `shards`.
    owners: Box<[u16]>,
    /// Those of all shards.
    pub(crate) replicas: Arc<Vec<Endpoint>>,
    /// Rises with each change of the Cluster that a majority agreed on.
    pub(crate) epoch: u64,
}

/// A primary and its replicas.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shard {
    /// The primary's node id.
    pub(crate) id: String,
    pub(crate) primary: Endpoint,
    pub(crate) replicas: Arc<Vec<Endpoint>>,
}

impl SlotMap {
    /// Reads the answers to CLUSTER SLOTS and CLUSTER INFO of the node at `asked`.
    ///
    /// # Errors
    /// What the node answered instead.
    pub(crate) fn read(slots: Value, info: Value, asked: &Endpoint) -> Result<Self> {
        let epoch = epoch(info)?;
        let mut shards: Vec<Shard> = Vec::new();
        let mut places: HashMap<String, u16> = HashMap::new();
        let mut owners = vec![NOBODY; SLOTS];
        for entry in reply::array(slots)? {
            let mut fields = reply::array(entry)?;
            let (first, last) = (slot(reply::next(&mut fields)?)?, slot(reply::next(&mut fields)?)?);
            let owned = owners.get_mut(first..=last).ok_or_else(|| unexpected(&Value::Array(Vec::new())))?;
            let (primary, id) = node(reply::next(&mut fields)?, asked)?;
            let place = match places.get(&id) {
                Some(place) => *place,
                None => {
                    let place = u16::try_from(shards.len()).ok().filter(|place| usize::from(*place) < SLOTS);
                    let place = place.ok_or_else(|| unexpected(&Value::Array(Vec::new())))?;
                    let mut replicas = fields.map(|replica| Ok(node(replica, asked)?.0)).collect::<Result<Vec<_>>>()?;
                    // Each node tells them in an order of its own.
                    replicas.sort_by_cached_key(ToString::to_string);
                    places.insert(id.clone(), place);
                    shards.push(Shard { id, primary, replicas: Arc::new(replicas) });
                    place
                }
            };
            owned.fill(place);
        }
        if shards.is_empty() {
            let message = format!("node {asked} of the Cluster knows no node that owns slots");
            return Err(Error::new(ErrorKind::Failover, message).on_backend(BACKEND));
        }
        let replicas = Arc::new(shards.iter().flat_map(|shard| shard.replicas.iter().cloned()).collect());
        Ok(Self { shards: shards.into(), owners: owners.into(), replicas, epoch })
    }

    /// Who owns a slot.
    pub(crate) fn owner(&self, slot: u16) -> Option<&Shard> {
        self.shards.get(self.place(slot)?)
    }

    /// The place among [`shards`](Self::shards) of who owns a slot.
    pub(crate) fn place(&self, slot: u16) -> Option<usize> {
        let place = *self.owners.get(usize::from(slot))?;
        (place != NOBODY).then_some(usize::from(place))
    }

    /// All primaries that own slots.
    pub(crate) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The slots that somebody owns.
    pub(crate) fn owned(&self) -> impl Iterator<Item = u16> {
        (0..).zip(&self.owners).filter(|(_, owner)| **owner != NOBODY).map(|(slot, _)| slot)
    }

    /// Whether somebody owns each slot.
    pub(crate) fn is_complete(&self) -> bool {
        self.owners.iter().all(|owner| *owner != NOBODY)
    }

    /// Believes the node at `asked`, which told the other map, what it says of itself. Nodes hear of slots that moved between
    /// others late, and some of them never: a claim is forgotten when the one before has taken over other slots meanwhile.
    pub(crate) fn believe(&mut self, other: &Self, asked: &Endpoint) {
        let place_of = |map: &Self| map.shards.iter().position(|shard| shard.primary == *asked);
        let (Some(ours), Some(theirs)) = (place_of(self), place_of(other)) else { return };
        if let (Ok(ours), Ok(theirs)) = (u16::try_from(ours), u16::try_from(theirs)) {
            let claims = self.owners.iter_mut().zip(&other.owners).filter(|(_, owner)| **owner == theirs);
            claims.for_each(|(owner, _)| *owner = ours);
        }
    }

    /// The map in which a slot is in the hands of another primary, as a node that was asked for it said. `None` when it is
    /// already, or when the map does not have that primary.
    pub(crate) fn with_moved(&self, slot: u16, to: &Endpoint) -> Option<Self> {
        let place = self.shards.iter().position(|shard| shard.primary == *to)?;
        if self.place(slot) == Some(place) {
            return None;
        }
        let mut moved = self.clone();
        *moved.owners.get_mut(usize::from(slot))? = u16::try_from(place).ok()?;
        Some(moved)
    }
}

fn epoch(info: Value) -> Result<u64> {
    let info = reply::text(crate::store::settled(info)?)?;
    let field =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok());
    field("cluster_current_epoch").ok_or_else(|| unexpected(&Value::SimpleString(String::new())))
}

fn slot(reply: Value) -> Result<usize> {
    let number = reply::unsigned(reply)?;
    let slot = usize::try_from(number).ok().filter(|slot| *slot < SLOTS);
    slot.ok_or_else(|| unexpected(&Value::Int(0)))
}

/// The address and id of a node: `host, port, id, [more]`. Without a host it is the one that was asked.
fn node(reply: Value, asked: &Endpoint) -> Result<(Endpoint, String)> {
    let mut fields = reply::array(reply)?;
    let host = match reply::next(&mut fields)? {
        Value::Nil => String::new(),
        host => reply::text(host)?,
    };
    let port = reply::unsigned(reply::next(&mut fields)?)?;
    let port = u16::try_from(port).map_err(|_| unexpected(&Value::Int(0)))?;
    let id = fields.next().map_or(Ok(String::new()), reply::text)?;
    // A node that is to be called by its host name and has none says `?`, and its address among the rest.
    let host = if host == "?" { fields.next().and_then(ip).unwrap_or(host) } else { host };
    let endpoint = at_host(host, port, asked);
    // Before 4.0 nodes had no ids there; the address does as well.
    let id = if id.is_empty() { endpoint.to_string() } else { id };
    Ok((endpoint, id))
}

/// The field `ip` of what a node says beyond its name: a map in RESP3, a list in RESP2.
fn ip(more: Value) -> Option<String> {
    let pairs: Vec<(Value, Value)> = match more {
        Value::Map(pairs) => pairs,
        Value::Array(fields) => {
            let mut fields = fields.into_iter();
            std::iter::from_fn(|| Some((fields.next()?, fields.next()?))).collect()
        }
        _ => return None,
    };
    let is_ip = |name: Value| reply::text(name).is_ok_and(|name| name == "ip");
    let (_, ip) = pairs.into_iter().find(|(name, _)| is_ip(name.clone()))?;
    reply::text(ip).ok().filter(|ip| !ip.is_empty())
}

/// The endpoint at this host, or at that of the node that said so when it is empty or unknown (`?`).
pub(super) fn at_host(host: String, port: u16, asked: &Endpoint) -> Endpoint {
    let host = match (host.as_str(), asked) {
        ("" | "?", Endpoint::Tcp { host, .. }) => host.clone(),
        _ => host,
    };
    Endpoint::Tcp { host, port }
}

#[cfg(test)]
pub(super) mod tests {
    use acteon_state_core::{ErrorKind, Result};

    use super::{SLOTS, SlotMap};
    use crate::topology::Endpoint;
    use crate::wire::Value;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.to_owned(), port }
    }

    fn node(host: Value, port: i64, id: &str) -> Value {
        Value::Array(vec![host, Value::Int(port), text(id), Value::Array(Vec::new())])
    }

    fn entry(first: i64, last: i64, nodes: &[Value]) -> Value {
        let mut fields = vec![Value::Int(first), Value::Int(last)];
        fields.extend(nodes.iter().cloned());
        Value::Array(fields)
    }

    fn read(slots: Value) -> Result<SlotMap> {
        let info = text("cluster_state:ok\r\ncluster_current_epoch:7\r\n");
        SlotMap::read(slots, info, &tcp("asked", 1))
    }

    /// A map in which the primaries at these ports own a slot each.
    pub(in crate::cluster) fn map_of(ports: &[u16]) -> SlotMap {
        let owns = |(slot, port): (i64, &u16)| entry(slot, slot, &[node(text("h"), (*port).into(), &port.to_string())]);
        read(Value::Array((0..).zip(ports).map(owns).collect())).unwrap()
    }

    fn two_shards() -> SlotMap {
        let (a, b) = (node(text("h1"), 7001, "a"), node(text("h2"), 7002, "b"));
        let replicas = [node(text("h5"), 7005, "e"), node(text("h4"), 7004, "d")];
        let slots = vec![
            entry(0, 99, &[a.clone(), replicas[0].clone(), replicas[1].clone()]),
            entry(100, 16_383, &[b]),
            entry(50, 50, &[a, replicas[1].clone(), replicas[0].clone()]),
        ];
        read(Value::Array(slots)).unwrap()
    }

    #[test]
    fn every_slot_has_the_owner_that_the_answer_says() {
        let map = two_shards();
        assert_eq!((map.shards().len(), map.epoch, map.is_complete()), (2, 7, true));
        assert_eq!(map.owned().count(), SLOTS);
        for slot in 0..SLOTS {
            let owner = map.owner(u16::try_from(slot).unwrap()).unwrap();
            assert_eq!(owner.id, if slot < 100 { "a" } else { "b" });
        }
        assert_eq!(map.owner(16_384), None);
        assert_eq!(*map.shards()[0].replicas, [tcp("h4", 7004), tcp("h5", 7005)]);
    }

    #[test]
    fn slots_without_owner_are_known_as_such() {
        let map = read(Value::Array(vec![entry(1, 16_383, &[node(text("h"), 1, "a")])])).unwrap();
        assert!(!map.is_complete() && map.owner(0).is_none());
        assert!(map.owned().eq(1..16_384));
    }

    #[test]
    fn a_slot_moves_to_primaries_that_the_map_has() {
        let map = two_shards();
        let moved = map.with_moved(3, &tcp("h2", 7002)).unwrap();
        assert_eq!(moved.owner(3).unwrap().id, "b");
        assert_eq!(moved.owner(4).unwrap().id, "a");
        assert_eq!(moved.with_moved(3, &tcp("h2", 7002)), None);
        assert_eq!(map.with_moved(3, &tcp("h9", 7002)), None);
        assert_eq!(map.with_moved(16_384, &tcp("h2", 7002)), None);
    }

    #[test]
    fn a_node_is_believed_what_it_says_of_itself_and_nothing_else() {
        let (a, b) = (tcp("h1", 7001), tcp("h2", 7002));
        let late = two_shards();
        // As b tells it, which has got a slot of a.
        let told = late.with_moved(3, &b).unwrap();
        let mut map = late.clone();
        map.believe(&told, &b);
        assert_eq!(map, told);
        let mut map = late.clone();
        map.believe(&told, &a);
        assert_eq!(map, late);
        map.believe(&told, &tcp("h9", 1));
        assert_eq!(map, late);
    }

    #[test]
    fn a_node_without_a_host_is_at_that_of_the_one_asked_or_at_its_address() {
        let of = |node: Value| read(Value::Array(vec![entry(0, 1, &[node])])).unwrap().shards()[0].primary.clone();
        assert_eq!(of(node(Value::Nil, 7001, "a")), tcp("asked", 7001));
        assert_eq!(of(node(text(""), 7001, "a")), tcp("asked", 7001));
        assert_eq!(of(node(text("?"), 7001, "a")), tcp("asked", 7001));
        let more = [(text("hostname"), text("")), (text("ip"), text("10.0.0.1"))];
        let flat = more.iter().flat_map(|(name, value)| [name.clone(), value.clone()]).collect();
        for more in [Value::Map(more.to_vec()), Value::Array(flat)] {
            let node = Value::Array(vec![text("?"), Value::Int(7001), text("a"), more]);
            assert_eq!(of(node), tcp("10.0.0.1", 7001));
        }
        // Before 4.0: an address is all there is.
        let old = Value::Array(vec![text("h"), Value::Int(1)]);
        assert_eq!(of(old), tcp("h", 1));
    }

    #[test]
    fn an_answer_of_another_shape_is_an_error() {
        let good = || node(text("h"), 1, "a");
        let many = |count: i64| (0..count).map(|at| entry(0, 0, &[node(text("h"), 1, &at.to_string())])).collect();
        for slots in [
            Value::Nil,
            Value::Int(1),
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![Value::Array(Vec::new())]),
            Value::Array(vec![entry(0, 1, &[])]),
            Value::Array(vec![entry(-1, 1, &[good()])]),
            Value::Array(vec![entry(0, 16_384, &[good()])]),
            Value::Array(vec![entry(i64::MIN, i64::MAX, &[good()])]),
            Value::Array(vec![entry(5, 3, &[good()])]),
            Value::Array(vec![entry(0, 1, &[node(text("h"), 65_536, "a")])]),
            Value::Array(vec![entry(0, 1, &[node(Value::Int(3), 1, "a")])]),
            Value::Array(vec![entry(0, 1, &[node(Value::BulkString(vec![0xff]), 1, "a")])]),
            Value::Array(vec![entry(0, 1, &[good(), Value::Int(3)])]),
            Value::Array(many(16_385)),
        ] {
            assert_eq!(read(slots.clone()).unwrap_err().kind(), ErrorKind::Internal, "{slots:?}");
        }
        assert_eq!(read(Value::Array(Vec::new())).unwrap_err().kind(), ErrorKind::Failover);
        let slots = || Value::Array(vec![entry(0, 1, &[good()])]);
        for info in [Value::Nil, text(""), text("cluster_current_epoch:x"), Value::Array(Vec::new())] {
            assert!(SlotMap::read(slots(), info, &tcp("asked", 1)).is_err());
        }
    }
}
