//! Redis behind Sentinels: a primary and two replicas. Without strict safety a failover may lose what the new primary had not received;
//! with it, no grant of a lock is lost.

use std::io;
use std::time::{Duration, Instant};

use acteon_state::{LockAttempt, LockOptions, StateKey};
use acteon_test_support::{RedisSentinels, SentinelOptions};
use async_trait::async_trait;

use crate::row::{self, Backend, Fault, Harm, Traits, open};

const KILLED: Fault = Fault::new("kill -9 of the primary", Harm::Failover);
const FROZEN: Fault = Fault::new("a primary frozen until another took over", Harm::Failover);
const ASKED: Fault = Fault::new("a failover that was asked for", Harm::Failover);

/// The longest lease in strict safety. For so long, and for the lag on top, a new primary grants nothing.
pub(super) const LEASE_MAX: Duration = Duration::from_secs(1);
pub(super) const LAG_MAX: Duration = Duration::from_secs(1);
/// How long the first grant of all may take then.
const FIRST_GRANT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

struct Sentinels {
    group: RedisSentinels,
    is_strict: bool,
}

impl Sentinels {
    fn start(is_strict: bool) -> Self {
        let settings = if is_strict {
            vec!["min-replicas-to-write 1".to_owned(), format!("min-replicas-max-lag {}", LAG_MAX.as_secs())]
        } else {
            Vec::new()
        };
        let options = SentinelOptions { append_only: true, settings, ..SentinelOptions::default() };
        let group = RedisSentinels::start(options).unwrap_or_else(|error| panic!("{error}"));
        Self { group, is_strict }
    }
}

/// Returns once so many locks have been granted, one after the other. A primary that its replicas do not follow yet refuses.
pub(super) async fn wait_for_grant(config: &str, locks: u32) -> io::Result<()> {
    let begin = Instant::now();
    loop {
        match grant(config, locks).await {
            Err(_) if begin.elapsed() < FIRST_GRANT => tokio::time::sleep(POLL).await,
            outcome => return outcome.map_err(io::Error::other),
        }
    }
}

async fn grant(config: &str, locks: u32) -> Result<(), String> {
    let state = open(config).await?;
    for number in 0..locks {
        let lock =
            StateKey::new("faults", "matrix", "probe", &format!("lock-{number}")).map_err(|error| error.to_string())?;
        let granted = state.lock(&lock, &LockOptions::new(LEASE_MAX).wait(FIRST_GRANT)).await;
        match granted.map_err(|error| error.to_string())? {
            LockAttempt::Acquired(guard) => _ = guard.release().await.map_err(|error| error.to_string())?,
            LockAttempt::Busy(_) => return Err("nothing is granted any more".to_owned()),
        }
    }
    Ok(())
}

#[async_trait]
impl Backend for Sentinels {
    fn name(&self) -> &'static str {
        if self.is_strict { "redis behind Sentinels, strict" } else { "redis behind Sentinels" }
    }

    fn config(&self) -> String {
        let config = format!("[state]\nbackend = \"redis\"\nurl = \"{}\"\n", self.group.url());
        if !self.is_strict {
            return config;
        }
        format!("{config}[state.redis]\nsafety = \"strict\"\nlock_lease_max = \"{}s\"\n", LEASE_MAX.as_secs())
    }

    fn faults(&self) -> Vec<Fault> {
        vec![KILLED, FROZEN, ASKED]
    }

    fn traits(&self) -> Traits {
        Traits { refuses_free_locks: self.is_strict, ..Traits::default() }
    }

    /// In strict safety, until grants are given again.
    async fn prepare(&mut self) -> io::Result<()> {
        self.group.wait_until_settled()?;
        if !self.is_strict {
            return Ok(());
        }
        wait_for_grant(&self.config(), 1).await
    }

    async fn strike(&mut self, fault: &Fault, _: Duration) -> io::Result<()> {
        let old = self.group.primary().ok_or_else(|| io::Error::other("there is no primary"))?;
        match *fault {
            KILLED => {
                self.group.nodes[old].kill9()?;
                let new = self.group.wait_for_primary_other_than(old)?;
                self.group.nodes[old].restart().map_err(io::Error::other)?;
                if old > 0 {
                    // Its file is written anew and names the first primary of all. In a file that stays, it would find what Sentinels wrote.
                    let port = self.group.nodes[new].port().to_string();
                    self.group.nodes[old].query(&["REPLICAOF", "127.0.0.1", &port])?;
                }
            }
            FROZEN => {
                self.group.nodes[old].pause()?;
                self.group.wait_for_primary_other_than(old)?;
                self.group.nodes[old].resume()?;
            }
            _ => _ = self.group.fail_over(old)?,
        }
        self.group.wait_until_settled()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_behind_sentinels_keeps_what_it_declares() {
    row::run(&mut Sentinels::start(false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_behind_sentinels_in_strict_safety_keeps_what_it_declares() {
    row::run(&mut Sentinels::start(true)).await;
}
