//! COMMAND: what the server says about its commands.

use super::row::Row;

pub(super) const ROWS: &[Row] = &[];
