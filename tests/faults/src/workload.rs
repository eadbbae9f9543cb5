//! Many tasks that ask a few objects at once, from a seed.
//!
//! # Guarantees
//! What each task asks follows from the seed and from what it was told; in which order the tasks come to act is the scheduler's
//! choice, so a run is repeated exactly only where the scheduler is (one thread, a clock that is moved by hand). Each task makes one call at a
//! time. A call that is not answered within the patience is given up, and may have happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use acteon_state_conformance::objects::{
    CounterOperation, If, LockOperation, LockReply, Mode, RegisterOperation, RegisterReply, Write, WriteTtl,
};
use acteon_state_core::{Effect, Error, ErrorKind, Result, Scope, State, StateKey};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::ask::{Terms, ask};
use crate::history::{Asked, DueAnswer, DueQuestion, HandedOut, HistoryRecorder, Question, Told};
use crate::log::Log;
use crate::random::Random;

/// Values, operations and owners of one task are apart from those of the next by this.
const NUMBERS_PER_TASK: u32 = 1_000_000;

/// Items of a queue: few, so that they are scheduled anew while they are claimed.
const ITEMS: u64 = 4;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Where all choices come from.
    pub seed: u64,
    /// How many tasks; each stands for a process.
    pub tasks: u32,
    /// The number of the first of them. Tasks of several workloads on the same objects have numbers of their own.
    pub first_process: u32,
    /// How many calls each makes, unless it is stopped before.
    pub calls: u32,
    /// Once this is set, tasks end after the call that they are making.
    pub stop: Arc<AtomicBool>,
    /// The token above which those of fenced writes rise.
    pub first_token: u64,
    /// Which kinds of objects, each as often as it is named.
    pub kinds: Vec<Kind>,
    /// Objects of each kind: few, so that tasks meet.
    pub objects: u64,
    /// Where they lie. Fresh in each run.
    pub scope: Scope,
    /// Bounds of counters, and how long a lock is waited for.
    pub terms: Terms,
    /// Times to live, leases and visibility timeouts.
    pub lifetime: Duration,
    /// The longest pause between two calls of a task.
    pub pause_max: Duration,
    /// When a call is given up; `None` waits for ever.
    pub patience: Option<Duration>,
}

/// A kind of object, and how it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A register that is read, written, swapped, deleted and taken.
    Register,
    /// A register whose values have a time to live.
    Expiring,
    /// A register that is written under rising tokens, and now and then under one that was overtaken.
    Fenced,
    /// A counter.
    Counter,
    /// A lock whose holders extend, release, and now and then forget it.
    Lock,
    /// A due queue whose workers acknowledge, extend, and now and then come too late.
    Queue,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Register, Self::Expiring, Self::Fenced, Self::Counter, Self::Lock, Self::Queue];

    const fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Expiring => "expiring",
            Self::Fenced => "fenced",
            Self::Counter => "counter",
            Self::Lock => "lock",
            Self::Queue => "queue",
        }
    }
}

impl Workload {
    /// A small one of all kinds, with objects in this scope.
    #[must_use]
    pub fn new(seed: u64, scope: Scope) -> Self {
        Self {
            seed,
            tasks: 6,
            first_process: 0,
            calls: 200,
            stop: Arc::default(),
            first_token: 1,
            kinds: Kind::ALL.to_vec(),
            objects: 2,
            scope,
            terms: Terms::default(),
            lifetime: Duration::from_millis(40),
            pause_max: Duration::ZERO,
            patience: None,
        }
    }

    /// All its objects.
    ///
    /// # Errors
    /// Keys in this scope would be too long.
    pub fn keys(&self) -> Result<Vec<StateKey>> {
        let of_kind = |kind: &Kind| (0..self.objects).map(|number| self.key(*kind, number)).collect::<Vec<_>>();
        self.kinds.iter().flat_map(of_kind).collect()
    }

    fn key(&self, kind: Kind, number: u64) -> Result<StateKey> {
        self.scope.key(&format!("{}-{number}", kind.name()))
    }

    /// Carries it out over several handles, task by task in turn. Returns how many calls failed without effect, by kind.
    ///
    /// # Errors
    /// The first error that no fault explains, such as a value that does not parse.
    pub async fn run<R: Records>(&self, states: &[State], recorder: &R) -> Result<BTreeMap<&'static str, u64>> {
        let (mut seeds, token) = (Random::new(self.seed), Arc::new(AtomicU64::new(self.first_token)));
        let mut tasks = JoinSet::new();
        for (process, state) in (self.first_process..self.first_process + self.tasks).zip(states.iter().cycle()) {
            let worker = Worker {
                process,
                state: state.clone(),
                workload: self.clone(),
                recorder: recorder.clone(),
                random: seeds.fork(),
                token: token.clone(),
                numbers: process * NUMBERS_PER_TASK,
                seen: BTreeMap::new(),
                held: BTreeMap::new(),
                claims: Vec::new(),
                failures: BTreeMap::new(),
            };
            tasks.spawn(worker.work());
        }
        let mut failures = BTreeMap::new();
        while let Some(done) = tasks.join_next().await {
            let done =
                done.map_err(|panic| Error::new(ErrorKind::Internal, "a task ended early").with_source(panic))?;
            for (kind, count) in done? {
                *failures.entry(kind).or_insert(0) += count;
            }
        }
        Ok(failures)
    }
}

/// Where calls are recorded: in memory, or in a file that survives its process.
pub trait Records: Clone + Send + 'static {
    /// Makes a call and records it, as [`Recorder::attempt`](acteon_state_conformance::history::Recorder::attempt) does.
    ///
    /// # Errors
    /// Those of the call.
    fn attempt(
        &self,
        asked: Asked,
        call: impl Future<Output = Result<Told>> + Send,
    ) -> impl Future<Output = Result<Told>> + Send;
}

impl Records for HistoryRecorder {
    async fn attempt(&self, asked: Asked, call: impl Future<Output = Result<Told>> + Send) -> Result<Told> {
        HistoryRecorder::attempt(self, asked, call).await
    }
}

impl Records for Log {
    async fn attempt(&self, asked: Asked, call: impl Future<Output = Result<Told>> + Send) -> Result<Told> {
        Log::attempt(self, asked, call).await
    }
}

/// One task.
struct Worker<R> {
    process: u32,
    state: State,
    workload: Workload,
    recorder: R,
    random: Random,
    /// The newest token of fenced writes, of all tasks.
    token: Arc<AtomicU64>,
    /// The last number that was used for a value, an operation or an owner.
    numbers: u32,
    /// The value that it saw last in each register.
    seen: BTreeMap<String, u32>,
    /// The acquisition by which it holds, or held, each lock.
    held: BTreeMap<String, u32>,
    /// Items that it claimed, with their queues.
    claims: Vec<(StateKey, HandedOut)>,
    failures: BTreeMap<&'static str, u64>,
}

impl<R: Records> Worker<R> {
    async fn work(mut self) -> Result<BTreeMap<&'static str, u64>> {
        for _ in 0..self.workload.calls {
            if self.workload.stop.load(Ordering::Relaxed) {
                break;
            }
            let kind = *self.random.pick(&self.workload.kinds);
            let object = self.workload.key(kind, self.random.below(self.workload.objects))?;
            let question = self.question(kind, &object);
            if let Some(told) = self.ask(&object, &question).await? {
                self.learn(&object, &question, told);
            }
            self.pause().await;
        }
        Ok(self.failures)
    }

    async fn pause(&mut self) {
        let pause_max_us = u64::try_from(self.workload.pause_max.as_micros()).unwrap_or(u64::MAX);
        if pause_max_us == 0 {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(Duration::from_micros(self.random.below(pause_max_us))).await;
        }
    }

    /// Asks and records. `None` when nobody knows the answer, or there was none.
    async fn ask(&mut self, object: &StateKey, question: &Question) -> Result<Option<Told>> {
        let asked = Asked { process: self.process, object: object.clone(), question: question.clone() };
        let call = self.recorder.attempt(asked, ask(&self.state, object, question, &self.workload.terms));
        let patience = self.workload.patience.unwrap_or(Duration::MAX);
        let error = match tokio::time::timeout(patience, call).await {
            Ok(Ok(told)) => return Ok(Some(told)),
            Ok(Err(error)) => error,
            Err(_) => Error::new(ErrorKind::Timeout, "the patience ended").with_effect(Effect::Unknown),
        };
        // Out of memory or not durable is what some faults are about; the others would be a bug of ours or the driver's.
        let is_expected = error.kind().is_transient()
            || error.effect() == Effect::Unknown
            || matches!(error.kind(), ErrorKind::OutOfMemory | ErrorKind::NotDurable | ErrorKind::Contended);
        if !is_expected {
            return Err(error);
        }
        *self.failures.entry(error.kind().as_str()).or_insert(0) += 1;
        Ok(None)
    }

    fn question(&mut self, kind: Kind, object: &StateKey) -> Question {
        match kind {
            Kind::Register => Question::Register(self.register_operation(object)),
            Kind::Expiring => Question::Register(self.expiring_operation()),
            Kind::Fenced => Question::Register(self.fenced_operation()),
            Kind::Counter => Question::Counter(self.counter_operation()),
            Kind::Lock => Question::Lock(self.lock_operation(object)),
            Kind::Queue => Question::Due(self.due_question(object)),
        }
    }

    fn register_operation(&mut self, object: &StateKey) -> RegisterOperation {
        let (fresh, seen) = (self.fresh(), self.seen.get(object.text()).copied());
        match (self.random.below(12), seen) {
            (0..=2, _) => RegisterOperation::Get,
            (3, _) => RegisterOperation::set(fresh),
            (4..=5, _) | (6..=8, None) => RegisterOperation::set_absent(fresh),
            (6..=8, Some(seen)) => RegisterOperation::swap(seen, fresh),
            (9, _) => RegisterOperation::Delete(If::Always),
            _ => RegisterOperation::Take,
        }
    }

    fn expiring_operation(&mut self) -> RegisterOperation {
        let (value, ttl) = (self.fresh(), WriteTtl::AfterNs(self.lifetime_ns()));
        match self.random.below(6) {
            0 => RegisterOperation::Put(Write { value, when: If::Always, ttl }),
            1..=2 => RegisterOperation::Put(Write { value, when: If::Absent, ttl }),
            _ => RegisterOperation::Get,
        }
    }

    fn fenced_operation(&mut self) -> RegisterOperation {
        match self.random.below(6) {
            0..=1 => RegisterOperation::Get,
            2..=3 => RegisterOperation::fenced(self.token.fetch_add(1, Ordering::Relaxed) + 1, self.fresh()),
            _ => {
                let newest = self.token.load(Ordering::Relaxed);
                let overtaken = newest.saturating_sub(self.random.below(3)).max(1);
                RegisterOperation::fenced(overtaken, self.fresh())
            }
        }
    }

    fn counter_operation(&mut self) -> CounterOperation {
        match self.random.below(8) {
            0 => CounterOperation::Get,
            step => CounterOperation::Add { step: [1, 1, 1, 1, 2, 2, -1][step as usize - 1], id: self.fresh() },
        }
    }

    fn lock_operation(&mut self, object: &StateKey) -> LockOperation {
        let lease_ns = self.lifetime_ns();
        match (self.held.get(object.text()).copied(), self.random.below(10)) {
            (Some(owner), 0..=1) => LockOperation::Extend { owner, lease_ns },
            (Some(owner), 2..=8) => {
                self.held.remove(object.text());
                LockOperation::Release(owner)
            }
            _ => LockOperation::Acquire { owner: self.fresh(), mode: Mode::Exclusive, lease_ns },
        }
    }

    fn due_question(&mut self, queue: &StateKey) -> DueQuestion {
        let visibility_ns = self.lifetime_ns();
        let claim = self.claims.iter().position(|(claimed_in, _)| claimed_in == queue);
        match (claim, self.random.below(10)) {
            (Some(at), 0..=3) => {
                let (_, HandedOut { id, token, .. }) = self.claims.remove(at);
                DueQuestion::Ack { id, token }
            }
            (Some(at), 4) => {
                let HandedOut { id, token, .. } = self.claims[at].1.clone();
                DueQuestion::Extend { id, token, visibility_ns }
            }
            (_, 5) => DueQuestion::Cancel { id: self.item() },
            (_, 6..=7) => {
                let after_ns = *self.random.pick(&[0, 0, visibility_ns / 4]);
                DueQuestion::Schedule { id: self.item(), after_ns }
            }
            _ => DueQuestion::Claim { limit: 2, visibility_ns },
        }
    }

    fn learn(&mut self, object: &StateKey, question: &Question, told: Told) {
        match (question, told) {
            (_, Told::Register(RegisterReply::Found(Some(value)) | RegisterReply::Refused(Some(value)))) => {
                self.seen.insert(object.text().to_owned(), value);
            }
            (Question::Register(RegisterOperation::Put(write)), Told::Register(RegisterReply::Written)) => {
                self.seen.insert(object.text().to_owned(), write.value);
            }
            (Question::Lock(operation), Told::Lock(LockReply::Granted(_))) => {
                self.held.insert(object.text().to_owned(), operation.owner());
            }
            (_, Told::Due(DueAnswer::Claimed(items, _))) => {
                self.claims.extend(items.into_iter().map(|item| (object.clone(), item)));
            }
            _ => {}
        }
    }

    fn fresh(&mut self) -> u32 {
        self.numbers += 1;
        self.numbers
    }

    fn item(&mut self) -> String {
        format!("item-{}", self.random.below(ITEMS))
    }

    fn lifetime_ns(&self) -> u64 {
        u64::try_from(self.workload.lifetime.as_nanos()).unwrap_or(u64::MAX)
    }
}
