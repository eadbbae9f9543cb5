//! Snapshots that are cut while others write: with the groups of changes after the cut, they lead to the state of today.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{HeldBytes, Saved};
use crate::change::tests::{Memory, Tester, Words, dump, load, restored};
use crate::rdb::{FileFacts, Touched, write_file};
use crate::{Engine, EngineConfig, EvictionConfig, EvictionPolicy, Expiry, Instance, InstanceConfig};

const NOW_US: u64 = 1_000_000_000;
const NOW_MS: u64 = NOW_US / 1_000;

fn engine(segments: usize) -> (Engine, Arc<Memory>) {
    let engine = Engine::new(EngineConfig { segments, ..EngineConfig::default() });
    let log = Arc::new(Memory::default());
    assert!(engine.attach_log(log.clone()));
    (engine, log)
}

fn set(engine: &Engine, key: &str, value: &str) {
    engine.update(key.as_bytes(), NOW_MS, |slot| slot.set_str(&[value.as_bytes()], Expiry::Clear)).expect("no bound");
}

fn args(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

/// Loads the snapshot and applies what came after it; must be what `engine` holds.
fn assert_leads_to_today(engine: &Engine, log: &Memory, pieces: Vec<Vec<u8>>, groups_before: usize, hint: &str) {
    let copy = restored(pieces.into_iter());
    for group in &log.groups()[groups_before..] {
        copy.apply(group).unwrap_or_else(|error| panic!("{hint}: {error}"));
    }
    if copy.digest(NOW_MS) != engine.digest(NOW_MS) {
        let (found, expected) = (dump(&copy, NOW_MS), dump(engine, NOW_MS));
        let differing: Vec<_> =
            found.keys().chain(expected.keys()).filter(|key| found.get(*key) != expected.get(*key)).collect();
        let shown: Vec<_> = differing.iter().map(|key| (key, found.get(*key), expected.get(*key))).collect();
        panic!("{hint}: {shown:#?}");
    }
}

#[test]
fn snapshot_and_the_groups_after_it_lead_to_the_state_of_today() {
    const SEEDS: u64 = 6;
    const THREADS: u64 = 3;
    for seed in 0..SEEDS {
        let (engine, log) = engine(if seed % 2 == 0 { 2 } else { 64 });
        let instance = Instance::new(engine.clone(), InstanceConfig::default());
        let ends = AtomicBool::new(false);
        let snapshots = thread::scope(|scope| {
            for number in 0..THREADS {
                let (instance, ends, engine) = (&instance, &ends, &engine);
                scope.spawn(move || {
                    let mut words = Words::new(seed * THREADS + number);
                    let mut tester = Tester::new(instance);
                    while !ends.load(Ordering::Relaxed) {
                        if !tester.resume(NOW_US + 100_000_000) {
                            tester = Tester::new(instance);
                        }
                        match words.below(20) {
                            0 => {
                                tester.execute(&args("MULTI"), NOW_US);
                                for _ in 0..words.below(5) {
                                    tester.execute(&words.command(NOW_MS, &[]), NOW_US);
                                }
                                tester.execute(&args("EXEC"), NOW_US);
                            }
                            1 => drop(tester.execute(&words.script(NOW_MS), NOW_US)),
                            2 => drop(engine.update_many(&[b"h0", b"z0"], NOW_MS, |slots| {
                                slots.slot(0).hash_mut()?.insert(b"f", b"v")?;
                                slots.slot(1).sorted_set_mut()?.insert(b"m", 1.0)
                            })),
                            _ => drop(tester.execute(&words.command(NOW_MS, &[]), NOW_US)),
                        }
                    }
                });
            }
            let mut snapshots = Vec::new();
            for number in 0..4 {
                // Some writes happen in between, and some while the snapshot is being read.
                let groups = log.len();
                while log.len() < groups + 200 {
                    thread::yield_now();
                }
                let mut groups_before = 0;
                let snapshot = engine.cut(NOW_MS, || groups_before = log.len()).expect("no other snapshot runs");
                let mut pieces = Vec::new();
                for piece in snapshot {
                    pieces.push(piece);
                    let groups = log.len();
                    while number % 2 == 0 && log.len() < groups + 5 {
                        thread::yield_now();
                    }
                }
                snapshots.push((pieces, groups_before));
            }
            ends.store(true, Ordering::Relaxed);
            snapshots
        });
        // And what there was in the beginning, which was nothing.
        assert_leads_to_today(&engine, &log, Vec::new(), 0, &format!("seed {seed}"));
        for (pieces, groups_before) in snapshots {
            assert_leads_to_today(&engine, &log, pieces, groups_before, &format!("seed {seed}"));
        }
    }
}

/// What is emptied or exchanged before the snapshot has come to it is written out as it was, for the database in which it was.
#[test]
fn databases_that_are_emptied_or_exchanged_meanwhile_are_saved_as_they_were() {
    let (engine, log) = engine(8);
    let instance = Instance::new(engine.clone(), InstanceConfig::default());
    let mut tester = Tester::new(&instance);
    for number in 0..100 {
        set(&engine, &format!("k{number}"), "first");
    }
    tester.execute(&args("SELECT 1"), NOW_US);
    for number in 0..100 {
        tester.execute(&args(&format!("SADD k{number} second")), NOW_US);
    }
    let before = dump(&engine, NOW_MS);
    for lines in [
        &["SWAPDB 0 1"][..],
        &["FLUSHALL", "SWAPDB 0 7"],
        &["SWAPDB 1 9", "FLUSHDB"],
        &["SWAPDB 0 1", "SWAPDB 1 5", "SADD new m", "FLUSHDB"],
    ] {
        for pieces_first in [0, 3, 12] {
            let groups_before = log.len();
            let mut snapshot = engine.cut(NOW_MS, || ()).expect("no other snapshot runs");
            let mut pieces: Vec<_> = snapshot.by_ref().take(pieces_first).collect();
            for line in lines {
                tester.execute(&args(line), NOW_US);
            }
            pieces.extend(&mut snapshot);
            drop(snapshot);
            assert_eq!(dump(&restored(pieces.clone().into_iter()), NOW_MS), before, "{lines:?}");
            assert_leads_to_today(&engine, &log, pieces.clone(), groups_before, "");
            // As it was, for the next round.
            tester.execute(&args("FLUSHALL"), NOW_US);
            for database in [0, 1] {
                tester.execute(&args(&format!("SELECT {database}")), NOW_US);
                for number in 0..100 {
                    let line =
                        if database == 0 { format!("SET k{number} first") } else { format!("SADD k{number} second") };
                    tester.execute(&args(&line), NOW_US);
                }
            }
            assert_eq!(dump(&engine, NOW_MS), before);
        }
    }
}

#[test]
fn writer_saves_only_what_the_snapshot_still_needs() {
    let (engine, _) = engine(1);
    set(&engine, "k", "old");
    let mut snapshot = engine.cut(NOW_MS, || ()).expect("no other snapshot runs");
    assert!(engine.cut(NOW_MS, || panic!("one at a time")).is_none());
    set(&engine, "k", "new");
    set(&engine, "k", "newer");
    let pieces: Vec<_> = snapshot.by_ref().collect();
    assert_eq!(pieces.len(), 1);
    assert!(dump(&restored(pieces.into_iter()), NOW_MS)["0 k"].starts_with("string old"));
    drop(snapshot);

    // One that is dropped halfway leaves nothing to those who write, nor to the next one.
    drop(engine.cut(NOW_MS, || ()));
    set(&engine, "k", "newest");
    let pieces: Vec<_> = engine.cut(NOW_MS, || ()).expect("the other one has ended").collect();
    assert!(dump(&restored(pieces.into_iter()), NOW_MS)["0 k"].starts_with("string newest"));
    engine.clear();
    assert_eq!(engine.cut(NOW_MS, || ()).expect("the other one has ended").count(), 0);
}

/// It waits for as long as that takes, at nearly each write that comes soon after a cut.
#[test]
fn writer_saves_what_is_about_its_key_and_leaves_the_rest_to_the_snapshot() {
    let (engine, _) = engine(1);
    (0..3_200).for_each(|number| set(&engine, &format!("k{number}"), "old"));
    let mut snapshot = engine.cut(NOW_MS, || ()).expect("no other snapshot runs");
    // One that changes, one that goes, and one that is new.
    set(&engine, "k7", "new");
    engine.update(b"k8", NOW_MS, |slot| slot.remove());
    set(&engine, "new", "new");
    let by_writers: Vec<_> = snapshot.by_ref().take(3).collect();
    let by_snapshot: Vec<_> = snapshot.by_ref().collect();
    let saved = |pieces: &[Vec<u8>]| dump(&restored(pieces.iter().cloned()), NOW_MS).len();
    assert!((150..600).contains(&saved(&by_writers)), "{} keys", saved(&by_writers));
    // Nobody waits for a whole segment for the snapshot's sake either.
    assert!(by_snapshot.len() >= 8, "{} pieces", by_snapshot.len());
    let all = dump(&restored(by_writers.into_iter().chain(by_snapshot)), NOW_MS);
    assert!(all.len() == 3_200 && all.values().all(|value| value.starts_with("string old")));
}

#[test]
fn cut_whose_callback_panics_ends() {
    let (engine, _) = engine(4);
    set(&engine, "k", "v");
    let result =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| engine.cut(NOW_MS, || panic!("a log has failed"))));
    assert!(result.is_err());
    set(&engine, "k", "w");
    assert_eq!(engine.cut(NOW_MS, || ()).expect("the other one has ended").count(), 1);
}

/// A script may hold keys for long. Who cuts waits for it, and nobody waits for who cuts.
#[test]
fn cut_waits_for_a_long_script_without_holding_what_others_use() {
    let (engine, _) = engine(16);
    let waits = AtomicBool::new(false);
    thread::scope(|scope| {
        engine.update(b"held", NOW_MS, |_| {
            let cut = scope.spawn(|| {
                waits.store(true, Ordering::SeqCst);
                engine.cut(NOW_MS, || ()).expect("no other snapshot runs").count()
            });
            while !waits.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            let place = |key: &str| engine.keyspace().segment_of(engine.keyspace().context.hash(key.as_bytes()));
            for number in 0..2_000 {
                let key = format!("k{number}");
                if place(&key) != place("held") {
                    set(&engine, &key, "v");
                }
            }
            assert!(!cut.is_finished());
        });
    });
}

/// What a file would say of the uses of each key.
fn uses(engine: &Engine, now_ms: u64) -> BTreeMap<String, Touched> {
    let keyspace = engine.keyspace();
    let mut uses = BTreeMap::new();
    for number in 0..keyspace.segments.len() {
        for entry in keyspace.lock(number).store.iter() {
            if let Some(touched) = keyspace.context.memory.eviction.touched(entry.usage(), now_ms) {
                uses.insert(entry.key().escape_ascii().to_string(), touched);
            }
        }
    }
    uses
}

fn engine_by(policy: EvictionPolicy) -> Engine {
    let eviction = EvictionConfig { policy, lfu_decay_min: 0, ..EvictionConfig::default() };
    Engine::new(EngineConfig { segments: 4, eviction, ..EngineConfig::default() })
}

/// After a restart all keys once seemed unused for months, or used at that moment, and eviction took the wrong ones.
#[test]
fn uses_of_keys_come_back_with_a_snapshot_where_a_policy_goes_by_them() {
    const LOADED_MS: u64 = NOW_MS + 7_000_000;
    for policy in [EvictionPolicy::AllKeysLru, EvictionPolicy::VolatileLfu, EvictionPolicy::AllKeysRandom] {
        let engine = engine_by(policy);
        for number in 0..200_u64 {
            let (key, at_ms) = (format!("k{number}"), NOW_MS - number * 1_000);
            engine.update(key.as_bytes(), at_ms, |slot| slot.set_str(&[b"v"], Expiry::Clear)).expect("no bound");
            (0..number * 20).for_each(|_| engine.read(key.as_bytes(), at_ms, |_| ()));
        }
        // Threads may be ahead of the one that cuts.
        engine.update(b"ahead", NOW_MS + 5_000, |slot| slot.set_str(&[b"v"], Expiry::Clear)).expect("no bound");
        let before = uses(&engine, NOW_MS);
        let mut file = Vec::new();
        let snapshot = engine.cut(NOW_MS, || ()).expect("no other snapshot runs");
        // Some are saved by who adds a key beside them.
        set(&engine, "later", "v");
        write_file(&FileFacts::default(), snapshot, &mut file).expect("memory takes everything");
        let copy = engine_by(policy);
        copy.set_load_time(LOADED_MS);
        load(&copy, &file);
        assert_eq!(uses(&copy, LOADED_MS), before, "{policy}");
        assert_eq!(before.len(), if policy == EvictionPolicy::AllKeysRandom { 0 } else { 201 });
    }
}

#[test]
fn what_changes_have_made_or_touched_was_used_when_it_was_loaded() {
    const LOADED_MS: u64 = NOW_MS + 7_000_000;
    let (engine, log) = engine(4);
    let instance = Instance::new(engine.clone(), InstanceConfig::default());
    let mut tester = Tester::new(&instance);
    let base =
        ["SET untouched v", "SET written v", "HSET hash f v", "SETRANGE range 0 text", "SET moved v", "SET ttl v"];
    base.iter().for_each(|line| drop(tester.execute(&args(line), NOW_US)));
    let mut file = Vec::new();
    engine.set_eviction_policy(EvictionPolicy::AllKeysLru);
    let snapshot = engine.cut(NOW_MS + 100_000, || ()).expect("no other snapshot runs");
    write_file(&FileFacts::default(), snapshot, &mut file).expect("memory takes everything");
    let groups_before = log.len();
    for line in ["SET written w", "HSET hash g v", "SETRANGE range 1 x", "RENAME moved there", "RPUSH new a"] {
        tester.execute(&args(line), NOW_US);
    }
    for (policy, old, new) in [
        (EvictionPolicy::AllKeysLru, Touched::IdleS(100), Touched::IdleS(0)),
        (EvictionPolicy::AllKeysLfu, Touched::Frequency(5), Touched::Frequency(6)),
    ] {
        let copy = engine_by(policy);
        copy.set_load_time(LOADED_MS);
        load(&copy, &file);
        log.groups()[groups_before..].iter().for_each(|group| copy.apply(group).expect("it fits"));
        let uses = uses(&copy, LOADED_MS);
        assert_eq!((uses["untouched"], uses["ttl"]), (old, old));
        // The list was made, and then changed.
        for key in ["written", "hash", "range", "new"] {
            assert_eq!(uses[key], new, "{key}");
        }
        assert_eq!(uses["there"], if policy.is_lfu() { old } else { new });
    }
}

#[test]
fn what_writers_leave_to_a_snapshot_is_counted_until_it_is_taken() {
    let (engine, _log) = engine(4);
    (0..4_000).for_each(|number| set(&engine, &format!("k{number}"), "value"));
    assert_eq!(engine.snapshot_held_bytes(), HeldBytes::default());
    let mut snapshot = engine.cut(NOW_MS, || ()).expect("no other snapshot runs");
    assert_eq!(engine.snapshot_held_bytes(), HeldBytes::default());
    set(&engine, "k1", "other");
    let one = engine.snapshot_held_bytes();
    // A 32nd of a thousand keys, which take some dozen bytes each.
    assert!((31 * 12..31 * 12 * 12).contains(&one.now) && one.now == one.peak, "{one:?}");
    engine.clear();
    let all = engine.snapshot_held_bytes();
    assert!(all.now > 2 * one.now && all.now == all.peak, "{all:?}");
    let first = snapshot.next().expect("something was saved");
    assert_eq!((first.capacity() + size_of::<Saved>()) as u64, one.now);
    assert_eq!(engine.snapshot_held_bytes(), HeldBytes { now: all.now - one.now, peak: all.peak });
    assert_eq!(snapshot.by_ref().count(), 4);
    assert_eq!(engine.snapshot_held_bytes(), HeldBytes { now: 0, peak: all.peak });
    drop(snapshot);
    set(&engine, "k1", "v");
    let snapshot = engine.cut(NOW_MS, || ()).expect("the other one has ended");
    engine.clear();
    assert_ne!(engine.snapshot_held_bytes().now, 0);
    drop(snapshot);
    assert_eq!(engine.snapshot_held_bytes().now, 0);
}
