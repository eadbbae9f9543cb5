//! The due index: rows of items, ordered by the time at which they are handed out next.
//!
//! # Guarantees
//! - What was scheduled is on the disk before `schedule` returns, whatever the durability of the kind is: it is work to do.
//! - Any number of workers claim from one queue at once: each takes the earliest items that nobody is just taking, and none
//!   waits for another. An item is passed over while somebody is taking it, also if that comes to nothing (a worker that was killed
//!   before it was answered): then the next claim has it.
//! - A claim whose answer is lost delays its items until they are visible again; nobody else has them meanwhile.
//!
//! # How it works
//! Scheduling, cancelling, acknowledging and extending concern one item each, and those that wait at the same moment travel
//! together. A claim is a statement of its own: it takes many items already.

use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::due::check_item_id;
use acteon_state_core::entry::{ceil_ms, duration_ms};
use acteon_state_core::{
    ClaimDue, ClaimOutcome, ClaimToken, Claimed, DueAt, DueItem, Error, Result, Schedule, Scheduled, StateKey,
};
use async_trait::async_trait;
use bytes::Bytes;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments as _, Row as _};
use uuid::Uuid;

use crate::error::Sent;
use crate::lane::Family;
use crate::names::Names;
use crate::session::Session;
use crate::store::{Inner, KeyColumns, unexpected};

const APPLY: &str = "
    SELECT is_done FROM {t}due_apply($1::text[], $2::text[], $3::text[], $4::text[], $5::text[],
        $6::smallint[], $7::bigint[], $8::uuid[], $9::bytea[])";

pub(crate) const CLAIM: &str = "
    SELECT * FROM {t}due_claim($1::text, $2::text, $3::text, $4::text, $5::integer, $6::bigint, $7::uuid)";

/// Roughly what an operation takes in a statement beside its key and its payload.
const OP_BYTES: usize = 64;

/// What is done to one item.
enum Action {
    ScheduleAt(u64, Bytes),
    ScheduleAfter(u64, Bytes),
    Cancel,
    Ack(ClaimToken),
    Extend(ClaimToken, u64),
}

/// An operation on one item, checked before.
pub(crate) struct DueOp {
    queue: StateKey,
    item: String,
    /// Queue and item.
    text: String,
    action: Action,
}

/// Changes items.
pub(crate) struct Dues {
    sql: Arc<str>,
}

impl Inner {
    pub(crate) async fn schedule(&self, queue: &StateKey, schedule: &Schedule) -> Result<Scheduled> {
        schedule.check(self.capabilities())?;
        let payload = schedule.payload.clone();
        let action = match schedule.due_at {
            DueAt::UnixMs(at_ms) => Action::ScheduleAt(at_ms, payload),
            DueAt::After(delay) => Action::ScheduleAfter(ceil_ms(delay), payload),
        };
        let is_new = self.dues.submit(DueOp::new(queue, &schedule.id, action)).await?;
        Ok(if is_new { Scheduled::Created } else { Scheduled::Replaced })
    }

    pub(crate) async fn cancel(&self, queue: &StateKey, id: &str) -> Result<bool> {
        check_item_id(id)?;
        self.dues.submit(DueOp::new(queue, id, Action::Cancel)).await
    }

    pub(crate) async fn claim_due(&self, queue: &StateKey, claim: ClaimDue) -> Result<Claimed> {
        let visibility_ms = claim.check(self.capabilities())?;
        let token = ClaimToken::draw();
        let arguments = claim_arguments(queue, claim.limit, visibility_ms, token)
            .map_err(|error| Error::invalid(format!("the claim cannot be sent: {error}")))?;
        let mut rows = self.write(&self.claim_sql, arguments).await?;
        let last = rows.pop().ok_or_else(|| unexpected(sqlx::Error::RowNotFound))?;
        let next_us: Option<i64> = last.try_get(4).map_err(unexpected)?;
        let items = rows.iter().map(|row| read_item(queue, row, token)).collect::<Result<_>>()?;
        Ok(Claimed { items, next_due_in: next_us.map(|us| Duration::from_micros(us.max(0).cast_unsigned())) })
    }

    pub(crate) async fn ack(&self, queue: &StateKey, id: &str, token: ClaimToken) -> Result<ClaimOutcome> {
        check_item_id(id)?;
        self.dues.submit(DueOp::new(queue, id, Action::Ack(token))).await.map(claim_outcome)
    }

    pub(crate) async fn extend_claim(
        &self,
        queue: &StateKey,
        id: &str,
        token: ClaimToken,
        visibility: Duration,
    ) -> Result<ClaimOutcome> {
        check_item_id(id)?;
        let visibility_ms = duration_ms("visibility", visibility)?;
        self.dues.submit(DueOp::new(queue, id, Action::Extend(token, visibility_ms))).await.map(claim_outcome)
    }
}

const fn claim_outcome(is_done: bool) -> ClaimOutcome {
    if is_done { ClaimOutcome::Done } else { ClaimOutcome::Lost }
}

fn claim_arguments(
    queue: &StateKey,
    limit: u32,
    visibility_ms: u64,
    token: ClaimToken,
) -> Result<PgArguments, BoxDynError> {
    let mut arguments = PgArguments::default();
    queue.parts().into_iter().try_for_each(|part| arguments.add(part))?;
    arguments.add(limit.cast_signed())?;
    arguments.add(visibility_ms.cast_signed())?;
    arguments.add(uuid(token))?;
    Ok(arguments)
}

fn read_item(queue: &StateKey, row: &PgRow, token: ClaimToken) -> Result<DueItem> {
    let id: String = row.try_get(0).map_err(unexpected)?;
    let due_at_ms: i64 = row.try_get(1).map_err(unexpected)?;
    let attempt: i64 = row.try_get(2).map_err(unexpected)?;
    let payload: Vec<u8> = row.try_get(3).map_err(unexpected)?;
    match (u64::try_from(due_at_ms), u32::try_from(attempt)) {
        (Ok(due_at_ms), Ok(attempt)) => Ok(DueItem { id, payload: Bytes::from(payload), due_at_ms, attempt, token }),
        _ => Err(Error::corrupt(queue, format!("the item {id:?} of the queue has a time or a count below zero"))),
    }
}

fn uuid(token: ClaimToken) -> Uuid {
    Uuid::from_u128(token.as_u128())
}

impl DueOp {
    fn new(queue: &StateKey, item: &str, action: Action) -> Self {
        // Neither has a NUL, so this is as unique as the two are.
        let text = format!("{}\0{item}", queue.text());
        Self { queue: queue.clone(), item: item.to_owned(), text, action }
    }

    /// The operation as the columns of the function: its number, time, claim and payload.
    fn columns(&self) -> (i16, Option<i64>, Option<Uuid>, Option<&[u8]>) {
        match &self.action {
            Action::ScheduleAt(at_ms, payload) => (1, Some(at_ms.cast_signed()), None, Some(payload)),
            Action::ScheduleAfter(after_ms, payload) => (2, Some(after_ms.cast_signed()), None, Some(payload)),
            Action::Cancel => (3, None, None, None),
            Action::Ack(token) => (4, None, Some(uuid(*token)), None),
            Action::Extend(token, after_ms) => (5, Some(after_ms.cast_signed()), Some(uuid(*token)), None),
        }
    }
}

impl Dues {
    pub(crate) fn new(names: &Names) -> Self {
        Self { sql: names.sql(APPLY) }
    }
}

fn apply_arguments(ops: &[&DueOp]) -> Result<PgArguments, BoxDynError> {
    let mut arguments = PgArguments::default();
    KeyColumns::new(ops.iter().map(|op| &op.queue)).bind(&mut arguments)?;
    arguments.add(ops.iter().map(|op| op.item.as_str()).collect::<Vec<_>>())?;
    let columns: Vec<_> = ops.iter().map(|op| op.columns()).collect();
    arguments.add(columns.iter().map(|op| op.0).collect::<Vec<_>>())?;
    arguments.add(columns.iter().map(|op| op.1).collect::<Vec<_>>())?;
    arguments.add(columns.iter().map(|op| op.2).collect::<Vec<_>>())?;
    arguments.add(columns.iter().map(|op| op.3).collect::<Vec<_>>())?;
    Ok(arguments)
}

#[async_trait]
impl Family for Dues {
    type Op = DueOp;
    /// Whether it was done, in the sense of the function.
    type Reply = bool;

    const SENT: Sent = Sent::Write;

    fn key(op: &DueOp) -> Option<&str> {
        Some(&op.text)
    }

    fn bytes(op: &DueOp) -> usize {
        let payload = match &op.action {
            Action::ScheduleAt(_, payload) | Action::ScheduleAfter(_, payload) => payload.len(),
            Action::Cancel | Action::Ack(_) | Action::Extend(..) => 0,
        };
        OP_BYTES + op.text.len() + payload
    }

    async fn run(&self, session: &mut Session, ops: &[&DueOp]) -> sqlx::Result<Vec<Result<bool>>> {
        let arguments = apply_arguments(ops).map_err(sqlx::Error::Encode)?;
        let rows = session.fetch_all(&self.sql, arguments).await?;
        Ok(rows.iter().map(|row| row.try_get(0).map_err(unexpected)).collect())
    }
}
