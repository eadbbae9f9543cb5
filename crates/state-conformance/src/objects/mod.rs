//! Specifications of the objects whose histories are recorded: a register with conditional writes, a bounded counter, a lock, an
//! item of a due queue.
//!
//! Each also says what a call does that nobody saw the end of, and what may be over when time passes ([`Lifetime`]).

mod counter;
mod due;
mod lifetime;
mod lock;
mod register;

pub use counter::{BoundedCounter, Count, CounterOperation, CounterReply};
pub use due::{DueItem, DueOperation, DueReply, Queued};
pub use lifetime::{ClockStep, Lifetime, StepDirection, Uncertainty};
pub use lock::{Holder, Lock, LockOperation, LockRecord, LockReply, Loss, Mode};
pub use register::{Held, If, Register, RegisterOperation, RegisterReply, Write, WriteTtl};

#[cfg(test)]
mod tests {
    use super::{
        BoundedCounter, ClockStep, CounterOperation, CounterReply, DueItem, DueOperation, DueReply, If, Lock,
        LockOperation, LockReply, Loss, Mode, Register, RegisterOperation, RegisterReply, StepDirection, Uncertainty,
        Write, WriteTtl,
    };
    use crate::history::Call;
    use crate::linearizability::{Budget, Judgement, Specification, check, check_within};

    fn call<O, R>(began: u64, ended: u64, operation: O, reply: R) -> Call<O, R> {
        Call::answered(began, ended, operation, reply)
    }

    fn accepts<S: Specification>(specification: &S, mut calls: Vec<Call<S::Operation, S::Reply>>) -> bool {
        calls.sort_by_key(|call| call.began);
        check(specification, &calls).is_ok()
    }

    use CounterReply::Applied;
    use LockOperation::Release;
    use LockReply::{Busy, Granted, Lost, Released};
    use RegisterOperation::{Get, Take};
    use RegisterReply::{Found, Refused, Written};

    const MS: u64 = 1_000_000;
    const REGISTER: Register =
        Register { uncertainty: super::Uncertainty { early_ns: 0, late_ns: 2 * MS, step: None } };

    fn set(value: u32) -> RegisterOperation {
        RegisterOperation::set(value)
    }

    fn add(step: i64) -> CounterOperation {
        CounterOperation::Add { step, id: 0 }
    }

    fn acquire(owner: u32) -> LockOperation {
        LockOperation::acquire(owner)
    }

    #[test]
    fn an_empty_history_is_explained() {
        assert!(accepts(&REGISTER, vec![]));
    }

    #[test]
    fn a_read_after_a_write_that_misses_it_is_found() {
        assert!(!accepts(&REGISTER, vec![call(0, 1, set(1), Written), call(2, 3, Get, Found(None))]));
        // While the write is under way, either answer is right.
        for seen in [None, Some(1)] {
            assert!(accepts(&REGISTER, vec![call(0, 3, set(1), Written), call(1, 2, Get, Found(seen))]));
        }
    }

    #[test]
    fn a_value_that_goes_back_in_time_is_found() {
        let reads = |first, second| {
            vec![call(0, 10, set(1), Written), call(1, 2, Get, Found(first)), call(3, 4, Get, Found(second))]
        };
        assert!(accepts(&REGISTER, reads(None, Some(1))));
        assert!(!accepts(&REGISTER, reads(Some(1), None)));
    }

    #[test]
    fn two_winners_of_one_condition_are_found() {
        let both = vec![
            call(0, 3, RegisterOperation::set_absent(1), Written),
            call(1, 2, RegisterOperation::set_absent(2), Written),
        ];
        assert!(!accepts(&REGISTER, both));
        let swaps = vec![
            call(0, 1, set(1), Written),
            call(2, 5, RegisterOperation::swap(1, 2), Written),
            call(3, 4, RegisterOperation::swap(1, 3), Written),
        ];
        assert!(!accepts(&REGISTER, swaps));
        let one = vec![
            call(0, 1, set(1), Written),
            call(2, 5, RegisterOperation::swap(1, 2), Written),
            call(3, 4, RegisterOperation::swap(1, 3), Refused(Some(2))),
        ];
        assert!(accepts(&REGISTER, one));
    }

    #[test]
    fn an_entry_taken_twice_is_found() {
        let takes = |second| {
            vec![call(0, 1, set(1), Written), call(2, 5, Take, Found(Some(1))), call(3, 4, Take, Found(second))]
        };
        assert!(accepts(&REGISTER, takes(None)));
        assert!(!accepts(&REGISTER, takes(Some(1))));
    }

    #[test]
    fn a_lost_update_of_a_counter_is_found() {
        let counter = BoundedCounter::at_most(2);
        assert!(accepts(&counter, vec![call(0, 2, add(1), Applied(2)), call(1, 3, add(1), Applied(1))]));
        assert!(!accepts(&counter, vec![call(0, 2, add(1), Applied(1)), call(1, 3, add(1), Applied(1))]));
        // The order is known here, and it is the other one.
        assert!(!accepts(&counter, vec![call(0, 1, add(1), Applied(2)), call(2, 3, add(1), Applied(1))]));
        let full = |third| vec![call(0, 1, add(2), Applied(2)), call(2, 3, add(1), third)];
        assert!(accepts(&counter, full(CounterReply::Refused(2))));
        assert!(!accepts(&counter, full(Applied(3))));
    }

    #[test]
    fn a_lock_granted_twice_is_found() {
        let twice = vec![call(0, 3, acquire(1), Granted(1)), call(1, 2, acquire(2), Granted(2))];
        assert!(!accepts(&Lock::default(), twice));
        let in_turn = vec![
            call(0, 1, acquire(1), Granted(1)),
            call(2, 5, Release(1), Released),
            call(3, 4, acquire(2), Granted(2)),
        ];
        assert!(accepts(&Lock::default(), in_turn));
        let never_held = vec![call(0, 1, acquire(1), Busy)];
        assert!(!accepts(&Lock::default(), never_held));
    }

    #[test]
    fn a_token_that_falls_is_found() {
        let tokens = |second| {
            vec![
                call(0, 1, acquire(1), Granted(5)),
                call(2, 3, Release(1), Released),
                call(4, 5, acquire(2), Granted(second)),
            ]
        };
        assert!(accepts(&Lock::default(), tokens(6)));
        assert!(!accepts(&Lock::default(), tokens(5)));
        assert!(!accepts(&Lock::default(), tokens(4)));
    }

    #[test]
    fn many_overlapping_calls_are_checked_quickly_and_the_failure_is_told() {
        let mut calls: Vec<_> = (0..200).map(|at| call(at, at + 12, add(1), Applied(at as i64 + 1))).collect();
        let counter = BoundedCounter::default();
        assert!(check(&counter, &calls).is_ok());
        calls[150].reply = Some(Applied(150));
        let failure = check(&counter, &calls).unwrap_err();
        assert_eq!(failure.explained.len(), 150);
        assert!(failure.to_string().contains("none of these can come next"), "{failure}");
    }

    #[test]
    fn a_write_that_nobody_saw_end_may_come_late_or_never_but_only_once() {
        let history = |reads: &[Option<u32>]| {
            let reads = reads.iter().zip(1_u64..).map(|(read, at)| call(at * 10, at * 10 + 1, Get, Found(*read)));
            let mut calls = vec![call(0, 1, set(1), Written), Call::maybe(2, set(2))];
            calls.extend(reads);
            calls
        };
        for reads in [&[Some(1), Some(1)][..], &[Some(1), Some(2)], &[Some(2), Some(2)]] {
            assert!(accepts(&REGISTER, history(reads)), "{reads:?}");
        }
        assert!(!accepts(&REGISTER, history(&[Some(2), Some(1)])));
        assert!(!accepts(&REGISTER, history(&[Some(1), None])));
    }

    #[test]
    fn increments_that_nobody_saw_end_are_tried_by_number_not_one_by_one() {
        // 40 of them: trying each subset would not end.
        let mut calls: Vec<_> =
            (0..40).map(|at| Call::maybe(at, CounterOperation::Add { step: 1, id: at as u32 })).collect();
        let counter = BoundedCounter::default();
        calls.push(call(100, 101, CounterOperation::Add { step: 1, id: 100 }, Applied(41)));
        assert!(accepts(&counter, calls.clone()));
        calls.last_mut().unwrap().reply = Some(Applied(42));
        assert!(!accepts(&counter, calls));
    }

    #[test]
    fn an_operation_that_was_sent_again_counts_once() {
        let twice = |second| {
            let add = CounterOperation::Add { step: 1, id: 7 };
            let calls =
                vec![Call::maybe(0, add), call(1, 2, add, Applied(1)), call(3, 4, CounterOperation::Get, second)];
            accepts(&BoundedCounter::default().repeated_in(&calls), calls)
        };
        assert!(twice(CounterReply::Found(Some(1))));
        assert!(!twice(CounterReply::Found(Some(2))));
    }

    #[test]
    fn a_value_ends_within_the_uncertainty_of_its_time_to_live_and_not_before() {
        let write = Write { value: 1, when: If::Always, ttl: WriteTtl::AfterNs(100 * MS) };
        let read_at = |at_ms: u64, found| {
            let read = call(at_ms * MS, at_ms * MS + 1, Get, Found(found));
            accepts(&REGISTER, vec![call(0, 10 * MS, RegisterOperation::Put(write), Written), read])
        };
        assert!(read_at(99, Some(1)) && !read_at(99, None));
        assert!(read_at(105, Some(1)) && read_at(105, None));
        assert!(!read_at(113, Some(1)) && read_at(113, None));
    }

    #[test]
    fn a_value_that_is_back_after_it_was_seen_to_be_over_is_found() {
        let write = Write { value: 1, when: If::Always, ttl: WriteTtl::AfterNs(100 * MS) };
        let back = |second| {
            accepts(
                &REGISTER,
                vec![
                    call(0, 10 * MS, RegisterOperation::Put(write), Written),
                    call(101 * MS, 102 * MS, Get, Found(None)),
                    call(103 * MS, 104 * MS, Get, Found(second)),
                ],
            )
        };
        assert!(back(None));
        assert!(!back(Some(1)));
    }

    /// A clock that is set somewhere between 50 and 60 ms, by 30 ms, under values that live for 100 ms.
    fn under_a_step(direction: StepDirection) -> Register {
        let step = ClockStep { from: 50 * MS, until: 60 * MS, by_ns: 30 * MS, direction };
        Register { uncertainty: Uncertainty { step: Some(step), ..REGISTER.uncertainty } }
    }

    #[test]
    fn a_value_ends_early_only_by_as_much_as_the_clock_was_set_forward_and_not_before_that() {
        let write = |ttl_ms| Write { value: 1, when: If::Always, ttl: WriteTtl::AfterNs(ttl_ms * MS) };
        let is_over = |written_at: u64, ttl_ms, read_at: u64| {
            let put = RegisterOperation::Put(write(ttl_ms));
            let written = call(written_at * MS, written_at * MS + 1, put, Written);
            let read = call(read_at * MS, read_at * MS + 1, Get, Found(None));
            accepts(&under_a_step(StepDirection::Forward), vec![written, read])
        };
        assert!(is_over(0, 100, 70) && !is_over(0, 100, 69), "by the step and no more");
        assert!(is_over(0, 60, 50) && !is_over(0, 60, 49), "not before the step");
        assert!(!is_over(61, 100, 150) && is_over(61, 100, 161), "not what was written after it");
        let is_there = |read_at: u64| {
            let read = call(read_at * MS, read_at * MS + 1, Get, Found(Some(1)));
            let written = call(0, 1, RegisterOperation::Put(write(100)), Written);
            accepts(&under_a_step(StepDirection::Forward), vec![written, read])
        };
        assert!(is_there(102) && !is_there(103), "nothing ends late");
    }

    #[test]
    fn a_value_lasts_longer_or_returns_only_by_a_clock_that_is_set_back() {
        let put = RegisterOperation::Put(Write { value: 1, when: If::Always, ttl: WriteTtl::AfterNs(55 * MS) });
        let reads = |written_at: u64, reads: &[(u64, Option<u32>)]| {
            let written = call(written_at * MS, written_at * MS + 1, put, Written);
            let read = |(at, found): &(u64, _)| call(at * MS, at * MS + 1, Get, Found(*found));
            let calls = std::iter::once(written).chain(reads.iter().map(read)).collect();
            accepts(&under_a_step(StepDirection::Back), calls)
        };
        assert!(reads(0, &[(87, Some(1))]) && !reads(0, &[(88, Some(1))]), "by the step and no more");
        assert!(reads(0, &[(56, None), (58, Some(1))]), "the clock was set in between");
        assert!(!reads(0, &[(62, None), (63, Some(1))]), "it was set before");
        assert!(!reads(61, &[(119, Some(1))]), "not what was written after it");
        let ended_before = |at: u64| {
            let put = RegisterOperation::Put(Write { value: 1, when: If::Always, ttl: WriteTtl::AfterNs(40 * MS) });
            let calls = vec![call(0, 1, put, Written), call(at * MS, at * MS + 1, Get, Found(Some(1)))];
            accepts(&under_a_step(StepDirection::Back), calls)
        };
        assert!(
            !ended_before(49) && ended_before(50) && ended_before(72) && !ended_before(73),
            "back by the step and no more"
        );
        assert!(!reads(0, &[(54, None)]), "nothing ends early");
    }

    #[test]
    fn a_write_under_a_lower_token_is_found() {
        let fenced = |token| {
            let first = call(0, 1, RegisterOperation::fenced(5, 1), Written);
            accepts(&REGISTER, vec![first, call(2, 3, RegisterOperation::fenced(token, 2), Written)])
        };
        assert!(fenced(5) && fenced(6));
        assert!(!fenced(4));
    }

    #[test]
    fn a_lease_that_may_be_over_may_be_taken_over_and_one_that_lasts_may_not() {
        let lock = Lock::default();
        let first = || {
            let acquire = LockOperation::Acquire { owner: 1, mode: Mode::Exclusive, lease_ns: 50 * MS };
            call(0, MS, acquire, Granted(1))
        };
        let second = |at_ms: u64| call(at_ms * MS, at_ms * MS + 1, acquire(2), Granted(2));
        assert!(!accepts(&lock, vec![first(), second(40)]));
        assert!(accepts(&lock, vec![first(), second(51)]));
        let release = |at_ms: u64, reply| call(at_ms * MS, at_ms * MS + 1, Release(1), reply);
        assert!(accepts(&lock, vec![first(), second(51), release(52, Lost)]));
        assert!(!accepts(&lock, vec![first(), second(51), release(52, Released)]));
        let lossy = Lock { losses: vec![Loss { from: 30 * MS, until: 35 * MS }], ..Lock::default() };
        assert!(accepts(&lossy, vec![first(), second(40)]));
        assert!(!accepts(&lossy, vec![first(), second(20)]));
    }

    #[test]
    fn an_item_that_is_handed_out_while_it_is_claimed_is_found() {
        let item = DueItem::default();
        let claim = |at_ms: u64, token, attempt| {
            let claim = DueOperation::Claim { visibility_ns: 50 * MS, token: Some(token) };
            call(at_ms * MS, at_ms * MS + 1, claim, DueReply::Handed { attempt })
        };
        let schedule = || call(0, 1, DueOperation::Schedule { after_ns: 0 }, DueReply::Scheduled(true));
        let ack = |at_ms: u64, token, reply| call(at_ms * MS, at_ms * MS + 1, DueOperation::Ack(token), reply);
        assert!(accepts(&item, vec![schedule(), claim(1, 1, 1), claim(60, 2, 2), ack(61, 2, DueReply::Done)]));
        assert!(!accepts(&item, vec![schedule(), claim(1, 1, 1), claim(40, 2, 2)]));
        assert!(!accepts(&item, vec![schedule(), claim(1, 1, 1), claim(60, 2, 2), ack(61, 1, DueReply::Done)]));
        assert!(!accepts(&item, vec![schedule(), claim(1, 1, 1), ack(2, 1, DueReply::Done), claim(60, 2, 1)]));
        // Nobody holds it, and a claim with room for more does not hand it out.
        let passed = DueOperation::Claim { visibility_ns: 50 * MS, token: None };
        assert!(!accepts(&item, vec![schedule(), call(9 * MS, 9 * MS + 1, passed, DueReply::Passed)]));
    }

    #[test]
    fn a_search_beyond_its_budget_is_undecided() {
        let calls: Vec<_> = (0..12).map(|value| call(value, 100, set(value as u32), Written)).collect();
        let lost = call(101, 102, Get, Found(None));
        let calls: Vec<_> = calls.into_iter().chain([lost]).collect();
        assert_eq!(check_within(&REGISTER, &calls, Budget { configurations: 100 }), Judgement::Undecided);
        assert!(matches!(check_within(&REGISTER, &calls, Budget::UNLIMITED), Judgement::NotLinearizable(_)));
    }

    #[test]
    fn thousands_of_calls_on_one_object_are_checked() {
        // Six tasks whose calls overlap, and one call that lasts throughout.
        let mut calls: Vec<_> = (0..20_000).map(|at| call(at, at + 6, add(1), Applied(at as i64 + 1))).collect();
        calls.push(call(5, 30_000, CounterOperation::Get, CounterReply::Found(Some(19_000))));
        assert!(accepts(&BoundedCounter::default(), calls));
    }
}
