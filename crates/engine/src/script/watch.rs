//! Keeps an eye on the time that scripts take, and ends one when somebody asks for it.
//!
//! # Guarantees
//! A script that runs longer than the threshold counts as slow until it ends. A slow script that has not written can be ended; it
//! cannot catch that error and go on. One that has written never is: what it left undone would stay undone. Only the end of the server
//! ends that one as well.
//!
//! # How it works
//! The interpreter calls [`Watch::tick`] after every so many instructions. Ending a script and its first write race for one atomic
//! word, so exactly one of them wins. The clock here is the machine's: it measures how long a thread is kept busy, which is no time
//! that a replayed run could see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::instance::Host;

/// What a script may take before others are told that it is in their way, unless configured: Redis's default.
const BUSY_AFTER_MS_DEFAULT: u64 = 5_000;

/// What a script may take before others no longer wait for it on their own threads.
const LONG_AFTER_US: u64 = 10_000;

/// What all scripts of an instance share.
pub(crate) struct Overseer {
    /// Times are counted from here.
    origin: Instant,
    busy_after_ms: AtomicU64,
    /// How many run for longer than a moment.
    long_count: AtomicUsize,
    /// How many are in `slow`: looked at without its lock.
    slow_count: AtomicUsize,
    slow: Mutex<Vec<Arc<Watch>>>,
    /// Whatever began before this is to end; 0: nothing.
    ended_us: AtomicU64,
    /// Whose threads scripts run on.
    host: Mutex<Option<Arc<dyn Host>>>,
}

/// The watch over one interpreter.
pub(crate) struct Watch {
    overseer: Arc<Overseer>,
    state: AtomicU8,
    began_us: AtomicU64,
    is_long: AtomicBool,
    /// When the host is told the next time that the run takes long, counted from its beginning.
    next_report_us: AtomicU64,
    is_slow: AtomicBool,
    was_interrupted: AtomicBool,
}

/// The run has changed nothing.
const CLEAN: u8 = 0;
/// It has executed a command that writes.
const WRITTEN: u8 = 1;
/// It is to end.
const ENDED: u8 = 2;

/// What came of the wish to end the scripts that are slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Killing {
    Done,
    NoneRuns,
    /// Those that run have written.
    Refused,
}

impl Default for Overseer {
    #[allow(clippy::disallowed_methods, reason = "how long a thread is kept busy, not a time that commands see")]
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            busy_after_ms: AtomicU64::new(BUSY_AFTER_MS_DEFAULT),
            long_count: AtomicUsize::new(0),
            slow_count: AtomicUsize::new(0),
            slow: Mutex::default(),
            ended_us: AtomicU64::new(0),
            host: Mutex::default(),
        }
    }
}

impl Overseer {
    /// Tells who is to know of scripts that run for long.
    pub(crate) fn set_host(&self, host: Arc<dyn Host>) {
        *self.host.lock() = Some(host);
    }

    pub(crate) fn busy_after_ms(&self) -> u64 {
        self.busy_after_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn set_busy_after_ms(&self, ms: u64) {
        self.busy_after_ms.store(ms, Ordering::Relaxed);
    }

    /// Whether a script runs that keeps what it holds for more than a moment.
    #[inline]
    pub(crate) fn any_long(&self) -> bool {
        self.long_count.load(Ordering::Acquire) > 0
    }

    /// Whether a script runs that has passed the threshold.
    #[inline]
    pub(crate) fn any_slow(&self) -> bool {
        self.slow_count.load(Ordering::Acquire) > 0
    }

    /// Ends the slow scripts that have not written.
    pub(crate) fn kill(&self) -> Killing {
        let slow = self.slow.lock();
        if slow.is_empty() {
            return Killing::NoneRuns;
        }
        let ended = slow.iter().filter(|watch| watch.end()).count();
        if ended > 0 { Killing::Done } else { Killing::Refused }
    }

    /// Ends all scripts that run now, also those that have written: the server ends.
    pub(crate) fn end_all(&self) {
        self.ended_us.store(self.now_us(), Ordering::Release);
    }

    fn now_us(&self) -> u64 {
        self.origin.elapsed().as_micros() as u64
    }
}

impl Watch {
    pub(crate) fn new(overseer: Arc<Overseer>) -> Arc<Self> {
        Arc::new(Self {
            overseer,
            state: AtomicU8::new(CLEAN),
            began_us: AtomicU64::new(0),
            is_long: AtomicBool::new(false),
            next_report_us: AtomicU64::new(LONG_AFTER_US),
            is_slow: AtomicBool::new(false),
            was_interrupted: AtomicBool::new(false),
        })
    }

    /// A run begins.
    pub(crate) fn begin(&self) {
        self.state.store(CLEAN, Ordering::Relaxed);
        self.began_us.store(self.overseer.now_us(), Ordering::Relaxed);
        self.next_report_us.store(LONG_AFTER_US, Ordering::Relaxed);
    }

    /// The run has ended: how long it took, in µs.
    pub(crate) fn finish(self: &Arc<Self>) -> u64 {
        if self.is_long.swap(false, Ordering::Relaxed) {
            self.overseer.long_count.fetch_sub(1, Ordering::AcqRel);
        }
        if self.is_slow.swap(false, Ordering::Relaxed) {
            let mut slow = self.overseer.slow.lock();
            slow.retain(|other| !Arc::ptr_eq(other, self));
            self.overseer.slow_count.store(slow.len(), Ordering::Release);
        }
        self.elapsed_us()
    }

    /// Called by the interpreter now and then. Returns whether the run is to end.
    pub(crate) fn tick(self: &Arc<Self>) -> bool {
        let elapsed_us = self.elapsed_us();
        if elapsed_us >= LONG_AFTER_US && !self.is_long.swap(true, Ordering::Relaxed) {
            self.overseer.long_count.fetch_add(1, Ordering::AcqRel);
        }
        if elapsed_us >= self.next_report_us.load(Ordering::Relaxed) {
            self.next_report_us.store(elapsed_us.saturating_mul(2), Ordering::Relaxed);
            let host = self.overseer.host.lock().clone();
            if let Some(host) = host {
                host.keep_thread(Duration::from_micros(elapsed_us));
            }
        }
        if elapsed_us / 1_000 >= self.overseer.busy_after_ms() && !self.is_slow.swap(true, Ordering::Relaxed) {
            let mut slow = self.overseer.slow.lock();
            slow.push(self.clone());
            self.overseer.slow_count.store(slow.len(), Ordering::Release);
        }
        if self.began_us.load(Ordering::Relaxed) < self.overseer.ended_us.load(Ordering::Acquire) {
            self.state.store(ENDED, Ordering::Release);
        }
        let is_ended = self.is_ended();
        if is_ended {
            self.was_interrupted.store(true, Ordering::Relaxed);
        }
        is_ended
    }

    /// The run is about to write. `false`: it was ended before.
    pub(crate) fn note_write(&self) -> bool {
        match self.state.compare_exchange(CLEAN, WRITTEN, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(state) => state == WRITTEN,
        }
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.state.load(Ordering::Acquire) == ENDED
    }

    /// Lets the run end at its next tick, unless it has written. Returns whether it will.
    pub(crate) fn end(&self) -> bool {
        match self.state.compare_exchange(CLEAN, ENDED, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(state) => state == ENDED,
        }
    }

    /// A tick has ended a run at some time: the interpreter's hook is no longer as it was.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.was_interrupted.load(Ordering::Relaxed)
    }

    fn elapsed_us(&self) -> u64 {
        self.overseer.now_us().saturating_sub(self.began_us.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Killing, Overseer, Watch};

    #[test]
    fn a_run_that_has_written_is_not_ended() {
        let overseer = Arc::new(Overseer::default());
        overseer.set_busy_after_ms(0);
        assert_eq!(overseer.kill(), Killing::NoneRuns);
        let watch = Watch::new(overseer.clone());
        watch.begin();
        assert!(!watch.tick());
        assert!(overseer.any_slow());
        assert!(watch.note_write());
        assert_eq!(overseer.kill(), Killing::Refused);
        assert!(!watch.tick());
        watch.finish();
        assert!(!overseer.any_slow());
    }

    #[test]
    fn a_run_that_was_ended_writes_no_more() {
        let overseer = Arc::new(Overseer::default());
        overseer.set_busy_after_ms(0);
        let watch = Watch::new(overseer.clone());
        watch.begin();
        watch.tick();
        assert_eq!(overseer.kill(), Killing::Done);
        assert!(!watch.note_write());
        assert!(watch.tick());
        assert_eq!(overseer.kill(), Killing::Done, "as often as somebody asks");
    }
}
