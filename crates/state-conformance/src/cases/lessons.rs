//! Faults seen in comparable systems, each by name.
//!
//! Those that a rule's own case covers exactly are told there: put-if-absent over an expired entry
//! (`w4_one_put_if_absent_wins_while_the_old_entry_expires`), a window refreshed by every hit
//! (`c2_fixed_window_is_not_extended_by_hits`), separators and wildcards (`k2_…`), a listing that ignores the prefix
//! (`k2_listing_honours_the_prefix`), versions that restart after a delete (`v2_versions_never_repeat_across_recreation`),
//! release after the lease was lost (`l2_release_of_a_lost_lock_reports_already_lost`), a guard dropped by an early return
//! (`l1_dropped_guard_lets_go`), renewal that outlives the unlock (`l1_renewal_does_not_outlive_the_guard`), lost updates of
//! a record that a script changes at the same time (`m2_concurrent_transfers_keep_the_sum`).

use std::time::Duration;

use acteon_state_core::{
    BatchOp, Condition, Counting, ErrorKind, Increment, LockAttempt, LockOptions, LockOutcome, LockRequest, Put,
    PutOutcome, RateLimit, ReleaseOutcome, Scan, Scope, State, StateKey, Ttl, Version,
};

use crate::case::{Case, Need, case};
use crate::cases::locks::{exclusive, take};
use crate::cases::scan::ids;
use crate::lab::{LONG, Lab, PAST_SHORT, SHORT, in_time};
use crate::verdict::{Failure, Verdict, absent, applied, equal, holds, present, refused};

/// Drivers disagreed on compare-and-swap of an absent key: some created it.
async fn lesson_cas_on_an_absent_key_creates_nothing(lab: Lab) -> Verdict {
    let key = lab.key("absent");
    for version in [Version::from_u128(0), Version::from_u128(1), Version::draw()] {
        let swap = lab.a.put(&key, &Put::new("x").if_version(version)).await?;
        equal(&key, "compare-and-swap on an absent key", &swap, &PutOutcome::NotMet(None))?;
    }
    absent(&key, "an entry", lab.read(&key).await?)
}

/// Compare-and-swap without ttl on a key with ttl kept it on one backend and cleared it on another.
async fn lesson_cas_without_ttl_clears_the_ttl(lab: Lab) -> Verdict {
    let key = lab.key("cleared");
    let put = Put::new("1").expires_after(SHORT);
    lab.a.put(&key, &put).await?;
    applied(&key, "compare-and-swap", lab.a.put(&key, &Put::new("2").if_version(put.version)).await?)?;
    lab.advance(PAST_SHORT).await;
    present(&key, "an entry whose ttl a compare-and-swap cleared", lab.read(&key).await?).map(|_| ())
}

/// Reading a counter gave nothing on one backend.
async fn lesson_counter_can_be_read(lab: Lab) -> Verdict {
    let key = lab.key("counter");
    lab.a.increment(&key, Increment::by(41)).await?;
    lab.b.increment(&key, Increment::by(1)).await?;
    let entry = present(&key, "the counter", lab.read(&key).await?)?;
    equal(&key, "its text", &entry.value, &"42".into())
}

/// Set to "10", then incremented: 11, 1 or an error, by backend.
async fn lesson_set_ten_then_increment_is_wrong_type(lab: Lab) -> Verdict {
    let key = lab.key("ten");
    lab.write(&key, "10").await?;
    refused(&key, "increment", lab.a.increment(&key, Increment::by(1)).await, ErrorKind::WrongType)?;
    let entry = present(&key, "the value", lab.read(&key).await?)?;
    equal(&key, "its bytes", &entry.value, &"10".into())
}

/// A ttl below a second was rounded to zero: expired at once, or never.
async fn lesson_sub_second_ttl_is_not_rounded_to_zero(lab: Lab) -> Verdict {
    let key = lab.key("half-a-second");
    lab.a.put(&key, &Put::new("x").expires_after(Duration::from_millis(900))).await?;
    let entry = present(&key, "an entry with a ttl of 900 ms, read at once", lab.read_ttl(&key).await?)?;
    let ttl = present(&key, "its ttl", entry.ttl)?;
    holds(&key, "its ttl is in milliseconds", ttl <= Duration::from_millis(900) && !ttl.is_zero(), ttl)?;
    let key = lab.key("a-nanosecond");
    lab.a.put(&key, &Put::new("x").expires_after(Duration::from_nanos(1))).await?;
    lab.advance(SHORT / 4).await;
    absent(&key, "an entry 10 ms after a ttl of one nanosecond", lab.read(&key).await?)
}

/// A write in several round trips (read the version, write, set the ttl): 100 concurrent sets ended at version 36.
async fn lesson_concurrent_sets_are_each_one_step(lab: Lab) -> Verdict {
    let key = lab.key("sets");
    let name = key.clone();
    let versions = lab
        .together(100, move |task, store| {
            let key = name.clone();
            async move {
                let put = Put::new(task.to_string()).expires_after(LONG);
                store.put(&key, &put).await?;
                Ok((put.version, task))
            }
        })
        .await?;
    let entry = present(&key, "entry", lab.read_ttl(&key).await?)?;
    let of_version = versions.iter().find(|(version, _)| Some(*version) == entry.version);
    let (_, task) = present(&key, "the write that made the stored version", of_version)?;
    equal(&key, "value and version are of one write", &entry.value, &task.to_string().into())?;
    holds(&key, "its ttl is set", entry.ttl.is_some(), entry.ttl)
}

/// `INCRBY` and `PEXPIRE` in two calls: a crash between them leaves a counter that blocks for ever. Each reply must already
/// carry the window, also when creations race.
async fn lesson_windowed_counter_never_lacks_its_ttl(lab: Lab) -> Verdict {
    for round in 0..10 {
        let key = lab.key(&format!("round-{round}"));
        let name = key.clone();
        let counters = lab
            .together(32, move |_, store| {
                let key = name.clone();
                let hit = Increment::by(1).window(Counting::OnCreate(LONG));
                async move { Ok(store.increment(&key, hit).await?.counter()) }
            })
            .await?;
        let without: Vec<_> = counters.iter().filter(|counter| counter.resets_after.is_none()).collect();
        equal(&key, "replies without a window", &without, &vec![])?;
    }
    Ok(())
}

/// An increment dropped half-way must not leave a counter without its window either.
async fn lesson_cancelled_increment_leaves_no_eternal_counter(lab: Lab) -> Verdict {
    for round in 0..50 {
        let key = lab.key(&format!("cancelled-{round}"));
        let hit = Increment::by(1).window(Counting::OnCreate(LONG));
        let patience = Duration::from_micros(20 * round);
        // Whether it was in time does not matter.
        let _ = tokio::time::timeout(patience, lab.a.increment(&key, hit)).await;
        if let Some(entry) = lab.read_ttl(&key).await? {
            holds(&key, "a counter whose increment was dropped has its window", entry.ttl.is_some(), entry)?;
        }
    }
    Ok(())
}

/// A window refreshed by each hit never ends under steady traffic: 10 calls, 0.4 windows apart, counted 10.
async fn lesson_throttle_window_ends_under_steady_traffic(lab: Lab) -> Verdict {
    let key = lab.key("steady");
    let hit = Increment::by(1).window(Counting::OnCreate(SHORT));
    let mut last = 0;
    for _ in 0..10 {
        last = lab.a.increment(&key, hit).await?.counter().value;
        lab.advance(SHORT * 2 / 5).await;
    }
    holds(&key, "the counter began anew", last < 10, last)
}

/// Overflow wrapped on one backend.
async fn lesson_overflow_never_wraps(lab: Lab) -> Verdict {
    let key = lab.key("wrap");
    lab.a.increment(&key, Increment::by(i64::MAX)).await?;
    for _ in 0..3 {
        refused(
            &key,
            "step beyond the range",
            lab.a.increment(&key, Increment::by(i64::MAX)).await,
            ErrorKind::Overflow,
        )?;
    }
    let value = lab.a.increment(&key, Increment::by(0)).await?.counter().value;
    equal(&key, "counter", &value, &i64::MAX)
}

/// Value and counter of one key in two physical keys: the old value came back when the counter expired.
async fn lesson_old_value_does_not_reappear_after_a_counter(lab: Lab) -> Verdict {
    let key = lab.key("two-keys");
    lab.write(&key, "old").await?;
    lab.a.delete(&key, Condition::Always).await?;
    lab.a.increment(&key, Increment::by(1).window(Counting::OnCreate(SHORT))).await?;
    lab.advance(PAST_SHORT).await;
    absent(&key, "an entry after the counter expired", lab.read(&key).await?)?;
    lab.a.increment(&key, Increment::by(1)).await?;
    lab.a.put(&key, &Put::new("new").expires_after(SHORT)).await?;
    lab.advance(PAST_SHORT).await;
    absent(&key, "an entry after the value that replaced a counter expired", lab.read(&key).await?)
}

/// Listings mixed two formats: a key that was both appeared twice, or with the wrong one.
async fn lesson_listing_shows_a_replaced_counter_once(lab: Lab) -> Verdict {
    lab.a.increment(&lab.key("replaced"), Increment::by(1)).await?;
    lab.write(&lab.key("replaced"), "value").await?;
    let page = lab.b.scan(&Scan::new(lab.scope()).with_entries()).await?;
    let values: Vec<_> = page.items.into_iter().filter_map(|item| item.entry).map(|entry| entry.value).collect();
    equal("listing", "entries", &values, &vec!["value".into()])
}

/// One tenant read another's rows through `_` and `%` in a LIKE, or `*` and `?` in a glob.
async fn lesson_wildcard_in_a_tenant_reads_nobody_elses_keys(lab: Lab) -> Verdict {
    for tenant in ["acme", "acne", "ac:me"] {
        let key = StateKey::new("n", tenant, "k", "secret")?;
        lab.a.put(&key, &Put::new("x")).await?;
    }
    for tenant in ["ac_e", "ac%", "ac*", "ac?e", "ac[mn]e", "*", "%"] {
        let scope = Scope::new("n", tenant, "k")?;
        let found = ids(&*lab.b, Scan::new(scope.clone())).await?;
        equal(scope.text(), "ids that a tenant with a wildcard in its name sees", &found.len(), &0)?;
    }
    Ok(())
}

/// A listing walked the whole store: 10 keys among many must not take many pages.
async fn lesson_listing_is_not_one_unbounded_page(lab: Lab) -> Verdict {
    let puts: Vec<_> = (0..500).map(|at| BatchOp::Put(lab.key(&format!("id-{at}")), Put::new("x"))).collect();
    lab.a.batch(&puts).await?;
    let page = lab.b.scan(&Scan::new(lab.scope()).page_size(10)).await?;
    // Where pages are not exact, the size is a hint; ten times as much is no longer one.
    holds("listing", "a page of 10 is about 10 keys", page.items.len() <= 100, page.items.len())?;
    holds("listing", "and has a successor", page.next.is_some(), page.next)
}

/// Two calls at the same moment shared a member of the sliding log, and counted once.
async fn lesson_calls_of_one_moment_are_counted_apart(lab: Lab) -> Verdict {
    let key = lab.key("moment");
    let name = key.clone();
    lab.together(50, move |_, store| {
        let key = name.clone();
        async move { Ok(store.rate_limit(&key, &RateLimit::sliding_window(100, LONG)).await?) }
    })
    .await?;
    let decision = lab.a.rate_limit(&key, &RateLimit::sliding_window(100, LONG)).await?;
    equal(&key, "remaining after 51 calls", &decision.remaining, &49)
}

/// Release by a plain delete, without owner check: the new holder lost its lock to the old one.
async fn lesson_release_of_an_old_owner_keeps_the_new_one(lab: Lab) -> Verdict {
    let key = lab.key("old-owner");
    let old = exclusive(&key, SHORT);
    take(&*lab.a, &old).await?;
    lab.advance(PAST_SHORT).await;
    let new = exclusive(&key, LONG);
    take(&*lab.b, &new).await?;
    equal(&key, "release by the old owner", &lab.a.lock_release(&key, old.owner).await?, &ReleaseOutcome::AlreadyLost)?;
    let state = present(&key, "state", lab.a.lock_inspect(&key).await?)?;
    let owners: Vec<_> = state.holders.iter().map(|holder| holder.owner).collect();
    equal(&key, "holders", &owners, &vec![new.owner])
}

/// Each waiter polled every 50 ms; 16 waiters on an empty section waited up to 0.9 s each. Here, a bound that polling with
/// growing pauses does not keep: all of them, ten times, on any machine.
async fn lesson_sixteen_waiters_get_through_an_empty_section(lab: Lab) -> Verdict {
    let key = lab.key("empty-section");
    let name = key.clone();
    let rounds = lab.together(16, move |_, store| {
        let key = name.clone();
        async move {
            for _ in 0..10 {
                let request = LockRequest { wait: LONG, ..exclusive(&key, LONG) };
                let LockOutcome::Granted(_) = store.lock_acquire(&request).await? else {
                    return Err(Failure::new(format!(
                        "{key}: a waiter gave up\n  expected: Granted\n       got: Busy"
                    )));
                };
                store.lock_release(&key, request.owner).await?;
            }
            Ok(())
        }
    });
    in_time("160 grants of an empty section", rounds).await?.map(|_| ())
}

/// Release with a cancelled context: the lease stayed for its whole time.
async fn lesson_cancelled_holder_does_not_keep_the_lease(lab: Lab) -> Verdict {
    let key = lab.key("cancelled");
    let (state, name) = (State::new(lab.a.clone()), key.clone());
    let (locked, is_locked) = tokio::sync::oneshot::channel();
    let holder = tokio::spawn(async move {
        let attempt = state.lock(&name, &LockOptions::new(LONG)).await;
        let _ = locked.send(());
        let guard = attempt.ok().and_then(LockAttempt::acquired);
        std::future::pending::<()>().await;
        drop(guard);
    });
    in_time("the holder gets the lock", is_locked).await?.map_err(|error| Failure::new(error.to_string()))?;
    holder.abort();
    let request = LockRequest { wait: LONG, ..exclusive(&key, LONG) };
    let outcome = in_time("a cancelled holder lets go", lab.b.lock_acquire(&request)).await??;
    holds(&key, "the lock of a cancelled holder is granted", matches!(outcome, LockOutcome::Granted(_)), outcome)
}

/// A record that was touched while it was expiring came back without ttl.
async fn lesson_touch_does_not_revive_the_dead(lab: Lab) -> Verdict {
    let key = lab.key("dead");
    lab.a.put(&key, &Put::new("x").expires_after(SHORT)).await?;
    lab.advance(PAST_SHORT).await;
    for ttl in [Ttl::Keep, Ttl::Clear, Ttl::After(LONG)] {
        equal(&key, &format!("touch({ttl:?}) finds an entry"), &lab.a.touch(&key, ttl).await?, &false)?;
        absent(&key, "an entry after touch", lab.read(&key).await?)?;
    }
    Ok(())
}

pub(crate) const CASES: &[Case] = &[
    case!("W1", lesson_cas_on_an_absent_key_creates_nothing, [Need::Has("cas")]),
    case!("V3", lesson_cas_without_ttl_clears_the_ttl, [Need::Has("cas")]),
    case!("C1", lesson_counter_can_be_read, [Need::Has("counters")]),
    case!("C1", lesson_set_ten_then_increment_is_wrong_type, [Need::Has("counters")]),
    case!("V3", lesson_sub_second_ttl_is_not_rounded_to_zero),
    case!("W1", lesson_concurrent_sets_are_each_one_step),
    case!("C2", lesson_windowed_counter_never_lacks_its_ttl, [Need::Has("counters")]),
    case!("C2", lesson_cancelled_increment_leaves_no_eternal_counter, [Need::Has("counters")]),
    case!("C2", lesson_throttle_window_ends_under_steady_traffic, [Need::Has("counters")]),
    case!("C1", lesson_overflow_never_wraps, [Need::Has("counters")]),
    case!("C1", lesson_old_value_does_not_reappear_after_a_counter, [Need::Has("counters")]),
    case!("M3", lesson_listing_shows_a_replaced_counter_once, [Need::Has("counters"), Need::Has("scan")]),
    case!("K2", lesson_wildcard_in_a_tenant_reads_nobody_elses_keys, [Need::Has("scan")]),
    case!("M3", lesson_listing_is_not_one_unbounded_page, [Need::Has("scan")]),
    case!("C4", lesson_calls_of_one_moment_are_counted_apart, [Need::Has("rate_limits")]),
    case!("L2", lesson_release_of_an_old_owner_keeps_the_new_one, [Need::Has("locks")]),
    case!("L4", lesson_sixteen_waiters_get_through_an_empty_section, [Need::Has("locks")]),
    case!("L1", lesson_cancelled_holder_does_not_keep_the_lease, [Need::Has("locks")]),
    case!("V4", lesson_touch_does_not_revive_the_dead),
];
