//! The due index on a real server: many workers, a crash, and plans that stay right as a queue grows.

#![allow(clippy::unwrap_used, reason = "a step that fails is to fail its test, also in helpers")]

/// Every test here starts a server of its own.
mod private_server {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use acteon_state_core::{ClaimDue, ClaimOutcome, DueAt, Schedule, StateKey, StateStore};
    use acteon_state_postgres::{PostgresConfig, PostgresStore};
    use acteon_test_support::{PostgresOptions, PostgresServer};
    use futures_util::future::{join_all, try_join_all};
    use sqlx::{Connection as _, Executor as _, PgConnection};

    /// Far longer than a test lasts.
    const LONG: Duration = Duration::from_secs(3_600);
    /// How long a condition may take to come true on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn queue(id: &str) -> StateKey {
        StateKey::new("due", "tests", "queue", id).unwrap()
    }

    fn item(id: String) -> Schedule {
        Schedule { payload: format!("payload of {id}").into(), id, due_at: DueAt::After(Duration::ZERO) }
    }

    async fn connect(server: &PostgresServer) -> PostgresStore {
        // The server is back long before a call gives up.
        let config = PostgresConfig {
            reconnect_delay_max: Duration::from_millis(100),
            ..PostgresConfig::from_url(&server.url()).unwrap()
        };
        PostgresStore::connect(config).await.unwrap()
    }

    /// Claims and acknowledges until nothing is left. Returns what was handed out.
    async fn work(store: PostgresStore, queue: StateKey, limit: u32) -> Vec<String> {
        let mut done = Vec::new();
        loop {
            let claimed = store.claim_due(&queue, ClaimDue { limit, visibility: LONG }).await.unwrap();
            if claimed.items.is_empty() && claimed.next_due_in.is_none() {
                return done;
            }
            let acks = claimed.items.iter().map(|item| store.ack(&queue, &item.id, item.token));
            for outcome in try_join_all(acks).await.unwrap() {
                assert_eq!(outcome, ClaimOutcome::Done);
            }
            assert!(
                claimed.items.iter().all(|item| item.attempt == 1 && item.payload == format!("payload of {}", item.id))
            );
            done.extend(claimed.items.into_iter().map(|item| item.id));
            // What others hold is due for them; without a pause this would ask again and again until they are done.
            if let Some(wait) = claimed.next_due_in {
                tokio::time::sleep(wait.min(Duration::from_millis(1))).await;
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn eight_workers_of_two_stores_hand_out_each_item_once() {
        const ITEMS: usize = 2_000;
        let server = PostgresServer::start(PostgresOptions::default()).unwrap();
        let stores = [connect(&server).await, connect(&server).await];
        let queue = queue("shared");
        let expected: BTreeSet<String> = (0..ITEMS).map(|at| format!("job-{at}")).collect();
        let schedules: Vec<Schedule> = expected.iter().cloned().map(item).collect();
        try_join_all(schedules.iter().map(|schedule| stores[0].schedule(&queue, schedule))).await.unwrap();

        let workers = (0..8).map(|worker: u32| {
            let store = stores[worker as usize % 2].clone();
            tokio::spawn(work(store, queue.clone(), 1 + worker * 7))
        });
        let taken = try_join_all(workers).await.unwrap().concat();
        assert_eq!(taken.len(), ITEMS, "nothing was handed out twice");
        assert_eq!(taken.into_iter().collect::<BTreeSet<_>>(), expected);
    }

    /// A worker that is killed between its claim and the commit of it, as a pooler makes possible.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_somebody_was_about_to_claim_is_passed_over_meanwhile_and_handed_out_for_the_first_time_afterwards() {
        let server = PostgresServer::start(PostgresOptions::default()).unwrap();
        let (store, queue) = (connect(&server).await, queue("half-claimed"));
        store.schedule(&queue, &item("job".to_owned())).await.unwrap();
        let mut killed = PgConnection::connect(&server.url()).await.unwrap();
        let claim =
            "BEGIN; SELECT FROM acteon_due_claim('due', 'tests', 'queue', 'half-claimed', 1, 60000, gen_random_uuid())";
        killed.execute(claim).await.unwrap();
        let attempts = async || {
            let claimed = store.claim_due(&queue, ClaimDue { limit: 1, visibility: LONG }).await.unwrap();
            claimed.items.into_iter().map(|item| item.attempt).collect::<Vec<_>>()
        };
        assert!(attempts().await.is_empty());
        killed.close_hard().await.unwrap();
        let begin = Instant::now();
        let handed = loop {
            // The server notices the end of a connection in its own time.
            let handed = attempts().await;
            if !handed.is_empty() || begin.elapsed() > PATIENCE {
                break handed;
            }
        };
        assert_eq!(handed, [1]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn kill_9_loses_no_acknowledged_schedule_and_no_claim() {
        let mut server =
            PostgresServer::start(PostgresOptions { durable: true, ..PostgresOptions::default() }).unwrap();
        let store = connect(&server).await;
        let queue = queue("crash");
        let claimed = claimed_before_the_crash(&store, &queue).await;

        let acknowledged = Arc::new(AtomicUsize::new(0));
        let writers: Vec<_> = (0..16)
            .map(|writer| {
                tokio::spawn(schedule_until_it_fails(store.clone(), queue.clone(), writer, acknowledged.clone()))
            })
            .collect();
        let began = Instant::now();
        while acknowledged.load(Ordering::Relaxed) < 500 {
            assert!(began.elapsed() < PATIENCE, "nothing is scheduled");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.kill9().unwrap();
        let told: Vec<String> = join_all(writers).await.into_iter().flat_map(Result::unwrap).collect();
        server.restart().unwrap();

        let store = connect(&server).await;
        let found = claim_all(&store, &queue).await;
        for id in &told {
            assert_eq!(found.get(id), Some(&1), "{id} was acknowledged");
        }
        for (id, token) in claimed {
            assert!(!found.contains_key(&id), "{id} is claimed");
            assert_eq!(store.ack(&queue, &id, token).await.unwrap(), ClaimOutcome::Done, "{id}");
        }
    }

    async fn claimed_before_the_crash(
        store: &PostgresStore,
        queue: &StateKey,
    ) -> Vec<(String, acteon_state_core::ClaimToken)> {
        for at in 0..5 {
            store.schedule(queue, &item(format!("claimed-{at}"))).await.unwrap();
        }
        let claimed = store.claim_due(queue, ClaimDue { limit: 5, visibility: LONG }).await.unwrap();
        assert_eq!(claimed.items.len(), 5);
        claimed.items.into_iter().map(|item| (item.id, item.token)).collect()
    }

    /// Returns the ids that were acknowledged.
    async fn schedule_until_it_fails(
        store: PostgresStore,
        queue: StateKey,
        writer: usize,
        acknowledged: Arc<AtomicUsize>,
    ) -> Vec<String> {
        let mut told = Vec::new();
        for at in 0.. {
            let id = format!("job-{writer}-{at}");
            if store.schedule(&queue, &item(id.clone())).await.is_err() {
                break;
            }
            acknowledged.fetch_add(1, Ordering::Relaxed);
            told.push(id);
        }
        told
    }

    /// Everything that is due, with its attempts.
    async fn claim_all(store: &PostgresStore, queue: &StateKey) -> BTreeMap<String, u32> {
        let mut found = BTreeMap::new();
        loop {
            let claimed = store.claim_due(queue, ClaimDue { limit: 1_000, visibility: LONG }).await.unwrap();
            if claimed.items.is_empty() {
                return found;
            }
            found.extend(claimed.items.into_iter().map(|item| (item.id, item.attempt)));
        }
    }

    /// Plans are made while the table is empty and kept. Two indexes begin with the same columns, and looked alike then: acknowledging
    /// one of 300,000 items walked all of them, 35 ms instead of 0.1.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn plans_made_for_an_empty_queue_fit_a_long_one() {
        const ITEMS: u64 = 50_000;
        const ROUNDS: u64 = 20;
        let no_analyze = vec!["autovacuum = off".to_owned()];
        let server =
            PostgresServer::start(PostgresOptions { settings: no_analyze, ..PostgresOptions::default() }).unwrap();
        // One connection, so that every statement meets the plans.
        let config = PostgresConfig { connections: 1, ..PostgresConfig::from_url(&server.url()).unwrap() };
        let store = PostgresStore::connect(config).await.unwrap();
        let queue = queue("long");
        // A plan is kept after five times.
        for _ in 0..8 {
            everything_once(&store, &queue).await;
        }
        server
            .query(&format!(
                "INSERT INTO acteon_due SELECT 'due', 'tests', 'queue', 'long', 'item-' || i, i, i, 0, NULL, 'p'
                   FROM generate_series(1, {ITEMS}) i"
            ))
            .unwrap();
        // A session publishes what it has counted before it is gone.
        until(&server, "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'psql'").await;
        server.query("SELECT pg_stat_reset()").unwrap();
        for _ in 0..ROUNDS {
            everything_once(&store, &queue).await;
        }
        store.close().await.unwrap();
        until(&server, "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'client backend'").await;
        let pages = "SELECT sum(idx_blks_hit + idx_blks_read) FROM pg_statio_user_indexes WHERE relname = 'acteon_due'";
        let pages: u64 = server.query(pages).unwrap().concat().pop().flatten().unwrap().parse().unwrap();
        // A look-up takes three or four pages, a walk through the queue several hundred.
        assert!(pages > ROUNDS * 5, "the indexes are used");
        assert!(pages < ROUNDS * 100, "{pages} pages of the indexes were read in {ROUNDS} rounds");
    }

    /// Repeats until the server says yes.
    async fn until(server: &PostgresServer, condition: &str) {
        let began = Instant::now();
        while server.query(condition).unwrap() != [[Some("t".to_owned())]] {
            assert!(began.elapsed() < PATIENCE, "{condition} did not come true");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Each operation of the index, on one item.
    async fn everything_once(store: &PostgresStore, queue: &StateKey) {
        let first = Schedule { due_at: DueAt::UnixMs(0), ..item("first".to_owned()) };
        store.schedule(queue, &first).await.unwrap();
        let claimed = store.claim_due(queue, ClaimDue { limit: 1, visibility: LONG }).await.unwrap();
        let [item] = &claimed.items[..] else { panic!("{claimed:?}") };
        assert_eq!(item.id, "first");
        assert_eq!(store.extend_claim(queue, &item.id, item.token, LONG).await.unwrap(), ClaimOutcome::Done);
        assert_eq!(store.ack(queue, &item.id, item.token).await.unwrap(), ClaimOutcome::Done);
        assert!(!store.cancel(queue, "first").await.unwrap());
    }
}
