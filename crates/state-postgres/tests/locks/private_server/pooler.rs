//! Behind a PgBouncer that hands out its connections per transaction, where nobody can listen.

use std::time::{Duration, Instant};

use acteon_state_core::StateStore;
use acteon_state_postgres::sqlx::PgConnection;
use acteon_state_postgres::{TxLockOutcome, sqlx};
use acteon_test_support::{PgBouncer, PoolMode};

use super::waiting::hand_overs;
use super::{PATIENCE, connect, granted, key, listeners, request, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_get_the_lock_by_their_own_sleep() {
    let server = start();
    let bouncer = PgBouncer::start(&server, PoolMode::Transaction).unwrap();
    let stores = [connect(&bouncer.url()).await, connect(&bouncer.url()).await];
    let key = key("deaf");
    let holder = request(&key, Duration::ZERO);
    granted(&stores[0], &holder).await;
    let waiters: Vec<_> = (0..8)
        .map(|index| {
            let (store, request) = (stores[index % 2].clone(), request(&key, PATIENCE));
            tokio::spawn(async move {
                granted(&store, &request).await;
                store.lock_release(&request.key, request.owner).await.unwrap();
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let released = Instant::now();
    stores[0].lock_release(&key, holder.owner).await.unwrap();
    for waiter in waiters {
        waiter.await.unwrap();
    }
    println!("8 hand-overs behind a pooler: {:?}", released.elapsed());
    assert_eq!(listeners(&server), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_behind_a_pooler_wakes_those_who_can_listen() {
    let server = start();
    let bouncer = PgBouncer::start(&server, PoolMode::Transaction).unwrap();
    let (holding, waiting) = (connect(&bouncer.url()).await, connect(&server.url()).await);
    let total = hand_overs(&server, &holding, &waiting, 8).await;
    assert!(total < Duration::from_secs(1), "{total:?}");
}

#[tokio::test]
async fn work_runs_under_a_lock() {
    let server = start();
    server.query("CREATE TABLE plain (n bigint)").unwrap();
    let bouncer = PgBouncer::start(&server, PoolMode::Transaction).unwrap();
    let stores = [connect(&bouncer.url()).await, connect(&bouncer.url()).await];
    for round in 1..=20_i64 {
        let outcome = stores[usize::from(round % 2 == 0)]
            .with_tx_lock(&key("pooled"), PATIENCE, async |tx: &mut PgConnection| {
                let insert = sqlx::query("INSERT INTO plain VALUES ($1)").bind(round).persistent(false);
                insert.execute(&mut *tx).await.unwrap();
                let count = sqlx::query_as("SELECT count(*) FROM plain").persistent(false);
                let (count,): (i64,) = count.fetch_one(&mut *tx).await.unwrap();
                Ok::<_, acteon_state_core::Error>(count)
            })
            .await
            .unwrap();
        assert_eq!(outcome, TxLockOutcome::Done(round));
    }
    for store in stores {
        store.close().await.unwrap();
    }
}
