//! `bit`: operations on 32-bit integers, after Lua BitOp 1.0.2.
//!
//! # Guarantees
//! Numbers are taken modulo 2^32 after rounding to the nearest integer, ties to even; results lie between -2^31 and 2^31 - 1.
//! Shift counts are taken modulo 32.

use mlua::{Lua, MultiValue, Result, Table};

use crate::script::raise::Arguments;

pub(super) fn table(lua: &Lua) -> Result<Table> {
    let table = lua.create_table()?;
    unary(lua, &table, "tobit", |bits| bits)?;
    unary(lua, &table, "bnot", |bits| !bits)?;
    unary(lua, &table, "bswap", u32::swap_bytes)?;
    fold(lua, &table, "band", |left, right| left & right)?;
    fold(lua, &table, "bor", |left, right| left | right)?;
    fold(lua, &table, "bxor", |left, right| left ^ right)?;
    shift(lua, &table, "lshift", |bits, count| bits << count)?;
    shift(lua, &table, "rshift", |bits, count| bits >> count)?;
    shift(lua, &table, "arshift", |bits, count| ((bits as i32) >> count) as u32)?;
    shift(lua, &table, "rol", u32::rotate_left)?;
    shift(lua, &table, "ror", u32::rotate_right)?;
    table.raw_set("tohex", lua.create_function(|lua, values: MultiValue| tohex(&Arguments::new(lua, &values)))?)?;
    Ok(table)
}

fn unary(lua: &Lua, table: &Table, name: &str, operation: fn(u32) -> u32) -> Result<()> {
    let function = lua.create_function(move |lua, values: MultiValue| {
        let bits = bits_at(&Arguments::new(lua, &values), 1)?;
        Ok(operation(bits) as i32)
    })?;
    table.raw_set(name, function)
}

fn fold(lua: &Lua, table: &Table, name: &str, operation: fn(u32, u32) -> u32) -> Result<()> {
    let function = lua.create_function(move |lua, values: MultiValue| {
        let arguments = Arguments::new(lua, &values);
        let mut bits = bits_at(&arguments, 1)?;
        for index in 2..=arguments.len() {
            bits = operation(bits, bits_at(&arguments, index)?);
        }
        Ok(bits as i32)
    })?;
    table.raw_set(name, function)
}

fn shift(lua: &Lua, table: &Table, name: &str, operation: fn(u32, u32) -> u32) -> Result<()> {
    let function = lua.create_function(move |lua, values: MultiValue| {
        let arguments = Arguments::new(lua, &values);
        let bits = bits_at(&arguments, 1)?;
        let count = bits_at(&arguments, 2)? & 31;
        Ok(operation(bits, count) as i32)
    })?;
    table.raw_set(name, function)
}

/// Hexadecimal digits, the low ones if fewer than eight are asked for; a negative number asks for capitals.
fn tohex(arguments: &Arguments<'_>) -> Result<String> {
    let bits = bits_at(arguments, 1)?;
    let digits = if arguments.get(2).is_none() { 8 } else { bits_at(arguments, 2)? as i32 };
    let text = if digits < 0 { format!("{bits:08X}") } else { format!("{bits:08x}") };
    let kept = digits.unsigned_abs().min(8) as usize;
    Ok(text[8 - kept..].to_owned())
}

fn bits_at(arguments: &Arguments<'_>, index: usize) -> Result<u32> {
    // Adding 2^52 + 2^51 pushes the fraction out of a double, which rounds it, and leaves the integer in its low bits.
    const ROUNDER: f64 = 6_755_399_441_055_744.0;
    Ok((arguments.number(index)? + ROUNDER).to_bits() as u32)
}
