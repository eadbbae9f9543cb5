//! Updates of a register under a lock: what a lock is for, and how much of it is true under faults.
//!
//! # How it works
//! A task takes the lock, reads a number, waits, and writes the next one. Every number is written once at most, unless an update is
//! lost: two that were both acknowledged wrote the same one. The write is of one of three kinds:
//! - *compared*: on the condition that the version is the one that was read. No update may be lost wherever acknowledged writes are not.
//! - *fenced*: under the token of the lock. Writes of those who were overtaken are refused; one that is late and falls between the next holder's read
//!   and write is overwritten all the same, which is counted.
//! - *plain*: without any condition. What that costs is counted.
//!
//! Tasks are as careful as the documentation asks for: they write only while the guard says that the lock is held.
//!
//! # What is noted besides
//! - From when until when each holder saw its guard say that the lock is held. Two such times that overlap are two holders of an exclusive lock.
//! - Whether `lost()` fires before the guard's own deadline. It is polled every few milliseconds by the task that waits for it, so whoever is told too
//!   late without having stood still was told too late by the guard.
//! - Whether a lock that was released is still held by who released it, as it would be by a renewal that outlived the release.
//! - Whether somebody who went away while waiting holds the lock nevertheless, and for longer than a release takes.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use acteon_state_core::clock::BootInstant;
use acteon_state_core::{
    Effect, LockAttempt, LockGuard, LockOptions, Put, PutOutcome, ReleaseOutcome, Scope, State, StateKey, Version,
};
use serde::{Deserialize, Serialize};

use crate::log::{Log, now_ns};
use crate::random::Random;

/// How a register is written under its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Writing {
    /// On the version that was read.
    Compared,
    /// Under the token of the lock.
    Fenced,
    /// Without a condition.
    Plain,
}

impl Writing {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Compared, Self::Fenced, Self::Plain];

    /// The name of its lock and of its register.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Compared => "compared",
            Self::Fenced => "fenced",
            Self::Plain => "plain",
        }
    }
}

/// What happened to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// It got the lock.
    Granted {
        /// Of this kind of register.
        writing: Writing,
        /// The token.
        token: u64,
        /// When it asked, by the clock of the log.
        asked_at: u64,
        /// When it was answered.
        at: u64,
    },
    /// Its write was acknowledged.
    Wrote {
        /// To this kind of register.
        writing: Writing,
        /// The number.
        number: u64,
    },
    /// Nobody knows whether its write happened.
    MayHaveWritten {
        /// To this kind of register.
        writing: Writing,
        /// The number.
        number: u64,
    },
    /// Its write was refused by its condition: an update that would have been lost, or a late one.
    Refused(Writing),
    /// `lost()` fired before the guard's own deadline, by this much.
    LostInTime {
        /// How much.
        ahead_us: u64,
    },
    /// It fired after it.
    LostLate {
        /// Whether the process was stopped or starved meanwhile: then nothing could have fired.
        was_stalled: bool,
    },
    /// Its guard said that the lock is held, from one moment to another and probably for longer.
    Held {
        /// Of this kind of register.
        writing: Writing,
        /// When it was first seen.
        from: u64,
        /// When it was last seen.
        until: u64,
    },
    /// The lock was released by its holder, who was told that it was held until then.
    Released,
    /// A released lock was seen to be held by the owner who had released it.
    HeldAfterRelease,
    /// A lock was held for long by somebody who had gone away while waiting for it.
    HeldByNobody {
        /// When it went away.
        since: u64,
        /// When that was seen last.
        at: u64,
    },
}

/// The tasks of one process that update registers.
#[derive(Clone, Debug)]
pub struct Updaters {
    /// Where all choices come from.
    pub seed: u64,
    /// Tasks for each kind of writing.
    pub tasks: u32,
    /// Where locks and registers lie.
    pub scope: Scope,
    /// The lease. Every other hold is renewed; some of the others are as long as the lease.
    pub lease: Duration,
    /// After which a call is given up.
    pub patience: Duration,
    /// Once this is set, tasks end.
    pub stop: Arc<AtomicBool>,
}

/// The longest work under a lock that is not meant to outlast its lease.
const WORK_MAX_MS: u64 = 20;
/// The share of a lease before its end at which `lost()` fires, as the guard documents it.
const MARGIN_SHARE: u32 = 10;
/// By how much a timer may be late in any case: it counts whole milliseconds.
const TIMER: Duration = Duration::from_millis(3);
/// For how many leases a lock is held that is renewed: through a fault and beyond.
const HOLD_LEASES_MAX: u32 = 3;
/// How often a lock is looked at that somebody waited for who has gone.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Updaters {
    /// Runs them until they are stopped.
    pub async fn run(&self, state: &State, log: &Log) {
        let (mut seeds, mut tasks) = (Random::new(self.seed), tokio::task::JoinSet::new());
        for writing in Writing::ALL {
            for _ in 0..self.tasks {
                let updater = Updater {
                    terms: self.clone(),
                    writing,
                    state: state.clone(),
                    log: log.clone(),
                    random: seeds.fork(),
                };
                tasks.spawn(updater.work());
            }
        }
        while tasks.join_next().await.is_some() {}
    }
}

struct Updater {
    terms: Updaters,
    writing: Writing,
    state: State,
    log: Log,
    random: Random,
}

/// From when until when a guard said that the lock is held.
struct Seen {
    from: u64,
    until: u64,
}

impl Seen {
    /// Looks. The moment is taken before: the guard that says so afterwards would have said so then.
    fn look(&mut self, guard: &LockGuard) -> bool {
        let at = now_ns();
        let is_held = guard.is_held();
        if is_held {
            self.until = at;
        }
        is_held
    }
}

impl Updater {
    async fn work(mut self) {
        while !self.terms.stop.load(Ordering::Relaxed) {
            if self.random.percent(10) {
                self.give_up_waiting().await;
            }
            if !self.update().await {
                // Nobody answers, or somebody else holds it: asked again soon, and not at once.
                tokio::time::sleep(Duration::from_millis(self.random.below(WORK_MAX_MS))).await;
            }
        }
    }

    /// Drops a wait, which must leave nothing behind, and looks now and then whether it does.
    async fn give_up_waiting(&mut self) {
        let (Ok(lock), wait) = (self.terms.scope.key(&format!("{}-lock", self.writing.name())), self.random.below(5))
        else {
            return;
        };
        let mark = format!("went away, {}", self.random.number());
        let options = LockOptions::new(self.terms.lease).wait(self.terms.patience).meta(mark.clone());
        let attempt = tokio::time::timeout(Duration::from_millis(wait), self.state.lock(&lock, &options)).await;
        if attempt.is_err() && self.random.percent(20) {
            self.look_for(&lock, &mark).await;
        }
    }

    /// A wait that was dropped may have been granted a moment before, and is then released in the background: that takes as long as a call. One that is
    /// still waiting somewhere is granted the lock later, and holds it for a lease.
    async fn look_for(&self, lock: &StateKey, mark: &str) {
        let (since, mut first_seen) = (now_ns(), None);
        while Duration::from_nanos(now_ns() - since) < self.terms.patience && !self.terms.stop.load(Ordering::Relaxed) {
            let looked = tokio::time::timeout(self.terms.patience, self.state.inspect_lock(lock)).await;
            let Ok(Ok(seen)) = looked else {
                return;
            };
            let at = now_ns();
            if seen.is_some_and(|seen| seen.holders.iter().any(|holder| holder.meta == mark)) {
                let first = *first_seen.get_or_insert(at);
                if Duration::from_nanos(at - first) > self.terms.lease / 2 {
                    self.log.event(Event::HeldByNobody { since, at });
                    return;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// One update under the lock, or an attempt at one.
    async fn update(&mut self) -> bool {
        let Ok(lock) = self.terms.scope.key(&format!("{}-lock", self.writing.name())) else {
            return false;
        };
        let is_renewed = self.random.percent(50);
        let mut options = LockOptions::new(self.terms.lease).wait(self.terms.lease * 2);
        options.renew = is_renewed;
        let asked_at = now_ns();
        let attempt = tokio::time::timeout(self.terms.patience, self.state.lock(&lock, &options)).await;
        let Ok(Ok(LockAttempt::Acquired(guard))) = attempt else {
            return false;
        };
        let (token, writing, at) = (guard.token().get(), self.writing, now_ns());
        self.log.event(Event::Granted { writing, token, asked_at, at });
        let mut seen = Seen { from: at, until: at };
        let was_held = seen.look(&guard);
        if self.random.percent(10) {
            self.outstay(&guard, &mut seen).await;
        }
        self.write_under(&guard, &mut seen).await;
        seen.look(&guard);
        if was_held {
            self.log.event(Event::Held { writing, from: seen.from, until: seen.until });
        }
        self.release(guard, is_renewed).await;
        true
    }

    /// Holds the lock until one is told that it is about to be lost, or for some leases if it is renewed, and notes whether one was told in time.
    async fn outstay(&self, guard: &LockGuard, seen: &mut Seen) {
        let (margin, begin) = (self.terms.lease / MARGIN_SHARE, now_ns());
        let since = |moment_ns| Duration::from_nanos(now_ns() - moment_ns);
        let (mut lost, mut polls) = (pin!(guard.lost()), [begin; 2]);
        let (now, valid_for) = (BootInstant::now(), guard.valid_for());
        // A grant whose answer took that long cannot be told of in time any more.
        if valid_for < margin {
            return;
        }
        let mut deadline = now + valid_for;
        while since(begin) < self.terms.lease * HOLD_LEASES_MAX {
            if tokio::time::timeout(margin / 4, &mut lost).await.is_ok() {
                self.log.event(told(deadline.remaining(), since(polls[0]), margin));
                return;
            }
            polls = [polls[1], now_ns()];
            let (now, valid_for) = (BootInstant::now(), guard.valid_for());
            if seen.look(guard) && !valid_for.is_zero() {
                deadline = now + valid_for;
            }
        }
    }

    /// Reads, works, and writes the next number while the guard says that the lock is held.
    async fn write_under(&mut self, guard: &LockGuard, seen: &mut Seen) {
        let Ok(register) = self.terms.scope.key(self.writing.name()) else {
            return;
        };
        let patience = self.terms.patience;
        let Ok(Ok(found)) = tokio::time::timeout(patience, self.state.get(&register)).await else {
            return;
        };
        let text = found.as_ref().map(|entry| String::from_utf8_lossy(&entry.value).into_owned());
        let Ok(number) = text.map_or(Ok(0), |text| text.parse::<u64>()) else {
            self.log.broken(&format!("{} does not hold a number", register.text()));
            return;
        };
        tokio::time::sleep(Duration::from_millis(self.random.below(WORK_MAX_MS))).await;
        if !seen.look(guard) {
            return;
        }
        let number = number + 1;
        let put = self.put(number, found.and_then(|entry| entry.version), guard);
        let writing = self.writing;
        match tokio::time::timeout(patience, self.state.put(&register, &put)).await {
            Ok(Ok(PutOutcome::Applied(_))) => self.log.event(Event::Wrote { writing, number }),
            Ok(Ok(PutOutcome::NotMet(_))) => self.log.event(Event::Refused(writing)),
            Ok(Err(error)) if error.effect() == Effect::NotApplied => {}
            Ok(Err(_)) | Err(_) => self.log.event(Event::MayHaveWritten { writing, number }),
        }
    }

    fn put(&self, number: u64, read: Option<Version>, guard: &LockGuard) -> Put {
        let put = Put::new(number.to_string());
        match (self.writing, read) {
            (Writing::Compared, Some(version)) => put.if_version(version),
            (Writing::Compared, None) => put.if_absent(),
            (Writing::Fenced, _) => put.fenced_by(guard.token()),
            (Writing::Plain, _) => put,
        }
    }

    /// Releases, and looks now and then whether a renewal has outlived that.
    async fn release(&mut self, guard: LockGuard, is_renewed: bool) {
        let (lock, owner, patience) = (guard.key().clone(), guard.owner(), self.terms.patience);
        let released = tokio::time::timeout(patience, guard.release()).await;
        if !matches!(released, Ok(Ok(ReleaseOutcome::Released))) {
            return;
        }
        self.log.event(Event::Released);
        if is_renewed && self.random.percent(20) {
            // A renewal that was still under way would have arrived by now.
            tokio::time::sleep(self.terms.lease / 3).await;
            if let Ok(Ok(Some(seen))) = tokio::time::timeout(patience, self.state.inspect_lock(&lock)).await
                && seen.holders.iter().any(|holder| holder.owner == owner)
            {
                self.log.event(Event::HeldAfterRelease);
            }
        }
    }
}

/// What to note when `lost()` fired so long before the deadline, and so long after the last poll but one began. It was to fire by `margin`
/// before the deadline: a task that was polled twice in between cannot have missed that. One poll may: a process that was starved comes to it before
/// the runtime has looked at its timers again.
fn told(ahead: Duration, gap: Duration, margin: Duration) -> Event {
    if ahead.is_zero() {
        Event::LostLate { was_stalled: gap + TIMER >= margin }
    } else {
        Event::LostInTime { ahead_us: u64::try_from(ahead.as_micros()).unwrap_or(u64::MAX) }
    }
}

/// What came of all updates of one kind of writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Updates {
    /// Grants of the lock.
    pub grants: u64,
    /// Updates that were acknowledged.
    pub acknowledged: u64,
    /// Updates of which nobody learnt.
    pub unknown: u64,
    /// Updates that were refused by their condition.
    pub refused: u64,
    /// Updates that were acknowledged and overwritten by somebody who had not seen them.
    pub lost: u64,
    /// Pairs of grants, one asked for after the other was answered, whose tokens do not rise.
    pub tokens_fallen: u64,
    /// Holders who saw themselves hold the lock while another one saw the same.
    pub overlaps: u64,
}

/// Counts what happened to one kind of register.
#[must_use]
pub fn updates(events: &[Event], of: Writing) -> Updates {
    let mut updates = Updates::default();
    let mut numbers = BTreeSet::new();
    let (mut grants, mut held) = (Vec::new(), Vec::new());
    for event in events {
        match *event {
            Event::Granted { writing, token, asked_at, at } if writing == of => grants.push((asked_at, at, token)),
            Event::Wrote { writing, number } if writing == of => {
                updates.acknowledged += 1;
                updates.lost += u64::from(!numbers.insert(number));
            }
            Event::MayHaveWritten { writing, .. } if writing == of => updates.unknown += 1,
            Event::Refused(writing) if writing == of => updates.refused += 1,
            Event::Held { writing, from, until } if writing == of => held.push((from, until)),
            _ => {}
        }
    }
    updates.grants = grants.len() as u64;
    updates.tokens_fallen = tokens_fallen(grants);
    updates.overlaps = overlaps(held);
    updates
}

/// Those that began while an earlier one went on.
fn overlaps(mut held: Vec<(u64, u64)>) -> u64 {
    held.sort_unstable();
    let (mut overlaps, mut latest) = (0, 0);
    for (from, until) in held {
        overlaps += u64::from(from < latest);
        latest = latest.max(until);
    }
    overlaps
}

/// Grants whose token is not above all that were answered before they were asked for.
fn tokens_fallen(mut grants: Vec<(u64, u64, u64)>) -> u64 {
    let mut ends: Vec<(u64, u64)> = grants.iter().map(|(_, at, token)| (*at, *token)).collect();
    grants.sort_unstable();
    ends.sort_unstable();
    let (mut fallen, mut highest, mut ended) = (0, 0, ends.into_iter().peekable());
    for (asked_at, _, token) in grants {
        while let Some((_, earlier)) = ended.next_if(|(at, _)| *at < asked_at) {
            highest = highest.max(earlier);
        }
        fallen += u64::from(token <= highest);
    }
    fallen
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Event, Writing, told, updates};

    #[test]
    fn two_acknowledged_writes_of_one_number_are_a_lost_update() {
        let wrote = |number| Event::Wrote { writing: Writing::Plain, number };
        let events = [wrote(1), wrote(2), wrote(2), Event::Wrote { writing: Writing::Fenced, number: 1 }];
        let plain = updates(&events, Writing::Plain);
        assert_eq!((plain.acknowledged, plain.lost), (3, 1));
        assert_eq!(updates(&events, Writing::Fenced).lost, 0);
    }

    #[test]
    fn a_token_falls_only_if_the_higher_one_was_answered_before() {
        let grant = |asked_at, at, token| Event::Granted { writing: Writing::Plain, token, asked_at, at };
        assert_eq!(updates(&[grant(1, 5, 9), grant(2, 6, 8)], Writing::Plain).tokens_fallen, 0);
        assert_eq!(updates(&[grant(1, 5, 9), grant(6, 7, 9)], Writing::Plain).tokens_fallen, 1);
    }

    #[test]
    fn holders_overlap_if_one_begins_before_another_ends() {
        let held = |from, until| Event::Held { writing: Writing::Fenced, from, until };
        let overlaps = |events: &[Event]| updates(events, Writing::Fenced).overlaps;
        assert_eq!(overlaps(&[held(5, 9), held(1, 5), held(9, 9)]), 0);
        assert_eq!(overlaps(&[held(1, 9), held(2, 3), held(8, 12), held(12, 13)]), 2);
    }

    #[test]
    fn who_is_told_late_without_having_stood_still_was_told_late_by_the_guard() {
        let ms = Duration::from_millis;
        assert_eq!(told(ms(1), ms(90), ms(40)), Event::LostInTime { ahead_us: 1_000 });
        assert_eq!(told(ms(0), ms(40), ms(40)), Event::LostLate { was_stalled: true });
        assert_eq!(told(ms(0), ms(20), ms(40)), Event::LostLate { was_stalled: false });
    }
}
