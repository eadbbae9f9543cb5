//! Reads a directory of rule files, all or nothing.
//!
//! # What it promises
//! Files are read in the order of their names, as bytes compare. Taken are regular files (or links to them) that end
//! in `.yaml` or `.yml` and do not begin with a dot; subdirectories are not entered. All files are read and checked
//! before one is used, and every problem of every file is reported at once, names used twice included.
//!
//! # Failure
//! [`LoadError`] lists the problems. A directory that does not exist is one; an empty directory is an empty rule set.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use crate::rules::effect::Effect;
use crate::rules::file;
use crate::rules::problem::{LoadError, Problem};
use crate::rules::set::{DefaultDecision, Rule, RuleSet};

/// Most files in the directory.
pub const FILES_MAX: usize = 1_000;
/// Largest file, in bytes.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Most rules over all files. A dispatch may have to visit them one by one.
pub const RULES_MAX: usize = 2_000;
/// Most throttle rules over all files. Each one that matches is a question to the store.
pub const THROTTLE_RULES_MAX: usize = 100;

/// Stack for parsing: several times what the deepest accepted file was seen to use. Untouched pages cost nothing.
const STACK_BYTES: usize = 32 * 1024 * 1024;

/// How rules are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadOptions {
    /// What happens to an action that no terminal rule decides.
    pub default: DefaultDecision,
}

/// Reads all rule files of `directory`. Blocks on the file system.
///
/// # Errors
/// [`LoadError`] with every problem that was found.
pub fn load_directory(directory: &Path, options: LoadOptions) -> Result<RuleSet, LoadError> {
    load_counted(directory, options).map(|(set, _)| set)
}

/// [`load_directory`], and the number of files.
pub(crate) fn load_counted(directory: &Path, options: LoadOptions) -> Result<(RuleSet, usize), LoadError> {
    let files = rule_files(directory).map_err(|error| LoadError {
        problems: vec![Problem::of_file(directory, format!("cannot be listed: {error}"))],
    })?;
    if files.len() > FILES_MAX {
        let reason = format!("has {} rule files; at most {FILES_MAX} are read", files.len());
        return Err(LoadError { problems: vec![Problem::of_file(directory, reason)] });
    }
    let mut problems = Vec::new();
    let mut texts = Vec::new();
    for file in files {
        match read_bounded(&file) {
            Ok(text) => texts.push((file, text)),
            Err(error) => problems.push(Problem::of_file(file, format!("cannot be read: {error}"))),
        }
    }
    let count = texts.len();
    assemble(texts, problems, options).map(|set| (set, count))
}

/// Makes a rule set from texts, each with the name that problems shall be reported under.
///
/// # Errors
/// [`LoadError`] with every problem that was found.
pub fn load_text(texts: Vec<(PathBuf, String)>, options: LoadOptions) -> Result<RuleSet, LoadError> {
    assemble(texts, Vec::new(), options)
}

fn assemble(
    texts: Vec<(PathBuf, String)>,
    mut problems: Vec<Problem>,
    options: LoadOptions,
) -> Result<RuleSet, LoadError> {
    let mut rules = Vec::new();
    for result in parse_all(&texts) {
        match result {
            Ok(parsed) => rules.extend(parsed),
            Err(found) => problems.extend(found),
        }
    }
    problems.extend(duplicate_names(&rules));
    problems.extend(too_many(&rules));
    if !problems.is_empty() {
        return Err(LoadError { problems });
    }
    Ok(RuleSet::new(rules, options.default))
}

/// Parses every text, on a stack that is large enough for the deepest one.
///
/// Reading a condition recurses through serde's generated code, with frames of more than 100 KiB per level in an
/// unoptimised build: the usual 2 MiB of a thread would end before the bound on depth is reached.
fn parse_all(texts: &[(PathBuf, String)]) -> Vec<Result<Vec<Rule>, Vec<Problem>>> {
    let parse = || texts.iter().map(|(name, text)| file::parse(name, text)).collect();
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("rules".into()).stack_size(STACK_BYTES).spawn_scoped(scope, parse);
        match thread.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(results)) => results,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(error) => {
                let reason = format!("cannot be parsed, since no thread can be started: {error}");
                texts.iter().map(|(name, _)| Err(vec![Problem::of_file(name, reason.as_str())])).collect()
            }
        }
    })
}

fn rule_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        // A link that leads nowhere stays in the list, so that reading it reports the problem.
        let regular = fs::metadata(&path).map_or(true, |metadata| metadata.is_file());
        if yaml && !hidden && regular {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_bounded(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

fn duplicate_names(rules: &[Rule]) -> Vec<Problem> {
    let mut first: HashMap<&str, &Rule> = HashMap::new();
    let mut problems = Vec::new();
    for rule in rules {
        match first.get(&*rule.name) {
            None => {
                first.insert(&rule.name, rule);
            }
            Some(other) => problems.push(Problem {
                file: rule.file.clone(),
                line: Some(rule.line),
                column: Some(1),
                reason: format!("the name `{}` is taken by {}:{}", rule.name, other.file.display(), other.line),
            }),
        }
    }
    problems
}

fn too_many(rules: &[Rule]) -> Option<Problem> {
    let last = rules.last()?;
    let throttles = rules.iter().filter(|rule| matches!(rule.effect, Effect::Throttle { .. })).count();
    if rules.len() > RULES_MAX {
        let reason = format!("with this file there are {} rules; at most {RULES_MAX}", rules.len());
        return Some(Problem::of_file(last.file.clone(), reason));
    }
    (throttles > THROTTLE_RULES_MAX).then(|| {
        let reason = format!("with this file there are {throttles} throttle rules; at most {THROTTLE_RULES_MAX}");
        Problem::of_file(last.file.clone(), reason)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{FILE_BYTES_MAX, LoadOptions, RULES_MAX, load_directory, load_text};

    fn names(directory: &tempfile::TempDir) -> Vec<String> {
        let set = load_directory(directory.path(), LoadOptions::default()).expect("valid rules");
        set.rules().iter().map(|rule| rule.name.to_string()).collect()
    }

    fn report(directory: &tempfile::TempDir) -> String {
        load_directory(directory.path(), LoadOptions::default()).expect_err("has problems").to_string()
    }

    fn write(directory: &tempfile::TempDir, file: &str, text: &str) {
        fs::write(directory.path().join(file), text).expect("writable");
    }

    #[test]
    fn files_are_taken_in_name_order_and_others_are_left_alone() {
        let directory = tempfile::tempdir().expect("temporary directory");
        write(&directory, "20-b.yml", "rules: [{ name: b, action: allow }]");
        write(&directory, "10-a.yaml", "rules: [{ name: a, action: allow }]");
        write(&directory, ".30-hidden.yaml", "not: rules");
        write(&directory, "notes.txt", "not: rules");
        fs::create_dir(directory.path().join("sub.yaml")).expect("writable");
        assert_eq!(names(&directory), ["a", "b"]);
    }

    #[test]
    fn problems_of_all_files_are_in_one_report() {
        let directory = tempfile::tempdir().expect("temporary directory");
        write(&directory, "1.yaml", "rules: [{ name: a, action: nothing }]");
        write(&directory, "2.yaml", "rules: [{ name: b, action: allow }]");
        write(&directory, "3.yaml", "rulez: []");
        write(&directory, "4.yaml", &" ".repeat(usize::try_from(FILE_BYTES_MAX).expect("small") + 1));
        let report = report(&directory);
        for part in ["1.yaml:1:", "3.yaml:1:", "did you mean `rules`?", "4.yaml: cannot be read: larger than"] {
            assert!(report.contains(part), "{part} in {report}");
        }
    }

    #[test]
    fn a_name_used_in_two_files_is_refused_with_both_places() {
        let directory = tempfile::tempdir().expect("temporary directory");
        write(&directory, "1.yaml", "rules:\n  - { name: same, action: allow }\n");
        write(&directory, "2.yaml", "rules:\n\n  - { name: same, action: deny }\n");
        let report = report(&directory);
        assert!(report.contains("2.yaml:3:1: the name `same` is taken by"), "{report}");
        assert!(report.contains("1.yaml:2"), "{report}");
    }

    #[test]
    fn a_missing_directory_is_an_error_and_an_empty_one_is_not() {
        let directory = tempfile::tempdir().expect("temporary directory");
        assert!(names(&directory).is_empty());
        let missing = directory.path().join("absent");
        let error = load_directory(&missing, LoadOptions::default()).expect_err("missing");
        assert!(error.to_string().contains("absent: cannot be listed"), "{error}");
    }

    #[test]
    fn conditions_nested_too_deeply_are_refused_without_exhausting_the_stack() {
        let load = |depth: usize| {
            let condition = "{ not: ".repeat(depth) + "{ field: tenant, eq: x }" + &" }".repeat(depth);
            let text = format!("rules: [{{ name: a, condition: {condition}, action: deny }}]");
            load_text(vec![("deep.yaml".into(), text)], LoadOptions::default())
        };
        assert!(load(15).is_ok());
        let error = load(16).expect_err("too deep");
        assert!(error.to_string().contains("nested deeper than 16"), "{error}");
        for depth in [40, 10_000] {
            assert!(load(depth).is_err(), "{depth}");
        }
    }

    #[test]
    fn number_of_rules_is_bounded() {
        let rules: String = (0..=RULES_MAX).map(|n| format!("  - {{ name: r{n}, action: allow }}\n")).collect();
        let texts = vec![("many.yaml".into(), format!("rules:\n{rules}"))];
        let error = load_text(texts, LoadOptions::default()).expect_err("too many");
        assert!(error.to_string().contains("at most 2000"), "{error}");
    }
}
