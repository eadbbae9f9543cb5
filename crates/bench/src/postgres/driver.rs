//! The driver's side: the calls of an application.

use acteon_state_core::{
    ClaimOutcome, Condition, DueAt, Get, Increment, LockOutcome, LockRequest, Put, Schedule, StateStore as _, Ttl,
};
use acteon_state_postgres::PostgresStore;
use futures_util::future::try_join_all;

use super::{LEASE, Operation, Side, TTL, Task, VALUE, fill};
use crate::Outcome;

impl Side for PostgresStore {
    async fn operate(&self, operation: Operation, task: &mut Task) -> Outcome<u64> {
        let key = task.key(operation)?;
        match operation {
            Operation::Get => drop(self.get(&key, Get::default()).await?),
            Operation::PutTtl => drop(self.put(&key, &Put::new(VALUE).ttl(Ttl::After(TTL))).await?),
            Operation::PutIfAbsent => {
                let put = Put::new(VALUE).ttl(Ttl::After(TTL)).when(Condition::Absent);
                if !self.put(&key, &put).await?.is_applied() {
                    return Err(format!("{key} was not there before").into());
                }
            }
            Operation::CompareAndSwap => {
                let put = Put::new(VALUE).when(Condition::Version(task.version));
                if !self.put(&key, &put).await?.is_applied() {
                    self.put(&key, &Put { condition: Condition::Always, ..put.clone() }).await?;
                }
                task.version = put.version;
            }
            Operation::Increment | Operation::HotCounter => {
                self.increment(&key, Increment::by(1).at_most(i64::MAX)).await?;
            }
            Operation::LockCycle => {
                let request = LockRequest::new(key, LEASE);
                if !matches!(self.lock_acquire(&request).await?, LockOutcome::Granted(_)) {
                    return Err(format!("nobody else uses the lock {}", request.key).into());
                }
                self.lock_release(&request.key, request.owner).await?;
            }
            Operation::Schedule => {
                let schedule = Schedule { id: task.item(), due_at: DueAt::After(TTL), payload: VALUE.into() };
                self.schedule(&fill::later()?, &schedule).await?;
            }
            Operation::Claim(limit) => return claim(self, limit).await,
        }
        Ok(1)
    }
}

async fn claim(store: &PostgresStore, limit: u32) -> Outcome<u64> {
    let queue = fill::queue()?;
    let claimed = store.claim_due(&queue, acteon_state_core::ClaimDue { limit, visibility: TTL }).await?;
    if claimed.items.is_empty() {
        return Err("the backlog is used up".into());
    }
    let acks = claimed.items.iter().map(|item| store.ack(&queue, &item.id, item.token));
    for outcome in try_join_all(acks).await? {
        if outcome != ClaimOutcome::Done {
            return Err("a fresh claim is not ours".into());
        }
    }
    Ok(claimed.items.len() as u64)
}
