//! Rate limits: one function decides for many requests, by the rules that its migration states.
//!
//! # Guarantees
//! Each decision is one atomic step by the server's clock. Requests that wait at the same moment for one limit are decided
//! together, and its row is written once for all of them. A refused request writes nothing.

use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::{Decision, RateAlgorithm, RateLimit, Result, StateKey};
use async_trait::async_trait;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments as _, Row as _};
use uuid::Uuid;

use super::{Inner, KeyColumns, unexpected};
use crate::error::Sent;
use crate::lane::Family;
use crate::names::Names;
use crate::session::Session;

const RATE: &str = "
    SELECT * FROM {t}rate($1::boolean, $2::text[], $3::text[], $4::text[], $5::text[],
        $6::smallint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::uuid[])";

/// Roughly what a request takes in a statement beside its key.
const OP_BYTES: usize = 64;

/// A request, checked before.
pub(crate) struct RateOp {
    key: StateKey,
    /// The key and the algorithm: limits of one key under different algorithms are rows of their own.
    text: String,
    request: RateLimit,
    window_ms: u64,
}

/// Decides requests.
pub(crate) struct Rates {
    sql: Arc<str>,
    is_relaxed: bool,
}

impl Inner {
    pub(super) async fn rate_limit(&self, key: &StateKey, request: &RateLimit) -> Result<Decision> {
        let window_ms = request.check()?;
        self.rates(key).submit(RateOp::new(key, request, window_ms)).await
    }
}

impl RateOp {
    fn new(key: &StateKey, request: &RateLimit, window_ms: u64) -> Self {
        // No key has a NUL, so this is as unique as the two parts are.
        let text = format!("{}\0{}", key.text(), algorithm_number(request.algorithm));
        Self { key: key.clone(), text, request: *request, window_ms }
    }

    /// The limit and the window in microseconds; of GCRA its tolerance and its interval.
    fn limit_and_window_us(&self) -> (u64, u64) {
        match self.request.algorithm {
            RateAlgorithm::FixedWindow | RateAlgorithm::SlidingWindow => {
                (self.request.limit, self.window_ms.saturating_mul(1_000))
            }
            RateAlgorithm::Gcra { burst } => {
                let emission_us = self.request.emission_us(self.window_ms);
                // Fits: `RateLimit::check` bounds the product.
                (emission_us.saturating_mul(burst), emission_us)
            }
        }
    }

    fn read(&self, row: &PgRow) -> Result<Decision> {
        let allowed: bool = row.try_get(0).map_err(unexpected)?;
        let [used, reset_us] = [number(row, 1)?, number(row, 2)?];
        let retry_us: Option<i64> = row.try_get(3).map_err(unexpected)?;
        let (most, window_us) = self.limit_and_window_us();
        let left = most.saturating_sub(used);
        let (limit, remaining) = match self.request.algorithm {
            RateAlgorithm::FixedWindow | RateAlgorithm::SlidingWindow => (self.request.limit, left),
            RateAlgorithm::Gcra { burst } => (burst, left / window_us),
        };
        let retry_after = retry_us.map(|us| Duration::from_micros(us.max(0).cast_unsigned()));
        Ok(Decision { allowed, limit, remaining, reset_after: Duration::from_micros(reset_us), retry_after })
    }
}

/// A count or a duration, which the function never returns negative.
fn number(row: &PgRow, at: usize) -> Result<u64> {
    let number: i64 = row.try_get(at).map_err(unexpected)?;
    Ok(number.max(0).cast_unsigned())
}

const fn algorithm_number(algorithm: RateAlgorithm) -> i16 {
    match algorithm {
        RateAlgorithm::FixedWindow => 1,
        RateAlgorithm::SlidingWindow => 2,
        RateAlgorithm::Gcra { .. } => 3,
    }
}

impl Rates {
    pub(super) fn new(names: &Names, is_relaxed: bool) -> Self {
        Self { sql: names.sql(RATE), is_relaxed }
    }

    fn bind(&self, ops: &[&RateOp]) -> Result<PgArguments, BoxDynError> {
        let mut arguments = PgArguments::default();
        arguments.add(self.is_relaxed)?;
        KeyColumns::new(ops.iter().map(|op| &op.key)).bind(&mut arguments)?;
        arguments.add(ops.iter().map(|op| algorithm_number(op.request.algorithm)).collect::<Vec<_>>())?;
        let (limits, windows): (Vec<i64>, Vec<i64>) = ops
            .iter()
            .map(|op| op.limit_and_window_us())
            .map(|(most, window_us)| (most.cast_signed(), window_us.cast_signed()))
            .unzip();
        arguments.add(limits)?;
        arguments.add(windows)?;
        arguments.add(ops.iter().map(|op| op.request.cost.cast_signed()).collect::<Vec<_>>())?;
        arguments.add(ops.iter().map(|op| Uuid::from_u128(op.request.operation.as_u128())).collect::<Vec<_>>())?;
        Ok(arguments)
    }
}

#[async_trait]
impl Family for Rates {
    type Op = RateOp;
    type Reply = Decision;

    const SENT: Sent = Sent::Write;

    fn key(op: &RateOp) -> Option<&str> {
        Some(&op.text)
    }

    fn bytes(op: &RateOp) -> usize {
        OP_BYTES + op.text.len()
    }

    async fn run(&self, session: &mut Session, ops: &[&RateOp]) -> sqlx::Result<Vec<Result<Decision>>> {
        let arguments = self.bind(ops).map_err(sqlx::Error::Encode)?;
        let rows = session.fetch_all(&self.sql, arguments).await?;
        Ok(ops.iter().zip(&rows).map(|(op, row)| op.read(row)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use acteon_state_core::{RateLimit, StateKey};

    use super::RateOp;

    fn op(request: RateLimit) -> RateOp {
        let key = StateKey::new("mail", "acme", "limit", "ada").unwrap();
        RateOp::new(&key, &request, request.check().unwrap())
    }

    #[test]
    fn algorithms_of_one_key_are_under_way_apart() {
        let window = Duration::from_secs(1);
        let ops =
            [RateLimit::fixed_window(5, window), RateLimit::sliding_window(5, window), RateLimit::gcra(5, window, 2)];
        let mut texts = ops.map(|request| op(request).text).to_vec();
        texts.dedup();
        assert_eq!(texts.len(), 3);
    }

    #[test]
    fn gcra_is_asked_by_tolerance_and_interval() {
        let request = RateLimit::gcra(3, Duration::from_secs(1), 4);
        assert_eq!(op(request).limit_and_window_us(), (4 * 333_334, 333_334));
        let request = RateLimit::fixed_window(3, Duration::from_micros(1_500));
        assert_eq!(op(request).limit_and_window_us(), (3, 2_000), "a window is rounded up to milliseconds");
    }
}
