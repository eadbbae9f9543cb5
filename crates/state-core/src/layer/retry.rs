//! Repeats calls that failed for a transient reason.
//!
//! # Guarantees
//! What was certainly not applied is repeated freely. What may have been applied is repeated only where the backend
//! recognises the repetition ([`Repeat::Freely`]); an increment is never applied twice by a retry of ours. When such a
//! repetition then finds its condition not met, it cannot tell whether its own first attempt is the reason, and returns the
//! first attempt's error, of unknown effect.
//!
//! # How it works
//! Waits grow exponentially with full jitter between zero and the cap. A budget shared by all calls keeps repetitions below
//! a share of the traffic, so that a backend in trouble is not hit several times as hard: each call earns a tenth of a
//! repetition, each repetition costs one, and at most `budget` are saved up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::error::{Effect, Error, Result};
use crate::layer::Around;
use crate::operation::{Call, Operation, Repeat, Reply};

/// How often and how fast to repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Attempts in all, the first included. At least 1.
    pub attempts_max: u32,
    /// The upper bound of the first wait; doubles each time.
    pub backoff: Duration,
    /// The upper bound of any wait.
    pub backoff_max: Duration,
    /// How many repetitions may be saved up.
    pub budget: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            attempts_max: 3,
            backoff: Duration::from_millis(20),
            backoff_max: Duration::from_millis(500),
            budget: 100,
        }
    }
}

/// What one call earns and one repetition costs, in tenths.
const REPETITION_COST: u64 = 10;

/// See the module.
#[derive(Debug)]
pub struct Retry {
    policy: Policy,
    /// Tenths of repetitions that are saved up.
    budget: AtomicU64,
}

impl Retry {
    /// Repeats by this policy, beginning with a full budget.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, budget: AtomicU64::new(u64::from(policy.budget) * REPETITION_COST) }
    }

    fn earn(&self) {
        let full = u64::from(self.policy.budget) * REPETITION_COST;
        // Relaxed load first: with a full budget, the usual case, threads only read the shared line.
        if self.budget.load(Ordering::Relaxed) < full {
            self.budget.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn spend(&self) -> bool {
        let spend = |tenths: u64| tenths.checked_sub(REPETITION_COST);
        self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }

    fn wait_before(&self, repetition: u32) -> Duration {
        let doubled = self.policy.backoff.saturating_mul(1_u32.checked_shl(repetition).unwrap_or(u32::MAX));
        doubled.min(self.policy.backoff_max).mul_f64(rand::random())
    }
}

fn may_repeat(call: &Call<'_>, error: &Error) -> bool {
    call.operation != Operation::Close
        && error.kind().is_transient()
        && (error.effect() == Effect::NotApplied || call.repeat == Repeat::Freely)
}

impl Around for Retry {
    async fn around<'a, T: Reply + 'a>(
        &'a self,
        call: &'a Call<'a>,
        attempt: impl Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    ) -> Result<T> {
        self.earn();
        let mut unknown: Option<Error> = None;
        let mut repetition = 0;
        loop {
            let error = match attempt().await {
                Ok(reply) => match unknown {
                    Some(error) if reply.may_be_own_trace() => return Err(error),
                    _ => return Ok(reply),
                },
                Err(error) => error,
            };
            let last = repetition + 1 >= self.policy.attempts_max;
            if last || !may_repeat(call, &error) || !self.spend() {
                // An earlier attempt of unknown effect outweighs a later one that was certainly not applied.
                return Err(if error.effect() == Effect::Unknown { error } else { unknown.unwrap_or(error) });
            }
            ::tracing::debug!(operation = call.operation.as_str(), %error, repetition, "repeating a state call");
            if error.effect() == Effect::Unknown {
                unknown = Some(error);
            }
            tokio::time::sleep(self.wait_before(repetition)).await;
            repetition += 1;
        }
    }
}
