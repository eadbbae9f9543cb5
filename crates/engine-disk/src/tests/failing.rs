//! Disks that run full, fail and dawdle: writes are refused, reads go on, nothing acknowledged is lost, and everything goes on afterwards.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use super::lab::{History, Lab, PATIENCE, config, until};
use crate::config::{DiskConfig, Fsync};
use crate::simulation::{Directory, Faults};
use crate::waiting::NotKept;
use acteon_engine::EngineError;

/// Writes until that is refused. Returns what was acknowledged.
fn write_until_refused(lab: &Lab) -> u64 {
    for number in 0.. {
        if lab.engine.check_writable().is_err() {
            break;
        }
        lab.set(&format!("k{}", number % 50), &"v".repeat(100));
        lab.acknowledge();
    }
    lab.acknowledged.load(std::sync::atomic::Ordering::Relaxed)
}

fn refusal(lab: &Lab) -> String {
    lab.disk.statistics().refusal.unwrap_or_default()
}

#[test]
fn full_disk_refuses_writes_keeps_reads_and_recovers_when_there_is_room() {
    let (directory, history) = (Directory::new(1), History::default());
    let lab = Lab::open(&directory, config(Fsync::Always), &history).expect("new");
    directory.set_faults(Faults { bytes_max: Some(20_000), ..Faults::default() });
    let acknowledged = write_until_refused(&lab);
    assert!(acknowledged > 50, "{acknowledged}");
    assert_eq!(lab.engine.check_writable(), Err(EngineError::NotWritable));
    assert!(refusal(&lab).starts_with("cannot write to journal.1: No space left on device"), "{}", refusal(&lab));
    assert!(lab.engine.read(b"k1", 1, |value| value.is_some()));
    let waits = lab.disk.wait(lab.engine.log_position(), PATIENCE);
    assert!(matches!(waits, Err(NotKept::Failing(reason)) if reason.contains("No space left")));
    until("another attempt", || lab.disk.statistics().write_failures > 2);
    assert!(directory.bytes() <= 20_000);
    // Whoever crashes now has everything that was acknowledged.
    let crashed = Lab::reopen(&directory.restarted(), &history, "full");
    crashed.check(&history, acknowledged, "full");
    directory.set_faults(Faults::default());
    until("room", || lab.engine.check_writable().is_ok());
    assert_eq!(lab.disk.statistics().refusal, None);
    lab.set("more", "text");
    assert!(lab.acknowledge());
    let crashed = Lab::reopen(&directory.restarted(), &history, "recovered");
    crashed.check(&history, history.len(), "recovered");
}

#[test]
fn writes_that_fail_in_part_are_repeated_until_they_succeed() {
    let (directory, history) = (Directory::new(2), History::default());
    let lab = Lab::open(&directory, config(Fsync::Always), &history).expect("new");
    directory.set_faults(Faults { fails_append: Some(2), shortens_append: Some(2), ..Faults::default() });
    for number in 0..100 {
        until("an attempt that succeeds", || lab.engine.check_writable().is_ok());
        lab.set(&format!("k{number}"), &"v".repeat(number));
        lab.acknowledge();
    }
    assert!(lab.disk.statistics().write_failures > 10);
    directory.set_faults(Faults::default());
    until("an attempt that succeeds", || lab.acknowledge());
    lab.disk.close().expect("closed");
    let again = Lab::reopen(&directory.restarted(), &history, "repeated");
    again.check(&history, history.len(), "repeated");
    assert_eq!(again.loaded.groups, 100);
}

/// A sync that fails may have lost what it was for, and the next one says that all is well: found by asking a file system that fails. So the files
/// are never trusted again.
#[test]
fn after_a_failed_sync_new_files_are_begun_with_what_is_in_memory() {
    for seed in 0..20 {
        let (directory, history) = (Directory::new(seed), History::default());
        let lab = Lab::open(&directory, config(Fsync::Always), &history).expect("new");
        (0..10).for_each(|number| lab.set(&format!("k{number}"), "before"));
        assert!(lab.acknowledge());
        directory.set_faults(Faults { fails_sync: Some(1), ..Faults::default() });
        let acknowledged = write_until_refused(&lab);
        assert_eq!(acknowledged, 10, "a sync that fails acknowledges nothing");
        until("the first attempt", || refusal(&lab).starts_with("cannot sync"));
        lab.set("unrefused", "what had begun is still appended");
        directory.set_faults(Faults::default());
        until("new files", || lab.engine.check_writable().is_ok());
        assert!(lab.acknowledge());
        lab.set("after", "text");
        assert!(lab.acknowledge());
        let statistics = lab.disk.statistics();
        assert!(statistics.base_bytes > 0 && statistics.sync_failures == 1, "{statistics:?}");
        let crashed = Lab::reopen(&directory.restarted(), &history, &format!("seed {seed}"));
        crashed.check(&history, history.len(), &format!("seed {seed}"));
    }
}

/// Nobody has a gigabyte to spare for this.
const GROUP_BYTES_MAX: usize = 1_000;

fn narrow(fsync: Fsync) -> DiskConfig {
    DiskConfig { group_bytes_max: GROUP_BYTES_MAX, ..config(fsync) }
}

fn set_too_large(lab: &Lab) {
    lab.set("large", &"v".repeat(GROUP_BYTES_MAX));
}

#[test]
fn change_that_does_not_fit_the_journal_is_kept_by_a_snapshot() {
    for fsync in [Fsync::Always, Fsync::EverySecond, Fsync::No] {
        let (directory, history) = (Directory::new(3), History::default());
        let lab = Lab::open(&directory, narrow(fsync), &history).expect("new");
        lab.set("small", "text");
        set_too_large(&lab);
        until("new files", || lab.disk.statistics().base_bytes > 0 && lab.engine.check_writable().is_ok());
        assert_eq!(lab.disk.statistics().synced_position, 2);
        lab.set("more", "text");
        assert_eq!(lab.disk.sync(PATIENCE), Ok(3));
        lab.disk.rewrite().expect("as ever");
        let crashed = Lab::reopen(&directory.restarted(), &history, "snapshot");
        crashed.check(&history, history.len(), "snapshot");
    }
}

/// While there are no new files for it, writes are refused with the reason, and what came before it is in the old ones.
#[test]
fn change_that_does_not_fit_refuses_writes_until_there_are_new_files() {
    let (directory, history) = (Directory::new(8), History::default());
    let lab = Lab::open(&directory, narrow(Fsync::No), &history).expect("new");
    directory.set_faults(Faults { fails_name: Some(1), ..Faults::default() });
    lab.set("small", "text");
    set_too_large(&lab);
    assert_eq!(lab.engine.check_writable(), Err(EngineError::NotWritable));
    assert!(!refusal(&lab).is_empty(), "there is a reason from the first moment on");
    assert!(!lab.disk.is_kept(2), "it is in no file");
    until("a sync of what came before", || lab.disk.statistics().synced_position == 1);
    assert!(lab.disk.is_kept(1));
    assert!(matches!(lab.disk.wait(2, PATIENCE), Err(NotKept::Failing(_))), "whatever the setting");
    assert!(lab.disk.rewrite().is_err());
    assert_eq!(lab.engine.check_writable(), Err(EngineError::NotWritable));
    directory.set_faults(Faults::default());
    until("new files", || lab.engine.check_writable().is_ok());
    assert_eq!(lab.disk.wait(2, PATIENCE), Ok(()));
    let crashed = Lab::reopen(&directory.restarted(), &history, "new files");
    crashed.check(&history, 2, "new files");
}

#[test]
fn change_that_does_not_fit_is_taken_also_while_the_disk_is_behind() {
    let (directory, history) = (Directory::new(9), History::default());
    let config = DiskConfig { buffer_bytes_max: 10_000, ..narrow(Fsync::No) };
    let lab = Lab::open(&directory, config, &history).expect("new");
    directory.set_faults(Faults { fails_append: Some(1), ..Faults::default() });
    while !lab.disk.shared().health.is_full() {
        lab.set("k", &"v".repeat(500));
    }
    until("an attempt", || lab.disk.statistics().write_failures > 0);
    set_too_large(&lab);
    // What was behind is given up with the files.
    until("a breakdown", || lab.disk.statistics().pending_bytes == 0);
    directory.set_faults(Faults::default());
    until("new files", || lab.disk.statistics().base_bytes > 0);
    until("writes", || lab.engine.check_writable().is_ok());
    lab.set("more", "text");
    assert_eq!(lab.disk.sync(PATIENCE), Ok(history.len()));
}

/// The snapshot of the first one does not have the second one, which came after the cut.
#[test]
fn second_change_that_does_not_fit_is_not_forgotten_while_new_files_are_made_for_the_first() {
    for seed in 0..5 {
        let (directory, history) = (Directory::new(seed), History::default());
        let lab = Lab::open(&directory, narrow(Fsync::EverySecond), &history).expect("new");
        directory.set_faults(Faults { latency: Duration::from_millis(20), ..Faults::default() });
        set_too_large(&lab);
        until("the cut", || !lab.disk.shared().inbox.lock().only_counts);
        lab.set("between", "text");
        set_too_large(&lab);
        directory.set_faults(Faults::default());
        until("new files", || lab.engine.check_writable().is_ok());
        assert_eq!(lab.disk.sync(PATIENCE), Ok(3));
        lab.set("more", "text");
        assert_eq!(lab.disk.sync(PATIENCE), Ok(4));
        let crashed = Lab::reopen(&directory.restarted(), &history, "both");
        crashed.check(&history, 4, "both");
    }
}

#[test]
fn closing_right_behind_a_change_that_does_not_fit_keeps_it() {
    for fsync in [Fsync::Always, Fsync::No] {
        let (directory, history) = (Directory::new(10), History::default());
        let lab = Lab::open(&directory, narrow(fsync), &history).expect("new");
        lab.set("small", "text");
        set_too_large(&lab);
        lab.set("after", "text");
        lab.disk.close().expect("new files are begun first");
        Lab::reopen(&directory.restarted(), &history, "closed").check(&history, 3, "closed");
    }
}

#[test]
fn closing_says_what_is_lost_when_there_are_no_new_files_for_a_change_that_does_not_fit() {
    let (directory, history) = (Directory::new(11), History::default());
    let lab = Lab::open(&directory, narrow(Fsync::EverySecond), &history).expect("new");
    lab.set("small", "text");
    assert_eq!(lab.disk.sync(PATIENCE), Ok(1));
    directory.set_faults(Faults { fails_name: Some(1), ..Faults::default() });
    set_too_large(&lab);
    lab.set("after", "text");
    let error = lab.disk.close().expect_err("no new files");
    assert_eq!(error.groups_lost, 2, "{error}");
    assert_eq!(lab.disk.close(), Err(error), "whoever closes it again is told the same");
}

/// The first write is with the operating system and the second one does not fit: the first must not wait for the second to be synced.
#[test]
fn what_was_written_is_synced_although_what_follows_cannot_be_written() {
    let begin = || {
        let (directory, history) = (Directory::new(12), History::default());
        let lab = Lab::open(&directory, config(Fsync::No), &history).expect("new");
        lab.set("written", "text");
        until("a write", || lab.disk.statistics().written_position == 1);
        directory.set_faults(Faults { bytes_max: Some(directory.bytes()), ..Faults::default() });
        lab.set("not", "written");
        until("an attempt", || lab.disk.statistics().write_failures > 0);
        assert_eq!(lab.disk.statistics().synced_position, 0);
        (lab, directory, history)
    };
    for fsync in [Fsync::EverySecond, Fsync::Always] {
        let (lab, directory, history) = begin();
        lab.disk.set_fsync(fsync);
        until("a sync", || lab.disk.statistics().synced_position == 1);
        Lab::reopen(&directory.restarted(), &history, "synced").check(&history, 1, "synced");
    }
    let (lab, directory, history) = begin();
    let error = lab.disk.close().expect_err("full");
    assert_eq!(error.groups_lost, 1, "{error}");
    Lab::reopen(&directory.restarted(), &history, "closed").check(&history, 1, "closed");
}

/// Attempts to write and new files have one pace, and those who wait for the disk another: nobody may be left behind by the last one that failed.
#[test]
fn sync_that_was_asked_for_before_a_write_failed_comes_once_it_succeeds() {
    let (directory, history) = (Directory::new(13), History::default());
    let lab = Lab::open(&directory, config(Fsync::No), &history).expect("new");
    directory.set_faults(Faults { fails_append: Some(1), ..Faults::default() });
    lab.set("k", "v");
    lab.disk.shared().demand_sync();
    until("some attempts", || lab.disk.statistics().write_failures > 2);
    directory.set_faults(Faults::default());
    until("a sync", || lab.disk.statistics().synced_position == 1);
}

#[test]
fn closing_says_that_what_came_meanwhile_is_lost() {
    let (directory, history) = (Directory::new(14), History::default());
    let lab = Lab::open(&directory, config(Fsync::EverySecond), &history).expect("new");
    lab.set("kept", "text");
    // As while the writer ends, for somebody who was allowed to write before.
    lab.disk.shared().close();
    lab.set("late", "text");
    assert!(!lab.disk.is_kept(2), "nobody may acknowledge it");
    let error = lab.disk.close().expect_err("one is not there");
    assert_eq!(error.groups_lost, 1, "{error}");
    assert_eq!(lab.disk.wait(1, PATIENCE), Ok(()));
    assert!(matches!(lab.disk.wait(2, PATIENCE), Err(NotKept::Failing(_))));
    Lab::reopen(&directory.restarted(), &history, "closed").check(&history, 1, "closed");
}

#[test]
fn slow_disk_lets_writers_wait_and_then_refuses_them() {
    let (directory, history) = (Directory::new(4), History::default());
    let config = DiskConfig { buffer_bytes_max: 10_000, ..config(Fsync::EverySecond) };
    let lab = Lab::open(&directory, config, &history).expect("new");
    let is_ready = |kept: crate::waiting::Kept| pin!(kept).poll(&mut Context::from_waker(Waker::noop())).is_ready();
    assert!(is_ready(lab.disk.room()));
    directory.set_faults(Faults { latency: Duration::from_millis(300), ..Faults::default() });
    while lab.disk.statistics().pending_bytes < 5_000 {
        lab.set("k", &"v".repeat(100));
    }
    assert!(lab.engine.check_writable().is_ok());
    assert!(!is_ready(lab.disk.room()), "half of it waits");
    while lab.engine.check_writable().is_ok() {
        lab.set("k", &"v".repeat(100));
    }
    assert!(refusal(&lab).ends_with("bytes behind"), "{}", refusal(&lab));
    directory.set_faults(Faults::default());
    until("room", || lab.engine.check_writable().is_ok());
    lab.disk.close().expect("closed");
    assert!(refusal(&lab).contains("closed"));
    assert!(matches!(lab.disk.sync(PATIENCE), Ok(position) if position == history.len()));
    lab.set("late", "text");
    assert!(
        matches!(lab.disk.sync(PATIENCE), Err(NotKept::Failing(_))),
        "nobody waits for what is not going to happen"
    );
    history.truncate(history.len() - 1);
    let again = Lab::reopen(&directory, &history, "slow");
    again.check(&history, history.len(), "slow");
}

#[test]
fn closing_a_failing_disk_says_how_much_is_not_kept() {
    let (directory, history) = (Directory::new(5), History::default());
    let lab = Lab::open(&directory, config(Fsync::No), &history).expect("new");
    lab.set("kept", "text");
    assert_eq!(lab.disk.sync(PATIENCE), Ok(1));
    directory.set_faults(Faults { fails_append: Some(1), ..Faults::default() });
    lab.set("not", "kept");
    lab.set("nor", "this");
    let error = lab.disk.close().expect_err("the disk fails");
    assert_eq!(error.groups_lost, 2);
    assert!(error.reason.contains("Input/output error"), "{error}");
    assert_eq!(lab.disk.close(), Err(error), "whoever closes it again is told the same");
    let again = Lab::reopen(&directory.restarted(), &history, "failing");
    again.check(&history, 1, "failing");
}
