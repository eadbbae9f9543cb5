//! Throttling: every limit that the rules note must admit the action.
//!
//! The limits are asked in the order of their rules, and the first that refuses ends the stage: a refused action uses up
//! nothing of that limit nor of those after it. What the limits before it counted stays counted.

use acteon_state_core::Decision;

use crate::keys;
use crate::outcome::Outcome;
use crate::pipeline::Dispatcher;
use crate::pipeline::ahead::Ahead;
use crate::pipeline::error::DispatchError;
use crate::pipeline::options::OnStateError;
use crate::rules::{Throttle, Verdict};

impl Dispatcher {
    /// The outcome of a throttled action, or `None` when every limit admits it.
    pub(super) async fn throttle(
        &self,
        verdict: &Verdict,
        ahead: &mut Ahead,
    ) -> Result<Option<Outcome>, DispatchError> {
        for throttle in &verdict.throttles {
            match self.ask_limit(verdict, throttle, ahead.decision()).await {
                Ok(None) => {}
                Err(DispatchError::State { source, .. })
                    if source.kind().is_transient() && self.0.options.on_state_error_throttle == OnStateError::Open =>
                {
                    if let Some(passed_over) = self.0.faults.admit("throttle") {
                        tracing::warn!(rule = %throttle.rule, error = %source, passed_over, "throttling fails open");
                    }
                    self.0.metrics.failed_open("throttle");
                }
                refused => return refused,
            }
        }
        Ok(None)
    }

    /// Asks, unless the limit has answered already.
    async fn ask_limit(
        &self,
        verdict: &Verdict,
        throttle: &Throttle,
        answer: Option<acteon_state_core::Result<Decision>>,
    ) -> Result<Option<Outcome>, DispatchError> {
        let failed = DispatchError::state("throttle");
        let key = keys::throttle(&verdict.action, throttle).map_err(&failed)?;
        let answer = match answer {
            Some(answer) => answer,
            None => {
                let request = throttle.algorithm.request(throttle.limit, throttle.window);
                self.0.state.rate_limit(&key, &request).await
            }
        };
        let decision = answer.map_err(failed)?;
        Ok((!decision.allowed).then(|| Outcome::Throttled {
            action_id: verdict.action.id.clone(),
            rule: throttle.rule.to_string(),
            limit: throttle.limit,
            window_ms: millis(throttle.window),
            remaining: decision.remaining,
            retry_after_ms: millis(decision.retry_after.unwrap_or_default()).max(1),
        }))
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    acteon_state_core::entry::ceil_ms(duration)
}
