//! The table: created, completed, checked, and what it says about itself.
//!
//! # Guarantees
//! - Any number of nodes may start at once: whoever comes second finds the table being created and waits for it.
//! - Nothing that exists is changed or removed, only added: an index that is missing, the removal of expired items.
//! - How many shards there are is written beside the data when a prefix is first used. A node that is configured otherwise
//!   would not find what others have written, so it does not start.
//!
//! # Failure
//! A role that may neither create nor describe tables works with a table that is there: reading the item with the number of
//! shards shows that. What needs a description, whether it is a global table, is then unknown, and said to be.
//!
//! # How it works
//! | what | how |
//! |---|---|
//! | key | `pk` (text, partition), `sk` (text, sorted) |
//! | index `due` | `iq` (text, partition), `ia` (number, sorted); only items that have both are in it, and only their keys |
//! | removal of expired items | by the service, by the attribute `gc` |
//! | capacity | on demand, unless an existing table has another mode |
//! | the item `{prefix}#meta` | the format and both numbers of shards |

use std::fmt;
use std::time::Duration;

use acteon_state_core::{Error, ErrorKind, Result};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, CreateGlobalSecondaryIndexAction, GlobalSecondaryIndex,
    GlobalSecondaryIndexUpdate, IndexStatus, KeySchemaElement, KeyType, MultiRegionConsistency, Projection,
    ProjectionType, ReturnValuesOnConditionCheckFailure, ScalarAttributeType, TableDescription, TableStatus,
    TimeToLiveSpecification, TimeToLiveStatus,
};
use tokio::time::{Instant, sleep};

use crate::address::Address;
use crate::config::{DynamoConfig, MigrateMode};
use crate::error::{Access, BACKEND, classify};
use crate::item::{FORMAT, FORMAT_NAME, GARBAGE, Item, PK, SK, number, number_of};

/// The index of due items and of locks.
pub(crate) const INDEX: &str = "due";
/// Its partition key.
pub(crate) const INDEX_PK: &str = "iq";
/// Its sort key.
pub(crate) const INDEX_SK: &str = "ia";

const SHARDS: &str = "shards";
const DUE_SHARDS: &str = "due_shards";

/// How long a table may take to become usable. Creating one takes AWS 5 to 20 s; an index for a large table takes longer than
/// a start should wait.
const READY_WAIT_MAX: Duration = Duration::from_secs(120);
/// The first pause between two looks at it, for emulators, which are done at once.
const READY_POLL_MIN: Duration = Duration::from_millis(20);
/// The longest: the service lets an account describe tables ten times a second.
const READY_POLL_MAX: Duration = Duration::from_secs(2);

/// Key attributes: name, role, type.
type Key = [(&'static str, KeyType, ScalarAttributeType); 2];
const TABLE_KEY: Key = [(PK, KeyType::Hash, ScalarAttributeType::S), (SK, KeyType::Range, ScalarAttributeType::S)];
const INDEX_KEY: Key =
    [(INDEX_PK, KeyType::Hash, ScalarAttributeType::S), (INDEX_SK, KeyType::Range, ScalarAttributeType::N)];

/// What is known about a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) replication: Replication,
    /// The endpoint is on this machine, so it is an emulator.
    pub(crate) is_emulator: bool,
}

/// Whether other regions have the table as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Replication {
    /// The role may not describe the table, or it has not been reached yet.
    Unknown,
    /// One region.
    None,
    /// These regions have it too, and a write is answered when it is in two of them: conditions hold everywhere. Transactions and
    /// the removal of expired items are not available.
    Strong(Vec<String>),
    /// These regions have it too, and receive writes later. Conditions hold in one region only, and the later of two writes wins.
    Eventual(Vec<String>),
}

impl Facts {
    /// Of a table that has not been seen yet.
    pub(crate) fn unseen(config: &DynamoConfig) -> Self {
        Self::new(config, None)
    }

    fn new(config: &DynamoConfig, description: Option<&TableDescription>) -> Self {
        Self {
            replication: description.map_or(Replication::Unknown, Replication::of),
            is_emulator: config.is_loopback(),
        }
    }

    /// Whether a condition that held still holds when another region writes: what locks, fences and compare-and-swap are
    /// made of.
    pub(crate) const fn conditions_hold(&self) -> bool {
        !matches!(self.replication, Replication::Eventual(_))
    }

    /// Whether the table takes transactions.
    pub(crate) const fn has_transactions(&self) -> bool {
        !matches!(self.replication, Replication::Strong(_))
    }
}

impl Replication {
    fn of(description: &TableDescription) -> Self {
        let regions: Vec<String> =
            description.replicas().iter().filter_map(|replica| replica.region_name()).map(str::to_owned).collect();
        match description.multi_region_consistency() {
            Some(MultiRegionConsistency::Strong) => Self::Strong(regions),
            _ if regions.is_empty() => Self::None,
            // What is not known to be strong is not relied on.
            _ => Self::Eventual(regions),
        }
    }
}

/// Something that a table lacks and that can be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The table itself, with all that belongs to it.
    Table,
    /// The index of due items and of locks.
    Index,
    /// The removal of expired items by the service.
    Expiry,
    /// The item with the number of shards.
    Shards,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table => f.write_str("the table"),
            Self::Index => write!(f, "the index `{INDEX}`"),
            Self::Expiry => write!(f, "removal of expired items by the attribute `{GARBAGE}`"),
            Self::Shards => f.write_str("the item with the number of shards"),
        }
    }
}

/// What a migration did, or would do: nothing when the table is as it must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migrated {
    /// What was missing.
    pub changes: Vec<Change>,
}

/// Sees to the table as `migrate` says.
///
/// # Errors
/// `Config` for a table that does not fit or, with `check`, that lacks something; `Denied` for missing rights.
pub(crate) async fn prepare(client: &Client, config: &DynamoConfig) -> Result<Facts> {
    let table = Table { client, config };
    let found = table.look().await?;
    let found = match config.migrate {
        MigrateMode::Ignore => found,
        MigrateMode::Check => {
            if table.check(&found).await? {
                table.write_shards().await?;
            }
            found
        }
        MigrateMode::Auto => table.complete(found).await?.0,
    };
    Ok(table.facts(&found))
}

/// Brings the table to what this program needs.
///
/// # Errors
/// `Config` when something that exists differs; `Denied` when the role may not create what is missing.
pub(crate) async fn migrate(client: &Client, config: &DynamoConfig) -> Result<Migrated> {
    let table = Table { client, config };
    let found = table.look().await?;
    table.complete(found).await.map(|(_, migrated)| migrated)
}

/// What [`migrate`] would do. Changes nothing.
///
/// # Errors
/// `Config` when something that exists differs.
pub(crate) async fn pending(client: &Client, config: &DynamoConfig) -> Result<Migrated> {
    let table = Table { client, config };
    let found = table.look().await?;
    table.missing(&found).await.map(|changes| Migrated { changes })
}

/// What a start with `migrate = "check"` refuses. Changes nothing.
///
/// # Errors
/// `Config` unless the table has everything but the item that such a start writes.
pub(crate) async fn check(client: &Client, config: &DynamoConfig) -> Result<()> {
    let table = Table { client, config };
    let found = table.look().await?;
    table.check(&found).await.map(drop)
}

/// What a look at the table has shown.
enum Found {
    Nothing,
    /// The role may not look.
    Hidden,
    Table(Box<TableDescription>),
}

struct Table<'a> {
    client: &'a Client,
    config: &'a DynamoConfig,
}

impl Table<'_> {
    fn name(&self) -> &str {
        &self.config.table_name
    }

    async fn look(&self) -> Result<Found> {
        let answer = self.client.describe_table().table_name(self.name()).send().await;
        match answer {
            Ok(output) => Ok(output.table.map_or(Found::Nothing, |table| Found::Table(Box::new(table)))),
            Err(error) => {
                let is_absent = error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception());
                let error = classify(error, Access::Read);
                match error.kind() {
                    _ if is_absent => Ok(Found::Nothing),
                    // Credentials that are no good at all fail the next request as well, which says so.
                    ErrorKind::Denied => {
                        tracing::debug!(table = self.name(), %error, "the table cannot be described; it is taken as it is");
                        Ok(Found::Hidden)
                    }
                    _ => Err(self.explain("looked at", error)),
                }
            }
        }
    }

    fn facts(&self, found: &Found) -> Facts {
        match found {
            Found::Table(description) => Facts::new(self.config, Some(description)),
            Found::Hidden => Facts::unseen(self.config),
            // As a start would create it.
            Found::Nothing => Facts { replication: Replication::None, ..Facts::unseen(self.config) },
        }
    }

    /// What the table lacks.
    ///
    /// # Errors
    /// `Config` when something that exists differs.
    async fn missing(&self, found: &Found) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        match found {
            Found::Nothing => return Ok(vec![Change::Table, Change::Expiry, Change::Shards]),
            Found::Hidden => {}
            Found::Table(description) => {
                self.refuse_differences(description)?;
                if index_of(description).is_none() {
                    changes.push(Change::Index);
                }
                if takes_expiry(description) && !self.has_expiry().await? {
                    changes.push(Change::Expiry);
                }
            }
        }
        if !self.has_shards().await? {
            changes.push(Change::Shards);
        }
        Ok(changes)
    }

    /// Adds what the table lacks. The table, as it is then, and what was added.
    async fn complete(&self, mut found: Found) -> Result<(Found, Migrated)> {
        let mut changes = Vec::new();
        match &found {
            Found::Nothing => {
                self.create().await?;
                changes.push(Change::Table);
                found = Found::Table(self.wait_until_ready().await?);
            }
            // It or its index is being created: by another node, most likely.
            Found::Table(description) if !is_ready(description) => {
                found = Found::Table(self.wait_until_ready().await?);
            }
            Found::Table(_) | Found::Hidden => {}
        }
        for change in self.missing(&found).await? {
            let is_added = match (change, &found) {
                (Change::Index, Found::Table(description)) => self.add_index(description).await.map(|()| true)?,
                (Change::Expiry, _) => self.add_expiry().await?,
                (Change::Shards, _) => self.write_shards().await.map(|()| true)?,
                (Change::Table | Change::Index, _) => false,
            };
            if is_added {
                changes.push(change);
            }
        }
        if !changes.is_empty() {
            tracing::info!(table = self.name(), added = listed(&changes), "the table was brought up to date");
        }
        Ok((found, Migrated { changes }))
    }

    /// Whether the item with the number of shards is missing, which is data and left to a start.
    ///
    /// # Errors
    /// `Config` unless the table has everything else.
    async fn check(&self, found: &Found) -> Result<bool> {
        let mut missing = self.missing(found).await?;
        let lacks_shards = missing.contains(&Change::Shards);
        missing.retain(|change| *change != Change::Shards);
        if missing.is_empty() {
            return Ok(lacks_shards);
        }
        let what = match found {
            Found::Nothing => "does not exist".to_owned(),
            Found::Hidden | Found::Table(_) => format!("lacks {}", listed(&missing)),
        };
        let message = format!(
            "migrate: it says \"check\", and table {} {what}: run `acteon-server migrate` with a role that may create it, or \
             set migrate = \"auto\"",
            self.name()
        );
        Err(Error::config(message).on_backend(BACKEND))
    }

    /// # Errors
    /// `Config`, with all that differs, when the table has something else where this program's keys must be.
    fn refuse_differences(&self, description: &TableDescription) -> Result<()> {
        let found = differences(description);
        if found.is_empty() {
            return Ok(());
        }
        Err(Error::config(format!(
            "table_name: table {} exists and is of another kind: {}; set another table_name",
            self.name(),
            found.join("; ")
        ))
        .on_backend(BACKEND))
    }

    async fn create(&self) -> Result<()> {
        let index = GlobalSecondaryIndex::builder()
            .index_name(INDEX)
            .set_key_schema(Some(key_schema(&INDEX_KEY)?))
            .projection(keys_only())
            .build();
        let request = self
            .client
            .create_table()
            .table_name(self.name())
            .billing_mode(BillingMode::PayPerRequest)
            .set_key_schema(Some(key_schema(&TABLE_KEY)?))
            .set_attribute_definitions(Some(definitions()?))
            .global_secondary_indexes(index.map_err(internal)?);
        match request.send().await {
            Ok(_) => Ok(()),
            // Somebody else is at it.
            Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_in_use_exception()) => Ok(()),
            Err(error) => Err(self.explain("created", classify(error, Access::Write))),
        }
    }

    async fn add_index(&self, description: &TableDescription) -> Result<()> {
        if !is_on_demand(description) {
            let message = format!(
                "table {} lacks the index `{INDEX}`, whose capacity is yours to decide, since the table's is provisioned: add the \
                 index ({INDEX_PK} text, {INDEX_SK} number, keys only) or change the table to on-demand",
                self.name()
            );
            return Err(Error::config(message).on_backend(BACKEND));
        }
        let create = CreateGlobalSecondaryIndexAction::builder()
            .index_name(INDEX)
            .set_key_schema(Some(key_schema(&INDEX_KEY)?))
            .projection(keys_only())
            .build()
            .map_err(internal)?;
        let request = self
            .client
            .update_table()
            .table_name(self.name())
            .set_attribute_definitions(Some(definitions()?))
            .global_secondary_index_updates(GlobalSecondaryIndexUpdate::builder().create(create).build());
        match request.send().await {
            Ok(_) => {}
            Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_in_use_exception()) => {}
            Err(error) => return Err(self.explain("given its index", classify(error, Access::Write))),
        }
        self.wait_until_ready().await.map(drop)
    }

    async fn wait_until_ready(&self) -> Result<Box<TableDescription>> {
        let deadline = Instant::now() + READY_WAIT_MAX;
        let mut pause = READY_POLL_MIN;
        loop {
            match self.look().await? {
                Found::Table(description) if is_ready(&description) => return Ok(description),
                Found::Hidden => {
                    let message = format!(
                        "table {} is being created, and this role may not see when it is done: allow dynamodb:DescribeTable",
                        self.name()
                    );
                    return Err(Error::new(ErrorKind::Denied, message).on_backend(BACKEND));
                }
                // Right after its creation a table may not show yet.
                Found::Nothing | Found::Table(_) => {}
            }
            if Instant::now() >= deadline {
                let message = format!(
                    "table {} is not ready after {READY_WAIT_MAX:?}; an index of a large table takes its time: try again later",
                    self.name()
                );
                return Err(Error::new(ErrorKind::Timeout, message).on_backend(BACKEND));
            }
            sleep(pause).await;
            pause = (pause * 2).min(READY_POLL_MAX);
        }
    }

    /// Whether expired items are removed by our attribute, or it cannot be seen.
    ///
    /// # Errors
    /// `Config` when they are removed by another one.
    async fn has_expiry(&self) -> Result<bool> {
        let output = match self.client.describe_time_to_live().table_name(self.name()).send().await {
            Ok(output) => output,
            Err(error) => {
                let error = classify(error, Access::Read);
                if error.kind() != ErrorKind::Denied {
                    return Err(self.explain("asked for its time to live", error));
                }
                tracing::debug!(table = self.name(), %error, "whether expired items are removed cannot be seen");
                return Ok(true);
            }
        };
        let Some(found) = output.time_to_live_description else { return Ok(false) };
        let is_on = matches!(found.time_to_live_status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling));
        match found.attribute_name.as_deref() {
            Some(attribute) if is_on && attribute != GARBAGE => {
                let message = format!(
                    "table_name: table {} removes items by the attribute `{attribute}`, and a table can have one such attribute, \
                     which must be `{GARBAGE}`: set another table_name, or turn that off",
                    self.name()
                );
                Err(Error::config(message).on_backend(BACKEND))
            }
            _ => Ok(is_on),
        }
    }

    /// Whether it could be turned on. Everything is right without it, only larger.
    async fn add_expiry(&self) -> Result<bool> {
        let setting =
            TimeToLiveSpecification::builder().enabled(true).attribute_name(GARBAGE).build().map_err(internal)?;
        let request = self.client.update_time_to_live().table_name(self.name()).time_to_live_specification(setting);
        let Err(error) = request.send().await else { return Ok(true) };
        // A node that starts at the same moment may have been faster, which the service refuses in several ways.
        if self.has_expiry().await? {
            return Ok(true);
        }
        let error = classify(error, Access::Write);
        tracing::warn!(
            table = self.name(),
            %error,
            "expired items are not removed and go on being paid for: turn on time to live by the attribute `{GARBAGE}`"
        );
        Ok(false)
    }

    /// Whether the numbers of shards are recorded.
    ///
    /// # Errors
    /// `Config` when they are recorded and differ, or when there is no table.
    async fn has_shards(&self) -> Result<bool> {
        let request = self
            .client
            .get_item()
            .table_name(self.name())
            .set_key(Some(self.meta_address().item()))
            .consistent_read(true);
        let output = request.send().await.map_err(|error| self.explain("read", classify(error, Access::Read)))?;
        match output.item {
            None => Ok(false),
            Some(item) => self.compare_shards(&item).map(|()| true),
        }
    }

    async fn write_shards(&self) -> Result<()> {
        let mut item = self.meta_address().item();
        item.insert(FORMAT_NAME.to_owned(), number(FORMAT));
        item.insert(SHARDS.to_owned(), number(self.config.shards));
        item.insert(DUE_SHARDS.to_owned(), number(self.config.due_shards));
        let request = self
            .client
            .put_item()
            .table_name(self.name())
            .set_item(Some(item))
            .condition_expression(format!("attribute_not_exists({PK})"))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let Err(error) = request.send().await else { return Ok(()) };
        match &error {
            SdkError::ServiceError(refused) if refused.err().is_conditional_check_failed_exception() => {
                // Another node was faster, or we were and did not hear of it.
                if self.has_shards().await? {
                    Ok(())
                } else {
                    Err(self.explain("written", classify(error, Access::Write)))
                }
            }
            _ => Err(self.explain("written", classify(error, Access::Write))),
        }
    }

    fn compare_shards(&self, item: &Item) -> Result<()> {
        let format: Option<u64> = number_of(item, FORMAT_NAME);
        if format != Some(FORMAT) {
            let found = format.map_or("an unreadable format".to_owned(), |format| format!("format {format}"));
            let message = format!(
                "the items of prefix {} in table {} have {found}, and this program knows format {FORMAT}: run a newer program, or \
                 set another prefix",
                self.config.prefix,
                self.name()
            );
            return Err(Error::config(message).on_backend(BACKEND));
        }
        for (option, attribute, configured) in
            [("shards", SHARDS, self.config.shards), ("due_shards", DUE_SHARDS, self.config.due_shards)]
        {
            let recorded: Option<u8> = number_of(item, attribute);
            if recorded != Some(configured) {
                let recorded = recorded.map_or("an unreadable number of".to_owned(), |recorded| recorded.to_string());
                let message = format!(
                    "{option}: it is {configured}, and prefix {} in table {} was set up with {recorded} shards, where its items \
                     lie: set {option} = {recorded}, or another prefix",
                    self.config.prefix,
                    self.name()
                );
                return Err(Error::config(message).on_backend(BACKEND));
            }
        }
        Ok(())
    }

    fn meta_address(&self) -> Address {
        Address::alone(format!("{}#meta", self.config.prefix))
    }

    /// Says which table, and how to do without the right to make it.
    fn explain(&self, what: &str, error: Error) -> Error {
        let option = if error.kind() == ErrorKind::Config { "table_name: " } else { "" };
        let advice = match error.kind() {
            ErrorKind::Denied if what != "read" => {
                "; or run `acteon-server migrate` once with a role that may create tables"
            }
            _ => "",
        };
        let message = format!("{option}table {} could not be {what}: {}{advice}", self.name(), error.message());
        Error::new(error.kind(), message).with_effect(error.effect()).on_backend(BACKEND).with_source(error)
    }
}

/// What exists and is not as it must be, one sentence each.
fn differences(description: &TableDescription) -> Vec<String> {
    let mut found = Vec::new();
    compare_key("its key", description.key_schema(), &TABLE_KEY, description, &mut found);
    if let Some(index) = index_of(description) {
        let of_index = format!("the key of its index `{INDEX}`");
        compare_key(&of_index, index.key_schema(), &INDEX_KEY, description, &mut found);
    }
    found
}

fn compare_key(
    what: &str,
    found: &[KeySchemaElement],
    needed: &Key,
    description: &TableDescription,
    differences: &mut Vec<String>,
) {
    let type_of = |name: &str| {
        let definitions = description.attribute_definitions();
        definitions.iter().find(|definition| definition.attribute_name() == name).map(|found| found.attribute_type())
    };
    let is_same = found.len() == needed.len()
        && found.iter().zip(needed).all(|(found, (name, role, kind))| {
            found.attribute_name() == *name && found.key_type() == role && type_of(name) == Some(kind)
        });
    if is_same {
        return;
    }
    let given: Vec<_> = found
        .iter()
        .map(|key| (key.attribute_name(), type_of(key.attribute_name()).map_or("?", ScalarAttributeType::as_str)))
        .map(|(name, kind)| format!("{name} ({kind})"))
        .collect();
    let needed: Vec<_> = needed.iter().map(|(name, _, kind)| format!("{name} ({})", kind.as_str())).collect();
    differences.push(format!("{what} is {} and must be {}", given.join(", "), needed.join(", ")));
}

/// Tables with strong consistency across regions have no removal of expired items.
fn takes_expiry(description: &TableDescription) -> bool {
    !matches!(Replication::of(description), Replication::Strong(_))
}

fn index_of(description: &TableDescription) -> Option<&aws_sdk_dynamodb::types::GlobalSecondaryIndexDescription> {
    description.global_secondary_indexes().iter().find(|index| index.index_name() == Some(INDEX))
}

/// The table and its index take reads and writes. While one is `UPDATING` it does.
fn is_ready(description: &TableDescription) -> bool {
    let table = matches!(description.table_status(), Some(TableStatus::Active | TableStatus::Updating));
    let index = index_of(description)
        .is_none_or(|index| matches!(index.index_status(), Some(IndexStatus::Active | IndexStatus::Updating)));
    table && index
}

fn is_on_demand(description: &TableDescription) -> bool {
    let mode = description.billing_mode_summary().and_then(|summary| summary.billing_mode());
    mode == Some(&BillingMode::PayPerRequest)
}

fn key_schema(key: &Key) -> Result<Vec<KeySchemaElement>> {
    key.iter()
        .map(|(name, role, _)| KeySchemaElement::builder().attribute_name(*name).key_type(role.clone()).build())
        .collect::<Result<_, _>>()
        .map_err(internal)
}

fn definitions() -> Result<Vec<AttributeDefinition>> {
    TABLE_KEY
        .iter()
        .chain(&INDEX_KEY)
        .map(|(name, _, kind)| {
            AttributeDefinition::builder().attribute_name(*name).attribute_type(kind.clone()).build()
        })
        .collect::<Result<_, _>>()
        .map_err(internal)
}

fn keys_only() -> Projection {
    Projection::builder().projection_type(ProjectionType::KeysOnly).build()
}

/// A request that lacks a part: ours to have filled in.
fn internal(error: aws_sdk_dynamodb::error::BuildError) -> Error {
    Error::new(ErrorKind::Internal, "a request about the table is incomplete").with_source(error).on_backend(BACKEND)
}

fn listed(changes: &[Change]) -> String {
    changes.iter().map(Change::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::builders::TableDescriptionBuilder;
    use aws_sdk_dynamodb::types::{
        GlobalSecondaryIndexDescription, IndexStatus, MultiRegionConsistency, ReplicaDescription, TableDescription,
        TableStatus,
    };

    use super::{Facts, INDEX, INDEX_KEY, Replication, TABLE_KEY, definitions, differences, is_ready, key_schema};
    use crate::config::DynamoConfig;

    fn described() -> TableDescriptionBuilder {
        TableDescription::builder()
            .table_status(TableStatus::Active)
            .set_key_schema(Some(key_schema(&TABLE_KEY).unwrap()))
            .set_attribute_definitions(Some(definitions().unwrap()))
    }

    #[test]
    fn a_table_as_it_is_created_has_no_differences() {
        let index = GlobalSecondaryIndexDescription::builder()
            .index_name(INDEX)
            .index_status(IndexStatus::Active)
            .set_key_schema(Some(key_schema(&INDEX_KEY).unwrap()))
            .build();
        let table = described().global_secondary_indexes(index).build();
        assert!(differences(&table).is_empty() && is_ready(&table));
    }

    #[test]
    fn each_difference_is_named() {
        let index = GlobalSecondaryIndexDescription::builder()
            .index_name(INDEX)
            .index_status(IndexStatus::Creating)
            .set_key_schema(Some(key_schema(&TABLE_KEY).unwrap()))
            .build();
        let table = TableDescription::builder()
            .table_status(TableStatus::Active)
            .set_key_schema(Some(key_schema(&INDEX_KEY).unwrap()))
            .set_attribute_definitions(Some(definitions().unwrap()))
            .global_secondary_indexes(index)
            .build();
        let found = differences(&table);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0], "its key is iq (S), ia (N) and must be pk (S), sk (S)");
        assert!(found[1].contains("`due`"), "{found:?}");
        assert!(!is_ready(&table));
    }

    #[test]
    fn several_regions_without_a_common_order_do_not_hold_conditions() {
        let facts = |table| Facts::new(&DynamoConfig::default(), Some(&TableDescriptionBuilder::build(table)));
        let replicated = || described().replicas(ReplicaDescription::builder().region_name("eu-west-1").build());
        let alone = facts(described());
        assert!(alone.conditions_hold() && alone.has_transactions() && !alone.is_emulator);
        // A consistency that is not named counts as the weaker one.
        let eventual = facts(replicated());
        assert_eq!(eventual.replication, Replication::Eventual(vec!["eu-west-1".to_owned()]));
        assert!(!eventual.conditions_hold());
        let strong = facts(replicated().multi_region_consistency(MultiRegionConsistency::Strong));
        assert!(strong.conditions_hold() && !strong.has_transactions());
    }
}
