//! The way of a request to its server, whatever the topology.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::Result;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::Cluster;
use crate::config::RedisConfig;
use crate::connect::{Common, Connector, Finder, Opened, Purpose};
use crate::dial::Dialer;
use crate::error::{Access, copy, is_no_script};
use crate::link::{Granting, Link, Links, OnFacts, Replicas};
use crate::readers::{Readers, Source};
use crate::script::By;
use crate::sentinel::Sentinels;
use crate::server::{Mode, Role};
use crate::stats::Counters;
use crate::store::settled;
use crate::topology::{Target, Topology};
use crate::wire::{Cmd, Pipeline, Value};

/// A replica may take this part of the time of a call, one in so many; the rest is left for the primary.
const REPLICA_SHARE: u32 = 3;

/// All connections of a store.
pub(crate) struct Router {
    servers: Servers,
    /// Who names the primary, if somebody does.
    sentinels: Option<Arc<Sentinels>>,
    /// Replicas, where there are any.
    readers: Option<Readers>,
    operation_timeout: Duration,
    counters: Arc<Counters>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The servers of a topology.
#[derive(Clone)]
pub(crate) enum Servers {
    /// One server, or the primary that Sentinels name.
    One(Arc<Links>),
    Cluster(Arc<Cluster>),
}

/// What is known before anything is opened.
pub(crate) struct Plan {
    way: Way,
    readers: Option<Readers>,
    counters: Arc<Counters>,
    on_facts: OnFacts,
}

enum Way {
    One { connector: Arc<Connector>, sentinels: Option<Arc<Sentinels>> },
    Cluster(Arc<Cluster>),
}

impl Plan {
    /// Reads the certificates that the options name.
    ///
    /// # Errors
    /// `Config` for files that cannot be used.
    pub(crate) fn new(config: &RedisConfig, target: Target, common: Common, on_facts: OnFacts) -> Result<Self> {
        let (counters, common) = (Arc::new(Counters::default()), Arc::new(common));
        let one = |finder, mode, sentinels| Way::One {
            connector: Arc::new(Connector::new(finder, Role::Primary(mode), common.clone())),
            sentinels,
        };
        let readers = |source| Some(Readers::new(source, config, common.clone(), counters.clone()));
        let (way, readers) = match target.topology {
            Topology::Standalone(endpoint) => (one(Finder::Fixed(endpoint), Mode::Standalone, None), None),
            Topology::Sentinel(target) => {
                let dialer = Dialer::new(config, target.login.clone(), target.tls.as_ref(), 0)?;
                let sentinels = Arc::new(Sentinels::new(target, dialer));
                let way = one(Finder::Sentinels(sentinels.clone()), Mode::Standalone, Some(sentinels.clone()));
                (way, readers(Source::Sentinels(sentinels)))
            }
            Topology::Cluster { seeds } => {
                let (on_facts, counters) = (on_facts.clone(), counters.clone());
                let cluster = Arc::new(Cluster::new(seeds, config, common.clone(), on_facts, counters));
                (Way::Cluster(cluster.clone()), readers(Source::Cluster(cluster)))
            }
        };
        Ok(Self { way, readers, counters, on_facts })
    }

    /// Opens the first connections.
    ///
    /// # Errors
    /// Why that is not possible.
    pub(crate) async fn open(&self) -> Result<Option<Opened>> {
        match &self.way {
            Way::One { connector, .. } => connector.open(Purpose::Calls).await.map(Some),
            Way::Cluster(cluster) => cluster.connect().await.map(|()| None),
        }
    }
}

impl Router {
    /// Begins to keep connections, with the first one if it was opened already.
    pub(crate) fn start(config: &RedisConfig, plan: Plan, first: Option<Opened>) -> Self {
        let Plan { way, readers, counters, on_facts } = plan;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (servers, sentinels) = match way {
            Way::One { connector, sentinels } => {
                if let Some(sentinels) = &sentinels {
                    tasks.spawn(stop.clone().run_until_cancelled_owned(sentinels.clone().follow()));
                }
                (Servers::One(Arc::new(Links::start(config, connector, on_facts, &counters, first))), sentinels)
            }
            Way::Cluster(cluster) => {
                tasks.spawn(stop.clone().run_until_cancelled_owned(cluster.clone().keep_up()));
                (Servers::Cluster(cluster), None)
            }
        };
        Self { servers, sentinels, readers, operation_timeout: config.operation_timeout, counters, tasks, stop }
    }

    /// Sends a command. The reply may be an error of the server.
    pub(crate) async fn send(&self, cmd: &Cmd, access: Access) -> Result<Value> {
        self.send_until(self.deadline(), cmd, access).await
    }

    /// Sends a command that calls a script; by its source if the server has forgotten it.
    pub(crate) async fn run(&self, access: Access, command: impl Fn(By) -> Cmd) -> Result<Value> {
        self.run_until(self.deadline(), access, command).await
    }

    /// Sends a command that only reads to a replica, and to the primary where there is none or it does not answer in time.
    pub(crate) async fn read_somewhere(&self, command: impl Fn(By) -> Cmd) -> Result<Value> {
        let deadline = self.deadline();
        let by_sha = command(By::Sha);
        if let Some(links) = self.readers.as_ref().and_then(|readers| readers.pick(&by_sha)) {
            // The primary must have its time as well.
            let patience = Instant::now() + self.operation_timeout / REPLICA_SHARE;
            let mut reply = links.send(patience, &by_sha, Access::Read).await;
            if matches!(&reply, Ok(Value::ServerError(error)) if is_no_script(error)) {
                reply = links.send(patience, &command(By::Source), Access::Read).await;
            }
            match reply {
                // Also one that is loading, lost its primary, or has none of the key's slot.
                Err(_) | Ok(Value::ServerError(_)) => {}
                Ok(reply) => return Ok(reply),
            }
        }
        self.run_until(deadline, Access::Read, command).await
    }

    /// Sends independent commands that may call scripts; those that the server has forgotten by their source. One answer each,
    /// in one go where they have one server. An error of the whole means that none of them was answered.
    pub(crate) async fn run_each(
        &self,
        count: usize,
        access: Access,
        command: impl Fn(usize, By) -> Cmd,
    ) -> Result<Vec<Result<Value>>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let deadline = self.deadline();
        let commands: Vec<Cmd> = (0..count).map(|index| command(index, By::Sha)).collect();
        let mut answers = self.send_each(deadline, &commands, access).await?;
        let is_forgotten =
            |answer: &Result<Value>| matches!(answer, Ok(Value::ServerError(error)) if is_no_script(error));
        let forgotten: Vec<usize> = (0..count).filter(|index| is_forgotten(&answers[*index])).collect();
        if forgotten.is_empty() {
            return Ok(answers);
        }
        let commands: Vec<Cmd> = forgotten.iter().map(|index| command(*index, By::Source)).collect();
        match self.send_each(deadline, &commands, access).await {
            Ok(again) => forgotten.into_iter().zip(again).for_each(|(index, answer)| answers[index] = answer),
            // The others have their answers, and must not be repeated because of these.
            Err(error) => forgotten.into_iter().for_each(|index| answers[index] = Err(copy(&error))),
        }
        Ok(answers)
    }

    /// Asks for a grant by a script, and waits until replicas have it. See [`Links::grant`].
    pub(crate) async fn grant(&self, replicas: &Replicas, command: impl Fn(By) -> Cmd) -> Result<Granting> {
        let deadline = self.deadline();
        let granting = self.grant_by(deadline, replicas, &command(By::Sha)).await?;
        match &granting {
            Granting::Answered { reply: Value::ServerError(error), .. } if is_no_script(error) => {
                self.grant_by(deadline, replicas, &command(By::Source)).await
            }
            _ => Ok(granting),
        }
    }

    /// Whether the servers answer.
    pub(crate) async fn ping(&self) -> Result<()> {
        match &self.servers {
            Servers::One(_) => settled(self.send(&Cmd::new("PING"), Access::Read).await?).map(|_| ()),
            Servers::Cluster(cluster) => cluster.ping(self.deadline()).await,
        }
    }

    pub(crate) fn servers(&self) -> &Servers {
        &self.servers
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// When a call that is made now must be over.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.operation_timeout
    }

    /// Runs a task that ends with the store.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(task));
    }

    /// Waits for calls that are under way and then for `last`, at most as long as one may take, and ends all tasks and connections.
    pub(crate) async fn close(&self, last: impl Future<Output = ()>) {
        let until = self.deadline();
        match &self.servers {
            Servers::One(links) => links.idle(until).await,
            Servers::Cluster(cluster) => {
                for node in cluster.nodes() {
                    node.links.idle(until).await;
                }
            }
        }
        let _ = tokio::time::timeout_at(until, last).await;
        // First those who would open further connections.
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        match &self.servers {
            Servers::One(links) => links.close().await,
            Servers::Cluster(cluster) => {
                for node in cluster.nodes() {
                    node.links.close().await;
                }
            }
        }
        if let Some(readers) = &self.readers {
            readers.close().await;
        }
        if let Some(sentinels) = &self.sentinels {
            sentinels.close().await;
        }
    }

    async fn run_until(&self, deadline: Instant, access: Access, command: impl Fn(By) -> Cmd) -> Result<Value> {
        let reply = self.send_until(deadline, &command(By::Sha), access).await?;
        match &reply {
            Value::ServerError(error) if is_no_script(error) => {
                self.send_until(deadline, &command(By::Source), access).await
            }
            _ => Ok(reply),
        }
    }

    async fn send_each(&self, deadline: Instant, commands: &[Cmd], access: Access) -> Result<Vec<Result<Value>>> {
        match &self.servers {
            Servers::One(links) => {
                let pipeline: Pipeline = commands.iter().collect();
                Ok(links.send_all(deadline, &pipeline, access).await?.into_iter().map(Ok).collect())
            }
            Servers::Cluster(cluster) => Ok(cluster.send_each(deadline, commands, access).await),
        }
    }

    async fn grant_by(&self, deadline: Instant, replicas: &Replicas, cmd: &Cmd) -> Result<Granting> {
        match &self.servers {
            Servers::One(links) => links.grant(deadline, cmd, replicas, false).await,
            Servers::Cluster(cluster) => cluster.grant(deadline, cmd, replicas).await,
        }
    }

    async fn send_until(&self, deadline: Instant, cmd: &Cmd, access: Access) -> Result<Value> {
        match &self.servers {
            Servers::One(links) => links.send(deadline, cmd, access).await,
            // Apart, since it would make the future of every call to one server large.
            Servers::Cluster(cluster) => Box::pin(cluster.send(deadline, cmd, access)).await,
        }
    }
}

impl Servers {
    /// A connection that carries subscriptions, once there is one.
    pub(crate) async fn any_link(&self) -> Arc<Link> {
        match self {
            Self::One(links) => links.first().clone(),
            Self::Cluster(cluster) => cluster.any_link().await,
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        // A store that is dropped without being closed leaves no tasks behind.
        self.stop.cancel();
    }
}

impl fmt::Display for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.servers {
            Servers::One(links) => f.write_str(&links.first().name()),
            Servers::Cluster(cluster) => cluster.fmt(f),
        }
    }
}
