//! Opens one connection for use: find the server, dial it, ask it what it is, load the scripts.
//!
//! # Failure
//! Each step has its own message, without credentials. All of them together are bounded by `connect_timeout`.

use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::{ErrorKind, Result};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::dial::{Dialed, Dialer, failed, refused_login};
use crate::error::from_server;
use crate::quarantine::Quarantine;
use crate::safety::refuse_settings;
use crate::script;
use crate::semantics::Setup;
use crate::sentinel::Sentinels;
use crate::server::{Facts, QUESTIONS, Role, questions};
use crate::topology::Endpoint;
use crate::wire::{Cmd, OnPush, Pipeline, Value, Wire};

/// Opens connections to one server, or to whichever server has its part.
pub(crate) struct Connector {
    finder: Finder,
    role: Role,
    common: Arc<Common>,
}

/// What the connectors of all data nodes share.
pub(crate) struct Common {
    pub(crate) dialer: Dialer,
    pub(crate) connect_timeout: Duration,
    pub(crate) on_push: OnPush,
    /// In strict safety: when a server may grant locks.
    pub(crate) quarantine: Option<Quarantine>,
    /// In strict safety: by what to judge the settings of primaries.
    pub(crate) strict: Option<Setup>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Calls,
    /// Grants of locks that replicas must have, and nothing else.
    Grants,
}

/// Where to connect to.
pub(crate) enum Finder {
    Fixed(Endpoint),
    /// To the server that Sentinels name.
    Sentinels(Arc<Sentinels>),
}

/// A connection as callers share it.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) wire: Wire,
    /// When the server may grant locks; always there in a connection for grants.
    pub(crate) grants_from: Option<Instant>,
}

/// An open connection.
pub(crate) struct Opened {
    pub(crate) live: Live,
    pub(crate) endpoint: Endpoint,
    /// Moves bytes; ends when the connection does.
    pub(crate) driver: AbortOnDropHandle<()>,
    pub(crate) facts: Facts,
}

impl Common {
    /// Asks a server once, over a connection of its own.
    pub(crate) async fn ask(&self, endpoint: &Endpoint, pipeline: &Pipeline) -> Result<Vec<Value>> {
        let asked = tokio::time::timeout(self.connect_timeout, async {
            let dialed = self.dialer.dial(endpoint, Arc::new(|_| {})).await?;
            dialed.wire.ask(pipeline).await.map_err(|failure| refused_login(endpoint, failure))
        });
        asked.await.unwrap_or_else(|_| {
            let what = self.silence();
            Err(failed(endpoint, ErrorKind::Unavailable, what))
        })
    }

    /// What is wrong with a server that says nothing.
    fn silence(&self) -> String {
        format!("there was no answer within {:?}{}", self.connect_timeout, self.dialer.hint_on_silence())
    }
}

impl Connector {
    pub(crate) fn new(finder: Finder, role: Role, common: Arc<Common>) -> Self {
        Self { finder, role, common }
    }

    /// Opens a connection, ready for use.
    pub(crate) async fn open(&self, purpose: Purpose) -> Result<Opened> {
        let until = Instant::now() + self.common.connect_timeout;
        let sentinels = match &self.finder {
            Finder::Fixed(endpoint) => return self.open_at(endpoint, purpose, until).await,
            Finder::Sentinels(sentinels) => sentinels,
        };
        let claim = sentinels.find(until).await?;
        match self.open_at(&claim.primary, purpose, until).await {
            Err(error) if error.kind() == ErrorKind::Failover => {
                sentinels.refute(claim.clone());
                let other = sentinels.find(until).await?;
                if other == claim { Err(error) } else { self.open_at(&other.primary, purpose, until).await }
            }
            opened => opened,
        }
    }

    /// Waits until there is another server to connect to than this one.
    pub(crate) async fn left(&self, endpoint: &Endpoint) {
        match &self.finder {
            Finder::Fixed(_) => std::future::pending().await,
            Finder::Sentinels(sentinels) => sentinels.left(endpoint).await,
        }
    }

    /// Waits until there may be a server at another address than before.
    pub(crate) async fn moved(&self) {
        match &self.finder {
            Finder::Fixed(_) => std::future::pending().await,
            Finder::Sentinels(sentinels) => sentinels.moved().await,
        }
    }

    /// What it connects to, for messages.
    pub(crate) fn name(&self) -> String {
        match &self.finder {
            Finder::Fixed(endpoint) => endpoint.to_string(),
            Finder::Sentinels(sentinels) => sentinels.to_string(),
        }
    }

    async fn open_at(&self, endpoint: &Endpoint, purpose: Purpose, until: Instant) -> Result<Opened> {
        let opened = tokio::time::timeout_at(until, self.open_unbounded(endpoint, purpose)).await;
        opened.unwrap_or_else(|_| Err(failed(endpoint, ErrorKind::Unavailable, self.common.silence())))
    }

    async fn open_unbounded(&self, endpoint: &Endpoint, purpose: Purpose) -> Result<Opened> {
        let Dialed { wire, driver } = self.common.dialer.dial(endpoint, self.common.on_push.clone()).await?;
        let facts = self.prepare(endpoint, &wire).await?;
        let grants_from = match (&self.common.quarantine, self.role) {
            (Some(quarantine), Role::Primary(_)) => quarantine.ask(&wire, endpoint, &facts).await?,
            _ => None,
        };
        if purpose == Purpose::Grants && grants_from.is_none() {
            let what = "NOREPLICAS: too few replicas follow the primary, so it cannot grant locks";
            return Err(failed(endpoint, ErrorKind::NotDurable, what));
        }
        let live = Live { wire, grants_from };
        Ok(Opened { live, endpoint: endpoint.clone(), driver, facts })
    }

    /// One round trip: the server's facts and all scripts.
    async fn prepare(&self, endpoint: &Endpoint, wire: &Wire) -> Result<Facts> {
        let mut pipeline: Pipeline = questions().iter().collect();
        match self.role {
            Role::Primary(_) => {
                script::ALL.iter().for_each(|script| {
                    pipeline.add(&script.load_command());
                });
            }
            // A replica of a cluster sends readers away until they say that they know what it is.
            Role::Replica(_) => {
                pipeline.add(&Cmd::new("READONLY"));
            }
        }
        let answers = wire.ask(&pipeline).await.map_err(|failure| refused_login(endpoint, failure))?;
        let facts = Facts::read(&answers);
        facts.check(self.role).map_err(|error| failed(endpoint, error.kind(), error.message()))?;
        if matches!(self.role, Role::Primary(_)) {
            if let Some(setup) = &self.common.strict {
                refuse_settings(&facts, setup)?;
            }
            for answer in answers.iter().skip(QUESTIONS) {
                if let Value::ServerError(error) = answer
                    // A user without the right to load scripts may still run them by source; anything else is final.
                    && error.code() != "NOPERM"
                {
                    return Err(from_server(error));
                }
            }
        }
        Ok(facts)
    }
}
