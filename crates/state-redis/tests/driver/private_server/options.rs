//! Each way to say where servers are and how to get in, and each option that is not tested with what it is about: that it has
//! an effect on a real server.

use std::time::{Duration, Instant};

use acteon_state_core::{Effect, ErrorKind, Get, LockOutcome, LockRequest, Put, StateStore};
use acteon_state_redis::{Protocol, RedisConfig, RedisStore, Safety, TopologyName};
use acteon_test_support::{RedisCluster, RedisOptions, RedisSentinels, RedisServer, SentinelOptions};

use super::{PATIENCE, config, connect, key, refused, server, start, text, until};

/// The lines of CLIENT LIST that are connections of the driver.
fn clients(server: &RedisServer) -> Vec<String> {
    let list = server.query(&["CLIENT", "LIST"]).unwrap().unwrap();
    list.lines().filter(|line| !line.contains("cmd=client")).map(str::to_owned).collect()
}

/// Makes an ACL user that may do everything.
fn add_user(server: &RedisServer, name: &str, password: &str) {
    let password = format!(">{password}");
    server.query(&["ACL", "SETUSER", name, "on", &password, "+@all", "~*", "&*"]).unwrap();
}

/// Writes and reads something.
async fn exercise(store: &RedisStore) {
    let key = key("options");
    store.put(&key, &Put::new("v")).await.unwrap();
    assert!(store.get(&key, Get::default()).await.unwrap().is_some());
}

async fn works(config: RedisConfig) -> RedisStore {
    let store = RedisStore::connect(config).await.unwrap();
    exercise(&store).await;
    store
}

fn url(url: &str) -> RedisConfig {
    RedisConfig::from_url(url).unwrap()
}

#[tokio::test]
async fn the_protocol_is_the_one_that_is_asked_for() {
    let server = server();
    for (protocol, shown) in [(Protocol::Auto, "resp=3"), (Protocol::Resp3, "resp=3"), (Protocol::Resp2, "resp=2")] {
        let store = works(RedisConfig { protocol, ..config(&server) }).await;
        let clients = clients(&server);
        assert!(!clients.is_empty() && clients.iter().all(|client| client.contains(shown)), "{clients:?}");
        store.close().await.unwrap();
        until("the connection is gone", || async { self::clients(&server).is_empty() }).await;
    }
}

#[tokio::test]
async fn the_url_and_the_fields_lead_to_the_same_user_and_database() {
    let server = server();
    add_user(&server, "ada", "p@ss:w/rd");
    let port = server.port();
    let fields = RedisConfig {
        host: Some("127.0.0.1".into()),
        port: Some(port),
        username: Some("ada".into()),
        password: Some("p@ss:w/rd".into()),
        db: Some(7),
        ..RedisConfig::default()
    };
    for config in [fields, url(&format!("redis://ada:p%40ss%3Aw%2Frd@127.0.0.1:{port}/7"))] {
        let store = works(config).await;
        let clients = clients(&server);
        assert!(clients.iter().all(|client| client.contains("user=ada") && client.contains("db=7")), "{clients:?}");
        store.close().await.unwrap();
        until("the connection is gone", || async { self::clients(&server).is_empty() }).await;
    }
    // The name counts: the default user has no password here, and so takes any.
    let error = refused(url(&format!("redis://eve:p%40ss%3Aw%2Frd@127.0.0.1:{port}"))).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}

#[tokio::test]
async fn a_socket_has_databases_too() {
    let server = start(RedisOptions { unix_socket: true, ..RedisOptions::default() });
    let path = server.socket_path().unwrap();
    let field = RedisConfig { socket: Some(path.clone()), db: Some(5), ..RedisConfig::default() };
    for config in [url(&format!("unix://{}?db=5", path.display())), field] {
        let store = works(config).await;
        let clients = clients(&server);
        assert!(clients.iter().all(|client| client.contains("db=5") && client.contains("redis.sock")), "{clients:?}");
        store.close().await.unwrap();
        until("the connection is gone", || async { self::clients(&server).is_empty() }).await;
    }
}

/// Machines without IPv6 are many, so nothing is there to be reached; but the address is one, and no name to be looked up.
#[tokio::test]
async fn an_ipv6_address_is_dialled_as_one() {
    for url in ["redis://[::1]:1", "redis://:p@[::1]:1/0"] {
        let error = refused(self::url(url)).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.message().contains("[::1]:1: ") && !error.message().contains("resolved"), "{error}");
    }
}

#[tokio::test]
async fn any_of_the_nodes_leads_to_a_cluster() {
    let cluster = RedisCluster::start(Some("data1"), &[]).unwrap_or_else(|error| panic!("{error}"));
    let port = cluster.nodes[4].port();
    // Port 1 is reserved, and nobody listens on it.
    let hosts = format!("127.0.0.1:1,127.0.0.1:{port}");
    let fields = RedisConfig {
        topology: Some(TopologyName::Cluster),
        hosts: vec!["127.0.0.1:1".to_owned(), format!("127.0.0.1:{port}")],
        password: Some("data1".into()),
        ..RedisConfig::default()
    };
    let one = RedisConfig { hosts: vec![format!("127.0.0.1:{port}")], ..fields.clone() };
    for config in [
        fields,
        one,
        url(&format!("redis+cluster://:data1@{hosts}")),
        url(&format!("redis://:data1@{hosts}")),
        url(&format!("redis+cluster://:data1@127.0.0.1:{port}")),
    ] {
        works(config).await.close().await.unwrap();
    }
    let error = refused(url(&format!("redis://:data1@127.0.0.1:{port}"))).await;
    assert!(error.kind() == ErrorKind::Config && error.message().contains("redis+cluster://"), "{error}");
    let error = refused(url(&format!("redis+cluster://:wrong@{hosts}"))).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}

#[tokio::test]
async fn sentinels_have_users_of_their_own() {
    let options = SentinelOptions {
        password: Some("data1".to_owned()),
        sentinel_password: Some("watch2".to_owned()),
        ..SentinelOptions::default()
    };
    let group = RedisSentinels::start(options).unwrap_or_else(|error| panic!("{error}"));
    group.nodes.iter().for_each(|node| add_user(node, "ada", "data3"));
    group.sentinels.iter().for_each(|sentinel| add_user(sentinel, "watcher", "watch4"));
    let port = group.sentinels[1].port();
    // One that is gone stands before.
    let url = |users: &str, query: &str| {
        url(&format!("redis+sentinel://{users}127.0.0.1:1,127.0.0.1:{port}/2?sentinel_master=mymaster{query}"))
    };
    let store = works(url("ada:data3@", "&sentinel_username=watcher&sentinel_password=watch4")).await;
    let seen = clients(&group.nodes[0]);
    assert!(seen.iter().any(|client| client.contains("user=ada") && client.contains("db=2")), "{seen:?}");
    let seen = clients(&group.sentinels[1]);
    assert!(seen.iter().any(|client| client.contains("user=watcher")), "{seen:?}");
    store.close().await.unwrap();
    let fields = RedisConfig {
        hosts: vec![format!("127.0.0.1:{port}")],
        sentinel_master: Some("mymaster".into()),
        sentinel_username: Some("watcher".into()),
        sentinel_password: Some("watch4".into()),
        username: Some("ada".into()),
        password: Some("data3".into()),
        ..RedisConfig::default()
    };
    works(fields.clone()).await.close().await.unwrap();
    for (config, part) in [
        (url("ada:data3@", "&sentinel_password=wrong"), "Sentinel"),
        // What opens data nodes is not shown to Sentinels.
        (url(":watch2@", ""), "Sentinel"),
        (url("ada:wrong@", "&sentinel_password=watch2"), "WRONGPASS"),
        (RedisConfig { sentinel_username: Some("nobody".into()), ..fields.clone() }, "Sentinel"),
    ] {
        let error = refused(config).await;
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.message().contains(part), "{part}: {error}");
    }
    let error = refused(RedisConfig { sentinel_master: Some("other".into()), ..fields }).await;
    assert!(error.kind() == ErrorKind::Config && error.message().contains("other"), "{error}");
}

#[tokio::test]
async fn a_sentinel_and_a_server_are_not_taken_for_each_other() {
    let group = RedisSentinels::start(SentinelOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let error = refused(url(&format!("redis://127.0.0.1:{}", group.sentinels[0].port()))).await;
    assert!(error.kind() == ErrorKind::Config && error.message().contains("redis+sentinel://"), "{error}");
    let server = group.nodes[0].port();
    let error = refused(url(&format!("redis+sentinel://127.0.0.1:{server}?sentinel_master=mymaster"))).await;
    assert!(error.message().contains(&format!("Sentinel 127.0.0.1:{server}")), "{error}");
}

/// How long a write takes that fails because the server has stopped.
async fn outlasts(config: RedisConfig, server: &RedisServer, value: Vec<u8>) -> Duration {
    let store = RedisStore::connect(config).await.unwrap();
    server.pause().unwrap();
    let begin = Instant::now();
    let error = store.put(&key("frozen"), &Put::new(value)).await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown, "{error}");
    let taken = begin.elapsed();
    server.resume().unwrap();
    taken
}

#[tokio::test]
async fn a_silent_server_is_left_after_the_read_timeout() {
    let server = server();
    let patient = RedisConfig { operation_timeout: PATIENCE, write_timeout: PATIENCE, ..config(&server) };
    let read_timeout = Duration::from_millis(200);
    let taken = outlasts(RedisConfig { read_timeout, ..patient }, &server, b"small".to_vec()).await;
    assert!(taken >= read_timeout && taken < PATIENCE / 2, "{taken:?}");
}

#[tokio::test]
async fn a_server_that_takes_nothing_is_left_after_the_write_timeout() {
    let server = server();
    let patient = RedisConfig { operation_timeout: PATIENCE, read_timeout: PATIENCE, ..config(&server) };
    let write_timeout = Duration::from_millis(200);
    // More than the buffers of both sides.
    let taken = outlasts(RedisConfig { write_timeout, ..patient }, &server, vec![0; 48 << 20]).await;
    assert!(taken >= write_timeout && taken < PATIENCE / 2, "{taken:?}");
}

#[tokio::test]
async fn pauses_between_attempts_grow_up_to_the_longest() {
    let mut server = server();
    let config = config(&server);
    server.kill9().unwrap();
    let lazy =
        |reconnect_delay_max| RedisStore::connect_lazy(RedisConfig { reconnect_delay_max, ..config.clone() }).unwrap();
    let (often, seldom) = (lazy(Duration::from_millis(2)), lazy(Duration::from_secs(3_600)));
    until("it was tried often", || async { often.connection_stats().failed_total > 200 }).await;
    // Its pauses have doubled for a dozen times at most.
    assert!(seldom.connection_stats().failed_total < 40, "{:?}", seldom.connection_stats());
}

#[tokio::test]
async fn a_record_of_a_lock_is_kept_for_the_retention() {
    let server = server();
    let lock_retention = Duration::from_secs(3_600);
    let store = RedisStore::connect(RedisConfig { lock_retention, ..config(&server) }).await.unwrap();
    let request = LockRequest::new(key("kept"), Duration::from_secs(5));
    assert!(matches!(store.lock_acquire(&request).await.unwrap(), LockOutcome::Granted(_)));
    store.lock_release(&request.key, request.owner).await.unwrap();
    let record = format!("{{{}}}:lock", text(&request.key));
    let left = server.query(&["PTTL", &record]).unwrap().unwrap().parse::<u64>().unwrap();
    assert!((3_500_000..=3_600_000).contains(&left), "{left}");
}

#[tokio::test]
async fn values_above_the_largest_size_are_refused() {
    let server = server();
    let store = RedisStore::connect(RedisConfig { value_bytes_max: 1_000, ..config(&server) }).await.unwrap();
    assert_eq!(store.capabilities().value_bytes_max, 1_000);
    store.put(&key("fits"), &Put::new(vec![0; 1_000])).await.unwrap();
    let error = store.put(&key("large"), &Put::new(vec![0; 1_001])).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::TooLarge, Effect::NotApplied));
}

/// A server without any danger, as long as nobody changes that.
fn safe_server() -> RedisServer {
    let settings = vec!["maxmemory 100mb".to_owned(), "maxmemory-policy noeviction".to_owned()];
    start(RedisOptions { append_only: true, settings, ..RedisOptions::default() })
}

fn strict(server: &RedisServer) -> RedisConfig {
    RedisConfig { safety: Safety::Strict, ..config(server) }
}

#[tokio::test]
async fn strict_safety_refuses_each_dangerous_setting_and_names_it() {
    let server = safe_server();
    works(strict(&server)).await.close().await.unwrap();
    for (setting, bad, good) in [
        ("maxmemory-policy", "allkeys-lru", "noeviction"),
        ("appendfsync", "everysec", "always"),
        ("appendonly", "no", "yes"),
    ] {
        server.query(&["CONFIG", "SET", setting, bad]).unwrap();
        let error = refused(strict(&server)).await;
        assert!(error.kind() == ErrorKind::Config && error.message().contains(setting), "{error}");
        let warned = connect(&server).await;
        assert!(warned.lock_semantics().notes.iter().any(|note| note.contains(setting)), "{setting}");
        server.query(&["CONFIG", "SET", setting, good]).unwrap();
    }
    // Nobody who may not ask is told that all is well.
    server.query(&["ACL", "SETUSER", "deaf", "on", ">pw", "+@all", "-info", "~*", "&*"]).unwrap();
    let deaf = RedisConfig { username: Some("deaf".into()), password: Some("pw".into()), ..strict(&server) };
    let error = refused(deaf).await;
    assert!(error.kind() == ErrorKind::Config && error.message().contains("INFO"), "{error}");
}

#[tokio::test]
async fn strict_safety_judges_connections_that_come_later_too() {
    let mut server = safe_server();
    let config = strict(&server);
    server.query(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).unwrap();
    let store = RedisStore::connect_lazy(config).unwrap();
    until("the server was refused", || async {
        let outcome = store.put(&key("lazy"), &Put::new("v")).await;
        outcome.is_err_and(|error| error.kind() == ErrorKind::Config && error.message().contains("allkeys-lru"))
    })
    .await;
    // The configuration file is a good one.
    server.restart().unwrap();
    until("the server is accepted", || async { store.put(&key("lazy"), &Put::new("v")).await.is_ok() }).await;
}

#[tokio::test]
async fn strict_safety_asks_for_replicas_where_somebody_is_to_take_over() {
    let settings = vec!["min-replicas-to-write 1".to_owned(), "min-replicas-max-lag 10".to_owned()];
    let options = SentinelOptions { append_only: true, settings, ..SentinelOptions::default() };
    let group = RedisSentinels::start(options).unwrap_or_else(|error| panic!("{error}"));
    let config = RedisConfig { safety: Safety::Strict, ..url(&group.url()) };
    works(config.clone()).await.close().await.unwrap();
    group.nodes[0].query(&["CONFIG", "SET", "min-replicas-to-write", "0"]).unwrap();
    let error = refused(config).await;
    assert!(error.kind() == ErrorKind::Config && error.message().contains("min-replicas-to-write"), "{error}");
}

#[tokio::test]
async fn who_only_looks_leaves_nothing_behind_and_is_refused_alike() {
    let server = safe_server();
    let store = RedisStore::inspect(strict(&server)).await.unwrap();
    store.ping().await.unwrap();
    store.close().await.unwrap();
    assert_eq!(server.query(&["DBSIZE"]).unwrap().as_deref(), Some("0"));
    // While a store that grants locks has to note since when.
    RedisStore::connect(strict(&server)).await.unwrap().close().await.unwrap();
    assert_eq!(server.query(&["DBSIZE"]).unwrap().as_deref(), Some("1"));
    server.query(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).unwrap();
    let error = RedisStore::inspect(strict(&server)).await.expect_err("it is dangerous");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}

/// The page that says which rights are needed.
const PAGE: &str = include_str!("../../../../../docs/backends/redis.md");
const DATA: &str = "+@read +@write +@scripting +@connection +time ~acteon:* ~{acteon:*";
const CLUSTER: &str = "+cluster|slots +cluster|info +cluster|nodes";
const WAKING: &str = "+publish +subscribe +unsubscribe &{acteon:*";
const SETTINGS: &str = "+info +config|get";
const SENTINEL: &str = "+@connection +sentinel|master +sentinel|get-master-addr-by-name +sentinel|sentinels +sentinel|replicas +sentinel|myid +subscribe &+switch-master &+promoted-slave";

/// Makes a user with these rights, as they stand on the page, and no others.
fn add_user_with(server: &RedisServer, name: &str, rights: &[&str]) {
    assert!(rights.iter().all(|rights| PAGE.contains(&format!("\n{rights}  "))), "the page says something else");
    let rights = rights.iter().flat_map(|rights| rights.split(' '));
    let command: Vec<_> = ["ACL", "SETUSER", name, "reset", "on", ">pw"].into_iter().chain(rights).collect();
    server.query(&command).unwrap();
}

/// Everything that needs a right of its own.
async fn needs_no_more_rights(config: RedisConfig, servers: &[RedisServer]) {
    let store = works(config).await;
    let lease = Duration::from_secs(60);
    let holder = LockRequest::new(key("rights"), lease);
    until("the lock is granted", || async { matches!(store.lock_acquire(&holder).await, Ok(LockOutcome::Granted(_))) })
        .await;
    let waiter = LockRequest { wait: lease, ..LockRequest::new(holder.key.clone(), lease) };
    let release = async {
        until("the waiter has subscribed", || async {
            servers.iter().any(|server| clients(server).iter().any(|client| client.contains(" sub=1 ")))
        })
        .await;
        store.lock_release(&holder.key, holder.owner).await.unwrap();
    };
    let ((), outcome) = tokio::join!(release, store.lock_acquire(&waiter));
    assert!(matches!(outcome.unwrap(), LockOutcome::Granted(_)));
    for _ in 0..20 {
        store.get(&key("stale"), Get::stale_ok()).await.unwrap();
    }
    for server in servers {
        // Also what nobody would hear of, such as a publication from inside of a script.
        let stats = server.query(&["INFO", "commandstats"]).unwrap().unwrap();
        let refused: Vec<_> = stats.lines().filter(|line| !line.contains("rejected_calls=0")).collect();
        assert_eq!(refused, ["# Commandstats"]);
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_user_of_a_cluster_needs_only_the_documented_rights() {
    let settings = ["min-replicas-to-write 1", "appendonly yes", "appendfsync always"];
    let cluster = RedisCluster::start(None, &settings).unwrap_or_else(|error| panic!("{error}"));
    cluster.nodes.iter().for_each(|node| add_user_with(node, "ada", &[DATA, CLUSTER, WAKING, SETTINGS]));
    let config = RedisConfig { username: Some("ada".into()), password: Some("pw".into()), ..url(&cluster.url()) };
    needs_no_more_rights(config.clone(), &cluster.nodes).await;
    let lock_lease_max = Duration::from_secs(60);
    let strict = RedisConfig { safety: Safety::Strict, lock_lease_max, lock_replicas: 1, ..config };
    RedisStore::connect(strict).await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn a_user_of_sentinels_needs_only_the_documented_rights() {
    let group = RedisSentinels::start(SentinelOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    group.nodes.iter().for_each(|node| add_user_with(node, "ada", &[DATA, WAKING, SETTINGS]));
    group.sentinels.iter().for_each(|sentinel| add_user_with(sentinel, "watcher", &[SENTINEL]));
    let config = RedisConfig {
        username: Some("ada".into()),
        password: Some("pw".into()),
        sentinel_username: Some("watcher".into()),
        sentinel_password: Some("pw".into()),
        ..url(&group.url())
    };
    needs_no_more_rights(config.clone(), &group.nodes).await;
    let store = RedisStore::connect(config).await.unwrap();
    until("all Sentinels are followed", || async {
        let is_followed = |client: &String| client.contains("user=watcher") && client.contains(" sub=2 ");
        group.sentinels.iter().all(|sentinel| clients(sentinel).iter().any(is_followed))
    })
    .await;
    store.close().await.unwrap();
}
