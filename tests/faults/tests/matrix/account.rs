//! What a row has done and seen, in numbers.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;

use acteon_faults::SEED_VARIABLE;
use acteon_faults::safety::{Updates, Writing};

use crate::bench::Outcome;
use crate::row::Fault;

/// The variable that names a file to which each row appends its line of the table.
const SUMMARY_VARIABLE: &str = "ACTEON_FAULTS_SUMMARY";

/// The sums of a row.
#[derive(Debug, Default)]
pub(crate) struct Account {
    name: &'static str,
    pub(crate) topology: String,
    calls: usize,
    unknown: usize,
    faults: usize,
    histories: usize,
    objects: usize,
    lost_in_time: usize,
    stalled: usize,
    /// By kind of writing, where writes may not be lost, and where they may.
    kept: [Updates; 3],
    losing: [Updates; 3],
    wrong: Vec<String>,
}

impl Account {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    pub(crate) fn add(&mut self, fault: &Fault, outcome: Result<Outcome, String>) {
        self.faults += 1;
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                self.wrong.push(format!("{}: {error}", fault.name));
                return;
            }
        };
        self.calls += outcome.calls;
        self.unknown += outcome.unknown;
        self.histories += outcome.histories;
        self.objects += outcome.objects;
        self.lost_in_time += outcome.lost_in_time;
        self.stalled += outcome.stalled;
        let sums = if outcome.may_lose_writes { &mut self.losing } else { &mut self.kept };
        for (writing, updates) in outcome.updates {
            let sum = &mut sums[writing as usize];
            sum.grants += updates.grants;
            sum.acknowledged += updates.acknowledged;
            sum.unknown += updates.unknown;
            sum.refused += updates.refused;
            sum.lost += updates.lost;
            sum.tokens_fallen += updates.tokens_fallen;
        }
        self.wrong.extend(outcome.wrong.into_iter().map(|wrong| format!("{}: {wrong}", fault.name)));
    }

    pub(crate) fn progress(&self) -> String {
        format!("{} calls, {} histories, {} anomalies so far", self.calls, self.histories, self.wrong.len())
    }

    /// Says what came of it all.
    ///
    /// # Panics
    /// When something was wrong.
    pub(crate) fn finish(&self, seed: u64) {
        let line = self.line();
        println!("{line}");
        println!(
            "{}: {} calls may have happened; lost() fired in time {} times, {} times in a process that stood still",
            self.name, self.unknown, self.lost_in_time, self.stalled
        );
        if let Some(path) = std::env::var_os(SUMMARY_VARIABLE) {
            let file = OpenOptions::new().append(true).create(true).open(&path);
            file.and_then(|mut file| writeln!(file, "{line}")).expect("the summary can be written");
        }
        assert!(self.wrong.is_empty(), "{}: {SEED_VARIABLE}={seed}\n{}", self.name, self.wrong.join("\n"));
    }

    /// One line of a table in Markdown: row, topology, operations, faults, histories, objects, anomalies, then lost updates for each
    /// kind of writing.
    fn line(&self) -> String {
        let mut line = format!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            self.name,
            self.topology,
            self.calls,
            self.faults,
            self.histories,
            self.objects,
            self.wrong.len()
        );
        for writing in Writing::ALL {
            let (kept, losing) = (self.kept[writing as usize], self.losing[writing as usize]);
            let _ = write!(line, " {}", rate(kept));
            if losing.acknowledged > 0 {
                let _ = write!(line, "; {} where writes may be lost", rate(losing));
            }
            line.push_str(" |");
        }
        line
    }
}

/// How many updates were lost, of how many.
fn rate(updates: Updates) -> String {
    format!("{} of {}", updates.lost, updates.acknowledged)
}
