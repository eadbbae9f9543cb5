//! What a case works with: two handles on one store of its own, keys, and time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use acteon_state_core::{Capabilities, Entry, Get, Put, Result, Scope, StateKey, StateStore};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::factory::{Factory, Time};
use crate::verdict::{Failure, Verdict};

/// A time to live or lease that does not end while a case runs.
pub(crate) const LONG: Duration = Duration::from_secs(600);
/// One that ends soon: long enough for a round trip, short enough to wait for.
pub(crate) const SHORT: Duration = Duration::from_millis(40);
/// After this, what was [`SHORT`] is over, with slack for a clock that counts whole milliseconds.
pub(crate) const PAST_SHORT: Duration = Duration::from_millis(50);
/// What two readings of a millisecond clock may add to or take from a duration.
pub(crate) const CLOCK_GRAIN: Duration = Duration::from_millis(2);
/// How long something may take that should happen at once: generous, since the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Two handles on one store under a fresh prefix.
#[derive(Clone, Debug)]
pub(crate) struct Lab {
    /// The first handle.
    pub(crate) a: Arc<dyn StateStore>,
    /// The second handle on the same data.
    pub(crate) b: Arc<dyn StateStore>,
    factory: Arc<dyn Factory>,
    prefix: Arc<str>,
    started: Instant,
    /// On a manual clock, how far it was moved.
    moved_us: Arc<AtomicU64>,
}

impl Lab {
    /// Opens both handles under a prefix that was never used before.
    pub(crate) async fn open(factory: Arc<dyn Factory>) -> Result<Self> {
        Self::open_at(factory, &fresh_prefix()).await
    }

    async fn open_at(factory: Arc<dyn Factory>, prefix: &str) -> Result<Self> {
        Ok(Self {
            a: factory.open(prefix).await?,
            b: factory.open(prefix).await?,
            factory,
            prefix: prefix.into(),
            started: Instant::now(),
            moved_us: Arc::default(),
        })
    }

    /// The same backend under another prefix.
    pub(crate) async fn neighbour(&self) -> Result<Self> {
        Self::open(self.factory.clone()).await
    }

    /// Another deployment whose prefix begins with this one's.
    pub(crate) async fn neighbour_with_longer_prefix(&self) -> Result<Self> {
        Self::open_at(self.factory.clone(), &format!("{}x", self.prefix)).await
    }

    /// Closes both handles and removes the data.
    pub(crate) async fn close(&self) -> Result<()> {
        let closed = self.a.close().await.and(self.b.close().await);
        self.factory.clean(&self.prefix).await.and(closed)
    }

    /// What the store declares.
    pub(crate) fn capabilities(&self) -> &Capabilities {
        self.a.capabilities()
    }

    /// Which clock the store has.
    pub(crate) fn time(&self) -> Time {
        self.factory.time()
    }

    /// The key of this id, in the scope that most cases use.
    pub(crate) fn key(&self, id: &str) -> StateKey {
        self.scope().key(id).expect("the kit's ids are valid")
    }

    /// The scope of [`key`](Self::key).
    pub(crate) fn scope(&self) -> Scope {
        Scope::new("conformance", "tenant", "kind").expect("the kit's names are valid")
    }

    /// One of the two handles, by turns.
    pub(crate) fn handle(&self, turn: usize) -> &Arc<dyn StateStore> {
        if turn.is_multiple_of(2) { &self.a } else { &self.b }
    }

    /// Reads through the second handle: what the first one wrote must be seen there.
    pub(crate) async fn read(&self, key: &StateKey) -> Result<Option<Entry>> {
        self.b.get(key, Get::default()).await
    }

    /// Reads through the second handle with the time to live.
    pub(crate) async fn read_ttl(&self, key: &StateKey) -> Result<Option<Entry>> {
        self.b.get(key, Get::with_ttl()).await
    }

    /// Writes unconditionally through the first handle.
    pub(crate) async fn write(&self, key: &StateKey, value: &'static str) -> Result<Put> {
        let put = Put::new(value);
        self.a.put(key, &put).await.map(|_| put)
    }

    /// Lets time pass on the store's clock.
    pub(crate) async fn advance(&self, by: Duration) {
        self.factory.advance(&self.prefix, by).await;
        let moved_us = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        self.moved_us.fetch_add(moved_us, Ordering::SeqCst);
    }

    /// Lets time pass on the store's clock and on the real one, which guards count their deadlines by.
    pub(crate) async fn pass(&self, by: Duration) {
        self.advance(by).await;
        if self.time() == Time::Manual {
            tokio::time::sleep(by).await;
        }
    }

    /// How long the store's clock has gone since the case began.
    pub(crate) fn elapsed(&self) -> Duration {
        match self.time() {
            Time::Real => self.started.elapsed(),
            Time::Manual => Duration::from_micros(self.moved_us.load(Ordering::SeqCst)),
        }
    }

    /// Runs `tasks` pieces of work that begin at the same moment, on both handles by turns. Results are in their order.
    pub(crate) async fn together<T, F>(
        &self,
        tasks: usize,
        work: impl Fn(usize, Arc<dyn StateStore>) -> F,
    ) -> Verdict<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = Verdict<T>> + Send + 'static,
    {
        let barrier = Arc::new(Barrier::new(tasks));
        let mut running = JoinSet::new();
        for task in 0..tasks {
            let (barrier, work) = (barrier.clone(), work(task, self.handle(task).clone()));
            running.spawn(async move {
                barrier.wait().await;
                (task, work.await)
            });
        }
        let mut results = Vec::with_capacity(tasks);
        while let Some(joined) = running.join_next().await {
            let (task, result) =
                joined.map_err(|error| Failure::new(format!("a task of the case panicked: {error}")))?;
            results.push((task, result?));
        }
        results.sort_by_key(|(task, _)| *task);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }
}

/// Random, so that runs on one server never meet, not even after one was killed before it cleaned up.
pub(crate) fn fresh_prefix() -> String {
    format!("conformance-{:016x}", rand::random::<u64>())
}

/// Waits for `future`, but not for ever.
#[track_caller]
pub(crate) fn in_time<F: Future>(what: &'static str, future: F) -> impl Future<Output = Verdict<F::Output>> {
    let late = Failure::new(format!("{what}\n  expected: within {PATIENCE:?}\n       got: nothing"));
    async move { tokio::time::timeout(PATIENCE, future).await.map_err(|_| late) }
}
