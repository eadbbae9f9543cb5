//! `backend = "redis"`: a Redis or Valkey server.
//!
//! The URL says where it is; the section can say the same facts one by one. What both say must agree.

use std::path::PathBuf;
use std::sync::Arc;

use acteon_state_core::{Result, StateStore};
use acteon_state_redis::{RedisConfig, RedisStore};
use serde::Deserialize;

use crate::config::{ByteSize, HumanDuration, Secret};
use crate::registry::DriverConfig;

/// The section `[state.redis]`: the options of [`RedisConfig`], each with its unit where it has one.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Section {
    host: Option<String>,
    port: Option<u16>,
    socket: Option<PathBuf>,
    username: Option<String>,
    password: Option<Secret>,
    db: Option<u32>,
    tls: Option<bool>,
    tls_verify: Option<bool>,
    tls_server_name: Option<String>,
    ca_file: Option<PathBuf>,
    connect_timeout: Option<HumanDuration>,
    operation_timeout: Option<HumanDuration>,
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
    Ok(if driver.optional {
        Arc::new(RedisStore::connect_lazy(config)?)
    } else {
        Arc::new(RedisStore::connect(config).await?)
    })
}

fn config(driver: &DriverConfig, section: Section) -> RedisConfig {
    let default = RedisConfig::default();
    let time = |given: Option<HumanDuration>, default| given.map_or(default, |time| time.0);
    RedisConfig {
        url: driver.url.as_ref().map(|url| url.expose().into()),
        host: section.host,
        port: section.port,
        socket: section.socket,
        username: section.username,
        password: section.password.map(|password| password.expose().into()),
        db: section.db,
        prefix: driver.prefix.clone().unwrap_or(default.prefix),
        tls: section.tls,
        tls_verify: section.tls_verify.unwrap_or(default.tls_verify),
        tls_server_name: section.tls_server_name,
        ca_file: section.ca_file,
        connect_timeout: time(section.connect_timeout, default.connect_timeout),
        operation_timeout: time(section.operation_timeout, default.operation_timeout),
        connect_wait: time(section.connect_wait, default.connect_wait),
        reconnect_delay_max: time(section.reconnect_delay_max, default.reconnect_delay_max),
        connections: section.connections.unwrap_or(default.connections),
        in_flight_max: section.in_flight_max.unwrap_or(default.in_flight_max),
        keepalive: time(section.keepalive, default.keepalive),
        lock_retention: time(section.lock_retention, default.lock_retention),
        value_bytes_max: section.value_bytes_max.map_or(default.value_bytes_max, |size| size.0),
    }
}
