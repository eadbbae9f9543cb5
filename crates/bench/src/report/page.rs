//! What a suite said, as files: a page with its tables, the charts beside it, and its goals in the document that tells the story.
//!
//! The document lies beside the folder and has its name: `docs/performance.md` beside `docs/performance/`. Between two marks it has one table of all
//! goals of all suites. Of that, the rows of the suite are written anew, and all others are left alone. Its last column, why it is so, is
//! written by people; it stays as long as the goal is met, or missed, as before.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{Chart, Report};
use crate::Outcome;

const BEGIN: &str = "<!-- goals -->";
const END: &str = "<!-- end of goals -->";
const COLUMNS: usize = 6;

/// What stands above a suite's page.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The name of the suite.
    pub suite: &'a str,
    /// How it was called.
    pub command: &'a str,
    /// Machine and versions, in lines.
    pub machine: &'a str,
    /// How long it took.
    pub took: Duration,
}

/// Writes the page and the charts into the folder, and the goals into the document beside it if there is one.
///
/// # Errors
/// A file cannot be written, or the document has no place for goals.
pub fn write(report: &Report, facts: &Facts<'_>, folder: &Path) -> Outcome {
    let charts: Vec<(&Chart, String)> = report.charts.iter().filter_map(drawn).collect();
    let document = folder.with_extension("md");
    let name = document.file_name().filter(|_| document.exists()).map(|name| name.to_string_lossy());
    fs::create_dir_all(folder)?;
    fs::write(folder.join(format!("{}.md", facts.suite)), page(report, facts, &charts, name.as_deref()))?;
    for (chart, svg) in charts {
        fs::write(folder.join(chart.file(facts.suite)), svg)?;
    }
    if name.is_some() {
        let merged = merge(&fs::read_to_string(&document)?, facts.suite, &rows(report, facts.suite));
        fs::write(&document, merged.map_err(|error| format!("{}: {error}", document.display()))?)?;
    }
    Ok(())
}

/// A chart that has nothing to show is left out: what was measured for many minutes is not lost for it.
fn drawn(chart: &Chart) -> Option<(&Chart, String)> {
    match chart.svg() {
        Ok(svg) => Some((chart, svg)),
        Err(error) => {
            eprintln!("{error}");
            None
        }
    }
}

fn page(report: &Report, facts: &Facts<'_>, charts: &[(&Chart, String)], document: Option<&str>) -> String {
    let Facts { suite, command, machine, took } = facts;
    let told = document.map(|name| format!(" What it means is told in [{name}](../{name})."));
    let date = jiff::Zoned::now().strftime("%-d %B %Y");
    let minutes = took.as_secs() / 60;
    let mut text = format!(
        "# Measured: {suite}\n\nWritten by `{command}` on {date}, in {minutes} min {} s.{}\n\n{machine}\n",
        took.as_secs() % 60,
        told.unwrap_or_default()
    );
    for (chart, _) in charts {
        text.push_str(&format!("\n![{}]({})\n", chart.title, chart.file(suite)));
    }
    text.push('\n');
    text.push_str(report.text.trim());
    text.push('\n');
    text
}

/// The suite's rows in the table of all goals, without the last column.
fn rows(report: &Report, suite: &str) -> Vec<[String; COLUMNS - 1]> {
    let row = |goal: &super::Goal| {
        [suite.to_owned(), goal.what().to_owned(), goal.asked(), goal.measured(), goal.outcome()]
            .map(|cell| cell.trim().to_owned())
    };
    report.goals.iter().map(row).collect()
}

/// The document with these rows in place of those that the suite had; behind all others if it had none.
fn merge(document: &str, suite: &str, rows: &[[String; COLUMNS - 1]]) -> Outcome<String> {
    let (before, rest) = document.split_once(BEGIN).ok_or_else(|| format!("there is no mark {BEGIN}"))?;
    let (table, after) = rest.split_once(END).ok_or_else(|| format!("there is no mark {END}"))?;
    let old: Vec<[String; COLUMNS]> = table.lines().filter_map(cells).skip(1).filter(|row| !is_rule(row)).collect();
    let place = old.iter().position(|row| row[0] == suite).unwrap_or(old.len());
    let new: Vec<_> = rows.iter().map(|row| with_remark(row, &old)).collect();
    let kept = |row: &&[String; COLUMNS]| row[0] != suite;
    let all = old[..place].iter().chain(&new).chain(old[place..].iter().filter(kept));
    let mut text =
        format!("{before}{BEGIN}\n| suite | goal | asked | measured | outcome | why |\n|---|---|---|---|---|---|\n");
    all.for_each(|row| text.push_str(&format!("| {} |\n", row.join(" | "))));
    Ok(format!("{text}{END}{after}"))
}

/// With what was said of the same goal, unless the outcome is another one now.
fn with_remark(row: &[String; COLUMNS - 1], old: &[[String; COLUMNS]]) -> [String; COLUMNS] {
    let [suite, goal, asked, measured, outcome] = row.clone();
    let same = old.iter().find(|old| old[0] == suite && old[1] == goal);
    let remark = match same {
        Some(old) if is_met(&old[4]) == is_met(&outcome) => old[5].clone(),
        Some(old) if !old[5].is_empty() => {
            eprintln!("{suite}: {goal}: {outcome}, so this is no longer said of it: {}", old[5]);
            String::new()
        }
        _ => String::new(),
    };
    [suite, goal, asked, measured, outcome, remark]
}

fn is_met(outcome: &str) -> bool {
    outcome == "met"
}

/// The cells of a line of the table.
fn cells(line: &str) -> Option<[String; COLUMNS]> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let cells: Vec<String> = inner.split('|').map(|cell| cell.trim().to_owned()).collect();
    cells.try_into().ok()
}

fn is_rule(row: &[String; COLUMNS]) -> bool {
    row.iter().all(|cell| !cell.is_empty() && cell.bytes().all(|byte| matches!(byte, b'-' | b':')))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::{Facts, merge, write};
    use crate::report::{Chart, Goal, Group, Report, Scale};

    const DOCUMENT: &str = "# Performance

<!-- goals -->
| suite | goal | asked | measured | outcome | why |
|---|---|---|---:|---|---|
| lock | under 1 µs | ≤ 1.00 µs | 0.71 µs | met | |
| memory | `get` | ≤ 2.00x | 2.10x | missed: 5 % above | the box |
| memory | gone | ≤ 2.00x | 1.00x | met | |
| redis | CPU | ≤ 1.05x | 1.40x | missed: 33 % above | a deadline |
<!-- end of goals -->

The story.
";

    fn row(suite: &str, goal: &str, figure: &str, outcome: &str) -> [String; 5] {
        [suite, goal, "≤ 2.00x", figure, outcome].map(str::to_owned)
    }

    #[test]
    fn rows_of_a_suite_are_replaced_in_their_place_and_keep_what_people_said_of_them() {
        let rows = [row("memory", "`get`", "2.20x", "missed: 10 % above"), row("memory", "`put`", "1.50x", "met")];
        let merged = merge(DOCUMENT, "memory", &rows).unwrap();
        let expected = DOCUMENT
            .replace("|---:|", "|---|")
            .replace("2.10x | missed: 5 % above", "2.20x | missed: 10 % above")
            .replace("| memory | gone | ≤ 2.00x | 1.00x | met | |", "| memory | `put` | ≤ 2.00x | 1.50x | met |  |")
            .replace("0.71 µs | met | |", "0.71 µs | met |  |");
        assert_eq!(merged, expected);
        assert_eq!(merge(&merged, "memory", &rows).unwrap(), merged, "writing the same again changes nothing");
    }

    #[test]
    fn what_was_said_of_a_miss_is_not_said_of_what_is_met() {
        let merged = merge(DOCUMENT, "memory", &[row("memory", "`get`", "1.90x", "met")]).unwrap();
        assert!(merged.contains("| 1.90x | met |  |\n"), "{merged}");
        assert!(!merged.contains("the box") && merged.contains("a deadline"), "{merged}");
    }

    #[test]
    fn a_new_suite_comes_last() {
        let merged = merge(DOCUMENT, "scan", &[row("scan", "first page", "1.00x", "met")]).unwrap();
        assert!(merged.contains("a deadline |\n| scan | first page |"), "{merged}");
    }

    #[test]
    fn a_document_without_a_place_for_goals_is_not_touched() {
        assert!(merge("# Performance\n", "memory", &[]).unwrap_err().to_string().contains("<!-- goals -->"));
    }

    #[test]
    fn a_page_has_its_facts_its_charts_and_all_that_was_said() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("performance");
        fs::write(root.path().join("performance.md"), DOCUMENT).unwrap();
        let mut report = Report::default();
        report.line("| get | 2.20 |");
        report.goal(Goal::at_most("`get`", 2.0, "x").case("", 2.2));
        report.chart(Chart {
            name: "",
            title: "Reads".to_owned(),
            axis: "x",
            scale: Scale::Linear,
            series: vec!["a".to_owned()],
            groups: vec![Group { label: "get".to_owned(), values: vec![Some(2.2)], goal: Some(2.0) }],
        });
        report.finish();
        let (command, machine) = ("cargo xtask bench memory", "Machine: two cores");
        let facts = Facts { suite: "memory", command, machine, took: Duration::from_secs(125) };
        write(&report, &facts, &folder).unwrap();
        let page = fs::read_to_string(folder.join("memory.md")).unwrap();
        for part in [
            "# Measured: memory\n",
            command,
            machine,
            "2 min 5 s",
            "![Reads](memory.svg)",
            "| get | 2.20 |",
            "## Goals",
            "(../performance.md)",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert!(fs::read_to_string(folder.join("memory.svg")).unwrap().contains("</svg>"));
        let document = fs::read_to_string(root.path().join("performance.md")).unwrap();
        assert!(document.contains("| missed: 10 % above | the box |"), "{document}");
    }
}
