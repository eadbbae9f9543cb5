//! Every way to write `[state]` wrongly, and the line that says so.

use acteon_state::config::Document;
use acteon_state::{ErrorKind, StateConfig, open};
#[cfg(feature = "postgres")]
use acteon_state::{Migrate, migrate};

use crate::{document, fault, state};

/// What is written below `[state]`, and the error that follows.
const WRONG: [(&str, &str); 37] = [
    ("bakend = 'memory'", "app.toml:2: state.bakend: unknown key `bakend`; did you mean `backend`?"),
    ("\n\nulr = 'redis://h'", "app.toml:4: state.ulr: unknown key `ulr`; did you mean `url`?"),
    (
        "colour = 'red'",
        "app.toml:2: state.colour: unknown key `colour`; there are backend, url, prefix, region, table_name, require, \
         optional, connect, lock, layers",
    ),
    ("backend = 3", "app.toml:2: state.backend: expected a string, found integer `3`"),
    ("optional = 'yes'", "app.toml:2: state.optional: expected true or false, found string \"yes\""),
    ("connect = 'lasy'", "app.toml:2: state.connect: unknown value `lasy`; did you mean `lazy`?"),
    ("require = 'cas'", "app.toml:2: state.require: expected a list, found string \"cas\""),
    ("require = ['cas',\n 7]", "app.toml:3: state.require[1]: expected a string, found integer `7`"),
    (
        "[state.redis]\nport = 1",
        "app.toml:2: state.redis: [state.redis] is not a section of the chosen backend, \"memory\"; remove it, or set \
         backend = \"redis\"",
    ),
    (
        "backend = 'redis'\n[state.redsi]\nport = 1",
        "app.toml:3: state.redsi: [state.redsi] is not a section of the chosen backend, \"redis\"; did you mean \
         [state.redis]?",
    ),
    (
        "[state.layer]\nretry = 'off'",
        "app.toml:2: state.layer: [state.layer] is not a section of the chosen backend, \"memory\"; did you mean \
         [state.layers]?",
    ),
    ("[state.layers]\ntimeout = 5", "app.toml:3: state.layers.timeout: `5` has no unit: write \"5s\" or \"5ms\""),
    ("[state.layers]\ntimeout = '5'", "app.toml:3: state.layers.timeout: `5` has no unit: write \"5s\" or \"5ms\""),
    (
        "[state.layers]\ntimeout = 2.5",
        "app.toml:3: state.layers.timeout: `2.5` has no unit: write \"2.5s\" or \"2.5ms\"",
    ),
    (
        "[state.layers]\ntimeout = 'soon'",
        "app.toml:3: state.layers.timeout: `soon` is not a duration: write one like \"250ms\", \"5s\" or \"1m 30s\"",
    ),
    (
        "[state.layers]\ntimeout = true",
        "app.toml:3: state.layers.timeout: expected \"off\" or a setting, found boolean `true`",
    ),
    (
        "[state.layers]\ntimeout = '0s'",
        "app.toml:3: state.layers.timeout: no call ends in no time; write \"off\" for no limit",
    ),
    (
        "layers.timeout = '1s'\nlayers.attempt_timeout = '2s'",
        "app.toml:3: state.layers.attempt_timeout: 2s is longer than the timeout of the whole call, 1s",
    ),
    ("[state.layers]\ntimout = '5s'", "app.toml:3: state.layers.timout: unknown key `timout`; did you mean `timeout`?"),
    (
        "[state.layers]\nretry = { atempts = 3 }",
        "app.toml:3: state.layers.retry.atempts: unknown key `atempts`; did you mean `attempts`?",
    ),
    (
        "[state.layers.retry]\nattempts = 0",
        "app.toml:3: state.layers.retry.attempts: 0 is not between 1 (no repetition) and 20",
    ),
    (
        "[state.layers.retry]\nbackoff = '2s'",
        "app.toml:3: state.layers.retry.backoff: 2s is longer than backoff_max, 500ms",
    ),
    (
        "[state.layers.circuit_breaker]\nfailures = -1",
        "app.toml:3: state.layers.circuit_breaker.failures: expected a whole number from 0 to 4294967295, found integer `-1`",
    ),
    (
        "[state.layers.circuit_breaker]\nfailures = 0",
        "app.toml:3: state.layers.circuit_breaker.failures: must be at least 1; write circuit_breaker = \"off\" to do \
         without it",
    ),
    (
        "[state.layers.concurrency]\nin_flight = 0",
        "app.toml:3: state.layers.concurrency.in_flight: must be at least 1: with 0 no call could ever run",
    ),
    (
        "[state.layers.degradation]\ndedup = 'opne'",
        "app.toml:3: state.layers.degradation.dedup: unknown value `opne`; did you mean `open`?",
    ),
    (
        "[state.layers.degradation]\ndedup = 'sideways'",
        "app.toml:3: state.layers.degradation.dedup: unknown value `sideways`; there are closed, open, stale, local",
    ),
    (
        "[state.layers.degradation]\nlocks = 'local'",
        "app.toml:3: state.layers.degradation.locks: locks only fail closed; remove this key",
    ),
    (
        "[state.layers.fallback]\nstale_age_max = '0s'",
        "app.toml:3: state.layers.fallback.stale_age_max: must be above zero; to serve nothing, write \"closed\" in place \
         of \"stale\"",
    ),
    (
        "[state.lock.layers.fallback]\nlocal_bytes_max = '1MiB'",
        "app.toml:2: state.lock.layers.fallback: locks only fail closed; remove this table",
    ),
    (
        "[state.layers.degradation]\nlock = 'open'",
        "app.toml:3: state.layers.degradation.lock: locks only fail closed; remove this key",
    ),
    (
        "[state.lock.lock]\nbackend = 'memory'",
        "app.toml:2: state.lock.lock: locks are kept in one place: this section cannot have a lock section of its own",
    ),
    (
        "[state.lock]\nrequire = ['locks']",
        "app.toml:3: state.lock.require: list what is required of locks in the section around this one",
    ),
    (
        "[state.lock.layers.degradation]\ndefault = 'open'",
        "app.toml:2: state.lock.layers.degradation: locks only fail closed; remove this table",
    ),
    ("[state.lock]\nbakend = 'memory'", "app.toml:3: state.lock.bakend: unknown key `bakend`; did you mean `backend`?"),
    (
        "[state.lock.redis]\nport = 1",
        "app.toml:2: state.lock.redis: [state.lock.redis] is not a section of the chosen backend, \"memory\"; remove it, \
         or set backend = \"redis\"",
    ),
    (
        "url = 'redis://a'\nurl_file = '/run/url'",
        "app.toml:3: state.url_file: both `url` and `url_file` are given; keep one",
    ),
];

#[test]
fn what_is_written_wrongly_is_named_with_file_line_and_key() {
    for (lines, expected) in WRONG {
        let error = match Document::parse("app.toml", &format!("[state]\n{lines}")) {
            Ok(document) => fault(&document).unwrap_or_else(|| panic!("nothing wrong with\n{lines}")),
            Err(error) => error,
        };
        assert_eq!(error.to_string(), expected, "{lines}");
    }
}

#[test]
fn what_is_not_toml_is_named_with_its_line_and_without_its_text() {
    for (text, line) in [
        ("[state]\nurl = 'redis://:hunter2@h", 2),
        ("[state]\nurl = hunter2", 2),
        ("hunter2 = 1\nhunter2.x = 1", 2),
        ("[state\n", 1),
        ("a = 1\na = 2", 2),
        ("\n\n= 3", 3),
    ] {
        let error = Document::parse("app.toml", text).expect_err(text).to_string();
        assert!(error.starts_with(&format!("app.toml:{line}: ")), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Document::load("/nonexistent/app.toml").expect_err("no such file").to_string();
    assert!(error.starts_with("cannot read the configuration /nonexistent/app.toml: "), "{error}");
}

#[test]
fn settings_outside_of_state_have_the_same_errors() {
    for (text, expected) in [
        ("[sever]\nport = 1", "app.toml:1: sever: unknown key `sever`; did you mean `server`?"),
        (
            "[server]\nport = 70000",
            "app.toml:2: server.port: expected a whole number from 0 to 65535, found integer `70000`",
        ),
        ("state = 3", "app.toml:1: state: expected a table of state settings, found integer `3`"),
        (
            "[[jobs]]\nname = 'a'\n[[jobs]]\nname = 'b'\nnmae = 'c'",
            "app.toml:5: jobs[1].nmae: unknown key `nmae`; did you mean `name`?",
        ),
    ] {
        assert_eq!(fault(&document(text)).expect(text).to_string(), expected);
    }
}

#[test]
fn a_kind_that_nothing_asks_about_is_named() {
    let config =
        state("[state.layers.degradation]\ndefault = 'open'\nlock = 'closed'\ndedup = 'open'\nthrotle = 'open'");
    config.check_degradation_kinds(&["dedup", "throtle"]).unwrap();
    assert_eq!(
        config.check_degradation_kinds(&["dedup", "throttle"]).unwrap_err().to_string(),
        "app.toml:6: state.layers.degradation.throtle: nothing asks what to do for the kind `throtle`; did you mean \
         `throttle`?"
    );
    let error = config.check_degradation_kinds(&["dedup"]).unwrap_err().to_string();
    assert!(error.ends_with("; there are `dedup`"), "{error}");
}

/// Errors that need the drivers: the same place, as an error of the contract.
async fn refused(lines: &str) -> String {
    let error = open(&state(lines)).await.err().unwrap_or_else(|| panic!("opened\n{lines}"));
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    error.message().to_owned()
}

#[tokio::test]
async fn a_backend_that_does_not_exist_is_named_with_those_that_do() {
    let error = refused("backend = 'reddis'").await;
    let expected = "app.toml:2: state.backend: there is no backend `reddis`; did you mean `redis`? ";
    assert!(error.starts_with(expected), "{error}");
    let error = refused("backend = 'oracle'").await;
    assert!(error.starts_with("app.toml:2: state.backend: there is no backend `oracle`; "), "{error}");
    let error = refused("backend = 'layers'").await;
    assert_eq!(
        error,
        "app.toml:2: state.backend: `layers` is a key of this section and cannot be the name of a backend"
    );
}

#[cfg(not(feature = "dynamodb"))]
#[tokio::test]
async fn dynamodb_that_was_not_compiled_in_names_its_feature() {
    let error = refused("backend = 'dynamodb'\nregion = 'eu-central-1'").await;
    let expected = "app.toml:2: state.backend: the backend `dynamodb` was not compiled in; build with the cargo feature \
                    `dynamodb` (--features dynamodb); ";
    assert!(error.starts_with(expected), "{error}");
}

#[cfg(not(feature = "memory"))]
#[tokio::test]
async fn memory_that_was_not_compiled_in_names_its_feature() {
    let error = open(&StateConfig::default()).await.expect_err("not compiled in");
    let expected =
        "the backend `memory` was not compiled in; build with the cargo feature `memory` (--features memory)";
    assert!(error.message().contains(expected), "{error}");
}

#[cfg(all(feature = "redis", not(feature = "memory")))]
#[tokio::test]
async fn a_local_store_that_was_not_compiled_in_names_its_feature() {
    let lines = "backend = 'redis'\nurl = 'redis://127.0.0.1:1'\noptional = true\nlayers.degradation.limit = 'local'";
    let error = refused(lines).await;
    assert!(error.contains("app.toml:5: state.layers.degradation.limit: `local` needs the memory driver"), "{error}");
    assert!(error.contains("--features memory"), "{error}");
}

#[cfg(not(feature = "redis"))]
#[tokio::test]
async fn redis_that_was_not_compiled_in_names_its_feature() {
    let error = refused("backend = 'redis'\nurl = 'redis://localhost:6379'").await;
    let expected = "app.toml:2: state.backend: the backend `redis` was not compiled in; build with the cargo feature \
                    `redis` (--features redis); ";
    assert!(error.starts_with(expected), "{error}");
}

#[cfg(not(feature = "postgres"))]
#[tokio::test]
async fn postgres_that_was_not_compiled_in_names_its_feature() {
    let error = refused("backend = 'postgres'\nurl = 'postgres://localhost'").await;
    let expected = "app.toml:2: state.backend: the backend `postgres` was not compiled in; build with the cargo feature \
                    `postgres` (--features postgres); ";
    assert!(error.starts_with(expected), "{error}");
}

#[cfg(feature = "memory")]
#[tokio::test]
async fn settings_that_memory_does_not_have_are_refused() {
    for (lines, expected) in [
        (
            "url = 'redis://h'",
            "app.toml:2: state.url: the backend \"memory\" has no url; remove it, or choose another backend",
        ),
        (
            "region = 'eu'",
            "app.toml:2: state.region: the backend \"memory\" has no region; remove it, or choose another backend",
        ),
        (
            "[state.memory]\nmemory_bytes_max = 64",
            "app.toml:3: state.memory.memory_bytes_max: `64` has no unit: write \"64MiB\" or \"64B\"",
        ),
        (
            "[state.memory]\nmemory_byte_max = '64MiB'",
            "app.toml:3: state.memory.memory_byte_max: unknown key `memory_byte_max`; did you mean `memory_bytes_max`?",
        ),
        (
            "[state.lock.memory]\nmemory_bytes_max = '64'",
            "app.toml:3: state.lock.memory.memory_bytes_max: `64` has no unit: write \"64MiB\" or \"64B\"",
        ),
        (
            "require = ['cas',\n'casual']",
            "app.toml:3: state.require[1]: there is no capability \"casual\"; there are cas, fencing, counters, \
             rate_limits, transact, gates, scan, ordered_scan, due, locks, shared_locks, semaphores, durable, shared (backend \
             \"memory\")",
        ),
        (
            "require = ['durable']",
            "app.toml:2: state.require[0]: the backend does not have the capability \"durable\" (backend \"memory\")",
        ),
    ] {
        assert_eq!(refused(lines).await, expected);
    }
}

#[cfg(feature = "memory")]
#[tokio::test]
async fn a_lock_backend_that_does_not_exist_is_named() {
    let error = refused("[state.lock]\nbackend = 'oracle'").await;
    assert!(error.starts_with("app.toml:3: state.lock.backend: there is no backend `oracle`"), "{error}");
}

#[cfg(feature = "memory")]
#[tokio::test]
async fn what_a_driver_refuses_by_itself_is_placed_too() {
    let error = refused("prefix = 'a:b'").await;
    assert!(error.starts_with("app.toml:2: state.prefix: prefix \"a:b\" is not allowed"), "{error}");
    let error = refused("[state.memory]\nvalue_bytes_max = '1TiB'").await;
    assert!(error.starts_with("app.toml:3: state.memory.value_bytes_max: value_bytes_max "), "{error}");
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn settings_that_redis_cannot_use_are_refused() {
    for (lines, expected) in [
        ("url = 'http://h'", "app.toml:3: state.url: scheme \"http\" is not supported; there are redis, rediss, "),
        ("url = 'redis+proxy://:hunter2@h'", "app.toml:3: state.url: scheme \"redis+proxy\" is not supported"),
        (
            "url = 'redis+sentinel://:hunter2@h'",
            "app.toml:3: state.url: sentinel_master: which primary do the Sentinels watch?",
        ),
        ("url = 'localhost'", "app.toml:3: state.url: it has no scheme; write redis://host:6379"),
        ("table_name = 't'", "app.toml:3: state.table_name: the backend \"redis\" has no table_name; remove it, or "),
        (
            "url = 'redis://h:1'\n[state.redis]\nport = 2",
            "app.toml:5: state.redis.port: the url and the field say different things; remove one",
        ),
        ("[state.redis]\nprot = 2", "app.toml:4: state.redis.prot: unknown key `prot`; did you mean `port`?"),
        (
            "[state.redis]\nport = 'x'",
            "app.toml:4: state.redis.port: expected a whole number from 0 to 65535, found string \"x\"",
        ),
        (
            "[state.redis]\nport = 70000",
            "app.toml:4: state.redis.port: expected a whole number from 0 to 65535, found integer `70000`",
        ),
        ("[state.redis]\nconnections = 0", "app.toml:4: state.redis.connections: connections 0 is out of range"),
        ("[state.redis]\nkeepalive = 30", "app.toml:4: state.redis.keepalive: `30` has no unit: write \"30s\" or "),
    ] {
        for optional in [true, false] {
            // Neither waits for a server to say what is wrong with the settings.
            let config = StateConfig { optional, ..state(&format!("backend = 'redis'\n{lines}")) };
            let error = open(&config).await.expect_err(lines);
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
            assert!(error.message().starts_with(expected), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn settings_that_postgres_cannot_use_are_refused() {
    for (lines, expected) in [
        (
            "url = 'http://h'",
            "app.toml:3: state.url: scheme \"http\" is not supported; there are postgres and postgresql",
        ),
        ("url = 'localhost'", "app.toml:3: state.url: it has no scheme; write postgres://host:5432/database"),
        ("url = 'postgres://ada:hunter2@h/a/b'", "app.toml:3: state.url: what follows the host must be one database"),
        ("url = 'postgres://ada:hunter2@h?search_path=x'", "app.toml:3: state.url: "),
        ("region = 'r'", "app.toml:3: state.region: the backend \"postgres\" has no region; remove it, or choose "),
        (
            "prefix = 'blue-'",
            "app.toml:3: state.prefix: \"blue-\" is not allowed: use 1 to 32 characters out of a-z 0-9 _",
        ),
        ("url = 'postgres://h:1'\n[state.postgres]\nport = 2", "app.toml:5: state.postgres.port: "),
        (
            "url = 'postgres://ada:hunter2@h'\n[state.postgres]\npassword = 'hunter3'",
            "app.toml:5: state.postgres.password: the url and the field password say different things; remove one",
        ),
        (
            "[state.postgres]\nmirgate = 'check'",
            "app.toml:4: state.postgres.mirgate: unknown key `mirgate`; did you mean `migrate`?",
        ),
        (
            "[state.postgres]\nmigrate = 'chekc'",
            "app.toml:4: state.postgres.migrate: unknown value `chekc`; did you mean `check`?",
        ),
        (
            "[state.postgres]\nsslmode = 'verify_full'",
            "app.toml:4: state.postgres.sslmode: unknown value `verify_full`; did you mean `verify-full`?",
        ),
        ("[state.postgres]\nhosts = 'a'", "app.toml:4: state.postgres.hosts: expected a list, found string \"a\""),
        ("[state.postgres]\nhosts = ['a',\n'b c']", "app.toml:4: state.postgres.hosts: "),
        (
            "[state.postgres]\nschema = 'Blue'",
            "app.toml:4: state.postgres.schema: \"Blue\" is not allowed: use 1 to 32",
        ),
        ("[state.postgres]\nconnections = 65", "app.toml:4: state.postgres.connections: 65 is out of range"),
        ("[state.postgres]\nconnections = -1", "app.toml:4: state.postgres.connections: expected a whole number"),
        ("[state.postgres]\nidle_timeout = 60", "app.toml:4: state.postgres.idle_timeout: `60` has no unit: write "),
        ("[state.postgres]\nvalue_bytes_max = '1GiB'", "app.toml:4: state.postgres.value_bytes_max: "),
        ("[state.postgres]\nca_file = '/nowhere.pem'", "app.toml:4: state.postgres.ca_file: with sslmode prefer"),
        (
            "[state.postgres]\nsslmode = 'verify-full'\nca_file = '/nowhere.pem'",
            "app.toml:5: state.postgres.ca_file: /nowhere.pem cannot be read: ",
        ),
        ("[state.postgres]\nrelaxed = ['a', '']", "app.toml:4: state.postgres.relaxed: \"\" is not a kind: "),
        ("[state.redis]\nport = 1", "app.toml:3: state.redis: [state.redis] is not a section of the chosen backend, "),
    ] {
        for optional in [true, false] {
            // Neither waits for a server to say what is wrong with the settings.
            let config = StateConfig { optional, ..state(&format!("backend = 'postgres'\n{lines}")) };
            let error = open(&config).await.expect_err(lines);
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
            assert!(error.message().starts_with(expected), "{expected}\n{error}");
            assert!(!format!("{error:?}").contains("hunter"), "{error:?}");
            let error = migrate(&config, Migrate::Check).await.expect_err(lines);
            assert!(error.message().starts_with(expected), "{expected}\n{error}");
        }
    }
}

#[cfg(all(feature = "memory", feature = "postgres"))]
#[tokio::test]
async fn settings_of_locks_on_postgres_are_refused_at_their_own_place() {
    let lines = "[state.lock]\nbackend = 'postgres'\nurl = 'postgres://h'\n[state.lock.postgres]\nqueue_max = 0";
    let error = refused(lines).await;
    assert!(error.starts_with("app.toml:6: state.lock.postgres.queue_max: 0 is out of range"), "{error}");
}

#[test]
fn other_deserializers_read_the_section_too() {
    #[derive(serde::Deserialize)]
    struct Whole {
        state: StateConfig,
    }
    let text = "[state]\nbackend = 'redis'\nurl = 'redis://h'\n[state.redis]\nport = 1\n[state.layers]\ntimeout = '3s'";
    let whole: Whole = toml::from_str(text).unwrap();
    assert_eq!(whole.state.backend, "redis");
    assert!(whole.state.sections.contains_key("redis"));
    let json: StateConfig = serde_json::from_str(r#"{"backend": "memory", "redis": {}}"#).unwrap();
    let error = json.check().unwrap_err();
    assert!(error.to_string().starts_with("state.redis: [state.redis] is not a section"), "{error}");
}
