//! Creating, completing and checking the table.

use acteon_state_core::{ErrorKind, StateStore};
use acteon_state_dynamodb::{Change, DynamoConfig, DynamoStore};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ProjectionType, ScalarAttributeType,
    TimeToLiveSpecification, TimeToLiveStatus,
};
use futures_util::future::join_all;

use crate::{TABLE, checking, config, connect, raw, refused, start};

/// A table with these key attributes and nothing else.
async fn create(client: &Client, hash: &str, range: &str) {
    let key = |name: &str, role| KeySchemaElement::builder().attribute_name(name).key_type(role).build().unwrap();
    let text = |name: &str| {
        AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build().unwrap()
    };
    client
        .create_table()
        .table_name(TABLE)
        .billing_mode(BillingMode::PayPerRequest)
        .key_schema(key(hash, KeyType::Hash))
        .key_schema(key(range, KeyType::Range))
        .attribute_definitions(text(hash))
        .attribute_definitions(text(range))
        .send()
        .await
        .unwrap();
}

async fn remove_by(client: &Client, attribute: &str) {
    let setting = TimeToLiveSpecification::builder().enabled(true).attribute_name(attribute).build().unwrap();
    client.update_time_to_live().table_name(TABLE).time_to_live_specification(setting).send().await.unwrap();
}

#[tokio::test]
async fn a_start_creates_the_table_with_its_index_and_expiry() {
    let server = start();
    connect(config(&server.url())).await.ping().await.unwrap();
    let client = raw(&server.url());
    let table = client.describe_table().table_name(TABLE).send().await.unwrap().table.unwrap();
    let keys =
        |schema: &[KeySchemaElement]| schema.iter().map(|key| key.attribute_name().to_owned()).collect::<Vec<_>>();
    assert_eq!(keys(table.key_schema()), ["pk", "sk"]);
    let [index] = table.global_secondary_indexes() else { panic!("{table:?}") };
    assert_eq!((index.index_name(), keys(index.key_schema())), (Some("due"), vec!["iq".to_owned(), "ia".to_owned()]));
    assert_eq!(index.projection().unwrap().projection_type(), Some(&ProjectionType::KeysOnly));
    let expiry =
        client.describe_time_to_live().table_name(TABLE).send().await.unwrap().time_to_live_description.unwrap();
    assert_eq!(expiry.attribute_name(), Some("gc"));
    assert!(matches!(expiry.time_to_live_status(), Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)));
}

#[tokio::test]
async fn any_number_of_nodes_start_at_once() {
    let server = start();
    let starts = (0..16).map(|_| DynamoStore::connect(config(&server.url())));
    for store in join_all(starts).await {
        store.unwrap().ping().await.unwrap();
    }
}

#[tokio::test]
async fn a_migration_says_what_it_will_do_and_did_and_does_it_once() {
    let server = start();
    let all = [Change::Table, Change::Expiry, Change::Shards];
    assert_eq!(DynamoStore::pending(config(&server.url())).await.unwrap().changes, all);
    let refused = refused(checking(&server.url())).await;
    assert!(refused.kind() == ErrorKind::Config && refused.message().contains("acteon-server migrate"), "{refused}");
    assert_eq!(DynamoStore::migrate(config(&server.url())).await.unwrap().changes, all);
    assert!(DynamoStore::pending(config(&server.url())).await.unwrap().changes.is_empty());
    assert!(DynamoStore::migrate(config(&server.url())).await.unwrap().changes.is_empty());
    connect(checking(&server.url())).await;
}

#[tokio::test]
async fn a_new_prefix_in_a_complete_table_needs_no_migration() {
    let server = start();
    connect(config(&server.url())).await;
    connect(DynamoConfig { prefix: "other".into(), shards: 7, ..checking(&server.url()) }).await;
}

#[tokio::test]
async fn a_table_without_the_index_is_completed_and_a_check_names_it() {
    let server = start();
    create(&raw(&server.url()), "pk", "sk").await;
    let refused = refused(checking(&server.url())).await;
    assert!(refused.message().contains("index `due`") && refused.message().contains("`gc`"), "{refused}");
    let added = DynamoStore::migrate(config(&server.url())).await.unwrap().changes;
    assert_eq!(added, [Change::Index, Change::Expiry, Change::Shards]);
    connect(checking(&server.url())).await;
}

#[tokio::test]
async fn a_table_of_somebody_else_is_left_alone_and_its_key_is_named() {
    let server = start();
    create(&raw(&server.url()), "id", "at").await;
    for config in [config(&server.url()), checking(&server.url())] {
        let refused = refused(config).await;
        assert_eq!(refused.kind(), ErrorKind::Config);
        assert!(refused.message().contains("its key is id (S), at (S) and must be pk (S), sk (S)"), "{refused}");
    }
}

#[tokio::test]
async fn a_table_that_expires_by_another_attribute_is_refused() {
    let server = start();
    let client = raw(&server.url());
    create(&client, "pk", "sk").await;
    remove_by(&client, "ttl").await;
    let refused = refused(config(&server.url())).await;
    assert!(refused.kind() == ErrorKind::Config && refused.message().contains("attribute `ttl`"), "{refused}");
}

#[tokio::test]
async fn another_number_of_shards_is_refused_with_both() {
    let server = start();
    connect(DynamoConfig { shards: 8, ..config(&server.url()) }).await;
    let error = refused(config(&server.url())).await;
    assert!(error.message().contains("it is 4") && error.message().contains("set shards = 8"), "{error}");
    let error = refused(DynamoConfig { shards: 8, due_shards: 2, ..config(&server.url()) }).await;
    assert!(error.message().starts_with("due_shards: it is 2"), "{error}");
}

#[tokio::test]
async fn requests_of_the_start_are_counted_as_sent_and_under_no_operation() {
    let server = start();
    connect(config(&server.url())).await;
    let store = connect(config(&server.url())).await;
    // The table, its expiry, its shards.
    assert_eq!((store.capacity().sent(), store.capacity().total().requests), (3, 0));
}
