//! What the owner of a directory decides.

use std::time::Duration;

use crate::format::GROUP_BYTES_MAX;

/// Unless configured: what a busy engine writes in about a second.
const BUFFER_BYTES_MAX_DEFAULT: usize = 256 << 20;

/// When what was written has to be on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fsync {
    /// Before it is acknowledged. Nothing acknowledged is ever lost.
    Always,
    /// Once in a second. What was acknowledged within about the last second is lost if the machine stops.
    #[default]
    EverySecond,
    /// When the operating system likes, after half a minute for example.
    No,
}

/// Settings of a [`Disk`](crate::Disk).
#[derive(Clone, Debug, PartialEq)]
pub struct DiskConfig {
    /// When what was written has to be on the disk.
    pub fsync: Fsync,
    /// How long [`Fsync::EverySecond`] waits in between.
    pub fsync_interval: Duration,
    /// How much may wait for the disk. Above it writes are refused until half of it is written.
    pub buffer_bytes_max: usize,
    /// How large a group of changes may be that goes into the journal. A larger one is kept by writing all data anew, and writes are refused
    /// meanwhile. By default and at most a gigabyte and a bit.
    pub group_bytes_max: usize,
    /// When the journal is rewritten by itself.
    pub rewrite: RewriteSchedule,
    /// When a snapshot is saved by itself; any of them suffices.
    pub save_points: Vec<SavePoint>,
    /// How long a failing disk is left alone before the next attempt: at first, and at most after doubling again and again.
    pub retry: (Duration, Duration),
}

impl Default for DiskConfig {
    fn default() -> Self {
        Self {
            fsync: Fsync::default(),
            fsync_interval: Duration::from_secs(1),
            buffer_bytes_max: BUFFER_BYTES_MAX_DEFAULT,
            group_bytes_max: GROUP_BYTES_MAX,
            rewrite: RewriteSchedule::default(),
            save_points: Vec::new(),
            retry: (Duration::from_millis(100), Duration::from_secs(5)),
        }
    }
}

/// When the journal is rewritten by itself: once base and journal together have grown by so much over the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RewriteSchedule {
    /// In percent of the base. 0: never.
    pub growth_percent: u32,
    /// Never below this size of both together.
    pub bytes_min: u64,
}

impl Default for RewriteSchedule {
    /// As Redis has it.
    fn default() -> Self {
        Self { growth_percent: 100, bytes_min: 64 << 20 }
    }
}

impl RewriteSchedule {
    pub(crate) fn is_due(&self, base_bytes: u64, journal_bytes: u64) -> bool {
        let growth = u128::from(journal_bytes) * 100;
        self.growth_percent > 0
            && base_bytes.saturating_add(journal_bytes) >= self.bytes_min
            && growth >= u128::from(base_bytes) * u128::from(self.growth_percent)
    }
}

/// A snapshot is due if so much time has passed and so much has changed since the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavePoint {
    /// Seconds since the last one.
    pub seconds: u64,
    /// Groups of changes since the last one: commands that changed something, transactions, scripts.
    pub changes: u64,
}

#[cfg(test)]
mod tests {
    use super::RewriteSchedule;

    #[test]
    fn rewriting_is_due_once_the_journal_has_grown() {
        let schedule = RewriteSchedule { growth_percent: 50, bytes_min: 1_000 };
        assert!(!schedule.is_due(0, 999));
        assert!(schedule.is_due(0, 1_000));
        assert!(!schedule.is_due(10_000, 4_999));
        assert!(schedule.is_due(10_000, 5_000));
        assert!(!RewriteSchedule { growth_percent: 0, ..schedule }.is_due(0, u64::MAX));
        assert!(!schedule.is_due(u64::MAX, 1));
    }
}
