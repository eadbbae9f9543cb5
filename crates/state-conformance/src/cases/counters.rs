//! C1 to C3: counters are atomic, typed, windowed and bounded.

use std::time::Duration;

use acteon_state_core::{
    Condition, Counting, ErrorKind, FencingToken, Increment, IncrementOutcome, Put, StateKey, Ttl, Version,
};

use crate::case::{Case, Need, case};
use crate::lab::{CLOCK_GRAIN, LONG, Lab, PAST_SHORT, SHORT};
use crate::verdict::{Verdict, absent, applied, equal, holds, present, refused};

/// Concurrent callers.
const TASKS: usize = 64;
/// Steps of each.
const EACH: usize = 25;

async fn value_after(lab: &Lab, key: &StateKey, increment: Increment) -> Verdict<i64> {
    Ok(lab.a.increment(key, increment).await?.counter().value)
}

/// A counter begins at 0 and moves by any signed step.
async fn c1_counters_begin_at_zero(lab: Lab) -> Verdict {
    let key = lab.key("counter");
    for (delta, expected) in [(5, 5), (-7, -2), (0, -2), (1 << 40, (1 << 40) - 2)] {
        let outcome = lab.a.increment(&key, Increment::by(delta)).await?;
        holds(&key, "an unbounded step is applied", outcome.is_applied(), outcome)?;
        equal(&key, &format!("counter after {delta}"), &outcome.counter().value, &expected)?;
        equal(&key, "a counter without window does not reset", &outcome.counter().resets_after, &None)?;
    }
    Ok(())
}

/// A step of zero creates the counter.
async fn c1_step_of_zero_creates_the_counter(lab: Lab) -> Verdict {
    let key = lab.key("zero");
    equal(&key, "counter after a step of zero", &value_after(&lab, &key, Increment::by(0)).await?, &0)?;
    let entry = present(&key, "the counter", lab.read(&key).await?)?;
    equal(&key, "its text", &entry.value, &"0".into())
}

/// Both ends of the range are reached; a step beyond is `Overflow` and changes nothing.
async fn c1_overflow_is_an_error_and_changes_nothing(lab: Lab) -> Verdict {
    for (id, edge, beyond) in [("max", i64::MAX, 1), ("min", i64::MIN, -1)] {
        let key = lab.key(id);
        equal(&key, "counter at the end of its range", &value_after(&lab, &key, Increment::by(edge)).await?, &edge)?;
        for delta in [beyond, edge] {
            let outcome = lab.a.increment(&key, Increment::by(delta)).await;
            refused(&key, &format!("a step of {delta} beyond the range"), outcome, ErrorKind::Overflow)?;
            let entry = present(&key, "the counter after an overflow", lab.read(&key).await?)?;
            equal(&key, "its text", &entry.value, &edge.to_string().into())?;
        }
        equal(
            &key,
            "counter after a step back",
            &value_after(&lab, &key, Increment::by(-beyond)).await?,
            &(edge - beyond),
        )?;
    }
    Ok(())
}

/// Large numbers are exact: nothing passes through a floating-point number.
async fn c1_counters_are_exact_beyond_2_to_the_53(lab: Lab) -> Verdict {
    let key = lab.key("exact");
    let mut expected = (1_i64 << 53) + 1;
    equal(&key, "counter", &value_after(&lab, &key, Increment::by(expected)).await?, &expected)?;
    for increment in [
        Increment::by(1),
        Increment::by(1).at_most(i64::MAX - 1),
        Increment::by(-2).at_least(i64::MIN + 1),
        Increment::by(1).window(Counting::Refresh(LONG)),
    ] {
        expected += increment.delta;
        equal(&key, "counter", &value_after(&lab, &key, increment).await?, &expected)?;
    }
    let bound = (1_i64 << 53) + 3;
    let key = lab.key("bound");
    value_after(&lab, &key, Increment::by(bound - 1)).await?;
    let at = lab.a.increment(&key, Increment::by(1).at_most(bound)).await?;
    holds(&key, "a step to a large bound is applied", at.is_applied(), at)?;
    let above = lab.a.increment(&key, Increment::by(1).at_most(bound)).await?;
    holds(&key, "a step above a large bound is refused", matches!(above, IncrementOutcome::Refused(_)), above)
}

/// Concurrent increments are all counted, and each returns a value of its own.
async fn c1_concurrent_increments_are_all_counted(lab: Lab) -> Verdict {
    let key = lab.key("concurrent");
    let name = key.clone();
    let values = lab
        .together(TASKS, move |_, store| {
            let key = name.clone();
            async move {
                let mut values = Vec::new();
                for _ in 0..EACH {
                    values.push(store.increment(&key, Increment::by(1)).await?.counter().value);
                }
                Ok(values)
            }
        })
        .await?;
    let mut values = values.concat();
    values.sort_unstable();
    let expected: Vec<i64> = (1..=(TASKS * EACH) as i64).collect();
    equal(&key, "all values returned, sorted", &values, &expected)
}

/// A counter reads as its decimal text, without version.
async fn c1_get_returns_a_counter_as_decimal_text(lab: Lab) -> Verdict {
    let key = lab.key("text");
    for (delta, text) in [(0, "0"), (-1, "-1"), (i64::MIN + 1, "-9223372036854775808")] {
        lab.a.increment(&key, Increment::by(delta)).await?;
        let entry = present(&key, "the counter", lab.read(&key).await?)?;
        equal(&key, "text of the counter", &entry.value, &text.into())?;
        equal(&key, "version of a counter", &entry.version, &None)?;
        equal(&key, "fence of a counter", &entry.fence, &None)?;
    }
    Ok(())
}

/// An increment on a value is `WrongType`, whatever the value looks like.
async fn c1_increment_on_a_value_is_wrong_type(lab: Lab) -> Verdict {
    for (at, text) in ["text", "10", "", "-1", "9223372036854775808"].into_iter().enumerate() {
        let key = lab.key(&format!("value-{at}"));
        let put = lab.write(&key, text).await?;
        for increment in [Increment::by(1), Increment::by(1).at_most(5).clamped(), Increment::by(0)] {
            refused(&key, "increment on a value", lab.b.increment(&key, increment).await, ErrorKind::WrongType)?;
        }
        let entry = present(&key, "the value", lab.read(&key).await?)?;
        equal(&key, "value and version", &(entry.value, entry.version), &(text.into(), Some(put.version)))?;
    }
    Ok(())
}

/// Compare-and-swap and compare-and-delete on a counter are `WrongType`.
async fn c1_version_condition_on_a_counter_is_wrong_type(lab: Lab) -> Verdict {
    let key = lab.key("counter");
    lab.a.increment(&key, Increment::by(7)).await?;
    let swap = lab.b.put(&key, &Put::new("x").if_version(Version::draw())).await;
    refused(&key, "compare-and-swap on a counter", swap, ErrorKind::WrongType)?;
    let deleted = lab.b.delete(&key, Condition::Version(Version::draw())).await;
    refused(&key, "compare-and-delete on a counter", deleted, ErrorKind::WrongType)?;
    equal(&key, "the counter afterwards", &value_after(&lab, &key, Increment::by(0)).await?, &7)
}

/// A fence on a counter is `WrongType`.
async fn c1_fence_condition_on_a_counter_is_wrong_type(lab: Lab) -> Verdict {
    let key = lab.key("counter");
    lab.a.increment(&key, Increment::by(7)).await?;
    let token = FencingToken::new(1)?;
    let put = lab.b.put(&key, &Put::new("x").fenced_by(token)).await;
    refused(&key, "fenced write on a counter", put, ErrorKind::WrongType)?;
    equal(&key, "the counter afterwards", &value_after(&lab, &key, Increment::by(0)).await?, &7)
}

/// A plain put replaces a counter by a value; absent and present conditions see it.
async fn c1_plain_put_replaces_a_counter_by_a_value(lab: Lab) -> Verdict {
    let key = lab.key("replaced");
    lab.a.increment(&key, Increment::by(7)).await?;
    let blocked = lab.b.put(&key, &Put::new("x").if_absent()).await?;
    equal(&key, "put-if-absent over a counter is applied", &blocked.is_applied(), &false)?;
    let put = Put::new("8").when(Condition::Present);
    applied(&key, "put-if-present over a counter", lab.b.put(&key, &put).await?)?;
    let entry = present(&key, "the value", lab.read(&key).await?)?;
    equal(&key, "value and version", &(entry.value, entry.version), &("8".into(), Some(put.version)))?;
    refused(&key, "increment on it", lab.a.increment(&key, Increment::by(1)).await, ErrorKind::WrongType).map(|_| ())
}

/// A fixed window ends when it said it would, however many hits come.
async fn c2_fixed_window_is_not_extended_by_hits(lab: Lab) -> Verdict {
    let key = lab.key("window");
    let hit = Increment::by(1).window(Counting::OnCreate(LONG));
    let first = present(&key, "time to reset", lab.a.increment(&key, hit).await?.counter().resets_after)?;
    holds(&key, "a new window is about as long as asked for", first <= LONG && first + CLOCK_GRAIN >= LONG, first)?;
    lab.advance(SHORT).await;
    let second = lab.a.increment(&key, hit).await?.counter();
    equal(&key, "hits", &second.value, &2)?;
    let left = present(&key, "time to reset", second.resets_after)?;
    holds(&key, "a hit does not extend the window", left + SHORT <= first + CLOCK_GRAIN, (first, left))?;
    let other = Increment::by(1).window(Counting::OnCreate(2 * LONG));
    let left = present(&key, "time to reset", lab.a.increment(&key, other).await?.counter().resets_after)?;
    holds(&key, "a hit with a longer window does not extend it either", left <= LONG, left)
}

/// After its window a counter begins at 0, in a new window.
async fn c2_window_ends_and_begins_anew(lab: Lab) -> Verdict {
    let key = lab.key("anew");
    let hit = Increment::by(1).window(Counting::OnCreate(SHORT));
    for round in 0..3 {
        equal(&key, &format!("first hit of window {round}"), &value_after(&lab, &key, hit).await?, &1)?;
        lab.advance(PAST_SHORT).await;
        absent(&key, "a counter after its window", lab.read(&key).await?)?;
    }
    Ok(())
}

/// `Refresh` restarts the time with each hit.
async fn c2_refresh_restarts_the_window(lab: Lab) -> Verdict {
    let key = lab.key("refresh");
    let hit = Increment::by(1).window(Counting::Refresh(LONG));
    for round in 0..3 {
        let counter = lab.a.increment(&key, hit).await?.counter();
        let left = present(&key, "time to reset", counter.resets_after)?;
        holds(&key, &format!("hit {round} restarts the window"), left <= LONG && left + CLOCK_GRAIN >= LONG, left)?;
        lab.advance(SHORT).await;
    }
    let shorter = Increment::by(1).window(Counting::Refresh(SHORT));
    lab.a.increment(&key, shorter).await?;
    lab.advance(PAST_SHORT).await;
    absent(&key, "a counter after a shorter window replaced a longer one", lab.read(&key).await?)
}

/// A hit without window leaves the window of the counter alone, and gives none to a counter that has none.
async fn c2_hit_keeps_the_window_it_does_not_name(lab: Lab) -> Verdict {
    let key = lab.key("kept");
    lab.a.increment(&key, Increment::by(1).window(Counting::OnCreate(LONG))).await?;
    let counter = lab.a.increment(&key, Increment::by(1)).await?.counter();
    holds(&key, "a hit without window keeps the window", counter.resets_after.is_some(), counter)?;
    let key = lab.key("without");
    lab.a.increment(&key, Increment::by(1)).await?;
    let counter = lab.a.increment(&key, Increment::by(1).window(Counting::OnCreate(LONG))).await?.counter();
    equal(&key, "a window on creation is not given to an old counter", &counter.resets_after, &None)?;
    equal(&key, "touch finds a counter", &lab.a.touch(&key, Ttl::After(LONG)).await?, &true)?;
    let counter = lab.a.increment(&key, Increment::by(1)).await?.counter();
    holds(&key, "a window that touch gave is kept", counter.resets_after.is_some(), counter)
}

/// A window of zero and bounds that contradict each other are refused.
async fn c2_nonsense_is_invalid(lab: Lab) -> Verdict {
    let key = lab.key("nonsense");
    for increment in [
        Increment::by(1).window(Counting::OnCreate(Duration::ZERO)),
        Increment::by(1).window(Counting::Refresh(Duration::MAX)),
        Increment::by(1).at_least(2).at_most(1),
    ] {
        let what = format!("{increment:?}");
        refused(&key, &what, lab.a.increment(&key, increment).await, ErrorKind::Invalid)?;
    }
    absent(&key, "a counter after refused increments", lab.read(&key).await?)
}

/// A step that would cross a bound changes nothing, and says where the counter is and when it resets.
async fn c3_crossing_a_bound_is_refused(lab: Lab) -> Verdict {
    let key = lab.key("refused");
    let up = |delta| Increment::by(delta).at_most(10).window(Counting::OnCreate(LONG));
    let outcome = lab.a.increment(&key, up(11)).await?;
    holds(&key, "a first step above the bound is refused", matches!(outcome, IncrementOutcome::Refused(_)), outcome)?;
    equal(&key, "an absent counter reads", &outcome.counter().value, &0)?;
    absent(&key, "a counter after a refused first step", lab.read(&key).await?)?;
    equal(&key, "counter after a step to 8", &value_after(&lab, &key, up(8)).await?, &8)?;
    let outcome = lab.b.increment(&key, up(3)).await?;
    holds(&key, "a step from 8 to 11 is refused", matches!(outcome, IncrementOutcome::Refused(_)), outcome)?;
    equal(&key, "a refusal shows the counter", &outcome.counter().value, &8)?;
    let left = present(&key, "time to reset in a refusal", outcome.counter().resets_after)?;
    holds(&key, "time to reset in a refusal", left <= LONG, left)?;
    equal(&key, "counter after a step to the bound", &value_after(&lab, &key, up(2)).await?, &10)
}

/// Clamped on request: the counter moves to the bound and not beyond.
async fn c3_crossing_a_bound_is_clamped_on_request(lab: Lab) -> Verdict {
    let key = lab.key("clamped");
    lab.a.increment(&key, Increment::by(8)).await?;
    let up = lab.a.increment(&key, Increment::by(5).at_most(10).clamped()).await?;
    holds(&key, "a clamped step says so", matches!(up, IncrementOutcome::Clamped(_)), up)?;
    equal(&key, "counter after a step clamped at 10", &up.counter().value, &10)?;
    let down = lab.a.increment(&key, Increment::by(i64::MIN).at_least(0).clamped()).await?;
    equal(&key, "counter after a step clamped at 0", &down.counter().value, &0)?;
    let within = lab.a.increment(&key, Increment::by(10).at_most(10).clamped()).await?;
    holds(&key, "a step that fits is applied in full", within.is_applied(), within)?;
    let huge = lab.a.increment(&key, Increment::by(i64::MAX).at_most(20).clamped()).await?;
    equal(&key, "a bound comes before overflow", &huge.counter().value, &20)
}

/// A counter beyond a bound that was lowered may move towards it, but not away.
async fn c3_counter_beyond_a_lowered_bound_moves_towards_it(lab: Lab) -> Verdict {
    let key = lab.key("lowered");
    lab.a.increment(&key, Increment::by(20)).await?;
    let up = lab.a.increment(&key, Increment::by(1).at_most(10)).await?;
    holds(&key, "away from the bound is refused", matches!(up, IncrementOutcome::Refused(_)), up)?;
    let clamped = lab.a.increment(&key, Increment::by(1).at_most(10).clamped()).await?;
    equal(&key, "clamped away from the bound stays", &clamped.counter().value, &20)?;
    let down = lab.a.increment(&key, Increment::by(-5).at_most(10)).await?;
    holds(&key, "towards the bound is applied", down.is_applied(), down)?;
    equal(&key, "counter", &down.counter().value, &15)
}

/// Concurrent bounded increments never exceed the bound, and reach it exactly.
async fn c3_concurrent_bounded_increments_stop_at_the_bound(lab: Lab) -> Verdict {
    const BOUND: i64 = 100;
    let key = lab.key("bounded");
    let name = key.clone();
    let outcomes = lab
        .together(TASKS, move |_, store| {
            let key = name.clone();
            async move {
                let mut outcomes = Vec::new();
                for _ in 0..EACH {
                    outcomes.push(store.increment(&key, Increment::by(1).at_most(BOUND)).await?);
                }
                Ok(outcomes)
            }
        })
        .await?
        .concat();
    let above: Vec<_> = outcomes.iter().filter(|outcome| outcome.counter().value > BOUND).collect();
    equal(&key, "replies above the bound", &above, &vec![])?;
    let applied = outcomes.iter().filter(|outcome| outcome.is_applied()).count();
    equal(&key, "applied steps", &applied, &(BOUND as usize))?;
    equal(&key, "counter in the end", &value_after(&lab, &key, Increment::by(0)).await?, &BOUND)
}

/// A stock that many draw from never falls below zero, and no unit is drawn twice or lost.
async fn c3_concurrent_draws_never_oversell(lab: Lab) -> Verdict {
    let key = lab.key("stock");
    lab.a.increment(&key, Increment::by(100)).await?;
    let name = key.clone();
    let drawn = lab
        .together(TASKS, move |task, store| {
            let key = name.clone();
            let draw = task as i64 % 3 + 1;
            async move {
                let mut drawn = 0;
                while store.increment(&key, Increment::by(-draw).at_least(0)).await?.is_applied() {
                    drawn += draw;
                }
                Ok(drawn)
            }
        })
        .await?;
    let left = value_after(&lab, &key, Increment::by(0)).await?;
    equal(&key, "drawn and left", &(drawn.iter().sum::<i64>() + left), &100)?;
    equal(&key, "left, since draws of one went on until refused", &left, &0)
}

pub(crate) const CASES: &[Case] = &[
    case!("C1", c1_counters_begin_at_zero, [Need::Has("counters")]),
    case!("C1", c1_step_of_zero_creates_the_counter, [Need::Has("counters")]),
    case!("C1", c1_overflow_is_an_error_and_changes_nothing, [Need::Has("counters")]),
    case!("C1", c1_counters_are_exact_beyond_2_to_the_53, [Need::Has("counters")]),
    case!("C1", c1_concurrent_increments_are_all_counted, [Need::Has("counters")]),
    case!("C1", c1_get_returns_a_counter_as_decimal_text, [Need::Has("counters")]),
    case!("C1", c1_increment_on_a_value_is_wrong_type, [Need::Has("counters")]),
    case!("C1", c1_version_condition_on_a_counter_is_wrong_type, [Need::Has("counters"), Need::Has("cas")]),
    case!("C1", c1_fence_condition_on_a_counter_is_wrong_type, [Need::Has("counters"), Need::Has("fencing")]),
    case!("C1", c1_plain_put_replaces_a_counter_by_a_value, [Need::Has("counters")]),
    case!("C2", c2_fixed_window_is_not_extended_by_hits, [Need::Has("counters")]),
    case!("C2", c2_window_ends_and_begins_anew, [Need::Has("counters")]),
    case!("C2", c2_refresh_restarts_the_window, [Need::Has("counters")]),
    case!("C2", c2_hit_keeps_the_window_it_does_not_name, [Need::Has("counters")]),
    case!("C2", c2_nonsense_is_invalid, [Need::Has("counters")]),
    case!("C3", c3_crossing_a_bound_is_refused, [Need::Has("counters")]),
    case!("C3", c3_crossing_a_bound_is_clamped_on_request, [Need::Has("counters")]),
    case!("C3", c3_counter_beyond_a_lowered_bound_moves_towards_it, [Need::Has("counters")]),
    case!("C3", c3_concurrent_bounded_increments_stop_at_the_bound, [Need::Has("counters")]),
    case!("C3", c3_concurrent_draws_never_oversell, [Need::Has("counters")]),
];
