//! MULTI, EXEC, DISCARD, WATCH, UNWATCH.
//!
//! # Guarantees
//! EXEC holds the keys of all of its commands from before the first to after the last one, so nobody sees a part of them. It gives up,
//! changing nothing, if a watched key was changed, by anybody and even if changed back, or has expired since WATCH.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use acteon_resp::ReplyWriter;
use smallvec::SmallVec;

use super::call::Call;
use super::error::CommandError;
use super::row::{Flags, Group, Row, Scope};
use super::{Command, look_up};
use crate::instance::{Instance, Mark, Need, Session, Transaction, Watched, nested};
use crate::lock::Places;

/// Most bytes that a transaction may queue.
const QUEUED_BYTES_MAX: usize = 1 << 30;

impl Transaction {
    /// Keeps one more command.
    pub(crate) fn push(&mut self, args: &[&[u8]]) -> Result<(), CommandError> {
        // With what the memory for each costs: any number of empty arguments would be free otherwise.
        let bytes = args.iter().map(|arg| arg.len() + size_of::<Box<[u8]>>()).sum::<usize>();
        if self.queued_bytes.saturating_add(bytes) > QUEUED_BYTES_MAX {
            return Err(CommandError::text("ERR the transaction queues more than 1 GiB"));
        }
        self.queued_bytes += bytes;
        self.queue.push(args.iter().map(|arg| Box::from(*arg)).collect());
        Ok(())
    }

    /// Whether one of the commands has this flag.
    pub(crate) fn has(&self, flag: Flags) -> bool {
        self.queue.iter().any(|args| {
            let args: Vec<&[u8]> = args.iter().map(|arg| &**arg).collect();
            look_up(&args).is_ok_and(|command| command.row.flags.has(flag))
        })
    }
}

impl Instance {
    /// What the queued commands and the watched keys need together.
    pub(crate) fn need_of_transaction(&self, session: &Session) -> Need {
        let (mut places, mut databases) = (Places::new(), SmallVec::<[usize; 2]>::new());
        let mut is_everything = false;
        if let Some(watched) = &session.watched {
            places.extend(watched.keys.iter().map(|(database, key)| self.databases.place(*database, key)));
        }
        // SELECT among the commands changes what the later ones mean: look at them as if it were carried out.
        let mut looking = session.detached().attach(0);
        for args in session.transaction.iter().flat_map(|transaction| &transaction.queue) {
            let args: Vec<&[u8]> = args.iter().map(|arg| &**arg).collect();
            let Ok(command) = look_up(&args) else { continue };
            match Need::within(self, &looking, &command, &args) {
                Need::Places(more) => places.extend(more),
                Need::Everything => is_everything = true,
                Need::Databases(more) => {
                    let is_new = |number: &usize| !databases.contains(number);
                    let new: SmallVec<[usize; 2]> = more.into_iter().filter(is_new).collect();
                    databases.extend(new);
                }
            }
            if command.row.name == "select"
                && let Some(database) = args.get(1).and_then(|text| acteon_resp::parse_i64(text))
                && let Some(database) = usize::try_from(database).ok().filter(|number| *number < self.databases.count())
            {
                looking.database = database;
            }
        }
        if is_everything {
            // From now on they are in use.
            databases.iter().for_each(|number| {
                self.databases.get(*number);
            });
            return Need::Everything;
        }
        databases.sort_unstable();
        // Put together at the end: many commands that need a whole database would name its places as many times.
        match (databases.is_empty(), places.is_empty()) {
            (true, _) => Need::Places(places),
            (false, true) => Need::Databases(databases),
            (false, false) => Need::Databases(databases).and(Need::Places(places), self),
        }
    }

    /// Forgets what the session watches.
    pub(crate) fn unwatch(&self, session: &mut Session) {
        let Some(watched) = session.watched.take() else { return };
        for (database, key) in &watched.keys {
            self.remove_mark(*database, key, Mark::Watcher(watched.is_dirty.clone()));
        }
    }
}

fn multi(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    if call.session.transaction.is_some() {
        return Err(CommandError::text("ERR MULTI calls can not be nested"));
    }
    call.session.transaction = Some(Transaction::default());
    call.reply.simple("OK");
    Ok(())
}

fn exec(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let Some(transaction) = call.session.transaction.take() else {
        return Err(CommandError::text("ERR EXEC without MULTI"));
    };
    let watched = call.session.watched.take();
    let is_dirty = watched.as_ref().is_some_and(|watched| is_dirty(call, watched));
    if let Some(watched) = watched {
        forget(call, &watched);
    }
    if transaction.is_spoilt {
        return Err(CommandError::text("EXECABORT Transaction discarded because of previous errors."));
    }
    if is_dirty {
        call.reply.null_array();
        return Ok(());
    }
    if transaction.has(Flags::WRITE) {
        // It would not have been let in otherwise.
        call.effects.is_writable = Some(Ok(()));
    }
    call.reply.array(transaction.queue.len());
    let mut out = call.reply.lend();
    for args in &transaction.queue {
        let args: Vec<&[u8]> = args.iter().map(|arg| &**arg).collect();
        let protocol = call.session.protocol;
        let result = look_up(&args).and_then(|command: Command| nested(call, command, &args, protocol, &mut out));
        if let Err(error) = result {
            ReplyWriter::new(&mut out, protocol).error_bytes(&error.to_bytes());
        }
    }
    call.reply.give_back(out);
    call.reply.set_protocol(call.session.protocol);
    Ok(())
}

/// Looking at a key that has expired removes it, which makes the watch dirty.
fn is_dirty(call: &mut Call<'_, '_>, watched: &Watched) -> bool {
    let now_ms = call.now_ms();
    for (database, key) in &watched.keys {
        call.keys.locked.slot(*database, key, now_ms);
    }
    watched.is_dirty.load(Ordering::Acquire)
}

fn forget(call: &mut Call<'_, '_>, watched: &Watched) {
    for (database, key) in &watched.keys {
        let place = call.keys.locked.databases().place(*database, key);
        call.keys.locked.step_held(place, |_, segment| segment.notices.unwatch(key, &watched.is_dirty));
    }
}

fn discard(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    if call.session.transaction.take().is_none() {
        return Err(CommandError::text("ERR DISCARD without MULTI"));
    }
    call.instance.unwatch(call.session);
    call.reply.simple("OK");
    Ok(())
}

fn watch(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    if call.session.transaction.is_some() {
        return Err(CommandError::text("ERR WATCH inside MULTI is not allowed"));
    }
    let database = call.session.database;
    let mut watched = call.session.watched.take();
    let watched_now =
        watched.get_or_insert_with(|| Watched { is_dirty: Arc::new(AtomicBool::new(false)), keys: HashSet::new() });
    for key in &call.args[1..] {
        if watched_now.keys.insert((database, Box::from(*key))) {
            // What has expired already is not seen as a change later.
            let slot = call.keys.peek(key);
            slot.segment.notices.watch(key, &watched_now.is_dirty);
        }
    }
    if let Some(watched) = &watched {
        call.session.peer.facts.note_watch(&watched.is_dirty);
    }
    call.session.watched = watched;
    call.reply.simple("OK");
    Ok(())
}

fn unwatch(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let instance = call.instance.clone();
    instance.unwatch(call.session);
    call.reply.simple("OK");
    Ok(())
}

const FLAGS: &[Flags] = &[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE, Flags::FAST, Flags::ALLOW_BUSY];

pub(super) const ROWS: &[Row] = &[
    Row::new("multi", 1, Group::Transactions, multi)
        .flags(FLAGS)
        .docs("1.2.0", "Begins a transaction: the commands that follow are queued."),
    Row::new("exec", 1, Group::Transactions, exec)
        .flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE, Flags::SKIP_SLOWLOG])
        .scope(Scope::Queued)
        .docs("1.2.0", "Carries out the queued commands as one."),
    Row::new("discard", 1, Group::Transactions, discard).flags(FLAGS).docs("2.0.0", "Forgets the queued commands."),
    Row::new("watch", -2, Group::Transactions, watch)
        .flags(FLAGS)
        .keys(1, -1, 1)
        .docs("2.2.0", "Makes the next EXEC give up if one of the keys changes before it."),
    Row::new("unwatch", 1, Group::Transactions, unwatch).flags(FLAGS).docs("2.2.0", "Forgets the watched keys."),
];
