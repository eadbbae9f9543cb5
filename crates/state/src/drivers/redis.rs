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
    connect_timeout: Option<HumanDuration>,
    operation_timeout: Option<HumanDuration>,
    read_timeout: Option<HumanDuration>,
    write_timeout: Option<HumanDuration>,
    connect_wait: Option<HumanDuration>,
    reconnect_delay_max: Option<HumanDuration>,
    connections: Option<usize>,
    in_flight_max: Option<usize>,
    keepalive: Option<HumanDuration>,
    lock_retention: Option<HumanDuration>,
    value_bytes_max: Option<ByteSize>,
}

pub(super) async fn open(driver: DriverConfig) -> Result<Arc<dyn StateStore>> {
    driver.refuse(&["region", "table_name"])?;
    let section: Section = driver.read_section()?;
    let config = config(&driver, section);
    let store =
        if driver.optional { RedisStore::connect_lazy(config)? } else { RedisStore::connect(config).await? };
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
        connect_timeout: time(section.connect_timeout, default.connect_timeout),
        operation_timeout: time(section.operation_timeout, default.operation_timeout),
        read_timeout: time(section.read_timeout, default.read_timeout),
        write_timeout: time(section.write_timeout, default.write_timeout),
        connect_wait: time(section.connect_wait, default.connect_wait),
        reconnect_delay_max: time(section.reconnect_delay_max, default.reconnect_delay_max),
        connections: section.connections.unwrap_or(default.connections),
        in_flight_max: section.in_flight_max.unwrap_or(default.in_flight_max),
        keepalive: time(section.keepalive, default.keepalive),
        lock_retention: time(section.lock_retention, default.lock_retention),
        value_bytes_max: section.value_bytes_max.map_or(default.value_bytes_max, |size| size.0),
    }
}
