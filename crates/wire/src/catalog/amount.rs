//! Amounts of a meter, as limits and charges write them.

use super::{
    problem::quoted,
    report::Report,
    table::Node,
    units::{self, QuantityError},
};
use domain::catalog::{AMOUNT_MAX, Meter, MeterKind};
use toml::de::DeValue;

/// The word for a limit that does not bound.
pub(super) const UNLIMITED: &str = "unlimited";

/// How amounts of a meter may be written, apart from integers.
enum Notation {
    Integer,
    Duration,
    Size,
    Decimal(u8),
}

fn notation(meter: &Meter) -> Notation {
    match meter.kind {
        MeterKind::Duration => Notation::Duration,
        _ if matches!(&*meter.unit, "bytes" | "byte" | "B") => Notation::Size,
        _ if meter.decimals > 0 => Notation::Decimal(meter.decimals),
        _ => Notation::Integer,
    }
}

/// Whether the meter counts bytes, so that sizes of bodies can be charged on it.
pub(super) fn counts_bytes(meter: &Meter) -> bool {
    matches!(notation(meter), Notation::Size)
}

/// The `max` of a limit: `Some(None)` is unlimited, `None` is a problem that was noted. Without a meter, what can be
/// said about any meter is.
pub(super) fn max(report: &mut Report<'_>, node: Node<'_>, meter: Option<&Meter>) -> Option<Option<i64>> {
    match node.value {
        DeValue::String(text) if text == UNLIMITED => return Some(None),
        DeValue::String(text) if means_unlimited(text) => {
            let message = format!("`max` can't be {}", quoted(text));
            report.error_help(node.span, message, "write max = \"unlimited\"");
            return None;
        }
        DeValue::Integer(integer) if integer.as_str().starts_with('-') => {
            let help = match integer.as_str() {
                "-1" => "write max = \"unlimited\"",
                _ => "write 0 to allow none, or \"unlimited\"",
            };
            report.error_help(node.span, "`max` must not be negative", help);
            return None;
        }
        _ => {}
    }
    let meter = meter?;
    let max = amount(report, node, meter, "max")?;
    if meter.kind == MeterKind::Duration && (1..1000).contains(&max) && matches!(node.value, DeValue::Integer(_)) {
        let help = format!("write \"{max}s\" or \"{max}m\" if that is what you mean");
        report.warn(node.span, format!("{max} is {max} milliseconds"), help);
    }
    Some(Some(max))
}

fn means_unlimited(text: &str) -> bool {
    let word = text.trim().to_lowercase();
    let words = ["infinite", "infinity", "inf", "none", "no limit", "never", "-1"];
    words.contains(&&*word) || super::problem::closest(&word, [UNLIMITED]).is_some()
}

/// An amount in the meter's smallest unit.
pub(super) fn amount(report: &mut Report<'_>, node: Node<'_>, meter: &Meter, key: &str) -> Option<i64> {
    let what = format!("`{key}`");
    let value = match node.value {
        DeValue::Integer(_) => node.integer(report, &what)?,
        DeValue::String(text) => match written(text, meter) {
            Ok(value) => value,
            Err(problem) => {
                let message = format!("{what} can't be {}: {}", quoted(text), why(&problem, meter));
                report.error_help(node.span, message, help(&problem, text, meter));
                return None;
            }
        },
        _ => {
            node.expected(report, &what, "an amount", Some(&example(meter)));
            return None;
        }
    };
    if value.unsigned_abs() > AMOUNT_MAX.unsigned_abs() {
        report.error(node.span, format!("{what} is beyond 2^53 - 1, the largest amount there is"));
        return None;
    }
    Some(value)
}

fn written(text: &str, meter: &Meter) -> Result<i64, QuantityError> {
    match notation(meter) {
        Notation::Duration => units::duration_ms(text),
        Notation::Size => units::size_bytes(text),
        Notation::Decimal(decimals) => units::decimal(text, decimals),
        Notation::Integer => Err(QuantityError::Shape),
    }
}

fn why(problem: &QuantityError, meter: &Meter) -> String {
    match problem {
        QuantityError::Shape => format!("meter {} is counted in {}", quoted(meter.key.as_str()), quoted(&meter.unit)),
        QuantityError::NoUnit => "it has no unit".to_owned(),
        QuantityError::UnknownUnit(unit) => format!("there is no unit {}", quoted(unit)),
        QuantityError::NotWhole => format!("it is not a whole number of {}", quoted(&meter.unit)),
        QuantityError::TooLarge => "it is too large".to_owned(),
    }
}

fn help(problem: &QuantityError, text: &str, meter: &Meter) -> String {
    let plain = !text.is_empty() && text.len() < 16 && text.bytes().all(|byte| byte.is_ascii_digit());
    match (notation(meter), problem) {
        (Notation::Integer, _) if plain => format!("write {text} without quotes"),
        (Notation::Duration, QuantityError::NoUnit) if plain => {
            format!("write \"{text}m\" for minutes, or \"{text}s\"")
        }
        (Notation::Duration, QuantityError::UnknownUnit(_)) => "the units are ms, s, m, h and d".to_owned(),
        (Notation::Size, QuantityError::UnknownUnit(_)) => {
            "the units are B, kB, MB, GB, TB (10^3 each) and KiB, MiB, GiB, TiB (2^10 each)".to_owned()
        }
        _ => example(meter),
    }
}

fn example(meter: &Meter) -> String {
    match notation(meter) {
        Notation::Integer => "write an integer, such as 50".to_owned(),
        Notation::Duration => "write a time such as \"60m\" or \"1h30m\", or an integer of milliseconds".to_owned(),
        Notation::Size => "write a size such as \"10GB\" or \"512 MiB\", or an integer of bytes".to_owned(),
        Notation::Decimal(decimals) => {
            format!("write a text such as \"9.5\" (at most {decimals} decimals), or an integer of the smallest unit")
        }
    }
}
