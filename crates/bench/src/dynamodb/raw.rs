//! The raw side: the AWS SDK with the driver's expressions, and nothing around it.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use acteon_state_core::{Keyspace, StateKey, Version};
use acteon_state_dynamodb::DynamoConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region, StalledStreamProtectionConfig};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeValue, KeysAndAttributes, ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure,
};
use aws_smithy_http_client::tls;

use super::{Operation, REGION, Side, TABLE, TTL, VALUE, many};
use crate::Outcome;

const NOT_EXPIRED: &str = "(attribute_not_exists(e) OR e > :now)";
/// The format of items that the driver writes.
const FORMAT: u64 = 1;
/// How long the driver has expired items kept.
const GRACE: Duration = Duration::from_secs(3_600);
/// Both keys: the emulator checks none.
const KEY: &str = "acteon";

#[derive(Clone)]
pub(super) struct Raw {
    client: Client,
    keyspace: Keyspace,
}

impl Raw {
    /// A client with the options that the driver gives its own.
    pub(super) fn new(config: &DynamoConfig) -> Outcome<Self> {
        let http_client = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .build_https();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(config.connect_timeout)
            .read_timeout(config.attempt_timeout)
            .operation_timeout(config.operation_timeout)
            .build();
        let options = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http_client)
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new(KEY, KEY, None, None, "benchmark"))
            .endpoint_url(config.url.as_deref().ok_or("the emulator's address is missing")?)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Ok(Self { client: Client::from_conf(options), keyspace: Keyspace::new(&config.prefix)? })
    }

    async fn get(&self, pk: AttributeValue) -> Outcome {
        let request =
            self.client.get_item().table_name(TABLE).key("pk", pk).key("sk", sort_key()).consistent_read(true);
        request.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await?;
        Ok(())
    }

    async fn get_many(&self, pks: impl Iterator<Item = AttributeValue>) -> Outcome {
        let keys = pks.map(|pk| HashMap::from([("pk".to_owned(), pk), ("sk".to_owned(), sort_key())])).collect();
        let wanted = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true).build()?;
        let request = self.client.batch_get_item().request_items(TABLE, wanted);
        request.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await?;
        Ok(())
    }

    async fn put(&self, pk: AttributeValue) -> Outcome {
        let now_ms = now_ms()?;
        let request = self
            .client
            .update_item()
            .table_name(TABLE)
            .key("pk", pk)
            .key("sk", sort_key())
            .update_expression("SET v = :v, r = :r, f = :f, e = :e, gc = :gc REMOVE c")
            .condition_expression(format!("attribute_not_exists(t) OR {NOT_EXPIRED}"))
            .expression_attribute_values(":v", bytes(VALUE))
            .expression_attribute_values(":r", new_version())
            .expression_attribute_values(":f", number(FORMAT))
            .expression_attribute_values(":e", number(expiry_ms(now_ms)))
            .expression_attribute_values(":gc", number(garbage_s(now_ms)))
            .expression_attribute_values(":now", number(now_ms))
            .return_values(ReturnValue::None)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        request.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await?;
        Ok(())
    }

    async fn put_if_absent(&self, pk: AttributeValue) -> Outcome {
        let now_ms = now_ms()?;
        let request = self
            .client
            .put_item()
            .table_name(TABLE)
            .item("pk", pk)
            .item("sk", sort_key())
            .item("f", number(FORMAT))
            .item("v", bytes(VALUE))
            .item("r", new_version())
            .item("e", number(expiry_ms(now_ms)))
            .item("gc", number(garbage_s(now_ms)))
            .condition_expression("(attribute_not_exists(pk) OR e <= :now)")
            .expression_attribute_values(":now", number(now_ms))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        request.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await?;
        Ok(())
    }

    async fn increment(&self, pk: AttributeValue) -> Outcome {
        let condition = format!("attribute_not_exists(pk) OR ({NOT_EXPIRED} AND attribute_exists(c) AND c <= :bound)");
        let request = self
            .client
            .update_item()
            .table_name(TABLE)
            .key("pk", pk)
            .key("sk", sort_key())
            .update_expression("SET c = if_not_exists(c, :zero) + :d, f = :f")
            .condition_expression(condition)
            .expression_attribute_values(":zero", number(0))
            .expression_attribute_values(":d", number(1))
            .expression_attribute_values(":f", number(FORMAT))
            .expression_attribute_values(":bound", number(i64::MAX.unsigned_abs() - 1))
            .expression_attribute_values(":now", number(now_ms()?))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        request.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await?;
        Ok(())
    }
}

impl Side for Raw {
    async fn operate(&self, operation: Operation, key: &StateKey) -> Outcome {
        let pk = AttributeValue::S(self.keyspace.text(key));
        match operation {
            Operation::Get => self.get(pk).await,
            Operation::GetMany => {
                let keys = many(key)?;
                self.get_many(keys.iter().map(|key| AttributeValue::S(self.keyspace.text(key)))).await
            }
            Operation::Put => self.put(pk).await,
            Operation::PutIfAbsent => self.put_if_absent(pk).await,
            Operation::Increment => self.increment(pk).await,
        }
    }
}

/// Of an item that has a partition of its own.
fn sort_key() -> AttributeValue {
    AttributeValue::S("-".to_owned())
}

fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

fn bytes(bytes: impl Into<Vec<u8>>) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

fn new_version() -> AttributeValue {
    bytes(Version::draw().as_u128().to_be_bytes())
}

fn now_ms() -> Outcome<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

fn expiry_ms(now_ms: u64) -> u64 {
    now_ms + 1 + u64::try_from(TTL.as_millis()).unwrap_or(u64::MAX)
}

fn garbage_s(now_ms: u64) -> u64 {
    expiry_ms(now_ms) / 1_000 + GRACE.as_secs()
}
