//! Directories that were cut off, changed, or lack something.

use super::lab::{History, Lab, PATIENCE, config, new_engine, until};
use super::named::Named;
use crate::config::Fsync;
use crate::crc32c;
use crate::disk::{Disk, OpenError};
use crate::format::{HEADER_BYTES, RECORD_HEADER_BYTES, frame, header, seal};
use crate::manifest::{DUMP, Journal, MANIFEST, Manifest, SYNCED};
use crate::problem::{Problem, ProblemKind, Remedy};
use crate::simulation::{Directory, Faults, Random};
use crate::storage::Storage;
use crate::verify::{Found, look, repair, verify};
use std::io;
use std::sync::Arc;

/// A closed directory with a base, and journals after it.
fn directory() -> (Directory, History) {
    let (directory, history) = (Directory::new(7), History::default());
    let lab = Lab::open(&directory, config(Fsync::No), &history).expect("new");
    let mut random = Random(11);
    (0..15).for_each(|_| lab.write(&mut random));
    lab.disk.rewrite().expect("rewritten");
    for number in 0..6 {
        lab.set(&format!("k{number}"), &"v".repeat(number));
    }
    lab.disk.close().expect("closed");
    (directory, history)
}

fn manifest(directory: &Directory) -> Manifest {
    Manifest::decode(&directory.get(MANIFEST).expect("there")).expect("whole")
}

/// A copy with another file.
fn with(directory: &Directory, file: &str, bytes: &[u8]) -> Directory {
    let copy = directory.killed();
    copy.put(file, bytes);
    copy
}

fn problem_of(directory: &Directory) -> crate::problem::Problem {
    match Disk::open(Arc::new(directory.clone()), &new_engine(), config(Fsync::No), 0) {
        Err(OpenError::Problem(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn journal_that_is_cut_at_any_byte_opens_with_the_groups_that_are_whole() {
    let (directory, history) = directory();
    // As a process leaves it that was killed: what was synced ends nowhere but behind it.
    Storage::remove(&directory, SYNCED).expect("closed");
    let last = *manifest(&directory).journals.last().expect("there");
    let bytes = directory.get(&last.file()).expect("there");
    let mut seen = std::collections::BTreeSet::new();
    for len in HEADER_BYTES..bytes.len() {
        let cut = with(&directory, &last.file(), &bytes[..len]);
        let report = verify(&cut, Some(&new_engine())).expect("free");
        assert!(report.is_sound(), "{report}");
        let lab = Lab::reopen(&cut, &history, &format!("{len} bytes"));
        lab.check(&history, last.first_position, &format!("{len} bytes"));
        seen.insert(lab.loaded.position);
        assert_eq!(report.position, lab.loaded.position);
        assert_eq!(report.torn.map(|torn| torn.bytes), lab.loaded.torn.as_ref().map(|torn| torn.bytes));
        if let Some(torn) = &lab.loaded.torn {
            assert_eq!((torn.offset + torn.bytes) as usize, len);
            let aside = cut.get(torn.kept_as.as_ref().expect("kept")).expect("there");
            assert_eq!(aside, bytes[torn.offset as usize..len]);
            assert_eq!(lab.disk.statistics().dropped_at_start_bytes, torn.bytes);
        }
        let position = lab.loaded.position;
        history.truncate(position);
        lab.set("more", "text");
        lab.disk.close().expect("closed");
        let again = Lab::reopen(&cut, &history, "again");
        assert_eq!((again.loaded.position, &again.loaded.torn), (position + 1, &None));
        again.check(&history, position + 1, "again");
        again.disk.close().expect("closed");
        // For the next round: what was appended here is no part of it.
        restore(&history, &directory);
    }
    assert_eq!(seen.len(), 6, "every number of whole groups was met");
}

/// What was synced is not lost in a crash. Where it is gone all the same, it was taken for a record that was being written: left out, cut off, and
/// never mentioned if the journal happened to end with a whole one.
#[test]
fn journal_that_ends_before_what_was_synced_is_refused_and_changed_only_by_a_repair() {
    let (directory, history) = directory();
    let last = *manifest(&directory).journals.last().expect("there");
    let (bytes, mark) = (directory.get(&last.file()).expect("there"), directory.get(SYNCED));
    for len in HEADER_BYTES..bytes.len() {
        for zeros in [0, 600] {
            let hint = format!("{len} bytes and {zeros} zeros");
            let short = [&bytes[..len], &vec![0; zeros]].concat();
            let cut = with(&directory, &last.file(), &short);
            let before = cut.list().expect("listed");
            let problem = problem_of(&cut);
            let ProblemKind::Damaged(what) = &problem.kind else { panic!("{hint}: {problem}") };
            // Zeros that begin within a sector are none that a crash has left, whatever was synced.
            assert!(zeros > 0 || what.contains("was on the disk up to byte"), "{hint}: {problem}");
            assert!(
                problem.file == last.file() && problem.offset.is_some_and(|at| at <= short.len() as u64),
                "{hint}: {problem}"
            );
            assert_eq!((cut.list().expect("listed"), cut.get(SYNCED)), (before, mark.clone()), "{hint}");
            assert_eq!(cut.get(&last.file()), Some(short), "{hint}");
            let report = verify(&cut, Some(&new_engine())).expect("free");
            assert_eq!((report.problems.len(), report.position), (1, history_before(&problem, &directory)), "{hint}");
            let repaired = repair(&cut).expect("mended");
            assert_eq!(repaired.problems.len(), 1, "{hint}");
            let lab = Lab::reopen(&cut, &history, &hint);
            assert_eq!((lab.loaded.position, &lab.loaded.torn), (repaired.position, &None), "{hint}");
            lab.check(&history, report.position, &hint);
        }
    }
}

/// How many groups come before a problem in the last journal.
fn history_before(problem: &Problem, directory: &Directory) -> u64 {
    let last = *manifest(directory).journals.last().expect("there");
    crate::synced::position_at(directory, &last, problem.offset.expect("a place")).expect("whole")
}

/// Reads the groups of a directory again.
fn restore(history: &History, directory: &Directory) {
    let mut groups = Vec::new();
    for journal in manifest(directory).journals {
        let read = crate::contents::read_journal(directory, &journal, |_, group| {
            groups.push(group.to_vec());
            Ok(())
        });
        read.expect("whole");
    }
    history.truncate(manifest(directory).journals[0].first_position);
    history.extend(groups);
}

#[test]
fn flipped_bit_is_found_wherever_it_is() {
    let (directory, _) = directory();
    let manifest = manifest(&directory);
    let mut files = vec![MANIFEST.to_owned(), manifest.base.expect("rewritten").file()];
    files.extend(manifest.journals.iter().map(Journal::file));
    for file in files {
        let mut bytes = directory.get(&file).expect("there");
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let flipped = with(&directory, &file, &bytes);
            let report = verify(&flipped, None).expect("free");
            assert!(!report.is_sound(), "{file}, bit {bit}: {report}");
            let problem = problem_of(&flipped);
            assert!(problem.file == file, "{file}, bit {bit}: {problem}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

/// What is cut out, put in or overwritten at random is found, or was the end of the journal; and what is mended opens.
#[test]
fn directory_that_was_changed_at_random_is_refused_or_holds_a_beginning() {
    const ROUNDS: u64 = 2_000;
    let (directory, history) = directory();
    let manifest = manifest(&directory);
    let mut files = vec![MANIFEST.to_owned(), manifest.base.expect("rewritten").file()];
    files.extend(manifest.journals.iter().map(Journal::file));
    let mut opened = 0;
    for seed in 0..ROUNDS {
        let mut random = Random(seed);
        let changed = directory.killed();
        if seed % 2 == 0 {
            // Otherwise a journal that was cut is never taken for one that a crash has cut.
            Storage::remove(&changed, SYNCED).expect("closed");
        }
        for _ in 0..1 + random.below(2) {
            let file = &files[random.below(files.len())];
            let mut bytes = changed.get(file).expect("there");
            let (from, len) = (random.below(bytes.len()), random.below(40));
            let to = (from + len).min(bytes.len());
            match random.below(4) {
                0 => bytes.truncate(from),
                1 => drop(bytes.drain(from..to)),
                2 => drop(bytes.splice(from..from, (0..len).map(|_| random.next() as u8))),
                _ => bytes[from..to].fill_with(|| random.next() as u8),
            }
            changed.put(file, &bytes);
        }
        let engine = new_engine();
        let is_sound = verify(&changed, None).expect("free").is_sound();
        let hint = format!("seed {seed}");
        match Lab::open(&changed.killed(), config(Fsync::No), &history) {
            Ok(lab) => {
                opened += 1;
                assert!(is_sound, "{hint}");
                lab.check(&history, manifest.journals[0].first_position, &hint);
            }
            Err(error) => assert!(!is_sound, "{hint}: {error}"),
        }
        if repair(&changed).is_ok() {
            let (disk, loaded) = Disk::open(Arc::new(changed), &engine, config(Fsync::No), 0).expect("mended");
            assert_eq!(engine.digest(0), history.digest_at(loaded.position), "{hint}");
            disk.close().expect("closed");
        }
    }
    assert!(opened > 50, "{opened}");
}

#[test]
fn refusal_names_the_file_and_the_place() {
    let (directory, _) = directory();
    let last = *manifest(&directory).journals.last().expect("there");
    let mut bytes = directory.get(&last.file()).expect("there");
    bytes[HEADER_BYTES + RECORD_HEADER_BYTES] ^= 1;
    let problem = problem_of(&with(&directory, &last.file(), &bytes)).to_string();
    let expected =
        format!("{}, byte {HEADER_BYTES}: damaged: a record of full length has a wrong checksum", last.file());
    assert_eq!(problem, expected);
}

/// Whatever was wrong, `--repair` was offered, also in its own report, and for a base, which it cannot mend.
#[test]
fn repair_is_the_remedy_of_what_it_can_mend() {
    let (directory, _) = directory();
    let (base, last) = (manifest(&directory).base.expect("rewritten").file(), manifest(&directory).journals[0].file());
    let mut bytes = directory.get(&last).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let without = |file: &str| {
        let copy = directory.killed();
        Storage::remove(&copy, file).expect("there");
        copy
    };
    for (broken, remedy) in [
        (with(&directory, &last, &bytes), Remedy::Repair),
        (with(&directory, MANIFEST, b"acteon"), Remedy::Repair),
        (without(MANIFEST), Remedy::Repair),
        (without(&last), Remedy::Repair),
        (with(&directory, &base, b"REDIS0010"), Remedy::Backup),
        (without(&base), Remedy::Backup),
    ] {
        let report = verify(&broken, Some(&new_engine())).expect("free");
        let remedies: Vec<_> = report.problems.iter().map(Problem::remedy).collect();
        assert_eq!(remedies, [remedy], "{report}");
        assert_eq!(repair(&broken).is_ok(), remedy == Remedy::Repair, "{report}");
    }
}

/// Each group of it is whole, so that a repair leaves all as it is.
#[test]
fn change_of_a_key_that_is_not_there_is_nothing_for_a_repair() {
    let (saved, history) = (Directory::new(1), History::default());
    let lab = Lab::open(&saved, config(Fsync::No), &history).expect("new");
    lab.set("a", "text");
    assert!(lab.engine.update(b"a", 1, |slot| slot.remove()));
    lab.disk.close().expect("closed");
    let mut groups = Vec::new();
    let (mut records, first) = (Vec::new(), manifest(&saved).journals[0]);
    let read = crate::contents::read_journal(&saved, &first, |_, group| {
        groups.push(group.to_vec());
        Ok(())
    });
    read.expect("whole");
    frame(&groups[1], &mut records);
    seal(&mut records, 0);
    let journal: Vec<u8> = header(0).into_iter().chain(records).collect();
    let broken = with(&saved, &first.file(), &journal);
    Storage::remove(&broken, SYNCED).expect("of another journal");
    let problem = problem_of(&broken);
    assert!(matches!(problem.kind, ProblemKind::Change { position: 0, .. }), "{problem}");
    assert_eq!(problem.remedy(), Remedy::Backup);
    assert!(repair(&broken).expect("free").problems.is_empty());
}

/// It was taken for one that nobody uses.
#[test]
fn directory_in_which_nothing_can_be_written_is_read_and_said_to_be_in_use_perhaps() {
    let (directory, _) = directory();
    for why in [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem] {
        let report = verify(&Named::denying(&directory, "theirs", why), None).expect("readable");
        assert!(report.is_sound() && report.may_be_in_use, "{report}");
        assert!(report.to_string().contains("not locked, since nothing can be written here"), "{report}");
    }
    let other = Named::denying(&directory, "broken", io::ErrorKind::InvalidInput);
    assert!(matches!(verify(&other, None), Err(OpenError::Problem(_))));
    let report = verify(&Named::new(&directory, "ours"), None).expect("free");
    assert!(!report.may_be_in_use && !report.to_string().contains("not locked"), "{report}");
}

/// A stream, which the engine has not: a repair was offered.
#[test]
fn dump_of_a_redis_with_what_the_engine_has_not_is_to_be_imported() {
    let directory = Directory::new(1);
    directory.put(DUMP, b"REDIS0009\xfe\x00\x0f\x01s");
    let problem = problem_of(&directory);
    assert!(problem.to_string().contains("a stream cannot be held here"), "{problem}");
    assert_eq!(problem.remedy(), Remedy::Import);
    directory.put(DUMP, b"REDIS0009\xfe");
    assert_eq!(problem_of(&directory).remedy(), Remedy::Backup);
}

/// It was taken for all that there is, and what the append-only files had after it was lost without a word.
#[test]
fn dump_of_a_redis_that_has_newer_files_beside_it_is_not_begun_with() {
    let dump = {
        let (saved, history) = directory();
        let lab = Lab::reopen(&saved, &history, "to be saved");
        lab.disk.save().expect("saved");
        saved.get(DUMP).expect("saved")
    };
    for log in ["appendonlydir", "appendonly.aof"] {
        let directory = Directory::new(1);
        directory.put(DUMP, &dump);
        directory.put(log, b"");
        let problem = problem_of(&directory);
        assert!(matches!(problem.kind, ProblemKind::OlderDump), "{problem}");
        assert_eq!(problem.remedy(), Remedy::Import);
        assert!(!verify(&directory, None).expect("free").is_sound());
        Storage::remove(&directory, log).expect("there");
        assert!(verify(&directory, None).expect("free").is_sound());
    }
}

/// It is written by `SAVE`, and nobody reads it at the start: still everything was refused because of it.
#[test]
fn damaged_dump_beside_a_manifest_is_reported_and_stops_nothing() {
    let (directory, history) = directory();
    let broken = with(&directory, DUMP, b"REDIS0010");
    let report = verify(&broken, Some(&new_engine())).expect("free");
    assert!(report.is_sound(), "{report}");
    assert_eq!(report.dump_problem.as_ref().map(|problem| problem.file.as_str()), Some(DUMP));
    assert!(report.to_string().contains("does not keep the directory from being used"), "{report}");
    Lab::reopen(&broken, &history, "damaged dump").check(&history, history.len(), "damaged dump");
    let alone = Directory::new(1);
    alone.put(DUMP, b"REDIS0010");
    let report = verify(&alone, None).expect("free");
    assert!(!report.is_sound() && report.dump_problem.is_none(), "{report}");
}

/// An empty place was "sound, up to group 0".
#[test]
fn directory_that_never_was_one_of_an_engine_is_no_sound_one() {
    let empty = Directory::new(1);
    for file in [None, Some("notes.txt")] {
        if let Some(file) = file {
            empty.put(file, b"text");
        }
        assert_eq!(look(&empty).expect("listed"), Found::Nothing);
        assert!(matches!(verify(&empty, None), Err(OpenError::Foreign)));
        assert!(matches!(repair(&empty), Err(OpenError::Foreign)));
    }
    for (file, found) in [(DUMP, Found::Dump), ("journal.1", Found::Unfinished), (MANIFEST, Found::Engine)] {
        empty.put(file, b"");
        assert_eq!(look(&empty).expect("listed"), found);
    }
}

#[test]
fn files_of_a_newer_version_are_refused_as_such() {
    let (directory, _) = directory();
    let lines = "acteon-journal 2\nsomething\n";
    let newer = with(&directory, MANIFEST, format!("{lines}crc {:08x}\n", crc32c::of(lines.as_bytes())).as_bytes());
    assert!(matches!(problem_of(&newer).kind, ProblemKind::Newer(2)));
    assert!(repair(&newer).is_err());
    let last = *manifest(&directory).journals.last().expect("there");
    let mut bytes = header(last.first_position);
    bytes[8] = 3;
    let checksum = crc32c::of(&bytes[..20]);
    bytes[20..].copy_from_slice(&checksum.to_le_bytes());
    let newer = with(&directory, &last.file(), &bytes);
    assert!(matches!(problem_of(&newer).kind, ProblemKind::Newer(3)));
    assert!(repair(&newer).is_err());
}

#[test]
fn directory_that_lacks_a_file_is_refused() {
    let (directory, _) = directory();
    let manifest = manifest(&directory);
    let without = |file: &str| {
        let copy = directory.killed();
        Storage::remove(&copy, file).expect("there");
        problem_of(&copy)
    };
    assert!(matches!(without(&manifest.base.expect("rewritten").file()).kind, ProblemKind::Missing));
    assert!(matches!(without(&manifest.journals[0].file()).kind, ProblemKind::Missing));
    assert!(matches!(without(MANIFEST).kind, ProblemKind::NoManifest));
}

#[test]
fn journal_that_does_not_follow_the_one_before_is_refused() {
    let (directory, _) = directory();
    let mut manifest = manifest(&directory);
    let last = *manifest.journals.last().expect("there");
    let next = Journal { number: last.number + 1, first_position: 1_000 };
    manifest.journals.push(next);
    let gap = with(&directory, MANIFEST, manifest.to_string().as_bytes());
    gap.put(&next.file(), &header(1_000));
    let problem = problem_of(&gap);
    assert!(matches!(problem.kind, ProblemKind::Gap { found: 1_000, .. }), "{problem}");
    // Nor may one be torn that is not the last.
    manifest.journals.pop();
    manifest.journals.push(Journal { first_position: last.first_position + 6, ..next });
    let torn = with(&directory, MANIFEST, manifest.to_string().as_bytes());
    torn.put(&next.file(), &header(last.first_position + 6));
    let mut bytes = directory.get(&last.file()).expect("there");
    drop(Lab::reopen(&torn.killed(), &History::default(), "whole"));
    bytes.push(1);
    torn.put(&last.file(), &bytes);
    assert!(matches!(problem_of(&torn).kind, ProblemKind::Damaged(_)));
}

#[test]
fn repair_keeps_what_comes_before_the_damage_and_the_rest_aside() {
    let (directory, history) = directory();
    let last = *manifest(&directory).journals.last().expect("there");
    let whole = directory.get(&last.file()).expect("there");
    assert!(repair(&directory.killed()).expect("free").problems.is_empty());
    for byte in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[byte] ^= 0x10;
        let broken = with(&directory, &last.file(), &bytes);
        let repaired = repair(&broken).expect("mended");
        assert_eq!(repaired.problems.len(), 1, "byte {byte}");
        assert_eq!(repaired.kept_aside, [format!("{}.damaged", last.file())]);
        let lab = Lab::reopen(&broken, &history, &format!("byte {byte}"));
        assert_eq!(lab.loaded.position, repaired.position, "byte {byte}");
        lab.check(&history, last.first_position, &format!("byte {byte}"));
    }
    let lost = directory.killed();
    Storage::remove(&lost, MANIFEST).expect("there");
    assert!(repair(&lost).expect("mended").has_new_manifest);
    let lab = Lab::reopen(&lost, &history, "without a manifest");
    assert_eq!(lab.loaded.position, history.len());
    lab.check(&history, history.len(), "without a manifest");
    let base = manifest(&directory).base.expect("rewritten").file();
    assert!(repair(&with(&directory, &base, b"REDIS0010")).is_err(), "a base is not mended");
}

/// The machine stops at each step of a repair. Whatever is there afterwards is repaired again, and nothing of what was put aside is gone.
#[test]
fn repair_that_is_interrupted_is_repeated_and_keeps_everything_aside() {
    let (directory, history) = directory_with_three_journals();
    let journals = manifest(&directory).journals;
    let middle = journals[1].file();
    let mut bytes = directory.get(&middle).expect("there");
    let offset = HEADER_BYTES + RECORD_HEADER_BYTES;
    bytes[offset] ^= 1;
    // What must not be lost: the end of the one that is cut, and the whole one behind it.
    let kept = [bytes[HEADER_BYTES..].to_vec(), directory.get(&journals[2].file()).expect("there")];
    for step in 0.. {
        let mut has_crashed = false;
        for way in 0..20 {
            let (broken, hint) = (with(&directory, &middle, &bytes), format!("step {step}, way {way}"));
            broken.set_faults(Faults { crash_at: Some(broken.operations() + step), ..Faults::default() });
            drop(repair(&broken));
            has_crashed = broken.has_crashed();
            let after = if way % 2 == 0 { broken.restarted() } else { broken.killed() };
            repair(&after).unwrap_or_else(|error| panic!("{hint}: {error}"));
            let lab = Lab::reopen(&after, &history, &hint);
            assert_eq!(lab.loaded.position, journals[1].first_position, "{hint}");
            lab.check(&history, journals[1].first_position, &hint);
            let names = after.list().expect("listed");
            for part in &kept {
                let is_kept = |name: &&String| after.get(name).as_ref() == Some(part);
                assert!(names.iter().any(|name| is_kept(&name)), "{hint}: {names:?}");
            }
        }
        if !has_crashed {
            assert!(step > 10, "a repair has more steps than {step}");
            return;
        }
    }
}

/// The manifest is lost, and a process was killed before it had synced the base that is the newest now. Once a repair has made a manifest of it,
/// and the old files are removed, the machine stops.
#[test]
fn what_a_repaired_manifest_names_is_on_the_disk() {
    let (directory, history) = directory();
    let manifest = manifest(&directory);
    for file in [manifest.base.expect("rewritten").file(), manifest.journals[0].file()] {
        let bytes = directory.get(&file).expect("there");
        let mut unsynced = directory.create(&file).expect("created");
        unsynced.append(&bytes).expect("written");
    }
    Storage::remove(&directory, MANIFEST).expect("there");
    repair(&directory).expect("mended");
    for way in 0..20 {
        let hint = format!("way {way}");
        Lab::reopen(&directory.restarted(), &history, &hint).check(&history, history.len(), &hint);
    }
}

/// A second repair of the same journal overwrote what the first had put aside.
#[test]
fn repairs_of_one_journal_keep_what_each_of_them_put_aside() {
    let (directory, _) = directory();
    let last = *manifest(&directory).journals.last().expect("there");
    let whole = directory.get(&last.file()).expect("there");
    let mut kept = Vec::new();
    for round in 0..3 {
        let mut bytes = directory.get(&last.file()).expect("there");
        bytes[HEADER_BYTES + RECORD_HEADER_BYTES] ^= 1 << round;
        directory.put(&last.file(), &bytes);
        let repaired = repair(&directory).expect("mended");
        assert_eq!((repaired.problems.len(), repaired.kept_aside.len()), (1, 1), "round {round}");
        kept.push((repaired.kept_aside[0].clone(), bytes[HEADER_BYTES..].to_vec()));
        directory.put(&last.file(), &whole);
    }
    for (name, bytes) in kept {
        assert_eq!(directory.get(&name), Some(bytes), "{name}");
    }
}

#[test]
fn journal_behind_a_missing_one_is_put_aside_by_a_repair() {
    let (directory, history) = directory_with_three_journals();
    let journals = manifest(&directory).journals;
    Storage::remove(&directory, &journals[1].file()).expect("there");
    let repaired = repair(&directory).expect("mended");
    assert_eq!(repaired.kept_aside, [format!("{}.damaged", journals[2].file())]);
    let lab = Lab::reopen(&directory, &history, "mended");
    assert_eq!(lab.loaded.position, journals[1].first_position);
    lab.check(&history, journals[1].first_position, "mended");
}

/// A rewriting failed after it had created its journal, and before a manifest named it. It begins in the middle of the one that went on, and
/// made a gap when a lost manifest was made again: everything behind it was put aside.
#[test]
fn journal_of_a_failed_rewriting_is_left_out_when_a_manifest_is_made_again() {
    let (directory, history) = directory_with_three_journals();
    let journals = manifest(&directory).journals;
    let number = journals[2].number;
    let moved = Journal { number: number + 1, ..journals[2] };
    directory.put(&moved.file(), &directory.get(&journals[2].file()).expect("there"));
    directory.put(&journals[2].file(), &header(journals[2].first_position - 1));
    Storage::remove(&directory, MANIFEST).expect("there");
    let repaired = repair(&directory).expect("mended");
    assert!(repaired.has_new_manifest && repaired.kept_aside.is_empty(), "{repaired:?}");
    let lab = Lab::reopen(&directory, &history, "mended");
    lab.check(&history, history.len(), "mended");
}

/// A rewriting had written its base, and the manifest that was to name it did not fit the disk. What was acknowledged since went on in the old
/// journal; the base was newer, and was taken for the one that counts, and the rest was removed at the next start.
#[test]
fn manifest_that_is_made_again_names_what_leads_furthest_and_the_rest_is_put_aside() {
    let (directory, history) = directory();
    let (old, before, lost) = (manifest(&directory), directory.killed(), directory.killed());
    let lab = Lab::reopen(&directory, &history, "to be rewritten");
    lab.disk.rewrite().expect("rewritten");
    lab.disk.close().expect("closed");
    let (newer, position) = (manifest(&directory), history.len());
    let base = newer.base.expect("rewritten");
    // The old files, with more behind the cut, and beside them the base that was never named.
    let lab = Lab::reopen(&lost, &history, "goes on");
    (0..3).for_each(|number| lab.set("behind", &number.to_string()));
    lab.disk.close().expect("closed");
    assert_eq!(history.len(), position + 3);
    lost.put(&base.file(), &directory.get(&base.file()).expect("there"));
    lost.put(&newer.journals[0].file(), &header(position));
    Storage::remove(&lost, MANIFEST).expect("there");
    let repaired = repair(&lost).expect("mended");
    assert_eq!(repaired.kept_aside, [format!("{}.damaged", base.file())]);
    let lab = Lab::reopen(&lost, &history, "mended");
    lab.check(&history, history.len(), "mended");
    // Numbers are given again: nothing must be left that is about the files that had them.
    lab.disk.rewrite().expect("rewritten");
    lab.disk.close().expect("closed");
    Lab::reopen(&lost, &history, "again").check(&history, history.len(), "again");
    // With nothing behind the cut, the newer base is as good, and takes less time.
    for file in [old.base.expect("rewritten").file(), old.journals[0].file()] {
        directory.put(&file, &before.get(&file).expect("there"));
    }
    Storage::remove(&directory, MANIFEST).expect("there");
    assert_eq!(repair(&directory).expect("mended").kept_aside.len(), 2);
    assert_eq!(manifest(&directory), newer);
}

/// A base or journal that could not be read was taken for a damaged one, and older files were put in its place.
#[test]
fn manifest_is_not_made_again_while_a_file_cannot_be_read_or_is_of_a_newer_version() {
    let (before, history) = directory();
    let directory = before.killed();
    let lab = Lab::reopen(&directory, &history, "to be rewritten");
    lab.disk.rewrite().expect("rewritten");
    lab.disk.close().expect("closed");
    let newer = manifest(&directory);
    for name in before.list().expect("listed").iter().filter(|name| manifest(&before).names(name) && *name != MANIFEST)
    {
        directory.put(name, &before.get(name).expect("there"));
    }
    Storage::remove(&directory, MANIFEST).expect("there");
    let base = newer.base.expect("rewritten").file();
    let journal = newer.journals[0].file();
    let names = directory.list().expect("listed");
    for file in [&base, &journal] {
        directory.set_faults(Faults { fails_read: Some(file.clone()), ..Faults::default() });
        let Err(OpenError::Problem(problem)) = repair(&directory) else { panic!("{file} was done without") };
        assert_eq!((&problem.file, problem.remedy()), (file, Remedy::Disk));
        assert_eq!(directory.list().expect("listed"), names, "{file}");
    }
    directory.set_faults(Faults::default());
    let mut bytes = directory.get(&journal).expect("there");
    bytes[8] = 3;
    let checksum = crc32c::of(&bytes[..20]);
    bytes[20..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    let of_newer = with(&directory, &journal, &bytes);
    let Err(OpenError::Problem(problem)) = repair(&of_newer) else { panic!("{journal} was done without") };
    assert!(matches!(problem.kind, ProblemKind::Newer(3)) && problem.file == journal, "{problem}");
    assert_eq!(of_newer.list().expect("listed"), names);
    assert!(repair(&directory).expect("mended").has_new_manifest);
    assert_eq!(manifest(&directory), newer);
}

/// The number of a journal that was put aside is given again. What was known of the old one was taken to be about the new one, which is shorter.
#[test]
fn journal_that_has_the_number_of_one_that_was_put_aside_is_not_taken_for_it() {
    let (directory, history) = directory();
    let lab = Lab::reopen(&directory, &history, "three journals");
    (0..2).for_each(|_| rotate(&lab));
    (0..3).for_each(|number| lab.set("put aside", &number.to_string()));
    lab.disk.close().expect("closed");
    let last = *manifest(&directory).journals.last().expect("there");
    let mut bytes = directory.get(&last.file()).expect("there");
    bytes[0] ^= 1;
    directory.put(&last.file(), &bytes);
    Storage::remove(&directory, MANIFEST).expect("there");
    assert_eq!(repair(&directory).expect("mended").kept_aside, [format!("{}.damaged", last.file())]);
    history.truncate(last.first_position);
    let lab = Lab::reopen(&directory, &history, "mended");
    rotate(&lab);
    assert_eq!(manifest(&directory).journals.last(), Some(&last), "the same number");
    lab.set("k", "v");
    assert!(lab.acknowledge());
    Lab::reopen(&directory.killed(), &history, "killed").check(&history, history.len(), "killed");
}

/// As a rewriting that failed after its cut leaves it.
fn directory_with_three_journals() -> (Directory, History) {
    let (directory, history) = directory();
    let lab = Lab::reopen(&directory, &history, "three journals");
    for round in 0..2 {
        rotate(&lab);
        (0..3).for_each(|number| lab.set(&format!("round{round}"), &number.to_string()));
    }
    lab.disk.close().expect("closed");
    assert_eq!(manifest(&directory).journals.len(), 3);
    (directory, history)
}

fn rotate(lab: &Lab) {
    let shared = lab.disk.shared();
    lab.disk.sync(PATIENCE).expect("synced");
    let number = shared.next_number();
    shared.rotate_here(number);
    until("a new file", || shared.manifest.lock().journals.iter().any(|journal| journal.number == number));
}

#[test]
fn directory_has_one_writer() {
    let (directory, history) = directory();
    let lab = Lab::reopen(&directory, &history, "free");
    let second = Disk::open(Arc::new(directory.clone()), &new_engine(), config(Fsync::No), 0);
    assert!(matches!(second, Err(OpenError::InUse(_))));
    assert!(matches!(verify(&directory, None), Err(OpenError::InUse(_))));
    assert!(matches!(repair(&directory), Err(OpenError::InUse(_))));
    drop(lab);
    assert!(verify(&directory, None).expect("free").is_sound());
    let full = new_engine();
    full.update(b"k", 1, |slot| slot.set_str(&[b"v"], acteon_engine::Expiry::Clear)).expect("no bound");
    let opened = Disk::open(Arc::new(directory.clone()), &full, config(Fsync::No), 0);
    assert!(matches!(opened, Err(OpenError::NotEmpty)));
}
