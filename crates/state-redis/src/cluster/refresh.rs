//! How a Cluster's map is kept up to date.
//!
//! # Guarantees
//! One question is under way at a time, and between two there is a pause, however many requests fail or are sent elsewhere.
//! A node that does not answer holds nobody up: after [`PATIENCE`] others are asked as well.
//!
//! # How it works
//! Several nodes are asked, and the highest epoch counts, so that a node that was cut off does not lead astray. Which slots it has
//! itself each node knows best. Those that we are connected to come first, then all others of the map, then the seeds: the Cluster
//! stays known when all seeds are gone.

use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::{Error, ErrorKind, Result};
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rand::seq::SliceRandom;
use tokio::time::Instant;

use super::map::SlotMap;
use super::node::Node;
use super::{Cluster, Routes};
use crate::config::Safety;
use crate::connect::Purpose;
use crate::error::{Access, BACKEND, unexpected};
use crate::store::settled;
use crate::topology::Endpoint;
use crate::wire::{Cmd, Pipeline, Value};

/// How many nodes are asked at the same time.
const ASKED: usize = 3;
/// How many connected nodes are enough to spare opening connections for the question.
const ASKED_MIN: usize = 2;
/// How long nodes may take before others are asked as well, or before the newest answer so far counts.
const PATIENCE: Duration = Duration::from_millis(200);
/// How often the map is asked for without a reason.
const REFRESH_EVERY: Duration = Duration::from_secs(10);
/// The same while some slot has no owner, or no node answered.
const REFRESH_EVERY_BROKEN: Duration = Duration::from_millis(500);
/// The least pause between two questions. It doubles while the map stays the same, since then it is not what is wrong.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_DOUBLINGS_MAX: u32 = 2;
/// How long maps of an earlier epoch are refused. If there are no others for so long, the Cluster was made anew.
const EARLIER_REFUSED: Duration = Duration::from_secs(10);
/// The pause before a primary that could not be reached is tried again at the start.
const START_PAUSE: Duration = Duration::from_millis(100);

impl Cluster {
    /// Asks for the first map, and opens a connection to each primary. Waits for a failover that is going on.
    ///
    /// # Errors
    /// Why there is no map, or why a primary cannot be used.
    pub(crate) async fn connect(&self) -> Result<()> {
        let until = Instant::now() + self.common.connect_timeout;
        loop {
            let map = self.ask_for_map().await?;
            let opening: Vec<_> = map.shards().iter().map(|shard| self.open_node(&shard.primary)).collect();
            let opened = join_all(opening).await.into_iter().collect::<Result<Vec<_>>>();
            match opened {
                Ok(nodes) => {
                    nodes.into_iter().for_each(|node| self.nodes.insert(&node.endpoint.clone(), node));
                    self.install(map);
                    return Ok(());
                }
                Err(error) if may_pass(&error) && Instant::now() + START_PAUSE < until => {
                    tokio::time::sleep(START_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps the map up to date, without end.
    pub(crate) async fn keep_up(self: Arc<Self>) {
        let mut unchanged: u32 = 0;
        let mut earlier_since = None;
        let mut is_answered = true;
        loop {
            let is_whole = is_answered && self.routes.load().as_deref().is_some_and(|routes| routes.map.is_complete());
            let every = if is_whole { self.refresh_every() } else { REFRESH_EVERY_BROKEN };
            tokio::select! {
                () = self.stale.notified() => {}
                () = tokio::time::sleep(every) => unchanged = 0,
            }
            let answer = self.ask_for_map().await;
            is_answered = answer.is_ok();
            let is_new = match answer {
                Ok(map) if self.is_refused(&map, &mut earlier_since) => false,
                Ok(map) => self.install(map),
                Err(error) => {
                    tracing::debug!(%error, "no node of the Cluster told the map");
                    false
                }
            };
            unchanged = if is_new { 0 } else { unchanged.saturating_add(1) };
            let pause = PAUSE_MIN * 2_u32.pow(unchanged.min(PAUSE_DOUBLINGS_MAX));
            // Not all processes at the same moments.
            tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        }
    }

    /// Takes over at once what a node said, and asks for the whole map.
    pub(super) fn note_moved(&self, slot: u16, to: &Endpoint) {
        let moved =
            |routes: &Routes| Some(Routes { map: routes.map.with_moved(slot, to)?, nodes: routes.nodes.clone() });
        self.routes.rcu(|routes| routes.as_ref().map(|routes| moved(routes).map_or_else(|| routes.clone(), Arc::new)));
        self.stale.notify_one();
    }

    fn refresh_every(&self) -> Duration {
        match self.config.safety {
            Safety::Warn => REFRESH_EVERY,
            // A primary that lost its part and got it back must be noticed, also when nobody asked it anything meanwhile: its
            // connection knows nothing of what its successor granted. Who succeeded it grants nothing for that time.
            Safety::Strict => REFRESH_EVERY.min(self.config.lock_lease_max / 3),
        }
    }

    /// Whether a map is of an earlier epoch than the one in use: told by a node that has not heard of the latest yet.
    fn is_refused(&self, map: &SlotMap, earlier_since: &mut Option<Instant>) -> bool {
        let is_earlier = self.routes.load().as_deref().is_some_and(|routes| map.epoch < routes.map.epoch);
        if !is_earlier {
            *earlier_since = None;
            return false;
        }
        earlier_since.get_or_insert_with(Instant::now).elapsed() < EARLIER_REFUSED
    }

    /// Puts a map into use. Returns whether it is another one than before.
    fn install(&self, map: SlotMap) -> bool {
        let is_new = self.routes.load().as_deref().is_none_or(|routes| routes.map != map);
        // Opens those that are new before anybody needs them.
        let (nodes, left) = self.nodes.settle(&map, |endpoint| self.new_node(endpoint, None));
        if is_new {
            let owned: Vec<_> = map.shards().iter().map(|shard| shard.primary.to_string()).collect();
            tracing::info!(epoch = map.epoch, primaries = owned.join(" "), "a new slot map of the Cluster");
        }
        self.routes.store(Some(Arc::new(Routes { map, nodes })));
        self.maps.send_modify(|maps| *maps += 1);
        // What is under way there goes on: the last of these calls ends the connection.
        left.iter().for_each(|(endpoint, _)| (self.on_facts)(endpoint, None));
        is_new
    }

    /// Asks several nodes for the map; the newest counts.
    async fn ask_for_map(&self) -> Result<SlotMap> {
        let (candidates, mut count) = self.candidates();
        let mut candidates = candidates.iter();
        let mut asking = FuturesUnordered::new();
        let mut answers: Vec<(&Endpoint, SlotMap)> = Vec::new();
        let mut failure = None;
        loop {
            asking
                .extend(candidates.by_ref().take(count).map(async |endpoint| (endpoint, self.ask_one(endpoint).await)));
            count = 0;
            match tokio::time::timeout(PATIENCE, asking.next()).await {
                Ok(Some((endpoint, Ok(map)))) => answers.push((endpoint, map)),
                Ok(Some((_, Err(error)))) => failure = Some(error),
                // All have answered, or those that have not let us wait for too long.
                Ok(None) | Err(_) if !answers.is_empty() => break,
                Ok(None) if candidates.len() == 0 => break,
                Ok(None) | Err(_) => count = ASKED,
            }
        }
        let nobody = || Error::config("hosts: a Cluster needs at least one node").on_backend(BACKEND);
        newest(&answers).ok_or_else(|| failure.unwrap_or_else(nobody))
    }

    /// Who may be asked for the map, and how many of them at first.
    fn candidates(&self) -> (Vec<Endpoint>, usize) {
        let mut known: Vec<Endpoint> = match self.routes.load().as_deref() {
            Some(Routes { map, .. }) => {
                let primaries = map.shards().iter().map(|shard| &shard.primary);
                primaries.chain(&*map.replicas).cloned().collect()
            }
            None => Vec::new(),
        };
        known.shuffle(&mut rand::rng());
        let is_down = |endpoint: &Endpoint| self.up_at(endpoint).is_none();
        known.sort_by_cached_key(is_down);
        let connected = known.iter().take_while(|endpoint| !is_down(endpoint)).take(ASKED).count();
        let seeds: Vec<_> = self.seeds.iter().filter(|seed| !known.contains(seed)).cloned().collect();
        known.extend(seeds);
        (known, if connected >= ASKED_MIN { connected } else { ASKED })
    }

    async fn ask_one(&self, endpoint: &Endpoint) -> Result<SlotMap> {
        let until = Instant::now() + self.common.connect_timeout;
        let mut pipeline = Pipeline::default();
        pipeline.add(Cmd::new("CLUSTER").arg("SLOTS")).add(Cmd::new("CLUSTER").arg("INFO"));
        let mut answers = match self.up_at(endpoint) {
            Some(node) => node.links.send_all(until, &pipeline, Access::Read).await?,
            None => self.common.ask(endpoint, &pipeline).await?,
        };
        match (answers.pop(), answers.pop()) {
            (_, Some(Value::ServerError(error))) if error.details().contains("cluster support disabled") => {
                let message = format!("the server at {endpoint} is no node of a Cluster; use redis://");
                Err(Error::config(message).on_backend(BACKEND))
            }
            (Some(info), Some(slots)) => SlotMap::read(settled(slots)?, info, endpoint),
            _ => Err(unexpected(&Value::Nil)),
        }
    }

    /// The node at this address if a connection to it is open.
    fn up_at(&self, endpoint: &Endpoint) -> Option<Arc<Node>> {
        self.nodes.get(endpoint).filter(|node| node.links.first().is_up())
    }

    async fn open_node(&self, endpoint: &Endpoint) -> Result<Arc<Node>> {
        let opened = self.connector(endpoint).open(Purpose::Calls).await?;
        Ok(Arc::new(self.new_node(endpoint, Some(opened))))
    }
}

/// The map of the highest epoch, with what each node that knows of that epoch says of itself.
fn newest(answers: &[(&Endpoint, SlotMap)]) -> Option<SlotMap> {
    let mut newest = answers.iter().map(|(_, map)| map).max_by_key(|map| map.epoch)?.clone();
    let epoch = newest.epoch;
    for (asked, map) in answers.iter().filter(|(_, map)| map.epoch == epoch) {
        newest.believe(map, asked);
    }
    Some(newest)
}

/// Whether a primary that cannot be used now may have a successor soon.
fn may_pass(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Failover)
}
