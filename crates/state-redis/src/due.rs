//! Due times: a sorted set of ids by the time at which they can be claimed, beside a hash of the items themselves.
//!
//! Both keys lie in one slot. Each operation is one script, which [acknowledgements](crate::acks) may share, so they never disagree;
//! should one of them be damaged from outside, a claim that begins with such an item reports `Corrupt` with its id, and `cancel`
//! removes it.

use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::due::check_item_id;
use acteon_state_core::entry::{ceil_ms, duration_ms};
use acteon_state_core::key::Companion;
use acteon_state_core::record::ItemRecord;
use acteon_state_core::{
    ClaimDue, ClaimOutcome, ClaimToken, Claimed, DueAt, DueItem, Error, Result, Schedule, Scheduled, StateKey,
};
use bytes::{Buf, Bytes};

use crate::error::{Access, unexpected};
use crate::reply;
use crate::script::{self, By, Script};
use crate::store::Inner;
use crate::wire::{Cmd, Value};

impl Inner {
    pub(crate) async fn schedule(&self, queue: &StateKey, schedule: &Schedule) -> Result<Scheduled> {
        schedule.check(self.capabilities())?;
        let (how, time_ms) = match schedule.due_at {
            DueAt::UnixMs(at_ms) => ("at", at_ms),
            DueAt::After(delay) => ("after", ceil_ms(delay)),
        };
        let command = |by| {
            let mut cmd = self.queue_command(&script::SCHEDULE, queue, by);
            cmd.arg(&schedule.id).arg(how).number(time_ms).arg(&schedule.payload[..]);
            cmd
        };
        match self.run(Access::Write, command).await? {
            Value::Int(1) => Ok(Scheduled::Created),
            Value::Int(0) => Ok(Scheduled::Replaced),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn cancel(&self, queue: &StateKey, id: &str) -> Result<bool> {
        check_item_id(id)?;
        let command = |by| {
            let mut cmd = self.queue_command(&script::CANCEL, queue, by);
            cmd.arg(id);
            cmd
        };
        Ok(reply::int(self.run(Access::Write, command).await?)? == 1)
    }

    pub(crate) async fn claim_due(&self, queue: &StateKey, claim: ClaimDue) -> Result<Claimed> {
        let visibility_ms = claim.check(self.capabilities())?;
        let token = ClaimToken::draw();
        let command = |by| {
            let mut cmd = self.queue_command(&script::CLAIM_DUE, queue, by);
            cmd.number(claim.limit).number(visibility_ms).arg(token.to_text());
            cmd
        };
        let mut fields = reply::array(self.run(Access::Write, command).await?)?;
        if reply::int(reply::next(&mut fields)?)? != 1 {
            return Err(corrupt_item(queue, &reply::text(reply::next(&mut fields)?)?));
        }
        let next_ms = reply::int(reply::next(&mut fields)?)?;
        let mut items = Vec::with_capacity(fields.len() / 2);
        while let Some(id) = fields.next() {
            items.push(due_item(queue, reply::text(id)?, reply::next(&mut fields)?, token)?);
        }
        Ok(Claimed { items, next_due_in: u64::try_from(next_ms).ok().map(Duration::from_millis) })
    }

    pub(crate) async fn ack(self: &Arc<Self>, queue: &StateKey, id: &str, token: ClaimToken) -> Result<ClaimOutcome> {
        check_item_id(id)?;
        let (_under_way, is_alone) = self.acks.enter();
        let reply = if is_alone {
            self.run(Access::Write, |by| self.ack_command(queue, id, token, by)).await
        } else {
            self.ack_with_others(queue, id, token).await
        };
        claim_outcome(queue, id, reply?)
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
        let command = |by| {
            let mut cmd = self.queue_command(&script::EXTEND_CLAIM, queue, by);
            cmd.arg(id).arg(token.to_text()).number(visibility_ms);
            cmd
        };
        claim_outcome(queue, id, self.run(Access::Write, command).await?)
    }

    pub(crate) fn ack_command(&self, queue: &StateKey, id: &str, token: ClaimToken, by: By) -> Cmd {
        let mut cmd = self.queue_command(&script::ACK, queue, by);
        cmd.arg(id).arg(token.to_text());
        cmd
    }

    /// A call of a script about a queue, with its two keys.
    pub(crate) fn queue_command(&self, script: &Script, queue: &StateKey, by: By) -> Cmd {
        let mut cmd = script.command(by, 2);
        cmd.parts(self.keyspace.companion_parts(queue, Companion::Due));
        cmd.parts(self.keyspace.companion_parts(queue, Companion::Items));
        cmd
    }
}

/// An item that was claimed, of the record that the claim has written.
fn due_item(queue: &StateKey, id: String, bytes: Value, token: ClaimToken) -> Result<DueItem> {
    let bytes = reply::bytes_or_nil(bytes)?.unwrap_or_default();
    let Some(ItemRecord { attempt, due_at_ms, payload, .. }) = ItemRecord::parse(&bytes) else {
        return Err(corrupt_item(queue, &id));
    };
    let header_bytes = bytes.len() - payload.len();
    let mut payload = Bytes::from(bytes);
    // Neither a copy nor a second owner of the bytes.
    payload.advance(header_bytes);
    Ok(DueItem { id, payload, due_at_ms, attempt, token })
}

fn claim_outcome(queue: &StateKey, id: &str, reply: Value) -> Result<ClaimOutcome> {
    match reply {
        Value::Int(1) => Ok(ClaimOutcome::Done),
        Value::Int(0) => Ok(ClaimOutcome::Lost),
        Value::Int(-2) => Err(corrupt_item(queue, id)),
        other => Err(unexpected(&other)),
    }
}

fn corrupt_item(queue: &StateKey, id: &str) -> Error {
    Error::corrupt(queue, format!("the item {id:?} of the queue does not parse; cancel it to go on"))
}
