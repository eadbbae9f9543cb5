//! What clients are told, and when, of an engine that keeps its data on a disk.

use std::sync::Arc;
use std::time::Duration;

use acteon_engine::{Engine, EngineConfig, InstanceConfig};
use acteon_engine_disk::simulation::{Directory, Faults};
use acteon_engine_disk::{Disk, DiskConfig, Fsync};

use crate::support::{TestServer, until};

const NOW_MS: u64 = 1_000_000;
/// Slow enough that replies which do not wait for it are seen.
const LATENCY: Duration = Duration::from_millis(30);

struct Kept {
    server: TestServer,
    disk: Arc<Disk>,
    directory: Directory,
}

async fn start(fsync: Fsync) -> Kept {
    let (engine, directory) = (Engine::new(EngineConfig::default()), Directory::new(7));
    let config = DiskConfig { fsync, retry: (Duration::from_millis(1), LATENCY), ..DiskConfig::default() };
    let (disk, _) = Disk::open(Arc::new(directory.clone()), &engine, config, NOW_MS).expect("a new directory");
    let disk = Arc::new(disk);
    let server = TestServer::start_over(engine, InstanceConfig::default(), Some(Arc::clone(&disk)), |_| ()).await;
    Kept { server, disk, directory }
}

/// What is there after the machine has stopped at this moment.
fn keys_after_crash(directory: &Directory) -> usize {
    let engine = Engine::new(EngineConfig::default());
    Disk::open(Arc::new(directory.restarted()), &engine, DiskConfig::default(), NOW_MS).expect("sound");
    engine.len()
}

#[tokio::test]
async fn what_was_answered_survives_a_crash_of_the_machine() {
    let Kept { server, directory, .. } = start(Fsync::Always).await;
    directory.set_faults(Faults { latency: LATENCY, ..Faults::default() });
    let (mut writer, mut popper) = (server.connect().await, server.connect().await);
    writer.call("SET a 1\r\n", "+OK\r\n").await;
    assert_eq!(keys_after_crash(&directory), 1);
    writer.call("SET b 1\r\nSET c 1\r\nGET b\r\n", "+OK\r\n+OK\r\n$1\r\n1\r\n").await;
    assert_eq!(keys_after_crash(&directory), 3);
    writer.call("MULTI\r\nSET d 1\r\nSET e 1\r\nEXEC\r\n", "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n+OK\r\n").await;
    assert_eq!(keys_after_crash(&directory), 5);
    let script = "EVAL \"return redis.call('set', KEYS[1], 1)\" 1 f\r\n";
    writer.call(script, "+OK\r\n").await;
    assert_eq!(keys_after_crash(&directory), 6);
    // What a waiting client was given is gone, whoever has carried out the removal.
    popper.send("BLPOP queue 0\r\n").await;
    writer.call("RPUSH queue first\r\n", ":1\r\n").await;
    popper.expect("*2\r\n$5\r\nqueue\r\n$5\r\nfirst\r\n").await;
    assert_eq!(keys_after_crash(&directory), 6);
}

#[tokio::test]
async fn nobody_reads_or_hears_of_what_a_crash_could_take_back() {
    let Kept { server, directory, disk } = start(Fsync::Always).await;
    let (mut writer, mut reader, mut subscriber) =
        (server.connect().await, server.connect().await, server.connect().await);
    subscriber.call("SUBSCRIBE news\r\n", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n").await;
    directory.set_faults(Faults { latency: LATENCY, ..Faults::default() });
    let position = disk.statistics().position;
    writer.send("SET a 1\r\nPUBLISH news a\r\n").await;
    until(|| disk.statistics().position > position).await;
    reader.call("GET a\r\n", "$1\r\n1\r\n").await;
    assert_eq!(keys_after_crash(&directory), 1);
    subscriber.expect("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\na\r\n").await;
    writer.expect("+OK\r\n:1\r\n").await;
}

#[tokio::test]
async fn clients_share_a_sync() {
    const CLIENTS: usize = 50;
    let Kept { server, directory, disk } = start(Fsync::Always).await;
    directory.set_faults(Faults { latency: LATENCY, ..Faults::default() });
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = server.connect().await;
        client.send(format!("SET {number} 1\r\n")).await;
        clients.push(client);
    }
    for mut client in clients {
        client.expect("+OK\r\n").await;
    }
    let syncs = disk.statistics().syncs;
    assert!(syncs < CLIENTS as u64 / 2, "{syncs} syncs");
}

#[tokio::test]
async fn failing_disk_ends_who_cannot_be_answered_and_lets_the_others_read() {
    let Kept { server, directory, disk } = start(Fsync::Always).await;
    let (mut writer, mut reader) = (server.connect().await, server.connect().await);
    writer.call("SET a 1\r\n", "+OK\r\n").await;
    directory.set_faults(Faults { bytes_max: Some(directory.bytes()), ..Faults::default() });
    // It was carried out, and nobody can say whether it will last.
    writer.send("SET b 1\r\n").await;
    assert_eq!(String::from_utf8_lossy(&writer.rest().await), "");
    reader.call("GET a\r\n", "$1\r\n1\r\n").await;
    let refused = "-MISCONF Errors writing to the AOF file: cannot write to journal";
    reader.send("SET c 1\r\n").await;
    reader.expect(refused).await;
    until_line_end(&mut reader).await;
    directory.set_faults(Faults::default());
    until(|| disk.statistics().refusal.is_none()).await;
    reader.call("SET c 1\r\nGET c\r\n", "+OK\r\n$1\r\n1\r\n").await;
    assert!(keys_after_crash(&directory) >= 2);
}

async fn until_line_end(connection: &mut crate::support::Connection<tokio::net::TcpStream>) {
    while connection.receive(1).await != b"\n" {}
}

#[tokio::test]
async fn everysec_waits_for_nothing() {
    let Kept { server, directory, disk } = start(Fsync::EverySecond).await;
    directory.set_faults(Faults { latency: Duration::from_secs(1), ..Faults::default() });
    let mut writer = server.connect().await;
    writer.call("SET a 1\r\n", "+OK\r\n").await;
    assert!(disk.statistics().synced_position < disk.statistics().position);
    directory.set_faults(Faults::default());
}

/// Whoever opened the disk has told others what survives a crash; a client could have made that untrue.
#[tokio::test]
async fn clients_may_ask_for_more_than_the_disk_was_opened_with_and_not_for_less() {
    let Kept { server, disk, .. } = start(Fsync::EverySecond).await;
    let mut client = server.connect().await;
    let refused = "-ERR CONFIG SET failed (possibly related to argument 'appendfsync') - the engine was started with \
                   fsync everysec, which others rely on: no is less\r\n";
    client.call("CONFIG SET appendfsync no\r\n", refused).await;
    assert_eq!(disk.statistics().fsync, Fsync::EverySecond);
    client.call("CONFIG SET appendfsync always\r\n", "+OK\r\n").await;
    client.call("CONFIG SET appendfsync everysec\r\n", "+OK\r\n").await;
    assert_eq!(disk.statistics().fsync, Fsync::EverySecond);
}

/// What a connection had been answered under the old setting counted as kept for it, so that it could read, and pass on, what the disk did not
/// have yet.
#[tokio::test]
async fn setting_that_becomes_stricter_holds_back_what_was_answered_before_it() {
    let Kept { server, directory, disk } = start(Fsync::No).await;
    directory.set_faults(Faults { latency: LATENCY, ..Faults::default() });
    let mut client = server.connect().await;
    client.call("SET a 1\r\n", "+OK\r\n").await;
    let position = disk.statistics().position;
    disk.set_fsync(Fsync::Always);
    client.call("GET a\r\n", "$1\r\n1\r\n").await;
    assert!(disk.statistics().synced_position >= position);
    assert_eq!(keys_after_crash(&directory), 1);
}
