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

    use crate::{
        Client, ClientOptions, Engine, EngineConfig, Flow, Host, Instance, InstanceConfig, Keeper, KeeperFigures,
        KeeperJob, SyncPolicy,
    };

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

    /// A disk that notes what it is asked for, and fails on request.
    #[derive(Default)]
    struct Disk {
        figures: Mutex<KeeperFigures>,
        asked: Mutex<Vec<&'static str>>,
        failure: Mutex<Option<String>>,
    }

    impl Host for Disk {
        fn keeper(&self) -> Option<&dyn Keeper> {
            Some(self)
        }

        fn shut_down(&self) -> bool {
            true
        }
    }

    impl Keeper for Disk {
        fn figures(&self) -> KeeperFigures {
            self.figures.lock().clone()
        }

        fn save(&self) -> Result<(), String> {
            self.asked.lock().push("save");
            self.failure.lock().clone().map_or(Ok(()), Err)
        }

        fn start_save(&self) -> bool {
            self.asked.lock().push("start save");
            true
        }

        fn start_rewrite(&self) -> bool {
            self.asked.lock().push("start rewrite");
            true
        }

        fn set_sync(&self, sync: SyncPolicy) -> Result<(), String> {
            if sync == SyncPolicy::No {
                return Err("everysec is the least".to_owned());
            }
            self.figures.lock().sync = sync;
            Ok(())
        }
    }

    fn kept() -> (Arc<Disk>, Client) {
        let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
        let disk = Arc::new(Disk::default());
        instance.set_host(disk.clone());
        (disk, Client::connect(&instance, ClientOptions::default()))
    }

    fn call(client: &mut Client, request: &str) -> String {
        let (args, mut reply): (Vec<&[u8]>, _) = (request.split(' ').map(str::as_bytes).collect(), Vec::new());
        client.execute(&args, 1_000, &mut reply);
        String::from_utf8(reply).expect("text").trim_end().to_owned()
    }

    #[test]
    fn disk_is_asked_for_snapshots_and_rewriting() {
        let (disk, mut client) = kept();
        disk.figures.lock().last_save_s = 17;
        for (request, reply, asked) in [
            ("SAVE", "+OK", Some("save")),
            ("BGSAVE", "+Background saving started", Some("start save")),
            ("BGREWRITEAOF", "+Background append only file rewriting started", Some("start rewrite")),
            ("LASTSAVE", ":17", None),
            ("BGSAVE NOW", "-ERR syntax error", None),
        ] {
            assert_eq!(call(&mut client, request), reply);
            assert_eq!(disk.asked.lock().pop(), asked, "{request}");
        }
        *disk.failure.lock() = Some("No space left on device".to_owned());
        assert_eq!(call(&mut client, "SAVE"), "-ERR No space left on device");
        assert_eq!(call(&mut client, "SHUTDOWN SAVE"), "-ERR Errors trying to SHUTDOWN. Check logs.");
        assert_eq!(call(&mut client, "SHUTDOWN NOSAVE"), "");
    }

    #[test]
    fn what_is_under_way_is_said_in_the_words_of_redis() {
        let (disk, mut client) = kept();
        let running = KeeperJob { is_running: true, ..KeeperJob::default() };
        disk.figures.lock().save = running;
        for request in ["SAVE", "BGSAVE", "BGSAVE SCHEDULE"] {
            assert_eq!(call(&mut client, request), "-ERR Background save already in progress");
        }
        let scheduled = "+Background append only file rewriting scheduled";
        assert_eq!(call(&mut client, "BGREWRITEAOF"), scheduled);
        *disk.figures.lock() = KeeperFigures { rewrite: running, ..KeeperFigures::default() };
        assert!(call(&mut client, "BGSAVE").starts_with("-ERR Another child process is active (AOF?)"));
        assert_eq!(call(&mut client, "BGSAVE SCHEDULE"), "+Background saving scheduled");
        let refused = "-ERR Background append only file rewriting already in progress";
        assert_eq!(call(&mut client, "BGREWRITEAOF"), refused);
    }

    #[test]
    fn settings_and_figures_are_those_of_the_disk() {
        let (disk, mut client) = kept();
        *disk.figures.lock() = KeeperFigures { save_points: vec![(60, 1_000), (300, 10)], ..KeeperFigures::default() };
        let of = |client: &mut Client, name: &str| {
            let reply = call(client, &format!("CONFIG GET {name}"));
            reply.rsplit("\r\n").next().map(str::to_owned)
        };
        assert_eq!(of(&mut client, "save").as_deref(), Some("60 1000 300 10"));
        assert_eq!(of(&mut client, "appendonly").as_deref(), Some("yes"));
        assert_eq!(of(&mut client, "appendfsync").as_deref(), Some("everysec"));
        assert_eq!(call(&mut client, "CONFIG SET appendfsync always"), "+OK");
        assert_eq!(disk.figures.lock().sync, SyncPolicy::Always);
        let refused = "-ERR CONFIG SET failed (possibly related to argument 'appendfsync') - everysec is the least";
        assert_eq!(call(&mut client, "CONFIG SET appendfsync no"), refused);
        assert_eq!(of(&mut client, "appendfsync").as_deref(), Some("always"));
        assert!(call(&mut client, "CONFIG SET appendonly no").contains("can't set immutable config"));
        let info = call(&mut client, "INFO persistence");
        for line in ["aof_enabled:1", "aof_last_write_status:ok", "aof_current_size:0", "rdb_last_bgsave_status:ok"] {
            assert!(info.contains(line), "{line} is not in {info}");
        }
    }
}
