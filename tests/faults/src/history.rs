//! What all processes asked of all objects, and what they were told.

use acteon_state_conformance::history::{Call, Recorder};
use acteon_state_conformance::objects::{
    CounterOperation, CounterReply, LockOperation, LockReply, RegisterOperation, RegisterReply,
};
use acteon_state_core::StateKey;
use serde::{Deserialize, Serialize};

/// A whole history, in the order of the beginnings.
pub type History = Vec<Call<Asked, Told>>;

/// Collects a history.
pub type HistoryRecorder = Recorder<Asked, Told>;

/// Who asked what of which object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The process, or the task that stands for one: it makes one call at a time.
    pub process: u32,
    /// The object.
    pub object: StateKey,
    /// The question.
    pub question: Question,
}

/// A question to an object. Its kind is that of the object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// To a register.
    Register(RegisterOperation),
    /// To a counter.
    Counter(CounterOperation),
    /// To a lock.
    Lock(LockOperation),
    /// To a due queue.
    Due(DueQuestion),
}

/// What an object answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// By a register.
    Register(RegisterReply),
    /// By a counter.
    Counter(CounterReply),
    /// By a lock.
    Lock(LockReply),
    /// By a due queue.
    Due(DueAnswer),
}

/// A question to a due queue. Items and claims are named by their ids and tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DueQuestion {
    /// Schedule an item.
    Schedule {
        /// Its id.
        id: String,
        /// Due this long from now, in ns.
        after_ns: u64,
    },
    /// Remove an item.
    Cancel {
        /// Its id.
        id: String,
    },
    /// Claim what is due.
    Claim {
        /// At most this many.
        limit: u32,
        /// Out of sight for this long, in ns.
        visibility_ns: u64,
    },
    /// Acknowledge a claim.
    Ack {
        /// The item.
        id: String,
        /// The claim.
        token: u128,
    },
    /// Extend a claim.
    Extend {
        /// The item.
        id: String,
        /// The claim.
        token: u128,
        /// For this long from now, in ns.
        visibility_ns: u64,
    },
}

/// What a due queue answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DueAnswer {
    /// To `Schedule`: whether the item is new.
    Scheduled(bool),
    /// To `Cancel`: whether it was there.
    Cancelled(bool),
    /// To `Claim`: what is handed out, and whether it said that more are due already.
    Claimed(Vec<HandedOut>, bool),
    /// To `Ack` and `Extend`: done.
    Done,
    /// To `Ack` and `Extend`: the claim is no longer the newest.
    Lost,
}

/// One item of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedOut {
    /// The item.
    pub id: String,
    /// The claim.
    pub token: u128,
    /// How often it was handed out.
    pub attempt: u32,
}
