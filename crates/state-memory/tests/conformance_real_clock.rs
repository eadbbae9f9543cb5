//! The contract, on the memory driver as applications open it: with a clock that goes by itself.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;

use acteon_state_conformance::Factory;
use acteon_state_core::{Result, StateStore};
use acteon_state_memory::{MemoryConfig, MemoryStore};
use async_trait::async_trait;
use parking_lot::Mutex;

/// One store for each prefix that is open.
#[derive(Debug, Default)]
struct Memory(Mutex<HashMap<String, MemoryStore>>);

#[async_trait]
impl Factory for Memory {
    async fn open(&self, prefix: &str) -> Result<Arc<dyn StateStore>> {
        let mut stores = self.0.lock();
        if !stores.contains_key(prefix) {
            let config = MemoryConfig { prefix: prefix.to_owned(), ..MemoryConfig::default() };
            stores.insert(prefix.to_owned(), MemoryStore::open(&config)?);
        }
        Ok(Arc::new(stores[prefix].handle()))
    }

    async fn clean(&self, prefix: &str) -> Result<()> {
        self.0.lock().remove(prefix);
        Ok(())
    }
}

fn main() -> ExitCode {
    acteon_state_conformance::main(Memory::default())
}
