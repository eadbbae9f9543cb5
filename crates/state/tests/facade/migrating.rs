//! Schemas of backends: who has one is asked, who has none is left alone, and nothing is half done for a misspelt name.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use acteon_state::{
    DriverConfig, Error, ErrorKind, Migrate, Registry, Result, SchemaReport, SchemaVersions, StateStore, migrate_with,
};

use crate::state;

async fn unopened(_: DriverConfig) -> Result<Arc<dyn StateStore>> {
    panic!("migrating opens no store")
}

/// A driver whose schema was at version 2, and one without a schema.
fn registry(applied: &Arc<AtomicUsize>) -> Registry {
    let applied = applied.clone();
    Registry::new()
        .with("tables", unopened)
        .with_schema("tables", move |driver, how| {
            assert_eq!(driver.url.as_ref().map(|url| url.expose()), Some("tables://h"));
            applied.fetch_add(usize::from(how == Migrate::Apply), Ordering::SeqCst);
            async { Ok(SchemaVersions { from: 2, to: 5 }) }
        })
        .with("plain", unopened)
}

fn report(section: &str, backend: &str, schema: Option<(u32, u32)>) -> SchemaReport {
    let schema = schema.map(|(from, to)| SchemaVersions { from, to });
    SchemaReport { section: section.to_owned(), backend: backend.to_owned(), schema }
}

#[tokio::test]
async fn data_and_locks_are_migrated_each_on_its_own_backend() {
    let applied = Arc::new(AtomicUsize::new(0));
    let config = state("backend = 'plain'\n[state.lock]\nbackend = 'tables'\nurl = 'tables://h'");
    let expected = [report("state", "plain", None), report("state.lock", "tables", Some((2, 5)))];
    assert_eq!(expected.each_ref().map(SchemaReport::is_outdated), [false, true]);
    for (how, changes) in [(Migrate::Check, 0), (Migrate::Apply, 1)] {
        assert_eq!(migrate_with(&config, how, &registry(&applied)).await.unwrap(), expected);
        assert_eq!(applied.load(Ordering::SeqCst), changes, "{how:?}");
    }
}

#[tokio::test]
async fn a_misspelt_lock_backend_is_found_before_anything_is_changed() {
    let applied = Arc::new(AtomicUsize::new(0));
    let config = state("backend = 'tables'\nurl = 'tables://h'\n[state.lock]\nbackend = 'tabels'");
    let error = migrate_with(&config, Migrate::Apply, &registry(&applied)).await.unwrap_err();
    assert!(error.message().starts_with("app.toml:5: state.lock.backend: "), "{error}");
    assert_eq!(applied.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_failed_migration_says_of_which_backend() {
    let denied =
        |_: DriverConfig, _: Migrate| async { Err(Error::new(ErrorKind::Denied, "no right to create tables")) };
    let registry = Registry::new().with("tables", unopened).with_schema("tables", denied);
    let config = state("backend = 'tables'\nurl = 'tables://ada:hunter2@h'");
    let error = migrate_with(&config, Migrate::Apply, &registry).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(error.message(), "cannot open the backend at tables://ada:***@h: no right to create tables");
}

#[tokio::test]
async fn a_driver_that_is_replaced_takes_its_schema_along() {
    let applied = Arc::new(AtomicUsize::new(0));
    let registry = registry(&applied).with("tables", unopened);
    let reports = migrate_with(&state("backend = 'tables'"), Migrate::Apply, &registry).await.unwrap();
    assert_eq!(reports, [report("state", "tables", None)]);
}
