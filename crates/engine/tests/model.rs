//! Random operations on the engine, compared step by step with a plain map that removes nothing but by the clock.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use acteon_engine::{ChangeLog, Engine, EngineConfig, EngineError, Expiry, Ref, Slot};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::{prop_assert, prop_assert_eq, proptest};

/// Few keys, so that operations meet; some share a prefix, one is empty, one is a prefix of others.
const KEYS: [&str; 12] =
    ["", "a", "a/", "a/1", "a/10", "a/2", "a/\u{7f}", "b", "b/1", "b/2", "b/\u{7f}x", "longer/than/sixteen/bytes"];

#[derive(Default)]
struct Log(Mutex<Vec<Vec<u8>>>);

impl ChangeLog for Log {
    fn append(&self, group: &[u8]) -> u64 {
        let mut groups = self.0.lock().expect("nobody panics while holding it");
        groups.push(group.to_vec());
        groups.len() as u64
    }

    fn is_writable(&self) -> bool {
        true
    }
}

#[derive(Clone, Debug)]
enum Op {
    Put {
        key: usize,
        value: Vec<u8>,
        expiry: Expires,
    },
    PutIfAbsent {
        key: usize,
        value: Vec<u8>,
    },
    Append {
        key: usize,
        tail: Vec<u8>,
    },
    FlipInPlace {
        key: usize,
    },
    Remove {
        key: usize,
    },
    SetExpiry {
        key: usize,
        expiry: Expires,
    },
    HashInsert {
        key: usize,
        field: u8,
        value: Vec<u8>,
    },
    HashRemove {
        key: usize,
        field: u8,
    },
    SetInsert {
        key: usize,
        member: u8,
        score: i8,
    },
    SetRemove {
        key: usize,
        member: u8,
    },
    SetRemoveRange {
        key: usize,
        score_min: i8,
        score_max: i8,
    },
    /// Moves a string in one step; the keys may be the same.
    Rename {
        from: usize,
        to: usize,
    },
    Scan {
        prefix: usize,
        after: Option<usize>,
        limit: usize,
    },
    Advance {
        ms: u64,
    },
    Cycle {
        budget: u32,
    },
    Clear,
}

/// An expiry relative to now; negative is in the past.
#[derive(Clone, Copy, Debug)]
enum Expires {
    Keep,
    Clear,
    In(i64),
}

impl Expires {
    fn at(self, now_ms: u64) -> Expiry {
        match self {
            Self::Keep => Expiry::Keep,
            Self::Clear => Expiry::Clear,
            Self::In(ms) => Expiry::At(now_ms.saturating_add_signed(ms)),
        }
    }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = || 0..KEYS.len();
    let value = || vec(any::<u8>(), 0..6);
    let expires = || prop_oneof![Just(Expires::Keep), Just(Expires::Clear), (-2_i64..30).prop_map(Expires::In)];
    let op = prop_oneof![
        6 => (key(), value(), expires()).prop_map(|(key, value, expiry)| Op::Put { key, value, expiry }),
        1 => (key(), value()).prop_map(|(key, value)| Op::PutIfAbsent { key, value }),
        2 => (key(), value()).prop_map(|(key, tail)| Op::Append { key, tail }),
        1 => key().prop_map(|key| Op::FlipInPlace { key }),
        2 => key().prop_map(|key| Op::Remove { key }),
        3 => (key(), expires()).prop_map(|(key, expiry)| Op::SetExpiry { key, expiry }),
        3 => (key(), 0_u8..3, value()).prop_map(|(key, field, value)| Op::HashInsert { key, field, value }),
        2 => (key(), 0_u8..3).prop_map(|(key, field)| Op::HashRemove { key, field }),
        3 => (key(), 0_u8..5, -3_i8..3).prop_map(|(key, member, score)| Op::SetInsert { key, member, score }),
        1 => (key(), 0_u8..5).prop_map(|(key, member)| Op::SetRemove { key, member }),
        1 => (key(), -3_i8..3, -3_i8..3)
            .prop_map(|(key, score_min, score_max)| Op::SetRemoveRange { key, score_min, score_max }),
        2 => (key(), key()).prop_map(|(from, to)| Op::Rename { from, to }),
        3 => (key(), proptest::option::of(key()), 0_usize..5)
            .prop_map(|(prefix, after, limit)| Op::Scan { prefix, after, limit }),
        5 => (0_u64..10).prop_map(|ms| Op::Advance { ms }),
        2 => (0_u32..40).prop_map(|budget| Op::Cycle { budget }),
        1 => Just(Op::Clear),
    ];
    vec(op, 1..150)
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Str(Vec<u8>),
    Hash(BTreeMap<u8, Vec<u8>>),
    SortedSet(BTreeMap<u8, i8>),
}

impl Value {
    fn of(value: Ref<'_>) -> Self {
        if let Some(bytes) = value.as_str() {
            return Self::Str(bytes.to_vec());
        }
        if let Some(hash) = value.hash() {
            return Self::Hash(hash.iter().map(|(field, value)| (field[0], value.to_vec())).collect());
        }
        let set = value.sorted_set().expect("one of three kinds");
        let members: Vec<_> = set.iter().collect();
        assert!(members.is_sorted_by(|a, b| (a.1, a.0) < (b.1, b.0)), "range is in order");
        assert!(members.iter().all(|(member, score)| set.score(member) == Some(*score)));
        assert_eq!(set.by_rank(0), members.first().copied());
        Self::SortedSet(members.into_iter().map(|(member, score)| (member[0], score as i8)).collect())
    }
}

/// What the engine promises, without any of its means.
#[derive(Default)]
struct Model {
    now_ms: u64,
    entries: BTreeMap<Vec<u8>, (Value, Option<u64>)>,
}

impl Model {
    fn forget_expired(&mut self) {
        let now_ms = self.now_ms;
        self.entries.retain(|_, (_, expires_at_ms)| expires_at_ms.is_none_or(|at_ms| now_ms <= at_ms));
    }

    fn get(&self, key: &[u8]) -> Option<(Value, Option<u64>)> {
        self.entries.get(key).cloned()
    }

    fn put(&mut self, key: &[u8], value: Value, expiry: Expiry) {
        let current = self.entries.get(key).and_then(|(_, expires_at_ms)| *expires_at_ms);
        let expires_at_ms = match expiry {
            Expiry::Keep => current,
            Expiry::Clear => None,
            Expiry::At(at_ms) => Some(at_ms),
        };
        self.entries.insert(key.to_vec(), (value, expires_at_ms));
        self.forget_expired();
    }

    /// Changes a collection and removes it when it is empty; `None` for a wrong type.
    fn change<T>(&mut self, key: &[u8], empty: Value, change: impl FnOnce(&mut Value) -> Option<T>) -> Option<T> {
        let (value, _) = self.entries.entry(key.to_vec()).or_insert((empty, None));
        let result = change(value);
        let is_empty = match value {
            Value::Str(_) => false,
            Value::Hash(fields) => fields.is_empty(),
            Value::SortedSet(members) => members.is_empty(),
        };
        if is_empty {
            self.entries.remove(key);
        }
        result
    }

    fn change_hash<T>(&mut self, key: &[u8], change: impl FnOnce(&mut BTreeMap<u8, Vec<u8>>) -> T) -> Option<T> {
        self.change(key, Value::Hash(BTreeMap::new()), |value| match value {
            Value::Hash(fields) => Some(change(fields)),
            _ => None,
        })
    }

    fn change_set<T>(&mut self, key: &[u8], change: impl FnOnce(&mut BTreeMap<u8, i8>) -> T) -> Option<T> {
        self.change(key, Value::SortedSet(BTreeMap::new()), |value| match value {
            Value::SortedSet(members) => Some(change(members)),
            _ => None,
        })
    }

    fn keys(&self, prefix: &[u8], after: Option<&[u8]>) -> Vec<Vec<u8>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = self.entries.range::<[u8], _>((from, Bound::Unbounded)).map(|(key, _)| key.clone());
        keys.filter(|key| key.starts_with(prefix)).collect()
    }
}

fn key(index: usize) -> &'static [u8] {
    KEYS[index].as_bytes()
}

fn get(slot: &Slot<'_>) -> Option<(Value, Option<u64>)> {
    slot.get().map(|value| (Value::of(value), value.expires_at_ms()))
}

/// A refusal for the wrong type is the model's `None`; nothing else may be refused.
fn typed<T>(result: Result<T, EngineError>) -> Option<T> {
    match result {
        Ok(result) => Some(result),
        Err(EngineError::WrongType) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Applies an operation to both sides and compares what they return.
fn apply(engine: &Engine, model: &mut Model, op: &Op) {
    let now_ms = model.now_ms;
    match op {
        Op::Put { key: k, value, expiry } => {
            let (head, tail) = value.split_at(value.len() / 2);
            engine.update(key(*k), now_ms, |slot| slot.set_str(&[head, tail], expiry.at(now_ms))).expect("unbounded");
            model.put(key(*k), Value::Str(value.clone()), expiry.at(now_ms));
        }
        Op::PutIfAbsent { key: k, value } => {
            let stored = engine
                .update(key(*k), now_ms, |slot| slot.get().is_none() && slot.set_str(&[value], Expiry::Keep).is_ok());
            assert_eq!(stored, model.get(key(*k)).is_none());
            if stored {
                model.put(key(*k), Value::Str(value.clone()), Expiry::Keep);
            }
        }
        Op::Append { key: k, tail } => append(engine, model, key(*k), tail),
        Op::FlipInPlace { key: k } => {
            let flip = |bytes: &mut [u8]| bytes.iter_mut().for_each(|byte| *byte ^= 0xff);
            engine.update(key(*k), now_ms, |slot| {
                let Some(mut bytes) = slot.get().and_then(|value| value.as_str().map(<[u8]>::to_vec)) else { return };
                flip(&mut bytes);
                assert!(slot.overwrite(0, &bytes));
            });
            if let Some((Value::Str(bytes), _)) = model.entries.get_mut(key(*k)) {
                flip(bytes);
            }
        }
        Op::Remove { key: k } => {
            let removed = engine.update(key(*k), now_ms, |slot| slot.remove());
            assert_eq!(removed, model.entries.remove(key(*k)).is_some());
        }
        Op::SetExpiry { key: k, expiry } => {
            let found = engine.update(key(*k), now_ms, |slot| slot.set_expiry(expiry.at(now_ms)));
            let current = model.get(key(*k));
            assert_eq!(found, current.is_some());
            if let Some((value, _)) = current {
                model.put(key(*k), value, expiry.at(now_ms));
            }
        }
        Op::Rename { from, to } => rename(engine, model, key(*from), key(*to)),
        Op::Scan { prefix, after, limit } => scan(engine, model, key(*prefix), after.map(key), *limit),
        Op::Advance { ms } => {
            model.now_ms += ms;
            model.forget_expired();
        }
        Op::Cycle { budget } => {
            let report = engine.expire_cycle(now_ms, *budget);
            assert!(report.visited <= u64::from((*budget).max(16)));
            assert!(report.ran_out || engine.len() == model.entries.len(), "a whole cycle leaves nothing expired");
        }
        Op::Clear => {
            engine.clear();
            model.entries.clear();
        }
        _ => apply_to_collection(engine, model, op),
    }
}

fn apply_to_collection(engine: &Engine, model: &mut Model, op: &Op) {
    let now_ms = model.now_ms;
    match op {
        Op::HashInsert { key: k, field, value } => {
            let is_new = engine.update(key(*k), now_ms, |slot| slot.hash_mut()?.insert(&[*field], value));
            let expected = model.change_hash(key(*k), |fields| fields.insert(*field, value.clone()).is_none());
            assert_eq!(typed(is_new), expected);
        }
        Op::HashRemove { key: k, field } => {
            let old = engine.update(key(*k), now_ms, |slot| Ok(slot.hash_mut()?.remove(&[*field])));
            let expected = model.change_hash(key(*k), |fields| fields.remove(field).map(Vec::into_boxed_slice));
            assert_eq!(typed(old), expected);
        }
        Op::SetInsert { key: k, member, score } => {
            let is_new =
                engine.update(key(*k), now_ms, |slot| slot.sorted_set_mut()?.insert(&[*member], f64::from(*score)));
            let expected = model.change_set(key(*k), |members| members.insert(*member, *score).is_none());
            assert_eq!(typed(is_new), expected);
        }
        Op::SetRemove { key: k, member } => {
            let score = engine.update(key(*k), now_ms, |slot| Ok(slot.sorted_set_mut()?.remove(&[*member])));
            let expected = model.change_set(key(*k), |members| members.remove(member).map(f64::from));
            assert_eq!(typed(score), expected);
        }
        Op::SetRemoveRange { key: k, score_min, score_max } => {
            let scores = f64::from(*score_min)..=f64::from(*score_max);
            let removed = engine.update(key(*k), now_ms, |slot| Ok(slot.sorted_set_mut()?.remove_range(scores)));
            let expected = model.change_set(key(*k), |members| {
                let before = members.len();
                members.retain(|_, score| !(*score_min..=*score_max).contains(score));
                before - members.len()
            });
            assert_eq!(typed(removed), expected);
        }
        other => unreachable!("{other:?} is not about a collection"),
    }
}

fn append(engine: &Engine, model: &mut Model, key: &[u8], tail: &[u8]) {
    engine.update(key, model.now_ms, |slot| {
        let head = slot.get().and_then(|value| value.as_str()).map(<[u8]>::to_vec).unwrap_or_default();
        slot.set_str(&[&head, tail], Expiry::Keep).expect("unbounded");
    });
    let mut bytes = match model.get(key) {
        Some((Value::Str(bytes), _)) => bytes,
        _ => Vec::new(),
    };
    bytes.extend_from_slice(tail);
    model.put(key, Value::Str(bytes), Expiry::Keep);
}

fn rename(engine: &Engine, model: &mut Model, from: &[u8], to: &[u8]) {
    engine.update_many(&[from, to], model.now_ms, |slots| {
        let current = get(&slots.slot(0));
        if let Some((Value::Str(bytes), expires_at_ms)) = current {
            assert!(slots.slot(0).remove());
            let expiry = expires_at_ms.map_or(Expiry::Clear, Expiry::At);
            slots.slot(1).set_str(&[&bytes], expiry).expect("unbounded");
        }
    });
    if let Some((value @ Value::Str(_), expires_at_ms)) = model.get(from) {
        model.entries.remove(from);
        model.entries.insert(to.to_vec(), (value, expires_at_ms));
    }
}

fn scan(engine: &Engine, model: &Model, prefix: &[u8], after: Option<&[u8]>, limit: usize) {
    let mut page = Vec::new();
    let more = engine.scan(prefix, after, limit, model.now_ms, |key, value| {
        assert_eq!(model.get(key), Some((Value::of(value), value.expires_at_ms())));
        page.push(key.to_vec());
    });
    let expected = model.keys(prefix, after);
    assert_eq!(page, expected[..limit.min(expected.len())]);
    // `more` may be true when only expired keys follow, but never false when a live one does.
    assert!(more || expected.len() <= limit);
}

proptest! {
    #[test]
    fn engine_behaves_like_a_map_with_a_clock(segments_log2 in 0_u32..4, seed in any::<u64>(), ops in ops()) {
        let config = EngineConfig {
            segments: 1 << segments_log2,
            hash_seed: Some(seed),
            // Never reached; makes the engine keep its shared account.
            memory_bytes_max: Some(1 << 40),
            ..EngineConfig::default()
        };
        let engine = Engine::new(config);
        // Whatever happens, its changes lead another engine to the same state.
        let (log, copy) = (Arc::new(Log::default()), Engine::new(EngineConfig { segments: 2, ..EngineConfig::default() }));
        engine.attach_log(log.clone());
        let mut model = Model { now_ms: 100, ..Model::default() };
        for op in &ops {
            apply(&engine, &mut model, op);
            let groups = std::mem::take(&mut *log.0.lock().expect("nobody panics while holding it"));
            prop_assert!(groups.len() <= 1, "one update is one group");
            for group in groups {
                prop_assert_eq!(copy.apply(&group), Ok(()));
            }
            prop_assert_eq!(copy.digest(model.now_ms), engine.digest(model.now_ms));
            if matches!(op, Op::Advance { .. }) {
                // Reads remove what expired; the next operation is to meet it.
                continue;
            }
            for key in KEYS {
                let seen = engine.read(key.as_bytes(), model.now_ms, |value| {
                    value.map(|value| (Value::of(value), value.expires_at_ms()))
                });
                prop_assert_eq!(seen, model.get(key.as_bytes()));
            }
        }
        while engine.expire_cycle(model.now_ms, 100).ran_out {}
        let with_ttl = model.entries.values().filter(|(_, expires_at_ms)| expires_at_ms.is_some()).count();
        prop_assert_eq!(engine.stats().keys, model.entries.len() as u64);
        prop_assert_eq!(engine.stats().keys_with_ttl, with_ttl as u64);
        for key in KEYS {
            engine.update(key.as_bytes(), model.now_ms, |slot| slot.remove());
        }
        prop_assert_eq!(engine.stats().bytes, engine.stats().table_bytes);
        prop_assert_eq!(engine.stats().keys_with_ttl, 0);
    }

    #[test]
    fn background_cycles_alone_remove_exactly_what_expired(
        segments_log2 in 0_u32..3,
        deadlines_ms in vec(proptest::option::of(0_u64..200), 1..400),
        steps in vec((0_u64..20, 0_u32..200), 1..30),
        overwritten in vec((0_usize..400, proptest::option::of(0_u64..200)), 0..100),
    ) {
        let engine = Engine::new(EngineConfig { segments: 1 << segments_log2, ..EngineConfig::default() });
        let mut deadlines = BTreeMap::new();
        for (number, deadline) in deadlines_ms.into_iter().enumerate().chain(overwritten) {
            let expiry = deadline.map_or(Expiry::Clear, Expiry::At);
            engine.update(&number.to_le_bytes(), 0, |slot| slot.set_str(&[b"v"], expiry)).expect("unbounded");
            deadlines.insert(number, deadline);
        }
        let mut now_ms = 0;
        for (ms, budget) in steps {
            now_ms += ms;
            while engine.expire_cycle(now_ms, budget).ran_out {}
            deadlines.retain(|_, deadline| deadline.is_none_or(|at_ms| now_ms <= at_ms));
            // No reads before this: they would remove what a cycle has missed.
            prop_assert_eq!(engine.len(), deadlines.len());
        }
    }
}
