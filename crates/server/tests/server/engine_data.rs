//! The engine's directory, from outside: the binary is killed and started again, and looks after what it has left.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use acteon_state::config::ConnectionUrl;
use acteon_state::{
    ClaimDue, ClaimOutcome, Counting, DueAt, Get, Increment, LockOutcome, LockRequest, Put, PutOutcome, RateLimit,
    ReleaseOutcome, Schedule, State, StateConfig, StateKey, StateStore,
};
use rustix::process::Signal;
use tokio::time::{Instant, sleep_until};

use crate::support::{PATIENCE, Process, folder, run, run_in};

const TOML: &str = "[engine]\nlisten = \"127.0.0.1:0\"\ndir = \"data\"\nfsync = \"always\"\n";

/// The engine alone, in a folder that outlives it.
fn start(directory: &Path) -> (Process, TcpStream) {
    let mut process = Process::start_in(directory, &["engine"]);
    let client = TcpStream::connect(address(&mut process)).expect("listening");
    client.set_read_timeout(Some(PATIENCE)).expect("a time");
    (process, client)
}

/// Where it listens.
fn address(process: &mut Process) -> String {
    let line = process.wait_for_log("the engine listens for Redis clients");
    let place = line.split("places=").nth(1).expect("a place");
    place.trim_matches(|c: char| c == '"' || c.is_whitespace()).to_owned()
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

const HOUR: Duration = Duration::from_secs(3_600);
const SHORT: Duration = Duration::from_millis(50);

fn key(kind: &str, id: &str) -> StateKey {
    StateKey::new("shop", "acme", kind, id).expect("a key")
}

/// A node that reaches the engine of this process.
async fn node(process: &mut Process) -> State {
    let url = format!("redis://{}", address(process));
    let config = StateConfig { url: Some(ConnectionUrl::new(url)), ..StateConfig::new("redis") };
    config.open().await.expect("reachable")
}

fn rates() -> [RateLimit; 3] {
    [RateLimit::fixed_window(10, HOUR), RateLimit::sliding_window(10, HOUR), RateLimit::gcra(10, HOUR, 10)]
}

async fn put(store: &Arc<dyn StateStore>, id: &str, put: Put) -> PutOutcome {
    store.put(&key("mail", id), &put).await.expect("taken")
}

#[tokio::test]
async fn each_kind_of_state_is_there_after_the_server_was_killed() {
    let toml = format!("{TOML}\n[server]\nport = 0\n");
    let folder = folder(&toml);
    let mut process = Process::start_in(folder.path(), &[]);
    let state = node(&mut process).await;
    let store = state.store();
    let PutOutcome::Applied(version) = put(store, "stays", Put::new("hello")).await else { panic!("it is new") };
    put(store, "outlives", Put::new("x").expires_after(HOUR)).await;
    let ends_at = Instant::now() + SHORT;
    put(store, "ends", Put::new("x").expires_after(SHORT)).await;
    let window = Increment { window: Counting::OnCreate(HOUR), ..Increment::by(7) };
    store.increment(&key("hits", "hourly"), window).await.expect("taken");
    let queue = key("queue", "mail");
    for (id, after) in [("claimed", Duration::ZERO), ("later", HOUR)] {
        let schedule = Schedule { id: id.to_owned(), due_at: DueAt::After(after), payload: id.to_owned().into() };
        store.schedule(&queue, &schedule).await.expect("taken");
    }
    let claim = ClaimDue { limit: 10, visibility: HOUR };
    let claimed = store.claim_due(&queue, claim).await.expect("taken").items.remove(0);
    let schedule = Schedule { id: "due".to_owned(), due_at: DueAt::After(SHORT), payload: "due".into() };
    store.schedule(&queue, &schedule).await.expect("taken");
    let request = LockRequest { meta: "cleans".to_owned(), ..LockRequest::new(key("lock", "door"), HOUR) };
    let LockOutcome::Granted(grant) = store.lock_acquire(&request).await.expect("taken") else { panic!("it is free") };
    put(store, "fenced", Put::new("x").fenced_by(grant.token)).await;
    for (number, rate) in rates().into_iter().enumerate() {
        store.rate_limit(&key("throttle", &number.to_string()), &rate.cost(3)).await.expect("taken");
    }
    process.signal(Signal::KILL);
    process.wait();
    sleep_until(ends_at + SHORT).await;

    let mut process = Process::start_in(folder.path(), &[]);
    let state = node(&mut process).await;
    let store = state.store();
    let get = Get { with_ttl: true, ..Get::default() };
    let stays = store.get(&key("mail", "stays"), get).await.expect("readable").expect("there");
    assert_eq!((&stays.value[..], stays.version, stays.ttl), (&b"hello"[..], Some(version), None));
    let outlives = store.get(&key("mail", "outlives"), get).await.expect("readable").expect("there");
    assert!(outlives.ttl.is_some_and(|left| left < HOUR), "{outlives:?}");
    assert_eq!(store.get(&key("mail", "ends"), get).await.expect("readable"), None, "it has expired meanwhile");
    let hourly = store.get(&key("hits", "hourly"), get).await.expect("readable").expect("there");
    assert!(hourly.value == "7" && hourly.ttl.is_some_and(|left| left < HOUR), "{hourly:?}");
    let due = store.claim_due(&queue, claim).await.expect("readable").items;
    let due: Vec<_> = due.iter().map(|item| (item.id.as_str(), item.attempt)).collect();
    assert_eq!(due, [("due", 1)]);
    assert_eq!(store.ack(&queue, &claimed.id, claimed.token).await.expect("taken"), ClaimOutcome::Done);
    let door = store.lock_inspect(&request.key).await.expect("readable").expect("held");
    let holder = &door.holders[0];
    assert_eq!((holder.owner, holder.token, holder.meta.as_str()), (request.owner, grant.token, "cleans"));
    let fenced = store.get(&key("mail", "fenced"), get).await.expect("readable").expect("there");
    assert_eq!(fenced.fence, Some(grant.token));
    let released = store.lock_release(&request.key, request.owner).await.expect("taken");
    assert_eq!(released, ReleaseOutcome::Released);
    for (number, rate) in rates().into_iter().enumerate() {
        let key = key("throttle", &number.to_string());
        let decision = store.rate_limit(&key, &rate.cost(8)).await.expect("taken");
        assert!(!decision.allowed && decision.remaining == 7, "{decision:?}");
    }
}

/// A directory whose dump never comes to an end: it is a pipe that nobody writes to.
fn endless(toml: &str) -> tempfile::TempDir {
    let folder = folder(toml);
    fs::create_dir(folder.path().join("data")).expect("writable");
    let made = Command::new("mkfifo").arg(folder.path().join("data/dump.rdb")).status().expect("mkfifo runs");
    assert!(made.success());
    folder
}

/// Loading went on on the thread that was to hear of signals, or before anybody listened to them.
#[test]
fn signal_while_the_data_are_loaded_ends_the_process_in_order() {
    for arguments in [&["engine"][..], &[]] {
        let folder = endless(&format!("{TOML}\n[server]\nport = 0\n"));
        let mut process = Process::start_in(folder.path(), arguments);
        process.wait_for_log("loading the data of the engine");
        process.signal(Signal::TERM);
        assert!(process.wait().success(), "{}", process.log());
        assert!(process.log().contains("had started"), "{}", process.log());
    }
}

#[test]
fn loading_that_takes_long_says_how_far_it_is() {
    let folder = endless(TOML);
    let mut process = Process::start_in(folder.path(), &["engine"]);
    let line = process.wait_for_log("still loading the data of the engine");
    for field in ["percent=0", "bytes=0", "of_bytes=0", "keys=0", "seconds="] {
        assert!(line.contains(field), "{field} is not in {line}");
    }
}

/// Locks lay in a second engine, silently: a restart forgot them, and clients of the engine did not see them.
#[test]
fn locks_in_a_second_engine_beside_a_directory_or_clients_are_refused() {
    for engine in ["dir = \"data\"", "listen = \"127.0.0.1:0\""] {
        let toml = format!("[state]\nbackend = \"memory\"\n[state.lock]\nbackend = \"memory\"\n[engine]\n{engine}\n");
        for arguments in [&["check"][..], &["engine"], &[]] {
            let refused = run(&toml, arguments);
            assert_eq!(refused.code, Some(1), "{}", refused.stdout);
            assert!(refused.stderr.contains("remove [state.lock]"), "{}", refused.stderr);
            assert!(refused.stderr.contains("acteon.toml:"), "{}", refused.stderr);
        }
    }
}

#[test]
fn what_is_written_is_for_nobody_else_to_read_and_never_in_the_place_of_something_else() {
    let folder = folder(TOML);
    let (mut process, mut client) = start(folder.path());
    call(&mut client, "SET a 1", "+OK\r\n");
    call(&mut client, "SAVE", "+OK\r\n");
    process.signal(Signal::TERM);
    assert!(process.wait().success());
    let succeeds = |arguments: &[&str]| {
        let finished = run_in(folder.path(), arguments, &[]);
        assert_eq!(finished.code, Some(0), "{arguments:?}: {}", finished.stderr);
    };
    // As an application may have left one.
    fs::write(folder.path().join("out.rdb.tmp"), "of somebody else").expect("writable");
    succeeds(&["engine", "export", "data", "--to", "out.rdb"]);
    assert_eq!(fs::read(folder.path().join("out.rdb.tmp")).expect("there"), b"of somebody else");
    succeeds(&["engine", "import", "out.rdb", "--into", "imported"]);
    succeeds(&["engine", "backup", "data", "--to", "backup"]);
    let manifest = folder.path().join("backup/manifest");
    fs::set_permissions(&manifest, fs::Permissions::from_mode(0o644)).expect("ours");
    succeeds(&["engine", "restore", "backup", "--into", "restored"]);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&folder.path().join("out.rdb")), 0o600);
    for (directory, files) in [("data", 3), ("imported", 1), ("restored", 2)] {
        let directory = folder.path().join(directory);
        assert_eq!(mode(&directory), 0o700);
        let names: Vec<_> =
            fs::read_dir(&directory).expect("there").map(|entry| entry.expect("there").path()).collect();
        // The lock tells the number of a process, and nothing of the data.
        let data: Vec<_> = names.iter().filter(|path| !path.ends_with("lock")).collect();
        assert!(data.len() >= files, "{data:?}");
        for path in data {
            assert_eq!(mode(path), 0o600, "{}", path.display());
        }
    }
    let again = run_in(folder.path(), &["engine", "export", "data", "--to", "out.rdb"], &[]);
    assert_eq!(again.code, Some(1), "it is there already");
}
