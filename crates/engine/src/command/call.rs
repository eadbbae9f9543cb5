//! One command under way: what it was asked, what it holds, and where its reply goes.

use std::mem;
use std::ops::Range;
use std::sync::Arc;

use acteon_resp::ReplyWriter;

use super::error::CommandError;
use super::row::{Group, Row};
use crate::entry::{EntryRef, Kind, Removed};
use crate::instance::{Instance, Session};
use crate::lock::{Contended, Databases, Locked, Place};
use crate::observe::EventClass;
use crate::segment::{Context, Segment};
use crate::slot::Slot;
use crate::store::Store;

/// A command that runs. Its parts are fields, so that a handler can hold a key and write the reply at once:
///
/// ```ignore
/// fn strlen(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
///     let key = call.args[1];
///     let slot = call.keys.read(key);
///     let len = slot.str()?.map_or(0, <[u8]>::len);
///     call.reply.integer(len as i64);
///     Ok(())
/// }
/// ```
pub(crate) struct Call<'c, 'e> {
    pub(crate) instance: &'e Arc<Instance>,
    pub(crate) session: &'c mut Session,
    /// All arguments, the command's name first. Their number fits the row's arity.
    pub(crate) args: &'c [&'c [u8]],
    pub(crate) keys: Access<'c, 'e>,
    pub(crate) reply: ReplyWriter<'c>,
    pub(crate) row: &'static Row,
    /// What is to happen after the command.
    pub(crate) effects: &'c mut Effects,
    /// Inside of a transaction or script, or on behalf of a client that waits: the command must not wait.
    pub(crate) deny_blocking: bool,
    /// On behalf of a client that waited: the position of the key that has become ready for it.
    pub(crate) woken_by: Option<usize>,
}

/// A key whose hash is known.
#[derive(Clone, Copy)]
pub(crate) struct Known<'c> {
    pub(crate) key: &'c [u8],
    pub(crate) hash: u64,
}

impl<'c> Known<'c> {
    #[inline]
    pub(crate) fn of(key: &'c [u8], databases: &Databases) -> Self {
        Self { key, hash: databases.hash(key) }
    }
}

/// The keys of a command.
pub(crate) struct Access<'c, 'e> {
    pub(crate) locked: &'c mut Locked<'e>,
    /// The only key of the command, if it has one only.
    pub(crate) known: Option<Known<'c>>,
    /// The database that the session has selected.
    pub(crate) database: usize,
    pub(crate) now_us: u64,
    pub(crate) lookups: &'c mut Lookups,
}

/// Look-ups by commands that read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lookups {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
}

/// What a command leaves to be done when nothing is held any more.
#[derive(Default)]
pub(crate) struct Effects {
    /// The client waits.
    pub(crate) block: Option<BlockRequest>,
    /// The reply is or holds an error that the handler has counted itself.
    pub(crate) has_failed: bool,
    /// The connection ends after the reply.
    pub(crate) close: bool,
    /// Values that were removed; freeing large ones takes its time.
    pub(crate) garbage: Vec<Removed>,
    /// What was in segments that were emptied; freed as soon as nothing is held.
    pub(crate) stores: Vec<Store>,
    /// The command has changed something: `rdb_changes_since_last_save` counts these.
    pub(crate) changes: u64,
    /// Whether the log takes what a transaction or script writes, since somebody asked. Others may fill the log at any moment; what holds for the
    /// first write holds for all, so that nobody keeps half of them.
    pub(crate) is_writable: Option<Result<(), CommandError>>,
}

impl Effects {
    /// The command is over and what it has left is done, except for what was in segments, which is freed now. Returns whether the connection ends.
    #[inline]
    pub(crate) fn end(&mut self) -> bool {
        debug_assert!(self.block.is_none() && self.garbage.is_empty(), "they have been taken care of");
        if !self.stores.is_empty() {
            self.stores = Vec::new();
        }
        (self.has_failed, self.changes, self.is_writable) = (false, 0, None);
        mem::take(&mut self.close)
    }
}

/// A client that waits for one of several keys of its database to change, and whose command is then tried again.
pub(crate) struct BlockRequest {
    pub(crate) keys: Vec<Box<[u8]>>,
    /// What a key has to hold before the command is tried again.
    pub(crate) kind: Kind,
    /// When it gives up, by the engine's clock; `None`: never.
    pub(crate) until_us: Option<u64>,
    /// Writes what the client gets when it gives up.
    pub(crate) on_timeout: fn(&mut ReplyWriter<'_>),
}

impl<'e> Access<'_, 'e> {
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_us / 1_000
    }

    /// A key for a command that writes.
    pub(crate) fn slot<'s>(&'s mut self, key: &'s [u8]) -> Slot<'s> {
        self.slot_in(self.database, key)
    }

    /// The same in another database.
    #[inline]
    pub(crate) fn slot_in<'s>(&'s mut self, database: usize, key: &'s [u8]) -> Slot<'s> {
        let (now_ms, hash) = (self.now_ms(), self.hash(key));
        self.locked.used_slot_of_hash(database, key, hash, now_ms)
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> u64 {
        match self.known {
            // Lying at the same place, they are the same.
            Some(known) if std::ptr::eq(known.key, key) => known.hash,
            _ => self.locked.databases().hash(key),
        }
    }

    /// A key for a command that reads: counted as hit or miss.
    #[inline]
    pub(crate) fn read<'s>(&'s mut self, key: &'s [u8]) -> Slot<'s> {
        // Not by `slot`, which would borrow the counts as well.
        let (now_ms, database, hash) = (self.now_ms(), self.database, self.hash(key));
        let mut slot = self.locked.used_slot_of_hash(database, key, hash, now_ms);
        // Not by `exists`, which looks into the value: a collection does not stay empty once the slot is gone in which it became so.
        debug_assert_eq!(slot.bucket.is_some(), slot.exists(), "no key holds an empty collection when it is opened");
        if slot.bucket.is_some() {
            self.lookups.hits += 1;
        } else {
            self.lookups.misses += 1;
            slot.event(EventClass::MISS, "keymiss");
        }
        slot
    }

    /// Like [`read`](Self::read), but no use of the key: it stays as idle as it was.
    pub(crate) fn look<'s>(&'s mut self, key: &'s [u8]) -> Slot<'s> {
        let is_there = self.look_silently(key).exists();
        let mut slot = self.peek(key);
        if !is_there {
            slot.event(EventClass::MISS, "keymiss");
        }
        slot
    }

    /// The same without an event where there is no key.
    pub(crate) fn look_silently<'s>(&'s mut self, key: &'s [u8]) -> Slot<'s> {
        let (now_ms, database, hash) = (self.now_ms(), self.database, self.hash(key));
        let slot = self.locked.slot_of_hash(database, key, hash, now_ms);
        if slot.exists() {
            self.lookups.hits += 1;
        } else {
            self.lookups.misses += 1;
        }
        slot
    }

    /// A key for a command that only asks about it: does not count as use.
    pub(crate) fn peek<'s>(&'s mut self, key: &'s [u8]) -> Slot<'s> {
        let (now_ms, database, hash) = (self.now_ms(), self.database, self.hash(key));
        self.locked.slot_of_hash(database, key, hash, now_ms)
    }

    /// The value of a key that was read before by the same command: several can be looked at side by side.
    pub(crate) fn entry(&self, key: &[u8]) -> Option<EntryRef<'_>> {
        self.locked.entry(self.database, key)
    }

    /// The segments of the selected database, in order.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> + use<> {
        self.locked.databases().places_of(self.database)
    }

    /// Runs `step` on one segment, which is held for this long only, unless the command holds it anyway.
    ///
    /// # Errors
    /// [`CommandError::Contended`]: somebody holds it for long. The command ends with this error, having changed nothing, and is tried again.
    pub(crate) fn step<R>(
        &mut self,
        place: Place,
        step: impl FnOnce(&Context, &mut Segment) -> R,
    ) -> Result<R, CommandError> {
        self.locked.step(place, step).map_err(|Contended| CommandError::Contended)
    }
}

impl<'c> Call<'c, '_> {
    pub(crate) fn now_ms(&self) -> u64 {
        self.keys.now_ms()
    }

    /// Those of the waited-for keys, which are the arguments `keys`, that the command may use: all when it comes from the client,
    /// and the one that has become ready when it has waited.
    pub(crate) fn candidates(&self, keys: Range<usize>) -> &'c [&'c [u8]] {
        let args = self.args;
        match self.woken_by {
            Some(at) => &args[at..=at],
            None => &args[keys],
        }
    }

    /// Makes the client wait until one of `keys` holds what this family of commands works on, and try the command again then; not
    /// where waiting is denied: then the reply is that of a wait that ended.
    pub(crate) fn block(
        &mut self,
        keys: Vec<Box<[u8]>>,
        until_us: Option<u64>,
        on_timeout: fn(&mut ReplyWriter<'_>),
    ) -> Result<(), CommandError> {
        if self.deny_blocking {
            on_timeout(&mut self.reply);
        } else {
            let kind = if self.row.group == Group::SortedSet { Kind::SortedSet } else { Kind::List };
            self.effects.block = Some(BlockRequest { keys, kind, until_us, on_timeout });
        }
        Ok(())
    }
}
