//! What is known of the servers: what can be done there, what locks guarantee, and which of their settings endanger that.
//!
//! Each connection asks anew, so a server that was set up better, or replaced by another one, shows. Of several servers the
//! weakest counts.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use acteon_state_core::{Capabilities, Error, LockSemantics, Result};
use parking_lot::{Mutex, RwLock};

use crate::config::{RedisConfig, Safety};
use crate::error::BACKEND;
use crate::safety::{Danger, dangers};
use crate::semantics::{Setup, SetupKind};
use crate::server::Facts;
use crate::topology::{Endpoint, Topology};

/// See the module.
pub(crate) struct Known {
    value_bytes_max: u64,
    setup: Setup,
    /// What is declared before the servers were reached.
    declared: Capabilities,
    /// What they said first. Later connections refine only the notes on locks: capabilities that change under a running
    /// application would help nobody.
    probed: OnceLock<Capabilities>,
    // Written once per connection, read on request; never held across an await.
    facts: RwLock<HashMap<Endpoint, Facts>>,
    /// What was logged already.
    logged: Mutex<HashSet<(Endpoint, &'static str)>>,
}

impl Known {
    pub(crate) fn new(config: &RedisConfig, topology: &Topology) -> Self {
        let setup = Setup::new(config, topology);
        let declared = setup.capabilities(&Facts::unknown(), config.value_bytes_max);
        Self {
            value_bytes_max: config.value_bytes_max,
            setup,
            declared,
            probed: OnceLock::new(),
            facts: RwLock::default(),
            logged: Mutex::default(),
        }
    }

    pub(crate) fn capabilities(&self) -> &Capabilities {
        self.probed.get().unwrap_or(&self.declared)
    }

    pub(crate) fn lock_semantics(&self) -> LockSemantics {
        self.setup.lock_semantics(&self.weakest(), &self.dangers())
    }

    /// Takes in what a server said when it was connected to.
    pub(crate) fn learn(&self, endpoint: &Endpoint, facts: Facts) {
        {
            let mut all = self.facts.write();
            if all.get(endpoint) == Some(&facts) {
                return;
            }
            if self.setup.kind != SetupKind::Cluster {
                // The primary before this one does not count any more.
                all.clear();
            }
            all.insert(endpoint.clone(), facts.clone());
        }
        for danger in dangers(&facts, &self.setup) {
            if self.logged.lock().insert((endpoint.clone(), danger.setting)) {
                tracing::warn!(%endpoint, setting = danger.setting, "{}", danger.text);
            }
        }
        let weakest = self.weakest();
        self.probed.get_or_init(|| self.setup.capabilities(&weakest, self.value_bytes_max));
    }

    /// In strict safety: refuses servers whose settings endanger locks or state.
    ///
    /// # Errors
    /// `Config` with all of them.
    pub(crate) fn refuse_dangers(&self) -> Result<()> {
        let found = self.dangers();
        if self.setup.safety == Safety::Warn || found.is_empty() {
            return Ok(());
        }
        let texts: Vec<_> = found.iter().map(|danger| danger.text.as_str()).collect();
        let message = format!("safety = \"strict\" refuses the server's settings: {}", texts.join("; "));
        Err(Error::config(message).on_backend(BACKEND))
    }

    /// What endangers locks or state, on any of the servers. Each setting once.
    fn dangers(&self) -> Vec<Danger> {
        let mut found: Vec<Danger> = Vec::new();
        for facts in self.facts.read().values() {
            for danger in dangers(facts, &self.setup) {
                if found.iter().all(|known| known.setting != danger.setting) {
                    found.push(danger);
                }
            }
        }
        found
    }

    fn weakest(&self) -> Facts {
        let facts = self.facts.read();
        facts.values().cloned().reduce(Facts::weaker).unwrap_or_else(Facts::unknown)
    }
}
