//! The counts in the repository, and how others compare with them.
//!
//! One set per target, with the compiler that it was counted with: whoever changes what is executed counts with one compiler, and the sets of
//! others would silently grow old.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::Failure;

/// More than runs of one build differ by, and less than one more allocation weighs in most paths.
const TOLERANCE_PERCENT: f64 = 3.0;
/// Under another compiler than that of the counts. Compilers differ by several per cent in single paths, rarely by more than this.
const TOLERANCE_OTHER_COMPILER_PERCENT: f64 = 15.0;

/// All sets, by target.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub(super) struct Counts(BTreeMap<String, Set>);

/// The counts of one target.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Set {
    rustc: String,
    instructions_per_operation: BTreeMap<String, f64>,
}

/// What the counts of a build depend on, besides the code.
#[derive(Debug, Clone)]
pub(super) struct Toolchain {
    rustc: String,
    target: String,
}

/// What came of comparing. It displays as a table and what is wrong.
#[derive(Debug)]
pub(super) struct Comparison {
    lines: Vec<Line>,
    toolchain: Toolchain,
    /// The compiler of the counts that are kept, if there are any for this target.
    kept_rustc: Option<String>,
}

/// One path.
#[derive(Debug)]
struct Line {
    name: String,
    counted: Option<f64>,
    kept: Option<f64>,
    verdict: Verdict,
}

/// What its counts say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    /// Less, beyond the tolerance.
    Less,
    /// More, beyond the tolerance.
    More,
    /// No count is kept of it.
    NotKept,
    /// A count is kept, and there is no such path.
    NotCounted,
}

impl Counts {
    /// Reads the file; an empty set of sets when there is none.
    pub(super) fn load(file: &Path) -> Result<Self, Failure> {
        if !file.exists() {
            return Ok(Self::default());
        }
        serde_json::from_str(&fs::read_to_string(file)?)
            .map_err(|error| Failure(format!("{}: {error}", file.display())))
    }

    pub(super) fn to_json(&self) -> Result<String, Failure> {
        Ok(serde_json::to_string_pretty(&self.0)? + "\n")
    }

    /// Keeps these counts; with `is_part` beside those of other paths, and else instead of them.
    pub(super) fn accept(
        &mut self,
        toolchain: &Toolchain,
        counted: BTreeMap<String, f64>,
        is_part: bool,
    ) -> Result<(), Failure> {
        match self.0.get_mut(&toolchain.target) {
            Some(set) if is_part && set.rustc == toolchain.rustc => set.instructions_per_operation.extend(counted),
            Some(set) if is_part => {
                let (theirs, ours) = (&set.rustc, &toolchain.rustc);
                return Err(Failure(format!(
                    "the counts are of rustc {theirs}, and this is {ours}: accept all of them, without --only"
                )));
            }
            _ => {
                let set = Set { rustc: toolchain.rustc.clone(), instructions_per_operation: counted };
                self.0.insert(toolchain.target.clone(), set);
            }
        }
        Ok(())
    }

    /// Compares the counts of this target with `counted`. Of what is kept, only paths that `is_chosen` need to be there.
    pub(super) fn compare(
        &self,
        toolchain: &Toolchain,
        counted: &BTreeMap<String, f64>,
        is_chosen: impl Fn(&str) -> bool,
    ) -> Comparison {
        let set = self.0.get(&toolchain.target);
        let kept_rustc = set.map(|set| set.rustc.clone());
        let nothing = BTreeMap::new();
        let kept = set.map_or(&nothing, |set| &set.instructions_per_operation);
        let tolerance_percent = tolerance_percent(toolchain, kept_rustc.as_deref());
        let names: BTreeSet<&String> = kept.keys().filter(|name| is_chosen(name)).chain(counted.keys()).collect();
        let line = |name: &String| {
            let (counted, kept) = (counted.get(name).copied(), kept.get(name).copied());
            Line { name: name.clone(), counted, kept, verdict: verdict(counted, kept, tolerance_percent) }
        };
        Comparison { lines: names.into_iter().map(line).collect(), toolchain: toolchain.clone(), kept_rustc }
    }
}

impl Comparison {
    pub(super) fn is_success(&self) -> bool {
        self.lines.iter().all(|line| matches!(line.verdict, Verdict::Same | Verdict::Less))
    }
}

/// A tenth of an instruction is exact enough, and keeps noise out of the file.
pub(super) fn rounded(count: f64) -> f64 {
    (count * 10.0).round() / 10.0
}

fn tolerance_percent(toolchain: &Toolchain, kept_rustc: Option<&str>) -> f64 {
    if kept_rustc.is_none_or(|rustc| rustc == toolchain.rustc) {
        TOLERANCE_PERCENT
    } else {
        TOLERANCE_OTHER_COMPILER_PERCENT
    }
}

fn verdict(counted: Option<f64>, kept: Option<f64>, tolerance_percent: f64) -> Verdict {
    let (counted, kept) = match (counted, kept) {
        (Some(counted), Some(kept)) => (counted, kept),
        (Some(_), None) => return Verdict::NotKept,
        (None, _) => return Verdict::NotCounted,
    };
    let change_percent = change_percent(counted, kept);
    if change_percent > tolerance_percent {
        Verdict::More
    } else if change_percent < -tolerance_percent {
        Verdict::Less
    } else {
        Verdict::Same
    }
}

fn change_percent(counted: f64, kept: f64) -> f64 {
    (counted / kept - 1.0) * 100.0
}

impl Toolchain {
    /// Asks the compiler that cargo uses.
    pub(super) fn ask() -> Result<Self, Failure> {
        let output = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-vV").output()?;
        Self::parse(&String::from_utf8_lossy(&output.stdout))
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.map(str::to_owned).ok_or_else(|| Failure(format!("rustc -vV has no line {name}")))
        };
        Ok(Self { rustc: field("release")?, target: field("host")? })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lines, toolchain: Toolchain { rustc, target }, kept_rustc } = self;
        writeln!(
            f,
            "Instructions per operation, rustc {rustc}, {target}\n\n| path | counted | kept | change |\n|---|---:|---:|---:|"
        )?;
        for line in lines {
            writeln!(f, "{line}")?;
        }
        let tolerance_percent = tolerance_percent(&self.toolchain, kept_rustc.as_deref());
        match kept_rustc {
            Some(kept) if kept != rustc => {
                writeln!(f, "\nThe counts that are kept are of rustc {kept}: {tolerance_percent} % are tolerated.")?;
            }
            Some(_) => writeln!(f, "\n{tolerance_percent} % are tolerated.")?,
            None => writeln!(f, "\nNo counts are kept for {target}.")?,
        }
        for line in lines {
            line.explain(f, tolerance_percent)?;
        }
        if lines.iter().any(|line| line.verdict != Verdict::Same) {
            writeln!(f, "To keep what was counted: cargo xtask bench instructions --accept")?;
        }
        Ok(())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |count: Option<f64>| count.map_or("–".to_owned(), |count| format!("{count:.1}"));
        let change = match (self.counted, self.kept) {
            (Some(counted), Some(kept)) => format!("{:+.1} %", change_percent(counted, kept)),
            _ => "–".to_owned(),
        };
        write!(f, "| {} | {} | {} | {change} |", self.name, number(self.counted), number(self.kept))
    }
}

impl Line {
    /// One line about a path of which something is to be said.
    fn explain(&self, f: &mut fmt::Formatter<'_>, tolerance_percent: f64) -> fmt::Result {
        let (name, change) = match (self.counted, self.kept) {
            (Some(counted), Some(kept)) => (&self.name, change_percent(counted, kept).abs()),
            _ => (&self.name, 0.0),
        };
        match self.verdict {
            Verdict::Same => Ok(()),
            Verdict::Less => {
                writeln!(f, "improved: {name} executes {change:.1} % less. Accept it, so that it is not lost again.")
            }
            Verdict::More => {
                writeln!(f, "FAILED: {name} executes {change:.1} % more, and {tolerance_percent} % are tolerated.")
            }
            Verdict::NotKept => writeln!(f, "FAILED: no count of {name} is kept, so it was not compared."),
            Verdict::NotCounted => {
                writeln!(f, "FAILED: a count of {name} is kept, and there is no such path any more.")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Comparison, Counts, Toolchain};

    fn toolchain(rustc: &str, target: &str) -> Toolchain {
        Toolchain { rustc: rustc.to_owned(), target: target.to_owned() }
    }

    fn counted(counts: &[(&str, f64)]) -> BTreeMap<String, f64> {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    /// What comes of these counts where 1,000 instructions of `get` and 500 of `put` are kept.
    fn compare(rustc: &str, counts: &[(&str, f64)]) -> Comparison {
        let mut kept = Counts::default();
        kept.accept(&toolchain("1.95.0", "here"), counted(&[("get", 1_000.0), ("put", 500.0)]), false).unwrap();
        kept.compare(&toolchain(rustc, "here"), &counted(counts), |_| true)
    }

    #[test]
    fn within_the_tolerance_nothing_is_said() {
        let same = compare("1.95.0", &[("get", 1_029.0), ("put", 486.0)]);
        assert!(same.is_success());
        assert!(!same.to_string().contains("--accept"), "{same}");
    }

    #[test]
    fn above_the_tolerance_fails_and_says_by_how_much_and_how_to_accept() {
        let more = compare("1.95.0", &[("get", 1_031.0), ("put", 500.0)]);
        assert!(!more.is_success());
        let text = more.to_string();
        assert!(text.contains("FAILED: get executes 3.1 % more, and 3 % are tolerated"), "{text}");
        assert!(text.contains("| get | 1031.0 | 1000.0 | +3.1 % |") && text.contains("--accept"), "{text}");
        assert!(!text.contains("FAILED: put"), "{text}");
    }

    #[test]
    fn below_the_tolerance_passes_as_improved() {
        let less = compare("1.95.0", &[("get", 1_000.0), ("put", 400.0)]);
        assert!(less.is_success());
        assert!(less.to_string().contains("improved: put executes 20.0 % less"), "{less}");
    }

    #[test]
    fn a_path_without_a_count_fails() {
        let new = compare("1.95.0", &[("get", 1_000.0), ("put", 500.0), ("take", 7.0)]);
        assert!(!new.is_success());
        assert!(new.to_string().contains("no count of take is kept"), "{new}");
    }

    #[test]
    fn a_count_without_a_path_fails() {
        let gone = compare("1.95.0", &[("get", 1_000.0)]);
        assert!(!gone.is_success());
        assert!(gone.to_string().contains("a count of put is kept"), "{gone}");
    }

    #[test]
    fn what_was_not_chosen_need_not_be_counted() {
        let mut kept = Counts::default();
        kept.accept(&toolchain("1.95.0", "here"), counted(&[("get", 1_000.0), ("put", 500.0)]), false).unwrap();
        let part = kept.compare(&toolchain("1.95.0", "here"), &counted(&[("get", 1_000.0)]), |name| name == "get");
        assert!(part.is_success() && !part.to_string().contains("put"), "{part}");
    }

    #[test]
    fn a_target_without_counts_fails() {
        let elsewhere = Counts::default().compare(&toolchain("1.95.0", "there"), &counted(&[("get", 1.0)]), |_| true);
        assert!(!elsewhere.is_success());
        assert!(elsewhere.to_string().contains("No counts are kept for there"), "{elsewhere}");
    }

    #[test]
    fn another_compiler_is_named_and_gets_a_wider_tolerance() {
        let newer = compare("1.96.0", &[("get", 1_149.0), ("put", 500.0)]);
        assert!(newer.is_success());
        assert!(newer.to_string().contains("of rustc 1.95.0: 15 % are tolerated"), "{newer}");
        assert!(!compare("1.96.0", &[("get", 1_151.0), ("put", 500.0)]).is_success());
    }

    #[test]
    fn accepting_all_forgets_what_is_gone_and_accepting_a_part_keeps_the_rest() {
        let here = toolchain("1.95.0", "here");
        let mut kept = Counts::default();
        kept.accept(&here, counted(&[("get", 1.0), ("put", 2.0)]), false).unwrap();
        kept.accept(&here, counted(&[("get", 3.0)]), true).unwrap();
        assert!(kept.compare(&here, &counted(&[("get", 3.0), ("put", 2.0)]), |_| true).is_success());
        kept.accept(&here, counted(&[("get", 4.0)]), false).unwrap();
        assert!(kept.compare(&here, &counted(&[("get", 4.0)]), |_| true).is_success());
    }

    #[test]
    fn counts_of_two_compilers_are_not_mixed() {
        let mut kept = Counts::default();
        kept.accept(&toolchain("1.95.0", "here"), counted(&[("get", 1.0), ("put", 2.0)]), false).unwrap();
        let refused = kept.accept(&toolchain("1.96.0", "here"), counted(&[("get", 3.0)]), true).unwrap_err();
        assert!(refused.0.contains("without --only"), "{}", refused.0);
    }

    #[test]
    fn the_file_is_read_as_it_was_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut kept = Counts::default();
        kept.accept(&toolchain("1.95.0", "here"), counted(&[("get", 12.5)]), false).unwrap();
        std::fs::write(file.path(), kept.to_json().unwrap()).unwrap();
        assert_eq!(Counts::load(file.path()).unwrap().to_json().unwrap(), kept.to_json().unwrap());
    }

    #[test]
    fn the_compiler_says_its_release_and_target() {
        let parsed =
            Toolchain::parse("rustc 1.95.0 (59807616e)\nhost: x86_64-unknown-linux-gnu\nrelease: 1.95.0\n").unwrap();
        assert_eq!((&*parsed.rustc, &*parsed.target), ("1.95.0", "x86_64-unknown-linux-gnu"));
        assert!(Toolchain::parse("").is_err());
    }
}
