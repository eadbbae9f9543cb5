//! Layers: each wraps a store and changes one thing.
//!
//! A layer implements [`Around`] once, for all methods; [`Layered`] is the only place that forwards them. Only [`degrade`] is a
//! store by itself, since it must know what each method asks for. The order that [`Layers::wrap`] builds, outer to inner, is
//!
//! tracing, metrics, degradation, deadline, guard, concurrency limit, circuit breaker, retry, attempt timeout, driver.
//!
//! The order matters. The deadline is outside of retry, so that attempts share it. With the breaker inside of retry, one
//! bad call could open it by its own attempts; with the attempt timeout outside of retry, the first attempt would eat the
//! time of all of them.

pub mod attempt_timeout;
pub mod circuit_breaker;
pub mod concurrency_limit;
pub mod deadline;
pub mod degrade;
pub mod guard;
pub mod metrics;
pub mod retry;
pub mod tracing;

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use crate::capabilities::Capabilities;
use crate::counter::{Increment, IncrementOutcome};
use crate::due::{ClaimDue, ClaimOutcome, ClaimToken, Claimed, Schedule, Scheduled};
use crate::entry::{Entry, Get, Ttl};
use crate::error::Result;
use crate::gate::{Gate, GateReply};
use crate::key::StateKey;
use crate::lock::request::{ExtendOutcome, LockOutcome, LockRequest, LockState, OwnerId, ReleaseOutcome};
use crate::lock::semantics::LockSemantics;
use crate::many::{BatchOp, BatchReply, TransactOp, TransactOutcome};
use crate::operation::{Call, Keys, Operation, Repeat, Reply};
use crate::rate::{Decision, RateAlgorithm, RateLimit};
use crate::scan::{Page, Scan, ScanItem};
use crate::store::StateStore;
use crate::write::{Condition, DeleteOutcome, Put, PutOutcome};

/// What a layer does around a call, whichever it is.
pub trait Around: Debug + Send + Sync + 'static {
    /// Runs `attempt` once, several times, or not at all, and returns its reply or an error.
    fn around<'a, T: Reply + 'a>(
        &'a self,
        call: &'a Call<'a>,
        attempt: impl Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    ) -> impl Future<Output = Result<T>> + Send + 'a;
}

/// A store with a layer around it.
#[derive(Debug)]
pub struct Layered<A> {
    inner: Arc<dyn StateStore>,
    layer: A,
}

impl<A: Around> Layered<A> {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn StateStore>, layer: A) -> Self {
        Self { inner, layer }
    }

    /// Wraps `inner`, as a store of its own.
    #[must_use]
    pub fn wrap(inner: Arc<dyn StateStore>, layer: A) -> Arc<dyn StateStore> {
        Arc::new(Self::new(inner, layer))
    }
}

/// The options of the standard layers; what is `None` is left out.
///
/// ```
/// # use std::{sync::Arc, time::Duration};
/// # use acteon_state_core::{State, layer::{Layers, retry}};
/// # let driver = Arc::new(acteon_state_memory::MemoryStore::default());
/// let layers = Layers {
///     deadline: Some(Duration::from_secs(5)),
///     retry: Some(retry::Policy::default()),
///     attempt_timeout: Some(Duration::from_secs(2)),
///     ..Layers::default()
/// };
/// let state = State::new(layers.wrap(driver));
/// # let _ = state;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// Counts and times calls into these metrics.
    pub metrics: Option<Arc<metrics::StoreMetrics>>,
    /// Whether each call is a span.
    pub tracing: bool,
    /// What to do without an answer.
    pub degrade: Option<degrade::Options>,
    /// The time that a whole call may take, repetitions included.
    pub deadline: Option<Duration>,
    /// Refuses keys outside of a namespace or tenant.
    pub guard: Option<guard::Guard>,
    /// How many calls may be under way at once.
    pub concurrency: Option<concurrency_limit::Limits>,
    /// When to stop calling a backend that does not answer.
    pub breaker: Option<circuit_breaker::Thresholds>,
    /// How often and how fast to repeat.
    pub retry: Option<retry::Policy>,
    /// The time that one attempt may take.
    pub attempt_timeout: Option<Duration>,
}

impl Layers {
    /// Wraps a driver in these layers, in their order.
    #[must_use]
    pub fn wrap(self, driver: Arc<dyn StateStore>) -> Arc<dyn StateStore> {
        let mut store = driver;
        if let Some(timeout) = self.attempt_timeout {
            store = Layered::wrap(store, attempt_timeout::AttemptTimeout::new(timeout));
        }
        if let Some(policy) = self.retry {
            store = Layered::wrap(store, retry::Retry::new(policy));
        }
        if let Some(thresholds) = self.breaker {
            store = Layered::wrap(store, circuit_breaker::CircuitBreaker::new(thresholds));
        }
        if let Some(limits) = self.concurrency {
            store = Layered::wrap(store, concurrency_limit::ConcurrencyLimit::new(limits));
        }
        if let Some(guard) = self.guard {
            store = Layered::wrap(store, guard);
        }
        if let Some(deadline) = self.deadline {
            store = Layered::wrap(store, deadline::Deadline::new(deadline));
        }
        if let Some(options) = self.degrade {
            store = Arc::new(degrade::Degrade::new(store, options, self.metrics.clone()));
        }
        if let Some(metrics) = self.metrics {
            store = Layered::wrap(store.clone(), metrics::Metrics::new(metrics, store.backend()));
        }
        if self.tracing {
            store = Layered::wrap(store.clone(), tracing::Tracing::new(store.backend()));
        }
        store
    }
}

fn call<'a>(operation: Operation, keys: Keys<'a>, repeat: Repeat) -> Call<'a> {
    Call { operation, keys, repeat, wait: Duration::ZERO }
}

fn read<'a>(operation: Operation, keys: Keys<'a>) -> Call<'a> {
    call(operation, keys, Repeat::Freely)
}

fn write(operation: Operation, key: &StateKey) -> Call<'_> {
    call(operation, Keys::One(key), Repeat::UnlessUnknown)
}

/// Only a compare-and-swap is told from its repetition: its condition cannot hold twice, since versions never repeat.
fn repeat_write(condition: Condition) -> Repeat {
    if matches!(condition, Condition::Version(_)) { Repeat::Freely } else { Repeat::UnlessUnknown }
}

fn repeat_batch(ops: &[BatchOp]) -> Repeat {
    if ops.iter().all(|op| matches!(op, BatchOp::Get(..))) { Repeat::Freely } else { Repeat::UnlessUnknown }
}

/// The log of a sliding window knows its requests by name; counters do not.
fn repeat_rate_limit(request: &RateLimit) -> Repeat {
    if request.algorithm == RateAlgorithm::SlidingWindow { Repeat::Freely } else { Repeat::UnlessUnknown }
}

/// Only if each of them may be: nobody knows which of them were passed.
fn repeat_gates(gates: &[Gate]) -> Repeat {
    let is_free = |gate: &Gate| match gate {
        Gate::Put(_, put) => repeat_write(put.condition) == Repeat::Freely,
        Gate::RateLimit(_, request) => repeat_rate_limit(request) == Repeat::Freely,
        Gate::Lock(_) => true,
    };
    if gates.iter().all(is_free) { Repeat::Freely } else { Repeat::UnlessUnknown }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> StateStore for Layered<A> {
    fn backend(&self) -> &str {
        self.inner.backend()
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn lock_semantics(&self) -> LockSemantics {
        self.inner.lock_semantics()
    }

    async fn ping(&self) -> Result<()> {
        self.layer.around(&read(Operation::Ping, Keys::None), || self.inner.ping()).await
    }

    async fn get(&self, key: &StateKey, get: Get) -> Result<Option<Entry>> {
        self.layer.around(&read(Operation::Get, Keys::One(key)), || self.inner.get(key, get)).await
    }

    async fn put(&self, key: &StateKey, put: &Put) -> Result<PutOutcome> {
        let call = call(Operation::Put, Keys::One(key), repeat_write(put.condition));
        self.layer.around(&call, || self.inner.put(key, put)).await
    }

    async fn delete(&self, key: &StateKey, condition: Condition) -> Result<DeleteOutcome> {
        let call = call(Operation::Delete, Keys::One(key), repeat_write(condition));
        self.layer.around(&call, || self.inner.delete(key, condition)).await
    }

    async fn take(&self, key: &StateKey) -> Result<Option<Entry>> {
        self.layer.around(&write(Operation::Take, key), || self.inner.take(key)).await
    }

    async fn touch(&self, key: &StateKey, ttl: Ttl) -> Result<bool> {
        self.layer.around(&write(Operation::Touch, key), || self.inner.touch(key, ttl)).await
    }

    async fn increment(&self, key: &StateKey, increment: Increment) -> Result<IncrementOutcome> {
        self.layer.around(&write(Operation::Increment, key), || self.inner.increment(key, increment)).await
    }

    async fn rate_limit(&self, key: &StateKey, request: &RateLimit) -> Result<Decision> {
        let call = call(Operation::RateLimit, Keys::One(key), repeat_rate_limit(request));
        self.layer.around(&call, || self.inner.rate_limit(key, request)).await
    }

    async fn batch(&self, ops: &[BatchOp]) -> Result<Vec<Result<BatchReply>>> {
        let call = call(Operation::Batch, Keys::Batch(ops), repeat_batch(ops));
        self.layer.around(&call, || self.inner.batch(ops)).await
    }

    async fn transact(&self, ops: &[TransactOp]) -> Result<TransactOutcome> {
        let call = call(Operation::Transact, Keys::Transact(ops), Repeat::UnlessUnknown);
        self.layer.around(&call, || self.inner.transact(ops)).await
    }

    async fn admit(&self, gates: &[Gate]) -> Result<Vec<Result<GateReply>>> {
        let call = call(Operation::Admit, Keys::Gates(gates), repeat_gates(gates));
        self.layer.around(&call, || self.inner.admit(gates)).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Page<ScanItem>> {
        self.layer.around(&read(Operation::Scan, Keys::Scope(&scan.scope)), || self.inner.scan(scan)).await
    }

    async fn schedule(&self, queue: &StateKey, schedule: &Schedule) -> Result<Scheduled> {
        self.layer.around(&write(Operation::Schedule, queue), || self.inner.schedule(queue, schedule)).await
    }

    async fn cancel(&self, queue: &StateKey, id: &str) -> Result<bool> {
        self.layer.around(&write(Operation::Cancel, queue), || self.inner.cancel(queue, id)).await
    }

    async fn claim_due(&self, queue: &StateKey, claim: ClaimDue) -> Result<Claimed> {
        self.layer.around(&write(Operation::ClaimDue, queue), || self.inner.claim_due(queue, claim)).await
    }

    async fn ack(&self, queue: &StateKey, id: &str, token: ClaimToken) -> Result<ClaimOutcome> {
        let call = call(Operation::Ack, Keys::One(queue), Repeat::Freely);
        self.layer.around(&call, || self.inner.ack(queue, id, token)).await
    }

    async fn extend_claim(
        &self,
        queue: &StateKey,
        id: &str,
        token: ClaimToken,
        visibility: Duration,
    ) -> Result<ClaimOutcome> {
        let call = call(Operation::ExtendClaim, Keys::One(queue), Repeat::Freely);
        self.layer.around(&call, || self.inner.extend_claim(queue, id, token, visibility)).await
    }

    async fn lock_acquire(&self, request: &LockRequest) -> Result<LockOutcome> {
        let call = Call { wait: request.wait, ..call(Operation::LockAcquire, Keys::One(&request.key), Repeat::Freely) };
        self.layer.around(&call, || self.inner.lock_acquire(request)).await
    }

    async fn lock_extend(&self, key: &StateKey, owner: OwnerId, lease: Duration) -> Result<ExtendOutcome> {
        let call = call(Operation::LockExtend, Keys::One(key), Repeat::Freely);
        self.layer.around(&call, || self.inner.lock_extend(key, owner, lease)).await
    }

    async fn lock_release(&self, key: &StateKey, owner: OwnerId) -> Result<ReleaseOutcome> {
        let call = call(Operation::LockRelease, Keys::One(key), Repeat::Freely);
        self.layer.around(&call, || self.inner.lock_release(key, owner)).await
    }

    async fn lock_inspect(&self, key: &StateKey) -> Result<Option<LockState>> {
        self.layer.around(&read(Operation::LockInspect, Keys::One(key)), || self.inner.lock_inspect(key)).await
    }

    async fn lock_force_release(&self, key: &StateKey, reason: &str) -> Result<usize> {
        let call = write(Operation::LockForceRelease, key);
        self.layer.around(&call, || self.inner.lock_force_release(key, reason)).await
    }

    async fn lock_list(&self, scan: &Scan) -> Result<Page<LockState>> {
        self.layer.around(&read(Operation::LockList, Keys::Scope(&scan.scope)), || self.inner.lock_list(scan)).await
    }

    async fn close(&self) -> Result<()> {
        self.layer.around(&read(Operation::Close, Keys::None), || self.inner.close()).await
    }
}
