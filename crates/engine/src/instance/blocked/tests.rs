use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::lock::Locked;
use crate::{Client, ClientOptions, Engine, EngineConfig, Expiry, Flow, Instance, InstanceConfig};

/// Longer than any wait that comes to an end takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn instance() -> Arc<Instance> {
    // Few segments, so that different keys meet in one.
    let engine = Engine::new(EngineConfig { segments: 4, ..EngineConfig::default() });
    Instance::new(engine, InstanceConfig::default())
}

/// A client whose wake-ups arrive in a channel.
struct Tester {
    client: Client,
    wakes: Receiver<()>,
}

impl Tester {
    fn new(instance: &Arc<Instance>) -> Self {
        let (sender, wakes): (Sender<()>, _) = channel();
        let waker = Box::new(move || {
            // A tester that is gone needs no waking.
            let _ = sender.send(());
        });
        Self { client: Client::connect(instance, ClientOptions { waker, ..ClientOptions::default() }), wakes }
    }

    fn id(&self) -> u64 {
        self.client.id()
    }

    fn start(&mut self, command: &str) -> (Flow, String) {
        let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        loop {
            let mut out = Vec::new();
            match self.client.execute(&args, 1_000, &mut out) {
                Flow::Retry => thread::yield_now(),
                flow => return (flow, text(&out)),
            }
        }
    }

    /// Runs a command that ends at once.
    fn run(&mut self, command: &str) -> String {
        let (flow, reply) = self.start(command);
        assert_eq!(flow, Flow::Done, "{command}: {reply}");
        reply
    }

    /// Runs a command that has to wait.
    fn wait(&mut self, command: &str) {
        let (flow, reply) = self.start(command);
        assert!(matches!(flow, Flow::Blocked { .. }) && reply.is_empty(), "{command}: {flow:?} {reply}");
    }

    /// The reply of the command that waited, which has ended.
    fn reply(&mut self) -> String {
        self.reply_at(1_000).expect("the wait is over")
    }

    fn reply_at(&mut self, now_us: u64) -> Option<String> {
        let mut out = Vec::new();
        let flow = self.client.resume(now_us, &mut out);
        (flow == Flow::Done).then(|| text(&out))
    }

    /// Runs a command as a connection's thread does: sleeping until woken.
    fn run_to_its_end(&mut self, command: &str) -> String {
        let (mut flow, mut reply) = self.start(command);
        while flow != Flow::Done {
            self.wakes.recv_timeout(PATIENCE).expect("no waiter is left behind");
            let mut out = Vec::new();
            flow = self.client.resume(1_000, &mut out);
            reply += &text(&out);
        }
        reply
    }
}

#[test]
fn who_waits_for_replicas_waits_until_the_time_is_over() {
    let instance = instance();
    let mut waiting = Tester::new(&instance);
    assert_eq!(waiting.run("WAIT 0 0"), ":0");
    assert_eq!(waiting.run("WAIT -1 0"), ":0");
    assert_eq!(waiting.start("WAIT 1 5").0, Flow::Blocked { until_us: Some(6_000) });
    assert_eq!(instance.blocked.count(), 1);
    assert_eq!(waiting.reply_at(5_999), None);
    assert_eq!(waiting.reply_at(6_000).as_deref(), Some(":0"));
    assert_eq!(instance.blocked.count(), 0);
    for command in ["MULTI", "WAIT 1 0"] {
        waiting.run(command);
    }
    assert_eq!(waiting.run("EXEC"), "*1 :0");
}

#[test]
fn who_waits_for_replicas_for_ever_is_let_go_by_another_client_or_by_its_own_end() {
    let instance = instance();
    let (mut waiting, mut other) = (Tester::new(&instance), Tester::new(&instance));
    let id = waiting.id();
    assert_eq!(waiting.start("WAIT 1 0").0, Flow::Blocked { until_us: None });
    assert_eq!(waiting.reply_at(u64::MAX), None);
    assert_eq!(other.run(&format!("CLIENT UNBLOCK {id}")), ":1");
    waiting.wakes.recv_timeout(PATIENCE).expect("it is woken");
    assert_eq!(waiting.reply(), ":0");
    waiting.wait("WAIT 1 0");
    assert_eq!(other.run(&format!("CLIENT UNBLOCK {id} ERROR")), ":1");
    assert_eq!(waiting.reply(), "-UNBLOCKED client unblocked via CLIENT UNBLOCK");
    waiting.wait("WAIT 1 9223372036854775807");
    drop(waiting);
    assert_eq!(instance.blocked.count(), 0);
}

/// A reply, line by line.
fn text(reply: &[u8]) -> String {
    String::from_utf8_lossy(reply).trim_end().replace("\r\n", " ")
}

fn testers<const N: usize>(instance: &Arc<Instance>) -> [Tester; N] {
    std::array::from_fn(|_| Tester::new(instance))
}

#[test]
fn waiters_are_served_in_the_order_in_which_they_came() {
    let instance = instance();
    let [mut pusher, mut one, mut two, mut three, mut four] = testers(&instance);
    one.wait("BLPOP a 0");
    two.wait("BRPOP a b 0");
    three.wait("BLPOP a 0");
    four.wait("BLMPOP 0 1 a LEFT COUNT 2");
    assert_eq!(pusher.run("RPUSH a 1 2 3 4 5"), ":5");
    assert_eq!(one.reply(), "*2 $1 a $1 1");
    assert_eq!(two.reply(), "*2 $1 a $1 5");
    assert_eq!(three.reply(), "*2 $1 a $1 2");
    assert_eq!(four.reply(), "*2 $1 a *2 $1 3 $1 4");
    assert_eq!(pusher.run("LLEN a"), ":0");
    assert_eq!(instance.blocked.count(), 0);
}

#[test]
fn key_that_was_filled_first_serves_whatever_the_other_keys_hold() {
    let instance = instance();
    let [mut pusher, mut waiter] = testers(&instance);
    waiter.wait("BLPOP a b c 0");
    for command in ["MULTI", "SET a text", "RPUSH c 1", "RPUSH b 2", "EXEC"] {
        pusher.run(command);
    }
    assert_eq!(waiter.reply(), "*2 $1 c $1 1");
    assert_eq!(pusher.run("LRANGE b 0 -1"), "*1 $1 2");
}

#[test]
fn transaction_serves_after_its_end() {
    let instance = instance();
    let [mut pusher, mut waiter] = testers(&instance);
    waiter.wait("BLPOP a 0");
    for command in ["MULTI", "RPUSH a 1", "LPOP a", "EXEC"] {
        pusher.run(command);
    }
    assert_eq!(waiter.reply_at(1_000), None);
    for command in ["MULTI", "RPUSH a 2", "LPUSH a 1"] {
        pusher.run(command);
    }
    assert_eq!(pusher.run("EXEC"), "*2 :1 :2");
    assert_eq!(waiter.reply(), "*2 $1 a $1 1");
}

#[test]
fn source_of_another_type_is_waited_out_and_a_wrong_destination_is_an_error() {
    let instance = instance();
    let [mut pusher, mut mover, mut popper] = testers(&instance);
    mover.wait("BLMOVE a d LEFT LEFT 0");
    popper.wait("BLPOP a 0");
    pusher.run("SET a text");
    assert_eq!((mover.reply_at(1_000), popper.reply_at(1_000)), (None, None));
    pusher.run("SET d text");
    instance.databases.first().update(b"a", 1, |slot| slot.remove());
    assert_eq!(pusher.run("RPUSH a 1"), ":1");
    assert_eq!(mover.reply(), "-WRONGTYPE Operation against a key holding the wrong kind of value");
    assert_eq!(popper.reply(), "*2 $1 a $1 1");
}

#[test]
fn element_passes_through_a_chain_of_moves() {
    let instance = instance();
    let [mut pusher, mut last, mut second, mut first] = testers(&instance);
    last.wait("BLPOP c 0");
    second.wait("BRPOPLPUSH b c 0");
    first.wait("BLMOVE a b RIGHT LEFT 0");
    assert_eq!(pusher.run("RPUSH a 1"), ":1");
    assert_eq!(first.reply(), "$1 1");
    assert_eq!(second.reply(), "$1 1");
    assert_eq!(last.reply(), "*2 $1 c $1 1");
}

#[test]
fn list_that_rotates_itself_serves_those_behind() {
    let instance = instance();
    let [mut pusher, mut mover, mut popper] = testers(&instance);
    mover.wait("BLMOVE a a LEFT RIGHT 0");
    popper.wait("BLPOP a a 0");
    pusher.run("RPUSH a 1 2");
    assert_eq!((mover.reply().as_str(), popper.reply().as_str()), ("$1 1", "*2 $1 a $1 2"));
    assert_eq!(pusher.run("LRANGE a 0 -1"), "*1 $1 1");
}

#[test]
fn wait_ends_in_time_and_takes_nothing_later() {
    let instance = instance();
    let [mut pusher, mut waiter] = testers(&instance);
    assert_eq!(waiter.start("BLMOVE a b LEFT LEFT 0.5").0, Flow::Blocked { until_us: Some(501_000) });
    assert_eq!(waiter.reply_at(500_999), None);
    assert_eq!(waiter.reply_at(501_000).as_deref(), Some("*-1"));
    assert_eq!(pusher.run("RPUSH a 1"), ":1");
    assert_eq!(pusher.run("LLEN a"), ":1");
}

#[test]
fn reply_that_came_in_time_is_not_lost_to_the_deadline() {
    let instance = instance();
    let [mut pusher, mut waiter] = testers(&instance);
    assert_eq!(waiter.start("BLPOP a 0.5").0, Flow::Blocked { until_us: Some(501_000) });
    pusher.run("RPUSH a 1");
    assert_eq!(waiter.reply_at(501_000).as_deref(), Some("*2 $1 a $1 1"));
}

#[test]
fn unblock_ends_a_wait_once() {
    let instance = instance();
    let [mut pusher, mut waiter] = testers(&instance);
    assert!(!instance.unblock(waiter.id(), false));
    waiter.wait("BLPOP a b 0");
    assert!(instance.unblock(waiter.id(), false));
    assert!(!instance.unblock(waiter.id(), true));
    waiter.wakes.try_recv().expect("it was woken");
    assert_eq!(waiter.reply(), "*-1");
    waiter.wait("BLMOVE a b LEFT LEFT 0");
    assert!(instance.unblock(waiter.id(), true));
    assert_eq!(waiter.reply(), "-UNBLOCKED client unblocked via CLIENT UNBLOCK");
    assert_eq!(pusher.run("RPUSH a 1"), ":1");
    assert_eq!(pusher.run("LLEN a"), ":1");
}

#[test]
fn client_that_goes_or_is_killed_takes_nothing_with_it() {
    let instance = instance();
    let [mut pusher, mut gone, mut killed, mut patient] = testers(&instance);
    gone.wait("BLPOP a b 0");
    killed.wait("BLPOP a 0");
    patient.wait("BLPOP a 0");
    drop(gone);
    instance.peers.get(killed.id()).expect("it is there").kill();
    assert_eq!(instance.blocked.count(), 2);
    pusher.run("RPUSH a 1");
    assert_eq!(patient.reply(), "*2 $1 a $1 1");
    assert_eq!(killed.client.resume(1_000, &mut Vec::new()), Flow::Close);
    drop(killed);
    assert_eq!(instance.blocked.count(), 0);
}

#[test]
fn ended_waits_leave_no_trace() {
    let instance = instance();
    let [mut pusher, mut waiter] = testers(&instance);
    for number in 0..100 {
        waiter.wait(&format!("BLMOVE source{number} b LEFT RIGHT 1"));
        if number % 2 == 0 {
            pusher.run(&format!("RPUSH source{number} 1"));
        }
        assert!(waiter.reply_at(2_000_000).is_some());
    }
    pusher.run("LTRIM b 1 0");
    assert!(instance.blocked.register.lock().queues.is_empty());
    let keyspace = instance.databases.first().keyspace();
    assert!((0..keyspace.segments.len()).all(|segment| keyspace.lock(segment).notices.is_idle()));
}

#[test]
fn elements_pushed_by_the_embedding_application_are_served() {
    let instance = instance();
    let mut waiter = Tester::new(&instance);
    waiter.wait("BLPOP a 0");
    instance.databases.first().update(b"a", 1, |slot| {
        let mut list = slot.edit_or_create::<crate::value::List>().expect("absent");
        list.push_back(b"1", &crate::Limits::default());
        drop(list);
        slot.changed();
    });
    waiter.wakes.try_recv().expect("it was woken");
    assert_eq!(waiter.reply(), "*2 $1 a $1 1");
}

/// Carries out `per_thread` commands on each of `threads` threads, all of which begin at once.
/// Found by the simulation: any change of a key counted, such as the removal of what stood in the way of a list. Redis serves from `b`.
#[test]
fn transaction_serves_from_the_key_that_was_filled_first_not_from_the_one_that_was_changed_first() {
    let instance = instance();
    let [mut waiter, mut other] = testers(&instance);
    waiter.wait("BLPOP a b 0");
    other.run("SET a text");
    for command in ["MULTI", "DEL a", "RPUSH b x", "RPUSH a y", "EXEC"] {
        other.run(command);
    }
    assert_eq!(waiter.reply(), "*2 $1 b $1 x");
}

/// Found by the simulation: the key was looked at by the time of the last command, from before the clock was set back, and removed.
#[test]
fn key_that_the_embedding_application_writes_for_a_while_stays_though_somebody_waits_for_it() {
    let engine = Engine::new(EngineConfig::default());
    let instance = Instance::new(engine.clone(), InstanceConfig::default());
    let mut waiter = Client::connect(&instance, ClientOptions::default());
    let command: [&[u8]; 3] = [b"BLPOP", b"queue", b"0"];
    assert_eq!(waiter.execute(&command, 9_000_000, &mut Vec::new()), Flow::Blocked { until_us: None });
    engine.update(b"queue", 1_000, |slot| slot.set_str(&[b"text"], Expiry::At(1_500))).expect("unbounded");
    assert!(engine.read(b"queue", 1_000, |value| value.is_some()));
}

fn on_threads(threads: usize, run: impl Fn(usize) + Sync) {
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        for number in 0..threads {
            let (start, run) = (&start, &run);
            scope.spawn(move || {
                start.wait();
                run(number);
            });
        }
    });
}

#[test]
fn nothing_is_lost_or_doubled_between_producers_and_consumers() {
    const PRODUCERS: usize = 3;
    const CONSUMERS: usize = 5;
    const EACH: usize = 400 * CONSUMERS;
    let instance = instance();
    let taken = parking_lot::Mutex::new(HashMap::<String, usize>::new());
    on_threads(PRODUCERS + CONSUMERS, |number| {
        let mut tester = Tester::new(&instance);
        if number < PRODUCERS {
            for element in 0..EACH {
                let key = element % 3;
                match element % 4 {
                    0 => drop(tester.run(&format!("LPUSH q{key} {number}.{element}"))),
                    1 => {
                        tester.run("MULTI");
                        tester.run(&format!("RPUSH q{key} {number}.{element}"));
                        tester.run("EXEC");
                    }
                    _ => drop(tester.run(&format!("RPUSH q{key} {number}.{element}"))),
                }
            }
            return;
        }
        let mut mine = Vec::new();
        for turn in 0..EACH * PRODUCERS / CONSUMERS {
            let command = ["BLPOP q0 q1 q2 0", "BRPOP q2 q0 q1 0", "BLMPOP 0 3 q1 q2 q0 LEFT"][(turn + number) % 3];
            let reply = tester.run_to_its_end(command);
            mine.push(reply.rsplit(' ').next().expect("an element").to_owned());
        }
        mine.into_iter().for_each(|element| *taken.lock().entry(element).or_default() += 1);
    });
    let taken = taken.into_inner();
    assert_eq!(taken.len(), PRODUCERS * EACH);
    assert!(taken.values().all(|times| *times == 1));
    assert_eq!(instance.blocked.count(), 0);
}

#[test]
fn elements_survive_chains_of_moves_in_both_directions() {
    const STAGES: usize = 3;
    const ELEMENTS: usize = 1_500;
    let instance = instance();
    // Two chains in opposite order over the same lists, so that movers want each other's keys.
    on_threads(2 * STAGES + 2, |number| {
        let mut tester = Tester::new(&instance);
        match number {
            0 => (0..ELEMENTS).for_each(|element| drop(tester.run(&format!("LPUSH up0 {element}")))),
            1 => (0..ELEMENTS).for_each(|element| drop(tester.run(&format!("LPUSH down0 {element}")))),
            _ => {
                let (stage, chain) = ((number - 2) / 2, ["up", "down"][number % 2]);
                for _ in 0..ELEMENTS {
                    let next = stage + 1;
                    tester.run_to_its_end(&format!("BLMOVE {chain}{stage} {chain}{next} RIGHT LEFT 0"));
                }
            }
        }
    });
    let mut reader = Tester::new(&instance);
    for chain in ["up", "down"] {
        // One mover per stage keeps the order.
        for element in 0..ELEMENTS {
            assert_eq!(reader.run(&format!("RPOP {chain}{STAGES}")).rsplit(' ').next(), Some(&*element.to_string()));
        }
        assert_eq!(reader.run(&format!("LLEN {chain}{STAGES}")), ":0");
    }
}

#[test]
fn who_waits_is_served_before_whoever_comes_later() {
    let instance = instance();
    let (stop, stolen) = (AtomicBool::new(false), AtomicUsize::new(0));
    on_threads(3, |number| {
        let mut tester = Tester::new(&instance);
        if number > 0 {
            // Would take an element if it were to be seen before the waiter has it.
            while !stop.load(Ordering::Acquire) {
                if tester.run(["LPOP q", "RPOPLPUSH q other"][number - 1]) != "$-1" {
                    stolen.fetch_add(1, Ordering::Relaxed);
                }
            }
            return;
        }
        let mut waiter = Tester::new(&instance);
        for turn in 0..2_000 {
            waiter.wait(["BLPOP q 0", "BLPOP other q 0"][turn % 2]);
            tester.run("RPUSH q element");
            assert_eq!(waiter.reply(), "*2 $1 q $7 element");
        }
        stop.store(true, Ordering::Release);
    });
    assert_eq!(stolen.into_inner(), 0);
}

#[test]
fn move_to_a_key_that_somebody_holds_is_made_up_for_before_others_get_the_element() {
    let instance = instance();
    let place = |key: &str| instance.databases.place(0, key.as_bytes());
    let to = (0..).map(|number| format!("to{number}")).find(|key| place(key) != place("from")).expect("4 segments");
    let [mut mover, mut pusher, mut thief] = testers(&instance);
    mover.wait(&format!("BLMOVE from {to} LEFT LEFT 0"));
    let keyspace = instance.databases.first().keyspace();
    let held = keyspace.lock(keyspace.segment_of(keyspace.context.hash(to.as_bytes())));
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(pusher.run("RPUSH from 1"), ":1"));
        while !instance.databases.signals().has_ready() {
            thread::yield_now();
        }
        scope.spawn(|| assert_eq!(thief.run("LPOP from"), "$-1"));
        assert_eq!(mover.reply_at(1_000), None);
        drop(held);
    });
    assert_eq!(mover.reply(), "$1 1");
    assert_eq!(mover.run(&format!("LRANGE {to} 0 -1")), "*1 $1 1");
}

#[test]
fn changes_of_those_who_are_served_count_though_the_command_itself_stands_back() {
    let instance = instance();
    let place = |key: &str| instance.databases.place(0, key.as_bytes());
    let is_apart = |key: &String| ["from", "list"].iter().all(|other| place(key) != place(other));
    let to = (0..).map(|number| format!("to{number}")).find(is_apart).expect("4 segments");
    let [mut mover, mut taker, mut other] = testers(&instance);
    mover.wait(&format!("BLMOVE from {to} LEFT LEFT 0"));
    taker.wait("BLPOP list 0");
    // Before any key is ready, which would be served where it shares a segment.
    ["source:1", "source:2"].iter().for_each(|source| drop(other.run(&format!("RPUSH {source} 1"))));
    for (source, key) in [("source:1", "from"), ("source:2", "list")] {
        let places = [place(source), place(key)].into_iter().collect();
        let mut locked = Locked::acquire(&instance.databases, places, PATIENCE).expect("nobody holds them");
        assert!(locked.move_value((0, source.as_bytes()), (0, key.as_bytes()), 1).is_none());
        instance.databases.signals().add_ready(0, key.as_bytes());
    }
    let before = instance.stats.totals().changes;
    let keyspace = instance.databases.first().keyspace();
    let held = keyspace.lock(keyspace.segment_of(keyspace.context.hash(to.as_bytes())));
    let args: [&[u8]; 3] = [b"EXISTS", b"from", b"list"];
    assert_eq!(other.client.execute(&args, 1_000, &mut Vec::new()), Flow::Retry);
    drop(held);
    assert_eq!(taker.reply(), "*2 $4 list $1 1");
    assert_eq!(instance.stats.totals().changes, before + 1, "BLPOP has taken the element");
}

#[test]
fn deadlines_race_with_pushes_without_losing_elements() {
    let instance = instance();
    let taken = AtomicUsize::new(0);
    const TURNS: usize = 3_000;
    let is_done = AtomicBool::new(false);
    on_threads(3, |number| {
        let mut tester = Tester::new(&instance);
        if number == 0 {
            (0..TURNS).for_each(|_| drop(tester.run("RPUSH q 1")));
            is_done.store(true, Ordering::Release);
            return;
        }
        loop {
            let was_done = is_done.load(Ordering::Acquire);
            let (flow, mut reply) = tester.start("BLPOP q 0.001");
            if flow != Flow::Done {
                let begin = Instant::now();
                reply = loop {
                    // Nothing yet if it was carried out at the last moment, by somebody who is about to hand the reply out.
                    if let Some(late) = tester.reply_at(2_000_000) {
                        break late;
                    }
                    assert!(begin.elapsed() < Duration::from_secs(60), "a reply is lost");
                    thread::yield_now();
                };
            }
            if reply != "*-1" {
                taken.fetch_add(1, Ordering::Relaxed);
            } else if was_done {
                return;
            }
        }
    });
    assert_eq!(taken.into_inner(), TURNS);
}
