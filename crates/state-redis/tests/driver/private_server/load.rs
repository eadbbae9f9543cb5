//! A load of mixed operations that goes on while servers fail, its history, and what a topology promises of it.
//!
//! # How it is used
//! ```ignore
//! let mut load = Load::start(stores, Options::default());
//! load.warm_up().await;
//! load.fault();                  // before anything is done to a server
//! group.nodes[0].kill9()?;
//! group.wait_for_primary_other_than(0)?;
//! load.resumed().await;          // once no call can be answered by the server that failed
//! let report = load.finish("kill -9 of the primary").await;
//! ```
//! [`finish`](Load::finish) lets it run a little longer, looks at what the servers have, and fails the test unless that agrees
//! with what the calls were told; see [`verdict`].
//!
//! # How it works
//! There are objects of three scopes. A few are asked by many tasks all the time. What is `own` is written once and looked at in the
//! end, so that each write is there or not, once or twice. What comes `after` is asked only once traffic has resumed. All
//! calls are one history, which the judges of `acteon-faults` understand.

mod own;
mod verdict;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use acteon_faults::{Kind as ObjectKind, Random, Terms, Workload, seed};
use acteon_state_core::{Result, Scope, State, StateKey};
use acteon_state_redis::RedisStore;
use tokio::task::JoinSet;

use own::Own;
use verdict::{Span, verdict};
use watch::Watch;

pub(super) use watch::Report;

/// How long traffic may take to come back, on a busy machine and with a quarantine.
const RESUME_PATIENCE: Duration = Duration::from_secs(120);
/// For how long the load goes on after traffic has resumed.
const AFTERMATH: Duration = Duration::from_secs(1);
/// Successes of each kind before a fault.
const WARM: u64 = 50;

/// Objects of each kind: enough that each shard of a small Cluster has some.
const OBJECTS: u64 = 6;
/// Tasks that ask them, and their longest pause: calls enough to meet any moment of a fault, and few enough to judge.
const TASKS: u32 = 6;
const PAUSE_MAX: Duration = Duration::from_millis(6);
/// More than any test makes: a load ends by being stopped.
const CALLS_MAX: u32 = 900_000;
/// How long a request for a lock waits.
const LOCK_WAIT: Duration = Duration::from_millis(25);

/// Times to live are left out: moving a key to another node takes some of its time, and how much cannot be said.
const KINDS: [ObjectKind; 5] =
    [ObjectKind::Register, ObjectKind::Fenced, ObjectKind::Counter, ObjectKind::Lock, ObjectKind::Queue];

/// The kinds of keys, one for each scope.
const UNDER: &str = "under";
const OWN: &str = "own";
const AFTER: &str = "after";

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
    /// The lease of locks, and how long claimed items are out of sight.
    pub(super) lease: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { shard_of: Arc::new(|_| 0), may_lose: Vec::new(), strict_locks: false, lease: Duration::from_secs(2) }
    }
}

/// A running load.
pub(super) struct Load {
    options: Options,
    seed: u64,
    /// Keeps loads of one server apart.
    run: u64,
    states: Vec<State>,
    watch: Watch,
    own: Arc<Own>,
    stop: Arc<AtomicBool>,
    running: JoinSet<Result<()>>,
    span: Span,
}

impl Load {
    /// Starts all tasks, spread over these stores.
    pub(super) fn start(stores: Vec<RedisStore>, options: Options) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let watch = Watch::new(options.shard_of.clone());
        let stop = Arc::<AtomicBool>::default();
        let own = Arc::new(Own::new(scope(run, OWN), watch.clone(), stop.clone()));
        let states = stores.into_iter().map(|store| State::new(Arc::new(store))).collect();
        let (running, span) = (JoinSet::new(), Span::default());
        let mut load = Self { options, seed: seed(), run, states, watch, own, stop, running, span };
        load.ask_objects(UNDER, 0);
        load.write_own();
        load
    }

    /// The objects that many tasks ask.
    pub(super) fn shared_keys(&self) -> Vec<StateKey> {
        self.workload(UNDER, 0).keys().unwrap()
    }

    /// Returns once each kind has succeeded some times.
    pub(super) async fn warm_up(&self) {
        self.until("the load runs", |watch| watch.is_warm(WARM)).await;
    }

    /// Says that a fault comes now.
    pub(super) fn fault(&mut self) {
        self.watch.fault();
        assert!(self.span.fault.replace(self.watch.place()).is_none(), "one fault for each load");
    }

    /// Waits until each kind succeeds again, wherever it had before the fault. To be called once no server can answer any more that
    /// is not to be used: from now on nothing may be lost.
    pub(super) async fn resumed(&mut self) {
        let since = Instant::now();
        self.until("traffic resumes", |watch| watch.has_resumed(since)).await;
        assert!(self.span.resumed.replace(self.watch.place()).is_none(), "traffic resumes once");
        self.ask_objects(AFTER, TASKS);
    }

    /// Ends the load after a while and judges it. Prints the report under this name.
    ///
    /// # Panics
    /// What the servers have, or what calls were told, is against what the topology promises.
    pub(super) async fn finish(mut self, name: &str) -> Report {
        tokio::time::sleep(AFTERMATH).await;
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.running.join_next().await {
            ended.expect("tasks do not panic").expect("only faults make calls fail");
        }
        self.own.look(&self.states[0]).await;
        let history = self.watch.finish();
        let mut report = self.watch.report(&history);
        let verdict = verdict(history, &self.options, self.span, self.seed);
        report.lost = verdict.lost;
        assert!(verdict.wrong.is_empty(), "{name}: {}\n{report}", verdict.wrong.join("\n"));
        println!("{name}: {report}");
        report
    }

    /// Several tasks that ask the objects of a scope.
    fn workload(&self, kind: &str, first_process: u32) -> Workload {
        Workload {
            tasks: TASKS,
            first_process,
            calls: CALLS_MAX,
            stop: self.stop.clone(),
            kinds: KINDS.to_vec(),
            objects: OBJECTS,
            terms: Terms { lock_wait: LOCK_WAIT, ..Terms::default() },
            lifetime: self.options.lease,
            pause_max: PAUSE_MAX,
            ..Workload::new(self.seed, scope(self.run, kind))
        }
    }

    fn ask_objects(&mut self, kind: &str, first_process: u32) {
        let (workload, states, watch) = (self.workload(kind, first_process), self.states.clone(), self.watch.clone());
        self.running.spawn(async move { workload.run(&states, &watch).await.map(drop) });
    }

    fn write_own(&mut self) {
        let mut seeds = Random::new(self.seed);
        for task in 0..2 {
            let state = &self.states[task % self.states.len()];
            self.running.spawn(self.own.clone().write(state.clone(), seeds.fork()));
            self.running.spawn(self.own.clone().write_batches(state.clone(), seeds.fork()));
        }
    }

    async fn until(&self, what: &str, condition: impl Fn(&Watch) -> bool) {
        let started = Instant::now();
        while !condition(&self.watch) {
            assert!(started.elapsed() < RESUME_PATIENCE, "{what}: in vain; {}", self.watch.describe());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn scope(run: u64, kind: &str) -> Scope {
    Scope::new("load", &format!("run-{run}"), kind).unwrap()
}
