//! INFO, CONFIG, TIME, DEBUG, MEMORY, SLOWLOG, LATENCY, MONITOR.

use super::row::Row;

pub(super) const ROWS: &[Row] = &[];
