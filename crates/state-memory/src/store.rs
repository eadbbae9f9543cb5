//! [`MemoryStore`]: handles on an engine, and the contract's trait, each method in one line.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use acteon_engine::{Engine, EvictionPolicy, groups_of_this_thread};
use acteon_engine_disk::Disk;
use acteon_state_core::clock::{Clock, SeededClock};
use acteon_state_core::{
    BatchOp, BatchReply, Capabilities, ClaimDue, ClaimOutcome, ClaimToken, Claimed, Condition, Decision, DeleteOutcome,
    Effect, Entry, Error, ErrorKind, ExtendOutcome, Get, Increment, IncrementOutcome, Keyspace, LockClock, LockOutcome,
    LockRequest, LockSemantics, LockState, Operation, OwnerId, Page, Put, PutOutcome, RateLimit, ReleaseOutcome,
    Result, Scan, ScanItem, Schedule, Scheduled, StateKey, StateStore, Survival, TransactLimits, TransactOp,
    TransactOutcome, TransactScope, Ttl, Waiting,
};
use async_trait::async_trait;

use crate::config::{Checked, MemoryConfig};
use crate::error::closed;
use crate::keep::KeepFsync;
use crate::lock::{Attempt, Unheard};
use crate::sweep::Sweeper;
use crate::wait::{self, Hub};

const BACKEND: &str = "memory";
/// The most operations in one transaction: it locks all of their keys at once.
const TRANSACT_OPS_MAX: usize = 1_000;

/// State in the memory of this process.
///
/// Cloning gives the same handle: closing one closes its clones. [`handle`](Self::handle) opens another one on the same data.
///
/// ```
/// use acteon_state_core::{Get, Put, StateKey, StateStore};
/// use acteon_state_memory::MemoryStore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> acteon_state_core::Result<()> {
/// let store = MemoryStore::default();
/// let key = StateKey::new("mail", "acme", "greeting", "ada")?;
/// store.put(&key, &Put::new("hello")).await?;
/// assert_eq!(store.get(&key, Get::default()).await?.map(|entry| entry.value), Some("hello".into()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MemoryStore(Arc<Handle>);

/// One opened store: its view of the shared data, until it is closed.
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) keyspace: Keyspace,
    pub(crate) capabilities: Capabilities,
    pub(crate) lock_retention_ms: u64,
    fsync: Option<KeepFsync>,
    /// Something goes when memory is short.
    evicts: bool,
    is_closed: AtomicBool,
}

/// What all handles on one engine share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) hub: Hub,
    pub(crate) sweeper: Sweeper,
    clock: Arc<dyn Clock>,
    handles_open: AtomicUsize,
    /// Keeps what the engine holds.
    pub(crate) disk: Option<Arc<Disk>>,
    /// Told when a lock was released, or the end of its lease was moved.
    pub(crate) lock_listener: LockListener,
}

/// See [`MemoryStore::on_lock_change`].
#[derive(Default)]
pub(crate) struct LockListener(OnceLock<OnLockChange>);

type OnLockChange = Box<dyn Fn(&[u8]) + Send + Sync>;

/// One moment of the store's clock. Every operation reads it once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now(u64);

impl MemoryStore {
    /// A new engine with nothing in it.
    ///
    /// # Errors
    /// `Config`, naming the option that is out of range.
    pub fn open(config: &MemoryConfig) -> Result<Self> {
        Self::open_with_clock(config, Arc::new(SeededClock::new()))
    }

    /// The same, on a clock of the caller's. After moving a manual clock, call [`tick`](Self::tick).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with_clock(config: &MemoryConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        // Before the engine is made of it.
        config.check()?;
        let engine = Engine::new(config.engine_config());
        let now_ms = Now(clock.now_us()).ms();
        let disk = config.keep.as_ref().map(|keep| keep.open(&engine, now_ms)).transpose()?;
        Self::over_disk(engine, disk.map(Arc::new), config, clock)
    }

    /// A store that says of itself what one of this configuration would, over nothing: a directory is not touched. For asking what it can do.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_to_inspect(config: &MemoryConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        config.check()?;
        Self::over_disk(Engine::new(config.engine_config()), None, config, clock)
    }

    /// A store over an engine that the application also uses otherwise, such as publishing it on the network. Everyone must
    /// give it the time of the same clock.
    ///
    /// What an engine may evict is decided where it is made: one that is made of [`MemoryConfig::engine_config`] keeps locks, queues, counters and
    /// the like; another one may lose them when its memory is used up.
    ///
    /// Call this once per engine and [`handle`](Self::handle) for more: those who wait for locks know of each other only among the
    /// handles of one store.
    ///
    /// # Errors
    /// As [`open`](Self::open), and `Config` for a `memory_bytes_max` other than the engine's own, and for a directory: whoever makes the engine
    /// opens that, too.
    pub fn over(engine: Engine, config: &MemoryConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        if config.keep.is_some() {
            return Err(Error::config("dir: the engine is there already, and a directory is loaded into a new one"));
        }
        Self::over_disk(engine, None, config, clock)
    }

    /// The same for an engine whose changes `disk` keeps already, which was opened otherwise than by the configuration. The last handle that is
    /// closed closes it.
    ///
    /// # Errors
    /// As [`over`](Self::over).
    pub fn over_kept(engine: Engine, disk: Arc<Disk>, config: &MemoryConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::over_disk(engine, Some(disk), config, clock)
    }

    fn over_disk(
        engine: Engine,
        disk: Option<Arc<Disk>>,
        config: &MemoryConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let bytes_max = engine.stats().bytes_max;
        if config.memory_bytes_max.is_some() && config.memory_bytes_max != bytes_max {
            return Err(Error::config(format!(
                "memory_bytes_max {:?} differs from {bytes_max:?}, which the engine was created with: leave it out",
                config.memory_bytes_max
            )));
        }
        let (hub, sweeper, handles_open) = (Hub::default(), Sweeper::default(), AtomicUsize::new(0));
        let lock_listener = LockListener::default();
        let shared = Shared { engine, hub, sweeper, clock, handles_open, disk, lock_listener };
        let mut checked = config.check()?;
        if let Some(disk) = &shared.disk {
            checked.fsync = Some(KeepFsync::of(disk.config().fsync));
        }
        Ok(Self::attach(Arc::new(shared), checked))
    }

    /// Another handle on the same data, closed by itself.
    #[must_use]
    pub fn handle(&self) -> Self {
        let handle = &self.0;
        let checked = Checked {
            keyspace: handle.keyspace.clone(),
            value_bytes_max: handle.capabilities.value_bytes_max,
            lock_retention_ms: handle.lock_retention_ms,
            fsync: handle.fsync,
        };
        Self::attach(handle.shared.clone(), checked)
    }

    /// A handle on what lies under another prefix of the same engine.
    ///
    /// # Errors
    /// `Config` for a prefix that is none.
    pub fn with_prefix(&self, prefix: &str) -> Result<Self> {
        let handle = &self.0;
        let checked = Checked {
            keyspace: Keyspace::new(prefix)?,
            value_bytes_max: handle.capabilities.value_bytes_max,
            lock_retention_ms: handle.lock_retention_ms,
            fsync: handle.fsync,
        };
        Ok(Self::attach(handle.shared.clone(), checked))
    }

    /// The engine underneath, to publish or to observe it.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.0.shared.engine
    }

    /// What keeps the data, if they are in a directory: to back it up, and to publish the engine. Its fsync may be made stricter, and then what it
    /// was again; less than it was opened with would make [`capabilities`](StateStore::capabilities) untrue.
    #[must_use]
    pub fn disk(&self) -> Option<&Arc<Disk>> {
        self.0.shared.disk.as_ref()
    }

    /// Looks whether somebody who waits for a lock can have it now.
    ///
    /// Needed only after moving a manual clock, or when a lock may have been released through the engine itself: releases
    /// through a store are passed on at once, and ends of leases are waited for.
    pub fn tick(&self) {
        self.0.shared.lock_pass_on_all();
    }

    /// Calls `listener` with the name of a lock's record whenever the lock may have become free through a handle of this data, after it
    /// has. For whoever publishes the engine: the Redis driver's waiters expect a message on the channel of this name.
    /// There is one listener; returns whether this is it.
    pub fn on_lock_change(&self, listener: impl Fn(&[u8]) + Send + Sync + 'static) -> bool {
        self.0.shared.lock_listener.0.set(Box::new(listener)).is_ok()
    }

    /// Says that a lock may have become free otherwise than through a handle of this data: lets those who wait for it look. The other half of
    /// [`on_lock_change`](Self::on_lock_change); costs a comparison where nobody waits.
    pub fn lock_changed(&self, record: &[u8]) {
        self.0.shared.lock_serve(record);
    }

    fn attach(shared: Arc<Shared>, checked: Checked) -> Self {
        shared.handles_open.fetch_add(1, Ordering::AcqRel);
        // Of the engine, which may have been made by somebody else.
        let evicts = shared.engine.eviction_policy() != EvictionPolicy::NoEviction;
        Self(Arc::new(Handle {
            shared,
            capabilities: capabilities(&checked, evicts),
            lock_retention_ms: checked.lock_retention_ms,
            fsync: checked.fsync,
            evicts,
            keyspace: checked.keyspace,
            is_closed: AtomicBool::new(false),
        }))
    }

    /// Carries out one operation at one moment, and waits until what it tells of is kept.
    async fn run<R>(&self, operation: Operation, step: impl FnOnce(&Handle, Now) -> Result<R>) -> Result<R> {
        let shared = &self.0.shared;
        if shared.disk.is_none() {
            return self.run_at_once(operation, step);
        }
        shared.make_way(operation).await.map_err(|error| Handle::locate(error, operation))?;
        let (result, has_written) = {
            let groups_before = groups_of_this_thread();
            let result = self.run_at_once(operation, step);
            (result, groups_of_this_thread() != groups_before)
        };
        shared.keep(has_written).await.map_err(|error| Handle::locate(error, operation))?;
        result
    }

    fn run_at_once<R>(&self, operation: Operation, step: impl FnOnce(&Handle, Now) -> Result<R>) -> Result<R> {
        let handle = &*self.0;
        let result = if handle.is_closed() {
            Err(closed())
        } else {
            handle.shared.ensure_swept();
            step(handle, handle.shared.now())
        };
        result.map_err(|error| Handle::locate(error, operation))
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::open(&MemoryConfig::default()).expect("the default configuration is allowed")
    }
}

impl Handle {
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Adds where an error comes from.
    #[cold]
    pub(crate) fn locate(error: Error, operation: Operation) -> Error {
        error.in_operation(operation.as_str()).on_backend(BACKEND)
    }

    /// Returns whether it was open.
    fn close(&self) -> bool {
        let was_open = !self.is_closed.swap(true, Ordering::AcqRel);
        if was_open {
            self.shared.handles_open.fetch_sub(1, Ordering::AcqRel);
        }
        was_open
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("prefix", &self.keyspace.prefix())
            .field("engine", &self.shared.engine)
            .field("is_closed", &self.is_closed)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LockListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LockListener").field(&self.0.get().is_some()).finish()
    }
}

impl LockListener {
    pub(crate) fn tell(&self, record: &[u8]) {
        if let Some(listener) = self.0.get() {
            listener(record);
        }
    }
}

impl Shared {
    pub(crate) fn now(&self) -> Now {
        Now(self.clock.now_us())
    }

    /// Whether some handle is open.
    pub(crate) fn is_in_use(&self) -> bool {
        self.handles_open.load(Ordering::Acquire) > 0
    }
}

impl Now {
    pub(crate) const fn us(self) -> u64 {
        self.0
    }

    /// The millisecond that the moment lies in: the engine's time.
    pub(crate) const fn ms(self) -> u64 {
        self.0 / 1_000
    }

    /// The first whole millisecond that is not before the moment: for what must not come early.
    pub(crate) const fn ceil_ms(self) -> u64 {
        self.0.div_ceil(1_000)
    }

    pub(crate) fn until_us(self, at_us: u64) -> Duration {
        Duration::from_micros(at_us.saturating_sub(self.0))
    }

    pub(crate) fn until_ms(self, at_ms: u64) -> Duration {
        self.until_us(at_ms.saturating_mul(1_000))
    }

    /// The moment this long after this one, in µs.
    pub(crate) fn after_us(self, duration: Duration) -> u64 {
        self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }
}

fn capabilities(checked: &Checked, evicts: bool) -> Capabilities {
    Capabilities {
        cas: true,
        fencing: true,
        counters: true,
        rate_limits: true,
        transact: Some(TransactLimits { scope: TransactScope::AnyKeys, ops_max: TRANSACT_OPS_MAX }),
        scan: true,
        ordered_scan: true,
        due: true,
        locks: true,
        shared_locks: true,
        semaphores: true,
        server_clock: true,
        // A value that is evicted is lost without a crash. What is never evicted is as durable as without a policy.
        durable: checked.fsync == Some(KeepFsync::Always) && !evicts,
        shared: false,
        value_bytes_max: checked.value_bytes_max,
    }
}

fn notes(fsync: Option<KeepFsync>, evicts: bool) -> Vec<String> {
    let tokens = if fsync == Some(KeepFsync::Always) {
        "Tokens keep rising across a restart as long as the record of the lock is kept, for `lock_retention` after its last \
         lease, and after that as long as the wall clock is not set back meanwhile."
    } else {
        "Tokens keep rising across a restart as long as the wall clock is not set back meanwhile."
    };
    let eviction = "Whatever the policy of eviction, locks and values under a fence are never evicted.";
    let others = "For a lock that other processes respect, choose a backend that they share.";
    [tokens].into_iter().chain(evicts.then_some(eviction)).chain([others]).map(str::to_owned).collect()
}

#[async_trait]
impl StateStore for MemoryStore {
    fn backend(&self) -> &str {
        BACKEND
    }

    fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    fn lock_semantics(&self) -> LockSemantics {
        let fsync = self.0.fsync;
        LockSemantics {
            topology: match fsync {
                None => "memory, one process".to_owned(),
                Some(fsync) => format!("memory, one process, directory with fsync `{}`", fsync.as_str()),
            },
            clock: LockClock::Monotonic,
            tokens_rise_across: match fsync {
                Some(KeepFsync::Always) => "restart".to_owned(),
                _ => "restart (wall-clock seed)".to_owned(),
            },
            survives_server_crash: fsync.map_or(Survival::No, KeepFsync::survival),
            survives_failover: Survival::NotApplicable,
            waiting: Waiting::FifoHandOff,
            fit_for: "correctness inside one process".to_owned(),
            notes: notes(fsync, self.0.evicts),
        }
    }

    async fn ping(&self) -> Result<()> {
        self.run(Operation::Ping, |_, _| Ok(())).await
    }

    async fn get(&self, key: &StateKey, get: Get) -> Result<Option<Entry>> {
        self.run(Operation::Get, |handle, now| handle.get(key, get, now)).await
    }

    async fn put(&self, key: &StateKey, put: &Put) -> Result<PutOutcome> {
        self.run(Operation::Put, |handle, now| handle.put(key, put, now)).await
    }

    async fn delete(&self, key: &StateKey, condition: Condition) -> Result<DeleteOutcome> {
        self.run(Operation::Delete, |handle, now| handle.delete(key, condition, now)).await
    }

    async fn take(&self, key: &StateKey) -> Result<Option<Entry>> {
        self.run(Operation::Take, |handle, now| handle.take(key, now)).await
    }

    async fn touch(&self, key: &StateKey, ttl: Ttl) -> Result<bool> {
        self.run(Operation::Touch, |handle, now| handle.touch(key, ttl, now)).await
    }

    async fn increment(&self, key: &StateKey, increment: Increment) -> Result<IncrementOutcome> {
        self.run(Operation::Increment, |handle, now| handle.increment(key, increment, now)).await
    }

    async fn rate_limit(&self, key: &StateKey, request: &RateLimit) -> Result<Decision> {
        self.run(Operation::RateLimit, |handle, now| handle.rate_limit(key, request, now)).await
    }

    async fn batch(&self, ops: &[BatchOp]) -> Result<Vec<Result<BatchReply>>> {
        self.run(Operation::Batch, |handle, now| handle.batch(ops, now)).await
    }

    async fn transact(&self, ops: &[TransactOp]) -> Result<TransactOutcome> {
        self.run(Operation::Transact, |handle, now| handle.transact(ops, now)).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Page<ScanItem>> {
        self.run(Operation::Scan, |handle, now| handle.scan(scan, now)).await
    }

    async fn schedule(&self, queue: &StateKey, schedule: &Schedule) -> Result<Scheduled> {
        self.run(Operation::Schedule, |handle, now| handle.schedule(queue, schedule, now)).await
    }

    async fn cancel(&self, queue: &StateKey, id: &str) -> Result<bool> {
        self.run(Operation::Cancel, |handle, now| handle.cancel(queue, id, now)).await
    }

    async fn claim_due(&self, queue: &StateKey, claim: ClaimDue) -> Result<Claimed> {
        self.run(Operation::ClaimDue, |handle, now| handle.claim_due(queue, claim, now)).await
    }

    async fn ack(&self, queue: &StateKey, id: &str, token: ClaimToken) -> Result<ClaimOutcome> {
        self.run(Operation::Ack, |handle, now| handle.ack(queue, id, token, now)).await
    }

    async fn extend_claim(
        &self,
        queue: &StateKey,
        id: &str,
        token: ClaimToken,
        visibility: Duration,
    ) -> Result<ClaimOutcome> {
        self.run(Operation::ExtendClaim, |handle, now| handle.extend_claim(queue, id, token, visibility, now)).await
    }

    async fn lock_acquire(&self, request: &LockRequest) -> Result<LockOutcome> {
        let (operation, shared) = (Operation::LockAcquire, &self.0.shared);
        let locate = |error| Handle::locate(error, operation);
        shared.make_way(operation).await.map_err(locate)?;
        let (lease_ms, attempt) = self.run_at_once(operation, |handle, now| {
            let lease_ms = request.check(&handle.capabilities)?;
            Ok((lease_ms, handle.lock_try(request, lease_ms, now)?))
        })?;
        let outcome = match attempt {
            Attempt::Granted(grant) => LockOutcome::Granted(grant),
            Attempt::Busy(_) if !request.wait.is_zero() => {
                wait::wait(&self.0, request, lease_ms).await.map_err(locate)?
            }
            Attempt::Busy(busy) | Attempt::Refused(busy) => LockOutcome::Busy(busy),
        };
        let is_granted = matches!(outcome, LockOutcome::Granted(_));
        if shared.disk.is_some() {
            // Until the owner has heard of it, it is taken back if nobody waits for the answer any more.
            let unheard = is_granted.then(|| Unheard::new(&self.0, request));
            shared.keep(is_granted).await.map_err(locate)?;
            unheard.into_iter().for_each(Unheard::hear);
        }
        Ok(outcome)
    }

    async fn lock_extend(&self, key: &StateKey, owner: OwnerId, lease: Duration) -> Result<ExtendOutcome> {
        self.run(Operation::LockExtend, |handle, now| handle.lock_extend(key, owner, lease, now)).await
    }

    async fn lock_release(&self, key: &StateKey, owner: OwnerId) -> Result<ReleaseOutcome> {
        self.run(Operation::LockRelease, |handle, now| handle.lock_release(key, owner, now)).await
    }

    async fn lock_inspect(&self, key: &StateKey) -> Result<Option<LockState>> {
        self.run(Operation::LockInspect, |handle, now| handle.lock_inspect(key, now)).await
    }

    async fn lock_force_release(&self, key: &StateKey, reason: &str) -> Result<usize> {
        self.run(Operation::LockForceRelease, |handle, now| handle.lock_force_release(key, reason, now)).await
    }

    async fn lock_list(&self, scan: &Scan) -> Result<Page<LockState>> {
        self.run(Operation::LockList, |handle, now| handle.lock_list(scan, now)).await
    }

    async fn close(&self) -> Result<()> {
        let shared = &self.0.shared;
        if !self.0.close() {
            return Ok(());
        }
        shared.lock_call_all_of(&self.0);
        match &shared.disk {
            // The last one writes what is left; nobody can write any more.
            Some(disk) if !shared.is_in_use() => {
                let disk = Arc::clone(disk);
                let closed = tokio::task::spawn_blocking(move || disk.close()).await;
                let closed = closed
                    .map_err(|error| error.to_string())
                    .and_then(|closed| closed.map_err(|error| error.to_string()));
                closed.map_err(|error| Error::new(ErrorKind::NotDurable, error).with_effect(Effect::Unknown))
            }
            _ => Ok(()),
        }
    }
}
