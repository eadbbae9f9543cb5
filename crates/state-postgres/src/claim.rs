//! Claiming due items: claims of one queue that wait at the same moment are served by one statement.
//!
//! # Guarantees
//! - A claim that gets less than it asked for has looked at the whole queue. So what was scheduled before it is found, whoever did
//!   that, and the time until the next item is exact. It passes over what others are just working on; an item among those that they leave
//!   counts as due, so the time is zero and a worker asks again.
//! - Each claim gets the earliest items that nobody is just taking. With a backlog, some may be passed over for a while: what another process
//!   has scheduled for a time that has passed already, and what becomes visible again (see [`Ends`]). When the claims of thousands of items have run
//!   out at once, those are handed out by when they were scheduled for.
//!
//! # Failure
//! A claim whose answer is lost delays its items until they are visible again.
//!
//! # How it works
//! Workers of a process that ask at the same moment would pass over each other's items and commit one by one. Here at most
//! [`STATEMENTS_MAX`] statements for one queue are under way; claims that come meanwhile wait and are served together by the next one, in
//! their order, with one look at the queue and one commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use acteon_state_core::due::CLAIM_LIMIT_MAX;
use acteon_state_core::{ClaimDue, ClaimToken, Claimed, DueItem, Error, Result, StateKey};
use async_trait::async_trait;
use bytes::Bytes;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments as _, Row as _};
use tokio::time::Instant;
use uuid::Uuid;

use crate::ends::{Ends, Found, Place};
use crate::error::Sent;
use crate::lane::{BATCH_BYTES_MAX, Family};
use crate::names::Names;
use crate::session::Session;
use crate::store::{Inner, KeyColumns, unexpected};

const CLAIM: &str = "
    SELECT * FROM {t}due_claim($1::text[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::bigint[], $7::uuid[],
        $8::bigint[], $9::text[])";

/// The most statements for one queue that are under way at once: while one waits for its commit, the next one looks for items.
const STATEMENTS_MAX: usize = 2;
/// A claim, checked before.
pub(crate) struct ClaimOp {
    queue: StateKey,
    /// The queue, and in which of the statements under way it travels.
    text: String,
    limit: u32,
    visibility_ms: u64,
    token: ClaimToken,
}

/// Claims items.
pub(crate) struct Claims {
    sql: Arc<str>,
    ends: Arc<Ends>,
}

impl Inner {
    pub(crate) async fn claim_due(&self, queue: &StateKey, claim: ClaimDue) -> Result<Claimed> {
        let visibility_ms = claim.check(self.capabilities())?;
        let text = format!("{}\0{}", queue.text(), self.next_claim.fetch_add(1, Ordering::Relaxed) % STATEMENTS_MAX);
        let (queue, token) = (queue.clone(), ClaimToken::draw());
        self.claims.submit(ClaimOp { queue, text, limit: claim.limit, visibility_ms, token }).await
    }
}

/// The number of the next claim: they take turns with the statements.
pub(crate) type NextClaim = AtomicUsize;

impl Claims {
    pub(crate) fn new(names: &Names, ends: Arc<Ends>) -> Self {
        Self { sql: names.sql(CLAIM), ends }
    }
}

#[async_trait]
impl Family for Claims {
    type Op = ClaimOp;
    type Reply = Claimed;

    const SENT: Sent = Sent::Write;

    fn key(op: &ClaimOp) -> Option<&str> {
        Some(&op.text)
    }

    /// By what it may return: a statement carries as many claims as one claim alone could ask for.
    fn bytes(op: &ClaimOp) -> usize {
        op.limit as usize * (BATCH_BYTES_MAX / CLAIM_LIMIT_MAX as usize)
    }

    async fn run(&self, session: &mut Session, ops: &[&ClaimOp]) -> sqlx::Result<Vec<Result<Claimed>>> {
        let sent_at = Instant::now();
        // Claims of one queue stand side by side, since they are sorted by its text.
        let queues: Vec<&[&ClaimOp]> = ops.chunk_by(|one, other| one.queue == other.queue).collect();
        let begins: Vec<Option<Place>> =
            queues.iter().map(|claims| self.ends.begin(&claims[0].queue, sent_at)).collect();
        let arguments = arguments(&queues, &begins).map_err(sqlx::Error::Encode)?;
        let rows = session.fetch_all(&self.sql, arguments).await?;
        let mut served = Served::new(ops);
        for row in &rows {
            if let Err(error) = served.take(row) {
                return Ok(ops.iter().map(|_| Err(unexpected_again(&error))).collect());
            }
        }
        let mut first = 0;
        for (claims, begin) in queues.into_iter().zip(begins) {
            let found = served.found(first..first + claims.len());
            self.ends.learn(&claims[0].queue, begin.as_ref(), sent_at, found);
            first += claims.len();
        }
        Ok(served.claimed())
    }
}

fn arguments(queues: &[&[&ClaimOp]], begins: &[Option<Place>]) -> Result<PgArguments, BoxDynError> {
    let ops: Vec<&ClaimOp> = queues.concat();
    // The function looks at that of the first claim of a queue.
    let begin = |claims: &&[&ClaimOp], begin: &Option<Place>| vec![begin.clone(); claims.len()];
    let begins: Vec<Option<Place>> =
        queues.iter().zip(begins).flat_map(|(claims, place)| begin(claims, place)).collect();
    let mut arguments = PgArguments::default();
    KeyColumns::new(ops.iter().map(|op| &op.queue)).bind(&mut arguments)?;
    arguments.add(ops.iter().map(|op| op.limit.cast_signed()).collect::<Vec<_>>())?;
    arguments.add(ops.iter().map(|op| op.visibility_ms.cast_signed()).collect::<Vec<_>>())?;
    arguments.add(ops.iter().map(|op| uuid(op.token)).collect::<Vec<_>>())?;
    arguments.add(begins.iter().map(|begin| begin.as_ref().map(|place| place.0)).collect::<Vec<_>>())?;
    arguments.add(begins.iter().map(|begin| begin.as_ref().map(|place| place.1.as_str())).collect::<Vec<_>>())?;
    Ok(arguments)
}

/// What the claims of a statement got.
struct Served<'a> {
    ops: &'a [&'a ClaimOp],
    got: Vec<Got>,
}

/// What one of them got.
#[derive(Default)]
struct Got {
    /// With their numbers, by which they are in order.
    items: Vec<(i64, DueItem)>,
    next_due_in: Option<Duration>,
    look_took: Option<Duration>,
    end: Option<Place>,
    failed: Option<Error>,
}

impl<'a> Served<'a> {
    fn new(ops: &'a [&'a ClaimOp]) -> Self {
        Self { ops, got: ops.iter().map(|_| Got::default()).collect() }
    }

    /// Takes in a row of the function.
    fn take(&mut self, row: &PgRow) -> sqlx::Result<()> {
        let claim: i32 = row.try_get(0)?;
        let at = usize::try_from(claim).ok().and_then(|claim| claim.checked_sub(1));
        let known = at.and_then(|at| Some((*self.ops.get(at)?, self.got.get_mut(at)?)));
        let (op, got) = known.ok_or(sqlx::Error::RowNotFound)?;
        let number: Option<i64> = row.try_get(1)?;
        if let Some(number) = number {
            match read_item(&op.queue, row, op.token)? {
                Ok(item) => got.items.push((number, item)),
                Err(error) => got.failed = Some(error),
            }
            return Ok(());
        }
        let (next_us, look_us): (Option<i64>, Option<i64>) = (row.try_get(6)?, row.try_get(7)?);
        // The server's clock may have been set meanwhile.
        let span = |us: i64| Duration::from_micros(us.max(0).cast_unsigned());
        (got.next_due_in, got.look_took) = (next_us.map(span), look_us.map(span));
        let (end_ms, end_item): (Option<i64>, Option<String>) = (row.try_get(8)?, row.try_get(9)?);
        got.end = end_ms.zip(end_item);
        Ok(())
    }

    /// What all claims of one queue found together.
    fn found(&self, claims: std::ops::Range<usize>) -> Found {
        let got = &self.got[claims];
        let items = got.iter().map(|got| got.items.len() as u64).sum();
        let first = got.first();
        let (end, look_took) = (first.and_then(|got| got.end.clone()), first.and_then(|got| got.look_took));
        Found { items, end, look_took }
    }

    fn claimed(self) -> Vec<Result<Claimed>> {
        self.got.into_iter().map(Got::claimed).collect()
    }
}

impl Got {
    fn claimed(mut self) -> Result<Claimed> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        // They come in order, unless a later version of the server joins in another way.
        self.items.sort_by_key(|(number, _)| *number);
        let items = self.items.into_iter().map(|(_, item)| item).collect();
        Ok(Claimed { items, next_due_in: self.next_due_in })
    }
}

/// The outer error is about the shape of the row, the inner one about what is stored.
fn read_item(queue: &StateKey, row: &PgRow, token: ClaimToken) -> sqlx::Result<Result<DueItem>> {
    let id: String = row.try_get(2)?;
    let (due_at_ms, attempt): (i64, i64) = (row.try_get(3)?, row.try_get(4)?);
    let payload: &[u8] = row.try_get(5)?;
    Ok(match (u64::try_from(due_at_ms), u32::try_from(attempt)) {
        (Ok(due_at_ms), Ok(attempt)) => {
            Ok(DueItem { id, payload: Bytes::copy_from_slice(payload), due_at_ms, attempt, token })
        }
        _ => Err(Error::corrupt(queue, format!("the item {id:?} of the queue has a time or a count below zero"))),
    })
}

/// Each of those who share the statement is told.
fn unexpected_again(error: &sqlx::Error) -> Error {
    unexpected(sqlx::Error::Protocol(error.to_string()))
}

fn uuid(token: ClaimToken) -> Uuid {
    Uuid::from_u128(token.as_u128())
}
