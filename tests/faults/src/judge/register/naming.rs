//! Names what is wrong with a register by asking what would make it right.
//!
//! Each mistake of a store has a rule that it does not keep. If a history is explained once that rule is dropped, for all calls that it
//! is about, that is what is wrong. The whole history is tried first: it tells most. If more than one thing is wrong with it, its beginning up
//! to the contradiction is.

use acteon_state_conformance::history::Call;
use acteon_state_conformance::linearizability::{Budget, Judgement, check_within};
use acteon_state_conformance::objects::{
    If, Lifetime, Register, RegisterOperation, RegisterReply, Uncertainty, Write, WriteTtl,
};

use super::{RegisterCall, saw_absence, seen};
use crate::anomaly::Anomaly;
use crate::judge::{Case, known_until};

/// A search for a name need not succeed.
const BUDGET: Budget = Budget { configurations: 100_000 };

/// What is left of a call when a rule is dropped.
type Drop = fn(&RegisterCall) -> Vec<RegisterCall>;

/// Rules, by what is wrong where they are not kept. The first ones explain least by chance.
const RULES: [(Anomaly, Drop); 5] = [
    (Anomaly::LostUpdate, without_comparison),
    (Anomaly::DoubleWin, without_absence),
    (Anomaly::StaleRead, without_reads),
    (Anomaly::FenceIgnored, without_fence),
    (Anomaly::DoubleTake, without_removal),
];

pub(super) fn names(register: &Register, case: &Case<'_, Register>) -> Vec<Anomaly> {
    if is_resurrection(register, case) {
        return vec![Anomaly::Resurrection];
    }
    let seen = known_until(case.all, case.last.ended);
    let broken = |calls: &[RegisterCall], rules: &[(Anomaly, Drop)]| -> Vec<Anomaly> {
        let broken = rules.iter().filter(|(_, drop)| is_explained(register, calls, *drop));
        broken.map(|(anomaly, _)| *anomaly).collect()
    };
    // In the beginning, what only reads are wrong about may be a mistake of a write that somebody happened to see first.
    let writes: Vec<_> = RULES.into_iter().filter(|(anomaly, _)| *anomaly != Anomaly::StaleRead).collect();
    for names in [broken(case.all, &RULES), broken(&seen, &writes)] {
        if !names.is_empty() {
            return names;
        }
    }
    let uncertainty = Uncertainty { early_ns: u64::MAX, ..register.uncertainty };
    if check_within(&Register { uncertainty }, &seen, BUDGET) == Judgement::Linearizable {
        return vec![Anomaly::EarlyExpiry];
    }
    vec![match is_only_missing(case) {
        true => Anomaly::LostWrite,
        false if is_explained(register, &seen, without_reads) => Anomaly::StaleRead,
        false => Anomaly::NotLinearizable,
    }]
}

fn is_explained(register: &Register, calls: &[RegisterCall], drop: Drop) -> bool {
    let mut calls: Vec<RegisterCall> = calls.iter().flat_map(drop).collect();
    calls.sort_by_key(|call| call.began);
    check_within(register, &calls, BUDGET) == Judgement::Linearizable
}

fn without_reads(call: &RegisterCall) -> Vec<RegisterCall> {
    if call.operation == RegisterOperation::Get { Vec::new() } else { vec![call.clone()] }
}

/// Tokens are not compared: what was written was written anyway, what was refused only looked.
fn without_fence(call: &RegisterCall) -> Vec<RegisterCall> {
    match (call.operation, call.reply) {
        (RegisterOperation::Put(Write { when: If::Fence(_), .. }), Some(RegisterReply::Refused(value))) => {
            vec![Call { operation: RegisterOperation::Get, reply: Some(RegisterReply::Found(value)), ..call.clone() }]
        }
        (RegisterOperation::Put(Write { when: If::Fence(_), .. }), _) => vec![unconditional(call)],
        _ => vec![call.clone()],
    }
}

/// A take may leave what it took for others.
fn without_removal(call: &RegisterCall) -> Vec<RegisterCall> {
    match (call.operation, call.reply) {
        (RegisterOperation::Take, Some(RegisterReply::Found(Some(value)))) => {
            let get = Call { operation: RegisterOperation::Get, ..call.clone() };
            let delete = RegisterOperation::Delete(If::Value(value));
            vec![get, Call { operation: delete, reply: None, ..call.clone() }]
        }
        _ => vec![call.clone()],
    }
}

/// A swap that was made may have replaced something else.
fn without_comparison(call: &RegisterCall) -> Vec<RegisterCall> {
    match call.operation {
        RegisterOperation::Put(Write { when: If::Value(_), .. }) => vec![made(call)],
        _ => vec![call.clone()],
    }
}

/// A put that requires absence and was made may have replaced something.
fn without_absence(call: &RegisterCall) -> Vec<RegisterCall> {
    match call.operation {
        RegisterOperation::Put(Write { when: If::Absent, .. }) => vec![made(call)],
        _ => vec![call.clone()],
    }
}

/// The call without its condition, if it was not refused.
fn made(call: &RegisterCall) -> RegisterCall {
    if matches!(call.reply, Some(RegisterReply::Refused(_))) { call.clone() } else { unconditional(call) }
}

fn unconditional(call: &RegisterCall) -> RegisterCall {
    match call.operation {
        RegisterOperation::Put(write) => {
            Call { operation: RegisterOperation::Put(Write { when: If::Always, ..write }), ..call.clone() }
        }
        _ => call.clone(),
    }
}

/// The last call saw a value after its time to live was over, or was seen to be.
fn is_resurrection(register: &Register, case: &Case<'_, Register>) -> bool {
    let Some(Some(value)) = seen(case.last) else {
        return false;
    };
    let writes = |call: &&RegisterCall| matches!(call.operation, RegisterOperation::Put(write) if write.value == value);
    let Some(writer) = case.all.iter().find(writes) else {
        return false;
    };
    let RegisterOperation::Put(Write { ttl: WriteTtl::AfterNs(ttl_ns), .. }) = writer.operation else {
        return false;
    };
    let life = Lifetime::after(writer, ttl_ns, register.uncertainty);
    let saw_its_end = |call: &RegisterCall| life.may_be_over(call) && saw_absence(call) && call.ended < case.last.began;
    !life.may_last(case.last) || case.cast.iter().any(|call| saw_its_end(call))
}

/// The last call saw something older than it should, and whoever writes on top of it agrees.
fn is_only_missing(case: &Case<'_, Register>) -> bool {
    let Some(found) = seen(case.last) else {
        return false;
    };
    let agrees = |call: &RegisterCall| call.began > case.last.ended && seen(call) == Some(found);
    case.last.operation != RegisterOperation::Get
        || case.all.iter().any(|call| call.operation != RegisterOperation::Get && agrees(call))
}
