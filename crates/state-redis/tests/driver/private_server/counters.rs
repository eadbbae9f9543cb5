//! The arithmetic of the scripts is the contract's arithmetic, also where a Lua number is not exact.

use acteon_state_core::counter::Step;
use acteon_state_core::{
    AtBound, BatchOp, BatchReply, Condition, ErrorKind, Get, Increment, IncrementOutcome, StateStore,
};

use super::{connect, key, server};

/// Numbers around every border: zero, the digits' count, 2^53, and the ends of the range.
const CORNERS: [i64; 17] = [
    i64::MIN,
    i64::MIN + 1,
    -9_007_199_254_740_993,
    -9_007_199_254_740_992,
    -100,
    -10,
    -9,
    -1,
    0,
    1,
    9,
    10,
    100,
    9_007_199_254_740_992,
    9_007_199_254_740_993,
    i64::MAX - 1,
    i64::MAX,
];

#[tokio::test]
async fn every_step_equals_the_contracts() {
    let server = server();
    let store = connect(&server).await;
    for current in CORNERS {
        for delta in CORNERS {
            for bound in [None, Some(i64::MIN), Some(-10), Some(0), Some(9_007_199_254_740_993), Some(i64::MAX)] {
                for at_bound in [AtBound::Refuse, AtBound::Clamp] {
                    let increment = Increment { min: bound, max: bound, at_bound, ..Increment::by(delta) };
                    let reply = step(&store, current, increment).await;
                    let expected = increment.step(current);
                    assert_eq!(reply, expected, "{current} + {increment:?}");
                }
            }
        }
    }
}

/// What the store makes of one step; checks that it also stored it.
async fn step(store: &acteon_state_redis::RedisStore, current: i64, increment: Increment) -> Step {
    let key = key("step");
    let ops = [
        BatchOp::Increment(key.clone(), Increment::by(current)),
        BatchOp::Increment(key.clone(), increment),
        BatchOp::Get(key.clone(), Get::default()),
        BatchOp::Delete(key, Condition::Always),
    ];
    let replies = store.batch(&ops).await.unwrap();
    let Ok(BatchReply::Got(Some(entry))) = &replies[2] else { panic!("{replies:?}") };
    let stored: i64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
    match &replies[1] {
        Ok(BatchReply::Incremented(outcome)) => {
            assert_eq!(outcome.counter().value, stored);
            match outcome {
                IncrementOutcome::Applied(_) => Step::Applied(stored),
                IncrementOutcome::Clamped(_) => Step::Clamped(stored),
                IncrementOutcome::Refused(_) => {
                    assert_eq!(stored, current);
                    Step::Refused
                }
            }
        }
        Err(error) if error.kind() == ErrorKind::Overflow => {
            assert_eq!(stored, current);
            Step::Overflow
        }
        other => panic!("{other:?}"),
    }
}
