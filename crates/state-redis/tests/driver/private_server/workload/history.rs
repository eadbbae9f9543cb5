//! What a load did and what it was told.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use acteon_state_conformance::history::Call;
use acteon_state_conformance::objects::{RegisterOperation, RegisterReply};
use acteon_state_core::{Effect, ErrorKind, Result, StateKey, Version};

use super::{Kind, Report};

/// What a call was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Told {
    Acknowledged,
    Unknown,
    NotApplied,
}

/// Everything that was done and told.
#[derive(Default)]
pub(super) struct History {
    /// When the fault came.
    pub(super) fault: Option<Instant>,
    /// When traffic had resumed.
    pub(super) resumed: Option<Instant>,
    /// By kind and shard.
    pub(super) progress: BTreeMap<(Kind, usize), Progress>,
    pub(super) told: BTreeMap<Told, u64>,
    pub(super) errors: HashMap<ErrorKind, u64>,
    pub(super) members: Vec<Member>,
    pub(super) counters: HashMap<StateKey, Sums>,
    /// By number.
    pub(super) registers: BTreeMap<u64, RegisterHistory>,
    /// Values of registers whose write was told not to be applied.
    pub(super) values_refused: HashSet<u32>,
    /// By id.
    pub(super) schedules: HashMap<String, Scheduling>,
    pub(super) claims: Vec<Claim>,
    /// By id.
    pub(super) acks: HashMap<String, Vec<Ack>>,
    pub(super) grants: Vec<Grant>,
}

/// Successes of one kind on one shard.
pub(super) struct Progress {
    pub(super) count: u64,
    /// When the newest successful call began and ended.
    pub(super) began: Instant,
    pub(super) ended: Instant,
    /// The longest time between two successes, if the second one came after the fault.
    gap_max: Duration,
}

/// When a call was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) began: Instant,
    pub(super) ended: Instant,
}

/// A write under a name of its own.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) key: StateKey,
    /// The version of a put; `None` for an increment by one.
    pub(super) version: Option<Version>,
    pub(super) told: Told,
    pub(super) span: Span,
}

/// The increments of a shared counter.
#[derive(Default)]
pub(super) struct Sums {
    pub(super) acknowledged: i64,
    /// The part of them that began after traffic had resumed.
    pub(super) acknowledged_late: i64,
    pub(super) unknown: i64,
}

pub(super) type RegisterCall = Call<RegisterOperation, RegisterReply>;

pub(super) struct RegisterHistory {
    pub(super) key: StateKey,
    /// When it was first used.
    pub(super) since: Instant,
    /// And when each ended.
    pub(super) calls: Vec<(RegisterCall, Instant)>,
}

pub(super) struct Scheduling {
    pub(super) queue: StateKey,
    pub(super) told: Told,
    pub(super) span: Span,
}

pub(super) struct Claim {
    pub(super) id: String,
    pub(super) span: Span,
}

/// An acknowledgement that succeeded.
pub(super) struct Ack {
    pub(super) span: Span,
}

pub(super) struct Grant {
    pub(super) key: StateKey,
    pub(super) token: u64,
    pub(super) span: Span,
    /// Until when its holder took it for held.
    pub(super) until: Instant,
    /// Its release came before the end of its lease, and found it lost.
    pub(super) was_lost: bool,
}

impl Told {
    pub(super) fn of<T>(outcome: &Result<T>) -> Self {
        match outcome {
            Ok(_) => Self::Acknowledged,
            Err(error) if error.effect() == Effect::Unknown => Self::Unknown,
            Err(_) => Self::NotApplied,
        }
    }
}

impl History {
    /// Notes a success of a kind on a shard.
    pub(super) fn succeeded(&mut self, what: (Kind, usize), span: Span) {
        let first = Progress { count: 0, began: span.began, ended: span.began, gap_max: Duration::ZERO };
        let progress = self.progress.entry(what).or_insert(first);
        progress.count += 1;
        progress.began = progress.began.max(span.began);
        if self.fault.is_some_and(|fault| span.ended > fault) {
            progress.gap_max = progress.gap_max.max(span.ended.saturating_duration_since(progress.ended));
        }
        progress.ended = progress.ended.max(span.ended);
    }

    /// Notes what a call was told.
    pub(super) fn note<T>(&mut self, outcome: &Result<T>) {
        *self.told.entry(Told::of(outcome)).or_default() += 1;
        if let Err(error) = outcome {
            *self.errors.entry(error.kind()).or_default() += 1;
        }
    }

    /// Notes a step of a shared counter.
    pub(super) fn add(&mut self, counter: StateKey, delta: i64, told: Told, span: Span) {
        let is_late = self.resumed.is_some_and(|resumed| span.began > resumed);
        let sums = self.counters.entry(counter).or_default();
        match told {
            Told::Acknowledged => {
                sums.acknowledged += delta;
                if is_late {
                    sums.acknowledged_late += delta;
                }
            }
            Told::Unknown => sums.unknown += delta,
            Told::NotApplied => {}
        }
    }

    /// What to tell of it, once so many acknowledged writes were found to be lost.
    pub(super) fn report(&self, lost: usize) -> Report {
        let mut report = Report {
            told: self.told.clone(),
            errors: self.errors.clone(),
            lost,
            grants: self.grants.len(),
            ..Report::default()
        };
        for ((kind, _), progress) in &self.progress {
            let window = report.windows.entry(*kind).or_insert(Duration::ZERO);
            *window = (*window).max(progress.gap_max);
        }
        report
    }
}

/// The value that an operation on a register writes.
pub(super) fn written(operation: RegisterOperation) -> Option<u32> {
    if let RegisterOperation::Put(write) = operation { Some(write.value) } else { None }
}
