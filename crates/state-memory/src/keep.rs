//! Keeping the data in a directory: opening it, and waiting for it.
//!
//! # Guarantees
//! Under [`KeepFsync::Always`] no method returns before what it tells of is on the disk: what it has written itself, and what others have written that
//! it may have read. So a crash takes nothing back that anybody has been told. Where nothing waits for the disk, nobody waits; those who
//! wait at the same time share a sync. Under the other settings nobody waits.
//!
//! # Time
//! Opening reads the directory on the calling thread, which may take minutes; within a runtime, do it on a thread for such work
//! (`tokio::task::spawn_blocking`). So do closing, and dropping the last handle of a store that was not closed: both write and sync what is
//! left. [`close`](acteon_state_core::StateStore::close) finds such a thread by itself; a drop cannot.
//!
//! # Failure
//! While the disk fails, operations that write are `Unavailable` and have changed nothing; the message has the reason. Those that were waiting are
//! `Unavailable` with an unknown effect if they have written something: it is in memory, and is kept if the disk recovers before the
//! process ends. Reads go on, with what is in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use acteon_engine::Engine;
use acteon_engine_disk::{
    Disk, DiskConfig, Files, Fsync, Loaded, NotKept, OpenError, Remedy, RewriteSchedule, SavePoint, Watched,
};
use acteon_state_core::{Effect, Error, ErrorKind, Operation, Result, Survival};
use tracing::{info, warn};

use crate::store::Shared;

/// Less than this would refuse writes in ordinary bursts; more is nothing that a disk catches up with.
const BUFFER_BYTES: (u64, u64) = (1 << 20, 64 << 30);

/// The largest growth that can be configured: a journal of a thousand times the data is a mistake.
const GROWTH_PERCENT_MAX: u32 = 100_000;

/// How often the log says how far the loading has come.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// When what was written has to be on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepFsync {
    /// Before it is acknowledged: nothing acknowledged is ever lost.
    Always,
    /// Once in a second: if the machine stops, about the last second is lost; if only the process does, hardly anything.
    #[default]
    EverySecond,
    /// When the operating system likes: if the machine stops, about the last half minute is lost.
    No,
}

/// Where the data are kept, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepConfig {
    /// The directory; it is created if it is missing. One process at a time uses it.
    pub dir: PathBuf,
    /// When what was written has to be on the disk. Default: each second.
    pub fsync: KeepFsync,
    /// When a snapshot is written to `dump.rdb` by itself: after so many seconds, if there were so many changes. Default: never; the
    /// journal needs none.
    pub save: Vec<(u64, u64)>,
    /// Growth of the journal over the data, in percent, after which it is rewritten; 0: never by itself. Default 100.
    pub rewrite_growth_percent: u32,
    /// Below this size of both together it is not rewritten. Default 64 MiB.
    pub rewrite_bytes_min: u64,
    /// What may wait for the disk; beyond it writes are refused. 1 MiB to 64 GiB, default 256 MiB.
    pub buffer_bytes_max: u64,
}

impl KeepConfig {
    /// A directory, with the defaults otherwise.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let default = DiskConfig::default();
        Self {
            dir: dir.into(),
            fsync: KeepFsync::default(),
            save: Vec::new(),
            rewrite_growth_percent: default.rewrite.growth_percent,
            rewrite_bytes_min: default.rewrite.bytes_min,
            buffer_bytes_max: default.buffer_bytes_max as u64,
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.dir.as_os_str().is_empty() {
            return Err(Error::config("dir is empty: write a path, or leave it out"));
        }
        if !(BUFFER_BYTES.0..=BUFFER_BYTES.1).contains(&self.buffer_bytes_max) {
            let (bytes, (min, max)) = (self.buffer_bytes_max, BUFFER_BYTES);
            return Err(Error::config(format!("buffer_bytes_max {bytes} is out of range: allowed are {min} to {max}")));
        }
        if self.rewrite_growth_percent > GROWTH_PERCENT_MAX {
            let percent = self.rewrite_growth_percent;
            let message =
                format!("rewrite_growth_percent {percent} is out of range: allowed are 0 to {GROWTH_PERCENT_MAX}");
            return Err(Error::config(message));
        }
        if let Some((seconds, changes)) = self.save.iter().find(|(seconds, changes)| *seconds == 0 || *changes == 0) {
            return Err(Error::config(format!("save {seconds} {changes}: both numbers have to be at least 1")));
        }
        Ok(())
    }

    fn disk_config(&self) -> DiskConfig {
        let save_point = |(seconds, changes): &(u64, u64)| SavePoint { seconds: *seconds, changes: *changes };
        DiskConfig {
            fsync: match self.fsync {
                KeepFsync::Always => Fsync::Always,
                KeepFsync::EverySecond => Fsync::EverySecond,
                KeepFsync::No => Fsync::No,
            },
            buffer_bytes_max: usize::try_from(self.buffer_bytes_max).unwrap_or(usize::MAX),
            rewrite: RewriteSchedule { growth_percent: self.rewrite_growth_percent, bytes_min: self.rewrite_bytes_min },
            save_points: self.save.iter().map(save_point).collect(),
            ..DiskConfig::default()
        }
    }

    /// Loads the directory into an engine that nobody uses yet. Takes as long as reading it, and logs now and then how far it is.
    pub(crate) fn open(&self, engine: &Engine, now_ms: u64) -> Result<Disk> {
        let (dir, began) = (self.dir.display(), Instant::now());
        // With the name of the option, as drivers begin their reasons.
        let failed = |error: &dyn std::fmt::Display| format!("dir: {dir} cannot be used: {error}");
        let files = Files::create(&self.dir).map_err(|error| Error::config(failed(&error)).with_source(error))?;
        let storage = Arc::new(Watched::new(Arc::new(files)));
        let progress = Progress::begin(engine, &self.dir, Arc::clone(&storage));
        let opened = Disk::open(storage, engine, self.disk_config(), now_ms);
        drop(progress);
        let (disk, loaded) = opened.map_err(|error| {
            let (kind, advice) = match &error {
                OpenError::Problem(problem) => (ErrorKind::Corrupt, advice(problem.remedy(), &self.dir)),
                _ => (ErrorKind::Config, String::new()),
            };
            Error::new(kind, failed(&error) + &advice).with_source(error)
        })?;
        log_loaded(&loaded, engine, &self.dir, began);
        Ok(disk)
    }
}

impl KeepFsync {
    pub(crate) const fn of(fsync: Fsync) -> Self {
        match fsync {
            Fsync::Always => Self::Always,
            Fsync::EverySecond => Self::EverySecond,
            Fsync::No => Self::No,
        }
    }

    /// As the configuration has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::EverySecond => "everysec",
            Self::No => "no",
        }
    }

    /// Whether a grant survives a crash of the process and the machine.
    pub(crate) const fn survival(self) -> Survival {
        match self {
            Self::Always => Survival::Yes,
            Self::EverySecond => Survival::MayBeLost { bound: "the last 2 s" },
            Self::No => Survival::MayBeLost { bound: "what the system had not written" },
        }
    }
}

/// What to do when a directory does not open.
fn advice(remedy: Remedy, dir: &Path) -> String {
    let dir = dir.display();
    let advice = match remedy {
        Remedy::Repair => format!(
            "`acteon-server engine verify {dir}` says what else is wrong; look for a backup first, since --repair \
             keeps only what comes before the damage"
        ),
        Remedy::Backup => {
            format!("restore a backup; `acteon-server engine verify {dir}` says what else is wrong")
        }
        Remedy::NewerProgram => "use the newer program, or restore a backup that this one has made".to_owned(),
        Remedy::Import => format!(
            "`acteon-server engine import {dir} --into NEW-DIR` takes it over; with --skip-unsupported, without what the \
             engine has not"
        ),
        _ => "look at the disk, and at who may read and write there".to_owned(),
    };
    // Before a disk has failed, the torn end of a journal may have been put aside.
    let unchanged = if remedy == Remedy::Disk { "" } else { "nothing was changed; " };
    format!(" ({unchanged}{advice})")
}

/// Says in the log how far the loading has come, until it is dropped.
struct Progress {
    /// Dropping it ends the watch.
    _ended: Option<Sender<()>>,
}

impl Progress {
    fn begin(engine: &Engine, dir: &Path, storage: Arc<Watched>) -> Self {
        let (sender, ended) = mpsc::channel::<()>();
        let (engine, dir, began) = (engine.clone(), dir.to_owned(), Instant::now());
        let of_bytes = storage.data_bytes();
        info!(dir = %dir.display(), bytes = of_bytes, "loading the data of the engine");
        let watch = move || {
            while ended.recv_timeout(PROGRESS_EVERY) == Err(RecvTimeoutError::Timeout) {
                let (dir, file, bytes) = (dir.display(), storage.file(), storage.read_bytes());
                let (keys, seconds) = (engine.len_of_all(), began.elapsed().as_secs());
                let percent = percent(bytes, of_bytes);
                info!(%dir, percent, bytes, of_bytes, file, keys, seconds, "still loading the data of the engine");
            }
        };
        // Without a thread there is no word of it, and nothing else is missing.
        let started = std::thread::Builder::new().name("acteon-loading".to_owned()).spawn(watch);
        Self { _ended: started.ok().map(|_| sender) }
    }
}

/// How much of it is done. What is not known to be the whole is never said to be it.
fn percent(bytes: u64, of_bytes: u64) -> u64 {
    bytes.saturating_mul(100).checked_div(of_bytes).unwrap_or(0).min(99)
}

fn log_loaded(loaded: &Loaded, engine: &Engine, dir: &Path, began: Instant) {
    let (dir, seconds) = (dir.display(), began.elapsed().as_secs_f64());
    let Loaded { position, groups, base_bytes, journal_bytes, is_new, is_from_dump, .. } = loaded;
    if *is_new {
        return info!(%dir, "the data of the engine are kept in a new directory");
    }
    let keys = engine.len_of_all();
    info!(%dir, position, keys, base_bytes, journal_bytes, groups, seconds, is_from_dump, "the data of the engine are loaded");
    if let Some(torn) = &loaded.torn {
        let (file, offset, bytes, reason) = (&torn.file, torn.offset, torn.bytes, torn.reason.to_string());
        let kept_as = torn.kept_as.as_deref().unwrap_or("nowhere");
        warn!(
            %dir, file, offset, bytes, reason, kept_as,
            "the last record of the journal was being written when the process or the machine stopped: it was left out"
        );
    }
}

impl Shared {
    /// Whether what comes may write: waits while too much waits for the disk.
    pub(crate) async fn make_way(&self, operation: Operation) -> Result<()> {
        let Some(disk) = self.disk.as_ref().filter(|_| !operation.is_read()) else { return Ok(()) };
        // If the disk fails, what follows says why.
        let _ = disk.room().await;
        self.check_writable()
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.disk.is_none() {
            return Ok(());
        }
        match self.engine.write_refusal() {
            None => Ok(()),
            Some(reason) => {
                let message = format!("the directory of the engine takes no writes: {reason}");
                Err(Error::new(ErrorKind::Unavailable, message))
            }
        }
    }

    /// Waits until what was done until now is kept. `has_written`: a part of it is the caller's.
    pub(crate) async fn keep(&self, has_written: bool) -> Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        match disk.kept(self.engine.log_position()).await {
            Err(error) if has_written => Err(not_kept(&error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn not_kept(error: &NotKept) -> Error {
    Error::new(ErrorKind::Unavailable, error.to_string()).with_effect(Effect::Unknown)
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn loading_is_never_said_to_be_over_before_it_is() {
        for ((bytes, of_bytes), expected) in
            [((0, 0), 0), ((0, 10), 0), ((5, 10), 50), ((10, 10), 99), ((11, 10), 99), ((u64::MAX, u64::MAX), 1)]
        {
            assert_eq!(percent(bytes, of_bytes), expected, "{bytes} of {of_bytes}");
        }
    }
}
