//! Commands about replicas, of which there are none, and about files, where whoever runs the server keeps some.

use super::super::call::Call;
use super::super::error::CommandError;
use super::super::options::{integer, is};
use crate::instance::KeeperFigures;

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

const SAVE_IN_PROGRESS: CommandError = CommandError::text("ERR Background save already in progress");

/// Until something was saved, this is when the server began.
pub(super) fn lastsave(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    call.instance.stats.note_start(call.keys.now_us);
    let started_s = call.instance.stats.started_us() / 1_000_000;
    let last_s = call.instance.keeper_figures().map_or(started_s, |figures| figures.last_save_s);
    call.reply.integer(i64::try_from(last_s).unwrap_or(i64::MAX));
    Ok(())
}

/// Holds no key, so that the others go on; only this connection waits.
pub(super) fn save(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    if is_saving(&call.instance.keeper_figures().ok_or(NO_SNAPSHOTS)?) {
        return Err(SAVE_IN_PROGRESS);
    }
    let saved = call.instance.ask_keeper(|keeper| keeper.save()).ok_or(NO_SNAPSHOTS)?;
    saved.map_err(|reason| CommandError::Text(format!("ERR {reason}").into()))?;
    call.reply.simple("OK");
    Ok(())
}

pub(super) fn bgsave(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    const REWRITING: CommandError = CommandError::text(
        "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in order to schedule a \
         BGSAVE whenever possible.",
    );
    let may_wait = match *call.args {
        [_] => false,
        [_, word] if is(word, "SCHEDULE") => true,
        _ => return Err(CommandError::Syntax),
    };
    let figures = call.instance.keeper_figures().ok_or(NO_SNAPSHOTS)?;
    let waits = is_rewriting(&figures);
    if is_saving(&figures) {
        return Err(SAVE_IN_PROGRESS);
    }
    if waits && !may_wait {
        return Err(REWRITING);
    }
    if call.instance.ask_keeper(|keeper| keeper.start_save()) != Some(true) {
        return Err(SAVE_IN_PROGRESS);
    }
    call.reply.simple(if waits { "Background saving scheduled" } else { "Background saving started" });
    Ok(())
}

pub(super) fn bgrewriteaof(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    const REWRITING: CommandError = CommandError::text("ERR Background append only file rewriting already in progress");
    let figures = call.instance.keeper_figures().ok_or(NO_LOG)?;
    if is_rewriting(&figures) || call.instance.ask_keeper(|keeper| keeper.start_rewrite()) != Some(true) {
        return Err(REWRITING);
    }
    let is_scheduled = is_saving(&figures);
    let word = if is_scheduled { "scheduled" } else { "started" };
    call.reply.simple(&format!("Background append only file rewriting {word}"));
    Ok(())
}

fn is_saving(figures: &KeeperFigures) -> bool {
    figures.save.is_running || figures.save.is_scheduled
}

fn is_rewriting(figures: &KeeperFigures) -> bool {
    figures.rewrite.is_running || figures.rewrite.is_scheduled
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

/// How many replicas have what the client wrote: as there are none, whoever wants some waits until its time is over, or for ever.
pub(super) fn wait(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    const NOT_AN_INTEGER: CommandError = CommandError::text("ERR timeout is not an integer or out of range");
    let replicas_wanted = integer(call.args[1])?;
    let timeout_ms = acteon_resp::parse_i64(call.args[2]).ok_or(NOT_AN_INTEGER)?;
    if timeout_ms < 0 {
        return Err(CommandError::text("ERR timeout is negative"));
    }
    if replicas_wanted <= 0 {
        call.reply.integer(0);
        return Ok(());
    }
    let wait_us = timeout_ms.unsigned_abs().saturating_mul(1_000);
    let until_us = (wait_us > 0).then(|| call.keys.now_us.saturating_add(wait_us));
    // No key ends this wait.
    call.block(Vec::new(), until_us, |reply| reply.integer(0))
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
    let saved = if has("SAVE") { call.instance.ask_keeper(|keeper| keeper.save()) } else { Some(Ok(())) };
    let obstacle = match saved {
        None => "SHUTDOWN SAVE was refused: everything is in memory and nothing can be saved; without SAVE, it ends"
            .to_owned(),
        Some(Err(reason)) => format!("SHUTDOWN SAVE was refused: {reason}; without SAVE, it ends"),
        Some(Ok(())) if call.instance.shut_down() => {
            call.effects.close = true;
            return Ok(());
        }
        Some(Ok(())) => {
            "SHUTDOWN was refused: the process that the engine is part of does not end for its clients".to_owned()
        }
    };
    call.instance.warn(&obstacle);
    Err(CommandError::text("ERR Errors trying to SHUTDOWN. Check logs."))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use crate::{Client, ClientOptions, Engine, EngineConfig, Flow, Host, Instance, InstanceConfig};

    /// A process that does not end.
    #[derive(Default)]
    struct Lasting(Mutex<Vec<String>>);

    impl Host for Lasting {
        fn warn(&self, text: &str) {
            self.0.lock().push(text.to_owned());
        }
    }

    #[test]
    fn log_says_why_the_server_does_not_shut_down() {
        let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
        let host = Arc::new(Lasting::default());
        instance.set_host(host.clone());
        let mut client = Client::connect(&instance, ClientOptions::default());
        for (args, why) in
            [(&[&b"SHUTDOWN"[..], b"SAVE"][..], "nothing can be saved"), (&[b"SHUTDOWN"], "does not end")]
        {
            let mut reply = Vec::new();
            assert_eq!(client.execute(args, 1_000, &mut reply), Flow::Done);
            assert_eq!(reply, b"-ERR Errors trying to SHUTDOWN. Check logs.\r\n");
            let logged = host.0.lock().pop();
            assert!(logged.as_ref().is_some_and(|text| text.contains(why)), "{logged:?}");
        }
    }
}
