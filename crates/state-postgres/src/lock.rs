//! Locks: one row per lock, changed by the function `lock`, which follows the contract crate's `lock::record` step by step.
//!
//! # Waiting
//! A waiter asks once; when the lock is busy it stands in line with the other waiters of this process, and the first of
//! them asks again when it is woken, when the first lease ends, or after a second, whichever comes first. Those who come
//! while others stand in line join it without asking. See [`waiting`](crate::waiting) for who is woken by whom.
//!
//! Whoever releases sends the request of the first local waiter along, in the same statement, so that a lock changes hands with
//! one commit, see [`hand_over`](crate::hand_over). So that the waiters of other nodes are not kept waiting for as long as there
//! are some here, after a few times all of them are woken together instead, and an exclusive waiter lets those nodes go first
//! whose last turn is longer ago, see [`rotation`](acteon_state_core::lock::rotation).
//!
//! Where there are no notifications, waiters of other nodes find a free lock only by asking at the right moment. So that there is
//! such a moment, the first local waiter is only woken there, and its request follows behind the release.
//!
//! Whoever was told that the lock is busy goes on waiting when a connection or the server is lost, until the wait is over.
//!
//! # Cancellation
//! Dropping the future of an acquisition while its request is under way withdraws what it may have been granted, in the
//! background. Operations on one lock are sent in their order, so neither can the withdrawal overtake the request, nor a new
//! request of the same owner the withdrawal. An acquisition that only waits holds nothing. When the connection breaks at this
//! very moment, the server may carry out the request after the withdrawal: then the grant ends with its lease.

use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::clock::BootInstant;
use acteon_state_core::entry::duration_ms;
use acteon_state_core::lock::line::{Attempt, Place, Woken};
use acteon_state_core::lock::record::mode_fields;
use acteon_state_core::{
    Effect, Error, ErrorKind, ExtendOutcome, FencingToken, LockBusy, LockGrant, LockHolder, LockMode, LockOutcome,
    LockRequest, LockState, OwnerId, Page, ReleaseOutcome, Result, Scan, StateKey,
};
use async_trait::async_trait;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments as _, Row as _};
use tokio::time::Instant;
use uuid::Uuid;

use crate::error::{Sent, closed};
use crate::hand_over::{Offer, Offered, Passed};
use crate::lane::{Answer, Family};
use crate::names::Names;
use crate::session::Session;
use crate::store::{Inner, KeyColumns, cursor_after, range_arguments, unexpected};
use crate::waiting::{Audience, Waiters, line_name, lock_hash};

/// The longest sleep of the first waiter, should a notification be lost.
const NAP_MAX: Duration = Duration::from_secs(1);
/// Its first and its longest sleep where there are no notifications; doubled in between.
const DEAF_NAP_MIN: Duration = Duration::from_millis(5);
const DEAF_NAP_MAX: Duration = Duration::from_millis(250);
/// The least that is added to a sleep, so that waiters of many nodes do not all wake at the same moment.
const JITTER_MIN: Duration = Duration::from_millis(2);
/// Roughly what an operation takes in a statement beside its key and its description.
const OP_BYTES: usize = 80;

const LOCK: &str = "
    SELECT * FROM {t}lock($1::text[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::uuid[], $7::smallint[],
        $8::integer[], $9::bigint[], $10::text[], $11::bigint[], $12::bigint)";

/// The live holders of a lock `l` at `n.now_us`, as arrays, which are null without any.
macro_rules! live_holders {
    () => {
        "CROSS JOIN LATERAL (
           SELECT array_agg(u.owner ORDER BY u.place) AS owners, array_agg(u.mode ORDER BY u.place) AS modes,
                  array_agg(u.permits ORDER BY u.place) AS permits, array_agg(u.token ORDER BY u.place) AS tokens,
                  array_agg(u.expires_at_us - n.now_us ORDER BY u.place) AS expire_in_us,
                  array_agg(n.now_us - u.since_us ORDER BY u.place) AS held_us,
                  array_agg(u.meta ORDER BY u.place) AS metas
             FROM unnest(l.holders) WITH ORDINALITY
                  AS u (owner, mode, permits, token, expires_at_us, since_us, meta, place)
            WHERE u.expires_at_us > n.now_us) h"
    };
}

const INSPECT: &str = concat!(
    "SELECT l.id, l.last_token, h.*
       FROM (SELECT {t}now_us() AS now_us OFFSET 0) n
      CROSS JOIN {t}locks l ",
    live_holders!(),
    " WHERE l.namespace = $1 AND l.tenant = $2 AND l.kind = $3 AND l.id = $4 AND l.expires_at_us > n.now_us"
);

/// The parameters are those of a listing of entries.
const LIST: &str = concat!(
    "SELECT l.id, l.last_token, h.*
       FROM (SELECT {t}now_us() AS now_us OFFSET 0) n
      CROSS JOIN LATERAL (
            SELECT * FROM {t}locks l
             WHERE l.namespace = $1 AND l.tenant = $2 AND l.kind = $3
               AND l.id >= $4 AND (NOT $5 OR l.id > $4) AND l.id < $6
               AND l.expires_at_us > n.now_us
             ORDER BY l.id
             LIMIT $7) l ",
    live_holders!(),
    " ORDER BY l.id"
);

/// What is done to a lock.
#[derive(Clone, Debug)]
enum Action {
    Acquire(Acquire),
    Extend { owner: OwnerId, lease_us: u64 },
    Release { owner: OwnerId, hand_over: HandOver },
    Withdraw { owner: OwnerId },
    ForceRelease,
}

/// Who is to get a lock that is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HandOver {
    /// A local waiter, whose request travels along.
    Passed,
    /// The first local waiter, who was woken already and asks right behind the release.
    Begun,
    /// Nobody waited here when the release was sent: whoever waits anywhere.
    Open,
    /// Whoever's turn it is, the local waiters being last.
    Level,
}

#[derive(Clone, Debug)]
struct Acquire {
    owner: OwnerId,
    mode: LockMode,
    lease_us: u64,
    meta: String,
    /// How long to be told of releases.
    wait_us: u64,
}

/// An operation on one lock, checked before.
pub(crate) struct LockOp {
    key: StateKey,
    action: Action,
}

/// What `lock` returned for an operation.
pub(crate) struct Answered {
    status: i16,
    token: Option<FencingToken>,
    retry_after: Duration,
    /// How many held it, if this ended a lease.
    count: Option<i32>,
    notify: bool,
}

/// The statement that changes locks.
pub(crate) struct Locks {
    sql: Arc<str>,
    retention_us: u64,
    waiters: Arc<Waiters>,
}

/// The statements that look at locks.
pub(crate) struct LockQueries {
    inspect: Arc<str>,
    list: Arc<str>,
}

impl LockQueries {
    pub(crate) fn new(names: &Names) -> Self {
        Self { inspect: names.sql(INSPECT), list: names.sql(LIST) }
    }
}

impl Inner {
    pub(crate) async fn lock_acquire(self: &Arc<Self>, request: &LockRequest) -> Result<LockOutcome> {
        let lease_ms = request.check(self.capabilities())?;
        let _counted = self.waiters.acquisitions.token();
        if self.waiters.closed.is_cancelled() {
            return Err(closed());
        }
        let until = Instant::now() + request.wait;
        let line = line_name(lock_hash(&request.key));
        let (mut asked, mut busy) = (None, None);
        if request.wait.is_zero() || !self.waiters.lines.has_waiters(&line) {
            asked = Some(self.waiters.lines.wakes());
            match self.attempt(request, lease_ms, until).await? {
                Attempt::Busy(reason) if !request.wait.is_zero() => busy = Some(reason),
                attempt => return Ok(attempt.outcome()),
            }
        }
        let place = self.waiters.lines.join(&line, asked);
        if !self.is_pooled() {
            self.waiters.want_notifications();
        }
        tokio::select! {
            outcome = self.wait_in_line(request, lease_ms, place, busy, until) => outcome,
            () = self.waiters.closed.cancelled() => Err(closed()),
        }
    }

    pub(crate) async fn lock_extend(&self, key: &StateKey, owner: OwnerId, lease: Duration) -> Result<ExtendOutcome> {
        let lease_us = duration_ms("lease", lease)?.saturating_mul(1_000);
        match self.lock_apply(key, Action::Extend { owner, lease_us }).await?.status {
            1 => Ok(ExtendOutcome::Extended),
            0 => Ok(ExtendOutcome::Lost),
            other => Err(unknown_status(other)),
        }
    }

    pub(crate) async fn lock_release(self: &Arc<Self>, key: &StateKey, owner: OwnerId) -> Result<ReleaseOutcome> {
        let (hash, now) = (lock_hash(key), Instant::now());
        let is_listening = self.waiters.is_listening();
        let hand_over = match self.waiters.lines.has_waiters(&line_name(hash)) {
            false => HandOver::Open,
            true if is_listening && !self.waiters.stays_at_home(hash, now) => HandOver::Level,
            true => HandOver::Begun,
        };
        let offer = match hand_over {
            HandOver::Begun if is_listening => self.waiters.offers.take(key, now),
            _ => None,
        };
        let release = |hand_over| Action::Release { owner, hand_over };
        let passed = offer.map(|offer| self.hand_over(key, release(HandOver::Passed), offer));
        let (answers, _passed) = match passed {
            Some(Ok((answers, passed))) => (answers, passed),
            // There may be room for the one and not for both. The waiter asks by itself.
            Some(Err(_)) | None => (self.release_alone(key, release(hand_over), hand_over)?, None),
        };
        let answered = first_answer(answers).await?;
        self.waiters.released(hash, now.elapsed(), hand_over != HandOver::Open);
        match answered.status {
            1 => Ok(ReleaseOutcome::Released),
            0 => Ok(ReleaseOutcome::AlreadyLost),
            other => Err(unknown_status(other)),
        }
    }

    fn release_alone(&self, key: &StateKey, release: Action, hand_over: HandOver) -> Result<Vec<Answer<Locks>>> {
        let answers = self.locks.submit_all([LockOp { key: key.clone(), action: release }])?;
        if hand_over == HandOver::Begun {
            // Only now: its request must come after ours. Should the lease have been lost, it asks in vain.
            self.waiters.wake_here(lock_hash(key));
        }
        Ok(answers)
    }

    /// Sends what ends a lease, and behind it the request of a waiter, who gets its answer. Should the lease have been lost, it is busy.
    fn hand_over(
        self: &Arc<Self>,
        key: &StateKey,
        ending: Action,
        offer: Offer,
    ) -> Result<(Vec<Answer<Locks>>, Option<Passed>)> {
        let ending = LockOp { key: key.clone(), action: ending };
        let (acquire, deadline) = self.acquisition(&offer.request, offer.lease_ms, offer.until);
        let mut answers = self.locks.submit_all([ending, acquire])?;
        let passed = answers.pop().map(|answer| offer.was_sent(self, answer, deadline));
        Ok((answers, passed))
    }

    pub(crate) async fn lock_force_release(&self, key: &StateKey, reason: &str) -> Result<usize> {
        let answered = self.lock_apply(key, Action::ForceRelease).await?;
        let count = answered.count.and_then(|count| usize::try_from(count).ok());
        let count = count.ok_or_else(|| unknown_status(answered.status))?;
        tracing::warn!(lock = %key, holders = count, reason, "a lock was released by force");
        Ok(count)
    }

    pub(crate) async fn lock_inspect(&self, key: &StateKey) -> Result<Option<LockState>> {
        let mut arguments = PgArguments::default();
        for part in key.parts() {
            arguments.add(part).map_err(|error| Error::invalid("the key cannot be encoded").with_source(error))?;
        }
        let rows = self.read(&self.lock_queries.inspect, arguments).await?;
        rows.first().map(|row| read_state(key.clone(), row)).transpose()
    }

    pub(crate) async fn lock_list(&self, scan: &Scan) -> Result<Page<LockState>> {
        scan.check()?;
        let rows = self.read(&self.lock_queries.list, range_arguments(scan)?).await?;
        let mut items = Vec::with_capacity(rows.len());
        let mut last = None;
        for row in rows.iter().take(scan.page_size as usize) {
            let id: String = row.try_get(0).map_err(unexpected)?;
            items.push(read_state(scan.scope.key(&id)?, row)?);
            last = Some(id);
        }
        let has_more = rows.len() > scan.page_size as usize;
        let next = last.filter(|_| has_more).map(|id| cursor_after(&id)).transpose()?;
        Ok(Page { items, next })
    }

    /// Ends all waits, and lets acquisitions under way and what they leave behind finish.
    pub(crate) async fn close_locks(&self) {
        self.waiters.closed.cancel();
        self.waiters.acquisitions.close();
        self.waiters.acquisitions.wait().await;
    }

    async fn lock_apply(&self, key: &StateKey, action: Action) -> Result<Answered> {
        self.locks.submit(LockOp { key: key.clone(), action }).await
    }

    /// Stands in line until the lock is granted or the wait is over.
    async fn wait_in_line(
        self: &Arc<Self>,
        request: &LockRequest,
        lease_ms: u64,
        place: Place,
        mut busy: Option<LockBusy>,
        until: Instant,
    ) -> Result<LockOutcome> {
        let mut deaf_nap = DEAF_NAP_MIN;
        let mut has_failed = false;
        let mut unsure = UnderWay { inner: self, request, is_answered: true };
        let mut offered = Offered::new(self, request, lease_ms, until);
        loop {
            let nap_max = if self.waiters.is_listening() && !has_failed { NAP_MAX } else { deaf_nap };
            deaf_nap = (deaf_nap * 2).min(DEAF_NAP_MAX);
            let head_start = || match request.mode {
                LockMode::Exclusive => self.waiters.head_start_of_others(lock_hash(&request.key)),
                // Those who can hold it together with others need not take turns.
                _ => Duration::ZERO,
            };
            let (sent, is_over) = tokio::select! {
                biased;
                sent = offered.sent() => (sent, false),
                is_over = sleep_in_line(&place, busy, nap_max, until, head_start) => (None, is_over),
            };
            let sent = if sent.is_some() { sent } else { offered.take_back().await };
            let outcome = match sent {
                Some(sent) => sent.wait().await,
                None => self.attempt(request, lease_ms, until).await,
            };
            has_failed = outcome.is_err();
            match outcome {
                Err(error) => {
                    let is_unknown = error.effect() == Effect::Unknown;
                    if is_over || !error.kind().is_transient() {
                        // Of an earlier request without an answer, the caller learns only by an unknown effect.
                        unsure.is_answered |= is_unknown;
                        return Err(error);
                    }
                    // Who waits for a lock also waits for the server. The next request finds what this one was granted.
                    unsure.is_answered &= !is_unknown;
                    busy = None;
                }
                Ok(Attempt::Busy(reason)) if !is_over => {
                    unsure.is_answered = true;
                    busy = Some(reason);
                }
                Ok(attempt) => {
                    unsure.is_answered = true;
                    match (&attempt, request.mode) {
                        (Attempt::Granted(_), LockMode::Exclusive) => place.leave_with_exclusive(lease_ms),
                        // There may be room for others, who were not told if the lock was handed over to us.
                        (Attempt::Granted(_), _) => self.waiters.notify(lock_hash(&request.key), Audience::Others),
                        _ => {}
                    }
                    return Ok(attempt.outcome());
                }
            }
            offered.lay_out();
        }
    }

    /// Asks the server once.
    async fn attempt(self: &Arc<Self>, request: &LockRequest, lease_ms: u64, until: Instant) -> Result<Attempt> {
        let (acquire, deadline) = self.acquisition(request, lease_ms, until);
        let under_way = UnderWay { inner: self, request, is_answered: false };
        let answered = self.locks.submit(acquire).await;
        under_way.answered();
        conclude(answered?, deadline)
    }

    /// The operation that asks for a lock once, and until when the grant would last by our own clock.
    fn acquisition(&self, request: &LockRequest, lease_ms: u64, until: Instant) -> (LockOp, BootInstant) {
        // Who cannot listen asks often instead, and has nothing to be told.
        let wait = if self.is_pooled() { Duration::ZERO } else { until.saturating_duration_since(Instant::now()) };
        let acquire = Acquire {
            owner: request.owner,
            mode: request.mode,
            lease_us: lease_ms.saturating_mul(1_000),
            meta: request.meta.clone(),
            wait_us: u64::try_from(wait.as_micros()).unwrap_or(u64::MAX),
        };
        // From before the request is sent: whatever it takes to arrive, the lease ends later than this.
        let deadline = BootInstant::now() + request.lease;
        (LockOp { key: request.key.clone(), action: Action::Acquire(acquire) }, deadline)
    }

    /// Gives back, in the background, what a request may have been granted that nobody waits for any more.
    pub(crate) fn withdraw(self: &Arc<Self>, request: &LockRequest) {
        let op = LockOp { key: request.key.clone(), action: Action::Withdraw { owner: request.owner } };
        // At once, so that nothing that this owner does next comes before it.
        let sent = self.locks.submit_all([op]).map(|answers| (answers, None));
        self.finish_withdrawal(sent);
    }

    /// The same where others wait here: the first of them has what is given back.
    pub(crate) fn withdraw_for_next(self: &Arc<Self>, request: &LockRequest) {
        let offers = &self.waiters.offers;
        let next = self.waiters.is_listening().then(|| offers.take(&request.key, Instant::now())).flatten();
        let withdraw = Action::Withdraw { owner: request.owner };
        match next.map(|offer| self.hand_over(&request.key, withdraw, offer)) {
            Some(Ok(sent)) => self.finish_withdrawal(Ok(sent)),
            Some(Err(_)) | None => self.withdraw(request),
        }
    }

    /// Whoever waits for the answer keeps a withdrawal from being thrown out of the lane.
    fn finish_withdrawal(&self, sent: Result<(Vec<Answer<Locks>>, Option<Passed>)>) {
        // Without a runtime the process is going away; the lease then ends by itself.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let withdraw = async move {
            let withdrawn = match sent {
                Ok((answers, _passed)) => first_answer(answers).await.map(|_| ()),
                Err(error) => Err(error),
            };
            if let Err(error) = withdrawn {
                tracing::debug!(%error, "an acquisition could not be withdrawn; its lease ends by itself");
            }
        };
        self.waiters.acquisitions.spawn_on(withdraw, &runtime);
    }
}

/// What the answer to an acquisition means.
pub(crate) fn conclude(answered: Answered, deadline: BootInstant) -> Result<Attempt> {
    let busy = LockBusy { token: answered.token, retry_after: answered.retry_after };
    match (answered.status, answered.token) {
        (1, Some(token)) => Ok(Attempt::Granted(LockGrant { token, deadline })),
        (0, _) => Ok(Attempt::Busy(busy)),
        (2, _) => Ok(Attempt::Refused(busy)),
        (-3, _) => Err(Error::new(ErrorKind::Internal, "fencing tokens have run out: the server's clock is past 2255")),
        (other, _) => Err(unknown_status(other)),
    }
}

/// An acquisition whose answer has not come. Dropped like that, it withdraws what it may have been granted.
struct UnderWay<'a> {
    inner: &'a Arc<Inner>,
    request: &'a LockRequest,
    is_answered: bool,
}

impl UnderWay<'_> {
    /// An answer came, or an error that tells the caller what it must do.
    fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.inner.withdraw(self.request);
        }
    }
}

#[async_trait]
impl Family for Locks {
    type Op = LockOp;
    type Reply = Answered;

    const SENT: Sent = Sent::Write;

    fn key(op: &LockOp) -> Option<&str> {
        Some(op.key.text())
    }

    fn bytes(op: &LockOp) -> usize {
        let meta = if let Action::Acquire(acquire) = &op.action { acquire.meta.len() } else { 0 };
        OP_BYTES + op.key.text().len() + meta
    }

    async fn run(&self, session: &mut Session, ops: &[&LockOp]) -> sqlx::Result<Vec<Result<Answered>>> {
        let mut arguments = PgArguments::default();
        self.bind(&mut arguments, ops).map_err(sqlx::Error::Encode)?;
        let rows = session.fetch_all(&self.sql, arguments).await?;
        let answers: Vec<Result<Answered>> = rows.iter().map(Answered::read).collect();
        self.tell(ops, &answers);
        Ok(answers)
    }
}

impl Locks {
    pub(crate) fn new(names: &Names, retention_us: u64, waiters: Arc<Waiters>) -> Self {
        Self { sql: names.sql(LOCK), retention_us, waiters }
    }

    fn bind(&self, arguments: &mut PgArguments, ops: &[&LockOp]) -> Result<(), BoxDynError> {
        KeyColumns::new(ops.iter().map(|op| &op.key)).bind(arguments)?;
        let rows: Vec<Row<'_>> = ops.iter().map(|op| op.action.row()).collect();
        arguments.add(rows.iter().map(|row| row.op).collect::<Vec<_>>())?;
        arguments.add(rows.iter().map(|row| row.owner).collect::<Vec<_>>())?;
        arguments.add(rows.iter().map(|row| row.mode).collect::<Vec<_>>())?;
        arguments.add(rows.iter().map(|row| row.permits).collect::<Vec<_>>())?;
        arguments.add(rows.iter().map(|row| signed(row.lease_us)).collect::<Vec<_>>())?;
        arguments.add(rows.iter().map(|row| row.meta).collect::<Vec<_>>())?;
        arguments.add(rows.iter().map(|row| signed(row.wait_us)).collect::<Vec<_>>())?;
        arguments.add(signed(self.retention_us))
    }

    /// Wakes those who wait for locks that are free now, unless the same statement has given them away again.
    fn tell(&self, ops: &[&LockOp], answers: &[Result<Answered>]) {
        let mut freed: Vec<Freed> = Vec::new();
        for (op, answer) in ops.iter().zip(answers) {
            let Ok(answer) = answer else { continue };
            let lock = lock_hash(&op.key);
            if op.action.is_exclusive_acquire() && answer.status == 1 {
                // Operations on one lock stand side by side.
                while freed.pop_if(|freed| freed.lock == lock).is_some() {}
            } else if op.action.is_acquire() && answer.status == 0 {
                // Others hold it as well. Who was to have it knows that, and would ask for nothing if it were woken.
                let passed = freed.last_mut().filter(|freed| freed.lock == lock && freed.hand_over == HandOver::Passed);
                passed.into_iter().for_each(|freed| freed.is_known_here = true);
            } else if answer.count.is_some_and(|count| count > 0) && op.action.hand_over() != HandOver::Begun {
                let hand_over = op.action.hand_over();
                freed.push(Freed { lock, hand_over, is_waited_for: answer.notify, is_known_here: false });
            }
        }
        for Freed { lock, hand_over, is_waited_for, is_known_here } in freed {
            let is_level = hand_over == HandOver::Level && is_waited_for && self.waiters.is_listening();
            if is_level {
                self.waiters.wake_unless_told(lock);
            } else if !is_known_here {
                self.waiters.wake_here(lock);
            }
            if is_waited_for {
                self.waiters.notify(lock, if is_level { Audience::Everyone } else { Audience::Others });
            }
        }
    }
}

/// A lock that can be had.
struct Freed {
    lock: u64,
    hand_over: HandOver,
    /// By somebody on whatever node, who wants to be notified.
    is_waited_for: bool,
    /// The first waiter here has asked since, in vain.
    is_known_here: bool,
}

/// An operation, as the columns of `lock`.
#[derive(Default)]
struct Row<'a> {
    op: i16,
    owner: Option<Uuid>,
    mode: Option<i16>,
    permits: Option<i32>,
    lease_us: u64,
    meta: Option<&'a str>,
    wait_us: u64,
}

impl Action {
    fn row(&self) -> Row<'_> {
        match self {
            Self::Acquire(acquire) => Row {
                op: 1,
                owner: Some(uuid(acquire.owner)),
                mode: Some(mode_number(acquire.mode)),
                permits: i32::try_from(mode_fields(acquire.mode).1).ok(),
                lease_us: acquire.lease_us,
                meta: Some(&acquire.meta),
                wait_us: acquire.wait_us,
            },
            Self::Extend { owner, lease_us } => {
                Row { op: 2, owner: Some(uuid(*owner)), lease_us: *lease_us, ..Row::default() }
            }
            Self::Release { owner, .. } => Row { op: 3, owner: Some(uuid(*owner)), ..Row::default() },
            Self::Withdraw { owner } => Row { op: 4, owner: Some(uuid(*owner)), ..Row::default() },
            Self::ForceRelease => Row { op: 5, ..Row::default() },
        }
    }

    const fn is_acquire(&self) -> bool {
        matches!(self, Self::Acquire(_))
    }

    fn is_exclusive_acquire(&self) -> bool {
        matches!(self, Self::Acquire(acquire) if acquire.mode == LockMode::Exclusive)
    }

    const fn hand_over(&self) -> HandOver {
        match self {
            Self::Release { hand_over, .. } => *hand_over,
            _ => HandOver::Open,
        }
    }
}

impl Answered {
    fn read(row: &PgRow) -> Result<Self> {
        let token: Option<i64> = row.try_get(1).map_err(unexpected)?;
        let retry_us: Option<i64> = row.try_get(2).map_err(unexpected)?;
        Ok(Self {
            status: row.try_get(0).map_err(unexpected)?,
            token: token.map(read_token).transpose()?,
            retry_after: Duration::from_micros(retry_us.map_or(0, i64::unsigned_abs)),
            count: row.try_get(3).map_err(unexpected)?,
            notify: row.try_get(4).map_err(unexpected)?,
        })
    }
}

/// Sleeps until it is time to ask; returns whether the wait is over.
async fn sleep_in_line(
    place: &Place,
    busy: Option<LockBusy>,
    nap_max: Duration,
    until: Instant,
    head_start_of_others: impl Fn() -> Duration,
) -> bool {
    let mut pause = with_jitter(busy.map_or(nap_max, |busy| busy.retry_after.min(nap_max)));
    loop {
        let wake_at = if place.is_first() { until.min(Instant::now() + pause) } else { until };
        tokio::select! {
            woken = place.woken() => match woken {
                Woken::Ask => {
                    pause = head_start_of_others();
                    if pause.is_zero() {
                        return false;
                    }
                }
                Woken::SteppedUp(lease) => pause = with_jitter(lease.min(nap_max)),
            },
            () = tokio::time::sleep_until(wake_at) => return wake_at == until,
        }
    }
}

/// A sleep with up to a quarter of it on top.
fn with_jitter(nap: Duration) -> Duration {
    nap + (nap / 4).max(JITTER_MIN).mul_f64(rand::random::<f64>())
}

async fn first_answer(mut answers: Vec<Answer<Locks>>) -> Result<Answered> {
    match answers.pop() {
        Some(answer) => answer.wait().await,
        None => Err(closed()),
    }
}

/// Reads a row of `INSPECT` or `LIST`.
fn read_state(key: StateKey, row: &PgRow) -> Result<LockState> {
    let last_token = read_token(row.try_get(1).map_err(unexpected)?)?;
    let owners: Vec<Uuid> = read_array(row, 2)?;
    let modes: Vec<i16> = read_array(row, 3)?;
    let permits: Vec<i32> = read_array(row, 4)?;
    let tokens: Vec<i64> = read_array(row, 5)?;
    let expire_in_us: Vec<i64> = read_array(row, 6)?;
    let held_us: Vec<i64> = read_array(row, 7)?;
    let metas: Vec<String> = read_array(row, 8)?;
    let lengths = [modes.len(), permits.len(), tokens.len(), expire_in_us.len(), held_us.len(), metas.len()];
    if lengths.iter().any(|length| *length != owners.len()) {
        return Err(corrupt(&key));
    }
    let mut holders = Vec::with_capacity(owners.len());
    for (place, (owner, meta)) in owners.into_iter().zip(metas).enumerate() {
        holders.push(LockHolder {
            owner: OwnerId::from_u128(owner.as_u128()),
            mode: read_mode(modes[place], permits[place]).ok_or_else(|| corrupt(&key))?,
            token: read_token(tokens[place])?,
            expires_in: micros(expire_in_us[place]),
            held_for: micros(held_us[place]),
            meta,
        });
    }
    Ok(LockState { key, last_token, holders })
}

/// A span that is below zero where the server's clock was set back meanwhile.
fn micros(span_us: i64) -> Duration {
    Duration::from_micros(u64::try_from(span_us).unwrap_or(0))
}

/// An array of an aggregate; null when it is about nothing.
fn read_array<'r, T>(row: &'r PgRow, index: usize) -> Result<Vec<T>>
where
    Option<Vec<T>>: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    Ok(row.try_get::<Option<Vec<T>>, _>(index).map_err(unexpected)?.unwrap_or_default())
}

fn read_token(token: i64) -> Result<FencingToken> {
    let token = u64::try_from(token).ok().and_then(|token| FencingToken::new(token).ok());
    token.ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, "a lock has a token out of range: something else writes into the table")
    })
}

const fn mode_number(mode: LockMode) -> i16 {
    match mode {
        LockMode::Exclusive => 1,
        LockMode::Shared => 2,
        LockMode::Permit { .. } => 3,
    }
}

fn read_mode(mode: i16, permits: i32) -> Option<LockMode> {
    match mode {
        1 => Some(LockMode::Exclusive),
        2 => Some(LockMode::Shared),
        3 => Some(LockMode::Permit { of: u32::try_from(permits).ok()? }),
        _ => None,
    }
}

fn uuid(owner: OwnerId) -> Uuid {
    Uuid::from_u128(owner.as_u128())
}

/// Times stay below 2^63.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn corrupt(key: &StateKey) -> Error {
    Error::corrupt(key, "the lock has a holder of an unknown mode: something else writes into the table")
}

fn unknown_status(status: i16) -> Error {
    Error::new(ErrorKind::Internal, format!("the server answered an operation on a lock with status {status}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use acteon_state_core::{FencingToken, LockMode, OwnerId, StateKey};

    use super::{Acquire, Action, Answered, HandOver, LockOp, Locks};
    use crate::names::Names;
    use crate::waiting::{Waiters, line_name, lock_hash};

    fn op(key: &StateKey, action: Action) -> LockOp {
        LockOp { key: key.clone(), action }
    }

    fn release(hand_over: HandOver) -> Action {
        Action::Release { owner: OwnerId::from_u128(1), hand_over }
    }

    fn acquire() -> Action {
        let owner = OwnerId::from_u128(2);
        Action::Acquire(Acquire { owner, mode: LockMode::Exclusive, lease_us: 1, meta: String::new(), wait_us: 1 })
    }

    fn answered(status: i16, count: Option<i32>) -> Answered {
        let token = FencingToken::new(1).ok();
        Answered { status, token, retry_after: Duration::ZERO, count, notify: true }
    }

    /// Each release of a lock that several share asked for the first waiter, told it that others hold the lock, and let it ask again.
    #[test]
    fn who_was_told_with_a_release_that_others_hold_the_lock_is_not_woken() {
        let names = Names::new("public", "acteon_").unwrap();
        let locks = Locks::new(&names, 0, Waiters::new(&names));
        let key = StateKey::new("locks", "tests", "k", "shared").unwrap();
        let lines = &locks.waiters.lines;
        let _place = lines.join(&line_name(lock_hash(&key)), Some(lines.wakes()));
        let wakes_of = |ops: &[LockOp], answers: Vec<Answered>| {
            let before = lines.wakes();
            locks.tell(&ops.iter().collect::<Vec<_>>(), &answers.into_iter().map(Ok).collect::<Vec<_>>());
            lines.wakes() - before
        };
        let passed = [op(&key, release(HandOver::Passed)), op(&key, acquire())];
        assert_eq!(wakes_of(&passed, vec![answered(1, Some(2)), answered(0, None)]), 0);
        assert_eq!(wakes_of(&passed, vec![answered(1, Some(1)), answered(1, None)]), 0, "it has the lock");
        assert_eq!(wakes_of(&passed[..1], vec![answered(1, Some(1))]), 1, "its request did not travel along after all");
        let open = [op(&key, release(HandOver::Open)), op(&key, acquire())];
        assert_eq!(wakes_of(&open, vec![answered(1, Some(2)), answered(0, None)]), 1, "somebody else has asked");
    }
}
