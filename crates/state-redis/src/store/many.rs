//! Several keys: a batch is one pipeline, a transaction is one script.
//!
//! A batch is one round trip, and a second one for those of its scripts that the server has forgotten. A transaction checks
//! all of its conditions before it writes anything; Redis runs the script as a whole, so nobody sees it half done.

use acteon_state_core::many::{check_batch, check_transact};
use acteon_state_core::{BatchOp, BatchReply, Operation, Result, TransactOp, TransactOutcome};

use super::counter::{increment_command, increment_reply, push_bounds, push_window};
use super::value::{
    check_delete, delete_command, delete_reply, get_command, get_reply, push_condition, push_ttl, put_command,
    put_reply, refusal, take_command, take_reply,
};
use super::{Inner, settled};
use crate::error::{Access, BACKEND, unexpected};
use crate::reply;
use crate::script::{self, By};
use crate::wire::{Cmd, Value};

impl Inner {
    pub(super) async fn batch(&self, ops: &[BatchOp]) -> Result<Vec<Result<BatchReply>>> {
        check_batch(ops)?;
        let checks: Vec<Result<()>> = ops.iter().map(|op| self.check_op(op)).collect();
        let sent: Vec<&BatchOp> =
            ops.iter().zip(&checks).filter(|(_, check)| check.is_ok()).map(|(op, _)| op).collect();
        let mut replies = self.send_ops(&sent).await?.into_iter();
        let outcomes = ops.iter().zip(checks).map(|(op, check)| {
            // Only what passed its check was sent.
            let outcome = check.and_then(|()| op_reply(op, replies.next().unwrap_or(Ok(Value::Nil))?));
            outcome
                .map_err(|error| error.in_operation(Operation::Batch.as_str()).on_backend(BACKEND).with_key(op.key()))
        });
        Ok(outcomes.collect())
    }

    pub(super) async fn transact(&self, ops: &[TransactOp]) -> Result<TransactOutcome> {
        check_transact(ops, self.capabilities())?;
        for op in ops {
            if let TransactOp::Delete(_, condition) = op {
                check_delete(*condition)?;
            }
        }
        let reply = self.run(Access::Write, |by| self.transact_command(ops, by)).await?;
        let mut fields = reply::array(reply)?;
        let status = reply::int(reply::next(&mut fields)?)?;
        if status == 1 {
            return Ok(TransactOutcome::Committed);
        }
        let index = reply::unsigned(reply::next(&mut fields)?)?;
        let index = usize::try_from(index).ok().filter(|index| *index < ops.len());
        let Some(index) = index else { return Err(unexpected(&Value::Nil)) };
        let key = ops[index].key();
        if status != 0 {
            return Err(refusal(key, status));
        }
        let current = reply::entry_or_nil(key, fields.next().unwrap_or(Value::Nil))?;
        Ok(TransactOutcome::Refused { index, current })
    }

    fn check_op(&self, op: &BatchOp) -> Result<()> {
        match op {
            BatchOp::Get(..) | BatchOp::Take(_) => Ok(()),
            BatchOp::Put(_, put) => put.check(self.capabilities()),
            BatchOp::Delete(_, condition) => check_delete(*condition),
            BatchOp::Increment(_, increment) => increment.check().map(|_| ()),
        }
    }

    /// One answer per operation. An error of the whole means that none of them was answered.
    async fn send_ops(&self, ops: &[&BatchOp]) -> Result<Vec<Result<Value>>> {
        let reads = ops.iter().all(|op| matches!(op, BatchOp::Get(..)));
        let access = if reads { Access::Read } else { Access::Write };
        self.router.run_each(ops.len(), access, |index, by| self.op_command(ops[index], by)).await
    }

    fn op_command(&self, op: &BatchOp, by: By) -> Cmd {
        match op {
            BatchOp::Get(key, get) => get_command(&self.keyspace, key, *get, by),
            BatchOp::Put(key, put) => put_command(&self.keyspace, key, put, by),
            BatchOp::Delete(key, condition) => delete_command(&self.keyspace, key, *condition, by),
            BatchOp::Take(key) => take_command(&self.keyspace, key, by),
            BatchOp::Increment(key, increment) => increment_command(&self.keyspace, key, increment, by),
        }
    }

    fn transact_command(&self, ops: &[TransactOp], by: By) -> Cmd {
        let mut cmd = script::TRANSACT.command(by, ops.len());
        for op in ops {
            cmd.parts(self.keyspace.text_parts(op.key()));
        }
        for op in ops {
            push_fields(&mut cmd, op);
        }
        cmd
    }
}

fn op_reply(op: &BatchOp, reply: Value) -> Result<BatchReply> {
    let reply = settled(reply)?;
    match op {
        BatchOp::Get(key, get) => get_reply(key, *get, reply).map(BatchReply::Got),
        BatchOp::Put(key, put) => put_reply(key, put, reply).map(BatchReply::Put),
        BatchOp::Delete(key, _) => delete_reply(key, reply).map(BatchReply::Deleted),
        BatchOp::Take(key) => take_reply(key, reply).map(BatchReply::Taken),
        BatchOp::Increment(key, _) => increment_reply(key, reply).map(BatchReply::Incremented),
    }
}

/// The fields of one operation, as transact.lua lists them.
fn push_fields(cmd: &mut Cmd, op: &TransactOp) {
    match op {
        TransactOp::Check(_, condition) => {
            push_condition(cmd.arg("c"), *condition);
        }
        TransactOp::Put(_, put) => {
            push_condition(cmd.arg("p"), put.condition);
            push_ttl(cmd.arg(put.version.to_text()).arg(&put.value), put.ttl);
        }
        TransactOp::Delete(_, condition) => {
            push_condition(cmd.arg("d"), *condition);
        }
        TransactOp::Increment(_, increment) => {
            push_bounds(cmd.arg("i").number(increment.delta), increment);
            push_window(cmd, increment);
        }
    }
}
