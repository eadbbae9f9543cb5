//! What the commands of a family reached. Equal replies prove little if most of them are errors, or if no collection ever grows.
//!
//! # How it works
//! Every compared command is counted by name, with whether it was refused, and at the end of each sequence every key by its type and
//! encoding. [`Coverage::check`] is the bound that no family may fall below; the whole table is for whoever works on the templates.

use std::collections::BTreeMap;
use std::fmt;

use crate::command::Command;
use crate::reply::Reply;

/// Beyond this, a family mostly compares error texts.
const ERRORS_PERCENT_MAX: usize = 40;

/// Sequences may end early, where Redis's own replies stop making sense; but not most of them.
const UNCOMPARED_PERCENT_MAX: usize = 20;

/// Fewer commands say nothing about shares.
const COMMANDS_MIN: usize = 2_000;

/// Counts over all sequences of a run.
#[derive(Debug, Default)]
pub struct Coverage {
    /// By name.
    commands: BTreeMap<String, Tally>,
    /// Commands that came after the point where their sequence stopped making sense.
    uncompared: usize,
    /// The keys that were left at the ends of sequences, by type and encoding.
    encodings: BTreeMap<String, usize>,
    /// How many of these would have expired some day.
    expiring: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    replies: usize,
    errors: usize,
}

impl Coverage {
    /// Counts one command and the reply that both servers gave.
    pub fn note(&mut self, command: &Command, replies: &[Reply]) {
        let tally = self.commands.entry(command.name()).or_default();
        tally.replies += 1;
        tally.errors += usize::from(replies.iter().any(Reply::is_error));
    }

    /// Counts commands that could not be compared.
    pub fn note_uncompared(&mut self, commands: usize) {
        self.uncompared += commands;
    }

    /// Counts what a server holds, as [`crate::keyspace::contents`] tells it.
    pub fn note_contents(&mut self, contents: &[(Command, Reply)]) {
        for (command, reply) in contents {
            match (command.name().as_str(), reply.bytes()) {
                ("OBJECT", Some(encoding)) => {
                    *self.encodings.entry(String::from_utf8_lossy(encoding).into_owned()).or_default() += 1;
                }
                ("PTTL", Some(time_ms)) => self.expiring += usize::from(!time_ms.starts_with(b"-")),
                _ => {}
            }
        }
    }

    /// Whether what was compared was worth it.
    ///
    /// # Errors
    /// What there was too much of.
    pub fn check(&self) -> Result<(), String> {
        let all = self.all();
        if all.replies + self.uncompared < COMMANDS_MIN {
            return Ok(());
        }
        let errors_percent = percent(all.errors, all.replies);
        if errors_percent > ERRORS_PERCENT_MAX {
            return Err(format!("{errors_percent} % of the replies are errors: the templates need better arguments"));
        }
        let uncompared_percent = percent(self.uncompared, self.uncompared + all.replies);
        if uncompared_percent > UNCOMPARED_PERCENT_MAX {
            return Err(format!("{uncompared_percent} % of the commands came after what ends a comparison"));
        }
        Ok(())
    }

    fn all(&self) -> Tally {
        self.commands.values().fold(Tally::default(), |sum, tally| Tally {
            replies: sum.replies + tally.replies,
            errors: sum.errors + tally.errors,
        })
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.all();
        writeln!(
            f,
            "{} replies to {} commands, {} % errors; {} commands not compared",
            all.replies,
            self.commands.len(),
            percent(all.errors, all.replies),
            self.uncompared
        )?;
        for (name, tally) in &self.commands {
            writeln!(f, "  {name}: {}, {} % errors", tally.replies, percent(tally.errors, tally.replies))?;
        }
        let keys: usize = self.encodings.values().sum();
        writeln!(f, "{keys} keys were left, {} of them with a time to live", self.expiring)?;
        self.encodings.iter().try_for_each(|(encoding, keys)| writeln!(f, "  {encoding}: {keys}"))
    }
}

fn percent(part: usize, whole: usize) -> usize {
    part * 100 / whole.max(1)
}

#[cfg(test)]
mod tests {
    use super::Coverage;
    use crate::command::Command;
    use crate::reply::Reply;

    fn coverage(good: usize, bad: usize) -> Coverage {
        let mut coverage = Coverage::default();
        let command = Command::words("GET k");
        (0..good).for_each(|_| coverage.note(&command, &[Reply::Line(b'+', b"OK".to_vec())]));
        (0..bad).for_each(|_| coverage.note(&command, &[Reply::Line(b'-', b"ERR".to_vec())]));
        coverage
    }

    #[test]
    fn mostly_errors_is_not_enough() {
        assert!(coverage(10_000, 1_000).check().is_ok());
        assert!(coverage(1_000, 10_000).check().is_err());
        assert!(coverage(1, 10).check().is_ok(), "a handful of commands says nothing");
    }

    #[test]
    fn sequences_that_end_early_are_not_enough() {
        let mut coverage = coverage(10_000, 0);
        coverage.note_uncompared(20_000);
        assert!(coverage.check().is_err());
    }
}
