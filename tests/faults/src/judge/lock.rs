//! What is wrong with a lock.

use acteon_state_conformance::history::Call;
use acteon_state_conformance::objects::{Holder, Lock, LockOperation, LockRecord, LockReply, Mode};

use crate::anomaly::Anomaly;
use crate::judge::{Case, Judge, duration_label};

type LockCall = Call<LockOperation, LockReply>;

impl Judge for Lock {
    fn is_read(&self, call: &LockCall) -> bool {
        matches!(call.reply, Some(LockReply::Busy | LockReply::Lost))
    }

    fn names(&self, call: &LockCall, other: &LockCall) -> bool {
        call.operation.owner() == other.operation.owner()
    }

    /// A grant also tells that the lock was released.
    fn mentions(&self, call: &LockCall, other: &LockCall) -> bool {
        let releases = matches!(other.operation, LockOperation::Release(_));
        releases && matches!(call.reply, Some(LockReply::Granted(_))) || self.names(call, other)
    }

    fn anomalies(&self, case: &Case<'_, Self>) -> Vec<Anomaly> {
        vec![name(case)]
    }

    fn label(&self, call: &LockCall) -> String {
        let asked = match call.operation {
            LockOperation::Acquire { owner, mode, lease_ns } => {
                let mode = match mode {
                    Mode::Exclusive => String::new(),
                    Mode::Shared => " shared".to_owned(),
                    Mode::Permit(of) => format!(" one of {of}"),
                };
                format!("#{owner} acquire{mode} for {}", duration_label(lease_ns))
            }
            LockOperation::Extend { owner, lease_ns } => format!("#{owner} extend by {}", duration_label(lease_ns)),
            LockOperation::Release(owner) => format!("#{owner} release"),
        };
        let told = match call.reply {
            None => "?".to_owned(),
            Some(LockReply::Granted(token)) => format!("token {token}"),
            Some(LockReply::Busy) => "busy".to_owned(),
            Some(LockReply::Extended) => "extended".to_owned(),
            Some(LockReply::Released) => "released".to_owned(),
            Some(LockReply::Lost) => "lost".to_owned(),
        };
        format!("{asked} → {told}")
    }

    fn belief(&self, state: &LockRecord) -> String {
        let one = |holder: &Holder| {
            let (earliest, latest) = (duration_label(holder.lease.earliest), duration_label(holder.lease.latest));
            format!("#{} until {earliest} to {latest}", holder.owner)
        };
        let holders: Vec<String> = state.holders.iter().map(one).collect();
        let holders = if holders.is_empty() { "nobody".to_owned() } else { holders.join(", ") };
        format!("held by {holders}; the last token was at least {}", state.last_token)
    }
}

fn name(case: &Case<'_, Lock>) -> Anomaly {
    if case.cast.iter().any(|earlier| case.cast.iter().any(|later| is_reuse(earlier, later))) {
        return Anomaly::TokenReuse;
    }
    match case.last.reply {
        Some(LockReply::Granted(_)) => Anomaly::LockOverlap,
        Some(LockReply::Extended | LockReply::Released) => Anomaly::LostLockHonoured,
        // The holder may learn of it before the grant that overlaps is answered.
        Some(LockReply::Lost) if was_overtaken(case) => Anomaly::LockOverlap,
        Some(LockReply::Busy | LockReply::Lost) => Anomaly::LockLost,
        None => Anomaly::NotLinearizable,
    }
}

fn token(call: &LockCall) -> Option<u64> {
    match call.reply {
        Some(LockReply::Granted(token)) => Some(token),
        _ => None,
    }
}

/// Somebody else was granted the lock between the grant of the owner that the last call is about and that call.
fn was_overtaken(case: &Case<'_, Lock>) -> bool {
    let is_ours = |call: &&LockCall| call.operation.owner() == case.last.operation.owner();
    let ours = case.all.iter().filter(is_ours).find_map(|call| token(call).map(|token| (call, token)));
    ours.is_some_and(|(grant, ours)| {
        let overtakes =
            |call: &LockCall| token(call) > Some(ours) && call.began < case.last.ended && call.ended > grant.began;
        case.all.iter().any(overtakes)
    })
}

/// A later grant whose token is not above an earlier one's.
fn is_reuse(earlier: &LockCall, later: &LockCall) -> bool {
    let is_other = earlier.operation.owner() != later.operation.owner();
    match (token(earlier), token(later)) {
        // One token of two owners is wrong whichever came first.
        (Some(one), Some(other)) if is_other => one == other || earlier.ended < later.began && one > other,
        _ => false,
    }
}
