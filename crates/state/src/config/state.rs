//! The section `[state]`: which backend, where it is, and what is asked of it.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::config::de::Sourced;
use crate::config::degradation::{DegradationPolicy, LOCK_KINDS};
use crate::config::error::ConfigError;
use crate::config::layers::LayersConfig;
use crate::config::node::{Origins, join};
use crate::config::secret::{ConnectionUrl, redacted_table};
use crate::config::suggest::{closest, listed};

/// The backend when none is named: it needs nothing, so that a first start needs nothing.
pub const BACKEND_DEFAULT: &str = "memory";

/// The keys of `[state]` apart from the section of the backend. No backend can have one of these names.
pub(crate) const KEYS: [&str; 10] =
    ["backend", "url", "prefix", "region", "table_name", "require", "optional", "connect", "lock", "layers"];

/// When to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connect {
    /// At the start, which waits for it: for the driver's connect timeout at most.
    Eager,
    /// In the background, without end. The start does not wait.
    Lazy,
}

/// The section `[state]`.
///
/// It is read by serde: through a [`Document`](super::Document), so that errors name file, line and key, or by any other
/// deserializer. It can also be made in code:
///
/// ```
/// use acteon_state::config::StateConfig;
/// let config = StateConfig { prefix: Some("blue".to_owned()), ..StateConfig::new("memory") };
/// assert_eq!(config.backend, "memory");
/// ```
#[derive(Clone)]
pub struct StateConfig {
    /// `memory`, `redis`, or the name of a driver that the application registered.
    pub backend: String,
    /// Where the backend is.
    pub url: Option<ConnectionUrl>,
    /// What all keys begin with.
    pub prefix: Option<String>,
    /// The region of the backend, for those that have one.
    pub region: Option<String>,
    /// The table, for backends that need its name.
    pub table_name: Option<String>,
    /// Capabilities without which the application does not start.
    pub require: Vec<String>,
    /// Whether to start, and count as ready, while the backend is down.
    pub optional: bool,
    /// When to connect, if not as [`StateConfig::connect`] says.
    pub connect: Option<Connect>,
    /// Time limits, retries and degradation.
    pub layers: LayersConfig,
    /// Where locks are kept, if not where the data is. Has no `lock`, `require` or degradation of its own.
    pub lock: Option<Box<StateConfig>>,
    /// Options of backends: `[state.redis]`. Only that of the chosen backend is allowed.
    pub sections: BTreeMap<String, toml::Table>,
    /// Where the settings were made, for errors that are found after reading; `Places::default()` for settings made in code.
    pub places: Places,
}

/// Where settings were made.
#[derive(Clone, Debug)]
pub struct Places {
    /// The section itself: `state`, or what the application calls it.
    pub(crate) path: String,
    pub(crate) origins: Origins,
}

impl Default for Places {
    fn default() -> Self {
        Self { path: "state".to_owned(), origins: Origins::new() }
    }
}

impl Places {
    /// An error about a key of the section.
    pub(crate) fn error(&self, key: &str, message: impl Into<String>) -> ConfigError {
        let path = join(&self.path, key);
        let error = ConfigError::new(message);
        // A default has no place of its own; the section that could override it has.
        let origin = self.origins.get(&path).or_else(|| self.origins.get(&self.path));
        error.at(&path, origin)
    }
}

impl StateConfig {
    /// A backend with its defaults.
    #[must_use]
    pub fn new(backend: impl Into<String>) -> Self {
        Self {
            backend: backend.into(),
            url: None,
            prefix: None,
            region: None,
            table_name: None,
            require: Vec::new(),
            optional: false,
            connect: None,
            layers: LayersConfig::default(),
            lock: None,
            sections: BTreeMap::new(),
            places: Places::default(),
        }
    }

    /// When to connect: eagerly, unless the backend is optional.
    #[must_use]
    pub fn connect(&self) -> Connect {
        self.connect.unwrap_or(if self.optional { Connect::Lazy } else { Connect::Eager })
    }

    /// What to do without an answer, by kind of key. What `open` means, the application knows.
    #[must_use]
    pub const fn degradation(&self) -> &DegradationPolicy {
        &self.layers.degradation
    }

    /// Checks that every kind with a degradation of its own is one that the application asks the policy about: kinds are open,
    /// so only the application can tell a misspelt one.
    ///
    /// # Errors
    /// The first kind that is not among `kinds`.
    pub fn check_degradation_kinds(&self, kinds: &[&str]) -> Result<(), ConfigError> {
        let foreign = |kind: &&str| !kinds.contains(kind) && !LOCK_KINDS.contains(kind);
        let Some(kind) = self.degradation().kinds().find(foreign) else {
            return Ok(());
        };
        let advice = match closest(kind, kinds.iter().copied()) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("there are {}", listed(kinds.iter().copied())),
        };
        let message = format!("nothing asks what to do for the kind `{kind}`; {advice}");
        Err(self.error(&format!("layers.degradation.{kind}"), message))
    }

    /// An error about one of its keys, such as `layers.timeout`, that names the place where it was set.
    #[must_use]
    pub fn error(&self, key: &str, message: impl Into<String>) -> ConfigError {
        self.places.error(key, message)
    }

    /// Checks what does not depend on the registered drivers.
    ///
    /// # Errors
    /// The first setting that contradicts another one.
    pub fn check(&self) -> Result<(), ConfigError> {
        if let Some(name) = self.sections.keys().find(|name| **name != self.backend) {
            return Err(self.foreign_section(name));
        }
        if let Some((key, message)) = self.layers.fault() {
            return Err(self.error(&join("layers", key), message));
        }
        self.lock.as_deref().map_or(Ok(()), Self::check_as_lock)
    }

    fn check_as_lock(&self) -> Result<(), ConfigError> {
        let fault = if self.lock.is_some() {
            ("lock", "locks are kept in one place: this section cannot have a lock section of its own")
        } else if !self.require.is_empty() {
            ("require", "list what is required of locks in the section around this one")
        } else if !self.layers.degradation.is_default() {
            ("layers.degradation", "locks only fail closed; remove this table")
        } else if !self.layers.fallback.is_default() {
            ("layers.fallback", "locks only fail closed; remove this table")
        } else {
            return self.check();
        };
        Err(self.error(fault.0, fault.1))
    }

    fn foreign_section(&self, name: &str) -> ConfigError {
        let (path, backend) = (&self.places.path, &self.backend);
        let known = ["lock", "layers", backend];
        let advice = match closest(name, known) {
            Some(word) => format!("did you mean [{path}.{word}]?"),
            None => format!("remove it, or set backend = \"{name}\""),
        };
        self.error(name, format!("[{path}.{name}] is not a section of the chosen backend, \"{backend}\"; {advice}"))
    }
}

impl Default for StateConfig {
    fn default() -> Self {
        Self::new(BACKEND_DEFAULT)
    }
}

impl fmt::Debug for StateConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateConfig")
            .field("backend", &self.backend)
            .field("url", &self.url)
            .field("prefix", &self.prefix)
            .field("region", &self.region)
            .field("table_name", &self.table_name)
            .field("require", &self.require)
            .field("optional", &self.optional)
            .field("connect", &self.connect())
            .field("layers", &self.layers)
            .field("lock", &self.lock)
            .field("sections", &self.sections.values().map(redacted_table).collect::<Vec<_>>())
            .finish()
    }
}

impl Serialize for StateConfig {
    /// What is in force, to be shown: secrets are hidden, so it does not read back.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("backend", &self.backend)?;
        if let Some(url) = &self.url {
            map.serialize_entry("url", url)?;
        }
        for (key, value) in [("prefix", &self.prefix), ("region", &self.region), ("table_name", &self.table_name)] {
            if let Some(value) = value {
                map.serialize_entry(key, value)?;
            }
        }
        if !self.require.is_empty() {
            map.serialize_entry("require", &self.require)?;
        }
        map.serialize_entry("optional", &self.optional)?;
        map.serialize_entry("connect", &self.connect())?;
        for (backend, section) in &self.sections {
            map.serialize_entry(backend, &redacted_table(section))?;
        }
        if let Some(lock) = &self.lock {
            map.serialize_entry("lock", lock)?;
        }
        if self.layers != LayersConfig::default() {
            map.serialize_entry("layers", &self.layers)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for StateConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Sourced { value: Bare(mut config), path, origins } = Sourced::deserialize(deserializer)?;
        if let Some(path) = path {
            config.places = Places { path, origins };
        }
        Ok(config)
    }
}

/// The settings without their places.
struct Bare(StateConfig);

impl<'de> Deserialize<'de> for Bare {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(StateVisitor).map(Self)
    }
}

struct StateVisitor;

impl<'de> Visitor<'de> for StateVisitor {
    type Value = StateConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of state settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StateConfig, A::Error> {
        let mut config = StateConfig::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "backend" => config.backend = map.next_value()?,
                "url" => config.url = map.next_value()?,
                "prefix" => config.prefix = map.next_value()?,
                "region" => config.region = map.next_value()?,
                "table_name" => config.table_name = map.next_value()?,
                "require" => config.require = map.next_value()?,
                "optional" => config.optional = map.next_value()?,
                "connect" => config.connect = map.next_value()?,
                "lock" => config.lock = map.next_value()?,
                "layers" => config.layers = map.next_value()?,
                name => {
                    let section = map.next_value_seed(Section { name })?;
                    config.sections.insert(key, section);
                }
            }
        }
        Ok(config)
    }
}

/// Reads the section of a backend; anything else under its name is a misspelt key.
struct Section<'a> {
    name: &'a str,
}

impl<'de> DeserializeSeed<'de> for Section<'_> {
    type Value = toml::Table;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<toml::Table, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::Table(table) => Ok(table),
            _ => Err(serde::de::Error::unknown_field(self.name, &KEYS)),
        }
    }
}
