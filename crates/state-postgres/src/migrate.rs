//! The schema: embedded migrations, applied one after the other.
//!
//! # Guarantees
//! - All of them or none: they run in one transaction, so a failure leaves the schema as it was.
//! - Any number of nodes may start at once: one migrates, the others wait for it and find nothing left to do.
//! - A schema that is newer than this program is refused, since its functions may mean something that this program does not
//!   know; nodes that run already go on, because released functions never change.
//!
//! # How it works
//! The table `{prefix}schema` holds one row for each applied migration. (The client library's own migrator takes a lock of
//! the session, which a pooler breaks, and keeps one table per database, which two prefixes would share.)

use std::time::Duration;

use acteon_state_core::{Error, ErrorKind, Result};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::config::MigrateMode;
use crate::error::{BACKEND, Sent, classify};
use crate::names::Names;

/// The migrations in their order; the version of a schema is how many of them it has.
const MIGRATIONS: [(&str, &str); 5] = [
    ("entries", include_str!("../migrations/0001_entries.sql")),
    ("rates", include_str!("../migrations/0002_rates.sql")),
    ("locks", include_str!("../migrations/0003_locks.sql")),
    ("due", include_str!("../migrations/0004_due.sql")),
    ("sweep", include_str!("../migrations/0005_sweep.sql")),
];

/// The version that this program needs.
const VERSION: i32 = MIGRATIONS.len() as i32;

const CREATE_SCHEMA_TABLE: &str = "
    CREATE TABLE IF NOT EXISTS {t}schema (
        version    integer PRIMARY KEY,
        name       text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )";

/// What a migration did, or would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The version before; 0 when there was no schema.
    pub from: i32,
    /// The version after.
    pub to: i32,
}

/// Waiting for another node, or changing a large table, may take longer than any statement of ours otherwise does. Under
/// another isolation level, who has waited would not see what was done meanwhile. Tables are made of PostgreSQL's own types and
/// operators, whatever the role's search path leads to.
const SETTINGS: &str = "
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0;
    SET LOCAL search_path = pg_catalog, pg_temp";

/// How long asking for the schema's version may take. All workers wait for that: on a connection that is dead it would be for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Sees to the schema once per store.
pub(crate) struct Schema {
    names: Names,
    mode: MigrateMode,
    is_ready: OnceCell<()>,
}

impl Schema {
    pub(crate) fn new(names: Names, mode: MigrateMode) -> Self {
        Self { names, mode, is_ready: OnceCell::new() }
    }

    /// Migrates or checks, unless it was done before.
    ///
    /// # Errors
    /// `Config` for a schema that does not fit, `Denied` for missing rights.
    pub(crate) async fn prepare(&self, connection: &mut PgConnection) -> Result<()> {
        let prepare = async || match self.mode {
            MigrateMode::Auto => migrate(connection, &self.names).await.map(|_| ()),
            MigrateMode::Check => check(connection, &self.names).await,
            MigrateMode::Ignore => Ok(()),
        };
        self.is_ready.get_or_try_init(prepare).await?;
        Ok(())
    }
}

/// Brings the schema up to date.
///
/// # Errors
/// `Config` when the schema is newer than this program; `Denied` when the role may not create what is missing.
pub(crate) async fn migrate(connection: &mut PgConnection, names: &Names) -> Result<Migrated> {
    // Without a lock and without rights to create anything: what a start finds nearly always.
    let found = installed(connection, names).await?;
    if found == VERSION {
        return Ok(Migrated { from: found, to: found });
    }
    refuse_newer(names, found)?;
    apply_missing(connection, names).await
}

/// What [`migrate`] would do. Changes nothing.
///
/// # Errors
/// `Config` when the schema is newer than this program.
pub(crate) async fn pending(connection: &mut PgConnection, names: &Names) -> Result<Migrated> {
    let found = installed(connection, names).await?;
    refuse_newer(names, found)?;
    Ok(Migrated { from: found, to: VERSION })
}

/// # Errors
/// `Config` unless the schema has exactly the version that this program needs.
async fn check(connection: &mut PgConnection, names: &Names) -> Result<()> {
    let Migrated { from, to } = pending(connection, names).await?;
    if from < to {
        return Err(Error::config(format!(
            "migrate: it says \"check\", and the tables {} have schema version {from} where this program needs version {to}; \
             run `acteon-server migrate` with a role that may create tables, or set migrate = \"auto\"",
            names.qualified("*")
        ))
        .on_backend(BACKEND));
    }
    Ok(())
}

fn refuse_newer(names: &Names, found: i32) -> Result<()> {
    if found <= VERSION {
        return Ok(());
    }
    Err(Error::config(format!(
        "the tables {} have schema version {found}, and this program knows versions up to {VERSION}: run a newer program, \
         or set another prefix",
        names.qualified("*")
    ))
    .on_backend(BACKEND))
}

/// The version of the schema; 0 when there is none.
///
/// An error leaves the connection in an unknown state.
async fn installed(connection: &mut PgConnection, names: &Names) -> Result<i32> {
    match timeout(ANSWER_TIMEOUT, ask_installed(connection, names)).await {
        Ok(found) => found,
        Err(_) => {
            let message = format!("no answer to what version the schema has within {ANSWER_TIMEOUT:?}");
            Err(Error::new(ErrorKind::Unavailable, message).on_backend(BACKEND))
        }
    }
}

async fn ask_installed(connection: &mut PgConnection, names: &Names) -> Result<i32> {
    let failed = |error| classify(error, Sent::Read);
    // By the catalog first: reading a table that is not there would end a transaction around us. The catalog is read as a
    // table: to_regclass answers from a cache, which a transaction that waited for somebody else's migration has not renewed.
    // Without parameters, which a pooler could send to another server than the statement. Names need no escaping.
    let exists = format!(
        "SET LOCAL search_path = pg_catalog, pg_temp;
         SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = '{}' AND c.relname = '{}schema')",
        names.schema(),
        names.prefix()
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(exists)).fetch_all(&mut *connection).await.map_err(failed)?;
    let exists = rows.first().map_or(Ok(false), |row| row.try_get(0)).map_err(failed)?;
    if !exists {
        return Ok(0);
    }
    let newest =
        names.sql("SET LOCAL search_path = pg_catalog, pg_temp; SELECT coalesce(max(version), 0) FROM {t}schema");
    let rows = sqlx::raw_sql(AssertSqlSafe(newest)).fetch_all(connection).await.map_err(failed)?;
    rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(failed)
}

async fn apply_missing(connection: &mut PgConnection, names: &Names) -> Result<Migrated> {
    let failed = |error| explain(classify(error, Sent::Write), names);
    let mut transaction = connection.begin().await.map_err(failed)?;
    sqlx::raw_sql(SETTINGS).execute(&mut *transaction).await.map_err(failed)?;
    // Held to the end of the transaction: whoever comes second finds the work done. One lock for all prefixes of a schema,
    // which is made at the first of them.
    let lock = format!("SELECT pg_advisory_xact_lock(hashtextextended('acteon schema {}', 0))", names.schema());
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *transaction).await.map_err(failed)?;
    let from = installed(&mut transaction, names).await?;
    refuse_newer(names, from)?;
    for sql in statements_since(from, names) {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)?;
    if from < VERSION {
        tracing::info!(tables = names.qualified("*"), from, to = VERSION, "the schema was brought up to date");
    }
    Ok(Migrated { from, to: VERSION })
}

fn statements_since(from: i32, names: &Names) -> Vec<String> {
    if from >= VERSION {
        return Vec::new();
    }
    let mut statements = Vec::new();
    if from == 0 {
        // `public` is there unless somebody has removed it, and then it is ours to make as well.
        statements.push(format!(
            "DO $$ BEGIN
               IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = '{0}') THEN CREATE SCHEMA \"{0}\"; END IF;
             END $$",
            names.schema()
        ));
        statements.push(names.sql(CREATE_SCHEMA_TABLE).to_string());
    }
    for (version, (name, sql)) in (1..).zip(MIGRATIONS).skip_while(|(version, _)| *version <= from) {
        statements.push(names.sql(sql).to_string());
        let record = format!("INSERT INTO {{t}}schema (version, name) VALUES ({version}, '{name}')");
        statements.push(names.sql(&record).to_string());
    }
    statements
}

/// Says what was being done, and how to do without the right to do it.
fn explain(error: Error, names: &Names) -> Error {
    let advice = match error.kind() {
        ErrorKind::Denied => "; or run `acteon-server migrate` once with a role that may create tables",
        _ => "",
    };
    let message =
        format!("the tables {} could not be brought up to date: {}{advice}", names.qualified("*"), error.message());
    Error::new(error.kind(), message).with_effect(error.effect()).on_backend(BACKEND).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::{MIGRATIONS, VERSION, statements_since};
    use crate::names::Names;

    #[test]
    fn only_missing_migrations_are_applied() {
        let names = Names::new("public", "acteon_").unwrap();
        assert_eq!(statements_since(0, &names).len(), 2 + 2 * MIGRATIONS.len());
        assert_eq!(statements_since(VERSION - 1, &names).len(), 2);
        assert!(statements_since(VERSION, &names).is_empty());
        assert!(statements_since(0, &names).iter().all(|sql| !sql.contains("{t}")));
    }
}
