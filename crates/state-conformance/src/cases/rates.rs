//! C4: rate limits decide in one atomic step, and the decision says what a caller needs to answer with.

use std::time::Duration;

use acteon_state_core::{Decision, ErrorKind, Increment, Put, RateAlgorithm, RateLimit, StateKey};

use crate::case::{Case, Need, case};
use crate::lab::{CLOCK_GRAIN, LONG, Lab, PAST_SHORT, SHORT};
use crate::verdict::{Verdict, absent, equal, holds, present, refused};

const LIMIT: u64 = 5;
const ALGORITHMS: [RateAlgorithm; 3] =
    [RateAlgorithm::FixedWindow, RateAlgorithm::SlidingWindow, RateAlgorithm::Gcra { burst: LIMIT }];

async fn ask(lab: &Lab, key: &StateKey, algorithm: RateAlgorithm, window: Duration) -> Verdict<Decision> {
    Ok(lab.a.rate_limit(key, &RateLimit::new(algorithm, LIMIT, window)).await?)
}

/// Each algorithm allows exactly its limit at once, counts `remaining` down, and then refuses.
async fn c4_limit_is_exact_and_remaining_counts_down(lab: Lab) -> Verdict {
    for algorithm in ALGORITHMS {
        let key = lab.key("exact");
        for request in 1..=LIMIT {
            let decision = ask(&lab, &key, algorithm, LONG).await?;
            let about = format!("{key} {algorithm:?}, request {request}");
            equal(&about, "allowed", &decision.allowed, &true)?;
            equal(&about, "limit", &decision.limit, &LIMIT)?;
            equal(&about, "remaining", &decision.remaining, &(LIMIT - request))?;
            equal(&about, "retry_after of an allowed request", &decision.retry_after, &None)?;
        }
        for _ in 0..3 {
            let decision = ask(&lab, &key, algorithm, LONG).await?;
            let about = format!("{key} {algorithm:?}, request above the limit");
            equal(&about, "allowed", &decision.allowed, &false)?;
            equal(&about, "remaining", &decision.remaining, &0)?;
        }
    }
    Ok(())
}

/// `reset_after` is when all is available again, `retry_after` when this request would be allowed.
async fn c4_decisions_tell_when_to_come_back(lab: Lab) -> Verdict {
    let slack = Duration::from_secs(60);
    for algorithm in ALGORITHMS {
        let key = lab.key("when");
        let about = format!("{key} {algorithm:?}");
        let first = ask(&lab, &key, algorithm, LONG).await?;
        let one = if matches!(algorithm, RateAlgorithm::Gcra { .. }) { LONG / 5 } else { LONG };
        let as_long = |got: Duration, expected: Duration| got <= expected + CLOCK_GRAIN && got + slack >= expected;
        holds(&about, "reset_after one request", as_long(first.reset_after, one), first)?;
        for _ in 1..LIMIT {
            ask(&lab, &key, algorithm, LONG).await?;
        }
        let refused = ask(&lab, &key, algorithm, LONG).await?;
        holds(&about, "reset_after the limit", as_long(refused.reset_after, LONG), refused)?;
        let retry_after = present(&about, "retry_after of a refusal", refused.retry_after)?;
        holds(&about, "retry_after a refusal", as_long(retry_after, one), refused)?;
    }
    Ok(())
}

/// After `retry_after` the same request is allowed.
async fn c4_request_is_allowed_after_retry_after(lab: Lab) -> Verdict {
    let window = 4 * SHORT;
    for algorithm in ALGORITHMS {
        let key = lab.key("later");
        let about = format!("{key} {algorithm:?}");
        // On a slow machine the window may go by before the limit is reached: ask until it is.
        let wait = loop {
            if let Some(wait) = ask(&lab, &key, algorithm, window).await?.retry_after {
                break wait;
            }
        };
        holds(&about, "retry_after lies within the window", wait <= window + CLOCK_GRAIN && !wait.is_zero(), wait)?;
        lab.advance(wait + CLOCK_GRAIN).await;
        let decision = ask(&lab, &key, algorithm, window).await?;
        equal(&about, "allowed after retry_after", &decision.allowed, &true)?;
    }
    Ok(())
}

/// After a pause of a whole window everything is available again.
async fn c4_everything_is_available_after_a_pause(lab: Lab) -> Verdict {
    for algorithm in ALGORITHMS {
        let key = lab.key("pause");
        for _ in 0..=LIMIT {
            ask(&lab, &key, algorithm, SHORT).await?;
        }
        lab.advance(PAST_SHORT).await;
        let decision = ask(&lab, &key, algorithm, SHORT).await?;
        let about = format!("{key} {algorithm:?}, after a pause");
        equal(&about, "allowed and remaining", &(decision.allowed, decision.remaining), &(true, LIMIT - 1))?;
    }
    Ok(())
}

/// A refused request consumes nothing: refusals do not push the next chance away.
async fn c4_refused_requests_consume_nothing(lab: Lab) -> Verdict {
    for algorithm in ALGORITHMS {
        let key = lab.key("refusals");
        let about = format!("{key} {algorithm:?}");
        for _ in 0..LIMIT {
            ask(&lab, &key, algorithm, LONG).await?;
        }
        let before = present(&about, "retry_after", ask(&lab, &key, algorithm, LONG).await?.retry_after)?;
        for _ in 0..20 {
            ask(&lab, &key, algorithm, LONG).await?;
        }
        let after = present(&about, "retry_after", ask(&lab, &key, algorithm, LONG).await?.retry_after)?;
        holds(&about, "refusals do not move retry_after away", after <= before + CLOCK_GRAIN, (before, after))?;
    }
    Ok(())
}

/// A request may count for several, and is refused as a whole.
async fn c4_cost_counts_for_several(lab: Lab) -> Verdict {
    for algorithm in ALGORITHMS {
        let key = lab.key("cost");
        let about = format!("{key} {algorithm:?}");
        let request = |cost| RateLimit::new(algorithm, LIMIT, LONG).cost(cost);
        let three = lab.a.rate_limit(&key, &request(3)).await?;
        equal(&about, "after a cost of 3", &(three.allowed, three.remaining), &(true, LIMIT - 3))?;
        let again = lab.a.rate_limit(&key, &request(3)).await?;
        equal(&about, "3 more", &(again.allowed, again.remaining), &(false, LIMIT - 3))?;
        let two = lab.a.rate_limit(&key, &request(2)).await?;
        equal(&about, "2 more", &(two.allowed, two.remaining), &(true, 0))?;
    }
    Ok(())
}

/// A sliding window holds its limit in any span of one window: what was allowed before the boundary of a fixed one counts.
async fn c4_sliding_window_has_no_boundary(lab: Lab) -> Verdict {
    let (key, window) = (lab.key("sliding"), 4 * SHORT);
    let mut allowed_at = Vec::new();
    for _ in 0..60 {
        let before = lab.elapsed();
        let decision = ask(&lab, &key, RateAlgorithm::SlidingWindow, window).await?;
        if decision.allowed {
            allowed_at.push((before, lab.elapsed()));
        }
        lab.advance(window / 16).await;
    }
    let limit = usize::try_from(LIMIT).unwrap_or(usize::MAX);
    holds(&key, "several windows' worth is allowed", allowed_at.len() > limit, allowed_at.len())?;
    // One more than the limit cannot all lie within one window, measured from before the first to after the last.
    for span in allowed_at.windows(limit + 1) {
        let length = span[limit].1 - span[0].0;
        holds(&key, "no span of one window allows more than the limit", length + CLOCK_GRAIN >= window, span)?;
    }
    Ok(())
}

/// GCRA lets the burst through and then one per interval.
async fn c4_gcra_allows_the_burst_and_then_the_rate(lab: Lab) -> Verdict {
    const BURST: u64 = 3;
    let (key, window) = (lab.key("gcra"), 10 * SHORT);
    let before = lab.elapsed();
    let mut allowed = 0;
    for _ in 0..50 {
        let decision = lab.a.rate_limit(&key, &RateLimit::gcra(10, window, BURST)).await?;
        equal(&key, "limit of GCRA is its burst", &decision.limit, &BURST)?;
        allowed += u64::from(decision.allowed);
        lab.advance(SHORT / 4).await;
    }
    let spent = lab.elapsed() - before + CLOCK_GRAIN;
    let most = BURST + u64::try_from(spent.as_nanos() / SHORT.as_nanos()).unwrap_or(u64::MAX) + 1;
    holds(&key, "at most the burst and one per interval", allowed <= most, (allowed, most))?;
    holds(&key, "at least the burst and one per interval", allowed >= BURST + 8, allowed)
}

/// Concurrent requests never get more than the limit, and all of it.
async fn c4_concurrent_requests_share_the_limit_exactly(lab: Lab) -> Verdict {
    const CALLERS: usize = 64;
    const SHARED_LIMIT: u64 = 20;
    let algorithms =
        [RateAlgorithm::FixedWindow, RateAlgorithm::SlidingWindow, RateAlgorithm::Gcra { burst: SHARED_LIMIT }];
    for algorithm in algorithms {
        let key = lab.key("shared");
        let name = key.clone();
        let allowed = lab
            .together(CALLERS, move |_, store| {
                let key = name.clone();
                async move {
                    let request = RateLimit::new(algorithm, SHARED_LIMIT, 100 * LONG);
                    Ok(store.rate_limit(&key, &request).await?.allowed)
                }
            })
            .await?;
        let allowed = allowed.into_iter().filter(|allowed| *allowed).count() as u64;
        equal(format!("{key} {algorithm:?}"), "allowed of 64 concurrent requests", &allowed, &SHARED_LIMIT)?;
    }
    Ok(())
}

/// A sliding window recognises a repeated request by its operation and counts it once, with all of its cost.
async fn c4_sliding_window_counts_a_repeated_operation_once(lab: Lab) -> Verdict {
    let key = lab.key("repeated");
    let request = RateLimit::sliding_window(LIMIT, LONG).cost(2);
    for attempt in ["first", "second", "third"] {
        let decision = lab.a.rate_limit(&key, &request).await?;
        equal(&key, &format!("{attempt} attempt"), &(decision.allowed, decision.remaining), &(true, LIMIT - 2))?;
    }
    let other = lab.b.rate_limit(&key, &RateLimit::sliding_window(LIMIT, LONG)).await?;
    equal(&key, "another request", &(other.allowed, other.remaining), &(true, LIMIT - 3))
}

/// An operation that was refused may be asked again and is then decided anew.
async fn c4_refused_operation_is_decided_anew(lab: Lab) -> Verdict {
    let key = lab.key("anew");
    let window = 4 * SHORT;
    let full = RateLimit::sliding_window(1, window);
    let waiting = RateLimit::sliding_window(1, window);
    lab.a.rate_limit(&key, &full).await?;
    let mut decision = lab.a.rate_limit(&key, &waiting).await?;
    if let Some(wait) = decision.retry_after {
        lab.advance(wait + CLOCK_GRAIN).await;
        decision = lab.a.rate_limit(&key, &waiting).await?;
    }
    equal(&key, "a refused operation asked again after its time", &decision.allowed, &true)
}

/// Limits of one key under several algorithms, and its value, do not meet.
async fn c4_limits_do_not_meet_values_or_each_other(lab: Lab) -> Verdict {
    let key = lab.key("apart");
    lab.a.put(&key, &Put::new("value")).await?;
    for algorithm in ALGORITHMS {
        let decision = ask(&lab, &key, algorithm, LONG).await?;
        equal(&key, "remaining under an algorithm of its own", &decision.remaining, &(LIMIT - 1))?;
    }
    let entry = present(&key, "the value", lab.read(&key).await?)?;
    equal(&key, "the value", &entry.value, &"value".into())?;
    lab.a.take(&key).await?;
    let decision = ask(&lab, &key, RateAlgorithm::FixedWindow, LONG).await?;
    equal(&key, "remaining after the value was taken", &decision.remaining, &(LIMIT - 2))?;
    absent(&key, "a value where only limits are", lab.read(&key).await?)?;
    if lab.capabilities().counters {
        let counter = lab.a.increment(&key, Increment::by(1)).await?.counter();
        equal(&key, "a counter of the same key", &counter.value, &1)?;
    }
    Ok(())
}

/// Numbers out of range are refused and count nothing.
async fn c4_nonsense_is_invalid(lab: Lab) -> Verdict {
    let key = lab.key("nonsense");
    for request in [
        RateLimit::fixed_window(0, LONG),
        RateLimit::fixed_window(LIMIT, Duration::ZERO),
        RateLimit::fixed_window(LIMIT, LONG).cost(0),
        RateLimit::fixed_window(LIMIT, LONG).cost(LIMIT + 1),
        RateLimit::sliding_window(u64::MAX, LONG),
        RateLimit::gcra(LIMIT, LONG, 0),
        RateLimit::gcra(LIMIT, LONG, 2).cost(3),
        RateLimit::gcra(LIMIT, Duration::MAX, 1),
    ] {
        refused(&key, &format!("{request:?}"), lab.a.rate_limit(&key, &request).await, ErrorKind::Invalid)?;
    }
    Ok(())
}

pub(crate) const CASES: &[Case] = &[
    case!("C4", c4_limit_is_exact_and_remaining_counts_down, [Need::Has("rate_limits")]),
    case!("C4", c4_decisions_tell_when_to_come_back, [Need::Has("rate_limits")]),
    case!("C4", c4_request_is_allowed_after_retry_after, [Need::Has("rate_limits")]),
    case!("C4", c4_everything_is_available_after_a_pause, [Need::Has("rate_limits")]),
    case!("C4", c4_refused_requests_consume_nothing, [Need::Has("rate_limits")]),
    case!("C4", c4_cost_counts_for_several, [Need::Has("rate_limits")]),
    case!("C4", c4_sliding_window_has_no_boundary, [Need::Has("rate_limits")]),
    case!("C4", c4_gcra_allows_the_burst_and_then_the_rate, [Need::Has("rate_limits")]),
    case!("C4", c4_concurrent_requests_share_the_limit_exactly, [Need::Has("rate_limits")]),
    case!("C4", c4_sliding_window_counts_a_repeated_operation_once, [Need::Has("rate_limits")]),
    case!("C4", c4_refused_operation_is_decided_anew, [Need::Has("rate_limits")]),
    case!("C4", c4_limits_do_not_meet_values_or_each_other, [Need::Has("rate_limits")]),
    case!("C4", c4_nonsense_is_invalid, [Need::Has("rate_limits")]),
];
