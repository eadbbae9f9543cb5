//! Bringing the tables of a backend up to date, apart from starting an application.
//!
//! A backend whose driver keeps a schema sees to it when it is opened, as far as its settings let it. This is for the case
//! where they do not: where the application's role may not create tables, and another one does so at its deployment.
//!
//! # Failure
//! As for [`open`](crate::open()), whatever `optional` says. A driver migrates in one step or not at all; with locks on another
//! backend, one of two may be done when the other fails. Repeating is safe.

use acteon_state_core::Result;

use crate::config::StateConfig;
use crate::open::explain;
use crate::registry::{DriverConfig, Registry};

/// Whether to change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migrate {
    /// Bring the schema up to date.
    Apply,
    /// Only say what there would be to do.
    Check,
}

/// From which version of a schema to which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaVersions {
    /// The version that was found; 0 when there was no schema.
    pub from: u32,
    /// The version that this build needs.
    pub to: u32,
}

/// What there was to do for one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaReport {
    /// The section that chooses it: `state`, or `state.lock` for locks that are kept elsewhere.
    pub section: String,
    /// Its name.
    pub backend: String,
    /// Its versions; `None` where there is no schema, and hence nothing to migrate.
    pub schema: Option<SchemaVersions>,
}

impl SchemaReport {
    /// Whether something was, or is, to do.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.schema.is_some_and(|SchemaVersions { from, to }| from < to)
    }
}

/// Migrates the backend of the data, and that of the locks where it is another one; or only checks them.
///
/// # Errors
/// `Config` for wrong settings and for a schema that is newer than this build; otherwise the error by which the backend was
/// not reached or refused.
pub async fn migrate(config: &StateConfig, how: Migrate) -> Result<Vec<SchemaReport>> {
    migrate_with(config, how, &Registry::new()).await
}

/// [`migrate`](migrate()) with drivers of the application's own.
///
/// # Errors
/// As [`migrate`](migrate()).
pub async fn migrate_with(config: &StateConfig, how: Migrate, registry: &Registry) -> Result<Vec<SchemaReport>> {
    config.check()?;
    let backends: Vec<&StateConfig> = [Some(config), config.lock.as_deref()].into_iter().flatten().collect();
    // All are looked up before one is changed: a misspelt name should not leave half of the work done.
    for backend in &backends {
        registry.migrator(backend)?;
    }
    let mut reports = Vec::with_capacity(backends.len());
    for backend in backends {
        let schema = match registry.migrator(backend)? {
            None => None,
            Some(migrator) => {
                let migrated = migrator(DriverConfig::new(backend), how).await;
                Some(migrated.map_err(|error| explain(backend, error, ""))?)
            }
        };
        let section = backend.places.path.clone();
        reports.push(SchemaReport { section, backend: backend.backend.clone(), schema });
    }
    Ok(reports)
}
