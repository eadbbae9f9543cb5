//! What is appended in a row shares one write and one sync. The writer began with the first group, and all the others waited for a second sync.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use super::lab::{History, Lab, PATIENCE, config, until};
use crate::config::{DiskConfig, Fsync};
use crate::simulation::Directory;
use crate::waiting::NotKept;

const GROUPS: u64 = 100;

/// What may wait for the disk: less than the writer is woken for in any case.
const ROOM_BYTES: usize = 64 << 10;

fn lab(fsync: Fsync) -> Lab {
    Lab::open(&Directory::new(1), config(fsync), &History::default()).expect("it is new")
}

fn write(lab: &Lab, groups: u64) {
    (0..groups).for_each(|number| lab.set(&format!("key:{number}"), "value"));
}

#[test]
fn what_is_appended_in_a_batch_shares_one_write_and_one_sync() {
    let lab = lab(Fsync::Always);
    // The writer sleeps with nothing to do once it has done something.
    write(&lab, 1);
    lab.disk.wait(1, PATIENCE).expect("kept");
    let before = lab.disk.statistics();
    for round in 1..=5 {
        let batch = lab.disk.batch().expect("somebody waits");
        write(&lab, GROUPS);
        drop(batch);
        lab.disk.wait(lab.engine.log_position(), PATIENCE).expect("kept");
        let after = lab.disk.statistics();
        // The writer may not have gone to sleep again when a round begins: then it takes the first groups by itself.
        assert!(after.syncs - before.syncs <= 2 * round, "round {round}");
        assert_eq!(after.synced_position, 1 + round * GROUPS);
    }
}

#[test]
fn others_do_not_wait_for_the_end_of_a_batch() {
    let lab = lab(Fsync::Always);
    let batch = lab.disk.batch().expect("somebody waits");
    write(&lab, GROUPS);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            lab.set("other", "value");
            lab.disk.wait(lab.engine.log_position(), PATIENCE)
        });
        other.join().expect("no panic").expect("kept while the batch lives");
    });
    assert_eq!(lab.disk.statistics().synced_position, GROUPS + 1);
    drop(batch);
}

/// Whoever only read within somebody else's batch was left waiting until its end: by then seconds may have passed, for a batch spans all commands
/// of a turn, and nobody but its own thread was going to wake the writer.
#[test]
fn those_who_only_wait_do_not_wait_for_the_end_of_a_batch() {
    let config = DiskConfig { buffer_bytes_max: ROOM_BYTES, ..config(Fsync::Always) };
    let lab = Lab::open(&Directory::new(1), config, &History::default()).expect("it is new");
    let health = &lab.disk.shared().health;
    // Asking for a future is enough; what is waited on here wakes nobody.
    let ways: [&(dyn Fn(u64) -> Result<(), NotKept> + Sync); 3] = [
        &|position| lab.disk.wait(position, PATIENCE),
        &|position| {
            let _kept = lab.disk.kept(position);
            health.synced.wait(position, PATIENCE)
        },
        &|position| {
            assert!(!lab.disk.room().is_at_once(), "more than half is full");
            health.written.wait(position, PATIENCE)
        },
    ];
    for wait in ways {
        until("the writer goes to sleep", || lab.disk.shared().inbox.lock().is_writer_idle);
        let batch = lab.disk.batch().expect("somebody waits");
        lab.set("large", &"v".repeat(ROOM_BYTES * 2 / 3));
        let position = lab.engine.log_position();
        thread::scope(|scope| {
            let other = scope.spawn(|| wait(position));
            other.join().expect("no panic").expect("reached while the batch lives");
        });
        drop(batch);
    }
}

#[test]
fn thread_that_waits_within_its_own_batch_is_not_left_waiting() {
    let lab = lab(Fsync::Always);
    let batch = lab.disk.batch().expect("somebody waits");
    for round in 1..=3 {
        write(&lab, GROUPS);
        lab.disk.wait(lab.engine.log_position(), PATIENCE).expect("kept");
        assert_eq!(lab.disk.statistics().synced_position, round * GROUPS);
    }
    write(&lab, GROUPS);
    lab.disk.sync(PATIENCE).expect("kept");
    drop(batch);
}

#[test]
fn batch_ends_with_a_panic_and_is_about_one_disk() {
    let (lab, other) = (lab(Fsync::Always), lab(Fsync::Always));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _batch = lab.disk.batch();
        write(&lab, GROUPS);
        panic!("in the middle of a batch");
    }));
    assert!(panicked.is_err());
    // By whom it is waited for does not matter any more.
    thread::scope(|scope| {
        let waits = scope.spawn(|| lab.disk.wait(GROUPS, PATIENCE));
        waits.join().expect("no panic").expect("kept");
    });
    let batch = lab.disk.batch().expect("the other one is over");
    assert!(lab.disk.batch().is_none(), "the outer one is enough");
    write(&other, GROUPS);
    thread::scope(|scope| {
        let waits = scope.spawn(|| other.disk.wait(GROUPS, PATIENCE));
        waits.join().expect("no panic").expect("its writer is woken as ever");
    });
    drop(batch);
    assert!(self::lab(Fsync::EverySecond).disk.batch().is_none(), "nobody waits");
}
