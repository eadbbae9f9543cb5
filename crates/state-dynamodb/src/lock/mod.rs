//! Locks: one item per lock, changed by conditional updates.
//!
//! # Guarantees
//! Of two that ask for a lock one gets it, since each write is under the condition that nothing has changed. Tokens rise for as
//! long as the table exists: the item of a lock is never removed. What DynamoDB has acknowledged survives the crash of any of
//! its servers.
//!
//! # Time
//! DynamoDB tells no time in conditions, so a lease ends by the clocks of clients. Its holder stops at its own deadline, on a
//! clock of its own. Others take a lease for ended when
//! - the calibrated time (see [`clock`](crate::clock)) is past its end by `skew_max`, and both the client that wrote the end
//!   and the one that looks at it keep that bound; or
//! - it was seen unchanged for its whole length on a clock that nobody sets (see [`observe`]).
//!
//! # How it works
//! | operation | requests |
//! |---|---|
//! | acquire of a free lock, extend and release by the only holder | 1 write |
//! | acquire of a lock that is held | 1 write that is refused; 1 more if its lease has ended, or it is shared |
//! | extend and release by one of several holders, extension to an earlier end | 1 write that is refused, 1 more |
//! | another look of a waiter | 1 read; 1 write if the lock is to be had |
//! | force-release, withdrawal | 1 read, 1 write |
//! | inspect | 1 read |
//! | list | 1 query of the index per shard and page, 1 read per lock |
//!
//! Each is of one unit, or half a unit for a read, while the item is below 1 KB; the first grant of a lock also costs a unit for the
//! index. A refused write brings the item along; what follows is decided here, by the contract crate's `lock::record`, and written
//! under the condition that the item has not changed since. Where it has, the decision is made anew, a bounded number of times.

mod list;
mod observe;
mod record;
mod wait;

use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::clock::BootInstant;
use acteon_state_core::entry::duration_ms;
use acteon_state_core::key::Companion;
use acteon_state_core::lock::line::{Attempt, Lines};
use acteon_state_core::lock::record::{Grant, Holder};
use acteon_state_core::{
    Error, ErrorKind, ExtendOutcome, FencingToken, LockGrant, LockRequest, LockState, Operation, OwnerId,
    ReleaseOutcome, Result, StateKey,
};
use aws_sdk_dynamodb::operation::update_item::UpdateItemOutput;
use aws_sdk_dynamodb::types::{ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure};
use tokio_util::task::TaskTracker;

use crate::address::Address;
use crate::call::Refused;
use crate::condition::Expression;
use crate::error::Access;
use crate::item::{Item, number};
use crate::store::Inner;

use observe::Observations;
use record::{FREE, LATER, Moment, Stored, View, Writer, extension, ours, release};
use wait::{Ask, Turns, Wake};

/// How often a decision is made anew because others changed the lock meanwhile.
const ROUNDS_MAX: u32 = 64;
/// The pause before a decision is made anew, at most; it doubles from the first to this.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// What this process keeps about locks.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    lines: Arc<Lines>,
    observations: Observations,
    turns: Arc<Turns>,
    tasks: TaskTracker,
}

impl Locks {
    /// Lets questions under way and what they leave behind finish.
    pub(crate) async fn close(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// An operation on a lock, for [`change`](Inner::change).
#[derive(Clone, Copy, Debug)]
struct Doing<'a> {
    operation: Operation,
    key: &'a StateKey,
    address: &'a Address,
    writer: Writer,
}

impl Inner {
    pub(crate) async fn lock_extend(&self, key: &StateKey, owner: OwnerId, lease: Duration) -> Result<ExtendOutcome> {
        let lease_ms = duration_ms("lease", lease)?;
        let address = self.lock_address(key);
        let writer = Writer { owner: Some(owner), lease_ms: Some(lease_ms) };
        let doing = Doing { operation: Operation::LockExtend, key, address: &address, writer };
        let moment = self.moment();
        let update = extension(ends_at_us(&moment, lease_ms), lease_ms, moment.skew.is_some());
        let condition = ours(owner, moment.now_us);
        let condition = Expression { text: format!("{} AND {LATER}", condition.text).into(), ..condition };
        let found = match self.update_lock(doing, update, condition).await {
            Ok(()) => return Ok(ExtendOutcome::Extended),
            Err(refused) => item_of(refused)?,
        };
        let (is_extended, _) =
            self.change(doing, found, |view| view.record.extend(owner, lease_ms, view.now_us)).await?;
        Ok(if is_extended { ExtendOutcome::Extended } else { ExtendOutcome::Lost })
    }

    pub(crate) async fn lock_release(&self, key: &StateKey, owner: OwnerId) -> Result<ReleaseOutcome> {
        let address = self.lock_address(key);
        let _wake = Wake { lines: &self.locks.lines, lock: &address.pk };
        let writer = Writer { owner: Some(owner), lease_ms: None };
        let doing = Doing { operation: Operation::LockRelease, key, address: &address, writer };
        let found = match self.update_lock(doing, release(), ours(owner, self.clock.now_us())).await {
            Ok(()) => return Ok(ReleaseOutcome::Released),
            Err(refused) => item_of(refused)?,
        };
        let (outcome, _) = self.change(doing, found, |view| view.record.release(owner, view.now_us)).await?;
        Ok(outcome)
    }

    pub(crate) async fn lock_force_release(&self, key: &StateKey, reason: &str) -> Result<usize> {
        let address = self.lock_address(key);
        let _wake = Wake { lines: &self.locks.lines, lock: &address.pk };
        let doing = Doing { operation: Operation::LockForceRelease, key, address: &address, writer: Writer::default() };
        let found = self.read_lock(doing.operation, &address).await?;
        let (count, _) = self.change(doing, found, |view| view.record.force_release(view.now_us)).await?;
        tracing::warn!(lock = %key, holders = count, reason, "a lock was released by force");
        Ok(count)
    }

    pub(crate) async fn lock_inspect(&self, key: &StateKey) -> Result<Option<LockState>> {
        self.lock_state(Operation::LockInspect, key).await
    }

    /// Undoes a grant that nobody learnt of. Unlike a release it leaves the owner free to ask again.
    async fn lock_withdraw(&self, key: &StateKey, owner: OwnerId) -> Result<()> {
        let address = self.lock_address(key);
        let _wake = Wake { lines: &self.locks.lines, lock: &address.pk };
        let writer = Writer { owner: Some(owner), lease_ms: None };
        // It is part of what acquisitions cost.
        let doing = Doing { operation: Operation::LockAcquire, key, address: &address, writer };
        let found = self.read_lock(doing.operation, &address).await?;
        self.change(doing, found, |view| view.record.withdraw(owner, view.now_us)).await.map(|_| ())
    }

    /// Asks for a lock once.
    async fn attempt(&self, request: &LockRequest, lease_ms: u64, ask: Ask) -> Result<Attempt> {
        let address = self.lock_address(&request.key);
        let writer = Writer { owner: Some(request.owner), lease_ms: Some(lease_ms) };
        let doing = Doing { operation: Operation::LockAcquire, key: &request.key, address: &address, writer };
        let found = match ask {
            Ask::Read => self.read_lock(doing.operation, &address).await?,
            Ask::Write => match self.take_free(doing, request, lease_ms).await? {
                Taken::Granted(grant) => return Ok(Attempt::Granted(grant)),
                Taken::NotFree(found) => found,
            },
        };
        let decide = |view: &mut View| {
            let grant = view.record.acquire(request, lease_ms, view.now_us);
            (grant, view.busy(), view.record.last_release == Some(request.owner))
        };
        let ((grant, busy, has_released), sent_at) = self.change(doing, found, decide).await?;
        match grant {
            Grant::Granted(token) => Ok(Attempt::Granted(LockGrant { token, deadline: sent_at + request.lease })),
            Grant::Busy(_) if has_released => Ok(Attempt::Refused(busy)),
            Grant::Busy(_) => Ok(Attempt::Busy(busy)),
            Grant::TokensExhausted => Err(tokens_exhausted()),
        }
    }

    /// Takes a lock that nobody holds, without looking first.
    async fn take_free(&self, doing: Doing<'_>, request: &LockRequest, lease_ms: u64) -> Result<Taken> {
        let moment = self.moment();
        let token = FencingToken::next(0, moment.now_us).ok_or_else(tokens_exhausted)?;
        let holder = Holder {
            mode: request.mode,
            token,
            expires_at_us: ends_at_us(&moment, lease_ms),
            since_us: moment.now_us,
            owner: request.owner,
            meta: request.meta.clone(),
        };
        let granted = Stored::granted(holder, lease_ms, moment.skew.is_some());
        let update = granted.update(self.listed_under(&request.key));
        match self.update_lock(doing, update, Expression::new(FREE).with(":none", number(0))).await {
            // From before the request was sent: whatever it takes to arrive, the lease ends later than this.
            Ok(()) => Ok(Taken::Granted(LockGrant { token, deadline: moment.boot + request.lease })),
            Err(refused) => item_of(refused).map(Taken::NotFree),
        }
    }

    /// Decides on a lock that was found like this, and writes what was decided unless it changes nothing. Returns the decision,
    /// and a moment before the write was sent.
    async fn change<T>(
        &self,
        doing: Doing<'_>,
        mut found: Option<Item>,
        mut decide: impl FnMut(&mut View) -> T,
    ) -> Result<(T, BootInstant)> {
        for round in 0..ROUNDS_MAX {
            let stored = Stored::read(doing.key, found.as_ref())?;
            let moment = self.moment();
            let mut view = stored.view(&doing.address.pk, doing.writer, &self.locks.observations, &moment);
            let before = view.record.clone();
            let decision = decide(&mut view);
            let Some(next) = stored.changed_to(&before, view, doing.writer, moment.skew.is_some()) else {
                return Ok((decision, moment.boot));
            };
            let update = next.update(self.listed_under(doing.key));
            match self.update_lock(doing, update, stored.unchanged()).await {
                Ok(()) => return Ok((decision, moment.boot)),
                Err(refused) => found = item_of(refused)?,
            }
            tokio::time::sleep(pause(round)).await;
        }
        Err(Error::new(ErrorKind::Contended, format!("others changed the lock in each of {ROUNDS_MAX} attempts")))
    }

    async fn update_lock(&self, doing: Doing<'_>, update: Expression, condition: Expression) -> Result<(), Refused> {
        let (update, condition, values) = update.under(condition);
        let request = self
            .client
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(doing.address.item()))
            .update_expression(update)
            .condition_expression(condition)
            .set_expression_attribute_values(values)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let written = self.gate.write(request.send()).await;
        let consumed = written.as_ref().ok().and_then(UpdateItemOutput::consumed_capacity);
        self.capacity.add(doing.operation, Access::Write, consumed);
        written.map(|_| ())
    }

    /// Always consistent: who decides by an old item writes in vain.
    async fn read_lock(&self, operation: Operation, address: &Address) -> Result<Option<Item>> {
        let request = self
            .client
            .get_item()
            .table_name(&*self.table)
            .set_key(Some(address.item()))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = self.gate.call(Access::Read, request.send()).await?;
        self.capacity.add(operation, Access::Read, output.consumed_capacity());
        Ok(output.item)
    }

    async fn lock_state(&self, operation: Operation, key: &StateKey) -> Result<Option<LockState>> {
        let address = self.lock_address(key);
        let found = self.read_lock(operation, &address).await?;
        let stored = Stored::read(key, found.as_ref())?;
        if !stored.exists() {
            return Ok(None);
        }
        let view = stored.view(&address.pk, Writer::default(), &self.locks.observations, &self.moment());
        Ok(view.record.state(key, view.now_us))
    }

    fn lock_address(&self, key: &StateKey) -> Address {
        self.addresses.companion(key, Companion::Lock)
    }

    /// The partition of the index in which a lock is listed.
    fn listed_under(&self, key: &StateKey) -> String {
        self.addresses.lock_list_pk(&key.scope(), self.addresses.lock_list_shard(key))
    }

    fn moment(&self) -> Moment {
        // The own deadline first: it must not end after the lease that is written.
        let boot = BootInstant::now();
        let skew = self.clock.keeps_bound().then(|| self.clock.skew_max());
        Moment { now_us: self.clock.now_us(), skew, boot }
    }
}

/// What came of taking a lock without looking.
enum Taken {
    Granted(LockGrant),
    /// What it was like instead.
    NotFree(Option<Item>),
}

/// What was there instead of what the condition asked for.
fn item_of(refused: Refused) -> Result<Option<Item>> {
    match refused {
        Refused::Condition(item) => Ok(item),
        Refused::Failed(error) => Err(error),
    }
}

const fn ends_at_us(moment: &Moment, lease_ms: u64) -> u64 {
    moment.now_us.saturating_add(lease_ms.saturating_mul(1_000))
}

/// With full jitter: those who met here are not to meet again.
fn pause(round: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << round.min(10)).min(PAUSE_MAX).mul_f64(rand::random())
}

fn tokens_exhausted() -> Error {
    Error::new(ErrorKind::Internal, "fencing tokens have run out: this machine's clock is past 2255")
}
