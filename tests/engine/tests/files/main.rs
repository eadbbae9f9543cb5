//! Files and payloads of a real Redis are taken over here, and those written here are loaded there: with the same contents.
//!
//! # How it works
//! What is compared is what both make of the same bytes, key by key: type, encoding, time to live, value. What Redis holds before it writes a
//! file is not the measure for encodings, since loading may choose another one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod append_only;
mod data;
mod dump;
mod snapshot;

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use acteon_engine::import::{ImportOptions, ImportReport, Importer};
use acteon_engine::rdb::{FileFacts, Unsupported, write_file};
use acteon_engine::{Engine, EngineConfig, Instance, InstanceConfig};
use acteon_engine_tests::command::Command;
use acteon_engine_tests::compare::agree;
use acteon_engine_tests::embedded::EmbeddedEngine;
use acteon_engine_tests::endpoint::{Client, Connection, Endpoint};
use acteon_engine_tests::keyspace::contents;
use acteon_engine_tests::sequence::THRESHOLDS;
use acteon_test_support::{RedisOptions, RedisServer};

/// The file that Redis reads when it starts.
const DUMP_FILE: &str = "dump.rdb";

/// A Redis whose files can be seen.
struct Redis(RedisServer);

impl Redis {
    /// With these lines in its configuration.
    fn start(settings: &[&str], append_only: bool) -> Self {
        let mut settings: Vec<_> = settings.iter().map(|&line| line.to_owned()).collect();
        settings.push("enable-debug-command yes".to_owned());
        let options = RedisOptions { settings, append_only, ..RedisOptions::default() };
        Self(RedisServer::start(options).unwrap_or_else(|error| panic!("{error}")))
    }

    fn folder(&self) -> &Path {
        self.0.folder()
    }

    /// Writes its file.
    fn save(&mut self) {
        tell(self, &[Command::words("SAVE")]);
    }

    /// Forgets everything and loads its file, with the thresholds of encodings that are the default here as well.
    fn reload(&mut self) {
        tell(self, &[THRESHOLDS, "DEBUG RELOAD NOSAVE"].map(Command::words));
    }
}

impl Endpoint for Redis {
    fn connect(&mut self) -> io::Result<Box<dyn Connection>> {
        acteon_engine_tests::endpoint::TcpEndpoint::new(&self.0.url())?.connect()
    }
}

/// An engine of this process, seen from both sides.
struct Ours {
    engine: Engine,
    instance: Arc<Instance>,
    endpoint: EmbeddedEngine,
}

impl Ours {
    fn new() -> Self {
        let engine = Engine::new(EngineConfig::default());
        let instance = Instance::new(engine.clone(), InstanceConfig::default());
        Self { engine, endpoint: EmbeddedEngine::of(instance.clone()), instance }
    }

    /// What is in this file.
    fn load(file: &Path) -> (Self, ImportReport) {
        let ours = Self::new();
        let mut importer = Importer::new(&ours.instance, options(Unsupported::Refuse));
        let input = BufReader::new(File::open(file).unwrap());
        importer.rdb(&file.display().to_string(), input).unwrap_or_else(|error| panic!("{error}"));
        let report = importer.finish();
        assert!(report.dumps.iter().all(|dump| dump.empty_collections == 0));
        (ours, report)
    }

    /// The bytes of a file with everything that is held.
    fn file(&self) -> Vec<u8> {
        let mut file = Vec::new();
        let facts = FileFacts { created_at_s: now_ms() / 1_000, used_memory_bytes: 1 << 20 };
        let snapshot = self.engine.cut(now_ms(), || ()).expect("no other snapshot runs");
        let bytes = write_file(&facts, snapshot, &mut file).unwrap();
        assert_eq!(bytes, file.len() as u64);
        file
    }
}

fn options(unsupported: Unsupported) -> ImportOptions {
    ImportOptions { unsupported, now_ms: now_ms() }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Sends commands, none of which may be refused.
fn tell(endpoint: &mut dyn Endpoint, commands: &[Command]) {
    let mut client = Client::connect(endpoint).unwrap();
    for batch in commands.chunks(200) {
        client.send_commands(batch).unwrap();
        for command in batch {
            let reply = client.receive().unwrap();
            assert!(!reply.is_error(), "{command}: {reply}");
        }
    }
}

/// Fails unless both hold the same; `with_deadlines`: with the same time to live.
fn assert_same(redis: &mut dyn Endpoint, ours: &mut dyn Endpoint, with_deadlines: bool, about: &str) -> usize {
    let (wanted, found) = (contents(redis).unwrap(), contents(ours).unwrap());
    let mut differences = Vec::new();
    for ((command, wanted), (asked, found)) in wanted.iter().zip(&found) {
        assert_eq!(command, asked, "{about}: the keys differ");
        if (with_deadlines || command.name() != "PTTL") && !agree(&command.arguments, wanted, found) {
            differences.push(format!("{command}\nRedis: {wanted}\nhere: {found}"));
        }
    }
    assert!(differences.is_empty() && wanted.len() == found.len(), "{about}:\n{}", differences.join("\n"));
    wanted.len()
}
