//! SORT and SORT_RO.

use super::row::Row;

pub(super) const ROWS: &[Row] = &[];
