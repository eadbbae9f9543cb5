//! Records the calls of a load, and watches for how long which kind of them had no success.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acteon_faults::{Asked, History, HistoryRecorder, Question, Records, Told};
use acteon_state_conformance::objects::LockReply;
use acteon_state_core::{Effect, Result};
use parking_lot::Mutex;

use super::ShardOf;

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Register,
    Counter,
    Batch,
    Schedule,
    Claim,
    Lock,
}

/// How many [`Kind`]s there are.
const KINDS: usize = 6;

/// What the load found, for the documentation and for tests that expect more.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// For each kind: the longest time without a success, of those that ended after the fault; the worst of all shards.
    windows: BTreeMap<Kind, Duration>,
    /// How many calls were told what: answered, unknown, not applied.
    told: BTreeMap<&'static str, u64>,
    /// Errors by kind.
    errors: BTreeMap<&'static str, u64>,
    /// Acknowledged writes that the servers do not have.
    pub(crate) lost: usize,
    /// How many grants of locks there were.
    pub(crate) grants: usize,
}

/// The recorder of a load.
#[derive(Clone)]
pub(super) struct Watch(Arc<Shared>);

struct Shared {
    recorder: HistoryRecorder,
    shard_of: ShardOf,
    // Short notes by many tasks; never held across an await.
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    fault: Option<Instant>,
    /// By kind and shard.
    progress: BTreeMap<(Kind, usize), Progress>,
    told: BTreeMap<&'static str, u64>,
    errors: BTreeMap<&'static str, u64>,
}

/// Successes of one kind on one shard.
struct Progress {
    count: u64,
    /// When the newest successful call began and ended.
    began: Instant,
    ended: Instant,
    /// The longest time between two successes, if the second one came after the fault.
    gap_max: Duration,
}

impl Report {
    /// The longest time without a success of operations that wait for nobody: all but those about locks.
    pub(crate) fn window(&self) -> Duration {
        let windows = self.windows.iter().filter(|(kind, _)| **kind != Kind::Lock);
        windows.map(|(_, window)| *window).max().unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} s without a success (", self.window().as_secs_f64())?;
        for (at, (kind, window)) in self.windows.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{kind:?} {:.2}", window.as_secs_f64())?;
        }
        write!(f, "); calls {:?}, errors {:?}", self.told, self.errors)?;
        write!(f, "; {} acknowledged writes lost, {} grants", self.lost, self.grants)
    }
}

impl Records for Watch {
    async fn attempt(&self, asked: Asked, call: impl Future<Output = Result<Told>> + Send) -> Result<Told> {
        let what = (Kind::of(&asked.question), (self.0.shard_of)(&asked.object));
        let began = Instant::now();
        let outcome = self.0.recorder.attempt(asked, call).await;
        // Of locks only grants are progress: a new primary in quarantine does everything else.
        let is_progress = |told: &Told| !matches!(told, Told::Lock(reply) if !is_grant(*reply));
        let is_success = outcome.as_ref().is_ok_and(is_progress);
        self.note(what, began, &outcome, is_success);
        outcome
    }
}

impl Watch {
    pub(super) fn new(shard_of: ShardOf) -> Self {
        Self(Arc::new(Shared { recorder: HistoryRecorder::default(), shard_of, seen: Mutex::default() }))
    }

    /// Records the parts of a call on several objects, the first of which says where it was. Each part is answered by itself.
    pub(super) async fn attempt_all(
        &self,
        parts: Vec<Asked>,
        call: impl Future<Output = Result<Vec<Result<Told>>>> + Send,
    ) -> bool {
        let what = (Kind::Batch, (self.0.shard_of)(&parts[0].object));
        let began = Instant::now();
        let parts: Vec<_> = parts.into_iter().map(|asked| self.0.recorder.begin(asked)).collect();
        let outcome = call.await;
        let is_success = outcome.as_ref().is_ok_and(|told| told.iter().all(Result::is_ok));
        self.note(what, began, &outcome, is_success);
        for (at, part) in parts.into_iter().enumerate() {
            match outcome.as_ref().map(|told| &told[at]) {
                Ok(Ok(told)) => part.end(told.clone()),
                Ok(Err(error)) | Err(error) if error.effect() == Effect::NotApplied => part.withdraw(),
                // It may have happened, which is what dropping it says.
                Ok(Err(_)) | Err(_) => {}
            }
        }
        is_success
    }

    /// The place of this moment in the history.
    pub(super) fn place(&self) -> u64 {
        self.0.recorder.place()
    }

    /// Times without success are measured from now on.
    pub(super) fn fault(&self) {
        self.0.seen.lock().fault = Some(Instant::now());
    }

    pub(super) fn is_warm(&self, successes: u64) -> bool {
        let mut counts: BTreeMap<Kind, u64> = BTreeMap::new();
        for ((kind, _), progress) in &self.0.seen.lock().progress {
            *counts.entry(*kind).or_default() += progress.count;
        }
        counts.len() == KINDS && counts.values().all(|count| *count >= successes)
    }

    /// Whether a call of each kind that began since then has succeeded, wherever one had before.
    pub(super) fn has_resumed(&self, since: Instant) -> bool {
        self.0.seen.lock().progress.values().all(|progress| progress.began >= since)
    }

    /// Successes and the time since the last one, for a load that does not go on.
    pub(super) fn describe(&self) -> String {
        let seen = self.0.seen.lock();
        let progress: Vec<_> = seen.progress.iter().map(|(what, p)| (what, p.count, p.ended.elapsed())).collect();
        format!("successes and time since the last one: {progress:?}; errors {:?}", seen.errors)
    }

    /// All that was recorded.
    pub(super) fn finish(&self) -> History {
        self.0.recorder.finish()
    }

    pub(super) fn report(&self, history: &History) -> Report {
        let seen = self.0.seen.lock();
        let is_granted = |told: &Told| matches!(told, Told::Lock(reply) if is_grant(*reply));
        let grants = history.iter().filter(|call| call.reply.as_ref().is_some_and(is_granted)).count();
        let (told, errors) = (seen.told.clone(), seen.errors.clone());
        let mut report = Report { told, errors, grants, ..Report::default() };
        for ((kind, _), progress) in &seen.progress {
            let window = report.windows.entry(*kind).or_default();
            *window = (*window).max(progress.gap_max);
        }
        report
    }

    fn note<T>(&self, what: (Kind, usize), began: Instant, outcome: &Result<T>, is_success: bool) {
        let mut seen = self.0.seen.lock();
        let told = match outcome {
            Ok(_) => "answered",
            Err(error) if error.effect() == Effect::Unknown => "unknown",
            Err(_) => "not applied",
        };
        *seen.told.entry(told).or_default() += 1;
        if let Err(error) = outcome {
            *seen.errors.entry(error.kind().as_str()).or_default() += 1;
        }
        if is_success {
            seen.succeeded(what, began, Instant::now());
        }
    }
}

impl Seen {
    fn succeeded(&mut self, what: (Kind, usize), began: Instant, ended: Instant) {
        let first = Progress { count: 0, began, ended: began, gap_max: Duration::ZERO };
        let progress = self.progress.entry(what).or_insert(first);
        progress.count += 1;
        progress.began = progress.began.max(began);
        if self.fault.is_some_and(|fault| ended > fault) {
            progress.gap_max = progress.gap_max.max(ended.saturating_duration_since(progress.ended));
        }
        progress.ended = progress.ended.max(ended);
    }
}

const fn is_grant(reply: LockReply) -> bool {
    matches!(reply, LockReply::Granted(_))
}

impl Kind {
    fn of(question: &Question) -> Self {
        use acteon_faults::history::DueQuestion::{Ack, Cancel, Claim, Extend, Schedule};
        match question {
            Question::Register(_) => Self::Register,
            Question::Counter(_) => Self::Counter,
            Question::Lock(_) => Self::Lock,
            Question::Due(Schedule { .. } | Cancel { .. }) => Self::Schedule,
            Question::Due(Claim { .. } | Ack { .. } | Extend { .. }) => Self::Claim,
        }
    }
}
