//! Locks: who holds them until when. Tokens are the driver's; the model says how they must compare.

use std::collections::BTreeMap;
use std::time::Duration;

use acteon_state_core::{ExtendOutcome, LockMode, LockOutcome, LockRequest, OwnerId, ReleaseOutcome, StateKey};

/// All locks.
#[derive(Debug, Default)]
pub(crate) struct Locks(BTreeMap<StateKey, Lock>);

/// One lock.
#[derive(Debug, Default)]
pub(crate) struct Lock {
    pub(crate) last_token: u64,
    pub(crate) last_release: Option<OwnerId>,
    pub(crate) holders: Vec<Holder>,
}

/// One holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) owner: OwnerId,
    pub(crate) mode: LockMode,
    pub(crate) token: u64,
    pub(crate) expires_at: Duration,
    pub(crate) since: Duration,
}

impl Locks {
    /// The lock of a name, without holders whose lease has ended.
    pub(crate) fn at(&mut self, key: &StateKey, now: Duration) -> &mut Lock {
        let lock = self.0.entry(key.clone()).or_default();
        lock.holders.retain(|holder| holder.expires_at > now);
        lock
    }

    /// The names of all locks that were ever granted.
    pub(crate) fn names(&self) -> Vec<StateKey> {
        self.0.iter().filter(|(_, lock)| lock.last_token > 0).map(|(key, _)| key.clone()).collect()
    }
}

impl Lock {
    /// Follows a request. Returns how long a busy lock is busy; or, when the driver is wrong, what was expected.
    pub(crate) fn acquire(
        &mut self,
        request: &LockRequest,
        now: Duration,
        got: &LockOutcome,
    ) -> Result<Option<Duration>, String> {
        let expires_at = now + request.lease;
        let ours = self.holders.iter_mut().find(|holder| holder.owner == request.owner);
        if let Some(ours) = ours {
            ours.expires_at = expires_at;
            let token = ours.token;
            return match got {
                LockOutcome::Granted(grant) if grant.token.get() == token => Ok(None),
                _ => Err(format!("the grant that this owner has, with token {token}")),
            };
        }
        if self.last_release == Some(request.owner) || !self.admits(request.mode) {
            return self.refuse(now, got);
        }
        match got {
            LockOutcome::Granted(grant) if grant.token.get() > self.last_token => {
                let token = grant.token.get();
                self.last_token = token;
                self.holders.push(Holder { owner: request.owner, mode: request.mode, token, expires_at, since: now });
                Ok(None)
            }
            _ => Err(format!("a grant with a token above {}", self.last_token)),
        }
    }

    fn refuse(&self, now: Duration, got: &LockOutcome) -> Result<Option<Duration>, String> {
        let token = self.holders.iter().map(|holder| holder.token).max();
        let retry_after = self.holders.iter().map(|holder| holder.expires_at - now).min().unwrap_or_default();
        match got {
            LockOutcome::Busy(busy) if busy.token.map(|token| token.get()) == token => Ok(Some(retry_after)),
            _ => Err(format!("busy, with token {token:?}")),
        }
    }

    fn admits(&self, mode: LockMode) -> bool {
        let mut others = self.holders.iter().map(|holder| holder.mode);
        match mode {
            LockMode::Exclusive => others.next().is_none(),
            LockMode::Shared => others.all(|other| other == LockMode::Shared),
            LockMode::Permit { of } => {
                self.holders.len() < of as usize && others.all(|other| matches!(other, LockMode::Permit { .. }))
            }
        }
    }

    pub(crate) fn extend(&mut self, owner: OwnerId, until: Duration) -> ExtendOutcome {
        match self.holders.iter_mut().find(|holder| holder.owner == owner) {
            Some(holder) => {
                holder.expires_at = until;
                ExtendOutcome::Extended
            }
            None => ExtendOutcome::Lost,
        }
    }

    pub(crate) fn release(&mut self, owner: OwnerId) -> ReleaseOutcome {
        let held = self.holders.len();
        self.holders.retain(|holder| holder.owner != owner);
        if self.holders.len() < held {
            self.last_release = Some(owner);
        }
        if self.last_release == Some(owner) { ReleaseOutcome::Released } else { ReleaseOutcome::AlreadyLost }
    }

    /// Undoes a grant that its owner never learnt of; it has not released anything.
    pub(crate) fn withdraw(&mut self, owner: OwnerId) {
        self.holders.retain(|holder| holder.owner != owner);
    }

    pub(crate) fn force_release(&mut self) -> usize {
        std::mem::take(&mut self.holders).len()
    }
}
