//! What the maintenance thread is asked for, and what became of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::config::Fsync;
use crate::shared::Shared;
use crate::statistics::JobStatistics;

/// Why something was not done.
pub(crate) type Reason = Arc<str>;

/// What the maintenance thread is asked for.
pub(crate) struct Jobs {
    pub(crate) rewrite: Job,
    pub(crate) save: Job,
    /// The files are not to be trusted.
    pub(crate) heal_wanted: bool,
    pub(crate) stops: bool,
    /// How much of the journal is on the disk is to be noted.
    pub(crate) is_note_due: bool,
    /// When that was due last.
    note_ms: u64,
    /// The journal of this number was begun, or why not.
    rotation: Option<(u64, Result<(), String>)>,
    /// When the last snapshot succeeded, in milliseconds since 1970.
    pub(crate) last_save_ms: u64,
    /// What it held.
    pub(crate) saved_position: u64,
    /// When each may begin by itself again.
    pub(crate) save_pause: Pause,
    pub(crate) rewrite_pause: Pause,
}

/// How long a snapshot that failed is not repeated by itself. Redis waits as long.
const SAVE_PAUSE_MS: u64 = 5_000;

/// The same for rewriting, at first and at most: each that fails leaves one more journal behind.
const REWRITE_PAUSE_MS: (u64, u64) = (5_000, 3_600_000);

/// How long something that failed is left alone: twice as long each time.
pub(crate) struct Pause {
    first_ms: u64,
    max_ms: u64,
    next_ms: u64,
    until_ms: u64,
}

impl Pause {
    fn new(first_ms: u64, max_ms: u64) -> Self {
        Self { first_ms, max_ms, next_ms: first_ms, until_ms: 0 }
    }

    pub(crate) fn is_over(&self, now_ms: u64) -> bool {
        now_ms >= self.until_ms
    }

    pub(crate) fn note(&mut self, has_succeeded: bool, now_ms: u64) {
        if has_succeeded {
            (self.next_ms, self.until_ms) = (self.first_ms, 0);
        } else {
            self.until_ms = now_ms.saturating_add(self.next_ms);
            self.next_ms = (self.next_ms * 2).min(self.max_ms);
        }
    }
}

/// Something that is done in the background, once at a time.
#[derive(Default)]
pub(crate) struct Job {
    is_requested: bool,
    is_running: bool,
    begun: u64,
    ended: u64,
    last: Option<Result<(), Reason>>,
    began_at: Option<Instant>,
    last_duration: Duration,
}

impl Jobs {
    pub(crate) fn new(position: u64, now_ms: u64) -> Self {
        Self {
            rewrite: Job::default(),
            save: Job::default(),
            heal_wanted: false,
            stops: false,
            is_note_due: false,
            note_ms: now_ms,
            rotation: None,
            last_save_ms: now_ms,
            saved_position: position,
            save_pause: Pause::new(SAVE_PAUSE_MS, SAVE_PAUSE_MS),
            rewrite_pause: Pause::new(REWRITE_PAUSE_MS.0, REWRITE_PAUSE_MS.1),
        }
    }
}

/// How often it is noted how much of the journal is on the disk: two small syncs beside those of the journal.
const NOTE_EVERY_MS: u64 = 60_000;

impl Jobs {
    /// Whether that is due from now on.
    pub(crate) fn begin_note(&mut self, now_ms: u64) -> bool {
        // Also if the clock was set back.
        if now_ms.abs_diff(self.note_ms) < NOTE_EVERY_MS {
            return false;
        }
        self.note_ms = now_ms;
        self.is_note_due = true;
        true
    }
}

impl Job {
    /// Returns the number of the run that this one asks for.
    fn request(&mut self) -> u64 {
        self.is_requested = true;
        self.begun + 1
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.is_requested || self.is_running
    }

    /// Whether it is to run now; it does, then.
    pub(crate) fn begin(&mut self) -> bool {
        if !self.is_requested {
            return false;
        }
        (self.is_requested, self.is_running) = (false, true);
        self.began_at = Some(Instant::now());
        self.begun += 1;
        true
    }

    pub(crate) fn end(&mut self, result: Result<(), Reason>) {
        self.is_running = false;
        self.ended = self.begun;
        self.last = Some(result);
        self.last_duration = self.began_at.map(|began| began.elapsed()).unwrap_or_default();
    }

    pub(crate) fn statistics(&self) -> JobStatistics {
        JobStatistics {
            is_running: self.is_running,
            is_requested: self.is_requested,
            ended: self.ended,
            last_failure: self.last.as_ref().and_then(|result| result.as_ref().err()).cloned(),
            last_duration: self.last_duration,
        }
    }
}

/// Which of the jobs.
pub(crate) type Choose = fn(&mut Jobs) -> &mut Job;

/// A request that is refused because such a job runs already, or will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InProgress;

impl std::fmt::Display for InProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it is in progress already")
    }
}

impl std::error::Error for InProgress {}

impl Shared {
    /// Lets the writer sync what nobody has it sync, if it is not much.
    pub(crate) fn sync_if_little(&self, bytes_max: u64) {
        let written_bytes = self.counters.active_bytes.load(Ordering::Relaxed);
        let unsynced_bytes = written_bytes.saturating_sub(self.synced_place.lock().bytes);
        if self.fsync() == Fsync::No && (1..=bytes_max).contains(&unsynced_bytes) {
            self.demand_sync();
        }
    }

    /// Lets the job begin soon.
    pub(crate) fn start(&self, choose: Choose) -> Result<(), InProgress> {
        let mut jobs = self.jobs.lock();
        if choose(&mut jobs).is_pending() {
            return Err(InProgress);
        }
        choose(&mut jobs).request();
        self.jobs_changed.notify_all();
        Ok(())
    }

    /// Waits for a run of the job that begins from now on.
    pub(crate) fn run_to_end(&self, choose: Choose) -> Result<(), Reason> {
        let mut jobs = self.jobs.lock();
        let number = choose(&mut jobs).request();
        self.jobs_changed.notify_all();
        loop {
            let job = choose(&mut jobs);
            if job.ended >= number {
                return job.last.clone().unwrap_or(Ok(()));
            }
            if jobs.stops {
                return Err("the directory is being closed".into());
            }
            self.jobs_changed.wait(&mut jobs);
        }
    }

    /// Tells who waits for a new journal.
    pub(crate) fn tell_rotation(&self, number: u64, result: Result<(), String>) {
        let mut jobs = self.jobs.lock();
        jobs.rotation = Some((number, result));
        self.jobs_changed.notify_all();
    }

    /// Waits until the journal of this number has begun.
    pub(crate) fn await_rotation(&self, number: u64) -> Result<(), Reason> {
        let mut jobs = self.jobs.lock();
        loop {
            match &jobs.rotation {
                Some((told, result)) if *told == number => return result.clone().map_err(Reason::from),
                _ => {}
            }
            if jobs.stops {
                return Err("the directory is being closed".into());
            }
            if let Some(reason) = self.health.failure() {
                return Err(reason);
            }
            self.jobs_changed.wait(&mut jobs);
        }
    }
}
