//! Amounts written for people: "1h30m", "10 GB", "9.90". Exact integers, never floats.

/// Why a written amount can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum QuantityError {
    /// It is not a number followed by a unit.
    Shape,
    /// A number stands alone.
    NoUnit,
    /// The unit is not one of the known.
    UnknownUnit(String),
    /// It is no whole number of the smallest unit.
    NotWhole,
    /// It is beyond what an amount may be.
    TooLarge,
}

type Units = [(&'static str, i64)];

const DURATIONS: &Units = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZES: &Units = &[
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
];

/// A duration such as `90s`, `1h30m` or `7d`, in milliseconds.
pub(super) fn duration_ms(text: &str) -> Result<i64, QuantityError> {
    quantity(text, DURATIONS)
}

/// A size such as `500MB` (10^6) or `10 GiB` (2^30), in bytes.
pub(super) fn size_bytes(text: &str) -> Result<i64, QuantityError> {
    quantity(text, SIZES)
}

/// A decimal number such as `9.90`, in units of 10^-`decimals`.
pub(super) fn decimal(text: &str, decimals: u8) -> Result<i64, QuantityError> {
    let (number, rest) = split_number(text)?;
    if !rest.is_empty() {
        return Err(QuantityError::Shape);
    }
    number.times(10_i64.pow(u32::from(decimals.min(9))))
}

fn quantity(text: &str, units: &Units) -> Result<i64, QuantityError> {
    let mut rest = text.trim();
    let mut total = 0_i64;
    loop {
        let (number, after) = split_number(rest)?;
        let after = after.trim_start();
        let unit_end = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        if unit.is_empty() {
            return Err(if after.is_empty() { QuantityError::NoUnit } else { QuantityError::Shape });
        }
        let Some((_, factor)) = units.iter().find(|(word, _)| *word == unit) else {
            return Err(QuantityError::UnknownUnit(unit.to_owned()));
        };
        total = total.checked_add(number.times(*factor)?).ok_or(QuantityError::TooLarge)?;
        rest = after.trim_start();
        if rest.is_empty() {
            return Ok(total);
        }
    }
}

/// A decimal number, exactly: `digits` / 10^`places`.
struct Number {
    digits: i128,
    places: u32,
}

impl Number {
    fn times(&self, factor: i64) -> Result<i64, QuantityError> {
        let scaled = self.digits.checked_mul(i128::from(factor)).ok_or(QuantityError::TooLarge)?;
        let divisor = 10_i128.pow(self.places);
        if scaled % divisor != 0 {
            return Err(QuantityError::NotWhole);
        }
        i64::try_from(scaled / divisor).map_err(|_| QuantityError::TooLarge)
    }
}

fn split_number(text: &str) -> Result<(Number, &str), QuantityError> {
    let digits_end = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (whole, mut rest) = text.split_at(digits_end(text));
    let mut fraction = "";
    if let Some(after) = rest.strip_prefix('.') {
        (fraction, rest) = after.split_at(digits_end(after));
        if fraction.is_empty() {
            return Err(QuantityError::Shape);
        }
    }
    if whole.is_empty() {
        return Err(QuantityError::Shape);
    }
    if whole.len() + fraction.len() > 19 {
        return Err(QuantityError::TooLarge);
    }
    let digits = format!("{whole}{fraction}").parse().map_err(|_| QuantityError::TooLarge)?;
    Ok((Number { digits, places: fraction.len() as u32 }, rest))
}

#[cfg(test)]
#[path = "units_tests.rs"]
mod tests;
