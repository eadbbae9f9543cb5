//! A directory with the data of an engine.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use acteon_engine::{ChangeLog, Engine};
use parking_lot::Mutex;

use crate::batch::Batch;
use crate::config::{DiskConfig, Fsync, SavePoint};
use crate::jobs::{Choose, InProgress};
use crate::maintenance::Maintenance;
use crate::problem::Problem;
use crate::recovery::{Loaded, Recovered, recover};
use crate::shared::{Place, Shared, Start};
use crate::statistics::Statistics;
use crate::storage::{Lock, LockError, Storage};
use crate::synced;
use crate::waiting::{Kept, NotKept};
use crate::writer::Writer;

/// What is half full makes whoever asks wait.
const PRESSURE: usize = 2;

/// A directory with the data of an engine, which keeps what the engine changes until it is closed or dropped.
///
/// # Dropping
/// Whoever drops it closes it, and is not told whether that worked. That takes as long as the disk needs for one last write and sync, on the
/// thread that drops it. In async code, [`close`](Self::close) it first, where blocking is allowed (`spawn_blocking` of a runtime):
/// dropping it after that waits for nothing.
///
/// # Example
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use acteon_engine::{Engine, EngineConfig, Expiry};
/// use acteon_engine_disk::{Disk, DiskConfig, Files, Fsync};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("data");
/// let (config, now_ms) = (DiskConfig { fsync: Fsync::Always, ..DiskConfig::default() }, 1_000);
/// let engine = Engine::new(EngineConfig::default());
/// let (disk, loaded) = Disk::open(Arc::new(Files::create(&path)?), &engine, config.clone(), now_ms)?;
/// assert!(loaded.is_new);
/// engine.update(b"greeting", now_ms, |slot| slot.set_str(&[b"hello"], Expiry::Clear))?;
/// disk.wait(engine.log_position(), Duration::from_secs(10))?;
/// disk.close()?;
///
/// let engine = Engine::new(EngineConfig::default());
/// let (disk, loaded) = Disk::open(Arc::new(Files::open(&path)?), &engine, config, now_ms)?;
/// assert_eq!(loaded.groups, 1);
/// assert_eq!(engine.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Disk {
    shared: Arc<Shared>,
    /// Held while it is being closed: whoever closes it as well waits for the outcome.
    life: Mutex<Life>,
}

enum Life {
    Open(Threads),
    Closed(Result<(), CloseError>),
}

struct Threads {
    writer: JoinHandle<Result<(), Arc<str>>>,
    maintenance: JoinHandle<()>,
    /// Given back last.
    _lock: Lock,
}

/// Why a directory was not opened. Nothing of value was changed in it.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// Somebody else has it: the process of this number, if it says so.
    InUse(Option<u32>),
    /// What is in it cannot be used.
    Problem(Problem),
    /// There is neither a manifest nor a `dump.rdb`, nor any other file of ours. Only said to those who look for something: to open such a
    /// directory is to begin a new one.
    Foreign,
    /// The engine keeps its changes elsewhere already.
    Attached,
    /// The engine holds keys already, in any of its databases, which the directory would not have.
    NotEmpty,
    /// There are no threads to be had.
    Thread(std::io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(Some(pid)) => {
                write!(f, "process {pid} uses the directory: stop it, or choose another directory")
            }
            Self::InUse(None) => {
                f.write_str("another process uses the directory: stop it, or choose another directory")
            }
            Self::Problem(problem) => write!(f, "{problem}"),
            Self::Foreign => {
                f.write_str("this is no directory of an engine: there is neither a manifest nor a dump.rdb in it")
            }
            Self::Attached => f.write_str("the engine keeps its changes elsewhere already"),
            Self::NotEmpty => {
                f.write_str("the engine holds keys already: open the directory before anything is written")
            }
            Self::Thread(error) => write!(f, "a thread cannot be started: {error}"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::Thread(error) => Some(error),
            Self::InUse(_) | Self::Foreign | Self::Attached | Self::NotEmpty => None,
        }
    }
}

/// Not everything is on the disk; or it is, and something else has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseError {
    /// Why not.
    pub reason: String,
    /// The last so many groups of changes are not; it may be none.
    pub groups_lost: u64,
}

impl fmt::Display for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, groups_lost } = self;
        match groups_lost {
            0 => write!(f, "{reason}; all changes are on the disk"),
            _ => write!(f, "the last {groups_lost} changes may not be on the disk: {reason}"),
        }
    }
}

impl std::error::Error for CloseError {}

impl Disk {
    /// Loads what the directory holds into `engine`, which must be empty and not in use yet, and keeps what changes from then on. `now_ms` is
    /// the time in milliseconds since 1970. Takes as long as reading the directory, on the calling thread.
    ///
    /// # Errors
    /// [`OpenError`]. The engine may hold a part of the data then, and is to be thrown away.
    pub fn open(
        storage: Arc<dyn Storage>,
        engine: &Engine,
        config: DiskConfig,
        now_ms: u64,
    ) -> Result<(Self, Loaded), OpenError> {
        Self::open_with(storage, engine, config, now_ms, |log| log)
    }

    /// Like [`open`](Self::open), with something in between that hands on what is appended.
    pub(crate) fn open_with(
        storage: Arc<dyn Storage>,
        engine: &Engine,
        config: DiskConfig,
        now_ms: u64,
        wrap: impl FnOnce(Arc<dyn ChangeLog>) -> Arc<dyn ChangeLog>,
    ) -> Result<(Self, Loaded), OpenError> {
        if !engine.are_all_empty() {
            return Err(OpenError::NotEmpty);
        }
        let lock = lock(&*storage)?;
        engine.set_load_time(now_ms);
        let recovered = recover(&*storage, engine).map_err(OpenError::Problem)?;
        let (place, synced_place) = (recovered.place(), recovered.synced_place());
        let Recovered { manifest, active, next_number, loaded, stuck } = recovered;
        let shared =
            Arc::new(Shared::new(storage, config, Start { manifest, place, synced_place, next_number, now_ms }));
        let counters = &shared.counters;
        counters.base_bytes.store(loaded.base_bytes, Ordering::Relaxed);
        counters.active_bytes.store(active.bytes, Ordering::Relaxed);
        counters.closed_bytes.store(loaded.journal_bytes.saturating_sub(active.bytes), Ordering::Relaxed);
        counters.dropped_at_start_bytes.store(loaded.torn.as_ref().map_or(0, |torn| torn.bytes), Ordering::Relaxed);
        if let Some(stuck) = stuck {
            shared.break_down(stuck.reason.to_string().into(), |_| true);
        }
        let writer = Writer::new(Arc::clone(&shared), active, place.position);
        let writer = spawn("acteon-journal", move || writer.run())?;
        let maintenance = Maintenance::new(Arc::clone(&shared), engine.clone());
        let maintenance = match spawn("acteon-disk", move || maintenance.run()) {
            Ok(maintenance) => maintenance,
            Err(error) => {
                shared.close();
                drop(writer.join());
                return Err(error);
            }
        };
        let threads = Threads { writer, maintenance, _lock: lock };
        let disk = Self { shared, life: Mutex::new(Life::Open(threads)) };
        let log: Arc<dyn ChangeLog> = disk.shared.clone();
        if engine.attach_log(wrap(log)) { Ok((disk, loaded)) } else { Err(OpenError::Attached) }
    }

    /// Waits until everything up to `position` is kept as the setting promises: under [`Fsync::Always`] until it is on the disk, otherwise not at
    /// all. A write is acknowledged after that, with the position that [`Engine::log_position`] has after it. Needs no runtime.
    ///
    /// The setting is that of the moment of the call, and it is about everything up to the position: once it is [`Fsync::Always`], also what had been
    /// acknowledged without a sync before is waited for. Where the journal lacks something, because the files were given up or the directory is
    /// closed, positions that are not on the disk are waited for, or are [`NotKept`], under every setting.
    pub fn kept(&self, position: u64) -> Kept {
        if self.shared.awaits_sync() {
            self.shared.begin_wait(position);
            Kept::until(Arc::clone(&self.shared.health.synced), position)
        } else {
            Kept::at_once()
        }
    }

    /// For a thread that is about to write several times before anybody waits for any of it: these writes share one write to the disk and one
    /// sync, which begin when the batch is dropped, or when somebody else writes or waits. `None` where that changes nothing, since nobody waits for the
    /// disk; and within another batch of the thread.
    pub fn batch(&self) -> Option<Batch> {
        if self.shared.fsync() == Fsync::Always { Batch::begin(&self.shared) } else { None }
    }

    /// Whether [`kept`](Self::kept) has nothing to wait for. Nobody may remember that for longer than the setting stays.
    #[must_use]
    pub fn is_kept(&self, position: u64) -> bool {
        self.shared.health.synced.reached() >= position || !self.shared.awaits_sync()
    }

    /// Like [`kept`](Self::kept), for a thread that may wait.
    ///
    /// # Errors
    /// [`NotKept`] if the disk fails or does not answer in time: the write is in memory and visible to others, and may be lost.
    pub fn wait(&self, position: u64, timeout: Duration) -> Result<(), NotKept> {
        if !self.shared.awaits_sync() {
            return Ok(());
        }
        self.shared.begin_wait(position);
        self.shared.health.synced.wait(position, timeout)
    }

    /// Has everything until now written and synced, whatever the setting. Returns its position.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn sync(&self, timeout: Duration) -> Result<u64, NotKept> {
        let position = self.shared.demand_sync();
        self.shared.health.synced.wait(position, timeout)?;
        Ok(position)
    }

    /// To be awaited before more is written: ready at once, unless half of what may wait for the disk does. Who never asks is refused when
    /// all of it does.
    pub fn room(&self) -> Kept {
        let mut inbox = self.shared.inbox.lock();
        if self.shared.pending_bytes_with(&inbox) < self.shared.config.buffer_bytes_max / PRESSURE {
            return Kept::at_once();
        }
        self.shared.wake_writer_with(&mut inbox);
        Kept::until(Arc::clone(&self.shared.health.written), inbox.position)
    }

    /// To be called some times a second, with the time in milliseconds since 1970: begins what is due by schedule, and has the log say what has
    /// changed.
    pub fn tick(&self, now_ms: u64) {
        let shared = &*self.shared;
        shared.set_now_ms(now_ms);
        shared.look();
        let counters = &shared.counters;
        let base_bytes = counters.base_bytes.load(Ordering::Relaxed);
        let is_grown = shared.config.rewrite.is_due(base_bytes, counters.journal_bytes());
        let position = shared.inbox.lock().position;
        let (rewrites, saves) = {
            let mut jobs = shared.jobs.lock();
            if jobs.begin_note(now_ms) {
                shared.jobs_changed.notify_all();
            }
            let changes = position.saturating_sub(jobs.saved_position);
            let passed_s = now_ms.saturating_sub(jobs.last_save_ms) / 1_000;
            let is_due = |point: &SavePoint| changes >= point.changes.max(1) && passed_s >= point.seconds;
            (
                is_grown && jobs.rewrite_pause.is_over(now_ms) && shared.health.failure().is_none(),
                jobs.save_pause.is_over(now_ms) && shared.config.save_points.iter().any(is_due),
            )
        };
        // Refused if it is under way, which is as good.
        if rewrites {
            let _ = self.start_rewrite();
        }
        if saves {
            let _ = self.start_save();
        }
    }

    /// Lets the journal be rewritten in the background, as `BGREWRITEAOF` does.
    ///
    /// # Errors
    /// [`InProgress`]
    pub fn start_rewrite(&self) -> Result<(), InProgress> {
        self.shared.start(REWRITE)
    }

    /// Rewrites the journal and waits for the end.
    ///
    /// # Errors
    /// Why it could not be; then everything goes on with the files that there were.
    pub fn rewrite(&self) -> Result<(), String> {
        self.shared.run_to_end(REWRITE).map_err(|reason| reason.as_ref().to_owned())
    }

    /// Lets a snapshot be written to `dump.rdb` in the background, as `BGSAVE` does.
    ///
    /// # Errors
    /// [`InProgress`]
    pub fn start_save(&self) -> Result<(), InProgress> {
        self.shared.start(SAVE)
    }

    /// Writes a snapshot to `dump.rdb` and waits for the end.
    ///
    /// # Errors
    /// Why it could not be; then the old one is still there.
    pub fn save(&self) -> Result<(), String> {
        self.shared.run_to_end(SAVE).map_err(|reason| reason.as_ref().to_owned())
    }

    /// When what was written has to be on the disk, at this moment: what may be said of the survival of a write depends on it, and it changes.
    #[must_use]
    pub fn fsync(&self) -> Fsync {
        self.shared.fsync()
    }

    /// Changes when what was written has to be on the disk, from the next [`kept`](Self::kept) on. Who waits already gets the sync that was
    /// promised. What was acknowledged without one is synced at once if it becomes [`Fsync::Always`]; [`sync`](Self::sync) waits for that.
    pub fn set_fsync(&self, fsync: Fsync) {
        self.shared.set_fsync(fsync);
    }

    /// What it was opened with. The fsync that is in force may be another one by now: [`fsync`](Self::fsync) says which.
    #[must_use]
    pub fn config(&self) -> &DiskConfig {
        &self.shared.config
    }

    /// The directory, if it is one of the file system.
    #[must_use]
    pub fn path(&self) -> Option<&std::path::Path> {
        self.shared.storage.path()
    }

    /// Where the disk stands.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let shared = &*self.shared;
        let counters = &shared.counters;
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        // In this order, so that none is behind what must be behind it.
        let synced_position = shared.health.synced.reached();
        let written_position = shared.health.written.reached().max(synced_position);
        let (position, pending_bytes) = {
            let inbox = shared.inbox.lock();
            (inbox.position, shared.pending_bytes_with(&inbox) as u64)
        };
        let refusal = shared.refusal();
        let jobs = shared.jobs.lock();
        Statistics {
            fsync: shared.fsync(),
            position,
            written_position,
            synced_position,
            pending_bytes,
            base_bytes: get(&counters.base_bytes),
            journal_bytes: counters.journal_bytes(),
            refusal,
            writes: get(&counters.writes),
            syncs: get(&counters.syncs),
            write_failures: get(&counters.write_failures),
            sync_failures: get(&counters.sync_failures),
            sync_total: Duration::from_micros(get(&counters.sync_total_us)),
            last_sync: Duration::from_micros(get(&counters.last_sync_us)),
            sync_max: Duration::from_micros(get(&counters.sync_max_us)),
            dropped_at_start_bytes: get(&counters.dropped_at_start_bytes),
            rewrite: jobs.rewrite.statistics(),
            save: jobs.save.statistics(),
            last_save_ms: jobs.last_save_ms,
            changes_since_save: position.saturating_sub(jobs.saved_position),
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Writes and syncs what is left, and gives the directory back. From then on the engine refuses writes. Work in the background ends
    /// where it is, unless files were given up: then new ones are begun first, which takes as long as writing all data. Closing again waits
    /// for the first one and says the same.
    ///
    /// # Errors
    /// [`CloseError`] if not everything is on the disk that was changed until the end; there is one attempt.
    pub fn close(&self) -> Result<(), CloseError> {
        let mut life = self.life.lock();
        let threads = match &mut *life {
            Life::Closed(result) => return result.clone(),
            // In between nobody sees it.
            open => std::mem::replace(open, Life::Closed(Ok(()))),
        };
        let Life::Open(threads) = threads else { return Ok(()) };
        let result = self.end(threads);
        *life = Life::Closed(result.clone());
        result
    }

    fn end(&self, threads: Threads) -> Result<(), CloseError> {
        let shared = &*self.shared;
        shared.jobs.lock().stops = true;
        shared.jobs_changed.notify_all();
        let maintained = threads.maintenance.join();
        shared.close();
        let written = threads.writer.join();
        let Place { number, bytes, .. } = *shared.synced_place.lock();
        // If that fails, the next opening takes longer.
        drop(synced::note(&*shared.storage, number, bytes));
        // What comes too late is not waited for.
        shared.end("the directory was closed");
        let failure = match (maintained, written) {
            (Ok(()), Ok(result)) => result.err(),
            _ => Some("a thread of the disk has panicked".into()),
        };
        let position = shared.inbox.lock().position;
        let groups_lost = position.saturating_sub(shared.health.synced.reached());
        match failure {
            None if groups_lost == 0 => Ok(()),
            None => {
                Err(CloseError { reason: "they came while the directory was being closed".to_owned(), groups_lost })
            }
            Some(reason) => Err(CloseError { reason: reason.as_ref().to_owned(), groups_lost }),
        }
    }
}

const REWRITE: Choose = |jobs| &mut jobs.rewrite;
const SAVE: Choose = |jobs| &mut jobs.save;

pub(crate) fn lock(storage: &dyn Storage) -> Result<Lock, OpenError> {
    Ok(storage.lock()?)
}

impl From<LockError> for OpenError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Held(pid) => Self::InUse(pid),
            LockError::Io(error) => Self::Problem(Problem::io("lock", "lock")(error)),
        }
    }
}

fn spawn<R: Send + 'static>(name: &str, run: impl FnOnce() -> R + Send + 'static) -> Result<JoinHandle<R>, OpenError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(OpenError::Thread)
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever wants to know closes it.
        drop(self.close());
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("statistics", &self.statistics()).finish_non_exhaustive()
    }
}
