//! Rate limits: one script per algorithm, each with a key of its own beside the value's.

use std::time::Duration;

use acteon_state_core::key::Companion;
use acteon_state_core::{Decision, Error, RateAlgorithm, RateLimit, Result, StateKey};
use redis::Value;

use super::Inner;
use crate::error::{Access, unexpected};
use crate::reply;
use crate::script;

impl Inner {
    pub(super) async fn rate_limit(&self, key: &StateKey, request: &RateLimit) -> Result<Decision> {
        let window_ms = request.check()?;
        match request.algorithm {
            RateAlgorithm::FixedWindow => self.fixed_window(key, request, window_ms).await,
            RateAlgorithm::SlidingWindow => self.sliding_window(key, request, window_ms).await,
            RateAlgorithm::Gcra { burst } => self.gcra(key, request, burst, window_ms).await,
        }
    }

    async fn fixed_window(&self, key: &StateKey, request: &RateLimit, window_ms: u64) -> Result<Decision> {
        let text = self.keyspace.companion(key, Companion::FixedWindow);
        let command = |by| {
            let mut cmd = script::RATE_FIXED.command(by, 1);
            cmd.arg(&text).arg(request.limit).arg(request.cost).arg(window_ms);
            cmd
        };
        let mut fields = decided(key, self.run(Access::Write, command).await?)?;
        let allowed = fields.allowed;
        let used = fields.number()?;
        let left = Duration::from_millis(fields.number()?.max(1));
        Ok(Decision {
            allowed,
            limit: request.limit,
            remaining: request.limit.saturating_sub(used),
            reset_after: left,
            retry_after: (!allowed).then_some(left),
        })
    }

    async fn sliding_window(&self, key: &StateKey, request: &RateLimit, window_ms: u64) -> Result<Decision> {
        let text = self.keyspace.companion(key, Companion::SlidingWindow);
        let operation = request.operation.to_text();
        let command = |by| {
            let mut cmd = script::RATE_SLIDING.command(by, 1);
            cmd.arg(&text).arg(request.limit).arg(request.cost).arg(window_ms).arg(&operation[..]);
            cmd
        };
        let mut fields = decided(key, self.run(Access::Write, command).await?)?;
        let allowed = fields.allowed;
        let used = fields.number()?;
        let (reset_us, retry_us) = (fields.number()?, fields.number()?);
        Ok(Decision {
            allowed,
            limit: request.limit,
            remaining: request.limit.saturating_sub(used),
            reset_after: Duration::from_micros(reset_us),
            retry_after: (!allowed).then(|| Duration::from_micros(retry_us)),
        })
    }

    async fn gcra(&self, key: &StateKey, request: &RateLimit, burst: u64, window_ms: u64) -> Result<Decision> {
        let text = self.keyspace.companion(key, Companion::Gcra);
        let emission_us = request.emission_us(window_ms);
        // Fits: `RateLimit::check` bounds the product.
        let tolerance_us = emission_us.saturating_mul(burst);
        let command = |by| {
            let mut cmd = script::RATE_GCRA.command(by, 1);
            cmd.arg(&text).arg(emission_us).arg(tolerance_us).arg(request.cost);
            cmd
        };
        let mut fields = decided(key, self.run(Access::Write, command).await?)?;
        let allowed = fields.allowed;
        let (used_us, retry_us) = (fields.number()?, fields.number()?);
        Ok(Decision {
            allowed,
            limit: burst,
            remaining: tolerance_us.saturating_sub(used_us) / emission_us,
            reset_after: Duration::from_micros(used_us),
            retry_after: (!allowed).then(|| Duration::from_micros(retry_us)),
        })
    }
}

/// The reply of a rate script: the decision, then numbers.
struct Fields {
    allowed: bool,
    rest: std::vec::IntoIter<Value>,
}

impl Fields {
    fn number(&mut self) -> Result<u64> {
        reply::unsigned(reply::next(&mut self.rest)?)
    }
}

fn decided(key: &StateKey, reply: Value) -> Result<Fields> {
    let mut rest = reply::array(reply)?;
    match reply::int(reply::next(&mut rest)?)? {
        status @ (0 | 1) => Ok(Fields { allowed: status == 1, rest }),
        -2 => Err(Error::corrupt(
            key,
            "the state of the rate limit does not parse: something else writes under this prefix",
        )),
        other => Err(unexpected(&Value::Int(other))),
    }
}
