//! get, put and increment in process, over the same random walk through the same keys.
//!
//! DashMap is the base line: it does the bare map work (a clone of the value on get, a new vector on put) and keeps no
//! version, no time to live and no condition. The contract's store is called through `Arc<dyn StateStore>`.

use std::collections::HashMap;
use std::iter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acteon_engine::{Engine, EngineConfig, Expiry};
use acteon_state_core::{Get, Increment, Put, Scope, StateKey, StateStore};
use acteon_state_memory::MemoryStore;
use bytes::Bytes;
use dashmap::DashMap;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;

use crate::report::{Chart, Goal, Group, Report, Scale};
use crate::rounds::{Contestant, Standing, compare};
use crate::{Options, Outcome};

const VALUE: [u8; 64] = [b'x'; 64];
/// Operations of one thread in one round.
const OPERATIONS: usize = 500_000;
/// A part of them is enough where threads queue up at every one, which takes a hundred times as long.
const QUEUED_PART: usize = 10;

const DASH: &str = "DashMap";
const STORE: &str = "StateStore (memory)";
const ENGINE: &str = "engine, typed";
const MOKA: &str = "moka";
const MUTEXED: &str = "tokio Mutex<HashMap>";

/// The engine's clock, which the benchmark does not move: nothing expires.
const NOW_MS: u64 = 1;

/// The contestants, filled with the same keys.
pub struct Field {
    keys: Vec<StateKey>,
    bytes: Vec<Vec<u8>>,
    counters: Vec<StateKey>,
    store: Arc<dyn StateStore>,
    engine: Engine,
    dash: DashMap<Vec<u8>, Vec<u8>>,
    dash_counters: DashMap<Vec<u8>, i64>,
    moka: moka::sync::Cache<Vec<u8>, Vec<u8>>,
    moka_counters: moka::sync::Cache<Vec<u8>, i64>,
    mutexed: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    mutexed_counters: Mutex<HashMap<Vec<u8>, i64>>,
    runtime: Runtime,
    /// Of one thread in one round.
    operations: usize,
}

/// Runs the suite.
///
/// # Errors
/// Whatever was measured failed.
pub fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    let (keys, rounds) = (options.keys, options.rounds);
    eprintln!("memory: filling five kinds of stores with {keys} keys");
    let mut field = Field::fill(keys)?;
    field.operations = options.scaled(OPERATIONS);
    report.line(format_args!(
        "{keys} keys, 64-byte values, {} operations per thread and round, medians of {rounds} rounds",
        field.operations
    ));
    report.standings_table(DASH);
    let mut cases = Vec::new();
    for threads in [1, 2] {
        for (case, contestants) in field.cases(threads) {
            let label = format!("{case}, {threads} {}", if threads == 1 { "thread" } else { "threads" });
            eprintln!("memory: {label}");
            let standings = compare(contestants, rounds);
            report.standings(&label, &standings);
            cases.push((label, standings));
        }
    }
    goals(&cases, report);
    chart(&cases, report);
    Ok(())
}

type Case = (String, Vec<Standing>);

/// The ratio of a contestant to the base line.
fn ratio((_, standings): &Case, name: &str) -> Option<f64> {
    standings.iter().find(|standing| standing.name == name).map(|standing| standing.ratio)
}

fn goals(cases: &[Case], report: &mut Report) {
    for threads in ["1 thread", "2 threads"] {
        let cases = || cases.iter().filter(|(label, _)| label.ends_with(threads));
        let of = |name: &'static str| cases().filter_map(move |case| Some((case.0.clone(), ratio(case, name)?)));
        let to_moka = cases().filter_map(|case| Some((case.0.clone(), ratio(case, STORE)? / ratio(case, MOKA)?)));
        report.goal(Goal::at_most(format!("store, {threads}: time to DashMap's"), 2.0, "x").cases(of(STORE)));
        report.goal(Goal::at_most(format!("store, {threads}: time to moka's"), 1.0, "x").cases(to_moka));
        report.goal(
            Goal::at_most(format!("typed engine calls, {threads}: time to DashMap's"), 1.3, "x").cases(of(ENGINE)),
        );
    }
}

fn chart(cases: &[Case], report: &mut Report) {
    let shown = [STORE, ENGINE, MOKA, MUTEXED];
    let group = |case: &Case| Group {
        label: case.0.clone(),
        values: shown.iter().map(|name| ratio(case, name)).collect(),
        goal: Some(2.0),
    };
    report.chart(Chart {
        name: "",
        title: "In process: time of an operation beside DashMap".to_owned(),
        axis: "time relative to DashMap, logarithmic",
        scale: Scale::Log,
        series: shown.map(str::to_owned).to_vec(),
        groups: cases.iter().map(group).collect(),
    });
}

impl Field {
    /// Fills every contestant with `count` keys.
    ///
    /// # Errors
    /// Whatever a store reports.
    pub fn fill(count: usize) -> Outcome<Self> {
        let scope = Scope::new("bench", "acme", "value")?;
        let counting = Scope::new("bench", "acme", "count")?;
        let keys = (0..count).map(|at| scope.key(&format!("{at:012}"))).collect::<Result<Vec<_>, _>>()?;
        let counters = (0..count).map(|at| counting.key(&format!("{at:012}"))).collect::<Result<Vec<_>, _>>()?;
        let bytes: Vec<Vec<u8>> = keys.iter().map(|key| format!("acteon:{}", key.text()).into_bytes()).collect();
        let field = Self {
            keys,
            bytes,
            counters,
            store: Arc::new(MemoryStore::default()),
            engine: Engine::new(EngineConfig::default()),
            dash: DashMap::new(),
            dash_counters: DashMap::new(),
            moka: moka::sync::Cache::new(2 * count as u64),
            moka_counters: moka::sync::Cache::new(2 * count as u64),
            mutexed: Mutex::new(HashMap::new()),
            mutexed_counters: Mutex::new(HashMap::new()),
            runtime: Builder::new_current_thread().enable_time().build()?,
            operations: OPERATIONS,
        };
        for key in &field.bytes {
            field.dash.insert(key.clone(), VALUE.to_vec());
            field.dash_counters.insert(key.clone(), 0);
            field.moka.insert(key.clone(), VALUE.to_vec());
            field.moka_counters.insert(key.clone(), 0);
            field.mutexed.blocking_lock().insert(key.clone(), VALUE.to_vec());
            field.mutexed_counters.blocking_lock().insert(key.clone(), 0);
            field.engine.update(key, NOW_MS, |slot| slot.set_str(&[&VALUE], Expiry::Clear))?;
        }
        field.runtime.block_on(async {
            for (key, counter) in field.keys.iter().zip(&field.counters) {
                field.store.put(key, &Put::new(Bytes::from_static(&VALUE))).await?;
                field.store.increment(counter, Increment::by(1)).await?;
            }
            Ok::<_, acteon_state_core::Error>(())
        })?;
        Ok(field)
    }

    /// The cases by name, with their contestants; the first of each is the base line.
    #[must_use]
    pub fn cases(&self, threads: usize) -> [(&'static str, Vec<Contestant<'_>>); 3] {
        [("get", self.gets(threads)), ("put", self.puts(threads)), ("increment", self.increments(threads))]
    }

    fn gets(&self, threads: usize) -> Vec<Contestant<'_>> {
        vec![
            self.sync(DASH, threads, |at| drop(self.dash.get(&self.bytes[at]).map(|value| value.clone()))),
            self.asynchronous(STORE, threads, self.operations, async |at| {
                drop(expect(self.store.get(&self.keys[at], Get::default()).await));
            }),
            self.sync(ENGINE, threads, |at| {
                drop(
                    self.engine.read(&self.bytes[at], NOW_MS, |entry| {
                        entry.and_then(|entry| entry.as_str().map(<[u8]>::to_vec))
                    }),
                );
            }),
            self.sync(MOKA, threads, |at| drop(self.moka.get(&self.bytes[at]))),
            self.asynchronous(MUTEXED, threads, self.queued(threads), async |at| {
                drop(self.mutexed.lock().await.get(&self.bytes[at]).cloned());
            }),
        ]
    }

    fn puts(&self, threads: usize) -> Vec<Contestant<'_>> {
        vec![
            self.sync(DASH, threads, |at| drop(self.dash.insert(self.bytes[at].clone(), VALUE.to_vec()))),
            self.asynchronous(STORE, threads, self.operations, async |at| {
                let put = Put::new(Bytes::from_static(&VALUE));
                drop(expect(self.store.put(&self.keys[at], &put).await));
            }),
            self.sync(ENGINE, threads, |at| {
                expect(self.engine.update(&self.bytes[at], NOW_MS, |slot| slot.set_str(&[&VALUE], Expiry::Clear)));
            }),
            self.sync(MOKA, threads, |at| self.moka.insert(self.bytes[at].clone(), VALUE.to_vec())),
            self.asynchronous(MUTEXED, threads, self.queued(threads), async |at| {
                drop(self.mutexed.lock().await.insert(self.bytes[at].clone(), VALUE.to_vec()));
            }),
        ]
    }

    fn increments(&self, threads: usize) -> Vec<Contestant<'_>> {
        vec![
            self.sync(DASH, threads, |at| *self.dash_counters.entry(self.bytes[at].clone()).or_insert(0) += 1),
            self.asynchronous(STORE, threads, self.operations, async |at| {
                expect(self.store.increment(&self.counters[at], Increment::by(1)).await);
            }),
            self.sync(MOKA, threads, |at| {
                self.moka_counters
                    .entry_by_ref(&self.bytes[at])
                    .and_upsert_with(|entry| entry.map_or(1, |entry| entry.into_value() + 1));
            }),
            self.asynchronous(MUTEXED, threads, self.queued(threads), async |at| {
                *self.mutexed_counters.lock().await.entry(self.bytes[at].clone()).or_insert(0) += 1;
            }),
        ]
    }

    fn sync<'a>(&'a self, name: &str, threads: usize, work: impl Fn(usize) + Sync + 'a) -> Contestant<'a> {
        let (count, operations) = (self.keys.len(), self.operations);
        Contestant::new(name, move || {
            on_threads(threads, operations, |thread| walk(thread, count).take(operations).for_each(&work))
        })
    }

    /// Operations of one thread where all threads take one lock.
    const fn queued(&self, threads: usize) -> usize {
        if threads == 1 { self.operations } else { self.operations / QUEUED_PART }
    }

    /// Each thread drives its loop by a runtime of its own: no operation here waits.
    fn asynchronous<'a, W>(&'a self, name: &str, threads: usize, operations: usize, work: W) -> Contestant<'a>
    where
        W: AsyncFn(usize) + Sync + 'a,
    {
        let count = self.keys.len();
        Contestant::new(name, move || {
            on_threads(threads, operations, |thread| {
                let runtime = expect(Builder::new_current_thread().build());
                runtime.block_on(async {
                    for at in walk(thread, count).take(operations) {
                        work(at).await;
                    }
                });
            })
        })
    }
}

/// A fixed pseudo-random walk over the keys (a linear congruential generator with Knuth's constants), another one per
/// thread: cheap, and the same for every contestant.
pub(crate) fn walk(thread: usize, count: usize) -> impl Iterator<Item = usize> {
    let mut state = thread as u64 + 1;
    iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize) % count
    })
}

/// The time per operation of one thread, all threads working at once.
fn on_threads(threads: usize, operations: usize, work: impl Fn(usize) + Sync) -> Duration {
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let work = &work;
            scope.spawn(move || work(thread));
        }
    });
    started.elapsed() / u32::try_from(operations).unwrap_or(u32::MAX)
}

/// A benchmark that fails must not report a figure.
fn expect<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("an operation failed while being measured: {error}"))
}
