//! Takes over the data of a Redis: its RDB files, and its append-only files of any version up to 7.2.
//!
//! # Guarantees
//! After an import without an error, the instance holds what that Redis would hold after loading the same files, apart from what is
//! counted in the [`ImportReport`] as skipped. Nothing is skipped unless the caller chose so, except libraries of functions, which are no data.
//!
//! # Failure
//! An [`ImportError`] says in which file and where. What was loaded before it stays: import into an instance that is thrown away then.
//! An append-only file may end within a command, because its Redis was killed: what came before counts, and the report says how many bytes
//! did not.
//!
//! # How it works
//! Keys of an RDB file are put where they belong; commands of an append-only file are carried out. Meanwhile it is 1970: no key
//! expires before the last command was carried out, so that a later one finds what it changed in its day. Nobody else may use the
//! instance until the import has ended.
//!
//! # What is not here
//! Files. The caller opens them, and hands over what reads them.
//!
//! # Example
//! ```
//! use acteon_engine::import::{ImportOptions, Importer};
//! use acteon_engine::{Engine, EngineConfig, Instance, InstanceConfig};
//!
//! let file = b"*3\r\n$3\r\nSET\r\n$8\r\ngreeting\r\n$5\r\nhello\r\n*2\r\n$3\r\nDEL";
//! let engine = Engine::new(EngineConfig::default());
//! let instance = Instance::new(engine.clone(), InstanceConfig::default());
//! let mut importer = Importer::new(&instance, ImportOptions::default());
//! importer.append_only_file("appendonly.aof", &file[..])?;
//! let report = importer.finish();
//! assert_eq!((report.commands, report.torn.map(|torn| torn.bytes)), (1, Some(11)));
//! assert_eq!(engine.read(b"greeting", 1, |value| value.and_then(|value| value.as_str()) == Some(b"hello")), true);
//! # Ok::<(), acteon_engine::import::ImportError>(())
//! ```

mod commands;
mod error;
mod manifest;
mod replay;

pub use error::{ImportError, ImportProblem};
pub use manifest::{AppendOnlyFile, Manifest, ManifestError, Role};

use std::collections::BTreeMap;
use std::io::{self, BufRead, Cursor, Read};
use std::sync::Arc;

use crate::instance::Instance;
use crate::rdb::{self, MAGIC, RdbError, ReadOptions, ReadReport, Reader, Record, Unsupported};
use crate::typed::Whole;
use replay::Replay;

/// The time while commands are carried out: before any deadline.
const EPOCH_MS: u64 = 1;

/// Gives the files of an append-only directory.
pub trait Files {
    /// Opens the file of this name, which is a name and not a path.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    fn open(&self, name: &str) -> io::Result<Box<dyn BufRead + '_>>;
}

/// How data is taken over.
#[derive(Clone, Copy, Debug, Default)]
pub struct ImportOptions {
    /// What to do with streams, with values of modules, and with commands that are not known here.
    pub unsupported: Unsupported,
    /// Milliseconds since 1970: keys of a dump whose time had come by then are left out. By itself none are.
    pub now_ms: u64,
}

/// What was taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// One for each RDB file, or part of a file that is one.
    pub dumps: Vec<ReadReport>,
    /// Keys of dumps that had expired.
    pub expired: u64,
    /// Commands that were carried out.
    pub commands: u64,
    /// Commands that are not known here, by name; only if the caller chose to skip them.
    pub unknown_commands: BTreeMap<String, u64>,
    /// Commands that were refused; only if the caller chose to skip what is unsupported: they may have built on that.
    pub refused_commands: u64,
    /// The first of these, with the answer that it got.
    pub first_refusal: Option<String>,
    /// The last moment that the files say they have seen, in seconds since 1970; only of a Redis that was told to note it.
    pub last_timestamp_s: Option<u64>,
    /// What was left out at the end.
    pub torn: Option<TornTail>,
}

/// The end of an append-only file that was being written when its Redis stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub file: String,
    /// Where the last whole command or transaction ends.
    pub offset: u64,
    /// What comes after that and was left out.
    pub bytes: u64,
    /// It is a transaction that does not end, of which nothing was carried out.
    pub is_transaction: bool,
}

/// Takes over files, one after the other.
pub struct Importer<'a> {
    instance: &'a Arc<Instance>,
    options: ImportOptions,
    report: ImportReport,
}

impl<'a> Importer<'a> {
    /// Will add to what `instance` holds, and replace keys of the same name.
    #[must_use]
    pub fn new(instance: &'a Arc<Instance>, options: ImportOptions) -> Self {
        Self { instance, options, report: ImportReport::default() }
    }

    /// Takes over an RDB file, which is called `name` in errors.
    ///
    /// # Errors
    /// The file is damaged or newer than what is known here, or holds what the engine has not.
    pub fn rdb(&mut self, name: &str, input: impl BufRead) -> Result<(), ImportError> {
        let drop_expired_at_ms = self.options.now_ms;
        self.dump(input, drop_expired_at_ms).map(drop).map_err(|error| ImportError::new(name, error))
    }

    /// Takes over an append-only file of a Redis before 7, or a single file of a later one. It may begin with a dump, and may end within
    /// a command.
    ///
    /// # Errors
    /// The file is damaged otherwise, or holds what the engine has not.
    pub fn append_only_file(&mut self, name: &str, input: impl BufRead) -> Result<(), ImportError> {
        self.file(name, input, true)
    }

    /// Takes over a directory of append-only files of Redis 7, of which `manifest` is the content of its manifest. The last file may end
    /// within a command.
    ///
    /// # Errors
    /// A file is missing or damaged, or holds what the engine has not.
    pub fn append_only_directory(&mut self, manifest: &Manifest, files: &dyn Files) -> Result<(), ImportError> {
        let names: Vec<&str> = manifest.in_order().collect();
        for (number, name) in names.iter().enumerate() {
            let input = files.open(name).map_err(|error| ImportError::new(name, ImportProblem::Open(error)))?;
            self.file(name, input, number + 1 == names.len())?;
        }
        Ok(())
    }

    /// What was taken over.
    #[must_use]
    pub fn finish(self) -> ImportReport {
        self.report
    }

    fn file(&mut self, name: &str, mut input: impl BufRead, may_be_torn: bool) -> Result<(), ImportError> {
        let fail = |problem| ImportError::new(name, problem);
        let mut head = Vec::new();
        let len = MAGIC.len() as u64;
        input.by_ref().take(len).read_to_end(&mut head).map_err(|error| fail(ImportProblem::Open(error)))?;
        let is_dump = head == MAGIC;
        let input = Cursor::new(head).chain(input);
        if is_dump {
            // Keys that have expired since are there for the commands that follow.
            let (rest, offset) = self.dump(input, 0).map_err(fail)?;
            self.commands(name, rest, offset, may_be_torn).map_err(fail)
        } else {
            self.commands(name, input, 0, may_be_torn).map_err(fail)
        }
    }

    /// Returns what follows the dump, and where that begins.
    fn dump<R: BufRead>(&mut self, input: R, expired_before_ms: u64) -> Result<(R, u64), ImportProblem> {
        let options = ReadOptions { unsupported: self.options.unsupported, limits: self.instance.limits().1 };
        let mut reader = Reader::open(input, options).map_err(ImportProblem::Dump)?;
        while let Some(record) = reader.next_record().map_err(ImportProblem::Dump)? {
            if record.expires_at_ms.is_some_and(|at_ms| at_ms < expired_before_ms) {
                self.report.expired += 1;
                continue;
            }
            let offset = reader.offset();
            self.put(record, offset)?;
        }
        self.report.dumps.push(reader.report().clone());
        let offset = reader.offset();
        Ok((reader.into_input(), offset))
    }

    fn put(&self, record: Record, offset: u64) -> Result<(), ImportProblem> {
        let Record { database, key, expires_at_ms, touched, value } = record;
        let databases = &self.instance.databases;
        let Some(number) = usize::try_from(database).ok().filter(|number| *number < databases.count()) else {
            let count = databases.count();
            let problem = rdb::Problem::NoSuchDatabase { count };
            let place = rdb::KeyPlace { database, key };
            return Err(ImportProblem::Dump(RdbError::new(offset, Some(place), problem)));
        };
        let eviction = &databases.first().keyspace().context.memory.eviction;
        let usage = eviction.restored_usage(self.options.now_ms, touched);
        let whole = Whole::restored(value, expires_at_ms, usage);
        databases.get(number).update(&key, EPOCH_MS, |slot| drop(slot.put_whole(whole)));
        Ok(())
    }

    fn commands(
        &mut self,
        name: &str,
        input: impl BufRead,
        offset: u64,
        may_be_torn: bool,
    ) -> Result<(), ImportProblem> {
        let mut replay = Replay::new(self.instance, self.options.unsupported, &mut self.report);
        let torn = replay.run(input, offset)?;
        match torn {
            None => Ok(()),
            Some(tail) if may_be_torn => {
                self.report.torn = Some(TornTail { file: name.to_owned(), ..tail });
                Ok(())
            }
            Some(TornTail { offset, bytes, .. }) => Err(ImportProblem::TornInTheMiddle { offset, bytes }),
        }
    }
}
