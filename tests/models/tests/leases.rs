//! What is proved about leases of a service with a clock, and where it fails as documented.

use acteon_models::check::{counterexample, holds};
use acteon_models::leases::{
    Acknowledged, CHANGED_HANDS, Keeps, Leases, NO_LOST_UPDATE, NO_STALE_WRITE, ONE_HOLDER, RECOVERED, RELEASED,
    Service, TOKENS_RISE, WRITE_REFUSED,
};
use acteon_models::register::Writes;
use acteon_models::service::Broken;

/// Within a tick: less than a failure takes.
const LITTLE_US: i64 = 500;
/// A tick: as long as the shortest failure takes.
const TICK_US: i64 = 1_000;
/// The length of leases in the models.
const LEASE: u8 = 2;

fn restarts(keeps: Keeps, clock_set_us: i64) -> Leases {
    Leases::of(Service::Restarts { keeps, clock_set_us })
}

fn fails_over(acknowledged: Acknowledged, skew_us: i64) -> Leases {
    Leases::of(Service::FailsOver { acknowledged, skew_us, cut_off_for: 0, quarantine: 0 })
}

/// Grants are acknowledged; a primary that was cut off serves for so long, and the new one grants nothing for so long.
fn strict(cut_off_for: u8, quarantine: u8) -> Leases {
    let acknowledged = Acknowledged::Grants;
    Leases::of(Service::FailsOver { acknowledged, skew_us: -LITTLE_US, cut_off_for, quarantine })
}

mod one_server {
    use super::{
        Broken, CHANGED_HANDS, Keeps, Leases, NO_LOST_UPDATE, NO_STALE_WRITE, ONE_HOLDER, RECOVERED, RELEASED, Service,
        TICK_US, TOKENS_RISE, WRITE_REFUSED, Writes, counterexample, holds, restarts,
    };

    fn reliable() -> Leases {
        Leases::of(Service::Reliable)
    }

    #[test]
    fn one_holder_at_a_time_and_rising_tokens_whatever_is_lost_repeated_or_paused() {
        holds(reliable(), &[TOKENS_RISE, ONE_HOLDER, RELEASED], &[CHANGED_HANDS]);
    }

    #[test]
    fn a_client_that_comes_back_with_its_old_requests_under_way_is_no_exception() {
        holds(reliable().acquisitions([2, 1]).until(3), &[TOKENS_RISE, ONE_HOLDER, RELEASED], &[CHANGED_HANDS]);
    }

    #[test]
    fn fenced_writes_are_never_late() {
        let fenced = reliable().writing(Writes::Fenced).until(3);
        holds(fenced, &[TOKENS_RISE, ONE_HOLDER, NO_STALE_WRITE], &[WRITE_REFUSED]);
    }

    #[test]
    fn writes_without_fence_come_late() {
        let _ = counterexample(reliable().writing(Writes::Unfenced), NO_STALE_WRITE);
    }

    #[test]
    fn a_late_write_between_the_next_holders_read_and_write_is_lost_in_spite_of_the_fence() {
        let _ = counterexample(reliable().writing(Writes::Fenced), NO_LOST_UPDATE);
    }

    #[test]
    fn no_update_is_lost_where_the_read_raises_the_fence_or_the_write_needs_what_was_read() {
        for writes in [Writes::ReadRaisesFence, Writes::AsRead] {
            let writing = reliable().writing(writes).until(3);
            holds(writing, &[NO_STALE_WRITE, NO_LOST_UPDATE], &[WRITE_REFUSED]);
        }
    }

    #[test]
    fn a_server_that_keeps_what_it_acknowledged_is_as_good_as_one_that_never_crashes() {
        holds(restarts(Keeps::Everything, 0).until(4), &[TOKENS_RISE, ONE_HOLDER, RELEASED], &[RECOVERED]);
    }

    #[test]
    fn a_server_that_forgets_grants_twice_but_its_tokens_rise() {
        for keeps in [Keeps::APrefix, Keeps::Nothing] {
            holds(restarts(keeps, 0).until(3), &[TOKENS_RISE], &[RECOVERED]);
            let _ = counterexample(restarts(keeps, 0), ONE_HOLDER);
        }
    }

    #[test]
    fn fenced_writes_are_never_late_although_grants_were_forgotten() {
        holds(
            restarts(Keeps::Nothing, 0).writing(Writes::Fenced).until(2),
            &[NO_STALE_WRITE],
            &[RECOVERED, WRITE_REFUSED],
        );
    }

    #[test]
    fn tokens_fall_where_the_record_is_lost_and_the_clock_set_back_by_as_much_as_the_crash_took() {
        let _ = counterexample(restarts(Keeps::Nothing, -TICK_US), TOKENS_RISE);
        let _ = counterexample(restarts(Keeps::Nothing, -2 * TICK_US).writing(Writes::Fenced).until(2), NO_STALE_WRITE);
    }

    #[test]
    fn the_record_alone_makes_tokens_rise_while_it_is_kept() {
        holds(restarts(Keeps::Everything, -2 * TICK_US).until(3), &[TOKENS_RISE, ONE_HOLDER], &[RECOVERED]);
    }

    #[test]
    fn a_clock_that_is_set_forward_ends_leases_before_their_holders_know() {
        let _ = counterexample(restarts(Keeps::Everything, TICK_US), ONE_HOLDER);
    }

    #[test]
    fn broken_rules_are_found() {
        for (broken, property) in [
            (Broken::TokensWithoutCount, TOKENS_RISE),
            (Broken::ExtensionTakesBack, RELEASED),
            (Broken::ReleaseForgotten, RELEASED),
            (Broken::DeadlineFromReply, ONE_HOLDER),
        ] {
            let _ = counterexample(reliable().breaking(broken), property);
        }
        let twice = reliable().acquisitions([2, 1]).until(3);
        for broken in [Broken::ReleaseUnchecked, Broken::ExtensionTakesBack] {
            let _ = counterexample(twice.clone().breaking(broken), ONE_HOLDER);
        }
        let _ = counterexample(restarts(Keeps::Nothing, 0).breaking(Broken::TokensWithoutFloor), TOKENS_RISE);
    }
}

mod failover {
    use super::{
        Acknowledged, LEASE, LITTLE_US, NO_STALE_WRITE, ONE_HOLDER, RECOVERED, TICK_US, TOKENS_RISE, WRITE_REFUSED,
        Writes, counterexample, fails_over, holds, strict,
    };

    #[test]
    fn a_standby_that_lags_grants_twice_but_its_tokens_rise() {
        for skew_us in [-LITTLE_US, 0, LITTLE_US] {
            let _ = counterexample(fails_over(Acknowledged::Nothing, skew_us).until(3), ONE_HOLDER);
            holds(fails_over(Acknowledged::Nothing, skew_us).until(3), &[TOKENS_RISE], &[RECOVERED]);
        }
    }

    #[test]
    fn tokens_fall_where_the_standbys_clock_is_behind_by_as_much_as_the_failover_took() {
        let _ = counterexample(fails_over(Acknowledged::Nothing, -TICK_US), TOKENS_RISE);
    }

    #[test]
    fn fenced_writes_to_something_else_are_never_late_although_grants_were_lost() {
        let fenced = fails_over(Acknowledged::Nothing, -LITTLE_US).writing(Writes::Fenced).until(2).grants(2);
        holds(fenced, &[NO_STALE_WRITE], &[RECOVERED, WRITE_REFUSED]);
    }

    #[test]
    fn a_fence_that_the_failover_lost_lets_a_late_write_through() {
        let fenced = fails_over(Acknowledged::Nothing, -LITTLE_US).writing(Writes::Fenced).until(1);
        let _ = counterexample(fenced.with_register_in_service(), NO_STALE_WRITE);
    }

    #[test]
    fn a_standby_that_has_every_write_keeps_grants_without_quarantine() {
        let synchronous = fails_over(Acknowledged::Everything, -LITTLE_US).until(4);
        holds(synchronous, &[TOKENS_RISE, ONE_HOLDER], &[RECOVERED]);
        let far_behind = fails_over(Acknowledged::Everything, -2 * TICK_US).until(3);
        holds(far_behind, &[TOKENS_RISE, ONE_HOLDER], &[RECOVERED]);
        let fenced =
            fails_over(Acknowledged::Everything, 0).writing(Writes::Fenced).with_register_in_service().until(2);
        holds(fenced, &[NO_STALE_WRITE], &[RECOVERED, WRITE_REFUSED]);
    }

    #[test]
    fn a_standby_whose_clock_is_ahead_ends_leases_before_their_holders_know() {
        let _ = counterexample(fails_over(Acknowledged::Everything, TICK_US), ONE_HOLDER);
    }

    #[test]
    fn strict_service_grants_once_where_the_primary_stops_when_it_is_cut_off() {
        holds(strict(0, LEASE).until(4), &[TOKENS_RISE, ONE_HOLDER], &[RECOVERED]);
    }

    #[test]
    fn quarantine_shorter_than_the_lease_is_found() {
        // By two ticks: one is what the failover takes itself.
        let lease = 3;
        let _ = counterexample(strict(0, lease - 2).lease(lease).until(4), ONE_HOLDER);
    }

    #[test]
    fn a_primary_that_is_cut_off_extends_past_a_quarantine_of_one_lease() {
        let (lease, cut_off_for) = (3, 3);
        let _ = counterexample(strict(cut_off_for, lease).lease(lease).until(4), ONE_HOLDER);
    }

    #[test]
    fn quarantine_of_a_lease_and_the_time_that_a_cut_off_primary_still_serves_is_enough() {
        // A tick less than the sum: so long does the failover take itself.
        let cut_off_for = 2;
        let strict = strict(cut_off_for, LEASE + cut_off_for - 1).until(4);
        holds(strict, &[TOKENS_RISE, ONE_HOLDER], &[RECOVERED]);
    }
}
