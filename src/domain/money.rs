//! Money in whole pico-dollars. A price of one micro-dollar per million tokens *is* one pico-dollar per token, so
//! pricing is integer multiplication and never rounds.

use std::fmt;

use serde::{Deserialize, Serialize};

const PICO_PER_DOLLAR: u128 = 1_000_000_000_000;

/// An amount of US dollars in pico-dollars (1e-12 $); holds up to 9.2 million dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Money(i64);

/// A sum of many amounts, in pico-dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Total(i128);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("the amount is larger than 9.2 million dollars")]
    Overflow,
    #[error("expected a decimal number of dollars such as \"0.15\"")]
    NotDecimal,
    #[error("at most six digits after the point: prices are whole micro-dollars per million")]
    TooPrecise,
}

impl Money {
    pub const ZERO: Self = Self(0);

    pub const fn from_pico(amount_pico: i64) -> Self {
        Self(amount_pico)
    }

    pub const fn pico(self) -> i64 {
        self.0
    }

    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        self.0.checked_add(other.0).map(Self).ok_or(MoneyError::Overflow)
    }

    /// `self` for each of `quantity` units.
    pub fn checked_times(self, quantity: u64) -> Result<Self, MoneyError> {
        let product = i128::from(self.0).checked_mul(i128::from(quantity)).ok_or(MoneyError::Overflow)?;
        i64::try_from(product).map(Self).map_err(|_| MoneyError::Overflow)
    }

    /// Reads dollars per million units ("0.15") as the price of one unit.
    pub fn per_million(dollars: &str) -> Result<Self, MoneyError> {
        let (whole, fraction) = dollars.split_once('.').unwrap_or((dollars, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err(MoneyError::NotDecimal);
        }
        if fraction.trim_end_matches('0').len() > 6 {
            return Err(MoneyError::TooPrecise);
        }
        let micro = format!("{fraction:0<6}");
        let whole: i64 = whole.parse().map_err(|_| MoneyError::Overflow)?;
        let micro: i64 = micro.get(..6).and_then(|micro| micro.parse().ok()).ok_or(MoneyError::NotDecimal)?;
        let amount = whole.checked_mul(1_000_000).and_then(|m| m.checked_add(micro));
        amount.map(Self).ok_or(MoneyError::Overflow)
    }
}

impl Total {
    /// 64 bits of dollars are 104 bits of pico-dollars.
    pub const fn from_dollars(dollars: u64) -> Self {
        Self((dollars as i128) * PICO_PER_DOLLAR.cast_signed())
    }

    pub const fn from_pico(amount_pico: i128) -> Self {
        Self(amount_pico)
    }

    pub const fn pico(self) -> i128 {
        self.0
    }

    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        self.0.checked_add(other.0).map(Self).ok_or(MoneyError::Overflow)
    }

    /// Reads dollars as JSON writes numbers (`0.0002469`, `-1.5`, `1.2e-05`), to the nearest pico-dollar.
    pub fn from_decimal(dollars: &str) -> Result<Self, MoneyError> {
        /// No amount is anywhere near 10^40 dollars. The other way no bound is needed: the less there is before the point,
        /// the less is to be done.
        const MAX_EXPONENT: i32 = 40;
        let (negative, magnitude) = dollars.strip_prefix('-').map_or((false, dollars), |rest| (true, rest));
        let (mantissa, exponent) = magnitude.split_once(['e', 'E']).unwrap_or((magnitude, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || !digits(exponent.trim_start_matches(['+', '-'])) {
            return Err(MoneyError::NotDecimal);
        }
        let exponent: i32 = exponent.parse().map_err(|_| MoneyError::NotDecimal)?;
        // As many digits as there are before the point once the amount is in pico-dollars.
        let point = i32::try_from(whole.len()).unwrap_or(i32::MAX).saturating_add(exponent).saturating_add(12);
        let all = whole.bytes().chain(fraction.bytes()).map(|digit| i128::from(digit - b'0'));
        if exponent > MAX_EXPONENT {
            return if all.sum::<i128>() == 0 { Ok(Self(0)) } else { Err(MoneyError::Overflow) };
        }
        let mut pico: i128 = 0;
        let mut padded = all.chain(std::iter::repeat(0));
        for _ in 0..point {
            let digit = padded.next().unwrap_or(0);
            pico = pico.checked_mul(10).and_then(|pico| pico.checked_add(digit)).ok_or(MoneyError::Overflow)?;
        }
        if point >= 0 && padded.next().unwrap_or(0) >= 5 {
            pico = pico.checked_add(1).ok_or(MoneyError::Overflow)?;
        }
        Ok(Self(if negative { -pico } else { pico }))
    }
}

impl From<Money> for Total {
    fn from(money: Money) -> Self {
        Self(i128::from(money.0))
    }
}

/// Exact dollars without trailing zeros: `0.0002469`, `0`, `-1.5`.
impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let (dollars, pico) = (magnitude / PICO_PER_DOLLAR, magnitude % PICO_PER_DOLLAR);
        let sign = if self.0 < 0 { "-" } else { "" };
        if pico == 0 {
            return write!(f, "{sign}{dollars}");
        }
        let fraction = format!("{pico:012}");
        write!(f, "{sign}{dollars}.{}", fraction.trim_end_matches('0'))
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Total::from(*self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_per_million_is_the_same_integer_per_token() {
        assert_eq!(Money::per_million("0.15"), Ok(Money::from_pico(150_000)));
        assert_eq!(Money::per_million("20"), Ok(Money::from_pico(20_000_000)));
        assert_eq!(Money::per_million("0.0125"), Ok(Money::from_pico(12_500)));
        assert_eq!(Money::per_million("0.1250000"), Ok(Money::from_pico(125_000)));
    }

    #[test]
    fn prices_off_the_grid_are_refused() {
        assert_eq!(Money::per_million("0.0000001"), Err(MoneyError::TooPrecise));
        for text in ["", ".", "1.", ".5", "-1", "1e3", "0,5", " 1", "1.2.3"] {
            assert_eq!(Money::per_million(text), Err(MoneyError::NotDecimal), "{text}");
        }
        assert_eq!(Money::per_million("99999999999999999999"), Err(MoneyError::Overflow));
    }

    #[test]
    fn arithmetic_reports_overflow() {
        assert_eq!(Money::from_pico(i64::MAX).checked_add(Money::from_pico(1)), Err(MoneyError::Overflow));
        assert_eq!(Money::from_pico(2).checked_times(u64::MAX), Err(MoneyError::Overflow));
        assert_eq!(Money::from_pico(20_000_000).checked_times(12), Ok(Money::from_pico(240_000_000)));
    }

    #[test]
    fn dollars_are_read_to_the_nearest_pico_dollar_and_never_through_a_float() {
        for (text, pico) in [
            ("0", 0),
            ("0.06", 60_000_000_000),
            ("-1.5", -1_500_000_000_000),
            ("1.2e-05", 12_000_000),
            ("1.2E+2", 120_000_000_000_000),
            ("0.00024690000000000003", 246_900_000),
            ("0.29809159056356166", 298_091_590_564),
            ("0.0000000000005", 1),
            ("0.00000000000049", 0),
            ("5e-13", 1),
            ("9e-20", 0),
            ("0e999", 0),
            ("1e-41", 0),
            ("-9.9e-2147483648", 0),
            ("1000000000000000000000000000000000000000000e-42", 1_000_000_000_000),
            ("123456789012345678.000000000001", 123_456_789_012_345_678_000_000_000_001),
        ] {
            assert_eq!(Total::from_decimal(text), Ok(Total::from_pico(pico)), "{text}");
        }
        for text in ["", "-", ".5", "1.", "1,5", "0x1", "1e", "1e+-2", "NaN", " 1", "--1", "1e99999999999"] {
            assert_eq!(Total::from_decimal(text), Err(MoneyError::NotDecimal), "{text}");
        }
        let long = "9".repeat(60);
        for text in ["1e30", "1e41", &long] {
            assert_eq!(Total::from_decimal(text), Err(MoneyError::Overflow), "{text}");
        }
    }

    #[test]
    fn dollars_print_exactly() {
        assert_eq!(Money::from_pico(246_900_000).to_string(), "0.0002469");
        assert_eq!(Money::ZERO.to_string(), "0");
        assert_eq!(Total::from_pico(-1_500_000_000_000).to_string(), "-1.5");
        assert_eq!(Total::from_pico(12_000_000_000_000).to_string(), "12");
        assert_eq!(Total::from_pico(1).to_string(), "0.000000000001");
    }
}
