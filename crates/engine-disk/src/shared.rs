//! What the threads of a disk share, and what the engine appends to.
//!
//! # Guarantees
//! Appending copies the group and wakes the writer if it sleeps, or leaves that to a batch of its thread; it waits for nothing else than
//! others who append.
//!
//! # Order of locks
//! `files`, then that of `news`, then the engine's segments, then `inbox`, then `jobs`, then those of `health`, then the others, of which nobody
//! holds two. No disk is waited for under any of these but `manifest` and `files`, which only the threads of the disk and backups take.
//!
//! # When files are given up
//! 1. *Something is missing*: a sync has failed, or a group is too large for the journal. From then on what is appended is only counted
//!    (`only_counts`), writes are refused, and the writer writes no more (`is_broken`).
//! 2. *The cut* of a snapshot has everything that was counted. What is appended from then on is gathered again, for a new file.
//! 3. *The new files* are on the disk: the writer goes on with them, and writes are taken again. Unless something is missing again by then:
//!    that needs another snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use acteon_engine::ChangeLog;
use parking_lot::{Condvar, Mutex};

use crate::active::Active;
use crate::batch::Batch;
use crate::config::{DiskConfig, Fsync};
use crate::format::{GROUP_BYTES_MAX, frame};
use crate::health::{Health, Refused};
use crate::jobs::Jobs;
use crate::manifest::Manifest;
use crate::news::News;
use crate::statistics::Counters;
use crate::storage::Storage;

/// While nobody waits for the disk, the writer gathers so much before it writes, or for as long as [`crate::writer::GATHER`].
pub(crate) const GATHER_BYTES: usize = 256 << 10;

pub(crate) struct Shared {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) config: DiskConfig,
    fsync: AtomicU8,
    pub(crate) inbox: Mutex<Inbox>,
    /// Tells the writer.
    pub(crate) work: Condvar,
    /// Whether writes are taken, who waits for the disk, and for what.
    pub(crate) health: Health,
    /// What the writer has taken and not written yet.
    pub(crate) writing_bytes: AtomicUsize,
    /// Up to where files are synced.
    pub(crate) synced_place: Mutex<Place>,
    pub(crate) manifest: Mutex<Manifest>,
    /// Held by whoever removes files, or needs them not to be removed.
    pub(crate) files: Mutex<()>,
    pub(crate) jobs: Mutex<Jobs>,
    pub(crate) jobs_changed: Condvar,
    pub(crate) counters: Counters,
    /// What the log says.
    pub(crate) news: News,
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
    /// The writer sleeps and does not know of any records: who brings the first ones wakes it.
    pub(crate) is_writer_idle: bool,
    /// The files are not to be trusted: nothing is written until there are new ones.
    pub(crate) is_broken: bool,
    /// What is appended is only counted: the snapshot that new files begin with will have it.
    pub(crate) only_counts: bool,
    /// Since the writer has looked last, a group came that is too large for the journal.
    pub(crate) had_oversized: bool,
    /// Up to here, a setting that was in force before may have acknowledged writes without a sync.
    pub(crate) early_position: u64,
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
        let Start { manifest, place, synced_place, next_number, now_ms } = start;
        let shared = Self {
            news: News::new(storage.path()),
            storage,
            fsync: AtomicU8::new(number_of(config.fsync)),
            inbox: Mutex::new(Inbox { position: place.position, ..Inbox::default() }),
            work: Condvar::new(),
            health: Health::default(),
            writing_bytes: AtomicUsize::new(0),
            synced_place: Mutex::new(synced_place),
            manifest: Mutex::new(manifest),
            files: Mutex::new(()),
            jobs: Mutex::new(Jobs::new(place.position, now_ms)),
            jobs_changed: Condvar::new(),
            counters: Counters::default(),
            next_number: AtomicU64::new(next_number),
            now_ms: AtomicU64::new(now_ms),
            config,
        };
        shared.health.written.advance(place.position);
        shared.health.synced.advance(synced_place.position);
        shared
    }

    pub(crate) fn fsync(&self) -> Fsync {
        match self.fsync.load(Ordering::Acquire) {
            ALWAYS => Fsync::Always,
            EVERY_SECOND => Fsync::EverySecond,
            _ => Fsync::No,
        }
    }

    pub(crate) fn set_fsync(&self, fsync: Fsync) {
        let before = self.fsync.swap(number_of(fsync), Ordering::AcqRel);
        let mut inbox = self.inbox.lock();
        // Who waits under the old setting would wait for ever for a sync that the new one does not bring.
        inbox.wants_sync |= before == ALWAYS;
        if before != ALWAYS {
            inbox.early_position = inbox.position;
        }
        // It may sleep for as long as the old setting lets it.
        self.work.notify_one();
    }

    /// Whether a write is acknowledged only once it is on the disk.
    pub(crate) fn awaits_sync(&self) -> bool {
        if self.fsync() == Fsync::Always {
            return true;
        }
        let is_in_doubt = self.health.is_in_doubt();
        if is_in_doubt {
            // Should all be well again by the time that somebody waits, nothing else would end the wait.
            self.demand_sync();
        }
        is_in_doubt
    }

    /// Whether something that is not synced may have been acknowledged.
    pub(crate) fn acknowledges_early(&self, inbox: &Inbox) -> bool {
        self.fsync() != Fsync::Always || inbox.early_position > self.health.synced.reached()
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
        self.pending_bytes_with(&self.inbox.lock())
    }

    /// The writer takes over under the lock of the inbox, so nothing is counted twice or not at all.
    pub(crate) fn pending_bytes_with(&self, inbox: &Inbox) -> usize {
        inbox.records.len().saturating_add(self.writing_bytes.load(Ordering::Relaxed))
    }

    /// Wakes the writer if nobody has since it went to sleep with nothing to do, and there is something now.
    pub(crate) fn wake_writer(&self) {
        self.wake_writer_with(&mut self.inbox.lock());
    }

    /// To be called by whoever is about to wait until `position` is on the disk: what is before it may be part of a batch, and who waits does not
    /// wait for the end of that, be it its own or another thread's.
    pub(crate) fn begin_wait(&self, position: u64) {
        if self.health.synced.reached() < position {
            self.wake_writer();
        }
    }

    /// As [`wake_writer`](Self::wake_writer) does.
    pub(crate) fn wake_writer_with(&self, inbox: &mut Inbox) {
        if inbox.is_writer_idle && !inbox.records.is_empty() {
            inbox.is_writer_idle = false;
            self.work.notify_one();
        }
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
        self.empty(&mut inbox);
        // Also of what was too large: the snapshot has it.
        (inbox.only_counts, inbox.had_oversized) = (false, false);
        inbox.position
    }

    fn empty(&self, inbox: &mut Inbox) {
        inbox.records = Vec::new();
        inbox.rotation = None;
        self.writing_bytes.store(0, Ordering::Relaxed);
        // Nothing will be written that could make room.
        self.health.set_full(false);
    }

    /// The files are not to be trusted, or lack something: writes are refused until there are new ones, which begin with a snapshot. What was
    /// appended is taken out by `take` first, which says whether all this is still needed. Returns that.
    pub(crate) fn break_down(&self, reason: Arc<str>, take: impl FnOnce(&mut Inbox) -> bool) -> bool {
        // What is mended meanwhile is said to be after this was said.
        let mut said = self.news.begin();
        let told = {
            let mut inbox = self.inbox.lock();
            if !take(&mut inbox) {
                return false;
            }
            (inbox.is_broken, inbox.only_counts) = (true, true);
            self.empty(&mut inbox);
            self.jobs.lock().heal_wanted = true;
            self.health.break_down(Arc::clone(&reason))
        };
        if !self.health.is_closed() {
            self.news.refused(&mut said, Refused::GivenUp, &reason);
        }
        drop(said);
        told.wake();
        self.tell_jobs();
        true
    }

    /// Has the log say what has changed. To be called without any other lock than that of the files.
    pub(crate) fn look(&self) {
        self.news.look(&self.health, || self.pending_bytes());
    }

    /// Lets the writer go on with new files, unless these lack something again: then there have to be newer ones.
    pub(crate) fn mend(&self, replacement: Replacement) {
        let position = replacement.position;
        // Whatever else happens: the snapshot has it.
        self.health.written.advance(position);
        self.health.synced.advance(position);
        let told = {
            let mut inbox = self.inbox.lock();
            if inbox.only_counts {
                return;
            }
            inbox.replacement = Some(replacement);
            inbox.is_broken = false;
            self.jobs.lock().heal_wanted = false;
            self.work.notify_one();
            // In one step with the above: what fails from now on, fails behind it.
            self.health.mend()
        };
        told.wake();
        self.look();
    }

    /// Writes are refused until [`recover`](Self::recover).
    pub(crate) fn fail(&self, reason: Arc<str>) {
        self.health.fail(reason).wake();
        self.tell_jobs();
        self.look();
    }

    /// After [`fail`](Self::fail).
    pub(crate) fn recover(&self) {
        self.health.recover().wake();
        self.look();
    }

    /// New files could not be begun, for this reason.
    pub(crate) fn stay_broken(&self, reason: Arc<str>) {
        self.health.break_down(reason).wake();
    }

    /// Nothing will be on the disk any more that is not there now.
    pub(crate) fn end(&self, reason: &str) {
        self.health.end(reason).wake();
        self.tell_jobs();
        self.look();
    }

    /// Whoever waits for a new file looks whether there will be one.
    fn tell_jobs(&self) {
        let _jobs = self.jobs.lock();
        self.jobs_changed.notify_all();
    }

    /// To be called after something was written: there may be room again.
    pub(crate) fn look_for_room(&self) {
        if !self.health.is_full() {
            return;
        }
        // Before there is room again, so that no refusal is passed over.
        self.look();
        {
            let inbox = self.inbox.lock();
            if self.pending_bytes_with(&inbox) <= self.config.buffer_bytes_max / 2 {
                self.health.set_full(false);
            }
        }
        self.look();
    }

    /// Nothing is taken any more, except by the writer for the last time.
    pub(crate) fn close(&self) {
        let mut inbox = self.inbox.lock();
        self.health.set_closed();
        inbox.stops = true;
        self.work.notify_one();
    }
}

const ALWAYS: u8 = 0;
const EVERY_SECOND: u8 = 1;
const NO: u8 = 2;

fn number_of(fsync: Fsync) -> u8 {
    match fsync {
        Fsync::Always => ALWAYS,
        Fsync::EverySecond => EVERY_SECOND,
        Fsync::No => NO,
    }
}

/// Held by a thread of the disk: should it panic, writes are refused from then on.
pub(crate) struct Sentinel(pub(crate) Arc<Shared>);

impl Drop for Sentinel {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.jobs.lock().stops = true;
            self.0.end("a thread of the disk has panicked");
        }
    }
}

/// What a disk starts from.
pub(crate) struct Start {
    pub(crate) manifest: Manifest,
    /// The end of what was loaded, and of what of it is on the disk.
    pub(crate) place: Place,
    pub(crate) synced_place: Place,
    pub(crate) next_number: u64,
    pub(crate) now_ms: u64,
}

impl ChangeLog for Shared {
    fn append(&self, group: &[u8]) -> u64 {
        let mut inbox = self.inbox.lock();
        inbox.position += 1;
        if inbox.stops {
            return inbox.position;
        }
        if group.len() > self.config.group_bytes_max.min(GROUP_BYTES_MAX) {
            self.note_oversized(&mut inbox, group.len());
        }
        if inbox.only_counts {
            return inbox.position;
        }
        let before = inbox.records.len();
        frame(group, &mut inbox.records);
        if self.pending_bytes_with(&inbox) > self.config.buffer_bytes_max {
            self.health.set_full(true);
        }
        let is_enough = before < GATHER_BYTES && inbox.records.len() >= GATHER_BYTES;
        if is_enough || inbox.is_writer_idle && !Batch::wakes_later(self) {
            inbox.is_writer_idle = false;
            self.work.notify_one();
        }
        inbox.position
    }

    fn is_writable(&self) -> bool {
        self.health.is_writable()
    }

    fn refusal(&self) -> Option<String> {
        if self.health.is_closed() {
            return Some("its directory was closed".to_owned());
        }
        if let Some(reason) = self.health.failure() {
            return Some(reason.as_ref().to_owned());
        }
        self.health.is_full().then(|| format!("the disk is {} bytes behind", self.pending_bytes()))
    }
}

impl Shared {
    /// Lets the writer write what came before, and then give the files up: they lack something from here on.
    fn note_oversized(&self, inbox: &mut Inbox, bytes: usize) {
        (inbox.only_counts, inbox.had_oversized) = (true, true);
        // Who waits is woken by the writer: here the engine's keys are held.
        self.health.note_breakdown(format!("a change of {bytes} bytes does not fit the journal").into());
        self.work.notify_one();
    }
}
