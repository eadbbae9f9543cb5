//! What the connected server says about itself, and what follows from it.
//!
//! Asked once per connection, in one statement. Whether a pooler is in between and how the way to the server is protected
//! is not the server's to say: [`Connector`](crate::connect::Connector) adds it.

use acteon_state_core::{
    Capabilities, Error, ErrorKind, LockClock, LockSemantics, Result, Survival, TransactLimits, TransactScope, Waiting,
};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::error::BACKEND;

/// The oldest version with what we use: scans by ranges of row positions, which the sweep is made of.
const VERSION_NUM_MIN: i32 = 140_000;
/// The most operations of one transaction: it is one statement, which keeps its rows locked for as long as it runs.
const TRANSACT_OPS_MAX: usize = 1_000;

/// The question; [`Facts::read`] takes the one row of its answer.
///
/// A walsender of a base backup or of a logical subscription is no standby. A role without the rights of `pg_monitor` sees
/// the rows of others without their state.
///
/// Both statements are one transaction. The search path comes first: the answer is to be PostgreSQL's own.
pub(crate) const QUESTION: &str = "
SET LOCAL search_path = pg_catalog, pg_temp;
SELECT current_setting('server_version_num')::int4 AS version_num,
       current_setting('server_version') AS version,
       pg_is_in_recovery() AS in_recovery,
       current_setting('transaction_read_only') = 'on' AS read_only,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('synchronous_standby_names') AS synchronous_standby_names,
       current_setting('fsync') = 'on' AS fsync,
       current_setting('full_page_writes') = 'on' AS full_page_writes,
       current_setting('server_encoding') AS encoding,
       COALESCE((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS tls,
       standbys, synchronous, hidden
  FROM (SELECT count(*)::int4 AS standbys,
               count(*) FILTER (WHERE sync_state IN ('sync', 'quorum'))::int4 AS synchronous,
               count(*) FILTER (WHERE sync_state IS NULL)::int4 AS hidden
          FROM pg_stat_replication AS sender
         WHERE state IS DISTINCT FROM 'backup'
           AND NOT EXISTS (SELECT FROM pg_replication_slots
                            WHERE active_pid = sender.pid AND slot_type = 'logical')) AS senders";

/// What protects the way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// It does not leave the machine.
    Local,
    /// Nothing.
    Plain,
    /// TLS with somebody: the certificate was not checked against the host's name.
    Unverified,
    /// TLS with the host that was meant.
    Verified,
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "a list of independent facts, read by name")]
pub(crate) struct Facts {
    /// Such as 150004 for 15.4.
    pub(crate) version_num: i32,
    /// Such as `15.4 (Debian 15.4-1)`.
    pub(crate) version: String,
    /// It is a standby.
    pub(crate) in_recovery: bool,
    /// Transactions are read-only, as a standby or by `default_transaction_read_only`.
    pub(crate) read_only: bool,
    /// The session's default, from the role, the database or the server.
    pub(crate) synchronous_commit: String,
    /// Empty when commits wait for no standby.
    pub(crate) synchronous_standby_names: String,
    /// Standbys that were connected.
    pub(crate) standbys: i32,
    /// How many of them commits wait for; `None` when the role may not see it.
    pub(crate) standbys_synchronous: Option<i32>,
    pub(crate) fsync: bool,
    pub(crate) full_page_writes: bool,
    pub(crate) encoding: String,
    /// The server's end of the connection uses TLS. Behind a pooler, that is the connection of the pooler.
    pub(crate) tls: bool,
    /// A transaction pooler is in between.
    pub(crate) pooled: bool,
    pub(crate) wire: Wire,
}

impl Facts {
    /// What is assumed before a server was reached: the weaker case.
    pub(crate) fn unknown() -> Self {
        Self {
            version_num: 0,
            version: String::new(),
            in_recovery: false,
            read_only: false,
            synchronous_commit: "on".to_owned(),
            synchronous_standby_names: String::new(),
            standbys: 0,
            standbys_synchronous: None,
            fsync: false,
            full_page_writes: false,
            encoding: String::new(),
            tls: false,
            pooled: false,
            wire: Wire::Local,
        }
    }

    /// Reads the answer to [`QUESTION`].
    ///
    /// # Errors
    /// When the answer has another shape.
    pub(crate) fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        let hidden: i32 = row.try_get("hidden")?;
        let synchronous: i32 = row.try_get("synchronous")?;
        Ok(Self {
            version_num: row.try_get("version_num")?,
            version: row.try_get("version")?,
            in_recovery: row.try_get("in_recovery")?,
            read_only: row.try_get("read_only")?,
            synchronous_commit: row.try_get("synchronous_commit")?,
            synchronous_standby_names: row.try_get("synchronous_standby_names")?,
            standbys: row.try_get("standbys")?,
            standbys_synchronous: (hidden == 0).then_some(synchronous),
            fsync: row.try_get("fsync")?,
            full_page_writes: row.try_get("full_page_writes")?,
            encoding: row.try_get("encoding")?,
            tls: row.try_get("tls")?,
            pooled: false,
            wire: Wire::Local,
        })
    }

    /// Refuses a server that cannot do what we need.
    ///
    /// # Errors
    /// `Config` for a version below 14 or a database in another encoding than UTF8; `Failover` for a standby or a server
    /// that was made read-only.
    pub(crate) fn check(&self) -> Result<()> {
        if self.version_num < VERSION_NUM_MIN {
            let message = format!("the server is PostgreSQL {}; needed is 14 or newer", self.version);
            return Err(Error::config(message).on_backend(BACKEND));
        }
        if self.encoding != "UTF8" {
            let message = format!(
                "the database's encoding is {}; needed is UTF8 (createdb --template=template0 --encoding=UTF8)",
                self.encoding
            );
            return Err(Error::config(message).on_backend(BACKEND));
        }
        if self.in_recovery {
            let message =
                "the server is a standby, which cannot be written to; connect to the primary, or list all hosts";
            return Err(Error::new(ErrorKind::Failover, message).on_backend(BACKEND));
        }
        if self.read_only {
            let message = "transactions are read-only here: default_transaction_read_only is on for the server, the database or the role";
            return Err(Error::new(ErrorKind::Failover, message).on_backend(BACKEND));
        }
        Ok(())
    }

    /// What can be done on this server.
    pub(crate) fn capabilities(&self, value_bytes_max: u64) -> Capabilities {
        Capabilities {
            cas: true,
            fencing: true,
            counters: true,
            rate_limits: true,
            transact: Some(TransactLimits { scope: TransactScope::AnyKeys, ops_max: TRANSACT_OPS_MAX }),
            // Each gate is a statement of its own, whose answer decides about the next.
            gates: false,
            scan: true,
            ordered_scan: true,
            due: true,
            locks: true,
            shared_locks: true,
            semaphores: true,
            server_clock: true,
            // A lower synchronous_commit of the role is raised for each write that is not of a relaxed kind.
            durable: self.fsync,
            shared: true,
            value_bytes_max,
        }
    }

    /// What locks guarantee on this server.
    pub(crate) fn lock_semantics(&self) -> LockSemantics {
        let (standby, tokens_rise_across, survives_failover, fit_for) = match self.replication() {
            Replication::None => ("no standby", "restart", Survival::NotApplicable, "correctness of grants"),
            Replication::Asynchronous => (
                "asynchronous standby",
                "failover (time floor)",
                Survival::MayBeLost { bound: "what the standby had not received" },
                "correctness until failover",
            ),
            Replication::Synchronous => ("synchronous standby", "failover", Survival::Yes, "correctness of grants"),
        };
        let (survives_server_crash, fit_for) = if self.fsync {
            (Survival::Yes, fit_for)
        } else {
            (Survival::No, "efficiency; with fenced writes correctness")
        };
        LockSemantics {
            topology: format!("postgres, {standby}{}", if self.pooled { ", through a transaction pooler" } else { "" }),
            clock: LockClock::ServerWall,
            tokens_rise_across: tokens_rise_across.to_owned(),
            survives_server_crash,
            survives_failover,
            waiting: if self.pooled { Waiting::Backoff } else { Waiting::NotifyAndSleep },
            fit_for: fit_for.to_owned(),
            notes: self.notes(),
        }
    }

    /// Commits wait for the standbys that are named, whether or not one is connected at the moment.
    fn replication(&self) -> Replication {
        if !self.synchronous_standby_names.is_empty() {
            Replication::Synchronous
        } else if self.standbys > 0 {
            Replication::Asynchronous
        } else {
            Replication::None
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            "A lease does not stop a paused holder: fence the writes that it protects, or make them in the transaction of \
             with_tx_lock."
                .to_owned(),
        ];
        notes.extend(self.replication_note());
        if !self.fsync {
            let note = "fsync is off: a crash of the machine may lose grants and damage the database; set fsync = on.";
            notes.push(note.to_owned());
        }
        if !self.full_page_writes {
            let note = "full_page_writes is off: unless the file system never tears a page, a crash of the machine may \
                        damage the database.";
            notes.push(note.to_owned());
        }
        if ["off", "local", "remote_write"].contains(&self.synchronous_commit.as_str()) {
            notes.push(format!(
                "synchronous_commit of the role is {}: locks and all writes but those of relaxed kinds are committed with `on`.",
                self.synchronous_commit
            ));
        }
        if self.pooled {
            let note = "A transaction pooler is in between: waiters sleep instead of being notified, and statement_timeout \
                        must be set for the role; connect directly, or by a pooler in session mode.";
            notes.push(note.to_owned());
        }
        notes.extend(self.wire_note().map(str::to_owned));
        notes
    }

    fn replication_note(&self) -> Option<String> {
        let clock = "until then tokens rise by the server's time, so the clocks of both servers must not differ by more than \
                     the failover takes";
        match (self.replication(), self.standbys_synchronous) {
            (Replication::None, _) => Some(
                "No standby was connected: a failover to a copy that is made otherwise may lose grants; for high \
                 availability add a standby and name it in synchronous_standby_names."
                    .to_owned(),
            ),
            (Replication::Asynchronous, _) => Some(format!(
                "No standby is synchronous: name one in synchronous_standby_names to keep grants across a failover; {clock}."
            )),
            (Replication::Synchronous, Some(0)) => Some(
                "synchronous_standby_names is set but no such standby is connected: writes wait until one is."
                    .to_owned(),
            ),
            (Replication::Synchronous, Some(synchronous)) if synchronous < self.standbys => {
                Some("Some standbys are not synchronous: promote only one that is, or grants may be lost.".to_owned())
            }
            (Replication::Synchronous, None) => Some(
                "The role may not see which standbys are synchronous (GRANT pg_monitor): promote only one that is."
                    .to_owned(),
            ),
            (Replication::Synchronous, Some(_)) => None,
        }
    }

    fn wire_note(&self) -> Option<&'static str> {
        match self.wire {
            Wire::Local | Wire::Verified => None,
            Wire::Plain => Some(
                "The connection is not encrypted: anyone on the way can read and change everything; set sslmode = \"verify-full\".",
            ),
            Wire::Unverified => Some(
                "The server's certificate is not checked against its name: anyone on the way can pose as the server; set \
                 sslmode = \"verify-full\".",
            ),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replication {
    None,
    Asynchronous,
    Synchronous,
}

#[cfg(test)]
mod tests {
    use acteon_state_core::{ErrorKind, Survival, Waiting};

    use super::{Facts, Wire};

    fn facts() -> Facts {
        Facts {
            version_num: 150_004,
            version: "15.4".to_owned(),
            in_recovery: false,
            read_only: false,
            synchronous_commit: "on".to_owned(),
            synchronous_standby_names: String::new(),
            standbys: 0,
            standbys_synchronous: Some(0),
            fsync: true,
            full_page_writes: true,
            encoding: "UTF8".to_owned(),
            tls: false,
            pooled: false,
            wire: Wire::Local,
        }
    }

    fn notes(facts: &Facts) -> String {
        facts.lock_semantics().notes.join("\n")
    }

    #[test]
    fn servers_that_will_not_do_are_refused() {
        assert!(facts().check().is_ok());
        for (facts, kind, text) in [
            (
                Facts { version_num: 130_012, version: "13.12".to_owned(), ..facts() },
                ErrorKind::Config,
                "PostgreSQL 13.12; needed is 14",
            ),
            (Facts { encoding: "SQL_ASCII".to_owned(), ..facts() }, ErrorKind::Config, "SQL_ASCII"),
            (Facts { in_recovery: true, read_only: true, ..facts() }, ErrorKind::Failover, "standby"),
            (Facts { read_only: true, ..facts() }, ErrorKind::Failover, "default_transaction_read_only"),
        ] {
            let error = facts.check().unwrap_err();
            assert!(error.kind() == kind && error.message().contains(text), "{error}");
        }
    }

    #[test]
    fn the_topology_decides_what_a_failover_leaves() {
        let none = facts().lock_semantics();
        assert_eq!((none.topology.as_str(), none.survives_failover), ("postgres, no standby", Survival::NotApplicable));
        assert_eq!(none.waiting, Waiting::NotifyAndSleep);

        let asynchronous = Facts { standbys: 2, ..facts() };
        let semantics = asynchronous.lock_semantics();
        assert_eq!(semantics.topology, "postgres, asynchronous standby");
        assert!(matches!(semantics.survives_failover, Survival::MayBeLost { .. }));
        assert!(notes(&asynchronous).contains("synchronous_standby_names"));

        let names = "ANY 1 (a, b)".to_owned();
        let synchronous =
            Facts { synchronous_standby_names: names, standbys: 1, standbys_synchronous: Some(1), ..facts() };
        let semantics = synchronous.lock_semantics();
        assert_eq!(semantics.topology, "postgres, synchronous standby");
        assert_eq!((semantics.survives_server_crash, semantics.survives_failover), (Survival::Yes, Survival::Yes));
        assert_eq!(semantics.notes.len(), 1, "{:?}", semantics.notes);

        let waiting = Facts { standbys: 0, standbys_synchronous: Some(0), ..synchronous.clone() };
        assert!(notes(&waiting).contains("writes wait"));
        let mixed = Facts { standbys: 2, ..synchronous.clone() };
        assert!(notes(&mixed).contains("Some standbys are not"));
        let hidden = Facts { standbys_synchronous: None, ..synchronous };
        assert!(notes(&hidden).contains("pg_monitor"));
    }

    #[test]
    fn without_fsync_nothing_is_durable() {
        assert!(facts().capabilities(1).durable);
        let careless = Facts { fsync: false, full_page_writes: false, ..facts() };
        assert!(!careless.capabilities(1).durable);
        assert_eq!(careless.lock_semantics().survives_server_crash, Survival::No);
        assert!(notes(&careless).contains("fsync is off") && notes(&careless).contains("full_page_writes is off"));
    }

    #[test]
    fn notes_say_what_would_make_it_stronger() {
        assert!(notes(&Facts { synchronous_commit: "off".to_owned(), ..facts() }).contains("of the role is off"));
        assert!(!notes(&Facts { synchronous_commit: "remote_apply".to_owned(), ..facts() }).contains("of the role"));
        assert!(notes(&Facts { wire: Wire::Plain, ..facts() }).contains("not encrypted"));
        assert!(notes(&Facts { wire: Wire::Unverified, ..facts() }).contains("verify-full"));
        let pooled = Facts { pooled: true, ..facts() };
        assert_eq!(pooled.lock_semantics().topology, "postgres, no standby, through a transaction pooler");
        assert!(notes(&pooled).contains("pooler") && pooled.lock_semantics().waiting == Waiting::Backoff);
    }
}
