//! The SQL of the documentation that fences a row of a database: two holders of a lock, of which the first one was paused and writes late.
//!
//! The statements are read from the page, so what is proved is what is shown.

use std::sync::Arc;
use std::time::Duration;

use acteon_state::{LockGuard, LockOptions, State, StateKey};
use acteon_state_postgres::sqlx::postgres::PgConnection;
use acteon_state_postgres::sqlx::{self, Connection};
use acteon_state_postgres::{PostgresConfig, PostgresStore};
use acteon_test_support::{PostgresOptions, PostgresServer};

const PAGE: &str = include_str!("../../../../docs/locks.md");
/// Short, so that a holder is soon overtaken.
const LEASE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(30);

/// The statement on the page below the line `-- name`, up to its semicolon.
fn statement(name: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(&format!("\n-- {name}\n")).unwrap_or_else(|| panic!("the page has no `-- {name}`"));
    let (statement, _) = rest.split_once(';').expect("a statement ends");
    statement
}

/// A server with the tables of the page, and the locks beside them.
struct Bench {
    server: PostgresServer,
    state: State,
}

impl Bench {
    async fn start() -> Self {
        let server = PostgresServer::start(PostgresOptions::default()).unwrap();
        let store = PostgresStore::connect(PostgresConfig::from_url(&server.url()).unwrap()).await.unwrap();
        let bench = Self { server, state: State::new(Arc::new(store)) };
        let mut session = bench.session().await;
        for table in ["the table", "the table of fences"] {
            sqlx::query(statement(table)).execute(&mut session).await.unwrap();
        }
        bench
    }

    async fn session(&self) -> PgConnection {
        PgConnection::connect(&self.server.url()).await.unwrap()
    }

    /// A holder that will be overtaken, and the one that overtakes it: the tokens of both, while the second one holds the lock.
    async fn two_holders(&self) -> (i64, i64, LockGuard) {
        let key = StateKey::new("shop", "acme", "page", "home").unwrap();
        let options = LockOptions::new(LEASE).wait(PATIENCE);
        let first = self.state.lock(&key, &options).await.unwrap().acquired().unwrap();
        let second = self.state.lock(&key, &options.renew()).await.unwrap().acquired().unwrap();
        assert!(!first.is_held() && second.is_held());
        // Below 2^53, so they are a bigint.
        let [early, late] = [&first, &second].map(|guard| i64::try_from(guard.token().get()).unwrap());
        assert!(early < late, "tokens rise");
        (early, late, second)
    }
}

/// Writes by this statement of the page. Returns how many rows were written: none when a newer token was there.
async fn write(session: &mut PgConnection, name: &str, body: &str, token: i64) -> u64 {
    let query = sqlx::query(statement(name)).bind("home").bind(token).bind(body);
    query.execute(session).await.unwrap().rows_affected()
}

/// Reads as the page says, under a token. `None` when a newer one was there.
async fn read(session: &mut PgConnection, token: i64) -> Option<String> {
    let query = sqlx::query_as(statement("read what a write will be computed from")).bind("home").bind(token);
    query.fetch_optional(session).await.unwrap().map(|(body,)| body)
}

/// Begins a transaction's work as the page says. Returns how many fences were raised: none when a newer token was there.
async fn raise(session: &mut PgConnection, token: i64) -> u64 {
    let query = sqlx::query(statement("the first statement of the transaction")).bind("home").bind(token);
    query.execute(session).await.unwrap().rows_affected()
}

async fn body(session: &mut PgConnection) -> String {
    let row: (String,) = sqlx::query_as("SELECT body FROM page WHERE id = 'home'").fetch_one(session).await.unwrap();
    row.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_write_to_a_fenced_row_changes_nothing() {
    let bench = Bench::start().await;
    let (mut a, mut b) = (bench.session().await, bench.session().await);
    let (early, late, guard) = bench.two_holders().await;
    assert_eq!(write(&mut a, "write, also for the first time", "of a", early).await, 1, "nobody else has written");
    assert_eq!(write(&mut b, "write", "of b", late).await, 1);
    for statement in ["write", "write, also for the first time"] {
        assert_eq!(write(&mut a, statement, "of a, late", early).await, 0, "{statement}");
        assert_eq!(write(&mut b, statement, "of b, again", late).await, 1, "a holder writes more than once");
    }
    assert_eq!(body(&mut b).await, "of b, again");
    assert!(guard.is_held(), "the second holder was in charge all the time");
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_read_under_a_token_takes_no_late_write_and_no_update_is_lost() {
    let bench = Bench::start().await;
    let (mut a, mut b) = (bench.session().await, bench.session().await);
    let (early, late, _guard) = bench.two_holders().await;
    write(&mut a, "write, also for the first time", "1", early).await;
    assert_eq!(read(&mut b, late).await.as_deref(), Some("1"));
    assert_eq!(write(&mut a, "write", "2, of a", early).await, 0, "between B's read and B's write");
    assert_eq!(read(&mut a, early).await, None);
    assert_eq!(write(&mut b, "write", "2, of b", late).await, 1);
    assert_eq!(body(&mut b).await, "2, of b");
}

/// What the fence alone does not do, as the page says: the reason for reading under the token.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_plain_read_a_late_write_is_taken_and_then_overwritten() {
    let bench = Bench::start().await;
    let (mut a, mut b) = (bench.session().await, bench.session().await);
    let (early, late, _guard) = bench.two_holders().await;
    write(&mut a, "write, also for the first time", "1", early).await;
    assert_eq!(body(&mut b).await, "1");
    assert_eq!(write(&mut a, "write", "2, of a", early).await, 1, "no newer token was seen so far");
    assert_eq!(write(&mut b, "write", "2, of b", late).await, 1, "A's update is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_begins_with_its_fence_commits_as_a_whole_or_not_at_all() {
    let bench = Bench::start().await;
    let (mut a, mut b) = (bench.session().await, bench.session().await);
    let (early, late, _guard) = bench.two_holders().await;

    // A is late, but first: B waits until A has committed, and then sees all that A did.
    let mut of_a = a.begin().await.unwrap();
    assert_eq!(raise(&mut of_a, early).await, 1);
    sqlx::query("INSERT INTO page (id, body) VALUES ('one', 'a'), ('two', 'a')").execute(&mut *of_a).await.unwrap();
    let of_b = async {
        let mut of_b = b.begin().await.unwrap();
        assert_eq!(raise(&mut of_b, late).await, 1);
        let seen: (i64,) = sqlx::query_as("SELECT count(*) FROM page").fetch_one(&mut *of_b).await.unwrap();
        of_b.commit().await.unwrap();
        seen.0
    };
    let commit = async {
        until_somebody_waits(&bench.server).await;
        of_a.commit().await.unwrap();
    };
    let (seen, ()) = tokio::join!(of_b, commit);
    assert_eq!(seen, 2);

    // Now B was here, and A's next transaction ends with its first statement.
    assert_eq!(raise(&mut a, early).await, 0);
}

/// Waits until a session waits for another one's row.
async fn until_somebody_waits(server: &PostgresServer) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let waited = async {
        while server.query(waiting).unwrap() == [[Some("0".to_owned())]] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.expect("the second transaction waits for the first one");
}
