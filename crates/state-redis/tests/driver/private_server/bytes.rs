//! What is stored: readable, equal to the contract's records, and nothing foreign is taken for it.

use std::time::Duration;

use acteon_state_core::lock::record::LockRecord;
use acteon_state_core::record::{ItemRecord, Record};
use acteon_state_core::{
    BatchOp, ClaimDue, Claimed, Condition, DeleteOutcome, DueAt, Effect, ErrorKind, FencingToken, Get, Increment,
    LockOutcome, LockRequest, Put, RateLimit, Scan, Schedule, Scope, StateStore, TransactOp, TransactOutcome, Ttl,
};

use super::{connect, key, server, text};

#[tokio::test]
async fn a_value_is_readable_in_redis_cli() {
    let server = server();
    let store = connect(&server).await;
    let (plain, fenced, counter) = (key("plain"), key("fenced"), key("counter"));
    store.put(&plain, &Put::new("hello")).await.unwrap();
    store.put(&fenced, &Put::new("hello").fenced_by(FencingToken::new(255).unwrap())).await.unwrap();
    store.increment(&counter, Increment::by(42)).await.unwrap();
    let get = |key| server.query(&["GET", &text(key)]).unwrap().unwrap();
    assert!(get(&plain).starts_with('v') && get(&plain).ends_with(" hello"));
    assert!(get(&fenced).ends_with("000000000000ff hello"));
    assert_eq!(get(&counter), "42");
    for key in [&plain, &fenced, &counter] {
        assert!(Record::parse(get(key).as_bytes()).is_some());
    }
}

#[tokio::test]
async fn a_fence_survives_writes_that_bring_none() {
    let server = server();
    let store = connect(&server).await;
    let key = key("fence");
    let token = |number| FencingToken::new(number).unwrap();
    store.put(&key, &Put::new("1").fenced_by(token(7))).await.unwrap();
    store.put(&key, &Put::new("2")).await.unwrap();
    assert_eq!(store.get(&key, Get::default()).await.unwrap().unwrap().fence, Some(token(7)));
    assert!(!store.put(&key, &Put::new("3").fenced_by(token(6))).await.unwrap().is_applied());
    assert!(store.put(&key, &Put::new("4").fenced_by(token((1 << 53) - 1))).await.unwrap().is_applied());
}

#[tokio::test]
async fn values_of_any_bytes_come_back() {
    let server = server();
    let store = connect(&server).await;
    let all: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    for value in [Vec::new(), all] {
        for condition in [Condition::Absent, Condition::Always, Condition::Fence(FencingToken::new(1).unwrap())] {
            let key = key("bytes");
            let put = Put::new(value.clone()).when(condition).ttl(Ttl::After(Duration::from_secs(60)));
            assert!(store.put(&key, &put).await.unwrap().is_applied());
            let entry = store.get(&key, Get::with_ttl()).await.unwrap().unwrap();
            assert_eq!((&entry.value[..], entry.version), (&value[..], Some(put.version)));
            assert!(entry.ttl.is_some_and(|ttl| ttl > Duration::from_secs(30)));
        }
    }
}

#[tokio::test]
async fn a_repeated_put_finds_itself_under_every_condition() {
    let server = server();
    let store = connect(&server).await;
    for condition in [Condition::Absent, Condition::Always, Condition::Fence(FencingToken::new(1).unwrap())] {
        let key = key("repeated");
        let put = Put::new("once").when(condition);
        assert!(store.put(&key, &put).await.unwrap().is_applied());
        assert!(store.put(&key, &put).await.unwrap().is_applied());
        assert!(!store.put(&key, &Put::new("other").if_absent()).await.unwrap().is_applied());
    }
}

#[tokio::test]
async fn foreign_data_is_corrupt_and_can_be_deleted() {
    let server = server();
    let store = connect(&server).await;
    for (command, value) in
        [("RPUSH", "x"), ("SET", "hello"), ("SET", ""), ("SET", "007"), ("SET", "99999999999999999999")]
    {
        let key = key("foreign");
        server.query(&[command, &text(&key), value]).unwrap();
        let put = Put::new("mine");
        let errors = [
            store.get(&key, Get::default()).await.unwrap_err(),
            store.get(&key, Get::with_ttl()).await.unwrap_err(),
            store.put(&key, &put.clone().if_absent()).await.unwrap_err(),
            store.put(&key, &put.clone().if_version(put.version)).await.unwrap_err(),
            store.increment(&key, Increment::by(1)).await.unwrap_err(),
            // Nothing is removed that nobody could be given.
            store.take(&key).await.unwrap_err(),
            store.batch(&[BatchOp::Take(key.clone())]).await.unwrap().remove(0).unwrap_err(),
        ];
        for error in errors {
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Corrupt, Effect::NotApplied), "{value:?}: {error}");
            assert_eq!(error.key(), Some(&key));
        }
        assert_eq!(server.query(&["EXISTS", &text(&key)]).unwrap().unwrap(), "1");
        assert_eq!(store.delete(&key, Condition::Always).await.unwrap(), DeleteOutcome::Deleted);
        assert_eq!(store.get(&key, Get::default()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn companions_hold_the_contracts_records() {
    let server = server();
    let store = connect(&server).await;
    let key = key("companions");
    let request =
        LockRequest { meta: "node 7, a \"b\"".to_owned(), ..LockRequest::new(key.clone(), Duration::from_secs(60)) };
    assert!(matches!(store.lock_acquire(&request).await.unwrap(), LockOutcome::Granted(_)));
    let name = |suffix| format!("{{acteon:{}}}:{suffix}", key.text());
    let record = server.query(&["GET", &name("lock")]).unwrap().unwrap();
    let record = LockRecord::parse(record.as_bytes()).expect(&record);
    assert_eq!((record.holders[0].owner, &record.holders[0].meta), (request.owner, &request.meta));
    store.lock_release(&key, request.owner).await.unwrap();
    let record = server.query(&["GET", &name("lock")]).unwrap().unwrap();
    assert_eq!(LockRecord::parse(record.as_bytes()).unwrap().last_release, Some(request.owner));

    let due_at = DueAt::UnixMs(1_700_000_000_000);
    store.schedule(&key, &Schedule { id: "job".to_owned(), due_at, payload: "p q".into() }).await.unwrap();
    let claimed = store.claim_due(&key, ClaimDue { limit: 1, visibility: Duration::from_secs(60) }).await.unwrap();
    let item = server.query(&["HGET", &name("items"), "job"]).unwrap().unwrap();
    let item = ItemRecord::parse(item.as_bytes()).expect(&item);
    assert_eq!((item.claim, item.attempt, item.payload), (Some(claimed.items[0].token), 1, &b"p q"[..]));
    assert_eq!(item.due_at_ms, 1_700_000_000_000);

    let second = Duration::from_secs(1);
    for (request, suffix) in [
        (RateLimit::fixed_window(2, second), "fixed"),
        (RateLimit::sliding_window(2, second), "sliding"),
        (RateLimit::gcra(2, second, 2), "gcra"),
    ] {
        let decision = store.rate_limit(&key, &request).await.unwrap();
        assert!(decision.allowed && decision.remaining == 1, "{suffix}: {decision:?}");
        let ttl_ms: i64 = server.query(&["PTTL", &name(suffix)]).unwrap().unwrap().parse().unwrap();
        assert!((1..=1_000).contains(&ttl_ms), "{suffix}: {ttl_ms}");
    }
}

#[tokio::test]
async fn a_queue_item_that_was_damaged_is_named_and_can_be_cancelled() {
    let server = server();
    let store = connect(&server).await;
    let queue = key("damaged");
    let claim = ClaimDue { limit: 10, visibility: Duration::from_secs(60) };
    let names = |claimed: Claimed| claimed.items.into_iter().map(|item| item.id).collect::<Vec<_>>();
    // No item at all, and times that no driver writes.
    for damaged in ["?", "i- 0 007 p", "i- 0 99999999999999999999 p", "i- 0  p"] {
        for (id, at_ms) in [("first", 1), ("bad", 2), ("last", 3)] {
            let schedule = Schedule { id: id.to_owned(), due_at: DueAt::UnixMs(at_ms), payload: "p".into() };
            store.schedule(&queue, &schedule).await.unwrap();
        }
        server.query(&["HSET", &format!("{{acteon:{}}}:items", queue.text()), "bad", damaged]).unwrap();
        assert_eq!(names(store.claim_due(&queue, claim).await.unwrap()), ["first"]);
        let error = store.claim_due(&queue, claim).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && error.message().contains("\"bad\""), "{error}");
        assert!(store.cancel(&queue, "bad").await.unwrap());
        assert_eq!(names(store.claim_due(&queue, claim).await.unwrap()), ["last"]);
        store.cancel(&queue, "first").await.unwrap();
        store.cancel(&queue, "last").await.unwrap();
    }
}

#[tokio::test]
async fn scans_skip_what_is_not_ours_and_walk_any_number_of_pages() {
    let server = server();
    let store = connect(&server).await;
    for index in 0..3_000 {
        server.query(&["SET", &format!("noise:{index}"), "x"]).unwrap();
    }
    let scope = Scope::new("driver", "tests", "scan*").unwrap();
    let mut expected = Vec::new();
    for index in 0..25 {
        let key = scope.key(&format!("id:{index}")).unwrap();
        store.put(&key, &Put::new("v")).await.unwrap();
        expected.push(key.id());
    }
    let prefix = scope.text();
    server.query(&["SET", &format!("acteon:{prefix}a;9"), "not a text of ours"]).unwrap();
    server.query(&["RPUSH", &format!("acteon:{prefix}list"), "x"]).unwrap();
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page =
            store.scan(&Scan::new(scope.clone()).page_size(10).from_cursor(cursor).with_entries()).await.unwrap();
        assert!(page.items.iter().all(|item| item.entry.as_ref().is_some_and(|entry| entry.value == "v")));
        found.extend(page.items.into_iter().map(|item| item.key.id()));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    found.sort();
    found.dedup();
    expected.sort();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_refused_transaction_takes_its_increments_back() {
    let server = server();
    let store = connect(&server).await;
    let (fresh, old, missing) = (key("fresh"), key("old"), key("missing"));
    store.increment(&old, Increment::by(5)).await.unwrap();
    store.touch(&old, Ttl::After(Duration::from_secs(60))).await.unwrap();
    let put = Put::new("x");
    let ops = |last| {
        vec![
            TransactOp::Increment(fresh.clone(), Increment::by(1)),
            TransactOp::Increment(old.clone(), Increment::by(1)),
            TransactOp::Put(missing.clone(), put.clone()),
            TransactOp::Check(key("check"), last),
        ]
    };
    let refused = store.transact(&ops(Condition::Present)).await.unwrap();
    assert_eq!(refused, TransactOutcome::Refused { index: 3, current: None });
    assert_eq!(store.get(&fresh, Get::default()).await.unwrap(), None);
    assert_eq!(store.get(&missing, Get::default()).await.unwrap(), None);
    let entry = store.get(&old, Get::with_ttl()).await.unwrap().unwrap();
    assert!(entry.value == "5" && entry.ttl.is_some());
    // Committed once, though it is sent twice.
    for _ in 0..2 {
        assert_eq!(store.transact(&ops(Condition::Absent)).await.unwrap(), TransactOutcome::Committed);
    }
    assert_eq!(store.get(&old, Get::default()).await.unwrap().unwrap().value, "6");
}

#[tokio::test]
async fn one_bad_operation_of_a_batch_does_not_stop_the_others() {
    let server = server();
    let store = connect(&server).await;
    let (value, counter) = (key("value"), key("counter"));
    let replies = store
        .batch(&[
            BatchOp::Put(value.clone(), Put::new("1")),
            BatchOp::Put(value.clone(), Put::new("2").expires_after(Duration::ZERO)),
            BatchOp::Increment(value.clone(), Increment::by(1)),
            BatchOp::Increment(counter.clone(), Increment::by(1)),
            BatchOp::Get(value.clone(), Get::with_ttl()),
            BatchOp::Take(value),
        ])
        .await
        .unwrap();
    let kinds: Vec<_> = replies.iter().map(|reply| reply.as_ref().err().map(acteon_state_core::Error::kind)).collect();
    assert_eq!(kinds, [None, Some(ErrorKind::Invalid), Some(ErrorKind::WrongType), None, None, None]);
}
