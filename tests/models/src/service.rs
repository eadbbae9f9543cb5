//! A lock service with a clock: the contract crate's record, and rules of it that are broken on purpose.

use std::hash::{Hash, Hasher};
use std::iter;

use acteon_state_core::lock::record::{Grant, Holder, LockRecord};
use acteon_state_core::{FencingToken, LockMode, LockRequest, OwnerId, ReleaseOutcome};

use crate::history::Owner;

/// A rule of the protocol that is broken, to see that the checker notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Tokens count, but do not follow the clock.
    TokensWithoutFloor,
    /// Tokens follow the clock, but do not count.
    TokensWithoutCount,
    /// Whoever releases ends the lease of whoever holds.
    ReleaseUnchecked,
    /// An extension takes the lock back that was lost or released meanwhile.
    ExtensionTakesBack,
    /// The last release is not remembered.
    ReleaseForgotten,
    /// A client counts its deadline from the reply instead of from before the request.
    DeadlineFromReply,
}

/// The lock's record, which can be told apart from others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record(LockRecord);

impl Hash for Record {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let LockRecord { last_token, last_release, holders } = &self.0;
        (last_token, last_release.map(OwnerId::as_u128)).hash(state);
        for holder in holders {
            (holder.token.get(), holder.expires_at_us, holder.since_us, holder.owner.as_u128()).hash(state);
        }
    }
}

impl Record {
    /// Grants the lock, or finds it granted; the token.
    pub fn acquire(
        &mut self,
        owner: Owner,
        template: &LockRequest,
        lease_ms: u64,
        now_us: u64,
        broken: Option<Broken>,
    ) -> Option<u64> {
        let record = &mut self.0;
        if broken == Some(Broken::ReleaseForgotten) {
            record.last_release = None;
        }
        let last_token = record.last_token;
        let request = LockRequest { owner: owner.id(), ..template.clone() };
        let Grant::Granted(token) = record.acquire(&request, lease_ms, now_us) else { return None };
        let is_new = record.last_token != last_token;
        let instead = match broken {
            Some(Broken::TokensWithoutFloor) if is_new => last_token + 1,
            Some(Broken::TokensWithoutCount) if is_new => now_us,
            _ => return Some(token.get()),
        };
        record.last_token = instead;
        let holder = record.holders.last_mut().expect("it was granted");
        holder.token = FencingToken::new(instead).expect("few grants fit into a model");
        Some(instead)
    }

    /// Moves the end of the owner's lease; whether it held the lock.
    pub fn extend(&mut self, owner: Owner, lease_ms: u64, now_us: u64, broken: Option<Broken>) -> bool {
        let extended = self.0.extend(owner.id(), lease_ms, now_us);
        if extended || broken != Some(Broken::ExtensionTakesBack) {
            return extended;
        }
        let Ok(token) = FencingToken::new(self.0.last_token) else { return false };
        self.0.holders = iter::once(Holder {
            mode: LockMode::Exclusive,
            token,
            expires_at_us: now_us + lease_ms * 1_000,
            since_us: now_us,
            owner: owner.id(),
            meta: String::new(),
        })
        .collect();
        true
    }

    /// Ends the owner's lease; whether it was the owner's.
    pub fn release(&mut self, owner: Owner, now_us: u64, broken: Option<Broken>) -> bool {
        let outcome = self.0.release(owner.id(), now_us);
        if broken == Some(Broken::ReleaseUnchecked) && outcome == ReleaseOutcome::AlreadyLost {
            self.0.force_release(now_us);
        }
        outcome == ReleaseOutcome::Released
    }

    /// Removes leases that have ended.
    pub fn drop_expired(&mut self, now_us: u64) {
        self.0.drop_expired(now_us);
    }

    /// Whether nobody holds what it was the last to release.
    #[must_use]
    pub fn is_released_by(&self, last: Option<Owner>) -> bool {
        last.is_none_or(|last| self.0.holders.iter().all(|holder| holder.owner != last.id()))
    }
}
