//! What a server counts about its connections.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the server was bound. Each number is exact; together they may be of slightly different moments.
#[derive(Debug, Default)]
pub struct Counters {
    pub(crate) received: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) current: AtomicU64,
    pub(crate) input_bytes: AtomicU64,
    pub(crate) output_bytes: AtomicU64,
    pub(crate) output_limit_disconnections: AtomicU64,
    pub(crate) query_limit_disconnections: AtomicU64,
}

/// The [`Counters`] of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections that were taken.
    pub received: u64,
    /// Connections that were turned away: too many, or not allowed.
    pub rejected: u64,
    /// Connections that are open now.
    pub current: u64,
    /// Bytes that clients have sent, after decryption.
    pub input_bytes: u64,
    /// Bytes that were sent to clients, before encryption.
    pub output_bytes: u64,
    /// Clients that were disconnected because they did not read what was sent to them.
    pub output_limit_disconnections: u64,
    /// Clients that were disconnected because of a request that was too long.
    pub query_limit_disconnections: u64,
}

impl Counters {
    /// The numbers of now.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            received: get(&self.received),
            rejected: get(&self.rejected),
            current: get(&self.current),
            input_bytes: get(&self.input_bytes),
            output_bytes: get(&self.output_bytes),
            output_limit_disconnections: get(&self.output_limit_disconnections),
            query_limit_disconnections: get(&self.query_limit_disconnections),
        }
    }

    pub(crate) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}
