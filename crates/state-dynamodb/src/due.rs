//! The due index: an item of the table for each item of a queue, found by time through the index `due`.
//!
//! # Guarantees
//! - An item is handed out by a conditional update of the item itself, so never twice within its visibility, whatever the
//!   index says.
//! - A claim reads at most one more than it may take from each shard of the queue, and is bounded in requests.
//! - A claim whose answer is lost delays its items until they are visible again; nobody else has them meanwhile.
//! - A claim that takes too long hands out what it has taken by then: it begins no update after half of the operation's time.
//!
//! # Failure
//! The index follows the items, mostly within milliseconds, and cannot be read consistently. An item that it does not know
//! yet is handed out that much later; one that it still knows is tried in vain, which costs one request. For as long, a claim
//! may say that a queue is empty, or name a later time for its next item.
//!
//! # How it works
//! The items of a queue are spread over `due_shards` partitions by their ids. A claim queries the index once per shard, merges
//! what it finds by time, and updates the items that are due. Time is that of the calibrated clock, so how late or early an
//! item is handed out differs between two workers by no more than their clocks.
//!
//! | attribute | type | meaning |
//! |---|---|---|
//! | `iq` | S | the partition of the index: that of the item, again |
//! | `ia` | N | when it is handed out next, in ms since 1970 |
//! | `d` | N | when it was due, in ms since 1970 |
//! | `a` | N | how often it was handed out |
//! | `k` | B | the claim that has it, 16 bytes; absent before the first |
//! | `p` | B | its payload |

use std::pin::pin;
use std::time::Duration;

use acteon_state_core::due::{DUE_AT_MS_MAX, check_item_id};
use acteon_state_core::entry::duration_ms;
use acteon_state_core::{
    ClaimDue, ClaimOutcome, ClaimToken, Claimed, DueAt, DueItem, Effect, Error, ErrorKind, Operation, Result, Schedule,
    Scheduled, StateKey,
};
use aws_sdk_dynamodb::types::{ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt as _};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::address::Address;
use crate::call::Refused;
use crate::condition::Expression;
use crate::error::Access;
use crate::item::{FORMAT, FORMAT_NAME, Item, PK, SK, bytes, identifier, identifier_of, number, number_of, text};
use crate::store::Inner;
use crate::table::{INDEX, INDEX_PK, INDEX_SK};

const DUE_AT: &str = "d";
const ATTEMPT: &str = "a";
const CLAIM: &str = "k";
const PAYLOAD: &str = "p";

/// How many items of one claim are updated at the same time: enough to hide the latency of a request, few enough that
/// one claim of 1,000 leaves room in the gate for everything else.
const UPDATES_AT_ONCE: usize = 16;

/// How often an extension is asked for anew: only extensions of one claim at the same time come in each other's way.
const EXTENSIONS_MAX: u32 = 8;

/// The share of an operation's time after which a claim begins no more updates: what remains is for the answers.
const BEGUN_BY: f64 = 0.5;
/// The share after which it does not wait for answers any longer, so that what it has is handed out.
const ANSWERED_BY: f64 = 0.875;

/// What the index says of an item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Listed {
    visible_at_ms: u64,
    id: String,
    pk: String,
}

/// What the index says of a shard.
struct Shard {
    listed: Vec<Listed>,
    /// The time of the last one, where the shard has more.
    more_from_ms: Option<u64>,
}

/// What came of the attempt to take an item.
enum Taken {
    Ours {
        item: DueItem,
        visible_at_ms: u64,
    },
    /// It is somebody else's until then, or was rescheduled.
    NotBefore(u64),
    /// The index was late: there is none any more.
    Gone,
}

/// One claim, as its updates see it.
#[derive(Clone, Copy)]
struct Claiming {
    visibility_ms: u64,
    token: ClaimToken,
}

impl Inner {
    pub(crate) async fn schedule(&self, queue: &StateKey, schedule: &Schedule) -> Result<Scheduled> {
        schedule.check(self.capabilities())?;
        let now_us = self.clock.now_us();
        // Zero is due now; everything else is never early: the current millisecond counts as over.
        let is_now = schedule.due_at == DueAt::After(Duration::ZERO);
        let now_ms = if is_now { now_us / 1_000 } else { now_us.div_ceil(1_000) };
        let due_at_ms = schedule.due_at_ms(now_ms).min(DUE_AT_MS_MAX);
        let address = self.addresses.due_item(queue, &schedule.id);
        let request = self
            .client
            .put_item()
            .table_name(&*self.table)
            .set_item(Some(new_item(&address, due_at_ms, &schedule.payload)))
            .return_values(ReturnValue::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = self.gate.call(Access::Write, request.send()).await?;
        self.capacity.add(Operation::Schedule, Access::Write, output.consumed_capacity());
        let is_new = output.attributes().is_none_or(Item::is_empty);
        Ok(if is_new { Scheduled::Created } else { Scheduled::Replaced })
    }

    pub(crate) async fn cancel(&self, queue: &StateKey, id: &str) -> Result<bool> {
        check_item_id(id)?;
        let request = self
            .client
            .delete_item()
            .table_name(&*self.table)
            .set_key(Some(self.addresses.due_item(queue, id).into_item()))
            .return_values(ReturnValue::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = self.gate.call(Access::Write, request.send()).await?;
        self.capacity.add(Operation::Cancel, Access::Write, output.consumed_capacity());
        Ok(output.attributes().is_some_and(|old| !old.is_empty()))
    }

    pub(crate) async fn claim_due(&self, queue: &StateKey, claim: ClaimDue) -> Result<Claimed> {
        let visibility_ms = claim.check(self.capabilities())?;
        let started = Instant::now();
        let limit = claim.limit as usize;
        let shards = self.addresses.due_shards().map(|shard| self.list_due(queue, shard, claim.limit));
        let shards = try_join_all(shards).await?;
        let claiming = Claiming { visibility_ms, token: ClaimToken::draw() };
        let (candidates, mut next_at_ms) = candidates(shards, limit, self.clock.now_ms());
        let mut unanswered = candidates.len();
        let updates: Vec<_> = candidates.into_iter().map(|listed| self.take_due(queue, listed, claiming)).collect();
        let begun_by = sleep_until(started + self.operation_timeout.mul_f64(BEGUN_BY));
        let answered_by = started + self.operation_timeout.mul_f64(ANSWERED_BY);
        let mut updates = pin!(stream::iter(updates).take_until(begun_by).buffered(UPDATES_AT_ONCE));
        let (mut items, mut failed) = (Vec::new(), None);
        loop {
            let taken = match timeout_at(answered_by, updates.next()).await {
                Ok(Some(taken)) => taken,
                Ok(None) => break,
                Err(_) => {
                    failed = failed.or_else(|| Some(unanswered_in_time()));
                    break;
                }
            };
            unanswered -= 1;
            match taken {
                Ok(Taken::Ours { item, visible_at_ms }) => {
                    next_at_ms = earlier(next_at_ms, visible_at_ms);
                    items.push(item);
                }
                Ok(Taken::NotBefore(at_ms)) => next_at_ms = earlier(next_at_ms, at_ms),
                Ok(Taken::Gone) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            Some(error) if items.is_empty() => return Err(error),
            // What was claimed is ours; the rest is still there, and tells the next claim what is wrong.
            Some(_) => next_at_ms = Some(0),
            None if unanswered > 0 => next_at_ms = Some(0),
            None => {}
        }
        let now_us = self.clock.now_us();
        let until = |at_ms: u64| Duration::from_micros(at_ms.saturating_mul(1_000).saturating_sub(now_us));
        Ok(Claimed { items, next_due_in: next_at_ms.map(until) })
    }

    pub(crate) async fn ack(&self, queue: &StateKey, id: &str, token: ClaimToken) -> Result<ClaimOutcome> {
        check_item_id(id)?;
        let Expression { text, values } = is_claimed_by(token);
        let request = self
            .client
            .delete_item()
            .table_name(&*self.table)
            .set_key(Some(self.addresses.due_item(queue, id).into_item()))
            .condition_expression(text)
            .set_expression_attribute_values(Some(values))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        match self.gate.write(request.send()).await {
            Ok(output) => {
                self.capacity.add(Operation::Ack, Access::Write, output.consumed_capacity());
                Ok(ClaimOutcome::Done)
            }
            Err(Refused::Condition(_)) => {
                self.capacity.add(Operation::Ack, Access::Write, None);
                Ok(ClaimOutcome::Lost)
            }
            Err(Refused::Failed(error)) => Err(error),
        }
    }

    pub(crate) async fn extend_claim(
        &self,
        queue: &StateKey,
        id: &str,
        token: ClaimToken,
        visibility: Duration,
    ) -> Result<ClaimOutcome> {
        check_item_id(id)?;
        let visibility_ms = duration_ms("visibility", visibility)?;
        let mut was_ms = None;
        for _ in 0..EXTENSIONS_MAX {
            let visible_at_ms = visible_at_ms(self.clock.now_us(), visibility_ms);
            let condition = extensible(token, was_ms);
            let update = Expression::new("SET ia = :visible").with(":visible", number(visible_at_ms));
            let (update, condition, values) = update.under(condition);
            let request = self
                .client
                .update_item()
                .table_name(&*self.table)
                .set_key(Some(self.addresses.due_item(queue, id).into_item()))
                .update_expression(update)
                .condition_expression(condition)
                .set_expression_attribute_values(values)
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                .return_consumed_capacity(ReturnConsumedCapacity::Total);
            match self.gate.write(request.send()).await {
                Ok(output) => {
                    self.capacity.add(Operation::ExtendClaim, Access::Write, output.consumed_capacity());
                    return Ok(ClaimOutcome::Done);
                }
                Err(Refused::Condition(item)) => {
                    self.capacity.add(Operation::ExtendClaim, Access::Write, None);
                    let Some(item) = item.filter(|item| identifier_of(item, CLAIM) == Some(token.as_u128())) else {
                        return Ok(ClaimOutcome::Lost);
                    };
                    was_ms = Some(number_of(&item, INDEX_SK).ok_or_else(|| corrupt_item(queue, id))?);
                }
                Err(Refused::Failed(error)) => return Err(error),
            }
        }
        let message = format!("the claim was extended by others as well, in each of {EXTENSIONS_MAX} attempts");
        Err(Error::new(ErrorKind::Contended, message))
    }

    /// What one shard hands out next, the earliest first: one more than asked for, which tells when to come back.
    async fn list_due(&self, queue: &StateKey, shard: u8, limit: u32) -> Result<Shard> {
        let one_more = i32::try_from(limit.saturating_add(1)).unwrap_or(i32::MAX);
        let request = self
            .client
            .query()
            .table_name(&*self.table)
            .index_name(INDEX)
            .key_condition_expression("iq = :queue")
            .expression_attribute_values(":queue", text(self.addresses.due_pk(queue, shard)))
            .limit(one_more)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = self.gate.call(Access::Read, request.send()).await?;
        self.capacity.add(Operation::ClaimDue, Access::Read, output.consumed_capacity());
        let listed = output.items().iter().map(|item| Listed::read(queue, item)).collect::<Result<Vec<_>>>()?;
        let has_more = output.last_evaluated_key().is_some_and(|key| !key.is_empty());
        let more_from_ms = listed.last().filter(|_| has_more).map(|last| last.visible_at_ms);
        Ok(Shard { listed, more_from_ms })
    }

    /// Takes an item unless somebody else was faster.
    async fn take_due(&self, queue: &StateKey, listed: Listed, claiming: Claiming) -> Result<Taken> {
        let Listed { id, pk, .. } = listed;
        // Of this request: among many, it may be sent long after the first.
        let now_us = self.clock.now_us();
        let visible_at_ms = visible_at_ms(now_us, claiming.visibility_ms);
        let condition = Expression::new("ia <= :now AND f = :f").at(now_us / 1_000).with(":f", number(FORMAT));
        let update = Expression::new("SET ia = :visible, k = :claim, a = a + :one")
            .with(":visible", number(visible_at_ms))
            .with(":claim", identifier(claiming.token.as_u128()))
            .with(":one", number(1));
        let (update, condition, values) = update.under(condition);
        let request = self
            .client
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(Address { pk, sk: id.clone() }.into_item()))
            .update_expression(update)
            .condition_expression(condition)
            .set_expression_attribute_values(values)
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        match self.gate.write(request.send()).await {
            Ok(output) => {
                self.capacity.add(Operation::ClaimDue, Access::Write, output.consumed_capacity());
                // It was taken, so what cannot be read now is of unknown effect rather than without.
                read_claimed(queue, id, claiming.token, output.attributes())
                    .map(|item| Taken::Ours { item, visible_at_ms })
                    .map_err(|error| error.with_effect(Effect::Unknown))
            }
            Err(Refused::Condition(item)) => {
                self.capacity.add(Operation::ClaimDue, Access::Write, None);
                not_taken(queue, &id, item.as_ref())
            }
            Err(Refused::Failed(error)) => Err(error),
        }
    }
}

impl Listed {
    fn read(queue: &StateKey, item: &Item) -> Result<Self> {
        let part = |name: &str| item.get(name).and_then(|part| part.as_s().ok()).cloned();
        match (number_of(item, INDEX_SK), part(SK), part(PK)) {
            (Some(visible_at_ms), Some(id), Some(pk)) => Ok(Self { visible_at_ms, id, pk }),
            (_, id, _) => Err(corrupt_item(queue, &id.unwrap_or_default())),
        }
    }
}

/// Why an item was not ours to take.
fn not_taken(queue: &StateKey, id: &str, item: Option<&Item>) -> Result<Taken> {
    let Some(item) = item else { return Ok(Taken::Gone) };
    match number_of(item, INDEX_SK) {
        Some(at_ms) if number_of(item, FORMAT_NAME) == Some(FORMAT) => Ok(Taken::NotBefore(at_ms)),
        _ => Err(corrupt_item(queue, id)),
    }
}

/// The items to take, the earliest first, and the time of the first that is not among them.
fn candidates(shards: Vec<Shard>, limit: usize, now_ms: u64) -> (Vec<Listed>, Option<u64>) {
    let mut next_at_ms = shards.iter().filter_map(|shard| shard.more_from_ms).min();
    let mut listed: Vec<Listed> = shards.into_iter().flat_map(|shard| shard.listed).collect();
    listed.sort_unstable();
    let due = listed.partition_point(|listed| listed.visible_at_ms <= now_ms).min(limit);
    if let Some(first) = listed.get(due) {
        next_at_ms = earlier(next_at_ms, first.visible_at_ms);
    }
    listed.truncate(due);
    (listed, next_at_ms)
}

fn unanswered_in_time() -> Error {
    Error::new(ErrorKind::Timeout, "the updates of the claim were not answered before operation_timeout was near")
        .with_effect(Effect::Unknown)
}

fn earlier(one: Option<u64>, other: u64) -> Option<u64> {
    Some(one.map_or(other, |one| one.min(other)))
}

/// Never early: the current millisecond counts as over.
fn visible_at_ms(now_us: u64, visibility_ms: u64) -> u64 {
    now_us.div_ceil(1_000).saturating_add(visibility_ms).min(DUE_AT_MS_MAX)
}

/// A worker that is late but was not overtaken still has its claim.
fn is_claimed_by(token: ClaimToken) -> Expression {
    Expression::new("k = :claim").with(":claim", identifier(token.as_u128()))
}

/// The claim is extended to a later end, since an extension that was held up on its way must not cut the one after it; or, where
/// an earlier end is meant, from the end that was seen.
fn extensible(token: ClaimToken, was_ms: Option<u64>) -> Expression {
    let claimed = is_claimed_by(token);
    let text = |end: &str| format!("{} AND {end}", claimed.text).into();
    match was_ms {
        None => Expression { text: text("ia <= :visible"), ..claimed },
        Some(was_ms) => Expression { text: text("ia = :was"), ..claimed }.with(":was", number(was_ms)),
    }
}

/// An item that nobody has claimed.
fn new_item(address: &Address, due_at_ms: u64, payload: &Bytes) -> Item {
    let mut item = address.item();
    item.extend(
        [
            (FORMAT_NAME, number(FORMAT)),
            (INDEX_PK, text(&address.pk)),
            (INDEX_SK, number(due_at_ms)),
            (DUE_AT, number(due_at_ms)),
            (ATTEMPT, number(0)),
            (PAYLOAD, bytes(payload.to_vec())),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    item
}

fn read_claimed(queue: &StateKey, id: String, token: ClaimToken, item: Option<&Item>) -> Result<DueItem> {
    let read = || {
        let item = item?;
        let payload = item.get(PAYLOAD)?.as_b().ok()?.as_ref();
        Some((Bytes::copy_from_slice(payload), number_of(item, DUE_AT)?, number_of(item, ATTEMPT)?))
    };
    match read() {
        Some((payload, due_at_ms, attempt)) => Ok(DueItem { id, payload, due_at_ms, attempt, token }),
        None => Err(corrupt_item(queue, &id)),
    }
}

fn corrupt_item(queue: &StateKey, id: &str) -> Error {
    let message = format!(
        "the item {id:?} of the queue does not parse: it is of a later version, or something else writes to this table"
    );
    Error::corrupt(queue, message)
}

#[cfg(test)]
mod tests {
    use acteon_state_core::{ErrorKind, StateKey};

    use super::{Listed, Shard, Taken, candidates, not_taken, visible_at_ms};
    use crate::item::{FORMAT, FORMAT_NAME, number};
    use crate::table::INDEX_SK;

    fn listed(visible_at_ms: u64, id: &str) -> Listed {
        Listed { visible_at_ms, id: id.to_owned(), pk: "shard".to_owned() }
    }

    fn shard(listed: Vec<Listed>, has_more: bool) -> Shard {
        let more_from_ms = listed.last().filter(|_| has_more).map(|last| last.visible_at_ms);
        Shard { listed, more_from_ms }
    }

    #[test]
    fn the_earliest_of_all_shards_are_taken_and_the_next_one_is_known() {
        let shards = vec![
            shard(vec![listed(1, "a"), listed(4, "d"), listed(90, "z")], false),
            shard(vec![listed(2, "b"), listed(3, "c")], true),
        ];
        let (taken, next_at_ms) = candidates(shards, 3, 50);
        let ids: Vec<&str> = taken.iter().map(|listed| listed.id.as_str()).collect();
        assert_eq!(
            (ids, next_at_ms),
            (vec!["a", "b", "c"], Some(3)),
            "a shard that has more may have it at its last time"
        );
    }

    #[test]
    fn what_is_not_due_is_waited_for() {
        let (taken, next_at_ms) = candidates(vec![shard(vec![listed(50, "a"), listed(51, "b")], false)], 10, 50);
        assert_eq!((taken.len(), next_at_ms), (1, Some(51)));
        let (taken, next_at_ms) = candidates(vec![shard(vec![], false)], 10, 50);
        assert_eq!((taken.len(), next_at_ms), (0, None));
    }

    #[test]
    fn an_item_of_a_later_format_is_corrupt_rather_than_somebody_elses() {
        let queue = StateKey::new("mail", "acme", "queue", "reminders").unwrap();
        let item = |format| {
            [(FORMAT_NAME, number(format)), (INDEX_SK, number(17))].map(|(name, value)| (name.to_owned(), value)).into()
        };
        assert!(matches!(not_taken(&queue, "a", None), Ok(Taken::Gone)));
        assert!(matches!(not_taken(&queue, "a", Some(&item(FORMAT))), Ok(Taken::NotBefore(17))));
        let later = not_taken(&queue, "a", Some(&item(FORMAT + 1)));
        assert!(matches!(later, Err(error) if error.kind() == ErrorKind::Corrupt));
    }

    #[test]
    fn a_claim_never_ends_early() {
        assert_eq!(visible_at_ms(5_000, 10), 15);
        assert_eq!(visible_at_ms(5_001, 10), 16);
    }
}
