//! Clocks: one for a holder's own deadline, and what a store that has its own time reads it from.

use std::fmt;
use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment on a monotonic clock that goes on while the machine is suspended.
///
/// A lease ends while a laptop sleeps or a virtual machine is paused and resumed; `std::time::Instant` does not see that
/// on Linux (it reads `CLOCK_MONOTONIC`). This reads `CLOCK_BOOTTIME` there; on macOS `CLOCK_MONOTONIC` goes on during sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootInstant(Duration);

impl BootInstant {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let clock = rustix::time::ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let clock = rustix::time::ClockId::Monotonic;
        let time = rustix::time::clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Self(Duration::new(seconds, nanos))
    }

    /// How long until this moment; zero when it has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_sub(Self::now().0)
    }

    /// The moment this long before, at the earliest the clock's beginning.
    pub(crate) fn earlier_by(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }
}

impl Add<Duration> for BootInstant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// Where a store that keeps its own time reads it: microseconds since 1970-01-01 UTC that never go back.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Now, in µs since 1970-01-01 UTC.
    fn now_us(&self) -> u64;
}

/// The wall clock at the time of its creation, continued by a monotonic clock: steps of the wall clock do not move it.
#[derive(Debug)]
pub struct SeededClock {
    started: BootInstant,
    seed_us: u64,
}

impl SeededClock {
    /// Seeds from the wall clock now.
    #[must_use]
    pub fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { started: BootInstant::now(), seed_us: micros(since_epoch) }
    }
}

impl Default for SeededClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SeededClock {
    fn now_us(&self) -> u64 {
        self.seed_us.saturating_add(micros(BootInstant::now().0.saturating_sub(self.started.0)))
    }
}

/// A clock that moves only when told to: for tests that replay, and expire things without waiting.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that reads `now_us`.
    #[must_use]
    pub const fn new(now_us: u64) -> Self {
        Self(AtomicU64::new(now_us))
    }

    /// Moves it on.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(micros(by), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_us(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(duration.subsec_micros()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{BootInstant, Clock, ManualClock, SeededClock};

    #[test]
    fn a_deadline_in_the_past_has_nothing_left() {
        let now = BootInstant::now();
        assert_eq!(now.remaining(), Duration::ZERO);
        assert!((now + Duration::from_secs(60)).remaining() > Duration::from_secs(50));
    }

    #[test]
    fn clocks_go_forward() {
        let seeded = SeededClock::new();
        let before_us = seeded.now_us();
        assert!(seeded.now_us() >= before_us);
        let manual = ManualClock::new(5);
        manual.advance(Duration::from_millis(1));
        assert_eq!(manual.now_us(), 1_005);
    }
}
