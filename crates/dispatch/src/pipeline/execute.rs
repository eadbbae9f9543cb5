//! Execution: the action goes to its provider, under a lock of its own that is renewed for as long as the work takes.
//!
//! # Guarantees
//! An action is in execution once at a time by the lock service's clock, whichever servers hold it. When the lock is lost
//! meanwhile, the provider may finish what it has begun but begins no further attempt, and the outcome is reported as it is. Under a lock
//! whose lease was over by the time that it was granted, nothing is begun.
//!
//! # Failure
//! A provider's failure is an outcome. A lock that cannot be had is an error: this stage always fails closed. A lock that
//! turns out lost at its release is logged; the work was done.

use std::pin::pin;
use std::time::Duration;

use acteon_state_core::{LockAttempt, LockGuard, LockOptions, ReleaseOutcome};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::action::Action;
use crate::keys;
use crate::outcome::Outcome;
use crate::pipeline::Dispatcher;
use crate::pipeline::error::DispatchError;
use crate::pipeline::keep_while::keep_while;
use crate::pipeline::options::DispatchOptions;
use crate::providers::ExecuteContext;
use crate::rules::{Reroute, Verdict};

/// The longest time for one execution, so that a deadline can be computed from any option.
const EXECUTE_TIMEOUT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

impl Dispatcher {
    /// The outcome, and the lock to release once it was recorded.
    pub(super) async fn execute(
        &self,
        verdict: &Verdict,
        locked: Option<acteon_state_core::Result<LockGuard>>,
    ) -> Result<(Outcome, LockGuard), DispatchError> {
        let (result, guard) = self.execute_locked(&verdict.action, locked).await?;
        Ok((as_rerouted(verdict.reroute.as_ref(), result), guard))
    }

    /// Executes an action whose rules were applied already. `locked` is the lock, if it was asked for before.
    pub(super) async fn execute_locked(
        &self,
        action: &Action,
        locked: Option<acteon_state_core::Result<LockGuard>>,
    ) -> Result<(Outcome, LockGuard), DispatchError> {
        let guard = match locked {
            Some(locked) => locked.map_err(DispatchError::state("lock"))?,
            None => self.lock(action).await?,
        };
        let outcome = self.ask_provider(action, &guard).await;
        Ok((outcome, guard))
    }

    /// Releases the lock of an action that was executed.
    pub(super) async fn release(&self, guard: Option<LockGuard>) {
        let Some(guard) = guard else { return };
        let key = guard.key().clone();
        match guard.release().await {
            Ok(ReleaseOutcome::Released) => {}
            Ok(ReleaseOutcome::AlreadyLost) => {
                self.0.metrics.lock_lost();
                tracing::warn!(%key, "the lock of an action was lost while it was executed");
            }
            Err(error) => tracing::warn!(%key, %error, "the lock of an action ends with its lease"),
        }
    }

    async fn lock(&self, action: &Action) -> Result<LockGuard, DispatchError> {
        let failed = DispatchError::state("lock");
        let key = keys::action_lock(action).map_err(&failed)?;
        match self.0.state.lock(&key, &self.lock_options()).await.map_err(failed)? {
            LockAttempt::Acquired(guard) => Ok(guard),
            LockAttempt::Busy(_) => Err(DispatchError::Busy { action_id: action.id.clone() }),
        }
    }

    /// How the lock of an action is asked for.
    pub(super) fn lock_options(&self) -> LockOptions {
        let DispatchOptions { lock_lease, lock_wait, ref node, .. } = self.0.options;
        LockOptions::new(lock_lease).wait(lock_wait).meta(node.as_str())
    }

    async fn ask_provider(&self, action: &Action, guard: &LockGuard) -> Outcome {
        let cancel = CancellationToken::new();
        let deadline = Instant::now() + self.0.options.execute_timeout.min(EXECUTE_TIMEOUT_MAX);
        let ctx = ExecuteContext { deadline, cancel: cancel.clone() };
        // Nothing is begun under a lock that was lost before: its grant may have come after its lease.
        if !guard.is_held() {
            cancel.cancel();
        }
        let execution = pin!(self.0.providers.execute(action, &ctx));
        let result = keep_while(execution, || guard.keep(self.0.options.lock_lease), || cancel.cancel()).await;
        let (action_id, provider) = (action.id.clone(), action.provider.clone());
        match result {
            Ok(receipt) => {
                Outcome::Executed { action_id, provider, attempts: receipt.attempts, detail: receipt.detail }
            }
            Err(error) => Outcome::Failed { action_id, provider, error: error.failure(), attempts: error.attempts },
        }
    }
}

/// Says in the outcome that a rule chose the provider.
pub(super) fn as_rerouted(reroute: Option<&Reroute>, result: Outcome) -> Outcome {
    match reroute {
        None => result,
        Some(Reroute { rule, from, to }) => Outcome::Rerouted {
            action_id: result.action_id().to_owned(),
            rule: rule.to_string(),
            from: from.clone(),
            to: to.clone(),
            result: Box::new(result),
        },
    }
}
