//! What the bytes of an RDB file are made of: lengths, integers and strings, with the position and the checksum of what was read.
//!
//! # Guarantees
//! A length that the input claims costs no memory before the bytes have come.

use std::io::{self, BufRead};

use super::crc64::Crc64;
use super::error::Problem;
use super::lzf;

/// What a string reserves before its bytes have come.
const RESERVED_BYTES_MAX: usize = 64 << 10;

/// The highest two bits of a length say what follows.
const LENGTH_KIND: u8 = 0xc0;
pub(super) const LENGTH_6_BITS: u8 = 0x00;
pub(super) const LENGTH_14_BITS: u8 = 0x40;
pub(super) const LENGTH_ENCODED: u8 = 0xc0;
/// Whole first bytes.
pub(super) const LENGTH_32_BITS: u8 = 0x80;
pub(super) const LENGTH_64_BITS: u8 = 0x81;

/// What is in the place of a string, in the six lower bits of [`LENGTH_ENCODED`].
pub(super) const ENCODED_INT8: u8 = 0;
pub(super) const ENCODED_INT16: u8 = 1;
pub(super) const ENCODED_INT32: u8 = 2;
pub(super) const ENCODED_LZF: u8 = 3;

/// Input that is read once, from its start.
pub(crate) struct Source<R> {
    input: R,
    offset: u64,
    /// Of all that was read; `None` where nobody asks.
    crc: Option<Crc64>,
    /// What a compressed string is before it is decompressed.
    compressed: Vec<u8>,
}

/// A length, or a sign that something else is in its place.
enum Length {
    Of(u64),
    Encoded(u8),
}

impl<R: BufRead> Source<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, offset: 0, crc: None, compressed: Vec::new() }
    }

    /// The same with a checksum.
    pub(crate) fn with_checksum(input: R) -> Self {
        Self { crc: Some(Crc64::default()), ..Self::new(input) }
    }

    pub(crate) fn into_input(self) -> R {
        self.input
    }

    /// How many bytes were read.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn checksum(&self) -> u64 {
        self.crc.unwrap_or_default().value()
    }

    /// Whether nothing follows.
    pub(crate) fn is_at_end(&mut self) -> Result<bool, Problem> {
        self.chunk().map(<[u8]>::is_empty)
    }

    /// Reads past everything that follows.
    pub(crate) fn drain(&mut self) -> Result<(), Problem> {
        while !self.is_at_end()? {
            self.some(usize::MAX, |_| ())?;
        }
        Ok(())
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Problem> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let mut array = [0; N];
        let mut filled = 0;
        while filled < N {
            filled += self.some(N - filled, |bytes| array[filled..filled + bytes.len()].copy_from_slice(bytes))?;
        }
        Ok(array)
    }

    /// Appends the next `len` bytes to `out`.
    pub(crate) fn bytes(&mut self, len: usize, out: &mut Vec<u8>) -> Result<(), Problem> {
        let at_hand = self.chunk()?.len();
        out.reserve_exact(len.min(at_hand.max(RESERVED_BYTES_MAX)));
        let mut left = len;
        while left > 0 {
            left -= self.some(left, |bytes| out.extend_from_slice(bytes))?;
        }
        Ok(())
    }

    /// The same for a length that somebody claims.
    pub(crate) fn bytes_of(&mut self, len: u64, out: &mut Vec<u8>) -> Result<(), Problem> {
        self.bytes(checked(len)?, out)
    }

    pub(crate) fn skip(&mut self, len: u64) -> Result<(), Problem> {
        let mut left = len;
        while left > 0 {
            // Not more than `left`, so it fits.
            left -= self.some(usize::try_from(left).unwrap_or(usize::MAX), |_| ())? as u64;
        }
        Ok(())
    }

    /// A number of things, or any other number.
    pub(crate) fn number(&mut self) -> Result<u64, Problem> {
        match self.length()? {
            Length::Of(number) => Ok(number),
            Length::Encoded(_) => Err(Problem::Damaged("an encoded string stands where a number has to be")),
        }
    }

    pub(crate) fn string(&mut self) -> Result<Vec<u8>, Problem> {
        let mut string = Vec::new();
        self.string_into(&mut string)?;
        Ok(string)
    }

    /// Makes `out` the next string.
    pub(crate) fn string_into(&mut self, out: &mut Vec<u8>) -> Result<(), Problem> {
        out.clear();
        match self.length()? {
            Length::Of(len) => self.bytes_of(len, out),
            Length::Encoded(ENCODED_LZF) => self.compressed_into(out),
            Length::Encoded(encoding) => {
                let number = self.encoded_integer(encoding)?;
                out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
                Ok(())
            }
        }
    }

    /// Reads past a string.
    pub(crate) fn skip_string(&mut self) -> Result<(), Problem> {
        match self.length()? {
            Length::Of(len) => self.skip(len),
            Length::Encoded(ENCODED_LZF) => {
                let len = self.number()?;
                self.number()?;
                self.skip(len)
            }
            Length::Encoded(encoding) => self.encoded_integer(encoding).map(drop),
        }
    }

    /// An `f64` as sorted sets have it from version 8 on.
    pub(crate) fn double(&mut self) -> Result<f64, Problem> {
        self.array().map(f64::from_le_bytes)
    }

    fn length(&mut self) -> Result<Length, Problem> {
        let first = self.byte()?;
        let low = first & !LENGTH_KIND;
        Ok(match (first & LENGTH_KIND, first) {
            (LENGTH_6_BITS, _) => Length::Of(u64::from(low)),
            (LENGTH_14_BITS, _) => Length::Of(u64::from(u16::from_be_bytes([low, self.byte()?]))),
            (LENGTH_ENCODED, _) => Length::Encoded(low),
            (_, LENGTH_32_BITS) => Length::Of(u64::from(u32::from_be_bytes(self.array()?))),
            (_, LENGTH_64_BITS) => Length::Of(u64::from_be_bytes(self.array()?)),
            _ => return Err(Problem::Damaged("a length has a form that does not exist")),
        })
    }

    fn encoded_integer(&mut self, encoding: u8) -> Result<i32, Problem> {
        match encoding {
            ENCODED_INT8 => Ok(i32::from(i8::from_le_bytes(self.array()?))),
            ENCODED_INT16 => Ok(i32::from(i16::from_le_bytes(self.array()?))),
            ENCODED_INT32 => Ok(i32::from_le_bytes(self.array()?)),
            _ => Err(Problem::Damaged("a string has an encoding that does not exist")),
        }
    }

    fn compressed_into(&mut self, out: &mut Vec<u8>) -> Result<(), Problem> {
        let (len, decompressed_len) = (checked(self.number()?)?, checked(self.number()?)?);
        if decompressed_len as u64 > (len as u64).saturating_mul(lzf::RATIO_MAX) {
            return Err(Problem::Damaged("a compressed string says that it is longer than it can be"));
        }
        let mut compressed = std::mem::take(&mut self.compressed);
        compressed.clear();
        let result = self.bytes(len, &mut compressed);
        out.reserve_exact(if result.is_ok() { decompressed_len } else { 0 });
        let decompressed = lzf::decompress(&compressed, decompressed_len, out);
        self.compressed = compressed;
        result?;
        decompressed.ok_or(Problem::Damaged("a compressed string does not decompress"))
    }

    /// Shows up to `len` of the next bytes to `read`; at least one. Returns how many.
    fn some(&mut self, len: usize, read: impl FnOnce(&[u8])) -> Result<usize, Problem> {
        self.chunk()?;
        // At hand by now: this does not read again.
        let chunk = self.input.fill_buf().map_err(Problem::Io)?;
        let bytes = chunk.get(..len).unwrap_or(chunk);
        if bytes.is_empty() {
            return Err(Problem::Truncated);
        }
        if let Some(crc) = &mut self.crc {
            crc.add(bytes);
        }
        read(bytes);
        let taken = bytes.len();
        self.input.consume(taken);
        self.offset += taken as u64;
        Ok(taken)
    }

    /// What is at hand, read from the input if nothing is.
    fn chunk(&mut self) -> Result<&[u8], Problem> {
        loop {
            match self.input.fill_buf() {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Problem::Io(error)),
            }
        }
        self.input.fill_buf().map_err(Problem::Io)
    }
}

/// A length that memory could have. What is held has no other bound: whoever wrote it held it as well.
fn checked(len: u64) -> Result<usize, Problem> {
    let len_or_none = isize::try_from(len).ok().and_then(|len| usize::try_from(len).ok());
    len_or_none.ok_or(Problem::TooLong(len))
}
