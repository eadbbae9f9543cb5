//! `cmsgpack`: MessagePack to Lua values and back, after lua-cmsgpack 0.4.0.
//!
//! # Guarantees
//! Numbers without a fraction take the shortest integer form, others a float of 4 bytes if that loses nothing, else of 8. A table
//! with exactly the keys 1 to n is an array, the empty one as well; every other one is a map. Tables nested deeper than
//! [`NESTING_MAX`] are packed as nil. The binary and extension types of MessagePack are refused.
//!
//! # How it works
//! Packing recurses, being bounded by [`NESTING_MAX`]. Unpacking keeps open tables in a vector.

use mlua::{Error, Lua, LuaString, MultiValue, Result, Table, Value};

use super::BYTES_MAX;
use crate::script::raise::{Arguments, raise, raise_argument, raise_bare};

/// The deepest table that is packed.
const NESTING_MAX: usize = 16;
/// The deepest table that is unpacked: where the interpreter's stack ends in Redis for tables of one element.
const UNPACK_NESTING_MAX: usize = 2_666;
/// Values that one call returns: what the interpreter's stack holds, less the argument.
const RESULTS_MAX: usize = 7_999;

pub(super) fn table(lua: &Lua) -> Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("pack", lua.create_function(|lua, values: MultiValue| pack(lua, &values))?)?;
    let unpack_all = |lua: &Lua, values: MultiValue| unpack(lua, &values, 0, 0);
    table.raw_set("unpack", lua.create_function(unpack_all)?)?;
    let unpack_one = |lua: &Lua, values: MultiValue| {
        let offset = Arguments::new(lua, &values).long_or(2, 0)?;
        unpack(lua, &values, 1, offset)
    };
    table.raw_set("unpack_one", lua.create_function(unpack_one)?)?;
    let unpack_limit = |lua: &Lua, values: MultiValue| {
        let arguments = Arguments::new(lua, &values);
        let limit = arguments.long(2)?;
        unpack(lua, &values, limit, arguments.long_or(3, 0)?)
    };
    table.raw_set("unpack_limit", lua.create_function(unpack_limit)?)?;
    table.raw_set("_NAME", "cmsgpack")?;
    table.raw_set("_VERSION", "lua-cmsgpack 0.4.0")?;
    table.raw_set("_COPYRIGHT", "Copyright (C) 2012, Salvatore Sanfilippo")?;
    table.raw_set("_DESCRIPTION", "MessagePack C implementation for Lua")?;
    Ok(table)
}

fn pack(lua: &Lua, values: &MultiValue) -> Result<LuaString> {
    if values.is_empty() {
        return Err(raise_argument(lua, 0, "MessagePack pack needs input."));
    }
    let mut out = Vec::new();
    for value in values {
        pack_value(&mut out, value, 0)?;
    }
    lua.create_string(out)
}

fn pack_value(out: &mut Vec<u8>, value: &Value, level: usize) -> Result<()> {
    if out.len() > BYTES_MAX {
        return Err(raise_bare("not enough memory"));
    }
    match value {
        Value::String(text) => {
            pack_len(out, text.as_bytes().len(), &TEXT);
            out.extend_from_slice(&text.as_bytes());
        }
        Value::Boolean(flag) => out.push(if *flag { 0xc3 } else { 0xc2 }),
        Value::Integer(number) => pack_integer(out, *number),
        Value::Number(number) => pack_number(out, *number),
        Value::Table(table) if level < NESTING_MAX => pack_table(out, table, level)?,
        _ => out.push(0xc0),
    }
    Ok(())
}

fn pack_table(out: &mut Vec<u8>, table: &Table, level: usize) -> Result<()> {
    if is_array(table)? {
        let len = table.raw_len();
        pack_len(out, len, &ARRAY);
        for index in 1..=len {
            pack_value(out, &table.get::<Value>(index)?, level + 1)?;
        }
        return Ok(());
    }
    let mut len = 0;
    for pair in table.pairs::<Value, Value>() {
        pair?;
        len += 1;
    }
    pack_len(out, len, &MAP);
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        pack_value(out, &key, level + 1)?;
        pack_value(out, &value, level + 1)?;
    }
    Ok(())
}

/// Whether the keys are exactly 1 to n.
fn is_array(table: &Table) -> Result<bool> {
    let mut count: i64 = 0;
    let mut max: i64 = 0;
    for pair in table.pairs::<Value, Value>() {
        match pair?.0 {
            Value::Integer(key) if key > 0 && key <= i64::from(i32::MAX) => max = max.max(key),
            _ => return Ok(false),
        }
        count += 1;
    }
    Ok(max == count)
}

/// The bytes that announce a length, from the shortest form to the longest.
struct Lengths {
    fixed: u8,
    fixed_max: usize,
    one_byte: Option<u8>,
    two_bytes: u8,
    four_bytes: u8,
}

const TEXT: Lengths = Lengths { fixed: 0xa0, fixed_max: 31, one_byte: Some(0xd9), two_bytes: 0xda, four_bytes: 0xdb };
const ARRAY: Lengths = Lengths { fixed: 0x90, fixed_max: 15, one_byte: None, two_bytes: 0xdc, four_bytes: 0xdd };
const MAP: Lengths = Lengths { fixed: 0x80, fixed_max: 15, one_byte: None, two_bytes: 0xde, four_bytes: 0xdf };

fn pack_len(out: &mut Vec<u8>, len: usize, forms: &Lengths) {
    match (len, forms.one_byte) {
        (len, _) if len <= forms.fixed_max => out.push(forms.fixed | len as u8),
        (len, Some(form)) if len <= 0xff => out.extend_from_slice(&[form, len as u8]),
        (len, _) if len <= 0xffff => tagged(out, forms.two_bytes, (len as u16).to_be_bytes()),
        // A Lua string or table never reaches 2^32 here: the interpreter's memory ends before.
        (len, _) => tagged(out, forms.four_bytes, (len as u32).to_be_bytes()),
    }
}

fn pack_number(out: &mut Vec<u8>, number: f64) {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&number) && number.trunc() == number {
        return pack_integer(out, number as i64);
    }
    let short = number as f32;
    if f64::from(short) == number {
        tagged(out, 0xca, short.to_be_bytes());
    } else {
        tagged(out, 0xcb, number.to_be_bytes());
    }
}

fn pack_integer(out: &mut Vec<u8>, number: i64) {
    match number {
        0..=0x7f => out.push(number as u8),
        0x80..=0xff => tagged(out, 0xcc, [number as u8]),
        0x100..=0xffff => tagged(out, 0xcd, (number as u16).to_be_bytes()),
        0x1_0000..=0xffff_ffff => tagged(out, 0xce, (number as u32).to_be_bytes()),
        0x1_0000_0000.. => tagged(out, 0xcf, number.to_be_bytes()),
        -32..=-1 => out.push(number as u8),
        -0x80..=-33 => tagged(out, 0xd0, [number as u8]),
        -0x8000..=-0x81 => tagged(out, 0xd1, (number as i16).to_be_bytes()),
        -0x8000_0000..=-0x8001 => tagged(out, 0xd2, (number as i32).to_be_bytes()),
        _ => tagged(out, 0xd3, number.to_be_bytes()),
    }
}

fn tagged<const BYTES: usize>(out: &mut Vec<u8>, tag: u8, bytes: [u8; BYTES]) {
    out.push(tag);
    out.extend_from_slice(&bytes);
}

/// Unpacks from `offset` at most `limit` values. If neither is given: all of them, and nothing but them; else the offset where
/// the next call goes on comes first, -1 at the end.
fn unpack(lua: &Lua, values: &MultiValue, limit: i64, offset: i64) -> Result<MultiValue> {
    let text = Arguments::new(lua, values).string(1)?;
    let bytes = text.as_bytes();
    let len = bytes.len();
    let (Ok(count_max), Ok(start)) = (usize::try_from(limit), usize::try_from(offset)) else {
        // The figures are those that Redis prints, though the second is not the limit.
        return Err(raise(
            lua,
            format!("Invalid request to unpack with offset of {} and limit of {len}.", offset as i32),
        ));
    };
    let Some(rest) = bytes.get(start..) else {
        return Err(raise(lua, format!("Start offset {} greater than input length {len}.", offset as i32)));
    };
    let all = limit == 0 && offset == 0;
    let mut reader = Reader { lua, rest };
    let mut results = Vec::new();
    while !reader.rest.is_empty() && (all || results.len() < count_max) {
        if results.len() >= RESULTS_MAX {
            return Err(stack_overflow(lua));
        }
        results.push(reader.value()?);
    }
    if !all {
        let next = if reader.rest.is_empty() { -1 } else { (len - reader.rest.len()) as i64 };
        results.insert(0, Value::Integer(next));
    }
    Ok(MultiValue::from_vec(results))
}

fn stack_overflow(lua: &Lua) -> Error {
    raise(lua, "stack overflow (too many return values at once; use unpack_one or unpack_limit instead.)")
}

struct Reader<'a> {
    lua: &'a Lua,
    rest: &'a [u8],
}

/// A table whose elements are being read.
struct Open {
    table: Table,
    left: u32,
    slot: Slot,
}

/// Where the next element goes.
enum Slot {
    Index(i64),
    Key,
    Value(Value),
}

/// What one header announces.
enum Part {
    Whole(Value),
    Array(u32),
    Map(u32),
}

impl Reader<'_> {
    fn value(&mut self) -> Result<Value> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            let (left, slot) = match self.part()? {
                Part::Whole(value) => match finish(&mut open, value)? {
                    Some(value) => return Ok(value),
                    None => continue,
                },
                Part::Array(len) => (len, Slot::Index(1)),
                Part::Map(len) => (len, Slot::Key),
            };
            let table = self.lua.create_table()?;
            if left > 0 {
                if open.len() >= UNPACK_NESTING_MAX {
                    return Err(stack_overflow(self.lua));
                }
                open.push(Open { table, left, slot });
            } else if let Some(value) = finish(&mut open, Value::Table(table))? {
                return Ok(value);
            }
        }
    }

    fn part(&mut self) -> Result<Part> {
        let [tag] = self.take()?;
        let number = match tag {
            0x00..=0x7f => f64::from(tag),
            0xe0..=0xff => f64::from(tag as i8),
            0x80..=0x8f => return Ok(Part::Map(u32::from(tag & 0xf))),
            0x90..=0x9f => return Ok(Part::Array(u32::from(tag & 0xf))),
            0xa0..=0xbf => return self.text(u32::from(tag & 0x1f)),
            0xc0 => return Ok(Part::Whole(Value::Nil)),
            0xc2 | 0xc3 => return Ok(Part::Whole(Value::Boolean(tag == 0xc3))),
            0xca => f64::from(f32::from_be_bytes(self.take()?)),
            0xcb => f64::from_be_bytes(self.take()?),
            0xcc => f64::from(u8::from_be_bytes(self.take()?)),
            0xcd => f64::from(u16::from_be_bytes(self.take()?)),
            0xce => f64::from(u32::from_be_bytes(self.take()?)),
            // Unsigned by its format, signed in Redis.
            0xcf => i64::from_be_bytes(self.take()?) as f64,
            0xd0 => f64::from(i8::from_be_bytes(self.take()?)),
            0xd1 => f64::from(i16::from_be_bytes(self.take()?)),
            0xd2 => f64::from(i32::from_be_bytes(self.take()?)),
            0xd3 => i64::from_be_bytes(self.take()?) as f64,
            0xd9 => return self.len1().and_then(|len| self.text(len)),
            0xda => return self.len2().and_then(|len| self.text(len)),
            0xdb => return self.len4().and_then(|len| self.text(len)),
            0xdc => return self.len2().map(Part::Array),
            0xdd => return self.len4().map(Part::Array),
            0xde => return self.len2().map(Part::Map),
            0xdf => return self.len4().map(Part::Map),
            _ => return Err(raise(self.lua, "Bad data format in input.")),
        };
        Ok(Part::Whole(Value::Number(number)))
    }

    fn text(&mut self, len: u32) -> Result<Part> {
        let Some((text, rest)) = self.rest.split_at_checked(len as usize) else { return Err(self.missing()) };
        self.rest = rest;
        Ok(Part::Whole(Value::String(self.lua.create_string(text)?)))
    }

    fn len1(&mut self) -> Result<u32> {
        Ok(u32::from(u8::from_be_bytes(self.take()?)))
    }

    fn len2(&mut self) -> Result<u32> {
        Ok(u32::from(u16::from_be_bytes(self.take()?)))
    }

    fn len4(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.take()?))
    }

    fn take<const BYTES: usize>(&mut self) -> Result<[u8; BYTES]> {
        let Some((bytes, rest)) = self.rest.split_first_chunk() else { return Err(self.missing()) };
        self.rest = rest;
        Ok(*bytes)
    }

    fn missing(&self) -> Error {
        raise(self.lua, "Missing bytes in input.")
    }
}

/// Puts a complete value into the table around it, and tables that are complete with it into theirs. Returns the outermost value once
/// it is complete.
fn finish(open: &mut Vec<Open>, mut value: Value) -> Result<Option<Value>> {
    loop {
        let Some(around) = open.last_mut() else { return Ok(Some(value)) };
        match std::mem::replace(&mut around.slot, Slot::Key) {
            Slot::Index(index) => {
                around.table.raw_set(index, value)?;
                around.slot = Slot::Index(index + 1);
                around.left -= 1;
            }
            Slot::Key => {
                around.slot = Slot::Value(value);
                return Ok(None);
            }
            Slot::Value(key) => {
                check_key(&key)?;
                around.table.raw_set(key, value)?;
                around.left -= 1;
            }
        }
        if around.left > 0 {
            return Ok(None);
        }
        match open.pop() {
            Some(Open { table, .. }) => value = Value::Table(table),
            None => return Ok(None),
        }
    }
}

fn check_key(key: &Value) -> Result<()> {
    match key {
        Value::Nil => Err(raise_bare("table index is nil")),
        Value::Number(number) if number.is_nan() => Err(raise_bare("table index is NaN")),
        _ => Ok(()),
    }
}
