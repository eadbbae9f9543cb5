//! One run of a script: its arguments, the commands it calls, and its reply.
//!
//! # Guarantees
//! Nobody sees a part of what a script does. It may use any key, whether declared or not. A run that ends with an error keeps what it has
//! written, as in Redis.
//!
//! # Failure
//! Two scripts that have both written and want undeclared keys of each other cannot both go on: the command of one of them fails.
//!
//! # How it works
//! A run holds either its declared keys or its whole database (see `Instance::need_of_script` below): its keys once a run has shown that it
//! uses no other. A command that needs more gets it: a run that holds its declared keys only and has not written gives up and begins
//! again with its database; any other one takes the missing places while it holds the rest (`Locked::escalate`). A run without writes
//! shows little of what one with writes does, so a script begins again with its database before the first write it is seen to make.

use std::str;
use std::sync::Arc;

use environmental::environmental;
use hashbrown::HashSet;
use mlua::{Either, Function, Lua, LuaString, MultiValue, Table, Value};

use super::cache::{Habit, Script, parse_sha, sha_of};
use super::convert::{self, COUNTED};
use super::interpreter::{Interpreter, broken};
use super::raise::{Field, Thrown};
use super::redis::{Version, error_table, error_text};
use super::sandbox::{Failure, Unbounded};
use super::watch::Watch;
use super::words::Talk;
use crate::command::{Call, Command, CommandError, Flags, check_arity, look_up};
use crate::instance::{Instance, Need, Session, key_places, nested};
use crate::lock::{Contended, Locked, Place, Places};

/// What a client asks a script for.
pub(crate) struct Request<'r> {
    pub(crate) script: &'r Arc<Script>,
    pub(crate) keys: &'r [&'r [u8]],
    pub(crate) args: &'r [&'r [u8]],
    /// Commands that write are refused.
    pub(crate) is_read_only: bool,
    /// It runs where memory is short.
    pub(crate) may_exceed_memory: bool,
}

/// Runs a script and writes its reply.
///
/// # Errors
/// [`CommandError::Contended`]: the run has to be begun again, and will then hold more. Any other error is the reply.
pub(crate) fn run(call: &mut Call<'_, '_>, request: &Request<'_>) -> Result<(), CommandError> {
    let (instance, database, script) = (call.instance, call.session.database, request.script);
    let mut interpreter = instance.scripts.take_interpreter().map_err(broken)?;
    call.session.is_in_script = true;
    let result = attempt(call, request, &mut interpreter);
    call.session.is_in_script = false;
    // SELECT inside of a script ends with it.
    call.session.database = database;
    call.keys.database = database;
    script.note_duration(interpreter.watch.finish());
    interpreter.rest();
    instance.scripts.put_interpreter(interpreter);
    result
}

fn attempt(call: &mut Call<'_, '_>, request: &Request<'_>, interpreter: &mut Interpreter) -> Result<(), CommandError> {
    let function = interpreter.function(request.script)?;
    interpreter.begin(request.script).map_err(broken)?;
    let (keys, args) = arguments(&interpreter.lua, request).map_err(broken)?;
    let Interpreter { environment, talk, watch, version, .. } = &mut *interpreter;
    let mut run = Run::new(call, request, watch, version);
    let mut dialogue = Dialogue { run: &mut run, talk };
    let result = under_way::using(&mut dialogue, || environment.call(function, &keys, &args));
    let (restarts, habit) = (run.restarts, run.habit());
    drop(run);
    request.script.note_habit(habit);
    if restarts {
        return Err(CommandError::Contended);
    }
    let (instance, effects) = (call.instance, &mut *call.effects);
    let mut note = |text: &[u8], is_counted: bool| {
        effects.has_failed = true;
        if !is_counted {
            instance.stats.add_error(text);
        }
    };
    match result.map_err(broken)? {
        Ok(value) => {
            let version = interpreter.version.get();
            convert::write(&interpreter.lua, &interpreter.fields, value, version, &mut call.reply, &mut note)
                .map_err(broken)
        }
        Err(failure) => {
            let text = failure_text(interpreter, request.script, &failure);
            let is_counted = match &failure.error {
                Value::Table(table) => convert::is_counted(table).map_err(broken)?,
                _ => false,
            };
            note(&text, is_counted);
            call.reply.error_bytes(&text);
            Ok(())
        }
    }
}

/// `KEYS` and `ARGV`.
fn arguments(lua: &Lua, request: &Request<'_>) -> mlua::Result<(Table, Table)> {
    let bytes = request.keys.iter().chain(request.args).map(|text| text.len() + ELEMENT_BYTES).sum();
    let _unbounded = Unbounded::for_bytes(lua, bytes);
    Ok((list(lua, request.keys)?, list(lua, request.args)?))
}

/// What an element of a list takes beside its text, roughly: the header of a string, and a place in the table.
const ELEMENT_BYTES: usize = 48;

fn list(lua: &Lua, texts: &[&[u8]]) -> mlua::Result<Table> {
    // mlua moves a `str` into a table at once. Other bytes become a value that Rust holds first, which takes twice as long.
    lua.create_sequence_from(texts.iter().map(|text| match str::from_utf8(text) {
        Ok(text) => Either::Left(text),
        Err(_) => Either::Right(LuaString::wrap(text)),
    }))
}

/// The error reply of a script that did not catch an error.
fn failure_text(interpreter: &Interpreter, script: &Script, failure: &Failure) -> Vec<u8> {
    let mut text = match &failure.error {
        Value::Table(table) => match table.raw_get("err") {
            Ok(Value::String(text)) => text.as_bytes().to_vec(),
            _ => b"ERR unknown error".to_vec(),
        },
        other => [b"ERR ", &*interpreter.text(other)].concat(),
    };
    if let Some(source) = &failure.source {
        let line = failure.line.map_or(-1, |line| line as i64);
        text.extend_from_slice(format!(" script: {}, on {source}:{line}.", script.sha_text()).as_bytes());
    }
    text
}

/// What `redis.call` reaches of a run.
trait Calls {
    /// Carries out a command: `redis.call` throws errors, and `redis.pcall` returns them.
    fn command(&mut self, lua: &Lua, values: &MultiValue, raises: bool) -> mlua::Result<Value>;
}

// The run under way on this thread. A run borrows from the command that it is part of, and a function that an interpreter keeps cannot hold
// what is borrowed; making one for each run took longer than a small script.
environmental!(under_way: trait Calls);

/// `redis.call` or `redis.pcall` of an interpreter.
pub(crate) fn calling(lua: &Lua, raises: bool) -> mlua::Result<Function> {
    lua.create_function(move |lua, values: MultiValue| {
        let result = under_way::with(|run| run.command(lua, &values, raises));
        result.unwrap_or_else(|| Err(mlua::Error::runtime("no script is under way")))
    })
}

/// A run under way.
struct Run<'r, 'c, 'e> {
    call: &'r mut Call<'c, 'e>,
    watch: &'r Watch,
    version: &'r Version,
    script: &'r Script,
    /// The database in which the run began, which it may hold as a whole.
    database: usize,
    /// The declared keys, as long as it is not known whether the script keeps to them.
    declared: Option<Declared<'r>>,
    is_read_only: bool,
    may_exceed_memory: bool,
    /// It has used a key that it has not declared.
    strayed: bool,
    /// It has to begin again: no command runs any more.
    restarts: bool,
    has_written: bool,
}

/// A run with the buffers through which it and its script talk.
struct Dialogue<'d, 'r, 'c, 'e> {
    run: &'d mut Run<'r, 'c, 'e>,
    talk: &'d mut Talk,
}

/// The keys that a run declares.
struct Declared<'r> {
    keys: &'r [&'r [u8]],
    /// Made where looking through all of them for each command would take long.
    set: Option<HashSet<&'r [u8], foldhash::fast::RandomState>>,
}

impl<'r> Declared<'r> {
    /// As long as comparing lengths and bytes is quicker than hashing.
    const SEARCHED_MAX: usize = 8;

    fn new(keys: &'r [&'r [u8]]) -> Self {
        Self { keys, set: (keys.len() > Self::SEARCHED_MAX).then(|| keys.iter().copied().collect()) }
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.set.as_ref().map_or_else(|| self.keys.contains(&key), |set| set.contains(key))
    }
}

/// Why a command did not run.
enum Refusal {
    /// In the words of Redis, without a code.
    Text(&'static str),
    /// The whole error.
    Whole(Vec<u8>),
    /// The run is over, whatever the script does.
    Over,
}

impl Calls for Dialogue<'_, '_, '_, '_> {
    fn command(&mut self, lua: &Lua, values: &MultiValue, raises: bool) -> mlua::Result<Value> {
        let Talk { names, words, reply } = &mut *self.talk;
        let name = names.find(values)?;
        let command = name.and_then(|name| name.command);
        let result = match words.read(values, name.map(|name| &*name.text)) {
            Ok(()) => self.run.carry_out(command, &words.slices(), reply).map_err(|refusal| (refusal, true)),
            Err(text) => Err((Refusal::Text(text), false)),
        };
        let (text, is_counted) = match result {
            Ok(()) => match convert::to_lua(lua, reply)? {
                Ok(value) => return Ok(value),
                Err(text) => (text, true),
            },
            Err((Refusal::Over, _)) => return Err(Thrown::Over.into()),
            Err((Refusal::Text(text), is_counted)) => ([b"ERR ", text.as_bytes()].concat(), is_counted),
            Err((Refusal::Whole(text), is_counted)) => (error_text(&text), is_counted),
        };
        if raises {
            let mut fields = vec![("err", Field::Text(text))];
            if is_counted {
                fields.push((COUNTED, Field::Flag(true)));
            }
            return Err(Thrown::Table(fields).into());
        }
        let table = error_table(lua, &text)?;
        if is_counted {
            table.raw_set(COUNTED, true)?;
        }
        Ok(Value::Table(table))
    }
}

impl<'r, 'c, 'e> Run<'r, 'c, 'e> {
    fn new(call: &'r mut Call<'c, 'e>, request: &Request<'r>, watch: &'r Watch, version: &'r Version) -> Self {
        let (database, script) = (call.session.database, request.script);
        let is_open = matches!(script.habit(), Habit::Unknown | Habit::KeepsToKeysReading);
        let declared = is_open.then(|| Declared::new(request.keys));
        Self {
            call,
            watch,
            version,
            script,
            database,
            declared,
            is_read_only: request.is_read_only,
            may_exceed_memory: request.may_exceed_memory,
            strayed: false,
            restarts: false,
            has_written: false,
        }
    }

    /// Carries out a command, which is looked for if its name did not tell which one it is.
    fn carry_out(&mut self, command: Option<Command>, args: &[&[u8]], reply: &mut Vec<u8>) -> Result<(), Refusal> {
        reply.clear();
        let command = self.check(command, args).inspect_err(|refusal| self.count(refusal, args))?;
        self.hold(&command, args)?;
        if command.row.flags.has(CHANGES) {
            if command.row.flags.has(Flags::WRITE) {
                self.check_writable()?;
            }
            self.check_memory(&command)?;
            self.prepare_to_write()?;
            // Whoever ends scripts may have been quicker.
            if !self.watch.note_write() {
                return Err(Refusal::Over);
            }
            self.has_written = true;
        }
        let protocol = self.version.get();
        nested(self.call, command, args, protocol, reply).map_err(|error| Refusal::Whole(error.to_bytes().into_owned()))
    }

    /// Refuses all commands that write if the log could not keep the first one. In Redis, too, a script goes on once it has written
    /// (`SCRIPT_WRITE_DIRTY`, src/script.c).
    fn check_writable(&mut self) -> Result<(), Refusal> {
        let instance = self.call.instance;
        let is_writable = self.call.effects.is_writable.get_or_insert_with(|| instance.check_writable());
        match is_writable {
            Ok(()) => Ok(()),
            Err(error) => Err(Refusal::Whole(error.to_bytes().into_owned())),
        }
    }

    /// Refuses a command that takes memory if there was none when the script began: not once it has written, for it cannot be undone.
    fn check_memory(&self, command: &Command) -> Result<(), Refusal> {
        let is_refused = self.call.session.lacks_memory && !self.has_written && !self.may_exceed_memory;
        if is_refused && command.row.flags.has(Flags::DENYOOM) {
            return Err(Refusal::Whole(CommandError::OutOfMemory.to_bytes().into_owned()));
        }
        Ok(())
    }

    /// Counts a command that was refused as an error; those that run are counted when they end.
    fn count(&self, refusal: &Refusal, args: &[&[u8]]) {
        let Refusal::Text(text) = refusal else { return };
        let stats = &self.call.instance.stats;
        stats.add_error(&[b"ERR ", text.as_bytes()].concat());
        if let Ok(command) = look_up(args) {
            stats.add_rejected(command.number);
        }
    }

    fn check(&self, command: Option<Command>, args: &[&[u8]]) -> Result<Command, Refusal> {
        if self.restarts || self.watch.is_ended() {
            return Err(Refusal::Over);
        }
        let command = match command {
            Some(command) => command,
            None => look_up(args).map_err(|_| Refusal::Text("Unknown Redis command called from script"))?,
        };
        check_arity(&command, args)
            .map_err(|_| Refusal::Text("Wrong number of args calling Redis command from script"))?;
        let flags = command.row.flags;
        if flags.has(Flags::NOSCRIPT) {
            return Err(Refusal::Text("This Redis command is not allowed from script"));
        }
        if self.is_read_only && flags.has(CHANGES) {
            return Err(Refusal::Text("Write commands are not allowed from read-only scripts."));
        }
        Ok(command)
    }

    /// Sees to it that all is held that a command needs.
    fn hold(&mut self, command: &Command, args: &[&[u8]]) -> Result<(), Refusal> {
        let need = Need::within(self.call.instance, self.call.session, command, args);
        if let Some(declared) = &self.declared {
            self.strayed |= self.call.session.database != self.database || !is_covered(&need, declared, command, args);
        }
        if is_held(&need, self.call.keys.locked) {
            return Ok(());
        }
        self.strayed = true;
        if self.can_restart() {
            return Err(self.restart());
        }
        take(need, self.call.keys.locked)
    }

    /// A script that has only been seen reading may go another way when it writes, and touch keys that it has not declared. After
    /// a write it is too late to begin again, so it does so before the first one.
    fn prepare_to_write(&mut self) -> Result<(), Refusal> {
        if self.script.habit() == Habit::KeepsToKeysReading && self.can_restart() {
            self.script.forget_reading();
            return Err(self.restart());
        }
        Ok(())
    }

    /// Whether it can begin again, and will then hold more.
    fn can_restart(&self) -> bool {
        !self.has_written && !self.call.deny_blocking && !self.call.keys.locked.holds_database(self.database)
    }

    fn restart(&mut self) -> Refusal {
        self.restarts = true;
        self.watch.end();
        Refusal::Over
    }

    /// What this run has shown.
    fn habit(&self) -> Habit {
        match (self.strayed, self.restarts, self.has_written) {
            (true, ..) => Habit::Strays,
            (false, true, _) => Habit::Unknown,
            (false, false, true) => Habit::KeepsToKeys,
            (false, false, false) => Habit::KeepsToKeysReading,
        }
    }
}

/// What makes a run unrepeatable, and is refused where a script may only read.
const CHANGES: Flags = Flags::WRITE.and(Flags::MAY_REPLICATE);

/// Whether a command needs nothing but declared keys. Their places would not do: an undeclared key may be next to a declared one by
/// chance, and elsewhere in the next run.
fn is_covered(need: &Need, declared: &Declared<'_>, command: &Command, args: &[&[u8]]) -> bool {
    match need {
        Need::Places(_) => {
            command.row.keys.positions(args).iter().filter_map(|at| args.get(*at)).all(|key| declared.contains(key))
        }
        Need::Databases(numbers) => numbers.is_empty(),
        Need::Everything => false,
    }
}

fn is_held(need: &Need, locked: &Locked<'_>) -> bool {
    match need {
        Need::Places(places) => places.iter().all(|place| locked.holds(*place)),
        Need::Databases(numbers) => numbers.iter().all(|number| locked.holds_database(*number)),
        Need::Everything => locked.holds_everything(),
    }
}

/// Takes what is missing, while the rest is held.
fn take(need: Need, locked: &mut Locked<'_>) -> Result<(), Refusal> {
    let databases = locked.databases();
    let taken = match need {
        Need::Places(places) => take_places(places, locked),
        Need::Databases(numbers) => take_databases(numbers, locked),
        // A database may come into use meanwhile.
        Need::Everything => loop {
            let result = take_databases(databases.used().map(|(number, _)| number), locked);
            if result.is_err() || locked.holds_everything() {
                break result;
            }
        },
    };
    taken.map_err(|Contended| Refusal::Whole(KEYS_TAKEN.to_vec()))
}

fn take_databases(numbers: impl IntoIterator<Item = usize>, locked: &mut Locked<'_>) -> Result<(), Contended> {
    let databases = locked.databases();
    take_places(numbers.into_iter().flat_map(|number| databases.places_of(number)), locked)
}

fn take_places(places: impl IntoIterator<Item = Place>, locked: &mut Locked<'_>) -> Result<(), Contended> {
    places.into_iter().try_for_each(|place| locked.escalate(place))
}

const KEYS_TAKEN: &[u8] =
    b"TRYAGAIN the script has not declared a key, which another script holds that waits for this one";

impl Instance {
    /// What a script has to hold: the keys that it declares if it is known to keep to them, else its database.
    pub(crate) fn need_of_script(&self, session: &Session, command: &Command, args: &[&[u8]]) -> Need {
        match self.script_of(args) {
            Some(script) if matches!(script.habit(), Habit::KeepsToKeysReading | Habit::KeepsToKeys) => {
                Need::Places(key_places(self, session.database, command, args))
            }
            // It will be refused.
            None if is_by_sha(args) => Need::Places(Places::new()),
            _ => Need::Databases([session.database].into_iter().collect()),
        }
    }

    /// Whether `args` run a script that took long before, or that has not been run.
    pub(crate) fn script_may_take_long(&self, args: &[&[u8]]) -> bool {
        if !args.first().is_some_and(|name| runs_a_script(name)) {
            return false;
        }
        match self.script_of(args) {
            Some(script) => script.may_take_long(),
            None => !is_by_sha(args),
        }
    }

    /// Whether `args` run a script that does not promise to write nothing.
    pub(crate) fn script_may_write(&self, args: &[&[u8]]) -> bool {
        let Some(name) = args.first().filter(|name| runs_a_script(name)) else { return false };
        let flags = match self.script_of(args) {
            Some(script) => script.flags,
            None if is_by_sha(args) => None,
            None => args.get(1).and_then(|body| Script::new(body).ok()?.flags),
        };
        !name.to_ascii_lowercase().ends_with(b"_ro") && !flags.is_some_and(|flags| flags.no_writes)
    }

    fn script_of(&self, args: &[&[u8]]) -> Option<Arc<Script>> {
        let text = args.get(1)?;
        let sha = if is_by_sha(args) { parse_sha(text)? } else { sha_of(text) };
        self.scripts.get(&sha)
    }
}

fn runs_a_script(name: &[u8]) -> bool {
    let names: [&[u8]; 4] = [b"eval", b"evalsha", b"eval_ro", b"evalsha_ro"];
    names.iter().any(|script| name.eq_ignore_ascii_case(script))
}

/// EVALSHA and its read-only form, among those that run scripts.
fn is_by_sha(args: &[&[u8]]) -> bool {
    args.first().is_some_and(|name| name.get(..7).is_some_and(|name| name.eq_ignore_ascii_case(b"evalsha")))
}
