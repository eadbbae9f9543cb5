//! Strings as arrays of bits: what BITCOUNT, BITPOS, BITOP and BITFIELD compute.
//!
//! # Guarantees
//! Bit 0 is the highest bit of byte 0, as SETBIT numbers them. Bits behind the end of a string read as 0. Counting and combining
//! take eight bytes at a time.
//!
//! # Failure
//! None: ranges are cut to the string; a value that does not fit its field is for [`Overflow`] to settle.

use std::ops::RangeInclusive;

/// What an index in a range of BITCOUNT or BITPOS counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes, the default.
    Byte,
    /// Bits.
    Bit,
}

/// The bits that `start..=end` names in `bytes`, negative indices counting from the end; `None` if that is no bit at all.
///
/// BITCOUNT has one more rule for itself, see [`count_range`].
pub(crate) fn bit_range(bytes: &[u8], start: i64, end: i64, unit: Unit) -> Option<RangeInclusive<u64>> {
    let units_per_byte = match unit {
        Unit::Byte => 1,
        Unit::Bit => 8,
    };
    let total = bytes.len() as i64 * units_per_byte;
    let from_start = |index: i64| if index < 0 { index.saturating_add(total).max(0) } else { index };
    let (start, end) = (from_start(start), from_start(end).min(total - 1));
    if start > end {
        return None;
    }
    let bits_per_unit = 8 / units_per_byte as u64;
    Some(start as u64 * bits_per_unit..=end as u64 * bits_per_unit + bits_per_unit - 1)
}

/// How many bits are set.
pub(crate) fn count(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words: u64 = words.iter().map(|word| u64::from(u64::from_ne_bytes(*word).count_ones())).sum();
    words + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
}

/// How many bits are set in a range as BITCOUNT reads it.
pub(crate) fn count_range(bytes: &[u8], start: i64, end: i64, unit: Unit) -> u64 {
    // Two negative indices in the wrong order are empty before they are cut to the string: `-1 -100` of one byte is not 0..=0.
    if start < 0 && end < 0 && start > end {
        return 0;
    }
    let Some(range) = bit_range(bytes, start, end, unit) else { return 0 };
    let (first, last) = (*range.start(), *range.end());
    let (first_byte, last_byte) = ((first / 8) as usize, (last / 8) as usize);
    let before = bytes[first_byte] & !after_mask(first % 8);
    let behind = bytes[last_byte] & after_mask(last % 8) & !last_mask(last % 8);
    count(&bytes[first_byte..=last_byte]) - u64::from(before.count_ones()) - u64::from(behind.count_ones())
}

/// Where the first bit that equals `bit` is within `range`.
pub(crate) fn position(bytes: &[u8], bit: bool, range: &RangeInclusive<u64>) -> Option<u64> {
    let (first, last) = (*range.start(), *range.end());
    let (first_byte, last_byte) = ((first / 8) as usize, (last / 8) as usize);
    // With every byte turned when a 0 is wanted, the search is always for a 1.
    let turn = if bit { 0 } else { 0xff };
    let head = (bytes[first_byte] ^ turn) & after_mask(first % 8);
    let at = if head != 0 {
        first_byte as u64 * 8 + u64::from(head.leading_zeros())
    } else {
        let rest = &bytes[first_byte + 1..=last_byte];
        (first_byte as u64 + 1) * 8 + first_difference(rest, turn)?
    };
    (at <= last).then_some(at)
}

/// What BITPOS replies: the position, or -1.
///
/// `end_given` tells whether the range came with an end. Without one a string is as good as followed by zeros, so that a search
/// for 0 in a string of ones finds the first bit behind it. `range` is `None` for an empty range, which holds neither bit.
pub(crate) fn position_reply(bytes: &[u8], bit: bool, range: Option<&RangeInclusive<u64>>, end_given: bool) -> i64 {
    let Some(range) = range else { return -1 };
    match position(bytes, bit, range) {
        Some(at) => at as i64,
        None if !bit && !end_given => *range.end() as i64 + 1,
        None => -1,
    }
}

/// How BITOP combines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Set in all.
    And,
    /// Set in any.
    Or,
    /// Set in an odd number.
    Xor,
    /// Not set in the one source.
    Not,
}

/// The sources combined, as long as the longest of them; shorter ones are as good as followed by zeros.
///
/// [`Operation::Not`] looks at the first source alone.
pub(crate) fn combine(operation: Operation, sources: &[&[u8]]) -> Vec<u8> {
    let Some((first, others)) = sources.split_first() else { return Vec::new() };
    let mut result = first.to_vec();
    if operation == Operation::Not {
        result.iter_mut().for_each(|byte| *byte = !*byte);
        return result;
    }
    result.resize(sources.iter().map(|source| source.len()).max().unwrap_or(0), 0);
    for source in others {
        let (shared, behind) = result.split_at_mut(source.len());
        // Plain loops over equal lengths: the compiler makes vector instructions of them.
        match operation {
            Operation::And => {
                shared.iter_mut().zip(*source).for_each(|(byte, other)| *byte &= other);
                behind.fill(0);
            }
            Operation::Or => shared.iter_mut().zip(*source).for_each(|(byte, other)| *byte |= other),
            Operation::Xor => shared.iter_mut().zip(*source).for_each(|(byte, other)| *byte ^= other),
            Operation::Not => {}
        }
    }
    result
}

/// The type of an integer in a BITFIELD: `i1` to `i64`, `u1` to `u63`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FieldType {
    signed: bool,
    bits: u32,
}

/// What becomes of a BITFIELD value that its field cannot hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// The lowest bits stay.
    #[default]
    Wrap,
    /// The nearest value that fits.
    Saturate,
    /// Nothing is written, the reply is null.
    Fail,
}

impl FieldType {
    /// Reads `i16`, `u8` and the like; `None` for anything else.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let (sign, digits) = text.split_first()?;
        let signed = match sign {
            b'i' => true,
            b'u' => false,
            _ => return None,
        };
        let bits = match digits {
            [one @ b'1'..=b'9'] => u32::from(one - b'0'),
            [ten @ b'1'..=b'9', one @ b'0'..=b'9'] => u32::from(ten - b'0') * 10 + u32::from(one - b'0'),
            _ => return None,
        };
        // An unsigned value of 64 bits would not fit the protocol's integers.
        (bits <= if signed { 64 } else { 63 }).then_some(Self { signed, bits })
    }

    /// How many bits wide the field is: what `#2` as an offset is a multiple of, and what a string must hold to be written.
    pub(crate) fn bits(self) -> u32 {
        self.bits
    }

    /// Reads the field at bit `offset`; what lies behind the string is 0.
    pub(crate) fn get(self, bytes: &[u8], offset: u64) -> i64 {
        // A field of 64 bits touches at most nine bytes.
        let mut window = [0; 16];
        let first = usize::try_from(offset / 8).unwrap_or(usize::MAX).min(bytes.len());
        let held = &bytes[first..bytes.len().min(first.saturating_add(9))];
        window[..held.len()].copy_from_slice(held);
        let raw = (u128::from_be_bytes(window) << (offset % 8)) >> (128 - self.bits);
        if self.signed { self.extended(raw as u64) } else { raw as i64 }
    }

    /// Writes the lowest bits of `value` at bit `offset`.
    ///
    /// # Panics
    /// If `bytes` ends before the field does: the caller makes room first.
    pub(crate) fn put(self, bytes: &mut [u8], offset: u64, value: i64) {
        let first = (offset / 8) as usize;
        let last = ((offset + u64::from(self.bits) - 1) / 8) as usize;
        let shift = 128 - self.bits - (offset % 8) as u32;
        let mask = u128::from(self.mask()) << shift;
        let placed = (u128::from(value as u64) << shift) & mask;
        let window = mask.to_be_bytes().into_iter().zip(placed.to_be_bytes());
        for (byte, (mask, placed)) in bytes[first..=last].iter_mut().zip(window) {
            *byte = (*byte & !mask) | placed;
        }
    }

    /// The value to store for SET with `value`; `None` to leave the field alone.
    pub(crate) fn fit(self, value: i64, overflow: Overflow) -> Option<i64> {
        self.add(value, 0, overflow)
    }

    /// The value to store for INCRBY; `None` to leave the field alone.
    pub(crate) fn add(self, value: i64, increment: i64, overflow: Overflow) -> Option<i64> {
        let Some(nearest) = self.exceeded(value, increment) else { return Some(value.wrapping_add(increment)) };
        match overflow {
            Overflow::Wrap => Some(self.wrapped(value.wrapping_add(increment))),
            Overflow::Saturate => Some(nearest),
            Overflow::Fail => None,
        }
    }

    /// The limit that `value + increment` passes, if any.
    fn exceeded(self, value: i64, increment: i64) -> Option<i64> {
        let max = self.max();
        if !self.signed {
            // A negative value to SET counts as a huge one.
            let over = value < 0 || value > max || (increment > 0 && increment > max - value);
            let under = !over && increment < 0 && increment < -value;
            return if over { Some(max) } else { under.then_some(0) };
        }
        let min = -max - 1;
        // Room in both directions is computed modulo 2^64, as Redis does: a value so far below `min` that `max - value` overflows
        // saturates to the upper limit (`SET i8 0 -9223372036854775808` stores 127).
        let (room_above, room_below) = (max.wrapping_sub(value), min.wrapping_sub(value));
        let narrow = self.bits < 64;
        if value > max || (narrow && increment > room_above) || (value >= 0 && increment > 0 && increment > room_above)
        {
            return Some(max);
        }
        let under =
            value < min || (narrow && increment < room_below) || (value < 0 && increment < 0 && increment < room_below);
        under.then_some(min)
    }

    fn wrapped(self, value: i64) -> i64 {
        if self.signed { self.extended(value as u64) } else { (value as u64 & self.mask()) as i64 }
    }

    /// The lowest bits with the highest of them as their sign.
    fn extended(self, raw: u64) -> i64 {
        let unused = 64 - self.bits;
        ((raw << unused) as i64) >> unused
    }

    fn max(self) -> i64 {
        let magnitude_bits = self.bits - u32::from(self.signed);
        // At most 63 bits, so the shift leaves one bit at least for the sign.
        i64::MAX >> (63 - magnitude_bits)
    }

    fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits)
    }
}

/// Ones for a bit of a byte and all behind it.
fn after_mask(bit: u64) -> u8 {
    0xff >> bit
}

/// A one for a bit of a byte alone.
fn last_mask(bit: u64) -> u8 {
    0x80 >> bit
}

/// The first bit at which `bytes` differ from a run of `same`.
fn first_difference(bytes: &[u8], same: u8) -> Option<u64> {
    let (words, rest) = bytes.as_chunks::<8>();
    let run = u64::from_ne_bytes([same; 8]);
    if let Some(index) = words.iter().position(|word| u64::from_ne_bytes(*word) != run) {
        let word = u64::from_be_bytes(words[index]) ^ run;
        return Some(index as u64 * 64 + u64::from(word.leading_zeros()));
    }
    let index = rest.iter().position(|&byte| byte != same)?;
    Some((words.len() * 8 + index) as u64 * 8 + u64::from((rest[index] ^ same).leading_zeros()))
}

#[cfg(test)]
mod tests {
    use super::{FieldType, Operation, Overflow, Unit, bit_range, combine, count, count_range, position_reply};

    fn find(bytes: &[u8], bit: bool, start: i64, end: Option<i64>, unit: Unit) -> i64 {
        let range = bit_range(bytes, start, end.unwrap_or(-1), unit);
        position_reply(bytes, bit, range.as_ref(), end.is_some())
    }

    #[test]
    fn counts_follow_bytes_and_bits() {
        assert_eq!(count(b"foobar"), 26);
        assert_eq!(count_range(b"foobar", 0, 0, Unit::Byte), 4);
        assert_eq!(count_range(b"foobar", 1, 1, Unit::Byte), 6);
        assert_eq!(count_range(b"foobar", 5, 30, Unit::Bit), 17);
        assert_eq!(count_range(b"foobar", -2, -100, Unit::Byte), 0);
        assert_eq!(count_range(b"", 0, -1, Unit::Byte), 0);
        assert_eq!(count_range(b"\xff", i64::MIN, i64::MAX, Unit::Bit), 8);
    }

    #[test]
    fn zeros_behind_the_string_are_found_only_without_an_end() {
        assert_eq!(find(b"\xff\xff", false, 0, None, Unit::Byte), 16);
        assert_eq!(find(b"\xff\xff", false, 0, Some(-1), Unit::Byte), -1);
        assert_eq!(find(b"\x00\x00", true, 0, None, Unit::Byte), -1);
        assert_eq!(find(b"", false, 0, None, Unit::Byte), -1);
        assert_eq!(find(b"\xff\xf0\x00", false, 0, None, Unit::Byte), 12);
        assert_eq!(find(b"\x00\xff\xf0", true, 7, Some(15), Unit::Bit), 8);
        assert_eq!(find(b"\x00\xff\xf0", true, 3, Some(7), Unit::Bit), -1);
    }

    #[test]
    fn a_shorter_source_is_followed_by_zeros() {
        let sources: [&[u8]; 2] = [b"\xf0\xf0\xf0", b"\xcc"];
        assert_eq!(combine(Operation::And, &sources), b"\xc0\x00\x00");
        assert_eq!(combine(Operation::Or, &sources), b"\xfc\xf0\xf0");
        assert_eq!(combine(Operation::Xor, &sources), b"\x3c\xf0\xf0");
        assert_eq!(combine(Operation::Not, &sources[..1]), b"\x0f\x0f\x0f");
        assert_eq!(combine(Operation::And, &[b"\xcc", b"\xf0\xf0\xf0"]), b"\xc0\x00\x00");
    }

    #[test]
    fn fields_read_back_what_was_put_and_touch_nothing_else() {
        for signed in [b'i', b'u'] {
            for bits in 1..=(if signed == b'i' { 64 } else { 63 }) {
                let field = FieldType::parse(format!("{}{bits}", signed as char).as_bytes()).expect("a type");
                for offset in 0..16 {
                    let mut bytes = [0xff; 12];
                    field.put(&mut bytes, offset, 0);
                    assert_eq!(count(&bytes), 96 - u64::from(field.bits()));
                    assert_eq!(field.get(&bytes, offset), 0);
                    field.put(&mut bytes, offset, field.max());
                    assert_eq!(field.get(&bytes, offset), field.max());
                }
            }
        }
        assert_eq!(FieldType::parse(b"i8").expect("a type").get(b"\x01", 100), 0);
        assert_eq!(FieldType::parse(b"u8").expect("a type").get(b"\x01", u64::MAX), 0);
    }

    #[test]
    fn types_beyond_the_protocol_are_refused() {
        for text in ["", "i", "u", "i0", "u64", "i65", "i08", "f8", "i-8", "u 8", "i100"] {
            assert_eq!(FieldType::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn overflow_wraps_saturates_or_fails() {
        let (i8_field, u8_field) = (FieldType::parse(b"i8").expect("i8"), FieldType::parse(b"u8").expect("u8"));
        assert_eq!(i8_field.add(127, 1, Overflow::Wrap), Some(-128));
        assert_eq!(i8_field.add(127, 1, Overflow::Saturate), Some(127));
        assert_eq!(i8_field.add(-128, -1, Overflow::Saturate), Some(-128));
        assert_eq!(i8_field.add(-128, -1, Overflow::Fail), None);
        assert_eq!(i8_field.fit(i64::MIN, Overflow::Saturate), Some(127));
        assert_eq!(u8_field.add(0, -1, Overflow::Saturate), Some(0));
        assert_eq!(u8_field.fit(-1, Overflow::Saturate), Some(255));
        assert_eq!(u8_field.fit(257, Overflow::Wrap), Some(1));
    }
}
