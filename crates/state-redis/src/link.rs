//! Connections that heal themselves, and the way of a request through one.
//!
//! # Guarantees
//! A request is sent at most once: nothing here or in the client library repeats it. When a connection is lost, calls wait for
//! the next one until `connect_wait` after the loss; from then on they fail at once, as `Unavailable` and `NotApplied`. Each
//! call ends within `operation_timeout`.
//!
//! # Failure
//! A connection that breaks fails what is in flight: writes as `Unknown`, for their answers are lost. So does a timeout; the
//! connection then stays, because the multiplexer drops late answers. A server that leaves several calls in a row without
//! answer gets a fresh connection, since a dead peer may never close the old one. So does one that has become a replica: it would
//! go on answering reads from what it knew.
//!
//! # How it works
//! Each [`Link`] has a task that opens a connection, waits for its end, and opens the next: without end, with pauses that
//! double up to `reconnect_delay_max` and are drawn between zero and that (full jitter), until the store is closed.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use acteon_state_core::{Effect, Error, ErrorKind, Result};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::config::{Endpoint, RedisConfig};
use crate::connect::{Connector, Health, Live, Opened};
use crate::error::{Access, BACKEND, from_connection, is_no_script, timeout};
use crate::script::By;
use crate::server::Facts;

/// Calls without answer in a row after which a connection is given up. Above one, so that a single slow command does not
/// take the connection away from everyone.
const UNANSWERED_MAX: u32 = 8;
/// The first pause between two attempts to connect.
const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(10);

/// A connection that lasted this long makes up for the failures before it.
const STABLE_AFTER: Duration = Duration::from_secs(1);

/// All connections of a store.
pub(crate) struct Links {
    links: Box<[Arc<Link>]>,
    next: AtomicUsize,
    operation_timeout: Duration,
    connect_wait: Duration,
    in_flight_max: u32,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// One connection, or the next attempt at it.
pub(crate) struct Link {
    connector: Arc<Connector>,
    line: watch::Sender<Line>,
    /// Free places for calls.
    places: Semaphore,
    /// Timeouts since the last answer.
    unanswered: AtomicU32,
    /// Asks the task for a fresh connection.
    renew: Notify,
    delay_max: Duration,
    on_facts: OnFacts,
}

/// Receives what a server said at each new connection.
pub(crate) type OnFacts = Arc<dyn Fn(Facts) + Send + Sync>;

/// What a link has to offer.
#[derive(Clone)]
pub(crate) enum Line {
    /// No connection.
    Down(Outage),
    /// A connection that was open a moment ago.
    Up(Live),
}

/// Why there is no connection.
#[derive(Clone)]
pub(crate) struct Outage {
    /// When it began.
    since: Instant,
    /// The newest failure.
    kind: ErrorKind,
    reason: Arc<str>,
}

impl Links {
    /// Starts the links; `first` is the connection of the first one, if it was opened already.
    pub(crate) fn start(
        config: &RedisConfig,
        connector: Arc<Connector>,
        on_facts: OnFacts,
        first: Option<Opened>,
    ) -> Self {
        let new_link = |_| {
            let reason = format!("there is no connection to {} yet", connector.endpoint());
            Arc::new(Link {
                connector: connector.clone(),
                line: watch::Sender::new(Line::Down(Outage::new(reason))),
                places: Semaphore::new(config.in_flight_max),
                unanswered: AtomicU32::new(0),
                renew: Notify::new(),
                delay_max: config.reconnect_delay_max,
                on_facts: on_facts.clone(),
            })
        };
        let links: Box<[Arc<Link>]> = (0..config.connections).map(new_link).collect();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let mut first = first;
        for link in &links {
            // At once, so that the caller of `connect` finds the connection up.
            let opened = first.take().map(|opened| link.up(opened));
            tasks.spawn(stop.clone().run_until_cancelled_owned(link.clone().keep_up(opened)));
        }
        Self {
            links,
            next: AtomicUsize::new(0),
            operation_timeout: config.operation_timeout,
            connect_wait: config.connect_wait,
            in_flight_max: u32::try_from(config.in_flight_max).unwrap_or(u32::MAX),
            tasks,
            stop,
        }
    }

    /// Sends a command. The reply may be an error of the server.
    pub(crate) async fn send(&self, cmd: &Cmd, access: Access) -> Result<Value> {
        self.send_until(self.deadline(), cmd, access).await
    }

    /// Sends a command that calls a script; by its source if the server has forgotten it.
    pub(crate) async fn run(&self, access: Access, command: impl Fn(By) -> Cmd) -> Result<Value> {
        let deadline = self.deadline();
        let reply = self.send_until(deadline, &command(By::Sha), access).await?;
        match &reply {
            Value::ServerError(error) if is_no_script(error) => {
                self.send_until(deadline, &command(By::Source), access).await
            }
            _ => Ok(reply),
        }
    }

    /// Sends commands in one go; one reply each, which may be an error of the server.
    pub(crate) async fn send_all(&self, pipeline: &Pipeline, access: Access) -> Result<Vec<Value>> {
        self.send_all_until(self.deadline(), pipeline, access).await
    }

    /// The same for one of several steps that are one call.
    pub(crate) async fn send_all_until(
        &self,
        deadline: Instant,
        pipeline: &Pipeline,
        access: Access,
    ) -> Result<Vec<Value>> {
        let count = pipeline.len();
        let mut replies = self
            .with_connection(deadline, access, async |mut connection| {
                connection.send_packed_commands(pipeline, 0, count).await.map(Value::Array)
            })
            .await?;
        match &mut replies {
            Value::Array(replies) if replies.len() == count => Ok(std::mem::take(replies)),
            other => Err(crate::error::unexpected(other)),
        }
    }

    /// The link that carries subscriptions.
    pub(crate) fn first(&self) -> &Arc<Link> {
        &self.links[0]
    }

    /// Runs a task that ends with the store.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(task));
    }

    /// Waits for calls that are under way and then for `last`, at most as long as one may take, and ends all tasks and connections.
    pub(crate) async fn close(&self, last: impl Future<Output = ()>) {
        let until = self.deadline();
        for link in &self.links {
            // All places free means that nothing is under way. A timeout is no reason to stay.
            let _ = tokio::time::timeout_at(until, link.places.acquire_many(self.in_flight_max)).await;
        }
        let _ = tokio::time::timeout_at(until, last).await;
        self.stop();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Ends all tasks and connections at once.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// When a call that is made now must be over.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.operation_timeout
    }

    async fn send_until(&self, deadline: Instant, cmd: &Cmd, access: Access) -> Result<Value> {
        self.with_connection(deadline, access, async |mut connection| connection.send_packed_command(cmd).await).await
    }

    async fn with_connection(
        &self,
        deadline: Instant,
        access: Access,
        send: impl AsyncFnOnce(MultiplexedConnection) -> RedisResult<Value>,
    ) -> Result<Value> {
        let link = self.pick();
        let _place = link.place(deadline, self.operation_timeout).await?;
        let Live { connection, health } = link.live(deadline, self.connect_wait).await?;
        match tokio::time::timeout_at(deadline, send(connection)).await {
            Ok(Ok(value)) => {
                link.answered();
                if is_demoted(&value) {
                    link.give_up(&health);
                }
                Ok(value)
            }
            Ok(Err(error)) => {
                link.give_up(&health);
                Err(from_connection(error, access))
            }
            Err(_) => {
                link.timed_out();
                Err(timeout(self.operation_timeout, access.unanswered()))
            }
        }
    }

    /// The next link in turn, preferably one with a connection.
    fn pick(&self) -> &Link {
        if let [only] = &*self.links {
            return only;
        }
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let at = |offset: usize| &*self.links[start.wrapping_add(offset) % self.links.len()];
        (0..self.links.len()).map(at).find(|link| link.is_up()).unwrap_or_else(|| at(0))
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        // A store that is dropped without being closed leaves no tasks behind.
        self.stop();
    }
}

impl Link {
    /// What the link has to offer, now and later.
    pub(crate) fn watch(&self) -> watch::Receiver<Line> {
        self.line.subscribe()
    }

    /// The address, for messages.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        self.connector.endpoint()
    }

    fn is_up(&self) -> bool {
        self.line.borrow().live().is_some()
    }

    async fn place(&self, deadline: Instant, timeout_after: Duration) -> Result<SemaphorePermit<'_>> {
        if let Ok(place) = self.places.try_acquire() {
            return Ok(place);
        }
        match tokio::time::timeout_at(deadline, self.places.acquire()).await {
            // A place that comes free when others time out comes too late for those who asked with them.
            Ok(Ok(place)) if Instant::now() < deadline => Ok(place),
            Ok(Ok(_)) => Err(timeout(timeout_after, Effect::NotApplied)),
            // Nothing closes the semaphore.
            Ok(Err(_)) => Err(crate::error::closed()),
            Err(_) => Err(timeout(timeout_after, Effect::NotApplied)),
        }
    }

    async fn live(&self, deadline: Instant, wait: Duration) -> Result<Live> {
        let until = match &*self.line.borrow() {
            Line::Up(live) if !live.health.is_broken() => return Ok(live.clone()),
            // Its end was not noticed by the task yet.
            Line::Up(_) => deadline.min(Instant::now() + wait),
            Line::Down(outage) => deadline.min(outage.since + wait),
        };
        let mut line = self.line.subscribe();
        // Both ways out look at the line once more.
        let _ = tokio::time::timeout_at(until, line.wait_for(|line| line.live().is_some())).await;
        match &*self.line.borrow() {
            Line::Up(live) if !live.health.is_broken() => Ok(live.clone()),
            Line::Up(_) => Err(Error::new(ErrorKind::Unavailable, "the connection is broken").on_backend(BACKEND)),
            Line::Down(outage) => Err(Error::new(outage.kind, outage.reason.to_string()).on_backend(BACKEND)),
        }
    }

    fn answered(&self) {
        // Nearly always zero already: a load is cheaper than a store that every core would see.
        if self.unanswered.load(Ordering::Relaxed) != 0 {
            self.unanswered.store(0, Ordering::Relaxed);
        }
    }

    fn timed_out(&self) {
        if self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= UNANSWERED_MAX {
            self.renew.notify_one();
        }
    }

    /// Keeps calls from a connection and asks for another one.
    fn give_up(&self, health: &Health) {
        health.set_broken();
        self.renew.notify_one();
    }

    /// Puts a connection into use.
    fn up(&self, opened: Opened) -> AbortOnDropHandle<()> {
        self.unanswered.store(0, Ordering::Relaxed);
        (self.on_facts)(opened.facts);
        self.line.send_replace(Line::Up(opened.live));
        opened.driver
    }

    async fn keep_up(self: Arc<Self>, first: Option<AbortOnDropHandle<()>>) {
        if let Some(driver) = first {
            self.hold(driver).await;
        }
        let mut failures: u32 = 0;
        loop {
            match self.connector.open().await {
                Ok(opened) => {
                    tracing::info!(endpoint = %self.connector.endpoint(), failures, "connected to Redis");
                    let since = Instant::now();
                    let driver = self.up(opened);
                    self.hold(driver).await;
                    // A server that accepts and hangs up would otherwise be tried again and again without a pause.
                    failures = if since.elapsed() < STABLE_AFTER { failures.saturating_add(1) } else { 0 };
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    self.note_failure(&error, failures);
                }
            }
            if failures > 0 {
                tokio::time::sleep(self.pause(failures)).await;
            }
        }
    }

    fn note_failure(&self, error: &Error, failures: u32) {
        // The first failure and then every doubling: an outage of hours does not fill a disk.
        if failures.is_power_of_two() {
            tracing::warn!(%error, failures, "no connection to Redis");
        }
        self.line.send_modify(|line| {
            if let Line::Down(outage) = line {
                (outage.kind, outage.reason) = (error.kind(), error.message().into());
            }
        });
    }

    /// Waits until the connection ends, or is to be replaced.
    async fn hold(&self, driver: AbortOnDropHandle<()>) {
        let mut driver = driver;
        let why = loop {
            tokio::select! {
                _ = &mut driver => break "it was closed",
                // A request from the time of an earlier connection may be left over, so the facts decide.
                () = self.renew.notified() => {
                    if self.unanswered.load(Ordering::Relaxed) >= UNANSWERED_MAX {
                        break "the server does not answer";
                    }
                    if !self.is_up() {
                        break "it broke";
                    }
                }
            }
        };
        let endpoint = self.connector.endpoint();
        tracing::warn!(%endpoint, why, "lost a connection to Redis");
        let reason = format!("the connection to {endpoint} was lost: {why}");
        self.line.send_replace(Line::Down(Outage::new(reason)));
    }

    fn pause(&self, failures: u32) -> Duration {
        let doubled = RECONNECT_DELAY_MIN.saturating_mul(1 << failures.min(20));
        doubled.min(self.delay_max).mul_f64(rand::random::<f64>())
    }
}

/// Whether the server has become a replica. It does not close connections when it does, and goes on answering reads, from
/// what it knew; the next connection leads to the new primary where the address does, and is refused until then.
fn is_demoted(reply: &Value) -> bool {
    match reply {
        Value::ServerError(error) => error.code() == "READONLY",
        Value::Array(replies) => {
            replies.iter().any(|reply| matches!(reply, Value::ServerError(_)) && is_demoted(reply))
        }
        _ => false,
    }
}

impl Line {
    fn live(&self) -> Option<&Live> {
        match self {
            Self::Up(live) if !live.health.is_broken() => Some(live),
            Self::Up(_) | Self::Down(_) => None,
        }
    }
}

impl Outage {
    fn new(reason: String) -> Self {
        Self { since: Instant::now(), kind: ErrorKind::Unavailable, reason: reason.into() }
    }
}
