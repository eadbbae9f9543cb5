//! Commands over whole databases: SCAN, KEYS, RANDOMKEY, DBSIZE, FLUSHALL, SWAPDB, and their kin.

use super::row::Row;

pub(super) const ROWS: &[Row] = &[];
