//! Rate limits, by their definitions: each algorithm remembers when its requests were allowed.

use std::collections::BTreeMap;
use std::time::Duration;

use acteon_state_core::{Decision, RateAlgorithm, RateLimit, StateKey};

/// The state of all limits.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    /// Count, and when the window ends.
    fixed: BTreeMap<StateKey, (u64, Duration)>,
    /// When each unit of cost was allowed, in order.
    sliding: BTreeMap<StateKey, Vec<Duration>>,
    /// The theoretical arrival time.
    gcra: BTreeMap<StateKey, Duration>,
}

impl Rates {
    pub(crate) fn ask(&mut self, key: &StateKey, request: &RateLimit, now: Duration) -> Decision {
        match request.algorithm {
            RateAlgorithm::FixedWindow => self.fixed(key, request, now),
            RateAlgorithm::SlidingWindow => self.sliding(key, request, now),
            RateAlgorithm::Gcra { burst } => self.gcra(key, request, burst, now),
        }
    }

    fn fixed(&mut self, key: &StateKey, request: &RateLimit, now: Duration) -> Decision {
        let open = self.fixed.get(key).copied().filter(|(_, ends_at)| *ends_at > now);
        let (count, ends_at) = open.unwrap_or((0, now + request.window));
        let allowed = count + request.cost <= request.limit;
        let count = if allowed { count + request.cost } else { count };
        self.fixed.insert(key.clone(), (count, ends_at));
        Decision {
            allowed,
            limit: request.limit,
            remaining: request.limit - count,
            reset_after: ends_at - now,
            retry_after: (!allowed).then(|| ends_at - now),
        }
    }

    fn sliding(&mut self, key: &StateKey, request: &RateLimit, now: Duration) -> Decision {
        let log = self.sliding.entry(key.clone()).or_default();
        log.retain(|at| *at + request.window > now);
        let free = request.limit - log.len() as u64;
        let allowed = request.cost <= free;
        if allowed {
            log.extend((0..request.cost).map(|_| now));
        }
        let leaves_after = |at: &Duration| *at + request.window - now;
        // It fits once so many of the oldest have left that the cost is free.
        let missing = usize::try_from(request.cost.saturating_sub(free)).unwrap_or(usize::MAX);
        Decision {
            allowed,
            limit: request.limit,
            remaining: request.limit - log.len() as u64,
            reset_after: log.last().map_or(Duration::ZERO, leaves_after),
            retry_after: if allowed { None } else { log.get(missing - 1).map(leaves_after) },
        }
    }

    fn gcra(&mut self, key: &StateKey, request: &RateLimit, burst: u64, now: Duration) -> Decision {
        let per_request = request.window / u32::try_from(request.limit).unwrap_or(u32::MAX);
        let times = |count: u64| per_request * u32::try_from(count).unwrap_or(u32::MAX);
        let arrival = self.gcra.get(key).copied().unwrap_or_default().max(now);
        let next = arrival + times(request.cost);
        let allowed = next <= now + times(burst);
        let arrival = if allowed { next } else { arrival };
        self.gcra.insert(key.clone(), arrival);
        let used = arrival - now;
        let free = times(burst).saturating_sub(used);
        Decision {
            allowed,
            limit: burst,
            remaining: u64::try_from(free.as_micros() / per_request.as_micros()).unwrap_or(u64::MAX),
            reset_after: used,
            retry_after: (!allowed).then(|| next - times(burst) - now),
        }
    }
}
