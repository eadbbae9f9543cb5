//! The contract, on the memory driver over directories that are closed and opened again all the time, between one call and the next: what a store
//! promises holds across restarts. The setting of fsync is another one for each case.
//!
//! # How it works
//! A handle of the kit stands for one handle of whatever store is open. Every few calls, when no other call is under way, the store is closed and
//! its directory is opened by a new one. Calls that wait for a lock are under way; so nobody is sent away, as a restart of a process would do.

#![deny(clippy::missing_trait_methods)]

use std::collections::HashMap;
use std::fmt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use acteon_state_conformance::{Factory, Time};
use acteon_state_core::{
    BatchOp, BatchReply, Capabilities, ClaimDue, ClaimOutcome, ClaimToken, Claimed, Condition, Decision, DeleteOutcome,
    Entry, ExtendOutcome, Gate, GateReply, Get, Increment, IncrementOutcome, LockOutcome, LockRequest, LockSemantics,
    LockState, OwnerId, Page, Put, PutOutcome, RateLimit, ReleaseOutcome, Result, Scan, ScanItem, Schedule, Scheduled,
    StateKey, StateStore, TransactOp, TransactOutcome, Ttl,
};
use acteon_state_memory::{KeepConfig, KeepFsync, MemoryConfig, MemoryStore};
use async_trait::async_trait;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::{RwLock, RwLockReadGuard};

const FSYNC: [KeepFsync; 3] = [KeepFsync::Always, KeepFsync::EverySecond, KeepFsync::No];
/// A prime: cases repeat calls in twos, fours and tens, and each of them is to be the first one after a restart.
const CALLS_BETWEEN: u64 = 19;

/// A directory, and whatever store has it at the moment.
struct Place {
    config: MemoryConfig,
    /// Held for reading by every call, and for writing while one store follows another.
    store: RwLock<MemoryStore>,
    handles: Mutex<Vec<Weak<Handle>>>,
    calls: AtomicU64,
    // Dropped after the store.
    _folder: TempDir,
}

/// What the kit has of a place.
#[derive(Default)]
struct Handle(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Of the store that is open; `None` before the first call after a restart.
    store: Option<MemoryStore>,
    is_closed: bool,
}

struct Reopened {
    place: Arc<Place>,
    handle: Arc<Handle>,
    capabilities: Capabilities,
    lock_semantics: LockSemantics,
}

impl Place {
    fn new(prefix: &str) -> Result<Self> {
        let folder = tempfile::tempdir().expect("a directory");
        // By the name, so that a case that is run again has the same.
        let fsync = FSYNC[prefix.bytes().map(usize::from).sum::<usize>() % FSYNC.len()];
        let keep = KeepConfig { fsync, ..KeepConfig::new(folder.path().join("data")) };
        let config = MemoryConfig { prefix: prefix.to_owned(), keep: Some(keep), ..MemoryConfig::default() };
        let store = RwLock::new(MemoryStore::open(&config)?);
        Ok(Self { config, store, handles: Mutex::default(), calls: AtomicU64::new(0), _folder: folder })
    }

    /// Closes the store and opens its directory, unless somebody is using it.
    async fn restart(&self) {
        let Ok(mut store) = self.store.try_write() else { return };
        for handle in self.handles.lock().iter().filter_map(Weak::upgrade) {
            handle.0.lock().store = None;
        }
        store.close().await.expect("all is written");
        *store = MemoryStore::open(&self.config).expect("what was written can be read");
    }
}

impl Reopened {
    async fn open(place: &Arc<Place>) -> Self {
        let (place, handle) = (Arc::clone(place), Arc::new(Handle::default()));
        place.handles.lock().push(Arc::downgrade(&handle));
        let (capabilities, lock_semantics) = {
            let store = place.store.read().await;
            (store.capabilities().clone(), store.lock_semantics())
        };
        Self { place, handle, capabilities, lock_semantics }
    }

    /// A handle for one call, after a restart if it is time for one. The store stays open while the guard lives.
    async fn call(&self) -> (RwLockReadGuard<'_, MemoryStore>, MemoryStore) {
        if self.place.calls.fetch_add(1, Ordering::Relaxed) % CALLS_BETWEEN == CALLS_BETWEEN - 1 {
            // Also if nobody waits for this call any more: a restart is not to end half way.
            let place = Arc::clone(&self.place);
            tokio::spawn(async move { place.restart().await }).await.expect("no panic");
        }
        let guard = self.place.store.read().await;
        let (store, is_new_and_closed) = {
            let mut inner = self.handle.0.lock();
            let is_new = inner.store.is_none();
            let store = inner.store.get_or_insert_with(|| guard.handle()).clone();
            (store, is_new && inner.is_closed)
        };
        if is_new_and_closed {
            store.close().await.expect("others are open");
        }
        (guard, store)
    }
}

impl fmt::Debug for Reopened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reopened").field("prefix", &self.place.config.prefix).finish_non_exhaustive()
    }
}

#[async_trait]
impl StateStore for Reopened {
    fn backend(&self) -> &str {
        "memory"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn lock_semantics(&self) -> LockSemantics {
        self.lock_semantics.clone()
    }

    async fn ping(&self) -> Result<()> {
        let (_open, store) = self.call().await;
        store.ping().await
    }

    async fn get(&self, key: &StateKey, get: Get) -> Result<Option<Entry>> {
        let (_open, store) = self.call().await;
        store.get(key, get).await
    }

    async fn put(&self, key: &StateKey, put: &Put) -> Result<PutOutcome> {
        let (_open, store) = self.call().await;
        store.put(key, put).await
    }

    async fn delete(&self, key: &StateKey, condition: Condition) -> Result<DeleteOutcome> {
        let (_open, store) = self.call().await;
        store.delete(key, condition).await
    }

    async fn take(&self, key: &StateKey) -> Result<Option<Entry>> {
        let (_open, store) = self.call().await;
        store.take(key).await
    }

    async fn touch(&self, key: &StateKey, ttl: Ttl) -> Result<bool> {
        let (_open, store) = self.call().await;
        store.touch(key, ttl).await
    }

    async fn increment(&self, key: &StateKey, increment: Increment) -> Result<IncrementOutcome> {
        let (_open, store) = self.call().await;
        store.increment(key, increment).await
    }

    async fn rate_limit(&self, key: &StateKey, request: &RateLimit) -> Result<Decision> {
        let (_open, store) = self.call().await;
        store.rate_limit(key, request).await
    }

    async fn batch(&self, ops: &[BatchOp]) -> Result<Vec<Result<BatchReply>>> {
        let (_open, store) = self.call().await;
        store.batch(ops).await
    }

    async fn transact(&self, ops: &[TransactOp]) -> Result<TransactOutcome> {
        let (_open, store) = self.call().await;
        store.transact(ops).await
    }

    async fn admit(&self, gates: &[Gate]) -> Result<Vec<Result<GateReply>>> {
        let (_open, store) = self.call().await;
        store.admit(gates).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Page<ScanItem>> {
        let (_open, store) = self.call().await;
        store.scan(scan).await
    }

    async fn schedule(&self, queue: &StateKey, schedule: &Schedule) -> Result<Scheduled> {
        let (_open, store) = self.call().await;
        store.schedule(queue, schedule).await
    }

    async fn cancel(&self, queue: &StateKey, id: &str) -> Result<bool> {
        let (_open, store) = self.call().await;
        store.cancel(queue, id).await
    }

    async fn claim_due(&self, queue: &StateKey, claim: ClaimDue) -> Result<Claimed> {
        let (_open, store) = self.call().await;
        store.claim_due(queue, claim).await
    }

    async fn ack(&self, queue: &StateKey, id: &str, token: ClaimToken) -> Result<ClaimOutcome> {
        let (_open, store) = self.call().await;
        store.ack(queue, id, token).await
    }

    async fn extend_claim(
        &self,
        queue: &StateKey,
        id: &str,
        token: ClaimToken,
        visibility: Duration,
    ) -> Result<ClaimOutcome> {
        let (_open, store) = self.call().await;
        store.extend_claim(queue, id, token, visibility).await
    }

    async fn lock_acquire(&self, request: &LockRequest) -> Result<LockOutcome> {
        let (_open, store) = self.call().await;
        store.lock_acquire(request).await
    }

    async fn lock_extend(&self, key: &StateKey, owner: OwnerId, lease: Duration) -> Result<ExtendOutcome> {
        let (_open, store) = self.call().await;
        store.lock_extend(key, owner, lease).await
    }

    async fn lock_release(&self, key: &StateKey, owner: OwnerId) -> Result<ReleaseOutcome> {
        let (_open, store) = self.call().await;
        store.lock_release(key, owner).await
    }

    async fn lock_inspect(&self, key: &StateKey) -> Result<Option<LockState>> {
        let (_open, store) = self.call().await;
        store.lock_inspect(key).await
    }

    async fn lock_force_release(&self, key: &StateKey, reason: &str) -> Result<usize> {
        let (_open, store) = self.call().await;
        store.lock_force_release(key, reason).await
    }

    async fn lock_list(&self, scan: &Scan) -> Result<Page<LockState>> {
        let (_open, store) = self.call().await;
        store.lock_list(scan).await
    }

    async fn close(&self) -> Result<()> {
        let (_open, store) = self.call().await;
        self.handle.0.lock().is_closed = true;
        store.close().await
    }
}

/// One place for each prefix that is open.
#[derive(Default)]
struct Places(Mutex<HashMap<String, Arc<Place>>>);

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Places").field(&self.0.lock().len()).finish()
    }
}

#[async_trait]
impl Factory for Places {
    async fn open(&self, prefix: &str) -> Result<Arc<dyn StateStore>> {
        let place = {
            let mut places = self.0.lock();
            if !places.contains_key(prefix) {
                places.insert(prefix.to_owned(), Arc::new(Place::new(prefix)?));
            }
            Arc::clone(&places[prefix])
        };
        Ok(Arc::new(Reopened::open(&place).await))
    }

    async fn clean(&self, prefix: &str) -> Result<()> {
        self.0.lock().remove(prefix);
        Ok(())
    }

    fn time(&self) -> Time {
        Time::Real
    }

    fn is_one_driver(&self) -> bool {
        true
    }

    async fn advance(&self, _prefix: &str, by: Duration) {
        tokio::time::sleep(by).await;
    }
}

fn main() -> ExitCode {
    acteon_state_conformance::main(Places::default())
}
