//! A little of everything that a store does, with results that are known: for servers that are set up in unusual ways.

use std::time::Duration;

use acteon_state_core::{
    BatchOp, BatchReply, ClaimDue, ClaimOutcome, Condition, DueAt, FencingToken, Get, Increment, LockOutcome,
    LockRequest, OwnerId, Put, RateLimit, ReleaseOutcome, Scan, Schedule, StateStore, TransactOp, TransactOutcome, Ttl,
};
use acteon_state_postgres::PostgresStore;
use futures_util::future::{join_all, try_join_all};

use super::{PATIENCE, granted, key, scope};

const MINUTE: Duration = Duration::from_secs(60);

/// Does everything, in keys that contain `name`.
pub(super) async fn everything_works(store: &PostgresStore, name: &str) {
    let families = futures_util::future::join5(
        values(store, name),
        counters(store, name),
        many(store, name),
        locks(store, name),
        due(store, name),
    );
    families.await;
}

/// The same, with all of these tasks at once.
pub(super) async fn many_tasks_work(store: &PostgresStore, name: &str, tasks: usize) {
    let tasks = (0..tasks).map(|task| {
        let (store, name) = (store.clone(), format!("{name} {task}"));
        tokio::spawn(async move { everything_works(&store, &name).await })
    });
    try_join_all(tasks).await.unwrap();
}

async fn values(store: &PostgresStore, name: &str) {
    // What quoting and escaping could break.
    let all_bytes: Vec<u8> = (0..=255).collect();
    let key = key("values", &format!("{name} '\\x41' \"$1\" %"));
    let put = Put::new(all_bytes.clone()).if_absent().expires_after(MINUTE);
    assert!(store.put(&key, &put).await.unwrap().is_applied());
    assert!(!store.put(&key, &Put::new("other").if_absent()).await.unwrap().is_applied());
    let entry = store.get(&key, Get::with_ttl()).await.unwrap().unwrap();
    assert_eq!((&entry.value[..], entry.version), (&all_bytes[..], Some(put.version)));
    assert!(entry.ttl.is_some_and(|ttl| ttl > MINUTE / 2 && ttl <= MINUTE), "{:?}", entry.ttl);
    assert!(store.put(&key, &Put::new("swapped").if_version(put.version)).await.unwrap().is_applied());
    let token = FencingToken::new(7).unwrap();
    assert!(store.put(&key, &Put::new("fenced").fenced_by(token)).await.unwrap().is_applied());
    let late = Put::new("late").fenced_by(FencingToken::new(6).unwrap());
    assert!(!store.put(&key, &late).await.unwrap().is_applied());
    assert!(store.touch(&key, Ttl::After(MINUTE)).await.unwrap());
    assert_eq!(store.take(&key).await.unwrap().unwrap().value, "fenced");
    assert_eq!(store.get(&key, Get::default()).await.unwrap(), None);
}

async fn counters(store: &PostgresStore, name: &str) {
    let key = key("counters", name);
    let increments = join_all((0..20).map(|_| store.increment(&key, Increment::by(1).at_most(15)))).await;
    let mut applied: Vec<i64> = increments
        .into_iter()
        .map(Result::unwrap)
        .filter(|one| one.is_applied())
        .map(|one| one.counter().value)
        .collect();
    applied.sort_unstable();
    assert_eq!(applied, (1..=15).collect::<Vec<_>>());
    for limit in
        [RateLimit::fixed_window(3, MINUTE), RateLimit::sliding_window(3, MINUTE), RateLimit::gcra(3, MINUTE, 3)]
    {
        let requests = (0..5).map(|_| RateLimit::new(limit.algorithm, limit.limit, limit.window));
        let requests: Vec<_> = requests.collect();
        let decisions = join_all(requests.iter().map(|request| store.rate_limit(&key, request))).await;
        let allowed = decisions.into_iter().filter(|decision| decision.as_ref().unwrap().allowed).count();
        assert_eq!(allowed, 3, "{:?}", limit.algorithm);
    }
}

async fn many(store: &PostgresStore, name: &str) {
    let scope = scope(&format!("many {name}"));
    let keys: Vec<_> = (0..7).map(|number| scope.key(&number.to_string()).unwrap()).collect();
    let puts: Vec<_> = keys.iter().map(|key| BatchOp::Put(key.clone(), Put::new("1").if_absent())).collect();
    for reply in store.batch(&puts).await.unwrap() {
        assert!(matches!(reply.unwrap(), BatchReply::Put(outcome) if outcome.is_applied()));
    }
    let ops = |condition| {
        vec![
            TransactOp::Put(keys[0].clone(), Put::new("2")),
            TransactOp::Delete(keys[1].clone(), Condition::Present),
            TransactOp::Check(keys[2].clone(), condition),
        ]
    };
    let refused = store.transact(&ops(Condition::Absent)).await.unwrap();
    assert!(matches!(refused, TransactOutcome::Refused { index: 2, current: Some(_) }), "{refused:?}");
    assert_eq!(store.transact(&ops(Condition::Present)).await.unwrap(), TransactOutcome::Committed);
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let scan = Scan::new(scope.clone()).page_size(4).with_entries().from_cursor(cursor);
        let page = store.scan(&scan).await.unwrap();
        found.extend(page.items.into_iter().map(|item| format!("{}={:?}", item.key.id(), item.entry.unwrap().value)));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found, ["0=b\"2\"", "2=b\"1\"", "3=b\"1\"", "4=b\"1\"", "5=b\"1\"", "6=b\"1\""]);
}

async fn locks(store: &PostgresStore, name: &str) {
    let first = LockRequest::new(key("locks", name), MINUTE);
    let grant = granted(store, &first).await;
    let second = LockRequest::new(first.key.clone(), MINUTE);
    assert!(matches!(store.lock_acquire(&second).await.unwrap(), LockOutcome::Busy(_)));
    let waiting = LockRequest { wait: PATIENCE, ..second };
    let (outcome, released) = tokio::join!(store.lock_acquire(&waiting), store.lock_release(&first.key, first.owner));
    assert_eq!(released.unwrap(), ReleaseOutcome::Released);
    let LockOutcome::Granted(second) = outcome.unwrap() else {
        panic!("the lock is free, and its waiter was not told")
    };
    assert!(second.token > grant.token);
    let state = store.lock_inspect(&first.key).await.unwrap().unwrap();
    assert_eq!((state.last_token, state.holders[0].owner), (second.token, waiting.owner));
    assert_eq!(store.lock_release(&first.key, OwnerId::draw()).await.unwrap(), ReleaseOutcome::AlreadyLost);
}

async fn due(store: &PostgresStore, name: &str) {
    let queue = key("due", name);
    for (id, due_at) in
        [("late", DueAt::After(MINUTE)), ("now", DueAt::After(Duration::ZERO)), ("past", DueAt::UnixMs(1))]
    {
        store.schedule(&queue, &Schedule { id: id.to_owned(), due_at, payload: "p".into() }).await.unwrap();
    }
    let claim = ClaimDue { limit: 10, visibility: MINUTE };
    let claimed = store.claim_due(&queue, claim).await.unwrap();
    assert_eq!(claimed.items.iter().map(|item| &*item.id).collect::<Vec<_>>(), ["past", "now"]);
    assert!(store.claim_due(&queue, claim).await.unwrap().items.is_empty());
    for item in claimed.items {
        assert_eq!(store.ack(&queue, &item.id, item.token).await.unwrap(), ClaimOutcome::Done);
    }
    assert!(store.cancel(&queue, "late").await.unwrap());
}
