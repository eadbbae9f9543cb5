//! Reads the fields of a stored text one after the other, where it lies.
//!
//! # How it works
//! Fields have their bounds in themselves (a number ends at the first byte that is no digit, an identifier has a fixed width), so no text
//! is searched for separators first and then looked at again. Every method is `None` when the text does not go on like this; what was
//! read until then is of no use any more.

use crate::id::{self, ID_TEXT_BYTES};

/// What is left of a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) const fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// What was not read yet.
    pub(crate) const fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Exactly these bytes.
    pub(crate) fn literal(&mut self, bytes: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(bytes)?;
        Some(())
    }

    /// One byte.
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// A number as formatting gives it: digits only, the first of which is no zero unless it is the only one.
    pub(crate) fn number(&mut self) -> Option<u64> {
        let (mut number, mut rest) = (0_u64, self.rest);
        while let Some((chunk, after)) = rest.split_first_chunk()
            && let Some(eight) = eight_digits(*chunk)
        {
            number = number.checked_mul(100_000_000)?.checked_add(eight)?;
            rest = after;
        }
        while let [byte @ b'0'..=b'9', after @ ..] = rest {
            number = number.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
            rest = after;
        }
        let digits = self.rest.len() - rest.len();
        if digits == 0 || (digits > 1 && self.rest[0] == b'0') {
            return None;
        }
        self.rest = rest;
        Some(number)
    }

    /// The text of an identifier.
    pub(crate) fn id(&mut self) -> Option<u128> {
        let (text, rest) = self.rest.split_at_checked(ID_TEXT_BYTES)?;
        self.rest = rest;
        id::decode(text)
    }

    /// The text of an identifier, or a hyphen for none.
    pub(crate) fn id_or_hyphen(&mut self) -> Option<Option<u128>> {
        // No identifier ends with a hyphen, but one may begin with it, so it is the byte after that tells.
        match self.rest {
            [b'-', b' ' | b'\n', ..] => {
                self.rest = &self.rest[1..];
                Some(None)
            }
            _ => self.id().map(Some),
        }
    }

    /// Everything before the next end of line, which is read too.
    pub(crate) fn line(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|byte| *byte == b'\n')?;
        let (line, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        Some(line)
    }
}

/// The number of eight digits; `None` if one of them is none.
///
/// Times in microseconds have sixteen digits, and each record of a lock has four of them, so digits are read eight at a time within one word: first
/// neighbours are joined to numbers of two digits, then these to numbers of four and of eight. See Daniel Lemire, "Quickly parsing eight
/// digits" (2018).
const fn eight_digits(text: [u8; 8]) -> Option<u64> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0xf0 * ONES;
    let word = u64::from_le_bytes(text);
    // Digits are 0x30 to 0x39: six more do not carry into the upper half of their byte.
    let above = word.wrapping_add(6 * ONES);
    if (word & HIGH) | ((above & HIGH) >> 4) != 0x33 * ONES {
        return None;
    }
    let word = word - 0x30 * ONES;
    let pairs = word.wrapping_mul(10).wrapping_add(word >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    Some((fours.wrapping_mul(10_000).wrapping_add(fours >> 32)) & 0xffff_ffff)
}

/// A number that is all of the text.
pub(crate) fn parse_number(text: &[u8]) -> Option<u64> {
    let mut fields = Fields::new(text);
    fields.number().filter(|_| fields.rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{Fields, parse_number};
    use crate::id;

    #[test]
    fn numbers_are_read_up_to_the_largest_one() {
        for number in [0, 7, 10, 9_999_999_999_999_999_999, u64::MAX] {
            assert_eq!(parse_number(number.to_string().as_bytes()), Some(number));
        }
        for bad in ["", "00", "07", "18446744073709551616", "99999999999999999999", "1/", "1:", "-1", "+1", " 1"] {
            assert_eq!(parse_number(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_byte_that_is_no_digit_is_seen_wherever_it_stands() {
        for length in 1..=20 {
            let digits = &b"12345678901234567890"[..length];
            assert_eq!(parse_number(digits), str::from_utf8(digits).unwrap().parse().ok());
            for at in 0..length {
                for bad in (0..=u8::MAX).filter(|byte| !byte.is_ascii_digit()) {
                    let mut text = digits.to_vec();
                    text[at] = bad;
                    assert_eq!(parse_number(&text), None, "{bad} at {at} of {length}");
                    // Read as a field, the number ends before it.
                    let before = str::from_utf8(&digits[..at]).unwrap().parse().ok();
                    assert_eq!(Fields::new(&text).number(), before, "{bad} at {at} of {length}");
                }
            }
        }
    }

    #[test]
    fn fields_end_where_the_next_one_begins() {
        let mut fields = Fields::new(b"x 12 0 -\nline\nrest");
        assert_eq!((fields.byte(), fields.literal(b" "), fields.number()), (Some(b'x'), Some(()), Some(12)));
        assert_eq!((fields.literal(b" 0 "), fields.id_or_hyphen()), (Some(()), Some(None)));
        assert_eq!((fields.line(), fields.line()), (Some(&b""[..]), Some(&b"line"[..])));
        assert_eq!((fields.rest(), fields.line()), (&b"rest"[..], None));
    }

    #[test]
    fn an_identifier_that_begins_with_a_hyphen_is_none_the_less_one() {
        let number = 0xf800_0000_0000_0000_0000_0000_0000_0001;
        let text = id::encode(number);
        assert_eq!(text[0], b'-');
        assert_eq!(Fields::new(&text).id_or_hyphen(), Some(Some(number)));
        assert_eq!(Fields::new(&text[..21]).id_or_hyphen(), None);
    }
}
