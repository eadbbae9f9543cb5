//! Several keys: a batch of requests under way at the same time, a transaction in one.
//!
//! # Batches
//! Reads travel 100 at a time, each key once however often it is asked for. What the service leaves unprocessed, as too much for one
//! answer or for the table at the moment, is asked again, with pauses. Writes are requests of their own, 25 at a time: the
//! service's batch of writes knows neither conditions nor updates, so it would drop fences, bounds and times to live.
//! Operations on one key are carried out in their order.
//!
//! # Transactions
//! All or nothing, by one request. As for single writes, what must be written can depend on whether the old item has
//! expired; then the refusal tells, and the transaction is sent with other conditions.
//!
//! # A transaction that is repeated
//! Each request has a token, by which the service recognises it for ten minutes. When its answer is lost it is sent again as it was,
//! so the outcome is known after all, also of a transaction of increments alone. A caller that repeats a transaction later
//! makes another request, since conditions hold the time; it is recognised by its versions. Each put requires that its own
//! version is not stored yet, so a transaction that was committed is refused with that version in the answer.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use acteon_state_core::many::{check_batch, check_transact};
use acteon_state_core::{
    BatchOp, BatchReply, Condition, Effect, Entry, Error, ErrorKind, Get, Operation, OperationId, PutOutcome, Result,
    StateKey, TransactOp, TransactOutcome,
};
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::batch_get_item::BatchGetItemOutput;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    CancellationReason, ConditionCheck, Delete, KeysAndAttributes, Put, ReturnConsumedCapacity,
    ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
};
use aws_smithy_runtime_api::http::Response;
use aws_smithy_types::error::operation::BuildError;
use futures_util::stream::{self, StreamExt as _};
use tokio::time::Instant;

use super::Inner;
use super::value::{
    ATTEMPTS_MAX, Assume, Change, Plan, Verdict, check_delete, delete_condition, judge_increment, judge_put, wrong_type,
};
use crate::address::Address;
use crate::condition::{ABSENT, Expression, LIVE};
use crate::error::{Access, BACKEND, classify};
use crate::item::{Item, PK, SK, Stored, VERSION, identifier, identifier_of, number};

/// The most keys that the service reads in one request.
const READ_KEYS_MAX: usize = 100;
/// How many requests for reads of one batch are under way: the largest batch is ten.
const READS_AT_ONCE: usize = 4;
/// How many writes of one batch are under way: a tenth of what the gate lets through by default.
const WRITES_AT_ONCE: usize = 25;
/// How often a transaction is sent until its outcome is known.
const SENDS_MAX: u32 = 3;
/// What the service takes in one transaction: 4 MB.
const TRANSACT_BYTES_MAX: usize = 4 << 20;
/// The first pause is up to this long.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// No pause is longer: the service's partitions recover, and conflicts pass, within less.
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// The places in a batch of operations on one key.
type Places = Vec<usize>;
/// Replies with their places.
type Placed = Vec<(usize, Result<BatchReply>)>;

impl Inner {
    pub(super) async fn batch(&self, ops: &[BatchOp]) -> Result<Vec<Result<BatchReply>>> {
        check_batch(ops)?;
        let (reads, others) = by_key(ops);
        let reads: Vec<_> = reads.chunks(READ_KEYS_MAX).map(|chunk| self.read_keys(ops, chunk.to_vec())).collect();
        let others: Vec<_> = others.into_iter().map(|places| self.carry_out_in_order(ops, places)).collect();
        let (read, done): (Vec<Placed>, Vec<Placed>) = futures_util::join!(
            stream::iter(reads).buffer_unordered(READS_AT_ONCE).collect(),
            stream::iter(others).buffer_unordered(WRITES_AT_ONCE).collect(),
        );
        let mut placed: Placed = read.into_iter().chain(done).flatten().collect();
        assert_eq!(placed.len(), ops.len(), "each operation of a batch has one reply");
        placed.sort_unstable_by_key(|(place, _)| *place);
        let in_batch =
            |error: Error, key| error.in_operation(Operation::Batch.as_str()).on_backend(BACKEND).with_key(key);
        let replies = placed.into_iter().map(|(place, reply)| reply.map_err(|error| in_batch(error, ops[place].key())));
        Ok(replies.collect())
    }

    /// Reads up to 100 keys, each for all of its places.
    async fn read_keys(&self, ops: &[BatchOp], keys: Vec<Places>) -> Placed {
        let mut pending: HashMap<Address, Places> =
            keys.into_iter().map(|places| (self.addresses.entry(ops[places[0]].key()), places)).collect();
        let mut pauses = Pauses::new(self.operation_timeout);
        let mut replies = Placed::new();
        while !pending.is_empty() {
            let output = match self.send_reads(&pending).await {
                Ok(output) => output,
                Err(error) => {
                    replies.extend(fail_all(pending, &error));
                    break;
                }
            };
            let now_ms = self.clock.now_ms();
            for item in output.responses.into_iter().flat_map(HashMap::into_values).flatten() {
                let places = address_of(&item).and_then(|address| pending.remove(&address));
                replies.extend(read_replies(ops, places.unwrap_or_default(), Some(&item), now_ms));
            }
            let unprocessed = output.unprocessed_keys.into_iter().flat_map(HashMap::into_values);
            let left: HashSet<Address> =
                unprocessed.flat_map(|table| table.keys).filter_map(|key| address_of(&key)).collect();
            for (_, places) in pending.extract_if(|address, _| !left.contains(address)) {
                replies.extend(read_replies(ops, places, None, now_ms));
            }
            if !pending.is_empty() && !pauses.wait().await {
                let message = "the service left keys of the batch unprocessed until operation_timeout was near";
                replies.extend(fail_all(std::mem::take(&mut pending), &Error::new(ErrorKind::Throttled, message)));
            }
        }
        replies
    }

    async fn send_reads(&self, pending: &HashMap<Address, Places>) -> Result<BatchGetItemOutput> {
        let keys = KeysAndAttributes::builder()
            .set_keys(Some(pending.keys().map(Address::item).collect()))
            .consistent_read(self.consistent_reads)
            .build()
            .map_err(not_built)?;
        let request = self
            .client
            .batch_get_item()
            .request_items(&*self.table, keys)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = self.gate.call(Access::Read, request.send()).await?;
        self.capacity.add(Operation::Batch, Access::Read, output.consumed_capacity().first());
        Ok(output)
    }

    /// Carries out operations on one key, one after the other.
    async fn carry_out_in_order(&self, ops: &[BatchOp], places: Places) -> Placed {
        let mut replies = Vec::with_capacity(places.len());
        for place in places {
            let reply = match &ops[place] {
                BatchOp::Get(key, get) => self.get(key, *get).await.map(BatchReply::Got),
                BatchOp::Put(key, put) => self.put(key, put).await.map(BatchReply::Put),
                BatchOp::Delete(key, condition) => self.delete(key, *condition).await.map(BatchReply::Deleted),
                BatchOp::Take(key) => self.take(key).await.map(BatchReply::Taken),
                BatchOp::Increment(key, increment) => self.increment(key, increment).await.map(BatchReply::Incremented),
            };
            replies.push((place, reply));
        }
        replies
    }

    pub(super) async fn transact(&self, ops: &[TransactOp]) -> Result<TransactOutcome> {
        check_transact(ops, self.capabilities())?;
        check_ops(ops)?;
        let mut assumed = vec![Assume::Usual; ops.len()];
        let mut pauses = Pauses::new(self.operation_timeout);
        for _ in 0..ATTEMPTS_MAX {
            let now_ms = self.clock.now_ms();
            let (places, items) = self.transact_items(ops, &assumed, now_ms)?;
            if items.is_empty() {
                return Ok(TransactOutcome::Committed);
            }
            let Some(reasons) = self.send_transaction(items, &mut pauses).await? else {
                return Ok(TransactOutcome::Committed);
            };
            let reasons: Vec<_> = places.into_iter().zip(&reasons).collect();
            match judge_all(ops, &reasons, now_ms)? {
                Judged::Settled(outcome) => return Ok(outcome),
                Judged::Again(changes) if changes.is_empty() => {
                    if !pauses.wait().await {
                        break;
                    }
                }
                Judged::Again(changes) => changes.into_iter().for_each(|(place, assume)| assumed[place] = assume),
            }
        }
        let message = "in every attempt, others were changing the same items at the same time";
        Err(Error::new(ErrorKind::Contended, message))
    }

    /// What to send, with the place of the operation that it is for. A check of nothing is left out.
    fn transact_items(
        &self,
        ops: &[TransactOp],
        assumed: &[Assume],
        now_ms: u64,
    ) -> Result<(Vec<usize>, Vec<TransactWriteItem>)> {
        let (mut places, mut items) = (Vec::with_capacity(ops.len()), Vec::with_capacity(ops.len()));
        for (place, (op, assume)) in ops.iter().zip(assumed).enumerate() {
            let item = match op {
                TransactOp::Check(_, Condition::Always) => continue,
                TransactOp::Check(key, condition) => self.check_item(key, *condition, now_ms),
                TransactOp::Delete(key, condition) => self.delete_item(key, *condition, now_ms),
                TransactOp::Put(key, put) => {
                    let Plan { address, change, condition } = self.put_plan(key, put, *assume, now_ms);
                    let text = format!("{} AND NOT r = :own", grouped(condition.text.into_owned())).into();
                    let own = identifier(put.version.as_u128());
                    let condition = Expression { text, ..condition }.with(":own", own);
                    self.write_item(Plan { address, change, condition })
                }
                TransactOp::Increment(key, increment) => {
                    self.write_item(self.increment_plan(key, increment, *assume, now_ms))
                }
            };
            places.push(place);
            items.push(item.map_err(not_built)?);
        }
        Ok((places, items))
    }

    fn check_item(&self, key: &StateKey, condition: Condition, now_ms: u64) -> Result<TransactWriteItem, BuildError> {
        let Expression { text, values } = condition_of(condition, now_ms).unwrap_or_default();
        let check = ConditionCheck::builder()
            .table_name(&*self.table)
            .set_key(Some(self.addresses.entry(key).into_item()))
            .condition_expression(text)
            .set_expression_attribute_values(Some(values))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()?;
        Ok(TransactWriteItem::builder().condition_check(check).build())
    }

    fn delete_item(&self, key: &StateKey, condition: Condition, now_ms: u64) -> Result<TransactWriteItem, BuildError> {
        let (text, values) =
            condition_of(condition, now_ms).map(|asked| (asked.text.into_owned(), asked.values)).unzip();
        let on_failure = text.is_some().then_some(ReturnValuesOnConditionCheckFailure::AllOld);
        let delete = Delete::builder()
            .table_name(&*self.table)
            .set_key(Some(self.addresses.entry(key).into_item()))
            .set_condition_expression(text)
            .set_expression_attribute_values(values)
            .set_return_values_on_condition_check_failure(on_failure)
            .build()?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }

    fn write_item(&self, plan: Plan) -> Result<TransactWriteItem, BuildError> {
        let Plan { address, change, condition } = plan;
        let item = TransactWriteItem::builder();
        Ok(match change {
            Change::Put(new) => {
                let put = Put::builder()
                    .table_name(&*self.table)
                    .set_item(Some(new))
                    .condition_expression(condition.text)
                    .set_expression_attribute_values((!condition.values.is_empty()).then_some(condition.values))
                    .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                    .build()?;
                item.put(put)
            }
            Change::Update(update) => {
                let (update, condition, values) = update.under(condition);
                let update = Update::builder()
                    .table_name(&*self.table)
                    .set_key(Some(address.into_item()))
                    .update_expression(update)
                    .condition_expression(condition)
                    .set_expression_attribute_values(values)
                    .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                    .build()?;
                item.update(update)
            }
        }
        .build())
    }

    /// Sends a transaction until its outcome is known. Returns why it was cancelled, unless it was committed.
    async fn send_transaction(
        &self,
        items: Vec<TransactWriteItem>,
        pauses: &mut Pauses,
    ) -> Result<Option<Vec<CancellationReason>>> {
        let token = OperationId::draw().to_string();
        let mut sends = 0;
        loop {
            let request = self
                .client
                .transact_write_items()
                .set_transact_items(Some(items.clone()))
                .client_request_token(&token)
                .return_consumed_capacity(ReturnConsumedCapacity::Total);
            // Passed through as it is: a cancellation is read here.
            let sending = async { Ok::<_, SdkError<TransactWriteItemsError, Response>>(request.send().await) };
            sends += 1;
            let error = match self.gate.call(Access::Write, sending).await {
                Ok(Ok(output)) => {
                    self.capacity.add(Operation::Transact, Access::Write, output.consumed_capacity().first());
                    return Ok(None);
                }
                Ok(Err(error)) => {
                    self.capacity.add(Operation::Transact, Access::Write, None);
                    if let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) =
                        error.as_service_error()
                    {
                        return Ok(Some(cancelled.cancellation_reasons().to_vec()));
                    }
                    classify(error, Access::Write)
                }
                Err(error) => error,
            };
            if error.effect() == Effect::NotApplied && sends == 1 {
                return Err(error);
            }
            // Of one of the requests nothing is known, so nothing is known of the transaction.
            if sends == SENDS_MAX || !pauses.wait().await {
                return Err(error.with_effect(Effect::Unknown));
            }
        }
    }
}

/// The places of keys that are only read, and those of all other keys; each in the order of the batch.
fn by_key(ops: &[BatchOp]) -> (Vec<Places>, Vec<Places>) {
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let mut keys: Vec<Places> = Vec::new();
    for (place, op) in ops.iter().enumerate() {
        let number = *numbers.entry(op.key().text()).or_insert(keys.len());
        match keys.get_mut(number) {
            Some(places) => places.push(place),
            None => keys.push(vec![place]),
        }
    }
    keys.into_iter().partition(|places| places.iter().all(|place| matches!(ops[*place], BatchOp::Get(..))))
}

fn address_of(item: &Item) -> Option<Address> {
    let part = |name: &str| item.get(name)?.as_s().ok().cloned();
    Some(Address { pk: part(PK)?, sk: part(SK)? })
}

/// The reply to each read of one key.
fn read_replies(ops: &[BatchOp], places: Places, item: Option<&Item>, now_ms: u64) -> Placed {
    let reply = |place: usize| {
        let with_ttl = matches!(ops[place], BatchOp::Get(_, Get { with_ttl: true, .. }));
        Ok(BatchReply::Got(match Stored::read(ops[place].key(), item, now_ms)? {
            Stored::Absent => None,
            Stored::Live(live) => Some(if with_ttl { live.entry_with_ttl(now_ms) } else { live.entry }),
        }))
    };
    places.into_iter().map(|place| (place, reply(place))).collect()
}

/// The same error for each place. Its source stays behind: the message says what it said.
fn fail_all(keys: HashMap<Address, Places>, error: &Error) -> Placed {
    let same = || Error::new(error.kind(), error.message().to_owned()).with_effect(error.effect());
    keys.into_values().flatten().map(|place| (place, Err(same()))).collect()
}

/// Checks what only this backend minds.
fn check_ops(ops: &[TransactOp]) -> Result<()> {
    let mut bytes = 0;
    for op in ops {
        match op {
            TransactOp::Delete(_, condition) => check_delete(*condition)?,
            TransactOp::Put(_, put) => bytes += put.value.len(),
            TransactOp::Check(..) | TransactOp::Increment(..) => {}
        }
    }
    if bytes > TRANSACT_BYTES_MAX {
        let message =
            format!("the values of the transaction have {bytes} bytes in all; allowed are {TRANSACT_BYTES_MAX}");
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    Ok(())
}

/// What a check or a delete requires; nothing for `Always`. As for a put, an absent key passes a fence.
fn condition_of(condition: Condition, now_ms: u64) -> Option<Expression> {
    match condition {
        Condition::Always => None,
        Condition::Absent => Some(Expression::new(ABSENT).at(now_ms)),
        Condition::Present => Some(Expression::new(LIVE).at(now_ms)),
        Condition::Version(_) => delete_condition(condition, now_ms),
        Condition::Fence(token) => {
            let text = format!("{ABSENT} OR (attribute_not_exists(c) AND (attribute_not_exists(t) OR t <= :t))");
            Some(Expression::new(text).at(now_ms).with(":t", number(token.get())))
        }
    }
}

/// The condition in parentheses, unless it is: the service refuses those that say nothing.
fn grouped(text: String) -> String {
    let mut depth = 0_usize;
    // Where the parenthesis that opens the text is closed, or the text goes on without one.
    let closed_at = text.bytes().position(|byte| {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
    });
    if closed_at == text.len().checked_sub(1) { text } else { format!("({text})") }
}

/// What a cancellation means.
#[derive(Debug)]
enum Judged {
    Settled(TransactOutcome),
    /// To be sent again, with these assumptions. Without any, after a pause: something else was changing the items.
    Again(Vec<(usize, Assume)>),
}

/// What the reasons of a cancellation mean, each with the place of its operation. `now_ms` is what conditions compared with.
fn judge_all(ops: &[TransactOp], reasons: &[(usize, &CancellationReason)], now_ms: u64) -> Result<Judged> {
    if reasons.iter().any(|(place, reason)| is_own(&ops[*place], reason)) {
        return Ok(Judged::Settled(TransactOutcome::Committed));
    }
    let mut changes = Vec::new();
    for (place, reason) in reasons {
        match reason.code() {
            // Of a conflict nothing more is known; a condition that does not hold decides in spite of it.
            None | Some("None" | "TransactionConflict") => {}
            Some("ConditionalCheckFailed") => match judge(&ops[*place], reason.item(), now_ms)? {
                Verdict::Settled(current) => {
                    return Ok(Judged::Settled(TransactOutcome::Refused { index: *place, current }));
                }
                Verdict::Again(assume) => changes.push((*place, assume)),
            },
            Some(code) => return Err(failure(code, reason.message().unwrap_or_default()).with_key(ops[*place].key())),
        }
    }
    Ok(Judged::Again(changes))
}

/// Whether the put of this place is stored already: the transaction was sent before and committed.
fn is_own(op: &TransactOp, reason: &CancellationReason) -> bool {
    match (op, reason.item()) {
        (TransactOp::Put(_, put), Some(item)) => identifier_of(item, VERSION) == Some(put.version.as_u128()),
        _ => false,
    }
}

/// What the failed condition of one operation means: it does not hold, and this is in the way, or it is to be asked otherwise.
fn judge(op: &TransactOp, item: Option<&Item>, now_ms: u64) -> Result<Verdict<Option<Entry>>> {
    match op {
        TransactOp::Put(key, put) => Ok(match judge_put(key, put, item, now_ms)? {
            Verdict::Settled(PutOutcome::NotMet(entry)) => Verdict::Settled(entry),
            Verdict::Settled(PutOutcome::Applied(_)) => Verdict::Again(Assume::Usual),
            Verdict::Again(assume) => Verdict::Again(assume),
        }),
        TransactOp::Increment(key, increment) => Ok(match judge_increment(key, increment, item, now_ms)? {
            Verdict::Settled(_) => Verdict::Settled(live_entry(Stored::read(key, item, now_ms)?)),
            Verdict::Again(assume) => Verdict::Again(assume),
        }),
        TransactOp::Check(key, condition) | TransactOp::Delete(key, condition) => {
            let entry = live_entry(Stored::read(key, item, now_ms)?);
            let needs_value = matches!(condition, Condition::Version(_) | Condition::Fence(_));
            if needs_value && entry.as_ref().is_some_and(Entry::is_counter) {
                return Err(wrong_type(key));
            }
            Ok(Verdict::Settled(entry))
        }
    }
}

fn live_entry(stored: Stored) -> Option<Entry> {
    match stored {
        Stored::Absent => None,
        Stored::Live(live) => Some(live.entry),
    }
}

/// A reason that is neither a condition nor a conflict. The codes are those of cancellations, which differ from those of errors.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>
fn failure(code: &str, message: &str) -> Error {
    let kind = match code {
        "ThrottlingError" | "ProvisionedThroughputExceeded" => ErrorKind::Throttled,
        "ItemCollectionSizeLimitExceeded" => ErrorKind::TooLarge,
        "ValidationError" if message.contains("tem size") => ErrorKind::TooLarge,
        "ValidationError" if message.contains("umber overflow") => ErrorKind::Overflow,
        "AccessDenied" => ErrorKind::Denied,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("the service cancelled the transaction: {message} ({code})"))
}

#[allow(clippy::needless_pass_by_value, reason = "as `map_err` calls it")]
fn not_built(error: BuildError) -> Error {
    Error::new(ErrorKind::Internal, format!("a request lacks a part: {error}"))
}

/// Pauses between requests of one operation: random, growing, and over in time for the operation to say why it failed.
#[derive(Debug)]
struct Pauses {
    ends_at: Instant,
    longest: Duration,
}

impl Pauses {
    fn new(operation_timeout: Duration) -> Self {
        // The rest is for the last request.
        Self { ends_at: Instant::now() + operation_timeout.mul_f64(0.75), longest: PAUSE_MIN }
    }

    /// Waits. Returns false, at once, when there is no time left for it.
    async fn wait(&mut self) -> bool {
        let pause = self.longest.mul_f64(rand::random());
        if Instant::now() + pause >= self.ends_at {
            return false;
        }
        self.longest = (self.longest * 2).min(PAUSE_MAX);
        tokio::time::sleep(pause).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use acteon_state_core::{BatchOp, Condition, Get, Increment, Put, StateKey, TransactOp, TransactOutcome};
    use aws_sdk_dynamodb::types::CancellationReason;
    use tokio::time::Instant;

    use super::{Judged, PAUSE_MAX, Pauses, by_key, check_ops, grouped, judge_all};
    use crate::item::{COUNT, EXPIRES, FORMAT, FORMAT_NAME, Item, VALUE, VERSION, bytes, identifier, number};
    use crate::store::value::Assume;

    const NOW_MS: u64 = 1_000;

    fn key(id: &str) -> StateKey {
        StateKey::new("mail", "acme", "kind", id).unwrap()
    }

    fn item(attributes: impl IntoIterator<Item = (&'static str, aws_sdk_dynamodb::types::AttributeValue)>) -> Item {
        let format = [(FORMAT_NAME, number(FORMAT))];
        format.into_iter().chain(attributes).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn value(version: u128) -> Item {
        item([(VALUE, bytes("v")), (VERSION, identifier(version))])
    }

    fn reason(code: &str, item: Option<Item>) -> CancellationReason {
        CancellationReason::builder().code(code).set_item(item).build()
    }

    fn judged(ops: &[TransactOp], reasons: &[CancellationReason]) -> Judged {
        let reasons: Vec<_> = reasons.iter().enumerate().collect();
        judge_all(ops, &reasons, NOW_MS).unwrap()
    }

    #[test]
    fn reads_of_one_key_are_folded_and_writes_keep_their_order() {
        let get = |id| BatchOp::Get(key(id), Get::default());
        let ops = [get("a"), BatchOp::Take(key("b")), get("a"), get("b"), get("c")];
        assert_eq!(by_key(&ops), (vec![vec![0, 2], vec![4]], vec![vec![1, 3]]));
    }

    #[test]
    fn conditions_are_grouped_once() {
        for (condition, expected) in [("(a OR b)", "(a OR b)"), ("a OR b", "(a OR b)"), ("(a) OR (b)", "((a) OR (b))")]
        {
            assert_eq!(grouped(condition.to_owned()), expected);
        }
    }

    #[test]
    fn own_version_anywhere_means_committed() {
        let put = Put::new("v");
        let ops = [TransactOp::Check(key("guard"), Condition::Absent), TransactOp::Put(key("a"), put.clone())];
        let reasons = [
            reason("ConditionalCheckFailed", Some(value(1))),
            reason("ConditionalCheckFailed", Some(value(put.version.as_u128()))),
        ];
        assert!(matches!(judged(&ops, &reasons), Judged::Settled(TransactOutcome::Committed)));
    }

    #[test]
    fn the_first_that_does_not_hold_is_named_past_those_to_be_asked_otherwise() {
        let stale = item([(COUNT, number(5)), (EXPIRES, number(NOW_MS - 1))]);
        let ops = [
            TransactOp::Increment(key("stale"), Increment::by(1)),
            TransactOp::Check(key("conflict"), Condition::Present),
            TransactOp::Check(key("guard"), Condition::Absent),
            TransactOp::Delete(key("later"), Condition::Present),
        ];
        let mut reasons = [
            reason("ConditionalCheckFailed", Some(stale)),
            reason("TransactionConflict", None),
            reason("ConditionalCheckFailed", Some(value(1))),
            reason("ConditionalCheckFailed", None),
        ];
        let Judged::Settled(TransactOutcome::Refused { index, current }) = judged(&ops, &reasons) else {
            panic!("the guard does not hold")
        };
        assert_eq!((index, current.is_some()), (2, true));
        reasons[2] = reason("None", None);
        reasons[3] = reason("None", None);
        let Judged::Again(changes) = judged(&ops, &reasons) else { panic!("nothing is refused") };
        assert_eq!(changes, [(0, Assume::Expired)]);
    }

    #[test]
    fn a_transaction_above_the_services_limit_is_refused_before_it_is_sent() {
        let put = |id: &str| TransactOp::Put(key(id), Put::new(vec![0; 3 << 20]));
        assert!(check_ops(&[put("a")]).is_ok());
        assert!(check_ops(&[put("a"), put("b")]).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_end_before_the_operation_does() {
        let (timeout, start) = (Duration::from_secs(5), Instant::now());
        let mut pauses = Pauses::new(timeout);
        let mut count = 0;
        while pauses.wait().await {
            count += 1;
        }
        assert!(start.elapsed() < timeout && start.elapsed() + 2 * PAUSE_MAX > timeout.mul_f64(0.75));
        assert!(count > 5, "{count}");
    }
}
