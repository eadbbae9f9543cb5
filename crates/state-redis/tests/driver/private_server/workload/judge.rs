//! Compares what calls were told with what the servers have.
//!
//! # What must hold
//! - *Not applied* is never there, and nothing is there twice: no increment, and no count beyond what was acknowledged or unknown.
//! - On a shard that may lose nothing, all that was acknowledged is there, and reads and writes are linearizable throughout.
//! - On a shard that may lose: what was acknowledged before the fault survives up to some moment and not beyond, since
//!   replication is one stream; what began after traffic had resumed is there; and both halves are linearizable by themselves.
//! - An acknowledged item is claimed by one claimer at a time, and no more once it was dealt with, unless that was lost.
//! - Tokens of a lock rise, always. Grants do not overlap, unless one of them may have been lost.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

use acteon_state_conformance::history::Call;
use acteon_state_conformance::linearizability::{Specification, check};
use acteon_state_conformance::objects::{Register, RegisterOperation, RegisterReply};
use acteon_state_core::{BatchOp, BatchReply, Entry, Get, StateKey, StateStore};
use acteon_state_redis::RedisStore;

use super::{Claim, Grant, Log, Member, Options, RegisterLog, Report, Told, VISIBILITY, written};

/// Keys that are looked up in one batch.
const LOOK_UP: usize = 500;
/// Violations that are shown.
const SHOWN_MAX: usize = 10;

/// When what happened.
#[derive(Clone, Copy)]
pub(super) struct Moments {
    pub(super) fault: Option<Instant>,
    pub(super) resumed: Option<Instant>,
}

struct Judge<'a> {
    options: &'a Options,
    moments: Moments,
    violations: Vec<String>,
}

/// Judges a load that has ended.
///
/// # Panics
/// Something is against what was promised.
pub(super) async fn judge(store: &RedisStore, log: Log, options: &Options, moments: Moments) -> Report {
    let mut judge = Judge { options, moments, violations: Vec::new() };
    let lost = judge.members(store, &log.members).await;
    judge.counters(store, &log).await;
    judge.registers(&log);
    judge.items(&log);
    judge.locks(&log.grants);
    let report = report(&log, lost);
    let violations = judge.violations;
    let shown = &violations[..violations.len().min(SHOWN_MAX)];
    assert!(violations.is_empty(), "{} violations, such as\n{}\n{report}", violations.len(), shown.join("\n"));
    report
}

impl Judge<'_> {
    /// Whether a call about this key that began then may be lost although it was acknowledged.
    fn may_be_lost(&self, key: &StateKey, began: Instant) -> bool {
        let shard = (self.options.shard_of)(key);
        self.options.may_lose.contains(&shard) && self.moments.resumed.is_none_or(|resumed| began < resumed)
    }

    fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    /// Looks up all writes under names of their own. Returns how many of those acknowledged are not there.
    async fn members(&mut self, store: &RedisStore, members: &[Member]) -> usize {
        let found = look_up(store, members.iter().map(|member| &member.key)).await;
        let mut lost = Vec::new();
        let mut kept = Vec::new();
        for (member, entry) in members.iter().zip(found) {
            let Member { key, version, told, span } = member;
            let times = match (version, &entry) {
                (_, None) => 0,
                (Some(version), Some(entry)) => i64::from(entry.version == Some(*version)),
                (None, Some(entry)) => count(entry),
            };
            match (told, times) {
                (Told::Acknowledged, 1) => kept.push(member),
                (Told::Acknowledged, 0) if self.may_be_lost(key, span.began) => lost.push(member),
                (Told::Unknown, 0 | 1) | (Told::NotApplied, 0) => {}
                _ => self.violation(format!("{key} was told {told:?} and is there {times} times: {entry:?}, {span:?}")),
            }
        }
        self.lost_is_the_end_of_a_stream(&lost, &kept);
        lost.len()
    }

    /// Before the fault one server executed all of a shard's writes, and its replicas follow in that order.
    fn lost_is_the_end_of_a_stream(&mut self, lost: &[&Member], kept: &[&Member]) {
        let Some(fault) = self.moments.fault else { return };
        let mut first_lost: HashMap<usize, Instant> = HashMap::new();
        for member in lost.iter().filter(|member| member.span.ended <= fault) {
            let first = first_lost.entry((self.options.shard_of)(&member.key)).or_insert(member.span.ended);
            *first = (*first).min(member.span.ended);
        }
        for member in kept.iter().filter(|member| member.span.ended <= fault) {
            let first = first_lost.get(&(self.options.shard_of)(&member.key));
            if first.is_some_and(|first| member.span.began > *first) {
                self.violation(format!("{} was kept although something written before it was lost", member.key));
            }
        }
    }

    async fn counters(&mut self, store: &RedisStore, log: &Log) {
        let found = look_up(store, log.counters.keys()).await;
        for ((key, sums), entry) in log.counters.iter().zip(found) {
            let value = entry.as_ref().map_or(0, count);
            let may_lose = self.options.may_lose.contains(&(self.options.shard_of)(key));
            let least = if may_lose { sums.acknowledged_late } else { sums.acknowledged };
            let most = sums.acknowledged + sums.unknown;
            if !(least..=most).contains(&value) {
                self.violation(format!("{key} is {value}, not within {least} and {most}"));
            }
        }
    }

    fn registers(&mut self, log: &Log) {
        let refused: HashSet<u32> = log.values_refused.iter().copied().collect();
        for register in log.registers.values() {
            for (call, _) in &register.calls {
                if let Some(RegisterReply::Found(Some(value)) | RegisterReply::Refused(Some(value))) = call.reply
                    && refused.contains(&value)
                {
                    self.violation(format!("{} was {value}, whose write was not applied", register.key));
                }
            }
            if let Some(history) = self.history(register)
                && let Err(failure) = check(&Uncertain(Register), &history)
            {
                self.violation(format!("{}: {failure}", register.key));
            }
        }
    }

    /// The part of a register's history that must be explained; `None` where writes may have been lost in between.
    fn history(&self, register: &RegisterLog) -> Option<Vec<Call<RegisterOperation, Option<RegisterReply>>>> {
        let may_lose = self.may_be_lost(&register.key, register.since);
        let fault = self.moments.fault.filter(|_| may_lose);
        if fault.is_some_and(|fault| register.since > fault) {
            return None;
        }
        let known = |(call, ended): &(Call<_, _>, Instant)| {
            let Call { operation, reply, began, ended: place } = call.clone();
            if fault.is_none_or(|fault| *ended <= fault) {
                return Some(Call { operation, reply, began, ended: place });
            }
            // Answered by whoever: a write may have come to either server, and a read says nothing of the first one.
            let is_write = written(operation).is_some() || operation == RegisterOperation::Take;
            is_write.then_some(Call { operation, reply: None, began, ended: u64::MAX })
        };
        let mut calls: Vec<_> = register.calls.iter().filter_map(known).collect();
        calls.sort_by_key(|call| call.began);
        Some(calls)
    }

    fn items(&mut self, log: &Log) {
        let mut claims: HashMap<&str, Vec<&Claim>> = HashMap::new();
        log.claims.iter().for_each(|claim| claims.entry(&claim.id).or_default().push(claim));
        for (id, scheduling) in &log.schedules {
            let is_claimed = claims.contains_key(id.as_str());
            match scheduling.told {
                Told::NotApplied if is_claimed => {
                    self.violation(format!("{id} was claimed, and scheduling it was told not to be applied"));
                }
                Told::Acknowledged
                    if !is_claimed && !self.may_be_lost(&scheduling.queue, scheduling.span.began) =>
                {
                    self.violation(format!("{id} was scheduled and never claimed"));
                }
                _ => {}
            }
        }
        for (id, claims) in &mut claims {
            if !log.schedules.contains_key(*id) {
                self.violation(format!("{id} was claimed and never scheduled"));
            }
            claims.sort_by_key(|claim| claim.span.ended);
            for pair in claims.windows(2) {
                let (first, second) = (pair[0].span, pair[1].span);
                let is_exclusive = second.ended < first.began + VISIBILITY;
                if is_exclusive && !self.may_be_lost(&pair[0].queue, first.began) {
                    self.violation(format!("{id} was claimed twice within {:?}", second.ended - first.began));
                }
            }
        }
        for ack in &log.acks {
            let again = claims.get(ack.id.as_str()).into_iter().flatten().find(|claim| claim.span.began > ack.span.ended);
            if let Some(claim) = again
                && !self.may_be_lost(&claim.queue, ack.span.began)
            {
                self.violation(format!("{} was claimed again after it was dealt with", ack.id));
            }
        }
    }

    fn locks(&mut self, grants: &[Grant]) {
        let mut by_name: HashMap<&StateKey, Vec<&Grant>> = HashMap::new();
        grants.iter().for_each(|grant| by_name.entry(&grant.key).or_default().push(grant));
        for (name, mut grants) in by_name {
            grants.sort_by_key(|grant| grant.span.ended);
            for (at, grant) in grants.iter().enumerate() {
                if grant.was_lost && !self.may_be_lost(name, grant.span.began) {
                    self.violation(format!("{name}: the grant with token {} was lost before its end", grant.token));
                }
                for later in &grants[at + 1..] {
                    self.two_grants(name, grant, later);
                }
            }
        }
    }

    fn two_grants(&mut self, name: &StateKey, grant: &Grant, later: &Grant) {
        let is_after = later.span.began > grant.span.ended;
        if later.token == grant.token || (is_after && later.token < grant.token) {
            self.violation(format!("{name}: token {} came after token {}", later.token, grant.token));
        }
        let may_overlap = !self.options.strict_locks && self.may_be_lost(name, grant.span.began);
        if later.span.ended < grant.until && !may_overlap {
            let by = grant.until - later.span.ended;
            self.violation(format!("{name}: the grants {} and {} overlap by {by:?}", grant.token, later.token));
        }
    }
}

/// An object some of whose replies are not known: the call then took effect as it would, at some time or after all others,
/// which is the same as never.
struct Uncertain(Register);

impl Specification for Uncertain {
    type Operation = RegisterOperation;
    type Reply = Option<RegisterReply>;
    type State = Option<u32>;

    fn start(&self) -> Option<u32> {
        self.0.start()
    }

    fn step(
        &self,
        state: &Option<u32>,
        operation: &RegisterOperation,
        reply: &Option<RegisterReply>,
    ) -> Option<Option<u32>> {
        if let Some(reply) = reply {
            return self.0.step(state, operation, reply);
        }
        Some(match *operation {
            RegisterOperation::Set(value) => Some(value),
            RegisterOperation::SetAbsent(value) => state.or(Some(value)),
            RegisterOperation::Swap(old, value) if *state == Some(old) => Some(value),
            RegisterOperation::Take | RegisterOperation::Delete => None,
            RegisterOperation::Get | RegisterOperation::Swap(..) => *state,
        })
    }
}

async fn look_up(store: &RedisStore, keys: impl Iterator<Item = &StateKey>) -> Vec<Option<Entry>> {
    let ops: Vec<_> = keys.map(|key| BatchOp::Get(key.clone(), Get::default())).collect();
    let mut found = Vec::with_capacity(ops.len());
    for ops in ops.chunks(LOOK_UP) {
        for reply in store.batch(ops).await.unwrap() {
            match reply.unwrap() {
                BatchReply::Got(entry) => found.push(entry),
                other => panic!("{other:?}"),
            }
        }
    }
    found
}

fn count(entry: &Entry) -> i64 {
    std::str::from_utf8(&entry.value).unwrap().parse().unwrap()
}

fn report(log: &Log, lost: usize) -> Report {
    let mut report =
        Report { told: log.told.clone(), errors: log.errors.clone(), lost, grants: log.grants.len(), ..Report::default() };
    for ((kind, _), progress) in &log.progress {
        let window = report.windows.entry(*kind).or_insert(Duration::ZERO);
        *window = (*window).max(progress.gap_max);
    }
    report
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seconds without a success:")?;
        for (kind, window) in &self.windows {
            write!(f, " {kind:?} {:.2}", window.as_secs_f64())?;
        }
        write!(f, "; calls {:?}, errors {:?}, {} acknowledged writes lost, {} grants", self.told, self.errors, self.lost, self.grants)
    }
}
