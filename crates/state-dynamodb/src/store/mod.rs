//! [`DynamoStore`]: the contract's methods, each in the file of its family.

mod many;
mod rate;
mod scan;
mod value;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use acteon_state_core::clock::{Clock, SeededClock};
use acteon_state_core::key::Keyspace;
use acteon_state_core::layer::metrics::StoreMetrics;
use acteon_state_core::{
    BatchOp, BatchReply, Capabilities, ClaimDue, ClaimOutcome, ClaimToken, Claimed, Condition, Decision, DeleteOutcome,
    Effect, Entry, Error, ErrorKind, ExtendOutcome, GateReply, Get, Increment, IncrementOutcome, LockOutcome,
    LockRequest, LockSemantics, LockState, Operation, OwnerId, Page, Put, PutOutcome, RateLimit, ReleaseOutcome,
    Result, Scan, ScanItem, Schedule, Scheduled, StateKey, StateStore, TransactOp, TransactOutcome, Ttl,
};
use async_trait::async_trait;
use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use crate::address::{Address, Addresses};
use crate::call::Gate;
use crate::capacity::Capacity;
use crate::clock::CalibratedClock;
use crate::config::{DynamoConfig, MigrateMode};
use crate::connect;
use crate::error::{Access, BACKEND, closed};
use crate::guarantees;
use crate::lock::Locks;
use crate::preparation::{self, Preparation};
use crate::table::{self, Facts, Migrated};

/// [`StateStore`] over Amazon DynamoDB. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct DynamoStore {
    inner: Arc<Inner>,
}

/// What all clones share.
pub(crate) struct Inner {
    pub(crate) client: aws_sdk_dynamodb::Client,
    pub(crate) table: Arc<str>,
    pub(crate) gate: Gate,
    pub(crate) addresses: Addresses,
    pub(crate) clock: Arc<CalibratedClock>,
    pub(crate) capacity: Arc<Capacity>,
    pub(crate) consistent_reads: bool,
    pub(crate) ttl_grace_s: u64,
    pub(crate) operation_timeout: Duration,
    pub(crate) locks: Locks,
    turns: rate::Turns,
    pub(crate) closed: CancellationToken,
    pub(crate) preparation: Preparation,
    /// What is said of a table that has not been seen yet.
    unseen: Facts,
    /// Opened for a look at the service: a table need not be there.
    only_looks: bool,
    capabilities: Capabilities,
}

impl DynamoStore {
    /// Connects, creates or checks the table unless told otherwise, and fails with the reason if that is not possible.
    ///
    /// # Errors
    /// `Config` for the options, a missing region or credentials, or a table that does not fit; `Denied` for wrong
    /// credentials or missing rights; `Unavailable` when the service cannot be reached.
    pub async fn connect(config: DynamoConfig) -> Result<Self> {
        Self::connect_with_clock(config, Arc::new(SeededClock::default())).await
    }

    /// [`connect`](Self::connect) with another local clock, for tests of clocks that are wrong.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_with_clock(config: DynamoConfig, local: Arc<dyn Clock>) -> Result<Self> {
        let (store, prepared) = Self::open(&config, local).await?;
        prepared.map(|()| store)
    }

    /// [`connect`](Self::connect) that does not fail for a service that cannot be reached: it is looked for in the background, and
    /// until the table has been seen to, operations fail at once, by the error of the last look. Capabilities are those of a
    /// table of one region; if it turns out to be another one, operations go on failing, and say so.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), except for what passes by itself. Must be called within a Tokio runtime.
    pub async fn connect_lazy(config: DynamoConfig) -> Result<Self> {
        let (store, prepared) = Self::open(&config, Arc::new(SeededClock::default())).await?;
        match prepared {
            Err(error) if error.kind().is_transient() => {
                tracing::warn!(%error, "the table is not reached; it is looked for in the background");
                tokio::spawn(preparation::go_on(Arc::downgrade(&store.inner), config));
            }
            prepared => prepared?,
        }
        Ok(store)
    }

    /// A store, and whether its table is ready.
    async fn open(config: &DynamoConfig, local: Arc<dyn Clock>) -> Result<(Self, Result<()>)> {
        config.check()?;
        let keyspace = Keyspace::new(&config.prefix)?;
        let clock = Arc::new(CalibratedClock::new(local, config.skew_max));
        let capacity = Arc::new(Capacity::default());
        let client = connect::client(config, clock.clone(), capacity.clone()).await?;
        let prepared = table::prepare(&client, config).await;
        let facts = prepared.as_ref().ok().cloned().unwrap_or_else(|| Facts::unseen(config));
        let capabilities = guarantees::capabilities(&facts, config);
        let (preparation, prepared) = match prepared {
            Ok(facts) => (Preparation::done(facts), Ok(())),
            Err(error) => (Preparation::failed(&error), Err(error)),
        };
        let point_kinds = config.point_kinds.iter().cloned().collect();
        let inner = Inner {
            client,
            table: config.table_name.as_str().into(),
            gate: Gate::new(config.in_flight_max),
            addresses: Addresses::new(keyspace, point_kinds, config.shards, config.due_shards),
            clock,
            capacity,
            consistent_reads: config.consistent_reads,
            ttl_grace_s: config.ttl_grace.as_secs(),
            operation_timeout: config.operation_timeout,
            locks: Locks::default(),
            turns: rate::Turns::default(),
            closed: CancellationToken::new(),
            preparation,
            unseen: Facts::unseen(config),
            only_looks: config.migrate == MigrateMode::Ignore,
            capabilities,
        };
        Ok((Self { inner: Arc::new(inner) }, prepared))
    }

    /// Creates the table and what it lacks, whatever `migrate` says in the options, and says what that was.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); `Denied` when the role may not create what is missing.
    pub async fn migrate(config: DynamoConfig) -> Result<Migrated> {
        table::migrate(&Self::client_alone(&config).await?, &config).await
    }

    /// What [`migrate`](Self::migrate) would do. Changes nothing.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn pending(config: DynamoConfig) -> Result<Migrated> {
        table::pending(&Self::client_alone(&config).await?, &config).await
    }

    /// What [`connect`](Self::connect) with `migrate = "check"` refuses, without writing anything.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn check(config: DynamoConfig) -> Result<()> {
        table::check(&Self::client_alone(&config).await?, &config).await
    }

    /// A client that no store counts.
    async fn client_alone(config: &DynamoConfig) -> Result<aws_sdk_dynamodb::Client> {
        config.check()?;
        let clock = Arc::new(CalibratedClock::new(Arc::new(SeededClock::default()), config.skew_max));
        connect::client(config, clock, Arc::new(Capacity::default())).await
    }

    /// Counts requests and capacity units into these metrics as well, from now on. The first call decides.
    pub fn export_to(&self, metrics: &Arc<StoreMetrics>) {
        self.inner.capacity.export_to(metrics.usage(BACKEND));
    }

    /// What was consumed so far: requests and capacity units, by operation.
    #[must_use]
    pub fn capacity(&self) -> Arc<Capacity> {
        self.inner.capacity.clone()
    }

    /// Runs an operation unless the store is closed, within the operation timeout, and says in its error which one it was.
    async fn named<T, F: Future<Output = Result<T>>>(
        &self,
        operation: Operation,
        key: Option<&StateKey>,
        run: impl FnOnce() -> F,
    ) -> Result<T> {
        let outcome = match self.inner.check_open() {
            Ok(()) => run().await,
            Err(error) => Err(error),
        };
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

    /// [`named`](Self::named), ending at the operation timeout. A write may have been applied by then.
    async fn timed<T, F: Future<Output = Result<T>>>(
        &self,
        operation: Operation,
        key: Option<&StateKey>,
        run: impl FnOnce() -> F,
    ) -> Result<T> {
        let timeout = self.inner.operation_timeout;
        self.named(operation, key, || async {
            tokio::time::timeout(timeout, run()).await.unwrap_or_else(|_| {
                let message = format!("no answer within operation_timeout ({timeout:?})");
                Err(Error::new(ErrorKind::Timeout, message).with_effect(Effect::Unknown))
            })
        })
        .await
    }
}

impl Inner {
    pub(crate) fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Whether there is something to send a request to.
    fn check_open(&self) -> Result<()> {
        if self.closed.is_cancelled() {
            return Err(closed());
        }
        self.preparation.check()
    }

    /// A request that the table has to be read for.
    async fn ping(&self) -> Result<()> {
        let address = Address::alone(format!("{}#ping", self.addresses.keyspace().prefix()));
        let request = self
            .client
            .get_item()
            .table_name(&*self.table)
            .set_key(Some(address.item()))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        match self.gate.call(Access::Read, request.send()).await {
            Ok(output) => {
                self.capacity.add(Operation::Ping, Access::Read, output.consumed_capacity());
                Ok(())
            }
            // The service has answered, and a start would see to the table.
            Err(error) if self.only_looks && error.kind() == ErrorKind::Config => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn close(&self) {
        self.closed.cancel();
        self.locks.close().await;
        self.gate.close();
    }
}

impl fmt::Debug for DynamoStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoStore")
            .field("table", &self.inner.table)
            .field("prefix", &self.inner.addresses.keyspace().prefix())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl StateStore for DynamoStore {
    fn backend(&self) -> &str {
        BACKEND
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn lock_semantics(&self) -> LockSemantics {
        let seen = self.inner.preparation.facts();
        guarantees::lock_semantics(seen.as_ref().unwrap_or(&self.inner.unseen), self.inner.clock.skew_max())
    }

    async fn ping(&self) -> Result<()> {
        self.timed(Operation::Ping, None, || self.inner.ping()).await
    }

    async fn get(&self, key: &StateKey, get: Get) -> Result<Option<Entry>> {
        self.timed(Operation::Get, Some(key), || self.inner.get(key, get)).await
    }

    async fn put(&self, key: &StateKey, put: &Put) -> Result<PutOutcome> {
        self.timed(Operation::Put, Some(key), || self.inner.put(key, put)).await
    }

    async fn delete(&self, key: &StateKey, condition: Condition) -> Result<DeleteOutcome> {
        self.timed(Operation::Delete, Some(key), || self.inner.delete(key, condition)).await
    }

    async fn take(&self, key: &StateKey) -> Result<Option<Entry>> {
        self.timed(Operation::Take, Some(key), || self.inner.take(key)).await
    }

    async fn touch(&self, key: &StateKey, ttl: Ttl) -> Result<bool> {
        self.timed(Operation::Touch, Some(key), || self.inner.touch(key, ttl)).await
    }

    async fn increment(&self, key: &StateKey, increment: Increment) -> Result<IncrementOutcome> {
        self.timed(Operation::Increment, Some(key), || self.inner.increment(key, &increment)).await
    }

    async fn rate_limit(&self, key: &StateKey, request: &RateLimit) -> Result<Decision> {
        self.timed(Operation::RateLimit, Some(key), || self.inner.rate_limit(key, request)).await
    }

    async fn batch(&self, ops: &[BatchOp]) -> Result<Vec<Result<BatchReply>>> {
        self.timed(Operation::Batch, None, || self.inner.batch(ops)).await
    }

    async fn transact(&self, ops: &[TransactOp]) -> Result<TransactOutcome> {
        self.timed(Operation::Transact, None, || self.inner.transact(ops)).await
    }

    async fn admit(&self, _: &[acteon_state_core::Gate]) -> Result<Vec<Result<GateReply>>> {
        self.timed(Operation::Admit, None, || async { Err(Error::unsupported("gates")) }).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Page<ScanItem>> {
        self.timed(Operation::Scan, None, || self.inner.scan(scan)).await
    }

    async fn schedule(&self, queue: &StateKey, schedule: &Schedule) -> Result<Scheduled> {
        self.timed(Operation::Schedule, Some(queue), || self.inner.schedule(queue, schedule)).await
    }

    async fn cancel(&self, queue: &StateKey, id: &str) -> Result<bool> {
        self.timed(Operation::Cancel, Some(queue), || self.inner.cancel(queue, id)).await
    }

    async fn claim_due(&self, queue: &StateKey, claim: ClaimDue) -> Result<Claimed> {
        self.timed(Operation::ClaimDue, Some(queue), || self.inner.claim_due(queue, claim)).await
    }

    async fn ack(&self, queue: &StateKey, id: &str, token: ClaimToken) -> Result<ClaimOutcome> {
        self.timed(Operation::Ack, Some(queue), || self.inner.ack(queue, id, token)).await
    }

    async fn extend_claim(
        &self,
        queue: &StateKey,
        id: &str,
        token: ClaimToken,
        visibility: Duration,
    ) -> Result<ClaimOutcome> {
        let extend = || self.inner.extend_claim(queue, id, token, visibility);
        self.timed(Operation::ExtendClaim, Some(queue), extend).await
    }

    async fn lock_acquire(&self, request: &LockRequest) -> Result<LockOutcome> {
        self.named(Operation::LockAcquire, Some(&request.key), || self.inner.lock_acquire(request)).await
    }

    async fn lock_extend(&self, key: &StateKey, owner: OwnerId, lease: Duration) -> Result<ExtendOutcome> {
        self.timed(Operation::LockExtend, Some(key), || self.inner.lock_extend(key, owner, lease)).await
    }

    async fn lock_release(&self, key: &StateKey, owner: OwnerId) -> Result<ReleaseOutcome> {
        self.timed(Operation::LockRelease, Some(key), || self.inner.lock_release(key, owner)).await
    }

    async fn lock_inspect(&self, key: &StateKey) -> Result<Option<LockState>> {
        self.timed(Operation::LockInspect, Some(key), || self.inner.lock_inspect(key)).await
    }

    async fn lock_force_release(&self, key: &StateKey, reason: &str) -> Result<usize> {
        self.timed(Operation::LockForceRelease, Some(key), || self.inner.lock_force_release(key, reason)).await
    }

    async fn lock_list(&self, scan: &Scan) -> Result<Page<LockState>> {
        self.timed(Operation::LockList, None, || self.inner.lock_list(scan)).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await;
        Ok(())
    }
}
