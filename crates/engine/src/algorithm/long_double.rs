//! The 80-bit floating point numbers that INCRBYFLOAT and HINCRBYFLOAT compute with.
//!
//! # Guarantees
//! [`LongDouble::parse`], [`LongDouble::add`] and [`LongDouble::write_human`] give what `strtold`, `+` and `printf("%.17Lf")` give on
//! x86-64 Linux, where `long double` has a mantissa of 64 bits and an exponent of 15: every result is rounded once, to the nearest
//! number, ties to even. So `0.1 + 0.2` is `0.3`, as clients of Redis know it, and not the `0.30000000000000004` of a double.
//!
//! # Failure
//! Text that is no such number, one too large for it or too close to zero, and "nan", give `None`. A sum may be infinite or
//! not a number: ask [`LongDouble::is_finite`].
//!
//! # How it works
//! A finite number is `mantissa * 2^exponent`. Text of up to 19 digits and sums of any numbers take one or two operations on
//! 128 bits. Longer text and prints of numbers of 2^64 and more go through a row of 32-bit limbs, which is slower by far and bounded
//! by the length of the text ([`TEXT_BYTES_MAX`]) and the range of exponents: at most a few milliseconds.

/// The longest text that can be a number. Redis copies it to a buffer of 5 KiB, with a zero at its end.
pub(crate) const TEXT_BYTES_MAX: usize = 5 * 1024 - 1;

/// Digits behind the point of a printed number.
const PRINTED_DECIMALS: u32 = 17;

/// The exponent of the last bit of the smallest numbers.
const EXPONENT_MIN: i32 = -16_445;

/// The exponent of the last bit of the largest numbers.
const EXPONENT_MAX: i32 = 16_320;

/// Decimal exponents beyond this, counted from the first digit, are out of range whatever the digits are.
const DECIMAL_EXPONENT_LIMIT: i64 = 5_000;

/// Binary exponents beyond this are out of range whatever the digits are: the range of numbers and the bits of the longest text.
const BINARY_EXPONENT_LIMIT: i64 = 17_000;

/// A number as the x87 unit keeps it in a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LongDouble {
    negative: bool,
    magnitude: Magnitude,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Magnitude {
    Nan,
    Infinite,
    /// `mantissa * 2^exponent`. The highest bit of the mantissa is set, or the exponent is the smallest one, or the number is 0.
    Finite {
        mantissa: u64,
        exponent: i32,
    },
}

const ZERO: Magnitude = Magnitude::Finite { mantissa: 0, exponent: EXPONENT_MIN };

impl LongDouble {
    /// Reads decimal or hexadecimal text or an infinity, all of it; no space in front, nothing behind.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        let magnitude = match text {
            [b'0', b'x' | b'X', hexadecimal @ ..] => parse_hexadecimal(hexadecimal)?,
            _ if text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity") => Magnitude::Infinite,
            _ => parse_decimal(text)?,
        };
        Some(Self { negative, magnitude })
    }

    /// The sum, rounded to the nearest number.
    pub(crate) fn add(self, other: Self) -> Self {
        let (small, large) = match (self.magnitude, other.magnitude) {
            (Magnitude::Nan, _) | (_, Magnitude::Nan) => return Self::NAN,
            (Magnitude::Infinite, Magnitude::Infinite) if self.negative != other.negative => return Self::NAN,
            (Magnitude::Infinite, _) => return self,
            (_, Magnitude::Infinite) => return other,
            (
                Magnitude::Finite { mantissa: one, exponent: one_exponent },
                Magnitude::Finite { mantissa: two, exponent: two_exponent },
            ) => {
                let (one, two) = ((one, one_exponent, self.negative), (two, two_exponent, other.negative));
                if one_exponent < two_exponent { (one, two) } else { (two, one) }
            }
        };
        add_finite(small, large)
    }

    /// The thousandfold, rounded up to an integer; `None` if that has more than 64 bits.
    pub(crate) fn thousandfold_up(self) -> Option<i64> {
        let Magnitude::Finite { mantissa, exponent } = self.magnitude else { return None };
        let Magnitude::Finite { mantissa, exponent } = rounded(u128::from(mantissa) * 1_000, exponent, false) else {
            return None;
        };
        let magnitude = match exponent.unsigned_abs() {
            _ if mantissa == 0 => 0,
            shift if exponent > 0 => i128::from(mantissa).checked_shl(shift).filter(|_| shift < 64)?,
            // Up is away from zero for positive numbers only.
            shift if shift >= 64 => i128::from(!self.negative),
            shift if self.negative => i128::from(mantissa >> shift),
            shift => i128::from(mantissa).checked_add((1 << shift) - 1)? >> shift,
        };
        i64::try_from(if self.negative { -magnitude } else { magnitude }).ok()
    }

    /// Neither infinite nor "not a number".
    pub(crate) fn is_finite(self) -> bool {
        matches!(self.magnitude, Magnitude::Finite { .. })
    }

    /// Appends the number with up to 17 decimals, without zeros at their end, never with an exponent: what Redis stores.
    pub(crate) fn write_human(self, out: &mut Vec<u8>) {
        let (mantissa, exponent) = match self.magnitude {
            Magnitude::Finite { mantissa, exponent } => (mantissa, exponent),
            Magnitude::Infinite => return out.extend_from_slice(if self.negative { b"-inf" } else { b"inf" }),
            Magnitude::Nan => return out.extend_from_slice(if self.negative { b"-nan" } else { b"nan" }),
        };
        let digits = decimals_cut(&scaled_digits(mantissa, exponent));
        // A number that rounds to 0 has no sign, which `printf` would leave.
        if self.negative && digits != b"0" {
            out.push(b'-');
        }
        out.extend_from_slice(&digits);
    }

    // The x87 unit makes a NaN with its sign set.
    const NAN: Self = Self { negative: true, magnitude: Magnitude::Nan };
}

impl From<i64> for LongDouble {
    fn from(value: i64) -> Self {
        let magnitude = rounded(u128::from(value.unsigned_abs()), 0, false);
        Self { negative: value < 0, magnitude }
    }
}

impl From<f64> for LongDouble {
    fn from(value: f64) -> Self {
        const FRACTION_BITS: u32 = 52;
        let bits = value.to_bits();
        let fraction = bits & ((1 << FRACTION_BITS) - 1);
        let magnitude = match (bits >> FRACTION_BITS) & 0x7ff {
            0x7ff if fraction == 0 => Magnitude::Infinite,
            0x7ff => Magnitude::Nan,
            0 => rounded(u128::from(fraction), -1074, false),
            biased => rounded(u128::from(fraction | 1 << FRACTION_BITS), biased as i32 - 1075, false),
        };
        Self { negative: value.is_sign_negative(), magnitude }
    }
}

/// A finite number with its sign: mantissa, exponent, whether negative.
type Signed = (u64, i32, bool);

fn add_finite(
    (small, small_exponent, small_negative): Signed,
    (large, large_exponent, large_negative): Signed,
) -> LongDouble {
    // The one of the larger exponent moves up by what 128 bits leave room for; the other moves down for the rest of the distance and
    // leaves one bit that says whether something fell off. That bit lies far below the last one of the result.
    const ROOM_BITS: u32 = 62;
    let distance = large_exponent.abs_diff(small_exponent);
    let up = distance.min(ROOM_BITS);
    let down = distance - up;
    let large = u128::from(large) << up;
    let (kept, lost) = if down >= 64 { (0, small != 0) } else { (small >> down, small & ((1 << down) - 1) != 0) };
    // With one bit more, the bit for what fell off has a place of its own.
    let (large, small) = (large << 1, u128::from(kept) << 1 | u128::from(lost));
    let exponent = large_exponent - up as i32 - 1;
    let (negative, sum) = if small_negative == large_negative {
        (large_negative, large + small)
    } else if large >= small {
        (large_negative, large - small)
    } else {
        (small_negative, small - large)
    };
    // A difference of equals is +0; a sum of two -0 stays negative.
    let negative = if sum == 0 { small_negative && large_negative } else { negative };
    LongDouble { negative, magnitude: rounded(sum, exponent, false) }
}

/// The nearest number to `value * 2^exponent`, or to a little more than that if `more` fell off its end.
fn rounded(value: u128, exponent: i32, more: bool) -> Magnitude {
    if value == 0 {
        return ZERO;
    }
    let bits = (128 - value.leading_zeros()) as i32;
    let drop = (bits - 64).max(EXPONENT_MIN - exponent);
    if drop <= 0 {
        // All bits fit. `drop` is how far up the mantissa moves, so that its highest bit is set where the exponent allows.
        return finite((value << drop.unsigned_abs()) as u64, exponent + drop);
    }
    if drop > 128 {
        return ZERO;
    }
    let (kept, rest) = if drop == 128 { (0, value) } else { (value >> drop, value & ((1 << drop) - 1)) };
    let half = 1u128 << (drop - 1);
    let up = rest > half || (rest == half && (more || kept & 1 == 1));
    let kept = kept + u128::from(up);
    if kept >> 64 != 0 { finite(1 << 63, exponent + drop + 1) } else { finite(kept as u64, exponent + drop) }
}

fn finite(mantissa: u64, exponent: i32) -> Magnitude {
    match mantissa {
        0 => ZERO,
        _ if exponent > EXPONENT_MAX => Magnitude::Infinite,
        _ => Magnitude::Finite { mantissa, exponent },
    }
}

/// What was written without its point: the digits, and the exponent that counts from behind the last of them.
struct Written {
    digits: Vec<u8>,
    exponent: i64,
}

/// Splits digits with an optional point and an optional exponent behind `mark`; `bits` is what one digit weighs in its exponent.
fn split(text: &[u8], is_digit: fn(&u8) -> bool, mark: u8, weight: i64) -> Option<Written> {
    let end = text.iter().position(|byte| byte.to_ascii_lowercase() == mark).unwrap_or(text.len());
    let (body, exponent) = (&text[..end], &text[end..]);
    let point = body.iter().position(|&byte| byte == b'.');
    let (whole, decimals) = point.map_or((body, &body[..0]), |at| (&body[..at], &body[at + 1..]));
    if whole.is_empty() && decimals.is_empty() || !whole.iter().chain(decimals).all(is_digit) {
        return None;
    }
    let mut digits: Vec<u8> = whole.iter().chain(decimals).copied().skip_while(|&digit| digit == b'0').collect();
    let mut exponent = if exponent.is_empty() { 0 } else { parse_exponent(&exponent[1..])? };
    exponent -= decimals.len() as i64 * weight;
    while digits.last() == Some(&b'0') {
        digits.pop();
        exponent += weight;
    }
    Some(Written { digits, exponent })
}

/// An exponent with an optional sign; one of many digits is as good as any that is out of range.
fn parse_exponent(text: &[u8]) -> Option<i64> {
    const OUT_OF_RANGE: i64 = 1_000_000_000;
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0, |value, digit| (value * 10 + i64::from(digit - b'0')).min(OUT_OF_RANGE));
    Some(if negative { -value } else { value })
}

fn parse_decimal(text: &[u8]) -> Option<Magnitude> {
    let Written { digits, exponent } = split(text, u8::is_ascii_digit, b'e', 1)?;
    if digits.is_empty() {
        return Some(ZERO);
    }
    if (exponent + digits.len() as i64).abs() > DECIMAL_EXPONENT_LIMIT {
        return None;
    }
    in_range(short_decimal(&digits, exponent).unwrap_or_else(|| long_decimal(&digits, exponent as i32)))
}

/// Text too large or too small is refused, as `strtold` reports it: `ERANGE` with an infinity or a zero.
fn in_range(magnitude: Magnitude) -> Option<Magnitude> {
    (magnitude != Magnitude::Infinite && magnitude != ZERO).then_some(magnitude)
}

/// Up to 19 digits with a point among the last 18 of them, or none: what almost all text is.
fn short_decimal(digits: &[u8], exponent: i64) -> Option<Magnitude> {
    const POWER_MAX: u64 = 18;
    if digits.len() > 19 || exponent.unsigned_abs() > POWER_MAX {
        return None;
    }
    let value = digits.iter().fold(0u128, |value, digit| value * 10 + u128::from(digit - b'0'));
    let power = 10u128.pow(exponent.unsigned_abs() as u32);
    if exponent >= 0 {
        return Some(rounded(value * power, 0, false));
    }
    // The quotient has at least 128 - 60 bits: more than the mantissa, and those behind it for rounding.
    let shift = value.leading_zeros();
    let value = value << shift;
    Some(rounded(value / power, -(shift as i32), value % power != 0))
}

fn long_decimal(digits: &[u8], exponent: i32) -> Magnitude {
    let mut limbs = Limbs::default();
    for chunk in digits.chunks(9) {
        let value = chunk.iter().fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
        limbs.multiply_add(10u32.pow(chunk.len() as u32), value);
    }
    let powers = |count: u32| (0..count / 9).map(|_| 10u32.pow(9)).chain([10u32.pow(count % 9)]);
    if exponent >= 0 {
        powers(exponent.unsigned_abs()).for_each(|power| limbs.multiply_add(power, 0));
        return limbs.rounded(0, false);
    }
    // log2(10) is less than 10/3: the quotient keeps at least 100 bits.
    let shift = (exponent.unsigned_abs() * 10).div_ceil(3) + 100;
    limbs.shift_up(shift);
    let mut more = false;
    for power in powers(exponent.unsigned_abs()) {
        more |= limbs.divide(power) != 0;
    }
    limbs.rounded(-(shift as i32), more)
}

fn parse_hexadecimal(text: &[u8]) -> Option<Magnitude> {
    let Written { digits, exponent } = split(text, u8::is_ascii_hexdigit, b'p', 4)?;
    if digits.is_empty() {
        return Some(ZERO);
    }
    if (exponent + digits.len() as i64 * 4).abs() > BINARY_EXPONENT_LIMIT {
        return None;
    }
    let mut limbs = Limbs::default();
    for &digit in &digits {
        let value = (digit as char).to_digit(16).unwrap_or_default();
        limbs.multiply_add(16, value);
    }
    in_range(limbs.rounded(exponent as i32, false))
}

/// The digits of the number times 10^17, rounded to the nearest integer.
fn scaled_digits(mantissa: u64, exponent: i32) -> Vec<u8> {
    const SCALE: u64 = 10u64.pow(PRINTED_DECIMALS);
    // At most 64 + 57 bits.
    let scaled = u128::from(mantissa) * u128::from(SCALE);
    if exponent > 0 {
        let mut limbs = Limbs::from(scaled);
        limbs.shift_up(exponent.unsigned_abs());
        return limbs.into_decimal();
    }
    let drop = exponent.unsigned_abs();
    let value = match drop {
        0 => scaled,
        1..=127 => {
            let (kept, rest, half) = (scaled >> drop, scaled & ((1 << drop) - 1), 1 << (drop - 1));
            kept + u128::from(rest > half || (rest == half && kept & 1 == 1))
        }
        // Less than a half of the last digit.
        _ => 0,
    };
    value.to_string().into_bytes()
}

/// Sets the point in front of the last 17 digits and takes away what stands for nothing.
fn decimals_cut(digits: &[u8]) -> Vec<u8> {
    let decimals = PRINTED_DECIMALS as usize;
    let mut text = vec![b'0'; (decimals + 1).saturating_sub(digits.len())];
    text.extend_from_slice(digits);
    let point = text.len() - decimals;
    let kept = text[point..].iter().rposition(|&digit| digit != b'0').map_or(0, |last| last + 1);
    text.truncate(point + kept);
    if kept > 0 {
        text.insert(point, b'.');
    }
    text
}

/// A natural number of any size, its lowest 32 bits first, without zeros on top.
#[derive(Default)]
struct Limbs(Vec<u32>);

impl From<u128> for Limbs {
    fn from(value: u128) -> Self {
        let mut limbs = Self((0..4).map(|limb| (value >> (32 * limb)) as u32).collect());
        limbs.trim();
        limbs
    }
}

impl Limbs {
    fn multiply_add(&mut self, factor: u32, summand: u32) {
        let mut carry = u64::from(summand);
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry != 0 {
            self.0.push(carry as u32);
        }
    }

    /// Divides and gives the remainder.
    fn divide(&mut self, divisor: u32) -> u32 {
        let mut rest = 0;
        for limb in self.0.iter_mut().rev() {
            let value = rest << 32 | u64::from(*limb);
            *limb = (value / u64::from(divisor)) as u32;
            rest = value % u64::from(divisor);
        }
        self.trim();
        rest as u32
    }

    fn shift_up(&mut self, bits: u32) {
        self.multiply_add(1 << (bits % 32), 0);
        let zeros = (bits / 32) as usize;
        self.0.splice(0..0, std::iter::repeat_n(0, zeros));
    }

    /// The nearest number to this one times `2^exponent`, or to a little more if `more` fell off.
    fn rounded(&self, exponent: i32, more: bool) -> Magnitude {
        const TOP_LIMBS: usize = 4;
        let below = self.0.len().saturating_sub(TOP_LIMBS);
        let top = self.0[below..].iter().rev().fold(0, |value, &limb| value << 32 | u128::from(limb));
        let more = more || self.0[..below].iter().any(|&limb| limb != 0);
        rounded(top, exponent + 32 * below as i32, more)
    }

    fn into_decimal(mut self) -> Vec<u8> {
        let mut chunks = Vec::new();
        while !self.0.is_empty() {
            chunks.push(self.divide(10u32.pow(9)));
        }
        let mut text = chunks.pop().unwrap_or_default().to_string();
        for chunk in chunks.iter().rev() {
            text.push_str(&format!("{chunk:09}"));
        }
        text.into_bytes()
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LongDouble, TEXT_BYTES_MAX};

    fn human(number: LongDouble) -> String {
        let mut out = Vec::new();
        number.write_human(&mut out);
        String::from_utf8(out).expect("digits")
    }

    fn sum(one: &str, two: &str) -> String {
        let parse = |text: &str| LongDouble::parse(text.as_bytes()).expect(text);
        human(parse(one).add(parse(two)))
    }

    #[test]
    fn sums_are_those_of_redis() {
        for (one, two, expected) in [
            ("0.1", "0.2", "0.3"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("3", "1.00000000000000002", "4.00000000000000002"),
            ("-0", "-0", "0"),
            ("1e-30", "-2e-30", "0"),
            ("0x10", "0x.8p1", "17"),
            ("18446744073709551615", "1", "18446744073709551616"),
            ("18446744073709551616", "1", "18446744073709551616"),
            ("1e25", "0", "10000000000000000000000000"),
            ("1.1", "-1", "0.1"),
            ("inf", "1", "inf"),
        ] {
            assert_eq!(sum(one, two), expected, "{one} + {two}");
        }
    }

    #[test]
    fn text_that_is_no_number_is_refused() {
        let long = "1".repeat(TEXT_BYTES_MAX + 1);
        for text in [
            "", " 1", "1 ", "abc", "1e", "1e+", "0x", "0xp1", ".", "+-1", "nan", "1e5000", "1e-5000", "infinit", "--1",
            &long,
        ] {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_ends_of_the_range_are_exact() {
        let largest = LongDouble::parse(b"1.18973149535723176502e4932").expect("the largest number");
        assert!(largest.is_finite());
        assert!(!largest.add(largest).is_finite());
        assert_eq!(LongDouble::parse(b"1.18973149535723176509e4932"), None);
        assert_eq!(LongDouble::parse(b"3.6e-4951"), LongDouble::parse(b"0x1p-16445"));
        assert_eq!(LongDouble::parse(b"1.8e-4951"), None);
        let infinite = LongDouble::parse(b"-inf").expect("an infinity");
        assert_eq!(human(infinite.add(LongDouble::parse(b"inf").expect("an infinity"))), "-nan");
    }

    #[test]
    fn integers_and_doubles_convert_exactly() {
        assert_eq!(human(LongDouble::from(i64::MIN)), "-9223372036854775808");
        assert_eq!(human(LongDouble::from(0.1)), "0.10000000000000001");
        assert_eq!(human(LongDouble::from(-5e-324)), "0");
        assert_eq!(human(LongDouble::from(13.361389338970184)), "13.36138933897018433");
    }
}
