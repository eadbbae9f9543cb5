//! `acteon-server engine verify | import | export | backup | restore`: what is done with the directory of an engine from outside.
//!
//! # What they promise
//! The directory is locked meanwhile, so that none of them meddles with a running engine; only a backup may be made of one that runs. Import,
//! export, backup and restore write to a place that is new, and change nothing else; what they could not finish can be removed. Reports go to
//! stdout, reasons of failure to stderr, with exit code 1.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use acteon_engine::import::{Files as ImportFiles, ImportOptions, ImportReport, Importer, Manifest};
use acteon_engine::rdb::{FileFacts, Unsupported, write_file};
use acteon_engine::{Engine, EngineConfig, Instance, InstanceConfig};
use acteon_engine_disk::{BackupError, Files, OpenError, backup_of, repair, verify};
use acteon_state::core::clock::{Clock, SeededClock};

use crate::cli::EngineCommand;
use crate::start_error::StartError;

/// What a new directory begins with.
const DUMP: &str = "dump.rdb";
/// Databases of the instance that takes files over: as many as can be configured.
const DATABASES: usize = 1_024;
/// The file that is locked; it says nothing about the data.
const LOCK: &str = "lock";

/// Carries out one of them, and writes what came of it to `out`.
///
/// # Errors
/// [`StartError`] that says what to do.
pub fn run(command: &EngineCommand, out: &mut impl Write) -> Result<(), StartError> {
    match command {
        EngineCommand::Verify { dir, repair } => verify_directory(dir, *repair, out),
        EngineCommand::Import { from, into, skip_unsupported } => import(from, into, *skip_unsupported, out),
        EngineCommand::Export { dir, to } => export(dir, to, out),
        EngineCommand::Backup { dir, to } => backup(dir, to, out),
        EngineCommand::Restore { backup, into } => restore(backup, into, out),
    }
}

fn verify_directory(dir: &Path, mends: bool, out: &mut impl Write) -> Result<(), StartError> {
    let files = open(dir)?;
    if mends {
        let repaired = repair(&files).map_err(|error| cannot_use(dir, &error))?;
        for problem in &repaired.problems {
            print(out, &format!("was wrong: {problem}"))?;
        }
        for file in &repaired.kept_aside {
            print(out, &format!("{file}: kept aside, and does not count any more"))?;
        }
    }
    let report = verify(&files, Some(&engine())).map_err(|error| cannot_use(dir, &error))?;
    print(out, &report.to_string())?;
    if report.is_sound() {
        return Ok(());
    }
    let hint = if mends {
        "what is left cannot be mended: restore a backup"
    } else {
        "restore a backup, or run this with --repair, which keeps what comes before the damage and loses what comes after"
    };
    Err(StartError::because("the directory cannot be used as it is", dir.display().to_string()).with_hint(hint))
}

fn import(from: &Path, into: &Path, skips: bool, out: &mut impl Write) -> Result<(), StartError> {
    check_new(into)?;
    let engine = engine();
    let config = InstanceConfig { databases: DATABASES, ..InstanceConfig::default() };
    let instance = Instance::new(engine.clone(), config);
    let unsupported = if skips { Unsupported::Skip } else { Unsupported::Refuse };
    let mut importer = Importer::new(&instance, ImportOptions { unsupported, now_ms: now_ms() });
    print(out, &format!("reading {}", from.display()))?;
    let read = if from.is_dir() { read_directory(&mut importer, from) } else { read_file(&mut importer, from) };
    read.map_err(|reason| {
        let hint = "nothing was written; --skip-unsupported leaves out what the engine has not, such as streams";
        StartError::because("the files cannot be taken over", reason).with_hint(hint)
    })?;
    let report = importer.finish();
    create(into)?;
    let bytes = write_dump(&engine, &into.join(DUMP))?;
    describe_import(&report, out)?;
    let (file, dir) = (into.join(DUMP), into.display());
    print(out, &format!("{}: {bytes} bytes; start with [engine] dir = \"{dir}\" to use it", file.display()))
}

fn read_file(importer: &mut Importer<'_>, file: &Path) -> Result<(), String> {
    let name = file.display().to_string();
    let input = || File::open(file).map(BufReader::new).map_err(|error| format!("{name}: {error}"));
    let mut head = input()?;
    let is_dump = head.fill_buf().map_err(|error| format!("{name}: {error}"))?.starts_with(b"REDIS");
    // A dump may be the beginning of an append-only file; that it is called .aof tells.
    let is_log = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("aof"));
    let result =
        if is_dump && !is_log { importer.rdb(&name, input()?) } else { importer.append_only_file(&name, input()?) };
    result.map_err(|error| error.to_string())
}

/// The directory of a Redis, its `appendonlydir`, or a directory with a dump only. The append-only files are the newer ones.
fn read_directory(importer: &mut Importer<'_>, dir: &Path) -> Result<(), String> {
    let inner = dir.join("appendonlydir");
    let logs = if inner.is_dir() { inner } else { dir.to_owned() };
    if let Some(manifest) = manifest_in(&logs)? {
        let text = fs::read_to_string(&manifest).map_err(|error| format!("{}: {error}", manifest.display()))?;
        let parsed = Manifest::parse(&text).map_err(|error| format!("{}: {error}", manifest.display()))?;
        return importer.append_only_directory(&parsed, &Folder(logs)).map_err(|error| error.to_string());
    }
    for name in ["appendonly.aof", DUMP] {
        if dir.join(name).is_file() {
            return read_file(importer, &dir.join(name));
        }
    }
    Err(format!("{}: there is neither a manifest of append-only files nor {DUMP}", dir.display()))
}

fn manifest_in(dir: &Path) -> Result<Option<PathBuf>, String> {
    let entries = fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let is_manifest = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "manifest");
    Ok(paths.into_iter().find(is_manifest))
}

struct Folder(PathBuf);

impl ImportFiles for Folder {
    fn open(&self, name: &str) -> io::Result<Box<dyn BufRead + '_>> {
        Ok(Box::new(BufReader::new(File::open(self.0.join(name))?)))
    }
}

fn describe_import(report: &ImportReport, out: &mut impl Write) -> Result<(), StartError> {
    for dump in &report.dumps {
        let (version, keys) = (dump.version, dump.keys);
        print(out, &format!("RDB file of version {version}: {keys} keys"))?;
        let skipped = [
            ("streams", dump.streams),
            ("values of modules", dump.module_values),
            ("facts of modules", dump.module_facts),
            ("libraries of functions", dump.function_libraries),
            ("empty collections", dump.empty_collections),
        ];
        for (what, count) in skipped.into_iter().filter(|(_, count)| *count > 0) {
            print(out, &format!("skipped: {count} {what}"))?;
        }
    }
    print(out, &format!("{} commands carried out, {} expired keys left out", report.commands, report.expired))?;
    for (name, count) in &report.unknown_commands {
        print(out, &format!("skipped {count} times: {name}"))?;
    }
    if let Some(torn) = &report.torn {
        let (file, offset, bytes) = (&torn.file, torn.offset, torn.bytes);
        print(out, &format!("{file}, byte {offset}: the last {bytes} bytes were cut off by a crash, and left out"))?;
    }
    if let Some(refusal) = &report.first_refusal {
        print(out, &format!("{} commands were refused, the first one: {refusal}", report.refused_commands))?;
    }
    Ok(())
}

fn export(dir: &Path, to: &Path, out: &mut impl Write) -> Result<(), StartError> {
    if to.exists() {
        return Err(StartError::because("the file is there already", to.display().to_string())
            .with_hint("choose another name, or remove it"));
    }
    let (files, engine) = (open(dir)?, engine());
    let report = verify(&files, Some(&engine)).map_err(|error| cannot_use(dir, &error))?;
    if !report.is_sound() {
        return Err(StartError::because("the directory cannot be used as it is", report.to_string())
            .with_hint("`acteon-server engine verify DIR` says more"));
    }
    if report.files.iter().all(|file| file.file == DUMP) && !report.files.is_empty() {
        return Err(StartError::because("there is no journal yet", "the data are in dump.rdb: copy that"));
    }
    let bytes = write_dump(&engine, to)?;
    print(out, &format!("{}: {bytes} bytes, as of group {}", to.display(), report.position))
}

fn backup(dir: &Path, to: &Path, out: &mut impl Write) -> Result<(), StartError> {
    let backup = backup_of(dir, to).map_err(|error| {
        let failed = failed("there is no backup", dir, &error);
        match error {
            BackupError::Nothing => failed.with_hint("if there is a dump.rdb, it is a backup by itself: copy it"),
            BackupError::Damaged(_) => failed.with_hint("`acteon-server engine verify DIR` says more"),
            _ => failed,
        }
    })?;
    print(out, &format!("{}: {} bytes, as of group {}", to.display(), backup.bytes, backup.position))?;
    if backup.is_base_linked {
        print(out, "its base is the same file as that of the directory: copy the backup to another disk")?;
    }
    Ok(())
}

fn restore(backup: &Path, into: &Path, out: &mut impl Write) -> Result<(), StartError> {
    check_new(into)?;
    let report = verify(&open(backup)?, Some(&engine())).map_err(|error| cannot_use(backup, &error))?;
    if !report.is_sound() {
        return Err(StartError::because("the backup is damaged", report.to_string()).with_hint("choose an older one"));
    }
    create(into)?;
    let copied = copy_all(backup, into);
    copied.map_err(|error| failed("the backup cannot be copied", into, &error))?;
    let restored = verify(&open(into)?, Some(&engine())).map_err(|error| cannot_use(into, &error))?;
    print(out, &restored.to_string())?;
    print(out, &format!("start with [engine] dir = \"{}\" to use it", into.display()))
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name() != LOCK && entry.file_type()?.is_file() {
            let target = to.join(entry.file_name());
            let mut copy = create_private(&target)?;
            io::copy(&mut File::open(entry.path())?, &mut copy)?;
            copy.sync_all()?;
        }
    }
    File::open(to)?.sync_all()
}

/// Writes what the engine holds to a file, which is there as a whole or not at all.
fn write_dump(engine: &Engine, to: &Path) -> Result<u64, StartError> {
    // Of this process, so that two of them do not write to one file. What is there already is somebody's, and stays.
    let unfinished = to.with_extension(format!("{}.tmp", std::process::id()));
    let mut is_ours = false;
    let mut write = || -> io::Result<u64> {
        let mut file = BufWriter::new(create_private(&unfinished)?);
        is_ours = true;
        let snapshot = engine.cut(now_ms(), || ()).ok_or_else(|| io::Error::other("another snapshot runs"))?;
        let facts = FileFacts { created_at_s: now_ms() / 1_000, used_memory_bytes: engine.stats().bytes };
        let bytes = write_file(&facts, snapshot, &mut file)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&unfinished, to)?;
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()?;
        Ok(bytes)
    };
    let written = write();
    if written.is_err() && is_ours {
        // What is left of it is of no use.
        drop(fs::remove_file(&unfinished));
    }
    written.map_err(|error| failed("the file cannot be written", to, &error))
}

/// Creates a file for nobody else to read, like those of the directory. One that is there is an error.
fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.write(true).create_new(true).open(path)
}

fn engine() -> Engine {
    Engine::new(EngineConfig::default())
}

fn now_ms() -> u64 {
    SeededClock::new().now_us() / 1_000
}

fn open(dir: &Path) -> Result<Files, StartError> {
    Files::open(dir).map_err(|error| failed("the directory cannot be opened", dir, &error))
}

fn create(dir: &Path) -> Result<(), StartError> {
    Files::create(dir).map(drop).map_err(|error| failed("the directory cannot be created", dir, &error))
}

/// Refuses a directory that holds something.
fn check_new(dir: &Path) -> Result<(), StartError> {
    let is_empty = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(failed("the directory cannot be opened", dir, &error)),
    };
    if is_empty {
        return Ok(());
    }
    Err(StartError::because("the directory holds something already", dir.display().to_string())
        .with_hint("choose a new one, so that nothing is lost"))
}

fn cannot_use(dir: &Path, error: &OpenError) -> StartError {
    let failed = failed("the directory cannot be used", dir, error);
    match error {
        OpenError::InUse(_) => failed.with_hint(
            "stop the process first; of a running one, `acteon-server engine backup` makes a copy to look at",
        ),
        _ => failed,
    }
}

fn failed(what: &'static str, path: &Path, error: &dyn std::fmt::Display) -> StartError {
    StartError::because(what, format!("{}: {error}", path.display()))
}

fn print(out: &mut impl Write, line: &str) -> Result<(), StartError> {
    writeln!(out, "{line}").map_err(|error| StartError::new("the report cannot be written", error))
}
