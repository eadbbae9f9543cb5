//! What is proved about leases that clients observe, and where it fails as documented.

use acteon_models::check::{counterexample, holds};
use acteon_models::leases::{CHANGED_HANDS, NO_LOST_UPDATE, NO_STALE_WRITE, ONE_HOLDER, TOKENS_RISE, WRITE_REFUSED};
use acteon_models::observed::{Broken, Observed, TAKEN_OVER};
use acteon_models::register::Writes;

const AGREEING: [i8; 2] = [0, 0];
/// Clocks that are ten leases apart.
const APART: [i8; 2] = [20, 0];

fn clocks(clocks_ahead: [i8; 2]) -> Observed {
    Observed::with_clocks_ahead(clocks_ahead)
}

#[test]
fn one_holder_at_a_time_and_rising_tokens_whatever_the_wall_clocks_say() {
    for clocks_ahead in [AGREEING, APART] {
        holds(clocks(clocks_ahead).until(3), &[TOKENS_RISE, ONE_HOLDER], &[CHANGED_HANDS, TAKEN_OVER]);
    }
}

#[test]
fn one_holder_at_a_time_where_clocks_differ_by_no_more_than_declared() {
    for clocks_ahead in [[0, 0], [1, 0], [0, 1]] {
        holds(clocks(clocks_ahead).declaring(1).until(3), &[TOKENS_RISE, ONE_HOLDER], &[CHANGED_HANDS, TAKEN_OVER]);
    }
}

#[test]
fn clocks_that_differ_by_more_than_declared_grant_twice_but_tokens_rise() {
    let _ = counterexample(clocks([0, 2]).declaring(1), ONE_HOLDER);
    holds(clocks([0, 2]).declaring(1).until(3), &[TOKENS_RISE], &[TAKEN_OVER]);
}

#[test]
fn fenced_writes_are_never_late_even_where_clocks_grant_twice() {
    let fenced = clocks([0, 2]).declaring(1).writing(Writes::Fenced).until(3);
    holds(fenced, &[NO_STALE_WRITE], &[WRITE_REFUSED]);
}

#[test]
fn no_update_is_lost_where_the_read_raises_the_fence() {
    let fenced = clocks(AGREEING).writing(Writes::ReadRaisesFence).until(2);
    holds(fenced, &[NO_LOST_UPDATE], &[WRITE_REFUSED]);
    let _ = counterexample(clocks(AGREEING).writing(Writes::Fenced), NO_LOST_UPDATE);
}

#[test]
fn broken_rules_are_found() {
    for (broken, property) in [
        (Broken::WatchesTooShort, ONE_HOLDER),
        (Broken::WatchesTheOwner, ONE_HOLDER),
        (Broken::TakesOverUnseen, ONE_HOLDER),
        (Broken::DeadlineFromReply, ONE_HOLDER),
    ] {
        let _ = counterexample(clocks(AGREEING).breaking(broken), property);
    }
    let _ = counterexample(clocks(APART).breaking(Broken::TokensWithoutCount), TOKENS_RISE);
    let _ = counterexample(clocks([0, 1]).declaring(1).breaking(Broken::NoMarginForClocks), ONE_HOLDER);
}
