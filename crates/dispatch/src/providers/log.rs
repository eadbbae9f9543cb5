//! The provider that writes actions to the log: for demonstrations, dry operation and as a target of reroutes.
//!
//! It never fails. The payload is logged at the level debug only, since it may hold personal data.

use async_trait::async_trait;
use serde_json::Value;
use tracing::{debug, info};

use crate::action::Action;
use crate::providers::{ExecuteContext, Provider, ProviderError, Receipt};

/// Writes one line per action.
#[derive(Debug)]
pub struct LogProvider {
    name: String,
}

impl LogProvider {
    /// A provider of the given name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

#[async_trait]
impl Provider for LogProvider {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "log"
    }

    async fn execute(&self, action: &Action, _ctx: &ExecuteContext) -> Result<Receipt, ProviderError> {
        info!(
            provider = self.name,
            action_id = action.id,
            namespace = action.namespace,
            tenant = action.tenant,
            action_type = action.action_type,
            "action executed"
        );
        debug!(action_id = action.id, payload = %action.payload, "its payload");
        Ok(Receipt { attempts: 1, detail: Value::Null })
    }
}
