//! An instance with a log, its clients, and an engine that follows the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;

use super::restored;
use super::words::Words;
use crate::change::ChangeLog;
use crate::change::op::Ops;
use crate::entry::{EntryRef, is_expired};
use crate::value::CollectionValue;
use crate::{Client, ClientOptions, Engine, EngineConfig, Expiry, Flow, Instance, InstanceConfig};

/// A log in memory.
pub(crate) struct Memory {
    groups: Mutex<Vec<Vec<u8>>>,
    is_full: AtomicBool,
    /// How often it still says that it is not full.
    asks_left: AtomicU32,
}

impl Default for Memory {
    fn default() -> Self {
        Self { groups: Mutex::default(), is_full: AtomicBool::new(false), asks_left: AtomicU32::new(u32::MAX) }
    }
}

impl Memory {
    pub(crate) fn groups(&self) -> Vec<Vec<u8>> {
        self.groups.lock().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.groups.lock().len()
    }

    pub(super) fn set_writable(&self, is_writable: bool) {
        self.is_full.store(!is_writable, Ordering::SeqCst);
    }

    /// Becomes full once it was asked so often whether it is.
    pub(super) fn fill_after(&self, asks: u32) {
        self.asks_left.store(asks, Ordering::SeqCst);
    }

    /// Leaves empty groups in the place of those that there are.
    pub(super) fn forget(&self) {
        self.groups.lock().iter_mut().for_each(Vec::clear);
    }
}

impl ChangeLog for Memory {
    fn append(&self, group: &[u8]) -> u64 {
        assert!(!group.is_empty(), "an empty group says nothing");
        let mut groups = self.groups.lock();
        groups.push(group.to_vec());
        groups.len() as u64
    }

    fn is_writable(&self) -> bool {
        let asked = self.asks_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
            // Never full by being asked.
            u32::MAX => Some(left),
            left => left.checked_sub(1),
        });
        asked.is_ok() && !self.is_full.load(Ordering::SeqCst)
    }

    fn refusal(&self) -> Option<String> {
        Some("No space left on device".to_owned())
    }
}

/// A connection.
pub(crate) struct Tester {
    pub(crate) client: Client,
    is_waiting: bool,
}

impl Tester {
    pub(crate) fn new(instance: &Arc<Instance>) -> Self {
        Self { client: Client::connect(instance, ClientOptions::default()), is_waiting: false }
    }

    /// Goes on with what it waits for. Returns whether it is free.
    pub(crate) fn resume(&mut self, now_us: u64) -> bool {
        if self.is_waiting {
            self.is_waiting = matches!(self.client.resume(now_us, &mut Vec::new()), Flow::Blocked { .. });
        }
        !self.is_waiting
    }

    pub(crate) fn execute(&mut self, args: &[Vec<u8>], now_us: u64) -> Vec<u8> {
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        loop {
            let mut reply = Vec::new();
            match self.client.execute(&args, now_us, &mut reply) {
                Flow::Retry => std::thread::yield_now(),
                flow => {
                    self.is_waiting = matches!(flow, Flow::Blocked { .. });
                    return reply;
                }
            }
        }
    }
}

pub(crate) struct Lab {
    seed: u64,
    words: Words,
    instance: Arc<Instance>,
    pub(crate) engine: Engine,
    pub(crate) log: Arc<Memory>,
    replica: Engine,
    applied: usize,
    testers: Vec<Tester>,
    now_us: u64,
    /// The latest time that any clock has shown.
    newest_us: u64,
    clocks_differ: bool,
    dumped: Vec<u8>,
    /// The latest commands, for who has to find out what went wrong.
    history: Vec<String>,
}

impl Lab {
    pub(crate) fn new(seed: u64) -> Self {
        // Few segments, so that keys meet.
        let engine = Engine::new(EngineConfig { segments: 4, hash_seed: Some(seed), ..EngineConfig::default() });
        let log = Arc::new(Memory::default());
        assert!(engine.attach_log(log.clone()));
        let instance = Instance::new(engine.clone(), InstanceConfig { seed, ..InstanceConfig::default() });
        let testers = (0..4).map(|_| Tester::new(&instance)).collect();
        // Others in another order and number of segments.
        let replica = Engine::new(EngineConfig { segments: 2, hash_seed: Some(!seed), ..EngineConfig::default() });
        let words = Words::new(seed);
        let (dumped, history) = (Vec::new(), Vec::new());
        Self {
            seed,
            words,
            instance,
            engine,
            log,
            replica,
            applied: 0,
            testers,
            now_us: 1_000_000_000,
            newest_us: 1_000_000_000,
            clocks_differ: false,
            dumped,
            history,
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_us / 1_000
    }

    pub(crate) fn groups(&self) -> usize {
        self.log.len()
    }

    pub(crate) fn advance(&mut self, ms: u64) {
        self.now_us += ms * 1_000;
        self.newest_us = self.newest_us.max(self.now_us);
    }

    /// From now on the clocks of those who write go apart, as those of threads and of hosts do.
    pub(super) fn let_clocks_differ(&mut self) {
        self.clocks_differ = true;
    }

    /// Goes on by a clock that is behind the fastest one, by up to a little more than keys live.
    fn exchange_clocks(&mut self) {
        let behind_us = self.words.below(60) as u64 * 1_000;
        self.now_us = self.newest_us.saturating_sub(behind_us);
        self.history.push(format!("clock at {}", self.now_ms()));
    }

    /// Follows from now on as somebody who has come up from a snapshot, read by a clock of its own.
    pub(super) fn follow_from_snapshot(&mut self) {
        self.check("before a snapshot");
        let snapshot = self.engine.cut(self.now_ms(), || ()).expect("no other snapshot runs");
        // What expires before it is written out may be missing.
        self.instance.housekeeping(self.newest_us, 20);
        self.replica = restored(snapshot);
        self.history.push("snapshot".to_owned());
        self.check("after a snapshot");
    }

    /// The reply to `line`, whose words are separated by blanks.
    pub(crate) fn execute(&mut self, tester: usize, line: &str) -> String {
        let args: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        String::from_utf8_lossy(&self.testers[tester].execute(&args, self.now_us)).into_owned()
    }

    /// Something happens.
    pub(crate) fn step(&mut self) {
        let before = self.groups();
        let nobody_waited = self.testers.iter().all(|tester| !tester.is_waiting);
        let mut groups_max = usize::MAX;
        match self.words.below(100) {
            0..8 => {
                self.transaction();
                groups_max = 1;
            }
            8..16 => {
                let (now_ms, free) = (self.now_ms(), self.free());
                let script = self.words.script(now_ms);
                self.run(free, &script);
                groups_max = 1;
            }
            16..22 => {
                let (now_ms, free) = (self.now_ms(), self.free());
                let wait = self.words.wait(now_ms);
                self.run(free, &wait);
                groups_max = 1;
            }
            22..30 => {
                let ms = self.words.below(25) as u64;
                self.advance(ms);
            }
            30 if self.clocks_differ => self.exchange_clocks(),
            30..34 => {
                self.history.push("housekeeping".to_owned());
                self.instance.housekeeping(self.now_us, 20);
                groups_max = 0;
            }
            34..40 => self.embedded(),
            _ => {
                if self.single_command().is_some() {
                    groups_max = 1;
                }
            }
        }
        let groups = self.groups() - before;
        assert!(!nobody_waited || groups <= groups_max, "seed {}: {groups} groups\n{}", self.seed, self.story());
        self.check("");
    }

    /// A command by itself. Returns its name.
    pub(crate) fn single_command(&mut self) -> Option<String> {
        let (now_ms, free) = (self.now_ms(), self.free());
        let dumped = self.dumped(free);
        let command = self.words.command(now_ms, &dumped);
        self.run(free, &command);
        Some(String::from_utf8_lossy(&command[0]).into_owned())
    }

    fn transaction(&mut self) {
        let (now_ms, free) = (self.now_ms(), self.free());
        let dumped = self.dumped(free);
        self.run(free, &[b"MULTI".to_vec()]);
        for _ in 0..self.words.below(7) {
            let command = self.words.command(now_ms, &dumped);
            self.run(free, &command);
        }
        self.run(free, &[b"EXEC".to_vec()]);
    }

    /// What an embedding application does.
    fn embedded(&mut self) {
        let now_ms = self.now_ms();
        let member = [self.words.below(4) as u8];
        let choice = self.words.below(6);
        self.history.push(format!("embedded {choice} {member:?}"));
        let score = self.words.below(3) as f64;
        match choice {
            0 => drop(self.engine.update(b"h0", now_ms, |slot| slot.hash_mut()?.insert(&member, b"embedded"))),
            1 => drop(
                self.engine.update(b"h1", now_ms, |slot| Ok::<_, crate::EngineError>(slot.hash_mut()?.remove(&member))),
            ),
            2 => drop(self.engine.update(b"z0", now_ms, |slot| slot.sorted_set_mut()?.insert(&member, score))),
            3 => drop(self.engine.update(b"z1", now_ms, |slot| {
                let mut set = slot.sorted_set_mut()?;
                set.remove(b"f0");
                set.insert(b"f9", score)?;
                Ok::<_, crate::EngineError>(set.remove_range(score..=1.0))
            })),
            4 => self.engine.update_many(&[b"s0", b"s1", b"h2"], now_ms, |slots| {
                let _ = slots.slot(0).set_str(&[b"a", b"b"], Expiry::At(now_ms + 5));
                slots.slot(1).set_expiry(Expiry::At(now_ms + 9));
                slots.slot(2).remove();
                let _ = slots.slot(2).hash_mut().map(|mut hash| hash.insert_always(&member, b""));
                slots.slot(1).overwrite(0, b"Z");
            }),
            _ if self.words.below(10) == 0 => self.engine.clear(),
            _ => {}
        }
    }

    /// A client that does not wait.
    fn free(&mut self) -> usize {
        let now_us = self.now_us;
        if let Some(free) = self.testers.iter_mut().position(|tester| tester.resume(now_us)) {
            return free;
        }
        self.testers[0] = Tester::new(&self.instance);
        0
    }

    fn run(&mut self, tester: usize, args: &[Vec<u8>]) {
        let words: Vec<String> = args.iter().map(|arg| arg.escape_ascii().to_string()).collect();
        let reply = self.testers[tester].execute(args, self.now_us);
        let at = self.now_ms();
        self.history.push(format!("{at} [{tester}] {} -> {}", words.join(" "), reply.escape_ascii()));
    }

    /// The value of a key as DUMP says it, mostly one that is there.
    fn dumped(&mut self, tester: usize) -> Vec<u8> {
        let key = ["s0", "l0", "h0", "e0", "z0"][self.words.below(5)];
        let reply = self.testers[tester].execute(&[b"DUMP".to_vec(), key.as_bytes().to_vec()], self.now_us);
        let start = reply.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if let Some(payload) = reply.get(start..reply.len().saturating_sub(2)).filter(|payload| !payload.is_empty()) {
            self.dumped = payload.to_vec();
        }
        self.dumped.clone()
    }

    /// Applies what was recorded since the last check, and compares. Returns the number of groups.
    pub(crate) fn check(&mut self, hint: &str) -> usize {
        let groups: Vec<_> = self.log.groups().split_off(self.applied);
        self.applied += groups.len();
        for group in &groups {
            if let Err(error) = self.replica.apply(group) {
                panic!("seed {}, {hint}: {error}\n{}\n{}", self.seed, shown(group), self.story());
            }
        }
        // What has expired by the fastest clock may have been removed by it, and is there for those who follow.
        let now_ms = self.newest_us / 1_000;
        if self.engine.digest(now_ms) != self.replica.digest(now_ms) {
            let recorded: Vec<_> = groups.iter().map(|group| shown(group)).collect();
            let (expected, found) = (dump(&self.engine, now_ms), dump(&self.replica, now_ms));
            let differs =
                |(key, value): &(&String, &String)| expected.get(*key) != found.get(*key) && !value.is_empty();
            let missed: Vec<_> = expected.iter().filter(differs).collect();
            let wrong: Vec<_> = found.iter().filter(differs).collect();
            panic!(
                "seed {}, {hint}: the instance has {missed:#?}\nthe log leads to {wrong:#?}\nrecorded {recorded:#?}\n{}",
                self.seed,
                self.story()
            );
        }
        groups.len()
    }

    fn story(&self) -> String {
        const SHOWN: usize = 25;
        self.history[self.history.len().saturating_sub(SHOWN)..].join("\n")
    }
}

fn shown(group: &[u8]) -> String {
    let lines: Vec<_> = Ops::new(group).map(|change| format!("{change:?}")).collect();
    lines.join("\n")
}

/// All that an engine holds, as text.
pub(crate) fn dump(engine: &Engine, now_ms: u64) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (database, keyspace) in engine.family().all() {
        for number in 0..keyspace.segments.len() {
            let segment = keyspace.lock(number);
            for entry in segment.store.iter().filter(|entry| !is_expired(entry.expires_at_ms(), now_ms)) {
                let value = format!("{} until {:?}", value_text(entry), entry.expires_at_ms());
                all.insert(format!("{database} {}", entry.key().escape_ascii()), value);
            }
        }
    }
    all
}

fn value_text(entry: EntryRef<'_>) -> String {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let mut parts: Vec<String> = match entry {
        EntryRef::Str(string) => return format!("string {}", text(string.value())),
        EntryRef::Collection(collection) => match &collection.value {
            CollectionValue::List(list) => {
                return format!("list {:?}", list.iter().map(text).collect::<Vec<_>>());
            }
            CollectionValue::Hash(fields) => {
                fields.iter().map(|(field, value)| text(field) + "=" + &text(value)).collect()
            }
            CollectionValue::Set(set) => set.iter().map(|member| text(&member)).collect(),
            CollectionValue::SortedSet(set) => {
                // Without the sign of zero, as in a digest.
                set.iter().map(|(member, score)| format!("{}:{}", text(member), score + 0.0)).collect()
            }
        },
    };
    parts.sort();
    format!("{} {parts:?}", if let EntryRef::Collection(collection) = entry { collection.value.encoding() } else { "" })
}
