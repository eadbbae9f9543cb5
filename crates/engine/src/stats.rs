//! Numbers about an engine, for operators and metrics.

/// A sum over all segments, each read under its own lock: exact when nothing is being written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Keys in the table, including expired ones that no cycle or access has met yet.
    pub keys: u64,
    /// Those of them that have a deadline.
    pub keys_with_ttl: u64,
    /// Estimated memory of keys, values and the ordered index.
    pub bytes: u64,
    /// The bound for `bytes`, if one is configured.
    pub bytes_max: Option<u64>,
    /// How long those with a deadline have left on average, as the last cycles of expiry have sampled it; 0: unknown.
    pub ttl_average_ms: u64,
    /// Keys removed because their time had come, since the engine was created.
    pub expired_total: u64,
}
