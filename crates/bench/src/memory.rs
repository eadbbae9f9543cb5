//! get, put and increment in process, over the same random walk through the same keys.
//!
//! DashMap is the base line: it does the bare map work (a clone of the value on get, a new vector on put) and keeps no
//! version, no time to live and no condition. The contract's store is called through `Arc<dyn StateStore>`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acteon_engine::{Engine, EngineConfig, Expiry};
use acteon_state_core::{Get, Increment, Put, Scope, StateKey, StateStore};
use acteon_state_memory::MemoryStore;
use bytes::Bytes;
use dashmap::DashMap;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;

use crate::Outcome;
use crate::report;
use crate::rounds::{Contestant, compare};

const VALUE: [u8; 64] = [b'x'; 64];
/// Operations of one thread in one round.
const OPERATIONS: usize = 500_000;
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
    mutexed: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    runtime: Runtime,
}

/// Runs the suite.
///
/// # Errors
/// Whatever was measured failed.
pub fn run(keys: usize, rounds: usize) -> Outcome {
    eprintln!("filling five stores with {keys} keys");
    let field = Field::fill(keys)?;
    println!("{keys} keys, 64-byte values, {OPERATIONS} operations per thread and round, {rounds} rounds\n");
    report::head("DashMap");
    for threads in [1, 2] {
        for (case, contestants) in field.cases(threads) {
            report::rows(&format!("{case}, {threads} threads"), &compare(contestants, rounds));
        }
    }
    Ok(())
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
            mutexed: Mutex::new(HashMap::new()),
            runtime: Builder::new_current_thread().enable_time().build()?,
        };
        for key in &field.bytes {
            field.dash.insert(key.clone(), VALUE.to_vec());
            field.dash_counters.insert(key.clone(), 0);
            field.moka.insert(key.clone(), VALUE.to_vec());
            field.mutexed.blocking_lock().insert(key.clone(), VALUE.to_vec());
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
            self.sync("DashMap", threads, |at| drop(self.dash.get(&self.bytes[at]).map(|value| value.clone()))),
            self.asynchronous("StateStore (memory)", threads, async |at| {
                drop(expect(self.store.get(&self.keys[at], Get::default()).await));
            }),
            self.sync("engine, typed", threads, |at| {
                drop(
                    self.engine.read(&self.bytes[at], NOW_MS, |entry| {
                        entry.and_then(|entry| entry.as_str().map(<[u8]>::to_vec))
                    }),
                );
            }),
            self.sync("moka", threads, |at| drop(self.moka.get(&self.bytes[at]))),
            self.asynchronous("tokio Mutex<HashMap>", threads, async |at| {
                drop(self.mutexed.lock().await.get(&self.bytes[at]).cloned());
            }),
        ]
    }

    fn puts(&self, threads: usize) -> Vec<Contestant<'_>> {
        vec![
            self.sync("DashMap", threads, |at| drop(self.dash.insert(self.bytes[at].clone(), VALUE.to_vec()))),
            self.asynchronous("StateStore (memory)", threads, async |at| {
                let put = Put::new(Bytes::from_static(&VALUE));
                drop(expect(self.store.put(&self.keys[at], &put).await));
            }),
            self.sync("engine, typed", threads, |at| {
                expect(self.engine.update(&self.bytes[at], NOW_MS, |slot| slot.set_str(&[&VALUE], Expiry::Clear)));
            }),
            self.sync("moka", threads, |at| self.moka.insert(self.bytes[at].clone(), VALUE.to_vec())),
            self.asynchronous("tokio Mutex<HashMap>", threads, async |at| {
                drop(self.mutexed.lock().await.insert(self.bytes[at].clone(), VALUE.to_vec()));
            }),
        ]
    }

    fn increments(&self, threads: usize) -> Vec<Contestant<'_>> {
        vec![
            self.sync("DashMap", threads, |at| *self.dash_counters.entry(self.bytes[at].clone()).or_insert(0) += 1),
            self.asynchronous("StateStore (memory)", threads, async |at| {
                expect(self.store.increment(&self.counters[at], Increment::by(1)).await);
            }),
        ]
    }

    fn sync<'a>(&'a self, name: &str, threads: usize, work: impl Fn(usize) + Sync + 'a) -> Contestant<'a> {
        let count = self.keys.len();
        Contestant::new(name, move || on_threads(threads, |thread| walk(thread, count).for_each(&work)))
    }

    /// Each thread drives its loop by a runtime of its own: no operation here waits.
    fn asynchronous<'a, W>(&'a self, name: &str, threads: usize, work: W) -> Contestant<'a>
    where
        W: AsyncFn(usize) + Sync + 'a,
    {
        let count = self.keys.len();
        Contestant::new(name, move || {
            on_threads(threads, |thread| {
                let runtime = expect(Builder::new_current_thread().build());
                runtime.block_on(async {
                    for at in walk(thread, count) {
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
    (0..OPERATIONS).map(move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize) % count
    })
}

/// The time per operation of one thread, all threads working at once.
fn on_threads(threads: usize, work: impl Fn(usize) + Sync) -> Duration {
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let work = &work;
            scope.spawn(move || work(thread));
        }
    });
    started.elapsed() / u32::try_from(OPERATIONS).unwrap_or(u32::MAX)
}

/// A benchmark that fails must not report a figure.
fn expect<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("an operation failed while being measured: {error}"))
}
