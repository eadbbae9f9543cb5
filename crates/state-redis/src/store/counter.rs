//! Counters: one script, whatever the bounds and the window.
//!
//! `INCRBY` alone would do for a counter without either, but its answer lacks the time that is left, and a second command
//! would not see the same moment. The script costs a few microseconds of the server's time.

use std::time::Duration;

use acteon_state_core::key::Keyspace;
use acteon_state_core::{AtBound, Counter, Counting, Increment, IncrementOutcome, Result, StateKey};

use super::Inner;
use super::value::refusal;
use crate::error::{Access, unexpected};
use crate::reply;
use crate::script::{self, By};
use crate::wire::{Cmd, Value};

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
    push_bounds(cmd.parts(keyspace.text_parts(key)).number(increment.delta), increment);
    push_window(cmd.arg(at_bound), increment);
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

/// Adds how scripts spell bounds: empty when there is none.
pub(super) fn push_bounds(cmd: &mut Cmd, increment: &Increment) {
    for bound in [increment.min, increment.max] {
        match bound {
            Some(bound) => cmd.number(bound),
            None => cmd.arg(""),
        };
    }
}

/// Adds how scripts spell a window. It was checked before.
pub(super) fn push_window(cmd: &mut Cmd, increment: &Increment) {
    cmd.arg(match increment.window {
        Counting::Unlimited => "keep",
        Counting::OnCreate(_) => "create",
        Counting::Refresh(_) => "refresh",
    });
    match increment.check() {
        Ok(Some(window_ms)) => cmd.number(window_ms),
        _ => cmd.arg(""),
    };
}
