//! A session over a stream in memory.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use acteon_engine::{Client, ClientOptions, Engine, EngineConfig, Instance, InstanceConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, advance, timeout};

use super::{Pace, Session, TURN_US_MAX};
use crate::admission::Admission;
use crate::config::ListenConfig;
use crate::listener::Origin;
use crate::server::{Clock, EngineServer, Shared};

/// What the stream holds in each direction.
const STREAM_BYTES: usize = 1 << 10;

async fn shared(config: InstanceConfig, clock: Clock) -> Arc<Shared> {
    let instance = Instance::new(Engine::new(EngineConfig::default()), config);
    EngineServer::bind(instance, ListenConfig::default(), clock).await.expect("nothing to bind").shared
}

/// A session with the other end of its stream.
fn session(shared: &Arc<Shared>) -> (Session<DuplexStream>, DuplexStream) {
    let address = String::from("127.0.0.1:1");
    let origin = Origin {
        peer_address: address.clone(),
        local_address: address,
        is_local: true,
        is_unix: false,
        descriptor: -1,
    };
    let (stream, peer) = duplex(STREAM_BYTES);
    let admission = Admission::request(shared, true).expect("room");
    (Session::new(stream, origin, admission, shared.clone()), peer)
}

/// Gives a session requests without its stream.
async fn feed(session: &mut Session<DuplexStream>, mut requests: &[u8]) {
    while !requests.is_empty() {
        poll_fn(|context| session.input.poll_fill(&mut requests, 1, context)).await.expect("readable");
    }
}

/// The number behind `name` in the line that CLIENT LIST has for the first connection.
fn listed(instance: &Arc<Instance>, name: &str) -> u64 {
    let (mut client, mut out) = (Client::connect(instance, ClientOptions::default()), Vec::new());
    // Where there is a password it is this one.
    client.execute(&[b"AUTH", b"secret"], 1, &mut out);
    client.execute(&[b"CLIENT", b"LIST"], 1, &mut out);
    let text = String::from_utf8(out).expect("text");
    let number = text.split_whitespace().find_map(|field| field.strip_prefix(name)).expect("a field");
    number.parse().expect("a number")
}

#[tokio::test(start_paused = true)]
async fn who_has_given_no_password_fills_no_memory() {
    const SENT_BYTES: usize = 64 << 20;
    let config = InstanceConfig { password: Some("secret".into()), ..InstanceConfig::default() };
    let shared = shared(config, Arc::new(|| 1)).await;
    let (session, mut peer) = session(&shared);
    tokio::spawn(session.run());
    let requests = b"GET a\r\n".repeat(SENT_BYTES / 7);
    timeout(Duration::from_secs(60), peer.write_all(&requests)).await.expect_err("nobody reads all of that");
    let (input, output) = (listed(&shared.instance, "qbuf="), listed(&shared.instance, "obl="));
    assert!(input + output < 400_000, "{input} and {output} bytes wait");
}

#[tokio::test]
async fn a_reply_that_is_not_sent_leaves_no_room_behind() {
    let shared = shared(InstanceConfig::default(), Arc::new(|| 1)).await;
    let (session, mut peer) = session(&shared);
    tokio::spawn(session.run());
    peer.write_all(b"SETRANGE a 999999 x\r\nCLIENT REPLY OFF\r\nGET a\r\n").await.expect("open");
    peer.write_all(b"CLIENT REPLY ON\r\n").await.expect("open");
    let mut seen = [0; 15];
    peer.read_exact(&mut seen).await.expect("replies");
    assert_eq!(&seen, b":1000000\r\n+OK\r\n");
    peer.write_all(b"PING\r\n").await.expect("open");
    peer.read_exact(&mut seen[..7]).await.expect("a reply");
    assert!(listed(&shared.instance, "rbs=") < 100_000);
    assert_eq!(listed(&shared.instance, "obl="), 0);
}

#[tokio::test]
async fn arguments_take_no_room_once_they_were_carried_out() {
    let shared = shared(InstanceConfig::default(), Arc::new(|| 1)).await;
    let (mut session, _peer) = session(&shared);
    let many = [&b"*5001\r\n$3\r\nDEL\r\n"[..], &b"$1\r\na\r\n".repeat(5_000)].concat();
    feed(&mut session, &many).await;
    session.execute();
    assert_eq!(session.output.buffer(), b":0\r\n");
    assert!(session.args.is_empty());
}

#[tokio::test]
async fn a_turn_ends_when_its_time_is_over() {
    let time_us = AtomicU64::new(0);
    let clock = Arc::new(move || time_us.fetch_add(TURN_US_MAX / 2, Ordering::Relaxed));
    let shared = shared(InstanceConfig::default(), clock).await;
    let (mut session, _peer) = session(&shared);
    feed(&mut session, &b"PING\r\n".repeat(10)).await;
    assert!(session.execute());
    assert_eq!(session.output.len(), 3 * "+PONG\r\n".len());
}

#[tokio::test(start_paused = true)]
async fn a_command_that_waits_for_long_is_tried_rarely() {
    let shared = shared(InstanceConfig::default(), Arc::new(|| 1)).await;
    let (mut session, _peer) = session(&shared);
    let (began, mut tries) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(10) {
        session.retry_later(1);
        let Pace::Retry { at, .. } = session.pace else { panic!("it waits") };
        advance(at - Instant::now()).await;
        tries += 1;
    }
    assert!(tries < 300, "{tries} tries");
}
