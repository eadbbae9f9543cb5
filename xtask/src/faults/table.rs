//! What came of all rows, as tables in Markdown.
//!
//! Each row of the matrix appends a line of JSON when it ends: `tests/faults/tests/matrix/account.rs` writes them.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::Failure;

const HEADER: &str = "\
| backend | topology | operations | faults | histories | objects | anomalies | grants | overlaps of holders | lost updates: versions compared | fenced only | no condition |
|---|---|---|---|---|---|---|---|---|---|---|---|";
const FAULTS_HEADER: &str = "| fault | times |\n|---|---|";

/// Numbers of a row that are added up below the table.
const SUMS: [&str; 5] = ["operations", "faults", "histories", "objects", "anomalies"];
/// The ways of writing under a lock, as rows name them.
const WRITINGS: [&str; 3] = ["compared", "fenced", "plain"];

/// What is known so far.
pub(super) struct Table {
    seed: u64,
    took: Duration,
    rows: Vec<Value>,
    failed: Vec<String>,
}

impl Table {
    pub(super) const fn new(seed: u64) -> Self {
        Self { seed, took: Duration::ZERO, rows: Vec::new(), failed: Vec::new() }
    }

    /// A row found something wrong, or could not be run.
    pub(super) fn failed(&mut self, row: &str) {
        self.failed.push(row.to_owned());
    }

    pub(super) const fn is_clean(&self) -> bool {
        self.failed.is_empty()
    }

    /// Reads what rows have said so far. There is no file as long as none has.
    pub(super) fn read(&mut self, lines: &Path, took: Duration) -> Result<(), Failure> {
        let text = match std::fs::read_to_string(lines) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error.into()),
        };
        self.rows = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        self.took = took;
        Ok(())
    }

    fn sum(&self, number: &str) -> u64 {
        self.rows.iter().filter_map(|row| row[number].as_u64()).sum()
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        for row in &self.rows {
            writeln!(f, "{}", line(row))?;
        }
        let sums = SUMS.map(|number| self.sum(number).to_string()).join(" | ");
        writeln!(f, "| all | | {sums} | {} | {} | | | |", self.sum("grants"), self.sum("overlaps"))?;
        writeln!(f, "\n{FAULTS_HEADER}")?;
        for (fault, times) in faults(&self.rows) {
            writeln!(f, "| {fault} | {times} |")?;
        }
        writeln!(f, "\n{:.1} minutes, seed {}.", self.took.as_secs_f64() / 60.0, self.seed)?;
        for row in &self.failed {
            writeln!(f, "failed: {row}; again with: cargo xtask faults --backend {row} --seed {}", self.seed)?;
        }
        Ok(())
    }
}

/// One row of the matrix.
fn line(row: &Value) -> String {
    let mut cells = vec![text(&row["backend"]), text(&row["topology"])];
    cells.extend(SUMS.map(|number| text(&row[number])));
    cells.push(text(&row["grants"]));
    cells.push(with_allowed(&row["overlaps"], &row["overlaps_allowed"]));
    cells.extend(WRITINGS.map(|writing| lost(&row["updates"][writing])));
    format!("| {} |", cells.join(" | "))
}

/// Lost updates, of how many: where acknowledged writes are kept, and apart from that where they may be lost.
fn lost(updates: &Value) -> String {
    let rate = |part: &Value| format!("{} of {}", text(&part["lost"]), text(&part["of"]));
    let (kept, losing) = (&updates["kept"], &updates["losing"]);
    match (kept["of"].as_u64(), losing["of"].as_u64()) {
        (_, Some(0)) => rate(kept),
        (Some(0), _) => format!("{} where writes may be lost", rate(losing)),
        _ => format!("{}; {} where writes may be lost", rate(kept), rate(losing)),
    }
}

fn with_allowed(all: &Value, allowed: &Value) -> String {
    match allowed.as_u64() {
        Some(1..) => format!("{} ({allowed} where grants may be lost)", text(all)),
        _ => text(all),
    }
}

/// How often each fault happened, over all rows.
fn faults(rows: &[Value]) -> BTreeMap<&str, u64> {
    let mut faults = BTreeMap::new();
    for (fault, times) in rows.iter().filter_map(|row| row["faults_by_name"].as_object()).flatten() {
        *faults.entry(fault.as_str()).or_insert(0) += times.as_u64().unwrap_or(0);
    }
    faults
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Table;

    const LINE: &str = r#"{"backend":"redis","topology":"single","operations":100,"faults":2,"histories":4,"objects":20,"anomalies":0,
        "grants":30,"overlaps":1,"overlaps_allowed":1,"faults_by_name":{"silence":1,"a frozen server":1},
        "updates":{"compared":{"kept":{"lost":0,"of":7},"losing":{"lost":0,"of":0}},
                   "fenced":{"kept":{"lost":0,"of":0},"losing":{"lost":2,"of":9}},
                   "plain":{"kept":{"lost":1,"of":7},"losing":{"lost":2,"of":9}}}}"#;

    #[test]
    fn rows_are_lines_of_a_table_with_sums_and_how_to_repeat_those_that_failed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, line) = (folder.path().join("lines"), LINE.replace('\n', ""));
        let mut table = Table::new(4711);
        table.read(&path, Duration::ZERO).unwrap();
        assert!(table.is_clean());
        std::fs::write(&path, format!("{line}\n{line}\n")).unwrap();
        table.read(&path, Duration::from_secs(90)).unwrap();
        table.failed("redis::redis");
        let text = table.to_string();
        for expected in [
            "| redis | single | 100 | 2 | 4 | 20 | 0 | 30 | 1 (1 where grants may be lost) | 0 of 7 | 2 of 9 where writes may be lost | \
             1 of 7; 2 of 9 where writes may be lost |",
            "| all | | 200 | 4 | 8 | 40 | 0 | 60 | 2 | | | |",
            "| silence | 2 |",
            "1.5 minutes, seed 4711.",
            "--backend redis::redis --seed 4711",
        ] {
            assert!(text.contains(expected), "{text}");
        }
        assert!(!table.is_clean());
    }
}
