//! The lock record as an item, version 1 of the format.
//!
//! | attribute | type | when | meaning |
//! |---|---|---|---|
//! | `f` | N | always | the version of the item format: 1 |
//! | `k` | N | always | the newest token that was granted |
//! | `h` | N | always | how many holders the record has; 0 when it is free |
//! | `z` | B | always | 16 bytes that change with every write |
//! | `w` | B | after a release | the owner that released last |
//! | `o` `n` `x` `s` | B, N | one holder | its owner and token, when its lease ends and since when it holds, in µs since 1970 |
//! | `m` `p` `d` | S, N, S | one holder | its mode (`x`, `s` or `p`), permits, and description |
//! | `g` | S | several holders | the record as the contract crate's `lock::record` writes it |
//! | `l` | N | held | the longest lease of a holder, in ms |
//! | `b` | BOOL | held | whether the clocks that wrote the ends of the leases kept the declared bound |
//! | `iq` `ia` | S, N | always | where the lock is listed; set once |
//!
//! A lock with one holder, which nearly all have, is spelled out so that conditions can look at it. The record is kept for ever,
//! so that tokens rise: it never has an attribute that DynamoDB's TTL acts on.

use std::time::Duration;

use acteon_state_core::clock::BootInstant;
use acteon_state_core::lock::record::{Holder, LockRecord, mode_fields};
use acteon_state_core::{Error, FencingToken, LockBusy, LockMode, OwnerId, Result, StateKey, Version};
use aws_sdk_dynamodb::types::AttributeValue;

use super::observe::{Mark, Observations};
use crate::condition::Expression;
use crate::item::{FORMAT, FORMAT_NAME, Item, identifier, identifier_of, number, number_of, text};

/// A condition: nobody holds the lock, the time is a token that rises, and its owner is not the one that released last. Goes
/// with the values of [`Stored::update`].
pub(super) const FREE: &str = "(attribute_not_exists(pk) OR \
     (f = :f AND h = :none AND k < :k AND (attribute_not_exists(w) OR w <> :o)))";
/// A condition: this owner is the only holder, and its lease lasts.
pub(super) const OURS: &str = "f = :f AND o = :o AND x > :now";

/// Goes with [`OURS`] where the lease is extended: only to a later end. An earlier extension that was held up on its way would
/// otherwise cut the lease that its holder relies on. One that is meant to end earlier is written to the lock as it was read.
pub(super) const LATER: &str = "x < :x";

/// Two clocks that measure the same time may differ by this share of it: 400 ppm, and some more.
const RATE_MARGIN_SHARE: u32 = 2_000;

/// A lock as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) record: LockRecord,
    /// The version of what was read; `None` when there was no item.
    version: Option<u128>,
    /// The longest lease of a holder.
    lease_ms: u64,
    /// Whether the ends of the leases were told by clocks within the declared bound.
    is_timed: bool,
}

/// What a client goes by when it looks at a lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now_us: u64,
    /// How far clocks may differ; `None` when ours does not keep the bound.
    pub(super) skew: Option<Duration>,
    /// The same moment on the clock that measures what we observe.
    pub(super) boot: BootInstant,
}

/// Who writes, and what it does to leases.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Writer {
    /// Whose lease is meant: it ends by the clock alone, without a margin for that of others.
    pub(super) owner: Option<OwnerId>,
    /// The lease, when one is granted or extended.
    pub(super) lease_ms: Option<u64>,
}

/// A lock as this client sees it: without the leases that have ended.
#[derive(Debug)]
pub(super) struct View {
    /// Leases that count although their time is over, by the margin, end a µs from now.
    pub(super) record: LockRecord,
    pub(super) now_us: u64,
    /// How long until the first of the leases has ended for us.
    retry_after: Duration,
    /// When leases end as it is stored.
    ends: Vec<(OwnerId, u64)>,
}

impl Stored {
    /// # Errors
    /// `Corrupt` when the item is no lock of a format that this program knows.
    pub(super) fn read(key: &StateKey, item: Option<&Item>) -> Result<Self> {
        match item {
            None => Ok(Self::default()),
            Some(item) => Self::parse(item).ok_or_else(|| corrupt(key)),
        }
    }

    fn parse(item: &Item) -> Option<Self> {
        if number_of::<u64>(item, FORMAT_NAME)? != FORMAT {
            return None;
        }
        let last_token = number_of(item, "k").filter(|token| *token < FencingToken::LIMIT)?;
        let last_release = match item.get("w") {
            None => None,
            Some(_) => Some(OwnerId::from_u128(identifier_of(item, "w")?)),
        };
        let count: usize = number_of(item, "h")?;
        let holders = match count {
            0 => Default::default(),
            1 => [parse_holder(item)?].into(),
            _ => LockRecord::parse(text_of(item, "g")?.as_bytes())?.holders,
        };
        let (lease_ms, is_timed) = match count {
            0 => (0, false),
            _ => (number_of(item, "l")?, *item.get("b")?.as_bool().ok()?),
        };
        (holders.len() == count).then_some(Self {
            record: LockRecord { last_token, last_release, holders },
            version: Some(identifier_of(item, "z")?),
            lease_ms,
            is_timed,
        })
    }

    /// What a free lock becomes by a grant to this holder.
    pub(super) fn granted(holder: Holder, lease_ms: u64, is_timed: bool) -> Self {
        let record = LockRecord { last_token: holder.token.get(), last_release: None, holders: [holder].into() };
        Self { record, version: None, lease_ms, is_timed }
    }

    /// Whether the lock was ever granted.
    pub(super) const fn exists(&self) -> bool {
        self.version.is_some()
    }

    /// A condition: the lock is as it was read.
    pub(super) fn unchanged(&self) -> Expression {
        match self.version {
            None => Expression::new("attribute_not_exists(pk)"),
            Some(version) => Expression::new("z = :was").with(":was", identifier(version)),
        }
    }

    /// What remains for `writer`'s eyes at a moment.
    pub(super) fn view(&self, lock: &str, writer: Writer, observed: &Observations, moment: &Moment) -> View {
        let marks: Vec<Mark> = self.record.holders.iter().map(|holder| self.mark(holder)).collect();
        let since = observed.look(lock, &marks, moment.boot);
        let now_us = moment.now_us;
        let mut view = View {
            record: LockRecord { holders: Default::default(), ..self.record.clone() },
            now_us,
            retry_after: Duration::MAX,
            ends: Vec::with_capacity(marks.len()),
        };
        for (holder, since) in self.record.holders.iter().zip(since) {
            let left = if writer.owner == Some(holder.owner) {
                Duration::from_micros(holder.expires_at_us.saturating_sub(now_us))
            } else {
                self.left(holder, since, moment)
            };
            if left.is_zero() {
                continue;
            }
            view.retry_after = view.retry_after.min(left);
            view.ends.push((holder.owner, holder.expires_at_us));
            let expires_at_us = holder.expires_at_us.max(now_us.saturating_add(1));
            view.record.holders.push(Holder { expires_at_us, ..holder.clone() });
        }
        view
    }

    /// How long until somebody else's lease has certainly ended: by time if the clocks allow it, by observation anyway.
    fn left(&self, holder: &Holder, since: BootInstant, moment: &Moment) -> Duration {
        let lease = Duration::from_millis(self.lease_ms);
        let observed_end = since + (lease + lease / RATE_MARGIN_SHARE);
        let by_observation = if moment.boot >= observed_end { Duration::ZERO } else { observed_end.remaining() };
        let Some(skew) = moment.skew.filter(|_| self.is_timed) else { return by_observation };
        let by_time = match holder.expires_at_us.checked_sub(moment.now_us) {
            Some(left_us) => Duration::from_micros(left_us).saturating_add(skew),
            None => skew.saturating_sub(Duration::from_micros(moment.now_us - holder.expires_at_us)),
        };
        by_observation.min(by_time)
    }

    fn mark(&self, holder: &Holder) -> Mark {
        // Among several, the version also changes with the leases of others; their own ends are kept different instead.
        let version = if self.record.holders.len() == 1 { self.version.unwrap_or(0) } else { 0 };
        Mark { owner: holder.owner, expires_at_us: holder.expires_at_us, version }
    }

    /// What is to be stored after `writer` changed what it saw; `None` when nothing is.
    pub(super) fn changed_to(&self, before: &LockRecord, view: View, writer: Writer, is_bounded: bool) -> Option<Self> {
        let (mut record, ends) = (view.record, view.ends);
        let mut next = Self { record: LockRecord::default(), version: self.version, ..*self };
        let ours = |holder: &Holder| writer.lease_ms.is_some() && writer.owner == Some(holder.owner);
        if let Some(lease_ms) = writer.lease_ms
            && record.holders.iter().any(ours)
        {
            let is_alone = record.holders.iter().all(ours);
            next.lease_ms = if is_alone { lease_ms } else { lease_ms.max(self.lease_ms) };
            next.is_timed = is_bounded && (is_alone || self.is_timed);
        } else if record == *before {
            return None;
        }
        for holder in &mut record.holders {
            let Some((_, end_us)) = ends.iter().find(|(owner, _)| *owner == holder.owner) else { continue };
            if !ours(holder) {
                holder.expires_at_us = *end_us;
            } else if holder.expires_at_us == *end_us {
                // An extension is told apart from what was there, for those who observe it.
                holder.expires_at_us = end_us.saturating_add(1);
            }
        }
        Some(Self { record, ..next })
    }

    /// The update that stores this. It leaves the owner of the last release alone if it knows none.
    pub(super) fn update(&self, listed_under: String) -> Expression {
        let LockRecord { last_token, last_release, holders } = &self.record;
        let mut set =
            "SET f = :f, k = :k, h = :h, z = :z, iq = if_not_exists(iq, :iq), ia = if_not_exists(ia, :ia)".to_owned();
        let mut update = Expression::default()
            .with(":f", number(FORMAT))
            .with(":k", number(last_token))
            .with(":h", number(holders.len()))
            .with(":z", new_version())
            .with(":iq", text(listed_under))
            // All locks of a scope stand side by side.
            .with(":ia", number(0));
        if let Some(owner) = last_release {
            set.push_str(", w = :w");
            update = update.with(":w", identifier(owner.as_u128()));
        }
        if !holders.is_empty() {
            set.push_str(", l = :l, b = :b");
            update = update.with(":l", number(self.lease_ms)).with(":b", AttributeValue::Bool(self.is_timed));
        }
        let remove = match &holders[..] {
            [] => "o, n, m, p, x, s, d, g, l, b",
            [holder] => {
                set.push_str(", o = :o, n = :n, m = :m, p = :p, x = :x, s = :s, d = :d");
                update = with_holder(update, holder);
                "g"
            }
            _ => {
                set.push_str(", g = :g");
                let mut written = Vec::new();
                self.record.write(&mut written);
                // Nothing but text goes into a record.
                update = update.with(":g", text(String::from_utf8_lossy(&written)));
                "o, n, m, p, x, s, d"
            }
        };
        Expression { text: format!("{set} REMOVE {remove}").into(), ..update }
    }
}

impl View {
    /// What a request that is not granted is told.
    pub(super) fn busy(&self) -> LockBusy {
        let retry_after = if self.record.holders.is_empty() { Duration::ZERO } else { self.retry_after };
        LockBusy { retry_after, ..self.record.busy(self.now_us) }
    }
}

/// The update of an extension by the only holder.
pub(super) fn extension(expires_at_us: u64, lease_ms: u64, is_timed: bool) -> Expression {
    Expression::new("SET x = :x, l = :l, b = :b, z = :z")
        .with(":x", number(expires_at_us))
        .with(":l", number(lease_ms))
        .with(":b", AttributeValue::Bool(is_timed))
        .with(":z", new_version())
}

/// The update of a release by the only holder.
pub(super) fn release() -> Expression {
    Expression::new("SET h = :none, w = :o, z = :z REMOVE o, n, m, p, x, s, d, l, b")
        .with(":none", number(0))
        .with(":z", new_version())
}

/// [`OURS`] at a time.
pub(super) fn ours(owner: OwnerId, now_us: u64) -> Expression {
    Expression::new(OURS)
        .with(":f", number(FORMAT))
        .with(":o", identifier(owner.as_u128()))
        .with(":now", number(now_us))
}

fn new_version() -> AttributeValue {
    identifier(Version::draw().as_u128())
}

fn with_holder(update: Expression, holder: &Holder) -> Expression {
    let (mode, permits) = mode_fields(holder.mode);
    update
        .with(":o", identifier(holder.owner.as_u128()))
        .with(":n", number(holder.token))
        .with(":m", text(mode))
        .with(":p", number(permits))
        .with(":x", number(holder.expires_at_us))
        .with(":s", number(holder.since_us))
        .with(":d", text(&holder.meta))
}

/// The one holder of a record.
fn parse_holder(item: &Item) -> Option<Holder> {
    let mode = match text_of(item, "m")? {
        "x" => LockMode::Exclusive,
        "s" => LockMode::Shared,
        "p" => LockMode::Permit { of: number_of(item, "p")? },
        _ => return None,
    };
    Some(Holder {
        mode,
        token: FencingToken::new(number_of(item, "n")?).ok()?,
        expires_at_us: number_of(item, "x")?,
        since_us: number_of(item, "s")?,
        owner: OwnerId::from_u128(identifier_of(item, "o")?),
        meta: text_of(item, "d")?.to_owned(),
    })
}

fn text_of<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

fn corrupt(key: &StateKey) -> Error {
    Error::corrupt(
        key,
        "the lock's item does not parse: it is of a later version, or something else writes to this table",
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use acteon_state_core::clock::BootInstant;
    use acteon_state_core::lock::record::Grant;
    use acteon_state_core::{LockMode, LockRequest, OwnerId, StateKey};

    use super::{Item, Moment, Observations, Stored, Writer};

    const NOW_US: u64 = 1_700_000_000_000_000;
    const LEASE_MS: u64 = 10_000;
    const SKEW: Duration = Duration::from_secs(1);

    fn key() -> StateKey {
        StateKey::new("n", "t", "k", "i").unwrap()
    }

    fn shared() -> LockRequest {
        LockRequest { mode: LockMode::Shared, meta: "job \"a b\"".to_owned(), ..LockRequest::new(key(), SKEW) }
    }

    fn moment(after: Duration, skew: Option<Duration>) -> Moment {
        let now_us = NOW_US + u64::try_from(after.as_micros()).unwrap();
        Moment { now_us, skew, boot: BootInstant::now() + after }
    }

    /// The values of an update are named after the attributes that it sets.
    fn stored_again(stored: &Stored) -> Stored {
        let values = stored.update("shard".to_owned()).values;
        let item: Item = values.into_iter().map(|(name, value)| (name[1..].to_owned(), value)).collect();
        Stored::read(&key(), Some(&item)).unwrap()
    }

    /// The lock after a grant to each, as it is read from the table.
    fn granted(stored: Stored, request: &LockRequest, moment: &Moment) -> Stored {
        let writer = Writer { owner: Some(request.owner), lease_ms: Some(LEASE_MS) };
        let mut view = stored.view("lock", writer, &Observations::default(), moment);
        let before = view.record.clone();
        let grant = view.record.acquire(request, LEASE_MS, moment.now_us);
        assert!(matches!(grant, Grant::Granted(_)), "{grant:?}");
        stored_again(&stored.changed_to(&before, view, writer, moment.skew.is_some()).unwrap())
    }

    fn holders(stored: &Stored, observed: &Observations, moment: &Moment) -> usize {
        stored.view("lock", Writer::default(), observed, moment).record.holders.len()
    }

    #[test]
    fn records_of_none_one_and_several_holders_read_back() {
        let start = moment(Duration::ZERO, Some(SKEW));
        let (first, second) = (shared(), shared());
        let one = granted(Stored::default(), &first, &start);
        assert_eq!((one.record.holders.len(), one.record.holders[0].owner), (1, first.owner));
        let two = granted(one, &second, &start);
        assert_eq!(
            two.record.holders.iter().map(|holder| holder.owner).collect::<Vec<_>>(),
            [first.owner, second.owner]
        );
        assert!(two.record.holders[0].token < two.record.holders[1].token);

        // The one that remains keeps its token, which is not the newest.
        let token = two.record.holders[0].token;
        let mut view = two.view("lock", Writer::default(), &Observations::default(), &start);
        let before = view.record.clone();
        view.record.release(second.owner, NOW_US);
        let left = stored_again(&two.changed_to(&before, view, Writer::default(), true).unwrap());
        assert_eq!((left.record.holders.len(), left.record.holders[0].token), (1, token));
        assert_eq!(left.record.last_release, Some(second.owner));

        let mut view = left.view("lock", Writer::default(), &Observations::default(), &start);
        let before = view.record.clone();
        assert_eq!(view.record.force_release(NOW_US), 1);
        let free = stored_again(&left.changed_to(&before, view, Writer::default(), true).unwrap());
        assert!(free.record.holders.is_empty() && free.exists());
    }

    #[test]
    fn somebody_elses_lease_ends_by_time_only_after_the_declared_bound() {
        let request = shared();
        let stored = granted(Stored::default(), &request, &moment(Duration::ZERO, Some(SKEW)));
        let lease = Duration::from_millis(LEASE_MS);
        for (after, expected) in [(lease + SKEW - Duration::from_millis(1), 1), (lease + SKEW, 0)] {
            assert_eq!(holders(&stored, &Observations::default(), &moment(after, Some(SKEW))), expected, "{after:?}");
        }
        // Its own holder goes by its clock alone.
        let writer = Writer { owner: Some(request.owner), lease_ms: None };
        let own = stored.view("lock", writer, &Observations::default(), &moment(lease, Some(SKEW)));
        assert!(own.record.holders.is_empty());
    }

    #[test]
    fn without_the_bound_on_either_side_a_lease_ends_by_observation_only() {
        let lease = Duration::from_millis(LEASE_MS);
        let margin = Duration::from_millis(100);
        for (writers, readers) in [(None, Some(SKEW)), (Some(SKEW), None)] {
            let stored = granted(Stored::default(), &shared(), &moment(Duration::ZERO, writers));
            let observed = Observations::default();
            let late = Duration::from_secs(3_600);
            assert_eq!(holders(&stored, &observed, &moment(late, readers)), 1);
            assert_eq!(holders(&stored, &observed, &moment(late + lease - margin, readers)), 1);
            assert_eq!(holders(&stored, &observed, &moment(late + lease + margin, readers)), 0);
        }
    }

    #[test]
    fn an_extension_begins_a_new_observation_even_if_it_ends_at_the_same_time() {
        let start = moment(Duration::ZERO, None);
        let (first, second) = (shared(), shared());
        let two = granted(granted(Stored::default(), &first, &start), &second, &start);
        let observed = Observations::default();
        assert_eq!(holders(&two, &observed, &start), 2);
        let extended = granted(two.clone(), &first, &start);
        assert_ne!(extended.record.holders[0].expires_at_us, two.record.holders[0].expires_at_us);
        let end = moment(Duration::from_millis(LEASE_MS + 100), None);
        let view = extended.view("lock", Writer::default(), &observed, &end);
        let owners: Vec<OwnerId> = view.record.holders.iter().map(|holder| holder.owner).collect();
        assert_eq!(owners, [first.owner]);
    }

    #[test]
    fn an_end_by_a_clock_without_bound_is_not_trusted_while_its_holder_is_there() {
        let (first, second) = (shared(), shared());
        let one = granted(Stored::default(), &first, &moment(Duration::ZERO, None));
        let two = granted(one, &second, &moment(Duration::ZERO, Some(SKEW)));
        assert!(!two.is_timed);
        let mut view = two.view("lock", Writer::default(), &Observations::default(), &moment(Duration::ZERO, None));
        let before = view.record.clone();
        view.record.release(first.owner, NOW_US);
        let left = two.changed_to(&before, view, Writer::default(), true).unwrap();
        assert!(granted(left, &second, &moment(Duration::ZERO, Some(SKEW))).is_timed);
    }

    #[test]
    fn an_item_that_is_no_lock_is_corrupt() {
        let stored = granted(Stored::default(), &shared(), &moment(Duration::ZERO, None));
        let values = stored.update("shard".to_owned()).values;
        let item: Item = values.into_iter().map(|(name, value)| (name[1..].to_owned(), value)).collect();
        for name in ["f", "k", "h", "z", "o", "n", "m", "x", "s", "d", "l", "b"] {
            let mut broken = item.clone();
            broken.remove(name);
            assert!(Stored::read(&key(), Some(&broken)).is_err(), "without {name}");
        }
    }
}
