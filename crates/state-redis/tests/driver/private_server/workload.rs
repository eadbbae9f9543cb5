//! A load of mixed operations that goes on while servers fail, and writes down what each call was told.
//!
//! # How it is used
//! ```ignore
//! let load = Workload::start(stores, Options::default());
//! load.warm_up().await;
//! load.fault();                  // before anything is done to a server
//! group.nodes[0].kill9()?;
//! group.wait_for_primary_other_than(0)?;
//! load.resumed().await;          // once no call can be answered by the server that failed
//! let report = load.finish("kill -9 of the primary").await;
//! ```
//! [`finish`](Workload::finish) lets it run a little longer, reads what the servers have, and fails the test unless that agrees
//! with what the calls were told; see [`judge`].
//!
//! # How it works
//! Each kind of operation has tasks of its own, spread over all stores. What has an outcome for ever is done under a name of its
//! own (a put, an increment, a scheduled item), so that each of them can be looked up afterwards: there or not, once or twice.
//! Calls that several tasks make about one thing (registers, locks, claims) are recorded with their times.

mod judge;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use acteon_state_conformance::history::Call;
use acteon_state_conformance::objects::{RegisterOperation, RegisterReply};
use acteon_state_core::{
    BatchOp, BatchReply, ClaimDue, ClaimOutcome, Condition, DueAt, DueItem, Effect, Entry, ErrorKind, Get, Increment,
    LockGrant, LockOutcome, LockRequest, Put, PutOutcome, ReleaseOutcome, Result, Schedule, StateKey, StateStore,
    Version,
};
use acteon_state_redis::RedisStore;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long traffic may take to come back, on a busy machine and with a quarantine.
const RESUME_PATIENCE: Duration = Duration::from_secs(120);
/// The pause of a task after a success, and after a failure. They keep the number of things to look up afterwards small.
const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_FAILED: Duration = Duration::from_millis(10);
/// For how long the load goes on after traffic has resumed.
const AFTERMATH: Duration = Duration::from_secs(1);
/// Successes of each kind before a fault.
const WARM: u64 = 50;
/// How long a claimed item stays with its claimer.
pub(super) const VISIBILITY: Duration = Duration::from_secs(2);
/// Names of locks, of queues and of shared counters: enough that each shard of a small Cluster has some.
const LOCKS: u64 = 6;
const QUEUES: u64 = 6;
const COUNTERS: u64 = 6;
/// Calls about one register, few enough to check.
const REGISTER_CALLS_MAX: usize = 60;

/// Names the part of the servers that fails or survives as one: a primary and its replicas.
pub(super) type ShardOf = Arc<dyn Fn(&StateKey) -> usize + Send + Sync>;

/// What the load does, and what its servers promise.
#[derive(Clone)]
pub(super) struct Options {
    /// The shard of a key; everything is of shard 0 unless given.
    pub(super) shard_of: ShardOf,
    /// Shards whose acknowledged writes may be lost by the fault, since replication is asynchronous. On all others nothing may.
    pub(super) may_lose: Vec<usize>,
    /// Whether two grants of one lock never overlap, also on those shards: strict safety.
    pub(super) strict_locks: bool,
    /// The lease of locks.
    pub(super) lease: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { shard_of: Arc::new(|_| 0), may_lose: Vec::new(), strict_locks: false, lease: Duration::from_secs(2) }
    }
}

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Register,
    Put,
    Increment,
    Batch,
    Schedule,
    Claim,
    Lock,
}

/// What a call was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Told {
    Acknowledged,
    Unknown,
    NotApplied,
}

impl Told {
    fn of<T>(outcome: &Result<T>) -> Self {
        match outcome {
            Ok(_) => Self::Acknowledged,
            Err(error) if error.effect() == Effect::Unknown => Self::Unknown,
            Err(_) => Self::NotApplied,
        }
    }
}

/// What the load found, for the documentation and for tests that expect more.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// For each kind: the longest time without a success, of those that ended after the fault; the worst of all shards.
    pub(super) windows: BTreeMap<Kind, Duration>,
    /// How many calls were told what.
    pub(super) told: BTreeMap<Told, u64>,
    /// Errors by kind.
    pub(super) errors: HashMap<ErrorKind, u64>,
    /// Acknowledged writes that the servers do not have.
    pub(super) lost: usize,
    /// How many grants of locks there were.
    pub(super) grants: usize,
}

/// A running load.
pub(super) struct Workload {
    shared: Arc<Shared>,
    stores: Vec<RedisStore>,
    tasks: TaskTracker,
}

struct Shared {
    options: Options,
    /// Keeps loads of one server apart.
    run: u64,
    next: AtomicU64,
    /// Places of beginnings and ends of calls about registers.
    order: AtomicU64,
    register: AtomicU64,
    stop: CancellationToken,
    fault: OnceLock<Instant>,
    resumed: OnceLock<Instant>,
    // Short pushes by many tasks; never held across an await.
    log: Mutex<Log>,
}

/// Everything that was done and told.
#[derive(Default)]
struct Log {
    progress: BTreeMap<(Kind, usize), Progress>,
    told: BTreeMap<Told, u64>,
    errors: HashMap<ErrorKind, u64>,
    members: Vec<Member>,
    counters: HashMap<StateKey, Sums>,
    registers: BTreeMap<u64, RegisterLog>,
    /// Values whose write was told not to be applied.
    values_refused: Vec<u32>,
    schedules: HashMap<String, Scheduling>,
    claims: Vec<Claim>,
    acks: Vec<Ack>,
    grants: Vec<Grant>,
}

/// Successes of one kind on one shard.
struct Progress {
    count: u64,
    /// When the newest successful call began and ended.
    began: Instant,
    ended: Instant,
    /// The longest time between two successes, if the second one came after the fault.
    gap_max: Duration,
}

/// When a call was made.
#[derive(Clone, Copy, Debug)]
struct Span {
    began: Instant,
    ended: Instant,
}

/// A write under a name of its own.
struct Member {
    key: StateKey,
    /// The version of a put; `None` for an increment by one.
    version: Option<Version>,
    told: Told,
    span: Span,
}

/// The increments of a shared counter.
#[derive(Default)]
struct Sums {
    acknowledged: i64,
    /// The part of them that began after traffic had resumed.
    acknowledged_late: i64,
    unknown: i64,
}

struct RegisterLog {
    key: StateKey,
    /// When it was first used.
    since: Instant,
    /// With `None` for a reply that is not known.
    calls: Vec<(Call<RegisterOperation, Option<RegisterReply>>, Instant)>,
}

struct Scheduling {
    queue: StateKey,
    told: Told,
    span: Span,
}

struct Claim {
    queue: StateKey,
    id: String,
    span: Span,
}

/// An acknowledgement that succeeded.
struct Ack {
    id: String,
    span: Span,
}

struct Grant {
    key: StateKey,
    token: u64,
    span: Span,
    /// Until when its holder took it for held.
    until: Instant,
    /// Its release came before the end of its lease, and found it lost.
    was_lost: bool,
}

impl Workload {
    /// Starts all tasks.
    pub(super) fn start(stores: Vec<RedisStore>, options: Options) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let shared = Arc::new(Shared {
            options,
            run: RUNS.fetch_add(1, Ordering::Relaxed),
            next: AtomicU64::new(1),
            order: AtomicU64::new(0),
            register: AtomicU64::new(0),
            stop: CancellationToken::new(),
            fault: OnceLock::new(),
            resumed: OnceLock::new(),
            log: Mutex::default(),
        });
        let load = Self { shared, stores, tasks: TaskTracker::new() };
        for task in 0..3 {
            load.spawn(task, Shared::ask_registers);
            load.spawn(task, Shared::take_locks);
        }
        for task in 0..2 {
            load.spawn(task, Shared::put);
            load.spawn(task, Shared::increment);
            load.spawn(task, Shared::batch);
            load.spawn(task, Shared::schedule);
            load.spawn(task, Shared::claim);
        }
        load
    }

    /// Returns once each kind has succeeded some times.
    pub(super) async fn warm_up(&self) {
        self.until("the load runs", |log| {
            let mut counts: BTreeMap<Kind, u64> = BTreeMap::new();
            log.progress.iter().for_each(|((kind, _), progress)| *counts.entry(*kind).or_default() += progress.count);
            counts.len() == 7 && counts.values().all(|count| *count >= WARM)
        })
        .await;
    }

    /// Says that a fault comes now.
    pub(super) fn fault(&self) {
        self.shared.fault.set(Instant::now()).expect("one fault for each load");
        self.shared.change_register();
    }

    /// Waits until each kind succeeds again, wherever it had before the fault. To be called once no server can answer any more that is not
    /// to be used: from now on nothing may be lost.
    pub(super) async fn resumed(&self) {
        let since = Instant::now();
        self.until("traffic resumes", |log| log.progress.values().all(|progress| progress.began >= since)).await;
        self.shared.resumed.set(Instant::now()).expect("traffic resumes once");
        self.shared.change_register();
    }

    /// Ends the load after a while and judges it. Prints the report under this name.
    ///
    /// # Panics
    /// What the servers have, or what calls were told, is against what the topology promises.
    pub(super) async fn finish(self, name: &str) -> Report {
        tokio::time::sleep(AFTERMATH).await;
        self.shared.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.shared.drain(&self.stores[0]).await;
        let log = std::mem::take(&mut *self.shared.log.lock());
        let moments = judge::Moments { fault: self.shared.fault.get().copied(), resumed: self.shared.resumed.get().copied() };
        let report = judge::judge(&self.stores[0], log, &self.shared.options, moments).await;
        println!("{name}: {report}");
        report
    }

    fn spawn<F>(&self, task: usize, work: fn(Arc<Shared>, RedisStore) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(work(self.shared.clone(), self.stores[task % self.stores.len()].clone()));
    }

    async fn until(&self, what: &str, condition: impl Fn(&Log) -> bool) {
        let started = Instant::now();
        while !condition(&self.shared.log.lock()) {
            if started.elapsed() > RESUME_PATIENCE {
                let log = self.shared.log.lock();
                let progress: Vec<_> =
                    log.progress.iter().map(|(what, p)| (what, p.count, p.ended.elapsed())).collect();
                panic!("{what}: in vain; successes and time since the last one: {progress:?}; errors {:?}", log.errors);
            }
            tokio::time::sleep(PAUSE_FAILED).await;
        }
    }
}

impl Shared {
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn key(&self, what: &str, number: u64) -> StateKey {
        StateKey::new("load", "tests", what, &format!("{}.{number}", self.run)).unwrap()
    }

    fn change_register(&self) {
        self.register.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes a call and notes whether it succeeded.
    async fn call<T>(&self, kind: Kind, key: &StateKey, call: impl Future<Output = Result<T>>) -> (Result<T>, Span) {
        let began = Instant::now();
        let outcome = call.await;
        let span = Span { began, ended: Instant::now() };
        let mut log = self.log.lock();
        *log.told.entry(Told::of(&outcome)).or_default() += 1;
        match &outcome {
            Ok(_) => log.succeeded((kind, (self.options.shard_of)(key)), span, self.fault.get()),
            Err(error) => *log.errors.entry(error.kind()).or_default() += 1,
        }
        (outcome, span)
    }

    async fn pause(&self, is_success: bool) {
        let pause = if is_success { PAUSE } else { PAUSE_FAILED };
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
    }

    async fn put(self: Arc<Self>, store: RedisStore) {
        while !self.stop.is_cancelled() {
            let key = self.key("put", self.number());
            let put = Put::new("v");
            let put = if rand::random() { put.if_absent() } else { put };
            let (outcome, span) = self.call(Kind::Put, &key, store.put(&key, &put)).await;
            // Nobody else writes there, so the condition holds: unless a put that was lost has come twice.
            assert!(outcome.as_ref().map_or(true, PutOutcome::is_applied), "{key}: {outcome:?}");
            let told = Told::of(&outcome);
            self.log.lock().members.push(Member { key, version: Some(put.version), told, span });
            self.pause(outcome.is_ok()).await;
        }
    }

    async fn increment(self: Arc<Self>, store: RedisStore) {
        while !self.stop.is_cancelled() {
            let own = self.key("own", self.number());
            let (outcome, span) = self.call(Kind::Increment, &own, store.increment(&own, Increment::by(1))).await;
            let told = Told::of(&outcome);
            self.log.lock().members.push(Member { key: own, version: None, told, span });

            let shared = self.key("shared", self.number() % COUNTERS);
            let delta = rand::random_range(1..=3);
            let (outcome, span) =
                self.call(Kind::Increment, &shared, store.increment(&shared, Increment::by(delta))).await;
            self.log.lock().add(shared, delta, Told::of(&outcome), span, self.resumed.get());
            self.pause(outcome.is_ok()).await;
        }
    }

    async fn batch(self: Arc<Self>, store: RedisStore) {
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
            self.log.lock().members.extend(members);
            last = Some(put_key);
            self.pause(outcome.is_ok_and(|(all, _)| all)).await;
        }
    }

    async fn schedule(self: Arc<Self>, store: RedisStore) {
        while !self.stop.is_cancelled() {
            let number = self.number();
            let (queue, id) = (self.key("queue", number % QUEUES), format!("item {number}"));
            let schedule = Schedule { id: id.clone(), due_at: DueAt::After(Duration::ZERO), payload: "p".into() };
            let (outcome, span) = self.call(Kind::Schedule, &queue, store.schedule(&queue, &schedule)).await;
            let told = Told::of(&outcome);
            self.log.lock().schedules.insert(id, Scheduling { queue, told, span });
            self.pause(outcome.is_ok()).await;
        }
    }

    async fn claim(self: Arc<Self>, store: RedisStore) {
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
            self.log.lock().claims.push(Claim { queue: queue.clone(), id: id.clone(), span });
            let (outcome, span) = self.call(Kind::Claim, queue, store.ack(queue, &id, token)).await;
            if let Ok(ClaimOutcome::Done) = outcome {
                self.log.lock().acks.push(Ack { id, span });
            }
        }
    }

    /// Claims and acknowledges what is left in the queues.
    async fn drain(&self, store: &RedisStore) {
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

    async fn take_locks(self: Arc<Self>, store: RedisStore) {
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
        let mut log = self.log.lock();
        match outcome {
            Ok(LockOutcome::Granted(_)) => {
                *log.told.entry(Told::Acknowledged).or_default() += 1;
                log.succeeded((Kind::Lock, (self.options.shard_of)(key)), span, self.fault.get());
            }
            Ok(LockOutcome::Busy(_)) => {}
            Err(error) => {
                *log.told.entry(Told::of(outcome)).or_default() += 1;
                *log.errors.entry(error.kind()).or_default() += 1;
            }
        }
    }

    async fn hold(&self, store: &RedisStore, request: &LockRequest, grant: LockGrant, span: Span) {
        let deadline = Instant::now() + grant.deadline.remaining();
        tokio::time::sleep(PAUSE.mul_f64(rand::random())).await;
        let until = deadline.min(Instant::now());
        let released = store.lock_release(&request.key, request.owner).await;
        let was_lost = matches!(released, Ok(ReleaseOutcome::AlreadyLost)) && Instant::now() < deadline;
        let (key, token) = (request.key.clone(), grant.token.get());
        self.log.lock().grants.push(Grant { key, token, span, until, was_lost });
    }

    async fn ask_registers(self: Arc<Self>, store: RedisStore) {
        let mut seen = 0;
        while !self.stop.is_cancelled() {
            let register = self.register.load(Ordering::Relaxed);
            let key = self.key("register", register);
            let fresh = u32::try_from(self.number()).unwrap();
            let operation = match rand::random_range(0..8) {
                0..=2 => RegisterOperation::Get,
                3 => RegisterOperation::Set(fresh),
                4 => RegisterOperation::SetAbsent(fresh),
                5 | 6 => RegisterOperation::Swap(seen, fresh),
                _ => RegisterOperation::Take,
            };
            let began = self.order.fetch_add(1, Ordering::SeqCst);
            let (outcome, span) = self.call(Kind::Register, &key, ask(&store, &key, operation)).await;
            let ended = self.order.fetch_add(1, Ordering::SeqCst);
            if let Ok(RegisterReply::Found(Some(value)) | RegisterReply::Refused(Some(value))) = outcome {
                seen = value;
            }
            if let (Ok(RegisterReply::Written), Some(value)) = (&outcome, written(operation)) {
                seen = value;
            }
            let (told, reply) = (Told::of(&outcome), outcome.ok());
            // What is not known may still come, or never: it ends after everything else.
            let ended = if told == Told::Unknown { u64::MAX } else { ended };
            self.note_register(register, key, Call { operation, reply, began, ended }, told, span);
            self.pause(told == Told::Acknowledged).await;
        }
    }

    fn note_register(
        &self,
        register: u64,
        key: StateKey,
        call: Call<RegisterOperation, Option<RegisterReply>>,
        told: Told,
        span: Span,
    ) {
        let mut log = self.log.lock();
        if told == Told::NotApplied {
            log.values_refused.extend(written(call.operation));
            return;
        }
        let entry = log.registers.entry(register);
        let entry = entry.or_insert_with(|| RegisterLog { key, since: span.began, calls: Vec::new() });
        entry.since = entry.since.min(span.began);
        entry.calls.push((call, span.ended));
        if told == Told::Unknown || entry.calls.len() >= REGISTER_CALLS_MAX {
            // Only if nobody has gone on to another one yet.
            let _ = self.register.compare_exchange(register, register + 1, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

impl Log {
    fn succeeded(&mut self, what: (Kind, usize), span: Span, fault: Option<&Instant>) {
        let first = Progress { count: 0, began: span.began, ended: span.began, gap_max: Duration::ZERO };
        let progress = self.progress.entry(what).or_insert(first);
        progress.count += 1;
        progress.began = progress.began.max(span.began);
        if fault.is_some_and(|fault| span.ended > *fault) {
            progress.gap_max = progress.gap_max.max(span.ended.saturating_duration_since(progress.ended));
        }
        progress.ended = progress.ended.max(span.ended);
    }

    fn add(&mut self, counter: StateKey, delta: i64, told: Told, span: Span, resumed: Option<&Instant>) {
        let sums = self.counters.entry(counter).or_default();
        match told {
            Told::Acknowledged => {
                sums.acknowledged += delta;
                if resumed.is_some_and(|resumed| span.began > *resumed) {
                    sums.acknowledged_late += delta;
                }
            }
            Told::Unknown => sums.unknown += delta,
            Told::NotApplied => {}
        }
    }
}

/// The value and the version of a write are the same number, so that a read tells which write it saw.
fn version(number: u32) -> Version {
    Version::from_u128(u128::from(number) + 1)
}

fn number(entry: Option<&Entry>) -> Option<u32> {
    entry.map(|entry| std::str::from_utf8(&entry.value).unwrap().parse().unwrap())
}

/// The value that an operation writes.
fn written(operation: RegisterOperation) -> Option<u32> {
    match operation {
        RegisterOperation::Set(value) | RegisterOperation::SetAbsent(value) | RegisterOperation::Swap(_, value) => {
            Some(value)
        }
        RegisterOperation::Get | RegisterOperation::Delete | RegisterOperation::Take => None,
    }
}

async fn ask(store: &RedisStore, key: &StateKey, operation: RegisterOperation) -> Result<RegisterReply> {
    let (value, condition) = match operation {
        RegisterOperation::Get => {
            return Ok(RegisterReply::Found(number(store.get(key, Get::default()).await?.as_ref())));
        }
        RegisterOperation::Take => return Ok(RegisterReply::Found(number(store.take(key).await?.as_ref()))),
        RegisterOperation::Delete => {
            return Ok(RegisterReply::Deleted(store.delete(key, Condition::Always).await?.is_deleted()));
        }
        RegisterOperation::Set(value) => (value, Condition::Always),
        RegisterOperation::SetAbsent(value) => (value, Condition::Absent),
        RegisterOperation::Swap(old, value) => (value, Condition::Version(version(old))),
    };
    let put = Put { version: version(value), ..Put::new(value.to_string()) }.when(condition);
    Ok(match store.put(key, &put).await? {
        PutOutcome::Applied(_) => RegisterReply::Written,
        PutOutcome::NotMet(current) => RegisterReply::Refused(number(current.as_ref())),
    })
}
