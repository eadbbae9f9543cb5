//! The packed form of hashes before Redis 2.6.
//!
//! # Format
//! ```text
//! fields (u8; 254 and more: not known) │ pairs.. │ 255
//! pair: length │ field │ length │ unused bytes behind the value (u8) │ value │ unused bytes
//! length: one byte up to 253, or 254 and u32, little-endian
//! ```

use super::{Element, Elements, Problem, take, take_slice};

const DAMAGED: Problem = Problem::Damaged("a zipmap is damaged");

const END: u8 = 0xff;
const LENGTH_IS_LONG: u8 = 254;

/// Fields and values in turn.
pub(in crate::rdb) struct Zipmap<'a> {
    rest: &'a [u8],
    /// How many pairs are still to come, if that is known.
    left: Option<u8>,
    value_is_next: bool,
}

impl<'a> Zipmap<'a> {
    pub(in crate::rdb) fn open(bytes: &'a [u8]) -> Result<Self, Problem> {
        let (count, rest) = bytes.split_first().ok_or(DAMAGED)?;
        Ok(Self { rest, left: (*count < LENGTH_IS_LONG).then_some(*count), value_is_next: false })
    }

    fn element(&mut self) -> Option<&'a [u8]> {
        let len = match take(&mut self.rest)? {
            [END] => return None,
            [LENGTH_IS_LONG] => take(&mut self.rest).map(u32::from_le_bytes)? as usize,
            [len] => usize::from(len),
        };
        if !self.value_is_next {
            return take_slice(&mut self.rest, len);
        }
        let [unused] = take(&mut self.rest)?;
        let value = take_slice(&mut self.rest, len)?;
        take_slice(&mut self.rest, usize::from(unused))?;
        Some(value)
    }
}

impl<'a> Elements<'a> for Zipmap<'a> {
    fn next_element(&mut self) -> Result<Option<Element<'a>>, Problem> {
        if !self.value_is_next {
            if self.rest == [END] {
                return if matches!(self.left, None | Some(0)) { Ok(None) } else { Err(DAMAGED) };
            }
            self.left = match self.left {
                Some(left) => Some(left.checked_sub(1).ok_or(DAMAGED)?),
                None => None,
            };
        }
        let element = self.element().ok_or(DAMAGED)?;
        self.value_is_next = !self.value_is_next;
        Ok(Some(Element::Bytes(element)))
    }
}
