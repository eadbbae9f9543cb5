//! Rate limits: one script per algorithm, each with a key of its own beside the value's.
//!
//! Keys, arguments and replies are apart from the call, since a gate takes and gives the same ones.

use std::time::Duration;

use acteon_state_core::key::{Companion, Keyspace};
use acteon_state_core::{Decision, Error, RateAlgorithm, RateLimit, Result, StateKey};

use super::Inner;
use crate::error::{Access, unexpected};
use crate::reply;
use crate::script::{self, Script};
use crate::wire::{Cmd, Value};

impl Inner {
    pub(super) async fn rate_limit(&self, key: &StateKey, request: &RateLimit) -> Result<Decision> {
        let window_ms = request.check()?;
        let text = rate_key(&self.keyspace, key, request);
        let command = |by| {
            let mut cmd = rate_script(request).command(by, 1);
            cmd.arg(&text);
            push_rate_fields(&mut cmd, request, window_ms);
            cmd
        };
        let reply = self.run(Access::Write, command).await?;
        rate_reply(key, request, window_ms, reply)
    }
}

fn rate_script(request: &RateLimit) -> &'static Script {
    match request.algorithm {
        RateAlgorithm::FixedWindow => &script::RATE_FIXED,
        RateAlgorithm::SlidingWindow => &script::RATE_SLIDING,
        RateAlgorithm::Gcra { .. } => &script::RATE_GCRA,
    }
}

/// Where a limit counts.
pub(super) fn rate_key(keyspace: &Keyspace, key: &StateKey, request: &RateLimit) -> String {
    let companion = match request.algorithm {
        RateAlgorithm::FixedWindow => Companion::FixedWindow,
        RateAlgorithm::SlidingWindow => Companion::SlidingWindow,
        RateAlgorithm::Gcra { .. } => Companion::Gcra,
    };
    keyspace.companion(key, companion)
}

/// The arguments of a limit's script. The request was checked before.
pub(super) fn push_rate_fields(cmd: &mut Cmd, request: &RateLimit, window_ms: u64) {
    match request.algorithm {
        RateAlgorithm::FixedWindow => cmd.number(request.limit).number(request.cost).number(window_ms),
        RateAlgorithm::SlidingWindow => {
            cmd.number(request.limit).number(request.cost).number(window_ms).arg(request.operation.to_text())
        }
        RateAlgorithm::Gcra { burst } => {
            let (emission_us, tolerance_us) = gcra_spans_us(request, burst, window_ms);
            cmd.number(emission_us).number(tolerance_us).number(request.cost)
        }
    };
}

/// The reply of a limit's script.
pub(super) fn rate_reply(key: &StateKey, request: &RateLimit, window_ms: u64, reply: Value) -> Result<Decision> {
    let mut fields = decided(key, reply)?;
    let (allowed, used) = (fields.allowed, fields.number()?);
    let (limit, remaining, reset_after, retry_after) = match request.algorithm {
        RateAlgorithm::FixedWindow => {
            let left = Duration::from_millis(fields.number()?.max(1));
            (request.limit, request.limit.saturating_sub(used), left, left)
        }
        RateAlgorithm::SlidingWindow => {
            let (reset_us, retry_us) = (fields.number()?, fields.number()?);
            let left = request.limit.saturating_sub(used);
            (request.limit, left, Duration::from_micros(reset_us), Duration::from_micros(retry_us))
        }
        RateAlgorithm::Gcra { burst } => {
            // Of the tolerance, in microseconds, and not in requests.
            let (emission_us, tolerance_us) = gcra_spans_us(request, burst, window_ms);
            let left = tolerance_us.saturating_sub(used) / emission_us;
            (burst, left, Duration::from_micros(used), Duration::from_micros(fields.number()?))
        }
    };
    Ok(Decision { allowed, limit, remaining, reset_after, retry_after: (!allowed).then_some(retry_after) })
}

/// The time that one request takes up, and the time that all of the burst does. It fits: `RateLimit::check` bounds the product.
fn gcra_spans_us(request: &RateLimit, burst: u64, window_ms: u64) -> (u64, u64) {
    let emission_us = request.emission_us(window_ms);
    (emission_us, emission_us.saturating_mul(burst))
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
