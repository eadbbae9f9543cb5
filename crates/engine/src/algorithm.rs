//! Algorithms that commands need: bytes and numbers in, bytes and numbers out.
//!
//! Nothing here knows of keys, replies, time or locks, and all of it is deterministic. Where a result can be seen by a client,
//! it equals redis-server 7.0's to the last bit, oddities included; the odd ones are named on top of their file.
//!
//! | file | commands |
//! |---|---|
//! | `bits.rs` | BITCOUNT, BITPOS, BITOP, BITFIELD |
//! | `glob.rs` | KEYS, SCAN, PSUBSCRIBE, CONFIG GET |
//! | `random.rs` | RANDOMKEY, SRANDMEMBER, SPOP, eviction |

pub(crate) mod bits;
pub(crate) mod glob;
pub(crate) mod random;
