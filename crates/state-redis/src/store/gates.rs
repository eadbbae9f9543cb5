//! Gates: one script, which asks them in their order until one does not let pass.
//!
//! # Guarantees
//! All that the script does happens at one moment, so nobody acts between two gates. That is more than the contract asks for.
//!
//! # Failure
//! A gate that fails inside of the script, such as on another type under its key, is the last one asked, and has an error of its
//! own: those before it keep their replies. A future that is dropped, or an answer that is lost, is for the lock what it is for an
//! acquisition, see [`lock`](crate::lock).
//!
//! # How it works
//! What can be seen to be wrong is left out together with all that comes after it; asked by itself it has its error, in its turn.
//! So is a lock for which others of this process stand in line, since the question would go past them.

use std::sync::Arc;

use acteon_state_core::clock::BootInstant;
use acteon_state_core::gate::check_gates;
use acteon_state_core::key::Companion;
use acteon_state_core::{Gate, GateReply, LockRequest, Operation, RateAlgorithm, Result};

use super::rate::{push_rate_fields, rate_key, rate_reply};
use super::value::{push_put_fields, put_script_reply};
use super::{Inner, settled};
use crate::error::{Access, BACKEND, unexpected};
use crate::lock::{acquire_reply, push_acquire_fields};
use crate::reply;
use crate::script::{self, By};
use crate::wire::{Cmd, Value};

/// A gate that was checked.
struct Checked {
    gate: Gate,
    /// Its key on the server.
    text: String,
    /// A limit's window or a lock's lease, as its check has rounded it.
    span_ms: u64,
}

impl Inner {
    pub(super) async fn admit(self: &Arc<Self>, gates: &[Gate]) -> Result<Vec<Result<GateReply>>> {
        self.capabilities().expect("gates")?;
        check_gates(gates)?;
        let checked = self.checked(gates)?;
        let asking = self.clone().ask_gates(checked.clone());
        let (sent_at, reply) = match checked.last().map(|last| &last.gate) {
            Some(Gate::Lock(request)) => {
                self.withdrawals.settled(request.owner).await;
                // From before the request is sent, as for any grant.
                (BootInstant::now(), self.ask_or_withdraw(request, asking).await?)
            }
            _ => (BootInstant::now(), asking.await?),
        };
        let replies = reply::array(reply)?;
        if replies.len() == 0 || replies.len() > checked.len() {
            return Err(unexpected(&Value::Array(replies.collect())));
        }
        Ok(checked.iter().zip(replies).map(|(checked, reply)| checked.reply(sent_at, reply)).collect())
    }

    /// As many gates as the script can ask: at least the first, or its error.
    fn checked(&self, gates: &[Gate]) -> Result<Arc<[Checked]>> {
        let mut checked = Vec::with_capacity(gates.len());
        for gate in gates {
            match self.check_gate(gate) {
                Ok(gate) if checked.is_empty() || !self.goes_past_waiters(&gate) => checked.push(gate),
                Err(error) if checked.is_empty() => return Err(error.with_key(gate.key())),
                Ok(_) | Err(_) => break,
            }
        }
        Ok(checked.into())
    }

    fn check_gate(&self, gate: &Gate) -> Result<Checked> {
        let (text, span_ms) = match gate {
            Gate::Put(key, put) => {
                put.check(self.capabilities())?;
                (self.keyspace.text(key), 0)
            }
            Gate::RateLimit(key, request) => (rate_key(&self.keyspace, key, request), request.check()?),
            Gate::Lock(request) => {
                self.check_lease(request.lease)?;
                (self.keyspace.companion(&request.key, Companion::Lock), request.check(self.capabilities())?)
            }
        };
        Ok(Checked { gate: gate.clone(), text, span_ms })
    }

    /// Whether others of this process stand in line for this lock. Whoever does not want to wait asks all the same.
    fn goes_past_waiters(&self, checked: &Checked) -> bool {
        match &checked.gate {
            Gate::Lock(LockRequest { wait, .. }) => !wait.is_zero() && self.wakeups.has_waiters(&checked.text),
            Gate::Put(..) | Gate::RateLimit(..) => false,
        }
    }

    async fn ask_gates(self: Arc<Self>, gates: Arc<[Checked]>) -> Result<Value> {
        self.run(Access::Write, |by| admit_command(&gates, self.lock_retention_ms, by)).await
    }
}

fn admit_command(gates: &[Checked], lock_retention_ms: u64, by: By) -> Cmd {
    let mut cmd = script::ADMIT.command(by, gates.len());
    for Checked { text, .. } in gates {
        cmd.arg(text);
    }
    for Checked { gate, span_ms, .. } in gates {
        match gate {
            Gate::Put(_, put) => push_put_fields(cmd.arg("p"), put),
            Gate::RateLimit(_, request) => {
                let letter = match request.algorithm {
                    RateAlgorithm::FixedWindow => "f",
                    RateAlgorithm::SlidingWindow => "s",
                    RateAlgorithm::Gcra { .. } => "g",
                };
                push_rate_fields(cmd.arg(letter), request, *span_ms);
            }
            Gate::Lock(request) => push_acquire_fields(cmd.arg("l"), request, *span_ms, lock_retention_ms),
        }
    }
    cmd
}

impl Checked {
    fn reply(&self, sent_at: BootInstant, reply: Value) -> Result<GateReply> {
        let read = |reply| match &self.gate {
            Gate::Put(key, put) => put_script_reply(key, put, reply).map(GateReply::Put),
            Gate::RateLimit(key, request) => rate_reply(key, request, self.span_ms, reply).map(GateReply::RateLimit),
            Gate::Lock(LockRequest { key, lease, .. }) => {
                acquire_reply(key, sent_at + *lease, reply).map(|attempt| GateReply::Lock(attempt.outcome()))
            }
        };
        settled(reply).and_then(read).map_err(|error| {
            error.in_operation(Operation::Admit.as_str()).on_backend(BACKEND).with_key(self.gate.key())
        })
    }
}
