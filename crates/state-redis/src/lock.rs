//! Locks: one record per lock, changed by scripts that follow the contract crate's `lock::record` step by step.
//!
//! # Waiting
//! A waiter asks once; when the lock is busy it stands in line with the other waiters of this process, and the first of
//! them asks again when it is notified of a release, when the first lease ends, or after a second, whichever comes first. All
//! processes hear of a release; an exclusive waiter lets those go first whose last turn is longer ago, see
//! [`rotation`](acteon_state_core::lock::rotation).
//! Those who come while others stand in line join it without asking.
//!
//! # Cancellation
//! Dropping the future of an acquisition while its request is under way withdraws what it may have been granted, in the
//! background. Should the same owner ask again meanwhile, its request is sent after the withdrawal was answered, so that it
//! cannot lose its new grant to it. An acquisition that only waits holds nothing. With several connections, or across the loss
//! of one, a slow network may deliver the withdrawal before the request: then the grant ends with its lease.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::clock::BootInstant;
use acteon_state_core::entry::duration_ms;
use acteon_state_core::key::Companion;
use acteon_state_core::lock::line::{Attempt, Place, Woken};
use acteon_state_core::lock::record::{LockRecord, mode_fields};
use acteon_state_core::{
    Effect, Error, ErrorKind, ExtendOutcome, FencingToken, LockBusy, LockGrant, LockMode, LockOutcome, LockRequest,
    LockState, OwnerId, ReleaseOutcome, Result, StateKey,
};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::{Access, closed, unexpected};
use crate::link::{Granting, Replicas};
use crate::reply;
use crate::script::{self, By, Script};
use crate::store::{Inner, corrupt_lock, settled};
use crate::wire::{Cmd, Value};

/// The longest sleep of the first waiter, should a notification be lost.
const NAP_MAX: Duration = Duration::from_secs(1);
/// The least that is added to a sleep, so that waiters of many processes do not all wake at the same moment.
const JITTER_MIN: Duration = Duration::from_millis(2);

impl Inner {
    pub(crate) async fn lock_acquire(self: &Arc<Self>, request: &LockRequest) -> Result<LockOutcome> {
        let lease_ms = request.check(self.capabilities())?;
        self.check_lease(request.lease)?;
        let until = Instant::now() + request.wait;
        let text = self.keyspace.companion(&request.key, Companion::Lock);
        let mut busy = None;
        let mut asked = None;
        if request.wait.is_zero() || !self.wakeups.has_waiters(&text) {
            asked = Some(self.wakeups.wakes());
            match self.attempt(request, &text, lease_ms).await? {
                Attempt::Busy(reason) if !request.wait.is_zero() => busy = Some(reason),
                attempt => return Ok(attempt.outcome()),
            }
        }
        let place = self.wakeups.join(&text, asked);
        tokio::select! {
            outcome = self.wait_in_line(request, &text, lease_ms, place, busy, until) => outcome,
            () = self.closed.cancelled() => Err(closed()),
        }
    }

    pub(crate) async fn lock_extend(&self, key: &StateKey, owner: OwnerId, lease: Duration) -> Result<ExtendOutcome> {
        let lease_ms = duration_ms("lease", lease)?;
        self.check_lease(lease)?;
        let text = self.keyspace.companion(key, Companion::Lock);
        let command = |by| {
            let mut cmd = lock_command(&script::LOCK_EXTEND, &text, by);
            cmd.arg(owner.to_text()).number(lease_ms).number(self.lock_retention_ms);
            cmd
        };
        match self.run(Access::Write, command).await? {
            Value::Int(1) => Ok(ExtendOutcome::Extended),
            Value::Int(0) => Ok(ExtendOutcome::Lost),
            other => Err(refused(key, &other)),
        }
    }

    pub(crate) async fn lock_release(&self, key: &StateKey, owner: OwnerId) -> Result<ReleaseOutcome> {
        let text = self.keyspace.companion(key, Companion::Lock);
        let command = |by| {
            let mut cmd = lock_command(&script::LOCK_RELEASE, &text, by);
            cmd.arg(owner.to_text()).number(self.lock_retention_ms).arg(self.wakeups.message(&text));
            cmd
        };
        match self.run(Access::Write, command).await? {
            Value::Int(1) => Ok(ReleaseOutcome::Released),
            Value::Int(0) => Ok(ReleaseOutcome::AlreadyLost),
            other => Err(refused(key, &other)),
        }
    }

    /// Undoes a grant that nobody learnt of.
    async fn lock_withdraw(&self, key: &StateKey, owner: OwnerId) -> Result<()> {
        let text = self.keyspace.companion(key, Companion::Lock);
        let command = |by| {
            let mut cmd = lock_command(&script::LOCK_WITHDRAW, &text, by);
            cmd.arg(owner.to_text()).number(self.lock_retention_ms);
            cmd
        };
        match self.run(Access::Write, command).await? {
            Value::Int(0 | 1) => Ok(()),
            other => Err(refused(key, &other)),
        }
    }

    pub(crate) async fn lock_inspect(&self, key: &StateKey) -> Result<Option<LockState>> {
        let text = self.keyspace.companion(key, Companion::Lock);
        let reply = self.run(Access::Read, |by| lock_command(&script::LOCK_READ, &text, by)).await?;
        Ok(read_lock(key, reply)?.and_then(|(record, now_us)| record.state(key, now_us)))
    }

    pub(crate) async fn lock_force_release(&self, key: &StateKey, reason: &str) -> Result<usize> {
        let text = self.keyspace.companion(key, Companion::Lock);
        let command = |by| {
            let mut cmd = lock_command(&script::LOCK_FORCE_RELEASE, &text, by);
            cmd.number(self.lock_retention_ms);
            cmd
        };
        let reply = self.run(Access::Write, command).await?;
        match &reply {
            Value::Int(count @ 0..) => {
                tracing::warn!(lock = %key, holders = count, reason, "a lock was released by force");
                usize::try_from(*count).map_err(|_| unexpected(&reply))
            }
            other => Err(refused(key, other)),
        }
    }

    /// Stands in line until the lock is granted or the wait is over.
    async fn wait_in_line(
        self: &Arc<Self>,
        request: &LockRequest,
        text: &str,
        lease_ms: u64,
        place: Place,
        mut busy: Option<LockBusy>,
        until: Instant,
    ) -> Result<LockOutcome> {
        loop {
            let is_over = self.sleep_in_line(request, text, &place, busy, until).await;
            match self.attempt(request, text, lease_ms).await? {
                Attempt::Busy(reason) if !is_over => busy = Some(reason),
                attempt => {
                    if matches!(attempt, Attempt::Granted(_)) && request.mode == LockMode::Exclusive {
                        place.leave_with_exclusive(lease_ms);
                    }
                    return Ok(attempt.outcome());
                }
            }
        }
    }

    /// Sleeps until it is time to ask; returns whether the wait is over.
    async fn sleep_in_line(
        &self,
        request: &LockRequest,
        text: &str,
        place: &Place,
        busy: Option<LockBusy>,
        until: Instant,
    ) -> bool {
        let mut pause = with_jitter(busy.map_or(NAP_MAX, |busy| busy.retry_after.min(NAP_MAX)));
        loop {
            let wake_at = if place.is_first() { until.min(Instant::now() + pause) } else { until };
            tokio::select! {
                woken = place.woken() => match woken {
                    Woken::Ask => {
                        let head_start = self.wakeups.head_start_of_others(text);
                        // Those who can hold it together with others need not take turns.
                        if head_start.is_zero() || request.mode != LockMode::Exclusive {
                            return false;
                        }
                        pause = head_start;
                    }
                    Woken::SteppedUp(lease) => pause = with_jitter(lease.min(NAP_MAX)),
                },
                () = tokio::time::sleep_until(wake_at) => return wake_at == until,
            }
        }
    }

    /// Asks the server once.
    async fn attempt(self: &Arc<Self>, request: &LockRequest, text: &str, lease_ms: u64) -> Result<Attempt> {
        self.withdrawals.settled(request.owner).await;
        // From before the request is sent: whatever it takes to arrive, the lease ends later than this.
        let deadline = BootInstant::now() + request.lease;
        let asking = self.clone().ask(request.clone(), text.to_owned(), lease_ms);
        let reply = match self.ask_or_withdraw(request, asking).await? {
            Reply::Final(reply) => reply,
            Reply::NotYet(left) => return Ok(Attempt::Busy(LockBusy { token: None, retry_after: left })),
            Reply::TooFew(acknowledged) => {
                // The caller is not told of it, so it must not stay.
                let withdrawn = self.lock_withdraw(&request.key, request.owner).await;
                return Err(too_few(acknowledged, self.replicas.as_ref(), withdrawn.is_ok()));
            }
        };
        acquire_reply(&request.key, deadline, reply)
    }

    /// Waits for the answer to a request that may grant the lock. Dropped before that, it withdraws the grant in the background.
    pub(crate) async fn ask_or_withdraw<T: Send + 'static>(
        self: &Arc<Self>,
        request: &LockRequest,
        asking: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        UnderWay { inner: self, request, asking: Some(Box::pin(asking)) }.answer().await
    }
}

/// The arguments of the script of an acquisition.
pub(crate) fn push_acquire_fields(cmd: &mut Cmd, request: &LockRequest, lease_ms: u64, retention_ms: u64) {
    let (mode, permits) = mode_fields(request.mode);
    cmd.arg(request.owner.to_text()).arg(mode).number(permits).number(lease_ms).number(retention_ms).arg(&request.meta);
}

/// The reply of the script of an acquisition; `deadline` is that of a grant.
pub(crate) fn acquire_reply(key: &StateKey, deadline: BootInstant, reply: Value) -> Result<Attempt> {
    let mut fields = reply::array(reply)?;
    match reply::int(reply::next(&mut fields)?)? {
        1 => {
            let token = FencingToken::new(reply::unsigned(reply::next(&mut fields)?)?)?;
            Ok(Attempt::Granted(LockGrant { token, deadline }))
        }
        0 => {
            let token = FencingToken::new(reply::unsigned(reply::next(&mut fields)?)?).ok();
            let retry_after = reply::micros(reply::next(&mut fields)?)?;
            let busy = LockBusy { token, retry_after };
            let waiting_helps = reply::int(reply::next(&mut fields)?)? == 1;
            Ok(if waiting_helps { Attempt::Busy(busy) } else { Attempt::Refused(busy) })
        }
        -3 => Err(Error::new(ErrorKind::Internal, "fencing tokens have run out: the server's clock is past 2255")),
        status => Err(refused(key, &Value::Int(status))),
    }
}

/// What became of one attempt.
enum Reply {
    /// The script's reply. A grant in it is in the replicas that it needs.
    Final(Value),
    /// A grant that only so many replicas have.
    TooFew(i64),
    /// The server may not grant anything for so long.
    NotYet(Duration),
}

impl Inner {
    async fn ask(self: Arc<Self>, request: LockRequest, text: String, lease_ms: u64) -> Result<Reply> {
        let command = |by| {
            let mut cmd = lock_command(&script::LOCK_ACQUIRE, &text, by);
            push_acquire_fields(&mut cmd, &request, lease_ms, self.lock_retention_ms);
            cmd
        };
        match &self.replicas {
            None => self.run(Access::Write, command).await.map(Reply::Final),
            Some(replicas) => self.ask_strictly(replicas, command).await,
        }
    }

    /// Asks once, and counts the replicas that have what the script wrote.
    async fn ask_strictly(&self, replicas: &Replicas, command: impl Fn(By) -> Cmd) -> Result<Reply> {
        let (reply, acknowledged) = match self.router.grant(replicas, command).await? {
            Granting::NotYet(left) => return Ok(Reply::NotYet(left)),
            Granting::Answered { reply, acknowledged } => (settled(reply)?, acknowledged),
        };
        let is_grant = matches!(&reply, Value::Array(fields) if fields.first() == Some(&Value::Int(1)));
        if !is_grant {
            return Ok(Reply::Final(reply));
        }
        let acknowledged = match acknowledged {
            Value::Int(count) => count,
            // Nobody counted, so nobody has it.
            _ => 0,
        };
        let is_enough = usize::try_from(acknowledged).is_ok_and(|count| count >= replicas.count);
        Ok(if is_enough { Reply::Final(reply) } else { Reply::TooFew(acknowledged) })
    }

    /// Refuses a lease that outlasts the time for which a new primary grants nothing.
    pub(crate) fn check_lease(&self, lease: Duration) -> Result<()> {
        match self.lock_lease_max {
            Some(max) if lease > max => Err(Error::invalid(format!(
                "lease {lease:?} is longer than lock_lease_max, {max:?}, with safety = \"strict\""
            ))),
            _ => Ok(()),
        }
    }
}

fn too_few(acknowledged: i64, replicas: Option<&Replicas>, is_withdrawn: bool) -> Error {
    let needed = replicas.map_or(0, |replicas| replicas.count);
    let (end, effect) = match is_withdrawn {
        true => ("it was withdrawn", Effect::NotApplied),
        false => ("it could not be withdrawn, and ends with its lease", Effect::Unknown),
    };
    let message = format!("{acknowledged} replicas have the grant, {needed} are needed (lock_replicas): {end}");
    Error::new(ErrorKind::NotDurable, message).with_effect(effect)
}

/// The record and the server's time, out of the reply of lock_read.lua; `None` when there is no record.
pub(crate) fn read_lock(key: &StateKey, reply: Value) -> Result<Option<(LockRecord, u64)>> {
    let mut fields = reply::array(reply)?;
    let record = reply::bytes_or_nil(reply::next(&mut fields)?)?;
    let now_us = reply::time_us(reply::next(&mut fields)?)?;
    let Some(bytes) = record else { return Ok(None) };
    let record = LockRecord::parse(&bytes).ok_or_else(|| corrupt_lock(key))?;
    Ok(Some((record, now_us)))
}

/// An acquisition whose answer has not come. Dropped like that, it withdraws what it may have been granted: after the answer, since what is sent
/// over another connection may overtake it. In strict safety, a grant has connections of its own, on which it waits behind other grants.
struct UnderWay<'a, T: Send + 'static> {
    inner: &'a Arc<Inner>,
    request: &'a LockRequest,
    /// The request, which goes on in a task of its own when we are dropped. Taken when it was answered.
    asking: Option<Pin<Box<dyn Future<Output = Result<T>> + Send>>>,
}

impl<T: Send + 'static> UnderWay<'_, T> {
    /// The answer, or an error that tells the caller what it must do.
    async fn answer(mut self) -> Result<T> {
        let Some(asking) = &mut self.asking else { return Err(closed()) };
        let answer = asking.await;
        self.asking = None;
        answer
    }
}

impl<T: Send + 'static> Drop for UnderWay<'_, T> {
    fn drop(&mut self) {
        // Without a runtime the process is going away; the lease then ends by itself.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let Some(asking) = self.asking.take() else { return };
        let (inner, key, owner) = (self.inner.clone(), self.request.key.clone(), self.request.owner);
        let done = self.inner.withdrawals.begin(owner);
        let withdraw = async move {
            // Whatever it is: without one, the request may have been granted as well.
            let _ = asking.await;
            if let Err(error) = inner.lock_withdraw(&key, owner).await {
                tracing::debug!(%error, "a dropped acquisition could not be withdrawn; its lease ends by itself");
            }
            inner.withdrawals.end(owner, &done);
        };
        self.inner.withdrawals.tasks.spawn_on(withdraw, &runtime);
    }
}

/// Withdrawals on behalf of dropped acquisitions.
#[derive(Default)]
pub(crate) struct Withdrawals {
    // By owner; locked for a look-up only.
    under_way: Mutex<HashMap<OwnerId, CancellationToken>>,
    pub(crate) tasks: TaskTracker,
}

impl Withdrawals {
    fn begin(&self, owner: OwnerId) -> CancellationToken {
        let done = CancellationToken::new();
        self.under_way.lock().insert(owner, done.clone());
        done
    }

    fn end(&self, owner: OwnerId, done: &CancellationToken) {
        self.under_way.lock().remove(&owner);
        done.cancel();
    }

    /// Waits until nothing is withdrawn for this owner any more.
    pub(crate) async fn settled(&self, owner: OwnerId) {
        let under_way = self.under_way.lock().get(&owner).cloned();
        if let Some(done) = under_way {
            done.cancelled().await;
        }
    }
}

/// A call of a script about one lock.
fn lock_command(script: &Script, text: &str, by: By) -> Cmd {
    let mut cmd = script.command(by, 1);
    cmd.arg(text);
    cmd
}

fn refused(key: &StateKey, reply: &Value) -> Error {
    match reply {
        Value::Int(-2) => corrupt_lock(key),
        other => unexpected(other),
    }
}

/// A sleep with up to a quarter of it on top.
fn with_jitter(nap: Duration) -> Duration {
    nap + (nap / 4).max(JITTER_MIN).mul_f64(rand::random::<f64>())
}
