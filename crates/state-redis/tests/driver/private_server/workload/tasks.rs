//! The tasks of a load: each does one kind of operation over and over, and notes what it was told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use acteon_state_conformance::ask::ask_register;
use acteon_state_conformance::history::{Call, NEVER};
use acteon_state_conformance::objects::{RegisterOperation, RegisterReply};
use acteon_state_core::{
    BatchOp, BatchReply, ClaimDue, ClaimOutcome, DueAt, DueItem, Effect, Get, Increment, LockGrant, LockOutcome,
    LockRequest, Put, PutOutcome, ReleaseOutcome, Result, Schedule, StateKey, StateStore,
};
use acteon_state_redis::RedisStore;
use parking_lot::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use super::history::{
    Ack, Claim, Grant, History, Member, RegisterCall, RegisterHistory, Scheduling, Span, Told, written,
};
use super::{Kind, Options, RESUME_PATIENCE};

/// The pause of a task after a success, and after a failure. They keep the number of things to look up afterwards small.
const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_FAILED: Duration = Duration::from_millis(10);
/// How long a claimed item stays with its claimer.
pub(super) const VISIBILITY: Duration = Duration::from_secs(2);
/// Names of locks, of queues and of shared counters: enough that each shard of a small Cluster has some.
const LOCKS: u64 = 6;
const QUEUES: u64 = 6;
const COUNTERS: u64 = 6;
/// Calls about one register, few enough to check.
const REGISTER_CALLS_MAX: usize = 60;

/// What all tasks share.
pub(super) struct Tasks {
    pub(super) options: Options,
    pub(super) stop: CancellationToken,
    /// Keeps loads of one server apart.
    run: u64,
    next: AtomicU64,
    /// Places of beginnings and ends of calls about registers.
    order: AtomicU64,
    register: AtomicU64,
    // Short pushes by many tasks; never held across an await.
    history: Mutex<History>,
}

impl Tasks {
    pub(super) fn new(options: Options) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        Self {
            options,
            stop: CancellationToken::new(),
            run: RUNS.fetch_add(1, Ordering::Relaxed),
            next: AtomicU64::new(1),
            order: AtomicU64::new(0),
            register: AtomicU64::new(0),
            history: Mutex::default(),
        }
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock()
    }

    /// Lets the tasks go on with a register that nobody has used.
    pub(super) fn change_register(&self) {
        self.register.fetch_add(1, Ordering::Relaxed);
    }

    /// The keys that many calls are about: queues, locks and shared counters.
    pub(super) fn shared_keys(&self) -> Vec<StateKey> {
        let keys = [("queue", QUEUES), ("lock", LOCKS), ("shared", COUNTERS)];
        keys.iter().flat_map(|(what, count)| (0..*count).map(|number| self.key(what, number))).collect()
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn key(&self, what: &str, number: u64) -> StateKey {
        StateKey::new("load", "tests", what, &format!("{}.{number}", self.run)).unwrap()
    }

    /// Makes a call and notes whether it succeeded.
    async fn call<T>(&self, kind: Kind, key: &StateKey, call: impl Future<Output = Result<T>>) -> (Result<T>, Span) {
        let began = Instant::now();
        let outcome = call.await;
        let span = Span { began, ended: Instant::now() };
        let mut history = self.history();
        history.note(&outcome);
        if outcome.is_ok() {
            history.succeeded((kind, (self.options.shard_of)(key)), span);
        }
        (outcome, span)
    }

    async fn pause(&self, is_success: bool) {
        let pause = if is_success { PAUSE } else { PAUSE_FAILED };
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
    }

    pub(super) async fn put(self: Arc<Self>, store: RedisStore) {
        while !self.stop.is_cancelled() {
            let key = self.key("put", self.number());
            let put = Put::new("v");
            let put = if rand::random() { put.if_absent() } else { put };
            let (outcome, span) = self.call(Kind::Put, &key, store.put(&key, &put)).await;
            // Nobody else writes there, so the condition holds: unless a put that was lost has come twice.
            assert!(outcome.as_ref().map_or(true, PutOutcome::is_applied), "{key}: {outcome:?}");
            let told = Told::of(&outcome);
            self.history().members.push(Member { key, version: Some(put.version), told, span });
            self.pause(outcome.is_ok()).await;
        }
    }

    pub(super) async fn increment(self: Arc<Self>, store: RedisStore) {
        while !self.stop.is_cancelled() {
            let own = self.key("own", self.number());
            let (outcome, span) = self.call(Kind::Increment, &own, store.increment(&own, Increment::by(1))).await;
            let told = Told::of(&outcome);
            self.history().members.push(Member { key: own, version: None, told, span });

            let shared = self.key("shared", self.number() % COUNTERS);
            let delta = rand::random_range(1..=3);
            let (outcome, span) =
                self.call(Kind::Increment, &shared, store.increment(&shared, Increment::by(delta))).await;
            self.history().add(shared, delta, Told::of(&outcome), span);
            self.pause(outcome.is_ok()).await;
        }
    }

    pub(super) async fn batch(self: Arc<Self>, store: RedisStore) {
        let mut last: Option<StateKey> = None;
        while !self.stop.is_cancelled() {
            let (put_key, count_key) = (self.key("batched", self.number()), self.key("own", self.number()));
            let put = Put::new("v");
            let mut ops = vec![
                BatchOp::Put(put_key.clone(), put.clone()),
                BatchOp::Increment(count_key.clone(), Increment::by(1)),
            ];
            ops.extend(last.take().map(|key| BatchOp::Get(key, Get::default())));
            let call = async {
                let replies = store.batch(&ops).await?;
                // One that failed decides whether the call was a success; each is judged by itself below.
                Ok((replies.iter().all(Result::is_ok), replies))
            };
            let (outcome, span) = self.call(Kind::Batch, &put_key, call).await;
            let item = |at: usize| match &outcome {
                Ok((_, replies)) => Told::of(&replies[at]),
                Err(error) if error.effect() == Effect::Unknown => Told::Unknown,
                Err(_) => Told::NotApplied,
            };
            if let Ok((_, replies)) = &outcome {
                let is_written = matches!(&replies[0], Ok(BatchReply::Put(outcome)) if outcome.is_applied());
                assert!(is_written || replies[0].is_err(), "{put_key}: {:?}", replies[0]);
            }
            let members = [
                Member { key: put_key.clone(), version: Some(put.version), told: item(0), span },
                Member { key: count_key, version: None, told: item(1), span },
            ];
            self.history().members.extend(members);
            last = Some(put_key);
            self.pause(outcome.is_ok_and(|(all, _)| all)).await;
        }
    }

    pub(super) async fn schedule(self: Arc<Self>, store: RedisStore) {
        while !self.stop.is_cancelled() {
            let number = self.number();
            let (queue, id) = (self.key("queue", number % QUEUES), format!("item {number}"));
            let schedule = Schedule { id: id.clone(), due_at: DueAt::After(Duration::ZERO), payload: "p".into() };
            let (outcome, span) = self.call(Kind::Schedule, &queue, store.schedule(&queue, &schedule)).await;
            let told = Told::of(&outcome);
            self.history().schedules.insert(id, Scheduling { queue, told, span });
            self.pause(outcome.is_ok()).await;
        }
    }

    pub(super) async fn claim(self: Arc<Self>, store: RedisStore) {
        let claim = ClaimDue { limit: 10, visibility: VISIBILITY };
        while !self.stop.is_cancelled() {
            let queue = self.key("queue", self.number() % QUEUES);
            let (outcome, span) = self.call(Kind::Claim, &queue, store.claim_due(&queue, claim)).await;
            let items = outcome.as_ref().map(|claimed| claimed.items.clone()).unwrap_or_default();
            self.acknowledge(&store, &queue, items, span).await;
            self.pause(outcome.is_ok()).await;
        }
    }

    async fn acknowledge(&self, store: &RedisStore, queue: &StateKey, items: Vec<DueItem>, span: Span) {
        for DueItem { id, token, .. } in items {
            self.history().claims.push(Claim { id: id.clone(), span });
            let (outcome, span) = self.call(Kind::Claim, queue, store.ack(queue, &id, token)).await;
            if let Ok(ClaimOutcome::Done) = outcome {
                self.history().acks.entry(id).or_default().push(Ack { span });
            }
        }
    }

    /// Claims and acknowledges what is left in the queues.
    pub(super) async fn drain(&self, store: &RedisStore) {
        let started = Instant::now();
        let claim = ClaimDue { limit: 1_000, visibility: VISIBILITY };
        for queue in (0..QUEUES).map(|number| self.key("queue", number)) {
            loop {
                let (claimed, span) = self.call(Kind::Claim, &queue, store.claim_due(&queue, claim)).await;
                let claimed = claimed.unwrap();
                let Some(left) = claimed.next_due_in.or((!claimed.items.is_empty()).then_some(Duration::ZERO)) else {
                    break;
                };
                self.acknowledge(store, &queue, claimed.items, span).await;
                assert!(started.elapsed() < RESUME_PATIENCE, "{queue} never gets empty");
                tokio::time::sleep(left.min(Duration::from_millis(100))).await;
            }
        }
    }

    pub(super) async fn take_locks(self: Arc<Self>, store: RedisStore) {
        while !self.stop.is_cancelled() {
            let key = self.key("lock", self.number() % LOCKS);
            let wait = Duration::from_millis(rand::random_range(0..50));
            let request = LockRequest { wait, ..LockRequest::new(key.clone(), self.options.lease) };
            let began = Instant::now();
            let outcome = store.lock_acquire(&request).await;
            let span = Span { began, ended: Instant::now() };
            let is_granted = matches!(outcome, Ok(LockOutcome::Granted(_)));
            self.note_acquisition(&key, &outcome, span);
            if let Ok(LockOutcome::Granted(grant)) = outcome {
                self.hold(&store, &request, grant, span).await;
            }
            self.pause(is_granted).await;
        }
    }

    /// A lock that is busy is neither a failure nor progress.
    fn note_acquisition(&self, key: &StateKey, outcome: &Result<LockOutcome>, span: Span) {
        if matches!(outcome, Ok(LockOutcome::Busy(_))) {
            return;
        }
        let mut history = self.history();
        history.note(outcome);
        if outcome.is_ok() {
            history.succeeded((Kind::Lock, (self.options.shard_of)(key)), span);
        }
    }

    async fn hold(&self, store: &RedisStore, request: &LockRequest, grant: LockGrant, span: Span) {
        let deadline = Instant::now() + grant.deadline.remaining();
        tokio::time::sleep(PAUSE.mul_f64(rand::random())).await;
        let until = deadline.min(Instant::now());
        let released = store.lock_release(&request.key, request.owner).await;
        let was_lost = matches!(released, Ok(ReleaseOutcome::AlreadyLost)) && Instant::now() < deadline;
        let (key, token) = (request.key.clone(), grant.token.get());
        self.history().grants.push(Grant { key, token, span, until, was_lost });
    }

    pub(super) async fn ask_registers(self: Arc<Self>, store: RedisStore) {
        let mut seen = 0;
        while !self.stop.is_cancelled() {
            let register = self.register.load(Ordering::Relaxed);
            let key = self.key("register", register);
            let fresh = u32::try_from(self.number()).unwrap();
            let operation = match rand::random_range(0..8) {
                0..=2 => RegisterOperation::Get,
                3 => RegisterOperation::set(fresh),
                4 => RegisterOperation::set_absent(fresh),
                5 | 6 => RegisterOperation::swap(seen, fresh),
                _ => RegisterOperation::Take,
            };
            let began = self.order.fetch_add(1, Ordering::SeqCst);
            let (outcome, span) = self.call(Kind::Register, &key, ask_register(&store, &key, operation)).await;
            let ended = self.order.fetch_add(1, Ordering::SeqCst);
            if let Ok(RegisterReply::Found(Some(value)) | RegisterReply::Refused(Some(value))) = outcome {
                seen = value;
            }
            if let (Ok(RegisterReply::Written), Some(value)) = (&outcome, written(operation)) {
                seen = value;
            }
            let (told, reply) = (Told::of(&outcome), outcome.ok());
            // What is not known may still come, or never: it ends after everything else.
            let ended = if told == Told::Unknown { NEVER } else { ended };
            self.note_register(register, key, Call { operation, reply, began, ended }, told, span);
            self.pause(told == Told::Acknowledged).await;
        }
    }

    fn note_register(&self, register: u64, key: StateKey, call: RegisterCall, told: Told, span: Span) {
        let mut history = self.history();
        if told == Told::NotApplied {
            history.values_refused.extend(written(call.operation));
            return;
        }
        let entry = history.registers.entry(register);
        let entry = entry.or_insert_with(|| RegisterHistory { key, since: span.began, calls: Vec::new() });
        entry.since = entry.since.min(span.began);
        entry.calls.push((call, span.ended));
        if told == Told::Unknown || entry.calls.len() >= REGISTER_CALLS_MAX {
            // Only if nobody has gone on to another one yet.
            let _ = self.register.compare_exchange(register, register + 1, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}
