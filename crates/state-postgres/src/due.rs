//! The due index: rows of items, ordered by the time at which they are handed out next.
//!
//! # Guarantees
//! - What was scheduled is on the disk before `schedule` returns, whatever the durability of the kind is: it is work to do.
//! - Any number of workers claim from one queue at once: each takes the earliest items that nobody is just taking, and none
//!   waits for another process. An item is passed over while somebody is taking it, also if that comes to nothing (a worker that was
//!   killed before it was answered): then the next claim has it.
//! - A claim whose answer is lost delays its items until they are visible again; nobody else has them meanwhile.
//!
//! # How it works
//! Scheduling, cancelling, acknowledging and extending concern one item each, and those that wait at the same moment travel
//! together. So do claims, see [`claim`](crate::claim).

use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::due::check_item_id;
use acteon_state_core::entry::{ceil_ms, duration_ms};
use acteon_state_core::{ClaimOutcome, ClaimToken, DueAt, Result, Schedule, Scheduled, StateKey};
use async_trait::async_trait;
use bytes::Bytes;
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, Row as _};
use uuid::Uuid;

use crate::ends::Ends;
use crate::error::Sent;
use crate::lane::Family;
use crate::names::Names;
use crate::session::Session;
use crate::store::{Inner, KeyColumns, unexpected};

const APPLY: &str = "
    SELECT is_done FROM {t}due_apply($1::text[], $2::text[], $3::text[], $4::text[], $5::text[],
        $6::smallint[], $7::bigint[], $8::uuid[], $9::bytea[])";

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
    ends: Arc<Ends>,
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
    pub(crate) fn new(names: &Names, ends: Arc<Ends>) -> Self {
        Self { sql: names.sql(APPLY), ends }
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
        let answered = session.fetch_all(&self.sql, arguments).await;
        // Also where it is not known whether it was done. Before, a claim might pass over what is not committed yet.
        for op in ops {
            if let Action::ScheduleAt(at_ms, _) = &op.action {
                self.ends.draw_back(&op.queue, at_ms.cast_signed(), &op.item);
            }
        }
        let rows = answered?;
        Ok(rows.iter().map(|row| row.try_get(0).map_err(unexpected)).collect())
    }
}
