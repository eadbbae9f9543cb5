//! Why a server did not start, or did not end as it should, written for the person in front of the terminal.
//!
//! ```text
//! acteon-server: cannot listen on 127.0.0.1 port 8080
//!   Address already in use (os error 98)
//!   hint: another program has the port; choose one with --port
//! ```

use std::error::Error;
use std::fmt;

use acteon_state::config::ConfigError;

/// What did not work, why, and what to do about it.
#[derive(Debug)]
pub struct StartError {
    what: String,
    reason: String,
    hint: Option<String>,
}

impl StartError {
    /// Says what did not work, and why: the error and all its sources.
    pub fn new(what: impl Into<String>, reason: impl Error) -> Self {
        Self { what: what.into(), reason: chain(&reason), hint: None }
    }

    /// Says what did not work, and why in words: for errors whose own text is meant for logs.
    pub fn because(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { what: what.into(), reason: reason.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::new("the configuration is not valid", error)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "acteon-server: {}", self.what)?;
        for line in self.reason.lines() {
            write!(f, "\n  {line}")?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl Error for StartError {}

/// The error and its sources on one line, without what a source only repeats.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::StartError;

    #[test]
    fn every_line_of_a_reason_is_shown_and_no_debug_output() {
        let reason = io::Error::other("a.yaml:1: one\nb.yaml:2: two");
        let error = StartError::new("the rules cannot be used", reason).with_hint("mend them");
        let shown = "acteon-server: the rules cannot be used\n  a.yaml:1: one\n  b.yaml:2: two\n  hint: mend them";
        assert_eq!(error.to_string(), shown);
    }
}
