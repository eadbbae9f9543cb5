//! Builds the test programs of all packages at once.
//!
//! Building package by package would choose features package by package, and compile half of the dependencies again for each.

use std::borrow::Cow;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::suites::Suite;
use crate::Failure;
use crate::interrupt::Interrupt;
use crate::process::{NO_LIMIT, run_by_line};
use crate::workspace::{Package, Workspace, cargo};

/// One executable with tests.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TestProgram {
    pub(crate) package: String,
    /// The package's folder, in which the program expects to run.
    pub(crate) folder: PathBuf,
    pub(crate) executable: PathBuf,
    /// Made from `tests/`, not from the unit tests beside the code.
    pub(crate) is_integration: bool,
}

/// Features that tests do not want. This one brings a Docker client, which only the machines without the servers' programs need.
const LEFT_OUT: [(&str, &str); 1] = [("acteon-test-support", "containers")];

impl TestProgram {
    /// The file's name, which says target and build.
    pub(crate) fn name(&self) -> Cow<'_, str> {
        let path = self.executable.as_path();
        path.file_name().unwrap_or(path.as_os_str()).to_string_lossy()
    }
}

/// What a build made.
#[derive(Debug, Default)]
pub(crate) struct Built {
    pub(crate) programs: Vec<TestProgram>,
    /// The dispatch server, for the suites that start it.
    pub(crate) server: Option<PathBuf>,
    /// Other programs, which tests of their package start.
    pub(crate) binaries: Vec<PathBuf>,
}

const SERVER: &str = "acteon-server";

/// Builds the test programs of `suites`, and the dispatch server if one of them starts it.
///
/// A whole run builds the workspace. A narrowed one builds just its packages: on a clean clone that is much less to wait for.
pub(crate) fn build(
    workspace: &Workspace,
    suites: &[Suite],
    is_narrowed: bool,
    interrupt: &Interrupt,
) -> Result<Built, Failure> {
    let mut built = Built::default();
    let wanted = |package: &&Package| suites.iter().any(|suite| suite.packages.contains(&package.name));
    let packages: Vec<Package> = workspace.packages.iter().filter(wanted).cloned().collect();
    if packages.is_empty() {
        return Ok(built);
    }
    let mut command = cargo();
    command.args(["test", "--no-run"]);
    if is_narrowed {
        command.args(packages.iter().map(|package| format!("--package={}", package.name)));
    } else {
        command.arg("--workspace");
    }
    command.args(features(&packages));
    run_cargo(command, workspace, interrupt, &mut built)?;
    // The whole build makes the server only if its own package has integration tests.
    if built.server.is_none() && suites.iter().any(|suite| suite.starts_server) {
        build_server(workspace, interrupt, &mut built)?;
    }
    // Cargo reports them as they are finished; runs are easier to compare in a fixed order, unit tests first.
    built
        .programs
        .sort_by_cached_key(|program| (program.folder.clone(), program.is_integration, program.executable.clone()));
    Ok(built)
}

fn build_server(workspace: &Workspace, interrupt: &Interrupt, built: &mut Built) -> Result<(), Failure> {
    let server: Vec<Package> = workspace.packages.iter().filter(|package| package.name == SERVER).cloned().collect();
    let mut command = cargo();
    command.args(["build", "--package", SERVER]).args(features(&server));
    run_cargo(command, workspace, interrupt, built)
}

/// Builds the tests of one package, the programs of it that they start, and the dispatch server.
pub(crate) fn build_package(workspace: &Workspace, package: &str, interrupt: &Interrupt) -> Result<Built, Failure> {
    let mut built = Built::default();
    let mut command = cargo();
    command.args(["test", "--no-run", "--package", package]);
    run_cargo(command, workspace, interrupt, &mut built)?;
    build_server(workspace, interrupt, &mut built)?;
    Ok(built)
}

/// Builds the engine's unit tests with locks that a model checker decides about.
pub(crate) fn interleavings(workspace: &Workspace, interrupt: &Interrupt) -> Result<Vec<TestProgram>, Failure> {
    let mut command = cargo();
    // Without the feature `commands`: locking needs none of it, and the interpreter of scripts would take half of the time.
    // In a folder of its own, as a change of flags would have everything built anew, each time.
    command
        .args(["test", "--no-run", "--lib", "--package=acteon-engine", "--target-dir"])
        .arg(workspace.target.join("shuttle"));
    let flags = env::var("RUSTFLAGS").unwrap_or_default();
    command.env("RUSTFLAGS", format!("{flags} --cfg shuttle"));
    let mut built = Built::default();
    run_cargo(command, workspace, interrupt, &mut built)?;
    Ok(built.programs)
}

/// Runs a cargo command that builds, and notes what it made.
fn run_cargo(
    mut command: Command,
    workspace: &Workspace,
    interrupt: &Interrupt,
    built: &mut Built,
) -> Result<(), Failure> {
    command.args(["--message-format", "json-render-diagnostics"]).current_dir(&workspace.root);
    let status = run_by_line(&mut command, interrupt, NO_LIMIT, |line| built.note(line, workspace))?;
    if !status.success() {
        return Err(Failure("the tests do not build".to_owned()));
    }
    Ok(())
}

impl Built {
    /// Keeps what a line of cargo's JSON announces, if it is of interest.
    fn note(&mut self, line: &str, workspace: &Workspace) {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            return;
        };
        if message["reason"] != "compiler-artifact" {
            return;
        }
        if message["profile"]["test"] == true {
            self.programs.extend(test_program(&message, workspace));
        } else if message["target"]["kind"][0] == "bin" {
            let executable = message["executable"].as_str().map(PathBuf::from);
            if message["target"]["name"] == SERVER {
                self.server = executable;
            } else {
                self.binaries.extend(executable);
            }
        }
    }
}

/// The arguments that switch on every feature of these packages, except those left out.
pub(crate) fn features(packages: &[Package]) -> Vec<String> {
    packages
        .iter()
        .flat_map(|package| package.features.iter().map(move |feature| (package.name.as_str(), feature.as_str())))
        .filter(|(_, feature)| *feature != "default")
        .filter(|named| !LEFT_OUT.contains(named))
        .map(|(package, feature)| format!("--features={package}/{feature}"))
        .collect()
}

fn test_program(artifact: &Value, workspace: &Workspace) -> Option<TestProgram> {
    let folder = Path::new(artifact["manifest_path"].as_str()?).parent()?;
    let package = workspace.packages.iter().find(|package| workspace.root.join(&package.folder) == folder)?;
    Some(TestProgram {
        package: package.name.clone(),
        folder: folder.to_owned(),
        executable: PathBuf::from(artifact["executable"].as_str()?),
        is_integration: artifact["target"]["kind"][0] == "test",
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::{Built, TestProgram, features};
    use crate::workspace::{Package, Workspace};

    fn workspace() -> Workspace {
        let package = Package {
            name: "acteon-state".to_owned(),
            folder: "crates/state".to_owned(),
            features: ["default", "memory", "redis"].map(str::to_owned).into(),
            ..Package::default()
        };
        let support = Package {
            name: "acteon-test-support".to_owned(),
            folder: "tests/support".to_owned(),
            features: ["containers", "proxy"].map(str::to_owned).into(),
            ..Package::default()
        };
        Workspace { root: PathBuf::from("/w"), target: PathBuf::from("/w/target"), packages: vec![package, support] }
    }

    fn noted(kind: &str, name: &str, is_test: bool) -> Built {
        let artifact = json!({
            "reason": "compiler-artifact",
            "manifest_path": "/w/crates/state/Cargo.toml",
            "target": {"kind": [kind], "name": name},
            "profile": {"test": is_test},
            "executable": "/w/target/debug/it",
        });
        let mut built = Built::default();
        built.note(&artifact.to_string(), &workspace());
        built
    }

    #[test]
    fn a_test_program_is_recognised() {
        let expected = TestProgram {
            package: "acteon-state".to_owned(),
            folder: PathBuf::from("/w/crates/state"),
            executable: PathBuf::from("/w/target/debug/it"),
            is_integration: true,
        };
        assert_eq!(noted("test", "config", true).programs, [expected]);
        assert!(!noted("lib", "state", true).programs[0].is_integration);
    }

    #[test]
    fn the_server_is_recognised_and_not_taken_for_its_unit_tests() {
        let server = noted("bin", "acteon-server", false).server;
        assert_eq!(server, Some(PathBuf::from("/w/target/debug/it")));
        assert_eq!(noted("bin", "acteon-server", true).server, None);
        let other = noted("bin", "worker", false);
        assert_eq!((other.server, other.binaries), (None, vec![PathBuf::from("/w/target/debug/it")]));
    }

    #[test]
    fn other_artifacts_and_other_lines_are_passed_over() {
        let mut built = noted("lib", "state", false);
        built.note(r#"{"reason":"build-finished"}"#, &workspace());
        built.note("not json", &workspace());
        assert!(built.programs.is_empty() && built.server.is_none());
    }

    #[test]
    fn every_feature_is_on_except_the_docker_client() {
        let expected = ["memory", "redis"].map(|name| format!("--features=acteon-state/{name}"));
        let expected = [&expected[..], &["--features=acteon-test-support/proxy".to_owned()]].concat();
        assert_eq!(features(&workspace().packages), expected);
    }
}
