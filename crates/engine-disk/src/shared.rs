//! What the threads of a disk share, and what the engine appends to.
//!
//! # Guarantees
//! Appending copies the group and wakes the writer if it sleeps; it waits for nothing else than others who append.
//!
//! # Order of locks
//! The engine's segments, then `inbox`, then `jobs`, then the others, of which nobody holds two. No disk is waited for under any of these but
//! `manifest` and `files`, which only the threads of the disk and backups take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use acteon_engine::ChangeLog;
use parking_lot::{Condvar, Mutex};

use crate::active::Active;
use crate::config::{DiskConfig, Fsync};
use crate::format::{GROUP_BYTES_MAX, frame};
use crate::jobs::Jobs;
use crate::manifest::Manifest;
use crate::statistics::Counters;
use crate::storage::Storage;
use crate::waiting::Progress;

/// While nobody waits for the disk, the writer gathers so much before it writes, or for as long as [`crate::writer::GATHER`].
pub(crate) const GATHER_BYTES: usize = 256 << 10;

/// Why nothing may be written, bit by bit.
mod refusal {
    /// The last attempt to write has failed.
    pub(super) const FAILING: u8 = 1;
    /// It is unknown what of the files is on the disk.
    pub(super) const BROKEN: u8 = 2;
    /// Too much waits for the disk.
    pub(super) const FULL: u8 = 4;
    pub(super) const CLOSED: u8 = 8;
}

pub(crate) struct Shared {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) config: DiskConfig,
    fsync: AtomicU8,
    pub(crate) inbox: Mutex<Inbox>,
    /// Tells the writer.
    pub(crate) work: Condvar,
    /// Bits of [`refusal`].
    refused: AtomicU8,
    /// Why the disk fails.
    reason: Mutex<Option<Arc<str>>>,
    /// What the writer has taken and not written yet.
    pub(crate) writing_bytes: AtomicUsize,
    /// What the operating system has.
    pub(crate) written: Arc<Progress>,
    /// What the disk has.
    pub(crate) synced: Arc<Progress>,
    /// Up to where files are synced.
    pub(crate) synced_place: Mutex<Place>,
    pub(crate) manifest: Mutex<Manifest>,
    /// Held by whoever removes files, or needs them not to be removed.
    pub(crate) files: Mutex<()>,
    pub(crate) jobs: Mutex<Jobs>,
    pub(crate) jobs_changed: Condvar,
    pub(crate) counters: Counters,
    /// Numbers of files are never given twice.
    next_number: AtomicU64,
    /// Milliseconds since 1970, as the owner has told it last.
    now_ms: AtomicU64,
}

/// What was appended and has not been taken by the writer.
#[derive(Default)]
pub(crate) struct Inbox {
    /// Framed, without their checksums.
    pub(crate) records: Vec<u8>,
    /// After the last group.
    pub(crate) position: u64,
    /// Where in `records` a new file begins.
    pub(crate) rotation: Option<Rotation>,
    pub(crate) wants_sync: bool,
    pub(crate) is_writer_idle: bool,
    /// The files are not to be trusted: nothing is written until there are new ones.
    pub(crate) is_broken: bool,
    /// While broken, what is appended is only counted: the snapshot that new files begin with will have it.
    pub(crate) only_counts: bool,
    /// A group of so many bytes cannot be written.
    pub(crate) oversized_bytes: Option<usize>,
    /// The new file, after a breakdown.
    pub(crate) replacement: Option<Replacement>,
    pub(crate) stops: bool,
}

/// A new file begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rotation {
    pub(crate) offset: usize,
    pub(crate) position: u64,
    pub(crate) number: u64,
}

/// The file that the writer goes on with.
pub(crate) struct Replacement {
    pub(crate) active: Active,
    pub(crate) position: u64,
}

/// The end of what is synced.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    /// Of the journal.
    pub(crate) number: u64,
    pub(crate) bytes: u64,
    pub(crate) position: u64,
}

impl Shared {
    pub(crate) fn new(storage: Arc<dyn Storage>, config: DiskConfig, start: Start) -> Self {
        let Start { manifest, place, next_number, now_ms } = start;
        let shared = Self {
            storage,
            fsync: AtomicU8::new(0),
            inbox: Mutex::new(Inbox { position: place.position, ..Inbox::default() }),
            work: Condvar::new(),
            refused: AtomicU8::new(0),
            reason: Mutex::default(),
            writing_bytes: AtomicUsize::new(0),
            written: Arc::default(),
            synced: Arc::default(),
            synced_place: Mutex::new(place),
            manifest: Mutex::new(manifest),
            files: Mutex::new(()),
            jobs: Mutex::new(Jobs::new(place.position, now_ms)),
            jobs_changed: Condvar::new(),
            counters: Counters::default(),
            next_number: AtomicU64::new(next_number),
            now_ms: AtomicU64::new(now_ms),
            config,
        };
        shared.set_fsync(shared.config.fsync);
        shared.written.advance(place.position);
        shared.synced.advance(place.position);
        shared
    }

    pub(crate) fn fsync(&self) -> Fsync {
        match self.fsync.load(Ordering::Relaxed) {
            0 => Fsync::Always,
            1 => Fsync::EverySecond,
            _ => Fsync::No,
        }
    }

    pub(crate) fn set_fsync(&self, fsync: Fsync) {
        let number = match fsync {
            Fsync::Always => 0,
            Fsync::EverySecond => 1,
            Fsync::No => 2,
        };
        self.fsync.store(number, Ordering::Relaxed);
        // It may sleep for as long as the old setting lets it.
        let _inbox = self.inbox.lock();
        self.work.notify_one();
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn set_now_ms(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    /// What waits for the disk.
    pub(crate) fn pending_bytes(&self) -> usize {
        let in_inbox = self.inbox.lock().records.len();
        in_inbox + self.writing_bytes.load(Ordering::Relaxed)
    }

    /// Has everything synced that was appended until now. Returns its position.
    pub(crate) fn demand_sync(&self) -> u64 {
        let mut inbox = self.inbox.lock();
        inbox.wants_sync = true;
        self.work.notify_one();
        inbox.position
    }

    /// Called while nothing can be appended: what follows goes into a file of its own.
    pub(crate) fn rotate_here(&self, number: u64) {
        let mut inbox = self.inbox.lock();
        if inbox.only_counts {
            // There are gaps in what is counted only; whoever waits for the new file learns that the disk fails.
            return;
        }
        inbox.rotation = Some(Rotation { offset: inbox.records.len(), position: inbox.position, number });
        self.work.notify_one();
    }

    /// Called while nothing can be appended: a snapshot of this moment will take the place of all files. Returns its position.
    pub(crate) fn begin_anew(&self) -> u64 {
        let mut inbox = self.inbox.lock();
        inbox.records.clear();
        inbox.rotation = None;
        inbox.only_counts = false;
        inbox.position
    }

    /// Why the disk fails, if it does.
    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        let fails = self.refused.load(Ordering::Acquire) & (refusal::FAILING | refusal::BROKEN) != 0;
        if fails { self.reason.lock().clone() } else { None }
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.refused.load(Ordering::Acquire) & refusal::BROKEN != 0
    }

    /// Writes are refused until [`recover`](Self::recover).
    pub(crate) fn fail(&self, reason: Arc<str>) {
        self.refuse(refusal::FAILING, reason);
    }

    /// The files are not to be trusted: writes are refused until there are new ones, which begin with a snapshot.
    pub(crate) fn break_down(&self, reason: Arc<str>) {
        {
            let mut inbox = self.inbox.lock();
            inbox.is_broken = true;
            inbox.only_counts = true;
            inbox.records = Vec::new();
            inbox.rotation = None;
            self.writing_bytes.store(0, Ordering::Relaxed);
        }
        self.refuse(refusal::BROKEN, reason);
        let mut jobs = self.jobs.lock();
        jobs.heal_wanted = true;
        self.jobs_changed.notify_all();
    }

    fn refuse(&self, bit: u8, reason: Arc<str>) {
        *self.reason.lock() = Some(Arc::clone(&reason));
        self.refused.fetch_or(bit, Ordering::AcqRel);
        self.written.fail(&reason);
        self.synced.fail(&reason);
        // Whoever waits for a new file does not get it soon.
        let _jobs = self.jobs.lock();
        self.jobs_changed.notify_all();
    }

    pub(crate) fn recover(&self) {
        self.written.recover();
        self.synced.recover();
        self.refused.fetch_and(!(refusal::FAILING | refusal::BROKEN), Ordering::AcqRel);
        *self.reason.lock() = None;
    }

    /// To be called after something was written: there may be room again.
    pub(crate) fn look_for_room(&self) {
        if self.refused.load(Ordering::Relaxed) & refusal::FULL != 0 {
            let inbox = self.inbox.lock();
            if inbox.records.len() + self.writing_bytes.load(Ordering::Relaxed) <= self.config.buffer_bytes_max / 2 {
                self.refused.fetch_and(!refusal::FULL, Ordering::AcqRel);
            }
        }
    }

    /// Nothing is taken any more, except by the writer for the last time.
    pub(crate) fn close(&self) {
        let mut inbox = self.inbox.lock();
        self.refused.fetch_or(refusal::CLOSED, Ordering::AcqRel);
        inbox.stops = true;
        self.work.notify_one();
    }
}

/// Held by a thread of the disk: should it panic, writes are refused from then on.
pub(crate) struct Sentinel(pub(crate) Arc<Shared>);

impl Drop for Sentinel {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.jobs.lock().stops = true;
            self.0.fail("a thread of the disk has panicked".into());
        }
    }
}

/// What a disk starts from.
pub(crate) struct Start {
    pub(crate) manifest: Manifest,
    pub(crate) place: Place,
    pub(crate) next_number: u64,
    pub(crate) now_ms: u64,
}

impl ChangeLog for Shared {
    fn append(&self, group: &[u8]) -> u64 {
        let mut inbox = self.inbox.lock();
        inbox.position += 1;
        if group.len() > GROUP_BYTES_MAX {
            self.refused.fetch_or(refusal::BROKEN, Ordering::AcqRel);
            inbox.only_counts = true;
            inbox.oversized_bytes = Some(group.len());
            self.work.notify_one();
        }
        if inbox.only_counts || inbox.stops {
            return inbox.position;
        }
        let before = inbox.records.len();
        frame(group, &mut inbox.records);
        let after = inbox.records.len();
        if after + self.writing_bytes.load(Ordering::Relaxed) > self.config.buffer_bytes_max {
            self.refused.fetch_or(refusal::FULL, Ordering::AcqRel);
        }
        if inbox.is_writer_idle || (before < GATHER_BYTES && after >= GATHER_BYTES) {
            inbox.is_writer_idle = false;
            self.work.notify_one();
        }
        inbox.position
    }

    fn is_writable(&self) -> bool {
        self.refused.load(Ordering::Relaxed) == 0
    }

    fn refusal(&self) -> Option<String> {
        let refused = self.refused.load(Ordering::Acquire);
        if refused & refusal::CLOSED != 0 {
            return Some("its directory was closed".to_owned());
        }
        if let Some(reason) = self.failure() {
            return Some(reason.as_ref().to_owned());
        }
        let is_full = refused & refusal::FULL != 0;
        is_full.then(|| format!("the disk is {} bytes behind", self.pending_bytes()))
    }
}
