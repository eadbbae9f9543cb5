//! The first line of a script, `#!lua flags=no-writes,allow-oom`, by which it says what it needs.
//!
//! See <https://redis.io/docs/latest/develop/interact/programmability/lua-api/#script_flags>. A script without such a line may do what
//! scripts always could.

use acteon_resp::{Arguments, RequestDecoder, RequestLimits};

use crate::command::CommandError;

/// What the first line says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScriptFlags {
    /// It only reads.
    pub(crate) no_writes: bool,
    /// It may run when memory is full.
    pub(crate) allow_oom: bool,
}

/// The flags of `body`, if it has such a line, and where its code begins: at that line's end, so that line numbers stay right.
pub(crate) fn parse(body: &[u8]) -> Result<(Option<ScriptFlags>, usize), CommandError> {
    if !body.starts_with(b"#!") {
        return Ok((None, 0));
    }
    let end = body.iter().position(|byte| matches!(byte, b'\n' | 0));
    let end = end.filter(|end| body[*end] == b'\n').ok_or(CommandError::text("ERR Invalid script shebang"))?;
    let words = split(&body[..end]).ok_or(CommandError::text("ERR Invalid engine in script shebang"))?;
    let mut words = words.iter().map(Vec::as_slice);
    match words.next() {
        Some(b"#!lua") => {}
        engine => return Err(complaint("Unexpected engine in script shebang", engine.unwrap_or_default())),
    }
    let mut flags = ScriptFlags::default();
    for word in words {
        let list = word.strip_prefix(b"flags=").ok_or_else(|| complaint("Unknown lua shebang option", word))?;
        if list.is_empty() {
            continue;
        }
        for flag in list.split(|byte| *byte == b',') {
            flags.set(flag)?;
        }
    }
    Ok((Some(flags), end))
}

impl ScriptFlags {
    fn set(&mut self, flag: &[u8]) -> Result<(), CommandError> {
        match flag {
            b"no-writes" => self.no_writes = true,
            b"allow-oom" => self.allow_oom = true,
            // A single node never has stale data, and has all slots.
            b"allow-stale" | b"no-cluster" | b"allow-cross-slot-keys" => {}
            _ => return Err(complaint("Unexpected flag in script shebang", flag)),
        }
        Ok(())
    }
}

/// The words of a line, by the rules of inline commands; `None` if its quotes do not match.
fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let input = [line, b"\n"].concat();
    let limits = RequestLimits { inline_bytes_max: usize::MAX, ..RequestLimits::default() };
    let mut words = Arguments::default();
    RequestDecoder::new().decode(&input, &limits, &mut words).ok()??;
    Some(words.iter(&input).map(<[u8]>::to_vec).collect())
}

fn complaint(what: &str, word: &[u8]) -> CommandError {
    CommandError::quoting(&format!("ERR {what}: "), word, "")
}

#[cfg(test)]
mod tests {
    use super::{ScriptFlags, parse};

    fn error(body: &str) -> String {
        parse(body.as_bytes()).expect_err("it is wrong").to_string()
    }

    #[test]
    fn flags_are_read_from_the_first_line() {
        let both = ScriptFlags { no_writes: true, allow_oom: true };
        assert_eq!(parse(b"return 1"), Ok((None, 0)));
        assert_eq!(parse(b"#!lua\nreturn 1"), Ok((Some(ScriptFlags::default()), 5)));
        assert_eq!(parse(b"#!lua flags=no-writes,allow-oom\n"), Ok((Some(both), 31)));
        assert_eq!(parse(b"#!lua  'flags=no-writes' flags=allow-oom \r\n").map(|parsed| parsed.0), Ok(Some(both)));
    }

    #[test]
    fn what_is_unknown_is_refused_by_name() {
        assert_eq!(error("#!lua"), "ERR Invalid script shebang");
        assert_eq!(error("#!lua\0\n"), "ERR Invalid script shebang");
        assert_eq!(error("#!LUA\n"), "ERR Unexpected engine in script shebang: #!LUA");
        assert_eq!(error("#!lua \"flags=\n"), "ERR Invalid engine in script shebang");
        assert_eq!(error("#!lua name=x\n"), "ERR Unknown lua shebang option: name=x");
        assert_eq!(error("#!lua flags=no-writes,,\n"), "ERR Unexpected flag in script shebang: ");
    }
}
