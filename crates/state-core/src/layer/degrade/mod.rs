//! Goes on without the backend, for the kinds of keys where that is better than to fail.
//!
//! | policy | reads of values | writes, counters, limits |
//! |---|---|---|
//! | `closed` | fail | fail |
//! | `open` | fail, and the application goes on as if nothing stood against it | the same |
//! | `stale` | the value that this process saw last, within [`Bounds`]; those of others fail | fail |
//! | `local` | from a store in this process, empty when the outage begins | into that store |
//!
//! # Guarantees
//! The backend is asked first, always: nothing here is served while it answers. Locks, writes that a lock fences, transactions,
//! listings and due times fail whatever the policy: half of an answer, or one of this process alone, is none there.
//!
//! `stale` and `local` answer with less than the backend knows, and an answer does not show it: the metrics and the log do, and
//! the operator has chosen it for the kind. With `local`, each process has its own truth. What was written during an outage
//! is gone when it ends, and never merged. A call that aims at what the backend holds (a compare-and-swap, a deletion or a
//! take of an entry that was not written during the outage) fails.
//!
//! # Failure
//! Only `Unavailable`, `Timeout` and `Failover` are degraded. Everything else is an answer. What could not be served otherwise
//! fails with the backend's own error. A write of unknown effect may be made at the backend and by the stand-in.
//!
//! # Cost
//! While the backend answers: one atomic read per call; for `stale` kinds a copy of each value that is read or written.
//!
//! Right order: outside of the deadline, the breaker and retry, which decide that there is no answer; inside of metrics and
//! tracing, which see what the application sees. Outside of the breaker each call waits for a timeout before it is degraded.

mod last_seen;
mod outage;
mod policy;
mod stand_in;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;

use crate::capabilities::Capabilities;
use crate::counter::{Increment, IncrementOutcome};
use crate::due::{ClaimDue, ClaimOutcome, ClaimToken, Claimed, Schedule, Scheduled};
use crate::entry::{Entry, Get, Ttl};
use crate::error::{Effect, Error, Result};
use crate::gate::{Gate, GateReply};
use crate::key::StateKey;
use crate::layer::metrics::StoreMetrics;
use crate::lock::guard::release_in_background;
use crate::lock::request::{ExtendOutcome, LockOutcome, LockRequest, LockState, OwnerId, ReleaseOutcome};
use crate::lock::semantics::LockSemantics;
use crate::many::{BatchOp, BatchReply, TransactOp, TransactOutcome};
use crate::rate::{Decision, RateLimit};
use crate::scan::{Page, Scan, ScanItem};
use crate::store::StateStore;
use crate::write::{Condition, DeleteOutcome, Put, PutOutcome};

pub use last_seen::Bounds;
use last_seen::LastSeen;
pub use outage::CALM;
use outage::{Outage, is_outage};
pub use policy::{Degradation, Policies};
pub use stand_in::MakeStandIn;
use stand_in::{StandIn, accepted, held_delete, held_put, may_stand_in};

/// The options of the layer.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to do, by kind of key.
    pub policies: Policies,
    /// How much is kept for `stale`.
    pub last_seen: Bounds,
    /// What stands in for `local`. Without it such kinds fail closed.
    pub stand_in: Option<MakeStandIn>,
}

/// See the module.
#[derive(Debug)]
pub struct Degrade {
    inner: Arc<dyn StateStore>,
    policies: Policies,
    outage: Outage,
    last_seen: Option<LastSeen>,
    stand_in: Option<StandIn>,
    metrics: Option<Arc<StoreMetrics>>,
    backend: Arc<str>,
}

impl Degrade {
    /// Wraps `inner`; degraded calls are counted in `metrics`.
    #[must_use]
    pub fn new(inner: Arc<dyn StateStore>, options: Options, metrics: Option<Arc<StoreMetrics>>) -> Self {
        let Options { policies, last_seen, stand_in } = options;
        let (outage, backend) = (Outage::new(inner.backend()), inner.backend().into());
        Self {
            outage,
            backend,
            last_seen: policies.has(Degradation::Stale).then(|| LastSeen::new(last_seen)),
            stand_in: stand_in.filter(|_| policies.has(Degradation::Local)).map(StandIn::new),
            policies,
            inner,
            metrics,
        }
    }

    /// The error of a call that nobody answered; otherwise the result is what the call returns.
    fn judge<T>(&self, result: Result<T>) -> Result<Result<T>, Error> {
        match result {
            Ok(reply) => {
                self.answered();
                Ok(Ok(reply))
            }
            Err(error) if is_outage(&error) => {
                self.outage.failed(&error);
                Err(error)
            }
            Err(error) => Ok(Err(error)),
        }
    }

    fn answered(&self) {
        if self.outage.answered()
            && let Some(stand_in) = &self.stand_in
        {
            stand_in.clear();
        }
    }

    fn count(&self, kind: &Arc<str>, treated: Degradation) {
        self.outage.count(treated);
        if let Some(metrics) = &self.metrics {
            metrics.degraded(&self.backend, kind, treated.as_str());
        }
    }

    /// A call that is never degraded.
    fn pass<T>(&self, kind: &str, result: Result<T>) -> Result<T> {
        let result = self.judge(result);
        if result.is_err() {
            self.count(self.policies.of_kind(kind).1, Degradation::Closed);
        }
        result.unwrap_or_else(Err)
    }

    /// The same, about one key.
    fn pass_key<T>(&self, key: &StateKey, result: Result<T>) -> Result<T> {
        self.pass(&key.parts()[2], result)
    }

    /// What was seen of a key that may be served stale.
    fn see(&self, key: &StateKey, look: impl FnOnce(&LastSeen)) {
        if let Some(last_seen) = &self.last_seen
            && self.policies.of(key).0 == Degradation::Stale
        {
            look(last_seen);
        }
    }

    /// What stands in for the backend, for this key.
    fn local(&self, key: &StateKey) -> Option<Arc<dyn StateStore>> {
        let stand_in = self.stand_in.as_ref()?;
        if self.policies.of(key).0 == Degradation::Local { stand_in.store() } else { None }
    }

    /// The reply of the stand-in, if it has one, or else the backend's error.
    fn settle<T>(&self, key: &StateKey, error: Error, local: Option<Result<Option<T>>>) -> Result<T> {
        let (policy, kind) = self.policies.of(key);
        if let Some(reply) = local.and_then(accepted) {
            self.count(kind, Degradation::Local);
            return reply;
        }
        let treated = if policy == Degradation::Open { Degradation::Open } else { Degradation::Closed };
        self.count(kind, treated);
        Err(error)
    }
}

/// Calls that nobody answered.
impl Degrade {
    async fn get_without(&self, key: &StateKey, get: Get, error: Error) -> Result<Option<Entry>> {
        if let Some(last_seen) = &self.last_seen
            && let (Degradation::Stale, kind) = self.policies.of(key)
            && let Some(entry) = last_seen.recall(key, get)
        {
            self.count(kind, Degradation::Stale);
            return Ok(Some(entry));
        }
        let local = match self.local(key) {
            Some(local) => Some(local.get(key, get).await.map(Some)),
            None => None,
        };
        self.settle(key, error, local)
    }

    async fn put_without(&self, key: &StateKey, put: &Put, error: Error) -> Result<PutOutcome> {
        // A write-if-absent that was applied found nothing, so it did not change what we know.
        if error.effect() == Effect::Unknown && put.condition != Condition::Absent {
            self.see(key, |seen| seen.forget(key));
        }
        let local = match may_stand_in(put.condition).then(|| self.local(key)).flatten() {
            Some(local) => Some(local.put(key, put).await.map(|outcome| held_put(put.condition, outcome))),
            None => None,
        };
        self.settle(key, error, local)
    }

    async fn delete_without(&self, key: &StateKey, condition: Condition, error: Error) -> Result<DeleteOutcome> {
        self.forget_unless_unchanged(key, &error);
        let local = match may_stand_in(condition).then(|| self.local(key)).flatten() {
            Some(local) => Some(local.delete(key, condition).await.map(held_delete)),
            None => None,
        };
        self.settle(key, error, local)
    }

    async fn take_without(&self, key: &StateKey, error: Error) -> Result<Option<Entry>> {
        self.forget_unless_unchanged(key, &error);
        let local = match self.local(key) {
            Some(local) => Some(local.take(key).await.map(|taken| taken.map(Some))),
            None => None,
        };
        self.settle(key, error, local)
    }

    async fn touch_without(&self, key: &StateKey, ttl: Ttl, error: Error) -> Result<bool> {
        self.forget_unless_unchanged(key, &error);
        let local = match self.local(key) {
            Some(local) => Some(local.touch(key, ttl).await.map(|there| there.then_some(true))),
            None => None,
        };
        self.settle(key, error, local)
    }

    async fn increment_without(&self, key: &StateKey, by: Increment, error: Error) -> Result<IncrementOutcome> {
        self.forget_unless_unchanged(key, &error);
        let local = match self.local(key) {
            Some(local) => Some(local.increment(key, by).await.map(Some)),
            None => None,
        };
        self.settle(key, error, local)
    }

    async fn rate_limit_without(&self, key: &StateKey, request: &RateLimit, error: Error) -> Result<Decision> {
        let local = match self.local(key) {
            Some(local) => Some(local.rate_limit(key, request).await.map(Some)),
            None => None,
        };
        self.settle(key, error, local)
    }

    async fn batch_op_without(&self, op: &BatchOp, error: Error) -> Result<BatchReply> {
        match op {
            BatchOp::Get(key, get) => self.get_without(key, *get, error).await.map(BatchReply::Got),
            BatchOp::Put(key, put) => self.put_without(key, put, error).await.map(BatchReply::Put),
            BatchOp::Delete(key, condition) => {
                self.delete_without(key, *condition, error).await.map(BatchReply::Deleted)
            }
            BatchOp::Take(key) => self.take_without(key, error).await.map(BatchReply::Taken),
            BatchOp::Increment(key, by) => self.increment_without(key, *by, error).await.map(BatchReply::Incremented),
        }
    }

    /// A batch without any answer: an error as a whole, unless some of its items can be served.
    async fn batch_without(&self, ops: &[BatchOp], error: Error) -> Result<Vec<Result<BatchReply>>> {
        let mut items = Vec::with_capacity(ops.len());
        for op in ops {
            items.push(self.batch_op_without(op, of_item(&error, op)).await);
        }
        if items.iter().all(Result::is_err) { Err(error) } else { Ok(items) }
    }

    /// Gates without any answer. Only the first is served: the caller asks the others by themselves, so the backend comes first
    /// again.
    async fn gates_without(&self, gates: &[Gate], error: Error) -> Result<Vec<Result<GateReply>>> {
        let Some((first, others)) = gates.split_first() else { return Err(error) };
        let may_be_passed = error.effect() == Effect::Unknown;
        let reply = self.gate_without(first, error).await?;
        if may_be_passed {
            for gate in others {
                match gate {
                    Gate::Put(key, _) => self.see(key, |seen| seen.forget(key)),
                    Gate::RateLimit(..) => {}
                    // The error would tell the caller to release it.
                    Gate::Lock(LockRequest { key, owner, .. }) => {
                        release_in_background(&Handle::current(), self.inner.clone(), key.clone(), *owner);
                    }
                }
            }
        }
        Ok(vec![Ok(reply)])
    }

    async fn gate_without(&self, gate: &Gate, error: Error) -> Result<GateReply> {
        match gate {
            Gate::Put(key, put) => self.put_without(key, put, error).await.map(GateReply::Put),
            Gate::RateLimit(key, request) => {
                self.rate_limit_without(key, request, error).await.map(GateReply::RateLimit)
            }
            Gate::Lock(request) => {
                self.count(self.policies.of(&request.key).1, Degradation::Closed);
                Err(error)
            }
        }
    }

    fn forget_unless_unchanged(&self, key: &StateKey, error: &Error) {
        if error.effect() == Effect::Unknown {
            self.see(key, |seen| seen.forget(key));
        }
    }
}

/// What answers tell of the values of `stale` kinds.
impl Degrade {
    fn saw_put(&self, key: &StateKey, put: &Put, outcome: &PutOutcome) {
        self.see(key, |seen| match outcome {
            PutOutcome::Applied(_) => seen.written(key, put),
            PutOutcome::NotMet(current) => seen.read(key, current.as_ref()),
        });
    }

    fn saw_delete(&self, key: &StateKey, outcome: &DeleteOutcome) {
        self.see(key, |seen| match outcome {
            DeleteOutcome::Deleted | DeleteOutcome::Absent => seen.forget(key),
            DeleteOutcome::NotMet(entry) => seen.read(key, Some(entry)),
        });
    }

    fn saw_batch_op(&self, op: &BatchOp, reply: &BatchReply) {
        match (op, reply) {
            (BatchOp::Get(_, get), BatchReply::Got(_)) if get.stale_ok => {}
            (BatchOp::Get(key, _), BatchReply::Got(entry)) => self.see(key, |seen| seen.read(key, entry.as_ref())),
            (BatchOp::Put(key, put), BatchReply::Put(outcome)) => self.saw_put(key, put, outcome),
            (BatchOp::Delete(key, _), BatchReply::Deleted(outcome)) => self.saw_delete(key, outcome),
            (op, _) => self.see(op.key(), |seen| seen.forget(op.key())),
        }
    }

    fn saw_gate(&self, gate: &Gate, reply: &GateReply) {
        if let (Gate::Put(key, put), GateReply::Put(outcome)) = (gate, reply) {
            self.saw_put(key, put, outcome);
        }
    }

    fn changed<T>(&self, key: &StateKey, result: &Result<T>) {
        if result.is_ok() {
            self.see(key, |seen| seen.forget(key));
        }
    }
}

/// The error of a batch as that of one of its items.
fn of_item(error: &Error, op: &BatchOp) -> Error {
    let effect = if matches!(op, BatchOp::Get(..)) { Effect::NotApplied } else { error.effect() };
    let copy = Error::new(error.kind(), error.message().to_owned()).with_effect(effect).with_key(op.key());
    let copy = copy.in_operation(error.operation().unwrap_or("batch"));
    match error.backend() {
        Some(backend) => copy.on_backend(backend.to_owned()),
        None => copy,
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl StateStore for Degrade {
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
        // Not counted: a probe is no call of anybody's work.
        self.judge(self.inner.ping().await).unwrap_or_else(Err)
    }

    async fn get(&self, key: &StateKey, get: Get) -> Result<Option<Entry>> {
        match self.judge(self.inner.get(key, get).await) {
            Ok(result) => {
                // What a replica had some moments ago may be older than what was seen already, and a deletion would be undone.
                if let (Ok(entry), false) = (&result, get.stale_ok) {
                    self.see(key, |seen| seen.read(key, entry.as_ref()));
                }
                result
            }
            Err(error) => self.get_without(key, get, error).await,
        }
    }

    async fn put(&self, key: &StateKey, put: &Put) -> Result<PutOutcome> {
        match self.judge(self.inner.put(key, put).await) {
            Ok(result) => result.inspect(|outcome| self.saw_put(key, put, outcome)),
            Err(error) => self.put_without(key, put, error).await,
        }
    }

    async fn delete(&self, key: &StateKey, condition: Condition) -> Result<DeleteOutcome> {
        match self.judge(self.inner.delete(key, condition).await) {
            Ok(result) => result.inspect(|outcome| self.saw_delete(key, outcome)),
            Err(error) => self.delete_without(key, condition, error).await,
        }
    }

    async fn take(&self, key: &StateKey) -> Result<Option<Entry>> {
        let result = self.inner.take(key).await;
        self.changed(key, &result);
        match self.judge(result) {
            Ok(result) => result,
            Err(error) => self.take_without(key, error).await,
        }
    }

    async fn touch(&self, key: &StateKey, ttl: Ttl) -> Result<bool> {
        let result = self.inner.touch(key, ttl).await;
        self.changed(key, &result);
        match self.judge(result) {
            Ok(result) => result,
            Err(error) => self.touch_without(key, ttl, error).await,
        }
    }

    async fn increment(&self, key: &StateKey, increment: Increment) -> Result<IncrementOutcome> {
        let result = self.inner.increment(key, increment).await;
        self.changed(key, &result);
        match self.judge(result) {
            Ok(result) => result,
            Err(error) => self.increment_without(key, increment, error).await,
        }
    }

    async fn rate_limit(&self, key: &StateKey, request: &RateLimit) -> Result<Decision> {
        match self.judge(self.inner.rate_limit(key, request).await) {
            Ok(result) => result,
            Err(error) => self.rate_limit_without(key, request, error).await,
        }
    }

    async fn batch(&self, ops: &[BatchOp]) -> Result<Vec<Result<BatchReply>>> {
        let items = match self.inner.batch(ops).await {
            Ok(items) => items,
            Err(error) => {
                return match self.judge::<()>(Err(error)) {
                    Ok(refused) => refused.map(|()| Vec::new()),
                    Err(error) => self.batch_without(ops, error).await,
                };
            }
        };
        let mut served = Vec::with_capacity(items.len());
        for (op, item) in ops.iter().zip(items) {
            served.push(match self.judge(item) {
                Ok(result) => result.inspect(|reply| self.saw_batch_op(op, reply)),
                Err(error) => self.batch_op_without(op, error).await,
            });
        }
        Ok(served)
    }

    async fn transact(&self, ops: &[TransactOp]) -> Result<TransactOutcome> {
        let result = self.inner.transact(ops).await;
        let may_have_changed = match &result {
            Ok(outcome) => *outcome == TransactOutcome::Committed,
            Err(error) => error.effect() == Effect::Unknown,
        };
        if may_have_changed {
            ops.iter().for_each(|op| self.see(op.key(), |seen| seen.forget(op.key())));
        }
        match ops.first() {
            Some(op) => self.pass_key(op.key(), result),
            None => result,
        }
    }

    async fn admit(&self, gates: &[Gate]) -> Result<Vec<Result<GateReply>>> {
        let replies = match self.judge(self.inner.admit(gates).await) {
            Ok(result) => result?,
            Err(error) => return self.gates_without(gates, error).await,
        };
        let mut served = Vec::with_capacity(replies.len());
        for (gate, reply) in gates.iter().zip(replies) {
            served.push(match self.judge(reply) {
                Ok(result) => result.inspect(|reply| self.saw_gate(gate, reply)),
                Err(error) => self.gate_without(gate, error).await,
            });
        }
        Ok(served)
    }

    async fn scan(&self, scan: &Scan) -> Result<Page<ScanItem>> {
        self.pass(&scan.scope.kind(), self.inner.scan(scan).await)
    }

    async fn schedule(&self, queue: &StateKey, schedule: &Schedule) -> Result<Scheduled> {
        self.pass_key(queue, self.inner.schedule(queue, schedule).await)
    }

    async fn cancel(&self, queue: &StateKey, id: &str) -> Result<bool> {
        self.pass_key(queue, self.inner.cancel(queue, id).await)
    }

    async fn claim_due(&self, queue: &StateKey, claim: ClaimDue) -> Result<Claimed> {
        self.pass_key(queue, self.inner.claim_due(queue, claim).await)
    }

    async fn ack(&self, queue: &StateKey, id: &str, token: ClaimToken) -> Result<ClaimOutcome> {
        self.pass_key(queue, self.inner.ack(queue, id, token).await)
    }

    async fn extend_claim(
        &self,
        queue: &StateKey,
        id: &str,
        token: ClaimToken,
        visibility: Duration,
    ) -> Result<ClaimOutcome> {
        self.pass_key(queue, self.inner.extend_claim(queue, id, token, visibility).await)
    }

    async fn lock_acquire(&self, request: &LockRequest) -> Result<LockOutcome> {
        self.pass_key(&request.key, self.inner.lock_acquire(request).await)
    }

    async fn lock_extend(&self, key: &StateKey, owner: OwnerId, lease: Duration) -> Result<ExtendOutcome> {
        self.pass_key(key, self.inner.lock_extend(key, owner, lease).await)
    }

    async fn lock_release(&self, key: &StateKey, owner: OwnerId) -> Result<ReleaseOutcome> {
        self.pass_key(key, self.inner.lock_release(key, owner).await)
    }

    async fn lock_inspect(&self, key: &StateKey) -> Result<Option<LockState>> {
        self.pass_key(key, self.inner.lock_inspect(key).await)
    }

    async fn lock_force_release(&self, key: &StateKey, reason: &str) -> Result<usize> {
        self.pass_key(key, self.inner.lock_force_release(key, reason).await)
    }

    async fn lock_list(&self, scan: &Scan) -> Result<Page<LockState>> {
        self.pass(&scan.scope.kind(), self.inner.lock_list(scan).await)
    }

    async fn close(&self) -> Result<()> {
        if let Some(stand_in) = &self.stand_in {
            stand_in.clear();
        }
        self.inner.close().await
    }
}
