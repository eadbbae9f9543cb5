//! EVAL, EVALSHA and SCRIPT.

use super::row::Row;

pub(super) const ROWS: &[Row] = &[];
