//! PgBouncer in between.

use acteon_state_core::{ErrorKind, StateStore, Waiting};
use acteon_state_postgres::PostgresConfig;
use acteon_test_support::{PgBouncer, PoolMode};

use super::{config, connect, refused, start};

#[tokio::test]
async fn a_transaction_pooler_is_found_out() {
    let server = start();
    for (mode, waiting) in [(PoolMode::Transaction, Waiting::Backoff), (PoolMode::Session, Waiting::NotifyAndSleep)] {
        let bouncer = PgBouncer::start(&server, mode).unwrap();
        let store = connect(config(&bouncer.url())).await;
        let semantics = store.lock_semantics();
        assert_eq!(semantics.waiting, waiting, "{mode:?}");
        let is_noted = semantics.notes.iter().any(|note| note.contains("transaction pooler"));
        assert_eq!(is_noted, mode == PoolMode::Transaction, "{:?}", semantics.notes);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_configured_about_a_pooler_is_not_asked() {
    let server = start();
    for (transaction_pooler, waiting) in
        [(None, Waiting::NotifyAndSleep), (Some(false), Waiting::NotifyAndSleep), (Some(true), Waiting::Backoff)]
    {
        let store = connect(PostgresConfig { transaction_pooler, ..config(&server.url()) }).await;
        assert_eq!(store.lock_semantics().waiting, waiting, "{transaction_pooler:?}");
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_a_pooler_refuses_is_understood() {
    let server = start();
    let bouncer = PgBouncer::start(&server, PoolMode::Transaction).unwrap();
    let wrong_password = bouncer.url().replace(server.password(), "guess");
    let error = refused(config(&wrong_password)).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let error = refused(config(&bouncer.url_for("missing"))).await;
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.message().contains("missing"), "{error}");
}
