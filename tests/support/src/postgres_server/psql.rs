//! Asks a server single questions through psql: plain enough to be obviously right next to the driver under test.

use std::env;
use std::io;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use crate::process::{output_within, supervised_command};

/// Where and as whom to ask.
pub(crate) struct Psql<'a> {
    pub(crate) program: &'a Path,
    /// On 127.0.0.1.
    pub(crate) port: u16,
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    pub(crate) database: &'a str,
}

const QUERY_TIMEOUT: Duration = Duration::from_secs(30); // far longer than what tests ask; a frozen server answers never
const CONNECT_TIMEOUT_S: &str = "10";

// Characters made for this purpose, which no test stores.
const FIELD_END: char = '\u{1f}';
const ROW_END: char = '\u{1e}';
const NULL: &str = "\u{1d}";

impl Psql<'_> {
    /// Runs `sql` and returns its rows.
    pub(crate) fn query(&self, sql: &str) -> io::Result<Vec<Vec<Option<String>>>> {
        let Output { status, stdout, stderr } = self.run(sql)?;
        if !status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&stderr).trim().to_owned()));
        }
        let text = String::from_utf8(stdout).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(parse(&text))
    }

    fn run(&self, sql: &str) -> io::Result<Output> {
        let mut command = supervised_command(self.program);
        command
            .args([
                "--no-psqlrc",
                "--no-password",
                "--quiet",
                "--no-align",
                "--tuples-only",
                "--set",
                "ON_ERROR_STOP=1",
            ])
            .args([format!("--field-separator={FIELD_END}"), format!("--record-separator={ROW_END}")])
            .args(["--pset", &format!("null={NULL}"), "--file", "-"]);
        // What the person who runs the tests has set for servers of their own.
        for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        command
            // Nor the certificates and passwords in their home, which a server of ours has nothing to do with.
            .env("HOME", "/nonexistent")
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", self.user)
            .env("PGDATABASE", self.database)
            // Not as an argument, which everybody on the machine could read.
            .env("PGPASSWORD", self.password)
            .env("PGCONNECT_TIMEOUT", CONNECT_TIMEOUT_S)
            .env("PGCLIENTENCODING", "UTF8")
            .env("LC_ALL", "C");
        output_within(command, sql.as_bytes(), QUERY_TIMEOUT)
    }
}

/// psql ends its output with a line break, and writes nothing at all when there are no rows.
fn parse(text: &str) -> Vec<Vec<Option<String>>> {
    let Some(rows) = text.strip_suffix('\n') else {
        return Vec::new();
    };
    let field = |text: &str| (text != NULL).then(|| text.to_owned());
    rows.split(ROW_END).map(|row| row.split(FIELD_END).map(field).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn rows_with_nulls_line_breaks_and_empty_texts_are_read() {
        let text = |text: &str| Some(text.to_owned());
        let rows = parse("1\u{1f}\u{1d}\u{1f}\u{1e}2\u{1f}a\nb\u{1f}c\n");
        assert_eq!(rows, [vec![text("1"), None, text("")], vec![text("2"), text("a\nb"), text("c")]]);
    }

    #[test]
    fn no_row_differs_from_an_empty_text() {
        assert!(parse("").is_empty());
        assert_eq!(parse("\n"), [[Some(String::new())]]);
    }
}
