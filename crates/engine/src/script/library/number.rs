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
    end += exponent(&text[end..], b'e').map_or(0, |(_, bytes)| bytes);
    let number = std::str::from_utf8(&text[..end]).ok()?.parse().ok()?;
    Some((number, end))
}

/// An exponent such as `e-12`: its value, and its length. Values are cut where every double has long become 0 or infinite.
fn exponent(text: &[u8], letter: u8) -> Option<(i32, usize)> {
    const EXPONENT_MAX: i32 = 1_000_000;
    if !text.first()?.eq_ignore_ascii_case(&letter) {
        return None;
    }
    let sign_bytes = usize::from(matches!(text.get(1), Some(b'+' | b'-')));
    let start = 1 + sign_bytes;
    let count = digits(text.get(start..)?);
    if count == 0 {
        return None;
    }
    let push = |value: i32, digit: &u8| (value * 10 + i32::from(digit - b'0')).min(EXPONENT_MAX);
    let value = text[start..start + count].iter().fold(0, push);
    Some((if text[1] == b'-' { -value } else { value }, start + count))
}

fn parse_hexadecimal(text: &[u8]) -> Option<(f64, usize)> {
    // Bits beyond these only matter for rounding: one of them set is remembered in the lowest bit.
    const KEPT_BELOW: u64 = 1 << 59;
    let mut mantissa: u64 = 0;
    let mut scale: i32 = 0;
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
                scale = scale.saturating_sub(if point { 4 } else { 0 });
            } else {
                mantissa |= u64::from(digit != 0);
                scale = scale.saturating_add(if point { 0 } else { 4 });
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
    Some((scaled(mantissa as f64, scale.saturating_add(power)), at + bytes))
}

/// `number * 2^power`, in steps that neither overflow nor underflow on the way.
fn scaled(mut number: f64, power: i32) -> f64 {
    const STEP: i32 = 1_000;
    // After these many steps any double is 0 or infinite.
    let mut left = power.clamp(-4 * STEP, 4 * STEP);
    while left != 0 {
        let step = left.clamp(-STEP, STEP);
        number *= 2f64.powi(step);
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
}
