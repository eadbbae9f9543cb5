//! Directories as released versions have written them: these must open for ever, with the contents noted beside them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use acteon_engine::{Client, ClientOptions, Flow, Instance, InstanceConfig};

use super::lab::{config, new_engine};
use crate::config::Fsync;
use crate::disk::Disk;
use crate::simulation::Directory;
use crate::storage::Files;

/// Before all deadlines of the fixtures.
const NOW_US: u64 = 1_000_000;

/// What is in the base of a fixture.
const BEFORE: &[&str] = &[
    "SET string text",
    "SET deadline text PXAT 4102444800000",
    "SET kept text PXAT 4102444800000",
    "SET number 12345",
    "RPUSH list a b c d e f",
    "SADD set one two three",
    "SADD numbers 1 2 3 70000",
    "HSET hash f v g w",
    "ZADD sorted 1 one 2.5 two -inf least",
    "SELECT 3",
    "SET other database",
    "SELECT 0",
];

/// What is in its journal: every kind of change.
const AFTER: &[&str] = &[
    "APPEND string -more",
    "SETRANGE string 2 XY",
    "SETBIT bits 12 1",
    "INCR number",
    "PEXPIREAT number 4102444800001",
    "PERSIST deadline",
    "LPUSH list z",
    "RPUSH list y",
    "LPOP list 2",
    "RPOP list",
    "LSET list 1 new",
    "LINSERT list BEFORE new between",
    "LINSERT list AFTER new behind",
    "LREM list 1 d",
    "LTRIM list 0 3",
    "SREM set two",
    "SADD set four",
    "HDEL hash f",
    "HSET hash h x",
    "ZADD sorted 3 three 4 four 5 five",
    "ZREM sorted two",
    "ZREMRANGEBYRANK sorted 0 0",
    "RENAME bits renamed",
    "COPY hash copied",
    "SET removed text",
    "DEL removed",
    "MULTI",
    "SET first 1",
    "SET second 2",
    "EXEC",
    "SELECT 5",
    "SET gone text",
    "FLUSHDB",
    "SELECT 3",
    "SADD more members",
    "SWAPDB 3 4",
    "SELECT 0",
];

/// What must come out.
const QUESTIONS: &[&str] = &[
    "DBSIZE",
    "GET string",
    "GET deadline",
    "PEXPIRETIME deadline",
    "PEXPIRETIME kept",
    "GET number",
    "PEXPIRETIME number",
    "LRANGE list 0 -1",
    "SISMEMBER set one",
    "SISMEMBER set four",
    "SCARD set",
    "SCARD numbers",
    "SISMEMBER numbers 70000",
    "HLEN hash",
    "HGET hash g",
    "HGET hash h",
    "HGET copied h",
    "ZRANGE sorted 0 -1 WITHSCORES",
    "GET renamed",
    "MGET first second removed",
    "SELECT 4",
    "DBSIZE",
    "GET other",
    "SISMEMBER more members",
    "SELECT 3",
    "DBSIZE",
    "SELECT 5",
    "DBSIZE",
];

fn folder(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(format!("v{version}"))
}

fn ask(client: &mut Client, line: &str) -> String {
    let mut reply = Vec::new();
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    assert_eq!(client.execute(&words, NOW_US, &mut reply), Flow::Done);
    assert!(!reply.starts_with(b"-"), "{line}: {}", reply.escape_ascii());
    reply.escape_ascii().to_string()
}

fn answers(instance: &Arc<Instance>) -> String {
    let mut client = Client::connect(instance, ClientOptions::default());
    QUESTIONS.iter().map(|line| format!("{line}: {}\n", ask(&mut client, line))).collect()
}

#[test]
fn directories_of_all_versions_open_with_their_contents() {
    for version in 1..=crate::format::VERSION {
        let directory = Directory::new(1);
        let mut expected = None;
        for entry in fs::read_dir(folder(version)).expect("a directory of each version") {
            let path = entry.expect("listed").path();
            let (name, bytes) = (path.file_name().expect("a name").to_string_lossy(), fs::read(&path).expect("read"));
            match &*name {
                "answers.txt" => expected = Some(String::from_utf8(bytes).expect("text")),
                name => directory.put(name, &bytes),
            }
        }
        let engine = new_engine();
        let opened = Disk::open(Arc::new(directory), &engine, config(Fsync::No), NOW_US / 1_000);
        let (disk, loaded) = opened.unwrap_or_else(|error| panic!("version {version}: {error}"));
        assert!(loaded.keys > 0 && loaded.groups > 0 && loaded.torn.is_none(), "{loaded:?}");
        let instance = Instance::new(engine, InstanceConfig::default());
        assert_eq!(Some(answers(&instance)), expected, "version {version}");
        disk.close().expect("closed");
    }
}

/// To be run once for each version of the format, before it is released; refuses to replace what is there.
#[test]
#[ignore = "writes the fixture of the present version"]
fn write_fixture() {
    let folder = folder(crate::format::VERSION);
    assert!(!folder.join("manifest").exists(), "a fixture that was released stays as it is");
    let engine = new_engine();
    let files = Arc::new(Files::create(&folder).expect("created"));
    let (disk, _) = Disk::open(files, &engine, config(Fsync::No), 1_700_000_000_000).expect("new");
    let instance = Instance::new(engine, InstanceConfig::default());
    let mut client = Client::connect(&instance, ClientOptions::default());
    BEFORE.iter().for_each(|line| drop(ask(&mut client, line)));
    disk.rewrite().expect("rewritten");
    AFTER.iter().for_each(|line| drop(ask(&mut client, line)));
    let answers = answers(&instance);
    disk.close().expect("closed");
    fs::remove_file(folder.join("lock")).expect("there");
    fs::write(folder.join("answers.txt"), answers).expect("written");
}
