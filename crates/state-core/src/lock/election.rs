//! Leader election: one lock, held and renewed by whoever leads.
//!
//! There is at most one leader by the lock service's clock; see [`crate::lock`] for what that does not give. What a leader
//! writes, it should fence by its term's token.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::entry::FencingToken;
use crate::error::Result;
use crate::key::StateKey;
use crate::lock::guard::{LockAttempt, LockGuard, LockOptions};
use crate::lock::request::{LockMode, WAIT_MAX};
use crate::store::StateStore;

/// How long to wait after a failed attempt to become the leader.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// Stands in an election until it is won.
///
/// The guard is renewed until it is dropped, released or lost. Dropping the future leaves nothing held.
///
/// # Errors
/// As [`LockGuard::acquire`], except that transient ones are waited out.
pub async fn campaign(store: &Arc<dyn StateStore>, key: &StateKey, options: &LockOptions) -> Result<LockGuard> {
    let options = LockOptions { wait: WAIT_MAX, mode: LockMode::Exclusive, renew: true, ..options.clone() };
    loop {
        match LockGuard::acquire(store.clone(), key, &options).await {
            Ok(LockAttempt::Acquired(guard)) => return Ok(guard),
            Ok(LockAttempt::Busy(_)) => {}
            Err(error) if error.kind().is_transient() => {
                tracing::warn!(%key, %error, "no election at the moment; trying again");
                tokio::time::sleep(PAUSE_AFTER_ERROR.mul_f64(rand::random_range(0.5..=1.0))).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Leads again and again: wins an election, runs `term`, and when the lead is lost drops it and stands again.
///
/// Returns what `term` returns once it ends by itself, after stepping down; what it did counts also where stepping down
/// fails, and the lease then ends by itself. `term` gets the guard's token through its argument. It is dropped, at one of
/// its awaits, when the lead is lost. Dropping the future drops the term and steps down in the background.
///
/// # Errors
/// As [`campaign`].
pub async fn lead<T, F>(
    store: &Arc<dyn StateStore>,
    key: &StateKey,
    options: &LockOptions,
    mut term: impl FnMut(FencingToken) -> F,
) -> Result<T>
where
    F: Future<Output = T>,
{
    loop {
        let guard = campaign(store, key, options).await?;
        tokio::select! {
            done = term(guard.token()) => {
                if let Err(error) = guard.release().await {
                    tracing::warn!(%key, %error, "the lead was not handed back at once");
                }
                return Ok(done);
            }
            () = guard.lost() => tracing::warn!(%key, "the lead was lost"),
        }
    }
}
