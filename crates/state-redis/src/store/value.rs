//! Values: get, put, delete, take, touch. Each is one command or one script.
//!
//! Commands and replies are apart, so that a batch sends the same ones in one go.

use acteon_state_core::key::Keyspace;
use acteon_state_core::record::ValueHeader;
use acteon_state_core::{Condition, DeleteOutcome, Effect, Entry, Error, Get, Put, PutOutcome, Result, StateKey, Ttl};

use super::Inner;
use crate::error::{Access, unexpected};
use crate::reply;
use crate::script::{self, By};
use crate::wire::{Cmd, Value};

impl Inner {
    pub(super) async fn get(&self, key: &StateKey, get: Get) -> Result<Option<Entry>> {
        let command = |by| get_command(&self.keyspace, key, get, by);
        let reply = if get.stale_ok {
            // Apart, since it would make the future of every call large.
            Box::pin(self.read_somewhere(command)).await?
        } else {
            self.run(Access::Read, command).await?
        };
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
            (Ttl::Keep, _) => self.send(Cmd::new("EXISTS").arg(text), Access::Read).await?,
            (_, Some(after_ms)) => self.send(Cmd::new("PEXPIRE").arg(text).number(after_ms), Access::Write).await?,
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
    let mut cmd = if get.with_ttl { script::GET_TTL.command(by, 1) } else { Cmd::new("GET") };
    cmd.parts(keyspace.text_parts(key));
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
    if put.condition == Condition::Absent {
        let header = ValueHeader::new(put.version, None);
        let mut cmd = Cmd::new("SET");
        cmd.parts(keyspace.text_parts(key)).parts([header.as_bytes(), &put.value]).arg("NX").arg("GET");
        if let Ok(Some(after_ms)) = put.ttl.after_ms() {
            cmd.arg("PX").number(after_ms);
        }
        return cmd;
    }
    let mut cmd = script::PUT.command(by, 1);
    cmd.parts(keyspace.text_parts(key));
    push_put_fields(&mut cmd, put);
    cmd
}

/// The arguments of the script of a put.
pub(super) fn push_put_fields(cmd: &mut Cmd, put: &Put) {
    push_condition(cmd.arg(put.version.to_text()).arg(&put.value), put.condition);
    push_ttl(cmd, put.ttl);
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
    put_script_reply(key, put, reply)
}

/// The reply of the script of a put.
pub(super) fn put_script_reply(key: &StateKey, put: &Put, reply: Value) -> Result<PutOutcome> {
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
    let text = keyspace.text_parts(key);
    match condition {
        // Also deletes what does not parse: a way out.
        Condition::Always | Condition::Present | Condition::Absent => {
            let mut cmd = Cmd::new("DEL");
            cmd.parts(text);
            cmd
        }
        Condition::Version(_) | Condition::Fence(_) => {
            let mut cmd = script::DELETE.command(by, 1);
            push_condition(cmd.parts(text), condition);
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
    cmd.parts(keyspace.text_parts(key));
    cmd
}

pub(super) fn take_reply(key: &StateKey, reply: Value) -> Result<Option<Entry>> {
    if let Value::Int(status) = reply {
        return Err(refusal(key, status));
    }
    // Should the script have taken more for a record than we do, it is gone.
    reply::entry_or_nil(key, reply).map_err(|error| error.with_effect(Effect::Unknown))
}

/// Adds how scripts spell a condition: its name and its operand.
pub(super) fn push_condition(cmd: &mut Cmd, condition: Condition) {
    match condition {
        Condition::Always => cmd.arg("always").arg(""),
        Condition::Absent => cmd.arg("absent").arg(""),
        Condition::Present => cmd.arg("present").arg(""),
        Condition::Version(version) => cmd.arg("version").arg(version.to_text()),
        // As in records: 14 hexadecimal digits.
        Condition::Fence(token) => cmd.arg("fence").arg(format!("{:014x}", token.get())),
    };
}

/// Adds how scripts spell a time to live. It was checked before.
pub(super) fn push_ttl(cmd: &mut Cmd, ttl: Ttl) {
    match (ttl, ttl.after_ms()) {
        (_, Ok(Some(after_ms))) => cmd.number(after_ms),
        (Ttl::Keep, _) => cmd.arg("keep"),
        _ => cmd.arg("clear"),
    };
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
