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

#[test]
fn change_that_does_not_fit_the_journal_is_kept_by_a_snapshot() {
    let (directory, history) = (Directory::new(3), History::default());
    let lab = Lab::open(&directory, config(Fsync::Always), &history).expect("new");
    lab.set("small", "text");
    // Nobody has a gigabyte to spare for this: said of one that is small.
    {
        let mut inbox = lab.disk.shared().inbox.lock();
        inbox.oversized_bytes = Some(2 << 30);
        lab.disk.shared().work.notify_one();
    }
    until("new files", || lab.disk.statistics().base_bytes > 0 && lab.engine.check_writable().is_ok());
    lab.set("more", "text");
    assert!(lab.acknowledge());
    let crashed = Lab::reopen(&directory.restarted(), &history, "snapshot");
    crashed.check(&history, history.len(), "snapshot");
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
    assert!(lab.disk.close().is_ok(), "closing again does nothing");
    let again = Lab::reopen(&directory.restarted(), &history, "failing");
    again.check(&history, 1, "failing");
}
