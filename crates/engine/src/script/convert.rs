//! Values between Lua and the protocol, as Redis 7.0 converts them.
//!
//! # Guarantees
//! Every reply becomes a value and every value becomes one reply. Tables that contain themselves end with an error in the place
//! where Redis's stack ends; the depth costs no stack of the thread.
//!
//! | reply | value | reply again |
//! |---|---|---|
//! | integer | number | integer, the fraction cut off |
//! | bulk string | string | bulk string |
//! | status, error | `{ok=..}`, `{err=..}` | status, error |
//! | null | `false`; after `setresp(3)` `nil` | null |
//! | array | table | array up to the first `nil` |
//! | map, set, double, .. of RESP3 | `{map={..}}`, `{set={..}}`, `{double=..}`, .. | the same, flattened for RESP2 |

use std::str;

use acteon_resp::{Deferred, Protocol, ReplyWriter, Token, TokenLimits, token};
use mlua::{Lua, LuaString, Result, Table, Value};

use super::raise::machine_i64;
use super::redis::error_text;
use super::sandbox::Unbounded;

/// What a command of this process has written needs no limits.
const OWN_REPLY: TokenLimits = TokenLimits {
    bulk_bytes_max: usize::MAX,
    line_bytes_max: usize::MAX,
    items_max: usize::MAX,
    depth_max: usize::MAX,
};

/// Redis converts a value with what is left of the 8,000 places of the interpreter's stack. An array takes one of them, a map or set three.
const STACK_PLACES: usize = 7_995;
const ARRAY_PLACES: usize = 1;
const MAP_PLACES: usize = 3;

/// Down to this depth the length of an array is put before it once its end is found, which moves its elements once. Below, the
/// elements are counted first: they would be moved once per level.
const DEFERRED_DEPTH_MAX: usize = 8;

/// The value of a whole reply, or the text of the error that it is.
pub(crate) fn to_lua(lua: &Lua, reply: &[u8]) -> Result<std::result::Result<Value, Vec<u8>>> {
    let (token, len, mut rest) = next(reply);
    match token {
        Token::Error(text) => return Ok(Err(error_text(text))),
        Token::Integer(number) => return Ok(Ok(Value::Number(number as f64))),
        _ => {}
    }
    let _unbounded = Unbounded::for_bytes(lua, reply.len());
    value_of(lua, token, len, &mut rest).map(Ok)
}

/// Reads one value.
fn read(lua: &Lua, rest: &mut &[u8]) -> Result<Value> {
    let (token, len, behind) = next(rest);
    *rest = behind;
    value_of(lua, token, len, rest)
}

/// Reads a string that is UTF-8, as most elements of lists are: mlua moves a `str` into a table at once, where other values are held by Rust
/// first, which takes twice as long. `None`: there is something else, and nothing was read.
fn text_at<'r>(rest: &mut &'r [u8]) -> Option<&'r str> {
    let (Token::Bulk(text), _, behind) = next(rest) else { return None };
    let text = str::from_utf8(text).ok()?;
    *rest = behind;
    Some(text)
}

/// The first token, its length, and what follows it.
fn next(reply: &[u8]) -> (Token<'_>, usize, &[u8]) {
    let Ok(Some((token, len))) = token(reply, &OWN_REPLY) else {
        debug_assert!(false, "a command has written a whole reply");
        return (Token::Null, 0, &[]);
    };
    (token, len, &reply[len..])
}

/// The value that begins with a token of this length. Recursive: the replies of commands nest a few levels.
fn value_of(lua: &Lua, token: Token<'_>, len: usize, rest: &mut &[u8]) -> Result<Value> {
    let value = match token {
        Token::Integer(number) => Value::Number(number as f64),
        Token::Bulk(text) => Value::String(lua.create_string(text)?),
        Token::Simple(text) => tagged(lua, "ok", Value::String(lua.create_string(text)?))?,
        Token::Error(text) => tagged(lua, "err", Value::String(lua.create_string(error_text(text))?))?,
        // RESP3 has one null, which is nil; those of RESP2 are `false`, as they have always been.
        Token::Null if is_resp3_null(token, len) => Value::Nil,
        Token::Null | Token::NullArray => Value::Boolean(false),
        Token::Array(count) | Token::Push(count) => {
            let table = lua.create_table_with_capacity(count, 0)?;
            for index in 1..=count {
                match text_at(rest) {
                    Some(text) => table.raw_set(index, text)?,
                    None => table.raw_set(index, read(lua, rest)?)?,
                }
            }
            Value::Table(table)
        }
        Token::Map(count) => {
            let table = lua.create_table_with_capacity(0, count)?;
            for _ in 0..count {
                let key = read(lua, rest)?;
                table.raw_set(key, read(lua, rest)?)?;
            }
            tagged(lua, "map", Value::Table(table))?
        }
        Token::Set(count) => {
            let table = lua.create_table_with_capacity(0, count)?;
            for _ in 0..count {
                table.raw_set(read(lua, rest)?, true)?;
            }
            tagged(lua, "set", Value::Table(table))?
        }
        Token::Attribute(count) => {
            for _ in 0..count * 2 {
                read(lua, rest)?;
            }
            read(lua, rest)?
        }
        Token::Double(number) => tagged(lua, "double", Value::Number(number))?,
        Token::Boolean(value) => Value::Boolean(value),
        Token::BigNumber(digits) => tagged(lua, "big_number", Value::String(lua.create_string(digits)?))?,
        Token::Verbatim { format, text } => {
            let table = lua.create_table_with_capacity(0, 2)?;
            table.raw_set("string", lua.create_string(text)?)?;
            table.raw_set("format", lua.create_string(format)?)?;
            tagged(lua, "verbatim_string", Value::Table(table))?
        }
    };
    Ok(value)
}

/// `_\r\n` in place of `$-1\r\n`.
fn is_resp3_null(token: Token<'_>, len: usize) -> bool {
    token == Token::Null && len == b"_\r\n".len()
}

fn tagged(lua: &Lua, name: &str, value: Value) -> Result<Value> {
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set(name, value)?;
    Ok(Value::Table(table))
}

/// Tells Redis's statistics that an error was counted when it happened; scripts can see it in the table.
pub(crate) const COUNTED: &str = "ignore_error_stats_update";

/// Writes what a script returns. `version` is the one that the script has chosen: it decides what booleans become. `note` is told of each
/// error in it, and whether it was counted before.
pub(crate) fn write(
    lua: &Lua,
    fields: &Fields,
    value: Value,
    version: Protocol,
    reply: &mut ReplyWriter<'_>,
    note: &mut dyn FnMut(&[u8], bool),
) -> Result<()> {
    let mut writer = Writer { lua, fields, version, reply, note, stack: Vec::new(), outer: None, places: 0 };
    writer.value(value)?;
    while let Some(list) = writer.stack.last_mut() {
        list.next += 1;
        let element: Value = list.elements()?.raw_get(list.next)?;
        if element.is_nil() {
            writer.close()?;
        } else {
            writer.value(element)?;
        }
    }
    Ok(())
}

struct Writer<'w, 'r> {
    lua: &'w Lua,
    fields: &'w Fields,
    version: Protocol,
    reply: &'w mut ReplyWriter<'r>,
    note: &'w mut dyn FnMut(&[u8], bool),
    /// The lists that are not finished, outermost first.
    stack: Vec<List>,
    /// The tables of all of them but the innermost: Rust may hold fewer values of an interpreter than lists can nest.
    outer: Option<Table>,
    /// What Redis's stack would hold.
    places: usize,
}

/// A table that is written element by element.
struct List {
    /// `None` while an inner list is written.
    elements: Option<Table>,
    /// The element that was written last.
    next: usize,
    /// An array whose length is not written yet.
    header: Option<Deferred>,
    places: usize,
}

impl List {
    fn elements(&self) -> Result<&Table> {
        self.elements.as_ref().ok_or_else(|| mlua::Error::runtime("the innermost list has its elements"))
    }
}

/// A table with the field that makes it more than an array.
enum Shape {
    Error { text: Vec<u8>, is_counted: bool },
    Status(Vec<u8>),
    Double(f64),
    Map(Table),
    Set(Table),
    BigNumber(Vec<u8>),
    Verbatim { format: [u8; 3], text: Vec<u8> },
    Array,
}

impl Writer<'_, '_> {
    /// Writes a value, or begins to.
    fn value(&mut self, value: Value) -> Result<()> {
        if self.places >= STACK_PLACES {
            self.reply.error("ERR reached lua stack limit");
            return Ok(());
        }
        match value {
            Value::String(text) => self.reply.bulk(&text.as_bytes()),
            Value::Integer(number) => self.reply.integer(number),
            Value::Number(number) => self.reply.integer(machine_i64(number)),
            Value::Boolean(value) if self.version == Protocol::Resp3 => self.reply.boolean(value),
            Value::Boolean(true) => self.reply.integer(1),
            Value::Table(table) => self.table(table)?,
            _ => self.reply.null(),
        }
        Ok(())
    }

    fn table(&mut self, table: Table) -> Result<()> {
        match self.fields.shape(&table)? {
            Shape::Error { text, is_counted } => {
                (self.note)(&text, is_counted);
                self.reply.error_bytes(&text);
            }
            Shape::Status(text) => self.reply.simple_bytes(&text),
            Shape::Double(number) => self.reply.double(number),
            Shape::BigNumber(digits) => {
                let digits: Vec<u8> =
                    digits.iter().map(|byte| if is_line_break(*byte) { b' ' } else { *byte }).collect();
                self.reply.big_number(&String::from_utf8_lossy(&digits));
            }
            Shape::Verbatim { format, text } => self.reply.verbatim(&String::from_utf8_lossy(&format), &text),
            Shape::Map(map) => {
                let (elements, count) = self.flat(&map, true)?;
                self.reply.map(count);
                self.open(elements, None, MAP_PLACES)?;
            }
            Shape::Set(set) => {
                let (elements, count) = self.flat(&set, false)?;
                self.reply.set(count);
                self.open(elements, None, MAP_PLACES)?;
            }
            Shape::Array => {
                let header = if self.stack.len() < DEFERRED_DEPTH_MAX {
                    Some(self.reply.array_deferred())
                } else {
                    self.reply.array(count(&table)?);
                    None
                };
                self.open(table, header, ARRAY_PLACES)?;
            }
        }
        Ok(())
    }

    fn open(&mut self, elements: Table, header: Option<Deferred>, places: usize) -> Result<()> {
        let depth = self.stack.len();
        if let Some(list) = self.stack.last_mut()
            && let Some(elements) = list.elements.take()
        {
            let outer = match &self.outer {
                Some(outer) => outer,
                None => self.outer.insert(self.lua.create_table()?),
            };
            outer.raw_set(depth, elements)?;
        }
        self.places += places;
        self.stack.push(List { elements: Some(elements), next: 0, header, places });
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let Some(list) = self.stack.pop() else { return Ok(()) };
        self.places -= list.places;
        if let Some(header) = list.header {
            self.reply.close(header, list.next - 1);
        }
        let depth = self.stack.len();
        if let (Some(list), Some(outer)) = (self.stack.last_mut(), &self.outer) {
            list.elements = Some(outer.raw_get(depth)?);
        }
        Ok(())
    }

    /// The keys of a table, each with its value if asked for, as a list; and how many keys there are.
    fn flat(&self, table: &Table, with_values: bool) -> Result<(Table, usize)> {
        let flat = self.lua.create_table()?;
        let (mut count, mut end) = (0, 0);
        table.for_each(|key: Value, value: Value| {
            count += 1;
            end += 1;
            flat.raw_set(end, key)?;
            if with_values {
                end += 1;
                flat.raw_set(end, value)?;
            }
            Ok(())
        })?;
        Ok((flat, count))
    }
}

/// The fields that make tables more than arrays. At hand as strings of the interpreter: each table is asked for most of them.
pub(crate) struct Fields {
    err: LuaString,
    ok: LuaString,
    double: LuaString,
    big_number: LuaString,
    verbatim: LuaString,
    map: LuaString,
    set: LuaString,
}

impl Fields {
    pub(crate) fn new(lua: &Lua) -> Result<Self> {
        Ok(Self {
            err: lua.create_string("err")?,
            ok: lua.create_string("ok")?,
            double: lua.create_string("double")?,
            big_number: lua.create_string("big_number")?,
            verbatim: lua.create_string("verbatim_string")?,
            map: lua.create_string("map")?,
            set: lua.create_string("set")?,
        })
    }

    /// What a table stands for; where several fields claim it, the first one of this order wins.
    fn shape(&self, table: &Table) -> Result<Shape> {
        if let Value::String(text) = table.raw_get(&self.err)? {
            return Ok(Shape::Error { text: text.as_bytes().to_vec(), is_counted: is_counted(table)? });
        }
        if let Value::String(text) = table.raw_get(&self.ok)? {
            return Ok(Shape::Status(text.as_bytes().to_vec()));
        }
        match table.raw_get(&self.double)? {
            Value::Integer(number) => return Ok(Shape::Double(number as f64)),
            Value::Number(number) => return Ok(Shape::Double(number)),
            _ => {}
        }
        if let Value::String(digits) = table.raw_get(&self.big_number)? {
            return Ok(Shape::BigNumber(digits.as_bytes().to_vec()));
        }
        if let Value::Table(verbatim) = table.raw_get(&self.verbatim)?
            && let (Value::String(text), Value::String(format)) =
                (verbatim.raw_get("string")?, verbatim.raw_get("format")?)
        {
            // Blanks fill a short format, and three letters of a long one count.
            let mut letters = [b' '; 3];
            letters.iter_mut().zip(&*format.as_bytes()).for_each(|(to, from)| *to = *from);
            return Ok(Shape::Verbatim { format: letters, text: text.as_bytes().to_vec() });
        }
        if let Value::Table(map) = table.raw_get(&self.map)? {
            return Ok(Shape::Map(map));
        }
        if let Value::Table(set) = table.raw_get(&self.set)? {
            return Ok(Shape::Set(set));
        }
        Ok(Shape::Array)
    }
}

/// Whether an error was counted when it happened.
pub(crate) fn is_counted(error: &Table) -> Result<bool> {
    Ok(error.raw_get::<Value>(COUNTED)? == Value::Boolean(true))
}

fn count(table: &Table) -> Result<usize> {
    let mut count = 0;
    while !table.raw_get::<Value>(count + 1)?.is_nil() {
        count += 1;
    }
    Ok(count)
}

fn is_line_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use acteon_resp::{Protocol, ReplyWriter};
    use mlua::Lua;

    use super::{Fields, to_lua, write};

    fn reply(script: &str, version: Protocol, protocol: Protocol) -> String {
        let lua = Lua::new();
        let value = lua.load(script).eval().expect("the script runs");
        let mut out = Vec::new();
        let fields = Fields::new(&lua).expect("names");
        write(&lua, &fields, value, version, &mut ReplyWriter::new(&mut out, protocol), &mut |_, _| ())
            .expect("it is written");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn values_become_the_replies_of_each_version() {
        let both =
            |script| (reply(script, Protocol::Resp2, Protocol::Resp2), reply(script, Protocol::Resp3, Protocol::Resp3));
        let same = |text: &str| (text.to_owned(), text.to_owned());
        assert_eq!(both("return -3.99"), same(":-3\r\n"));
        assert_eq!(both("return {1, {ok='fine'}, nil, 3}"), same("*2\r\n:1\r\n+fine\r\n"));
        assert_eq!(both("return true"), (":1\r\n".into(), "#t\r\n".into()));
        assert_eq!(both("return false"), ("$-1\r\n".into(), "#f\r\n".into()));
        assert_eq!(
            both("return {map={a={set={b=true}}}}"),
            ("*2\r\n$1\r\na\r\n*1\r\n$1\r\nb\r\n".into(), "%1\r\n$1\r\na\r\n~1\r\n$1\r\nb\r\n".into())
        );
        assert_eq!(both("return {double=0.5}"), ("$3\r\n0.5\r\n".into(), ",0.5\r\n".into()));
        assert_eq!(
            both("return {verbatim_string={format='t',string='x'}}"),
            ("$1\r\nx\r\n".into(), "=5\r\nt  :x\r\n".into())
        );
    }

    #[test]
    fn a_table_in_itself_ends_where_the_stack_of_redis_ends() {
        let endless = reply("local t = {} t[1] = t return t", Protocol::Resp2, Protocol::Resp2);
        assert_eq!(endless, "*1\r\n".repeat(7_995) + "-ERR reached lua stack limit\r\n");
        let maps = reply("local t = {} t.map = {a = t} return t", Protocol::Resp2, Protocol::Resp2);
        assert!(maps.ends_with("*2\r\n-ERR reached lua stack limit\r\n-ERR reached lua stack limit\r\n"));
        assert_eq!(maps.matches("$1\r\na").count(), 2_664);
    }

    #[test]
    fn replies_become_values_and_the_same_replies_again() {
        let lua = Lua::new();
        let fields = Fields::new(&lua).expect("names");
        for (text, protocol) in [
            ("*3\r\n:1\r\n$-1\r\n+OK\r\n", Protocol::Resp2),
            ("%1\r\n$1\r\na\r\n*1\r\n,1.5\r\n", Protocol::Resp3),
            ("~1\r\n$1\r\na\r\n", Protocol::Resp3),
            ("=5\r\ntxt:x\r\n", Protocol::Resp3),
            ("(123\r\n", Protocol::Resp3),
            ("#f\r\n", Protocol::Resp3),
            ("_\r\n", Protocol::Resp3),
        ] {
            let value = to_lua(&lua, text.as_bytes()).expect("a value").expect("no error");
            let mut out = Vec::new();
            let mut writer = ReplyWriter::new(&mut out, protocol);
            write(&lua, &fields, value, protocol, &mut writer, &mut |_, _| ()).expect("it is written");
            assert_eq!(String::from_utf8_lossy(&out), text);
        }
    }
}
