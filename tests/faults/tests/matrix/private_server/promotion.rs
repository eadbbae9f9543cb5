//! PostgreSQL with a standby that is promoted: asynchronous, so that the last commits may be lost, and synchronous, so that none is.

use std::io;
use std::time::Duration;

use acteon_test_support::{PostgresOptions, PostgresServer};
use async_trait::async_trait;

use crate::row::{self, Backend, Fault, Harm, Traits};

const PROMOTED: Fault = Fault::new("promotion after a kill -9 of the primary", Harm::Failover);

struct Promotion {
    is_synchronous: bool,
    /// The primary and its standby; none once the primary was killed.
    pair: Option<(PostgresServer, PostgresServer)>,
}

fn options() -> PostgresOptions {
    PostgresOptions { durable: true, ..PostgresOptions::default() }
}

#[async_trait]
impl Backend for Promotion {
    fn name(&self) -> &'static str {
        if self.is_synchronous { "postgres, synchronous standby" } else { "postgres, asynchronous standby" }
    }

    fn config(&self) -> String {
        let (primary, standby) = self.pair.as_ref().expect("prepared");
        let hosts = format!(":{},127.0.0.1:{}/", primary.port(), standby.port());
        let url = primary.url().replace(&format!(":{}/", primary.port()), &hosts);
        format!("[state]\nbackend = \"postgres\"\nurl = \"{url}\"\n")
    }

    fn faults(&self) -> Vec<Fault> {
        vec![PROMOTED]
    }

    fn traits(&self) -> Traits {
        Traits { failover_keeps_writes: self.is_synchronous, ..Traits::postgres() }
    }

    async fn prepare(&mut self) -> io::Result<()> {
        let primary = PostgresServer::start(options()).map_err(io::Error::other)?;
        let standby = primary.standby(options()).map_err(io::Error::other)?;
        if self.is_synchronous {
            primary.set_synchronous_standby(standby.standby_name())?;
        }
        self.pair = Some((primary, standby));
        Ok(())
    }

    async fn strike(&mut self, _: &Fault, lasting: Duration) -> io::Result<()> {
        let (primary, standby) = self.pair.as_mut().expect("prepared");
        primary.kill9()?;
        tokio::time::sleep(lasting).await;
        standby.promote()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_with_an_asynchronous_standby_keeps_what_it_declares() {
    row::run(&mut Promotion { is_synchronous: false, pair: None }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_with_a_synchronous_standby_keeps_what_it_declares() {
    row::run(&mut Promotion { is_synchronous: true, pair: None }).await;
}
