//! What a connection has said about itself: database, protocol, transaction, watched keys.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use acteon_resp::Protocol;

use super::mailbox::Peer;
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
    /// Thresholds of encodings, of this version of the settings.
    pub(crate) limits: Limits,
    pub(crate) settings_version: u64,
    pub(crate) random: Random,
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
    pub(crate) keys: Vec<(usize, Box<[u8]>)>,
}

impl Session {
    pub(crate) fn new(peer: Arc<Peer>, limits: (u64, Limits), seed: u64) -> Self {
        Self {
            peer,
            database: 0,
            protocol: Protocol::default(),
            transaction: None,
            watched: None,
            settings_version: limits.0,
            limits: limits.1,
            random: Random::new(seed),
        }
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
