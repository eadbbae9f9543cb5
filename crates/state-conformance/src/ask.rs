//! Asks a store what the specifications of [`objects`](crate::objects) are asked, and translates its answers.
//!
//! Values, versions and owners are made from the numbers of the specification, so that a reply tells which write or acquisition it
//! saw. Hence keys must be fresh in each run.

use std::time::Duration;

use acteon_state_core::rate::RATE_LIMIT_MAX;
use acteon_state_core::{
    Condition, Counting, DeleteOutcome, Entry, Error, ErrorKind, ExtendOutcome, FencingToken, Gate, GateReply, Get,
    Increment, IncrementOutcome, LockMode, LockOutcome, LockRequest, OwnerId, Put, PutOutcome, RateLimit,
    ReleaseOutcome, Result, StateKey, StateStore, TTL_MAX, Ttl, Version,
};

use crate::objects::{
    BoundedCounter, CounterOperation, CounterReply, If, LockOperation, LockReply, Mode, RegisterOperation,
    RegisterReply, Write, WriteTtl,
};

/// Asks for something to be done to a register.
///
/// # Errors
/// Those of the store; `Corrupt` for a value that no register wrote.
pub async fn ask_register(
    store: &dyn StateStore,
    key: &StateKey,
    operation: RegisterOperation,
) -> Result<RegisterReply> {
    let number = |entry: Option<Entry>| entry.map(|entry| number_of(key, &entry)).transpose();
    Ok(match operation {
        RegisterOperation::Get => RegisterReply::Found(number(store.get(key, Get::default()).await?)?),
        RegisterOperation::Take => RegisterReply::Found(number(store.take(key).await?)?),
        RegisterOperation::Put(write) => match put_or_pass(store, key, &put(write)?).await? {
            PutOutcome::Applied(_) => RegisterReply::Written,
            PutOutcome::NotMet(current) => RegisterReply::Refused(number(current)?),
        },
        RegisterOperation::Delete(when) => match store.delete(key, condition(when)?).await? {
            DeleteOutcome::Deleted => RegisterReply::Deleted(true),
            DeleteOutcome::Absent => RegisterReply::Deleted(false),
            DeleteOutcome::NotMet(current) => RegisterReply::Refused(number(Some(current))?),
        },
    })
}

/// Asks for something to be done to a counter with these bounds and this window.
///
/// # Errors
/// Those of the store; `Corrupt` for a text that is no counter.
pub async fn ask_counter(
    store: &dyn StateStore,
    key: &StateKey,
    counter: &BoundedCounter,
    operation: CounterOperation,
) -> Result<CounterReply> {
    let CounterOperation::Add { step, .. } = operation else {
        let entry = store.get(key, Get::default()).await?;
        return Ok(CounterReply::Found(entry.map(|entry| number_of(key, &entry)).transpose()?));
    };
    let window = counter.window_ns.map_or(Counting::Unlimited, |ns| Counting::OnCreate(Duration::from_nanos(ns)));
    let increment = Increment { min: counter.min, max: counter.max, ..Increment::by(step).window(window) };
    Ok(match store.increment(key, increment).await? {
        IncrementOutcome::Refused(counter) => CounterReply::Refused(counter.value),
        outcome => CounterReply::Applied(outcome.counter().value),
    })
}

/// Asks for something to be done to a lock; an acquisition waits up to `wait`.
///
/// # Errors
/// Those of the store.
pub async fn ask_lock(
    store: &dyn StateStore,
    key: &StateKey,
    operation: LockOperation,
    wait: Duration,
) -> Result<LockReply> {
    let owner = OwnerId::from_u128(u128::from(operation.owner()) + 1);
    Ok(match operation {
        LockOperation::Acquire { mode, lease_ns, .. } => {
            let mode = lock_mode(mode);
            let request = LockRequest { owner, wait, mode, ..LockRequest::new(key.clone(), lease(lease_ns)) };
            match acquire_or_pass(store, &request).await? {
                LockOutcome::Granted(grant) => LockReply::Granted(grant.token.get()),
                LockOutcome::Busy(_) => LockReply::Busy,
            }
        }
        LockOperation::Extend { lease_ns, .. } => match store.lock_extend(key, owner, lease(lease_ns)).await? {
            ExtendOutcome::Extended => LockReply::Extended,
            ExtendOutcome::Lost => LockReply::Lost,
        },
        LockOperation::Release(_) => match store.lock_release(key, owner).await? {
            ReleaseOutcome::Released => LockReply::Released,
            ReleaseOutcome::AlreadyLost => LockReply::Lost,
        },
    })
}

/// Every other write goes through a gate, where there are any: it must mean the same.
async fn put_or_pass(store: &dyn StateStore, key: &StateKey, put: &Put) -> Result<PutOutcome> {
    if !store.capabilities().gates || is_even(put.version.as_u128()) {
        return store.put(key, put).await;
    }
    match store.admit(&[Gate::Put(key.clone(), put.clone())]).await?.pop() {
        Some(Ok(GateReply::Put(outcome))) => Ok(outcome),
        Some(Err(error)) => Err(error),
        other => Err(unexpected(key, &other)),
    }
}

/// Every other acquisition first asks once behind a limit that is never used up, where there are gates.
async fn acquire_or_pass(store: &dyn StateStore, request: &LockRequest) -> Result<LockOutcome> {
    if !store.capabilities().gates || is_even(request.owner.as_u128()) {
        return store.lock_acquire(request).await;
    }
    let limit = RateLimit::fixed_window(RATE_LIMIT_MAX, Duration::from_secs(3_600));
    let mut replies = store.admit(&[Gate::RateLimit(request.key.clone(), limit), Gate::Lock(request.clone())]).await?;
    match replies.pop() {
        Some(Ok(GateReply::Lock(outcome @ LockOutcome::Granted(_)))) => Ok(outcome),
        Some(Ok(GateReply::Lock(outcome))) if request.wait.is_zero() => Ok(outcome),
        // Busy, or others stand in line: from here on as anybody who waits.
        Some(Ok(GateReply::Lock(_) | GateReply::RateLimit(_))) => store.lock_acquire(request).await,
        Some(Err(error)) => Err(error),
        other => Err(unexpected(&request.key, &other)),
    }
}

const fn is_even(number: u128) -> bool {
    number.is_multiple_of(2)
}

fn unexpected(key: &StateKey, reply: &Option<Result<GateReply>>) -> Error {
    Error::new(ErrorKind::Internal, format!("a gate was answered by {reply:?}")).with_key(key)
}

/// The write that a specification's write stands for.
///
/// # Errors
/// A token that is none.
pub fn put(write: Write) -> Result<Put> {
    let ttl = match write.ttl {
        WriteTtl::Clear => Ttl::Clear,
        WriteTtl::Keep => Ttl::Keep,
        WriteTtl::AfterNs(ns) => Ttl::After(Duration::from_nanos(ns)),
    };
    Ok(Put { version: version(write.value), ..Put::new(write.value.to_string()) }.when(condition(write.when)?).ttl(ttl))
}

fn condition(when: If) -> Result<Condition> {
    Ok(match when {
        If::Always => Condition::Always,
        If::Absent => Condition::Absent,
        If::Present => Condition::Present,
        If::Value(value) => Condition::Version(version(value)),
        If::Fence(token) => Condition::Fence(FencingToken::new(token)?),
    })
}

/// The value and the version of a write are the same number, so that a read tells which write it saw.
fn version(number: u32) -> Version {
    Version::from_u128(u128::from(number) + 1)
}

/// The number that an entry holds.
///
/// # Errors
/// `Corrupt`: nobody who was asked by a specification wrote it.
pub fn number_of<N: std::str::FromStr>(key: &StateKey, entry: &Entry) -> Result<N> {
    let number = std::str::from_utf8(&entry.value).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::new(ErrorKind::Corrupt, "the entry is not the number that was written").with_key(key))
}

const fn lock_mode(mode: Mode) -> LockMode {
    match mode {
        Mode::Exclusive => LockMode::Exclusive,
        Mode::Shared => LockMode::Shared,
        Mode::Permit(of) => LockMode::Permit { of },
    }
}

fn lease(lease_ns: u64) -> Duration {
    Duration::from_nanos(lease_ns).min(TTL_MAX)
}
