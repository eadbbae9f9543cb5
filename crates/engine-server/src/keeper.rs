//! The disk, as the instance sees it.

use std::sync::Arc;

use acteon_engine::{Keeper, KeeperFigures, KeeperJob, SyncPolicy};
use acteon_engine_disk::{Disk, Fsync, JobStatistics};

/// Carries out what clients ask of the disk.
pub(crate) struct DiskKeeper(pub(crate) Arc<Disk>);

impl Keeper for DiskKeeper {
    fn figures(&self) -> KeeperFigures {
        let (statistics, config) = (self.0.statistics(), self.0.config());
        KeeperFigures {
            directory: self.0.path().map(Into::into).unwrap_or_default(),
            sync: policy(statistics.fsync),
            refusal: statistics.refusal,
            journal_bytes: statistics.base_bytes + statistics.journal_bytes,
            base_bytes: statistics.base_bytes,
            pending_bytes: statistics.pending_bytes,
            pending_syncs: statistics.position.saturating_sub(statistics.synced_position),
            rewrite_growth_percent: config.rewrite.growth_percent.into(),
            rewrite_bytes_min: config.rewrite.bytes_min,
            save_points: config.save_points.iter().map(|point| (point.seconds, point.changes)).collect(),
            changes_since_save: statistics.changes_since_save,
            last_save_s: statistics.last_save_ms / 1_000,
            save: job(&statistics.save),
            rewrite: job(&statistics.rewrite),
        }
    }

    fn save(&self) -> Result<(), String> {
        self.0.save()
    }

    fn start_save(&self) -> bool {
        self.0.start_save().is_ok()
    }

    fn start_rewrite(&self) -> bool {
        self.0.start_rewrite().is_ok()
    }

    // What the disk was opened with is what its owner has promised to others: a store that is embedded beside the clients says by it which
    // writes and grants of locks survive a crash. A client may have more, not less.
    fn set_sync(&self, sync: SyncPolicy) -> Result<(), String> {
        let opened_with = policy(self.0.config().fsync);
        if strictness(sync) < strictness(opened_with) {
            let (wanted, floor) = (name(sync), name(opened_with));
            return Err(format!("the engine was started with fsync {floor}, which others rely on: {wanted} is less"));
        }
        self.0.set_fsync(match sync {
            SyncPolicy::Always => Fsync::Always,
            SyncPolicy::EverySecond => Fsync::EverySecond,
            SyncPolicy::No => Fsync::No,
        });
        Ok(())
    }
}

fn policy(fsync: Fsync) -> SyncPolicy {
    match fsync {
        Fsync::Always => SyncPolicy::Always,
        Fsync::EverySecond => SyncPolicy::EverySecond,
        Fsync::No => SyncPolicy::No,
    }
}

fn strictness(sync: SyncPolicy) -> u8 {
    match sync {
        SyncPolicy::No => 0,
        SyncPolicy::EverySecond => 1,
        SyncPolicy::Always => 2,
    }
}

fn name(sync: SyncPolicy) -> &'static str {
    match sync {
        SyncPolicy::No => "no",
        SyncPolicy::EverySecond => "everysec",
        SyncPolicy::Always => "always",
    }
}

fn job(job: &JobStatistics) -> KeeperJob {
    KeeperJob {
        is_running: job.is_running,
        is_scheduled: job.is_requested,
        ended: job.ended,
        has_failed: job.last_failure.is_some(),
        last_s: job.last_duration.as_secs(),
    }
}
