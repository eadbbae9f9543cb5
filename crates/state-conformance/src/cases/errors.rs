//! E: errors say what, where and whether it happened; and the declared capabilities agree with each other.

use std::time::Duration;

use acteon_state_core::{
    BatchOp, BatchReply, Capabilities, Condition, Counting, DueAt, Effect, Error, ErrorKind, Get, Increment, Put,
    Schedule, StateKey, TransactOp, Ttl,
};

use crate::case::{Case, Need, case};
use crate::lab::Lab;
use crate::verdict::{Verdict, absent, equal, holds, present, refused};

/// Values above this are not tried: a driver that sends one by mistake should fail the case, not the machine.
const TRIED_BYTES_MAX: u64 = 1 << 30;

/// The error names its operation and backend, has a reason, and names no other key.
fn tells(lab: &Lab, error: &Error, operation: &str, key: &StateKey) -> Verdict {
    equal(key, &format!("operation of {error:?}"), &error.operation(), &Some(operation))?;
    equal(key, &format!("backend of {error:?}"), &error.backend(), &Some(lab.a.backend()))?;
    holds(key, "an error has a reason", !error.message().is_empty(), error)?;
    holds(key, "an error names no other key", error.key().is_none_or(|named| named == key), error)
}

/// The same, and the key: what is wrong is what is stored there.
fn tells_key(lab: &Lab, error: &Error, operation: &str, key: &StateKey) -> Verdict {
    tells(lab, error, operation, key)?;
    equal(key, &format!("key of {error:?}"), &error.key(), &Some(key))
}

/// Errors of the request carry operation and backend.
async fn e1_errors_tell_operation_and_backend(lab: Lab) -> Verdict {
    let key = lab.key("tells");
    let zero = Put::new("x").expires_after(Duration::ZERO);
    let error = refused(&key, "put with ttl zero", lab.a.put(&key, &zero).await, ErrorKind::Invalid)?;
    tells(&lab, &error, "put", &key)?;
    let deleted = lab.a.delete(&key, Condition::Absent).await;
    let error = refused(&key, "delete if absent", deleted, ErrorKind::Invalid)?;
    tells(&lab, &error, "delete", &key)?;
    let touched = lab.a.touch(&key, Ttl::After(Duration::ZERO)).await;
    tells(&lab, &refused(&key, "touch with ttl zero", touched, ErrorKind::Invalid)?, "touch", &key)
}

/// Errors about what is stored carry the key as well.
async fn e1_wrong_type_tells_operation_backend_and_key(lab: Lab) -> Verdict {
    let key = lab.key("tells");
    lab.write(&key, "text").await?;
    let incremented = lab.a.increment(&key, Increment::by(1)).await;
    tells_key(&lab, &refused(&key, "increment on a value", incremented, ErrorKind::WrongType)?, "increment", &key)?;
    let key = lab.key("overflow");
    lab.a.increment(&key, Increment::by(i64::MAX)).await?;
    let incremented = lab.a.increment(&key, Increment::by(1)).await;
    tells_key(&lab, &refused(&key, "overflow", incremented, ErrorKind::Overflow)?, "increment", &key)?;
    let window = Increment::by(1).window(Counting::OnCreate(Duration::ZERO));
    let incremented = lab.a.increment(&key, window).await;
    tells(&lab, &refused(&key, "window of zero", incremented, ErrorKind::Invalid)?, "increment", &key)
}

/// A value above the limit is refused before it is sent, in every call that takes one.
async fn e1_too_large_values_are_refused(lab: Lab) -> Verdict {
    let key = lab.key("large");
    let bytes_max = lab.capabilities().value_bytes_max;
    if bytes_max > TRIED_BYTES_MAX {
        return Ok(());
    }
    let value = bytes::Bytes::from(vec![0_u8; usize::try_from(bytes_max).unwrap_or(usize::MAX) + 1]);
    let put = Put::new(value.clone());
    let error = refused(&key, "put of a value above the limit", lab.a.put(&key, &put).await, ErrorKind::TooLarge)?;
    holds(&key, "the message names the limit", error.message().contains(&bytes_max.to_string()), &error)?;
    let replies =
        lab.a.batch(&[BatchOp::Put(key.clone(), put.clone()), BatchOp::Get(key.clone(), Get::default())]).await?;
    let mut replies = replies.into_iter();
    let first = replies.next().unwrap_or(Ok(BatchReply::Got(None)));
    refused(&key, "the same in a batch", first, ErrorKind::TooLarge)?;
    if lab.capabilities().transact.is_some() {
        let transact = lab.a.transact(&[TransactOp::Put(key.clone(), put)]).await;
        refused(&key, "the same in a transaction", transact, ErrorKind::TooLarge)?;
    }
    if lab.capabilities().due {
        let schedule = Schedule { id: "x".to_owned(), due_at: DueAt::After(Duration::ZERO), payload: value };
        refused(&key, "the same as a payload", lab.a.schedule(&key, &schedule).await, ErrorKind::TooLarge)?;
    }
    absent(&key, "an entry after refused writes", lab.read(&key).await?)
}

/// After `close` every call is `Closed`, and closing again does nothing.
async fn e1_calls_after_close_are_closed(lab: Lab) -> Verdict {
    let key = lab.key("closed");
    let own = lab.neighbour().await?;
    own.write(&key, "x").await?;
    own.a.close().await?;
    let outcome = async {
        equal(&key, "second close", &own.a.close().await.map_err(|error| error.kind()), &Ok(()))?;
        refused(&key, "get after close", own.a.get(&key, Get::default()).await, ErrorKind::Closed)?;
        refused(&key, "put after close", own.a.put(&key, &Put::new("x")).await, ErrorKind::Closed)?;
        refused(&key, "ping after close", own.a.ping().await, ErrorKind::Closed)?;
        refused(&key, "batch after close", own.a.batch(&[BatchOp::Take(key.clone())]).await, ErrorKind::Closed)
    }
    .await;
    own.close().await?;
    outcome.map(|_| ())
}

/// Reads that fail are never of unknown effect.
async fn e2_failed_reads_changed_nothing(lab: Lab) -> Verdict {
    let own = lab.neighbour().await?;
    own.a.close().await?;
    let got = own.a.get(&own.key("x"), Get::default()).await;
    let pinged = own.a.ping().await;
    own.close().await?;
    for effect in [got.map(|_| ()).map_err(|error| error.effect()), pinged.map_err(|error| error.effect())] {
        equal("a closed store", "effect of a failed read", &effect, &Err(Effect::NotApplied))?;
    }
    Ok(())
}

/// A ping reaches the backend through both handles.
async fn e1_open_store_answers_a_ping(lab: Lab) -> Verdict {
    lab.a.ping().await?;
    lab.b.ping().await?;
    holds("backend", "the backend has a name", !lab.a.backend().is_empty(), lab.a.backend())
}

/// Declared capabilities do not contradict each other, and both handles declare the same.
async fn capabilities_agree_with_each_other(lab: Lab) -> Verdict {
    let Capabilities { locks, shared_locks, semaphores, scan, ordered_scan, transact, value_bytes_max, .. } =
        *lab.capabilities();
    equal("capabilities", "of the other handle", lab.b.capabilities(), lab.capabilities())?;
    holds("capabilities", "shared locks and semaphores imply locks", locks || !(shared_locks || semaphores), locks)?;
    holds("capabilities", "an ordered scan is a scan", scan || !ordered_scan, scan)?;
    holds("capabilities", "some value can be stored", value_bytes_max > 0, value_bytes_max)?;
    holds("capabilities", "a transaction has room", transact.is_none_or(|limits| limits.ops_max > 0), transact)
}

/// A value of exactly the declared size is stored, as far as that is tried.
async fn e1_value_at_the_limit_is_stored(lab: Lab) -> Verdict {
    let bytes_max = lab.capabilities().value_bytes_max;
    // Up to 16 MiB, which any backend takes in one request; above it the driver's own tests know better.
    if bytes_max > 16 << 20 {
        return Ok(());
    }
    let key = lab.key("limit");
    let value = vec![b'x'; usize::try_from(bytes_max).unwrap_or(usize::MAX)];
    lab.a.put(&key, &Put::new(value.clone())).await?;
    let entry = present(&key, "a value at the limit", lab.read(&key).await?)?;
    holds(&key, "it is read back whole", entry.value == value, entry.value.len())
}

pub(crate) const CASES: &[Case] = &[
    case!("E1", e1_open_store_answers_a_ping),
    case!("E1", e1_errors_tell_operation_and_backend),
    case!("E1", e1_wrong_type_tells_operation_backend_and_key, [Need::Has("counters")]),
    case!("E1", e1_too_large_values_are_refused),
    case!("E1", e1_value_at_the_limit_is_stored),
    case!("E1", e1_calls_after_close_are_closed),
    case!("E2", e2_failed_reads_changed_nothing),
    case!("CAP", capabilities_agree_with_each_other, [Need::OneDriver]),
];
