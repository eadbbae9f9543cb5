//! Keeps the engine's estimate of its own memory, and refuses growth above the configured bound.
//!
//! # Guarantees
//! With a bound, the sum of all granted growth never exceeds it, under any number of threads. Giving memory back never fails.
//!
//! # How it works
//! Every segment counts its bytes under its own lock, for statistics. The shared counter below is touched only when a bound is
//! configured and a write changes a size, so that an unbounded engine shares no cache line between writers.
//! Sizes are estimates: what is asked of the allocator, plus a constant for the table slot and rounding.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::EngineError;

/// The engine-wide account.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Whether what is used is counted: only with a bound from the beginning.
    is_counted: bool,
    /// `u64::MAX`: none at present.
    bytes_max: AtomicU64,
    used_bytes: AtomicU64,
}

impl Memory {
    pub(crate) fn new(bytes_max: Option<u64>) -> Self {
        Self {
            is_counted: bytes_max.is_some(),
            bytes_max: AtomicU64::new(bytes_max.unwrap_or(u64::MAX)),
            used_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn bytes_max(&self) -> Option<u64> {
        Some(self.bytes_max.load(Ordering::Relaxed)).filter(|bytes_max| *bytes_max != u64::MAX)
    }

    /// Changes the bound, also to none or below what is used. Returns whether it could: not where nothing was counted until now.
    pub(crate) fn set_bytes_max(&self, bytes_max: Option<u64>) -> bool {
        if self.is_counted {
            self.bytes_max.store(bytes_max.unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        self.is_counted || bytes_max.is_none()
    }

    /// Whether nothing may grow any more.
    #[cfg(feature = "commands")]
    pub(crate) fn is_full(&self) -> bool {
        self.bytes_max().is_some_and(|bytes_max| self.used_bytes.load(Ordering::Relaxed) >= bytes_max)
    }
}

/// The account of one segment, borrowed for one change.
pub(crate) struct Account<'a> {
    pub(crate) memory: &'a Memory,
    pub(crate) segment_bytes: &'a mut u64,
}

impl Account<'_> {
    /// Takes `bytes`, or refuses and takes nothing.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), EngineError> {
        if self.memory.is_counted {
            let bytes_max = self.memory.bytes_max.load(Ordering::Relaxed);
            // Relaxed: the counter orders nothing but itself; what it counts is guarded by the segment lock.
            self.memory
                .used_bytes
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                    used.checked_add(bytes).filter(|used| *used <= bytes_max)
                })
                .map_err(|_| EngineError::OutOfMemory)?;
        }
        *self.segment_bytes += bytes;
        Ok(())
    }

    /// Takes `bytes` even above the bound: for bookkeeping that a reader or a shrinking write needs.
    pub(crate) fn grow_always(&mut self, bytes: u64) {
        if self.memory.is_counted {
            self.memory.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        *self.segment_bytes += bytes;
    }

    /// Whether growth can be refused.
    pub(crate) fn is_bounded(&self) -> bool {
        self.memory.is_counted
    }

    /// Moves from a size to another one, also above the bound.
    pub(crate) fn settle(&mut self, before: u64, after: u64) {
        if after > before {
            self.grow_always(after - before);
        } else if after < before {
            self.shrink(before - after);
        }
    }

    /// Gives `bytes` back.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        if self.memory.is_counted {
            self.memory.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        *self.segment_bytes -= bytes;
    }

    /// Moves from a size to another one; refuses only growth.
    pub(crate) fn resize(&mut self, before: u64, after: u64) -> Result<(), EngineError> {
        if after > before {
            return self.grow(after - before);
        }
        if after < before {
            self.shrink(before - after);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::{Account, Memory};
    use crate::error::EngineError;

    #[test]
    fn refused_growth_takes_nothing() {
        let memory = Memory::new(Some(100));
        let mut segment_bytes = 0;
        let mut account = Account { memory: &memory, segment_bytes: &mut segment_bytes };
        assert_eq!(account.grow(80), Ok(()));
        assert_eq!(account.grow(21), Err(EngineError::OutOfMemory));
        assert_eq!(account.grow(u64::MAX), Err(EngineError::OutOfMemory));
        assert_eq!(account.resize(80, 100), Ok(()));
        assert_eq!(account.resize(100, 10), Ok(()));
        assert_eq!(segment_bytes, 10);
        assert_eq!(memory.used_bytes.load(Ordering::Relaxed), 10);
    }
}
