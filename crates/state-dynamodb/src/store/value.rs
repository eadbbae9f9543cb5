//! Values and counters: each operation is one request; the exceptions are below.
//!
//! # How it works
//! A write is planned as one conditional request, which assumes the usual: the old item is there and live, or not there at all. An
//! item that has expired but was not removed yet counts as absent in every condition. Where what must be written differs for
//! it, since something of it would survive the update (its fence, its time, its count), the condition excludes it; the
//! refusal brings the item along, and a second request replaces it, under the condition that it is still expired. The same
//! goes for a counter without time to live that meets an increment with a window.
//!
//! A refused condition that finds the version of its own write was applied before: the request was repeated.

use acteon_state_core::counter::Step;
use acteon_state_core::entry::ceil_ms;
use acteon_state_core::{
    Condition, Counter, Counting, DeleteOutcome, Effect, Entry, Error, ErrorKind, Get, Increment, IncrementOutcome,
    Operation, Put, PutOutcome, Result, StateKey, Ttl,
};
use aws_sdk_dynamodb::types::{ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure};

use super::Inner;
use crate::address::Address;
use crate::call::Refused;
use crate::condition::{ABSENT, Expression, LIVE, NOT_EXPIRED};
use crate::error::Access;
use crate::item::{
    COUNT, EXPIRES, FENCE, FORMAT, FORMAT_NAME, GARBAGE, Item, Live, Stored, VALUE, VERSION, bytes, corrupt,
    identifier, identifier_of, number,
};

/// How often a write is planned anew because others changed the item between its requests.
pub(super) const ATTEMPTS_MAX: u32 = 16;

/// What is put keeps nothing of what was there.
const UNFENCED_OR_NOT_EXPIRED: &str = "attribute_not_exists(t) OR (attribute_not_exists(e) OR e > :now)";
/// The version that is expected, of a live item.
const EXPECTED: &str = "r = :expected AND (attribute_not_exists(e) OR e > :now)";
/// A live counter.
const COUNTS: &str = "(attribute_not_exists(e) OR e > :now) AND attribute_exists(c)";

/// A write as one request.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) address: Address,
    pub(super) change: Change,
    pub(super) condition: Expression,
}

/// What a request does to an item.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Replaces all of it.
    Put(Item),
    /// Changes attributes.
    Update(Expression),
}

/// What a plan assumes of the old item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Assume {
    /// It is live, or there is none.
    #[default]
    Usual,
    /// It has expired and is still there.
    Expired,
    /// It is a counter without time to live.
    Timeless,
    /// It is a counter with this number, which moves to a bound.
    Counts { from: i64, to: i64 },
    /// There is no counter, and the new one begins at a bound.
    Begins { to: i64 },
}

/// What a refused condition means.
#[derive(Debug)]
pub(super) enum Verdict<T> {
    /// The operation has this outcome.
    Settled(T),
    /// It is to be planned anew.
    Again(Assume),
}

impl Inner {
    pub(super) async fn get(&self, key: &StateKey, get: Get) -> Result<Option<Entry>> {
        let request = self
            .client
            .get_item()
            .table_name(&*self.table)
            .set_key(Some(self.addresses.entry(key).into_item()))
            .consistent_read(self.consistent_reads)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = self.gate.call(Access::Read, request.send()).await?;
        self.capacity.add(Operation::Get, Access::Read, output.consumed_capacity());
        let now_ms = self.clock.now_ms();
        Ok(match Stored::read(key, output.item(), now_ms)? {
            Stored::Absent => None,
            Stored::Live(live) => Some(if get.with_ttl { live.entry_with_ttl(now_ms) } else { live.entry }),
        })
    }

    pub(super) async fn put(&self, key: &StateKey, put: &Put) -> Result<PutOutcome> {
        put.check(self.capabilities())?;
        let mut assume = Assume::Usual;
        for _ in 0..ATTEMPTS_MAX {
            let now_ms = self.clock.now_ms();
            let plan = self.put_plan(key, put, assume, now_ms);
            match self.carry_out(Operation::Put, plan, ReturnValue::None).await {
                Ok(_) => return Ok(PutOutcome::Applied(put.version)),
                Err(Refused::Failed(error)) => return Err(error),
                Err(Refused::Condition(item)) => match judge_put(key, put, item.as_ref(), now_ms)? {
                    Verdict::Settled(outcome) => return Ok(outcome),
                    Verdict::Again(other) => assume = other,
                },
            }
        }
        Err(contended(key))
    }

    pub(super) async fn delete(&self, key: &StateKey, condition: Condition) -> Result<DeleteOutcome> {
        check_delete(condition)?;
        let now_ms = self.clock.now_ms();
        match self.remove(Operation::Delete, key, delete_condition(condition, now_ms)).await {
            Ok(None) => Ok(DeleteOutcome::Absent),
            Ok(Some(old)) => Ok(match Stored::read(key, Some(&old), now_ms) {
                Ok(Stored::Absent) => DeleteOutcome::Absent,
                // What does not parse is gone as well.
                Ok(Stored::Live(_)) | Err(_) => DeleteOutcome::Deleted,
            }),
            Err(Refused::Failed(error)) => Err(error),
            Err(Refused::Condition(item)) => match Stored::read(key, item.as_ref(), now_ms)? {
                Stored::Absent => Ok(DeleteOutcome::Absent),
                Stored::Live(live) if live.count.is_some() => Err(wrong_type(key)),
                Stored::Live(live) => Ok(DeleteOutcome::NotMet(live.entry)),
            },
        }
    }

    pub(super) async fn take(&self, key: &StateKey) -> Result<Option<Entry>> {
        let now_ms = self.clock.now_ms();
        // What does not parse stays.
        let whole = "((attribute_exists(v) AND attribute_exists(r)) OR attribute_exists(c))";
        let condition = Expression::new(format!("{LIVE} AND f = :f AND {whole}")).at(now_ms).with(":f", number(FORMAT));
        match self.remove(Operation::Take, key, Some(condition)).await {
            Ok(old) => {
                match Stored::read(key, old.as_ref(), now_ms).map_err(|error| error.with_effect(Effect::Unknown))? {
                    Stored::Live(live) => Ok(Some(live.entry)),
                    Stored::Absent => Ok(None),
                }
            }
            Err(Refused::Failed(error)) => Err(error),
            Err(Refused::Condition(item)) => match Stored::read(key, item.as_ref(), now_ms)? {
                Stored::Absent => Ok(None),
                Stored::Live(_) => Err(corrupt(key)),
            },
        }
    }

    pub(super) async fn touch(&self, key: &StateKey, ttl: Ttl) -> Result<bool> {
        let after_ms = ttl.after_ms()?;
        if ttl == Ttl::Keep {
            return Ok(self.get(key, Get::default()).await?.is_some());
        }
        let now_ms = self.clock.now_ms();
        let update = match after_ms {
            Some(after_ms) => self.expiring(Expression::new("SET e = :e, gc = :gc"), now_ms, after_ms),
            None => Expression::new("REMOVE e, gc"),
        };
        let condition = Expression::new(LIVE).at(now_ms);
        let plan = Plan { address: self.addresses.entry(key), change: Change::Update(update), condition };
        match self.carry_out(Operation::Touch, plan, ReturnValue::None).await {
            Ok(_) => Ok(true),
            Err(Refused::Condition(_)) => Ok(false),
            Err(Refused::Failed(error)) => Err(error),
        }
    }

    pub(super) async fn increment(&self, key: &StateKey, increment: &Increment) -> Result<IncrementOutcome> {
        increment.check()?;
        let mut assume = Assume::Usual;
        for _ in 0..ATTEMPTS_MAX {
            let now_ms = self.clock.now_ms();
            let plan = self.increment_plan(key, increment, assume, now_ms);
            match self.carry_out(Operation::Increment, plan, ReturnValue::AllNew).await {
                Ok(new) => {
                    let counter = counter_of(key, increment, assume, new.as_ref(), now_ms)?;
                    return Ok(match assume {
                        Assume::Counts { .. } | Assume::Begins { .. } => IncrementOutcome::Clamped(counter),
                        Assume::Usual | Assume::Expired | Assume::Timeless => IncrementOutcome::Applied(counter),
                    });
                }
                Err(Refused::Failed(error)) => return Err(error),
                Err(Refused::Condition(item)) => match judge_increment(key, increment, item.as_ref(), now_ms)? {
                    Verdict::Settled(counter) => return Ok(IncrementOutcome::Refused(counter)),
                    Verdict::Again(other) => assume = other,
                },
            }
        }
        Err(contended(key))
    }

    /// A put as one request.
    pub(super) fn put_plan(&self, key: &StateKey, put: &Put, assume: Assume, now_ms: u64) -> Plan {
        let address = self.addresses.entry(key);
        if assume == Assume::Expired {
            let condition = Expression::new("e <= :now").at(now_ms);
            return Plan { change: Change::Put(self.whole_item(&address, put, now_ms)), address, condition };
        }
        let keeps = put.ttl == Ttl::Keep;
        let (condition, replaces) = match put.condition {
            Condition::Absent => (Expression::new(ABSENT), true),
            // A fence survives the put, except that of an expired item.
            Condition::Always if keeps => (Expression::new(NOT_EXPIRED), false),
            Condition::Always => (Expression::new(UNFENCED_OR_NOT_EXPIRED), false),
            Condition::Present => (Expression::new(LIVE), false),
            Condition::Version(version) => {
                (Expression::new(EXPECTED).with(":expected", identifier(version.as_u128())), false)
            }
            Condition::Fence(token) => {
                let fenced = "attribute_not_exists(c) AND (attribute_not_exists(t) OR t <= :t)";
                let text =
                    if keeps { format!("{NOT_EXPIRED} AND {fenced}") } else { format!("{ABSENT} OR ({fenced})") };
                (Expression::new(text).with(":t", number(token.get())), !keeps)
            }
        };
        let change = if replaces {
            Change::Put(self.whole_item(&address, put, now_ms))
        } else {
            Change::Update(self.put_update(put, now_ms))
        };
        Plan { address, change, condition: condition.at(now_ms) }
    }

    /// An increment as one request.
    pub(super) fn increment_plan(&self, key: &StateKey, increment: &Increment, assume: Assume, now_ms: u64) -> Plan {
        let address = self.addresses.entry(key);
        let begins_at = match assume {
            Assume::Expired => Some((increment.delta, "e <= :now")),
            Assume::Begins { to } => Some((to, ABSENT)),
            Assume::Usual | Assume::Timeless | Assume::Counts { .. } => None,
        };
        if let Some((count, condition)) = begins_at {
            let mut item = self.counter_item(&address, increment, now_ms);
            item.insert(COUNT.to_owned(), number(count));
            return Plan { address, change: Change::Put(item), condition: Expression::new(condition).at(now_ms) };
        }
        let window = window_ms(increment);
        let refreshes = matches!(increment.window, Counting::Refresh(_));
        let (condition, update) = match (assume, window) {
            (Assume::Counts { from, to }, _) => {
                let condition =
                    Expression::new(format!("c = :from AND {NOT_EXPIRED}")).at(now_ms).with(":from", number(from));
                (condition, Expression::new("SET c = :to, f = :f").with(":to", number(to)))
            }
            (Assume::Timeless, _) => {
                let update = Expression::new("SET c = c + :d, f = :f").with(":d", number(increment.delta));
                (in_bounds("", "attribute_not_exists(e) AND attribute_exists(c)", increment), update)
            }
            (_, Some(_)) if !refreshes => (
                in_bounds(or_new(increment), "e > :now AND attribute_exists(c)", increment).at(now_ms),
                self.add_update(increment, "e = if_not_exists(e, :e), gc = if_not_exists(gc, :gc)", now_ms),
            ),
            _ => {
                let condition = in_bounds(or_new(increment), COUNTS, increment).at(now_ms);
                (condition, self.add_update(increment, "", now_ms))
            }
        };
        let is_timed = update.values.contains_key(":e");
        let update = match window {
            Some(window_ms) if refreshes && !is_timed => {
                let text = format!("{}, e = :e, gc = :gc", update.text).into();
                self.expiring(Expression { text, ..update }, now_ms, window_ms)
            }
            _ => update,
        };
        Plan { address, change: Change::Update(update.with(":f", number(FORMAT))), condition }
    }

    fn add_update(&self, increment: &Increment, times: &str, now_ms: u64) -> Expression {
        let separator = if times.is_empty() { "" } else { ", " };
        let update = Expression::new(format!("SET c = if_not_exists(c, :zero) + :d, f = :f{separator}{times}"))
            .with(":zero", number(0))
            .with(":d", number(increment.delta));
        match window_ms(increment) {
            Some(window_ms) if !times.is_empty() => self.expiring(update, now_ms, window_ms),
            _ => update,
        }
    }

    /// The values of `:e` and `:gc`.
    pub(super) fn expiring(&self, expression: Expression, now_ms: u64, after_ms: u64) -> Expression {
        let at_ms = expires_at_ms(now_ms, after_ms);
        expression.with(":e", number(at_ms)).with(":gc", number(self.garbage_at_s(at_ms)))
    }

    fn garbage_at_s(&self, expires_at_ms: u64) -> u64 {
        expires_at_ms.div_ceil(1_000).saturating_add(self.ttl_grace_s)
    }

    fn put_update(&self, put: &Put, now_ms: u64) -> Expression {
        let fence = match put.condition {
            Condition::Fence(token) => Some(token),
            _ => None,
        };
        let text = match (fence.is_some(), put.ttl) {
            (false, Ttl::Keep) => "SET v = :v, r = :r, f = :f REMOVE c",
            (false, Ttl::Clear) => "SET v = :v, r = :r, f = :f REMOVE c, e, gc",
            (false, Ttl::After(_)) => "SET v = :v, r = :r, f = :f, e = :e, gc = :gc REMOVE c",
            (true, Ttl::Keep) => "SET v = :v, r = :r, f = :f, t = :t REMOVE c",
            (true, Ttl::Clear) => "SET v = :v, r = :r, f = :f, t = :t REMOVE c, e, gc",
            (true, Ttl::After(_)) => "SET v = :v, r = :r, f = :f, t = :t, e = :e, gc = :gc REMOVE c",
        };
        let mut update = Expression::new(text)
            .with(":v", bytes(put.value.to_vec()))
            .with(":r", identifier(put.version.as_u128()))
            .with(":f", number(FORMAT));
        if let Some(token) = fence {
            update = update.with(":t", number(token.get()));
        }
        match after_ms(put.ttl) {
            Some(after_ms) => self.expiring(update, now_ms, after_ms),
            None => update,
        }
    }

    fn whole_item(&self, address: &Address, put: &Put, now_ms: u64) -> Item {
        let mut item = address.item();
        item.insert(FORMAT_NAME.to_owned(), number(FORMAT));
        item.insert(VALUE.to_owned(), bytes(put.value.to_vec()));
        item.insert(VERSION.to_owned(), identifier(put.version.as_u128()));
        if let Condition::Fence(token) = put.condition {
            item.insert(FENCE.to_owned(), number(token.get()));
        }
        self.set_expiry(&mut item, after_ms(put.ttl), now_ms);
        item
    }

    /// A new counter, without its number.
    fn counter_item(&self, address: &Address, increment: &Increment, now_ms: u64) -> Item {
        let mut item = address.item();
        item.insert(FORMAT_NAME.to_owned(), number(FORMAT));
        self.set_expiry(&mut item, window_ms(increment), now_ms);
        item
    }

    fn set_expiry(&self, item: &mut Item, after_ms: Option<u64>, now_ms: u64) {
        if let Some(after_ms) = after_ms {
            let at_ms = expires_at_ms(now_ms, after_ms);
            item.insert(EXPIRES.to_owned(), number(at_ms));
            item.insert(GARBAGE.to_owned(), number(self.garbage_at_s(at_ms)));
        }
    }

    /// Sends a plan. Returns what `returns` asks for.
    pub(super) async fn carry_out(
        &self,
        operation: Operation,
        plan: Plan,
        returns: ReturnValue,
    ) -> Result<Option<Item>, Refused> {
        let Plan { address, change, condition } = plan;
        match change {
            Change::Put(item) => {
                let Expression { text, values } = condition;
                // Nearly nobody asks for it, and it holds the value.
                let new = (returns != ReturnValue::None).then(|| item.clone());
                let request = self
                    .client
                    .put_item()
                    .table_name(&*self.table)
                    .set_item(Some(item))
                    .condition_expression(text)
                    .set_expression_attribute_values((!values.is_empty()).then_some(values))
                    .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                    .return_consumed_capacity(ReturnConsumedCapacity::Total);
                let written = self.gate.write(request.send()).await;
                let consumed = written.as_ref().ok().and_then(|output| output.consumed_capacity());
                self.capacity.add(operation, Access::Write, consumed);
                written.map(|_| new)
            }
            Change::Update(update) => {
                let (update, condition, values) = update.under(condition);
                let request = self
                    .client
                    .update_item()
                    .table_name(&*self.table)
                    .set_key(Some(address.into_item()))
                    .update_expression(update)
                    .condition_expression(condition)
                    .set_expression_attribute_values(values)
                    .return_values(returns)
                    .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                    .return_consumed_capacity(ReturnConsumedCapacity::Total);
                let written = self.gate.write(request.send()).await;
                let consumed = written.as_ref().ok().and_then(|output| output.consumed_capacity());
                self.capacity.add(operation, Access::Write, consumed);
                written.map(|output| output.attributes)
            }
        }
    }

    /// Deletes an entry and returns what it was.
    async fn remove(
        &self,
        operation: Operation,
        key: &StateKey,
        condition: Option<Expression>,
    ) -> Result<Option<Item>, Refused> {
        let Expression { text, values } = condition.unwrap_or_default();
        // Only asked for together with a condition: nothing else can fail on one.
        let on_failure = (!text.is_empty()).then_some(ReturnValuesOnConditionCheckFailure::AllOld);
        let request = self
            .client
            .delete_item()
            .table_name(&*self.table)
            .set_key(Some(self.addresses.entry(key).into_item()))
            .set_condition_expression((!text.is_empty()).then(|| text.into_owned()))
            .set_expression_attribute_values((!values.is_empty()).then_some(values))
            .return_values(ReturnValue::AllOld)
            .set_return_values_on_condition_check_failure(on_failure)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let written = self.gate.write(request.send()).await;
        let consumed = written.as_ref().ok().and_then(|output| output.consumed_capacity());
        self.capacity.add(operation, Access::Write, consumed);
        written.map(|output| output.attributes)
    }
}

/// What the refusal of a put means. `now_ms` is what its condition compared with.
pub(super) fn judge_put(key: &StateKey, put: &Put, item: Option<&Item>, now_ms: u64) -> Result<Verdict<PutOutcome>> {
    if item.is_some_and(|item| identifier_of(item, VERSION) == Some(put.version.as_u128())) {
        return Ok(Verdict::Settled(PutOutcome::Applied(put.version)));
    }
    let stored = match Stored::read(key, item, now_ms) {
        // Overwritten by the next attempt, since nothing is asked of it.
        Err(_) if put.condition == Condition::Always => return Ok(Verdict::Again(Assume::Usual)),
        stored => stored?,
    };
    let again = match &stored {
        Stored::Absent if item.is_some() => Assume::Expired,
        Stored::Absent | Stored::Live(_) => Assume::Usual,
    };
    let not_met = |entry| Ok(Verdict::Settled(PutOutcome::NotMet(entry)));
    match (put.condition, stored) {
        (Condition::Always, _) | (Condition::Absent, Stored::Absent) => {
            // A put under `absent` covers expired items at once.
            let is_covered = put.condition == Condition::Absent;
            Ok(Verdict::Again(if is_covered { Assume::Usual } else { again }))
        }
        (Condition::Absent, Stored::Live(live)) => not_met(Some(live.entry)),
        (Condition::Present | Condition::Version(_), Stored::Absent) => not_met(None),
        (Condition::Present, Stored::Live(_)) => Ok(Verdict::Again(Assume::Usual)),
        (Condition::Version(_) | Condition::Fence(_), Stored::Live(live)) if live.count.is_some() => {
            Err(wrong_type(key))
        }
        (Condition::Version(expected), Stored::Live(live)) => {
            if live.entry.version == Some(expected) {
                Ok(Verdict::Again(Assume::Usual))
            } else {
                not_met(Some(live.entry))
            }
        }
        (Condition::Fence(token), Stored::Live(live)) if live.entry.fence.is_some_and(|fence| fence > token) => {
            not_met(Some(live.entry))
        }
        (Condition::Fence(_), _) => Ok(Verdict::Again(again)),
    }
}

/// What the refusal of an increment means: it is refused with this counter, or planned anew.
pub(super) fn judge_increment(
    key: &StateKey,
    increment: &Increment,
    item: Option<&Item>,
    now_ms: u64,
) -> Result<Verdict<Counter>> {
    let stored = Stored::read(key, item, now_ms)?;
    let (current, resets_after, expires_at_ms) = match &stored {
        Stored::Absent => (None, None, None),
        Stored::Live(Live { count: None, .. }) => return Err(wrong_type(key)),
        Stored::Live(live) => (live.count, live.ttl(now_ms), live.expires_at_ms),
    };
    let value = current.unwrap_or(0);
    Ok(match increment.step(value) {
        Step::Refused => Verdict::Settled(Counter { value, resets_after }),
        Step::Overflow => {
            let message = "the counter would leave the range of a signed 64-bit integer";
            return Err(Error::new(ErrorKind::Overflow, message).with_key(key));
        }
        Step::Clamped(to) => Verdict::Again(match current {
            Some(from) => Assume::Counts { from, to },
            None => Assume::Begins { to },
        }),
        Step::Applied(_) => Verdict::Again(match current {
            None if item.is_some() => Assume::Expired,
            Some(_) if expires_at_ms.is_none() && matches!(increment.window, Counting::OnCreate(_)) => Assume::Timeless,
            _ => Assume::Usual,
        }),
    })
}

/// The condition of a delete; none where nothing is asked.
pub(super) fn delete_condition(condition: Condition, now_ms: u64) -> Option<Expression> {
    match condition {
        // Also deletes what does not parse: a way out. The answer tells whether there was a live entry.
        Condition::Always | Condition::Present | Condition::Absent => None,
        Condition::Version(version) => {
            Some(Expression::new(EXPECTED).at(now_ms).with(":expected", identifier(version.as_u128())))
        }
        Condition::Fence(token) => {
            let text = format!("{LIVE} AND attribute_not_exists(c) AND (attribute_not_exists(t) OR t <= :t)");
            Some(Expression::new(text).at(now_ms).with(":t", number(token.get())))
        }
    }
}

/// Checks the condition of a delete.
pub(super) fn check_delete(condition: Condition) -> Result<()> {
    if condition == Condition::Absent {
        return Err(Error::invalid("delete under the condition `absent` could never delete anything"));
    }
    Ok(())
}

pub(super) fn wrong_type(key: &StateKey) -> Error {
    Error::wrong_type(key, "a counter has no version and no fence, and a value cannot be counted")
}

pub(super) fn contended(key: &StateKey) -> Error {
    let message = format!("others changed the item between each of {ATTEMPTS_MAX} attempts");
    Error::new(ErrorKind::Contended, message).with_key(key)
}

/// The counter after an increment.
fn counter_of(
    key: &StateKey,
    increment: &Increment,
    assume: Assume,
    new: Option<&Item>,
    now_ms: u64,
) -> Result<Counter> {
    // It was applied, so what cannot be read now is of unknown effect rather than without.
    let read = Stored::read(key, new, now_ms).map_err(|error| error.with_effect(Effect::Unknown))?;
    Ok(match read {
        Stored::Live(live) => {
            let resets_after = live.ttl(now_ms);
            let value = live.count.ok_or_else(|| corrupt(key).with_effect(Effect::Unknown))?;
            Counter { value, resets_after }
        }
        // A window of which nothing is left already.
        Stored::Absent => {
            let value = match assume {
                Assume::Counts { to, .. } | Assume::Begins { to } => to,
                Assume::Usual | Assume::Expired | Assume::Timeless => increment.delta,
            };
            Counter { value, resets_after: None }
        }
    })
}

/// A counter to which the step can be applied in full, or what `or` says.
fn in_bounds(or: &str, counts: &str, increment: &Increment) -> Expression {
    let delta = i128::from(increment.delta);
    let condition = |bound: &str| Expression::new([or, "(", counts, bound, ")"].concat());
    match increment.delta {
        1.. => {
            let max = i128::from(increment.max.unwrap_or(i64::MAX));
            condition(" AND c <= :bound").with(":bound", number(max - delta))
        }
        ..=-1 => {
            let min = i128::from(increment.min.unwrap_or(i64::MIN));
            condition(" AND c >= :bound").with(":bound", number(min - delta))
        }
        0 => condition(""),
    }
}

/// That there is none yet, where the step fits from zero.
fn or_new(increment: &Increment) -> &'static str {
    match increment.step(0) {
        Step::Applied(_) => "attribute_not_exists(pk) OR ",
        Step::Clamped(_) | Step::Refused | Step::Overflow => "",
    }
}

/// The window of an increment. It was checked before.
fn window_ms(increment: &Increment) -> Option<u64> {
    increment.check().ok().flatten()
}

/// The milliseconds of `After`. They were checked before.
fn after_ms(ttl: Ttl) -> Option<u64> {
    match ttl {
        Ttl::After(after) => Some(ceil_ms(after)),
        Ttl::Clear | Ttl::Keep => None,
    }
}

/// Never early: the current millisecond counts as over.
fn expires_at_ms(now_ms: u64, after_ms: u64) -> u64 {
    now_ms.saturating_add(1).saturating_add(after_ms)
}
