//! Errors thrown by functions written in Rust, and the checks of their arguments.
//!
//! # Guarantees
//! A script that catches such an error sees what it would see from a function written in C: a string (or a table), with the
//! position of the calling line in front where Redis puts one. Bytes that are not UTF-8 pass through.
//!
//! # How it works
//! mlua wraps an `Err` of a callback in a userdata of its own. [`Thrown`] travels inside that wrapper; the sandbox's `pcall`,
//! `xpcall` and `coroutine.resume` call [`caught`] to turn the wrapper back into the value that was meant.
//! Arguments are read by [`Arguments`], because mlua's own conversions word their complaints differently.

use std::fmt;

use mlua::{BorrowedBytes, Error, Lua, LuaString, MultiValue, Result, Value};

/// What a function written in Rust throws.
#[derive(Debug, Clone)]
pub(crate) enum Thrown {
    /// A string.
    Text(Vec<u8>),
    /// A table with these fields.
    Table(Vec<(&'static str, Field)>),
    /// A value of the interpreter that went through a function written in Rust; see [`rethrow`].
    Kept,
    /// The run is over: a script cannot catch this.
    Over,
}

/// One field of a thrown table.
#[derive(Debug, Clone)]
pub(crate) enum Field {
    /// A string.
    Text(Vec<u8>),
    /// A boolean.
    Flag(bool),
}

impl fmt::Display for Thrown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Thrown::Text(text) => f.write_str(&String::from_utf8_lossy(text)),
            Thrown::Table(fields) => match fields.iter().find(|(name, _)| *name == "err") {
                Some((_, Field::Text(text))) => f.write_str(&String::from_utf8_lossy(text)),
                _ => f.write_str("error table"),
            },
            Thrown::Kept => f.write_str("a value"),
            Thrown::Over => f.write_str(OVER),
        }
    }
}

impl std::error::Error for Thrown {}

/// What the client is told whose script was ended.
const OVER: &str = "ERR Script killed by user with SCRIPT KILL...";

/// Where the value of [`Thrown::Kept`] lies. One place is enough: nothing runs between throwing and catching.
const KEPT: &str = "acteon.kept";

impl From<Thrown> for Error {
    fn from(thrown: Thrown) -> Self {
        Error::external(thrown)
    }
}

/// An error with the position of the line that called the running Rust function in front: `user_script:1: text`.
pub(crate) fn raise(lua: &Lua, text: impl AsRef<[u8]>) -> Error {
    Thrown::Text(positioned(lua, text)).into()
}

/// `text` with the position of the line that called the running Rust function in front.
pub(crate) fn positioned(lua: &Lua, text: impl AsRef<[u8]>) -> Vec<u8> {
    let mut message = position(lua, 1).into_bytes();
    message.extend_from_slice(text.as_ref());
    message
}

/// An error without a position.
pub(crate) fn raise_bare(text: impl AsRef<[u8]>) -> Error {
    Thrown::Text(text.as_ref().to_vec()).into()
}

/// `bad argument #1 to 'name' (reason)`, as Lua words it. `index` counts from 1.
pub(crate) fn raise_argument(lua: &Lua, index: usize, reason: impl AsRef<[u8]>) -> Error {
    let (name, method) = lua
        .inspect_stack(0, |frame| {
            let names = frame.names();
            (names.name.map(|name| name.into_owned()), names.name_what == Some("method"))
        })
        .unwrap_or_default();
    let name = name.unwrap_or_else(|| "?".to_owned());
    let mut text = match (method, index) {
        // The object before the colon is not counted.
        (true, 1) => format!("calling '{name}' on bad self ("),
        (true, _) => format!("bad argument #{} to '{name}' (", index.saturating_sub(1)),
        (false, _) => format!("bad argument #{index} to '{name}' ("),
    }
    .into_bytes();
    text.extend_from_slice(reason.as_ref());
    text.push(b')');
    raise(lua, text)
}

/// The value that a script sees for `error`, a value caught by Lua's own `pcall`: what was thrown, without mlua's wrapper.
pub(crate) fn caught(lua: &Lua, error: Value) -> Result<Value> {
    match error {
        Value::Error(error) => thrown_value(lua, &error),
        value => Ok(value),
    }
}

/// Throws on what Lua's own `pcall` gave to a function written in Rust.
pub(crate) fn rethrow(lua: &Lua, error: Value) -> Result<Error> {
    match error {
        Value::Error(error) => Ok(*error),
        Value::String(text) => Ok(raise_bare(text.as_bytes())),
        value => {
            lua.set_named_registry_value(KEPT, value)?;
            Ok(Thrown::Kept.into())
        }
    }
}

/// Whether `error` ends the run.
pub(crate) fn is_over(error: &Error) -> bool {
    matches!(error.downcast_ref(), Some(Thrown::Over))
}

fn thrown_value(lua: &Lua, error: &Error) -> Result<Value> {
    if let Some(thrown) = error.downcast_ref::<Thrown>() {
        return thrown.to_value(lua);
    }
    let text = match error {
        Error::CallbackError { cause, .. } => return thrown_value(lua, cause),
        // mlua adds where it was called from.
        Error::RuntimeError(text) => text.split("\nstack traceback:\n").next().unwrap_or_default().to_owned(),
        // Lua's own text for it, without the prefix of mlua.
        Error::MemoryError(_) => "not enough memory".to_owned(),
        other => other.to_string(),
    };
    Ok(Value::String(lua.create_string(text)?))
}

impl Thrown {
    fn to_value(&self, lua: &Lua) -> Result<Value> {
        let fields = match self {
            Thrown::Text(text) => return Ok(Value::String(lua.create_string(text)?)),
            Thrown::Table(fields) => fields.as_slice(),
            Thrown::Kept => return lua.named_registry_value(KEPT),
            Thrown::Over => &[("err", Field::Text(OVER.as_bytes().to_vec()))],
        };
        let table = lua.create_table()?;
        for (name, field) in fields {
            match field {
                Field::Text(text) => table.raw_set(*name, lua.create_string(text)?)?,
                Field::Flag(flag) => table.raw_set(*name, *flag)?,
            }
        }
        Ok(Value::Table(table))
    }
}

/// `user_script:1: ` for the function at `level` (0 is the running one), empty for one that is not written in Lua.
fn position(lua: &Lua, level: usize) -> String {
    lua.inspect_stack(level, |frame| {
        let line = frame.current_line()?;
        let source = frame.source().short_src?.into_owned();
        Some(format!("{source}:{line}: "))
    })
    .flatten()
    .unwrap_or_default()
}

/// The arguments of a call, read with Lua's own conversions and complaints.
pub(crate) struct Arguments<'a> {
    lua: &'a Lua,
    values: &'a MultiValue,
}

impl<'a> Arguments<'a> {
    pub(crate) fn new(lua: &'a Lua, values: &'a MultiValue) -> Self {
        Self { lua, values }
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// The argument at `index`, counting from 1, if it was passed.
    pub(crate) fn get(&self, index: usize) -> Option<&'a Value> {
        self.values.get(index - 1)
    }

    pub(crate) fn is_none_or_nil(&self, index: usize) -> bool {
        matches!(self.get(index), None | Some(Value::Nil))
    }

    /// A string, or a number as text.
    pub(crate) fn string(&self, index: usize) -> Result<LuaString> {
        match self.get(index) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(number @ (Value::Integer(_) | Value::Number(_))) => {
                let text = self.lua.coerce_string(number.clone())?;
                text.ok_or_else(|| self.type_error(index, "string"))
            }
            _ => Err(self.type_error(index, "string")),
        }
    }

    /// The bytes of a string, or of a number as text.
    pub(crate) fn bytes(&self, index: usize) -> Result<BorrowedBytes> {
        match self.get(index) {
            // Without a second reference to the string, which takes as long as to find a short text in it.
            Some(Value::String(text)) => Ok(text.as_bytes()),
            _ => Ok(self.string(index)?.as_bytes()),
        }
    }

    /// A number, or a string that reads as one.
    pub(crate) fn number(&self, index: usize) -> Result<f64> {
        match self.get(index) {
            Some(Value::Integer(number)) => Ok(*number as f64),
            Some(Value::Number(number)) => Ok(*number),
            Some(text @ Value::String(_)) => {
                let number = self.lua.coerce_number(text.clone())?;
                number.ok_or_else(|| self.type_error(index, "number"))
            }
            _ => Err(self.type_error(index, "number")),
        }
    }

    /// A number without its fraction, in the width of a C `int`, which is where the callers keep it.
    pub(crate) fn int(&self, index: usize) -> Result<i32> {
        Ok(int_of(self.number(index)?))
    }

    /// A number without its fraction, in 64 bits.
    pub(crate) fn long(&self, index: usize) -> Result<i64> {
        Ok(machine_i64(self.number(index)?))
    }

    /// As [`long`](Self::long), with a default for an absent argument.
    pub(crate) fn long_or(&self, index: usize, default: i64) -> Result<i64> {
        if self.is_none_or_nil(index) { Ok(default) } else { self.long(index) }
    }

    pub(crate) fn type_error(&self, index: usize, expected: &str) -> Error {
        let got = self.get(index).map_or("no value", type_name);
        raise_argument(self.lua, index, format!("{expected} expected, got {got}"))
    }
}

/// Lua's name for the type of `value`.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Boolean(_) => "boolean",
        Value::Integer(_) | Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Table(_) => "table",
        Value::Function(_) => "function",
        Value::Thread(_) => "thread",
        _ => "userdata",
    }
}

/// A double as the machine converts it to 64 bits, cut to 32: what reaches a C function's `int` from Lua.
pub(crate) fn int_of(number: f64) -> i32 {
    machine_i64(number) as i32
}

/// A double as x86-64 converts it to a signed 64-bit integer: `i64::MIN` for whatever does not fit.
pub(crate) fn machine_i64(number: f64) -> i64 {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&number) { number as i64 } else { i64::MIN }
}

#[cfg(test)]
mod tests {
    use super::{int_of, machine_i64};

    #[test]
    fn a_double_that_does_not_fit_becomes_the_least_integer() {
        assert_eq!(machine_i64(9.3e18), i64::MIN);
        assert_eq!(machine_i64(f64::NAN), i64::MIN);
        assert_eq!(machine_i64(-1.9), -1);
        assert_eq!(int_of(4_294_967_297.0), 1);
    }
}
