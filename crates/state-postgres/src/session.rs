//! One connection, and how a statement travels on it.
//!
//! # Guarantees
//! What [`Session::fetch_all`] returned was committed: the answer is read to its very end. (The shorter ways of the client
//! library return at the first row, and a commit may still fail after it.)
//!
//! # Poolers
//! A pooler that hands out its connections per transaction can send the two halves of a prepared statement to two servers.
//! Behind one, each statement therefore travels inside an explicit transaction and is prepared without a name: four round
//! trips instead of one. Batches share them.

use std::sync::Arc;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::error::ends_connection;

/// What every transaction of ours runs with, whatever the defaults of the role are.
///
/// Plans are made once and kept, often while a table is still empty, when reading all of it looks cheaper than an index.
/// All of our statements are look-ups by index or bounded ranges, so the planner is left no other choice. Nor does it plan
/// again for each call, which it would for a batch of one: it knows the length of an array that it is given, and takes the
/// smaller figure for a better plan.
///
/// The operators and functions in our statements, and in our functions when these call them, are PostgreSQL's own: nobody else
/// can put theirs in front of them by way of a search path. Our own tables and functions are qualified.
macro_rules! common_settings {
    ($scope:literal) => {
        concat!(
            "SET ",
            $scope,
            " enable_seqscan = off; SET ",
            $scope,
            " enable_bitmapscan = off; SET ",
            $scope,
            " enable_hashjoin = off; SET ",
            $scope,
            " enable_mergejoin = off; SET ",
            $scope,
            " jit = off; SET ",
            $scope,
            " plan_cache_mode = force_generic_plan; SET ",
            $scope,
            " search_path = pg_catalog, pg_temp"
        )
    };
}

/// Sent once on a connection of our own.
///
/// READ WRITE is not among them: who makes a server read-only by `default_transaction_read_only`, to switch over, must be
/// obeyed by the sessions that are open.
pub(crate) const SESSION_SETTINGS: &str = concat!(
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED; SET SESSION lock_timeout = 0; ",
    common_settings!("SESSION")
);

/// Begins a transaction behind a pooler.
const BEGIN: &str =
    concat!("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = 0; ", common_settings!("LOCAL"));

/// A connection to a server that can be written to.
pub(crate) struct Session {
    pub(crate) connection: PgConnection,
    /// A pooler in between may change the server from one transaction to the next.
    pub(crate) pooled: bool,
}

impl Session {
    /// Runs one statement and reads its answer to the end.
    ///
    /// Dropping the future leaves the connection in an unknown state: it must be closed then.
    pub(crate) async fn fetch_all(&mut self, sql: &Arc<str>, arguments: PgArguments) -> sqlx::Result<Vec<PgRow>> {
        let query = sqlx::query_with(AssertSqlSafe(sql.clone()), arguments);
        if !self.pooled {
            return query.fetch_all(&mut self.connection).await;
        }
        sqlx::raw_sql(BEGIN).execute(&mut self.connection).await?;
        match query.persistent(false).fetch_all(&mut self.connection).await {
            Ok(rows) => {
                sqlx::raw_sql("COMMIT").execute(&mut self.connection).await?;
                Ok(rows)
            }
            Err(error) => {
                // Whatever it was: a connection that lives must not stay inside of the transaction.
                if !ends_connection(&error) {
                    sqlx::raw_sql("ROLLBACK").execute(&mut self.connection).await?;
                }
                Err(error)
            }
        }
    }
}
