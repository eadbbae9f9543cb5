//! The rules in force: one immutable set at a time, replaced as a whole.
//!
//! # What it promises
//! [`Rules::current`] never waits, not even while a reload reads files: it hands out the set in force, which stays
//! valid for as long as the caller keeps it. A reload swaps the set in one step after everything was checked. A
//! reload that fails changes nothing, and is remembered for [`Rules::last_failure`] until one succeeds. One that finds no file
//! at all where there were rules has failed.
//!
//! # How it works
//! The set sits behind an `ArcSwap`. Reloads are serialised by a mutex, so that generations count up and a slow old
//! reload cannot replace a newer one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;

use crate::rules::load::{LoadOptions, load_counted, load_directory};
use crate::rules::problem::{LoadError, Problem};
use crate::rules::set::RuleSet;

/// A handle to the rules in force, shared by evaluations, reloads and the watcher.
#[derive(Debug)]
pub struct Rules {
    /// Absent for rules that were given as a set, and never change.
    directory: Option<PathBuf>,
    options: LoadOptions,
    current: ArcSwap<RuleSet>,
    last_failure: ArcSwapOption<ReloadFailure>,
    /// Held while files are read, by blocking code only; evaluations never take it.
    reloading: Mutex<()>,
}

/// A reload that failed.
#[derive(Debug, Clone, Serialize)]
pub struct ReloadFailure {
    /// When.
    pub at: Timestamp,
    /// What was wrong with the files.
    pub error: LoadError,
}

impl Rules {
    /// Reads the rules of `directory` for the first time. Blocks on the file system.
    ///
    /// # Errors
    /// [`LoadError`] with every problem that was found.
    pub fn load(directory: impl Into<PathBuf>, options: LoadOptions) -> Result<Self, LoadError> {
        let directory = directory.into();
        let set = load_directory(&directory, options)?;
        Ok(Self::new(Some(directory), options, set))
    }

    /// Rules that come from no directory, for an application that brings its own, or for none at all. A reload
    /// leaves them as they are.
    #[must_use]
    pub fn fixed(set: RuleSet) -> Self {
        let options = LoadOptions { default: set.default_decision() };
        Self::new(None, options, set)
    }

    fn new(directory: Option<PathBuf>, options: LoadOptions, set: RuleSet) -> Self {
        Self {
            directory,
            options,
            current: ArcSwap::from_pointee(set),
            last_failure: ArcSwapOption::empty(),
            reloading: Mutex::new(()),
        }
    }

    /// The set in force.
    #[must_use]
    pub fn current(&self) -> Arc<RuleSet> {
        self.current.load_full()
    }

    /// Reads the directory again and puts the new set in force. Blocks on the file system: call it through
    /// `spawn_blocking` from async code.
    ///
    /// # Errors
    /// [`LoadError`] with every problem that was found; the old set stays in force.
    pub fn reload(&self) -> Result<Arc<RuleSet>, LoadError> {
        let Some(directory) = &self.directory else {
            return Ok(self.current());
        };
        let _one_at_a_time = self.reloading.lock();
        match self.load_again(directory) {
            Ok(set) => {
                let set = Arc::new(set.after(self.current.load().generation()));
                self.current.store(Arc::clone(&set));
                self.last_failure.store(None);
                Ok(set)
            }
            Err(error) => {
                let failure = ReloadFailure { at: Timestamp::now(), error: error.clone() };
                self.last_failure.store(Some(Arc::new(failure)));
                Err(error)
            }
        }
    }

    /// Reads the directory, which must not have lost all of its files: that is an unmounted volume or half of a copy more
    /// often than a wish to let everything pass.
    fn load_again(&self, directory: &Path) -> Result<RuleSet, LoadError> {
        let (set, files) = load_counted(directory, self.options)?;
        if files == 0 && !self.current.load().rules().is_empty() {
            let reason = "has no rule files any more; to run without rules, leave a file with `rules: []`";
            return Err(LoadError { problems: vec![Problem::of_file(directory, reason)] });
        }
        Ok(set)
    }

    /// The last reload, if it failed.
    #[must_use]
    pub fn last_failure(&self) -> Option<Arc<ReloadFailure>> {
        self.last_failure.load_full()
    }

    /// The directory that the rules come from; absent for [`Rules::fixed`].
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Rules;
    use crate::rules::load::{LoadOptions, load_text};

    #[test]
    fn a_bad_file_leaves_the_rules_in_force_as_they_were() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = directory.path().join("a.yaml");
        fs::write(&file, "rules: [{ name: a, action: deny }]").expect("writable");
        let rules = Rules::load(directory.path(), LoadOptions::default()).expect("valid rules");
        assert_eq!(rules.current().generation(), 1);

        fs::write(&file, "rules: [{ name: a, action: denny }]").expect("writable");
        let error = rules.reload().expect_err("bad file");
        assert!(error.to_string().contains("a.yaml:1:"), "{error}");
        assert_eq!(rules.current().rules().len(), 1);
        assert_eq!(rules.current().generation(), 1);
        assert!(rules.last_failure().is_some());

        fs::write(&file, "rules: []").expect("writable");
        assert_eq!(rules.reload().expect("valid rules").generation(), 2);
        assert!(rules.current().rules().is_empty());
        assert!(rules.last_failure().is_none());
    }

    #[test]
    fn a_directory_that_lost_all_of_its_files_leaves_the_rules_in_force_as_they_were() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = directory.path().join("a.yaml");
        fs::write(&file, "rules: [{ name: a, action: deny }]").expect("writable");
        let rules = Rules::load(directory.path(), LoadOptions::default()).expect("valid rules");
        fs::remove_file(&file).expect("removable");
        let error = rules.reload().expect_err("nothing is left");
        assert!(error.to_string().contains("leave a file with `rules: []`"), "{error}");
        assert_eq!(rules.current().rules().len(), 1);
    }

    #[test]
    fn fixed_rules_stay_as_they_are() {
        let text = "rules: [{ name: a, action: deny }]".to_owned();
        let set = load_text(vec![("own.yaml".into(), text)], LoadOptions::default()).expect("valid rules");
        let rules = Rules::fixed(set);
        assert_eq!(rules.reload().expect("nothing to read").generation(), 1);
        assert_eq!(rules.current().rules().len(), 1);
    }

    #[test]
    fn a_set_in_use_survives_its_replacement() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = directory.path().join("a.yaml");
        fs::write(&file, "rules: [{ name: a, action: deny }]").expect("writable");
        let rules = Rules::load(directory.path(), LoadOptions::default()).expect("valid rules");
        let kept = rules.current();
        fs::write(&file, "rules: []").expect("writable");
        rules.reload().expect("no rules");
        assert_eq!(kept.rules().len(), 1);
        assert!(rules.current().rules().is_empty());
    }
}
