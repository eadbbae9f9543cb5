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
//! *Healing*: the same, but what was not synced is not waited for. The snapshot has it.
//!
//! *Saving*: a snapshot that takes the place of `dump.rdb`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use acteon_engine::rdb::FileFacts;
use acteon_engine::{Engine, Snapshot};

use crate::active::Active;
use crate::jobs::Reason;
use crate::manifest::{Base, DUMP, Journal, Manifest, Named, base_file, journal_file};
use crate::shared::{Place, Replacement, Sentinel, Shared};
use crate::snapshot_file;
use crate::storage::{Storage, TEMPORARY, exchange};

pub(crate) struct Maintenance {
    shared: Arc<Shared>,
    engine: Engine,
    /// When to try to heal again, and how long to wait the time after.
    retry: Option<(Instant, Duration)>,
}

enum Task {
    Heal,
    Rewrite,
    Save,
    Stop,
}

impl Maintenance {
    pub(crate) fn new(shared: Arc<Shared>, engine: Engine) -> Self {
        Self { shared, engine, retry: None }
    }

    /// Works until the disk is closed.
    pub(crate) fn run(mut self) {
        let _sentinel = Sentinel(Arc::clone(&self.shared));
        loop {
            match self.wait() {
                Task::Heal => self.try_to_heal(),
                Task::Rewrite => {
                    let result = self.rewrite();
                    let mut jobs = self.shared.jobs.lock();
                    jobs.rewrite_pause.note(result.is_ok(), self.shared.now_ms());
                    jobs.rewrite.end(result);
                }
                Task::Save => {
                    let result = self.save();
                    let mut jobs = self.shared.jobs.lock();
                    jobs.save_pause.note(result.is_ok(), self.shared.now_ms());
                    if let Ok(position) = &result {
                        (jobs.saved_position, jobs.last_save_ms) = (*position, self.shared.now_ms());
                    }
                    jobs.save.end(result.map(drop));
                }
                Task::Stop => return,
            }
            self.shared.jobs_changed.notify_all();
        }
    }

    fn wait(&self) -> Task {
        let mut jobs = self.shared.jobs.lock();
        loop {
            if jobs.stops {
                return Task::Stop;
            }
            let heal_at = self.retry.map(|(at, _)| at).filter(|_| jobs.heal_wanted);
            if jobs.heal_wanted && heal_at.is_none_or(|at| at <= Instant::now()) {
                return Task::Heal;
            }
            if jobs.rewrite.begin() {
                return Task::Rewrite;
            }
            if jobs.save.begin() {
                return Task::Save;
            }
            match heal_at {
                Some(at) => drop(self.shared.jobs_changed.wait_until(&mut jobs, at)),
                None => self.shared.jobs_changed.wait(&mut jobs),
            }
        }
    }

    fn rewrite(&self) -> Result<(), Reason> {
        let shared = &*self.shared;
        let _files = shared.files.lock();
        if let Some(reason) = shared.failure() {
            return Err(reason);
        }
        let number = shared.next_number();
        let mut snapshot = self.cut(|| shared.rotate_here(number))?;
        let base = self.write_base(number, &mut snapshot);
        // Ends the snapshot, so that writers save nothing more for it while the journal is waited for.
        drop(snapshot);
        let rotated = base.and_then(|base| shared.await_rotation(number).map(|()| base));
        let base = rotated.inspect_err(|_| self.discard(&base_file(number)))?;
        let mut manifest = shared.manifest.lock();
        let journals = manifest.journals.iter().filter(|journal| journal.number >= number).copied().collect();
        let next = Manifest { base: Some(base), journals };
        // Both manifests lead to the same, and all files of both are there: whichever it is after an error, it is right.
        next.store(&*shared.storage).map_err(|error| Reason::from(error.error.to_string()))?;
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
        let written = self.write_snapshot(&temporary, &mut snapshot);
        drop(snapshot);
        written.inspect_err(|_| self.discard(&temporary))?;
        exchange(&*shared.storage, &temporary, DUMP).map_err(|error| Reason::from(error.error.to_string()))?;
        Ok(position)
    }

    fn try_to_heal(&mut self) {
        match self.heal() {
            Ok(()) => self.retry = None,
            Err(reason) => {
                let (first, max) = self.shared.config.retry;
                let pause = self.retry.map_or(first, |(_, pause)| pause);
                self.retry = Some((Instant::now() + pause, (pause * 2).min(max)));
                // Who is refused is told of the latest obstacle.
                self.shared.fail(reason);
            }
        }
    }

    fn heal(&self) -> Result<(), Reason> {
        let shared = &*self.shared;
        let _files = shared.files.lock();
        let number = shared.next_number();
        let mut position = 0;
        let mut snapshot = self.cut(|| position = shared.begin_anew())?;
        let base = self.write_base(number, &mut snapshot);
        drop(snapshot);
        let base = base.inspect_err(|_| self.discard(&base_file(number)))?;
        let active = Active::create(&*shared.storage, number, position).map_err(|error| {
            self.discard(&base_file(number));
            self.discard(&journal_file(number));
            Reason::from(error.to_string())
        })?;
        let next = Manifest { base: Some(base), journals: vec![Journal { number, first_position: position }] };
        let mut manifest = shared.manifest.lock();
        next.store(&*shared.storage).map_err(|error| Reason::from(error.error.to_string()))?;
        *manifest = next.clone();
        drop(manifest);
        self.hand_over(active, &base, position);
        sweep(&*shared.storage, &next);
        Ok(())
    }

    /// Lets the writer go on with new files.
    fn hand_over(&self, active: Active, base: &Base, position: u64) {
        let shared = &*self.shared;
        let counters = &shared.counters;
        counters.base_bytes.store(base.bytes, Ordering::Relaxed);
        counters.closed_bytes.store(0, Ordering::Relaxed);
        counters.active_bytes.store(active.bytes, Ordering::Relaxed);
        *shared.synced_place.lock() = Place { number: active.number, bytes: active.bytes, position };
        shared.jobs.lock().heal_wanted = false;
        {
            let mut inbox = shared.inbox.lock();
            inbox.replacement = Some(Replacement { active, position });
            inbox.is_broken = false;
            shared.work.notify_one();
        }
        // The snapshot has it.
        shared.written.advance(position);
        shared.synced.advance(position);
        shared.recover();
    }

    fn cut(&self, on_cut: impl FnOnce()) -> Result<Snapshot, Reason> {
        self.engine.cut(self.shared.now_ms(), on_cut).ok_or_else(|| "another snapshot is under way".into())
    }

    fn write_base(&self, number: u64, snapshot: &mut Snapshot) -> Result<Base, Reason> {
        let written = self.write_snapshot(&base_file(number), snapshot)?;
        Ok(Base { number, bytes: written.bytes, crc: written.crc })
    }

    fn write_snapshot(&self, name: &str, snapshot: &mut Snapshot) -> Result<snapshot_file::WrittenFile, Reason> {
        let facts =
            FileFacts { created_at_s: self.shared.now_ms() / 1_000, used_memory_bytes: self.engine.stats().bytes };
        snapshot_file::write(&*self.shared.storage, name, snapshot, &facts, || self.shared.jobs.lock().stops)
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
