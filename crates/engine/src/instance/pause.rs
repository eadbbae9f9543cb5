//! CLIENT PAUSE: commands wait until a time, all of them or those that change something.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Instance, Session};
use crate::command::{Command, Flags, look_up};

/// Which commands wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Paused {
    /// Those that change something, publish, or may do so.
    Writes,
    All,
}

/// The pause of an instance.
#[derive(Default)]
pub(crate) struct Pause {
    /// Until when: looked at by each command. 0: there is no pause.
    until_us: AtomicU64,
    paused: Mutex<Option<Paused>>,
}

impl Pause {
    /// Begins a pause, or makes one stricter and longer: of two pauses the later end and the wider reach hold.
    pub(crate) fn begin(&self, paused: Paused, until_us: u64, now_us: u64) {
        let mut before = self.paused.lock();
        let is_over = self.until_us.load(Ordering::Relaxed) <= now_us;
        *before = if is_over { Some(paused) } else { (*before).max(Some(paused)) };
        self.until_us.fetch_max(until_us, Ordering::Release);
    }

    pub(crate) fn end(&self) {
        let mut paused = self.paused.lock();
        *paused = None;
        self.until_us.store(0, Ordering::Release);
    }

    /// What has to wait at this time, if anything has.
    #[inline]
    pub(crate) fn paused(&self, now_us: u64) -> Option<Paused> {
        if self.until_us.load(Ordering::Acquire) > now_us { *self.paused.lock() } else { None }
    }
}

impl Instance {
    /// Whether a command has to wait.
    #[inline]
    pub(crate) fn is_paused(&self, session: &Session, command: &Command, args: &[&[u8]], now_us: u64) -> bool {
        match self.pause.paused(now_us) {
            None => false,
            Some(Paused::All) => true,
            Some(Paused::Writes) => {
                self.may_write(command, args) || command.row.name == "exec" && self.has_queued_writes(session)
            }
        }
    }

    fn may_write(&self, command: &Command, args: &[&[u8]]) -> bool {
        command.row.flags.has(Flags::WRITE.and(Flags::MAY_REPLICATE)) || self.script_may_write(args)
    }

    fn has_queued_writes(&self, session: &Session) -> bool {
        let mut queued = session.transaction.iter().flat_map(|transaction| &transaction.queue);
        queued.any(|args| {
            let args: Vec<&[u8]> = args.iter().map(|arg| &**arg).collect();
            look_up(&args).is_ok_and(|command| self.may_write(&command, &args))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Pause, Paused};

    #[test]
    fn second_pause_makes_the_first_one_only_stricter() {
        let pause = Pause::default();
        pause.begin(Paused::All, 100, 0);
        pause.begin(Paused::Writes, 50, 10);
        assert_eq!(*pause.paused.lock(), Some(Paused::All));
        // The first one is over.
        pause.begin(Paused::Writes, 300, 200);
        assert_eq!(*pause.paused.lock(), Some(Paused::Writes));
        pause.end();
        assert_eq!(*pause.paused.lock(), None);
    }
}
