//! What the driver counts of its connections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Figures of the connections of a store, since it was opened. All of its servers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// Connections that are open.
    pub connections: u64,
    /// Calls that were sent and whose answer is awaited.
    pub in_flight: u64,
    /// Calls that wait for a free place or for a connection.
    pub queued: u64,
    /// Connections that were opened, the first ones included.
    pub connected_total: u64,
    /// Connections that were lost; those that were closed because nobody needs them any more are not among them.
    pub disconnected_total: u64,
    /// Attempts to connect that failed.
    pub failed_total: u64,
    /// Answers that sent a call to another node of a Cluster.
    pub redirected_total: u64,
}

/// Reads the [`ConnectionStats`] of a store without keeping it open: for metrics, which outlive stores.
#[derive(Clone, Debug)]
pub struct ConnectionWatch(pub(crate) Weak<Counters>);

impl ConnectionWatch {
    /// The figures now; `None` once the store is gone.
    #[must_use]
    pub fn read(&self) -> Option<ConnectionStats> {
        Some(self.0.upgrade()?.read())
    }
}

/// The counters behind [`ConnectionStats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    open: AtomicU64,
    connected: AtomicU64,
    disconnected: AtomicU64,
    failed: AtomicU64,
    redirected: AtomicU64,
    in_flight: AtomicU64,
    queued: AtomicU64,
}

/// A connection that counts as open until this is dropped.
pub(crate) struct OpenConnection(Arc<Counters>);

/// One more of something, until it is dropped.
pub(crate) struct Counted<'a>(&'a AtomicU64);

impl Counters {
    pub(crate) fn connected(self: &Arc<Self>) -> OpenConnection {
        self.connected.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenConnection(self.clone())
    }

    pub(crate) fn disconnected(&self) {
        self.disconnected.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn redirected(&self) {
        self.redirected.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a call that was sent until the answer is there.
    pub(crate) fn in_flight(&self) -> Counted<'_> {
        Counted::new(&self.in_flight)
    }

    /// Counts a call that waits to be sent.
    pub(crate) fn queued(&self) -> Counted<'_> {
        Counted::new(&self.queued)
    }

    pub(crate) fn read(&self) -> ConnectionStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ConnectionStats {
            connections: read(&self.open),
            in_flight: read(&self.in_flight),
            queued: read(&self.queued),
            connected_total: read(&self.connected),
            disconnected_total: read(&self.disconnected),
            failed_total: read(&self.failed),
            redirected_total: read(&self.redirected),
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicU64) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
