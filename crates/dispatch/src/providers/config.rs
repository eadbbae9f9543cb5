//! The `[[providers]]` section of the configuration.
//!
//! ```toml
//! [[providers]]
//! name = "hooks"                    # what actions ask for
//! kind = "webhook"                  # or "log", which knows `name`, `concurrency_max` and `breaker` only
//! url = "https://example.com/in"    # https or http; user and password in it become basic authentication
//! headers = { authorization = "Bearer abc" }   # optional; values are treated as secrets
//! timeout = "5s"                    # optional; for one attempt, connection included
//! signing_secret_file = "/run/secrets/hooks"   # optional, or signing_secret = "..."; see `signature`
//! concurrency_max = 32              # optional; executions at a time
//! retry = { attempts_max = 3, delay_min = "250ms", delay_max = "10s" }   # optional
//! breaker = { failures_max = 5, open_for = "30s" }                       # optional
//! ```
//! Unknown keys are refused, and so are webhook keys on a `log` provider: every option accepted is an option used.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use acteon_state::config::{HumanDuration, Secret};
use serde::{Deserialize, Serialize};

use crate::providers::breaker::BreakerOptions;
use crate::providers::retry::RetryPolicy;

/// Time for one attempt unless configured.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Executions at a time unless configured.
pub const CONCURRENCY_DEFAULT: usize = 32;
/// Largest configurable number of executions at a time; each may hold a socket.
pub const CONCURRENCY_MAX: usize = 10_000;
/// Largest configurable number of attempts.
pub const ATTEMPTS_MAX: u32 = 20;
/// Longest configurable time that a breaker stays open. Beyond it, a mistyped unit is more likely than a wish.
pub const OPEN_FOR_MAX: Duration = Duration::from_secs(24 * 3600);
/// Most configurable headers.
pub const HEADERS_MAX: usize = 64;

/// One entry of `[[providers]]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    /// What actions ask for: 1 to 64 bytes without NUL, unique.
    pub name: String,
    /// Which provider it is.
    pub kind: ProviderKind,
    /// Executions at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_max: Option<usize>,
    /// When to leave the provider alone.
    #[serde(default)]
    pub breaker: BreakerConfig,
    /// Where a webhook sends to. Kept as a secret, since it may hold a password or a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Secret>,
    /// Headers that a webhook sends with every request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
    /// Time for one attempt of a webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
    /// How a webhook retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryConfig>,
    /// The key that a webhook signs with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_secret: Option<Secret>,
    /// A file that holds the key; white space around it is cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_secret_file: Option<PathBuf>,
}

/// The providers of this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKind {
    /// Writes actions to the log.
    Log,
    /// Sends actions by HTTP.
    Webhook,
}

/// How to retry; see [`RetryPolicy`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// Attempts in all: 1 to 20.
    pub attempts_max: u32,
    /// The bound of the first wait.
    pub delay_min: HumanDuration,
    /// The bound that no wait exceeds.
    pub delay_max: HumanDuration,
}

/// When to leave a provider alone; see [`breaker`](crate::providers::breaker).
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerConfig {
    /// Failures in a row that open it, at least 1.
    pub failures_max: u32,
    /// For how long.
    pub open_for: HumanDuration,
}

/// A provider that cannot be made from its configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("provider `{provider}`: {reason}")]
pub struct ConfigError {
    /// The name of the provider.
    pub provider: String,
    /// What is wrong and what is allowed.
    pub reason: String,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts_max: 3,
            delay_min: HumanDuration(Duration::from_millis(250)),
            delay_max: HumanDuration(Duration::from_secs(10)),
        }
    }
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { failures_max: 5, open_for: HumanDuration(Duration::from_secs(30)) }
    }
}

impl ProviderConfig {
    /// A `log` provider with the defaults.
    #[must_use]
    pub fn log(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind: ProviderKind::Log,
            concurrency_max: None,
            breaker: BreakerConfig::default(),
            url: None,
            headers: BTreeMap::new(),
            timeout: None,
            retry: None,
            signing_secret: None,
            signing_secret_file: None,
        }
    }

    /// A `webhook` provider with the defaults.
    #[must_use]
    pub fn webhook(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self { kind: ProviderKind::Webhook, url: Some(Secret::new(url)), ..Self::log(name) }
    }

    pub(crate) fn error(&self, reason: impl Into<String>) -> ConfigError {
        ConfigError { provider: self.name.clone(), reason: reason.into() }
    }

    /// The webhook keys that are set, for a provider that has no use for them.
    pub(crate) fn webhook_keys(&self) -> Vec<&'static str> {
        let keys = [
            ("url", self.url.is_some()),
            ("headers", !self.headers.is_empty()),
            ("timeout", self.timeout.is_some()),
            ("retry", self.retry.is_some()),
            ("signing_secret", self.signing_secret.is_some()),
            ("signing_secret_file", self.signing_secret_file.is_some()),
        ];
        keys.into_iter().filter(|(_, set)| *set).map(|(key, _)| key).collect()
    }

    pub(crate) fn concurrency(&self) -> Result<usize, ConfigError> {
        let wanted = self.concurrency_max.unwrap_or(CONCURRENCY_DEFAULT);
        if !(1..=CONCURRENCY_MAX).contains(&wanted) {
            return Err(self.error(format!("concurrency_max is {wanted}; allowed: 1 to {CONCURRENCY_MAX}")));
        }
        Ok(wanted)
    }

    pub(crate) fn breaker_options(&self) -> Result<BreakerOptions, ConfigError> {
        let BreakerConfig { failures_max, open_for } = self.breaker;
        if failures_max == 0 {
            return Err(self.error("breaker.failures_max is 0; allowed: at least 1"));
        }
        if open_for.0 > OPEN_FOR_MAX {
            return Err(self.error(format!("breaker.open_for is {open_for}; allowed: at most 1day")));
        }
        Ok(BreakerOptions { failures_max, open_for: open_for.0 })
    }

    pub(crate) fn retry_policy(&self) -> Result<RetryPolicy, ConfigError> {
        let RetryConfig { attempts_max, delay_min, delay_max } = self.retry.unwrap_or_default();
        if !(1..=ATTEMPTS_MAX).contains(&attempts_max) {
            return Err(self.error(format!("retry.attempts_max is {attempts_max}; allowed: 1 to {ATTEMPTS_MAX}")));
        }
        if delay_min.0 > delay_max.0 {
            return Err(self.error("retry.delay_min is longer than retry.delay_max"));
        }
        Ok(RetryPolicy { attempts_max, delay_min: delay_min.0, delay_max: delay_max.0 })
    }

    /// The signing key, from the file if that is configured. Blocks on the file system.
    pub(crate) fn signing_key(&self) -> Result<Option<Secret>, ConfigError> {
        let key = match (&self.signing_secret, &self.signing_secret_file) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                return Err(self.error("set one of signing_secret and signing_secret_file, not both"));
            }
            (Some(secret), None) => secret.clone(),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|error| self.error(format!("signing_secret_file {}: {error}", file.display())))?;
                Secret::new(text.trim())
            }
        };
        // An empty key would make signatures that anybody can forge.
        if key.expose().is_empty() {
            return Err(self.error("the signing secret is empty"));
        }
        Ok(Some(key))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{HumanDuration, ProviderConfig, ProviderKind};

    fn parse(toml: &str) -> Result<ProviderConfig, toml::de::Error> {
        toml::from_str(toml)
    }

    #[test]
    fn every_key_is_read() {
        let config = parse(
            r#"
name = "hooks"
kind = "webhook"
url = "https://user:pass@example.com/in?token=t"
headers = { authorization = "Bearer abc" }
timeout = "2s"
signing_secret = "key"
concurrency_max = 7
retry = { attempts_max = 4, delay_min = "10ms" }
breaker = { failures_max = 2 }
"#,
        )
        .expect("valid");
        assert_eq!(config.kind, ProviderKind::Webhook);
        assert_eq!(config.timeout, Some(HumanDuration(Duration::from_secs(2))));
        assert_eq!(config.retry_policy().expect("valid").attempts_max, 4);
        assert_eq!(config.retry_policy().expect("valid").delay_max, Duration::from_secs(10));
        assert_eq!(config.breaker_options().expect("valid").failures_max, 2);
        for shown in [format!("{config:?}"), serde_json::to_string(&config).expect("serialisable")] {
            for secret in ["pass", "token", "abc", "\"key\""] {
                assert!(!shown.contains(secret), "{secret} in {shown}");
            }
        }
    }

    #[test]
    fn unknown_keys_and_durations_without_unit_are_refused() {
        let error = parse("name = \"a\"\nkind = \"log\"\ntimeuot = \"5s\"\n").expect_err("unknown key");
        assert!(error.to_string().contains("timeuot"), "{error}");
        let error = parse("name = \"a\"\nkind = \"log\"\ntimeout = 5\n").expect_err("no unit");
        assert!(error.to_string().contains("unit"), "{error}");
        assert!(parse("name = \"a\"\nkind = \"fax\"\n").is_err());
    }

    #[test]
    fn values_out_of_bounds_are_refused_with_the_name_of_the_provider() {
        let mut config = ProviderConfig::log("a");
        config.concurrency_max = Some(0);
        assert!(config.concurrency().expect_err("zero").to_string().starts_with("provider `a`: concurrency_max"));
        config.breaker.open_for = HumanDuration(std::time::Duration::MAX);
        assert!(config.breaker_options().expect_err("for ever").to_string().contains("at most 1day"));
        config.breaker.failures_max = 0;
        assert!(config.breaker_options().is_err());
        config.retry = Some(super::RetryConfig { attempts_max: 0, ..Default::default() });
        assert!(config.retry_policy().is_err());
    }

    #[test]
    fn signing_key_comes_from_one_place_and_is_not_empty() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        let mut config = ProviderConfig::webhook("a", "http://localhost");
        assert_eq!(config.signing_key().expect("none"), None);
        config.signing_secret_file = Some(file.path().to_owned());
        assert!(config.signing_key().expect_err("empty").to_string().contains("empty"));
        std::fs::write(file.path(), "from-file\n").expect("writable");
        assert_eq!(config.signing_key().expect("file").expect("set").expose(), "from-file");
        config.signing_secret = Some(super::Secret::new("x"));
        assert!(config.signing_key().expect_err("both").to_string().contains("not both"));
    }
}
