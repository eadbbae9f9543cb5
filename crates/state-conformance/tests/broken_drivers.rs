//! The kit can fail: each fault put into a driver that is right is found by the cases that are there for it, and told well.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use acteon_state_conformance::{Factory, Time, run_case};
use acteon_state_core::clock::ManualClock;
use acteon_state_core::gate::check_gates;
use acteon_state_core::{
    BatchOp, BatchReply, Capabilities, ClaimDue, ClaimOutcome, ClaimToken, Claimed, Condition, Counter, Decision,
    DeleteOutcome, DueAt, Entry, ErrorKind, ExtendOutcome, Gate, GateReply, Get, Increment, IncrementOutcome,
    LockOutcome, LockRequest, LockSemantics, LockState, OwnerId, Page, Put, PutOutcome, RateLimit, ReleaseOutcome,
    Result, Scan, ScanItem, Schedule, Scheduled, StateKey, StateStore, TransactOp, TransactOutcome, Ttl,
};
use acteon_state_memory::{MemoryConfig, MemoryStore};
use async_trait::async_trait;
use parking_lot::Mutex;

/// What is wrong with a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    PutIgnoresCondition,
    PutKeepsNoTtl,
    PutExpiresEarly,
    CounterWraps,
    CounterLosesSteps,
    CounterIgnoresBounds,
    LockGrantsTwice,
    LockReleasedByAnybody,
    ClaimsAreNotExclusive,
    ScanEndsAfterOnePage,
    BatchRepliesReversed,
    TransactIsNotAtomic,
    GatesGoOn,
    AcceptsWhatItDoesNotDeclare,
}

/// Each fault, and cases that must find it.
const FOUND_BY: [(Fault, &[&str]); 14] = [
    (
        Fault::PutIgnoresCondition,
        &[
            "w1_absent_writes_only_where_nothing_is",
            "w4_one_of_n_concurrent_puts_if_absent_wins",
            "w4_one_put_if_absent_wins_while_the_old_entry_expires",
            "w4_history_of_a_register_is_linearizable",
            "random_operations_agree_with_the_model",
        ],
    ),
    (Fault::PutKeepsNoTtl, &["v3_keep_leaves_the_ttl", "random_operations_agree_with_the_model"]),
    (Fault::PutExpiresEarly, &["v4_entries_never_vanish_early", "random_operations_agree_with_the_model"]),
    (Fault::CounterWraps, &["c1_overflow_is_an_error_and_changes_nothing", "lesson_overflow_never_wraps"]),
    (
        Fault::CounterLosesSteps,
        &["c1_concurrent_increments_are_all_counted", "c3_history_of_a_bounded_counter_is_linearizable"],
    ),
    (
        Fault::CounterIgnoresBounds,
        &["c3_concurrent_bounded_increments_stop_at_the_bound", "random_operations_agree_with_the_model"],
    ),
    (
        Fault::LockGrantsTwice,
        &[
            "l1_one_of_n_concurrent_requests_is_granted",
            "l3_history_of_a_lock_is_linearizable",
            "random_operations_agree_with_the_model",
        ],
    ),
    (
        Fault::LockReleasedByAnybody,
        &["l2_only_the_owner_extends_and_releases", "lesson_release_of_an_old_owner_keeps_the_new_one"],
    ),
    (
        Fault::ClaimsAreNotExclusive,
        &["d3_concurrent_workers_share_the_queue", "random_operations_agree_with_the_model"],
    ),
    (Fault::ScanEndsAfterOnePage, &["m3_listing_finds_every_key", "random_operations_agree_with_the_model"]),
    (Fault::BatchRepliesReversed, &["m1_replies_are_in_the_order_of_the_operations", "m1_large_batches_drop_nothing"]),
    (Fault::TransactIsNotAtomic, &["m2_refused_transaction_changes_nothing", "random_operations_agree_with_the_model"]),
    (
        Fault::GatesGoOn,
        &[
            "m4_refused_claim_uses_up_no_limit_and_takes_no_lock",
            "m4_refusing_limit_leaves_the_claim_and_takes_no_lock",
            "m4_one_of_n_passes_and_is_counted_once",
            "random_operations_agree_with_the_model",
        ],
    ),
    (Fault::AcceptsWhatItDoesNotDeclare, &["undeclared_cas_is_refused"]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_fault_is_found_and_told() {
    for (fault, cases) in FOUND_BY {
        for case in cases {
            let verdict = run_case(Arc::new(Broken::new(fault)), case).await;
            let failure = verdict.expect_err(&format!("{case} does not find {fault:?}")).to_string();
            let told = failure.contains("got:") || failure.contains("none of these can come next");
            assert!(failure.contains(case) && told, "{case} on {fault:?} is not told well: {failure}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_cases_pass_without_the_fault() {
    for (fault, cases) in FOUND_BY {
        // That one runs only on drivers that declare less.
        if fault != Fault::AcceptsWhatItDoesNotDeclare {
            for case in cases {
                run_case(Arc::new(Broken::new(Fault::None)), case).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_case_that_does_not_exist_or_does_not_apply_is_no_success() {
    let factory = Arc::new(Broken::new(Fault::None));
    assert!(run_case(factory.clone(), "w9_unheard_of").await.unwrap_err().to_string().contains("there is no case"));
    let skipped = run_case(factory, "undeclared_cas_is_refused").await.unwrap_err();
    assert!(skipped.to_string().contains("does not declare what"), "{skipped}");
}

/// Opens memory stores with a fault around them.
#[derive(Debug)]
struct Broken {
    fault: Fault,
    stores: Mutex<HashMap<String, (MemoryStore, Arc<ManualClock>)>>,
}

impl Broken {
    fn new(fault: Fault) -> Self {
        Self { fault, stores: Mutex::default() }
    }
}

#[async_trait]
impl Factory for Broken {
    async fn open(&self, prefix: &str) -> Result<Arc<dyn StateStore>> {
        let mut stores = self.stores.lock();
        if !stores.contains_key(prefix) {
            let clock = Arc::new(ManualClock::new(1_767_225_600_000_000));
            let config = MemoryConfig { prefix: prefix.to_owned(), ..MemoryConfig::default() };
            stores.insert(prefix.to_owned(), (MemoryStore::open_with_clock(&config, clock.clone())?, clock));
        }
        Ok(Arc::new(Faulty::new(stores[prefix].0.handle(), self.fault)))
    }

    async fn clean(&self, prefix: &str) -> Result<()> {
        self.stores.lock().remove(prefix);
        Ok(())
    }

    fn time(&self) -> Time {
        Time::Manual
    }

    async fn advance(&self, prefix: &str, by: Duration) {
        if let Some((store, clock)) = self.stores.lock().get(prefix) {
            clock.advance(by);
            store.tick();
        }
    }
}

/// A store with one fault.
#[derive(Debug)]
struct Faulty {
    inner: MemoryStore,
    fault: Fault,
    capabilities: Capabilities,
    calls: AtomicU64,
}

impl Faulty {
    fn new(inner: MemoryStore, fault: Fault) -> Self {
        let cas = fault != Fault::AcceptsWhatItDoesNotDeclare;
        let capabilities = Capabilities { cas, gates: true, ..inner.capabilities().clone() };
        Self { inner, fault, capabilities, calls: AtomicU64::new(0) }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }
}

#[async_trait]
impl StateStore for Faulty {
    fn backend(&self) -> &str {
        self.inner.backend()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn lock_semantics(&self) -> LockSemantics {
        self.inner.lock_semantics()
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn get(&self, key: &StateKey, get: Get) -> Result<Option<Entry>> {
        self.inner.get(key, get).await
    }

    async fn put(&self, key: &StateKey, put: &Put) -> Result<PutOutcome> {
        let mut put = put.clone();
        match (self.fault, put.ttl) {
            (Fault::PutIgnoresCondition, _) => put.condition = Condition::Always,
            (Fault::PutKeepsNoTtl, Ttl::Keep) => put.ttl = Ttl::Clear,
            (Fault::PutExpiresEarly, Ttl::After(ttl)) if ttl > Duration::ZERO => put.ttl = Ttl::After(ttl / 2),
            _ => {}
        }
        self.inner.put(key, &put).await
    }

    async fn delete(&self, key: &StateKey, condition: Condition) -> Result<DeleteOutcome> {
        self.inner.delete(key, condition).await
    }

    async fn take(&self, key: &StateKey) -> Result<Option<Entry>> {
        self.inner.take(key).await
    }

    async fn touch(&self, key: &StateKey, ttl: Ttl) -> Result<bool> {
        self.inner.touch(key, ttl).await
    }

    async fn increment(&self, key: &StateKey, increment: Increment) -> Result<IncrementOutcome> {
        let mut increment = increment;
        if self.is(Fault::CounterIgnoresBounds) {
            (increment.min, increment.max) = (None, None);
        }
        let lost = self.is(Fault::CounterLosesSteps) && self.calls.fetch_add(1, Ordering::SeqCst) % 5 == 4;
        let step = if lost { Increment { delta: 0, ..increment } } else { increment };
        let outcome = self.inner.increment(key, step).await;
        match outcome {
            Err(error) if error.kind() == ErrorKind::Overflow && self.is(Fault::CounterWraps) => {
                Ok(IncrementOutcome::Applied(Counter { value: i64::MIN, resets_after: None }))
            }
            Ok(outcome) if lost => {
                let counter = outcome.counter();
                Ok(IncrementOutcome::Applied(Counter { value: counter.value + increment.delta, ..counter }))
            }
            outcome => outcome,
        }
    }

    async fn rate_limit(&self, key: &StateKey, request: &RateLimit) -> Result<Decision> {
        self.inner.rate_limit(key, request).await
    }

    async fn batch(&self, ops: &[BatchOp]) -> Result<Vec<Result<BatchReply>>> {
        let mut replies = self.inner.batch(ops).await?;
        if self.is(Fault::BatchRepliesReversed) {
            replies.reverse();
        }
        Ok(replies)
    }

    async fn transact(&self, ops: &[TransactOp]) -> Result<TransactOutcome> {
        if !self.is(Fault::TransactIsNotAtomic) {
            return self.inner.transact(ops).await;
        }
        for (index, op) in ops.iter().enumerate() {
            if let TransactOutcome::Refused { current, .. } = self.inner.transact(std::slice::from_ref(op)).await? {
                return Ok(TransactOutcome::Refused { index, current });
            }
        }
        Ok(TransactOutcome::Committed)
    }

    /// The inner store has none, so this is what a driver must do, step by step.
    async fn admit(&self, gates: &[Gate]) -> Result<Vec<Result<GateReply>>> {
        check_gates(gates)?;
        let mut replies = Vec::new();
        for gate in gates {
            let reply = match gate {
                Gate::Put(key, put) => self.put(key, put).await.map(GateReply::Put),
                Gate::RateLimit(key, request) => self.rate_limit(key, request).await.map(GateReply::RateLimit),
                Gate::Lock(request) => {
                    let request = LockRequest { wait: Duration::ZERO, ..request.clone() };
                    self.lock_acquire(&request).await.map(GateReply::Lock)
                }
            };
            let is_open = reply.as_ref().is_ok_and(GateReply::passes);
            match (is_open, reply) {
                (false, Err(error)) if replies.is_empty() => return Err(error),
                (false, reply) if self.is(Fault::GatesGoOn) && !matches!(gate, Gate::Lock(_)) => drop(reply),
                (false, reply) => {
                    replies.push(reply);
                    break;
                }
                (true, reply) => replies.push(reply),
            }
        }
        Ok(replies)
    }

    async fn scan(&self, scan: &Scan) -> Result<Page<ScanItem>> {
        let mut page = self.inner.scan(scan).await?;
        if self.is(Fault::ScanEndsAfterOnePage) {
            page.next = None;
        }
        Ok(page)
    }

    async fn schedule(&self, queue: &StateKey, schedule: &Schedule) -> Result<Scheduled> {
        self.inner.schedule(queue, schedule).await
    }

    async fn cancel(&self, queue: &StateKey, id: &str) -> Result<bool> {
        self.inner.cancel(queue, id).await
    }

    async fn claim_due(&self, queue: &StateKey, claim: ClaimDue) -> Result<Claimed> {
        let claimed = self.inner.claim_due(queue, claim).await?;
        if self.is(Fault::ClaimsAreNotExclusive) && self.calls.fetch_add(1, Ordering::SeqCst).is_multiple_of(3) {
            for item in &claimed.items {
                let (id, due_at, payload) = (item.id.clone(), DueAt::UnixMs(item.due_at_ms), item.payload.clone());
                self.inner.schedule(queue, &Schedule { id, due_at, payload }).await?;
            }
        }
        Ok(claimed)
    }

    async fn ack(&self, queue: &StateKey, id: &str, token: ClaimToken) -> Result<ClaimOutcome> {
        self.inner.ack(queue, id, token).await
    }

    async fn extend_claim(
        &self,
        queue: &StateKey,
        id: &str,
        token: ClaimToken,
        visibility: Duration,
    ) -> Result<ClaimOutcome> {
        self.inner.extend_claim(queue, id, token, visibility).await
    }

    async fn lock_acquire(&self, request: &LockRequest) -> Result<LockOutcome> {
        match self.inner.lock_acquire(request).await? {
            LockOutcome::Busy(_) if self.is(Fault::LockGrantsTwice) => {
                let other = LockRequest { key: request.key.scope().key("elsewhere")?, ..request.clone() };
                self.inner.lock_force_release(&other.key, "broken on purpose").await?;
                self.inner.lock_acquire(&other).await
            }
            outcome => Ok(outcome),
        }
    }

    async fn lock_extend(&self, key: &StateKey, owner: OwnerId, lease: Duration) -> Result<ExtendOutcome> {
        self.inner.lock_extend(key, owner, lease).await
    }

    async fn lock_release(&self, key: &StateKey, owner: OwnerId) -> Result<ReleaseOutcome> {
        match self.inner.lock_release(key, owner).await? {
            ReleaseOutcome::AlreadyLost if self.is(Fault::LockReleasedByAnybody) => {
                self.inner.lock_force_release(key, "broken on purpose").await?;
                Ok(ReleaseOutcome::Released)
            }
            outcome => Ok(outcome),
        }
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
