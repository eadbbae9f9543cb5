//! Updates under a lock: what goes wrong with them is counted, over stores that are broken on purpose. On real time, as guards know no other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use acteon_faults::log::{Log, read};
use acteon_faults::safety::{Event, Updaters, Updates, Writing, updates};
use acteon_faults::seed_or;
use acteon_state_core::clock::ManualClock;
use acteon_state_core::{Scope, State};
use acteon_state_memory::MemoryStore;

use crate::SEED;
use crate::store::{Answers, Broken, Fault};

const LEASE: Duration = Duration::from_millis(60);
/// Tasks of each kind of writing.
const TASKS: u32 = 3;
/// How long they may take to meet what is looked for.
const RUN_MAX: Duration = Duration::from_secs(20);
/// How long they work where nothing is to be found.
const RUN: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(50);

/// Whether these events are among those that updates over a store with this fault give rise to.
async fn finds(fault: Fault, is_found: impl Fn(&[Event]) -> bool) -> bool {
    let seed = seed_or(SEED);
    let clock = Arc::new(ManualClock::new(1_700_000_000_000_000));
    let broken = Broken::new(Arc::new(MemoryStore::default()), fault, Answers::Arrive, clock, seed);
    let state = State::new(Arc::new(broken));
    let (folder, stop) = (tempfile::tempdir().expect("a folder"), Arc::new(AtomicBool::new(false)));
    let path = folder.path().join("log");
    let log = Log::create(&path).expect("a file");
    let scope = Scope::new("faults", "updaters", "object").expect("the names are valid");
    let updaters = Updaters { seed, tasks: TASKS, scope, lease: LEASE, patience: 4 * LEASE, stop: stop.clone() };
    let running = tokio::spawn(async move { updaters.run(&state, &log).await });
    let (mut waited, mut found) = (Duration::ZERO, false);
    while !found && waited < if fault == Fault::None { RUN } else { RUN_MAX } {
        tokio::time::sleep(POLL).await;
        waited += POLL;
        found = is_found(&read(&[&path]).expect("the log that is written").events);
    }
    stop.store(true, Ordering::Relaxed);
    running.await.expect("no panic");
    found
}

/// Whether it is true of the updates of any kind of writing.
fn any(is_found: impl Fn(Updates) -> bool) -> impl Fn(&[Event]) -> bool {
    move |events| Writing::ALL.into_iter().any(|writing| is_found(updates(events, writing)))
}

fn is_wrong(events: &[Event]) -> bool {
    let is_wrong = |event: &Event| {
        matches!(event, Event::HeldAfterRelease | Event::HeldByNobody { .. } | Event::LostLate { was_stalled: false })
    };
    events.iter().any(is_wrong)
        || any(|updates| updates.tokens_fallen + updates.overlaps > 0)(events)
        || updates(events, Writing::Compared).lost > 0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_found_where_nothing_is_broken() {
    assert!(!finds(Fault::None, is_wrong).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_still_held_after_its_release_is_found() {
    assert!(finds(Fault::ReleaseNothing, |events| events.contains(&Event::HeldAfterRelease)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_goes_on_after_it_was_dropped_is_found() {
    let is_left = |event: &Event| matches!(event, Event::HeldByNobody { .. });
    assert!(finds(Fault::WaitOn, |events| events.iter().any(is_left)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_that_overlap_since_one_was_not_extended_are_found() {
    assert!(finds(Fault::ExtendNothing, any(|updates| updates.overlaps > 0)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_granted_twice_overlaps_and_loses_updates() {
    assert!(finds(Fault::GrantAnyway, any(|updates| updates.overlaps > 0)).await);
    assert!(finds(Fault::GrantAnyway, |events| updates(events, Writing::Plain).lost > 0).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_do_not_rise_are_found() {
    assert!(finds(Fault::TokenAgain, any(|updates| updates.tokens_fallen > 0)).await);
}

/// Found on a busy machine: a task that comes to its poll late, and before the runtime has looked at its timers, sees nothing yet. What it saw a moment later
/// was taken for the guard's fault.
#[tokio::test]
async fn a_guard_is_not_blamed_where_its_process_is_starved() {
    let starving = tokio::spawn(async {
        loop {
            // Longer than the share of the lease that is left when a guard tells, on the only thread that there is.
            std::thread::sleep(LEASE / 6);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let is_late = |event: &Event| matches!(event, Event::LostLate { was_stalled: false });
    assert!(!finds(Fault::None, |events| events.iter().any(is_late)).await);
    starving.abort();
}
