//! What a [`MemoryStore`] says of itself, and the contract's trait, each method in one line.

use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::{
    BatchOp, BatchReply, Capabilities, ClaimDue, ClaimOutcome, ClaimToken, Claimed, Condition, Decision, DeleteOutcome,
    Effect, Entry, Error, ErrorKind, ExtendOutcome, Gate, GateReply, Get, Increment, IncrementOutcome, LockClock,
    LockOutcome, LockRequest, LockSemantics, LockState, Operation, OwnerId, Page, Put, PutOutcome, RateLimit,
    ReleaseOutcome, Result, Scan, ScanItem, Schedule, Scheduled, StateKey, StateStore, Survival, TransactLimits,
    TransactOp, TransactOutcome, TransactScope, Ttl, Waiting,
};
use async_trait::async_trait;

use crate::config::Checked;
use crate::keep::KeepFsync;
use crate::lock::{Attempt, Unheard};
use crate::store::{BACKEND, Handle, MemoryStore};
use crate::wait;

/// The most operations in one transaction: it locks all of their keys at once.
const TRANSACT_OPS_MAX: usize = 1_000;

/// What a store of this configuration can do; `evicts`: something goes when memory is short.
pub(crate) fn capabilities(checked: &Checked, evicts: bool) -> Capabilities {
    Capabilities {
        cas: true,
        fencing: true,
        counters: true,
        rate_limits: true,
        transact: Some(TransactLimits { scope: TransactScope::AnyKeys, ops_max: TRANSACT_OPS_MAX }),
        gates: false,
        scan: true,
        ordered_scan: true,
        due: true,
        locks: true,
        shared_locks: true,
        semaphores: true,
        server_clock: true,
        // A value that is evicted is lost without a crash. What is never evicted is as durable as without a policy.
        durable: checked.fsync == Some(KeepFsync::Always) && !evicts,
        shared: false,
        value_bytes_max: checked.value_bytes_max,
    }
}

fn notes(fsync: Option<KeepFsync>, evicts: bool) -> Vec<String> {
    let tokens = if fsync == Some(KeepFsync::Always) {
        "Tokens keep rising across a restart as long as the record of the lock is kept, for `lock_retention` after its last \
         lease, and after that as long as the wall clock is not set back meanwhile."
    } else {
        "Tokens keep rising across a restart as long as the wall clock is not set back meanwhile."
    };
    let eviction = "Whatever the policy of eviction, locks and values under a fence are never evicted.";
    let others = "For a lock that other processes respect, choose a backend that they share.";
    [tokens].into_iter().chain(evicts.then_some(eviction)).chain([others]).map(str::to_owned).collect()
}

#[async_trait]
impl StateStore for MemoryStore {
    fn backend(&self) -> &str {
        BACKEND
    }

    fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    fn lock_semantics(&self) -> LockSemantics {
        let fsync = self.0.fsync;
        LockSemantics {
            topology: match fsync {
                None => "memory, one process".to_owned(),
                Some(fsync) => format!("memory, one process, directory with fsync `{}`", fsync.as_str()),
            },
            clock: LockClock::Monotonic,
            tokens_rise_across: match fsync {
                Some(KeepFsync::Always) => "restart".to_owned(),
                _ => "restart (wall-clock seed)".to_owned(),
            },
            survives_server_crash: fsync.map_or(Survival::No, KeepFsync::survival),
            survives_failover: Survival::NotApplicable,
            waiting: Waiting::FifoHandOff,
            fit_for: "correctness inside one process".to_owned(),
            notes: notes(fsync, self.0.evicts),
        }
    }

    async fn ping(&self) -> Result<()> {
        self.run(Operation::Ping, |_, _| Ok(())).await
    }

    async fn get(&self, key: &StateKey, get: Get) -> Result<Option<Entry>> {
        self.run(Operation::Get, |handle, now| handle.get(key, get, now)).await
    }

    async fn put(&self, key: &StateKey, put: &Put) -> Result<PutOutcome> {
        self.run(Operation::Put, |handle, now| handle.put(key, put, now)).await
    }

    async fn delete(&self, key: &StateKey, condition: Condition) -> Result<DeleteOutcome> {
        self.run(Operation::Delete, |handle, now| handle.delete(key, condition, now)).await
    }

    async fn take(&self, key: &StateKey) -> Result<Option<Entry>> {
        self.run(Operation::Take, |handle, now| handle.take(key, now)).await
    }

    async fn touch(&self, key: &StateKey, ttl: Ttl) -> Result<bool> {
        self.run(Operation::Touch, |handle, now| handle.touch(key, ttl, now)).await
    }

    async fn increment(&self, key: &StateKey, increment: Increment) -> Result<IncrementOutcome> {
        self.run(Operation::Increment, |handle, now| handle.increment(key, increment, now)).await
    }

    async fn rate_limit(&self, key: &StateKey, request: &RateLimit) -> Result<Decision> {
        self.run(Operation::RateLimit, |handle, now| handle.rate_limit(key, request, now)).await
    }

    async fn batch(&self, ops: &[BatchOp]) -> Result<Vec<Result<BatchReply>>> {
        self.run(Operation::Batch, |handle, now| handle.batch(ops, now)).await
    }

    async fn transact(&self, ops: &[TransactOp]) -> Result<TransactOutcome> {
        self.run(Operation::Transact, |handle, now| handle.transact(ops, now)).await
    }

    async fn admit(&self, _: &[Gate]) -> Result<Vec<Result<GateReply>>> {
        // There are no round trips to save.
        self.run(Operation::Admit, |_, _| Err(Error::unsupported("gates"))).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Page<ScanItem>> {
        self.run(Operation::Scan, |handle, now| handle.scan(scan, now)).await
    }

    async fn schedule(&self, queue: &StateKey, schedule: &Schedule) -> Result<Scheduled> {
        self.run(Operation::Schedule, |handle, now| handle.schedule(queue, schedule, now)).await
    }

    async fn cancel(&self, queue: &StateKey, id: &str) -> Result<bool> {
        self.run(Operation::Cancel, |handle, now| handle.cancel(queue, id, now)).await
    }

    async fn claim_due(&self, queue: &StateKey, claim: ClaimDue) -> Result<Claimed> {
        self.run(Operation::ClaimDue, |handle, now| handle.claim_due(queue, claim, now)).await
    }

    async fn ack(&self, queue: &StateKey, id: &str, token: ClaimToken) -> Result<ClaimOutcome> {
        self.run(Operation::Ack, |handle, now| handle.ack(queue, id, token, now)).await
    }

    async fn extend_claim(
        &self,
        queue: &StateKey,
        id: &str,
        token: ClaimToken,
        visibility: Duration,
    ) -> Result<ClaimOutcome> {
        self.run(Operation::ExtendClaim, |handle, now| handle.extend_claim(queue, id, token, visibility, now)).await
    }

    async fn lock_acquire(&self, request: &LockRequest) -> Result<LockOutcome> {
        let (operation, shared) = (Operation::LockAcquire, &self.0.shared);
        let locate = |error| Handle::locate(error, operation);
        shared.make_way(operation).await.map_err(locate)?;
        let (lease_ms, attempt) = self.run_at_once(operation, |handle, now| {
            let lease_ms = request.check(&handle.capabilities)?;
            Ok((lease_ms, handle.lock_try(request, lease_ms, now)?))
        })?;
        let outcome = match attempt {
            Attempt::Granted(grant) => LockOutcome::Granted(grant),
            Attempt::Busy(_) if !request.wait.is_zero() => {
                wait::wait(&self.0, request, lease_ms).await.map_err(locate)?
            }
            Attempt::Busy(busy) | Attempt::Refused(busy) => LockOutcome::Busy(busy),
        };
        let is_granted = matches!(outcome, LockOutcome::Granted(_));
        if shared.disk.is_some() {
            // Until the owner has heard of it, it is taken back if nobody waits for the answer any more.
            let unheard = is_granted.then(|| Unheard::new(&self.0, request));
            shared.keep(is_granted).await.map_err(locate)?;
            unheard.into_iter().for_each(Unheard::hear);
        }
        Ok(outcome)
    }

    async fn lock_extend(&self, key: &StateKey, owner: OwnerId, lease: Duration) -> Result<ExtendOutcome> {
        self.run(Operation::LockExtend, |handle, now| handle.lock_extend(key, owner, lease, now)).await
    }

    async fn lock_release(&self, key: &StateKey, owner: OwnerId) -> Result<ReleaseOutcome> {
        self.run(Operation::LockRelease, |handle, now| handle.lock_release(key, owner, now)).await
    }

    async fn lock_inspect(&self, key: &StateKey) -> Result<Option<LockState>> {
        self.run(Operation::LockInspect, |handle, now| handle.lock_inspect(key, now)).await
    }

    async fn lock_force_release(&self, key: &StateKey, reason: &str) -> Result<usize> {
        self.run(Operation::LockForceRelease, |handle, now| handle.lock_force_release(key, reason, now)).await
    }

    async fn lock_list(&self, scan: &Scan) -> Result<Page<LockState>> {
        self.run(Operation::LockList, |handle, now| handle.lock_list(scan, now)).await
    }

    async fn close(&self) -> Result<()> {
        let shared = &self.0.shared;
        if !self.0.close() {
            return Ok(());
        }
        shared.lock_call_all_of(&self.0);
        match &shared.disk {
            // The last one writes what is left; nobody can write any more.
            Some(disk) if !shared.is_in_use() => {
                let disk = Arc::clone(disk);
                let closed = tokio::task::spawn_blocking(move || disk.close()).await;
                let closed = closed
                    .map_err(|error| error.to_string())
                    .and_then(|closed| closed.map_err(|error| error.to_string()));
                closed.map_err(|error| Error::new(ErrorKind::NotDurable, error).with_effect(Effect::Unknown))
            }
            _ => Ok(()),
        }
    }
}
