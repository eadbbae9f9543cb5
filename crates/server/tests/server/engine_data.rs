//! The engine's directory, from outside: the binary is killed and started again, and looks after what it has left.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use rustix::process::Signal;

use crate::support::{PATIENCE, Process, folder, run_in};

const TOML: &str = "[engine]\nlisten = \"127.0.0.1:0\"\ndir = \"data\"\nfsync = \"always\"\n";

/// The engine alone, in a folder that outlives it.
fn start(directory: &Path) -> (Process, TcpStream) {
    let mut process = Process::start_in(directory, &["engine"]);
    let line = process.wait_for_log("the engine listens for Redis clients");
    let address = line.split("places=").nth(1).expect("a place").trim_matches(|c: char| c == '"' || c.is_whitespace());
    let client = TcpStream::connect(address.trim_matches('"')).expect("listening");
    client.set_read_timeout(Some(PATIENCE)).expect("a time");
    (process, client)
}

/// Sends a line and reads as many bytes as the expected reply has.
fn call(client: &mut TcpStream, request: &str, reply: &str) {
    client.write_all(format!("{request}\r\n").as_bytes()).expect("writable");
    let mut seen = vec![0; reply.len()];
    client.read_exact(&mut seen).expect("answered");
    assert_eq!(String::from_utf8_lossy(&seen), reply);
}

#[test]
fn what_was_acknowledged_is_there_after_the_process_was_killed() {
    let folder = folder(TOML);
    let (mut process, mut client) = start(folder.path());
    for number in 0..100 {
        call(&mut client, &format!("SET key:{number} {number}"), "+OK\r\n");
    }
    call(&mut client, "RPUSH list a b c", ":3\r\n");
    process.signal(Signal::KILL);
    process.wait();

    let (mut process, mut client) = start(folder.path());
    assert!(process.log().contains("the data of the engine are loaded"), "{}", process.log());
    call(&mut client, "DBSIZE", ":101\r\n");
    call(&mut client, "GET key:99", "$2\r\n99\r\n");
    call(&mut client, "LLEN list", ":3\r\n");
    call(&mut client, "CONFIG GET appendfsync", "*2\r\n$11\r\nappendfsync\r\n$6\r\nalways\r\n");
    call(&mut client, "CONFIG GET appendonly", "*2\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n");
    call(&mut client, "CONFIG SET appendfsync everysec", "+OK\r\n");
    call(&mut client, "SAVE", "+OK\r\n");
    call(&mut client, "BGREWRITEAOF", "+Background append only file rewriting started\r\n");
    process.signal(Signal::TERM);
    assert!(process.wait().success());
    assert!(folder.path().join("data/dump.rdb").is_file());
}

#[test]
fn directory_is_verified_exported_backed_up_and_restored() {
    let folder = folder(TOML);
    let (mut process, mut client) = start(folder.path());
    call(&mut client, "SET a 1", "+OK\r\n");
    let in_use = run_in(folder.path(), &["engine", "verify", "data"], &[]);
    assert_eq!(in_use.code, Some(1));
    assert!(in_use.stderr.contains("uses the directory"), "{}", in_use.stderr);
    call(&mut client, "SET b 1", "+OK\r\n");
    let succeeds = |arguments: &[&str]| {
        let finished = run_in(folder.path(), arguments, &[]);
        assert_eq!(finished.code, Some(0), "{arguments:?}: {}", finished.stderr);
        finished.stdout
    };
    // A backup is made while the engine runs, and has what was acknowledged.
    assert!(succeeds(&["engine", "backup", "data", "--to", "online"]).contains("as of group 2"));
    process.signal(Signal::TERM);
    process.wait();

    assert!(succeeds(&["engine", "verify", "data"]).contains("sound, up to group 2"));
    succeeds(&["engine", "export", "data", "--to", "out.rdb"]);
    assert!(succeeds(&["engine", "import", "out.rdb", "--into", "imported"]).contains("2 keys"));
    succeeds(&["engine", "backup", "data", "--to", "backup"]);
    succeeds(&["engine", "restore", "backup", "--into", "restored"]);
    succeeds(&["engine", "restore", "online", "--into", "restored-online"]);
    for dir in ["imported", "restored", "restored-online"] {
        let toml = TOML.replace("\"data\"", &format!("{dir:?}"));
        fs::write(folder.path().join("acteon.toml"), toml).expect("writable");
        let (mut process, mut client) = start(folder.path());
        call(&mut client, "DBSIZE", ":2\r\n");
        process.signal(Signal::TERM);
        process.wait();
    }
    let refused = run_in(folder.path(), &["engine", "restore", "backup", "--into", "data"], &[]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("holds something already"), "{}", refused.stderr);
    let nothing = run_in(folder.path(), &["engine", "backup", ".", "--to", "none"], &[]);
    assert_eq!(nothing.code, Some(1));
    assert!(nothing.stderr.contains("no manifest"), "{}", nothing.stderr);
}

#[test]
fn damaged_directory_is_refused_with_the_place_until_it_is_mended() {
    let folder = folder(TOML);
    let (mut process, mut client) = start(folder.path());
    for number in 0..10 {
        call(&mut client, &format!("SET key:{number} 1"), "+OK\r\n");
    }
    process.signal(Signal::KILL);
    process.wait();
    let journal = folder.path().join("data/journal.1");
    let mut bytes = fs::read(&journal).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    OpenOptions::new().write(true).open(&journal).and_then(|mut file| file.write_all(&bytes)).expect("writable");

    let refused = run_in(folder.path(), &["engine"], &[]);
    assert_eq!(refused.code, Some(1));
    for part in ["journal.1", "byte", "--repair"] {
        assert!(refused.stderr.contains(part), "{part} is not in: {}", refused.stderr);
    }
    assert_eq!(run_in(folder.path(), &["engine", "verify", "data"], &[]).code, Some(1));
    let mended = run_in(folder.path(), &["engine", "verify", "data", "--repair"], &[]);
    assert_eq!(mended.code, Some(0), "{}{}", mended.stdout, mended.stderr);
    let (_process, mut client) = start(folder.path());
    call(&mut client, "GET key:0", "$1\r\n1\r\n");
}
