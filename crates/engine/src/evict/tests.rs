//! Eviction as writers and commands see it, and how well it chooses.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::{prop_assert, prop_assert_eq, proptest};

use super::{EvictionConfig, EvictionPolicy, NeverEvict};
use crate::algorithm::random::Random;
use crate::{ChangeLog, Engine, EngineConfig, EngineError, Expiry, check_group};

fn engine(bytes_max: u64, eviction: EvictionConfig) -> Engine {
    Engine::new(EngineConfig { segments: 16, memory_bytes_max: Some(bytes_max), eviction, hash_seed: Some(1) })
}

fn by(policy: EvictionPolicy) -> EvictionConfig {
    EvictionConfig { policy, ..EvictionConfig::default() }
}

fn set(engine: &Engine, key: &str, bytes: usize, expiry: Expiry, now_ms: u64) -> Result<(), EngineError> {
    engine.update(key.as_bytes(), now_ms, |slot| slot.set_str(&[&vec![b'v'; bytes]], expiry))
}

fn has(engine: &Engine, key: &str, now_ms: u64) -> bool {
    engine.read(key.as_bytes(), now_ms, |value| value.is_some())
}

fn used(engine: &Engine) -> u64 {
    let used = engine.keyspace().context.memory.used_bytes();
    let counted: u64 =
        engine.family().all().iter().flat_map(|(_, keyspace)| &keyspace.segments).map(|one| one.0.lock().bytes).sum();
    assert_eq!(used, counted, "the shared counter is the sum of all segments");
    used
}

#[test]
fn store_goes_on_taking_keys_and_stays_within_its_bound() {
    for policy in EvictionPolicy::ALL.into_iter().filter(|policy| *policy != EvictionPolicy::NoEviction) {
        let engine = engine(100_000, by(policy));
        for number in 0..10_000_u64 {
            let expiry = Expiry::At(1_000_000 + number);
            set(&engine, &format!("key:{number}"), 50, expiry, number).expect("something can go");
            assert!(used(&engine) < 100_000 + WRITE_BYTES_MAX, "{policy}: {}", used(&engine));
        }
        assert!(has(&engine, "key:9999", 10_000), "{policy}");
        let evicted = engine.stats().evicted_total;
        assert_eq!(evicted + engine.len() as u64, 10_000, "{policy}");
        assert!(engine.evictions().contains(&(policy, evicted)), "{policy}");
    }
}

#[test]
fn write_is_refused_where_nothing_may_go_and_has_changed_nothing() {
    let never = NeverEvict::matching(["lock:*"]);
    let engine = engine(20_000, EvictionConfig { never, ..by(EvictionPolicy::AllKeysLru) });
    let mut number = 0;
    let refused = loop {
        number += 1;
        match set(&engine, &format!("lock:{number}"), 50, Expiry::Clear, number) {
            Ok(()) => assert!(number < 1_000),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, EngineError::OutOfMemory);
    assert_eq!((engine.len() as u64, engine.stats().evicted_total), (number - 1, 0));
    let hash = engine.update(b"lock:hash", number, |slot| slot.hash_mut()?.insert(b"f", b"v"));
    assert_eq!(hash, Err(EngineError::OutOfMemory));
    assert!(set(&engine, "lock:1", 50, Expiry::Clear, number).is_ok(), "what does not grow is not refused");
    assert!(set(&engine, "lock:1", 20, Expiry::Clear, number).is_ok(), "what shrinks neither");
    // One key that may go among many that may not is found.
    let removed = 2..20;
    removed
        .clone()
        .for_each(|one| assert!(engine.update(format!("lock:{one}").as_bytes(), number, |slot| slot.remove())));
    set(&engine, "cache:1", 50, Expiry::Clear, number).expect("there is room");
    for round in 0..20 {
        set(&engine, &format!("cache:{round}"), 300, Expiry::Clear, number).expect("the last one goes");
    }
    assert!((1..number).filter(|one| !removed.contains(one)).all(|one| has(&engine, &format!("lock:{one}"), number)));
    assert!(engine.stats().evicted_total > 0);
}

#[test]
fn expired_keys_go_before_those_that_are_there() {
    let engine = engine(20_000, by(EvictionPolicy::AllKeysLru));
    (0..50).for_each(|number| set(&engine, &format!("old:{number}"), 50, Expiry::At(10), 5).expect("it fits"));
    let mut number = 0;
    while engine.stats().expired_total == 0 {
        number += 1;
        set(&engine, &format!("new:{number}"), 50, Expiry::Clear, 11).expect("something can go");
    }
    assert!(engine.stats().evicted_total <= 30, "{}", engine.stats().evicted_total);
}

#[derive(Default)]
struct Removals(parking_lot::Mutex<Vec<u8>>);

impl ChangeLog for Removals {
    fn append(&self, group: &[u8]) -> u64 {
        let mut log = self.0.lock();
        log.extend_from_slice(group);
        check_group(group).expect("it was recorded") as u64
    }

    fn is_writable(&self) -> bool {
        true
    }
}

#[test]
fn evicted_keys_are_recorded_and_their_watchers_learn_of_it() {
    let engine = engine(20_000, by(EvictionPolicy::AllKeysRandom));
    let log = Arc::new(Removals::default());
    assert!(engine.attach_log(log.clone()));
    set(&engine, "watched", 50, Expiry::Clear, 1).expect("it fits");
    let is_dirty = Arc::new(AtomicBool::new(false));
    engine.update(b"watched", 1, |slot| slot.segment.notices.watch(b"watched", &is_dirty));
    let mut number = 0;
    while has(&engine, "watched", 1) {
        number += 1;
        set(&engine, &format!("key:{number}"), 50, Expiry::Clear, 1).expect("something can go");
    }
    assert!(is_dirty.load(Ordering::Relaxed));
    let copy = Engine::new(EngineConfig::default());
    copy.apply(&log.0.lock()).expect("what was recorded can be applied");
    assert_eq!(copy.digest(1), engine.digest(1));
}

#[test]
fn bound_that_comes_later_counts_what_was_there() {
    let engine = Engine::new(EngineConfig { segments: 16, ..EngineConfig::default() });
    (0..1_000).for_each(|number| set(&engine, &format!("key:{number}"), 50, Expiry::Clear, 1).expect("no bound"));
    let other = engine.sibling(3);
    (0..1_000).for_each(|number| set(&other, &format!("key:{number}"), 50, Expiry::Clear, 1).expect("no bound"));
    engine.set_memory_bytes_max(Some(1 << 20));
    let all = used(&engine);
    assert_eq!(all, engine.stats().bytes + other.stats().bytes);
    engine.set_eviction_policy(EvictionPolicy::AllKeysLru);
    engine.set_memory_bytes_max(Some(all / 2));
    while engine.evict_cycle(2, 100).ran_out {}
    assert!(used(&engine) < all / 2);
    assert!(engine.len() > 250 && other.len() > 250, "both give: {} and {}", engine.len(), other.len());
    assert!(used(&engine.sibling(4)) < all / 2, "databases of later count as well");
}

#[test]
fn segment_that_is_held_while_a_bound_comes_is_counted_later() {
    let engine = Engine::new(EngineConfig { segments: 4, ..EngineConfig::default() });
    (0..100).for_each(|number| set(&engine, &format!("key:{number}"), 50, Expiry::Clear, 1).expect("no bound"));
    engine
        .update(b"key:1", 1, |slot| {
            engine.set_memory_bytes_max(Some(1));
            slot.set_str(&[&[0; 500]], Expiry::Clear)
        })
        .expect("nothing is refused before all is counted");
    // This one counts the rest.
    assert_eq!(set(&engine, "another", 50, Expiry::Clear, 1), Err(EngineError::OutOfMemory));
    assert_eq!(used(&engine), engine.stats().bytes);
}

/// What happens to a store of the property below.
#[derive(Clone, Debug)]
enum Act {
    Set { key: u8, bytes: u16, has_ttl: bool },
    Insert { key: u8, field: u8, bytes: u16 },
    Rank { key: u8, member: u16 },
    Remove { key: u8 },
    Read { key: u8 },
    SetExpiry { key: u8, has_ttl: bool },
    Cycle,
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (any::<u8>(), 0..600_u16, any::<bool>()).prop_map(|(key, bytes, has_ttl)| Act::Set { key, bytes, has_ttl }),
        3 => (any::<u8>(), any::<u8>(), 0..600_u16).prop_map(|(key, field, bytes)| Act::Insert { key, field, bytes }),
        2 => (any::<u8>(), any::<u16>()).prop_map(|(key, member)| Act::Rank { key, member }),
        1 => any::<u8>().prop_map(|key| Act::Remove { key }),
        2 => any::<u8>().prop_map(|key| Act::Read { key }),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(key, has_ttl)| Act::SetExpiry { key, has_ttl }),
        1 => proptest::strategy::Just(Act::Cycle),
    ]
}

/// Asked by a read: an update would make room first, and could evict the very key.
fn has_deadline(engine: &Engine, key: u8, now_ms: u64) -> bool {
    engine.read(&[key], now_ms, |value| value.is_some_and(|value| value.expires_at_ms().is_some()))
}

/// Keys of these numbers are never evicted.
fn is_kept(key: u8) -> bool {
    key.is_multiple_of(5)
}

/// More than any one of the acts takes: with the table that grows for it.
const WRITE_BYTES_MAX: u64 = 4_000;

proptest! {
    #[test]
    fn bound_and_classes_hold_under_any_writes(
        policy in 0..EvictionPolicy::ALL.len(),
        acts in proptest::collection::vec(acts(), 1..400),
    ) {
        const BOUND: u64 = 16_000;
        const TTL_END_MS: u64 = 1 << 40;
        let policy = EvictionPolicy::ALL[policy];
        let never = NeverEvict::when(|key, _| is_kept(key[0]));
        let engine = engine(BOUND, EvictionConfig { never, ..by(policy) });
        // Keys that must be there, by whether they have a time to live.
        let mut there: HashMap<u8, bool> = HashMap::new();
        for (step, act) in acts.into_iter().enumerate() {
            let now_ms = step as u64 * 700;
            let expiry = |has_ttl| if has_ttl { Expiry::At(TTL_END_MS) } else { Expiry::Clear };
            let evicted_before = engine.stats().evicted_total;
            match act {
                Act::Set { key, bytes, has_ttl } => {
                    let value = vec![0; usize::from(bytes)];
                    if engine.update(&[key], now_ms, |slot| slot.set_str(&[&value], expiry(has_ttl))).is_ok() {
                        there.insert(key, has_ttl);
                    }
                }
                Act::Insert { key, field, bytes } => {
                    let value = vec![0; usize::from(bytes)];
                    let insert = engine.update(&[key], now_ms, |slot| slot.hash_mut()?.insert(&[field], &value));
                    if insert.is_ok() {
                        there.insert(key, has_deadline(&engine, key, now_ms));
                    }
                }
                Act::Rank { key, member } => {
                    let insert = engine.update(&[key], now_ms, |slot| slot.sorted_set_mut()?.insert(&member.to_le_bytes(), 1.0));
                    if insert.is_ok() {
                        there.insert(key, has_deadline(&engine, key, now_ms));
                    }
                }
                Act::Remove { key } => {
                    engine.update(&[key], now_ms, |slot| slot.remove());
                    there.remove(&key);
                }
                Act::Read { key } => engine.read(&[key], now_ms, |_| ()),
                Act::SetExpiry { key, has_ttl } => {
                    if engine.update(&[key], now_ms, |slot| slot.set_expiry(expiry(has_ttl))) {
                        there.insert(key, has_ttl);
                    }
                }
                Act::Cycle => _ = engine.evict_cycle(now_ms, 10),
            }
            let used = used(&engine);
            prop_assert!(used <= BOUND + WRITE_BYTES_MAX, "{policy}: {used} in use");
            if policy == EvictionPolicy::NoEviction {
                prop_assert_eq!(evicted_before, engine.stats().evicted_total);
            }
            for (key, has_ttl) in &there {
                let may_go = !is_kept(*key) && (*has_ttl || !policy.needs_ttl()) && policy != EvictionPolicy::NoEviction;
                let is_there = engine.read(&[*key], 0, |value| value.is_some());
                prop_assert!(may_go || is_there, "{policy}: {key} is gone");
            }
            there.retain(|key, _| engine.read(&[*key], 0, |value| value.is_some()));
        }
    }
}

/// Which keys an exact policy would keep: a cache of `capacity` keys that always evicts the worst.
struct Exact {
    is_lfu: bool,
    capacity: usize,
    clock: u64,
    /// What each key is judged by.
    worth: HashMap<u64, (u64, u64)>,
    order: BTreeSet<(u64, u64, u64)>,
}

impl Exact {
    /// Uses a key; returns whether it was there.
    fn uses(&mut self, key: u64) -> bool {
        self.clock += 1;
        let before = self.worth.remove(&key);
        if let Some((uses, at)) = before {
            self.order.remove(&(uses, at, key));
        } else if self.worth.len() == self.capacity
            && let Some((uses, at, worst)) = self.order.pop_first()
        {
            debug_assert_eq!(self.worth.get(&worst), Some(&(uses, at)));
            self.worth.remove(&worst);
        }
        let uses = if self.is_lfu { before.map_or(0, |(uses, _)| uses) + 1 } else { 0 };
        self.worth.insert(key, (uses, self.clock));
        self.order.insert((uses, self.clock, key));
        before.is_some()
    }
}

/// A number in `0..count`, lower ones more often: about by Zipf's law with exponent 1.
fn skewed(random: &mut Random, count: u64) -> u64 {
    let unit = random.below(1 << 30) as f64 / f64::from(1 << 30);
    ((count as f64).powf(unit) as u64 - 1).min(count - 1)
}

/// Between two requests: the unit in which uses are told apart.
const SECOND_MS: u64 = 1_000;

/// Which key is asked for, step by step.
type Trace = fn(&mut Random, u64) -> u64;

fn zipf(random: &mut Random, _: u64) -> u64 {
    skewed(random, 20_000)
}

/// In every other block of requests a scan asks for keys that nobody asks for again.
fn scanned(random: &mut Random, step: u64) -> u64 {
    if (step / 1_000).is_multiple_of(2) { skewed(random, 20_000) } else { 1_000_000 + step }
}

/// Hits in a thousand of a cache of about `CACHED` keys: of the engine, and of an exact one of as many keys.
fn hit_rates(policy: EvictionPolicy, step_ms: u64, trace: Trace, seed: u64) -> (u64, u64) {
    const STEPS: u64 = 60_000;
    const BOUND: u64 = 300_000;
    let engine = engine(BOUND, EvictionConfig { samples: 10, ..by(policy) });
    let mut random = Random::new(seed);
    let (mut hits, mut requests) = (0, Vec::new());
    for step in 0..STEPS {
        let key = trace(&mut random, step);
        requests.push(key);
        let (name, now_ms) = (format!("key:{key}"), step * step_ms);
        if has(&engine, &name, now_ms) {
            hits += u64::from(step >= STEPS / 2);
        } else {
            set(&engine, &name, 100, Expiry::Clear, now_ms).expect("something can go");
        }
    }
    let mut exact = Exact {
        is_lfu: policy.is_lfu(),
        capacity: engine.len(),
        clock: 0,
        worth: HashMap::new(),
        order: BTreeSet::new(),
    };
    let exact_hits: u64 =
        (0..).zip(&requests).map(|(step, key)| u64::from(exact.uses(*key) && step >= STEPS / 2)).sum();
    let per_thousand = |hits: u64| hits * 1_000 / (STEPS / 2);
    (per_thousand(hits), per_thousand(exact_hits))
}

#[test]
fn sampled_lru_hits_nearly_as_often_as_an_exact_one() {
    for (name, trace) in [("zipf", zipf as Trace), ("scanned", scanned)] {
        for seed in 1..=3 {
            let (sampled, exact) = hit_rates(EvictionPolicy::AllKeysLru, SECOND_MS, trace, seed);
            println!("lru, {name}, seed {seed}: {sampled} of a thousand, exactly {exact}");
            assert!(sampled + 30 >= exact, "{name}, seed {seed}: {sampled} of a thousand, exactly {exact}");
        }
    }
}

#[test]
fn sampled_lfu_hits_nearly_as_often_as_an_exact_one() {
    for (name, trace) in [("zipf", zipf as Trace), ("scanned", scanned)] {
        for seed in 1..=3 {
            let (sampled, exact) = hit_rates(EvictionPolicy::AllKeysLfu, 1, trace, seed);
            println!("lfu, {name}, seed {seed}: {sampled} of a thousand, exactly {exact}");
            assert!(sampled + 20 >= exact, "{name}, seed {seed}: {sampled} of a thousand, exactly {exact}");
        }
    }
}

#[cfg(feature = "commands")]
mod commands {
    use crate::{
        Client, ClientOptions, Engine, EngineConfig, EvictionConfig, EvictionPolicy, Flow, Instance, InstanceConfig,
        NeverEvict,
    };

    fn client(never: NeverEvict) -> Client {
        let eviction = EvictionConfig { never, policy: EvictionPolicy::AllKeysLru, ..EvictionConfig::default() };
        let engine = Engine::new(EngineConfig { segments: 16, eviction, ..EngineConfig::default() });
        let instance = Instance::new(engine, InstanceConfig::default());
        Client::connect(&instance, ClientOptions::default())
    }

    fn send(client: &mut Client, command: &str) -> String {
        let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        let mut out = Vec::new();
        assert_eq!(client.execute(&words, 1_000_000_000, &mut out), Flow::Done);
        String::from_utf8_lossy(&out).into_owned()
    }

    const REFUSED: &str = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";

    fn field(client: &mut Client, section: &str, name: &str) -> u64 {
        let info = send(client, &format!("INFO {section}"));
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{name} in {info}"))
    }

    #[test]
    fn collections_grow_within_the_bound_as_strings_do() {
        let mut client = client(NeverEvict::NONE);
        assert_eq!(send(&mut client, "CONFIG SET maxmemory 100kb"), "+OK\r\n");
        for number in 0..3_000 {
            let command = match number % 4 {
                0 => format!("RPUSH list:{} {}", number % 60, "x".repeat(100)),
                1 => format!("SADD set:{} member-{number}", number % 70),
                2 => format!("HSET hash:{number} field {}", "x".repeat(100)),
                _ => format!("ZADD zset:{} {number} member-{number}", number % 50),
            };
            let reply = send(&mut client, &command);
            assert!(reply.starts_with(':'), "{command}: {reply}");
            let used = client.instance_bytes();
            assert!(used < (100 << 10) + 10_000, "{used} in use after {command}");
        }
        assert!(field(&mut client, "stats", "evicted_keys") > 100);
        send(&mut client, "CONFIG RESETSTAT");
        assert_eq!(field(&mut client, "stats", "evicted_keys"), 0);
    }

    #[test]
    fn evictions_are_events_and_keys_that_are_kept_lead_to_the_error_of_redis() {
        let mut client = client(NeverEvict::matching(["kept:*"]));
        send(&mut client, "CONFIG SET maxmemory 20kb notify-keyspace-events Ee");
        send(&mut client, "SET goes value");
        let mut listener = {
            let instance = client.instance();
            let mut listener = Client::connect(&instance, ClientOptions::default());
            send(&mut listener, "SUBSCRIBE __keyevent@0__:evicted");
            listener
        };
        let refused = (0..1_000).find(|number| send(&mut client, &format!("SET kept:{number} value")) == REFUSED);
        let kept = refused.expect("nothing else may go");
        assert_eq!(send(&mut client, "DBSIZE"), format!(":{kept}\r\n"));
        assert_eq!(send(&mut client, "SADD more member"), REFUSED);
        let advice = send(&mut client, "MEMORY DOCTOR");
        assert!(advice.contains("nothing may be evicted"), "{advice}");
        for number in 0..kept / 2 {
            assert_eq!(send(&mut client, &format!("DEL kept:{number}")), ":1\r\n");
        }
        assert_eq!(send(&mut client, "SADD more member"), ":1\r\n");
        let mut mail = Vec::new();
        listener.receive(&mut mail);
        assert!(String::from_utf8_lossy(&mail).contains("goes"), "{}", mail.escape_ascii());
    }

    #[test]
    fn bound_that_is_lowered_in_a_transaction_is_kept_to_afterwards() {
        let mut client = client(NeverEvict::NONE);
        (0..1_000).for_each(|number| assert_eq!(send(&mut client, &format!("SET key:{number} value")), "+OK\r\n"));
        for command in ["MULTI", "SET key:1 value", "CONFIG SET maxmemory 20kb", "SET key:2 value", "EXEC"] {
            assert!(!send(&mut client, command).contains('-'), "{command}");
        }
        for _ in 0..20 {
            client.instance().housekeeping(1_000_000_000, 100);
        }
        let used = client.instance_bytes();
        assert!(used < 20 << 10, "{used}");
    }

    impl Client {
        fn instance(&self) -> std::sync::Arc<Instance> {
            self.instance_of_tests()
        }

        fn instance_bytes(&self) -> u64 {
            self.instance().databases.first().keyspace().context.memory.used_bytes()
        }
    }
}
