//! A lock with leases, tokens and modes.

use serde::{Deserialize, Serialize};

use crate::history::Call;
use crate::linearizability::Specification;
use crate::objects::lifetime::{Lifetime, Uncertainty};

/// A lock.
///
/// A lease that may be over is taken to be over when another grant needs it to be, and to last when its owner is told so.
#[derive(Clone, Debug, Default)]
pub struct Lock {
    /// What leases may differ by.
    pub uncertainty: Uncertainty,
    /// Spans in which the backend may lose grants, as its declared semantics allow: a failover without a synchronous replica. Two
    /// holders may overlap only if the first was granted before the end of such a span and the second after its beginning.
    pub losses: Vec<Loss>,
}

/// A span in which grants may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Its first place.
    pub from: u64,
    /// Its last place.
    pub until: u64,
}

/// What a lock can be asked; owners are numbers, each used for one acquisition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockOperation {
    /// Grant it.
    Acquire {
        /// To this owner.
        owner: u32,
        /// Shared in this way.
        mode: Mode,
        /// For this long, in ns.
        lease_ns: u64,
    },
    /// Let the lease of an owner end later.
    Extend {
        /// This owner's.
        owner: u32,
        /// This long from now, in ns.
        lease_ns: u64,
    },
    /// Take it back from this owner.
    Release(u32),
}

/// How a lock is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// One holder.
    Exclusive,
    /// Any number of holders, none of them exclusive.
    Shared,
    /// At most this many holders.
    Permit(u32),
}

/// What a lock answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockReply {
    /// Granted, with this token.
    Granted(u64),
    /// Somebody else holds it.
    Busy,
    /// The lease was extended.
    Extended,
    /// It was released.
    Released,
    /// It was not held by this owner.
    Lost,
}

/// What a lock remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LockRecord {
    /// Who may hold it, by token.
    pub holders: Vec<Holder>,
    /// At least this token was granted.
    pub last_token: u64,
    /// Who released last: refused until another one releases.
    pub last_release: Option<u32>,
}

/// One holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The acquisition.
    pub owner: u32,
    /// How it shares.
    pub mode: Mode,
    /// Its token, unless nobody was told.
    pub token: Option<u64>,
    /// When it was granted, at the earliest.
    pub since: u64,
    /// When its lease ends.
    pub lease: Lifetime,
}

/// Ten minutes: a lease that does not end while a test runs, nor lasts for ever when it failed.
const LEASE_LONG_NS: u64 = 600_000_000_000;

impl LockOperation {
    /// An exclusive lock whose lease does not end by itself while the history lasts.
    #[must_use]
    pub const fn acquire(owner: u32) -> Self {
        Self::Acquire { owner, mode: Mode::Exclusive, lease_ns: LEASE_LONG_NS }
    }

    /// The acquisition that it is about.
    #[must_use]
    pub const fn owner(&self) -> u32 {
        match *self {
            Self::Acquire { owner, .. } | Self::Extend { owner, .. } | Self::Release(owner) => owner,
        }
    }
}

type LockCall = Call<LockOperation, LockReply>;

impl Specification for Lock {
    type Operation = LockOperation;
    type Reply = LockReply;
    type State = LockRecord;

    fn start(&self) -> LockRecord {
        LockRecord::default()
    }

    fn step(&self, state: &LockRecord, call: &LockCall) -> Option<LockRecord> {
        let owner = call.operation.owner();
        let held = state.holders.iter().position(|holder| holder.owner == owner);
        match (call.operation, call.reply) {
            (LockOperation::Acquire { mode, lease_ns, .. }, None | Some(LockReply::Granted(_))) => {
                self.grant(state, call, mode, lease_ns)
            }
            (LockOperation::Acquire { mode, .. }, Some(LockReply::Busy)) => {
                let others = state.holders.iter().filter(|holder| holder.owner != owner && holder.lease.may_last(call));
                let is_busy = state.last_release == Some(owner) || self.are_in_the_way(others, mode);
                is_busy.then(|| state.clone())
            }
            (LockOperation::Extend { lease_ns, .. }, None | Some(LockReply::Extended)) => {
                let at = held.filter(|at| state.holders[*at].lease.may_last(call))?;
                let mut after = state.clone();
                after.holders[at].lease = Lifetime::after(call, lease_ns, self.uncertainty);
                Some(after)
            }
            (LockOperation::Release(_), Some(LockReply::Released)) if state.last_release == Some(owner) => {
                Some(state.clone())
            }
            (LockOperation::Release(_), None | Some(LockReply::Released)) => {
                let mut after = state.without(held.filter(|at| state.holders[*at].lease.may_last(call))?);
                after.last_release = Some(owner);
                Some(after)
            }
            (LockOperation::Extend { .. } | LockOperation::Release(_), Some(LockReply::Lost)) => match held {
                Some(at) if self.may_be_over(&state.holders[at], call) => {
                    let may_return = self.uncertainty.may_return(call);
                    Some(if may_return { state.clone() } else { state.without(at) })
                }
                Some(_) => None,
                None => Some(state.clone()),
            },
            _ => None,
        }
    }
}

impl Lock {
    /// The record after a grant, if nobody who surely holds it is in the way and the token rises.
    fn grant(&self, state: &LockRecord, call: &LockCall, mode: Mode, lease_ns: u64) -> Option<LockRecord> {
        let owner = call.operation.owner();
        let lease = Lifetime::after(call, lease_ns, self.uncertainty);
        let told = call.reply.and_then(|reply| if let LockReply::Granted(token) = reply { Some(token) } else { None });
        let ours = state.holders.iter().position(|holder| holder.owner == owner);
        if let Some(at) = ours.filter(|at| state.holders[*at].lease.may_last(call)) {
            // A repeated request finds its grant, and the token that was drawn then.
            let stored = state.holders[at].token;
            if told.is_none() || stored.is_none() || stored == told {
                let mut after = state.clone();
                after.holders[at] = Holder { token: stored.or(told), lease, ..after.holders[at] };
                after.last_token = after.last_token.max(told.unwrap_or(0));
                return Some(after);
            }
        }
        let token = told.unwrap_or(state.last_token + 1);
        if token <= state.last_token || state.last_release == Some(owner) {
            return None;
        }
        let mut after = state.clone();
        after.holders.retain(|holder| holder.owner != owner && !self.may_be_over(holder, call));
        if self.are_in_the_way(after.holders.iter(), mode) {
            return None;
        }
        // Those that are not in the way may well last.
        after.holders.clone_from(&state.holders);
        after.holders.retain(|holder| {
            let is_in_the_way = self.are_in_the_way(std::iter::once(holder), mode);
            holder.owner != owner && !is_in_the_way && holder.lease.may_last(call)
        });
        after.holders.push(Holder { owner, mode, token: told, since: call.began, lease });
        after.last_token = token;
        Some(after)
    }

    fn are_in_the_way<'a>(&self, holders: impl Iterator<Item = &'a Holder>, mode: Mode) -> bool {
        let (mut count, mut is_mixed) = (0, false);
        for holder in holders {
            count += 1;
            is_mixed |= std::mem::discriminant(&holder.mode) != std::mem::discriminant(&mode);
        }
        match mode {
            Mode::Exclusive => count > 0,
            Mode::Shared => is_mixed,
            Mode::Permit(of) => is_mixed || count >= of,
        }
    }

    fn may_be_over(&self, holder: &Holder, call: &LockCall) -> bool {
        let is_lost = |loss: &Loss| holder.since <= loss.until && call.ended >= loss.from;
        holder.lease.may_be_over(call) || self.losses.iter().any(is_lost)
    }
}

impl LockRecord {
    fn without(&self, at: usize) -> Self {
        let mut after = self.clone();
        after.holders.remove(at);
        after
    }
}
