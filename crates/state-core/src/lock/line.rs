//! Lines of waiters: within one process, those who wait for a lock ask the backend one at a time.
//!
//! # Guarantees
//! Waiters of one lock stand in line in the order in which they came; only the first asks. A waiter that leaves, however it
//! does, lets the next one step up, so none is forgotten.
//!
//! # Failure
//! A line knows nothing of notifications that were lost: waiters must not sleep longer than a bound of their own.
//!
//! # How it works
//! Drivers [`wake`](Lines::wake) the first waiter of a line when they learn that its lock was released. Who leaves without
//! the lock, or with one that others can share, hands the question on: the next asks at once. Who leaves with an exclusive
//! lock spares the next a question whose answer is known, and tells it how long the lease is instead. A wake-up that came
//! while a waiter was on its way into the line is found by counting them, see [`join`](Lines::join).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::lock::request::{LockBusy, LockGrant, LockOutcome};

/// Who waits for which lock in this process.
#[derive(Debug, Default)]
pub struct Lines {
    // Short critical sections, no await inside; taken once per wait and per notification. No line in it is empty.
    lines: Mutex<HashMap<Arc<str>, VecDeque<Arc<Waiter>>>>,
    /// A line came or went.
    changed: Notify,
    wakes: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiter {
    /// Something changed for this waiter.
    signal: Notify,
    /// It should ask now.
    ask: AtomicBool,
    /// The lease, in ms, of the holder behind whom it stepped up.
    lease_ms: AtomicU64,
}

/// A place in the line for one lock. Dropping it leaves the line.
#[derive(Debug)]
pub struct Place {
    lines: Arc<Lines>,
    name: Arc<str>,
    waiter: Arc<Waiter>,
    /// The lease that we leave with, in ms. Without one, the next in line asks as soon as it steps up.
    leaves_with_ms: Option<u64>,
}

/// Why a waiter was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The lock may be free.
    Ask,
    /// It is first now, behind a new holder with this lease.
    SteppedUp(Duration),
}

/// What came of asking the backend once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It is ours.
    Granted(LockGrant),
    /// Others hold it; waiting helps.
    Busy(LockBusy),
    /// The owner has released it and cannot get it again; waiting does not help.
    Refused(LockBusy),
}

impl Attempt {
    /// What the caller is told when nobody waits any longer.
    #[must_use]
    pub const fn outcome(self) -> LockOutcome {
        match self {
            Self::Granted(grant) => LockOutcome::Granted(grant),
            Self::Busy(busy) | Self::Refused(busy) => LockOutcome::Busy(busy),
        }
    }
}

impl Lines {
    /// Whether somebody waits for the lock of this name.
    #[must_use]
    pub fn has_waiters(&self, name: &str) -> bool {
        self.lines.lock().contains_key(name)
    }

    /// Whether nobody waits for anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.lock().is_empty()
    }

    /// The names of all locks that somebody waits for.
    #[must_use]
    pub fn names(&self) -> Vec<Arc<str>> {
        self.lines.lock().keys().cloned().collect()
    }

    /// Waits until a line began or ended. For one task: each change is told once.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Joins the line. `asked` is what [`wakes`](Self::wakes) said before we asked. If anyone was woken since, it may have been
    /// for this lock: who is first then asks once more. With `None`, for somebody who has not asked yet, it asks as well.
    #[must_use]
    pub fn join(self: &Arc<Self>, name: &str, asked: Option<u64>) -> Place {
        let waiter = Arc::new(Waiter::default());
        let mut lines = self.lines.lock();
        let known = lines.get_key_value(name).map(|(name, _)| name.clone());
        let is_first = known.is_none();
        let name = known.unwrap_or_else(|| Arc::from(name));
        lines.entry(name.clone()).or_default().push_back(waiter.clone());
        drop(lines);
        if is_first {
            self.changed.notify_one();
            if asked != Some(self.wakes()) {
                waiter.wake(true);
            }
        }
        Place { lines: self.clone(), name, waiter, leaves_with_ms: None }
    }

    /// How often waiters were to be woken so far.
    #[must_use]
    pub fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::Acquire)
    }

    /// Lets the first in line ask.
    pub fn wake(&self, name: &str) {
        // Counted before the line is looked at: who joins later sees the count, who joined earlier is in the line.
        self.wakes.fetch_add(1, Ordering::AcqRel);
        if let Some(first) = self.lines.lock().get(name).and_then(VecDeque::front) {
            first.wake(true);
        }
    }

    /// Lets the first of every line ask: notifications may have been missed.
    pub fn wake_all(&self) {
        self.wakes.fetch_add(1, Ordering::AcqRel);
        for first in self.lines.lock().values().filter_map(VecDeque::front) {
            first.wake(true);
        }
    }
}

impl Waiter {
    fn wake(&self, ask: bool) {
        if ask {
            self.ask.store(true, Ordering::Release);
        }
        self.signal.notify_one();
    }
}

impl Place {
    /// Whether nobody in this process is before us.
    #[must_use]
    pub fn is_first(&self) -> bool {
        let lines = self.lines.lines.lock();
        let first = lines.get(&self.name).and_then(VecDeque::front);
        first.is_some_and(|first| Arc::ptr_eq(first, &self.waiter))
    }

    /// Waits until something changed. Dropping the future loses nothing.
    pub async fn woken(&self) -> Woken {
        self.waiter.signal.notified().await;
        if self.waiter.ask.swap(false, Ordering::AcqRel) {
            return Woken::Ask;
        }
        Woken::SteppedUp(Duration::from_millis(self.waiter.lease_ms.load(Ordering::Acquire)))
    }

    /// Leaves the line with a lock that nobody else can get meanwhile: the next in line has nothing to ask before it is
    /// woken.
    pub fn leave_with_exclusive(mut self, lease_ms: u64) {
        self.leaves_with_ms = Some(lease_ms);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.lines.lines.lock();
        let Some(line) = lines.get_mut(&self.name) else { return };
        let was_first = line.front().is_some_and(|first| Arc::ptr_eq(first, &self.waiter));
        line.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
        if let (true, Some(next)) = (was_first, line.front()) {
            // A wake-up that we did not act on any more is handed on.
            next.lease_ms.store(self.leaves_with_ms.unwrap_or(0), Ordering::Release);
            next.wake(self.leaves_with_ms.is_none() || self.waiter.ask.load(Ordering::Acquire));
        }
        if line.is_empty() {
            lines.remove(&self.name);
            drop(lines);
            self.lines.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::{Lines, Place, Woken};

    /// Joins after having asked.
    fn asked(lines: &Arc<Lines>) -> Place {
        lines.join("lock", Some(lines.wakes()))
    }

    fn is_asked(place: &Place) -> bool {
        place.waiter.ask.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn a_notification_wakes_the_first_in_line_only() {
        let lines = Arc::new(Lines::default());
        let (first, second) = (asked(&lines), asked(&lines));
        lines.wake("lock");
        assert_eq!(first.woken().await, Woken::Ask);
        assert!(first.is_first() && !second.is_first());
        assert!(!is_asked(&second));
    }

    #[tokio::test]
    async fn who_leaves_lets_the_next_one_ask() {
        let lines = Arc::new(Lines::default());
        let (first, second) = (asked(&lines), asked(&lines));
        drop(first);
        assert!(second.woken().await == Woken::Ask && second.is_first());
        assert_eq!(lines.names(), [Arc::from("lock")]);
        drop(second);
        assert!(!lines.has_waiters("lock") && lines.is_empty());
    }

    #[tokio::test]
    async fn an_unused_notification_is_handed_on_also_by_a_new_holder() {
        let lines = Arc::new(Lines::default());
        let (first, second, third) = (asked(&lines), asked(&lines), asked(&lines));
        first.leave_with_exclusive(7);
        assert_eq!(second.woken().await, Woken::SteppedUp(Duration::from_millis(7)));
        lines.wake("lock");
        second.leave_with_exclusive(7);
        assert_eq!(third.woken().await, Woken::Ask);
    }

    #[tokio::test]
    async fn a_notification_that_came_before_the_first_stood_in_line_lets_it_ask() {
        let lines = Arc::new(Lines::default());
        let seen = lines.wakes();
        let quiet = lines.join("quiet", Some(seen));
        assert!(!is_asked(&quiet));
        lines.wake("lock");
        let (first, second) = (lines.join("lock", Some(seen)), lines.join("lock", Some(seen)));
        assert_eq!(first.woken().await, Woken::Ask);
        assert!(!is_asked(&second));
        lines.wake_all();
        assert!(is_asked(&quiet) && is_asked(&first) && !is_asked(&second));
    }

    #[tokio::test]
    async fn who_finds_the_line_empty_without_having_asked_asks() {
        let lines = Arc::new(Lines::default());
        let (first, second) = (lines.join("lock", None), lines.join("lock", None));
        assert!(is_asked(&first) && !is_asked(&second));
    }

    #[tokio::test]
    async fn lines_that_come_and_go_are_told() {
        let lines = Arc::new(Lines::default());
        let place = asked(&lines);
        lines.changed().await;
        drop(place);
        lines.changed().await;
        assert!(lines.names().is_empty());
    }
}
