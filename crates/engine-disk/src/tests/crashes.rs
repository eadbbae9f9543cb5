//! Several threads write, and the machine stops at some operation on the disk. What was acknowledged must be there afterwards, and what is there
//! must be what the engine held at one moment.

use std::thread;

use super::lab::{History, Lab, PATIENCE, config, until};
use crate::config::{DiskConfig, Fsync};
use crate::disk::OpenError;
use crate::problem::ProblemKind;
use crate::simulation::{Directory, Faults, Random};
use crate::verify::repair;

/// What a seed decides.
struct Plan {
    random: Random,
    fsync: Fsync,
    threads: usize,
    /// Appends, syncs and names fail as well.
    is_failing: bool,
    /// The journal is rewritten and snapshots are saved meanwhile.
    is_busy: bool,
}

impl Plan {
    fn new(seed: u64, fsync: Fsync) -> Self {
        let mut random = Random(seed);
        let threads = 1 + random.below(3);
        let (is_failing, is_busy) = (random.below(3) == 0, random.below(2) == 0);
        Self { random, fsync, threads, is_failing, is_busy }
    }

    fn faults(&mut self, operations: u64) -> Faults {
        // Few operations make up a short life, and most of what is difficult happens in it.
        let range = [20, 60, 300][self.random.below(3)];
        let crash_at = Some(operations + self.random.below(range) as u64);
        if !self.is_failing {
            return Faults { crash_at, ..Faults::default() };
        }
        Faults {
            crash_at,
            fails_append: Some(8),
            fails_sync: Some(12),
            fails_name: Some(16),
            shortens_append: Some(4),
            ..Faults::default()
        }
    }
}

/// Lives until the machine stops.
fn live(lab: &Lab, plan: &mut Plan, directory: &Directory) {
    const WRITES_MAX: usize = 400;
    thread::scope(|scope| {
        for _ in 0..plan.threads {
            let mut random = Random(plan.random.next());
            let waits = plan.fsync == Fsync::Always;
            scope.spawn(move || {
                for _ in 0..WRITES_MAX {
                    if directory.has_crashed() {
                        break;
                    }
                    if lab.engine.check_writable().is_err() {
                        thread::yield_now();
                        continue;
                    }
                    lab.write(&mut random);
                    if waits && random.below(3) > 0 {
                        lab.acknowledge();
                    }
                }
            });
        }
        if plan.is_busy {
            let mut random = Random(plan.random.next());
            scope.spawn(move || {
                while !directory.has_crashed() && random.below(30) > 0 {
                    match random.below(4) {
                        0 => drop(lab.disk.save()),
                        _ => drop(lab.disk.rewrite()),
                    }
                }
            });
        }
    });
}

fn run(seed: u64, fsync: Fsync) {
    const ROUNDS_MAX: usize = 3;
    let mut plan = Plan::new(seed, fsync);
    // For every fourth one, some changes do not fit the journal.
    let group_bytes_max = if seed.is_multiple_of(4) { 600 } else { usize::MAX };
    let config = DiskConfig { group_bytes_max, ..config(fsync) };
    let (mut directory, history) = (Directory::new(seed), History::default());
    let mut acknowledged = 0;
    for round in 0..=ROUNDS_MAX {
        let hint = format!("seed {seed}, round {round}, {fsync:?}");
        let is_last = round == ROUNDS_MAX;
        if !is_last {
            let faults = plan.faults(directory.operations());
            directory.set_faults(faults);
        }
        match Lab::open(&directory, config.clone(), &history) {
            Ok(lab) => {
                lab.check(&history, acknowledged, &hint);
                // A part of what was not acknowledged is gone for ever.
                history.truncate(lab.loaded.position);
                acknowledged = lab.loaded.position;
                if is_last {
                    return;
                }
                live(&lab, &mut plan, &directory);
                acknowledged = acknowledged.max(lab.acknowledged.into_inner());
            }
            Err(OpenError::Problem(problem)) if matches!(problem.kind, ProblemKind::Io(_)) && !is_last => {}
            Err(error) => panic!("{hint}: {error}; {directory:?}"),
        }
        directory = if plan.random.below(3) == 0 { directory.killed() } else { directory.restarted() };
    }
}

/// A rewriting is killed at each of its steps, before the operating system has written the names of files to the disk. The next process reads
/// them from memory; what it acknowledges must not hang on them when the machine stops.
#[test]
fn what_a_process_acknowledges_after_one_that_was_killed_survives_the_machine() {
    for step in 0.. {
        let (directory, history) = (Directory::new(step), History::default());
        let lab = Lab::open(&directory, config(Fsync::Always), &history).expect("new");
        let mut random = Random(step);
        (0..20).for_each(|_| lab.write(&mut random));
        assert!(lab.acknowledge());
        directory.set_faults(Faults { crash_at: Some(directory.operations() + step), ..Faults::default() });
        drop(lab.disk.rewrite());
        let (has_crashed, killed) = (directory.has_crashed(), directory.killed());
        drop(lab);
        let next = Lab::reopen(&killed, &history, &format!("step {step}"));
        history.truncate(next.loaded.position);
        (0..20).for_each(|_| next.write(&mut random));
        assert!(next.acknowledge());
        for way in 0..20 {
            let hint = format!("step {step}, way {way}");
            Lab::reopen(&killed.restarted(), &history, &hint).check(&history, history.len(), &hint);
        }
        if !has_crashed {
            assert!(step > 10, "a rewriting has more steps than {step}");
            return;
        }
    }
}

/// A sync fails, and the process ends before it has new files. The next one reads what never came to the disk from the memory of the operating
/// system, which says that all is well when it is asked to sync. What is acknowledged then must not lie behind a hole.
#[test]
fn what_a_failed_sync_has_lost_is_written_again_by_the_next_process() {
    for seed in 0..40 {
        let (directory, history) = (Directory::new(seed), History::default());
        let lab = Lab::open(&directory, config(Fsync::Always), &history).expect("new");
        (0..10).for_each(|number| lab.set(&format!("k{number}"), "before"));
        assert!(lab.acknowledge());
        if seed % 2 == 0 {
            // With a mark of what is on the disk.
            lab.disk.close().expect("closed");
        }
        let lab = if seed % 2 == 0 {
            drop(lab);
            Lab::reopen(&directory, &history, "again")
        } else {
            lab
        };
        directory.set_faults(Faults { fails_sync: Some(1), ..Faults::default() });
        (0..5).for_each(|number| lab.set(&format!("k{number}"), "unsynced"));
        assert!(!lab.acknowledge());
        let killed = directory.killed();
        let next = Lab::reopen(&killed, &history, &format!("seed {seed}"));
        history.truncate(next.loaded.position);
        (0..5).for_each(|number| next.set(&format!("k{number}"), "after"));
        assert!(next.acknowledge());
        for way in 0..10 {
            let hint = format!("seed {seed}, way {way}");
            Lab::reopen(&killed.restarted(), &history, &hint).check(&history, history.len(), &hint);
        }
    }
}

/// Pages of what was not synced are written in no order: a hole may have something behind it. That looks like damage, is not opened by itself, and
/// a repair loses nothing that was acknowledged.
#[test]
fn hole_in_what_was_not_synced_is_refused_and_repair_loses_nothing_acknowledged() {
    let mut refused = 0;
    for seed in 0..200 {
        let (directory, history) = (Directory::new(seed), History::default());
        let lab = Lab::open(&directory, config(Fsync::No), &history).expect("new");
        let mut random = Random(seed);
        (0..20).for_each(|_| lab.write(&mut random));
        let acknowledged = lab.disk.sync(PATIENCE).expect("synced");
        (0..20).for_each(|number| lab.set(&format!("k{number}"), &"v".repeat(random.below(900))));
        until("written", || lab.disk.statistics().written_position == history.len());
        let (after, hint) = (directory.restarted_with_holes(), format!("seed {seed}"));
        match Lab::open(&after, config(Fsync::No), &history) {
            Ok(opened) => opened.check(&history, acknowledged, &hint),
            Err(OpenError::Problem(problem)) => {
                assert!(matches!(problem.kind, ProblemKind::Damaged(_)), "{hint}: {problem}");
                repair(&after).expect("mended");
                Lab::reopen(&after, &history, &hint).check(&history, acknowledged, &hint);
                refused += 1;
            }
            Err(error) => panic!("{hint}: {error}"),
        }
    }
    assert!((20..200).contains(&refused), "{refused}");
}

/// Runs the seeds on as many threads as the machine has: they mostly wait for each other.
fn run_all(seeds: u64, fsync: Fsync) {
    let first: u64 = std::env::var("ACTEON_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let count = std::env::var("ACTEON_TEST_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(seeds);
    let workers = 4;
    thread::scope(|scope| {
        for worker in 0..workers {
            scope.spawn(move || (first..first + count).skip(worker).step_by(workers).for_each(|seed| run(seed, fsync)));
        }
    });
}

#[test]
fn nothing_acknowledged_is_lost_under_always_wherever_the_machine_stops() {
    run_all(3_000, Fsync::Always);
}

#[test]
fn what_is_there_under_everysec_and_no_is_what_the_engine_held_at_one_moment() {
    run_all(500, Fsync::EverySecond);
    run_all(500, Fsync::No);
}
