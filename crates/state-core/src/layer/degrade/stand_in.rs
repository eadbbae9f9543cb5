//! The store in this process that serves `local` kinds during an outage.
//!
//! # Guarantees
//! It is made by the first call that needs it, empty, and dropped with all that is in it when the outage ends: nothing of it is
//! merged into the backend, where others may have gone on meanwhile. It answers for what was written to it, and treats all
//! else as absent, as far as that is an answer; see [`held_put`].
//!
//! # Failure
//! When it is full, or cannot be made, the call fails as the backend failed.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{ErrorKind, Result};
use crate::store::StateStore;
use crate::write::{Condition, DeleteOutcome, PutOutcome};

/// Makes the store that stands in: one in this process, with a bound.
#[derive(Clone)]
pub struct MakeStandIn(Arc<dyn Fn() -> Result<Arc<dyn StateStore>> + Send + Sync>);

impl MakeStandIn {
    /// Calls this once per outage.
    pub fn new(make: impl Fn() -> Result<Arc<dyn StateStore>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }
}

impl fmt::Debug for MakeStandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MakeStandIn")
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct StandIn {
    make: MakeStandIn,
    /// That of the outage at present. Held to clone or take it, never across an await.
    store: Mutex<Option<Arc<dyn StateStore>>>,
}

impl StandIn {
    pub(super) fn new(make: MakeStandIn) -> Self {
        Self { make, store: Mutex::new(None) }
    }

    /// The store of this outage.
    pub(super) fn store(&self) -> Option<Arc<dyn StateStore>> {
        let mut store = self.store.lock();
        if store.is_none() {
            *store = (self.make.0)().inspect_err(|error| tracing::error!(%error, "nothing can stand in")).ok();
        }
        store.clone()
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        // Dropped outside of the lock: a large store takes a while.
        let store = self.store.lock().take();
        drop(store);
    }
}

/// A write of the stand-in, or `None` where it aimed at an entry that is not here.
///
/// "Absent" is the answer that a write-if-absent, a counter or a limit needs to go on. A compare-and-swap or a deletion names an
/// entry that its caller got from the backend, where it still is: "not there" would be wrong, so that call fails.
pub(super) fn held_put(condition: Condition, outcome: PutOutcome) -> Option<PutOutcome> {
    match (condition, &outcome) {
        (Condition::Version(_) | Condition::Present, PutOutcome::NotMet(None)) => None,
        _ => Some(outcome),
    }
}

/// The same of a deletion.
pub(super) fn held_delete(outcome: DeleteOutcome) -> Option<DeleteOutcome> {
    (outcome != DeleteOutcome::Absent).then_some(outcome)
}

/// Whether writes under this condition may be made elsewhere than at the backend: never those that are fenced by a lock.
pub(super) fn may_stand_in(condition: Condition) -> bool {
    !matches!(condition, Condition::Fence(_))
}

/// A reply of the stand-in as that of the call; `None` where the call fails as the backend failed.
pub(super) fn accepted<T>(reply: Result<Option<T>>) -> Option<Result<T>> {
    match reply {
        Ok(reply) => reply.map(Ok),
        Err(error) if error.kind() == ErrorKind::OutOfMemory => None,
        Err(error) => Some(Err(error)),
    }
}
