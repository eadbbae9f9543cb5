//! Commands about replicas and files, of which there are none: answers of a server that stands alone and keeps everything in memory.

use super::super::call::Call;
use super::super::error::CommandError;
use super::super::options::{integer, is};

const NO_SNAPSHOTS: CommandError = CommandError::text("ERR this server keeps everything in memory and saves nothing");
const NO_LOG: CommandError =
    CommandError::text("ERR this server keeps everything in memory and writes no append only file");

pub(super) fn role(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    call.reply.array(3);
    call.reply.bulk(b"master");
    call.reply.integer(0);
    call.reply.array(0);
    Ok(())
}

/// Until something was saved, this is when the server began.
pub(super) fn lastsave(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    call.instance.stats.note_start(call.keys.now_us);
    let started_s = call.instance.stats.started_us() / 1_000_000;
    call.reply.integer(i64::try_from(started_s).unwrap_or(i64::MAX));
    Ok(())
}

pub(super) fn save(_: &mut Call<'_, '_>) -> Result<(), CommandError> {
    Err(NO_SNAPSHOTS)
}

pub(super) fn bgsave(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    match *call.args {
        [_] => Err(NO_SNAPSHOTS),
        [_, word] if is(word, "SCHEDULE") => Err(NO_SNAPSHOTS),
        _ => Err(CommandError::Syntax),
    }
}

pub(super) fn bgrewriteaof(_: &mut Call<'_, '_>) -> Result<(), CommandError> {
    Err(NO_LOG)
}

pub(super) fn replicaof(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let (host, port) = (call.args[1], call.args[2]);
    if is(host, "NO") && is(port, "ONE") {
        call.reply.simple("OK");
        return Ok(());
    }
    let port = acteon_resp::parse_i64(port).filter(|port| (0..=65_535).contains(port));
    port.ok_or(CommandError::text("ERR Invalid master port"))?;
    Err(CommandError::text("ERR this server cannot be a replica"))
}

/// How many replicas have what the client wrote: as there can be none, nothing is waited for.
pub(super) fn wait(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    const NOT_AN_INTEGER: CommandError = CommandError::text("ERR timeout is not an integer or out of range");
    integer(call.args[1])?;
    let timeout_ms = acteon_resp::parse_i64(call.args[2]).ok_or(NOT_AN_INTEGER)?;
    if timeout_ms < 0 {
        return Err(CommandError::text("ERR timeout is negative"));
    }
    call.reply.integer(0);
    Ok(())
}

/// Whoever runs the server ends it; the client hears nothing but the end of its connection.
pub(super) fn shutdown(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let has = |option: &str| call.args[1..].iter().any(|word| is(word, option));
    let is_known = |word: &&[u8]| ["NOSAVE", "SAVE", "NOW", "FORCE", "ABORT"].iter().any(|option| is(word, option));
    let aborts = has("ABORT");
    if !call.args[1..].iter().all(is_known) || has("SAVE") && has("NOSAVE") || aborts && call.args.len() > 2 {
        return Err(CommandError::Syntax);
    }
    if aborts {
        return Err(CommandError::text("ERR No shutdown in progress."));
    }
    if has("SAVE") || !call.instance.shut_down() {
        return Err(CommandError::text("ERR Errors trying to SHUTDOWN. Check logs."));
    }
    call.effects.close = true;
    Ok(())
}
