//! Durations in requests: `90s`, `15m`, `1h30m`, `31d`.

/// Milliseconds in a duration written as a sum of whole numbers with units; `None` for anything else, for nothing, and
/// for more than a thousand years.
pub fn parse_duration_ms(text: &str) -> Option<i64> {
    let mut total: i64 = 0;
    let mut number: Option<i64> = None;
    for character in text.chars() {
        let unit_ms = match character {
            '0'..='9' => {
                let digit = i64::from(character as u32 - '0' as u32);
                number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
                continue;
            }
            's' => 1_000,
            'm' => 60_000,
            'h' => 3_600_000,
            'd' => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit_ms)?)?;
    }
    (number.is_none() && total > 0 && total <= 365_000 * 86_400_000).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_sums_with_units() {
        for (text, ms) in [
            ("60s", Some(60_000)),
            ("15m", Some(900_000)),
            ("1h30m", Some(5_400_000)),
            ("31d", Some(2_678_400_000)),
            ("", None),
            ("0s", None),
            ("60", None),
            ("s", None),
            ("-5s", None),
            ("1.5h", None),
            ("5 m", None),
            ("99999999999999999999d", None),
            ("9999999999d", None),
        ] {
            assert_eq!(parse_duration_ms(text), ms, "{text}");
        }
    }
}
