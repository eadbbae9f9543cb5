//! The packed form of Redis 7.
//!
//! # Format
//! ```text
//! all bytes (u32) │ elements (u16; 65535: not known) │ elements.. │ 255
//! element: first byte, what it announces │ how many bytes that was, readable from behind
//!
//! 0xxxxxxx   integer 0..127              11110000   string, length u32
//! 10xxxxxx   string, length x            11110001   i16
//! 110xxxxx   integer of 13 bits          11110010   24 bits
//! 1110xxxx   string, length 12 bits      11110011   i32      11110100   i64
//! ```
//! Numbers are little-endian, except those that begin in the first byte. The length behind an element takes seven bits to a byte, the highest first; all bytes but
//! the first have their highest bit set.

use super::{Element, Elements, Problem, int24, take, take_slice};

const DAMAGED: Problem = Problem::Damaged("a listpack is damaged");

const END: u8 = 0xff;
const COUNT_UNKNOWN: u16 = u16::MAX;

pub(in crate::rdb) struct Listpack<'a> {
    rest: &'a [u8],
    /// How many elements are still to come, if that is known.
    left: Option<u16>,
}

impl<'a> Listpack<'a> {
    pub(in crate::rdb) fn open(bytes: &'a [u8]) -> Result<Self, Problem> {
        let mut rest = bytes;
        let total = take(&mut rest).map(u32::from_le_bytes).ok_or(DAMAGED)?;
        let count = take(&mut rest).map(u16::from_le_bytes).ok_or(DAMAGED)?;
        if total as usize != bytes.len() {
            return Err(DAMAGED);
        }
        Ok(Self { rest, left: (count != COUNT_UNKNOWN).then_some(count) })
    }

    fn element(&mut self) -> Option<Element<'a>> {
        let before = self.rest;
        let element = element(&mut self.rest)?;
        let len = before.len() - self.rest.len();
        let behind = take_slice(&mut self.rest, behind_bytes(len))?;
        (read_behind(behind) == Some(len)).then_some(element)
    }
}

impl<'a> Elements<'a> for Listpack<'a> {
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
        0..=0x7f => return Some(Element::Integer(i64::from(first))),
        0x80..=0xbf => usize::from(first & 0x3f),
        0xc0..=0xdf => {
            let [low] = take(rest)?;
            // The sign is the highest of 13 bits.
            let shifted = i16::from_be_bytes([first << 3 | low >> 5, low << 3]);
            return Some(Element::Integer(i64::from(shifted >> 3)));
        }
        0xe0..=0xef => usize::from(u16::from_be_bytes([first & 0x0f, take::<1>(rest)?[0]])),
        0xf0 => take(rest).map(u32::from_le_bytes)? as usize,
        0xf1 => return take(rest).map(|bytes| Element::Integer(i64::from(i16::from_le_bytes(bytes)))),
        0xf2 => return take(rest).map(|bytes| Element::Integer(int24(bytes))),
        0xf3 => return take(rest).map(|bytes| Element::Integer(i64::from(i32::from_le_bytes(bytes)))),
        0xf4 => return take(rest).map(|bytes| Element::Integer(i64::from_le_bytes(bytes))),
        _ => return None,
    };
    take_slice(rest, len).map(Element::Bytes)
}

/// The bytes of the length behind an element of `len` bytes. The bounds are Redis's, one less than seven bits to a byte would allow.
fn behind_bytes(len: usize) -> usize {
    match len {
        0..=127 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    }
}

fn read_behind(bytes: &[u8]) -> Option<usize> {
    let (first, others) = bytes.split_first()?;
    let is_well_formed = *first < 0x80 && others.iter().all(|byte| *byte >= 0x80);
    let number = bytes.iter().fold(0, |number: u64, byte| number << 7 | u64::from(byte & 0x7f));
    usize::try_from(number).ok().filter(|_| is_well_formed)
}
