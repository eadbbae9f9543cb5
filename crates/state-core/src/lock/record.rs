//! The lock record: one text that holds the last token, the last release, and who holds the lock.
//!
//! # Guarantees
//! Tokens follow the rule of [`FencingToken::next`]. The record outlives its holders, so tokens go on rising; how long it is
//! kept when nobody uses the lock is the driver's option, since the time floor of the rule stands in for a lost record.
//!
//! # How it works
//! The first line is `L1 <last token> <owner of the last release, or ->`. Each further line is one holder:
//! `<x|s|p> <permits> <token> <expires at µs> <held since µs> <owner> <meta>`. All times are the backend's clock.
//! The owner that released last is refused until another one releases: a request that was delayed on a broken connection and
//! arrives right after the release of its own operation must not leave the lock held by nobody. One that arrives later still
//! is granted, and its lease ends by itself.

use std::time::Duration;

use smallvec::SmallVec;

use crate::entry::FencingToken;
use crate::fields::Fields;
use crate::key::StateKey;
use crate::lock::request::{
    HOLDERS_MAX, LockBusy, LockHolder, LockMode, LockRequest, LockState, OwnerId, ReleaseOutcome,
};

/// How long drivers keep the record of a lock after its last lease, unless told otherwise.
///
/// While it is kept, tokens rise whatever the backend's clock does; afterwards they rise as long as that clock was not set
/// back by more than this. Longer would cost memory for locks with unique names, such as one per action: at a thousand new ones
/// per second, ten minutes are 600,000 records.
pub const RETENTION_DEFAULT: Duration = Duration::from_secs(600);

const FORMAT: &[u8] = b"L1 ";
/// Bytes of a line without the description, when its numbers have as many digits as times have in this century: for a buffer that need not grow.
const LINE_BYTES_USUAL: usize = 96;

/// A lock record in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockRecord {
    /// The newest token that was granted; 0 before the first grant.
    pub last_token: u64,
    /// Who released last.
    pub last_release: Option<OwnerId>,
    /// Who holds it, in order of their grants; may contain holders whose lease has ended. One is kept without an allocation: most locks are
    /// exclusive.
    pub holders: SmallVec<[Holder; 1]>,
}

/// One holder in a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// How it shares.
    pub mode: LockMode,
    /// Its token.
    pub token: FencingToken,
    /// When its lease ends, in µs of the backend's clock.
    pub expires_at_us: u64,
    /// When it was granted.
    pub since_us: u64,
    /// The acquisition.
    pub owner: OwnerId,
    /// What it said of itself.
    pub meta: String,
}

/// What a record answers to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Granted now, or found granted to the same owner before.
    Granted(FencingToken),
    /// Others hold it.
    Busy(LockBusy),
    /// The space of tokens is used up.
    TokensExhausted,
}

impl LockRecord {
    /// Reads a record; `None` when the text is none.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(text);
        fields.literal(FORMAT)?;
        let last_token = fields.number().filter(|token| *token < FencingToken::LIMIT)?;
        fields.literal(b" ")?;
        let last_release = fields.id_or_hyphen()?.map(OwnerId::from_u128);
        fields.literal(b"\n")?;
        let mut holders = SmallVec::new();
        while !fields.rest().is_empty() {
            holders.push(Holder::parse(&mut fields)?);
        }
        Some(Self { last_token, last_release, holders })
    }

    /// Writes the record into `text`, replacing what it held.
    pub fn write(&self, text: &mut Vec<u8>) {
        text.clear();
        text.reserve(LINE_BYTES_USUAL * (1 + self.holders.len()));
        text.extend_from_slice(FORMAT);
        push_number(text, self.last_token);
        text.push(b' ');
        match self.last_release {
            Some(owner) => text.extend_from_slice(&owner.to_text()),
            None => text.push(b'-'),
        }
        text.push(b'\n');
        for holder in &self.holders {
            holder.write(text);
        }
    }

    /// Grants the lock if nobody else's live lease forbids it. Holders whose lease has ended are removed first.
    ///
    /// An owner that holds it already keeps its token, and its lease begins anew: it counts its own deadline from the
    /// request that was answered.
    pub fn acquire(&mut self, request: &LockRequest, lease_ms: u64, now_us: u64) -> Grant {
        self.drop_expired(now_us);
        let expires_at_us = now_us.saturating_add(lease_ms.saturating_mul(1_000));
        if let Some(ours) = self.holders.iter_mut().find(|holder| holder.owner == request.owner) {
            ours.expires_at_us = expires_at_us;
            return Grant::Granted(ours.token);
        }
        if self.last_release == Some(request.owner) || !self.admits(request.mode) {
            return Grant::Busy(self.busy(now_us));
        }
        let Some(token) = FencingToken::next(self.last_token, now_us) else {
            return Grant::TokensExhausted;
        };
        self.last_token = token.get();
        self.holders.push(Holder {
            mode: request.mode,
            token,
            expires_at_us,
            since_us: now_us,
            owner: request.owner,
            meta: request.meta.clone(),
        });
        Grant::Granted(token)
    }

    /// Moves the end of the owner's lease to `lease_ms` from now; `false` when it has none any more.
    pub fn extend(&mut self, owner: OwnerId, lease_ms: u64, now_us: u64) -> bool {
        self.drop_expired(now_us);
        let Some(holder) = self.holders.iter_mut().find(|holder| holder.owner == owner) else {
            return false;
        };
        holder.expires_at_us = now_us.saturating_add(lease_ms.saturating_mul(1_000));
        true
    }

    /// Ends the owner's lease. A repeated release of the last released owner reports `Released` again.
    pub fn release(&mut self, owner: OwnerId, now_us: u64) -> ReleaseOutcome {
        self.drop_expired(now_us);
        if self.last_release == Some(owner) {
            return ReleaseOutcome::Released;
        }
        let before = self.holders.len();
        self.holders.retain(|holder| holder.owner != owner);
        if self.holders.len() == before {
            return ReleaseOutcome::AlreadyLost;
        }
        self.last_release = Some(owner);
        ReleaseOutcome::Released
    }

    /// Undoes a grant that its owner never learnt of. Unlike a release it leaves the owner free to ask again.
    pub fn withdraw(&mut self, owner: OwnerId, now_us: u64) {
        self.holders.retain(|holder| holder.owner != owner && holder.is_live(now_us));
    }

    /// Ends all leases; returns how many were live.
    pub fn force_release(&mut self, now_us: u64) -> usize {
        self.drop_expired(now_us);
        std::mem::take(&mut self.holders).len()
    }

    /// When the last lease ends, in µs; `None` without holders.
    #[must_use]
    pub fn last_expiry_us(&self) -> Option<u64> {
        self.holders.iter().map(|holder| holder.expires_at_us).max()
    }

    /// The state as operators see it; `None` for a record that never granted anything.
    #[must_use]
    pub fn state(&self, key: &StateKey, now_us: u64) -> Option<LockState> {
        let holders = self.holders.iter().filter(|holder| holder.is_live(now_us)).map(|holder| LockHolder {
            owner: holder.owner,
            mode: holder.mode,
            token: holder.token,
            expires_in: Duration::from_micros(holder.expires_at_us - now_us),
            held_for: Duration::from_micros(now_us.saturating_sub(holder.since_us)),
            meta: holder.meta.clone(),
        });
        Some(LockState {
            key: key.clone(),
            last_token: FencingToken::new(self.last_token).ok()?,
            holders: holders.collect(),
        })
    }

    /// Removes holders whose lease has ended.
    pub fn drop_expired(&mut self, now_us: u64) {
        self.holders.retain(|holder| holder.is_live(now_us));
    }

    /// Whether the live holders leave room for one more in this mode.
    fn admits(&self, mode: LockMode) -> bool {
        let others = self.holders.iter().map(|holder| holder.mode);
        let count = u32::try_from(self.holders.len()).unwrap_or(u32::MAX);
        match mode {
            LockMode::Exclusive => count == 0,
            LockMode::Shared => count < HOLDERS_MAX && { others }.all(|other| other == LockMode::Shared),
            LockMode::Permit { of } => count < of && { others }.all(|other| matches!(other, LockMode::Permit { .. })),
        }
    }

    /// What a request that is not granted is told about the holders.
    #[must_use]
    pub fn busy(&self, now_us: u64) -> LockBusy {
        let first_end_us = self.holders.iter().map(|holder| holder.expires_at_us).min();
        LockBusy {
            token: self.holders.iter().map(|holder| holder.token).max(),
            retry_after: Duration::from_micros(first_end_us.map_or(0, |end_us| end_us.saturating_sub(now_us))),
        }
    }
}

impl Holder {
    /// Whether the lease still lasts.
    #[must_use]
    pub const fn is_live(&self, now_us: u64) -> bool {
        self.expires_at_us > now_us
    }

    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let mode = fields.byte()?;
        let mut number = || {
            fields.literal(b" ")?;
            fields.number()
        };
        let (permits, token, expires_at_us, since_us) = (number()?, number()?, number()?, number()?);
        let of = u32::try_from(permits).ok()?;
        let mode = match mode {
            b'x' => LockMode::Exclusive,
            b's' => LockMode::Shared,
            b'p' => LockMode::Permit { of },
            _ => return None,
        };
        let token = FencingToken::new(token).ok()?;
        fields.literal(b" ")?;
        let owner = OwnerId::from_u128(fields.id()?);
        fields.literal(b" ")?;
        let meta = std::str::from_utf8(fields.line()?).ok()?.to_owned();
        Some(Self { mode, token, expires_at_us, since_us, owner, meta })
    }

    fn write(&self, text: &mut Vec<u8>) {
        let (mode, permits) = mode_fields(self.mode);
        text.extend_from_slice(mode.as_bytes());
        for field in [u64::from(permits), self.token.get(), self.expires_at_us, self.since_us] {
            text.push(b' ');
            push_number(text, field);
        }
        text.push(b' ');
        text.extend_from_slice(&self.owner.to_text());
        text.push(b' ');
        text.extend_from_slice(self.meta.as_bytes());
        text.push(b'\n');
    }
}

/// How a record and a script spell a mode: its letter and its permits.
#[must_use]
pub const fn mode_fields(mode: LockMode) -> (&'static str, u32) {
    match mode {
        LockMode::Exclusive => ("x", 1),
        LockMode::Shared => ("s", HOLDERS_MAX),
        LockMode::Permit { of } => ("p", of),
    }
}

fn push_number(text: &mut Vec<u8>, number: u64) {
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use smallvec::smallvec;

    use super::{Grant, Holder, LockRecord};
    use crate::entry::FencingToken;
    use crate::key::StateKey;
    use crate::lock::request::{LockMode, LockRequest, OwnerId, ReleaseOutcome};

    fn request(mode: LockMode) -> LockRequest {
        let key = StateKey::new("n", "t", "k", "i").unwrap();
        LockRequest { mode, meta: "node 7, job \"a b\"".to_owned(), ..LockRequest::new(key, Duration::from_secs(1)) }
    }

    fn token(grant: Grant) -> u64 {
        match grant {
            Grant::Granted(token) => token.get(),
            other => panic!("not granted: {other:?}"),
        }
    }

    #[test]
    fn records_read_back() {
        let mut record = LockRecord::default();
        let mut text = Vec::new();
        for mode in [LockMode::Shared, LockMode::Shared] {
            record.acquire(&request(mode), 1_000, 5);
            record.write(&mut text);
            assert_eq!(LockRecord::parse(&text), Some(record.clone()), "{}", text.escape_ascii());
        }
        let owner = record.holders[0].owner;
        assert_eq!(record.release(owner, 6), ReleaseOutcome::Released);
        record.write(&mut text);
        assert_eq!(LockRecord::parse(&text), Some(record));
        for cut in 0..text.len() - 1 {
            let part = &text[..cut];
            assert!(LockRecord::parse(part).is_none_or(|record| record.holders.is_empty()), "cut at {cut}");
        }
    }

    #[test]
    fn the_text_is_the_documented_one() {
        let (holder, released) = (OwnerId::from_u128(1), OwnerId::from_u128(2));
        let token = FencingToken::new(1_700_000_000_000_000).unwrap();
        let holder =
            |mode| Holder { mode, token, expires_at_us: 5, since_us: 0, owner: holder, meta: "a ü".to_owned() };
        let record = LockRecord {
            last_token: token.get(),
            last_release: Some(released),
            holders: smallvec![
                holder(LockMode::Exclusive),
                holder(LockMode::Shared),
                holder(LockMode::Permit { of: 7 })
            ],
        };
        let expected = "L1 1700000000000000 AAAAAAAAAAAAAAAAAAAAAg\n\
            x 1 1700000000000000 5 0 AAAAAAAAAAAAAAAAAAAAAQ a ü\n\
            s 1000 1700000000000000 5 0 AAAAAAAAAAAAAAAAAAAAAQ a ü\n\
            p 7 1700000000000000 5 0 AAAAAAAAAAAAAAAAAAAAAQ a ü\n";
        let mut text = b"what was there before".to_vec();
        record.write(&mut text);
        assert_eq!(std::str::from_utf8(&text), Ok(expected));
        assert_eq!(LockRecord::parse(expected.as_bytes()), Some(record));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let owner = "AAAAAAAAAAAAAAAAAAAAAQ";
        for bad in [
            String::new(),
            "L1 5 -".to_owned(),
            "L2 5 -\n".to_owned(),
            "L1 05 -\n".to_owned(),
            "L1 9007199254740992 -\n".to_owned(),
            "L1 5 - \n".to_owned(),
            "L1 5 -\n\n".to_owned(),
            format!("L1 5 -\nx 1 0 5 0 {owner} \n"),
            format!("L1 5 -\ny 1 5 5 0 {owner} \n"),
            format!("L1 5 -\nx 1 5 5 0 {owner}\n"),
            format!("L1 5 -\nx 1 5 5 0 {owner} meta"),
            format!("L1 5 -\np 4294967296 5 5 0 {owner} \n"),
            format!("L1 5 -\nx 1 5 -5 0 {owner} \n"),
        ] {
            assert_eq!(LockRecord::parse(bad.as_bytes()), None, "{bad:?}");
        }
        let not_text = [format!("L1 5 -\nx 1 5 5 0 {owner} ").as_bytes(), b"\xff\n"].concat();
        assert_eq!(LockRecord::parse(&not_text), None);
    }

    #[test]
    fn tokens_rise_over_release_expiry_and_a_lost_record() {
        let mut record = LockRecord::default();
        let first = request(LockMode::Exclusive);
        let mut last = token(record.acquire(&first, 1_000, 100));
        record.release(first.owner, 100);
        let after_release = token(record.acquire(&request(LockMode::Exclusive), 1_000, 100));
        assert!(after_release > last);
        last = token(record.acquire(&request(LockMode::Exclusive), 1_000, 2_000_000));
        assert!(last > after_release);
        let mut lost = LockRecord::default();
        assert!(token(lost.acquire(&request(LockMode::Exclusive), 1_000, 2_000_001)) > last);
    }

    #[test]
    fn a_repeated_acquire_finds_its_own_grant_and_a_late_one_is_refused_after_release() {
        let mut record = LockRecord::default();
        let ours = request(LockMode::Exclusive);
        let granted = token(record.acquire(&ours, 1_000, 100));
        assert_eq!(token(record.acquire(&ours, 1_000, 200)), granted);
        assert_eq!(record.release(ours.owner, 300), ReleaseOutcome::Released);
        assert_eq!(record.release(ours.owner, 300), ReleaseOutcome::Released);
        assert!(matches!(record.acquire(&ours, 1_000, 400), Grant::Busy(_)));
    }

    #[test]
    fn modes_exclude_each_other_as_named() {
        let mut record = LockRecord::default();
        token(record.acquire(&request(LockMode::Shared), 1_000, 0));
        token(record.acquire(&request(LockMode::Shared), 1_000, 0));
        assert!(matches!(record.acquire(&request(LockMode::Exclusive), 1_000, 0), Grant::Busy(_)));
        assert!(matches!(record.acquire(&request(LockMode::Permit { of: 9 }), 1_000, 0), Grant::Busy(_)));
        let mut permits = LockRecord::default();
        token(permits.acquire(&request(LockMode::Permit { of: 2 }), 1_000, 0));
        token(permits.acquire(&request(LockMode::Permit { of: 2 }), 1_000, 0));
        assert!(matches!(permits.acquire(&request(LockMode::Permit { of: 2 }), 1_000, 0), Grant::Busy(_)));
        token(permits.acquire(&request(LockMode::Permit { of: 2 }), 1_000, 1_000_000));
    }

    #[test]
    fn only_the_owner_extends_and_nobody_after_the_end() {
        let mut record = LockRecord::default();
        let ours = request(LockMode::Exclusive);
        token(record.acquire(&ours, 1_000, 0));
        assert!(!record.extend(request(LockMode::Exclusive).owner, 1_000, 10));
        assert!(record.extend(ours.owner, 1_000, 999_999));
        assert!(!record.extend(ours.owner, 1_000, 1_999_999));
        assert_eq!(record.release(ours.owner, 1_999_999), ReleaseOutcome::AlreadyLost);
    }
}
