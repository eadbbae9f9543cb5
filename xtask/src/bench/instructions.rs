//! `cargo xtask bench instructions`: counts what hot paths execute, and compares it with the counts in the repository.
//!
//! # What it promises
//! A path that executes more than it did, beyond a tolerance, fails the run, which says by how much and how to accept it. So does a path
//! without a figure and a figure without a path: what is not compared is not passed. What executes less is reported, and passes.
//!
//! # Why instructions
//! They can be repeated: two runs differ by two in a hundred at most, most paths by less than one in a thousand, on any machine, busy
//! or not, where times differ by a third. They do not see what waits for memory or for another processor; the other suites are for that.
//!
//! # How it works
//! `crates/hot-paths` is built in a profile of its own. Each path runs alone under callgrind, some at the same time. Valgrind shows programs
//! a processor of its own making, the same on all machines that have AVX2, so libraries that choose their code by processor choose
//! the same. The counts still depend on the compiler, and a little on the C library: the file says which compiler, and under another one
//! the tolerance is wider.

mod callgrind;
mod counts;

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use clap::Args;

use self::counts::{Counts, Toolchain};
use crate::Failure;
use crate::interrupt::Interrupt;
use crate::process;
use crate::services::COUNTING_TOOLS;
use crate::workspace::{Workspace, cargo};

#[derive(Args)]
pub(crate) struct InstructionsArguments {
    /// Only paths whose name has this in it, such as store or command-get
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Keeps what was counted, instead of comparing with it
    #[arg(long)]
    accept: bool,
}

const PACKAGE: &str = "acteon-hot-paths";
/// In the workspace's manifest.
const PROFILE: &str = "instructions";
/// From the root of the repository.
const COUNTS_FILE: &str = "crates/hot-paths/counts.json";

/// Counts, and compares or keeps. `false` means that a path executes more than is tolerated, or that there is nothing to compare with.
pub(crate) fn run(
    arguments: &InstructionsArguments,
    workspace: &Workspace,
    interrupt: &Interrupt,
) -> Result<bool, Failure> {
    COUNTING_TOOLS.iter().try_for_each(|tool| tool.require(interrupt))?;
    let mut build = cargo();
    build.args(["build", "--profile", PROFILE, "--package", PACKAGE]);
    if !process::run(build.current_dir(&workspace.root), interrupt)?.success() {
        return Ok(false);
    }
    let counter = Counter::new(workspace)?;
    let names: Vec<String> =
        counter.ask("list")?.lines().filter(|name| is_chosen(arguments, name)).map(str::to_owned).collect();
    if names.is_empty() {
        return Err(Failure(format!("no path has {} in its name", arguments.only.as_deref().unwrap_or_default())));
    }
    let counted = counter.count(&names, interrupt)?;
    let (toolchain, file) = (Toolchain::ask()?, workspace.root.join(COUNTS_FILE));
    let mut kept = Counts::load(&file)?;
    if arguments.accept {
        kept.accept(&toolchain, counted, arguments.only.is_some())?;
        fs::write(&file, kept.to_json()?)?;
        println!("kept in {COUNTS_FILE}: say in the commit why they changed");
        return Ok(true);
    }
    let comparison = kept.compare(&toolchain, &counted, |name| is_chosen(arguments, name));
    print!("{comparison}");
    println!("\nWhere the instructions go: callgrind_annotate {}", counter.output("NAME").display());
    Ok(comparison.is_success())
}

fn is_chosen(arguments: &InstructionsArguments, name: &str) -> bool {
    arguments.only.as_ref().is_none_or(|part| name.contains(part))
}

/// The program with the paths, and where callgrind writes.
struct Counter {
    program: PathBuf,
    folder: PathBuf,
}

impl Counter {
    fn new(workspace: &Workspace) -> Result<Self, Failure> {
        let built = workspace.target.join(PROFILE);
        let folder = built.join("callgrind");
        fs::create_dir_all(&folder)?;
        Ok(Self { program: built.join(PACKAGE), folder })
    }

    /// What the program says when called like this.
    fn ask(&self, argument: &str) -> Result<String, Failure> {
        let output = Command::new(&self.program).arg(argument).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(Failure(format!("{} {argument} ended with {}", self.program.display(), output.status)));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The instructions of one operation of each path.
    fn count(&self, names: &[String], interrupt: &Interrupt) -> Result<BTreeMap<String, f64>, Failure> {
        let operations: f64 = self.ask("operations")?.trim().parse()?;
        let (waiting, counted) = (Mutex::new(names.iter()), Mutex::new(BTreeMap::new()));
        let work = || -> Result<(), Failure> {
            loop {
                let Some(name) = lock(&waiting).next() else { return Ok(()) };
                let total = callgrind::count(&self.program, name, &self.output(name), interrupt)?;
                lock(&counted).insert(name.clone(), counts::rounded(total as f64 / operations));
            }
        };
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
        Ok(counted.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn output(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.out"))
    }
}

/// A worker that panicked is told by its end; what the others have counted is as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
