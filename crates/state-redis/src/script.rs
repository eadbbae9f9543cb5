//! The Lua scripts, and how they reach the server.
//!
//! # How it works
//! Each script is a file of its own; parts that several share are put in front of it. The digest is computed here, so a call
//! is one `EVALSHA` from the start. All scripts are loaded when a connection opens. A server that has forgotten them
//! (`SCRIPT FLUSH`, a restart, a failover) answers `NOSCRIPT`, which is certain to have changed nothing: the call is then
//! sent once more as `EVAL`, which also loads it again.
//!
//! The first line declares what a script does. Redis refuses a script without `allow-oom` as a whole when memory has run
//! out, so none fails half-way; those that free something, or that keep a lock held, run even then.

use std::fmt::Write;
use std::sync::OnceLock;

use sha1::{Digest, Sha1};

use crate::wire::Cmd;

/// A script, compiled into the driver.
#[derive(Debug)]
pub(crate) struct Script {
    /// The first line: `#!lua` with flags.
    head: &'static str,
    parts: &'static [&'static str],
    body: &'static str,
    compiled: OnceLock<Compiled>,
}

#[derive(Debug)]
struct Compiled {
    source: String,
    /// What a call by its digest begins with.
    by_sha: Cmd,
}

/// How a call names its script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// By its digest: what is sent first.
    Sha,
    /// By its source: after `NOSCRIPT`.
    Source,
}

/// Room for the keys and arguments of nearly all calls.
const ARGUMENTS_BYTES_USUAL: usize = 320;

const READS: &str = "#!lua flags=no-writes\n";
const WRITES: &str = "#!lua\n";
const FREES: &str = "#!lua flags=allow-oom\n";

const RECORD: &str = include_str!("scripts/part_record.lua");
const CONDITION: &str = include_str!("scripts/part_condition.lua");
const WRITE: &str = include_str!("scripts/part_write.lua");
const ADD: &str = include_str!("scripts/part_add.lua");
const TIME: &str = include_str!("scripts/part_time.lua");
const ITEM: &str = include_str!("scripts/part_item.lua");
const LOCK: &str = include_str!("scripts/part_lock.lua");
// What a script of its own does, and what a gate does as well.
const PUTTING: &str = include_str!("scripts/part_put.lua");
const FIXED: &str = include_str!("scripts/part_rate_fixed.lua");
const SLIDING: &str = include_str!("scripts/part_rate_sliding.lua");
const CELLS: &str = include_str!("scripts/part_rate_gcra.lua");
const ACQUIRING: &str = include_str!("scripts/part_lock_acquire.lua");

pub(crate) static GET_TTL: Script = Script::new(READS, &[], include_str!("scripts/get_ttl.lua"));
pub(crate) static PUT: Script =
    Script::new(WRITES, &[RECORD, CONDITION, WRITE, PUTTING], include_str!("scripts/put.lua"));
pub(crate) static DELETE: Script = Script::new(FREES, &[RECORD, CONDITION], include_str!("scripts/delete.lua"));
pub(crate) static TAKE: Script = Script::new(FREES, &[RECORD], include_str!("scripts/take.lua"));
pub(crate) static PERSIST: Script = Script::new(FREES, &[], include_str!("scripts/persist.lua"));
pub(crate) static INCREMENT: Script = Script::new(WRITES, &[RECORD, ADD], include_str!("scripts/increment.lua"));
pub(crate) static RATE_FIXED: Script = Script::new(WRITES, &[FIXED], include_str!("scripts/rate_fixed.lua"));
pub(crate) static RATE_SLIDING: Script =
    Script::new(WRITES, &[TIME, SLIDING], include_str!("scripts/rate_sliding.lua"));
pub(crate) static RATE_GCRA: Script = Script::new(WRITES, &[TIME, CELLS], include_str!("scripts/rate_gcra.lua"));
pub(crate) static TRANSACT: Script =
    Script::new(WRITES, &[RECORD, CONDITION, WRITE, ADD], include_str!("scripts/transact.lua"));
pub(crate) static ADMIT: Script = Script::new(
    WRITES,
    &[TIME, RECORD, CONDITION, WRITE, PUTTING, FIXED, SLIDING, CELLS, LOCK, ACQUIRING],
    include_str!("scripts/admit.lua"),
);
pub(crate) static SCHEDULE: Script = Script::new(WRITES, &[TIME], include_str!("scripts/schedule.lua"));
pub(crate) static CANCEL: Script = Script::new(FREES, &[], include_str!("scripts/cancel.lua"));
pub(crate) static CLAIM_DUE: Script = Script::new(FREES, &[TIME, ITEM], include_str!("scripts/claim_due.lua"));
pub(crate) static ACK: Script = Script::new(FREES, &[ITEM], include_str!("scripts/ack.lua"));
pub(crate) static ACK_MANY: Script = Script::new(FREES, &[ITEM], include_str!("scripts/ack_many.lua"));
pub(crate) static EXTEND_CLAIM: Script = Script::new(FREES, &[TIME, ITEM], include_str!("scripts/extend_claim.lua"));
pub(crate) static LOCK_ACQUIRE: Script =
    Script::new(WRITES, &[TIME, LOCK, ACQUIRING], include_str!("scripts/lock_acquire.lua"));
pub(crate) static LOCK_EXTEND: Script = Script::new(FREES, &[TIME, LOCK], include_str!("scripts/lock_extend.lua"));
pub(crate) static LOCK_RELEASE: Script = Script::new(FREES, &[TIME, LOCK], include_str!("scripts/lock_release.lua"));
pub(crate) static LOCK_WITHDRAW: Script = Script::new(FREES, &[TIME, LOCK], include_str!("scripts/lock_withdraw.lua"));
pub(crate) static LOCK_FORCE_RELEASE: Script =
    Script::new(FREES, &[TIME, LOCK], include_str!("scripts/lock_force_release.lua"));

pub(crate) static LOCK_READ: Script = Script::new(READS, &[], include_str!("scripts/lock_read.lua"));
pub(crate) static QUARANTINE: Script = Script::new(WRITES, &[TIME], include_str!("scripts/quarantine.lua"));

/// Every script: what is loaded when a connection opens.
pub(crate) static ALL: [&Script; 24] = [
    &GET_TTL,
    &PUT,
    &DELETE,
    &TAKE,
    &PERSIST,
    &INCREMENT,
    &RATE_FIXED,
    &RATE_SLIDING,
    &RATE_GCRA,
    &TRANSACT,
    &ADMIT,
    &SCHEDULE,
    &CANCEL,
    &CLAIM_DUE,
    &ACK,
    &ACK_MANY,
    &EXTEND_CLAIM,
    &LOCK_ACQUIRE,
    &LOCK_EXTEND,
    &LOCK_RELEASE,
    &LOCK_WITHDRAW,
    &LOCK_FORCE_RELEASE,
    &LOCK_READ,
    &QUARANTINE,
];

impl Script {
    const fn new(head: &'static str, parts: &'static [&'static str], body: &'static str) -> Self {
        Self { head, parts, body, compiled: OnceLock::new() }
    }

    /// The beginning of a call: keys and arguments follow.
    pub(crate) fn command(&self, by: By, keys: usize) -> Cmd {
        let Compiled { source, by_sha } = self.compiled();
        let mut cmd = match by {
            By::Sha => Cmd::beginning_with(by_sha, ARGUMENTS_BYTES_USUAL),
            By::Source => {
                let mut cmd = Cmd::new("EVAL");
                cmd.arg(source);
                cmd
            }
        };
        cmd.number(keys);
        cmd
    }

    /// The command that loads it.
    pub(crate) fn load_command(&self) -> Cmd {
        let mut cmd = Cmd::new("SCRIPT");
        cmd.arg("LOAD").arg(&self.compiled().source);
        cmd
    }

    fn compiled(&self) -> &Compiled {
        self.compiled.get_or_init(|| {
            let mut source = self.head.to_owned();
            for part in self.parts {
                source.push_str(part);
            }
            source.push_str(self.body);
            let mut by_sha = Cmd::new("EVALSHA");
            by_sha.arg(sha1_hex(&source));
            Compiled { source, by_sha }
        })
    }
}

/// How the server names a script.
fn sha1_hex(source: &str) -> String {
    Sha1::digest(source).iter().fold(String::with_capacity(40), |mut hex, byte| {
        // Writing to a string never fails.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::{ALL, By, sha1_hex};

    #[test]
    fn every_script_documents_its_keys_arguments_and_replies() {
        for script in ALL {
            assert!(script.body.starts_with("-- "), "{}", script.body);
            assert!(script.body.contains("-- KEYS") && script.body.contains("-- Returns"), "{}", script.body);
            assert_eq!(script.body.contains("ARGV["), script.body.contains("-- ARGV"), "{}", script.body);
        }
    }

    #[test]
    fn scripts_differ_and_are_called_by_digest() {
        let mut digests = Vec::new();
        for script in ALL {
            let cmd = script.command(By::Sha, 1);
            let args: Vec<&[u8]> = cmd.args().collect();
            assert!(matches!(args[..], [b"EVALSHA", digest, b"1"] if digest.len() == 40), "{args:?}");
            digests.push(args[1].to_vec());
        }
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), ALL.len());
        // As `redis-cli SCRIPT LOAD 'return 1'` says.
        assert_eq!(sha1_hex("return 1"), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
    }
}
