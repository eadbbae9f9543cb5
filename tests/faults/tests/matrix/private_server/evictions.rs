//! Redis out of memory, under each policy: without eviction writes are refused and nothing is lost; with it state and locks may vanish,
//! which the driver's capabilities say, and tokens keep rising all the same.

use std::io;
use std::time::Duration;

use acteon_test_support::{RedisOptions, RedisServer};
use async_trait::async_trait;

use crate::row::{self, Backend, Fault, Harm, open};

const POLICIES: [&str; 8] = [
    "noeviction",
    "volatile-ttl",
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
];

/// Room for the server itself and for a few megabytes of data.
const MEMORY: &str = "8mb";
const FULL: Fault = Fault::new("memory that is full", Harm::Memory);
/// What others write meanwhile: values of this size.
const FILLER_BYTES: usize = 64 * 1024;
const PAUSE: Duration = Duration::from_millis(1);

struct Evicting {
    server: RedisServer,
    policy: &'static str,
}

#[async_trait]
impl Backend for Evicting {
    fn name(&self) -> &'static str {
        self.policy
    }

    fn config(&self) -> String {
        format!("[state]\nbackend = \"redis\"\nurl = \"{}\"\n", self.server.url())
    }

    fn faults(&self) -> Vec<Fault> {
        vec![FULL]
    }

    async fn strike(&mut self, _: &Fault, lasting: Duration) -> io::Result<()> {
        let (value, begin) = ("x".repeat(FILLER_BYTES), std::time::Instant::now());
        let (mut written, mut refused) = (0, 0);
        while begin.elapsed() < lasting {
            // With a time to live, so that policies for such keys have something to choose from besides locks.
            let key = format!("filler:{written}");
            match self.server.query(&["SET", &key, &value, "EX", "60"]) {
                Ok(_) => written += 1,
                Err(_) => refused += 1,
            }
            tokio::time::sleep(PAUSE).await;
        }
        if self.policy == "noeviction" && refused == 0 {
            return Err(io::Error::other(format!("{written} values did not fill the memory")));
        }
        if self.policy != "noeviction" && self.server.info("evicted_keys")?.as_deref() == Some("0") {
            return Err(io::Error::other("nothing was evicted"));
        }
        for number in 0..written {
            self.server.query(&["DEL", &format!("filler:{number}")])?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_redis_keeps_what_it_declares_under_each_policy() {
    for policy in POLICIES {
        let settings = vec![format!("maxmemory {MEMORY}"), format!("maxmemory-policy {policy}")];
        let options = RedisOptions { append_only: true, settings, ..RedisOptions::default() };
        let server = RedisServer::start(options).unwrap_or_else(|error| panic!("{error}"));
        row::run_faults(&mut Evicting { server, policy }, &[FULL]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_vanish_is_declared_and_refused_in_strict_safety() {
    for policy in POLICIES {
        let settings = vec![format!("maxmemory {MEMORY}"), format!("maxmemory-policy {policy}")];
        let options = RedisOptions { append_only: true, settings, ..RedisOptions::default() };
        let server = RedisServer::start(options).unwrap_or_else(|error| panic!("{error}"));
        let config = format!("[state]\nbackend = \"redis\"\nurl = \"{}\"\n", server.url());
        let state = open(&config).await.unwrap();
        assert_eq!(state.store().capabilities().durable, policy == "noeviction", "{policy}");
        let strict = open(&format!("{config}[state.redis]\nsafety = \"strict\"\n")).await;
        assert_eq!(strict.is_ok(), policy == "noeviction", "{policy}: {:?}", strict.err());
    }
}
