//! [`RedisStore`]: the contract's methods, each in the file of its family.

mod counter;
mod gates;
mod many;
mod rate;
mod scan;
mod value;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::entry::ceil_ms;
use acteon_state_core::key::Keyspace;
use acteon_state_core::{
    BatchOp, BatchReply, Capabilities, ClaimDue, ClaimOutcome, ClaimToken, Claimed, Condition, Decision, DeleteOutcome,
    Effect, Entry, ExtendOutcome, Gate, GateReply, Get, Increment, IncrementOutcome, LockOutcome, LockRequest,
    LockSemantics, LockState, Operation, OwnerId, Page, Put, PutOutcome, RateLimit, ReleaseOutcome, Result, Scan,
    ScanItem, Schedule, Scheduled, StateKey, StateStore, TransactOp, TransactOutcome, Ttl,
};
use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::acks::Acks;
use crate::config::{RedisConfig, Safety};
use crate::connect::{Common, Opened};
use crate::dial::Dialer;
use crate::error::{Access, BACKEND, closed, from_server};
use crate::known::Known;
use crate::link::{OnFacts, Replicas};
use crate::lock::Withdrawals;
use crate::quarantine::Quarantine;
use crate::router::{Plan, Router};
use crate::script::By;
use crate::stats::{ConnectionStats, ConnectionWatch};
use crate::topology::Topology;
use crate::wakeup::Wakeups;
use crate::wire::{Cmd, OnPush, Value};

pub(crate) use scan::corrupt_lock;

/// [`StateStore`] over Redis or Valkey. Cheap to clone; clones share connections.
///
/// Dropping the last clone ends all connections at once; [`close`](StateStore::close) lets calls under way finish first.
#[derive(Clone)]
pub struct RedisStore {
    inner: Arc<Inner>,
}

/// What all clones share.
pub(crate) struct Inner {
    pub(crate) keyspace: Keyspace,
    pub(crate) router: Router,
    pub(crate) wakeups: Arc<Wakeups>,
    pub(crate) lock_retention_ms: u64,
    /// In strict safety: who must have a grant.
    pub(crate) replicas: Option<Replicas>,
    /// In strict safety: the longest lease.
    pub(crate) lock_lease_max: Option<Duration>,
    pub(crate) withdrawals: Withdrawals,
    pub(crate) acks: Acks,
    pub(crate) closed: CancellationToken,
    known: Arc<Known>,
}

impl RedisStore {
    /// Connects, and fails with the reason if that is not possible within `connect_timeout`.
    ///
    /// # Errors
    /// `Config` for the options, a TLS certificate that is not trusted, or a server before 7.0; `Unavailable` when the server
    /// cannot be reached; `Denied` for wrong credentials; `Failover` for a replica or a server that is still loading.
    pub async fn connect(config: RedisConfig) -> Result<Self> {
        let parts = Parts::new(&config, Purpose::Use)?;
        Self::connect_parts(&config, parts).await
    }

    /// Connects as [`connect`](Self::connect) does, only to see what can be done: in strict safety it leaves no record of which
    /// server is primary, and so no locks are granted.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn inspect(config: RedisConfig) -> Result<Self> {
        let parts = Parts::new(&config, Purpose::Inspect)?;
        Self::connect_parts(&config, parts).await
    }

    /// Starts without a connection and connects in the background, without end. Until then, calls fail as `Unavailable`,
    /// and [`capabilities`](StateStore::capabilities) are what a server without persistence offers.
    ///
    /// # Errors
    /// `Config` for the options.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn connect_lazy(config: RedisConfig) -> Result<Self> {
        let parts = Parts::new(&config, Purpose::Use)?;
        Ok(Self::start(&config, parts, None))
    }

    /// Figures of the connections.
    #[must_use]
    pub fn connection_stats(&self) -> ConnectionStats {
        self.inner.router.counters().read()
    }

    /// The same figures for somebody who reads them now and then, and must not keep the store open.
    #[must_use]
    pub fn watch_connections(&self) -> ConnectionWatch {
        ConnectionWatch(Arc::downgrade(self.inner.router.counters()))
    }

    async fn connect_parts(config: &RedisConfig, parts: Parts) -> Result<Self> {
        let first = parts.plan.open().await?;
        if let Some(opened) = &first {
            parts.known.learn(&opened.endpoint, opened.facts.clone());
        }
        parts.known.refuse_dangers()?;
        Ok(Self::start(config, parts, first))
    }

    fn start(config: &RedisConfig, parts: Parts, first: Option<Opened>) -> Self {
        let Parts { keyspace, plan, wakeups, known } = parts;
        let router = Router::start(config, plan, first);
        let servers = router.servers().clone();
        router.spawn(wakeups.clone().subscribe(move || {
            let servers = servers.clone();
            async move { servers.any_link().await }
        }));
        let is_strict = config.safety == Safety::Strict;
        let inner = Inner {
            keyspace,
            router,
            wakeups,
            lock_retention_ms: ceil_ms(config.lock_retention),
            replicas: is_strict
                .then_some(Replicas { count: config.lock_replicas, timeout: config.lock_replicas_timeout }),
            lock_lease_max: is_strict.then_some(config.lock_lease_max),
            withdrawals: Withdrawals::default(),
            acks: Acks::new(Handle::current()),
            closed: CancellationToken::new(),
            known,
        };
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
        let outcome = if self.inner.closed.is_cancelled() { Err(closed()) } else { run().await };
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
    keyspace: Keyspace,
    plan: Plan,
    wakeups: Arc<Wakeups>,
    known: Arc<Known>,
}

/// What a store is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Use,
    Inspect,
}

impl Parts {
    fn new(config: &RedisConfig, purpose: Purpose) -> Result<Self> {
        let target = config.target()?;
        let keyspace = Keyspace::new(&config.prefix)?;
        let wakeups = Arc::new(Wakeups::default());
        let receiver = wakeups.clone();
        let on_push: OnPush = Arc::new(move |push| receiver.on_push(push));
        let known = Arc::new(Known::new(config, &target));
        let learner = known.clone();
        let is_strict = config.safety == Safety::Strict;
        let common = Common {
            dialer: Dialer::new(config, target.login.clone(), target.tls.as_ref(), target.db)?,
            connect_timeout: config.connect_timeout,
            on_push,
            quarantine: is_strict.then(|| {
                let is_replicated = !matches!(target.topology, Topology::Standalone(_));
                Quarantine::new(keyspace.prefix(), config.lock_lease_max, is_replicated, purpose == Purpose::Use)
            }),
            strict: is_strict.then(|| known.setup()),
        };
        let on_facts: OnFacts = Arc::new(move |endpoint, facts| match facts {
            Some(facts) => learner.learn(endpoint, facts),
            None => learner.forget(endpoint),
        });
        let plan = Plan::new(config, target, common, on_facts)?;
        Ok(Self { keyspace, plan, wakeups, known })
    }
}

impl Inner {
    pub(crate) fn capabilities(&self) -> &Capabilities {
        self.known.capabilities()
    }

    /// Sends a native command.
    pub(crate) async fn send(&self, cmd: &Cmd, access: Access) -> Result<Value> {
        settled(self.router.send(cmd, access).await?)
    }

    /// Calls a script.
    pub(crate) async fn run(&self, access: Access, command: impl Fn(By) -> Cmd) -> Result<Value> {
        settled(self.router.run(access, command).await?)
    }

    /// Sends a command that only reads to where it is answered soonest, see [`Router::read_somewhere`].
    pub(crate) async fn read_somewhere(&self, command: impl Fn(By) -> Cmd) -> Result<Value> {
        settled(self.router.read_somewhere(command).await?)
    }

    async fn ping(&self) -> Result<()> {
        self.router.ping().await
    }

    async fn close(&self) {
        if self.closed.is_cancelled() {
            return;
        }
        // Waiters for locks end by this, and may leave withdrawals behind.
        self.closed.cancel();
        self.withdrawals.tasks.close();
        self.acks.tasks.close();
        let last = async {
            self.acks.tasks.wait().await;
            self.withdrawals.tasks.wait().await;
        };
        self.router.close(last).await;
    }
}

/// A reply that is not an error of the server.
pub(crate) fn settled(reply: Value) -> Result<Value> {
    match reply {
        Value::ServerError(error) => Err(from_server(&error)),
        reply => Ok(reply),
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("endpoint", &format_args!("{}", self.inner.router))
            .field("prefix", &self.inner.keyspace.prefix())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl StateStore for RedisStore {
    fn backend(&self) -> &str {
        BACKEND
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn lock_semantics(&self) -> LockSemantics {
        self.inner.known.lock_semantics()
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

    async fn admit(&self, gates: &[Gate]) -> Result<Vec<Result<GateReply>>> {
        self.named(Operation::Admit, None, || self.inner.admit(gates)).await
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
