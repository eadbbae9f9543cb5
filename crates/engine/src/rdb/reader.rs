//! A file, key by key, from its start to its checksum.
//!
//! # Guarantees
//! Keys come in the order of the file, each with its whole value. Not more is in memory than one of them. Whoever has seen the end has
//! seen the right checksum, where the file has one: what came before may be damaged nevertheless as long as the end is outstanding.
//!
//! # Failure
//! After an error there is nothing more to read.

use std::fmt;
use std::io::BufRead;

use super::decode;
use super::error::{KeyPlace, Problem, RdbError};
use super::skip::{self, Skipped};
use super::source::Source;
use super::{FORMAT, FORMAT_FACT, MAGIC, Touched, VERSION_READ_MAX, Value, opcode};
use crate::entry::{KEY_BYTES_MAX, Kind};
use crate::value::{CollectionValue, Limits};

/// Files before this version have no checksum.
const CHECKSUM_SINCE: u32 = 5;

/// Facts that a file says of itself are kept up to this number, and those beyond it are read past.
const FACTS_MAX: usize = 64;

/// Names and values of facts are kept up to this length, together.
const FACT_BYTES_MAX: usize = 1 << 10;

/// What to do with values that the engine does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unsupported {
    /// Stop with an error that names the key.
    #[default]
    Refuse,
    /// Read past them and count them.
    Skip,
}

/// How a file is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions {
    /// What to do with streams, and with values of modules.
    pub unsupported: Unsupported,
    /// Up to which size collections are kept small.
    pub limits: Limits,
}

/// What was read until now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadReport {
    /// The version of the file.
    pub version: u32,
    /// What the file says of itself: `redis-ver`, `ctime`, ..
    pub facts: Vec<(Vec<u8>, Vec<u8>)>,
    /// Keys that were read.
    pub keys: u64,
    /// Streams that were skipped.
    pub streams: u64,
    /// Values of modules that were skipped.
    pub module_values: u64,
    /// What modules keep besides values, skipped.
    pub module_facts: u64,
    /// Libraries of functions, skipped.
    pub function_libraries: u64,
    /// Collections without a single element, which no Redis keeps and some have written.
    pub empty_collections: u64,
    /// The end was reached, and its checksum was right. Files before version 5 have none, nor have those of a Redis that was told
    /// to write none.
    pub is_checked: bool,
}

/// A key of a file.
#[derive(Clone)]
pub struct Record {
    /// The number of the database.
    pub database: u64,
    /// The key.
    pub key: Vec<u8>,
    /// The last millisecond at which the key is there.
    pub expires_at_ms: Option<u64>,
    /// Its last uses, where the file says anything of them.
    pub touched: Option<Touched>,
    pub(crate) value: Value,
}

impl Record {
    /// What the value is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match &self.value {
            Value::Str(_) => Kind::String,
            Value::Collection(CollectionValue::Hash(_)) => Kind::Hash,
            Value::Collection(CollectionValue::SortedSet(_)) => Kind::SortedSet,
            Value::Collection(CollectionValue::List(_)) => Kind::List,
            Value::Collection(CollectionValue::Set(_)) => Kind::Set,
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No contents: they are the application's, and may be secret.
        f.debug_struct("Record").field("database", &self.database).field("kind", &self.kind()).finish_non_exhaustive()
    }
}

/// A file that is being read.
///
/// ```
/// use acteon_engine::rdb::{FileFacts, FileWriter, ReadOptions, Reader};
///
/// let mut file = Vec::new();
/// let end = FileWriter::begin(&FileFacts::default(), &mut file).end();
/// file.extend_from_slice(&end);
/// let mut reader = Reader::open(&*file, ReadOptions::default())?;
/// while let Some(record) = reader.next_record()? {
///     println!("{:?}", record.key);
/// }
/// assert!(reader.report().is_checked);
/// # Ok::<(), acteon_engine::rdb::RdbError>(())
/// ```
pub struct Reader<R> {
    source: Source<R>,
    options: ReadOptions,
    database: u64,
    /// The key that is being read.
    place: Option<KeyPlace>,
    report: ReadReport,
    has_ended: bool,
}

/// What precedes the type of a key.
#[derive(Default)]
struct Preface {
    expires_at_ms: Option<u64>,
    touched: Option<Touched>,
}

impl<R: BufRead> Reader<R> {
    /// Begins to read `input`.
    ///
    /// # Errors
    /// [`Problem::NotRdb`], [`Problem::Version`], and those of the input.
    pub fn open(input: R, options: ReadOptions) -> Result<Self, RdbError> {
        let mut source = Source::with_checksum(input);
        let version = version(&mut source).map_err(|problem| RdbError::new(source.offset(), None, problem))?;
        let report = ReadReport { version, ..ReadReport::default() };
        Ok(Self { source, options, database: 0, place: None, report, has_ended: false })
    }

    /// The next key; `None` after the last one.
    ///
    /// # Errors
    /// Whatever is wrong with the input, with its place.
    pub fn next_record(&mut self) -> Result<Option<Record>, RdbError> {
        if self.has_ended {
            return Ok(None);
        }
        self.advance().map_err(|problem| {
            self.has_ended = true;
            RdbError::new(self.source.offset(), self.place.take(), problem)
        })
    }

    /// What was read until now.
    pub fn report(&self) -> &ReadReport {
        &self.report
    }

    /// How many bytes were read.
    pub fn offset(&self) -> u64 {
        self.source.offset()
    }

    /// The input behind what was read: an append-only file of Redis 4 to 6 goes on there.
    pub fn into_input(self) -> R {
        self.source.into_input()
    }

    fn advance(&mut self) -> Result<Option<Record>, Problem> {
        let mut preface = Preface::default();
        loop {
            match self.source.byte()? {
                opcode::EXPIRE_TIME_S => {
                    preface.expires_at_ms = Some(seconds(i32::from_le_bytes(self.source.array()?)))
                }
                opcode::EXPIRE_TIME_MS => {
                    preface.expires_at_ms = Some(milliseconds(i64::from_le_bytes(self.source.array()?)));
                }
                opcode::IDLE => preface.touched = Some(Touched::IdleS(self.source.number()?)),
                opcode::FREQUENCY => preface.touched = Some(Touched::Frequency(self.source.byte()?)),
                opcode::SELECT_DATABASE => self.database = self.source.number()?,
                opcode::RESIZE_DATABASE => _ = (self.source.number()?, self.source.number()?),
                opcode::SLOT => _ = (self.source.number()?, self.source.number()?, self.source.number()?),
                opcode::AUX => self.read_fact()?,
                opcode::MODULE_AUX => self.pass_module_aux()?,
                opcode::FUNCTIONS => {
                    self.source.skip_string()?;
                    self.report.function_libraries += 1;
                }
                opcode::FUNCTION_PRE_RELEASE => {
                    return Err(Problem::Unsupported("a function of a release candidate of Redis 7"));
                }
                opcode::END => return self.end().map(|()| None),
                kind => {
                    if let Some(record) = self.read_key(kind, std::mem::take(&mut preface))? {
                        return Ok(Some(record));
                    }
                }
            }
        }
    }

    /// `None`: it was skipped.
    fn read_key(&mut self, kind: u8, preface: Preface) -> Result<Option<Record>, Problem> {
        let key = self.source.string()?;
        if key.len() > KEY_BYTES_MAX {
            return Err(Problem::TooLong(key.len() as u64));
        }
        // For messages; taken back unless one is needed.
        self.place = Some(KeyPlace { database: self.database, key });
        let skipped = Skipped::of(kind).filter(|_| self.options.unsupported == Unsupported::Skip);
        if let Some(skipped) = skipped {
            skip::value(kind, &mut self.source)?;
            match skipped {
                Skipped::Stream => self.report.streams += 1,
                Skipped::Module => self.report.module_values += 1,
            }
            self.place = None;
            return Ok(None);
        }
        let value = decode::read(kind, &mut self.source, &self.options.limits)?;
        let key = self.place.take().map(|place| place.key).unwrap_or_default();
        if matches!(&value, Value::Collection(collection) if collection.is_empty()) {
            self.report.empty_collections += 1;
            return Ok(None);
        }
        self.report.keys += 1;
        let Preface { expires_at_ms, touched } = preface;
        Ok(Some(Record { database: self.database, key, expires_at_ms, touched, value }))
    }

    fn read_fact(&mut self) -> Result<(), Problem> {
        let (name, value) = (self.source.string()?, self.source.string()?);
        let is_known =
            || std::str::from_utf8(&value).is_ok_and(|text| text.parse().is_ok_and(|format: u32| format <= FORMAT));
        if name == FORMAT_FACT && !is_known() {
            return Err(Problem::Format(value));
        }
        if self.report.facts.len() < FACTS_MAX && name.len() + value.len() <= FACT_BYTES_MAX {
            self.report.facts.push((name, value));
        }
        Ok(())
    }

    fn pass_module_aux(&mut self) -> Result<(), Problem> {
        if self.options.unsupported == Unsupported::Refuse {
            return Err(Problem::Unsupported("what a module keeps besides values"));
        }
        self.report.module_facts += 1;
        skip::module_aux(&mut self.source)
    }

    fn end(&mut self) -> Result<(), Problem> {
        self.has_ended = true;
        if self.report.version < CHECKSUM_SINCE {
            return Ok(());
        }
        let found = self.source.checksum();
        let expected = u64::from_le_bytes(self.source.array()?);
        // Zero is what a Redis writes that is told to write none.
        self.report.is_checked = expected != 0;
        if expected != 0 && expected != found {
            return Err(Problem::Checksum { expected, found });
        }
        Ok(())
    }
}

impl<R> fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("report", &self.report).finish_non_exhaustive()
    }
}

fn version<R: BufRead>(source: &mut Source<R>) -> Result<u32, Problem> {
    let not_rdb = |problem| if matches!(problem, Problem::Truncated) { Problem::NotRdb } else { problem };
    let magic: [u8; MAGIC.len()] = source.array().map_err(not_rdb)?;
    let digits: [u8; 4] = source.array().map_err(not_rdb)?;
    if magic != *MAGIC || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Problem::NotRdb);
    }
    let version = digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    if (1..=VERSION_READ_MAX).contains(&version) { Ok(version) } else { Err(Problem::Version(version)) }
}

/// Before 1970 a key had expired long ago; so it has at its first millisecond.
fn seconds(at_s: i32) -> u64 {
    milliseconds(i64::from(at_s) * 1_000)
}

fn milliseconds(at_ms: i64) -> u64 {
    u64::try_from(at_ms).unwrap_or(0)
}
