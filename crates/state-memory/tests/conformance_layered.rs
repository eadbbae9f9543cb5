//! The contract, on the memory driver in all of the layers that a store behind a network has, and with all kinds such that they may be
//! served stale: while the backend answers, layers change nothing.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use acteon_state_conformance::Factory;
use acteon_state_core::layer::circuit_breaker::Thresholds;
use acteon_state_core::layer::concurrency_limit::Limits;
use acteon_state_core::layer::degrade::{self, Bounds, Degradation, Policies};
use acteon_state_core::layer::{Layers, retry};
use acteon_state_core::{Result, StateStore};
use acteon_state_memory::{MemoryConfig, MemoryStore};
use async_trait::async_trait;
use parking_lot::Mutex;

/// One store for each prefix that is open.
#[derive(Debug, Default)]
struct Layered(Mutex<HashMap<String, MemoryStore>>);

#[async_trait]
impl Factory for Layered {
    async fn open(&self, prefix: &str) -> Result<Arc<dyn StateStore>> {
        let mut stores = self.0.lock();
        if !stores.contains_key(prefix) {
            let config = MemoryConfig { prefix: prefix.to_owned(), ..MemoryConfig::default() };
            stores.insert(prefix.to_owned(), MemoryStore::open(&config)?);
        }
        Ok(layers().wrap(Arc::new(stores[prefix].handle())))
    }

    async fn clean(&self, prefix: &str) -> Result<()> {
        self.0.lock().remove(prefix);
        Ok(())
    }
}

fn layers() -> Layers {
    Layers {
        tracing: true,
        degrade: Some(degrade::Options {
            policies: Policies::new(Degradation::Stale, []),
            last_seen: Bounds::default(),
            stand_in: None,
        }),
        deadline: Some(Duration::from_secs(60)),
        concurrency: Some(Limits { in_flight_max: 10_000, queue_max: 10_000 }),
        breaker: Some(Thresholds { failures: 10, open_for: Duration::from_secs(1) }),
        retry: Some(retry::Policy::default()),
        attempt_timeout: Some(Duration::from_secs(60)),
        ..Layers::default()
    }
}

fn main() -> ExitCode {
    acteon_state_conformance::main(Layered::default())
}
