//! Several keys: a batch travels as the rows of one statement, a transaction is one call of `transact`.
//!
//! A batch of reads alone is a query, one with writes a call of `apply`. Nobody may count on one moment or one commit: beyond
//! `batch_ops_max` or 4 MiB a batch is cut, it shares statements with other callers, and what is about a key that is under way
//! follows later.

use acteon_state_core::many::{check_batch, check_transact};
use acteon_state_core::{BatchOp, BatchReply, Error, ErrorKind, Operation, Result, TransactOp, TransactOutcome};
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, Row as _};

use super::value::{
    Action, Applied, Columns, Status, ValueOp, check_delete, delete_outcome, has_entry, increment_outcome, put_outcome,
    read_entry_columns, read_status, with_asked,
};
use super::{Inner, KeyColumns, unexpected};
use crate::error::BACKEND;

/// The status of a transaction of which all was applied. Any other comes with a position.
const COMMITTED: i16 = 1;

pub(super) const TRANSACT: &str = "
    SELECT * FROM {t}transact($1::boolean, $2::integer[], $3::text[], $4::text[], $5::text[], $6::text[],
        $7::smallint[], $8::smallint[], $9::uuid[], $10::bigint[], $11::bytea[], $12::uuid[], $13::smallint[], $14::bigint[],
        $15::bigint[], $16::bigint[], $17::bigint[], $18::boolean[])";

/// The most bytes of all values of a transaction. It is one message, which must stay below 1 GiB, and the server holds its values
/// several times while they are written. Not less than the largest single value.
const TRANSACT_BYTES_MAX: usize = 256 << 20;

impl Inner {
    pub(super) async fn batch(&self, ops: &[BatchOp]) -> Result<Vec<Result<BatchReply>>> {
        check_batch(ops)?;
        if ops.iter().all(|op| matches!(op, BatchOp::Get(..))) {
            return self.batch_of_reads(ops).await;
        }
        let checks: Vec<Result<()>> = ops.iter().map(|op| self.check_op(op)).collect();
        let sent: Vec<ValueOp> =
            ops.iter().zip(&checks).filter(|(_, check)| check.is_ok()).map(|(op, _)| value_op(op)).collect();
        let relaxed = sent.iter().all(|op| self.may_be_lost(op));
        let mut answers = self.writes.choose(relaxed).submit_all(sent)?.into_iter();
        let mut outcomes = Vec::with_capacity(ops.len());
        for (op, check) in ops.iter().zip(checks) {
            let outcome = match (check, op) {
                (Err(error), _) => Err(error),
                // Only what passed its check was sent.
                (Ok(()), op) => match answers.next() {
                    Some(answer) => answer.wait().await.and_then(|applied| batch_reply(op, applied)),
                    None => Err(Error::new(ErrorKind::Internal, "an operation of the batch was not sent")),
                },
            };
            outcomes.push(outcome.map_err(|error| placed(error, op)));
        }
        Ok(outcomes)
    }

    async fn batch_of_reads(&self, ops: &[BatchOp]) -> Result<Vec<Result<BatchReply>>> {
        let answers = self.reads.submit_all(ops.iter().map(|op| op.key().clone()))?;
        let mut outcomes = Vec::with_capacity(ops.len());
        for (op, answer) in ops.iter().zip(answers) {
            let outcome = answer.wait().await.map(|entry| match op {
                BatchOp::Get(_, get) => BatchReply::Got(entry.map(|entry| with_asked(entry, *get))),
                _ => BatchReply::Got(entry),
            });
            outcomes.push(outcome.map_err(|error| placed(error, op)));
        }
        Ok(outcomes)
    }

    pub(super) async fn transact(&self, ops: &[TransactOp]) -> Result<TransactOutcome> {
        check_transact(ops, self.capabilities())?;
        check_transact_bytes(ops)?;
        for op in ops {
            if let TransactOp::Delete(_, condition) = op {
                check_delete(*condition)?;
            }
        }
        let mut sent: Vec<(i32, ValueOp)> = (0..).zip(ops.iter().map(transact_op)).collect();
        // In the order in which all statements lock their rows.
        sent.sort_by(|(_, one), (_, other)| one.key.text().cmp(other.key.text()));
        let relaxed = sent.iter().all(|(_, op)| self.may_be_lost(op));
        let arguments = transact_arguments(relaxed, &sent)
            .map_err(|error| Error::invalid("the transaction cannot be encoded").with_source(error))?;
        let rows = self.write(&self.transact_sql, arguments).await?;
        let row = rows.first().ok_or_else(|| unexpected(sqlx::Error::RowNotFound))?;
        let status: i16 = row.try_get(0).map_err(unexpected)?;
        let position: Option<i32> = row.try_get(1).map_err(unexpected)?;
        if status == COMMITTED {
            return Ok(TransactOutcome::Committed);
        }
        let index = position.and_then(|position| usize::try_from(position).ok()).filter(|index| *index < ops.len());
        let index = index.ok_or_else(|| unexpected(sqlx::Error::ColumnNotFound("position".to_owned())))?;
        let key = ops[index].key();
        match read_status(key, status)? {
            Status::Done | Status::DoneBefore => Ok(TransactOutcome::Committed),
            Status::NotMet | Status::Absent | Status::Clamped => {
                let current = if has_entry(row, 2)? { Some(read_entry_columns(key, row, 2)?) } else { None };
                Ok(TransactOutcome::Refused { index, current })
            }
        }
    }

    fn check_op(&self, op: &BatchOp) -> Result<()> {
        match op {
            BatchOp::Get(..) | BatchOp::Take(_) => Ok(()),
            BatchOp::Put(_, put) => put.check(self.capabilities()),
            BatchOp::Delete(_, condition) => check_delete(*condition),
            BatchOp::Increment(_, increment) => increment.check().map(|_| ()),
        }
    }
}

/// # Errors
/// `TooLarge`: the server would not even read it, but end the connection.
fn check_transact_bytes(ops: &[TransactOp]) -> Result<()> {
    let bytes = |op: &TransactOp| if let TransactOp::Put(_, put) = op { put.value.len() } else { 0 };
    let total: usize = ops.iter().map(bytes).sum();
    if total > TRANSACT_BYTES_MAX {
        let message =
            format!("the values of the transaction have {total} bytes in all; allowed are {TRANSACT_BYTES_MAX}");
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    Ok(())
}

/// Says which operation of a batch failed.
fn placed(error: Error, op: &BatchOp) -> Error {
    error.in_operation(Operation::Batch.as_str()).on_backend(BACKEND).with_key(op.key())
}

fn value_op(op: &BatchOp) -> ValueOp {
    let action = match op {
        BatchOp::Get(..) => Action::Get,
        BatchOp::Put(_, put) => Action::Put(put.clone()),
        BatchOp::Delete(_, condition) => Action::Delete(*condition),
        BatchOp::Take(_) => Action::Take,
        BatchOp::Increment(_, increment) => Action::Increment(*increment),
    };
    ValueOp { key: op.key().clone(), action }
}

fn batch_reply(op: &BatchOp, applied: Applied) -> Result<BatchReply> {
    Ok(match op {
        BatchOp::Get(_, get) => BatchReply::Got(applied.into_entry().map(|entry| with_asked(entry, *get))),
        BatchOp::Put(_, put) => BatchReply::Put(put_outcome(put, applied)),
        BatchOp::Delete(..) => BatchReply::Deleted(delete_outcome(applied)),
        BatchOp::Take(_) => BatchReply::Taken(applied.entry),
        BatchOp::Increment(..) => BatchReply::Incremented(increment_outcome(applied)?),
    })
}

fn transact_op(op: &TransactOp) -> ValueOp {
    let action = match op {
        TransactOp::Check(_, condition) => Action::Check(*condition),
        TransactOp::Put(_, put) => Action::Put(put.clone()),
        TransactOp::Delete(_, condition) => Action::CheckAndDelete(*condition),
        TransactOp::Increment(_, increment) => Action::Increment(*increment),
    };
    ValueOp { key: op.key().clone(), action }
}

fn transact_arguments(relaxed: bool, ops: &[(i32, ValueOp)]) -> Result<PgArguments, BoxDynError> {
    let mut arguments = PgArguments::default();
    arguments.add(relaxed)?;
    arguments.add(ops.iter().map(|(position, _)| *position).collect::<Vec<i32>>())?;
    KeyColumns::new(ops.iter().map(|(_, op)| &op.key)).bind(&mut arguments)?;
    Columns::new(ops.iter().map(|(_, op)| &op.action)).bind(&mut arguments)?;
    Ok(arguments)
}
