//! Several keys at once: what a transaction decides holds for all of its keys, and nobody sees a part of it.

use acteon_state_core::{
    BatchOp, BatchReply, Condition, Effect, ErrorKind, Get, Increment, Put, StateKey, StateStore, TransactOp,
    TransactOutcome,
};
use acteon_state_postgres::PostgresStore;
use bytes::Bytes;

use super::{config, connect, key, start};

/// "Put one if the other is absent", both ways at once: on two nodes, since one node's own batches could hide it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_transactions_that_exclude_each_other_by_absent_keys_one_is_refused() {
    let server = start();
    let (one, two) = (connect(config(&server)).await, connect(config(&server)).await);
    for round in 0..100 {
        let (a, b) = (key(&format!("a {round}")), key(&format!("b {round}")));
        let (first, second) = tokio::join!(put_unless(&one, &a, &b), put_unless(&two, &b, &a));
        assert!(first != second, "round {round}: {first} {second}");
        let left = [&a, &b].map(|key| one.get(key, Get::default()));
        let [left_a, left_b] = left;
        assert!(left_a.await.unwrap().is_some() != left_b.await.unwrap().is_some(), "round {round}");
    }
    for store in [one, two] {
        store.close().await.unwrap();
    }
}

async fn put_unless(store: &PostgresStore, wanted: &StateKey, absent: &StateKey) -> bool {
    let ops = [TransactOp::Check(absent.clone(), Condition::Absent), TransactOp::Put(wanted.clone(), Put::new("v"))];
    store.transact(&ops).await.unwrap() == TransactOutcome::Committed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_all_of_a_transaction_or_nothing() {
    const ROUNDS: u32 = 200;
    let server = start();
    let (writer, reader) = (connect(config(&server)).await, connect(config(&server)).await);
    let keys = ["x", "y", "z"].map(key);
    let write = async {
        for round in 0..ROUNDS {
            let ops: Vec<_> =
                keys.iter().map(|key| TransactOp::Put(key.clone(), Put::new(round.to_string()))).collect();
            assert_eq!(writer.transact(&ops).await.unwrap(), TransactOutcome::Committed);
        }
    };
    let gets: Vec<_> = keys.iter().map(|key| BatchOp::Get(key.clone(), Get::default())).collect();
    let read = async {
        let mut seen = None;
        while seen.as_deref() != Some((ROUNDS - 1).to_string().as_bytes()) {
            let values: Vec<Option<Bytes>> = reader.batch(&gets).await.unwrap().into_iter().map(value).collect();
            assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
            seen = values[0].clone();
        }
    };
    tokio::join!(write, read);
    for store in [writer, reader] {
        store.close().await.unwrap();
    }
}

fn value(reply: acteon_state_core::Result<BatchReply>) -> Option<Bytes> {
    match reply.unwrap() {
        BatchReply::Got(entry) => entry.map(|entry| entry.value),
        other => panic!("{other:?}"),
    }
}

/// While one node changes keys in every way, another does the same: each answer must fit what the others left. Rows come and go
/// while statements wait for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_come_and_go_under_two_nodes_lose_no_step() {
    const ROUNDS: usize = 60;
    let server = start();
    let stores = [connect(config(&server)).await, connect(config(&server)).await];
    let work = async |store: &PostgresStore| {
        let mut taken = 0;
        for round in 0..ROUNDS {
            // Two keys, so that rows of one statement are written together.
            let mut ops = Vec::new();
            for id in ["m", "n"] {
                ops.push(BatchOp::Increment(key(id), Increment::by(1)));
                ops.push(BatchOp::Increment(key(id), Increment::by(1)));
                if round % 3 == 0 {
                    ops.push(BatchOp::Take(key(id)));
                }
            }
            for reply in store.batch(&ops).await.unwrap() {
                if let BatchReply::Taken(Some(entry)) = reply.unwrap() {
                    taken += std::str::from_utf8(&entry.value).unwrap().parse::<i64>().unwrap();
                }
            }
        }
        taken
    };
    let (one, two) = tokio::join!(work(&stores[0]), work(&stores[1]));
    let mut total = one + two;
    for id in ["m", "n"] {
        if let Some(entry) = stores[0].take(&key(id)).await.unwrap() {
            total += std::str::from_utf8(&entry.value).unwrap().parse::<i64>().unwrap();
        }
    }
    assert_eq!(total, 2 * 2 * 2 * i64::try_from(ROUNDS).unwrap());
    for store in stores {
        store.close().await.unwrap();
    }
}

/// The server would end the connection at the sight of such a message, and nobody would know what became of it.
#[tokio::test]
async fn a_transaction_above_the_limits_of_the_protocol_is_refused_before_it_is_sent() {
    let server = start();
    let store = connect(config(&server)).await;
    let large = Bytes::from(vec![0; 64 << 20]);
    let put = |id: usize| TransactOp::Put(key(&id.to_string()), Put::new(large.clone()));
    let error = store.transact(&(0..17).map(put).collect::<Vec<_>>()).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::TooLarge, Effect::NotApplied), "{error}");
    assert_eq!(store.get(&key("0"), Get::default()).await.unwrap(), None);
    store.close().await.unwrap();
}

/// Keys at their longest, of characters that sort differently by bytes, by UTF-16 and in languages; the largest value by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extreme_keys_and_values_come_back_as_they_were() {
    let server = start();
    let store = connect(config(&server)).await;
    let long = |character: char, bytes: usize| character.to_string().repeat(bytes / character.len_utf8());
    let extremes = ['\u{1}', '\u{7f}', 'ß', '\u{fffe}', '\u{ffff}', '\u{10000}', char::MAX].map(|character| {
        let name = long(character, 64);
        StateKey::new(&name, &name, &name, &long(character, 512)).unwrap()
    });
    let large = Bytes::from(vec![0xA5; 64 << 20]);
    let ops: Vec<_> = extremes.iter().map(|key| BatchOp::Put(key.clone(), Put::new("v").if_absent())).collect();
    for reply in store.batch(&ops).await.unwrap() {
        assert!(matches!(reply.unwrap(), BatchReply::Put(outcome) if outcome.is_applied()));
    }
    let gets: Vec<_> = extremes.iter().map(|key| BatchOp::Get(key.clone(), Get::default())).collect();
    assert!(store.batch(&gets).await.unwrap().into_iter().all(|reply| value(reply).is_some()));
    assert!(store.put(&extremes[6], &Put::new(large.clone())).await.unwrap().is_applied());
    // The current entry comes back with the refusal; then the value goes by way of a time to live and a fence.
    let refused = store.put(&extremes[6], &Put::new("other").if_absent()).await.unwrap();
    assert!(!refused.is_applied());
    assert!(store.touch(&extremes[6], acteon_state_core::Ttl::Clear).await.unwrap());
    assert_eq!(store.take(&extremes[6]).await.unwrap().unwrap().value, large);
    store.close().await.unwrap();
}
