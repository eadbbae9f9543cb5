//! Sorted sets, with the forms that wait.

use super::row::Row;

pub(super) const ROWS: &[Row] = &[];
