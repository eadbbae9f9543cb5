//! The due index: work that waits for its time, is claimed, and comes back unless it is acknowledged.
//!
//! # Guarantees
//! At least once, never lost: a claim is exclusive until its visibility timeout, then the item is handed out again with
//! a higher attempt count. Only the holder of a claim can acknowledge or extend it.
//!
//! # Example
//! ```
//! # use std::{sync::Arc, time::Duration};
//! # use acteon_state_core::{ClaimDue, DueAt, Schedule, State, StateKey};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> acteon_state_core::Result<()> {
//! # let state = State::new(Arc::new(acteon_state_memory::MemoryStore::default()));
//! let queue = StateKey::new("mail", "acme", "queue", "reminders")?;
//! let reminder = Schedule { id: "ada".into(), due_at: DueAt::After(Duration::ZERO), payload: "call back".into() };
//! state.schedule(&queue, &reminder).await?;
//!
//! let claimed = state.claim_due(&queue, ClaimDue { limit: 10, visibility: Duration::from_secs(30) }).await?;
//! for item in &claimed.items {
//!     // A crash before the next line hands the item out again after 30 s.
//!     println!("{}, attempt {}", item.id, item.attempt);
//!     state.ack(&queue, item).await?;
//! }
//! # Ok(()) }
//! ```

use std::time::Duration;

use bytes::Bytes;

use crate::capabilities::Capabilities;
use crate::entry::{ceil_ms, duration_ms};
use crate::error::{Error, ErrorKind, Result};
use crate::id::identifier;
use crate::key::ID_BYTES_MAX;

/// The most items of one claim.
pub const CLAIM_LIMIT_MAX: u32 = 1_000;
/// The latest due time that every backend can hold: scores of a sorted set are exact up to 2^53.
pub const DUE_AT_MS_MAX: u64 = (1 << 53) - 1;

identifier! {
    /// Names one claim: what `ack` and `extend` must present.
    ClaimToken
}

/// When an item is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DueAt {
    /// At this time of the backend's clock, in milliseconds since 1970-01-01 UTC. A time in the past is due now.
    UnixMs(u64),
    /// This long after the request arrives, by the backend's clock. Zero is due now.
    After(Duration),
}

/// An item to schedule. Replaces an earlier schedule of the same id in the queue, also one that is claimed at the moment:
/// its claim is void then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Names the item within its queue: 1 to 512 bytes without NUL.
    pub id: String,
    /// When it is due.
    pub due_at: DueAt,
    /// What the worker gets.
    pub payload: Bytes,
}

impl Schedule {
    /// Checks the request, before anything is sent.
    ///
    /// # Errors
    /// `Invalid` for the id or the time, `TooLarge` for the payload, `Unsupported` where there is no due index.
    pub fn check(&self, capabilities: &Capabilities) -> Result<()> {
        if !capabilities.due {
            return Err(Error::unsupported("due"));
        }
        check_item_id(&self.id)?;
        let (bytes, bytes_max) = (self.payload.len() as u64, capabilities.value_bytes_max);
        if bytes > bytes_max {
            let message = format!("the payload has {bytes} bytes; this backend takes at most {bytes_max}");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        match self.due_at {
            DueAt::UnixMs(at_ms) if at_ms > DUE_AT_MS_MAX => {
                Err(Error::invalid(format!("due time {at_ms} ms is out of range: allowed are 0 to {DUE_AT_MS_MAX}")))
            }
            DueAt::After(delay) if !delay.is_zero() => duration_ms("delay", delay).map(|_| ()),
            DueAt::UnixMs(_) | DueAt::After(_) => Ok(()),
        }
    }

    /// The due time in milliseconds on a clock that reads `now_ms`.
    #[must_use]
    pub fn due_at_ms(&self, now_ms: u64) -> u64 {
        match self.due_at {
            DueAt::UnixMs(at_ms) => at_ms,
            DueAt::After(delay) => now_ms.saturating_add(ceil_ms(delay)),
        }
    }
}

/// Checks the id of an item.
///
/// # Errors
/// `Invalid` unless it is 1 to 512 bytes without NUL.
pub fn check_item_id(id: &str) -> Result<()> {
    if id.is_empty() || id.len() > ID_BYTES_MAX || id.contains('\0') {
        return Err(Error::invalid(format!("the item's id must be 1 to {ID_BYTES_MAX} bytes without NUL")));
    }
    Ok(())
}

/// What came of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduled {
    /// The id was new in the queue.
    Created,
    /// It replaced an earlier schedule of the id.
    Replaced,
}

/// A request for due items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimDue {
    /// At most this many: 1 to 1,000.
    pub limit: u32,
    /// How long the items are ours before they are handed out again.
    pub visibility: Duration,
}

impl ClaimDue {
    /// Checks the request and returns the visibility in milliseconds.
    ///
    /// # Errors
    /// `Invalid` or `TooLarge` for the limit, `Invalid` for the visibility, `Unsupported` where there is no due index.
    pub fn check(&self, capabilities: &Capabilities) -> Result<u64> {
        if !capabilities.due {
            return Err(Error::unsupported("due"));
        }
        if self.limit == 0 || self.limit > CLAIM_LIMIT_MAX {
            let kind = if self.limit == 0 { ErrorKind::Invalid } else { ErrorKind::TooLarge };
            let message = format!("claim limit {} is out of range: allowed are 1 to {CLAIM_LIMIT_MAX}", self.limit);
            return Err(Error::new(kind, message));
        }
        duration_ms("visibility", self.visibility)
    }
}

/// A claimed item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueItem {
    /// Its id within the queue.
    pub id: String,
    /// What was scheduled.
    pub payload: Bytes,
    /// When it was due, in milliseconds since 1970-01-01 UTC.
    pub due_at_ms: u64,
    /// How often it was handed out, this time included: 1 for the first.
    pub attempt: u32,
    /// What to present to `ack` and `extend_claim`.
    pub token: ClaimToken,
}

/// What a claim found: items in order of their time, the earliest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    /// The items that are ours now.
    pub items: Vec<DueItem>,
    /// How long until the next item of the queue is due or, if it is claimed (by this very call, too), becomes visible again.
    /// Zero when more are due already, be it that others are just looking at them; `None` when the queue is empty. A worker sleeps this long, or less: something earlier
    /// may be scheduled meanwhile.
    pub next_due_in: Option<Duration>,
}

/// Whether a claim was still ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// It was, and the request was carried out.
    Done,
    /// The item was handed out again, replaced, cancelled or acknowledged: nothing changed.
    Lost,
}
