//! What an application holds while it holds a lock.
//!
//! # Guarantees
//! The guard's own deadline is counted from before the request was sent, on a clock that goes on during suspend, so it ends
//! before the lease does. [`lost`](LockGuard::lost) fires before that deadline. An unknown outcome counts as not held.
//!
//! # Failure
//! An acquisition that fails with unknown effect, or whose future is dropped, is followed by a release of its owner in the
//! background. So is a guard that is dropped without [`release`](LockGuard::release), or whose release failed: a request
//! whose own deadline has passed must not leave its locks held. Where that release does not get through either, the lease
//! ends by itself.
//!
//! # How it works
//! The limit on the whole hold caps the guard's own deadline, whoever extends the lease. Renewal, on request, is a task that
//! extends the lease after a third of it, with jitter, until the guard is gone, a heartbeat is missing, or the lock is lost. It cannot resurrect a lock: the backend
//! extends only what the owner still holds.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::BootInstant;
use crate::entry::FencingToken;
use crate::error::{Effect, Error, ErrorKind, Result};
use crate::gate::{Admission, Gate, GateReply};
use crate::key::StateKey;
use crate::lock::request::{
    ExtendOutcome, LockBusy, LockGrant, LockMode, LockOutcome, LockRequest, OwnerId, ReleaseOutcome,
};
use crate::store::StateStore;

/// How to take and hold a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockOptions {
    /// How long a grant lasts unless extended.
    pub lease: Duration,
    /// How long to wait when it is busy; zero returns at once.
    pub wait: Duration,
    /// How it is shared.
    pub mode: LockMode,
    /// What operators see.
    pub meta: String,
    /// Whether the lease is extended for as long as the guard lives.
    pub renew: bool,
    /// The guard is lost after this long in all, however often it is extended.
    pub hold_max: Option<Duration>,
    /// With renewal: the lease is extended only while [`LockGuard::beat`] was called within this time, so that a stuck holder
    /// loses the lock.
    pub heartbeat: Option<Duration>,
}

impl LockOptions {
    /// An exclusive lock for `lease`, without waiting and without renewal.
    #[must_use]
    pub const fn new(lease: Duration) -> Self {
        Self {
            lease,
            wait: Duration::ZERO,
            mode: LockMode::Exclusive,
            meta: String::new(),
            renew: false,
            hold_max: None,
            heartbeat: None,
        }
    }

    /// Waits up to `wait` when the lock is busy.
    #[must_use]
    pub const fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Shares the lock in this mode.
    #[must_use]
    pub const fn mode(mut self, mode: LockMode) -> Self {
        self.mode = mode;
        self
    }

    /// Says who holds it and why, for operators.
    #[must_use]
    pub fn meta(mut self, meta: impl Into<String>) -> Self {
        self.meta = meta.into();
        self
    }

    /// Extends the lease for as long as the guard lives.
    #[must_use]
    pub const fn renew(mut self) -> Self {
        self.renew = true;
        self
    }

    /// A request by a fresh owner.
    fn request(&self, key: &StateKey) -> LockRequest {
        LockRequest {
            key: key.clone(),
            owner: OwnerId::draw(),
            lease: self.lease,
            wait: self.wait,
            mode: self.mode,
            meta: self.meta.clone(),
        }
    }

    /// Gives the lock up after this long in all.
    #[must_use]
    pub const fn hold_max(mut self, hold_max: Duration) -> Self {
        self.hold_max = Some(hold_max);
        self
    }

    /// With renewal: gives the lock up when [`LockGuard::beat`] was not called for this long.
    #[must_use]
    pub const fn heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = Some(heartbeat);
        self
    }
}

/// What came of asking for a lock.
#[derive(Debug)]
pub enum LockAttempt {
    /// It is ours.
    Acquired(LockGuard),
    /// Others hold it, and did until the wait was over.
    Busy(LockBusy),
}

impl LockAttempt {
    /// The guard, if it is ours.
    #[must_use]
    pub fn acquired(self) -> Option<LockGuard> {
        match self {
            Self::Acquired(guard) => Some(guard),
            Self::Busy(_) => None,
        }
    }
}

/// A held lock. Release it; dropping it releases it in the background, without telling whether it was still ours.
///
/// Work that may take longer than the lease asks for renewal, stops when the lock is lost, and fences what it writes:
///
/// ```
/// # use std::{sync::Arc, time::Duration};
/// # use acteon_state_core::{LockAttempt, LockGuard, LockOptions, Put, Result, StateKey, StateStore};
/// # async fn work() -> &'static str { "done" }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// # let store: Arc<dyn StateStore> = Arc::new(acteon_state_memory::MemoryStore::default());
/// # let key = StateKey::new("billing", "acme", "invoice", "7")?;
/// let options = LockOptions::new(Duration::from_secs(10)).wait(Duration::from_secs(2)).renew().meta("node 3");
/// match LockGuard::acquire(store.clone(), &key, &options).await? {
///     LockAttempt::Busy(busy) => println!("try again in {:?}", busy.retry_after),
///     LockAttempt::Acquired(guard) => tokio::select! {
///         () = guard.lost() => println!("somebody else may hold the lock: stop"),
///         result = work() => {
///             // Refused if a later holder has written: a pause between the work and this line does no harm.
///             store.put(&key, &Put::new(result).fenced_by(guard.token())).await?;
///             guard.release().await?;
///         }
///     },
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct LockGuard {
    lease: Arc<Lease>,
    renewal: Option<AbortHandle>,
    runtime: Handle,
    released: bool,
}

/// What the guard, its renewal and its watchers share.
#[derive(Debug)]
struct Lease {
    store: Arc<dyn StateStore>,
    key: StateKey,
    owner: OwnerId,
    token: FencingToken,
    /// When the limit on the whole hold is reached.
    hold_end: Option<BootInstant>,
    /// All are read and written as a whole, for an instant; never held across an await.
    times: Mutex<Times>,
    lost: CancellationToken,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    /// When we must have stopped: before the lease ends on the backend, and when the limit on the hold is reached.
    deadline: BootInstant,
    /// When `lost` fires.
    lost_at: BootInstant,
    last_beat: BootInstant,
}

/// `lost` fires this share of the lease before the deadline: time to stop in, and slack for late timers.
const MARGIN_SHARE: u32 = 10;
const MARGIN_MAX: Duration = Duration::from_secs(2);
/// Timers do not run during suspend: sleeps are cut, so that a deadline that passed meanwhile is seen this soon after.
const SLEEP_MAX: Duration = Duration::from_millis(500);

impl LockGuard {
    /// Asks `store` for the lock.
    ///
    /// Dropping the future leaves nothing held: the owner is released in the background.
    ///
    /// # Errors
    /// As [`StateStore::lock_acquire`]. An error of unknown effect was followed by a release in the background.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn acquire(store: Arc<dyn StateStore>, key: &StateKey, options: &LockOptions) -> Result<LockAttempt> {
        let request = options.request(key);
        let pending = Pending { store: Some(store), key, owner: request.owner, runtime: Handle::current() };
        let (store, outcome) = pending.acquire(&request).await?;
        Ok(Self::attempt(store, request, outcome, options))
    }

    /// Asks gates, and for the lock behind them once, without waiting. Otherwise as [`acquire`](Self::acquire).
    pub(crate) async fn acquire_behind(
        store: Arc<dyn StateStore>,
        mut gates: Vec<Gate>,
        key: &StateKey,
        options: &LockOptions,
    ) -> Result<Admission> {
        let request = options.request(key);
        let pending = Pending { store: Some(store), key, owner: request.owner, runtime: Handle::current() };
        gates.push(Gate::Lock(request.clone()));
        let (store, mut replies) = pending.admit(&gates).await?;
        if replies.len() < gates.len() {
            return Ok(Admission { replies, lock: None });
        }
        let lock = replies.pop().map(|reply| match reply? {
            GateReply::Lock(outcome) => Ok(Self::attempt(store, request, outcome, options)),
            other => Err(Error::new(ErrorKind::Internal, format!("a lock was answered by {other:?}")).with_key(key)),
        });
        Ok(Admission { replies, lock })
    }

    fn attempt(
        store: Arc<dyn StateStore>,
        request: LockRequest,
        outcome: LockOutcome,
        options: &LockOptions,
    ) -> LockAttempt {
        match outcome {
            LockOutcome::Granted(grant) => LockAttempt::Acquired(Self::new(store, request, grant, options)),
            LockOutcome::Busy(busy) => LockAttempt::Busy(busy),
        }
    }

    fn new(store: Arc<dyn StateStore>, request: LockRequest, grant: LockGrant, options: &LockOptions) -> Self {
        let now = BootInstant::now();
        let hold_end = options.hold_max.map(|hold_max| now + hold_max);
        let lease = Arc::new(Lease {
            store,
            key: request.key,
            owner: request.owner,
            token: grant.token,
            hold_end,
            times: Mutex::new(Times::new(grant.deadline, options.lease, hold_end, now)),
            lost: CancellationToken::new(),
        });
        let runtime = Handle::current();
        let renewal = options.renew.then(|| {
            let renewal = Renewal { lease: lease.clone(), every: options.lease, heartbeat: options.heartbeat };
            runtime.spawn(renewal.run()).abort_handle()
        });
        Self { lease, renewal, runtime, released: false }
    }

    /// The lock's name.
    #[must_use]
    pub fn key(&self) -> &StateKey {
        &self.lease.key
    }

    /// This acquisition.
    #[must_use]
    pub fn owner(&self) -> OwnerId {
        self.lease.owner
    }

    /// The fencing token: write with [`Put::fenced_by`](crate::Put::fenced_by) what the lock protects.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.lease.token
    }

    /// How long the lock is certainly still ours; zero once it is lost.
    #[must_use]
    pub fn valid_for(&self) -> Duration {
        if self.lease.lost.is_cancelled() {
            return Duration::ZERO;
        }
        self.lease.times.lock().deadline.remaining()
    }

    /// Whether the lock is certainly still ours, by our own clock: asks nobody.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.valid_for().is_zero()
    }

    /// Tells the renewal that the holder is alive; see [`LockOptions::heartbeat`].
    pub fn beat(&self) {
        self.lease.times.lock().last_beat = BootInstant::now();
    }

    /// Completes when the lock is lost or about to be: a tenth of the lease (at most 2 s) before it ends by our own clock,
    /// when an extension found it gone, when the hold limit is reached, or when a missing heartbeat ended the renewal.
    /// Independent of the guard's life; completes also after a release.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let lease = self.lease.clone();
        async move { lease.watch().await }
    }

    /// Extends the lease by `lease` again and again, as [`LockOptions::renew`] does, for as long as the future is polled, without
    /// a task of its own: for work that is awaited in the same place. Completes when the lock is lost or about to be, and
    /// never before; then it makes [`lost`](Self::lost) superfluous.
    ///
    /// Dropping the future ends the renewal; the guard stays.
    pub fn keep(&self, lease: Duration) -> impl Future<Output = ()> + Send + 'static + use<> {
        Renewal { lease: self.lease.clone(), every: lease, heartbeat: None }.run()
    }

    /// Moves the end of the lease to `lease` from now. On `Lost` the guard is lost. The hold limit, if any, stays.
    ///
    /// Dropping the future may leave the lease extended without our knowing: our own deadline stays where it was.
    ///
    /// # Errors
    /// As [`StateStore::lock_extend`]; the deadline stays where it was.
    pub async fn extend(&self, lease: Duration) -> Result<ExtendOutcome> {
        self.lease.extend(lease).await
    }

    /// Releases the lock. `AlreadyLost` when it was not ours any more: not an error, but what was done under it may have
    /// overlapped with another holder.
    ///
    /// Dropping the future leaves nothing held: the release is sent again in the background.
    ///
    /// # Errors
    /// As [`StateStore::lock_release`]. It is then tried once more in the background, apart from any deadline of the caller.
    pub async fn release(mut self) -> Result<ReleaseOutcome> {
        self.stop_renewal();
        let outcome = self.lease.store.lock_release(&self.lease.key, self.lease.owner).await;
        // Only now and only then: if this future is dropped while it waits, or failed, the guard's drop sends it again.
        self.released = outcome.is_ok();
        self.lease.lost.cancel();
        outcome
    }

    fn stop_renewal(&mut self) {
        if let Some(renewal) = self.renewal.take() {
            renewal.abort();
        }
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.stop_renewal();
        if !self.released {
            self.lease.lost.cancel();
            release_in_background(&self.runtime, self.lease.store.clone(), self.lease.key.clone(), self.lease.owner);
        }
    }
}

impl Times {
    /// Of a lease of this length that ends at `lease_end`.
    fn new(lease_end: BootInstant, lease: Duration, hold_end: Option<BootInstant>, last_beat: BootInstant) -> Self {
        // Nobody else can take the lock when the hold ends, so only the end of the lease needs a margin.
        let within_hold = |at: BootInstant| hold_end.map_or(at, |end| at.min(end));
        let margin = (lease / MARGIN_SHARE).min(MARGIN_MAX);
        Self { deadline: within_hold(lease_end), lost_at: within_hold(lease_end.earlier_by(margin)), last_beat }
    }
}

pub(crate) fn release_in_background(runtime: &Handle, store: Arc<dyn StateStore>, key: StateKey, owner: OwnerId) {
    runtime.spawn(async move {
        if let Err(error) = store.lock_release(&key, owner).await {
            tracing::debug!(%key, %error, "a lock was not released in the background; its lease ends by itself");
        }
    });
}

/// An acquisition under way: dropped before its end, it releases its owner.
struct Pending<'a> {
    store: Option<Arc<dyn StateStore>>,
    key: &'a StateKey,
    owner: OwnerId,
    runtime: Handle,
}

impl Pending<'_> {
    async fn acquire(mut self, request: &LockRequest) -> Result<(Arc<dyn StateStore>, LockOutcome)> {
        let store = self.store()?;
        let outcome = store.lock_acquire(request).await;
        self.learn(outcome.as_ref().err());
        Ok((store, outcome?))
    }

    async fn admit(mut self, gates: &[Gate]) -> Result<(Arc<dyn StateStore>, Vec<Result<GateReply>>)> {
        let store = self.store()?;
        let replies = store.admit(gates).await;
        self.learn(match &replies {
            Ok(replies) => replies.last().and_then(|last| last.as_ref().err()),
            Err(error) => Some(error),
        });
        Ok((store, replies?))
    }

    fn store(&self) -> Result<Arc<dyn StateStore>> {
        self.store.clone().ok_or_else(|| Error::invalid("the acquisition was used twice"))
    }

    /// There is an answer, or an error: only one of unknown effect may hide a grant.
    fn learn(&mut self, error: Option<&Error>) {
        if error.is_none_or(|error| error.effect() != Effect::Unknown) {
            self.store = None;
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(store) = self.store.take() {
            release_in_background(&self.runtime, store, self.key.clone(), self.owner);
        }
    }
}

impl Lease {
    async fn extend(&self, lease: Duration) -> Result<ExtendOutcome> {
        let sent_at = BootInstant::now();
        let outcome = self.store.lock_extend(&self.key, self.owner, lease).await?;
        match outcome {
            ExtendOutcome::Extended => {
                let mut times = self.times.lock();
                *times = Times::new(sent_at + lease, lease, self.hold_end, times.last_beat);
            }
            ExtendOutcome::Lost => self.lost.cancel(),
        }
        Ok(outcome)
    }

    /// Completes when the lock is lost, or is about to be.
    async fn watch(&self) {
        loop {
            let left = self.times.lock().lost_at.remaining();
            if left.is_zero() {
                self.lost.cancel();
                return;
            }
            tokio::select! {
                () = self.lost.cancelled() => return,
                () = tokio::time::sleep(left.min(SLEEP_MAX)) => {}
            }
        }
    }
}

/// Extends a lease for as long as it may.
struct Renewal {
    lease: Arc<Lease>,
    every: Duration,
    heartbeat: Option<Duration>,
}

impl Renewal {
    async fn run(self) {
        tokio::select! {
            () = self.lease.watch() => {}
            () = self.renew() => {}
        }
        if self.lease.hold_end.is_some_and(|end| end.remaining().is_zero()) {
            tracing::warn!(key = %self.lease.key, "a lock is given up: the limit on its hold is reached");
        }
    }

    /// Returns when the lock is lost, and never before.
    async fn renew(&self) {
        let mut pause = jittered(self.every / 3);
        loop {
            tokio::time::sleep(pause).await;
            if self.is_silent() {
                tracing::warn!(key = %self.lease.key, "a lock is given up: its holder gave no sign of life");
                self.lease.lost.cancel();
                return;
            }
            pause = match self.lease.extend(self.every).await {
                Ok(ExtendOutcome::Extended) => jittered(self.every / 3),
                Ok(ExtendOutcome::Lost) => return,
                Err(error) => {
                    tracing::debug!(key = %self.lease.key, %error, "a lock was not extended; trying again");
                    jittered(self.every / 20)
                }
            };
        }
    }

    fn is_silent(&self) -> bool {
        self.heartbeat.is_some_and(|heartbeat| (self.lease.times.lock().last_beat + heartbeat).remaining().is_zero())
    }
}

/// Between 80 % and 100 % of a pause, so that holders that began together do not extend together.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.8..=1.0))
}
