//! The contract, on the memory driver, with a clock that moves by hand.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use acteon_state_conformance::{Factory, Time};
use acteon_state_core::clock::ManualClock;
use acteon_state_core::{Result, StateStore};
use acteon_state_memory::{MemoryConfig, MemoryStore};
use async_trait::async_trait;
use parking_lot::Mutex;

/// Within a millisecond of 2026-01-01: not at its beginning, so that rounding to whole milliseconds shows.
const START_US: u64 = 1_767_225_600_000_357;

/// One store and one clock for each prefix that is open.
#[derive(Debug, Default)]
struct Memory(Mutex<HashMap<String, (MemoryStore, Arc<ManualClock>)>>);

#[async_trait]
impl Factory for Memory {
    async fn open(&self, prefix: &str) -> Result<Arc<dyn StateStore>> {
        let mut stores = self.0.lock();
        if !stores.contains_key(prefix) {
            let clock = Arc::new(ManualClock::new(START_US));
            let config = MemoryConfig { prefix: prefix.to_owned(), ..MemoryConfig::default() };
            let store = MemoryStore::open_with_clock(&config, clock.clone())?;
            stores.insert(prefix.to_owned(), (store, clock));
        }
        Ok(Arc::new(stores[prefix].0.handle()))
    }

    async fn clean(&self, prefix: &str) -> Result<()> {
        self.0.lock().remove(prefix);
        Ok(())
    }

    fn time(&self) -> Time {
        Time::Manual
    }

    async fn advance(&self, prefix: &str, by: Duration) {
        if let Some((store, clock)) = self.0.lock().get(prefix) {
            clock.advance(by);
            store.tick();
        }
    }
}

fn main() -> ExitCode {
    acteon_state_conformance::main(Memory::default())
}
