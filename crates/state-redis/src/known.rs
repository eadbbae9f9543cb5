//! What is known of the servers: what can be done there, what locks guarantee, and which of their settings endanger that.
//!
//! Each connection asks anew, so a server that was set up better, or replaced by another one, shows. Of several servers the
//! weakest counts.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use acteon_state_core::{Capabilities, LockSemantics, Result};
use parking_lot::{Mutex, RwLock};

use crate::config::{RedisConfig, Safety};
use crate::safety::{Danger, dangers, refuse};
use crate::semantics::{Setup, SetupKind};
use crate::server::Facts;
use crate::topology::{Endpoint, Target, TlsOptions, Topology};

/// See the module.
pub(crate) struct Known {
    value_bytes_max: u64,
    setup: Setup,
    /// Where the servers are, and how the way to them is protected.
    reached: Vec<String>,
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
    pub(crate) fn new(config: &RedisConfig, target: &Target) -> Self {
        let setup = Setup::new(config, &target.topology);
        let declared = setup.capabilities(&Facts::unknown(), config.value_bytes_max);
        Self {
            value_bytes_max: config.value_bytes_max,
            setup,
            reached: reached(target),
            declared,
            probed: OnceLock::new(),
            facts: RwLock::default(),
            logged: Mutex::default(),
        }
    }

    pub(crate) fn capabilities(&self) -> &Capabilities {
        self.probed.get().unwrap_or(&self.declared)
    }

    pub(crate) fn setup(&self) -> Setup {
        self.setup
    }

    pub(crate) fn lock_semantics(&self) -> LockSemantics {
        let mut semantics = self.setup.lock_semantics(&self.weakest(), &self.dangers());
        let connected = self.connected();
        semantics.notes.splice(0..0, connected.into_iter().chain(self.reached.iter().cloned()));
        semantics
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

    /// Drops what is known of a server that does not belong to the others any more.
    pub(crate) fn forget(&self, endpoint: &Endpoint) {
        self.facts.write().remove(endpoint);
        self.logged.lock().retain(|(of, _)| of != endpoint);
    }

    /// In strict safety: refuses servers whose settings endanger locks or state.
    ///
    /// # Errors
    /// `Config` with all of them.
    pub(crate) fn refuse_dangers(&self) -> Result<()> {
        match self.setup.safety {
            Safety::Warn => Ok(()),
            Safety::Strict => refuse(&self.dangers()),
        }
    }

    /// Which servers were connected to.
    fn connected(&self) -> Option<String> {
        let facts = self.facts.read();
        let version = |facts: &Facts| facts.version.clone().unwrap_or_else(|| "of an unknown version".to_owned());
        let mut servers: Vec<_> =
            facts.iter().map(|(endpoint, facts)| format!("{endpoint} ({})", version(facts))).collect();
        servers.sort();
        (!servers.is_empty()).then(|| format!("Connected to {}.", servers.join(", ")))
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

/// Where the servers are, and how the way to them is protected, a sentence each.
fn reached(target: &Target) -> Vec<String> {
    let mut notes = vec![format!("Configured: {}.", target.topology)];
    notes.push(match &target.topology {
        Topology::Standalone(Endpoint::Unix(_)) => "Encryption: none, over a unix socket.".to_owned(),
        _ => format!("Encryption: {}.", encryption(target.tls.as_ref())),
    });
    if let Topology::Sentinel(sentinels) = &target.topology {
        notes.push(format!("Encryption to the Sentinels: {}.", encryption(sentinels.tls.as_ref())));
    }
    notes
}

fn encryption(tls: Option<&TlsOptions>) -> String {
    match tls {
        None => "none".to_owned(),
        Some(TlsOptions { verify: true, .. }) => "TLS, and certificates are checked".to_owned(),
        Some(TlsOptions { prefix, .. }) => {
            let off = format!("{prefix}tls_verify = false");
            format!("TLS, BUT CERTIFICATES ARE NOT CHECKED ({off}): anyone on the way can read and change everything")
        }
    }
}
