//! What requests have cost, as the service reported it.
//!
//! # What it promises
//! Every request is counted under the operation of the store that sent it, with the capacity units in its answer. The service does
//! not say what a refused request has cost: a condition that did not hold is billed for a write of the item that it looked at,
//! at least one unit, and is counted here as a request without units.
//!
//! # How it works
//! Sums in hundredths of a unit, since the smallest charge is half a unit and fractions must not add up to errors. Counting is a
//! few relaxed atomic additions: numbers of one operation that are read while it is counted may be a request apart.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use acteon_state_core::Operation;
use acteon_state_core::layer::metrics::UsageMetrics;
use aws_sdk_dynamodb::types::ConsumedCapacity;

use crate::error::Access;

/// Hundredths in a unit.
const UNIT: f64 = 100.0;
/// All operations that are counted, in the order in which [`Capacity::by_operation`] gives them.
const OPERATIONS: [Operation; 24] = [
    Operation::Ping,
    Operation::Get,
    Operation::Put,
    Operation::Delete,
    Operation::Take,
    Operation::Touch,
    Operation::Increment,
    Operation::RateLimit,
    Operation::Batch,
    Operation::Transact,
    Operation::Admit,
    Operation::Scan,
    Operation::Schedule,
    Operation::Cancel,
    Operation::ClaimDue,
    Operation::Ack,
    Operation::ExtendClaim,
    Operation::LockAcquire,
    Operation::LockExtend,
    Operation::LockRelease,
    Operation::LockInspect,
    Operation::LockForceRelease,
    Operation::LockList,
    Operation::Close,
];
// An operation that the contract gets must get its place here too: without one, counting would be out of bounds.
const _: () = assert!(Operation::Close as usize + 1 == OPERATIONS.len(), "an operation is missing in the list");

/// What a store has sent and what it cost, since it was opened.
#[derive(Debug)]
pub struct Capacity {
    sent: AtomicU64,
    exported: OnceLock<UsageMetrics>,
    counters: [Counters; OPERATIONS.len()],
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    read: AtomicU64,
    write: AtomicU64,
}

/// Requests and capacity units.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Consumed {
    /// Requests.
    pub requests: u64,
    /// Read capacity units: one for a consistent read of up to 4 KB.
    pub read_units: f64,
    /// Write capacity units: one for a write of up to 1 KB.
    pub write_units: f64,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            sent: AtomicU64::new(0),
            exported: OnceLock::new(),
            counters: std::array::from_fn(|_| Counters::default()),
        }
    }
}

impl Capacity {
    /// What an operation has cost in sum.
    #[must_use]
    pub fn of(&self, operation: Operation) -> Consumed {
        self.counters[place(operation)].read()
    }

    /// What each operation that was used has cost in sum.
    pub fn by_operation(&self) -> impl Iterator<Item = (Operation, Consumed)> {
        OPERATIONS.into_iter().map(|operation| (operation, self.of(operation))).filter(|(_, used)| used.requests > 0)
    }

    /// What all operations have cost in sum.
    #[must_use]
    pub fn total(&self) -> Consumed {
        self.counters.iter().map(Counters::read).fold(Consumed::default(), |sum, one| Consumed {
            requests: sum.requests + one.requests,
            read_units: sum.read_units + one.read_units,
            write_units: sum.write_units + one.write_units,
        })
    }

    /// How many requests left for the service, with those that prepared the table. Seen where they are sent, so it shows
    /// whether one is missing under its operation.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Counts a request and what its answer says it has used; nothing when it was refused.
    pub(crate) fn add(&self, operation: Operation, access: Access, consumed: Option<&ConsumedCapacity>) {
        let counters = &self.counters[place(operation)];
        counters.requests.fetch_add(1, Ordering::Relaxed);
        let Some(consumed) = consumed else {
            if let Some(exported) = self.exported.get() {
                exported.add(operation, 0.0, 0.0);
            }
            return;
        };
        let (mut read, mut write) = (consumed.read_capacity_units(), consumed.write_capacity_units());
        if read.is_none() && write.is_none() {
            // Only transactions say of which sort their units are.
            match access {
                Access::Read => read = consumed.capacity_units(),
                Access::Write => write = consumed.capacity_units(),
            }
        }
        counters.read.fetch_add(hundredths(read), Ordering::Relaxed);
        counters.write.fetch_add(hundredths(write), Ordering::Relaxed);
        if let Some(exported) = self.exported.get() {
            exported.add(operation, plausible(read), plausible(write));
        }
    }

    /// Also counts into these metrics from now on. The first call decides.
    pub(crate) fn export_to(&self, usage: UsageMetrics) {
        // Nothing would be won by counting into two.
        let _ = self.exported.set(usage);
    }

    /// Counts a request that leaves.
    pub(crate) fn add_sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }
}

impl Counters {
    fn read(&self) -> Consumed {
        let units = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64 / UNIT;
        Consumed {
            requests: self.requests.load(Ordering::Relaxed),
            read_units: units(&self.read),
            write_units: units(&self.write),
        }
    }
}

/// Nothing for what is not a number of units: the answer comes from outside.
fn plausible(units: Option<f64>) -> f64 {
    units.filter(|units| units.is_finite() && *units > 0.0).unwrap_or(0.0)
}

fn hundredths(units: Option<f64>) -> u64 {
    (plausible(units) * UNIT).round() as u64
}

/// The list is in the order of the enumeration, which a test holds it to.
const fn place(operation: Operation) -> usize {
    operation as usize
}

#[cfg(test)]
mod tests {
    use acteon_state_core::Operation;
    use acteon_state_core::layer::metrics::StoreMetrics;
    use aws_sdk_dynamodb::types::ConsumedCapacity;
    use prometheus_client::registry::Registry;

    use super::{Capacity, Consumed, OPERATIONS, place};
    use crate::error::Access;

    #[test]
    fn every_operation_has_its_place() {
        for (number, operation) in OPERATIONS.into_iter().enumerate() {
            assert_eq!(place(operation), number, "{operation:?}");
        }
    }

    #[test]
    fn halves_add_up_and_operations_stay_apart() {
        let capacity = Capacity::default();
        let half = ConsumedCapacity::builder().capacity_units(0.5).build();
        for _ in 0..3 {
            capacity.add(Operation::Get, Access::Read, Some(&half));
        }
        capacity.add(Operation::Put, Access::Write, Some(&ConsumedCapacity::builder().capacity_units(2.0).build()));
        capacity.add(Operation::Put, Access::Write, None);
        assert_eq!(capacity.of(Operation::Get), Consumed { requests: 3, read_units: 1.5, write_units: 0.0 });
        assert_eq!(capacity.of(Operation::Put), Consumed { requests: 2, read_units: 0.0, write_units: 2.0 });
        assert_eq!(capacity.total(), Consumed { requests: 5, read_units: 1.5, write_units: 2.0 });
        let used: Vec<_> = capacity.by_operation().map(|(operation, _)| operation).collect();
        assert_eq!(used, [Operation::Get, Operation::Put]);
    }

    #[test]
    fn what_is_exported_is_counted_in_both() {
        let mut registry = Registry::default();
        let metrics = StoreMetrics::register(&mut registry);
        let capacity = Capacity::default();
        capacity.export_to(metrics.usage("dynamodb"));
        capacity.add(Operation::Get, Access::Read, Some(&ConsumedCapacity::builder().capacity_units(0.5).build()));
        capacity.add(Operation::Put, Access::Write, None);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "acteon_state_requests_total{backend=\"dynamodb\",operation=\"get\"} 1",
            "acteon_state_requests_total{backend=\"dynamodb\",operation=\"put\"} 1",
            "acteon_state_consumed_units_total{backend=\"dynamodb\",operation=\"get\",unit=\"read\"} 0.5",
        ] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
        assert_eq!(capacity.total().requests, 2);
    }

    #[test]
    fn an_answer_that_names_the_sort_of_its_units_is_believed() {
        let capacity = Capacity::default();
        let both =
            ConsumedCapacity::builder().capacity_units(4.0).read_capacity_units(1.0).write_capacity_units(3.0).build();
        capacity.add(Operation::Transact, Access::Write, Some(&both));
        capacity.add(
            Operation::Transact,
            Access::Write,
            Some(&ConsumedCapacity::builder().capacity_units(f64::NAN).build()),
        );
        assert_eq!(capacity.total(), Consumed { requests: 2, read_units: 1.0, write_units: 3.0 });
    }
}
