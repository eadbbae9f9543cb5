//! The judges find what they are for: stores that are broken on purpose, each in one way, under the same workload.
//!
//! Everything runs on one thread and a clock that is moved by hand, so a seed gives the same history each time. `ACTEON_SEED` tries another.

mod store;
mod updaters;

use std::fs;
use std::sync::Arc;

use acteon_faults::{Anomaly, History, HistoryRecorder, Report, Rules, Workload, judge, seed_or};
use acteon_state_conformance::linearizability::Budget;
use acteon_state_core::clock::ManualClock;
use acteon_state_core::{Scope, State, StateStore};
use acteon_state_memory::{MemoryConfig, MemoryStore};

use store::{Answers, Broken, Fault};

/// Histories of each store. The workload is mixed, so not every one of them meets the fault.
const ROUNDS: u64 = 10;

const SEED: u64 = 20_240_611;

/// Records one history of a store with this fault, over two handles.
async fn record(fault: Fault, answers: Answers, seed: u64, calls: u32) -> History {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000_000));
    let memory = MemoryStore::open_with_clock(&MemoryConfig::default(), clock.clone()).expect("the default is allowed");
    let state = |store: MemoryStore, seed| {
        let broken: Arc<dyn StateStore> = Arc::new(Broken::new(Arc::new(store), fault, answers, clock.clone(), seed));
        State::new(broken)
    };
    let states = [state(memory.handle(), seed), state(memory, seed + 1)];
    let recorder = HistoryRecorder::with_clock(clock.clone());
    let scope = Scope::new("faults", "planted", "object").expect("the names are valid");
    let workload = Workload { calls, ..Workload::new(seed, scope) };
    let failures = workload.run(&states, &recorder).await.expect("no error but those of faults");
    assert_eq!(failures.contains_key("timeout"), answers == Answers::AreLost, "{failures:?}");
    recorder.finish()
}

/// Judges several histories of a store with this fault: whatever is found is this anomaly, or cannot be told from it, and it is found
/// where nothing else would explain it.
async fn finds(fault: Fault, anomaly: Anomaly) {
    let first = seed_or(SEED);
    let mut found = 0;
    for seed in first..first + ROUNDS {
        let report = judge(&record(fault, Answers::Arrive, seed, 400).await, &Rules::default());
        assert!(report.undecided.is_empty(), "ACTEON_SEED={seed}: {:?}", report.undecided);
        for finding in &report.findings {
            let is_named = finding.anomalies.contains(&anomaly);
            assert!(is_named, "ACTEON_SEED={seed}: {}\n{}", finding.title(), finding.counterexample);
            assert!(finding.counterexample.calls.len() <= 8, "ACTEON_SEED={seed}: {}", finding.counterexample);
            found += u32::from(finding.anomalies == [anomaly]);
        }
    }
    assert!(found > 0, "ACTEON_SEED={first}: {anomaly} was not found in {ROUNDS} histories");
}

#[tokio::test]
async fn an_unbroken_store_passes() {
    let first = seed_or(SEED);
    for seed in first..first + ROUNDS {
        let history = record(Fault::None, Answers::Arrive, seed, 1_000).await;
        let folder = tempfile::tempdir().unwrap().keep();
        let report = judge(&history, &Rules::default());
        assert!(report.calls >= 6_000 && report.objects >= 12, "{} calls, {} objects", report.calls, report.objects);
        report.settle(seed, &folder).unwrap_or_else(|wrong| panic!("{wrong}"));
        fs::remove_dir(&folder).unwrap();
    }
}

#[tokio::test]
async fn a_store_whose_answers_are_lost_passes() {
    let first = seed_or(SEED);
    for seed in first..first + ROUNDS {
        let history = record(Fault::None, Answers::AreLost, seed, 400).await;
        assert!(history.iter().filter(|call| call.is_maybe()).count() > 50);
        let folder = tempfile::tempdir().unwrap().keep();
        judge(&history, &Rules::default()).settle(seed, &folder).unwrap_or_else(|wrong| panic!("{wrong}"));
        fs::remove_dir(&folder).unwrap();
    }
}

#[tokio::test]
async fn faults_are_found_although_answers_are_lost() {
    // With some seeds a few of the histories take much of the usual budget, and then others show the fault.
    let rules = Rules { budget: Budget { configurations: 50_000 }, ..Rules::default() };
    let first = seed_or(SEED);
    for (fault, kind) in [
        (Fault::ClaimInTwoSteps, "register"),
        (Fault::Resend, "counter"),
        (Fault::TokenAgain, "lock"),
        (Fault::HandOutAgain, "queue"),
    ] {
        let mut found = 0;
        for seed in first..first + ROUNDS {
            let report = judge(&record(fault, Answers::AreLost, seed, 400).await, &rules);
            for finding in &report.findings {
                assert!(finding.object.starts_with(kind), "ACTEON_SEED={seed}: {}", finding.title());
                found += 1;
            }
        }
        assert!(found > 0, "ACTEON_SEED={first}: {fault:?} was not found in {ROUNDS} histories");
    }
}

#[tokio::test]
async fn equal_seeds_give_equal_histories() {
    let seed = seed_or(SEED);
    // Claim tokens are drawn anew; everything else repeats.
    let told = |history: History| history.iter().map(|call| (call.began, call.ended)).collect::<Vec<_>>();
    assert_eq!(
        told(record(Fault::None, Answers::Arrive, seed, 100).await),
        told(record(Fault::None, Answers::Arrive, seed, 100).await)
    );
}

#[tokio::test]
async fn a_lost_update_is_found() {
    finds(Fault::SwapInTwoSteps, Anomaly::LostUpdate).await;
}

#[tokio::test]
async fn a_stale_read_is_found() {
    finds(Fault::ReadFromMemory, Anomaly::StaleRead).await;
}

#[tokio::test]
async fn a_double_win_of_put_if_absent_is_found() {
    finds(Fault::ClaimInTwoSteps, Anomaly::DoubleWin).await;
}

#[tokio::test]
async fn an_increment_that_counts_twice_because_it_was_sent_again_is_found() {
    finds(Fault::Resend, Anomaly::DoubleIncrement).await;
}

#[tokio::test]
async fn a_token_that_is_used_again_is_found() {
    finds(Fault::TokenAgain, Anomaly::TokenReuse).await;
}

#[tokio::test]
async fn an_entry_that_comes_back_after_its_time_is_found() {
    finds(Fault::Revive, Anomaly::Resurrection).await;
}

#[tokio::test]
async fn an_entry_that_is_taken_twice_is_found() {
    finds(Fault::TakeInTwoSteps, Anomaly::DoubleTake).await;
}

#[tokio::test]
async fn an_item_that_is_claimed_twice_is_found() {
    finds(Fault::HandOutAgain, Anomaly::DoubleClaim).await;
}

#[tokio::test]
async fn an_ack_of_a_lost_claim_is_found() {
    finds(Fault::AckAnyway, Anomaly::AckOfLostClaim).await;
}

#[tokio::test]
async fn two_holders_of_a_lock_are_found() {
    finds(Fault::GrantAnyway, Anomaly::LockOverlap).await;
}

#[tokio::test]
async fn a_fence_that_is_ignored_is_found() {
    finds(Fault::WriteAnyway, Anomaly::FenceIgnored).await;
}

#[tokio::test]
async fn what_is_wrong_is_drawn_and_the_message_says_where() {
    let first = seed_or(SEED);
    let mut reports: Vec<(u64, Report)> = Vec::new();
    for seed in first..first + ROUNDS {
        reports.push((seed, judge(&record(Fault::Resend, Answers::Arrive, seed, 200).await, &Rules::default())));
    }
    let (seed, report) = reports.iter().find(|(_, report)| !report.is_clean()).expect("increments counted twice");
    let folder = tempfile::tempdir().unwrap();
    let message = report.settle(*seed, &folder.path().join("drawings")).unwrap_err();
    assert!(message.contains(&format!("ACTEON_SEED={seed}")), "{message}");
    for entry in fs::read_dir(folder.path().join("drawings")).unwrap() {
        let path = entry.unwrap().path();
        assert!(message.contains(path.to_str().unwrap()), "{message}");
        assert!(fs::read_to_string(&path).unwrap().contains("double increment"));
    }
}
