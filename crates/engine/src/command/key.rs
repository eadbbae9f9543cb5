//! Commands for keys of any type: DEL, EXISTS, TYPE, RENAME, COPY, OBJECT, and their kin.

use super::row::Row;

pub(super) const ROWS: &[Row] = &[];
