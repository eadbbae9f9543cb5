//! The thread that rewrites the journal, saves snapshots, and begins new files when the old ones are not to be trusted.
//!
//! # Guarantees
//! At every moment the manifest on the disk names files that lead to everything that is kept. Files are removed only when no manifest that a
//! crash could bring back names them.
//!
//! # How it works
//! *Rewriting*: a cut of the engine marks where in the journal a new file begins; the snapshot of that moment is written as the new base;
//! once both are on the disk, the manifest is replaced, and what it does not name any more is removed. Whoever crashes in between comes back
//! with the old base and all journals.
//!
//! *Healing*: the same, but what was not synced is not waited for. The snapshot has it. It is done before anything else, and once more when the
//! disk is closed while its files are given up: nothing else would have what they lack.
//!
//! *Saving*: a snapshot that takes the place of `dump.rdb`.
//!
//! *Noting*: how much of the last journal is on the disk, about once in a minute and after each rewriting. Whoever opens the directory after this
//! process was killed has so much less to write again. While a rewriting or a saving is under way nothing is noted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use acteon_engine::rdb::FileFacts;
use acteon_engine::{Engine, Snapshot};
use parking_lot::MutexGuard;

use crate::active::Active;
use crate::jobs::{Jobs, Reason};
use crate::manifest::{Base, DUMP, Journal, Manifest, Named, base_file, journal_file};
use crate::news::Effort;
use crate::shared::{Place, Replacement, Sentinel, Shared};
use crate::snapshot_file;
use crate::storage::{Storage, TEMPORARY, exchange};
use crate::synced;

pub(crate) struct Maintenance {
    shared: Arc<Shared>,
    engine: Engine,
    /// When to try to heal again, and how long to wait the time after.
    retry: Option<(Instant, Duration)>,
    /// The journal and its bytes that were noted last as being on the disk.
    noted: (u64, u64),
    /// The disk is being closed, and the last attempt to heal was made.
    is_over: bool,
}

/// What is not synced is not waited for under [`Fsync::No`], but so little is no burden: a second or two on a slow disk, while which writes
/// gather in memory.
const LITTLE_BYTES: u64 = 32 << 20;

enum Task {
    Heal,
    Rewrite,
    Save,
    Note,
    Stop,
}

impl Maintenance {
    pub(crate) fn new(shared: Arc<Shared>, engine: Engine) -> Self {
        Self { shared, engine, retry: None, noted: (0, 0), is_over: false }
    }

    /// Works until the disk is closed.
    pub(crate) fn run(mut self) {
        let _sentinel = Sentinel(Arc::clone(&self.shared));
        loop {
            match self.wait() {
                Task::Heal => self.try_to_heal(),
                Task::Rewrite => {
                    let result = self.rewrite();
                    self.note();
                    self.tell(Effort::Rewrite, result.as_ref().err());
                    let mut jobs = self.shared.jobs.lock();
                    jobs.rewrite_pause.note(result.is_ok(), self.shared.now_ms());
                    jobs.rewrite.end(result);
                }
                Task::Save => {
                    let result = self.save();
                    self.tell(Effort::Save, result.as_ref().err());
                    let mut jobs = self.shared.jobs.lock();
                    jobs.save_pause.note(result.is_ok(), self.shared.now_ms());
                    if let Ok(position) = &result {
                        (jobs.saved_position, jobs.last_save_ms) = (*position, self.shared.now_ms());
                    }
                    jobs.save.end(result.map(drop));
                }
                Task::Note => {
                    self.note();
                    self.shared.sync_if_little(LITTLE_BYTES);
                }
                Task::Stop => return,
            }
            self.shared.jobs_changed.notify_all();
        }
    }

    fn wait(&mut self) -> Task {
        let shared = Arc::clone(&self.shared);
        let mut jobs = shared.jobs.lock();
        loop {
            if jobs.stops {
                if !std::mem::replace(&mut self.is_over, true) && self.waits_for_breakdown(&mut jobs) {
                    return Task::Heal;
                }
                return Task::Stop;
            }
            let heal_at = self.retry.map(|(at, _)| at).filter(|_| jobs.heal_wanted);
            if jobs.heal_wanted && heal_at.is_none_or(|at| at <= Instant::now()) {
                return Task::Heal;
            }
            if std::mem::take(&mut jobs.is_note_due) {
                return Task::Note;
            }
            if jobs.rewrite.begin() {
                return Task::Rewrite;
            }
            if jobs.save.begin() {
                return Task::Save;
            }
            match heal_at {
                Some(at) => drop(shared.jobs_changed.wait_until(&mut jobs, at)),
                None => shared.jobs_changed.wait(&mut jobs),
            }
        }
    }

    /// Has the log say what became of it. What a closing has cut short is no failure.
    fn tell(&self, effort: Effort, failure: Option<&Reason>) {
        if !self.is_stopped() {
            self.shared.news.ended(effort, failure.map(AsRef::as_ref));
        }
    }

    /// Whether there is something to heal, once the writer has done what it could.
    fn waits_for_breakdown(&self, jobs: &mut MutexGuard<'_, Jobs>) -> bool {
        let health = &self.shared.health;
        while !jobs.heal_wanted && health.is_broken() && !health.has_ended() {
            self.shared.jobs_changed.wait(jobs);
        }
        jobs.heal_wanted
    }

    fn rewrite(&self) -> Result<(), Reason> {
        let shared = &*self.shared;
        let _files = shared.files.lock();
        if let Some(reason) = shared.health.failure() {
            return Err(reason);
        }
        let number = shared.next_number();
        let mut snapshot = self.cut(|| shared.rotate_here(number))?;
        let base = self.write_base(number, &mut snapshot, || self.is_stopped());
        // Ends the snapshot, so that writers save nothing more for it while the journal is waited for.
        drop(snapshot);
        let rotated = base.and_then(|base| shared.await_rotation(number).map(|()| base));
        let base = rotated.inspect_err(|_| self.discard(&base_file(number)))?;
        let mut manifest = shared.manifest.lock();
        let journals = manifest.journals.iter().filter(|journal| journal.number >= number).copied().collect();
        let next = Manifest { base: Some(base), journals };
        // Both manifests lead to the same, and all files of both are there: whichever it is after an error, it is right.
        self.store(&next, &[&base_file(number)])?;
        *manifest = next.clone();
        drop(manifest);
        shared.counters.base_bytes.store(base.bytes, Ordering::Relaxed);
        shared.counters.closed_bytes.store(0, Ordering::Relaxed);
        sweep(&*shared.storage, &next);
        Ok(())
    }

    fn save(&self) -> Result<u64, Reason> {
        let shared = &*self.shared;
        let mut position = 0;
        let mut snapshot = self.cut(|| position = shared.inbox.lock().position)?;
        let temporary = format!("{DUMP}{TEMPORARY}");
        let written = self.write_snapshot(&temporary, &mut snapshot, || self.is_stopped());
        drop(snapshot);
        written.inspect_err(|_| self.discard(&temporary))?;
        exchange(&*shared.storage, &temporary, DUMP).map_err(|error| Reason::from(error.error.to_string()))?;
        Ok(position)
    }

    fn try_to_heal(&mut self) {
        let began = Instant::now();
        let result = self.heal();
        self.tell(Effort::Heal, result.as_ref().err());
        match result {
            Ok(()) => {
                self.retry = None;
                self.note();
            }
            Err(reason) => {
                let (first, max) = self.shared.config.retry;
                let pause = self.retry.map_or(first, |(_, pause)| pause);
                // Most of a base may fit a disk that is full: it is not to be filled for others most of the time, until somebody makes room.
                let at = Instant::now() + pause.max(began.elapsed());
                self.retry = Some((at, pause.saturating_mul(2).min(max)));
                // Who is refused is told of the latest obstacle.
                self.shared.stay_broken(reason);
            }
        }
    }

    fn heal(&self) -> Result<(), Reason> {
        let shared = &*self.shared;
        let _files = shared.files.lock();
        let number = shared.next_number();
        let mut position = 0;
        let mut snapshot = self.cut(|| position = shared.begin_anew())?;
        // Also while the disk is being closed.
        let base = self.write_base(number, &mut snapshot, || false);
        drop(snapshot);
        let base = base.inspect_err(|_| self.discard(&base_file(number)))?;
        let files = [&*base_file(number), &*journal_file(number)];
        let active = Active::create(&*shared.storage, number, position).map_err(|error| {
            files.iter().for_each(|file| self.discard(file));
            Reason::from(error.to_string())
        })?;
        let next = Manifest { base: Some(base), journals: vec![Journal { number, first_position: position }] };
        let mut manifest = shared.manifest.lock();
        self.store(&next, &files)?;
        *manifest = next.clone();
        drop(manifest);
        self.hand_over(active, &base, position);
        sweep(&*shared.storage, &next);
        Ok(())
    }

    /// Notes how much of the last journal is on the disk, if that is more than was noted. What fails is made up for the next time.
    fn note(&mut self) {
        let Place { number, bytes, .. } = *self.shared.synced_place.lock();
        if self.noted != (number, bytes) && synced::note(&*self.shared.storage, number, bytes).is_ok() {
            self.noted = (number, bytes);
        }
    }

    /// Puts the manifest in force. If it certainly is not, the files that only it would have named are removed.
    fn store(&self, next: &Manifest, files: &[&str]) -> Result<(), Reason> {
        next.store(&*self.shared.storage).map_err(|error| {
            if !error.may_have_happened {
                files.iter().for_each(|file| self.discard(file));
            }
            Reason::from(error.error.to_string())
        })
    }

    /// Lets the writer go on with new files. If something was left out of the journal since their snapshot, it is healed once more.
    fn hand_over(&self, active: Active, base: &Base, position: u64) {
        let shared = &*self.shared;
        let counters = &shared.counters;
        counters.base_bytes.store(base.bytes, Ordering::Relaxed);
        counters.closed_bytes.store(0, Ordering::Relaxed);
        counters.active_bytes.store(active.bytes, Ordering::Relaxed);
        *shared.synced_place.lock() = Place { number: active.number, bytes: active.bytes, position };
        shared.mend(Replacement { active, position });
    }

    fn cut(&self, on_cut: impl FnOnce()) -> Result<Snapshot, Reason> {
        self.engine.cut(self.shared.now_ms(), on_cut).ok_or_else(|| "another snapshot is under way".into())
    }

    fn write_base(&self, number: u64, snapshot: &mut Snapshot, stops: impl Fn() -> bool) -> Result<Base, Reason> {
        let written = self.write_snapshot(&base_file(number), snapshot, stops)?;
        Ok(Base { number, bytes: written.bytes, crc: written.crc })
    }

    fn write_snapshot(
        &self,
        name: &str,
        snapshot: &mut Snapshot,
        stops: impl Fn() -> bool,
    ) -> Result<snapshot_file::WrittenFile, Reason> {
        let facts =
            FileFacts { created_at_s: self.shared.now_ms() / 1_000, used_memory_bytes: self.engine.stats().bytes };
        snapshot_file::write(&*self.shared.storage, name, snapshot, &facts, stops)
    }

    fn is_stopped(&self) -> bool {
        self.shared.jobs.lock().stops
    }

    /// What is left of it is removed at the next start, if not now.
    fn discard(&self, name: &str) {
        drop(self.shared.storage.remove(name));
    }
}

/// Removes files of ours that the manifest does not name. What cannot be removed stays until the next time.
pub(crate) fn sweep(storage: &dyn Storage, manifest: &Manifest) {
    for name in storage.list().unwrap_or_default() {
        let is_numbered = Named::of(&name).number().is_some();
        if is_numbered && !manifest.names(&name) {
            drop(storage.remove(&name));
        }
    }
}
