//! Finds providers by name, and asks them within their limits.
//!
//! # How it works
//! An execution first takes one of the provider's `concurrency_max` places, waiting until its deadline, then asks the
//! breaker, then the provider. The breaker is asked last, so that an execution that waited for a place does not go
//! ahead on an opinion from before the wait.
//!
//! Only failures that speak against the provider count for its breaker: those that another attempt may mend. A
//! refusal of one action, such as HTTP 400, shows that the provider is at work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::action::Action;
use crate::action::NAME_BYTES_MAX;
use crate::outcome::Effect;
use crate::providers::breaker::{Breaker, Phase};
use crate::providers::config::{ConfigError, ProviderConfig, ProviderKind};
use crate::providers::log::LogProvider;
use crate::providers::webhook::Webhook;
use crate::providers::{ErrorCode, ExecuteContext, Provider, ProviderError, Receipt};

/// How long after the deadline a provider is given up that should have ended by itself. One that keeps to the deadline
/// knows more about its failure, and gets to say it.
const DEADLINE_GRACE: Duration = Duration::from_secs(1);

/// All providers, by name.
#[derive(Debug, Default)]
pub struct Registry {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    provider: Arc<dyn Provider>,
    places: Semaphore,
    breaker: Breaker,
}

impl Registry {
    /// Makes every configured provider. Reads secret files, and blocks on them.
    ///
    /// # Errors
    /// [`ConfigError`] names the first provider that cannot be made.
    pub fn from_config(configs: &[ProviderConfig]) -> Result<Self, ConfigError> {
        let mut registry = Self::default();
        for config in configs {
            registry.insert(make(config)?, config)?;
        }
        Ok(registry)
    }

    /// Adds a provider under its name, with the limits of `config`; the rest of `config` is the provider's affair.
    ///
    /// # Errors
    /// [`ConfigError`] when the name is taken or no name, or a limit is out of bounds.
    pub fn insert(&mut self, provider: Arc<dyn Provider>, config: &ProviderConfig) -> Result<(), ConfigError> {
        let name = provider.name().to_owned();
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
            return Err(config.error(format!("name must have 1 to {NAME_BYTES_MAX} bytes without NUL")));
        }
        if self.entries.contains_key(&name) {
            return Err(config.error("the name is used twice"));
        }
        let places = Semaphore::new(config.concurrency()?);
        let breaker = Breaker::new(config.breaker_options()?);
        self.entries.insert(name, Entry { provider, places, breaker });
        Ok(())
    }

    /// Name, kind and breaker phase of each provider, in the order of names.
    pub fn describe(&self) -> impl Iterator<Item = (&str, &'static str, Phase)> {
        let now = Instant::now();
        self.entries.iter().map(move |(name, entry)| (name.as_str(), entry.provider.kind(), entry.breaker.phase(now)))
    }

    /// Whether a provider has the name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Has the action executed by the provider that it names.
    ///
    /// Dropping the future gives the place back; the provider may still do the work.
    ///
    /// # Errors
    /// [`ProviderError`] of the provider, or `unknown_provider`, `busy`, `circuit_open` or `cancelled` without asking
    /// it.
    pub async fn execute(&self, action: &Action, ctx: &ExecuteContext) -> Result<Receipt, ProviderError> {
        let entry = self.entries.get(&action.provider).ok_or_else(|| {
            let message = format!("no provider is named `{}`", action.provider);
            ProviderError::not_asked(ErrorCode::UnknownProvider, false, message)
        })?;
        let _place = entry.place(ctx).await?;
        let permit = entry.breaker.admit(Instant::now()).map_err(|wait| entry.circuit_open(wait))?;
        let result = timeout_at(ctx.deadline + DEADLINE_GRACE, entry.provider.execute(action, ctx)).await;
        let result = result.unwrap_or_else(|_| Err(entry.overdue()));
        match &result {
            // Says nothing about the provider: the caller's doing, or it was never asked.
            Err(error) if error.attempts == 0 => drop(permit),
            Err(ProviderError { code: ErrorCode::Cancelled | ErrorCode::Unsendable, .. }) => drop(permit),
            Err(error) if error.retryable => permit.failed(Instant::now()),
            _ => permit.succeeded(),
        }
        result
    }
}

impl Entry {
    async fn place(&self, ctx: &ExecuteContext) -> Result<SemaphorePermit<'_>, ProviderError> {
        // A place that is free goes to nobody before us: those who wait would have got it.
        if !ctx.cancel.is_cancelled()
            && let Ok(place) = self.places.try_acquire()
        {
            return Ok(place);
        }
        let waiting = ctx.cancel.run_until_cancelled(timeout_at(ctx.deadline, self.places.acquire()));
        match waiting.await {
            Some(Ok(place)) => Ok(place.expect("the semaphore is never closed")),
            Some(Err(_)) => {
                let message = format!("provider `{}` had no free place before the deadline", self.provider.name());
                Err(ProviderError::not_asked(ErrorCode::Busy, true, message))
            }
            None => Err(ProviderError::not_asked(ErrorCode::Cancelled, true, "cancelled before it was sent")),
        }
    }

    fn overdue(&self) -> ProviderError {
        let message = format!("provider `{}` did not end at the deadline", self.provider.name());
        let (code, effect) = (ErrorCode::Timeout, Effect::Unknown);
        ProviderError { code, message, retryable: true, effect, attempts: 1 }
    }

    fn circuit_open(&self, wait: Duration) -> ProviderError {
        let message = format!(
            "provider `{}` failed too often and is left alone for another {} ms",
            self.provider.name(),
            wait.as_millis()
        );
        ProviderError::not_asked(ErrorCode::CircuitOpen, true, message)
    }
}

fn make(config: &ProviderConfig) -> Result<Arc<dyn Provider>, ConfigError> {
    match config.kind {
        ProviderKind::Webhook => Ok(Arc::new(Webhook::from_config(config)?)),
        ProviderKind::Log => {
            let foreign = config.webhook_keys();
            if !foreign.is_empty() {
                let reason = format!("{} can be set for kind = \"webhook\" only", foreign.join(", "));
                return Err(config.error(reason));
            }
            Ok(Arc::new(LogProvider::new(&config.name)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;
    use serde_json::{Value, json};
    use tokio::sync::Semaphore;
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    use super::Registry;
    use crate::action::Action;
    use crate::outcome::Effect;
    use crate::providers::breaker::Phase;
    use crate::providers::config::ProviderConfig;
    use crate::providers::{ErrorCode, ExecuteContext, Provider, ProviderError, Receipt};

    /// Does its work when `gate` lets it, and fails when told so.
    #[derive(Debug)]
    struct Puppet {
        gate: Semaphore,
        failing: AtomicBool,
        running: AtomicUsize,
        running_max: AtomicUsize,
    }

    #[async_trait]
    impl Provider for Puppet {
        fn name(&self) -> &str {
            "puppet"
        }

        fn kind(&self) -> &'static str {
            "puppet"
        }

        async fn execute(&self, _action: &Action, _ctx: &ExecuteContext) -> Result<Receipt, ProviderError> {
            let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            self.running_max.fetch_max(running, Ordering::SeqCst);
            drop(self.gate.acquire().await.expect("open"));
            self.running.fetch_sub(1, Ordering::SeqCst);
            if self.failing.load(Ordering::SeqCst) {
                let (code, effect) = (ErrorCode::HttpStatus, Effect::Unknown);
                return Err(ProviderError { code, message: "no".into(), retryable: true, effect, attempts: 1 });
            }
            Ok(Receipt { attempts: 1, detail: Value::Null })
        }
    }

    fn puppet(gate: usize, config: &ProviderConfig) -> (Arc<Puppet>, Arc<Registry>) {
        let puppet = Arc::new(Puppet {
            gate: Semaphore::new(gate),
            failing: AtomicBool::new(false),
            running: AtomicUsize::new(0),
            running_max: AtomicUsize::new(0),
        });
        let mut registry = Registry::default();
        registry.insert(Arc::clone(&puppet) as Arc<dyn Provider>, config).expect("valid");
        (puppet, Arc::new(registry))
    }

    fn within(time: Duration) -> ExecuteContext {
        ExecuteContext { deadline: Instant::now() + time, cancel: CancellationToken::new() }
    }

    fn action() -> Action {
        Action::new("demo", "acme", "puppet", "greet", json!({}))
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_executions_than_places_run_at_once() {
        let config = ProviderConfig { concurrency_max: Some(2), ..ProviderConfig::log("puppet") };
        let (puppet, registry) = puppet(0, &config);
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let registry = Arc::clone(&registry);
                tokio::spawn(async move { registry.execute(&action(), &within(Duration::from_secs(60))).await })
            })
            .collect();
        while puppet.running.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        puppet.gate.add_permits(1);
        for task in tasks {
            task.await.expect("no panic").expect("executed");
        }
        assert_eq!(puppet.running_max.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_place_ends_at_the_deadline_and_on_cancellation() {
        let config = ProviderConfig { concurrency_max: Some(1), ..ProviderConfig::log("puppet") };
        let (puppet, registry) = puppet(0, &config);
        let holder = Arc::clone(&registry);
        let held = tokio::spawn(async move { holder.execute(&action(), &within(Duration::from_secs(60))).await });
        while puppet.running.load(Ordering::SeqCst) < 1 {
            tokio::task::yield_now().await;
        }
        let error = registry.execute(&action(), &within(Duration::from_secs(1))).await.expect_err("full");
        assert_eq!((error.code, error.effect), (ErrorCode::Busy, Effect::NotApplied));
        let ctx = within(Duration::from_secs(60));
        ctx.cancel.cancel();
        let error = registry.execute(&action(), &ctx).await.expect_err("cancelled");
        assert_eq!(error.code, ErrorCode::Cancelled);
        held.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_forgets_the_deadline_is_given_up_and_its_place_is_free_again() {
        let config = ProviderConfig { concurrency_max: Some(1), ..ProviderConfig::log("puppet") };
        let (puppet, registry) = puppet(0, &config);
        let error = registry.execute(&action(), &within(Duration::from_secs(1))).await.expect_err("never ends");
        assert_eq!((error.code, error.effect, error.retryable), (ErrorCode::Timeout, Effect::Unknown, true));
        puppet.gate.add_permits(1);
        registry.execute(&action(), &within(Duration::from_secs(1))).await.expect("the place is free");
    }

    #[tokio::test(start_paused = true)]
    async fn breaker_opens_after_failures_in_a_row_and_closes_after_a_good_probe() {
        let (puppet, registry) = puppet(100, &ProviderConfig::log("puppet"));
        puppet.failing.store(true, Ordering::SeqCst);
        let ctx = within(Duration::from_secs(600));
        for _ in 0..5 {
            registry.execute(&action(), &ctx).await.expect_err("failing");
        }
        let error = registry.execute(&action(), &ctx).await.expect_err("open");
        assert_eq!(error.code, ErrorCode::CircuitOpen);
        assert_eq!(registry.describe().next().expect("one").2, Phase::Open);

        puppet.failing.store(false, Ordering::SeqCst);
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(registry.describe().next().expect("one").2, Phase::HalfOpen);
        registry.execute(&action(), &ctx).await.expect("the probe");
        assert_eq!(registry.describe().next().expect("one").2, Phase::Closed);
    }

    #[tokio::test]
    async fn an_unknown_provider_is_named_and_not_worth_a_retry() {
        let registry = Registry::from_config(&[ProviderConfig::log("log")]).expect("valid");
        let error = registry.execute(&action(), &within(Duration::from_secs(1))).await.expect_err("unknown");
        assert_eq!((error.code, error.retryable), (ErrorCode::UnknownProvider, false));
        assert!(error.message.contains("`puppet`"));
    }

    #[test]
    fn names_used_twice_and_foreign_keys_are_refused() {
        let twice = [ProviderConfig::log("log"), ProviderConfig::log("log")];
        assert!(Registry::from_config(&twice).expect_err("twice").to_string().contains("used twice"));
        let mut foreign = ProviderConfig::log("log");
        foreign.url = Some(acteon_state::config::Secret::new("http://localhost"));
        let error = Registry::from_config(&[foreign]).expect_err("foreign key").to_string();
        assert!(error.contains("url can be set for kind = \"webhook\" only"), "{error}");
    }
}
