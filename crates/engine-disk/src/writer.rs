//! The thread that writes the journal.
//!
//! # Guarantees
//! Groups are written in their order, each as a whole; none is written twice, none left out while the file goes on.
//!
//! # How it works
//! It takes all that was appended since the last time, fills in the checksums, writes once, and syncs once if the setting asks for that: the
//! more there are who wait, the more share one sync. While nobody waits (`everysec`, `no`) it gathers for two milliseconds at least, so that a
//! busy engine pays for few calls.
//!
//! # Failure
//! What could not be written stays in memory, is cut off the file, and is tried again with growing pauses; meanwhile writes are refused. After
//! a sync that failed nothing is known of what was written since the last good one, and asking again tells a lie on several file systems. So
//! the files are given up: the other thread begins new ones with a snapshot, and until then writes are refused.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::active::Active;
use crate::config::Fsync;
use crate::format::seal;
use crate::manifest::Journal;
use crate::shared::{GATHER_BYTES, Inbox, Place, Replacement, Sentinel, Shared};
use crate::storage::FileError;

/// How long the writer gathers while nobody waits for the disk.
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
    Work { syncs: bool },
    BreakDown(Arc<str>),
    Stop,
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
                Order::Work { syncs } => self.work(syncs),
                Order::BreakDown(reason) => self.break_down(reason),
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
            if let Some(bytes) = inbox.oversized_bytes.take() {
                return Order::BreakDown(format!("a change of {bytes} bytes does not fit the journal").into());
            }
            let now = Instant::now();
            match self.due(&inbox, now) {
                Some(at) if at <= now => {
                    self.take(&mut inbox);
                    return Order::Work { syncs: std::mem::take(&mut inbox.wants_sync) };
                }
                Some(at) => drop(shared.work.wait_until(&mut inbox, at)),
                None => {
                    inbox.is_writer_idle = true;
                    shared.work.wait(&mut inbox);
                    inbox.is_writer_idle = false;
                }
            }
        }
    }

    /// When there is something to do; `None`: not before somebody says so.
    fn due(&mut self, inbox: &Inbox, now: Instant) -> Option<Instant> {
        if inbox.is_broken {
            return None;
        }
        if let Some((at, _)) = self.retry {
            return Some(at);
        }
        let fsync = self.shared.fsync();
        let is_awaited = fsync == Fsync::Always && (!inbox.records.is_empty() || self.has_unsynced);
        if is_awaited || inbox.wants_sync || inbox.rotation.is_some() || inbox.records.len() >= GATHER_BYTES {
            return Some(now);
        }
        let write = (!inbox.records.is_empty()).then(|| *self.gathers_until.get_or_insert(now + GATHER));
        let sync = (fsync == Fsync::EverySecond && self.has_unsynced)
            .then(|| self.last_sync + self.shared.config.fsync_interval);
        write.into_iter().chain(sync).min()
    }

    fn take(&mut self, inbox: &mut Inbox) {
        self.gathers_until = None;
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

    fn work(&mut self, syncs: bool) {
        match self.write_pending().and_then(|()| self.sync_if_due(syncs)) {
            Ok(()) => {
                if self.retry.take().is_some() {
                    self.shared.recover();
                }
            }
            Err(Trouble::Write(error)) => {
                self.shared.counters.write_failures.fetch_add(1, Ordering::Relaxed);
                let (first, max) = self.shared.config.retry;
                let pause = self.retry.map_or(first, |(_, pause)| pause);
                self.retry = Some((Instant::now() + pause, (pause * 2).min(max)));
                self.shared.fail(error.to_string().into());
            }
            Err(Trouble::Broken(error)) => {
                self.shared.counters.sync_failures.fetch_add(1, Ordering::Relaxed);
                self.break_down(error.to_string().into());
            }
        }
        self.shared.look_for_room();
    }

    fn write_pending(&mut self) -> Result<(), Trouble> {
        while let Some(item) = self.pending.front() {
            match item {
                Item::Records { bytes, end } => {
                    self.active.append(bytes).map_err(Trouble::Write)?;
                    let (bytes, end) = (bytes.len(), *end);
                    self.has_unsynced = true;
                    self.written_position = end;
                    let counters = &self.shared.counters;
                    counters.writes.fetch_add(1, Ordering::Relaxed);
                    counters.active_bytes.store(self.active.bytes, Ordering::Relaxed);
                    self.shared.writing_bytes.fetch_sub(bytes, Ordering::Relaxed);
                    self.shared.written.advance(end);
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

    fn sync_if_due(&mut self, syncs: bool) -> Result<(), Trouble> {
        let is_due = match self.shared.fsync() {
            Fsync::Always => true,
            Fsync::EverySecond => self.last_sync.elapsed() >= self.shared.config.fsync_interval,
            Fsync::No => false,
        };
        if self.has_unsynced && (is_due || syncs) { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<(), Trouble> {
        let began = Instant::now();
        self.active.sync().map_err(Trouble::Broken)?;
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
        self.shared.synced.advance(position);
    }

    /// Lets what follows go into a new file. If there cannot be one, it goes on in the old one, and whoever wanted it is told.
    fn begin_file(&mut self, number: u64, position: u64) -> Result<(), Trouble> {
        if self.has_unsynced {
            self.sync()?;
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
            Err(error) if error.may_have_happened => return Err(Trouble::Broken(error.error)),
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

    fn break_down(&mut self, reason: Arc<str>) {
        self.pending.clear();
        self.retry = None;
        self.has_unsynced = false;
        self.shared.break_down(reason);
    }

    fn go_on_with(&mut self, replacement: Replacement) {
        let Replacement { active, position } = replacement;
        self.pending.clear();
        self.active = active;
        (self.next_position, self.written_position) = (position, position);
        self.last_sync = Instant::now();
    }

    /// The last attempt.
    fn finish(&mut self) -> Result<(), Arc<str>> {
        if let Some(reason) = self.shared.failure().filter(|_| self.shared.is_broken()) {
            return Err(reason);
        }
        match self.write_pending().and_then(|()| if self.has_unsynced { self.sync() } else { Ok(()) }) {
            Ok(()) => Ok(()),
            Err(Trouble::Write(error) | Trouble::Broken(error)) => {
                let reason: Arc<str> = error.to_string().into();
                self.shared.fail(Arc::clone(&reason));
                Err(reason)
            }
        }
    }
}
