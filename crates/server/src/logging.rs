//! Where log lines go: to stderr, as text for people or as JSON for machines.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{LogFormat, ServerConfig};
use crate::start_error::StartError;

/// Sends the log lines of this process to stderr.
///
/// # Errors
/// When somebody else did so before.
pub fn init(config: &ServerConfig) -> Result<(), StartError> {
    let filter = EnvFilter::new(&config.log);
    let builder = fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal());
    match config.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|error| StartError::new("logging cannot be set up", std::io::Error::other(error)))
}
