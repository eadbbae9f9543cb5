//! Who waits until a position is reached: threads, and futures of any runtime.
//!
//! # Guarantees
//! Whoever waits is woken when the position is reached, or when the disk fails before. Whoever comes while it fails does not wait.
//!
//! # Cancellation
//! Dropping a [`Kept`] leaves nothing behind.
//!
//! # How it works
//! The position is an atomic word, so that whoever has nothing to wait for takes no lock. Those who wait stand in a map by position; the writer
//! takes all of them out at once who have got what they wait for.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Why a position was not reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotKept {
    /// The disk fails. The write has happened in memory; whether it is there after a crash is unknown.
    Failing(Arc<str>),
    /// The time was over. It may be reached later.
    TimedOut,
}

impl fmt::Display for NotKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failing(reason) => write!(f, "the write is not on the disk, and may be lost: {reason}"),
            Self::TimedOut => f.write_str("the write is not on the disk yet, and may be lost if the machine stops now"),
        }
    }
}

impl std::error::Error for NotKept {}

/// Futures that were waiting.
#[must_use = "they sleep until they are woken"]
#[derive(Default)]
pub(crate) struct Wakers(BTreeMap<(u64, u64), Waker>);

impl Wakers {
    /// To be called without any lock: some runtimes carry a task out at once.
    pub(crate) fn wake(self) {
        self.0.into_values().for_each(Waker::wake);
    }
}

/// A position that rises.
#[derive(Default)]
pub(crate) struct Progress {
    reached: AtomicU64,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// By position, and by who waits.
    wakers: BTreeMap<(u64, u64), Waker>,
    threads: usize,
    tickets: u64,
    /// Nothing will be reached as long as this holds.
    failure: Option<Arc<str>>,
}

impl Progress {
    pub(crate) fn reached(&self) -> u64 {
        self.reached.load(Ordering::Acquire)
    }

    /// Wakes all who wait for `position` or less.
    pub(crate) fn advance(&self, position: u64) {
        if self.reached.fetch_max(position, Ordering::AcqRel) >= position {
            return;
        }
        let mut waiting = self.waiting.lock();
        let still = waiting.wakers.split_off(&(position.saturating_add(1), 0));
        let served = std::mem::replace(&mut waiting.wakers, still);
        self.take_out(waiting, served).wake();
    }

    /// With a reason, nothing will be reached until there is none any more: who waits is to be told, and whoever comes does not wait.
    pub(crate) fn set_failure(&self, reason: Option<&Arc<str>>) -> Wakers {
        let mut waiting = self.waiting.lock();
        waiting.failure = reason.cloned();
        let told = if reason.is_some() { std::mem::take(&mut waiting.wakers) } else { BTreeMap::new() };
        self.take_out(waiting, told)
    }

    fn take_out(&self, waiting: MutexGuard<'_, Waiting>, wakers: BTreeMap<(u64, u64), Waker>) -> Wakers {
        if waiting.threads > 0 {
            self.changed.notify_all();
        }
        Wakers(wakers)
    }

    pub(crate) fn wait(&self, position: u64, timeout: Duration) -> Result<(), NotKept> {
        if self.reached() >= position {
            return Ok(());
        }
        let deadline = Instant::now().checked_add(timeout);
        let mut waiting = self.waiting.lock();
        waiting.threads += 1;
        let result = loop {
            if self.reached() >= position {
                break Ok(());
            }
            if let Some(reason) = &waiting.failure {
                break Err(NotKept::Failing(Arc::clone(reason)));
            }
            match deadline {
                // Without one: longer than anybody lives.
                None => self.changed.wait(&mut waiting),
                Some(deadline) => {
                    let is_over = self.changed.wait_until(&mut waiting, deadline).timed_out();
                    if is_over && self.reached() < position {
                        break Err(NotKept::TimedOut);
                    }
                }
            }
        };
        waiting.threads -= 1;
        result
    }

    /// `ticket` tells one who waits from others, and is 0 before the first time.
    fn poll(&self, position: u64, ticket: &mut u64, context: &Context<'_>) -> Poll<Result<(), NotKept>> {
        if self.reached() >= position {
            return Poll::Ready(Ok(()));
        }
        let mut waiting = self.waiting.lock();
        // Looked at again: from here on, nobody is woken unseen.
        if self.reached() >= position {
            return Poll::Ready(Ok(()));
        }
        if let Some(reason) = &waiting.failure {
            return Poll::Ready(Err(NotKept::Failing(Arc::clone(reason))));
        }
        if *ticket == 0 {
            waiting.tickets += 1;
            *ticket = waiting.tickets;
        }
        waiting.wakers.insert((position, *ticket), context.waker().clone());
        Poll::Pending
    }

    fn forget(&self, position: u64, ticket: u64) {
        self.waiting.lock().wakers.remove(&(position, ticket));
    }
}

/// Waits until a position is kept: a future for any runtime.
#[must_use = "nothing is waited for unless it is awaited"]
pub struct Kept {
    /// `None`: there is nothing to wait for.
    source: Option<Arc<Progress>>,
    position: u64,
    ticket: u64,
}

impl Kept {
    pub(crate) fn at_once() -> Self {
        Self { source: None, position: 0, ticket: 0 }
    }

    pub(crate) fn until(source: Arc<Progress>, position: u64) -> Self {
        Self { source: Some(source), position, ticket: 0 }
    }

    /// Whether there is nothing to wait for, so that being ready tells nothing of the disk.
    #[must_use]
    pub fn is_at_once(&self) -> bool {
        self.source.is_none()
    }
}

impl Future for Kept {
    type Output = Result<(), NotKept>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { source, position, ticket } = &mut *self;
        match source {
            None => Poll::Ready(Ok(())),
            Some(source) => source.poll(*position, ticket, context),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(source) = self.source.as_ref().filter(|_| self.ticket != 0) {
            source.forget(self.position, self.ticket);
        }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("position", &self.position).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};
    use std::thread;
    use std::time::Duration;

    use super::{Kept, NotKept, Progress};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn futures_are_woken_when_their_position_is_reached_and_leave_nothing_behind() {
        let (source, count) = (Arc::new(Progress::default()), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        let mut third = pin!(Kept::until(source.clone(), 3));
        let mut fifth = Box::pin(Kept::until(source.clone(), 5));
        for _ in 0..2 {
            assert_eq!(third.as_mut().poll(&mut context), Poll::Pending);
            assert_eq!(fifth.as_mut().poll(&mut context), Poll::Pending);
        }
        source.advance(2);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        source.advance(4);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(third.as_mut().poll(&mut context), Poll::Ready(Ok(())));
        assert_eq!(fifth.as_mut().poll(&mut context), Poll::Pending);
        drop(fifth);
        assert!(source.waiting.lock().wakers.is_empty());
        assert_eq!(pin!(Kept::at_once()).poll(&mut context), Poll::Ready(Ok(())));
    }

    #[test]
    fn failing_disk_wakes_all_and_lets_nobody_wait() {
        let (source, count) = (Arc::new(Progress::default()), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        let mut kept = pin!(Kept::until(source.clone(), 3));
        assert_eq!(kept.as_mut().poll(&mut context), Poll::Pending);
        let reason: Arc<str> = "full".into();
        source.set_failure(Some(&reason)).wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(kept.as_mut().poll(&mut context), Poll::Ready(Err(NotKept::Failing(Arc::clone(&reason)))));
        assert_eq!(source.wait(1, Duration::MAX), Err(NotKept::Failing(reason)));
        source.set_failure(None).wake();
        assert_eq!(source.wait(1, Duration::ZERO), Err(NotKept::TimedOut));
    }

    #[test]
    fn threads_wait_until_their_position_is_reached() {
        let progress = Progress::default();
        thread::scope(|scope| {
            let waits: Vec<_> = (1..=3)
                .map(|at| {
                    scope.spawn({
                        let progress = &progress;
                        move || progress.wait(at, Duration::MAX)
                    })
                })
                .collect();
            progress.advance(1);
            progress.advance(3);
            for wait in waits {
                assert_eq!(wait.join().expect("no panic"), Ok(()));
            }
        });
    }
}
