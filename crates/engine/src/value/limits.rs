//! When a collection leaves its small encoding, and how large the pieces of a list grow.
//!
//! The names are those of Redis's configuration and so are the defaults, because clients see the result in OBJECT ENCODING.
//! A changed limit takes effect at the next write to a value; nothing is converted back.

/// Bytes in one chunk of a list at the default setting, and the most when chunks are bounded by their number of elements.
const LIST_CHUNK_BYTES: usize = 8 << 10;

/// Redis knows more elements than this for no set of integers, whatever the setting: its own header would overflow.
const SET_INTSET_ENTRIES_MAX: usize = 1 << 30;

/// The thresholds of all collections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A hash with more fields becomes a `hashtable`.
    pub hash_max_listpack_entries: usize,
    /// A hash with a field or value longer than so many bytes becomes a `hashtable`.
    pub hash_max_listpack_value: usize,
    /// A set of integers with more members becomes a `hashtable`.
    pub set_max_intset_entries: usize,
    /// A sorted set with more members becomes a `skiplist`.
    pub zset_max_listpack_entries: usize,
    /// A sorted set with a member longer than so many bytes becomes a `skiplist`.
    pub zset_max_listpack_value: usize,
    /// The size of a list's chunks: -1 to -5 stand for 4, 8, 16, 32 and 64 KiB, a positive number counts elements.
    pub list_max_listpack_size: i64,
    /// A `HyperLogLog` that grows beyond so many bytes becomes dense.
    pub hll_sparse_max_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hash_max_listpack_entries: 512,
            hash_max_listpack_value: 64,
            set_max_intset_entries: 512,
            zset_max_listpack_entries: 128,
            zset_max_listpack_value: 64,
            list_max_listpack_size: -2,
            hll_sparse_max_bytes: 3_000,
        }
    }
}

impl Limits {
    pub(crate) fn intset_entries_max(&self) -> usize {
        self.set_max_intset_entries.min(SET_INTSET_ENTRIES_MAX)
    }

    pub(crate) fn list_chunk(&self) -> ChunkLimit {
        match self.list_max_listpack_size {
            size @ ..0 => {
                // -1 is 4 KiB and every step doubles it, up to -5.
                let doublings = size.unsigned_abs().min(5) - 1;
                ChunkLimit { bytes_max: 4096 << doublings, entries_max: usize::MAX }
            }
            entries => {
                let entries_max = usize::try_from(entries.max(1)).unwrap_or(usize::MAX);
                ChunkLimit { bytes_max: LIST_CHUNK_BYTES, entries_max }
            }
        }
    }
}

/// How much one chunk of a list holds. A single element may be larger and then lies in a chunk alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkLimit {
    pub(crate) bytes_max: usize,
    pub(crate) entries_max: usize,
}

#[cfg(test)]
mod tests {
    use super::{ChunkLimit, Limits};

    #[test]
    fn chunk_size_follows_the_sign_of_the_setting() {
        let chunk = |size| Limits { list_max_listpack_size: size, ..Limits::default() }.list_chunk();
        let by_bytes = |bytes_max| ChunkLimit { bytes_max, entries_max: usize::MAX };
        assert_eq!(chunk(-1), by_bytes(4096));
        assert_eq!(chunk(-2), by_bytes(8192));
        assert_eq!(chunk(-5), by_bytes(65536));
        assert_eq!(chunk(i64::MIN), by_bytes(65536));
        assert_eq!(chunk(0).entries_max, 1);
        assert_eq!(chunk(7), ChunkLimit { bytes_max: 8192, entries_max: 7 });
    }
}
