//! Settings from a file, the environment and the command line, with the place of each.
//!
//! # Guarantees
//! Later sources win: file, then environment, then what is [`set`](Document::set) by hand. Every error names the file and
//! line, the variable or the option, and the key. A secret is never part of an error, of `Debug`, or of a log line.
//!
//! # How it works
//! All sources are merged into one tree in which each value knows its origin. Types are read from the tree by serde; types
//! that refuse unknown fields (`#[serde(deny_unknown_fields)]`) thereby refuse misspelt keys and misspelt variables alike.
//! `#[serde(flatten)]` hides from serde which keys are known and should not be used.
//!
//! # Secrets in files
//! A key that holds a secret ([`is_secret_key`](super::is_secret_key): `url`, `password`, `…_token`, …) can be given as
//! `password_file = "/run/secrets/db"` instead; the file is read when the settings are, and white space around its content
//! is cut off.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::config::de;
use crate::config::env::{self, ENV_PREFIX};
use crate::config::error::{ConfigError, Origin};
use crate::config::node::{self, Node, Origins, Value};

/// Settings with their origins.
///
/// ```
/// use acteon_state::config::{Document, StateConfig};
///
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Settings {
///     state: StateConfig,
/// }
///
/// let mut document = Document::parse("app.toml", "[state]\nbackend = \"memory\"")?;
/// document.overlay([("ACTEON__STATE__PREFIX".to_owned(), "blue".to_owned())])?;
/// let settings: Settings = document.read()?;
/// assert_eq!(settings.state.prefix.as_deref(), Some("blue"));
///
/// let document = Document::parse("app.toml", "[state]\nbakend = \"memory\"")?;
/// let error = document.read::<Settings>().err().expect("the key is misspelt");
/// assert_eq!(error.to_string(), "app.toml:2: state.bakend: unknown key `bakend`; did you mean `backend`?");
/// # Ok::<(), acteon_state::config::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Document {
    root: Node,
}

impl Document {
    /// No settings at all: what environment and command line then add to.
    #[must_use]
    pub fn empty() -> Self {
        Self { root: Node::table() }
    }

    /// Reads TOML text, called `name` in errors.
    ///
    /// # Errors
    /// What is not TOML, with its line.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        node::parse(name, text).map(|root| Self { root })
    }

    /// Reads a TOML file.
    ///
    /// # Errors
    /// A file that cannot be read or is not TOML.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::new(format!("cannot read the configuration {}: {error}", path.display())))?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Adds those of these variables that begin with `ACTEON__`; see the [module](super::env) for how they are spelt.
    ///
    /// # Errors
    /// A variable that cannot be a setting, or two that make the same one. Misspelt names are found by [`read`](Self::read).
    pub fn overlay(&mut self, variables: impl IntoIterator<Item = (String, String)>) -> Result<(), ConfigError> {
        // In a fixed order, so that of several faults always the same one is reported.
        let mut variables: Vec<_> = variables.into_iter().collect();
        variables.sort();
        variables.iter().try_for_each(|(variable, text)| env::overlay(&mut self.root, variable, text))
    }

    /// Adds the variables of this process.
    ///
    /// # Errors
    /// As [`overlay`](Self::overlay), and a variable of ours that is not Unicode.
    pub fn overlay_env(&mut self) -> Result<(), ConfigError> {
        self.overlay_os(std::env::vars_os())
    }

    fn overlay_os(&mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<(), ConfigError> {
        let ours = variables.into_iter().filter_map(|(variable, text)| {
            let variable = variable.into_string().ok().filter(|variable| variable.starts_with(ENV_PREFIX))?;
            let origin = Origin::Env(Arc::from(variable.as_str()));
            let text = text.into_string().map_err(|_| ConfigError::new("not Unicode").at("", Some(&origin)));
            Some(text.map(|text| (variable, text)))
        });
        let ours = ours.collect::<Result<Vec<_>, _>>()?;
        self.overlay(ours)
    }

    /// Sets one key, such as `server.port`, by something that errors call `by`, such as `--port`.
    ///
    /// # Errors
    /// A key inside of something that is not a table.
    pub fn set(&mut self, key: &str, by: &str, value: impl Into<toml::Value>) -> Result<(), ConfigError> {
        let mut node = Node::from_value(&value.into(), key, &Origins::new());
        node.origin = Some(Origin::Set(by.into()));
        let segments: Vec<&str> = key.split('.').collect();
        let (last, tables) = segments.split_last().unwrap_or((&"", &[]));
        env::set(&mut self.root, tables, last, node).map_err(|error| error.at(key, None))
    }

    /// Makes a `T` of all settings.
    ///
    /// # Errors
    /// The first setting that is unknown, of another type or otherwise refused by `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        de::read(&self.root, "")
    }

    /// Makes a `T` of one table, such as `state`; `None` when there is no such table.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_section<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ConfigError> {
        self.root.find(key).map(|node| de::read(node, key)).transpose()
    }

    /// Where a key was set; `None` when it was not.
    #[must_use]
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.root.find(key)?.origin.as_ref()
    }

    /// An error about this key that names its place, for checks that types cannot make.
    #[must_use]
    pub fn error(&self, key: &str, message: impl Into<String>) -> ConfigError {
        ConfigError::new(message).at(key, self.origin(key))
    }
}

impl fmt::Debug for Document {
    /// Keys and origins, without values: any of them could be a secret of somebody else's making.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut origins = Origins::new();
        self.root.collect_origins("", &mut origins);
        let tables = |path: &String| !matches!(self.root.find(path).map(|node| &node.value), Some(Value::Table(_)));
        let settings = origins.iter().filter(|(path, _)| tables(path));
        f.debug_map().entries(settings.map(|(path, origin)| (path, origin.to_string()))).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::any;
    use proptest::proptest;

    use super::Document;
    use crate::config::StateConfig;

    #[cfg(unix)]
    #[test]
    fn a_variable_of_ours_that_is_not_unicode_is_refused_and_others_are_left_alone() {
        use std::ffi::OsString;
        use std::os::unix::ffi::OsStringExt as _;

        let broken = || OsString::from_vec(vec![0xff]);
        let mut document = Document::empty();
        document.overlay_os([("OTHER".into(), broken()), (broken(), "x".into())]).unwrap();
        let error = document.overlay_os([("ACTEON__STATE__URL".into(), broken())]).unwrap_err();
        assert_eq!(error.to_string(), "environment variable ACTEON__STATE__URL: not Unicode");
    }

    /// Pieces that settings are made of, so that random text gets past the first character.
    const PIECES: &str =
        r"(\[|\]|\.|=|\n|'|,|\{|\}|state|url|layers|timeout|retry|lock|redis|password_file|5s|1|true|off| ){0,40}";

    proptest! {
        #[test]
        fn reading_any_text_ends_in_settings_or_an_error(text in PIECES, noise in any::<String>()) {
            for text in [text, noise] {
                if let Ok(document) = Document::parse("any.toml", &text) {
                    let _ = document.read::<BTreeMap<String, StateConfig>>().map(|all| all.values().all(|one| one.check().is_ok()));
                }
            }
        }

        #[test]
        fn reading_any_variables_ends_in_settings_or_an_error(name in "[A-Z0-9_]{0,12}", text in any::<String>()) {
            let mut document = Document::parse("any.toml", "[[state.jobs]]\na = 1\n[state.layers]\ntimeout = '1s'").unwrap();
            for variable in [format!("ACTEON__{name}"), format!("ACTEON__STATE__{name}"), format!("ACTEON__STATE__JOBS__{name}")] {
                let _ = document.overlay([(variable, text.clone())]);
            }
            let _ = document.read::<BTreeMap<String, StateConfig>>();
        }
    }
}
