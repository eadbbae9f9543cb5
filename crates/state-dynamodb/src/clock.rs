//! Time that clients agree on, since DynamoDB has none in its conditions.
//!
//! # What it promises
//! The local clock is trusted as long as it is consistent with the service's: each response says when it was made, to the
//! second, and the true difference of the two clocks must lie within the bounds that all recent responses leave. A clock
//! that lies outside is corrected to the nearer bound, so a client whose clock is wrong by half a minute is wrong by
//! about a second here.
//!
//! How far two clients may differ is a bound that the operator declares (`skew_max`); see [`CalibratedClock::keeps_bound`].
//!
//! # How it works
//! Seen from a response that was sent at `s` and arrived at `a` by the local clock with `Date: D`, the service's clock was
//! within `[D, D + 1s)` at some moment between the two: the difference is at least `D - a` and less than `D + 1s - s`. The
//! bounds of several responses are intersected; they widen with time, since clocks drift.

use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::clock::Clock;
use parking_lot::Mutex;

/// How far two clocks may drift apart per second: more than any computer's quartz does.
const DRIFT_PPM: i64 = 200;
/// The resolution of the `Date` header.
const SECOND_US: i64 = 1_000_000;
/// Bounds that are older say nothing about a clock that may have been set since.
const CALIBRATION_AGE_MAX: Duration = Duration::from_secs(3_600);

/// See the module.
#[derive(Debug)]
pub(crate) struct CalibratedClock {
    local: Arc<dyn Clock>,
    skew_max: Duration,
    bounds: Mutex<Option<Bounds>>,
}

/// Between which the service's clock minus ours lies, in µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    low_us: i64,
    high_us: i64,
    /// When they were taken, by the local clock.
    at_us: u64,
}

impl CalibratedClock {
    pub(crate) fn new(local: Arc<dyn Clock>, skew_max: Duration) -> Self {
        Self { local, skew_max, bounds: Mutex::new(None) }
    }

    /// The local clock, for [`observe`](Self::observe).
    pub(crate) fn local_us(&self) -> u64 {
        self.local.now_us()
    }

    /// Now, in µs since 1970.
    pub(crate) fn now_us(&self) -> u64 {
        let now_us = self.local.now_us();
        let correction_us = self.bounds.lock().map_or(0, |bounds| bounds.aged(now_us).correction_us());
        now_us.saturating_add_signed(correction_us)
    }

    /// Now, in ms since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_us() / 1_000
    }

    /// Takes in what a response says: sent and arrived by the local clock, made at `date_s` by the service's.
    pub(crate) fn observe(&self, sent_us: u64, arrived_us: u64, date_s: i64) {
        let date_us = date_s.saturating_mul(SECOND_US);
        let seen = Bounds {
            low_us: date_us.saturating_sub_unsigned(arrived_us),
            high_us: date_us.saturating_add(SECOND_US).saturating_sub_unsigned(sent_us),
            at_us: arrived_us,
        };
        let mut bounds = self.bounds.lock();
        let joined = bounds.and_then(|bounds| bounds.aged(arrived_us).intersect(seen));
        // No difference fits both: one of the clocks was set. The newer one counts.
        *bounds = Some(joined.unwrap_or(seen));
    }

    /// Whether this client can stand by the declared bound: it has heard the service's clock lately, and either its own
    /// clock agrees with it, or the correction is at least twice as precise as the bound. Half of it, since one client may be
    /// corrected to the earliest time that is possible and the other to the latest.
    pub(crate) fn keeps_bound(&self) -> bool {
        let now_us = self.local.now_us();
        self.bounds.lock().is_some_and(|bounds| {
            let is_recent = Duration::from_micros(now_us.saturating_sub(bounds.at_us)) <= CALIBRATION_AGE_MAX;
            let aged = bounds.aged(now_us);
            let width = Duration::from_micros(aged.high_us.abs_diff(aged.low_us));
            is_recent && (aged.correction_us() == 0 || width <= self.skew_max / 2)
        })
    }

    /// How far two clients that keep the bound may differ.
    pub(crate) const fn skew_max(&self) -> Duration {
        self.skew_max
    }
}

impl Bounds {
    /// Wider by what the clocks may have drifted since.
    fn aged(self, now_us: u64) -> Self {
        let age_us = i64::try_from(now_us.saturating_sub(self.at_us)).unwrap_or(i64::MAX);
        let drift_us = age_us / SECOND_US * DRIFT_PPM;
        Self { low_us: self.low_us.saturating_sub(drift_us), high_us: self.high_us.saturating_add(drift_us), ..self }
    }

    fn intersect(self, newer: Self) -> Option<Self> {
        let (low_us, high_us) = (self.low_us.max(newer.low_us), self.high_us.min(newer.high_us));
        (low_us <= high_us).then_some(Self { low_us, high_us, at_us: newer.at_us })
    }

    /// What brings the local clock within the bounds.
    fn correction_us(self) -> i64 {
        0_i64.clamp(self.low_us.min(self.high_us), self.high_us)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use acteon_state_core::clock::ManualClock;

    use super::CalibratedClock;

    const BASE_US: u64 = 1_700_000_000_000_000;

    fn clock_off_by(offset_us: i64) -> (Arc<ManualClock>, CalibratedClock) {
        let local = Arc::new(ManualClock::new(BASE_US.saturating_add_signed(offset_us)));
        (local.clone(), CalibratedClock::new(local, Duration::from_secs(1)))
    }

    /// A response that took 10 ms, by a service whose clock is right.
    fn respond(local: &ManualClock, clock: &CalibratedClock, true_us: u64) {
        let sent_us = clock.local_us();
        local.advance(Duration::from_millis(10));
        clock.observe(sent_us, clock.local_us(), i64::try_from((true_us + 5_000) / 1_000_000).unwrap());
    }

    #[test]
    fn a_clock_that_agrees_is_left_alone() {
        let (local, clock) = clock_off_by(300_000);
        respond(&local, &clock, BASE_US);
        assert_eq!(clock.now_us(), clock.local_us());
        assert!(clock.keeps_bound());
    }

    #[test]
    fn a_clock_that_is_wrong_is_corrected_to_about_a_second() {
        for offset_us in [-30_000_000, 30_000_000] {
            let (local, clock) = clock_off_by(offset_us);
            respond(&local, &clock, BASE_US);
            let error_us = clock.now_us().abs_diff(BASE_US + 10_000);
            assert!(error_us <= 1_010_000, "{offset_us}: {error_us}");
        }
    }

    #[test]
    fn more_responses_make_the_correction_precise() {
        let (local, clock) = clock_off_by(30_000_000);
        let mut true_us = BASE_US;
        for _ in 0..20 {
            respond(&local, &clock, true_us);
            local.advance(Duration::from_millis(290));
            true_us += 300_000;
        }
        let error_us = clock.now_us().abs_diff(true_us);
        assert!(error_us <= 200_000, "{error_us}");
        assert!(clock.keeps_bound());
    }

    #[test]
    fn clocks_that_were_corrected_from_both_sides_keep_the_bound_between_them() {
        let mut errors_us = Vec::new();
        for offset_us in [-30_000_000, 30_000_000] {
            // Where in a second the two responses of a client are made.
            for phase_us in (0..1_000_000).step_by(50_000) {
                for pause_us in (100_000..1_000_000).step_by(50_000) {
                    let (local, clock) = clock_off_by(offset_us);
                    local.advance(Duration::from_micros(phase_us));
                    respond(&local, &clock, BASE_US + phase_us);
                    local.advance(Duration::from_micros(pause_us - 10_000));
                    respond(&local, &clock, BASE_US + phase_us + pause_us);
                    if clock.keeps_bound() {
                        let true_us = clock.local_us().saturating_add_signed(-offset_us);
                        errors_us.push(clock.now_us().cast_signed() - true_us.cast_signed());
                    }
                }
            }
        }
        let (min_us, max_us) = (errors_us.iter().min().unwrap(), errors_us.iter().max().unwrap());
        assert!(*min_us < 0 && *max_us > 0, "the test saw only one side: {min_us} {max_us}");
        assert!(max_us - min_us <= 1_000_000, "two clients are apart by more than the bound: {min_us} {max_us}");
    }

    #[test]
    fn a_clock_that_was_never_calibrated_keeps_no_bound() {
        let (_, clock) = clock_off_by(0);
        assert!(!clock.keeps_bound());
    }
}
