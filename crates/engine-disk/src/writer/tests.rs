//! A writer whose steps are taken one by one, while the disk fails at the worst moment.

use std::sync::Arc;
use std::time::Duration;

use acteon_engine::ChangeLog;

use super::{Order, Writer};
use crate::active::Active;
use crate::config::{DiskConfig, Fsync};
use crate::contents::read_journal;
use crate::manifest::{Journal, Manifest};
use crate::shared::{Place, Replacement, Shared, Start};
use crate::simulation::{Directory, Faults};
use crate::waiting::NotKept;

const FIRST: Journal = Journal { number: 1, first_position: 0 };

/// A writer whose steps are taken one by one, of a new directory.
fn writer(directory: &Directory, fsync: Fsync) -> (Writer, Arc<Shared>) {
    let config = DiskConfig { fsync, fsync_interval: Duration::ZERO, group_bytes_max: 100, ..DiskConfig::default() };
    let active = Active::create(directory, FIRST.number, 0).expect("created");
    let manifest = Manifest { base: None, journals: vec![FIRST] };
    manifest.store(directory).expect("stored");
    let place = Place { number: FIRST.number, bytes: active.bytes, position: 0 };
    let start = Start { manifest, place, synced_place: place, next_number: 2, now_ms: 0 };
    let shared = Arc::new(Shared::new(Arc::new(directory.clone()), config, start));
    (Writer::new(Arc::clone(&shared), active, 0), shared)
}

/// The groups that another process finds.
fn groups(directory: &Directory, journal: Journal) -> Vec<Vec<u8>> {
    let mut groups = Vec::new();
    let read = read_journal(&directory.killed(), &journal, |_, group| {
        groups.push(group.to_vec());
        Ok(())
    });
    read.expect("whole");
    groups
}

fn work(writer: &mut Writer) {
    assert!(matches!(writer.wait(), Order::Work));
    writer.work();
}

fn fails_sync() -> Faults {
    Faults { fails_sync: Some(1), ..Faults::default() }
}

/// A sync takes as long as a disk needs to find out that it fails, and meanwhile writes are acknowledged. All that came in that time was thrown
/// away with the files, and nothing had it until there were new ones.
#[test]
fn what_was_acknowledged_during_a_sync_that_fails_outlives_the_process() {
    for fsync in [Fsync::EverySecond, Fsync::No] {
        let directory = Directory::new(1);
        let (mut writer, shared) = writer(&directory, fsync);
        shared.append(b"first");
        shared.demand_sync();
        assert!(matches!(writer.wait(), Order::Work));
        shared.append(b"during");
        // A rewriting that waits for its file is told that the disk fails.
        shared.rotate_here(2);
        shared.append(b"behind");
        directory.set_faults(fails_sync());
        writer.work();
        assert!(!shared.is_writable());
        assert_eq!(groups(&directory, FIRST), [&b"first"[..], b"during", b"behind"], "{fsync:?}");
        assert_eq!((shared.health.synced.reached(), shared.health.written.reached()), (0, 3));
        assert_eq!(shared.pending_bytes(), 0);
    }
}

/// Under `always` nobody was told anything, and behind what may be a hole the records would only be in the way.
#[test]
fn what_nobody_was_told_of_is_not_written_behind_a_failed_sync() {
    let directory = Directory::new(1);
    let (mut writer, shared) = writer(&directory, Fsync::Always);
    shared.append(b"first");
    assert!(matches!(writer.wait(), Order::Work));
    shared.append(b"during");
    directory.set_faults(fails_sync());
    writer.work();
    assert_eq!(groups(&directory, FIRST), [b"first"]);
    assert!(matches!(shared.health.synced.wait(1, Duration::ZERO), Err(NotKept::Failing(_))));
    // Unless the setting was another one when they came.
    let directory = Directory::new(1);
    let (mut writer, shared) = self::writer(&directory, Fsync::EverySecond);
    shared.append(b"first");
    shared.demand_sync();
    assert!(matches!(writer.wait(), Order::Work));
    shared.append(b"during");
    shared.set_fsync(Fsync::Always);
    directory.set_faults(fails_sync());
    writer.work();
    assert_eq!(groups(&directory, FIRST), [&b"first"[..], b"during"]);
}

/// The manifest that names a new file is there, and its sync failed: nobody knows whether it stays. What follows must be where the next process
/// looks, and not in the old file, behind the place where the new one begins.
#[test]
fn what_follows_a_file_of_which_nobody_knows_whether_it_counts_is_where_the_manifest_says() {
    let mut ways = [0, 0];
    for seed in 0..200 {
        let directory = Directory::new(seed);
        let (mut writer, shared) = writer(&directory, Fsync::EverySecond);
        shared.append(b"before");
        shared.rotate_here(2);
        shared.append(b"behind");
        shared.demand_sync();
        directory.set_faults(Faults { fails_name: Some(3), ..Faults::default() });
        work(&mut writer);
        if !shared.health.is_broken() {
            continue;
        }
        let manifest = Manifest::load(&directory.killed()).expect("read").expect("there").expect("whole");
        let found: Vec<_> = manifest.journals.iter().map(|journal| groups(&directory, *journal)).collect();
        let expected: &[&[&[u8]]] = match manifest.journals.len() {
            1 => &[&[b"before", b"behind"]],
            _ => &[&[b"before"], &[b"behind"]],
        };
        assert_eq!(found, expected, "seed {seed}: {manifest}");
        ways[manifest.journals.len() - 1] += 1;
    }
    assert!(ways[0] > 3 && ways[1] > 3, "{ways:?}");
}

/// The snapshot for the first change that did not fit has the second one as well, but the writer had not come to look at it before there were new
/// files. It gave those up as well.
#[test]
fn files_that_have_all_that_did_not_fit_are_not_given_up_for_it() {
    let directory = Directory::new(1);
    let (mut writer, shared) = writer(&directory, Fsync::EverySecond);
    let begin_anew = |number| {
        let position = shared.begin_anew();
        Replacement { active: Active::create(&directory, number, position).expect("created"), position }
    };
    shared.append(&[b'v'; 200]);
    assert!(matches!(writer.wait(), Order::BreakDown));
    writer.write_and_break_down();
    assert!(!shared.is_writable() && shared.jobs.lock().heal_wanted);
    shared.append(&[b'v'; 201]);
    assert!(matches!(writer.wait(), Order::BreakDown));
    shared.mend(begin_anew(2));
    assert!(shared.is_writable());
    writer.write_and_break_down();
    assert!(shared.is_writable() && !shared.jobs.lock().heal_wanted, "the snapshot has both");
    shared.append(b"more");
    shared.demand_sync();
    work(&mut writer);
    assert_eq!(shared.health.synced.reached(), 3);
    assert_eq!(groups(&directory, Journal { number: 2, first_position: 2 }), [b"more"]);
}
