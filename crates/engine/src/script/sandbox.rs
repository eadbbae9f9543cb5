//! The interpreter that scripts run in: Lua 5.1 without a way out.
//!
//! # Guarantees
//! - Exactly the globals of a Redis 7.0 script exist: no files, no processes, no clock, no loading of binary code.
//! - A script cannot change globals or libraries, so it finds what every script before it found. Reading a global that does
//!   not exist is an error.
//! - The interpreter holds at most [`MEMORY_BYTES_MAX`].
//! - Nothing a script does reaches Rust as a panic.
//!
//! # Failure
//! [`Environment::call`] gives the error of a script as a value with the place where it happened; `Err` means that the interpreter itself failed.
//!
//! # How it works
//! Lua 5.1 has no read-only tables. So a script sees an empty *guard* in place of each protected table: reads fall through
//! to the table behind it, writes end in an error. The functions that look past metatables (`rawget`, `rawset`, `pairs`, `getmetatable`,
//! `setmetatable`) know the guards. The functions of `table` do not, for speed: what they put into a guard
//! is removed by [`Environment::clean`].
//!
//! Functions in Rust throw wrapped errors (see `raise.rs`), which `pcall`, `xpcall` and `coroutine.resume` unwrap here. All but the
//! one that ends a run: it goes through all of them.

use mlua::{Function, IntoLua, Lua, LuaOptions, LuaString, MultiValue, Result, StdLib, Table, Value};

use super::raise::{Arguments, caught, is_over, positioned, raise, raise_argument, raise_bare};
use super::{library, random};

/// What one interpreter may hold: as much as the longest string value, so that a script that never ends to collect takes an
/// error and not the machine's memory.
pub(crate) const MEMORY_BYTES_MAX: usize = 512 * 1024 * 1024;

/// The globals that come from Lua, unchanged.
const GLOBALS_KEPT: [&str; 14] = [
    "_VERSION",
    "assert",
    "collectgarbage",
    "error",
    "gcinfo",
    "ipairs",
    "next",
    "rawequal",
    "select",
    "tonumber",
    "tostring",
    "type",
    "pcall",
    "xpcall",
];

/// Libraries of Lua that scripts have.
const LIBRARIES_KEPT: [&str; 4] = ["coroutine", "math", "string", "table"];

const READ_ONLY: &str = "Attempt to modify a readonly table";

/// The name of the code in Lua that is part of this file.
const OWN_CODE: &str = "=sandbox";

/// Names in the registry, which scripts cannot reach.
const GLOBALS: &str = "acteon.globals";
const GUARDS: &str = "acteon.guards";
const RUN: &str = "acteon.run";

/// A sandboxed interpreter with every library but `redis`.
pub(crate) fn new_lua() -> Result<Lua> {
    // The default options leave Lua's own `pcall` and `xpcall` in place.
    let lua = Lua::new_with(StdLib::TABLE | StdLib::STRING | StdLib::MATH, LuaOptions::default())?;
    let native = lua.globals();
    let globals = lua.create_table()?;
    lua.set_named_registry_value(GLOBALS, &globals)?;
    // Weak: the guard of a metatable goes with the script that asked for it.
    let (guards, weak) = (lua.create_table()?, lua.create_table()?);
    weak.raw_set("__mode", "k")?;
    guards.set_metatable(Some(weak))?;
    lua.set_named_registry_value(GUARDS, guards)?;

    for name in GLOBALS_KEPT {
        globals.raw_set(name, native.raw_get::<Value>(name)?)?;
    }
    install_catching(&lua, &native, &globals)?;
    install_loading(&lua, &native, &globals)?;
    for (name, table) in library::tables(&lua)? {
        set_global_protected(&lua, name, &table)?;
    }
    globals.raw_set("unpack", lua.create_function(unpack)?)?;
    library::bound_patterns(&lua, &native.raw_get("string")?, &native.raw_get("pcall")?)?;
    let math: Table = native.raw_get("math")?;
    random::install(&lua, &math)?;
    for name in LIBRARIES_KEPT {
        set_global_protected(&lua, name, &native.raw_get(name)?)?;
    }
    install_guarding(&lua, &native, &globals)?;
    seal_globals(&lua, &globals)?;
    lua.set_memory_limit(MEMORY_BYTES_MAX)?;
    Ok(lua)
}

/// Makes `table` the global `name`, which scripts can read but not change.
pub(crate) fn set_global_protected(lua: &Lua, name: &str, table: &Table) -> Result<()> {
    let guard = guard(lua, table)?;
    set_global(lua, name, guard)
}

fn set_global(lua: &Lua, name: &str, value: impl IntoLua) -> Result<()> {
    lua.named_registry_value::<Table>(GLOBALS)?.raw_set(name, value)
}

/// What runs need of a finished interpreter, at hand: looking for it takes longer than a small script does.
pub(crate) struct Environment {
    lua: Lua,
    /// The guards that every script finds. Those of metatables are made anew for each script that asks.
    guards: Vec<Table>,
    /// Functions that can be run. They lie in a table of the interpreter: Rust may hold 8,000 values of one at a time, and the arguments
    /// of a command are to find the same room whatever was compiled before.
    functions: Table,
    run: Function,
}

/// Lifts the bound of an interpreter's memory for a small piece of work, until it is dropped.
///
/// With a bound any allocation can fail, and Lua reports that by a jump. So each call of its API that may allocate is made under its
/// protection then, and gets there by two closures of its own: more work, and more to collect, than most of these calls are themselves.
pub(crate) struct Unbounded<'l> {
    lua: &'l Lua,
    bytes_max: usize,
}

impl<'l> Unbounded<'l> {
    /// With longer texts, the protection is little beside the work itself.
    const TEXT_BYTES_MAX: usize = 64 << 10;

    /// What a text may become in an interpreter, for each of its bytes: the reply of an empty map is four bytes, and two tables.
    const GROWTH_MAX: usize = 64;

    /// For work with texts of this many bytes in all. `None` if it could pass the bound, or is too much to gain from this.
    pub(crate) fn for_bytes(lua: &'l Lua, bytes: usize) -> Option<Self> {
        if bytes > Self::TEXT_BYTES_MAX {
            return None;
        }
        let bytes_max = lua.set_memory_limit(0).ok()?;
        let lifted = Self { lua, bytes_max };
        // Zero is no bound: an outer one has lifted it.
        let fits = bytes_max == 0 || lua.used_memory() + bytes * Self::GROWTH_MAX <= bytes_max;
        fits.then_some(lifted)
    }
}

impl Drop for Unbounded<'_> {
    fn drop(&mut self) {
        let restored = self.lua.set_memory_limit(self.bytes_max);
        debug_assert!(restored.is_ok(), "the bound that was lifted is there again");
    }
}

/// In Lua, so that Rust enters the interpreter once for all of it.
const RUN_CODE: &str = r#"
    local globals, functions, xpcall, report = ...
    return function(number, keys, args)
        globals.KEYS, globals.ARGV = keys, args
        return xpcall(functions[number], report)
    end
"#;

/// The error that ended a script, and where it happened.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What was thrown: usually a string, or a table with a field `err`.
    pub(crate) error: Value,
    /// The chunk's name as it was given, such as `@user_script`.
    pub(crate) source: Option<String>,
    /// The line in that chunk.
    pub(crate) line: Option<usize>,
}

impl Environment {
    pub(crate) fn of(lua: &Lua) -> Result<Self> {
        let globals: Table = lua.named_registry_value(GLOBALS)?;
        let guards: Table = lua.named_registry_value(GUARDS)?;
        let guards = guards.pairs::<Table, Value>().map(|pair| Ok(pair?.0)).collect::<Result<_>>()?;
        let functions = lua.create_table()?;
        let parts: Table = lua.named_registry_value(RUN)?;
        let (xpcall, report): (Function, Function) = (parts.raw_get(1)?, parts.raw_get(2)?);
        let run = lua.load(RUN_CODE).set_name(OWN_CODE).call((&globals, &functions, xpcall, report))?;
        Ok(Self { lua: lua.clone(), guards, functions, run })
    }

    /// Takes away what earlier scripts left in the guards. To be called after a script that can use `table.insert`.
    pub(crate) fn clean(&self) -> Result<()> {
        self.guards.iter().filter(|guard| !guard.is_empty()).try_for_each(clear)
    }

    /// Keeps a function under a number, counted from 1.
    pub(crate) fn keep(&self, number: usize, function: &Function) -> Result<()> {
        self.functions.raw_set(number, function)
    }

    /// Forgets the functions that were kept.
    pub(crate) fn forget_all(&self) -> Result<()> {
        self.functions.clear()
    }

    /// Runs a function that was kept with these `KEYS` and `ARGV` to its end, and gives its first result.
    ///
    /// # Errors
    /// `Ok(Err(..))` is an error of the script; `Err` one of the interpreter.
    pub(crate) fn call(
        &self,
        number: usize,
        keys: &Table,
        args: &Table,
    ) -> Result<std::result::Result<Value, Failure>> {
        let (ok, value): (bool, Value) = self.run.call((number, keys, args))?;
        if ok {
            return Ok(Ok(value));
        }
        // The handler returns a table of its own; without it (no memory, an overflow while handling) Lua's text stands alone.
        let Value::Table(report) = value else {
            // Lua 5.1 does not collect when an allocation fails, so what filled the memory is still there.
            self.lua.gc_collect()?;
            return Ok(Err(Failure { error: caught(&self.lua, value)?, source: None, line: None }));
        };
        let failure = Failure { error: report.raw_get(1)?, source: report.raw_get(2)?, line: report.raw_get(3)? };
        Ok(Err(failure))
    }
}

/// Notes, while the stack is still there, which line of which chunk threw `error`.
fn report(lua: &Lua, error: Value) -> Result<Table> {
    let place = |level| {
        lua.inspect_stack(level, |frame| {
            let source = frame.source();
            (source.what == "C", source.source.map(|source| source.into_owned()), frame.current_line())
        })
    };
    // A C function stands for the line that called it, and so do the functions of this file.
    let mut level = if matches!(place(1), Some((true, ..))) { 2 } else { 1 };
    while matches!(place(level), Some((_, Some(source), _)) if source == OWN_CODE) {
        level += 1;
        while matches!(place(level), Some((true, ..))) {
            level += 1;
        }
    }
    let place = place(level);
    let report = lua.create_table()?;
    report.raw_set(1, caught(lua, error)?)?;
    if let Some((_, source, line)) = place {
        report.raw_set(2, source)?;
        report.raw_set(3, line)?;
    }
    Ok(report)
}

/// `pcall` and its like, for errors of functions written in Rust. They are Lua so that nothing but the original functions
/// stands between the caller and the called.
fn install_catching(lua: &Lua, native: &Table, globals: &Table) -> Result<()> {
    // Redis's pcall gives the text in a thrown table's `err` in place of the table, and whatever else lies there after it.
    const CATCHING: &str = r#"
        local pcall, xpcall, resume, type, caught = ...
        -- Throws on what ends the run.
        local function plain(e)
            if type(e) == "userdata" then return caught(e) end
            return e
        end
        local function settle(ok, ...)
            if ok then return ok, ... end
            return ok, plain((...))
        end
        local function settle_text(ok, ...)
            if ok then return ok, ... end
            local e = plain((...))
            if type(e) ~= "table" then return ok, e end
            local text = e.err
            if type(text) == "string" or type(text) == "number" then return ok, text end
            return ok, e, text
        end
        return function(...) return settle_text(pcall(...)) end,
            function(f, handler)
                return settle(xpcall(f, function(e)
                    if type(e) == "userdata" then
                        -- A handler does not throw, so what ends the run is thrown on by `settle`.
                        local went, value = pcall(caught, e)
                        if not went then return e end
                        e = value
                    end
                    return handler(e)
                end))
            end,
            function(...) return settle(resume(...)) end
    "#;
    let original: Function = native.raw_get("xpcall")?;
    let coroutine: Table = native.raw_get("coroutine")?;
    let unwrap = lua.create_function(|lua, error: Value| match error {
        Value::Error(error) if is_over(&error) => Err(*error),
        error => caught(lua, error),
    })?;
    let arguments = (
        native.raw_get::<Function>("pcall")?,
        &original,
        coroutine.raw_get::<Function>("resume")?,
        native.raw_get::<Function>("type")?,
        unwrap,
    );
    let (pcall, xpcall, resume): (Function, Function, Function) =
        lua.load(CATCHING).set_name(OWN_CODE).call(arguments)?;
    globals.raw_set("pcall", pcall)?;
    globals.raw_set("xpcall", xpcall)?;
    coroutine.raw_set("resume", resume)?;

    let run = lua.create_sequence_from([original, lua.create_function(report)?])?;
    lua.set_named_registry_value(RUN, run)
}

/// `load` and `loadstring`, which take text only: binary code could break the interpreter.
fn install_loading(lua: &Lua, native: &Table, globals: &Table) -> Result<()> {
    const COLLECT: &str = r#"
        local type, concat, pcall, byte = ...
        local function collect(reader)
            local pieces = {}
            while true do
                local piece = reader()
                if piece == nil or piece == "" then return concat(pieces) end
                if type(piece) ~= "string" and type(piece) ~= "number" then return nil end
                pieces[#pieces + 1] = piece
                -- Binary code is refused by its first byte, whatever would follow.
                if #pieces == 1 and byte(piece) == 27 then return piece end
            end
        end
        return function(reader) return pcall(collect, reader) end
    "#;
    let byte: Function = native.raw_get::<Table>("string")?.raw_get("byte")?;
    let concat: Function = native.raw_get::<Table>("table")?.raw_get("concat")?;
    let base = |name: &str| native.raw_get::<Function>(name);
    let collect: Function = lua.load(COLLECT).set_name(OWN_CODE).call((base("type")?, concat, base("pcall")?, byte))?;

    let loader = base("loadstring")?;
    let loadstring = move |lua: &Lua, values: MultiValue| {
        let arguments = Arguments::new(lua, &values);
        let text = arguments.string(1)?;
        let name = if arguments.is_none_or_nil(2) { text.clone() } else { arguments.string(2)? };
        load_text(lua, &loader, &text, &name)
    };
    globals.raw_set("loadstring", lua.create_function(loadstring)?)?;

    let loader = base("loadstring")?;
    let load = move |lua: &Lua, values: MultiValue| {
        let arguments = Arguments::new(lua, &values);
        let Some(Value::Function(reader)) = arguments.get(1) else { return Err(arguments.type_error(1, "function")) };
        let name = if arguments.is_none_or_nil(2) { lua.create_string("=(load)")? } else { arguments.string(2)? };
        match collect.call::<(bool, Value)>(reader)? {
            (true, Value::String(text)) => load_text(lua, &loader, &text, &name),
            (true, _) => {
                let text = lua.create_string(positioned(lua, "reader function must return a string"))?;
                Ok(MultiValue::from_vec(vec![Value::Nil, Value::String(text)]))
            }
            (false, Value::Error(error)) if is_over(&error) => Err(*error),
            (false, error) => Ok(MultiValue::from_vec(vec![Value::Nil, caught(lua, error)?])),
        }
    };
    globals.raw_set("load", lua.create_function(load)?)
}

fn load_text(lua: &Lua, loader: &Function, text: &LuaString, name: &LuaString) -> Result<MultiValue> {
    /// The first byte of precompiled code.
    const BINARY_MARK: u8 = 0x1b;
    if text.as_bytes().first() == Some(&BINARY_MARK) {
        // Behind a blank it is read as text, and complained about in the words of the parser.
        let text = lua.create_string([b" ", &*text.as_bytes()].concat())?;
        return loader.call((text, name));
    }
    loader.call((text, name))
}

/// The functions that look past metatables, aware of guards.
fn install_guarding(lua: &Lua, native: &Table, globals: &Table) -> Result<()> {
    globals.raw_set("rawget", lua.create_function(rawget)?)?;
    globals.raw_set("rawset", lua.create_function(rawset)?)?;
    globals.raw_set("setmetatable", lua.create_function(setmetatable)?)?;
    let next: Function = native.raw_get("next")?;
    globals.raw_set("pairs", lua.create_function(move |lua, values: MultiValue| pairs(lua, &next, &values))?)?;

    // The metatable of strings is shared by all scripts, so they see a guard of a copy.
    let of_strings = lua.create_table()?;
    of_strings.raw_set("__index", globals.raw_get::<Table>("string")?)?;
    let of_strings = guard(lua, &of_strings)?;
    globals.raw_set("getmetatable", lua.create_function(move |lua, values| getmetatable(lua, &of_strings, &values))?)
}

/// Puts a guard before the globals and makes it what chunks run in.
fn seal_globals(lua: &Lua, globals: &Table) -> Result<()> {
    let missing = lua.create_function(|lua, (_, name): (Value, Value)| -> Result<()> {
        let name = match &name {
            Value::String(_) | Value::Integer(_) | Value::Number(_) => lua.coerce_string(name)?,
            _ => None,
        };
        let Some(name) = name else {
            return Err(raise(lua, "Second argument to luaProtectedTableError must be a string or number"));
        };
        // Redis prints a string of C, which ends at a zero byte.
        let name: Vec<u8> = name.as_bytes().iter().copied().take_while(|byte| *byte != 0).collect();
        Err(raise(lua, [b"Script attempted to access nonexistent global variable '", &*name, b"'"].concat()))
    })?;
    let metatable = lua.create_table()?;
    metatable.raw_set("__index", missing)?;
    globals.set_metatable(Some(metatable))?;
    let guard = guard(lua, globals)?;
    globals.raw_set("_G", &guard)?;
    lua.set_globals(guard)
}

/// An empty table in front of `table` that lets reads through and refuses writes.
fn guard(lua: &Lua, table: &Table) -> Result<Table> {
    let guard = lua.create_table()?;
    let metatable = lua.create_table()?;
    metatable.raw_set("__index", table)?;
    let refuse = lua.create_function(|lua, _: MultiValue| -> Result<()> { Err(raise(lua, READ_ONLY)) })?;
    metatable.raw_set("__newindex", refuse)?;
    guard.set_metatable(Some(metatable))?;
    lua.named_registry_value::<Table>(GUARDS)?.raw_set(&guard, table)?;
    Ok(guard)
}

/// The table behind `table`, if it is a guard.
fn guarded(lua: &Lua, table: &Table) -> Result<Option<Table>> {
    lua.named_registry_value::<Table>(GUARDS)?.raw_get(table)
}

fn clear(table: &Table) -> Result<()> {
    let keys = table.pairs::<Value, Value>().map(|pair| Ok(pair?.0)).collect::<Result<Vec<Value>>>()?;
    keys.into_iter().try_for_each(|key| table.raw_set(key, Value::Nil))
}

fn table_at<'a>(arguments: &Arguments<'a>, index: usize) -> Result<&'a Table> {
    match arguments.get(index) {
        Some(Value::Table(table)) => Ok(table),
        _ => Err(arguments.type_error(index, "table")),
    }
}

fn any_at(lua: &Lua, arguments: &Arguments<'_>, index: usize) -> Result<Value> {
    match arguments.get(index) {
        Some(value) => Ok(value.clone()),
        None => Err(raise_argument(lua, index, "value expected")),
    }
}

fn rawget(lua: &Lua, values: MultiValue) -> Result<Value> {
    let arguments = Arguments::new(lua, &values);
    let table = table_at(&arguments, 1)?;
    let key = any_at(lua, &arguments, 2)?;
    guarded(lua, table)?.as_ref().unwrap_or(table).raw_get(key)
}

fn rawset(lua: &Lua, values: MultiValue) -> Result<Table> {
    let arguments = Arguments::new(lua, &values);
    let table = table_at(&arguments, 1)?;
    let key = any_at(lua, &arguments, 2)?;
    let value = any_at(lua, &arguments, 3)?;
    if guarded(lua, table)?.is_some() {
        return Err(raise_bare(READ_ONLY));
    }
    match key {
        Value::Nil => Err(raise_bare("table index is nil")),
        Value::Number(number) if number.is_nan() => Err(raise_bare("table index is NaN")),
        key => table.raw_set(key, value).map(|()| table.clone()),
    }
}

/// `unpack`, whose original writes past the interpreter's stack for ranges that are wider than a C `int`.
fn unpack(lua: &Lua, values: MultiValue) -> Result<MultiValue> {
    /// The places of a function's stack.
    const PLACES: i64 = 8_000;
    let arguments = Arguments::new(lua, &values);
    let table = table_at(&arguments, 1)?;
    let first = if arguments.is_none_or_nil(2) { 1 } else { i64::from(arguments.int(2)?) };
    let last = if arguments.is_none_or_nil(3) { table.raw_len() as i64 } else { i64::from(arguments.int(3)?) };
    if last - first + 1 > PLACES - arguments.len() as i64 {
        return Err(raise(lua, TOO_MANY_RESULTS));
    }
    // Rust can hold somewhat less than the stack.
    (first..=last)
        .map(|index| table.raw_get(index))
        .collect::<Result<MultiValue>>()
        .map_err(|_| raise(lua, TOO_MANY_RESULTS))
}

const TOO_MANY_RESULTS: &str = "too many results to unpack";

fn pairs(lua: &Lua, next: &Function, values: &MultiValue) -> Result<(Function, Table, Value)> {
    let arguments = Arguments::new(lua, values);
    let table = table_at(&arguments, 1)?;
    let Some(behind) = guarded(lua, table)? else {
        return Ok((next.clone(), table.clone(), Value::Nil));
    };
    // A copy, because the loop hands the table to the script.
    let copy = lua.create_table()?;
    for pair in behind.pairs::<Value, Value>() {
        let (key, value) = pair?;
        copy.raw_set(key, value)?;
    }
    Ok((next.clone(), copy, Value::Nil))
}

fn getmetatable(lua: &Lua, of_strings: &Table, values: &MultiValue) -> Result<Value> {
    let arguments = Arguments::new(lua, values);
    let table = match any_at(lua, &arguments, 1)? {
        Value::Table(table) => table,
        Value::String(_) => return Ok(Value::Table(of_strings.clone())),
        _ => return Ok(Value::Nil),
    };
    let behind = guarded(lua, &table)?;
    let Some(metatable) = behind.as_ref().unwrap_or(&table).metatable() else { return Ok(Value::Nil) };
    if behind.is_some() {
        return guard(lua, &metatable).map(Value::Table);
    }
    match metatable.raw_get("__metatable")? {
        Value::Nil => Ok(Value::Table(metatable)),
        shown => Ok(shown),
    }
}

fn setmetatable(lua: &Lua, values: MultiValue) -> Result<Table> {
    let arguments = Arguments::new(lua, &values);
    let table = table_at(&arguments, 1)?;
    let metatable = match arguments.get(2) {
        Some(Value::Nil) => None,
        Some(Value::Table(metatable)) => Some(metatable.clone()),
        _ => return Err(raise_argument(lua, 2, "nil or table expected")),
    };
    if let Some(current) = table.metatable()
        && !current.raw_get::<Value>("__metatable")?.is_nil()
    {
        return Err(raise(lua, "cannot change a protected metatable"));
    }
    if guarded(lua, table)?.is_some() {
        return Err(raise_bare(READ_ONLY));
    }
    table.set_metatable(metatable)?;
    Ok(table.clone())
}

#[cfg(test)]
mod tests;
