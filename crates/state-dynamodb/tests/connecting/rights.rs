//! Roles that may not do everything.

use acteon_state_core::{Effect, ErrorKind, Put, StateKey, StateStore};

use acteon_state_dynamodb::DynamoConfig;

use crate::front::Front;
use crate::{checking, config, connect, refused, start};

/// What a role that only works with items lacks.
const TABLE_ACTIONS: [&str; 5] =
    ["DescribeTable", "CreateTable", "UpdateTable", "DescribeTimeToLive", "UpdateTimeToLive"];

#[tokio::test]
async fn a_role_that_may_only_work_with_items_uses_a_table_that_is_there() {
    let server = start();
    connect(config(&server.url())).await;
    let front = Front::refusing(server.address(), &TABLE_ACTIONS).await;
    for config in [config(&front.url()), checking(&front.url())] {
        let store = connect(config).await;
        let key = StateKey::new("mail", "acme", "session", "a").unwrap();
        store.put(&key, &Put::new("v")).await.unwrap();
        let notes = store.lock_semantics().notes;
        assert!(notes.iter().any(|note| note.contains("dynamodb:DescribeTable")), "{notes:?}");
    }
}

#[tokio::test]
async fn such_a_role_is_told_that_the_table_is_missing() {
    let server = start();
    let front = Front::refusing(server.address(), &TABLE_ACTIONS).await;
    let error = refused(config(&front.url())).await;
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.message().contains("acteon-server migrate") && error.message().contains("table acteon"), "{error}");
}

#[tokio::test]
async fn a_role_that_may_not_create_is_told_the_action_and_the_way_out() {
    let server = start();
    let front = Front::refusing(server.address(), &["CreateTable"]).await;
    let error = refused(config(&front.url())).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    for part in ["dynamodb:CreateTable", "table acteon", "acteon-server migrate"] {
        assert!(error.message().contains(part), "{part}: {error}");
    }
}

#[tokio::test]
async fn a_table_whose_expiry_may_not_be_turned_on_works_without() {
    let server = start();
    let front = Front::refusing(server.address(), &["UpdateTimeToLive"]).await;
    connect(config(&front.url())).await.ping().await.unwrap();
}

#[tokio::test]
async fn a_role_without_any_right_is_refused_with_the_action() {
    let server = start();
    let front = Front::refusing(server.address(), &["DescribeTable", "GetItem", "PutItem"]).await;
    let error = refused(config(&front.url())).await;
    assert!(error.kind() == ErrorKind::Denied && error.message().contains("dynamodb:GetItem"), "{error}");
}

#[tokio::test]
async fn a_profile_that_is_nowhere_is_a_matter_of_credentials_and_nothing_is_sent() {
    let server = start();
    let error = refused(DynamoConfig { profile: Some("acteon-nobody".into()), ..config(&server.url()) }).await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Denied, Effect::NotApplied), "{error}");
    assert!(error.message().contains("no usable credentials"), "{error}");
}
