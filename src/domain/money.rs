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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
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
        let micro: i64 = micro[..6].parse().map_err(|_| MoneyError::NotDecimal)?;
        let amount = whole.checked_mul(1_000_000).and_then(|m| m.checked_add(micro));
        amount.map(Self).ok_or(MoneyError::Overflow)
    }
}

impl Total {
    pub const fn from_pico(amount_pico: i128) -> Self {
        Self(amount_pico)
    }

    pub const fn pico(self) -> i128 {
        self.0
    }

    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        self.0.checked_add(other.0).map(Self).ok_or(MoneyError::Overflow)
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
    fn dollars_print_exactly() {
        assert_eq!(Money::from_pico(246_900_000).to_string(), "0.0002469");
        assert_eq!(Money::ZERO.to_string(), "0");
        assert_eq!(Total::from_pico(-1_500_000_000_000).to_string(), "-1.5");
        assert_eq!(Total::from_pico(12_000_000_000_000).to_string(), "12");
        assert_eq!(Total::from_pico(1).to_string(), "0.000000000001");
    }
}
