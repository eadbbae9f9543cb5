//! Numbers as Redis reads and writes them.
//!
//! # Guarantees
//! The parsers accept exactly what Redis 7.0 accepts as an argument, and nothing that merely resembles it: an integer has one
//! spelling, a float has the spellings of C's `strtod` without surrounding blanks. The formatters write what C's `printf`
//! writes, digit for digit.
//!
//! # Failure
//! A parser answers `None`; it never guesses, rounds an integer or clamps a float. A formatter cannot fail.
//!
//! # How it works
//! Rust formats floats exactly to any number of digits, and parses decimal ones correctly rounded. What remains is C's layout
//! (`%g` chooses between plain and exponent form) and hexadecimal floats, which are rounded here by hand.

use std::io::Write;

/// Longest spelling of an `i64`: a sign and 19 digits.
const I64_DIGITS_MAX: usize = 19;

/// Decimal digits that `%.17g` keeps: enough to name any double, and what Redis shows for scores.
const G17_DIGITS: i32 = 17;

/// Integers below this fit into 17 digits, so that `%.17g` writes them plainly.
const G17_PLAIN_BELOW: f64 = 1e17;

/// Reads a decimal integer in its only spelling: no `+`, no leading zeros, no blanks, no `-0`.
///
/// ```
/// # use acteon_resp::parse_i64;
/// assert_eq!(parse_i64(b"-42"), Some(-42));
/// assert_eq!(parse_i64(b"042"), None);
/// ```
#[must_use]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        b"0" => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.len() > I64_DIGITS_MAX || !matches!(digits.first(), Some(b'1'..=b'9')) {
        return None;
    }
    // 19 digits always fit into 64 bits without a sign.
    let mut magnitude = 0u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        magnitude = magnitude * 10 + u64::from(digit - b'0');
    }
    if is_negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// Reads a float as Redis reads scores and other float arguments: decimal or hexadecimal, `inf` and `infinity` in any case.
///
/// Refused are NaN, blanks, trailing bytes, and numbers too large or too small for a double (`1e400`, `1e-400`);
/// a number that only loses digits by being subnormal is accepted.
///
/// ```
/// # use acteon_resp::parse_f64;
/// assert_eq!(parse_f64(b"0x10"), Some(16.0));
/// assert_eq!(parse_f64(b"-Infinity"), Some(f64::NEG_INFINITY));
/// assert_eq!(parse_f64(b"1e400"), None);
/// assert_eq!(parse_f64(b" 1"), None);
/// ```
#[must_use]
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let (is_negative, magnitude) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let value = match magnitude {
        [b'0', b'x' | b'X', hex @ ..] => parse_hex_float(hex)?,
        [b'0'..=b'9' | b'.', ..] => parse_decimal_float(magnitude)?,
        word if word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"infinity") => f64::INFINITY,
        _ => return None,
    };
    Some(if is_negative { -value } else { value })
}

/// Appends a float as C's `%.17g` writes it: the form of scores and of doubles in replies.
///
/// ```
/// # use acteon_resp::format_g17;
/// let mut out = Vec::new();
/// format_g17(0.1, &mut out);
/// assert_eq!(out, b"0.10000000000000001");
/// ```
pub fn format_g17(value: f64, out: &mut Vec<u8>) {
    if let Some(word) = word_for(value) {
        out.extend_from_slice(word);
        return;
    }
    // Scores are mostly small integers.
    if value.abs() < G17_PLAIN_BELOW && value.trunc() == value && !(value == 0.0 && value.is_sign_negative()) {
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
        return;
    }
    let scientific = Scientific::new(value);
    if value.is_sign_negative() {
        out.push(b'-');
    }
    if (-4..G17_DIGITS).contains(&scientific.exponent) {
        scientific.write_plain(out);
    } else {
        scientific.write_with_exponent(out);
    }
}

/// Appends a float as C's `%.17f` writes it, without trailing zeros and without a sign on zero: the form of coordinates.
///
/// ```
/// # use acteon_resp::format_fixed17;
/// let mut out = Vec::new();
/// format_fixed17(1.5, &mut out);
/// assert_eq!(out, b"1.5");
/// ```
pub fn format_fixed17(value: f64, out: &mut Vec<u8>) {
    if let Some(word) = word_for(value) {
        out.extend_from_slice(word);
        return;
    }
    let start = out.len();
    write!(out, "{value:.17}").expect("writing to a Vec cannot fail");
    // There is always a point, which stops the trimming before the digits of the integer part.
    while out.last() == Some(&b'0') {
        out.pop();
    }
    if out.last() == Some(&b'.') {
        out.pop();
    }
    if out[start..] == *b"-0" {
        out.remove(start);
    }
}

/// What is no number in digits. C prints the sign of a NaN, so a script that divides 0 by 0 gets `-nan` on most machines.
fn word_for(value: f64) -> Option<&'static [u8]> {
    if value.is_finite() {
        None
    } else if value.is_nan() {
        Some(if value.is_sign_negative() { b"-nan" } else { b"nan" })
    } else if value > 0.0 {
        Some(b"inf")
    } else {
        Some(b"-inf")
    }
}

/// A finite double as `d.dddd * 10^exponent`, with the digits that are not trailing zeros.
struct Scientific {
    digits: [u8; G17_DIGITS as usize],
    digits_len: usize,
    exponent: i32,
}

impl Scientific {
    fn new(value: f64) -> Self {
        // "1.2345678901234567e-308": at most 23 bytes.
        let mut text = [0u8; 32];
        let mut free = &mut text[..];
        write!(free, "{:.16e}", value.abs()).expect("a double in scientific form fits into 32 bytes");
        let written = 32 - free.len();
        let mut digits = [0u8; G17_DIGITS as usize];
        digits[0] = text[0];
        digits[1..].copy_from_slice(&text[2..18]);
        let zeros = digits.iter().rev().take_while(|digit| **digit == b'0').count();
        // The exponent has at most three digits and a sign.
        let exponent = match &text[19..written] {
            [b'-', digits @ ..] => -decimal(digits),
            digits => decimal(digits),
        };
        Self { digits, digits_len: (digits.len() - zeros).max(1), exponent }
    }

    fn write_plain(&self, out: &mut Vec<u8>) {
        let digits = &self.digits[..self.digits_len];
        if self.exponent < 0 {
            out.extend_from_slice(b"0.");
            out.extend((1..-self.exponent).map(|_| b'0'));
            out.extend_from_slice(digits);
            return;
        }
        let integer_len = self.exponent as usize + 1;
        out.extend_from_slice(&self.digits[..integer_len]);
        if let Some(fraction @ [_, ..]) = digits.get(integer_len..) {
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
    }

    fn write_with_exponent(&self, out: &mut Vec<u8>) {
        let (first, fraction) = self.digits[..self.digits_len].split_at(1);
        out.extend_from_slice(first);
        if !fraction.is_empty() {
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
        out.extend_from_slice(if self.exponent < 0 { b"e-" } else { b"e+" });
        // C writes two digits at least.
        if self.exponent.unsigned_abs() < 10 {
            out.push(b'0');
        }
        out.extend_from_slice(itoa::Buffer::new().format(self.exponent.unsigned_abs()).as_bytes());
    }
}

fn decimal(digits: &[u8]) -> i32 {
    digits.iter().fold(0, |value, digit| value * 10 + i32::from(digit - b'0'))
}

/// A decimal float that starts with a digit or a point. Rust's grammar and C's are the same for these.
fn parse_decimal_float(text: &[u8]) -> Option<f64> {
    let value: f64 = str::from_utf8(text).ok()?.parse().ok()?;
    let is_underflow = value == 0.0 && has_nonzero_digit(text);
    (value.is_finite() && !is_underflow).then_some(value)
}

fn has_nonzero_digit(text: &[u8]) -> bool {
    text.iter().take_while(|byte| !matches!(byte, b'e' | b'E')).any(|byte| matches!(byte, b'1'..=b'9'))
}

/// The part of a hexadecimal float behind `0x`: digits with an optional point, then optionally `p` and a power of two.
fn parse_hex_float(text: &[u8]) -> Option<f64> {
    let mantissa_len = text.iter().position(|byte| matches!(byte, b'p' | b'P')).unwrap_or(text.len());
    let (mantissa, power) = text.split_at(mantissa_len);
    let power = match power {
        [] => 0,
        [_, digits @ ..] => parse_power(digits)?,
    };
    let mut significand = Significand::default();
    let mut point = None;
    let mut digits = 0i64;
    for byte in mantissa {
        match (byte, point) {
            (b'.', None) => point = Some(digits),
            _ => {
                significand.push(char::from(*byte).to_digit(16)?);
                digits += 1;
            }
        }
    }
    if digits == 0 {
        return None;
    }
    let fraction_digits = digits - point.unwrap_or(digits);
    significand.to_f64(power.saturating_sub(fraction_digits.saturating_mul(4)))
}

/// A power with an optional sign. Beyond any power that matters it saturates.
fn parse_power(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value =
        digits.iter().fold(0i64, |value, digit| value.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    Some(if is_negative { -value } else { value })
}

/// The leading 60 to 64 bits of a binary number, the count of bits cut off behind them, and whether any of those was set.
#[derive(Default)]
struct Significand {
    bits: u64,
    bits_cut: i64,
    is_inexact: bool,
}

impl Significand {
    fn push(&mut self, digit: u32) {
        if self.bits.leading_zeros() >= 4 {
            self.bits = self.bits << 4 | u64::from(digit);
        } else {
            self.bits_cut += 4;
            self.is_inexact |= digit != 0;
        }
    }

    /// This number times a power of two, rounded half to even once; `None` when it overflows or vanishes.
    fn to_f64(&self, power: i64) -> Option<f64> {
        if self.bits == 0 {
            return Some(0.0);
        }
        let shift = self.bits.leading_zeros();
        let bits = self.bits << shift;
        // The power of two of the highest bit.
        let exponent = power.saturating_add(self.bits_cut).saturating_add(63 - i64::from(shift));
        if exponent > 1023 {
            return None;
        }
        // A normal double keeps 53 of the 64 bits. A subnormal one loses a bit more for each power below the smallest.
        let cut = 11 + (-1022i64).saturating_sub(exponent).max(0);
        let rounded = round_off(bits, cut, self.is_inexact);
        // Adding, not setting, lets a carry out of the rounding raise the exponent, up to infinity.
        let biased = if exponent < -1022 { 0 } else { (exponent + 1022) as u64 };
        let value = f64::from_bits((biased << 52) + rounded);
        (value.is_finite() && value != 0.0).then_some(value)
    }
}

/// `bits` without the lowest `cut`, rounded half to even. `is_inexact`: something below the lowest bit was lost before.
fn round_off(bits: u64, cut: i64, is_inexact: bool) -> u64 {
    if cut > 64 {
        return 0;
    }
    let wide = u128::from(bits);
    let kept = wide >> cut;
    let rest = wide - (kept << cut);
    let half = 1u128 << (cut - 1);
    let rounds_up = rest > half || rest == half && (is_inexact || kept & 1 == 1);
    (kept + u128::from(rounds_up)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::{format_fixed17, format_g17, parse_f64, parse_i64};

    fn g17(value: f64) -> String {
        let mut out = b">".to_vec();
        format_g17(value, &mut out);
        String::from_utf8(out).unwrap().split_off(1)
    }

    fn fixed17(value: f64) -> String {
        let mut out = b">".to_vec();
        format_fixed17(value, &mut out);
        String::from_utf8(out).unwrap().split_off(1)
    }

    /// What glibc's printf writes: `%.17g`, and `%.17f` with its zeros trimmed.
    #[test]
    fn floats_are_written_as_c_writes_them() {
        let cases = [
            (0.0, "0", "0"),
            (-0.0, "-0", "0"),
            (1.0, "1", "1"),
            (-1.0, "-1", "-1"),
            (100.0, "100", "100"),
            (0.1, "0.10000000000000001", "0.10000000000000001"),
            (0.3, "0.29999999999999999", "0.29999999999999999"),
            (-123.456, "-123.456", "-123.45600000000000307"),
            (1_234_567.891, "1234567.8910000001", "1234567.89100000006146729"),
            (0.001, "0.001", "0.001"),
            (0.00012345, "0.00012344999999999999", "0.00012345"),
            (0.000099999999999999, "9.9999999999999002e-05", "0.0001"),
            (1.2345e-7, "1.2345000000000001e-07", "0.00000012345"),
            (1e-10, "1e-10", "0.0000000001"),
            (-1e-300, "-1e-300", "0"),
            (1e16, "10000000000000000", "10000000000000000"),
            (99999999999999984.0, "99999999999999984", "99999999999999984"),
            (1e17, "1e+17", "100000000000000000"),
            (1.5e17, "1.5e+17", "150000000000000000"),
            (1e23, "9.9999999999999992e+22", "99999999999999991611392"),
            (6.02214076e23, "6.0221407599999999e+23", "602214075999999987023872"),
            (2.2250738585072014e-308, "2.2250738585072014e-308", "0"),
            (5e-324, "4.9406564584124654e-324", "0"),
            (f64::INFINITY, "inf", "inf"),
            (f64::NEG_INFINITY, "-inf", "-inf"),
            (f64::NAN, "nan", "nan"),
        ];
        for (value, as_g, as_f) in cases {
            assert_eq!((g17(value).as_str(), fixed17(value).as_str()), (as_g, as_f));
        }
        assert_eq!(g17(f64::MAX), "1.7976931348623157e+308");
    }

    #[test]
    fn an_integer_has_one_spelling() {
        for (text, value) in
            [("0", 0), ("7", 7), ("-7", -7), ("9223372036854775807", i64::MAX), ("-9223372036854775808", i64::MIN)]
        {
            assert_eq!(parse_i64(text.as_bytes()), Some(value), "{text}");
        }
        let refused = [
            "",
            "-",
            "+1",
            "01",
            "-0",
            "-01",
            "00",
            " 1",
            "1 ",
            "1.0",
            "1e3",
            "0x1",
            "--1",
            "9223372036854775808",
            "-9223372036854775809",
            "9999999999999999999",
            "18446744073709551617",
            "10000000000000000000",
        ];
        for text in refused {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text}");
        }
    }

    /// What redis-server 7.0.15 stores for these as scores.
    #[test]
    fn floats_are_read_as_redis_reads_them() {
        for (text, value) in [
            ("+1", 1.0),
            ("1.", 1.0),
            (".5", 0.5),
            ("-2.5E-1", -0.25),
            ("inf", f64::INFINITY),
            ("+INF", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("0e-999", 0.0),
            ("1e-320", 1e-320),
            ("2.4703282292062328e-324", 5e-324),
            ("0x10", 16.0),
            ("0X.8", 0.5),
            ("-0x1p3", -8.0),
            ("0x1.8P+1", 3.0),
            ("0x0p-9999", 0.0),
            ("0x1p-1074", 5e-324),
            ("0x1.8p-1075", 5e-324),
            ("0x1.fffffffffffffp1023", f64::MAX),
            ("0x1.fffffffffffff7p1023", f64::MAX),
            ("0x0.fffffffffffffp-1022", 2.225073858507201e-308),
            ("0x0.fffffffffffff8p-1022", f64::MIN_POSITIVE),
            // Ties go to the even neighbour, and a bit far behind breaks them.
            ("0x20000000000001", 9007199254740992.0),
            ("0x20000000000003", 9007199254740996.0),
            ("0x20000000000001.00000000000000000001", 9007199254740994.0),
            ("0x100000000000000000000p-80", 1.0),
        ] {
            assert_eq!(parse_f64(text.as_bytes()), Some(value), "{text}");
        }
        let refused = [
            "",
            "-",
            ".",
            "+.",
            "e5",
            "1e",
            "1e+",
            "1_0",
            "1,0",
            " 1",
            "1 ",
            "1\0",
            "+-1",
            "nan",
            "-nan",
            "nan(1)",
            "infinit",
            "infinityy",
            "1e400",
            "-1e400",
            "1e-400",
            "-1e-999",
            "2.4703282292062327e-324",
            "0x",
            "0x.",
            "0xg",
            "0x1p",
            "0x1p+",
            "0x1.2.3",
            "0x1p1024",
            "0x1.fffffffffffff8p1023",
            "0x1p-1075",
            "0x1p99999999999999999999",
            "0x1p-99999999999999999999",
            "1d",
            "1f",
        ];
        for text in refused {
            assert_eq!(parse_f64(text.as_bytes()), None, "{text}");
        }
        assert!(parse_f64(b"-0").is_some_and(|zero| zero.is_sign_negative()));
    }

    proptest! {
        #[test]
        fn a_written_float_reads_back_as_the_same(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            if !value.is_nan() {
                prop_assert_eq!(parse_f64(g17(value).as_bytes()).map(f64::to_bits), Some(bits));
            }
        }

        #[test]
        fn a_written_integer_reads_back_as_the_same(value in any::<i64>()) {
            prop_assert_eq!(parse_i64(value.to_string().as_bytes()), Some(value));
        }

        #[test]
        fn a_hexadecimal_float_is_rounded_as_the_processor_rounds(bits in any::<u64>(), power in -1140i32..1000) {
            // A conversion from an integer and a division by a power of two round once each; only one of them does here.
            let text = format!("-0x{bits:x}p{power}");
            let read = parse_f64(text.as_bytes());
            if power >= -1022 {
                let expected = -(bits as f64) * 2f64.powi(power);
                prop_assert_eq!(read, expected.is_finite().then_some(expected));
            } else {
                let exact = (bits >> 11 << 11) as f64;
                let text = format!("-0x{:x}p{power}", bits >> 11 << 11);
                let expected = -exact * 2f64.powi(-1000) * 2f64.powi(power + 1000);
                prop_assert_eq!(parse_f64(text.as_bytes()), (expected != 0.0 || exact == 0.0).then_some(expected));
            }
        }

        #[test]
        fn any_bytes_are_a_number_or_none(text in "[-+0-9a-fA-FxXpPiInN. ]{0,12}|\\PC*") {
            if let Some(value) = parse_f64(text.as_bytes()) {
                prop_assert!(!value.is_nan());
            }
            if let Some(value) = parse_i64(text.as_bytes()) {
                prop_assert_eq!(value.to_string(), text);
            }
        }
    }
}
