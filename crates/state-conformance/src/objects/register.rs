//! A value with conditional writes, time to live and a fence.

use serde::{Deserialize, Serialize};

use crate::history::Call;
use crate::linearizability::Specification;
use crate::objects::lifetime::{Lifetime, Uncertainty};

/// A value that is read, written, compared, deleted and taken. Values are numbers, each written once, and name their own version.
#[derive(Clone, Copy, Debug, Default)]
pub struct Register {
    /// What times to live may differ by.
    pub uncertainty: Uncertainty,
}

/// What a register can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegisterOperation {
    /// Read.
    Get,
    /// Write.
    Put(Write),
    /// Delete under a condition.
    Delete(If),
    /// Read and delete.
    Take,
}

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The value. The same number again is the same write, repeated.
    pub value: u32,
    /// What must hold.
    pub when: If,
    /// What happens to the time to live.
    pub ttl: WriteTtl,
}

/// The condition of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum If {
    /// None.
    Always,
    /// Nothing is there.
    Absent,
    /// Something is there.
    Present,
    /// This is there.
    Value(u32),
    /// No higher token is stored.
    Fence(u64),
}

/// The time to live of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteTtl {
    /// None.
    Clear,
    /// As before.
    Keep,
    /// This long, in ns.
    AfterNs(u64),
}

impl RegisterOperation {
    /// Writes this.
    #[must_use]
    pub const fn set(value: u32) -> Self {
        Self::Put(Write { value, when: If::Always, ttl: WriteTtl::Clear })
    }

    /// Writes this if nothing is there.
    #[must_use]
    pub const fn set_absent(value: u32) -> Self {
        Self::Put(Write { value, when: If::Absent, ttl: WriteTtl::Clear })
    }

    /// Writes the second if the first is there.
    #[must_use]
    pub const fn swap(old: u32, new: u32) -> Self {
        Self::Put(Write { value: new, when: If::Value(old), ttl: WriteTtl::Clear })
    }

    /// Writes this under a token.
    #[must_use]
    pub const fn fenced(token: u64, value: u32) -> Self {
        Self::Put(Write { value, when: If::Fence(token), ttl: WriteTtl::Clear })
    }
}

/// What a register answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegisterReply {
    /// To `Get` and `Take`: what was there.
    Found(Option<u32>),
    /// To a write: it was made.
    Written,
    /// To a write or delete: its condition did not hold; what was there.
    Refused(Option<u32>),
    /// To a delete: whether something was there.
    Deleted(bool),
}

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Held {
    /// The value.
    pub value: u32,
    /// The highest token it was written with.
    pub fence: Option<u64>,
    /// When it ends.
    pub life: Lifetime,
}

impl Specification for Register {
    type Operation = RegisterOperation;
    type Reply = RegisterReply;
    /// What may be there: more than one possibility while a time to live may or may not be over. Ascending.
    type State = Vec<Option<Held>>;

    fn start(&self) -> Self::State {
        vec![None]
    }

    fn step(&self, state: &Self::State, call: &Call<RegisterOperation, RegisterReply>) -> Option<Self::State> {
        let mut after = Vec::with_capacity(state.len());
        let found = state.iter().flat_map(|held| possibilities(*held, call).map(move |found| (*held, found)));
        for (held, found) in found {
            let (left, reply) = self.apply(found, call);
            if call.reply.map_or(left != found, |told| told == reply) {
                let is_only_hidden = found.is_none() && left.is_none() && self.uncertainty.may_return(call);
                after.push(if is_only_hidden { held } else { left });
            }
        }
        after.sort_unstable();
        after.dedup();
        (!after.is_empty()).then_some(after)
    }

    fn are_alike(&self, one: &RegisterOperation, other: &RegisterOperation) -> bool {
        use RegisterOperation::{Delete, Put, Take};
        match (one, other) {
            (Put(one), Put(other)) => one == other,
            (Delete(If::Always | If::Present) | Take, Delete(If::Always | If::Present) | Take) => true,
            (one, other) => one == other,
        }
    }
}

/// What a call may find where this is held.
fn possibilities(
    held: Option<Held>,
    call: &Call<RegisterOperation, RegisterReply>,
) -> impl Iterator<Item = Option<Held>> {
    let lasting = held.filter(|held| held.life.may_last(call)).map(Some);
    let over = held.is_none_or(|held| held.life.may_be_over(call)).then_some(None);
    lasting.into_iter().chain(over)
}

impl Register {
    fn apply(
        &self,
        found: Option<Held>,
        call: &Call<RegisterOperation, RegisterReply>,
    ) -> (Option<Held>, RegisterReply) {
        use RegisterReply::{Deleted, Found, Refused, Written};
        let value = found.map(|held| held.value);
        match call.operation {
            RegisterOperation::Get => (found, Found(value)),
            RegisterOperation::Take => (None, Found(value)),
            RegisterOperation::Delete(_) if found.is_none() => (None, Deleted(false)),
            RegisterOperation::Delete(when) if when.holds(found) => (None, Deleted(true)),
            // The version says that this very write was made before.
            RegisterOperation::Put(write) if value == Some(write.value) => (found, Written),
            RegisterOperation::Put(write) if write.when.holds(found) => (Some(self.write(found, write, call)), Written),
            RegisterOperation::Delete(_) | RegisterOperation::Put(_) => (found, Refused(value)),
        }
    }

    fn write(&self, found: Option<Held>, write: Write, call: &Call<RegisterOperation, RegisterReply>) -> Held {
        let fence = match write.when {
            If::Fence(token) => Some(token),
            _ => found.and_then(|held| held.fence),
        };
        let life = match write.ttl {
            WriteTtl::Clear => Lifetime::FOREVER,
            WriteTtl::Keep => found.map_or(Lifetime::FOREVER, |held| held.life),
            WriteTtl::AfterNs(ttl_ns) => Lifetime::after(call, ttl_ns, self.uncertainty),
        };
        Held { value: write.value, fence, life }
    }
}

impl If {
    fn holds(self, found: Option<Held>) -> bool {
        match (self, found) {
            (Self::Always, _) | (Self::Absent | Self::Fence(_), None) | (Self::Present, Some(_)) => true,
            (Self::Absent, Some(_)) | (Self::Present | Self::Value(_), None) => false,
            (Self::Value(value), Some(held)) => held.value == value,
            (Self::Fence(token), Some(held)) => held.fence.is_none_or(|stored| stored <= token),
        }
    }
}
