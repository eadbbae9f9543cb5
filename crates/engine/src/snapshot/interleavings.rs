//! The orders in which a cut and writers can meet, tried by a model checker.
//!
//! `cargo xtask test --only interleavings` runs this.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use shuttle::thread;

use crate::change::ChangeLog;
use crate::keyspace::Engine;
use crate::lock::{Contended, Databases, Locked, PATIENCE};
use crate::rdb::{FileFacts, FileWriter, ReadOptions, Reader, Unsupported};
use crate::value::Limits;
use crate::{EngineConfig, Expiry};

/// Schedules that are tried per test.
const SCHEDULES: usize = 5_000;

const NOW_MS: u64 = 1;

#[derive(Default)]
struct Memory {
    // Never held while a thread can be exchanged for another one.
    groups: Mutex<Vec<Vec<u8>>>,
    ends: AtomicU64,
    is_cut: AtomicBool,
    before_cut: AtomicUsize,
}

impl ChangeLog for Memory {
    fn append(&self, group: &[u8]) -> u64 {
        self.groups.lock().push(group.to_vec());
        self.ends.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn is_writable(&self) -> bool {
        true
    }
}

struct Lab {
    databases: Databases,
    log: Arc<Memory>,
}

impl Lab {
    fn new() -> Arc<Self> {
        let engine = Engine::new(EngineConfig { segments: 2, hash_seed: Some(1), ..EngineConfig::default() });
        let databases = Databases::new(engine.clone(), 3);
        databases.get(1);
        let log = Arc::new(Memory::default());
        assert!(engine.attach_log(log.clone()));
        let lab = Arc::new(Self { databases, log });
        for key in 0..4 {
            lab.set(0, key, b"0");
            lab.set(1, key, b"0");
        }
        lab
    }

    fn set(&self, database: usize, key: u8, value: &[u8]) {
        let engine = self.databases.get(database);
        engine.update(&[key], NOW_MS, |slot| slot.set_str(&[value], Expiry::Clear)).expect("no bound is configured");
    }

    /// Changes some keys of two databases at once, as a transaction does.
    fn transaction(&self, value: &[u8]) {
        loop {
            let places = [(0, 0_u8), (0, 3), (1, 1)];
            let held = places.iter().map(|(database, key)| self.databases.place(*database, &[*key])).collect();
            let Ok(mut locked) = Locked::acquire(&self.databases, held, PATIENCE) else {
                thread::yield_now();
                continue;
            };
            for (database, key) in places {
                let mut slot = locked.slot(database, std::slice::from_ref(&key), NOW_MS);
                slot.set_str(&[value], Expiry::Clear).expect("no bound is configured");
                drop(slot);
                thread::yield_now();
            }
            return;
        }
    }

    fn exchange(&self, other: usize) {
        self.databases.get(other);
        loop {
            match Locked::acquire_databases(&self.databases, &[0, other], PATIENCE) {
                Ok(mut locked) => return locked.exchange(0, other),
                Err(Contended) => thread::yield_now(),
            }
        }
    }

    fn empty(&self) {
        loop {
            match Locked::acquire_databases(&self.databases, &[1], PATIENCE) {
                Ok(mut locked) => return drop(locked.clear(1)),
                Err(Contended) => thread::yield_now(),
            }
        }
    }

    /// Cuts, and writes the snapshot out; must lead to what there is in the end.
    fn cut(&self) -> Vec<u8> {
        let mut file = Vec::new();
        let mut writer = FileWriter::begin(&FileFacts::default(), &mut file);
        let on_cut = || {
            self.log.before_cut.store(self.log.groups.lock().len(), Ordering::SeqCst);
            self.log.is_cut.store(true, Ordering::SeqCst);
        };
        for piece in self.databases.first().cut(NOW_MS, on_cut).expect("no other snapshot runs") {
            writer.add(&piece);
            file.extend_from_slice(&piece);
            thread::yield_now();
        }
        file.extend_from_slice(&writer.end());
        file
    }

    fn check(&self, file: &[u8]) {
        assert!(self.log.is_cut.load(Ordering::SeqCst));
        let engine = Engine::new(EngineConfig { segments: 1, ..EngineConfig::default() });
        let options = ReadOptions { unsupported: Unsupported::default(), limits: Limits::default() };
        let mut reader = Reader::open(file, options).expect("it was written just now");
        while let Some(record) = reader.next_record().expect("it was written just now") {
            assert!(engine.load(record));
        }
        for group in &self.log.groups.lock()[self.log.before_cut.load(Ordering::SeqCst)..] {
            engine.apply(group).expect("it fits what was cut");
        }
        assert_eq!(engine.digest(NOW_MS), self.databases.first().digest(NOW_MS));
    }
}

/// Runs two writers beside a cut in many orders.
fn explore(work: [fn(&Lab); 2]) {
    shuttle::check_random(
        move || {
            let lab = Lab::new();
            let spawn = |work: fn(&Lab)| {
                let lab = lab.clone();
                thread::spawn(move || work(&lab))
            };
            let handles = work.map(spawn);
            let file = lab.cut();
            for handle in handles {
                handle.join().expect("no thread panics");
            }
            lab.check(&file);
        },
        SCHEDULES,
    );
}

#[test]
fn cut_falls_before_or_after_each_write_and_each_transaction() {
    explore([
        |lab| {
            lab.set(0, 0, b"one");
            lab.transaction(b"two");
        },
        |lab| {
            lab.transaction(b"three");
            lab.set(1, 1, b"four");
        },
    ]);
}

#[test]
fn databases_may_be_exchanged_emptied_and_created_around_a_cut() {
    explore([
        |lab| {
            lab.exchange(1);
            lab.set(0, 2, b"one");
        },
        |lab| {
            lab.set(2, 0, b"two");
            // A part may be saved before the rest is taken away.
            lab.set(1, 3, b"three");
            lab.empty();
            lab.exchange(2);
        },
    ]);
}
