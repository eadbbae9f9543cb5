//! The `redis` table of scripts, apart from `redis.call` and `redis.pcall`.
//!
//! # Guarantees
//! Functions, constants and error texts are those of Redis 7.0. There is no replication, so `redis.set_repl` checks its argument and
//! changes nothing. `redis.log` writes to where the owner of the instance says ([`ScriptLog`]).
//!
//! See <https://redis.io/docs/latest/develop/interact/programmability/lua-api/#redis_object>.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use acteon_resp::Protocol;
use mlua::{Lua, LuaString, MultiValue, Result, Table, Value};

use super::cache::sha_of;
use super::raise::{Arguments, Field, Thrown, int_of};
use super::words::Words;
use crate::command::{REDIS_VERSION, look_up};

/// How important a script finds what it logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScriptLogLevel {
    /// `redis.LOG_DEBUG`
    Debug,
    /// `redis.LOG_VERBOSE`
    Verbose,
    /// `redis.LOG_NOTICE`
    Notice,
    /// `redis.LOG_WARNING`
    Warning,
}

/// Where `redis.log` writes. Called from the thread that runs the script, which holds keys: it must be quick.
#[derive(Clone)]
pub struct ScriptLog(Arc<Write>);

type Write = dyn Fn(ScriptLogLevel, &str) + Send + Sync;

impl ScriptLog {
    /// Messages go to `write`.
    pub fn new(write: impl Fn(ScriptLogLevel, &str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }
}

impl Default for ScriptLog {
    /// Messages go nowhere.
    fn default() -> Self {
        Self::new(|_, _| ())
    }
}

impl fmt::Debug for ScriptLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptLog").finish_non_exhaustive()
    }
}

/// The version of the protocol in which a script sees replies.
#[derive(Default)]
pub(crate) struct Version(AtomicBool);

impl Version {
    pub(crate) fn get(&self) -> Protocol {
        if self.0.load(Ordering::Relaxed) { Protocol::Resp3 } else { Protocol::Resp2 }
    }

    pub(crate) fn set(&self, protocol: Protocol) {
        self.0.store(protocol == Protocol::Resp3, Ordering::Relaxed);
    }
}

/// `REDIS_VERSION`, a byte per part.
const REDIS_VERSION_NUM: i64 = 0x0007_000f;

const CONSTANTS: [(&str, i64); 10] = [
    ("LOG_DEBUG", ScriptLogLevel::Debug as i64),
    ("LOG_VERBOSE", ScriptLogLevel::Verbose as i64),
    ("LOG_NOTICE", ScriptLogLevel::Notice as i64),
    ("LOG_WARNING", ScriptLogLevel::Warning as i64),
    ("REPL_NONE", 0),
    ("REPL_AOF", 1),
    ("REPL_SLAVE", 2),
    ("REPL_REPLICA", 2),
    ("REPL_ALL", REPL_ALL),
    ("REDIS_VERSION_NUM", REDIS_VERSION_NUM),
];
const REPL_ALL: i64 = 3;

/// Makes the table.
pub(crate) fn table(lua: &Lua, version: &Arc<Version>, log: &ScriptLog) -> Result<Table> {
    let table = lua.create_table()?;
    for (name, value) in CONSTANTS {
        table.raw_set(name, value)?;
    }
    table.raw_set("REDIS_VERSION", REDIS_VERSION)?;
    table.raw_set("error_reply", lua.create_function(error_reply)?)?;
    table.raw_set("status_reply", lua.create_function(status_reply)?)?;
    table.raw_set("sha1hex", lua.create_function(sha1hex)?)?;
    let log = log.clone();
    table.raw_set("log", lua.create_function(move |lua, values| write_log(lua, &log, &values))?)?;
    table.raw_set("set_repl", lua.create_function(set_repl)?)?;
    table.raw_set("acl_check_cmd", lua.create_function(acl_check_cmd)?)?;
    table.raw_set("replicate_commands", lua.create_function(|_, _: MultiValue| Ok(true))?)?;
    // There is no debugger, as there is none in Redis unless a session began it.
    table.raw_set("breakpoint", lua.create_function(|_, _: MultiValue| Ok(false))?)?;
    table.raw_set("debug", lua.create_function(|_, _: MultiValue| Ok(()))?)?;
    let version = version.clone();
    table.raw_set("setresp", lua.create_function(move |lua, values| setresp(lua, &version, &values))?)?;
    Ok(table)
}

/// An error of the functions of this table: a table with a field `err`.
pub(crate) fn raise_table(text: &str) -> mlua::Error {
    Thrown::Table(vec![("err", Field::Text(format!("ERR {text}").into_bytes()))]).into()
}

/// The text of an error reply that a script or a command gives, with a code in front.
pub(crate) fn error_text(text: &[u8]) -> Vec<u8> {
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let kept = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    let text = &text[..kept];
    // A word alone is no code.
    if text.contains(&b' ') { text.to_vec() } else { [b"ERR ", text].concat() }
}

/// The table that stands for an error.
pub(crate) fn error_table(lua: &Lua, text: &[u8]) -> Result<Table> {
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set("err", lua.create_string(text)?)?;
    Ok(table)
}

fn error_reply(lua: &Lua, values: MultiValue) -> Result<Table> {
    match only_string(&values) {
        Some(text) => {
            let text = text.as_bytes();
            // To Redis the text is a string of C, which ends at a zero byte.
            let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
            error_table(lua, &error_text(&text[..end]))
        }
        None => error_table(lua, WRONG_REPLY_ARGUMENTS),
    }
}

fn status_reply(lua: &Lua, values: MultiValue) -> Result<Table> {
    let Some(text) = only_string(&values) else { return error_table(lua, WRONG_REPLY_ARGUMENTS) };
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set("ok", text)?;
    Ok(table)
}

fn only_string(values: &MultiValue) -> Option<&LuaString> {
    match values.front() {
        Some(Value::String(text)) if values.len() == 1 => Some(text),
        _ => None,
    }
}

const WRONG_REPLY_ARGUMENTS: &[u8] = b"ERR wrong number or type of arguments";

fn sha1hex(lua: &Lua, values: MultiValue) -> Result<LuaString> {
    if values.len() != 1 {
        return Err(raise_table("wrong number of arguments"));
    }
    // What is neither text nor number counts as empty.
    let sha = match Arguments::new(lua, &values).string(1) {
        Ok(text) => sha_of(&text.as_bytes()),
        Err(_) => sha_of(b""),
    };
    lua.create_string(sha)
}

fn write_log(lua: &Lua, log: &ScriptLog, values: &MultiValue) -> Result<()> {
    if values.len() < 2 {
        return Err(raise_table("redis.log() requires two arguments or more."));
    }
    let arguments = Arguments::new(lua, values);
    let level = arguments.number(1).map_err(|_| raise_table("First argument must be a number (log level)."))?;
    let level = match int_of(level) {
        0 => ScriptLogLevel::Debug,
        1 => ScriptLogLevel::Verbose,
        2 => ScriptLogLevel::Notice,
        3 => ScriptLogLevel::Warning,
        _ => return Err(raise_table("Invalid debug level.")),
    };
    // What is neither text nor number is left out.
    let words = (2..=values.len()).filter_map(|index| arguments.string(index).ok());
    let words: Vec<String> = words.map(|word| word.to_string_lossy()).collect();
    (log.0)(level, &words.join(" "));
    Ok(())
}

fn setresp(lua: &Lua, version: &Version, values: &MultiValue) -> Result<()> {
    if values.len() != 1 {
        return Err(raise_table("redis.setresp() requires one argument."));
    }
    match int_of(Arguments::new(lua, values).number(1).unwrap_or_default()) {
        2 => version.set(Protocol::Resp2),
        3 => version.set(Protocol::Resp3),
        _ => return Err(raise_table("RESP version must be 2 or 3.")),
    }
    Ok(())
}

fn set_repl(lua: &Lua, values: MultiValue) -> Result<()> {
    if values.len() != 1 {
        return Err(raise_table("redis.set_repl() requires two arguments."));
    }
    let targets = int_of(Arguments::new(lua, &values).number(1).unwrap_or_default());
    if i64::from(targets) & !REPL_ALL != 0 {
        return Err(raise_table("Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE."));
    }
    Ok(())
}

fn acl_check_cmd(_: &Lua, values: MultiValue) -> Result<bool> {
    let mut words = Words::default();
    words.read(&values, None).map_err(raise_table)?;
    // Whoever may run scripts may run all commands.
    look_up(&words.slices()).map_err(|_| raise_table("Invalid command passed to redis.acl_check_cmd()"))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::error_text;

    #[test]
    fn an_error_without_a_code_gets_one() {
        assert_eq!(error_text(b"-MY error\r\n"), b"MY error");
        assert_eq!(error_text(b"wrong"), b"ERR wrong");
        assert_eq!(error_text(b""), b"ERR ");
    }
}
