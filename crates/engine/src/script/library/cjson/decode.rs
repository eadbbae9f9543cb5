//! JSON to Lua values.
//!
//! # Guarantees
//! Every text gives a value or an error that says what was expected, what was found, and at which character. Strings are bytes;
//! only their escapes are looked at. `null` becomes `cjson.null`.

use mlua::{Error, Lua, Result, Table, Value};

use super::Options;
use crate::script::library::DEPTH_MAX;
use crate::script::library::number::{parse_prefix, starts_with_ignoring_case};
use crate::script::raise::raise;

pub(super) fn decode(lua: &Lua, options: &Options, text: &[u8]) -> Result<Value> {
    if let [first, second, ..] = text
        && (*first == 0 || *second == 0)
    {
        return Err(raise(lua, "JSON parser does not support UTF-16 or UTF-32"));
    }
    let mut decoder = Decoder { lua, options, text, at: 0, open: Vec::new() };
    let value = decoder.document()?;
    let (token, at) = decoder.token();
    match token {
        Token::End => Ok(value),
        other => Err(decoder.expected("the end", &other, at)),
    }
}

enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Text(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Bad(&'static str),
}

impl Token {
    /// What errors call it.
    fn name(&self) -> &'static str {
        match self {
            Token::ObjectBegin => "T_OBJ_BEGIN",
            Token::ObjectEnd => "T_OBJ_END",
            Token::ArrayBegin => "T_ARR_BEGIN",
            Token::ArrayEnd => "T_ARR_END",
            Token::Text(_) => "T_STRING",
            Token::Number(_) => "T_NUMBER",
            Token::Boolean(_) => "T_BOOLEAN",
            Token::Null => "T_NULL",
            Token::Colon => "T_COLON",
            Token::Comma => "T_COMMA",
            Token::End => "T_END",
            Token::Bad(reason) => reason,
        }
    }
}

struct Decoder<'a> {
    lua: &'a Lua,
    options: &'a Options,
    text: &'a [u8],
    at: usize,
    /// The tables around the value at hand, outermost first.
    open: Vec<Open>,
}

enum Open {
    Array { table: Table, len: i64 },
    Object { table: Table, key: Vec<u8> },
}

impl Decoder<'_> {
    fn document(&mut self) -> Result<Value> {
        let (mut token, mut at) = self.token();
        loop {
            let value = match token {
                Token::Text(text) => Some(Value::String(self.lua.create_string(text)?)),
                Token::Number(number) => Some(Value::Number(number)),
                Token::Boolean(flag) => Some(Value::Boolean(flag)),
                Token::Null => Some(Value::NULL),
                Token::ObjectBegin => self.open_object()?,
                Token::ArrayBegin => {
                    let table = self.descend()?;
                    let (first, first_at) = self.token();
                    if !matches!(first, Token::ArrayEnd) {
                        self.open.push(Open::Array { table, len: 0 });
                        (token, at) = (first, first_at);
                        continue;
                    }
                    Some(Value::Table(table))
                }
                other => return Err(self.expected("value", &other, at)),
            };
            if let Some(value) = value
                && let Some(document) = self.finish(value)?
            {
                return Ok(document);
            }
            (token, at) = self.token();
        }
    }

    /// A new table one level deeper.
    fn descend(&self) -> Result<Table> {
        let depth = self.open.len() + 1;
        if depth > DEPTH_MAX || depth > self.options.decode_depth_max as usize {
            let text = format!("Found too many nested data structures ({depth}) at character {}", self.at);
            return Err(raise(self.lua, text));
        }
        self.lua.create_table()
    }

    /// An empty object, or `None` with its first key read: its value follows.
    fn open_object(&mut self) -> Result<Option<Value>> {
        let table = self.descend()?;
        let (token, at) = self.token();
        if matches!(token, Token::ObjectEnd) {
            return Ok(Some(Value::Table(table)));
        }
        let key = self.key(token, at)?;
        self.open.push(Open::Object { table, key });
        Ok(None)
    }

    fn key(&mut self, token: Token, at: usize) -> Result<Vec<u8>> {
        let Token::Text(key) = token else {
            return Err(self.expected("object key string", &token, at));
        };
        let (colon, at) = self.token();
        if !matches!(colon, Token::Colon) {
            return Err(self.expected("colon", &colon, at));
        }
        Ok(key)
    }

    /// Puts a complete value into the table around it and closes what ends there. Returns the outermost value once it is complete.
    fn finish(&mut self, mut value: Value) -> Result<Option<Value>> {
        loop {
            let Some(open) = self.open.last_mut() else { return Ok(Some(value)) };
            match open {
                Open::Array { table, len } => {
                    *len += 1;
                    table.raw_set(*len, value)?;
                }
                Open::Object { table, key } => table.raw_set(self.lua.create_string(&key)?, value)?,
            }
            let (token, at) = self.token();
            value = match (token, self.open.pop()) {
                (Token::ArrayEnd, Some(Open::Array { table, .. })) => Value::Table(table),
                (Token::ObjectEnd, Some(Open::Object { table, .. })) => Value::Table(table),
                (Token::Comma, Some(open @ Open::Array { .. })) => {
                    self.open.push(open);
                    return Ok(None);
                }
                (Token::Comma, Some(Open::Object { table, .. })) => {
                    let (token, at) = self.token();
                    let key = self.key(token, at)?;
                    self.open.push(Open::Object { table, key });
                    return Ok(None);
                }
                (token, Some(Open::Object { .. })) => return Err(self.expected("comma or object end", &token, at)),
                (token, _) => return Err(self.expected("comma or array end", &token, at)),
            };
        }
    }

    fn expected(&self, what: &str, found: &Token, at: usize) -> Error {
        raise(self.lua, format!("Expected {what} but found {} at character {}", found.name(), at + 1))
    }

    /// The next token and where it lies; for a bad one, where it went wrong.
    fn token(&mut self) -> (Token, usize) {
        while matches!(self.peek(0), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        let start = self.at;
        let single = match self.peek(0) {
            b'{' => Token::ObjectBegin,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ArrayBegin,
            b']' => Token::ArrayEnd,
            b':' => Token::Colon,
            b',' => Token::Comma,
            // A zero byte ends a text, being the end of a string of C.
            0 => return (Token::End, start),
            _ => {
                let token = self.long_token();
                let at = if matches!(token, Token::Bad(_)) { self.at } else { start };
                return (token, at);
            }
        };
        self.at += 1;
        (single, start)
    }

    fn long_token(&mut self) -> Token {
        let rest = &self.text[self.at..];
        let words: [(&[u8], Token); 3] =
            [(b"true", Token::Boolean(true)), (b"false", Token::Boolean(false)), (b"null", Token::Null)];
        match rest.first() {
            Some(b'"') => return self.text_token(),
            Some(b'-' | b'0'..=b'9') => return self.number_token(rest),
            _ => {}
        }
        for (word, token) in words {
            if rest.starts_with(word) {
                self.at += word.len();
                return token;
            }
        }
        if self.options.decode_invalid && is_invalid_number(rest) {
            return self.number_token(rest);
        }
        Token::Bad("invalid token")
    }

    fn number_token(&mut self, rest: &[u8]) -> Token {
        if !self.options.decode_invalid && is_invalid_number(rest) {
            return Token::Bad("invalid number");
        }
        match parse_prefix(rest) {
            Some((number, bytes)) => {
                self.at += bytes;
                Token::Number(number)
            }
            None => Token::Bad("invalid number"),
        }
    }

    /// A string; `at` stays at its fault if it has one.
    fn text_token(&mut self) -> Token {
        self.at += 1;
        let mut out = Vec::new();
        loop {
            let plain = self.text[self.at..].iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0)).count();
            out.extend_from_slice(&self.text[self.at..self.at + plain]);
            self.at += plain;
            match self.peek(0) {
                b'"' => {
                    self.at += 1;
                    return Token::Text(out);
                }
                b'\\' => {
                    if let Err(fault) = self.escape(&mut out) {
                        return Token::Bad(fault);
                    }
                }
                _ => return Token::Bad("unexpected end of string"),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> std::result::Result<(), &'static str> {
        let byte = match self.peek(1) {
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'b' => b'\x08',
            b'f' => b'\x0c',
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let (letter, bytes) = self.unicode().ok_or("invalid unicode escape code")?;
                out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                self.at += bytes;
                return Ok(());
            }
            _ => return Err("invalid escape code"),
        };
        out.push(byte);
        self.at += 2;
        Ok(())
    }

    /// The letter of a `\uXXXX`, or of two that form a surrogate pair, and how many bytes it took.
    fn unicode(&self) -> Option<(char, usize)> {
        let first = self.hex4(2)?;
        if !(0xD800..=0xDFFF).contains(&first) {
            return char::from_u32(first).map(|letter| (letter, 6));
        }
        if first >= 0xDC00 || self.peek(6) != b'\\' || self.peek(7) != b'u' {
            return None;
        }
        let second = self.hex4(8)?;
        if !(0xDC00..=0xDFFF).contains(&second) {
            return None;
        }
        let letter = char::from_u32(((first & 0x3FF) << 10 | (second & 0x3FF)) + 0x1_0000)?;
        Some((letter, 12))
    }

    fn hex4(&self, offset: usize) -> Option<u32> {
        (offset..offset + 4).try_fold(0, |value, at| Some(value << 4 | char::from(self.peek(at)).to_digit(16)?))
    }

    /// The byte `offset` after the current one, zero past the end.
    fn peek(&self, offset: usize) -> u8 {
        self.text.get(self.at + offset).copied().unwrap_or(0)
    }
}

/// Numbers that `strtod` reads and JSON does not know: signs, leading zeros, hexadecimal, infinity, NaN.
fn is_invalid_number(text: &[u8]) -> bool {
    let text = match text {
        [b'+', ..] => return true,
        [b'-', rest @ ..] => rest,
        text => text,
    };
    match text {
        [b'0', second, ..] => second.eq_ignore_ascii_case(&b'x') || second.is_ascii_digit(),
        _ => starts_with_ignoring_case(text, b"inf") || starts_with_ignoring_case(text, b"nan"),
    }
}
