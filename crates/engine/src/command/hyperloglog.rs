//! Approximate counting of distinct elements: PFADD, PFCOUNT, PFMERGE.

use super::row::Row;

pub(super) const ROWS: &[Row] = &[];
