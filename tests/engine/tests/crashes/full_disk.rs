//! The disk of the real server is full for a while.

use std::thread;
use std::time::{Duration, Instant};

use acteon_engine_tests::command::Command;
use acteon_engine_tests::endpoint::Client;
use acteon_engine_tests::reply::Reply;
use acteon_test_support::{EngineOptions, EngineServer};

use crate::seen::connect;

const DISK_BYTES: u64 = 8 << 20;
/// More than a page, so that what is left in the last one is soon used up.
const VALUE_BYTES: usize = 5_000;
/// Far more than fit a disk that is full.
const WRITES_MAX: usize = 10_000;
/// How long the server may take to notice that there is room again: it tries every five seconds.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);

/// A server, and what it was asked to write.
struct Full {
    server: EngineServer,
    client: Client,
    /// By what became of them: numbers of keys.
    acknowledged: Vec<usize>,
    refused: Vec<usize>,
    next: usize,
}

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Acknowledged,
    /// It has not happened.
    Refused(String),
    /// The connection was closed: it may have happened.
    Unknown,
}

impl Full {
    fn start(fsync: &str) -> Self {
        let settings = vec![format!("fsync = \"{fsync}\"")];
        let options = EngineOptions { small_disk_bytes: Some(DISK_BYTES), settings, ..EngineOptions::default() };
        let server = EngineServer::start(options).unwrap_or_else(|error| panic!("{error}"));
        let client = connect(&server.url(), 0).unwrap();
        Self { server, client, acknowledged: Vec::new(), refused: Vec::new(), next: 0 }
    }

    fn write(&mut self) -> Fate {
        let (number, text) = (self.next, value(self.next));
        self.next += 1;
        match self.client.call(&Command::new(vec![b"SET".to_vec(), key(number), text])) {
            Ok(reply) if reply.is_status("OK") => {
                self.acknowledged.push(number);
                Fate::Acknowledged
            }
            Ok(reply) => {
                self.refused.push(number);
                Fate::Refused(reply.to_string())
            }
            Err(_) => {
                self.client = connect(&self.server.url(), 0).unwrap();
                Fate::Unknown
            }
        }
    }

    /// Fills the disk, and writes until that is refused.
    fn fill(&mut self) -> String {
        self.server.disk().expect("it was asked for").fill().unwrap();
        (0..WRITES_MAX)
            .find_map(|_| match self.write() {
                Fate::Refused(reason) => Some(reason),
                Fate::Acknowledged | Fate::Unknown => None,
            })
            .expect("a disk that is full takes no writes")
    }

    /// Makes room, and waits until writes are taken again.
    fn free(&mut self) {
        self.server.disk().expect("it was asked for").free().unwrap();
        let begin = Instant::now();
        while self.write() != Fate::Acknowledged {
            assert!(begin.elapsed() < PATIENCE, "writes are refused although there is room: {}", self.server.log());
            thread::sleep(POLL);
        }
    }

    /// Waits until nothing is left in memory only.
    fn settle(&self) {
        let begin = Instant::now();
        while !self.persistence().contains("aof_buffer_length:0\r\n") {
            assert!(begin.elapsed() < PATIENCE, "not everything is written: {}", self.persistence());
            thread::sleep(POLL);
        }
    }

    fn persistence(&self) -> String {
        self.server.query(&["INFO", "persistence"]).unwrap().unwrap_or_default()
    }

    fn restart(&mut self) {
        self.server.restart().unwrap_or_else(|error| panic!("{error}"));
        self.client = connect(&self.server.url(), 0).unwrap();
    }

    /// Everything that was acknowledged is there, and nothing that was refused.
    fn check(&mut self) {
        for number in &self.acknowledged {
            let reply = self.client.call(&Command::new(vec![b"GET".to_vec(), key(*number)])).unwrap();
            assert!(reply == Reply::Blob(b'$', value(*number)), "write {number} is lost: {}", self.server.log());
        }
        for number in &self.refused {
            let reply = self.client.call(&Command::new(vec![b"GET".to_vec(), key(*number)])).unwrap();
            assert_eq!(reply, Reply::Missing(b'$'), "write {number} was refused");
        }
    }
}

fn key(number: usize) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

fn value(number: usize) -> Vec<u8> {
    let mut text = format!("{number}.").into_bytes();
    text.resize(VALUE_BYTES, b'x');
    text
}

#[test]
fn full_disk_refuses_writes_lets_reads_go_on_and_loses_nothing_acknowledged() {
    for fsync in ["always", "everysec", "no"] {
        let mut full = Full::start(fsync);
        (0..100).for_each(|_| assert_eq!(full.write(), Fate::Acknowledged));
        for _ in 0..2 {
            let refusal = full.fill();
            let reason = "-MISCONF Errors writing to the AOF file: ";
            assert!(refusal.starts_with(reason) && refusal.contains("No space left on device"), "{fsync}: {refusal}");
            assert!(full.persistence().contains("aof_last_write_status:err"), "{fsync}: {}", full.persistence());
            full.check();
            full.free();
            assert!(full.persistence().contains("aof_last_write_status:ok"), "{fsync}: {}", full.persistence());
            full.settle();
            full.server.kill9().unwrap();
            full.restart();
            full.check();
        }
        println!("{fsync}: {} acknowledged, {} refused", full.acknowledged.len(), full.refused.len());
    }
}

#[test]
fn server_that_is_killed_while_its_disk_is_full_starts_with_everything_acknowledged() {
    let mut full = Full::start("always");
    (0..100).for_each(|_| assert_eq!(full.write(), Fate::Acknowledged));
    full.fill();
    full.server.kill9().unwrap();
    full.server.disk().expect("it was asked for").free().unwrap();
    full.restart();
    full.check();
    assert_eq!(full.write(), Fate::Acknowledged);
}
