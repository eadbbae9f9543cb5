//! `string.find`, `match`, `gmatch` and `gsub`, on a matcher that is bounded in depth and can be interrupted; see `pattern.rs`.
//!
//! # Guarantees
//! Results and errors are those of Lua 5.1, but for patterns that nest too deep.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mlua::{Function, IntoLuaMulti, Lua, LuaString, MultiValue, Result, Table, Value};

use super::pattern::{Capture, Matcher, Trouble};
use crate::script::raise::{Arguments, Thrown, raise, raise_argument, raise_bare, rethrow, type_name};
use crate::script::sandbox::Unbounded;
use crate::script::watch::Watch;

/// Replaces the functions in the table `string`. `pcall` is Lua's own.
pub(crate) fn install(lua: &Lua, string: &Table, pcall: &Function) -> Result<()> {
    string.raw_set("find", lua.create_function(|lua, values| search(lua, &values, true))?)?;
    string.raw_set("match", lua.create_function(|lua, values| search(lua, &values, false))?)?;
    let gmatch = lua.create_function(|lua, values| gmatch(lua, &values))?;
    // The older name of the same function.
    string.raw_set("gfind", &gmatch)?;
    string.raw_set("gmatch", gmatch)?;
    let caller = Caller {
        pcall: pcall.clone(),
        index: lua.load("local t, k = ... return t[k]").set_name("=sandbox").into_function()?,
    };
    string.raw_set("gsub", lua.create_function(move |lua, values| gsub(lua, &values, &caller))?)
}

/// `find` and `match`.
fn search(lua: &Lua, values: &MultiValue, finds: bool) -> Result<MultiValue> {
    let arguments = Arguments::new(lua, values);
    let (text, pattern) = (&*arguments.bytes(1)?, &*arguments.bytes(2)?);
    let start = start_of(arguments.long_or(3, 1)?, text.len());
    if finds && (is_true(arguments.get(4)) || is_plain(pattern)) {
        let Some(at) = find_plain(&text[start..], pattern) else { return Value::Nil.into_lua_multi(lua) };
        return (start + at + 1, start + at + pattern.len()).into_lua_multi(lua);
    }
    let (anchored, pattern) = anchor(pattern);
    let mut matcher = Matcher::new(text, pattern, || pause(lua));
    for at in start..=text.len() {
        if let Some(end) = matcher.match_at(at).map_err(|trouble| raised(lua, trouble))? {
            let captures = matcher.captures();
            if !finds {
                return captured(lua, text, captures, Some((at, end)));
            }
            let mut found = captured(lua, text, captures, None)?;
            found.push_front(Value::Number(end as f64));
            found.push_front(Value::Number((at + 1) as f64));
            return Ok(found);
        }
        if anchored {
            break;
        }
    }
    Value::Nil.into_lua_multi(lua)
}

/// A negative place counts from the end.
fn start_of(place: i64, len: usize) -> usize {
    let place = if place < 0 { place.saturating_add_unsigned(len as u64 + 1) } else { place };
    usize::try_from(place.saturating_sub(1)).unwrap_or(0).min(len)
}

fn is_true(value: Option<&Value>) -> bool {
    !matches!(value, None | Some(Value::Nil | Value::Boolean(false)))
}

/// Nothing before the first zero byte, where a pattern ends for Lua, is special.
fn is_plain(pattern: &[u8]) -> bool {
    !pattern.iter().take_while(|byte| **byte != 0).any(|byte| b"^$*+?.([%-".contains(byte))
}

fn find_plain(text: &[u8], wanted: &[u8]) -> Option<usize> {
    let Some(first) = wanted.first() else { return Some(0) };
    let last_start = text.len().checked_sub(wanted.len())?;
    let mut from = 0;
    while from <= last_start {
        let at = from + text[from..=last_start].iter().position(|byte| byte == first)?;
        if text[at..].starts_with(wanted) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

fn anchor(pattern: &[u8]) -> (bool, &[u8]) {
    match pattern {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, pattern),
    }
}

fn gmatch(lua: &Lua, values: &MultiValue) -> Result<Function> {
    let arguments = Arguments::new(lua, values);
    let (text, pattern) = (arguments.string(1)?, arguments.string(2)?);
    // In the registry, for a script may make any number of these functions and forget them, and all that Rust may hold otherwise are 8,000
    // values. What belonged to those that were collected is let go of here.
    lua.expire_registry_values();
    let (text, pattern) = (lua.create_registry_value(text)?, lua.create_registry_value(pattern)?);
    let next_start = AtomicUsize::new(0);
    lua.create_function(move |lua, _: MultiValue| {
        let (text, pattern) = (lua.registry_value::<LuaString>(&text)?, lua.registry_value::<LuaString>(&pattern)?);
        let (text, pattern) = (&*text.as_bytes(), &*pattern.as_bytes());
        let mut matcher = Matcher::new(text, pattern, || pause(lua));
        for at in next_start.load(Ordering::Relaxed)..=text.len() {
            if let Some(end) = matcher.match_at(at).map_err(|trouble| raised(lua, trouble))? {
                // An empty match is not found again.
                next_start.store(if end == at { end + 1 } else { end }, Ordering::Relaxed);
                return captured(lua, text, matcher.captures(), Some((at, end)));
            }
        }
        next_start.store(text.len() + 1, Ordering::Relaxed);
        Ok(MultiValue::new())
    })
}

/// How the functions and tables that `gsub` is given are asked.
struct Caller {
    pcall: Function,
    index: Function,
}

impl Caller {
    fn ask(&self, lua: &Lua, function: &Function, mut arguments: MultiValue) -> Result<Value> {
        arguments.push_front(Value::Function(function.clone()));
        match self.pcall.call(arguments)? {
            (true, value) => Ok(value),
            (false, error) => Err(rethrow(lua, error)?),
        }
    }
}

fn gsub(lua: &Lua, values: &MultiValue, caller: &Caller) -> Result<(LuaString, usize)> {
    let arguments = Arguments::new(lua, values);
    let (text, pattern) = (arguments.string(1)?, arguments.string(2)?);
    let (text, pattern) = (&*text.as_bytes(), &*pattern.as_bytes());
    let count_max = if arguments.is_none_or_nil(4) { text.len() as i64 + 1 } else { arguments.int(4)?.into() };
    let replacement = match arguments.get(3) {
        Some(Value::Integer(_) | Value::Number(_) | Value::String(_)) => Value::String(arguments.string(3)?),
        Some(value @ (Value::Function(_) | Value::Table(_))) => value.clone(),
        _ => return Err(raise_argument(lua, 3, "string/function/table expected")),
    };
    let (anchored, pattern) = anchor(pattern);
    let mut matcher = Matcher::new(text, pattern, || pause(lua));
    let (mut out, mut at, mut count) = (Vec::new(), 0, 0);
    while (count as i64) < count_max {
        let end = matcher.match_at(at).map_err(|trouble| raised(lua, trouble))?;
        if let Some(end) = end {
            count += 1;
            let found = Found { text, captures: matcher.captures(), at, end };
            found.replace(lua, &replacement, caller, &mut out)?;
        }
        match end {
            Some(end) if end > at => at = end,
            _ if at < text.len() => {
                out.push(text[at]);
                at += 1;
            }
            _ => break,
        }
        if anchored {
            break;
        }
        if out.len() > super::BYTES_MAX {
            return Err(raise_bare("not enough memory"));
        }
    }
    out.extend_from_slice(&text[at..]);
    Ok((lua.create_string(out)?, count))
}

/// A match, which is to be replaced.
struct Found<'m> {
    text: &'m [u8],
    captures: &'m [Capture],
    at: usize,
    end: usize,
}

impl Found<'_> {
    fn replace(&self, lua: &Lua, replacement: &Value, caller: &Caller, out: &mut Vec<u8>) -> Result<()> {
        let whole = Some((self.at, self.end));
        let value = match replacement {
            Value::String(template) => return self.fill(lua, &template.as_bytes(), out),
            Value::Function(function) => caller.ask(lua, function, captured(lua, self.text, self.captures, whole)?)?,
            other => {
                let mut arguments = captured(lua, self.text, self.captures, whole)?;
                arguments.truncate(1);
                arguments.push_front(other.clone());
                caller.ask(lua, &caller.index, arguments)?
            }
        };
        match &value {
            Value::Nil | Value::Boolean(false) => out.extend_from_slice(&self.text[self.at..self.end]),
            Value::String(text) => out.extend_from_slice(&text.as_bytes()),
            Value::Integer(_) | Value::Number(_) => {
                if let Some(text) = lua.coerce_string(value)? {
                    out.extend_from_slice(&text.as_bytes());
                }
            }
            other => return Err(raise(lua, format!("invalid replacement value (a {})", type_name(other)))),
        }
        Ok(())
    }

    /// `%0` is the match and `%1` its first capture, which is the match if there are none.
    fn fill(&self, lua: &Lua, template: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let mut bytes = template.iter();
        while let Some(byte) = bytes.next() {
            if *byte != b'%' {
                out.push(*byte);
                continue;
            }
            match bytes.next() {
                // Lua's strings end with a zero byte, which a last percent sign reaches.
                None => out.push(0),
                Some(b'0') => out.extend_from_slice(&self.text[self.at..self.end]),
                Some(digit @ b'1'..=b'9') => match self.captures.get(usize::from(digit - b'1')) {
                    Some(Capture::Text(start, end)) => out.extend_from_slice(&self.text[*start..*end]),
                    Some(Capture::Place(place)) => out.extend_from_slice((place + 1).to_string().as_bytes()),
                    Some(Capture::Open(_)) => return Err(raise(lua, UNFINISHED)),
                    None if *digit == b'1' => out.extend_from_slice(&self.text[self.at..self.end]),
                    None => return Err(raise(lua, "invalid capture index")),
                },
                Some(other) => out.push(*other),
            }
        }
        Ok(())
    }
}

const UNFINISHED: &str = "unfinished capture";

/// The captures of a match, or the `whole` of it if there are none.
fn captured(lua: &Lua, text: &[u8], captures: &[Capture], whole: Option<(usize, usize)>) -> Result<MultiValue> {
    // Each of them may be all of the text. Growth by the headers of so many strings is allowed for, too.
    let _unbounded = Unbounded::for_bytes(lua, text.len() + captures.len());
    if let (true, Some((start, end))) = (captures.is_empty(), whole) {
        return lua.create_string(&text[start..end])?.into_lua_multi(lua);
    }
    let value = |capture: &Capture| match *capture {
        Capture::Text(start, end) => Ok(Value::String(lua.create_string(&text[start..end])?)),
        Capture::Place(place) => Ok(Value::Number((place + 1) as f64)),
        Capture::Open(_) => Err(raise(lua, UNFINISHED)),
    };
    captures.iter().map(value).collect()
}

fn raised(lua: &Lua, trouble: Trouble<mlua::Error>) -> mlua::Error {
    match trouble {
        Trouble::Pattern(text) => raise(lua, text),
        Trouble::Interrupted(error) => error,
    }
}

/// A match may take long, and the interpreter cannot interrupt it.
fn pause(lua: &Lua) -> Result<()> {
    match lua.app_data_ref::<Arc<Watch>>() {
        Some(watch) if watch.tick() => Err(Thrown::Over.into()),
        _ => Ok(()),
    }
}
