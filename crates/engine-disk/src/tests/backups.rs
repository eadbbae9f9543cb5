//! Backups of directories in use, on a real file system and in memory.

use std::sync::Arc;
use std::thread;

use super::lab::{Ends, History, Lab, config, new_engine};
use crate::backup::BackupError;
use crate::config::Fsync;
use crate::disk::Disk;
use crate::simulation::{Directory, Random};
use crate::storage::Files;
use crate::verify::verify;
use acteon_engine::Expiry;

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
            let files = Files::open(&path).expect("there");
            let engine = new_engine();
            let report = verify(&files, Some(&engine)).expect("free");
            assert!(report.is_sound() && report.left_over.is_empty() && report.torn.is_none(), "{report}");
            assert_eq!(report.position, backup.position);
            assert_eq!(engine.digest(0), history.digest_at(backup.position));
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
