//! PostgreSQL as one server.

use std::io;
use std::time::Duration;

use acteon_test_support::{PostgresOptions, PostgresServer};
use async_trait::async_trait;

use crate::network::{self, Way};
use crate::row::{self, Backend, Fault, Harm, Traits};

const KILLED: Fault = Fault::new("kill -9 of the server", Harm::Crash);
const STOPPED: Fault = Fault::new("a restarted server", Harm::Crash);
const FROZEN: Fault = Fault::new("a frozen server", Harm::Delay);
const TERMINATED: Fault = Fault::new("terminated sessions", Harm::Delay);
const FAULTS: [Fault; 4] = [KILLED, STOPPED, FROZEN, TERMINATED];

/// How often sessions are terminated while the fault lasts.
const TERMINATIONS: u32 = 4;
const TERMINATE: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";

struct Postgres {
    server: PostgresServer,
    way: Way,
}

#[async_trait]
impl Backend for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn config(&self) -> String {
        let url = self.server.url().replace(&format!(":{}/", self.server.port()), &format!(":{}/", self.way.port()));
        format!("[state]\nbackend = \"postgres\"\nurl = \"{url}\"\n")
    }

    fn faults(&self) -> Vec<Fault> {
        FAULTS.into_iter().chain(network::FAULTS).collect()
    }

    fn traits(&self) -> Traits {
        Traits::postgres()
    }

    async fn strike(&mut self, fault: &Fault, lasting: Duration) -> io::Result<()> {
        match *fault {
            KILLED => {
                self.server.kill9()?;
                tokio::time::sleep(lasting).await;
                self.server.restart().map_err(io::Error::other)
            }
            STOPPED => {
                self.server.stop_fast()?;
                self.server.restart().map_err(io::Error::other)
            }
            FROZEN => {
                self.server.pause()?;
                tokio::time::sleep(lasting).await;
                self.server.resume()
            }
            TERMINATED => {
                for _ in 0..TERMINATIONS {
                    self.server.query(TERMINATE)?;
                    tokio::time::sleep(lasting / TERMINATIONS).await;
                }
                Ok(())
            }
            _ => {
                assert!(self.way.strike(fault, lasting).await, "{} is not known here", fault.name);
                Ok(())
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_keeps_what_it_declares() {
    let options = PostgresOptions { durable: true, ..PostgresOptions::default() };
    let server = PostgresServer::start(options).unwrap_or_else(|error| panic!("{error}"));
    let way = Way::to(server.address()).await.unwrap();
    row::run(&mut Postgres { server, way }).await;
}
