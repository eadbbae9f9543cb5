//! Decides whether a recorded history could have come from calls that each took effect at one moment.
//!
//! # Guarantees
//! Sound and complete: a history is refused if and only if no order of its calls explains every reply, where a call that
//! ended before another began comes first.
//!
//! # Cost
//! The problem is NP-complete; the search is exponential in the number of calls that overlap, not in the length of the
//! history. Cases keep keys short-lived and tasks few, and check each key by itself, which is enough: a history is
//! linearizable if and only if its part about each object is.
//!
//! # How it works
//! J. Wing and C. Gong, "Testing and verifying concurrent objects" (1993), with the memory of G. Lowe, "Testing for
//! linearizability" (2017): the search takes any call that began before the first end among the calls left, applies it to
//! the specification, and goes on if the reply agrees. A pair of the set of calls taken and the state reached that
//! was met before is not searched again.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

use crate::history::Call;

/// What an object does, call by call.
pub trait Specification {
    /// What can be asked.
    type Operation: Debug;
    /// What can be answered.
    type Reply: Debug;
    /// What the object remembers.
    type State: Clone + Eq + Hash + Debug;

    /// The state before the first call.
    fn start(&self) -> Self::State;

    /// The state after this call, if this reply is right; `None` if it is not.
    fn step(&self, state: &Self::State, operation: &Self::Operation, reply: &Self::Reply) -> Option<Self::State>;
}

/// A history that no order explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotLinearizable {
    /// The longest part of the history that could be explained, as text: one call to a line.
    pub explained: Vec<String>,
    /// The calls that could not come next.
    pub stuck: Vec<String>,
}

impl std::fmt::Display for NotLinearizable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no order explains this history; the longest that could be explained:")?;
        self.explained.iter().try_for_each(|line| write!(f, "\n    {line}"))?;
        f.write_str("\n  and then none of these can come next:")?;
        self.stuck.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// Checks one history.
///
/// # Errors
/// The history cannot be explained.
pub fn check<S: Specification>(
    specification: &S,
    calls: &[Call<S::Operation, S::Reply>],
) -> Result<(), NotLinearizable> {
    let mut search = Search { taken: Taken::none(calls.len()), order: Vec::new(), seen: HashSet::new() };
    let mut states = vec![specification.start()];
    let mut next = 0;
    let mut best: Vec<usize> = Vec::new();
    while search.order.len() < calls.len() {
        let state = &states[states.len() - 1];
        match search.advance(specification, calls, state, next) {
            Some((at, after)) => {
                search.take(at);
                states.push(after);
                next = 0;
                if search.order.len() > best.len() {
                    best.clone_from(&search.order);
                }
            }
            // Nothing that is left can come next: the last choice was wrong.
            None => match search.undo() {
                Some(at) => {
                    states.pop();
                    next = at + 1;
                }
                None => return Err(explain(calls, &best)),
            },
        }
    }
    Ok(())
}

struct Search<State> {
    taken: Taken,
    order: Vec<usize>,
    seen: HashSet<(Taken, State)>,
}

impl<State: Clone + Eq + Hash> Search<State> {
    /// The first call from `next` on that can come next and leads somewhere new.
    fn advance<S: Specification<State = State>>(
        &mut self,
        specification: &S,
        calls: &[Call<S::Operation, S::Reply>],
        state: &State,
        next: usize,
    ) -> Option<(usize, State)> {
        let first_end = open(calls, &self.taken).map(|at| calls[at].ended).min()?;
        for (at, call) in calls.iter().enumerate().skip(next) {
            if call.began > first_end {
                break;
            }
            if self.taken.contains(at) {
                continue;
            }
            let Some(after) = specification.step(state, &call.operation, &call.reply) else {
                continue;
            };
            if self.seen.insert((self.taken.with(at), after.clone())) {
                return Some((at, after));
            }
        }
        None
    }

    fn take(&mut self, at: usize) {
        self.taken = self.taken.with(at);
        self.order.push(at);
    }

    fn undo(&mut self) -> Option<usize> {
        let at = self.order.pop()?;
        self.taken = self.taken.without(at);
        Some(at)
    }
}

/// Calls that were not taken yet.
fn open<O, R>(calls: &[Call<O, R>], taken: &Taken) -> impl Iterator<Item = usize> {
    (0..calls.len()).filter(|at| !taken.contains(*at))
}

fn explain<O: Debug, R: Debug>(calls: &[Call<O, R>], best: &[usize]) -> NotLinearizable {
    let line = |at: usize| {
        let Call { operation, reply, began, ended } = &calls[at];
        format!("{began:>4} to {ended:>4}  {operation:?} -> {reply:?}")
    };
    let mut taken = Taken::none(calls.len());
    best.iter().for_each(|at| taken = taken.with(*at));
    let first_end = open(calls, &taken).map(|at| calls[at].ended).min().unwrap_or(u64::MAX);
    let stuck = open(calls, &taken).filter(|at| calls[*at].began <= first_end).map(line).collect();
    NotLinearizable { explained: best.iter().map(|at| line(*at)).collect(), stuck }
}

/// A set of calls, as bits.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Taken(Vec<u64>);

impl Taken {
    fn none(calls: usize) -> Self {
        Self(vec![0; calls.div_ceil(64)])
    }

    fn contains(&self, at: usize) -> bool {
        self.0[at / 64] & (1 << (at % 64)) != 0
    }

    fn with(&self, at: usize) -> Self {
        let mut bits = self.clone();
        bits.0[at / 64] |= 1 << (at % 64);
        bits
    }

    fn without(&self, at: usize) -> Self {
        let mut bits = self.clone();
        bits.0[at / 64] &= !(1 << (at % 64));
        bits
    }
}
