//! Values: get, put, delete, take, touch. Each is one command or one script.
//!
//! Commands and replies are apart, so that a batch sends the same ones in one go.

use acteon_state_core::entry::FencingToken;
use acteon_state_core::key::Keyspace;
use acteon_state_core::record::ValueHeader;
use acteon_state_core::{Condition, DeleteOutcome, Effect, Entry, Error, Get, Put, PutOutcome, Result, StateKey, Ttl};
use redis::{Cmd, Value};

use super::Inner;
use crate::error::{Access, unexpected};
use crate::reply;
use crate::script::{self, By};

impl Inner {
    pub(super) async fn get(&self, key: &StateKey, get: Get) -> Result<Option<Entry>> {
        let command = |by| get_command(&self.keyspace, key, get, by);
        let reply =
            if get.stale_ok { self.read_somewhere(command).await? } else { self.run(Access::Read, command).await? };
        get_reply(key, get, reply)
    }

    pub(super) async fn put(&self, key: &StateKey, put: &Put) -> Result<PutOutcome> {
        put.check(self.capabilities())?;
        let reply = self.run(Access::Write, |by| put_command(&self.keyspace, key, put, by)).await?;
        put_reply(key, put, reply)
    }

    pub(super) async fn delete(&self, key: &StateKey, condition: Condition) -> Result<DeleteOutcome> {
        check_delete(condition)?;
        let reply = self.run(Access::Write, |by| delete_command(&self.keyspace, key, condition, by)).await?;
        delete_reply(key, reply)
    }

    pub(super) async fn take(&self, key: &StateKey) -> Result<Option<Entry>> {
        let reply = self.run(Access::Write, |by| take_command(&self.keyspace, key, by)).await?;
        take_reply(key, reply)
    }

    pub(super) async fn touch(&self, key: &StateKey, ttl: Ttl) -> Result<bool> {
        let after_ms = ttl.after_ms()?;
        let text = self.keyspace.text(key);
        let reply = match (ttl, after_ms) {
            (Ttl::Keep, _) => self.send(redis::cmd("EXISTS").arg(text), Access::Read).await?,
            (_, Some(after_ms)) => self.send(redis::cmd("PEXPIRE").arg(text).arg(after_ms), Access::Write).await?,
            (_, None) => {
                let persist = |by| {
                    let mut cmd = script::PERSIST.command(by, 1);
                    cmd.arg(&text);
                    cmd
                };
                self.run(Access::Write, persist).await?
            }
        };
        Ok(reply::int(reply)? == 1)
    }
}

pub(super) fn get_command(keyspace: &Keyspace, key: &StateKey, get: Get, by: By) -> Cmd {
    let mut cmd = if get.with_ttl { script::GET_TTL.command(by, 1) } else { redis::cmd("GET") };
    cmd.arg(keyspace.text(key));
    cmd
}

pub(super) fn get_reply(key: &StateKey, get: Get, reply: Value) -> Result<Option<Entry>> {
    if !get.with_ttl {
        return reply::entry_or_nil(key, reply);
    }
    if reply == Value::Nil {
        return Ok(None);
    }
    let mut fields = reply::array(reply)?;
    let Some(bytes) = reply::bytes_or_nil(reply::next(&mut fields)?)? else {
        return Ok(None);
    };
    let ttl = reply::ttl(reply::next(&mut fields)?)?;
    reply::entry(key, bytes, ttl).map(Some)
}

pub(super) fn put_command(keyspace: &Keyspace, key: &StateKey, put: &Put, by: By) -> Cmd {
    let text = keyspace.text(key);
    if put.condition == Condition::Absent {
        let record = [ValueHeader::new(put.version, None).as_bytes(), &put.value].concat();
        let mut cmd = redis::cmd("SET");
        cmd.arg(text).arg(record).arg("NX").arg("GET");
        if let Ok(Some(after_ms)) = put.ttl.after_ms() {
            cmd.arg("PX").arg(after_ms);
        }
        return cmd;
    }
    let (condition, operand) = condition_fields(put.condition);
    let mut cmd = script::PUT.command(by, 1);
    cmd.arg(text).arg(&put.version.to_text()[..]).arg(&put.value[..]).arg(condition).arg(operand);
    cmd.arg(ttl_field(put.ttl));
    cmd
}

pub(super) fn put_reply(key: &StateKey, put: &Put, reply: Value) -> Result<PutOutcome> {
    if put.condition == Condition::Absent {
        return Ok(match reply::entry_or_nil(key, reply)? {
            None => PutOutcome::Applied(put.version),
            // Our own version: the request was sent before, and its answer was lost.
            Some(entry) if entry.version == Some(put.version) => PutOutcome::Applied(put.version),
            Some(entry) => PutOutcome::NotMet(Some(entry)),
        });
    }
    let mut fields = reply::array(reply)?;
    match reply::int(reply::next(&mut fields)?)? {
        1 => Ok(PutOutcome::Applied(put.version)),
        0 => {
            let current = fields.next().unwrap_or(Value::Nil);
            reply::entry_or_nil(key, current).map(PutOutcome::NotMet)
        }
        status => Err(refusal(key, status)),
    }
}

/// Checks the condition of a delete.
pub(super) fn check_delete(condition: Condition) -> Result<()> {
    if condition == Condition::Absent {
        return Err(Error::invalid("delete under the condition `absent` could never delete anything"));
    }
    Ok(())
}

pub(super) fn delete_command(keyspace: &Keyspace, key: &StateKey, condition: Condition, by: By) -> Cmd {
    let text = keyspace.text(key);
    match condition {
        // Also deletes what does not parse: a way out.
        Condition::Always | Condition::Present | Condition::Absent => {
            let mut cmd = redis::cmd("DEL");
            cmd.arg(text);
            cmd
        }
        Condition::Version(_) | Condition::Fence(_) => {
            let (name, operand) = condition_fields(condition);
            let mut cmd = script::DELETE.command(by, 1);
            cmd.arg(text).arg(name).arg(operand);
            cmd
        }
    }
}

pub(super) fn delete_reply(key: &StateKey, reply: Value) -> Result<DeleteOutcome> {
    let mut fields = match reply {
        Value::Int(1) => return Ok(DeleteOutcome::Deleted),
        Value::Int(0) => return Ok(DeleteOutcome::Absent),
        reply => reply::array(reply)?,
    };
    match reply::int(reply::next(&mut fields)?)? {
        1 => Ok(DeleteOutcome::Deleted),
        0 => match fields.next() {
            None => Ok(DeleteOutcome::Absent),
            Some(current) => {
                Ok(reply::entry_or_nil(key, current)?.map_or(DeleteOutcome::Absent, DeleteOutcome::NotMet))
            }
        },
        status => Err(refusal(key, status)),
    }
}

/// `GETDEL` alone would also delete what nobody could then be given.
pub(super) fn take_command(keyspace: &Keyspace, key: &StateKey, by: By) -> Cmd {
    let mut cmd = script::TAKE.command(by, 1);
    cmd.arg(keyspace.text(key));
    cmd
}

pub(super) fn take_reply(key: &StateKey, reply: Value) -> Result<Option<Entry>> {
    if let Value::Int(status) = reply {
        return Err(refusal(key, status));
    }
    // Should the script have taken more for a record than we do, it is gone.
    reply::entry_or_nil(key, reply).map_err(|error| error.with_effect(Effect::Unknown))
}

/// How scripts spell a condition: its name and its operand.
pub(super) fn condition_fields(condition: Condition) -> (&'static str, String) {
    match condition {
        Condition::Always => ("always", String::new()),
        Condition::Absent => ("absent", String::new()),
        Condition::Present => ("present", String::new()),
        Condition::Version(version) => ("version", version.to_string()),
        Condition::Fence(token) => ("fence", fence_field(token)),
    }
}

/// How records and scripts spell a token: 14 hexadecimal digits.
fn fence_field(token: FencingToken) -> String {
    format!("{:014x}", token.get())
}

/// How scripts spell a time to live. It was checked before.
pub(super) fn ttl_field(ttl: Ttl) -> String {
    match (ttl, ttl.after_ms()) {
        (_, Ok(Some(after_ms))) => after_ms.to_string(),
        (Ttl::Keep, _) => "keep".to_owned(),
        _ => "clear".to_owned(),
    }
}

/// The error that a negative status of a script stands for.
pub(super) fn refusal(key: &StateKey, status: i64) -> Error {
    match status {
        -1 => Error::wrong_type(key, "a counter has no version and no fence, and a value cannot be counted"),
        -2 => reply::corrupt(key),
        -3 => Error::new(
            acteon_state_core::ErrorKind::Overflow,
            "the counter would leave the range of a signed 64-bit integer",
        )
        .with_key(key),
        other => unexpected(&Value::Int(other)),
    }
}
