//! Locks: each operation reads the lock's record, makes one transition of [`LockRecord`], and writes it back, in one step.
//!
//! Waiting is in `wait.rs`. Whatever may let a waiter in (a release, an end of lease that moved) is followed by
//! [`Shared::lock_pass_on`](crate::store::Shared), which costs one load while nobody waits.

use std::time::Duration;

use acteon_engine::{Engine, Expiry};
use acteon_state_core::clock::BootInstant;
use acteon_state_core::entry::duration_ms;
use acteon_state_core::key::Companion;
use acteon_state_core::lock::record::{Grant, LockRecord};
use acteon_state_core::{
    Error, ErrorKind, ExtendOutcome, LockBusy, LockGrant, LockRequest, LockState, OwnerId, ReleaseOutcome, Result,
    StateKey,
};

use crate::error::{classify, foreign};
use crate::store::{Handle, Now};
use crate::text::companion_text;

/// Whose turn it is when somebody asks for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The asker's.
    Own,
    /// That of others who wait: the asker only finds what it holds already.
    Others,
}

/// What came of asking once.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attempt {
    Granted(LockGrant),
    /// Others hold it; waiting helps.
    Busy(LockBusy),
    /// The owner has released it and cannot get it again; waiting does not help.
    Refused(LockBusy),
}

impl Handle {
    /// Asks once, without waiting.
    pub(crate) fn lock_try(&self, request: &LockRequest, lease_ms: u64, now: Now) -> Result<Attempt> {
        let text = companion_text(&self.keyspace, &request.key, Companion::Lock);
        let record = self.record_at(&request.key, &text);
        self.shared.lock_in_turn(&text, |turn| record.acquire(request, lease_ms, turn, now))
    }

    pub(crate) fn lock_extend(
        &self,
        key: &StateKey,
        owner: OwnerId,
        lease: Duration,
        now: Now,
    ) -> Result<ExtendOutcome> {
        let lease_ms = duration_ms("lease", lease)?;
        let text = companion_text(&self.keyspace, key, Companion::Lock);
        let extended = self.record_at(key, &text).change(now, |record| {
            let extended = record.extend(owner, lease_ms, now.us());
            (extended, extended)
        })?;
        // The lease may end earlier than before, and whoever is next must know.
        self.shared.lock_pass_on(&text);
        Ok(if extended { ExtendOutcome::Extended } else { ExtendOutcome::Lost })
    }

    pub(crate) fn lock_release(&self, key: &StateKey, owner: OwnerId, now: Now) -> Result<ReleaseOutcome> {
        let text = companion_text(&self.keyspace, key, Companion::Lock);
        let outcome = self.record_at(key, &text).change(now, |record| {
            let outcome = record.release(owner, now.us());
            (outcome, outcome == ReleaseOutcome::Released)
        })?;
        self.shared.lock_pass_on(&text);
        Ok(outcome)
    }

    pub(crate) fn lock_force_release(&self, key: &StateKey, reason: &str, now: Now) -> Result<usize> {
        let text = companion_text(&self.keyspace, key, Companion::Lock);
        let ended = self.record_at(key, &text).change(now, |record| {
            let ended = record.force_release(now.us());
            (ended, ended > 0)
        })?;
        tracing::warn!(%key, reason, ended, "a lock was released by force");
        self.shared.lock_pass_on(&text);
        Ok(ended)
    }

    pub(crate) fn lock_inspect(&self, key: &StateKey, now: Now) -> Result<Option<LockState>> {
        let text = companion_text(&self.keyspace, key, Companion::Lock);
        self.shared.engine.read(&text, now.ms(), |stored| {
            let Some(stored) = stored else { return Ok(None) };
            let record = stored.as_str().and_then(LockRecord::parse).ok_or_else(|| foreign(key))?;
            Ok(record.state(key, now.us()))
        })
    }

    fn record_at<'a>(&'a self, key: &'a StateKey, text: &'a [u8]) -> RecordAt<'a> {
        RecordAt { engine: &self.shared.engine, key, text, retention_ms: self.lock_retention_ms }
    }
}

/// A grant that its owner has not heard of yet. Dropping it takes the grant back, so that nothing stays held when the owner has stopped
/// waiting, or cannot be told because the disk fails.
pub(crate) struct Unheard<'a> {
    handle: &'a Handle,
    request: &'a LockRequest,
    is_heard: bool,
}

impl<'a> Unheard<'a> {
    pub(crate) fn new(handle: &'a Handle, request: &'a LockRequest) -> Self {
        Self { handle, request, is_heard: false }
    }

    pub(crate) fn hear(mut self) {
        self.is_heard = true;
    }
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        if self.is_heard {
            return;
        }
        let (shared, LockRequest { key, owner, .. }) = (&self.handle.shared, self.request);
        let text = companion_text(&self.handle.keyspace, key, Companion::Lock);
        if let Err(error) = self.handle.record_at(key, &text).withdraw(*owner, shared.now()) {
            tracing::warn!(%key, %error, "a lock that nobody took could not be given back; its lease ends by itself");
        }
        shared.lock_pass_on(&text);
    }
}

/// The place of one lock's record.
pub(crate) struct RecordAt<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) key: &'a StateKey,
    pub(crate) text: &'a [u8],
    pub(crate) retention_ms: u64,
}

impl RecordAt<'_> {
    pub(crate) fn acquire(&self, request: &LockRequest, lease_ms: u64, turn: Turn, now: Now) -> Result<Attempt> {
        // Before the step that grants: the holder must not think that it has longer than it has.
        let deadline = BootInstant::now() + request.lease;
        let (grant, is_refused) = self.change(now, |record| {
            record.drop_expired(now.us());
            if turn == Turn::Others && record.holders.iter().all(|holder| holder.owner != request.owner) {
                return ((Grant::Busy(record.busy(now.us())), false), false);
            }
            let grant = record.acquire(request, lease_ms, now.us());
            let is_refused = record.last_release == Some(request.owner);
            ((grant, is_refused), matches!(grant, Grant::Granted(_)))
        })?;
        match grant {
            Grant::Granted(token) => Ok(Attempt::Granted(LockGrant { token, deadline })),
            Grant::Busy(busy) if is_refused => Ok(Attempt::Refused(busy)),
            Grant::Busy(busy) => Ok(Attempt::Busy(busy)),
            Grant::TokensExhausted => {
                Err(Error::new(ErrorKind::Internal, "the lock has used up its tokens").with_key(self.key))
            }
        }
    }

    /// Undoes a grant that its owner never learnt of.
    pub(crate) fn withdraw(&self, owner: OwnerId, now: Now) -> Result<()> {
        self.change(now, |record| (record.withdraw(owner, now.us()), true))
    }

    /// Makes one transition in one step. `transition` also says whether there is anything to write.
    fn change<R>(&self, now: Now, transition: impl FnOnce(&mut LockRecord) -> (R, bool)) -> Result<R> {
        self.engine.update(self.text, now.ms(), |slot| {
            let mut record = match slot.get() {
                Some(stored) => stored.as_str().and_then(LockRecord::parse).ok_or_else(|| foreign(self.key))?,
                None => LockRecord::default(),
            };
            let (result, is_changed) = transition(&mut record);
            if is_changed {
                let mut text = Vec::new();
                record.write(&mut text);
                let unused_from_us = record.last_expiry_us().unwrap_or(0).max(now.us());
                let kept_until_ms = unused_from_us.div_ceil(1_000).saturating_add(self.retention_ms);
                slot.set_str(&[&text], Expiry::At(kept_until_ms)).map_err(|error| classify(self.key, error))?;
            }
            Ok(result)
        })
    }
}
