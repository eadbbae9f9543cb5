//! One line of log per kind of fault and [`PAUSE`], whatever the number of calls that meet it.
//!
//! # Guarantees
//! The first fault of a kind is admitted at once, and one more each [`PAUSE`] after; those in between are counted, and the
//! next line that is admitted says how many. Kinds do not hold each other back: a wrong password is not lost in an outage.
//!
//! # How it works
//! Kinds are words of the program, not of its callers, so there are few, and a list is searched for one.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The shortest time between two lines about one kind of fault: a person who reads along misses nothing, and a day of outage
/// is 17,280 lines instead of one per call.
pub const PAUSE: Duration = Duration::from_secs(5);

/// Decides which faults are written to the log.
///
/// ```
/// use acteon_state_core::fault_log::FaultLog;
/// let faults = FaultLog::new();
/// assert_eq!(faults.admit("disk_full"), Some(0));
/// assert_eq!(faults.admit("disk_full"), None);
/// assert_eq!(faults.admit("disk_gone"), Some(0));
/// ```
#[derive(Debug, Default)]
pub struct FaultLog(
    /// The kinds that were met. Taken only when something has failed, for an instant.
    Mutex<Vec<Met>>,
);

/// A kind of fault that was met.
#[derive(Debug)]
struct Met {
    kind: &'static str,
    admitted_at: Instant,
    /// How many were passed over since.
    passed_over: u64,
}

impl FaultLog {
    /// Nothing was met yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// How many of this kind were passed over since the last line about it, if another one may be written now.
    pub fn admit(&self, kind: &'static str) -> Option<u64> {
        let mut kinds = self.0.lock();
        let now = Instant::now();
        let Some(met) = kinds.iter_mut().find(|met| met.kind == kind) else {
            kinds.push(Met { kind, admitted_at: now, passed_over: 0 });
            return Some(0);
        };
        if now.duration_since(met.admitted_at) < PAUSE {
            met.passed_over += 1;
            return None;
        }
        met.admitted_at = now;
        Some(std::mem::take(&mut met.passed_over))
    }
}

#[cfg(test)]
mod tests {
    use super::{FaultLog, PAUSE};

    #[tokio::test(start_paused = true)]
    async fn one_line_per_kind_and_pause_counts_those_that_were_passed_over() {
        let faults = FaultLog::new();
        assert_eq!([faults.admit("a"), faults.admit("a"), faults.admit("a")], [Some(0), None, None]);
        assert_eq!(faults.admit("b"), Some(0), "another kind has its own pause");
        tokio::time::advance(PAUSE).await;
        assert_eq!([faults.admit("a"), faults.admit("a"), faults.admit("b")], [Some(2), None, Some(0)]);
    }
}
