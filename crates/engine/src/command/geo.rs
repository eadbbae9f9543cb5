//! Geographic positions, kept in sorted sets.

use super::row::Row;

pub(super) const ROWS: &[Row] = &[];
