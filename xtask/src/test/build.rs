//! Builds the test programs of all packages at once.
//!
//! Building package by package would choose features package by package, and compile half of the dependencies again for each.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::suites::Suite;
use crate::Failure;
use crate::interrupt::Interrupt;
use crate::process::run_by_line;
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

/// Features that tests do not want. This one brings a Docker client, which only the machines without redis-server need.
const LEFT_OUT: [(&str, &str); 1] = [("acteon-test-support", "containers")];

/// Builds and returns the test programs of `suites`.
///
/// A whole run builds the workspace. A narrowed one builds just its packages: on a clean clone that is much less to wait for.
pub(crate) fn test_programs(
    workspace: &Workspace,
    suites: &[Suite],
    is_narrowed: bool,
    interrupt: &Interrupt,
) -> Result<Vec<TestProgram>, Failure> {
    let wanted = |package: &&Package| {
        suites
            .iter()
            .any(|suite| suite.packages.contains(&package.name))
    };
    let packages: Vec<Package> = workspace.packages.iter().filter(wanted).cloned().collect();
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    let mut command = cargo();
    command.args([
        "test",
        "--no-run",
        "--message-format",
        "json-render-diagnostics",
    ]);
    if is_narrowed {
        command.args(
            packages
                .iter()
                .flat_map(|package| ["--package", &package.name]),
        );
    } else {
        command.arg("--workspace");
    }
    command
        .args(features(&packages))
        .current_dir(&workspace.root);
    let mut programs = Vec::new();
    let status = run_by_line(&mut command, interrupt, |line| {
        programs.extend(parse_artifact(line, workspace));
    })?;
    if !status.success() {
        return Err(Failure("the tests do not build".to_owned()));
    }
    // Cargo reports them as they are finished; runs are easier to compare in a fixed order, unit tests first.
    programs.sort_by_cached_key(|program| {
        (
            program.folder.clone(),
            program.is_integration,
            program.executable.clone(),
        )
    });
    Ok(programs)
}

/// The arguments that switch on every feature of these packages, except those left out.
pub(crate) fn features(packages: &[Package]) -> Vec<String> {
    packages
        .iter()
        .flat_map(|package| {
            package
                .features
                .iter()
                .map(move |feature| (package.name.as_str(), feature.as_str()))
        })
        .filter(|(_, feature)| *feature != "default")
        .filter(|named| !LEFT_OUT.contains(named))
        .map(|(package, feature)| format!("--features={package}/{feature}"))
        .collect()
}

/// The test program that a line of cargo's JSON announces, if it announces one.
fn parse_artifact(line: &str, workspace: &Workspace) -> Option<TestProgram> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?;
    let package = workspace
        .packages
        .iter()
        .find(|package| workspace.root.join(&package.folder) == folder)?;
    Some(TestProgram {
        package: package.name.clone(),
        folder: folder.to_owned(),
        executable: PathBuf::from(message["executable"].as_str()?),
        is_integration: message["target"]["kind"][0] == "test",
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::{TestProgram, features, parse_artifact};
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
        Workspace {
            root: PathBuf::from("/w"),
            packages: vec![package, support],
        }
    }

    fn artifact(is_test: bool) -> String {
        json!({
            "reason": "compiler-artifact",
            "manifest_path": "/w/crates/state/Cargo.toml",
            "target": {"kind": ["test"]},
            "profile": {"test": is_test},
            "executable": "/w/target/debug/deps/config-1",
        })
        .to_string()
    }

    #[test]
    fn a_test_program_is_recognised() {
        let expected = TestProgram {
            package: "acteon-state".to_owned(),
            folder: PathBuf::from("/w/crates/state"),
            executable: PathBuf::from("/w/target/debug/deps/config-1"),
            is_integration: true,
        };
        assert_eq!(
            parse_artifact(&artifact(true), &workspace()),
            Some(expected)
        );
    }

    #[test]
    fn other_artifacts_and_other_lines_are_passed_over() {
        assert_eq!(parse_artifact(&artifact(false), &workspace()), None);
        assert_eq!(
            parse_artifact(r#"{"reason":"build-finished"}"#, &workspace()),
            None
        );
        assert_eq!(parse_artifact("not json", &workspace()), None);
    }

    #[test]
    fn every_feature_is_on_except_the_docker_client() {
        let expected = ["memory", "redis"].map(|name| format!("--features=acteon-state/{name}"));
        let expected = [
            &expected[..],
            &["--features=acteon-test-support/proxy".to_owned()],
        ]
        .concat();
        assert_eq!(features(&workspace().packages), expected);
    }
}
