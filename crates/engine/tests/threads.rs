//! What holds when many threads use one engine.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use acteon_engine::{Engine, EngineConfig, EngineError, EvictionConfig, EvictionPolicy, Expiry, Slot};

const THREADS: u64 = 4;

fn engine(segments: usize) -> Engine {
    Engine::new(EngineConfig { segments, ..EngineConfig::default() })
}

fn number(slot: &Slot<'_>) -> u64 {
    slot.get()
        .and_then(|value| value.as_str())
        .map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

fn set_number(slot: &mut Slot<'_>, number: u64) {
    slot.set_str(&[&number.to_le_bytes()], Expiry::Keep).expect("unbounded");
}

/// A repeatable sequence of numbers that look random (splitmix64).
fn sequence(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[test]
fn transfers_between_accounts_keep_their_sum_and_never_deadlock() {
    const ACCOUNTS: u64 = 16;
    const BALANCE: u64 = 1_000;
    // Few segments, so that accounts share them and threads meet.
    let engine = engine(4);
    let names: Vec<_> = (0..ACCOUNTS).map(u64::to_le_bytes).collect();
    let all: Vec<&[u8]> = names.iter().map(|name| &name[..]).collect();
    engine.update_many(&all, 0, |slots| (0..all.len()).for_each(|at| set_number(&mut slots.slot(at), BALANCE)));
    let sum = || engine.update_many(&all, 0, |slots| (0..all.len()).map(|at| number(&slots.slot(at))).sum::<u64>());

    thread::scope(|scope| {
        for seed in 0..THREADS {
            let (engine, names) = (&engine, &names);
            scope.spawn(move || {
                let mut next = sequence(seed);
                for _ in 0..5_000 {
                    // Any order, and sometimes from an account to itself.
                    let from = &names[(next() % ACCOUNTS) as usize];
                    let to = &names[(next() % ACCOUNTS) as usize];
                    engine.update_many(&[from, to], 0, |slots| {
                        let amount = number(&slots.slot(0)).min(next() % 100);
                        let left = number(&slots.slot(0)) - amount;
                        set_number(&mut slots.slot(0), left);
                        let received = number(&slots.slot(1)) + amount;
                        set_number(&mut slots.slot(1), received);
                    });
                }
            });
        }
        for _ in 0..500 {
            assert_eq!(sum(), ACCOUNTS * BALANCE, "a transfer was seen half done");
        }
    });
    assert_eq!(sum(), ACCOUNTS * BALANCE);
}

#[test]
fn one_of_many_writers_wins_each_generation_of_an_expiring_key() {
    const GENERATIONS: u64 = 500;
    let engine = engine(1_024);
    let start = Barrier::new(THREADS as usize);
    let wins: Vec<_> = (0..GENERATIONS).map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for (now_ms, wins) in (0..).zip(&wins) {
                    // All threads meet the moment at which the generation before has just expired.
                    start.wait();
                    engine.update(b"k", now_ms, |slot| {
                        if slot.get().is_none() {
                            slot.set_str(&[b"v"], Expiry::At(now_ms)).expect("unbounded");
                            wins.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
            });
        }
    });
    assert!(wins.iter().all(|wins| wins.load(Ordering::Relaxed) == 1));
    assert_eq!(engine.stats().expired_total, GENERATIONS - 1);
}

#[test]
fn concurrent_increments_are_all_counted() {
    let engine = engine(1_024);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    engine.update(b"hits", 0, |slot| {
                        let next = number(slot) + 1;
                        set_number(slot, next);
                    });
                }
            });
        }
    });
    assert_eq!(engine.update(b"hits", 0, |slot| number(slot)), THREADS * 10_000);
}

#[test]
fn scan_returns_every_key_that_is_present_throughout_while_others_come_and_go() {
    const STAYING: u64 = 500;
    let engine = engine(64);
    let put = |key: &str, expiry| engine.update(key.as_bytes(), 0, |slot| slot.set_str(&[b"v"], expiry));
    let staying: BTreeSet<Vec<u8>> = (0..STAYING).map(|at| format!("k{at:05}s").into_bytes()).collect();
    for key in &staying {
        engine.update(key, 0, |slot| slot.set_str(&[b"v"], Expiry::Clear)).expect("unbounded");
    }
    let is_over = AtomicBool::new(false);
    let (put, is_over, staying) = (&put, &is_over, &staying);
    thread::scope(|scope| {
        for seed in 0..2 {
            let engine = &engine;
            scope.spawn(move || {
                let mut next = sequence(seed);
                while !is_over.load(Ordering::Relaxed) {
                    let key = format!("k{:05}c", next() % STAYING);
                    match next() % 4 {
                        0 => drop(engine.update(key.as_bytes(), 0, |slot| slot.remove())),
                        // Expires for the scan, which looks at a later time.
                        1 => put(&key, Expiry::At(5)).expect("unbounded"),
                        2 => drop(engine.expire_cycle(10, 200)),
                        _ => put(&key, Expiry::Clear).expect("unbounded"),
                    }
                }
            });
        }
        let _end_writers = RaiseOnDrop(is_over);
        // The first scan builds the index while the others write.
        for limit in [1, 7, 64, 10_000].repeat(5) {
            let seen = scan_all(&engine, limit);
            assert!(seen.is_sorted_by(|a, b| a < b), "each key once and in order");
            let stayed = seen.into_iter().filter(|key| key.ends_with(b"s"));
            assert_eq!(stayed.collect::<BTreeSet<_>>(), *staying, "limit {limit}");
        }
    });
}

/// Ends the writers when the scans are over, also by a failed assertion.
struct RaiseOnDrop<'a>(&'a AtomicBool);

impl Drop for RaiseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn scan_all(engine: &Engine, limit: usize) -> Vec<Vec<u8>> {
    let mut seen: Vec<Vec<u8>> = Vec::new();
    loop {
        let after = seen.last().cloned();
        let before = seen.len();
        let more = engine.scan(b"k", after.as_deref(), limit, 10, |key, _| seen.push(key.to_vec()));
        assert!(seen.len() - before <= limit, "a page is bounded");
        if !more {
            return seen;
        }
    }
}

#[test]
fn memory_bound_holds_under_concurrent_writers() {
    const BYTES_MAX: u64 = 64 << 10;
    let engine = Engine::new(EngineConfig { memory_bytes_max: Some(BYTES_MAX), ..EngineConfig::default() });
    let refused = AtomicU64::new(0);
    thread::scope(|scope| {
        for seed in 0..THREADS {
            let (engine, refused) = (&engine, &refused);
            scope.spawn(move || {
                let mut next = sequence(seed);
                for _ in 0..5_000 {
                    let key = (next() % 1_000).to_le_bytes();
                    let value = vec![0; (next() % 300) as usize];
                    match engine.update(&key, 0, |slot| slot.set_str(&[&value], Expiry::Clear)) {
                        Ok(()) => {}
                        Err(EngineError::OutOfMemory) => _ = refused.fetch_add(1, Ordering::Relaxed),
                        Err(error) => panic!("{error}"),
                    }
                    if next().is_multiple_of(8) {
                        engine.update(&key, 0, |slot| slot.remove());
                    }
                }
            });
        }
    });
    let stats = engine.stats();
    assert!(stats.bytes <= BYTES_MAX, "{} bytes", stats.bytes);
    assert!(refused.load(Ordering::Relaxed) > 0, "the bound was never reached");
    engine.clear();
    assert_eq!(engine.stats().bytes, engine.stats().table_bytes);
    engine.update(b"k", 0, |slot| slot.set_str(&[&[0; 60 << 10]], Expiry::Clear)).expect("all memory came back");
}

#[test]
fn writers_that_evict_at_once_stay_within_the_bound_and_never_wait_for_each_other_in_a_circle() {
    const BOUND: u64 = 200_000;
    // What each writer may be writing, with the table that grows for it.
    const WRITE_BYTES_MAX: u64 = 5_000;
    let eviction = EvictionConfig { policy: EvictionPolicy::AllKeysLru, ..EvictionConfig::default() };
    let config = EngineConfig { segments: 16, memory_bytes_max: Some(BOUND), eviction, hash_seed: Some(3) };
    let engine = Engine::new(config);
    thread::scope(|scope| {
        for writer in 0..4_u64 {
            let engine = &engine;
            scope.spawn(move || {
                for number in 0..5_000_u64 {
                    let names = [(writer, number), (writer, number + 1), (0, number)].map(|name| format!("{name:?}"));
                    let keys = names.each_ref().map(|name| name.as_bytes());
                    let written = engine.update_many(&keys, number, |slots| {
                        (0..keys.len()).try_for_each(|at| slots.slot(at).set_str(&[&[b'v'; 100]], Expiry::Clear))
                    });
                    assert_eq!(written, Ok(()), "something can always go");
                    engine.read(keys[1], number, |_| ());
                    if number % 100 == 0 {
                        engine.evict_cycle(number, 10);
                        assert!(engine.stats().bytes < BOUND + 4 * WRITE_BYTES_MAX);
                    }
                }
            });
        }
    });
    assert!(engine.stats().evicted_total > 1_000);
    let (keys, stats) = (engine.len() as u64, engine.stats());
    assert!(stats.bytes < BOUND + WRITE_BYTES_MAX && keys > 500, "{stats:?}");
}
