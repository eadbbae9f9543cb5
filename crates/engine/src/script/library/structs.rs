//! `struct`: values to bytes and back after a format string, as C lays structures out.
//!
//! # Guarantees
//! Letters: `b B h H l L T i I` (the last two with a size), `x`, `c` (with a size), `s`, `f`, `d`; `<`, `>`, `!` and blanks
//! control byte order and alignment. The native byte order is little endian on every machine.
//!
//! # Failure
//! A malformed format, a value of the wrong type or too little data is an error of Lua; nothing is read past the data.

use mlua::{Error, Lua, MultiValue, Result, Table, Value};

use crate::script::raise::{Arguments, machine_i64, raise, raise_argument};

/// More bytes than any integer type of C has; Redis's own bound.
const INTEGER_BYTES_MAX: usize = 32;
/// What `!` without a number means: the strictest alignment of a 64-bit machine.
const ALIGN_NATIVE: usize = 8;
/// Results that fit on the interpreter's stack, which holds 8,000 values.
const RESULTS_MAX: usize = 7_996;

pub(super) fn table(lua: &Lua) -> Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("pack", lua.create_function(|lua, values: MultiValue| pack(lua, &values))?)?;
    table.raw_set("unpack", lua.create_function(|lua, values: MultiValue| unpack(lua, &values))?)?;
    table.raw_set("size", lua.create_function(|lua, values: MultiValue| size(lua, &values))?)?;
    Ok(table)
}

fn pack(lua: &Lua, values: &MultiValue) -> Result<mlua::LuaString> {
    let text = Arguments::new(lua, values).string(1)?;
    // A missing value is complained about as nil.
    let mut values = values.clone();
    values.push_back(Value::Nil);
    let arguments = Arguments::new(lua, &values);
    let mut format = Format::new(lua, &text.as_bytes());
    let mut out = Vec::new();
    let mut index = 2;
    // Alignment follows what the format has described so far, which is what was written.
    while let Some(item) = format.next(out.len())? {
        out.resize(out.len() + item.padding, 0);
        match item.letter {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                write_integer(&mut out, arguments.number(index)?, format.order, item.bytes);
                index += 1;
            }
            b'x' => out.push(0),
            b'c' | b's' => {
                let value = arguments.string(index)?;
                index += 1;
                let value = value.as_bytes();
                let bytes = if item.bytes == 0 { value.len() } else { item.bytes };
                let Some(kept) = value.get(..bytes) else {
                    // Redis names the argument after the one that is too short.
                    return Err(raise_argument(lua, index, "string too short"));
                };
                out.extend_from_slice(kept);
                if item.letter == b's' {
                    out.push(0);
                }
            }
            b'f' => {
                let number = arguments.number(index)? as f32;
                out.extend_from_slice(&ordered(number.to_le_bytes(), format.order));
                index += 1;
            }
            b'd' => {
                let number = arguments.number(index)?;
                out.extend_from_slice(&ordered(number.to_le_bytes(), format.order));
                index += 1;
            }
            letter => format.control(letter)?,
        }
    }
    lua.create_string(out)
}

fn unpack(lua: &Lua, values: &MultiValue) -> Result<MultiValue> {
    let arguments = Arguments::new(lua, values);
    let text = arguments.string(1)?;
    let data = arguments.string(2)?;
    let data = data.as_bytes();
    let start = if arguments.is_none_or_nil(3) { 1 } else { machine_i64(arguments.number(3)?) };
    // A negative offset is a huge one, so the data are too short for it.
    let Some(start) = usize::try_from(start as u64).ok().and_then(|start| start.checked_sub(1)) else {
        return Err(raise_argument(lua, 3, "offset must be 1 or greater"));
    };
    let short = || raise_argument(lua, 2, "data string too short");

    let mut format = Format::new(lua, &text.as_bytes());
    let mut results: Vec<Value> = Vec::new();
    let mut at = start;
    while let Some(item) = format.next(at)? {
        at = at.saturating_add(item.padding);
        let mut bytes = item.bytes;
        let mut field = field(&data, at, bytes).ok_or_else(short)?;
        if results.len() >= RESULTS_MAX {
            return Err(raise(lua, "stack overflow (too many results)"));
        }
        match item.letter {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let signed = item.letter.is_ascii_lowercase();
                results.push(Value::Number(read_integer(field, format.order, signed)));
            }
            b'x' => {}
            b'c' => {
                if bytes == 0 {
                    bytes = previous_size(lua, &mut results)?;
                    field = self::field(&data, at, bytes).ok_or_else(short)?;
                }
                results.push(Value::String(lua.create_string(field)?));
            }
            b's' => {
                let rest = data.get(at..).unwrap_or_default();
                let Some(end) = rest.iter().position(|byte| *byte == 0) else {
                    return Err(raise(lua, "unfinished string in data"));
                };
                results.push(Value::String(lua.create_string(&rest[..end])?));
                bytes = end + 1;
            }
            b'f' => results.push(Value::Number(f64::from(f32::from_le_bytes(ordered(exact(field), format.order))))),
            b'd' => results.push(Value::Number(f64::from_le_bytes(ordered(exact(field), format.order)))),
            letter => format.control(letter)?,
        }
        at += bytes;
    }
    results.push(Value::Number(at.wrapping_add(1) as i64 as f64));
    Ok(MultiValue::from_vec(results))
}

fn size(lua: &Lua, values: &MultiValue) -> Result<f64> {
    let arguments = Arguments::new(lua, values);
    let text = arguments.string(1)?;
    let mut format = Format::new(lua, &text.as_bytes());
    let mut total: usize = 0;
    while let Some(item) = format.next(total)? {
        total = total.saturating_add(item.padding).saturating_add(item.bytes);
        match item.letter {
            b's' => return Err(raise_argument(lua, 1, "option 's' has no fixed size")),
            b'c' if item.bytes == 0 => return Err(raise_argument(lua, 1, "option 'c0' has no fixed size")),
            letter if !letter.is_ascii_alphanumeric() => format.control(letter)?,
            _ => {}
        }
    }
    Ok(total as f64)
}

/// The number unpacked last, which says how long the string of a `c0` is.
fn previous_size(lua: &Lua, results: &mut Vec<Value>) -> Result<usize> {
    let missing = || raise(lua, "format 'c0' needs a previous size");
    let previous = results.pop().ok_or_else(missing)?;
    let number = lua.coerce_number(previous)?.ok_or_else(missing)?;
    // A negative length is a huge one to Redis, so the data are too short for it.
    Ok(machine_u64(number).try_into().unwrap_or(usize::MAX))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

/// One letter of a format with its size, and the bytes that alignment puts before it.
struct Item {
    letter: u8,
    bytes: usize,
    padding: usize,
}

/// A format string being read from left to right.
struct Format<'a> {
    lua: &'a Lua,
    rest: Vec<u8>,
    at: usize,
    order: Order,
    align: usize,
}

impl<'a> Format<'a> {
    fn new(lua: &'a Lua, text: &[u8]) -> Self {
        // A format ends at a zero byte, being a string of C.
        let rest = text.iter().copied().take_while(|byte| *byte != 0).collect();
        Self { lua, rest, at: 0, order: Order::Little, align: 1 }
    }

    /// The next letter, where `offset` bytes lie before it.
    fn next(&mut self, offset: usize) -> Result<Option<Item>> {
        let Some(letter) = self.rest.get(self.at).copied() else { return Ok(None) };
        self.at += 1;
        let bytes = match letter {
            b'b' | b'B' | b'x' => 1,
            b'h' | b'H' => 2,
            b'f' => 4,
            b'l' | b'L' | b'T' | b'd' => 8,
            b'c' => self.number(1)?,
            b'i' | b'I' => self.integer_bytes()?,
            _ => 0,
        };
        Ok(Some(Item { letter, bytes, padding: self.padding(letter, bytes, offset) }))
    }

    fn integer_bytes(&mut self) -> Result<usize> {
        let bytes = self.number(4)?;
        if bytes > INTEGER_BYTES_MAX {
            return Err(raise(self.lua, format!("integral size {bytes} is larger than limit of {INTEGER_BYTES_MAX}")));
        }
        Ok(bytes)
    }

    /// The digits that follow, or `default` where there are none.
    fn number(&mut self, default: usize) -> Result<usize> {
        let mut number: Option<i32> = None;
        while let Some(digit) = self.rest.get(self.at).filter(|byte| byte.is_ascii_digit()) {
            let digit = i32::from(digit - b'0');
            let Some(next) = number.unwrap_or(0).checked_mul(10).and_then(|tens| tens.checked_add(digit)) else {
                return Err(raise(self.lua, "integral size overflow"));
            };
            number = Some(next);
            self.at += 1;
        }
        Ok(number.map_or(default, |number| number as usize))
    }

    fn padding(&self, letter: u8, bytes: usize, offset: usize) -> usize {
        if bytes == 0 || letter == b'c' {
            return 0;
        }
        // The formula expects a power of two; for other sizes Redis applies it all the same, and data were written that way.
        let size = bytes.min(self.align);
        size.wrapping_sub(offset & (size - 1)) & (size - 1)
    }

    fn control(&mut self, letter: u8) -> Result<()> {
        match letter {
            b' ' => {}
            b'>' => self.order = Order::Big,
            b'<' => self.order = Order::Little,
            b'!' => {
                let align = self.number(ALIGN_NATIVE)?;
                if !align.is_power_of_two() {
                    return Err(raise(self.lua, format!("alignment {align} is not a power of 2")));
                }
                self.align = align;
            }
            letter => return Err(self.invalid(letter)),
        }
        Ok(())
    }

    fn invalid(&self, letter: u8) -> Error {
        let mut reason = b"invalid format option '".to_vec();
        reason.push(letter);
        reason.push(b'\'');
        raise_argument(self.lua, 1, reason)
    }
}

fn field(data: &[u8], at: usize, bytes: usize) -> Option<&[u8]> {
    data.get(at..at.checked_add(bytes)?)
}

/// A field of a fixed size; its length was taken from the letter.
fn exact<const BYTES: usize>(field: &[u8]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes.copy_from_slice(field);
    bytes
}

fn ordered<const BYTES: usize>(mut little_endian: [u8; BYTES], order: Order) -> [u8; BYTES] {
    if order == Order::Big {
        little_endian.reverse();
    }
    little_endian
}

fn write_integer(out: &mut Vec<u8>, number: f64, order: Order, bytes: usize) {
    let value = if number < 0.0 { machine_i64(number) as u64 } else { machine_u64(number) };
    let low = value.to_le_bytes();
    // Beyond eight bytes there are zeros, for negative numbers as well.
    let byte = |index: usize| low.get(index).copied().unwrap_or(0);
    match order {
        Order::Little => out.extend((0..bytes).map(byte)),
        Order::Big => out.extend((0..bytes).rev().map(byte)),
    }
}

fn read_integer(field: &[u8], order: Order, signed: bool) -> f64 {
    let shift_in = |value: u64, byte: &u8| (value << 8) | u64::from(*byte);
    let value = match order {
        Order::Big => field.iter().fold(0, shift_in),
        Order::Little => field.iter().rev().fold(0, shift_in),
    };
    if !signed {
        return value as f64;
    }
    // Shift counts wrap at 64 bits, as on the machines that Redis runs on: sizes above 8 test the top bit.
    let sign_and_above = u64::MAX.wrapping_shl((field.len() as u32).wrapping_mul(8).wrapping_sub(1));
    let extended = if value & sign_and_above != 0 { value | sign_and_above } else { value };
    extended as i64 as f64
}

/// A double as x86-64 converts it to an unsigned 64-bit integer.
fn machine_u64(number: f64) -> u64 {
    const TOP_BIT: f64 = 9_223_372_036_854_775_808.0;
    if number >= TOP_BIT { machine_i64(number - TOP_BIT) as u64 ^ (1 << 63) } else { machine_i64(number) as u64 }
}
