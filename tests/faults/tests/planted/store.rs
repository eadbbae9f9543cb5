//! A store that misbehaves now and then, in one way, from a seed.
//!
//! Most faults are the usual mistake: a condition is checked in one step and acted upon in another, with others in between.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use acteon_faults::Random;
use acteon_state_core::clock::ManualClock;
use acteon_state_core::{
    BatchOp, BatchReply, Capabilities, ClaimDue, ClaimOutcome, ClaimToken, Claimed, Condition, Decision, DeleteOutcome,
    DueItem, Effect, Entry, Error, ErrorKind, ExtendOutcome, Gate, GateReply, Get, Increment, IncrementOutcome,
    LockGrant, LockOutcome, LockRequest, LockSemantics, LockState, OwnerId, Page, Put, PutOutcome, RateLimit,
    ReleaseOutcome, Result, Scan, ScanItem, Schedule, Scheduled, StateKey, StateStore, TransactOp, TransactOutcome,
    Ttl,
};
use async_trait::async_trait;
use parking_lot::Mutex;

/// Calls of a hundred that misbehave, where they can.
const PERCENT: u64 = 20;

/// Answers of a hundred that are lost: dozens for each object, of which each may have been the one that changed it.
const LOST_PERCENT: u64 = 5;

/// Moves of the clock, of a hundred turns of a call: ends of lifetimes come while calls are under way.
const TICK_PERCENT: u64 = 10;
const TICK: Duration = Duration::from_millis(1);

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Compare and swap are two steps.
    SwapInTwoSteps,
    /// A read is answered from an earlier one.
    ReadFromMemory,
    /// Put-if-absent looks first and writes then.
    ClaimInTwoSteps,
    /// An increment is sent again although it was applied.
    Resend,
    /// A token is handed out again.
    TokenAgain,
    /// An entry that is over is returned once more.
    Revive,
    /// Take reads first and deletes then.
    TakeInTwoSteps,
    /// An item is handed out although it is claimed.
    HandOutAgain,
    /// A claim is acknowledged whoever holds it.
    AckAnyway,
    /// A lock is granted whoever holds it.
    GrantAnyway,
    /// A token is not compared.
    WriteAnyway,
    /// A release is answered and not carried out: what a renewal leaves that comes after it.
    ReleaseNothing,
    /// An extension is answered and not carried out.
    ExtendNothing,
    /// Whoever goes away while waiting goes on waiting, and is granted the lock.
    WaitOn,
}

/// Whether answers arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// All of them.
    Arrive,
    /// Some are lost, which is no fault of the store.
    AreLost,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Broken {
    inner: Arc<dyn StateStore>,
    fault: Fault,
    answers: Answers,
    clock: Arc<ManualClock>,
    /// Short updates; never held across an await.
    memory: Mutex<Memory>,
}

/// What the faults are made from.
#[derive(Debug)]
struct Memory {
    random: Random,
    /// What was read last under a key.
    read: HashMap<StateKey, Entry>,
    /// The last grant of a lock.
    granted: HashMap<StateKey, LockGrant>,
    /// The last item that was handed out.
    handed: HashMap<StateKey, DueItem>,
    /// Everybody who was told of a grant.
    owners: HashSet<OwnerId>,
}

impl Broken {
    pub(crate) fn new(
        inner: Arc<dyn StateStore>,
        fault: Fault,
        answers: Answers,
        clock: Arc<ManualClock>,
        seed: u64,
    ) -> Self {
        let (read, granted, handed, owners) = Default::default();
        let memory = Memory { random: Random::new(seed), read, granted, handed, owners };
        Self { inner, fault, answers, clock, memory: Mutex::new(memory) }
    }

    /// Whether this call misbehaves.
    fn strikes(&self, fault: Fault) -> bool {
        self.fault == fault && self.memory.lock().random.percent(PERCENT)
    }

    /// Lets others run, and time pass.
    async fn turn(&self) {
        let turns = self.memory.lock().random.below(4);
        for _ in 0..turns {
            if self.memory.lock().random.percent(TICK_PERCENT) {
                self.clock.advance(TICK);
            }
            tokio::task::yield_now().await;
        }
    }

    /// The time between the two steps of what should be one.
    async fn gap(&self) {
        for _ in 0..4 {
            self.turn().await;
        }
    }

    /// A call takes a while before and after it takes effect.
    async fn slowly<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.turn().await;
        let reply = call.await;
        self.turn().await;
        if self.answers == Answers::AreLost && self.memory.lock().random.percent(LOST_PERCENT) {
            return Err(Error::new(ErrorKind::Timeout, "the answer was lost").with_effect(Effect::Unknown));
        }
        reply
    }

    /// Writes in a second step what the condition allowed in a first one.
    async fn put_in_two_steps(&self, key: &StateKey, put: &Put) -> Result<PutOutcome> {
        let found = self.inner.get(key, Get::default()).await?;
        let holds = match put.condition {
            Condition::Absent => found.is_none(),
            Condition::Version(version) => found.as_ref().and_then(|entry| entry.version) == Some(version),
            _ => true,
        };
        if !holds {
            return Ok(PutOutcome::NotMet(found));
        }
        self.gap().await;
        self.inner.put(key, &put.clone().when(Condition::Always)).await
    }

    async fn take_in_two_steps(&self, key: &StateKey) -> Result<Option<Entry>> {
        let found = self.inner.get(key, Get::default()).await?;
        if let Some(version) = found.as_ref().and_then(|entry| entry.version) {
            self.gap().await;
            // Whether it was still there is not looked at.
            self.inner.delete(key, Condition::Version(version)).await?;
        }
        Ok(found)
    }

    async fn get_with_memory(&self, key: &StateKey, get: Get) -> Result<Option<Entry>> {
        let found = self.inner.get(key, get).await?;
        let before = self.memory.lock().read.get(key).cloned();
        if let Some(before) = before {
            let expires = key.id().starts_with("expiring");
            let revives = found.is_none() && expires && self.strikes(Fault::Revive);
            if revives || !expires && self.strikes(Fault::ReadFromMemory) {
                return Ok(Some(before));
            }
        }
        if let Some(entry) = &found {
            self.memory.lock().read.insert(key.clone(), entry.clone());
        }
        Ok(found)
    }

    async fn claim_with_memory(&self, queue: &StateKey, claim: ClaimDue) -> Result<Claimed> {
        let mut claimed = self.inner.claim_due(queue, claim).await?;
        let before = self.memory.lock().handed.get(queue).cloned();
        if let Some(before) = before.filter(|_| claimed.items.is_empty() && self.strikes(Fault::HandOutAgain)) {
            claimed.items.push(DueItem { token: ClaimToken::draw(), attempt: before.attempt + 1, ..before });
        } else if let Some(item) = claimed.items.last() {
            self.memory.lock().handed.insert(queue.clone(), item.clone());
        }
        Ok(claimed)
    }

    async fn acquire_with_memory(&self, request: &LockRequest) -> Result<LockOutcome> {
        let mut outcome = match self.fault {
            Fault::WaitOn => {
                let (inner, request) = (self.inner.clone(), request.clone());
                tokio::spawn(async move { inner.lock_acquire(&request).await }).await.expect("no panic")?
            }
            // Who waits until the lock is free is never refused.
            Fault::GrantAnyway => {
                self.inner.lock_acquire(&LockRequest { wait: Duration::ZERO, ..request.clone() }).await?
            }
            _ => self.inner.lock_acquire(request).await?,
        };
        if matches!(outcome, LockOutcome::Granted(_)) {
            self.memory.lock().owners.insert(request.owner);
        }
        if matches!(outcome, LockOutcome::Busy(_)) && self.strikes(Fault::GrantAnyway) {
            self.inner.lock_force_release(&request.key, "broken on purpose").await?;
            outcome = self.inner.lock_acquire(request).await?;
        }
        if let LockOutcome::Granted(grant) = outcome {
            let before = self.memory.lock().granted.insert(request.key.clone(), grant);
            if let Some(before) = before.filter(|_| self.strikes(Fault::TokenAgain)) {
                return Ok(LockOutcome::Granted(LockGrant { token: before.token, ..grant }));
            }
        }
        Ok(outcome)
    }
}

#[async_trait]
impl StateStore for Broken {
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
        self.inner.ping().await
    }

    async fn get(&self, key: &StateKey, get: Get) -> Result<Option<Entry>> {
        self.slowly(self.get_with_memory(key, get)).await
    }

    async fn put(&self, key: &StateKey, put: &Put) -> Result<PutOutcome> {
        let fault = match put.condition {
            Condition::Absent => Fault::ClaimInTwoSteps,
            Condition::Version(_) => Fault::SwapInTwoSteps,
            Condition::Fence(_) => Fault::WriteAnyway,
            _ => return self.slowly(self.inner.put(key, put)).await,
        };
        if self.strikes(fault) {
            return self.slowly(self.put_in_two_steps(key, put)).await;
        }
        self.slowly(self.inner.put(key, put)).await
    }

    async fn delete(&self, key: &StateKey, condition: Condition) -> Result<DeleteOutcome> {
        self.slowly(self.inner.delete(key, condition)).await
    }

    async fn take(&self, key: &StateKey) -> Result<Option<Entry>> {
        if self.strikes(Fault::TakeInTwoSteps) {
            return self.slowly(self.take_in_two_steps(key)).await;
        }
        self.slowly(self.inner.take(key)).await
    }

    async fn touch(&self, key: &StateKey, ttl: Ttl) -> Result<bool> {
        self.slowly(self.inner.touch(key, ttl)).await
    }

    async fn increment(&self, key: &StateKey, increment: Increment) -> Result<IncrementOutcome> {
        if self.strikes(Fault::Resend) {
            self.slowly(self.inner.increment(key, increment)).await?;
        }
        self.slowly(self.inner.increment(key, increment)).await
    }

    async fn rate_limit(&self, key: &StateKey, request: &RateLimit) -> Result<Decision> {
        self.inner.rate_limit(key, request).await
    }

    async fn batch(&self, ops: &[BatchOp]) -> Result<Vec<Result<BatchReply>>> {
        self.inner.batch(ops).await
    }

    async fn transact(&self, ops: &[TransactOp]) -> Result<TransactOutcome> {
        self.inner.transact(ops).await
    }

    async fn admit(&self, gates: &[Gate]) -> Result<Vec<Result<GateReply>>> {
        self.inner.admit(gates).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Page<ScanItem>> {
        self.inner.scan(scan).await
    }

    async fn schedule(&self, queue: &StateKey, schedule: &Schedule) -> Result<Scheduled> {
        self.slowly(self.inner.schedule(queue, schedule)).await
    }

    async fn cancel(&self, queue: &StateKey, id: &str) -> Result<bool> {
        self.slowly(self.inner.cancel(queue, id)).await
    }

    async fn claim_due(&self, queue: &StateKey, claim: ClaimDue) -> Result<Claimed> {
        self.slowly(self.claim_with_memory(queue, claim)).await
    }

    async fn ack(&self, queue: &StateKey, id: &str, token: ClaimToken) -> Result<ClaimOutcome> {
        let outcome = self.slowly(self.inner.ack(queue, id, token)).await?;
        if outcome == ClaimOutcome::Lost && self.strikes(Fault::AckAnyway) {
            self.inner.cancel(queue, id).await?;
            return Ok(ClaimOutcome::Done);
        }
        Ok(outcome)
    }

    async fn extend_claim(
        &self,
        queue: &StateKey,
        id: &str,
        token: ClaimToken,
        visibility: Duration,
    ) -> Result<ClaimOutcome> {
        self.slowly(self.inner.extend_claim(queue, id, token, visibility)).await
    }

    async fn lock_acquire(&self, request: &LockRequest) -> Result<LockOutcome> {
        self.slowly(self.acquire_with_memory(request)).await
    }

    async fn lock_extend(&self, key: &StateKey, owner: OwnerId, lease: Duration) -> Result<ExtendOutcome> {
        if self.fault == Fault::ExtendNothing {
            return Ok(ExtendOutcome::Extended);
        }
        self.slowly(self.inner.lock_extend(key, owner, lease)).await
    }

    async fn lock_release(&self, key: &StateKey, owner: OwnerId) -> Result<ReleaseOutcome> {
        let was_told = self.memory.lock().owners.contains(&owner);
        if self.strikes(Fault::ReleaseNothing) || self.fault == Fault::WaitOn && !was_told {
            return Ok(ReleaseOutcome::Released);
        }
        self.slowly(self.inner.lock_release(key, owner)).await
    }

    async fn lock_inspect(&self, key: &StateKey) -> Result<Option<LockState>> {
        self.inner.lock_inspect(key).await
    }

    async fn lock_force_release(&self, key: &StateKey, reason: &str) -> Result<usize> {
        self.inner.lock_force_release(key, reason).await
    }

    async fn lock_list(&self, scan: &Scan) -> Result<Page<LockState>> {
        self.inner.lock_list(scan).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
