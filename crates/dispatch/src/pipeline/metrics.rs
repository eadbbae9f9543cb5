//! What the dispatcher counts, for Prometheus.
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `acteon_dispatch_total` | counter | outcome: a status, or the code of an error |
//! | `acteon_dispatch_duration_seconds` | histogram | – |
//! | `acteon_dispatch_failed_open_total` | counter | stage |
//! | `acteon_dispatch_lock_lost_total` | counter | – |
//! | `acteon_deliveries_total` | counter | outcome: a status, `retried` or `given_up` |

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::outcome::Outcome;
use crate::pipeline::error::DispatchError;

/// Upper bounds of the histogram in seconds: from an empty pipeline in memory to a slow provider.
const BUCKETS_S: [f64; 12] = [0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stage: &'static str,
}

/// The metrics of a dispatcher.
#[derive(Debug)]
pub struct DispatchMetrics {
    dispatches: Family<OutcomeLabels, Counter>,
    durations: Histogram,
    failed_open: Family<StageLabels, Counter>,
    locks_lost: Counter,
    deliveries: Family<OutcomeLabels, Counter>,
}

impl DispatchMetrics {
    /// Metrics that are registered in `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Arc<Self> {
        let metrics = Self {
            dispatches: Family::default(),
            durations: Histogram::new(BUCKETS_S),
            failed_open: Family::default(),
            locks_lost: Counter::default(),
            deliveries: Family::default(),
        };
        registry.register("acteon_dispatch", "Dispatched actions, by outcome", metrics.dispatches.clone());
        registry.register("acteon_dispatch_duration_seconds", "Time of a dispatch", metrics.durations.clone());
        let help = "Stages that let an action through because the store did not answer";
        registry.register("acteon_dispatch_failed_open", help, metrics.failed_open.clone());
        let help = "Locks that were lost while their action was executed";
        registry.register("acteon_dispatch_lock_lost", help, metrics.locks_lost.clone());
        registry.register("acteon_deliveries", "Scheduled actions, by outcome", metrics.deliveries.clone());
        Arc::new(metrics)
    }

    pub(super) fn record_dispatch(&self, result: &Result<Outcome, DispatchError>, took: Duration) {
        let outcome = match result {
            Ok(outcome) => outcome.status(),
            Err(error) => error.code(),
        };
        self.dispatches.get_or_create(&OutcomeLabels { outcome }).inc();
        self.durations.observe(took.as_secs_f64());
    }

    pub(super) fn record_delivery(&self, outcome: &'static str) {
        self.deliveries.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    pub(super) fn failed_open(&self, stage: &'static str) {
        self.failed_open.get_or_create(&StageLabels { stage }).inc();
    }

    pub(super) fn lock_lost(&self) {
        self.locks_lost.inc();
    }
}
