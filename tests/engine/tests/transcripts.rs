//! Replays every file under `tests/transcripts`: one test per file, named after it.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use acteon_engine_tests::candidate::candidate;
use acteon_engine_tests::endpoint::RealRedis;
use acteon_engine_tests::transcript::{record, replay};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../transcripts");
    let files = files(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    assert!(!files.is_empty(), "there are no transcripts in {}", folder.display());
    let trials = files.into_iter().map(|path| {
        let name = path.strip_prefix(&folder).unwrap_or(&path).with_extension("");
        Trial::test(name.to_string_lossy().into_owned(), move || check(&path))
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// Compares with a file, or writes it anew.
fn check(path: &Path) -> Result<(), Failed> {
    let text = fs::read_to_string(path)?;
    if env::var_os("ACTEON_RECORD_TRANSCRIPTS").is_some() {
        fs::write(path, record(&mut RealRedis::start()?, &text)?)?;
        return Ok(());
    }
    let differences = replay(candidate()?.as_mut(), &text)?;
    if differences.is_empty() { Ok(()) } else { Err(format!("{}\n{differences}", path.display()).into()) }
}

/// All transcripts, by family and name.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for family in fs::read_dir(folder)? {
        for file in fs::read_dir(family?.path())? {
            files.push(file?.path());
        }
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    Ok(files)
}
