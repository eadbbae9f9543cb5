//! `backend = "postgres"`: a PostgreSQL server, or a primary and its standbys.
//!
//! The URL says where it is; the section can say the same facts one by one. What both say must agree.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::{Result, StateStore};
use acteon_state_postgres::{MigrateMode, Migrated, PostgresConfig, PostgresStore, SslMode};
use serde::Deserialize;

use crate::config::{ByteSize, HumanDuration, Secret};
use crate::migrate::{Migrate, SchemaVersions};
use crate::registry::DriverConfig;

/// The section `[state.postgres]`: the options of [`PostgresConfig`], each with its unit where it has one.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Section {
    hosts: Vec<String>,
    port: Option<u16>,
    socket: Option<PathBuf>,
    username: Option<String>,
    password: Option<Secret>,
    database: Option<String>,
    schema: Option<String>,
    sslmode: Option<SslMode>,
    ca_file: Option<PathBuf>,
    client_cert_file: Option<PathBuf>,
    client_key_file: Option<PathBuf>,
    application_name: Option<String>,
    connect_timeout: Option<HumanDuration>,
    operation_timeout: Option<HumanDuration>,
    statement_timeout: Option<HumanDuration>,
    connect_wait: Option<HumanDuration>,
    reconnect_delay_max: Option<HumanDuration>,
    connections: Option<usize>,
    tx_connections: Option<usize>,
    idle_timeout: Option<HumanDuration>,
    queue_max: Option<usize>,
    batch_ops_max: Option<usize>,
    transaction_pooler: Option<bool>,
    migrate: Option<MigrateMode>,
    relaxed: Vec<String>,
    sweep_interval: Option<HumanDuration>,
    lock_retention: Option<HumanDuration>,
    value_bytes_max: Option<ByteSize>,
}

pub(super) async fn open(driver: DriverConfig) -> Result<Arc<dyn StateStore>> {
    let mut config = read(&driver)?;
    if driver.inspect {
        config.sweep_interval = Duration::ZERO;
        if config.migrate == MigrateMode::Auto {
            config.migrate = MigrateMode::Ignore;
        }
    }
    Ok(if driver.lazy {
        Arc::new(PostgresStore::connect_lazy(config)?)
    } else {
        Arc::new(PostgresStore::connect(config).await?)
    })
}

/// For [`migrate`](crate::migrate()): the option of the same name is about what opening does.
pub(super) async fn migrate(driver: DriverConfig, how: Migrate) -> Result<SchemaVersions> {
    let config = read(&driver)?;
    let Migrated { from, to } = match how {
        Migrate::Apply => PostgresStore::migrate(config).await?,
        Migrate::Check => PostgresStore::pending(config).await?,
    };
    // Versions count migrations, so none is below zero.
    Ok(SchemaVersions { from: from.unsigned_abs(), to: to.unsigned_abs() })
}

fn read(driver: &DriverConfig) -> Result<PostgresConfig> {
    driver.refuse(&["region", "table_name"])?;
    let section: Section = driver.read_section()?;
    Ok(config(driver, section))
}

fn config(driver: &DriverConfig, section: Section) -> PostgresConfig {
    let default = PostgresConfig::default();
    let time = |given: Option<HumanDuration>, default| given.map_or(default, |time| time.0);
    PostgresConfig {
        url: driver.url.as_ref().map(|url| url.expose().into()),
        hosts: section.hosts,
        port: section.port,
        socket: section.socket,
        username: section.username,
        password: section.password.map(|password| password.expose().into()),
        database: section.database,
        schema: section.schema.unwrap_or(default.schema),
        prefix: driver.prefix.clone().unwrap_or(default.prefix),
        sslmode: section.sslmode,
        ca_file: section.ca_file,
        client_cert_file: section.client_cert_file,
        client_key_file: section.client_key_file,
        application_name: section.application_name.unwrap_or(default.application_name),
        connect_timeout: time(section.connect_timeout, default.connect_timeout),
        operation_timeout: time(section.operation_timeout, default.operation_timeout),
        statement_timeout: time(section.statement_timeout, default.statement_timeout),
        connect_wait: time(section.connect_wait, default.connect_wait),
        reconnect_delay_max: time(section.reconnect_delay_max, default.reconnect_delay_max),
        connections: section.connections.unwrap_or(default.connections),
        tx_connections: section.tx_connections.unwrap_or(default.tx_connections),
        idle_timeout: time(section.idle_timeout, default.idle_timeout),
        queue_max: section.queue_max.unwrap_or(default.queue_max),
        batch_ops_max: section.batch_ops_max.unwrap_or(default.batch_ops_max),
        transaction_pooler: section.transaction_pooler,
        migrate: section.migrate.unwrap_or(default.migrate),
        relaxed: section.relaxed,
        sweep_interval: time(section.sweep_interval, default.sweep_interval),
        lock_retention: time(section.lock_retention, default.lock_retention),
        value_bytes_max: section.value_bytes_max.map_or(default.value_bytes_max, |size| size.0),
    }
}
