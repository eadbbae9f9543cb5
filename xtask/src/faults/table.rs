//! What came of all rows, as tables in Markdown.
//!
//! Each row of the matrix appends a line of JSON when it ends: `tests/faults/tests/matrix/account.rs` writes them.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::Failure;

const HEADER: &str = "\
| backend | topology | operations | faults | histories | objects | anomalies | grants | overlaps of holders | lost updates: versions compared | fenced only | no condition |
|---|---|---|---|---|---|---|---|---|---|---|---|";
const FAULTS_HEADER: &str = "| fault | times |\n|---|---|";

/// What one row of the matrix has done and seen.
#[derive(Deserialize)]
struct Row {
    backend: String,
    topology: String,
    #[serde(flatten)]
    counts: Counts,
    grants: u64,
    overlaps: u64,
    /// Those of them where grants may be lost.
    overlaps_allowed: u64,
    faults_by_name: BTreeMap<String, u64>,
    updates: Updates,
}

/// The columns of all rows that say how much was done.
#[derive(Deserialize)]
struct Counts {
    operations: u64,
    faults: u64,
    histories: u64,
    objects: u64,
    anomalies: u64,
}

/// By the way of writing under a lock.
#[derive(Deserialize)]
struct Updates {
    compared: Lost,
    fenced: Lost,
    plain: Lost,
}

/// Lost updates: where acknowledged writes are kept, and apart from that where they may be lost.
#[derive(Deserialize)]
struct Lost {
    kept: Rate,
    losing: Rate,
}

#[derive(Deserialize)]
struct Rate {
    lost: u64,
    of: u64,
}

/// What is known so far.
pub(super) struct Table {
    seed: u64,
    took: Duration,
    rows: Vec<Row>,
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

    fn sum(&self, number: impl Fn(&Row) -> u64) -> u64 {
        self.rows.iter().map(number).sum()
    }

    /// How often each fault happened, over all rows.
    fn faults(&self) -> BTreeMap<&str, u64> {
        let mut faults = BTreeMap::new();
        for (fault, times) in self.rows.iter().flat_map(|row| &row.faults_by_name) {
            *faults.entry(fault.as_str()).or_insert(0) += times;
        }
        faults
    }
}

impl Counts {
    const fn columns(&self) -> [u64; 5] {
        [self.operations, self.faults, self.histories, self.objects, self.anomalies]
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        let sums: [u64; 5] = std::array::from_fn(|column| self.sum(|row| row.counts.columns()[column]));
        let (grants, overlaps) = (self.sum(|row| row.grants), self.sum(|row| row.overlaps));
        writeln!(f, "| all | | {} | {grants} | {overlaps} | | | |", cells(sums))?;
        writeln!(f, "\n{FAULTS_HEADER}")?;
        for (fault, times) in self.faults() {
            writeln!(f, "| {fault} | {times} |")?;
        }
        writeln!(f, "\n{:.1} minutes, seed {}.", self.took.as_secs_f64() / 60.0, self.seed)?;
        for row in &self.failed {
            writeln!(f, "failed: {row}; again with: cargo xtask faults --backend {row} --seed {}", self.seed)?;
        }
        Ok(())
    }
}

/// A line of the table.
impl Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backend, topology, counts, grants, overlaps, overlaps_allowed, updates, .. } = self;
        write!(f, "| {backend} | {topology} | {} | {grants} | {overlaps}", cells(counts.columns()))?;
        if *overlaps_allowed > 0 {
            write!(f, " ({overlaps_allowed} where grants may be lost)")?;
        }
        write!(f, " | {} | {} | {} |", updates.compared, updates.fenced, updates.plain)
    }
}

impl Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kept.of, self.losing.of) {
            (_, 0) => write!(f, "{}", self.kept),
            (0, _) => write!(f, "{} where writes may be lost", self.losing),
            _ => write!(f, "{}; {} where writes may be lost", self.kept, self.losing),
        }
    }
}

impl Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.lost, self.of)
    }
}

fn cells(numbers: [u64; 5]) -> String {
    numbers.map(|number| number.to_string()).join(" | ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Table;
    use crate::Failure;

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

    #[test]
    fn a_row_that_lacks_a_number_is_an_error_and_no_zero() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        std::fs::write(&path, LINE.replace('\n', "").replace(r#""objects":20,"#, "")).unwrap();
        let Err(Failure(reason)) = Table::new(4711).read(&path, Duration::ZERO) else { panic!("the row was taken") };
        assert!(reason.contains("objects"), "{reason}");
    }
}
