//! [`MemoryStore`]: handles on an engine, opened and closed one by one, and how an operation of one is carried out.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use acteon_engine::{Engine, EvictionPolicy, groups_of_this_thread};
use acteon_engine_disk::Disk;
use acteon_state_core::clock::{Clock, SeededClock};
use acteon_state_core::{Capabilities, Error, Keyspace, Operation, Result};

use crate::config::{Checked, MemoryConfig};
use crate::contract::capabilities;
use crate::error::closed;
use crate::keep::KeepFsync;
use crate::sweep::Sweeper;
use crate::wait::Hub;

pub(crate) const BACKEND: &str = "memory";

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
pub struct MemoryStore(pub(crate) Arc<Handle>);

/// One opened store: its view of the shared data, until it is closed.
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) keyspace: Keyspace,
    pub(crate) capabilities: Capabilities,
    pub(crate) lock_retention_ms: u64,
    /// `None`: the data are in memory only.
    pub(crate) fsync: Option<KeepFsync>,
    /// Something goes when memory is short.
    pub(crate) evicts: bool,
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
    /// was again; less than it was opened with would make [`capabilities`](acteon_state_core::StateStore::capabilities) untrue.
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
    pub(crate) async fn run<R>(&self, operation: Operation, step: impl FnOnce(&Handle, Now) -> Result<R>) -> Result<R> {
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

    pub(crate) fn run_at_once<R>(
        &self,
        operation: Operation,
        step: impl FnOnce(&Handle, Now) -> Result<R>,
    ) -> Result<R> {
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
    pub(crate) fn close(&self) -> bool {
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
