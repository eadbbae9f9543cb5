//! Counters: one atomic addition within bounds.

use acteon_engine::Expiry;
use acteon_state_core::counter::Step;
use acteon_state_core::{Counter, Counting, Error, ErrorKind, Increment, IncrementOutcome, Result, StateKey};

use crate::error::classify;
use crate::store::{Handle, Now};
use crate::text::value_text;
use crate::value::{Current, remaining};

impl Handle {
    pub(crate) fn increment(&self, key: &StateKey, increment: Increment, now: Now) -> Result<IncrementOutcome> {
        let window_ms = increment.check()?;
        let text = value_text(&self.keyspace, key);
        self.shared.engine.update(&text, now.ms(), |slot| {
            let current = Current::read(key, slot)?;
            let step = step(key, current, &increment)?;
            if let Step::Applied(value) | Step::Clamped(value) = step {
                let is_new = matches!(current, Current::Absent);
                let expiry = expiry(&increment, window_ms, is_new, now);
                let mut text = itoa::Buffer::new();
                slot.set_str(&[text.format(value).as_bytes()], expiry).map_err(|error| classify(key, error))?;
            }
            let resets_after = slot.get().and_then(|stored| remaining(stored, now));
            Ok(match step {
                Step::Applied(value) => IncrementOutcome::Applied(Counter { value, resets_after }),
                Step::Clamped(value) => IncrementOutcome::Clamped(Counter { value, resets_after }),
                Step::Refused | Step::Overflow => {
                    IncrementOutcome::Refused(Counter { value: number(current), resets_after })
                }
            })
        })
    }
}

/// What an increment makes of what is stored. Never `Overflow`, which is an error.
pub(crate) fn step(key: &StateKey, current: Current, increment: &Increment) -> Result<Step> {
    if matches!(current, Current::Value { .. }) {
        return Err(Error::wrong_type(key, "the key holds a value, which cannot be added to"));
    }
    match increment.step(number(current)) {
        Step::Overflow => {
            let message = "the counter would leave the range of a signed 64-bit integer";
            Err(Error::new(ErrorKind::Overflow, message).with_key(key))
        }
        step => Ok(step),
    }
}

/// What an applied step does to the time to live. `window_ms` is what the increment's check returned.
pub(crate) fn expiry(increment: &Increment, window_ms: Option<u64>, is_new: bool, now: Now) -> Expiry {
    let begins = is_new || matches!(increment.window, Counting::Refresh(_));
    match window_ms {
        Some(window_ms) if begins => Expiry::At(now.ms().saturating_add(window_ms)),
        _ => Expiry::Keep,
    }
}

/// An absent counter begins at 0.
fn number(current: Current) -> i64 {
    match current {
        Current::Counter(number) => number,
        Current::Absent | Current::Value { .. } => 0,
    }
}
