//! The thread that writes the journal.
//!
//! # Guarantees
//! Groups are written in their order, each as a whole; none is written twice, none left out while the file goes on.
//!
//! # How it works
//! It takes all that was appended since the last time, fills in the checksums, writes once, and syncs once if the setting asks for that: the
//! more there are who wait, the more share one sync. While nobody waits (`everysec`, `no`) it gathers for two milliseconds after the first
//! group, so that a busy engine pays for few calls; then the operating system has it, whenever the next sync may be.
//!
//! # Failure
//! What could not be written stays in memory, is cut off the file, and is tried again with growing pauses; meanwhile writes are refused, and
//! what was written before is synced as ever. After a sync that failed nothing is known of what was written since the last good one, and asking
//! again tells a lie on several file systems. So the files are given up: the other thread begins new ones with a snapshot, and until then writes
//! are refused. What was acknowledged without a sync by then is written all the same, once and without a sync, so that it survives the end of the
//! process: the next one takes it to the disk. The same goes for a group that is too large for the journal: what came before it is written and
//! synced still.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::active::Active;
use crate::config::Fsync;
use crate::format::seal;
use crate::manifest::{Journal, Manifest};
use crate::shared::{GATHER_BYTES, Inbox, Place, Replacement, Sentinel, Shared};
use crate::storage::FileError;

/// How long the writer gathers while nobody waits for the disk: so much may be lost with the process.
pub(crate) const GATHER: Duration = Duration::from_millis(2);

/// A buffer above this size is not kept for the next time.
const SPARE_BYTES_MAX: usize = 4 << 20;

pub(crate) struct Writer {
    shared: Arc<Shared>,
    active: Active,
    pending: VecDeque<Item>,
    /// Of the first record that is taken next.
    next_position: u64,
    /// After what was written last.
    written_position: u64,
    spare: Vec<u8>,
    has_unsynced: bool,
    /// Which file another process would go on with is unknown.
    is_lost: bool,
    /// Somebody has asked for a sync, whatever the setting.
    owes_sync: bool,
    last_sync: Instant,
    /// When what is being gathered is written.
    gathers_until: Option<Instant>,
    /// When to try again, and how long to wait the time after.
    retry: Option<(Instant, Duration)>,
}

/// What is to be done, in order.
enum Item {
    /// Sealed.
    Records {
        bytes: Vec<u8>,
        end: u64,
    },
    NewFile {
        number: u64,
        position: u64,
    },
}

enum Order {
    Work,
    /// What comes next will not be written.
    BreakDown,
    Stop,
}

/// Why the files are given up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// It is unknown what of them is on the disk.
    Sync,
    /// They lack a group that is too large.
    Oversized,
}

enum Trouble {
    /// Try again.
    Write(FileError),
    /// Give the files up.
    Broken(FileError),
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, active: Active, position: u64) -> Self {
        Self {
            shared,
            active,
            pending: VecDeque::new(),
            next_position: position,
            written_position: position,
            spare: Vec::new(),
            has_unsynced: false,
            is_lost: false,
            owes_sync: false,
            last_sync: Instant::now(),
            gathers_until: None,
            retry: None,
        }
    }

    /// Works until the disk is closed. Returns why not everything is on the disk then.
    pub(crate) fn run(mut self) -> Result<(), Arc<str>> {
        let _sentinel = Sentinel(Arc::clone(&self.shared));
        loop {
            match self.wait() {
                Order::Work => self.work(),
                Order::BreakDown => self.write_and_break_down(),
                Order::Stop => return self.finish(),
            }
        }
    }

    fn wait(&mut self) -> Order {
        let shared = Arc::clone(&self.shared);
        let mut inbox = shared.inbox.lock();
        loop {
            if let Some(replacement) = inbox.replacement.take() {
                self.go_on_with(replacement);
            }
            if inbox.stops {
                self.take(&mut inbox);
                return Order::Stop;
            }
            if std::mem::take(&mut inbox.had_oversized) {
                self.take(&mut inbox);
                return Order::BreakDown;
            }
            let now = Instant::now();
            let due = self.due(&inbox, now);
            if due.is_some_and(|at| at <= now) {
                self.take(&mut inbox);
                return Order::Work;
            }
            // Whoever brings the first records changes what is due. Those who bring more do not.
            inbox.is_writer_idle = inbox.records.is_empty();
            match due {
                Some(at) => drop(shared.work.wait_until(&mut inbox, at)),
                None => shared.work.wait(&mut inbox),
            }
            inbox.is_writer_idle = false;
        }
    }

    /// When there is something to do; `None`: not before somebody says so.
    fn due(&mut self, inbox: &Inbox, now: Instant) -> Option<Instant> {
        if inbox.is_broken {
            return None;
        }
        let fsync = self.shared.fsync();
        let sync = if self.has_unsynced { self.sync_due(fsync, now) } else { None };
        if let Some((at, _)) = self.retry {
            return sync.into_iter().chain([at]).min();
        }
        let is_awaited = (fsync == Fsync::Always && !inbox.records.is_empty()) || inbox.wants_sync;
        if is_awaited || inbox.rotation.is_some() || inbox.records.len() >= GATHER_BYTES {
            return Some(now);
        }
        let write = (!inbox.records.is_empty()).then(|| *self.gathers_until.get_or_insert(now + GATHER));
        sync.into_iter().chain(write).min()
    }

    /// When what is written is to be synced; `None`: not by itself.
    fn sync_due(&self, fsync: Fsync, now: Instant) -> Option<Instant> {
        match fsync {
            _ if self.owes_sync => Some(now),
            Fsync::Always => Some(now),
            Fsync::EverySecond => self.last_sync.checked_add(self.shared.config.fsync_interval),
            Fsync::No => None,
        }
    }

    fn take(&mut self, inbox: &mut Inbox) {
        if inbox.is_broken {
            // It is for new files.
            return;
        }
        self.gathers_until = None;
        self.owes_sync |= std::mem::take(&mut inbox.wants_sync);
        let mut records = std::mem::replace(&mut inbox.records, std::mem::take(&mut self.spare));
        let rotation = inbox.rotation.take();
        self.shared.writing_bytes.fetch_add(records.len(), Ordering::Relaxed);
        let rest = rotation.map(|rotation| records.split_off(rotation.offset));
        self.plan(records);
        if let Some(rotation) = rotation {
            debug_assert_eq!(self.next_position, rotation.position, "positions count groups");
            self.pending.push_back(Item::NewFile { number: rotation.number, position: rotation.position });
        }
        self.plan(rest.unwrap_or_default());
    }

    fn plan(&mut self, mut bytes: Vec<u8>) {
        if bytes.is_empty() {
            return self.keep_spare(bytes);
        }
        let end = seal(&mut bytes, self.next_position);
        self.next_position = end;
        self.pending.push_back(Item::Records { bytes, end });
    }

    fn keep_spare(&mut self, mut bytes: Vec<u8>) {
        if bytes.capacity() <= SPARE_BYTES_MAX && bytes.capacity() > self.spare.capacity() {
            bytes.clear();
            self.spare = bytes;
        }
    }

    fn work(&mut self) {
        let now = Instant::now();
        let written = if self.retry.is_none_or(|(at, _)| at <= now) { self.write_again(now) } else { Ok(()) };
        // Also if that has failed: what was written before has nothing to do with it.
        if let Err(error) = written.and_then(|()| self.sync_if_due()) {
            self.break_down(error.to_string().into(), Cause::Sync);
        }
        self.shared.look_for_room();
    }

    /// Writes what is there. What fails is tried again later, unless the files are to be given up.
    fn write_again(&mut self, now: Instant) -> Result<(), FileError> {
        match self.write_pending() {
            Ok(()) => {
                if self.retry.take().is_some() {
                    self.shared.recover();
                }
            }
            Err(Trouble::Write(error)) => {
                let (first, max) = self.shared.config.retry;
                let pause = self.retry.map_or(first, |(_, pause)| pause);
                self.retry = Some((now + pause, pause.saturating_mul(2).min(max)));
                self.shared.fail(error.to_string().into());
            }
            Err(Trouble::Broken(error)) => return Err(error),
        }
        Ok(())
    }

    fn write_pending(&mut self) -> Result<(), Trouble> {
        while let Some(item) = self.pending.front() {
            match item {
                Item::Records { bytes, end } => {
                    let counters = &self.shared.counters;
                    if let Err(error) = self.active.append(bytes) {
                        counters.write_failures.fetch_add(1, Ordering::Relaxed);
                        return Err(Trouble::Write(error));
                    }
                    let (bytes, end) = (bytes.len(), *end);
                    self.has_unsynced = true;
                    self.written_position = end;
                    counters.writes.fetch_add(1, Ordering::Relaxed);
                    counters.active_bytes.store(self.active.bytes, Ordering::Relaxed);
                    self.shared.writing_bytes.fetch_sub(bytes, Ordering::Relaxed);
                    self.shared.health.written.advance(end);
                }
                Item::NewFile { number, position } => {
                    let (number, position) = (*number, *position);
                    self.begin_file(number, position)?;
                }
            }
            if let Some(Item::Records { bytes, .. }) = self.pending.pop_front() {
                self.keep_spare(bytes);
            }
        }
        Ok(())
    }

    fn sync_if_due(&mut self) -> Result<(), FileError> {
        let now = Instant::now();
        let is_due = self.sync_due(self.shared.fsync(), now).is_some_and(|at| at <= now);
        if self.has_unsynced && is_due {
            self.sync()?;
        }
        // What could not be written yet is still owed.
        self.owes_sync &= !self.pending.is_empty();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), FileError> {
        let began = Instant::now();
        if let Err(error) = self.active.sync() {
            self.shared.counters.sync_failures.fetch_add(1, Ordering::Relaxed);
            return Err(error);
        }
        self.last_sync = Instant::now();
        self.shared.counters.note_sync(self.last_sync - began);
        self.has_unsynced = false;
        self.note_synced();
        Ok(())
    }

    fn note_synced(&self) {
        let Active { number, bytes, .. } = self.active;
        let position = self.written_position;
        *self.shared.synced_place.lock() = Place { number, bytes, position };
        self.shared.health.synced.advance(position);
    }

    /// Lets what follows go into a new file. If there cannot be one, it goes on in the old one, and whoever wanted it is told.
    fn begin_file(&mut self, number: u64, position: u64) -> Result<(), Trouble> {
        if self.has_unsynced {
            self.sync().map_err(Trouble::Broken)?;
        }
        let storage = &*self.shared.storage;
        let active = match Active::create(storage, number, position) {
            Ok(active) => active,
            Err(error) => {
                self.shared.tell_rotation(number, Err(error.to_string()));
                return Ok(());
            }
        };
        let mut manifest = self.shared.manifest.lock();
        let mut next = manifest.clone();
        next.journals.push(Journal { number, first_position: position });
        match next.store(storage) {
            Ok(()) => *manifest = next,
            // Nobody knows whether the new file counts.
            Err(error) if error.may_have_happened => {
                drop(manifest);
                self.choose_last(active);
                return Err(Trouble::Broken(error.error));
            }
            Err(error) => {
                self.shared.tell_rotation(number, Err(error.error.to_string()));
                return Ok(());
            }
        }
        drop(manifest);
        let counters = &self.shared.counters;
        counters.closed_bytes.fetch_add(self.active.bytes, Ordering::Relaxed);
        counters.active_bytes.store(active.bytes, Ordering::Relaxed);
        self.active = active;
        self.note_synced();
        self.shared.tell_rotation(number, Ok(()));
        Ok(())
    }

    /// Whether a new file counts is unknown. What is still to be written must go where another process looks for it, or nowhere: behind the place
    /// where a file begins that counts, the old one must not go on.
    fn choose_last(&mut self, new: Active) {
        match Manifest::load(&*self.shared.storage) {
            Ok(Some(Ok(manifest))) if manifest.journals.iter().any(|one| one.number == new.number) => self.active = new,
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(_)) | None) | Err(_) => self.is_lost = true,
        }
    }

    /// Before a group that is too large: what came before it still goes into the old files, which count until there are new ones.
    fn write_and_break_down(&mut self) {
        self.owes_sync = true;
        self.work();
        let reason = self.shared.health.breakdown().unwrap_or_else(|| "a change does not fit the journal".into());
        self.break_down(reason, Cause::Oversized);
    }

    fn break_down(&mut self, reason: Arc<str>, cause: Cause) {
        let shared = Arc::clone(&self.shared);
        let mut is_acknowledged = false;
        let is_given_up = shared.break_down(reason, |inbox| {
            if cause == Cause::Oversized && !inbox.only_counts {
                // New files were cut meanwhile, whose snapshot has it.
                return false;
            }
            is_acknowledged = shared.acknowledges_early(inbox);
            // Otherwise it is for new files, which have come since the old ones were given up.
            if inbox.replacement.is_none() {
                self.take(inbox);
            }
            true
        });
        if !is_given_up {
            return;
        }
        if is_acknowledged {
            self.append_rest();
        }
        self.pending.clear();
        self.retry = None;
        (self.has_unsynced, self.owes_sync, self.is_lost) = (false, false, false);
    }

    /// Hands what was acknowledged without a sync to the operating system, as far as that takes it. The files do not count for much longer, but
    /// until there are new ones nothing else would have it if this process were killed. Nothing is said to be synced by that.
    fn append_rest(&mut self) {
        if self.is_lost {
            return;
        }
        for item in std::mem::take(&mut self.pending) {
            // Behind a file that was to be begun, the old one goes on just as well.
            let Item::Records { bytes, end } = item else { continue };
            if self.active.append(&bytes).is_err() {
                return;
            }
            self.shared.health.written.advance(end);
        }
    }

    fn go_on_with(&mut self, replacement: Replacement) {
        let Replacement { active, position } = replacement;
        debug_assert!(self.pending.is_empty(), "nothing is taken while the files are broken");
        self.active = active;
        (self.next_position, self.written_position) = (position, position);
        self.last_sync = Instant::now();
    }

    /// The last attempt.
    fn finish(&mut self) -> Result<(), Arc<str>> {
        let written = self.write_pending();
        let is_acknowledged = self.shared.acknowledges_early(&self.shared.inbox.lock());
        if let (Err(Trouble::Broken(_)), true) = (&written, is_acknowledged) {
            self.append_rest();
        }
        let synced = match &written {
            // Asking again would tell a lie.
            Err(Trouble::Broken(_)) => Ok(()),
            // Also if something could not be written: what was is not lost with it.
            _ if self.has_unsynced => self.sync().map_err(Trouble::Broken),
            _ => Ok(()),
        };
        match written.and(synced) {
            Ok(()) => self.shared.recover(),
            Err(Trouble::Write(error) | Trouble::Broken(error)) => self.shared.fail(error.to_string().into()),
        }
        self.shared.health.failure().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests;
