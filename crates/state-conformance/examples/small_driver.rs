//! A complete driver in one file: values in a map, compare-and-swap, nothing else. And how the kit is run on it:
//!
//! ```text
//! cargo run -p acteon-state-conformance --example small_driver
//! cargo run -p acteon-state-conformance --example small_driver -- v4_     # one family
//! ```
//!
//! What it does not declare it refuses, and the kit checks that it does.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use acteon_state_conformance::Factory;
use acteon_state_core::{
    BatchOp, BatchReply, Capabilities, ClaimDue, ClaimOutcome, ClaimToken, Claimed, Condition, Decision, DeleteOutcome,
    Entry, Error, ErrorKind, ExtendOutcome, Gate, GateReply, Get, Increment, IncrementOutcome, LockClock, LockOutcome,
    LockRequest, LockSemantics, LockState, Operation, OwnerId, Page, Put, PutOutcome, RateLimit, ReleaseOutcome,
    Result, Scan, ScanItem, Schedule, Scheduled, StateKey, StateStore, Survival, TransactOp, TransactOutcome, Ttl,
    Version, Waiting, many,
};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

const BACKEND: &str = "small";

/// One value.
#[derive(Clone, Debug)]
struct Stored {
    value: Bytes,
    version: Version,
    expires_at: Option<Instant>,
}

/// What the handles of one prefix share. The lock is held for one operation, which makes each of them one atomic step.
type Data = Arc<Mutex<HashMap<StateKey, Stored>>>;

/// One handle.
#[derive(Debug)]
struct SmallStore {
    data: Data,
    capabilities: Capabilities,
    is_closed: AtomicBool,
}

impl SmallStore {
    fn new(data: Data) -> Self {
        let capabilities = Capabilities { cas: true, value_bytes_max: 1 << 20, ..Capabilities::none() };
        Self { data, capabilities, is_closed: AtomicBool::new(false) }
    }

    /// Runs one operation on the live entry of a key, and says where an error came from.
    fn step<R>(
        &self,
        operation: Operation,
        key: &StateKey,
        step: impl FnOnce(&mut Option<Stored>, Instant) -> Result<R>,
    ) -> Result<R> {
        self.open()
            .and_then(|()| {
                let now = Instant::now();
                let mut data = self.data.lock();
                let mut slot = data.remove(key).filter(|stored| stored.expires_at.is_none_or(|at| at > now));
                let result = step(&mut slot, now);
                if let Some(stored) = slot {
                    data.insert(key.clone(), stored);
                }
                result
            })
            .map_err(|error| located(error, operation))
    }

    fn open(&self) -> Result<()> {
        if self.is_closed.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Closed, "the store was closed"));
        }
        Ok(())
    }
}

fn located(error: Error, operation: Operation) -> Error {
    error.in_operation(operation.as_str()).on_backend(BACKEND)
}

fn missing<T>(operation: Operation, capability: &'static str) -> Result<T> {
    Err(located(Error::unsupported(capability), operation))
}

fn entry(stored: &Stored, with_ttl: bool, now: Instant) -> Entry {
    let ttl = stored.expires_at.filter(|_| with_ttl).map(|at| at - now);
    Entry { value: stored.value.clone(), version: Some(stored.version), fence: None, ttl }
}

fn holds(condition: Condition, stored: Option<&Stored>) -> bool {
    match condition {
        Condition::Always | Condition::Fence(_) => true,
        Condition::Absent => stored.is_none(),
        Condition::Present => stored.is_some(),
        Condition::Version(version) => stored.is_some_and(|stored| stored.version == version),
    }
}

fn expiry(ttl: Ttl, before: Option<Instant>, now: Instant) -> Result<Option<Instant>> {
    let after = ttl.after_ms()?.map(|ms| now + Duration::from_millis(ms));
    Ok(if ttl == Ttl::Keep { before } else { after })
}

#[async_trait]
impl StateStore for SmallStore {
    fn backend(&self) -> &str {
        BACKEND
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn lock_semantics(&self) -> LockSemantics {
        LockSemantics {
            topology: "small, without locks".to_owned(),
            clock: LockClock::Monotonic,
            tokens_rise_across: "nothing".to_owned(),
            survives_server_crash: Survival::No,
            survives_failover: Survival::NotApplicable,
            waiting: Waiting::Backoff,
            fit_for: "nothing".to_owned(),
            notes: Vec::new(),
        }
    }

    async fn ping(&self) -> Result<()> {
        self.open().map_err(|error| located(error, Operation::Ping))
    }

    async fn get(&self, key: &StateKey, get: Get) -> Result<Option<Entry>> {
        self.step(Operation::Get, key, |slot, now| Ok(slot.as_ref().map(|stored| entry(stored, get.with_ttl, now))))
    }

    async fn put(&self, key: &StateKey, put: &Put) -> Result<PutOutcome> {
        self.step(Operation::Put, key, |slot, now| {
            put.check(&self.capabilities)?;
            let is_repetition = slot.as_ref().is_some_and(|stored| stored.version == put.version);
            if !is_repetition && !holds(put.condition, slot.as_ref()) {
                return Ok(PutOutcome::NotMet(slot.as_ref().map(|stored| entry(stored, false, now))));
            }
            let before = slot.as_ref().and_then(|stored| stored.expires_at);
            let expires_at = expiry(put.ttl, before, now)?;
            *slot = Some(Stored { value: put.value.clone(), version: put.version, expires_at });
            Ok(PutOutcome::Applied(put.version))
        })
    }

    async fn delete(&self, key: &StateKey, condition: Condition) -> Result<DeleteOutcome> {
        self.step(Operation::Delete, key, |slot, now| {
            condition.check(&self.capabilities)?;
            if condition == Condition::Absent {
                return Err(Error::invalid("a delete cannot require that there is nothing to delete"));
            }
            Ok(match slot.take() {
                None => DeleteOutcome::Absent,
                Some(stored) if holds(condition, Some(&stored)) => DeleteOutcome::Deleted,
                Some(stored) => {
                    let current = entry(&stored, false, now);
                    *slot = Some(stored);
                    DeleteOutcome::NotMet(current)
                }
            })
        })
    }

    async fn take(&self, key: &StateKey) -> Result<Option<Entry>> {
        self.step(Operation::Take, key, |slot, now| Ok(slot.take().map(|stored| entry(&stored, false, now))))
    }

    async fn touch(&self, key: &StateKey, ttl: Ttl) -> Result<bool> {
        self.step(Operation::Touch, key, |slot, now| {
            let after = expiry(ttl, slot.as_ref().and_then(|stored| stored.expires_at), now)?;
            Ok(slot.as_mut().map(|stored| stored.expires_at = after).is_some())
        })
    }

    async fn batch(&self, ops: &[BatchOp]) -> Result<Vec<Result<BatchReply>>> {
        let checked = self.open().and_then(|()| many::check_batch(ops));
        checked.map_err(|error| located(error, Operation::Batch))?;
        let mut replies = Vec::with_capacity(ops.len());
        for op in ops {
            replies.push(match op {
                BatchOp::Get(key, get) => self.get(key, *get).await.map(BatchReply::Got),
                BatchOp::Put(key, put) => self.put(key, put).await.map(BatchReply::Put),
                BatchOp::Delete(key, condition) => self.delete(key, *condition).await.map(BatchReply::Deleted),
                BatchOp::Take(key) => self.take(key).await.map(BatchReply::Taken),
                BatchOp::Increment(key, step) => self.increment(key, *step).await.map(BatchReply::Incremented),
            });
        }
        Ok(replies)
    }

    async fn increment(&self, _: &StateKey, _: Increment) -> Result<IncrementOutcome> {
        missing(Operation::Increment, "counters")
    }

    async fn rate_limit(&self, _: &StateKey, _: &RateLimit) -> Result<Decision> {
        missing(Operation::RateLimit, "rate_limits")
    }

    async fn transact(&self, _: &[TransactOp]) -> Result<TransactOutcome> {
        missing(Operation::Transact, "transact")
    }

    async fn admit(&self, _: &[Gate]) -> Result<Vec<Result<GateReply>>> {
        missing(Operation::Admit, "gates")
    }

    async fn scan(&self, _: &Scan) -> Result<Page<ScanItem>> {
        missing(Operation::Scan, "scan")
    }

    async fn schedule(&self, _: &StateKey, _: &Schedule) -> Result<Scheduled> {
        missing(Operation::Schedule, "due")
    }

    async fn cancel(&self, _: &StateKey, _: &str) -> Result<bool> {
        missing(Operation::Cancel, "due")
    }

    async fn claim_due(&self, _: &StateKey, _: ClaimDue) -> Result<Claimed> {
        missing(Operation::ClaimDue, "due")
    }

    async fn ack(&self, _: &StateKey, _: &str, _: ClaimToken) -> Result<ClaimOutcome> {
        missing(Operation::Ack, "due")
    }

    async fn extend_claim(&self, _: &StateKey, _: &str, _: ClaimToken, _: Duration) -> Result<ClaimOutcome> {
        missing(Operation::ExtendClaim, "due")
    }

    async fn lock_acquire(&self, _: &LockRequest) -> Result<LockOutcome> {
        missing(Operation::LockAcquire, "locks")
    }

    async fn lock_extend(&self, _: &StateKey, _: OwnerId, _: Duration) -> Result<ExtendOutcome> {
        missing(Operation::LockExtend, "locks")
    }

    async fn lock_release(&self, _: &StateKey, _: OwnerId) -> Result<ReleaseOutcome> {
        missing(Operation::LockRelease, "locks")
    }

    async fn lock_inspect(&self, _: &StateKey) -> Result<Option<LockState>> {
        missing(Operation::LockInspect, "locks")
    }

    async fn lock_force_release(&self, _: &StateKey, _: &str) -> Result<usize> {
        missing(Operation::LockForceRelease, "locks")
    }

    async fn lock_list(&self, _: &Scan) -> Result<Page<LockState>> {
        missing(Operation::LockList, "locks")
    }

    async fn close(&self) -> Result<()> {
        self.is_closed.store(true, Ordering::SeqCst);
        Ok(())
    }
}

/// The data of each prefix that is open.
#[derive(Debug, Default)]
struct Small(Mutex<HashMap<String, Data>>);

#[async_trait]
impl Factory for Small {
    async fn open(&self, prefix: &str) -> Result<Arc<dyn StateStore>> {
        Ok(Arc::new(SmallStore::new(self.0.lock().entry(prefix.to_owned()).or_default().clone())))
    }

    async fn clean(&self, prefix: &str) -> Result<()> {
        self.0.lock().remove(prefix);
        Ok(())
    }
}

pub(crate) fn main() -> ExitCode {
    acteon_state_conformance::main(Small::default())
}
