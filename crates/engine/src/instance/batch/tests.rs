//! What goes by between the commands of a batch: it belongs to none of them, and the next one sees a later time.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Batch, CLOCK_NS_MAX};
use crate::instance::measure::now_ns;
use crate::lock::{Locked, PATIENCE};
use crate::{
    Client, ClientOptions, Engine, EngineConfig, EvictionConfig, EvictionPolicy, Flow, Instance, InstanceConfig,
};

const NOW_US: u64 = 1_000_000_000;

fn instance(config: EngineConfig) -> Arc<Instance> {
    Instance::new(Engine::new(config), InstanceConfig::default())
}

fn connect(instance: &Arc<Instance>) -> Client {
    Client::connect(instance, ClientOptions::default())
}

fn execute(batch: &mut Batch<'_>, command: &str) -> (Flow, String) {
    let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
    let mut out = Vec::new();
    let flow = batch.execute(&args, &mut out);
    (flow, String::from_utf8_lossy(&out).trim_end().to_owned())
}

fn next_begins_ns(batch: &Batch<'_>) -> u64 {
    batch.client.progress.measured.ended_ns().expect("commands of a batch follow each other")
}

/// A command that had waited for its keys was in SLOWLOG as if it had been slow, and the next one saw the time from before the wait: what it wrote for
/// 2 ms was over by then.
#[test]
fn wait_for_keys_that_others_hold_belongs_to_no_command_and_makes_the_next_one_ask_for_the_time() {
    let instance = instance(EngineConfig::default());
    let (mut client, asked) = (connect(&instance), Cell::new(0));
    let clock = || {
        asked.set(asked.get() + 1);
        NOW_US + asked.get()
    };
    for command in ["GET k", "MGET j k", "FLUSHDB SYNC"] {
        let mut batch = client.batch(&clock);
        assert_eq!(execute(&mut batch, "PING").1, "+PONG");
        let place = instance.databases.place(0, b"k");
        let held =
            Locked::acquire(&instance.databases, [place].into_iter().collect(), PATIENCE).expect("nobody holds it");
        let began_ns = now_ns();
        assert_eq!(execute(&mut batch, command).0, Flow::Retry, "{command}");
        drop(held);
        let waited_ns = next_begins_ns(&batch) - began_ns;
        assert!(u128::from(waited_ns) >= PATIENCE.as_nanos() && waited_ns > CLOCK_NS_MAX, "{command}: {waited_ns}");
        let before_us = batch.now_us();
        execute(&mut batch, "PING");
        assert!(batch.now_us() > before_us, "{command}");
    }
}

/// A queued command is not measured, but evicts.
#[test]
fn eviction_belongs_to_no_command() {
    let eviction = EvictionConfig { policy: EvictionPolicy::AllKeysLru, ..EvictionConfig::default() };
    let instance =
        instance(EngineConfig { segments: 16, memory_bytes_max: Some(1 << 20), eviction, ..EngineConfig::default() });
    let (mut client, clock) = (connect(&instance), || NOW_US);
    let mut batch = client.batch(&clock);
    for number in 0..2_000 {
        assert_eq!(execute(&mut batch, &format!("SET k{number} {}", "v".repeat(200))).1, "+OK");
    }
    execute(&mut batch, "CONFIG SET maxmemory 200000");
    execute(&mut batch, "MULTI");
    let evicted = instance.databases.first().stats().evicted_total;
    let began_ns = next_begins_ns(&batch);
    assert_eq!(execute(&mut batch, "SET k v PX 5").1, "+QUEUED");
    assert!(instance.databases.first().stats().evicted_total > evicted);
    assert!(next_begins_ns(&batch) > began_ns);
}

#[test]
fn what_others_get_from_a_command_belongs_to_no_command() {
    let (instance, woken_ns) = (instance(EngineConfig::default()), Arc::new(AtomicU64::new(0)));
    let note = {
        let woken_ns = Arc::clone(&woken_ns);
        move || woken_ns.store(now_ns(), Ordering::SeqCst)
    };
    let waker = Box::new(note.clone());
    let mut waiting = Client::connect(&instance, ClientOptions { waker, ..ClientOptions::default() });
    assert!(instance.on_message(|_| true, move |_| note()));
    assert!(matches!(waiting.execute(&[b"BLPOP", b"list", b"0"], NOW_US, &mut Vec::new()), Flow::Blocked { .. }));
    let (mut client, clock) = (connect(&instance), || NOW_US);
    let mut batch = client.batch(&clock);
    for command in ["LPUSH list v", "PUBLISH channel m"] {
        woken_ns.store(0, Ordering::SeqCst);
        assert!(execute(&mut batch, command).1.starts_with(':'), "{command}");
        let woken_ns = woken_ns.load(Ordering::SeqCst);
        assert!((1..=next_begins_ns(&batch)).contains(&woken_ns), "{command}");
    }
}
