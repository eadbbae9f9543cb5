//! Servers whose wall clock is set forward and back while they run, and clients to whom that happens.
//!
//! Redis and PostgreSQL end leases and times to live by their wall clock. Set forward, it ends them early: a lock may have two who count themselves its
//! holder. Set back, it ends them late. By how much is known, and nothing else may happen: tokens rise, since each is above the one before, and
//! no update on the version that was read is lost. Clients go by monotonic clocks.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use acteon_state_conformance::objects::StepDirection;
use acteon_test_support::{FakeClock, PostgresOptions, PostgresServer, RedisOptions, RedisServer};
use async_trait::async_trait;

use crate::row::{self, Backend, CLIENT_CLOCK, CLOCK_STEP, Fault, Harm, Traits};

const FORWARD: Fault = Fault::new("the server's clock set forward", Harm::ClockForward);
const BACK: Fault = Fault::new("the server's clock set back", Harm::ClockBack);
const FAULTS: [Fault; 3] = [FORWARD, BACK, CLIENT_CLOCK];

/// In how many parts a step is made: after the first one, some leases are over and some are not.
const PARTS: i64 = 4;
/// Servers tell the time in whole milliseconds or better.
const READING_MS: i64 = 2;

struct Stepping {
    server: Server,
    clock: Arc<FakeClock>,
    /// By how much it is ahead of the true time.
    offset_ms: i64,
}

enum Server {
    Redis(RedisServer),
    Postgres(PostgresServer),
}

impl Server {
    fn now_ms(&self) -> io::Result<i64> {
        let unreadable = |what: &dyn std::fmt::Debug| io::Error::other(format!("this is no time: {what:?}"));
        match self {
            Self::Redis(server) => {
                let time = server.query_list(&["TIME"])?;
                let parts: Vec<i64> = time.iter().filter_map(|part| part.parse().ok()).collect();
                let [seconds, micros] = parts[..] else { return Err(unreadable(&time)) };
                Ok(seconds * 1_000 + micros / 1_000)
            }
            Self::Postgres(server) => {
                let rows = server.query("SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint")?;
                let text = rows.first().and_then(|row| row.first()?.as_deref());
                text.and_then(|text| text.parse().ok()).ok_or_else(|| unreadable(&rows))
            }
        }
    }
}

impl Stepping {
    /// A step that the server does not see would prove nothing.
    fn require_offset(&self) -> io::Result<()> {
        let true_ms = || {
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
        };
        let (before_ms, server_ms, after_ms) = (true_ms(), self.server.now_ms()?, true_ms());
        let expected_ms = before_ms + self.offset_ms - READING_MS..=after_ms + self.offset_ms + READING_MS;
        if expected_ms.contains(&server_ms) {
            return Ok(());
        }
        Err(io::Error::other(format!("the server says {server_ms} ms where {expected_ms:?} was expected")))
    }
}

#[async_trait]
impl Backend for Stepping {
    fn name(&self) -> &'static str {
        match self.server {
            Server::Redis(_) => "redis, clocks set",
            Server::Postgres(_) => "postgres, clocks set",
        }
    }

    fn config(&self) -> String {
        match &self.server {
            Server::Redis(server) => format!("[state]\nbackend = \"redis\"\nurl = \"{}\"\n", server.url()),
            Server::Postgres(server) => format!("[state]\nbackend = \"postgres\"\nurl = \"{}\"\n", server.url()),
        }
    }

    fn faults(&self) -> Vec<Fault> {
        FAULTS.to_vec()
    }

    fn traits(&self) -> Traits {
        match self.server {
            Server::Redis(_) => Traits::default(),
            Server::Postgres(_) => Traits::postgres(),
        }
    }

    async fn strike(&mut self, fault: &Fault, lasting: Duration) -> io::Result<()> {
        let sign = match fault.harm.step_direction() {
            Some(StepDirection::Forward) => 1,
            Some(StepDirection::Back) => -1,
            None => panic!("{} is not known here", fault.name),
        };
        let part_ms = i64::try_from(CLOCK_STEP.as_millis()).map_err(io::Error::other)? / PARTS;
        for _ in 0..PARTS {
            self.offset_ms += sign * part_ms;
            self.clock.set(self.offset_ms)?;
            self.require_offset()?;
            tokio::time::sleep(lasting / PARTS as u32).await;
        }
        Ok(())
    }
}

async fn run(start: impl FnOnce(Arc<FakeClock>) -> Server) {
    let clock = Arc::new(FakeClock::new().unwrap_or_else(|error| panic!("{error}")));
    let mut row = Stepping { server: start(clock.clone()), clock, offset_ms: 0 };
    row::run_faults(&mut row, &FAULTS, 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_whose_clock_is_set_keeps_what_it_declares() {
    run(|clock| {
        let options = RedisOptions { append_only: true, clock: Some(clock), ..RedisOptions::default() };
        Server::Redis(RedisServer::start(options).unwrap_or_else(|error| panic!("{error}")))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_whose_clock_is_set_keeps_what_it_declares() {
    run(|clock| {
        let options = PostgresOptions { clock: Some(clock), ..PostgresOptions::default() };
        Server::Postgres(PostgresServer::start(options).unwrap_or_else(|error| panic!("{error}")))
    })
    .await;
}
