//! Specifications of the objects whose histories the cases record: a register with conditional writes, a bounded counter, a lock.

use crate::linearizability::Specification;

/// A value that is read, written, compared and deleted. Values are numbers, each written once, and name their own version.
#[derive(Clone, Copy, Debug, Default)]
pub struct Register;

/// What a register can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterOperation {
    /// Read.
    Get,
    /// Write this.
    Set(u32),
    /// Write this if there is nothing.
    SetAbsent(u32),
    /// Write the second if the first is there.
    Swap(u32, u32),
    /// Delete.
    Delete,
    /// Read and delete.
    Take,
}

/// What a register answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterReply {
    /// To `Get` and `Take`: what was there.
    Found(Option<u32>),
    /// To a write: it was made.
    Written,
    /// To a write: its condition did not hold; what was there.
    Refused(Option<u32>),
    /// To a delete: whether something was there.
    Deleted(bool),
}

impl Specification for Register {
    type Operation = RegisterOperation;
    type Reply = RegisterReply;
    type State = Option<u32>;

    fn start(&self) -> Option<u32> {
        None
    }

    fn step(&self, state: &Option<u32>, operation: &RegisterOperation, reply: &RegisterReply) -> Option<Option<u32>> {
        use RegisterOperation::{Delete, Get, Set, SetAbsent, Swap, Take};
        use RegisterReply::{Deleted, Found, Refused, Written};
        let (after, expected) = match *operation {
            Get => (*state, Found(*state)),
            Take => (None, Found(*state)),
            Delete => (None, Deleted(state.is_some())),
            Set(value) => (Some(value), Written),
            SetAbsent(value) if state.is_none() => (Some(value), Written),
            Swap(old, new) if *state == Some(old) => (Some(new), Written),
            SetAbsent(_) | Swap(..) => (*state, Refused(*state)),
        };
        (*reply == expected).then_some(after)
    }
}

/// A counter with an upper bound.
#[derive(Clone, Copy, Debug)]
pub struct BoundedCounter {
    /// Steps that would lead above this are refused.
    pub max: i64,
}

/// What a counter answers to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterReply {
    /// The step was made; the counter afterwards.
    Applied(i64),
    /// The step was refused; the counter.
    Refused(i64),
}

impl Specification for BoundedCounter {
    /// The step.
    type Operation = i64;
    type Reply = CounterReply;
    type State = i64;

    fn start(&self) -> i64 {
        0
    }

    fn step(&self, state: &i64, step: &i64, reply: &CounterReply) -> Option<i64> {
        let after = state + step;
        let expected =
            if *step > 0 && after > self.max { CounterReply::Refused(*state) } else { CounterReply::Applied(after) };
        let after = if let CounterReply::Applied(after) = expected { after } else { *state };
        (*reply == expected).then_some(after)
    }
}

/// An exclusive lock whose leases do not end by themselves while the history lasts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lock;

/// What a lock can be asked; owners are numbers, each used for one acquisition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockOperation {
    /// Grant it to this owner, without waiting.
    Acquire(u32),
    /// Take it back from this owner.
    Release(u32),
}

/// What a lock answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockReply {
    /// Granted, with this token.
    Granted(u64),
    /// Somebody else holds it.
    Busy,
    /// It was released.
    Released,
    /// It was not held by this owner.
    Lost,
}

impl Specification for Lock {
    type Operation = LockOperation;
    type Reply = LockReply;
    /// The owner, and the last token.
    type State = (Option<u32>, u64);

    fn start(&self) -> Self::State {
        (None, 0)
    }

    fn step(&self, state: &Self::State, operation: &LockOperation, reply: &LockReply) -> Option<Self::State> {
        let (holder, last_token) = *state;
        match (*operation, *reply) {
            (LockOperation::Acquire(owner), LockReply::Granted(token)) if holder.is_none() && token > last_token => {
                Some((Some(owner), token))
            }
            (LockOperation::Acquire(owner), LockReply::Busy) if holder.is_some_and(|holder| holder != owner) => {
                Some(*state)
            }
            (LockOperation::Release(owner), LockReply::Released) if holder == Some(owner) => Some((None, last_token)),
            (LockOperation::Release(owner), LockReply::Lost) if holder != Some(owner) => Some(*state),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        BoundedCounter, CounterReply, Lock, LockOperation, LockReply, Register, RegisterOperation, RegisterReply,
    };
    use crate::history::Call;
    use crate::linearizability::{Specification, check};

    fn call<O, R>(began: u64, ended: u64, operation: O, reply: R) -> Call<O, R> {
        Call { operation, reply, began, ended }
    }

    fn accepts<S: Specification>(specification: &S, mut calls: Vec<Call<S::Operation, S::Reply>>) -> bool {
        calls.sort_by_key(|call| call.began);
        check(specification, &calls).is_ok()
    }

    use LockOperation::{Acquire, Release};
    use LockReply::{Busy, Granted, Released};
    use RegisterOperation::{Get, Set, SetAbsent, Swap, Take};
    use RegisterReply::{Found, Refused, Written};

    #[test]
    fn an_empty_history_is_explained() {
        assert!(accepts(&Register, vec![]));
    }

    #[test]
    fn a_read_after_a_write_that_misses_it_is_found() {
        assert!(!accepts(&Register, vec![call(0, 1, Set(1), Written), call(2, 3, Get, Found(None))]));
        // While the write is under way, either answer is right.
        for seen in [None, Some(1)] {
            assert!(accepts(&Register, vec![call(0, 3, Set(1), Written), call(1, 2, Get, Found(seen))]));
        }
    }

    #[test]
    fn a_value_that_goes_back_in_time_is_found() {
        let reads = |first, second| {
            vec![call(0, 10, Set(1), Written), call(1, 2, Get, Found(first)), call(3, 4, Get, Found(second))]
        };
        assert!(accepts(&Register, reads(None, Some(1))));
        assert!(!accepts(&Register, reads(Some(1), None)));
    }

    #[test]
    fn two_winners_of_one_condition_are_found() {
        let both = vec![call(0, 3, SetAbsent(1), Written), call(1, 2, SetAbsent(2), Written)];
        assert!(!accepts(&Register, both));
        let swaps = vec![call(0, 1, Set(1), Written), call(2, 5, Swap(1, 2), Written), call(3, 4, Swap(1, 3), Written)];
        assert!(!accepts(&Register, swaps));
        let one = vec![
            call(0, 1, Set(1), Written),
            call(2, 5, Swap(1, 2), Written),
            call(3, 4, Swap(1, 3), Refused(Some(2))),
        ];
        assert!(accepts(&Register, one));
    }

    #[test]
    fn an_entry_taken_twice_is_found() {
        let takes = |second| {
            vec![call(0, 1, Set(1), Written), call(2, 5, Take, Found(Some(1))), call(3, 4, Take, Found(second))]
        };
        assert!(accepts(&Register, takes(None)));
        assert!(!accepts(&Register, takes(Some(1))));
    }

    #[test]
    fn a_lost_update_of_a_counter_is_found() {
        use CounterReply::{Applied, Refused};
        let counter = BoundedCounter { max: 2 };
        assert!(accepts(&counter, vec![call(0, 2, 1, Applied(2)), call(1, 3, 1, Applied(1))]));
        assert!(!accepts(&counter, vec![call(0, 2, 1, Applied(1)), call(1, 3, 1, Applied(1))]));
        // The order is known here, and it is the other one.
        assert!(!accepts(&counter, vec![call(0, 1, 1, Applied(2)), call(2, 3, 1, Applied(1))]));
        let full = |third| vec![call(0, 1, 2, Applied(2)), call(2, 3, 1, third)];
        assert!(accepts(&counter, full(Refused(2))));
        assert!(!accepts(&counter, full(Applied(3))));
    }

    #[test]
    fn a_lock_granted_twice_is_found() {
        let twice = vec![call(0, 3, Acquire(1), Granted(1)), call(1, 2, Acquire(2), Granted(2))];
        assert!(!accepts(&Lock, twice));
        let in_turn = vec![
            call(0, 1, Acquire(1), Granted(1)),
            call(2, 5, Release(1), Released),
            call(3, 4, Acquire(2), Granted(2)),
        ];
        assert!(accepts(&Lock, in_turn));
        let never_held = vec![call(0, 1, Acquire(1), Busy)];
        assert!(!accepts(&Lock, never_held));
    }

    #[test]
    fn a_token_that_falls_is_found() {
        let tokens = |second| {
            vec![
                call(0, 1, Acquire(1), Granted(5)),
                call(2, 3, Release(1), Released),
                call(4, 5, Acquire(2), Granted(second)),
            ]
        };
        assert!(accepts(&Lock, tokens(6)));
        assert!(!accepts(&Lock, tokens(5)));
        assert!(!accepts(&Lock, tokens(4)));
    }

    #[test]
    fn many_overlapping_calls_are_checked_quickly_and_the_failure_is_told() {
        let mut calls: Vec<_> = (0..200).map(|at| call(at, at + 12, 1, CounterReply::Applied(at as i64 + 1))).collect();
        let counter = BoundedCounter { max: i64::MAX };
        assert!(check(&counter, &calls).is_ok());
        calls[150].reply = CounterReply::Applied(150);
        let failure = check(&counter, &calls).unwrap_err();
        assert_eq!(failure.explained.len(), 150);
        assert!(failure.to_string().contains("none of these can come next"), "{failure}");
    }
}
