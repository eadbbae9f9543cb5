//! Runs a program of somebody else and keeps what it prints.

use std::ffi::OsStr;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use acteon_test_support::{find_program, supervised, supervised_command};
use libtest_mimic::Failed;
use tempfile::NamedTempFile;

/// A program that is to be run.
pub(crate) struct Program {
    command: Command,
    shown: String,
    input: Vec<u8>,
}

/// A program that hangs must not hold up the other cases for ever. Installing libraries over a slow line takes longest.
const TIME_LIMIT: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(10);

impl Program {
    /// # Errors
    /// There is no such program on the PATH. `package` is what to install.
    pub(crate) fn new(name: &str, package: &str) -> Result<Self, Failed> {
        let missing = || format!("{name} is not on the PATH; it is in the package {package} of Debian and Ubuntu");
        let path = find_program(name).ok_or_else(missing)?;
        Ok(Self { command: supervised_command(path), shown: name.to_owned(), input: Vec::new() })
    }

    pub(crate) fn arg(self, argument: &str) -> Self {
        self.args([argument])
    }

    pub(crate) fn args<I: IntoIterator<Item: AsRef<str>>>(mut self, args: I) -> Self {
        for argument in args {
            self.shown.push(' ');
            self.shown.push_str(argument.as_ref());
            self.command.arg(argument.as_ref());
        }
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn current_dir(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// Waits for the end and returns what was printed.
    ///
    /// # Errors
    /// The program fails or takes too long; what it printed is in the error.
    pub(crate) fn run(self) -> Result<String, Failed> {
        let mut running = self.start()?;
        let deadline = Instant::now() + TIME_LIMIT;
        loop {
            match running.child.try_wait()? {
                Some(status) if status.success() => return running.printed(),
                Some(status) => return Err(running.failure(&format!("ended with {status}"))),
                None if Instant::now() > deadline => return Err(running.failure("did not end")),
                None => thread::sleep(POLL),
            }
        }
    }

    /// Starts a program that does not end by itself.
    pub(crate) fn start(mut self) -> Result<Running, Failed> {
        let output = NamedTempFile::new()?;
        let mut input = tempfile::tempfile()?;
        input.write_all(&self.input)?;
        input.seek(SeekFrom::Start(0))?;
        // One handle for both, or what goes to one would overwrite what went to the other.
        let printed = output.reopen()?;
        self.command.stdin(input).stdout(printed.try_clone()?).stderr(printed);
        Ok(Running { child: supervised(self.command)?, output, shown: self.shown })
    }
}

/// A program that is running. It is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    output: NamedTempFile,
    shown: String,
}

impl Running {
    /// Waits until what was printed is `enough`, and returns it.
    ///
    /// # Errors
    /// The program ends, or prints nothing of that kind.
    pub(crate) fn until(mut self, enough: impl Fn(&str) -> bool) -> Result<String, Failed> {
        let deadline = Instant::now() + TIME_LIMIT;
        loop {
            let printed = self.printed()?;
            if enough(&printed) {
                return Ok(printed);
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failure(&format!("ended with {status}")));
            }
            if Instant::now() > deadline {
                return Err(self.failure("never printed what it should"));
            }
            thread::sleep(POLL);
        }
    }

    /// Everything so far.
    pub(crate) fn printed(&self) -> Result<String, Failed> {
        Ok(String::from_utf8_lossy(&fs::read(self.output.path())?).into_owned())
    }

    fn failure(&self, what: &str) -> Failed {
        let printed = self.printed().unwrap_or_default();
        format!("{} {what}\n{printed}", self.shown).into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
