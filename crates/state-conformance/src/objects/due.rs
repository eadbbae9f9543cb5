//! One item of a due queue: handed out at least once, to one worker at a time, until it is acknowledged.
//!
//! A queue is judged item by item. A claim is a call on each item of the queue: those that it returned were handed out, and if it
//! returned fewer than it asked for, all others were passed over, which is right only for an item that may be out of sight.

use crate::history::Call;
use crate::linearizability::Specification;
use crate::objects::lifetime::{Lifetime, Uncertainty};

/// One item of a queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct DueItem {
    /// What due times and visibility timeouts may differ by.
    pub uncertainty: Uncertainty,
}

/// What can be done to an item. Tokens are numbers, one for each claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DueOperation {
    /// Put it into the queue, in place of what is there.
    Schedule {
        /// Due this long from now, in ns.
        after_ns: u64,
    },
    /// Remove it.
    Cancel,
    /// Hand out what is due.
    Claim {
        /// Out of sight for this long, in ns.
        visibility_ns: u64,
        /// The claim, where it is known.
        token: Option<u128>,
    },
    /// Remove it, if this claim is still the newest.
    Ack(u128),
    /// Keep it out of sight, if this claim is still the newest.
    Extend {
        /// The claim.
        token: u128,
        /// For this long from now, in ns.
        visibility_ns: u64,
    },
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DueReply {
    /// To `Schedule`: whether the item is new.
    Scheduled(bool),
    /// To `Cancel`: whether it was there.
    Cancelled(bool),
    /// To `Claim`: it was handed out.
    Handed {
        /// How often it was handed out, this time included.
        attempt: u32,
    },
    /// To `Claim`: it was not, though there was room for it.
    Passed,
    /// To `Ack` and `Extend`: done.
    Done,
    /// To `Ack` and `Extend`: the claim is no longer the newest.
    Lost,
}

/// An item in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Queued {
    /// When it can be handed out: out of sight until this is over.
    pub hidden: Lifetime,
    /// How often it was handed out.
    pub attempt: u32,
    /// The newest claim; `None` if it was never claimed, or by somebody who never learnt of it.
    pub claim: Option<u128>,
}

type DueCall = Call<DueOperation, DueReply>;

impl Specification for DueItem {
    type Operation = DueOperation;
    type Reply = DueReply;
    type State = Option<Queued>;

    fn start(&self) -> Option<Queued> {
        None
    }

    fn step(&self, state: &Option<Queued>, call: &DueCall) -> Option<Option<Queued>> {
        use DueOperation::{Ack, Cancel, Claim, Extend, Schedule};
        use DueReply::{Cancelled, Done, Handed, Lost, Passed, Scheduled};
        match (call.operation, call.reply) {
            (Schedule { .. }, Some(Scheduled(is_new))) if is_new != state.is_none() => None,
            (Schedule { after_ns }, Some(Scheduled(_)) | None) => Some(Some(self.queued(call, after_ns))),
            (Cancel, Some(Cancelled(was_there))) => (was_there == state.is_some()).then_some(None),
            (Cancel, None) => state.map(|_| None),
            (Claim { visibility_ns, token }, Some(Handed { attempt })) => {
                let after = self.claimed((*state)?, call, visibility_ns, token)?;
                (after.attempt == attempt).then_some(Some(after))
            }
            (Claim { visibility_ns, token }, None) => self.claimed((*state)?, call, visibility_ns, token).map(Some),
            (Claim { .. }, Some(Passed)) => state.is_none_or(|queued| queued.hidden.may_last(call)).then_some(*state),
            (Ack(token), Some(Done) | None) => is_newest(state, token).then_some(None),
            (Extend { token, visibility_ns }, Some(Done) | None) => {
                let extended = |queued| Queued { hidden: self.hidden(call, visibility_ns), ..queued };
                is_newest(state, token).then(|| state.map(extended))
            }
            (Ack(token) | Extend { token, .. }, Some(Lost)) => (!is_newest(state, token)).then_some(*state),
            _ => None,
        }
    }

    fn are_alike(&self, one: &DueOperation, other: &DueOperation) -> bool {
        one == other
    }
}

impl DueItem {
    fn hidden(&self, call: &DueCall, for_ns: u64) -> Lifetime {
        Lifetime::after(call, for_ns, self.uncertainty)
    }

    fn queued(&self, call: &DueCall, after_ns: u64) -> Queued {
        Queued { hidden: self.hidden(call, after_ns), attempt: 0, claim: None }
    }

    /// The item after a claim, if it may be in sight.
    fn claimed(&self, queued: Queued, call: &DueCall, visibility_ns: u64, claim: Option<u128>) -> Option<Queued> {
        let hidden = self.hidden(call, visibility_ns);
        queued.hidden.may_be_over(call).then_some(Queued { hidden, attempt: queued.attempt + 1, claim })
    }
}

fn is_newest(state: &Option<Queued>, token: u128) -> bool {
    state.is_some_and(|queued| queued.claim == Some(token))
}
