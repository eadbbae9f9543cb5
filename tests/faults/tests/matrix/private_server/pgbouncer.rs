//! PostgreSQL behind a pooler of transactions that dies and comes back.

use std::io;
use std::time::Duration;

use acteon_test_support::{PgBouncer, PoolMode, PostgresOptions, PostgresServer};
use async_trait::async_trait;

use crate::row::{self, Backend, Fault, Harm, Traits};

const POOLER_KILLED: Fault = Fault::new("kill -9 of the pooler", Harm::Delay);
const SERVER_KILLED: Fault = Fault::new("kill -9 of the server behind the pooler", Harm::Crash);

struct Pooled {
    // Above the server, so that it ends before it.
    pooler: PgBouncer,
    server: PostgresServer,
}

#[async_trait]
impl Backend for Pooled {
    fn name(&self) -> &'static str {
        "postgres behind PgBouncer"
    }

    fn config(&self) -> String {
        format!("[state]\nbackend = \"postgres\"\nurl = \"{}\"\n", self.pooler.url())
    }

    fn faults(&self) -> Vec<Fault> {
        vec![POOLER_KILLED, SERVER_KILLED]
    }

    fn traits(&self) -> Traits {
        Traits::postgres()
    }

    async fn strike(&mut self, fault: &Fault, lasting: Duration) -> io::Result<()> {
        if *fault == POOLER_KILLED {
            self.pooler.stop()?;
            tokio::time::sleep(lasting).await;
            return self.pooler.restart().map_err(io::Error::other);
        }
        self.server.kill9()?;
        tokio::time::sleep(lasting).await;
        self.server.restart().map_err(io::Error::other)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_behind_pgbouncer_keeps_what_it_declares() {
    let options = PostgresOptions { durable: true, ..PostgresOptions::default() };
    let server = PostgresServer::start(options).unwrap_or_else(|error| panic!("{error}"));
    let pooler = PgBouncer::start(&server, PoolMode::Transaction).unwrap_or_else(|error| panic!("{error}"));
    row::run(&mut Pooled { pooler, server }).await;
}
