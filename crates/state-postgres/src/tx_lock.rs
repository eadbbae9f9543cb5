//! Locks inside of the caller's own transaction: [`PostgresStore::with_tx_lock`].
//!
//! # Guarantees
//! The caller's statements run in one transaction that holds a row's lock from before the first of them until the commit. So
//! their effects are exclusive by commit, whatever happens to clocks, leases and paused processes: who comes next sees all
//! of them, or none.
//!
//! # Failure
//! Whatever ends the connection ends the transaction, and with it the lock; nothing was done then. Only when the answer to
//! the commit itself is lost, its effect is unknown.
//!
//! # How it works
//! Inserting a row that exists already, and updating it instead, waits for whoever has done the same before: the row's queue
//! is the line of waiters. These transactions last as long as the caller's work does, so they have connections of their own.

use std::sync::{Arc, Weak};
use std::time::Duration;

use acteon_state_core::entry::ceil_ms;
use acteon_state_core::lock::request::WAIT_MAX;
use acteon_state_core::{Effect, Error, ErrorKind, Result, StateKey};
use parking_lot::Mutex;
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, AssertSqlSafe, Connection as _, Executor as _, PgConnection, Postgres, Transaction};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::PostgresConfig;
use crate::connect::Connector;
use crate::error::{BACKEND, Sent, classify, closed, code_of, timed_out};
use crate::names::Names;
use crate::session::Session;
use crate::store::PostgresStore;

const TX_LOCK: &str = "SELECT {t}tx_lock($1, $2, $3, $4, $5, $6)";
/// READ COMMITTED: each statement sees what was committed before it began, so also what the holder before us did. The
/// statement that waits must not be ended by a timeout that is meant for statements that work.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0";
/// The statement that waited longer than it was allowed to.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// A statement in a transaction in which one has failed.
const IN_FAILED_TRANSACTION: &str = "25P02";
/// How long a connection may take to say goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);
/// In errors.
const OPERATION: &str = "with_tx_lock";

/// What came of work under a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxLockOutcome<T> {
    /// It was done, and is committed.
    Done(T),
    /// Others held the lock until the wait was over; nothing was done.
    Busy,
}

impl PostgresStore {
    /// Runs the caller's own statements under a lock, in one transaction: true mutual exclusion of their effects.
    ///
    /// The lock is named by `key`; it meets neither the value nor the lease lock of the same key. It is held until the
    /// transaction ends; there is no lease, and no token is needed. `wait` is how long to wait for it: zero means not at all
    /// (one millisecond), 24 hours are the most.
    ///
    /// When `work` returns `Ok`, its transaction is committed durably, whatever the role's `synchronous_commit` is; when it
    /// returns an error, all of it is rolled back. The isolation level is READ COMMITTED. `work` must not end the transaction
    /// itself; it may nest others (savepoints) by [`begin`](sqlx::Connection::begin). As everyone else waits meanwhile, it
    /// should talk to nothing but the database. A limit for work that hangs is the server's option
    /// `idle_in_transaction_session_timeout`.
    ///
    /// Dropping the future rolls back and closes the connection. What the server is executing at that moment it may finish
    /// before it notices; the lock is free then.
    ///
    /// Behind a transaction pooler, statements must not be prepared by name: say `.persistent(false)` of each query that has
    /// parameters.
    ///
    /// At most `tx_connections` of these run at a time in this process; others wait for their turn.
    ///
    /// # Errors
    /// What `work` returns. From the store, with the effect `NotApplied`: `Invalid` for a wait out of range, or when a
    /// statement failed and `work` returned `Ok` nevertheless; `Throttled` when no connection became free within the wait (or
    /// `operation_timeout`, if that is longer); whatever keeps it from connecting. With the effect `Unknown`: `Unavailable` or
    /// `Timeout`, when the answer to the commit did not come.
    ///
    /// # Example
    /// ```no_run
    /// use std::time::Duration;
    /// use acteon_state_core::StateKey;
    /// use acteon_state_postgres::{PostgresStore, TxLockOutcome};
    /// use acteon_state_postgres::sqlx::{self, PgConnection};
    ///
    /// async fn pay(store: &PostgresStore, from: i64, to: i64, cents: i64) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    ///     let ledger = StateKey::new("bank", "eu", "ledger", "payments")?;
    ///     let moved = store.with_tx_lock(&ledger, Duration::from_secs(5), async |tx: &mut PgConnection| {
    ///         let (balance,): (i64,) =
    ///             sqlx::query_as("SELECT cents FROM accounts WHERE id = $1").bind(from).fetch_one(&mut *tx).await?;
    ///         if balance < cents {
    ///             return Ok::<_, Box<dyn std::error::Error + Send + Sync>>(false);
    ///         }
    ///         for (account, change) in [(from, -cents), (to, cents)] {
    ///             sqlx::query("UPDATE accounts SET cents = cents + $2 WHERE id = $1")
    ///                 .bind(account).bind(change).execute(&mut *tx).await?;
    ///         }
    ///         Ok(true)
    ///     });
    ///     match moved.await? {
    ///         TxLockOutcome::Done(moved) => Ok(moved),
    ///         TxLockOutcome::Busy => Err("the ledger is busy: try again later".into()),
    ///     }
    /// }
    /// ```
    pub async fn with_tx_lock<T, E>(
        &self,
        key: &StateKey,
        wait: Duration,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    ) -> Result<TxLockOutcome<T>, E>
    where
        E: From<Error>,
    {
        let told = |error: Error| E::from(error.in_operation(OPERATION).on_backend(BACKEND).with_key(key));
        let pool = &self.inner.tx_locks;
        let until = Instant::now() + wait;
        let _permit = pool.permit(wait).await.map_err(told)?;
        loop {
            let (mut session, is_new) = pool.session(&self.inner.connector).await.map_err(told)?;
            let is_pooled = session.pooled;
            // From here on, an error or a dropped future closes the connection, which rolls back.
            let mut tx = match pool.begin(&mut session.connection).await {
                Ok(tx) => tx,
                // It went away while it was idle; nothing was done on it.
                Err(_) if !is_new => continue,
                Err(error) => return Err(told(error)),
            };
            if !pool.lock(&mut tx, key, until, is_pooled).await.map_err(told)? {
                pool.roll_back(tx).await.map_err(told)?;
                pool.put_back(session);
                return Ok(TxLockOutcome::Busy);
            }
            return match work(&mut tx).await {
                Ok(done) => {
                    pool.commit(tx).await.map_err(told)?;
                    pool.put_back(session);
                    Ok(TxLockOutcome::Done(done))
                }
                Err(error) => {
                    if pool.roll_back(tx).await.is_ok() {
                        pool.put_back(session);
                    }
                    Err(error)
                }
            };
        }
    }
}

/// Connections for transactions under locks: opened when needed, closed when not.
pub(crate) struct TxLocks {
    sql: Arc<str>,
    retention_us: i64,
    permits: Semaphore,
    connections: u32,
    shared: Arc<Shared>,
}

struct Shared {
    idle_timeout: Duration,
    operation_timeout: Duration,
    // Locked for pushing and popping only.
    idle: Mutex<Idle>,
    closed: CancellationToken,
}

#[derive(Default)]
struct Idle {
    /// The last one is the one that was used last.
    sessions: Vec<(Session, Instant)>,
    /// A task closes those that are not needed.
    is_watched: bool,
}

impl Idle {
    /// Takes those that were not used for so long; also says whether the watch is over.
    fn take_unused(&mut self, idle_timeout: Duration) -> (Vec<Session>, bool) {
        let count = self.sessions.iter().take_while(|(_, since)| since.elapsed() >= idle_timeout).count();
        let unused = self.sessions.drain(..count).map(|(session, _)| session).collect();
        self.is_watched = !self.sessions.is_empty();
        (unused, !self.is_watched)
    }
}

impl TxLocks {
    pub(crate) fn new(config: &PostgresConfig, names: &Names) -> Self {
        let shared = Shared {
            idle_timeout: config.idle_timeout,
            operation_timeout: config.operation_timeout,
            idle: Mutex::default(),
            closed: CancellationToken::new(),
        };
        Self {
            sql: names.sql(TX_LOCK),
            retention_us: i64::try_from(ceil_ms(config.lock_retention).saturating_mul(1_000)).unwrap_or(i64::MAX),
            permits: Semaphore::new(config.tx_connections),
            connections: u32::try_from(config.tx_connections).unwrap_or(u32::MAX),
            shared: Arc::new(shared),
        }
    }

    /// Refuses further work, waits for what is under way, and closes all connections.
    pub(crate) async fn close(&self) {
        self.shared.closed.cancel();
        let _all = self.permits.acquire_many(self.connections).await;
        self.permits.close();
        let idle = std::mem::take(&mut self.shared.idle.lock().sessions);
        hang_up(idle.into_iter().map(|(session, _)| session).collect()).await;
    }

    /// The right to hold a connection.
    async fn permit(&self, wait: Duration) -> Result<SemaphorePermit<'_>> {
        if wait > WAIT_MAX {
            let message = format!("lock wait {wait:?} is out of range: allowed are 0 to {WAIT_MAX:?}");
            return Err(Error::invalid(message));
        }
        let patience = wait.max(self.shared.operation_timeout);
        tokio::select! {
            biased;
            () = self.shared.closed.cancelled() => Err(closed()),
            permit = timeout(patience, self.permits.acquire()) => match permit {
                Ok(permit) => permit.map_err(|_| closed()),
                Err(_) => {
                    let message = format!("no connection became free within {patience:?} (tx_connections)");
                    Err(Error::new(ErrorKind::Throttled, message))
                }
            },
        }
    }

    /// A connection that is at hand, or else a new one; also says whether it is new.
    async fn session(&self, connector: &Connector) -> Result<(Session, bool)> {
        if let Some(session) = self.take_idle() {
            return Ok((session, false));
        }
        let opened = connector.open().await?;
        let mut session = Session { connection: opened.connection, pooled: opened.facts.pooled };
        if !session.pooled {
            // What suits the driver's own statements does not suit those of others.
            let reset = session.connection.execute("RESET ALL");
            self.in_time(reset, Sent::Read).await?;
        }
        Ok((session, true))
    }

    async fn begin<'c>(&self, connection: &'c mut PgConnection) -> Result<Transaction<'c, Postgres>> {
        self.in_time(connection.begin_with(BEGIN), Sent::Read).await
    }

    /// Waits for the lock; `false` when others hold it for longer than that.
    async fn lock(&self, tx: &mut PgConnection, key: &StateKey, until: Instant, is_pooled: bool) -> Result<bool> {
        // Zero would mean without end.
        let wait = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let arguments = arguments(key, wait, self.retention_us);
        let arguments = arguments.map_err(|error| classify(sqlx::Error::Encode(error), Sent::No))?;
        let query = sqlx::query_with(AssertSqlSafe(self.sql.clone()), arguments).persistent(!is_pooled);
        let locked = tokio::select! {
            locked = timeout(wait + self.shared.operation_timeout, query.fetch_all(tx)) => locked,
            // Also a long wait ends.
            () = self.shared.closed.cancelled() => return Err(closed()),
        };
        match locked {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(error)) if code_of(&error).as_deref() == Some(LOCK_NOT_AVAILABLE) => Ok(false),
            // Without a commit, nothing was done.
            Ok(Err(error)) => Err(classify(error, Sent::Read)),
            Err(_) => Err(timed_out(Effect::NotApplied)),
        }
    }

    async fn commit(&self, mut tx: Transaction<'_, Postgres>) -> Result<()> {
        // PostgreSQL answers the commit of a failed transaction by rolling it back, which is no error to it. Another
        // statement is.
        match timeout(self.shared.operation_timeout, tx.execute("SELECT 1")).await {
            Ok(Err(error)) if code_of(&error).as_deref() == Some(IN_FAILED_TRANSACTION) => {
                let message = "a statement of the work failed, and it returned Ok nevertheless: nothing was committed";
                return Err(Error::invalid(message));
            }
            Ok(alive) => alive.map_err(|error| classify(error, Sent::Read))?,
            Err(_) => return Err(timed_out(Effect::NotApplied)),
        };
        self.in_time(tx.commit(), Sent::Write).await
    }

    async fn roll_back(&self, tx: Transaction<'_, Postgres>) -> Result<()> {
        self.in_time(tx.rollback(), Sent::Read).await
    }

    async fn in_time<T>(&self, statement: impl Future<Output = sqlx::Result<T>>, sent: Sent) -> Result<T> {
        match timeout(self.shared.operation_timeout, statement).await {
            Ok(outcome) => outcome.map_err(|error| classify(error, sent)),
            Err(_) => Err(timed_out(sent.unanswered())),
        }
    }

    fn take_idle(&self) -> Option<Session> {
        self.shared.idle.lock().sessions.pop().map(|(session, _)| session)
    }

    fn put_back(&self, session: Session) {
        if self.shared.closed.is_cancelled() {
            return;
        }
        let mut idle = self.shared.idle.lock();
        idle.sessions.push((session, Instant::now()));
        if !std::mem::replace(&mut idle.is_watched, true) {
            drop(idle);
            let (shared, closed) = (Arc::downgrade(&self.shared), self.shared.closed.clone());
            tokio::spawn(close_unused(shared, self.shared.idle_timeout, closed));
        }
    }
}

/// Closes connections that were not used for long, as long as there are any.
async fn close_unused(shared: Weak<Shared>, pause: Duration, closed: CancellationToken) {
    while closed.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        let Some(shared) = shared.upgrade() else { return };
        let (unused, is_done) = shared.idle.lock().take_unused(pause);
        hang_up(unused).await;
        if is_done {
            return;
        }
    }
}

fn arguments(key: &StateKey, wait: Duration, retention_us: i64) -> Result<PgArguments, BoxDynError> {
    let mut arguments = PgArguments::default();
    key.parts().into_iter().try_for_each(|part| arguments.add(part))?;
    // 24 hours fit.
    arguments.add(i32::try_from(ceil_ms(wait)).unwrap_or(i32::MAX))?;
    arguments.add(retention_us)?;
    Ok(arguments)
}

async fn hang_up(sessions: Vec<Session>) {
    for session in sessions {
        let _ = timeout(GOODBYE_TIMEOUT, session.connection.close()).await;
    }
}
