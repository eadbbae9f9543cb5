//! Compares what calls were told with what the servers have.
//!
//! # What must hold
//! - *Not applied* is never there, and nothing is there twice: no increment, and no count beyond what was acknowledged or unknown.
//! - On a shard that may lose nothing, all that was acknowledged is there, and reads and writes are linearizable throughout.
//! - On a shard that may lose: what was acknowledged before the fault survives up to some moment and not beyond, since
//!   replication is one stream; what began after traffic had resumed is there; and both halves are linearizable by themselves.
//! - An acknowledged item is claimed by one claimer at a time, and no more once it was dealt with, unless that was lost.
//! - Tokens of a lock rise, always. Grants do not overlap, unless one of them may have been lost.

mod tests;

use std::collections::HashMap;
use std::time::Instant;

use acteon_state_conformance::linearizability::check;
use acteon_state_conformance::objects::{Register, RegisterOperation, RegisterReply};
use acteon_state_core::{BatchOp, BatchReply, Entry, Get, StateKey, StateStore};
use acteon_state_redis::RedisStore;

use super::Options;
use super::history::{Ack, Claim, Grant, History, Member, RegisterCall, RegisterHistory, Scheduling, Told, written};
use super::tasks::VISIBILITY;

/// Keys that are looked up in one batch.
const LOOK_UP: usize = 500;

/// What the servers have in the end.
#[derive(Default)]
pub(super) struct Contents {
    entries: HashMap<StateKey, Entry>,
}

/// What came out.
#[derive(Debug)]
pub(super) struct Verdict {
    /// Acknowledged writes that are not there, and may be lost.
    pub(super) lost: usize,
    /// What is against the promises.
    pub(super) violations: Vec<String>,
}

struct Judge<'a> {
    options: &'a Options,
    history: &'a History,
    contents: &'a Contents,
    violations: Vec<String>,
}

/// Judges a load that has ended.
pub(super) fn judge(history: &History, contents: &Contents, options: &Options) -> Verdict {
    let mut judge = Judge { options, history, contents, violations: Vec::new() };
    let lost = judge.members();
    judge.counters();
    judge.registers();
    judge.items();
    judge.locks();
    Verdict { lost, violations: judge.violations }
}

impl Contents {
    /// Looks up all that is to be judged by what is there.
    pub(super) async fn read(store: &RedisStore, history: &History) -> Self {
        let keys: Vec<&StateKey> =
            history.members.iter().map(|member| &member.key).chain(history.counters.keys()).collect();
        let mut entries = HashMap::new();
        for keys in keys.chunks(LOOK_UP) {
            let ops: Vec<_> = keys.iter().map(|key| BatchOp::Get((*key).clone(), Get::default())).collect();
            for (key, reply) in keys.iter().zip(store.batch(&ops).await.unwrap()) {
                match reply.unwrap() {
                    BatchReply::Got(entry) => entries.extend(entry.map(|entry| ((*key).clone(), entry))),
                    other => panic!("{key}: {other:?}"),
                }
            }
        }
        Self { entries }
    }

    /// How often a write was carried out; `None` if there is something else.
    fn times(&self, member: &Member) -> Option<i64> {
        match (self.entries.get(&member.key), member.version) {
            (None, _) => Some(0),
            (Some(entry), Some(version)) => (entry.version == Some(version)).then_some(1),
            (Some(entry), None) => Some(count(entry)),
        }
    }
}

impl Judge<'_> {
    /// Whether a call about this key that began then may be lost although it was acknowledged.
    fn may_be_lost(&self, key: &StateKey, began: Instant) -> bool {
        let shard = (self.options.shard_of)(key);
        self.options.may_lose.contains(&shard) && self.history.resumed.is_none_or(|resumed| began < resumed)
    }

    fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    /// Judges all writes under names of their own. Returns how many of those acknowledged are not there.
    fn members(&mut self) -> usize {
        let (mut lost, mut kept) = (Vec::new(), Vec::new());
        for member in &self.history.members {
            let Member { key, told, span, .. } = member;
            match (told, self.contents.times(member)) {
                (Told::Acknowledged, Some(1)) => kept.push(member),
                (Told::Acknowledged, Some(0)) if self.may_be_lost(key, span.began) => lost.push(member),
                (Told::Unknown, Some(0 | 1)) | (Told::NotApplied, Some(0)) => {}
                (_, times) => {
                    let entry = self.contents.entries.get(key);
                    self.violation(format!(
                        "{key} was told {told:?} and is there {times:?} times: {entry:?}, {span:?}"
                    ));
                }
            }
        }
        self.lost_is_the_end_of_a_stream(&lost, &kept);
        lost.len()
    }

    /// Before the fault one server executed all of a shard's writes, and its replicas follow in that order.
    fn lost_is_the_end_of_a_stream(&mut self, lost: &[&Member], kept: &[&Member]) {
        let Some(fault) = self.history.fault else { return };
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

    fn counters(&mut self) {
        for (key, sums) in &self.history.counters {
            let value = self.contents.entries.get(key).map_or(0, count);
            let may_lose = self.options.may_lose.contains(&(self.options.shard_of)(key));
            let least = if may_lose { sums.acknowledged_late } else { sums.acknowledged };
            let most = sums.acknowledged + sums.unknown;
            if !(least..=most).contains(&value) {
                self.violation(format!("{key} is {value}, not within {least} and {most}"));
            }
        }
    }

    fn registers(&mut self) {
        for register in self.history.registers.values() {
            for (call, _) in &register.calls {
                if let Some(RegisterReply::Found(Some(value)) | RegisterReply::Refused(Some(value))) = call.reply
                    && self.history.values_refused.contains(&value)
                {
                    self.violation(format!("{} was {value}, whose write was not applied", register.key));
                }
            }
            if let Some(calls) = self.calls(register)
                && let Err(failure) = check(&Register::default(), &calls)
            {
                self.violation(format!("{}: {failure}", register.key));
            }
        }
    }

    /// The part of a register's history that must be explained; `None` where writes may have been lost in between.
    fn calls(&self, register: &RegisterHistory) -> Option<Vec<RegisterCall>> {
        let fault = self.history.fault.filter(|_| self.may_be_lost(&register.key, register.since));
        if fault.is_some_and(|fault| register.since > fault) {
            return None;
        }
        let known = |(call, ended): &(RegisterCall, Instant)| {
            if fault.is_none_or(|fault| *ended <= fault) {
                return Some(call.clone());
            }
            // Answered by whoever: a write may have come to either server, and a read says nothing of the first one.
            let is_write = written(call.operation).is_some() || call.operation == RegisterOperation::Take;
            is_write.then(|| RegisterCall::maybe(call.began, call.operation))
        };
        let mut calls: Vec<_> = register.calls.iter().filter_map(known).collect();
        calls.sort_by_key(|call| call.began);
        Some(calls)
    }

    fn items(&mut self) {
        let mut claims: HashMap<&str, Vec<&Claim>> = HashMap::new();
        for claim in &self.history.claims {
            claims.entry(&claim.id).or_default().push(claim);
        }
        for claims in claims.values_mut() {
            claims.sort_by_key(|claim| claim.span.ended);
        }
        for (id, scheduling) in &self.history.schedules {
            self.item(id, scheduling, claims.remove(id.as_str()).unwrap_or_default().as_slice());
        }
        for id in claims.keys() {
            self.violation(format!("{id} was claimed and never scheduled"));
        }
    }

    /// Judges one item by how it was scheduled and claimed.
    fn item(&mut self, id: &str, scheduling: &Scheduling, claims: &[&Claim]) {
        let Scheduling { queue, told, span } = scheduling;
        match told {
            Told::NotApplied if !claims.is_empty() => {
                self.violation(format!("{id} was claimed, and scheduling it was told not to be applied"));
            }
            Told::Acknowledged if claims.is_empty() && !self.may_be_lost(queue, span.began) => {
                self.violation(format!("{id} was scheduled and never claimed"));
            }
            _ => {}
        }
        for pair in claims.windows(2) {
            let (first, second) = (pair[0].span, pair[1].span);
            if second.ended < first.began + VISIBILITY && !self.may_be_lost(queue, first.began) {
                self.violation(format!("{id} was claimed twice within {:?}", second.ended - first.began));
            }
        }
        let acks = self.history.acks.get(id);
        let again = |ack: &&Ack| claims.iter().any(|claim| claim.span.began > ack.span.ended);
        if let Some(ack) = acks.into_iter().flatten().find(again)
            && !self.may_be_lost(queue, ack.span.began)
        {
            self.violation(format!("{id} was claimed again after it was dealt with"));
        }
    }

    fn locks(&mut self) {
        let mut by_name: HashMap<&StateKey, Vec<&Grant>> = HashMap::new();
        for grant in &self.history.grants {
            by_name.entry(&grant.key).or_default().push(grant);
        }
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

fn count(entry: &Entry) -> i64 {
    std::str::from_utf8(&entry.value).unwrap().parse().unwrap()
}
