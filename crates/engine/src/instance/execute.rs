//! From arguments to a reply: what a command has to hold, holding it, and carrying it out.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use acteon_resp::{Protocol, ReplyWriter};
use smallvec::SmallVec;

use super::blocked::Served;
use super::measure::{Measured, now_ns};
use super::note::Ended;
use super::{Instance, Session};
use crate::ahead;
use crate::command::{self, Access, Call, Command, CommandError, Effects, Known, Lookups, Scope};
use crate::lock::{Contended, Databases, Locked, Place, Places};

/// One command of one session at one moment.
pub(crate) struct Step<'s, 'e> {
    pub(crate) instance: &'e Arc<Instance>,
    pub(crate) session: &'s mut Session,
    pub(crate) command: &'s Command,
    pub(crate) args: &'s [&'s [u8]],
    pub(crate) now_us: u64,
    pub(crate) deny_blocking: bool,
    /// The position of the key that has become ready, when the command has waited.
    pub(crate) woken_by: Option<usize>,
    /// The command's only key.
    pub(crate) known: Option<Known<'s>>,
    /// The commands before it, when it comes from the client itself.
    pub(crate) measured: Option<&'s mut Measured>,
}

/// Commands of one connection that are carried out one after the other, without anything else in between.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) measured: Measured,
    /// What the command under way leaves to be done. Both are empty between two commands.
    pub(crate) effects: Effects,
    pub(crate) served: Served,
}

/// What a command has to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Places(Places),
    /// All of these databases.
    Databases(SmallVec<[usize; 2]>),
    /// All databases that are in use by the time they are held.
    Everything,
}

impl Need {
    /// What `command` needs by itself, outside of transactions and scripts.
    pub(crate) fn of(instance: &Instance, session: &Session, command: &Command, args: &[&[u8]]) -> Self {
        let mut scope = command.row.scope;
        while let Scope::Choose(choose) = scope {
            scope = choose(args);
        }
        match scope {
            Scope::Database => Self::Databases(SmallVec::from_slice(&[session.database])),
            Scope::WithDatabase(other) => {
                let others = other(args).filter(|other| *other < instance.databases.count());
                Self::Databases([session.database].into_iter().chain(others).collect())
            }
            Scope::Databases(named) => {
                let exists = |number: &usize| *number < instance.databases.count();
                Self::Databases(named(args).into_iter().filter(exists).collect())
            }
            Scope::Everything => Self::Everything,
            Scope::Queued => instance.need_of_transaction(session),
            Scope::Script => instance.need_of_script(session, command, args),
            Scope::Stepwise | Scope::StepwiseEverywhere => Self::Places(Places::new()),
            Scope::Keys | Scope::Choose(_) => Self::Places(key_places(instance, session.database, command, args)),
        }
    }

    /// What it needs where it has to be atomic together with others.
    pub(crate) fn within(instance: &Instance, session: &Session, command: &Command, args: &[&[u8]]) -> Self {
        match command.row.scope {
            Scope::Stepwise => Self::Databases(SmallVec::from_slice(&[session.database])),
            Scope::StepwiseEverywhere => Self::Everything,
            _ => Self::of(instance, session, command, args),
        }
    }

    /// Both needs together.
    pub(crate) fn and(self, other: Self, instance: &Instance) -> Self {
        match (self, other) {
            (Self::Places(mut one), Self::Places(other)) => {
                one.extend(other);
                Self::Places(one)
            }
            (Self::Databases(mut one), Self::Databases(other)) => {
                one.extend(other);
                one.sort_unstable();
                one.dedup();
                Self::Databases(one)
            }
            (Self::Everything, Self::Databases(numbers)) | (Self::Databases(numbers), Self::Everything) => {
                // From now on they are in use.
                numbers.iter().for_each(|number| {
                    instance.databases.get(*number);
                });
                Self::Everything
            }
            (Self::Everything, _) | (_, Self::Everything) => Self::Everything,
            // Rare: the keys of one database and all of another one.
            (Self::Databases(databases), Self::Places(mut places))
            | (Self::Places(mut places), Self::Databases(databases)) => {
                places.extend(databases.iter().flat_map(|number| instance.databases.places_of(*number)));
                Self::Places(places)
            }
        }
    }

    pub(crate) fn hold(self, databases: &Databases, patience: Duration) -> Result<Locked<'_>, Contended> {
        match self {
            Self::Places(places) if places.is_empty() => Ok(Locked::none(databases)),
            Self::Places(places) => Locked::acquire(databases, places, patience),
            Self::Databases(numbers) => Locked::acquire_databases(databases, &numbers, patience),
            Self::Everything => Locked::acquire_everything(databases, patience),
        }
    }
}

/// The places of the keys that a command names, which are looked up on this occasion: it is about to ask for them.
pub(crate) fn key_places(instance: &Instance, database: usize, command: &Command, args: &[&[u8]]) -> Places {
    let positions = command.row.keys.positions(args);
    if positions.is_empty() {
        // A database is made when it is first asked for, and a command without keys has no need of one.
        return Places::new();
    }
    let keyspace = instance.databases.get(database).keyspace();
    let keys = positions.iter().filter_map(|at| args.get(*at));
    let hashes: SmallVec<[u64; 16]> = keys.map(|key| keyspace.context.hash(key)).collect();
    ahead::look_up_hashes(keyspace, &hashes);
    hashes.iter().map(|hash| Place::new(database, keyspace.segment_of(*hash))).collect()
}

impl<'s, 'e> Step<'s, 'e> {
    pub(crate) fn new(
        instance: &'e Arc<Instance>,
        session: &'s mut Session,
        command: &'s Command,
        args: &'s [&'s [u8]],
        now_us: u64,
    ) -> Self {
        Self {
            instance,
            session,
            command,
            args,
            now_us,
            deny_blocking: false,
            woken_by: None,
            known: None,
            measured: None,
        }
    }

    /// Carries the command out over what is held; its reply is appended to `out`, also when it is an error.
    #[inline(always)]
    pub(crate) fn run(
        &mut self,
        locked: &mut Locked<'e>,
        out: &mut Vec<u8>,
        effects: &mut Effects,
    ) -> Result<(), Contended> {
        let protocol = self.session.protocol;
        match self.carry_out(locked, out, effects) {
            Ok(()) => Ok(()),
            Err(CommandError::Contended) => Err(Contended),
            Err(error) => {
                write_error(&error, protocol, out);
                Ok(())
            }
        }
    }

    /// The same with the error apart. After an error `out` is as it was.
    // Every command comes by here: moving its parts into a step, and out of it again, is a tenth of what a short one executes.
    #[inline(always)]
    pub(crate) fn carry_out(
        &mut self,
        locked: &mut Locked<'e>,
        out: &mut Vec<u8>,
        effects: &mut Effects,
    ) -> Result<(), CommandError> {
        let (out_len, instance) = (out.len(), self.instance);
        let (monitors, command, args, now_us) = (&instance.monitors, self.command, self.args, self.now_us);
        let comes_from_client = self.woken_by.is_none();
        if comes_from_client {
            monitors.tell_script(self.session, command, args, now_us);
        }
        let mut lookups = Lookups::default();
        let follows = self.measured.as_ref().is_some_and(|measured| measured.ended_ns().is_some());
        let began_ns = if follows { 0 } else { now_ns() };
        let (protocol, database) = (self.session.protocol, self.session.database);
        // What a script is told must be whole; its memory has a bound of its own.
        let is_bounded = !self.session.is_in_script;
        let bytes_max = if is_bounded { instance.settings.reply_bytes_max.load(Ordering::Relaxed) } else { usize::MAX };
        let mut call = Call {
            instance,
            session: &mut *self.session,
            args,
            keys: Access { locked, known: self.known, database, now_us, lookups: &mut lookups },
            reply: ReplyWriter::new(out, protocol).bounded(bytes_max),
            row: command.row,
            effects,
            deny_blocking: self.deny_blocking,
            woken_by: self.woken_by,
        };
        let result = (command.row.handler)(&mut call);
        if comes_from_client && !matches!(result, Err(CommandError::Contended)) {
            monitors.tell(call.session, command, args, now_us);
            let session = &*call.session;
            let (error, lookups) = (result.as_ref().err(), *call.keys.lookups);
            let has_failed = mem::take(&mut call.effects.has_failed) || error.is_some();
            match &mut self.measured {
                Some(measured) if command.row.is_brief && error.is_none() && measured.may_share(&instance.settings) => {
                    measured.add_unmeasured(instance.outcome(command, 0, lookups, has_failed));
                }
                measured => {
                    let duration_ns = match measured {
                        Some(measured) => measured.end(began_ns),
                        None => now_ns().saturating_sub(began_ns),
                    };
                    if error.is_some() || duration_ns >= instance.settings.hears_of_ns() {
                        instance.note_ended(&Ended { session, command, args, duration_ns, error, now_us });
                    }
                    let outcome = instance.outcome(command, duration_ns, lookups, has_failed);
                    match measured {
                        Some(measured) => measured.add(outcome),
                        None => instance.stats.add(outcome),
                    }
                }
            }
        }
        if result.is_err() {
            out.truncate(out_len);
        }
        result
    }
}

#[cold]
fn write_error(error: &CommandError, protocol: Protocol, out: &mut Vec<u8>) {
    ReplyWriter::new(out, protocol).error_bytes(&error.to_bytes());
}

/// Carries out `args` inside of another command that holds what they need, in `protocol`.
pub(crate) fn nested(
    call: &mut Call<'_, '_>,
    command: Command,
    args: &[&[u8]],
    protocol: Protocol,
    out: &mut Vec<u8>,
) -> Result<(), CommandError> {
    let (instance, now_us) = (call.instance, call.keys.now_us);
    let protocol_outside = std::mem::replace(&mut call.session.protocol, protocol);
    let mut step = Step { deny_blocking: true, ..Step::new(instance, &mut *call.session, &command, args, now_us) };
    let result = step.carry_out(call.keys.locked, out, call.effects);
    // HELLO inside of a transaction changes it for good.
    if call.session.protocol == protocol {
        call.session.protocol = protocol_outside;
    }
    call.keys.database = call.session.database;
    result
}

/// Finds the command and checks how it is called.
#[inline]
pub(crate) fn resolve(args: &[&[u8]]) -> Result<&'static Command, CommandError> {
    let command = command::find_asked(args)?;
    command::check_arity(command, args)?;
    Ok(command)
}
