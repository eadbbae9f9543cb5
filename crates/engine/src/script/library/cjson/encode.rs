//! Lua values to JSON.
//!
//! # Guarantees
//! A table whose keys are positive integers becomes an array with nulls in its holes, unless it is too sparse; every other
//! table becomes an object, the empty one as well. The text is at most [`TEXT_BYTES_MAX`] long.

use mlua::{Error, Function, Lua, LuaString, Result, Table, Value};

use super::{InvalidNumbers, Options};
use crate::script::library::number::format_g;
use crate::script::library::{BYTES_MAX as TEXT_BYTES_MAX, DEPTH_MAX};
use crate::script::raise::{raise, raise_bare, type_name};

pub(super) fn encode(lua: &Lua, options: &Options, next: &Function, value: Value) -> Result<LuaString> {
    let mut encoder = Encoder { lua, options, next, out: Vec::new(), open: Vec::new() };
    encoder.value(value)?;
    while let Some(value) = encoder.advance()? {
        encoder.value(value)?;
    }
    lua.create_string(encoder.out)
}

struct Encoder<'a> {
    lua: &'a Lua,
    options: &'a Options,
    /// Lua's own `next`, to walk a table in steps without keeping its entries.
    next: &'a Function,
    out: Vec<u8>,
    /// The tables around the value at hand, outermost first.
    open: Vec<Open>,
}

enum Open {
    Array { table: Table, at: i64, len: i64 },
    Object { table: Table, key: Value, first: bool },
}

impl Encoder<'_> {
    /// Writes a value without parts, or opens a table.
    fn value(&mut self, value: Value) -> Result<()> {
        if self.out.len() > TEXT_BYTES_MAX {
            return Err(raise_bare("not enough memory"));
        }
        match &value {
            Value::Nil => self.out.extend_from_slice(b"null"),
            Value::Boolean(true) => self.out.extend_from_slice(b"true"),
            Value::Boolean(false) => self.out.extend_from_slice(b"false"),
            Value::Integer(number) => self.number(*number as f64)?,
            Value::Number(number) => self.number(*number)?,
            Value::String(text) => write_text(&mut self.out, &text.as_bytes()),
            Value::LightUserData(null) if null.0.is_null() => self.out.extend_from_slice(b"null"),
            Value::Table(table) => self.open(table.clone())?,
            other => return Err(self.unfit(type_name(other), "type not supported")),
        }
        Ok(())
    }

    fn open(&mut self, table: Table) -> Result<()> {
        let depth = self.open.len() + 1;
        if depth > DEPTH_MAX || depth > self.options.encode_depth_max as usize {
            return Err(raise(self.lua, format!("Cannot serialise, excessive nesting ({depth})")));
        }
        match self.array_len(&table)? {
            Some(len) => {
                self.out.push(b'[');
                self.open.push(Open::Array { table, at: 0, len });
            }
            None => {
                self.out.push(b'{');
                self.open.push(Open::Object { table, key: Value::Nil, first: true });
            }
        }
        Ok(())
    }

    /// Closes what has ended and gives the next value to write, if there is one.
    fn advance(&mut self) -> Result<Option<Value>> {
        while let Some(open) = self.open.last_mut() {
            match open {
                Open::Array { table, at, len } if *at < *len => {
                    if *at > 0 {
                        self.out.push(b',');
                    }
                    *at += 1;
                    return table.raw_get(*at).map(Some);
                }
                Open::Array { .. } => self.out.push(b']'),
                Open::Object { table, key, first } => {
                    let (found, value): (Value, Value) = self.next.call((&*table, &*key))?;
                    if !found.is_nil() {
                        let comma = !std::mem::replace(first, false);
                        *key = found.clone();
                        self.key(&found, comma)?;
                        return Ok(Some(value));
                    }
                    self.out.push(b'}');
                }
            }
            self.open.pop();
        }
        Ok(None)
    }

    fn key(&mut self, key: &Value, comma: bool) -> Result<()> {
        if comma {
            self.out.push(b',');
        }
        let number = match key {
            Value::String(text) => {
                write_text(&mut self.out, &text.as_bytes());
                self.out.push(b':');
                return Ok(());
            }
            Value::Integer(number) => *number as f64,
            Value::Number(number) => *number,
            other => return Err(self.unfit(type_name(other), "table key must be a number or string")),
        };
        self.out.push(b'"');
        self.number(number)?;
        self.out.extend_from_slice(b"\":");
        Ok(())
    }

    /// The length of the array that `table` is, `None` if it is to be an object.
    fn array_len(&self, table: &Table) -> Result<Option<i64>> {
        let mut max: i32 = 0;
        let mut items: i32 = 0;
        for pair in table.pairs::<Value, Value>() {
            let key = match pair?.0 {
                Value::Integer(key) => key as f64,
                Value::Number(key) => key,
                _ => return Ok(None),
            };
            if key.floor() != key || key < 1.0 {
                return Ok(None);
            }
            if key > f64::from(max) {
                // A key beyond an `int` turns into the least one, as it does on the machines that Redis runs on.
                max = if key <= f64::from(i32::MAX) { key as i32 } else { i32::MIN };
            }
            items = items.saturating_add(1);
        }
        let Options { sparse_ratio: ratio, sparse_safe: safe, .. } = *self.options;
        if ratio > 0 && i64::from(max) > i64::from(items) * i64::from(ratio) && max > safe {
            if !self.options.sparse_convert {
                return Err(self.unfit("table", "excessively sparse array"));
            }
            return Ok(None);
        }
        Ok((max > 0).then_some(i64::from(max)))
    }

    fn number(&mut self, number: f64) -> Result<()> {
        if number.is_finite() {
            format_g(number, self.options.encode_precision as usize, &mut self.out);
            return Ok(());
        }
        match self.options.encode_invalid {
            InvalidNumbers::Refused => return Err(self.unfit("number", "must not be NaN or Inf")),
            InvalidNumbers::Null => self.out.extend_from_slice(b"null"),
            InvalidNumbers::Printed if number.is_nan() => self.out.extend_from_slice(b"nan"),
            InvalidNumbers::Printed => format_g(number, self.options.encode_precision as usize, &mut self.out),
        }
        Ok(())
    }

    fn unfit(&self, kind: &str, reason: &str) -> Error {
        raise(self.lua, format!("Cannot serialise {kind}: {reason}"))
    }
}

fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.reserve(text.len() + 2);
    out.push(b'"');
    for byte in text {
        let short = match byte {
            b'"' | b'\\' | b'/' => *byte,
            b'\x08' => b'b',
            b'\t' => b't',
            b'\n' => b'n',
            b'\x0c' => b'f',
            b'\r' => b'r',
            0..=31 | 127 => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                continue;
            }
            _ => {
                out.push(*byte);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', short]);
    }
    out.push(b'"');
}
