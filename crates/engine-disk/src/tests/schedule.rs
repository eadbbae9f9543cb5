//! What begins by itself, and settings that change while it runs.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use acteon_engine::rdb::{FileFacts, FileWriter, ReadOptions, Reader};
use acteon_engine::{Engine, EngineConfig, Expiry};

use super::lab::{History, Lab, PATIENCE, config, new_engine, until};
use crate::config::{DiskConfig, Fsync, RewriteSchedule, SavePoint};
use crate::disk::{Disk, OpenError};
use crate::jobs::InProgress;
use crate::simulation::{Directory, Faults};

#[test]
fn snapshot_is_saved_once_time_has_passed_and_enough_has_changed() {
    let save_points = vec![SavePoint { seconds: 60, changes: 2 }, SavePoint { seconds: 10, changes: 4 }];
    let config = DiskConfig { save_points, ..config(Fsync::No) };
    let directory = Directory::new(1);
    let lab = Lab::open(&directory, config, &History::default()).expect("new");
    let saved = || {
        until("the end", || !lab.disk.statistics().save.is_running && !lab.disk.statistics().save.is_requested);
        lab.disk.statistics().save.ended
    };
    lab.set("k", "1");
    lab.disk.tick(1_000_000);
    assert_eq!(saved(), 0, "one change is not enough");
    lab.set("k", "2");
    lab.disk.tick(59_999);
    assert_eq!(saved(), 0, "it is too early");
    lab.disk.tick(60_000);
    assert_eq!((saved(), lab.disk.statistics().last_save_ms), (1, 60_000));
    (0..4).for_each(|number| lab.set("k", &number.to_string()));
    lab.disk.tick(70_000);
    assert_eq!(saved(), 2);
    // One that fails is not repeated at once.
    directory.set_faults(Faults { fails_name: Some(1), ..Faults::default() });
    (0..4).for_each(|number| lab.set("k", &number.to_string()));
    lab.disk.tick(90_000);
    assert_eq!(saved(), 3);
    assert!(lab.disk.statistics().save.last_failure.is_some());
    lab.disk.tick(94_999);
    assert_eq!(saved(), 3);
    directory.set_faults(Faults::default());
    lab.disk.tick(95_000);
    assert_eq!((saved(), lab.disk.statistics().save.last_failure), (4, None));
}

#[test]
fn journal_is_rewritten_once_it_has_grown() {
    let rewrite = RewriteSchedule { growth_percent: 100, bytes_min: 4_000 };
    let config = DiskConfig { rewrite, ..config(Fsync::Always) };
    let (directory, history) = (Directory::new(2), History::default());
    let lab = Lab::open(&directory, config, &history).expect("new");
    let mut largest = 0;
    for number in 0..2_000_u64 {
        lab.set("k", &number.to_string());
        assert!(lab.acknowledge());
        lab.disk.tick(number);
        largest = largest.max(directory.bytes());
    }
    until("the end", || !lab.disk.statistics().rewrite.is_running);
    assert!(lab.disk.statistics().rewrite.ended > 3);
    assert!(largest < 40_000, "{largest}");
}

/// Each attempt leaves a journal behind: for a disk that fails for a day, that must not be thousands.
#[test]
fn rewriting_that_fails_again_and_again_is_tried_less_and_less() {
    let rewrite = RewriteSchedule { growth_percent: 100, bytes_min: 0 };
    let config = DiskConfig { rewrite, ..config(Fsync::Always) };
    let (directory, history) = (Directory::new(7), History::default());
    let lab = Lab::open(&directory, config, &history).expect("new");
    (0..100).for_each(|number| lab.set(&format!("k{number}"), "v"));
    assert!(lab.acknowledge());
    directory.set_faults(Faults { bytes_max: Some(directory.bytes() + 200), ..Faults::default() });
    let day_s = 24 * 3_600;
    for second in (0..day_s).step_by(5) {
        lab.disk.tick(second * 1_000);
        until("the end", || {
            let rewrite = lab.disk.statistics().rewrite;
            !rewrite.is_running && !rewrite.is_requested
        });
    }
    let attempts = lab.disk.statistics().rewrite.ended;
    assert!((20..50).contains(&attempts), "{attempts}");
    directory.set_faults(Faults::default());
    lab.disk.rewrite().expect("there is room");
    Lab::reopen(&directory.restarted(), &history, "later").check(&history, 100, "later");
}

#[test]
fn job_that_is_under_way_is_not_begun_again() {
    let directory = Directory::new(3);
    let lab = Lab::open(&directory, config(Fsync::No), &History::default()).expect("new");
    directory.set_faults(Faults { latency: Duration::from_millis(50), ..Faults::default() });
    lab.disk.start_save().expect("idle");
    assert_eq!(lab.disk.start_save(), Err(InProgress));
    until("the beginning", || lab.disk.statistics().save.is_running);
    lab.disk.start_rewrite().expect("another job");
    assert_eq!(lab.disk.start_rewrite(), Err(InProgress));
    lab.disk.save().expect("the one after that");
    assert_eq!(lab.disk.statistics().save.ended, 2);
}

#[test]
fn closing_ends_jobs_where_they_are() {
    let (directory, history) = (Directory::new(4), History::default());
    let lab = Lab::open(&directory, config(Fsync::No), &history).expect("new");
    (0..1_000).for_each(|number| lab.set(&format!("k{number}"), "v"));
    directory.set_faults(Faults { latency: Duration::from_millis(5), ..Faults::default() });
    lab.disk.start_rewrite().expect("idle");
    lab.disk.start_save().expect("idle");
    lab.disk.close().expect("closed");
    Lab::reopen(&directory, &history, "closed").check(&history, 1_000, "closed");
}

#[test]
fn everysec_syncs_by_itself_and_no_does_not() {
    let directory = Directory::new(5);
    let lab = Lab::open(&directory, config(Fsync::EverySecond), &History::default()).expect("new");
    lab.set("k", "v");
    until("a sync", || lab.disk.statistics().synced_position == 1);
    lab.disk.set_fsync(Fsync::No);
    lab.set("k", "w");
    until("a write", || lab.disk.statistics().written_position == 2);
    assert_eq!(lab.disk.statistics().synced_position, 1);
    lab.disk.set_fsync(Fsync::Always);
    assert_eq!(lab.disk.wait(2, PATIENCE), Ok(()));
    lab.disk.set_fsync(Fsync::No);
    lab.set("k", "x");
    assert_eq!(lab.disk.sync(PATIENCE), Ok(3));
    assert!(lab.disk.statistics().syncs >= 3);
}

/// A process that is killed loses what it has gathered, and not what it has written: the pause between syncs is no pause between writes.
#[test]
fn what_was_appended_is_written_at_once_also_right_after_a_sync() {
    for fsync in [Fsync::EverySecond, Fsync::No] {
        let config = DiskConfig { fsync_interval: Duration::from_secs(24 * 3_600), ..config(fsync) };
        let (directory, history) = (Directory::new(8), History::default());
        let lab = Lab::open(&directory, config, &history).expect("new");
        for number in 1..=5 {
            lab.set("k", &number.to_string());
            until("a write", || lab.disk.statistics().written_position == number);
            assert_eq!(lab.disk.statistics().synced_position, 0, "the next sync is tomorrow");
        }
        let killed = Lab::reopen(&directory.killed(), &history, "killed");
        killed.check(&history, 5, "killed");
    }
}

/// It is on its way to the disk under the setting that promises a sync, and then there is another one that promises none.
#[test]
fn who_waits_for_a_sync_gets_it_although_the_setting_changes() {
    for after in [Fsync::No, Fsync::EverySecond] {
        let directory = Directory::new(9);
        let interval = Duration::from_secs(24 * 3_600);
        let config = DiskConfig { fsync_interval: interval, ..config(Fsync::Always) };
        let lab = Lab::open(&directory, config, &History::default()).expect("new");
        directory.set_faults(Faults { latency: Duration::from_millis(50), ..Faults::default() });
        lab.set("k", "v");
        let kept = lab.disk.kept(1);
        lab.disk.set_fsync(after);
        assert_eq!(lab.disk.fsync(), after);
        until("a sync", || lab.disk.statistics().synced_position == 1);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(std::pin::pin!(kept).poll(&mut context).is_ready());
    }
}

#[test]
fn setting_that_promises_a_sync_is_about_what_passed_without_one_too() {
    let directory = Directory::new(10);
    let lab = Lab::open(&directory, config(Fsync::No), &History::default()).expect("new");
    lab.set("k", "v");
    until("a write", || lab.disk.statistics().written_position == 1);
    assert!(lab.disk.is_kept(1) && lab.disk.statistics().synced_position == 0);
    lab.disk.set_fsync(Fsync::Always);
    assert_eq!(lab.disk.fsync(), Fsync::Always);
    assert_eq!(lab.disk.wait(1, PATIENCE), Ok(()));
    assert_eq!(lab.disk.statistics().synced_position, 1);
    assert!(lab.disk.is_kept(1));
}

#[test]
fn engine_that_holds_keys_in_any_database_is_refused() {
    for database in [0, 3] {
        let engine = new_engine();
        let filled = Engine::new(EngineConfig::default());
        filled.update(b"k", 1, |slot| slot.set_str(&[b"v"], Expiry::Clear)).expect("no bound");
        let snapshot = filled.cut(1, || ()).expect("no other one");
        let mut file = Vec::new();
        let mut writer = FileWriter::begin(&FileFacts { created_at_s: 1, used_memory_bytes: 1 }, &mut file);
        for piece in snapshot {
            writer.add(&piece);
            file.extend_from_slice(&piece);
        }
        file.extend_from_slice(&writer.end());
        let mut reader = Reader::open(&*file, ReadOptions::default()).expect("a file");
        while let Some(mut record) = reader.next_record().expect("whole") {
            record.database = database;
            assert!(engine.load(record));
        }
        let opened = Disk::open(Arc::new(Directory::new(11)), &engine, config(Fsync::No), 1);
        assert!(matches!(opened, Err(OpenError::NotEmpty)), "database {database}");
    }
}

#[test]
fn those_who_wait_share_a_sync() {
    let directory = Directory::new(6);
    let lab = Lab::open(&directory, config(Fsync::Always), &History::default()).expect("new");
    directory.set_faults(Faults { latency: Duration::from_millis(1), ..Faults::default() });
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let lab = &lab;
            scope.spawn(move || {
                for number in 0..20 {
                    lab.set(&format!("k{thread}"), &number.to_string());
                    assert!(lab.acknowledge());
                }
            });
        }
    });
    let syncs = lab.disk.statistics().syncs;
    assert!(syncs < 100, "{syncs} syncs for 160 writes of 8 threads");
}
