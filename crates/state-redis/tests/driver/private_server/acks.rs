//! Acknowledgements that come at the same moment: they share calls, and nothing else.

use std::time::Duration;

use acteon_state_core::{
    ClaimDue, ClaimOutcome, ClaimToken, DueAt, DueItem, Effect, ErrorKind, Result, Schedule, StateKey, StateStore,
};
use acteon_state_redis::{RedisConfig, RedisStore};
use acteon_test_support::RedisServer;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use futures_util::poll;

use super::{config, connect, key, server};

/// Schedules so many items and claims them, in their order.
async fn claimed(store: &RedisStore, queue: &StateKey, count: u32) -> Vec<DueItem> {
    let schedules: Vec<_> = (0..count)
        .map(|number| Schedule {
            id: format!("item {number:04}"),
            due_at: DueAt::UnixMs(u64::from(number) + 1),
            payload: "p".into(),
        })
        .collect();
    join_all(schedules.iter().map(|schedule| store.schedule(queue, schedule))).await;
    let claim = ClaimDue { limit: count, visibility: Duration::from_secs(600) };
    let items = store.claim_due(queue, claim).await.unwrap().items;
    assert_eq!(items.len(), count as usize);
    items
}

fn ack<'a>(store: &'a RedisStore, queue: &'a StateKey, item: &'a DueItem) -> BoxFuture<'a, Result<ClaimOutcome>> {
    store.ack(queue, &item.id, item.token).boxed()
}

/// Acknowledges each item as far as that goes at once: the first by itself, the others have gathered.
async fn begun<'a>(
    store: &'a RedisStore,
    queue: &'a StateKey,
    items: &'a [DueItem],
) -> Vec<BoxFuture<'a, Result<ClaimOutcome>>> {
    let mut acks: Vec<_> = items.iter().map(|item| ack(store, queue, item)).collect();
    for ack in &mut acks {
        assert!(poll!(ack).is_pending());
    }
    acks
}

/// How many calls of scripts the server has carried out.
fn calls(server: &RedisServer) -> u64 {
    let stats = server.query(&["INFO", "commandstats"]).unwrap().unwrap();
    let calls = stats.lines().filter_map(|line| {
        let line = line.strip_prefix("cmdstat_eval").map(|line| line.trim_start_matches("sha"))?;
        line.strip_prefix(":calls=")?.split(',').next()?.parse::<u64>().ok()
    });
    calls.sum()
}

fn name(queue: &StateKey, suffix: &str) -> String {
    format!("{{acteon:{}}}:{suffix}", queue.text())
}

/// The items 3, 8, 13 and so on have another claim, 7 is none any more, and 1 is acknowledged twice. Returns how many
/// acknowledgements there were, and how many calls of scripts they took.
async fn acknowledge_all(is_in_tasks: bool) -> (usize, u64) {
    let server = server();
    let store = connect(&server).await;
    let queues = [key("many"), key("more")];
    let mut acks = Vec::new();
    for queue in &queues {
        let mut items = claimed(&store, queue, 250).await;
        items.iter_mut().skip(3).step_by(5).for_each(|item| item.token = ClaimToken::draw());
        server.query(&["HSET", &name(queue, "items"), &items[7].id, "?"]).unwrap();
        acks.push((queue.clone(), items[1].clone()));
        acks.extend(items.into_iter().map(|item| (queue.clone(), item)));
    }
    let before = calls(&server);
    let each = acks.iter().cloned().map(|(queue, item)| {
        let store = store.clone();
        async move { store.ack(&queue, &item.id, item.token).await }
    });
    let outcomes: Vec<_> = if is_in_tasks {
        join_all(each.map(tokio::spawn).collect::<Vec<_>>()).await.into_iter().map(Result::unwrap).collect()
    } else {
        join_all(each).await
    };
    let made = calls(&server) - before;

    let mut done_twice = 0;
    for ((queue, item), outcome) in acks.iter().zip(outcomes) {
        let number: usize = item.id["item ".len()..].parse().unwrap();
        match (number, outcome) {
            (7, Err(error)) => {
                assert_eq!((error.kind(), error.effect()), (ErrorKind::Corrupt, Effect::NotApplied));
                assert_eq!(error.key(), Some(queue));
                assert!(error.message().contains(&item.id), "{error}");
            }
            (1, Ok(outcome)) => done_twice += usize::from(outcome == ClaimOutcome::Done),
            (number, Ok(outcome)) => {
                assert_ne!(number, 7);
                let expected = if number % 5 == 3 { ClaimOutcome::Lost } else { ClaimOutcome::Done };
                assert_eq!(outcome, expected, "{number}");
            }
            (number, Err(error)) => panic!("{number}: {error}"),
        }
    }
    assert_eq!(done_twice, queues.len(), "an item is removed once");
    for queue in &queues {
        for (command, suffix) in [("ZCARD", "due"), ("HLEN", "items")] {
            // Those that others have claimed, and the one that is none.
            assert_eq!(server.query(&[command, &name(queue, suffix)]).unwrap().unwrap(), "51", "{suffix}");
        }
    }
    (acks.len(), made)
}

#[tokio::test]
async fn many_share_calls_and_have_their_own_outcomes() {
    for is_in_tasks in [false, true] {
        let (acks, calls) = acknowledge_all(is_in_tasks).await;
        // Of two queues, and with the first one by itself.
        assert!(calls <= 8, "{acks} acknowledgements took {calls} calls");
    }
}

/// How many find each other there is up to the threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_of_several_threads_have_their_own_outcomes() {
    for _ in 0..10 {
        acknowledge_all(true).await;
    }
}

#[tokio::test]
async fn one_that_is_dropped_before_the_call_is_not_part_of_it() {
    let server = server();
    let store = &connect(&server).await;
    let queue = &key("dropped");
    let items = claimed(store, queue, 6).await;
    let before = calls(&server);
    let mut acks = begun(store, queue, &items).await;
    // The first one left by itself; of the others the first and the last leave before they are sent.
    drop((acks.remove(5), acks.remove(1)));
    assert!(join_all(acks).await.into_iter().all(|outcome| outcome.unwrap() == ClaimOutcome::Done));
    assert_eq!(calls(&server) - before, 2);

    // And where all have left, nothing is left of them.
    let mut acks: Vec<_> = [1, 5].map(|index| ack(store, queue, &items[index])).into();
    let mut first = ack(store, queue, &items[0]);
    assert!(poll!(&mut first).is_pending());
    for ack in &mut acks {
        assert!(poll!(ack).is_pending());
    }
    drop(acks);
    assert_eq!(first.await.unwrap(), ClaimOutcome::Lost);
    for index in [1, 5] {
        assert_eq!(ack(store, queue, &items[index]).await.unwrap(), ClaimOutcome::Done, "{index}");
    }
}

#[tokio::test]
async fn one_that_is_dropped_during_the_call_harms_nobody() {
    let server = server();
    let store = &connect(&server).await;
    let queue = &key("dropped");
    let items = claimed(store, queue, 10).await;
    let before = calls(&server);
    let mut acks = begun(store, queue, &items).await;
    // The task that makes the call steps back once.
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    drop((acks.remove(9), acks.remove(1)));
    assert!(join_all(acks).await.into_iter().all(|outcome| outcome.unwrap() == ClaimOutcome::Done));
    assert_eq!(calls(&server) - before, 2);
    for index in [1, 9] {
        assert_eq!(ack(store, queue, &items[index]).await.unwrap(), ClaimOutcome::Lost, "{index} went along");
    }
}

/// Each of them could be the one that others depend on.
#[tokio::test]
async fn one_that_nobody_looks_at_holds_nobody_up() {
    let server = server();
    let store = &connect(&server).await;
    let queue = &key("aside");
    let items = claimed(store, queue, 10).await;
    for aside in 0..4 {
        let mut acks = begun(store, queue, &items).await;
        let kept = acks.remove(aside);
        let outcomes = join_all(acks).await;
        let expected = if aside == 0 { ClaimOutcome::Done } else { ClaimOutcome::Lost };
        assert!(outcomes.into_iter().all(|outcome| outcome.unwrap() == expected));
        assert_eq!(kept.await.unwrap(), expected);
    }
}

#[tokio::test]
async fn those_that_have_gathered_are_waited_for_when_the_store_is_closed() {
    let server = server();
    let store = &connect(&server).await;
    let queue = &key("closed");
    let items = claimed(store, queue, 5).await;
    let acks = begun(store, queue, &items).await;
    let (closed, outcomes) = futures_util::join!(store.close(), join_all(acks));
    closed.unwrap();
    assert!(outcomes.into_iter().all(|outcome| outcome.unwrap() == ClaimOutcome::Done));
}

#[tokio::test]
async fn a_call_that_fails_does_so_for_each_and_a_forgotten_script_for_none() {
    let server = server();
    let store = &connect(&server).await;
    let (queue, foreign) = (&key("forgotten"), &key("foreign"));
    let items = claimed(store, queue, 20).await;
    server.query(&["SCRIPT", "FLUSH"]).unwrap();
    server.query(&["SET", &name(foreign, "items"), "x"]).unwrap();
    let (done, failed) = futures_util::join!(
        join_all(items.iter().map(|item| ack(store, queue, item))),
        join_all(items.iter().map(|item| ack(store, foreign, item))),
    );
    assert!(done.into_iter().all(|outcome| outcome.unwrap() == ClaimOutcome::Done));
    for outcome in failed {
        let error = outcome.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Corrupt, Effect::NotApplied), "{error}");
        assert_eq!(error.key(), Some(foreign));
    }
}

#[tokio::test]
async fn when_the_server_hangs_each_ends_in_time_with_an_unknown_effect() {
    let server = server();
    let queue = &key("frozen");
    let items = claimed(&connect(&server).await, queue, 20).await;
    let config = RedisConfig { operation_timeout: Duration::from_millis(300), ..config(&server) };
    let store = &RedisStore::connect(config).await.unwrap();
    server.pause().unwrap();
    let outcomes = join_all(items.iter().map(|item| ack(store, queue, item))).await;
    server.resume().unwrap();
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::Unknown), "{error}");
        assert_eq!(error.key(), Some(queue));
    }
}
