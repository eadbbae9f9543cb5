//! Algorithms that commands need: bytes and numbers in, bytes and numbers out.
//!
//! Nothing here knows of keys, replies, time or locks, and all of it is deterministic. Where a result can be seen by a client,
//! it equals redis-server 7.0's to the last bit, oddities included; the odd ones are named on top of their file.
//!
//! | file | commands |
//! |---|---|
//! | `bits.rs` | BITCOUNT, BITPOS, BITOP, BITFIELD |
//! | `geohash.rs` | GEOADD, GEODIST, GEOHASH, GEOPOS, GEOSEARCH |
//! | `glob.rs` | KEYS, SCAN, PSUBSCRIBE, CONFIG GET; keys that are never evicted |
//! | `hyperloglog.rs` | PFADD, PFCOUNT, PFMERGE, PFDEBUG, PFSELFTEST |
//! | `lcs.rs` | LCS |
//! | `long_double.rs` | INCRBYFLOAT, HINCRBYFLOAT, coordinates of GEOPOS |
//! | `random.rs` | RANDOMKEY, SRANDMEMBER, SPOP, eviction |

#[cfg(feature = "commands")]
pub(crate) mod bits;
#[cfg(feature = "commands")]
pub(crate) mod geohash;
pub(crate) mod glob;
#[cfg(feature = "commands")]
pub(crate) mod hyperloglog;
#[cfg(feature = "commands")]
pub(crate) mod lcs;
#[cfg(feature = "commands")]
pub(crate) mod long_double;
pub(crate) mod random;
