//! Drivers by the name that `backend` chooses them by.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> acteon_state::Result<()> {
//! # #[cfg(feature = "memory")] {
//! use std::sync::Arc;
//! use acteon_state::{OpenOptions, Registry, StateConfig, open_with};
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields, default)]
//! struct MyOptions {
//!     shards: u32,
//! }
//! impl Default for MyOptions {
//!     fn default() -> Self {
//!         Self { shards: 4 }
//!     }
//! }
//!
//! let registry = Registry::new().with("mydb", |driver| async move {
//!     driver.refuse(&["region", "table_name"])?;
//!     let options: MyOptions = driver.read_section()?; // [state.mydb]
//!     if options.shards == 0 {
//!         return Err(driver.error("mydb.shards", "must be at least 1").into());
//!     }
//!     Ok(Arc::new(acteon_state::memory::MemoryStore::default()) as Arc<dyn acteon_state::StateStore>)
//! });
//! let state = open_with(&StateConfig::new("mydb"), OpenOptions { registry, ..OpenOptions::default() }).await?;
//! # state.close().await?;
//! # } Ok(()) }
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use acteon_state_core::layer::metrics::StoreMetrics;
use acteon_state_core::{Result, StateStore};
use serde::de::DeserializeOwned;

use crate::config::node::{Node, join};
use crate::config::suggest::{closest, listed};
use crate::config::{ConfigError, Connect, ConnectionUrl, KEYS, Places, StateConfig, read};
use crate::drivers;
use crate::migrate::{Migrate, SchemaVersions};

/// A future on the heap.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

type Factory = Arc<dyn Fn(DriverConfig) -> BoxFuture<Result<Arc<dyn StateStore>>> + Send + Sync>;

type Migrator = Arc<dyn Fn(DriverConfig, Migrate) -> BoxFuture<Result<SchemaVersions>> + Send + Sync>;

/// The drivers that can be opened, by name.
#[derive(Clone)]
pub struct Registry {
    factories: BTreeMap<String, Factory>,
    /// Of the drivers that have a schema.
    migrators: BTreeMap<String, Migrator>,
}

/// What a driver is opened with: the part of `[state]` that is its business.
#[derive(Clone)]
pub struct DriverConfig {
    /// The name that it was chosen by.
    pub backend: String,
    /// Where the backend is.
    pub url: Option<ConnectionUrl>,
    /// What all keys are to begin with.
    pub prefix: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The table.
    pub table_name: Option<String>,
    /// Open without waiting for the backend, and connect in the background, without end: it may be down now.
    pub lazy: bool,
    /// Change nothing by opening, and nothing in the background: somebody only wants to know what the backend can do.
    pub inspect: bool,
    /// Where a driver counts what its backend bills, if metrics are wanted.
    pub metrics: Option<Arc<StoreMetrics>>,
    /// `[state.<backend>]`, empty where there is none.
    pub section: toml::Table,
    places: Places,
}

impl Registry {
    /// The drivers whose features are on.
    #[must_use]
    pub fn new() -> Self {
        drivers::register(Self { factories: BTreeMap::new(), migrators: BTreeMap::new() })
    }

    /// Adds a driver, or replaces the one of the same name.
    ///
    /// The factory opens a store, and fails with `Config` when its settings are wrong. Every setting that it does not use must
    /// be refused ([`DriverConfig::refuse`], [`DriverConfig::read_section`] with `deny_unknown_fields`), so that nobody
    /// believes it to be in force.
    #[must_use]
    pub fn with<F, O>(mut self, name: &str, factory: F) -> Self
    where
        F: Fn(DriverConfig) -> O + Send + Sync + 'static,
        O: Future<Output = Result<Arc<dyn StateStore>>> + Send + 'static,
    {
        self.factories.insert(name.to_owned(), Arc::new(move |config| Box::pin(factory(config))));
        // Those of a driver that is replaced are not its own.
        self.migrators.remove(name);
        self
    }

    /// Adds what brings the schema of a driver up to date, or says whether it is. Drivers without one have no schema.
    ///
    /// A driver that has one should do the same when it opens, or refuse to open.
    #[must_use]
    pub fn with_schema<F, O>(mut self, name: &str, migrator: F) -> Self
    where
        F: Fn(DriverConfig, Migrate) -> O + Send + Sync + 'static,
        O: Future<Output = Result<SchemaVersions>> + Send + 'static,
    {
        self.migrators.insert(name.to_owned(), Arc::new(move |config, how| Box::pin(migrator(config, how))));
        self
    }

    /// The names that `backend` can have.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.factories.keys().map(String::as_str)
    }

    /// Finds the factory of the chosen backend.
    pub(crate) fn find(&self, config: &StateConfig) -> Result<&Factory, ConfigError> {
        let name = config.backend.as_str();
        if KEYS.contains(&name) {
            let message = format!("`{name}` is a key of this section and cannot be the name of a backend");
            return Err(config.error("backend", message));
        }
        self.factories.get(name).ok_or_else(|| config.error("backend", self.unknown(name)))
    }

    /// What migrates the chosen backend, if it has a schema.
    pub(crate) fn migrator(&self, config: &StateConfig) -> Result<Option<&Migrator>, ConfigError> {
        self.find(config)?;
        Ok(self.migrators.get(&config.backend))
    }

    fn unknown(&self, name: &str) -> String {
        let available = match self.factories.len() {
            0 => "this build has no backends".to_owned(),
            _ => format!("available are {}", listed(self.names())),
        };
        if let Some(reason) = drivers::why_absent(name) {
            return format!("{reason}; {available}");
        }
        let known = self.names().chain(drivers::RESERVED);
        match closest(name, known) {
            Some(word) => format!("there is no backend `{name}`; did you mean `{word}`? {available}"),
            None => format!("there is no backend `{name}`; {available}"),
        }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.factories.keys()).finish()
    }
}

impl DriverConfig {
    pub(crate) fn new(config: &StateConfig) -> Self {
        Self {
            backend: config.backend.clone(),
            url: config.url.clone(),
            prefix: config.prefix.clone(),
            region: config.region.clone(),
            table_name: config.table_name.clone(),
            lazy: config.connect() == Connect::Lazy,
            inspect: false,
            metrics: None,
            section: config.sections.get(&config.backend).cloned().unwrap_or_default(),
            places: config.places.clone(),
        }
    }

    pub(crate) fn inspecting(self, inspect: bool) -> Self {
        Self { inspect, ..self }
    }

    pub(crate) fn lazily(self, lazy: bool) -> Self {
        Self { lazy, ..self }
    }

    pub(crate) fn counting(self, metrics: Option<Arc<StoreMetrics>>) -> Self {
        Self { metrics, ..self }
    }

    /// Makes a `T` of the driver's own section.
    ///
    /// # Errors
    /// `Config` with file, line and key of the first setting that is unknown, of another type or refused by `T`.
    pub fn read_section<T: DeserializeOwned>(&self) -> Result<T> {
        let path = join(&self.places.path, &self.backend);
        let node = Node::from_table(&self.section, &path, &self.places.origins);
        Ok(read(&node, &path)?)
    }

    /// Refuses keys of `[state]` that this driver does not use: `url`, `prefix`, `region`, `table_name`.
    ///
    /// # Errors
    /// `Config` with the place of the first of them that was set.
    pub fn refuse(&self, keys: &[&str]) -> Result<()> {
        let text = |field: &Option<String>| field.is_some();
        let set = [
            ("url", self.url.is_some()),
            ("prefix", text(&self.prefix)),
            ("region", text(&self.region)),
            ("table_name", text(&self.table_name)),
        ];
        match set.into_iter().find(|(key, set)| *set && keys.contains(key)) {
            None => Ok(()),
            Some((key, _)) => {
                let backend = &self.backend;
                Err(self
                    .error(key, format!("the backend \"{backend}\" has no {key}; remove it, or choose another backend"))
                    .into())
            }
        }
    }

    /// An error about a key below `[state]`, such as `url` or `mydb.shards`, that names the place where it was set.
    #[must_use]
    pub fn error(&self, key: &str, message: impl Into<String>) -> ConfigError {
        self.places.error(key, message)
    }
}

impl fmt::Debug for DriverConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriverConfig")
            .field("backend", &self.backend)
            .field("url", &self.url)
            .field("prefix", &self.prefix)
            .field("region", &self.region)
            .field("table_name", &self.table_name)
            .field("lazy", &self.lazy)
            .field("inspect", &self.inspect)
            .field("section", &crate::config::redacted_table(&self.section))
            .finish()
    }
}
