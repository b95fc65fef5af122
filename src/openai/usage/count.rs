//! A count of tokens as servers write it.

use serde_json::value::RawValue;

/// Larger counts are no counts: beyond it JSON readers disagree on the number, and sums of line items must stay far from
/// overflow.
pub(super) const MAX_COUNT: u64 = 1 << 53;

/// The count in `raw`, rounded up and at most [`MAX_COUNT`]; `None` when it is not a number or is negative.
pub(super) fn count(raw: &RawValue) -> Option<u64> {
    let number = raw.get();
    if number.bytes().all(|byte| byte.is_ascii_digit()) {
        // All digits, so only a number past 64 bits does not parse.
        return Some(number.parse().unwrap_or(u64::MAX).min(MAX_COUNT));
    }
    if !number.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    Some(decimal(whole, fraction, exponent))
}

/// `whole.fraction` x 10^`exponent` without floating point: the decimal point is moved over the digits.
fn decimal(whole: &str, fraction: &str, exponent: &str) -> u64 {
    let overflow = if exponent.starts_with('-') { i64::MIN } else { i64::MAX };
    let exponent = exponent.trim_start_matches('+').parse::<i64>().unwrap_or(overflow);
    let point = i64::try_from(whole.len()).unwrap_or(i64::MAX).saturating_add(exponent);
    let point = usize::try_from(point).unwrap_or(0);
    let mut digits = whole.bytes().chain(fraction.bytes()).map(|digit| u64::from(digit.wrapping_sub(b'0')));
    let (mut value, mut taken) = (0_u64, 0_usize);
    while taken < point && value < MAX_COUNT {
        match digits.next() {
            Some(digit) => value = value.saturating_mul(10).saturating_add(digit),
            None if value == 0 => break,
            None => value = value.saturating_mul(10),
        }
        taken += 1;
    }
    let rest = digits.any(|digit| digit > 0);
    value.saturating_add(u64::from(rest)).min(MAX_COUNT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<u64> {
        count(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn fractions_round_up_and_exponents_are_understood() {
        for (json, value) in [
            ("0", 0),
            ("42", 42),
            ("42.0", 42),
            ("42.000001", 43),
            ("1e3", 1_000),
            ("1.5E+2", 150),
            ("12345e-2", 124),
            ("0.001", 1),
            ("0e999999999999999999999", 0),
            ("1e-999999999999999999999", 1),
        ] {
            assert_eq!(read(json), Some(value), "{json}");
        }
    }

    #[test]
    fn numbers_past_what_json_can_carry_are_cut_there() {
        for json in ["9007199254740993", "18446744073709551616", "1e309", "99999999999999999999999999.5", "1e20"] {
            assert_eq!(read(json), Some(MAX_COUNT), "{json}");
        }
    }

    #[test]
    fn what_is_negative_or_no_number_is_no_count() {
        for json in ["-1", "-0.5", "null", "\"7\"", "true", "[7]", "{}"] {
            assert_eq!(read(json), None, "{json}");
        }
    }
}
