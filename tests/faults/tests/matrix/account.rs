//! What a row has done and seen, in numbers.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;

use acteon_faults::SEED_VARIABLE;
use acteon_faults::safety::{Updates, Writing};
use serde_json::{Value, json};

use crate::bench::Outcome;
use crate::row::Fault;

/// The variable that names a file to which each row appends a line of JSON, from which `cargo xtask faults` makes its table.
const SUMMARY_VARIABLE: &str = "ACTEON_FAULTS_SUMMARY";

/// The sums of a row.
#[derive(Debug, Default)]
pub(crate) struct Account {
    name: &'static str,
    pub(crate) topology: String,
    calls: usize,
    unknown: usize,
    faults: BTreeMap<&'static str, u64>,
    histories: usize,
    objects: usize,
    lost_in_time: usize,
    stalled: usize,
    /// Holders that overlapped where grants may be lost.
    overlaps_allowed: u64,
    /// By kind of writing, where writes may not be lost, and where they may.
    kept: [Updates; 3],
    losing: [Updates; 3],
    wrong: Vec<String>,
    /// How many of them were shown.
    shown: usize,
}

impl Account {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    pub(crate) fn add(&mut self, fault: &Fault, outcome: Result<Outcome, String>) {
        *self.faults.entry(fault.name).or_insert(0) += 1;
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
        let sums = if outcome.losses.writes { &mut self.losing } else { &mut self.kept };
        for (writing, updates) in outcome.updates {
            let sum = &mut sums[writing as usize];
            sum.grants += updates.grants;
            sum.acknowledged += updates.acknowledged;
            sum.unknown += updates.unknown;
            sum.refused += updates.refused;
            sum.lost += updates.lost;
            sum.tokens_fallen += updates.tokens_fallen;
            sum.overlaps += updates.overlaps;
            self.overlaps_allowed += if outcome.losses.grants { updates.overlaps } else { 0 };
        }
        self.wrong.extend(outcome.wrong.into_iter().map(|wrong| format!("{}: {wrong}", fault.name)));
    }

    /// The sums so far, and what was wrong since one asked last.
    pub(crate) fn progress(&mut self) -> String {
        let mut progress =
            format!("{} calls, {} histories, {} anomalies so far", self.calls, self.histories, self.wrong.len());
        if let Some(wrong) = self.wrong.get(self.shown..) {
            wrong.iter().for_each(|wrong| progress = format!("{progress}\n{wrong}"));
        }
        self.shown = self.wrong.len();
        progress
    }

    /// Says what came of it all.
    ///
    /// # Panics
    /// When something was wrong.
    pub(crate) fn finish(&self, seed: u64) {
        let sum = |number: fn(&Updates) -> u64| self.kept.iter().chain(&self.losing).map(number).sum::<u64>();
        let (name, grants, overlaps) = (self.name, sum(|updates| updates.grants), sum(|updates| updates.overlaps));
        println!("{name}: {} faults, {} calls, {} may have happened", self.fault_count(), self.calls, self.unknown);
        println!(
            "{name}: {grants} grants, {overlaps} overlaps, {} of them where grants may be lost",
            self.overlaps_allowed
        );
        println!(
            "{name}: lost() fired in time {} times, and {} times in a process that stood still",
            self.lost_in_time, self.stalled
        );
        for writing in Writing::ALL {
            let (kept, losing) = (self.kept[writing as usize], self.losing[writing as usize]);
            let [kept, losing] = [kept, losing].map(|updates| format!("{} of {}", updates.lost, updates.acknowledged));
            println!("{name}: {} updates lost: {kept}; where writes may be lost, {losing}", writing.name());
        }
        if let Some(path) = std::env::var_os(SUMMARY_VARIABLE) {
            let file = OpenOptions::new().append(true).create(true).open(&path);
            file.and_then(|mut file| writeln!(file, "{}", self.line(grants, overlaps)))
                .expect("the summary can be written");
        }
        assert!(self.wrong.is_empty(), "{name}: {SEED_VARIABLE}={seed}\n{}", self.wrong.join("\n"));
    }

    fn fault_count(&self) -> u64 {
        self.faults.values().sum()
    }

    fn line(&self, grants: u64, overlaps: u64) -> Value {
        let lost = |updates: &Updates| json!({"lost": updates.lost, "of": updates.acknowledged});
        let updates: serde_json::Map<_, _> = Writing::ALL
            .into_iter()
            .map(|writing| {
                let (kept, losing) = (&self.kept[writing as usize], &self.losing[writing as usize]);
                (writing.name().to_owned(), json!({"kept": lost(kept), "losing": lost(losing)}))
            })
            .collect();
        json!({
            "backend": self.name,
            "topology": self.topology,
            "operations": self.calls,
            "faults": self.fault_count(),
            "faults_by_name": self.faults,
            "histories": self.histories,
            "objects": self.objects,
            "anomalies": self.wrong.len(),
            "grants": grants,
            "overlaps": overlaps,
            "overlaps_allowed": self.overlaps_allowed,
            "updates": updates,
        })
    }
}
