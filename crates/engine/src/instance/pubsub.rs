//! Publish and subscribe: who listens to which channel, and delivery.
//!
//! # Guarantees
//! A message reaches everyone whose subscription was confirmed before it was published, once per matching subscription. What one
//! connection publishes arrives in the order in which it published it.
//!
//! # Failure
//! A subscriber that does not read what it gets is disconnected at the bound of its mailbox: nobody else waits for it.
//!
//! # How it works
//! One table from name to subscribers for channels, one for patterns, one for shard channels. A message is encoded once for each
//! version of the protocol that a subscriber speaks, and copied into mailboxes. Patterns are tried one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use acteon_resp::{Protocol, ReplyWriter};
use indexmap::{IndexMap, IndexSet};
use parking_lot::RwLock;

use super::Session;
use super::mailbox::Peer;
use crate::algorithm::glob::{Case, matches};

/// What a subscription names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channels {
    /// One channel.
    Plain,
    /// All channels that match a pattern.
    Pattern,
    /// A channel of a shard: a name space of its own, which patterns do not reach.
    Shard,
}

/// All subscriptions of an instance.
#[derive(Default)]
pub(crate) struct PubSub {
    plain: Table,
    patterns: Table,
    shard: Table,
}

type Subscribers = IndexMap<u64, Arc<Peer>, foldhash::fast::RandomState>;

#[derive(Default)]
struct Table {
    by_name: RwLock<IndexMap<Box<[u8]>, Subscribers, foldhash::fast::RandomState>>,
    /// How many names there are: looked at without the lock.
    count: AtomicUsize,
}

/// What one connection has subscribed to.
#[derive(Default)]
pub(crate) struct Subscriptions {
    plain: Names,
    patterns: Names,
    shard: Names,
}

type Names = IndexSet<Box<[u8]>>;

impl Subscriptions {
    pub(crate) fn names(&mut self, channels: Channels) -> &mut Names {
        match channels {
            Channels::Plain => &mut self.plain,
            Channels::Pattern => &mut self.patterns,
            Channels::Shard => &mut self.shard,
        }
    }

    /// The number that a confirmation shows: shard channels count apart.
    pub(crate) fn count(&self, channels: Channels) -> usize {
        match channels {
            Channels::Plain | Channels::Pattern => self.plain.len() + self.patterns.len(),
            Channels::Shard => self.shard.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.patterns.is_empty() && self.shard.is_empty()
    }
}

impl PubSub {
    fn table(&self, channels: Channels) -> &Table {
        match channels {
            Channels::Plain => &self.plain,
            Channels::Pattern => &self.patterns,
            Channels::Shard => &self.shard,
        }
    }

    /// Subscribes; nothing happens if it is subscribed already.
    pub(crate) fn join(&self, session: &mut Session, channels: Channels, name: &[u8]) {
        let subscriptions = session.subscriptions.get_or_insert_default();
        if subscriptions.names(channels).insert(name.into()) {
            self.table(channels).join(name, &session.peer);
            session.peer.facts.note_subscriptions(subscriptions.lens());
        }
    }

    /// Ends a subscription, if there is one.
    pub(crate) fn leave(&self, session: &mut Session, channels: Channels, name: &[u8]) {
        let Some(subscriptions) = &mut session.subscriptions else { return };
        // The order of the others may change: nobody relies on it.
        if subscriptions.names(channels).swap_remove(name) {
            self.table(channels).leave(name, &session.peer);
            session.peer.facts.note_subscriptions(subscriptions.lens());
        }
        if subscriptions.is_empty() {
            session.subscriptions = None;
        }
    }

    /// Ends all subscriptions of a connection.
    pub(crate) fn leave_all(&self, session: &mut Session) {
        let Some(mut subscriptions) = session.subscriptions.take() else { return };
        for channels in [Channels::Plain, Channels::Pattern, Channels::Shard] {
            for name in subscriptions.names(channels).drain(..) {
                self.table(channels).leave(&name, &session.peer);
            }
        }
        session.peer.facts.note_subscriptions([0; 3]);
    }

    /// Whether anybody listens to channels or patterns.
    pub(crate) fn has_listeners(&self) -> bool {
        self.plain.count() + self.patterns.count() > 0
    }

    /// Delivers a message. Returns to how many subscriptions.
    pub(crate) fn publish(&self, channels: Channels, channel: &[u8], message: &[u8]) -> usize {
        let mut delivered = 0;
        let table = self.table(channels);
        if table.count() > 0
            && let Some(subscribers) = table.by_name.read().get(channel)
        {
            let name = if channels == Channels::Shard { "smessage" } else { "message" };
            delivered += deliver(subscribers, &[name.as_bytes(), channel, message]);
        }
        if channels == Channels::Plain && self.patterns.count() > 0 {
            for (pattern, subscribers) in self.patterns.by_name.read().iter() {
                if matches(pattern, channel, Case::Sensitive) {
                    delivered += deliver(subscribers, &[b"pmessage", pattern, channel, message]);
                }
            }
        }
        delivered
    }

    /// The names that somebody subscribed to, those that match `pattern`.
    pub(crate) fn active(&self, channels: Channels, pattern: Option<&[u8]>) -> Vec<Box<[u8]>> {
        let by_name = self.table(channels).by_name.read();
        let chosen =
            by_name.keys().filter(|name| pattern.is_none_or(|pattern| matches(pattern, name, Case::Sensitive)));
        chosen.cloned().collect()
    }

    /// How many subscribers a name has.
    pub(crate) fn subscribers(&self, channels: Channels, name: &[u8]) -> usize {
        self.table(channels).by_name.read().get(name).map_or(0, IndexMap::len)
    }

    /// How many different names are subscribed to.
    pub(crate) fn count(&self, channels: Channels) -> usize {
        self.table(channels).count()
    }
}

impl Subscriptions {
    fn lens(&self) -> [usize; 3] {
        [self.plain.len(), self.patterns.len(), self.shard.len()]
    }
}

impl Table {
    fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    fn join(&self, name: &[u8], peer: &Arc<Peer>) {
        let mut by_name = self.by_name.write();
        by_name.entry(name.into()).or_default().insert(peer.id, peer.clone());
        self.count.store(by_name.len(), Ordering::Release);
    }

    fn leave(&self, name: &[u8], peer: &Peer) {
        let mut by_name = self.by_name.write();
        if let Some(subscribers) = by_name.get_mut(name) {
            subscribers.swap_remove(&peer.id);
            if subscribers.is_empty() {
                by_name.swap_remove(name);
            }
        }
        self.count.store(by_name.len(), Ordering::Release);
    }
}

fn deliver(subscribers: &Subscribers, parts: &[&[u8]]) -> usize {
    let (mut resp2, mut resp3) = (Vec::new(), Vec::new());
    for peer in subscribers.values() {
        let protocol = peer.facts.protocol();
        let encoded = if protocol == Protocol::Resp3 { &mut resp3 } else { &mut resp2 };
        if encoded.is_empty() {
            let mut writer = ReplyWriter::new(encoded, protocol);
            writer.push(parts.len());
            parts.iter().for_each(|part| writer.bulk(part));
        }
        peer.send(|mailbox| mailbox.extend_from_slice(encoded));
    }
    subscribers.len()
}
