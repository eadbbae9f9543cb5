//! The connections: each is owned by one task, which carries one batch after the other.
//!
//! # Guarantees
//! - Connections are opened when they are needed and closed when they are not; those in use are always the same few, so a
//!   quiet application holds one. Nothing asks the server anything when a connection is taken or put back.
//! - A lost connection comes back by itself, without end. Once there has been none for longer than `connect_wait`, calls
//!   fail at once as unavailable instead of piling up; until then they wait.
//! - A server that has become read-only (a primary that was demoted) is left at once.
//! - Closing lets what was submitted finish.
//!
//! # How it works
//! Idle workers lie on a stack. Who submits an operation wakes the topmost; it takes everything that waits in one lane, and
//! goes on until no lane has anything. With all workers busy, operations gather in their lanes.
//!
//! Who has carried many operations at once lets their callers go on before it takes what comes next: they have just been woken, and
//! those that send something again travel together once more. Otherwise each would leave with the next idle connection, and statements
//! would become smaller the more connections there are. Single operations of a few tasks are deliberately not held back until the tasks
//! beside them have submitted theirs, too: the server flushes the commits of several connections together anyway, and fewer statements at
//! a time were measured to be slower.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use acteon_state_core::{Error, ErrorKind, Result};
use async_trait::async_trait;
use parking_lot::Mutex;
use sqlx::Connection as _;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::PostgresConfig;
use crate::connect::{Connector, Opened};
use crate::error::{Sent, classify, closed as closed_error};
use crate::migrate::Schema;
use crate::server::Facts;
use crate::session::Session;

/// How often a worker without work makes sure that its connection is alive, so that a server that went away is noticed before
/// the next operation is sent to it.
const IDLE_PING: Duration = Duration::from_secs(5);
/// From how many operations on a statement counts as shared by many.
const MANY_OPS: usize = 4;
/// How often a connection gives back the memory that it does not need at the moment.
const TRIM_INTERVAL: Duration = Duration::from_secs(5);
/// How long an idle connection may take to show that it is alive, and a closing one to say goodbye.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// The first pause between two attempts to connect; doubled up to the configured maximum.
const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(20);
/// How long a statement may be overdue before its connection is given up. The server breaks it off earlier, where it may.
const OVERDUE: Duration = Duration::from_secs(1);

/// What comes back with a batch.
pub(crate) enum Trip {
    /// The connection is fine.
    Returned,
    /// It is not.
    Lost(Error),
}

/// Something for a worker to do.
#[async_trait]
pub(crate) trait Load: Send {
    /// How many operations it is made of.
    fn ops(&self) -> usize;
    async fn run(self: Box<Self>, session: &mut Session) -> Trip;
}

/// Where work waits.
pub(crate) trait Source: Send + Sync {
    fn take(self: Arc<Self>) -> Option<Box<dyn Load>>;
    fn is_empty(&self) -> bool;
    /// Fails all that waits.
    fn refuse(&self, why: &dyn Fn() -> Error);
}

/// What lanes and workers share: who is idle, how much waits, and whether there is a connection at all.
pub(crate) struct Dispatcher {
    idle: Mutex<Vec<Arc<Notify>>>,
    waiting: AtomicUsize,
    queue_max: usize,
    operation_timeout: Duration,
    connect_wait: Duration,
    line: Mutex<Line>,
    closed: CancellationToken,
    /// Workers that are there. Without any, nothing is ever taken from a queue.
    workers: AtomicUsize,
}

/// The state of all connections together.
struct Line {
    live: usize,
    /// Since when there is none, and why.
    down: Option<Down>,
}

struct Down {
    since: Instant,
    kind: ErrorKind,
    reason: String,
}

impl Dispatcher {
    pub(crate) fn new(config: &PostgresConfig) -> Arc<Self> {
        let down = Down { since: Instant::now(), kind: ErrorKind::Unavailable, reason: "not connected yet".to_owned() };
        Arc::new(Self {
            idle: Mutex::new(Vec::new()),
            waiting: AtomicUsize::new(0),
            queue_max: config.queue_max,
            operation_timeout: config.operation_timeout,
            connect_wait: config.connect_wait,
            line: Mutex::new(Line { live: 0, down: Some(down) }),
            closed: CancellationToken::new(),
            workers: AtomicUsize::new(config.connections),
        })
    }

    pub(crate) fn operation_timeout(&self) -> Duration {
        self.operation_timeout
    }

    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Lets operations into a queue.
    ///
    /// # Errors
    /// `Closed`; `Unavailable` when there has been no connection for a while; `Throttled` when too many wait.
    pub(crate) fn admit(&self, count: usize) -> Result<()> {
        if self.closed.is_cancelled() {
            return Err(closed_error());
        }
        if let Some(error) = self.why_down() {
            return Err(error);
        }
        // A batch that is larger than the queue is let in when nothing else waits: otherwise it would never be.
        if self.waiting.fetch_add(count, Ordering::AcqRel) + count > self.queue_max.max(count) {
            self.left(count);
            let message = format!("{} operations wait for a connection already (queue_max)", self.queue_max);
            return Err(Error::new(ErrorKind::Throttled, message));
        }
        Ok(())
    }

    /// Operations have left a queue.
    pub(crate) fn left(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::AcqRel);
    }

    /// Wakes the worker that became idle last: its connection is warm.
    pub(crate) fn wake(&self) {
        let worker = self.idle.lock().pop();
        if let Some(worker) = worker {
            worker.notify_one();
        }
    }

    /// A worker has nothing to do. Those without a connection lie at the bottom.
    fn lie_down(&self, worker: &Arc<Notify>, is_connected: bool) {
        let mut idle = self.idle.lock();
        let at = if is_connected { idle.len() } else { 0 };
        idle.insert(at, worker.clone());
    }

    /// Why calls cannot succeed at the moment.
    fn why_down(&self) -> Option<Error> {
        let line = self.line.lock();
        let down = line.down.as_ref().filter(|down| down.since.elapsed() > self.connect_wait)?;
        Some(Error::new(down.kind, format!("no connection: {}", down.reason)))
    }

    fn connected(&self) {
        let mut line = self.line.lock();
        line.live += 1;
        line.down = None;
    }

    fn disconnected(&self) {
        let mut line = self.line.lock();
        line.live -= 1;
    }

    /// Remembers why there is no connection. Others that still have one are not affected.
    fn failed(&self, error: &Error) {
        let mut line = self.line.lock();
        if line.live > 0 {
            return;
        }
        let (kind, reason) = (error.kind(), error.message().to_owned());
        match &mut line.down {
            Some(down) => (down.kind, down.reason) = (kind, reason),
            None => line.down = Some(Down { since: Instant::now(), kind, reason }),
        }
    }

    /// Whether all workers are gone: the store was closed, or its runtime has ended.
    pub(crate) fn has_no_workers(&self) -> bool {
        self.workers.load(Ordering::Acquire) == 0
    }

    /// Until when calls wait for a connection, when there is none.
    fn patience(&self) -> Option<Instant> {
        self.line.lock().down.as_ref().map(|down| down.since + self.connect_wait)
    }
}

/// What it takes to open a connection that is ready for statements.
pub(crate) struct Opening {
    pub(crate) connector: Arc<Connector>,
    pub(crate) schema: Schema,
    /// Runs with what a new connection's server said of itself.
    pub(crate) on_facts: Arc<dyn Fn(Facts) + Send + Sync>,
}

impl Opening {
    async fn open(&self) -> Result<Session> {
        let mut opened = self.connector.open().await?;
        self.schema.prepare(&mut opened.connection).await?;
        Ok(self.ready(opened))
    }

    fn ready(&self, opened: Opened) -> Session {
        let session = Session { connection: opened.connection, pooled: opened.facts.pooled };
        (self.on_facts)(opened.facts);
        session
    }
}

/// All workers of one store.
pub(crate) struct Workers {
    dispatcher: Arc<Dispatcher>,
    tasks: TaskTracker,
}

impl Workers {
    /// Starts as many as are configured. The first has its connection already, if there is one, otherwise it connects at once.
    pub(crate) fn start(
        config: &PostgresConfig,
        dispatcher: Arc<Dispatcher>,
        opening: Opening,
        sources: Arc<[Arc<dyn Source>]>,
        first: Option<Opened>,
    ) -> Self {
        let tasks = TaskTracker::new();
        let mut first = first.map(|opened| opening.ready(opened));
        let opening = Arc::new(opening);
        for number in 0..config.connections {
            let mut worker = Worker {
                dispatcher: dispatcher.clone(),
                opening: opening.clone(),
                sources: sources.clone(),
                idle_timeout: config.idle_timeout,
                reconnect_delay: RECONNECT_DELAY_MIN,
                reconnect_delay_max: config.reconnect_delay_max,
                notify: Arc::new(Notify::new()),
                session: None,
                next_source: number,
                keeps_connection: number == 0,
                trimmed_at: Instant::now(),
            };
            if let Some(session) = first.take() {
                worker.adopt(session);
            }
            tasks.spawn(worker.work());
        }
        Self { dispatcher, tasks }
    }

    /// Runs beside the workers, and ends with them.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Lets what was submitted finish, then ends all connections.
    pub(crate) async fn close(&self) {
        self.dispatcher.closed.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.dispatcher.closed.cancel();
    }
}

struct Worker {
    dispatcher: Arc<Dispatcher>,
    opening: Arc<Opening>,
    sources: Arc<[Arc<dyn Source>]>,
    idle_timeout: Duration,
    reconnect_delay: Duration,
    reconnect_delay_max: Duration,
    notify: Arc<Notify>,
    session: Option<Session>,
    /// Lanes take turns, so that a busy one does not starve the others.
    next_source: usize,
    /// The first worker stays connected, so that a server that comes back is noticed, and the first call finds a connection.
    keeps_connection: bool,
    trimmed_at: Instant,
}

impl Worker {
    async fn work(mut self) {
        loop {
            let must_connect =
                self.session.is_none() && self.keeps_connection && !self.dispatcher.closed.is_cancelled();
            if !must_connect && !self.rest().await {
                break;
            }
            if self.session.is_none() && !self.connect().await {
                continue;
            }
            if let Some(load) = self.take() {
                let had_many = load.ops() >= MANY_OPS;
                self.carry(load).await;
                self.trim();
                if had_many {
                    tokio::task::yield_now().await;
                }
            }
        }
        self.hang_up().await;
    }

    /// Sleeps until there is something to do. `false` when the store is closed and nothing is left.
    async fn rest(&mut self) -> bool {
        let closed = self.dispatcher.closed.clone();
        let mut idle_since = Instant::now();
        loop {
            if closed.is_cancelled() && self.session.is_none() {
                // Those that are connected finish what was submitted.
                return false;
            }
            self.dispatcher.lie_down(&self.notify, self.session.is_some());
            // After lying down: an operation that came just before has found nobody to wake.
            let is_needed = self.sources.iter().any(|source| !source.is_empty());
            if is_needed || closed.is_cancelled() {
                self.get_up();
                return is_needed;
            }
            tokio::select! {
                () = self.notify.notified() => {}
                () = closed.cancelled() => {}
                () = tokio::time::sleep(IDLE_PING), if self.session.is_some() => {
                    self.get_up();
                    self.check_on_connection(idle_since).await;
                    if self.session.is_none() && self.keeps_connection {
                        return true;
                    }
                    continue;
                }
            }
            self.get_up();
            idle_since = Instant::now();
        }
    }

    /// Leaves the stack, unless somebody has taken it from there to wake it.
    fn get_up(&self) {
        self.dispatcher.idle.lock().retain(|other| !Arc::ptr_eq(other, &self.notify));
    }

    /// Asks for a sign of life, or closes a connection that was not needed for long.
    async fn check_on_connection(&mut self, idle_since: Instant) {
        if !self.keeps_connection && idle_since.elapsed() >= self.idle_timeout {
            self.hang_up().await;
            return;
        }
        self.trim();
        let Some(session) = &mut self.session else { return };
        let alive = tokio::time::timeout(PING_TIMEOUT, session.connection.ping()).await;
        match alive {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.lose(&classify(error, Sent::No)),
            Err(_) => self.lose(&Error::new(ErrorKind::Unavailable, "the server does not answer")),
        }
    }

    /// Gives back the memory that a large statement or answer took: a connection would keep it for as long as it lives.
    fn trim(&mut self) {
        if self.trimmed_at.elapsed() < TRIM_INTERVAL {
            return;
        }
        self.trimmed_at = Instant::now();
        if let Some(session) = &mut self.session {
            session.connection.shrink_buffers();
        }
    }

    /// Takes what waits in the next lane that has something.
    fn take(&mut self) -> Option<Box<dyn Load>> {
        let count = self.sources.len();
        for step in 0..count {
            let at = (self.next_source + step) % count;
            if let Some(load) = self.sources[at].clone().take() {
                self.next_source = at + 1;
                // There may be more, and others who are idle.
                if self.sources.iter().any(|source| !source.is_empty()) {
                    self.dispatcher.wake();
                }
                return Some(load);
            }
        }
        None
    }

    async fn carry(&mut self, load: Box<dyn Load>) {
        let Some(session) = &mut self.session else { return };
        let patience = self.dispatcher.operation_timeout + OVERDUE;
        match tokio::time::timeout(patience, load.run(session)).await {
            Ok(Trip::Returned) => {}
            Ok(Trip::Lost(error)) => self.lose(&error),
            Err(_) => self.lose(&Error::new(ErrorKind::Timeout, format!("a statement took longer than {patience:?}"))),
        }
    }

    /// Tries once to connect, and pauses if that failed; the caller then looks again what there is to do.
    async fn connect(&mut self) -> bool {
        match self.open().await {
            Some(Ok(session)) => {
                self.adopt(session);
                return true;
            }
            Some(Err(error)) => self.dispatcher.failed(&error),
            None => return false,
        }
        self.refuse_if_down();
        // What this one was woken for may be something that another one, with a connection, can do.
        self.dispatcher.wake();
        // Full jitter: many nodes lose their server at the same moment.
        let pause = self.reconnect_delay.mul_f64(rand::random::<f64>());
        self.reconnect_delay = (self.reconnect_delay * 2).min(self.reconnect_delay_max);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.dispatcher.closed.cancelled() => {}
        }
        false
    }

    /// Opens a connection; meanwhile, calls whose patience ends are told. `None` when the store is closed.
    async fn open(&self) -> Option<Result<Session>> {
        let opening = self.opening.open();
        tokio::pin!(opening);
        loop {
            let patience = self.dispatcher.patience().filter(|until| *until > Instant::now());
            tokio::select! {
                opened = &mut opening => return Some(opened),
                () = self.dispatcher.closed.cancelled() => return None,
                () = tokio::time::sleep_until(patience.unwrap_or_else(Instant::now)), if patience.is_some() => self.refuse_if_down(),
            }
        }
    }

    fn refuse_if_down(&self) {
        let dispatcher = &self.dispatcher;
        if dispatcher.why_down().is_some() {
            self.refuse_all(&|| {
                dispatcher.why_down().unwrap_or_else(|| Error::new(ErrorKind::Unavailable, "no connection"))
            });
        }
    }

    fn refuse_all(&self, why: &dyn Fn() -> Error) {
        self.sources.iter().for_each(|source| source.refuse(why));
    }

    fn adopt(&mut self, session: Session) {
        self.session = Some(session);
        self.reconnect_delay = RECONNECT_DELAY_MIN;
        self.dispatcher.connected();
    }

    fn lose(&mut self, error: &Error) {
        if self.session.take().is_some() {
            tracing::debug!(%error, "a connection was lost");
            self.dispatcher.disconnected();
            self.dispatcher.failed(error);
        }
    }

    async fn hang_up(&mut self) {
        if let Some(session) = self.session.take() {
            self.dispatcher.disconnected();
            let _ = tokio::time::timeout(PING_TIMEOUT, session.connection.close()).await;
        }
    }
}

impl Drop for Worker {
    /// Also when the runtime ends.
    fn drop(&mut self) {
        if self.session.take().is_some() {
            self.dispatcher.disconnected();
        }
        if self.dispatcher.workers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.refuse_all(&closed_error);
        }
    }
}

#[cfg(test)]
mod tests {
    use acteon_state_core::ErrorKind;

    use super::Dispatcher;
    use crate::config::PostgresConfig;

    #[test]
    fn a_batch_that_is_larger_than_the_queue_waits_alone() {
        let dispatcher = Dispatcher::new(&PostgresConfig { queue_max: 2, ..PostgresConfig::default() });
        assert!(dispatcher.admit(5).is_ok());
        assert_eq!(dispatcher.admit(1).unwrap_err().kind(), ErrorKind::Throttled);
        dispatcher.left(4);
        assert!(dispatcher.admit(1).is_ok());
        assert_eq!(dispatcher.admit(5).unwrap_err().kind(), ErrorKind::Throttled);
        assert_eq!(dispatcher.admit(1).unwrap_err().kind(), ErrorKind::Throttled);
    }
}
