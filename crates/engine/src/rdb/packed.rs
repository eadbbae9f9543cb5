//! Small collections as Redis keeps them in memory and writes them to files: one string with all elements in it.
//!
//! # Guarantees
//! Each form is read to its end and checked on the way: its length, its number of elements, its end.

mod intset;
mod listpack;
mod ziplist;
mod zipmap;

pub(super) use intset::IntSet;
pub(super) use listpack::Listpack;
pub(super) use ziplist::Ziplist;
pub(super) use zipmap::Zipmap;

use super::error::Problem;

/// One element. Integers are stored as such and mean their decimal form.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Element<'a> {
    Bytes(&'a [u8]),
    Integer(i64),
}

impl Element<'_> {
    /// Shows the bytes of the element to `read`.
    pub(super) fn with<R>(self, read: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Element::Bytes(bytes) => read(bytes),
            Element::Integer(integer) => read(itoa::Buffer::new().format(integer).as_bytes()),
        }
    }
}

/// A packed collection on its way to be read.
pub(super) trait Elements<'a> {
    /// The next element; `None` after the last one, if everything was as it should be.
    fn next_element(&mut self) -> Result<Option<Element<'a>>, Problem>;

    /// Shows all elements to `visit`.
    fn each(mut self, mut visit: impl FnMut(&[u8]) -> Result<(), Problem>) -> Result<(), Problem>
    where
        Self: Sized,
    {
        while let Some(element) = self.next_element()? {
            element.with(&mut visit)?;
        }
        Ok(())
    }

    /// Shows all elements, two by two, to `visit`.
    fn each_pair(mut self, mut visit: impl FnMut(&[u8], Element<'a>) -> Result<(), Problem>) -> Result<(), Problem>
    where
        Self: Sized,
    {
        while let Some(first) = self.next_element()? {
            let Some(second) = self.next_element()? else {
                return Err(Problem::Damaged("a packed hash or sorted set has half a pair at its end"));
            };
            first.with(|first| visit(first, second))?;
        }
        Ok(())
    }
}

/// Takes `N` bytes from the start of `rest`.
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*taken)
}

/// Takes `len` bytes from the start of `rest`.
fn take_slice<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(taken)
}

/// An integer of three bytes.
fn int24([low, middle, high]: [u8; 3]) -> i64 {
    // The sign is that of the highest byte.
    i64::from(i32::from_le_bytes([0, low, middle, high]) >> 8)
}
