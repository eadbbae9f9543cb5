//! A set of integers.
//!
//! # Format
//! ```text
//! bytes of each integer: 2, 4 or 8 (u32) │ how many (u32) │ integers, ascending
//! ```
//! Everything is little-endian.

use super::{Element, Elements, Problem, take};

const DAMAGED: Problem = Problem::Damaged("a set of integers is not as long as it says");

pub(in crate::rdb) struct IntSet<'a> {
    rest: &'a [u8],
    width: usize,
}

impl<'a> IntSet<'a> {
    pub(in crate::rdb) fn open(bytes: &'a [u8]) -> Result<Self, Problem> {
        let mut rest = bytes;
        let width = take(&mut rest).map(u32::from_le_bytes).ok_or(DAMAGED)? as usize;
        let count = take(&mut rest).map(u32::from_le_bytes).ok_or(DAMAGED)? as usize;
        let fits = matches!(width, 2 | 4 | 8) && count.checked_mul(width) == Some(rest.len());
        if fits { Ok(Self { rest, width }) } else { Err(DAMAGED) }
    }
}

impl<'a> Elements<'a> for IntSet<'a> {
    fn next_element(&mut self) -> Result<Option<Element<'a>>, Problem> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let integer = match self.width {
            2 => take(&mut self.rest).map(|bytes| i64::from(i16::from_le_bytes(bytes))),
            4 => take(&mut self.rest).map(|bytes| i64::from(i32::from_le_bytes(bytes))),
            _ => take(&mut self.rest).map(i64::from_le_bytes),
        };
        integer.map(|integer| Some(Element::Integer(integer))).ok_or(DAMAGED)
    }
}
