//! The memory driver over directories, for the conformance kit: one directory for each prefix that is open.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;

use acteon_state_conformance::Factory;
use acteon_state_core::{Result, StateStore};
use acteon_state_memory::{KeepConfig, KeepFsync, MemoryConfig, MemoryStore};
use async_trait::async_trait;
use parking_lot::Mutex;
use tempfile::TempDir;

#[derive(Debug)]
struct Kept {
    fsync: KeepFsync,
    /// Each store is dropped before its directory.
    stores: Mutex<HashMap<String, (MemoryStore, TempDir)>>,
}

#[async_trait]
impl Factory for Kept {
    async fn open(&self, prefix: &str) -> Result<Arc<dyn StateStore>> {
        let mut stores = self.stores.lock();
        if !stores.contains_key(prefix) {
            let folder = tempfile::tempdir().expect("a directory");
            let keep = KeepConfig { fsync: self.fsync, ..KeepConfig::new(folder.path().join("data")) };
            let config = MemoryConfig { prefix: prefix.to_owned(), keep: Some(keep), ..MemoryConfig::default() };
            stores.insert(prefix.to_owned(), (MemoryStore::open(&config)?, folder));
        }
        Ok(Arc::new(stores[prefix].0.handle()))
    }

    async fn clean(&self, prefix: &str) -> Result<()> {
        self.stores.lock().remove(prefix);
        Ok(())
    }
}

/// Runs the kit under this setting.
pub(crate) fn run(fsync: KeepFsync) -> ExitCode {
    acteon_state_conformance::main(Kept { fsync, stores: Mutex::default() })
}
