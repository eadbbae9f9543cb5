//! Slots on their way from one node to another, step by step: what tools for resharding do.
//!
//! A node that takes over a slot numbers its claim by itself, above all that it knows of. Should another one do so at the same
//! moment, an old claim may win: the slot then belongs to nobody, and its keys are gone. So slots go to one node at a time, and
//! [`wait_until_agreed`](RedisCluster::wait_until_agreed) comes before the next node.

use std::io;

use super::RedisCluster;
use crate::redis_server::RedisServer;
use crate::server_process::StartError;

/// Keys that are moved in one go.
const KEYS_AT_ONCE: &str = "100";
/// How long moving them may take.
const MIGRATE_TIMEOUT_MS: &str = "5000";

impl RedisCluster {
    /// The place of the node that has the slot, by its own account.
    ///
    /// # Errors
    /// None of the running nodes has it.
    pub fn owner_of(&self, slot: u16) -> io::Result<usize> {
        let has = |node: &RedisServer| -> io::Result<bool> {
            let nodes = node.query(&["CLUSTER", "NODES"])?.unwrap_or_default();
            let own = nodes.lines().find(|line| line.contains("myself,master")).unwrap_or_default();
            let mut ranges = own.split(' ').skip(8).map(|range| range.split_once('-').unwrap_or((range, range)));
            Ok(ranges.any(|(first, last)| {
                let parse = |number: &str| number.parse::<u16>().ok();
                parse(first).zip(parse(last)).is_some_and(|(first, last)| (first..=last).contains(&slot))
            }))
        };
        let owner = self.nodes.iter().position(|node| has(node).unwrap_or(false));
        owner.ok_or_else(|| io::Error::other(format!("no running node has slot {slot}")))
    }

    /// The slot is about to go from one node to another: both send requests for it to each other where keys are not there.
    ///
    /// # Errors
    /// One of the nodes does not answer, or refuses.
    pub fn begin_move(&self, slot: u16, from: usize, to: usize) -> io::Result<()> {
        let slot = slot.to_string();
        self.nodes[to].query(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.id(from)?])?;
        self.nodes[from].query(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.id(to)?])?;
        Ok(())
    }

    /// Moves some keys of a slot that [`begin_move`](Self::begin_move) was called for.
    ///
    /// # Errors
    /// As there.
    pub fn move_keys(&self, from: usize, to: usize, keys: &[&str]) -> io::Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let port = self.nodes[to].port().to_string();
        let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", MIGRATE_TIMEOUT_MS];
        if let Some(password) = &self.password {
            migrate.extend(["AUTH", password]);
        }
        migrate.push("KEYS");
        migrate.extend(keys);
        // `NOKEY` when all of them are gone by now: deleted, or expired.
        self.nodes[from].query(&migrate).map(drop)
    }

    /// Moves all keys of the slot, and tells everybody that it has arrived.
    ///
    /// # Errors
    /// As there.
    pub fn end_move(&self, slot: u16, from: usize, to: usize) -> io::Result<()> {
        let slot = slot.to_string();
        loop {
            let keys = self.nodes[from].query_list(&["CLUSTER", "GETKEYSINSLOT", &slot, KEYS_AT_ONCE])?;
            if keys.is_empty() {
                break;
            }
            self.move_keys(from, to, &keys.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        let id = self.id(to)?;
        // First who gets it: should it fail now, the one before would send everybody to a node that does not know.
        for place in [to, from] {
            self.nodes[place].query(&["CLUSTER", "SETSLOT", &slot, "NODE", &id])?;
        }
        for place in self.primaries_as_seen_by(to)? {
            self.nodes[place].query(&["CLUSTER", "SETSLOT", &slot, "NODE", &id])?;
        }
        Ok(())
    }

    /// Moves several slots with their keys to one node, and waits until everybody has heard of it.
    ///
    /// # Errors
    /// As there, or they do not agree within a minute.
    pub fn move_slots(&self, slots: impl IntoIterator<Item = u16>, to: usize) -> io::Result<()> {
        for slot in slots {
            self.move_slot(slot, to)?;
        }
        self.wait_until_agreed()
    }

    /// Waits until all nodes say the same of who has which slots, and of how new that is.
    ///
    /// # Errors
    /// They do not within a minute, or one of them does not answer.
    pub fn wait_until_agreed(&self) -> io::Result<()> {
        let said_by = |node: &RedisServer| -> io::Result<Vec<String>> {
            let nodes = node.query(&["CLUSTER", "NODES"])?.unwrap_or_default();
            let info = node.query(&["CLUSTER", "INFO"])?.unwrap_or_default();
            let mut said: Vec<String> = nodes
                .lines()
                .map(|line| {
                    let fields: Vec<&str> = line.split(' ').collect();
                    // Id, epoch, slots: the rest differs from node to node.
                    [fields.first(), fields.get(6)]
                        .into_iter()
                        .flatten()
                        .chain(fields.iter().skip(8))
                        .copied()
                        .collect()
                })
                .collect();
            said.extend(info.lines().find(|line| line.starts_with("cluster_current_epoch")).map(str::to_owned));
            said.sort();
            Ok(said)
        };
        self.until("the nodes do not agree on the slots", || {
            let said = self.nodes.iter().map(said_by).collect::<io::Result<Vec<_>>>()?;
            Ok(said.windows(2).all(|pair| pair[0] == pair[1]))
        })
    }

    /// Moves a slot with its keys.
    ///
    /// # Errors
    /// As there.
    pub fn move_slot(&self, slot: u16, to: usize) -> io::Result<()> {
        let from = self.owner_of(slot)?;
        if from == to {
            return Ok(());
        }
        self.begin_move(slot, from, to)?;
        self.end_move(slot, from, to)
    }

    /// Starts a further node, without slots, and returns its place once all others know it.
    ///
    /// # Errors
    /// [`StartError`]: it does not start, or the others do not get to know it.
    pub fn add_node(&mut self) -> Result<usize, StartError> {
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        let (node, bus) = super::start_node(self.password.as_deref(), &settings, self.tls.as_ref())?;
        self.nodes.push(node);
        let place = self.nodes.len() - 1;
        let (port, bus) = (self.nodes[place].port().to_string(), bus.to_string());
        self.nodes[0].query(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])?;
        let id = self.id(place)?;
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        self.until("the new node does not get known", || {
            let mut is_known = true;
            for node in &self.nodes {
                let nodes = node.query(&["CLUSTER", "NODES"])?.unwrap_or_default();
                let line = nodes.lines().find(|line| line.starts_with(&id)).unwrap_or_default();
                let info = node.query(&["CLUSTER", "INFO"])?.unwrap_or_default();
                is_known &= line.contains(" connected") && !line.contains("handshake");
                is_known &= info.lines().any(|line| line == known) && info.contains("cluster_state:ok");
            }
            Ok(is_known)
        })?;
        Ok(place)
    }

    /// The node id.
    fn id(&self, place: usize) -> io::Result<String> {
        Ok(self.nodes[place].query(&["CLUSTER", "MYID"])?.unwrap_or_default())
    }
}
