//! What a server does in the background when it is asked to: saving a snapshot, rewriting its journal.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::servers::{Program, Server};
use crate::Outcome;

/// How long one may take.
const TIMEOUT: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(2);
/// How often redis-server is to look whether its child has ended, per second: with the ten times that it looks by default, the time of a
/// job would be a multiple of 100 ms.
const REDIS_LOOKS_PER_SECOND: &str = "500";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// `BGSAVE`
    Save,
    /// `BGREWRITEAOF`
    Rewrite,
}

impl Job {
    pub(super) const fn command(self) -> &'static str {
        match self {
            Self::Save => "BGSAVE",
            Self::Rewrite => "BGREWRITEAOF",
        }
    }

    /// Fields of `INFO persistence`: 1 while it runs, 1 while it waits for its turn, `ok` if it succeeded.
    const fn fields(self) -> [&'static str; 3] {
        match self {
            Self::Save => ["rdb_bgsave_in_progress", "rdb_bgsave_in_progress", "rdb_last_bgsave_status"],
            Self::Rewrite => ["aof_rewrite_in_progress", "aof_rewrite_scheduled", "aof_last_bgrewrite_status"],
        }
    }

    /// Asks for it, waits until it has succeeded, and returns how long it took.
    pub(super) fn run(self, server: &Server, program: Program<'_>) -> Outcome<Duration> {
        if matches!(program, Program::Redis) {
            server.ask::<String>(&["CONFIG", "SET", "hz", REDIS_LOOKS_PER_SECOND])?;
        }
        let [running, waiting, status] = self.fields();
        let is = |field: &str| Ok::<_, crate::Error>(server.info("persistence", field)? == "1");
        let begin = Instant::now();
        server.ask::<String>(&[self.command()])?;
        while is(running)? || is(waiting)? {
            if begin.elapsed() > TIMEOUT {
                return Err(format!("{} takes longer than {TIMEOUT:?}", self.command()).into());
            }
            sleep(POLL);
        }
        let took = begin.elapsed();
        match server.info("persistence", status)?.as_str() {
            "ok" => Ok(took),
            other => Err(format!("{} ends with {other}", self.command()).into()),
        }
    }
}
