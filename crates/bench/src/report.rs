//! What a suite says: lines and tables in Markdown, the goals that it computed from what it measured, and charts.
//!
//! Everything is printed while the suite runs. With a folder to write to, it becomes a page there as well, with the charts beside it; a suite
//! that failed writes nothing ([`page`]).

mod chart;
mod goal;
pub mod page;

use std::fmt::Display;
use std::time::Duration;

pub use self::chart::{Chart, Group, Scale};
pub use self::goal::Goal;
use crate::rounds::Standing;

/// What one suite says.
#[derive(Debug, Default)]
pub struct Report {
    text: String,
    goals: Vec<Goal>,
    charts: Vec<Chart>,
}

impl Report {
    /// Prints a line, and keeps it for the page.
    pub fn line(&mut self, line: impl Display) {
        let line = line.to_string();
        println!("{line}");
        self.text.push_str(&line);
        self.text.push('\n');
    }

    /// Begins a table. Columns after the first `labels` hold figures.
    pub fn table(&mut self, columns: &[&str], labels: usize) {
        self.line("");
        self.line(format_args!("| {} |", columns.join(" | ")));
        let alignments: String =
            (0..columns.len()).map(|column| if column < labels { "---|" } else { "---:|" }).collect();
        self.line(format_args!("|{alignments}"));
    }

    /// Begins a table of standings.
    pub fn standings_table(&mut self, base: &str) {
        self.table(&["case", "contestant", "per operation", &format!("time relative to {base}")], 2);
    }

    /// Adds one row per standing.
    pub fn standings(&mut self, case: &str, standings: &[Standing]) {
        for Standing { name, median, ratio } in standings {
            self.line(format_args!("| {case} | {name} | {} | {ratio:.2} |", time(*median)));
        }
    }

    /// Adds a goal. One without a case was not looked at, and is left out.
    pub fn goal(&mut self, goal: Goal) {
        if goal.is_measured() {
            self.goals.push(goal);
        }
    }

    /// Adds a chart. One without a group is left out.
    pub fn chart(&mut self, chart: Chart) {
        if !chart.groups.is_empty() {
            self.charts.push(chart);
        }
    }

    /// Ends with the table of goals.
    pub fn finish(&mut self) {
        if self.goals.is_empty() {
            return;
        }
        self.line("\n## Goals");
        self.table(&["goal", "asked", "measured", "outcome"], 4);
        for goal in std::mem::take(&mut self.goals) {
            let [asked, measured, outcome] = [goal.asked(), goal.measured(), goal.outcome()];
            self.line(format_args!("| {} | {asked} | {measured} | {outcome} |", goal.what()));
            self.goals.push(goal);
        }
    }
}

/// A time with three digits and a unit.
pub fn time(time: Duration) -> String {
    let ns = time.as_nanos();
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.2} µs", time.as_secs_f64() * 1e6),
        _ => format!("{:.2} ms", time.as_secs_f64() * 1e3),
    }
}

/// Megabytes, of a million bytes each.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// A ratio; none to what was too little to be measured.
pub fn times(ratio: f64) -> String {
    if ratio.is_finite() { format!("{ratio:.2}") } else { "–".to_owned() }
}

/// A figure with about three digits; thousands apart.
pub fn figure(value: f64) -> String {
    match value.abs() {
        0.0..9.995 => format!("{value:.2}"),
        9.995..99.95 => format!("{value:.1}"),
        _ => thousands(&format!("{value:.0}")),
    }
}

fn thousands(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let mut text = sign.to_owned();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Goal, Report, figure, times};

    #[test]
    fn figures_have_about_three_digits() {
        let figures = [0.0, 0.123, 9.994, 9.996, 99.94, 99.96, 1_234.4, 1_234_567.0, -12_345.0].map(figure);
        assert_eq!(figures, ["0.00", "0.12", "9.99", "10.0", "99.9", "100", "1,234", "1,234,567", "-12,345"]);
    }

    #[test]
    fn a_ratio_to_nothing_is_none() {
        assert_eq!([0.0, 0.75, f64::NAN, f64::INFINITY].map(times), ["0.00", "0.75", "–", "–"]);
    }

    #[test]
    fn a_report_ends_with_the_goals_that_were_measured() {
        let mut report = Report::default();
        report.table(&["case", "time"], 1);
        report.line("| get | 2 ns |");
        report.goal(Goal::at_most("`get`", 3.0, " ns").case("", 2.0));
        report.goal(Goal::at_least("what --only left out", 1.0, "x"));
        report.finish();
        let expected = "\n| case | time |\n|---|---:|\n| get | 2 ns |\n\n## Goals\n\n\
            | goal | asked | measured | outcome |\n|---|---|---|---|\n| `get` | ≤ 3.00 ns | 2.00 ns | met |\n";
        assert_eq!(report.text, expected);
    }
}
