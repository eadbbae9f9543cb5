//! Redis out of memory, under each policy: without eviction writes are refused and nothing is lost; with it state and locks may vanish,
//! which the driver's capabilities say, and tokens keep rising all the same.

use std::io;
use std::time::Duration;

use acteon_test_support::{RedisOptions, RedisServer};
use async_trait::async_trait;

use crate::row::{self, Backend, Fault, Harm, Traits, open};

/// Each with the name of its row.
const POLICIES: [(&str, &str); 8] = [
    ("noeviction", "redis out of memory, noeviction"),
    ("volatile-ttl", "redis out of memory, volatile-ttl"),
    ("volatile-lru", "redis out of memory, volatile-lru"),
    ("volatile-lfu", "redis out of memory, volatile-lfu"),
    ("volatile-random", "redis out of memory, volatile-random"),
    ("allkeys-lru", "redis out of memory, allkeys-lru"),
    ("allkeys-lfu", "redis out of memory, allkeys-lfu"),
    ("allkeys-random", "redis out of memory, allkeys-random"),
];

/// Room for the server itself and for a few megabytes of data.
const MEMORY: &str = "8mb";
const FULL: Fault = Fault::new("memory that is full", Harm::Memory);
/// What others write meanwhile: values of this size.
const FILLER_BYTES: usize = 256 * 1024;
const PAUSE: Duration = Duration::from_millis(1);
/// How long it may take until the memory is full, on a machine that does other things.
const FILL_MAX: Duration = Duration::from_secs(10);

struct Evicting {
    server: RedisServer,
    name: &'static str,
    evicts: bool,
}

impl Evicting {
    /// How many keys the server has evicted so far.
    fn evicted(&self) -> io::Result<u64> {
        let evicted = self.server.info("evicted_keys")?.unwrap_or_default();
        evicted.parse().map_err(|_| io::Error::other(format!("evicted_keys is {evicted:?}")))
    }
}

#[async_trait]
impl Backend for Evicting {
    fn name(&self) -> &'static str {
        self.name
    }

    fn config(&self) -> String {
        format!("[state]\nbackend = \"redis\"\nurl = \"{}\"\n", self.server.url())
    }

    fn faults(&self) -> Vec<Fault> {
        vec![FULL]
    }

    fn traits(&self) -> Traits {
        Traits { has_queues: !self.evicts, ..Traits::default() }
    }

    async fn strike(&mut self, _: &Fault, lasting: Duration) -> io::Result<()> {
        let (value, begin) = ("x".repeat(FILLER_BYTES), std::time::Instant::now());
        let evicted_before = self.evicted()?;
        let (mut written, mut refused, mut is_full) = (0, 0, false);
        while begin.elapsed() < lasting || !is_full && begin.elapsed() < FILL_MAX {
            // With a time to live, so that policies for such keys have something to choose from besides locks.
            let key = format!("filler:{written}");
            match self.server.query(&["SET", &key, &value, "EX", "60"]) {
                Ok(_) => written += 1,
                Err(_) => refused += 1,
            }
            is_full = if self.evicts { self.evicted()? > evicted_before } else { refused > 0 };
            tokio::time::sleep(PAUSE).await;
        }
        if !is_full {
            return Err(io::Error::other(format!("{written} values did not fill the memory")));
        }
        for number in 0..written {
            self.server.query(&["DEL", &format!("filler:{number}")])?;
        }
        Ok(())
    }
}

fn start(policy: &str) -> RedisServer {
    let settings = vec![format!("maxmemory {MEMORY}"), format!("maxmemory-policy {policy}")];
    let options = RedisOptions { append_only: true, settings, ..RedisOptions::default() };
    RedisServer::start(options).unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_redis_keeps_what_it_declares_under_each_policy() {
    for (policy, name) in POLICIES {
        let mut row = Evicting { server: start(policy), name, evicts: policy != "noeviction" };
        row::run_faults(&mut row, &[FULL], 1.0 / POLICIES.len() as f64).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_vanish_is_declared_and_refused_in_strict_safety() {
    for (policy, _) in POLICIES {
        let server = start(policy);
        let config = format!("[state]\nbackend = \"redis\"\nurl = \"{}\"\n", server.url());
        let state = open(&config).await.unwrap();
        assert_eq!(state.store().capabilities().durable, policy == "noeviction", "{policy}");
        let strict = open(&format!("{config}[state.redis]\nsafety = \"strict\"\n")).await;
        assert_eq!(strict.is_ok(), policy == "noeviction", "{policy}: {:?}", strict.err());
    }
}
