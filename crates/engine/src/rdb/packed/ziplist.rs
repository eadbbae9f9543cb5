//! The packed form of Redis before 7.
//!
//! # Format
//! ```text
//! all bytes (u32) │ where the last element begins (u32) │ elements (u16; 65535: not known) │ elements.. │ 255
//! element: bytes of the one before it (u8, or 254 and u32) │ first byte, and what it announces
//!
//! 00xxxxxx   string, length x                 11110000   24 bits
//! 01xxxxxx   string, length 14 bits           11111110   i8
//! 10......   string, length u32, big-endian   1111xxxx   integer x - 1, where x is 1..13
//! 11000000   i16     11010000   i32     11100000   i64
//! ```
//! Numbers are little-endian where nothing else is said.

use super::{Element, Elements, Problem, int24, take, take_slice};

const DAMAGED: Problem = Problem::Damaged("a ziplist is damaged");

const HEADER_BYTES: usize = 10;
const END: u8 = 0xff;
const COUNT_UNKNOWN: u16 = u16::MAX;
const BEFORE_IS_LONG: u8 = 254;

pub(in crate::rdb) struct Ziplist<'a> {
    rest: &'a [u8],
    left: Option<u16>,
    /// The bytes of the element that was read last; 0 at the start.
    before: usize,
}

impl<'a> Ziplist<'a> {
    pub(in crate::rdb) fn open(bytes: &'a [u8]) -> Result<Self, Problem> {
        let mut rest = bytes;
        let total = take(&mut rest).map(u32::from_le_bytes).ok_or(DAMAGED)?;
        let tail = take(&mut rest).map(u32::from_le_bytes).ok_or(DAMAGED)? as usize;
        let count = take(&mut rest).map(u16::from_le_bytes).ok_or(DAMAGED)?;
        if total as usize != bytes.len() || !(HEADER_BYTES..bytes.len()).contains(&tail) {
            return Err(DAMAGED);
        }
        Ok(Self { rest, left: (count != COUNT_UNKNOWN).then_some(count), before: 0 })
    }

    fn element(&mut self) -> Option<Element<'a>> {
        let start = self.rest;
        let before = match take(&mut self.rest)? {
            [BEFORE_IS_LONG] => take(&mut self.rest).map(u32::from_le_bytes)? as usize,
            [before] => usize::from(before),
        };
        let element = element(&mut self.rest)?;
        let is_chained = before == self.before;
        self.before = start.len() - self.rest.len();
        is_chained.then_some(element)
    }
}

impl<'a> Elements<'a> for Ziplist<'a> {
    fn next_element(&mut self) -> Result<Option<Element<'a>>, Problem> {
        if self.rest == [END] {
            return if matches!(self.left, None | Some(0)) { Ok(None) } else { Err(DAMAGED) };
        }
        self.left = match self.left {
            Some(left) => Some(left.checked_sub(1).ok_or(DAMAGED)?),
            None => None,
        };
        self.element().map(Some).ok_or(DAMAGED)
    }
}

fn element<'a>(rest: &mut &'a [u8]) -> Option<Element<'a>> {
    let [first] = take(rest)?;
    let len = match first {
        0..=0x3f => usize::from(first),
        0x40..=0x7f => usize::from(u16::from_be_bytes([first & 0x3f, take::<1>(rest)?[0]])),
        0x80..=0xbf => take(rest).map(u32::from_be_bytes)? as usize,
        0xc0 => return take(rest).map(|bytes| Element::Integer(i64::from(i16::from_le_bytes(bytes)))),
        0xd0 => return take(rest).map(|bytes| Element::Integer(i64::from(i32::from_le_bytes(bytes)))),
        0xe0 => return take(rest).map(|bytes| Element::Integer(i64::from_le_bytes(bytes))),
        0xf0 => return take(rest).map(|bytes| Element::Integer(int24(bytes))),
        0xfe => return take(rest).map(|bytes| Element::Integer(i64::from(i8::from_le_bytes(bytes)))),
        0xf1..=0xfd => return Some(Element::Integer(i64::from(first & 0x0f) - 1)),
        _ => return None,
    };
    take_slice(rest, len).map(Element::Bytes)
}
