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
    let obstacle = match has("SAVE") {
        true => {
            Some("SHUTDOWN SAVE was refused: everything is in memory and nothing can be saved; without SAVE, it ends")
        }
        false if call.instance.shut_down() => None,
        false => Some("SHUTDOWN was refused: the process that the engine is part of does not end for its clients"),
    };
    if let Some(obstacle) = obstacle {
        call.instance.warn(obstacle);
        return Err(CommandError::text("ERR Errors trying to SHUTDOWN. Check logs."));
    }
    call.effects.close = true;
    Ok(())
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
