//! Reduces a history that no order explains to the few calls that contradict each other.
//!
//! # Guarantees
//! What is left fails for the same reason as the whole: calls are only forgotten in ways that make a history easier to explain.
//! - What ended before some moment is left out, and the object may then hold whatever that can have led to (where this can be said).
//! - The history is cut right after the call that completes the contradiction: what was under way then may have happened.
//! - A call that changes nothing is left out.
//! - Of a call that changes something it is forgotten what came of it: it may have happened between its places.
//!
//! At last, calls that may have happened are not shown unless one of those that are left tells of them: by name, or of those that were under way
//! then or ended last before. They were part of the check, and do not explain the contradiction either.
//!
//! # Cost
//! Halves, quarters and so on are forgotten at once where that still fails, so the number of checks grows with the size of what is
//! left, and little with that of the whole. It is bounded by [`CHECKS_MAX`]; a check that is undecided counts as passed, and after
//! [`UNDECIDED_MAX`] of them what is left stays as it is.

use acteon_state_conformance::history::Call;
use acteon_state_conformance::linearizability::{Budget, Judgement, NotLinearizable, check_within};

use crate::judge::{CallOf, Judge};

/// The most checks of one shrinking: a few seconds for thousands of calls.
const CHECKS_MAX: usize = 1_000;

/// The budget of each of them. Most are decided far below; those that are not would be slow in such a number.
const BUDGET: Budget = Budget { configurations: 10_000 };

/// The most checks that are undecided: each takes some 20 ms, and where there are many the others are hardly decided either.
const UNDECIDED_MAX: usize = 50;

/// The budget of each check that looks for the end of the history: there are only as many as the logarithm of its length.
const CUT_BUDGET: Budget = Budget { configurations: 200_000 };

/// What is left of a history.
pub(crate) struct Core<J: Judge> {
    /// The object at the beginning of what is left, if that is not the beginning of the whole.
    pub(crate) judge: Option<J>,
    /// What is left, in the order of the beginnings.
    pub(crate) calls: Vec<CallOf<J>>,
    /// Where each was in the whole history.
    pub(crate) origins: Vec<usize>,
    /// The call of the whole history that completed the contradiction.
    pub(crate) last: usize,
    /// How many calls of the cut history are not shown.
    pub(crate) left_out: usize,
    /// Why it fails.
    pub(crate) failure: NotLinearizable,
}

/// What a call still counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Certain,
    Maybe,
    Out,
}

/// Shrinks a history that fails. `None` if that is not seen within the budget of one check.
pub(crate) fn shrink<J: Judge>(judge: &J, calls: &[CallOf<J>]) -> Option<Core<J>> {
    let mut shrinking = Shrinking { judge, later: None, calls, checks: 0, undecided: 0 };
    let (mut roles, last) = shrinking.cut()?;
    shrinking.begin_later(&mut roles, last);
    shrinking.forget(&mut roles, last);
    let cut = roles.iter().filter(|role| **role != Role::Out).count();
    shrinking.hide(&mut roles);
    let origins: Vec<usize> = (0..calls.len()).filter(|at| roles[*at] != Role::Out).collect();
    let calls = shrinking.history(&roles);
    let later = shrinking.later;
    match check_within(later.as_ref().unwrap_or(judge), &calls, CUT_BUDGET) {
        Judgement::NotLinearizable(failure) => {
            Some(Core { judge: later, left_out: cut - calls.len(), calls, origins, last, failure })
        }
        Judgement::Linearizable | Judgement::Undecided => None,
    }
}

struct Shrinking<'a, J: Judge> {
    judge: &'a J,
    /// The object at the beginning of what is left.
    later: Option<J>,
    calls: &'a [CallOf<J>],
    checks: usize,
    undecided: usize,
}

impl<J: Judge> Shrinking<'_, J> {
    /// The shortest beginning that fails, and the call that ends it.
    fn cut(&mut self) -> Option<(Vec<Role>, usize)> {
        let mut by_end: Vec<usize> = (0..self.calls.len()).filter(|at| !self.calls[*at].is_maybe()).collect();
        by_end.sort_unstable_by_key(|at| self.calls[*at].ended);
        let roles_until = |last: usize| -> Vec<Role> {
            let until = self.calls[last].ended;
            let role = |call: &CallOf<J>| match call {
                call if call.began > until => Role::Out,
                call if call.is_maybe() || call.ended > until => Role::Maybe,
                _ => Role::Certain,
            };
            self.calls.iter().map(role).collect()
        };
        // A beginning of a history that can be explained can be explained.
        let mut failing: Option<(Vec<Role>, usize)> = None;
        let (mut low, mut high) = (0, by_end.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let roles = roles_until(by_end[middle]);
            if matches!(check_within(self.judge, &self.history(&roles), CUT_BUDGET), Judgement::NotLinearizable(_)) {
                failing = Some((roles, by_end[middle]));
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        failing
    }

    /// Leaves out as much as possible of the beginning.
    fn begin_later(&mut self, roles: &mut Vec<Role>, last: usize) {
        let latest = self.calls[last].began;
        let mut moments: Vec<u64> = self.calls.iter().map(|call| call.began).filter(|began| *began <= latest).collect();
        moments.dedup();
        // The last one first: mostly few calls contradict each other, and those lie close together. Steps double, so that a
        // contradiction over a long time costs little.
        let mut back = 1;
        while back < moments.len() {
            let since = moments[moments.len() - back];
            let earlier: Vec<CallOf<J>> = self.calls.iter().filter(|call| call.ended < since).cloned().collect();
            let Some(later) = self.judge.after(&earlier) else {
                return;
            };
            let role = |(call, role): (&CallOf<J>, &Role)| match role {
                _ if call.ended < since => Role::Out,
                Role::Certain if call.began < since => Role::Maybe,
                role => *role,
            };
            let fewer: Vec<Role> = self.calls.iter().zip(roles.iter()).map(role).collect();
            let before = self.later.replace(later);
            if self.fails(&fewer) {
                *roles = fewer;
                return;
            }
            self.later = before;
            back *= 2;
        }
    }

    /// Forgets as much as possible, beginning with the first calls, so that what is left lies close together.
    fn forget(&mut self, roles: &mut Vec<Role>, last: usize) {
        let mut size = roles.len().next_power_of_two();
        loop {
            let certain: Vec<usize> =
                (0..roles.len()).filter(|at| roles[*at] == Role::Certain && *at != last).collect();
            let mut has_shrunk = false;
            for chunk in certain.chunks(size) {
                let mut fewer = roles.clone();
                for at in chunk {
                    fewer[*at] = if self.judge.is_read(&self.calls[*at]) { Role::Out } else { Role::Maybe };
                }
                if self.fails(&fewer) {
                    *roles = fewer;
                    has_shrunk = true;
                }
            }
            if size == 1 && !has_shrunk || self.is_over() {
                return;
            }
            size = (size / 2).max(1);
        }
    }

    /// Leaves out what may have happened and is not told of.
    fn hide(&self, roles: &mut [Role]) {
        let certain: Vec<&CallOf<J>> =
            (0..roles.len()).filter(|at| roles[*at] == Role::Certain).map(|at| &self.calls[at]).collect();
        let since = certain.iter().map(|call| call.began).min().unwrap_or(0);
        let is_mentioned = |other: &CallOf<J>| certain.iter().any(|call| self.judge.mentions(call, other));
        let maybe = || (0..roles.len()).filter(|at| roles[*at] == Role::Maybe);
        // What was there in the beginning. Without it a drawing would say that there was nothing.
        let is_before = |at: &usize| self.calls[*at].ended < since && is_mentioned(&self.calls[*at]);
        let last_before = maybe().filter(is_before).max_by_key(|at| self.calls[*at].ended);
        let is_shown = |at: &usize| {
            let other = &self.calls[*at];
            let is_named = certain.iter().any(|call| self.judge.names(call, other));
            is_named || Some(*at) == last_before || other.ended >= since && is_mentioned(other)
        };
        let hidden: Vec<usize> = maybe().filter(|at| !is_shown(at)).collect();
        hidden.into_iter().for_each(|at| roles[at] = Role::Out);
    }

    fn fails(&mut self, roles: &[Role]) -> bool {
        self.checks += 1;
        if self.is_over() {
            return false;
        }
        let judgement = check_within(self.later.as_ref().unwrap_or(self.judge), &self.history(roles), BUDGET);
        self.undecided += usize::from(judgement == Judgement::Undecided);
        matches!(judgement, Judgement::NotLinearizable(_))
    }

    fn is_over(&self) -> bool {
        self.checks > CHECKS_MAX || self.undecided >= UNDECIDED_MAX
    }

    fn history(&self, roles: &[Role]) -> Vec<CallOf<J>> {
        let kept = self.calls.iter().zip(roles).filter(|(_, role)| **role != Role::Out);
        kept.map(|(call, role)| match role {
            Role::Certain => call.clone(),
            Role::Maybe | Role::Out => Call { reply: None, ..call.clone() },
        })
        .collect()
    }
}
