//! Capabilities: what is not declared is refused as `Unsupported`, before anything happens.
//!
//! For each capability there is a case that runs only where it is missing; where it is declared, its own cases run instead.

use std::time::Duration;

use acteon_state_core::{
    BatchOp, BatchReply, ClaimDue, ClaimToken, Condition, DueAt, ErrorKind, FencingToken, Gate, Increment, LockMode,
    LockRequest, OwnerId, Put, RateAlgorithm, RateLimit, Scan, Schedule, TransactOp, Version,
};

use crate::case::{Case, Need, case};
use crate::lab::{LONG, Lab};
use crate::verdict::{Verdict, absent, refused};

async fn undeclared_cas_is_refused(lab: Lab) -> Verdict {
    let (key, version) = (lab.key("cas"), Version::draw());
    refused(&key, "put", lab.a.put(&key, &Put::new("x").if_version(version)).await, ErrorKind::Unsupported)?;
    refused(&key, "delete", lab.a.delete(&key, Condition::Version(version)).await, ErrorKind::Unsupported)?;
    item_is_refused(&lab, BatchOp::Put(key.clone(), Put::new("x").if_version(version))).await?;
    absent(&key, "an entry after refused writes", lab.read(&key).await?)
}

async fn undeclared_fencing_is_refused(lab: Lab) -> Verdict {
    let (key, token) = (lab.key("fence"), FencingToken::new(1)?);
    refused(&key, "put", lab.a.put(&key, &Put::new("x").fenced_by(token)).await, ErrorKind::Unsupported)?;
    refused(&key, "delete", lab.a.delete(&key, Condition::Fence(token)).await, ErrorKind::Unsupported)?;
    item_is_refused(&lab, BatchOp::Put(key.clone(), Put::new("x").fenced_by(token))).await?;
    absent(&key, "an entry after refused writes", lab.read(&key).await?)
}

async fn undeclared_counters_are_refused(lab: Lab) -> Verdict {
    let key = lab.key("counter");
    refused(&key, "increment", lab.a.increment(&key, Increment::by(1)).await, ErrorKind::Unsupported)?;
    item_is_refused(&lab, BatchOp::Increment(key.clone(), Increment::by(1))).await?;
    absent(&key, "a counter after refused increments", lab.read(&key).await?)
}

/// A batch is carried out in any case; the item that needs what is missing fails by itself.
async fn item_is_refused(lab: &Lab, op: BatchOp) -> Verdict {
    let key = op.key().clone();
    let reply = lab.a.batch(&[op]).await?.into_iter().next().unwrap_or(Ok(BatchReply::Got(None)));
    refused(&key, "item of a batch", reply, ErrorKind::Unsupported).map(|_| ())
}

async fn undeclared_rate_limits_are_refused(lab: Lab) -> Verdict {
    let key = lab.key("rate");
    for algorithm in [RateAlgorithm::FixedWindow, RateAlgorithm::SlidingWindow, RateAlgorithm::Gcra { burst: 1 }] {
        let decision = lab.a.rate_limit(&key, &RateLimit::new(algorithm, 1, LONG)).await;
        refused(&key, &format!("{algorithm:?}"), decision, ErrorKind::Unsupported)?;
    }
    Ok(())
}

async fn undeclared_transact_is_refused(lab: Lab) -> Verdict {
    let key = lab.key("transact");
    let ops = [TransactOp::Put(key.clone(), Put::new("x"))];
    refused(&key, "transact", lab.a.transact(&ops).await, ErrorKind::Unsupported)?;
    absent(&key, "an entry after a refused transaction", lab.read(&key).await?)
}

async fn undeclared_gates_are_refused(lab: Lab) -> Verdict {
    let key = lab.key("gate");
    let gates = [Gate::Put(key.clone(), Put::new("x"))];
    refused(&key, "admit", lab.a.admit(&gates).await, ErrorKind::Unsupported)?;
    absent(&key, "an entry behind refused gates", lab.read(&key).await?)
}

async fn undeclared_scan_is_refused(lab: Lab) -> Verdict {
    let scan = Scan::new(lab.scope());
    refused("listing", "scan", lab.a.scan(&scan).await, ErrorKind::Unsupported)?;
    refused("listing", "lock_list", lab.a.lock_list(&scan).await, ErrorKind::Unsupported).map(|_| ())
}

async fn undeclared_due_is_refused(lab: Lab) -> Verdict {
    let (queue, token) = (lab.key("due"), ClaimToken::draw());
    let schedule = Schedule { id: "x".to_owned(), due_at: DueAt::After(Duration::ZERO), payload: "x".into() };
    refused(&queue, "schedule", lab.a.schedule(&queue, &schedule).await, ErrorKind::Unsupported)?;
    refused(&queue, "cancel", lab.a.cancel(&queue, "x").await, ErrorKind::Unsupported)?;
    let claim = ClaimDue { limit: 1, visibility: LONG };
    refused(&queue, "claim_due", lab.a.claim_due(&queue, claim).await, ErrorKind::Unsupported)?;
    refused(&queue, "ack", lab.a.ack(&queue, "x", token).await, ErrorKind::Unsupported)?;
    let extended = lab.a.extend_claim(&queue, "x", token, LONG).await;
    refused(&queue, "extend_claim", extended, ErrorKind::Unsupported).map(|_| ())
}

async fn undeclared_locks_are_refused(lab: Lab) -> Verdict {
    let (key, owner) = (lab.key("lock"), OwnerId::draw());
    let request = LockRequest::new(key.clone(), LONG);
    refused(&key, "lock_acquire", lab.a.lock_acquire(&request).await, ErrorKind::Unsupported)?;
    refused(&key, "lock_extend", lab.a.lock_extend(&key, owner, LONG).await, ErrorKind::Unsupported)?;
    refused(&key, "lock_release", lab.a.lock_release(&key, owner).await, ErrorKind::Unsupported)?;
    refused(&key, "lock_inspect", lab.a.lock_inspect(&key).await, ErrorKind::Unsupported)?;
    let forced = lab.a.lock_force_release(&key, "conformance").await;
    refused(&key, "lock_force_release", forced, ErrorKind::Unsupported)?;
    refused(&key, "lock_list", lab.a.lock_list(&Scan::new(lab.scope())).await, ErrorKind::Unsupported).map(|_| ())
}

async fn undeclared_shared_locks_are_refused(lab: Lab) -> Verdict {
    mode_is_refused(&lab, LockMode::Shared).await
}

async fn undeclared_semaphores_are_refused(lab: Lab) -> Verdict {
    mode_is_refused(&lab, LockMode::Permit { of: 2 }).await
}

async fn mode_is_refused(lab: &Lab, mode: LockMode) -> Verdict {
    let key = lab.key("mode");
    let request = LockRequest { mode, ..LockRequest::new(key.clone(), LONG) };
    refused(&key, &format!("lock_acquire in {mode:?}"), lab.a.lock_acquire(&request).await, ErrorKind::Unsupported)
        .map(|_| ())
}

pub(crate) const CASES: &[Case] = &[
    case!("CAP", undeclared_cas_is_refused, [Need::Lacks("cas")]),
    case!("CAP", undeclared_fencing_is_refused, [Need::Lacks("fencing")]),
    case!("CAP", undeclared_counters_are_refused, [Need::Lacks("counters")]),
    case!("CAP", undeclared_rate_limits_are_refused, [Need::Lacks("rate_limits")]),
    case!("CAP", undeclared_transact_is_refused, [Need::Lacks("transact")]),
    case!("CAP", undeclared_gates_are_refused, [Need::Lacks("gates")]),
    case!("CAP", undeclared_scan_is_refused, [Need::Lacks("scan")]),
    case!("CAP", undeclared_due_is_refused, [Need::Lacks("due")]),
    case!("CAP", undeclared_locks_are_refused, [Need::Lacks("locks")]),
    case!("CAP", undeclared_shared_locks_are_refused, [Need::Lacks("shared_locks")]),
    case!("CAP", undeclared_semaphores_are_refused, [Need::Lacks("semaphores")]),
];
