//! Whether the backend answers, and what calls have met while it did not.
//!
//! # Guarantees
//! An outage begins with the first call that was not answered, and is logged then, and once more at its end with how long it
//! was and how many calls were degraded how. Outages that follow each other closely share lines: see [`FaultLog`].
//!
//! # How it works
//! An outage ends with an answer that comes [`CALM`] after the last failure, not with any answer. In a failover reads succeed
//! between writes that do not, and what stands in for the backend must not be thrown away and begun anew with each of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::fault_log::FaultLog;
use crate::layer::deadline;
use crate::layer::degrade::policy::Degradation;

/// How long no call must have failed when an answer ends an outage.
pub const CALM: Duration = Duration::from_secs(1);

/// The fault that the log is asked about.
const OUTAGE: &str = "outage";

/// Whether this error means that nobody answered. What the backend refuses, and what a limit of ours refuses, is an answer; a
/// caller that gave the call no time has learned nothing.
pub(super) fn is_outage(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Failover => true,
        ErrorKind::Timeout => !deadline::has_passed(),
        _ => false,
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outage {
    backend: String,
    /// Whether there is one: what calls look at while all is well.
    is_on: AtomicBool,
    /// Taken when a call has failed, and for answers during an outage, for an instant.
    now: Mutex<Option<Current>>,
    log: FaultLog,
}

#[derive(Debug)]
struct Current {
    began: Instant,
    last_failure: Instant,
    is_logged: bool,
    calls: Calls,
}

/// How many calls were treated how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Calls {
    closed: u64,
    open: u64,
    stale: u64,
    local: u64,
}

impl Outage {
    pub(super) fn new(backend: &str) -> Self {
        let (backend, log) = (backend.to_owned(), FaultLog::new());
        Self { backend, is_on: AtomicBool::new(false), now: Mutex::new(None), log }
    }

    /// A call was not answered.
    pub(super) fn failed(&self, error: &Error) {
        let mut now = self.now.lock();
        let at = Instant::now();
        if let Some(current) = now.as_mut() {
            current.last_failure = at;
            return;
        }
        let admitted = self.log.admit(OUTAGE);
        *now = Some(Current { began: at, last_failure: at, is_logged: admitted.is_some(), calls: Calls::default() });
        self.is_on.store(true, Ordering::Release);
        drop(now);
        let backend = &self.backend;
        match admitted {
            Some(0) => tracing::warn!(backend, %error, "the state backend does not answer; calls are degraded"),
            Some(passed_over) => {
                tracing::warn!(backend, %error, passed_over, "the state backend does not answer again; calls are degraded");
            }
            None => tracing::debug!(backend, %error, "the state backend does not answer again"),
        }
    }

    /// A call was answered. Returns whether that ended an outage.
    pub(super) fn answered(&self) -> bool {
        if !self.is_on.load(Ordering::Acquire) {
            return false;
        }
        let mut now = self.now.lock();
        let Some(over) = now.take_if(|current| current.last_failure.elapsed() >= CALM) else {
            return false;
        };
        self.is_on.store(false, Ordering::Release);
        drop(now);
        let (backend, lasted_ms) = (&self.backend, over.began.elapsed().as_millis());
        let Calls { closed, open, stale, local } = over.calls;
        if over.is_logged {
            tracing::info!(backend, lasted_ms, closed, open, stale, local, "the state backend answers again");
        } else {
            tracing::debug!(backend, lasted_ms, closed, open, stale, local, "the state backend answers again");
        }
        true
    }

    /// A call that was not answered was treated so.
    pub(super) fn count(&self, treated: Degradation) {
        if let Some(current) = self.now.lock().as_mut() {
            let calls = &mut current.calls;
            *match treated {
                Degradation::Closed => &mut calls.closed,
                Degradation::Open => &mut calls.open,
                Degradation::Stale => &mut calls.stale,
                Degradation::Local => &mut calls.local,
            } += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{CALM, Calls, Outage, is_outage};
    use crate::layer::deadline;
    use crate::layer::degrade::policy::Degradation;
    use crate::{Error, ErrorKind};

    fn down() -> Error {
        Error::new(ErrorKind::Unavailable, "down")
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_ends_with_an_answer_after_a_calm_moment() {
        let outage = Outage::new("test");
        assert!(!outage.answered(), "there was none");
        outage.failed(&down());
        outage.count(Degradation::Local);
        assert!(!outage.answered(), "an answer between failures");
        tokio::time::advance(CALM / 2).await;
        outage.failed(&down());
        tokio::time::advance(CALM / 2).await;
        assert!(!outage.answered(), "counted from the last failure");
        assert_eq!(outage.now.lock().as_ref().unwrap().calls, Calls { local: 1, ..Calls::default() });
        tokio::time::advance(CALM / 2).await;
        assert!(outage.answered() && !outage.answered(), "it ends once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_without_patience_is_no_outage() {
        let late = Error::new(ErrorKind::Timeout, "late");
        assert!(is_outage(&late));
        assert!(!is_outage(&Error::new(ErrorKind::Throttled, "too many")));
        assert!(!is_outage(&Error::new(ErrorKind::WrongType, "a counter")));
        let soon = tokio::time::Instant::now() + Duration::from_millis(1);
        deadline::until(soon, async {
            assert!(is_outage(&late), "the caller still waits");
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(!is_outage(&late));
        })
        .await;
    }
}
