//! What the kit asks of whoever tests a driver: how to open it, how its time passes, how to clean up.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::{Result, StateStore};
use async_trait::async_trait;

/// Opens the store under test.
///
/// Each case runs under a prefix of its own, opens two handles on it, and cleans up in the end. Cases run at the same
/// time, so a factory that moves a clock by hand keeps one for each prefix.
#[async_trait]
pub trait Factory: Debug + Send + Sync + 'static {
    /// Opens one handle on the data of `prefix`. Handles of one prefix see the same data and should share as little else
    /// as the backend allows: connections of their own, say. Handles of two prefixes never meet.
    ///
    /// `prefix` is 1 to 64 characters out of `A-Z a-z 0-9 _ . -`.
    async fn open(&self, prefix: &str) -> Result<Arc<dyn StateStore>>;

    /// Removes what is stored under `prefix`. Called after a case, with its handles closed.
    async fn clean(&self, prefix: &str) -> Result<()>;

    /// Which clock ends time to live and leases.
    fn time(&self) -> Time {
        Time::Real
    }

    /// Whether all handles of a prefix come from one driver. If not, cases about what one driver's handles have in common (capabilities,
    /// cursors) are ignored.
    fn is_one_driver(&self) -> bool {
        true
    }

    /// Lets `by` pass on the clock of the store of `prefix`. On a real clock: waits.
    async fn advance(&self, prefix: &str, by: Duration) {
        let _ = prefix;
        tokio::time::sleep(by).await;
    }
}

/// Which clock ends time to live and leases in the store under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// One that goes by itself.
    Real,
    /// One that stands still until [`Factory::advance`] moves it.
    Manual,
}
