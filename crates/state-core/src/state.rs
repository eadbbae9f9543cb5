//! The handle that an application holds: typed values, streams, lock guards, bounded compare-and-swap loops.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::counter::{Increment, IncrementOutcome};
use crate::due::{ClaimDue, ClaimOutcome, Claimed, DueItem, Schedule, Scheduled};
use crate::entry::{Entry, Get, Ttl, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::gate::{Admission, GATES_MAX, Gate};
use crate::key::StateKey;
use crate::lock::election::{Election, LeaderWatch};
use crate::lock::guard::{LockAttempt, LockGuard, LockOptions};
use crate::lock::request::LockState;
use crate::lock::semantics::LockSemantics;
use crate::many::{BatchOp, BatchReply, TransactOp, TransactOutcome};
use crate::rate::{Decision, RateLimit};
use crate::scan::{Page, Scan, ScanItem};
use crate::store::StateStore;
use crate::write::{Condition, DeleteOutcome, Put, PutOutcome};

/// How often [`State::update`] tries before it gives up.
const UPDATE_ATTEMPTS_MAX: u32 = 64;

/// A cheap, cloneable handle on a store, and on the store that keeps the locks, which may be another one.
///
/// Typed values are stored as JSON, so that they stay readable in the backend's own tools.
///
/// ```
/// # use std::{sync::Arc, time::Duration};
/// # use acteon_state_core::{LockOptions, State, StateKey};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> acteon_state_core::Result<()> {
/// # let state = State::new(Arc::new(acteon_state_memory::MemoryStore::default()));
/// let key = StateKey::new("mail", "acme", "draft", "42")?;
/// state.put_json(&key, &"hello", acteon_state_core::Ttl::Clear).await?;
/// assert_eq!(state.get_json::<String>(&key).await?.as_deref(), Some("hello"));
///
/// if let Some(guard) = state.try_lock(&key, Duration::from_secs(10)).await?.acquired() {
///     let fenced = acteon_state_core::Put::new("edited").fenced_by(guard.token());
///     state.put(&key, &fenced).await?;
///     guard.release().await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct State {
    store: Arc<dyn StateStore>,
    locks: Arc<dyn StateStore>,
}

/// A typed value with its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// What to present in a compare-and-swap.
    pub version: Version,
}

impl State {
    /// A handle that keeps locks where the data is.
    #[must_use]
    pub fn new(store: Arc<dyn StateStore>) -> Self {
        Self { locks: store.clone(), store }
    }

    /// A handle that keeps locks on another store.
    #[must_use]
    pub fn with_locks(store: Arc<dyn StateStore>, locks: Arc<dyn StateStore>) -> Self {
        Self { store, locks }
    }

    /// The store of the data: all operations as bytes.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn StateStore> {
        &self.store
    }

    /// The store of the locks.
    #[must_use]
    pub fn lock_store(&self) -> &Arc<dyn StateStore> {
        &self.locks
    }

    /// What the locks of this handle guarantee.
    #[must_use]
    pub fn lock_semantics(&self) -> LockSemantics {
        self.locks.lock_semantics()
    }

    /// Asks the backend, and that of the locks if it is another one, for a sign of life.
    ///
    /// # Errors
    /// As [`StateStore::ping`].
    pub async fn ping(&self) -> Result<()> {
        self.store.ping().await?;
        if self.has_own_lock_store() { self.locks.ping().await } else { Ok(()) }
    }

    /// Whether the locks are kept on another store than the data.
    #[must_use]
    pub fn has_own_lock_store(&self) -> bool {
        !Arc::ptr_eq(&self.store, &self.locks)
    }

    /// See [`StateStore::get`].
    ///
    /// # Errors
    /// As there.
    pub async fn get(&self, key: &StateKey) -> Result<Option<Entry>> {
        self.store.get(key, Get::default()).await
    }

    /// [`get`](Self::get) with the remaining time to live, in the same round trip.
    ///
    /// # Errors
    /// As there.
    pub async fn get_with_ttl(&self, key: &StateKey) -> Result<Option<Entry>> {
        self.store.get(key, Get::with_ttl()).await
    }

    /// [`get`](Self::get) of what some replica has, see [`Get::stale_ok`].
    ///
    /// # Errors
    /// As there.
    pub async fn get_stale_ok(&self, key: &StateKey) -> Result<Option<Entry>> {
        self.store.get(key, Get::stale_ok()).await
    }

    /// Reads a typed value.
    ///
    /// # Errors
    /// As [`StateStore::get`]; `Corrupt` when the value is not JSON of this type.
    pub async fn get_json<T: DeserializeOwned>(&self, key: &StateKey) -> Result<Option<T>> {
        self.get(key).await?.map(|entry| from_json(key, &entry.value)).transpose()
    }

    /// See [`StateStore::put`].
    ///
    /// # Errors
    /// As there.
    pub async fn put(&self, key: &StateKey, put: &Put) -> Result<PutOutcome> {
        self.store.put(key, put).await
    }

    /// Writes a typed value unconditionally.
    ///
    /// # Errors
    /// As [`StateStore::put`]; `Invalid` when the value cannot be written as JSON.
    pub async fn put_json<T: Serialize + Sync>(&self, key: &StateKey, value: &T, ttl: Ttl) -> Result<Version> {
        let put = Put::new(to_json(key, value)?).ttl(ttl);
        self.put(key, &put).await.map(|_| put.version)
    }

    /// See [`StateStore::delete`].
    ///
    /// # Errors
    /// As there.
    pub async fn delete(&self, key: &StateKey, condition: Condition) -> Result<DeleteOutcome> {
        self.store.delete(key, condition).await
    }

    /// See [`StateStore::take`].
    ///
    /// # Errors
    /// As there.
    pub async fn take(&self, key: &StateKey) -> Result<Option<Entry>> {
        self.store.take(key).await
    }

    /// See [`StateStore::touch`].
    ///
    /// # Errors
    /// As there.
    pub async fn touch(&self, key: &StateKey, ttl: Ttl) -> Result<bool> {
        self.store.touch(key, ttl).await
    }

    /// Changes a typed value without losing anybody else's change: reads, applies `change`, and writes if nobody wrote in
    /// between, otherwise begins again. `change` gets `None` when the key is absent, and may run several times; returning
    /// `None` leaves the entry as it is. Returns the value that is stored in the end.
    ///
    /// # Errors
    /// As [`StateStore::get`] and [`StateStore::put`]; `Contended` after 64 attempts; `Corrupt` when the value is not of this type.
    pub async fn update<T>(
        &self,
        key: &StateKey,
        ttl: Ttl,
        mut change: impl FnMut(Option<T>) -> Option<T> + Send,
    ) -> Result<Option<Versioned<T>>>
    where
        T: Serialize + DeserializeOwned + Send + Sync,
    {
        let mut current = self.get(key).await?;
        for attempt in 0..UPDATE_ATTEMPTS_MAX {
            let before = current.as_ref().map(|entry| from_json(key, &entry.value)).transpose()?;
            let Some(value) = change(before) else {
                return current.map(|entry| versioned(key, &entry)).transpose();
            };
            let put = Put::new(to_json(key, &value)?).ttl(ttl).when(match &current {
                None => Condition::Absent,
                Some(entry) => Condition::Version(entry.version.ok_or_else(|| counter(key))?),
            });
            current = match self.put(key, &put).await? {
                PutOutcome::Applied(version) => return Ok(Some(Versioned { value, version })),
                PutOutcome::NotMet(current) => current,
            };
            // Losing repeatedly means that others are at it: let them finish.
            let pause_us = rand::random_range(0..=50 * u64::from(attempt));
            tokio::time::sleep(Duration::from_micros(pause_us)).await;
        }
        Err(Error::new(ErrorKind::Contended, "others changed the entry in each of 64 attempts").with_key(key))
    }

    /// See [`StateStore::increment`].
    ///
    /// # Errors
    /// As there.
    pub async fn increment(&self, key: &StateKey, increment: Increment) -> Result<IncrementOutcome> {
        self.store.increment(key, increment).await
    }

    /// See [`StateStore::rate_limit`].
    ///
    /// # Errors
    /// As there.
    pub async fn rate_limit(&self, key: &StateKey, request: &RateLimit) -> Result<Decision> {
        self.store.rate_limit(key, request).await
    }

    /// See [`StateStore::batch`].
    ///
    /// # Errors
    /// As there.
    pub async fn batch(&self, ops: &[BatchOp]) -> Result<Vec<Result<BatchReply>>> {
        self.store.batch(ops).await
    }

    /// See [`StateStore::transact`].
    ///
    /// # Errors
    /// As there.
    pub async fn transact(&self, ops: &[TransactOp]) -> Result<TransactOutcome> {
        self.store.transact(ops).await
    }

    /// Asks gates, and then for a lock, until one does not let pass: as many of them as the stores take in one round trip, which may
    /// be none. A lock is asked for once, without waiting.
    ///
    /// What the answer leaves out was not asked. The caller asks it by itself, in the same order, as it would have without this:
    ///
    /// ```
    /// # use std::{sync::Arc, time::Duration};
    /// # use acteon_state_core::{Gate, LockOptions, Put, State, StateKey};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> acteon_state_core::Result<()> {
    /// # let state = State::new(Arc::new(acteon_state_memory::MemoryStore::default()));
    /// let key = StateKey::new("mail", "acme", "letter", "42")?;
    /// let options = LockOptions::new(Duration::from_secs(10)).wait(Duration::from_secs(2));
    /// let claim = Put::new("node 3").if_absent().expires_after(Duration::from_secs(60));
    /// let gates = vec![Gate::Put(key.clone(), claim.clone())];
    /// let asked = state.admit(gates, Some((&key, &options))).await?;
    /// let is_claimed = match asked.replies.into_iter().next() {
    ///     Some(reply) => reply?.passes(),
    ///     None => state.put(&key, &claim).await?.is_applied(),
    /// };
    /// if is_claimed {
    ///     let at_once = asked.lock.transpose()?.and_then(|attempt| attempt.acquired());
    ///     let guard = match at_once {
    ///         Some(guard) => Some(guard),
    ///         None => state.lock(&key, &options).await?.acquired(),
    ///     };
    ///     assert!(guard.is_some());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// Dropping the future leaves no lock held; the other gates were passed or not.
    ///
    /// # Errors
    /// As [`StateStore::admit`]: an error says the same of every gate. One of unknown effect was followed by a release of the lock in
    /// the background.
    ///
    /// # Panics
    /// Outside of a tokio runtime, if there is a lock.
    pub async fn admit(&self, mut gates: Vec<Gate>, lock: Option<(&StateKey, &LockOptions)>) -> Result<Admission> {
        let lock = lock.filter(|_| !self.has_own_lock_store() && gates.len() < GATES_MAX);
        gates.truncate(GATES_MAX);
        let is_worth_it = gates.len() + usize::from(lock.is_some()) > 1;
        if !is_worth_it || !self.store.capabilities().gates {
            return Ok(Admission::default());
        }
        match lock {
            Some((key, options)) => LockGuard::acquire_behind(self.store.clone(), gates, key, options).await,
            None => Ok(Admission { replies: self.store.admit(&gates).await?, lock: None }),
        }
    }

    /// One page of keys; see [`StateStore::scan`].
    ///
    /// # Errors
    /// As there.
    pub async fn scan_page(&self, scan: &Scan) -> Result<Page<ScanItem>> {
        self.store.scan(scan).await
    }

    /// All keys of a listing, page after page; holds one page at a time. Ends after the first error.
    pub fn scan(&self, scan: Scan) -> impl Stream<Item = Result<ScanItem>> + Send + use<> {
        let store = self.store.clone();
        pages(scan, move |scan| {
            let store = store.clone();
            async move { store.scan(&scan).await }
        })
    }

    /// All locks of a listing, page after page.
    pub fn locks(&self, scan: Scan) -> impl Stream<Item = Result<LockState>> + Send + use<> {
        let store = self.locks.clone();
        pages(scan, move |scan| {
            let store = store.clone();
            async move { store.lock_list(&scan).await }
        })
    }

    /// See [`StateStore::schedule`].
    ///
    /// # Errors
    /// As there.
    pub async fn schedule(&self, queue: &StateKey, schedule: &Schedule) -> Result<Scheduled> {
        self.store.schedule(queue, schedule).await
    }

    /// See [`StateStore::cancel`].
    ///
    /// # Errors
    /// As there.
    pub async fn cancel(&self, queue: &StateKey, id: &str) -> Result<bool> {
        self.store.cancel(queue, id).await
    }

    /// See [`StateStore::claim_due`].
    ///
    /// # Errors
    /// As there.
    pub async fn claim_due(&self, queue: &StateKey, claim: ClaimDue) -> Result<Claimed> {
        self.store.claim_due(queue, claim).await
    }

    /// Acknowledges a claimed item; see [`StateStore::ack`].
    ///
    /// # Errors
    /// As there.
    pub async fn ack(&self, queue: &StateKey, item: &DueItem) -> Result<ClaimOutcome> {
        self.store.ack(queue, &item.id, item.token).await
    }

    /// Keeps a claimed item; see [`StateStore::extend_claim`].
    ///
    /// # Errors
    /// As there.
    pub async fn extend_claim(&self, queue: &StateKey, item: &DueItem, visibility: Duration) -> Result<ClaimOutcome> {
        self.store.extend_claim(queue, &item.id, item.token, visibility).await
    }

    /// Asks for an exclusive lock once, without waiting and without renewal.
    ///
    /// # Errors
    /// As [`LockGuard::acquire`].
    pub async fn try_lock(&self, key: &StateKey, lease: Duration) -> Result<LockAttempt> {
        self.lock(key, &LockOptions::new(lease)).await
    }

    /// Asks for a lock by these options. Dropping the future leaves nothing held.
    ///
    /// # Errors
    /// As [`LockGuard::acquire`].
    pub async fn lock(&self, key: &StateKey, options: &LockOptions) -> Result<LockAttempt> {
        LockGuard::acquire(self.locks.clone(), key, options).await
    }

    /// A candidate in the election of this name; it stands with [`Election::lead`] or [`Election::campaign`].
    #[must_use]
    pub fn elect(&self, key: &StateKey, options: &LockOptions) -> Election {
        Election::new(self.locks.clone(), key.clone(), options)
    }

    /// Watches who leads in the election of this name, by one inspection in a period.
    #[must_use]
    pub fn watch_leader(&self, key: &StateKey, period: Duration) -> LeaderWatch {
        LeaderWatch::new(self.locks.clone(), key.clone(), period)
    }

    /// One page of locks; see [`StateStore::lock_list`].
    ///
    /// # Errors
    /// As there.
    pub async fn locks_page(&self, scan: &Scan) -> Result<Page<LockState>> {
        self.locks.lock_list(scan).await
    }

    /// Who holds a lock; see [`StateStore::lock_inspect`].
    ///
    /// # Errors
    /// As there.
    pub async fn inspect_lock(&self, key: &StateKey) -> Result<Option<LockState>> {
        self.locks.lock_inspect(key).await
    }

    /// Ends all leases of a lock; see [`StateStore::lock_force_release`].
    ///
    /// # Errors
    /// As there.
    pub async fn force_release(&self, key: &StateKey, reason: &str) -> Result<usize> {
        self.locks.lock_force_release(key, reason).await
    }

    /// Closes both stores.
    ///
    /// # Errors
    /// As [`StateStore::close`]; both are closed in any case.
    pub async fn close(&self) -> Result<()> {
        let data = self.store.close().await;
        let locks = if self.has_own_lock_store() { self.locks.close().await } else { Ok(()) };
        data.and(locks)
    }
}

/// Turns pages into a stream of items.
fn pages<T, F>(scan: Scan, page: impl Fn(Scan) -> F + Send) -> impl Stream<Item = Result<T>> + Send
where
    T: Send,
    F: Future<Output = Result<Page<T>>> + Send,
{
    struct Walk<T> {
        ready: std::vec::IntoIter<T>,
        next: Option<Scan>,
    }
    let start = (Walk { ready: Vec::new().into_iter(), next: Some(scan) }, page);
    stream::try_unfold(start, |(mut walk, page)| async move {
        loop {
            if let Some(item) = walk.ready.next() {
                return Ok(Some((item, (walk, page))));
            }
            let Some(scan) = walk.next.take() else {
                return Ok(None);
            };
            let found = page(scan.clone()).await?;
            walk.ready = found.items.into_iter();
            walk.next = found.next.map(|cursor| scan.from_cursor(Some(cursor)));
        }
    })
}

fn to_json<T: Serialize>(key: &StateKey, value: &T) -> Result<Bytes> {
    let json = serde_json::to_vec(value);
    json.map(Bytes::from)
        .map_err(|error| Error::invalid("the value cannot be written as JSON").with_key(key).with_source(error))
}

fn from_json<T: DeserializeOwned>(key: &StateKey, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::corrupt(key, "the value is not JSON of the expected type").with_source(error))
}

fn versioned<T: DeserializeOwned>(key: &StateKey, entry: &Entry) -> Result<Versioned<T>> {
    let version = entry.version.ok_or_else(|| counter(key))?;
    Ok(Versioned { value: from_json(key, &entry.value)?, version })
}

fn counter(key: &StateKey) -> Error {
    Error::wrong_type(key, "the key holds a counter, not a value")
}
