//! Counters: one script, whatever the bounds and the window.
//!
//! `INCRBY` alone would do for a counter without either, but its answer lacks the time that is left, and a second command
//! would not see the same moment. The script costs a few microseconds of the server's time.

use std::time::Duration;

use acteon_state_core::key::Keyspace;
use acteon_state_core::{AtBound, Counter, Counting, Increment, IncrementOutcome, Result, StateKey};
use redis::{Cmd, Value};

use super::Inner;
use super::value::refusal;
use crate::error::{Access, unexpected};
use crate::reply;
use crate::script::{self, By};

impl Inner {
    pub(super) async fn increment(&self, key: &StateKey, increment: &Increment) -> Result<IncrementOutcome> {
        increment.check()?;
        let command = |by| increment_command(&self.keyspace, key, increment, by);
        let reply = self.run(Access::Write, command).await?;
        increment_reply(key, reply)
    }
}

pub(super) fn increment_command(keyspace: &Keyspace, key: &StateKey, increment: &Increment, by: By) -> Cmd {
    let mut cmd = script::INCREMENT.command(by, 1);
    let at_bound = match increment.at_bound {
        AtBound::Refuse => "refuse",
        AtBound::Clamp => "clamp",
    };
    let (window, window_ms) = window_fields(increment);
    cmd.arg(keyspace.text(key)).arg(increment.delta);
    cmd.arg(bound_field(increment.min)).arg(bound_field(increment.max)).arg(at_bound).arg(window).arg(window_ms);
    cmd
}

pub(super) fn increment_reply(key: &StateKey, reply: Value) -> Result<IncrementOutcome> {
    let mut fields = reply::array(reply)?;
    let status = reply::int(reply::next(&mut fields)?)?;
    if status < 0 {
        return Err(refusal(key, status));
    }
    let value = reply::text(reply::next(&mut fields)?)?;
    let value = value.parse().map_err(|_| unexpected(&Value::SimpleString(value)))?;
    let resets_after: Option<Duration> = reply::ttl(reply::next(&mut fields)?)?;
    let counter = Counter { value, resets_after };
    match status {
        0 => Ok(IncrementOutcome::Refused(counter)),
        1 => Ok(IncrementOutcome::Applied(counter)),
        2 => Ok(IncrementOutcome::Clamped(counter)),
        other => Err(unexpected(&Value::Int(other))),
    }
}

/// How scripts spell a bound: empty when there is none.
pub(super) fn bound_field(bound: Option<i64>) -> String {
    bound.map(|bound| bound.to_string()).unwrap_or_default()
}

/// How scripts spell a window. It was checked before.
pub(super) fn window_fields(increment: &Increment) -> (&'static str, String) {
    let window_ms = increment.check().ok().flatten().map(|window_ms| window_ms.to_string()).unwrap_or_default();
    let window = match increment.window {
        Counting::Unlimited => "keep",
        Counting::OnCreate(_) => "create",
        Counting::Refresh(_) => "refresh",
    };
    (window, window_ms)
}
