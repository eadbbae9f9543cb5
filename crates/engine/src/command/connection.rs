//! What a connection says about itself: HELLO, AUTH, SELECT, CLIENT, and their kin.

use super::row::Row;

pub(super) const ROWS: &[Row] = &[];
