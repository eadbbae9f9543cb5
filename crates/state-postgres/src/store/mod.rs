//! [`PostgresStore`]: the contract's methods, each in the file of its family.

mod key_columns;
mod many;
mod rate;
mod scan;
mod statement;
mod value;

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use acteon_state_core::entry::ceil_ms;
use acteon_state_core::{
    BatchOp, BatchReply, Capabilities, ClaimDue, ClaimOutcome, ClaimToken, Claimed, Condition, Decision, DeleteOutcome,
    Effect, Entry, Error, ErrorKind, ExtendOutcome, Gate, GateReply, Get, Increment, IncrementOutcome, LockOutcome,
    LockRequest, LockSemantics, LockState, Operation, OwnerId, Page, Put, PutOutcome, RateLimit, ReleaseOutcome,
    Result, Scan, ScanItem, Schedule, Scheduled, StateKey, StateStore, TransactOp, TransactOutcome, Ttl,
};
use async_trait::async_trait;
use parking_lot::RwLock;
use sqlx::Connection as _;
use sqlx::postgres::{PgArguments, PgRow};

use crate::claim::{Claims, NextClaim};
use crate::config::PostgresConfig;
use crate::connect::{Connector, Opened};
use crate::due::Dues;
use crate::ends::Ends;
use crate::error::{BACKEND, closed};
use crate::lane::Lane;
use crate::lock::{LockQueries, Locks};
use crate::migrate::{self, Migrated, Schema};
use crate::names::Names;
use crate::server::Facts;
use crate::sweep;
use crate::tx_lock::TxLocks;
use crate::waiting::Waiters;
use crate::workers::{Dispatcher, Opening, Source, Workers};

use rate::Rates;
pub(crate) use scan::{cursor_after, range_arguments};
pub(crate) use statement::{Reading, Statement, Writing};
use value::{Reads, Writes};

pub(crate) use key_columns::KeyColumns;

/// [`StateStore`] over PostgreSQL. Cheap to clone; clones share connections.
///
/// Dropping the last clone ends all connections; [`close`](StateStore::close) lets calls under way finish first.
#[derive(Clone)]
pub struct PostgresStore {
    pub(crate) inner: Arc<Inner>,
}

/// What all clones share.
pub(crate) struct Inner {
    pub(crate) names: Names,
    pub(crate) connector: Arc<Connector>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) tx_locks: TxLocks,
    pub(crate) locks: Arc<Lane<Locks>>,
    pub(crate) lock_queries: LockQueries,
    pub(crate) dues: Arc<Lane<Dues>>,
    pub(crate) claims: Arc<Lane<Claims>>,
    pub(crate) next_claim: NextClaim,
    reads: Arc<Lane<Reads>>,
    writes: ByDurability<Writes>,
    rates: ByDurability<Rates>,
    reading: Arc<Lane<Reading>>,
    writing: Arc<Lane<Writing>>,
    transact_sql: Arc<str>,
    scan_sql: scan::ScanSql,
    /// Kinds whose commits do not wait for the disk.
    relaxed: HashSet<String>,
    known: Arc<Known>,
    pub(crate) workers: Workers,
}

/// The lanes of one family: a statement is committed in one way or the other, with all that it carries.
struct ByDurability<F: crate::lane::Family> {
    durable: Arc<Lane<F>>,
    relaxed: Arc<Lane<F>>,
}

impl<F: crate::lane::Family> ByDurability<F> {
    const fn choose(&self, relaxed: bool) -> &Arc<Lane<F>> {
        if relaxed { &self.relaxed } else { &self.durable }
    }
}

/// What is known of the server.
struct Known {
    value_bytes_max: u64,
    /// What is declared before the server was reached.
    declared: Capabilities,
    /// What it said first. Later connections refine only the notes on locks: capabilities that change under a running
    /// application would help nobody.
    probed: OnceLock<Capabilities>,
    // Written once per connection, read on request; never held across an await.
    facts: RwLock<Facts>,
}

impl PostgresStore {
    /// Connects, brings the schema up to date unless told otherwise, and fails with the reason if that is not possible.
    ///
    /// # Errors
    /// `Config` for the options, a certificate that is not trusted, a database that does not exist, a server before 14, or a
    /// schema that does not fit; `Unavailable` when no server can be reached; `Denied` for wrong credentials or missing
    /// rights; `Failover` when all servers of the URL are read-only.
    pub async fn connect(config: PostgresConfig) -> Result<Self> {
        let parts = Parts::new(&config)?;
        let mut first = parts.connector.open().await?;
        parts.schema.prepare(&mut first.connection).await?;
        Ok(Self::start(&config, parts, Some(first)))
    }

    /// Brings the schema up to date, whatever `migrate` says, and disconnects.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    pub async fn migrate(config: PostgresConfig) -> Result<Migrated> {
        let parts = Parts::new(&config)?;
        let mut opened = parts.connector.open().await?;
        let migrated = migrate::migrate(&mut opened.connection, &parts.names).await?;
        // What was to be done is done.
        let _ = opened.connection.close().await;
        Ok(migrated)
    }

    /// Says what [`migrate`](Self::migrate) would do: from which version to which. Changes nothing, and needs no rights but to
    /// read the schema's table.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    pub async fn pending(config: PostgresConfig) -> Result<Migrated> {
        let parts = Parts::new(&config)?;
        let mut opened = parts.connector.open().await?;
        let pending = migrate::pending(&mut opened.connection, &parts.names).await?;
        // What was to be learnt is known.
        let _ = opened.connection.close().await;
        Ok(pending)
    }

    /// Starts without a connection and connects in the background, without end. Until then, calls fail as `Unavailable`. The
    /// schema is brought up to date, or checked, on the first connection; while that fails, calls fail with its reason.
    ///
    /// # Errors
    /// `Config` for the options.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn connect_lazy(config: PostgresConfig) -> Result<Self> {
        let parts = Parts::new(&config)?;
        Ok(Self::start(&config, parts, None))
    }

    fn start(config: &PostgresConfig, parts: Parts, first: Option<Opened>) -> Self {
        let Parts { names, connector, schema } = parts;
        let dispatcher = Dispatcher::new(config);
        let waiters = Waiters::new(&names);
        let lanes = Lanes::new(config, &names, &dispatcher, &waiters);
        let known = Arc::new(Known::new(config.value_bytes_max));
        let learner = known.clone();
        let on_facts = Arc::new(move |facts| learner.learn(facts));
        let opening = Opening { connector: connector.clone(), schema, on_facts };
        let workers = Workers::start(config, dispatcher.clone(), opening, lanes.sources(), first);
        let Lanes { reads, writes, rates, locks, dues, claims, reading, writing } = lanes;
        let inner = Inner {
            waiters,
            lock_queries: LockQueries::new(&names),
            tx_locks: TxLocks::new(config, &names),
            transact_sql: names.sql(many::TRANSACT),
            next_claim: NextClaim::new(0),
            scan_sql: scan::ScanSql::new(&names),
            relaxed: config.relaxed.iter().cloned().collect(),
            names,
            connector,
            dispatcher,
            locks,
            dues,
            claims,
            reads,
            writes,
            rates,
            reading,
            writing,
            known,
            workers,
        };
        let (waiters, closed) = (&inner.waiters, inner.dispatcher.closed());
        inner.workers.spawn(waiters.clone().keep_telling(inner.writing.clone(), closed.clone()));
        inner.workers.spawn(waiters.clone().keep_listening(inner.connector.clone(), closed.clone()));
        inner.workers.spawn(sweep::run(config, &inner.names, inner.writing.clone(), inner.dispatcher.closed().clone()));
        Self { inner: Arc::new(inner) }
    }

    /// Runs an operation unless the store is closed, and says in its error which one it was.
    ///
    /// Takes what makes the operation's future, since the future itself is large to move.
    async fn named<T, F: Future<Output = Result<T>>>(
        &self,
        operation: Operation,
        key: Option<&StateKey>,
        run: impl FnOnce() -> F,
    ) -> Result<T> {
        let outcome = if self.inner.dispatcher.closed().is_cancelled() { Err(closed()) } else { run().await };
        outcome.map_err(|error| {
            let mut error = error.in_operation(operation.as_str()).on_backend(BACKEND);
            if operation.is_read() {
                // Also where the answer made no sense.
                error = error.with_effect(Effect::NotApplied);
            }
            match key {
                Some(key) => error.with_key(key),
                None => error,
            }
        })
    }
}

/// What is checked before anything is opened.
struct Parts {
    names: Names,
    connector: Arc<Connector>,
    schema: Schema,
}

impl Parts {
    fn new(config: &PostgresConfig) -> Result<Self> {
        let names = Names::new(&config.schema, &config.prefix)?;
        let schema = Schema::new(names.clone(), config.migrate);
        Ok(Self { names, connector: Arc::new(Connector::new(config)?), schema })
    }
}

/// Where operations wait, by family.
struct Lanes {
    reads: Arc<Lane<Reads>>,
    writes: ByDurability<Writes>,
    rates: ByDurability<Rates>,
    locks: Arc<Lane<Locks>>,
    dues: Arc<Lane<Dues>>,
    claims: Arc<Lane<Claims>>,
    reading: Arc<Lane<Reading>>,
    writing: Arc<Lane<Writing>>,
}

impl Lanes {
    fn new(config: &PostgresConfig, names: &Names, dispatcher: &Arc<Dispatcher>, waiters: &Arc<Waiters>) -> Self {
        let ops_max = config.batch_ops_max;
        let ends = Arc::<Ends>::default();
        let retention_us = ceil_ms(config.lock_retention).saturating_mul(1_000);
        let writes = |relaxed| Lane::new(Writes::new(names, relaxed), dispatcher.clone(), ops_max);
        let rates = |relaxed| Lane::new(Rates::new(names, relaxed), dispatcher.clone(), ops_max);
        Self {
            reads: Lane::new(Reads::new(names), dispatcher.clone(), ops_max),
            writes: ByDurability { durable: writes(false), relaxed: writes(true) },
            rates: ByDurability { durable: rates(false), relaxed: rates(true) },
            locks: Lane::new(Locks::new(names, retention_us, waiters.clone()), dispatcher.clone(), ops_max),
            dues: Lane::new(Dues::new(names, ends.clone()), dispatcher.clone(), ops_max),
            claims: Lane::new(Claims::new(names, ends), dispatcher.clone(), ops_max),
            reading: Lane::new(Reading, dispatcher.clone(), 1),
            writing: Lane::new(Writing, dispatcher.clone(), 1),
        }
    }

    fn sources(&self) -> Arc<[Arc<dyn Source>]> {
        Arc::new([
            self.locks.clone() as Arc<dyn Source>,
            self.reads.clone(),
            self.writes.durable.clone(),
            self.writes.relaxed.clone(),
            self.rates.durable.clone(),
            self.rates.relaxed.clone(),
            self.dues.clone(),
            self.claims.clone(),
            self.reading.clone(),
            self.writing.clone(),
        ])
    }
}

impl Known {
    fn new(value_bytes_max: u64) -> Self {
        let facts = Facts::unknown();
        let declared = facts.capabilities(value_bytes_max);
        Self { value_bytes_max, declared, probed: OnceLock::new(), facts: RwLock::new(facts) }
    }

    fn capabilities(&self) -> &Capabilities {
        self.probed.get().unwrap_or(&self.declared)
    }

    fn learn(&self, facts: Facts) {
        if *self.facts.read() == facts {
            return;
        }
        self.probed.get_or_init(|| facts.capabilities(self.value_bytes_max));
        *self.facts.write() = facts;
    }
}

impl Inner {
    pub(crate) fn capabilities(&self) -> &Capabilities {
        self.known.capabilities()
    }

    /// Whether a pooler in between hands out its connections per transaction.
    pub(crate) fn is_pooled(&self) -> bool {
        self.known.facts.read().pooled
    }

    /// Whether the commits of this key need not wait for the disk.
    fn is_relaxed(&self, key: &StateKey) -> bool {
        !self.relaxed.is_empty() && self.relaxed.contains(&*key.parts()[2])
    }

    pub(crate) fn rates(&self, key: &StateKey) -> &Arc<Lane<Rates>> {
        self.rates.choose(self.is_relaxed(key))
    }

    /// Runs a statement that changes nothing.
    pub(crate) async fn read(&self, sql: &Arc<str>, arguments: PgArguments) -> Result<Vec<PgRow>> {
        self.reading.submit(Statement { sql: sql.clone(), arguments }).await
    }

    /// Runs a statement that changes something.
    pub(crate) async fn write(&self, sql: &Arc<str>, arguments: PgArguments) -> Result<Vec<PgRow>> {
        self.writing.submit(Statement { sql: sql.clone(), arguments }).await
    }

    async fn ping(&self) -> Result<()> {
        self.read(&"SELECT 1".into(), PgArguments::default()).await.map(|_| ())
    }

    async fn close(&self) {
        self.close_locks().await;
        self.waiters.tell(&self.writing).await;
        self.dispatcher.closed().cancel();
        self.tx_locks.close().await;
        self.workers.close().await;
    }
}

/// An answer that is not what our statement returns: another schema, or something in between.
pub(crate) fn unexpected(error: sqlx::Error) -> Error {
    Error::new(ErrorKind::Internal, "the server's answer has not the expected columns").with_source(error)
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("endpoint", &format_args!("{}", self.inner.connector))
            .field("schema", &self.inner.names.schema())
            .field("prefix", &self.inner.names.prefix())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl StateStore for PostgresStore {
    fn backend(&self) -> &str {
        BACKEND
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn lock_semantics(&self) -> LockSemantics {
        self.inner.known.facts.read().lock_semantics()
    }

    async fn ping(&self) -> Result<()> {
        self.named(Operation::Ping, None, || self.inner.ping()).await
    }

    async fn get(&self, key: &StateKey, get: Get) -> Result<Option<Entry>> {
        self.named(Operation::Get, Some(key), || self.inner.get(key, get)).await
    }

    async fn put(&self, key: &StateKey, put: &Put) -> Result<PutOutcome> {
        self.named(Operation::Put, Some(key), || self.inner.put(key, put)).await
    }

    async fn delete(&self, key: &StateKey, condition: Condition) -> Result<DeleteOutcome> {
        self.named(Operation::Delete, Some(key), || self.inner.delete(key, condition)).await
    }

    async fn take(&self, key: &StateKey) -> Result<Option<Entry>> {
        self.named(Operation::Take, Some(key), || self.inner.take(key)).await
    }

    async fn touch(&self, key: &StateKey, ttl: Ttl) -> Result<bool> {
        self.named(Operation::Touch, Some(key), || self.inner.touch(key, ttl)).await
    }

    async fn increment(&self, key: &StateKey, increment: Increment) -> Result<IncrementOutcome> {
        self.named(Operation::Increment, Some(key), || self.inner.increment(key, &increment)).await
    }

    async fn rate_limit(&self, key: &StateKey, request: &RateLimit) -> Result<Decision> {
        self.named(Operation::RateLimit, Some(key), || self.inner.rate_limit(key, request)).await
    }

    async fn batch(&self, ops: &[BatchOp]) -> Result<Vec<Result<BatchReply>>> {
        self.named(Operation::Batch, None, || self.inner.batch(ops)).await
    }

    async fn transact(&self, ops: &[TransactOp]) -> Result<TransactOutcome> {
        self.named(Operation::Transact, None, || self.inner.transact(ops)).await
    }

    async fn admit(&self, _: &[Gate]) -> Result<Vec<Result<GateReply>>> {
        self.named(Operation::Admit, None, || async { Err(Error::unsupported("gates")) }).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Page<ScanItem>> {
        self.named(Operation::Scan, None, || self.inner.scan(scan)).await
    }

    async fn schedule(&self, queue: &StateKey, schedule: &Schedule) -> Result<Scheduled> {
        self.named(Operation::Schedule, Some(queue), || self.inner.schedule(queue, schedule)).await
    }

    async fn cancel(&self, queue: &StateKey, id: &str) -> Result<bool> {
        self.named(Operation::Cancel, Some(queue), || self.inner.cancel(queue, id)).await
    }

    async fn claim_due(&self, queue: &StateKey, claim: ClaimDue) -> Result<Claimed> {
        self.named(Operation::ClaimDue, Some(queue), || self.inner.claim_due(queue, claim)).await
    }

    async fn ack(&self, queue: &StateKey, id: &str, token: ClaimToken) -> Result<ClaimOutcome> {
        self.named(Operation::Ack, Some(queue), || self.inner.ack(queue, id, token)).await
    }

    async fn extend_claim(
        &self,
        queue: &StateKey,
        id: &str,
        token: ClaimToken,
        visibility: Duration,
    ) -> Result<ClaimOutcome> {
        let extend = || self.inner.extend_claim(queue, id, token, visibility);
        self.named(Operation::ExtendClaim, Some(queue), extend).await
    }

    async fn lock_acquire(&self, request: &LockRequest) -> Result<LockOutcome> {
        self.named(Operation::LockAcquire, Some(&request.key), || self.inner.lock_acquire(request)).await
    }

    async fn lock_extend(&self, key: &StateKey, owner: OwnerId, lease: Duration) -> Result<ExtendOutcome> {
        self.named(Operation::LockExtend, Some(key), || self.inner.lock_extend(key, owner, lease)).await
    }

    async fn lock_release(&self, key: &StateKey, owner: OwnerId) -> Result<ReleaseOutcome> {
        self.named(Operation::LockRelease, Some(key), || self.inner.lock_release(key, owner)).await
    }

    async fn lock_inspect(&self, key: &StateKey) -> Result<Option<LockState>> {
        self.named(Operation::LockInspect, Some(key), || self.inner.lock_inspect(key)).await
    }

    async fn lock_force_release(&self, key: &StateKey, reason: &str) -> Result<usize> {
        self.named(Operation::LockForceRelease, Some(key), || self.inner.lock_force_release(key, reason)).await
    }

    async fn lock_list(&self, scan: &Scan) -> Result<Page<LockState>> {
        self.named(Operation::LockList, None, || self.inner.lock_list(scan)).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await;
        Ok(())
    }
}
