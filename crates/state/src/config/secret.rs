//! Texts that do not print themselves.
//!
//! # Guarantees
//! `Debug`, `Display` and `Serialize` of these types never show a password. A URL shows everything else, since that is what
//! one looks for in a log; where it is unclear what is a password, too much is hidden rather than too little.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// What is shown in place of a secret.
pub(crate) const HIDDEN: &str = "***";

/// Names of keys that hold a secret, alone or as the last word: `password`, `sentinel_password`.
const SECRET_WORDS: [&str; 6] = ["url", "password", "passphrase", "secret", "token", "credentials"];

/// Whether the key of this name holds a secret: its value is not shown in errors, and may come from a `*_file`.
#[must_use]
pub fn is_secret_key(key: &str) -> bool {
    SECRET_WORDS.contains(&key.rsplit('_').next().unwrap_or(key))
}

/// A password or key.
///
/// ```
/// use acteon_state::config::Secret;
/// let secret = Secret::new("hunter2");
/// assert_eq!(format!("{secret} {secret:?}"), "*** ***");
/// assert_eq!(secret.expose(), "hunter2");
/// ```
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a text into custody.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that uses it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

/// Where a backend is: a URL that may hold a password, and shows the rest.
///
/// ```
/// use acteon_state::config::ConnectionUrl;
/// let url = ConnectionUrl::new("rediss://ada:hunter2@cache.example:6380/1");
/// assert_eq!(url.to_string(), "rediss://ada:***@cache.example:6380/1");
/// assert_eq!(url.scheme(), Some("rediss"));
/// ```
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ConnectionUrl(String);

impl ConnectionUrl {
    /// Takes a URL into custody. It is not checked here: each driver has its own grammar.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL itself, for the driver that connects.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What stands before `://`, if it could be a scheme.
    #[must_use]
    pub fn scheme(&self) -> Option<&str> {
        let (scheme, _) = self.0.split_once("://")?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        (!scheme.is_empty() && scheme.chars().all(allowed)).then_some(scheme)
    }

    /// The URL without what could be a password.
    #[must_use]
    pub fn redacted(&self) -> String {
        let Some(scheme) = self.scheme() else {
            // Not a URL: perhaps a password that ended up in the wrong place.
            return HIDDEN.to_owned();
        };
        let rest = &self.0[scheme.len() + "://".len()..];
        // Up to the last `@`, not the first, and also beyond a `/`: passwords are not always encoded as they should be.
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user_info, rest)) => (redacted_user(user_info), rest),
            None => (String::new(), rest),
        };
        format!("{scheme}://{user}{}", redacted_query(rest))
    }
}

impl fmt::Debug for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl fmt::Display for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl Serialize for ConnectionUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.redacted())
    }
}

fn redacted_user(user_info: &str) -> String {
    match user_info.split_once(':') {
        Some((user, _)) => format!("{user}:{HIDDEN}@"),
        // Without a colon it could be a user or a token.
        None => format!("{HIDDEN}@"),
    }
}

fn redacted_query(rest: &str) -> String {
    let Some((place, query)) = rest.split_once('?') else {
        return rest.to_owned();
    };
    let redacted = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if name == "pass" || is_secret_key(name) => format!("{name}={HIDDEN}"),
        _ => pair.to_owned(),
    });
    format!("{place}?{}", redacted.collect::<Vec<_>>().join("&"))
}

/// A table of settings as it may be shown: secrets hidden by the names of their keys, and in whatever looks like a URL.
pub(crate) fn redacted_table(table: &toml::Table) -> toml::Table {
    redacted_entries(table, false)
}

fn redacted_entries(table: &toml::Table, secret: bool) -> toml::Table {
    let entries = table.iter();
    entries.map(|(key, value)| (key.clone(), redacted_value(value, secret || is_secret_key(key)))).collect()
}

fn redacted_value(value: &toml::Value, secret: bool) -> toml::Value {
    match value {
        toml::Value::Table(table) => toml::Value::Table(redacted_entries(table, secret)),
        toml::Value::Array(items) => {
            toml::Value::Array(items.iter().map(|item| redacted_value(item, secret)).collect())
        }
        toml::Value::String(text) if text.contains("://") => ConnectionUrl::new(text).redacted().into(),
        _ if secret => HIDDEN.into(),
        plain => plain.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::any;
    use proptest::proptest;

    use super::{ConnectionUrl, is_secret_key, redacted_table};

    proptest! {
        #[test]
        fn no_password_shows_however_badly_it_is_encoded(password in any::<String>()) {
            // Marked, so that a password like "redis" is not found in the rest of the URL.
            let password = format!("\u{1f511}{password}\u{1f511}");
            // Without a user, what stands before a colon is one.
            let token = password.replace(':', "");
            let places = [format!("redis://ada:{password}@cache:6379/1"), format!("redis://{token}@cache"), password];
            for url in places {
                assert!(!ConnectionUrl::new(&url).redacted().contains('\u{1f511}'), "{url}");
            }
        }
    }

    #[test]
    fn urls_hide_passwords_and_keep_the_rest() {
        for (url, shown) in [
            ("redis://localhost:6379", "redis://localhost:6379"),
            ("redis://localhost:6379/2", "redis://localhost:6379/2"),
            ("redis://:hunter2@localhost", "redis://:***@localhost"),
            ("redis://ada:hunter2@[::1]:6379/0", "redis://ada:***@[::1]:6379/0"),
            ("redis://hunter2@localhost", "redis://***@localhost"),
            ("redis://ada:hun@ter2@localhost", "redis://ada:***@localhost"),
            ("redis://ada:hun/ter2@localhost", "redis://ada:***@localhost"),
            ("redis://ada:hun?ter2@localhost", "redis://ada:***@localhost"),
            ("redis+unix:///run/redis.sock?db=1&pass=hunter2", "redis+unix:///run/redis.sock?db=1&pass=***"),
            ("postgres://h/db?user=ada&password=hunter2", "postgres://h/db?user=ada&password=***"),
            ("hunter2", "***"),
            ("hunter2@localhost", "***"),
            ("", "***"),
        ] {
            let url = ConnectionUrl::new(url);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
            assert_eq!(toml::Value::try_from(&url).unwrap().as_str(), Some(shown));
        }
    }

    #[test]
    fn keys_are_secret_by_their_last_word() {
        for key in ["url", "password", "sentinel_password", "signing_secret", "access_token"] {
            assert!(is_secret_key(key), "{key}");
        }
        for key in ["prefix", "key_file", "token_bucket", "urls", "password_file"] {
            assert!(!is_secret_key(key), "{key}");
        }
    }

    #[test]
    fn tables_hide_secrets_at_any_depth() {
        let text = "a = 1\npassword = 12\n[deep]\nurl = 'x://u:hunter2@h'\nother = 'y://u:hunter2@h'\nsecret = ['hunter2']\n[token]\nnew = 'hunter2'";
        let shown = redacted_table(&text.parse().unwrap()).to_string();
        assert!(!shown.contains("hunter2") && !shown.contains("12"), "{shown}");
        assert!(shown.contains("a = 1") && shown.contains("x://u:***@h"), "{shown}");
    }
}
