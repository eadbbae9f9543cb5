//! From settings to open states: the short forms, drivers of one's own, locks elsewhere, and backends that are down.

use std::sync::Arc;
#[cfg(feature = "memory")]
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use acteon_state::{ErrorKind, OpenOptions, Registry, Result, StateConfig, StateStore, open_with};

use crate::state;

/// What a driver that is down says.
fn down() -> acteon_state::Error {
    acteon_state::Error::new(ErrorKind::Unavailable, "connection refused")
}

/// A store that some driver opened.
#[cfg(feature = "memory")]
fn driven() -> Arc<dyn StateStore> {
    Arc::new(acteon_state::memory::MemoryStore::default())
}

fn options(registry: Registry) -> OpenOptions {
    OpenOptions { registry, ..OpenOptions::default() }
}

#[test]
fn the_short_forms_say_what_they_say() {
    let redis = state("backend = \"redis\"\nurl = \"redis://localhost:6379\"\nprefix = \"acteon\"");
    assert_eq!((redis.backend.as_str(), redis.prefix.as_deref()), ("redis", Some("acteon")));
    assert_eq!(redis.url.as_ref().map(|url| url.expose()), Some("redis://localhost:6379"));
    let postgres = state("backend = \"postgres\"\nurl = \"postgres://localhost/app\"\nprefix = \"acteon_\"");
    assert_eq!((postgres.backend.as_str(), postgres.prefix.as_deref()), ("postgres", Some("acteon_")));
    let dynamodb = state("backend = \"dynamodb\"\nregion = \"eu-central-1\"\ntable_name = \"acteon\"");
    assert_eq!(dynamodb.region.as_deref(), Some("eu-central-1"));
    assert_eq!(dynamodb.table_name.as_deref(), Some("acteon"));
    for config in [redis, postgres, dynamodb, state("backend = \"memory\""), StateConfig::default()] {
        config.check().unwrap();
    }
}

#[tokio::test]
async fn a_backend_that_is_down_stops_the_start_and_says_how_to_start_without_it() {
    let registry = Registry::new().with("mydb", |driver| async move {
        assert!(!driver.lazy);
        Err(down())
    });
    let config = state("backend = 'mydb'\nurl = 'mydb://u:hunter2@h'");
    let error = open_with(&config, options(registry)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(
        error.to_string(),
        "mydb state: cannot open the backend at mydb://u:***@h: connection refused; to start without it, set \
         state.optional = true [unavailable]"
    );
}

#[tokio::test]
async fn a_driver_sees_its_part_of_the_settings() {
    let registry = Registry::new().with("mydb", |driver| async move {
        assert_eq!(driver.backend, "mydb");
        assert_eq!((driver.prefix.as_deref(), driver.region.as_deref()), (Some("p"), Some("r")));
        assert!(driver.lazy);
        assert_eq!(driver.section["shards"].as_integer(), Some(3));
        Err(down())
    });
    let config = state("backend = 'mydb'\nprefix = 'p'\nregion = 'r'\noptional = true\n[state.mydb]\nshards = 3");
    assert_eq!(open_with(&config, options(registry)).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

/// For each way to start: how often the driver was asked, lazily or not, and whether the start went well without the backend.
#[cfg(feature = "memory")]
#[tokio::test]
async fn eager_or_lazy_and_required_or_optional_are_independent() {
    for (lines, asked, starts) in [
        ("", &[false][..], false),
        ("connect = 'eager'", &[false], false),
        ("connect = 'lazy'", &[true], true),
        ("optional = true", &[true], true),
        ("optional = true\nconnect = 'lazy'", &[true], true),
        ("optional = true\nconnect = 'eager'", &[false, true], true),
    ] {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let noted = calls.clone();
        let registry = Registry::new().with("mydb", move |driver| {
            noted.lock().unwrap().push(driver.lazy);
            async move { if driver.lazy { Ok(driven()) } else { Err(down()) } }
        });
        let opened = open_with(&state(&format!("backend = 'mydb'\n{lines}")), options(registry)).await;
        assert_eq!((&**calls.lock().unwrap(), opened.is_ok()), (asked, starts), "{lines}");
    }
}

/// A password that is wrong is wrong for ever, however optional the backend is.
#[tokio::test]
async fn an_eager_start_does_not_go_on_with_what_waiting_does_not_mend() {
    let registry = Registry::new().with("mydb", |driver| async move {
        assert!(!driver.lazy);
        Err(acteon_state::Error::new(ErrorKind::Denied, "wrong password"))
    });
    let config = state("backend = 'mydb'\noptional = true\nconnect = 'eager'");
    assert_eq!(open_with(&config, options(registry)).await.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn a_driver_is_told_when_somebody_only_looks() {
    for inspect in [false, true] {
        let registry = Registry::new().with("mydb", move |driver| async move {
            assert_eq!(driver.inspect, inspect);
            Err(down())
        });
        let options = OpenOptions { inspect, ..options(registry) };
        let config = state("backend = 'mydb'\n[state.lock]\nbackend = 'mydb'");
        assert_eq!(open_with(&config, options).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}

#[tokio::test]
async fn errors_in_the_section_of_a_registered_driver_name_their_place() {
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only its errors matter")]
    struct Section {
        shards: u32,
    }
    async fn mydb(driver: acteon_state::DriverConfig) -> Result<Arc<dyn StateStore>> {
        let section: Section = driver.read_section()?;
        panic!("read {section:?}")
    }
    for (lines, expected) in [
        ("[state.mydb]\nshrads = 1", "app.toml:4: state.mydb.shrads: unknown key `shrads`; did you mean `shards`?"),
        (
            "[state.mydb]\nshards = 'x'",
            "app.toml:4: state.mydb.shards: expected a whole number from 0 to 4294967295, found string \"x\"",
        ),
        ("[state.mydb]", "app.toml:3: state.mydb: the key `shards` is missing"),
        ("", "state.mydb: the key `shards` is missing"),
    ] {
        let config = state(&format!("backend = 'mydb'\n{lines}"));
        let registry = Registry::new().with("mydb", mydb);
        assert_eq!(open_with(&config, options(registry)).await.unwrap_err().message(), expected);
    }
}

#[tokio::test]
async fn registered_names_are_listed_and_suggested() {
    let registry = || options(Registry::new().with("mydb", |_| async { Err(down()) }));
    let error = open_with(&StateConfig::new("mybd"), registry()).await.unwrap_err();
    assert!(error.message().contains("there is no backend `mybd`; did you mean `mydb`? available are "), "{error}");
    let error = open_with(&StateConfig::new("oracle"), registry()).await.unwrap_err();
    assert!(error.message().contains("`mydb`"), "{error}");
}

#[tokio::test]
async fn a_misspelt_lock_backend_is_found_before_anything_connects() {
    let opened = Arc::new(AtomicUsize::new(0));
    let seen = opened.clone();
    let registry = Registry::new().with("mydb", move |_| {
        seen.fetch_add(1, Ordering::SeqCst);
        async { Err(down()) }
    });
    let config = state("backend = 'mydb'\n[state.lock]\nbackend = 'mybd'");
    let error = open_with(&config, options(registry)).await.unwrap_err();
    assert!(error.message().starts_with("app.toml:4: state.lock.backend: "), "{error}");
    assert_eq!(opened.load(Ordering::SeqCst), 0);
}

#[cfg(feature = "memory")]
mod with_memory {
    use std::sync::Arc;
    use std::time::Duration;

    use acteon_state::core::layer::metrics::StoreMetrics;
    use acteon_state::memory::MemoryStore;
    use acteon_state::{
        Capabilities, ErrorKind, Get, LockOptions, OpenOptions, Put, Registry, StateConfig, StateKey, StateStore, Ttl,
        open, open_with,
    };

    use super::{down, options};
    use crate::state;

    fn key() -> StateKey {
        StateKey::new("n", "t", "k", "i").unwrap()
    }

    #[tokio::test]
    async fn memory_opens_with_nothing_configured_and_closes() {
        let state = StateConfig::default().open().await.unwrap();
        state.put_json(&key(), &1, Ttl::Clear).await.unwrap();
        assert_eq!(state.get_json::<i32>(&key()).await.unwrap(), Some(1));
        state.close().await.unwrap();
        assert_eq!(state.get(&key()).await.unwrap_err().kind(), ErrorKind::Closed);
    }

    #[tokio::test]
    async fn options_of_memory_are_in_force() {
        let config =
            state("[state.memory]\nvalue_bytes_max = '1KiB'\nmemory_bytes_max = '64KiB'\nlock_retention = '1h'");
        let state = open(&config).await.unwrap();
        let put = |bytes: usize| Put::new(vec![0_u8; bytes]);
        assert_eq!(state.put(&key(), &put(1_025)).await.unwrap_err().kind(), ErrorKind::TooLarge);
        state.put(&key(), &put(1_024)).await.unwrap();
        let mut refused = None;
        for at in 0..128 {
            let key = StateKey::new("n", "t", "k", &at.to_string()).unwrap();
            refused = refused.or(state.put(&key, &put(1_024)).await.err());
        }
        assert_eq!(refused.expect("128 KiB do not fit into 64").kind(), ErrorKind::OutOfMemory);
    }

    #[tokio::test]
    async fn locks_can_be_on_another_backend_than_the_data() {
        let locks = Arc::new(MemoryStore::default());
        let factory = locks.clone();
        let registry = Registry::new().with("lockdb", move |_| {
            let store: Arc<dyn StateStore> = factory.clone();
            async move { Ok(store) }
        });
        let config = state("backend = 'memory'\nrequire = ['cas', 'semaphores']\n[state.lock]\nbackend = 'lockdb'");
        let state = open_with(&config, options(registry)).await.unwrap();
        assert!(state.has_own_lock_store());
        let guard = state.lock(&key(), &LockOptions::new(Duration::from_secs(5))).await.unwrap().acquired().unwrap();
        assert_eq!(locks.lock_inspect(&key()).await.unwrap().unwrap().holders.len(), 1);
        assert!(state.store().lock_inspect(&key()).await.unwrap().is_none());
        state.put(&key(), &Put::new("fenced").fenced_by(guard.token())).await.unwrap();
        assert!(locks.get(&key(), Get::default()).await.unwrap().is_none());
        guard.release().await.unwrap();
        state.close().await.unwrap();
        assert_eq!(locks.ping().await.unwrap_err().kind(), ErrorKind::Closed);
    }

    #[tokio::test]
    async fn a_start_that_fails_half_way_closes_what_it_opened() {
        let data = Arc::new(MemoryStore::default());
        let factory = data.clone();
        let registry = Registry::new()
            .with("data", move |_| {
                let store: Arc<dyn StateStore> = factory.clone();
                async move { Ok(store) }
            })
            .with("locks", |_| async { Err(down()) });
        let config = state("backend = 'data'\n[state.lock]\nbackend = 'locks'");
        let error = open_with(&config, options(registry)).await.unwrap_err();
        assert!(error.message().ends_with("to start without it, set state.lock.optional = true"), "{error}");
        assert_eq!(data.ping().await.unwrap_err().kind(), ErrorKind::Closed);
    }

    #[tokio::test]
    async fn every_declared_capability_can_be_required() {
        let opened = open(&StateConfig::default()).await.unwrap();
        let declared = opened.store().capabilities().list().filter(|(_, declared)| *declared);
        let require: Vec<String> = declared.map(|(name, _)| name.to_owned()).collect();
        assert!(require.len() > 5 && require.len() < Capabilities::NAMES.len());
        let config = StateConfig { require, ..StateConfig::default() };
        open(&config).await.unwrap();
    }

    #[tokio::test]
    async fn calls_are_counted_where_metrics_are_given() {
        let mut registry = prometheus_client::registry::Registry::default();
        let metrics = StoreMetrics::register(&mut registry);
        let options = OpenOptions { metrics: Some(metrics), ..OpenOptions::default() };
        let state = open_with(&StateConfig::default(), options).await.unwrap();
        state.get(&key()).await.unwrap();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let line = "acteon_state_operations_total{backend=\"memory\",operation=\"get\",outcome=\"absent\"} 1";
        assert!(text.contains(line), "{text}");
    }

    #[tokio::test]
    async fn degradation_is_in_force_within_its_bounds() {
        let text = "[state.layers.degradation]\nsession = 'stale'\nlimit = 'local'\n[state.layers.fallback]\n\
                    stale_age_max = '7s'\nstale_entries_max = 11\nstale_bytes_max = '3KiB'\nlocal_bytes_max = '5MiB'";
        let shown = format!("{:?}", open(&state(text)).await.unwrap().store());
        for part in ["Degrade", "\"session\": Stale", "age_max: 7s", "entries_max: 11", "bytes_max: 3072", "StandIn"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }

    #[tokio::test]
    async fn configured_layers_are_in_force() {
        // A deadline of the layer, not of the driver: memory itself would wait for the lock as long as it is asked to.
        let config =
            state("[state.layers]\ntimeout = '20ms'\ntracing = true\nconcurrency = { in_flight = 1, queue = 0 }");
        let state = open(&config).await.unwrap();
        let shown = format!("{:?}", state.store());
        for layer in ["Deadline", "20ms", "Tracing", "ConcurrencyLimit", "in_flight_max: 1"] {
            assert!(shown.contains(layer), "{layer}: {shown}");
        }
        let plain = format!("{:?}", open(&StateConfig::default()).await.unwrap().store());
        assert!(!plain.contains("Deadline") && !plain.contains("Retry"), "{plain}");
    }
}

#[cfg(feature = "redis")]
mod with_redis {
    use std::time::Duration;

    use acteon_state::{ErrorKind, OpenOptions, StateKey, open, open_with};

    use crate::state;

    /// Port 1 is reserved (tcpmux) and nobody listens on it.
    const NOBODY: &str = "backend = 'redis'\nurl = 'redis://:hunter2@127.0.0.1:1'\n";

    #[tokio::test]
    async fn an_unreachable_server_stops_the_start() {
        let error = open(&state(NOBODY)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let message = error.message();
        assert!(message.starts_with("cannot open the backend at redis://:***@127.0.0.1:1: "), "{error}");
        assert!(message.ends_with("; to start without it, set state.optional = true"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));

        let looking = OpenOptions { inspect: true, ..OpenOptions::default() };
        let error = open_with(&state(NOBODY), looking).await.unwrap_err();
        assert!(!error.message().contains("to start without it"), "a tool has nothing to start: {error}");
    }

    #[tokio::test]
    async fn what_is_required_of_a_server_that_is_down_is_said_to_be_unknown() {
        let error = open(&state(&format!("{NOBODY}optional = true\nrequire = ['durable']"))).await.unwrap_err();
        assert!(error.message().contains("it is not known while that is down"), "{error}");
    }

    #[tokio::test]
    async fn an_optional_server_that_is_down_does_not_stop_the_start() {
        let config = state(&format!(
            "{NOBODY}optional = true\nrequire = ['cas', 'locks', 'shared']\nlayers.retry = 'off'\n\
             [state.redis]\nconnect_wait = '10ms'"
        ));
        let state =
            tokio::time::timeout(Duration::from_secs(5), open(&config)).await.expect("waits for nobody").unwrap();
        let key = StateKey::new("n", "t", "k", "i").unwrap();
        assert_eq!(state.get(&key).await.unwrap_err().kind(), ErrorKind::Unavailable);
        state.close().await.unwrap();
    }
}

#[cfg(feature = "postgres")]
mod with_postgres {
    use std::time::Duration;

    use acteon_state::{ErrorKind, Migrate, StateKey, migrate, open};

    use crate::state;

    /// Port 1 is reserved (tcpmux) and nobody listens on it.
    const NOBODY: &str = "backend = 'postgres'\nurl = 'postgres://ada:hunter2@127.0.0.1:1/app'\n";

    #[tokio::test]
    async fn an_unreachable_server_stops_the_start() {
        let error = open(&state(NOBODY)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let message = error.message();
        assert!(message.starts_with("cannot open the backend at postgres://ada:***@127.0.0.1:1/app: "), "{error}");
        assert!(message.ends_with("; to start without it, set state.optional = true"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn an_unreachable_server_is_not_migrated_however_optional_it_is() {
        for how in [Migrate::Apply, Migrate::Check] {
            let error = migrate(&state(&format!("{NOBODY}optional = true")), how).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(!error.message().contains("to start without it") && !format!("{error:?}").contains("hunter2"));
        }
    }

    #[tokio::test]
    async fn an_optional_server_that_is_down_does_not_stop_the_start() {
        let config = state(&format!(
            "{NOBODY}optional = true\nrequire = ['cas', 'locks', 'shared']\nlayers.retry = 'off'\n\
             [state.postgres]\nconnect_wait = '10ms'"
        ));
        let state =
            tokio::time::timeout(Duration::from_secs(5), open(&config)).await.expect("waits for nobody").unwrap();
        let key = StateKey::new("n", "t", "k", "i").unwrap();
        assert_eq!(state.get(&key).await.unwrap_err().kind(), ErrorKind::Unavailable);
        state.close().await.unwrap();
    }

    #[tokio::test]
    async fn what_is_required_of_a_server_that_is_down_is_said_to_be_unknown() {
        let error = open(&state(&format!("{NOBODY}optional = true\nrequire = ['durable']"))).await.unwrap_err();
        assert!(error.message().contains("it is not known while that is down"), "{error}");
    }
}

#[cfg(feature = "dynamodb")]
mod with_dynamodb {
    use std::time::Duration;

    use acteon_state::{Condition, Effect, ErrorKind, Migrate, StateKey, migrate, open};

    use crate::state;

    /// Port 1 is reserved (tcpmux) and nobody listens on it.
    const NOBODY: &str = "backend = 'dynamodb'\nurl = 'http://127.0.0.1:1'\nlayers.retry = 'off'\n";

    #[tokio::test]
    async fn an_unreachable_service_stops_the_start() {
        let error = open(&state(NOBODY)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let message = error.message();
        assert!(message.starts_with("cannot open the backend at http://127.0.0.1:1: table acteon "), "{error}");
        assert!(message.contains("the service cannot be reached"), "{error}");
        assert!(message.ends_with("; to start without it, set state.optional = true"), "{error}");
    }

    #[tokio::test]
    async fn an_unreachable_service_is_not_migrated_however_optional_it_is() {
        for how in [Migrate::Apply, Migrate::Check] {
            let error = migrate(&state(&format!("{NOBODY}optional = true")), how).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(!error.message().contains("to start without it"), "{error}");
        }
    }

    #[tokio::test]
    async fn an_optional_service_that_is_down_does_not_stop_the_start() {
        let config = state(&format!("{NOBODY}optional = true\nrequire = ['cas', 'locks', 'shared']"));
        let state =
            tokio::time::timeout(Duration::from_secs(5), open(&config)).await.expect("waits for nobody").unwrap();
        let key = StateKey::new("n", "t", "k", "i").unwrap();
        let error = state.delete(&key, Condition::Always).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error}");
        state.close().await.unwrap();
    }

    #[tokio::test]
    async fn wrong_settings_are_named_where_they_are_written() {
        for (lines, expected) in [
            ("region = 'eu central'", "app.toml:3: state.region: \"eu central\" is none"),
            ("table_name = 'a/b'", "app.toml:3: state.table_name: \"a/b\" is not 3 to 255 characters"),
            ("url = 'http://db:8000'", "app.toml:3: state.url: \"http://db:8000\" would carry values across a network"),
            ("[state.dynamodb]\nshards = 65", "app.toml:4: state.dynamodb.shards: 65 is out of range"),
            ("[state.dynamodb]\nmigrate = 'ignore'", "app.toml:4: state.dynamodb.migrate: "),
        ] {
            let config = state(&format!("backend = 'dynamodb'\n{lines}"));
            // Even where the service need not be there.
            let error = open(&config).await.unwrap_err();
            assert!(error.kind() == ErrorKind::Config && error.message().starts_with(expected), "{lines}: {error}");
        }
    }

    #[tokio::test]
    async fn credentials_in_the_url_are_refused_without_being_repeated() {
        let error = open(&state("backend = 'dynamodb'\nurl = 'https://key:hunter2@localhost'")).await.unwrap_err();
        assert!(error.message().starts_with("app.toml:3: state.url: "), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
