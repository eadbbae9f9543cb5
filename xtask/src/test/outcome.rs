//! Reads the result lines of test programs and writes the summary.

use std::fmt::Write;
use std::ops::AddAssign;

/// How many tests ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) ignored: usize,
}

/// What became of one suite.
#[derive(Debug)]
pub(crate) struct Outcome {
    name: String,
    counts: Counts,
    /// Why tests were ignored by us; tests that ignore themselves say so in their own output.
    reasons: Vec<&'static str>,
    /// Tests by name, and programs that failed beyond their tests.
    failures: Vec<String>,
    pub(crate) seconds: f64,
}

/// What one program, or several, gave.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) counts: Counts,
    pub(crate) failures: Vec<String>,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

impl Outcome {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            counts: Counts::default(),
            reasons: Vec::new(),
            failures: Vec::new(),
            seconds: 0.0,
        }
    }

    pub(crate) fn add(&mut self, results: Results) {
        self.counts += results.counts;
        self.failures.extend(results.failures);
    }

    /// Counts tests that were not run.
    pub(crate) fn ignore(&mut self, tests: usize, reason: &'static str) {
        self.counts.ignored += tests;
        if tests > 0 && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; …`, which libtest and libtest-mimic write alike.
pub(crate) fn parse_result(line: &str) -> Option<Counts> {
    let (_verdict, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |what: &str| counts.split(';').find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok());
    Some(Counts { passed: count("passed")?, failed: count("failed")?, ignored: count("ignored")? })
}

/// Reads `test NAME ... FAILED`, which both write for each test.
pub(crate) fn parse_failure(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

/// Whether nothing failed. A run in which there was nothing at all, such as one with a misspelt filter, is no success either.
pub(crate) fn is_success(outcomes: &[Outcome]) -> bool {
    let total = total(outcomes);
    total.failed == 0 && total != Counts::default()
}

/// A table with a line per suite, the names of what failed, and the totals alone on the last line.
pub(crate) fn summary(outcomes: &[Outcome]) -> String {
    let mut text = format!("\n{:<16} {:>7} {:>7} {:>8} {:>8}\n", "suite", "passed", "failed", "ignored", "seconds");
    for Outcome { name, counts, reasons, seconds, .. } in outcomes {
        let Counts { passed, failed, ignored } = counts;
        let reasons = reasons.join("; ");
        let line = format!("{name:<16} {passed:>7} {failed:>7} {ignored:>8} {seconds:>8.1}  {reasons}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for Outcome { name, failures, .. } in outcomes {
        failures.iter().for_each(|failure| _ = writeln!(text, "failed in {name}: {failure}")); // a String takes everything
    }
    let total = total(outcomes);
    if total == Counts::default() {
        text.push_str("no test ran\n");
    }
    let Counts { passed, failed, ignored } = total;
    let _ = writeln!(text, "\n{passed} passed, {failed} failed, {ignored} skipped");
    text
}

fn total(outcomes: &[Outcome]) -> Counts {
    let mut total = Counts::default();
    outcomes.iter().for_each(|outcome| total += outcome.counts);
    total
}

#[cfg(test)]
mod tests {
    use super::{Counts, Outcome, Results, is_success, parse_failure, parse_result, summary};

    fn outcome(passed: usize, failed: usize) -> Outcome {
        let mut outcome = Outcome::new("engine");
        let failures = (0..failed).map(|number| format!("keys::test_{number}")).collect();
        outcome.add(Results { counts: Counts { passed, failed, ignored: 0 }, failures });
        outcome
    }

    #[test]
    fn result_lines_of_both_harnesses_are_read() {
        let libtest = "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 1 filtered out; finished in 0.52s";
        let mimic = "test result: FAILED. 7 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.00s";
        assert_eq!(parse_result(libtest), Some(Counts { passed: 12, failed: 0, ignored: 3 }));
        assert_eq!(parse_result(mimic), Some(Counts { passed: 7, failed: 2, ignored: 1 }));
    }

    #[test]
    fn other_lines_are_no_results() {
        for line in ["test result: ok", "running 3 tests", "test a ... ok", "test result: ok. 1 passed"] {
            assert_eq!(parse_result(line), None, "{line}");
        }
    }

    #[test]
    fn the_totals_stand_alone_on_the_last_line() {
        let mut ignored = Outcome::new("state-redis");
        ignored.ignore(5, "needs Redis");
        let text = summary(&[outcome(3, 1), ignored]);
        assert_eq!(text.lines().last(), Some("3 passed, 1 failed, 5 skipped"));
        assert!(text.contains("needs Redis"), "{text}");
    }

    #[test]
    fn what_failed_is_named_behind_the_table() {
        assert_eq!(parse_failure("test keys::a_test ... FAILED"), Some("keys::a_test"));
        assert_eq!(parse_failure("test keys::a_test ... ok"), None);
        assert_eq!(parse_failure("test result: FAILED. 1 passed; 1 failed; 0 ignored"), None);
        let text = summary(&[outcome(3, 1), outcome(1, 0)]);
        assert!(text.contains("failed in engine: keys::test_0\n"), "{text}");
    }

    #[test]
    fn a_failure_or_an_empty_run_is_no_success() {
        assert!(is_success(&[outcome(1, 0)]));
        assert!(!is_success(&[outcome(1, 0), outcome(0, 1)]));
        assert!(!is_success(&[outcome(0, 0)]));
        assert!(summary(&[outcome(0, 0)]).contains("no test ran"));
    }
}
