//! The engine's estimate of its memory beside what the allocator was really asked for.
//!
//! In a program of its own: the allocator counts for the whole process, so there is one test, which takes one shape of data after the other.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use acteon_engine::{Engine, EngineConfig, Expiry};

/// Counts what is asked for, rounded up as allocators do for small sizes.
struct Counting;

static ALLOCATED_BYTES: AtomicU64 = AtomicU64::new(0);

const ALLOCATION_STEP_BYTES: usize = 8;

fn cost(layout: Layout) -> u64 {
    layout.size().next_multiple_of(ALLOCATION_STEP_BYTES) as u64
}

// SAFETY: everything is passed on to the system's allocator as it came.
#[expect(unsafe_code, reason = "an allocator cannot be written otherwise")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED_BYTES.fetch_add(cost(layout), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED_BYTES.fetch_sub(cost(layout), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How far the estimate may be off, in parts of what was really allocated.
const TOLERANCE: f64 = 0.10;

/// And for each segment: where it holds a few dozen keys, of several lengths, a good part of its smallest chunks is not used, which counts as free.
const SPARE_BYTES_PER_SEGMENT: f64 = 512.0;

const NOW_MS: u64 = 1_000_000;

fn check(what: &str, segments: usize, fill: impl Fn(&Engine), churn: impl Fn(&Engine)) {
    check_with(what, segments, |_| (), |engine, ()| fill(engine), |engine, ()| churn(engine));
}

/// Fills an engine, and compares; then changes it for a while, and compares again. What `prepare` allocates does not count.
fn check_with<P>(
    what: &str,
    segments: usize,
    prepare: impl Fn(&Engine) -> P,
    fill: impl Fn(&Engine, &P),
    churn: impl Fn(&Engine, &P),
) {
    let engine = Engine::new(EngineConfig { segments, hash_seed: Some(1), ..EngineConfig::default() });
    let prepared = prepare(&engine);
    engine.clear();
    let before = ALLOCATED_BYTES.load(Ordering::Relaxed);
    for (act, when) in [(&fill as &dyn Fn(&Engine, &P), "filled"), (&churn, "churned")] {
        act(&engine, &prepared);
        let allocated = (ALLOCATED_BYTES.load(Ordering::Relaxed) - before) as f64;
        let estimated = engine.stats().bytes as f64;
        let ratio = estimated / allocated;
        println!("{what}, {when}: {estimated} estimated, {allocated} allocated, {ratio:.3}");
        let tolerance = TOLERANCE * allocated + SPARE_BYTES_PER_SEGMENT * segments as f64;
        assert!(estimated < allocated * (1.0 + TOLERANCE), "{what}, {when}: {estimated} is {ratio:.3} of {allocated}");
        assert!(allocated - estimated < tolerance, "{what}, {when}: {estimated} is {ratio:.3} of {allocated}");
    }
    engine.clear();
    assert_eq!(engine.stats().bytes, 0, "{what}");
}

fn name(number: u32) -> Vec<u8> {
    format!("key:{number}").into_bytes()
}

fn set(engine: &Engine, number: u32, value_bytes: usize, expiry: Expiry) {
    engine.update(&name(number), NOW_MS, |slot| slot.set_str(&[&vec![b'v'; value_bytes]], expiry)).expect("no bound");
}

fn strings(value_bytes: usize, expiry: Expiry) -> (impl Fn(&Engine), impl Fn(&Engine)) {
    let fill = move |engine: &Engine| (0..20_000).for_each(|number| set(engine, number, value_bytes, expiry));
    let churn = move |engine: &Engine| {
        for number in 0..30_000 {
            engine.update(&name(number * 7 % 20_000), NOW_MS, |slot| slot.remove());
            set(engine, 20_000 + number, value_bytes * (number as usize % 3), expiry);
        }
    };
    (fill, churn)
}

/// Hashes or sorted sets with so many members each.
fn collections(keys: u32, members: u32, member_bytes: usize, sorted: bool) -> (impl Fn(&Engine), impl Fn(&Engine)) {
    let change = move |engine: &Engine, key: u32, member: u32, removes: bool| {
        let text = format!("{member:0member_bytes$}");
        engine.update(&name(key), NOW_MS, |slot| match (sorted, removes) {
            (true, false) => drop(slot.sorted_set_mut().expect("it is one").insert(text.as_bytes(), f64::from(member))),
            (true, true) => drop(slot.sorted_set_mut().expect("it is one").remove(text.as_bytes())),
            (false, false) => drop(slot.hash_mut().expect("it is one").insert(text.as_bytes(), text.as_bytes())),
            (false, true) => drop(slot.hash_mut().expect("it is one").remove(text.as_bytes())),
        });
    };
    let fill = move |engine: &Engine| {
        (0..keys).for_each(|key| (0..members).for_each(|member| change(engine, key, member, false)));
    };
    let churn = move |engine: &Engine| {
        for member in 0..members {
            (0..keys).for_each(|key| {
                change(engine, key, member * 3 % members, true);
                change(engine, key, members + member, false);
            });
        }
    };
    (fill, churn)
}

#[test]
fn estimate_follows_the_allocator_through_all_shapes_of_data() {
    for (value_bytes, expiry, what) in [
        (0, Expiry::Clear, "empty strings"),
        (16, Expiry::Clear, "short strings"),
        (64, Expiry::At(NOW_MS * 2), "strings with a ttl"),
        (1_000, Expiry::Clear, "long strings"),
    ] {
        for segments in [16, 1_024] {
            let (fill, churn) = strings(value_bytes, expiry);
            check(what, segments, fill, churn);
        }
    }
    for (keys, members, member_bytes) in [(2_000, 1, 8), (500, 20, 8), (500, 100, 40), (10, 5_000, 8), (10, 5_000, 80)]
    {
        for sorted in [false, true] {
            let kind = if sorted { "sorted sets" } else { "hashes" };
            let (fill, churn) = collections(keys, members, member_bytes, sorted);
            check(&format!("{keys} {kind} of {members} members of {member_bytes} bytes"), 64, fill, churn);
        }
    }
    let (fill, churn) = strings(32, Expiry::Clear);
    let ordered = |engine: &Engine| {
        engine.scan(b"", None, 1, NOW_MS, |_, _| ());
        fill(engine);
    };
    check("strings in order", 64, ordered, churn);
    #[cfg(feature = "commands")]
    commands::check_lists_and_sets();
}

/// What typed calls do not reach.
#[cfg(feature = "commands")]
mod commands {
    use std::cell::RefCell;
    use std::ops::Range;

    use acteon_engine::{Client, ClientOptions, Engine, Flow, Instance, InstanceConfig};

    use super::{NOW_MS, check_with};

    /// A client of an engine.
    struct Caller(RefCell<Client>);

    impl Caller {
        /// One that has used each command before, so that counts of them lie ready.
        fn new(engine: &Engine) -> Self {
            let instance = Instance::new(engine.clone(), InstanceConfig::default());
            let caller = Self(RefCell::new(Client::connect(&instance, ClientOptions::default())));
            caller.fill("RPUSH", 1, 0..1, 0);
            caller.send(&["LPOP", "key:0", "1"]);
            caller.fill("SADD", 1, 0..1, 0);
            caller.send(&["SPOP", "key:0", "1"]);
            caller
        }

        fn fill(&self, push: &str, keys: u32, members: Range<u32>, member_bytes: usize) {
            for key in 0..keys {
                let members: Vec<String> = members.clone().map(|member| format!("{member:0member_bytes$}")).collect();
                let key = format!("key:{key}");
                for members in members.chunks(50) {
                    let members = members.iter().map(String::as_str);
                    self.send(&[push, &key].into_iter().chain(members).collect::<Vec<&str>>());
                }
            }
        }

        fn send(&self, words: &[&str]) {
            let args: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            let mut reply = Vec::new();
            assert_eq!(self.0.borrow_mut().execute(&args, NOW_MS * 1_000, &mut reply), Flow::Done);
            assert_ne!(reply.first(), Some(&b'-'), "{}", reply.escape_ascii());
        }
    }

    pub(super) fn check_lists_and_sets() {
        for (keys, members, member_bytes) in [(2_000, 1, 8), (500, 100, 8), (10, 5_000, 8), (10, 5_000, 80)] {
            for (push, pop) in [("RPUSH", "LPOP"), ("SADD", "SPOP")] {
                let what = format!("{keys} by {push} of {members} members of {member_bytes} bytes");
                let fill = |_: &Engine, caller: &Caller| caller.fill(push, keys, 0..members, member_bytes);
                let churn = |_: &Engine, caller: &Caller| {
                    let half = (members / 2).max(1);
                    (0..keys).for_each(|key| caller.send(&[pop, &format!("key:{key}"), &half.to_string()]));
                    caller.fill(push, keys, members..members + half, member_bytes);
                };
                check_with(&what, 64, Caller::new, fill, churn);
            }
        }
        let fill = |_: &Engine, caller: &Caller| caller.fill("SADD", 100, 1..400, 0);
        let churn = |_: &Engine, caller: &Caller| {
            (0..100).for_each(|key| caller.send(&["SPOP", &format!("key:{key}"), "200"]));
        };
        check_with("sets of integers", 64, Caller::new, fill, churn);
    }
}
