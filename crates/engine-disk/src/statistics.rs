//! Numbers about a disk, for `INFO` and metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::Fsync;

/// Where a disk stands.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// The setting that is in force.
    pub fsync: Fsync,
    /// Groups of changes that there ever were.
    pub position: u64,
    /// Of these, the operating system has so many.
    pub written_position: u64,
    /// Of these, the disk has so many.
    pub synced_position: u64,
    /// What waits for the disk.
    pub pending_bytes: u64,
    /// The base.
    pub base_bytes: u64,
    /// All journals.
    pub journal_bytes: u64,
    /// Why writes are refused, if they are.
    pub refusal: Option<String>,
    /// Calls that wrote.
    pub writes: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
    /// Writes that failed, also repeatedly.
    pub write_failures: u64,
    /// Syncs that failed.
    pub sync_failures: u64,
    /// How long the syncs that succeeded took together.
    pub sync_total: Duration,
    /// How long the last sync took.
    pub last_sync: Duration,
    /// How long the longest one took.
    pub sync_max: Duration,
    /// Bytes that were left out at the start, because the last record was cut off.
    pub dropped_at_start_bytes: u64,
    /// Rewriting of the journal.
    pub rewrite: JobStatistics,
    /// Snapshots.
    pub save: JobStatistics,
    /// When the last snapshot succeeded, in milliseconds since 1970; before the first one, when the disk was opened.
    pub last_save_ms: u64,
    /// Groups of changes since then.
    pub changes_since_save: u64,
}

/// Where a job in the background stands.
#[derive(Clone, Debug, Default)]
pub struct JobStatistics {
    /// It runs.
    pub is_running: bool,
    /// It will run next.
    pub is_requested: bool,
    /// How often it ended.
    pub ended: u64,
    /// Why the last one failed, if it did.
    pub last_failure: Option<Arc<str>>,
    /// How long the last one took.
    pub last_duration: Duration,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) writes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) write_failures: AtomicU64,
    pub(crate) sync_failures: AtomicU64,
    pub(crate) sync_total_us: AtomicU64,
    pub(crate) last_sync_us: AtomicU64,
    pub(crate) sync_max_us: AtomicU64,
    /// Of the journal that is being written.
    pub(crate) active_bytes: AtomicU64,
    /// Of those before it.
    pub(crate) closed_bytes: AtomicU64,
    pub(crate) base_bytes: AtomicU64,
    pub(crate) dropped_at_start_bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn note_sync(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_total_us.fetch_add(us, Ordering::Relaxed);
        self.last_sync_us.store(us, Ordering::Relaxed);
        self.sync_max_us.fetch_max(us, Ordering::Relaxed);
    }

    pub(crate) fn journal_bytes(&self) -> u64 {
        self.active_bytes.load(Ordering::Relaxed) + self.closed_bytes.load(Ordering::Relaxed)
    }
}
