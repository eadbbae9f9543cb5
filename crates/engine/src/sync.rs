//! The mutex of segments and the counter beside it, in whose place a model checker can put its own.
//!
//! # How it works
//! Built with `--cfg shuttle`, locking becomes a choice of <https://docs.rs/shuttle>, which tries the orders in which threads can
//! take locks; `lock/interleavings.rs` is what it runs. There is no time there: patience is a number of attempts.

#[cfg(not(shuttle))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(shuttle))]
pub(crate) use std::sync::atomic::AtomicUsize;

#[cfg(shuttle)]
pub(crate) use modelled::{Mutex, MutexGuard};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::AtomicUsize;

#[cfg(shuttle)]
mod modelled {
    use std::sync::{PoisonError, TryLockError};
    use std::time::Duration;

    pub(crate) use shuttle::sync::MutexGuard;

    /// What is needed of parking_lot's mutex.
    #[derive(Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            match self.0.try_lock() {
                Ok(guard) => Some(guard),
                Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            }
        }

        pub(crate) fn try_lock_for(&self, patience: Duration) -> Option<MutexGuard<'_, T>> {
            // An attempt per millisecond: the long patience of a script stays longer than that of any sequence of commands.
            (0..patience.as_millis()).find_map(|_| {
                shuttle::thread::yield_now();
                self.try_lock()
            })
        }
    }
}
