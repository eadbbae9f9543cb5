//! The memory store on real threads and a real clock: what a deterministic run cannot show, and that a long history of few objects is judged.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use acteon_faults::{HistoryRecorder, Kind, Rules, Terms, Workload, judge, seed};
use acteon_state_conformance::objects::BoundedCounter;
use acteon_state_core::{Scope, State};
use acteon_state_memory::MemoryStore;

/// A counter that is at its bound most of the time.
fn terms() -> Terms {
    let counter = BoundedCounter { min: Some(0), ..BoundedCounter::at_most(20) };
    Terms { counter, lock_wait: Duration::from_millis(5) }
}

fn workload(seed: u64) -> Workload {
    let scope = Scope::new("faults", "threads", "object").expect("the names are valid");
    Workload {
        tasks: 8,
        calls: 1_000,
        objects: 1,
        terms: terms(),
        lifetime: Duration::from_millis(5),
        pause_max: Duration::from_micros(200),
        // Shorter than the wait for a lock: some waits are given up, and must leave nothing behind that no order explains.
        patience: Some(Duration::from_millis(2)),
        ..Workload::new(seed, scope)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_memory_store_passes_on_threads() {
    let (seed, store) = (seed(), MemoryStore::default());
    let states = [State::new(Arc::new(store.handle())), State::new(Arc::new(store))];
    let recorder = HistoryRecorder::default();
    workload(seed).run(&states, &recorder).await.unwrap();
    let history = recorder.finish();
    assert!(history.iter().any(|call| call.is_maybe()), "no wait was given up");
    let rules = Rules { counter: terms().counter, ..Rules::default() };
    judge(&history, &rules)
        .settle(seed, Path::new(env!("CARGO_TARGET_TMPDIR")))
        .unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thousands_of_calls_on_one_object_are_judged() {
    let (seed, state) = (seed(), State::new(Arc::new(MemoryStore::default())));
    for kind in [Kind::Register, Kind::Counter] {
        let recorder = HistoryRecorder::default();
        let workload = Workload { kinds: vec![kind], pause_max: Duration::ZERO, patience: None, ..workload(seed) };
        workload.run(std::slice::from_ref(&state), &recorder).await.unwrap();
        let rules = Rules { counter: terms().counter, ..Rules::default() };
        let report = judge(&recorder.finish(), &rules);
        assert_eq!((report.calls, report.objects), (8_000, 1));
        report.settle(seed, Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}
