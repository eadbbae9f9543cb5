//! `backend = "dynamodb"`: a table in Amazon DynamoDB, or in something that speaks its protocol.
//!
//! `region`, `table_name` and `url` stand directly under `[state]`. There are no secrets: access keys come from where every
//! AWS client takes them.

use std::sync::Arc;

use acteon_state_core::{Result, StateStore};
use acteon_state_dynamodb::{DynamoConfig, DynamoStore, MigrateMode};
use serde::Deserialize;

use crate::config::{ByteSize, HumanDuration};
use crate::migrate::{Migrate, SchemaVersions};
use crate::registry::DriverConfig;

/// The version of the table and of its items. The driver refuses items of a later one.
const VERSION: u32 = 1;

/// The section `[state.dynamodb]`: the options of [`DynamoConfig`], each with its unit where it has one.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Section {
    allow_http: Option<bool>,
    profile: Option<String>,
    role_arn: Option<String>,
    fips: Option<bool>,
    dual_stack: Option<bool>,
    connect_timeout: Option<HumanDuration>,
    attempt_timeout: Option<HumanDuration>,
    operation_timeout: Option<HumanDuration>,
    in_flight_max: Option<usize>,
    shards: Option<u8>,
    due_shards: Option<u8>,
    point_kinds: Vec<String>,
    consistent_reads: Option<bool>,
    skew_max: Option<HumanDuration>,
    ttl_grace: Option<HumanDuration>,
    migrate: Option<MigrateMode>,
    value_bytes_max: Option<ByteSize>,
}

pub(super) async fn open(driver: DriverConfig) -> Result<Arc<dyn StateStore>> {
    let mut config = read(&driver)?;
    if driver.inspect {
        if config.migrate == MigrateMode::Check {
            DynamoStore::check(config.clone()).await?;
        }
        config.migrate = MigrateMode::Ignore;
    }
    let store =
        if driver.lazy { DynamoStore::connect_lazy(config).await? } else { DynamoStore::connect(config).await? };
    if let Some(metrics) = &driver.metrics {
        store.export_to(metrics);
    }
    Ok(Arc::new(store))
}

/// For [`migrate`](crate::migrate()): the option of the same name is about what opening does.
pub(super) async fn migrate(driver: DriverConfig, how: Migrate) -> Result<SchemaVersions> {
    let config = read(&driver)?;
    let migrated = match how {
        Migrate::Apply => DynamoStore::migrate(config).await?,
        Migrate::Check => DynamoStore::pending(config).await?,
    };
    // A table that lacks a part of the first version has none.
    let from = if migrated.changes.is_empty() { VERSION } else { 0 };
    Ok(SchemaVersions { from, to: VERSION })
}

fn read(driver: &DriverConfig) -> Result<DynamoConfig> {
    let section: Section = driver.read_section()?;
    Ok(config(driver, section))
}

fn config(driver: &DriverConfig, section: Section) -> DynamoConfig {
    let default = DynamoConfig::default();
    let time = |given: Option<HumanDuration>, default| given.map_or(default, |time| time.0);
    DynamoConfig {
        region: driver.region.clone(),
        table_name: driver.table_name.clone().unwrap_or(default.table_name),
        url: driver.url.as_ref().map(|url| url.expose().to_owned()),
        allow_http: section.allow_http.unwrap_or(default.allow_http),
        prefix: driver.prefix.clone().unwrap_or(default.prefix),
        profile: section.profile,
        role_arn: section.role_arn,
        fips: section.fips.unwrap_or(default.fips),
        dual_stack: section.dual_stack.unwrap_or(default.dual_stack),
        connect_timeout: time(section.connect_timeout, default.connect_timeout),
        attempt_timeout: time(section.attempt_timeout, default.attempt_timeout),
        operation_timeout: time(section.operation_timeout, default.operation_timeout),
        in_flight_max: section.in_flight_max.unwrap_or(default.in_flight_max),
        shards: section.shards.unwrap_or(default.shards),
        due_shards: section.due_shards.unwrap_or(default.due_shards),
        point_kinds: section.point_kinds,
        consistent_reads: section.consistent_reads.unwrap_or(default.consistent_reads),
        skew_max: time(section.skew_max, default.skew_max),
        ttl_grace: time(section.ttl_grace, default.ttl_grace),
        migrate: section.migrate.unwrap_or(default.migrate),
        value_bytes_max: section.value_bytes_max.map_or(default.value_bytes_max, |size| size.0),
    }
}
