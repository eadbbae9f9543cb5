//! Load: tasks that write everything there is to write, and a ledger of what they were told.
//!
//! What a task does next is drawn from a seed. When a call fails with unknown effect, the task leaves that key alone from
//! then on: a statement whose connection broke may still be applied after the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use acteon_state_core::{
    DueAt, Effect, Error, ErrorKind, FencingToken, Get, Increment, LockOutcome, LockRequest, Put, PutOutcome, Schedule,
    StateKey, StateStore,
};
use acteon_state_postgres::PostgresStore;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::{key, until};

const TASKS: u64 = 24;
/// Few of them, so that the tasks meet.
const COUNTERS: u64 = 4;
const LOCKS: u64 = 4;
/// How many writers try to be the first to write a key.
const RIVALS: u64 = 3;
/// Soon over, when it is not known whether it was granted; long against the moment for which a task holds a lock.
const LEASE: Duration = Duration::from_secs(2);
/// What a task waits after an error, so that it does not merely count errors while the server is away.
const PAUSE: Duration = Duration::from_millis(5);

/// Tasks that write until they are stopped.
pub(super) struct Load {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    store: PostgresStore,
    /// Distinguishes the keys of this load from those of another one.
    name: String,
    is_stopped: AtomicBool,
    attempts: AtomicU64,
    ledger: Mutex<Ledger>,
}

/// What the tasks were told.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) acknowledged: usize,
    /// The last value of each key that was acknowledged, and one that may have been written after it.
    pub(super) values: BTreeMap<String, Written>,
    pub(super) counters: BTreeMap<String, Counted>,
    /// Who was told to have been the first to write a key.
    pub(super) firsts: BTreeMap<String, Vec<String>>,
    pub(super) grants: BTreeMap<String, Vec<Held>>,
    /// Items that are due.
    pub(super) items: BTreeSet<String>,
    /// How often calls failed, by kind and effect.
    pub(super) failures: BTreeMap<String, usize>,
    /// What should not have happened whatever the servers did.
    pub(super) wrong: Vec<String>,
}

#[derive(Default)]
pub(super) struct Written {
    pub(super) acknowledged: Option<u64>,
    pub(super) perhaps: Option<u64>,
}

#[derive(Default)]
pub(super) struct Counted {
    pub(super) acknowledged: u64,
    pub(super) unknown: u64,
    pub(super) answers: BTreeSet<i64>,
    pub(super) repeated: Vec<i64>,
}

/// For how long a task surely held a lock.
pub(super) struct Held {
    pub(super) token: FencingToken,
    pub(super) asked: Instant,
    pub(super) from: Instant,
    pub(super) until: Instant,
}

impl Load {
    pub(super) fn start(store: &PostgresStore, name: &str, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            store: store.clone(),
            name: name.to_owned(),
            is_stopped: AtomicBool::new(false),
            attempts: AtomicU64::new(0),
            ledger: Mutex::default(),
        });
        let writer = |number| Writer {
            number,
            dice: Dice(seed ^ (number << 32)),
            generation: 0,
            turn: 0,
            shared: shared.clone(),
        };
        let tasks = (0..TASKS).map(|number| tokio::spawn(writer(number).write())).collect();
        Self { shared, tasks }
    }

    /// Returns once that many more writes were acknowledged.
    pub(super) async fn until_acknowledged(&self, more: usize) {
        let acknowledged = || self.shared.ledger.lock().acknowledged;
        let enough = acknowledged() + more;
        until("enough writes were acknowledged", || async { acknowledged() >= enough }).await;
    }

    /// Returns once a call has failed that began after this one.
    pub(super) async fn until_failing(&self) {
        let failed = || self.shared.ledger.lock().failures.values().sum::<usize>();
        let more = failed() + 1;
        until("a write failed", || async { failed() >= more }).await;
    }

    /// Ends the tasks.
    pub(super) async fn stop(self) -> Ledger {
        self.shared.is_stopped.store(true, Ordering::Release);
        for task in self.tasks {
            task.await.unwrap();
        }
        std::mem::take(&mut *self.shared.ledger.lock())
    }
}

/// A sequence of numbers that its seed decides: `SplitMix64`.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// One of the tasks.
struct Writer {
    number: u64,
    dice: Dice,
    /// Counts the times after which keys of this task's own were left alone.
    generation: u64,
    turn: u64,
    shared: Arc<Shared>,
}

impl Writer {
    async fn write(mut self) {
        while !self.shared.is_stopped.load(Ordering::Acquire) {
            self.turn += 1;
            let outcome = match self.dice.below(10) {
                0..3 => self.put().await,
                3..5 => self.increment().await,
                5..7 => self.put_first().await,
                7..9 => self.lock().await,
                _ => self.schedule().await,
            };
            if let Err(error) = outcome {
                self.note_failure(&error);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    fn key(&self, kind: &str, id: &str) -> StateKey {
        key(kind, &format!("{} {id}", self.shared.name))
    }

    async fn put(&mut self) -> Result<(), Error> {
        let slot = self.dice.below(4);
        let key = self.key("value", &format!("{}.{}.{slot}", self.number, self.generation));
        let value = self.turn;
        let told = self.shared.store.put(&key, &Put::new(value.to_string())).await;
        self.note_put(&key, value, told.as_ref().err());
        told?;
        self.read_back(&key, value).await
    }

    fn note_put(&mut self, key: &StateKey, value: u64, error: Option<&Error>) {
        let mut ledger = self.shared.ledger.lock();
        let written = ledger.values.entry(key.id()).or_default();
        match error {
            None => {
                written.acknowledged = Some(value);
                ledger.acknowledged += 1;
            }
            Some(error) if error.effect() == Effect::Unknown => {
                written.perhaps = Some(value);
                self.generation += 1;
            }
            Some(_) => {}
        }
    }

    /// Reads what was written a moment ago by the same task.
    async fn read_back(&mut self, key: &StateKey, value: u64) -> Result<(), Error> {
        let read = self.shared.store.get(key, Get::default()).await;
        if let Err(error) = &read
            && error.effect() == Effect::Unknown
        {
            self.shared.ledger.lock().wrong.push(format!("a read of unknown effect: {error}"));
        }
        let read = read?.map(|entry| entry.value);
        if read.as_deref() != Some(value.to_string().as_bytes()) {
            self.shared.ledger.lock().wrong.push(format!("{key} was {read:?} after {value} was acknowledged"));
        }
        Ok(())
    }

    async fn increment(&mut self) -> Result<(), Error> {
        let number = self.dice.below(COUNTERS);
        let key = self.key("counter", &number.to_string());
        let told = self.shared.store.increment(&key, Increment::by(1)).await;
        let mut ledger = self.shared.ledger.lock();
        let counted = ledger.counters.entry(key.id()).or_default();
        match told {
            Ok(outcome) => {
                counted.acknowledged += 1;
                let answer = outcome.counter().value;
                if !counted.answers.insert(answer) {
                    counted.repeated.push(answer);
                }
                ledger.acknowledged += 1;
                Ok(())
            }
            Err(error) => {
                counted.unknown += u64::from(error.effect() == Effect::Unknown);
                Err(error)
            }
        }
    }

    async fn put_first(&mut self) -> Result<(), Error> {
        let attempt = self.shared.attempts.fetch_add(1, Ordering::Relaxed);
        let key = self.key("first", &(attempt / RIVALS).to_string());
        let me = format!("{}.{}", self.number, self.turn);
        let outcome = self.shared.store.put(&key, &Put::new(me.clone()).if_absent()).await?;
        let mut ledger = self.shared.ledger.lock();
        ledger.acknowledged += 1;
        if let PutOutcome::Applied(_) = outcome {
            ledger.firsts.entry(key.id()).or_default().push(me);
        }
        Ok(())
    }

    async fn lock(&mut self) -> Result<(), Error> {
        let number = self.dice.below(LOCKS);
        let (store, key) = (&self.shared.store, self.key("lock", &number.to_string()));
        let request = LockRequest::new(key.clone(), LEASE);
        let asked = Instant::now();
        let LockOutcome::Granted(grant) = store.lock_acquire(&request).await? else { return Ok(()) };
        let from = Instant::now();
        let lease_end = from + grant.deadline.remaining();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let until = Instant::now().min(lease_end);
        let held = Held { token: grant.token, asked, from, until };
        {
            let mut ledger = self.shared.ledger.lock();
            ledger.acknowledged += 1;
            ledger.grants.entry(key.id()).or_default().push(held);
        }
        store.lock_release(&key, request.owner).await.map(drop)
    }

    async fn schedule(&mut self) -> Result<(), Error> {
        let queue = self.key("queue", "");
        let id = format!("{}.{}", self.number, self.turn);
        let schedule = Schedule { id: id.clone(), due_at: DueAt::After(Duration::ZERO), payload: "p".into() };
        self.shared.store.schedule(&queue, &schedule).await?;
        let mut ledger = self.shared.ledger.lock();
        ledger.acknowledged += 1;
        ledger.items.insert(id);
        Ok(())
    }

    /// Counts an error. Only a few kinds of them are what a lost server looks like.
    fn note_failure(&self, error: &Error) {
        let mut ledger = self.shared.ledger.lock();
        let kind = error.kind();
        // Without room for its log, a server goes down in the middle of whatever it was doing.
        let is_full = kind == ErrorKind::OutOfMemory && error.effect() == Effect::Unknown;
        if !is_full && ![ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Failover].contains(&kind) {
            ledger.wrong.push(format!("not how an outage is told: {error}"));
        }
        *ledger.failures.entry(format!("{} {}", kind.as_str(), error.effect().as_str())).or_default() += 1;
    }
}
