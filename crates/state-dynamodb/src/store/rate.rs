//! Rate limits: each in an item of its own, decided by the calibrated clock.
//!
//! | algorithm | attributes | requests |
//! |---|---|---|
//! | fixed window | `c` used, `e` the end of the window in ms | one; two when a window that ended is still there |
//! | GCRA | `u` the arrival time in µs | one when idle or refused; two while the burst is in use |
//! | sliding window | `l` the log, `r` its version | a read, and a write when allowed |
//!
//! # Guarantees
//! Each decision is one conditional write, so callers of any number of processes never get more than the limit. A refused
//! request changes nothing. Two clients agree on a window as far as their clocks do.
//!
//! # Cost
//! A log is written as a whole: 26 bytes for each operation that is inside of the window, so a full limit of 1,000 costs 26
//! write units per request, and limits above 10,000 do not fit an item. Where that matters, GCRA does it with one unit.
//!
//! # How it works
//! The condition of the first request assumes the usual. A refusal brings the item along: either it decides about the request,
//! or it tells which condition to try next. Callers of one process take turns at a log, as each would undo the others' work
//! otherwise; a failed write costs as much as one that succeeds.

use std::time::Duration;

use acteon_state_core::key::Companion;
use acteon_state_core::rate::gcra;
use acteon_state_core::{
    Decision, Error, ErrorKind, Operation, OperationId, RateAlgorithm, RateLimit, Result, StateKey,
};
use aws_sdk_dynamodb::types::{ReturnConsumedCapacity, ReturnValue};
use foldhash::fast::FixedState;
use std::hash::BuildHasher as _;
use tokio::sync::{Mutex, MutexGuard};

use super::Inner;
use super::value::{ATTEMPTS_MAX, Change, Plan, contended};
use crate::address::Address;
use crate::call::Refused;
use crate::condition::Expression;
use crate::error::Access;
use crate::item::{
    COUNT, EXPIRES, FORMAT, FORMAT_NAME, GARBAGE, Item, VERSION, bytes, corrupt, identifier, identifier_of, number,
    number_of,
};

const ARRIVAL: &str = "u";
const LOG: &str = "l";
/// The highest limit of a sliding window here: a log of as many operations is 260 KB, and an item holds 400.
const SLIDING_LIMIT_MAX: u64 = 10_000;
/// Turns at logs: two limits that share one by accident wait for each other, which is harmless and rare.
const TURNS: usize = 64;

/// Who may change a log, by its address.
#[derive(Debug)]
pub(super) struct Turns([Mutex<()>; TURNS]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(())))
    }
}

impl Turns {
    /// Waits for the turn, first come, first served.
    async fn wait(&self, address: &Address) -> MutexGuard<'_, ()> {
        let hash = FixedState::default().hash_one(&address.pk);
        let at = usize::try_from(hash % TURNS as u64).unwrap_or(0);
        self.0[at].lock().await
    }
}

impl Inner {
    pub(super) async fn rate_limit(&self, key: &StateKey, request: &RateLimit) -> Result<Decision> {
        let window_ms = request.check()?;
        match request.algorithm {
            RateAlgorithm::FixedWindow => self.fixed_window(key, request, window_ms).await,
            RateAlgorithm::SlidingWindow => self.sliding_window(key, request, window_ms).await,
            RateAlgorithm::Gcra { burst } => self.by_arrival(key, request, burst, window_ms).await,
        }
    }

    async fn fixed_window(&self, key: &StateKey, request: &RateLimit, window_ms: u64) -> Result<Decision> {
        let address = self.addresses.companion(key, Companion::FixedWindow);
        let mut is_over = false;
        for _ in 0..ATTEMPTS_MAX {
            let now_us = self.clock.now_us();
            let plan = self.window_plan(&address, request, window_ms, is_over, now_us / 1_000);
            match self.carry_out(Operation::RateLimit, plan, ReturnValue::AllNew).await {
                Ok(new) => return Ok(Window::read(key, new.as_ref())?.decide(request, true, now_us)),
                Err(Refused::Failed(error)) => return Err(error),
                // Removed as garbage since.
                Err(Refused::Condition(None)) => is_over = false,
                Err(Refused::Condition(item)) => {
                    let window = Window::read(key, item.as_ref())?;
                    is_over = window.ends_at_ms <= now_us / 1_000;
                    if !is_over && window.used.saturating_add(request.cost) > request.limit {
                        return Ok(window.decide(request, false, now_us));
                    }
                }
            }
        }
        Err(contended(key))
    }

    /// Counts in the window, or begins one. One that is over but still there is replaced.
    fn window_plan(&self, address: &Address, request: &RateLimit, window_ms: u64, is_over: bool, now_ms: u64) -> Plan {
        let times = self.expiring(Expression::default(), now_ms, window_ms);
        if is_over {
            let mut item = address.item();
            item.insert(FORMAT_NAME.to_owned(), number(FORMAT));
            item.insert(COUNT.to_owned(), number(request.cost));
            for (name, placeholder) in [(EXPIRES, ":e"), (GARBAGE, ":gc")] {
                item.extend(times.values.get(placeholder).map(|value| (name.to_owned(), value.clone())));
            }
            let condition = Expression::new("e <= :now").at(now_ms);
            return Plan { address: address.clone(), change: Change::Put(item), condition };
        }
        let text =
            "SET c = if_not_exists(c, :zero) + :cost, e = if_not_exists(e, :e), gc = if_not_exists(gc, :gc), f = :f";
        let update = Expression { text: text.into(), ..times }
            .with(":zero", number(0))
            .with(":cost", number(request.cost))
            .with(":f", number(FORMAT));
        let condition = Expression::new("attribute_not_exists(pk) OR (e > :now AND c <= :room)")
            .at(now_ms)
            .with(":room", number(request.limit - request.cost));
        Plan { address: address.clone(), change: Change::Update(update), condition }
    }

    async fn by_arrival(&self, key: &StateKey, request: &RateLimit, burst: u64, window_ms: u64) -> Result<Decision> {
        let address = self.addresses.companion(key, Companion::Gcra);
        let step_us = request.emission_us(window_ms).saturating_mul(request.cost);
        let mut is_busy = false;
        for _ in 0..ATTEMPTS_MAX {
            let now_us = self.clock.now_us();
            let plan = self.arrival_plan(&address, request, burst, window_ms, is_busy, now_us);
            match self.carry_out(Operation::RateLimit, plan, ReturnValue::AllNew).await {
                Ok(new) => {
                    let before_us = arrival_us(key, new.as_ref())?.saturating_sub(step_us);
                    return Ok(gcra(request, burst, window_ms, before_us, now_us).0);
                }
                Err(Refused::Failed(error)) => return Err(error),
                Err(Refused::Condition(None)) => is_busy = false,
                Err(Refused::Condition(item)) => {
                    let arrival_us = arrival_us(key, item.as_ref())?;
                    let (decision, next_us) = gcra(request, burst, window_ms, arrival_us, now_us);
                    if next_us.is_none() {
                        return Ok(decision);
                    }
                    is_busy = arrival_us > now_us;
                }
            }
        }
        Err(contended(key))
    }

    /// Moves the arrival time: from now when it has passed, from where it is when that leaves room in the burst.
    fn arrival_plan(
        &self,
        address: &Address,
        request: &RateLimit,
        burst: u64,
        window_ms: u64,
        is_busy: bool,
        now_us: u64,
    ) -> Plan {
        let emission_us = request.emission_us(window_ms);
        let step_us = emission_us.saturating_mul(request.cost);
        // No allowed request moves the arrival beyond this.
        let end_us = now_us.saturating_add(emission_us.saturating_mul(burst));
        let (update, condition) = if is_busy {
            let condition = Expression::new("u > :now AND u <= :latest").with(":latest", number(end_us - step_us));
            (Expression::new("SET u = u + :to, f = :f, gc = :gc").with(":to", number(step_us)), condition)
        } else {
            let condition = Expression::new("attribute_not_exists(pk) OR u <= :now");
            let to_us = now_us.saturating_add(step_us);
            (Expression::new("SET u = :to, f = :f, gc = :gc").with(":to", number(to_us)), condition)
        };
        let update = update.with(":f", number(FORMAT)).with(":gc", number(self.garbage_after_us(end_us)));
        let condition = condition.with(":now", number(now_us));
        Plan { address: address.clone(), change: Change::Update(update), condition }
    }

    async fn sliding_window(&self, key: &StateKey, request: &RateLimit, window_ms: u64) -> Result<Decision> {
        if request.limit > SLIDING_LIMIT_MAX {
            let message = format!(
                "rate limit: a sliding window of {} does not fit an item; allowed are 1 to {SLIDING_LIMIT_MAX}, or use GCRA",
                request.limit
            );
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        let address = self.addresses.companion(key, Companion::SlidingWindow);
        let window_us = window_ms.saturating_mul(1_000);
        let _turn = self.turns.wait(&address).await;
        let mut log = self.read_log(key, &address).await?;
        for _ in 0..ATTEMPTS_MAX {
            let (decision, is_changed) = log.decide(request, window_us, self.clock.now_us());
            if !is_changed {
                return Ok(decision);
            }
            match self
                .carry_out(Operation::RateLimit, self.log_plan(&address, &log, window_us), ReturnValue::None)
                .await
            {
                Ok(_) => return Ok(decision),
                Err(Refused::Failed(error)) => return Err(error),
                Err(Refused::Condition(item)) => log = Log::read(key, item.as_ref())?,
            }
        }
        Err(contended(key))
    }

    /// An old log is good enough: what has happened since lets the write fail, and what it refuses is refused now, too.
    async fn read_log(&self, key: &StateKey, address: &Address) -> Result<Log> {
        let request = self
            .client
            .get_item()
            .table_name(&*self.table)
            .set_key(Some(address.item()))
            .consistent_read(self.consistent_reads)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = self.gate.call(Access::Read, request.send()).await?;
        self.capacity.add(Operation::RateLimit, Access::Read, output.consumed_capacity());
        Log::read(key, output.item())
    }

    /// Replaces the log that was read.
    fn log_plan(&self, address: &Address, log: &Log, window_us: u64) -> Plan {
        let condition = match log.version {
            Some(version) => Expression::new("r = :expected").with(":expected", identifier(version)),
            None => Expression::new("attribute_not_exists(pk)"),
        };
        let last_us = log.entries.last().map_or(0, |entry| entry.at_us);
        let mut item = address.item();
        item.extend(
            [
                (FORMAT_NAME, number(FORMAT)),
                (LOG, bytes(log.to_bytes())),
                (VERSION, identifier(OperationId::draw().as_u128())),
                (GARBAGE, number(self.garbage_after_us(last_us.saturating_add(window_us)))),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        Plan { address: address.clone(), change: Change::Put(item), condition }
    }

    /// When what is of no use after this time may be removed, in seconds.
    fn garbage_after_us(&self, at_us: u64) -> u64 {
        at_us.div_ceil(1_000_000).saturating_add(self.ttl_grace_s)
    }
}

/// A fixed window.
struct Window {
    used: u64,
    ends_at_ms: u64,
}

impl Window {
    fn read(key: &StateKey, item: Option<&Item>) -> Result<Self> {
        let item = of_format(key, item)?;
        match (number_of(item, COUNT), number_of(item, EXPIRES)) {
            (Some(used), Some(ends_at_ms)) => Ok(Self { used, ends_at_ms }),
            _ => Err(corrupt(key)),
        }
    }

    fn decide(&self, request: &RateLimit, allowed: bool, now_us: u64) -> Decision {
        let reset_after = Duration::from_micros(self.ends_at_ms.saturating_mul(1_000).saturating_sub(now_us));
        Decision {
            allowed,
            limit: request.limit,
            remaining: request.limit.saturating_sub(self.used),
            reset_after,
            retry_after: (!allowed).then_some(reset_after),
        }
    }
}

fn arrival_us(key: &StateKey, item: Option<&Item>) -> Result<u64> {
    number_of(of_format(key, item)?, ARRIVAL).ok_or_else(|| corrupt(key))
}

fn of_format<'a>(key: &StateKey, item: Option<&'a Item>) -> Result<&'a Item> {
    item.filter(|item| number_of(item, FORMAT_NAME) == Some(FORMAT)).ok_or_else(|| corrupt(key))
}

/// The requests inside of a sliding window, the oldest first.
#[derive(Debug, Default, PartialEq, Eq)]
struct Log {
    entries: Vec<Logged>,
    /// Of the item that it was read from.
    version: Option<u128>,
}

/// One allowed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Logged {
    at_us: u64,
    operation: u128,
    cost: u16,
}

/// Time, operation and cost, each big-endian.
const LOGGED_BYTES: usize = 8 + 16 + 2;

impl Log {
    fn read(key: &StateKey, item: Option<&Item>) -> Result<Self> {
        if item.is_none() {
            return Ok(Self::default());
        }
        let item = of_format(key, item)?;
        let log = item.get(LOG).and_then(|log| log.as_b().ok()).ok_or_else(|| corrupt(key))?;
        let (chunks, rest) = log.as_ref().as_chunks::<LOGGED_BYTES>();
        let version = identifier_of(item, VERSION).filter(|_| rest.is_empty()).ok_or_else(|| corrupt(key))?;
        Ok(Self { entries: chunks.iter().map(Logged::from_bytes).collect(), version: Some(version) })
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.entries.iter().flat_map(|entry| entry.to_bytes()).collect()
    }

    /// Decides about a request. When it is allowed and new, it is in the log afterwards, and the log is to be written.
    fn decide(&mut self, request: &RateLimit, window_us: u64, now_us: u64) -> (Decision, bool) {
        self.entries.retain(|entry| entry.at_us.saturating_add(window_us) > now_us);
        let operation = request.operation.as_u128();
        let is_repeated = self.entries.iter().any(|entry| entry.operation == operation);
        let after = self.used() + request.cost;
        let allowed = is_repeated || after <= request.limit;
        let retry_after = (!allowed).then(|| self.room_after(after - request.limit, window_us, now_us));
        let is_changed = allowed && !is_repeated;
        if is_changed {
            // At most 1,000, which `RateLimit::check` has seen to.
            let cost = u16::try_from(request.cost).unwrap_or(u16::MAX);
            // Clocks differ, so somebody else's may be ahead of ours.
            let at = self.entries.partition_point(|entry| entry.at_us <= now_us);
            self.entries.insert(at, Logged { at_us: now_us, operation, cost });
        }
        let reset_after = self.entries.last().map_or(Duration::ZERO, |entry| entry.leaves_after(window_us, now_us));
        let remaining = request.limit.saturating_sub(self.used());
        (Decision { allowed, limit: request.limit, remaining, reset_after, retry_after }, is_changed)
    }

    fn used(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.cost)).sum()
    }

    /// How long until requests of this cost in all have left.
    fn room_after(&self, surplus: u64, window_us: u64, now_us: u64) -> Duration {
        let mut left = 0;
        let last = self.entries.iter().find(|entry| {
            left += u64::from(entry.cost);
            left >= surplus
        });
        last.map_or(Duration::ZERO, |entry| entry.leaves_after(window_us, now_us))
    }
}

impl Logged {
    fn from_bytes(bytes: &[u8; LOGGED_BYTES]) -> Self {
        let [t0, t1, t2, t3, t4, t5, t6, t7, operation @ .., c0, c1] = *bytes;
        Self {
            at_us: u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
            operation: u128::from_be_bytes(operation),
            cost: u16::from_be_bytes([c0, c1]),
        }
    }

    fn to_bytes(self) -> [u8; LOGGED_BYTES] {
        let mut bytes = [0; LOGGED_BYTES];
        bytes[..8].copy_from_slice(&self.at_us.to_be_bytes());
        bytes[8..24].copy_from_slice(&self.operation.to_be_bytes());
        bytes[24..].copy_from_slice(&self.cost.to_be_bytes());
        bytes
    }

    fn leaves_after(&self, window_us: u64, now_us: u64) -> Duration {
        Duration::from_micros(self.at_us.saturating_add(window_us).saturating_sub(now_us))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use acteon_state_core::{RateLimit, StateKey};

    use super::{LOG, Log, Logged};
    use crate::item::{FORMAT, FORMAT_NAME, Item, VERSION, bytes, identifier, number};

    const WINDOW_US: u64 = 1_000_000;

    fn request(limit: u64) -> RateLimit {
        RateLimit::sliding_window(limit, Duration::from_micros(WINDOW_US))
    }

    #[test]
    fn a_log_reads_back_and_a_torn_one_is_corrupt() {
        let key = StateKey::new("mail", "acme", "limit", "ada").unwrap();
        let mut log = Log::default();
        log.decide(&request(5).cost(3), WINDOW_US, 7);
        log.decide(&request(5), WINDOW_US, 9);
        let item = |log: Vec<u8>| -> Item {
            [(FORMAT_NAME, number(FORMAT)), (LOG, bytes(log)), (VERSION, identifier(17))]
                .map(|(name, value)| (name.to_owned(), value))
                .into()
        };
        let read = Log::read(&key, Some(&item(log.to_bytes()))).unwrap();
        assert_eq!((read.entries, read.version), (log.entries.clone(), Some(17)));
        let torn = log.to_bytes()[1..].to_vec();
        assert!(Log::read(&key, Some(&item(torn))).is_err());
        assert_eq!(Log::read(&key, None).unwrap(), Log::default());
    }

    #[test]
    fn a_refusal_tells_when_enough_will_have_left() {
        let mut log = Log::default();
        for (cost, at_us) in [(1, 100), (2, 200), (2, 300)] {
            assert!(log.decide(&request(5).cost(cost), WINDOW_US, at_us).0.allowed);
        }
        let (refused, is_changed) = log.decide(&request(5).cost(2), WINDOW_US, 400);
        assert!(!refused.allowed && !is_changed);
        assert_eq!(refused.retry_after, Some(Duration::from_micros(WINDOW_US + 200 - 400)));
        assert_eq!(refused.reset_after, Duration::from_micros(WINDOW_US + 300 - 400));
        let (allowed, _) = log.decide(&request(5).cost(2), WINDOW_US, WINDOW_US + 200);
        assert_eq!((allowed.allowed, allowed.remaining), (true, 1));
    }

    #[test]
    fn requests_of_a_clock_that_is_ahead_count_and_keep_the_order() {
        let ahead = Logged { at_us: 900, operation: 1, cost: 1 };
        let mut log = Log { entries: vec![ahead], version: None };
        let (decision, is_changed) = log.decide(&request(2), WINDOW_US, 500);
        assert!(decision.allowed && is_changed);
        assert_eq!(log.entries.iter().map(|entry| entry.at_us).collect::<Vec<_>>(), [500, 900]);
    }
}
