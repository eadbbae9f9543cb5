//! The contract, on the memory driver over directories, one for each setting of fsync in turn.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;

use acteon_state_conformance::Factory;
use acteon_state_core::{Result, StateStore};
use acteon_state_memory::{KeepConfig, KeepFsync, MemoryConfig, MemoryStore};
use async_trait::async_trait;
use parking_lot::Mutex;
use tempfile::TempDir;

const FSYNC: [KeepFsync; 3] = [KeepFsync::Always, KeepFsync::EverySecond, KeepFsync::No];

/// One store and its directory for each prefix that is open. The store is dropped first.
#[derive(Debug, Default)]
struct Kept(Mutex<HashMap<String, (MemoryStore, TempDir)>>);

#[async_trait]
impl Factory for Kept {
    async fn open(&self, prefix: &str) -> Result<Arc<dyn StateStore>> {
        let mut stores = self.0.lock();
        if !stores.contains_key(prefix) {
            let folder = tempfile::tempdir().expect("a directory");
            // By the name, so that a case that is run again has the same.
            let fsync = FSYNC[prefix.bytes().map(usize::from).sum::<usize>() % FSYNC.len()];
            let keep = KeepConfig { fsync, ..KeepConfig::new(folder.path().join("data")) };
            let config = MemoryConfig { prefix: prefix.to_owned(), keep: Some(keep), ..MemoryConfig::default() };
            stores.insert(prefix.to_owned(), (MemoryStore::open(&config)?, folder));
        }
        Ok(Arc::new(stores[prefix].0.handle()))
    }

    async fn clean(&self, prefix: &str) -> Result<()> {
        self.0.lock().remove(prefix);
        Ok(())
    }
}

fn main() -> ExitCode {
    acteon_state_conformance::main(Kept::default())
}
