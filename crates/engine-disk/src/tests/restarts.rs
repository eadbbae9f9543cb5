//! Processes that follow others which were killed, or open what somebody has copied, and what the machine takes when it stops after that.

use std::sync::Arc;

use super::lab::{History, Lab, PATIENCE, config, new_engine, until};
use crate::config::Fsync;
use crate::disk::{CloseError, Disk, OpenError};
use crate::manifest::{MANIFEST, Manifest, SYNCED};
use crate::problem::ProblemKind;
use crate::simulation::{Directory, Faults, Random};
use crate::synced;

/// Bytes of the last journal, and how many of them are noted as being on the disk.
fn last_journal(directory: &Directory) -> (u64, u64) {
    let manifest = Manifest::decode(&directory.get(MANIFEST).expect("there")).expect("whole");
    let last = manifest.journals.last().expect("there");
    (directory.get(&last.file()).expect("there").len() as u64, synced::known(directory, last.number))
}

/// `cp -a` to a larger disk, and a start there. Only names and the last journal were synced: when the machine stopped before the operating system had
/// written the rest, everything was lost that had been acknowledged, since its base was gone.
#[test]
fn copy_that_nobody_has_synced_keeps_what_is_acknowledged_on_top_of_it() {
    for seed in 0..30 {
        let (directory, history, mut random) = (Directory::new(seed), History::default(), Random(seed));
        let lab = Lab::open(&directory, config(Fsync::Always), &history).expect("new");
        for round in 0..3 {
            (0..20).for_each(|_| lab.write(&mut random));
            match round {
                0 => lab.disk.rewrite().expect("rewritten"),
                // A journal that is closed, and counts.
                1 => begin_journal(&lab),
                _ => {}
            }
        }
        if seed % 2 == 0 {
            lab.disk.close().expect("closed");
        } else {
            assert!(lab.acknowledge());
        }
        let copy = directory.copied();
        let next = Lab::reopen(&copy, &history, &format!("seed {seed}"));
        next.set("on top", "text");
        assert!(next.acknowledge());
        for way in 0..10 {
            let hint = format!("seed {seed}, way {way}");
            Lab::reopen(&copy.restarted(), &history, &hint).check(&history, history.len(), &hint);
        }
    }
}

fn begin_journal(lab: &Lab) {
    let shared = lab.disk.shared();
    lab.disk.sync(PATIENCE).expect("synced");
    let number = shared.next_number();
    shared.rotate_here(number);
    until("a new file", || shared.manifest.lock().journals.iter().any(|journal| journal.number == number));
}

/// The machine stops at each step of an opening behind a process that was killed after a sync had failed, within what is written over itself as well.
#[test]
fn machine_that_stops_while_a_directory_is_opened_takes_nothing_acknowledged() {
    for seed in 0..8 {
        for step in 0.. {
            let (directory, history, mut random) = (Directory::new(seed), History::default(), Random(seed));
            let lab = Lab::open(&directory, config(Fsync::Always), &history).expect("new");
            (0..20).for_each(|_| lab.write(&mut random));
            assert!(lab.acknowledge());
            let acknowledged = history.len();
            directory.set_faults(Faults { fails_sync: Some(1), ..Faults::default() });
            (0..5).for_each(|number| lab.set(&format!("k{number}"), &"v".repeat(600)));
            assert!(!lab.acknowledge());
            let killed = directory.killed();
            killed.set_faults(Faults { crash_at: Some(killed.operations() + step), ..Faults::default() });
            match Lab::open(&killed, config(Fsync::Always), &history) {
                Ok(lab) => lab.check(&history, acknowledged, "opened"),
                Err(OpenError::Problem(problem)) => assert!(matches!(problem.kind, ProblemKind::Io(_)), "{problem}"),
                Err(error) => panic!("{error}"),
            }
            let has_crashed = killed.has_crashed();
            for way in 0..5 {
                let hint = format!("seed {seed}, step {step}, way {way}");
                Lab::reopen(&killed.restarted(), &history, &hint).check(&history, acknowledged, &hint);
            }
            if !has_crashed {
                assert!(step > 8, "an opening has more steps than {step}");
                break;
            }
        }
    }
}

/// It was noted only when a directory was opened and closed, so whoever followed a process that was killed wrote all of its journal again.
#[test]
fn how_much_is_on_the_disk_is_noted_every_minute_and_with_each_new_journal() {
    const MINUTE_MS: u64 = 60_000;
    for fsync in [Fsync::Always, Fsync::EverySecond, Fsync::No] {
        let (directory, history) = (Directory::new(1), History::default());
        let lab = Lab::open(&directory, config(fsync), &history).expect("new");
        let mut now_ms = 0;
        for round in 0..3 {
            lab.set("k", "v");
            if fsync != Fsync::No {
                until("a sync", || lab.disk.statistics().synced_position == history.len());
            }
            // Without syncs of its own, there is one each minute, and the next one notes it.
            until("a note", || {
                now_ms += MINUTE_MS;
                lab.disk.tick(now_ms);
                let (bytes, known) = last_journal(&directory.killed());
                bytes == known && lab.disk.statistics().synced_position == history.len()
            });
            assert_eq!(lab.disk.statistics().synced_position, history.len(), "round {round}, {fsync:?}");
        }
        lab.disk.rewrite().expect("rewritten");
        let (bytes, known) = last_journal(&directory.killed());
        assert_eq!(bytes, known, "{fsync:?}");
        let number = Manifest::decode(&directory.get(MANIFEST).expect("there")).expect("whole").journals[0].number;
        let mark = String::from_utf8(directory.get(SYNCED).expect("noted")).expect("text");
        assert!(mark.starts_with(&format!("journal.{number} ")), "{mark}");
    }
}

#[test]
fn note_that_is_not_due_yet_is_not_written() {
    let (directory, history) = (Directory::new(1), History::default());
    let lab = Lab::open(&directory, config(Fsync::Always), &history).expect("new");
    lab.set("k", "v");
    assert!(lab.acknowledge());
    lab.disk.tick(59_999);
    assert!(!lab.disk.shared().jobs.lock().is_note_due);
    // Once more as much is noted, nothing is written.
    lab.disk.tick(60_000);
    until("a note", || last_journal(&directory.killed()).1 == last_journal(&directory.killed()).0);
    let operations = directory.operations();
    lab.disk.tick(120_000);
    until("it is looked at", || !lab.disk.shared().jobs.lock().is_note_due);
    lab.disk.save().expect("nothing else is under way");
    let saved = directory.operations();
    lab.disk.save().expect("nothing else is under way");
    assert_eq!(saved - operations, directory.operations() - saved, "only the snapshot has touched the disk");
}

/// To write over a byte needs room (btrfs, ZFS), or what has no room is told by the sync of it (NFS, thin volumes). A process was killed while such
/// a disk was full, and the next one did not start, though everything was there to be read.
#[test]
fn full_disk_is_opened_for_reading_and_takes_writes_once_there_is_room() {
    let full = Faults { bytes_max: Some(0), ..Faults::default() };
    let copies_on_write = Faults { copies_on_write: true, ..full.clone() };
    let allocates_late = Faults { allocates_late: true, ..full };
    for full in [copies_on_write, allocates_late] {
        for fsync in [Fsync::Always, Fsync::EverySecond, Fsync::No] {
            for is_torn in [false, true] {
                let hint = format!("{full:?}, {fsync:?}, torn: {is_torn}");
                open_where_there_is_no_room(full.clone(), fsync, is_torn, &hint);
            }
        }
    }
}

fn open_where_there_is_no_room(full: Faults, fsync: Fsync, is_torn: bool, hint: &str) {
    let (directory, history, mut random) = (Directory::new(1), History::default(), Random(1));
    let lab = Lab::open(&directory, config(fsync), &history).expect("new");
    (0..20).for_each(|_| lab.write(&mut random));
    lab.disk.sync(PATIENCE).expect("synced");
    let killed = directory.killed();
    if is_torn {
        let mut file = crate::storage::Storage::open_to_append(&killed, "journal.1").expect("there");
        file.append(b"torn").expect("written");
    }
    killed.set_faults(full);
    let next = Lab::open(&killed, config(fsync), &history).unwrap_or_else(|error| panic!("{hint}: {error}"));
    next.check(&history, history.len(), hint);
    assert_eq!(next.loaded.torn.is_some(), is_torn, "{hint}");
    assert!(next.engine.check_writable().is_err(), "{hint}");
    let refusal = next.disk.statistics().refusal.unwrap_or_default();
    assert!(refusal.contains("No space left on device"), "{hint}: {refusal}");
    // Nothing is known to be on the disk but the header of the journal.
    let lost = next.disk.close().expect_err("there is no room");
    assert_eq!(lost.groups_lost, history.len(), "{hint}: {lost}");
    drop(next);
    let next = Lab::open(&killed, config(fsync), &history).unwrap_or_else(|error| panic!("{hint}: {error}"));
    killed.set_faults(Faults::default());
    until("room", || next.engine.check_writable().is_ok());
    next.set("more", "text");
    next.disk.sync(PATIENCE).expect("synced");
    Lab::reopen(&killed.restarted(), &history, hint).check(&history, history.len(), hint);
}

/// A disk that fails otherwise is not to be trusted with what is read from it either.
#[test]
fn disk_that_does_not_take_what_is_written_again_is_not_opened() {
    let (directory, history) = (Directory::new(1), History::default());
    let lab = Lab::open(&directory, config(Fsync::Always), &history).expect("new");
    lab.set("k", "v");
    assert!(lab.acknowledge());
    let killed = directory.killed();
    killed.set_faults(Faults { fails_append: Some(1), ..Faults::default() });
    let opened = Disk::open(Arc::new(killed.clone()), &new_engine(), config(Fsync::Always), 0);
    assert!(matches!(opened, Err(OpenError::Problem(problem)) if matches!(problem.kind, ProblemKind::Io(_))));
    killed.set_faults(Faults::default());
    Lab::reopen(&killed, &history, "it works again").check(&history, history.len(), "it works again");
}

#[test]
fn what_has_failed_is_not_said_to_have_lost_nothing_in_so_many_changes() {
    let error = |groups_lost| CloseError { reason: "a thread of the disk has panicked".to_owned(), groups_lost };
    assert_eq!(error(0).to_string(), "a thread of the disk has panicked; all changes are on the disk");
    let expected = "the last 2 changes may not be on the disk: a thread of the disk has panicked";
    assert_eq!(error(2).to_string(), expected);
}
