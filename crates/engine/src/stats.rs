//! Numbers about an engine, for operators and metrics.

/// A sum over all segments, each read under its own lock, and counts of the whole: exact when nothing is being written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Keys in the table, including expired ones that no cycle or access has met yet.
    pub keys: u64,
    /// Those of them that have a deadline.
    pub keys_with_ttl: u64,
    /// Estimated memory of keys, values, their tables and the ordered index.
    pub bytes: u64,
    /// The part of `bytes` that tables take: they keep some room for keys to come, also when all keys are gone.
    pub table_bytes: u64,
    /// The bound for `bytes`, if one is configured.
    pub bytes_max: Option<u64>,
    /// How long those with a deadline have left on average, as the last cycles of expiry have sampled it; 0: unknown.
    pub ttl_average_ms: u64,
    /// Keys removed because their time had come, since the engine was created.
    pub expired_total: u64,
    /// Keys of all databases that went because memory was short, since the engine was created.
    pub evicted_total: u64,
}
