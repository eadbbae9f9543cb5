//! EVAL, EVALSHA, their read-only forms, and SCRIPT.
//!
//! # Guarantees
//! A script runs at once: nobody sees a part of what it does, and nobody changes what it uses meanwhile. Other clients go on with all
//! keys that it does not hold. See `script.rs` for what scripts are, and `script/run.rs` for what they hold.

use std::sync::Arc;

use super::call::Call;
use super::error::CommandError;
use super::options::{integer, is};
use super::row::{Flags, Group, Row, Scope};
use crate::script::{Killing, Request, Script, Scripts, broken, parse_sha, run, sha_of};

fn eval(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let (keys, args) = split(call.args)?;
    let script = prepare(call, call.args[1], false)?;
    start(call, &script, keys, args)
}

fn evalsha(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let sha = parse_sha(call.args[1]).ok_or(NO_SCRIPT)?;
    let (keys, args) = split(call.args)?;
    let script = call.instance.scripts.get(&sha).ok_or(NO_SCRIPT)?;
    start(call, &script, keys, args)
}

const NO_SCRIPT: CommandError = CommandError::text("NOSCRIPT No matching script. Please use EVAL.");

fn start(call: &mut Call<'_, '_>, script: &Arc<Script>, keys: &[&[u8]], args: &[&[u8]]) -> Result<(), CommandError> {
    let must_not_write = call.row.flags.has(Flags::READONLY);
    let promises_not_to = script.flags.is_some_and(|flags| flags.no_writes);
    if let Some(flags) = script.flags
        && !flags.allow_oom
        && !flags.no_writes
        && call.session.lacks_memory
    {
        return Err(CommandError::OutOfMemory);
    }
    if must_not_write && script.flags.is_some() && !promises_not_to {
        return Err(CommandError::text("ERR Can not execute a script with write flag using *_ro command."));
    }
    let is_read_only = must_not_write || promises_not_to;
    let may_exceed_memory = script.flags.is_some_and(|flags| flags.allow_oom);
    run(call, &Request { script, keys, args, is_read_only, may_exceed_memory })
}

type Words<'a> = &'a [&'a [u8]];

/// The keys of a script, and its other arguments.
fn split<'a>(args: Words<'a>) -> Result<(Words<'a>, Words<'a>), CommandError> {
    let count = integer(args[2])?;
    let rest = &args[3..];
    let Ok(count) = usize::try_from(count) else {
        return Err(CommandError::text("ERR Number of keys can't be negative"));
    };
    rest.split_at_checked(count).ok_or(CommandError::text("ERR Number of keys can't be greater than number of args"))
}

/// The script of a text, which is kept if it can be compiled.
fn prepare(call: &Call<'_, '_>, body: &[u8], is_loaded: bool) -> Result<Arc<Script>, CommandError> {
    let scripts = &call.instance.scripts;
    if let Some(script) = scripts.get(&sha_of(body)) {
        if is_loaded {
            Scripts::mark_loaded(&script);
        }
        return Ok(script);
    }
    let script = Arc::new(Script::new(body)?);
    let mut interpreter = scripts.take_interpreter().map_err(broken)?;
    let compiled = interpreter.function(&script);
    scripts.put_interpreter(interpreter);
    compiled?;
    scripts.keep(script.clone(), is_loaded);
    Ok(script)
}

fn load(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let script = prepare(call, call.args[2], true)?;
    call.reply.bulk(&script.sha);
    Ok(())
}

fn exists(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let names = &call.args[2..];
    call.reply.array(names.len());
    for name in names {
        let script = parse_sha(name).and_then(|sha| call.instance.scripts.get(&sha));
        call.reply.integer(script.is_some().into());
    }
    Ok(())
}

fn flush(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    match call.args[2..] {
        [] => {}
        // Freeing some interpreters takes no time worth a difference.
        [how] if is(how, "SYNC") || is(how, "ASYNC") => {}
        _ => return Err(CommandError::text("ERR SCRIPT FLUSH only support SYNC|ASYNC option")),
    }
    call.instance.scripts.flush();
    call.reply.simple("OK");
    Ok(())
}

fn kill(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    match call.instance.scripts.overseer.kill() {
        Killing::Done => {
            call.reply.simple("OK");
            Ok(())
        }
        Killing::NoneRuns => Err(CommandError::text("NOTBUSY No scripts in execution right now.")),
        Killing::Refused => Err(CommandError::text(
            "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the \
             script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
        )),
    }
}

fn debug(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let mode = call.args[2];
    if is(mode, "NO") {
        call.reply.simple("OK");
        Ok(())
    } else if is(mode, "YES") || is(mode, "SYNC") {
        Err(CommandError::text("ERR there is no debugger for scripts here"))
    } else {
        Err(CommandError::text("ERR Use SCRIPT DEBUG YES/SYNC/NO"))
    }
}

fn help(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    const LINES: &[&str] = &[
        "SCRIPT <subcommand> [<arg> ...]. The subcommands:",
        "DEBUG (YES|SYNC|NO)",
        "    Chooses the debugger; there is none, so NO is accepted only.",
        "EXISTS <sha1> [<sha1> ...]",
        "    Says for each script whether it is kept.",
        "FLUSH [ASYNC|SYNC]",
        "    Forgets all scripts.",
        "KILL",
        "    Ends the script that keeps others waiting, if it has not written.",
        "LOAD <script>",
        "    Keeps a script without running it.",
        "HELP",
        "    Prints this text.",
    ];
    call.reply.array(LINES.len());
    for line in LINES {
        call.reply.simple(line);
    }
    Ok(())
}

/// A client names a subcommand, or gets the error of the table.
fn script(_: &mut Call<'_, '_>) -> Result<(), CommandError> {
    Err(CommandError::wrong_arity("script"))
}

const EVAL_FLAGS: &[Flags] =
    &[Flags::NOSCRIPT, Flags::STALE, Flags::SKIP_MONITOR, Flags::NO_MANDATORY_KEYS, Flags::MOVABLEKEYS];
const EVAL_RO_FLAGS: &[Flags] = &[
    Flags::READONLY,
    Flags::NOSCRIPT,
    Flags::STALE,
    Flags::SKIP_MONITOR,
    Flags::NO_MANDATORY_KEYS,
    Flags::MOVABLEKEYS,
];

pub(super) const ROWS: &[Row] = &[
    Row::new("eval", -3, Group::Scripting, eval)
        .flags(EVAL_FLAGS)
        .counted_keys(&[], 2)
        .scope(Scope::Script)
        .docs("2.6.0", "Runs a script."),
    Row::new("eval_ro", -3, Group::Scripting, eval)
        .flags(EVAL_RO_FLAGS)
        .counted_keys(&[], 2)
        .scope(Scope::Script)
        .docs("7.0.0", "Runs a script that only reads."),
    Row::new("evalsha", -3, Group::Scripting, evalsha)
        .flags(EVAL_FLAGS)
        .counted_keys(&[], 2)
        .scope(Scope::Script)
        .docs("2.6.0", "Runs a script that is known, by its SHA-1."),
    Row::new("evalsha_ro", -3, Group::Scripting, evalsha)
        .flags(EVAL_RO_FLAGS)
        .counted_keys(&[], 2)
        .scope(Scope::Script)
        .docs("7.0.0", "Runs a script that is known and only reads, by its SHA-1."),
    Row::new("script", -2, Group::Scripting, script)
        .subcommands(SCRIPT)
        .docs("2.6.0", "Loads scripts and looks after them."),
];

const SCRIPT: &[Row] = &[
    Row::new("debug", 3, Group::Scripting, debug)
        .flags(&[Flags::NOSCRIPT])
        .docs("3.2.0", "Chooses the debugger of scripts."),
    Row::new("exists", -3, Group::Scripting, exists)
        .flags(&[Flags::NOSCRIPT])
        .docs("2.6.0", "Says which scripts are known, by their SHA-1."),
    Row::new("flush", -2, Group::Scripting, flush).flags(&[Flags::NOSCRIPT]).docs("2.6.0", "Forgets all scripts."),
    Row::new("help", 2, Group::Scripting, help)
        .flags(&[Flags::LOADING, Flags::STALE])
        .docs("5.0.0", "Explains the subcommands."),
    Row::new("kill", 2, Group::Scripting, kill)
        .flags(&[Flags::NOSCRIPT, Flags::ALLOW_BUSY])
        .docs("2.6.0", "Ends the script that keeps others waiting."),
    Row::new("load", 3, Group::Scripting, load)
        .flags(&[Flags::NOSCRIPT, Flags::STALE])
        .docs("2.6.0", "Keeps a script without running it."),
];

#[cfg(test)]
mod tests;
