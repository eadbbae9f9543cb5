//! A wall clock that a test steps forward and back, for the processes that are started under it.
//!
//! # What it promises
//! [`FakeClock::set`] moves the wall clock of these processes at once, and of no others. Their monotonic clock goes on as it is, as it does
//! when somebody sets the clock of a machine.
//!
//! # Failure
//! Without libfaketime there is none: [`FakeClock::new`] says which package has it. Whether a process really sees the clock is up to the process,
//! so a test asks it for the time.
//!
//! # How it works
//! libfaketime is loaded before all other libraries, and reads a file at each look at the clock. That file is replaced as a whole, so nobody reads half
//! of one. Right after it comes the C library: otherwise the allocator that some builds of Redis are linked with looks at the clock before libfaketime is
//! ready for that.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::account::pass_through_folder;
use crate::environment::{FAKETIME_ENV, faketime_library};
use crate::process::supervised_command;
use crate::server_process::StartError;

/// See the module.
#[derive(Debug)]
pub struct FakeClock {
    library: PathBuf,
    folder: TempDir,
}

const NO_LIBRARY: StartError =
    StartError::NoProgram { program: "libfaketime", package: "libfaketime", variable: FAKETIME_ENV };

const OFFSET_FILE: &str = "offset";
const OFFSET_FILE_NEXT: &str = "offset.next";
const C_LIBRARY: &str = "libc.so.6";

/// Where libfaketime leaves a segment and a semaphore for each process that was killed.
const SHARED_MEMORY: &str = "/dev/shm";
const LEFT_BEHIND: [&str; 2] = ["faketime_shm_", "sem.faketime_sem_"];

impl FakeClock {
    /// A clock that is right so far.
    ///
    /// # Errors
    /// There is no libfaketime, or its file cannot be written.
    pub fn new() -> Result<Self, StartError> {
        let library = faketime_library().ok_or(NO_LIBRARY)?;
        let clock = Self { library, folder: pass_through_folder("acteon-clock-")? };
        clock.set(0)?;
        Ok(clock)
    }

    /// Sets the clock to the true time and this much.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set(&self, offset_ms: i64) -> io::Result<()> {
        let (next, file) = (self.folder.path().join(OFFSET_FILE_NEXT), self.folder.path().join(OFFSET_FILE));
        let (sign, offset_ms) = (if offset_ms < 0 { '-' } else { '+' }, offset_ms.unsigned_abs());
        fs::write(&next, format!("{sign}{}.{:03}\n", offset_ms / 1_000, offset_ms % 1_000))?;
        fs::rename(next, file)
    }

    /// A command that runs `program` under this clock and is killed when this process ends; see [`supervised_command`].
    pub fn supervised_command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = supervised_command("env");
        command.args(self.settings()).arg(program);
        command
    }

    /// What `env` has to set. For the program alone: programs that change the user come before, and would leave what the program cannot read.
    pub(crate) fn settings(&self) -> [OsString; 4] {
        remove_what_was_left_behind(Path::new(SHARED_MEMORY));
        let mut preload = OsString::from("LD_PRELOAD=");
        preload.push(&self.library);
        preload.push(":");
        preload.push(C_LIBRARY);
        let mut file = OsString::from("FAKETIME_TIMESTAMP_FILE=");
        file.push(self.folder.path().join(OFFSET_FILE));
        [preload, file, "FAKETIME_NO_CACHE=1".into(), "FAKETIME_DONT_FAKE_MONOTONIC=1".into()]
    }
}

impl Drop for FakeClock {
    fn drop(&mut self) {
        remove_what_was_left_behind(Path::new(SHARED_MEMORY));
    }
}

/// A process that gets the number of one that was killed could not start, if that one was of another user.
fn remove_what_was_left_behind(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process = LEFT_BEHIND.iter().find_map(|prefix| name.to_str()?.strip_prefix(prefix)?.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            // What belongs to others stays; the next one who may will remove it.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::remove_what_was_left_behind;

    #[test]
    fn only_what_dead_processes_left_behind_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let alive = format!("faketime_shm_{}", std::process::id());
        // No process has this number: above the highest that Linux gives.
        for name in [alive.as_str(), "sem.faketime_sem_4999999", "faketime_shm_4999999", "other_4999999"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        remove_what_was_left_behind(folder.path());
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [alive.as_str(), "other_4999999"]);
    }
}
