//! The due index on a real server: many workers, a crash, and plans that stay right as a queue grows.

#![allow(clippy::unwrap_used, reason = "a step that fails is to fail its test, also in helpers")]

/// Every test here starts a server of its own.
mod private_server {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use acteon_state_core::{ClaimDue, ClaimOutcome, ClaimToken, DueAt, Schedule, StateKey, StateStore};
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
        let claim = "BEGIN; SELECT FROM acteon_due_claim('{due}', '{tests}', '{queue}', '{half-claimed}', '{1}', '{60000}', ARRAY[gen_random_uuid()], NULL, NULL)";
        killed.execute(claim).await.unwrap();
        let attempts = async || {
            let claimed = store.claim_due(&queue, ClaimDue { limit: 1, visibility: LONG }).await.unwrap();
            (claimed.items.into_iter().map(|item| item.attempt).collect::<Vec<_>>(), claimed.next_due_in)
        };
        assert_eq!(attempts().await, (Vec::new(), Some(Duration::ZERO)), "a worker is told to ask again");
        killed.close_hard().await.unwrap();
        let begin = Instant::now();
        let handed = loop {
            // The server notices the end of a connection in its own time.
            let (handed, _) = attempts().await;
            if !handed.is_empty() || begin.elapsed() > PATIENCE {
                break handed;
            }
        };
        assert_eq!(handed, [1]);
    }

    /// Where claims have run out, a claim locks what it puts in order, and that is more than it takes.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_claim_only_puts_in_order_is_passed_over_meanwhile_and_counts_as_due() {
        let server = PostgresServer::start(PostgresOptions::default()).unwrap();
        let (store, queue) = (connect(&server).await, queue("late"));
        for id in ["one", "two"] {
            store.schedule(&queue, &item(id.to_owned())).await.unwrap();
        }
        let brief = ClaimDue { limit: 2, visibility: Duration::from_millis(1) };
        assert_eq!(store.claim_due(&queue, brief).await.unwrap().items.len(), 2);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut other = PgConnection::connect(&server.url()).await.unwrap();
        let claim = "BEGIN; SELECT FROM acteon_due_claim('{due}', '{tests}', '{queue}', '{late}', '{1}', '{60000}', ARRAY[gen_random_uuid()], NULL, NULL)";
        other.execute(claim).await.unwrap();
        let claim = ClaimDue { limit: 2, visibility: LONG };
        let passed_over = store.claim_due(&queue, claim).await.unwrap();
        assert_eq!((passed_over.items.len(), passed_over.next_due_in), (0, Some(Duration::ZERO)));
        other.execute("COMMIT").await.unwrap();
        let left = store.claim_due(&queue, claim).await.unwrap().items;
        assert_eq!(left.len(), 1, "the other one took one of them");
    }

    /// The look sees that an item is due, and the claim that follows would end before that.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_item_is_claimed_also_while_the_clock_is_set_back() {
        let server = PostgresServer::start(PostgresOptions::default()).unwrap();
        let (store, queue) = (connect(&server).await, queue("clock"));
        store.schedule(&queue, &item("one".to_owned())).await.unwrap();
        let mut clock = PgConnection::connect(&server.url()).await.unwrap();
        let set_back = "CREATE SEQUENCE public.readings;
            CREATE OR REPLACE FUNCTION acteon_now_us() RETURNS bigint LANGUAGE sql VOLATILE AS $$
                SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
                       - CASE WHEN nextval('public.readings') > 1 THEN 3600000000 ELSE 0 END $$";
        clock.execute(set_back).await.unwrap();
        let claim = ClaimDue { limit: 1, visibility: Duration::from_secs(1) };
        let began = Instant::now();
        let claimed = loop {
            // The next reading is before the clock is set back, unless somebody else reads it.
            clock.execute("SELECT setval('public.readings', 1, false)").await.unwrap();
            if let Some(item) = store.claim_due(&queue, claim).await.unwrap().items.pop() {
                break item;
            }
            assert!(began.elapsed() < PATIENCE, "the item is not found");
        };
        assert_eq!(store.ack(&queue, &claimed.id, claimed.token).await.unwrap(), ClaimOutcome::Done);
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

    /// Claims of one queue took a statement and a commit each, and passed over each other's items.
    #[tokio::test]
    async fn claims_that_wait_at_the_same_moment_share_a_statement() {
        const CLAIMS: u32 = 12;
        let settings = vec!["track_functions = 'pl'".to_owned()];
        let server = PostgresServer::start(PostgresOptions { settings, ..PostgresOptions::default() }).unwrap();
        let (store, queue) = (connect(&server).await, queue("shared-statement"));
        let wanted: u32 = (1..=CLAIMS).sum();
        for at in 0..wanted - 2 {
            let due = Schedule { due_at: DueAt::UnixMs(u64::from(at)), ..item(format!("job-{at:03}")) };
            store.schedule(&queue, &due).await.unwrap();
        }
        // On one thread, and none of them waits before it was submitted.
        let claims = (1..=CLAIMS).map(|limit| store.claim_due(&queue, ClaimDue { limit, visibility: LONG }));
        let claimed = try_join_all(claims).await.unwrap();
        let mut ids = Vec::new();
        for (limit, claimed) in (1..=CLAIMS).zip(&claimed) {
            let own: Vec<&str> = claimed.items.iter().map(|item| item.id.as_str()).collect();
            assert!(own.is_sorted() && own.len() <= limit as usize, "{limit}: {own:?}");
            assert!(claimed.items.iter().all(|item| item.token == claimed.items[0].token), "a claim has one token");
            ids.extend(own);
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len() as u32, wanted - 2, "all were handed out, each once");
        for claimed in &claimed {
            for item in &claimed.items {
                assert_eq!(store.ack(&queue, &item.id, item.token).await.unwrap(), ClaimOutcome::Done, "{}", item.id);
            }
        }
        store.close().await.unwrap();
        until(&server, "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'client backend'").await;
        let calls = "SELECT calls FROM pg_stat_user_functions WHERE funcname = 'acteon_due_claim'";
        let calls: u32 = server.query(calls).unwrap().concat().pop().flatten().unwrap().parse().unwrap();
        assert!(calls <= 2, "{calls} statements for {CLAIMS} claims");
    }

    /// An update that touches an index writes a page image of the log for nearly each item of a large queue, after each checkpoint.
    #[tokio::test]
    async fn a_claim_and_an_extension_touch_no_index() {
        const ITEMS: u32 = 400;
        let server = PostgresServer::start(PostgresOptions::default()).unwrap();
        let (store, queue) = (connect(&server).await, queue("hot"));
        let schedules: Vec<Schedule> = (0..ITEMS).map(|at| item(format!("job-{at}"))).collect();
        try_join_all(schedules.iter().map(|schedule| store.schedule(&queue, schedule))).await.unwrap();
        let claimed = store.claim_due(&queue, ClaimDue { limit: ITEMS, visibility: LONG }).await.unwrap();
        assert_eq!(claimed.items.len() as u32, ITEMS);
        let extensions = claimed.items.iter().map(|item| store.extend_claim(&queue, &item.id, item.token, LONG));
        try_join_all(extensions).await.unwrap();
        store.close().await.unwrap();
        until(&server, "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'client backend'").await;
        let counts = "SELECT n_tup_upd || ' ' || n_tup_upd - n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'acteon_due'";
        let counts = server.query(counts).unwrap().concat().pop().flatten().unwrap();
        let (updates, cold) = counts.split_once(' ').unwrap();
        let (updates, cold): (u32, u32) = (updates.parse().unwrap(), cold.parse().unwrap());
        assert_eq!(updates, 2 * ITEMS);
        // The second change finds the page full here and there.
        assert!(cold < ITEMS, "{cold} of {updates} updates touched indexes");
    }

    /// It keeps its old place while it is claimed, which must not put it before what was due earlier than its claim ran out.
    #[tokio::test]
    async fn what_becomes_visible_again_is_in_order_by_that_time() {
        let server = PostgresServer::start(PostgresOptions::default()).unwrap();
        let (store, queue) = (connect(&server).await, queue("again"));
        let at = |id: &str, ms| Schedule { due_at: DueAt::UnixMs(ms), ..item(id.to_owned()) };
        for (id, ms) in [("first", 1), ("second", 2)] {
            store.schedule(&queue, &at(id, ms)).await.unwrap();
        }
        let brief = ClaimDue { limit: 1, visibility: Duration::from_millis(1) };
        let claimed = store.claim_due(&queue, brief).await.unwrap();
        assert_eq!(claimed.items[0].id, "first");
        until(
            &server,
            "SELECT visible_at_ms < extract(epoch FROM clock_timestamp()) * 1000 FROM acteon_due WHERE item = 'first'",
        )
        .await;
        store.schedule(&queue, &at("third", 3)).await.unwrap();
        let mut order = Vec::new();
        for limit in [1, 2] {
            let claimed = store.claim_due(&queue, ClaimDue { limit, visibility: LONG }).await.unwrap();
            order.extend(claimed.items.into_iter().map(|item| (item.id, item.attempt)));
        }
        let expected = [("second", 1), ("third", 1), ("first", 2)].map(|(id, attempt)| (id.to_owned(), attempt));
        assert_eq!(order, expected);
    }

    /// Workers with many items have crashed, and all of their claims run out at once: to put all of that in order would take longer than a
    /// statement may.
    #[tokio::test]
    async fn a_claim_puts_no_more_than_some_in_order_when_many_claims_have_run_out() {
        const LATE: usize = 5_000;
        let server = PostgresServer::start(PostgresOptions::default()).unwrap();
        let (store, queue) = (connect(&server).await, queue("late"));
        server
            .query(&format!(
                "INSERT INTO acteon_due SELECT 'due', 'tests', 'queue', 'late', 'item-' || i, i, i + 1000000, i, 1, gen_random_uuid(), 'p'
                   FROM generate_series(1, {LATE}) i"
            ))
            .unwrap();
        let claimed = store.claim_due(&queue, ClaimDue { limit: 100, visibility: LONG }).await.unwrap();
        assert_eq!(claimed.items.len(), 100);
        let left = "SELECT count(*) FROM acteon_due WHERE place_ms < visible_at_ms AND visible_at_ms < 2000000";
        let left: usize = server.query(left).unwrap().concat().pop().flatten().unwrap().parse().unwrap();
        assert!(left > LATE / 2, "{left} are where they were");
        // Nothing is lost or handed out twice on the way.
        let rest = claim_all(&store, &queue).await;
        assert_eq!(rest.len(), LATE - 100);
        assert!(rest.values().all(|attempt| *attempt == 2));
    }

    /// Workers have claimed from the front of a backlog and died, again and again. To put all of that in order for one claim, as many items at a
    /// time as it asks for, took longer than a statement may: each claim failed, and the queue stood still.
    #[tokio::test]
    async fn a_claim_of_one_item_walks_once_over_what_has_run_out() {
        const LATE: u32 = 50_000;
        const BACKLOG: u32 = 1_000;
        // One connection, which publishes what it has counted when it is closed.
        let server = PostgresServer::start(PostgresOptions::default()).unwrap();
        let config = PostgresConfig { connections: 1, ..PostgresConfig::from_url(&server.url()).unwrap() };
        let store = PostgresStore::connect(config).await.unwrap();
        let queue = queue("stood-still");
        server
            .query(&format!(
                "INSERT INTO acteon_due
                 SELECT 'due', 'tests', 'queue', 'stood-still', 'late-' || i, i, 1000000 + i, i, 1, gen_random_uuid(), 'p'::bytea
                   FROM generate_series(1, {LATE}) i
                 UNION ALL
                 SELECT 'due', 'tests', 'queue', 'stood-still', 'backlog-' || i, 2000000 + i, 2000000 + i, 2000000 + i, 0, NULL, 'p'
                   FROM generate_series(1, {BACKLOG}) i"
            ))
            .unwrap();
        until(&server, "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'psql'").await;
        server.query("SELECT pg_stat_reset()").unwrap();
        let one = store.claim_due(&queue, ClaimDue { limit: 1, visibility: LONG }).await.unwrap();
        assert_eq!(one.items.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["late-1"]);
        assert_eq!(one.next_due_in, Some(Duration::ZERO));
        store.close().await.unwrap();
        until(&server, "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'client backend'").await;
        let counts = "SELECT n_tup_upd || ' ' || idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'acteon_due'";
        let counts = server.query(counts).unwrap().concat().pop().flatten().unwrap();
        let (moved, visited) = counts.split_once(' ').unwrap();
        let (moved, visited): (u32, u32) = (moved.parse().unwrap(), visited.parse().unwrap());
        assert!(moved <= 1_001, "{moved} items were changed");
        assert!(visited <= 5_000, "{visited} items were visited");

        let store = connect(&server).await;
        let rest = claim_all(&store, &queue).await;
        assert_eq!(rest.len() as u32, LATE + BACKLOG - 1, "nothing was lost");
        assert!(rest.iter().all(|(id, attempt)| *attempt == if id.starts_with("late") { 2 } else { 1 }));
    }

    /// Several queues of a statement share the bound, and where it is used up items are handed out none the less.
    #[tokio::test]
    async fn claims_of_many_queues_put_no_more_in_order_than_the_claim_of_one() {
        const QUEUES: u32 = 4;
        const LATE: u32 = 1_500;
        let server = PostgresServer::start(PostgresOptions::default()).unwrap();
        let (store, names) = (connect(&server).await, (0..QUEUES).map(|at| format!("late-{at}")).collect::<Vec<_>>());
        server
            .query(&format!(
                "INSERT INTO acteon_due
                 SELECT 'due', 'tests', 'queue', 'late-' || q, 'item-' || i, i, 1000000 - i, i, 1, gen_random_uuid(), 'p'
                   FROM generate_series(1, {LATE}) i, generate_series(0, {QUEUES} - 1) q"
            ))
            .unwrap();
        let array = format!("'{{{}}}'", names.join(","));
        let claim = format!(
            "SELECT count(o_item), count(DISTINCT o_claim) FROM acteon_due_claim(array_fill('due'::text, '{{{QUEUES}}}'), array_fill('tests'::text, '{{{QUEUES}}}'),
                    array_fill('queue'::text, '{{{QUEUES}}}'), {array}, array_fill(10, '{{{QUEUES}}}'), array_fill(3600000::bigint, '{{{QUEUES}}}'),
                    array_fill(gen_random_uuid(), '{{{QUEUES}}}'), array_fill(NULL::bigint, '{{{QUEUES}}}'), array_fill(NULL::text, '{{{QUEUES}}}'))"
        );
        let claimed = server.query(&claim).unwrap().concat();
        assert_eq!(claimed, [Some((QUEUES * 10).to_string()), Some(QUEUES.to_string())]);
        let moved = "SELECT count(*) FROM acteon_due WHERE place_ms = visible_at_ms";
        assert_eq!(server.query(moved).unwrap().concat(), [Some("1000".to_owned())]);
        for name in &names {
            assert_eq!(claim_all(&store, &queue(name)).await.len() as u32, LATE - 10, "{name}");
        }
    }

    /// `DueAt::UnixMs(0)` is now. A place at the time 0 was taken for the front of the queue, and what stood before it was not found.
    #[tokio::test]
    async fn a_queue_of_items_due_at_the_time_0_is_looked_at_from_the_front() {
        let server = PostgresServer::start(PostgresOptions::default()).unwrap();
        let _store = connect(&server).await;
        server
            .query(
                "INSERT INTO acteon_due SELECT 'due', 'tests', 'queue', 'epoch', 'item-' || i, 0, 0, 0, 0, NULL, 'p' FROM generate_series(1, 9) i",
            )
            .unwrap();
        let claim = "SELECT string_agg(o_item, ',' ORDER BY o_number) FROM acteon_due_claim('{due}', '{tests}', '{queue}', '{epoch}', '{5}', '{60000}', ARRAY[gen_random_uuid()], '{0}', '{item-7}')";
        let claimed = server.query(claim).unwrap().concat();
        assert_eq!(claimed, [Some("item-1,item-2,item-3,item-4,item-5".to_owned())]);
    }

    /// With a backlog claims begin where the last one has ended, and what was scheduled for an earlier time waited until the next look at the front.
    #[tokio::test]
    async fn what_this_process_has_scheduled_is_not_passed_over() {
        let server = PostgresServer::start(PostgresOptions::default()).unwrap();
        let (store, queue) = (connect(&server).await, queue("earlier"));
        server
            .query(
                "INSERT INTO acteon_due SELECT 'due', 'tests', 'queue', 'earlier', 'item-' || i, i, i, i, 0, NULL, 'p' FROM generate_series(1000, 99000) i",
            )
            .unwrap();
        let claim = async |limit| store.claim_due(&queue, ClaimDue { limit, visibility: LONG }).await.unwrap().items;
        // From here on claims begin at the end of the last one.
        assert_eq!(claim(1_000).await.len(), 1_000);
        for round in 0..20 {
            claim(1).await;
            let earlier = Schedule { due_at: DueAt::UnixMs(round), ..item(format!("earlier-{round}")) };
            store.schedule(&queue, &earlier).await.unwrap();
            assert_eq!(claim(1).await[0].id, earlier.id);
        }
    }

    /// Passing over them costs each claim a look. Those that were moved stand where they become visible, and an extension to an earlier time
    /// brings them back.
    #[tokio::test]
    async fn a_crowd_that_is_being_worked_on_is_moved_out_of_the_way() {
        let server = PostgresServer::start(PostgresOptions::default()).unwrap();
        let (store, queue) = (connect(&server).await, queue("crowd"));
        let token = ClaimToken::draw();
        server
            .query(&format!(
                "INSERT INTO acteon_due SELECT 'due', 'tests', 'queue', 'crowd', 'item-' || i,
                        i, extract(epoch FROM clock_timestamp()) * 1000 + 3600000 + i, i, 1, '{:032x}', 'p'
                   FROM generate_series(1, 1500) i",
                token.as_u128()
            ))
            .unwrap();
        let mut next = None;
        for _ in 0..5 {
            let claimed = store.claim_due(&queue, ClaimDue { limit: 1, visibility: LONG }).await.unwrap();
            assert!(claimed.items.is_empty());
            next = claimed.next_due_in;
        }
        assert!(next.unwrap() > Duration::from_secs(3_000), "{next:?}");
        let in_front = "SELECT count(*) FROM acteon_due WHERE place_ms < visible_at_ms";
        let in_front: u32 = server.query(in_front).unwrap().concat().pop().flatten().unwrap().parse().unwrap();
        assert!(in_front <= 1_000, "{in_front} are in front");
        let sooner = store.extend_claim(&queue, "item-1", token, Duration::from_millis(1)).await.unwrap();
        assert_eq!(sooner, ClaimOutcome::Done);
        let begin = Instant::now();
        let claimed = loop {
            let claimed = store.claim_due(&queue, ClaimDue { limit: 2, visibility: LONG }).await.unwrap();
            if !claimed.items.is_empty() || begin.elapsed() > PATIENCE {
                break claimed;
            }
        };
        assert_eq!(claimed.items.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["item-1"]);
    }

    /// Plans are made while the table is empty and kept. Two indexes begin with the same columns, and looked alike then: acknowledging
    /// one of 300,000 items walked all of them, 35 ms instead of 0.1.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn plans_made_for_an_empty_queue_fit_a_long_one() {
        plans_fit_a_long_queue("SELECT 1").await;
    }

    /// Where it is known that there is one item, walking over all of them seemed cheaper than looking for those that are acknowledged.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn plans_made_for_a_queue_of_one_fit_a_long_one() {
        let one = "INSERT INTO acteon_due VALUES ('due', 'tests', 'queue', 'short', 'one', 1, 1, 1, 0, NULL, 'p')";
        plans_fit_a_long_queue(&format!("{one}; ANALYZE acteon_due")).await;
    }

    /// What is done before plans are made is `first`.
    async fn plans_fit_a_long_queue(first: &str) {
        const ITEMS: u64 = 50_000;
        const ROUNDS: u64 = 20;
        let no_analyze = vec!["autovacuum = off".to_owned()];
        let server =
            PostgresServer::start(PostgresOptions { settings: no_analyze, ..PostgresOptions::default() }).unwrap();
        // One connection, so that every statement meets the plans.
        let config = PostgresConfig { connections: 1, ..PostgresConfig::from_url(&server.url()).unwrap() };
        let store = PostgresStore::connect(config).await.unwrap();
        let queue = queue("long");
        server.query(first).unwrap();
        // A plan is kept after five times.
        for _ in 0..8 {
            everything_once(&store, &queue).await;
        }
        server
            .query(&format!(
                "INSERT INTO acteon_due SELECT 'due', 'tests', 'queue', 'long', 'item-' || i, i, i, i, 0, NULL, 'p'
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
