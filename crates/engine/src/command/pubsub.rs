//! Publish and subscribe, with patterns and shard channels.

use super::row::Row;

pub(super) const ROWS: &[Row] = &[];
