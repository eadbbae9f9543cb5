//! Finds the primary that Sentinels watch, and notices when it is another one.
//!
//! # Guarantees
//! All Sentinels are asked at the same time, and the answer with the highest configuration epoch counts: one that was cut off
//! and knows only an earlier primary is outvoted by any that knows better. What they name is a claim: whoever connects there
//! asks the server for its role, and comes back if it is no primary.
//!
//! # Failure
//! A Sentinel that does not answer is left out; it is enough that one of them does. While none does, what is connected stays
//! connected.
//!
//! # How it works
//! One connection to each Sentinel, those of the configuration and those that they name. It carries the questions, and a
//! subscription to `+switch-master`, after which all are asked again. So are they every few seconds, should a message be lost.
//!
//! Source: <https://redis.io/docs/latest/develop/reference/sentinel-clients/>

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::{Error, ErrorKind, Result};
use arc_swap::ArcSwap;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::dial::{Dialed, Dialer, OnPush};
use crate::error::{BACKEND, from_server};
use crate::reply;
use crate::topology::{Endpoint, SentinelTarget};

/// How long one Sentinel may take to answer, connecting included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How often they are asked without a reason.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// The pause after a Sentinel could not be reached.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The most Sentinels that are talked to, whatever they say of each other.
const SENTINELS_MAX: usize = 32;
/// What they publish when the primary changes.
const SWITCH_CHANNEL: &str = "+switch-master";

/// The Sentinels that watch one primary.
pub(crate) struct Sentinels {
    target: SentinelTarget,
    dialer: Dialer,
    // Locked for look-ups only, never across an await.
    known: Mutex<Vec<Arc<Sentinel>>>,
    /// The primary that was named last.
    primary: watch::Sender<Option<Endpoint>>,
    /// Its replicas, as of then.
    replicas: ArcSwap<Vec<Endpoint>>,
    /// Asks for a new round of questions.
    ask: Arc<Notify>,
    /// Tells that there are new Sentinels to follow.
    grown: Notify,
}

struct Sentinel {
    endpoint: Endpoint,
    connection: tokio::sync::Mutex<Option<Dialed>>,
}

/// What one Sentinel says.
#[derive(Debug, PartialEq)]
struct Answer {
    primary: Endpoint,
    /// Rises with each failover.
    epoch: u64,
    /// The other Sentinels.
    others: Vec<Endpoint>,
    /// The replicas that are well.
    replicas: Vec<Endpoint>,
}

impl Sentinels {
    pub(crate) fn new(target: SentinelTarget, dialer: Dialer) -> Self {
        let known = target.sentinels.iter().map(|endpoint| Arc::new(Sentinel::new(endpoint.clone()))).collect();
        Self {
            target,
            dialer,
            known: Mutex::new(known),
            primary: watch::Sender::new(None),
            replicas: ArcSwap::default(),
            ask: Arc::default(),
            grown: Notify::new(),
        }
    }

    /// Asks all Sentinels which server is the primary.
    ///
    /// # Errors
    /// `Unavailable` when none answers, `Config` when none knows the name, `Denied` for wrong credentials.
    pub(crate) async fn find(&self, until: Instant) -> Result<Endpoint> {
        let until = until.min(Instant::now() + ANSWER_TIMEOUT);
        let asked = self.known.lock().clone();
        let mut answers: FuturesUnordered<_> = asked.iter().map(|sentinel| self.ask_one(sentinel, until)).collect();
        let (mut best, mut votes, mut failure): (Option<Answer>, usize, Option<Error>) = (None, 0, None);
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(answer) => {
                    self.note_others(&answer.others);
                    votes = match &best {
                        Some(known) if known.primary == answer.primary => votes + 1,
                        Some(known) if known.epoch >= answer.epoch => votes,
                        _ => 1,
                    };
                    if best.as_ref().is_none_or(|known| known.epoch < answer.epoch) {
                        best = Some(answer);
                    }
                    // Those who have not answered yet cannot change this.
                    if votes > asked.len() / 2 {
                        break;
                    }
                }
                Err(error) => failure = Some(more_telling(failure, error)),
            }
        }
        let Some(best) = best else {
            let failure = failure.unwrap_or_else(|| unavailable("there is none"));
            let message = format!("no Sentinel names the primary {}: {}", self.target.master, failure.message());
            return Err(Error::new(failure.kind(), message).on_backend(BACKEND).with_source(failure));
        };
        self.replicas.store(Arc::new(best.replicas));
        self.primary.send_if_modified(|primary| {
            let is_new = primary.as_ref() != Some(&best.primary);
            if is_new {
                tracing::info!(master = self.target.master, primary = %best.primary, epoch = best.epoch, "the Sentinels name a primary");
                *primary = Some(best.primary.clone());
            }
            is_new
        });
        Ok(best.primary)
    }

    /// The replicas of the primary that was named last.
    pub(crate) fn replicas(&self) -> Arc<Vec<Endpoint>> {
        self.replicas.load_full()
    }

    /// Waits until another server than this one is named.
    pub(crate) async fn left(&self, endpoint: &Endpoint) {
        let mut primary = self.primary.subscribe();
        let is_other = |primary: &Option<Endpoint>| primary.as_ref().is_some_and(|primary| primary != endpoint);
        if primary.wait_for(is_other).await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits until a server is named that was not named before.
    pub(crate) async fn moved(&self) {
        if self.primary.subscribe().changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Follows the Sentinels, without end.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut followers = tokio::task::JoinSet::new();
        let mut followed = 0;
        loop {
            let known = self.known.lock().clone();
            for sentinel in &known[followed..] {
                followers.spawn(self.clone().listen(sentinel.clone()));
            }
            followed = known.len();
            tokio::select! {
                () = self.grown.notified() => continue,
                () = self.ask.notified() => {}
                () = tokio::time::sleep(ASK_EVERY) => {}
            }
            if let Err(error) = self.find(Instant::now() + ANSWER_TIMEOUT).await {
                tracing::debug!(%error, "the Sentinels were asked in vain");
            }
        }
    }

    /// Keeps a subscription to one Sentinel.
    async fn listen(self: Arc<Self>, sentinel: Arc<Sentinel>) {
        loop {
            let until = Instant::now() + ANSWER_TIMEOUT;
            if let Ok(mut connection) = self.connection(&sentinel, until).await
                && let Ok(Ok(())) = tokio::time::timeout_at(until, connection.subscribe(SWITCH_CHANNEL)).await
            {
                // What happened before the subscription is found out by asking.
                self.ask.notify_one();
                sentinel.ended().await;
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    async fn ask_one(&self, sentinel: &Sentinel, until: Instant) -> Result<Answer> {
        let answer = tokio::time::timeout_at(until, async {
            let mut connection = self.connection(sentinel, until).await?;
            let mut pipeline = redis::Pipeline::with_capacity(3);
            pipeline.cmd("SENTINEL").arg("MASTER").arg(&self.target.master);
            pipeline.cmd("SENTINEL").arg("SENTINELS").arg(&self.target.master);
            pipeline.cmd("SENTINEL").arg("REPLICAS").arg(&self.target.master);
            let sent = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await;
            let answers = sent.map_err(|error| unavailable("the connection broke").with_source(error))?;
            Answer::read(answers)
        });
        let outcome = answer.await.unwrap_or_else(|_| Err(unavailable("there was no answer")));
        if outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unavailable) {
            sentinel.hang_up();
        }
        outcome.map_err(|error| {
            let message = format!("Sentinel {}: {}", sentinel.endpoint, error.message());
            Error::new(error.kind(), message).on_backend(BACKEND)
        })
    }

    /// The connection to a Sentinel, opened if there is none.
    async fn connection(&self, sentinel: &Sentinel, until: Instant) -> Result<MultiplexedConnection> {
        let open = async {
            let mut connection = sentinel.connection.lock().await;
            if let Some(dialed) = &*connection
                && !dialed.health.is_broken()
                && !dialed.driver.is_finished()
            {
                return Ok(dialed.connection.clone());
            }
            let dialed = self.dialer.dial(&sentinel.endpoint, self.on_push()).await?;
            Ok(connection.insert(dialed).connection.clone())
        };
        tokio::time::timeout_at(until, open).await.unwrap_or_else(|_| Err(unavailable("there was no answer")))
    }

    fn on_push(&self) -> OnPush {
        let (ask, master) = (self.ask.clone(), self.target.master.clone());
        Arc::new(move |push: PushInfo| {
            if push.kind == PushKind::Message && is_about(&push, &master) {
                ask.notify_one();
            }
        })
    }

    fn note_others(&self, others: &[Endpoint]) {
        let mut known = self.known.lock();
        let before = known.len();
        for endpoint in others {
            if known.len() < SENTINELS_MAX && known.iter().all(|sentinel| sentinel.endpoint != *endpoint) {
                known.push(Arc::new(Sentinel::new(endpoint.clone())));
            }
        }
        if known.len() > before {
            self.grown.notify_one();
        }
    }
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the primary {} of the Sentinels", self.target.master)
    }
}

impl Sentinel {
    fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, connection: tokio::sync::Mutex::new(None) }
    }

    /// Waits until its connection is gone.
    async fn ended(&self) {
        loop {
            match &*self.connection.lock().await {
                Some(dialed) if !dialed.health.is_broken() && !dialed.driver.is_finished() => {}
                _ => return,
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// Gives up its connection, so that the next question opens another one.
    fn hang_up(&self) {
        if let Ok(connection) = self.connection.try_lock()
            && let Some(dialed) = &*connection
        {
            dialed.health.set_broken();
        }
    }
}

impl Answer {
    /// Reads the answers to SENTINEL MASTER and SENTINEL SENTINELS.
    fn read(answers: Vec<Value>) -> Result<Self> {
        let mut answers = answers.into_iter();
        let master = match reply::next(&mut answers)? {
            Value::ServerError(error) if error.details().is_some_and(|text| text.contains("No such master")) => {
                return Err(Error::config("it does not know a primary of that name").on_backend(BACKEND));
            }
            Value::ServerError(error) => return Err(from_server(&error)),
            reply => fields(reply)?,
        };
        let Some(primary) = endpoint(&master) else {
            return Err(unavailable("it does not say where the primary is"));
        };
        let epoch = field(&master, "config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
        // Without them it works as well.
        let mut list = || match answers.next() {
            Some(Value::Array(entries)) => entries.into_iter().filter_map(|entry| fields(entry).ok()).collect(),
            _ => Vec::new(),
        };
        let others = list().iter().filter_map(|other| endpoint(other)).collect();
        let replicas = list().iter().filter(|replica| is_well(replica)).filter_map(|replica| endpoint(replica)).collect();
        Ok(Self { primary, epoch, others, replicas })
    }
}

/// The names and values of a map, in RESP3 or as a list.
fn fields(reply: Value) -> Result<Vec<(String, String)>> {
    let pairs: Vec<(Value, Value)> = match reply {
        Value::Map(pairs) => pairs,
        other => {
            let mut items = reply::array(other)?;
            let mut pairs = Vec::new();
            while let (Some(name), Some(value)) = (items.next(), items.next()) {
                pairs.push((name, value));
            }
            pairs
        }
    };
    pairs.into_iter().map(|(name, value)| Ok((reply::text(name)?, reply::text(value)?))).collect()
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
}

fn endpoint(fields: &[(String, String)]) -> Option<Endpoint> {
    let host = field(fields, "ip").filter(|host| !host.is_empty())?.to_owned();
    let port = field(fields, "port")?.parse().ok().filter(|port| *port != 0)?;
    Some(Endpoint::Tcp { host, port })
}

/// Whether a Sentinel sees this replica follow the primary.
fn is_well(replica: &[(String, String)]) -> bool {
    let is_down = |flags: &str| flags.split(',').any(|flag| matches!(flag, "s_down" | "o_down" | "disconnected"));
    !field(replica, "flags").is_some_and(is_down) && field(replica, "master-link-status") != Some("err")
}

/// Whether a message tells of a change of this primary: `<name> <old host> <old port> <new host> <new port>`.
fn is_about(push: &PushInfo, master: &str) -> bool {
    match push.data.get(1) {
        Some(Value::BulkString(text)) => text.split(|byte| *byte == b' ').next() == Some(master.as_bytes()),
        _ => false,
    }
}

/// The failure that tells more: one that trying again will not mend.
fn more_telling(known: Option<Error>, new: Error) -> Error {
    match known {
        Some(known) if new.kind() == ErrorKind::Unavailable => known,
        _ => new,
    }
}

fn unavailable(what: &str) -> Error {
    Error::new(ErrorKind::Unavailable, what.to_owned()).on_backend(BACKEND)
}
