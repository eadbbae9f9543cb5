//! Rate limits, each in a companion of its key, so that the algorithms and the value of one key do not meet.
//!
//! | algorithm | stored |
//! |---|---|
//! | fixed window | a decimal counter that expires with its window |
//! | sliding window | a sorted set: one member per unit of cost, scored by its time in µs |
//! | GCRA | the arrival time in µs, which expires when it has passed |

use std::time::Duration;

use acteon_engine::{Expiry, Slot, SortedSetMut, Zset};
use acteon_state_core::key::Companion;
use acteon_state_core::rate::gcra;
use acteon_state_core::record::Record;
use acteon_state_core::{Decision, OperationId, RateAlgorithm, RateLimit, Result, StateKey};
use smallvec::SmallVec;

use crate::error::{classify, foreign};
use crate::store::{Handle, Now};
use crate::text::companion_text;

/// An operation's text, a colon and a number below the highest cost.
type Member = SmallVec<[u8; 32]>;

impl Handle {
    pub(crate) fn rate_limit(&self, key: &StateKey, request: &RateLimit, now: Now) -> Result<Decision> {
        let window_ms = request.check()?;
        let companion = match request.algorithm {
            RateAlgorithm::FixedWindow => Companion::FixedWindow,
            RateAlgorithm::SlidingWindow => Companion::SlidingWindow,
            RateAlgorithm::Gcra { .. } => Companion::Gcra,
        };
        let text = companion_text(&self.keyspace, key, companion);
        self.shared.engine.update(&text, now.ms(), |slot| match request.algorithm {
            RateAlgorithm::FixedWindow => fixed_window(key, slot, request, window_ms, now),
            RateAlgorithm::SlidingWindow => sliding_window(key, slot, request, window_ms, now),
            RateAlgorithm::Gcra { burst } => by_arrival(key, slot, request, burst, window_ms, now),
        })
    }
}

fn fixed_window(
    key: &StateKey,
    slot: &mut Slot<'_>,
    request: &RateLimit,
    window_ms: u64,
    now: Now,
) -> Result<Decision> {
    let used = stored_number(key, slot)?.unwrap_or(0);
    let ends_at_ms = match slot.get().and_then(|stored| stored.expires_at_ms()) {
        // The engine keeps a key throughout the millisecond of its deadline; the next window begins after that.
        Some(deadline_ms) => deadline_ms.saturating_add(1),
        // Never early: the current millisecond counts as over.
        None => now.ceil_ms().saturating_add(window_ms),
    };
    let next = used.saturating_add(request.cost);
    let allowed = next <= request.limit;
    if allowed {
        let mut text = itoa::Buffer::new();
        slot.set_str(&[text.format(next).as_bytes()], Expiry::At(ends_at_ms - 1))
            .map_err(|error| classify(key, error))?;
    }
    let reset_after = now.until_ms(ends_at_ms);
    Ok(Decision {
        allowed,
        limit: request.limit,
        remaining: request.limit.saturating_sub(if allowed { next } else { used }),
        reset_after,
        retry_after: (!allowed).then_some(reset_after),
    })
}

fn by_arrival(
    key: &StateKey,
    slot: &mut Slot<'_>,
    request: &RateLimit,
    burst: u64,
    window_ms: u64,
    now: Now,
) -> Result<Decision> {
    let arrival_us = stored_number(key, slot)?.unwrap_or(0);
    let (decision, next_us) = gcra(request, burst, window_ms, arrival_us, now.us());
    if let Some(next_us) = next_us {
        let mut text = itoa::Buffer::new();
        slot.set_str(&[text.format(next_us).as_bytes()], Expiry::At(next_us.div_ceil(1_000)))
            .map_err(|error| classify(key, error))?;
    }
    Ok(decision)
}

fn stored_number(key: &StateKey, slot: &Slot<'_>) -> Result<Option<u64>> {
    let Some(stored) = slot.get() else {
        return Ok(None);
    };
    match stored.as_str().and_then(Record::parse) {
        Some(Record::Counter(number)) => u64::try_from(number).map(Some).map_err(|_| foreign(key)),
        _ => Err(foreign(key)),
    }
}

fn sliding_window(
    key: &StateKey,
    slot: &mut Slot<'_>,
    request: &RateLimit,
    window_ms: u64,
    now: Now,
) -> Result<Decision> {
    let window_us = window_ms.saturating_mul(1_000);
    let mut log = slot.sorted_set_mut().map_err(|error| classify(key, error))?;
    if let Some(left_us) = now.us().checked_sub(window_us) {
        log.remove_range(f64::NEG_INFINITY..=score(left_us));
    }
    let is_repeated = log.score(&member(request.operation, request.cost, 0)).is_some();
    let before = log.len() as u64;
    let allowed = is_repeated || before + request.cost <= request.limit;
    let mut retry_after = None;
    if !allowed {
        let surplus = before + request.cost - request.limit;
        retry_after = nth_leaves_at_us(&log, surplus, window_us).map(|at_us| now.until_us(at_us));
    } else if !is_repeated {
        add_all(key, &mut log, request, now)?;
    }
    let used = log.len() as u64;
    if allowed && !is_repeated {
        slot.set_expiry(Expiry::At(now.us().saturating_add(window_us).div_ceil(1_000)));
    }
    // The key expires when its newest member leaves.
    let reset_at_ms = slot.get().and_then(|stored| stored.expires_at_ms());
    Ok(Decision {
        allowed,
        limit: request.limit,
        remaining: request.limit.saturating_sub(used),
        reset_after: reset_at_ms.map_or(Duration::ZERO, |at_ms| now.until_ms(at_ms)),
        retry_after,
    })
}

/// Adds a member for each unit of cost, or none.
fn add_all(key: &StateKey, log: &mut SortedSetMut<'_>, request: &RateLimit, now: Now) -> Result<()> {
    for unit in 0..request.cost {
        if let Err(error) = log.insert(&member(request.operation, request.cost, unit), score(now.us())) {
            for added in 0..unit {
                log.remove(&member(request.operation, request.cost, added));
            }
            return Err(classify(key, error));
        }
    }
    Ok(())
}

/// When the `nth` oldest member, counted from 1, has left the window.
fn nth_leaves_at_us(log: &Zset, nth: u64, window_us: u64) -> Option<u64> {
    let position = usize::try_from(nth.checked_sub(1)?).ok()?;
    let (_, score) = log.by_rank(position)?;
    Some((score as u64).saturating_add(window_us))
}

fn member(operation: OperationId, cost: u64, unit: u64) -> Member {
    let mut member = Member::from_slice(&operation.to_text());
    if cost > 1 {
        member.push(b':');
        member.extend_from_slice(itoa::Buffer::new().format(unit).as_bytes());
    }
    member
}

/// Microseconds stay below 2^53 until the year 2255, so a score holds them exactly.
fn score(at_us: u64) -> f64 {
    at_us as f64
}
