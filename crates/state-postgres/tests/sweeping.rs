//! Sweeping on a real server: what has expired goes, what has not stays, and tables do not grow under a churn of short lives.

#![allow(clippy::unwrap_used, reason = "a step that fails is to fail its test, also in helpers")]

/// Every test here starts a server of its own.
mod private_server {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use acteon_state_core::{BatchOp, Get, Put, RateLimit, StateKey, StateStore};
    use acteon_state_postgres::{PostgresConfig, PostgresStore};
    use acteon_test_support::{PostgresOptions, PostgresServer};
    use futures_util::future::try_join_all;

    /// How long a condition may take to come true on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(60);
    const ENTRIES: &str = "SELECT count(*) FROM acteon_entries WHERE kind = 'short'";

    fn start(settings: &[&str]) -> PostgresServer {
        let settings = settings.iter().map(|line| (*line).to_owned()).collect();
        PostgresServer::start(PostgresOptions { settings, ..PostgresOptions::default() }).unwrap()
    }

    async fn connect(server: &PostgresServer, sweep_interval: Duration) -> PostgresStore {
        let config = PostgresConfig { sweep_interval, ..PostgresConfig::from_url(&server.url()).unwrap() };
        PostgresStore::connect(config).await.unwrap()
    }

    fn key(kind: &str, id: &str) -> StateKey {
        StateKey::new("sweeping", "tests", kind, id).unwrap()
    }

    /// The one value that `sql` gives.
    fn ask(server: &PostgresServer, sql: &str) -> String {
        server.query(sql).unwrap().concat().pop().flatten().unwrap_or_default()
    }

    fn number(server: &PostgresServer, sql: &str) -> u64 {
        ask(server, sql).parse().unwrap()
    }

    /// Repeats until the condition holds.
    async fn until(what: &str, mut condition: impl FnMut() -> bool) {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < PATIENCE, "{what} did not come true");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Writes keys that live for `ttl`, in batches.
    async fn write_short(store: &PostgresStore, round: usize, count: usize, ttl: Duration) {
        const BATCH: usize = 1_000;
        let ids: Vec<usize> = (0..count).collect();
        for four_batches in ids.chunks(4 * BATCH) {
            let batches: Vec<Vec<BatchOp>> = four_batches
                .chunks(BATCH)
                .map(|ids| {
                    let put =
                        |id| BatchOp::Put(key("short", &format!("{round}-{id}")), Put::new("v").expires_after(ttl));
                    ids.iter().map(put).collect()
                })
                .collect();
            let replies = try_join_all(batches.iter().map(|ops| store.batch(ops))).await.unwrap();
            assert!(replies.iter().flatten().all(Result::is_ok), "everything was written");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn hundred_thousand_expired_keys_go_while_reads_go_on() {
        const KEYS: usize = 100_000;
        let server = start(&[]);
        let store = connect(&server, Duration::from_secs(1)).await;
        for id in 0..100 {
            store.put(&key("stays", &id.to_string()), &Put::new("kept")).await.unwrap();
        }
        let began = Instant::now();
        write_short(&store, 0, KEYS, Duration::from_secs(1)).await;
        let written = began.elapsed();

        let is_over = Arc::new(AtomicBool::new(false));
        let reader = tokio::spawn(read_until(store.clone(), is_over.clone()));
        let began = Instant::now();
        until("all expired keys are swept", || ask(&server, ENTRIES) == "0").await;
        let swept = began.elapsed();
        is_over.store(true, Ordering::Relaxed);
        let mut times = reader.await.unwrap();
        times.sort_unstable();
        eprintln!(
            "{KEYS} keys written in {written:.1?}, gone {swept:.1?} later; {} reads meanwhile, p99 {:?}, longest {:?}",
            times.len(),
            times[times.len() * 99 / 100],
            times[times.len() - 1]
        );
        assert_eq!(ask(&server, "SELECT count(*) FROM acteon_entries WHERE kind = 'stays'"), "100");
    }

    /// Reads what stays and what goes, and returns how long each read took.
    async fn read_until(store: PostgresStore, is_over: Arc<AtomicBool>) -> Vec<Duration> {
        let mut times = Vec::new();
        for at in (0..100).cycle() {
            let began = Instant::now();
            let kept = store.get(&key("stays", &at.to_string()), Get::default()).await.unwrap();
            times.push(began.elapsed());
            assert_eq!(kept.unwrap().value, "kept");
            if is_over.load(Ordering::Relaxed) {
                break;
            }
        }
        times
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn churn_of_short_lived_keys_does_not_grow_the_table() {
        const ROUNDS: usize = 8;
        const KEYS: usize = 10_000;
        let server = start(&["autovacuum_naptime = 1"]);
        let store = connect(&server, Duration::from_millis(100)).await;
        let mut sizes = Vec::new();
        let vacuums = "SELECT autovacuum_count FROM pg_stat_user_tables WHERE relname = 'acteon_entries'";
        for round in 0..ROUNDS {
            write_short(&store, round, KEYS, Duration::from_millis(1)).await;
            until("the keys of a round are swept", || ask(&server, ENTRIES) == "0").await;
            // Each round leaves far more behind than what makes a vacuum worthwhile.
            let vacuumed = u64::try_from(round).unwrap();
            until("the space is made usable again", || number(&server, vacuums) > vacuumed).await;
            sizes.push(number(&server, "SELECT pg_total_relation_size('acteon_entries')"));
        }
        eprintln!("sizes after each round of {KEYS} keys: {sizes:?}");
        let early = sizes[..3].iter().max().unwrap();
        assert!(sizes[ROUNDS - 1] <= early * 3 / 2, "the table grows on: {sizes:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn limits_that_are_over_are_swept_with_their_logs() {
        let server = start(&[]);
        let store = connect(&server, Duration::from_millis(50)).await;
        let window = Duration::from_millis(200);
        for id in 0..50 {
            let key = key("limit", &id.to_string());
            for request in [
                RateLimit::fixed_window(5, window),
                RateLimit::sliding_window(5, window),
                RateLimit::sliding_window(5, window),
                RateLimit::gcra(5, window, 5),
            ] {
                assert!(store.rate_limit(&key, &request).await.unwrap().allowed);
            }
        }
        let left = "SELECT (SELECT count(*) FROM acteon_rates) + (SELECT count(*) FROM acteon_rate_log)";
        until("all limits are swept", || ask(&server, left) == "0").await;
        let after = store.rate_limit(&key("limit", "0"), &RateLimit::sliding_window(5, window)).await.unwrap();
        assert_eq!((after.allowed, after.remaining), (true, 4));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_of_two_nodes_sweeps_and_the_other_takes_over() {
        let interval = Duration::from_millis(50);
        let turn = "SELECT node FROM acteon_sweeper";
        let server = start(&[]);
        let first = connect(&server, interval).await;
        until("the first node has the turn", || !ask(&server, turn).is_empty()).await;
        let first_node = ask(&server, turn);

        let second = connect(&server, interval).await;
        write_short(&second, 0, 2_000, Duration::from_millis(1)).await;
        until("the first node sweeps", || ask(&server, ENTRIES) == "0").await;
        assert_eq!(ask(&server, turn), first_node);

        first.close().await.unwrap();
        write_short(&second, 1, 2_000, Duration::from_millis(1)).await;
        until("the second node sweeps", || ask(&server, ENTRIES) == "0").await;
        assert_ne!(ask(&server, turn), first_node);
    }
}
