//! `cargo xtask bench size`: how long the server takes to build with each driver alone, and how large it becomes.
//!
//! Each row is a release build from nothing in a folder of its own, which is removed afterwards: a minute or several on two processors,
//! and some gigabytes of disk while it lasts. The times say as much about the machine as about the code, so nothing is compared with
//! them; the table goes into `docs/performance.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Deserialize;
use tempfile::TempDir;

use crate::Failure;
use crate::interrupt::Interrupt;
use crate::process::{self, NO_LIMIT};
use crate::workspace::{Workspace, cargo};

#[derive(Args)]
pub(crate) struct SizeArguments {
    /// Only this row: default, memory, redis, postgres, dynamodb or all
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

/// What is built: a name, and arguments of cargo that choose features.
struct Build {
    name: &'static str,
    arguments: &'static [&'static str],
}

const BUILDS: &[Build] = &[
    Build { name: "default", arguments: &[] },
    Build { name: "memory", arguments: &["--no-default-features", "--features", "memory"] },
    Build { name: "redis", arguments: &["--no-default-features", "--features", "redis"] },
    Build { name: "postgres", arguments: &["--no-default-features", "--features", "postgres"] },
    Build { name: "dynamodb", arguments: &["--no-default-features", "--features", "dynamodb"] },
    Build { name: "all", arguments: &["--all-features"] },
];

const PACKAGE: &str = "acteon-server";

/// What is said of one build.
struct Measured {
    crates: usize,
    time: Duration,
    /// As it was linked, with what tells panics their lines.
    linked_bytes: u64,
    stripped_bytes: u64,
}

/// Builds the rows and prints each when it is there. `false` means that one could not be built.
pub(crate) fn run(arguments: &SizeArguments, workspace: &Workspace, interrupt: &Interrupt) -> Result<bool, Failure> {
    let builds = chosen(arguments.only.as_deref())?;
    println!("| features | crates | time of a release build | size | without symbols |");
    println!("|---|---:|---:|---:|---:|");
    for build in builds {
        match build.measure(workspace, interrupt)? {
            Some(measured) => println!("{}", measured.row(build.name)),
            None => return Ok(false),
        }
    }
    Ok(true)
}

fn chosen(name: Option<&str>) -> Result<Vec<&'static Build>, Failure> {
    let chosen: Vec<_> = BUILDS.iter().filter(|build| name.is_none_or(|name| build.name == name)).collect();
    if chosen.is_empty() {
        let names: Vec<_> = BUILDS.iter().map(|build| build.name).collect();
        return Err(Failure(format!(
            "no build is called {}; there are: {}",
            name.unwrap_or_default(),
            names.join(", ")
        )));
    }
    Ok(chosen)
}

impl Build {
    /// Builds it from nothing; `None` when that failed, which cargo has explained.
    fn measure(&self, workspace: &Workspace, interrupt: &Interrupt) -> Result<Option<Measured>, Failure> {
        // Beside the usual output: a temporary folder may be in memory, which this does not fit into.
        fs::create_dir_all(&workspace.target)?;
        let target = TempDir::with_prefix_in("size-", &workspace.target)?;
        let mut command = cargo();
        command.args([
            "build",
            "--release",
            "--locked",
            "--message-format=json-render-diagnostics",
            "--package",
            PACKAGE,
        ]);
        command.args(self.arguments).arg("--target-dir").arg(target.path()).current_dir(&workspace.root);
        let (mut packages, begin) = (BTreeSet::new(), Instant::now());
        let status =
            process::run_by_line(&mut command, interrupt, NO_LIMIT, |line| packages.extend(built_package(line)))?;
        let time = begin.elapsed();
        if !status.success() {
            return Ok(None);
        }
        let program = target.path().join("release").join(PACKAGE);
        let stripped_bytes = stripped_bytes(&program, target.path())?;
        Ok(Some(Measured { crates: packages.len(), time, linked_bytes: fs::metadata(program)?.len(), stripped_bytes }))
    }
}

/// The package that a message of cargo says was built.
fn built_package(line: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Message {
        reason: String,
        package_id: Option<String>,
    }
    let message: Message = serde_json::from_str(line).ok()?;
    message.package_id.filter(|_| message.reason == "compiler-artifact")
}

/// The size of the program without symbols. `strip` comes with the linker that has just linked it.
fn stripped_bytes(program: &Path, folder: &Path) -> Result<u64, Failure> {
    let stripped = folder.join("stripped");
    let status = Command::new("strip").arg("-o").arg(&stripped).arg(program).status();
    match status {
        Ok(status) if status.success() => Ok(fs::metadata(stripped)?.len()),
        Ok(status) => Err(Failure(format!("strip ended with {status}"))),
        Err(error) => Err(Failure(format!("cannot run strip: {error}"))),
    }
}

impl Measured {
    fn row(&self, name: &str) -> String {
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        let Self { crates, time, linked_bytes, stripped_bytes } = self;
        let (linked, stripped) = (mib(*linked_bytes), mib(*stripped_bytes));
        format!("| {name} | {crates} | {} s | {linked} | {stripped} |", time.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::{BUILDS, Measured, built_package, chosen};
    use crate::workspace::Workspace;

    #[test]
    fn every_driver_of_the_server_has_a_row() {
        let workspace = Workspace::load().unwrap();
        let server = workspace.packages.iter().find(|package| package.name == super::PACKAGE).unwrap();
        let rows: BTreeSet<&str> = BUILDS.iter().map(|build| build.name).collect();
        for feature in &server.features {
            assert!(rows.contains(feature.as_str()), "no row builds the server with {feature}");
        }
    }

    #[test]
    fn an_unknown_row_is_refused_with_the_known_names() {
        let failure = chosen(Some("rdis")).err().unwrap();
        assert!(failure.0.contains("rdis") && failure.0.contains("redis"), "{}", failure.0);
        assert_eq!(chosen(Some("all")).unwrap().len(), 1);
    }

    #[test]
    fn only_what_was_compiled_counts_as_a_package() {
        let built = r#"{"reason":"compiler-artifact","package_id":"a 1.0"}"#;
        assert_eq!(built_package(built).as_deref(), Some("a 1.0"));
        assert_eq!(built_package(r#"{"reason":"build-script-executed","package_id":"a 1.0"}"#), None);
        assert_eq!(built_package(r#"{"reason":"build-finished","success":true}"#), None);
    }

    #[test]
    fn a_row_has_sizes_in_mebibytes() {
        let (linked_bytes, stripped_bytes) = (3 << 20, 3 << 19);
        let measured = Measured { crates: 7, time: Duration::from_millis(61_900), linked_bytes, stripped_bytes };
        assert_eq!(measured.row("memory"), "| memory | 7 | 61 s | 3.0 MiB | 1.5 MiB |");
    }
}
