//! A Cluster: the map of its slots, connections to its primaries, and the way of a request to the right one.
//!
//! # Guarantees
//! A request is sent again only where a node refused it: `MOVED`, `ASK`, `TRYAGAIN`, `CLUSTERDOWN`. One whose answer was lost is
//! never repeated, so what is not idempotent is not applied twice.
//!
//! # Failure
//! A slot without an owner, or on the move, is waited for until `connect_wait`; from then on calls to it fail at once, and those
//! to other slots go on. While no node can be asked, the last map stays in use.
//!
//! # How it works
//! A task asks for the map: of several nodes, and the one with the highest epoch counts, so that a node that was cut off does
//! not lead astray. It asks every few seconds, and at once when something pointed elsewhere or broke.

mod map;
mod redirect;
pub(crate) mod slot;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::{Error, ErrorKind, Result};
use arc_swap::ArcSwapOption;
use futures_util::future::join_all;
use parking_lot::Mutex;
use rand::seq::SliceRandom;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::config::RedisConfig;
use crate::connect::{Common, Connector, Finder, Opened};
use crate::error::{Access, BACKEND};
use crate::link::{Granting, Link, Links, OnFacts, Replicas};
use crate::reply;
use crate::server::{Mode, Role};
use crate::stats::Counters;
use crate::store::settled;
use crate::topology::Endpoint;

pub(crate) use map::{Shard, SlotMap};
use redirect::Redirect;

/// How many times one request follows redirections.
const REDIRECTS_MAX: usize = 8;
/// How many nodes are asked for the map at the same time.
const ASKED: usize = 3;
/// How often the map is asked for without a reason.
const REFRESH_EVERY: Duration = Duration::from_secs(10);
/// The same while some slot has no owner, or no node answered.
const REFRESH_EVERY_BROKEN: Duration = Duration::from_millis(500);
/// The least time between two maps, however many requests were sent elsewhere.
const REFRESH_PAUSE: Duration = Duration::from_millis(50);
/// The pause before a request asks again for a slot that is on the move.
const LATER: Duration = Duration::from_millis(10);

/// A node and the connections to it.
pub(crate) struct Node {
    pub(crate) endpoint: Endpoint,
    pub(crate) links: Links,
}

/// Something to send.
struct Parcel<'a> {
    cmd: &'a Cmd,
    access: Access,
    /// For a grant that needs replicas.
    replicas: Option<&'a Replicas>,
}

/// See the module.
pub(crate) struct Cluster {
    seeds: Vec<Endpoint>,
    common: Arc<Common>,
    config: RedisConfig,
    on_facts: OnFacts,
    counters: Arc<Counters>,
    map: ArcSwapOption<SlotMap>,
    // Locked for look-ups only, never across an await.
    nodes: Mutex<HashMap<Endpoint, Arc<Node>>>,
    /// Asks for a new map.
    stale: Notify,
    /// How many maps there were: who waits for a better one watches this.
    maps: watch::Sender<u64>,
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
            map: ArcSwapOption::empty(),
            nodes: Mutex::default(),
            stale: Notify::new(),
            maps: watch::Sender::new(0),
        }
    }

    /// Asks for the first map, and opens a connection to each primary.
    ///
    /// # Errors
    /// Why there is no map, or why a primary cannot be used.
    pub(crate) async fn connect(&self) -> Result<()> {
        let map = self.ask_for_map().await?;
        let mut opening = Vec::with_capacity(map.shards().len());
        for shard in map.shards() {
            opening.push(self.open_node(&shard.primary));
        }
        let opened = join_all(opening).await.into_iter().collect::<Result<Vec<_>>>()?;
        self.nodes.lock().extend(opened);
        self.install(map);
        Ok(())
    }

    /// Keeps the map up to date, without end.
    pub(crate) async fn keep_up(self: Arc<Self>) {
        loop {
            let is_whole = match self.map.load().as_deref() {
                Some(map) => map.is_complete(),
                None => false,
            };
            let pause = if is_whole { REFRESH_EVERY } else { REFRESH_EVERY_BROKEN };
            tokio::select! {
                () = self.stale.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            match self.ask_for_map().await {
                Ok(map) => self.install(map),
                Err(error) => {
                    tracing::debug!(%error, "no node of the Cluster told the map");
                    // Those who wait for it are not served, and so do not hurry this.
                    tokio::time::sleep(REFRESH_EVERY_BROKEN).await;
                    self.stale.notify_one();
                }
            }
            tokio::time::sleep(REFRESH_PAUSE).await;
        }
    }

    /// Sends a command to the node that owns its key, and after that to where it says.
    pub(crate) async fn send(&self, deadline: Instant, cmd: &Cmd, access: Access) -> Result<Value> {
        match self.follow(deadline, &Parcel { cmd, access, replicas: None }).await? {
            Granting::Answered { reply, .. } => Ok(reply),
            // Only grants are held up.
            Granting::NotYet(_) => Err(crate::error::unexpected(&Value::Nil)),
        }
    }

    /// The same for a grant, see [`Links::grant`].
    pub(crate) async fn grant(&self, deadline: Instant, cmd: &Cmd, replicas: &Replicas) -> Result<Granting> {
        self.follow(deadline, &Parcel { cmd, access: Access::Write, replicas: Some(replicas) }).await
    }

    /// Sends something to the owner of its slot, and again to where the reply says.
    async fn follow(&self, deadline: Instant, parcel: &Parcel<'_>) -> Result<Granting> {
        let slot = slot::of_command(parcel.cmd);
        let patience = deadline.min(Instant::now() + self.config.connect_wait);
        let (mut node, mut asking) = (self.owner(slot, patience).await?, false);
        for _ in 0..REDIRECTS_MAX {
            // Whatever the failure is, it may be that the slot has another owner by now.
            let answer = node.send(deadline, parcel, asking).await.inspect_err(|_| self.stale.notify_one())?;
            let Granting::Answered { reply, .. } = &answer else { return Ok(answer) };
            let Some(redirect) = Redirect::of(reply, &node.endpoint) else { return Ok(answer) };
            self.counters.redirected();
            asking = false;
            match redirect {
                Redirect::Moved { slot, to } => {
                    node = self.node(&to);
                    self.note_moved(slot, &to);
                }
                Redirect::Ask { to } => {
                    node = self.node(&to);
                    asking = true;
                }
                Redirect::Later if Instant::now() < patience => {
                    self.stale.notify_one();
                    let pause = LATER.mul_f64(0.5 + rand::random::<f64>());
                    tokio::time::sleep_until(patience.min(Instant::now() + pause)).await;
                    node = self.owner(slot, patience).await?;
                }
                Redirect::Later => return Ok(answer),
            }
        }
        let message = format!("the nodes sent the request on {REDIRECTS_MAX} times: who owns the slot is not settled");
        Err(Error::new(ErrorKind::Failover, message).on_backend(BACKEND))
    }

    /// Whether all slots have an owner that answers.
    pub(crate) async fn ping(&self, deadline: Instant) -> Result<()> {
        let map = self.map(deadline).await?;
        if !map.is_complete() {
            self.stale.notify_one();
            let message = "some slots of the Cluster have no owner";
            return Err(Error::new(ErrorKind::Failover, message).on_backend(BACKEND));
        }
        let nodes: Vec<_> = map.shards().iter().map(|shard| self.node(&shard.primary)).collect();
        let mut pings = Vec::with_capacity(nodes.len());
        for node in &nodes {
            pings.push(node.ping(deadline));
        }
        let answers: Result<()> = join_all(pings).await.into_iter().collect();
        answers.inspect_err(|_| self.stale.notify_one())
    }

    /// A digest of which primary has which slots, or is about to; `None` while slots are on the move.
    ///
    /// # Errors
    /// When a primary does not answer.
    pub(crate) async fn layout(&self, deadline: Instant) -> Result<Option<u64>> {
        let shards = self.shards(deadline).await?;
        let nodes: Vec<_> = shards.iter().map(|shard| self.node(&shard.primary)).collect();
        let mut answers = Vec::with_capacity(nodes.len());
        for node in &nodes {
            answers.push(node.ask_nodes(deadline));
        }
        let answers = join_all(answers).await;
        let mut digest = slot::Digest::new();
        for (shard, nodes) in shards.iter().zip(answers) {
            if !digest.add(&shard.id, &nodes?) {
                return Ok(None);
            }
        }
        Ok(Some(digest.finish()))
    }

    /// Sends commands, all to their nodes at the same time, those of one node in one go. One answer each.
    pub(crate) async fn send_each(&self, deadline: Instant, commands: &[Cmd], access: Access) -> Vec<Result<Value>> {
        let patience = deadline.min(Instant::now() + self.config.connect_wait);
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
        let mut sent = Vec::with_capacity(groups.len());
        for (node, some) in &groups {
            sent.push(node.send_some(deadline, commands, some, access));
        }
        for ((node, indices), answers) in groups.iter().zip(join_all(sent).await) {
            match answers {
                Ok(answers) => {
                    for (index, answer) in indices.iter().zip(answers) {
                        // What was sent elsewhere goes its way alone.
                        let elsewhere = Redirect::of(&answer, &node.endpoint).is_some();
                        outcomes[*index] = (!elsewhere).then_some(Ok(answer));
                    }
                }
                Err(error) => {
                    self.stale.notify_one();
                    indices.iter().for_each(|index| outcomes[*index] = Some(Err(crate::error::copy(&error))));
                }
            }
        }
        let mut elsewhere = Vec::new();
        for (cmd, outcome) in commands.iter().zip(&outcomes) {
            if outcome.is_none() {
                elsewhere.push(self.send(deadline, cmd, access));
            }
        }
        let mut elsewhere = join_all(elsewhere).await.into_iter();
        let unanswered = || Err(crate::error::unexpected(&Value::Nil));
        outcomes.into_iter().map(|outcome| outcome.or_else(|| elsewhere.next()).unwrap_or_else(unanswered)).collect()
    }

    /// The primaries that own slots, in the order of their ids.
    pub(crate) async fn shards(&self, until: Instant) -> Result<Vec<Shard>> {
        let mut shards = self.map(until).await?.shards().to_vec();
        shards.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(shards)
    }

    /// The replicas of a slot's owner, and all replicas.
    pub(crate) fn replicas(&self, slot: u16) -> Option<(Arc<Vec<Endpoint>>, Arc<Vec<Endpoint>>)> {
        let map = self.map.load_full()?;
        let all = map.shards().iter().flat_map(|shard| shard.replicas.iter().cloned()).collect();
        Some((Arc::new(map.owner(slot)?.replicas.clone()), Arc::new(all)))
    }

    /// The connections to a node, which are opened if there are none.
    pub(crate) fn node(&self, endpoint: &Endpoint) -> Arc<Node> {
        let mut nodes = self.nodes.lock();
        nodes.entry(endpoint.clone()).or_insert_with(|| Arc::new(self.new_node(endpoint, None))).clone()
    }

    /// A connection that carries subscriptions: of any node, since messages reach all.
    pub(crate) async fn any_link(&self) -> Arc<Link> {
        let mut maps = self.maps.subscribe();
        loop {
            let mut links: Vec<_> = self.nodes.lock().values().map(|node| node.links.first().clone()).collect();
            links.shuffle(&mut rand::rng());
            if let Some(up) = links.iter().find(|link| link.is_up()) {
                return up.clone();
            }
            tokio::select! {
                _ = maps.changed() => {}
                () = tokio::time::sleep(REFRESH_EVERY_BROKEN) => {}
            }
        }
    }

    /// All nodes that are connected to.
    pub(crate) fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.lock().values().cloned().collect()
    }

    /// The connections to the owner of a slot, or to any node for a command without keys.
    async fn owner(&self, slot: Option<u16>, until: Instant) -> Result<Arc<Node>> {
        let mut maps = self.maps.subscribe();
        loop {
            maps.mark_unchanged();
            let map = self.map(until).await?;
            let shard = match slot {
                Some(slot) => map.owner(slot),
                None => map.shards().first(),
            };
            if let Some(shard) = shard {
                return Ok(self.node(&shard.primary));
            }
            self.stale.notify_one();
            if tokio::time::timeout_at(until, maps.changed()).await.is_err() {
                let message = "no node of the Cluster owns the slot of this key";
                return Err(Error::new(ErrorKind::Failover, message).on_backend(BACKEND));
            }
        }
    }

    /// The map; the first one is waited for.
    async fn map(&self, until: Instant) -> Result<Arc<SlotMap>> {
        let mut maps = self.maps.subscribe();
        loop {
            if let Some(map) = self.map.load_full() {
                return Ok(map);
            }
            self.stale.notify_one();
            if tokio::time::timeout_at(until, maps.changed()).await.is_err() {
                let message = format!("no node of {self} has told its slot map yet");
                return Err(Error::new(ErrorKind::Unavailable, message).on_backend(BACKEND));
            }
        }
    }

    /// Asks several nodes for the map; the newest counts.
    async fn ask_for_map(&self) -> Result<SlotMap> {
        let mut known: Vec<Endpoint> = match self.map.load().as_deref() {
            Some(map) => map
                .shards()
                .iter()
                .flat_map(|shard| [&shard.primary].into_iter().chain(&shard.replicas))
                .cloned()
                .collect(),
            None => Vec::new(),
        };
        known.shuffle(&mut rand::rng());
        let seeds: Vec<_> = self.seeds.iter().filter(|seed| !known.contains(seed)).cloned().collect();
        known.extend(seeds);
        let mut failure = None;
        for asked in known.chunks(ASKED) {
            let mut asking = Vec::with_capacity(asked.len());
            for endpoint in asked {
                asking.push(self.ask_one(endpoint));
            }
            let answers = join_all(asking).await;
            let mut newest: Option<SlotMap> = None;
            for answer in answers {
                match answer {
                    Ok(map) if newest.as_ref().is_none_or(|newest| newest.epoch < map.epoch) => newest = Some(map),
                    Ok(_) => {}
                    Err(error) => failure = Some(error),
                }
            }
            if let Some(map) = newest {
                return Ok(map);
            }
        }
        Err(failure.unwrap_or_else(|| Error::config("hosts: a Cluster needs at least one node").on_backend(BACKEND)))
    }

    async fn ask_one(&self, endpoint: &Endpoint) -> Result<SlotMap> {
        let until = Instant::now() + self.common.connect_timeout;
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("CLUSTER").arg("SLOTS").cmd("CLUSTER").arg("INFO");
        let node = self.nodes.lock().get(endpoint).filter(|node| node.links.first().is_up()).cloned();
        let mut answers = match node {
            Some(node) => node.links.send_all(until, &pipeline, Access::Read).await?,
            None => self.common.ask(endpoint, &pipeline).await?,
        };
        match (answers.pop(), answers.pop()) {
            (Some(info), Some(Value::ServerError(error)))
                if error.details().is_some_and(|text| text.contains("cluster support disabled")) =>
            {
                drop(info);
                let message = format!("the server at {endpoint} is no node of a Cluster; use redis://");
                Err(Error::config(message).on_backend(BACKEND))
            }
            (Some(info), Some(slots)) => SlotMap::read(settled(slots)?, info, endpoint),
            _ => Err(crate::error::unexpected(&Value::Nil)),
        }
    }

    /// Puts a map into use, unless a newer one is.
    fn install(&self, map: SlotMap) {
        let is_older = |current: &SlotMap| current.epoch > map.epoch;
        if self.map.load().as_deref().is_some_and(is_older) {
            return;
        }
        for shard in map.shards() {
            self.node(&shard.primary);
        }
        let left: Vec<_> = {
            let mut nodes = self.nodes.lock();
            let gone: Vec<_> =
                nodes.keys().filter(|node| map.shards().iter().all(|shard| shard.primary != **node)).cloned().collect();
            gone.iter().filter_map(|node| nodes.remove(node)).collect()
        };
        // What is under way there goes on: the last of these calls ends the connection.
        drop(left);
        self.map.store(Some(Arc::new(map)));
        self.maps.send_modify(|maps| *maps += 1);
    }

    /// Takes over at once what a node said, and asks for the whole map.
    fn note_moved(&self, slot: u16, to: &Endpoint) {
        self.map.rcu(|map| {
            map.as_ref().map(|map| {
                let mut changed = SlotMap::clone(map);
                if changed.move_slot(slot, to) { Arc::new(changed) } else { map.clone() }
            })
        });
        self.stale.notify_one();
    }

    async fn open_node(&self, endpoint: &Endpoint) -> Result<(Endpoint, Arc<Node>)> {
        let opened = self.connector(endpoint).open().await?;
        Ok((endpoint.clone(), Arc::new(self.new_node(endpoint, Some(opened)))))
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

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seeds: Vec<_> = self.seeds.iter().map(ToString::to_string).collect();
        write!(f, "the Cluster of {}", seeds.join(","))
    }
}

impl Node {
    async fn send(&self, deadline: Instant, parcel: &Parcel<'_>, asking: bool) -> Result<Granting> {
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

    async fn send_some(
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
    async fn ask_nodes(&self, deadline: Instant) -> Result<String> {
        let mut cmd = redis::cmd("CLUSTER");
        cmd.arg("NODES");
        reply::text(settled(self.links.send(deadline, &cmd, Access::Read).await?)?)
    }

    async fn ping(&self, deadline: Instant) -> Result<()> {
        settled(self.links.send(deadline, &redis::cmd("PING"), Access::Read).await?).map(|_| ())
    }
}

/// The command, for a node that is taking over its slot. Sent in one go, so nothing comes between the two.
fn after_asking(cmd: &Cmd) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline.cmd("ASKING").add_command(cmd.clone());
    pipeline
}
