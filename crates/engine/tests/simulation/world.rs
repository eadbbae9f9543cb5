//! One run: the engine beside the model, moved on step by step by a seed.
//!
//! Nothing here takes time or runs by itself. What a client hears, whether it has been woken and in which order, and from time to time
//! all that is stored, has to be what the model says.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use acteon_engine::{Client, ClientOptions, Engine, EngineConfig, Expiry, Flow, Instance, InstanceConfig};

use crate::data::{DATABASES, Data, Kind, Value};
use crate::model::{self, Model};
use crate::plan::{Asking, Random, command};
use crate::script;
use crate::wire::{Reply, Wire, parse};

const CLIENTS: usize = 6;
/// Of six clients so many may wait: somebody has to be there to give.
const WAITING_MAX: usize = 4;
const START_US: u64 = 1_767_225_600_000_000;
/// Lines of the history that a failure shows.
const TAIL_LINES: usize = 60;

type Verdict<T> = Result<T, String>;

/// Runs so many steps. Returns the history, byte for byte what clients asked and heard.
pub(crate) fn run(seed: u64, steps: u32) -> Verdict<String> {
    let mut world = World::new(seed);
    for step in 0..steps {
        world.step().map_err(|what| world.failure(seed, step, &what))?;
    }
    world.settle().map_err(|what| world.failure(seed, steps, &what))?;
    Ok(world.history)
}

struct World {
    random: Random,
    now_us: u64,
    engine: Engine,
    instance: Arc<Instance>,
    model: Model,
    seats: Vec<Seat>,
    /// Looks at what is stored.
    observer: Client,
    /// The seats whose clients were woken in this step, in that order.
    woken: Arc<Mutex<Vec<usize>>>,
    sha: String,
    /// Members that the embedding application adds are new each time.
    members: u64,
    history: String,
}

/// A place for one client at a time.
struct Seat {
    client: Client,
    id: u64,
    /// It was woken and has not looked since.
    is_woken: Arc<AtomicBool>,
    /// A command that could not be carried out, to be tried again.
    postponed: Option<Vec<String>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let segments = [1, 2, 16, 1_024][random.below(4) as usize];
        let engine = Engine::new(EngineConfig { segments, hash_seed: Some(seed), ..EngineConfig::default() });
        let instance =
            Instance::new(engine.clone(), InstanceConfig { databases: DATABASES, seed, ..InstanceConfig::default() });
        let mut model = Model::default();
        model.set_time(START_US);
        let (mut observer, mut sha) = (Client::connect(&instance, ClientOptions::default()), Vec::new());
        model.connect();
        observer.execute(&[b"SCRIPT", b"LOAD", script::TEXT.as_bytes()], START_US, &mut sha);
        observer.execute(&[b"SCRIPT", b"FLUSH"], START_US, &mut Vec::new());
        let sha = String::from_utf8(sha).expect("text").lines().nth(1).expect("a text in two lines").to_owned();
        let woken = Arc::new(Mutex::new(Vec::new()));
        let seats = Vec::new();
        let mut world = Self {
            random,
            now_us: START_US,
            engine,
            instance,
            model,
            seats,
            observer,
            woken,
            sha,
            members: 0,
            history: String::new(),
        };
        for at in 0..CLIENTS {
            let seat = world.connect(at);
            world.seats.push(seat);
        }
        world
    }

    fn connect(&mut self, at: usize) -> Seat {
        let is_woken = Arc::new(AtomicBool::new(false));
        let (flag, log) = (is_woken.clone(), self.woken.clone());
        let waker = Box::new(move || {
            flag.store(true, Ordering::Relaxed);
            log.lock().expect("nobody panics").push(at);
        });
        let mut client = Client::connect(
            &self.instance,
            ClientOptions { waker, connected_us: self.now_us, ..ClientOptions::default() },
        );
        let id = self.model.connect();
        assert_eq!(client.id(), id, "connections are counted");
        if self.random.chance(40) {
            client.execute(&[b"HELLO", b"3"], self.now_us, &mut Vec::new());
            // The first command is no exception where all have to wait.
            self.model.client(id).is_resp3 = !self.model.is_paused_for_all();
        }
        Seat { client, id, is_woken, postponed: None }
    }

    fn step(&mut self) -> Verdict<()> {
        self.woken.lock().expect("nobody panics").clear();
        self.model.served.clear();
        match self.random.below(100) {
            0..72 => {
                let at = self.random.below(CLIENTS as u64) as usize;
                self.act(at)?;
            }
            72..88 => self.move_clock()?,
            88..94 => {
                let budget = [0, 16, 100][self.random.below(3) as usize];
                self.note(&format!("housekeeping of {budget}"));
                self.instance.housekeeping(self.now_us, budget);
            }
            94..97 => self.embed(),
            _ => self.compare()?,
        }
        self.check_wakes()
    }

    /// A client looks, asks for something, or goes away.
    fn act(&mut self, at: usize) -> Verdict<()> {
        let id = self.seats[at].id;
        if self.random.chance(2) {
            self.leave(at);
            return Ok(());
        }
        let is_waiting = self.model.client(id).is_waiting();
        if is_waiting || self.random.chance(10) {
            return self.look(at);
        }
        let args = match self.seats[at].postponed.take() {
            Some(args) => args,
            None => {
                let asking = self.asking(id);
                command(&mut self.random, &asking)
            }
        };
        self.execute(at, args)
    }

    fn asking(&mut self, id: u64) -> Asking {
        let waiting = self.model.clients.values().filter(|client| client.is_waiting()).count();
        let mut ids: Vec<u64> = self.seats.iter().map(|seat| seat.id).collect();
        if waiting > 0 && self.random.chance(60) {
            // Those who wait are the ones worth disturbing.
            ids.retain(|id| self.model.clients[id].is_waiting());
        }
        let client = &self.model.clients[&id];
        Asking {
            is_in_transaction: client.queue.is_some(),
            is_watching: client.is_watching(),
            may_only_listen: client.may_only_listen(),
            has_one_channel: client.channels.len() < 2,
            may_wait: waiting < WAITING_MAX,
            ids,
            sha: self.sha.clone(),
        }
    }

    fn execute(&mut self, at: usize, args: Vec<String>) -> Verdict<()> {
        let seat = &mut self.seats[at];
        let is_resp3 = self.model.client(seat.id).is_resp3;
        let (expected, expected_flow) = self.model.execute(seat.id, &args);
        let (words, mut out): (Vec<&[u8]>, _) = (args.iter().map(String::as_bytes).collect(), Vec::new());
        seat.is_woken.store(false, Ordering::Relaxed);
        let flow = seat.client.execute(&words, self.now_us, &mut out);
        if flow == Flow::Retry {
            seat.postponed = Some(args.clone());
        }
        let shown = args.join(" ").replace(script::TEXT, "(script)");
        self.judge(at, &shown, (&out, flow), (&expected, expected_flow), is_resp3)
    }

    fn look(&mut self, at: usize) -> Verdict<()> {
        let seat = &mut self.seats[at];
        let is_resp3 = self.model.client(seat.id).is_resp3;
        let (expected, expected_flow) = self.model.look(seat.id);
        let mut out = Vec::new();
        seat.is_woken.store(false, Ordering::Relaxed);
        let flow = seat.client.resume(self.now_us, &mut out);
        self.judge(at, "(looks)", (&out, flow), (&expected, expected_flow), is_resp3)
    }

    /// Compares what a client heard. One whose connection has ended makes room for another one.
    fn judge(
        &mut self,
        at: usize,
        asked: &str,
        (out, flow): (&[u8], Flow),
        (expected, expected_flow): (&[Reply], model::Flow),
        is_resp3: bool,
    ) -> Verdict<()> {
        self.note(&format!("client {} {asked} -> {flow:?} {}", self.seats[at].id, out.escape_ascii()));
        let heard = parse(out).map_err(|malformed| malformed.to_string())?;
        let agrees = |(reply, wire): (&Reply, &Wire)| reply.agrees(wire, is_resp3);
        let is_same = heard.len() == expected.len() && expected.iter().zip(&heard).all(agrees);
        if !is_same || like(flow) != expected_flow {
            return Err(format!("heard {heard:?} and {flow:?},\n  expected: {expected:?} and {expected_flow:?}"));
        }
        if flow == Flow::Close {
            self.leave(at);
        }
        Ok(())
    }

    fn leave(&mut self, at: usize) {
        self.note(&format!("client {} goes away", self.seats[at].id));
        self.model.disconnect(self.seats[at].id);
        // The other one comes first and goes after it, as it happens between sockets.
        self.seats[at] = self.connect(at);
    }

    fn move_clock(&mut self) -> Verdict<()> {
        let span_us = match self.random.below(20) {
            0..9 => self.random.below(2_000),
            9..14 => self.random.below(50_000),
            14..18 => self.random.below(3_000_000),
            18 => self.random.below(200_000_000),
            _ => return self.set_clock_back(),
        };
        self.now_us += span_us;
        self.note("the clock goes on");
        self.model.set_time(self.now_us);
        Ok(())
    }

    /// Whether a key whose time was over is there again depends on who has looked, so all that is over is removed first.
    fn set_clock_back(&mut self) -> Verdict<()> {
        self.clean();
        self.now_us -= self.random.below(5_000_000);
        self.note("the clock is set back");
        self.model.set_time(self.now_us);
        Ok(())
    }

    /// Removes all that has expired.
    fn clean(&mut self) {
        while self.instance.housekeeping(self.now_us, 1_000) {}
    }

    /// The embedding application changes something without a connection.
    fn embed(&mut self) {
        let now_ms = self.now_us / 1_000;
        let letter = if self.random.chance(33) { 's' } else { 'z' };
        let key = self.random.key(letter);
        let until_ms = now_ms + self.random.below(100);
        let member = format!("m{}", self.members);
        self.members += 1;
        let kind = self.model.data.kind(0, key);
        match self.random.below(3) {
            0 => {
                self.note(&format!("the application removes {key}"));
                self.engine.update(key.as_bytes(), now_ms, |slot| slot.remove());
                self.model.embedded(|data| drop(data.remove(0, key)));
            }
            1 if kind.is_none() || kind == Some(Kind::Sorted) => {
                self.note(&format!("the application adds {member} to {key}"));
                let add = |slot: &mut acteon_engine::Slot<'_>| slot.sorted_set_mut()?.insert(member.as_bytes(), 5.0);
                self.engine.update(key.as_bytes(), now_ms, add).expect("there is room");
                self.model.embedded(|data| add_member(data, key, &member));
            }
            _ => {
                self.note(&format!("the application writes {key}"));
                let write = |slot: &mut acteon_engine::Slot<'_>| slot.set_str(&[b"7"], Expiry::At(until_ms));
                self.engine.update(key.as_bytes(), now_ms, write).expect("there is room");
                self.model.embedded(|data| data.put(0, key, Value::Text("7".to_owned()), Some(until_ms)));
            }
        }
    }

    /// Whoever has news has been woken, and those whose commands were carried out in the order in which they were.
    fn check_wakes(&mut self) -> Verdict<()> {
        for seat in &self.seats {
            if self.model.client(seat.id).has_news() && !seat.is_woken.load(Ordering::Relaxed) {
                return Err(format!("client {} has news and was not woken", seat.id));
            }
        }
        let log = self.woken.lock().expect("nobody panics").clone();
        let mut order: Vec<u64> = Vec::new();
        for id in log.iter().rev().map(|at| self.seats[*at].id) {
            // The last time counts: a message may have come before.
            if self.model.served.contains(&id) && !order.contains(&id) {
                order.insert(0, id);
            }
        }
        if order == self.model.served {
            order.iter().for_each(|id| self.note(&format!("client {id} has got what it waited for")));
            return Ok(());
        }
        Err(format!("woken in the order {order:?}, expected {:?}", self.model.served))
    }

    /// Compares all that is stored.
    fn compare(&mut self) -> Verdict<()> {
        if self.model.is_paused_for_all() {
            return Ok(());
        }
        for database in 0..DATABASES {
            self.observe(&["SELECT", &database.to_string()], &Reply::ok())?;
            let entries = self.model.data.database(database).clone();
            let keys = entries.keys().map(|key| Reply::bulk(key)).collect();
            self.observe(&["KEYS", "*"], &Reply::Unordered(keys))?;
            for (key, entry) in &entries {
                let at_ms = entry.expires_at_ms.map_or(-1, u64::cast_signed);
                self.observe(&["PEXPIRETIME", key], &Reply::Int(at_ms))?;
                let (command, reply) = dump(key, &entry.value);
                self.observe(&command, &reply)?;
            }
        }
        Ok(())
    }

    fn observe(&mut self, words: &[&str], expected: &Reply) -> Verdict<()> {
        let (words, mut out): (Vec<&[u8]>, _) = (words.iter().map(|word| word.as_bytes()).collect(), Vec::new());
        let flow = self.observer.execute(&words, self.now_us, &mut out);
        let heard = parse(&out).map_err(|malformed| malformed.to_string())?;
        if flow == Flow::Done && heard.len() == 1 && expected.agrees(&heard[0], false) {
            return Ok(());
        }
        let asked = words.join(&b' ').escape_ascii().to_string();
        Err(format!("{asked} says {heard:?} and {flow:?},\n  expected: {expected:?}"))
    }

    /// In the end everybody looks, nothing that is over is left, and all that remains is compared.
    fn settle(&mut self) -> Verdict<()> {
        self.now_us += 3_600_000_000;
        self.note("an hour later");
        self.model.set_time(self.now_us);
        for at in 0..CLIENTS {
            self.look(at)?;
        }
        self.compare()?;
        self.clean();
        for database in 0..DATABASES {
            self.observe(&["SELECT", &database.to_string()], &Reply::ok())?;
            let len = self.model.data.database(database).len();
            self.observe(&["DBSIZE"], &Reply::len(len))?;
        }
        Ok(())
    }

    fn note(&mut self, what: &str) {
        let passed_us = self.now_us.cast_signed() - START_US.cast_signed();
        let _ = writeln!(self.history, "{passed_us:>12} us  {what}");
    }

    fn failure(&self, seed: u64, step: u32, what: &str) -> String {
        let lines: Vec<&str> = self.history.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        format!("seed {seed}, step {step}: {what}\n  after this:\n{tail}\n")
    }
}

fn add_member(data: &mut Data, key: &str, member: &str) {
    let entry = data.database(0).get(key).cloned();
    let (mut members, expires_at_ms) = match entry {
        Some(entry) => match entry.value {
            Value::Sorted(members) => (members, entry.expires_at_ms),
            _ => return,
        },
        None => Default::default(),
    };
    members.insert(member.to_owned(), 5);
    data.put(0, key, Value::Sorted(members), expires_at_ms);
}

/// What shows a whole value, and how it looks.
fn dump<'k>(key: &'k str, value: &Value) -> (Vec<&'k str>, Reply) {
    match value {
        Value::Text(text) => (vec!["GET", key], Reply::bulk(text)),
        Value::List(list) => {
            (vec!["LRANGE", key, "0", "-1"], Reply::Array(list.iter().map(|element| Reply::bulk(element)).collect()))
        }
        Value::Set(set) => (vec!["SMEMBERS", key], Reply::Set(set.iter().map(|member| Reply::bulk(member)).collect())),
        Value::Hash(fields) => {
            let pairs = fields.iter().map(|(field, value)| (Reply::bulk(field), Reply::bulk(value)));
            (vec!["HGETALL", key], Reply::Map(pairs.collect()))
        }
        Value::Sorted(members) => {
            let mut members: Vec<_> = members.clone().into_iter().collect();
            members.sort_by_key(|(_, score)| *score);
            (vec!["ZRANGE", key, "0", "-1", "WITHSCORES"], Reply::Scored(members))
        }
    }
}

fn like(flow: Flow) -> model::Flow {
    match flow {
        Flow::Done => model::Flow::Done,
        Flow::Blocked { until_us } => model::Flow::Blocked { until_us },
        Flow::Retry => model::Flow::Retry,
        Flow::Close => model::Flow::Close,
    }
}
