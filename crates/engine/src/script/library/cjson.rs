//! `cjson`: JSON to Lua values and back, after lua-cjson 2.1.0 as Redis 7.0 carries it.
//!
//! # Guarantees
//! Options, their bounds and their defaults are the same, and so are the texts of errors. `cjson.new()` gives a second
//! library with options of its own. Options stay as they were set until the interpreter is replaced.
//!
//! # Failure
//! Whatever is not JSON, nests deeper than the options allow, or has no form in JSON is an error of Lua.
//!
//! # How it works
//! `decode.rs` and `encode.rs` walk with a stack on the heap; this file holds the options.

mod decode;
mod encode;

use std::sync::Arc;

use mlua::{Function, IntoLuaMulti, Lua, MultiValue, Result, Table, Value};
use parking_lot::Mutex;

use crate::script::raise::{Arguments, raise_argument};

/// Options of one `cjson` table.
#[derive(Debug, Clone, Copy)]
struct Options {
    sparse_convert: bool,
    sparse_ratio: i32,
    sparse_safe: i32,
    encode_depth_max: i32,
    encode_invalid: InvalidNumbers,
    encode_precision: i32,
    encode_keep_buffer: bool,
    decode_depth_max: i32,
    decode_invalid: bool,
}

/// What becomes of infinities and NaN when encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InvalidNumbers {
    Refused,
    Printed,
    Null,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sparse_convert: false,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_depth_max: 1_000,
            encode_invalid: InvalidNumbers::Refused,
            encode_precision: 14,
            encode_keep_buffer: true,
            decode_depth_max: 1_000,
            decode_invalid: true,
        }
    }
}

/// The options of one table. Its functions run one at a time; the lock is there because interpreters move between threads.
type Shared = Arc<Mutex<Options>>;

pub(super) fn table(lua: &Lua) -> Result<Table> {
    let next = lua.globals().raw_get("next")?;
    table_with_next(lua, next)
}

/// A table with fresh options. `next` is Lua's own: scripts have a globals table that is empty to look at.
fn table_with_next(lua: &Lua, next: Function) -> Result<Table> {
    let table = lua.create_table()?;
    let options = Shared::default();
    codec(lua, &table, &options, &next)?;
    settings(lua, &table, &options)?;
    table.raw_set("new", lua.create_function(move |lua, _: MultiValue| table_with_next(lua, next.clone()))?)?;
    table.raw_set("null", Value::NULL)?;
    table.raw_set("_NAME", "cjson")?;
    table.raw_set("_VERSION", "2.1.0")?;
    Ok(table)
}

fn codec(lua: &Lua, table: &Table, options: &Shared, next: &Function) -> Result<()> {
    let next = next.clone();
    add(lua, table, options, "encode", move |lua, options, values| {
        expect_one(lua, values)?;
        let options = *options.lock();
        encode::encode(lua, &options, &next, values.front().cloned().unwrap_or(Value::Nil))
    })?;
    add(lua, table, options, "decode", |lua, options, values| {
        expect_one(lua, values)?;
        let text = Arguments::new(lua, values).string(1)?;
        let options = *options.lock();
        decode::decode(lua, &options, &text.as_bytes())
    })
}

fn settings(lua: &Lua, table: &Table, options: &Shared) -> Result<()> {
    add(lua, table, options, "encode_sparse_array", encode_sparse_array)?;
    add(lua, table, options, "encode_max_depth", |lua, options, values| {
        depth(&Settings::new(lua, values, 1)?, &mut options.lock().encode_depth_max)
    })?;
    add(lua, table, options, "decode_max_depth", |lua, options, values| {
        depth(&Settings::new(lua, values, 1)?, &mut options.lock().decode_depth_max)
    })?;
    add(lua, table, options, "encode_number_precision", |lua, options, values| {
        Settings::new(lua, values, 1)?.integer(1, &mut options.lock().encode_precision, 1, 14)
    })?;
    add(lua, table, options, "encode_keep_buffer", |lua, options, values| {
        Settings::new(lua, values, 1)?.flag(1, &mut options.lock().encode_keep_buffer)
    })?;
    add(lua, table, options, "encode_invalid_numbers", encode_invalid_numbers)?;
    add(lua, table, options, "decode_invalid_numbers", |lua, options, values| {
        Settings::new(lua, values, 1)?.flag(1, &mut options.lock().decode_invalid)
    })
}

fn add<R: IntoLuaMulti>(
    lua: &Lua,
    table: &Table,
    options: &Shared,
    name: &str,
    body: impl Fn(&Lua, &Shared, &MultiValue) -> Result<R> + Send + 'static,
) -> Result<()> {
    let options = Arc::clone(options);
    table.raw_set(name, lua.create_function(move |lua, values: MultiValue| body(lua, &options, &values))?)
}

fn expect_one(lua: &Lua, values: &MultiValue) -> Result<()> {
    if values.len() == 1 { Ok(()) } else { Err(raise_argument(lua, 1, "expected 1 argument")) }
}

fn encode_sparse_array(lua: &Lua, options: &Shared, values: &MultiValue) -> Result<(bool, i32, i32)> {
    let settings = Settings::new(lua, values, 3)?;
    let mut options = options.lock();
    let convert = settings.flag(1, &mut options.sparse_convert)?;
    let ratio = settings.integer(2, &mut options.sparse_ratio, 0, i32::MAX)?;
    let safe = settings.integer(3, &mut options.sparse_safe, 0, i32::MAX)?;
    Ok((convert, ratio, safe))
}

fn encode_invalid_numbers(lua: &Lua, options: &Shared, values: &MultiValue) -> Result<Value> {
    let settings = Settings::new(lua, values, 1)?;
    let mut options = options.lock();
    if let Some(choice) = settings.choice(1, &["off", "on", "null"])? {
        options.encode_invalid = [InvalidNumbers::Refused, InvalidNumbers::Printed, InvalidNumbers::Null][choice];
    }
    Ok(match options.encode_invalid {
        InvalidNumbers::Refused => Value::Boolean(false),
        InvalidNumbers::Printed => Value::Boolean(true),
        InvalidNumbers::Null => Value::String(lua.create_string("null")?),
    })
}

fn depth(settings: &Settings<'_>, depth_max: &mut i32) -> Result<i32> {
    settings.integer(1, depth_max, 1, i32::MAX)
}

/// The arguments of a function that sets options: nil leaves an option as it is.
struct Settings<'a> {
    lua: &'a Lua,
    arguments: Arguments<'a>,
}

impl<'a> Settings<'a> {
    fn new(lua: &'a Lua, values: &'a MultiValue, count_max: usize) -> Result<Self> {
        if values.len() > count_max {
            return Err(raise_argument(lua, count_max + 1, "found too many arguments"));
        }
        Ok(Self { lua, arguments: Arguments::new(lua, values) })
    }

    fn integer(&self, index: usize, option: &mut i32, min: i32, max: i32) -> Result<i32> {
        if !self.arguments.is_none_or_nil(index) {
            let number = self.arguments.int(index)?;
            if !(min..=max).contains(&number) {
                // Redis blames the first argument, whichever it was.
                return Err(raise_argument(self.lua, 1, format!("expected integer between {min} and {max}")));
            }
            *option = number;
        }
        Ok(*option)
    }

    fn flag(&self, index: usize, option: &mut bool) -> Result<bool> {
        if let Some(choice) = self.choice(index, &["off", "on"])? {
            *option = choice == 1;
        }
        Ok(*option)
    }

    /// The position of the word among `choices`; false and true stand for the first and the second.
    fn choice(&self, index: usize, choices: &[&str]) -> Result<Option<usize>> {
        match self.arguments.get(index) {
            None | Some(Value::Nil) => Ok(None),
            Some(Value::Boolean(flag)) => Ok(Some(usize::from(*flag))),
            Some(_) => {
                let word = self.arguments.string(index)?;
                let word = word.as_bytes();
                let found = choices.iter().position(|choice| choice.as_bytes() == &*word);
                let invalid = || raise_argument(self.lua, index, [b"invalid option '", &*word, b"'"].concat());
                found.map(Some).ok_or_else(invalid)
            }
        }
    }
}
