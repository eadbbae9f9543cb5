//! The databases of one engine, for those who mean all of them: loading, snapshots, the attachment of a log.
//!
//! # How it works
//! Databases are created when they are first used, and never removed. The lock is held for as long as it takes to look one up or to
//! create it; nobody waits for a segment while holding it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::keyspace::Keyspace;
use crate::sync::{Mutex, MutexGuard};

/// All databases of an engine, by number.
pub(crate) struct Family(Mutex<BTreeMap<usize, Arc<Keyspace>>>);

impl Family {
    pub(crate) fn of(first: Arc<Keyspace>) -> Self {
        Self(Mutex::new(BTreeMap::from([(0, first)])))
    }

    /// While it is held, no database is created.
    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Arc<Keyspace>>> {
        self.0.lock()
    }

    pub(crate) fn get_or_create(&self, number: usize, create: impl FnOnce() -> Keyspace) -> Arc<Keyspace> {
        self.lock().entry(number).or_insert_with(|| Arc::new(create())).clone()
    }

    /// Those that exist at this moment, with their numbers.
    pub(crate) fn all(&self) -> Vec<(usize, Arc<Keyspace>)> {
        self.lock().iter().map(|(number, keyspace)| (*number, keyspace.clone())).collect()
    }
}
