//! Connections that heal themselves, and the way of a request through one.
//!
//! # Guarantees
//! A request is sent at most once: nothing here or in the client library repeats it. When a connection is lost, calls wait for
//! the next one until `connect_wait` after the loss; from then on they fail at once, as `Unavailable` and `NotApplied`. No more
//! than `queue_max` of them wait, for a connection or for a free place on it. Each call ends within `operation_timeout`.
//!
//! # Failure
//! A connection that breaks fails what is in flight: writes as `Unknown`, for their answers are lost, unless they still
//! waited to be sent. So does a timeout; the connection then stays, because it drops late answers. A server that leaves several calls in a row without
//! answer gets a fresh connection, since a dead peer may never close the old one. So does one that has become a replica: it would
//! go on answering reads from what it knew.
//!
//! # How it works
//! Each [`Link`] has a task that opens a connection, waits for its end, and opens the next: without end, with pauses that
//! double up to `reconnect_delay_max` and are drawn between zero and that (full jitter), until the store is closed or dropped.
//!
//! Calls share connections ([`Wire`]), which send what comes meanwhile behind what was sent before. Only grants of locks that
//! wait for replicas hold up what is behind them, and so they have a pool of their own, with one of them on each connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use acteon_state_core::entry::ceil_ms;
use acteon_state_core::fault_log::FaultLog;
use acteon_state_core::{Effect, Error, ErrorKind, Result};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::config::{RedisConfig, Safety};
use crate::connect::{Connector, Live, Opened, Purpose};
use crate::error::{Access, BACKEND, from_failure, timeout};
use crate::server::Facts;
use crate::stats::{Counters, OpenConnection};
use crate::topology::Endpoint;
use crate::wire::{Cmd, Failure, Pipeline, Request, Value, Wire};

/// Calls without answer in a row after which a connection is given up. Above one, so that a single slow command does not
/// take the connection away from everyone.
const UNANSWERED_MAX: u32 = 8;
/// The first pause between two attempts to connect.
const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(10);

/// A connection that lasted this long makes up for the failures before it.
const STABLE_AFTER: Duration = Duration::from_secs(1);

/// All connections to one server, or to whichever server has its part.
pub(crate) struct Links {
    links: Box<[Arc<Link>]>,
    /// In strict safety: for grants of locks alone.
    granting: Box<[Arc<Link>]>,
    next: AtomicUsize,
    operation_timeout: Duration,
    connect_wait: Duration,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// One connection, or the next attempt at it.
pub(crate) struct Link {
    connector: Arc<Connector>,
    purpose: Purpose,
    line: watch::Sender<Line>,
    /// Free places for calls.
    places: Semaphore,
    places_max: u32,
    /// Free places for those who wait for a place, or for a connection.
    queue: Semaphore,
    /// Timeouts since the last answer.
    unanswered: AtomicU32,
    /// Asks the task for a fresh connection.
    renew: Notify,
    delay_max: Duration,
    on_facts: OnFacts,
    counters: Arc<Counters>,
    /// Of all links to the server: they are lost and found together, and a server may drop them as often as they are opened.
    news: Arc<FaultLog>,
}

/// A connection in use.
struct Held {
    driver: AbortOnDropHandle<()>,
    endpoint: Endpoint,
    _counted: OpenConnection,
}

/// How many replicas must have a grant, and how long that may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replicas {
    pub(crate) count: usize,
    pub(crate) timeout: Duration,
}

/// What became of a request for a grant.
#[derive(Debug)]
pub(crate) enum Granting {
    /// The reply to it, and how many replicas have what it wrote.
    Answered { reply: Value, acknowledged: Value },
    /// It was not sent, since the server may not grant anything for so long.
    NotYet(Duration),
}

/// Receives what a server said at each new connection; `None` when it does not belong to the others any more.
pub(crate) type OnFacts = Arc<dyn Fn(&Endpoint, Option<Facts>) + Send + Sync>;

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
        counters: &Arc<Counters>,
        first: Option<Opened>,
    ) -> Self {
        let news = Arc::new(FaultLog::new());
        let new_link = |purpose, places_max: u32| {
            let reason = format!("there is no connection to {} yet", connector.name());
            Arc::new(Link {
                connector: connector.clone(),
                purpose,
                line: watch::Sender::new(Line::Down(Outage::new(reason))),
                places: Semaphore::new(places_max as usize),
                places_max,
                queue: Semaphore::new(config.queue_max),
                unanswered: AtomicU32::new(0),
                renew: Notify::new(),
                delay_max: config.reconnect_delay_max,
                on_facts: on_facts.clone(),
                counters: counters.clone(),
                news: news.clone(),
            })
        };
        let in_flight_max = u32::try_from(config.in_flight_max).unwrap_or(u32::MAX);
        let links: Box<[Arc<Link>]> =
            (0..config.connections).map(|_| new_link(Purpose::Calls, in_flight_max)).collect();
        let grants = if config.safety == Safety::Strict { config.lock_connections } else { 0 };
        let granting: Box<[Arc<Link>]> = (0..grants).map(|_| new_link(Purpose::Grants, 1)).collect();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let mut first = first;
        for link in links.iter().chain(&granting) {
            // At once, so that the caller of `connect` finds the connection up.
            let opened = first.take().map(|opened| link.up(opened));
            tasks.spawn(stop.clone().run_until_cancelled_owned(link.clone().keep_up(opened)));
        }
        Self {
            links,
            granting,
            next: AtomicUsize::new(0),
            operation_timeout: config.operation_timeout,
            connect_wait: config.connect_wait,
            tasks,
            stop,
        }
    }

    /// Sends a command. The reply may be an error of the server.
    pub(crate) async fn send(&self, deadline: Instant, cmd: &Cmd, access: Access) -> Result<Value> {
        let link = self.pick();
        let (_place, live) = self.ready(link, deadline).await?;
        self.exchange(link, &live.wire, Request::One(cmd), deadline, access).await
    }

    /// Sends the command of a grant, `asking` a node of a Cluster that is taking over the slot, and waits until replicas have it.
    ///
    /// It goes over a connection of its own: waiting holds up what comes after it, and counts what that connection wrote.
    pub(crate) async fn grant(
        &self,
        deadline: Instant,
        cmd: &Cmd,
        replicas: &Replicas,
        asking: bool,
    ) -> Result<Granting> {
        let link = self.pick_granting();
        let mut pipeline = Pipeline::default();
        if asking {
            pipeline.add(&Cmd::new("ASKING"));
        }
        pipeline.add(cmd).add(Cmd::new("WAIT").number(replicas.count).number(ceil_ms(replicas.timeout)));
        let (_place, live) = self.ready(link, deadline).await?;
        let left = live.grants_from.map_or(Duration::ZERO, |from| from.saturating_duration_since(Instant::now()));
        if !left.is_zero() {
            return Ok(Granting::NotYet(left));
        }
        let answer = self.exchange(link, &live.wire, Request::All(&pipeline), deadline, Access::Write).await?;
        let mut replies = crate::reply::array(answer)?;
        if asking {
            crate::reply::next(&mut replies)?;
        }
        let reply = crate::reply::next(&mut replies)?;
        Ok(Granting::Answered { reply, acknowledged: crate::reply::next(&mut replies)? })
    }

    /// Sends commands in one go; one reply each, which may be an error of the server.
    pub(crate) async fn send_all(&self, deadline: Instant, pipeline: &Pipeline, access: Access) -> Result<Vec<Value>> {
        let link = self.pick();
        let (_place, live) = self.ready(link, deadline).await?;
        match self.exchange(link, &live.wire, Request::All(pipeline), deadline, access).await? {
            Value::Array(replies) => Ok(replies),
            other => Err(crate::error::unexpected(&other)),
        }
    }

    /// The link that carries subscriptions.
    pub(crate) fn first(&self) -> &Arc<Link> {
        &self.links[0]
    }

    /// Waits until nothing is under way, at most until then.
    pub(crate) async fn idle(&self, until: Instant) {
        for link in self.links.iter().chain(&self.granting) {
            // All places free means that nothing is under way. A timeout is no reason to stay.
            let _ = tokio::time::timeout_at(until, link.places.acquire_many(link.places_max)).await;
        }
    }

    /// Ends all connections.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// A place for a call, and the connection.
    async fn ready<'a>(&self, link: &'a Link, deadline: Instant) -> Result<(SemaphorePermit<'a>, Live)> {
        match link.at_once() {
            Some(ready) => Ok(ready),
            // Rare, and large: it would make the future of every call so.
            None => Box::pin(link.wait(deadline, self.operation_timeout, self.connect_wait)).await,
        }
    }

    async fn exchange(
        &self,
        link: &Link,
        wire: &Wire,
        request: Request<'_>,
        deadline: Instant,
        access: Access,
    ) -> Result<Value> {
        let _in_flight = link.counters.in_flight();
        match wire.call(request, Some(deadline)).await {
            Ok(value) => {
                link.answered();
                if is_demoted(&value) {
                    link.give_up(wire);
                }
                Ok(value)
            }
            Err(failure) => {
                match &failure {
                    Failure::TimedOut | Failure::NotSent(None) => link.timed_out(),
                    Failure::Lost(_) | Failure::NotSent(Some(_)) => link.give_up(wire),
                }
                Err(from_failure(failure, access, self.operation_timeout))
            }
        }
    }

    /// The next link in turn, preferably one with a connection.
    fn pick(&self) -> &Link {
        if let [only] = &*self.links {
            return only;
        }
        let mut in_turn = self.in_turn(&self.links);
        in_turn.clone().find(|link| link.is_up()).or_else(|| in_turn.next()).unwrap_or(&self.links[0])
    }

    /// The same among the connections for grants, preferably a free one.
    fn pick_granting(&self) -> &Link {
        let mut in_turn = self.in_turn(&self.granting);
        let free = in_turn.clone().find(|link| link.is_up() && link.places.available_permits() > 0);
        free.or_else(|| in_turn.clone().find(|link| link.is_up()))
            .or_else(|| in_turn.next())
            .unwrap_or_else(|| self.pick())
    }

    fn in_turn<'a>(&self, links: &'a [Arc<Link>]) -> impl Iterator<Item = &'a Link> + Clone {
        let start = self.next.fetch_add(1, Ordering::Relaxed) % links.len().max(1);
        let (before, after) = links.split_at(start.min(links.len()));
        after.iter().chain(before).map(|link| &**link)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        // A store that is dropped without being closed leaves no tasks behind.
        self.stop.cancel();
    }
}

impl Link {
    /// What the link has to offer, now and later.
    pub(crate) fn watch(&self) -> watch::Receiver<Line> {
        self.line.subscribe()
    }

    /// What it connects to, for messages.
    pub(crate) fn name(&self) -> String {
        self.connector.name()
    }

    pub(crate) fn is_up(&self) -> bool {
        self.line.borrow().live().is_some()
    }

    /// A place and the connection, where nobody has to wait for them.
    fn at_once(&self) -> Option<(SemaphorePermit<'_>, Live)> {
        let place = self.places.try_acquire().ok()?;
        let live = self.line.borrow().live().cloned()?;
        Some((place, live))
    }

    /// Waits for a place and then for the connection, unless too many wait already.
    async fn wait(
        &self,
        deadline: Instant,
        timeout_after: Duration,
        connect_wait: Duration,
    ) -> Result<(SemaphorePermit<'_>, Live)> {
        let Ok(_turn) = self.queue.try_acquire() else { return Err(self.queue_is_full()) };
        let _queued = self.counters.queued();
        let place = self.place(deadline, timeout_after).await?;
        let live = self.live(deadline, connect_wait).await?;
        Ok((place, live))
    }

    fn queue_is_full(&self) -> Error {
        match &*self.line.borrow() {
            Line::Down(outage) => outage.error(),
            Line::Up(_) => {
                let message = "too many calls wait for a place on the connection (queue_max); try again later";
                Error::new(ErrorKind::Throttled, message).on_backend(BACKEND)
            }
        }
    }

    async fn place(&self, deadline: Instant, timeout_after: Duration) -> Result<SemaphorePermit<'_>> {
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
            Line::Up(live) if !live.wire.is_broken() => return Ok(live.clone()),
            // Its end was not noticed by the task yet.
            Line::Up(_) => deadline.min(Instant::now() + wait),
            Line::Down(outage) => deadline.min(outage.since + wait),
        };
        let mut line = self.line.subscribe();
        // Both ways out look at the line once more.
        let _ = tokio::time::timeout_at(until, line.wait_for(|line| line.live().is_some())).await;
        match &*self.line.borrow() {
            Line::Up(live) if !live.wire.is_broken() => Ok(live.clone()),
            Line::Up(_) => Err(Error::new(ErrorKind::Unavailable, "the connection is broken").on_backend(BACKEND)),
            Line::Down(outage) => Err(outage.error()),
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
    fn give_up(&self, wire: &Wire) {
        wire.set_broken();
        self.renew.notify_one();
    }

    /// Puts a connection into use.
    fn up(&self, opened: Opened) -> Held {
        self.unanswered.store(0, Ordering::Relaxed);
        (self.on_facts)(&opened.endpoint, Some(opened.facts));
        let _counted = self.counters.connected();
        self.line.send_replace(Line::Up(opened.live));
        Held { driver: opened.driver, endpoint: opened.endpoint, _counted }
    }

    async fn keep_up(self: Arc<Self>, first: Option<Held>) {
        if let Some(held) = first {
            self.hold(held).await;
        }
        let mut failures: u32 = 0;
        loop {
            match self.connector.open(self.purpose).await {
                Ok(opened) => {
                    if let Some(passed_over) = self.news.admit("connected") {
                        tracing::info!(endpoint = %opened.endpoint, failures, passed_over, "connected to Redis");
                    }
                    let since = Instant::now();
                    let held = self.up(opened);
                    self.hold(held).await;
                    // A server that accepts and hangs up would otherwise be tried again and again without a pause.
                    failures = if since.elapsed() < STABLE_AFTER { failures.saturating_add(1) } else { 0 };
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    self.counters.failed();
                    self.note_failure(&error, failures);
                }
            }
            if failures > 0 {
                tokio::select! {
                    () = tokio::time::sleep(pause(failures, self.delay_max)) => {}
                    () = self.connector.moved() => {}
                }
            }
        }
    }

    fn note_failure(&self, error: &Error, failures: u32) {
        // The first failure and then every doubling: an outage of hours does not fill a disk.
        if failures.is_power_of_two()
            && let Some(passed_over) = self.news.admit("no_connection")
        {
            tracing::warn!(%error, failures, passed_over, "no connection to Redis");
        }
        self.line.send_modify(|line| {
            if let Line::Down(outage) = line {
                (outage.kind, outage.reason) = (error.kind(), error.message().into());
            }
        });
    }

    /// Waits until the connection ends, or is to be replaced.
    async fn hold(&self, held: Held) {
        let Held { mut driver, endpoint, _counted } = held;
        let why = loop {
            tokio::select! {
                _ = &mut driver => break "it was closed",
                () = self.connector.left(&endpoint) => break "another server has become primary",
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
        self.counters.disconnected();
        match self.news.admit("lost") {
            Some(passed_over) => tracing::warn!(%endpoint, why, passed_over, "lost a connection to Redis"),
            None => tracing::debug!(%endpoint, why, "lost a connection to Redis"),
        }
        let reason = format!("the connection to {endpoint} was lost: {why}");
        self.line.send_replace(Line::Down(Outage::new(reason)));
    }
}

/// How long to wait after so many failures in a row.
fn pause(failures: u32, delay_max: Duration) -> Duration {
    let doubled = RECONNECT_DELAY_MIN.saturating_mul(1 << failures.min(20));
    doubled.min(delay_max).mul_f64(rand::random::<f64>())
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
            Self::Up(live) if !live.wire.is_broken() => Some(live),
            Self::Up(_) | Self::Down(_) => None,
        }
    }
}

impl Outage {
    fn new(reason: String) -> Self {
        Self { since: Instant::now(), kind: ErrorKind::Unavailable, reason: reason.into() }
    }

    fn error(&self) -> Error {
        Error::new(self.kind, self.reason.to_string()).on_backend(BACKEND)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{RECONNECT_DELAY_MIN, pause};

    #[test]
    fn pauses_double_up_to_their_bound_and_are_drawn_between_zero_and_that() {
        const DELAY_MAX: Duration = Duration::from_secs(2);
        let longest = |failures| (0..1_000).map(|_| pause(failures, DELAY_MAX)).max().unwrap_or_default();
        let shortest = |failures| (0..1_000).map(|_| pause(failures, DELAY_MAX)).min().unwrap_or_default();
        // Of 1,000 draws the longest misses the last tenth once in 10^45 runs.
        for failures in 1..=7 {
            let bound = RECONNECT_DELAY_MIN * (1 << failures);
            assert!(longest(failures) <= bound && longest(failures) > bound * 9 / 10, "{failures}");
        }
        for failures in [8, 20, 1_000_000, u32::MAX] {
            assert!(longest(failures) <= DELAY_MAX && longest(failures) > DELAY_MAX * 9 / 10, "{failures}");
            assert!(shortest(failures) < DELAY_MAX / 10, "{failures}");
        }
    }
}
