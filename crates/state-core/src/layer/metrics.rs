//! Counts and times calls, for Prometheus.
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `acteon_state_operations_total` | counter | backend, operation, outcome |
//! | `acteon_state_operation_duration_seconds` | histogram | backend, operation |
//! | `acteon_state_operations_in_flight` | gauge | backend |
//! | `acteon_state_degraded_total` | counter | backend, kind, policy |
//! | `acteon_state_requests_total` | counter | backend, operation |
//! | `acteon_state_consumed_units_total` | counter | backend, operation, unit |
//! | `acteon_state_connections`, `acteon_state_connection_…` | | backend |
//!
//! `requests` and `consumed_units` are of backends that bill by request, and come from the driver: what it sent, and the read
//! and write units that the service says it has consumed. Connections are told by drivers that count theirs, see
//! [`ConnectionFigures`].
//!
//! `degraded` counts calls that the backend did not answer, by what became of them: `closed`, `open`, `stale` or `local`; see
//! [`degrade`](super::degrade). The kind is `default` unless the configuration names it.
//!
//! The outcome is one word: `applied`, `not_met`, `granted`, `busy`, …, or the kind of the error. Keys are never labels. The
//! time of `lock_acquire` includes its wait. A call whose future is dropped by its caller counts as in flight until then, and
//! nowhere else. Right order: inside of tracing only, so that it sees what the application saw. Inside of the deadline,
//! calls that it cuts off would be such dropped ones, and an outage would look like silence.

mod connections;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use futures_util::future::BoxFuture;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::error::Result;
use crate::layer::Around;
use crate::operation::{Call, Operation, Reply};

pub use connections::ConnectionFigures;
use connections::Connections;

/// Upper bounds of the histogram in seconds: from a call in process to one that waits.
const BUCKETS_S: [f64; 14] =
    [0.000_001, 0.000_01, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    backend: Arc<str>,
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    backend: Arc<str>,
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackendLabels {
    backend: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UnitLabels {
    backend: Arc<str>,
    operation: &'static str,
    unit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DegradedLabels {
    backend: Arc<str>,
    kind: Arc<str>,
    policy: &'static str,
}

/// The metrics of all stores of a process.
#[derive(Debug)]
pub struct StoreMetrics {
    operations: Family<OutcomeLabels, Counter>,
    durations: Family<OperationLabels, Histogram, fn() -> Histogram>,
    in_flight: Family<BackendLabels, Gauge>,
    degraded: Family<DegradedLabels, Counter>,
    requests: Family<OperationLabels, Counter>,
    units: Family<UnitLabels, Counter<f64, AtomicU64>>,
    connections: Connections,
}

impl StoreMetrics {
    /// Metrics that are registered in `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Arc<Self> {
        let metrics = Self {
            operations: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS_S)),
            in_flight: Family::default(),
            degraded: Family::default(),
            requests: Family::default(),
            units: Family::default(),
            connections: Connections::default(),
        };
        let Self { operations, durations, in_flight, degraded, requests, units, connections } = &metrics;
        registry.register("acteon_state_operations", "Calls of the state store, by outcome", operations.clone());
        let help = "Time of calls of the state store";
        registry.register("acteon_state_operation_duration_seconds", help, durations.clone());
        registry.register("acteon_state_operations_in_flight", "Calls under way", in_flight.clone());
        let help = "Calls that the backend did not answer, by what became of them";
        registry.register("acteon_state_degraded", help, degraded.clone());
        registry.register("acteon_state_requests", "Requests to a backend that bills them", requests.clone());
        registry.register("acteon_state_consumed_units", "Capacity units that a backend has billed", units.clone());
        registry.register_collector(Box::new(connections.clone()));
        Arc::new(metrics)
    }

    /// Shows the connections of a store under its backend's name, as `read` tells them whenever metrics are asked for. `None`
    /// from it means that the store is gone. Several stores of one backend are added up.
    pub fn follow_connections(
        &self,
        backend: &str,
        read: impl Fn() -> Option<ConnectionFigures> + Send + Sync + 'static,
    ) {
        self.connections.follow(backend, Box::new(read));
    }

    /// Counts a call about a key of this kind that was not answered.
    pub(super) fn degraded(&self, backend: &Arc<str>, kind: &Arc<str>, policy: &'static str) {
        let labels = DegradedLabels { backend: backend.clone(), kind: kind.clone(), policy };
        self.degraded.get_or_create(&labels).inc();
    }

    /// Counts what a backend bills, under its name: for its driver.
    #[must_use]
    pub fn usage(self: &Arc<Self>, backend: &str) -> UsageMetrics {
        UsageMetrics { metrics: self.clone(), backend: backend.into() }
    }
}

/// Counts what one backend bills.
#[derive(Clone, Debug)]
pub struct UsageMetrics {
    metrics: Arc<StoreMetrics>,
    backend: Arc<str>,
}

impl UsageMetrics {
    /// Counts a request and the units that it has consumed.
    pub fn add(&self, operation: Operation, read_units: f64, write_units: f64) {
        let (backend, operation) = (&self.backend, operation.as_str());
        self.metrics.requests.get_or_create(&OperationLabels { backend: backend.clone(), operation }).inc();
        for (unit, units) in [("read", read_units), ("write", write_units)] {
            if units > 0.0 {
                let labels = UnitLabels { backend: backend.clone(), operation, unit };
                self.metrics.units.get_or_create(&labels).inc_by(units);
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Metrics {
    metrics: Arc<StoreMetrics>,
    backend: Arc<str>,
    in_flight: Gauge,
}

impl Metrics {
    /// Counts into `metrics` under the backend's name.
    #[must_use]
    pub fn new(metrics: Arc<StoreMetrics>, backend: &str) -> Self {
        let backend: Arc<str> = backend.into();
        let in_flight = metrics.in_flight.get_or_create(&BackendLabels { backend: backend.clone() }).clone();
        Self { metrics, backend, in_flight }
    }
}

/// Counts a call as under way until it ends or is dropped.
struct InFlight<'a>(&'a Gauge);

impl<'a> InFlight<'a> {
    fn begin(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Around for Metrics {
    async fn around<'a, T: Reply + 'a>(
        &'a self,
        call: &'a Call<'a>,
        attempt: impl Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    ) -> Result<T> {
        let _in_flight = InFlight::begin(&self.in_flight);
        let started = Instant::now();
        let result = attempt().await;
        let outcome = match &result {
            Ok(reply) => reply.outcome(),
            Err(error) => error.kind().as_str(),
        };
        let (backend, operation) = (self.backend.clone(), call.operation.as_str());
        let labels = OperationLabels { backend: backend.clone(), operation };
        self.metrics.durations.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
        self.metrics.operations.get_or_create(&OutcomeLabels { backend, operation, outcome }).inc();
        result
    }
}
