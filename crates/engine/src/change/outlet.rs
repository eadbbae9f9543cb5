//! Where the changes of all databases of an engine go.
//!
//! # Guarantees
//! A group is handed over while everything that it changed is still held, and so before anybody can act upon it.
//!
//! # How it works
//! One for all databases. Without a log, nothing here is ever reached: recorders are off, and an empty buffer has nothing to hand over.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::{ChangeLog, Recorder};
use crate::error::EngineError;
use crate::keyspace::Engine;
use crate::segment::Segment;

thread_local! {
    static GROUPS: Cell<u64> = const { Cell::new(0) };
}

/// How many groups of changes the calling thread has handed over to logs until now. What a caller does between two equal answers has changed
/// nothing that a log keeps: so whoever acknowledges knows whether there is anything of its own to wait for.
#[must_use]
pub fn groups_of_this_thread() -> u64 {
    GROUPS.get()
}

impl Engine {
    /// Hands all changes of all databases to `log` from now on. To be called once, after loading and before anybody writes: what others
    /// write at the same moment may be recorded or not. Returns whether it was; a second log is refused.
    pub fn attach_log(&self, log: Arc<dyn ChangeLog>) -> bool {
        let is_first = {
            // Databases that are created from now on record from the beginning.
            let _databases = self.family().lock();
            self.keyspace().context.outlet.attach(log)
        };
        if is_first {
            for (_, keyspace) in self.family().all() {
                (0..keyspace.segments.len()).for_each(|number| keyspace.lock(number).recorder.set_on(true));
            }
        }
        is_first
    }

    /// The position of the log after the latest group of changes of anybody; 0 before the first one. What has been read or written until
    /// now is kept once the log has kept everything up to here.
    #[must_use]
    pub fn log_position(&self) -> u64 {
        self.keyspace().context.outlet.position()
    }

    /// Why writes are refused at this moment, in the words of the log; `None`: they are not.
    #[must_use]
    pub fn write_refusal(&self) -> Option<String> {
        self.keyspace().context.outlet.refusal()
    }

    /// To be asked before a write.
    ///
    /// # Errors
    /// [`EngineError::NotWritable`] while the log cannot keep changes.
    pub fn check_writable(&self) -> Result<(), EngineError> {
        self.keyspace().context.outlet.check_writable()
    }
}

/// The log of an engine, once it has one.
#[derive(Default)]
pub(crate) struct Outlet {
    log: OnceLock<Arc<dyn ChangeLog>>,
    /// The position after the latest group.
    position: AtomicU64,
}

impl Outlet {
    /// Returns whether it is the first one; a second one is refused.
    pub(crate) fn attach(&self, log: Arc<dyn ChangeLog>) -> bool {
        self.log.set(log).is_ok()
    }

    #[inline]
    pub(crate) fn is_attached(&self) -> bool {
        self.log.get().is_some()
    }

    pub(crate) fn check_writable(&self) -> Result<(), EngineError> {
        if self.log.get().is_none_or(|log| log.is_writable()) { Ok(()) } else { Err(EngineError::NotWritable) }
    }

    /// Why nothing may be written, if that is so.
    pub(crate) fn refusal(&self) -> Option<String> {
        let log = self.log.get().filter(|log| !log.is_writable())?;
        Some(log.refusal().unwrap_or_else(|| "the journal does not accept writes".to_owned()))
    }

    pub(crate) fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    /// Hands over what was done to one segment, which is held.
    #[inline]
    pub(crate) fn commit(&self, segment: &mut Segment) {
        if !segment.recorder.is_empty() {
            segment.recorder.hand_over(|group| self.append(group));
        }
    }

    /// Hands over as one group `group`, which happened first, and what was done to several segments, which are all held.
    pub(crate) fn commit_all<'s>(&self, group: Vec<u8>, segments: impl Iterator<Item = &'s mut Segment>) {
        if !self.is_attached() {
            return;
        }
        let mut recorders = segments.map(|segment| &mut segment.recorder).filter(|recorder| !recorder.is_empty());
        if !group.is_empty() {
            let whole = recorders.fold(group, |mut whole, recorder| {
                recorder.drain_into(&mut whole);
                whole
            });
            return self.append(&whole);
        }
        let Some(first) = recorders.next() else { return };
        let first = recorders.fold(first, |first: &mut Recorder, other| {
            first.absorb(other);
            first
        });
        first.hand_over(|group| self.append(group));
    }

    fn append(&self, group: &[u8]) {
        if let Some(log) = self.log.get() {
            let position = log.append(group);
            self.position.fetch_max(position, Ordering::AcqRel);
            GROUPS.set(GROUPS.get().wrapping_add(1));
        }
    }
}
