//! The contract, on the PostgreSQL driver over a real server: the one that `ACTEON_TEST_POSTGRES_URL` names, otherwise one of its own.

use std::process::ExitCode;
use std::sync::Arc;

use acteon_state_conformance::Factory;
use acteon_state_core::{Error, ErrorKind, Result, StateStore};
use acteon_state_postgres::{PostgresConfig, PostgresStore};
use acteon_test_support::{PostgresOptions, PostgresServer, postgres_url_from_env};
use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, raw_sql};

#[derive(Debug)]
struct Postgres {
    url: String,
}

impl Postgres {
    /// Cases run side by side, so each store makes do with few connections.
    fn config(&self, prefix: &str) -> Result<PostgresConfig> {
        let prefix = table_prefix(prefix);
        Ok(PostgresConfig { prefix, connections: 2, ..PostgresConfig::from_url(&self.url)? })
    }
}

#[async_trait]
impl Factory for Postgres {
    async fn open(&self, prefix: &str) -> Result<Arc<dyn StateStore>> {
        Ok(Arc::new(PostgresStore::connect(self.config(prefix)?).await?))
    }

    async fn clean(&self, prefix: &str) -> Result<()> {
        let failed = |error| Error::new(ErrorKind::Unavailable, "cleaning up").with_source(error);
        drop_tables(&self.url, &table_prefix(prefix)).await.map_err(failed)
    }
}

/// Prefixes of the suite may contain what a table's name cannot.
fn table_prefix(prefix: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    format!("{}_", prefix.chars().map(plain).collect::<String>())
}

/// Removes all that the migrations made.
async fn drop_tables(url: &str, prefix: &str) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    let drop_all = format!(
        "DO $$ DECLARE r record; BEGIN
           FOR r IN SELECT p.oid::regprocedure AS name FROM pg_proc p
                     WHERE p.pronamespace = 'public'::regnamespace AND starts_with(p.proname, '{prefix}') LOOP
             EXECUTE 'DROP FUNCTION IF EXISTS ' || r.name || ' CASCADE';
           END LOOP;
           FOR r IN SELECT c.oid::regclass AS name FROM pg_class c
                     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND starts_with(c.relname, '{prefix}') LOOP
             EXECUTE 'DROP TABLE IF EXISTS ' || r.name || ' CASCADE';
           END LOOP;
           FOR r IN SELECT c.relname AS name FROM pg_class c
                     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'c' AND starts_with(c.relname, '{prefix}') LOOP
             EXECUTE format('DROP TYPE IF EXISTS public.%I CASCADE', r.name);
           END LOOP;
         END $$"
    );
    raw_sql(AssertSqlSafe(drop_all)).execute(&mut connection).await?;
    connection.close().await
}

fn main() -> ExitCode {
    if let Some(url) = postgres_url_from_env() {
        return acteon_state_conformance::main(Postgres { url });
    }
    match PostgresServer::start(PostgresOptions::default()) {
        Ok(server) => acteon_state_conformance::main(Postgres { url: server.url() }),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
