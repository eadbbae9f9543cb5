//! From settings to an open [`State`].
//!
//! # How it works
//! For the data, and for the locks where they are elsewhere: the driver is found by name, opens its store, and is wrapped in
//! layers; then the required capabilities are checked. What cannot get better by waiting (wrong settings, wrong credentials, a
//! missing capability) is an error in any case; a backend that does not answer is one by these rules:
//!
//! | `connect` | required | `optional = true` |
//! |---|---|---|
//! | `eager` | the start waits for the backend, and fails without | the start waits, and goes on without (default of `optional` is lazy) |
//! | `lazy` | the start does not wait; calls fail until the backend is up | the same, and the application counts as ready meanwhile |
//!
//! A driver that does not wait has not asked its backend anything: wrong credentials then show as failing calls, and it
//! declares only what every server of its kind can do.

use std::sync::Arc;

use acteon_state_core::layer::degrade::MakeStandIn;
use acteon_state_core::layer::metrics::StoreMetrics;
use acteon_state_core::{Error, ErrorKind, Result, State, StateStore};
#[cfg(feature = "memory")]
use acteon_state_memory::{MemoryConfig, MemoryStore};

use crate::config::{ConfigError, Connect, Degradation, StateConfig};
use crate::registry::{DriverConfig, Registry};

/// Capabilities of locks, which the store of the locks must have.
const OF_LOCKS: [&str; 3] = ["locks", "shared_locks", "semaphores"];

/// What to open a [`State`] with besides its settings.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Counts and times calls into these metrics.
    pub metrics: Option<Arc<StoreMetrics>>,
    /// The drivers to choose from.
    pub registry: Registry,
    /// Only look at the backend: change no schema, remove nothing that has expired. For asking what it can do; an application
    /// that works with it would fill it up.
    pub inspect: bool,
}

/// Opens the state that `config` describes, with the drivers of this build. Close it by [`State::close`].
///
/// # Errors
/// `Config` for wrong settings and for missing required capabilities, naming the place; otherwise the error by which the
/// backend did not open.
pub async fn open(config: &StateConfig) -> Result<State> {
    open_with(config, OpenOptions::default()).await
}

/// [`open`] with metrics, and with drivers of the application's own.
///
/// # Errors
/// As [`open`].
pub async fn open_with(config: &StateConfig, options: OpenOptions) -> Result<State> {
    config.check()?;
    // Both are looked up before either is connected: a misspelt name should not have to wait for a network.
    options.registry.find(config)?;
    if let Some(lock) = &config.lock {
        options.registry.find(lock)?;
    }
    let store = open_store(config, &options).await?;
    let state = match &config.lock {
        None => State::new(store),
        Some(lock) => match open_store(lock, &options).await {
            Ok(locks) => State::with_locks(store, locks),
            Err(error) => {
                close_quietly(&State::new(store)).await;
                return Err(error);
            }
        },
    };
    if let Err(error) = require(config, &state) {
        close_quietly(&state).await;
        return Err(error);
    }
    Ok(state)
}

impl StateConfig {
    /// [`open`] as a method.
    ///
    /// # Errors
    /// As [`open`].
    pub async fn open(&self) -> Result<State> {
        open(self).await
    }
}

async fn open_store(config: &StateConfig, options: &OpenOptions) -> Result<Arc<dyn StateStore>> {
    let driver = match open_driver(config, options, config.connect() == Connect::Lazy).await {
        Err(error) if config.optional && error.kind().is_transient() => {
            let backend = &config.backend;
            tracing::warn!(backend, %error, "the backend does not answer; starting without it, since it is optional");
            open_driver(config, options, true).await
        }
        opened => opened,
    };
    let driver = driver.map_err(|error| {
        // Whoever only looks has nothing to start.
        let hint = if error.kind().is_transient() && !options.inspect {
            format!("; to start without it, set {}.optional = true", config.places.path)
        } else {
            String::new()
        };
        explain(config, error, &hint)
    })?;
    let mut layers = config.layers.layers(driver.capabilities().shared, options.metrics.clone());
    if let (Some(degrade), Some(kind)) = (&mut layers.degrade, config.degradation().first_with(Degradation::Local)) {
        degrade.stand_in = Some(stand_in(config, kind, driver.capabilities().value_bytes_max)?);
    }
    Ok(layers.wrap(driver))
}

async fn open_driver(config: &StateConfig, options: &OpenOptions, lazy: bool) -> Result<Arc<dyn StateStore>> {
    let driver = DriverConfig::new(config).lazily(lazy);
    options.registry.find(config)?(driver.inspecting(options.inspect).counting(options.metrics.clone())).await
}

/// What stands in for `local` kinds: the memory driver, with the bound that is configured.
#[cfg(feature = "memory")]
fn stand_in(config: &StateConfig, _kind: &str, value_bytes_max: u64) -> Result<MakeStandIn> {
    let default = MemoryConfig::default();
    let memory = MemoryConfig {
        memory_bytes_max: Some(config.layers.fallback.local_bytes_max.0),
        value_bytes_max: value_bytes_max.min(default.value_bytes_max),
        ..default
    };
    let make = move || Ok(Arc::new(MemoryStore::open(&memory)?) as Arc<dyn StateStore>);
    // Once now, so that settings which it cannot use stop the start.
    make()?;
    Ok(MakeStandIn::new(make))
}

#[cfg(not(feature = "memory"))]
fn stand_in(config: &StateConfig, kind: &str, _value_bytes_max: u64) -> Result<MakeStandIn> {
    let reason = "`local` needs the memory driver, which was not compiled in: build with `--features memory`";
    Err(config.error(&format!("layers.degradation.{kind}"), reason).into())
}

/// Says what was being opened, and what to do about it.
pub(crate) fn explain(config: &StateConfig, error: Error, hint: &str) -> Error {
    if error.kind() == ErrorKind::Config {
        return placed(config, error);
    }
    let at = config.url.as_ref().map(|url| format!(" at {url}")).unwrap_or_default();
    let message = format!("cannot open the backend{at}: {}{hint}", error.message());
    Error::new(error.kind(), message).on_backend(config.backend.clone()).with_source(error)
}

/// Adds the place to a driver's own `Config` error, unless it came with one: whoever opens the driver may have settings of his own for it.
///
/// A driver begins its reasons with the name of the option, which is a key of `[state]` or of the driver's own section.
fn placed(config: &StateConfig, error: Error) -> Error {
    let is_placed = |source: &(dyn std::error::Error + 'static)| source.is::<ConfigError>();
    if std::error::Error::source(&error).is_some_and(is_placed) {
        return error;
    }
    let path = &config.places.path;
    let says = |place: String| error.message().starts_with(&place) || error.message().contains(&format!(" {place}"));
    if says(format!("{path}.")) || says(format!("({path}.")) {
        return error;
    }
    let message = error.message();
    let word = message.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
    let in_section = config.sections.get(&config.backend).is_some_and(|section| section.contains_key(word));
    let (key, known) = match word {
        "url" | "prefix" | "region" | "table_name" => (word.to_owned(), true),
        _ if in_section => (format!("{}.{word}", config.backend), true),
        _ if config.url.is_some() => ("url".to_owned(), false),
        _ => ("backend".to_owned(), false),
    };
    // "state.url: url: …" would say it twice.
    let reason = message.strip_prefix(word).and_then(|rest| rest.strip_prefix(": ")).filter(|_| known);
    config.error(&key, reason.unwrap_or(message)).into()
}

fn require(config: &StateConfig, state: &State) -> Result<()> {
    for (at, name) in config.require.iter().enumerate() {
        let (store, backend) = if OF_LOCKS.contains(&name.as_str()) {
            (state.lock_store(), config.lock.as_deref().unwrap_or(config))
        } else {
            (state.store(), config)
        };
        let missing = store.capabilities().require([name.as_str()]).err();
        if let Some(error) = missing {
            let reason = error.message().trim_start_matches("require: ");
            // A driver that has not connected yet declares only what every server of its kind has.
            let hint = if backend.optional || backend.connect() == Connect::Lazy {
                "; if that depends on the server, it is not known while that is down, which optional = true and connect = \
                 \"lazy\" allow"
            } else {
                ""
            };
            let key = format!("require[{at}]");
            return Err(config.error(&key, format!("{reason} (backend \"{}\"){hint}", backend.backend)).into());
        }
    }
    Ok(())
}

/// Closes what was opened before something else failed; that failure is the one to report.
async fn close_quietly(state: &State) {
    if let Err(error) = state.close().await {
        tracing::debug!(%error, "closing after a failed start");
    }
}
