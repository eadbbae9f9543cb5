//! Many that want the same thing at the moment at which it becomes free.

use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::{Condition, Put, PutOutcome, StateKey, StateStore as _, Version};
use acteon_state_dynamodb::DynamoStore;
use acteon_test_support::DynamoServer;
use futures_util::future::join_all;
use tokio::sync::Barrier;

use crate::{config, key};

const TASKS: usize = 32;
const ROUNDS: usize = 1_000;
/// About as long as the first requests of the tasks take, so that some meet the item before it has expired.
const TTL: Duration = Duration::from_millis(8);

/// What a task saw of one race.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// The version that is there after it.
    version: Version,
    has_won: bool,
    /// Whether it was refused by the old item, which had not expired.
    met_old: bool,
}

/// Asks until the item is not the old one any more.
async fn race(store: &DynamoStore, key: &StateKey, old: Version) -> Seen {
    let put = Put::new("ours").if_absent();
    let mut met_old = false;
    loop {
        match store.put(key, &put).await.unwrap() {
            PutOutcome::Applied(version) => break Seen { version, has_won: true, met_old },
            PutOutcome::NotMet(Some(entry)) if entry.version == Some(old) => met_old = true,
            PutOutcome::NotMet(Some(entry)) => break Seen { version: entry.version.unwrap(), has_won: false, met_old },
            PutOutcome::NotMet(None) => panic!("refused by nothing"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_32_tasks_that_race_for_an_item_as_it_expires_exactly_one_wins_each_of_1000_times() {
    let server = DynamoServer::start().unwrap();
    let stores = [
        DynamoStore::connect(config(server.url())).await.unwrap(),
        DynamoStore::connect(config(server.url())).await.unwrap(),
    ];
    let old: Arc<Vec<_>> = Arc::new((0..ROUNDS).map(|_| Version::draw()).collect());
    // Tasks that stay, so that all begin a round at once.
    let barrier = Arc::new(Barrier::new(TASKS));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (store, barrier, old) = (stores[task % 2].clone(), barrier.clone(), old.clone());
            tokio::spawn(async move {
                let mut seen = Vec::with_capacity(ROUNDS);
                for (round, old) in old.iter().enumerate() {
                    let key = key(&format!("raced {round}"));
                    if task == 0 {
                        let put = Put { version: *old, ..Put::new("old").expires_after(TTL) };
                        store.put(&key, &put).await.unwrap();
                    }
                    barrier.wait().await;
                    seen.push(race(&store, &key, *old).await);
                    barrier.wait().await;
                }
                seen
            })
        })
        .collect();
    let seen: Vec<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    let mut close = 0;
    for round in 0..ROUNDS {
        let seen: Vec<Seen> = seen.iter().map(|seen| seen[round]).collect();
        let winners: Vec<_> = seen.iter().filter(|seen| seen.has_won).collect();
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        assert!(seen.iter().all(|seen| seen.version == winners[0].version), "round {round}: all see the winner");
        close += usize::from(seen.iter().any(|seen| seen.met_old));
    }
    assert!(close > 0, "the old item had always expired before the race");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_tasks_that_delete_and_recreate_an_item_each_version_is_deleted_by_one() {
    const PUTS: usize = 100;
    let server = DynamoServer::start().unwrap();
    let store = DynamoStore::connect(config(server.url())).await.unwrap();
    let key = key("deleted");
    for _ in 0..PUTS {
        let put = Put::new("v").if_absent();
        assert!(store.put(&key, &put).await.unwrap().is_applied());
        let deletes = join_all((0..4).map(|_| store.delete(&key, Condition::Version(put.version)))).await;
        let deleted = deletes.into_iter().filter(|outcome| outcome.as_ref().unwrap().is_deleted()).count();
        assert_eq!(deleted, 1);
    }
}
