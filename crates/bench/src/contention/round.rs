//! One round: so many waiters on so many nodes take turns with one lock for a while.
//!
//! Each asks, waits, holds, releases, and asks again. Waiters are spread over the nodes evenly; with the polling lock, they begin at
//! moments spread evenly over its interval, since a herd that polls in step is slower than the lock deserves.

use std::ops::Range;
use std::pin::pin;
use std::time::{Duration, Instant};

use acteon_state_core::{Condition, LockGuard, LockOptions, Put, ReleaseOutcome, State, StateKey, Ttl};

use super::figures::{Record, Turn};
use crate::Outcome;

/// Longer than a round: no lease ends by itself.
const LEASE: Duration = Duration::from_secs(60);
/// What the polling lock sleeps between two attempts.
pub(super) const POLL: Duration = Duration::from_millis(50);
/// What is counted of a round. Before it, nodes connect for notifications and lines form.
pub(super) const WINDOW: Range<Duration> = Duration::from_millis(500)..Duration::from_millis(3_500);

/// What is contended for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lock {
    /// The lock of the store, waited for.
    Ours,
    /// The textbook's: put if absent with a time to live, and delete. Each waiter makes an attempt every 50 ms, so it also rests that
    /// long after its turn.
    Polling,
    /// The same without that rest: whoever releases makes the next attempt at once.
    Greedy,
}

/// How a round is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) lock: Lock,
    pub(super) waiters: usize,
    /// How long each holder sleeps with the lock.
    pub(super) hold: Duration,
}

/// Runs a round with a lock of this name, which was not used before.
pub(super) async fn run(nodes: &[State], setting: Setting, name: &str) -> Outcome<Record> {
    let key = StateKey::new("bench", "acme", "contention", name)?;
    let began = Instant::now();
    let waiters: Vec<_> = (0..setting.waiters)
        .map(|number| Waiter { number, node: nodes[number % nodes.len()].clone(), key: key.clone(), setting, began })
        .map(|waiter| tokio::spawn(waiter.take_turns()))
        .collect();
    let mut record = Record::default();
    for waiter in waiters {
        let Record { turns, still_waiting } = waiter.await??;
        record.turns.extend(turns);
        record.still_waiting.extend(still_waiting);
    }
    Ok(record)
}

struct Waiter {
    number: usize,
    node: State,
    key: StateKey,
    setting: Setting,
    began: Instant,
}

/// What a holder has in its hands.
enum Held {
    Guard(Box<LockGuard>),
    Entry,
}

impl Waiter {
    async fn take_turns(self) -> Outcome<Record> {
        let mut record = Record::default();
        let mut end = pin!(tokio::time::sleep_until((self.began + WINDOW.end).into()));
        if self.setting.lock != Lock::Ours {
            tokio::time::sleep(POLL.mul_f64(self.number as f64 / self.setting.waiters as f64)).await;
        }
        loop {
            let asked = self.began.elapsed();
            let held = tokio::select! {
                biased;
                held = self.acquire() => held?,
                () = &mut end => {
                    record.still_waiting.push(asked);
                    return Ok(record);
                }
            };
            let granted = self.began.elapsed();
            if !self.setting.hold.is_zero() {
                tokio::time::sleep(self.setting.hold).await;
            }
            let releasing = self.began.elapsed();
            self.release(held).await?;
            let released = self.began.elapsed();
            record.turns.push(Turn { waiter: self.number, asked, granted, releasing, released });
            if released >= WINDOW.end {
                return Ok(record);
            }
            if self.setting.lock == Lock::Polling {
                tokio::time::sleep(POLL).await;
            }
        }
    }

    async fn acquire(&self) -> Outcome<Held> {
        if self.setting.lock == Lock::Ours {
            let options = LockOptions::new(LEASE).wait(LEASE);
            let guard = self.node.lock(&self.key, &options).await?.acquired();
            return Ok(Held::Guard(Box::new(guard.ok_or("nobody got the lock for longer than the round")?)));
        }
        let put = Put::new(self.number.to_string()).ttl(Ttl::After(LEASE)).if_absent();
        while !self.node.put(&self.key, &put).await?.is_applied() {
            tokio::time::sleep(POLL).await;
        }
        Ok(Held::Entry)
    }

    async fn release(&self, held: Held) -> Outcome {
        match held {
            Held::Guard(guard) => match guard.release().await? {
                ReleaseOutcome::Released => Ok(()),
                ReleaseOutcome::AlreadyLost => Err("a lock was lost while it was held".into()),
            },
            Held::Entry => {
                self.node.delete(&self.key, Condition::Always).await?;
                Ok(())
            }
        }
    }
}
