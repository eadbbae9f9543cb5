//! `acteon-server engine verify | import | export | backup | restore`: what is done with the directory of an engine from outside.
//!
//! # What they promise
//! The directory is locked meanwhile, so that none of them meddles with a running engine; only a backup may be made of one that runs. Import,
//! export, backup and restore write to a place that is new, and change nothing else; what they could not finish can be removed. Reports go to
//! stdout, reasons of failure to stderr, with exit code 1.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use acteon_engine::import::{
    Files as ImportFiles, ImportError, ImportOptions, ImportProblem, ImportReport, Importer, Manifest,
};
use acteon_engine::rdb::{FileFacts, Problem as RdbProblem, Unsupported, write_file};
use acteon_engine::{Engine, EngineConfig, Instance, InstanceConfig};
use acteon_engine_disk::{BackupError, Files, Found, OpenError, Remedy, Report, backup_of, look, repair, verify};
use acteon_state::core::clock::{Clock, SeededClock};

use crate::cli::EngineCommand;
use crate::start_error::StartError;

/// What a new directory begins with.
const DUMP: &str = "dump.rdb";
/// Where a Redis of version 7 keeps its append-only files, in its directory.
const REDIS_LOGS: &str = "appendonlydir";
/// The append-only file of an older one.
const REDIS_LOG: &str = "appendonly.aof";
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
        let repaired = repair(&files).map_err(|error| cannot_repair(dir, &error))?;
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
    let unusable = StartError::because("the directory cannot be used as it is", dir.display().to_string());
    Err(unusable.with_hint(what_helps(&report, mends)))
}

/// What to do about all problems together: the one that asks for most decides.
fn what_helps(report: &Report, has_been_mended: bool) -> &'static str {
    let needs = |remedy| report.problems.iter().any(|problem| problem.remedy() == remedy);
    match () {
        () if needs(Remedy::NewerProgram) => "use the newer program, or restore a backup that this one has made",
        () if needs(Remedy::Disk) => "look at the disk, and at who may read and write there",
        () if needs(Remedy::Backup) => "restore a backup; --repair cannot mend this",
        () if needs(Remedy::Import) => {
            "`acteon-server engine import DIR --into NEW-DIR` takes it over; with --skip-unsupported, without what the engine has not"
        }
        () if has_been_mended => "what is left cannot be mended: restore a backup",
        () => {
            "restore a backup, or run this with --repair, which keeps what comes before the damage and loses what comes after"
        }
    }
}

fn cannot_repair(dir: &Path, error: &OpenError) -> StartError {
    match error {
        OpenError::Problem(problem) => {
            let failed = failed("the directory cannot be repaired", dir, problem);
            match problem.remedy() {
                Remedy::NewerProgram => failed.with_hint("use the newer program, or restore a backup"),
                Remedy::Disk => failed.with_hint("look at the disk, and run this again: it goes on where it was"),
                _ => failed.with_hint("restore a backup"),
            }
        }
        _ => cannot_use(dir, error),
    }
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
    read.map_err(|refusal| {
        let failed = StartError::because("the files cannot be taken over", refusal.reason);
        match refusal.hint {
            Some(hint) => failed.with_hint(hint),
            None => failed,
        }
    })?;
    let report = importer.finish();
    create(into)?;
    let bytes = write_dump(&engine, &into.join(DUMP))?;
    describe_import(&report, out)?;
    let (file, dir) = (into.join(DUMP), into.display());
    print(out, &format!("{}: {bytes} bytes; start with [engine] dir = \"{dir}\" to use it", file.display()))
}

/// Why files are not taken over, and what to do.
struct Refusal {
    reason: String,
    hint: Option<String>,
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self { reason, hint: None }
    }
}

impl From<ImportError> for Refusal {
    fn from(error: ImportError) -> Self {
        let is_unsupported = match &error.problem {
            ImportProblem::Dump(dump) => matches!(dump.problem(), RdbProblem::Unsupported(_)),
            ImportProblem::UnknownCommand { .. } => true,
            _ => false,
        };
        let hint = is_unsupported.then(|| {
            "--skip-unsupported leaves out what the engine has not, such as streams, and says how much that was"
                .to_owned()
        });
        Self { reason: error.to_string(), hint }
    }
}

fn read_file(importer: &mut Importer<'_>, file: &Path) -> Result<(), Refusal> {
    let name = file.display().to_string();
    let input = || File::open(file).map(BufReader::new).map_err(|error| format!("{name}: {error}"));
    let mut head = input()?;
    let is_dump = head.fill_buf().map_err(|error| format!("{name}: {error}"))?.starts_with(b"REDIS");
    // A dump may be the beginning of an append-only file; that it is called .aof tells.
    let is_log = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("aof"));
    let result =
        if is_dump && !is_log { importer.rdb(&name, input()?) } else { importer.append_only_file(&name, input()?) };
    result.map_err(Refusal::from)
}

/// The directory of a Redis, its `appendonlydir`, or a directory with a dump only. The append-only files are the newer ones.
fn read_directory(importer: &mut Importer<'_>, dir: &Path) -> Result<(), Refusal> {
    refuse_engine(dir)?;
    let inner = dir.join(REDIS_LOGS);
    let logs = if inner.is_dir() { inner } else { dir.to_owned() };
    if let Some(manifest) = manifest_in(&logs)? {
        let text = fs::read_to_string(&manifest).map_err(|error| format!("{}: {error}", manifest.display()))?;
        let parsed = Manifest::parse(&text).map_err(|error| format!("{}: {error}", manifest.display()))?;
        return importer.append_only_directory(&parsed, &Folder(logs)).map_err(Refusal::from);
    }
    for name in [REDIS_LOG, DUMP] {
        if dir.join(name).is_file() {
            return read_file(importer, &dir.join(name));
        }
    }
    Err(Refusal::from(format!("{}: there is neither a manifest of append-only files nor {DUMP}", dir.display())))
}

/// Refuses a directory of our own: its dump is older than its journal, and the difference would be lost without a word.
fn refuse_engine(dir: &Path) -> Result<(), Refusal> {
    let files = Files::open(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let shown = dir.display();
    match look(&files).map_err(|error| format!("{shown}: {error}"))? {
        Found::Dump | Found::Nothing => Ok(()),
        Found::Engine | Found::Unfinished => Err(Refusal {
            reason: format!(
                "{shown}: this is the directory of an engine, with a journal that is newer than its {DUMP}"
            ),
            hint: Some(format!(
                "it is used as it is, by [engine] dir = \"{shown}\"; for a copy, `acteon-server engine backup {shown} --to \
                 NEW-DIR`; to take over the {DUMP} all the same, name that file"
            )),
        }),
    }
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
    let files = open(backup)?;
    check_finished(backup, &files)?;
    let report = verify(&files, Some(&engine())).map_err(|error| cannot_use(backup, &error))?;
    if !report.is_sound() {
        let is_of_redis = report.problems.iter().any(|problem| problem.remedy() == Remedy::Import);
        let hint = if is_of_redis { what_helps(&report, false) } else { "choose an older one" };
        return Err(StartError::because("the backup cannot be used", report.to_string()).with_hint(hint));
    }
    create(into)?;
    let copied = copy_all(backup, into);
    copied.map_err(|error| failed("the backup cannot be copied", into, &error))?;
    let restored = verify(&open(into)?, Some(&engine())).map_err(|error| cannot_use(into, &error))?;
    print(out, &restored.to_string())?;
    print(out, &format!("start with [engine] dir = \"{}\" to use it", into.display()))
}

/// Refuses what is no backup, or none yet.
fn check_finished(backup: &Path, files: &Files) -> Result<(), StartError> {
    let refused = |reason: &str| StartError::because("there is no backup", format!("{}: {reason}", backup.display()));
    match look(files).map_err(|error| cannot_use(backup, &error))? {
        Found::Engine | Found::Dump => Ok(()),
        Found::Unfinished => Err(refused("there is no manifest, which is written last: it was not finished")
            .with_hint("choose another one; this one can be removed")),
        Found::Nothing => Err(cannot_use(backup, &OpenError::Foreign)),
    }
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
        OpenError::Foreign => failed.with_hint("name the directory that [engine] dir names, or a backup of it"),
        _ => failed,
    }
}

fn failed(what: &'static str, path: &Path, error: &dyn std::fmt::Display) -> StartError {
    StartError::because(what, format!("{}: {error}", path.display()))
}

fn print(out: &mut impl Write, line: &str) -> Result<(), StartError> {
    writeln!(out, "{line}").map_err(|error| StartError::new("the report cannot be written", error))
}
