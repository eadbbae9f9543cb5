//! The trait that a driver implements.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::capabilities::Capabilities;
use crate::counter::{Increment, IncrementOutcome};
use crate::due::{ClaimDue, ClaimOutcome, ClaimToken, Claimed, Schedule, Scheduled};
use crate::entry::{Entry, Get, Ttl};
use crate::error::Result;
use crate::gate::{Gate, GateReply};
use crate::key::StateKey;
use crate::lock::request::{ExtendOutcome, LockOutcome, LockRequest, LockState, OwnerId, ReleaseOutcome};
use crate::lock::semantics::LockSemantics;
use crate::many::{BatchOp, BatchReply, TransactOp, TransactOutcome};
use crate::rate::{Decision, RateLimit};
use crate::scan::{Page, Scan, ScanItem};
use crate::write::{Condition, DeleteOutcome, Put, PutOutcome};

/// Shared state with one meaning on every backend: values with time to live, counters, rate limits, due times, locks.
///
/// Small and object-safe: applications hold it as a [`State`](crate::State), which adds typed values, streams and lock
/// guards. There are no default bodies, so that a driver or layer that forgets a method does not compile.
///
/// # What holds for every method
/// - *Atomic*: each call (each item of a batch) takes effect at one moment between its start and its end, or not at all.
///   An expired entry is absent inside that moment, whether or not it was removed yet.
/// - *Round trips*: one, where the backend can; the driver's documentation names the exceptions.
/// - *Cancellation*: dropping the future leaves the operation applied or not, never half. Dropping a waiting
///   [`lock_acquire`](Self::lock_acquire) leaves nothing held.
/// - *Errors*: kind and effect, see [`Error`](crate::Error). Reads are never `Unknown`. A request that a driver can see to be
///   wrong (`Invalid`, `TooLarge`, `Unsupported`) is refused before anything is sent. Data that does not parse is `Corrupt`.
/// - *Time*: the backend's clock decides.
#[async_trait]
pub trait StateStore: Debug + Send + Sync + 'static {
    /// The backend's name, as in the configuration.
    fn backend(&self) -> &str;

    /// What the connected backend can do.
    fn capabilities(&self) -> &Capabilities;

    /// What its locks guarantee.
    fn lock_semantics(&self) -> LockSemantics;

    /// Asks the backend for a sign of life: a real round trip.
    async fn ping(&self) -> Result<()>;

    /// Reads a value, or a counter as its decimal text. Absent and empty differ.
    async fn get(&self, key: &StateKey, get: Get) -> Result<Option<Entry>>;

    /// Writes a value if the condition holds; otherwise returns the live entry. Replaces a counter by a value.
    ///
    /// The fence of an entry survives writes with other conditions: only a delete, a take or expiry forgets it.
    async fn put(&self, key: &StateKey, put: &Put) -> Result<PutOutcome>;

    /// Deletes an entry if the condition holds. `Absent` as a condition is `Invalid`. `Always` and `Present` ask nothing of
    /// what is stored, so they also delete what does not parse.
    async fn delete(&self, key: &StateKey, condition: Condition) -> Result<DeleteOutcome>;

    /// Reads and deletes in one step: of N concurrent takes one gets the entry. What does not parse is `Corrupt` and stays.
    async fn take(&self, key: &StateKey) -> Result<Option<Entry>>;

    /// Changes the time to live without rewriting the entry or its version. `Keep` changes nothing. Returns whether there
    /// is a live entry.
    async fn touch(&self, key: &StateKey, ttl: Ttl) -> Result<bool>;

    /// Adds to a counter. `WrongType` on a value, `Overflow` when it would leave the range.
    async fn increment(&self, key: &StateKey, increment: Increment) -> Result<IncrementOutcome>;

    /// Counts a request against a rate limit. The state of a limit is apart from the value of the same key, and from the
    /// other algorithms.
    async fn rate_limit(&self, key: &StateKey, request: &RateLimit) -> Result<Decision>;

    /// Independent operations in as few round trips as the backend allows. One reply per operation, in their order; one
    /// that fails does not stop the others.
    async fn batch(&self, ops: &[BatchOp]) -> Result<Vec<Result<BatchReply>>>;

    /// All or nothing, isolated from every other operation. Sent again, a transaction that finds the version of one of its own
    /// puts is `Committed` already, and changes nothing.
    ///
    /// Where the version of one of its puts is what its key holds, this request was applied before: the repetition is
    /// `Committed` and changes nothing.
    async fn transact(&self, ops: &[TransactOp]) -> Result<TransactOutcome>;

    /// Asks gates in their order, in one round trip, until one does not let pass; see [`gate`](crate::gate). Declared by the
    /// capability `gates`.
    ///
    /// One reply for each gate that was asked, at least one. There may be fewer although all of them let pass: those that cannot go
    /// along in the same round trip, or that can be seen to be wrong, were not asked, and the caller asks them by themselves. A lock for
    /// which others wait in this process is such a gate, if its request names a wait.
    ///
    /// Dropping the future leaves no lock held; the other gates were passed or not.
    async fn admit(&self, gates: &[Gate]) -> Result<Vec<Result<GateReply>>>;

    /// One page of keys.
    async fn scan(&self, scan: &Scan) -> Result<Page<ScanItem>>;

    /// Schedules an item in a queue, replacing an earlier schedule of the same id.
    async fn schedule(&self, queue: &StateKey, schedule: &Schedule) -> Result<Scheduled>;

    /// Removes an item from a queue, claimed or not. Returns whether it was there.
    async fn cancel(&self, queue: &StateKey, id: &str) -> Result<bool>;

    /// Claims due items, the earliest first. A claim is exclusive until its visibility timeout.
    async fn claim_due(&self, queue: &StateKey, claim: ClaimDue) -> Result<Claimed>;

    /// Removes a claimed item that was dealt with.
    async fn ack(&self, queue: &StateKey, id: &str, token: ClaimToken) -> Result<ClaimOutcome>;

    /// Keeps a claimed item ours for `visibility` from now.
    async fn extend_claim(
        &self,
        queue: &StateKey,
        id: &str,
        token: ClaimToken,
        visibility: Duration,
    ) -> Result<ClaimOutcome>;

    /// Asks for a lock, and waits for it up to `request.wait`. The same owner again finds its own grant.
    async fn lock_acquire(&self, request: &LockRequest) -> Result<LockOutcome>;

    /// Moves the end of the owner's lease to `lease` from now.
    async fn lock_extend(&self, key: &StateKey, owner: OwnerId, lease: Duration) -> Result<ExtendOutcome>;

    /// Ends the owner's lease and wakes waiters.
    async fn lock_release(&self, key: &StateKey, owner: OwnerId) -> Result<ReleaseOutcome>;

    /// Who holds a lock; `None` when it was never granted, or so long ago that its record is gone.
    async fn lock_inspect(&self, key: &StateKey) -> Result<Option<LockState>>;

    /// Ends all leases of a lock, for operators; logs the reason. Returns how many were live.
    async fn lock_force_release(&self, key: &StateKey, reason: &str) -> Result<usize>;

    /// One page of locks, free ones included as long as their record is kept. Ordered by nothing; `with_entries` is ignored.
    async fn lock_list(&self, scan: &Scan) -> Result<Page<LockState>>;

    /// Finishes what is in flight and closes connections. Calls after it are `Closed`. Calling it again does nothing.
    async fn close(&self) -> Result<()>;
}
