//! The connections of drivers in the metrics, read at the moment when they are asked for.
//!
//! | metric | type | says |
//! |---|---|---|
//! | `acteon_state_connections` | gauge | connections that are open |
//! | `acteon_state_connection_calls_in_flight` | gauge | calls whose answer is awaited |
//! | `acteon_state_connection_calls_queued` | gauge | calls that wait for a free place or for a connection |
//! | `acteon_state_connections_opened_total` | counter | connections that were opened, the first ones included |
//! | `acteon_state_connections_lost_total` | counter | connections that were lost |
//! | `acteon_state_connection_attempts_failed_total` | counter | attempts to connect that failed |
//! | `acteon_state_connection_redirections_total` | counter | answers that sent a call to another server |
//!
//! What a store counted is kept when it goes, so that counters never fall.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// What a driver says of its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionFigures {
    /// Connections that are open.
    pub connections: u64,
    /// Calls that were sent and whose answer is awaited.
    pub in_flight: u64,
    /// Calls that wait for a free place or for a connection.
    pub queued: u64,
    /// Connections that were opened since the store was, the first ones included.
    pub connected_total: u64,
    /// Connections that were lost.
    pub disconnected_total: u64,
    /// Attempts to connect that failed.
    pub failed_total: u64,
    /// Answers that sent a call to another server.
    pub redirected_total: u64,
}

pub(super) type Read = Box<dyn Fn() -> Option<ConnectionFigures> + Send + Sync>;

/// The stores whose connections are shown.
#[derive(Clone, Default)]
pub(super) struct Connections {
    // Held while figures are read, which is rare and short; never across an await.
    backends: Arc<Mutex<BTreeMap<Arc<str>, Stores>>>,
}

/// The stores of one backend.
#[derive(Default)]
struct Stores {
    open: Vec<Store>,
    /// What stores counted that are gone.
    gone: ConnectionFigures,
}

struct Store {
    read: Read,
    /// What it said last.
    last: ConnectionFigures,
}

/// A row of the table above.
struct Row {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    of: fn(&ConnectionFigures) -> u64,
}

const ROWS: [Row; 7] = [
    Row {
        name: "acteon_state_connections",
        help: "Connections that are open",
        kind: MetricType::Gauge,
        of: |figures| figures.connections,
    },
    Row {
        name: "acteon_state_connection_calls_in_flight",
        help: "Calls whose answer is awaited",
        kind: MetricType::Gauge,
        of: |figures| figures.in_flight,
    },
    Row {
        name: "acteon_state_connection_calls_queued",
        help: "Calls that wait for a free place or for a connection",
        kind: MetricType::Gauge,
        of: |figures| figures.queued,
    },
    Row {
        name: "acteon_state_connections_opened",
        help: "Connections that were opened",
        kind: MetricType::Counter,
        of: |figures| figures.connected_total,
    },
    Row {
        name: "acteon_state_connections_lost",
        help: "Connections that were lost",
        kind: MetricType::Counter,
        of: |figures| figures.disconnected_total,
    },
    Row {
        name: "acteon_state_connection_attempts_failed",
        help: "Attempts to connect that failed",
        kind: MetricType::Counter,
        of: |figures| figures.failed_total,
    },
    Row {
        name: "acteon_state_connection_redirections",
        help: "Answers that sent a call to another server",
        kind: MetricType::Counter,
        of: |figures| figures.redirected_total,
    },
];

impl Connections {
    pub(super) fn follow(&self, backend: &str, read: Read) {
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        let store = Store { read, last: ConnectionFigures::default() };
        backends.entry(backend.into()).or_default().open.push(store);
    }

    /// The sums by backend.
    fn read(&self) -> BTreeMap<Arc<str>, ConnectionFigures> {
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        backends.iter_mut().map(|(backend, stores)| (backend.clone(), stores.read())).collect()
    }
}

impl Stores {
    fn read(&mut self) -> ConnectionFigures {
        let gone = &mut self.gone;
        self.open.retain_mut(|store| match (store.read)() {
            Some(figures) => {
                store.last = figures;
                true
            }
            None => {
                *gone = gone.plus_counters(&store.last);
                false
            }
        });
        self.open.iter().fold(self.gone, |sum, store| ConnectionFigures {
            connections: sum.connections + store.last.connections,
            in_flight: sum.in_flight + store.last.in_flight,
            queued: sum.queued + store.last.queued,
            ..sum.plus_counters(&store.last)
        })
    }
}

impl ConnectionFigures {
    /// Adds what only grows.
    fn plus_counters(self, other: &Self) -> Self {
        Self {
            connected_total: self.connected_total + other.connected_total,
            disconnected_total: self.disconnected_total + other.disconnected_total,
            failed_total: self.failed_total + other.failed_total,
            redirected_total: self.redirected_total + other.redirected_total,
            ..self
        }
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.read()).finish()
    }
}

impl Collector for Connections {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let backends = self.read();
        if backends.is_empty() {
            return Ok(());
        }
        for Row { name, help, kind, of } in &ROWS {
            let mut family = encoder.encode_descriptor(name, help, None, *kind)?;
            for (backend, figures) in &backends {
                let (number, labels) = (of(figures), [("backend", backend.as_ref())]);
                let metric = family.encode_family(&labels)?;
                match kind {
                    MetricType::Counter => ConstCounter::new(number).encode(metric)?,
                    _ => ConstGauge::new(i64::try_from(number).unwrap_or(i64::MAX)).encode(metric)?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::ConnectionFigures;
    use crate::layer::metrics::StoreMetrics;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn connections_are_read_when_asked_for_and_counters_never_fall() {
        let mut registry = Registry::default();
        let metrics = StoreMetrics::register(&mut registry);
        assert!(!text(&registry).contains("acteon_state_connections"), "nobody counts connections");
        let one = Arc::new(ConnectionFigures { connections: 1, queued: 4, connected_total: 2, ..Default::default() });
        let read = Arc::downgrade(&one);
        metrics.follow_connections("redis", move || read.upgrade().map(|figures| *figures));
        let two = ConnectionFigures { connections: 3, connected_total: 5, redirected_total: 7, ..Default::default() };
        metrics.follow_connections("redis", move || Some(two));
        for line in [
            "acteon_state_connections{backend=\"redis\"} 4",
            "acteon_state_connection_calls_queued{backend=\"redis\"} 4",
            "acteon_state_connections_opened_total{backend=\"redis\"} 7",
            "acteon_state_connection_redirections_total{backend=\"redis\"} 7",
        ] {
            assert!(text(&registry).contains(line), "{line}\n{}", text(&registry));
        }
        drop(one);
        assert!(text(&registry).contains("acteon_state_connections{backend=\"redis\"} 3"));
        assert!(text(&registry).contains("acteon_state_connections_opened_total{backend=\"redis\"} 7"));
    }
}
