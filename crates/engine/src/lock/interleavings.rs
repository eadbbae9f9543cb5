//! The orders in which threads can take segments, tried by a model checker.
//!
//! `cargo xtask test --only interleavings` runs this.
//! A circle of waiting shows as a deadlock, which the checker reports with the schedule that leads there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shuttle::thread;

use super::{Contended, Databases, Locked, PATIENCE, Place, Places};
use crate::config::EngineConfig;
use crate::keyspace::Engine;

/// Schedules that are tried per test.
const SCHEDULES: usize = 20_000;

/// Segments of each of two databases.
const SEGMENTS: usize = 2;

/// Segments, and who says to have them.
struct Lab {
    databases: Databases,
    taken: [AtomicBool; 2 * SEGMENTS],
}

impl Lab {
    fn new() -> Arc<Self> {
        let config = EngineConfig { segments: SEGMENTS, hash_seed: Some(1), ..EngineConfig::default() };
        let databases = Databases::new(Engine::new(config), 2);
        databases.get(1);
        Arc::new(Self { databases, taken: Default::default() })
    }

    /// Holds segments for a moment, trying again as clients do.
    fn command(&self, numbers: &[usize]) {
        loop {
            match Locked::acquire(&self.databases, places(numbers), PATIENCE) {
                Ok(_locked) => return self.enjoy(numbers),
                Err(Contended) => thread::yield_now(),
            }
        }
    }

    /// Holds one segment, then another one as well. Returns whether it got that.
    fn script(&self, first: usize, second: usize) -> bool {
        let mut locked = loop {
            match Locked::acquire(&self.databases, places(&[first]), PATIENCE) {
                Ok(locked) => break locked,
                Err(Contended) => thread::yield_now(),
            }
        };
        self.take(first);
        let has_both = locked.escalate(place(second)).is_ok();
        if has_both {
            self.enjoy(&[second]);
        }
        self.leave(first);
        has_both
    }

    fn enjoy(&self, numbers: &[usize]) {
        let numbers: BTreeSet<usize> = numbers.iter().copied().collect();
        numbers.iter().for_each(|number| self.take(*number));
        thread::yield_now();
        numbers.iter().for_each(|number| self.leave(*number));
    }

    fn take(&self, number: usize) {
        assert!(!self.taken[number].swap(true, Ordering::SeqCst), "somebody else holds segment {number}");
    }

    fn leave(&self, number: usize) {
        self.taken[number].store(false, Ordering::SeqCst);
    }
}

fn place(number: usize) -> Place {
    Place::new(number / SEGMENTS, number % SEGMENTS)
}

fn places(numbers: &[usize]) -> Places {
    numbers.iter().map(|number| place(*number)).collect()
}

/// Runs three threads in many orders.
fn explore(work: [fn(&Lab); 3]) {
    shuttle::check_random(
        move || {
            let lab = Lab::new();
            let spawn = |work: fn(&Lab)| {
                let lab = lab.clone();
                thread::spawn(move || work(&lab))
            };
            for handle in work.map(spawn) {
                handle.join().expect("no thread panics");
            }
        },
        SCHEDULES,
    );
}

#[test]
fn segments_named_in_any_order_are_held_by_one_at_a_time() {
    explore([|lab| lab.command(&[3, 0, 1]), |lab| lab.command(&[1, 3]), |lab| lab.command(&[2, 1, 0, 2])]);
}

#[test]
fn a_script_gets_an_undeclared_key_from_whoever_waits_for_its_own() {
    explore([|lab| assert!(lab.script(3, 0)), |lab| lab.command(&[0, 1, 2, 3]), |lab| lab.command(&[0, 3])]);
}

#[test]
fn two_scripts_that_want_the_segment_of_each_other_both_end() {
    explore([|lab| _ = lab.script(0, 3), |lab| _ = lab.script(3, 0), |lab| lab.command(&[0, 3])]);
}
