//! Judges the history of a load by what its topology promises.
//!
//! # What must hold
//! - On a shard that may lose nothing: everything is explained by one order of the calls, from the first to the last.
//! - On a shard that may lose: the same until the fault, and again for objects that were first asked after traffic had resumed. A write of
//!   its own that was acknowledged before that counts as one that may have happened: once at most, and never if it was told *not applied*.
//!   Of those before the fault some moment decides what survives, since replication is one stream.
//! - Locks are judged to the end. Their tokens rise, always. Grants do not overlap, unless one of them may have been lost.

mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use acteon_faults::history::{DueAnswer, DueQuestion};
use acteon_faults::{Asked, History, Question, Rules, Told, judge, known_until};
use acteon_state_conformance::history::Call;
use acteon_state_conformance::objects::{
    CounterOperation, CounterReply, LockReply, Loss, RegisterOperation, RegisterReply, Uncertainty,
};
use acteon_state_core::StateKey;

use super::{AFTER, OWN, Options};

/// By how much ends of leases may be early and late. The clocks of servers and clients are those of one machine; servers count
/// whole milliseconds.
const EARLY_NS: u64 = 2_000_000;
const LATE_NS: u64 = 5_000_000;

/// The places of a fault in a history.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    /// When the fault came.
    pub(super) fault: Option<u64>,
    /// When traffic had resumed.
    pub(super) resumed: Option<u64>,
}

/// What came out.
#[derive(Debug)]
pub(super) struct Verdict {
    /// Acknowledged writes that are not there, and may be lost.
    pub(super) lost: usize,
    /// What is against the promises.
    pub(super) wrong: Vec<String>,
}

type LoadCall = Call<Asked, Told>;

/// How a call is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// Nothing may be lost.
    Whole,
    /// Grants may be lost between fault and resumption.
    Locks,
    /// What follows the fault says nothing.
    UntilFault,
    /// It may not have happened, if it was before resumption.
    Perhaps,
}

/// Judges a load that has ended. The seed names the drawings.
pub(super) fn verdict(history: History, options: &Options, span: Span, seed: u64) -> Verdict {
    let writes = own_writes(&history, options);
    let mut wrong: Vec<String> = lost_is_the_end_of_a_stream(&writes, span).into_iter().collect();
    let lost = writes.iter().filter(|write| !write.is_there).count();
    let mut parts: BTreeMap<Part, History> = BTreeMap::new();
    for call in history.into_iter().filter(|call| says_something(call, options)) {
        parts.entry(part(&call, options)).or_default().push(call);
    }
    let (fault, resumed) = (span.fault.unwrap_or(0), span.resumed.unwrap_or(u64::MAX));
    for (part, calls) in parts {
        let uncertainty = Uncertainty { early_ns: EARLY_NS, late_ns: LATE_NS, ..Uncertainty::default() };
        let mut rules = Rules { uncertainty, ..Rules::default() };
        let calls = match part {
            Part::Whole => calls,
            Part::Locks => {
                rules.losses = vec![Loss { from: fault, until: resumed }];
                calls
            }
            Part::UntilFault => known_until(&calls, fault),
            Part::Perhaps => calls.into_iter().filter_map(|call| perhaps(call, resumed)).collect(),
        };
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("failovers");
        wrong.extend(judge(&calls, &rules).settle(seed, &folder).err());
    }
    Verdict { lost, wrong }
}

fn may_lose(key: &StateKey, options: &Options) -> bool {
    options.may_lose.contains(&(options.shard_of)(key))
}

/// A new primary refuses locks that are free: since the release was lost, or, in strict safety, since it grants nothing for a while.
/// Nor does strict safety promise that extensions are kept, so a holder may be told of a loss: but nobody else holds the lock by then.
fn says_something(call: &LoadCall, options: &Options) -> bool {
    let is_lossy = may_lose(&call.operation.object, options) && call.operation.object.kind() != AFTER;
    match call.reply {
        Some(Told::Lock(LockReply::Busy)) => !is_lossy && !options.strict_locks,
        Some(Told::Lock(LockReply::Lost)) => !is_lossy || !options.strict_locks,
        _ => true,
    }
}

fn part(call: &LoadCall, options: &Options) -> Part {
    let Asked { object, question, .. } = &call.operation;
    let (is_lock, kind) = (matches!(question, Question::Lock(_)), object.kind());
    match (is_lock, kind.as_str()) {
        (_, AFTER) => Part::Whole,
        _ if !may_lose(object, options) => Part::Whole,
        (true, _) if options.strict_locks => Part::Whole,
        (true, _) => Part::Locks,
        (false, OWN) => Part::Perhaps,
        (false, _) => Part::UntilFault,
    }
}

/// What is certain of a call that may have been lost: a write may have happened, and a read says nothing.
fn perhaps(call: LoadCall, resumed: u64) -> Option<LoadCall> {
    if call.began > resumed {
        return Some(call);
    }
    is_write(&call).then(|| Call::maybe(call.began, call.operation))
}

fn is_write(call: &LoadCall) -> bool {
    matches!(
        call.operation.question,
        Question::Register(RegisterOperation::Put(_))
            | Question::Counter(CounterOperation::Add { .. })
            | Question::Due(DueQuestion::Schedule { .. })
    )
}

/// A write under a name of its own that was acknowledged.
struct OwnWrite<'a> {
    object: &'a StateKey,
    shard: usize,
    began: u64,
    ended: u64,
    /// Whether the look at the end found it.
    is_there: bool,
}

fn own_writes<'a>(history: &'a History, options: &Options) -> Vec<OwnWrite<'a>> {
    let mut writes: HashMap<&StateKey, OwnWrite<'a>> = HashMap::new();
    for call in history.iter().filter(|call| call.operation.object.kind() == OWN) {
        let (object, Some(reply)) = (&call.operation.object, &call.reply) else {
            continue;
        };
        if is_write(call) {
            let shard = (options.shard_of)(object);
            writes.insert(object, OwnWrite { object, shard, began: call.began, ended: call.ended, is_there: true });
        } else if let Some(write) = writes.get_mut(object) {
            write.is_there = !is_nothing(reply);
        }
    }
    writes.into_values().collect()
}

fn is_nothing(reply: &Told) -> bool {
    match reply {
        Told::Register(reply) => *reply == RegisterReply::Found(None),
        Told::Counter(reply) => *reply == CounterReply::Found(None),
        Told::Due(DueAnswer::Claimed(items, _)) => items.is_empty(),
        Told::Due(_) | Told::Lock(_) => false,
    }
}

/// Before the fault one server executed all of a shard's writes, and its replicas follow in that order.
fn lost_is_the_end_of_a_stream(writes: &[OwnWrite<'_>], span: Span) -> Option<String> {
    let fault = span.fault?;
    let before = || writes.iter().filter(|write| write.ended <= fault);
    let mut first_lost: HashMap<usize, u64> = HashMap::new();
    for write in before().filter(|write| !write.is_there) {
        let first = first_lost.entry(write.shard).or_insert(write.ended);
        *first = (*first).min(write.ended);
    }
    let is_out_of_order =
        |write: &&OwnWrite<'_>| write.is_there && first_lost.get(&write.shard).is_some_and(|lost| write.began > *lost);
    let kept = before().find(is_out_of_order)?;
    Some(format!("{} was kept although something written before it was lost", kept.object))
}
