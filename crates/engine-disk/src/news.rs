//! What the log says of a disk: that writes are refused and why, that they are taken again, that a rewriting or a snapshot has failed.
//!
//! # Guarantees
//! A line for each change of state, however many writes are refused and attempts fail meanwhile. A refusal that is followed by another one of the
//! same kind within ten seconds, as of a disk on which a little room comes and goes, is said only if it lasts.
//! What happens while the directory is being closed is not said: whoever closes it is told.
//!
//! # How it works
//! What was said last is kept behind a lock, and compared with the state by whoever has changed that, and by
//! [`Disk::tick`](crate::Disk::tick): a write that is refused since the disk is behind says nothing itself, for it holds the engine's keys.

use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tracing::{error, info, warn};

use crate::health::{Health, Refused};

/// How long a refusal of a kind that was said before is not said again.
const HUSH: Duration = Duration::from_secs(10);

/// Something in the background that may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    Rewrite,
    Save,
    /// New files, after a breakdown.
    Heal,
}

pub(crate) struct News {
    /// As the log names it.
    dir: String,
    /// Taken before any other lock but that of the files, and held while a line is written, so that lines stand in the order of what they tell.
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Since when writes are refused.
    since: Option<Instant>,
    /// What was said of that.
    told: Option<Refused>,
    /// The last refusal that was said at all.
    last: Option<(Refused, Instant)>,
    /// What was said to fail, and has not succeeded since.
    failing: Vec<Effort>,
}

impl News {
    pub(crate) fn new(path: Option<&Path>) -> Self {
        let dir = path.map_or_else(|| "in memory".to_owned(), |path| path.display().to_string());
        Self { dir, said: Mutex::default() }
    }

    /// To be held while files are given up, until [`refused`](Self::refused) has said so: otherwise they could be mended before.
    pub(crate) fn begin(&self) -> MutexGuard<'_, Said> {
        self.said.lock()
    }

    /// Writes are refused.
    pub(crate) fn refused(&self, said: &mut Said, kind: Refused, reason: &str) {
        if said.is_news(kind, Instant::now()) {
            let dir = &self.dir;
            match kind {
                Refused::Behind => error!(%dir, reason, "WRITES ARE REFUSED until the disk has caught up"),
                Refused::Failing => {
                    error!(%dir, reason, "WRITES ARE REFUSED until the disk takes them; it is tried again")
                }
                Refused::GivenUp => {
                    error!(%dir, reason, "WRITES ARE REFUSED until new files are begun, since these are not to be trusted")
                }
                Refused::Ended => error!(%dir, reason, "WRITES ARE REFUSED until the process is started again"),
            }
        }
    }

    /// Says what has changed since the last time.
    pub(crate) fn look(&self, health: &Health, behind_bytes: impl FnOnce() -> usize) {
        let mut said = self.said.lock();
        if health.is_closed() {
            return;
        }
        match health.refused() {
            Some((kind, reason)) => {
                let reason = reason.unwrap_or_else(|| format!("the disk is {} bytes behind", behind_bytes()).into());
                self.refused(&mut said, kind, &reason);
            }
            None => {
                if let Some(seconds) = said.accepted(Instant::now()) {
                    info!(dir = %self.dir, seconds, "writes are taken again");
                }
            }
        }
    }

    /// What became of an effort.
    pub(crate) fn ended(&self, effort: Effort, failure: Option<&str>) {
        let mut said = self.said.lock();
        let (dir, was_failing) = (&self.dir, said.failing.contains(&effort));
        said.failing.retain(|failing| *failing != effort);
        let Some(reason) = failure else {
            match effort {
                Effort::Rewrite if was_failing => info!(%dir, "the journal is rewritten again"),
                Effort::Save if was_failing => info!(%dir, "snapshots are saved again"),
                // That writes are taken again is said of it.
                Effort::Heal | Effort::Rewrite | Effort::Save => {}
            }
            return;
        };
        said.failing.push(effort);
        if was_failing {
            return;
        }
        match effort {
            Effort::Rewrite => {
                warn!(%dir, reason, "the journal could not be rewritten; everything goes on with the files that there are")
            }
            Effort::Save => {
                warn!(%dir, reason, "the snapshot could not be saved; the old one, if there is one, is still there")
            }
            Effort::Heal => warn!(%dir, reason, "new files cannot be begun yet; it is tried again"),
        }
    }
}

impl Said {
    /// Whether it is to be said that writes are refused; it counts as said then.
    fn is_news(&mut self, kind: Refused, now: Instant) -> bool {
        self.since.get_or_insert(now);
        let is_known = self.told.is_some_and(|told| kind <= told);
        let is_hushed = self.last.is_some_and(|(last, at)| kind <= last && now.saturating_duration_since(at) < HUSH);
        if is_known || is_hushed {
            return false;
        }
        (self.told, self.last) = (Some(kind), Some((kind, now)));
        true
    }

    /// For how many seconds writes were refused, if that was said.
    fn accepted(&mut self, now: Instant) -> Option<f64> {
        let since = self.since.take()?;
        self.told.take()?;
        Some(now.saturating_duration_since(since).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{HUSH, Said};
    use crate::health::Refused::{Behind, Failing, GivenUp};

    #[test]
    fn refusal_is_said_once_and_again_when_it_gets_worse() {
        let (mut said, now) = (Said::default(), Instant::now());
        assert_eq!(said.accepted(now), None, "nothing was refused");
        assert!(said.is_news(Failing, now));
        assert!(!said.is_news(Failing, now + HUSH * 2), "it is known");
        assert!(said.is_news(GivenUp, now));
        assert!(!said.is_news(Failing, now + HUSH * 2), "worse is known");
        assert_eq!(said.accepted(now + Duration::from_secs(3)), Some(3.0));
        assert_eq!(said.accepted(now), None, "it was said");
    }

    #[test]
    fn refusals_that_come_and_go_are_said_again_only_if_they_last() {
        let (mut said, now) = (Said::default(), Instant::now());
        assert!(said.is_news(Behind, now));
        assert!(said.accepted(now).is_some());
        let soon = now + HUSH / 2;
        assert!(!said.is_news(Behind, soon));
        assert_eq!(said.accepted(soon), None, "who was not told of it is not told of its end");
        assert!(!said.is_news(Behind, soon));
        assert!(said.is_news(Failing, soon), "another matter");
        said.accepted(soon);
        let later = soon + HUSH;
        assert!(said.is_news(Failing, later));
    }
}
