//! Client libraries of other languages, and what is popular on top of them.

use std::path::{Path, PathBuf};

use libtest_mimic::Failed;

use crate::Case;
use crate::program::Program;
use crate::served::Served;

pub(crate) const CASES: &[(&str, Case)] = &[("libraries::python", python), ("libraries::node", node)];

/// redis-py, and the job queues huey and dramatiq.
fn python(served: &Served) -> Result<(), Failed> {
    let sources = sources("python");
    let libraries = tempfile::tempdir()?;
    let target = libraries.path().to_string_lossy().into_owned();
    // A folder of its own instead of a virtual environment, for which Debian wants one more package.
    let install =
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--target", &target];
    Program::new("python3", "python3-pip")?
        .args(install)
        .args(["--requirement", "requirements.txt"])
        .current_dir(&sources)
        .run()?;
    Program::new("python3", "python3-pip")?
        .args(["-B", "smoke.py", &served.host(), &served.port().to_string()])
        .env("PYTHONPATH", &target)
        .current_dir(&sources)
        .run()?;
    Ok(())
}

/// ioredis, node-redis, redlock, Bull and connect-redis.
fn node(served: &Served) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    // Node looks for libraries beside the program, and those are not to lie among our sources.
    for file in ["package.json", "package-lock.json", "smoke.mjs"] {
        std::fs::copy(sources("node").join(file), folder.path().join(file))?;
    }
    // Nothing of these needs to be compiled; their scripts would do it to be a little faster.
    Program::new("npm", "npm")?
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"])
        .current_dir(folder.path())
        .run()?;
    Program::new("node", "nodejs")?
        .args(["smoke.mjs", &served.host(), &served.port().to_string()])
        .current_dir(folder.path())
        .run()?;
    Ok(())
}

fn sources(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients").join(language)
}
