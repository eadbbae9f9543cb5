//! The engine's numbers in `/metrics`, read at the moment when they are asked for.
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
//! | `acteon_engine_expired_keys_total` | counter | keys whose time had come |

use std::fmt;
use std::sync::{Arc, OnceLock};

use acteon_engine::{Engine, Stats};
use acteon_engine_server::Counters;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Where the numbers come from, once there are some.
#[derive(Clone, Default)]
pub(crate) struct Figures(Arc<OnceLock<(Engine, Arc<Counters>)>>);

impl Figures {
    /// The engine listens from now on.
    pub(crate) fn follow(&self, engine: Engine, counters: Arc<Counters>) {
        let is_first = self.0.set((engine, counters)).is_ok();
        debug_assert!(is_first, "a server publishes one engine");
    }
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Figures").field("is_known", &self.0.get().is_some()).finish()
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some((engine, counters)) = self.0.get() else { return Ok(()) };
        let (totals, stats) = (counters.totals(), stats(engine));
        let disconnections = totals.output_limit_disconnections + totals.query_limit_disconnections;
        for (name, help, count) in [
            ("connections_received", "Clients of the engine that were taken", totals.received),
            ("connections_rejected", "Clients of the engine that were turned away", totals.rejected),
            ("input_bytes", "Bytes from clients of the engine", totals.input_bytes),
            ("output_bytes", "Bytes to clients of the engine", totals.output_bytes),
            ("disconnections", "Clients of the engine that overstepped a limit", disconnections),
            ("expired_keys", "Keys of the engine whose time had come", stats.expired_total),
        ] {
            encode(&mut encoder, name, help, &ConstCounter::new(count))?;
        }
        for (name, help, number) in [
            ("connections", "Clients of the engine that are connected", totals.current),
            ("keys", "Keys in the engine", stats.keys),
            ("keys_with_ttl", "Keys in the engine that have a deadline", stats.keys_with_ttl),
            ("memory_bytes", "Estimated memory of the engine", stats.bytes),
        ] {
            encode(&mut encoder, name, help, &ConstGauge::new(i64::try_from(number).unwrap_or(i64::MAX)))?;
        }
        Ok(())
    }
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
