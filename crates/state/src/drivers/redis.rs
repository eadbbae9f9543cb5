//! `backend = "redis"`: Redis or Valkey, one server, a primary that Sentinels watch, or a Cluster.
//!
//! The URL says where it is; the section can say the same facts one by one. What both say must agree.

use std::path::PathBuf;
use std::sync::Arc;

use acteon_state_core::layer::metrics::{ConnectionFigures, StoreMetrics};
use acteon_state_core::{Result, StateStore};
use acteon_state_redis::{Protocol, RedisConfig, RedisStore, Safety, TopologyName};
use serde::Deserialize;

use crate::config::{ByteSize, HumanDuration, Secret};
use crate::registry::DriverConfig;

/// The section `[state.redis]`: the options of [`RedisConfig`], each with its unit where it has one.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Section {
    topology: Option<TopologyName>,
    host: Option<String>,
    hosts: Vec<String>,
    port: Option<u16>,
    socket: Option<PathBuf>,
    username: Option<String>,
    password: Option<Secret>,
    db: Option<u32>,
    tls: Option<bool>,
    tls_verify: Option<bool>,
    tls_server_name: Option<String>,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    sentinel_master: Option<String>,
    sentinel_username: Option<String>,
    sentinel_password: Option<Secret>,
    sentinel_tls: Option<bool>,
    sentinel_tls_verify: Option<bool>,
    sentinel_tls_server_name: Option<String>,
    sentinel_ca_file: Option<PathBuf>,
    sentinel_cert_file: Option<PathBuf>,
    sentinel_key_file: Option<PathBuf>,
    protocol: Option<Protocol>,
    safety: Option<Safety>,
    lock_replicas: Option<usize>,
    lock_replicas_timeout: Option<HumanDuration>,
    lock_lease_max: Option<HumanDuration>,
    lock_connections: Option<usize>,
    connect_timeout: Option<HumanDuration>,
    operation_timeout: Option<HumanDuration>,
    read_timeout: Option<HumanDuration>,
    write_timeout: Option<HumanDuration>,
    connect_wait: Option<HumanDuration>,
    reconnect_delay_max: Option<HumanDuration>,
    connections: Option<usize>,
    in_flight_max: Option<usize>,
    queue_max: Option<usize>,
    keepalive: Option<HumanDuration>,
    lock_retention: Option<HumanDuration>,
    value_bytes_max: Option<ByteSize>,
}

pub(super) async fn open(driver: DriverConfig) -> Result<Arc<dyn StateStore>> {
    driver.refuse(&["region", "table_name"])?;
    let section: Section = driver.read_section()?;
    let config = config(&driver, section);
    let store = match (driver.inspect, driver.lazy) {
        (false, false) => RedisStore::connect(config).await?,
        (false, true) => RedisStore::connect_lazy(config)?,
        (true, false) => RedisStore::inspect(config).await?,
        (true, true) => match RedisStore::inspect(config.clone()).await {
            // As it would start.
            Err(error) if error.kind().is_transient() => RedisStore::connect_lazy(config)?,
            outcome => outcome?,
        },
    };
    if let Some(metrics) = &driver.metrics {
        follow(metrics, &store);
    }
    Ok(Arc::new(store))
}

/// Shows the figures of the connections for as long as the store exists.
fn follow(metrics: &StoreMetrics, store: &RedisStore) {
    let stats = store.watch_connections();
    metrics.follow_connections(store.backend(), move || {
        let stats = stats.read()?;
        Some(ConnectionFigures {
            connections: stats.connections,
            in_flight: stats.in_flight,
            queued: stats.queued,
            connected_total: stats.connected_total,
            disconnected_total: stats.disconnected_total,
            failed_total: stats.failed_total,
            redirected_total: stats.redirected_total,
        })
    });
}

fn config(driver: &DriverConfig, section: Section) -> RedisConfig {
    let default = RedisConfig::default();
    let time = |given: Option<HumanDuration>, default| given.map_or(default, |time| time.0);
    let secret = |given: Option<Secret>| given.map(|secret| secret.expose().into());
    RedisConfig {
        url: driver.url.as_ref().map(|url| url.expose().into()),
        topology: section.topology,
        host: section.host,
        hosts: section.hosts,
        port: section.port,
        socket: section.socket,
        username: section.username,
        password: secret(section.password),
        db: section.db,
        prefix: driver.prefix.clone().unwrap_or(default.prefix),
        tls: section.tls,
        tls_verify: section.tls_verify.unwrap_or(default.tls_verify),
        tls_server_name: section.tls_server_name,
        ca_file: section.ca_file,
        cert_file: section.cert_file,
        key_file: section.key_file,
        sentinel_master: section.sentinel_master,
        sentinel_username: section.sentinel_username,
        sentinel_password: secret(section.sentinel_password),
        sentinel_tls: section.sentinel_tls,
        sentinel_tls_verify: section.sentinel_tls_verify.unwrap_or(default.sentinel_tls_verify),
        sentinel_tls_server_name: section.sentinel_tls_server_name,
        sentinel_ca_file: section.sentinel_ca_file,
        sentinel_cert_file: section.sentinel_cert_file,
        sentinel_key_file: section.sentinel_key_file,
        protocol: section.protocol.unwrap_or(default.protocol),
        safety: section.safety.unwrap_or(default.safety),
        lock_replicas: section.lock_replicas.unwrap_or(default.lock_replicas),
        lock_replicas_timeout: time(section.lock_replicas_timeout, default.lock_replicas_timeout),
        lock_lease_max: time(section.lock_lease_max, default.lock_lease_max),
        lock_connections: section.lock_connections.unwrap_or(default.lock_connections),
        connect_timeout: time(section.connect_timeout, default.connect_timeout),
        operation_timeout: time(section.operation_timeout, default.operation_timeout),
        read_timeout: time(section.read_timeout, default.read_timeout),
        write_timeout: time(section.write_timeout, default.write_timeout),
        connect_wait: time(section.connect_wait, default.connect_wait),
        reconnect_delay_max: time(section.reconnect_delay_max, default.reconnect_delay_max),
        connections: section.connections.unwrap_or(default.connections),
        in_flight_max: section.in_flight_max.unwrap_or(default.in_flight_max),
        queue_max: section.queue_max.unwrap_or(default.queue_max),
        keepalive: time(section.keepalive, default.keepalive),
        lock_retention: time(section.lock_retention, default.lock_retention),
        value_bytes_max: section.value_bytes_max.map_or(default.value_bytes_max, |size| size.0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use acteon_state_core::Result;
    use acteon_state_redis::{Protocol, RedisConfig, Safety, TopologyName};

    use super::config;
    use crate::config::{Document, StateConfig};
    use crate::registry::DriverConfig;

    /// Every option, with another value than its default. They need not make sense together.
    const EVERY_OPTION: &str = r#"
url = "redis://u:p@h/1"
prefix = "blue"
[state.redis]
topology = "sentinel"
host = "a"
hosts = ["b", "c:2"]
port = 3
socket = "/run/s"
username = "ada"
password = "p1"
db = 4
tls = true
tls_verify = false
tls_server_name = "data.internal"
ca_file = "/ca"
cert_file = "/cert"
key_file = "/key"
sentinel_master = "m"
sentinel_username = "watch"
sentinel_password = "p2"
sentinel_tls = true
sentinel_tls_verify = false
sentinel_tls_server_name = "watch.internal"
sentinel_ca_file = "/sca"
sentinel_cert_file = "/scert"
sentinel_key_file = "/skey"
protocol = "resp2"
safety = "strict"
lock_replicas = 2
lock_replicas_timeout = "51ms"
lock_lease_max = "52s"
lock_connections = 5
connect_timeout = "53ms"
operation_timeout = "54ms"
read_timeout = "55ms"
write_timeout = "56ms"
connect_wait = "57ms"
reconnect_delay_max = "58ms"
connections = 6
in_flight_max = 7
queue_max = 8
keepalive = "59s"
lock_retention = "60m"
value_bytes_max = "9KiB"
"#;

    fn read(lines: &str) -> Result<RedisConfig> {
        let document = Document::parse("app.toml", &format!("[state]\nbackend = 'redis'\n{lines}")).unwrap();
        let state: StateConfig = document.read_section("state").unwrap().unwrap();
        let driver = DriverConfig::new(&state);
        Ok(config(&driver, driver.read_section()?))
    }

    #[test]
    fn every_option_reaches_the_driver() {
        let given = read(EVERY_OPTION).unwrap();
        let ms = Duration::from_millis;
        let path = |path: &str| Some(path.into());
        let text = |text: &str| Some(text.to_owned());
        let expected = RedisConfig {
            url: Some("redis://u:p@h/1".into()),
            topology: Some(TopologyName::Sentinel),
            host: text("a"),
            hosts: vec!["b".to_owned(), "c:2".to_owned()],
            port: Some(3),
            socket: path("/run/s"),
            username: text("ada"),
            password: Some("p1".into()),
            db: Some(4),
            prefix: "blue".to_owned(),
            tls: Some(true),
            tls_verify: false,
            tls_server_name: text("data.internal"),
            ca_file: path("/ca"),
            cert_file: path("/cert"),
            key_file: path("/key"),
            sentinel_master: text("m"),
            sentinel_username: text("watch"),
            sentinel_password: Some("p2".into()),
            sentinel_tls: Some(true),
            sentinel_tls_verify: false,
            sentinel_tls_server_name: text("watch.internal"),
            sentinel_ca_file: path("/sca"),
            sentinel_cert_file: path("/scert"),
            sentinel_key_file: path("/skey"),
            protocol: Protocol::Resp2,
            safety: Safety::Strict,
            lock_replicas: 2,
            lock_replicas_timeout: ms(51),
            lock_lease_max: ms(52_000),
            lock_connections: 5,
            connect_timeout: ms(53),
            operation_timeout: ms(54),
            read_timeout: ms(55),
            write_timeout: ms(56),
            connect_wait: ms(57),
            reconnect_delay_max: ms(58),
            connections: 6,
            in_flight_max: 7,
            queue_max: 8,
            keepalive: ms(59_000),
            lock_retention: ms(3_600_000),
            value_bytes_max: 9 << 10,
        };
        assert_eq!(given, expected);
        assert_eq!(same_as_by_default(&given), Vec::<String>::new(), "left out of the test above");
        assert_eq!(read("").unwrap(), RedisConfig::default());
    }

    /// The fields that have their default.
    fn same_as_by_default(config: &RedisConfig) -> Vec<String> {
        let fields = |config: &RedisConfig| {
            let text = format!("{config:#?}");
            let lines: Vec<String> = text.lines().filter(|line| is_field(line)).map(str::to_owned).collect();
            lines
        };
        let (given, default) = (fields(config), fields(&RedisConfig::default()));
        assert!(given.len() > 40 && given.len() == default.len(), "{given:?}");
        given.into_iter().zip(default).filter(|(given, default)| given == default).map(|(given, _)| given).collect()
    }

    /// Whether a line of `{:#?}` begins a field of the outermost type.
    fn is_field(line: &str) -> bool {
        line.strip_prefix("    ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
    }

    #[test]
    fn passwords_may_come_from_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let lines = format!(
            "url_file = '{}'\n[state.redis]\npassword_file = '{}'\nsentinel_password_file = '{}'",
            file("url", "redis+sentinel://a?sentinel_master=m\n"),
            file("data", "p1\n"),
            file("watch", "p2\n"),
        );
        let config = read(&lines).unwrap();
        assert_eq!(config.url, Some("redis+sentinel://a?sentinel_master=m".into()));
        assert_eq!((config.password, config.sentinel_password), (Some("p1".into()), Some("p2".into())));
    }
}
