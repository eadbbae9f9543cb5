//! What others get at the moment in which a group is handed over: nothing that tells of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

use crate::change::ChangeLog;
use crate::{Client, ClientOptions, Engine, EngineConfig, Expiry, Flow, Instance, InstanceConfig};

const NOW_US: u64 = 1_000_000;

type Look = Box<dyn FnMut() + Send>;

/// A log that looks at others before it takes a group.
#[derive(Default)]
struct Nosy {
    look: Mutex<Option<Look>>,
    groups: AtomicUsize,
}

impl ChangeLog for Nosy {
    fn append(&self, _: &[u8]) -> u64 {
        if let Some(look) = &mut *self.look.lock() {
            look();
        }
        self.groups.fetch_add(1, Ordering::SeqCst) as u64 + 1
    }

    fn is_writable(&self) -> bool {
        true
    }
}

/// An instance with such a log, and a connection that it looks at.
struct Lab {
    instance: Arc<Instance>,
    log: Arc<Nosy>,
    other: Arc<Mutex<Client>>,
    wakes: Arc<AtomicUsize>,
    writer: Client,
}

impl Lab {
    fn new() -> Self {
        let engine = Engine::new(EngineConfig { segments: 4, ..EngineConfig::default() });
        let log = Arc::new(Nosy::default());
        engine.attach_log(log.clone());
        let instance = Instance::new(engine, InstanceConfig::default());
        instance.set_notifications("KEA").expect("letters that mean something");
        let wakes = Arc::new(AtomicUsize::new(0));
        let count = wakes.clone();
        let waker = Box::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let other = Client::connect(&instance, ClientOptions { waker, ..ClientOptions::default() });
        let writer = Client::connect(&instance, ClientOptions::default());
        Self { other: Arc::new(Mutex::new(other)), instance, log, wakes, writer }
    }

    /// Carries out a command of the other connection.
    fn other(&self, command: &[&str]) -> (Flow, String) {
        call(&mut self.other.lock(), command)
    }

    /// What comes to the other connection: while the last of the commands hands over its group, and afterwards; and how often it was woken.
    fn write(&mut self, commands: &[&[&str]]) -> (String, String, usize) {
        let (other, early) = (self.other.clone(), Arc::new(Mutex::new(String::new())));
        let (seen, woken) = (early.clone(), self.wakes.clone());
        self.wakes.store(0, Ordering::SeqCst);
        *self.log.look.lock() = Some(Box::new(move || {
            // On a thread of its own, as connections are.
            thread::scope(|scope| scope.spawn(|| seen.lock().push_str(&resume(&mut other.lock()))).join())
                .expect("the other connection is looked at");
            let woken = woken.load(Ordering::SeqCst);
            (woken > 0).then(|| seen.lock().push_str("woken"));
        }));
        let groups = self.log.groups.load(Ordering::SeqCst);
        for command in commands {
            assert_eq!(call(&mut self.writer, command).0, Flow::Done, "{command:?}");
        }
        assert_eq!(self.log.groups.load(Ordering::SeqCst), groups + 1, "{commands:?}");
        *self.log.look.lock() = None;
        let early = early.lock().clone();
        (early, resume(&mut self.other.lock()), self.wakes.load(Ordering::SeqCst))
    }
}

fn call(client: &mut Client, command: &[&str]) -> (Flow, String) {
    let args: Vec<&[u8]> = command.iter().map(|arg| arg.as_bytes()).collect();
    let mut out = Vec::new();
    let flow = client.execute(&args, NOW_US, &mut out);
    (flow, text(&out))
}

fn resume(client: &mut Client) -> String {
    let mut out = Vec::new();
    client.resume(NOW_US, &mut out);
    text(&out)
}

fn text(out: &[u8]) -> String {
    String::from_utf8_lossy(out).replace("\r\n", " ").trim_end().to_owned()
}

const MESSAGE: &str = "*3 $7 message $1 c $1 m";

#[test]
fn message_of_a_transaction_arrives_after_its_group() {
    let mut lab = Lab::new();
    lab.other(&["SUBSCRIBE", "c"]);
    let came = lab.write(&[&["MULTI"], &["SET", "k", "v"], &["PUBLISH", "c", "m"], &["EXEC"]]);
    assert_eq!(came, (String::new(), MESSAGE.to_owned(), 1));
}

#[test]
fn message_of_a_script_arrives_after_its_group() {
    let script = "redis.call('set', KEYS[1], 'v') redis.call('publish', 'c', 'm')";
    let undeclared = "redis.call('set', 'k', 'v') redis.call('publish', 'c', 'm')";
    for command in [&["EVAL", script, "1", "k"][..], &["EVAL", undeclared, "0"]] {
        let mut lab = Lab::new();
        lab.other(&["SUBSCRIBE", "c"]);
        assert_eq!(lab.write(&[command]), (String::new(), MESSAGE.to_owned(), 1), "{command:?}");
    }
}

#[test]
fn event_arrives_after_the_group_of_its_change() {
    let mut lab = Lab::new();
    lab.other(&["SUBSCRIBE", "__keyspace@0__:k"]);
    let event = "*3 $7 message $16 __keyspace@0__:k $3 set";
    assert_eq!(lab.write(&[&["SET", "k", "v"]]), (String::new(), event.to_owned(), 1));
    assert_eq!(lab.write(&[&["MULTI"], &["SET", "k", "w"], &["EXEC"]]), (String::new(), event.to_owned(), 1));
}

#[test]
fn event_of_an_update_by_the_application_arrives_after_its_group() {
    let lab = Lab::new();
    lab.other(&["SUBSCRIBE", "__keyspace@0__:k"]);
    let (other, early) = (lab.other.clone(), Arc::new(Mutex::new(String::new())));
    let seen = early.clone();
    *lab.log.look.lock() = Some(Box::new(move || seen.lock().push_str(&resume(&mut other.lock()))));
    lab.instance.set_notifications("Kn").expect("letters that mean something");
    let engine = lab.instance.databases.first();
    engine.update(b"k", 1, |slot| slot.set_str(&[b"v"], Expiry::Clear)).expect("there is memory");
    assert_eq!(lab.log.groups.load(Ordering::SeqCst), 1);
    assert_eq!(*early.lock(), "");
    assert_eq!(resume(&mut lab.other.lock()), "*3 $7 message $16 __keyspace@0__:k $3 new");
}

#[test]
fn line_of_monitor_arrives_after_the_group_of_the_command() {
    let mut lab = Lab::new();
    lab.other(&["MONITOR"]);
    let (early, line, woken) = lab.write(&[&["SET", "k", "v"]]);
    assert!(line.ends_with("\"SET\" \"k\" \"v\""), "{line}");
    assert_eq!((&*early, woken), ("", 1));
}

/// Woken for another reason, a client once found what it had been served with before that was handed over.
#[test]
fn served_element_arrives_after_the_group_that_takes_it() {
    for commands in [&[&["RPUSH", "q", "v"][..]][..], &[&["MULTI"], &["RPUSH", "q", "v"], &["EXEC"]]] {
        let mut lab = Lab::new();
        assert!(matches!(lab.other(&["BLPOP", "q", "0"]).0, Flow::Blocked { .. }));
        assert_eq!(lab.write(commands), (String::new(), "*2 $1 q $1 v".to_owned(), 1));
    }
}

#[test]
fn client_that_a_transaction_lets_go_is_told_after_its_group() {
    let mut lab = Lab::new();
    assert!(matches!(lab.other(&["BLPOP", "q", "0"]).0, Flow::Blocked { .. }));
    let id = lab.other.lock().id().to_string();
    let came = lab.write(&[&["MULTI"], &["SET", "k", "v"], &["CLIENT", "UNBLOCK", &id], &["EXEC"]]);
    assert_eq!(came, (String::new(), "*-1".to_owned(), 1));
}

#[test]
fn reply_of_a_subscriber_comes_after_the_messages_before_it() {
    let mut lab = Lab::new();
    lab.other(&["SUBSCRIBE", "c"]);
    let (other, flows) = (lab.other.clone(), Arc::new(Mutex::new(Vec::new())));
    let seen = flows.clone();
    *lab.log.look.lock() = Some(Box::new(move || seen.lock().push(call(&mut other.lock(), &["UNSUBSCRIBE", "c"]))));
    for command in [&["MULTI"][..], &["SET", "k", "v"], &["PUBLISH", "c", "m"], &["EXEC"]] {
        call(&mut lab.writer, command);
    }
    assert_eq!(*flows.lock(), [(Flow::Retry, String::new())]);
    assert_eq!(lab.other(&["UNSUBSCRIBE", "c"]), (Flow::Done, format!("{MESSAGE} *3 $11 unsubscribe $1 c :0")));
}

#[test]
fn own_message_comes_before_the_reply_of_who_publishes_it() {
    let mut lab = Lab::new();
    call(&mut lab.writer, &["HELLO", "3"]);
    call(&mut lab.writer, &["SUBSCRIBE", "c"]);
    for command in [&["MULTI"][..], &["SET", "k", "v"], &["PUBLISH", "c", "m"]] {
        call(&mut lab.writer, command);
    }
    let (flow, out) = call(&mut lab.writer, &["EXEC"]);
    assert_eq!((flow, &*out), (Flow::Done, "*2 +OK >3 $7 message $1 c $1 m :1"));
    assert_eq!(resume(&mut lab.writer), "");
}
