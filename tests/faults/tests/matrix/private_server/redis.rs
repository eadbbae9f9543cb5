//! Redis as one server, with every write in the append-only file before it is acknowledged.

use std::io;
use std::time::Duration;

use acteon_test_support::{RedisOptions, RedisServer};
use async_trait::async_trait;

use crate::network::{self, Way};
use crate::row::{self, Backend, Fault, Harm};

const KILLED: Fault = Fault::new("kill -9 of the server", Harm::Crash);
const FROZEN: Fault = Fault::new("a frozen server", Harm::Delay);
const FLUSHED: Fault = Fault::new("a flushed script cache", Harm::Delay);
const FAULTS: [Fault; 3] = [KILLED, FROZEN, FLUSHED];

/// How often scripts are flushed while the fault lasts.
const FLUSHES: u32 = 10;

struct Redis {
    server: RedisServer,
    way: Way,
}

#[async_trait]
impl Backend for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn config(&self) -> String {
        format!("[state]\nbackend = \"redis\"\nurl = \"redis://127.0.0.1:{}\"\n", self.way.port())
    }

    fn faults(&self) -> Vec<Fault> {
        FAULTS.into_iter().chain(network::FAULTS).collect()
    }

    async fn strike(&mut self, fault: &Fault, lasting: Duration) -> io::Result<()> {
        match *fault {
            KILLED => {
                self.server.kill9()?;
                tokio::time::sleep(lasting).await;
                self.server.restart().map_err(io::Error::other)
            }
            FROZEN => {
                self.server.pause()?;
                tokio::time::sleep(lasting).await;
                self.server.resume()
            }
            FLUSHED => {
                for _ in 0..FLUSHES {
                    self.server.query(&["SCRIPT", "FLUSH"])?;
                    tokio::time::sleep(lasting / FLUSHES).await;
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
async fn redis_keeps_what_it_declares() {
    let options = RedisOptions { append_only: true, ..RedisOptions::default() };
    let server = RedisServer::start(options).unwrap_or_else(|error| panic!("{error}"));
    let way = Way::to(server.address()).await.unwrap();
    row::run(&mut Redis { server, way }).await;
}
