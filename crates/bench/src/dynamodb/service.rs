//! The emulator in a process of its own: this program again, with another argument.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use acteon_test_support::{DynamoServer, supervised};

use crate::Outcome;

/// The argument that makes this program the emulator.
const ARGUMENT: &str = "dynamodb-service";
/// What the line with the emulator's address begins with.
const ADDRESS_MARK: &str = "emulator at ";

/// A running emulator; it ends when this is dropped.
pub(crate) struct Service {
    process: Child,
    url: String,
}

impl Service {
    pub(crate) fn start() -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = supervised(command)?;
        let output = process.stdout.take().ok_or("the emulator has no output")?;
        for line in BufReader::new(output).lines() {
            if let Some(url) = line?.strip_prefix(ADDRESS_MARK) {
                return Ok(Self { process, url: url.to_owned() });
            }
        }
        Err("the emulator ended before it said where it is".into())
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Neither fails while it runs; if it has ended already, nothing is left to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Is the emulator, until the input ends.
///
/// # Errors
/// It cannot be started.
pub fn serve() -> Outcome {
    let server = DynamoServer::start()?;
    println!("{ADDRESS_MARK}{}", server.url());
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
