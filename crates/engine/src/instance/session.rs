//! What a connection has said about itself: user, database, protocol, transaction, watched keys, subscriptions.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use acteon_resp::Protocol;

use super::mailbox::Peer;
use super::monitor::Told;
use super::pubsub::Subscriptions;
use crate::algorithm::random::Random;
use crate::value::Limits;

/// The state of one connection, which its commands read and change.
pub(crate) struct Session {
    /// What others see of the connection.
    pub(crate) peer: Arc<Peer>,
    pub(crate) database: usize,
    pub(crate) protocol: Protocol,
    pub(crate) transaction: Option<Transaction>,
    pub(crate) watched: Option<Watched>,
    /// Some while there is a subscription.
    pub(crate) subscriptions: Option<Box<Subscriptions>>,
    /// It may do everything; else it has to come in by AUTH, unless nobody needs to.
    pub(crate) is_authenticated: bool,
    /// It has asked for the commands of all others.
    pub(crate) is_monitor: bool,
    pub(crate) replies: Replies,
    /// A script of this connection runs: MONITOR says so of what it calls.
    pub(crate) is_in_script: bool,
    /// There was no memory when the command came that runs.
    pub(crate) lacks_memory: bool,
    /// What MONITOR has shown of the command that runs.
    pub(crate) told: Told,
    /// Thresholds of encodings, of this version of the settings.
    pub(crate) limits: Limits,
    pub(crate) settings_version: u64,
    pub(crate) random: Random,
}

/// Whether commands are answered, see `CLIENT REPLY`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Replies {
    #[default]
    On,
    Off,
    /// The next command is not answered.
    SkipNext,
    /// The command that runs is not answered.
    Skip,
}

/// Commands between MULTI and EXEC.
#[derive(Default)]
pub(crate) struct Transaction {
    pub(crate) queue: Vec<Vec<Box<[u8]>>>,
    /// Bytes of all queued arguments, which are bounded.
    pub(crate) queued_bytes: usize,
    /// A command was refused when it was queued: EXEC will refuse.
    pub(crate) is_spoilt: bool,
}

/// Keys whose change makes EXEC give up.
pub(crate) struct Watched {
    /// Set by the first change of one of them.
    pub(crate) is_dirty: Arc<AtomicBool>,
    pub(crate) keys: HashSet<(usize, Box<[u8]>)>,
}

impl Session {
    pub(crate) fn new(peer: Arc<Peer>, limits: (u64, Limits), seed: u64) -> Self {
        Self {
            peer,
            database: 0,
            protocol: Protocol::default(),
            transaction: None,
            watched: None,
            subscriptions: None,
            is_authenticated: true,
            is_monitor: false,
            replies: Replies::On,
            is_in_script: false,
            lacks_memory: false,
            told: Told::default(),
            settings_version: limits.0,
            limits: limits.1,
            random: Random::new(seed),
        }
    }

    /// Whether replies are held back. Messages are not.
    pub(crate) fn is_silent(&self) -> bool {
        self.replies != Replies::On
    }

    /// Whether messages may arrive, which in the older protocol restricts what can be said.
    pub(crate) fn is_subscriber(&self) -> bool {
        self.subscriptions.is_some()
    }

    /// For carrying out a command of this connection elsewhere, while it waits.
    pub(crate) fn detached(&self) -> DetachedSession {
        DetachedSession {
            peer: self.peer.clone(),
            database: self.database,
            protocol: self.protocol,
            limits: self.limits,
            settings_version: self.settings_version,
        }
    }
}

/// What a waiting command needs of its session.
pub(crate) struct DetachedSession {
    peer: Arc<Peer>,
    pub(crate) database: usize,
    pub(crate) protocol: Protocol,
    limits: Limits,
    settings_version: u64,
}

impl DetachedSession {
    pub(crate) fn attach(&self, seed: u64) -> Session {
        Session {
            database: self.database,
            protocol: self.protocol,
            ..Session::new(self.peer.clone(), (self.settings_version, self.limits), seed)
        }
    }
}
