//! What is noted of a command that has ended: counts, and who was slow.

use std::sync::atomic::Ordering;

use super::slowlog::{SlowCommand, kept_args};
use super::stats::Outcome;
use super::{Instance, Session};
use crate::command::{Command, CommandError, Flags, Lookups};

/// A command that was carried out, and that took long or ended in an error.
pub(crate) struct Ended<'a> {
    pub(crate) session: &'a Session,
    pub(crate) command: &'a Command,
    pub(crate) args: &'a [&'a [u8]],
    pub(crate) duration_ns: u64,
    /// The error, if it is still to be counted.
    pub(crate) error: Option<&'a CommandError>,
    /// By the engine's clock.
    pub(crate) now_us: u64,
}

impl Instance {
    /// Notes who was slow, and errors.
    #[cold]
    pub(super) fn note_ended(&self, ended: &Ended<'_>) {
        if let Some(error) = ended.error {
            self.stats.add_error(&error.to_bytes());
        }
        if ended.duration_ns >= self.settings.hears_of_ns() {
            self.note_long(ended);
        }
    }

    /// What is to be counted of a command.
    #[inline]
    pub(super) fn outcome(&self, command: &Command, duration_ns: u64, lookups: Lookups, has_failed: bool) -> Outcome {
        Outcome {
            command: command.number,
            calls: 1,
            duration_ns,
            has_failed,
            is_tracked: self.settings.latency_tracking.load(Ordering::Relaxed),
            hits: lookups.hits,
            misses: lookups.misses,
        }
    }

    fn note_long(&self, ended: &Ended<'_>) {
        let duration_ns = ended.duration_ns;
        let slower_us = self.settings.slowlog_slower_us.load(Ordering::Relaxed);
        // A negative threshold is one that no duration reaches.
        if u64::try_from(slower_us).is_ok_and(|slower_us| duration_ns / 1_000 >= slower_us) {
            self.note_slow(ended);
        }
        let event = if ended.command.row.flags.has(Flags::FAST) { "fast-command" } else { "command" };
        self.note_event(event, duration_ns, ended.now_us);
    }

    fn note_slow(&self, ended: &Ended<'_>) {
        if ended.command.row.flags.has(Flags::SKIP_SLOWLOG) {
            return;
        }
        let facts = &ended.session.peer.facts;
        let command = SlowCommand {
            id: 0,
            at_s: ended.now_us / 1_000_000,
            duration_us: ended.duration_ns / 1_000,
            args: kept_args(ended.args),
            peer_address: facts.peer_address.clone(),
            client_name: facts.name(),
        };
        self.slowlog.push(command, self.settings.slowlog_len_max.load(Ordering::Relaxed));
    }

    /// Something that is no command has taken this long.
    pub(super) fn note_event(&self, event: &'static str, duration_ns: u64, now_us: u64) {
        let threshold_ms = self.settings.latency_threshold_ms.load(Ordering::Relaxed);
        if threshold_ms > 0 && duration_ns / 1_000_000 >= threshold_ms {
            self.latency.add(event, now_us / 1_000_000, duration_ns / 1_000_000);
        }
    }
}
