//! Numbers as C reads and prints them: `strtod` and `%.*g`.
//!
//! # Guarantees
//! Both are exact: the nearest double, and the shortest of the two notations with exactly the digits asked for, less trailing zeros.

/// Appends `number` as `printf("%.{precision}g")` does.
pub(super) fn format_g(number: f64, precision: usize, out: &mut Vec<u8>) {
    if !number.is_finite() {
        let text: &[u8] = match (number.is_nan(), number.is_sign_negative()) {
            (true, false) => b"nan",
            (true, true) => b"-nan",
            (false, false) => b"inf",
            (false, true) => b"-inf",
        };
        return out.extend_from_slice(text);
    }
    let scientific = format!("{:.*e}", precision - 1, number);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= precision as i32 {
        out.extend_from_slice(without_trailing_zeros(mantissa).as_bytes());
        let sign = if exponent < 0 { '-' } else { '+' };
        out.extend_from_slice(format!("e{sign}{:02}", exponent.unsigned_abs()).as_bytes());
    } else {
        let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
        out.extend_from_slice(without_trailing_zeros(&format!("{number:.decimals$}")).as_bytes());
    }
}

fn without_trailing_zeros(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

/// The number at the start of `text` and how many bytes it takes, as `strtod` finds it: decimal, hexadecimal, infinity or NaN.
pub(super) fn parse_prefix(text: &[u8]) -> Option<(f64, usize)> {
    let sign_bytes = usize::from(matches!(text.first(), Some(b'+' | b'-')));
    let (magnitude, bytes) = parse_unsigned(&text[sign_bytes..])?;
    let number = if text.first() == Some(&b'-') { -magnitude } else { magnitude };
    Some((number, sign_bytes + bytes))
}

fn parse_unsigned(text: &[u8]) -> Option<(f64, usize)> {
    if starts_with_ignoring_case(text, b"infinity") {
        return Some((f64::INFINITY, 8));
    }
    if starts_with_ignoring_case(text, b"inf") {
        return Some((f64::INFINITY, 3));
    }
    if starts_with_ignoring_case(text, b"nan") {
        return Some((f64::NAN, 3 + nan_payload_bytes(&text[3..])));
    }
    if starts_with_ignoring_case(text, b"0x")
        && let Some(found) = parse_hexadecimal(text)
    {
        return Some(found);
    }
    parse_decimal(text)
}

pub(super) fn starts_with_ignoring_case(text: &[u8], start: &[u8]) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

/// The length of `(letters and digits)` after `nan`, 0 if it is not closed.
fn nan_payload_bytes(text: &[u8]) -> usize {
    if text.first() != Some(&b'(') {
        return 0;
    }
    let inside = text[1..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    if text.get(1 + inside) == Some(&b')') { inside + 2 } else { 0 }
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn parse_decimal(text: &[u8]) -> Option<(f64, usize)> {
    let whole = digits(text);
    let mut end = whole;
    let mut fraction = 0;
    if text.get(end) == Some(&b'.') {
        fraction = digits(&text[end + 1..]);
        end += 1 + fraction;
    }
    if whole + fraction == 0 {
        return None;
    }
    let digits_end = end;
    let (power, bytes) = exponent(&text[end..], b'e').unwrap_or((0, 0));
    end += bytes;
    if power.unsigned_abs() > POWER_MAX {
        return Some((with_long_exponent(&text[..digits_end], whole, power), end));
    }
    let number = std::str::from_utf8(&text[..end]).ok()?.parse().ok()?;
    Some((number, end))
}

/// Powers of ten beyond which a number with its first digit behind the point is zero or infinite, and within which the parser of
/// the standard library reads any.
const POWER_MAX: u64 = 10_000;

/// A decimal number whose exponent only so many digits can make up for: it is written anew with one that is as small as it can be.
/// `whole` is the number of digits before the point.
fn with_long_exponent(digits: &[u8], whole: usize, power: i64) -> f64 {
    let mut significant: String = digits.iter().filter(|byte| **byte != b'.').map(|byte| char::from(*byte)).collect();
    let zeros = significant.bytes().take_while(|byte| *byte == b'0').count();
    significant.drain(..zeros);
    // Texts are shorter than 2^62 bytes, and powers are cut there.
    let power = power + whole as i64 - zeros as i64;
    let power = power.clamp(-(POWER_MAX as i64), POWER_MAX as i64);
    // Without a digit that counts it is zero: `0.e5` reads as that.
    format!("0.{significant}e{power}").parse().unwrap_or(0.0)
}

/// An exponent such as `e-12`: its value, and its length. Values are cut where no text is long enough to make up for them.
fn exponent(text: &[u8], letter: u8) -> Option<(i64, usize)> {
    const EXPONENT_MAX: i64 = 1 << 60;
    if !text.first()?.eq_ignore_ascii_case(&letter) {
        return None;
    }
    let sign_bytes = usize::from(matches!(text.get(1), Some(b'+' | b'-')));
    let start = 1 + sign_bytes;
    let count = digits(text.get(start..)?);
    if count == 0 {
        return None;
    }
    let push =
        |value: i64, digit: &u8| value.saturating_mul(10).saturating_add((digit - b'0').into()).min(EXPONENT_MAX);
    let value = text[start..start + count].iter().fold(0, push);
    Some((if text[1] == b'-' { -value } else { value }, start + count))
}

fn parse_hexadecimal(text: &[u8]) -> Option<(f64, usize)> {
    // Bits beyond these only matter for rounding: one of them set is remembered in the lowest bit.
    const KEPT_BELOW: u64 = 1 << 59;
    let mut mantissa: u64 = 0;
    let mut scale: i64 = 0;
    let mut found = false;
    let mut point = false;
    let mut at = 2;
    while let Some(byte) = text.get(at) {
        if *byte == b'.' && !point {
            point = true;
        } else if let Some(digit) = char::from(*byte).to_digit(16) {
            found = true;
            if mantissa < KEPT_BELOW {
                mantissa = mantissa << 4 | u64::from(digit);
                scale -= if point { 4 } else { 0 };
            } else {
                mantissa |= u64::from(digit != 0);
                scale += if point { 0 } else { 4 };
            }
        } else {
            break;
        }
        at += 1;
    }
    if !found {
        return None;
    }
    let (power, bytes) = exponent(&text[at..], b'p').unwrap_or((0, 0));
    Some((scaled(mantissa, scale + power), at + bytes))
}

/// The double nearest to `mantissa * 2^power`; of two that are as near, the even one.
fn scaled(mantissa: u64, power: i64) -> f64 {
    const DIGITS: i64 = f64::MANTISSA_DIGITS as i64;
    const POWER_MIN: i64 = f64::MIN_EXP as i64 - DIGITS;
    const STEP: i64 = 1_000;
    // The power of its highest bit.
    let top = power + i64::from(u64::BITS - mantissa.leading_zeros()) - 1;
    if mantissa == 0 || top < POWER_MIN - 1 {
        return 0.0;
    }
    if top >= i64::from(f64::MAX_EXP) {
        return f64::INFINITY;
    }
    // Rounded once, here: the lowest bit of the result has at least this power.
    let lowest = (top + 1 - DIGITS).max(POWER_MIN).max(power);
    let cut = (lowest - power) as u32;
    let (kept, rest) = (u128::from(mantissa) >> cut, u128::from(mantissa) & ((1 << cut) - 1));
    let half = (1_u128 << cut) >> 1;
    let rounds_up = cut > 0 && (rest > half || rest == half && kept % 2 == 1);
    // Exact: 53 bits at most, and products within the range of a double, in steps that are within it as well.
    let (mut number, mut left) = ((kept as u64 + u64::from(rounds_up)) as f64, lowest);
    while left != 0 {
        let step = left.clamp(-STEP, STEP);
        number *= 2f64.powi(step as i32);
        left -= step;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::{format_g, parse_prefix};

    fn g(number: f64, precision: usize) -> String {
        let mut out = Vec::new();
        format_g(number, precision, &mut out);
        String::from_utf8(out).expect("ascii")
    }

    #[test]
    fn digits_and_notation_are_those_of_printf() {
        assert_eq!(g(0.1, 14), "0.1");
        assert_eq!(g(-0.0, 14), "-0");
        assert_eq!(g(1e14, 14), "1e+14");
        assert_eq!(g(99_999_999_999_999.5, 14), "1e+14");
        assert_eq!(g(0.0001, 14), "0.0001");
        assert_eq!(g(0.00001234, 3), "1.23e-05");
        assert_eq!(g(1e300, 14), "1e+300");
    }

    #[test]
    fn a_number_ends_where_strtod_ends() {
        assert_eq!(parse_prefix(b"1.5e3x"), Some((1500.0, 5)));
        assert_eq!(parse_prefix(b"1e"), Some((1.0, 1)));
        assert_eq!(parse_prefix(b"0x1p4]"), Some((16.0, 5)));
        assert_eq!(parse_prefix(b"0xg"), Some((0.0, 1)));
        assert_eq!(parse_prefix(b"-.5"), Some((-0.5, 3)));
        assert_eq!(parse_prefix(b"-"), None);
        assert_eq!(parse_prefix(b"INFinite"), Some((f64::INFINITY, 3)));
    }

    fn number(text: &str) -> f64 {
        let (number, bytes) = parse_prefix(text.as_bytes()).expect("a number");
        assert_eq!(bytes, text.len());
        number
    }

    #[test]
    fn many_digits_make_up_for_a_long_exponent() {
        const DIGITS: usize = 1_500_000;
        let zeros = "0".repeat(DIGITS);
        assert_eq!(number(&format!("0x1{zeros}p-{}", 4 * DIGITS)), 1.0);
        assert_eq!(number(&format!("0x1{zeros}p-{}", 4 * DIGITS - 3)), 8.0);
        assert_eq!(number(&format!("0x0.{zeros}3p{}", 4 * DIGITS + 4)), 3.0);
        assert_eq!(number(&format!("0x{zeros}")), 0.0);
        assert_eq!(number(&format!("0x{zeros}p{zeros}9999999999999999999999")), 0.0);
        assert_eq!(number("0x1p99999999999999999999"), f64::INFINITY);
        assert_eq!(number("0x1p-99999999999999999999"), 0.0);
        assert_eq!(number(&format!("-12{zeros}e-{DIGITS}")), -12.0);
        assert_eq!(number(&format!("1{zeros}.5e-{}", DIGITS + 1)), 0.1);
        assert_eq!(number(&format!("0.{zeros}12e{}", DIGITS + 1)), 1.2);
        assert_eq!(number(&format!("{zeros}e99999")), 0.0);
        assert_eq!(number("1e99999999999999999999"), f64::INFINITY);
        assert_eq!(number("1e-99999999999999999999"), 0.0);
    }

    #[test]
    fn hexadecimal_digits_are_rounded_once() {
        assert_eq!(number("0x1.fffffffffffff7p0").to_bits(), 0x3fff_ffff_ffff_ffff);
        assert_eq!(number("0x1.fffffffffffff8p0"), 2.0);
        assert_eq!(number("0x1.00000000000008p0"), 1.0);
        assert_eq!(number("0x1.000000000000080000000000000000001p0"), 1.0 + f64::EPSILON);
        assert_eq!(number("0x1p-1074").to_bits(), 1);
        assert_eq!(number("0x1p-1075").to_bits(), 0);
        assert_eq!(number("0x1.0000000000000000001p-1075").to_bits(), 1);
        assert_eq!(number("0x1.8p-1074").to_bits(), 2);
        assert_eq!(number("0x1.7ffffffffffffcp-1074").to_bits(), 1, "not 1.8 first, and 2 then");
        assert_eq!(number("0x1.fffffffffffffp1023"), f64::MAX);
        assert_eq!(number("0x1.fffffffffffff8p1023"), f64::INFINITY);
        assert_eq!(number("0x0.8p1024"), 2f64.powi(1023));
        assert_eq!(number("0xffffffffffffffffp-1"), 2f64.powi(63));
    }
}
