//! Bits of strings: SETBIT, GETBIT, BITCOUNT, BITPOS, BITOP, BITFIELD.

use super::row::Row;

pub(super) const ROWS: &[Row] = &[];
