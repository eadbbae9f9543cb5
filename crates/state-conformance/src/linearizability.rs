//! Decides whether a recorded history could have come from calls that each took effect at one moment.
//!
//! # Guarantees
//! Sound and complete: a history is refused if and only if no order of its calls explains every reply, where a call that
//! ended before another began comes first. A call without a reply may be left out, or take effect anywhere between its two
//! places. Within a [`Budget`] the search takes bounded memory; when that is used up, the answer is `Undecided`, never a pass.
//!
//! # Cost
//! The problem is NP-complete; the search is exponential in the number of calls that overlap, not in the length of the
//! history. Each object is checked by itself, which is enough: a history is linearizable if and only if its part about each
//! object is. Calls that never ended overlap with all that follow, so they are tried last, and of those that are alike
//! ([`Specification::are_alike`]) only the first.
//!
//! # How it works
//! J. Wing and C. Gong, "Testing and verifying concurrent objects" (1993), with the memory of G. Lowe, "Testing for
//! linearizability" (2017): the search takes any call that began before the first end among the calls left, applies it to
//! the specification, and goes on if the reply agrees. A pair of the set of calls taken and the state reached that
//! was met before is not searched again. Calls lie in the order of their beginnings, so the set is a prefix with a few gaps,
//! whatever the length of the history: never more gaps than calls were under way at once.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

use crate::history::{Call, NEVER};

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

    /// The state after this call, if its reply is right; `None` if it is not. Without a reply: the state after it took effect,
    /// or `None` if it would have none.
    fn step(&self, state: &Self::State, call: &Call<Self::Operation, Self::Reply>) -> Option<Self::State>;

    /// Whether two operations without a reply have the same effect at any moment. Saying so saves trying each of them.
    fn are_alike(&self, _one: &Self::Operation, _other: &Self::Operation) -> bool {
        false
    }
}

/// How much a search may remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Pairs of a set of calls and a state.
    pub configurations: usize,
}

impl Budget {
    /// Without a bound: for histories that are known to be short.
    pub const UNLIMITED: Self = Self { configurations: usize::MAX };
}

/// What came of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// An order explains the history.
    Linearizable,
    /// None does.
    NotLinearizable(NotLinearizable),
    /// The budget was used up before an order was found or all were tried.
    Undecided,
}

/// A history that no order explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotLinearizable {
    /// The longest part of the history that could be explained, in the order that explains it.
    pub explained: Vec<Line>,
    /// The calls that could not come next.
    pub stuck: Vec<Line>,
}

/// One call of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its index in the history.
    pub call: usize,
    /// When, what, and the reply.
    pub text: String,
}

impl std::fmt::Display for NotLinearizable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no order explains this history; the longest that could be explained:")?;
        self.explained.iter().try_for_each(|line| write!(f, "\n    {}", line.text))?;
        f.write_str("\n  and then none of these can come next:")?;
        self.stuck.iter().try_for_each(|line| write!(f, "\n    {}", line.text))
    }
}

/// Checks one history, in the order of the beginnings, however long it takes.
///
/// # Errors
/// The history cannot be explained.
pub fn check<S: Specification>(
    specification: &S,
    calls: &[Call<S::Operation, S::Reply>],
) -> Result<(), NotLinearizable> {
    match check_within(specification, calls, Budget::UNLIMITED) {
        Judgement::Linearizable => Ok(()),
        Judgement::NotLinearizable(failure) => Err(failure),
        Judgement::Undecided => unreachable!("a search without a bound ends with an answer"),
    }
}

/// Checks one history, in the order of the beginnings, within a budget.
pub fn check_within<S: Specification>(
    specification: &S,
    calls: &[Call<S::Operation, S::Reply>],
    budget: Budget,
) -> Judgement {
    let search = Search::new(specification, calls);
    let mut seen = HashSet::new();
    let mut stack = vec![search.frame(None, Taken::default(), specification.start())];
    let (mut best, mut reached): (Vec<usize>, usize) = (Vec::new(), 0);
    loop {
        let Some(frame) = stack.last_mut() else {
            return Judgement::NotLinearizable(search.explain(&best));
        };
        let explained = frame.taken.len();
        if explained == search.certain.len() {
            return Judgement::Linearizable;
        }
        let Some(at) = frame.candidates.pop() else {
            // Nothing that is left can come next: the last choice was wrong.
            if explained > reached {
                reached = explained;
                best = stack.iter().filter_map(|frame| frame.call).collect();
            }
            stack.pop();
            continue;
        };
        let Some(state) = specification.step(&frame.state, &calls[at]) else {
            continue;
        };
        let taken = search.take(&frame.taken, at);
        if seen.insert((taken.clone(), state.clone())) {
            if seen.len() > budget.configurations {
                return Judgement::Undecided;
            }
            stack.push(search.frame(Some(at), taken, state));
        }
    }
}

struct Search<'a, S: Specification> {
    specification: &'a S,
    calls: &'a [Call<S::Operation, S::Reply>],
    /// Calls that must be explained, by their beginnings.
    certain: Vec<usize>,
    /// Calls that may be left out, by their beginnings.
    optional: Vec<usize>,
}

/// One choice on the way.
struct Frame<State> {
    /// The call that led here.
    call: Option<usize>,
    taken: Taken,
    state: State,
    /// What can come next, the most promising last.
    candidates: Vec<usize>,
}

/// A set of calls that can be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Taken {
    /// All certain calls before this position are in it, except for those in the gaps.
    end: u32,
    /// Positions of certain calls that are left before the end, ascending.
    gaps: Vec<u32>,
    /// Positions of optional calls, ascending; only those that could otherwise still be taken.
    optional: Vec<u32>,
    /// The last beginning among its calls: what ended before cannot be taken any more.
    now: u64,
    /// All optional calls before this position ended before `now`.
    optional_first: usize,
}

impl Taken {
    /// How many certain calls it has.
    fn len(&self) -> usize {
        self.end as usize - self.gaps.len()
    }

    fn add(&mut self, position: u32) {
        if position >= self.end {
            self.gaps.extend(self.end..position);
            self.end = position + 1;
        } else {
            self.gaps.retain(|gap| *gap != position);
        }
    }
}

impl<'a, S: Specification> Search<'a, S> {
    fn new(specification: &'a S, calls: &'a [Call<S::Operation, S::Reply>]) -> Self {
        assert!(calls.is_sorted_by_key(|call| call.began), "a history lies in the order of its beginnings");
        let (optional, certain) = (0..calls.len()).partition(|at| calls[*at].is_maybe());
        assert!(u32::try_from(calls.len()).is_ok(), "a history has fewer than 2^32 calls");
        Self { specification, calls, certain, optional }
    }

    fn frame(&self, call: Option<usize>, taken: Taken, state: S::State) -> Frame<S::State> {
        let candidates = self.candidates(&taken);
        Frame { call, taken, state, candidates }
    }

    /// The calls that can come next. The one that ended first is tried first: it has the fewest places left to go.
    fn candidates(&self, taken: &Taken) -> Vec<usize> {
        let (mut certain, first_end) = self.open(taken);
        certain.sort_unstable_by_key(|at| std::cmp::Reverse(self.calls[*at].ended));
        let mut candidates = self.open_optional(taken, first_end);
        candidates.reverse();
        candidates.append(&mut certain);
        candidates
    }

    /// Certain calls that are left and began before any of those left ended, and that end.
    fn open(&self, taken: &Taken) -> (Vec<usize>, u64) {
        let (mut open, mut first_end) = (Vec::new(), NEVER);
        let left = taken.gaps.iter().copied().chain(taken.end..self.certain.len() as u32);
        for at in left.map(|position| self.certain[position as usize]) {
            // Later calls began later still, so none of them ends before this one began.
            if self.calls[at].began > first_end {
                break;
            }
            first_end = first_end.min(self.calls[at].ended);
            open.push(at);
        }
        (open, first_end)
    }

    fn open_optional(&self, taken: &Taken, first_end: u64) -> Vec<usize> {
        let mut open: Vec<usize> = Vec::new();
        for (position, at) in self.optional.iter().enumerate().skip(taken.optional_first) {
            let call = &self.calls[*at];
            if call.began > first_end {
                break;
            }
            let is_over = call.ended < taken.now || taken.optional.binary_search(&(position as u32)).is_ok();
            let is_like = |other: &usize| {
                // One that may take effect for longer is not to be used up in place of the other.
                let other = &self.calls[*other];
                other.ended == call.ended && self.specification.are_alike(&other.operation, &call.operation)
            };
            if !is_over && !open.iter().any(is_like) {
                open.push(*at);
            }
        }
        open
    }

    fn take(&self, taken: &Taken, at: usize) -> Taken {
        let mut taken = taken.clone();
        if self.calls[at].is_maybe() {
            let position = position_of(&self.optional, at);
            let place = taken.optional.partition_point(|other| *other < position);
            taken.optional.insert(place, position);
        } else {
            taken.add(position_of(&self.certain, at));
        }
        // It takes effect after it began, and so does whatever is taken after it.
        self.move_on(&mut taken, at);
        taken
    }

    /// Forgets optional calls that ended before `at` began.
    fn move_on(&self, taken: &mut Taken, at: usize) {
        if self.calls[at].began <= taken.now {
            return;
        }
        taken.now = self.calls[at].began;
        let is_over = |position: usize| self.calls[self.optional[position]].ended < taken.now;
        while taken.optional_first < self.optional.len() && is_over(taken.optional_first) {
            taken.optional_first += 1;
        }
        taken.optional.retain(|position| !is_over(*position as usize));
    }

    fn explain(&self, best: &[usize]) -> NotLinearizable {
        let line = |at: &usize| Line { call: *at, text: text(&self.calls[*at]) };
        let taken = best.iter().fold(Taken::default(), |taken, at| self.take(&taken, *at));
        let stuck = self.open(&taken).0;
        NotLinearizable { explained: best.iter().map(line).collect(), stuck: stuck.iter().map(line).collect() }
    }
}

fn position_of(calls: &[usize], at: usize) -> u32 {
    calls.binary_search(&at).expect("a call that is taken is one of the history") as u32
}

fn text<O: Debug, R: Debug>(call: &Call<O, R>) -> String {
    let Call { operation, reply, began, ended } = call;
    match (reply, *ended) {
        (Some(reply), ended) => format!("{began:>4} to {ended:>4}  {operation:?} -> {reply:?}"),
        (None, NEVER) => format!("{began:>4} to  ...  {operation:?} -> nobody knows"),
        (None, ended) => format!("{began:>4} to {ended:>4}  {operation:?} -> nobody knows"),
    }
}
