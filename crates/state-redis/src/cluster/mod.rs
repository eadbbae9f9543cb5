//! A Cluster: the map of its slots, connections to its primaries, and the way of a request to the right one.
//!
//! # Guarantees
//! A request is sent again only where a node refused it, with `MOVED`, `ASK`, `TRYAGAIN` or `CLUSTERDOWN`, or where it never
//! reached one. A write whose answer was lost is never repeated, so what is not idempotent is not applied twice.
//!
//! # Failure
//! A slot without an owner, or on the move, is waited for until `connect_wait`; from then on calls to it fail at once, and those
//! to other slots go on. While no node can be asked, the last map stays in use.
//!
//! # How it works
//! A task keeps the map up to date, see [`refresh`]. A request takes its node from the map by its slot, without locks; where that
//! node says that another one is right, the request follows, for at most [`HOPS_AT_ONCE`] steps at once and until `connect_wait`.

mod map;
mod node;
mod redirect;
mod refresh;
pub(crate) mod slot;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::{Effect, Error, ErrorKind, Result};
use arc_swap::ArcSwapOption;
use futures_util::future::join_all;
use rand::seq::SliceRandom;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::config::RedisConfig;
use crate::connect::{Common, Connector, Finder, Opened};
use crate::error::{Access, BACKEND, copy, unexpected};
use crate::link::{Granting, Link, Links, OnFacts, Replicas};
use crate::readers::Candidates;
use crate::server::{Mode, Role};
use crate::stats::Counters;
use crate::topology::Endpoint;
use crate::wire::{Cmd, Value};

use map::{Shard, SlotMap};
use node::{Node, Nodes, Parcel};
use redirect::Redirect;

/// How many times a request follows redirections without a pause. Nodes that point at each other do so until they have heard of
/// the latest change, so more of them do not help.
const HOPS_AT_ONCE: u32 = 4;
/// The first pause of a request before it is sent again; they double up to the longest one.
const PAUSE_MIN: Duration = Duration::from_millis(4);
const PAUSE_DOUBLINGS_MAX: u32 = 4;
/// How often somebody who needs any connection looks for one, at least.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// See the module.
pub(crate) struct Cluster {
    seeds: Vec<Endpoint>,
    common: Arc<Common>,
    config: RedisConfig,
    on_facts: OnFacts,
    counters: Arc<Counters>,
    routes: ArcSwapOption<Routes>,
    nodes: Nodes,
    /// Asks for a new map.
    stale: Notify,
    /// How many maps there were: who waits for a better one watches this.
    maps: watch::Sender<u64>,
}

/// The map, and the nodes of its shards in their order.
struct Routes {
    map: SlotMap,
    nodes: Arc<[Arc<Node>]>,
}

impl Routes {
    /// The owner of a slot, or any primary for a command without keys.
    fn owner(&self, slot: Option<u16>) -> Option<&Arc<Node>> {
        match slot {
            Some(slot) => self.nodes.get(self.map.place(slot)?),
            None => self.nodes.first(),
        }
    }
}

/// How patiently a request looks for the node that serves it.
struct Search {
    hops: u32,
    until: Instant,
}

impl Search {
    /// Returns whether to go on; after a pause, where that is better.
    async fn goes_on(&mut self, at_once: bool) -> bool {
        self.hops += 1;
        if at_once && self.hops <= HOPS_AT_ONCE {
            return true;
        }
        if Instant::now() >= self.until {
            return false;
        }
        let pause = PAUSE_MIN * 2_u32.pow((self.hops - 1).min(PAUSE_DOUBLINGS_MAX));
        let pause = pause.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        tokio::time::sleep_until(self.until.min(Instant::now() + pause)).await;
        true
    }
}

impl Cluster {
    pub(crate) fn new(
        seeds: Vec<Endpoint>,
        config: &RedisConfig,
        common: Arc<Common>,
        on_facts: OnFacts,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            seeds,
            common,
            config: config.clone(),
            on_facts,
            counters,
            routes: ArcSwapOption::empty(),
            nodes: Nodes::new(),
            stale: Notify::new(),
            maps: watch::Sender::new(0),
        }
    }

    /// Sends a command to the node that owns its key, and after that to where it says.
    pub(crate) async fn send(&self, deadline: Instant, cmd: &Cmd, access: Access) -> Result<Value> {
        match self.follow(deadline, &Parcel { cmd, access, replicas: None }).await? {
            Granting::Answered { reply, .. } => Ok(reply),
            // Only grants are held up.
            Granting::NotYet(_) => Err(unexpected(&Value::Nil)),
        }
    }

    /// The same for a grant, see [`Links::grant`].
    pub(crate) async fn grant(&self, deadline: Instant, cmd: &Cmd, replicas: &Replicas) -> Result<Granting> {
        self.follow(deadline, &Parcel { cmd, access: Access::Write, replicas: Some(replicas) }).await
    }

    /// Sends something to the owner of its slot, and again to where the reply says.
    async fn follow(&self, deadline: Instant, parcel: &Parcel<'_>) -> Result<Granting> {
        let slot = slot::of_command(parcel.cmd);
        let mut search = Search { hops: 0, until: self.patience(deadline) };
        let (mut node, mut asking) = (self.owner(slot, search.until).await?, false);
        loop {
            let answer = match node.send(deadline, parcel, asking).await {
                Ok(answer) => answer,
                Err(error) => match self.successor(slot, &node, &error) {
                    Some(successor) if search.goes_on(true).await => {
                        (node, asking) = (successor, false);
                        continue;
                    }
                    _ => return Err(error),
                },
            };
            let Granting::Answered { reply, .. } = &answer else { return Ok(answer) };
            let Some(redirect) = Redirect::of(reply, &node.endpoint) else { return Ok(answer) };
            self.counters.redirected();
            let is_elsewhere = matches!(redirect, Redirect::Moved { .. } | Redirect::Ask { .. });
            if !search.goes_on(is_elsewhere).await {
                // The reply says best why it did not come to anything, and that nothing was applied.
                return if is_elsewhere { Err(unsettled(search.hops)) } else { Ok(answer) };
            }
            (node, asking) = match redirect {
                Redirect::Moved { slot, to } => {
                    self.note_moved(slot, &to);
                    (self.node(&to), false)
                }
                Redirect::Ask { to } => (self.node(&to), true),
                Redirect::Again => (self.owner(slot, search.until).await?, false),
                Redirect::Down => {
                    self.stale.notify_one();
                    (self.owner(slot, search.until).await?, false)
                }
            };
        }
    }

    /// Whether all slots have an owner that answers.
    pub(crate) async fn ping(&self, deadline: Instant) -> Result<()> {
        let routes = self.routes(deadline).await?;
        if !routes.map.is_complete() {
            self.stale.notify_one();
            let message = "some slots of the Cluster have no owner";
            return Err(Error::new(ErrorKind::Failover, message).on_backend(BACKEND));
        }
        let pings: Vec<_> = routes.nodes.iter().map(|node| node.ping(deadline)).collect();
        let answers: Result<()> = join_all(pings).await.into_iter().collect();
        answers.inspect_err(|_| self.stale.notify_one())
    }

    /// A digest of which primary has which slots, by their own accounts; `None` while slots are on the move, or when these primaries
    /// are not all that there are.
    ///
    /// # Errors
    /// When a primary does not answer.
    pub(crate) async fn layout(&self, deadline: Instant) -> Result<Option<u64>> {
        let routes = self.routes(deadline).await?;
        let asking: Vec<_> = routes.nodes.iter().map(|node| node.ask_nodes(deadline)).collect();
        let answers = join_all(asking).await;
        let mut shards: Vec<_> = routes.map.shards().iter().zip(answers).collect();
        shards.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
        let mut digest = slot::Digest::new();
        let mut is_settled = true;
        for (shard, answer) in shards {
            let own = slot::Own::read(&answer?).ok_or_else(|| unexpected(&Value::Nil))?;
            is_settled &= !own.is_moving;
            digest.add(&shard.id, &own);
        }
        // A slot that none of them has is with a node that is not in our map: nobody would notice that its keys are missed.
        if !is_settled || digest.slots().ne(routes.map.owned()) {
            self.stale.notify_one();
            return Ok(None);
        }
        Ok(Some(digest.finish()))
    }

    /// Sends commands, all to their nodes at the same time, those of one node in one go. One answer each.
    pub(crate) async fn send_each(&self, deadline: Instant, commands: &[Cmd], access: Access) -> Vec<Result<Value>> {
        let patience = self.patience(deadline);
        let mut outcomes: Vec<Option<Result<Value>>> = commands.iter().map(|_| None).collect();
        let mut groups: Vec<(Arc<Node>, Vec<usize>)> = Vec::new();
        for (index, cmd) in commands.iter().enumerate() {
            match self.owner(slot::of_command(cmd), patience).await {
                Ok(node) => match groups.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &node)) {
                    Some((_, indices)) => indices.push(index),
                    None => groups.push((node, vec![index])),
                },
                Err(error) => outcomes[index] = Some(Err(error)),
            }
        }
        let sent: Vec<_> = groups.iter().map(|(node, some)| node.send_some(deadline, commands, some, access)).collect();
        for ((node, indices), answers) in groups.iter().zip(join_all(sent).await) {
            match answers {
                Ok(answers) => {
                    for (index, answer) in indices.iter().zip(answers) {
                        outcomes[*index] = self.unless_elsewhere(answer, node).map(Ok);
                    }
                }
                Err(error) => {
                    for index in indices {
                        let successor = self.successor(slot::of_command(&commands[*index]), node, &error);
                        outcomes[*index] = successor.is_none().then(|| Err(copy(&error)));
                    }
                }
            }
        }
        // What has to go elsewhere goes its way alone.
        let missing = commands.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_none());
        let elsewhere: Vec<_> = missing.map(|(cmd, _)| self.send(deadline, cmd, access)).collect();
        let mut elsewhere = join_all(elsewhere).await.into_iter();
        let unanswered = || Err(unexpected(&Value::Nil));
        outcomes.into_iter().map(|outcome| outcome.or_else(|| elsewhere.next()).unwrap_or_else(unanswered)).collect()
    }

    /// An answer of this node, unless it sends the request elsewhere.
    fn unless_elsewhere(&self, answer: Value, node: &Node) -> Option<Value> {
        let Some(redirect) = Redirect::of(&answer, &node.endpoint) else { return Some(answer) };
        self.counters.redirected();
        if let Redirect::Moved { slot, to } = redirect {
            self.note_moved(slot, &to);
        }
        None
    }

    /// Who owns the slot by now, if it is not this node any more and the failed request did not reach it, or changes nothing.
    fn successor(&self, slot: Option<u16>, node: &Arc<Node>, error: &Error) -> Option<Arc<Node>> {
        // Whatever the failure is, it may be that the slot has another owner by now.
        self.stale.notify_one();
        let may_repeat = error.kind() == ErrorKind::Unavailable && error.effect() == Effect::NotApplied;
        let routes = self.routes.load();
        let owner = routes.as_deref().filter(|_| may_repeat)?.owner(slot)?;
        (!Arc::ptr_eq(owner, node)).then(|| owner.clone())
    }

    /// The primaries that own slots, in the order of their ids.
    pub(crate) async fn shards(&self, until: Instant) -> Result<Vec<Shard>> {
        let mut shards = self.routes(until).await?.map.shards().to_vec();
        shards.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(shards)
    }

    /// The replicas of a slot's owner, and all replicas.
    pub(crate) fn replicas(&self, slot: u16) -> Option<Candidates> {
        let routes = self.routes.load();
        let map = &routes.as_deref()?.map;
        Some(Candidates { of_key: map.owner(slot)?.replicas.clone(), all: map.replicas.clone() })
    }

    /// The connections to a node, which are opened if there are none.
    pub(crate) fn node(&self, endpoint: &Endpoint) -> Arc<Node> {
        self.nodes.at(endpoint, || self.new_node(endpoint, None))
    }

    /// A connection that carries subscriptions: of any node, since messages reach all.
    pub(crate) async fn any_link(&self) -> Arc<Link> {
        let mut maps = self.maps.subscribe();
        loop {
            let mut links: Vec<_> = self.nodes.all().iter().map(|node| node.links.first().clone()).collect();
            links.shuffle(&mut rand::rng());
            if let Some(up) = links.iter().find(|link| link.is_up()) {
                return up.clone();
            }
            tokio::select! {
                _ = maps.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// All nodes that are connected to.
    pub(crate) fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.all()
    }

    /// Until when a request looks for the node that serves it.
    fn patience(&self, deadline: Instant) -> Instant {
        deadline.min(Instant::now() + self.config.connect_wait)
    }

    /// The connections to the owner of a slot, or to any node for a command without keys.
    async fn owner(&self, slot: Option<u16>, until: Instant) -> Result<Arc<Node>> {
        // Nearly always there: neither a lock nor an allocation.
        if let Some(owner) = self.routes.load().as_deref().and_then(|routes| routes.owner(slot)) {
            return Ok(owner.clone());
        }
        let mut maps = self.maps.subscribe();
        loop {
            maps.mark_unchanged();
            if let Some(owner) = self.routes(until).await?.owner(slot) {
                return Ok(owner.clone());
            }
            self.stale.notify_one();
            if tokio::time::timeout_at(until, maps.changed()).await.is_err() {
                let message = "no node of the Cluster owns the slot of this key";
                return Err(Error::new(ErrorKind::Failover, message).on_backend(BACKEND));
            }
        }
    }

    /// The map and its nodes; the first one is waited for.
    async fn routes(&self, until: Instant) -> Result<Arc<Routes>> {
        let mut maps = self.maps.subscribe();
        loop {
            maps.mark_unchanged();
            if let Some(routes) = self.routes.load_full() {
                return Ok(routes);
            }
            self.stale.notify_one();
            if tokio::time::timeout_at(until, maps.changed()).await.is_err() {
                let message = format!("no node of {self} has told its slot map yet");
                return Err(Error::new(ErrorKind::Unavailable, message).on_backend(BACKEND));
            }
        }
    }

    fn new_node(&self, endpoint: &Endpoint, first: Option<Opened>) -> Node {
        let connector = self.connector(endpoint);
        let links = Links::start(&self.config, connector, self.on_facts.clone(), &self.counters, first);
        Node { endpoint: endpoint.clone(), links }
    }

    fn connector(&self, endpoint: &Endpoint) -> Arc<Connector> {
        let role = Role::Primary(Mode::Cluster);
        Arc::new(Connector::new(Finder::Fixed(endpoint.clone()), role, self.common.clone()))
    }
}

fn unsettled(hops: u32) -> Error {
    let message = format!("the nodes sent the request on {hops} times: who owns the slot is not settled");
    Error::new(ErrorKind::Failover, message).on_backend(BACKEND)
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seeds: Vec<_> = self.seeds.iter().map(ToString::to_string).collect();
        write!(f, "the Cluster of {}", seeds.join(","))
    }
}
