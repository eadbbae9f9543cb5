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

mod history;
mod judge;
mod tasks;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acteon_state_core::{ErrorKind, StateKey};
use acteon_state_redis::RedisStore;
use tokio::task::JoinSet;

use history::{History, Told};
use judge::Contents;
use tasks::Tasks;

/// How long traffic may take to come back, on a busy machine and with a quarantine.
const RESUME_PATIENCE: Duration = Duration::from_secs(120);
/// For how long the load goes on after traffic has resumed.
const AFTERMATH: Duration = Duration::from_secs(1);
/// Successes of each kind before a fault.
const WARM: u64 = 50;
/// Violations that are shown.
const SHOWN_MAX: usize = 10;

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

/// How many [`Kind`]s there are.
const KINDS: usize = 7;

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

impl Report {
    /// The longest time without a success of operations that wait for nobody: all but those about locks.
    pub(super) fn window(&self) -> Duration {
        let windows = self.windows.iter().filter(|(kind, _)| **kind != Kind::Lock);
        windows.map(|(_, window)| *window).max().unwrap_or_default()
    }
}

/// A running load.
pub(super) struct Workload {
    tasks: Arc<Tasks>,
    stores: Vec<RedisStore>,
    running: JoinSet<()>,
}

impl Workload {
    /// Starts all tasks, spread over these stores.
    pub(super) fn start(stores: Vec<RedisStore>, options: Options) -> Self {
        let tasks = Arc::new(Tasks::new(options));
        let mut load = Self { tasks, stores, running: JoinSet::new() };
        for task in 0..3 {
            load.spawn(task, Tasks::ask_registers);
            load.spawn(task, Tasks::take_locks);
        }
        for task in 0..2 {
            load.spawn(task, Tasks::put);
            load.spawn(task, Tasks::increment);
            load.spawn(task, Tasks::batch);
            load.spawn(task, Tasks::schedule);
            load.spawn(task, Tasks::claim);
        }
        load
    }

    /// The keys that many calls are about: queues, locks and shared counters.
    pub(super) fn shared_keys(&self) -> Vec<StateKey> {
        self.tasks.shared_keys()
    }

    /// Returns once each kind has succeeded some times.
    pub(super) async fn warm_up(&self) {
        let is_warm = |history: &History| {
            let mut counts: BTreeMap<Kind, u64> = BTreeMap::new();
            for ((kind, _), progress) in &history.progress {
                *counts.entry(*kind).or_default() += progress.count;
            }
            counts.len() == KINDS && counts.values().all(|count| *count >= WARM)
        };
        self.until("the load runs", is_warm).await;
    }

    /// Says that a fault comes now.
    pub(super) fn fault(&self) {
        let before = self.tasks.history().fault.replace(Instant::now());
        assert!(before.is_none(), "one fault for each load");
        self.tasks.change_register();
    }

    /// Waits until each kind succeeds again, wherever it had before the fault. To be called once no server can answer any more that
    /// is not to be used: from now on nothing may be lost.
    pub(super) async fn resumed(&self) {
        let since = Instant::now();
        let resumes = |history: &History| history.progress.values().all(|progress| progress.began >= since);
        self.until("traffic resumes", resumes).await;
        let before = self.tasks.history().resumed.replace(Instant::now());
        assert!(before.is_none(), "traffic resumes once");
        self.tasks.change_register();
    }

    /// Ends the load after a while and judges it. Prints the report under this name.
    ///
    /// # Panics
    /// What the servers have, or what calls were told, is against what the topology promises.
    pub(super) async fn finish(self, name: &str) -> Report {
        tokio::time::sleep(AFTERMATH).await;
        self.tasks.stop.cancel();
        self.running.join_all().await;
        self.tasks.drain(&self.stores[0]).await;
        let history = std::mem::take(&mut *self.tasks.history());
        let contents = Contents::read(&self.stores[0], &history).await;
        let verdict = judge::judge(&history, &contents, &self.tasks.options);
        let report = history.report(verdict.lost);
        let violations = verdict.violations;
        let shown = &violations[..violations.len().min(SHOWN_MAX)];
        assert!(violations.is_empty(), "{} violations, such as\n{}\n{report}", violations.len(), shown.join("\n"));
        println!("{name}: {report}");
        report
    }

    fn spawn<F>(&mut self, task: usize, work: fn(Arc<Tasks>, RedisStore) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.running.spawn(work(self.tasks.clone(), self.stores[task % self.stores.len()].clone()));
    }

    async fn until(&self, what: &str, condition: impl Fn(&History) -> bool) {
        let started = Instant::now();
        while !condition(&self.tasks.history()) {
            if started.elapsed() > RESUME_PATIENCE {
                let history = self.tasks.history();
                let progress: Vec<_> =
                    history.progress.iter().map(|(what, p)| (what, p.count, p.ended.elapsed())).collect();
                panic!(
                    "{what}: in vain; successes and time since the last one: {progress:?}; errors {:?}",
                    history.errors
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} s without a success (", self.window().as_secs_f64())?;
        for (at, (kind, window)) in self.windows.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{kind:?} {:.2}", window.as_secs_f64())?;
        }
        write!(f, "); calls {:?}, errors {:?}", self.told, self.errors)?;
        write!(f, "; {} acknowledged writes lost, {} grants", self.lost, self.grants)
    }
}
