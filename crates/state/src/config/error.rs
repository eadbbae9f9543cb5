//! What is wrong with a configuration, where it says so, and what to write instead.

use std::fmt;
use std::sync::Arc;

use serde::de;

use crate::config::suggest::closest;

/// Where a setting was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of a file.
    File {
        /// The file's name, as it was given.
        name: Arc<str>,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable.
    Env(Arc<str>),
    /// Something else that was set by hand, such as `--port`.
    Set(Arc<str>),
}

impl Origin {
    /// Whether values from here are texts, whatever their type is meant to be.
    pub(crate) const fn is_text_only(&self) -> bool {
        !matches!(self, Self::File { .. })
    }

    /// Writes it as one text, for its way through serde.
    pub(crate) fn to_text(&self) -> String {
        match self {
            Self::File { name, line } => format!("f{line} {name}"),
            Self::Env(variable) => format!("e{variable}"),
            Self::Set(by) => format!("s{by}"),
        }
    }

    /// Reads what [`to_text`](Self::to_text) wrote.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let rest = text.get(1..)?;
        match text.as_bytes()[0] {
            b'f' => {
                let (line, name) = rest.split_once(' ')?;
                Some(Self::File { name: name.into(), line: line.parse().ok()? })
            }
            b'e' => Some(Self::Env(rest.into())),
            b's' => Some(Self::Set(rest.into())),
            _ => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Env(variable) => write!(f, "environment variable {variable}"),
            Self::Set(by) => f.write_str(by),
        }
    }
}

/// A configuration that cannot be used.
///
/// It reads `acteon.toml:7: state.url: what is wrong; what to do`, or
/// `environment variable ACTEON__STATE__URL (state.url): …`.
/// It never contains the value of a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigError(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    origin: Option<Origin>,
    key: Option<String>,
    message: String,
    suggestion: Option<&'static str>,
    known: Option<&'static [&'static str]>,
}

impl ConfigError {
    /// An error that does not say yet where it is.
    pub fn new(message: impl Into<String>) -> Self {
        Self(Box::new(Inner { origin: None, key: None, message: message.into(), suggestion: None, known: None }))
    }

    /// Where the setting was made, if it was made anywhere.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        self.0.origin.as_ref()
    }

    /// The key with its tables: `state.url`.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// What is wrong and what to do, without the place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// For an unknown key: the keys that there are.
    #[must_use]
    pub fn known_keys(&self) -> Option<&'static [&'static str]> {
        self.0.known
    }

    /// Says where it is, unless an inner place has said so.
    #[must_use]
    pub fn at(mut self, key: &str, origin: Option<&Origin>) -> Self {
        if self.0.key.is_none() && !key.is_empty() {
            self.0.key = Some(key.to_owned());
        }
        if self.0.origin.is_none() {
            self.0.origin = origin.cloned();
        }
        self
    }

    /// Whether somebody has said which key it is about.
    pub(crate) fn is_placed(&self) -> bool {
        self.0.key.is_some()
    }

    /// Hides a secret wherever the message quotes it.
    pub(crate) fn without(mut self, secret: &str) -> Self {
        if !secret.is_empty() && self.0.message.contains(secret) {
            self.0.message = self.0.message.replace(secret, crate::config::secret::HIDDEN);
        }
        self
    }

    fn unknown(what: &str, written: &str, known: &'static [&'static str]) -> Self {
        let suggestion = closest(written, known.iter().copied());
        let message = match (suggestion, known) {
            (Some(_), _) => format!("unknown {what} `{written}`"),
            (None, []) => format!("unknown {what} `{written}`; there are none here"),
            (None, known) => format!("unknown {what} `{written}`; there are {}", known.join(", ")),
        };
        let mut error = Self::new(message);
        (error.0.suggestion, error.0.known) = (suggestion, Some(known));
        error
    }

    /// What was probably meant, spelt as the place asks for: in the environment a key is the end of a variable's name.
    fn suggested(&self) -> Option<String> {
        let word = self.0.suggestion?;
        match &self.0.origin {
            Some(Origin::Env(variable)) if self.0.message.starts_with("unknown key") => {
                // The key may be one of the tables on the way: `ACTEON__STAET__URL`.
                let depth = self.0.key.as_ref()?.split(['.', '[']).count();
                let mut segments: Vec<String> = variable.split("__").map(str::to_owned).collect();
                *segments.get_mut(depth)? = word.to_uppercase();
                Some(segments.join("__"))
            }
            _ => Some(word.to_owned()),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { origin, key, message, .. } = &*self.0;
        match (origin, key) {
            (Some(origin @ Origin::File { .. }), Some(key)) => write!(f, "{origin}: {key}: ")?,
            (Some(origin), Some(key)) => write!(f, "{origin} ({key}): ")?,
            (Some(origin), None) => write!(f, "{origin}: ")?,
            (None, Some(key)) => write!(f, "{key}: ")?,
            (None, None) => {}
        }
        f.write_str(message)?;
        match self.suggested() {
            Some(word) => write!(f, "; did you mean `{word}`?"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for ConfigError {
    /// As `Display`: what `fn main() -> Result<…>` prints is for the person who wrote the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for acteon_state_core::Error {
    fn from(error: ConfigError) -> Self {
        Self::config(error.to_string())
    }
}

impl de::Error for ConfigError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(expected_but_found(expected, &found))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(expected_but_found(expected, &found))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::unknown("value", variant, expected)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::unknown("key", field, expected)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("the key `{field}` is missing"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("the key `{field}` is given twice"))
    }
}

/// In words for people who know TOML, not the types of Rust or the terms of serde.
fn expected_but_found(expected: &dyn de::Expected, found: &de::Unexpected<'_>) -> String {
    let expected = match expected.to_string().as_str() {
        "u8" => whole_number(0, u64::from(u8::MAX)),
        "u16" => whole_number(0, u64::from(u16::MAX)),
        "u32" => whole_number(0, u64::from(u32::MAX)),
        "u64" | "usize" => "a whole number from 0".to_owned(),
        "i32" => whole_number(i32::MIN, i32::MAX),
        "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        other => other.to_owned(),
    };
    match found {
        de::Unexpected::Seq => format!("expected {expected}, found a list"),
        de::Unexpected::Map => format!("expected {expected}, found a table"),
        found => format!("expected {expected}, found {found}"),
    }
}

fn whole_number(least: impl fmt::Display, most: impl fmt::Display) -> String {
    format!("a whole number from {least} to {most}")
}

#[cfg(test)]
mod tests {
    use serde::de::Error as _;

    use super::{ConfigError, Origin};

    #[test]
    fn origins_pass_through_text() {
        for origin in [
            Origin::File { name: "a b.toml".into(), line: 7 },
            Origin::Env("ACTEON__A".into()),
            Origin::Set("--port".into()),
        ] {
            assert_eq!(Origin::from_text(&origin.to_text()), Some(origin));
        }
        assert_eq!(Origin::from_text(""), None);
    }

    #[test]
    fn suggestions_are_spelt_as_the_place_asks_for() {
        let error = ConfigError::unknown_field("ulr", &["url", "prefix"]);
        let file = Origin::File { name: "a.toml".into(), line: 3 };
        let shown = error.clone().at("state.ulr", Some(&file)).to_string();
        assert_eq!(shown, "a.toml:3: state.ulr: unknown key `ulr`; did you mean `url`?");
        let shown = error.at("state.ulr", Some(&Origin::Env("ACTEON__STATE__ULR".into()))).to_string();
        assert_eq!(
            shown,
            "environment variable ACTEON__STATE__ULR (state.ulr): unknown key `ulr`; did you mean `ACTEON__STATE__URL`?"
        );
    }
}
