//! Amounts on the wire: JSON numbers that are integers, at most 2^53 - 1 either way.

use domain::catalog::AMOUNT_MAX;
use serde::{Deserialize, Deserializer, de};
use std::fmt;

/// An integer amount. `5` and `5.0` are the same JSON number to many clients, and so they are here; `5.5` is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, utoipa::ToSchema)]
#[schema(value_type = i64, example = 1)]
pub struct Amount(pub i64);

/// Why a number is not an amount.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum AmountError {
    /// It has a fraction.
    #[error("an amount must be an integer in the meter's smallest unit, not {0}")]
    Fraction(f64),
    /// It is beyond 2^53 - 1.
    #[error("an amount must lie between -(2^53 - 1) and 2^53 - 1")]
    TooLarge,
}

impl Amount {
    /// From a JSON number with a fraction part or an exponent.
    ///
    /// # Errors
    /// [`AmountError`] where the number is no integer within the range.
    pub fn from_f64(number: f64) -> Result<Self, AmountError> {
        if number.fract() != 0.0 {
            return Err(if number.is_finite() { AmountError::Fraction(number) } else { AmountError::TooLarge });
        }
        if number.abs() > AMOUNT_MAX as f64 {
            return Err(AmountError::TooLarge);
        }
        Ok(Self(number as i64))
    }

    /// From an integer.
    ///
    /// # Errors
    /// [`AmountError::TooLarge`] beyond the range.
    pub fn from_i64(number: i64) -> Result<Self, AmountError> {
        if number.unsigned_abs() > AMOUNT_MAX as u64 { Err(AmountError::TooLarge) } else { Ok(Self(number)) }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AmountVisitor)
    }
}

struct AmountVisitor;

impl de::Visitor<'_> for AmountVisitor {
    type Value = Amount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer amount")
    }
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Amount, E> {
        Amount::from_i64(number).map_err(E::custom)
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Amount, E> {
        i64::try_from(number).map_err(|_| AmountError::TooLarge).and_then(Amount::from_i64).map_err(E::custom)
    }
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Amount, E> {
        Amount::from_f64(number).map_err(E::custom)
    }
}

#[cfg(test)]
#[path = "amount_tests.rs"]
mod tests;
