//! The libraries that Redis 7.0 gives to scripts: `cjson`, `cmsgpack`, `struct` and `bit`; and the functions of `string` that match patterns.
//!
//! # Guarantees
//! Results, errors and their texts are those of redis-server 7.0.15; `library/tests/*.txt` holds what it answered.
//! No input makes them panic, recurse without a bound, or allocate past what the interpreter may hold plus a small multiple
//! of the input's size.
//!
//! # How they work
//! Plain Rust functions. Nesting is walked with a stack on the heap, so the depth of a document costs no stack of the thread.

mod bit;
mod cjson;
mod cmsgpack;
mod number;
mod pattern;
mod strings;
mod structs;

use mlua::{Lua, Result, Table};

/// The deepest nesting that any of the libraries follows, whatever a script asks for. Redis ends at the interpreter's stack,
/// which holds 8,000 values.
pub(crate) const DEPTH_MAX: usize = 4_000;
/// The longest text that a library makes: what a string value may have. A table that contains itself many times over would otherwise
/// fill the memory.
pub(crate) const BYTES_MAX: usize = 512 * 1024 * 1024;

pub(crate) use strings::install as bound_patterns;

/// The tables of all libraries under the names that scripts know.
pub(crate) fn tables(lua: &Lua) -> Result<[(&'static str, Table); 4]> {
    Ok([
        ("cjson", cjson::table(lua)?),
        ("cmsgpack", cmsgpack::table(lua)?),
        ("struct", structs::table(lua)?),
        ("bit", bit::table(lua)?),
    ])
}
