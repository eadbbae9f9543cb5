//! Backups of directories in use, on a real file system and in memory.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use acteon_engine::Expiry;

use super::lab::{Ends, History, Lab, PATIENCE, config, new_engine};
use crate::backup::{Backup, BackupError, back_up, backup_of};
use crate::config::Fsync;
use crate::disk::Disk;
use crate::manifest::{MANIFEST, Manifest, Named};
use crate::simulation::{Directory, Random};
use crate::storage::{File, Files, Lock, LockError, Storage};
use crate::verify::verify;

/// A backup must open by itself, with what the engine held at its position.
fn check(path: &Path, backup: &Backup, history: &History) {
    let (files, engine) = (Files::open(path).expect("there"), new_engine());
    let report = verify(&files, Some(&engine)).expect("free");
    assert!(report.is_sound() && report.left_over.is_empty() && report.torn.is_none(), "{report}");
    assert_eq!(report.position, backup.position);
    assert_eq!(report.files.iter().map(|file| file.bytes).sum::<u64>(), backup.bytes);
    assert_eq!(engine.digest(0), history.digest_at(backup.position));
}

#[test]
fn backup_under_writes_opens_with_what_there_was_at_one_moment() {
    let (directory, history) = (Directory::new(1), History::default());
    let lab = Lab::open(&directory, config(Fsync::EverySecond), &history).expect("new");
    let folder = tempfile::tempdir().expect("a folder");
    let ends = Ends::default();
    thread::scope(|scope| {
        for number in 0..2 {
            let (lab, ends) = (&lab, &ends);
            scope.spawn(move || {
                let mut random = Random(number);
                while !ends.is_so() {
                    lab.write(&mut random);
                    if random.below(100) == 0 {
                        let _ = lab.disk.start_rewrite();
                    }
                }
            });
        }
        let _later = ends.later();
        for number in 0..10 {
            let before = lab.engine.log_position();
            let path = folder.path().join(number.to_string());
            let backup = lab.disk.backup(&path).expect("a backup");
            assert!(backup.position >= before);
            check(&path, &backup, &history);
            assert!(matches!(lab.disk.backup(&path), Err(BackupError::NotEmpty)));
        }
    });
}

#[test]
fn backup_on_one_file_system_shares_the_base_and_nothing_that_is_written_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = Arc::new(Files::create(folder.path().join("data")).expect("created"));
    let engine = new_engine();
    let (disk, loaded) = Disk::open(files, &engine, config(Fsync::Always), 0).expect("new");
    assert!(loaded.is_new);
    let set = |key: &[u8]| engine.update(key, 1, |slot| slot.set_str(&[b"v"], Expiry::Clear)).expect("no bound");
    set(b"first");
    disk.rewrite().expect("rewritten");
    set(b"second");
    let backup = disk.backup(&folder.path().join("backup")).expect("a backup");
    assert!(backup.is_base_linked);
    assert_eq!(backup.position, 2);
    let digest = engine.digest(0);
    set(b"third");
    disk.rewrite().expect("rewritten");
    disk.close().expect("closed");
    for _ in 0..2 {
        let copy = new_engine();
        let files = Arc::new(Files::open(folder.path().join("backup")).expect("there"));
        let (disk, loaded) = Disk::open(files, &copy, config(Fsync::Always), 0).expect("whole");
        assert_eq!((loaded.keys, loaded.groups, loaded.position), (1, 1, 2));
        assert_eq!(copy.digest(0), digest);
        disk.close().expect("closed");
    }
}

/// Another process has the directory, writes and rewrites all the time, and knows nothing of the backups.
#[test]
fn backup_from_outside_of_a_directory_in_use_has_all_that_was_acknowledged() {
    const BACKUPS: usize = 40;
    let (folder, history) = (tempfile::tempdir().expect("a folder"), History::default());
    let data = folder.path().join("data");
    let files = Arc::new(Files::create(&data).expect("created"));
    let lab = Lab::open_in(files, config(Fsync::Always), &history).expect("new");
    let (ends, mut names) = (Ends::default(), std::collections::BTreeSet::new());
    thread::scope(|scope| {
        for number in 0..2 {
            let (lab, ends) = (&lab, &ends);
            scope.spawn(move || {
                let _later = ends.later();
                let mut random = Random(number);
                while !ends.is_so() {
                    lab.write(&mut random);
                    if random.below(3) == 0 {
                        assert!(lab.acknowledge());
                    }
                }
            });
        }
        scope.spawn(|| {
            let _later = ends.later();
            while !ends.is_so() {
                lab.disk.rewrite().expect("rewritten");
            }
        });
        let _later = ends.later();
        for number in 0..BACKUPS {
            let acknowledged = lab.acknowledged.load(Ordering::Relaxed);
            let path = folder.path().join(number.to_string());
            let backup = backup_of(&data, &path).expect("a backup");
            assert!(backup.position >= acknowledged, "{backup:?}, and {acknowledged} groups were acknowledged");
            check(&path, &backup, &history);
            let manifest = fs::read(path.join(MANIFEST)).expect("there");
            names.extend(Manifest::decode(&manifest).expect("whole").base.map(|base| base.number));
            assert!(matches!(backup_of(&data, &path), Err(BackupError::NotEmpty)));
        }
    });
    assert!(names.len() > 1, "it was rewritten in between: {names:?}");
    lab.disk.close().expect("closed");
    let path = folder.path().join("closed");
    let backup = backup_of(&data, &path).expect("a backup");
    assert_eq!(backup.position, history.len());
    check(&path, &backup, &history);
}

/// A directory that is rewritten whenever somebody looks at its base, for some times.
struct Restless<'a> {
    directory: Directory,
    lab: &'a Lab,
    times: AtomicU32,
}

impl Storage for Restless<'_> {
    fn len(&self, name: &str) -> io::Result<u64> {
        let is_left = |times: u32| times.checked_sub(1);
        if Named::of(name).base().is_some()
            && self.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_left).is_ok()
        {
            self.lab.set("restless", name);
            self.lab.disk.rewrite().expect("rewritten");
        }
        self.directory.len(name)
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send + '_>> {
        self.directory.read(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        panic!("a backup creates nothing here, nor {name}")
    }

    fn open_to_append(&self, name: &str) -> io::Result<Box<dyn File>> {
        panic!("a backup writes nothing here, nor to {name}")
    }

    fn rename(&self, from: &str, _: &str) -> io::Result<()> {
        panic!("a backup renames nothing here, nor {from}")
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        panic!("a backup removes nothing here, nor {name}")
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.directory.list()
    }

    fn sync_directory(&self) -> io::Result<()> {
        panic!("a backup syncs nothing here")
    }

    fn lock(&self) -> Result<Lock, LockError> {
        panic!("a backup locks nothing here")
    }
}

#[test]
fn backup_begins_anew_while_files_are_replaced_and_gives_up_at_last() {
    let (directory, history) = (Directory::new(1), History::default());
    let lab = Lab::open(&directory, config(Fsync::Always), &history).expect("new");
    lab.set("first", "text");
    lab.disk.rewrite().expect("rewritten");
    let folder = tempfile::tempdir().expect("a folder");
    let from = |times| Restless { directory: directory.clone(), lab: &lab, times: AtomicU32::new(times) };
    let path = folder.path().join("in the end");
    let backup = back_up(&from(5), &Files::create(&path).expect("created")).expect("a backup");
    assert_eq!(backup.position, 6);
    check(&path, &backup, &history);
    let never = Files::create(folder.path().join("never")).expect("created");
    assert!(matches!(back_up(&from(u32::MAX), &never), Err(BackupError::Changing)));
    assert!(never.list().expect("listed").is_empty());
}

/// Without the end that is being written or was never finished; with an error if it is anything else.
#[test]
fn backup_leaves_out_a_torn_end_and_refuses_what_is_damaged() {
    let (directory, history) = (Directory::new(1), History::default());
    let lab = Lab::open(&directory, config(Fsync::Always), &history).expect("new");
    (0..5).for_each(|number| lab.set(&format!("k{number}"), "text"));
    lab.disk.rewrite().expect("rewritten");
    (0..5).for_each(|number| lab.set(&format!("k{number}"), "more"));
    lab.disk.sync(PATIENCE).expect("synced");
    let manifest = Manifest::decode(&directory.get(MANIFEST).expect("there")).expect("whole");
    let (journal, base) = (manifest.journals[0].file(), manifest.base.expect("rewritten").file());
    let folder = tempfile::tempdir().expect("a folder");
    let whole = directory.get(&journal).expect("there");
    let mut positions = std::collections::BTreeSet::new();
    for len in 24..=whole.len() {
        let (cut, path) = (directory.killed(), folder.path().join(len.to_string()));
        cut.put(&journal, &whole[..len]);
        let backup = back_up(&cut, &Files::create(&path).expect("created")).expect("a backup");
        check(&path, &backup, &history);
        positions.insert(backup.position);
    }
    assert_eq!(positions.len(), 6);
    for file in [journal, base] {
        let (flipped, path) = (directory.killed(), folder.path().join(&file));
        let mut bytes = directory.get(&file).expect("there");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        flipped.put(&file, &bytes);
        let to = Files::create(&path).expect("created");
        let error = back_up(&flipped, &to).expect_err("damaged");
        assert!(matches!(&error, BackupError::Damaged(problem) if problem.file == file), "{error}");
        assert!(!to.list().expect("listed").contains(&MANIFEST.to_owned()));
        Storage::remove(&flipped, &file).expect("there");
        let to = Files::create(path.join("without")).expect("created");
        assert!(matches!(back_up(&flipped, &to), Err(BackupError::Damaged(_))));
    }
    let nothing = back_up(&Directory::new(2), &Files::create(folder.path().join("none")).expect("created"));
    assert!(matches!(nothing, Err(BackupError::Nothing)));
}

/// A backup held the lock on removing files for as long as it copied: the rewriting that follows a failed sync had to wait, and writes were
/// refused.
#[test]
fn backup_waits_for_no_rewriting_and_no_rewriting_for_a_backup() {
    let (directory, history) = (Directory::new(1), History::default());
    let lab = Lab::open(&directory, config(Fsync::Always), &history).expect("new");
    lab.set("first", "text");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("backup");
    let backup = {
        let _files = lab.disk.shared().files.lock();
        lab.disk.backup(&path).expect("a backup")
    };
    check(&path, &backup, &history);
}

/// What is missing at the end was taken for what a crash had cut off, and the backup was finished without it.
#[test]
fn journal_that_ends_before_what_was_synced_is_not_backed_up() {
    let (directory, history) = (Directory::new(1), History::default());
    let lab = Lab::open(&directory, config(Fsync::Always), &history).expect("new");
    lab.set("first", "text");
    lab.set("second", "text");
    lab.disk.close().expect("closed");
    let bytes = directory.get("journal.1").expect("there");
    directory.put("journal.1", &bytes[..bytes.len() - 1]);
    let folder = tempfile::tempdir().expect("a folder");
    let to = Files::create(folder.path().join("backup")).expect("created");
    let refused = back_up(&directory, &to).expect_err("something is missing").to_string();
    assert!(refused.contains("was on the disk up to byte"), "{refused}");
}
