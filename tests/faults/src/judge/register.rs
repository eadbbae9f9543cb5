//! What is wrong with a register.

use acteon_state_conformance::history::Call;
use acteon_state_conformance::objects::{
    Held, If, Lifetime, Register, RegisterOperation, RegisterReply, Write, WriteTtl,
};

use crate::anomaly::Anomaly;
use crate::judge::{Case, Judge, duration_label};

mod naming;

type RegisterCall = Call<RegisterOperation, RegisterReply>;

impl Judge for Register {
    fn is_read(&self, call: &RegisterCall) -> bool {
        use RegisterReply::{Deleted, Found, Refused};
        call.operation == RegisterOperation::Get
            || matches!(call.reply, Some(Refused(_) | Found(None) | Deleted(false)))
    }

    fn names(&self, call: &RegisterCall, other: &RegisterCall) -> bool {
        matches!(other.operation, RegisterOperation::Put(write) if seen(call) == Some(Some(write.value)))
    }

    fn mentions(&self, call: &RegisterCall, other: &RegisterCall) -> bool {
        let removes = matches!(other.operation, RegisterOperation::Take | RegisterOperation::Delete(_));
        removes && saw_absence(call) || self.names(call, other)
    }

    fn anomalies(&self, case: &Case<'_, Self>) -> Vec<Anomaly> {
        naming::names(self, case)
    }

    fn label(&self, call: &RegisterCall) -> String {
        let asked = match call.operation {
            RegisterOperation::Get => "get".to_owned(),
            RegisterOperation::Take => "take".to_owned(),
            RegisterOperation::Delete(when) => format!("delete{}", condition(when)),
            RegisterOperation::Put(Write { value, when, ttl }) => {
                let ttl = match ttl {
                    WriteTtl::Clear => String::new(),
                    WriteTtl::Keep => " keeping its ttl".to_owned(),
                    WriteTtl::AfterNs(ns) => format!(" for {}", duration_label(ns)),
                };
                format!("put {value}{}{ttl}", condition(when))
            }
        };
        let told = match call.reply {
            None => "?".to_owned(),
            Some(RegisterReply::Found(value)) => value_or_nothing(value),
            Some(RegisterReply::Written) => "written".to_owned(),
            Some(RegisterReply::Refused(value)) => format!("refused: {}", value_or_nothing(value)),
            Some(RegisterReply::Deleted(true)) => "deleted".to_owned(),
            Some(RegisterReply::Deleted(false)) => "nothing".to_owned(),
        };
        format!("{asked} → {told}")
    }

    fn belief(&self, state: &Vec<Option<Held>>) -> String {
        let one = |held: &Option<Held>| match held {
            None => "nothing".to_owned(),
            Some(Held { value, fence, life }) => {
                let fence = fence.map_or(String::new(), |fence| format!(" under fence {fence}"));
                let life = if *life == Lifetime::FOREVER {
                    String::new()
                } else {
                    format!(" until {} to {}", duration_label(life.earliest), duration_label(life.latest))
                };
                format!("{value}{fence}{life}")
            }
        };
        format!("holds {}", state.iter().map(one).collect::<Vec<_>>().join(" or "))
    }
}

/// What a call found to be there, if its reply says so.
fn seen(call: &RegisterCall) -> Option<Option<u32>> {
    match (call.operation, call.reply?) {
        (_, RegisterReply::Found(value) | RegisterReply::Refused(value)) => Some(value),
        (_, RegisterReply::Deleted(false)) => Some(None),
        (_, RegisterReply::Deleted(true)) => None,
        (RegisterOperation::Put(Write { when: If::Absent, .. }), RegisterReply::Written) => Some(None),
        (RegisterOperation::Put(Write { when: If::Value(value), .. }), RegisterReply::Written) => Some(Some(value)),
        (_, RegisterReply::Written) => None,
    }
}

fn saw_absence(call: &RegisterCall) -> bool {
    seen(call) == Some(None)
}

fn condition(when: If) -> String {
    match when {
        If::Always => String::new(),
        If::Absent => " if absent".to_owned(),
        If::Present => " if present".to_owned(),
        If::Value(value) => format!(" if {value}"),
        If::Fence(token) => format!(" under fence {token}"),
    }
}

fn value_or_nothing(value: Option<u32>) -> String {
    value.map_or("nothing".to_owned(), |value| value.to_string())
}
