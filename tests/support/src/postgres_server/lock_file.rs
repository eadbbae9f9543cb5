//! Reads `postmaster.pid`, in which a server says how far it is. pg_ctl waits in the same way.

use std::fs;
use std::io;
use std::path::Path;

/// What the file says; its lines are listed in PostgreSQL's `pidfile.h`.
#[derive(Debug)]
pub(super) struct LockFile {
    pub(super) pid: String,
    /// The number of the segment of System V shared memory, which follows its key.
    pub(super) shared_memory: Option<String>,
    pub(super) status: String,
}

/// A server that accepts connections, and a standby that accepts those that read.
const READY: [&str; 2] = ["ready", "standby"];

impl LockFile {
    pub(super) fn read(data: &Path) -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string(data.join("postmaster.pid"))?))
    }

    pub(super) fn says_ready(&self) -> bool {
        READY.contains(&self.status.as_str())
    }

    /// Lines that are not written yet are empty: the server adds them one by one.
    fn parse(text: &str) -> Self {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let line = |number: usize| lines.get(number - 1).copied().unwrap_or_default();
        Self {
            pid: line(1).to_owned(),
            shared_memory: line(7).split_whitespace().nth(1).map(str::to_owned),
            status: line(8).to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LockFile;

    #[test]
    fn the_lock_file_is_read_by_line() {
        let lock = LockFile::parse("20987\n/d\n1795214405\n54999\n..\n127.0.0.1\n 10020871         4\nready   \n");
        assert_eq!(lock.pid, "20987");
        assert_eq!(lock.shared_memory.as_deref(), Some("4"));
        assert!(lock.says_ready());
    }

    #[test]
    fn an_unfinished_file_says_that_the_server_is_not_ready() {
        for text in ["", "20987\n", "20987\n/d\n1\n54999\n..\n127.0.0.1\n 1 4\nstarting\n"] {
            assert!(!LockFile::parse(text).says_ready(), "{text:?}");
        }
    }
}
