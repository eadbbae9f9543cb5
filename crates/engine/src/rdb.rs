//! The RDB format: values and whole databases as bytes that redis-server reads, and the files that it has written.
//!
//! # Guarantees
//! What is written is version 10, which redis-server 7.0 loads. What is read is version 1 to 11, which Redis 1 to 7.2 have written.
//! No input makes a reader panic or take much more memory than the input holds; damage is an error that says at which byte and in
//! which key.
//!
//! # Where is what
//! | file | holds |
//! |---|---|
//! | `encode.rs` | values and key records as bytes |
//! | `decode.rs` | values from bytes |
//! | `packed/` | small collections as Redis packs them |
//! | `source.rs` | lengths and strings from bytes |
//! | `lzf.rs`, `crc64.rs` | compression, checksum |
//! | `reader.rs`, `skip.rs` | a file, key by key, and past what the engine has not |
//! | `payload.rs` | what `DUMP` gives |
//! | `writer.rs` | what stands around the records of a file |
//! | `error.rs` | why something cannot be read |

mod crc64;
mod decode;
mod encode;
mod error;
mod lzf;
mod packed;
#[cfg(feature = "commands")]
mod payload;
mod reader;
mod skip;
mod source;
#[cfg(test)]
mod tests;
mod writer;

pub use encode::Compression;
pub(crate) use encode::{RecordRef, ValueRef, type_of, write_record, write_select_database, write_value};
pub use error::{KeyPlace, Problem, RdbError};
#[cfg(feature = "commands")]
pub(crate) use payload::{PayloadError, read_payload, write_payload};
pub use reader::{ReadOptions, ReadReport, Reader, Record, Unsupported};
pub use writer::{END_BYTES, FileFacts, FileWriter, write_file};

use crate::value::{CollectionValue, Limits};
pub(crate) use source::Source;

/// The version that is written: that of Redis 7.0.
pub const VERSION: u32 = 10;

/// The newest version that is read: that of Redis 7.2.
pub const VERSION_READ_MAX: u32 = 11;

/// What each file begins with, before its version in four digits.
pub(crate) const MAGIC: &[u8; 5] = b"REDIS";

/// What we add to the format, by version: nothing yet. A reader refuses files of a later one.
const FORMAT: u32 = 1;

/// The name of the fact that says so.
const FORMAT_FACT: &[u8] = b"acteon-format";

/// A value without its key.
#[derive(Clone)]
pub(crate) enum Value {
    Str(Vec<u8>),
    Collection(CollectionValue),
}

/// What a file says of the last uses of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Seconds since it was used.
    IdleS(u64),
    /// The logarithmic counter of an LFU policy.
    Frequency(u8),
}

/// Reads the value that follows a type byte, from the start of `input`, which is what follows the value afterwards. An empty collection
/// is returned as such.
///
/// # Errors
/// Offsets count from the start of `input`.
pub(crate) fn read_value(type_byte: u8, input: &mut &[u8], limits: &Limits) -> Result<Value, RdbError> {
    let mut source = Source::new(input);
    let result = decode::read(type_byte, &mut source, limits);
    result.map_err(|problem| RdbError::new(source.offset(), None, problem))
}

/// The bytes that say of which type a value is.
pub(crate) mod types {
    pub(crate) const STRING: u8 = 0;
    pub(crate) const LIST: u8 = 1;
    pub(crate) const SET: u8 = 2;
    /// With scores as text.
    pub(crate) const ZSET: u8 = 3;
    pub(crate) const HASH: u8 = 4;
    /// With binary scores.
    pub(crate) const ZSET_2: u8 = 5;
    /// Of Redis before 4.
    pub(crate) const MODULE: u8 = 6;
    pub(crate) const MODULE_2: u8 = 7;
    pub(crate) const HASH_ZIPMAP: u8 = 9;
    pub(crate) const LIST_ZIPLIST: u8 = 10;
    pub(crate) const SET_INTSET: u8 = 11;
    pub(crate) const ZSET_ZIPLIST: u8 = 12;
    pub(crate) const HASH_ZIPLIST: u8 = 13;
    /// Nodes that are ziplists.
    pub(crate) const LIST_QUICKLIST: u8 = 14;
    pub(crate) const STREAM: u8 = 15;
    pub(crate) const HASH_LISTPACK: u8 = 16;
    pub(crate) const ZSET_LISTPACK: u8 = 17;
    /// Nodes that are listpacks or single elements.
    pub(crate) const LIST_QUICKLIST_2: u8 = 18;
    pub(crate) const STREAM_2: u8 = 19;
    pub(crate) const SET_LISTPACK: u8 = 20;
    pub(crate) const STREAM_3: u8 = 21;
}

/// What stands in a file in the place of a type.
pub(crate) mod opcode {
    /// Where slots of a cluster begin; of Valkey.
    pub(crate) const SLOT: u8 = 244;
    /// A library of functions.
    pub(crate) const FUNCTIONS: u8 = 245;
    pub(crate) const FUNCTION_PRE_RELEASE: u8 = 246;
    /// What a module keeps besides values.
    pub(crate) const MODULE_AUX: u8 = 247;
    pub(crate) const IDLE: u8 = 248;
    pub(crate) const FREQUENCY: u8 = 249;
    pub(crate) const AUX: u8 = 250;
    pub(crate) const RESIZE_DATABASE: u8 = 251;
    pub(crate) const EXPIRE_TIME_MS: u8 = 252;
    /// In seconds; before version 3.
    pub(crate) const EXPIRE_TIME_S: u8 = 253;
    pub(crate) const SELECT_DATABASE: u8 = 254;
    pub(crate) const END: u8 = 255;
}
