//! Whether writes are taken, and why not.
//!
//! # Guarantees
//! Whatever fails has a reason as long as it fails, and goes on failing until that very thing is mended: an attempt to write that succeeds does
//! not make files trustworthy, and new files do not bring a thread back.
//!
//! # How it works
//! The reasons are behind a lock. What each write asks, and those who wait for the disk are told, is derived from them under that lock. Who
//! waits is woken without it, and without any other lock, by whoever holds [`Woken`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::waiting::{Progress, Wakers};

/// The last attempt to write has failed.
const FAILING: u8 = 1;
/// It is unknown what of the files is on the disk, or they lack something.
const BROKEN: u8 = 2;
/// There will be no further attempt.
const ENDED: u8 = 4;
/// Too much waits for the disk.
const FULL: u8 = 8;
/// No more is taken.
const CLOSED: u8 = 16;

const WITH_REASON: u8 = FAILING | BROKEN | ENDED;

/// Why writes are refused, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refused {
    /// Too much waits for the disk.
    Behind,
    /// The writer tries again.
    Failing,
    /// New files have to be begun.
    GivenUp,
    /// For good.
    Ended,
}

#[derive(Default)]
pub(crate) struct Health {
    /// Why nothing may be written, bit by bit. Those with a reason change under its lock, the others under that of the inbox.
    refused: AtomicU8,
    reasons: Mutex<Reasons>,
    /// What the operating system has.
    pub(crate) written: Arc<Progress>,
    /// What the disk has.
    pub(crate) synced: Arc<Progress>,
}

/// By who sees to it that it goes on.
#[derive(Default)]
struct Reasons {
    /// The writer tries again.
    failing: Option<Arc<str>>,
    /// The other thread begins new files.
    broken: Option<Arc<str>>,
    /// Nobody does.
    ended: Option<Arc<str>>,
}

impl Reasons {
    fn bits(&self) -> u8 {
        let bit = |reason: &Option<Arc<str>>, bit| if reason.is_some() { bit } else { 0 };
        bit(&self.failing, FAILING) | bit(&self.broken, BROKEN) | bit(&self.ended, ENDED)
    }

    /// The one that lasts longest.
    fn worst(&self) -> Option<&Arc<str>> {
        self.ended.as_ref().or(self.broken.as_ref()).or(self.failing.as_ref())
    }
}

impl Health {
    pub(crate) fn is_writable(&self) -> bool {
        self.refused.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.has(BROKEN)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has(ENDED)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.has(FULL)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.has(CLOSED)
    }

    /// Whether what is appended may be missing in the journal, so that nobody may take it for kept without asking.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.has(BROKEN | ENDED | CLOSED)
    }

    fn has(&self, bits: u8) -> bool {
        self.refused.load(Ordering::Acquire) & bits != 0
    }

    /// Why the disk fails, if it does.
    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        if self.has(WITH_REASON) { self.reasons.lock().worst().cloned() } else { None }
    }

    /// Whether writes are refused, and why: no reason is needed where too much waits for the disk.
    pub(crate) fn refused(&self) -> Option<(Refused, Option<Arc<str>>)> {
        if self.has(WITH_REASON) {
            let reasons = self.reasons.lock();
            let kinds = [
                (Refused::Ended, &reasons.ended),
                (Refused::GivenUp, &reasons.broken),
                (Refused::Failing, &reasons.failing),
            ];
            if let Some((kind, reason)) = kinds.into_iter().find(|(_, reason)| reason.is_some()) {
                return Some((kind, reason.clone()));
            }
        }
        self.is_full().then_some((Refused::Behind, None))
    }

    /// Why the files were given up, if they were.
    pub(crate) fn breakdown(&self) -> Option<Arc<str>> {
        self.reasons.lock().broken.clone()
    }

    /// To be called with the inbox.
    pub(crate) fn set_full(&self, is_full: bool) {
        if is_full {
            self.refused.fetch_or(FULL, Ordering::AcqRel);
        } else {
            self.refused.fetch_and(!FULL, Ordering::AcqRel);
        }
    }

    /// To be called with the inbox. Those who wait still get what they wait for.
    pub(crate) fn set_closed(&self) {
        self.refused.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// An attempt to write has failed.
    pub(crate) fn fail(&self, reason: Arc<str>) -> Woken {
        let mut reasons = self.reasons.lock();
        reasons.failing = Some(reason);
        self.publish(&reasons)
    }

    /// An attempt to write has succeeded.
    pub(crate) fn recover(&self) -> Woken {
        let mut reasons = self.reasons.lock();
        reasons.failing = None;
        self.publish(&reasons)
    }

    /// The files are given up. Nobody is woken by that: [`break_down`](Self::break_down) is to follow.
    pub(crate) fn note_breakdown(&self, reason: Arc<str>) {
        let mut reasons = self.reasons.lock();
        reasons.broken = Some(reason);
        self.show(&reasons);
    }

    /// The files are given up.
    pub(crate) fn break_down(&self, reason: Arc<str>) -> Woken {
        let mut reasons = self.reasons.lock();
        (reasons.failing, reasons.broken) = (None, Some(reason));
        self.publish(&reasons)
    }

    /// There are new files. To be called with the inbox, in which nothing is missing since the cut that they begin with.
    pub(crate) fn mend(&self) -> Woken {
        let mut reasons = self.reasons.lock();
        (reasons.failing, reasons.broken) = (None, None);
        self.publish(&reasons)
    }

    /// There will be no further attempt. The first reason stays.
    pub(crate) fn end(&self, reason: &str) -> Woken {
        let mut reasons = self.reasons.lock();
        reasons.ended.get_or_insert_with(|| reason.into());
        self.publish(&reasons)
    }

    fn show(&self, reasons: &MutexGuard<'_, Reasons>) {
        let bits = reasons.bits();
        self.refused.fetch_or(bits, Ordering::AcqRel);
        self.refused.fetch_and(bits | !WITH_REASON, Ordering::AcqRel);
    }

    fn publish(&self, reasons: &MutexGuard<'_, Reasons>) -> Woken {
        let reason = reasons.worst();
        let set_failure = || Woken([self.written.set_failure(reason), self.synced.set_failure(reason)]);
        if reason.is_none() {
            // Who finds that writes are taken again waits for his own, and is not told of what was.
            let woken = set_failure();
            self.show(reasons);
            return woken;
        }
        self.show(reasons);
        set_failure()
    }
}

/// Those who wait in vain.
#[must_use = "they sleep until they are woken"]
pub(crate) struct Woken([Wakers; 2]);

impl Woken {
    /// To be called without any lock.
    pub(crate) fn wake(self) {
        self.0.into_iter().for_each(Wakers::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Health;
    use crate::waiting::NotKept;

    fn reason(health: &Health) -> Option<String> {
        assert_eq!(health.is_writable(), health.failure().is_none());
        let told = match health.synced.wait(1, Duration::ZERO) {
            Err(NotKept::Failing(reason)) => Some(reason.as_ref().to_owned()),
            _ => None,
        };
        assert_eq!(told.as_deref(), health.failure().as_deref(), "all are told the same");
        told
    }

    #[test]
    fn write_that_succeeds_does_not_mend_files_that_were_given_up() {
        let health = Health::default();
        health.fail("full".into()).wake();
        health.note_breakdown("too large".into());
        assert_eq!(health.failure().as_deref(), Some("too large"), "also before anybody is told");
        health.recover().wake();
        assert_eq!(reason(&health).as_deref(), Some("too large"));
        health.mend().wake();
        assert_eq!(reason(&health), None);
    }

    #[test]
    fn files_that_are_given_up_take_the_failed_write_with_them() {
        let health = Health::default();
        health.fail("full".into()).wake();
        health.break_down("cannot sync".into()).wake();
        assert_eq!(reason(&health).as_deref(), Some("cannot sync"));
        health.mend().wake();
        assert_eq!(reason(&health), None);
    }

    #[test]
    fn end_is_final_and_keeps_its_first_reason() {
        let health = Health::default();
        health.end("panicked").wake();
        health.break_down("cannot sync".into()).wake();
        health.mend().wake();
        health.recover().wake();
        health.end("closed").wake();
        assert_eq!(reason(&health).as_deref(), Some("panicked"));
    }
}
