//! Rewriting at any moment, with crashes at each of its steps.

use std::sync::atomic::Ordering;
use std::thread;

use super::lab::{Ends, History, Lab, PATIENCE, config, until};
use crate::config::Fsync;
use crate::manifest::{MANIFEST, Manifest, SYNCED};
use crate::simulation::{Directory, Faults, Random};
use crate::storage::Storage;

/// The machine stops at each operation of a rewriting, one after the other, and comes back in several ways.
#[test]
fn crash_at_any_step_of_rewriting_loses_nothing() {
    for step in 0.. {
        let (directory, history) = (Directory::new(step), History::default());
        let lab = Lab::open(&directory, config(Fsync::Always), &history).expect("new");
        let mut random = Random(step);
        (0..20).for_each(|_| lab.write(&mut random));
        lab.disk.rewrite().expect("rewritten");
        (0..20).for_each(|_| lab.write(&mut random));
        assert!(lab.acknowledge());
        let acknowledged = lab.engine.log_position();
        directory.set_faults(Faults { crash_at: Some(directory.operations() + step), ..Faults::default() });
        let result = lab.disk.rewrite();
        for way in 0..10 {
            let hint = format!("step {step}, way {way}");
            Lab::reopen(&directory.restarted(), &history, &hint).check(&history, acknowledged, &hint);
        }
        if !directory.has_crashed() {
            assert_eq!(result, Ok(()));
            assert!(step > 10, "a rewriting has more steps than {step}");
            return;
        }
    }
}

#[test]
fn rewriting_and_saving_under_writes_lose_nothing_at_any_moment() {
    const REWRITES: usize = 30;
    let (directory, history) = (Directory::new(1), History::default());
    let lab = Lab::open(&directory, config(Fsync::Always), &history).expect("new");
    let ends = Ends::default();
    thread::scope(|scope| {
        for number in 0..3 {
            let (lab, ends) = (&lab, &ends);
            scope.spawn(move || {
                let mut random = Random(number);
                while !ends.is_so() {
                    lab.write(&mut random);
                    if random.below(4) == 0 {
                        assert!(lab.acknowledge());
                    }
                }
            });
        }
        scope.spawn(|| {
            let _later = ends.later();
            for number in 0..REWRITES {
                lab.disk.rewrite().expect("rewritten");
                if number % 5 == 0 {
                    lab.disk.save().expect("saved");
                }
            }
        });
        let _later = ends.later();
        while !ends.is_so() {
            let acknowledged = lab.acknowledged.load(Ordering::Relaxed);
            let crashed = Lab::reopen(&directory.restarted(), &history, "crashed");
            crashed.check(&history, acknowledged, "crashed");
        }
    });
    let statistics = lab.disk.statistics();
    assert_eq!((statistics.rewrite.ended, statistics.rewrite.last_failure), (REWRITES as u64, None));
    lab.disk.close().expect("closed");
    assert_tidy(&directory);
    Lab::reopen(&directory, &history, "closed").check(&history, history.len(), "closed");
}

/// Nothing is left over but what counts.
fn assert_tidy(directory: &Directory) {
    let manifest = Manifest::decode(&directory.get(MANIFEST).expect("there")).expect("whole");
    assert_eq!(manifest.journals.len(), 1);
    let mut expected = vec![MANIFEST.to_owned(), SYNCED.to_owned(), "dump.rdb".to_owned(), manifest.journals[0].file()];
    expected.extend(manifest.base.map(|base| base.file()));
    expected.sort();
    let mut names = directory.list().expect("listed");
    names.sort();
    assert_eq!(names, expected);
}

#[test]
fn rewriting_that_fails_changes_nothing_and_may_be_repeated() {
    let (directory, history) = (Directory::new(9), History::default());
    let lab = Lab::open(&directory, config(Fsync::Always), &history).expect("new");
    let mut random = Random(3);
    for round in 0..300 {
        directory.set_faults(Faults { fails_name: Some(4), ..Faults::default() });
        lab.write(&mut random);
        lab.acknowledge();
        let result = lab.disk.rewrite();
        directory.set_faults(Faults::default());
        lab.set("after", &round.to_string());
        // The journal may have been given up, and the new files of a rewriting that has failed may still come.
        until("an acknowledgement", || lab.acknowledge());
        if result.is_err() && round % 10 == 0 {
            until("a rewriting without a failure", || lab.disk.rewrite().is_ok());
        }
        let hint = format!("round {round}");
        Lab::reopen(&directory.restarted(), &history, &hint).check(&history, history.len(), &hint);
    }
    let statistics = lab.disk.statistics();
    assert!(statistics.rewrite.ended > 300, "{statistics:?}");
}

#[test]
fn saved_snapshot_takes_the_place_of_the_old_one_as_a_whole() {
    for step in 0.. {
        let (directory, history) = (Directory::new(step), History::default());
        let lab = Lab::open(&directory, config(Fsync::No), &history).expect("new");
        lab.set("k", "old");
        lab.disk.save().expect("saved");
        let old = lab.engine.digest(0);
        lab.set("k", "new");
        let new = lab.engine.digest(0);
        assert_eq!(lab.disk.statistics().changes_since_save, 1);
        lab.disk.sync(PATIENCE).expect("synced");
        directory.set_faults(Faults { crash_at: Some(directory.operations() + step), ..Faults::default() });
        let result = lab.disk.save();
        // A directory with nothing but the dump begins with it.
        for _ in 0..5 {
            let fresh = Directory::new(1);
            fresh.put("dump.rdb", &directory.restarted().get("dump.rdb").expect("there"));
            let loaded = Lab::open(&fresh, config(Fsync::No), &History::default()).expect("whole");
            assert!(loaded.loaded.is_from_dump && [old, new].contains(&loaded.engine.digest(0)));
            if result.is_ok() {
                assert_eq!(loaded.engine.digest(0), new);
            }
        }
        if !directory.has_crashed() {
            assert_eq!(lab.disk.statistics().changes_since_save, 0);
            return;
        }
    }
}
