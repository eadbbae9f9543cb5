//! What others are told of changes waits until these are handed over.
//!
//! # Guarantees
//! What is postponed while a thread holds keys of an engine with a log happens once what it has changed was handed over, on the same thread,
//! in the order in which it was postponed, before the command or update ends. Whoever then asks for the position of the log gets one that covers the changes.
//!
//! # How it works
//! Who holds keys is in a section. Sections may lie within each other; the outermost one counts. What is postponed lies with the thread: it may come
//! from the depth of a key (`observe.rs`), where nothing is known of the command.

use std::cell::Cell;
#[cfg(feature = "commands")]
use std::cell::RefCell;
use std::marker::PhantomData;

use super::Outlet;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    #[cfg(feature = "commands")]
    static HAS_POSTPONED: Cell<bool> = const { Cell::new(false) };
    #[cfg(feature = "commands")]
    static POSTPONED: RefCell<Vec<Box<dyn FnOnce()>>> = const { RefCell::new(Vec::new()) };
}

/// The time for which a thread holds keys. To be dropped after the changes are handed over: as a field, declared below the locks.
#[derive(Debug)]
pub(crate) struct Section {
    // It belongs to its thread.
    _not_send: PhantomData<*const ()>,
}

impl Section {
    /// Nothing without a log: then nothing is waited for.
    #[inline]
    pub(crate) fn begin(outlet: &Outlet) -> Option<Self> {
        outlet.is_attached().then(|| {
            DEPTH.set(DEPTH.get() + 1);
            Self { _not_send: PhantomData }
        })
    }
}

impl Drop for Section {
    #[inline]
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
        #[cfg(feature = "commands")]
        if DEPTH.get() == 0 && HAS_POSTPONED.get() {
            carry_out_postponed();
        }
    }
}

/// Whether the calling thread may have changes that are not handed over.
#[cfg(feature = "commands")]
pub(crate) fn is_in_section() -> bool {
    DEPTH.get() > 0
}

/// Does `job` once the changes of the calling thread are handed over: now, if it holds nothing. It must not hold keys itself.
#[cfg(feature = "commands")]
pub(crate) fn once_handed_over(job: impl FnOnce() + 'static) {
    if is_in_section() {
        POSTPONED.with_borrow_mut(|postponed| postponed.push(Box::new(job)));
        HAS_POSTPONED.set(true);
    } else {
        job();
    }
}

#[cfg(feature = "commands")]
#[cold]
fn carry_out_postponed() {
    HAS_POSTPONED.set(false);
    POSTPONED.take().into_iter().for_each(|job| job());
}

#[cfg(all(test, feature = "commands", not(shuttle)))]
mod tests;
