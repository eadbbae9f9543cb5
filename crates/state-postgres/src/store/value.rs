//! Values and counters: single operations, which travel together as the rows of one statement.
//!
//! Reads are a plain query, which takes no locks. All else is a call of `apply`, whose rules are in its migration.

use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::entry::{FencingToken, ceil_ms};
use acteon_state_core::{
    AtBound, Condition, Counter, Counting, DeleteOutcome, Effect, Entry, Error, ErrorKind, Get, Increment,
    IncrementOutcome, Put, PutOutcome, Result, StateKey, Ttl, Version,
};
use async_trait::async_trait;
use bytes::Bytes;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments as _, Row as _};
use uuid::Uuid;

use super::{Inner, KeyColumns, unexpected};
use crate::error::Sent;
use crate::lane::Family;
use crate::names::Names;
use crate::session::Session;

/// Roughly what an operation takes in a statement beside its key and its value.
const OP_BYTES: usize = 64;

/// One row for each entry that is there, with its position in the request. LIMIT keeps the planner from joining in any other
/// way than by looking up each key.
const GET: &str = "
    SELECT k.position, e.value, e.version, e.fence, e.counter, e.expires_at_us - n.now_us
      FROM (SELECT {t}now_us() AS now_us OFFSET 0) n
     CROSS JOIN unnest($1::text[], $2::text[], $3::text[], $4::text[])
           WITH ORDINALITY AS k (namespace, tenant, kind, id, position)
     CROSS JOIN LATERAL (
           SELECT * FROM {t}entries e
            WHERE e.namespace = k.namespace AND e.tenant = k.tenant AND e.kind = k.kind AND e.id = k.id
            LIMIT 1) e
     WHERE e.expires_at_us IS NULL OR e.expires_at_us > n.now_us";

const APPLY: &str = "
    SELECT * FROM {t}apply($1::boolean, false, $2::text[], $3::text[], $4::text[], $5::text[],
        $6::smallint[], $7::smallint[], $8::uuid[], $9::bigint[], $10::bytea[], $11::uuid[], $12::smallint[], $13::bigint[],
        $14::bigint[], $15::bigint[], $16::bigint[], $17::boolean[])";

/// What is done to one key.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Get,
    Put(Put),
    Delete(Condition),
    Take,
    Touch(Ttl),
    Increment(Increment),
    /// Of a transaction: the condition must hold.
    Check(Condition),
    /// Of a transaction: the condition must hold, also of an absent entry.
    CheckAndDelete(Condition),
}

/// An operation on one key, checked before.
pub(super) struct ValueOp {
    pub(super) key: StateKey,
    pub(super) action: Action,
}

/// What `apply` returned for an operation.
pub(super) struct Applied {
    pub(super) status: Status,
    pub(super) entry: Option<Entry>,
    /// The number of a counter.
    count: Option<i64>,
    ttl: Option<Duration>,
}

impl Applied {
    /// The entry with its time to live.
    pub(super) fn into_entry(self) -> Option<Entry> {
        self.entry.map(|entry| Entry { ttl: self.ttl, ..entry })
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Done,
    NotMet,
    Clamped,
    Absent,
    /// By the same put, sent before.
    DoneBefore,
}

/// Reads entries.
pub(super) struct Reads {
    sql: Arc<str>,
}

/// Changes entries.
pub(super) struct Writes {
    sql: Arc<str>,
    is_relaxed: bool,
}

impl Inner {
    pub(super) async fn get(&self, key: &StateKey, get: Get) -> Result<Option<Entry>> {
        let entry = self.reads.submit(key.clone()).await?;
        Ok(entry.map(|entry| with_asked(entry, get)))
    }

    pub(super) async fn put(&self, key: &StateKey, put: &Put) -> Result<PutOutcome> {
        put.check(self.capabilities())?;
        let applied = self.apply(key, Action::Put(put.clone())).await?;
        Ok(put_outcome(put, applied))
    }

    pub(super) async fn delete(&self, key: &StateKey, condition: Condition) -> Result<DeleteOutcome> {
        check_delete(condition)?;
        self.apply(key, Action::Delete(condition)).await.map(delete_outcome)
    }

    pub(super) async fn take(&self, key: &StateKey) -> Result<Option<Entry>> {
        Ok(self.apply(key, Action::Take).await?.entry)
    }

    pub(super) async fn touch(&self, key: &StateKey, ttl: Ttl) -> Result<bool> {
        ttl.after_ms()?;
        Ok(self.apply(key, Action::Touch(ttl)).await?.status == Status::Done)
    }

    pub(super) async fn increment(&self, key: &StateKey, increment: &Increment) -> Result<IncrementOutcome> {
        increment.check()?;
        self.apply(key, Action::Increment(*increment)).await.and_then(increment_outcome)
    }

    async fn apply(&self, key: &StateKey, action: Action) -> Result<Applied> {
        let op = ValueOp { key: key.clone(), action };
        self.writes.choose(self.may_be_lost(&op)).submit(op).await
    }

    /// Whether the commit of an operation need not wait for the disk. A fenced write protects something, so it always does.
    pub(super) fn may_be_lost(&self, op: &ValueOp) -> bool {
        let condition = match &op.action {
            Action::Put(put) => put.condition,
            Action::Delete(condition) | Action::Check(condition) | Action::CheckAndDelete(condition) => *condition,
            Action::Get | Action::Take | Action::Touch(_) | Action::Increment(_) => Condition::Always,
        };
        !matches!(condition, Condition::Fence(_)) && self.is_relaxed(&op.key)
    }
}

/// Leaves out what was not asked for.
pub(super) fn with_asked(mut entry: Entry, get: Get) -> Entry {
    if !get.with_ttl {
        entry.ttl = None;
    }
    entry
}

/// Checks the condition of a delete.
pub(super) fn check_delete(condition: Condition) -> Result<()> {
    if condition == Condition::Absent {
        return Err(Error::invalid("delete under the condition `absent` could never delete anything"));
    }
    Ok(())
}

pub(super) fn put_outcome(put: &Put, applied: Applied) -> PutOutcome {
    match applied.status {
        Status::NotMet | Status::Absent => PutOutcome::NotMet(applied.entry),
        Status::Done | Status::DoneBefore | Status::Clamped => PutOutcome::Applied(put.version),
    }
}

pub(super) fn delete_outcome(applied: Applied) -> DeleteOutcome {
    match (applied.status, applied.entry) {
        (Status::NotMet, Some(entry)) => DeleteOutcome::NotMet(entry),
        (Status::Absent | Status::NotMet, _) => DeleteOutcome::Absent,
        _ => DeleteOutcome::Deleted,
    }
}

pub(super) fn increment_outcome(applied: Applied) -> Result<IncrementOutcome> {
    let counter = |value| Counter { value, resets_after: applied.ttl };
    match (applied.status, applied.count) {
        (Status::Clamped, Some(count)) => Ok(IncrementOutcome::Clamped(counter(count))),
        (Status::Done | Status::DoneBefore, Some(count)) => Ok(IncrementOutcome::Applied(counter(count))),
        // An absent counter stands at 0.
        (Status::NotMet | Status::Absent, count) => Ok(IncrementOutcome::Refused(counter(count.unwrap_or(0)))),
        (Status::Clamped | Status::Done | Status::DoneBefore, None) => {
            let message = "the server counted, and did not say how far";
            Err(Error::new(ErrorKind::Internal, message).with_effect(Effect::Unknown))
        }
    }
}

impl Reads {
    pub(super) fn new(names: &Names) -> Self {
        Self { sql: names.sql(GET) }
    }
}

#[async_trait]
impl Family for Reads {
    type Op = StateKey;
    type Reply = Option<Entry>;

    const SENT: Sent = Sent::Read;

    fn key(_: &StateKey) -> Option<&str> {
        None
    }

    fn bytes(key: &StateKey) -> usize {
        key.text().len()
    }

    async fn run(&self, session: &mut Session, keys: &[&StateKey]) -> sqlx::Result<Vec<Result<Option<Entry>>>> {
        let mut arguments = PgArguments::default();
        KeyColumns::new(keys.iter().copied()).bind(&mut arguments).map_err(sqlx::Error::Encode)?;
        let rows = session.fetch_all(&self.sql, arguments).await?;
        let mut replies: Vec<Result<Option<Entry>>> = keys.iter().map(|_| Ok(None)).collect();
        for row in rows {
            let position: i64 = row.try_get(0)?;
            let at = usize::try_from(position - 1).ok().filter(|at| *at < keys.len());
            if let Some(at) = at {
                replies[at] = read_entry(keys[at], &row, 1);
            }
        }
        Ok(replies)
    }
}

impl Writes {
    pub(super) fn new(names: &Names, is_relaxed: bool) -> Self {
        Self { sql: names.sql(APPLY), is_relaxed }
    }
}

#[async_trait]
impl Family for Writes {
    type Op = ValueOp;
    type Reply = Applied;

    const SENT: Sent = Sent::Write;

    fn key(op: &ValueOp) -> Option<&str> {
        Some(op.key.text())
    }

    fn bytes(op: &ValueOp) -> usize {
        let value = if let Action::Put(put) = &op.action { put.value.len() } else { 0 };
        OP_BYTES + op.key.text().len() + value
    }

    async fn run(&self, session: &mut Session, ops: &[&ValueOp]) -> sqlx::Result<Vec<Result<Applied>>> {
        let mut arguments = PgArguments::default();
        bind(&mut arguments, self.is_relaxed, ops).map_err(sqlx::Error::Encode)?;
        let rows = session.fetch_all(&self.sql, arguments).await?;
        Ok(ops.iter().zip(&rows).map(|(op, row)| read_applied(&op.key, row)).collect())
    }
}

fn bind(arguments: &mut PgArguments, is_relaxed: bool, ops: &[&ValueOp]) -> Result<(), BoxDynError> {
    arguments.add(is_relaxed)?;
    KeyColumns::new(ops.iter().map(|op| &op.key)).bind(arguments)?;
    Columns::new(ops.iter().map(|op| &op.action)).bind(arguments)
}

/// What operations say, as the columns of `apply`. Columns that no operation needs stay empty, and travel as null.
#[derive(Default)]
pub(super) struct Columns<'a> {
    ops: Vec<i16>,
    conditions: Vec<i16>,
    expected: Vec<Option<Uuid>>,
    fences: Vec<Option<i64>>,
    values: Vec<Option<&'a [u8]>>,
    versions: Vec<Option<Uuid>>,
    ttls: Vec<i16>,
    ttls_us: Vec<Option<i64>>,
    deltas: Vec<Option<i64>>,
    mins: Vec<Option<i64>>,
    maxs: Vec<Option<i64>>,
    clamps: Vec<bool>,
}

impl<'a> Columns<'a> {
    pub(super) fn new(actions: impl Iterator<Item = &'a Action>) -> Self {
        let mut columns = Self::default();
        actions.for_each(|action| columns.push(action));
        columns
    }

    fn push(&mut self, action: &'a Action) {
        match action {
            Action::Get => self.push_row(1, Condition::Always, Ttl::Keep, None, None),
            Action::Put(put) => self.push_row(2, put.condition, put.ttl, Some(put), None),
            Action::Delete(condition) => self.push_row(3, *condition, Ttl::Keep, None, None),
            Action::Take => self.push_row(4, Condition::Always, Ttl::Keep, None, None),
            Action::Touch(ttl) => self.push_row(5, Condition::Always, *ttl, None, None),
            Action::Increment(increment) => self.push_row(6, Condition::Always, Ttl::Keep, None, Some(increment)),
            Action::Check(condition) => self.push_row(7, *condition, Ttl::Keep, None, None),
            Action::CheckAndDelete(condition) => self.push_row(8, *condition, Ttl::Keep, None, None),
        }
    }

    fn push_row(&mut self, op: i16, condition: Condition, ttl: Ttl, put: Option<&'a Put>, add: Option<&Increment>) {
        let (condition, expected, fence) = match condition {
            Condition::Always => (0, None, None),
            Condition::Absent => (1, None, None),
            Condition::Present => (2, None, None),
            Condition::Version(version) => (3, Some(uuid(version)), None),
            Condition::Fence(token) => (4, None, Some(signed(token.get()))),
        };
        let (ttl, after) = match (ttl, add.map(|add| add.window)) {
            (_, Some(Counting::Unlimited)) | (Ttl::Clear, None) => (0, None),
            (_, Some(Counting::OnCreate(window))) => (1, Some(window)),
            (Ttl::Keep, None) => (1, None),
            (_, Some(Counting::Refresh(window))) => (2, Some(window)),
            (Ttl::After(after), None) => (2, Some(after)),
        };
        self.ops.push(op);
        self.conditions.push(condition);
        self.expected.push(expected);
        self.fences.push(fence);
        self.values.push(put.map(|put| &put.value[..]));
        self.versions.push(put.map(|put| uuid(put.version)));
        self.ttls.push(ttl);
        self.ttls_us.push(after.map(|after| signed(ceil_ms(after).saturating_mul(1_000))));
        self.deltas.push(add.map(|add| add.delta));
        self.mins.push(add.and_then(|add| add.min));
        self.maxs.push(add.and_then(|add| add.max));
        self.clamps.push(add.is_some_and(|add| add.at_bound == AtBound::Clamp));
    }

    pub(super) fn bind(self, arguments: &mut PgArguments) -> Result<(), BoxDynError> {
        let has_increments = self.deltas.iter().any(Option::is_some);
        arguments.add(self.ops)?;
        arguments.add(self.conditions)?;
        arguments.add(unless_empty(self.expected))?;
        arguments.add(unless_empty(self.fences))?;
        arguments.add(unless_empty(self.values))?;
        arguments.add(unless_empty(self.versions))?;
        arguments.add(self.ttls)?;
        arguments.add(unless_empty(self.ttls_us))?;
        arguments.add(unless_empty(self.deltas))?;
        arguments.add(unless_empty(self.mins))?;
        arguments.add(unless_empty(self.maxs))?;
        arguments.add(has_increments.then_some(self.clamps))
    }
}

fn unless_empty<T>(column: Vec<Option<T>>) -> Option<Vec<Option<T>>> {
    column.iter().any(Option::is_some).then_some(column)
}

fn uuid(version: Version) -> Uuid {
    Uuid::from_u128(version.as_u128())
}

/// Tokens and times stay below 2^63.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Reads a row of `apply`.
fn read_applied(key: &StateKey, row: &PgRow) -> Result<Applied> {
    let status: i16 = row.try_get(0).map_err(unexpected)?;
    let status = read_status(key, status)?;
    let ttl = read_ttl(row, 5)?;
    let has_entry = has_entry(row, 1)?;
    let entry = if has_entry { Some(read_entry_columns(key, row, 1)?) } else { None };
    let count = row.try_get(4).map_err(unexpected)?;
    Ok(Applied { status, entry, count, ttl })
}

pub(super) fn read_status(key: &StateKey, status: i16) -> Result<Status> {
    Ok(match status {
        0 => Status::NotMet,
        1 => Status::Done,
        2 => Status::Clamped,
        3 => Status::Absent,
        4 => Status::DoneBefore,
        -1 => {
            let message = "a counter has no version and no fence, and a value cannot be counted";
            return Err(Error::wrong_type(key, message));
        }
        -3 => {
            let message = "the counter would leave the range of a signed 64-bit integer";
            return Err(Error::new(ErrorKind::Overflow, message).with_key(key));
        }
        other => return Err(Error::new(ErrorKind::Internal, format!("the server answered with status {other}"))),
    })
}

/// Whether the columns from `at` on hold an entry.
pub(super) fn has_entry(row: &PgRow, at: usize) -> Result<bool> {
    let value: Option<&[u8]> = row.try_get(at).map_err(unexpected)?;
    let counter: Option<i64> = row.try_get(at + 3).map_err(unexpected)?;
    Ok(value.is_some() || counter.is_some())
}

/// Reads an entry and its time to live from the columns from `at` on.
pub(super) fn read_entry(key: &StateKey, row: &PgRow, at: usize) -> Result<Option<Entry>> {
    let mut entry = read_entry_columns(key, row, at)?;
    entry.ttl = read_ttl(row, at + 4)?;
    Ok(Some(entry))
}

/// Reads value, version, fence and counter.
pub(super) fn read_entry_columns(key: &StateKey, row: &PgRow, at: usize) -> Result<Entry> {
    let counter: Option<i64> = row.try_get(at + 3).map_err(unexpected)?;
    if let Some(counter) = counter {
        return Ok(Entry { value: Bytes::from(counter.to_string()), version: None, fence: None, ttl: None });
    }
    let value: Option<&[u8]> = row.try_get(at).map_err(unexpected)?;
    let version: Option<Uuid> = row.try_get(at + 1).map_err(unexpected)?;
    let fence: Option<i64> = row.try_get(at + 2).map_err(unexpected)?;
    let (Some(value), Some(version)) = (value, version) else { return Err(corrupt(key)) };
    let fence = match fence {
        None => None,
        Some(fence) => Some(
            u64::try_from(fence).ok().and_then(|fence| FencingToken::new(fence).ok()).ok_or_else(|| corrupt(key))?,
        ),
    };
    Ok(Entry {
        value: Bytes::copy_from_slice(value),
        version: Some(Version::from_u128(version.as_u128())),
        fence,
        ttl: None,
    })
}

fn read_ttl(row: &PgRow, at: usize) -> Result<Option<Duration>> {
    let ttl_us: Option<i64> = row.try_get(at).map_err(unexpected)?;
    Ok(ttl_us.and_then(|ttl_us| u64::try_from(ttl_us).ok()).map(Duration::from_micros))
}

fn corrupt(key: &StateKey) -> Error {
    Error::corrupt(key, "the row is neither a value nor a counter: something else has written to this table")
}
