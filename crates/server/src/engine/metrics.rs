//! The engine's numbers in `/metrics`, read at the moment when they are asked for. Those of clients are there once it listens.
//!
//! | metric | type | from |
//! |---|---|---|
//! | `acteon_engine_connections` | gauge | clients that are connected |
//! | `acteon_engine_connections_received_total` | counter | clients that were taken |
//! | `acteon_engine_connections_rejected_total` | counter | clients that were turned away |
//! | `acteon_engine_input_bytes_total`, `acteon_engine_output_bytes_total` | counter | what went to and fro |
//! | `acteon_engine_disconnections_total` | counter | clients that did not read, or sent too long a request |
//! | `acteon_engine_keys`, `acteon_engine_keys_with_ttl` | gauge | keys of database 0, which is the store |
//! | `acteon_engine_memory_bytes` | gauge | what they take, estimated |
//! | `acteon_engine_memory_max_bytes` | gauge | the bound of that, of all databases together; 0: none |
//! | `acteon_engine_expired_keys_total` | counter | keys whose time had come |
//! | `acteon_engine_evicted_keys_total{policy}` | counter | keys of all databases that went because memory was short |
//!
//! Those of its directory, `acteon_engine_disk_..`, are there if it has one; `docs/engine.md` lists them.

use std::fmt;
use std::sync::{Arc, OnceLock};

use acteon_engine::{Engine, EvictionPolicy, Stats};
use acteon_engine_disk::{Disk, Statistics};
use acteon_engine_server::Counters;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Where the numbers come from, once there are some.
#[derive(Clone, Default)]
pub(crate) struct Figures(Arc<Sources>);

#[derive(Default)]
struct Sources {
    engine: OnceLock<Engine>,
    /// Keeps what the engine holds.
    disk: OnceLock<Arc<Disk>>,
    /// Counts of clients, once the engine listens.
    clients: OnceLock<Arc<Counters>>,
}

impl Figures {
    /// The engine is there from now on. The first one is that of the data.
    pub(crate) fn follow(&self, engine: Engine, disk: Option<Arc<Disk>>) {
        if self.0.engine.set(engine).is_ok()
            && let Some(disk) = disk
        {
            let _ = self.0.disk.set(disk);
        }
    }

    /// It listens from now on.
    pub(crate) fn follow_clients(&self, counters: Arc<Counters>) {
        let is_first = self.0.clients.set(counters).is_ok();
        debug_assert!(is_first, "a server publishes one engine");
    }
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Figures").field("is_known", &self.0.engine.get().is_some()).finish()
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(engine) = self.0.engine.get() else { return Ok(()) };
        encode_contents(engine, &mut encoder)?;
        self.0.disk.get().map_or(Ok(()), |disk| encode_disk(&disk.statistics(), &mut encoder))?;
        self.0.clients.get().map_or(Ok(()), |counters| encode_clients(counters, &mut encoder))
    }
}

fn encode_contents(engine: &Engine, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let stats = stats(engine);
    for (name, help, number) in [
        ("keys", "Keys in the engine", stats.keys),
        ("keys_with_ttl", "Keys in the engine that have a deadline", stats.keys_with_ttl),
        ("memory_bytes", "Estimated memory of the engine", stats.bytes),
        ("memory_max_bytes", "The bound of the memory of the engine", stats.bytes_max.unwrap_or(0)),
    ] {
        encode(encoder, name, help, &gauge(number))?;
    }
    encode(encoder, "expired_keys", "Keys of the engine whose time had come", &ConstCounter::new(stats.expired_total))?;
    let evicted = ConstCounter::new(0_u64);
    let (name, help) = ("acteon_engine_evicted_keys", "Keys of the engine that went because memory was short");
    let mut family = encoder.encode_descriptor(name, help, None, evicted.metric_type())?;
    for (policy, count) in engine.evictions().into_iter().filter(|(policy, _)| *policy != EvictionPolicy::NoEviction) {
        let labels = [("policy", policy.name())];
        ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn encode_disk(statistics: &Statistics, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let Statistics { rewrite, save, .. } = statistics;
    for (name, help, number) in [
        ("writable", "Whether the directory of the engine takes writes", u64::from(statistics.refusal.is_none())),
        ("pending_bytes", "What waits for the disk", statistics.pending_bytes),
        ("base_bytes", "The base of the journal", statistics.base_bytes),
        ("journal_bytes", "The journal without its base", statistics.journal_bytes),
        ("position", "Groups of changes that there ever were", statistics.position),
        ("written_position", "Of these, the operating system has so many", statistics.written_position),
        ("synced_position", "Of these, the disk has so many", statistics.synced_position),
        ("dropped_at_start_bytes", "What a crash had cut off, and was left out", statistics.dropped_at_start_bytes),
        (
            "rewrite_ok",
            "Whether the last rewriting of the journal succeeded",
            u64::from(rewrite.last_failure.is_none()),
        ),
        ("save_ok", "Whether the last snapshot succeeded", u64::from(save.last_failure.is_none())),
        ("changes_since_save", "Groups of changes since the last snapshot", statistics.changes_since_save),
    ] {
        encode_of_disk(encoder, name, help, &gauge(number))?;
    }
    for (name, help, count) in [
        ("writes", "Writes to the journal", statistics.writes),
        ("syncs", "Syncs of the journal", statistics.syncs),
        ("write_failures", "Writes to the journal that failed, also repeatedly", statistics.write_failures),
        ("sync_failures", "Syncs of the journal that failed", statistics.sync_failures),
        ("rewrites", "Rewritings of the journal that have ended", rewrite.ended),
        ("saves", "Snapshots that have ended", save.ended),
    ] {
        encode_of_disk(encoder, name, help, &ConstCounter::new(count))?;
    }
    let sync_seconds = ConstCounter::new(statistics.sync_total.as_secs_f64());
    encode_of_disk(encoder, "sync_seconds", "What the syncs of the journal took together", &sync_seconds)?;
    for (name, help, seconds) in [
        ("last_sync_seconds", "How long the last sync took", statistics.last_sync.as_secs_f64()),
        ("sync_max_seconds", "How long the longest sync took", statistics.sync_max.as_secs_f64()),
        ("last_save_timestamp_seconds", "When the last snapshot succeeded", statistics.last_save_ms as f64 / 1_000.0),
    ] {
        encode_of_disk(encoder, name, help, &ConstGauge::new(seconds))?;
    }
    Ok(())
}

fn encode_of_disk(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    encode(encoder, &format!("disk_{name}"), help, metric)
}

fn encode_clients(counters: &Counters, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let totals = counters.totals();
    let disconnections = totals.output_limit_disconnections + totals.query_limit_disconnections;
    for (name, help, count) in [
        ("connections_received", "Clients of the engine that were taken", totals.received),
        ("connections_rejected", "Clients of the engine that were turned away", totals.rejected),
        ("input_bytes", "Bytes from clients of the engine", totals.input_bytes),
        ("output_bytes", "Bytes to clients of the engine", totals.output_bytes),
        ("disconnections", "Clients of the engine that overstepped a limit", disconnections),
    ] {
        encode(encoder, name, help, &ConstCounter::new(count))?;
    }
    encode(encoder, "connections", "Clients of the engine that are connected", &gauge(totals.current))
}

fn gauge(number: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(number).unwrap_or(i64::MAX))
}

/// What the engine holds. This waits for a script that holds keys, so other requests get another thread meanwhile.
fn stats(engine: &Engine) -> Stats {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(|| engine.stats()),
        _ => engine.stats(),
    }
}

fn encode(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
    let name = format!("acteon_engine_{name}");
    metric.encode(encoder.encode_descriptor(&name, help, None, metric.metric_type())?)
}
