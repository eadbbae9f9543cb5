//! Removes what has expired, so that short-lived keys do not fill the disk.
//!
//! # Guarantees
//! - Nothing depends on it: to every operation an expired entry is absent. It only gives space back.
//! - One node of a deployment sweeps at a time. When it goes away, another takes over after the lease on the turn has ended.
//! - It never waits for a row, and holds at most [`ROWS_MAX`] for as long as deleting them takes, some milliseconds.
//!
//! # Failure
//! A chunk that fails is tried again after a pause, without end.
//!
//! # How it works
//! There is no index on the time of expiry: each write would have to maintain it, and no update could stay on its page. The sweep
//! walks the pages of each table in chunks of [`PAGES_MAX`] instead. A chunk in which nothing has expired is followed by
//! a pause of `sweep_interval`, so a quiet table of any size costs 4 MiB of reading per interval; the more was removed, the
//! shorter the pause. Where more than about two rows per page have expired the walk does not pause longer than it works, which
//! removes some 100,000 rows per second: this is the density of garbage that a table keeps at most, however many short-lived
//! keys pass through it. Vacuum makes the space usable again; the tables ask for it early.

use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::{Error, Result};
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, Row as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::PostgresConfig;
use crate::lane::Lane;
use crate::names::Names;
use crate::store::{Statement, Writing, unexpected};

/// The tables that are swept. Each has `expires_at_us`.
const TABLES: [&str; 5] = ["entries", "rates", "rate_log", "locks", "tx_locks"];
/// Pages that one chunk looks at: 4 MiB, some milliseconds.
const PAGES_MAX: i64 = 512;
/// Rows that one chunk removes, hence locks at the same time: some milliseconds, which an operation on one of them would wait.
const ROWS_MAX: i32 = 1_000;
/// The lease on the turn, at least: how long nobody sweeps after the node whose turn it was has died.
const LEASE_MIN: Duration = Duration::from_secs(10);
/// The pause after a failure, at least.
const FAILURE_PAUSE_MIN: Duration = Duration::from_secs(1);

const TURN: &str = "SELECT {t}sweep_turn($1::uuid, $2::bigint)";
const SWEEP: &str = "SELECT removed, next_page FROM {t}sweep($1::text::regclass, $2::bigint, $3::bigint, $4::integer)";

/// Sweeps until the store is closed. An interval of zero leaves it to other nodes.
pub(crate) fn run(
    config: &PostgresConfig,
    names: &Names,
    writing: Arc<Lane<Writing>>,
    closed: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let sweeper = Sweeper::new(config.sweep_interval, names, writing);
    async move {
        if let Some(sweeper) = sweeper {
            closed.run_until_cancelled_owned(sweeper.sweep()).await;
        }
    }
}

struct Sweeper {
    node: Uuid,
    interval: Duration,
    writing: Arc<Lane<Writing>>,
    turn_sql: Arc<str>,
    sweep_sql: Arc<str>,
    tables: [Table; TABLES.len()],
    /// Until when it is our turn, by our clock.
    turn_until: Option<Instant>,
    is_failing: bool,
}

/// How far a table is swept. Each goes at its own pace.
struct Table {
    name: String,
    page: i64,
    next_at: Instant,
}

/// What a chunk found.
#[derive(Debug, PartialEq, Eq)]
struct Chunk {
    removed: i32,
    next_page: Option<i64>,
}

impl Sweeper {
    fn new(interval: Duration, names: &Names, writing: Arc<Lane<Writing>>) -> Option<Self> {
        if interval.is_zero() {
            return None;
        }
        // Spread, so that nodes and tables that start together do not go on together.
        let start = || Instant::now() + interval.mul_f64(rand::random::<f64>());
        Some(Self {
            node: Uuid::from_u128(rand::random()),
            interval,
            writing,
            turn_sql: names.sql(TURN),
            sweep_sql: names.sql(SWEEP),
            tables: TABLES.map(|name| Table { name: names.qualified(name), page: 0, next_at: start() }),
            turn_until: None,
            is_failing: false,
        })
    }

    async fn sweep(mut self) {
        loop {
            let at = self.next_table();
            tokio::time::sleep_until(self.tables[at].next_at).await;
            match self.step(at).await {
                Ok(()) => self.is_failing = false,
                Err(error) => {
                    self.report(&error);
                    self.tables[at].next_at = Instant::now() + self.interval.max(FAILURE_PAUSE_MIN);
                }
            }
        }
    }

    fn next_table(&self) -> usize {
        let next = self.tables.iter().enumerate().min_by_key(|(_, table)| table.next_at);
        next.map_or(0, |(at, _)| at)
    }

    /// Sweeps one chunk if it is our turn, otherwise leaves all tables alone for a while.
    async fn step(&mut self, at: usize) -> Result<()> {
        if !self.is_our_turn().await? {
            // Between a quarter and three quarters of the lease, so that of many nodes one comes first.
            let ask_again_at = Instant::now() + self.lease().mul_f64(f64::midpoint(0.5, rand::random::<f64>()));
            self.tables.iter_mut().for_each(|table| table.next_at = ask_again_at);
            return Ok(());
        }
        let began = Instant::now();
        let chunk = self.sweep_chunk(&self.tables[at]).await?;
        let pause = pause_after(chunk.removed, began.elapsed(), self.interval);
        let table = &mut self.tables[at];
        table.page = chunk.next_page.unwrap_or(0);
        table.next_at = Instant::now() + pause;
        Ok(())
    }

    /// Takes or keeps the turn; asks the server only when half of the lease is over.
    async fn is_our_turn(&mut self) -> Result<bool> {
        let lease = self.lease();
        // Before it is sent: our idea of the lease ends before the server's.
        let now = Instant::now();
        if self.turn_until.is_some_and(|until| now + lease / 2 < until) {
            return Ok(true);
        }
        self.turn_until = None;
        let arguments = turn_arguments(self.node, lease).map_err(not_encoded)?;
        let rows = self.writing.submit(Statement { sql: self.turn_sql.clone(), arguments }).await?;
        let is_ours =
            rows.first().ok_or(sqlx::Error::RowNotFound).and_then(|row| row.try_get(0)).map_err(unexpected)?;
        if is_ours {
            self.turn_until = Some(now + lease);
        }
        Ok(is_ours)
    }

    fn lease(&self) -> Duration {
        LEASE_MIN.max(self.interval * 4)
    }

    async fn sweep_chunk(&self, table: &Table) -> Result<Chunk> {
        let arguments = chunk_arguments(table).map_err(not_encoded)?;
        let rows = self.writing.submit(Statement { sql: self.sweep_sql.clone(), arguments }).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound).map_err(unexpected)?;
        Ok(Chunk { removed: row.try_get(0).map_err(unexpected)?, next_page: row.try_get(1).map_err(unexpected)? })
    }

    /// Says it once. While the server is away, all else fails as well and says more.
    fn report(&mut self, error: &Error) {
        if std::mem::replace(&mut self.is_failing, true) || error.kind().is_transient() {
            tracing::debug!(%error, "expired rows could not be removed");
        } else {
            tracing::warn!(%error, "expired rows cannot be removed: the tables grow until this is repaired");
        }
    }
}

/// The more was removed, the sooner the next chunk, but never without a pause as long as the chunk took: operations come first.
fn pause_after(removed: i32, took: Duration, interval: Duration) -> Duration {
    let left_over = 1.0 - f64::from(removed) / f64::from(ROWS_MAX);
    interval.mul_f64(left_over.clamp(0.0, 1.0)).max(took)
}

fn turn_arguments(node: Uuid, lease: Duration) -> Result<PgArguments, BoxDynError> {
    let mut arguments = PgArguments::default();
    arguments.add(node)?;
    arguments.add(i64::try_from(lease.as_micros())?)?;
    Ok(arguments)
}

fn chunk_arguments(table: &Table) -> Result<PgArguments, BoxDynError> {
    let mut arguments = PgArguments::default();
    arguments.add(table.name.as_str())?;
    arguments.add(table.page)?;
    arguments.add(PAGES_MAX)?;
    arguments.add(ROWS_MAX)?;
    Ok(arguments)
}

fn not_encoded(error: BoxDynError) -> Error {
    unexpected(sqlx::Error::Encode(error))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ROWS_MAX, pause_after};

    const INTERVAL: Duration = Duration::from_secs(1);

    #[test]
    fn quiet_table_is_left_alone_for_the_interval() {
        assert_eq!(pause_after(0, Duration::from_millis(3), INTERVAL), INTERVAL);
    }

    #[test]
    fn full_chunk_is_followed_after_as_long_as_it_took() {
        let took = Duration::from_millis(5);
        assert_eq!(pause_after(ROWS_MAX, took, INTERVAL), took);
        assert!(pause_after(ROWS_MAX / 2, took, INTERVAL) < INTERVAL * 6 / 10);
    }
}
