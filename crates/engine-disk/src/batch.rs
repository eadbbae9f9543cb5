//! One wake of the writer for all that a thread appends in a row.
//!
//! # What it promises
//! What the calling thread appends while a [`Batch`] lives does not wake the writer; the end of the batch does, if it has not been woken
//! meanwhile. So commands that came together share one write and one sync: otherwise the writer begins with the first one as soon as it is
//! there, and the others wait for a second sync. Others who append wake the writer as ever, and it takes everything that is there. So does
//! whoever brings as much as it gathers at most, and whoever waits for the disk, within the batch or elsewhere: a batch may last for long, and
//! others who only read wait for what it has appended as well.
//!
//! # How it works
//! The thread notes which disk it gathers for. That ends with the batch, also when that is dropped by a panic.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::shared::Shared;

#[derive(Clone, Copy, Default)]
struct Gathering {
    /// The address of what the threads of the disk share; 0: none.
    disk: usize,
    /// The writer is to be woken.
    owes_wake: bool,
}

thread_local! {
    static GATHERING: Cell<Gathering> = const { Cell::new(Gathering { disk: 0, owes_wake: false }) };
}

/// What a thread appends in a row, until this is dropped: to be held for as long as nobody waits for any of it, see [`Disk::batch`](crate::Disk::batch).
#[must_use = "it ends when it is dropped"]
pub struct Batch {
    shared: Arc<Shared>,
    /// Of this thread only.
    not_send: PhantomData<*const ()>,
}

impl Batch {
    /// `None` within another one of this thread.
    pub(crate) fn begin(shared: &Arc<Shared>) -> Option<Self> {
        if GATHERING.get().disk != 0 {
            return None;
        }
        GATHERING.set(Gathering { disk: address(shared), owes_wake: false });
        Some(Self { shared: Arc::clone(shared), not_send: PhantomData })
    }

    /// Whether waking the writer of this disk can be left to the batch of this thread.
    pub(crate) fn wakes_later(shared: &Shared) -> bool {
        let gathering = GATHERING.get();
        let is_its_own = gathering.disk == address(shared);
        if is_its_own && !gathering.owes_wake {
            GATHERING.set(Gathering { owes_wake: true, ..gathering });
        }
        is_its_own
    }
}

fn address(shared: &Shared) -> usize {
    std::ptr::from_ref(shared).addr()
}

impl Drop for Batch {
    fn drop(&mut self) {
        if GATHERING.take().owes_wake {
            self.shared.wake_writer();
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").finish_non_exhaustive()
    }
}
