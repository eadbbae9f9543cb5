//! Locks for people: over HTTP with the administrator's token, and by `acteon-server locks`.

use std::time::Duration;

use acteon_server::{Config, Server, Shutdown};
use acteon_state::config::Secret;
use acteon_state::{LockGuard, LockMode, LockOptions, State, StateKey};
use reqwest::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Finished, PATIENCE, Process, TestServer, action, client, read, rules_directory, run};

const TOKEN: &str = "correct-horse-battery-staple";
/// Longer than any test takes.
const FOR_LONG: Duration = Duration::from_secs(3600);

/// A server in this process with an administrator, and the state that it works on.
struct Administered {
    url: String,
    state: State,
    client: Client,
    _rules: TempDir,
}

impl Administered {
    async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let rules = rules_directory("rules: []");
        let mut config = Config::default();
        config.server.port = 0;
        config.server.admin_token = Some(Secret::new(TOKEN));
        config.rules.directory = rules.path().to_owned();
        change(&mut config);
        let server = Server::start(config).await.expect("starts");
        let (url, state) = (format!("http://{}", server.address()), server.app().state().clone());
        tokio::spawn(server.run(Shutdown::default()));
        Self { url, state, client: client(), _rules: rules }
    }

    async fn ask(&self, method: Method, path: &str) -> (StatusCode, Value) {
        let request = self.client.request(method, format!("{}{path}", self.url)).bearer_auth(TOKEN);
        read(request.send().await.expect("answered")).await
    }

    /// The code of the error.
    async fn refused(&self, method: Method, path: &str) -> (StatusCode, String) {
        let (status, answer) = self.ask(method, path).await;
        let code = answer["error"]["code"].as_str().unwrap_or_else(|| panic!("{answer}"));
        (status, code.to_owned())
    }

    async fn held(&self, id: &str, options: &LockOptions) -> LockGuard {
        held(&self.state, id, options).await
    }
}

fn till(id: &str) -> StateKey {
    StateKey::new("shop", "acme", "till", id).expect("valid")
}

async fn held(state: &State, id: &str, options: &LockOptions) -> LockGuard {
    state.lock(&till(id), options).await.expect("answered").acquired().expect("free")
}

async fn is_lost(guard: &LockGuard) {
    tokio::time::timeout(PATIENCE, guard.lost()).await.expect("the holder notices");
    assert!(!guard.is_held());
}

/// What renews so often that it notices soon.
fn renewed() -> LockOptions {
    LockOptions::new(Duration::from_secs(2)).renew().meta("node 3")
}

#[tokio::test]
async fn without_a_token_in_the_configuration_nobody_is_an_administrator() {
    let server = TestServer::start("rules: []").await;
    for (method, path) in
        [(Method::GET, "/v1/locks"), (Method::GET, "/v1/locks/a:b:c:d"), (Method::DELETE, "/v1/locks/a:b:c:d")]
    {
        let request = server.client.request(method, format!("{}{path}", server.url)).bearer_auth(TOKEN);
        let (status, answer) = read(request.send().await.expect("answered")).await;
        assert_eq!((status, &answer["error"]["code"]), (StatusCode::FORBIDDEN, &json!("admin_disabled")));
        assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("admin_token")), "{answer}");
    }
}

#[tokio::test]
async fn only_the_right_token_lets_in_and_a_wrong_one_learns_nothing() {
    let server = Administered::start(|_| ()).await;
    let guard = server.held("1", &LockOptions::new(FOR_LONG)).await;
    let wrong = ["", "Bearer", "Bearer correct-horse-battery-stapl", "Basic correct-horse-battery-staple", TOKEN];
    for (method, path) in [
        (Method::GET, "/v1/locks?prefix=shop:acme:till"),
        (Method::GET, "/v1/locks?nonsense"),
        (Method::GET, "/v1/locks/shop:acme:till:1"),
        (Method::DELETE, "/v1/locks/shop:acme:till:1?reason=theft"),
        (Method::DELETE, "/v1/locks/shop:acme:till:unknown?reason=theft"),
    ] {
        for authorization in wrong {
            let request = server.client.request(method.clone(), format!("{}{path}", server.url));
            let response = request.header(AUTHORIZATION, authorization).send().await.expect("answered");
            assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");
            let (status, answer) = read(response).await;
            assert_eq!((status, &answer["error"]["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthorized")));
        }
    }
    assert!(guard.is_held());
    assert_eq!(server.state.inspect_lock(&till("1")).await.expect("answered").expect("known").holders.len(), 1);
    assert_eq!(server.ask(Method::GET, "/v1/locks?prefix=shop:acme:till").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_lock_is_shown_and_released_under_any_name() {
    let server = Administered::start(|_| ()).await;
    for (id, path) in
        [("1", "1"), ("a/b c", "a/b%20c"), ("a%2Fb", "a$12Fb"), ("x:y", "x;0y"), ("ü", "%C3%BC"), ("/", "%2F")]
    {
        let guard = server.held(id, &renewed()).await;
        let (owner, token) = (guard.owner().to_string(), guard.token().get());
        let path = format!("/v1/locks/shop:acme:till:{path}");
        let (status, lock) = server.ask(Method::GET, &path).await;
        assert_eq!((status, &lock["id"], &lock["last_token"]), (StatusCode::OK, &json!(id), &json!(token)), "{lock}");
        assert_eq!(
            (&lock["namespace"], &lock["tenant"], &lock["kind"]),
            (&json!("shop"), &json!("acme"), &json!("till"))
        );
        let holder = &lock["holders"][0];
        let shown = (&holder["owner"], &holder["mode"], &holder["token"], &holder["meta"]);
        assert_eq!(shown, (&json!(owner), &json!("exclusive"), &json!(token), &json!("node 3")));
        assert!(holder["expires_in_ms"].as_u64().is_some_and(|ms| (1..=2_000).contains(&ms)), "{holder}");

        let (status, released) = server.ask(Method::DELETE, &format!("{path}?reason=stuck%20since%20noon")).await;
        assert_eq!((status, &released["released"]), (StatusCode::OK, &json!(1)), "{released}");
        assert_eq!(
            (&released["reason"], &released["holders"][0]["token"]),
            (&json!("stuck since noon"), &json!(token))
        );
        is_lost(&guard).await;
        let again = server.held(id, &LockOptions::new(FOR_LONG)).await;
        assert!(again.token().get() > token);
    }
}

#[tokio::test]
async fn a_free_lock_is_known_and_one_that_never_was_is_not() {
    let server = Administered::start(|_| ()).await;
    let path = "/v1/locks/shop:acme:till:1";
    for method in [Method::GET, Method::DELETE] {
        let refused = server.refused(method, &format!("{path}?reason=none")).await;
        assert_eq!(refused, (StatusCode::NOT_FOUND, "unknown_lock".to_owned()));
    }
    server.held("1", &LockOptions::new(FOR_LONG)).await.release().await.expect("released");
    let (status, released) = server.ask(Method::DELETE, &format!("{path}?reason=none")).await;
    assert_eq!((status, &released["released"], &released["holders"]), (StatusCode::OK, &json!(0), &json!([])));
}

#[tokio::test]
async fn locks_are_listed_in_pages_with_every_holder() {
    let server = Administered::start(|_| ()).await;
    let mut guards = Vec::new();
    for id in ["a-1", "a-2", "a-3", "b-1"] {
        guards.push(server.held(id, &LockOptions::new(FOR_LONG)).await);
    }
    for _ in 0..2 {
        guards.push(server.held("a-4", &LockOptions::new(FOR_LONG).mode(LockMode::Permit { of: 2 })).await);
    }
    guards.remove(1).release().await.expect("released");
    for (more, expected) in [("", &["a-1", "a-2", "a-3", "a-4"][..]), ("&held=true", &["a-1", "a-3", "a-4"])] {
        let (mut ids, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let path = format!("/v1/locks?prefix=shop:acme:till:a-&limit=2{more}{cursor}");
            let (status, page) = server.ask(Method::GET, &path).await;
            assert_eq!(status, StatusCode::OK, "{page}");
            let locks = page["locks"].as_array().expect("an array");
            assert!(locks.len() <= 2, "{page}");
            ids.extend(locks.iter().map(|lock| lock["id"].as_str().expect("text").to_owned()));
            pages += 1;
            let Some(next) = page["next_cursor"].as_str() else { break };
            let next = next.replace('%', "%25").replace('+', "%2B").replace('&', "%26").replace('#', "%23");
            cursor = format!("&cursor={next}");
        }
        ids.sort();
        assert_eq!(ids, expected);
        assert!(pages > 1, "one page");
    }
    let (_, lock) = server.ask(Method::GET, "/v1/locks/shop:acme:till:a-4").await;
    let holders = lock["holders"].as_array().expect("an array");
    assert_eq!(holders.len(), 2);
    assert!(holders.iter().all(|it| (&it["mode"], &it["permits"]) == (&json!("permit"), &json!(2))), "{lock}");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told() {
    let server = Administered::start(|_| ()).await;
    let guard = server.held("1", &LockOptions::new(FOR_LONG)).await;
    let key = "/v1/locks/shop:acme:till:1";
    for (method, path) in [
        (Method::GET, "/v1/locks".to_owned()),
        (Method::GET, "/v1/locks?prefix=shop".to_owned()),
        (Method::GET, "/v1/locks?prefix=shop:acme:till:*".to_owned()),
        (Method::GET, "/v1/locks?prefix=shop:acme:till&limit=0".to_owned()),
        (Method::GET, "/v1/locks?prefix=shop:acme:till&limit=1001".to_owned()),
        (Method::GET, "/v1/locks?prefix=shop:acme:till&limt=1".to_owned()),
        (Method::GET, "/v1/locks?prefix=shop:acme:till&cursor=".to_owned()),
        (Method::GET, "/v1/locks/shop:acme:till".to_owned()),
        (Method::DELETE, key.to_owned()),
        (Method::DELETE, format!("{key}?reason=")),
        (Method::DELETE, format!("{key}?reason=two%0Alines")),
        (Method::DELETE, format!("{key}?reasno=stuck")),
    ] {
        assert_eq!(
            server.refused(method, &path).await,
            (StatusCode::BAD_REQUEST, "invalid_request".to_owned()),
            "{path}"
        );
    }
    let with_body = async |body: Value| {
        let request = server.client.delete(format!("{}{key}", server.url)).bearer_auth(TOKEN).json(&body);
        read(request.send().await.expect("answered")).await
    };
    for body in [json!({}), json!({"reason": 1}), json!({"reason": "x", "more": 1}), json!([])] {
        assert_eq!(with_body(body.clone()).await.0, StatusCode::BAD_REQUEST, "{body}");
    }
    assert!(guard.extend(FOR_LONG).await.is_ok() && guard.is_held());
    assert_eq!(with_body(json!({"reason": "stuck"})).await.1["released"], 1);
}

#[test]
fn refused_attempts_are_logged_once_in_a_while_and_the_token_never() {
    let toml = format!("[server]\nport = 0\nadmin_token = \"{TOKEN}\"\n");
    let mut process = Process::start(&toml, &[]);
    let url = process.url();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = client();
        for _ in 0..20 {
            let request = client.get(format!("{url}/v1/locks?prefix=demo:acme:action"));
            let answer = request.bearer_auth("wrong-wrong-wrong-wrong").send().await.expect("answered");
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        }
        // The action's lock is free again, and its record is kept.
        let dispatched = client.post(format!("{url}/v1/dispatch")).json(&{
            let mut action = action();
            action["id"] = json!("order-17");
            action
        });
        assert_eq!(dispatched.send().await.expect("answered").status(), StatusCode::OK);
        let release = format!("{url}/v1/locks/demo:acme:action:order-17?reason=drill");
        let answer = client.delete(release).bearer_auth(TOKEN).send().await.expect("answered");
        assert_eq!(read(answer).await.1["released"], 0);
    });
    let audit = process.wait_for_log("an administrator released a lock by force");
    for part in ["by=127.0.0.1:", "lock=\"demo:acme:action:order-17\"", "reason=\"drill\"", "released=0", "tokens=[]"] {
        assert!(audit.contains(part), "{part} is not in: {audit}");
    }
    let log = process.log();
    let refusals: Vec<&str> = log.lines().filter(|line| line.contains("without the right token")).collect();
    // One in five seconds.
    assert!((1..10).contains(&refusals.len()) && refusals[0].contains("from=127.0.0.1:"), "{log}");
    assert!(!log.contains(TOKEN) && !log.contains("wrong-wrong"), "{log}");
}

fn assert_failed(finished: &Finished, code: i32, parts: &[&str]) {
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(code), ""), "{}", finished.stderr);
    for part in parts {
        assert!(finished.stderr.contains(part), "{part:?} is not in:\n{}", finished.stderr);
    }
}

#[test]
fn locks_in_the_process_of_a_server_are_asked_for_over_http() {
    for (arguments, request) in [
        (&["locks", "list", "shop:acme:till"][..], "GET /v1/locks?prefix=.."),
        (&["locks", "inspect", "shop:acme:till:1"], "GET /v1/locks/KEY"),
        (&["locks", "release", "shop:acme:till:1", "--reason", "stuck"], "DELETE /v1/locks/KEY?reason=.."),
    ] {
        assert_failed(&run("", arguments), 1, &["in the server's process", request, "server.admin_token"]);
    }
}

#[test]
fn a_name_that_no_lock_has_is_a_wrong_argument() {
    assert_failed(&run("", &["locks", "inspect", "till"]), 2, &["namespace:tenant:kind:id"]);
    assert_failed(&run("", &["locks", "list", "shop:acme"]), 2, &["namespace:tenant:kind"]);
    assert_failed(&run("", &["locks", "list", "shop:acme:till", "--limit", "0"]), 2, &["1..=1000"]);
    assert_failed(&run("", &["locks", "release", "shop:acme:till:1"]), 2, &["--reason"]);
}

#[cfg(feature = "redis")]
mod on_redis {
    use acteon_state::StateConfig;
    use acteon_state::config::ConnectionUrl;
    use acteon_test_support::{RedisOptions, RedisServer};

    use super::*;

    fn redis() -> RedisServer {
        RedisServer::start(RedisOptions::default()).unwrap_or_else(|error| panic!("{error}"))
    }

    fn settings(redis: &RedisServer) -> StateConfig {
        StateConfig { url: Some(ConnectionUrl::new(redis.url())), ..StateConfig::new("redis") }
    }

    fn toml(redis: &RedisServer) -> String {
        let url = redis.url();
        format!("[server]\nport = 0\nadmin_token = \"{TOKEN}\"\n[state]\nbackend = \"redis\"\nurl = \"{url}\"\n")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_server_releases_what_another_one_holds_and_that_one_stops() {
        let redis = redis();
        let holder = Administered::start(|config| config.state = settings(&redis)).await;
        let mut other = Process::start(&toml(&redis), &[]);
        let url = other.url();
        let guard = holder.held("1", &renewed()).await;
        let token = guard.token().get();
        let lock = format!("{url}/v1/locks/shop:acme:till:1");

        let shown = client().get(&lock).bearer_auth(TOKEN).send().await.expect("answered");
        assert_eq!(read(shown).await.1["holders"][0]["meta"], "node 3");
        assert!(guard.is_held());
        let released = client().delete(&lock).bearer_auth(TOKEN).json(&json!({"reason": "node 3 is gone"}));
        let (status, released) = read(released.send().await.expect("answered")).await;
        assert_eq!((status, &released["released"]), (StatusCode::OK, &json!(1)), "{released}");
        is_lost(&guard).await;

        let next = holder.held("1", &LockOptions::new(FOR_LONG)).await;
        assert!(next.token().get() > token);
        let audit = other.wait_for_log("an administrator released a lock by force");
        for part in ["by=127.0.0.1:", "reason=\"node 3 is gone\"", "released=1", &format!("tokens=[{token}]")] {
            assert!(audit.contains(part), "{part} is not in: {audit}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_command_shows_and_releases_locks_beside_running_servers() {
        let redis = redis();
        let toml = toml(&redis);
        let state = settings(&redis).open().await.expect("reachable");
        let guard = held(&state, "1", &renewed()).await;
        let (owner, token) = (guard.owner().to_string(), guard.token().get().to_string());
        held(&state, "2", &LockOptions::new(FOR_LONG)).await.release().await.expect("released");
        let locks = |arguments: &[&str]| {
            let finished = run(&toml, &[&["locks"], arguments].concat());
            assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{}", finished.stdout);
            finished.stdout
        };

        let table = locks(&["list", "shop:acme:till"]);
        assert!(table.starts_with("LOCK") && table.lines().count() == 3, "{table}");
        let line = table.lines().find(|line| line.starts_with("shop:acme:till:1 ")).expect("listed");
        assert!(line.contains(&token) && line.contains("exclusive") && line.ends_with("node 3"), "{line}");
        let free = table.lines().find(|line| line.starts_with("shop:acme:till:2 ")).expect("listed");
        assert!(free.ends_with("free"), "{free}");
        let listed: Value =
            serde_json::from_str(&locks(&["list", "shop:acme:till:", "--held", "--json"])).expect("JSON");
        assert_eq!((&listed["locks"][0]["id"], listed["locks"].as_array().map(Vec::len)), (&json!("1"), Some(1)));
        assert_eq!(locks(&["list", "shop:acme:nothing"]), "No locks here.\n");

        let shown = locks(&["inspect", "shop:acme:till:1"]);
        assert!([owner.as_str(), &token, "node 3"].iter().all(|part| shown.contains(part)), "{shown}");
        let shown: Value = serde_json::from_str(&locks(&["inspect", "shop:acme:till:1", "--json"])).expect("JSON");
        assert_eq!(shown["holders"][0]["owner"], json!(owner));

        let released = locks(&["release", "shop:acme:till:1", "--reason", "node 3 is gone"]);
        assert!(released.starts_with("Released shop:acme:till:1, leases ended: 1\n"), "{released}");
        assert!(released.contains(&token) && released.contains(&owner), "{released}");
        is_lost(&guard).await;
        assert_eq!(locks(&["release", "shop:acme:till:1", "--reason", "again"]), "Nobody held shop:acme:till:1.\n");
        assert_failed(&run(&toml, &["locks", "inspect", "shop:acme:till:3"]), 1, &["there is no lock", "never held"]);
        let never = run(&toml, &["locks", "release", "shop:acme:till:3", "--reason", "stuck"]);
        assert_failed(&never, 1, &["there is no lock shop:acme:till:3"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lock_is_found_among_a_great_many_other_keys() {
        let redis = redis();
        let state = settings(&redis).open().await.expect("reachable");
        let mut guards = Vec::new();
        for id in ["1", "2", "3"] {
            guards.push(held(&state, id, &LockOptions::new(FOR_LONG)).await);
        }
        // More than one page visits.
        let junk = "for i = 1, 60000 do redis.call('SET', 'junk:' .. i, 'x') end";
        redis.query(&["EVAL", junk, "0"]).expect("answered");
        let locks = |more: &[&str]| run(&toml(&redis), &[&["locks", "list", "shop:acme:till"], more].concat()).stdout;
        assert_eq!(locks(&[]).lines().count(), 4, "a head and three locks");
        let first = locks(&["--limit", "1"]);
        let more = first.lines().last().and_then(|line| line.strip_prefix("There may be more: --cursor '"));
        // Where all happen to be in the last page, there is no more.
        let rest = more.map(|rest| locks(&["--cursor", rest.trim_end_matches('\'')])).unwrap_or_default();
        for id in ["1", "2", "3"] {
            let name = format!("shop:acme:till:{id} ");
            assert!(first.contains(&name) || rest.contains(&name), "{first}{rest}");
        }
    }

    #[test]
    fn locks_are_looked_for_where_they_are_kept() {
        let redis = redis();
        // The data is out of reach, and nobody asks for it.
        let toml = format!(
            "[state]\nbackend = \"redis\"\nurl = \"redis://127.0.0.1:1\"\n[state.lock]\nbackend = \"redis\"\nurl = \"{}\"\n",
            redis.url()
        );
        assert_eq!(run(&toml, &["locks", "list", "shop:acme:till"]).stdout, "No locks here.\n");
        let elsewhere = toml.replace("[state.lock]\nbackend = \"redis\"", "[state.lock]\nbackend = \"memory\"");
        let elsewhere = elsewhere.replace(&format!("url = \"{}\"\n", redis.url()), "");
        assert_failed(&run(&elsewhere, &["locks", "list", "shop:acme:till"]), 1, &["in the server's process"]);
    }

    #[test]
    fn a_backend_that_does_not_answer_is_told_also_where_the_server_would_start_without() {
        let toml = "[state]\nbackend = \"redis\"\nurl = \"redis://127.0.0.1:1\"\noptional = true\n";
        let finished = run(toml, &["locks", "list", "shop:acme:till"]);
        assert_failed(&finished, 1, &["the store of the locks cannot be opened", "127.0.0.1:1"]);
    }
}
