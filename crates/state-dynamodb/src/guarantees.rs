//! What the connected table guarantees: capabilities and lock semantics as data.

use std::time::Duration;

use acteon_state_core::{Capabilities, LockClock, LockSemantics, Survival, TransactLimits, TransactScope, Waiting};

use crate::config::DynamoConfig;
use crate::table::{Facts, Replication};

/// The most operations of one transaction: the service's limit.
const TRANSACT_OPS_MAX: usize = 100;

/// What can be done on this table.
///
/// Where other regions write to it as well and conditions hold in one region only, whatever is made of conditions is not
/// declared: compare-and-swap, fences, locks.
pub(crate) fn capabilities(facts: &Facts, config: &DynamoConfig) -> Capabilities {
    let conditions_hold = facts.conditions_hold();
    let transact = TransactLimits { scope: TransactScope::AnyKeys, ops_max: TRANSACT_OPS_MAX };
    Capabilities {
        cas: conditions_hold,
        fencing: conditions_hold,
        counters: true,
        rate_limits: true,
        transact: (conditions_hold && facts.has_transactions()).then_some(transact),
        // Each gate is a request of its own.
        gates: false,
        scan: true,
        ordered_scan: true,
        due: true,
        locks: conditions_hold,
        shared_locks: conditions_hold,
        semaphores: conditions_hold,
        server_clock: false,
        durable: !facts.is_emulator,
        shared: true,
        value_bytes_max: config.value_bytes_max,
    }
}

/// What locks guarantee on AWS itself, by how the table is replicated: not at all, to regions that are strongly consistent, and to
/// regions that are not. For documentation, and to know it before there is a table.
#[must_use]
pub fn lock_semantics_on_aws() -> [LockSemantics; 3] {
    let region = || vec!["another region".to_owned()];
    [Replication::None, Replication::Strong(region()), Replication::Eventual(region())]
        .map(|replication| lock_semantics(&Facts { replication, is_emulator: false }, DynamoConfig::default().skew_max))
}

/// What locks guarantee on this table.
pub(crate) fn lock_semantics(facts: &Facts, skew_max: Duration) -> LockSemantics {
    let (topology, fit_for) = match &facts.replication {
        Replication::Eventual(_) => ("dynamodb, several regions", "nothing: locks are refused"),
        Replication::Strong(_) => ("dynamodb, several regions, strongly consistent", "correctness of grants"),
        Replication::None | Replication::Unknown => ("dynamodb, one region", "correctness of grants"),
    };
    LockSemantics {
        topology: topology.to_owned(),
        clock: LockClock::Observed,
        tokens_rise_across: "everything: the record is kept".to_owned(),
        survives_server_crash: if facts.is_emulator { Survival::No } else { Survival::Yes },
        survives_failover: if facts.is_emulator { Survival::NotApplicable } else { Survival::Yes },
        waiting: Waiting::Backoff,
        fit_for: fit_for.to_owned(),
        notes: notes(facts, skew_max),
    }
}

fn notes(facts: &Facts, skew_max: Duration) -> Vec<String> {
    let mut notes = vec![
        "A lease does not stop a paused holder: fence the writes that it protects.".to_owned(),
        format!(
            "A lease counts as ended when its record stayed unchanged for a whole lease as another client observed it, or at \
             its end plus {skew_max:?} by clocks that are compared with the service's: no two clients may differ by more."
        ),
        "Records of locks are never removed: a lock with a new name for each action makes the table grow.".to_owned(),
    ];
    match &facts.replication {
        Replication::Eventual(regions) => notes.push(format!(
            "The table is replicated to {}, each of which takes writes: conditions hold in one region only.",
            regions.join(", ")
        )),
        Replication::Unknown => notes.push(
            "Whether other regions write to the table is not known: it has not been reached yet, or the role may not describe it. \
             Allow dynamodb:DescribeTable."
                .to_owned(),
        ),
        Replication::None | Replication::Strong(_) => {}
    }
    if facts.is_emulator {
        notes.push(
            "The endpoint is on this machine: an emulator, which keeps no promise across its restart.".to_owned(),
        );
    }
    notes
}
