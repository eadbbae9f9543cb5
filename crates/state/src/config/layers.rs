//! `[state.layers]`: time limits, retries, and what to do when the backend does not answer.
//!
//! # Defaults
//! They depend on what the driver says of itself. A store inside of the process (`shared = false`) answers within
//! microseconds and cannot be unreachable: time limits and retries would cost more than the calls, so it has no layer but
//! metrics. For a store behind a network:
//!
//! | layer | default | why |
//! |---|---|---|
//! | `timeout` | 5 s | half of what HTTP clients commonly wait, so that the reason reaches them |
//! | `attempt_timeout` | the driver's own | the driver knows whether a request was sent, and so its effect |
//! | `retry` | 3 attempts, 20 ms doubling up to 500 ms | bridges a reconnect; two repetitions fit into the timeout |
//! | `circuit_breaker` | 10 failures in a row, 1 s | an outage costs each caller microseconds instead of seconds |
//! | `concurrency` | 1,024 under way, 16,384 queueing | one connection is saturated long before; memory stays bounded |
//! | `tracing` | on | spans at debug level cost nothing where that level is off |
//! | `degradation` | closed | only the operator knows which kinds may be served with less than the backend knows |
//!
//! Each can be switched off by `"off"`.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::layer::circuit_breaker::Thresholds;
use acteon_state_core::layer::concurrency_limit::Limits;
use acteon_state_core::layer::degrade;
use acteon_state_core::layer::metrics::StoreMetrics;
use acteon_state_core::layer::{Layers, retry};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::config::degradation::{DegradationPolicy, FallbackConfig};
use crate::config::units::HumanDuration;

/// Time that a whole call may take on a store behind a network.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Most attempts that can be configured: more only turn an outage into a slow outage.
pub const ATTEMPTS_MAX: u32 = 20;

/// The section `[state.layers]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LayersConfig {
    /// Time that a whole call may take, repetitions included. A wait for a lock comes on top.
    #[serde(skip_serializing_if = "Setting::is_default")]
    pub timeout: Setting<HumanDuration>,
    /// Time that one attempt may take.
    #[serde(skip_serializing_if = "Setting::is_default")]
    pub attempt_timeout: Setting<HumanDuration>,
    /// How often and how fast to repeat what failed for a transient reason.
    #[serde(skip_serializing_if = "Setting::is_default")]
    pub retry: Setting<RetryConfig>,
    /// When to stop calling a backend that does not answer.
    #[serde(skip_serializing_if = "Setting::is_default")]
    pub circuit_breaker: Setting<CircuitBreakerConfig>,
    /// How many calls may be under way and queue.
    #[serde(skip_serializing_if = "Setting::is_default")]
    pub concurrency: Setting<ConcurrencyConfig>,
    /// Whether each call is a span.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing: Option<bool>,
    /// What is done without an answer, by kind of key.
    #[serde(skip_serializing_if = "DegradationPolicy::is_default")]
    pub degradation: DegradationPolicy,
    /// The bounds of what `stale` and `local` serve from.
    #[serde(skip_serializing_if = "FallbackConfig::is_default")]
    pub fallback: FallbackConfig,
}

/// How often and how fast to repeat; see [`retry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// Attempts in all, the first included: 1 to 20.
    pub attempts: u32,
    /// The bound of the first wait; it doubles each time.
    pub backoff: HumanDuration,
    /// The bound of every wait.
    pub backoff_max: HumanDuration,
    /// How many repetitions may be saved up, over all calls.
    pub budget: u32,
}

/// When to stop calling, and for how long; see [`Thresholds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CircuitBreakerConfig {
    /// Failures in a row, at least 1.
    pub failures: u32,
    /// How long calls then fail at once.
    pub open_for: HumanDuration,
}

/// How many calls at once; see [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConcurrencyConfig {
    /// Calls under way, at least 1.
    pub in_flight: usize,
    /// Calls that queue for their turn.
    pub queue: usize,
}

/// A layer that is as the driver asks for, switched off, or as configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Setting<T> {
    /// Not configured.
    #[default]
    Default,
    /// `"off"`.
    Off,
    /// Configured.
    On(T),
}

impl<T> Setting<T> {
    /// Whether nothing was configured.
    #[must_use]
    pub const fn is_default(&self) -> bool {
        matches!(self, Self::Default)
    }

    fn or(self, default: Option<T>) -> Option<T> {
        match self {
            Self::Default => default,
            Self::Off => None,
            Self::On(value) => Some(value),
        }
    }

    const fn on(&self) -> Option<&T> {
        match self {
            Self::On(value) => Some(value),
            Self::Default | Self::Off => None,
        }
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        let policy = retry::Policy::default();
        Self {
            attempts: policy.attempts_max,
            backoff: HumanDuration(policy.backoff),
            backoff_max: HumanDuration(policy.backoff_max),
            budget: policy.budget,
        }
    }
}

impl Default for CircuitBreakerConfig {
    fn default() -> Self {
        Self { failures: 10, open_for: HumanDuration(Duration::from_secs(1)) }
    }
}

impl Default for ConcurrencyConfig {
    fn default() -> Self {
        Self { in_flight: 1_024, queue: 16_384 }
    }
}

impl LayersConfig {
    /// The layers for a store that is shared by several processes, or is inside of this one; without what stands in for `local`
    /// kinds, which is a driver.
    #[must_use]
    pub fn layers(&self, shared: bool, metrics: Option<Arc<StoreMetrics>>) -> Layers {
        let retry = self.retry.or(shared.then(RetryConfig::default));
        let breaker = self.circuit_breaker.or(shared.then(CircuitBreakerConfig::default));
        let concurrency = self.concurrency.or(shared.then(ConcurrencyConfig::default));
        Layers {
            metrics,
            degrade: (shared || !self.degradation.is_default()).then(|| self.degrade()),
            tracing: self.tracing.unwrap_or(shared),
            deadline: self.timeout.or(shared.then_some(HumanDuration(TIMEOUT_DEFAULT))).map(|timeout| timeout.0),
            guard: None,
            concurrency: concurrency.map(|config| Limits { in_flight_max: config.in_flight, queue_max: config.queue }),
            breaker: breaker.map(|config| Thresholds { failures: config.failures, open_for: config.open_for.0 }),
            retry: retry.map(|config| retry::Policy {
                attempts_max: config.attempts,
                backoff: config.backoff.0,
                backoff_max: config.backoff_max.0,
                budget: config.budget,
            }),
            attempt_timeout: self.attempt_timeout.or(None).map(|timeout| timeout.0),
        }
    }

    fn degrade(&self) -> degrade::Options {
        let (policies, last_seen) = (self.degradation.policies(), self.fallback.bounds());
        degrade::Options { policies, last_seen, stand_in: None }
    }

    /// What types cannot check: the key below `layers`, and what is wrong with it.
    pub(crate) fn fault(&self) -> Option<(&'static str, String)> {
        let zero = |setting: &Setting<HumanDuration>| setting.on().is_some_and(|timeout| timeout.0.is_zero());
        if zero(&self.timeout) {
            return Some(("timeout", "no call ends in no time; write \"off\" for no limit".to_owned()));
        }
        if zero(&self.attempt_timeout) {
            return Some(("attempt_timeout", "no attempt ends in no time; write \"off\" for no limit".to_owned()));
        }
        if let (Some(timeout), Some(attempt)) = (self.timeout.on(), self.attempt_timeout.on())
            && attempt > timeout
        {
            let message = format!("{attempt} is longer than the timeout of the whole call, {timeout}");
            return Some(("attempt_timeout", message));
        }
        self.retry.on().and_then(RetryConfig::fault).or_else(|| self.fallback.fault()).or_else(|| {
            let breaker = self.circuit_breaker.on().filter(|breaker| breaker.failures == 0);
            let concurrency = self.concurrency.on().filter(|limits| limits.in_flight == 0);
            let off = "must be at least 1; write circuit_breaker = \"off\" to do without it".to_owned();
            let stuck = "must be at least 1: with 0 no call could ever run".to_owned();
            breaker
                .map(|_| ("circuit_breaker.failures", off))
                .or_else(|| concurrency.map(|_| ("concurrency.in_flight", stuck)))
        })
    }
}

impl RetryConfig {
    fn fault(&self) -> Option<(&'static str, String)> {
        if !(1..=ATTEMPTS_MAX).contains(&self.attempts) {
            let message = format!("{} is not between 1 (no repetition) and {ATTEMPTS_MAX}", self.attempts);
            return Some(("retry.attempts", message));
        }
        (self.backoff > self.backoff_max).then(|| {
            let message = format!("{} is longer than backoff_max, {}", self.backoff, self.backoff_max);
            ("retry.backoff", message)
        })
    }
}

impl<T: Serialize> Serialize for Setting<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Default => serializer.serialize_none(),
            Self::Off => serializer.serialize_str("off"),
            Self::On(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Setting<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SettingVisitor(PhantomData))
    }
}

struct SettingVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for SettingVisitor<T> {
    type Value = Setting<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"off\" or a setting")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Setting<T>, E> {
        if text == "off" { Ok(Setting::Off) } else { T::deserialize(text.into_deserializer()).map(Setting::On) }
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Setting<T>, E> {
        T::deserialize(number.into_deserializer()).map(Setting::On)
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Setting<T>, E> {
        T::deserialize(number.into_deserializer()).map(Setting::On)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Setting<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Setting::On)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LayersConfig, TIMEOUT_DEFAULT};

    fn parse(text: &str) -> LayersConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_store_in_process_has_no_layers_unless_asked_for() {
        let layers = LayersConfig::default().layers(false, None);
        assert!(layers.deadline.is_none() && layers.retry.is_none() && layers.breaker.is_none());
        assert!(layers.concurrency.is_none() && !layers.tracing && layers.degrade.is_none());
        let asked = parse("timeout = \"1s\"\nretry.attempts = 2").layers(false, None);
        assert_eq!(asked.deadline, Some(Duration::from_secs(1)));
        assert_eq!(asked.retry.map(|policy| policy.attempts_max), Some(2));
    }

    #[test]
    fn a_store_behind_a_network_has_all_layers_unless_switched_off() {
        let layers = LayersConfig::default().layers(true, None);
        assert_eq!(layers.deadline, Some(TIMEOUT_DEFAULT));
        assert!(layers.retry.is_some() && layers.breaker.is_some() && layers.concurrency.is_some() && layers.tracing);
        assert!(layers.degrade.is_some(), "an outage is logged and counted, whatever is done about it");
        let off = "timeout = 'off'\nretry = 'off'\ncircuit_breaker = 'off'\nconcurrency = 'off'\ntracing = false";
        let off = parse(off).layers(true, None);
        assert!(off.deadline.is_none() && off.retry.is_none() && off.breaker.is_none());
        assert!(off.concurrency.is_none() && !off.tracing);
    }

    #[test]
    fn two_repetitions_at_their_longest_fit_into_the_default_timeout() {
        let policy = LayersConfig::default().layers(true, None).retry.unwrap();
        assert!(policy.backoff_max * policy.attempts_max < TIMEOUT_DEFAULT);
    }
}
